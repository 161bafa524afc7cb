// Numbers and times as people read them.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const NAME_LETTERS = 24;
const NEVER = "0001-01-01T00:00:00Z";

export const NONE = "–";

/** Three significant digits, without an exponent. */
export function number(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  return value.toLocaleString("en", { maximumFractionDigits: size >= 100 ? 0 : size >= 10 ? 1 : 2 });
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

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < BINARY.length - 1) {
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

/** A round trip; the wire's -1 means the peer did not answer. */
export function roundTrip(nanoseconds) {
  return nanoseconds < 0 ? "no answer" : `${number(nanoseconds / 1e6)} ms`;
}

/** A name of any length, cut to what can stand in a picture. */
export function brief(name) {
  const letters = [...name];
  return letters.length > NAME_LETTERS ? `${letters.slice(0, NAME_LETTERS - 1).join("")}…` : name;
}

/** Text for Plotly, which reads some markup in it. */
export const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** A length of time in its two largest units. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** How long ago `then` was at `now`, both as the server wrote them. */
export function secondsBetween(then, now) {
  return (Date.parse(now) - Date.parse(then)) / 1000;
}

export function handshake(tunnel, now) {
  if (tunnel.last_handshake_time === NEVER) return "never";
  return `${duration(secondsBetween(tunnel.last_handshake_time, now))} ago`;
}

const STATUS_KINDS = { up: "good", silent: "bad", waiting: "idle" };

/** A word and a class for a node's status, as the server says it, and when it last reported. */
export function freshness({ status, received_at: receivedAt, now }) {
  const detail = receivedAt ? `last report ${duration(secondsBetween(receivedAt, now))} ago` : "no report yet";
  return { word: status, kind: STATUS_KINDS[status] ?? "idle", detail };
}
