// What the server tells while a page is open: how far a run is, and a new index. Every page has it.

import { root } from "./common.js";

/** @typedef {{ running: boolean, startable: boolean, stoppable: boolean, stage: string, done: number, total: number | null, unit: string, rate: number, seconds_left: number | null, failures: string[], failed: string }} Run */
/** @typedef {{ build: string, images: number, new: number | null, since: string }} Published */

const AGAIN = 2000; // milliseconds before a server that went away is asked again

/** Name of the index that the page shows; "" if there was none. */
let shown = document.documentElement.dataset.build ?? "";
let told = shown;
/** @type {EventSource | null} */
let source = null;

const listeners = { run: /** @type {((run: Run) => void)[]} */ ([]), index: /** @type {((index: Published) => void)[]} */ ([]) };
const mark = /** @type {HTMLElement} */ (document.querySelector(".at-work"));

/** @param {(run: Run) => void} listener */
export const onRun = (listener) => listeners.run.push(listener);
/** @param {(index: Published) => void} listener */
export const onIndex = (listener) => listeners.index.push(listener);
/** From now on the page shows the latest index. */
export const seen = () => (shown = told);

function open() {
  // A page that nobody looks at learns it when somebody does: browsers allow few connections.
  if (document.hidden || source) return;
  const opened = new EventSource(`${root}/events${shown ? `?build=${shown}` : ""}`);
  source = opened;
  opened.addEventListener("run", (event) => {
    /** @type {Run} */
    const run = JSON.parse(event.data);
    mark.hidden = !run.running;
    mark.textContent = `Indexing${run.total ? ` ${Math.floor((100 * run.done) / run.total)} %` : "…"}`;
    for (const listener of listeners.run) listener(run);
  });
  opened.addEventListener("index", (event) => {
    const published = { ...JSON.parse(event.data), since: shown };
    if (published.build === told) return;
    told = published.build;
    for (const listener of listeners.index) listener(published);
  });
  // The browser would go on asking what has changed since the index that was shown at first.
  opened.addEventListener("error", () => {
    close();
    setTimeout(open, AGAIN);
  });
}

function close() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pagehide", close);
addEventListener("pageshow", open);
open();
