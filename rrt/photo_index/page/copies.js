// Groups of files that are copies of one picture.
import {html, useEffect, useState} from "./vendor/htm-preact.js";
import {ask} from "./server.js";
import {bytes, count, day, fileName, folderName} from "./words.js";

const PAGE = 20, AGAIN = 700; // groups, milliseconds

// updates: of the index so far; open(name).
export function Copies({updates, open}) {
  const [state, setState] = useState(null), [error, setError] = useState(""), [most, setMost] = useState(PAGE);
  useEffect(() => {
    let left = false, timer = 0;
    const look = async () => {
      try {
        let found = await ask(`/duplicates?limit=${PAGE}`);
        while (!left && found.done && found.groups.length < Math.min(most, found.total)) {
          const next = await ask(`/duplicates?limit=${PAGE}&offset=${found.groups.length}`);
          if (!next.groups.length) break;
          found = {...next, groups: [...found.groups, ...next.groups]};
        }
        if (left) return;
        setError(found.error);
        setState(found);
        if (!found.done) timer = setTimeout(look, AGAIN);
      } catch (reason) {
        if (!left) setError(reason.message);
      }
    };
    look();
    return () => { left = true; clearTimeout(timer); };
  }, [updates, most]);
  const doing = state && !state.done, {compared = 0, pairs = 0, total = 0, groups = []} = state || {};
  return html`<h2>Copies</h2>
    <p class="quiet">Files that are the same picture: saved anew, resized, cropped, mirrored or retouched. Nothing is ever deleted here.</p>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <p class=${doing ? "doing" : "quiet"} role="status">${state && !error ? told(state) : ""}</p>
    ${doing && pairs > 0 && html`<progress aria-label="pairs compared" value=${compared} max=${pairs}></progress>`}
    ${groups.map((group) => html`<section class="group" key=${group.members[0].path}>
      <h3>${fileName(group.members[0].path)}
        <span class="quiet"> ${count(group.members.length, "file")}, ${bytes(group.spare)} beside the first</span></h3>
      <ul class="cards" aria-label=${`copies of ${fileName(group.members[0].path)}`}>
        ${group.members.map((member, i) => html`<${Copy} key=${member.path} member=${member} first=${i === 0} open=${open}/>`)}
      </ul></section>`)}
    ${groups.length < total && html`<button type="button" onClick=${() => setMost(most + PAGE)}>Show more</button>`}`;
}

function told({done, compared, pairs, total, files, spare}) {
  if (!done && pairs) return `Comparing photographs: ${compared.toLocaleString("en")} of ${count(pairs, "pair")}…`;
  if (!done) return "Looking for photographs that are near each other…";
  if (!total) return "No copies in these photographs.";
  return `${count(total, "picture")} with copies, ${count(files, "file")} in all; the copies take ${bytes(spare)}`;
}

function Copy({member, first, open}) {
  const facts = `${member.size.join(" × ")} · ${bytes(member.bytes)} · ${day(member)}`;
  const what = first ? "the largest" : member.changes.join(", ");
  return html`<li class="cell"><button type="button" class="card copy" title=${member.path} onClick=${() => open(member.path)}>
    <span class="frame"><img loading="lazy" src=${`/thumbnail/${member.id}`} alt=""/></span>
    <span class="name">${fileName(member.path)}</span><span class="what">${what}</span>
    <span class="quiet">${facts}</span><span class="quiet">${folderName(member.path)}</span></button></li>`;
}
