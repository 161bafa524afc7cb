"""The tunnels inside the machine, made with ``wg`` and busybox."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from pathlib import Path

__all__ = ["MODULES", "busybox", "load_modules", "make_pair", "make_thousand", "wg"]

MODULES = "/modules"
PEERS = 1000
# More than fit into one message of a dump, so this peer continues in the next.
NETWORKS_OF_ONE = 700


def wg(*arguments: str, told: str = "") -> str:
    return _run("wg", *arguments, told=told)


def busybox(*arguments: str) -> str:
    return _run("/bin/busybox", *arguments)


def load_modules() -> None:
    for path in sorted(Path(MODULES).iterdir()):
        busybox("insmod", str(path))


def make_pair() -> None:
    """Make ``plexd0`` here, and two peers elsewhere, one over IPv4, one over IPv6; shake hands."""
    busybox("ip", "link", "set", "lo", "up")
    elsewhere = other_namespace()
    keys = {name: wg("genkey") for name in ("plexd0", "plexd1", "plexd2")}
    secret = wg("genpsk")
    for number, (name, key) in enumerate(keys.items()):
        busybox("ip", "link", "add", name, "type", "wireguard")
        configure(name, f"[Interface]\nPrivateKey = {key}\nListenPort = {51820 + number}\n")
    for number, (endpoint, shared) in enumerate(
        (("127.0.0.1:51821", ""), ("[::1]:51822", f"PresharedKey = {secret}\n")), start=1
    ):
        here, name = f"10.9.{number}.1", f"plexd{number}"
        there = f"10.9.{number}.2"
        join("plexd0", keys[name], f"{there}/32", f"Endpoint = {endpoint}\n{shared}")
        join(name, keys["plexd0"], f"{here}/32", shared)
        busybox("ip", "address", "add", f"{here}/24", "dev", "plexd0")
        busybox("ip", "link", "set", name, "netns", str(elsewhere))
        for command in (f"ip address add {there}/24 dev {name}", f"ip link set {name} up"):
            busybox("nsenter", "-t", str(elsewhere), "-n", "/bin/busybox", *command.split())
    busybox("ip", "link", "set", "plexd0", "up")
    for number in (1, 2):
        busybox("ping", "-c", "1", "-W", "20", f"10.9.{number}.2")


def other_namespace() -> int:
    """Make a network namespace; return the process that holds it until the machine ends."""
    process = subprocess.Popen(
        ["/bin/busybox", "unshare", "-n", "/bin/busybox", "sh", "-c", "echo made; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"
    return process.pid


def make_thousand(name: str) -> None:
    """Make an interface with every kind of peer; it is down, so that no value changes."""
    interface = f"[Interface]\nPrivateKey = {wg('genkey')}\nListenPort = 51830\n"
    busybox("ip", "link", "add", name, "type", "wireguard")
    configure(name, interface + "".join(map(peer_section, range(PEERS))))


def peer_section(number: int) -> str:
    lines = ["[Peer]", f"PublicKey = {_random_key()}", f"AllowedIPs = {','.join(networks(number))}"]
    if number % 3 == 0:
        lines.append(f"PresharedKey = {_random_key()}")
    if number % 4 == 1:
        lines.append(f"Endpoint = 192.0.2.{number % 250}:{1024 + number}")
    if number % 4 == 2:
        lines.append(f"Endpoint = [2001:db8::{number:x}]:{1024 + number}")
    if number % 7 == 0:
        lines.append("PersistentKeepalive = 25")
    return "".join(f"{line}\n" for line in lines)


def networks(number: int) -> list[str]:
    found = [f"10.10.{number // 250}.{number % 250}/32"]
    if number % 5 == 0:
        found.append(f"fd00:{number:x}::/64")
    if number == PEERS // 2:
        found += (f"10.{20 + n // 250}.{n % 250}.0/24" for n in range(NETWORKS_OF_ONE))
    return found


def join(interface: str, private_key: str, networks: str, more: str) -> None:
    public_key = wg("pubkey", told=private_key)
    section = f"[Peer]\nPublicKey = {public_key}\nAllowedIPs = {networks}\n{more}"
    wg("addconf", interface, "/proc/self/fd/0", told=section)


def configure(interface: str, text: str) -> None:
    wg("setconf", interface, "/proc/self/fd/0", told=text)


def _run(*command: str, told: str = "") -> str:
    done = subprocess.run(command, input=told, text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout.strip("\n")


def _random_key() -> str:
    return b64encode(os.urandom(32)).decode()
