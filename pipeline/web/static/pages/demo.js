// The demo's panel: faults to try, and another line to show.
import { ask, card, h, problem, sendFile, tell } from "/static/ui.js";

const LOOK_MS = 2000;
const FAULTS = [
  ["camera", "Unplug the camera", "Plug the camera in"],
  ["lamp", "Dim the lamp", "Turn the lamp up"],
  ["broker", "Kill the broker", "Start the broker"],
  ["disk", "Fill the disk", "Empty the disk"],
];

export function panel(person) {
  const may = person.role === "engineer";
  const { shown, leave } = lines(may);
  return { cards: [faults(may), shown], leave };
}

function faults(may) {
  const box = h("div", { class: "faults" });
  const said = h("div");
  const draw = ({ faults: on, offered }) => box.replaceChildren(...FAULTS.filter(([name]) => name in offered).map(([name, make, mend]) => {
    const broken = Boolean(on[name]);
    const cannot = offered[name] && !broken;
    const flip = () => tell("/demo/faults", { name, on: !broken }).then((a) => { said.replaceChildren(); draw(a); }).catch((e) => said.replaceChildren(problem(e)));
    return h("button", { type: "button", class: broken ? "switch on" : "switch", "data-fault": name, "aria-pressed": String(broken), title: cannot ? offered[name] : null, disabled: !may || Boolean(cannot), onclick: flip }, broken ? mend : make);
  }));
  ask("/demo/faults").then(draw).catch((e) => said.replaceChildren(problem(e)));
  return card("Try to break it", h("div", {}, box, said, h("p", { class: "hint" }, "Each switch makes a real fault on this demo line. Watch the state, the reason, and the counts; then mend it again.")), { class: "faultcard" });
}

// Another line ends the one that runs: a new run begins, with the same model and the same rules.
function lines(may) {
  const select = h("select", { "aria-label": "Line", disabled: !may, onchange: () => change(select.value) });
  const file = h("input", { type: "file", class: "unseen", tabindex: -1, "aria-label": "Video", onchange: () => send() });
  const add = h("button", { type: "button", disabled: !may, onclick: () => file.click() }, "Add a video");
  const said = h("p", { class: "hint", role: "status" });
  const failed = h("div");
  let most = 0;
  const draw = (a) => {
    most = a.upload.most_bytes;
    file.accept = a.upload.suffixes.join(",");
    const names = JSON.stringify([a.lines, a.now]);
    if (names !== select.dataset.names && document.activeElement !== select) {
      select.dataset.names = names;
      select.replaceChildren(...a.lines.map(({ id, words }) => h("option", { value: id, selected: id === a.now }, words)));
    }
    const text = a.said || "A video, or a webcam of this machine, goes through the same model and rules.";
    if (said.textContent !== text) said.textContent = text;
    said.className = a.said ? "problem" : "hint";
  };
  const run = async (work) => {
    add.disabled = true;
    try {
      draw(await work());
      failed.replaceChildren();
    } catch (error) {
      failed.replaceChildren(problem(error));
    }
    add.disabled = !may;
  };
  const change = (line) => {
    select.blur();
    return run(() => tell("/demo/lines", { line }));
  };
  const send = () => run(async () => {
    const [video] = file.files;
    if (video.size > most) throw new Error(`${video.name} has ${Math.ceil(video.size / 2 ** 20)} MiB; at most ${most / 2 ** 20} are taken`);
    const name = video.name.replaceAll(/[^0-9A-Za-z ._-]/g, "_");
    const { line } = await sendFile(`/demo/videos?name=${encodeURIComponent(name)}`, video);
    file.value = "";
    return tell("/demo/lines", { line });
  });
  const look = () => { if (!document.hidden && !add.disabled) ask("/demo/lines").then(draw).catch(() => {}); };
  ask("/demo/lines").then(draw).catch((e) => failed.replaceChildren(problem(e)));
  const timer = setInterval(look, LOOK_MS);
  const shown = card("Choose the line", h("div", {}, h("div", { class: "faults" }, select, add, file), failed, said), { class: "faultcard" });
  return { shown, leave: () => clearInterval(timer) };
}
