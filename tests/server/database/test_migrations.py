"""Databases of every age are brought to the newest schema, whole or not at all."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from plexd_server.database import migrate
from plexd_server.database.engine import Database
from plexd_server.database.tables import METADATA
from plexd_server.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

NEWEST = migrate.newest(migrate.DIRECTORY)

VERSION_1 = """
CREATE TABLE nodes (node_id VARCHAR(63) NOT NULL, mesh_ip VARCHAR(45) NOT NULL,
    token_hash BLOB NOT NULL, created_at DATETIME NOT NULL, PRIMARY KEY (node_id),
    UNIQUE (token_hash));
INSERT INTO nodes VALUES ('n1', '10.0.0.1', x'01', '2026-01-02 03:04:05.000006');
INSERT INTO nodes VALUES ('n2', '', x'02', '2026-01-02 03:04:05.000006');
PRAGMA user_version = 1;
"""

VERSION_2 = """
CREATE TABLE nodes (node_id VARCHAR(63) NOT NULL, hostname VARCHAR(253) NOT NULL,
    metadata TEXT NOT NULL, public_key VARCHAR(44), mesh_ip VARCHAR(45) NOT NULL,
    sealed_key BLOB, created_at DATETIME NOT NULL, enrolled_at DATETIME, revoked_at DATETIME,
    PRIMARY KEY (node_id), UNIQUE (public_key));
CREATE TABLE bootstrap_tokens (token_id VARCHAR(16) NOT NULL, token_hash BLOB NOT NULL,
    node_id VARCHAR(63) NOT NULL, uses_left INTEGER NOT NULL, created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL, PRIMARY KEY (token_id), UNIQUE (token_hash));
CREATE TABLE settings (name VARCHAR(32) NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name));
CREATE TABLE node_tokens (token_hash BLOB NOT NULL, node_id VARCHAR(63) NOT NULL,
    purpose VARCHAR(8) NOT NULL, created_at DATETIME NOT NULL, expires_at DATETIME,
    PRIMARY KEY (token_hash), FOREIGN KEY(node_id) REFERENCES nodes (node_id) ON DELETE CASCADE);
CREATE INDEX node_tokens_by_node ON node_tokens (node_id);
CREATE TABLE secrets (node_id VARCHAR(63) NOT NULL, name VARCHAR(128) NOT NULL,
    version INTEGER NOT NULL, sealed BLOB NOT NULL, set_at DATETIME NOT NULL,
    PRIMARY KEY (node_id, name),
    FOREIGN KEY(node_id) REFERENCES nodes (node_id) ON DELETE CASCADE);
