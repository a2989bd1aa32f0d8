// What is searched for: choosing it, seeing it, leaving it.
import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {Numbers, Stage} from "./box.js";
import {NO_QUERY} from "./address.js";
import {count, fileName} from "./words.js";

// The panel. query: of useSearch(), without one there is only the choice; choose(file).
export function Query({query, address, go, about, choose}) {
  const search = (box) => go({box, open: ""});
  if (!query) return html`<section class="query" aria-labelledby="query-title">
    <h2 id="query-title">What are you looking for?</h2>
    <div class="drop">
      <${Choose} choose=${choose} text="Choose a picture"/>
      <p class="quiet wide">or drop one anywhere on this page, or paste it</p>
      <p class="quiet">or open one of ${about ? `the ${count(about.all, "photograph")}` : "the photographs"} and choose
        <b> Find similar</b></p>
    </div>
    <p class="quiet wide">Pictures go to the program that serves this page, and nowhere else.</p></section>`;
  const known = query.size && query.picture;
  return html`<section class="query chosen" aria-labelledby="query-title">
    <div class="row"><h2 id="query-title" title=${query.name}>${fileName(query.name)}</h2>
      <button type="button" class="plain" onClick=${() => go({...NO_QUERY})} aria-label="Leave this search"
        title="Leave this search (Esc)">✕</button></div>
    ${known ? html`<${Stage} key=${query.picture} src=${query.picture} size=${query.size} box=${address.box} search=${search}/>`
      : html`<div class="stage waiting">${query.preview && html`<${Preview} src=${query.preview}/>`}</div>`}
    <p class="quiet hint">${address.box ? "Only what is in the box is searched for."
      : "Drag a box around one thing to search for it alone."}</p>
    <div class="row actions">
      ${address.box && html`<button type="button" onClick=${() => search("")}>Whole picture</button>`}
      <${Choose} choose=${choose} text="Another picture" plain=${true}/>
      ${known && html`<details><summary>Box in numbers</summary>
        <${Numbers} size=${query.size} box=${address.box} search=${search}/></details>`}
    </div>
  </section>`;
}

// An image that is still on its way; of some kinds browsers show nothing.
function Preview({src}) {
  const [shown, show] = useState(true);
  return shown && html`<img src=${src} alt="the picture searched for" onError=${() => show(false)}/>`;
}

function Choose({choose, text, plain}) {
  const taken = (event) => {
    if (event.target.files[0]) choose(event.target.files[0]);
    event.target.value = "";
  };
  return html`<label class=${plain ? "button" : "button strong"}>
    <input type="file" id="file" accept="image/*,.heic,.heif" onChange=${taken}/>${text}</label>`;
}

// Pictures that are dropped on the page or pasted into it -> whether one hovers.
export function useDropped(choose) {
  const [over, setOver] = useState(false), own = useRef(choose);
  own.current = choose;
  useEffect(() => {
    let inside = 0;
    const on = {
      dragenter: (event) => { event.preventDefault(); inside++; setOver(true); },
      dragleave: () => { if (--inside <= 0) { inside = 0; setOver(false); } },
      dragover: (event) => event.preventDefault(),
      drop: (event) => { event.preventDefault(); inside = 0; setOver(false); take(event.dataTransfer.files); },
      paste: (event) => take(event.clipboardData.files),
    };
    const take = (files) => { if (files[0]) own.current(files[0]); };
    for (const [kind, act] of Object.entries(on)) document.addEventListener(kind, act);
    return () => { for (const [kind, act] of Object.entries(on)) document.removeEventListener(kind, act); };
  }, []);
  return over;
}
