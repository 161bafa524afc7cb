"""The HTML of the pages: shells without data, which the modules in ``static/`` fill."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Final

from plexd_server.dashboard.assets import PLOTLY_NAME

__all__ = ["fleet_page", "login_page", "node_page", "redirect_page"]

_LAYOUT: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
$head<title>$title</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/app.css">
$scripts</head>
<body>
<a class="skip" href="#main">Skip to the numbers</a>
<header class="bar">
<a class="brand" href="/"><img src="/static/icon.svg" alt="" width="24" height="24">plexd</a>
<p id="status" class="status" role="status" hidden></p>
</header>
<main id="main" tabindex="-1">
$main
</main>
</body>
</html>
""")

_NO_SCRIPT: Final = '<noscript><p class="notice">This page needs JavaScript.</p></noscript>'


def fleet_page() -> str:
    """The start page: all nodes at a glance."""
    main = f"""<h1>Nodes</h1>
{_NO_SCRIPT}
<div id="fleet" aria-busy="true"></div>"""
    return _page("Nodes", main, modules=("fleet.js",))


def node_page(node_id: str) -> str:
    """One node: its current numbers, its last minutes, its peers."""
    name = escape(node_id)
    main = f"""<nav aria-label="Breadcrumb"><a href="/">← Nodes</a></nav>
<div class="title"><h1>{name}</h1><span id="freshness" class="badge" hidden></span></div>
{_NO_SCRIPT}
<div id="node" data-node="{name}" aria-busy="true"></div>"""
    return _page(node_id, main, modules=("node.js",), plotly=True)


def login_page() -> str:
    """What a visitor without the operator's cookie sees."""
    return _page(
        "Log in",
        """<div class="empty"><h1>Log in</h1>
<p>Open the <strong>dashboard</strong> link that <code>plexd-server</code> printed when it
started. It looks like <code>http://127.0.0.1:8080/login?token=…</code> and logs this browser
in.</p></div>""",
    )


def redirect_page(target: str) -> str:
    """Moves on to ``target``, a path of ours, by itself."""
    path = escape(target)
    return _page(
        "Logged in",
        f'<div class="empty"><h1>Logged in</h1><p><a href="{path}">Go on</a></p></div>',
        head=f'<meta http-equiv="refresh" content="0;url={path}">\n',
    )


def _page(
    title: str, main: str, *, head: str = "", modules: tuple[str, ...] = (), plotly: bool = False
) -> str:
    scripts = f'<script src="/static/{PLOTLY_NAME}" defer></script>\n' if plotly else ""
    scripts += "".join(f'<script type="module" src="/static/{m}"></script>\n' for m in modules)
    return _LAYOUT.substitute(
        title=f"{escape(title)} · plexd", main=main, head=head, scripts=scripts
    )
