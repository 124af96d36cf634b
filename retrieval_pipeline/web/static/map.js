// The map of the collection: coloured by cluster, source, facts or nearness to a query. What is in view,
// or in a region that is drawn around some pictures, is listed beside it.

import { ask, explain, opensElsewhere, root, toast, within } from "./common.js";
import { bytes } from "./results.js";
import { Viewer } from "./viewer.js";
import * as votes from "./votes.js";

const MOST_CORNERS = 60;
const TILES = 120; // that are listed at once; more come when one scrolls
const element = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const plane = element("plane");
const controls = /** @type {HTMLFormElement} */ (element("controls"));
const words = /** @type {HTMLInputElement} */ (controls.elements.namedItem("text"));
const card = element("card");
const tiles = /** @type {HTMLElement} */ (element("seen").querySelector(".tiles"));
const state = new URLSearchParams(location.search);
/** @type {any} What latent_map.js gives. */
let map = null;
/** @type {(row: number) => string} The content id of a picture of the map. */
let idOf = () => "";
/** @type {number[]} All pictures of the map, in the order in which they are listed. */
let ranked = [];
/** @type {number[]} Those that are in view. */
let seen = [];
/** @type {(by: string) => void} Takes "axes" or "neighbours". */
let layOut = () => {};
/** @type {(count: number) => string} Says how many are in view. */
let say = () => "";

const query = () => (state.get("text") ? `?${new URLSearchParams({ text: state.get("text") ?? "" })}` : "");
const thumbnail = (/** @type {number} */ row) => `${root}/api/pictures/${idOf(row)}/thumbnail`;

async function load() {
  const data = await (await ask(`/api/map${query()}`)).json();
  const ids = new Uint8Array(bytes(data.ids));
  idOf = (row) => Array.from(ids.subarray(16 * row, 16 * row + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const codes = { cluster: new Uint16Array(bytes(data.cluster)), source: new Uint16Array(bytes(data.source)) };
  /** @type {Record<string, object>} */
  const groups = { cluster: data.clusters, source: data.sources };
  for (const [fact, known] of Object.entries(data.facts)) {
    Object.assign(codes, { [fact]: new Uint16Array(bytes(known.codes)) });
    groups[fact] = known.groups;
  }
  const scores = data.score && new Float32Array(bytes(data.score));
  const order = new Uint32Array(bytes(data.order));
  const drawn = codes.cluster.length;
  say = (count) => {
    const of = drawn < data.images ? ` of the ${drawn.toLocaleString("en")} that are drawn` : "";
    return `${count.toLocaleString("en")} ${count === 1 ? "picture" : "pictures"}${of} ${state.has("region") ? "in the region" : "in view"}`;
  };
  rank(order, scores, drawn);
  map = /** @type {any} */ (globalThis).latentMap(
    {
      axes: data.axes,
      coordinates: [new Float32Array(bytes(data.x)), new Float32Array(bytes(data.y))],
      codes,
      groups,
      scores,
      three: false,
    },
    { map: element("map"), overlay: element("overlay"), legend: element("legend"), controls },
    Array.from(order, (row) => [row, thumbnail(row)]),
    {
      hover(/** @type {number} */ row, /** @type {MouseEvent} */ event) {
        const facts = [data.clusters[codes.cluster[row]].name, data.sources[codes.source[row]].name];
        showCard(idOf(row), event, thumbnail(row), facts.join(" · "));
      },
      leave: () => (card.hidden = true),
      click: (/** @type {number} */ row) => viewer.show(idOf(row)),
      select: choose,
      seen: show,
    },
  );
  const places = data.neighbours?.map((/** @type {string} */ axis) => new Float32Array(bytes(axis)));
  layOut = (by) => map.setPlaces(by === "neighbours" ? places : null, by === "neighbours" ? "near each other is what is alike; the distance between groups says little" : undefined);
  const [listed, layout] = (state.get("region") ?? "").split(":").reverse();
  if (layout && places) {
    /** @type {HTMLInputElement} */ (controls.querySelector(`[name="layout"][value="${layout}"]`)).checked = true;
    layOut(layout);
  }
  if (listed) map.setRegion(listed.split(";").map((corner) => corner.split(",").map(Number)));
  element("drawing").remove();
  controls.addEventListener("submit", (event) => {
    event.preventDefault();
    colourBy(words.value.trim(), order, drawn).catch((error) => toast(explain(error)));
  });
}

/**
 * Order the pictures: the nearest to the query first, or those that represent the map best.
 * @param {Uint32Array} order Of those that represent it.
 * @param {Float32Array | null} scores
 * @param {number} drawn How many there are.
 */
function rank(order, scores, drawn) {
  const all = Array.from({ length: drawn }, (_, row) => row);
  if (scores) ranked = all.sort((one, other) => scores[other] - scores[one]);
  else {
    const first = new Set(order);
    ranked = [...order, ...all.filter((row) => !first.has(row))];
  }
}

/**
 * List the pictures that are in view.
 * @param {Uint8Array} flags
 * @param {number} count
 */
function show(flags, count) {
  const rows = ranked.filter((row) => flags[row]);
  const heading = element("count");
  if (heading.textContent !== say(count)) heading.textContent = say(count);
  const region = state.get("region");
  element("seen").hidden = false;
  element("doing").hidden = !region;
  if (region) {
    const search = new URLSearchParams({ region });
    const text = state.get("text");
    if (text) search.set("text", text);
    /** @type {HTMLAnchorElement} */ (element("within")).href = `${root}/?${search}`;
  }
  const same = rows.slice(0, TILES).every((row, i) => seen[i] === row) && rows.length === seen.length;
  seen = rows;
  if (same) return;
  tiles.replaceChildren();
  tiles.parentElement?.scrollTo({ top: 0 });
  more();
}

/** List further pictures. */
function more() {
  const from = tiles.children.length;
  for (const row of seen.slice(from, from + TILES)) {
    const id = idOf(row);
    const item = document.createElement("li");
    const link = document.createElement("a");
    const image = document.createElement("img");
    Object.assign(link, { href: `${root}/picture/${id}`, ariaLabel: `Picture ${tiles.children.length + 1}` });
    link.dataset.picture = id;
    Object.assign(image, { loading: "lazy", decoding: "async", alt: "", src: thumbnail(row) });
    link.append(image);
    item.append(link);
    tiles.append(item);
  }
  const last = tiles.lastElementChild;
  if (last && tiles.children.length < seen.length) end.observe(last);
}

const end = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    end.unobserve(target);
    if (target === tiles.lastElementChild) more();
  }
});

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
 * Take a region over into the address, which has room for some corners: every nth one stays.
 * @param {number[][] | null} corners
 */
