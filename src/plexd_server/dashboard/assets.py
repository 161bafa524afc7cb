"""Static files: those of this package, and the browser's libraries that the build puts beside."""

from __future__ import annotations

import asyncio
import hashlib
from importlib import resources
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

from isal import isal_zlib
from litestar import Response

from plexd_server.errors import StartError
from plexd_server.web.negotiation import accepts_gzip, is_known
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from litestar.datastructures import Headers

_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_VENDOR: Final = "vendor"  # as hatch_build.py names it
_REVALIDATE: Final = "no-cache"
_GZIP = 31  # zlib's number for a gzip header
_LEVEL = 3


class _Asset(NamedTuple):
    media_type: str
    etag: str
    plain: bytes
    packed: bytes


class Assets:
    """Reads and compresses a file at its first request, and keeps both forms.

    No file is as large as the buffer that the kernel keeps of a connection, so an answer that is
    not read holds nothing here.

    Raises `StartError` on construction if the browser's libraries are not there.
    """

    def __init__(self) -> None:
        self._files = {entry.name: entry for entry in _entries() if _is_served(entry)}
        self._kept: dict[str, _Asset] = {}

    async def answer(self, name: str, headers: Headers) -> Response[bytes]:
        """Return the file of this name; 304 if the browser has it, 404 if there is none."""
        asset = self._kept.get(name)
        if asset is None:
            asset = self._kept[name] = await asyncio.to_thread(self._load, name)
        fields = {"cache-control": _REVALIDATE, "etag": asset.etag, "vary": "Accept-Encoding"}
        if is_known(asset.etag, headers.getall("if-none-match", [])):
            return Response(b"", status_code=304, headers=fields)
        content = asset.plain
        if accepts_gzip(headers.getall("accept-encoding", [])):
            content, fields["content-encoding"] = asset.packed, "gzip"
        return Response(content, media_type=asset.media_type, headers=fields)

    def _load(self, name: str) -> _Asset:
        if name not in self._files:
            raise Problem(404, "no such file")
        content = self._files[name].read_bytes()
        return _Asset(
            media_type=_MEDIA_TYPES[PurePath(name).suffix],
            # Weak, as it is that of both forms (RFC 9110 8.8.3.3).
            etag=f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
            plain=content,
            packed=isal_zlib.compress(content, _LEVEL, _GZIP),
        )


def _is_served(entry: Traversable) -> bool:
    return PurePath(entry.name).suffix in _MEDIA_TYPES


def _entries() -> list[Traversable]:
    folder = resources.files("plexd_server.dashboard") / "static"
    vendor = folder / _VENDOR
    if not vendor.is_dir():
        raise StartError(
            "the browser's libraries are missing from the package; "
            "in a checkout run make setup, elsewhere install plexd[server] again"
        )
    return [*folder.iterdir(), *vendor.iterdir()]
