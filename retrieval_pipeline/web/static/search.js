// The search page: answers while people type, an address that holds everything, an endless grid,
// pictures to search by, and one picture large.

import { change, explain, fragment, toast } from "./common.js";
import { Grid } from "./grid.js";
import { Viewer } from "./viewer.js";
import * as votes from "./votes.js";

const PAUSE = 250; // milliseconds without a key before an answer is asked for
const MOST = 600; // pictures that the server gives at once
const form = document.getElementById("search");
const words = form.elements.text;
const refine = document.querySelector('[name="refine"]');
const main = document.getElementById("content");
const state = document.getElementById("state");
const waiting = document.getElementById("waiting");
const drop = document.getElementById("drop");

let grid = null;
let asking = null; // the AbortController of the latest question
let timer = null;
let typing = false; // the newest entry of the history is being typed
let here = parameters(location.href); // what is shown, without `view`

history.scrollRestoration = "manual";

function parameters(address) {
  const found = new URL(address, location.href).searchParams;
  found.delete("view");
  return found;
}

const addressOf = (search) => (String(search) ? `/?${search}` : "/");

// What the form asks for; fields that are empty, and what means the default, are left out.
function asked() {
  const search = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (typeof value !== "string" || !value.trim() || name === "refine") continue;
    search.append(name, value);
  }
  const typed = refine.value.trim();
  const added = typed.replace(/^[+\-−\s]+/, "");
  if (added) search.append(/^[-−]/.test(typed) ? "minus" : "plus", added);
  return search;
}

// Show what another search finds. Only the answer to the latest question is shown.
async function go(search, { history: entry = "push", count = 0, scroll = 0 } = {}) {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  if (entry === "push" && String(search) !== String(here)) history.pushState({}, "", addressOf(search));
  else if (entry === "replace") history.replaceState({}, "", addressOf(search));
  here = search;
  const soon = setTimeout(() => (waiting.hidden = false), 400);
  state.setAttribute("aria-busy", "true");
  try {
    const wanted = new URLSearchParams(search);
    if (count > 60) wanted.set("k", Math.min(count, MOST));
    const answer = await fragment(`/fragments/search?${wanted}`, mine.signal);
    if (mine !== asking) return;
    grid?.close();
    state.replaceChildren(answer);
    arrive();
    scrollTo({ top: scroll, behavior: "instant" });
  } catch (error) {
    if (error.name !== "AbortError") {
      toast(explain(error), "Try again", () => go(search, { history: "none" }));
    }
  } finally {
    clearTimeout(soon);
    if (mine === asking) {
      waiting.hidden = true;
      state.removeAttribute("aria-busy");
    }
  }
}

// Bring a new answer to life.
function arrive() {
  const list = state.querySelector(".cards");
  const summary = document.getElementById("summary")?.textContent;
  document.title = here.size ? `${summary} · retrieval` : "retrieval";
  // The map can be coloured by what was asked.
  const text = here.get("text");
  document.querySelector('nav a[href^="/map"]').href = text ? `/map?${new URLSearchParams({ text })}` : "/map";
  grid = null;
  if (list) {
    const search = new URLSearchParams(here);
    grid = new Grid(list, document.getElementById("results").dataset.more === "true", async (offset, k) => {
      search.set("offset", Number(here.get("offset") || 0) + offset);
      search.set("k", k);
      const cards = (await fragment(`/fragments/cards?${search}`)).querySelector("ol");
      return { cards: [...cards.children], more: cards.dataset.more === "true" };
    });
    list.addEventListener("loaded", () => votes.mark(list));
  }
  votes.mark(state);
}

// Fields outside of the answer follow the address.
function fill(search) {
  words.value = search.get("text") || "";
  refine.value = "";
  for (const field of form.elements) {
    if (!field.closest(".filters")) continue;
    if (field.type === "checkbox") field.checked = search.getAll(field.name).includes(field.value);
    else if (field.name === "path") field.value = "";
    else if (field.name) field.value = search.get(field.name) || "";
  }
}

