// A bar of years at the right edge, beside pictures in the order of the dates taken: it says which month
// the window shows, and leads to any other.

const APART = 20; // CSS pixels between two years that are told
const RESTS = 1500; // milliseconds after which the mark hides again on a touch screen

/** @typedef {import("./grid.js").Section} Section */

const bar = /** @type {HTMLElement} */ (document.getElementById("scrubber"));
const [years, mark, bubble] = /** @type {HTMLElement[]} */ ([...bar.children]);
/** @type {import("./grid.js").Grid | null} */
let grid = null;
/** @type {Section[]} */
let months = [];
let dragging = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let resting = undefined;

/**
 * Stand beside a grid, if that is in the order of the dates.
 * @param {import("./grid.js").Grid | null} shown
 */
export function attach(shown) {
  grid = shown;
  grid?.addEventListener("arranged", arrange);
  arrange();
}

const headerHeight = () => document.querySelector("header.top")?.clientHeight ?? 0;
/** How far down the list a section begins, from 0 to 1. */
const shareOf = (/** @type {Section} */ section) => section.top / (grid?.height || 1);

function arrange() {
  months = grid?.sections.filter(({ month }) => month !== undefined) ?? [];
  bar.hidden = months.length < 2 || (grid?.height ?? 0) < 2 * innerHeight;
  if (bar.hidden) return;
  bar.ariaValueMin = "0";
  bar.ariaValueMax = String(months.length - 1);
  const height = bar.clientHeight;
  /** @type {HTMLElement[]} */
  const told = [];
  let [former, free] = ["", -APART];
  for (const section of months) {
    const year = section.month?.slice(0, 4) ?? "";
    const y = shareOf(section) * height;
    if (year !== former && year && y - free >= APART) {
      const label = document.createElement("span");
      label.textContent = year;
      label.style.top = `${y}px`;
      told.push(label);
      free = y;
    }
    former = year;
  }
  years.replaceChildren(...told);
  follow();
}

/** Which section lies at a share of the list. */
function at(/** @type {number} */ share) {
  let index = 0;
  while (index + 1 < months.length && shareOf(months[index + 1]) <= share) index++;
  return index;
}

/** Say where the window is. */
function follow() {
  if (bar.hidden || !grid) return;
  const share = Math.min(Math.max((scrollY + headerHeight() + 1 - grid.top) / grid.height, 0), 1);
  const index = at(share);
  mark.style.top = `${share * 100}%`;
  bar.ariaValueNow = String(index);
  bar.ariaValueText = months[index].text;
  if (dragging) tell(share);
}

/** Show the month at a share of the list beside the bar. */
function tell(/** @type {number} */ share) {
  bubble.textContent = months[at(share)].text;
  bubble.style.top = `${share * 100}%`;
}

/** The share of the list that a place of the pointer stands for. */
function shareAt(/** @type {PointerEvent} */ event) {
  const { top, height } = bar.getBoundingClientRect();
  return Math.min(Math.max((event.clientY - top) / height, 0), 0.9999);
}

/** @param {number} y Pixels below the top of the list. */
function scrollToList(y) {
  if (grid) scrollTo({ top: grid.top + y - headerHeight(), behavior: "instant" });
}

bar.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  dragging = true;
  bar.classList.add("dragging");
  bar.setPointerCapture(event.pointerId);
  scrollToList(shareAt(event) * (grid?.height ?? 0));
});
bar.addEventListener("pointermove", (event) => {
  if (bar.hidden) return;
  tell(shareAt(event));
  if (dragging) scrollToList(shareAt(event) * (grid?.height ?? 0));
});
for (const name of ["pointerup", "pointercancel"]) {
  bar.addEventListener(name, () => {
    dragging = false;
    bar.classList.remove("dragging");
  });
}
bar.addEventListener("keydown", (event) => {
  const now = Number(bar.ariaValueNow);
  const year = months[now]?.month?.slice(0, 4);
  const other = (/** @type {Section} */ { month }) => month?.slice(0, 4) !== year;
  const later = months.findIndex((section, index) => index > now && other(section));
  const target = {
    ArrowDown: now + 1,
    ArrowUp: now - 1,
    PageDown: later < 0 ? months.length - 1 : later,
    PageUp: months.slice(0, now).findLastIndex(other),
    Home: 0,
    End: months.length - 1,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  scrollToList(months[Math.min(Math.max(target, 0), months.length - 1)].top);
});
let scheduled = false;
addEventListener(
  "scroll",
  () => {
    bar.classList.add("moving");
    clearTimeout(resting);
    resting = setTimeout(() => bar.classList.remove("moving"), RESTS);
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      follow();
    });
  },
  { passive: true },
);
addEventListener("resize", arrange);
