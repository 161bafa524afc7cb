// A table that is sorted by its headings, by the keyboard as well, and can be replaced in place.

import { el } from "./dom.js";

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1; // what is not known comes last, either way
  if (b === null || b === undefined) return -1;
  if (typeof a === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * `columns` are `{name, hint, key, cell, first}`: `key(row)` is what is sorted by (no key, no
 * sorting), `cell(row)` the content, `hint` what a heading with a key says more, `first` the direction of the first click ("descending" for numbers of
 * which the large ones matter). `sort` is `{column, direction}` to begin with.
 */
export class SortedTable {
  constructor({ caption, columns, sort, most = 500, kind = "" }) {
    this.columns = columns;
    this.most = most;
    this.rows = [];
    this.body = el("tbody");
    this.note = el("p", { class: "muted note", hidden: true });
    this.headings = columns.map((column) => this.#heading(column));
    const head = el("thead", {}, el("tr", {}, this.headings));
    const table = el("table", { class: kind }, el("caption", { class: "hidden" }, caption), head, this.body);
    this.element = el("div", {}, this.#picker(), el("div", { class: "card scroll" }, table), this.note);
    this.#choose(sort.column, sort.direction);
  }

  /** Show these rows; `row.id` names one for good. */
  show(rows) {
    this.rows = rows;
    this.#draw();
  }

  #heading(column) {
    if (!column.key) return el("th", { scope: "col" }, column.name);
    const button = el("button", { type: "button", title: column.hint ?? null }, column.name);
    button.addEventListener("click", () => this.#click(column));
    return el("th", { scope: "col" }, button);
  }

  /** For narrow screens, where there is no room for headings. */
  #picker() {
    const options = this.columns.filter((column) => column.key).map((column) => el("option", {}, column.name));
    this.select = el("select", {}, options);
    this.select.addEventListener("change", () => {
      const column = this.columns.find((one) => one.name === this.select.value);
      this.#choose(column.name, column.first ?? "ascending");
      this.#draw();
    });
    return el("label", { class: "sort-by" }, "Sort by ", this.select);
  }

  #click(column) {
    const other = { ascending: "descending", descending: "ascending" };
    const same = this.sort.column === column.name;
    this.#choose(column.name, same ? other[this.sort.direction] : (column.first ?? "ascending"));
    this.#draw();
  }

  #choose(column, direction) {
    this.sort = { column, direction };
    this.select.value = column;
    this.columns.forEach((one, i) => {
      if (!one.key) return;
      this.headings[i].setAttribute("aria-sort", one.name === column ? direction : "none");
    });
  }

  #draw() {
    const column = this.columns.find((one) => one.name === this.sort.column);
    const turn = this.sort.direction === "ascending" ? 1 : -1;
    const order = (a, b) => {
      const [x, y] = [column.key(a), column.key(b)];
      const missing = x === null || x === undefined || y === null || y === undefined;
      return (missing ? 1 : turn) * compare(x, y) || compare(a.id, b.id);
    };
    const shown = [...this.rows].sort(order).slice(0, this.most);
    const focused = document.activeElement?.closest("[data-row]")?.dataset.row;
    const which = document.activeElement?.dataset?.focus;
    this.body.replaceChildren(...shown.map((row) => this.#row(row)));
    if (focused !== undefined) {
      const again = this.body.querySelector(`[data-row="${CSS.escape(focused)}"]`);
      (again?.querySelector(which ? `[data-focus="${which}"]` : "a, button") ?? null)?.focus({ preventScroll: true });
    }
    this.note.hidden = shown.length === this.rows.length;
    this.note.textContent = `${shown.length} of ${this.rows.length} shown; filter for others.`;
  }

  #row(row) {
    const cells = this.columns.map((column, i) => {
      const content = [column.cell(row)].flat();
      if (i === 0) return el("th", { scope: "row" }, content);
      return el("td", { "data-label": column.name }, content);
    });
    return el("tr", { "data-row": row.id }, cells);
  }
}
