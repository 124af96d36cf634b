// A grid of any number of pictures in rows of about equal height. The shapes of all pictures are known
// before the pictures are, so that the page has its full height at once; cards are in the document
// only near the window, and come from the server in pages.
//
// The rows are those that the style sheet's flexible boxes make of the same cards (`.cards`), so that
// nothing moves when this script takes over from the first view that the server sent.

const PAGE = 60;
const KEPT_SCREENS = 1.5; // above and below the window
const RETRY = 2000; // milliseconds
const QUICK = 80; // milliseconds that a place must stay in view before its cards are asked for

/**
 * Where the cards come from.
 * @typedef {object} Supply
 * @property {(offset: number) => Promise<Layout>} shapes What is known of the pictures from `offset` on.
 * @property {(offset: number, count: number) => Promise<HTMLElement[]>} cards
 * @property {(offset: number, count: number) => Promise<string[]>} ids
 */

/**
 * What is known of pictures before they are.
 * @typedef {object} Layout
 * @property {number[]} shapes Width over height of each.
 * @property {boolean} more Whether there are further ones.
 * @property {number | null} likely How many are likely, the first ones; null where that does not apply.
 * @property {{ month: string, count: number }[]} months When they were taken, if that is their order.
 */

/** @typedef {{ first: number, end: number, top: number, height: number }} Row */

/**
 * What begins at a picture, under a line of its own.
 * @typedef {object} Section
 * @property {number} first Place of the picture.
 * @property {string} text
 * @property {string} [month] Such as "2019-08"; empty for unknown dates.
 * @property {number} top Pixels below the top of the list.
 * @property {HTMLElement} [line]
 */

const THE_REST = "The rest are only the nearest";

