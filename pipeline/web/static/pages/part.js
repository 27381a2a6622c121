// One part and everything that proves its verdict.
import { ask, badge, card, colourOf, h, marked, missedOf, partSize, problem, stamp, tell, words } from "/static/ui.js";

export async function show(main, { id, person }) {
  let found;
  try {
    found = await ask(`/parts/${encodeURIComponent(id)}`);
  } catch (error) {
    main.append(problem(error));
    return null;
  }
  const r = found.record;
  const missed = missedOf(found.truth, r.defects);
  const image = found.picture
    ? marked(r.id, r.image_box ? "part" : "full", partSize(r), r.defects, found.labels, [], missed)
    : h("p", { class: "empty" }, r.image ? "The picture was deleted to make room; the record says what was seen." : "No picture of this part was kept.");
  main.append(
    h("div", { class: "title" }, h("h1", {}, `Part ${r.part}`), badge(r.verdict), h("span", { class: "hint" }, stamp(Date.parse(r.time))), truthOf(found), h("span", { class: "space" }), h("a", { href: "/parts" }, "All parts")),
    h("div", { class: "part" },
      card("Picture", h("div", {}, image, missed.length ? h("p", { class: "hint miss" }, `Dashed in white: ${missed.length} true ${missed.length > 1 ? "defects" : "defect"} at which nothing was found (${missed.map((d) => words(d.label)).join(", ")}).`) : null), {}, found.picture ? h("a", { href: `/api/v1/parts/${r.id}/picture`, download: `${r.id}.jpg` }, "Whole frame") : null),
      h("div", { class: "side" },
        card("Why", r.reasons.length ? h("ul", { class: "reasons" }, r.reasons.map((t) => h("li", {}, words(t)))) : h("p", { class: "empty" }, "Nothing was found that counts.")),
        defects(r, found.labels),
        times(r),
        chain(found),
        again(found, person),
        reviews(found.reviews),
        card("Record", facts(found)))));
  return null;
}

function truthOf(found) {
  if (found.good === null) return null;
  const verdict = found.record.verdict;
  if (!found.good && verdict === "PASS") return h("span", { class: "miss" }, "truly bad: an escape");
  if (found.good && verdict === "FAIL") return h("span", { class: "miss" }, "truly good: overkill");
  return h("span", { class: "hint" }, found.good ? "truly good" : "truly bad");
}

// The stored picture through the model again; the verdict of that picture alone is compared.
function again(found, person) {
  if (!found.picture || !found.record.image_box || person.role === "viewer") return null;
  const said = h("p", { class: "hint", role: "status" }, "Shows the stored picture to the model again and compares what it says.");
  const button = h("button", { type: "button", onclick: () => run() }, "Run again");
  const run = async () => {
    button.disabled = true;
    said.className = "hint";
    said.replaceChildren("The model is being loaded in a process of its own …");
    try {
      const a = await tell(`/parts/${encodeURIComponent(found.record.id)}/rerun`, {});
      const what = a.found.length ? `${a.found.length} found: ${a.found.map((d) => `${words(d.label)} ${d.score.toFixed(2)}`).slice(0, 4).join(", ")}` : "nothing found";
      said.className = "again";
      said.replaceChildren(badge(a.verdict), h("span", { class: `level ${a.same ? "good" : "fault"}` }, a.same ? "✓ the same as then" : `✕ it was ${a.was}`), h("span", {}, what));
    } catch (error) {
      said.className = "problem";
      said.replaceChildren(error.message);
    }
    button.disabled = false;
  };
  return card("Run again", said, {}, button);
}

function defects(r, labels) {
  if (!r.defects.length) return null;
  return card("Found", h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), h("th", {}, "Defect"), h("th", { class: "num" }, "Score"), h("th", { class: "num" }, "Views"), h("th", { class: "num" }, "Size"))),
    h("tbody", {}, r.defects.map((d, i) => {
      const swatch = h("i", { class: "swatch" });
      swatch.style.background = colourOf(d.label, labels);
      const size = Math.max(d.xyxy[2] - d.xyxy[0], d.xyxy[3] - d.xyxy[1]);
      return h("tr", {}, h("td", {}, String(i + 1)), h("td", {}, swatch, words(d.label)), h("td", { class: "num" }, d.score.toFixed(2)), h("td", { class: "num" }, `${d.votes} of ${r.views}`), h("td", { class: "num" }, `${Math.round(size)} px`));
    }))));
}

const STAGES = { wait: "Waiting for it", trigger: "Finding the part", look: "Model, all views", rules: "Rules", record: "Record and picture" };

// Looking began while the part was on its way: the stages need not sum to the latency.
function times(r) {
  if (!r.stages_ms) return null;
  const most = Math.max(...Object.values(r.stages_ms), 0.001);
  return card("Where the time went", h("div", { class: "bars" }, Object.entries(STAGES).map(([stage, name]) => {
    const ms = r.stages_ms[stage];
    const bar = h("i");
    bar.style.width = `${Math.max(100 * ms / most, 0)}%`;
    return [h("span", {}, name), h("span", { class: "bar" }, bar), h("b", { class: "num" }, `${ms.toFixed(1)} ms`), h("span")];
  })), { class: "times" }, h("span", { class: "hint" }, `latency ${r.latency_ms.toFixed(1)} ms`));
}

function chain(found) {
  const { own, before, after, whole } = found.chain;
  const line = (ok, yes, no) => h("li", {}, h("span", { class: `level ${ok === null ? "off" : ok ? "good" : "fault"}` }, ok === null ? "–" : ok ? "✓" : "✕"), " ", ok === null ? "It is the newest record: nothing follows yet." : ok ? yes : no);
  return card("Proof", h("ul", { class: "broken" },
    line(own, "Its bytes fit the hash kept beside them.", "Its bytes were changed after it was written."),
    line(before, "It holds the hash of the record before it.", "It does not fit the record before it."),
    line(after, "The record after it holds its hash.", "The record after it does not fit.")), {},
  h("span", { class: `level ${whole ? "good" : "fault"}` }, whole ? "Chain whole" : "Chain broken"));
}

function reviews(list) {
  if (!list.length) return null;
  return card("Reviews", h("ul", { class: "broken" }, list.map((v) => h("li", {}, badge(v.verdict), ` ${v.who}, ${stamp(v.time_ms)}${v.wrong.length ? `; ${v.wrong.length} found defects are none` : ""}${v.note ? `: ${v.note}` : ""}`))));
}

function facts(found) {
  const r = found.record;
  const rows = [
    ["Id", r.id], ["Ledger", `number ${found.number}; run ${r.run}, ${r.seq}`], ["Latency", `${r.latency_ms.toFixed(1)} ms from exposure to reject command`],
    ["Views", `${r.views}; frames ${r.first_frame} to ${r.last_frame}`], ["Recipe", r.recipe], ["Model", `${r.bundle} on ${r.runtime}`],
    ["SHA-256 of record", found.sha256], ["of record before", r.previous_sha256], ["of picture", r.image_sha256 || "–"], ["of model", r.artefact_sha256], ["of bundle", r.bundle_sha256], ["of station file", r.config_sha256],
  ];
  return h("dl", {}, rows.map(([k, v]) => [h("dt", {}, k), h("dd", { class: /SHA|^of|Id/.test(k) ? "mono" : "" }, String(v))]));
}
