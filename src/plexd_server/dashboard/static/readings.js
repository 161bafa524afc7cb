// The readings of a series: where some are missing, and where none was an answer.

export const GAP_FACTOR = 2.5;
const WINDOW = 3;
const UNANSWERED_MS = 120_000; // single pings are lost on the best of links

/** Finds gaps without the server's help: distances well beyond the usual one. */
function usualDistance(moments, stepSeconds) {
  const distances = moments.slice(1).map((moment, i) => moment - moments[i]);
  const usual = (i) => {
    const near = distances.slice(Math.max(0, i - WINDOW), i + WINDOW + 1).sort((a, b) => a - b);
    return near[Math.floor(near.length / 2)];
  };
  const isGap = (i) => distances[i] > GAP_FACTOR * Math.max(usual(i), stepSeconds * 1000);
  return (i) => (isGap(i) ? { from: moments[i], to: moments[i + 1] } : undefined);
}

/** Finds the server's gap between two moments, which are the starts of the buckets around it. */
function reported(moments, gaps) {
  const known = gaps.map(({ since, until }) => ({ from: Date.parse(since), to: Date.parse(until) }));
  return (i) => known.find(({ from, to }) => moments[i] <= from && from < moments[i + 1] && moments[i + 1] <= to);
}

/**
 * The `moments` of a series, the `last` of them, the gaps, and `after(i)`, the gap after the i-th
 * moment, if there is one. The server knows the readings, where a series only has buckets: a gap
 * that is shorter than some of them is among its `gaps`.
 */
export function readingsOf({ times, gaps }, { since, step_seconds: stepSeconds }) {
  const moments = times.map((time) => Date.parse(time));
  const after = gaps ? reported(moments, gaps) : usualDistance(moments, stepSeconds);
  const first = gaps?.[0];
  const before = first && Date.parse(first.since) < moments[0] ? [{ from: Date.parse(since), to: Date.parse(first.until) }] : [];
  const between = moments.map((_, i) => after(i)).filter(Boolean);
  return { moments, last: moments.at(-1), after, gaps: [...before, ...between] };
}

/** Moments and values as a table for a plot, with a null in each gap, so that it is drawn as one. */
export function withGaps(series, data) {
  const { moments, after } = readingsOf(series, data);
  const table = [[], []];
  moments.forEach((moment, i) => {
    table[0].push(moment);
    table[1].push(series.values[i]);
    if (after(i)) {
      table[0].push(moment + 1);
      table[1].push(null);
    }
  });
  return table;
}

/** Of readings without a gap between them, the times when none was an answer for long; `end` is now. */
function unanswered(readings, end = null) {
  const found = [];
  let from = readings[0].moment; // the latest answer
  let lost = null; // the first ping since that had none
  const add = (to, text) => {
    if (to - lost >= UNANSWERED_MS) found.push({ from, to, text });
  };
  for (const { moment, value } of readings) {
    if (value === null) {
      lost ??= moment;
    } else {
      if (lost !== null) add(moment, "no answer");
      [from, lost] = [moment, null];
    }
  }
  if (lost !== null && end) add(end, "no answer since");
  else if (lost !== null) add(readings.at(-1).moment, "no answer");
  return found;
}

/** The times when what was read was no answer; `until` is now, unless the readings end before. */
export function unansweredOf({ moments, after }, values, until) {
  const stretches = [[]];
  moments.forEach((moment, i) => {
    stretches.at(-1).push({ moment, value: values[i] });
    if (after(i)) stretches.push([]);
  });
  return stretches.flatMap((some) => unanswered(some, some === stretches.at(-1) ? until : null));
}
