"""The watch and the drill on PostgreSQL: two watches at once, an alarm, its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.alerts.incidents import open_incidents
from tasks.errors import FencedError
from tasks.mix.production import adopt, journal_of
from tasks.policy import Policy
from tasks.rollout.change import promote, reconcile
from tasks.rollout.drill import newest_drill, rehearse
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.routers.file import FileRouter
from tasks.rollout.watch.act import act
from tasks.rollout.watch.look import look
from tasks.rollout.watch.store import close, read_watch
from tasks.state import State
from tests.fakes import mixes

pytestmark = pytest.mark.real

WINTER, SUMMER = mixes.mix("winter", "folio-1"), mixes.mix("summer", "folio-2")


class Log:
    """All wait for each other, so that they look at the same time."""

    name = "log"

    def __init__(self, rate: float, together: threading.Barrier | None = None) -> None:
        self.rate, self.together = rate, together

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        if self.together is not None:
            self.together.wait(60)
        images = round((until - since).total_seconds())
        arm = ArmOutcomes(images, round(images * self.rate))
        return Outcomes(since, until, dict.fromkeys(digests, arm))


@pytest.fixture
def shop(postgres_url: str, tmp_path: Path) -> Iterator[tuple[State, FileRouter]]:
    state, router = State(postgres_url, home=tmp_path), FileRouter(tmp_path / "routing.json")
    adopt(state, WINTER, "test", "first")
    reconcile(state, router, "shop")
    promote(state, router, "shop", SUMMER, actor="test", reason="gate")
    yield state, router
    state.close()


@pytest.mark.parametrize("looked", [True, False])
def test_watches_at_once_count_every_image_once(
    shop: tuple[State, FileRouter], postgres_url: str, looked: bool
) -> None:
    state, _ = shop
    start = datetime.now(UTC)
    if looked:
        look(state, "shop", Policy(), [Log(0.01)], start)
    together, fenced = threading.Barrier(4), []

    def one() -> None:
        mine = State(postgres_url)
        try:
            look(mine, "shop", Policy(), [Log(0.01, together)], start + timedelta(minutes=11))
        except FencedError as error:
            fenced.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = read_watch(state, "shop")
    assert after is not None
    assert len(fenced) == 3
    assert after.memory.images == pytest.approx(660, abs=10)


def test_an_alarm_goes_its_way(shop: tuple[State, FileRouter]) -> None:
    state, router = shop
    now = datetime.now(UTC) + timedelta(minutes=30)
    assert look(state, "shop", Policy(), [Log(0.1)], now).watch.status == "alarm"
    done = act(state, router, "shop", now)
    assert done is not None
    assert done.what == "rolled_back"
    shown = router.read("shop")
    assert shown is not None
    assert shown.mix_digest == WINTER.digest
    assert [c.actor for c in journal_of(state, "shop") if c.kind == "rollback"] == [
        "imagegate watch"
    ]
    close(state, "shop", Policy(), actor="ann", why="mended", now=now)
    assert not open_incidents(state)


def test_a_drill_goes(shop: tuple[State, FileRouter]) -> None:
    state, router = shop
    assert rehearse(state, router, "file", "shop", "dry", actor="ann").ok
    done = rehearse(state, router, "file", "shop", "shadow", actor="ann", shadow="shop-drill")
    assert done.ok
    assert newest_drill(state, "shop") == done
