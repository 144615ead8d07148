"""A database from before becomes today's, with its rows and a copy of the file kept."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from tasks import migrations
from tasks.errors import StateError
from tasks.migrations.look import drift, look
from tasks.mix.production import journal_of, read_production
from tasks.state import State
from tasks.tables import (
    STATE_VERSION,
    canaries,
    drills,
    heartbeats,
    meta,
    metadata,
    outbox,
    production,
    retests,
    runs,
    watches,
)

ROOT = Path(__file__).parents[1]


def at_version(path: Path, version: str) -> None:
    """Make the tables of an older imagegate, by its own steps, without Alembic's mark."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), version)
        connection.execute(sa.text(f"DROP TABLE {migrations.VERSION_TABLE}"))
    engine.dispose()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of state version 1 with a run, a message and production in it."""
    path = tmp_path / "state.db"
    at_version(path, "0001")
    with sqlite3.connect(path) as plain:
        plain.execute(
            "INSERT INTO production VALUES ('shop', 'sha256:1', 3, 3, '2026-11-01T00:00:00.000Z')"
        )
        plain.execute(
            "INSERT INTO runs VALUES ('r1','shop','finished','PROMOTE','sha256:1','sha256:0',"
            "'2026-11-01T00:00:00.000Z','2026-11-01T01:00:00.000Z','here',7,'{}')"
        )
        plain.execute(
            "INSERT INTO outbox (dedup_key, channel, payload, status, attempts, created_at) "
            "VALUES ('k','slack','{}','pending',2,'2026-11-01T00:00:00.000Z')"
        )
    plain.close()
    return path


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.bak"))


def test_every_version_has_its_step_and_the_newest_is_ours() -> None:
    steps = ScriptDirectory(str(migrations.HERE))
    assert steps.get_heads() == [migrations.revision_of(STATE_VERSION)]
    names = [step.revision for step in steps.walk_revisions()]
    assert sorted(names) == [migrations.revision_of(n) for n in range(1, STATE_VERSION + 1)]


def test_the_steps_lead_to_the_tables_of_today(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    at_version(path, "head")
    assert drift(f"sqlite:///{path}") == []


def test_a_new_database_is_marked_for_alembic_and_has_no_drift(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    state = State(url)
    with state.begin() as connection:
        mark = sa.select(sa.column("version_num")).select_from(sa.table(migrations.VERSION_TABLE))
        assert connection.execute(mark).scalars().all() == [migrations.revision_of(STATE_VERSION)]
    state.close()
    assert drift(url) == []
    assert copies(tmp_path / "state.db") == []


def test_the_first_step_is_what_version_1_made(tmp_path: Path) -> None:
    """Compared with the tables that the code of version 1 makes, kept as SQL."""
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    at_version(first, "0001")
    with sqlite3.connect(second) as plain:
        plain.executescript((Path(__file__).parent / "state_v1.sql").read_text())
    plain.close()

    def tables(path: Path) -> dict[str, object]:
        engine = sa.create_engine(f"sqlite:///{path}")
        inspector = sa.inspect(engine)
        found = {
            name: (
                [
                    (c["name"], str(c["type"]), c["nullable"], c["default"])
                    for c in inspector.get_columns(name)
                ],
                inspector.get_pk_constraint(name)["constrained_columns"],
                sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(name)),
                [u["column_names"] for u in inspector.get_unique_constraints(name)],
            )
            for name in inspector.get_table_names()
        }
        engine.dispose()
        return found

    assert tables(first) == tables(second)


def test_an_older_file_is_migrated_when_it_is_opened_and_copied_before(old: Path) -> None:
    before = old.read_bytes()
    state = State(f"sqlite:///{old}")
    with state.begin() as connection:
        assert migrations.differences(connection) == []
        assert connection.execute(sa.select(production.c.epoch)).scalar_one() == 3
        run = connection.execute(sa.select(runs)).one()
        assert (run.run_id, run.verdict, run.driver, run.requester) == ("r1", "PROMOTE", None, None)
        message = connection.execute(sa.select(outbox)).one()
        assert (message.dedup_key, message.attempts) == ("k", 2)
        assert (message.kind, message.severity, message.thread) == ("open", "info", None)
        version = sa.select(meta.c.value).where(meta.c.key == "state_version")
        assert connection.execute(version).scalar_one() == str(STATE_VERSION)
    state.close()
    (copy,) = copies(old)
    assert re.fullmatch(r"state\.db\.v1-\d{8}T\d{12}Z\.bak", copy.name)
    plain = sqlite3.connect(copy)
    assert plain.execute("SELECT value FROM meta").fetchall() == [("1",)]
    assert plain.execute("SELECT run_id FROM runs").fetchall() == [("r1",)]
    plain.close()
    assert before != old.read_bytes()
    State(f"sqlite:///{old}").close()
    assert copies(old) == [copy], "a second opening has nothing to do"


def test_a_file_of_version_2_gets_the_ledger_of_retests_and_keeps_its_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    at_version(path, "0002")
    with sqlite3.connect(path) as plain:
        plain.execute(
            "INSERT INTO runs (run_id, product, status, candidate_digest, baseline_digest, "
            "started_at, host, pid, requester) VALUES "
            "('r2', 'shop', 'waiting', 'sha256:1', 'sha256:0', 't', 'here', 7, 'kim')"
        )
        plain.execute("INSERT INTO heartbeats VALUES ('watchdog', 't', NULL)")
    plain.close()
    assert look(f"sqlite:///{path}").state == "older"
    state = State(f"sqlite:///{path}")
    with state.begin() as connection:
        assert migrations.differences(connection) == []
        run = connection.execute(sa.select(runs)).one()
        assert (run.run_id, run.status, run.requester) == ("r2", "waiting", "kim")
        assert connection.execute(sa.select(heartbeats.c.name)).scalars().all() == ["watchdog"]
        assert connection.execute(sa.select(retests)).all() == []
    state.close()
    (copy,) = copies(path)
    assert re.fullmatch(r"state\.db\.v2-\d{8}T\d{12}Z\.bak", copy.name)
    State(f"sqlite:///{path}").close()
    assert copies(path) == [copy], "a second opening has nothing to do"


def test_a_file_of_version_3_gets_the_tables_of_the_rollout_and_keeps_its_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    at_version(path, "0003")
    with sqlite3.connect(path) as plain:
        plain.execute("INSERT INTO production VALUES ('shop', 'sha256:1', 3, 3, 't')")
        plain.execute(
            "INSERT INTO transitions (product, epoch, kind, from_digest, to_digest, actor, reason, "
            "run_id, at) VALUES ('shop', 3, 'promote', 'sha256:0', 'sha256:1', 'ann', 'r', 'r1', "
            "'2026-11-01T00:00:00.000Z')"
        )
        plain.execute(
            "INSERT INTO runs (run_id, product, status, candidate_digest, baseline_digest, "
            "started_at, host, pid) VALUES "
            "('r1', 'shop', 'finished', 'sha256:1', 'sha256:0', 't', 'here', 7)"
        )
    plain.close()
    assert look(f"sqlite:///{path}").state == "older"
    state = State(f"sqlite:///{path}")
    with state.begin() as connection:
        assert migrations.differences(connection) == []
        # Production of before has no canary: it wants the mix alone.
        found = read_production(connection, "shop")
        assert found is not None
        assert (found.weights, found.settled) == ({"sha256:1": 1.0}, True)
        (line,) = journal_of(connection, "shop")
        assert (line.kind, line.weight, line.canary_id) == ("promote", None, None)
        assert connection.execute(sa.select(runs.c.journal_id)).scalar_one() is None
        for table in (canaries, watches, drills):
            assert connection.execute(sa.select(table)).all() == []
    state.close()
    (copy,) = copies(path)
    assert re.fullmatch(r"state\.db\.v3-\d{8}T\d{12}Z\.bak", copy.name)
    State(f"sqlite:///{path}").close()
    assert copies(path) == [copy], "a second opening has nothing to do"


def test_the_copy_can_be_put_back(old: Path) -> None:
    State(f"sqlite:///{old}").close()
    (copy,) = copies(old)
    for leftover in old.parent.glob("state.db-*"):
        leftover.unlink()
    shutil.copy(copy, old)
    State(f"sqlite:///{old}").close()
    assert look(f"sqlite:///{old}").state == "current"


def test_a_step_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills in the middle: SQLite says so when its page limit is reached."""
    from tasks import database

    real = database._sqlite_pragmas

    def small(connection: object, record: object) -> None:
        real(connection, record)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
        connection.execute(f"PRAGMA max_page_count={pages + 3}")  # type: ignore[attr-defined]

    monkeypatch.setattr(database, "_sqlite_pragmas", small)
    with pytest.raises(StateError, match="full"):
        State(f"sqlite:///{old}")
    monkeypatch.undo()
    assert look(f"sqlite:///{old}").version == 1
    with sqlite3.connect(old) as plain:
        assert plain.execute(
            "SELECT count(*) FROM sqlite_master WHERE name='approvals'"
        ).fetchone() == (0,)
    plain.close()
    State(f"sqlite:///{old}").close()
    assert look(f"sqlite:///{old}").state == "current"


