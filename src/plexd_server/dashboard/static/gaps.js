// Where readings are missing, and what the ledger says about it.

import { counted } from "./format.js";
import { GAP_FACTOR, readingsOf, unansweredOf } from "./readings.js";

const NEAR_MS = 60_000; // ends that differ by less are the same moment, seen by two
const SILENT_SECONDS = 150; // as the server's least
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const KINDS = ["unanswered", "lost", "unread"]; // of which a gap of two ends shows the first
export const REASONS = {
  evicted: "lost on the node",
  rejected: "refused by this server",
  gap: "never came",
  ahead: "refused, as the node's clock was ahead",
  put_back: "unknown to the node, which was put back or copied",
};

function lossIn(losses, from, to) {
  return losses.filter(({ reason }) => reason !== "put_back").find((loss) => {
    const since = loss.since ? Date.parse(loss.since) : -Infinity;
    return since <= to - 1 && Date.parse(loss.until) >= from + 1;
  });
}

export function describeLoss(loss) {
  const least = loss.detail ? "at least " : "";
  const what = loss.points || !loss.detail ? `${least}${counted(loss.points, "point")}` : "an unknown number of points";
  const why = loss.detail ? ` (${loss.detail})` : "";
  return `${what} ${REASONS[loss.reason] ?? loss.reason}${why}`;
}

function explained({ from, to }, otherwise, losses, who) {
  const loss = lossIn(losses, from, to);
  const text = loss ? describeLoss(loss) : otherwise;
  return { from, to, kind: loss ? "lost" : "unread", said: [{ who, text }] };
}

/** From the latest reading up to now, if newer ones cannot be on their way any more. */
function openGap({ moments, last }, { newest, silentAfter = SILENT_SECONDS }, data) {
  const until = Date.parse(data.until);
  const from = newest ? Math.max(last, Date.parse(newest)) : last;
  // Where a bucket's newest reading is not known, it may be at the bucket's end.
  const most = newest ? silentAfter : Math.max(silentAfter, GAP_FACTOR * data.step_seconds);
  return until - from > most * 1000 ? { from, to: until } : null;
}

/** The gaps of one series within the drawn time, the one up to now included. */
function gapsOf(line, data) {
  const series = line.of(data);
  if (!series.times.length) return [];
  const losses = line.losses(data);
  const readings = readingsOf(series, data);
  const open = openGap(readings, series, data);
  const since = series.status === "up" ? "no reading since" : "no report since";
  const unread = readings.gaps.map((gap) => explained(gap, "not reported", losses, line.end));
  if (open) unread.push(explained(open, since, losses, line.end));
  if (!line.unanswered) return unread;
  const silent = unansweredOf(readings, series.values, open ? null : Date.parse(data.until));
  return [...unread, ...silent.map(({ text, ...gap }) => ({ ...gap, kind: "unanswered", said: [{ who: line.end, text }] }))];
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
