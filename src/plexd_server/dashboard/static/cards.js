// The frame of a chart.

import { el, named } from "./dom.js";

function legend(chart) {
  if (chart.lines.length < 2) return null;
  const entries = chart.lines.map((line, i) => el("li", { class: `line-${i + 1}` }, named(line.name)));
  return el("ul", { class: "legend", "aria-hidden": "true" }, entries);
}

/** A figure with the chart's title and legend, and the element to draw it in. */
export function chartCard(chart) {
  const target = el("div", { class: "chart" });
  const caption = el("figcaption", {}, el("h3", { title: chart.title }, chart.title), legend(chart));
  return { chart, target, figure: el("figure", { class: "card" }, caption, target) };
}
