// Each part of the station: how it is, since what it says, and what to do if it is not well.
import { ask, card, count, h, problem, stamp } from "/static/ui.js";

const WORDS = { good: "● well", warning: "▲ look", fault: "✕ fault", off: "○ not known" };
const AGAIN_MS = 1000;

export async function show(main, { person }) {
  const rows = h("tbody");
  const frames = h("dl");
  const identity = h("dl");
  const versions = h("dl");
  const audit = h("tbody");
  const said = h("div");
  main.append(h("div", { class: "head" }, h("h1", {}, "Station")), said, h("div", { class: "two" },
    card("Parts of the station", h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["", "State", "What it says, and what to do"].map((t) => h("th", {}, t)))), rows)), { class: "wide" }),
    card("Frames and time", frames), card("Software", versions),
    card("What is running", identity, { class: "wide" }),
    person.role === "engineer" ? card("Who changed what", h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Time", "Who", "What", ""].map((t) => h("th", {}, t)))), audit)), { class: "wide" }) : null));
  const load = async () => {
    try {
      const a = await ask("/station");
      said.replaceChildren();
      rows.replaceChildren(...a.rows.map((r) => h("tr", {}, h("td", {}, h("b", {}, r.name)), h("td", {}, h("span", { class: `level ${r.level}` }, WORDS[r.level])), h("td", {}, r.said, r.mend ? h("div", { class: "mend" }, r.mend) : null))));
      const f = a.frames || {};
      const dropped = Object.entries(f.dropped || {}).map(([why, n]) => `${count(n)} ${why}`).join(", ");
      const ms = (v) => (v === null || v === undefined ? "–" : `${v.toFixed(1)} ms`);
      pairs(frames, [["Captured", count(f.captured)], ["Inspected", count(f.inspected)], ["Dropped", dropped || "0"], ["Lost exposures", count(f.lost_exposures)], ["Camera reopened", count(f.reopened)], ["Latency p50", ms(a.latency_ms && a.latency_ms.p50)], ["Latency p99", ms(a.latency_ms && a.latency_ms.p99)], ["Station's clock", stamp(a.utc_ms)], ["Differs from yours by", `${Math.round((Date.now() - a.utc_ms) / 100) / 10} s`]]);
      pairs(versions, Object.entries(a.versions));
      pairs(identity, Object.entries(a.identity).map(([k, v]) => [k.replaceAll("_", " "), v === null ? "–" : String(v)]), true);
    } catch (error) {
      said.replaceChildren(problem(error));
    }
  };
  const lines = async () => {
    if (person.role !== "engineer") return;
    const found = (await ask("/audit?limit=20")).audit;
    audit.replaceChildren(...found.map((e) => h("tr", {}, h("td", {}, stamp(e.time_ms)), h("td", {}, e.who), h("td", {}, e.action), h("td", { class: "mono" }, Object.values(e.what).join(" ")))));
  };
  await Promise.all([load(), lines()]);
  const timer = setInterval(() => { if (!document.hidden) load(); }, AGAIN_MS);
  return () => clearInterval(timer);
}

function pairs(list, rows, mono = false) {
  list.replaceChildren(...rows.flatMap(([k, v]) => [h("dt", {}, k), h("dd", { class: mono ? "mono" : "" }, v)]));
}
