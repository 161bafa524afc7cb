// Making elements without ever making markup out of text.

import { below } from "./base.js";

/**
 * An element with attributes (`null` and `false` leave one out) and children (nodes or text). A
 * link's path is written from the server's own root.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    const text = value === true ? "" : value;
    element.setAttribute(name, name === "href" ? below(text) : text);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

/** A name, cut by the style sheet where it is long, whole for whoever points at it or listens. */
export function named(name) {
  return el("span", { class: "name", title: name }, name);
}

/** The names of a link's ends. */
export const endNames = ({ a, b }) => [named(a), " ↔ ", named(b)];

/** A bar that is `percent` full; its text stands beside it, so it is hidden from screen readers. */
export function meter(percent) {
  const level = percent >= 90 ? "high" : percent >= 75 ? "raised" : "fine";
  const fill = el("span", { class: `fill ${level}` });
  fill.style.width = `${Math.min(100, Math.max(0, percent))}%`;
  return el("span", { class: "meter", "aria-hidden": "true" }, fill);
}

/** What a page shows before there is anything to show. */
export function emptyState(title, ...text) {
  return el("div", { class: "empty" }, el("h2", {}, title), el("p", {}, ...text));
}