def test_without_room_for_the_copy_nothing_is_changed(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"no copy could be made.*No space left.*nothing was"):
        State(f"sqlite:///{old}")
    monkeypatch.undo()
    assert look(f"sqlite:///{old}").version == 1
    assert sorted(p.name for p in old.parent.iterdir() if "bak" in p.name) == []


def test_a_kill_in_the_middle_leaves_the_old_tables(old: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from alembic import op\n"
        "import tasks.state\n"
        "real = op.create_index\n"
        "op.create_index = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tasks.state.State(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{old}"], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -9
    assert look(f"sqlite:///{old}").version == 1
    State(f"sqlite:///{old}").close()
    assert drift(f"sqlite:///{old}") == []


def test_two_that_open_an_older_file_at_once_migrate_it_once(old: Path) -> None:
    start, failed = threading.Barrier(4), []

    def open_it() -> None:
        start.wait()
        try:
            State(f"sqlite:///{old}").close()
        except StateError as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(copies(old)) == 1
    assert drift(f"sqlite:///{old}") == []


def test_a_file_with_a_table_meta_of_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as plain:
        plain.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    plain.close()
    with pytest.raises(StateError, match="not imagegate's"):
        State(f"sqlite:///{path}")
    assert look(f"sqlite:///{path}").state == "foreign"


