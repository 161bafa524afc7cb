// What is missing of a node's points, and why.

import { el } from "./dom.js";
import { counted, duration, number, secondsBetween } from "./format.js";
import { describeLoss } from "./gaps.js";

const WHEN = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const SHOWN = 20;

const time = (text) => el("time", { datetime: text }, WHEN.format(new Date(text)));

function row(loss) {
  const span = [loss.since ? time(loss.since) : "the beginning", " to ", time(loss.until)];
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, describeLoss(loss)),
    el("td", { "data-label": "Collected" }, span),
    el("td", { "data-label": "Noticed" }, time(loss.noticed_at)),
  );
}

function table(losses) {
  const head = ["What", "Collected", "Noticed"].map((name) => el("th", { scope: "col" }, name));
  const caption = el("caption", { class: "hidden" }, "Points that are missing, latest first");
  const rows = losses.toReversed().slice(0, SHOWN).map(row);
  return el("div", { class: "card scroll" }, el("table", {}, caption, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

function sentence(ledger) {
  const lost = ledger.evicted + ledger.rejected + ledger.gap + ledger.ahead;
  const parts = [`${counted(ledger.received, "point")} stored`];
  parts.push(lost ? `${number(lost)} lost` : "none lost");
  if (ledger.duplicates) parts.push(`${counted(ledger.duplicates, "delivery", "deliveries")} repeated without effect`);
  return `${parts.join(", ")}.`;
}

/** Whom the account is waiting for, if the node was copied or put back. */
function branches({ branches, machines, now }) {
  if (branches.length < 2) return [];
  const what = machines.length ? "More than one machine reports as this node" : "This node was copied, or put back to an earlier state";
  const said = branches.map(({ address, received_at: at }) => `from ${address || "an unknown address"} ${duration(secondsBetween(at, now))} ago`);
  return [el("p", {}, `${what}; points came ${said.join(", ")}.`)];
}

/** Put the ledger into `target`; whether there is anything to tell. */
export function showLedger(target, ledger) {
  if (!ledger.complete_until) return false;
  const age = duration(secondsBetween(ledger.complete_until, ledger.now));
  const kind = ledger.losses.length ? "warn" : "good";
  const word = ledger.losses.length ? "complete but for what is listed" : "complete";
  const head = el("p", {}, el("span", { class: `badge ${kind}` }, word), ` up to ${age} ago: ${sentence(ledger)}`);
  target.replaceChildren(head, ...branches(ledger), ...(ledger.losses.length ? [table(ledger.losses)] : []));
  return true;
}
