"""Static files: our own from this package, Plotly's bundle from the package that ships it."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cached_property
from importlib import metadata, resources, util
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from isal import isal_zlib
from litestar import Response

from plexd_server.errors import StartError
from plexd_server.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PLOTLY_NAME", "Assets"]

PLOTLY_NAME: Final = f"plotly-{metadata.version('plotly')}.min.js"
_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_YEAR: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"
_GZIP = 31  # zlib's number for a gzip header
_LEVEL = 2


class _Asset(NamedTuple):
    media_type: str
    caching: str
    etag: str
    packed: bytes
    plain_size: int


class Assets:
    """Reads and compresses a file when it is first asked for, and keeps it compressed.

    Raises `StartError` on construction if the installed Plotly lacks its bundle.
    """

    def __init__(self) -> None:
        self._plotly = _plotly_bundle()
        self._kept: dict[str, _Asset] = {}

    async def answer(self, name: str, headers: Mapping[str, str]) -> Response[bytes]:
        """The file of this name; 304 for a browser that has it, 404 for anything else."""
        asset = self._kept.get(name)
        if asset is None:
            asset = self._kept[name] = await asyncio.to_thread(self._load, name)
        fields = {"Cache-Control": asset.caching, "ETag": asset.etag, "Vary": "Accept-Encoding"}
        if headers.get("if-none-match") == asset.etag:
            return Response(b"", status_code=304, headers=fields)
        if "gzip" in headers.get("accept-encoding", ""):
            fields["Content-Encoding"] = "gzip"
            return Response(asset.packed, media_type=asset.media_type, headers=fields)
        plain = await asyncio.to_thread(isal_zlib.decompress, asset.packed, _GZIP)
        return Response(plain, media_type=asset.media_type, headers=fields)

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


def _folder() -> resources.abc.Traversable:
    return resources.files("plexd_server.dashboard") / "static"


def _plotly_bundle() -> Path:
    """Plotly's JavaScript, found without importing the package, which takes a while."""
    spec = util.find_spec("plotly")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        bundle = Path(folder) / "package_data" / "plotly.min.js"
        if bundle.is_file():
            return bundle
    raise StartError("the installed plotly package has no plotly.min.js; reinstall plexd[server]")
