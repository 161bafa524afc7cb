// Line charts over time, drawn by Plotly in the page's own colours, with gaps that say why.

import { brief, escaped } from "./format.js";
import { describeGaps, findGaps, sayings, usualDistance } from "./gaps.js";

const NO_READINGS = {
  text: "No readings in this time",
  showarrow: false,
  xref: "paper",
  yref: "paper",
  x: 0.5,
  y: 0.5,
};
const DARK = matchMedia("(prefers-color-scheme: dark)");
const DAY_MS = 86_400_000;
const MARGIN = { l: 68, r: 14, t: 14, b: 32 };
const HEIGHT = 206;
const LABEL_SIZE = 11;
const LABEL_LINE = 14;
const RULER = document.createElement("canvas").getContext("2d");

/** Times and values with a null wherever readings are missing, so that a gap is drawn as one. */
export function withGaps(times, values, stepSeconds) {
  const moments = times.map((time) => Date.parse(time));
  const isGap = usualDistance(moments, stepSeconds);
  const x = [];
  const y = [];
  moments.forEach((moment, i) => {
    if (i > 0 && isGap(i - 1)) {
      x.push(new Date(moments[i - 1] + 1));
      y.push(null);
    }
    x.push(new Date(moment));
    y.push(values[i]);
  });
  return { x, y };
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function traces(spec, data) {
  return spec.lines.map((line, i) => {
    const { times, values } = line.of(data);
    const drawn = withGaps(times, values, data.step_seconds);
    return {
      ...drawn,
      // Whole, as Plotly would put a space before the colon, and read names as templates.
      customdata: drawn.y.map((value) => escaped(`${brief(line.name)}: ${spec.format(value)}`)),
      type: "scatter",
      mode: times.length === 1 ? "markers" : "lines",
      line: { color: colour(`--line-${i + 1}`), width: 2 },
      connectgaps: false,
      hovertemplate: "%{customdata}<extra></extra>",
    };
  });
}

/** The least tick distance is a round one in units of 1024 when the values are bytes. */
function binaryStep(top) {
  const power = 1024 ** Math.floor(Math.log(Math.max(top, 1)) / Math.log(1024));
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 256, 512].map((step) => step * power);
  return steps.find((step) => top / step <= 4) ?? 1024 * power;
}

function shade(gap) {
  return {
    type: "rect",
    xref: "x",
    yref: "paper",
    x0: new Date(gap.from),
    x1: new Date(gap.to),
    y0: 0,
    y1: 1,
    layer: "below",
    line: { width: 0 },
    fillcolor: colour(gap.known ? "--lost" : "--gap"),
  };
}

/** How a text of these lines fits into a band: level, upright or (null) not at all. */
function angle(lines, wide, high) {
  RULER.font = `${LABEL_SIZE}px ${getComputedStyle(document.body).fontFamily}`;
  const long = Math.max(...lines.map((line) => RULER.measureText(line).width)) + 8;
  const thick = lines.length * LABEL_LINE;
  if (long <= wide && thick <= high) return 0;
  return thick <= wide && long <= high ? -90 : null;
}

/** A gap's reason within its band, in one line or more; where it has no room, dots that tell it. */
function label(gap, data, width) {
  const share = (gap.to - gap.from) / (Date.parse(data.until) - Date.parse(data.since));
  const [wide, high] = [share * (width - MARGIN.l - MARGIN.r), HEIGHT - MARGIN.t - MARGIN.b];
  const said = gap.said.map(({ who, text }) => ({ who: who && brief(who), text }));
  const whole = sayings({ said });
  const broken = said.flatMap(({ who, text }) => (who ? [`${who}:`, text] : [text]));
  const ways = [[whole.join(", ")], whole, broken];
  const lines = ways.find((way) => angle(way, wide, high) === 0) ?? ways.find((way) => angle(way, wide, high) !== null);
  if (!lines && wide < LABEL_LINE) return null;
  return {
    text: lines ? lines.map(escaped).join("<br>") : "⋯",
    hovertext: lines ? "" : sayings(gap).map(escaped).join("<br>"),
    showarrow: false,
    xref: "x",
    yref: "paper",
    x: new Date((gap.from + gap.to) / 2),
    y: 0.5,
    textangle: lines ? angle(lines, wide, high) : 0,
    font: { size: LABEL_SIZE, color: colour("--muted") },
  };
}

function layout(spec, data, top, gaps, width) {
  const high = spec.top ?? Math.max(top * 1.15, spec.least ?? 0);
  const step = spec.binary ? binaryStep(high) : spec.step;
  const ticks = step && [...Array(Math.floor(high / step) + 1).keys()].map((i) => i * step);
  const days = Date.parse(data.until) - Date.parse(data.since) > 1.5 * DAY_MS;
  const isEmpty = spec.lines.every((line) => !line.of(data).times.length);
  return {
    annotations: isEmpty ? [NO_READINGS] : gaps.map((gap) => label(gap, data, width)).filter(Boolean),
    shapes: gaps.map(shade),
    margin: MARGIN,
    height: HEIGHT,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: "inherit", size: 12, color: colour("--muted") },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--edge") },
    dragmode: false,
    xaxis: {
      type: "date",
      range: [new Date(data.since), new Date(data.until)],
      gridcolor: colour("--grid"),
      fixedrange: true,
      nticks: 6,
      ticklabelstandoff: 6,
      tickformat: days ? "%d %b" : "%H:%M",
      hoverformat: days ? "%d %b %H:%M" : "%H:%M:%S",
    },
    yaxis: {
      range: [0, high],
      gridcolor: colour("--grid"),
      zeroline: false,
      fixedrange: true,
      nticks: 5,
      ...(ticks
        ? { tickvals: ticks, ticktext: ticks.map(spec.format) }
        : { tickvals: roundTicks(high), ticktext: roundTicks(high).map(spec.format) }),
    },
  };
}

/** Four or five round numbers up to `high`. */
function roundTicks(high) {
  const power = 10 ** Math.floor(Math.log10(high || 1));
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5].map((one) => one * power).find((one) => high / one <= 5);
  return [...Array(Math.floor(high / step + 1e-9) + 1).keys()].map((i) => Number((i * step).toPrecision(6)));
}

function summary(spec, data, gaps) {
  const parts = spec.lines.map((line) => {
    const values = line.of(data).values.filter((value) => value !== null);
    if (!values.length) return `${line.name}: no readings`;
    const highest = values.reduce((a, b) => Math.max(a, b));
    return `${line.name}: now ${spec.format(values.at(-1))}, highest ${spec.format(highest)}`;
  });
  return `${spec.title}. ${parts.join("; ")}. ${describeGaps(gaps)}`;
}

/**
 * Draw, or redraw in place, one chart. `data` has `since`, `until`, `step_seconds` and whatever the
 * lines' `of(data)` take their `{times, values}` from and `losses(data)` those of the ledger.
 */
export function draw(target, spec, data) {
  const values = spec.lines.flatMap((line) => line.of(data).values);
  const top = values.reduce((a, b) => Math.max(a, b ?? 0), 0);
  const gaps = findGaps(spec.lines, data);
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", summary(spec, data, gaps));
  target.dataset.gaps = gaps.length;
  return window.Plotly.react(
    target,
    traces(spec, data),
    layout(spec, data, top || (spec.least ?? 1), gaps, target.clientWidth),
    { displayModeBar: false, responsive: true },
  );
}

/** Calls back when the page turns light or dark: colours are baked into a drawing. */
export function onColourChange(callback) {
  DARK.addEventListener("change", callback);
}
