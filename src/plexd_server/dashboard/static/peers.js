// A node's peers: what it reads of each, and what they read of it.

import { el, named } from "./dom.js";
import { percent } from "./format.js";
import { severity, stateBadge } from "./states.js";
import { SortedTable } from "./table.js";
import { handshakeOf, LOSS_OVER, lossOf, otherEnd, receivedOf, roundTripOf, sentOf, viewsOf } from "./views.js";

function peerCell(row) {
  return el("a", { href: `/mesh#${encodeURIComponent(row.link.id)}`, title: "the link's history" }, named(row.id));
}

function stateCell({ mine, link }) {
  const reason = link.silence || mine.reason;
  return el("div", { class: "state" }, stateBadge(mine.state), el("small", {}, reason));
}

/** Its own loss, and the other end's where that is another. */
function lossCell({ mine, theirs }) {
  if (theirs?.loss_percent == null || theirs.loss_percent === mine.loss_percent) return lossOf(mine);
  return [lossOf(mine), el("small", {}, `${percent(theirs.loss_percent)} at the peer`)];
}

const COLUMNS = [
  { name: "Peer", key: (row) => row.id, cell: peerCell },
  { name: "State", key: ({ mine }) => severity(mine.state), cell: stateCell, first: "descending" },
  { name: "Round trip", key: ({ mine }) => mine.rtt_nano, cell: ({ mine }) => roundTripOf(mine), first: "descending" },
  { name: "Loss", hint: `of ${LOSS_OVER}`, key: ({ mine }) => mine.loss_percent, cell: lossCell, first: "descending" },
  { name: "Handshake", key: ({ mine }) => mine.handshake_age_seconds, cell: ({ mine, now }) => handshakeOf(mine, now), first: "descending" },
  { name: "Received", key: ({ mine }) => mine.rx_bytes_per_second, cell: ({ mine }) => receivedOf(mine), first: "descending" },
  { name: "Sent", key: ({ mine }) => mine.tx_bytes_per_second, cell: ({ mine }) => sentOf(mine), first: "descending" },
];

export function peersTable() {
  return new SortedTable({
    caption: "Peers and the state of their tunnels",
    columns: COLUMNS,
    sort: { column: "State", direction: "descending" },
    kind: "peers",
  });
}

/** The rows of a peers answer, for those the node itself reads. */
export function peerRows(answer) {
  return answer.links
    .map((link) => ({ id: otherEnd(link, answer.node_id), link, now: answer.now, ...viewsOf(link, answer.node_id) }))
    .filter((row) => row.mine);
}

