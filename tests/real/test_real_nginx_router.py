"""The nginx router against a real nginx, by the configuration that the project ships."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.config import NginxRouterConfig
from tasks.rollout.routers.entry import POINTS
from tasks.rollout.routers.http import trust
from tasks.rollout.routers.nginx import NginxRouter, point_of
from tasks.rollout.routers.nginx_workers import taking_connections, workers_beside
from tests.conftest import ROOT, clean_environment, free_port
from tests.fakes import mixes
from tests.real.cluster import Process, find_program, until
from tests.real.haproxy_canary import Application

pytestmark = pytest.mark.skipif(
    find_program("nginx") is None, reason="needs nginx (Debian: nginx-light)"
)

WINTER, SUMMER = mixes.mix("winter", "folio-1"), mixes.mix("summer", "folio-2")


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def split(weight: float, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(WINTER, 1 - weight), Share(SUMMER, weight)))


class Nginx:
    """nginx in front of two servers, with the example's configuration."""

    def __init__(self, folder: Path, blue: int, green: int) -> None:
        self.folder = folder
        self.port, self.status_port = free_port(), free_port()
        self.include = folder / "imagegate"
        self.include.mkdir()
        first = (ROOT / "deployments" / "nginx-canary-first.conf").read_text(encoding="utf-8")
        (self.include / "shop.conf").write_text(first, encoding="utf-8")
        inner = (ROOT / "deployments" / "nginx-canary.conf").read_text(encoding="utf-8")
        for old, new in (
            ("/etc/nginx/imagegate/", f"{self.include}/"),
            ("listen 8080", f"listen 127.0.0.1:{self.port}"),
            ("127.0.0.1:8081", f"127.0.0.1:{self.status_port}"),
            ("127.0.0.1:9001", f"127.0.0.1:{blue}"),
            ("127.0.0.1:9002", f"127.0.0.1:{green}"),
        ):
            assert old in inner, old
            inner = inner.replace(old, new)
        temporary = "".join(
            f"  {name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.config = folder / "nginx.conf"
        self.config.write_text(
            f"pid {folder}/nginx.pid;\nerror_log stderr;\nworker_processes 2;\n"
            f"events {{}}\nhttp {{\n  access_log off;\n{temporary}{inner}}}\n",
            encoding="utf-8",
        )
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        return [find_program("nginx") or "nginx", "-p", str(self.folder), "-c", str(self.config)]

    def router_config(self, **changes: Any) -> NginxRouterConfig:
        product = {
            "backends": [{"name": "shop-blue"}, {"name": "shop-green"}],
            "status_url": f"http://127.0.0.1:{self.status_port}/imagegate/shop",
            "probe_url": f"{self.url}/health",
        }
        value = {
            "kind": "nginx",
            "include_dir": str(self.include),
            "products": {"shop": product},
            "test_command": [*self.command, "-T"],
            "reload_command": [*self.command, "-s", "reload"],
            "timeout_s": 20,
            "settle_s": 60,
        }
        return NginxRouterConfig.model_validate(value | changes)

    def start(self) -> None:
        arguments = [*self.command, "-g", "daemon off;"]
        self.process = Process("nginx", self.folder, arguments, clean_environment())

        def answers() -> bool:
            assert self.process is not None
            assert self.process.lives, self.process.text()[-2000:]
            try:
                return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        until("nginx answers", answers, 60)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    with Application("blue") as blue, Application("green") as green:
        server = Nginx(tmp_path, blue.port, green.port)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def router(nginx: Nginx) -> NginxRouter:
    return NginxRouter(nginx.router_config())


def served(nginx: Nginx, key: str) -> tuple[str, str]:
    answer = httpx.get(
        nginx.url, headers={"X-Request-Key": key}, trust_env=False, timeout=30, verify=trust()
    )
    answer.raise_for_status()
    return answer.json()["served_by"], answer.headers["X-Imagegate-Mix"]


def test_a_canary_walks_and_each_step_is_read_back(nginx: Nginx, router: NginxRouter) -> None:
    router.probe()
    assert router.read("shop") is None
    router.apply(whole(WINTER, 1))
    assert router.read("shop") == RouterState("shop", WINTER.digest, 1, {WINTER.digest: 1.0})
    keys = [f"user-{n}" for n in range(120)]
    for epoch, weight in enumerate((0.01, 0.05, 0.25, 0.5), start=2):
        wanted = split(weight, epoch)
        router.apply(wanted)
        shown = router.read("shop")
        assert shown is not None
        assert shown.shows(wanted)
        router.probe()
        # Which side a key is on is known beforehand: the same at every step that is wide enough.
        for key in keys:
            point = point_of(key)
            if abs(point - weight * POINTS) > 2:
                expected = ("green", SUMMER.digest), ("blue", WINTER.digest)
                assert served(nginx, key) == expected[point >= weight * POINTS]
    router.apply(whole(SUMMER, 6))
    assert {served(nginx, key) for key in keys[:20]} == {("green", SUMMER.digest)}
    router.apply(whole(WINTER, 7))
    assert {served(nginx, key) for key in keys[:20]} == {("blue", WINTER.digest)}


def test_no_request_fails_at_a_switch(nginx: Nginx, router: NginxRouter) -> None:
    router.apply(whole(WINTER, 1))
    stop, failed, counts = threading.Event(), [], Counter[str]()

    def load(number: int) -> None:
        count = 0
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not stop.is_set():
                count += 1
                headers = {"X-Request-Key": f"{number}-{count}", "Connection": "close"}
                try:
                    answer = client.get(nginx.url, headers=headers)
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    failed.append(repr(error))
                else:
                    counts[answer.json()["served_by"]] += 1

    def more_than(count: int) -> bool:
        return sum(counts.values()) > count

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for epoch in range(2, 10):
            router.apply(whole(WINTER, epoch) if epoch % 2 else split(0.5, epoch))
            until("some load", partial(more_than, sum(counts.values()) + 20), 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert counts["green"] > 0


def test_old_workers_are_watched_until_they_take_no_more(nginx: Nginx, router: NginxRouter) -> None:
    router.apply(whole(WINTER, 1))
    url = f"http://127.0.0.1:{nginx.status_port}/imagegate/shop"

    def worker() -> int:
        return int(httpx.get(url, trust_env=False, verify=trust()).text.rpartition(" ")[2])

    old = workers_beside(worker())
    assert len(old) == 2
    assert taking_connections(old)
    router.apply(whole(SUMMER, 2))
    assert not taking_connections(old)
    new = workers_beside(worker()) - old
    assert taking_connections(new)
    assert workers_beside(None) == workers_beside(os.getpid()) == frozenset()


def test_what_nginx_would_not_take_is_taken_back(nginx: Nginx, router: NginxRouter) -> None:
    router.apply(whole(WINTER, 1))
    before = (nginx.include / "shop.conf").read_text(encoding="utf-8")
    with nginx.config.open("a", encoding="utf-8") as file:
        file.write("frobnicate on;\n")
    with pytest.raises(RolloutError, match="frobnicate"):
        router.probe()
    with pytest.raises(RolloutError, match="frobnicate"):
        router.apply(split(0.25, 2))
    assert (nginx.include / "shop.conf").read_text(encoding="utf-8") == before
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(WINTER, 1))
    assert served(nginx, "a") == ("blue", WINTER.digest)


def test_what_was_written_and_not_loaded_is_not_shown(nginx: Nginx, router: NginxRouter) -> None:
    router.apply(whole(WINTER, 1))
    lying = NginxRouter(nginx.router_config(reload_command=["true"], settle_s=0.1))
    with pytest.raises(RolloutError, match="do not run epoch 2"):
        lying.apply(split(0.25, 2))
    shown = router.read("shop")
    assert shown is not None
    assert (shown.epoch, dict(shown.weights)) == (2, {})
    router.apply(split(0.25, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(split(0.25, 2))


def test_a_change_by_hand_is_seen_and_put_right(nginx: Nginx, router: NginxRouter) -> None:
    wanted = split(0.25, 1)
    router.apply(wanted)
    path = nginx.include / "shop.conf"
    text = path.read_text(encoding="utf-8")
    assert "25.00%" in text
    path.write_text(text.replace("25.00%", "90.00%"), encoding="utf-8")
    shown = router.read("shop")
    assert shown is not None
    assert not shown.shows(wanted)
    router.apply(wanted)
    assert path.read_text(encoding="utf-8") == text
    path.write_text("# routing: hello\n", encoding="utf-8")
    shown = router.read("shop")
    assert shown is not None
    assert not shown.shows(wanted)
    router.apply(wanted)
    assert path.read_text(encoding="utf-8") == text


def test_an_older_epoch_never_comes_back(router: NginxRouter) -> None:
    router.apply(whole(WINTER, 5))
    for late in (whole(SUMMER, 5), whole(WINTER, 4)):
        with pytest.raises(FencedError, match="comes too late"):
            router.apply(late)


def test_upstreams_that_do_not_exist_are_named(nginx: Nginx) -> None:
    product = {
        "backends": [{"name": "shop-red"}, {"name": "shop-green"}],
        "status_url": f"http://127.0.0.1:{nginx.status_port}/imagegate/shop",
    }
    router = NginxRouter(nginx.router_config(products={"shop": product}))
    first = (nginx.include / "shop.conf").read_text(encoding="utf-8")
    for step in (router.probe, lambda: router.apply(whole(WINTER, 1))):
        with pytest.raises(RolloutError, match=r"no upstream 'shop-red' \(known: shop-blue"):
            step()
    assert (nginx.include / "shop.conf").read_text(encoding="utf-8") == first


def test_shares_finer_than_nginx_has_are_refused(router: NginxRouter) -> None:
    with pytest.raises(RolloutError, match="finest step"):
        router.apply(split(0.00015, 1))


def test_a_stopped_nginx_is_an_error(nginx: Nginx, router: NginxRouter) -> None:
    router.apply(whole(WINTER, 1))
    nginx.stop()
    for step in (router.probe, lambda: router.read("shop"), lambda: router.apply(split(0.5, 2))):
        with pytest.raises(RolloutError, match="no answer"):
            step()
