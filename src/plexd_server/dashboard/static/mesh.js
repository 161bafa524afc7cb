// The mesh page: the matrix, the links as a table, and the history of the one that was chosen.

import { getJSON, keepFresh } from "./api.js";
import { onColourChange } from "./charts.js";
import { el, emptyState, endNames } from "./dom.js";
import { counted, duration, NONE, number, secondsBetween } from "./format.js";
import { LinkPanel } from "./link.js";
import { Matrix } from "./matrix.js";
import { countStates, severity, simulatedBadge, stateBadge } from "./states.js";
import { SortedTable } from "./table.js";
import { LOSS_OVER, lossOf, roundTripOf } from "./views.js";

const REFRESH_SECONDS = 5;
const MODES = { rtt: "Round trip", loss: "Loss", state: "State" };

const root = document.getElementById("mesh");
const links = new Map();
const ends = new Map();
const withPage = new Set(); // the nodes of this server
const MOST_IN_MATRIX = 250;
let now = "";
let parts = null;

const between = (from, to) => JSON.stringify([from, to]);

/** The link in the page's address; what somebody garbled, as it is. */
function chosen() {
  const asked = location.hash.slice(1);
  try {
    return decodeURIComponent(asked);
  } catch {
    return asked;
  }
}

function viewOf(from, to) {
  const link = find(from, to);
  return link && (link.a === from ? link.a_to_b : link.b_to_a);
}

const find = (from, to) => ends.get(between(from, to));

function describe(from, to) {
  if (from === to) return "";
  const view = viewOf(from, to);
  if (!view) return `${from} does not read ${to}.`;
  const loss = view.loss_percent === null ? "" : ` Loss ${lossOf(view)} of ${LOSS_OVER}.`;
  return `${from} reads ${to} as ${view.state}: ${view.reason}.${loss}`;
}

const both = (link, of) => {
  const [a, b] = [link.a_to_b, link.b_to_a].map((view) => (view ? of(view) : NONE));
  return a === b ? a : `${a} / ${b}`;
};
const worst = (link, of) => {
  const values = [link.a_to_b, link.b_to_a].map((view) => view && of(view)).filter((value) => value !== null && value !== undefined);
  return values.length ? Math.max(...values) : null;
};

function linkCell(link) {
  return el("a", { href: `#${encodeURIComponent(link.id)}` }, endNames(link));
}

/** Since when the worse view has been as it is. */
function since(link) {
  const views = [link.a_to_b, link.b_to_a].filter(Boolean).toSorted((one, other) => severity(other.state) - severity(one.state));
  const view = views.find((one) => one.state === link.state) ?? views[0];
  return view ? secondsBetween(view.since, now) : null;
}

const COLUMNS = [
  { name: "Link", key: (link) => link.id, cell: linkCell },
  {
    name: "State",
    key: (link) => severity(link.state) * 1000 + (worst(link, (view) => view.loss_percent) ?? 0),
    cell: (link) => el("div", { class: "state" }, stateBadge(link.state), el("small", {}, link.reason)),
    first: "descending",
  },
  {
    name: "Round trip",
    key: (link) => worst(link, (view) => view.rtt_nano),
    cell: (link) => both(link, roundTripOf),
    first: "descending",
  },
  {
    name: "Loss",
    hint: `of ${LOSS_OVER}`,
    key: (link) => worst(link, (view) => view.loss_percent),
    cell: (link) => both(link, lossOf),
    first: "descending",
  },
  { name: "For", key: since, cell: (link) => duration(since(link) ?? 0) },
];

