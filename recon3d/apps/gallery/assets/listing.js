// The landing page, and the page of a data set: its table, and its samples with filters.
"use strict";

recon3dGallery.home = (index) => {
  const { el, pathOf } = recon3dGallery;
  const cards = index.sets.map((set) =>
    el(
      "a",
      { class: "card set", href: pathOf(set.key) },
      el("span", { class: "strip" },
        set.pictures.map(({ folder }) => el("img", { src: `data/${set.key}/${folder}/input.png`, alt: "" })),
        set.pictures.map(({ folder, mesh }) => (mesh
          ? el("img", { src: `data/${set.key}/${folder}/${set.best}.png`, alt: "" })
          : el("span")))),
      el("h2", {}, set.data, " ", el("span", { class: "tag" }, set.preset)),
      el("p", {}, `${set.samples} of ${set.total} test samples · ${set.categories} ` +
        `${set.categories === 1 ? "category" : "categories"} · ${set.methods.length} methods`),
      el("p", { class: "quiet" }, `Above: inputs, and the meshes of ${set.best} (supervision: ${set.supervision}), which has ` +
        `the best mean ${set.primary} of all, whatever they learn from. `,
        `Methods: ${set.methods.join(", ")}.`),
    ),
  );
  return {
    title: "",
    trail: [],
    nodes: [
      el("h1", { tabindex: "-1" }, "From one image to a 3D shape"),
      el("p", { class: "lead" }, "What every method of the benchmark makes of the same test images: its meshes side " +
        "by side in 3D, beside the ground truth and the scores. Nothing is picked by hand."),
      el("div", { class: "sets" }, cards),
      el("p", { class: "quiet keys" }, "Keys: ", el("kbd", {}, "Tab"), " and ", el("kbd", {}, "Enter"), " open, ",
        el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " previous and next sample, ", el("kbd", {}, "/"), " search, ",
        el("kbd", {}, "Esc"), " back."),
    ],
  };
};

/** Filters of each data set, kept while the page is open. */
recon3dGallery.filters = new Map();

/** The samples that a filter leaves, in its order. */
recon3dGallery.filtered = (set, filter) => {
  const measure = set.measures.find((known) => known.name === filter.measure);
  const score = (sample) => sample.results[filter.method]?.scores[filter.measure];
  const text = filter.text.trim().toLowerCase();
  const kept = set.samples.filter((sample) =>
    (!filter.category || sample.category === filter.category) && sample.id.toLowerCase().includes(text));
  if (filter.order === "name") return kept.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  const known = kept.filter((sample) => score(sample) !== undefined);
  const unknown = kept.filter((sample) => score(sample) === undefined);
  known.sort((a, b) => recon3dGallery.better(measure, score(a), score(b)));
  if (filter.order === "worst") known.reverse();
  if (filter.order === "median" && known.length) {
    const median = score(known[Math.floor(known.length / 2)]);
    known.sort((a, b) => Math.abs(score(a) - median) - Math.abs(score(b) - median));
  }
  // A sample for which the method failed is its worst case.
  return filter.order === "worst" ? [...unknown, ...known] : [...known, ...unknown];
};

recon3dGallery.filterOf = (set) => {
  const { filters } = recon3dGallery;
  if (!filters.has(set.key)) {
    filters.set(set.key, {
      category: "", order: "name", method: set.methods[0].name, measure: set.primary, text: "",
    });
  }
  return filters.get(set.key);
};