INSERT INTO nodes VALUES ('n1', 'h', '{}', 'K', '10.0.0.1', x'0a', '2026-01-02', NULL, NULL);
INSERT INTO node_tokens VALUES (x'01', 'n1', 'node', '2026-01-02', NULL);
INSERT INTO secrets VALUES ('n1', 's', 3, x'0b', '2026-01-02');
INSERT INTO bootstrap_tokens VALUES ('t1', x'0c', '', 1, '2026-01-02', '2026-01-03');
INSERT INTO settings VALUES ('mesh_network', x'0d');
PRAGMA user_version = 2;
"""

AGES = pytest.mark.parametrize("script", ["", VERSION_1, VERSION_2], ids=["new", "1", "2"])


def made(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def query(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def contents(path: Path) -> list[str]:
    """Every table and row as SQL, and the number in the header."""
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]


def with_a_further_step(directory: Path, body: str) -> Path:
    """A directory with the migrations there are and one more."""
    copy = shutil.copytree(migrate.DIRECTORY, directory / "migrations")
    (copy / f"{NEWEST + 1:04}_further.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '{NEWEST + 1:04}', '{NEWEST:04}'\n"
        f"def upgrade():\n    {body}\n"
    )
    return copy


def test_the_steps_are_numbered_without_a_gap() -> None:
    scripts = ScriptDirectory(str(migrate.DIRECTORY), version_locations=[str(migrate.DIRECTORY)])
    steps = [*scripts.walk_revisions()][::-1]

    numbers = [f"{number:04}" for number in range(1, NEWEST + 1)]
    assert [step.revision for step in steps] == numbers
    assert [step.down_revision for step in steps] == [None, *numbers[:-1]]
    assert sorted(path.name[:4] for path in migrate.DIRECTORY.glob("[0-9]*.py")) == numbers


@AGES
def test_a_database_of_any_age_gets_the_tables_that_the_code_uses(
    tmp_path: Path, script: str
) -> None:
    path = made(tmp_path / "registry.db", script)

    with closing(Database(path)) as database, database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert migrate.applied(connection) == NEWEST
    assert query(path, "PRAGMA user_version") == [(NEWEST,)]
    assert query(path, "PRAGMA foreign_key_check") == []


def test_a_database_of_version_1_keeps_its_nodes_and_their_tokens(tmp_path: Path) -> None:
    path = made(tmp_path / "registry.db", VERSION_1)
    Database(path).close()

    time = "2026-01-02 03:04:05.000006"
    nodes = query(path, "SELECT node_id, mesh_ip, created_at, sealed_key FROM nodes")
    assert nodes == [("n1", "10.0.0.1", time, None), ("n2", "", time, None)]
    tokens = query(path, "SELECT token_hash, node_id, purpose, created_at FROM node_tokens")
    assert tokens == [(b"\1", "n1", "node", time), (b"\2", "n2", "node", time)]


def test_a_database_of_version_2_keeps_every_table_and_row(tmp_path: Path) -> None:
    path = made(tmp_path / "registry.db", VERSION_2)
    before = contents(path)
    Database(path).close()

    assert [line for line in before[:-1] if line not in contents(path)] == []
    rows = [line for line in contents(path) if line.startswith("INSERT") and line not in before]
    assert all("alembic_version" in line for line in rows)


def test_a_mesh_address_with_a_zone_is_removed_and_the_node_stays(tmp_path: Path) -> None:
    path = made(
        tmp_path / "registry.db",
        VERSION_2 + "UPDATE nodes SET mesh_ip = 'fd00::2%x'; INSERT INTO nodes VALUES "
        "('n2', 'h', '{}', 'L', 'fd00::2', x'0a', '2026-01-02', NULL, NULL);",
    )
    Database(path).close()

    nodes = query(path, "SELECT node_id, mesh_ip FROM nodes ORDER BY node_id")
    assert nodes == [("n1", ""), ("n2", "fd00::2")]


@pytest.mark.slow
def test_alembic_is_loaded_only_to_migrate(tmp_path: Path) -> None:
    opening = (
        "import sys; from pathlib import Path\n"
        "from plexd_server.database.engine import Database\n"
        "Database(Path(sys.argv[1])).close()\n"
        "print('alembic' in sys.modules)"
    )
    line = [sys.executable, "-c", opening, str(tmp_path / "registry.db")]

    said = [subprocess.run(line, capture_output=True, text=True, check=True) for _ in range(2)]

    assert [(done.stdout, done.stderr) for done in said] == [("True\n", ""), ("False\n", "")]


@AGES
def test_a_migration_that_fails_midway_leaves_the_database_as_it_was(
    tmp_path: Path, script: str
) -> None:
    path = made(tmp_path / "registry.db", script)
    before = contents(path)
    failing = with_a_further_step(
        tmp_path, "op.create_table('half', sa.Column('a', sa.Integer)); raise EOFError"
    )

    with pytest.raises(EOFError):
        Database(path, migrations=failing)

    assert contents(path) == before
    Database(path).close()
    assert query(path, "PRAGMA user_version") == [(NEWEST,)]


def test_a_statement_that_the_database_refuses_stops_the_start(tmp_path: Path) -> None:
    path = made(tmp_path / "registry.db", VERSION_2)
    before = contents(path)
    refused = with_a_further_step(tmp_path, "op.drop_table('secrets'); op.drop_table('none')")

    with pytest.raises(StartError, match=r"cannot open .*registry\.db: no such table: none; "):
        Database(path, migrations=refused)

    assert contents(path) == before


def test_a_table_that_is_rewritten_keeps_the_rows_that_refer_to_it(tmp_path: Path) -> None:
    path = made(tmp_path / "registry.db", VERSION_2)
    rewriting = with_a_further_step(
        tmp_path,
        "with op.batch_alter_table('nodes', recreate='always') as nodes: "
        "nodes.add_column(sa.Column('site', sa.String(8)))",
    )

    with closing(Database(path, migrations=rewriting)) as database:
        assert query(path, "SELECT node_id, site FROM nodes") == [("n1", None)]
        assert query(path, "SELECT node_id FROM node_tokens") == [("n1",)]
        assert query(path, "SELECT node_id FROM secrets") == [("n1",)]
        with pytest.raises(sa.exc.IntegrityError), database.writing() as connection:
            connection.exec_driver_sql(  # keys are enforced again
                "INSERT INTO secrets VALUES ('nobody', 's', 1, x'00', '2026-01-02')"
            )


def test_a_database_with_a_further_migration_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    newer = with_a_further_step(tmp_path, "op.create_table('t', sa.Column('a', sa.Integer))")
    Database(path, migrations=newer).close()
    before = contents(path)

    with pytest.raises(StartError, match=rf"newer plexd-server \(schema {NEWEST + 1}\); upgrade"):
        Database(path)

    assert contents(path) == before


def test_a_current_database_opens_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    Database(path).close()

    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with closing(Database(path)) as database, database.reading() as connection:
            assert migrate.applied(connection) == NEWEST


@pytest.mark.slow
@AGES
def test_processes_that_migrate_at_once_all_succeed(tmp_path: Path, script: str) -> None:
    path = made(tmp_path / "registry.db", script)
    opening = (
        "import sys; from pathlib import Path\n"
        "from plexd_server.database import migrate\n"
        "from plexd_server.database.engine import Database\n"
        "import alembic.script\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "database = Database(Path(sys.argv[1]))\n"
        "with database.reading() as connection: print(migrate.applied(connection))\n"
        "database.close()"
    )
    with ExitStack() as stack:
        processes = [stack.enter_context(waiting(opening, path)) for _ in range(3)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

        said = [process.communicate(timeout=30) for process in processes]

    assert said == [(f"{NEWEST}\n", "")] * 3
    assert query(path, "SELECT version_num FROM alembic_version") == [(f"{NEWEST:04}",)]


def waiting(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