function modePicker(matrix) {
  const buttons = Object.entries(MODES).map(([mode, text]) => {
    const button = el("button", { type: "button", "aria-pressed": String(mode === matrix.mode) }, text);
    button.addEventListener("click", () => {
      matrix.setMode(mode);
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
    return button;
  });
  return el("div", { class: "ranges", role: "group", "aria-label": "What the cells show" }, buttons);
}

function choose(from, to) {
  location.hash = encodeURIComponent(find(from, to).id);
}

function build() {
  const matrix = new Matrix({ onChoose: choose, describe });
  const panel = new LinkPanel((name) => withPage.has(name));
  const table = new SortedTable({
    caption: "All links, with both ends' numbers",
    columns: COLUMNS,
    sort: { column: "State", direction: "descending" },
    most: 30,
    kind: "links",
  });
  const summary = el("p", { class: "summary" });
  const filter = el("input", { type: "search", placeholder: "Filter", "aria-label": "Filter links by node" });
  const rest = el("p", { class: "muted note", hidden: true });
  const missing = el("p", { class: "notice", role: "status", hidden: true });
  const made = { matrix, panel, table, summary, filter, rest, missing };
  filter.addEventListener("input", () => showTable(made));
  root.replaceChildren(
    missing,
    el("div", { class: "title" }, summary, modePicker(matrix)),
    matrix.element,
    rest,
    panel.element,
    el("section", {}, el("div", { class: "title" }, el("h2", {}, "Links"), filter), table.element),
  );
  return made;
}

function showTable({ table, filter }) {
  const wanted = filter.value.trim().toLowerCase();
  table.show([...links.values()].filter((link) => link.id.toLowerCase().includes(wanted)));
}

function summarise(answer) {
  const counts = {};
  for (const link of answer.links) counts[link.state] = (counts[link.state] ?? 0) + 1;
  const left = answer.left_out ? ` (${number(answer.left_out)} more that are better)` : "";
  const text = `${counted(answer.nodes.length, "node")}, ${counted(answer.links.length, "link")}: ${countStates(counts)}${left}`;
  const made = answer.nodes.some((node) => node.simulated) ? [" ", simulatedBadge()] : [];
  return [text, ...made];
}

/** Whoever has a link: nodes of this server first, then peers that only others know. */
function matrixNames(answer) {
  const linked = new Set(answer.links.flatMap((link) => [link.a, link.b]));
  const nodes = answer.nodes.filter((node) => linked.has(node.node_id));
  return nodes.map((node) => node.node_id);
}

/** Show the link in the page's address; one that `isNew` gets the keyboard, too. */
async function showChosen(isNew) {
  if (!parts) return;
  const link = links.get(chosen());
  parts.missing.hidden = Boolean(link) || !chosen();
  parts.missing.textContent = parts.missing.hidden ? "" : `There is no link ${chosen()} here.`;
  const isOther = link && link.id !== parts.panel.id;
  const shown = parts.panel.show(link, now);
  if (isOther) {
    const [row, column] = parts.matrix.active.map((i) => parts.matrix.names[i]);
    if (find(row, column)?.id !== link.id) parts.matrix.select(link.a, link.b);
    parts.panel.element.scrollIntoView({ block: "start" });
  }
  if (isOther && isNew) document.getElementById("link-title").focus({ preventScroll: true });
  await shown;
}

async function refresh() {
  const answer = await getJSON("/v1/mesh");
  now = answer.now;
  root.setAttribute("aria-busy", "false");
  if (!answer.links.length) {
    parts = null;
    root.replaceChildren(emptyState("No links yet", "They show once a node reports its peers."));
    return;
  }
  links.clear();
  ends.clear();
  withPage.clear();
  for (const node of answer.nodes) if (node.status !== "foreign") withPage.add(node.node_id);
  for (const link of answer.links) {
    links.set(link.id, link);
    ends.set(between(link.a, link.b), link);
    ends.set(between(link.b, link.a), link);
  }
  parts ??= build();
  parts.summary.replaceChildren(...summarise(answer));
  const names = matrixNames(answer);
  parts.matrix.show(names.slice(0, MOST_IN_MATRIX), answer.links);
  parts.rest.hidden = names.length <= MOST_IN_MATRIX;
  parts.rest.textContent = `The matrix shows ${MOST_IN_MATRIX} of ${names.length}; the table below knows all.`;
  showTable(parts);
  await showChosen(false);
}

addEventListener("hashchange", () => showChosen(true));
onColourChange(() => {
  parts?.matrix.draw();
  parts?.panel.redraw();
});
keepFresh(refresh, REFRESH_SECONDS);
