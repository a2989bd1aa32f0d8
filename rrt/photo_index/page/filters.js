// Which photographs are listed and searched, and in which order.
import {html, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {NO_FILTERS} from "./address.js";

const TYPED = 250; // milliseconds without a key after which a text counts
const SORTS = [["newest", "Newest first"], ["oldest", "Oldest first"], ["largest", "Largest first"]];

export function Filters({address, go, about, searching}) {
  const [text, setText] = useState(address.text), timer = useRef(0);
  useEffect(() => setText(address.text), [address.text]);
  const typed = (event) => {
    const now = event.target.value;
    setText(now);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => go({text: now.trim(), open: ""}, true), TYPED);
  };
  const set = (field) => (event) => go({[field]: event.target.value, open: ""});
  const active = ["text", "folder", "since", "until"].filter((field) => address[field]).length;
  const sorts = searching ? [["", "Best first"], ...SORTS, ["name", "By name"]] : [["", "By name"], ...SORTS];
  const folders = about?.folders || [];
  const known = !address.folder || folders.some(([folder]) => folder === address.folder);
  return html`<div class="filters" role="search" aria-label="Filters">
    <input type="search" id="text" value=${text} onInput=${typed} placeholder="Name or folder"
      aria-label="Words in the name or folder" autocomplete="off" spellcheck=${false}/>
    <details class="more" open=${matchMedia("(min-width: 60rem)").matches || undefined}>
      <summary>Filters${active ? ` (${active})` : ""}</summary><div>
      ${folders.length > 0 && html`<select aria-label="Folder" value=${address.folder} onChange=${set("folder")}>
        <option value="">All folders</option>
        ${!known && html`<option value=${address.folder}>${address.folder}</option>`}
        ${folders.map(([folder, many]) => html`<option value=${folder}>${folder} (${many.toLocaleString("en")})</option>`)}</select>`}
      <label>from <input type="date" value=${address.since} max=${address.until || undefined} onChange=${set("since")}/></label>
      <label>to <input type="date" value=${address.until} min=${address.since || undefined} onChange=${set("until")}/></label>
      <select aria-label="Order" value=${address.sort} onChange=${set("sort")}>
        ${sorts.map(([value, name]) => html`<option value=${value}>${name}</option>`)}</select>
      ${active > 0 && html`<button type="button" class="plain" onClick=${() => go({...NO_FILTERS, open: ""})}>Clear filters</button>`}
    </div></details></div>`;
}
