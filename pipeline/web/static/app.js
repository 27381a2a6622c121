// The frame around the pages: which page, who is here, and whether the station can be trusted now.
import { h, me } from "/static/ui.js";
import { feed } from "/static/feed.js";

const PAGES = [
  ["line", "Line", "M3 17h18M6 17V8h5v9M13 17v-6h5v6"],
  ["quality", "Quality", "M4 20V4M4 20h16M8 16l4-5 3 3 5-7"],
  ["parts", "Parts", "M4 6h16M4 12h16M4 18h10"],
  ["review", "Review", "M4 13l5 5L20 6"],
  ["station", "Station", "M5 5h14v9H5zM9 19h6M12 14v5"],
  ["recipes", "Recipes", "M5 6h14M5 12h14M5 18h14M9 4v4M15 10v4M8 16v4"],
];

const main = document.getElementById("main");
let leave = null;
let person = null;

function pageOf(path) {
  const [, name, id] = path.split("/");
  return name === "parts" && id ? ["part", decodeURIComponent(id)] : [name || "line", null];
}

async function show() {
  const [name, id] = pageOf(location.pathname);
  if (leave) leave();
  leave = null;
  document.body.classList.remove("operator");
  const known = PAGES.find(([page]) => page === (name === "part" ? "parts" : name));
  document.title = `${known ? known[1] : "Log in"} · lineguard`;
  for (const link of document.querySelectorAll("#pages a")) {
    const here = link.dataset.page === (known ? known[0] : "");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const page = await import(`/static/pages/${name}.js`);
  main.replaceChildren();
  main.className = `page-${name}`;
  leave = (await page.show(main, { id, person, feed, go })) || null;
}

export function go(path) {
  history.pushState(null, "", path);
  window.scrollTo(0, 0);
  return show();
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

function state(line) {
  const { level, title, reasons } = line.health;
  const pill = document.getElementById("state");
  if (pill.textContent !== title) pill.textContent = title;
  pill.className = `pill ${level}`;
  document.body.dataset.level = level;
  document.getElementById("station").textContent = line.station || "";
  const alarm = document.getElementById("alarm");
  alarm.hidden = reasons.length === 0;
  alarm.className = `alarm ${level}`;
  const said = reasons.join("  ·  ");
  if (alarm.textContent !== said) alarm.textContent = said;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || link.pathname.startsWith("/api")) return;
  if (link.hash) return;
  event.preventDefault();
  go(link.pathname + link.search).then(() => main.focus({ preventScroll: true }));
});
window.addEventListener("popstate", show);

document.getElementById("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  document.dispatchEvent(new Event("theme"));
});

async function begin() {
  document.getElementById("pages").append(...PAGES.map(([page, title, path]) =>
    h("a", { href: `/${page}`, "data-page": page }, icon(path), h("span", {}, title))));
  person = await me();
  const foot = document.getElementById("foot");
  foot.append(`lineguard ${person.version}`, h("a", { href: person.source, rel: "noreferrer" }, "Source"),
    h("a", { href: "/api/v1/openapi.json" }, "API"));
  if (person.accounts && person.name) {
    const { tell } = await import("/static/ui.js");
    document.getElementById("person").append(`${person.name}, ${person.role} `,
      h("button", { class: "plain", type: "button", onclick: () => tell("/logout", {}).then(() => location.assign("/login")) }, "Log out"));
  }
  if (location.pathname === "/") history.replaceState(null, "", "/line");
  if (person.name) {
    feed.listen(state);
    feed.start();
  } else if (location.pathname !== "/login") {
    location.assign(`/login?back=${encodeURIComponent(location.pathname)}`);
    return;
  }
  await show();
}

begin();
