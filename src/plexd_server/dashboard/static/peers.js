// What a node says about its peers: tunnel and latency points joined by peer.

import { el } from "./dom.js";
import { bytes, handshake, NONE, percent, roundTrip } from "./format.js";

const COLUMNS = ["Peer", "Handshake", "Round trip", "Loss", "Received", "Sent"];

function joined(latest) {
  const peers = new Map();
  for (const point of latest.points) {
    if (!point.peer_id) continue;
    const entry = peers.get(point.peer_id) ?? {};
    peers.set(point.peer_id, { ...entry, [point.group]: point.data });
  }
  return [...peers].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

function cell(label, text, kind = null) {
  const content = kind ? el("span", { class: `badge ${kind}` }, text) : text;
  return el("td", { "data-label": label }, content);
}

function handshakeCell(tunnel, now) {
  if (!tunnel) return cell("Handshake", NONE);
  const kind = tunnel.handshake_stale || !tunnel.handshake_succeeded ? "bad" : "good";
  return cell("Handshake", handshake(tunnel, now), kind);
}

function lossCell(tunnel) {
  const loss = tunnel?.packet_loss_percent ?? -1;
  return cell("Loss", loss < 0 ? NONE : percent(loss), loss >= 5 ? "bad" : null);
}

function row([peer, { tunnel, latency }], now) {
  const rtt = latency?.rtt_nano;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, peer),
    handshakeCell(tunnel, now),
    cell("Round trip", rtt === undefined ? NONE : roundTrip(rtt), rtt < 0 ? "bad" : null),
    lossCell(tunnel),
    cell("Received", bytes(tunnel?.rx_bytes)),
    cell("Sent", bytes(tunnel?.tx_bytes)),
  );
}

/** The table, or null for a node without peers. */
export function peersTable(latest) {
  const peers = joined(latest);
  if (!peers.length) return null;
  const head = el("tr", {}, COLUMNS.map((name) => el("th", { scope: "col" }, name)));
  const body = peers.map((peer) => row(peer, latest.now));
  const caption = el("caption", { class: "hidden" }, "Peers and the state of their tunnels");
  const table = el("table", {}, caption, el("thead", {}, head), el("tbody", {}, body));
  return el("div", { class: "card scroll" }, table);
}
