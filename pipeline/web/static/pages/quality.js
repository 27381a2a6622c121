// Is the process as it was? Which defects, where on the part, and since when.
import { VERDICTS, ask, bare, card, clock, colourOf, colours, empty, h, percent, picture, problem, s, stamp, words } from "/static/ui.js";

const HOURS = [["8", "8 hours"], ["24", "24 hours"], ["168", "7 days"], ["720", "30 days"]];
const STEPS = [["minute", "Minutes"], ["hour", "Hours"], ["day", "Days"]];
const SIZES = [["5", "5 parts"], ["10", "10 parts"], ["20", "20 parts"], ["50", "50 parts"], ["200", "200 parts"]];
const AGAIN_MS = 5000;

export async function show(main) {
  const chosen = { hours: "24", step: "minute", size: "10", label: "" };
  const bars = h("div");
  const chart = h("div", { class: "plot" });
  const broken = h("ul", { class: "broken" });
  const trend = h("div", { class: "plot" });
  const map = h("div");
  const mapTools = h("span");
  const said = h("div");
  const set = (key, draw) => (value) => { chosen[key] = value; draw(); };
  let labels = [];
  let ended = false;

  const drawPareto = async () => {
    const found = (await ask(`/quality/pareto?hours=${chosen.hours}`)).labels;
    labels = [...new Set([...labels, ...found.map((f) => f.label)])];
    bars.replaceChildren(pareto(found));
  };
  const drawChart = async () => {
    const found = await ask(`/quality/chart?size=${chosen.size}`);
    pChart(chart, broken, found);
  };
  const drawTrend = async () => trendChart(trend, (await ask(`/quality/trend?step=${chosen.step}`)).steps, chosen.step);
  const drawMap = async () => {
    const found = await ask(`/quality/map${chosen.label ? `?label=${encodeURIComponent(chosen.label)}` : ""}`);
    const named = labels.length ? labels : [...new Set(found.places.map((p) => p[2]))];
    mapTools.replaceChildren(bare("Defect", [["", "All defects"], ...named.map((l) => [l, words(l)])], chosen.label, set("label", drawMap)));
    map.replaceChildren(defectMap(found, named));
  };
  const all = async () => {
    try {
      await drawPareto();
      await Promise.all([drawChart(), drawTrend(), drawMap()]);
      said.replaceChildren();
    } catch (error) {
      said.replaceChildren(problem(error));
    }
  };

  main.append(h("div", { class: "head" }, h("h1", {}, "Quality")), said,
    h("div", { class: "two" },
      card("Share of rejects, p chart", h("div", {}, chart, broken), { class: "wide" }, bare("Parts in a group", SIZES, chosen.size, set("size", drawChart))),
      h("div", { class: "stack" },
        card("Defects on rejected parts", bars, {}, bare("Time", HOURS, chosen.hours, set("hours", drawPareto))),
        card("Verdicts over time", trend, {}, bare("Step", STEPS, chosen.step, set("step", drawTrend)))),
      card("Where they lie on the part", map, {}, mapTools)));
  await all();
  const timer = setInterval(() => { if (!document.hidden && !main.querySelector("select:focus")) all(); }, AGAIN_MS);
  document.addEventListener("theme", all);
  return () => {
    if (ended) return;
    ended = true;
    clearInterval(timer);
    document.removeEventListener("theme", all);
  };
}

function pareto(found) {
  if (!found.length) return empty("No rejected part with a defect in this time.");
  const total = found.reduce((sum, f) => sum + f.defects, 0);
  let sum = 0;
  return h("div", { class: "bars" }, found.map((f) => {
    sum += f.defects;
    const fillBar = h("i");
    fillBar.style.width = `${(100 * f.defects) / found[0].defects}%`;
    return [h("span", {}, words(f.label)), h("div", { class: "bar" }, fillBar), h("b", { class: "num", title: `on ${f.parts} parts` }, String(f.defects)), h("span", { class: "sum num", title: "cumulative" }, percent(sum / total, 0))];
  }), h("span", { class: "sum" }, "defects"), h("span"), h("span", { class: "sum num" }, String(total)), h("span", { class: "sum" }, "cumul."));
}

function axes(c, format) {
  const axis = { stroke: c.muted, grid: { stroke: c.grid, width: 1 }, ticks: { stroke: c.grid, width: 1 }, font: "12px system-ui" };
  return [{ ...axis, values: (_, at) => at.map(format) }, axis];
}

function plot(box, options, data) {
  if (box.plot) box.plot.destroy();
  const width = Math.max(box.clientWidth, 280);
  box.replaceChildren();
  box.plot = new uPlot({ width, height: 250, cursor: { drag: { x: false, y: false } }, ...options }, data, box);
}

