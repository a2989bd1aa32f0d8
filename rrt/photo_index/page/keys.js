// Keys that hold everywhere, and the list of all of them.
import {html, useEffect, useRef} from "./vendor/htm-preact.js";

const KEYS = [
  ["/", "words to filter by"], ["u", "choose a picture to search for"], ["arrows", "from photograph to photograph"],
  ["Enter", "open the photograph large"], ["s", "find similar ones"], ["Esc", "close, remove the box, leave the search"],
  ["← | →", "opened large: the one before, the next"], ["w", "opened large: show or hide what both have"],
  ["o", "opened large: the original"], ["f", "opened large: its place in the folder"],
  ["Tab | Enter", "on the picture searched for: draw a box; arrows move it, with shift they change its size, delete removes it"],
  ["?", "this list"],
];

// acts: {key: function}; those in fields and dialogs are left alone.
export function useKeys(acts) {
  const own = useRef(acts);
  own.current = acts;
  useEffect(() => {
    const pressed = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (event.target.matches("input:not([type=file]), select, textarea")) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      const act = own.current[event.key];
      if (act) { event.preventDefault(); act(); }
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

export function Help({close}) {
  const dialog = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  return html`<dialog class="help" ref=${dialog} aria-labelledby="help-title" onClose=${close}>
    <form method="dialog"><div class="row"><h2 id="help-title">Keys</h2><button class="plain" aria-label="Close">✕</button></div></form>
    <dl>${KEYS.map(([keys, does]) => html`<div>
      <dt>${keys.split(" | ").map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl></dialog>`;
}
