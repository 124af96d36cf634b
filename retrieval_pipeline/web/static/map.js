// The map of the collection: coloured by cluster, source or nearness to a query; a region that is
// drawn around some pictures shows them as a grid.

import { ask, explain, fragment, opensElsewhere, root, toast, within } from "./common.js";
import { bytes, gridOf } from "./results.js";
import { Viewer } from "./viewer.js";
import * as votes from "./votes.js";

const MOST_CORNERS = 60;
const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const plane = element("plane");
const region = element("region");
const controls = /** @type {HTMLFormElement} */ (element("controls"));
const words = /** @type {HTMLInputElement} */ (controls.elements.namedItem("text"));
const card = element("card");
const state = new URLSearchParams(location.search);
/** @type {import("./grid.js").Grid | null} */
let grid = null;
/** @type {any} What latent_map.js gives. */
let map = null;

const query = () => (state.get("text") ? `?${new URLSearchParams({ text: state.get("text") ?? "" })}` : "");

async function load() {
  const data = await (await ask(`/api/map${query()}`)).json();
  const ids = new Uint8Array(bytes(data.ids));
  const idOf = (/** @type {number} */ row) =>
    Array.from(ids.subarray(16 * row, 16 * row + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const thumbnail = (/** @type {number} */ row) => `${root}/api/pictures/${idOf(row)}/thumbnail`;
  const codes = { cluster: new Uint16Array(bytes(data.cluster)), source: new Uint16Array(bytes(data.source)) };
  /** @type {Record<string, object>} */
  const groups = { cluster: data.clusters, source: data.sources };
  // What no picture knows is not offered.
  for (const [fact, known] of Object.entries(data.facts)) {
    const choice = controls.querySelector(`[name="colour"][value="${fact}"]`)?.closest("label");
    if (!choice) continue;
    Object.assign(codes, { [fact]: new Uint16Array(bytes(known.codes)) });
    groups[fact] = known.groups;
    choice.hidden = false;
  }
  map = /** @type {any} */ (globalThis).latentMap(
    {
      axes: data.axes,
      coordinates: [new Float32Array(bytes(data.x)), new Float32Array(bytes(data.y))],
      codes,
      groups,
      scores: data.score && new Float32Array(bytes(data.score)),
      three: false,
    },
    { map: element("map"), overlay: element("overlay"), controls },
    Array.from(new Uint32Array(bytes(data.order)), (row) => [row, thumbnail(row)]),
    {
      hover(/** @type {number} */ row, /** @type {MouseEvent} */ event) {
        const facts = [data.clusters[codes.cluster[row]].name, data.sources[codes.source[row]].name];
        showCard(idOf(row), event, thumbnail(row), facts.join(" · "));
      },
      leave: () => (card.hidden = true),
      click: (/** @type {number} */ row) => viewer.show(idOf(row)),
      select: choose,
    },
  );
  await map.drawn;
  element("drawing").remove();
}

/** @type {Map<string, Promise<string>>} Names of files by content id. */
const names = new Map();

/**
 * The name of a picture's file, which the map itself does not bring along.
 * @param {string} id
 */
function nameOf(id) {
  const name = names.get(id) ?? ask(`/api/pictures/${id}`).then(async (answer) => (await answer.json()).files[0].path.split("/").at(-1));
  names.set(id, name);
  return name;
}

/**
 * @param {string} id
 * @param {MouseEvent} event
 * @param {string} address
 * @param {string} facts
 */
function showCard(id, event, address, facts) {
  const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (card.querySelector(selector));
  /** @type {HTMLImageElement} */ (part("img")).src = address;
  part(".name").textContent = "…";
  part(".facts").textContent = facts;
  card.dataset.id = id;
  card.hidden = false;
  const box = plane.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  card.style.left = `${x + 20 + card.offsetWidth > box.width ? Math.max(x - 20 - card.offsetWidth, 0) : x + 20}px`;
  card.style.top = `${Math.max(Math.min(y + 12, box.height - 260), 0)}px`;
  nameOf(id)
    .catch(() => "")
    .then((name) => {
      if (card.dataset.id === id) part(".name").textContent = name;
    });
}

/**
 * Keep every nth corner of a lasso: an address has room for some.
 * @param {number[][]} corners
 */
function choose(corners) {
  const step = Math.ceil(corners.length / MOST_CORNERS);
  const kept = corners.filter((_, i) => i % step === 0);
  state.set("region", kept.map((corner) => corner.map((value) => value.toPrecision(4)).join(",")).join(";"));
  history.pushState({}, "", `${root}/map?${state}`);
  show().then(() => region.scrollIntoView({ block: "start", behavior: "smooth" }));
}

async function show() {
  const search = new URLSearchParams();
  for (const name of ["region", "text"]) {
    const value = state.get(name);
    if (value) search.set(name, value);
  }
  if (!search.has("region")) return;
  try {
    const answer = await fragment(`/fragments/search?${search}`);
    const found = /** @type {HTMLElement} */ (answer.querySelector("#results"));
    const link = document.createElement("a");
    link.className = "button";
    link.href = `${root}/?${search}`;
    link.textContent = "Search within the region";
    grid?.close();
    region.replaceChildren(found);
    found.querySelector(".summary, .empty")?.append(link);
    const list = /** @type {HTMLElement | null} */ (found.querySelector(".cards"));
    grid = list && gridOf(list, search);
    grid?.addEventListener("loaded", () => votes.mark(region));
    if (grid && !state.get("text")) {
      await grid.counting;
      const summary = `${grid.length.toLocaleString("en")} pictures in the region`;
      /** @type {HTMLElement} */ (found.querySelector("h1")).textContent = summary;
      element("said").textContent = summary;
    }
    votes.mark(region);
  } catch (error) {
    toast(explain(error));
  }
}

const viewer = new Viewer(/** @type {HTMLDialogElement} */ (element("viewer")), {
  neighbour: async (id, step) => {
    const at = grid?.indexOf(id) ?? -1;
    return at < 0 ? undefined : grid?.idAt(at + step);
  },
  search: () => new URLSearchParams(),
  find: (search) => location.assign(`${root}/?${search}`),
  moved: (id) => (id ? viewer.show(id) : viewer.close()),
});

document.addEventListener("click", (event) => {
  if (opensElsewhere(event)) return;
  const picture = within(event, "a[data-picture]");
  if (picture) {
    event.preventDefault();
    viewer.show(picture.dataset.picture ?? "");
  }
});

controls.addEventListener("change", (event) => {
  const field = /** @type {HTMLInputElement} */ (event.target);
  if (field.name === "drag") map?.setDrag(field.value);
});
controls.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = words.value.trim();
  if (text) state.set("text", text);
  else state.delete("text");
  history.pushState({}, "", `${root}/map?${state}`);
  try {
    const data = text && (await (await ask(`/api/map${query()}`)).json());
    const colours = /** @type {NodeListOf<HTMLInputElement>} */ (controls.querySelectorAll('[name="colour"]'));
    const score = /** @type {HTMLInputElement} */ ([...colours].find((each) => each.value === "score"));
    score.disabled = !text;
    (text ? score : colours[0]).checked = true;
    await map.setScores(text ? new Float32Array(bytes(data.score)) : null);
    show();
  } catch (error) {
    toast(explain(error));
  }
});
addEventListener("popstate", () => location.reload());

votes.listen();
load().catch((error) => toast(explain(error)));
show();
