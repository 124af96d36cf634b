// The search page: answers while people type, an address that holds everything, a grid of everything
// that was found, pictures to search by, and one picture large.

import { ask, change, explain, fragment, opensElsewhere, root, toast, within } from "./common.js";
import { onIndex, seen } from "./news.js";
import * as look from "./look.js";
import { gridOf } from "./results.js";
import * as scrubber from "./scrubber.js";
import * as saved from "./saved.js";
import * as selection from "./selection.js";
import * as suggest from "./suggest.js";
import { Viewer } from "./viewer.js";
import * as votes from "./votes.js";

/** @typedef {{ index: number, below: number }} Anchor */

const PAUSE = 150; // milliseconds without a key before an answer is asked for
const LOOKED_AT = 1500; // milliseconds after which an answer is a step of the history of its own
// Fields that add to what a search has already, as chips.
const ADDED = new Set(["path", "camera", "keyword"]);
// What an address says of the window on a search, and not of the search.
const WINDOW = new Set(["k", "offset"]);

const form = /** @type {HTMLFormElement} */ (document.getElementById("search"));
const words = /** @type {HTMLInputElement} */ (form.elements.namedItem("text"));
const refine = /** @type {HTMLInputElement} */ (document.querySelector('[name="refine"]'));
const filters = /** @type {HTMLDetailsElement} */ (document.querySelector(".filters"));
const main = /** @type {HTMLElement} */ (document.getElementById("content"));
const state = /** @type {HTMLElement} */ (document.getElementById("state"));
const waiting = /** @type {HTMLElement} */ (document.getElementById("waiting"));
const drop = /** @type {HTMLElement} */ (document.getElementById("drop"));

/** @type {import("./grid.js").Grid | null} */
let grid = null;
/** @type {AbortController | null} The latest question. */
let asking = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer = undefined;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let settling = undefined;
let browsing = false; // whether the facets are open
let typing = false; // the newest entry of the history is being typed
let here = parameters(location.href); // what is shown, without `view`

history.scrollRestoration = "manual";

/** @param {string} address */
function parameters(address) {
  const found = new URL(address, location.href).searchParams;
  found.delete("view");
  return found;
}

/** @param {URLSearchParams} search */
const addressOf = (search) => `${root}/${String(search) && `?${search}`}`;

/** The fields of the form that people fill in. */
const fields = () =>
  /** @type {(HTMLInputElement | HTMLSelectElement)[]} */ ([...form.elements]).filter(
    (field) => field.name && field.type !== "hidden" && field.type !== "file",
  );

/**
 * What is asked for: the parts of the present search, and what the form says now. Fields that are
 * empty are left out. What was typed to be added becomes a part.
 */
function asked() {
  const search = new URLSearchParams();
  const added = new URLSearchParams();
  for (const field of fields()) {
    const value = field.value.trim();
    if (!value || (field instanceof HTMLInputElement && field.type === "checkbox" && !field.checked)) continue;
    if (field.name === "refine") {
      const part = value.replace(/^[+\-−\s]+/, "");
      if (part) added.append(/^[-−]/.test(value) ? "minus" : "plus", part);
    } else if (ADDED.has(field.name)) added.append(field.name, value);
    else search.append(field.name, value);
  }
  const single = new Set(fields().map(({ name }) => name).filter((name) => !ADDED.has(name)));
  const parts = [...here].filter(([name]) => !single.has(name) && !WINDOW.has(name));
  for (const [name, value] of [...parts, ...added]) if (!search.has(name, value)) search.append(name, value);
  return search;
}

/**
 * Show what another search finds. Only the answer to the latest question is shown.
 * @param {URLSearchParams} search
 * @param {{ entry?: "push" | "replace" | "none", anchor?: Anchor | null }} [options]
 */
