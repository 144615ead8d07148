"""The HAProxy router against a real HAProxy, by the configuration that the project ships."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.config import open_router
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.rollout.routers.haproxy_runtime import Runtime
from tasks.settings import load_settings
from tests.fakes import mixes
from tests.real.cluster import find_program, until
from tests.real.haproxy_canary import Application, Haproxy

pytestmark = pytest.mark.skipif(
    find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"
)

WINTER, SUMMER, AUTUMN = (
    mixes.mix("winter", "folio-1"),
    mixes.mix("summer", "folio-2"),
    mixes.mix("autumn", "folio-3"),
)


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def split(weight: float, epoch: int, mix: ResolvedMix = SUMMER) -> Desired:
    return Desired("shop", epoch, (Share(WINTER, 1 - weight), Share(mix, weight)))


@pytest.fixture
def blue() -> Iterator[Application]:
    with Application("blue") as server:
        yield server


@pytest.fixture
def green() -> Iterator[Application]:
    with Application("green") as server:
        yield server


@pytest.fixture
def haproxy(tmp_path: Path, blue: Application, green: Application) -> Iterator[Haproxy]:
    proxy = Haproxy(tmp_path, blue.port, green.port)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def router(haproxy: Haproxy) -> HaproxyRouter:
    return HaproxyRouter(haproxy.router_config())


def ask(haproxy: Haproxy, keys: list[str]) -> Counter[tuple[str, str]]:
    """Return how many requests each server answered, for which mix."""
    found: Counter[tuple[str, str]] = Counter()
    with httpx.Client(trust_env=False, timeout=30) as client:
        for key in keys:
            answer = client.get(f"{haproxy.url}/image", headers={"X-Request-Key": key})
            answer.raise_for_status()
            found[answer.json()["served_by"], answer.headers["X-Imagegate-Mix"]] += 1
    return found


def test_a_canary_walks_and_each_step_is_read_back(haproxy: Haproxy, router: HaproxyRouter) -> None:
    router.probe()
    assert router.read("shop") is None
    router.apply(whole(WINTER, 1))
    assert router.read("shop") == RouterState("shop", WINTER.digest, 1, {WINTER.digest: 1.0})
    router.probe()
    keys = [f"user-{n}" for n in range(400)]
    assert ask(haproxy, keys) == {("blue", WINTER.digest): 400}
    moved: set[str] = set()
    for epoch, weight in enumerate((0.01, 0.05, 0.25, 0.5), start=2):
        wanted = split(weight, epoch)
        router.apply(wanted)
        shown = router.read("shop")
        assert shown is not None
        assert shown.shows(wanted)
        router.probe()
        with httpx.Client(trust_env=False, timeout=30) as client:
            now = {
                key
                for key in keys
                if client.get(haproxy.url, headers={"X-Request-Key": key}).json()["served_by"]
                == "green"
            }
        # A request that was the candidate's stays the candidate's while its share grows.
        assert moved <= now
        moved = now
        assert abs(len(now) / len(keys) - weight) < 0.06
    router.apply(whole(SUMMER, 6))
    assert ask(haproxy, keys) == {("green", SUMMER.digest): 400}
    # The next candidate takes the place that is free, and a rollback finds its own again.
    router.apply(Desired("shop", 7, (Share(SUMMER, 0.5), Share(AUTUMN, 0.5))))
    assert ask(haproxy, keys).keys() == {("green", SUMMER.digest), ("blue", AUTUMN.digest)}
    assert router.backends_of("shop") == {SUMMER.digest: "shop-green", AUTUMN.digest: "shop-blue"}
    router.apply(whole(SUMMER, 8))
    assert ask(haproxy, keys) == {("green", SUMMER.digest): 400}


def test_the_share_is_exactly_that_of_the_points(haproxy: Haproxy, router: HaproxyRouter) -> None:
    router.apply(whole(WINTER, 1))
    router.apply(split(0.1, 2))
    keys = [f"k{n}" for n in range(500)]
    below = [
        key
        for key in keys
        if int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 1_000_000 < 100_000
    ]
    assert ask(haproxy, below).keys() == {("green", SUMMER.digest)}
    assert ask(haproxy, [k for k in keys if k not in below]).keys() == {("blue", WINTER.digest)}


def test_a_reload_keeps_the_routing_and_loses_no_request(
    haproxy: Haproxy, router: HaproxyRouter, blue: Application, green: Application
) -> None:
    router.apply(whole(WINTER, 1))
    router.apply(split(0.5, 2))
    stop, failed, served = threading.Event(), [], Counter[str]()

    def load(number: int) -> None:
        # As a browser does: a connection that ended between two requests is opened anew.
        count = 0
        with httpx.Client(
            trust_env=False, timeout=30, transport=httpx.HTTPTransport(retries=3)
        ) as client:
            while not stop.is_set():
                count += 1
                try:
                    answer = client.get(
                        haproxy.url, headers={"X-Request-Key": f"{number}-{count}", **CLOSE}
                    )
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    failed.append(repr(error))
                else:
                    served[answer.json()["served_by"]] += 1

    def more_than(count: int) -> bool:
        return sum(served.values()) > count

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for epoch in range(3, 13):
            until("some load", partial(more_than, sum(served.values()) + 20), 60)
            wanted = whole(WINTER, epoch) if epoch % 2 else split(0.5, epoch)
            router.apply(wanted)
            shown = router.read("shop")
            assert shown is not None
            assert shown.shows(wanted)
            if epoch % 4 == 0:
                haproxy.reload()
                shown = router.read("shop")
                assert shown is not None
                assert shown.shows(wanted)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert served["blue"] > 0
    assert served["green"] > 0


#: One connection a request: what is measured is the switch, not how a client reuses connections.
CLOSE = {"Connection": "close"}


def test_a_change_that_a_reload_would_lose_is_not_shown(
    haproxy: Haproxy, router: HaproxyRouter
) -> None:
    router.apply(whole(WINTER, 1))
    wanted = split(0.25, 2)
    router.apply(wanted)
    # Somebody's configuration management put yesterday's file back.
    old = haproxy.map.read_text(encoding="utf-8")
    haproxy.map.write_text("# empty\n", encoding="utf-8")
    shown = router.read("shop")
    assert shown is not None
    assert not shown.shows(wanted)
    router.apply(wanted)
    assert haproxy.map.read_text(encoding="utf-8") == old
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(wanted)


def test_a_change_by_hand_is_seen_and_put_right_under_a_later_epoch(
    haproxy: Haproxy, router: HaproxyRouter
) -> None:
    router.apply(whole(WINTER, 1))
    wanted = split(0.05, 2)
    router.apply(wanted)
    runtime = Runtime(haproxy.socket, 20)
    value = runtime.show_map(str(haproxy.map))["shop"][0]
    runtime.set_map(str(haproxy.map), "shop", value.replace("v1|50000|", "v1|900000|"))
    shown = router.read("shop")
    assert shown is not None
    assert not shown.shows(wanted)
    assert shown.epoch == 2
    with pytest.raises(FencedError):
        router.apply(wanted)
    router.apply(split(0.05, 3))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(split(0.05, 3))
    # What is no routing at all cannot be read, and is overwritten.
    runtime.set_map(str(haproxy.map), "shop", "hello")
    with pytest.raises(RolloutError, match="somebody else wrote it"):
        router.read("shop")
    router.apply(whole(WINTER, 4))
    assert ask(haproxy, ["a", "b"]) == {("blue", WINTER.digest): 2}


def test_an_older_epoch_never_comes_back(router: HaproxyRouter) -> None:
    router.apply(whole(WINTER, 5))
    for late in (whole(SUMMER, 5), whole(WINTER, 4), split(0.5, 4)):
        with pytest.raises(FencedError, match="comes too late"):
            router.apply(late)
    router.apply(whole(WINTER, 5))


def test_a_backend_that_is_down_gets_no_first_request_but_a_rollback_goes(
    haproxy: Haproxy, router: HaproxyRouter, blue: Application, green: Application
) -> None:
    router.apply(whole(WINTER, 1))
    green.healthy = False
    runtime = Runtime(haproxy.socket, 20)
    until("green is down", lambda: runtime.backends()["shop-green"]["status"] == "DOWN", 60)
    with pytest.raises(RolloutError, match=r"'shop-green'.*is DOWN"):
        router.apply(split(0.05, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(WINTER, 1))
    green.healthy = True
    until("green is up", lambda: runtime.backends()["shop-green"]["status"] == "UP", 60)
    router.apply(split(0.05, 2))
    blue.healthy = green.healthy = False
    until("blue is down", lambda: runtime.backends()["shop-blue"]["status"] == "DOWN", 60)
    router.apply(whole(WINTER, 3))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(WINTER, 3))


def test_backends_that_know_their_mix_are_asked(
    haproxy: Haproxy, blue: Application, green: Application
) -> None:
    blue.identity, green.identity = WINTER.digest, AUTUMN.digest
    product = {
        "backends": [
            {"name": "shop-blue", "identity_url": f"http://127.0.0.1:{blue.port}/health"},
            {"name": "shop-green", "identity_url": f"http://127.0.0.1:{green.port}/health"},
        ]
    }
    router = HaproxyRouter(haproxy.router_config(products={"shop": product}))
    router.apply(whole(WINTER, 1))
    with pytest.raises(RolloutError, match=rf"no backend.*{SUMMER.digest}.*shop-green serves"):
        router.apply(split(0.05, 2))
    green.identity = SUMMER.digest
    router.apply(split(0.05, 2))
    # Who has traffic is not asked again: a rollback must go whatever the servers say.
    blue.identity = "gone"
    router.apply(whole(WINTER, 3))
    assert router.backends_of("shop") == {WINTER.digest: "shop-blue"}


def test_an_haproxy_that_does_not_go_by_its_map_is_found_out(
    haproxy: Haproxy, router: HaproxyRouter
) -> None:
    router.apply(whole(WINTER, 1))
    text = haproxy.config.read_text(encoding="utf-8")
    ruled = "http-request set-var(txn.ig_cut) var(txn.ig),field(2,|),add(0)"
    assert ruled in text
    haproxy.config.write_text(
        text.replace(ruled, "http-request set-var(txn.ig_cut) int(0)"), encoding="utf-8"
    )
    haproxy.reload()
    with pytest.raises(RolloutError, match="does not go by it"):
        router.apply(split(0.25, 2))
    with pytest.raises(RolloutError, match="does not go by it"):
        router.probe()


def test_what_would_not_start_again_is_not_changed(haproxy: Haproxy, router: HaproxyRouter) -> None:
    with haproxy.config.open("a", encoding="utf-8") as file:
        file.write("\nbackend broken\n  frobnicate\n")
    with pytest.raises(RolloutError, match=r"would not start again.*frobnicate"):
        router.probe()


def test_a_stopped_haproxy_is_an_error_that_says_where(
    haproxy: Haproxy, router: HaproxyRouter
) -> None:
    router.apply(whole(WINTER, 1))
    haproxy.stop()
    for step in (router.probe, lambda: router.read("shop"), lambda: router.apply(split(0.5, 2))):
        with pytest.raises(RolloutError, match=haproxy.socket):
            step()
    # Nothing of the second change was kept: HAProxy comes back with what it served.
    haproxy.start()
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(WINTER, 1))


def test_backends_and_maps_that_do_not_exist_are_named(haproxy: Haproxy) -> None:
    blue = {"name": "shop-blue"}
    missing = haproxy.router_config(products={"shop": {"backends": [blue, {"name": "shop-red"}]}})
    with pytest.raises(RolloutError, match=r"no backend 'shop-red' \(known: .*shop-blue"):
        HaproxyRouter(missing).probe()
    elsewhere = haproxy.router_config(
        instances=[{"socket": haproxy.socket, "map_file": f"{haproxy.map}2"}]
    )
    with pytest.raises(RolloutError, match="must look this very path up"):
        HaproxyRouter(elsewhere).probe()
    with pytest.raises(RolloutError, match="no backends of HAProxy for product 'cards'"):
        HaproxyRouter(haproxy.router_config()).apply(
            Desired("cards", 1, (Share(mixes.mix("c", "folio-9", product="cards"), 1.0),))
        )


def test_the_rollout_file_opens_it(haproxy: Haproxy, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump({"router": haproxy.rollout}), encoding="utf-8")
    router = open_router(load_settings({"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path))
    router.probe()
    router.apply(whole(WINTER, 1))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(WINTER, 1))


def test_several_instances_change_together_and_one_that_is_gone_is_named(
    tmp_path: Path, haproxy: Haproxy, blue: Application, green: Application
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Haproxy(folder, blue.port, green.port)
    second.start()
    try:
        both = haproxy.rollout["instances"] + second.rollout["instances"]
        router = HaproxyRouter(haproxy.router_config(instances=both))
        router.apply(whole(WINTER, 1))
        router.apply(split(0.5, 2))
        for one in (haproxy, second):
            assert ask(one, [f"user-{n}" for n in range(20)]).keys() == {
                ("blue", WINTER.digest),
                ("green", SUMMER.digest),
            }
        second.stop()
        # A rollback reaches whom it can, and says whom it could not.
        with pytest.raises(RolloutError, match=second.socket):
            router.apply(whole(WINTER, 3))
        assert ask(haproxy, ["a", "b", "c", "d"]) == {("blue", WINTER.digest): 4}
        second.start()
        shown = router.read("shop")
        assert shown is not None
        assert not shown.shows(whole(WINTER, 3))
        router.apply(whole(WINTER, 3))
        shown = router.read("shop")
        assert shown is not None
        assert shown.shows(whole(WINTER, 3))
    finally:
        second.stop()
