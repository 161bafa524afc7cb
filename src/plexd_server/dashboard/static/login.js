// How a login link of this very server begins, as only the browser knows behind a proxy.

import { below } from "./base.js";

document.getElementById("origin").textContent = location.origin + below("/").slice(0, -1);