export class Grid extends EventTarget {
  /**
   * Fires `loaded` when cards came, `counted` when it is known how many there are, and `arranged` when
   * they have other places.
   * @param {HTMLElement} list Holds the first cards.
   * @param {Supply} supply
   */
  constructor(list, supply) {
    super();
    this.list = list;
    this.supply = supply;
    /** @type {number[]} Width over height of each picture. */
    this.ratios = [];
    /** @type {(string | undefined)[]} Content ids, as far as they are known. */
    this.ids = [];
    /** @type {Map<number, HTMLElement>} The cards that are near, by their place. */
    this.cards = new Map();
    /** @type {Map<number, HTMLElement>} What stands in their places until they come. */
    this.waiting = new Map();
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Map<number, Promise<void>>} The pages of cards that were asked for, by their offset. */
    this.pending = new Map();
    this.current = 0; // the picture that the tabulator key leads to
    this.more = true;
    this.closed = false;
    this.width = 0;
    this.height = 0;
    this.gap = 0;
    this.scheduled = 0;
    this.hurry = false;
    this.fromServer = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.soon = undefined;
    /** @type {Promise<void> | null} */
    this.counting = null;
    this.likely = 0; // how many are likely, if that is known
    this.surely = 0; // how many are likely at least
    /** @type {Section[]} In the order of their places. */
    this.sections = [];
    for (const filler of list.querySelectorAll(".filler")) filler.remove();
    for (const card of /** @type {HTMLCollectionOf<HTMLElement>} */ (list.children)) {
      if (card.classList.contains("divider")) {
        const { month } = card.dataset;
        if (month === undefined) this.likely = this.ratios.length;
        this.sections.push({ first: this.ratios.length, text: card.textContent?.trim() ?? "", month, top: 0, line: card });
        continue;
      }
      this.cards.set(this.ratios.length, card);
      this.ids.push(card.dataset.id);
      this.ratios.push(Number(card.dataset.shape) / 100);
    }
    list.addEventListener("focusin", (event) => {
      const card = /** @type {Element} */ (event.target).closest(".card");
      if (!card || Number(card.ariaPosInSet) - 1 === this.current) return;
      this.current = Number(card.ariaPosInSet) - 1;
      this.schedule();
    });
    this.onScroll = () => this.schedule();
    this.observer = new ResizeObserver(() => this.resize());
    addEventListener("scroll", this.onScroll, { passive: true });
    this.resize();
    list.classList.add("live");
    this.observer.observe(list);
    this.counting = this.count();
  }

  close() {
    this.closed = true;
    removeEventListener("scroll", this.onScroll);
    this.observer.disconnect();
  }

  get length() {
    return this.ratios.length;
  }

  /**
   * Ask for the shapes of the pictures whose shapes are not known yet.
   * @returns {Promise<void>}
   */
  async count() {
    const offset = this.fromServer ? this.ratios.length : 0;
    try {
      const { shapes, more, likely, months } = await this.supply.shapes(offset);
      if (this.closed) return;
      if (likely && !this.likely && likely < shapes.length) {
        this.likely = offset + likely;
        this.sections.push({ first: this.likely, text: THE_REST, top: 0 });
      } else if (likely === shapes.length) this.surely = offset + likely;
      this.takeMonths(months, offset);
      // The first cards have their own shapes; those must stay where they are.
      for (let i = this.ratios.length - offset; i < shapes.length; i++) this.ratios.push(shapes[i]);
      // Lines may have come between the first cards.
      if (!this.fromServer) this.rows = [];
      this.fromServer = true;
      this.more = more;
      this.arrange();
      this.dispatchEvent(new Event("counted"));
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
      if (!this.closed) return this.count();
    }
    this.counting = null;
    this.schedule();
  }

  resize() {
    const width = this.list.clientWidth;
    if (!width || width === this.width) return;
    const anchor = this.width ? this.anchor() : null;
    this.width = width;
    this.relay(anchor);
  }

  /**
   * Give all pictures their places anew; the window stays at a picture.
   * @param {{ index: number, below: number } | null} [anchor]
   */
  relay(anchor = this.anchor()) {
    this.rows = [];
    this.arrange();
    if (anchor) this.scrollTo(anchor);
    this.render();
  }

  /**
   * Take over which months the pictures from a place on are of.
   * @param {{ month: string, count: number }[]} months
   * @param {number} first
   */
  takeMonths(months, first) {
    for (const { month, count } of months) {
      const last = this.sections.at(-1);
      if (last === undefined || (last.first < first && last.month !== month)) {
        this.sections.push({ first, text: nameOf(month), month, top: 0 });
      }
      first += count;
    }
  }

  /** Fill rows from the first picture that has none; the last row is filled anew when more come. */
  arrange() {
    const style = getComputedStyle(this.list);
    const em = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const length = (/** @type {string} */ name) => parseFloat(style.getPropertyValue(name)) * em;
    const [gap, least, most, caption, divider] = ["--gap", "--row", "--highest", "--caption", "--divider"].map(length);
    const { ratios, width, sections } = this;
    this.rows.pop();
    const last = this.rows.at(-1);
    let [first, top] = last ? [last.end, last.top + last.height + caption] : [0, 0];
    let next = sections.findIndex((section) => section.first >= first);
    while (first < ratios.length) {
      if (sections[next]?.first === first) {
        sections[next++].top = top;
        top += divider;
      }
      const stop = sections[next]?.first ?? ratios.length;
      let [end, sum] = [first, 0];
      while (end < stop && (end === first || (sum + ratios[end]) * least + (end - first) * gap <= width)) {
        sum += ratios[end++];
      }
      const space = width - (end - first - 1) * gap;
      const free = space - sum * least;
      // The last row, and that above a line, is filled up by nothing.
      const height = end === stop && free > gap ? least : Math.min(space / sum, most);
      this.rows.push({ first, end, top, height });
      [first, top] = [end, top + height + caption];
    }
    this.gap = gap;
    this.height = top;
    this.list.style.height = `${top}px`;
    this.dispatchEvent(new Event("arranged"));
  }

  /**
   * Return the number of the first row whose end lies below `y`, by halving.
   * @param {number} y Pixels below the top of the list.
   */
  rowAt(y) {
    let [low, high] = [0, this.rows.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].top + this.rows[middle].height > y) high = middle;
      else low = middle + 1;
    }
    return Math.max(low, 0);
  }

  /** @param {number} index */
  rowOf(index) {
    let [low, high] = [0, this.rows.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (index < this.rows[middle].end) high = middle;
      else low = middle + 1;
    }
    return this.rows[Math.max(low, 0)];
  }

  get top() {
    return this.list.getBoundingClientRect().top + scrollY;
  }

  /** Where the window is: the first picture in it, and how far that lies below the window's top. */
  anchor() {
    const header = document.querySelector("header.top")?.clientHeight ?? 0;
    const y = scrollY + header - this.top;
    if (y <= 0 || !this.rows.length) return null;
    const row = this.rows[this.rowAt(y)];
    return { index: row.first, below: row.top + this.top - scrollY };
  }

  /**
   * Bring the window back to an anchor; wait for the shapes that this needs.
   * @param {{ index: number, below: number }} anchor
   */
  async restore(anchor) {
    while (anchor.index >= this.ratios.length && this.more && !this.closed) {
      this.counting ??= this.count();
      await this.counting;
    }
    if (!this.closed) this.scrollTo(anchor);
  }

  /** @param {{ index: number, below: number }} anchor */
  scrollTo({ index, below }) {
    if (this.rows.length) scrollTo({ top: this.rowOf(index).top + this.top - below, behavior: "instant" });
  }

  /**
   * Bring a picture into the window if it is not, and give its card, when it is there.
   * @param {number} index
   * @returns {Promise<HTMLElement | undefined>}
   */
  async reveal(index) {
    if (index < 0 || index >= this.ratios.length) return undefined;
    const row = this.rowOf(index);
    const header = document.querySelector("header.top")?.clientHeight ?? 0;
    const [top, bottom] = [row.top + this.top - scrollY, row.top + row.height + this.top - scrollY];
    if (top < header || bottom > innerHeight) {
      const free = Math.max(innerHeight - header - row.height, 0);
      scrollTo({ top: row.top + this.top - header - free / 2, behavior: "instant" });
    }
    this.render();
    if (!this.cards.has(index)) await this.fetch(index - (index % PAGE));
    return this.cards.get(index);
  }

  /**
   * Give the content id of the picture at a place.
   * @param {number} index
   * @returns {Promise<string | undefined>}
   */
  async idAt(index) {
    if (index < 0 || index >= this.ratios.length) return undefined;
    if (this.ids[index] === undefined) await this.fetch(index - (index % PAGE));
    return this.ids[index];
  }

  /**
   * Give the content ids of the pictures from one place to before another.
   * @param {number} first
   * @param {number} end
   * @returns {Promise<string[]>}
   */
  async idsOf(first, end) {
    const known = this.ids.slice(first, end);
    if (known.length === end - first && !known.includes(undefined)) return /** @type {string[]} */ (known);
    const ids = await this.supply.ids(first, end - first);
    ids.forEach((id, i) => (this.ids[first + i] = id));
    return ids;
  }

  /** @param {string | null} id */
  indexOf(id) {
    return id === null ? -1 : this.ids.indexOf(id);
  }

  /**
   * Give the place of the picture beside one, or above or below it.
   * @param {number} index
   * @param {number} across
   * @param {number} down
   */
  beside(index, across, down) {
    if (!down) return index + across;
    const row = this.rows.indexOf(this.rowOf(index));
    const other = this.rows[row + down];
    if (!other) return index;
    const edge = (/** @type {Row} */ { first, height }, /** @type {number} */ end) => {
      let left = 0;
      for (let i = first; i < end; i++) left += this.ratios[i] * height + this.gap;
      return left;
    };
    const middle = edge(this.rows[row], index) + (this.ratios[index] * this.rows[row].height) / 2;
    let nearest = other.first;
    while (nearest + 1 < other.end && edge(other, nearest + 1) <= middle) nearest++;
    return nearest;
  }

  schedule() {
    this.scheduled ||= requestAnimationFrame(() => {
      this.scheduled = 0;
      this.render();
    });
  }

  render() {
    if (this.closed || !this.rows.length) return;
    const start = scrollY - this.top - KEPT_SCREENS * innerHeight;
    const stop = start + (2 * KEPT_SCREENS + 1) * innerHeight;
    const from = this.rowAt(start);
    let to = from;
    while (to < this.rows.length && this.rows[to].top < stop) to++;
    const near = this.rows.slice(from, to);
    const [first, end] = near.length ? [near[0].first, near[near.length - 1].end] : [0, 0];
    for (const [index, card] of this.cards) {
      if ((index < first || index >= end) && !card.contains(document.activeElement)) {
        card.remove();
        this.cards.delete(index);
      }
    }
    for (const [index, place] of this.waiting) {
      if (index < first || index >= end || this.cards.has(index)) {
        place.remove();
        this.waiting.delete(index);
      }
    }
    const shown = this.sections.filter((section) => section.first >= first && section.first < end);
    for (const section of this.sections) if (!shown.includes(section)) section.line?.remove();
    // One stop of the tabulator key for the whole grid: arrows lead on from there.
    const reached = this.current >= first && this.current < end ? this.current : first;
    /** @type {Set<number>} */
    const missing = new Set();
    /** @type {HTMLElement | null} */
    let former = null;
    for (const row of near) {
      let left = 0;
      for (let index = row.first; index < row.end; index++) {
        const width = this.ratios[index] * row.height;
        let card = this.cards.get(index);
        if (card) {
          card.ariaPosInSet = String(index + 1);
          card.ariaSetSize = this.more ? "-1" : String(this.ratios.length);
          rove(card, index === reached);
        } else {
          missing.add(index - (index % PAGE));
          card = this.waiting.get(index) ?? placeholder();
          this.waiting.set(index, card);
        }
        place(card, left, row.top, width, row.height);
        if (shown[0]?.first === index) former = this.follow(former, lineOf(/** @type {Section} */ (shown.shift())));
        // In the order of the pictures, which is that of the tabulator key.
        former = this.follow(former, card);
        left += width + this.gap;
      }
    }
    clearTimeout(this.soon);
    if (missing.size) this.soon = setTimeout(() => missing.forEach((offset) => this.fetch(offset)), this.hurry ? 0 : QUICK);
    this.hurry = false;
    if (this.more && stop > this.list.offsetHeight) this.counting ??= this.count();
  }

  /**
   * Let an element follow another one in the list, or be its first.
   * @param {Element | null} former
   * @param {HTMLElement} element
   */
  follow(former, element) {
    const next = former ? former.nextElementSibling : this.list.firstElementChild;
    if (next !== element) this.list.insertBefore(element, next);
    return element;
  }

  /**
   * Ask for a page of cards.
   * @param {number} offset
   * @returns {Promise<void>}
   */
  fetch(offset) {
    const asked = this.pending.get(offset) ?? this.load(offset).finally(() => this.pending.delete(offset));
    this.pending.set(offset, asked);
    return asked;
  }

  /** @param {number} offset */
  async load(offset) {
    try {
      const cards = await this.supply.cards(offset, PAGE);
      if (this.closed) return;
      cards.forEach((card, i) => {
        this.ids[offset + i] = card.dataset.id;
        if (!this.cards.has(offset + i)) this.cards.set(offset + i, card);
      });
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
    if (this.closed) return;
    this.hurry = true;
    this.render();
    this.dispatchEvent(new Event("loaded"));
  }
}