function pChart(box, broken, found) {
  const c = colours();
  const points = found.points;
  if (!points.length) {
    box.replaceChildren(empty(`Not one group of ${found.size} parts yet.`));
    broken.replaceChildren();
    return;
  }
  const known = found.centre !== null;
  const at = points.map((_, i) => i + 1);
  const wrong = points.map((p) => (p.broken.length ? 100 * p.share : null));
  const line = (label, stroke, dash) => ({ label, stroke, dash, width: 1.5, points: { show: false }, value: (_, v) => (v === null ? "–" : `${v.toFixed(1)} %`) });
  const step = { paths: uPlot.paths.stepped({ align: 0 }) };
  plot(box, {
    scales: { x: { time: false, range: [0.5, at.length + 0.5] }, y: { range: (_, low, high) => [0, Math.min(Math.max(high * 1.08, 10), 104)] } },
    axes: axes(c, (i) => (points[i - 1] ? clock(points[i - 1].time_ms).slice(0, 5) : "")).map((a, i) => (i ? { ...a, values: (_, v) => v.map((x) => `${x} %`) } : { ...a, incrs: [1, 2, 5, 10, 20] })),
    series: [{ label: "Group" },
      { ...line("Rejects", c.accent), width: 2, points: { show: true, size: 6, fill: c.accent } },
      { ...line("Centre", c.muted), show: known },
      { ...line("Upper limit", c.UNSURE, [6, 4]), ...step, show: known },
      { ...line("Lower limit", c.UNSURE, [6, 4]), ...step, show: known },
      { label: "Rule broken", stroke: c.FAIL, width: 0, paths: () => null, points: { show: true, size: 12, stroke: c.FAIL, fill: c.FAIL }, value: (_, v) => (v === null ? "–" : `${v.toFixed(1)} %`) }],
  }, [at, points.map((p) => 100 * p.share), at.map(() => (known ? 100 * found.centre : null)),
    points.map((p) => (known ? 100 * p.high : null)), points.map((p) => (known ? 100 * p.low : null)), wrong]);
  const list = points.map((p, i) => [p, i]).filter(([p]) => p.broken.length).slice(-4).reverse();
  broken.replaceChildren(...(known
    ? list.length
      ? list.map(([p, i]) => h("li", {}, h("b", {}, `Group ${i + 1}`), ` at ${stamp(p.time_ms)}: ${p.count} of ${p.of} rejected; ${p.broken.join("; ")}`))
      : [h("li", {}, `In control: centre ${percent(found.centre)}, no rule broken in ${points.length} groups.`)]
    : [h("li", {}, `${points.length} groups so far; limits come with the eighth.`)]));
}

function trendChart(box, steps, step) {
  const c = colours();
  const first = steps.findIndex((t) => VERDICTS.some((v) => t[v]));
  if (first < 0) {
    box.replaceChildren(empty("No part in this time."));
    return;
  }
  const shown = steps.slice(Math.max(Math.min(first, steps.length - 12), 0));
  const at = shown.map((_, i) => i);
  const fail = shown.map((t) => t.FAIL);
  const both = shown.map((t) => t.FAIL + t.UNSURE);
  const sum = shown.map((t) => t.FAIL + t.UNSURE + t.PASS);
  const bars = uPlot.paths.bars({ size: [0.72, 42] });
  const series = (label, colour, key) => ({ label, stroke: colour, fill: colour, width: 0, paths: bars, points: { show: false }, value: (_, __, ___, i) => (i === null || i === undefined ? "–" : String(shown[i][key])) });
  const format = (i) => {
    if (!shown[i]) return "";
    return step === "day" ? stamp(shown[i].time_ms).slice(5, 10) : clock(shown[i].time_ms).slice(0, 5);
  };
  plot(box, {
    scales: { x: { time: false, range: [-0.6, shown.length - 0.4] }, y: { range: (_, low, high) => [0, Math.max(high * 1.05, 4)] } },
    axes: axes(c, format).map((a, i) => (i ? a : { ...a, incrs: [1, 2, 5, 10, 20] })),
    series: [{ label: "Time", value: (_, v) => (v === null ? "–" : format(v)) }, series("Passed", c.PASS, "PASS"), series("Unsure", c.UNSURE, "UNSURE"), series("Failed", c.FAIL, "FAIL")],
  }, [at, sum, both, fail]);
}

function defectMap(found, labels) {
  if (!found.places.length) return empty("No defect on a rejected part yet.");
  const dots = found.places.map(([x, y, label]) => s("circle", { cx: x * 100, cy: y * 100, r: 1.1, fill: colourOf(label, labels), stroke: "#0b0d10", "stroke-width": 0.25, "fill-opacity": 0.85 }));
  const ground = found.picture ? picture(found.picture, "part", "A part of this kind") : h("div", { class: "blank" });
  const here = labels.filter((l) => found.places.some((p) => p[2] === l));
  return h("div", {}, h("div", { class: "map" }, ground, s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `${found.places.length} defects by place` }, dots)),
    h("div", { class: "keys" }, here.map((l) => {
      const dot = h("i");
      dot.style.background = colourOf(l, labels);
      return h("span", {}, dot, words(l));
    })));
}
