// One photograph large, beside what was searched for where it is a result, with the details both have.
import {html, useEffect, useLayoutEffect, useRef, useState} from "./vendor/htm-preact.js";
import {ask, fields} from "./server.js";
import {fieldOf} from "./address.js";
import {bytes, day, fileName, folderName, percent} from "./words.js";

const NONE = [];
const VERDICTS = {
  same: (sure) => `Very likely the same thing${sure}.`,
  maybe: (sure) => `Maybe the same thing${sure}.`,
  similar: (sure) => `Looks similar, but most likely not the same thing${sure}.`,
};

// shown: how the address names it; result: what the search says of it, or nothing; query: of useSearch();
// step(by): to a neighbour, or null where there is none.
export function Viewer({shown, result, query, box, step, close, similar}) {
  const dialog = useRef(null), [entry, setEntry] = useState(null), [error, setError] = useState("");
  const [lines, setLines] = useState(true), [place, showPlace] = useState(false), left = useRef(false);
  const leave = () => { // once: a browser closes a dialog by itself when Esc is pressed again
    if (!left.current) close();
    left.current = true;
  };
  useEffect(() => {
    const element = dialog.current, before = document.activeElement;
    element.showModal();
    element.focus(); // not its first button
    return () => { left.current = true; element.close(); before?.focus?.(); };
  }, []);
  useEffect(() => {
    const control = new AbortController();
    setEntry(null);
    setError("");
    showPlace(false);
    ask("/photograph?" + fields(fieldOf(shown)), {signal: control.signal}).then(setEntry, (reason) => {
      if (!control.signal.aborted) setError(reason.message);
    });
    return () => control.abort();
  }, [shown]);
  const keyed = (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: step(-1), ArrowRight: step(1), w: () => setLines(!lines), s: entry && (() => similar(entry)),
      o: entry && (() => open(`/original/${entry.id}`, "_blank", "noopener")), f: () => showPlace(!place),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  };
  const why = result && query;
  return html`<dialog class="viewer" tabindex="-1" ref=${dialog} aria-labelledby="viewer-title" onKeyDown=${keyed}
      onCancel=${(event) => { event.preventDefault(); leave(); }} onClose=${leave}
      onClick=${(event) => { if (event.target === dialog.current) leave(); }}>
    <header><h2 id="viewer-title">${entry ? fileName(entry.name) : "Photograph"}</h2>
      <button type="button" class="plain" disabled=${!step(-1)} onClick=${step(-1)} aria-label="Previous" title="Previous (←)">‹</button>
      <button type="button" class="plain" disabled=${!step(1)} onClick=${step(1)} aria-label="Next" title="Next (→)">›</button>
      <button type="button" class="plain" onClick=${leave} aria-label="Close" title="Close (Esc)">✕</button></header>
    ${error ? html`<p class="error" role="alert">${error}</p>` : entry && html`
      <${Pictures} key=${entry.id} entry=${entry} query=${why ? query : null} box=${box} lines=${lines} setLines=${setLines}/>
      <footer>
        <p class="facts">${result && VERDICTS[result.group] && html`<b>${VERDICTS[result.group](sureness(result))}</b> `}
          <span>${[folderName(entry.name) && `in ${folderName(entry.name)}`, entry.taken ? `taken ${day(entry)}` : `file of ${day(entry)}`,
            entry.size.join(" × "), bytes(entry.bytes)].filter(Boolean).join(" · ")}</span>
          ${result && html`<details class="how"><summary>Numbers</summary>${numbers(result)}</details>`}</p>
        <div class="row">
          <button type="button" class="strong" onClick=${() => similar(entry)} title="s">Find similar</button>
          <a class="button" href=${`/original/${entry.id}`} target="_blank" rel="noopener" title="o">Open the original</a>
          <button type="button" aria-expanded=${place} onClick=${() => showPlace(!place)} title="f">Show in folder</button></div>
        ${place && html`<${Places} paths=${entry.paths}/>`}
      </footer>`}
  </dialog>`;
}

function sureness(result) {
  const sure = percent(result.probability);
  return sure && result.group !== "similar" ? ` (${sure} sure)` : "";
}

function numbers(result) {
  const told = [`likeness as a whole ${result.similarity.toFixed(3)}`];
  if (typeof result.score === "number") told.push(`score of the comparison in detail ${result.score.toFixed(3)}`);
  if (typeof result.probability === "number") told.push(`probability ${result.probability.toFixed(3)}`);
  return told.join(" · ");
}

