from __future__ import annotations

import re
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

import plexd_server.dashboard
from plexd.clock import SystemClock
from plexd_server.dashboard.assets import Assets
from plexd_server.dashboard.pages import (
    fleet_page,
    login_page,
    mesh_page,
    node_page,
    not_found_page,
    refusal_page,
)
from plexd_server.errors import StartError
from plexd_server.web import ErrorPages
from plexd_server.web.guard import host_name
from plexd_server.web.limits import InFlight
from server.running import Client, served

if TYPE_CHECKING:
    from server.conftest import Shared
    from server.running import Answer

STATIC = Path(plexd_server.dashboard.__file__).parent / "static"
SEND_BUFFER_BYTES = 256 * 1024  # of web/server.py
SERVED = {path.name: path for path in STATIC.rglob("*.*") if path.suffix in {".css", ".js", ".svg"}}


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def assert_page(answer: Answer, status: int, heading: str) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert f"<h1>{heading}</h1>".encode() in answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def cookie_of(answer: Answer) -> str:
    name, morsel = next(iter(SimpleCookie(answer.headers["Set-Cookie"]).items()))
    return f"{name}={morsel.value}"


async def log_in(client: Client, shared: Shared, **headers: str) -> Answer:
    return await client.get(shared.server.login.removeprefix(shared.server.url), **headers)


async def test_the_printed_link_logs_in_and_leads_to_the_nodes(
    nobody: Client, shared: Shared
) -> None:
    answer = await log_in(nobody, shared)

    assert (answer.status, answer.headers["Location"]) == (303, "/")
    attributes = answer.headers["Set-Cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=strict" in attributes
    assert "path=/" in attributes
    assert shared.server.operator_token not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_login_link_on_another_site_is_refused_with_what_to_do(
    nobody: Client, shared: Shared, site: str
) -> None:
    answer = await log_in(nobody, shared, Sec_Fetch_Site=site, Accept=BROWSER)

    assert_page(answer, 403, "Forbidden")
    assert b"open the login link from the address bar" in answer.body
    assert "Set-Cookie" not in answer.headers


async def test_wrong_links_on_another_site_lock_nobody_out(
    nobody: Client, shared: Shared, n1: Client
) -> None:
    for number in range(40):
        path = f"/login?token=x{number}"
        assert (await nobody.get(path, Sec_Fetch_Site="cross-site")).status == 403

    assert (await log_in(nobody, shared)).status == 303
    assert (await n1.get("/v1/nodes/n1/latest")).status == 200


@pytest.mark.parametrize("path", ["/", "/nodes/n1", "/nodes/none"])
async def test_the_cookie_opens_the_pages(nobody: Client, shared: Shared, path: str) -> None:
    cookie = cookie_of(await log_in(nobody, shared))

    answer = await nobody.get(path, Cookie=cookie)

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_the_cookie_allows_reading_and_not_writing(nobody: Client, shared: Shared) -> None:
    cookie = cookie_of(await log_in(nobody, shared))

    assert (await nobody.get("/v1/nodes", Cookie=cookie)).status == 200
    assert (await nobody.post("/v1/nodes/n1/metrics", b"[]", Cookie=cookie)).status == 401


@pytest.mark.parametrize(
    ("node", "target"),
    [("n1", "/nodes/n1"), ("//evil.example", "/"), ("..%2f", "/"), ("a%0d%0ab", "/"), ("", "/")],
)
async def test_a_login_link_leads_to_the_node_it_names_and_nowhere_else(
    nobody: Client, shared: Shared, node: str, target: str
) -> None:
    path = shared.server.login.removeprefix(shared.server.url)

    answer = await nobody.get(f"{path}&node={node}")

    assert (answer.status, answer.headers["Location"]) == (303, target)


@pytest.mark.parametrize("path", ["/", "/nodes/n1", "/login", "/login?token=wrong"])
async def test_without_the_cookie_there_is_only_the_login_page(nobody: Client, path: str) -> None:
    answer = await nobody.get(path, Cookie="plexd-operator-1=x")

    assert answer.status == 401
    assert b"Open the <strong>dashboard</strong> link" in answer.body
    assert all("-return=" in line for line in answer.headers.getall("Set-Cookie", []))


@pytest.mark.parametrize(
    "page",
    ["/", "/mesh", "/nodes/n1?range=7d", "/nodes/n1?since=2026-01-01T00:00:00%2B02:00&q=%20;"],
)
async def test_login_returns_to_the_page_that_was_asked_for(shared: Shared, page: str) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(URL(shared.server.url + page, encoded=True)) as asked:
            assert asked.status == 401
        async with browser.get(shared.server.login, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, page)
        async with browser.get(shared.server.login, allow_redirects=False) as answer:
            assert answer.headers["Location"] == "/"  # it returns there once


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/nodes/n1?range=7d#x", "/nodes/n1?range=7d#x"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        (" //evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/login?token=x", "/"),
        ("/a\r\nSet-Cookie: a=b", "/"),
        ("/ä", "/"),
        ("/" + "a" * 2000, "/"),
        ("", "/"),
    ],
)
@pytest.mark.parametrize("way", ["parameter", "cookie"])
async def test_login_leads_to_a_path_of_this_server_and_nowhere_else(
    nobody: Client, shared: Shared, way: str, wanted: str, target: str
) -> None:
    path, port = shared.server.login.removeprefix(shared.server.url), shared.server.port
    if way == "parameter":
        answer = await nobody.get(f"{path}&next={quote(wanted, safe='')}")
    else:
        cookie = f"plexd-operator-{port}-return={quote(wanted, safe='')}"
        answer = await nobody.get(path, Cookie=cookie)

    assert (answer.status, answer.headers["Location"]) == (303, target)


