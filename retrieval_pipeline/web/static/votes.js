// Thumbs up and down on pictures, into the recommender that was chosen in this tab.

import { ask, change, explain, idOf, root, toast, within } from "./common.js";

const KEY = "recommender";
/** @type {Record<string, boolean>} Whether each picture that was voted on is liked. */
let votes = {};

/** The recommender of this tab; at first the one that was chosen last in any tab. */
export function recommender() {
  const name = sessionStorage.getItem(KEY) || localStorage.getItem(KEY) || "favourites";
  // What another tab chooses from now on is its own affair.
  sessionStorage.setItem(KEY, name);
  return name;
}

/** @param {string} name */
export function choose(name) {
  sessionStorage.setItem(KEY, name);
  localStorage.setItem(KEY, name);
  point();
  return load();
}

/** Let the link to the page that asks for votes lead to the same recommender. */
function point() {
  const link = /** @type {HTMLAnchorElement | null} */ (document.querySelector('nav a[data-to="vote"]'));
  if (link) link.href = `${root}/vote?${new URLSearchParams({ name: recommender() })}`;
}

/**
 * Show on the buttons within an element how the pictures were voted on.
 * @param {ParentNode} [part]
 */
export function mark(part = document) {
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (part.querySelectorAll("[data-vote]"))) {
    button.setAttribute("aria-pressed", String(String(votes[idOf(button)]) === button.dataset.vote));
  }
}

async function load() {
  try {
    ({ votes } = await (await ask(`/api/judgements?${new URLSearchParams({ name: recommender() })}`)).json());
    mark();
  } catch {
    // Without an index there is nothing to vote on.
  }
}

/**
 * Like or dislike a picture, or take the vote on it back.
 * @param {string} name Of the recommender.
 * @param {string} id
 * @param {boolean | undefined} liked
 */
async function set(name, id, liked) {
  const told =
    liked === undefined
      ? await change("DELETE", `/api/judgements?${new URLSearchParams({ name, content_id: id })}`)
      : await change("POST", "/api/judgements", { name, content_id: id, liked });
  if (name !== recommender()) return;
  if (told.votes) ({ votes } = told);
  else delete votes[id];
  mark();
}

/**
 * Like or dislike several pictures; return what gives them back the votes that they had.
 * @param {string[]} ids
 * @param {boolean} liked
 */
export async function setSeveral(ids, liked) {
  const name = recommender();
  const former = Map.groupBy(ids, (id) => votes[id] ?? null);
  const send = async (/** @type {string[]} */ content_ids, /** @type {boolean | null} */ vote) => {
    const told = await change("POST", "/api/judgements/several", { name, content_ids, liked: vote });
    if (name !== recommender()) return;
    ({ votes } = told);
    mark();
  };
  await send(ids, liked);
  return async () => {
    for (const [vote, voted] of former) await send(voted, vote);
  };
}

export function listen() {
  document.addEventListener("click", async (event) => {
    const button = within(event, "[data-vote]");
    if (!button) return;
    event.preventDefault();
    const [name, id, former] = [recommender(), idOf(button), votes[idOf(button)]];
    const pressed = button.dataset.vote === "true";
    const liked = former === pressed ? undefined : pressed;
    try {
      await set(name, id, liked);
      const said = liked === undefined ? "The vote is taken back" : liked ? "Liked" : "Disliked";
      toast(`${said} in “${name}”.`, "Undo", async () => {
        try {
          await set(name, id, former);
          toast("That is undone.");
        } catch (error) {
          toast(explain(error));
        }
      });
    } catch (error) {
      toast(explain(error));
    }
  });
  point();
  load();
}
