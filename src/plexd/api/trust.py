"""Whom a client trusts over TLS, and how that changes while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

from msgspec import Struct

from plexd.api.errors import TLSError


class Trust(Struct, frozen=True):
    """Whom to trust: the system's authorities, those of ``ca_file`` instead, or every server."""

    ca_file: str = ""
    skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Return a client context; raise `TLSError` when ``ca_file`` cannot be used."""
        if self.skip_verify:
            return _unverified()
        try:
            if self.ca_file and Path(self.ca_file).is_fifo():
                raise ValueError("it is a named pipe")  # noqa: TRY301 - one place makes the error
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ValueError) as err:  # ssl.SSLError is an OSError; a NUL is a ValueError
            reason = getattr(err, "reason", None) or getattr(err, "strerror", None) or err
            text = f"cannot use the CA file {self.ca_file}: {reason}"
            raise TLSError(text, was_connected=False) from err
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TrustStore:
    """The context of a client, read when it is first needed and again after a refusal.

    Authorities are renewed under a running program, as tokens are. Those that are read cost about
    1 MB.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._context: ssl.SSLContext | None = None

    @property
    def has_own_authorities(self) -> bool:
        """Whether ``ca_file`` is set, so that it is to be read whatever the URL is."""
        return bool(self._trust.ca_file)

    def context(self) -> ssl.SSLContext:
        """Return the context in use. Raises `TLSError` when ``ca_file`` cannot be used."""
        if self._context is None:
            self._context = self._trust.context()
        return self._context

    def renew(self) -> bool:
        """Read the authorities again after a server was refused; return whether they are others.

        Raises `TLSError` when ``ca_file`` cannot be used; it is read again with the next request.
        """
        refused, self._context = self._context, None
        known = refused.get_ca_certs(binary_form=True) if refused is not None else []
        return set(known) != set(self.context().get_ca_certs(binary_form=True))

    def fresh_context(self) -> ssl.SSLContext:
        """Return a context of the caller's own."""
        return self._trust.context()
