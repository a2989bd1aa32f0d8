"use strict";
// The first page: figures of all methods, two of them compared, every query, settings.

function summaryPage() {
  const { meta } = RRT, several = meta.methods.length > 1;
  const about = meta.evaluations[0];
  return [
    el("div", { class: "intro" },
      el("h1", {}, meta.title),
      el("p", { class: "muted" }, `${meta.queries.length} queries, ${meta.gallery.toLocaleString("en")} gallery pictures`
        + (about.protocol.distractors ? ` and distractors, ${about.protocol.distractors}` : "") + `; measured ${day(about.date)}`)),
    methodsSection(),
    several && compareSection(),
    queriesSection(),
    meta.pairs.length ? pairsSection() : null,
    settingsSection(),
  ];
}

const day = (date) => String(date).slice(0, 16).replace("T", " ") + " UTC";

function section(title, id, extra, ...children) {
  return el("section", { id, "aria-labelledby": `${id}-title` },
    el("div", { class: "heading" }, el("h2", { id: `${id}-title` }, title), extra), children);
}

// ---- figures ----

function methodsSection() {
  const { meta } = RRT, protocols = Object.keys(meta.protocols), { methods, gains: differences } = meta.summary;
  const best = Object.fromEntries(protocols.map((p) => [p, Math.max(...methods.map((each) => each.map[p] ?? -1))]));
  const several = meta.methods.some((method, place) => method.before !== place);
  const limit = Math.max(...methods.map((each) => each.interval[state.p][1] ?? 0), 0.01);
  const rows = meta.methods.map((method, place) => {
    const { map, interval } = methods[place], isSearch = method.before === place;
    return el("tr", { class: method.label === state.b ? "chosen" : null },
      el("th", { scope: "row" }, method.label),
      protocols.map((p) => el("td", { class: "number" + (p === state.p ? " current" : ""), "data-text": `${percent(map[p])} (${between(interval[p])})` },
        el("span", { class: map[p] === best[p] && methods.length > 1 ? "best" : null }, percent(map[p])), el("small", {}, between(interval[p])))),
      several && protocols.map((p) => gainCell(isSearch ? null : differences[method.before][place][p], p === state.p)),
      el("td", { "data-skip": "" }, intervalBar(map[state.p], interval[state.p], limit)),
      el("td", { class: "number" }, isSearch ? "" : method.details.num_rerank === null ? "all" : String(method.details.num_rerank ?? "")),
      el("td", { class: "number" }, method.details.ms_per_query === undefined ? "" : method.details.ms_per_query.toFixed(1)));
  });
  const table = el("table", { id: "methods-table" },
    el("caption", { class: "offscreen" }, "Mean average precision of every method with 95 % bootstrap intervals over the queries, in percent"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Method"),
      protocols.map((p) => el("th", { scope: "col", class: "number" }, `${capital(p)} mAP`)),
      several && protocols.map((p) => el("th", { scope: "col", class: "number" }, `${capital(p)} gain`)),
      el("th", { scope: "col", "data-skip": "" }, `${capital(state.p)}, 0 to ${percent(limit, 0)} %`),
      el("th", { scope: "col", class: "number" }, "Reranked"), el("th", { scope: "col", class: "number" }, "ms a query"))),
    el("tbody", {}, rows));
  const precision = precisionTable(protocols);
  return section("Methods", "methods", copyButtons(table, "mAP of all methods"), scroller(table, "Methods"),
    el("p", { class: "muted" }, "Percent, with 95 % bootstrap intervals over the queries. Gain: over the global search that the method started from, "
      + "paired by query; ▲ ▼ where the interval leaves out 0."),
    el("details", {}, el("summary", {}, `mP@${meta.ks.join(", ")}`), copyButtons(precision, "mP@k of all methods"), scroller(precision, "Precision at k")));
}

function gainCell(gain, current) {
  if (!gain || gain[0] === null) return el("td", { class: "number" + (current ? " current" : "") });
  const sure = gain[1] > 0 ? "gained" : gain[2] < 0 ? "lost" : "";
  const interval = `${signed(gain[1])} to ${signed(gain[2])}`;
  return el("td", { class: "number" + (current ? " current" : ""), "data-text": `${signed(gain[0])} (${interval})` },
    el("span", { class: sure }, sure && `${SIGN[sure]} `, signed(gain[0])), el("small", {}, interval));
}

