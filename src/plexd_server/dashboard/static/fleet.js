// The start page: what to look at, and every node with its freshness and newest numbers.

import { alertList } from "./alerts.js";
import { getJSON, keepFresh } from "./api.js";
import { el, emptyState, meter } from "./dom.js";
import { bytes, duration, load, NONE, number, percent, secondsBetween, share } from "./format.js";
import { sparkline } from "./spark.js";
import { countStates, simulatedBadge } from "./states.js";
import { SortedTable } from "./table.js";

const REFRESH_SECONDS = 5;
const KINDS = { up: "good", silent: "bad", waiting: "idle" };
const RANK = { silent: 0, up: 1, waiting: 2 };

const fleet = document.getElementById("fleet");
let now = "";
let parts = null;

const memoryShare = ({ system }) => system && share(system.memory_used_bytes, system.memory_total_bytes);
const diskShare = ({ system }) => system && share(system.disk_used_bytes, system.disk_total_bytes);
const badPeers = ({ peers }) => (peers.down ?? 0) + (peers["one-way"] ?? 0) + (peers.never ?? 0);

function nameCell(node) {
  const link = el("a", { href: `/nodes/${encodeURIComponent(node.node_id)}` }, node.node_id);
  const below = [node.mesh_ip || null, node.simulated ? simulatedBadge() : null].filter(Boolean);
  return [link, el("small", { class: "below" }, below)];
}

function cpuCell({ status, system, cpu_history: minutes }) {
  if (!system) return NONE;
  // The picture of the last minute may lag: the line ends in the number beside it.
  const history = status === "up" ? [...minutes.slice(0, -1), system.cpu_usage_percent] : minutes;
  return el("span", { class: "with-spark" }, el("span", {}, percent(system.cpu_usage_percent)), sparkline(history, 100));
}

function peersCell(node) {
  const text = countStates(node.peers) || NONE;
  return badPeers(node) ? el("span", { class: "badge bad" }, text) : text;
}

function shareCell(value, total) {
  return value === null ? NONE : gauge(value, total);
}

function gauge(value, total) {
  const of = el("span", { class: "muted" }, `of ${bytes(total)}`);
  return el("span", { class: "gauge" }, `${number(value)} % `, of, meter(value));
}

/** The cell of a number; those of a silent node are not of now. */
const ofNow = (cell) => (node) => (node.status === "silent" ? el("div", { class: "silent" }, cell(node)) : cell(node));

const memoryCell = (node) => shareCell(memoryShare(node), node.system?.memory_total_bytes);
const diskCell = (node) => shareCell(diskShare(node), node.system?.disk_total_bytes);
const age = (node) => (node.received_at ? secondsBetween(node.received_at, now) : null);

const COLUMNS = [
  { name: "Node", key: (node) => node.node_id, cell: nameCell },
  {
    name: "State",
    key: (node) => RANK[node.status],
    cell: (node) => el("span", { class: `badge ${KINDS[node.status]}` }, node.status),
  },
  { name: "CPU", key: (node) => node.system?.cpu_usage_percent, cell: ofNow(cpuCell), first: "descending" },
  { name: "Memory", key: memoryShare, cell: ofNow(memoryCell), first: "descending" },
  { name: "Disk", key: diskShare, cell: ofNow(diskCell), first: "descending" },
  {
    name: "Load",
    key: (node) => node.system?.load_avg_1,
    cell: ofNow((node) => load(node.system?.load_avg_1)),
    first: "descending",
  },
  { name: "Peers", key: badPeers, cell: peersCell, first: "descending" },
  {
    name: "Last report",
    key: age,
    cell: (node) => (node.received_at ? `${duration(age(node))} ago` : "none yet"),
  },
];

function build() {
  const table = new SortedTable({
    caption: "All nodes and their newest numbers",
    columns: COLUMNS,
    sort: { column: "Node", direction: "ascending" },
    kind: "fleet",
  });
  const filter = el("input", { type: "search", placeholder: "Filter", "aria-label": "Filter nodes by name" });
  const summary = el("p", { class: "summary" });
  const alerts = el("div", {});
  const made = { table, filter, summary, alerts, nodes: [] };
  filter.addEventListener("input", () => showNodes(made));
  const nodes = el("section", {}, el("div", { class: "title" }, el("h2", {}, "All nodes"), filter), table.element);
  fleet.replaceChildren(summary, alerts, nodes);
  return made;
}

function showNodes({ table, filter, nodes }) {
  const wanted = filter.value.trim().toLowerCase();
  table.show(nodes.filter((node) => node.node_id.toLowerCase().includes(wanted)));
}

function summarise(answer) {
  const counts = { up: 0, silent: 0, waiting: 0 };
  for (const node of answer.nodes) counts[node.status] += 1;
  const said = Object.entries(counts).filter(([, count]) => count).map(([status, count]) => `${count} ${status}`);
  return `${answer.nodes.length} ${answer.nodes.length === 1 ? "node" : "nodes"}: ${said.join(", ")}`;
}

function none() {
  parts = null;
  const command = el("code", {}, "plexd-server token create");
  fleet.replaceChildren(emptyState("No nodes yet", "Let one in: ", command, " prints what its ", el("code", {}, "plexd register"), " needs."));
}

keepFresh(async () => {
  const answer = await getJSON("/v1/fleet");
  now = answer.now;
  fleet.setAttribute("aria-busy", "false");
  if (!answer.nodes.length) return none();
  parts ??= build();
  parts.nodes = answer.nodes.map((node) => ({ ...node, id: node.node_id }));
  parts.summary.textContent = summarise(answer);
  const names = new Set(answer.nodes.map((node) => node.node_id));
  alertList(parts.alerts, answer.alerts, answer.alerts_left_out, (name) => names.has(name));
  showNodes(parts);
}, REFRESH_SECONDS);
