"use strict";
// One query: its box, its figures, and the first results of the methods side by side.

const LETTER = { easy: "E", hard: "H", junk: "J", good: "G", ok: "O", negative: "N" };
const MEANING = { easy: "easy", hard: "hard", junk: "junk, not counted", good: "good", ok: "ok", negative: "negative" };
const FRAME = { good: "easy", ok: "hard" };
const FEW_METHODS = 6;

// Places of the methods whose results are shown.
function shownMethods() {
  const { methods } = RRT.meta;
  const chosen = state.m
    ? state.m
        .split("\n")
        .map(methodNumber)
        .filter((place) => place >= 0)
    : [];
  if (chosen.length) return chosen.sort((x, y) => x - y);
  if (methods.length <= FEW_METHODS) return methods.map((method, place) => place);
  return [...new Set([methodNumber(state.a), methodNumber(state.b)])];
}

function queryPage(row) {
  const { meta } = RRT,
    query = meta.queries[row],
    order = queryOrder(),
    place = order.indexOf(row);
  const beside = (step) => (place < 0 ? order[0] : order[place + step]);
  const move = (step, text, key) => {
    const other = beside(step);
    return el(
      "a",
      {
        class: "button",
        rel: step < 0 ? "prev" : "next",
        "aria-keyshortcuts": key,
        href: other === undefined ? null : address({ q: meta.queries[other].name }),
        "aria-disabled": other === undefined ? "true" : null,
        title: other === undefined ? "" : `${meta.queries[other].name} ( ${key} )`,
      },
      text,
    );
  };
  const results = el("div", { id: "results", "aria-live": "polite" }, el("p", { class: "muted" }, "Loading the results …"));
  RRT.query(row).then(
    (page) => {
      if (queryNumber(state.q) === row && results.isConnected) renderResults(results, row, page);
    },
    (error) => results.replaceChildren(el("p", { class: "warning" }, error.message)),
  );
  for (const near of [beside(1), beside(-1)]) if (near !== undefined) RRT.query(near).catch(() => {});
  return [
    el(
      "nav",
      { class: "steps", "aria-label": "Queries" },
      el("a", { class: "button", href: address({ q: "" }), title: "Back to all queries ( Esc )" }, "← All queries"),
      move(-1, "‹ Previous", "k"),
      move(1, "Next ›", "j"),
      el("span", { class: "muted" }, place < 0 ? "not among the filtered" : `${place + 1} of ${order.length}, in the order of the table`),
      el("button", { type: "button", class: "quiet end", onclick: () => copyText(location.href, "the address of this view") }, "Copy link"),
    ),
    el(
      "div",
      { class: "query" },
      wholeImage(query),
      el(
        "figure",
        {},
        image(query.crop, query.name, { id: "crop", alt: `${query.name}, the query's box` }),
        el("figcaption", { class: "muted" }, "the query"),
      ),
      el(
        "div",
        { class: "words" },
        el("h1", { id: "query-title", tabindex: -1 }, query.name),
        el(
          "p",
          { class: "muted" },
          Object.entries(query.counts)
            .map(([grade, count]) => `${count} ${grade}`)
            .join(", ") +
            ` images; box ${query.box[2] - query.box[0]} × ${query.box[3] - query.box[1]}` +
            (query.whole ? ` of ${query.whole[1]} × ${query.whole[2]} pixels` : " pixels"),
        ),
        apTable(row),
      ),
    ),
    viewTools(),
    legend(),
    results,
  ];
}

function wholeImage(query) {
  const [x1, y1, x2, y2] = query.box;
  const box =
    query.whole &&
    svg(
      "svg",
      { viewBox: `0 0 ${query.whole[1]} ${query.whole[2]}`, "aria-hidden": "true" },
      ["halo", "line"].map((name) => svg("rect", { class: name, x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) })),
    );
  return el(
    "figure",
    {},
    el("span", { class: "whole" }, image(query.whole, query.name, { alt: `${query.name}, whole, with the query's box` }), box),
    el("figcaption", { class: "muted" }, "its image and box"),
  );
}

function apTable(row) {
  const { meta } = RRT,
    protocols = Object.keys(meta.protocols),
    a = methodNumber(state.a);
  return scroller(
    el(
      "table",
      { id: "ap-table" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "AP, %"),
          protocols.map((p) => el("th", { scope: "col", class: "number" + (p === state.p ? " current" : "") }, capital(p))),
          meta.methods.length > 1 && el("th", { scope: "col", class: "number" }, `over ${state.a}`),
        ),
      ),
      el(
        "tbody",
        {},
        meta.methods.map((method, place) => {
          const gain = gains(a, place)[row],
            way = direction(gain);
          return el(
            "tr",
            {},
            el("th", { scope: "row" }, method.label),
            protocols.map((p) => el("td", { class: "number" + (p === state.p ? " current" : "") }, percent(method.aps[p][row]))),
            meta.methods.length > 1 &&
              el("td", { class: "number" }, place === a ? "" : el("span", { class: way }, SIGN[way] && `${SIGN[way]} `, signed(gain))),
          );
        }),
      ),
    ),
    "Average precision of this query",
  );
}

function viewTools() {
  const { methods } = RRT.meta,
    shown = shownMethods();
  const toggle = (place) => {
    const kept = shown.includes(place) ? shown.filter((each) => each !== place) : [...shown, place].sort((x, y) => x - y);
    if (kept.length) change({ m: kept.map((each) => methods[each].label).join("\n") });
    document.querySelector(`.chips [data-method="${place}"]`)?.focus();
  };
  return el(
    "div",
    { class: "view" },
    choice(
      "Results shown",
      ["10", "25", "100"].map((n) => [n, n, `the first ${n}`]),
      state.n,
      (n) => {
        change({ n });
        document.querySelector(`.view [data-value="${n}"]`)?.focus();
      },
    ),
    el(
      "label",
      {},
      el("input", {
        id: "junk",
        type: "checkbox",
        checked: state.junk === "1",
        onchange: (event) => {
          change({ junk: event.target.checked ? "1" : "0" });
          byId("junk").focus();
        },
      }),
      " what is not counted, too",
    ),
    methods.length > 1 &&
      el(
        "div",
        { class: "chips", role: "group", "aria-label": "Methods shown" },
        methods.map((method, place) =>
          el(
            "button",
            { type: "button", "data-method": place, "aria-pressed": String(shown.includes(place)), onclick: () => toggle(place) },
            method.label,
          ),
        ),
      ),
  );
}

function legend() {
  const grades = Object.keys(RRT.meta.queries[0].counts).concat("negative");
  return el(
    "p",
    { class: "legend", "aria-label": "Frames" },
    grades.map((grade) => el("span", {}, el("span", { class: `sample ${FRAME[grade] || grade}` }, LETTER[grade]), ` ${MEANING[grade]}`)),
    el("span", { class: "muted" }, "▲3 ▼2: places won and lost against global search; new: not among its first 1,000"),
  );
}