async function go(search, { entry = "push", anchor = null } = {}) {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  if (entry === "push") {
    remember();
    history.pushState({}, "", addressOf(search));
  } else if (entry === "replace") history.replaceState({}, "", addressOf(search));
  here = search;
  const soon = setTimeout(() => (waiting.hidden = false), 400);
  state.setAttribute("aria-busy", "true");
  try {
    const answer = await fragment(`/fragments/search?${search}`, mine.signal);
    if (mine !== asking) return;
    grid?.close();
    state.replaceChildren(answer);
    arrive();
    scrollTo({ top: 0, behavior: "instant" });
    if (anchor) await grid?.restore(anchor);
  } catch (error) {
    if (/** @type {Error} */ (error).name !== "AbortError") {
      toast(explain(error), "Try again", () => go(search, { entry: "none", anchor }));
    }
  } finally {
    clearTimeout(soon);
    if (mine === asking) {
      waiting.hidden = true;
      state.removeAttribute("aria-busy");
    }
  }
}

/** Go to another search, unless it is the one that is shown or on its way. */
function goTo(/** @type {URLSearchParams} */ search, /** @type {"push" | "replace"} */ entry = "push") {
  clearTimeout(timer);
  if (String(search) !== String(here)) go(search, { entry });
}

/**
 * Bring an answer to life.
 * @returns {import("./grid.js").Grid | null}
 */
function arrive() {
  const list = /** @type {HTMLElement | null} */ (state.querySelector(".cards"));
  const summary = document.getElementById("summary")?.textContent;
  document.title = here.size ? `${summary} · retrieval` : "retrieval";
  say([summary, state.querySelector(".verdict")?.textContent].filter(Boolean).join(": "));
  // The map can be coloured by what was asked.
  const text = here.get("text");
  const map = /** @type {HTMLAnchorElement | null} */ (document.querySelector('nav a[data-to="map"]'));
  if (map) map.href = `${root}/map${text ? `?${new URLSearchParams({ text })}` : ""}`;
  grid = list && gridOf(list, here);
  scrubber.attach(grid);
  const facets = /** @type {HTMLDetailsElement | null} */ (state.querySelector(".facets"));
  if (facets) facets.open = browsing;
  grid?.addEventListener("loaded", () => {
    votes.mark(state);
    selection.mark(state);
  });
  grid?.addEventListener("counted", judge);
  selection.arrive(selecting.album());
  selection.mark(state);
  votes.mark(state);
  return grid;
}

/** Say how many of all pictures are likely, once that is known. */
function judge() {
  const verdict = state.querySelector(".verdict");
  if (!grid || !verdict) return;
  const [likely, surely] = [grid.likely, grid.surely].map((count) => count.toLocaleString("en"));
  if (grid.likely) verdict.textContent = `${likely} likely; the rest are only the nearest`;
  else if (grid.surely) verdict.textContent = grid.more ? `More than ${surely} likely` : `All ${surely} likely`;
}

// Parameters by which pictures are nearer or farther; the others only filter.
const ASKING = ["text", "plus", "like", "like_album", "upload"];

/** Let screen readers say what has changed. */
function say(/** @type {string} */ text) {
  const said = document.getElementById("said");
  if (said && said.textContent !== text) said.textContent = text;
}

/** Let the fields outside of the answer follow the address. */
function fill(/** @type {URLSearchParams} */ search) {
  const asks = ASKING.some((name) => search.get(name));
  const first = document.querySelector('#sort option[value=""]');
  if (first) first.textContent = asks ? "best first" : "newest first";
  for (const field of fields()) {
    if (field instanceof HTMLInputElement && field.type === "checkbox") {
      field.checked = search.getAll(field.name).includes(field.value);
    } else field.value = ADDED.has(field.name) ? "" : search.get(field.name) || "";
  }
}

words.addEventListener("input", () => {
  clearTimeout(timer);
  clearTimeout(settling);
  timer = setTimeout(() => {
    goTo(asked(), typing ? "replace" : "push");
    typing = true;
    // What was looked at for a while is a search that one may want to come back to.
    settling = setTimeout(() => {
      typing = false;
      suggest.remember(words.value);
    }, LOOKED_AT);
  }, PAUSE);
});
for (const field of [words, refine]) field.addEventListener("blur", () => (typing = false));

/** Take over what the form says. */
function apply() {
  const search = asked();
  suggest.remember(words.value);
  for (const field of fields()) if (field.name === "refine" || ADDED.has(field.name)) field.value = "";
  goTo(search, typing ? "replace" : "push");
  typing = false;
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  apply();
});
filters.addEventListener("change", apply);
document.getElementById("sort")?.addEventListener("change", apply);

