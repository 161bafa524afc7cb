// Every pair as a cell: rows read, columns are read. Drawn on a canvas, which stays quick with
// 40,000 cells; walked with the arrow keys, and each cell is spelled out beside it.

import { el } from "./dom.js";
import { number } from "./format.js";
import { sign, STATES } from "./states.js";
import { LOSS_OVER } from "./views.js";

const LABEL_AT = 13; // the least cell in which names stand beside the rows
const TEXT_AT = 34;
const LONGEST_LABEL = 150;
const WIDEST = 88;
const TALLEST = 34;
const RTT_STEPS = [20, 50, 100, 200, 400];
const LOSS_STEPS = [0, 1, 5, 20, 50];
const KEYS = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

function withoutNumber({ state, loss_percent: loss }) {
  if (state === "up") return ["--state-none", loss === null ? "" : "lost"];
  return [`--state-${state}`, sign(state)];
}

/** What a cell shows in each mode: a colour variable and a text. */
const MODES = {
  state: (view) => [`--state-${view.state}`, sign(view.state)],
  rtt: (view) => {
    if (view.rtt_nano === null || view.state === "unknown") return withoutNumber(view);
    const value = view.rtt_nano / 1e6;
    return [`--heat-${step(RTT_STEPS, value)}`, number(Math.round(value * (value < 10 ? 10 : 1)) / (value < 10 ? 10 : 1))];
  },
  loss: (view) => {
    if (view.loss_percent === null || view.state === "unknown") return withoutNumber(view);
    return [`--heat-${step(LOSS_STEPS, view.loss_percent)}`, `${number(Math.round(view.loss_percent))}`];
  },
};

const standing = (state) => [`--state-${state}`, `${state} ${sign(state)}`.trim()];
const NOT_READ = ["--track", "does not read"];
// What a cell without a number may show, whatever the mode.
const STANDINGS = [...STATES.filter((state) => state !== "up").map(standing), NOT_READ];

const LEGENDS = {
  state: [standing("up"), ...STANDINGS],
  rtt: [...RTT_STEPS.map((top, i) => [`--heat-${i}`, `to ${top} ms`]), ["--heat-5", "more"], ["--state-none", "last ping lost, or (empty) none sent"], ...STANDINGS],
  loss: [...LOSS_STEPS.map((top, i) => [`--heat-${i}`, i ? `to ${top} %` : "none"]), ["--heat-5", "more"], ["--state-none", `not known; a number is of ${LOSS_OVER}`], ...STANDINGS],
};

function step(steps, value) {
  const found = steps.findIndex((top) => value <= top);
  return found < 0 ? steps.length : found;
}