@pytest.mark.parametrize("path", ["/", "/healthz", "/none", "/static/app.css", "/v1/nodes"])
async def test_every_answer_carries_the_security_headers(nobody: Client, path: str) -> None:
    headers = (await nobody.get(path)).headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'self'(;|$)", policy)
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "status", "heading"),
    [
        ("/no-such-page", 404, "There is no such page"),
        ("/a/b/c", 404, "There is no such page"),
        ("/static/none.js", 404, "There is no such page"),
        ("/v1/nodes", 401, "Log in"),
        ("/v1/nodes/n1/metrics", 405, "Method Not Allowed"),
    ],
)
async def test_a_browser_sees_a_refusal_as_a_page_and_a_program_as_a_problem(
    nobody: Client, path: str, status: int, heading: str
) -> None:
    assert_page(await nobody.get(path, Accept=BROWSER), status, heading)
    for accept in ("*/*", "application/json"):
        answer = await nobody.get(path, Accept=accept)
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_browser_sees_why_it_is_refused_as_a_page(operator: Client, n1: Client) -> None:
    assert_page(await n1.get("/v1/nodes", Accept=BROWSER), 403, "Forbidden")
    answer = await operator.get("/v1/nodes/n1/series?group=none", Accept=BROWSER)
    assert_page(answer, 400, "Bad Request")


async def test_a_browser_on_a_foreign_host_sees_why_as_a_page(nobody: Client) -> None:
    answer = await nobody.get("/", Accept=BROWSER, Host="evil.example")

    assert_page(answer, 421, "Misdirected Request")


async def test_a_browser_that_guesses_sees_on_a_page_when_to_try_again(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d") as server:
        client = Client(session, server.url)
        for number in range(30):
            await client.get(f"/login?token={number}")
        answer = await client.get("/login?token=30", Accept=BROWSER)

    assert_page(answer, 429, "Too Many Requests")
    assert f"Try again in {answer.headers['Retry-After']} s.".encode() in answer.body


async def test_a_browser_sees_a_busy_server_as_a_page_and_other_answers_unchanged() -> None:
    sent = list[Any]()
    refused: Any = ErrorPages(InFlight(_answer_in_pieces, SystemClock(), requests=0), refusal_page)
    answered: Any = ErrorPages(_answer_in_pieces, refusal_page)
    scope = {"type": "http", "method": "GET", "headers": [(b"accept", BROWSER.encode())]}

    async def send(message: Any) -> None:
        sent.append(message)

    await refused(scope, None, send)
    assert (sent[0]["status"], len(sent)) == (503, 2)
    assert b"Try again in 2 s." in sent[1]["body"]
    assert (b"content-length", str(len(sent[1]["body"])).encode()) in sent[0]["headers"]
    sent.clear()
    await answered(scope, None, send)
    assert sent == PIECES


PIECES: Any = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/css")]},
    {"type": "http.response.body", "body": b"a", "more_body": True},
    {"type": "http.response.body", "body": b"b", "more_body": False},
]


