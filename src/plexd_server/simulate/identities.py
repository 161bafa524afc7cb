"""The simulated nodes' names and tokens: from a server's data directory, or by enrolment."""

from __future__ import annotations

import base64
import secrets
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from plexd.api import APIError, Config, ControlPlane, TransportError
from plexd_server.errors import SimulationError
from plexd_server.upkeep.data_dir import open_registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from plexd.clock import Clock

_KEY_BYTES = 32


class SimulatedIdentity(Struct, frozen=True):
    """Who a simulated node is to the server."""

    node_id: str
    auth_token: str


def register_here(data_dir: Path, names: Sequence[str], clock: Clock) -> list[SimulatedIdentity]:
    """Register the nodes in a server's own data directory, and replace those of an earlier run.

    Raises `StartError` for a directory that is not a server's.
    """
    made = []
    with closing(open_registry(data_dir, clock)) as registry:
        for number, name in enumerate(names):
            registry.remove_node(name)
            address = f"10.98.{number // 250}.{number % 250 + 1}"
            node = registry.create_node(name, mesh_ip=address, is_back=True)
            made.append(SimulatedIdentity(node.node_id, node.auth_token))
    return made


async def enrol(server: str, token: str, names: Sequence[str]) -> list[SimulatedIdentity]:
    """Enrol the nodes with a bootstrap token. Raises `SimulationError`.

    The token needs a use for each node. The server may give a node another name, if its name is
    in use.
    """
    made = []
    async with ControlPlane(Config(base_url=server)) as plane:
        for name in names:
            key = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
            try:
                node = await plane.register(token, key, name, {"simulated": "yes"})
            except (APIError, TransportError) as err:
                raise SimulationError(f"{name} cannot enrol: {err}") from err
            made.append(SimulatedIdentity(node.node_id, node.auth_token))
    return made
