"use strict";
// Paints points as pixels. A hundred thousand take a few milliseconds, whatever the graphics card: where
// WebGL is done by software, as on many virtual machines, it takes fifty times as long.

/**
 * Which part of the plane is seen.
 * @typedef {object} View
 * @property {number} x What lies in the middle of the canvas.
 * @property {number} y
 * @property {number} sx CSS pixels a unit of x.
 * @property {number} sy CSS pixels a unit of y, which points up.
 * @property {number} width Of the canvas, in CSS pixels.
 * @property {number} height
 */

/**
 * Colours have red, green and blue in the lowest, the second and the third byte, and 255 in the fourth.
 * @typedef {object} Points
 * @property {Float32Array} u Where each is.
 * @property {Float32Array} v
 * @property {Uint32Array} colours 0 for what is not drawn.
 * @property {Uint32Array} edges The colours half mixed with the ground.
 */

/**
 * Fill a canvas with a ground and points. Nothing is mixed with what lies below it, which would take
 * several times as long: first come the edges of all points, then what is inside of them.
 * @param {HTMLCanvasElement} canvas
 * @param {View} view
 * @param {Points} points
 * @param {number} size CSS pixels across a point.
 * @param {number} ground Its colour.
 * @param {number} ratio Pixels of the canvas for a CSS pixel.
 */
// oxlint-disable-next-line no-unused-vars -- latent_map.js calls it
function paintPoints(canvas, view, { u, v, colours, edges }, size, ground, ratio) {
  const [width, height] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
  if (!width || !height) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer).fill(ground);
  const { rim, core, reach } = disc(size * ratio, width);
  const [sx, sy] = [view.sx * ratio, view.sy * ratio];
  const [left, top] = [width / 2 - view.x * sx, height / 2 + view.y * sy];
  const places = new Int32Array(u.length);
  for (let row = 0; row < u.length; row++) {
    const [x, y] = [Math.round(left + u[row] * sx), Math.round(top - v[row] * sy)];
    const within = x >= reach && y >= reach && x < width - reach && y < height - reach;
    places[row] = within && colours[row] ? y * width + x : -1;
  }
  for (const [offsets, tints] of /** @type {[Int32Array, Uint32Array][]} */ ([[rim, edges], [core, colours]])) {
    for (let row = 0; row < places.length; row++) {
      const place = places[row];
      if (place < 0) continue;
      const tint = tints[row];
      for (let i = 0; i < offsets.length; i++) pixels[place + offsets[i]] = tint;
    }
  }
  context.putImageData(image, 0, 0);
}

/**
 * The pixels of the edge of a disc and of what is inside, as offsets in an image from its middle.
 * @param {number} size Pixels across.
 * @param {number} width Of the image.
 */
function disc(size, width) {
  const reach = Math.ceil(size / 2);
  /** @type {number[][]} */
  const [rim, core] = [[], []];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const inside = size / 2 - Math.hypot(x, y);
      if (inside > -0.5) (inside < 0.5 ? rim : core).push(y * width + x);
    }
  }
  return { rim: Int32Array.from(rim), core: Int32Array.from(core), reach };
}
