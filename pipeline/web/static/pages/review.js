// Parts of which the station is not sure, one after the other, by keyboard if you like.
import { ask, badge, card, colourOf, count, empty, h, marked, partSize, problem, tell, words } from "/static/ui.js";

export async function show(main, { person }) {
  const stage = h("div", { class: "review" });
  const sums = h("div");
  const said = h("div");
  let queue = [];
  let found = null;
  let wrong = [];
  let busy = false;
  const may = person.role === "operator" || person.role === "engineer";
  const note = h("input", { placeholder: "Note", maxlength: 500, "aria-label": "Note" });

  const draw = () => {
    if (!found) {
      stage.replaceChildren(card("Nothing to review", empty("No UNSURE part is waiting."), { class: "wide" }), sums);
      return;
    }
    const r = found.record;
    const list = h("div", { class: "defects" }, r.defects.map((d, i) => {
      const swatch = h("i", { class: "swatch" });
      swatch.style.background = colourOf(d.label, found.labels);
      return h("label", {}, h("input", { type: "checkbox", checked: !wrong.includes(i), onchange: () => toggle(i) }), swatch, `${words(d.label)} ${d.score.toFixed(2)}`, i < 9 ? h("kbd", {}, String(i + 1)) : null);
    }));
    stage.replaceChildren(
      card(`Part ${r.part}`, found.picture ? marked(r.id, r.image_box ? "part" : "full", partSize(r), r.defects, found.labels, wrong) : empty("No picture of this part was kept."), {}, badge(r.verdict), h("a", { href: `/parts/${r.id}` }, "Details")),
      h("div", { class: "side" },
        card("Is this part good?", h("div", {},
          h("div", { class: "answers" },
            h("button", { type: "button", class: "good", disabled: !may, onclick: () => answer("PASS") }, "Good", h("kbd", {}, "G")),
            h("button", { type: "button", class: "bad", disabled: !may, onclick: () => answer("FAIL") }, "Bad", h("kbd", {}, "B"))),
          h("p", {}, note, " ", h("button", { type: "button", onclick: skip }, "Skip", h("kbd", {}, "S"))),
          may ? null : h("p", { class: "hint" }, "Your role may look, not review."))),
        card("Is each of these a defect?", r.defects.length ? list : empty("Nothing was found.")),
        card("Why it is unsure", h("ul", { class: "reasons" }, r.reasons.map((t) => h("li", {}, words(t))))),
        sums));
  };
  const toggle = (i) => {
    wrong = wrong.includes(i) ? wrong.filter((w) => w !== i) : [...wrong, i];
    draw();
  };
  const next = async () => {
    wrong = [];
    note.value = "";
    found = null; // until the next part is shown, a key means nothing
    if (!queue.length) await load();
    const head = queue.shift();
    found = head ? await ask(`/parts/${head.id}`) : null;
    draw();
  };
  const skip = () => next().catch(fail);
  const fail = (error) => said.replaceChildren(problem(error));
  const answer = async (verdict) => {
    if (busy || !found || !may) return;
    busy = true;
    try {
      await tell(`/parts/${found.record.id}/review`, { verdict, wrong: verdict === "PASS" ? [] : wrong, note: note.value });
      said.replaceChildren();
      await next();
      await figures();
    } catch (error) {
      fail(error);
    }
    busy = false;
  };
  const load = async () => {
    const answerOf = await ask("/reviews?limit=50");
    queue = answerOf.waiting;
    tally(answerOf);
  };
  const figures = async () => tally(await ask("/reviews?limit=1"));
  const tally = (a) => sums.replaceChildren(agreement(a));

  const keys = (event) => {
    if (event.target.closest("input[placeholder], textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "g") answer("PASS");
    else if (key === "b") answer("FAIL");
    else if (key === "s") skip();
    else if (/^[1-9]$/.test(key) && found && found.record.defects[Number(key) - 1]) toggle(Number(key) - 1);
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", keys);
  main.append(h("div", { class: "head" }, h("h1", {}, "Review"), may ? h("span", { class: "tools" }, "Export", h("a", { href: "/api/v1/reviews/export?format=yolo", download: "" }, "YOLO"), h("a", { href: "/api/v1/reviews/export?format=coco", download: "" }, "COCO"), h("a", { href: "/api/v1/reviews/export?format=labelstudio", download: "", title: "With what the station found as pre-annotations; parts that wait for review are in it too" }, "Label Studio")) : null), said, stage);
  await next().catch(fail);
  return () => document.removeEventListener("keydown", keys);
}

function agreement(a) {
  const rows = Object.entries(a.agreement);
  return card("Station and people", rows.length
    ? h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Station said"), h("th", { class: "num" }, "people: good"), h("th", { class: "num" }, "people: bad"))),
      h("tbody", {}, rows.map(([station, of]) => h("tr", {}, h("td", {}, badge(station)), h("td", { class: "num" }, count(of.PASS)), h("td", { class: "num" }, count(of.FAIL))))))
    : empty("No part has been reviewed yet."), {}, h("span", { class: "hint" }, `${count(a.reviewed)} reviewed`));
}
