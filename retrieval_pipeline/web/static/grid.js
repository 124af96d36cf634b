// A grid of any number of pictures in rows of equal height, of which only those near the window are
// in the document. Pages of cards come from the server, again if need be.

const PAGE = 60;
const KEPT_SCREENS = 2; // above and below the window
const RETRY = 2000; // milliseconds

export class Grid {
  // `load(offset, count)` gives { cards, more }.
  constructor(list, more, load) {
    this.list = list;
    this.more = more;
    this.load = load;
    this.items = []; // { id, ratio }
    this.cards = new Map(); // cards of the items that are near
    this.rows = []; // { first, end, top, height, width of each by ratio }
    this.pending = new Set();
    this.closed = false;
    this.add([...list.children]);
    list.classList.add("live");
    this.onScroll = () => this.schedule();
    this.observer = new ResizeObserver(() => this.resize());
    addEventListener("scroll", this.onScroll, { passive: true });
    this.observer.observe(list);
    this.resize();
  }

  close() {
    this.closed = true;
    removeEventListener("scroll", this.onScroll);
    this.observer.disconnect();
  }

  get ids() {
    return this.items.map((item) => item.id);
  }

  add(cards) {
    for (const card of cards) {
      this.cards.set(this.items.length, card);
      this.items.push({ id: card.dataset.id, ratio: card.dataset.shape / 100 });
    }
  }

  resize() {
    const width = this.list.clientWidth;
    if (!width || width === this.width) return;
    const anchor = this.width && this.firstVisible();
    this.width = width;
    this.rows = [];
    this.arrange();
    if (anchor) scrollTo({ top: this.list.offsetTop + this.rowOf(anchor).top, behavior: "instant" });
    this.render();
  }

  // Fill rows from the first item that has none; the last row is filled again when more come.
  arrange() {
    const style = getComputedStyle(this.list);
    const number = (name) => parseFloat(style.getPropertyValue(name)) * 16;
    const [gap, least, caption] = [number("--gap"), number("--row"), number("--caption")];
    this.rows.pop();
    const last = this.rows.at(-1);
    let [first, top] = last ? [last.end, last.top + last.height + caption] : [0, 0];
    while (first < this.items.length) {
      let [end, ratios] = [first, 0];
      while (end < this.items.length && (ratios * least + (end - first) * gap < this.width || end === first)) {
        ratios += this.items[end++].ratio;
      }
      const space = this.width - (end - first - 1) * gap;
      // A row that the next items may fill, or that nothing fills, keeps the usual height.
      const full = ratios * least + (end - first) * gap >= this.width;
      const height = full ? space / ratios : Math.min(least, space / ratios);
      this.rows.push({ first, end, top, height, gap });
      [first, top] = [end, top + height + caption];
    }
    this.list.style.height = `${top}px`;
  }

  rowOf(index) {
    return this.rows.find((row) => index < row.end) || this.rows.at(-1);
  }

  firstVisible() {
    const top = scrollY - this.list.offsetTop;
    return top <= 0 ? 0 : (this.rows.find((row) => row.top + row.height > top)?.first ?? 0);
  }

  schedule() {
    if (!this.scheduled) {
      this.scheduled = requestAnimationFrame(() => {
        this.scheduled = null;
        this.render();
      });
    }
  }

  render() {
    if (this.closed || !this.rows.length) return;
    const start = scrollY - this.list.offsetTop - KEPT_SCREENS * innerHeight;
    const stop = start + (2 * KEPT_SCREENS + 1) * innerHeight;
    const near = this.rows.filter((row) => row.top + row.height > start && row.top < stop);
    const [first, end] = near.length ? [near[0].first, near.at(-1).end] : [0, 0];
    for (const [index, card] of this.cards) {
      if ((index < first || index >= end) && !card.contains(document.activeElement)) {
        card.remove();
        this.cards.delete(index);
      }
    }
    let missing = null;
    let sibling = this.list.firstChild;
    for (const row of near) {
      let left = 0;
      for (let index = row.first; index < row.end; index++) {
        const width = this.items[index].ratio * row.height;
        const card = this.cards.get(index);
        if (card) {
          place(card, left, row.top, width, row.height);
          card.ariaPosInSet = index + 1;
          card.ariaSetSize = this.more ? -1 : this.items.length;
          while (sibling && sibling !== card && !isLater(sibling, index)) sibling = sibling.nextSibling;
          if (sibling === card) sibling = card.nextSibling;
          else this.list.insertBefore(card, sibling);
          card.index = index;
        } else missing ??= index;
        left += width + row.gap;
      }
    }
    if (missing !== null) this.fetch(missing - (missing % PAGE));
    else if (this.more && stop > this.list.offsetHeight) this.fetch(this.items.length);
  }

  async fetch(offset) {
    if (this.pending.has(offset)) return;
    this.pending.add(offset);
    try {
      const { cards, more } = await this.load(offset, PAGE);
      if (this.closed) return;
      if (offset === this.items.length) {
        this.add(cards);
        this.more = more && cards.length > 0;
        this.arrange();
        this.list.dispatchEvent(new Event("grown"));
      } else {
        cards.forEach((card, i) => {
          const index = offset + i;
          // An index that was published meanwhile has another order: only what was there is shown.
          if (this.items[index]?.id === card.dataset.id && !this.cards.has(index)) this.cards.set(index, card);
        });
      }
      this.list.dispatchEvent(new Event("loaded"));
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
    this.pending.delete(offset);
    this.schedule();
  }
}

const isLater = (card, index) => card.index > index;

function place(card, left, top, width, height) {
  const { style } = card;
  style.left = `${left}px`;
  style.top = `${top}px`;
  style.width = `${width}px`;
  style.setProperty("--h", `${height}px`);
}
