"""The HTML of the pages, without data: the modules in ``static/`` fill it."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Final

_LAYOUT: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
$head<title>$title</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
$scripts<link rel="stylesheet" href="/static/app.css">
</head>
<body>
<a class="skip" href="#main">Skip to the numbers</a>
<header class="bar">
<a class="brand" href="/"><img src="/static/icon.svg" alt="" width="24" height="24">plexd</a>
$pages<p id="status" class="status" role="status" hidden></p>
</header>
<main id="main" tabindex="-1">
$main
</main>
</body>
</html>
""")

_PLOTS: Final = """<link rel="stylesheet" href="/static/uplot.css">
<script src="/static/uplot.js" defer></script>
"""
_CURRENT: Final = ' aria-current="page"'
_PAGES: Final = (("/", "Nodes"), ("/mesh", "Mesh"))
_LOG_OUT: Final = '<button type="button" id="log-out" class="quiet">Log out</button>\n'
_WRONG_LINK: Final = """<p class="why">This link is from an earlier start of the server, or was
mistyped; the server prints a new one when it starts.</p>
"""
_NO_SCRIPT: Final = '<noscript><p class="notice">This page needs JavaScript.</p></noscript>'


def fleet_page() -> str:
    """Return the start page: all nodes at a glance."""
    main = f"""<h1>Nodes</h1>
{_NO_SCRIPT}
<div id="fleet" aria-busy="true"></div>"""
    return _page("Nodes", main, here="/", modules=("fleet.js", "logout.js"))


def mesh_page() -> str:
    """Return the page of the links: a matrix, what is wrong, and one link's history."""
    main = f"""<h1>Mesh</h1>
{_NO_SCRIPT}
<div id="mesh" aria-busy="true"></div>"""
    return _page("Mesh", main, here="/mesh", modules=("mesh.js", "logout.js"), plots=True)


def node_page(node_id: str) -> str:
    """Return a node's page: its newest numbers, history, peers, agent, and what is missing."""
    name = escape(node_id)
    main = f"""<nav aria-label="Breadcrumb"><a href="/">← Nodes</a></nav>
<div class="title"><h1>{name}</h1><span id="freshness" class="badge" hidden></span></div>
{_NO_SCRIPT}
<div id="node" data-node="{name}" aria-busy="true"></div>"""
    return _page(node_id, main, here="/nodes", modules=("node.js", "logout.js"), plots=True)


def not_found_page() -> str:
    """Return the page for an address that has none."""
    return _page(
        "Not found",
        """<div class="empty"><h1>There is no such page</h1>
<p><a href="/">All nodes</a> · <a href="/mesh">The mesh</a></p></div>""",
        here="",
    )


def refusal_page(status: int, title: str, detail: str, retry_seconds: str) -> str:
    """Return a page that says why a request was refused, and when to try again."""
    if status in _REFUSALS:
        return _REFUSALS[status]()
    again = f" Try again in {escape(retry_seconds)} s." if retry_seconds else ""
    return _page(
        title,
        f"""<div class="empty"><h1>{escape(title)}</h1>
<p>{escape(_sentence(detail))}{again}</p></div>""",
    )


def login_page(*, is_wrong: bool = False) -> str:
    """Return the page for a visitor without a valid cookie; ``is_wrong``: with a wrong link."""
    why = _WRONG_LINK if is_wrong else ""
    return _page(
        "Log in",
        f"""<div class="empty"><h1>Log in</h1>
{why}<p>Open the <strong>dashboard</strong> link that <code>plexd-server</code> printed when it
started. It looks like <code><span id="origin"></span>/login?token=…</code> and logs this browser
in.</p></div>""",
        modules=("login.js",),
    )


def _page(
    title: str,
    main: str,
    *,
    here: str | None = None,
    head: str = "",
    modules: tuple[str, ...] = (),
    plots: bool = False,
) -> str:
    """Return a page; with its own path as ``here``, it links to the other pages."""
    scripts = _PLOTS if plots else ""
    scripts += "".join(f'<script type="module" src="/static/{m}"></script>\n' for m in modules)
    return _LAYOUT.substitute(
        title=f"{escape(title)} · plexd",
        main=main,
        head=head,
        scripts=scripts,
        pages=("" if here is None else _pages(here)) + (_LOG_OUT if "logout.js" in modules else ""),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _pages(here: str) -> str:
    links = "".join(
        f'<a href="{path}"{_CURRENT if path == here else ""}>{name}</a>' for path, name in _PAGES
    )
    return f'<nav class="pages" aria-label="Pages">{links}</nav>\n'


_REFUSALS: Final = {401: login_page, 404: not_found_page}
