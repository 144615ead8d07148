"""The state database in a real PostgreSQL: the same promises, also for many at once.

The tests of the steps that keep their state run here once more, on PostgreSQL; below them stand
the tests of what only a server does: several processes, restarts, refused text, passwords.
"""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

import tests.alerts.test_outbox
import tests.evidence.test_history
import tests.harness.test_journal
import tests.harness.test_ledger
import tests.mix.test_freeze
import tests.mix.test_production
import tests.rollout.test_change
import tests.test_runs
from tasks import database, migrations
from tasks.database import ADVISORY_LOCK, LostConnectionError
from tasks.errors import (
    BudgetExhausted,
    ConfigError,
    FencedError,
    FrozenError,
    ImagegateError,
    StateError,
)
from tasks.harness.journal import Journal
from tasks.harness.ledger import SpendLedger
from tasks.migrations.look import drift, look
from tasks.mix.freeze import active_freezes, freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt, journal_of, keep_mix, require_production
from tasks.rollout.change import promote, reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run
from tasks.state import State
from tasks.tables import STATE_VERSION, freezes, generation_cache, ledger, meta, runs
from tests.fakes import mixes as fakes
from tests.fakes.postgres import PASSWORD, Postgres, binaries

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)


@pytest.fixture
def state(postgres_url: str) -> Iterator[State]:
    opened = State(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def make_mix() -> Callable[..., ResolvedMix]:
    return fakes.mix


@pytest.fixture
def winter() -> ResolvedMix:
    return fakes.mix("winter", "folio-1")


@pytest.fixture
def summer() -> ResolvedMix:
    return fakes.mix("summer", "folio-2")


@pytest.fixture
def autumn() -> ResolvedMix:
    return fakes.mix("autumn", "folio-3")


@pytest.fixture
def router(tmp_path: Path) -> FileRouter:
    return FileRouter(tmp_path / "routing.json", lock_timeout_s=5)


@pytest.fixture
def shop(state: State, router: FileRouter, winter: ResolvedMix) -> State:
    """Production of ``shop`` on ``winter``, epoch 1, shown by the router."""
    adopt(state, winter, "test", "first")
    reconcile(state, router, "shop")
    return state


def borrow(module: ModuleType, *but: str) -> None:
    """Take over the tests of a module that get their database from a fixture, and its fixtures."""
    label = module.__name__.rpartition(".")[2].removeprefix("test_")
    for name, value in vars(module).items():
        if type(value).__name__ == "FixtureFunctionDefinition":
            globals().setdefault(name, value)
        elif name.startswith("test_") and inspect.isfunction(value):
            wanted = set(inspect.signature(value).parameters)
            # With a folder of their own they open a SQLite file of their own.
            database = wanted & {"state", "shop", "put", "back"}
            if database and not wanted & {"tmp_path", "home", "make_model"} and name not in but:
                globals()[f"test_{label}__{name.removeprefix('test_')}"] = value


borrow(tests.alerts.test_outbox)
borrow(tests.evidence.test_history)
borrow(tests.harness.test_ledger)
borrow(tests.harness.test_journal)
borrow(tests.mix.test_freeze)
borrow(
    tests.mix.test_production,
    # Its production is one that no router was told of.
    "test_adopting_never_replaces_a_production",
)
borrow(tests.rollout.test_change)
borrow(tests.test_runs)


# --- versions of the tables ----------------------------------------------------------------


def _open(url: str) -> str:
    try:
        State(url).close()
    except StateError as error:
        return str(error)
    return "opened"


def test_workers_that_open_a_new_database_at_once_do_not_collide(postgres: Postgres) -> None:
    url = postgres.url(postgres.database())
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_open, [url] * 8) == ["opened"] * 8
    assert drift(url) == []


def test_the_steps_lead_to_the_tables_of_today(postgres: Postgres) -> None:
    url = postgres.url(postgres.database())
    at_version(url, "0001")
    State(url, upgrade=True).close()
    assert drift(url) == []


def at_version(url: str, version: str) -> None:
    from alembic import command

    engine = sa.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), version)
    engine.dispose()


