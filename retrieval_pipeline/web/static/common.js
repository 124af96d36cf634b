// What all pages share: requests, messages, and pictures that cannot be shown.

const token = document.querySelector('meta[name="csrf-token"]');

// Ask for `path`; the error of a refused request says why.
export async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Error(await reason(response));
  return response;
}

async function reason(response) {
  const type = response.headers.get("content-type") || "";
  if (type.includes("json")) return (await response.json()).detail;
  const page = parse(await response.text());
  return page.querySelector("#content p")?.textContent || response.statusText;
}

// Ask for a change. A server that was started anew has another token.
export async function change(method, path, body, type = "application/json") {
  const send = () =>
    fetch(path, {
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

export function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

export async function fragment(path, signal) {
  return parse(await (await ask(path, { signal })).text());
}

// Show a message for a while, with something to do about it if there is.
export function toast(text, label, action) {
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
  const toasts = document.querySelector(".toasts");
  toasts.replaceChildren(box);
  setTimeout(() => box.remove(), action ? 8000 : 6000);
}

export const explain = (error) =>
  error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message;

// Put a placeholder that says why in the place of a picture that cannot be shown.
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
      image.src = image.src;
    } else note.textContent = await reason(response);
  } catch {
    note.textContent = "the server does not answer";
  }
}

document.addEventListener(
  "error",
  (event) => event.target instanceof HTMLImageElement && markGone(event.target),
  true,
);
// Those that failed before this script ran.
for (const image of document.images) if (image.complete && image.currentSrc && !image.naturalWidth) markGone(image);

// Buttons of the view of one picture.
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  const reveal = event.target.closest("[data-reveal]");
  try {
    if (copy) {
      await navigator.clipboard.writeText(copy.dataset.copy);
      toast("The path is copied.");
    } else if (reveal) {
      const { id } = reveal.closest("[data-id]").dataset;
      await change("POST", `/api/pictures/${id}/show-in-folder`);
    }
  } catch (error) {
    toast(explain(error));
  }
});
