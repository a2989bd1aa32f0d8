"use strict";
// The table of all queries: sorted, filtered, and the order in which j and k go through them.

const SHOW = { all: "all", gained: "gained", lost: "lost", same: "unchanged", none: "not measured" };

// Rows of the queries that the filter lets through, in the order of the table.
function queryOrder() {
  const { meta } = RRT,
    found = gains(),
    wanted = state.f.toLowerCase();
  const rows = meta.queries
    .map((query, row) => row)
    .filter(
      (row) =>
        (!wanted || meta.queries[row].name.toLowerCase().includes(wanted)) &&
        (state.show === "all" || direction(found[row]) === state.show),
    );
  const sign = state.dir === "ascending" ? 1 : -1;
  const value = sortValue(found);
  return rows.sort((x, y) => {
    const [a, b] = [value(x), value(y)];
    if (a === b) return x - y;
    if (a === null || b === null) return a === null ? 1 : -1; // what was not measured stays last
    return typeof a === "string" ? sign * a.localeCompare(b, "en", { numeric: true }) || x - y : sign * (a - b);
  });
}

function sortValue(found) {
  const { meta } = RRT;
  if (state.sort === "name") return (row) => meta.queries[row].name;
  if (state.sort === "right") return (row) => positives(row);
  if (state.sort === "gain") return (row) => (found[row] === null ? null : state.dir === "other" ? Math.abs(found[row]) : found[row]);
  const method = methodNumber(state.sort.slice(3));
  if (state.sort.startsWith("ap:") && method >= 0) return (row) => meta.methods[method].aps[state.p][row];
  return (row) => -row;
}

const positives = (row) => RRT.meta.protocols[state.p].positive.reduce((sum, grade) => sum + RRT.meta.queries[row].counts[grade], 0);

function queriesSection() {
  const { meta } = RRT,
    several = meta.methods.length > 1;
  const filter = el("input", {
    id: "filter",
    type: "search",
    placeholder: "Filter by name  ( / )",
    "aria-label": "Filter queries by name",
    value: state.f,
    oninput: () => {
      state.f = filter.value;
      history.replaceState(null, "", address({}));
      renderRows();
    },
  });
  const show = el(
    "select",
    {
      id: "show",
      "aria-label": "Which queries",
      onchange: () => {
        state.show = show.value;
        history.replaceState(null, "", address({}));
        renderRows();
      },
    },
    Object.entries(SHOW).map(([value, text]) => el("option", { value, selected: value === state.show }, text)),
  );
  const both = ["descending", "ascending"];
  const table = el(
    "table",
    { id: "queries-table" },
    el("caption", { class: "offscreen" }, `${capital(state.p)} average precision of every query with every method, in percent`),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { "data-skip": "" }, el("span", { class: "offscreen" }, "Image")),
        sortHead("Query", "name", ["ascending", "descending"]),
        sortHead("Right", "right", both, true),
        meta.methods.map((method) => sortHead(method.label, `ap:${method.label}`, both, true)),
        several && sortHead("Gain", "gain", ["other", "descending", "ascending"], true),
      ),
    ),
    el("tbody", { id: "query-rows" }),
  );
  queueMicrotask(renderRows);
  return section(
    "Queries",
    "queries",
    copyButtons(table, "average precision of the queries"),
    el("p", { class: "filters" }, filter, show, el("span", { id: "query-count", class: "muted", role: "status" })),
    scroller(table, "Queries"),
    several &&
      el(
        "p",
        { class: "muted" },
        `Gain: AP with ${state.b} less AP with ${state.a}, ${state.p}. Its head goes through largest change ◆, falling ▼ and rising ▲.`,
      ),
  );
}

function renderRows() {
  const { meta } = RRT,
    body = byId("query-rows"),
    found = gains(),
    order = queryOrder(),
    several = meta.methods.length > 1;
  if (!body) return;
  body.replaceChildren(
    ...order.map((row) => {
      const query = meta.queries[row],
        way = direction(found[row]);
      const best = Math.max(...meta.methods.map((method) => method.aps[state.p][row] ?? -1));
      return el(
        "tr",
        {
          "data-row": row,
          onclick: (event) => {
            if (!event.target.closest("a")) go({ q: query.name });
          },
        },
        el("td", { class: "thumb", "data-skip": "" }, image(query.crop, query.name, { alt: "" })),
        el("th", { scope: "row" }, el("a", { href: address({ q: query.name }) }, query.name)),
        el("td", { class: "number" }, String(positives(row))),
        meta.methods.map((method) =>
          el(
            "td",
            { class: "number" },
            el("span", { class: method.aps[state.p][row] === best && several ? "best" : null }, percent(method.aps[state.p][row])),
          ),
        ),
        several &&
          el(
            "td",
            { class: "number", "data-text": signed(found[row]) },
            el("span", { class: way }, SIGN[way] && `${SIGN[way]} `, signed(found[row])),
          ),
      );
    }),
  );
  byId("query-count").textContent = `${order.length} of ${meta.queries.length} queries`;
}