export class Matrix {
  /** `onChoose(from, to)` is called when a cell is chosen, `describe(from, to)` spells one out. */
  constructor({ onChoose, describe }) {
    this.mode = "rtt";
    this.names = [];
    this.views = new Map();
    this.active = [0, 1];
    this.onChoose = onChoose;
    this.describe = describe;
    this.canvas = el("canvas", {
      tabindex: "0",
      role: "application",
      "aria-roledescription": "matrix",
      "aria-label": "Matrix of all links. Arrow keys walk, Enter chooses.",
      "aria-describedby": "matrix-cell",
    });
    this.frame = el("div", { class: "matrix card scroll" }, this.canvas);
    this.readout = el("p", { id: "matrix-cell", class: "readout", role: "status" });
    this.legend = el("ul", { class: "legend squares" });
    this.element = el("div", {}, this.frame, this.legend, this.readout);
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.canvas.addEventListener("pointermove", (event) => this.#point(event, false));
    this.canvas.addEventListener("click", (event) => this.#point(event, true));
    this.canvas.addEventListener("focus", () => this.draw());
    this.canvas.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  /** Show the links among `names`. */
  show(names, links) {
    this.names = names;
    this.views = new Map();
    for (const link of links) {
      for (const view of [link.a_to_b, link.b_to_a]) {
        if (view) this.views.set(JSON.stringify([view.node_id, view.peer_id]), view);
      }
    }
    this.active = this.active.map((i) => Math.min(i, names.length - 1));
    this.draw();
    this.#read();
  }

  /** Mark the cell of a link that was chosen elsewhere. */
  select(from, to) {
    const [row, column] = [this.names.indexOf(from), this.names.indexOf(to)];
    if (row < 0 || column < 0) return;
    this.chosen = true;
    this.active = [row, column];
    this.draw();
    this.#read();
  }

  setMode(mode) {
    this.mode = mode;
    this.draw();
  }

  view(row, column) {
    return this.views.get(JSON.stringify([this.names[row], this.names[column]]));
  }

  #measure() {
    const count = Math.max(1, this.names.length);
    const room = this.frame.clientWidth - 2;
    const font = 12;
    const context = this.canvas.getContext("2d");
    context.font = this.#font(font);
    const longest = Math.max(...this.names.map((name) => context.measureText(name).width), 20);
    let label = Math.min(longest + 12, room * 0.34, LONGEST_LABEL);
    let width = Math.min(WIDEST, Math.floor((room - label) / count));
    if (width < LABEL_AT) {
      const least = count > 60 ? 5 : LABEL_AT;
      width = Math.max(least, Math.floor((room - (least < LABEL_AT ? 0 : label)) / count));
      if (width < LABEL_AT) label = 0;
    }
    const height = Math.min(TALLEST, Math.max(width, Math.min(16, width)));
    this.size = { label, width, height, top: label ? Math.min(label, 110) : 0, count };
  }

  #font(size) {
    return `${size}px ${getComputedStyle(document.body).fontFamily}`;
  }

  draw() {
    if (!this.names.length || !this.frame.clientWidth) return;
    this.#measure();
    const { label, width, height, top, count } = this.size;
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [label + width * count, top + height * count];
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(h * ratio);
    this.canvas.style.width = `${w}px`;
    this.canvas.style.height = `${h}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colours = new Map();
    const colour = (name) => {
      if (!colours.has(name)) colours.set(name, style.getPropertyValue(name).trim());
      return colours.get(name);
    };
    this.#cells(context, colour);
    if (label) this.#labels(context, colour);
    this.#mark(context, colour);
    this.#legend();
  }

  #cells(context, colour) {
    const { label, width, height, top, count } = this.size;
    const gap = width > 8 ? 1 : 0;
    context.font = this.#font(12);
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = 0; row < count; row += 1) {
      for (let column = 0; column < count; column += 1) {
        if (row === column) continue;
        const view = this.view(row, column);
        const [x, y] = [label + column * width, top + row * height];
        const [fill, text] = view ? MODES[this.mode](view) : ["--track", ""];
        context.fillStyle = colour(fill);
        context.fillRect(x, y, width - gap, height - gap);
        const isSign = !/\d/.test(text); // a number stands only where all numbers have room
        if (view && text && (width >= TEXT_AT || (isSign && text.length === 1 && width >= 11))) {
          context.fillStyle = colour(fill.replace("--", "--on-")) || colour("--text");
          context.fillText(text, x + width / 2, y + height / 2 + 0.5);
        }
      }
    }
  }

  #labels(context, colour) {
    const { label, width, height, top } = this.size;
    const room = (text, most) => {
      if (context.measureText(text).width <= most) return text;
      let cut = text;
      while (cut.length > 2 && context.measureText(`${cut}…`).width > most) cut = cut.slice(0, -1);
      return `${cut}…`;
    };
    context.fillStyle = colour("--muted");
    context.font = this.#font(Math.min(12, height));
    context.textAlign = "right";
    context.textBaseline = "middle";
    this.names.forEach((name, row) => {
      context.fillText(room(name, label - 8), label - 8, top + (row + 0.5) * height);
    });
    context.textAlign = "left";
    this.names.forEach((name, column) => {
      context.save();
      context.translate(label + (column + 0.5) * width, top - 6);
      context.rotate(-Math.PI / 2);
      context.fillText(room(name, top - 10), 0, 0);
      context.restore();
    });
  }

  #mark(context, colour) {
    const { label, width, height, top } = this.size;
    const [row, column] = this.active;
    if (document.activeElement !== this.canvas && !this.chosen) return;
    context.strokeStyle = colour("--text");
    context.lineWidth = 2;
    context.strokeRect(label + column * width, top + row * height, width - 1, height - 1);
  }

  #legend() {
    const shown = `${this.mode}`;
    if (this.legend.dataset.shown === shown) return;
    this.legend.dataset.shown = shown;
    this.legend.replaceChildren(
      ...LEGENDS[this.mode].map(([name, text]) => {
        const square = el("span", { class: "square", "aria-hidden": "true" });
        square.style.background = `var(${name})`;
        return el("li", {}, square, text);
      }),
    );
  }

  #read() {
    const [row, column] = this.active;
    const text = this.names.length > 1 ? this.describe(this.names[row], this.names[column]) : "";
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }

  #key(event) {
    const last = this.names.length - 1;
    let [row, column] = this.active;
    if (event.key in KEYS) {
      const [down, right] = KEYS[event.key];
      [row, column] = [row + down, column + right];
      if (row === column) [row, column] = [row + down, column + right];
    } else if (event.key === "Home") column = row === 0 ? 1 : 0;
    else if (event.key === "End") column = row === last ? last - 1 : last;
    else if (event.key === "Enter" || event.key === " ") this.#choose();
    else return;
    event.preventDefault();
    if (row < 0 || column < 0 || row > last || column > last) return;
    this.#go(row, column);
  }

  #go(row, column) {
    this.active = [row, column];
    this.draw();
    this.#read();
    const { label, width } = this.size;
    const x = label + column * width;
    const frame = this.frame;
    if (x < frame.scrollLeft || x + width > frame.scrollLeft + frame.clientWidth) frame.scrollLeft = x - frame.clientWidth / 2;
  }

  #point(event, isClick) {
    if (!this.size) return;
    const { label, width, height, top, count } = this.size;
    const column = Math.floor((event.offsetX - label) / width);
    const row = Math.floor((event.offsetY - top) / height);
    // Headings may be cut.
    const heading = row >= 0 && column < 0 ? row : row < 0 && column >= 0 ? column : -1;
    this.canvas.title = this.names[heading] ?? "";
    const isCell = row >= 0 && column >= 0 && row < count && column < count && row !== column;
    this.canvas.style.cursor = isCell && this.view(row, column) ? "pointer" : "default";
    if (!isCell) return;
    if (isClick) {
      this.chosen = true;
      this.active = [row, column];
      this.draw();
      this.#choose();
    }
    const text = this.describe(this.names[row], this.names[column]);
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }

  #choose() {
    const [row, column] = this.active;
    if (this.view(row, column) || this.view(column, row)) this.onChoose(this.names[row], this.names[column]);
  }
}
