// One picture after the other: y, n, u.

import { change, explain, fragment, root, toast, within } from "./common.js";
import { choose } from "./votes.js";

const stage = /** @type {HTMLElement} */ (document.getElementById("voting"));
const name = stage.dataset.name ?? "";
let busy = false;

choose(name);
history.replaceState(null, "", `${root}/vote?${new URLSearchParams({ name })}`);

/** @param {Record<string, string>} [more] */
async function next(more = {}) {
  const content = await fragment(`/fragments/vote?${new URLSearchParams({ name, ...more })}`);
  const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.key;
  stage.replaceChildren(content);
  /** @type {HTMLElement | null} */ (stage.querySelector(`[data-key="${focused}"]`))?.focus();
  watch();
}

const figure = () => /** @type {HTMLElement | null} */ (stage.querySelector(".large"));

// A picture that cannot be shown cannot be judged: another one takes its place.
function watch() {
  const shown = figure();
  shown?.querySelector("img")?.addEventListener("error", async () => {
    toast("A picture that cannot be shown was left out.");
    try {
      await change("POST", "/api/set-aside", { name, content_id: shown.dataset.id });
      await next();
    } catch (error) {
      toast(explain(error));
    }
  });
}

/** @type {Record<string, () => Promise<void>>} */
const actions = {
  y: () => vote(true),
  n: () => vote(false),
  async u() {
    const undone = await change("DELETE", `/api/judgements?${new URLSearchParams({ name })}`);
    if (!undone.content_id) toast("There is no vote to take back.");
    await next(undone.indexed ? { show: undone.content_id } : {});
  },
};

/** @param {boolean} liked */
async function vote(liked) {
  const shown = figure();
  if (!shown) return;
  await change("POST", "/api/judgements", { name, content_id: shown.dataset.id, liked });
  await next();
}

/** @param {string} key */
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
  if (key in actions && !within(event, "input") && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) {
    event.preventDefault();
    act(key);
  }
});
stage.addEventListener("submit", (event) => {
  const key = /** @type {HTMLElement | null} */ (event.submitter)?.dataset.key;
  if (!key) return;
  event.preventDefault();
  act(key);
});
watch();
document.documentElement.dataset.ready = "yes";