def test_an_older_database_waits_for_db_upgrade(postgres: Postgres) -> None:
    url = postgres.url(postgres.database())
    at_version(url, "0001")
    wanted = rf"version 1.*needs {STATE_VERSION}.*`imagegate db upgrade`"
    with pytest.raises(StateError, match=wanted) as caught:
        State(url)
    assert PASSWORD not in str(caught.value)
    assert look(url).version == 1
    env = os.environ | {"IMAGEGATE_STATE_URL": url}  # noqa: TID251
    command = [sys.executable, "-m", "flows", "db", "upgrade"]
    jobs = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [job.communicate(timeout=60)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert PASSWORD not in "".join(said)
    State(url).close()
    assert drift(url) == []


def test_a_newer_database_is_refused(state: State, postgres_url: str) -> None:
    with state.begin() as connection:
        connection.execute(sa.update(meta).values(value="99"))
    for upgrade in (False, True):
        with pytest.raises(StateError, match=f"version 99, this imagegate knows {STATE_VERSION}"):
            State(postgres_url, upgrade=upgrade)


def test_prefects_tables_in_the_same_database_are_left_alone(postgres: Postgres) -> None:
    name = postgres.database()
    with postgres.connect(name) as connection:
        connection.execute("CREATE TABLE flow_run (id uuid primary key)")
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('prefects')")
    State(postgres.url(name)).close()
    assert drift(postgres.url(name)) == []
    with postgres.connect(name) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            ("prefects",)
        ]


