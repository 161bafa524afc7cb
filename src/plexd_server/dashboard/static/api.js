// Asking the server, again and again, for as long as somebody looks.

import { below } from "./base.js";

const TIMEOUT_MS = 10_000;

/** The JSON at `path`; throws an Error whose message is for people. */
export async function getJSON(path) {
  let response;
  try {
    response = await fetch(below(path), { signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new Error("The server does not answer. Trying again…");
  }
  if (response.status === 401) {
    throw new Error("Logged out. Open the dashboard link that plexd-server printed.");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    const error = new Error(problem.detail ?? `The server answered ${response.status}.`);
    throw Object.assign(error, { status: response.status });
  }
  return response.json();
}

/**
 * Runs `refresh` at once, then every `seconds` while the page is visible, never twice at a time.
 * A failure is shown in the page's status line and the page keeps what it has. Returns a function
 * that refreshes out of turn.
 */
export function keepFresh(refresh, seconds) {
  const status = document.getElementById("status");
  let timer;
  let running = false;
  let again = false;
  async function tick() {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await refresh();
      status.hidden = true;
    } catch (error) {
      status.textContent = error.message;
      status.hidden = false;
    }
    running = false;
    if (again) {
      again = false;
      tick();
    } else if (!document.hidden) {
      timer = setTimeout(tick, seconds * 1000);
    }
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? 0 : tick()));
  tick();
  return tick;
}
