// One directed view's numbers as people read them.

import { duration, NONE, number, percent, rate, secondsBetween } from "./format.js";

export const roundTripOf = (view) => (view?.rtt_nano == null ? NONE : `${number(view.rtt_nano / 1e6)} ms`);
/** Over what the loss is: how many those are is each node's own (`ping.loss_window`), and not on the wire. */
export const LOSS_OVER = "the latest pings";
export const lossOf = (view) => percent(view?.loss_percent);
export const receivedOf = (view) => rate(view?.rx_bytes_per_second);
export const sentOf = (view) => rate(view?.tx_bytes_per_second);

/** How long ago it is `now`, which is longer than when it was read. */
export function handshakeOf(view, now) {
  if (!view || view.handshake_age_seconds === null) return view?.state === "never" ? "never" : NONE;
  return `${duration(view.handshake_age_seconds + secondsBetween(view.measured_at, now))} ago`;
}

/** `other`'s view of `node` and back. */
export function viewsOf(link, node) {
  return link.a === node ? { mine: link.a_to_b, theirs: link.b_to_a } : { mine: link.b_to_a, theirs: link.a_to_b };
}

export const otherEnd = (link, node) => (link.a === node ? link.b : link.a);
