from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.errors import ConfigError, StateError
from tasks.state import State, within
from tasks.tables import STATE_VERSION, meta, production

ROOT = Path(__file__).parents[1]


def row(product: str, epoch: int = 1) -> dict[str, object]:
    return {
        "product": product,
        "mix_digest": "sha256:0",
        "epoch": epoch,
        "applied_epoch": 0,
        "changed_at": "t",
    }


def test_a_new_database_is_made_with_its_folder_and_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'home' / 'state.db'}"
    first = State(url)
    with first.begin() as connection:
        connection.execute(sa.insert(production).values(**row("shop")))
    first.close()
    second = State(url)
    with second.begin() as connection:
        assert connection.execute(sa.select(production.c.product)).scalars().all() == ["shop"]
    second.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")

    def fail() -> None:
        with state.begin() as connection:
            connection.execute(sa.insert(production).values(**row("shop")))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    with state.begin() as connection:
        assert connection.execute(sa.select(production)).first() is None
    state.close()


def test_a_read_in_a_transaction_holds_until_its_write(tmp_path: Path) -> None:
    """Two processes that add one each to a figure they read must reach two."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    state = State(url)
    with state.begin() as connection:
        connection.execute(sa.insert(production).values(**row("shop", epoch=0)))
    start = threading.Barrier(4)

    def add() -> None:
        own = State(url)
        start.wait()
        for _ in range(5):
            with own.begin() as connection:
                epoch = connection.execute(sa.select(production.c.epoch)).scalar_one()
                connection.execute(sa.update(production).values(epoch=epoch + 1))
        own.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state.begin() as connection:
        assert connection.execute(sa.select(production.c.epoch)).scalar_one() == 20
    state.close()


def test_what_was_committed_survives_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    code = (
        "import os, signal, sys; import sqlalchemy as sa; from tasks.state import State, meta\n"
        "state = State(sys.argv[1])\n"
        "with state.begin() as c: c.execute(sa.insert(meta).values(key='kept', value='1'))\n"
        "with state.begin() as c:\n"
        "    c.execute(sa.insert(meta).values(key='lost', value='1'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -9
    state = State(url)
    with state.begin() as connection:
        keys = set(connection.execute(sa.select(meta.c.key)).scalars())
    assert keys == {"state_version", "kept"}
    state.close()


@pytest.mark.parametrize(
    "content",
    [
        b"this is no database at all, but long enough",
        b"\x00" * 4096,
        b"SQLite format 3\x00" + b"\xff" * 8000,
    ],
)
def test_a_corrupt_file_is_a_state_error_that_says_what_to_do(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"state\.db.*Restore the file from a backup"):
        State(f"sqlite:///{path}")
    assert path.read_bytes() == content, "evidence of what happened is left as it is"


def test_a_file_damaged_in_the_middle_is_a_state_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = State(f"sqlite:///{path}")
    with state.begin() as connection:
        for n in range(200):
            values = row(f"product-{n}") | {"mix_digest": "x" * 500}
            connection.execute(sa.insert(production).values(**values))
    state.close()
    plain = sqlite3.connect(path)
    plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.execute("PRAGMA journal_mode=DELETE")
    plain.close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = os.urandom(len(data) - 4096 * 2)
    path.write_bytes(data)

    def use() -> None:
        broken = State(f"sqlite:///{path}")
        try:
            with broken.begin() as connection:
                connection.execute(sa.select(production)).all()
                connection.execute(sa.insert(production).values(**row("new")))
        finally:
            broken.close()

    with pytest.raises(StateError, match="state database failed"):
        use()


def test_a_folder_in_the_place_of_the_database_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="unable to open"):
        State(f"sqlite:///{tmp_path}")


def test_a_folder_that_cannot_be_made_is_a_state_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        State(f"sqlite:///{blocked / 'home' / 'state.db'}")


def test_a_read_only_database_is_a_state_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    State(f"sqlite:///{path}").close()
    state = State(f"sqlite:///file:{path}?mode=rwc&uri=true")
    with state.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.rollback()

    def write() -> None:
        with state.begin() as connection:
            connection.execute(sa.insert(meta).values(key="a", value="b"))

    with pytest.raises(StateError, match="readonly"):
        write()
    state.close()


def test_a_full_disk_is_a_state_error_and_loses_nothing(tmp_path: Path) -> None:
    """The page limit makes SQLite say what it says when the disk is full."""
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    with state.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        connection.rollback()

    def write() -> None:
        with state.begin() as connection:
            for n in range(400):
                connection.execute(sa.insert(meta).values(key=str(n), value="x" * 4000))

    with pytest.raises(StateError, match="full"):
        write()
    with state.begin() as connection:
        assert connection.execute(sa.select(meta.c.key)).scalars().all() == ["state_version"]
    state.close()


def test_another_version_of_the_tables_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    state = State(url)
    with state.begin() as connection:
        connection.execute(sa.update(meta).values(value="99"))
    state.close()
    with pytest.raises(StateError, match=f"version 99, this imagegate knows {STATE_VERSION};"):
        State(url)


@pytest.mark.parametrize("url", ["", "no url", "nosuchdb://host/name"])
def test_what_is_no_database_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"IMAGEGATE_STATE_URL|state database"):
        State(url)


@pytest.mark.parametrize(
    "url", ["nosuchdb://user:hunter2@host/name", "sqlite://user:hunter2@host/state.db"]
)
def test_no_password_is_shown(url: str) -> None:
    with pytest.raises((ConfigError, StateError), match="cannot be used") as caught:
        State(url)
    assert "hunter2" not in str(caught.value)


def test_within_opens_a_transaction_only_when_there_is_none(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    with within(state) as outer, within(outer) as inner:
        assert inner is outer
        inner.execute(sa.insert(meta).values(key="a", value="b"))
    with within(state) as connection:
        assert connection.execute(sa.select(meta.c.value).where(meta.c.key == "a")).scalar() == "b"
    state.close()


def test_a_pool_without_a_free_connection_is_a_sentence(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")

    def none_is_free() -> None:
        raise sa.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")

    state.engine.begin = none_is_free  # type: ignore[assignment, method-assign]
    with pytest.raises(StateError, match="no connection"), state.begin():
        pass
    state.close()
