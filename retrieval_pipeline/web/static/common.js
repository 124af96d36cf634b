// What all pages share: requests, messages, and pictures that cannot be shown.

/** The path that all addresses of this server begin with: empty, or what a proxy calls it. */
export const root = document.documentElement.dataset.root ?? "";

const token = /** @type {HTMLMetaElement} */ (document.querySelector('meta[name="csrf-token"]'));

/**
 * Ask for a path of this server; the error of a refused request says why.
 * @param {string} path
 * @param {RequestInit} [options]
 */
export async function ask(path, options = {}) {
  const response = await fetch(root + path, options);
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

/** @param {Response} response */
async function reason(response) {
  const type = response.headers.get("content-type") || "";
  if (type.includes("json")) return (await response.json()).detail;
  const page = parse(await response.text());
  return page.querySelector("#content p")?.textContent || response.statusText;
}

/**
 * Ask for a change. A server that was started anew has another token.
 * @param {string} method
 * @param {string} path
 * @param {any} [body]
 * @param {string} [type]
 */
export async function change(method, path, body, type = "application/json") {
  const send = () =>
    fetch(root + path, {
      method,
      body: type === "application/json" && body !== undefined ? JSON.stringify(body) : body,
      headers: { "X-Retrieval-Token": token.content, "Content-Type": type },
    });
  let response = await send();
  if (response.status === 403) {
    token.content = (await (await ask("/api/token")).json()).token;
    response = await send();
  }
  if (!response.ok) throw new Error(await reason(response));
  return response.status === 204 ? null : response.json();
}

/** @param {string} html */
export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export async function fragment(path, signal) {
  return parse(await (await ask(path, { signal })).text());
}

/**
 * Show a message for a while, with something to do about it if there is.
 * @param {string} text
 * @param {string} [label]
 * @param {() => void} [action]
 */
export function toast(text, label = "", action = undefined) {
  const box = document.createElement("p");
  box.textContent = text;
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    button.textContent = label;
    button.addEventListener("click", () => {
      box.remove();
      action();
    });
    box.append(button);
  }
  // What lies outside of an open dialog is neither seen nor reached.
  const toasts = document.querySelector("dialog[open] .toasts") ?? document.querySelector("body > .toasts");
  toasts?.replaceChildren(box);
  setTimeout(() => box.remove(), action ? 8000 : 6000);
}

/** @param {any} error */
export const explain = (error) =>
  error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;

/**
 * Put a placeholder that says why in the place of a picture that cannot be shown.
 * @param {HTMLImageElement} image
 */
export async function markGone(image) {
  const frame = image.closest("a, figure");
  if (!frame || frame.classList.contains("gone")) return;
  frame.classList.add("gone");
  const note = document.createElement("span");
  note.className = "missing";
  note.textContent = "cannot be shown";
  frame.append(note);
  try {
    const response = await fetch(image.src);
    if (response.ok) {
      // It was a passing trouble.
      frame.classList.remove("gone");
      note.remove();
      image.setAttribute("src", image.src);
    } else note.textContent = await reason(response);
  } catch {
    note.textContent = "the server does not answer";
  }
}

document.addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLImageElement) markGone(event.target);
  },
  true,
);
// Those that failed before this script ran.
for (const image of document.images) if (image.complete && image.currentSrc && !image.naturalWidth) markGone(image);

/**
 * Give the element that an event happened in, or nothing.
 * @param {Event} event
 * @param {string} selector
 */
export const within = (event, selector) =>
  event.target instanceof Element ? /** @type {HTMLElement | null} */ (event.target.closest(selector)) : null;

/**
 * Whether a click asks for a new tab or window, which is the browser's business.
 * @param {MouseEvent} event
 */
export const opensElsewhere = (event) =>
  Boolean(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);

/**
 * Copy a text that may still be on its way; the browser wants to hear of it at once after the click.
 * @param {string | Promise<string>} text
 */
export async function copyText(text) {
  if (!navigator.clipboard) {
    throw new Error("Browsers let pages copy only over https, or on the machine that serves them.");
  }
  const blob = Promise.resolve(text).then((told) => new Blob([told], { type: "text/plain" }));
  await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
}

// Buttons of the view of one picture.
document.addEventListener("click", async (event) => {
  const copy = within(event, "[data-copy]");
  const reveal = within(event, "[data-reveal]");
  try {
    if (copy) {
      await copyText(copy.dataset.copy ?? "");
      toast("The path is copied.");
    } else if (reveal) {
      await change("POST", `/api/pictures/${idOf(reveal)}/show-in-folder`);
    }
  } catch (error) {
    toast(explain(error));
  }
});

/**
 * The content id of the picture that an element belongs to.
 * @param {Element} element
 */
export const idOf = (element) => /** @type {HTMLElement | null} */ (element.closest("[data-id]"))?.dataset.id ?? "";