recon3dGallery.listing = (set) => {
  const { el, pathOf, number, arrow, unit } = recon3dGallery;
  const filter = recon3dGallery.filterOf(set);
  const count = el("p", { class: "count", role: "status" });
  const grid = el("ul", { class: "grid", "aria-label": "Samples" });

  // Bars of a measure share one scale: 1 for fractions, else the largest value shown.
  function longest(measure) {
    if (measure.unit === "1" && measure.higher) return 1;
    const values = set.samples.flatMap((sample) =>
      Object.values(sample.results).map((result) => Math.abs(result.scores[measure.name] ?? 0)));
    return Math.max(...values, Number.MIN_VALUE);
  }

  function card(sample, measure, full) {
    const lines = set.methods.map(({ name }) => {
      const result = sample.results[name], value = result?.scores[measure.name];
      const bar = el("span", { class: "bar" });
      bar.style.setProperty("--share", `${Math.max(0, Math.min(1, Math.abs(value ?? 0) / full)) * 100}%`);
      return el("li", { class: name === filter.method ? "chosen" : null },
        el("span", { class: "name" }, name), bar,
        el("span", { class: "value" }, result?.error ? "failed" : number(value, measure.unit)));
    });
    return el("li", {}, el("a", { class: "card sample", href: pathOf(set.key, sample.id), "data-id": sample.id },
      el("span", { class: "top" },
        el("img", { src: `data/${set.key}/${sample.folder}/input.png`, alt: "", loading: "lazy", width: 96, height: 96 }),
        el("span", {}, el("span", { class: "tag" }, sample.category),
          sample.rank ? el("span", { class: `tag ${sample.rank}` }, sample.rank) : null,
          el("span", { class: "id" }, sample.id))),
      el("ul", { class: "scores", "aria-label": `${measure.name} by method` }, lines)));
  }

  function refresh() {
    const measure = set.measures.find((known) => known.name === filter.measure);
    const shown = recon3dGallery.filtered(set, filter), full = longest(measure);
    grid.replaceChildren(...shown.map((sample) => card(sample, measure, full)));
    count.textContent = `${shown.length} of ${set.samples.length} samples · bars: ${measure.name} ${arrow(measure)}${unit(measure)}`;
  }

  function select(label, key, options) {
    const box = el("select", { change: (event) => { filter[key] = event.target.value; refresh(); } },
      options.map(([value, title]) => el("option", { value, selected: value === filter[key] }, title)));
    return el("label", {}, label, box);
  }

  const search = el("input", {
    type: "search", id: "search", placeholder: "part of a sample's name", value: filter.text,
    input: (event) => { filter.text = event.target.value; refresh(); },
  });
  const controls = el("form", { class: "controls", submit: (event) => event.preventDefault(), "aria-label": "Filters" },
    select("Category", "category", [["", "all"], ...set.categories.map((name) => [name, name])]),
    select("Order", "order", [["name", "by name"], ["worst", "worst cases first"], ["best", "best cases first"],
      ["median", "median cases first"]]),
    select("of method", "method", set.methods.map(({ name }) => [name, name])),
    select("by measure", "measure", set.measures.map((known) => [known.name, `${known.name} ${arrow(known)}`])),
    el("label", {}, "Search ", search));
  refresh();
  const notes = [`${set.data}, split ${set.split}, lengths in units of the ${set.scale.replace("_", " ")}.`];
  if (set.stale) notes.push(`${set.stale} out-of-date ${set.stale === 1 ? "Record is" : "Records are"} left out.`);
  return {
    title: set.key,
    trail: [[set.key, pathOf(set.key)]],
    nodes: [
      el("h1", { tabindex: "-1" }, set.data, " ", el("span", { class: "tag" }, set.preset)),
      el("p", { class: "quiet" }, notes.join(" ")),
      el("h2", {}, "Methods"),
      recon3dGallery.methods(set),
      el("h2", {}, "Samples"),
      el("p", { class: "quiet" }, set.choice),
      controls, count, grid,
    ],
  };
};

/** The table of the Records. */
recon3dGallery.methods = (set) => {
  const { el, number, arrow, unit } = recon3dGallery;
  const costs = [
    ["params", "parameters", (value) => `${(value / 1e6).toFixed(2)} M`],
    ["train_s", "training", (value) => (value < 120 ? `${value.toFixed(0)} s` : `${(value / 60).toFixed(0)} min`)],
    ["ms_per_image", "per image", (value) => `${value.toFixed(1)} ms`],
    ["peak_mem_mib", "memory", (value) => `${Math.round(value)} MiB`],
  ];
  const method = (row) => [
    row.paper?.url?.startsWith("https://")
      ? el("a", { href: row.paper.url, title: `${row.paper.title} (${row.paper.year})`, rel: "noreferrer" },
        recon3dGallery.name(row.method))
      : recon3dGallery.name(row.method),
    row.note ? el("span", { class: "note" }, row.note) : null,
  ];
  const columns = [
    { title: "method", text: true, value: (row) => row.method, cell: method },
    { title: "input", text: true, value: (row) => row.input, cell: (row) => row.input },
    { title: "supervision", text: true, value: (row) => row.supervision, cell: (row) => row.supervision },
    { title: "seeds", value: (row) => row.seeds, cell: (row) => String(row.seeds) },
    ...set.columns.map((measure) => ({
      title: `${measure.name} ${arrow(measure)}${unit(measure)}`,
      hint: measure.higher ? "higher is better" : "lower is better",
      first: measure.higher ? "descending" : "ascending", // the best first
      value: (row) => row.values[measure.name]?.[0],
      cell: (row) => {
        const [mean, sd] = row.values[measure.name] ?? [null, null];
        return number(mean, measure.unit) + (sd === null || mean === null ? "" : ` ± ${number(sd, measure.unit)}`);
      },
    })),
    ...costs.map(([key, title, text]) => ({
      title, value: (row) => row.cost[key],
      cell: (row) => (row.cost[key] === null || row.cost[key] === undefined ? "–" : text(row.cost[key])),
    })),
  ];
  return recon3dGallery.table("From the Records: mean over the test set, ± standard deviation over seeds", columns,
    set.rows, "wide");
};
