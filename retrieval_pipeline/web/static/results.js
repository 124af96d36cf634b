// The pictures of a search as a grid that holds all of them.

import { ask, fragment } from "./common.js";
import { Grid } from "./grid.js";

/**
 * Return the numbers that the server sent as base64 of their bytes.
 * @param {string} text
 */
export const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;

/**
 * Let a grid show all pictures of a search.
 * @param {HTMLElement} list Holds the first cards.
 * @param {URLSearchParams} search
 */
export function gridOf(list, search) {
  const start = Number(search.get("offset") || 0);
  const further = (/** @type {number} */ offset, /** @type {number | undefined} */ count) => {
    const wanted = new URLSearchParams(search);
    wanted.delete("k");
    wanted.set("offset", String(start + offset));
    if (count) wanted.set("k", String(count));
    return wanted;
  };
  return new Grid(list, {
    async shapes(offset) {
      const told = await (await ask(`/api/shapes?${further(offset, undefined)}`)).json();
      return { ...told, shapes: Array.from(new Uint16Array(bytes(told.shapes)), (shape) => shape / 100) };
    },
    async ids(offset, count) {
      return (await (await ask(`/api/ids?${further(offset, count)}`)).json()).content_ids;
    },
    async cards(offset, count) {
      const cards = await fragment(`/fragments/cards?${further(offset, count)}`);
      return /** @type {HTMLElement[]} */ ([...cards.querySelectorAll(".card")]);
    },
  });
}
