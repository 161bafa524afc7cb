"""An HTTP proxy between the agent and the control plane."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from plexd.api.secret import Secret
from plexd.api.zones import check_zone, with_plain_zone

_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]|\\")


class Proxy(Struct, frozen=True):
    """A proxy: ``url`` is its scheme, host and port, ``authorization`` the value of a header.

    An ``https`` request goes through a tunnel that CONNECT opens (RFC 9110, 9.3.6), so the proxy
    sees neither the token nor the answer.
    """

    url: str
    authorization: Secret = Secret()

    def headers(self) -> dict[str, str]:
        """Return what a request to the proxy itself needs."""
        if not self.authorization:
            return {}
        return {"Proxy-Authorization": self.authorization.reveal()}


def parse_proxy(text: str) -> Proxy | None:
    """The proxy that ``text`` names, None for none. Raises `ValueError`, which quotes no password.

    It is ``http://[USER:PASSWORD@]HOST[:PORT]``, user and password percent-encoded (RFC 3986).
    """
    text = Secret(text).reveal()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL such as http://proxy.example:3128") from None
    if parts.scheme != "http" or not parts.hostname or _NOT_IN_A_URL.search(text):
        raise ValueError("must be a URL such as http://proxy.example:3128, with http://")
    if port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("must end with the proxy's port, such as http://proxy.example:3128")
    url = f"http://{parts.netloc.rpartition('@')[2]}"
    check_zone(url)
    return Proxy(with_plain_zone(url), _basic(parts.username, parts.password))


def _basic(user: str | None, password: str | None) -> Secret:
    """Return the credentials of RFC 7617; empty without any."""
    if not user and not password:
        return Secret()
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return Secret(f"Basic {b64encode(pair.encode()).decode()}")
