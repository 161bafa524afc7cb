"""Interfaces by their alternative names, and the network behind another ``/proc``."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT, Namespace
from plexd.agent.config.checks import warnings_about_machine
from plexd.agent.config.settings import load_settings
from plexd.procfs import LinuxSystemReader, primary_name

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = list(ROOT)

SHORT = "enp0s99"
LONG = "enp0s31f6np0d1-a-name-too-long-for-the-first-one"


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    """A namespace with one interface, which received something, under three names."""
    with Namespace() as made:
        made.run("ip", "link", "add", "va", "type", "veth", "peer", "vb")
        for name in (SHORT, LONG):
            made.run("ip", "link", "property", "add", "dev", "va", "altname", name)
        made.run("ip", "address", "add", "10.9.0.1/24", "dev", "va")
        for end in ("va", "vb"):
            made.run("ip", "link", "set", end, "up")
        with made.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sending:
            sending.bind(("vb", 0))
            for _ in range(5):
                sending.send(bytes(1000))
        yield made


@pytest.mark.parametrize("name", ["va", SHORT, LONG])
async def test_an_interface_is_counted_under_each_of_its_names(
    network: Namespace, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with network.inside():
        stats = await LinuxSystemReader(net_iface=name).read_stats()
    assert stats.network_rx_bytes >= 5000
    assert caplog.records == []


@pytest.mark.parametrize("name", ["va", SHORT, LONG])
def test_the_check_knows_each_name_of_an_interface(network: Namespace, name: str) -> None:
    settings = load_settings(None, {"PLEXD_SYSTEM_NET_IFACE": name})
    with network.inside():
        assert list(warnings_about_machine(settings)) == []


@pytest.mark.parametrize("name", [b"", b"eth9", b"x" * 127, b"x" * 128, b"x" * 5000, b"\xff"])
def test_a_name_that_no_interface_has_is_none(network: Namespace, name: bytes) -> None:
    with network.inside():
        assert primary_name(name) == b""


def test_an_interface_of_another_namespace_is_none_here(network: Namespace) -> None:
    with network.inside():
        assert primary_name(SHORT.encode()) == b"va"
    assert primary_name(SHORT.encode()) == b""


@pytest.fixture(params=["mounted", "through a process"])
def hosts_proc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """``/proc`` in a second place, as containers are given it."""
    if request.param != "mounted":
        yield Path("/proc/self/root/proc")  # one of another process need not be readable
        return
    subprocess.run(["mount", "--bind", "/proc", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def received_by_the_first_process() -> int:
    lines = Path("/proc/1/net/dev").read_text().splitlines()[2:]
    counters = (line.rpartition(":") for line in lines)
    return sum(int(c.split()[0]) for name, _, c in counters if name.strip() != "lo")


def test_a_container_with_the_hosts_proc_reads_the_hosts_network(
    network: Namespace, hosts_proc: Path
) -> None:
    code = (
        "import asyncio, sys; from plexd.procfs import LinuxSystemReader; "
        "print(asyncio.run(LinuxSystemReader(proc_root=sys.argv[1]).read_stats()).network_rx_bytes)"
    )
    before = received_by_the_first_process()
    said = subprocess.run(
        ["ip", "netns", "exec", network.name, sys.executable, "-c", code, str(hosts_proc)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert before <= int(said.stdout) <= received_by_the_first_process()


def test_where_netlink_is_forbidden_no_name_is_found() -> None:
    """As with ``RestrictAddressFamilies=`` of systemd: the descriptors are used up instead."""
    code = (
        "import resource; from plexd.procfs import primary_name; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0)); print(primary_name(b'lo'))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "b''\n"
