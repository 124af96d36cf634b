// Duplicates: groups that are left stay so on all pages, and the paths of what could go are copied.

import { copyText, explain, toast } from "./common.js";

const KEY = "left duplicates";
const MOST = 500; // as many as the server takes

/** @type {Set<string>} First pictures of the groups that are left. */
const left = new Set(JSON.parse(localStorage.getItem(KEY) ?? "[]"));
const form = /** @type {HTMLFormElement | null} */ (document.getElementById("plan"));
const boxes = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('input[name="left"]'));

for (const box of boxes) {
  box.checked ||= left.has(box.value);
  box.addEventListener("change", () => {
    if (box.checked) left.add(box.value);
    else left.delete(box.value);
    localStorage.setItem(KEY, JSON.stringify([...left].slice(-MOST)));
  });
}

// Those of other pages are sent too.
form?.addEventListener("formdata", (event) => {
  const here = new Set([...boxes].map((box) => box.value));
  for (const id of left) if (!here.has(id)) event.formData.append("left", id);
});

const copy = /** @type {HTMLElement | null} */ (document.querySelector("[data-copy-paths]"));
if (copy) copy.hidden = false;
copy?.addEventListener("click", async () => {
  const going = [...document.querySelectorAll(".twins")]
    .filter((group) => !group.querySelector('input[name="left"]:checked'))
    .flatMap((group) => [.../** @type {NodeListOf<HTMLElement>} */ (group.querySelectorAll(".goes"))]);
  try {
    await copyText(going.map(({ dataset }) => dataset.path).join("\n"));
    toast(going.length === 1 ? "The path is copied." : `${going.length} paths are copied.`);
  } catch (error) {
    toast(explain(error));
  }
});
