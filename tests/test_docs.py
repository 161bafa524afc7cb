"""Every Python block of the documentation runs, against real servers on loopback."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plexd import api
from plexd.nodeapi import seal_secret
from support.servers import Reply, ScriptedServer

if TYPE_CHECKING:
    from support.tls import Authority

ROOT = Path(__file__).parent.parent
NSK = "0123456789abcdef0123456789abcdef"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(
        path, text[: found.start()].count("\n") + 1, found[1], id=f"{path.name}:{found[1][:40]!r}"
    )
    for path in sorted(ROOT.glob("**/*.md"))
    if ".venv" not in path.parts
    for text in [path.read_text()]
    for found in BLOCK.finditer(text)
]


@pytest.mark.parametrize(("path", "line", "block"), BLOCKS)
async def test_the_example_runs(path: Path, line: int, block: str, authority: Authority) -> None:
    ciphertext, nonce = seal_secret(NSK.encode(), "local-token")
    secret = api.SecretResponse(key="k", ciphertext=ciphertext, nonce=nonce, version=1)
    plane = ScriptedServer(Reply(body=msgspec.json.encode(secret)))
    local = ScriptedServer(tls=authority.server())
    async with plane, local:
        text = block.replace("https://plane.example", plane.url)
        # The test's certificate is signed by nobody this machine trusts.
        text = text.replace("https://metrics.local:9090", local.url).replace(
            "secret_key=", "tls_insecure_skip_verify=True, secret_key="
        )
        await _run(text, f"{path.relative_to(ROOT)}:{line}")
    if "plane.example" in block:
        assert any(request.method == "POST" for request in plane.requests)
    if "metrics.local" in block:
        assert local.requests[0].headers["Authorization"] == "Bearer local-token"


async def _run(text: str, place: str) -> None:
    names: dict[str, Any] = {}
    code = compile(text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with asyncio.timeout(20):
        result = eval(code, names)  # noqa: S307, RUF100  # our own documentation
        if inspect.isawaitable(result):
            await result


def test_what_register_is_said_to_say_is_said_somewhere() -> None:
    table = (ROOT / "docs/how-to/enrol.md").read_text().partition("## When it is refused")[2]
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    texts = [text for row in rows for text in re.findall("`(.*?)`", row)]

    assert len(texts) > len(rows) > 5
    assert [text for text in texts for part in text.split("…") if part not in source] == []


def test_every_anchor_of_a_link_is_a_heading() -> None:
    links = [
        (page, target, anchor)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    ]
    wrong = [
        f"{page.relative_to(ROOT)}: {target}#{anchor}"
        for page, target, anchor in links
        if anchor not in _anchors(page.parent / target if target else page)
    ]
    assert len(links) > 10
    assert wrong == []


def _anchors(page: Path) -> set[str]:
    """The headings of ``page``, as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 6


def test_every_source_file_that_a_document_names_is_there() -> None:
    tops = (ROOT / "src", ROOT / "tests", ROOT / "benchmarks")
    files = [str(path) for top in tops for path in top.rglob("*.py")]
    named = {
        (page.name, name)
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(r"(?<![\w/.-])(?:\w+/)+\w+\.py\b", page.read_text())
    }
    assert len(named) > 20
    assert {pair for pair in named if not any(f.endswith(f"/{pair[1]}") for f in files)} == set()
