// The states of views and links: how they are shown, and from better to worse.

import { el } from "./dom.js";
import { number } from "./format.js";

/** A badge's class and a sign that does not need colour. */
const SHOWN = {
  up: { kind: "good", sign: "" },
  idle: { kind: "idle", sign: "–" },
  unknown: { kind: "idle", sign: "?" },
  stale: { kind: "warn", sign: "…" },
  never: { kind: "warn", sign: "∅" },
  "one-way": { kind: "bad", sign: "→" },
  down: { kind: "bad", sign: "×" },
};

export const STATES = Object.keys(SHOWN);

export const severity = (state) => STATES.indexOf(state);

export const sign = (state) => SHOWN[state]?.sign ?? "?";

export function stateBadge(state) {
  return el("span", { class: `badge ${SHOWN[state]?.kind ?? "idle"}` }, state);
}

/** `10 up, 1 down`, worst last. */
export function countStates(counts) {
  return STATES.filter((state) => counts[state])
    .map((state) => `${number(counts[state])} ${state}`)
    .join(", ");
}

/** The badge of what does not exist. */
export function simulatedBadge() {
  return el("span", { class: "badge made-up", title: "made up by plexd-server simulate" }, "simulated");
}