function intervalBar(map, interval, limit) {
  if (map === null) return "";
  const x = (value) => 2 + (value / limit) * 156;
  return svg("svg", { class: "interval", viewBox: "0 0 160 16", width: 160, height: 16, role: "img", "aria-label": `${percent(map)}, interval ${between(interval)}` },
    svg("line", { x1: 2, x2: 158, y1: 8, y2: 8, class: "axis" }),
    svg("line", { x1: x(interval[0]), x2: x(interval[1]), y1: 8, y2: 8, class: "range" }),
    svg("circle", { cx: x(map), cy: 8, r: 4 }));
}

function precisionTable(protocols) {
  const { meta } = RRT;
  return el("table", { id: "precision-table" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Method"),
    protocols.map((p) => meta.ks.map((k) => el("th", { scope: "col", class: "number" }, `${capital(p)} mP@${k}`))))),
    el("tbody", {}, meta.methods.map((method, place) => el("tr", {}, el("th", { scope: "row" }, method.label),
      protocols.map((p) => meta.summary.methods[place].mp[p].map((value, k) => {
        const interval = between(meta.summary.methods[place].mp_interval[p][k]);
        return el("td", { class: "number", "data-text": `${percent(value)} (${interval})` }, percent(value), el("small", {}, interval));
      }))))));
}

const scroller = (table, label) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);

// ---- two methods ----

function compareSection() {
  const { meta } = RRT, a = methodNumber(state.a), b = methodNumber(state.b);
  const found = gains(), gain = meta.summary.gains[a][b][state.p];
  const order = found.map((value, row) => row).filter((row) => found[row] !== null);
  const most = { gained: [...order].sort((x, y) => found[y] - found[x] || x - y), lost: [...order].sort((x, y) => found[x] - found[y] || x - y) };
  const number = (way) => order.filter((row) => direction(found[row]) === way).length;
  const menu = (side, label) => el("label", {}, `${label} `, el("select", { id: `method-${side}`, onchange: (event) => {
    change({ [side]: event.target.value });
    byId(`method-${side}`).focus();
  } }, meta.methods.map((method) => el("option", { value: method.label, selected: method.label === state[side] }, method.label))));
  return section("Compare", "compare", null,
    el("p", { class: "menus" }, menu("a", "before"), el("button", { type: "button", class: "quiet", title: "Exchange the two",
      onclick: () => change({ a: state.b, b: state.a }) }, "⇄", el("span", { class: "offscreen" }, "exchange the two methods")), menu("b", "after")),
    el("p", { id: "verdict" }, el("strong", {}, `${capital(state.p)} mAP ${signed(gain[0])}`), gain[0] === null ? "" : ` (95 % interval ${signed(gain[1])} to ${signed(gain[2])}): `,
      `${number("gained")} queries gained, ${number("lost")} lost, ${number("same")} stayed`,
      order.length < found.length ? `; ${found.length - order.length} have no ${state.p} pictures` : ""),
    el("div", { class: "compare" }, scatter(a, b, found),
      ["gained", "lost"].map((way) => extremes(way, most[way].filter((row) => direction(found[row]) === way).slice(0, 6), found, a, b))));
}

function extremes(way, rows, found, a, b) {
  const { meta } = RRT;
  return el("div", { class: "extremes", id: `most-${way}` }, el("h3", {}, `${capital(way)} most`), rows.length ? el("ol", {}, rows.map((row) => {
    const query = meta.queries[row];
    return el("li", {}, el("a", { href: address({ q: query.name }) }, el("span", { class: "crop" }, picture(query.crop, query.name, { alt: "" })),
      el("span", { class: "words" }, el("span", { class: "name" }, stem(query.name)),
        el("span", {}, el("span", { class: way }, `${SIGN[way]} ${signed(found[row], 1)} `),
          el("small", {}, `${percent(meta.methods[a].aps[state.p][row], 1)} → ${percent(meta.methods[b].aps[state.p][row], 1)}`)))));
  })) : el("p", { class: "muted" }, "None."));
}

