// What a chart says about the moment that is pointed at.

import { el } from "./dom.js";
import { brief } from "./format.js";
import { sayings } from "./gaps.js";
import { momentFormat } from "./ticks.js";

const AWAY_PX = 12;

/** Whether the gap is that of this line: of all, unless it names ends. */
const isOf = (gap, line) => gap?.said.some(({ who }) => !who || who === "both" || who === line.end);

/** How far down the values are that are drawn between two pixels. */
function heightsWithin(u, from, to) {
  const places = [...u.data[0].keys()].filter((i) => {
    const x = u.valToPos(u.data[0][i], "x");
    return from <= x && x <= to;
  });
  const values = u.data.slice(1).flatMap((line) => places.map((i) => line[i]));
  return values.filter((value) => value !== null && value !== undefined).map((value) => u.valToPos(value, "y"));
}

export class Readout {
  #lines;
  #format;
  #shown;
  element = el("div", { class: "pointed-at", hidden: true });

  /** `shown()` is what the chart shows: `since`, `until`, `gaps`. */
  constructor(lines, format, shown) {
    this.#lines = lines;
    this.#format = format;
    this.#shown = shown;
  }

  /** Say what is at the plot's cursor, beside it. */
  follow(u) {
    const { left, idx } = u.cursor;
    this.element.hidden = left < 0 || (idx === null && !this.#shown().gaps.length);
    if (this.element.hidden) return;
    this.element.replaceChildren(...this.#said(u).map((text) => el("div", {}, text)));
    this.#place(u);
  }

  #said(u) {
    const { since, until, gaps } = this.#shown();
    const pointed = u.posToVal(u.cursor.left, "x");
    const gap = gaps.find(({ from, to }) => from < pointed && pointed < to);
    const written = momentFormat(since, until);
    const numbers = this.#lines.flatMap((line, i) => {
      const index = u.cursor.idxs[i + 1];
      if (index === null || index === undefined || isOf(gap, line)) return [];
      return [`${brief(line.name)}: ${this.#format(u.data[i + 1][index])}`];
    });
    const moment = numbers.length ? u.data[0][u.cursor.idx] : pointed;
    return [written(moment), ...numbers, ...(gap ? sayings(gap) : [])];
  }

  /** On the side with more room, above or below the lines: where it covers fewer of their values. */
  #place(u) {
    const { left } = u.cursor;
    const { clientWidth: wide, clientHeight: high } = u.over;
    const isLeft = left < wide / 2;
    const from = isLeft ? left + AWAY_PX : left - AWAY_PX - this.element.offsetWidth;
    const heights = heightsWithin(u, from, from + this.element.offsetWidth);
    const covered = (isCovered) => heights.filter(isCovered).length;
    const above = covered((y) => y < this.element.offsetHeight);
    const below = covered((y) => y > high - this.element.offsetHeight);
    const style = this.element.style;
    style.left = isLeft ? `${left + AWAY_PX}px` : "";
    style.right = isLeft ? "" : `${wide - left + AWAY_PX}px`;
    style.top = above > below ? "" : "0";
    style.bottom = above > below ? "0" : "";
  }
}
