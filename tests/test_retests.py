"""The ledger of retests: which runs are earlier tests of which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks import retests as ledger
from tasks.errors import ConfigError, StateError
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt
from tasks.plan import RunPlan
from tasks.policy import Policy
from tasks.records import Case, PriorRun
from tasks.rollout.change import promote, roll_back
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import retests
from tests.fakes import mixes

WINTER, SUMMER, AUTUMN = (
    mixes.mix(name, f"folio-{n}") for n, name in enumerate(("winter", "summer", "autumn"), 1)
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


def plan_of(run_id: str, candidate: ResolvedMix = SUMMER, **changes: Any) -> RunPlan:
    fields: dict[str, Any] = {
        "run_id": run_id,
        "product": "shop",
        "created_at": "2026-11-01T00:00:00.000Z",
        "baseline": WINTER,
        "candidate": candidate,
        "policy": Policy(),
        "seed": 7,
        "budget_microusd": 1,
        "day_budget_microusd": 1,
        "inputs": "log.csv",
        "cases": (Case(case_id="c", prompt="p", subtask="fast"),),
        "coverage": {},
    }
    return RunPlan(**(fields | changes))


def names(prior: tuple[PriorRun, ...]) -> list[str]:
    return [run.run_id for run in prior]


def test_runs_of_the_same_mix_and_product_are_earlier_tests_in_their_order(state: State) -> None:
    assert ledger.prior_runs(state, "shop", SUMMER.digest) == ()
    ledger.record(state, plan_of("r2"), "ROLLBACK", 240, 31)
    ledger.record(state, plan_of("r1"), "HOLD", 240, 6)
    ledger.record(state, plan_of("other-mix", AUTUMN), "HOLD", 240, 6)
    ledger.record(state, plan_of("other-shop", product="cafe"), "HOLD", 240, 6)
    assert set(ledger.prior_runs(state, "shop", SUMMER.digest)) == {
        PriorRun(run_id="r2", images=240, failures=31, planned=1),
        PriorRun(run_id="r1", images=240, failures=6, planned=1),
    }
    with state.begin() as connection:
        connection.execute(
            sa.update(retests).where(retests.c.run_id == "r1").values(ended_at="2026-01-01")
        )
    assert names(ledger.prior_runs(state, "shop", SUMMER.digest)) == ["r1", "r2"]


def test_a_resumed_run_is_written_anew_and_is_no_test_before_itself(state: State) -> None:
    ledger.record(state, plan_of("r1"), "HOLD", 64, 1)
    ledger.record(state, plan_of("r1"), "HOLD", 64, 1)
    assert ledger.prior_runs(state, "shop", SUMMER.digest, but="r1") == ()
    ledger.record(state, plan_of("r1"), "ROLLBACK", 240, 20)
    (row,) = ledger.prior_runs(state, "shop", SUMMER.digest)
    assert (row.images, row.failures) == (240, 20)


def test_a_promoted_build_was_not_tested_in_vain_until_it_is_rolled_back(
    state: State, tmp_path: Path
) -> None:
    router = FileRouter(tmp_path / "routing.json", lock_timeout_s=0.2)
    adopt(state, WINTER, "test", "first")

    def put(mix: ResolvedMix) -> None:
        promote(state, router, "shop", mix, actor="test", reason="better")

    ledger.record(state, plan_of("r1"), "PROMOTE", 240, 0)
    put(SUMMER)
    assert ledger.prior_runs(state, "shop", SUMMER.digest) == ()
    put(AUTUMN)
    roll_back(state, router, "shop", to_digest=None, actor="test", reason="back to summer")
    assert ledger.prior_runs(state, "shop", SUMMER.digest) == (), "summer was not rolled back"
    roll_back(
        state, router, "shop", to_digest=WINTER.digest, actor="watch", reason="users see garbage"
    )
    assert names(ledger.prior_runs(state, "shop", SUMMER.digest)) == ["r1"]
    with state.begin() as connection:  # A later test that passed stands apart from that rollback.
        later = {"run_id": "r3", "ended_at": "2999-01-01T00:00:00.000Z"}
        row = connection.execute(sa.select(retests)).one()._asdict()
        connection.execute(sa.insert(retests).values(**(row | later)))
    assert names(ledger.prior_runs(state, "shop", SUMMER.digest)) == ["r1"]


def test_what_is_written_down_goes_with_the_callers_transaction(state: State) -> None:
    def fail() -> None:
        with state.begin() as connection:
            ledger.record(connection, plan_of("r1"), "HOLD", 10, 0)
            assert names(ledger.prior_runs(connection, "shop", SUMMER.digest)) == ["r1"]
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert ledger.prior_runs(state, "shop", SUMMER.digest) == ()


@pytest.mark.parametrize(("images", "failures"), [(10, 11), (-1, 0), (5, -1)])
def test_impossible_counts_are_refused(state: State, images: int, failures: int) -> None:
    with pytest.raises(ValueError, match="0 to images"):
        ledger.record(state, plan_of("r1"), "HOLD", images, failures)


def test_a_run_in_a_database_that_is_gone_is_a_state_error(state: State) -> None:
    with state.begin() as connection:
        connection.execute(sa.text("DROP TABLE retests"))
    with pytest.raises(StateError, match="retests"):
        ledger.prior_runs(state, "shop", SUMMER.digest)


def test_an_excused_run_counts_for_nothing_and_stays_in_the_ledger(state: State) -> None:
    ledger.record(state, plan_of("one"), "ROLLBACK", 72, 9)
    ledger.record(state, plan_of("two"), "HOLD", 60, 1)
    ledger.excuse(state, "shop", "one", by="kim", why=" the provider was ill ")
    ledger.excuse(state, "shop", "one", by="lee", why="said again, later")

    assert names(ledger.prior_runs(state, "shop", SUMMER.digest)) == ["two"]
    first = next(t for t in ledger.ledger_of(state, "shop") if t.run_id == "one")
    assert (first.excused_by, first.excused_why) == ("kim", "the provider was ill")
    assert (first.images, first.failures, first.verdict) == (72, 9, "ROLLBACK")
    # A resumed run that comes to its end again stays excused.
    ledger.record(state, plan_of("one"), "ROLLBACK", 84, 10)
    assert names(ledger.prior_runs(state, "shop", SUMMER.digest)) == ["two"]


@pytest.mark.parametrize(
    ("product", "run_id", "why", "said"),
    [
        ("shop", "three", "x", "not in the ledger of retests of 'shop'"),
        ("other", "one", "x", "not in the ledger of retests of 'other'"),
        ("shop", "one", "  ", "give --why"),
    ],
)
def test_what_cannot_be_excused(
    state: State, product: str, run_id: str, why: str, said: str
) -> None:
    ledger.record(state, plan_of("one"), "ROLLBACK", 72, 9)
    with pytest.raises(ConfigError, match=said):
        ledger.excuse(state, product, run_id, by="kim", why=why)
