// Who are you?
import { h, me, problem, tell } from "/static/ui.js";

export async function show(main) {
  await me();
  const name = h("input", { name: "name", autocomplete: "username", required: true });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const said = h("div");
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      await tell("/login", { name: name.value, password: password.value });
      const back = new URLSearchParams(location.search).get("back") || "/line";
      const ours = URL.canParse(back, location.origin) && new URL(back, location.origin).origin === location.origin;
      location.assign(ours ? back : "/line");
    } catch (error) {
      said.replaceChildren(problem(error));
      password.value = "";
      password.focus();
    }
  } },
  h("label", { class: "field" }, h("span", {}, "Name"), name),
  h("label", { class: "field" }, h("span", {}, "Password"), password),
  h("button", { class: "main" }, "Log in"), said);
  main.append(h("section", { class: "card login" }, h("header", {}, h("h1", {}, "Log in")), form));
  name.focus();
}
