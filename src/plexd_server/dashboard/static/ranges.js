// The choice of how far back the charts go, kept in the page's address.

import { el } from "./dom.js";

const RANGES = { "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d" };

const YOUNG_MS = 12 * 60_000;
let usual = "1h";

export function chosenRange() {
  const wanted = new URLSearchParams(location.search).get("range");
  return wanted in RANGES ? wanted : usual;
}

/** Forget what was shown before: something else will be. */
export function startOver() {
  usual = "1h";
}

/** Look closer at what began only minutes ago, unless somebody chose; whether that is a change. */
export function fitRange(series) {
  const isYoung = ({ times, until }) => Date.parse(until) - Date.parse(times[0]) < YOUNG_MS;
  const found = series.filter((one) => one.times.length);
  if (!found.length || !found.every(isYoung)) return false;
  if (chosenRange() !== "1h" || location.search.includes("range=")) return false;
  usual = "15m";
  return true;
}

/** Buttons; `onChange` is called with the new range. */
export function rangePicker(onChange) {
  const buttons = Object.entries(RANGES).map(([value, text]) => {
    const pressed = String(value === chosenRange());
    const button = el("button", { type: "button", "aria-pressed": pressed, "data-range": value }, text);
    button.addEventListener("click", () => {
      const address = new URL(location.href);
      address.searchParams.set("range", value);
      history.replaceState(null, "", address);
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      onChange(value);
    });
    return button;
  });
  return el("div", { class: "ranges", role: "group", "aria-label": "Time range" }, buttons);
}
