// The page of one sample: input, ground truth and every method's mesh, with the scores.
"use strict";

recon3dGallery.sample = (set, sample) => {
  const { el, pathOf, number, arrow, unit, viewers } = recon3dGallery;
  const group = viewers.open(sample.orbit ?? { polar: 90, field: 30 });
  const place = `${set.key}/${sample.folder}`;
  const order = recon3dGallery.filtered(set, recon3dGallery.filterOf(set));
  const list = order.includes(sample) ? order : set.samples;
  const at = list.indexOf(sample);
  const [previous, next] = [list[at - 1], list[at + 1]].map((other) => other && pathOf(set.key, other.id));
  const step = (target, label, text) =>
    el("a", { class: "button", href: target, "aria-label": label, "aria-disabled": target ? null : "true",
      role: target ? null : "link" }, text);

  const shown = set.measures.filter((measure) => ["voxel_iou", "chamfer", "f_score", "mask_iou"].includes(measure.name));
  // The best of its supervision, where that has two different scores: methods that are told more are no rivals.
  const isBest = (measure, method) => {
    const { supervision } = set.methods.find(({ name }) => name === method);
    const values = set.methods.filter((other) => other.supervision === supervision)
      .map(({ name }) => sample.results[name]?.scores[measure.name]).filter((value) => value !== undefined);
    const first = values.sort((a, b) => recon3dGallery.better(measure, a, b))[0];
    return first !== values.at(-1) && first === sample.results[method].scores[measure.name];
  };

  async function download(event, name) {
    const button = event.target;
    try {
      const url = URL.createObjectURL(await viewers.mesh(`${place}/${name}`));
      const file = `${sample.id}-${name}.glb`.replace(/[^A-Za-z0-9._-]+/g, "_");
      el("a", { href: url, download: file }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      button.replaceWith(error.message);
    }
  }

  function tile(name, label, model, result) {
    const facts = model && [
      `${model.verts.toLocaleString("en")} vertices, ${model.faces.toLocaleString("en")} faces`,
      model.texture,
      { predicted: "its own camera", data: "", none: "no camera: from the front left" }[model.camera],
    ].filter(Boolean).join(" · ");
    const stage = model
      ? group.stage(`${place}/${name}`, model, label)
      : el("div", { class: "stage" }, el("p", { class: "failure" }, `No mesh: ${result.error}.`));
    const scores = result && el("dl", {}, shown.filter((measure) => result.scores[measure.name] !== undefined)
      .map((measure) => {
        const value = result.scores[measure.name];
        return el("div", { class: isBest(measure, name) ? "best" : null },
          el("dt", {}, `${measure.name} ${arrow(measure)}`), el("dd", {}, number(value, measure.unit)));
      }));
    return el("figure", { class: result ? "tile" : "tile truth", "data-model": name }, stage,
      el("figcaption", {}, el("strong", {}, recon3dGallery.name(label)), scores,
        facts && el("span", { class: "quiet facts" }, facts),
        model && el("button", { type: "button", class: "link", click: (event) => download(event, name) },
          `Download GLB (${Math.max(1, Math.round(model.bytes / 1024)).toLocaleString("en")} kB)`)));
  }

  const picture = (file, label) => el("figure", { class: "tile picture", "data-model": file },
    el("div", { class: "stage" }, el("img", { class: "poster", src: `data/${place}/${file}.png`, alt: `${label} of ${sample.id}` })),
    el("figcaption", {}, el("strong", {}, label)));

  const tiles = el("div", { class: "tiles" }, picture("input", "input image"), picture("mask", "mask"),
    Object.entries(sample.truths).map(([name, model]) => tile(name, model.title, model, null)),
    set.methods.map(({ name }) => {
      const result = sample.results[name];
      return tile(name, name, result.error ? null : result, result);
    }));

  const chips = el("details", { class: "chips" }, el("summary", {}, "Show or hide"),
    [...tiles.children].map((figure) => {
      const name = figure.dataset.model;
      const box = el("input", { type: "checkbox", checked: true, change: () => { figure.hidden = !box.checked; } });
      return el("label", {}, box, name.replace("ground-truth-", "truth: "));
    }));
  const toolbar = el("div", { class: "toolbar", role: "group", "aria-label": "Viewers" },
    el("label", {}, el("input", { type: "checkbox", id: "together", checked: true,
      change: (event) => group.setTogether(event.target.checked) }), "turn together"),
    el("button", { type: "button", click: () => group.zoomBy(1.25), "aria-label": "Zoom in" }, "+"),
    el("button", { type: "button", click: () => group.zoomBy(0.8), "aria-label": "Zoom out" }, "−"),
    el("button", { type: "button", id: "reset", click: () => group.reset() }, "Input view"));

  const columns = [
    { title: "method", text: true, value: (row) => row.name, cell: (row) => recon3dGallery.name(row.name) },
    ...set.measures.map((measure) => ({
      title: `${measure.name} ${arrow(measure)}${unit(measure)}`,
      first: measure.higher ? "descending" : "ascending",
      value: (row) => row.scores[measure.name],
      cell: (row) => number(row.scores[measure.name], measure.unit),
    })),
  ];
  const rows = set.methods.map(({ name }) => ({ name, scores: sample.results[name].scores }));

  return {
    title: sample.id,
    trail: [[set.key, pathOf(set.key)], [sample.id, pathOf(set.key, sample.id)]],
    id: sample.id, up: pathOf(set.key), previous, next,
    close: () => group.close(),
    nodes: [
      el("div", { class: "heading" },
        el("h1", { tabindex: "-1" }, sample.id),
        el("div", { class: "steps" }, step(previous, "Previous sample", "← previous"),
          el("span", { class: "quiet" }, `${at + 1} of ${list.length}`), step(next, "Next sample", "next →"))),
      el("p", {}, el("span", { class: "tag" }, sample.category),
        sample.rank ? el("span", { class: `tag ${sample.rank}` }, `${sample.rank} of its category by ${set.primary}`) : null),
      viewers.webgl ? null : el("p", { class: "notice", role: "status" }, "This browser has no WebGL 2, so the meshes " +
        "cannot be turned here. Shown are previews from the input view; the GLB files can be downloaded."),
      toolbar, chips, tiles,
      el("p", { class: "quiet" }, "Each mesh starts in the input view: through the camera that the method predicts, " +
        "else that of the data. Drag, or focus a viewer and use the arrow keys, to turn. ★ marks the " +
        "best score of a measure among methods with the same supervision."),
      el("h2", {}, "All measures of this sample"),
      recon3dGallery.table("One sample; the means over the test set are on the page of the data set", columns, rows, "wide"),
    ],
  };
};
