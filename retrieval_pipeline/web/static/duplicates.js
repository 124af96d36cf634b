// Duplicates: groups to leave go into an album, and the paths of what could go are copied.

import { change, copyText, explain, toast } from "./common.js";

// Where earlier versions kept the first pictures of the groups to leave.
const FORMER = "left duplicates";

const form = /** @type {HTMLFormElement | null} */ (document.getElementById("plan"));
const boxes = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("[data-leave]"));
const idsOf = (/** @type {HTMLInputElement} */ box) => box.dataset.leave?.split(" ") ?? [];

/**
 * Put pictures into the album of those that are left as they are, or take them out.
 * @param {"add" | "remove"} how
 * @param {string[]} ids
 */
const put = (how, ids) => change("POST", `/api/albums/${how}`, { name: form?.dataset.album, content_ids: ids });

for (const box of boxes) {
  box.addEventListener("change", async () => {
    try {
      await put(box.checked ? "add" : "remove", idsOf(box));
    } catch (error) {
      box.checked = !box.checked;
      toast(explain(error));
    }
  });
}

const former = JSON.parse(localStorage.getItem(FORMER) ?? "[]");
if (form && former.length) {
  put("add", former).then(
    () => {
      localStorage.removeItem(FORMER);
      location.reload();
    },
    (error) => toast(explain(error)),
  );
}

const copy = /** @type {HTMLElement | null} */ (document.querySelector("[data-copy-paths]"));
if (copy) copy.hidden = false;
copy?.addEventListener("click", async () => {
  const going = [...document.querySelectorAll(".twins")]
    .filter((group) => !group.querySelector("[data-leave]:checked"))
    .flatMap((group) => [.../** @type {NodeListOf<HTMLElement>} */ (group.querySelectorAll(".goes"))]);
  try {
    await copyText(going.map(({ dataset }) => dataset.path).join("\n"));
    toast(going.length === 1 ? "The path is copied." : `${going.length} paths are copied.`);
  } catch (error) {
    toast(explain(error));
  }
});
