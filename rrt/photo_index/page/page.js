"use strict";

const PAGE_SIZE = 60;
const $ = (id) => document.getElementById(id);
const corners = ["x1", "y1", "x2", "y2"];
// chosen: {id} of a photograph of the index or {file}, its name, and its width and height, 0 while they are unknown.
let chosen = null, box = null, limits = {}, offset = 0, running = null, listing = 0;

// ---- the index ------------------------------------------------------------------------------------------------------------

function photo(entry, lines, choose) {
  const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
  button.type = "button";
  button.className = "photo";
  image.loading = "lazy";
  image.alt = "";
  image.src = `/thumbnail/${entry.id}`;
  image.addEventListener("error", () => { image.removeAttribute("src"); image.alt = "(no longer there, or changed)"; });
  button.append(image);
  for (const [kind, text] of lines) {
    const line = document.createElement("span");
    line.className = kind;
    line.textContent = text;
    button.append(line);
  }
  button.addEventListener("click", choose);
  item.append(button);
  return item;
}

function nameOf(entry) {
  return entry.name + (entry.more ? ` (and ${entry.more} more of the same content)` : "");
}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The search program does not answer; is it still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The search failed (${answer.status}).`);
  return content;
}

async function list(more) {
  const turn = ++listing;
  if (!more) offset = 0;
  const text = $("filter").value.trim();
  try {
    const about = await ask("/about"), page = await ask(`/photographs?offset=${offset}&limit=${PAGE_SIZE}&text=${encodeURIComponent(text)}`);
    if (turn !== listing) return;
    limits = about;
    if (!more) $("photographs").replaceChildren();
    for (const entry of page.photographs)
      $("photographs").append(photo(entry, [["", nameOf(entry)]], () => choose({id: entry.id, name: entry.name, size: entry.size})));
    offset += page.photographs.length;
    $("more").hidden = offset >= page.total;
    $("count").textContent = `${offset} of ${page.total} shown`;
    $("about").textContent = `${about.all} photographs, ` + (about.method === "none" ? "global search alone" : `reranked by ${about.method}`)
      + (about.note ? ` (${about.note})` : "");
  } catch (error) {
    tell("", error.message);
  }
}

// ---- the image and its box ------------------------------------------------------------------------------------------------

function tell(status, error = "") {
  $("status").textContent = status;
  $("error").textContent = error;
}

function choose(picture) {
  if (picture.file && limits.max_upload && picture.file.size > limits.max_upload) {
    tell("", `${picture.file.name} has ${(picture.file.size / 1e6).toFixed(1)} MB; at most ${limits.max_upload / 1e6} are taken.`);
    return;
  }
  if (chosen && chosen.url) URL.revokeObjectURL(chosen.url);
  chosen = {...picture, width: 0, height: 0};
  if (picture.file) chosen.url = URL.createObjectURL(picture.file);
  if (picture.size) [chosen.width, chosen.height] = picture.size;
  setBox(null);
  $("chosen").hidden = false;
  $("stage").hidden = false;
  $("name").textContent = picture.id ? `${picture.name} (of the index)` : picture.name;
  $("picture").src = chosen.url || `/picture/${picture.id}`;
  window.scrollTo({top: 0});
  search();
}

$("picture").addEventListener("load", () => {
  if (chosen && !chosen.width) [chosen.width, chosen.height] = [$("picture").naturalWidth, $("picture").naturalHeight];
  setBox(box);
});

$("picture").addEventListener("error", () => { $("stage").hidden = true; });

// The box in pixels of the image, its corners in order and inside of it; null: the whole image.
function setBox(asked) {
  const {width, height} = chosen || {};
  if (asked && width) {
    const [left, right] = [asked[0], asked[2]].map((x) => Math.round(Math.min(Math.max(x, 0), width))).sort((a, b) => a - b);
    const [top, bottom] = [asked[1], asked[3]].map((y) => Math.round(Math.min(Math.max(y, 0), height))).sort((a, b) => a - b);
    box = right > left && bottom > top ? [left, top, right, bottom] : null;
  } else {
    box = null;
  }
  const drawn = $("box");
  drawn.hidden = $("whole").hidden = !box;
  if (box) {
    drawn.style.left = `${100 * box[0] / width}%`;
    drawn.style.top = `${100 * box[1] / height}%`;
    drawn.style.width = `${100 * (box[2] - box[0]) / width}%`;
    drawn.style.height = `${100 * (box[3] - box[1]) / height}%`;
  }
  corners.forEach((id, i) => {
    $(id).max = (i % 2 ? height : width) || "";
    $(id).value = box ? box[i] : width ? [0, 0, width, height][i] : "";
  });
}

function pixel(event) {
  const place = $("picture").getBoundingClientRect();
  return [(event.clientX - place.left) / place.width * chosen.width, (event.clientY - place.top) / place.height * chosen.height];
}

let drag = null;
$("stage").addEventListener("pointerdown", (event) => {
  if (!chosen || !chosen.width || event.button) return;
  event.preventDefault();
  $("stage").setPointerCapture(event.pointerId);
  drag = {from: pixel(event), moved: event.target === $("box") ? [...box] : null};
});
$("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = pixel(event);
  if (drag.moved) moveBox(drag.moved, x - drag.from[0], y - drag.from[1]);
  else setBox([...drag.from, x, y]);
});
for (const kind of ["pointerup", "pointercancel"])
  $("stage").addEventListener(kind, () => { if (drag && box) tell(`box ${box.join(", ")}; press Search`); drag = null; });

function moveBox([x1, y1, x2, y2], dx, dy) {
  dx = Math.min(Math.max(dx, -x1), chosen.width - x2);
  dy = Math.min(Math.max(dy, -y1), chosen.height - y2);
  setBox([x1 + dx, y1 + dy, x2 + dx, y2 + dy]);
}

$("box").addEventListener("keydown", (event) => {
  const step = Math.max(1, Math.round(Math.max(chosen.width, chosen.height) / 100));
  const [dx, dy] = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key] || [0, 0];
  if (event.key === "Escape") { setBox(null); $("x1").focus(); }
  else if (event.key === "Enter") search();
  else if (!dx && !dy) return;
  else if (event.shiftKey) setBox([box[0], box[1], Math.max(box[0] + 1, box[2] + dx), Math.max(box[1] + 1, box[3] + dy)]);
  else moveBox(box, dx, dy);
  event.preventDefault();
});

for (const id of corners) {
  $(id).addEventListener("change", () => setBox(corners.map((corner) => Number($(corner).value) || 0)));
  $(id).addEventListener("keydown", (event) => { if (event.key === "Enter") { setBox(corners.map((c) => Number($(c).value) || 0)); search(); } });
}

// ---- searching ------------------------------------------------------------------------------------------------------------

async function search() {
  if (!chosen) return;
  if (running) running.abort();
  const own = running = new AbortController();
  tell("searching…");
  $("search").disabled = true;
  try {
    const fields = new URLSearchParams({box: box ? JSON.stringify(box) : ""});
    const options = {method: "POST", signal: own.signal};
    let address = `/search/${chosen.id}?${fields}`;
    if (!chosen.id) {
      fields.set("name", chosen.name.slice(0, 200));
      address = `/search?${fields}`;
      options.body = chosen.file;
      options.headers = {"Content-Type": "application/octet-stream"};
    }
    show(await ask(address, options));
  } catch (error) {
    if (error.name !== "AbortError") tell("", error.message);
  } finally {
    if (running === own) { running = null; $("search").disabled = false; }
  }
}

function show(found) {
  const notes = [];
  if (found.box) notes.push(`searched for the box ${found.box.join(", ")}`);
  if (found.same_file && !chosen.id) notes.push(`the index has the same file: ${found.same_file}`);
  $("found-note").textContent = notes.join("; ");
  $("results").replaceChildren(...found.results.map((result) => {
    const figures = [`similarity ${result.similarity.toFixed(3)}`];
    if (found.score && result.score !== null)
      figures.push(`${found.score} ${found.score === "inliers" ? result.score : result.score.toFixed(3)}`);
    if (result.probability !== null) figures.push(`probability ${result.probability.toFixed(2)}`);
    return photo(result, [["", `${result.rank}. ${nameOf(result)}`], ["figures", figures.join(", ")]],
                 () => choose({id: result.id, name: result.name, size: result.size}));
  }));
  $("found").hidden = false;
  tell(`${found.results.length} results in ${found.seconds.toFixed(1)} s`);
}

$("search").addEventListener("click", search);
$("whole").addEventListener("click", () => { setBox(null); search(); });
$("more").addEventListener("click", () => list(true));
let typing = 0;
$("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => list(false), 200); });
$("file").addEventListener("change", () => {
  const file = $("file").files[0];
  if (file) choose({file, name: file.name});
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"])
  document.addEventListener(kind, () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) choose({file, name: file.name});
});
list(false);
