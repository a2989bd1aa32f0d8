"use strict";
// The first results of the methods side by side, and where every right image stands.

function renderResults(place, row, page) {
  const { meta } = RRT,
    methods = shownMethods();
  const columns = el(
    "div",
    { class: "columns" },
    methods.map((method) =>
      el(
        "section",
        { "aria-label": meta.methods[method].label },
        el("h2", {}, meta.methods[method].label, el("small", {}, ` AP ${percent(meta.methods[method].aps[state.p][row])}`)),
        tiles(row, page, method),
      ),
    ),
  );
  place.replaceChildren(columns, rightImages(row, page, methods));
}

// The first state.n counted results of a method and, where wanted, what stands between them uncounted: [place in the list, ...].
function listed(page, method) {
  const found = page.results[method][state.p],
    wanted = Number(state.n),
    kept = [];
  for (let i = 0; i < found.images.length && (found.ranks[i] || 0) <= wanted; i++) if (found.ranks[i] || state.junk === "1") kept.push(i);
  const last = kept.findLastIndex((i) => found.ranks[i]);
  return kept.slice(0, Math.max(last + 1, 0));
}

function tiles(row, page, method) {
  const kept = listed(page, method);
  if (!kept.length) return el("p", { class: "muted" }, "No results.");
  return el(
    "ol",
    { class: "tiles", "data-method": method },
    kept.map((i, number) => tile(row, page, method, i, number)),
  );
}

function tile(row, page, method, i, number) {
  const found = page.results[method][state.p],
    id = found.images[i],
    rank = found.ranks[i],
    grade = page.grades[id],
    name = page.names[id];
  const pair = RRT.meta.pairs.find((each) => each.query === row && each.image === id);
  return el(
    "li",
    { class: rank ? null : "uncounted" },
    el(
      "button",
      {
        type: "button",
        class: `result ${FRAME[grade] || grade}`,
        title: name,
        tabindex: number ? -1 : 0,
        "data-image": id,
        "data-place": i,
        onclick: () => openResult(row, page, method, i),
      },
      image(page.thumbs[id], name, { alt: `${name}, ${MEANING[grade]}` }),
      el("span", { class: "letter", "aria-hidden": "true" }, LETTER[grade]),
    ),
    el(
      "span",
      { class: "rank" },
      rank ? String(rank) : "–",
      " ",
      rank && RRT.meta.methods[method].before !== method ? rankChange(rank, found.before[i]) : null,
      pair &&
        el(
          "button",
          {
            type: "button",
            class: "quiet why",
            title: "Why: the matches of this pair",
            onclick: () => openResult(row, page, method, i, true),
          },
          "why",
        ),
    ),
  );
}

function rankChange(rank, before) {
  if (!before) return el("span", { class: "gained", title: "not among the first 1,000 of global search" }, "new");
  const won = before - rank;
  if (!won) return el("span", { class: "same", title: "the same rank in global search" }, "=");
  return el(
    "span",
    {
      class: won > 0 ? "gained" : "lost",
      title: `rank ${before} in global search`,
      "aria-label": `${won > 0 ? "up" : "down"} ${Math.abs(won)}, from ${before}`,
    },
    `${won > 0 ? "▲" : "▼"}${Math.abs(won)}`,
  );
}

// Where every right image stands, the hardest to find first: the failures of a query at a glance.
function rightImages(row, page, methods) {
  const { meta } = RRT,
    right = page.positives[state.p],
    last = methods[methods.length - 1];
  const rank = (method, i) => page.places[method][state.p][i] || Infinity;
  const body = () =>
    el(
      "tbody",
      {},
      right
        .map((id, i) => i)
        .sort((x, y) => rank(last, x) - rank(last, y) || x - y)
        .map((i) =>
          el(
            "tr",
            {},
            el("td", { class: "thumb", "data-skip": "" }, image(page.thumbs[right[i]], page.names[right[i]], { alt: "" })),
            el("th", { scope: "row" }, page.names[right[i]]),
            el("td", {}, page.grades[right[i]]),
            methods.map((method) => el("td", { class: "number" }, rank(method, i) === Infinity ? "–" : String(rank(method, i)))),
          ),
        ),
    );
  const table = el(
    "table",
    { id: "right-table" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { "data-skip": "" }),
        el("th", { scope: "col" }, "Right image"),
        el("th", { scope: "col" }, "Grade"),
        methods.map((method) => el("th", { scope: "col", class: "number" }, `rank, ${meta.methods[method].label}`)),
      ),
    ),
  );
  return el(
    "details",
    {
      id: "right",
      ontoggle: (event) => {
        if (event.target.open && !table.tBodies.length) table.append(body());
      },
    },
    el("summary", {}, `Where the ${right.length} right images stand`),
    copyButtons(table, "ranks of the right images"),
    scroller(table, "Right images"),
  );
}
