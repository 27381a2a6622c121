// What all pages share: building elements, asking the station, writing numbers.

export const VERDICTS = ["PASS", "FAIL", "UNSURE"];
export const MARKS = { PASS: "✓", FAIL: "✕", UNSURE: "?" };
// Okabe and Ito's palette: told apart by colour-blind people too.
const COLOURS = ["#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#0072b2", "#b8a800"];

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

let token = "";

export async function ask(path, options = {}) {
  const answer = await fetch(`/api/v1${path}`, { credentials: "same-origin", ...options });
  if (answer.status === 401) {
    const back = location.pathname + location.search;
    if (!back.startsWith("/login")) location.assign(`/login?back=${encodeURIComponent(back)}`);
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `the dashboard answered ${answer.status}`);
  return body;
}

export async function me() {
  const person = await ask("/me");
  token = person.token;
  return person;
}

export const tell = (path, body) => post(path, "application/json", JSON.stringify(body));
export const sendFile = (path, file) => post(path, "application/octet-stream", file);

async function post(path, type, body) {
  const send = () => ask(path, { method: "POST", headers: { "content-type": type, "x-csrf-token": token }, body });
  try {
    return await send();
  } catch (error) {
    if (!String(error.message).includes("x-csrf-token")) throw error;
    await me(); // the dashboard or the session is a new one
    return send();
  }
}

export function query(values) {
  const given = Object.entries(values).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export function colourOf(label, labels) {
  const at = labels.indexOf(label);
  return COLOURS[(at < 0 ? 0 : at) % COLOURS.length];
}

export const words = (label) => label.replaceAll("_", " ");
export const count = (n) => Number(n || 0).toLocaleString("en-GB").replaceAll(",", "\u202f");
export const percent = (x, digits = 1) => (x === null || x === undefined ? "–" : `${(100 * x).toFixed(digits)}\u00a0%`);
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const stamp = (ms) => `${new Date(ms).toLocaleDateString("en-CA")} ${clock(ms)}`;

export function badge(verdict) {
  return h("span", { class: `badge ${verdict}` }, h("i", { "aria-hidden": "true" }, MARKS[verdict]), verdict);
}

export function picture(id, view, alt) {
  return h("img", { src: `/api/v1/parts/${encodeURIComponent(id)}/picture?view=${view}`, alt, loading: "lazy", decoding: "async" });
}

export function card(title, body, attributes = {}, ...tools) {
  return h("section", { ...attributes, class: `card ${attributes.class || ""}` },
    h("header", {}, h("h2", {}, title), tools.length ? h("div", { class: "tools" }, tools) : null), body);
}

export function empty(text) {
  return h("p", { class: "empty" }, text);
}

export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error.message || String(error));
}

export function bare(label, values, chosen, onchange) {
  const select = h("select", { "aria-label": label, onchange: () => onchange(select.value) },
    values.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  return select;
}

export function choice(label, values, chosen, onchange) {
  return h("label", { class: "field" }, h("span", {}, label), bare(label, values, chosen, onchange));
}

export function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { text: of("--text"), muted: of("--muted"), grid: of("--line"), PASS: of("--pass"), FAIL: of("--fail"), UNSURE: of("--unsure"), accent: of("--accent") };
}

// Boxes over a picture; the picture keeps its proportions, so shares of it are enough.
export function marked(id, view, size, defects, labels, wrong = [], missed = []) {
  const [width, height] = size;
  const unit = Math.max(width, height) / 100;
  const shapes = defects.map((d, i) => {
    const [x0, y0, x1, y1] = d.xyxy;
    const off = wrong.includes(i);
    return s("g", { class: off ? "wrong" : "" },
      s("rect", { x: x0 - unit / 2, y: y0 - unit / 2, width: x1 - x0 + unit, height: y1 - y0 + unit, fill: "none", stroke: colourOf(d.label, labels), "stroke-width": unit / 2.2, "stroke-dasharray": off ? `${unit} ${unit}` : null }),
      s("text", { x: Math.min(x0, width * 0.94), y: Math.max(y0 - unit * 1.2, unit * 3), "font-size": unit * 3, class: "tag" }, String(i + 1)));
  });
  for (const d of missed) {
    const [x0, y0, x1, y1] = d.xyxy;
    shapes.push(s("rect", { class: "missed", x: x0 - unit, y: y0 - unit, width: x1 - x0 + 2 * unit, height: y1 - y0 + 2 * unit, "stroke-width": unit / 1.6, "stroke-dasharray": `${unit} ${unit / 1.5}` }, s("title", {}, `missed: ${words(d.label)}`)));
  }
  const image = picture(id, view, "The part, with its defects marked");
  image.loading = "eager";
  return h("figure", { class: "marked" }, image, s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, shapes));
}

// Which true defects nothing was found at: no box of any label whose middle lies in or near them.
export function missedOf(truth, found) {
  const near = 6;
  return (truth || []).filter(({ xyxy: [x0, y0, x1, y1] }) => !found.some((d) => {
    const x = (d.xyxy[0] + d.xyxy[2]) / 2;
    const y = (d.xyxy[1] + d.xyxy[3]) / 2;
    return x >= x0 - near && x <= x1 + near && y >= y0 - near && y <= y1 + near;
  }));
}

export function partSize(record) {
  const [x0, y0, x1, y1] = record.image_box || record.box;
  return [Math.max(x1 - x0, 1), Math.max(y1 - y0, 1)];
}
