"use strict";
// Two methods compared: a scatter plot, and the queries that gained and lost most.

function compareSection() {
  const { meta } = RRT,
    a = methodNumber(state.a),
    b = methodNumber(state.b);
  const found = gains(),
    gain = meta.summary.gains[a][b][state.p];
  const order = found.map((value, row) => row).filter((row) => found[row] !== null);
  const most = {
    gained: [...order].sort((x, y) => found[y] - found[x] || x - y),
    lost: [...order].sort((x, y) => found[x] - found[y] || x - y),
  };
  const number = (way) => order.filter((row) => direction(found[row]) === way).length;
  const menu = (side, label) =>
    el(
      "label",
      {},
      `${label} `,
      el(
        "select",
        {
          id: `method-${side}`,
          onchange: (event) => {
            change({ [side]: event.target.value });
            byId(`method-${side}`).focus();
          },
        },
        meta.methods.map((method) => el("option", { value: method.label, selected: method.label === state[side] }, method.label)),
      ),
    );
  return section(
    "Compare",
    "compare",
    null,
    el(
      "p",
      { class: "menus" },
      menu("a", "before"),
      el(
        "button",
        { type: "button", class: "quiet", title: "Exchange the two", onclick: () => change({ a: state.b, b: state.a }) },
        "⇄",
        el("span", { class: "offscreen" }, "exchange the two methods"),
      ),
      menu("b", "after"),
    ),
    el(
      "p",
      { id: "verdict" },
      el("strong", {}, `${capital(state.p)} mAP ${signed(gain[0])}`),
      gain[0] === null ? "" : ` (95 % interval ${signed(gain[1])} to ${signed(gain[2])}): `,
      `${number("gained")} queries gained, ${number("lost")} lost, ${number("same")} stayed`,
      order.length < found.length ? `; ${found.length - order.length} have no ${state.p} images` : "",
    ),
    el(
      "div",
      { class: "compare" },
      scatter(a, b, found),
      ["gained", "lost"].map((way) => extremes(way, most[way].filter((row) => direction(found[row]) === way).slice(0, 6), found, a, b)),
    ),
  );
}

function extremes(way, rows, found, a, b) {
  const { meta } = RRT;
  return el(
    "div",
    { class: "extremes", id: `most-${way}` },
    el("h3", {}, `${capital(way)} most`),
    rows.length
      ? el(
          "ol",
          {},
          rows.map((row) => {
            const query = meta.queries[row];
            return el(
              "li",
              {},
              el(
                "a",
                { href: address({ q: query.name }) },
                el("span", { class: "crop" }, image(query.crop, query.name, { alt: "" })),
                el(
                  "span",
                  { class: "words" },
                  el("span", { class: "name" }, stem(query.name)),
                  el(
                    "span",
                    {},
                    el("span", { class: way }, `${SIGN[way]} ${signed(found[row], 1)} `),
                    el("small", {}, `${percent(meta.methods[a].aps[state.p][row], 1)} → ${percent(meta.methods[b].aps[state.p][row], 1)}`),
                  ),
                ),
              ),
            );
          }),
        )
      : el("p", { class: "muted" }, "None."),
  );
}

// Average precision of each query with one method against that with the other.
function scatter(a, b, found) {
  const { meta } = RRT,
    [before, after] = [a, b].map((place) => meta.methods[place].aps[state.p]);
  const most = Math.max(0.05, ...before, ...after),
    step = [0.01, 0.02, 0.05, 0.1, 0.2].find((each) => most / each <= 6) || 0.2;
  const limit = Math.min(1, Math.ceil(most / step - 1e-9) * step),
    left = 52,
    top = 10,
    side = 348;
  const x = (value) => left + (value / limit) * side,
    y = (value) => top + side - (value / limit) * side;
  const ticks = [...Array(Math.round(limit / step) + 1).keys()].map((each) => each * step);
  const label = (tick) => percent(tick, step < 0.01 ? 1 : 0);
  const shapes = { gained: "M0,-5.5 5,4 -5,4Z", lost: "M0,5.5 5,-4 -5,-4Z", same: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z" };
  const names = [meta.methods[a].label, meta.methods[b].label];
  return el(
    "figure",
    { class: "scatter" },
    svg(
      "svg",
      {
        id: "scatter",
        viewBox: `0 0 ${left + side + 14} ${top + side + 46}`,
        role: "group",
        "aria-label": `Average precision of each query, ${names[0]} across, ${names[1]} up; the table of queries has the same numbers`,
      },
      ticks.map((tick) => [
        svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y(0), y2: y(limit) }),
        svg("line", { class: "grid", x1: x(0), x2: x(limit), y1: y(tick), y2: y(tick) }),
        svg("text", { x: x(tick), y: y(0) + 16, "text-anchor": "middle" }, label(tick)),
        svg("text", { x: x(0) - 7, y: y(tick) + 4, "text-anchor": "end" }, label(tick)),
      ]),
      svg("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(limit), y2: y(limit) }),
      svg(
        "text",
        { class: "title", x: left + side / 2, y: top + side + 38, "text-anchor": "middle" },
        `${capital(state.p)} AP with ${names[0]}, %`,
      ),
      svg(
        "text",
        { class: "title", transform: `translate(14 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" },
        `AP with ${names[1]}, %`,
      ),
      found.map(
        (gain, row) =>
          gain !== null &&
          svg(
            "a",
            {
              href: address({ q: meta.queries[row].name }),
              class: `point ${direction(gain)}`,
              tabindex: -1,
              "data-row": row,
              transform: `translate(${x(before[row])} ${y(after[row])})`,
              "aria-label": `${meta.queries[row].name}: ${percent(before[row], 1)} to ${percent(after[row], 1)}`,
            },
            svg("path", { d: shapes[direction(gain)] }),
            svg("title", {}, `${meta.queries[row].name}\n${percent(before[row], 1)} → ${percent(after[row], 1)} (${signed(gain, 1)})`),
          ),
      ),
    ),
    el("figcaption", { class: "muted" }, "A point is a query: ▲ above the diagonal gained, ▼ below lost. Click one to see its results."),
  );
}
