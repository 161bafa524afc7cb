// The start page: every node with its freshness and newest numbers.

import { getJSON, keepFresh } from "./api.js";
import { el, emptyState, meter } from "./dom.js";
import { bytes, freshness, number, percent, share } from "./format.js";

const COLUMNS = ["Node", "State", "CPU", "Memory", "Disk", "Load", "Last report"];
const REFRESH_SECONDS = 5;

const fleet = document.getElementById("fleet");

function gauge(label, value, text) {
  return el("td", { "data-label": label }, el("span", { class: "gauge" }, text, meter(value)));
}

function nothing(label) {
  return el("td", { "data-label": label, class: "muted" }, "–");
}

function numbers(system) {
  if (!system) return COLUMNS.slice(2, 6).map(nothing);
  const data = system.data;
  const memory = share(data.memory_used_bytes, data.memory_total_bytes);
  const disk = share(data.disk_used_bytes, data.disk_total_bytes);
  return [
    gauge("CPU", data.cpu_usage_percent, percent(data.cpu_usage_percent)),
    gauge("Memory", memory, `${number(memory)} % of ${bytes(data.memory_total_bytes)}`),
    gauge("Disk", disk, `${number(disk)} % of ${bytes(data.disk_total_bytes)}`),
    el("td", { "data-label": "Load" }, number(data.load_avg_1)),
  ];
}

function row(node, now) {
  const state = freshness(node.received_at, now);
  const link = el("a", { href: `/nodes/${encodeURIComponent(node.node_id)}` }, node.node_id);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, link, node.mesh_ip ? el("small", {}, node.mesh_ip) : null),
    el("td", { "data-label": "State" }, el("span", { class: `badge ${state.kind}` }, state.word)),
    numbers(node.system),
    el("td", { "data-label": "Last report" }, state.detail.replace("last report ", "")),
  );
}

function table(answer) {
  const head = el("tr", {}, COLUMNS.map((name) => el("th", { scope: "col" }, name)));
  return el(
    "div",
    { class: "card scroll" },
    el(
      "table",
      { class: "fleet" },
      el("caption", { class: "hidden" }, "All nodes and their newest numbers"),
      el("thead", {}, head),
      el("tbody", {}, answer.nodes.map((node) => row(node, answer.now))),
    ),
  );
}

const none = () =>
  emptyState("No nodes yet", "Register one with ", el("code", {}, "plexd-server node create NODE_ID"), ".");

/** Replace the table but keep the keyboard's place in it. */
function show(content) {
  const focused = document.activeElement?.getAttribute("href");
  fleet.replaceChildren(content);
  if (focused) fleet.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  fleet.setAttribute("aria-busy", "false");
}

keepFresh(async () => {
  const answer = await getJSON("/v1/nodes");
  show(answer.nodes.length ? table(answer) : none());
}, REFRESH_SECONDS);