// Each path of a photograph, to copy.
function Places({paths}) {
  const [copied, setCopied] = useState("");
  const copy = async (event, path) => {
    const field = event.target.closest("li").querySelector("input");
    try {
      await navigator.clipboard.writeText(path);
    } catch { // a browser gives the clipboard to https and to this machine alone
      field.select();
      document.execCommand("copy");
    }
    setCopied(path);
  };
  const all = (event) => event.target.select();
  return html`<ul class="places">${paths.map((path) => html`<li class="row">
    <input readonly value=${path} aria-label="Path of the file" onFocus=${all}/>
    <button type="button" onClick=${(event) => copy(event, path)}>${copied === path ? "Copied" : "Copy"}</button></li>`)}</ul>`;
}

function Pictures({entry, query, box, lines, setLines}) {
  const [found, setFound] = useState(null), own = useRef(null), [gone, setGone] = useState(false);
  useEffect(() => {
    if (!query) return;
    const control = new AbortController();
    const given = fields({photo: query.id, upload: query.upload, box: box && `[${box}]`});
    ask(`/details/${entry.id}?${given}`, {method: "POST", signal: control.signal})
      .then(setFound, (reason) => { if (!control.signal.aborted) setFound({error: reason.message, pairs: []}); });
    return () => control.abort();
  }, [query?.picture, box]);
  const large = gone ? html`<p>The file is no longer there, or has changed.</p>`
    : html`<img src=${`/picture/${entry.id}`} alt=${fileName(entry.name)} onError=${() => setGone(true)}/>`;
  if (!query) return html`<div class="pictures single"><figure>${large}</figure></div>`;
  const many = found?.pairs.length;
  return html`<div class=${`pictures pair ${lines && many ? "lined" : ""}`} ref=${own}>
      <figure><img src=${query.picture} alt="what you searched for"/><figcaption>What you searched for</figcaption></figure>
      <figure>${large}<figcaption>${entry.name}</figcaption></figure>
      <${Lines} pairs=${lines && many ? found.pairs : NONE} box=${box} size=${query.size} within=${own}/></div>
    <p class="why" role="status">${!found ? "Looking for what both have in common…"
      : found.error ? found.error
      : found.count < 4 ? "No single details agree; the pictures look alike as a whole."
      : found.count < 10 ? `${found.count} details agree in place and look; so few may do so by chance.`
      : `${found.count} details agree in place and look.`}
      ${many > 0 && html` <label><input type="checkbox" checked=${lines} onChange=${() => setLines(!lines)}/> show them (w)</label>`}</p>`;
}

// Lines between the same details of the two images of an element, over both, and the box searched for on the first.
function Lines({pairs, box, size, within}) {
  const [places, setPlaces] = useState(null);
  useLayoutEffect(() => {
    const images = [...within.current.querySelectorAll("img")];
    const look = () => {
      const {left, top} = within.current.getBoundingClientRect();
      const drawn = images.map((image) => image.getBoundingClientRect())
        .map((place) => [place.left - left, place.top - top, place.width, place.height]);
      if (images.length === 2 && images.every((image) => image.naturalWidth)) setPlaces(drawn);
    };
    look();
    const watch = new ResizeObserver(look);
    watch.observe(within.current);
    for (const image of images) { watch.observe(image); image.addEventListener("load", look); }
    return () => { watch.disconnect(); for (const image of images) image.removeEventListener("load", look); };
  }, []);
  if (!places) return null;
  const at = ([left, top, width, height], x, y) => [left + x * width, top + y * height];
  const corners = box && size && box.split(",").map((value, i) => value / size[i % 2]);
  const [x1, y1] = corners ? at(places[0], corners[0], corners[1]) : [];
  const [x2, y2] = corners ? at(places[0], corners[2], corners[3]) : [];
  return html`<svg class="lines" aria-hidden="true">
    ${corners && html`<rect x=${x1} y=${y1} width=${x2 - x1} height=${y2 - y1}/>`}${pairs.map(([x, y, u, v], i) => {
    const [a, b] = at(places[0], x, y), [c, d] = at(places[1], u, v);
    return html`<g class=${`hue${i % 6}`}><line x1=${a} y1=${b} x2=${c} y2=${d}/>
      <circle cx=${a} cy=${b} r="3.5"/><circle cx=${c} cy=${d} r="3.5"/></g>`;
  })}</svg>`;
}
