// Saved searches: the menu of them, with what is new in each, and saving the one that is shown.

import { ask, change, explain, root, toast, within } from "./common.js";
import { onIndex } from "./news.js";

/** @typedef {{ name: string, search: string, new: number | null, problem: string }} Saved */

const menu = /** @type {HTMLDetailsElement} */ (document.querySelector(".saved"));
const list = /** @type {HTMLElement} */ (menu.querySelector("ul"));
const badge = /** @type {HTMLElement} */ (menu.querySelector("summary .new"));
const form = /** @type {HTMLFormElement} */ (document.getElementById("save"));

/**
 * Make an element with a text.
 * @param {string} tag
 * @param {string} text
 * @param {Record<string, string>} attributes
 */
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** @param {{ searches: Saved[] }} told */
function show({ searches }) {
  const fresh = searches.reduce((sum, each) => sum + (each.new ?? 0), 0);
  badge.hidden = !fresh;
  badge.textContent = `${fresh.toLocaleString("en")} new`;
  const items = searches.map((each) => {
    const item = element("li", "");
    item.append(element("a", each.name, { href: `${root}/?${each.search}`, "data-name": each.name, "data-saved": each.search }));
    if (each.new) item.append(element("span", `${each.new.toLocaleString("en")} new`, { class: "new" }));
    if (each.problem) item.append(element("span", each.problem, { class: "hint" }));
    item.append(element("button", "Forget", { type: "button", class: "plain", "data-forget": each.name, "aria-label": `Forget “${each.name}”` }));
    return item;
  });
  if (!items.length) items.push(element("li", "None yet.", { class: "hint" }));
  list.replaceChildren(...items);
}

/**
 * Show the saved searches, and let people open, save and forget them.
 * @param {{ search: () => URLSearchParams, go: (search: URLSearchParams) => void }} page
 */
export function listen(page) {
  const look = () => ask("/api/searches").then((answer) => answer.json()).then(show);
  menu.addEventListener("click", async (event) => {
    const saved = within(event, "[data-saved]");
    const forget = within(event, "[data-forget]");
    try {
      if (saved) {
        event.preventDefault();
        menu.open = false;
        page.go(new URLSearchParams(saved.dataset.saved));
        show(await change("POST", "/api/searches/seen", { name: saved.dataset.name }));
      } else if (forget) {
        show(await change("DELETE", `/api/searches?${new URLSearchParams({ name: forget.dataset.forget ?? "" })}`));
      }
    } catch (error) {
      toast(explain(error));
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = String(new FormData(form).get("name"));
    try {
      show(await change("POST", "/api/searches", { name, search: String(page.search()) }));
      form.reset();
      toast(`“${name}” is saved: it tells when it finds something new.`);
    } catch (error) {
      toast(explain(error));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
  document.addEventListener("click", (event) => {
    if (menu.open && !within(event, ".saved")) menu.open = false;
  });
  // What is new can wait until the pictures are there.
  const lookQuietly = () => look().catch(() => {});
  setTimeout(lookQuietly, 500);
  onIndex(lookQuietly);
}
