// How large the pictures are, and whether their captions show. The server is told by a cookie, so that
// it sends the page as it was left and nothing moves.

import { root } from "./common.js";

const KEPT = 365 * 24 * 3600; // seconds
const MIDDLE = 3; // of five sizes

const size = /** @type {HTMLInputElement} */ (document.getElementById("size"));
const captions = /** @type {HTMLInputElement} */ (document.getElementById("captions"));
const classes = document.documentElement.classList;

/** @param {() => void} changed Is told that the pictures need other places. */
export function listen(changed) {
  size.value = [...classes].find((name) => /^size\d$/.test(name))?.slice(-1) ?? String(MIDDLE);
  captions.checked = !classes.contains("uncaptioned");
  const apply = () => {
    for (let step = 1; step <= 5; step++) classes.toggle(`size${step}`, String(step) === size.value && step !== MIDDLE);
    classes.toggle("uncaptioned", !captions.checked);
    const look = [...classes].filter((name) => /^(size\d|uncaptioned)$/.test(name)).join(".");
    document.cookie = `look=${look}; path=${root || "/"}; max-age=${KEPT}; samesite=lax`;
    changed();
  };
  size.addEventListener("input", apply);
  captions.addEventListener("change", apply);
}
