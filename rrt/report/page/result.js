"use strict";
// One result in a dialog: beside the query, with its rank in every method and, where it was drawn, why it matches.

function openResult(row, page, method, i, why = false) {
  const { meta } = RRT,
    found = page.results[method][state.p],
    id = found.images[i],
    grade = page.grades[id];
  const query = meta.queries[row],
    name = page.names[id],
    pair = meta.pairs.find((each) => each.query === row && each.image === id);
  const ranks = meta.methods.map((other, place) => {
    const at = page.results[place][state.p].images.indexOf(id),
      right = page.positives[state.p].indexOf(id);
    const rank = at >= 0 ? page.results[place][state.p].ranks[at] : right >= 0 ? page.places[place][state.p][right] : 0;
    return el(
      "div",
      {},
      el("dt", {}, other.label),
      el("dd", {}, rank ? String(rank) : at >= 0 ? "not counted" : right >= 0 ? "–" : `> ${meta.shown}`),
    );
  });
  const wanted = `--pairs '${`${query.name}:${name}`.replaceAll("'", "'\\''")}'`;
  const dialog = openDialog(
    "result",
    `${name}`,
    el(
      "div",
      { class: "two" },
      el(
        "figure",
        {},
        image(query.crop, query.name, { alt: `${query.name}, the query's box` }),
        el("figcaption", { class: "muted" }, "the query"),
      ),
      el(
        "figure",
        { class: `result ${FRAME[grade] || grade}` },
        image(page.thumbs[id], name),
        el("figcaption", { class: "muted" }, `${MEANING[grade]} ( ${LETTER[grade]} )`),
      ),
    ),
    el("h3", {}, `${capital(state.p)} rank`),
    el("dl", { class: "ranks" }, ranks),
    pair
      ? el("section", { class: "pair", "aria-label": "Why" }, el("h3", {}, "Why"), pairImages(pair))
      : el(
          "p",
          { class: "muted" },
          "To see why, make the report with ",
          el("code", {}, wanted),
          " ",
          el("button", { type: "button", class: "quiet", onclick: () => copyText(wanted, wanted) }, "Copy"),
        ),
  );
  if (why) dialog.querySelector(".pair").scrollIntoView();
  const order = listed(page, method);
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key],
      next = order[order.indexOf(i) + step];
    if (!step || next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    dialog.close();
    openResult(row, page, method, next);
  });
  dialog.addEventListener("close", () => document.querySelector(`.tiles[data-method="${method}"] [data-place="${i}"]`)?.focus());
}

// A modal dialog; the browser keeps the focus in it and closes it on Escape.
function openDialog(id, title, ...children) {
  const dialog = el(
    "dialog",
    { id, "aria-labelledby": `${id}-title` },
    el(
      "div",
      { class: "heading" },
      el("h2", { id: `${id}-title` }, title),
      el("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕"),
    ),
    children,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const KEYS = [
  ["j k", "or", "→ ←", "next and previous query"],
  ["→ ← ↑ ↓", "in the results", "", "move through them"],
  ["Enter", "", "", "open a result"],
  ["→ ←", "on an open result", "", "next and previous result"],
  ["Esc", "", "", "close, or back to all queries"],
  ["1 2 3", "", "", "the first 10, 25 or 100 results"],
  ["e m h", "", "", "Easy, Medium, Hard"],
  ["c", "", "", "show or hide what is not counted"],
  ["/", "", "", "filter the queries"],
  ["t", "", "", "light, dark, or as the system has it"],
  ["?", "", "", "this list"],
];

function openHelp() {
  const keys = (text) =>
    text
      .split(" ")
      .filter(Boolean)
      .map((key) => el("kbd", {}, key));
  openDialog(
    "help",
    "Keys",
    el(
      "dl",
      { class: "keys" },
      KEYS.map(([first, word, second, meaning]) => [el("dt", {}, keys(first), word && `${word} `, keys(second)), el("dd", {}, meaning)]),
    ),
  );
}
