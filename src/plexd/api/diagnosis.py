"""What a failed connection usually means, as the end of its reason.

Numbers are those of OpenSSL's ``x509_vfy.h``.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from plexd.api.answers import one_line
from plexd.api.errors import TLSError

if TYPE_CHECKING:
    import ssl
    from datetime import datetime

_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME, _WRONG_ADDRESS = 62, 64
# A server without TLS answers in plain text, which OpenSSL reads as a record of TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
_MOST_NAMES = 5
_NAMES_SECONDS = 5.0
_SAYS_HTTPS = 500  # bytes; servers say it in the first lines
# The words of Go's net/http, nginx, Apache, Tomcat and plexd-server. "https" alone is in the type
# of many a problem.
_WANTS_HTTPS = re.compile(
    rb"http request (was sent )?to (an )?https|plain http to an ssl-enabled|port requires tls"
    rb"|port speaks https",
    re.IGNORECASE,
)

MAYBE_HTTPS = "; does it speak HTTPS? Then the URL has to begin with https://"


def why_not_accepted(error: ssl.SSLCertVerificationError, now: datetime) -> str:
    """The reason why a certificate was not accepted; ``now`` is this machine's clock."""
    reason = f"certificate not accepted: {error.verify_message}"
    if error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
        return f"{reason}; this machine's clock says {now:%Y-%m-%dT%H:%MZ}: is it right?"
    if is_of_another_name(error):
        return f"{reason.rstrip('.')}; the URL needs a name or address that is in the certificate"
    return reason


def is_of_another_name(error: BaseException | None) -> bool:
    """Whether a certificate was refused only because it has not the name in the URL."""
    return getattr(error, "verify_code", 0) in {_WRONG_NAME, _WRONG_ADDRESS}


async def names_shown(url: str, trust: ssl.SSLContext) -> str:
    """The names in the certificate of the server at ``url``, as the end of a reason; else nothing.

    Connects once more, as a refused certificate is not handed out, and sends nothing. ``trust`` is
    a context of the caller's own, and its authorities are still asked. Takes 5 s at most.
    """
    trust.check_hostname = False
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_NAMES_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=trust)
    except (OSError, ValueError):  # a TimeoutError is an OSError
        return ""
    certificate = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    names = [name for _, name in certificate.get("subjectAltName", ()) if isinstance(name, str)]
    return f": {one_line(', '.join(names[:_MOST_NAMES]))}" if names else ""


def why_no_handshake(error: ssl.SSLError) -> str:
    """The reason why a handshake failed before there was a certificate."""
    reason = f"TLS handshake failed: {error.reason}"
    if error.reason in _NO_TLS:
        return f"{reason}; what answers there does not speak HTTPS: check the port of the URL"
    return reason


def refuse_if_https(body: bytes) -> None:
    """Raise `TLSError` for the answer of servers that want HTTPS to a request without it."""
    if _WANTS_HTTPS.search(body[:_SAYS_HTTPS]):
        reason = "it speaks HTTPS: the URL has to begin with https://"
        raise TLSError(reason, was_connected=False)  # what was sent had no effect
