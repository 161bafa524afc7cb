"""Good and bad certificates, and server contexts that use them."""

from __future__ import annotations

import shlex
import ssl
import subprocess
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from support.servers import Connection

__all__ = ["Authority", "refuse_handshake"]

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority for a test; ``ca_file`` has its certificate (PEM)."""

    ca: trustme.CA
    ca_file: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        path = folder / "ca.pem"
        ca.cert_pem.write_to_path(path)
        return cls(ca, path)

    def become_the_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make it the system's only authority, for contexts made from now on."""
        monkeypatch.setenv("SSL_CERT_FILE", str(self.ca_file))

    def server(
        self,
        *names: str,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> ssl.SSLContext:
        """Use a certificate for ``names`` (this machine's loopback address by default)."""
        cert = self.ca.issue_cert(
            *(names or ("127.0.0.1", "localhost")),
            not_before=not_before,
            not_after=not_after,
            key_type=trustme.KeyType.ECDSA,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        return context

    def expired(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return self.server(not_before=now - 2 * _DAY, not_after=now - _DAY)

    def not_yet_valid(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        return self.server(not_before=now + _DAY, not_after=now + 2 * _DAY)

    def wrong_name(self) -> ssl.SSLContext:
        return self.server("elsewhere.example")

    def self_signed(self, folder: Path) -> ssl.SSLContext:
        """Use an unknown authority's own certificate."""
        stranger = trustme.CA(key_type=trustme.KeyType.ECDSA)
        chain = folder / "self-signed.pem"
        chain.write_bytes(stranger.private_key_pem.bytes() + stranger.cert_pem.bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context

    def sha_1(self, folder: Path) -> ssl.SSLContext:
        """Use a certificate signed with SHA-1, which only the openssl program still makes."""
        key, own, cert = (folder / name for name in ("sha1.key", "authority.key", "sha1.pem"))
        self.ca.private_key_pem.write_to_path(own)
        command = (
            f"openssl req -x509 -sha1 -newkey rsa:2048 -noenc -subj /CN=sha1 -days 1 "
            f"-addext subjectAltName=IP:127.0.0.1 -CA {shlex.quote(str(self.ca_file))}"
        )
        paths = ("-CAkey", str(own), "-keyout", str(key), "-out", str(cert))
        subprocess.run([*shlex.split(command), *paths], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.load_cert_chain(cert, key)
        return context

    def tls_1_1(self) -> ssl.SSLContext:
        """Speak TLS 1.1 and nothing newer."""
        context = self.server()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context


async def refuse_handshake(connection: Connection, context: ssl.SSLContext) -> None:
    """Answer a handshake that ``context`` refuses with the alert, as real servers do.

    asyncio's own TLS server closes the connection without an alert.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while data := await connection.reader.read(65_536):
        incoming.write(data)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            await connection.send(outgoing.read())
            return
        raise AssertionError("the handshake was not refused")
