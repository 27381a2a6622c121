// The rules in force, and what other rules would have said of the parts that are stored.
import { ask, badge, card, choice, count, empty, h, picture, problem, tell, words } from "/static/ui.js";

const PARTS = [["100", "100 parts"], ["500", "500 parts"], ["2000", "2000 parts"]];

export async function show(main) {
  const { recipe, thresholds, bundle } = await ask("/recipe");
  let parts = "500";
  const inputs = {};
  const result = h("div", {}, empty("Change a number and preview: nothing on the line changes."));
  const field = (label, key, value, step, max) => {
    const input = h("input", { type: "number", min: 0, max, step, value: String(value), "aria-label": `${words(label)} ${key}`, onchange: preview });
    inputs[label][key] = input;
    return h("td", { class: "num" }, input);
  };
  const rows = Object.entries(thresholds).map(([label, t]) => {
    const rule = recipe.defects[label] || {};
    inputs[label] = {};
    return h("tr", {}, h("td", {}, words(label)),
      field(label, "unsure", rule.unsure ?? Math.min(t.unsure, rule.fail ?? t.fail), 0.01, 1),
      field(label, "fail", rule.fail ?? t.fail, 0.01, 1),
      field(label, "min_size_px", rule.min_size_px ?? 0, 1, 10000),
      field(label, "allow", rule.allow ?? 0, 1, 100));
  });

  async function preview() {
    const defects = {};
    for (const [label, of] of Object.entries(inputs)) {
      defects[label] = { unsure: Number(of.unsure.value), fail: Number(of.fail.value), min_size_px: Number(of.min_size_px.value), allow: Number(of.allow.value) };
    }
    try {
      result.replaceChildren(shown(await tell("/recipe/preview", { defects, parts: Number(parts) })));
    } catch (error) {
      result.replaceChildren(problem(error));
    }
  }

  main.append(h("div", { class: "head" }, h("h1", {}, `Recipe ${recipe.name}`), choice("Judge again", PARTS, parts, (v) => { parts = v; preview(); }), h("button", { class: "main", type: "button", onclick: preview }, "Preview")),
    h("div", { class: "two" },
      card("Rules", h("div", { class: "scroll" }, h("table", { class: "rules" }, h("thead", {}, h("tr", {}, h("th", {}, "Defect"), ["Unsure from", "Fail from", "Smallest, px", "Tolerated"].map((t) => h("th", { class: "num" }, t)))), h("tbody", {}, rows))), {}, h("span", { class: "hint" }, `model ${bundle}; views: at least ${recipe.min_views}; zones: ${recipe.zones.length}`)),
      card("What would have changed", result)),
    h("p", { class: "hint" }, "To put rules into force, write them into the recipe of the station file and restart the station: every record names the hash of its file."));
  return null;
}

function shown(a) {
  const said = Object.entries(a.table).filter(([k]) => { const [was, now] = k.split(">"); return was !== now; });
  return h("div", {},
    h("p", {}, h("b", {}, count(a.count)), ` of ${count(a.parts)} stored parts would have got another verdict.`),
    said.length ? h("ul", { class: "broken" }, said.map(([k, n]) => { const [was, now] = k.split(">"); return h("li", {}, badge(was), h("span", { class: "arrow" }, "→"), badge(now), ` ${count(n)}`); })) : null,
    a.below_floor ? h("p", { class: "problem" }, `Scores below ${a.floor.toFixed(2)} were not kept: thresholds under it cannot be judged on stored parts.`) : null,
    h("div", { class: "flips" }, a.flipped.map((f) => h("a", { class: "reject", href: `/parts/${f.id}` }, f.picture ? picture(f.id, "thumb", `Part ${f.part}`) : h("div", { class: "nopicture" }, "no picture"), h("div", {}, badge(f.was), h("span", { class: "arrow" }, "→"), badge(f.now)), h("small", {}, `#${f.part} ${f.reasons[0] ? words(f.reasons[0]) : ""}`)))));
}