async def _answer_in_pieces(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    for message in PIECES:
        await send(message)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil"])
async def test_a_foreign_host_is_not_served(nobody: Client, host: str) -> None:
    answer = await nobody.get("/login", Host=host)

    assert answer.status == 421
    assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("LocalHost:8080", "localhost"),
        ("localhost", "localhost"),
        ("[::1]:8080", "[::1]"),
        ("[::1]", "[::1]"),
        ("localhost:80:90", "localhost:80"),
        ("localhost:x", "localhost:x"),
        ("Plane.Example.", "plane.example"),
        ("plane.example.:443", "plane.example"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("[::g]", "[::g]"),
    ],
)
def test_a_host_header_is_a_name_and_a_port(authority: str, name: str) -> None:
    assert host_name(authority) == name


@pytest.mark.parametrize("name", sorted(SERVED))
async def test_static_files_are_served_as_they_are(nobody: Client, name: str) -> None:
    answer = await nobody.get(f"/static/{name}", Accept_Encoding="identity")

    assert answer.status == 200
    assert answer.body == SERVED[name].read_bytes()
    again = await nobody.get(f"/static/{name}", If_None_Match=answer.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    # One tag for two forms of the content must be a weak one (RFC 9110 8.8.3.3).
    assert answer.headers["ETag"].startswith('W/"')


def test_no_static_file_is_larger_than_what_the_kernel_takes_of_an_answer() -> None:
    assert max(path.stat().st_size for path in SERVED.values()) < SEND_BUFFER_BYTES


async def test_the_charts_library_is_small_on_the_way(nobody: Client) -> None:
    answer = await nobody.get("/static/uplot.js", Accept_Encoding="gzip")

    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 30_000


def test_the_licence_goes_along() -> None:
    assert "MIT License" in (STATIC / "vendor" / "uplot.LICENSE").read_text()


async def test_a_package_without_the_browsers_libraries_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("plexd_server.dashboard.assets._VENDOR", str(tmp_path / "none"))

    with pytest.raises(StartError, match="run make setup"):
        Assets()


@pytest.mark.parametrize("name", ["none.js", "..%2f..%2fcli.py", "assets.py", "app.css%00"])
async def test_no_other_file_is_served(nobody: Client, name: str) -> None:
    assert (await nobody.get(f"/static/{name}")).status == 404


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.found += [value for key in ("src", "href") if (value := named.get(key))]
        self.inline |= (
            tag == "style"
            or (tag == "script" and "src" not in named)
            or any(name == "style" or name.startswith("on") for name in named)
        )


@pytest.mark.parametrize(
    "html",
    [
        fleet_page(),
        login_page(is_wrong=True),
        mesh_page(),
        node_page("n1"),
        not_found_page(),
        refusal_page(503, "Busy", "too much is asked", "2"),
    ],
)
def test_a_page_has_nothing_inline_and_loads_nothing_from_elsewhere(html: str) -> None:
    page = _Sources()
    page.feed(html)

    assert page.found
    assert not page.inline
    assert [source for source in page.found if not re.match(r"/(?!/)|#", source)] == []


@pytest.mark.parametrize("name", sorted(SERVED))
def test_a_static_file_loads_nothing_from_elsewhere(name: str) -> None:
    code = re.sub(r"/\*.*?\*/", "", SERVED[name].read_text())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", code)


@pytest.mark.parametrize("name", [name for name in SERVED if name.endswith(".js")])
def test_no_page_says_over_how_many_pings_a_loss_is(name: str) -> None:
    # That is each node's own setting, and the wire has the share only.
    assert not re.search(r"\d pings|twenty pings", SERVED[name].read_text())


def test_a_node_id_cannot_become_markup() -> None:
    assert "&lt;b&gt;" in node_page("<b>")
    assert "<b>" not in node_page("<b>")


def test_a_refusal_cannot_become_markup() -> None:
    page = refusal_page(400, "<b>", "no <b>", "<b>")

    assert page.count("&lt;b&gt;") == 4
    assert "<b>" not in page


async def test_a_link_of_an_earlier_start_is_explained(nobody: Client) -> None:
    assert b"an earlier start" in (await nobody.get("/login?token=old")).body
    assert b"an earlier start" not in (await nobody.get("/login")).body


async def test_logging_out_needs_the_cookie_and_a_page_of_this_server(
    nobody: Client, shared: Shared
) -> None:
    cookie = cookie_of(await log_in(nobody, shared))

    assert (await nobody.post("/logout", b"")).status == 401
    for origin in ("https://evil.example", "null"):
        foreign = await nobody.post("/logout", b"", Cookie=cookie, Origin=origin)
        assert (foreign.status, "Set-Cookie" in foreign.headers) == (403, False)
    answer = await nobody.post("/logout", b"", Cookie=cookie, Origin=shared.server.url)

    assert (answer.status, answer.headers["Location"]) == (303, "/")
    forgotten = SimpleCookie(answer.headers["Set-Cookie"])[cookie.partition("=")[0]]
    assert (forgotten.value, forgotten["max-age"], forgotten["path"]) == ("", "0", "/")


async def test_logging_out_ends_that_session_for_good_and_no_other(
    nobody: Client, shared: Shared
) -> None:
    mine, other = [cookie_of(await log_in(nobody, shared)) for _ in range(2)]

    await nobody.post("/logout", b"", Cookie=mine, Origin=shared.server.url)

    assert (await nobody.get("/v1/nodes", Cookie=mine)).status == 401
    assert (await nobody.post("/logout", b"", Cookie=mine, Origin=shared.server.url)).status == 401
    assert (await nobody.get("/v1/nodes", Cookie=other)).status == 200


async def test_a_restart_logs_nobody_out(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    with served(tmp_path / "d") as server:
        client = Client(session, server.url)
        link = server.login.removeprefix(server.url)
        stays, ended = [cookie_of(await client.get(link)) for _ in range(2)]
        await client.post("/logout", b"", Cookie=ended, Origin=server.url)
    with served(tmp_path / "d", port=server.port) as server:
        client = Client(session, server.url)
        assert (await client.get("/v1/nodes", Cookie=stays)).status == 200
        assert (await client.get("/v1/nodes", Cookie=ended)).status == 401


async def test_one_can_log_out_behind_a_proxy_on_another_port_or_with_another_host(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d", allowed_hosts=("plane.example",)) as server:
        client = Client(session, server.url)
        link = server.login.removeprefix(server.url)
        for host in ("plane.example", server.url.removeprefix("http://")):
            cookie, origin = cookie_of(await client.get(link)), "https://plane.example:8443"
            answer = await client.post("/logout", b"", Cookie=cookie, Host=host, Origin=origin)
            assert answer.status == 303, host


async def test_the_cookie_is_secure_where_a_trusted_proxy_says_that_the_browser_speaks_https(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    networks = (ip_network("127.0.0.0/8"),)
    for trusted, is_secure in ((networks, True), ((), False)):
        with served(tmp_path / "d", trusted_proxies=trusted) as server:
            link = server.login.removeprefix(server.url)
            answer = await Client(session, server.url).get(link, X_Forwarded_Proto="https")
            assert ("secure" in answer.headers["Set-Cookie"].lower()) == is_secure


async def test_behind_a_trusted_proxy_only_the_client_that_guesses_waits(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d", trusted_proxies=(ip_network("127.0.0.1"),)) as server:
        client = Client(session, server.url)
        statuses = [
            (await client.get(f"/login?token={n}", X_Forwarded_For=f"{n}.6.6.6, 192.0.2.7")).status
            for n in range(31)
        ]
        other = await client.get("/login?token=x", X_Forwarded_For="192.0.2.7, 192.0.2.8")

    assert statuses == [401] * 30 + [429]
    assert other.status == 401
