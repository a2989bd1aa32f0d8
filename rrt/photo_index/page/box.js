// The image searched for, and the box on it: drawn, moved and sized with mouse, finger, keys or numbers.
import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import Cropper from "./vendor/cropper.js";

const STILL = 600; // milliseconds without a key after which a box is searched for
const SMALLEST = 4; // pixels on the screen; less is a click

// src: the image, of width and height `size` in its own pixels; box: "x1,y1,x2,y2" in these, or ""; search(box).
export function Stage({src, size, box, search}) {
  const image = useRef(null), own = useRef({}), [width, height] = size, [gone, setGone] = useState(false);
  const numbers = box ? box.split(",").map(Number) : null;
  own.current.box = numbers;
  own.current.search = search;

  const scale = () => width / image.current.naturalWidth;
  const draw = (wanted) => {
    const {cropper} = own.current;
    own.current.drawn = wanted;
    if (!cropper || !own.current.ready) return;
    if (!wanted) { cropper.clear(); return; }
    const by = scale();
    const [x1, y1, x2, y2] = wanted.map((value) => value / by);
    cropper.crop().setData({x: x1, y: y1, width: x2 - x1, height: y2 - y1});
  };

  useEffect(() => {
    const element = image.current;
    if (!element) return;
    const cropper = own.current.cropper = new Cropper(element, {
      viewMode: 1, dragMode: "crop", autoCrop: false, guides: false, center: false, background: false, zoomable: false,
      movable: false, rotatable: false, scalable: false, checkOrientation: false, checkCrossOrigin: false,
      toggleDragModeOnDblclick: false, minContainerWidth: 1, minContainerHeight: 1,
      ready() { own.current.ready = true; draw(own.current.box); },
      cropstart({detail: {action, originalEvent}}) { own.current.from = action === "crop" ? at(originalEvent) : null; },
      cropend({detail: {originalEvent}}) {
        // A new box is from where the pointer went down: the cropper begins it where it was first seen to move.
        const {from} = own.current, to = at(originalEvent), by = scale(), {x, y, width: w, height: h} = cropper.getData();
        const found = inside(from ? [...from, ...to] : [x * by, y * by, (x + w) * by, (y + h) * by], width, height);
        const least = SMALLEST * width / cropper.getCanvasData().width;
        if (!found || found[2] - found[0] < least || found[3] - found[1] < least) { draw(own.current.box); return; }
        draw(found);
        own.current.search(found.join(","));
      },
    });
    const at = ({clientX, clientY}) => {
      const place = element.nextElementSibling.getBoundingClientRect(), canvas = cropper.getCanvasData();
      return [(clientX - place.left - canvas.left) / canvas.width * width, (clientY - place.top - canvas.top) / canvas.height * height];
    };
    return () => { cropper.destroy(); own.current = {}; };
  }, [src]);
  useEffect(() => { if (String(own.current.drawn || "") !== box) draw(numbers); }, [box]);

  // Keys draw at once, and search when they rest.
  const keyed = (event) => {
    const now = own.current.drawn || null, step = Math.max(1, Math.round(Math.max(width, height) / 50));
    const [dx, dy] = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key] || [0, 0];
    let next;
    if (event.key === "Enter" && !now) next = [width / 4, height / 4, 3 * width / 4, 3 * height / 4];
    else if (event.key === "Escape" || event.key === "Delete") next = null;
    else if (!now || (!dx && !dy)) return;
    else if (event.shiftKey) next = [now[0], now[1], Math.max(now[0] + step, now[2] + dx), Math.max(now[1] + step, now[3] + dy)];
    else next = moved(now, dx, dy, width, height);
    if (event.key === "Escape" && !now) return; // it means the whole search then
    event.preventDefault();
    event.stopPropagation();
    next = next && inside(next, width, height);
    draw(next);
    clearTimeout(own.current.timer);
    own.current.timer = setTimeout(() => own.current.search?.(next ? next.join(",") : ""), STILL);
  };

  if (gone) return html`<p class="quiet">The picture itself is no longer there, or has changed.</p>`;
  return html`<div class="stage" tabindex="0" role="group" onKeyDown=${keyed}
      style=${{aspectRatio: `${width} / ${height}`, "--ratio": width / height}}
      aria-label="Box on the picture. Enter draws one, arrow keys move it, with shift they change its size, delete removes it.">
    <div class="crop"><img ref=${image} src=${src} alt="the picture searched for" onError=${() => setGone(true)}/></div></div>`;
}

export function Numbers({size: [width, height], box, search}) {
  const now = box ? box.split(",").map(Number) : [0, 0, width, height], [typed, type] = useState(null);
  useEffect(() => type(null), [box]);
  const values = typed || now, names = ["left", "top", "right", "bottom"];
  const done = (event) => {
    event.preventDefault();
    const found = inside(values, width, height);
    search(!found || found.join() === [0, 0, width, height].join() ? "" : found.join(","));
  };
  return html`<form class="numbers" onSubmit=${done}>${names.map((name, i) => html`<label>${name}
    <input type="number" min="0" max=${i % 2 ? height : width} value=${values[i]}
      onInput=${(event) => type(values.map((value, j) => j === i ? Number(event.target.value) || 0 : value))}/></label>`)}
    <button>Search this box</button></form>`;
}

// In whole pixels, its corners in order and within the image; null where nothing is left.
function inside(box, width, height) {
  const order = (a, b, end) => [a, b].map((value) => Math.round(Math.min(Math.max(value, 0), end))).sort((x, y) => x - y);
  const [left, right] = order(box[0], box[2], width), [top, bottom] = order(box[1], box[3], height);
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

function moved([x1, y1, x2, y2], dx, dy, width, height) {
  dx = Math.min(Math.max(dx, -x1), width - x2);
  dy = Math.min(Math.max(dy, -y1), height - y2);
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}
