"use strict";
// What all parts of the page share: data, elements, the state in the address, numbers as text.

const RRT = {
  meta: null,
  pages: new Map(), // row -> promise of the query's data
  folder: document.documentElement.dataset.data,

  // Data files call this: meta.js once, q<row>.js when a query is opened.
  receive(kind, value, row) {
    if (kind === "meta") {
      RRT.meta = value;
      start();
    } else RRT.waiting.get(row)(value);
  },
  waiting: new Map(),

  query(row) {
    if (!RRT.pages.has(row)) {
      RRT.pages.set(
        row,
        new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = `${RRT.folder}/q${String(row).padStart(5, "0")}.js`;
          RRT.waiting.set(row, resolve);
          script.onerror = () => {
            RRT.pages.delete(row);
            reject(new Error(`${script.src} is missing; make the report again`));
          };
          document.head.append(script);
        }),
      );
    }
    return RRT.pages.get(row);
  },
};

// ---- elements: names and texts of the data only ever become text nodes and attributes ----

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const byId = (id) => document.getElementById(id);

// An image, or where there is none a place with its name. alt: what is said of it, the name unless given; "" for mere ornament.
function image(thumb, name, { alt = name, ...attributes } = {}) {
  if (thumb) return el("img", { src: `thumbs/${thumb[0]}`, alt, loading: "lazy", decoding: "async", ...attributes });
  return el(
    "span",
    { class: "missing", ...(alt ? { role: "img", "aria-label": `${alt}: no image` } : { "aria-hidden": "true" }), ...attributes },
    el("span", {}, name),
  );
}

// A row of buttons of which one is pressed.
function choice(label, options, current, choose) {
  return el(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    options.map(([value, text, title]) =>
      el(
        "button",
        { type: "button", "aria-pressed": String(value === current), title, "data-value": value, onclick: () => choose(value) },
        text,
      ),
    ),
  );
}

// ---- numbers ----

const percent = (value, digits = 2) => (value === null || value === undefined ? "–" : (100 * value).toFixed(digits));
const signed = (value, digits = 2) => {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(100 * value).toFixed(digits);
  return Number(text) === 0 ? text : (value > 0 ? "+" : "−") + text;
};
const between = (pair) => (pair[0] === null ? "" : `${percent(pair[0])}–${percent(pair[1])}`);
const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);
const stem = (name) => name.replace(/^.*\//, "");

// ---- state: it lives in the address, so that what is seen can be shared ----

let state = {};

function defaults() {
  const { methods, protocols } = RRT.meta;
  const names = Object.keys(protocols);
  const b = methods.findIndex((method, place) => method.before !== place);
  const chosen = b < 0 ? [0, methods.length - 1] : [methods[b].before, b];
  return {
    q: "",
    p: names.includes("medium") ? "medium" : names[0],
    a: methods[chosen[0]].label,
    b: methods[chosen[1]].label,
    n: "10",
    sort: "gain",
    dir: "other",
    f: "",
    show: "all",
    junk: "1",
    m: "",
  };
}

function readState() {
  const found = defaults();
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (name in found) found[name] = value;
  const { methods, protocols } = RRT.meta,
    usual = defaults();
  if (!(found.p in protocols)) found.p = usual.p;
  for (const side of ["a", "b"]) if (methodNumber(found[side]) < 0) found[side] = usual[side];
  if (!["10", "25", "100"].includes(found.n)) found.n = usual.n;
  return found;
}

function address(changes) {
  const usual = defaults(),
    wanted = { ...state, ...changes },
    kept = new URLSearchParams();
  for (const name of Object.keys(usual)) if (wanted[name] !== usual[name]) kept.set(name, wanted[name]);
  return "#" + kept.toString();
}

const methodNumber = (label) => RRT.meta.methods.findIndex((method) => method.label === label);
const queryNumber = (name) => RRT.meta.queries.findIndex((query) => query.name === name);
const go = (changes) => {
  const to = address(changes);
  if (to === (location.hash || "#")) render();
  else location.hash = to;
};
// A switch of the view, not a place to come back to.
const change = (changes) => {
  history.replaceState(null, "", address(changes));
  render();
};

// ---- differences of two methods ----

function gains(a = methodNumber(state.a), b = methodNumber(state.b), protocol = state.p) {
  const before = RRT.meta.methods[a].aps[protocol],
    after = RRT.meta.methods[b].aps[protocol];
  return after.map((value, row) => (value === null || before[row] === null ? null : value - before[row]));
}

// Smaller than any difference worth a word.
const direction = (gain) => (gain === null ? "none" : gain > 5e-5 ? "gained" : gain < -5e-5 ? "lost" : "same");
const SIGN = { gained: "▲", lost: "▼", same: "=", none: "" };

// ---- copying ----

function say(text) {
  const line = byId("status");
  line.textContent = text;
  line.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => line.classList.remove("shown"), 2500);
}

async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the permission the old way still works.
    const area = el("textarea", { class: "offscreen" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) {
      say("The browser does not allow copying");
      return;
    }
  }
  say(`Copied: ${what}`);
}
