// One picture, large, above the page it was opened from: its thumbnail at once, then its own pixels.
// Arrows and swipes lead to its neighbours, and what is known of it stands in a panel beside it.

import { ask, explain, fragment, root, toast, within } from "./common.js";
import { mark } from "./votes.js";
import { Zoom } from "./zoom.js";

const PANEL = "panel"; // under this name the browser keeps whether the panel is hidden
const LARGE = 1600; // pixels of the longest edge of a large thumbnail

/**
 * @typedef {object} Around
 * @property {(id: string, step: number) => Promise<string | undefined>} neighbour
 *   The picture before or after one.
 * @property {() => URLSearchParams} search The search whose filters decide which of a picture's files
 *   is meant.
 * @property {(search: URLSearchParams) => void} find Is given a search by a part of the picture.
 * @property {(id: string | null) => void} moved Is told what is to be shown; null to close.
 */

export class Viewer {
  /**
   * @param {HTMLDialogElement} dialog
   * @param {Around} around
   */
  constructor(dialog, around) {
    this.dialog = dialog;
    this.around = around;
    /** @type {string | null} */
    this.id = null;
    this.original = ""; // address of the picture with all its pixels; empty if that is not known
    this.shown = 0; // 0 for a thumbnail, 1 for a large one, 2 for the original
    const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (dialog.querySelector(selector));
    this.frame = part(".frame");
    this.panel = part(".panel-of-one");
    this.missing = part(".unshown");
    this.matched = part(".matched");
    this.box = part(".drawn");
    /** @type {number[] | null} The part of the picture that matched: left, top, right and bottom. */
    this.region = null;
    /** @type {number[]} The box that was drawn. */
    this.drawn = [];
    this.image = /** @type {HTMLImageElement} */ (part(".frame > img"));
    this.zoom = new Zoom(this.frame, this.image, {
      swiped: (step) => this.step(step),
      changed: () => {
        this.sharpen();
        this.outline();
      },
      drawn: (edges) => this.draw(edges),
    });
    dialog.classList.toggle("bare", localStorage.getItem(PANEL) === "hidden");
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.around.moved(null);
    });
    // Messages that are still shown go on in the page.
    dialog.addEventListener("close", () => {
      document.querySelector("body > .toasts")?.append(...part(".toasts").childNodes);
    });
    // Not of the dialog alone: a button that vanishes under the pointer leaves the focus nowhere.
    document.addEventListener("keydown", (event) => this.isOpen && this.onKey(event));
    dialog.addEventListener("click", (event) => this.onClick(event));
    for (const name of ["pointerup", "pointercancel"]) this.frame.addEventListener(name, () => this.find());
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** @param {number} by */
  async step(by) {
    const id = this.id && (await this.around.neighbour(this.id, by));
    if (id) this.around.moved(id);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || within(event, "input, textarea, select")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const action = { b: () => this.toggleDrawing(), i: () => this.togglePanel(), f: () => this.toggleFullScreen() }[event.key];
    const vote = { l: "true", d: "false" }[event.key];
    if (step) this.step(step);
    else if (action) action();
    else if (vote) /** @type {HTMLElement | null} */ (this.dialog.querySelector(`[data-vote="${vote}"]`))?.click();
    else if (!this.zoom.key(event.key)) return;
    event.preventDefault();
  }

  /** @param {MouseEvent} event */
  onClick(event) {
    const button = within(event, "[data-do]");
    const { step, do: action } = button?.dataset ?? {};
    if (action === "step") this.step(Number(step));
    else if (action === "close") this.around.moved(null);
    else if (action === "panel") this.togglePanel();
    else if (action === "zoom") this.zoom.toggle();
    else if (action === "full") this.toggleFullScreen();
    else if (action === "find") this.toggleDrawing();
  }

  togglePanel() {
    const hidden = this.dialog.classList.toggle("bare");
    localStorage.setItem(PANEL, hidden ? "hidden" : "shown");
    this.dialog.querySelector('[data-do="panel"]')?.setAttribute("aria-pressed", String(!hidden));
  }

  /** Let a drag draw a box around what is to be found, or move the picture again. */
  toggleDrawing() {
    this.zoom.drawing = !this.zoom.drawing;
    this.frame.classList.toggle("finding", this.zoom.drawing);
    this.dialog.querySelector('[data-do="find"]')?.setAttribute("aria-pressed", String(this.zoom.drawing));
    this.box.hidden = true;
    if (this.zoom.drawing) toast("Draw a box around what you want to find.");
  }

  /** @param {number[]} edges */
  draw(edges) {
    this.drawn = edges;
    Object.assign(this.box.style, this.zoom.placeOf(edges));
    this.box.hidden = false;
  }

  /** Look for what is in the box, if it was drawn and is not only a click. */
  find() {
    const [left, top, right, bottom] = this.drawn;
    this.drawn = [];
    if (!this.id || !(right - left > 0.02 && bottom - top > 0.02)) return;
    const crop = [left, top, right - left, bottom - top].map((value) => value.toFixed(4)).join(",");
    this.toggleDrawing();
    this.around.find(new URLSearchParams({ like: this.id, crop }));
  }

  /** Show which part of the picture matched. */
  outline() {
    this.matched.hidden = !this.region;
    if (this.region) Object.assign(this.matched.style, this.zoom.placeOf(this.region));
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.dialog.requestFullscreen?.().catch((error) => toast(explain(error)));
  }

  /**
   * Show a picture.
   * @param {string} id
   */
  async show(id) {
    if (this.id === id && this.isOpen) return;
    this.id = id;
    this.begin(id);
    try {
      const content = await fragment(`/fragments/picture/${id}?${this.around.search()}`);
      if (this.id !== id) return;
      const about = /** @type {HTMLElement} */ (content.querySelector(".about"));
      const picture = content.querySelector(".large img");
      this.missing.replaceChildren(...(content.querySelector(".large .missing")?.childNodes ?? []));
      this.missing.hidden = Boolean(picture);
      if (picture) this.take(id, /** @type {HTMLImageElement} */ (picture));
      this.panel.dataset.id = id;
      this.panel.replaceChildren(about);
      this.panel.removeAttribute("aria-busy");
      this.dialog.setAttribute("aria-label", this.panel.querySelector("h1")?.textContent ?? "Picture");
      this.dialog.scrollTop = 0;
      mark(this.dialog);
      this.lookAround(id);
    } catch (error) {
      if (this.id !== id) return;
      toast(explain(error));
      this.around.moved(null);
    }
  }

  /**
   * Show at once what is there already: the thumbnail of the card.
   * @param {string} id
   */
  begin(id) {
    const known = /** @type {HTMLImageElement | null} */ (document.querySelector(`.card[data-id="${id}"] img`));
    this.missing.hidden = true;
    this.original = "";
    this.image.removeAttribute("src");
    this.image.alt = "";
    const part = known?.closest("[data-region]")?.getAttribute("data-region")?.split(",").map(Number);
    this.region = part ? [part[0], part[1], part[0] + part[2], part[1] + part[3]] : null;
    if (known) this.take(id, known);
    this.outline();
    this.panel.setAttribute("aria-busy", "true");
    if (!this.isOpen) {
      this.dialog.showModal();
      this.zoom.reset();
    }
    // Arrows work at once, and a screen reader starts with the picture.
    this.dialog.focus();
  }

  /**
   * Take over the size and the thumbnail of a picture, and ask for a larger one.
   * @param {string} id
   * @param {HTMLImageElement} shown
   */
  take(id, shown) {
    if (this.image.dataset.id === id && this.image.getAttribute("src")) {
      this.original = shown.dataset.original ?? this.original;
      return this.sharpen();
    }
    this.image.dataset.id = id;
    this.image.alt = shown.alt;
    this.image.src = shown.currentSrc || shown.src;
    this.shown = 0;
    this.original = shown.dataset.original ?? "";
    const [left, top, right, bottom] = this.region ?? [0, 0, 0, 0];
    const middle = this.region && { x: (left + right) / 2, y: (top + bottom) / 2 };
    this.zoom.show(Number(shown.getAttribute("width")), Number(shown.getAttribute("height")), middle);
    this.sharpen();
  }

  /** Replace the image by one with more pixels, if more are seen than it has. */
  async sharpen() {
    const { id, zoom } = this;
    if (!id || this.image.dataset.id !== id || !this.image.getAttribute("src")) return;
    const seen = Math.max(zoom.size.x, zoom.size.y) * zoom.scale * devicePixelRatio;
    const wanted = seen <= LARGE || !this.original ? 1 : 2;
    if (wanted <= this.shown) return;
    this.shown = wanted;
    const source = wanted === 1 ? `${root}/api/pictures/${id}/thumbnail?size=large` : this.original;
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
    } catch {
      // The view of the picture says why it cannot be shown.
      if (wanted === 1 && this.id === id) this.explainMissing(id);
      return;
    }
    if (this.id === id && this.shown === wanted) this.image.src = source;
  }

  /**
   * Say why a picture cannot be shown.
   * @param {string} id
   */
  async explainMissing(id) {
    try {
      await ask(`/api/pictures/${id}/thumbnail?size=large`);
    } catch (error) {
      if (this.id !== id) return;
      this.missing.textContent = explain(error);
      this.missing.hidden = false;
    }
  }

  /**
   * Offer the neighbours, and load them ahead.
   * @param {string} id
   */
  async lookAround(id) {
    for (const step of [1, -1]) {
      const near = await this.around.neighbour(id, step);
      if (this.id !== id) return;
      const button = /** @type {HTMLElement} */ (this.dialog.querySelector(`[data-step="${step}"]`));
      button.hidden = !near;
      if (near) new Image().src = `${root}/api/pictures/${near}/thumbnail?size=large`;
    }
  }

  close() {
    this.id = null;
    if (document.fullscreenElement) document.exitFullscreen();
    if (this.isOpen) this.dialog.close();
    this.panel.replaceChildren();
    this.image.removeAttribute("src");
    delete this.image.dataset.id;
  }
}
