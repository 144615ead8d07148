"""HAProxy's own counters against what applications and clients saw, failures of every kind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tasks.policy import parse_strict
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.outcomes.config import HaproxyConfig
from tasks.rollout.outcomes.counters import SampleFiles
from tasks.rollout.outcomes.haproxy import HaproxySource
from tasks.rollout.routers.base import Desired, Share
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.rollout.routers.haproxy_runtime import Runtime
from tests.fakes import mixes as fakes
from tests.real.cluster import find_program, until
from tests.real.haproxy_canary import Haproxy

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status = int(kind) if kind.isdigit() else 200
        self.send_response(status)
        self.send_header("Content-Length", "100000" if kind == "broken" else "4")
        self.end_headers()
        self.wfile.write(b"body")
        self.wfile.flush()
        if kind == "broken":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: health checks hang up."""


@pytest.fixture
def servers() -> Iterator[list[_Server]]:
    both = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
    threads = [threading.Thread(target=s.serve_forever, args=(0.05,)) for s in both]
    for thread in threads:
        thread.start()
    yield both
    for server, thread in zip(both, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def haproxy(tmp_path: Path, servers: list[_Server]) -> Iterator[Haproxy]:
    proxy = Haproxy(tmp_path, *(int(server.server_address[1]) for server in servers))
    proxy.start()
    yield proxy
    proxy.stop()


class Looks:
    def __init__(self, folder: Path, proxy: Haproxy) -> None:
        self.router = HaproxyRouter(proxy.router_config())
        self._source = HaproxySource(
            parse_strict(HaproxyConfig, {"kind": "haproxy"}, "test"),
            [Runtime(proxy.socket, 20.0)],
            self.router,
            lambda product: SampleFiles(folder / "samples", product),
        )
        self._since = datetime.now(UTC)
        self.total: dict[str, ArmOutcomes] = {}

    def look(self, *digests: str) -> Outcomes:
        found = self._source.read("shop", digests, self._since, datetime.now(UTC))
        self._since = found.until
        for digest, arm in found.arms.items():
            self.total[digest] = self.total.get(digest, ArmOutcomes()) + arm
        return found

    def reaches(self, digest: str, images: int, *digests: str) -> ArmOutcomes:
        """Look until so many images were counted: HAProxy counts a request when it has ended."""

        def enough() -> bool:
            self.look(*digests)
            return self.total[digest].images >= images

        until("the requests are counted", enough, 60)
        return self.total[digest]


def _get(client: httpx.Client, url: str, key: str = "k") -> int | None:
    try:
        return client.get(url, headers={"X-Request-Key": key}).status_code
    except httpx.HTTPError:
        return None


def test_every_kind_of_failure_is_counted_once(tmp_path: Path, haproxy: Haproxy) -> None:
    looks, mix = Looks(tmp_path, haproxy), fakes.mix("winter", "folio-1")
    looks.router.apply(Desired("shop", 1, (Share(mix, 1.0),)))
    looks.look(mix.digest)
    with httpx.Client(timeout=60) as client:
        said = [
            _get(client, f"{haproxy.url}/{kind}")
            for kind, count in (("ok", 50), ("500", 3), ("404", 2), ("reset", 4), ("broken", 5))
            for _ in range(count)
        ]
    assert said.count(200) == 50
    # Health checks of HAProxy itself and probes of the router are no requests of users.
    assert looks.reaches(mix.digest, 64, mix.digest) == ArmOutcomes(64, 14)


def test_a_server_that_is_down_counts_as_failures(
    tmp_path: Path, haproxy: Haproxy, servers: list[_Server]
) -> None:
    looks, mix = Looks(tmp_path, haproxy), fakes.mix("winter", "folio-1")
    looks.router.apply(Desired("shop", 1, (Share(mix, 1.0),)))
    looks.look(mix.digest)
    servers[0].shutdown()
    servers[0].server_close()
    with httpx.Client(timeout=60) as client:
        assert {_get(client, f"{haproxy.url}/ok") for _ in range(10)} == {503}
    assert looks.reaches(mix.digest, 10, mix.digest) == ArmOutcomes(10, 10)


def test_a_reload_in_the_middle_of_traffic(tmp_path: Path, haproxy: Haproxy) -> None:
    looks = Looks(tmp_path, haproxy)
    winter, summer = fakes.mix("winter", "folio-1"), fakes.mix("summer", "folio-2")
    digests = winter.digest, summer.digest
    looks.router.apply(Desired("shop", 1, (Share(winter, 0.75), Share(summer, 0.25))))
    looks.look(*digests)

    def burst(start: int) -> list[int | None]:
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(4) as pool:
            urls = range(start, start + 200)
            return list(
                pool.map(
                    lambda n: _get(
                        client, f"{haproxy.url}/{'500' if n % 10 == 0 else 'ok'}", str(n)
                    ),
                    urls,
                )
            )

    first = burst(0)
    until("the first burst is counted", lambda: _both(looks, digests) >= 200, 60)
    haproxy.reload()
    second = burst(1_000)
    until("the second burst is counted", lambda: _both(looks, digests) >= 400, 60)
    assert (first + second).count(500) == 40
    assert None not in first + second
    assert sum(arm.failures for arm in looks.total.values()) == 40
    share = looks.total[summer.digest].images / 400
    assert abs(share - 0.25) < 0.1
    assert looks.look(*digests).until > datetime.now(UTC) - timedelta(hours=1)


def _both(looks: Looks, digests: tuple[str, ...]) -> int:
    looks.look(*digests)
    return sum(arm.images for arm in looks.total.values())
