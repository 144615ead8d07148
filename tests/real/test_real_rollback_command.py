"""``imagegate rollback`` as a real process: without its database, killed, called twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.mix.production import adopt, journal_of, require_production
from tasks.rollout.change import promote, reconcile, set_share
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import outbox
from tests.conftest import Command
from tests.fakes.mixes import mix
from tests.fakes.postgres import Postgres, binaries

pytestmark = pytest.mark.real

WINTER, SUMMER, AUTUMN = (
    mix(n, f"folio-{i}") for i, n in enumerate(("winter", "summer", "autumn"))
)
ROLLBACK = ("rollback", "--product", "shop", "--reason", "garbled text", "--owner", "kim")


def router_of(home: Path) -> FileRouter:
    return FileRouter(home / "routing.json")


def weights(home: Path) -> dict[str, float]:
    shown = router_of(home).read("shop")
    assert shown is not None
    return dict(shown.weights)


def release(state: State, home: Path) -> None:
    """Winter, then summer, serve the shop."""
    adopt(state, WINTER, "test", "first")
    reconcile(state, router_of(home), "shop")
    promote(state, router_of(home), "shop", SUMMER, actor="ann", reason="better")


@contextmanager
def opened(home: Path) -> Iterator[State]:
    state = State(f"sqlite:///{home / 'state.db'}")
    try:
        yield state
    finally:
        state.close()


def messages(state: State) -> list[str]:
    with state.begin() as connection:
        return list(connection.execute(sa.select(outbox.c.dedup_key)).scalars())


@pytest.fixture
def shop(light_imagegate: Command) -> Path:
    home = light_imagegate.home
    home.mkdir(parents=True)
    with opened(home) as state:
        release(state, home)
    return home


def test_a_rollback_with_a_broken_database_goes_by_the_last_good_mix_and_is_taken_over(
    shop: Path, light_imagegate: Command
) -> None:
    (shop / "state.db").rename(shop / "kept.db")
    for left in shop.glob("state.db-*"):
        left.unlink()
    (shop / "state.db").write_bytes(b"this is no database " * 400)

    done = light_imagegate(*ROLLBACK, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["mix_name"], said["epoch"], said["changed"]) == ("winter", 3, True)
    assert "file is not a database" in said["warning"]
    assert "have not heard of this rollback" in " ".join(done.err.split())
    assert weights(shop) == {WINTER.digest: 1.0}

    again = light_imagegate(*ROLLBACK)
    assert again.code == 0, again.err
    assert "winter" in again.out
    assert "already" in again.out
    assert weights(shop) == {WINTER.digest: 1.0}

    # The database is back, as it was.
    (shop / "kept.db").replace(shop / "state.db")
    back = light_imagegate(*ROLLBACK, "--json")
    assert back.code == 0, back.err
    assert (back.json["mix_name"], back.json["epoch"], back.json["warning"]) == ("winter", 3, "")
    with opened(shop) as state:
        pointer = require_production(state, "shop")
        assert (pointer.mix_digest, pointer.epoch, pointer.settled) == (WINTER.digest, 3, True)
        told = [c for c in journal_of(state, "shop") if c.kind == "rollback"]
        assert [(c.epoch, c.actor) for c in told] == [(3, "kim")]
        assert "garbled text (made at " in told[0].reason
        assert messages(state) == ["rollback:shop:3"]


def test_what_the_last_good_mix_cannot_do_is_a_clear_failure(
    shop: Path, light_imagegate: Command
) -> None:
    (shop / "state.db").write_bytes(b"this is no database " * 400)
    for left in shop.glob("state.db-*"):
        left.unlink()
    unknown = light_imagegate(*ROLLBACK, "--to", "spring")
    assert unknown.code == 4
    said = " ".join(unknown.err.split())
    assert "file is not a database" in said
    assert "no mix 'spring'" in said
    (shop / "last-good" / "shop.json").unlink()
    missing = light_imagegate(*ROLLBACK)
    assert missing.code == 4
    assert "never verified a change" in " ".join(missing.err.split())
    assert "Traceback" not in missing.err
    assert weights(shop) == {SUMMER.digest: 1.0}


def test_a_rollback_without_postgresql(light_imagegate: Command) -> None:
    if binaries() is None:
        pytest.skip("needs PostgreSQL (Debian: postgresql)")
    home = light_imagegate.home
    home.mkdir(parents=True)
    server = Postgres()
    try:
        server.start()
        url = server.url(server.database())
        state = State(url, home=home)
        release(state, home)
        set_share(state, router_of(home), "shop", AUTUMN, 0.25, actor="ann", reason="canary")
        state.close()
        server.kill()

        done = light_imagegate(*ROLLBACK, "--json", IMAGEGATE_STATE_URL=url)
        assert done.code == 0, done.err
        assert done.json["mix_name"] == "summer", "the canary ends, and no more"
        assert weights(home) == {SUMMER.digest: 1.0}
        assert "correct-horse" not in done.err + done.out

        server.start()
        state = State(url, home=home)
        reconcile(state, router_of(home), "shop")
        pointer = require_production(state, "shop")
        assert pointer.candidate_digest is None
        assert (pointer.mix_digest, pointer.settled) == (SUMMER.digest, True)
        assert weights(home) == {SUMMER.digest: 1.0}
        told = [c for c in journal_of(state, "shop") if c.kind == "rollback"]
        assert [(c.from_digest, c.actor) for c in told] == [(AUTUMN.digest, "kim")]
        state.close()
    finally:
        server.remove()


#: Fault points on the way of the command: before and after the decision, around the router, in the
#: record, behind it. All of them are passed by ``test_real_rollout_kill`` without the command.
@pytest.mark.parametrize("point", [2, 6, 10, 14, 19])
def test_a_killed_command_given_again_completes_the_rollback_and_one_message(
    shop: Path, light_imagegate: Command, point: int
) -> None:
    killed = light_imagegate(*ROLLBACK, IMAGEGATE_TEST_FAULT=f"kill:{point}")
    assert killed.code == -signal.SIGKILL, killed.err
    assert weights(shop) in ({SUMMER.digest: 1.0}, {WINTER.digest: 1.0})
    again = light_imagegate(*ROLLBACK, "--json")
    assert again.code == 0, again.err
    assert again.json["mix_name"] == "winter"
    assert weights(shop) == {WINTER.digest: 1.0}
    with opened(shop) as state:
        kinds = [(c.kind, c.epoch) for c in journal_of(state, "shop")]
        assert kinds[-2:] == [("rollback", 3), ("verified", 3)]
        assert messages(state) == ["rollback:shop:3"]


def test_two_people_who_roll_back_at_once_go_one_mix_back(
    shop: Path, light_imagegate: Command
) -> None:
    with opened(shop) as state:
        promote(state, router_of(shop), "shop", AUTUMN, actor="ann", reason="better still")
    commands = [light_imagegate.start(*ROLLBACK, "--json") for _ in range(2)]
    ends = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], ends
    assert {json.loads(out)["mix_name"] for out, _ in ends} == {"summer"}
    assert weights(shop) == {SUMMER.digest: 1.0}
    with opened(shop) as state:
        assert messages(state) == ["rollback:shop:4"]


def test_a_wrong_fault_is_refused(shop: Path, light_imagegate: Command) -> None:
    done = light_imagegate(*ROLLBACK, IMAGEGATE_TEST_FAULT="explode")
    assert done.code == 2
    assert "IMAGEGATE_TEST_FAULT='explode'" in done.err
    assert weights(shop) == {SUMMER.digest: 1.0}
