"""The rehearsal: it finds what would stop a rollback, and leaves production as it was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.errors import RefusedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, products, require_production
from tasks.rollout.change import promote, set_share
from tasks.rollout.drill import Drill, newest_drill, rehearse
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import metadata


@pytest.fixture
def released(home: Path, shop: State, router: FileRouter, summer: ResolvedMix) -> Iterator[State]:
    """Summer serves, winter before it; this machine keeps its last good mixes."""
    state = State(f"sqlite:///{home / 'state.db'}", home=home)
    promote(state, router, "shop", summer, actor="test", reason="gate")
    yield state
    state.close()


def everything(state: State) -> dict[str, list[Any]]:
    """All rows of all tables but the record of drills."""
    with state.begin() as connection:
        return {
            table.name: connection.execute(sa.select(table)).all()
            for table in metadata.sorted_tables
            if table.name != "drills"
        }


def run(state: State, router: Any, kind: Any, **more: Any) -> Drill:
    return rehearse(state, router, "file", "shop", kind, actor="ann", **more)


def failed(done: Drill) -> dict[str, str]:
    return {step.name: step.said for step in done.steps if not step.ok}


def test_a_dry_drill_changes_nothing_at_all(released: State, router: FileRouter) -> None:
    before, routing = everything(released), router.path.read_bytes()
    done = run(released, router, "dry")
    assert done.ok, failed(done)
    assert len(done.steps) == 6
    assert everything(released) == before
    assert router.path.read_bytes() == routing


def test_a_shadow_drill_walks_a_canary_and_production_never_notices(
    released: State, router: FileRouter
) -> None:
    before, served = everything(released), router.read("shop")
    done = run(released, router, "shadow", shadow="shop-drill")
    assert done.ok, failed(done)
    assert [s.name for s in done.steps] == [
        "the shadow route is set up",
        "the candidate gets 1 %",
        "the candidate gets 5 %",
        "the candidate gets 25 %",
        "the candidate gets 50 %",
        "rollback from the canary",
        "promotion",
        "rollback from all traffic",
    ]
    assert everything(released) == before
    assert router.read("shop") == served
    assert products(released) == ("shop",)
    shown = router.read("shop-drill")
    assert shown is not None
    # No traffic is on the rehearsed candidate afterwards.
    assert dict(shown.weights) == {require_production(released, "shop").mix_digest: 1.0}
    assert 0 < done.seconds < 60
    # It can be done again: the shadow route goes on where it was.
    again = run(released, router, "shadow", shadow="shop-drill")
    assert again.ok, failed(again)


def test_it_is_kept_and_its_age_known(released: State, router: FileRouter) -> None:
    assert newest_drill(released, "shop") is None
    long_ago = datetime.now(UTC) - timedelta(days=40)
    run(released, router, "dry", now=long_ago)
    done = run(released, router, "dry")
    assert newest_drill(released, "shop") == done
    assert newest_drill(released, "press") is None


class Lying(FileRouter):
    """Says yes and does nothing."""

    def apply(self, desired: Desired) -> None:
        pass


class Down(FileRouter):
    def read(self, product: str) -> RouterState | None:
        raise RolloutError("connection refused")

    def probe(self) -> None:
        raise RolloutError("connection refused")


def test_a_router_that_lies_is_found_by_a_shadow_drill(released: State, router: FileRouter) -> None:
    done = run(released, Lying(router.path), "shadow", shadow="shop-drill")
    assert not done.ok
    assert "the router was told" in failed(done)["the shadow route is set up"]


def test_a_router_that_is_down_is_found(released: State, router: FileRouter) -> None:
    done = run(released, Down(router.path), "dry")
    assert set(failed(done)) == {"the router shows production", "the router can be changed"}
    kept = newest_drill(released, "shop")
    assert kept is not None
    assert not kept.ok


def test_the_first_mix_has_nothing_to_go_back_to(shop: State, router: FileRouter) -> None:
    done = run(shop, router, "dry")
    assert "nothing to go back to" in failed(done)["there is a mix to go back to"]


def test_a_canary_under_way_is_no_trouble(
    released: State, router: FileRouter, autumn: ResolvedMix
) -> None:
    set_share(released, router, "shop", autumn, 0.05, actor="test", reason="canary")
    assert run(released, router, "dry").ok
    lines = len(journal_of(released, "shop"))
    assert run(released, router, "shadow", shadow="shop-drill").ok
    assert len(journal_of(released, "shop")) == lines
    shown = router.read("shop")
    assert shown is not None
    assert shown.weights[autumn.digest] == 0.05


@pytest.mark.parametrize("shadow", ["", "shop"])
def test_a_drill_never_touches_a_product_that_serves(
    released: State, router: FileRouter, shadow: str
) -> None:
    served = router.read("shop")
    with pytest.raises(RefusedError):
        run(released, router, "shadow", shadow=shadow)
    assert router.read("shop") == served


def test_a_shadow_that_is_another_product_is_refused(
    released: State, router: FileRouter, winter: ResolvedMix
) -> None:
    from tasks.mix.production import adopt

    press = winter.model_copy(update={"mix": winter.mix.model_copy(update={"product": "press"})})
    adopt(released, press, "test", "first")
    with pytest.raises(RefusedError, match="serves users"):
        run(released, router, "shadow", shadow="press")


def test_a_lost_file_of_last_good_mixes_is_found(
    released: State, router: FileRouter, home: Path
) -> None:
    (home / "last-good" / "shop.json").unlink()
    done = run(released, router, "dry")
    assert set(failed(done)) == {"it would go without the state database"}
