"""The answers about links, made from the live mesh. Pure.

A large answer is made in steps of a few milliseconds, between which others work: a generator yields
after each, and returns the answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence  # noqa: TC003 -- msgspec reads the annotations
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from msgspec import Raw, Struct, json
from msgspec.structs import astuple

from plexd_server.mesh.classify import SEVERITY
from plexd_server.mesh.links import Link  # noqa: TC001 -- the same
from plexd_server.mesh.status import Status  # noqa: TC001 -- the same

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from plexd_server.mesh.live import LiveMesh, MeshSnapshot
    from plexd_server.mesh.moment import Moment
    from plexd_server.registry import Node


SIMULATED: Final = "sim-"
_MOST_LINKS: Final = 20_000
_MOST_BYTES: Final = 16 * 2**20
_HEAD_BYTES: Final = 1024  # what is neither a node nor a link
_LONGEST_STATUS: Final = len("waiting")
_AT_ONCE: Final = 100
_ENCODER: Final = json.Encoder()


def encoding(answer: Struct) -> Generator[None, None, list[bytes]]:
    """Encode an answer in steps; return the pieces of its JSON. Its lists are encoded in parts."""
    pieces: list[bytes] = []
    for name, value in zip(answer.__struct_fields__, astuple(answer), strict=True):
        pieces.append(b'%c"%b":' % (b"," if pieces else b"{", name.encode()))
        if not isinstance(value, list):
            pieces.append(_ENCODER.encode(value))
            continue
        parts = range(0, len(value), _AT_ONCE)
        for first in parts:
            part = _ENCODER.encode(value[first : first + _AT_ONCE])
            pieces += (b"," if first else b"[", part[1:-1])
            yield
        pieces.append(b"]" if parts else b"[]")
    pieces.append(b"}")
    return pieces


class MeshNode(Struct, frozen=True, kw_only=True):
    """A registered node, or a ``foreign`` peer: a node reads it, but it is not registered.

    A ``waiting`` node has never reported, a ``silent`` one owes a report. A ``simulated`` one does
    not exist: it is for a demonstration or a load test.
    """

    node_id: str
    mesh_ip: str
    status: Status
    simulated: bool


class MeshAnswer(Struct, frozen=True, kw_only=True):
    """The links of registered nodes, by their ends, those between two registered nodes first.

    Of more than 20,000, or 16 MiB, the worst are listed, and ``left_out`` counts the others.
    ``skipped`` points were stored, but never read here. ``peers_left_out`` counts the readings of
    peers for which there was no room.
    """

    now: datetime
    nodes: Sequence[MeshNode]
    links: Sequence[Link]
    left_out: int
    skipped: int
    peers_left_out: int


class PeersAnswer(Struct, frozen=True, kw_only=True):
    """The links of a node: its views, and those of its peers that report too.

    The worst 20,000 or 16 MiB are listed, and ``left_out`` counts the others.
    """

    node_id: str
    now: datetime
    links: Sequence[Link]
    left_out: int


def mesh(
    live: LiveMesh, snapshot: MeshSnapshot, now: Moment, *, most_bytes: int = _MOST_BYTES
) -> Generator[None, None, MeshAnswer]:
    """Make the answer about the whole mesh in steps; what is in it is encoded already.

    The links are chosen once for each snapshot.
    """
    nodes: list[Raw] = []
    left_bytes = most_bytes - _HEAD_BYTES
    for node in live.roster.nodes:
        status = live.look_up(node.node_id).status(now)
        nodes.append(Raw(_ENCODER.encode(_mesh_node(node, status))))
        left_bytes -= len(nodes[-1]) + 1 + _LONGEST_STATUS - len(status)
        if len(nodes) % _AT_ONCE == 0:
            yield
    chosen = snapshot.chosen.get(left_bytes)
    if chosen is None or chosen.known is not live.roster.names:
        chosen = Selection(live.roster.names, left_bytes)
        yield from chosen.choose(snapshot.links)
        snapshot.chosen[left_bytes] = chosen
    return MeshAnswer(
        now=shown(now),
        nodes=cast("Sequence[MeshNode]", nodes + chosen.foreign),
        links=chosen.links(),
        left_out=chosen.left_out,
        skipped=live.skipped,
        peers_left_out=live.left_out,
    )


def peers(
    live: LiveMesh, node_id: str, snapshot: MeshSnapshot, now: Moment
) -> Generator[None, None, PeersAnswer]:
    """Make the answer about one node's links in steps."""
    known = live.roster.names | {node_id}
    answer = Selection(known, _MOST_BYTES - _HEAD_BYTES)
    if not snapshot.links_of:
        yield from _sort_by_end(snapshot)
    yield from answer.choose(snapshot.links_of.get(node_id, ()))
    return PeersAnswer(
        node_id=node_id, now=shown(now), links=answer.links(), left_out=answer.left_out
    )


