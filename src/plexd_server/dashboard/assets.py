"""Static files: those of this package, and Plotly's bundle from its own package."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, resources, util
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from isal import isal_zlib

from plexd_server.errors import StartError
from plexd_server.web.negotiation import accepts_gzip, is_known
from plexd_server.web.problems import RETRY_SOON, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from litestar.datastructures import Headers
    from litestar.types import ASGIApp, Receive, Scope, Send

PLOTLY_NAME: Final = f"plotly-{metadata.version('plotly')}.min.js"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_YEAR: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"
_SENDING = 64
_PIECE_BYTES = 16 * 1024
_GZIP = 31  # zlib's number for a gzip header
_LEVEL = 2


class _Asset(NamedTuple):
    media_type: str
    caching: str
    etag: str
    packed: bytes
    plain_size: int


@dataclass(slots=True)
class _Slots:
    free: int


@dataclass(frozen=True, slots=True)
class _Sending:
    """An ASGI app that sends pieces, each once the one before is on its way."""

    status: int
    fields: Mapping[str, str]
    pieces: Iterable[bytes]
    slots: _Slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(name.encode(), value.encode()) for name, value in self.fields.items()]
        self.slots.free -= 1
        try:
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.slots.free += 1


class Assets:
    """Reads and compresses a file at its first request, and keeps it compressed.

    Answers are sent piece by piece from that one copy, as fast as the client reads; for a client
    that cannot unpack, they are unpacked on the way. So an answer that is not read holds a piece,
    not a copy. ``_SENDING`` are sent at once; beyond, the answer is 503.

    Raises `StartError` on construction if the installed Plotly lacks its bundle.
    """

    def __init__(self) -> None:
        self._plotly = _plotly_bundle()
        self._kept: dict[str, _Asset] = {}
        self._slots = _Slots(_SENDING)

    async def answer(self, name: str, headers: Headers) -> ASGIApp:
        """Return the file of this name; 304 if the browser has it, 404 if there is none."""
        asset = self._kept.get(name)
        if asset is None:
            asset = self._kept[name] = await asyncio.to_thread(self._load, name)
        fields = {"cache-control": asset.caching, "etag": asset.etag, "vary": "Accept-Encoding"}
        if is_known(asset.etag, headers.getall("if-none-match", [])):
            return _Sending(304, fields, (), self._slots)
        if self._slots.free <= 0:
            raise Problem(503, "too many files are being sent", headers=RETRY_SOON)
        fields["content-type"] = f"{asset.media_type}; charset=utf-8"
        if accepts_gzip(headers.getall("accept-encoding", [])):
            fields |= {"content-encoding": "gzip", "content-length": str(len(asset.packed))}
            return _Sending(200, fields, _packed_pieces(asset.packed), self._slots)
        fields["content-length"] = str(asset.plain_size)
        return _Sending(200, fields, _plain_pieces(asset.packed), self._slots)

    def _load(self, name: str) -> _Asset:
        media_type = _MEDIA_TYPES.get(Path(name).suffix)
        if media_type is None or name not in self._names:
            raise Problem(404, "no such file")
        if name == PLOTLY_NAME:
            content, caching = self._plotly.read_bytes(), _YEAR
        else:
            content, caching = (_folder() / name).read_bytes(), _REVALIDATE
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        packed = isal_zlib.compress(content, _LEVEL, _GZIP)
        return _Asset(media_type, caching, etag, packed, len(content))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in _folder().iterdir()) | {PLOTLY_NAME}


def _packed_pieces(packed: bytes) -> Iterator[bytes]:
    for start in range(0, len(packed), _PIECE_BYTES):
        yield packed[start : start + _PIECE_BYTES]


def _plain_pieces(packed: bytes) -> Iterator[bytes]:
    """Unpack an asset, which is whole: it was packed here."""
    stream = isal_zlib.decompressobj(_GZIP)
    for piece in _packed_pieces(packed):
        rest = piece
        while rest:
            yield stream.decompress(rest, _PIECE_BYTES)
            rest = stream.unconsumed_tail


def _folder() -> resources.abc.Traversable:
    return resources.files("plexd_server.dashboard") / "static"


def _plotly_bundle() -> Path:
    """Find Plotly's JavaScript without importing the package: an import takes a while."""
    spec = util.find_spec("plotly")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        bundle = Path(folder) / "package_data" / "plotly.min.js"
        if bundle.is_file():
            return bundle
    raise StartError("the installed plotly package has no plotly.min.js; reinstall plexd[server]")