def test_the_databases_of_the_compose_file_are_made(postgres: Postgres) -> None:
    """The script that PostgreSQL's image runs on an empty volume, run by a real psql."""
    script = ROOT / "deployments" / "postgres" / "10-databases.sh"
    state, prefect = "state-secret-1", "it's a 'quoted' secret"
    env = {
        "PATH": f"{binaries()}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGPASSWORD": PASSWORD,
        "POSTGRES_USER": "gate",
        "IMAGEGATE_DB_PASSWORD": state,
        "PREFECT_DB_PASSWORD": prefect,
    }
    done = subprocess.run(
        ["sh", script], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    url = f"postgresql://imagegate:{state}@127.0.0.1:{postgres.port}/imagegate"
    State(url).close()
    assert drift(url) == []
    with pytest.raises(StateError, match="permission denied"):
        State(f"postgresql://imagegate:{state}@127.0.0.1:{postgres.port}/prefect")
    log = (postgres.folder / "log").read_text(errors="replace")
    assert state not in log
    assert "quoted" not in log
    postgres.drop("imagegate")
    postgres.drop("prefect")


# --- many at once --------------------------------------------------------------------------


def _spend(url: str, name: str) -> int:
    state = State(url)
    book = SpendLedger(state, "run", 1_000, 10**9)
    spent = 0
    try:
        for n in range(60):
            key = f"{name}-{n}"
            try:
                book.reserve(
                    key, arm="candidate", case_id="c", stage=0, attempt=1, model="m", microusd=13
                )
            except BudgetExhausted:
                break
            spent += book.book(key, 13 if n % 2 else 11)
    finally:
        state.close()
    return spent


def test_processes_never_spend_more_than_the_cap(state: State, postgres_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        spent = sum(pool.starmap(_spend, [(postgres_url, name) for name in "abcd"]))
    book = SpendLedger(state, "run", 1_000, 10**9)
    assert 1_000 - 13 < spent <= 1_000
    assert book.spent_microusd() == book.spent_today() == spent
    with state.begin() as connection:
        rows = connection.execute(sa.select(sa.func.sum(ledger.c.booked_microusd))).scalar_one()
    assert rows == spent


def at_once(count: int, what: Callable[[int], object]) -> list[object]:
    """Call ``what`` in threads that start together; return what each returned or raised."""
    start = threading.Barrier(count)

    def call(number: int) -> object:
        start.wait()
        try:
            return what(number)
        except ImagegateError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_of_several_promotions_exactly_one_wins(
    shop: State, router: FileRouter, make_mix: Callable[..., ResolvedMix]
) -> None:
    asking = [make_mix(f"mix-{n}", f"folio-{n + 10}") for n in range(4)]

    def ask(number: int) -> object:
        return promote(
            shop,
            router,
            "shop",
            asking[number],
            actor=f"run {number}",
            reason="better",
            expected_epoch=1,
            now=NOW,
        )

    ended = at_once(4, ask)
    assert sorted(type(end).__name__ for end in ended) == ["FencedError"] * 3 + ["RolloutResult"]
    now = require_production(shop, "shop")
    assert (now.epoch, now.settled) == (2, True)
    assert [line.kind for line in journal_of(shop, "shop")] == [
        "adopt",
        "verified",
        "promote",
        "verified",
    ]
    assert all("somebody moved" in str(e) for e in ended if isinstance(e, FencedError))


def test_several_that_adopt_freeze_or_keep_the_same_do_it_once(
    state: State, winter: ResolvedMix
) -> None:
    first = at_once(6, lambda n: adopt(state, winter, f"run {n}", "first"))
    assert len({repr(one) for one in first}) == 1
    assert [line.kind for line in journal_of(state, "shop")] == ["adopt"]
    assert at_once(6, lambda _n: keep_mix(state, winter)) == [winter.digest] * 6
    held = at_once(
        6, lambda n: freeze(state, "shop", owner=f"p{n}", reason="sale", days=1, now=NOW)
    )
    assert sum(isinstance(one, FrozenError) for one in held) == 5
    assert len(active_freezes(state, "shop", NOW)) == 1


def test_runs_that_keep_the_same_picture_keep_one(state: State) -> None:
    """Two gates at once that share a baseline write the same row of the cache."""
    made = tests.harness.test_journal.ended()
    kept = at_once(8, lambda _n: Journal(state, "run").remember(made, "sha256:case"))
    assert kept == [None] * 8
    with state.begin() as connection:
        count = sa.select(sa.func.count()).select_from(generation_cache)
        assert connection.execute(count).scalar_one() == 1


def _take_over(url: str, number: int) -> str:
    state = State(url)
    try:
        begin_run(state, "r1", "shop", "sha256:c", "sha256:b", driver=f"driver-{number}")
    except ConfigError as error:
        return str(error)
    else:
        # The winner lives on until all have tried: its process is seen.
        return "drives"
    finally:
        state.close()


def test_a_dead_run_is_taken_over_by_one_process(state: State, postgres_url: str) -> None:
    begin_run(state, "r1", "shop", "sha256:c", "sha256:b", driver="dead", requester="ann")
    with state.begin() as connection:
        connection.execute(sa.update(runs).values(host="gone", heartbeat_at="2026-01-01T00:00:00Z"))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        said = pool.starmap(_take_over, [(postgres_url, n) for n in range(4)], chunksize=1)
    # One process of the pool may get two of the tries, and what it drives it may drive again.
    assert said.count("drives") >= 1
    assert all(text == "drives" or "still drives" in text for text in said)
    with state.begin() as connection:
        row = connection.execute(sa.select(runs)).one()
    assert row.requester == "ann"
    assert row.driver == f"driver-{max(i for i, t in enumerate(said) if t == 'drives')}" or (
        said.count("drives") > 1
    )


# --- text ----------------------------------------------------------------------------------


def test_text_that_postgresql_refuses_is_kept_readable(shop: State) -> None:
    held = freeze(shop, "shop", owner="an\x00n", reason="half \ud83d\x00 emoji", days=1, now=NOW)
    assert (held.owner, held.reason) == ("an\ufffdn", "half \ufffd\ufffd emoji")
    with shop.begin() as connection:
        found = connection.execute(sa.select(freezes.c.reason)).scalar_one()
        # Many rows in one statement go the same way.
        rows = [{"key": f"k{n}", "value": f"v\x00{n}"} for n in range(3)]
        connection.execute(sa.insert(meta), rows)
        kept = connection.execute(sa.select(meta.c.value).where(meta.c.key == "k1")).scalar_one()
    assert (found, kept) == ("half \ufffd\ufffd emoji", "v\ufffd1")


# --- errors, restarts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        (
            "postgresql+psycopg://gate:{wrong}@127.0.0.1:{port}/postgres",
            StateError,
            "authentication failed",
        ),
        ("postgresql://gate:{right}@127.0.0.1:{port}/nowhere", StateError, "does not exist"),
        ("postgres://gate:{right}@127.0.0.1:1/postgres", StateError, "refused"),
        ("postgresql+psycopg://127.0.0.1:1/x?user=gate&password={right}", StateError, "refused"),
        # What the setting itself says wrongly is bad input (exit 2), not a database that fails.
        (
            "postgresql+asyncpg://gate:{right}@127.0.0.1:{port}/postgres",
            ConfigError,
            r"known: postgresql\+psycopg",
        ),
        ("mysql://gate:{right}@127.0.0.1/x", ConfigError, r"known: postgresql\+psycopg"),
    ],
)
def test_errors_say_what_is_wrong_and_no_password(
    postgres: Postgres, url: str, error: type[Exception], said: str
) -> None:
    secret = "hunter2-hunter2"
    full = url.format(wrong=secret, right=PASSWORD, port=postgres.port)
    with pytest.raises(error, match=said) as caught:
        State(full)
    told = str(caught.value) + repr(caught.value.__cause__)
    assert PASSWORD not in told
    assert secret not in told


