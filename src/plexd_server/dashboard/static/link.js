// One link: what each end reads of the other now, and how it went.

import { getJSON } from "./api.js";
import { chartCard } from "./cards.js";
import { draw } from "./charts.js";
import { el, endNames, named } from "./dom.js";
import { duration, NONE, number, percent, rate, secondsBetween } from "./format.js";
import { chosenRange, fitRange, rangePicker, startOver } from "./ranges.js";
import { stateBadge } from "./states.js";
import { handshakeOf, LOSS_OVER, lossOf, receivedOf, roundTripOf, sentOf } from "./views.js";

const ROWS = [
  ["State", (view) => (view ? stateBadge(view.state) : "does not report here")],
  ["Why", (view) => view?.reason ?? NONE],
  ["Round trip", roundTripOf],
  [`Loss of ${LOSS_OVER}`, lossOf],
  ["Handshake", handshakeOf],
  ["Received", receivedOf],
  ["Sent", sentOf],
  ["Read", (view, now) => (view ? `${duration(secondsBetween(view.measured_at, now))} ago` : NONE)],
];
const milliseconds = (value) => (value === null ? "no answer" : `${number(value)} ms`);
const NOTHING = { times: [], values: [] };

/** A line of one end's field; `scale` turns it into the chart's unit. */
function line(end, name, field, scale = 1) {
  const of = (data) => {
    const answer = data.ends[end]?.[field === "rtt_nano" ? "latency" : "tunnel"];
    if (!answer) return NOTHING;
    const values = answer.fields[field].avg.map((value) => (value === null ? null : value * scale));
    return {
      times: answer.times,
      values,
      gaps: answer.gaps,
      silentAfter: answer.silent_after_seconds,
      newest: data.ends[end].newest,
    };
  };
  const unanswered = field === "rtt_nano"; // what a value that is missing means
  return { name, end: name, of, unanswered, losses: (data) => data.ends[end]?.losses ?? [] };
}

function chartsOf(link) {
  const both = (field, scale) => [line("a", link.a, field, scale), line("b", link.b, field, scale)];
  return [
    { title: "Round trip, as each end measures it", format: milliseconds, least: 1, lines: both("rtt_nano", 1e-6) },
    { title: `Loss of ${LOSS_OVER}, as each end measures it`, format: percent, top: 100, step: 25, lines: both("packet_loss_percent") },
    { title: "Received by each end", format: rate, binary: true, least: 64, lines: both("rx_bytes") },
  ];
}

function viewsTable(link, now, isNode) {
  const page = (name) => (isNode(name) ? el("a", { href: `/nodes/${encodeURIComponent(name)}` }, named(name)) : named(name));
  const head = ["", link.a, link.b].map((name, i) => el("th", { scope: "col" }, i ? [page(name), " reads"] : el("span", { class: "hidden" }, "Number")));
  const rows = ROWS.map(([name, of]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", { "data-label": link.a }, of(link.a_to_b, now)),
      el("td", { "data-label": link.b }, of(link.b_to_a, now)),
    ),
  );
  const caption = el("caption", { class: "hidden" }, `What ${link.a} and ${link.b} read of each other`);
  return el("div", { class: "card scroll" }, el("table", { class: "views" }, caption, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

async function seriesOf(view, range) {
  if (!view) return null;
  const path = `/v1/nodes/${encodeURIComponent(view.node_id)}`;
  const query = `since=${range}&peer_id=${encodeURIComponent(view.peer_id)}`;
  const [latency, tunnel, ledger] = await Promise.all([
    getJSON(`${path}/series?group=latency&field=rtt_nano&${query}`),
    getJSON(`${path}/series?group=tunnel&field=packet_loss_percent&field=rx_bytes&${query}`),
    getJSON(`${path}/ledger`),
  ]);
  return { latency, tunnel, losses: ledger.losses, newest: view.measured_at };
}

/** The panel of one link; `show` again with newer numbers. */
export class LinkPanel {
  /** `isNode(name)` tells the nodes of this server, which have a page, from peers that have none. */
  constructor(isNode) {
    this.isNode = isNode;
    this.element = el("section", { class: "link", "aria-labelledby": "link-title", hidden: true });
    this.id = null;
  }

  /** Show the link as of `now`, or nothing for undefined, and fetch its history. */
  async show(link, now) {
    this.element.hidden = !link;
    if (!link) {
      this.id = null;
      return;
    }
    if (link.id !== this.id) this.#build(link);
    this.link = link;
    this.reason.replaceChildren(stateBadge(link.state), ` ${link.reason}`);
    this.views.replaceChildren(viewsTable(link, now, this.isNode));
    await this.refresh();
  }

  /** Fetch the history anew. */
  async refresh() {
    const { link } = this;
    const ask = () => Promise.all([link.a_to_b, link.b_to_a].map((view) => seriesOf(view, chosenRange())));
    let [a, b] = await ask();
    if (this.id !== link.id) return; // another was chosen meanwhile
    if (fitRange([a, b].filter(Boolean).map(({ tunnel }) => tunnel))) [a, b] = await ask();
    if (this.id !== link.id) return;
    if (!this.data) this.ranges.replaceChildren(rangePicker(() => this.refresh()));
    const any = (a ?? b).latency;
    this.data = { since: any.since, until: any.until, step_seconds: any.step_seconds, ends: { a, b } };
    this.redraw();
  }

  redraw() {
    if (!this.data) return;
    for (const card of this.cards) draw(card.target, card.chart, this.data);
  }

  #build(link) {
    this.id = link.id;
    this.data = null;
    startOver();
    this.ranges = el("div", { class: "ranges-place" });
    this.reason = el("p", {});
    this.views = el("div", {});
    this.cards = chartsOf(link).map(chartCard);
    const title = el("h2", { id: "link-title", tabindex: "-1" }, endNames(link));
    const heading = el("div", { class: "title" }, title, this.ranges);
    this.element.replaceChildren(
      heading,
      this.reason,
      this.views,
      el("div", { class: "charts" }, this.cards.map((card) => card.figure)),
    );
  }
}
