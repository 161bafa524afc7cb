"""Fakes of what the pipeline reports to and fetches from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from plexd.api import APIError, MetricBatch, MetricPoint, Receipt, SecretResponse
from plexd.nodeapi import seal_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plexd.metrics.ports import MetricReporter, SecretFetcher


class RecordingReporter:
    """A `MetricReporter` that keeps what it accepts.

    Exceptions queued in ``failures`` are raised first, one a report, and receipts queued there are
    answered; while ``gate`` is cleared, reports hang. ``attempts`` holds every batch, accepted or
    not.
    """

    def __init__(self, *failures: BaseException | Receipt) -> None:
        self.failures = list(failures)
        self.attempts: list[MetricBatch] = []
        self.batches: list[MetricBatch] = []
        self.node_ids: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._arrival = asyncio.Event()

    @property
    def points(self) -> list[MetricPoint]:
        """All points accepted, in order."""
        return [point for batch in self.batches for point in batch]

    async def report_metrics(self, node_id: str, batch: MetricBatch) -> Receipt | None:
        self.attempts.append(batch)
        await self.gate.wait()
        receipt = self.failures.pop(0) if self.failures else None
        if isinstance(receipt, BaseException):
            raise receipt
        if receipt is not None and receipt.clash:
            return receipt
        self.node_ids.append(node_id)
        self.batches.append(batch)
        self._arrival.set()
        return receipt

    async def received(self, *, batches: int) -> None:
        """Return once that many batches were accepted in all."""
        while len(self.batches) < batches:
            self._arrival.clear()
            await self._arrival.wait()


class ScriptedFetcher:
    """A `SecretFetcher` holding secrets in the clear and sealing them as the server would.

    Exceptions queued in ``failures`` are raised first; while ``gate`` is cleared, fetches hang.
    """

    def __init__(self, nsk: bytes, secrets: Mapping[str, str], *failures: Exception) -> None:
        self.nsk = nsk
        self.secrets = dict(secrets)
        self.failures = list(failures)
        self.fetches: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        """The secret, sealed under ``nsk``; `APIError` 404 for one that is not there."""
        self.fetches.append((node_id, key))
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if key not in self.secrets:
            raise APIError(404, f"no secret {key}")
        ciphertext, nonce = seal_secret(self.nsk, self.secrets[key])
        return SecretResponse(key=key, ciphertext=ciphertext, nonce=nonce, version=1)


if TYPE_CHECKING:
    _reporter: type[MetricReporter] = RecordingReporter
    _fetcher: type[SecretFetcher] = ScriptedFetcher
