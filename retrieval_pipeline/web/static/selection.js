// Several pictures at once: ticks on the cards, and a bar that says how many and what can be done with
// them. What is selected stays so from search to search, until it is cleared or the page is left.

import { ask, change, copyText, explain, idOf, root, toast, within } from "./common.js";
import * as votes from "./votes.js";

const MOST = 10_000; // pictures that one request may name
const MOST_LIKE = 20; // pictures that one search may be like
const MOST_TWINS = 300; // pictures whose duplicates are shown at once
const LONG_PRESS = 500; // milliseconds
const MOVED = 10; // CSS pixels after which a finger scrolls, and does not press

/**
 * What the selection is made in.
 * @typedef {object} Around
 * @property {() => import("./grid.js").Grid | null} grid
 * @property {() => boolean} covered Whether something lies above the grid.
 * @property {(search: URLSearchParams) => void} find Is given a search by what is selected.
 * @property {() => string | null} album The one album whose pictures are shown.
 * @property {() => void} reload Shows the pictures anew.
 * @property {(first: number, end: number) => Promise<string[]>} ids The content ids from one place of
 *   the grid to before another.
 */

/** @type {Set<string>} */
const selected = new Set();
const bar = /** @type {HTMLElement} */ (document.getElementById("selection"));
const count = /** @type {HTMLElement} */ (bar.querySelector(".count"));
/** @type {number | null} The place in the grid that a range begins at. */
let anchor = null;

export const isEmpty = () => !selected.size;
export const ids = () => [...selected];

/**
 * Another search has other places, and is of an album or not.
 * @param {string | null} album
 */
export function arrive(album) {
  anchor = null;
  /** @type {HTMLElement} */ (bar.querySelector('[data-all="takeOut"]')).hidden = !album;
}

export function clear() {
  selected.clear();
  anchor = null;
  show();
}

/**
 * Show on the cards within an element which of them are selected.
 * @param {ParentNode} part
 */
export function mark(part) {
  for (const card of /** @type {NodeListOf<HTMLElement>} */ (part.querySelectorAll(".card[data-id]"))) {
    const is = selected.has(idOf(card));
    card.classList.toggle("ticked", is);
    card.querySelector("[data-tick]")?.setAttribute("aria-pressed", String(is));
  }
}

function show() {
  const text = selected.size ? `${selected.size.toLocaleString("en")} selected` : "";
  if (count.textContent !== text) count.textContent = text;
  bar.hidden = isEmpty();
  document.documentElement.classList.toggle("selecting", !isEmpty());
  mark(document);
}

/**
 * Select pictures, as many as are allowed.
 * @param {string[]} more
 */
function add(more) {
  for (const id of more) {
    if (selected.size >= MOST && !selected.has(id)) {
      toast(`No more than ${MOST.toLocaleString("en")} pictures are selected at once.`);
      break;
    }
    selected.add(id);
  }
  show();
}

const placeOf = (/** @type {HTMLElement} */ card) => Number(card.ariaPosInSet) - 1;

/**
 * Select the picture of a card, or let go of it.
 * @param {HTMLElement} card
 */
export function toggle(card) {
  const id = idOf(card);
  anchor = placeOf(card);
  if (!selected.delete(id)) add([id]);
  else show();
}

/**
 * Select all pictures between the last one and another.
 * @param {Around} around
 * @param {number} place
 */
export async function extend(around, place) {
  const from = anchor ?? place;
  anchor = place;
  try {
    add(await around.ids(Math.min(from, place), Math.max(from, place) + 1));
  } catch (error) {
    toast(explain(error));
  }
}

/**
 * Select everything that was found; of what is only sorted by likeness, what is likely.
 * @param {Around} around
 */
async function selectAll(around) {
  const grid = around.grid();
  if (!grid) return;
  const likely = grid.likely || grid.surely;
  const end = grid.more && likely ? likely : grid.likely || grid.length;
  try {
    add(await around.ids(0, Math.min(end, MOST)));
  } catch (error) {
    toast(explain(error));
    return;
  }
  if (end > MOST) toast(`The first ${MOST.toLocaleString("en")} are selected: no more can be at once.`);
  else if (end < grid.length || grid.more) toast("Those are selected that are likely.");
}

/**
 * Vote alike on everything that is selected.
 * @param {boolean} liked
 */
async function vote(liked) {
  const chosen = ids();
  const undo = await votes.setSeveral(chosen, liked);
  const said = `${chosen.length.toLocaleString("en")} ${liked ? "liked" : "disliked"} in “${votes.recommender()}”.`;
  toast(said, "Undo", () => undo().then(() => toast("That is undone."), (error) => toast(explain(error))));
}

/** Let the browser download a zip file: it writes what comes to the disk at once. */
async function download() {
  const { token } = await (await ask("/api/token")).json();
  const form = document.createElement("form");
  form.method = "post";
  form.action = `${root}/zip`;
  for (const [name, value] of Object.entries({ token, content_ids: ids().join(",") })) {
    const field = document.createElement("input");
    [field.type, field.name, field.value] = ["hidden", name, value];
    form.append(field);
  }
  document.body.append(form);
  form.submit();
  form.remove();
}

