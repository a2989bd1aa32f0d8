// Numbers and findings in plain words.

export const GROUPS = [
  ["same", "The same", "very likely the thing you look for"],
  ["maybe", "Maybe", "worth a look"],
  ["similar", "Only similar", "they look alike, but nothing says that it is the same thing"],
];

export function count(number, one, many = one + "s") {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function percent(probability) {
  if (typeof probability !== "number" || probability < 0.01) return "";
  return probability > 0.99 ? "99 %" : `${Math.round(100 * probability)} %`;
}

export function fileName(name) {
  return name.slice(name.lastIndexOf("/") + 1);
}

export function folderName(name) {
  return name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "";
}

export function bytes(size) {
  return size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

export function day(entry) {
  const date = new Date(entry.date);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleDateString(undefined, {day: "numeric", month: "short", year: "numeric"});
}

// Results in groups [title, explanation, kind, results], the best group first; one group where they are not told apart.
export function grouped(results, sort) {
  const ordered = order(results, sort);
  if (!results.some((result) => result.group)) return ordered.length ? [["Most alike first", "", "", ordered]] : [];
  return GROUPS.map(([kind, title, meaning]) => [title, meaning, kind, ordered.filter((result) => result.group === kind)])
    .filter(([, , , found]) => found.length);
}

function order(results, sort) {
  const by = {
    newest: (a, b) => b.date.localeCompare(a.date),
    oldest: (a, b) => a.date.localeCompare(b.date),
    name: (a, b) => a.name.localeCompare(b.name),
    largest: (a, b) => b.size[0] * b.size[1] - a.size[0] * a.size[1],
  }[sort];
  return by ? [...results].sort(by) : results;
}

export function summary(found) {
  if (!found.results.length) return "Nothing found.";
  const groups = grouped(found.results).filter(([, , kind]) => kind).map(([title, , , those]) => `${those.length} ${title.toLowerCase()}`);
  return `${count(found.results.length, "result")}${groups.length ? ": " + groups.join(", ") : ""}, ${found.seconds.toFixed(1)} s`;
}

export function howFound(found) {
  if (!found.method || found.method === "none") return "Photographs were compared as a whole.";
  return "Photographs were compared as a whole first, and the nearest ones then detail by detail.";
}
