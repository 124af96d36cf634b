"use strict";
// A latent map that one can move in: points by `paintPoints`; thumbnails, names of clusters and the legend
// as elements. The pages that show one say where its data, thumbnails and pictures are.

/** @typedef {{ name: string, colour: string }} MapGroup */

/**
 * @typedef {object} MapData
 * @property {string[]} axes What each axis shows.
 * @property {Float32Array[]} coordinates Two axes, or three.
 * @property {Record<string, Uint16Array>} codes By "cluster", "source" and further kinds: the group of each
 *   picture.
 * @property {Record<string, MapGroup[]>} groups By kind, in the order of the codes.
 * @property {Float32Array | null} scores Nearness to a query.
 * @property {boolean} three Whether to show three dimensions.
 */

/**
 * @typedef {object} MapHooks
 * @property {(row: number, event: PointerEvent) => void} hover
 * @property {() => void} leave
 * @property {(row: number) => void} click
 * @property {(corners: number[][] | null) => void} [select] Is given the region that was drawn, or null
 *   when it was taken away; without it none can be drawn.
 * @property {(flags: Uint8Array, count: number) => void} [seen] Is told which pictures are in the region, or
 *   without one in view, whenever the map comes to rest.
 */

/** @typedef {{ element: HTMLElement, u: number, v: number }} Placed An element over the map. */

/**
 * @param {MapData} data
 * @param {{ map: HTMLElement, overlay: HTMLElement, legend: HTMLElement, controls: HTMLFormElement }} parts
 *   The controls are a form with `colour` and `pictures`.
 * @param {Iterable<[number, string]>} thumbnails Rows and addresses, from coarse to fine.
 * @param {MapHooks} hooks
 */
