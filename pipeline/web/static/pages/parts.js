// All parts, newest first: search, narrow down, open one.
import { ask, badge, card, choice, count, empty, h, picture, problem, query, stamp, words } from "/static/ui.js";

const SINCE = [["", "Any time"], ["1", "Last hour"], ["8", "Last 8 hours"], ["24", "Last 24 hours"], ["168", "Last 7 days"]];

export async function show(main, { go, person }) {
  const given = new URLSearchParams(location.search);
  const chosen = { verdict: given.get("verdict") || "", label: given.get("label") || "", since: given.get("since") || "", text: given.get("text") || "" };
  const body = h("tbody");
  const more = h("button", { type: "button", hidden: true }, "Older parts");
  const said = h("div");
  const { thresholds } = await ask("/recipe");
  let before = null;

  const values = () => ({ verdict: chosen.verdict, label: chosen.label, text: chosen.text.trim(), since_ms: chosen.since ? Date.now() - 3600e3 * Number(chosen.since) : "" });
  const csv = h("a", { download: "parts.csv" }, "CSV");
  const parquet = h("a", { download: "parts.parquet" }, "Parquet");
  const load = async (fresh) => {
    try {
      const found = await ask(`/parts${query({ ...values(), before: fresh ? "" : before })}`);
      if (fresh) body.replaceChildren();
      body.append(...found.parts.map((p) => row(p, go)));
      before = found.before;
      more.hidden = before === null;
      said.replaceChildren(body.children.length ? "" : empty("No part fits this search."));
    } catch (error) {
      said.replaceChildren(problem(error));
    }
    csv.href = `/api/v1/parts.csv${query(values())}`;
    parquet.href = `/api/v1/parts.parquet${query(values())}`;
  };
  const change = (key) => (value) => {
    chosen[key] = value;
    history.replaceState(null, "", `/parts${query(chosen)}`);
    load(true);
  };
  const text = h("input", { type: "search", value: chosen.text, placeholder: "Part number or id", onchange: () => change("text")(text.value) });
  more.addEventListener("click", () => load(false));

  main.append(
    h("div", { class: "head" }, h("h1", {}, "Parts"),
      h("label", { class: "field" }, h("span", {}, "Search"), text),
      choice("Verdict", [["", "All"], ["PASS", "PASS"], ["FAIL", "FAIL"], ["UNSURE", "UNSURE"]], chosen.verdict, change("verdict")),
      choice("Defect", [["", "All"], ...Object.keys(thresholds).map((l) => [l, words(l)])], chosen.label, change("label")),
      choice("Time", SINCE, chosen.since, change("since"))),
    card("Newest first", h("div", {}, h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["", "Part", "Verdict", "Defects", "Time", "Review", "Latency"].map((t, i) => h("th", { class: i > 5 ? "num hide-small" : i > 3 ? "hide-small" : "" }, t)))), body)), said, more), {}, csv, person.parquet ? parquet : null));
  await load(true);
}

function row(p, go) {
  const href = `/parts/${p.id}`;
  return h("tr", { class: "link", onclick: (event) => { if (!event.target.closest("a")) go(href); } },
    h("td", { class: "thumb" }, p.picture ? picture(p.id, "thumb", "") : null),
    h("td", {}, h("a", { href }, count(p.part))),
    h("td", {}, badge(p.verdict), p.good === false && p.verdict === "PASS" ? h("span", { class: "miss" }, " escape") : null, p.good === true && p.verdict === "FAIL" ? h("span", { class: "miss" }, " overkill") : null),
    h("td", {}, p.labels.map(words).join(", ")),
    h("td", { class: "hide-small" }, stamp(p.time_ms)),
    h("td", { class: "hide-small" }, p.review ? badge(p.review) : ""),
    h("td", { class: "num hide-small" }, `${Math.round(p.latency_ms)} ms`));
}
