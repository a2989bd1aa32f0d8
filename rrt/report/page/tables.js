"use strict";
// Tables of the page as Markdown, LaTeX and CSV. A cell's data-text says what stands for it there.

const cellText = (cell) => (cell.dataset.text ?? cell.textContent).trim();

function tableRows(table) {
  return [...table.rows].map((row) => [...row.cells].filter((cell) => !("skip" in cell.dataset)).map(cellText));
}

const FORMATS = {
  Markdown(rows) {
    const line = (cells) => `| ${cells.map((cell) => cell.replace(/([|\\])/g, "\\$1")).join(" | ")} |`;
    return [line(rows[0]), line(rows[0].map((_, column) => (column ? "---:" : "---"))), ...rows.slice(1).map(line)].join("\n") + "\n";
  },
  LaTeX(rows) {
    const special = {
      "\\": "\\textbackslash{}",
      "–": "--",
      "−": "$-$",
      "▲": "$\\blacktriangle$",
      "▼": "$\\blacktriangledown$",
      "<": "$<$",
      ">": "$>$",
      "~": "\\textasciitilde{}",
      "^": "\\textasciicircum{}",
    };
    const line = (cells) => cells.map((cell) => cell.replace(/[\\–−▲▼<>~^_%&#${}]/g, (c) => special[c] || `\\${c}`)).join(" & ") + " \\\\";
    return [
      `\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`,
      "\\toprule",
      line(rows[0]),
      "\\midrule",
      ...rows.slice(1).map(line),
      "\\bottomrule",
      "\\end{tabular}",
      "",
    ].join("\n");
  },
  CSV(rows) {
    const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
    return rows.map((cells) => cells.map((text) => cell(text.replace(/−/g, "-"))).join(",")).join("\n") + "\n";
  },
};

// Buttons that copy a table. table: the element, or a function that gives it.
function copyButtons(table, what) {
  const found = () => (typeof table === "function" ? table() : table);
  return el(
    "div",
    { class: "copy", role: "group", "aria-label": `Copy ${what}` },
    el("span", { "aria-hidden": "true" }, "copy"),
    Object.entries(FORMATS).map(([name, format]) =>
      el(
        "button",
        { type: "button", class: "quiet", "data-format": name, onclick: () => copyText(format(tableRows(found())), `${what} as ${name}`) },
        name,
      ),
    ),
  );
}

// A head cell that sorts. sort: its name; ways: the directions it goes through, in turn.
function sortHead(title, sort, ways, numeric) {
  const active = state.sort === sort,
    way = active ? state.dir : null;
  const next = active ? ways[(ways.indexOf(way) + 1) % ways.length] : ways[0];
  const arrow = { ascending: "▲", descending: "▼", other: "◆" }[way] || "";
  const meaning = { other: "largest change first", ascending: "ascending", descending: "descending" }[next];
  return el(
    "th",
    { scope: "col", class: numeric && "number", "aria-sort": way || "none", "data-text": title },
    el(
      "button",
      {
        type: "button",
        class: "sort",
        "data-sort": sort,
        title: `Sort: ${meaning}`,
        onclick: () => {
          change({ sort, dir: next });
          document.querySelector(`[data-sort="${CSS.escape(sort)}"]`)?.focus();
        },
      },
      title,
      el("span", { class: "arrow", "aria-hidden": "true" }, arrow),
    ),
  );
}
