// Where readings are missing, and what the ledger says about it.

import { counted } from "./format.js";

const GAP_FACTOR = 2.5;
const WINDOW = 3;
const REPORT_MS = 150_000; // what is newer may still be on its way
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
export const REASONS = {
  evicted: "lost on the node",
  rejected: "refused by this server",
  gap: "batches that never came",
};

/** Tells of each distance between neighbours whether it is a gap: well beyond the usual one. */
export function usualDistance(moments, stepSeconds) {
  const distances = moments.slice(1).map((moment, i) => moment - moments[i]);
  const usual = (i) => {
    const near = distances.slice(Math.max(0, i - WINDOW), i + WINDOW + 1).sort((a, b) => a - b);
    return near[Math.floor(near.length / 2)];
  };
  return (i) => distances[i] > GAP_FACTOR * Math.max(usual(i), stepSeconds * 1000);
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

function explained(from, to, isOpen, losses) {
  const loss = lossIn(losses, from, to);
  if (loss) return { from, to, known: true, text: describeLoss(loss) };
  return { from, to, known: false, text: isOpen ? "no report since" : "not reported" };
}

/** The gaps of one series within the drawn time, the one up to now included. */
function gapsOf({ times }, data, losses) {
  const moments = times.map((time) => Date.parse(time));
  if (!moments.length) return [];
  const isGap = usualDistance(moments, data.step_seconds);
  const found = [];
  moments.slice(1).forEach((moment, i) => {
    if (isGap(i)) found.push(explained(moments[i], moment, false, losses));
  });
  const until = Date.parse(data.until);
  const last = moments.at(-1);
  if (until - last > Math.max(REPORT_MS, GAP_FACTOR * data.step_seconds * 1000)) {
    found.push(explained(last, until, true, losses));
  }
  return found;
}

/** The gaps of all series, each once. */
export function findGaps(series, data, losses) {
  const found = new Map();
  for (const one of series) {
    for (const gap of gapsOf(one, data, losses)) found.set(`${gap.from} ${gap.to}`, gap);
  }
  return [...found.values()].sort((a, b) => a.from - b.from);
}

export function describeGaps(gaps) {
  if (!gaps.length) return "";
  const said = gaps.map((gap) => `${TIME.format(gap.from)} to ${TIME.format(gap.to)}: ${gap.text}`);
  return `${gaps.length === 1 ? "One gap" : `${gaps.length} gaps`}: ${said.join("; ")}.`;
}