def test_drift_is_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    State(url).close()
    with sqlite3.connect(tmp_path / "state.db") as plain:
        plain.execute("ALTER TABLE runs DROP COLUMN requester")
        plain.execute("DROP INDEX ix_outbox_thread")
        plain.execute("DROP TABLE heartbeats")
        plain.execute("CREATE TABLE flow_run (id TEXT)")  # Prefect's is none of our business
    plain.close()
    found = "\n".join(drift(url))
    assert re.search("add_column.*runs.*requester", found)
    assert re.search("add_index.*ix_outbox_thread", found)
    assert re.search("add_table.*heartbeats", found)
    assert len(found.splitlines()) == 3


def test_opening_a_current_database_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    State(url).close()
    code = (
        "import sys; from tasks.state import State; State(sys.argv[1]).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=True, timeout=60)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "state.db"
    assert look(f"sqlite:///{path}").state == "absent"
    assert not path.parent.exists()


def test_the_steps_are_shipped() -> None:
    """An installed imagegate finds its migrations: all are modules of the package."""
    assert importlib.util.find_spec("tasks.migrations.env") is not None
    for path in (migrations.HERE / "versions").glob("*.py"):
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.py|__init__\.py", path.name)
    assert set(metadata.tables)


Db = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def db(tmp_path: Path) -> Db:
    def call(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
        env = {"IMAGEGATE_STATE_URL": url, "IMAGEGATE_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [sys.executable, "-m", "flows", "db", *arguments],
            cwd=ROOT,
            env=os.environ | env,  # noqa: TID251
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


def test_the_command_tells_and_mends(old: Path, db: Db) -> None:
    url = f"sqlite:///{old}"
    seen = db("status", url=url)
    assert seen.returncode == 4
    assert f"state version 1, this imagegate needs {STATE_VERSION}" in seen.stdout
    assert "imagegate db upgrade" in seen.stdout
    assert db("check", url=url).returncode == 4
    done = json.loads(db("upgrade", "--json", url=url).stdout)
    assert (done["from"], done["to"], done["changed"]) == (1, STATE_VERSION, True)
    assert "already" in db("upgrade", url=url).stdout
    assert db("status", url=url).returncode == 0
    checked = db("check", "--json", url=url)
    assert (checked.returncode, json.loads(checked.stdout)) == (0, {"differences": []})
