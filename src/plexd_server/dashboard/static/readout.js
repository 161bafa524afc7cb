// What a chart says about the moment that is pointed at.

import { el } from "./dom.js";
import { brief } from "./format.js";
import { sayings } from "./gaps.js";
import { momentFormat } from "./ticks.js";

const AWAY_PX = 12;

/** Whether the gap is that of this line: of all, unless it names ends. */
const isOf = (gap, line) => gap?.said.some(({ who }) => !who || who === "both" || who === line.end);

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

  /** On the side with more room, above or below the lines: it must not cover what it is about. */
  #place(u) {
    const { left, idxs } = u.cursor;
    const { clientWidth: wide, clientHeight: high } = u.over;
    const heights = idxs.slice(1).map((index, i) => u.data[i + 1][index]).filter((value) => value !== null && value !== undefined);
    const isHigh = heights.some((value) => u.valToPos(value, "y") < high / 2);
    const style = this.element.style;
    style.left = left < wide / 2 ? `${left + AWAY_PX}px` : "";
    style.right = left < wide / 2 ? "" : `${wide - left + AWAY_PX}px`;
    style.top = isHigh ? "" : "0";
    style.bottom = isHigh ? "0" : "";
  }
}
