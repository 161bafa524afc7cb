// One node's page: current numbers, history, peers, the agent's health, what is missing.

import { getJSON, keepFresh } from "./api.js";
import { chartCard } from "./cards.js";
import { draw, onColourChange } from "./charts.js";
import { el, emptyState, meter } from "./dom.js";
import { bytes, counted, duration, freshness, number, percent, rate, share } from "./format.js";
import { showLedger } from "./ledger.js";
import { peerRows, peersTable } from "./peers.js";
import { chosenRange, fitRange, rangePicker } from "./ranges.js";
import { simulatedBadge } from "./states.js";

const REFRESH_SECONDS = 5;
const line = (field, name) => ({
  field,
  name,
  of: (answer) => ({ times: answer.times, values: answer.fields[field].avg }),
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
    format: number,
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
let losses = [];
let parts = null;

function tile(title, value, ...rest) {
  return el("div", { class: "tile" }, el("dt", {}, title), el("dd", {}, el("strong", {}, value), ...rest));
}

function last(field) {
  return seriesAnswer?.fields[field].avg.findLast((value) => value !== null) ?? null;
}

function systemTiles(data) {
  const memory = share(data.memory_used_bytes, data.memory_total_bytes);
  const disk = share(data.disk_used_bytes, data.disk_total_bytes);
  const of = (used, total) => el("small", {}, `${bytes(used)} of ${bytes(total)}`);
  return [
    tile("CPU", percent(data.cpu_usage_percent), meter(data.cpu_usage_percent)),
    tile("Memory", percent(memory), meter(memory), of(data.memory_used_bytes, data.memory_total_bytes)),
    tile("Disk", percent(disk), meter(disk), of(data.disk_used_bytes, data.disk_total_bytes)),
    tile("Load", number(data.load_avg_1), el("small", {}, `5 min ${number(data.load_avg_5)}`), el("small", {}, `15 min ${number(data.load_avg_15)}`)),
    tile("Received", rate(last("network_rx_bytes")), el("small", {}, `${bytes(data.network_rx_bytes)} in all`)),
    tile("Sent", rate(last("network_tx_bytes")), el("small", {}, `${bytes(data.network_tx_bytes)} in all`)),
  ];
}

function agentTiles(data) {
  return [
    tile("Up since", duration(data.uptime_seconds)),
    tile("Memory", bytes(data.heap_alloc_bytes), el("small", {}, `of ${bytes(data.heap_sys_bytes)} mapped`)),
    tile("Tasks and threads", number(data.goroutine_count)),
    tile("Collector pauses", `${number(data.gc_pause_total_ns / 1e6)} ms`, el("small", {}, counted(data.gc_num_gc, "collection"))),
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
  made.peersSection = section("Peers", made.peers.element);
  made.agentSection = section("Agent", made.agent);
  made.ledgerSection = section("Completeness", made.ledger);
  const heading = el("div", { class: "title" }, el("h2", {}, "History"), rangePicker(() => refreshNow()));
  const charts = el("div", { class: "charts" }, made.charts.map((card) => card.figure));
  root.replaceChildren(
    section("Now", made.system),
    el("section", {}, heading, charts),
    made.peersSection,
    made.ledgerSection,
    made.agentSection,
  );
  return made;
}

function showFreshness(latest) {
  const newest = latest.points.map((point) => point.received_at).sort().at(-1);
  const state = freshness(newest, latest.now);
  const badge = document.getElementById("freshness");
  badge.className = `badge ${state.kind}`;
  badge.textContent = `${state.word} · ${state.detail}`;
  badge.hidden = false;
  if (latest.node_id.startsWith("sim-") && !badge.nextElementSibling) badge.after(simulatedBadge());
}

function showNumbers(latest, peers, ledger) {
  const newest = (group) => latest.points.find((point) => point.group === group);
  const system = newest("system");
  const agent = newest("agent");
  const rows = peerRows(peers);
  parts.system.replaceChildren(...(system ? systemTiles(system.data) : []));
  parts.agent.replaceChildren(...(agent ? agentTiles(agent.data) : []));
  parts.peers.show(rows);
  parts.agentSection.hidden = !agent;
  parts.peersSection.hidden = !rows.length;
  parts.ledgerSection.hidden = !showLedger(parts.ledger, ledger);
}

function drawAll() {
  for (const card of parts?.charts ?? []) draw(card.target, card.chart, seriesAnswer, losses);
}

function seriesPath() {
  const query = FIELDS.map((field) => `field=${field}`).join("&");
  return `${path}/series?since=${chosenRange()}&${query}`;
}

async function refresh() {
  const [latest, series, peers, ledger] = await Promise.all([
    getJSON(`${path}/latest`),
    getJSON(seriesPath()),
    getJSON(`${path}/peers`),
    getJSON(`${path}/ledger`),
  ]);
  seriesAnswer = fitRange(series) ? await getJSON(seriesPath()) : series;
  losses = ledger.losses;
  showFreshness(latest);
  root.setAttribute("aria-busy", "false");
  if (!latest.points.length) {
    root.replaceChildren(emptyState("No points yet", "Waiting for the first report."));
    return;
  }
  parts ??= build();
  showNumbers(latest, peers, ledger);
  drawAll();
}

onColourChange(drawAll);
const refreshNow = keepFresh(refresh, REFRESH_SECONDS);