// Average precision of each query with one method against that with the other.
function scatter(a, b, found) {
  const { meta } = RRT, [before, after] = [a, b].map((place) => meta.methods[place].aps[state.p]);
  const most = Math.max(0.05, ...before, ...after), step = [0.01, 0.02, 0.05, 0.1, 0.2].find((each) => most / each <= 6) || 0.2;
  const limit = Math.min(1, Math.ceil(most / step - 1e-9) * step), left = 52, top = 10, side = 348;
  const x = (value) => left + (value / limit) * side, y = (value) => top + side - (value / limit) * side;
  const ticks = [...Array(Math.round(limit / step) + 1).keys()].map((each) => each * step);
  const label = (tick) => percent(tick, step < 0.01 ? 1 : 0);
  const shapes = { gained: "M0,-5.5 5,4 -5,4Z", lost: "M0,5.5 5,-4 -5,-4Z", same: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z" };
  const names = [meta.methods[a].label, meta.methods[b].label];
  return el("figure", { class: "scatter" }, svg("svg", { id: "scatter", viewBox: `0 0 ${left + side + 14} ${top + side + 46}`, role: "group",
    "aria-label": `Average precision of each query, ${names[0]} across, ${names[1]} up; the table of queries has the same numbers` },
    ticks.map((tick) => [
      svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y(0), y2: y(limit) }), svg("line", { class: "grid", x1: x(0), x2: x(limit), y1: y(tick), y2: y(tick) }),
      svg("text", { x: x(tick), y: y(0) + 16, "text-anchor": "middle" }, label(tick)), svg("text", { x: x(0) - 7, y: y(tick) + 4, "text-anchor": "end" }, label(tick))]),
    svg("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(limit), y2: y(limit) }),
    svg("text", { class: "title", x: left + side / 2, y: top + side + 38, "text-anchor": "middle" }, `${capital(state.p)} AP with ${names[0]}, %`),
    svg("text", { class: "title", transform: `translate(14 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" }, `AP with ${names[1]}, %`),
    found.map((gain, row) => gain !== null && svg("a", { href: address({ q: meta.queries[row].name }), class: `point ${direction(gain)}`, tabindex: -1, "data-row": row,
      transform: `translate(${x(before[row])} ${y(after[row])})`, "aria-label": `${meta.queries[row].name}: ${percent(before[row], 1)} to ${percent(after[row], 1)}` },
      svg("path", { d: shapes[direction(gain)] }), svg("title", {}, `${meta.queries[row].name}\n${percent(before[row], 1)} → ${percent(after[row], 1)} (${signed(gain, 1)})`)))),
    el("figcaption", { class: "muted" }, "A point is a query: ▲ above the diagonal gained, ▼ below lost. Click one to see its results."));
}

// ---- pairs ----

function pairsSection() {
  return section("Pairs", "pairs", null, RRT.meta.pairs.map((pair) => {
    const query = RRT.meta.queries[pair.query].name;
    return el("article", { class: "pair" }, el("h3", {}, el("a", { href: address({ q: query }) }, query), " and ", pair.name), pairPictures(pair));
  }));
}

function pairPictures(pair) {
  const numbers = Object.entries(pair.numbers);
  return [
    pair.pictures.map((each) => el("figure", {}, el("img", { src: `pairs/${each.file.split("/").map(encodeURIComponent).join("/")}`, alt: `${each.title}. ${each.caption}`, loading: "lazy" }),
      el("figcaption", {}, el("strong", {}, each.title), " ", each.caption))),
    numbers.length ? el("dl", { class: "facts" }, numbers.map(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value))])) : null,
  ];
}

// ---- settings and provenance ----

function settingsSection() {
  const { meta } = RRT;
  const all = meta.evaluations.map((each, place) => {
    const inside = meta.methods.filter((method) => method.evaluation === place && Object.keys(method.details).length);
    return el("article", {}, el("h3", {}, each.folder),
      facts({ measured: day(each.date), command: each.command, "in the folder": each.directory, "image lists": each.lists.join(", "), ...each.protocol, num_rerank: null, software: versions(each.software) }),
      inside.map((method) => el("details", { open: "checkpoint" in method.details }, el("summary", {}, method.label), facts(method.details))));
  });
  return section("Settings and provenance", "settings", null, all, el("article", {}, el("h3", {}, "This report"),
    facts({ made: day(meta.report.date), command: meta.report.command, pictures: meta.report.pictures, software: versions(meta.report.software) })));
}

const versions = (software) => Object.entries(software).map((pair) => pair.join(" ")).join(", ");

function facts(values) {
  const text = (value) => (typeof value !== "object" ? String(value) : Array.isArray(value) ? value.map(text).join(", ")
    : Object.entries(value).filter(([, each]) => each !== null).map(([name, each]) => `${name} = ${each !== null && typeof each === "object" ? `{${text(each)}}` : text(each)}`).join(", "));
  return el("dl", { class: "facts" }, Object.entries(values).filter(([, value]) => value !== null && value !== undefined && text(value) !== "")
    .map(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, text(value))]));
}
