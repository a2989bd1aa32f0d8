// Photographs side by side: those of a search, and all of them in a list that draws only what is in sight.
import {html, useEffect, useLayoutEffect, useRef, useState} from "./vendor/htm-preact.js";
import {count, day, fileName, folderName, percent} from "./words.js";

const GAP = 10, CAPTION = 44, OVERSCAN = 2, SETTLED = 60; // pixels, pixels, rows, milliseconds

export function Card({entry, place, total, open, similar, tabbable}) {
  const [shown, show] = useState(false), [gone, setGone] = useState(false);
  // One that is only scrolled past asks for no picture.
  useEffect(() => {
    const timer = setTimeout(() => show(true), SETTLED);
    return () => clearTimeout(timer);
  }, []);
  if (!entry) return html`<li class="cell" aria-hidden="true"><div class="card empty"></div></li>`;
  const sure = percent(entry.probability), words = {same: "the same", maybe: "maybe", similar: "only similar"}[entry.group];
  return html`<li class="cell" aria-posinset=${place + 1} aria-setsize=${total}>
    <button type="button" class="card" data-id=${entry.id} tabindex=${tabbable ? 0 : -1} title=${entry.name}
        onClick=${() => open(entry)}
        onKeyDown=${(event) => { if (event.key === "s") { event.preventDefault(); event.stopPropagation(); similar(entry); } }}>
      <span class="frame">${gone ? html`<span class="quiet">no longer there</span>`
        : shown && html`<img src=${`/thumbnail/${entry.id}`} alt="" draggable=${false} onError=${() => setGone(true)}/>`}
        ${sure && html`<span class=${`badge ${entry.group || ""}`}>${sure}</span>`}
        ${words && html`<span class="unseen">${sure && "sure, "}${words},</span>`}</span>
      <span class="name">${fileName(entry.name)}</span>
      <span class="quiet">${entry.more ? count(entry.more + 1, "place") : folderName(entry.name) || day(entry)}</span>
    </button></li>`;
}

// Arrow keys within the cards of an element; the one below or above is the nearest in the next row.
export function moveFocus(event, within) {
  const cards = [...within.querySelectorAll("button.card")], at = cards.indexOf(document.activeElement);
  if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const next = {
    ArrowLeft: () => cards[at - 1],
    ArrowRight: () => cards[at + 1],
    ArrowUp: () => nearest(cards, cards[at], -1),
    ArrowDown: () => nearest(cards, cards[at], 1),
    Home: () => cards[0],
    End: () => cards[cards.length - 1],
  }[event.key];
  if (!next) return;
  event.preventDefault();
  next()?.focus();
}

function nearest(cards, own, direction) {
  const {left, top, height} = own.getBoundingClientRect();
  let best = null, least = Infinity;
  for (const card of cards) {
    const place = card.getBoundingClientRect(), down = (place.top - top) * direction;
    if (down < height / 2) continue;
    const far = down * 1000 + Math.abs(place.left - left);
    if (far < least) [best, least] = [card, far];
  }
  return best;
}

// A grid of a few.
export function Cards({entries, label, first = true, ...given}) {
  return html`<ul class="cards" aria-label=${label}>${entries.map((entry, i) =>
    html`<${Card} key=${entry.id} entry=${entry} place=${i} total=${entries.length} tabbable=${first && i === 0} ...${given}/>`)}</ul>`;
}

function columnsOf(width) {
  const least = width < 480 ? 100 : 140;
  return Math.max(1, Math.floor((width + GAP) / (least + GAP)));
}

// A grid of any number: list is that of useList().
export function LongList({list, ...given}) {
  const own = useRef(null), [seen, setSeen] = useState({first: 0, last: 0, columns: 4, height: 200}), [held, hold] = useState(0);
  const look = () => {
    if (!own.current) return;
    const {top, width} = own.current.getBoundingClientRect(), columns = columnsOf(width);
    const height = Math.round((width - (columns - 1) * GAP) / columns * 0.75) + CAPTION + GAP;
    const first = Math.max(0, Math.floor(-top / height) - OVERSCAN), last = Math.max(0, Math.ceil((innerHeight - top) / height) + OVERSCAN);
    setSeen((old) => old.first === first && old.last === last && old.columns === columns && old.height === height
      ? old : {first, last, columns, height});
  };
  useLayoutEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    watch.observe(own.current);
    addEventListener("scroll", look, {passive: true});
    addEventListener("resize", look);
    return () => { watch.disconnect(); removeEventListener("scroll", look); removeEventListener("resize", look); };
  }, []);
  useLayoutEffect(look, [list.total]);
  const total = list.total || 0, {columns, height} = seen, rows = Math.ceil(total / columns);
  const from = Math.min(seen.first, rows) * columns, to = Math.min(total, (seen.last + 1) * columns);
  useEffect(() => {
    if (to <= from) return;
    const timer = setTimeout(() => list.want(from, to - 1), SETTLED);
    return () => clearTimeout(timer);
  }, [from, to, list.key]);
  const numbers = Array.from({length: Math.max(0, to - from)}, (_, i) => from + i), tabbable = held >= from && held < to ? held : from;
  return html`<div class="long" ref=${own} style=${{height: `${rows * height}px`}} onFocusIn=${(event) => {
      const place = event.target.closest("[aria-posinset]");
      if (place) hold(Number(place.getAttribute("aria-posinset")) - 1);
    }}>
    <ul class="cards" aria-label="all photographs" style=${{transform: `translateY(${from / columns * height}px)`,
        gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`, gridAutoRows: `${height - GAP}px`}}>
      ${numbers.map((i) => html`<${Card} key=${list.at(i)?.id || i} entry=${list.at(i)} place=${i} total=${total}
        tabbable=${i === tabbable} ...${given}/>`)}
    </ul></div>`;
}
