// Round numbers and round local times for the axes of charts. Pure, but for the browser's time zone.

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1440;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, ...[1, 2, 7, 14].map((days) => days * DAY_MINUTES)];
const QUARTER = 15; // every zone is whole quarters of an hour off UTC
const TIME = { hour: "2-digit", minute: "2-digit" };
const DAY = { day: "numeric", month: "short" };
const ZONE = { timeZoneName: "short" };

const format = (options) => new Intl.DateTimeFormat("en-GB", options);

/** Up to this length of time, times are told apart by the clock, beyond by the day as well. */
export const isLong = (since, until) => until - since > 1.5 * DAY_MINUTES * MINUTE_MS;

/** Formats a moment, as exactly as a chart of that length can tell it, with the zone's name. */
export function momentFormat(since, until) {
  const written = format(isLong(since, until) ? { ...DAY, ...TIME, ...ZONE } : { ...TIME, second: "2-digit", ...ZONE });
  return (moment) => written.format(moment);
}

const dayOf = (date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / (DAY_MINUTES * MINUTE_MS);

/** Whether the local clock shows a multiple of `step` minutes; of whole days, as the day begins. */
function isRound(moment, step) {
  const date = new Date(moment);
  if (step < DAY_MINUTES) return (date.getHours() * 60 + date.getMinutes()) % step === 0;
  const day = dayOf(date);
  return day !== dayOf(new Date(moment - QUARTER * MINUTE_MS)) && day % (step / DAY_MINUTES) === 0;
}

/**
 * At most some `most` moments (milliseconds) from `since` to `until` at which the local clock is
 * round, and their texts. They are as far apart as time passes: where summer time begins or ends,
 * an hour of the clock is missing or there twice.
 */
export function timeTicks(since, until, most) {
  const minutes = (until - since) / MINUTE_MS;
  const step = STEPS.find((one) => minutes / one <= most) ?? STEPS.at(-1);
  const apart = Math.min(step, QUARTER) * MINUTE_MS;
  const moments = [];
  for (let moment = Math.ceil(since / apart) * apart; moment <= until; moment += apart) {
    if (isRound(moment, step)) moments.push(moment);
  }
  const written = format(isLong(since, until) ? DAY : TIME);
  return { moments, texts: moments.map((moment) => written.format(moment)) };
}

/** The distance of ticks is a round one in units of 1024 when the values are bytes. */
function binaryStep(high) {
  const power = 1024 ** Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024));
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 256, 512].map((step) => step * power);
  return steps.find((step) => high / step <= 4) ?? 1024 * power;
}

function decimalStep(high) {
  const power = 10 ** Math.floor(Math.log10(high || 1));
  return [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5].map((one) => one * power).find((one) => high / one <= 5);
}

/** Up to six round numbers from 0 to `high`, `step` apart if that is given. */
export function valueTicks(high, { binary, step }) {
  const apart = step ?? (binary ? binaryStep(high) : decimalStep(high));
  return [...Array(Math.floor(high / apart + 1e-9) + 1).keys()].map((i) => Number((i * apart).toPrecision(12)));
}
