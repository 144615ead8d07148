"""The drill on a real HAProxy that serves users: the shadow route walks, users never notice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tasks.mix.production import adopt
from tasks.rollout.change import promote, reconcile
from tasks.rollout.drill import newest_drill, rehearse
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.state import State
from tests.fakes import mixes
from tests.real.cluster import find_program
from tests.real.haproxy_canary import Application, Haproxy

pytestmark = pytest.mark.skipif(
    find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"
)

WINTER, SUMMER = mixes.mix("winter", "folio-1"), mixes.mix("summer", "folio-2")


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Haproxy]:
    with Application("blue") as blue, Application("green") as green:
        proxy = Haproxy(tmp_path, blue.port, green.port)
        proxy.start()
        yield proxy
        proxy.stop()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}", home=tmp_path)
    yield database
    database.close()


def test_a_rollback_is_rehearsed_under_load_and_timed(haproxy: Haproxy, state: State) -> None:
    # An entry of the map that no frontend looks up, so that no user is sent by it.
    shadow = {"backends": [{"name": "shop-blue"}, {"name": "shop-green"}]}
    products = {**haproxy.rollout["products"], "shop-drill": shadow}
    router = HaproxyRouter(haproxy.router_config(products=products))
    adopt(state, WINTER, "test", "first")
    reconcile(state, router, "shop")
    promote(state, router, "shop", SUMMER, actor="test", reason="gate")
    before = router.read("shop")
    stop, served = threading.Event(), Counter[str]()

    def load() -> None:
        number = 0
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not stop.is_set():
                number += 1
                answer = client.get(haproxy.url, headers={"X-Request-Key": f"user-{number}"})
                served[f"{answer.status_code} {answer.headers.get('X-Imagegate-Mix')}"] += 1

    user = threading.Thread(target=load)
    user.start()
    try:
        dry = rehearse(state, router, "haproxy", "shop", "dry", actor="ann")
        done = rehearse(
            state, router, "haproxy", "shop", "shadow", actor="ann", shadow="shop-drill"
        )
    finally:
        stop.set()
        user.join()
    assert dry.ok, dry.steps
    assert done.ok, done.steps
    assert newest_drill(state, "shop") == done
    assert 0 < done.seconds < 60
    assert served.keys() == {f"200 {SUMMER.digest}"}
    assert router.read("shop") == before
    shown = router.read("shop-drill")
    assert shown is not None
    assert dict(shown.weights) == {SUMMER.digest: 1.0}
