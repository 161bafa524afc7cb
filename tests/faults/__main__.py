"""The full forms of the fault bench: ``PYTHONPATH=tests python -m faults [NAME…]``.

Prints a table; the exit status is 1 if anything was lost, doubled, altered or not explained.
Needs root, strace, e2fsprogs, iproute2 and nftables. ``--scale`` multiplies the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from faults.clones import clone_and_put_back
from faults.diskfull import fill_apart
from faults.everybyte import damage_every_byte
from faults.handshakes import stop_handshakes
from faults.herd import come_back
from faults.kills import kill_agents
from faults.lossy import lose_packets
from faults.outage import outage
from faults.powercut import cut_apart
from faults.serverkills import kill_servers, kill_tables
from faults.serversweep import sweep_server
from faults.sweep import KILL, sweep, sweep_lasting, sweep_recovery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.numbered import Meta
    from faults.sweep import Swept

_KILLED_CALLS = (
    "pwrite64",
    "fdatasync,fsync",
    "openat,unlink,ftruncate,fallocate,mkdir,fchmod",
    "pread64",
    "fcntl",
    "write",
    "sendto",
    "connect,socket",
    "close",
)
# The spool's thread wakes the event loop with the same calls that reports are sent by.
_KILLED_IN_MAIN = ("sendto", "recvfrom", "write", "epoll_wait")
_RECOVERING_CALLS = (
    "pwrite64",
    "fdatasync,fsync",
    "openat,unlink,ftruncate,fallocate",
    "pread64",
    "sendto",
)
_FAILED_CALLS = {
    "error=ENOSPC": ("pwrite64", "ftruncate,fallocate"),
    "error=EIO": ("pwrite64", "fdatasync,fsync", "pread64"),
    "error=EINTR": ("pwrite64",),
    "retval=0": ("pwrite64",),
}
_LASTING_CALLS = {
    "error=ENOSPC": ("pwrite64",),
    "error=EIO": ("pwrite64", "fdatasync,fsync"),
}
_SERVER_CALLS = (
    "pwrite64",
    "fdatasync,fsync",
    "write,writev",
    "sendto",
    "openat,link,unlink,unlinkat,ftruncate,mkdir",
)
_MOST_RISE_MIB, _MOST_KEPT_MIB = 300, 64
_SERVER_FAILURES = {
    "error=ENOSPC": ("pwrite64", "write"),
    "error=EIO": ("pwrite64", "fdatasync,fsync", "write", "pread64"),
}


class Row(NamedTuple):
    """One line of the table."""

    what: str
    faults: int
    points: int
    lost: int
    doubled: int
    altered: int
    remark: str = ""

    @property
    def is_well(self) -> bool:
        return not (self.lost or self.doubled or self.altered)


def _of(what: str, faults: int, accounts: list[Meta], remark: str = "") -> Row:
    return Row(
        what,
        faults,
        sum(found.told for found in accounts),
        sum(len(found.lost) for found in accounts),
        sum(len(found.doubled) for found in accounts),
        sum(len(found.altered) for found in accounts),
        remark,
    )


def _agent_kills(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    done = kill_agents(round(5000 * scale), directory, seed)
    remark = f"{done.duplicates} reports came again, {done.missing} missing"
    yield _of("agent killed at random moments (A01)", done.kills, [done.account], remark)


def _server_kills(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    for what, kills, number in (
        ("server killed at random moments (H01)", 1000, signal.SIGKILL),
        ("server stopped under load (H15)", 50, signal.SIGTERM),
    ):
        place = directory / number.name
        done = kill_servers(round(kills * scale), place, seed, forked=True, number=number)
        again = sum(int(str(ledger["duplicates"])) for ledger in done.ledgers)
        gaps = sum(int(str(ledger["gap"])) for ledger in done.ledgers)
        yield _of(what, done.kills, done.accounts, f"{again} reports came again, {gaps} gaps")
    done = kill_tables(round(1000 * scale), directory / "tables", seed)
    remark = f"{done.awake} while it lived"
    yield _of(
        "the tables' process killed at random moments (H01)", done.kills, done.accounts, remark
    )
    done = kill_servers(max(1, round(20 * scale)), directory / "real", seed, forked=False)
    yield _of(
        "server killed at random moments, started by its command (H01)", done.kills, done.accounts
    )


def _swept(what: str, done: list[Swept]) -> Row:
    """Each position is a run of its own; one after which anything was off counts as lost here."""
    wrong = [line for swept in done for line in swept.wrong]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    remark = ", ".join(f"{swept.positions} {swept.call.replace(',', '/')}" for swept in done)
    return Row(what, sum(swept.positions for swept in done), 0, len(wrong), 0, 0, remark)


def _sweeps(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    step = max(1, round(1 / scale))
    first = 1 + seed % step
    kills = [
        sweep(call, KILL, directory / "kill", first=first, step=step) for call in _KILLED_CALLS
    ]
    kills += [
        sweep(call, KILL, directory / "main", first=first, step=step, in_main=True)
        for call in _KILLED_IN_MAIN
    ]
    yield _swept("agent killed at each call of a cycle (A02)", kills)
    recoveries = [
        sweep_recovery(call, directory / "recovery", first=first, step=step)
        for call in _RECOVERING_CALLS
    ]
    yield _swept("the same after a kill, in recovery (A02, C07)", recoveries)
    for effect, calls in _FAILED_CALLS.items():
        done = [sweep(call, effect, directory / effect, first=first, step=step) for call in calls]
        yield _swept(f"each call fails once, {effect} (C02, C03, C04, C05)", done)
    for effect, calls in _LASTING_CALLS.items():
        place = directory / f"{effect}-lasting"
        done = [sweep_lasting(call, effect, place, first=first, step=3 * step) for call in calls]
        yield _swept(f"all calls fail for 0.4 s, {effect} (C02, C03)", done)


def _server_sweeps(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    step = max(1, round(1 / scale))
    done = [
        sweep_server(call, directory, first=1 + seed % step, step=step) for call in _SERVER_CALLS
    ]
    yield _swept("server killed at each call of its life (H01, H17)", done)
    for effect, calls in _SERVER_FAILURES.items():
        place = directory / effect
        done = [sweep_server(call, place, effect=effect, step=step) for call in calls]
        yield _swept(f"each call of the server fails once, {effect} (H08)", done)


def _power_cuts(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    done = cut_apart(round(1000 * scale), directory, seed)
    yield Row(
        "power cut (C06), every third during recovery (C07)",
        done.cuts,
        done.told,
        done.lost,
        done.doubled,
        done.altered,
    )


def _full_disks(directory: Path, scale: float, _: int) -> Iterator[Row]:
    for refusing in (False, True):
        place = directory / str(refusing)
        place.mkdir()
        times = max(1, round(30 * scale))
        done = fill_apart(times, place, refusing=refusing)
        what = "disk filled by another (C02, C12)" + (", control plane away" if refusing else "")
        remark = f"degraded {done.log.count('spool degraded')} times, {done.dropped} dropped"
        yield Row(what, times, done.promised, done.lost, done.doubled, done.altered, remark)


def _outages(directory: Path, scale: float, _: int) -> Iterator[Row]:
    done = asyncio.run(outage(directory, timedelta(hours=24 * scale)))
    remark = (
        f"{'in order' if done.in_order else 'OUT OF ORDER'}, {done.attempts} attempts; "
        f"spool {done.spool_mib:.0f} MiB; resident {done.started_mib:.0f} MiB at the start, "
        f"{done.collected_mib:.0f} after collecting, {done.reopened_mib:.0f} after opening again, "
        f"{done.drained_mib:.0f} after the delivery, which took {done.drain_seconds / 60:.0f} min"
    )
    lost = done.collected - done.delivered + (not done.in_order)
    what = "a day without a control plane at 50 peers (D01, C13)"
    yield Row(what, 1, done.collected, max(0, lost), max(0, -lost), 0, remark)


def _every_byte(_: Path, scale: float, __: int) -> Iterator[Row]:
    done = asyncio.run(damage_every_byte(max(1, round(1 / scale))))
    remark = ", ".join(f"{what} in {count:,}" for what, count in done.outcomes.most_common())
    what = "one byte of the spool's files flipped, zeroed or the last (C01)"
    yield Row(what, done.cases, 0, done.wrong, 0, done.altered, remark)


def _lossy_links(directory: Path, scale: float, _: int) -> Iterator[Row]:
    done = lose_packets(max(1, round(100 * scale)), directory)
    again = f"{done.duplicates} reports came again"
    remark = f"{done.packets:,} packets lost, {again}, {done.missing} missing"
    yield _of("link that loses 30 % is cut and mended (D06)", done.cuts, [done.account], remark)


def _herds(directory: Path, scale: float, _: int) -> Iterator[Row]:
    _raise_descriptors()
    done = come_back(max(1, round(10_000 * scale)), directory)
    remark = (
        f"in {done.seconds:.0f} s, told {done.refusals:,} times to come later; "
        f"the server's resident memory was {done.peak_mib:.0f} MiB at most"
    )
    what = "nodes that come back at once with a backlog (H12)"
    yield Row(what, done.nodes, done.points, done.lost, done.doubled, done.altered, remark)


def _clones(directory: Path, scale: float, seed: int) -> Iterator[Row]:
    done = clone_and_put_back(max(1, round(200 * scale)), directory, seed)
    lost = {
        reason: done.ledger[reason]
        for reason in ("evicted", "rejected", "gap")
        if reason in done.ledger
    }
    remark = (
        f"{done.copies} copies, {done.put_back} put back; {done.abandoned} points were only on an "
        f"abandoned timeline; the ledger counts {lost}"
    )
    what = "machine cloned or put back to a snapshot (A17)"
    yield _of(what, done.copies + done.put_back, [done.account], remark)


def _handshakes(directory: Path, scale: float, _: int) -> Iterator[Row]:
    """Count as lost what is not closed in time, or costs more than 300 MiB, or keeps 64."""
    _raise_descriptors()
    for cost in stop_handshakes(directory, max(1, round(6000 * scale))):
        rise, kept = ((of - cost.before) / 1024 for of in (cost.most, cost.after))
        remark = (
            f"{rise:.0f} MiB more at most, {kept:.0f} afterwards; another client was answered "
            f"within {cost.longest_wait:.1f} s; closed {cost.closed_after:.0f} s after the last"
        )
        is_wrong = rise >= _MOST_RISE_MIB or kept >= _MOST_KEPT_MIB
        yield Row(f"TLS: {cost.kind} (G11)", cost.sockets, 0, int(is_wrong), 0, 0, remark)


def _raise_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


_BENCHES = {
    "kills": _agent_kills,
    "server-kills": _server_kills,
    "sweeps": _sweeps,
    "server-sweeps": _server_sweeps,
    "power-cuts": _power_cuts,
    "full-disks": _full_disks,
    "every-byte": _every_byte,
    "lossy-link": _lossy_links,
    "herd": _herds,
    "handshakes": _handshakes,
    "clones": _clones,
    "outage": _outages,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("names", nargs="*", choices=[*_BENCHES, []], metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options = parser.parse_args()
    _say(f"seed {options.seed}\n\n| | faults | points | lost | doubled | altered | | s |\n")
    _say("|---|---|---|---|---|---|---|---|\n")
    is_well = True
    for name in options.names or _BENCHES:
        with tempfile.TemporaryDirectory(prefix="plexd-faults-") as directory:
            is_well &= _run(name, Path(directory), options)
    return 0 if is_well else 1


def _run(name: str, directory: Path, options: argparse.Namespace) -> bool:
    is_well = True
    began = time.monotonic()
    for row in _BENCHES[name](directory, options.scale, options.seed):
        points = f"{row.points:,}" if row.points else ""
        cells = [row.what, f"{row.faults:,}", points, row.lost, row.doubled, row.altered]
        seconds = f"{time.monotonic() - began:.0f}"
        _say(f"| {' | '.join(map(str, cells))} | {row.remark} | {seconds} |\n")
        began = time.monotonic()
        is_well &= row.is_well
    return is_well


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