function choose(corners) {
  if (corners) {
    const step = Math.ceil(corners.length / MOST_CORNERS);
    const kept = corners.filter((_, i) => i % step === 0).map((corner) => corner.map((value) => Number(value.toPrecision(4))));
    const by = /** @type {HTMLInputElement | null} */ (controls.querySelector('[name="layout"]:checked'))?.value;
    state.set("region", (by === "neighbours" ? "neighbours:" : "") + kept.map((corner) => corner.join(",")).join(";"));
    // What is listed is what a search within the region finds.
    map.setRegion(kept);
  } else state.delete("region");
  history.pushState({}, "", `${root}/map?${state}`);
}

/**
 * Colour the map by the nearness to words, or as at first if there are none.
 * @param {string} text
 * @param {Uint32Array} order
 * @param {number} drawn
 */
async function colourBy(text, order, drawn) {
  if (text) state.set("text", text);
  else state.delete("text");
  history.pushState({}, "", `${root}/map?${state}`);
  const data = text && (await (await ask(`/api/map${query()}`)).json());
  const scores = data ? new Float32Array(bytes(data.score)) : null;
  const colours = /** @type {NodeListOf<HTMLInputElement>} */ (controls.querySelectorAll('[name="colour"]'));
  const score = /** @type {HTMLInputElement} */ ([...colours].find((each) => each.value === "score"));
  score.disabled = !text;
  (text ? score : colours[0]).checked = true;
  rank(order, scores, drawn);
  map.setScores(scores);
}

const viewer = new Viewer(/** @type {HTMLDialogElement} */ (element("viewer")), {
  neighbour: async (id, step) => {
    const at = seen.findIndex((row) => idOf(row) === id);
    return at < 0 || !(at + step in seen) ? undefined : idOf(seen[at + step]);
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

element("everywhere").addEventListener("click", () => {
  choose(null);
  map.setRegion(null);
});
controls.addEventListener("change", (event) => {
  const field = /** @type {HTMLInputElement} */ (event.target);
  if (field.name === "drag") map?.setDrag(field.value);
  if (field.name === "layout" && map) {
    if (state.has("region")) choose(null);
    layOut(field.value);
  }
});
addEventListener("popstate", () => location.reload());

votes.listen();
load().catch((error) => toast(explain(error)));
