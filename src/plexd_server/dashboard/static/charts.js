// Line charts over time, drawn by Plotly in the page's own colours.

const GAP_FACTOR = 2.5;
const WINDOW = 3;
const NO_READINGS = {
  text: "No readings in this time",
  showarrow: false,
  xref: "paper",
  yref: "paper",
  x: 0.5,
  y: 0.5,
};
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** The median distance of the readings around number `i`: nodes may change how often they read. */
function usualAround(distances, i) {
  const near = distances.slice(Math.max(0, i - WINDOW), i + WINDOW + 1).sort((a, b) => a - b);
  return near[Math.floor(near.length / 2)];
}

/**
 * Times and values with a null wherever readings are missing, so that a gap is drawn as one. A
 * gap is a pause well beyond the usual distance of readings.
 */
export function withGaps(times, values, stepSeconds) {
  const moments = times.map((time) => Date.parse(time));
  const distances = moments.slice(1).map((moment, i) => moment - moments[i]);
  const isGap = (i) =>
    distances[i] > GAP_FACTOR * Math.max(usualAround(distances, i), stepSeconds * 1000);
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

function traces(lines, answer) {
  return lines.map((line, i) => ({
    ...withGaps(answer.times, answer.fields[line.field].avg, answer.step_seconds),
    name: line.name,
    type: "scatter",
    mode: answer.times.length === 1 ? "markers" : "lines",
    line: { color: colour(`--line-${i + 1}`), width: 2 },
    connectgaps: false,
    hovertemplate: `%{customdata}<extra>${line.name}</extra>`,
  }));
}

/** The least tick distance is a round one in units of 1024 when the values are bytes. */
function binaryStep(top) {
  const power = 1024 ** Math.floor(Math.log(Math.max(top, 1)) / Math.log(1024));
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 256, 512].map((step) => step * power);
  return steps.find((step) => top / step <= 4) ?? 1024 * power;
}

function layout(spec, answer, top) {
  const high = spec.top ?? Math.max(top * 1.15, spec.least ?? 0);
  const step = spec.binary ? binaryStep(high) : spec.step;
  const ticks = step && [...Array(Math.floor(high / step) + 1).keys()].map((i) => i * step);
  return {
    annotations: answer.times.length ? [] : [NO_READINGS],
    margin: { l: 68, r: 14, t: 8, b: 26 },
    height: 200,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: "inherit", size: 12, color: colour("--muted") },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--edge") },
    dragmode: false,
    xaxis: {
      type: "date",
      range: [new Date(answer.since), new Date(answer.until)],
      gridcolor: colour("--grid"),
      fixedrange: true,
      nticks: 6,
      tickformat: "%H:%M",
      hoverformat: "%H:%M:%S",
    },
    yaxis: {
      range: [0, high],
      gridcolor: colour("--grid"),
      zeroline: false,
      fixedrange: true,
      nticks: 5,
      ...(ticks && { tickvals: ticks, ticktext: ticks.map(spec.format) }),
    },
  };
}

function summary(spec, lines, answer) {
  const parts = lines.map((line) => {
    const values = answer.fields[line.field].avg.filter((value) => value !== null);
    if (!values.length) return `${line.name}: no readings`;
    const highest = values.reduce((a, b) => Math.max(a, b));
    return `${line.name}: now ${spec.format(values.at(-1))}, highest ${spec.format(highest)}`;
  });
  return `${spec.title}. ${parts.join("; ")}.`;
}

/** Draw, or redraw in place, one chart of `spec.lines` out of a series answer. */
export function draw(target, spec, answer) {
  const values = spec.lines.flatMap((line) => answer.fields[line.field].avg);
  const top = values.reduce((a, b) => Math.max(a, b ?? 0), 0);
  const data = traces(spec.lines, answer).map((trace) => ({
    ...trace,
    customdata: trace.y.map(spec.format),
  }));
  target.setAttribute("role", "img");
  target.setAttribute("aria-label", summary(spec, spec.lines, answer));
  return window.Plotly.react(target, data, layout(spec, answer, top || (spec.least ?? 1)), {
    displayModeBar: false,
    responsive: true,
  });
}

/** Calls back when the page turns light or dark: colours are baked into a drawing. */
export function onColourChange(callback) {
  DARK.addEventListener("change", callback);
}
