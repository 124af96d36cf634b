// The map of the collection: coloured by cluster, source or nearness to a query; a region that is
// drawn around some pictures shows them as a grid.

import { ask, explain, fragment, toast } from "./common.js";
import { Grid } from "./grid.js";
import { Viewer } from "./viewer.js";
import * as votes from "./votes.js";

const MOST_CORNERS = 60;
const plane = document.getElementById("plane");
const region = document.getElementById("region");
const controls = document.getElementById("controls");
const card = document.getElementById("card");
const state = new URLSearchParams(location.search);
let grid = null;
let map = null;

const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
const query = () => (state.get("text") ? `?${new URLSearchParams({ text: state.get("text") })}` : "");

async function load() {
  const data = await (await ask(`/api/map${query()}`)).json();
  const ids = new Uint8Array(bytes(data.ids));
  const idOf = (row) => Array.from(ids.subarray(16 * row, 16 * row + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const thumbnail = (row) => `/api/pictures/${idOf(row)}/thumbnail`;
  const codes = { cluster: new Uint16Array(bytes(data.cluster)), source: new Uint16Array(bytes(data.source)) };
  map = latentMap(
    {
      axes: data.axes,
      coordinates: [new Float32Array(bytes(data.x)), new Float32Array(bytes(data.y))],
      codes,
      groups: { cluster: data.clusters, source: data.sources },
      scores: data.score && new Float32Array(bytes(data.score)),
      three: false,
    },
    { map: document.getElementById("map"), overlay: document.getElementById("overlay"), controls },
    Array.from(new Uint32Array(bytes(data.order)), (row) => [row, thumbnail(row)]),
    {
      hover: (row, event) => showCard(row, event, thumbnail(row), [data.clusters[codes.cluster[row]].name, data.sources[codes.source[row]].name]),
      leave: () => (card.hidden = true),
      click: (row) => viewer.show(idOf(row)),
      select: (corners) => choose(corners),
    },
  );
  await map.drawn;
}

function showCard(row, event, address, [cluster, source]) {
  const image = card.querySelector("img");
  image.src = address;
  card.querySelector(".name").textContent = cluster;
  card.querySelector(".facts").textContent = source;
  card.hidden = false;
  const box = plane.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  card.style.left = `${x + 20 + card.offsetWidth > box.width ? Math.max(x - 20 - card.offsetWidth, 0) : x + 20}px`;
  card.style.top = `${Math.max(Math.min(y + 12, box.height - 260), 0)}px`;
}

// Keep every nth corner of a lasso: an address has room for some.
function choose(corners) {
  const step = Math.ceil(corners.length / MOST_CORNERS);
  const kept = corners.filter((_, i) => i % step === 0);
  state.set("region", kept.map((corner) => corner.map((value) => value.toPrecision(4)).join(",")).join(";"));
  history.pushState({}, "", `/map?${state}`);
  show();
}

async function show() {
  const search = new URLSearchParams();
  for (const name of ["region", "text"]) if (state.get(name)) search.set(name, state.get(name));
  if (!search.has("region")) return;
  try {
    const answer = await fragment(`/fragments/search?${search}`);
    const found = answer.getElementById("results");
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/?${search}`;
    link.textContent = "Search within the region";
    grid?.close();
    region.replaceChildren(found);
    found.querySelector(".summary, .empty").append(link);
    const list = found.querySelector(".cards");
    if (list) {
      grid = new Grid(list, found.dataset.more === "true", async (offset, k) => {
        const further = new URLSearchParams([...search, ["offset", offset], ["k", k]]);
        const cards = (await fragment(`/fragments/cards?${further}`)).querySelector("ol");
        return { cards: [...cards.children], more: cards.dataset.more === "true" };
      });
      list.addEventListener("loaded", () => votes.mark(list));
    }
    votes.mark(region);
  } catch (error) {
    toast(explain(error));
  }
}

const viewer = new Viewer(
  document.getElementById("viewer"),
  (id, step) => {
    const ids = grid?.ids ?? [];
    const at = ids.indexOf(id);
    return at < 0 ? undefined : ids[at + step];
  },
  (id) => (id ? viewer.show(id) : viewer.close()),
);

document.addEventListener("click", (event) => {
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const picture = event.target.closest('a[href^="/picture/"]');
  if (picture) {
    event.preventDefault();
    viewer.show(picture.getAttribute("href").split("/").at(-1));
  }
});

controls.addEventListener("change", (event) => {
  if (event.target.name === "drag") map?.setDrag(event.target.value);
});
controls.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = controls.elements.text.value.trim();
  if (text) state.set("text", text);
  else state.delete("text");
  history.pushState({}, "", `/map?${state}`);
  try {
    const data = text && (await (await ask(`/api/map${query()}`)).json());
    const [cluster, , score] = controls.elements.colour;
    score.disabled = !text;
    (text ? score : cluster).checked = true;
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