/**
 * Let the tabulator key reach what is in a card, or pass it by.
 * @param {HTMLElement} card
 * @param {boolean} reached
 */
function rove(card, reached) {
  if (card.dataset.reached === String(reached)) return;
  card.dataset.reached = String(reached);
  for (const part of /** @type {NodeListOf<HTMLElement>} */ (card.querySelectorAll("a, button"))) {
    if (reached) part.removeAttribute("tabindex");
    else part.tabIndex = -1;
  }
}

/**
 * Say a month as people do.
 * @param {string} month
 */
const nameOf = (month) =>
  month ? new Date(`${month}-01T00:00`).toLocaleDateString("en", { month: "long", year: "numeric" }) : "Without a date";

/**
 * Give the line of a section, in its place.
 * @param {Section} section
 */
function lineOf(section) {
  if (!section.line) {
    section.line = document.createElement("li");
    section.line.className = section.month === undefined ? "divider" : "divider month";
    const text = document.createElement(section.month === undefined ? "span" : "h2");
    text.textContent = section.text;
    section.line.append(text);
  }
  section.line.style.top = `${section.top}px`;
  return section.line;
}

function placeholder() {
  const card = document.createElement("li");
  card.className = "card awaited";
  card.setAttribute("aria-hidden", "true");
  const picture = document.createElement("div");
  picture.className = "picture";
  card.append(picture);
  return card;
}

/**
 * @param {HTMLElement} card
 * @param {number} left
 * @param {number} top
 * @param {number} width
 * @param {number} height
 */
function place({ style }, left, top, width, height) {
  style.left = `${left}px`;
  style.top = `${top}px`;
  style.width = `${width}px`;
  style.setProperty("--h", `${height}px`);
}
