"use strict";
// Start, drawing the page that the address asks for, theme, keys.

const THEMES = ["auto", "light", "dark"];
let scrolled = 0,
  drawn = null,
  cameFrom = null;

function start() {
  setTheme(stored());
  window.addEventListener("hashchange", render);
  document.addEventListener("keydown", onKey);
  for (const kind of ["focusin", "mouseover"]) document.addEventListener(kind, markSame);
  render();
}

function render() {
  const before = drawn;
  state = readState();
  const row = state.q ? queryNumber(state.q) : -1,
    main = byId("main");
  drawn = row < 0 ? null : row;
  if (before === null && row >= 0 && main.childElementCount > 1) scrolled = window.scrollY;
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  renderTools();
  document.title = row < 0 ? `${RRT.meta.title} – retrieval report` : `${stem(state.q)} – ${RRT.meta.title}`;
  const unknown = state.q && row < 0 ? [el("p", { class: "warning" }, `There is no query ${state.q} in this report.`)] : [];
  main.replaceChildren(...(row < 0 ? [...unknown, ...summaryPage()] : queryPage(row)).flat().filter(Boolean));
  if (row >= 0 && before !== row) {
    window.scrollTo(0, 0);
    byId("query-title").focus({ preventScroll: true });
  } else if (row < 0 && before !== null) {
    queueMicrotask(() => {
      window.scrollTo(0, scrolled);
      document.querySelector(`#query-rows [data-row="${before}"] a`)?.focus({ preventScroll: true });
    });
  }
}

function renderTools() {
  const { protocols } = RRT.meta,
    again = (choose, selector) => (value) => {
      choose(value);
      document.querySelector(selector(value))?.focus();
    };
  byId("tools").replaceChildren(
    choice(
      "Protocol",
      Object.keys(protocols).map((p) => [
        p,
        capital(p),
        `right: ${protocols[p].positive.join(" and ")}; not counted: ${protocols[p].ignored.join(" and ")}`,
      ]),
      state.p,
      again(
        (p) => change({ p }),
        (p) => `#tools [data-value="${p}"]`,
      ),
    ),
    choice(
      "Colours",
      [
        ["auto", "Auto"],
        ["light", "Light"],
        ["dark", "Dark"],
      ],
      document.documentElement.dataset.theme,
      again(
        (theme) => {
          setTheme(theme);
          renderTools();
        },
        (theme) => `#tools [data-value="${theme}"]`,
      ),
    ),
    el("button", { type: "button", id: "help-button", title: "Keys ( ? )", onclick: openHelp }, "?"),
  );
}

// ---- theme ----

function stored() {
  try {
    return localStorage.getItem("rrt-theme");
  } catch {
    return null;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = THEMES.includes(theme) ? theme : "auto";
  try {
    localStorage.setItem("rrt-theme", document.documentElement.dataset.theme);
  } catch {
    /* a browser that keeps nothing */
  }
}

// ---- the same image in the other methods' results ----

function markSame(event) {
  const result = event.target.closest?.(".tiles .result");
  document.querySelectorAll(".result.twin").forEach((each) => each.classList.remove("twin"));
  if (result)
    document.querySelectorAll(`.tiles .result[data-image="${result.dataset.image}"]`).forEach((each) => each.classList.add("twin"));
}

// ---- keys ----

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const target = event.target,
    typing = target.matches("input[type=search], select, textarea");
  if (typing) {
    if (event.key === "Escape") {
      target.blur();
      event.preventDefault();
    }
    return;
  }
  const done = keyAction(event.key, target);
  if (done) event.preventDefault();
}

function keyAction(key, target) {
  const results = drawn !== null;
  if (results && target.matches(".tiles .result") && key.startsWith("Arrow")) return moveInTiles(target, key);
  const protocol = Object.keys(RRT.meta.protocols).find((name) => name[0] === key);
  if (protocol) change({ p: protocol });
  else if (key === "?") openHelp();
  else if (key === "t") {
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
    renderTools();
  } else if (key === "/") {
    if (results) {
      go({ q: "" });
      setTimeout(() => byId("filter")?.focus(), 60);
    } else byId("filter")?.focus();
  } else if (!results && key === "j") openRow(queryOrder()[0]);
  else if (results && "123".includes(key)) change({ n: ["10", "25", "100"][Number(key) - 1] });
  else if (results && key === "c") change({ junk: state.junk === "1" ? "0" : "1" });
  else if (results && key === "Escape") go({ q: "" });
  else if (results && ["j", "k", "ArrowRight", "ArrowLeft"].includes(key)) {
    if (key.startsWith("Arrow") && target.closest(".scroll")) return false; // a wide table is scrolled by them
    const order = queryOrder(),
      place = order.indexOf(drawn);
    openRow(order[place < 0 ? 0 : place + (key === "j" || key === "ArrowRight" ? 1 : -1)]);
  } else return false;
  return true;
}

const openRow = (row) => row !== undefined && go({ q: RRT.meta.queries[row].name });

// Only one result of a list can be reached by Tab; the arrows move from it.
function moveInTiles(target, key) {
  const all = [...target.closest(".tiles").querySelectorAll(".result")],
    from = all.indexOf(target),
    top = (each) => each.getBoundingClientRect().top;
  let to = from + ({ ArrowRight: 1, ArrowLeft: -1 }[key] || 0);
  if (key === "ArrowDown" || key === "ArrowUp") {
    const columns = all.findIndex((each) => top(each) > top(all[0]) + 4);
    to = from + (key === "ArrowDown" ? 1 : -1) * (columns < 0 ? all.length : columns);
  }
  if (all[to]) {
    target.tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  }
  return true;
}
