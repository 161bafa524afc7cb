// Numbers and times as people read them.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const NAME_LETTERS = 24;

export const NONE = "–";

/** How many decimals make three significant digits. */
function decimals(value) {
  const size = Math.abs(value);
  return size >= 100 ? 0 : size >= 10 ? 1 : 2;
}

/** Three significant digits, without an exponent. */
export function number(value) {
  if (value === null || value === undefined) return NONE;
  return value.toLocaleString("en", { maximumFractionDigits: decimals(value) });
}

/** A load average, always with two decimals, as every tool shows it. */
export function load(value) {
  return value === null || value === undefined ? NONE : value.toFixed(2);
}

/** How many of what, as in "1 link" and "12 links". */
export function counted(count, noun, nouns = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : nouns}`;
}

export function percent(value) {
  return value === null || value === undefined ? NONE : `${number(value)} %`;
}

/** In the largest unit of which it is one or more once it is rounded. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  let rest = value;
  while (Number(rest.toFixed(decimals(rest))) >= 1024 && unit < BINARY.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${number(rest)} ${BINARY[unit]}`;
}

export function rate(value) {
  return value === null || value === undefined ? NONE : `${bytes(value)}/s`;
}

/** A share of a total in percent; 0 of nothing. */
export function share(used, total) {
  return total > 0 ? (100 * used) / total : 0;
}

/** A name of any length, cut to what can stand in a picture. */
export function brief(name) {
  const letters = [...name];
  return letters.length > NAME_LETTERS ? `${letters.slice(0, NAME_LETTERS - 1).join("")}…` : name;
}

/** So many of one unit, which is `each` of a smaller one, and what is left of that. */
function twoUnits(count, [large, each, small]) {
  const rest = count % each;
  return `${Math.floor(count / each)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

/** A length of time in its two largest units, rounded to the smaller one. */
export function duration(seconds) {
  const [whole, minutes, hours] = [1, 60, 3600].map((unit) => Math.max(0, Math.round(seconds / unit)));
  if (whole < 60) return `${whole} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 1440) return twoUnits(minutes, ["h", 60, "min"]);
  return twoUnits(hours, ["d", 24, "h"]);
}

/** How long ago `then` was at `now`, both as the server wrote them. */
export function secondsBetween(then, now) {
  return (Date.parse(now) - Date.parse(then)) / 1000;
}

const STATUS_KINDS = { up: "good", silent: "bad", waiting: "idle" };

/** A word and a class for a node's status, as the server says it, and when it last reported. */
export function freshness({ status, received_at: receivedAt, now }) {
  const detail = receivedAt ? `last report ${duration(secondsBetween(receivedAt, now))} ago` : "no report yet";
  return { word: status, kind: STATUS_KINDS[status] ?? "idle", detail };
}
