// The page as a whole.
import {html, render, useEffect, useRef, useState} from "./vendor/htm-preact.js";
import {keyOf, NO_FILTERS, NO_QUERY, useAddress} from "./address.js";
import {Cards, LongList, moveFocus} from "./cards.js";
import {Copies} from "./copies.js";
import {Filters} from "./filters.js";
import {Help, useKeys} from "./keys.js";
import {Query, useDropped} from "./query.js";
import {forget, useList, useSearch} from "./search.js";
import {ask} from "./server.js";
import {ThemeButton} from "./theme.js";
import {Viewer} from "./viewer.js";
import {count, grouped, howFound, summary} from "./words.js";

const LOOK_AGAIN = 5000; // milliseconds after which an update of the index is asked for

// {about, updates, describing, error}: what the index holds, how often that has changed since the page was opened, and how
// many of how many new photographs are described, null while none are.
function useIndex() {
  const [state, setState] = useState({updates: 0});
  useEffect(() => {
    let version = null, updates = 0;
    const look = async () => {
      try {
        const now = await ask("/progress"), {describing = null} = now;
        setState((old) => String(old.describing) === String(describing) ? old : {...old, describing});
        if (now.version === version) return;
        const about = await ask("/about");
        if (version !== null) { forget(); updates++; }
        version = now.version;
        setState({about, updates, describing});
      } catch (error) {
        setState((old) => ({...old, error: error.message}));
        if (version !== null) version = ""; // what was missed meanwhile is asked for
      }
    };
    look();
    const timer = setInterval(() => { if (!document.hidden) look(); }, LOOK_AGAIN);
    addEventListener("focus", look); // of someone who comes back from the folder
    return () => { clearInterval(timer); removeEventListener("focus", look); };
  }, []);
  return state;
}

