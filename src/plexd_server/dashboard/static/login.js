// How a login link of this very server begins, as only the browser knows behind a proxy.

document.getElementById("origin").textContent = location.origin;
