"use strict";
// Pairs that were drawn, and where all of it came from.

// ---- pairs ----

function pairsSection() {
  return section(
    "Pairs",
    "pairs",
    null,
    RRT.meta.pairs.map((pair) => {
      const query = RRT.meta.queries[pair.query].name;
      return el(
        "article",
        { class: "pair" },
        el("h3", {}, el("a", { href: address({ q: query }) }, query), " and ", pair.name),
        pairImages(pair),
      );
    }),
  );
}

function pairImages(pair) {
  const numbers = Object.entries(pair.numbers);
  return [
    pair.images.map((each) =>
      el(
        "figure",
        {},
        el("img", {
          src: `pairs/${each.file.split("/").map(encodeURIComponent).join("/")}`,
          alt: `${each.title}. ${each.caption}`,
          loading: "lazy",
        }),
        el("figcaption", {}, el("strong", {}, each.title), " ", each.caption),
      ),
    ),
    numbers.length
      ? el(
          "dl",
          { class: "facts" },
          numbers.map(([name, value]) => [
            el("dt", {}, name),
            el("dd", {}, typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value)),
          ]),
        )
      : null,
  ];
}

// ---- settings and provenance ----

function settingsSection() {
  const { meta } = RRT;
  const all = meta.evaluations.map((each, place) => {
    const inside = meta.methods.filter((method) => method.evaluation === place && Object.keys(method.details).length);
    return el(
      "article",
      {},
      el("h3", {}, each.folder),
      facts({
        measured: day(each.date),
        command: each.command,
        "in the folder": each.directory,
        "image lists": each.lists.join(", "),
        ...each.protocol,
        num_rerank: null,
        software: versions(each.software),
      }),
      inside.map((method) =>
        el("details", { open: "checkpoint" in method.details }, el("summary", {}, method.label), facts(method.details)),
      ),
    );
  });
  return section(
    "Settings and provenance",
    "settings",
    null,
    all,
    el(
      "article",
      {},
      el("h3", {}, "This report"),
      facts({
        made: day(meta.report.date),
        command: meta.report.command,
        images: meta.report.images,
        software: versions(meta.report.software),
      }),
    ),
  );
}

const versions = (software) =>
  Object.entries(software)
    .map((pair) => pair.join(" "))
    .join(", ");

function facts(values) {
  const text = (value) =>
    typeof value !== "object"
      ? String(value)
      : Array.isArray(value)
        ? value.map(text).join(", ")
        : Object.entries(value)
            .filter(([, each]) => each !== null)
            .map(([name, each]) => `${name} = ${each !== null && typeof each === "object" ? `{${text(each)}}` : text(each)}`)
            .join(", ");
  return el(
    "dl",
    { class: "facts" },
    Object.entries(values)
      .filter(([, value]) => value !== null && value !== undefined && text(value) !== "")
      .map(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, text(value))]),
  );
}
