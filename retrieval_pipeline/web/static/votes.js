// Thumbs up and down on pictures, into the recommender that was chosen.

import { ask, change, explain, toast } from "./common.js";

const KEY = "recommender";
let votes = {};

export const recommender = () => localStorage.getItem(KEY) || "favourites";

export function choose(name) {
  localStorage.setItem(KEY, name);
  return load();
}

// Show on the buttons within `root` how the pictures were voted on.
export function mark(root = document) {
  for (const button of root.querySelectorAll("[data-vote]")) {
    const { id } = button.closest("[data-id]").dataset;
    button.setAttribute("aria-pressed", String(String(votes[id]) === button.dataset.vote));
  }
}

export async function load() {
  try {
    const answer = await ask(`/api/judgements?name=${encodeURIComponent(recommender())}`);
    ({ votes } = await answer.json());
    mark();
  } catch {
    // Without an index there is nothing to vote on.
  }
}

async function vote(id, liked) {
  ({ votes } = await change("POST", "/api/judgements", { name: recommender(), content_id: id, liked }));
  mark();
  toast(`${liked ? "Liked" : "Disliked"} in “${recommender()}”.`, "Undo", undo);
}

async function undo() {
  try {
    await change("DELETE", `/api/judgements?name=${encodeURIComponent(recommender())}`);
    await load();
    toast("The vote is taken back.");
  } catch (error) {
    toast(explain(error));
  }
}

export function listen() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-vote]");
    if (!button) return;
    try {
      await vote(button.closest("[data-id]").dataset.id, button.dataset.vote === "true");
    } catch (error) {
      toast(explain(error));
    }
  });
  load();
}
