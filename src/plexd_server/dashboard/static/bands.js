// The gaps of a chart as bands behind its lines, each with its reason where there is room for it.

import { el } from "./dom.js";
import { brief } from "./format.js";
import { sayings } from "./gaps.js";

const LINE_PX = 14; // of text, as in the style sheet
const RULER = document.createElement("canvas").getContext("2d");

/** How a text of these lines fits into a band: level, upright or (null) not at all. */
function direction(lines, wide, high) {
  RULER.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const long = Math.max(...lines.map((line) => RULER.measureText(line).width)) + 8;
  const thick = lines.length * LINE_PX;
  if (long <= wide && thick <= high) return "level";
  return thick <= wide && long <= high ? "upright" : null;
}

/** A gap's reason in one line or more; where it has no room, dots that the readout spells out. */
function label(gap, wide, high) {
  const said = gap.said.map(({ who, text }) => ({ who: who && brief(who), text }));
  const whole = sayings({ said });
  const broken = said.flatMap(({ who, text }) => (who ? [`${who}:`, text] : [text]));
  const ways = [[whole.join(", ")], whole, broken];
  for (const wanted of ["level", "upright"]) {
    const lines = ways.find((way) => direction(way, wide, high) === wanted);
    if (lines) return el("span", { class: `reason ${wanted}` }, lines.join("\n"));
  }
  return wide < LINE_PX ? null : el("span", { class: "reason level" }, "⋯");
}

function band(gap, { since, until }, { clientWidth, clientHeight }) {
  const share = (moment) => (moment - since) / (until - since);
  const [left, width] = [Math.max(0, share(gap.from)), share(gap.to) - Math.max(0, share(gap.from))];
  const text = label(gap, width * clientWidth, clientHeight);
  const element = el("div", { class: `gap ${gap.kind}` }, text);
  element.style.left = `${100 * left}%`;
  element.style.width = `${100 * width}%`;
  return element;
}

/** Put the bands of what is `shown` (`gaps`, `since`, `until`) into the area under the lines. */
export function showBands(area, shown) {
  area.replaceChildren(...shown.gaps.map((gap) => band(gap, shown, area)));
}