function App() {
  const [address, go, close] = useAddress(), [file, setFile] = useState(null);
  const [refused, refuse] = useState(""), [help, showHelp] = useState(false);
  const {about, updates, describing, error: away} = useIndex(), main = useRef(null);
  const {query, found, error, doing} = useSearch(address, file, about, (next) => { setFile(null); go(next); });
  const list = useList(address, updates), searching = Boolean(query || doing || error);
  const copies = address.view === "copies" && !searching;
  useEffect(() => { setFile(null); refuse(""); }, [address.photo, address.upload, address.view]);
  useEffect(() => { document.title = query ? `${query.name} – Search in photographs` : "Search in photographs"; }, [query?.name]);

  const choose = (chosen) => {
    if (about && chosen.size > about.max_upload) {
      refuse(`${chosen.name} has ${(chosen.size / 1e6).toFixed(1)} MB; at most ${about.max_upload / 1e6} MB are taken.`);
      return;
    }
    refuse("");
    scrollTo(0, 0);
    setFile(chosen);
  };
  const similar = (entry) => {
    scrollTo(0, 0);
    main.current.focus({preventScroll: true}); // what had the focus goes
    setFile(null);
    go({...NO_QUERY, photo: keyOf(entry)});
  };
  const open = (entry) => go({open: keyOf(entry)});
  const leave = () => {
    if (searching || file || copies) { setFile(null); go({...NO_QUERY}); } else go({...NO_FILTERS});
  };
  const home = () => { setFile(null); go({...NO_QUERY, ...NO_FILTERS, sort: ""}); };
  const over = useDropped(choose);
  useKeys({
    "/": () => document.getElementById("text")?.focus(), "?": () => showHelp(true), u: () => document.getElementById("file")?.click(),
    Escape: leave,
  });

  const results = found ? grouped(found.results, address.sort) : [], inOrder = results.flatMap(([, , , those]) => those);
  const at = address.open && found ? inOrder.findIndex((result) => keyOf(result) === address.open) : -1;
  const step = (by) => {
    const beside = copies ? null : found ? at >= 0 && inOrder[at + by] : besideOf(list, address.open, by);
    return beside ? () => go({open: keyOf(beside)}, true) : null;
  };
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>To the photographs</a>
    <header class="top">
      <h1><button type="button" class="home" onClick=${home}>Search in photographs</button></h1>
      <p class="quiet">${about && count(about.all, "photograph")}</p>
      ${describing && html`<label class="quiet building">
        ${`${count(describing[1], "new photograph")}: ${describing[0].toLocaleString("en")} described`}
        <progress value=${describing[0]} max=${describing[1]}></progress></label>`}
      <a class="plain button" href="#/view=copies" aria-current=${copies ? "page" : undefined}
        onClick=${(event) => { event.preventDefault(); setFile(null); scrollTo(0, 0); go({...NO_QUERY, view: "copies"}); }}>Copies</a>
      <button type="button" class="plain" onClick=${() => showHelp(true)} aria-label="Keys" title="Keys (?)">?</button><${ThemeButton}/>
    </header>
    <div class=${`page ${searching || file ? "searching" : ""}`}>
      <${Query} query=${query} address=${address} go=${go} about=${about} choose=${choose}/>
      <main id="main" ref=${main} tabindex="-1" onKeyDown=${(event) => moveFocus(event, main.current)}>
        ${refused && html`<p class="error" role="alert">${refused}</p>`}
        ${error && html`<p class="error" role="alert">${error}</p>`}
        ${away && !error && html`<p class="error" role="alert">${away}</p>`}
        ${copies ? html`<${Copies} updates=${updates} open=${(name) => go({open: name})}/>` : html`
        <${Filters} address=${address} go=${go} about=${about} searching=${searching}/>
        <p class=${doing ? "doing" : "quiet"} role="status">
          ${doing || (found && summary(found)) || (!searching && list.total !== null && told(list, about)) || ""}</p>
        ${searching ? html`<${Results} found=${found} groups=${results} uploaded=${!query?.id} doing=${doing} open=${open}
          similar=${similar}/>`
          : list.error ? html`<p class="error" role="alert">${list.error}</p>`
          : list.total === 0 ? html`<p>No photograph passes these filters.
            <button type="button" onClick=${() => go({...NO_FILTERS})}>Clear filters</button></p>`
          : html`<${LongList} list=${list} open=${open} similar=${similar}/>`}`}
      </main>
    </div>
    ${over && html`<div class="over" aria-hidden="true"><p>Drop the picture to search for it</p></div>`}
    ${help && html`<${Help} close=${() => showHelp(false)}/>`}
    ${address.open && html`<${Viewer} shown=${address.open} result=${inOrder[at]} query=${query} box=${address.box} step=${step}
      close=${close} similar=${similar}/>`}`;
}

function told(list, about) {
  return count(list.total, "photograph") + (about && list.total < about.all ? ` of ${about.all.toLocaleString("en")}` : "");
}

// The photograph before or after one of a long list, where both were in sight.
function besideOf(list, key, by) {
  const place = list.placeOf(key);
  return place < 0 ? null : list.at(place + by);
}

function Results({found, groups, uploaded, doing, open, similar}) {
  if (!found && !doing) return null;
  if (!found) {
    const empty = Array.from({length: 12}, () => html`<li class="cell"><div class="card empty"></div></li>`);
    return html`<ul class="cards" aria-hidden="true">${empty}</ul>`;
  }
  return html`
    ${found.found === false && html`<p class="nothing" role="note"><b>Nothing like it in these photographs.</b>
      <span> The nearest ones are below all the same.</span></p>`}
    ${uploaded && found.same_file
      && html`<p class="note">The very same file is among your photographs: <b>${found.same_file}</b></p>`}
    ${groups.map(([title, meaning, kind, those], i) => html`<section class=${`group ${kind}`} key=${title}>
      <h2>${title} <span class="quiet">${those.length}<span class="wide">${meaning && ` – ${meaning}`}</span></span></h2>
      <${Cards} entries=${those} label=${title} first=${i === 0} open=${open} similar=${similar}/></section>`)}
    <details class="how"><summary>How these were found</summary><p>${howFound(found)} ${found.note || ""}</p>
      <p class="quiet">Method: ${found.method}${found.score ? `, its score: ${found.score}` : ""}; ${found.seconds.toFixed(2)} s</p></details>`;
}

render(html`<${App}/>`, document.getElementById("app"));