async function copyPaths() {
  const known = async () => (await change("POST", "/api/paths", { content_ids: ids() })).paths;
  /** @type {string[]} */
  let paths = [];
  await copyText(known().then((found) => (paths = found).join("\n")));
  toast(paths.length === 1 ? "The path is copied." : `${paths.length.toLocaleString("en")} paths are copied.`);
}

const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("album"));

/**
 * Ask for the name of an album, and put everything that is selected into it.
 * @param {Around} around
 */
async function addToAlbum(around) {
  const { names } = await (await ask("/api/albums")).json();
  dialog.querySelector("datalist")?.replaceChildren(...names.map((/** @type {string} */ name) => new Option(name, name)));
  const field = /** @type {HTMLInputElement} */ (dialog.querySelector("input"));
  field.value ||= names.length === 1 ? names[0] : "";
  dialog.returnValue = "";
  dialog.showModal();
  field.select();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const name = field.value.trim();
  if (!dialog.returnValue || !name) return;
  const chosen = ids();
  const album = await change("POST", "/api/albums/add", { name, content_ids: chosen });
  const text = `${chosen.length.toLocaleString("en")} added: “${name}” has ${album.pictures.toLocaleString("en")}.`;
  toast(text, "Show", () => around.find(new URLSearchParams({ album: name })));
}

/**
 * Take everything that is selected out of the album that is shown.
 * @param {Around} around
 */
async function takeOut(around) {
  const chosen = ids();
  const album = around.album();
  await change("POST", "/api/albums/remove", { name: album, content_ids: chosen });
  clear();
  around.reload();
  toast(`${chosen.length.toLocaleString("en")} taken out of “${album}”.`, "Undo", () =>
    change("POST", "/api/albums/add", { name: album, content_ids: chosen }).then(around.reload, (error) => toast(explain(error))),
  );
}

/** @param {Around} around */
export function listen(around) {
  /** @type {Record<string, () => void | Promise<void>>} */
  const actions = {
    clear,
    like: () => vote(true),
    dislike: () => vote(false),
    zip: download,
    copy: copyPaths,
    album: () => addToAlbum(around),
    takeOut: () => takeOut(around),
    twins() {
      if (selected.size > MOST_TWINS) toast(`The duplicates of ${MOST_TWINS} pictures are shown at most: select fewer.`);
      else location.assign(`${root}/duplicates?${new URLSearchParams(ids().map((id) => ["among", id]))}`);
    },
    similar() {
      if (selected.size > MOST_LIKE) toast(`A search is like ${MOST_LIKE} pictures at most: select fewer.`);
      else around.find(new URLSearchParams(ids().map((id) => ["like", id])));
    },
  };
  bar.addEventListener("click", async (event) => {
    const button = /** @type {HTMLButtonElement | null} */ (within(event, "[data-all]"));
    if (!button) return;
    button.disabled = true;
    try {
      await actions[button.dataset.all ?? ""]();
    } catch (error) {
      toast(explain(error));
    }
    button.disabled = false;
  });

  // Before what a click on a picture means otherwise.
  document.addEventListener(
    "click",
    (event) => {
      const card = within(event, ".card[data-id]");
      if (!card || around.covered() || !card.ariaPosInSet) return;
      const tick = within(event, "[data-tick]");
      const picture = within(event, "a.picture");
      // The tick that a long press shows may lie under the finger that is lifted.
      const pressed = pressing.done;
      pressing.done = false;
      if (!pressed && !tick && (!picture || isEmpty() || event.ctrlKey || event.metaKey || event.altKey)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (pressed) return;
      if (event.shiftKey) extend(around, placeOf(card));
      else toggle(card);
    },
    true,
  );

  addEventListener("keydown", (event) => {
    if (within(event, "input, textarea, select, [contenteditable]") || around.covered()) return;
    const modified = event.altKey || event.ctrlKey || event.metaKey;
    const card = within(event, ".card[data-id]");
    if (event.key === "a" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) selectAll(around);
    else if (event.key === "Escape" && !isEmpty()) clear();
    else if (event.key === "x" && !modified && card) toggle(card);
    else return;
    event.preventDefault();
  });

  listenToFingers();
}

// A finger that rests on a picture selects it.
/** @type {{ x: number, y: number, done: boolean, timer?: ReturnType<typeof setTimeout> }} */
const pressing = { x: 0, y: 0, done: false };

function listenToFingers() {
  const stop = () => clearTimeout(pressing.timer);
  document.addEventListener("pointerdown", (event) => {
    stop();
    pressing.done = false;
    const card = within(event, ".card[data-id]");
    if (event.pointerType !== "touch" || !event.isPrimary || !card?.ariaPosInSet || !within(event, "a.picture")) return;
    [pressing.x, pressing.y] = [event.clientX, event.clientY];
    pressing.timer = setTimeout(() => {
      pressing.done = true;
      toggle(card);
    }, LONG_PRESS);
  });
  document.addEventListener("pointermove", (event) => {
    if (Math.hypot(event.clientX - pressing.x, event.clientY - pressing.y) > MOVED) stop();
  });
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, stop);
  // The browser's own menu for links, which a long press opens, too.
  document.addEventListener("contextmenu", (event) => {
    if (pressing.done && within(event, ".card")) event.preventDefault();
  });
}