suggest.attach(words, /** @type {HTMLElement} */ (document.getElementById("suggestions")), (chosen) => {
  words.value = chosen.text;
  const search = asked();
  const { parameter, value } = chosen;
  if (parameter && value && ADDED.has(parameter)) search.append(parameter, value);
  else if (parameter && value) search.set(parameter, value);
  else suggest.remember(chosen.text);
  fill(search);
  goTo(search);
});

// The event does not bubble.
state.addEventListener(
  "toggle",
  (event) => {
    if (within(event, ".facets")) browsing = /** @type {HTMLDetailsElement} */ (event.target).open;
  },
  true,
);

// The filters close by themselves.
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !filters.open || viewer.isOpen) return;
  event.stopImmediatePropagation();
  filters.open = false;
  filters.querySelector("summary")?.focus();
});
// After the click has done its work: what it meant moves when the filters close.
addEventListener("click", (event) => {
  if (filters.open && !within(event, ".filters")) filters.open = false;
});

// Links to other searches, and to pictures.
document.addEventListener("click", (event) => {
  if (opensElsewhere(event)) return;
  const link = /** @type {HTMLAnchorElement | null} */ (within(event, "a[data-search]"));
  const picture = /** @type {HTMLAnchorElement | null} */ (within(event, "a[data-picture]"));
  if (link) {
    event.preventDefault();
    const search = parameters(link.href);
    if (viewer.isOpen) viewer.close();
    fill(search);
    goTo(search);
  } else if (picture) {
    event.preventDefault();
    show(/** @type {string} */ (picture.dataset.picture));
  }
});

// Several pictures

/** @type {import("./selection.js").Around} */
const selecting = {
  grid: () => grid,
  covered: () => document.querySelector("dialog[open]") !== null,
  album: () => (here.getAll("album").length === 1 ? here.get("album") : null),
  reload: () => go(here, { entry: "none", anchor: grid?.anchor() }),
  find: (search) => {
    fill(search);
    goTo(search);
  },
  ids: async (first, end) => (grid ? grid.idsOf(first, end) : []),
};

// On a touch screen a button of each card shows what can be done with its picture.
document.addEventListener("click", (event) => {
  const dots = within(event, "[data-actions]");
  const card = dots?.closest(".card");
  for (const open of document.querySelectorAll(".acting")) {
    if (open === card) continue;
    open.classList.remove("acting");
    open.querySelector("[data-actions]")?.setAttribute("aria-expanded", "false");
  }
  if (dots && card) dots.setAttribute("aria-expanded", String(card.classList.toggle("acting")));
});

// One picture

const viewer = new Viewer(/** @type {HTMLDialogElement} */ (document.getElementById("viewer")), {
  neighbour: async (id, step) => {
    const at = grid?.indexOf(id) ?? -1;
    return at < 0 ? undefined : grid?.idAt(at + step);
  },
  search: () => here,
  find: (search) => {
    viewer.close();
    fill(search);
    goTo(search);
  },
  moved: (id) => {
    if (id) show(id);
    else if (history.state?.viewing) history.back();
    else {
      leave();
      history.replaceState(history.state, "", addressOf(here));
    }
  },
});

/** @param {string} id */
function show(id) {
  const search = new URLSearchParams(here);
  search.set("view", id);
  const entry = { ...history.state, viewing: true };
  if (viewer.isOpen) history.replaceState(entry, "", `${root}/?${search}`);
  else {
    remember();
    history.pushState(entry, "", `${root}/?${search}`);
  }
  viewer.show(id);
}

/** Close the viewer, and lead the eye and the focus to the picture that it showed last. */
async function leave() {
  const { id } = viewer;
  viewer.close();
  const card = await grid?.reveal(grid.indexOf(id));
  /** @type {HTMLElement | null | undefined} */ (card?.querySelector("a.picture"))?.focus({ preventScroll: true });
}

// History

function remember() {
  if (grid && !viewer.isOpen) history.replaceState({ ...history.state, anchor: grid.anchor() }, "");
}
/** @type {ReturnType<typeof setTimeout> | undefined} */
let scrolled = undefined;
addEventListener(
  "scroll",
  () => {
    clearTimeout(scrolled);
    scrolled = setTimeout(remember, 200);
  },
  { passive: true },
);