def _sort_by_end(snapshot: MeshSnapshot) -> Iterator[None]:
    """Fill ``links_of``, once it is whole."""
    found: dict[str, list[Link]] = {}
    for number, link in enumerate(snapshot.links):
        for end in {link.a, link.b}:
            found.setdefault(end, []).append(link)
        if number % _AT_ONCE == 0:
            yield
    snapshot.links_of.update(found)


class Selection:
    """The links of an answer of bounded size, and their ``foreign`` ends, encoded one by one.

    Links between two of the ``known`` nodes come first, the worst of each kind first. A link of no
    known node is none of ours.
    """

    def __init__(self, known: frozenset[str], most_bytes: int) -> None:
        self.known = known
        self._left_bytes = most_bytes
        self._chosen: dict[int, Raw] = {}
        self._names: set[str] = set()
        self.foreign: list[Raw] = []
        self.left_out = 0

    def choose(self, links: Sequence[Link]) -> Iterator[None]:
        """Choose among ``links``, in steps."""
        ranked: defaultdict[tuple[bool, int], list[int]] = defaultdict(list)
        for number, link in enumerate(links):
            ours = (link.a in self.known) + (link.b in self.known)
            if ours:
                ranked[ours < 2, -SEVERITY[link.state]].append(number)
            if number % (5 * _AT_ONCE) == 0:
                yield
        for rank in sorted(ranked):
            yield from self._choose(links, ranked[rank])

    def links(self) -> Sequence[Link]:
        """Return the chosen links in their order, encoded."""
        return cast("Sequence[Link]", [self._chosen[number] for number in sorted(self._chosen)])

    def _choose(self, links: Sequence[Link], numbers: Sequence[int]) -> Iterator[None]:
        for position, number in enumerate(numbers):
            if self._left_bytes <= 0 or len(self._chosen) >= _MOST_LINKS:
                self.left_out += len(numbers) - position
                return
            self._add(number, links[number])
            if position % _AT_ONCE == 0:
                yield

    def _add(self, number: int, link: Link) -> None:
        encoded = self._encoded(link)
        if self._left_bytes < 0:
            self.left_out += 1
            return
        self._chosen[number] = encoded
        for end in (link.a, link.b):
            if end not in self.known and end not in self._names:
                self._names.add(end)
                self.foreign.append(self._encoded(_foreign(end)))

    def _encoded(self, item: Struct) -> Raw:
        encoded = _ENCODER.encode(item)
        self._left_bytes -= len(encoded) + 1
        return Raw(encoded)


def _foreign(peer: str) -> MeshNode:
    return MeshNode(
        node_id=peer, mesh_ip="", status="foreign", simulated=peer.startswith(SIMULATED)
    )


def shown(now: Moment) -> datetime:
    """Return the moment as answers have it."""
    return datetime.fromtimestamp(now.wall, UTC)


def _mesh_node(node: Node, status: Status) -> MeshNode:
    return MeshNode(
        node_id=node.node_id,
        mesh_ip=node.mesh_ip,
        status=status,
        simulated=is_simulated(node),
    )


def is_simulated(node: Node) -> bool:
    """Return whether the node is simulated, by its name or by what it enrolled with."""
    return node.node_id.startswith(SIMULATED) or "simulated" in (node.metadata or {})