// oxlint-disable-next-line no-unused-vars -- the pages call it
function latentMap(data, parts, thumbnails, hooks) {
  const THUMBNAIL = 56; // CSS pixels of the longest edge, and the space that each one takes
  const CELL = 48; // CSS pixels of the cells in which points are counted, for the names of clusters
  const LINE = 24; // CSS pixels from one name to the next
  const REACH = 10; // CSS pixels around a point that belong to it
  const STILL = 4; // CSS pixels that a pointer may move during a click
  const REST = 150; // milliseconds without a movement
  const DEEPEST = 2000; // times that the whole map may be enlarged
  const MANY = 20_000; // pictures, whose points are smaller
  const [OPAQUE, FAINT] = [0.85, 0.15]; // shares of a colour on the ground
  // Viridis by van der Walt and Smith, in ten steps.
  const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

  const { map, overlay, legend, controls } = parts;
  const { groups, codes, coordinates: axes } = data;
  const rows = axes[0].length;
  let { scores } = data;
  let [u, v] = axes; // where the points are in the plane of the screen
  let [yaw, pitch] = [0.6, 0.4]; // radians, in three dimensions
  const view = { x: 0, y: 0, sx: 1, sy: 1, width: 1, height: 1 };
  let whole = 1; // `view.sx` when everything is seen
  let drag = "pan";
  /** @type {number[][] | null} Corners, in the units of the map. */
  let region = null;
  /** @type {number[][]} Corners of the region that is being drawn. */
  let drawn = [];
  /** @type {Record<string, Set<number>>} By kind, the groups that alone are shown; all of none. */
  const brushes = {};
  /** @type {Map<string, number>} By kind, the group that was chosen last. */
  const latest = new Map();
  const shown = new Uint8Array(rows).fill(1); // whether a point passes the brushes
  const inside = new Uint8Array(rows); // whether it lies in the region
  const colours = new Uint32Array(rows);
  const edges = new Uint32Array(rows);
  /** @type {Map<number, Placed>} */
  let images = new Map();
  /** @type {Placed[]} */
  let names = [];
  let scheduled = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let resting;

  const canvas = document.createElement("canvas");
  const lasso = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const outline = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
  lasso.append(outline);
  const described = data.axes.slice(0, axes.length).map((axis, i) => `${"→↑↗"[i]} ${axis}`).join("   ");
  const told = made("p", { className: "axes", textContent: described });
  const buttons = made("div", { className: "zooms" });
  for (const [label, text, act] of /** @type {[string, string, () => void][]} */ ([
    ["Zoom in", "+", () => zoomBy(1.5)],
    ["Zoom out", "−", () => zoomBy(1 / 1.5)],
    ["Show everything", "⤢", () => fit()],
  ])) {
    const button = made("button", { type: "button", textContent: text, ariaLabel: label, title: label });
    button.addEventListener("click", act);
    buttons.append(button);
  }
  map.append(canvas, lasso, told, buttons);
  map.tabIndex = 0;

  /**
   * @template {keyof HTMLElementTagNameMap} K
   * @param {K} tag
   * @param {Partial<HTMLElementTagNameMap[K]>} values
   */
  function made(tag, values) {
    return Object.assign(document.createElement(tag), values);
  }

  // Colours and brushes

  /** Red, green and blue of "#rrggbb". */
  const parsed = (/** @type {string} */ tint) => [1, 3, 5].map((at) => parseInt(tint.slice(at, at + 2), 16));
  const ground = () => parsed(getComputedStyle(document.documentElement).getPropertyValue("--ground").trim());

  /**
   * A share of one colour on another, as `paintPoints` takes it.
   * @param {number[]} over
   * @param {number[]} under
   * @param {number} share
   */
  function mixed(over, under, share) {
    const [red, green, blue] = over.map((value, i) => Math.round(value * share + under[i] * (1 - share)));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }

  const colourBy = () => /** @type {RadioNodeList} */ (controls.elements.namedItem("colour")).value;
  const withPictures = () => /** @type {HTMLInputElement | null} */ (controls.elements.namedItem("pictures"))?.checked;

  /** @returns {[number, number]} */
  function range() {
    let [least, most] = [Infinity, -Infinity];
    for (const score of scores ?? []) [least, most] = [Math.min(least, score), Math.max(most, score)];
    return [least, most];
  }

  /** The colour of each group, or of each step of the scale, and which of them each point has. */
  function palette() {
    const kind = colourBy();
    if (kind !== "score" || !scores) return { tints: groups[kind].map((group) => group.colour), of: codes[kind] };
    const [least, most] = range();
    const steps = VIRIDIS.length - 1;
    return { tints: VIRIDIS, of: Uint16Array.from(scores, (score) => Math.round(((score - least) / (most - least || 1)) * steps)) };
  }

  /** Give the points their colours; those outside of the region are faint, those brushed away not there. */
  function paintAnew() {
    const { tints, of } = palette();
    const under = ground();
    const shades = [OPAQUE, OPAQUE / 2, FAINT, FAINT / 2].map((share) => tints.map((tint) => mixed(parsed(tint), under, share)));
    for (let row = 0; row < rows; row++) {
      const paler = region && !inside[row] ? 2 : 0;
      colours[row] = shown[row] && shades[paler][of[row]];
      edges[row] = shades[paler + 1][of[row]];
    }
    for (const [row, { element }] of images) element.style.borderColor = tints[of[row]];
    tellLegend();
    changed();
  }

  function brush() {
    shown.fill(1);
    for (const [kind, chosen] of Object.entries(brushes)) {
      if (chosen.size) codes[kind].forEach((code, row) => (shown[row] &= Number(chosen.has(code))));
    }
    paintAnew();
  }

  /**
   * Show only a group, or take it to those that are shown or away from them; with Shift all groups from
   * the last one that was chosen.
   * @param {string} kind
   * @param {number} code
   * @param {boolean} upTo
   */
  function choose(kind, code, upTo) {
    const chosen = (brushes[kind] ??= new Set());
    const from = latest.get(kind);
    if (upTo && from !== undefined) {
      for (let each = Math.min(from, code); each <= Math.max(from, code); each++) chosen.add(each);
    } else if (!chosen.delete(code)) chosen.add(code);
    latest.set(kind, code);
    brush();
  }

  function tellLegend() {
    const kind = colourBy();
    const focused = [...legend.querySelectorAll("button")].indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const elements = [];
    for (const [other, chosen] of Object.entries(brushes)) {
      if (!chosen.size || other === kind) continue;
      const list = [...chosen].map((code) => groups[other][code].name).join(", ");
      const chip = made("button", { type: "button", className: "brushed", textContent: `${other}: ${list} ✕`, ariaLabel: `Show every ${other} again` });
      chip.addEventListener("click", () => (chosen.clear(), brush()));
      elements.push(chip);
    }
    if (kind === "score") {
      const [least, most] = range();
      const scale = made("p", { className: "scale" });
      scale.append(...[least, most].map((score) => made("span", { textContent: score.toFixed(3) })));
      elements.push(scale);
    } else {
      const counts = new Uint32Array(groups[kind].length);
      for (const code of codes[kind]) counts[code]++;
      const chosen = brushes[kind];
      groups[kind].forEach((group, code) => {
        if (!counts[code]) return;
        const button = made("button", { type: "button", ariaPressed: String(Boolean(chosen?.has(code))) });
        button.classList.toggle("off", Boolean(chosen?.size && !chosen.has(code)));
        const dot = made("i", {});
        dot.style.background = group.colour;
        button.append(dot, made("span", { textContent: group.name }), made("small", { textContent: counts[code].toLocaleString("en") }));
        button.addEventListener("click", (event) => choose(kind, code, event.shiftKey));
        elements.push(button);
      });
    }
    legend.replaceChildren(...elements);
    if (focused >= 0) legend.querySelectorAll("button")[focused]?.focus();
  }

  // Where things are

  const across = (/** @type {number} */ x) => (x - view.x) * view.sx + view.width / 2;
  const down = (/** @type {number} */ y) => view.height / 2 - (y - view.y) * view.sy;
  const unitsAcross = (/** @type {number} */ x) => view.x + (x - view.width / 2) / view.sx;
  const unitsUp = (/** @type {number} */ y) => view.y + (view.height / 2 - y) / view.sy;

  function extent(/** @type {Float32Array} */ values) {
    let [least, most] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    return [least, most];
  }

  /** Show everything. */
  function fit() {
    const [[left, right], [bottom, top]] = [extent(u), extent(v)];
    const margin = Math.min(THUMBNAIL, view.width / 8);
    view.x = (left + right) / 2;
    view.y = (bottom + top) / 2;
    view.sx = (view.width - 2 * margin) / (right - left || 1);
    view.sy = (view.height - 2 * margin) / (top - bottom || 1);
    if (data.three) view.sx = view.sy = Math.min(view.sx, view.sy);
    whole = view.sx;
    changed();
  }

  /**
   * Enlarge about a point of the screen, by default the middle.
   * @param {number} factor
   * @param {number} [x]
   * @param {number} [y]
   */
  function zoomBy(factor, x = view.width / 2, y = view.height / 2) {
    const bounded = Math.min(Math.max(view.sx * factor, whole / 2), whole * DEEPEST) / view.sx;
    const [fixedX, fixedY] = [unitsAcross(x), unitsUp(y)];
    view.sx *= bounded;
    view.sy *= bounded;
    view.x = fixedX - (x - view.width / 2) / view.sx;
    view.y = fixedY - (view.height / 2 - y) / view.sy;
    changed();
  }

  function moveBy(/** @type {number} */ x, /** @type {number} */ y) {
    view.x -= x / view.sx;
    view.y += y / view.sy;
    changed();
  }

  /** Look at three dimensions from another side. */
  function turn() {
    if (!data.three) return;
    const [x, y, z] = axes;
    [u, v] = [new Float32Array(rows), new Float32Array(rows)];
    const [cosYaw, sinYaw, cosPitch, sinPitch] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    for (let row = 0; row < rows; row++) {
      u[row] = x[row] * cosYaw + z[row] * sinYaw;
      v[row] = y[row] * cosPitch - (z[row] * cosYaw - x[row] * sinYaw) * sinPitch;
    }
  }

  /**
   * The picture at a point of the screen: a thumbnail, else the nearest point within reach; -1 for none.
   * @param {number} x
   * @param {number} y
   */
  function rowAt(x, y) {
    for (const [row, { element }] of images) {
      const [width, height] = [element.offsetWidth, element.offsetHeight];
      if (Math.abs(across(u[row]) - x) <= width / 2 && Math.abs(down(v[row]) - y) <= height / 2) return row;
    }
    let [nearest, least] = [-1, REACH * REACH];
    const [unitX, unitY] = [unitsAcross(x), unitsUp(y)];
    for (let row = 0; row < rows; row++) {
      const [dx, dy] = [(u[row] - unitX) * view.sx, (v[row] - unitY) * view.sy];
      const distance = dx * dx + dy * dy;
      if (distance < least && shown[row]) [nearest, least] = [row, distance];
    }
    return nearest;
  }

  // What lies over the points

  /**
   * As many thumbnails as do not overlap. The rows come from coarse to fine: the first of each
   * neighbourhood represents it, and zooming in makes room for the next ones.
   * @returns {Map<number, Placed>}
   */
  function chosenImages() {
    const chosen = new Map();
    if (!withPictures()) return chosen;
    const { tints, of } = palette();
    /** @type {Map<string, [number, number]>} */
    const taken = new Map();
    for (const [row, address] of thumbnails) {
      if (!shown[row] || (region && !inside[row])) continue;
      const [x, y] = [across(u[row]), down(v[row])];
      if (x < 0 || y < 0 || x > view.width || y > view.height) continue;
      const [column, line] = [Math.floor(x / THUMBNAIL), Math.floor(y / THUMBNAIL)];
      const near = [-1, 0, 1].flatMap((i) => [-1, 0, 1].map((j) => taken.get(`${column + i},${line + j}`)));
      if (near.some((at) => at && Math.abs(at[0] - x) < THUMBNAIL && Math.abs(at[1] - y) < THUMBNAIL)) continue;
      taken.set(`${column},${line}`, [x, y]);
      const element = images.get(row)?.element ?? made("img", { src: address, alt: "" });
      element.style.borderColor = tints[of[row]];
      chosen.set(row, { element, u: u[row], v: v[row] });
    }
    return chosen;
  }

  /**
   * The names of the clusters, each where most of it is of what is in view. The largest come first;
   * one that would cover another name or a thumbnail moves up or down. Where there is no room a name
   * lies over a thumbnail, but is left out before it covers another name.
   * @returns {Placed[]}
   */
  function chosenNames() {
    if (colourBy() !== "cluster") return [];
    const [columns, lines] = [Math.ceil(view.width / CELL), Math.ceil(view.height / CELL)];
    const cells = columns * lines;
    const clusters = groups.cluster.length;
    const counts = new Uint32Array(clusters * cells);
    const [sumX, sumY] = [new Float64Array(clusters * cells), new Float64Array(clusters * cells)];
    const totals = new Uint32Array(clusters);
    for (let row = 0; row < rows; row++) {
      if (!shown[row]) continue;
      const [x, y] = [across(u[row]), down(v[row])];
      if (!(x >= 0 && y >= 0 && x < view.width && y < view.height)) continue;
      const cluster = codes.cluster[row];
      const cell = cluster * cells + Math.floor(y / CELL) * columns + Math.floor(x / CELL);
      counts[cell]++;
      sumX[cell] += x;
      sumY[cell] += y;
      totals[cluster]++;
    }
    /** @type {{ x: number, y: number, width: number, height: number }[]} */
    const taken = [];
    const pictures = [...images.values()].map(({ u, v }) => ({ x: across(u), y: down(v), width: THUMBNAIL, height: THUMBNAIL }));
    const placed = [];
    const order = [...totals.keys()].filter((cluster) => totals[cluster]).sort((one, other) => totals[other] - totals[one]);
    for (const cluster of order) {
      let best = cluster * cells;
      for (let cell = best; cell < (cluster + 1) * cells; cell++) if (counts[cell] > counts[best]) best = cell;
      const { name, colour } = groups.cluster[cluster];
      const width = 8 * name.length + 20; // CSS pixels, about
      const edge = Math.min(width / 2, view.width / 2);
      const x = Math.min(Math.max(sumX[best] / counts[best], edge), view.width - edge);
      const middle = sumY[best] / counts[best];
      const free = (/** @type {number} */ at, /** @type {{ x: number, y: number, width: number, height: number }[]} */ others) =>
        others.every((other) => Math.abs(other.x - x) >= (other.width + width) / 2 || Math.abs(other.y - at) >= (other.height + LINE) / 2);
      const possible = [0, -1, 1, -2, 2]
        .map((step) => middle + step * LINE)
        .filter((at) => at > LINE / 2 && at < view.height - LINE / 2 && free(at, taken));
      const y = possible.find((at) => free(at, pictures)) ?? possible[0];
      if (y === undefined) continue;
      taken.push({ x, y, width, height: LINE });
      const element = made("span", { textContent: name });
      element.style.borderColor = colour;
      placed.push({ element, u: unitsAcross(x), v: unitsUp(y) });
    }
    return placed;
  }

  function rest() {
    resting = undefined;
    schedule();
    if (!data.three) {
      images = chosenImages();
      names = chosenNames();
      const wanted = [...images.values(), ...names].map(({ element }) => element);
      const kept = new Set(wanted);
      for (const element of overlay.querySelectorAll(":scope > *")) if (!kept.has(/** @type {HTMLElement} */ (element))) element.remove();
      for (const element of wanted) if (element.parentNode !== overlay || element.matches("span")) overlay.append(element);
    }
    document.documentElement.dataset.ready = "yes";
    if (!hooks.seen) return;
    const flags = new Uint8Array(rows);
    let count = 0;
    const [left, right] = [unitsAcross(0), unitsAcross(view.width)];
    const [bottom, top] = [unitsUp(view.height), unitsUp(0)];
    for (let row = 0; row < rows; row++) {
      const seen = region ? inside[row] : u[row] >= left && u[row] <= right && v[row] >= bottom && v[row] <= top;
      if (shown[row] && seen) count += flags[row] = 1;
    }
    hooks.seen(flags, count);
  }

  function schedule() {
    scheduled ||= requestAnimationFrame(() => {
      scheduled = 0;
      // On fine screens many points are drawn coarsely as long as they move.
      const ratio = rows > MANY && resting !== undefined ? Math.min(devicePixelRatio, 1) : devicePixelRatio;
      const size = (rows > MANY ? 4 : 7) * Math.min(2, Math.max(1, (view.sx / whole) ** 0.2));
      paintPoints(canvas, view, { u, v, colours, edges }, size, mixed(ground(), ground(), 1), ratio);
      for (const { element, u, v } of [...images.values(), ...names]) {
        element.style.transform = `translate(${across(u)}px, ${down(v)}px) translate(-50%, -50%)`;
      }
      const corners = drawn.length ? drawn : (region ?? []);
      outline.setAttribute("points", corners.map(([x, y]) => `${across(x)},${down(y)}`).join(" "));
    });
  }

  /** Paint once more, and look at what is in view when nothing has moved for a while. */
  function changed() {
    schedule();
    clearTimeout(resting);
    resting = setTimeout(rest, REST);
  }

  // The region

  /** @param {number[][] | null} corners */
  function setRegion(corners) {
    region = corners;
    for (let row = 0; row < rows; row++) inside[row] = Number(corners !== null && isWithin(u[row], v[row], corners));
    paintAnew();
  }

  /**
   * Whether a ray to the right of a point crosses the outline an odd number of times.
   * @param {number} x
   * @param {number} y
   * @param {number[][]} corners
   */
  function isWithin(x, y, corners) {
    let odd = false;
    let [x0, y0] = corners[corners.length - 1];
    for (const [x1, y1] of corners) {
      if (y0 > y !== y1 > y && x < x0 + ((y - y0) / (y1 - y0)) * (x1 - x0)) odd = !odd;
      [x0, y0] = [x1, y1];
    }
    return odd;
  }

  // Pointers and keys

  /** @type {Map<number, [number, number]>} */
  const pointers = new Map();
  let travelled = 0;

  /** @returns {[number, number]} */
  function placeOf(/** @type {MouseEvent} */ event) {
    const box = map.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
  const isOnButton = (/** @type {Event} */ event) => event.target instanceof Element && event.target.closest("button");
  const isDrawing = () => drag === "lasso" && hooks.select && pointers.size === 1;

  map.addEventListener("pointerdown", (event) => {
    if (isOnButton(event) || event.button) return;
    map.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    travelled = 0;
    hooks.leave();
    const [x, y] = placeOf(event);
    drawn = isDrawing() ? [[unitsAcross(x), unitsUp(y)]] : [];
  });
  map.addEventListener("pointermove", (event) => {
    const [x, y] = placeOf(event);
    const former = pointers.get(event.pointerId);
    if (!former) {
      const row = isOnButton(event) ? -1 : rowAt(x, y);
      map.classList.toggle("pointing", row >= 0);
      return row >= 0 ? hooks.hover(row, event) : hooks.leave();
    }
    const [dx, dy] = [x - former[0], y - former[1]];
    travelled += Math.hypot(dx, dy);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, [x, y]);
    if (other) {
      const apart = (/** @type {[number, number]} */ at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
      zoomBy(apart([x, y]) / apart(former), (x + other[0]) / 2, (y + other[1]) / 2);
      moveBy(dx / 2, dy / 2);
    } else if (isDrawing()) {
      drawn.push([unitsAcross(x), unitsUp(y)]);
      schedule();
    } else if (data.three) {
      yaw += dx / 200;
      pitch += dy / 200;
      turn();
      changed();
    } else moveBy(dx, dy);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    map.addEventListener(name, (event) => {
      const pointer = /** @type {PointerEvent} */ (event);
      if (!pointers.delete(pointer.pointerId)) return;
      if (travelled <= STILL && name === "pointerup") {
        const row = rowAt(...placeOf(pointer));
        if (row >= 0) hooks.click(row);
      } else if (drawn.length > 2) {
        setRegion(drawn);
        hooks.select?.(drawn);
      }
      drawn = [];
      schedule();
    });
  }
  map.addEventListener("pointerleave", () => hooks.leave());
  map.addEventListener("dblclick", (event) => isOnButton(event) || fit());
  map.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode ? 20 : 1);
      zoomBy(Math.exp(-pixels * 0.0015), ...placeOf(event));
    },
    { passive: false },
  );
  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.min(view.width, view.height) / 8;
    const act = {
      ArrowLeft: () => moveBy(step, 0),
      ArrowRight: () => moveBy(-step, 0),
      ArrowUp: () => moveBy(0, step),
      ArrowDown: () => moveBy(0, -step),
      "+": () => zoomBy(1.5),
      "-": () => zoomBy(1 / 1.5),
      0: fit,
      Escape: () => region && (setRegion(null), hooks.select?.(null)),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  controls.addEventListener("change", (event) => {
    if (/** @type {HTMLInputElement} */ (event.target).name === "colour") paintAnew();
    else changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAnew);
  turn();
  new ResizeObserver(() => {
    const first = view.width === 1;
    const isWhole = view.sx === whole;
    [view.width, view.height] = [map.clientWidth, map.clientHeight];
    if (first || isWhole) fit();
    else changed();
  }).observe(map);
  paintAnew();

  return {
    /** Shows other scores. */
    setScores(/** @type {Float32Array | null} */ numbers) {
      scores = numbers;
      paintAnew();
    },
    /** Chooses what a drag does: "pan" or "lasso". */
    setDrag(/** @type {string} */ mode) {
      drag = mode;
      map.classList.toggle("drawing", mode === "lasso");
    },
    setRegion,
    /** Lays the points out anew, or as at first; a region belongs to a layout, and goes. */
    setPlaces(/** @type {Float32Array[] | null} */ places, /** @type {string} */ text = described) {
      [u, v] = places ?? axes;
      told.textContent = text;
      images = new Map();
      setRegion(null);
      fit();
    },
  };
}
