// One node's page: current numbers, the last minutes as charts, peers, the agent's health.

import { getJSON, keepFresh } from "./api.js";
import { draw, onColourChange } from "./charts.js";
import { el, emptyState, meter } from "./dom.js";
import { bytes, duration, freshness, number, percent, rate, share } from "./format.js";
import { peersTable } from "./peers.js";

const REFRESH_SECONDS = 5;
const RANGES = { "5m": "5 min", "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h" };
const CHARTS = [
  {
    title: "CPU",
    format: percent,
    top: 100,
    step: 25,
    lines: [{ field: "cpu_usage_percent", name: "CPU" }],
  },
  {
    title: "Memory",
    format: bytes,
    binary: true,
    lines: [
      { field: "memory_used_bytes", name: "used" },
      { field: "memory_total_bytes", name: "total" },
    ],
  },
  {
    title: "Network",
    format: rate,
    binary: true,
    least: 1024,
    lines: [
      { field: "network_rx_bytes", name: "received" },
      { field: "network_tx_bytes", name: "sent" },
    ],
  },
  {
    title: "Load average",
    format: number,
    least: 1,
    lines: [
      { field: "load_avg_1", name: "1 min" },
      { field: "load_avg_5", name: "5 min" },
      { field: "load_avg_15", name: "15 min" },
    ],
  },
];
const FIELDS = CHARTS.flatMap((chart) => chart.lines.map((line) => line.field));

const root = document.getElementById("node");
const path = `/v1/nodes/${encodeURIComponent(root.dataset.node)}`;
let range = "5m";
let seriesAnswer = null;
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
    tile("Uptime", duration(data.uptime_seconds)),
    tile("Memory", bytes(data.heap_alloc_bytes), el("small", {}, `${bytes(data.heap_sys_bytes)} mapped`)),
    tile("Tasks and threads", number(data.goroutine_count)),
    tile("Collector pauses", `${number(data.gc_pause_total_ns / 1e6)} ms`, el("small", {}, `${number(data.gc_num_gc)} collections`)),
    tile("Reconnects", number(data.reconnect_count)),
  ];
}

function rangePicker() {
  const buttons = Object.entries(RANGES).map(([value, text]) => {
    const button = el("button", { type: "button", "aria-pressed": String(value === range) }, text);
    button.addEventListener("click", () => {
      range = value;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      refreshNow();
    });
    return button;
  });
  return el("div", { class: "ranges", role: "group", "aria-label": "Time range" }, buttons);
}

function legend(chart) {
  if (chart.lines.length < 2) return null;
  const entries = chart.lines.map((line, i) => el("li", { class: `line-${i + 1}` }, line.name));
  return el("ul", { class: "legend", "aria-hidden": "true" }, entries);
}

function chartCard(chart) {
  const target = el("div", { class: "chart" });
  const caption = el("figcaption", {}, el("h3", {}, chart.title), legend(chart));
  return { chart, target, figure: el("figure", { class: "card" }, caption, target) };
}

function section(title, ...content) {
  return el("section", {}, el("h2", {}, title), ...content);
}

/** The page's fixed skeleton, made once there is something to show. */
function build() {
  const made = {
    system: el("dl", { class: "tiles" }),
    charts: CHARTS.map(chartCard),
    peers: el("div", {}),
    agent: el("dl", { class: "tiles" }),
  };
  made.peersSection = section("Peers", made.peers);
  made.agentSection = section("Agent", made.agent);
  root.replaceChildren(
    section("Now", made.system),
    el(
      "section",
      {},
      el("div", { class: "title" }, el("h2", {}, "History"), rangePicker()),
      el("div", { class: "charts" }, made.charts.map((card) => card.figure)),
    ),
    made.peersSection,
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
}

function showNumbers(latest) {
  const newest = (group) => latest.points.find((point) => point.group === group);
  const system = newest("system");
  const agent = newest("agent");
  const table = peersTable(latest);
  parts.system.replaceChildren(...(system ? systemTiles(system.data) : []));
  parts.agent.replaceChildren(...(agent ? agentTiles(agent.data) : []));
  parts.peers.replaceChildren(...(table ? [table] : []));
  parts.agentSection.hidden = !agent;
  parts.peersSection.hidden = !table;
}

function drawAll() {
  for (const card of parts?.charts ?? []) draw(card.target, card.chart, seriesAnswer);
}

async function refresh() {
  const query = FIELDS.map((field) => `field=${field}`).join("&");
  const [latest, series] = await Promise.all([
    getJSON(`${path}/latest`),
    getJSON(`${path}/series?since=${range}&${query}`),
  ]);
  seriesAnswer = series;
  showFreshness(latest);
  root.setAttribute("aria-busy", "false");
  if (!latest.points.length) {
    root.replaceChildren(emptyState("No points yet", "Waiting for the first report."));
    return;
  }
  parts ??= build();
  showNumbers(latest);
  drawAll();
}

onColourChange(drawAll);
const refreshNow = keepFresh(refresh, REFRESH_SECONDS);
