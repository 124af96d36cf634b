// One picture, large, above the page it was opened from. Arrows lead to its neighbours.

import { explain, fragment, toast } from "./common.js";
import { mark } from "./votes.js";

export class Viewer {
  // `neighbour(id, step)` gives the id of a picture before or after this one, or nothing;
  // `moved(id)` is told what is shown, and null when it is closed.
  constructor(dialog, neighbour, moved) {
    this.dialog = dialog;
    this.neighbour = neighbour;
    this.moved = moved;
    this.id = null;
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.moved(null);
    });
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && !event.altKey && !event.ctrlKey && !event.metaKey) this.step(step);
    });
    dialog.addEventListener("click", (event) => {
      const button = event.target.closest("[data-step]");
      if (button) this.step(Number(button.dataset.step));
      else if (event.target.closest("[data-close]") || event.target === dialog) this.moved(null);
    });
  }

  get isOpen() {
    return this.dialog.open;
  }

  step(by) {
    const id = this.neighbour(this.id, by);
    if (id) this.moved(id);
  }

  async show(id) {
    if (this.id === id && this.isOpen) return;
    this.id = id;
    try {
      const content = await fragment(`/fragments/picture/${id}`);
      if (this.id !== id) return;
      const frame = document.createElement("div");
      frame.className = "frame";
      frame.append(content, button("close", "Close", "data-close", "", "M6 6l12 12M18 6 6 18"));
      if (this.neighbour(id, -1)) frame.append(button("previous", "Previous picture", "data-step", "-1", "m14.5 5-7 7 7 7"));
      if (this.neighbour(id, 1)) frame.append(button("next", "Next picture", "data-step", "1", "m9.5 5 7 7-7 7"));
      this.dialog.replaceChildren(frame);
      this.dialog.setAttribute("aria-label", frame.querySelector("h1").textContent);
      mark(this.dialog);
      if (!this.isOpen) this.dialog.showModal();
      this.dialog.scrollTop = 0;
      // Arrows work at once, and a screen reader starts with the picture.
      this.dialog.focus();
      for (const step of [1, -1]) {
        const near = this.neighbour(id, step);
        if (near) new Image().src = `/api/pictures/${near}/thumbnail?size=large`;
      }
    } catch (error) {
      toast(explain(error));
      this.moved(null);
    }
  }

  close() {
    this.id = null;
    if (this.isOpen) this.dialog.close();
    this.dialog.replaceChildren();
  }
}

function button(name, label, attribute, value, path) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = `round ${name}`;
  made.setAttribute("aria-label", label);
  made.setAttribute(attribute, value);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  for (const [key, setting] of Object.entries({ fill: "none", stroke: "currentColor", "stroke-width": "1.75", "stroke-linecap": "round", "stroke-linejoin": "round" })) line.setAttribute(key, setting);
  svg.append(line);
  made.append(svg);
  return made;
}
