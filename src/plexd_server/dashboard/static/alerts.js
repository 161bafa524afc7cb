// What somebody should look at, each line with its reason and a link to where it is seen.

import { el, endNames, named } from "./dom.js";

const SHOWN = 6;
const TITLES = {
  silent: "Silent",
  link: "Link",
  links: "Links",
  loss: "Loss",
  disk: "Disk",
  clock: "Clock",
  ledger: "Points lost",
};

function where(alert, isNode) {
  const [a, b] = alert.node_ids;
  if (alert.link_id) {
    const href = `/mesh#${encodeURIComponent(alert.link_id)}`;
    return el("a", { href }, endNames({ a, b }));
  }
  // What many links have in common may be a peer that is not a node here, which has no page.
  return isNode(a) ? el("a", { href: `/nodes/${encodeURIComponent(a)}` }, named(a)) : named(a);
}

function item(alert, isNode) {
  const kind = el("span", { class: `badge ${alert.severity}` }, TITLES[alert.kind] ?? alert.kind);
  return el("li", {}, kind, el("span", {}, where(alert, isNode), ` ${alert.text}`));
}

/** Put the alerts into `target`, unless they stand there already; `isNode(name)` has a page. */
export function alertList(target, alerts, leftOut, isNode) {
  const list = (some) => el("ul", { class: "alerts" }, some.map((alert) => item(alert, isNode)));
  const same = JSON.stringify(alerts);
  if (target.dataset.shown === same) return;
  const open = target.querySelector("details")?.open ?? false;
  target.dataset.shown = same;
  if (!alerts.length) {
    target.replaceChildren(el("p", { class: "all-well" }, "Nothing needs a look."));
    return;
  }
  const rest = alerts.slice(SHOWN);
  const more = rest.length
    ? el("details", { open }, el("summary", {}, `${rest.length} more`), list(rest))
    : null;
  const title = el("h2", {}, `To look at (${alerts.length + leftOut})`);
  target.replaceChildren(el("section", { class: "card look-at" }, title, list(alerts.slice(0, SHOWN)), ...(more ? [more] : [])));
}
