// One node's page: current numbers, history, peers, the agent's health, what is missing.

import { getJSON, keepFresh } from "./api.js";
import { chartCard } from "./cards.js";
import { draw, onColourChange } from "./charts.js";
import { el, emptyState, meter } from "./dom.js";
import { bytes, counted, duration, freshness, load, number, percent, rate, secondsBetween, share } from "./format.js";
import { showLedger } from "./ledger.js";
import { peerRows, peersTable } from "./peers.js";
import { chosenRange, fitRange, rangePicker } from "./ranges.js";
import { simulatedBadge } from "./states.js";

const REFRESH_SECONDS = 5;
const TRAFFIC_MS = 15 * 60_000; // holds two readings of any usual interval
const line = (field, name) => ({
  field,
  name,
  of: (answer) => ({
    times: answer.times,
    values: answer.fields[field].avg,
    gaps: answer.gaps,
    silentAfter: answer.silent_after_seconds,
    newest: answer.newest,
    status: answer.status,
  }),
  losses: (answer) => answer.losses,
});
const CHARTS = [
  { title: "CPU", format: percent, top: 100, step: 25, lines: [line("cpu_usage_percent", "CPU")] },
  {
    title: "Memory",
    format: bytes,
    binary: true,
    lines: [line("memory_used_bytes", "used"), line("memory_total_bytes", "total")],
  },
  {
    title: "Network",
    format: rate,
    binary: true,
    least: 1024,
    lines: [line("network_rx_bytes", "received"), line("network_tx_bytes", "sent")],
  },
  {
    title: "Load average",
    format: load,
    least: 1,
    lines: [line("load_avg_1", "1 min"), line("load_avg_5", "5 min"), line("load_avg_15", "15 min")],
  },
  {
    title: "Disk",
    format: bytes,
    binary: true,
    lines: [line("disk_used_bytes", "used"), line("disk_total_bytes", "total")],
  },
];
const FIELDS = CHARTS.flatMap((chart) => chart.lines.map((one) => one.field));

const root = document.getElementById("node");
const path = `/v1/nodes/${encodeURIComponent(root.dataset.node)}`;
let seriesAnswer = null;
let traffic = { until: "", received: null, sent: null };
let parts = null;

function tile(title, value, ...rest) {
  return el("div", { class: "tile" }, el("dt", {}, title), el("dd", {}, el("strong", {}, value), ...rest));
}

/** How fast the newest reading's counters went up since the one before, whatever the charts show. */
async function trafficAt(reading) {
  if (!reading || reading.timestamp === traffic.until) return traffic;
  const until = Date.parse(reading.timestamp) + 1000;
  const [from, to] = [until - TRAFFIC_MS, until].map((moment) => new Date(moment).toISOString());
  const asked = `since=${from}&until=${to}&step=1&field=network_rx_bytes&field=network_tx_bytes`;
  const { fields } = await getJSON(`${path}/series?${asked}`);
  const last = (field) => fields[field].avg.at(-1) ?? null;
  return { until: reading.timestamp, received: last("network_rx_bytes"), sent: last("network_tx_bytes") };
}

function systemTiles(data) {
  const memory = share(data.memory_used_bytes, data.memory_total_bytes);
  const disk = share(data.disk_used_bytes, data.disk_total_bytes);
  const of = (used, total) => el("small", {}, `${bytes(used)} of ${bytes(total)}`);
  return [
    tile("CPU", percent(data.cpu_usage_percent), meter(data.cpu_usage_percent)),
    tile("Memory", percent(memory), meter(memory), of(data.memory_used_bytes, data.memory_total_bytes)),
    tile("Disk", percent(disk), meter(disk), of(data.disk_used_bytes, data.disk_total_bytes)),
    tile("Load", load(data.load_avg_1), el("small", {}, `5 min ${load(data.load_avg_5)}`), el("small", {}, `15 min ${load(data.load_avg_15)}`)),
    tile("Received", rate(traffic.received), el("small", {}, `${bytes(data.network_rx_bytes)} in all`)),
    tile("Sent", rate(traffic.sent), el("small", {}, `${bytes(data.network_tx_bytes)} in all`)),
  ];
}

function agentTiles(data) {
  return [
    tile("Running for", duration(data.uptime_seconds)),
    tile("Memory", bytes(data.heap_alloc_bytes), el("small", {}, `of ${bytes(data.heap_sys_bytes)} mapped`)),
    tile("Tasks and threads", number(data.goroutine_count)),
    tile("Garbage collection", `${number(data.gc_pause_total_ns / 1e6)} ms`, el("small", {}, counted(data.gc_num_gc, "collection"))),
    tile("Reconnects", number(data.reconnect_count)),
  ];
}

