// A line of a few numbers, small enough for a table's cell.

const WIDTH = 96;
const HEIGHT = 22;
const SVG = "http://www.w3.org/2000/svg";

/** Runs of neighbours that are there: a number that is missing breaks the line. */
function runs(values) {
  const found = [];
  values.forEach((value, i) => {
    if (value === null) return;
    if (i === 0 || values[i - 1] === null) found.push([]);
    found.at(-1).push([i, value]);
  });
  return found;
}

/** An SVG of `values` between 0 and `top`; decoration, as the number stands beside it. */
export function sparkline(values, top) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  const x = (i) => (1 + (i * (WIDTH - 2)) / Math.max(1, values.length - 1)).toFixed(1);
  const y = (value) => (HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 4)).toFixed(1);
  for (const run of runs(values)) {
    const line = document.createElementNS(SVG, "polyline");
    const points = run.length > 1 ? run : [run[0], [run[0][0] + 0.3, run[0][1]]];
    line.setAttribute("points", points.map(([i, value]) => `${x(i)},${y(value)}`).join(" "));
    svg.append(line);
  }
  return svg;
}
