// A picture that is moved and enlarged within a frame, by wheel, fingers, mouse and keys.

const STEP = 1.25; // how much a key or a notch of the wheel enlarges
const LARGEST = 8; // CSS pixels for each of the picture
const SWIPE = 60; // CSS pixels that make a swipe of a drag
const LONG = 3; // of a picture so much longer than wide, or wider than high, the beginning is shown first

/** @typedef {{ x: number, y: number }} Point */

export class Zoom {
  /**
   * @param {HTMLElement} frame Holds the image, and takes the gestures.
   * @param {HTMLImageElement} image
   * @param {{ swiped: (step: number) => void, changed: () => void, drawn: (corners: number[]) => void }} hooks
   *   `swiped` is told which way a picture that is shown whole was thrown, `drawn` the edges of a box
   *   that was drawn: left, top, right and bottom in fractions of the picture.
   */
  constructor(frame, image, hooks) {
    this.frame = frame;
    this.image = image;
    this.hooks = hooks;
    /** @type {Point} Pixels of the picture. */
    this.size = { x: 1, y: 1 };
    /** @type {Point} Fractions of the picture. */
    this.middle = { x: 0, y: 0 };
    this.drawing = false; // whether a drag draws a box
    /** @type {Point | null} Where the box begins. */
    this.corner = null;
    this.scale = 1;
    /** @type {Point} Where the picture's middle lies from that of the frame. */
    this.at = { x: 0, y: 0 };
    /** @type {Map<number, Point>} Fingers and buttons that are down. */
    this.held = new Map();
    this.swipe = 0; // pixels that a picture that is shown whole was moved aside
    this.beyond = 0; // pixels that an enlarged one was moved against its edge
    frame.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.onDown(event));
    frame.addEventListener("pointermove", (event) => this.onMove(event));
    for (const name of ["pointerup", "pointercancel"]) {
      frame.addEventListener(name, (event) => this.onUp(/** @type {PointerEvent} */ (event)));
    }
    frame.addEventListener("dblclick", (event) => {
      if (!(event.target instanceof Element && event.target.closest("button"))) this.toggle(this.pointOf(event));
    });
    new ResizeObserver(() => this.reset()).observe(frame);
  }

  /**
   * Show another picture.
   * @param {number} width
   * @param {number} height
   * @param {Point | null} middle What is to be seen of a picture that is not shown whole, in fractions.
   */
  show(width, height, middle = null) {
    this.size = { x: width, y: height };
    this.middle = middle ?? { x: 0, y: 0 };
    this.reset();
  }

  /** The scale that shows the picture whole; a small one is not blown up. */
  get whole() {
    const { frame, size } = this;
    return Math.min(frame.clientWidth / size.x, frame.clientHeight / size.y, 1) || 1;
  }

  get isWhole() {
    return this.scale <= this.whole * 1.001;
  }

  /** Show the picture whole, or the beginning of one that would be too narrow to be read. */
  reset() {
    const { frame, size } = this;
    const [across, down] = [frame.clientWidth / size.x, frame.clientHeight / size.y];
    this.at = { x: 0, y: 0 };
    this.scale = this.whole;
    const narrow = Math.max(across / down, down / across) > LONG;
    if (narrow && Math.max(size.x / size.y, size.y / size.x) > LONG) {
      this.scale = Math.min(Math.max(across, down), 1);
      const { middle } = this;
      this.at = { x: (0.5 - middle.x) * size.x * this.scale, y: (0.5 - middle.y) * size.y * this.scale };
    }
    this.apply();
  }

  /**
   * Enlarge about a point.
   * @param {number} factor
   * @param {Point} [point] From the middle of the frame.
   */
  by(factor, point = { x: 0, y: 0 }) {
    const scale = Math.min(Math.max(this.scale * factor, this.whole), LARGEST);
    const change = scale / this.scale;
    this.at = { x: point.x - (point.x - this.at.x) * change, y: point.y - (point.y - this.at.y) * change };
    this.scale = scale;
    this.apply();
  }

  /**
   * Show a pixel as a pixel, or the picture whole again.
   * @param {Point} [point]
   */
  toggle(point) {
    if (this.isWhole) this.by(Math.max(1, 2 * this.whole) / this.scale, point);
    else this.by(0);
  }

  /**
   * @param {string} key
   * @returns {boolean} Whether the key means something here.
   */
  key(key) {
    if (key === "+" || key === "=") this.by(STEP);
    else if (key === "-") this.by(1 / STEP);
    else if (key === "0") this.by(0);
    else if (key === "1") this.by(1 / this.scale);
    else return false;
    return true;
  }

  apply() {
    const { frame, image, size, at, scale } = this;
    const reach = {
      x: Math.max((size.x * scale - frame.clientWidth) / 2, 0),
      y: Math.max((size.y * scale - frame.clientHeight) / 2, 0),
    };
    at.x = Math.min(Math.max(at.x, -reach.x), reach.x);
    at.y = Math.min(Math.max(at.y, -reach.y), reach.y);
    image.style.width = `${size.x * scale}px`;
    image.style.height = `${size.y * scale}px`;
    image.style.transform = `translate(-50%, -50%) translate(${at.x + this.swipe}px, ${at.y}px)`;
    frame.classList.toggle("zoomed", !this.isWhole);
    this.hooks.changed();
  }

  /**
   * Where a part of the picture lies in the frame, in CSS pixels.
   * @param {number[]} edges Left, top, right and bottom in fractions of the picture.
   */
  placeOf([left, top, right, bottom]) {
    const { frame, size, at, scale } = this;
    const x = frame.clientWidth / 2 + at.x - (size.x * scale) / 2;
    const y = frame.clientHeight / 2 + at.y - (size.y * scale) / 2;
    return {
      left: `${x + left * size.x * scale}px`,
      top: `${y + top * size.y * scale}px`,
      width: `${(right - left) * size.x * scale}px`,
      height: `${(bottom - top) * size.y * scale}px`,
    };
  }

  /**
   * The edges of the box between two points, in fractions of the picture.
   * @param {Point} one
   * @param {Point} other
   */
  edges(one, other) {
    const { size, at, scale } = this;
    const share = (/** @type {number} */ value, /** @type {"x" | "y"} */ axis) =>
      Math.min(Math.max((value - at[axis]) / (size[axis] * scale) + 0.5, 0), 1);
    const [x1, x2] = [share(one.x, "x"), share(other.x, "x")].sort((a, b) => a - b);
    const [y1, y2] = [share(one.y, "y"), share(other.y, "y")].sort((a, b) => a - b);
    return [x1, y1, x2, y2];
  }

  /** @param {MouseEvent} event */
  pointOf(event) {
    const box = this.frame.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    event.preventDefault();
    // Wheels count in notches of about 100, touchpads in single pixels.
    this.by(STEP ** (-event.deltaY / (event.deltaMode ? 3 : 100)), this.pointOf(event));
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button || (event.target instanceof Element && event.target.closest("button"))) return;
    this.held.set(event.pointerId, this.pointOf(event));
    this.beyond = 0;
    this.corner = this.drawing ? this.pointOf(event) : null;
    this.frame.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const former = this.held.get(event.pointerId);
    if (!former) return;
    const point = this.pointOf(event);
    if (this.corner) {
      this.hooks.drawn(this.edges(this.corner, point));
      return;
    }
    const others = [...this.held].filter(([id]) => id !== event.pointerId).map(([, held]) => held);
    const [x, y] = [point.x - former.x, point.y - former.y];
    this.held.set(event.pointerId, point);
    if (others.length) {
      const [other] = others;
      const middle = { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 };
      const distance = (/** @type {Point} */ one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
      this.at = { x: this.at.x + x / 2, y: this.at.y + y / 2 };
      this.by(distance(point) / distance(former), middle);
    } else if (this.isWhole) {
      this.swipe += x;
      this.apply();
    } else {
      const wanted = this.at.x + x;
      this.at = { x: wanted, y: this.at.y + y };
      this.apply();
      // Beyond the edge of the picture lies the next one.
      this.beyond += wanted - this.at.x;
    }
  }

  /** @param {PointerEvent} event */
  onUp(event) {
    if (!this.held.delete(event.pointerId) || this.held.size) return;
    this.corner = null;
    const thrown = this.swipe + this.beyond / 2;
    this.swipe = 0;
    this.apply();
    if (event.type === "pointerup" && Math.abs(thrown) > SWIPE) this.hooks.swiped(thrown > 0 ? -1 : 1);
  }
}
