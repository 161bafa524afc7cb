"""Bring a database's schema to the newest of the numbered migrations.

Alembic is imported only when there is something to migrate (ADR 19). There is no ``alembic.ini``
and no ``env.py``: nothing is read from the working directory, and no logging is configured.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationStep

DIRECTORY = Path(__file__).with_name("migrations")
_VERSIONS = sa.table("alembic_version", sa.column("version_num"))


def newest(directory: Path) -> int:
    """The number of the last migration there is."""
    return max(int(path.name[:4]) for path in directory.glob("[0-9]*.py"))


def applied(connection: sa.Connection) -> int | None:
    """The number of the last migration that was applied; None if none is recorded."""
    if not sa.inspect(connection).has_table(_VERSIONS.name):
        return None
    number = connection.scalar(sa.select(_VERSIONS.c.version_num))
    return None if number is None else int(number)


def upgrade(connection: sa.Connection, directory: Path, unrecorded: int) -> None:
    """Apply what is missing, in the connection's transaction.

    ``unrecorded`` is the number of the schema of a database that records none, 0 for an empty one.
    """
    from alembic.operations import Operations  # noqa: PLC0415 -- as said above
    from alembic.runtime.migration import MigrationContext, MigrationStep  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    folder = os.fspath(directory)
    scripts = ScriptDirectory(folder, version_locations=[folder])

    def missing(heads: tuple[str, ...], _: Any) -> list[MigrationStep]:
        steps = list(scripts.iterate_revisions("heads", heads or "base"))[::-1]
        return [MigrationStep.upgrade_from_script(scripts.revision_map, step) for step in steps]

    context = MigrationContext.configure(connection, opts={"fn": missing})
    if unrecorded and applied(connection) is None:
        context.stamp(scripts, f"{unrecorded:04}")
    with Operations.context(context):
        context.run_migrations()
