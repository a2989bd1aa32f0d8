// The search that the address asks for, and the list of all photographs.
import {useEffect, useReducer, useRef, useState} from "./vendor/htm-preact.js";
import {ask, fields, pause, send} from "./server.js";
import {fieldOf, keyOf} from "./address.js";
import {count} from "./words.js";

const PAGE = 100, MOST_KEPT = 30;
const kept = new Map(); // answers by what was asked for, so that going back shows them at once

export function forget() {
  kept.clear();
}

function wantedOf({text, folder, since, until}) {
  return {text, folder, since, until};
}

function asked(address) {
  return JSON.stringify([address.photo, address.upload, address.box, wantedOf(address)]);
}

function keep(key, answer) {
  kept.set(key, answer);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
}

// {query, found, error, doing} of what the address, or a file that is still to be sent, asks for.
// query: {id, upload, name, size, picture}; doing: what is being waited for. sent(answer): the file is known by its address now.
export function useSearch(address, file, about, sent) {
  const key = asked(address), wanted = wantedOf(address), [state, setState] = useState({});
  useEffect(() => {
    if (!file && !address.photo && !address.upload) { setState({}); return; }
    const control = new AbortController(), signal = control.signal;
    const picture = file ? URL.createObjectURL(file) : "";
    const told = (doing) => setState((old) => ({...old, doing}));
    const same = (old) => !file && old.query && old.query.key === address.photo + "|" + address.upload;
    setState((old) => ({query: same(old) ? old.query : file ? {name: file.name, preview: picture} : null, doing: "Searching…"}));
    run().catch((error) => {
      if (!signal.aborted) setState((old) => ({query: old.query, error: error.message}));
    });
    return () => { control.abort(); if (picture) URL.revokeObjectURL(picture); };

    async function run() {
      if (file) {
        told("Sending the picture…");
        const name = file.name.slice(0, 200), path = "/search?" + fields({name, ...wanted});
        const answer = await watched(signal, told, about, send(path, file, {signal, told}));
        const next = {photo: "", upload: answer.upload, name, box: "", open: "", view: ""};
        keep(asked({...address, ...next}), answer);
        sent(next);
        return;
      }
      const query = address.photo ? await photograph(address.photo, signal)
        : {upload: address.upload, name: address.name || "your picture", picture: `/upload/${address.upload}`};
      query.key = address.photo + "|" + address.upload;
      setState((old) => ({...old, query: {...query, size: query.size || old.query?.size}}));
      const box = address.box && `[${address.box}]`;
      const path = query.id ? `/search/${query.id}` : `/search/upload/${query.upload}`;
      const answer = kept.get(key)
        || await watched(signal, told, about, ask(`${path}?${fields({box, ...wanted})}`, {method: "POST", signal, told}));
      keep(key, answer);
      if (!signal.aborted) setState({query: {...query, size: query.size || answer.size}, found: answer});
    }
  }, [key, file]);
  return state;
}

// The answer of a search; meanwhile told(text) hears what the program does.
async function watched(signal, told, about, answer) {
  let done = false;
  const ended = () => { done = true; };
  answer.then(ended, ended);
  (async () => {
    for (;;) {
      await pause(400, signal);
      if (done) return;
      const {doing, waiting} = await ask("/progress", {signal});
      if (done) return;
      if (waiting > 1) told(`Waiting for ${count(waiting - 1, "other search", "other searches")}…`);
      else if (doing === "describing") told("Looking at the picture…");
      else if (doing === "comparing") told(`Comparing it with ${count(about?.all || 0, "photograph")}…`);
    }
  })().catch(() => {}); // the search itself tells what went wrong
  return answer;
}

async function photograph(key, signal) {
  const found = await ask("/photograph?" + fields(fieldOf(key)), {signal});
  return {...found, picture: `/picture/${found.id}`};
}

// All photographs that pass the filters, by pages that are fetched when they are needed:
// {total, error, at(i): the photograph or undefined, want(first, last), placeOf(key)}. updates: of the index so far.
export function useList(address, updates) {
  const wanted = {...wantedOf(address), sort: address.sort || "name"}, filters = JSON.stringify(wanted), key = filters + updates;
  const [, redraw] = useReducer((turn) => turn + 1, 0), list = useRef({});
  if (list.current.key !== key) {
    const {total = null, entries, filters: before} = list.current; // an update leaves what is in sight until it is known better
    list.current = {key, filters, total, entries: new Map(filters === before ? entries : []), pages: new Set(), error: ""};
  }
  const own = list.current;
  async function load(page) {
    own.pages.add(page);
    try {
      const answer = await ask("/photographs?" + fields({offset: page * PAGE, limit: PAGE, ...wanted}));
      own.total = answer.total;
      answer.photographs.forEach((entry, i) => own.entries.set(page * PAGE + i, entry));
    } catch (error) {
      own.error = error.message;
      own.pages.delete(page);
    }
    if (list.current === own) redraw();
  }
  useEffect(() => { load(0); }, [key]);
  return {
    key, total: own.total, error: own.error,
    at: (i) => own.entries.get(i),
    want: (first, last) => {
      for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) if (!own.pages.has(page)) load(page);
    },
    placeOf: (key) => { for (const [i, entry] of own.entries) if (keyOf(entry) === key) return i; return -1; },
  };
}
