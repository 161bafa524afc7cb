"""A node as the server sees it: named batches, sent by hand."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from plexd.api import MetricBatch
from support.points import NOW, SYSTEM

if TYPE_CHECKING:
    from server.running import Answer, Client

__all__ = ["Node", "numbered"]


def numbered(*numbers: int) -> bytes:
    """Points a minute apart, each of a different load."""
    assert isinstance(SYSTEM.data, msgspec.Struct)
    points = [
        msgspec.structs.replace(
            SYSTEM,
            timestamp=NOW + timedelta(minutes=number),
            data=msgspec.structs.replace(SYSTEM.data, load_avg_1=float(number)),
        )
        for number in numbers
    ]
    return MetricBatch(points).to_json()


class Node:
    """Sends named batches of an epoch of its own."""

    def __init__(self, client: Client, node_id: str = "n1") -> None:
        self.client = client
        self.path = f"/v1/nodes/{node_id}"
        self.epoch = secrets.token_hex(16)
        self.after = "none;skipped=0"

    async def send(
        self,
        first: int,
        body: bytes,
        *,
        points: int,
        dropped: int = 0,
        content_type: str = "application/json",
    ) -> Answer:
        return await self.client.post(
            f"{self.path}/metrics",
            body,
            content_type=content_type,
            Plexd_Batch=f"{self.epoch};first={first};points={points}",
            Plexd_After=self.after,
            Plexd_Dropped=str(dropped),
        )

    async def ledger(self) -> dict[str, Any]:
        answer = await self.client.get(f"{self.path}/ledger")
        assert answer.status == 200
        found: dict[str, Any] = answer.json
        return found

    async def loads(self) -> list[float]:
        """The stored numbers, the means of those of the same minute."""
        span = (
            f"since={NOW.isoformat()[:-6]}Z&until={(NOW + timedelta(hours=24)).isoformat()[:-6]}Z"
        )
        answer = await self.client.get(f"{self.path}/series?field=load_avg_1&step=60&{span}")
        found: list[float] = answer.json["fields"]["load_avg_1"]["avg"]
        return found
