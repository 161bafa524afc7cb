// Where readings are missing, and what the ledger says about it.

import { counted } from "./format.js";

const GAP_FACTOR = 2.5;
const WINDOW = 3;
const NEAR_MS = 60_000; // ends that differ by less are the same moment, seen by two
const UNANSWERED_MS = 120_000; // single pings are lost on the best of links
const REPORT_MS = 150_000; // what is newer may still be on its way
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const KINDS = ["unanswered", "lost", "unread"]; // of which a gap of two ends shows the first
export const REASONS = {
  evicted: "lost on the node",
  rejected: "refused by this server",
  gap: "batches that never came",
};

/** Says of each distance between neighbours whether it is a gap: well beyond the usual one. */
function usualDistance(moments, stepSeconds) {
  const distances = moments.slice(1).map((moment, i) => moment - moments[i]);
  const usual = (i) => {
    const near = distances.slice(Math.max(0, i - WINDOW), i + WINDOW + 1).sort((a, b) => a - b);
    return near[Math.floor(near.length / 2)];
  };
  return (i) => distances[i] > GAP_FACTOR * Math.max(usual(i), stepSeconds * 1000);
}

/** Moments and values as a table for a plot, with a null in each gap, so that it is drawn as one. */
export function withGaps(times, values, stepSeconds) {
  const moments = times.map((time) => Date.parse(time));
  const isGap = usualDistance(moments, stepSeconds);
  const table = [[], []];
  moments.forEach((moment, i) => {
    if (i > 0 && isGap(i - 1)) {
      table[0].push(moments[i - 1] + 1);
      table[1].push(null);
    }
    table[0].push(moment);
    table[1].push(values[i]);
  });
  return table;
}

function lossIn(losses, from, to) {
  return losses.find((loss) => {
    const since = loss.since ? Date.parse(loss.since) : -Infinity;
    return since <= to - 1 && Date.parse(loss.until) >= from + 1;
  });
}

export function describeLoss(loss) {
  const what = loss.points ? counted(loss.points, "point") : counted(loss.batches, "batch", "batches");
  return loss.reason === "gap" ? `${what} never came` : `${what} ${REASONS[loss.reason] ?? loss.reason}`;
}

function explained(from, to, isOpen, losses, who) {
  const loss = lossIn(losses, from, to);
  const text = loss ? describeLoss(loss) : isOpen ? "no report since" : "not reported";
  return { from, to, kind: loss ? "lost" : "unread", said: [{ who, text }] };
}

/** Of readings without a gap between them, those that had no answer for long. */
function unanswered(readings, end, who) {
  const found = [];
  let from = readings[0].moment; // the latest answer
  let lost = null; // the first ping since that had none
  const add = (to, text) => {
    if (to - lost >= UNANSWERED_MS) found.push({ from, to, kind: "unanswered", said: [{ who, text }] });
  };
  for (const { moment, value } of readings) {
    if (value === null) {
      lost ??= moment;
    } else {
      if (lost !== null) add(moment, "no answer");
      [from, lost] = [moment, null];
    }
  }
  if (lost !== null) add(end, "no answer since");
  return found;
}

/** The readings of a line up to each gap, and what explains the gap; the last may have none. */
function stretches(line, data) {
  const { times, values } = line.of(data);
  const readings = times.map((time, i) => ({ moment: Date.parse(time), value: values[i] }));
  const isGap = usualDistance(readings.map(({ moment }) => moment), data.step_seconds);
  const found = [{ readings: [] }];
  readings.forEach((reading, i) => {
    found.at(-1).readings.push(reading);
    if (i + 1 < readings.length && isGap(i)) {
      found.at(-1).gap = { from: reading.moment, to: readings[i + 1].moment, isOpen: false };
      found.push({ readings: [] });
    }
  });
  const [last, until] = [readings.at(-1)?.moment, Date.parse(data.until)];
  if (until - last > Math.max(REPORT_MS, GAP_FACTOR * data.step_seconds * 1000)) {
    found.at(-1).gap = { from: last, to: until, isOpen: true };
  }
  return readings.length ? found : [];
}

/** The gaps of one series within the drawn time, the one up to now included. */
function gapsOf(line, data) {
  const losses = line.losses(data);
  return stretches(line, data).flatMap(({ readings, gap }) => {
    const end = gap ? readings.at(-1).moment : Date.parse(data.until);
    const lost = line.unanswered ? unanswered(readings, end, line.end) : [];
    return gap ? [...lost, explained(gap.from, gap.to, gap.isOpen, losses, line.end)] : lost;
  });
}

/** Have gaps of two ends that overlap begin and end together where they nearly do. */
function align(ones, others, near) {
  for (const one of ones) {
    for (const other of others.filter(({ from, to }) => from < one.to && to > one.from)) {
      const slack = Math.min(near, (one.to - one.from) / 4, (other.to - other.from) / 4);
      if (Math.abs(other.from - one.from) <= slack) other.from = one.from;
      if (Math.abs(other.to - one.to) <= slack) other.to = one.to;
    }
  }
}

function joined(from, to, [first, second]) {
  if (!second) return { ...first, from, to };
  const isSame = first.said[0].text === second.said[0].text;
  const said = isSame ? [{ ...first.said[0], who: "both" }] : [...first.said, ...second.said];
  return { from, to, kind: KINDS.find((kind) => [first.kind, second.kind].includes(kind)), said };
}

/** Of two ends' gaps a row of gaps that do not overlap, each of one end or of both. */
function merge(ones, others) {
  const all = [...ones, ...others];
  const edges = [...new Set(all.flatMap(({ from, to }) => [from, to]))].sort((a, b) => a - b);
  return edges.slice(1).flatMap((to, i) => {
    const open = all.filter((gap) => gap.from <= edges[i] && gap.to >= to);
    return open.length ? [joined(edges[i], to, open)] : [];
  });
}

/**
 * The gaps of a chart, in order and without overlap. Lines have the same readings and thus the same
 * gaps, unless each is of one `end`, which its gaps then name.
 */
export function findGaps(lines, data) {
  const [ones, others] = lines.map((line) => gapsOf(line, data));
  if (!lines[0].end) return ones;
  align(ones, others, Math.max(NEAR_MS, 2000 * data.step_seconds));
  return merge(ones, others);
}

/** What a gap says, each on its own: `rome: not reported`. */
export const sayings = (gap) => gap.said.map(({ who, text }) => (who ? `${who}: ${text}` : text));

export function describeGaps(gaps) {
  if (!gaps.length) return "";
  const said = gaps.map((gap) => `${TIME.format(gap.from)} to ${TIME.format(gap.to)}: ${sayings(gap).join(", ")}`);
  return `${gaps.length === 1 ? "One gap" : `${gaps.length} gaps`}: ${said.join("; ")}.`;
}
