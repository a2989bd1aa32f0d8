// What the page shows stands in its address, so that reloading, going back and sharing it work:
// #/photo=NAME&box=10,20,300,400&text=...   or   #/upload=SHA-256&name=mine.jpg&...   and open=NAME for what is shown large.
import {useCallback, useEffect, useState} from "./vendor/htm-preact.js";

const FIELDS = ["view", "photo", "upload", "name", "box", "text", "folder", "since", "until", "sort", "open"];
export const NO_FILTERS = {text: "", folder: "", since: "", until: ""};
export const NO_QUERY = {photo: "", upload: "", name: "", box: "", open: "", view: ""};

export function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#\/?/, "").replaceAll("+", "%2B"));
  const state = Object.fromEntries(FIELDS.map((field) => [field, given.get(field) || ""]));
  if (!/^\d+,\d+,\d+,\d+$/.test(state.box)) state.box = "";
  return state;
}

export function format(state) {
  const given = FIELDS.filter((field) => state[field]);
  const text = (value) => encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2C", ",");
  return "#/" + given.map((field) => `${field}=${text(state[field])}`).join("&");
}

// [what the address says, go(changes, replace), close()]: a step forward in the browser's history, or another end of the
// last one; close() leaves what is open.
export function useAddress() {
  const [state, setState] = useState(() => parse(location.hash));
  useEffect(() => {
    history.scrollRestoration = "manual"; // the height of lists is not known when the browser would scroll
    const moved = (event) => {
      setState(parse(location.hash));
      const {scroll = 0} = event.state || {};
      requestAnimationFrame(() => requestAnimationFrame(() => scrollTo(0, scroll)));
    };
    addEventListener("popstate", moved);
    return () => removeEventListener("popstate", moved);
  }, []);
  const go = useCallback((changes, replace = false) => {
    const next = {...parse(location.hash), ...changes}, address = format(next);
    if (address === format(parse(location.hash))) return;
    if (replace) {
      history.replaceState(history.state, "", address);
    } else {
      history.replaceState({...history.state, scroll: scrollY}, "");
      history.pushState({opened: Boolean(changes.open)}, "", address);
    }
    setState(next);
  }, []);
  // Closing what was opened is going back; a second step there would show nothing new.
  const close = useCallback(() => { if (history.state?.opened) history.back(); else go({open: ""}, true); }, []);
  return [state, go, close];
}

// How an address names a photograph: by its path, or by its content where that is no text.
export function keyOf(entry) {
  return entry.name.includes("\ufffd") ? `id:${entry.id}` : entry.name;
}

export function fieldOf(key) {
  return key.startsWith("id:") ? {id: key.slice(3)} : {name: key};
}