function section(title, ...content) {
  return el("section", {}, el("h2", {}, title), ...content);
}

/** The page's fixed skeleton, made once there is something to show. */
function build() {
  const made = {
    system: el("dl", { class: "tiles" }),
    charts: CHARTS.map(chartCard),
    peers: peersTable(),
    agent: el("dl", { class: "tiles" }),
    ledger: el("div", {}),
  };
  made.now = section("Now", made.system);
  made.peersSection = section("Peers", made.peers.element);
  made.agentSection = section("Agent", made.agent);
  made.ledgerSection = section("Completeness", made.ledger);
  const title = el("div", { class: "title" }, el("h2", {}, "History"), rangePicker(() => refreshNow()));
  const charts = el("div", { class: "charts" }, made.charts.map((card) => card.figure));
  root.replaceChildren(
    made.now,
    el("section", {}, title, charts),
    made.peersSection,
    made.ledgerSection,
    made.agentSection,
  );
  return made;
}

function showFreshness(latest) {
  const state = freshness(latest);
  const isSilent = latest.revoked_at !== null || state.word === "silent";
  const shown = latest.revoked_at === null ? state : { kind: "idle", word: "revoked, this is its history" };
  const badge = document.getElementById("freshness");
  badge.className = `badge ${shown.kind}`;
  badge.textContent = `${shown.word} · ${state.detail}`;
  badge.hidden = false;
  root.classList.toggle("silent", isSilent);
  if (latest.node_id.startsWith("sim-") && !badge.nextElementSibling) badge.after(simulatedBadge());
}

/** What the newest numbers are headed by: those of a silent node are not of now. */
function heading(reading, { now, reading_seconds: age }) {
  if (!reading || !root.classList.contains("silent")) return "Now";
  return `As of ${duration(age ?? secondsBetween(reading.received_at, now))} ago`;
}

function showNumbers(latest, peers, ledger) {
  const newest = (group) => latest.points.find((point) => point.group === group);
  const system = newest("system");
  const agent = newest("agent");
  const rows = peerRows(peers);
  parts.now.firstChild.textContent = heading(system, latest);
  parts.system.replaceChildren(...(system ? systemTiles(system.data) : []));
  parts.agent.replaceChildren(...(agent ? agentTiles(agent.data) : []));
  parts.peers.show(rows);
  parts.agentSection.hidden = !agent;
  parts.peersSection.hidden = !rows.length;
  parts.ledgerSection.hidden = !showLedger(parts.ledger, ledger);
}

function drawAll() {
  for (const card of parts?.charts ?? []) draw(card.target, card.chart, seriesAnswer);
}

function seriesPath() {
  const query = FIELDS.map((field) => `field=${field}`).join("&");
  return `${path}/series?since=${chosenRange()}&${query}`;
}

/** Nothing but one sentence; what there was of the node is gone. */
function showNothing(title, ...text) {
  parts = null;
  root.setAttribute("aria-busy", "false");
  root.replaceChildren(emptyState(title, ...text));
}

/** The node's newest points; nothing if there is no such node, which the page then says. */
async function askLatest() {
  try {
    return await getJSON(`${path}/latest`);
  } catch (error) {
    if (error.status !== 404) throw error;
    document.getElementById("freshness").hidden = true;
    showNothing(`There is no node ${root.dataset.node}`, el("a", { href: "/" }, "All nodes"));
    return null;
  }
}

async function refresh() {
  const latest = await askLatest();
  if (!latest) return;
  const system = latest.points.find((point) => point.group === "system");
  const [series, peers, ledger, newest] = await Promise.all([
    getJSON(seriesPath()),
    getJSON(`${path}/peers`),
    getJSON(`${path}/ledger`),
    trafficAt(system),
  ]);
  const shown = fitRange([series]) ? await getJSON(seriesPath()) : series;
  seriesAnswer = { ...shown, losses: ledger.losses, newest: system?.timestamp, status: latest.status };
  traffic = newest;
  showFreshness(latest);
  if (!latest.points.length) return showNothing("No points yet", "Waiting for the first report.");
  root.setAttribute("aria-busy", "false");
  parts ??= build();
  showNumbers(latest, peers, ledger);
  drawAll();
}

onColourChange(drawAll);
const refreshNow = keepFresh(refresh, REFRESH_SECONDS);
