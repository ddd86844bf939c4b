// Tables that sort by any column: stable, missing values last, the direction in aria-sort.
"use strict";

/**
 * columns: [{title, hint, value(row) -> number | string | null, cell(row) -> node or text, first: "ascending" | "descending"}]
 * The first column is the row's header and stays in sight.
 */
recon3dGallery.table = (caption, columns, rows, className = "") => {
  const { el } = recon3dGallery;
  const order = rows.map((row, index) => ({ row, index }));
  const body = el("tbody");
  const heads = columns.map((column, index) =>
    el(
      "th",
      { scope: "col", "aria-sort": "none", title: column.hint, class: column.text ? "text" : null },
      el("button", { type: "button", click: () => sort(index) }, column.title),
    ),
  );

  function sort(index) {
    const column = columns[index];
    const now = heads[index].getAttribute("aria-sort");
    const first = column.first || "ascending";
    const direction = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    heads.forEach((head, other) => head.setAttribute("aria-sort", other === index ? direction : "none"));
    const sign = direction === "ascending" ? 1 : -1;
    const missing = (value) => value === null || value === undefined;
    // Array.prototype.sort is stable: equal rows keep the order of the last sort.
    order.sort((a, b) => {
      const x = column.value(a.row), y = column.value(b.row);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
    fill();
  }

  function fill() {
    body.replaceChildren(
      ...order.map(({ row }) =>
        el("tr", {}, columns.map((column, index) => {
          const name = index === 0 ? "th" : "td";
          return el(name, { scope: index === 0 ? "row" : null, class: column.text ? "text" : null }, column.cell(row));
        })),
      ),
    );
  }

  fill();
  const head = el("thead", {}, el("tr", {}, heads));
  return el(
    "div",
    { class: `scroll ${className}`, role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {}, el("caption", {}, caption), head, body),
  );
};