addEventListener("popstate", async () => {
  const view = new URLSearchParams(location.search).get("view");
  const search = parameters(location.href);
  typing = false;
  clearTimeout(scrolled);
  if (!view && viewer.isOpen) leave();
  if (String(search) !== String(here)) {
    fill(search);
    await go(search, { entry: "none", anchor: history.state?.anchor });
  }
  if (view) viewer.show(view);
});

// Pictures to search by

/** @param {File | undefined} file */
async function searchBy(file) {
  if (!file) return;
  waiting.hidden = false;
  try {
    const { content_id: id, indexed } = await change("POST", "/api/uploads", file, "application/octet-stream");
    const search = asked();
    search.append(indexed ? "like" : "upload", id);
    waiting.hidden = true;
    goTo(search);
  } catch (error) {
    waiting.hidden = true;
    toast(explain(error));
  }
}

/**
 * The file that is most likely a picture. Browsers know no type for some formats, such as HEIC: the
 * server looks at the bytes.
 * @param {DataTransfer | null} transfer
 */
function imageOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files.find((file) => !file.type) ?? files[0];
}
const carriesFile = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");

const chooser = /** @type {HTMLInputElement} */ (document.getElementById("file"));
chooser.addEventListener("change", () => {
  searchBy(chooser.files?.[0]);
  chooser.value = "";
});
addEventListener("paste", (event) => {
  const image = imageOf(event.clipboardData);
  if (image) {
    event.preventDefault();
    searchBy(image);
  }
});
addEventListener("dragover", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  drop.hidden = false;
});
addEventListener("dragleave", (event) => event.relatedTarget || (drop.hidden = true));
addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  drop.hidden = true;
  searchBy(imageOf(event.dataTransfer));
});

// Keys

addEventListener("keydown", (event) => {
  const inField = within(event, "input, textarea, select, [contenteditable]");
  if (event.key === "/" && !inField && !selecting.covered()) {
    event.preventDefault();
    words.select();
  }
  if (inField || selecting.covered() || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "?") {
    keys.showModal();
    return;
  }
  const card = within(event, ".card");
  if (!card || !grid) return;
  const index = Number(card.ariaPosInSet) - 1;
  const end = { Home: 0, End: grid.length - 1 }[event.key];
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const vote = { l: "true", d: "false" }[event.key];
  if (step || end !== undefined) {
    event.preventDefault();
    const next = step ? grid.beside(index, step[0], step[1]) : (end ?? index);
    if (event.shiftKey) {
      if (selection.isEmpty()) selection.toggle(card);
      selection.extend(selecting, next);
    }
    grid.reveal(next).then((found) => found?.querySelector("a")?.focus({ preventScroll: true }));
  } else if (vote) {
    /** @type {HTMLElement | null} */ (card.querySelector(`[data-vote="${vote}"]`))?.click();
  }
});
const keys = /** @type {HTMLDialogElement} */ (document.getElementById("keys"));

// Recommenders

const select = /** @type {HTMLSelectElement} */ (document.getElementById("recommender"));
async function offer() {
  const { names } = await (await ask("/api/recommenders")).json();
  const all = [...new Set([votes.recommender(), "favourites", ...names])].sort();
  select.replaceChildren(...all.map((name) => new Option(name, name, false, name === votes.recommender())));
}
select.addEventListener("change", () => votes.choose(select.value));

votes.listen();
selection.listen(selecting);
saved.listen({ search: () => here, go: selecting.find });
look.listen(() => grid?.relay());
offer();
const first = arrive();
if (history.state?.anchor) first?.restore(history.state.anchor);
if (main.dataset.view) viewer.show(main.dataset.view);
onIndex(({ build, images, new: fresh, since }) => {
  if (document.getElementById("results")?.dataset.build === build) return;
  if (fresh) {
    const text = `${fresh.toLocaleString("en")} new ${fresh === 1 ? "picture" : "pictures"}.`;
    toast(text, "Show", () => {
      seen();
      selecting.find(new URLSearchParams({ since }));
    });
  } else {
    const text = `There is a new index of ${images.toLocaleString("en")} pictures.`;
    toast(text, "Show", () => {
      seen();
      go(here, { entry: "none", anchor: grid?.anchor() });
    });
  }
});
document.documentElement.dataset.ready = "yes";