words.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    go(asked(), { history: typing ? "replace" : "push" });
    typing = true;
  }, PAUSE);
});
for (const field of [words, refine]) field.addEventListener("blur", () => (typing = false));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const search = asked();
  const unchanged = String(search) === String(here);
  refine.value = "";
  for (const field of form.elements) if (field.name === "path" && field.type !== "hidden") field.value = "";
  go(search, { history: typing ? "replace" : unchanged ? "none" : "push" });
  typing = false;
});
document.querySelector(".filters").addEventListener("change", () => form.requestSubmit());

// Links to other searches.
document.addEventListener("click", (event) => {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest("a[data-search]");
  const picture = event.target.closest('a[href^="/picture/"]');
  if (link) {
    event.preventDefault();
    const search = parameters(link.href);
    if (viewer.isOpen) viewer.close();
    fill(search);
    go(search);
  } else if (picture) {
    event.preventDefault();
    show(picture.getAttribute("href").split("/").at(-1));
  }
});

// One picture

const viewer = new Viewer(
  document.getElementById("viewer"),
  (id, step) => {
    const ids = grid?.ids ?? [];
    const at = ids.indexOf(id);
    return at < 0 ? undefined : ids[at + step];
  },
  (id) => {
    if (id) show(id);
    else if (history.state?.viewing) history.back();
    else {
      viewer.close();
      history.replaceState(history.state, "", addressOf(here));
    }
  },
);

function show(id) {
  const search = new URLSearchParams(here);
  search.set("view", id);
  const entry = { ...history.state, viewing: true };
  if (viewer.isOpen) history.replaceState(entry, "", `/?${search}`);
  else {
    remember();
    history.pushState({ ...entry, scroll: scrollY }, "", `/?${search}`);
  }
  viewer.show(id);
}

// History

function remember() {
  if (grid) history.replaceState({ ...history.state, scroll: scrollY, count: grid.items.length }, "");
}
let scrolled = null;
addEventListener("scroll", () => {
  clearTimeout(scrolled);
  scrolled = setTimeout(remember, 200);
}, { passive: true });

addEventListener("popstate", () => {
  const view = new URLSearchParams(location.search).get("view");
  const search = parameters(location.href);
  typing = false;
  if (!view) viewer.close();
  if (String(search) !== String(here)) {
    fill(search);
    go(search, { history: "none", count: history.state?.count, scroll: history.state?.scroll });
  }
  if (view) viewer.show(view);
});

// Pictures to search by

async function searchBy(file) {
  if (!file) return;
  waiting.hidden = false;
  try {
    const { content_id: id, indexed } = await change("POST", "/api/uploads", file, "application/octet-stream");
    const search = asked();
    search.append(indexed ? "like" : "upload", id);
    go(search);
  } catch (error) {
    waiting.hidden = true;
    toast(explain(error));
  }
}

const imageOf = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
const carriesFile = (event) => event.dataTransfer?.types.includes("Files");

document.getElementById("file").addEventListener("change", (event) => {
  searchBy(event.target.files[0]);
  event.target.value = "";
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
  const image = imageOf(event.dataTransfer);
  if (image) searchBy(image);
  else toast("That is not a picture.");
});

// Keys

addEventListener("keydown", (event) => {
  const inField = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !inField && !viewer.isOpen) {
    event.preventDefault();
    words.select();
  }
  if (!inField && grid && !viewer.isOpen) {
    const card = event.target.closest(".card");
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (card && step) {
      const next = grid.cards.get(card.index + step);
      if (next) {
        event.preventDefault();
        next.querySelector("a").focus();
      }
    }
  }
});

// Recommenders

const select = document.getElementById("recommender");
async function offer() {
  const { names } = await (await fetch("/api/recommenders")).json();
  const all = [...new Set([votes.recommender(), "favourites", ...names])].sort();
  select.replaceChildren(...all.map((name) => new Option(name, name, false, name === votes.recommender())));
}
select.addEventListener("change", () => votes.choose(select.value));

votes.listen();
offer();
arrive();
if (history.state?.scroll) {
  const { count, scroll } = history.state;
  if (count > 60) go(here, { history: "none", count, scroll });
  else scrollTo({ top: scroll, behavior: "instant" });
}
if (main.dataset.view) viewer.show(main.dataset.view);
document.documentElement.dataset.ready = "yes";
