// Suggestions below the box while one types: recent searches, which this browser keeps, and what the
// server knows of. See https://www.w3.org/WAI/ARIA/apg/patterns/combobox/.

import { ask } from "./common.js";

const RECENT = "recent"; // under this name the browser keeps what was asked
const KEPT = 20; // recent searches that are kept
const OFFERED = 5; // and such that are offered
const PAUSE = 150; // milliseconds without a key before suggestions are asked for

/**
 * @typedef {object} Suggestion
 * @property {string} kind
 * @property {string} label
 * @property {string} text What the box holds then.
 * @property {string | null} [parameter] Of a filter that is set then.
 * @property {string | null} [value]
 */

/** @returns {string[]} */
function recent() {
  try {
    return JSON.parse(localStorage.getItem(RECENT) ?? "[]");
  } catch {
    return [];
  }
}

/**
 * Keep what was asked, the latest first.
 * @param {string | null} text
 */
export function remember(text) {
  if (!text?.trim()) return;
  const kept = [text, ...recent().filter((other) => other !== text)].slice(0, KEPT);
  localStorage.setItem(RECENT, JSON.stringify(kept));
}

/**
 * Offer suggestions below a field.
 * @param {HTMLInputElement} field
 * @param {HTMLElement} list
 * @param {(chosen: Suggestion) => void} choose
 */
export function attach(field, list, choose) {
  /** @type {Suggestion[]} */
  let offered = [];
  let active = -1;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer = undefined;
  /** @type {AbortController | null} */
  let asking = null;

  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");

  function close() {
    clearTimeout(timer);
    asking?.abort();
    offered = [];
    show();
  }

  function show() {
    active = -1;
    field.removeAttribute("aria-activedescendant");
    list.replaceChildren(
      ...offered.map(({ kind, label }, index) => {
        const option = document.createElement("li");
        option.id = `${list.id}-${index}`;
        option.role = "option";
        option.ariaSelected = "false";
        const name = document.createElement("bdi");
        name.textContent = label;
        const what = document.createElement("small");
        what.textContent = kind === "words" ? "" : kind;
        option.append(name, what);
        return option;
      }),
    );
    list.hidden = !offered.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
  }

  /** @param {number} index */
  function activate(index) {
    active = index;
    for (const [i, option] of [...list.children].entries()) option.ariaSelected = String(i === active);
    if (active < 0) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", `${list.id}-${active}`);
  }

  async function offer() {
    const text = field.value;
    const folded = text.trim().toLowerCase();
    /** @type {Suggestion[]} */
    const known = recent()
      .filter((other) => other !== text && other.toLowerCase().startsWith(folded))
      .slice(0, OFFERED)
      .map((other) => ({ kind: "recent", label: other, text: other }));
    asking?.abort();
    const mine = (asking = new AbortController());
    try {
      const path = `/api/suggestions?${new URLSearchParams({ text })}`;
      const found = folded ? (await (await ask(path, { signal: mine.signal })).json()).suggestions : [];
      if (mine !== asking || mine.signal.aborted || document.activeElement !== field) return;
      const labels = new Set(known.map(({ label }) => label));
      offered = [...known.slice(0, folded ? 2 : OFFERED), ...found.filter((/** @type {Suggestion} */ one) => !labels.has(one.label))];
      show();
    } catch {
      // Suggestions are not worth a message.
    }
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(offer, PAUSE);
  });
  field.addEventListener("click", () => list.hidden && offer());
  field.addEventListener("blur", close);
  field.form?.addEventListener("submit", close);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      // What was typed stays, where browsers wipe it.
      event.preventDefault();
      close();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) offer();
      else {
        const count = offered.length + 1;
        const step = event.key === "ArrowDown" ? 1 : -1;
        activate(((active + 1 + step + count) % count) - 1);
      }
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      const chosen = offered[active];
      close();
      choose(chosen);
    }
  });
  // Before the field loses the focus.
  list.addEventListener("pointerdown", (event) => {
    const option = event.target instanceof Element ? event.target.closest("li") : null;
    if (!option) return;
    event.preventDefault();
    const chosen = offered[[...list.children].indexOf(option)];
    close();
    choose(chosen);
  });
}
