// A run on the status page: how far it is, what failed, and buttons to start and to stop it.

import { change, explain, toast, within } from "./common.js";
import { onIndex, onRun } from "./news.js";

const section = /** @type {HTMLElement} */ (document.getElementById("run"));
const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (section.querySelector(name));
const [start, stop] = [part("[data-run=POST]"), part("[data-run=DELETE]")];
const bar = /** @type {HTMLProgressElement} */ (part("progress"));

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} minutes`;
  return `${(seconds / 3600).toFixed(1)} hours`;
}

/** @param {import("./news.js").Run} run */
function show(run) {
  section.hidden = false;
  start.hidden = run.running || !run.startable;
  stop.hidden = !run.stoppable;
  part(".progress").hidden = !run.running;
  const count = run.done.toLocaleString("en");
  const of = run.total === null ? "" : ` of ${run.total.toLocaleString("en")}`;
  const parts = [
    run.stage || "beginning",
    run.done || run.total ? `${count}${of} ${run.unit}` : "",
    run.rate ? `${run.rate.toLocaleString("en")} a second` : "",
    run.seconds_left === null ? "" : `${duration(run.seconds_left)} left`,
  ];
  part(".stage").textContent = parts.filter(Boolean).join(" · ");
  bar.removeAttribute("value");
  if (run.total) [bar.max, bar.value] = [run.total, Math.min(run.done, run.total)];
  const items = run.failures.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  });
  part(".failures").replaceChildren(...items);
  part(".failed").textContent = run.failed;
  part(".failed").hidden = !run.failed;
}

section.addEventListener("click", async (event) => {
  const method = within(event, "[data-run]")?.dataset.run;
  if (!method) return;
  try {
    show(await change(method, "/api/run"));
    if (method === "DELETE") toast("The run ends after the part in hand. The next one goes on from there.");
  } catch (error) {
    toast(explain(error));
  }
});

let wasRunning = false;
onRun((run) => {
  show(run);
  // What the tables of this page say has changed.
  if (wasRunning && !run.running && !run.failed) location.reload();
  wasRunning = run.running;
});
onIndex(() => {
  // A run draws the map when its index answers already: a page without pictures does not wait.
  if (!wasRunning || document.body.classList.contains("page-empty")) location.reload();
});
