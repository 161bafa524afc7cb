// Line charts over time, drawn by uPlot in the page's own colours, with gaps that say why.

import { showBands } from "./bands.js";
import { el } from "./dom.js";
import { describeGaps, findGaps } from "./gaps.js";
import { withGaps } from "./readings.js";
import { Readout } from "./readout.js";
import { timeTicks, valueTicks } from "./ticks.js";

const DARK = matchMedia("(prefers-color-scheme: dark)");
const HEIGHT = 206;
const PADDING = [14, 14, 0, 0];
const AXIS_PX = { time: 30, values: 66 };
const TICK_PX = 58;
const MOST_TICKS = 7;
const LINE_PX = 2;
const DOT_PX = 5;
const EXPAND = 2; // uPlot's number: a gap reaches to the line's next own value
const drawn = new WeakMap();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Where values stand without a break between them: the first and the last index of each run. */
export function runsOf(values) {
  const runs = [];
  let isBroken = true;
  values.forEach((value, i) => {
    if (value === undefined) return; // another line's moment
    if (value === null) isBroken = true;
    else if (isBroken) runs.push([i, i]);
    else runs.at(-1)[1] = i;
    if (value !== null) isBroken = false;
  });
  return runs;
}

/** The values that need a dot, because the line through them is shorter than the dot would be. */
function dotted(u, index) {
  const pixel = (i) => u.valToPos(u.data[0][i], "x");
  const short = runsOf(u.data[index]).filter(([first, last]) => pixel(last) - pixel(first) < DOT_PX);
  return short.flatMap(([first, last]) => [...Array(last - first + 1).keys()].map((i) => first + i));
}

/** One chart on the page, for as long as its element is there. */
class Chart {
  #target;
  #spec;
  #empty = el("p", { class: "no-readings", hidden: true }, "No readings in this time");
  #shown;
  #plot;

  constructor(target, spec) {
    this.#target = target;
    this.#spec = spec;
    new ResizeObserver((_, observer) => this.#fit(observer)).observe(target);
  }

  show(data) {
    const lines = this.#spec.lines.map((line) => ({ line, ...line.of(data) }));
    const values = lines.flatMap((one) => one.values);
    const top = values.reduce((a, b) => Math.max(a, b ?? 0), 0) || (this.#spec.least ?? 1);
    this.#shown = {
      since: Date.parse(data.since),
      until: Date.parse(data.until),
      high: this.#spec.top ?? Math.max(top * 1.15, this.#spec.least ?? 0),
      gaps: findGaps(this.#spec.lines, data),
    };
    const tables = lines.map((one) => withGaps(one, data));
    this.#plot ??= new window.uPlot(this.#options(), null, this.#target);
    this.#plot.setData(window.uPlot.join(tables, tables.map(() => [EXPAND, EXPAND])));
    this.#empty.hidden = values.length > 0;
    this.#describe(lines);
  }

  #describe(lines) {
    const { gaps } = this.#shown;
    const text = `${this.#spec.title}. ${lines.map((one) => this.#summary(one)).join("; ")}. ${describeGaps(gaps)}`;
    this.#target.setAttribute("role", "img");
    this.#target.setAttribute("aria-label", text);
    this.#target.dataset.gaps = gaps.length;
    this.#plot.ctx.canvas.textContent = text;
  }

  #summary({ line, values }) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return `${line.name}: no readings`;
    const highest = known.reduce((a, b) => Math.max(a, b));
    const { format } = this.#spec;
    return `${line.name}: now ${format(known.at(-1))}, highest ${format(highest)}`;
  }

  /** Follow the element's width; once it is gone from the page, give up what was taken for it. */
  #fit(observer) {
    if (!this.#target.isConnected) {
      observer.disconnect();
      this.#plot?.destroy();
    } else if (this.#target.clientWidth) {
      this.#plot?.setSize({ width: this.#target.clientWidth, height: HEIGHT });
    }
  }

  #options() {
    const { format, lines } = this.#spec;
    const readout = new Readout(lines, format, () => this.#shown);
    return {
      width: this.#target.clientWidth,
      height: HEIGHT,
      padding: PADDING,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "charts" } },
      scales: {
        x: { time: false, range: () => [this.#shown.since, this.#shown.until] },
        y: { range: () => [0, this.#shown.high] },
      },
      axes: [this.#timeAxis(), this.#valueAxis()],
      series: [{}, ...lines.map((_, i) => this.#series(i))],
      hooks: {
        init: [(u) => u.over.append(this.#empty, readout.element)],
        drawClear: [(u) => showBands(u.under, this.#shown)],
        setCursor: [(u) => readout.follow(u)],
      },
    };
  }

  #series(i) {
    const stroke = () => colour(`--line-${i + 1}`);
    const points = { show: false, filter: dotted, size: DOT_PX, width: 0, fill: stroke };
    return { stroke, width: LINE_PX, points };
  }

  #axis(options) {
    return {
      stroke: () => colour("--muted"),
      font: `12px ${getComputedStyle(document.body).fontFamily}`,
      grid: { stroke: () => colour("--grid"), width: 1 },
      ticks: { show: false },
      ...options,
    };
  }

  #timeAxis() {
    const ticks = (u) => {
      const most = Math.min(MOST_TICKS, Math.floor((u.width - AXIS_PX.values) / TICK_PX));
      return timeTicks(this.#shown.since, this.#shown.until, Math.max(1, most));
    };
    return this.#axis({
      size: AXIS_PX.time,
      gap: 8,
      splits: (u) => ticks(u).moments,
      values: (u) => ticks(u).texts,
    });
  }

  #valueAxis() {
    const { format } = this.#spec;
    return this.#axis({
      size: AXIS_PX.values,
      gap: 8,
      splits: () => valueTicks(this.#shown.high, this.#spec),
      values: (_, splits) => splits.map((value) => format(value)),
    });
  }
}

/**
 * Draw, or redraw in place, one chart. `data` has `since`, `until`, `step_seconds` and whatever the
 * lines' `of(data)` take their series from and `losses(data)` those of the ledger. A series has
 * `times`, `values`, and what the server knows of it: its `gaps`, the stamp of the `newest` reading,
 * the node's `status`, and after how many seconds it is silent (`silentAfter`).
 */
export function draw(target, spec, data) {
  if (!drawn.has(target)) drawn.set(target, new Chart(target, spec));
  drawn.get(target).show(data);
}

/** Calls back when the page turns light or dark: colours are baked into a drawing. */
export function onColourChange(callback) {
  DARK.addEventListener("change", callback);
}
