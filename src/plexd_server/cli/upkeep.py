"""``plexd-server prune`` and ``backup``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd.console import note, put
from plexd_server.cli.options import parse_duration
from plexd_server.cli.output import print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from plexd_server.registry import Registry

__all__ = ["backup", "prune"]


def prune(options: argparse.Namespace) -> Callable[[Registry], None]:
    """Forget what is long over."""
    before = SystemClock().now() - parse_duration("--older-than", options.older_than)

    def command(registry: Registry) -> None:
        gone = registry.prune(before)
        if options.json:
            print_json({"before": before, "removed": gone})
        else:
            put("".join(f"{number} {kind} removed\n" for kind, number in gone.items()))

    return command


def backup(options: argparse.Namespace) -> Callable[[Registry], None]:
    """Copy everything to a new directory."""

    def command(registry: Registry) -> None:
        from plexd_server.upkeep.backup import back_up  # noqa: PLC0415 -- loads the store as well

        with_points = not options.registry_only
        back_up(registry, options.data_dir, options.directory, with_points=with_points)
        what = "registry and master key" if options.registry_only else "everything"
        note(f"{what} copied to {options.directory}, and read back")

    return command
