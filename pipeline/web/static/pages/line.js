// The line as it runs: the picture, the newest verdict large, counts, rejects, and why if it is not ready.
import { MARKS, VERDICTS, badge, card, clock, count, empty, h, percent, picture, words } from "/static/ui.js";
import { panel } from "/static/pages/demo.js";

const REJECTS = 6;
const NEWEST = 15;

export async function show(main, { feed, person }) {
  const live = h("img", { class: "live", alt: "Live picture of the line", width: 640, height: 360 });
  const veil = h("div", { class: "veil", hidden: true });
  const verdict = h("div", { class: "verdict none", role: "status", "aria-live": "polite" });
  const tiles = h("div", { class: "tiles" });
  const rejects = h("div", { class: "rejects" }, empty("No reject yet."));
  const ribbon = h("div", { class: "ribbon", "aria-label": "Newest parts, the latest at the right" });
  const view = h("button", { class: "plain", type: "button", title: "Operator view (key O)", onclick: () => document.body.classList.toggle("operator") }, "Operator view");

  const demo = person.demo ? panel(person) : null;

  main.append(
    h("h1", { class: "unseen" }, "Line"),
    h("div", { class: "lineboard" },
      h("div", { class: "column" },
        card("Live", h("div", { class: "screen" }, live, veil), { class: "livecard" }, view),
        card("Newest parts", ribbon, { class: "ribboncard" })),
      h("div", { class: "column" }, verdict, tiles),
      card("Last rejects", rejects, { class: "rejectcard" }, h("a", { href: "/parts" }, "All parts")),
      demo ? demo.cards : null,
    ));

  const watch = () => { live.src = `/api/v1/live.mjpg?${Date.now()}`; };
  const hide = () => { if (document.hidden) live.removeAttribute("src"); else watch(); };
  document.addEventListener("visibilitychange", hide);
  live.addEventListener("error", () => { veil.hidden = false; veil.textContent = "No live picture"; });
  watch();

  const keys = (event) => {
    if (event.key === "o" && !event.target.closest("input, textarea, select")) document.body.classList.toggle("operator");
    if (event.key === "Escape") document.body.classList.remove("operator");
  };
  document.addEventListener("keydown", keys);

  let shown = null;
  const stop = feed.listen((line, back) => {
    if (back) watch();
    const { health, figures, records } = line;
    veil.hidden = health.trusted;
    veil.textContent = health.title;
    big(verdict, records[records.length - 1], health);
    tiles.replaceChildren(...figuresOf(figures, line.latency_ms, line.frames));
    const newest = JSON.stringify(records.map((r) => [r.number, r.good]));
    if (newest !== shown) {
      shown = newest;
      ribbon.replaceChildren(...records.slice(-NEWEST).map((r) => h("a", { href: `/parts/${r.id}`, class: `dot ${r.verdict} ${wrong(r) ? "miss" : ""}`, title: `Part ${r.part}: ${r.verdict}${truth(r)}` }, h("span", {}, MARKS[r.verdict]), h("small", {}, String(r.part)))));
      const bad = records.filter((r) => r.verdict !== "PASS").slice(-REJECTS).reverse();
      if (bad.length) rejects.replaceChildren(...bad.map(reject));
    }
  });
  return () => {
    stop();
    if (demo) demo.leave();
    document.removeEventListener("keydown", keys);
    document.removeEventListener("visibilitychange", hide);
    live.removeAttribute("src");
  };
}

function big(box, record, health) {
  if (!record) {
    box.className = "verdict none";
    box.replaceChildren(h("div", { class: "word" }, "–"), h("div", { class: "why" }, health.trusted ? "Waiting for the first part" : health.reasons[0] || health.title));
    return;
  }
  // An old verdict is shown grey: only what is true now has a colour.
  box.className = `verdict ${health.trusted ? record.verdict : "old"}`;
  const why = health.trusted
    ? record.reasons.slice(0, 2).map((r) => h("div", {}, words(r)))
    : [h("div", {}, health.reasons[0] || health.title)];
  box.replaceChildren(
    h("div", { class: "word" }, health.trusted ? record.verdict : health.title.toUpperCase()),
    h("div", { class: "which" }, health.trusted ? `Part ${record.part} at ${clock(record.time_ms)}${truth(record)}` : `Last: part ${record.part} ${record.verdict}`),
    h("div", { class: "why" }, why));
}

function figuresOf(figures, latency, frames) {
  if (!figures || !figures.verdicts) return [];
  const { verdicts } = figures;
  const interval = figures.yield.interval || [];
  const tiles = VERDICTS.map((v) => tile(v === "UNSURE" ? "Unsure" : v === "PASS" ? "Passed" : "Failed", count(verdicts[v]), "this run", v));
  tiles.push(
    tile("Yield", percent(figures.yield.share), figures.parts ? `95\u00a0% interval ${percent(interval[0], 0).replace("\u00a0%", "")}\u2060–\u2060${percent(interval[1], 0)}` : "no part yet"),
    tile("Rate", figures.per_minute ? `${figures.per_minute}` : "–", "parts per minute"),
    tile("Latency", latency && latency.p99 !== null ? `${Math.round(latency.p99)} ms` : "–", "99th percentile"));
  if (figures.truth) {
    const { escapes, overkill } = figures.truth;
    tiles.push(tile("Escapes", count(escapes.count), `of ${count(escapes.of)} bad parts`, escapes.count ? "FAIL" : ""),
      tile("Overkill", count(overkill.count), `of ${count(overkill.of)} good parts`, overkill.count ? "UNSURE" : ""));
    if (frames) {
      const dropped = Object.values(frames.dropped || {}).reduce((a, b) => a + b, 0);
      tiles.push(tile("Frames", count(frames.captured), `${count(dropped)} not looked at`));
    }
  }
  if (figures.behind > 0) tiles.push(tile("Catching up", count(figures.behind), "records to index"));
  return tiles;
}

function tile(name, value, said, kind = "") {
  return h("div", { class: `tile ${kind}` }, h("span", {}, name), h("b", {}, value), h("small", {}, said));
}

const wrong = (r) => r.good !== null && r.good !== undefined && ((r.good && r.verdict === "FAIL") || (!r.good && r.verdict === "PASS"));

function truth(r) {
  if (r.good === null || r.good === undefined) return "";
  if (!r.good && r.verdict === "PASS") return " · truly bad: escape";
  if (r.good && r.verdict === "FAIL") return " · truly good: overkill";
  return r.good ? " · truly good" : " · truly bad";
}

function reject(r) {
  return h("a", { class: "reject", href: `/parts/${r.id}` },
    r.picture ? picture(r.id, "thumb", `Part ${r.part}`) : h("div", { class: "nopicture" }, "no picture"),
    h("div", { class: "caption" }, badge(r.verdict), h("b", {}, `#${r.part}`)),
    h("small", {}, r.labels.length ? r.labels.map(words).join(", ") : r.reasons[0] || ""),
    r.good === null || r.good === undefined ? null : h("small", { class: wrong(r) ? "miss" : "" }, truth(r).slice(3)));
}