def test_rows_do_not_stand_in_errors(state: State) -> None:
    with pytest.raises(StateError, match="null value in column") as caught, state.begin() as c:
        c.execute(sa.text("INSERT INTO meta (key) VALUES ('a secret prompt')"))
    assert "a secret prompt" not in str(caught.value)


def test_a_restart_between_transactions_is_not_noticed(postgres: Postgres, state: State) -> None:
    with state.begin() as connection:
        connection.execute(sa.insert(meta).values(key="a", value="1"))
    postgres.stop()
    back = threading.Thread(target=postgres.start)
    back.start()
    with state.begin() as connection:  # Waits until the server is there again.
        assert connection.execute(sa.select(meta.c.value).where(meta.c.key == "a")).scalar() == "1"
    back.join()


def test_a_kill_in_the_middle_is_an_error_and_keeps_nothing(
    postgres: Postgres, state: State
) -> None:
    def write() -> None:
        with state.begin() as connection:
            connection.execute(sa.insert(meta).values(key="lost", value="1"))
            postgres.kill()
            connection.execute(sa.insert(meta).values(key="lost too", value="1"))

    with pytest.raises(LostConnectionError, match="connection to the state database failed"):
        write()
    postgres.start()
    with state.begin() as connection:
        keys = set(connection.execute(sa.select(meta.c.key)).scalars())
    assert keys == {"state_version"}


def test_the_ledger_goes_on_through_a_crash_of_the_server(postgres: Postgres, state: State) -> None:
    """Killed while four threads reserve and book: all of it is counted, none of it twice."""
    book = SpendLedger(state, "run", 10**9, 10**9)
    half = threading.Barrier(5)

    def work(name: int) -> int:
        spent = 0
        for n in range(40):
            if n == 20:
                half.wait()
            key = f"{name}-{n}"
            book.reserve(
                key, arm="candidate", case_id=key, stage=0, attempt=1, model="m", microusd=10
            )
            spent += book.book(key, 10)
        return spent

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, name) for name in range(4)]
        half.wait()
        postgres.kill()
        postgres.start()
        spent = sum(future.result() for future in futures)
    assert spent == 4 * 40 * 10
    assert book.spent_microusd() == spent
    again = SpendLedger(state, "run", 10**9, 10**9)
    assert again.recover() == 0, "nothing is left in flight"
    assert again.spent_microusd() == spent


def test_a_process_that_stands_still_does_not_stop_the_others(
    state: State, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process holds the lock; PostgreSQL ends its transaction after the idle time."""
    code = (
        "import os, signal, sys; from tasks import database; import sqlalchemy as sa\n"
        "database._BEGIN = database._BEGIN.replace(f'{database.IDLE_S}s', '1s')\n"
        "from tasks.state import State, meta\n"
        "state = State(sys.argv[1])\n"
        "with state.begin() as c:\n"
        "    c.execute(sa.insert(meta).values(key='halted', value='1'))\n"
        "    print('in', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, postgres_url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "in\n"
        with state.begin() as connection:
            keys = set(connection.execute(sa.select(meta.c.key)).scalars())
        assert keys == {"state_version"}
        os.kill(child.pid, signal.SIGCONT)
        _, said = child.communicate(timeout=60)
        assert child.returncode != 0
        assert "LostConnectionError" in said
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def test_a_lock_that_is_held_too_long_is_said(
    postgres: Postgres, state: State, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", database._BEGIN.replace("'30s'", "'50ms'"))
    name = sa.make_url(postgres_url).database
    assert name is not None
    with postgres.connect(name) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
        with (
            pytest.raises(StateError, match="another process held the state database"),
            state.begin(),
        ):
            raise AssertionError("two in one transaction")
