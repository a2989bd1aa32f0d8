"use strict";
// The first page: figures of all methods, two of them compared, every query, settings.

function summaryPage() {
  const { meta } = RRT,
    several = meta.methods.length > 1;
  const about = meta.evaluations[0];
  return [
    el(
      "div",
      { class: "intro" },
      el("h1", {}, meta.title),
      el(
        "p",
        { class: "muted" },
        `${meta.queries.length} queries, ${meta.gallery.toLocaleString("en")} gallery images` +
          (about.protocol.distractors ? ` and distractors, ${about.protocol.distractors}` : "") +
          `; measured ${day(about.date)}`,
      ),
    ),
    methodsSection(),
    several && compareSection(),
    queriesSection(),
    meta.pairs.length ? pairsSection() : null,
    settingsSection(),
  ];
}

const day = (date) => String(date).slice(0, 16).replace("T", " ") + " UTC";

function section(title, id, extra, ...children) {
  return el(
    "section",
    { id, "aria-labelledby": `${id}-title` },
    el("div", { class: "heading" }, el("h2", { id: `${id}-title` }, title), extra),
    children,
  );
}

// ---- figures ----

function methodsSection() {
  const { meta } = RRT,
    protocols = Object.keys(meta.protocols),
    { methods, gains: differences } = meta.summary;
  const best = Object.fromEntries(protocols.map((p) => [p, Math.max(...methods.map((each) => each.map[p] ?? -1))]));
  const several = meta.methods.some((method, place) => method.before !== place);
  const limit = Math.max(...methods.map((each) => each.interval[state.p][1] ?? 0), 0.01);
  const rows = meta.methods.map((method, place) => {
    const { map, interval } = methods[place],
      isSearch = method.before === place;
    return el(
      "tr",
      { class: method.label === state.b ? "chosen" : null },
      el("th", { scope: "row" }, method.label),
      protocols.map((p) =>
        el(
          "td",
          { class: "number" + (p === state.p ? " current" : ""), "data-text": `${percent(map[p])} (${between(interval[p])})` },
          el("span", { class: map[p] === best[p] && methods.length > 1 ? "best" : null }, percent(map[p])),
          el("small", {}, between(interval[p])),
        ),
      ),
      several &&
        protocols.map((p) =>
          gainCell(isSearch ? null : differences[method.before][place][p], p === state.p, methods[place].p[p]),
        ),
      el("td", { "data-skip": "" }, intervalBar(map[state.p], interval[state.p], limit)),
      el("td", { class: "number" }, isSearch ? "" : method.details.num_rerank === null ? "all" : String(method.details.num_rerank ?? "")),
      el("td", { class: "number" }, method.details.ms_per_query === undefined ? "" : method.details.ms_per_query.toFixed(1)),
    );
  });
  const table = el(
    "table",
    { id: "methods-table" },
    el(
      "caption",
      { class: "offscreen" },
      "Mean average precision of every method with 95 % bootstrap intervals over the queries, in percent",
    ),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, "Method"),
        protocols.map((p) => el("th", { scope: "col", class: "number" }, `${capital(p)} mAP`)),
        several && protocols.map((p) => el("th", { scope: "col", class: "number" }, `${capital(p)} gain`)),
        el("th", { scope: "col", "data-skip": "" }, `${capital(state.p)}, 0 to ${percent(limit, 0)} %`),
        el("th", { scope: "col", class: "number" }, "Reranked"),
        el("th", { scope: "col", class: "number" }, "ms a query"),
      ),
    ),
    el("tbody", {}, rows),
  );
  const precision = precisionTable(protocols);
  return section(
    "Methods",
    "methods",
    copyButtons(table, "mAP of all methods"),
    scroller(table, "Methods"),
    el(
      "p",
      { class: "muted" },
      "Percent, with 95 % bootstrap intervals over the queries. Gain: over the global search that the method started from, " +
        "paired by query; ▲ ▼ where the interval leaves out 0; p: of a randomisation test, by Holm's correction for the number " +
        "of methods.",
    ),
    el(
      "details",
      {},
      el("summary", {}, `mP@${meta.ks.join(", ")}`),
      copyButtons(precision, "mP@k of all methods"),
      scroller(precision, "Precision at k"),
    ),
  );
}

function gainCell(gain, current, p) {
  if (!gain || gain[0] === null) return el("td", { class: "number" + (current ? " current" : "") });
  const sure = gain[1] > 0 ? "gained" : gain[2] < 0 ? "lost" : "";
  const chance = p === null ? "" : p < 0.001 ? ", p < 0.001" : `, p ${p.toFixed(3)}`,
    interval = `${signed(gain[1])} to ${signed(gain[2])}${chance}`;
  return el(
    "td",
    { class: "number" + (current ? " current" : ""), "data-text": `${signed(gain[0])} (${interval})` },
    el("span", { class: sure }, sure && `${SIGN[sure]} `, signed(gain[0])),
    el("small", {}, interval),
  );
}

function intervalBar(map, interval, limit) {
  if (map === null) return "";
  const x = (value) => 2 + (value / limit) * 156;
  return svg(
    "svg",
    {
      class: "interval",
      viewBox: "0 0 160 16",
      width: 160,
      height: 16,
      role: "img",
      "aria-label": `${percent(map)}, interval ${between(interval)}`,
    },
    svg("line", { x1: 2, x2: 158, y1: 8, y2: 8, class: "axis" }),
    svg("line", { x1: x(interval[0]), x2: x(interval[1]), y1: 8, y2: 8, class: "range" }),
    svg("circle", { cx: x(map), cy: 8, r: 4 }),
  );
}

function precisionTable(protocols) {
  const { meta } = RRT;
  return el(
    "table",
    { id: "precision-table" },
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", { scope: "col" }, "Method"),
        protocols.map((p) => meta.ks.map((k) => el("th", { scope: "col", class: "number" }, `${capital(p)} mP@${k}`))),
      ),
    ),
    el(
      "tbody",
      {},
      meta.methods.map((method, place) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, method.label),
          protocols.map((p) =>
            meta.summary.methods[place].mp[p].map((value, k) => {
              const interval = between(meta.summary.methods[place].mp_interval[p][k]);
              return el(
                "td",
                { class: "number", "data-text": `${percent(value)} (${interval})` },
                percent(value),
                el("small", {}, interval),
              );
            }),
          ),
        ),
      ),
    ),
  );
}

const scroller = (table, label) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
