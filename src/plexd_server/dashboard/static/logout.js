// Forgets the cookie that logged this browser in.

import { below } from "./base.js";

document.getElementById("log-out").addEventListener("click", async () => {
  // Not a form: under this server's Referrer-Policy a form is sent without its origin.
  await fetch(below("/logout"), { method: "POST", redirect: "manual" }).catch(() => null);
  location.assign(below("/"));
});
