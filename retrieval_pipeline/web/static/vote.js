// One picture after the other: y, n, u.

import { change, explain, fragment, toast } from "./common.js";
import { choose } from "./votes.js";

const stage = document.getElementById("voting");
const { name } = stage.dataset;
let busy = false;

choose(name);
history.replaceState(null, "", `/vote?name=${encodeURIComponent(name)}`);

async function next(extra = "") {
  const content = await fragment(`/fragments/vote?name=${encodeURIComponent(name)}${extra}`);
  const focused = document.activeElement?.dataset?.key;
  stage.replaceChildren(content);
  stage.querySelector(`[data-key="${focused}"]`)?.focus();
  watch();
}

// A picture that cannot be shown cannot be judged: another one takes its place.
function watch() {
  const figure = stage.querySelector(".large");
  figure?.querySelector("img").addEventListener("error", async () => {
    toast("A picture that cannot be shown was left out.");
    try {
      await change("POST", "/api/set-aside", { name, content_id: figure.dataset.id });
      await next();
    } catch (error) {
      toast(explain(error));
    }
  });
}

const actions = {
  y: () => vote(true),
  n: () => vote(false),
  async u() {
    const undone = await change("DELETE", `/api/judgements?name=${encodeURIComponent(name)}`);
    if (!undone.content_id) toast("There is no vote to take back.");
    await next(undone.indexed ? `&show=${undone.content_id}` : "");
  },
};

async function vote(liked) {
  const figure = stage.querySelector(".large");
  if (!figure) return;
  await change("POST", "/api/judgements", { name, content_id: figure.dataset.id, liked });
  await next();
}

async function act(key) {
  // A key that is pressed before the next picture shows would be a vote on something unseen.
  if (busy) return;
  busy = true;
  stage.setAttribute("aria-busy", "true");
  try {
    await actions[key]();
  } catch (error) {
    toast(explain(error));
  }
  stage.removeAttribute("aria-busy");
  busy = false;
}

addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (key in actions && !event.target.closest("input") && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) {
    event.preventDefault();
    act(key);
  }
});
stage.addEventListener("click", (event) => {
  const button = event.target.closest("[data-key]");
  if (button) act(button.dataset.key);
});
watch();
document.documentElement.dataset.ready = "yes";
