// Ends this browser's session.

const REFUSED = "Not logged out: the server refused this page's address.";

import { below } from "./base.js";

document.getElementById("log-out").addEventListener("click", async () => {
  // Not a form: under this server's Referrer-Policy a form is sent without its origin.
  const answer = await fetch(below("/logout"), { method: "POST", redirect: "manual" }).catch(() => null);
  // A redirect that is not followed hides its status. 401: the session had ended already.
  if (answer?.type === "opaqueredirect" || answer?.status === 401) {
    location.assign(below("/"));
    return;
  }
  const status = document.getElementById("status");
  status.textContent = answer ? await reason(answer) : "Not logged out: the server does not answer.";
  status.hidden = false;
});

async function reason(answer) {
  const problem = await answer.json().catch(() => ({}));
  const why = answer.status === 403 ? " An operator allows it with --allowed-host." : "";
  return `Not logged out: ${problem.detail ?? `the server answered ${answer.status}`}.${why}`;
}
