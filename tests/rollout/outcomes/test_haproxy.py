from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import RolloutError
from tasks.policy import parse_strict
from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError
from tasks.rollout.outcomes.config import HaproxyConfig
from tasks.rollout.outcomes.counters import Sample, SampleFiles, grown
from tasks.rollout.outcomes.haproxy import HaproxySource

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Proxy:
    """An HAProxy that counts what a test says."""

    def __init__(self, address: str = "one") -> None:
        self.address, self.pid, self.uptime = address, 7, 1_000
        self.counters: dict[str, dict[str, int]] = {"blue": {}, "green": {}}
        self.owners = {A: "blue"}
        self.down = False

    def serve(self, backend: str, **answers: int) -> None:
        counters = self.counters[backend]
        counters["stot"] = counters.get("stot", 0) + sum(
            count for name, count in answers.items() if name.startswith("hrsp_")
        )
        for name, count in answers.items():
            counters[name] = counters.get(name, 0) + count

    def restart(self) -> None:
        self.pid, self.uptime = self.pid + 1, 0
        self.counters = {name: {} for name in self.counters}

    def ask(self, command: str) -> str:
        assert command == "show info"
        if self.down:
            raise RolloutError("HAProxy's Runtime API at one does not answer")
        return f"Name: HAProxy\nPid: {self.pid}\nUptime_sec: {self.uptime}\n"

    def backends(self) -> Mapping[str, Mapping[str, str]]:
        return {
            name: {key: str(value) for key, value in counters.items()}
            for name, counters in self.counters.items()
        }

    def backends_of(self, product: str) -> Mapping[str, str]:
        return self.owners


class Looks:
    """Looks that follow each other, each from where the last one ended."""

    def __init__(self, folder: Path, *proxies: Proxy, **config: Any) -> None:
        self.folder, self.proxies, self.now = folder, proxies or (Proxy(),), T0
        self._config = parse_strict(HaproxyConfig, {"kind": "haproxy", **config}, "test")
        self.notes: tuple[str, ...] = ()
        self.until = T0

    def look(self, seconds: float = 10) -> dict[str, ArmOutcomes]:
        self.now += timedelta(seconds=seconds)
        for proxy in self.proxies:
            proxy.uptime += int(seconds)
        # A source of its own each time: nothing must be kept in memory alone.
        source = HaproxySource(
            self._config,
            self.proxies,
            self.proxies[0],
            lambda product: SampleFiles(self.folder, f"haproxy-{product}"),
            lambda: self.now,
        )
        found = source.read("shop", [A, B], self.until, self.now)
        self.notes, self.until = found.notes, found.until
        return dict(found.arms)


def test_answers_are_counted_by_class(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    proxy.serve("blue", hrsp_2xx=1_000)
    assert looks.look()[A] == ArmOutcomes(0, 0)
    assert any("what was before is not counted" in note for note in looks.notes)
    proxy.serve("blue", hrsp_2xx=90, hrsp_5xx=4, hrsp_4xx=3, hrsp_other=2, cli_abrt=2, srv_abrt=1)
    assert looks.look()[A] == ArmOutcomes(97, 8)
    assert looks.look()[A] == ArmOutcomes(0, 0)
    assert looks.notes == ()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"client_errors": "ok"}, ArmOutcomes(97, 4)),
        ({"client_errors": "left_out"}, ArmOutcomes(94, 4)),
        ({"client_aborts": "failure"}, ArmOutcomes(99, 9)),
        ({"client_aborts": "ok"}, ArmOutcomes(99, 7)),
    ],
)
def test_what_clients_do_counts_as_configured(
    tmp_path: Path, config: dict[str, str], expected: ArmOutcomes
) -> None:
    looks = Looks(tmp_path, **config)
    looks.look()
    looks.proxies[0].serve("blue", hrsp_2xx=90, hrsp_5xx=4, hrsp_4xx=3, hrsp_other=2, cli_abrt=2)
    assert looks.look()[A] == expected


def test_requests_without_an_answer_are_failures_once_they_ended(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    looks.proxies[0].serve("blue", hrsp_2xx=10, stot=4, scur=4)
    assert looks.look()[A] == ArmOutcomes(10, 0)  # Four are under way.
    looks.proxies[0].serve("blue", scur=-4, cli_abrt=1)
    assert looks.look()[A] == ArmOutcomes(3, 3)  # One client left.


def test_a_candidate_counts_from_its_first_request_to_its_last(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    looks.look()
    proxy.owners = {A: "blue", B: "green"}
    proxy.serve("blue", hrsp_2xx=9)
    proxy.serve("green", hrsp_2xx=1)
    assert looks.look() == {A: ArmOutcomes(9, 0), B: ArmOutcomes(1, 0)}
    proxy.serve("green", hrsp_5xx=3)
    proxy.owners = {A: "blue"}  # Rolled back before anybody looked.
    assert looks.look()[B] == ArmOutcomes(3, 3)


def test_a_backend_that_changed_its_mix_counts_for_neither(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    looks.proxies[0].serve("blue", hrsp_2xx=9)
    looks.proxies[0].owners = {B: "blue"}
    assert looks.look() == {A: ArmOutcomes(), B: ArmOutcomes()}
    assert any("changed its mix" in note for note in looks.notes)


def test_a_reload_starts_the_counters_anew(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    proxy.serve("blue", hrsp_2xx=50)
    looks.look()
    proxy.restart()
    proxy.serve("blue", hrsp_2xx=60, hrsp_5xx=1)  # More than before: only the process tells.
    assert looks.look()[A] == ArmOutcomes(61, 1)
    assert any("reloaded" in note for note in looks.notes)


def test_the_same_process_number_in_a_new_container_is_a_restart(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    proxy.serve("blue", hrsp_2xx=50)
    looks.look()
    proxy.restart()
    proxy.pid -= 1
    proxy.serve("blue", hrsp_2xx=60)
    assert looks.look()[A].images == 60


def test_counters_cleared_by_hand_start_anew(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    proxy.serve("blue", hrsp_2xx=50)
    looks.look()
    proxy.counters["blue"] = {"hrsp_2xx": 20, "stot": 20}
    assert looks.look()[A].images == 20


def test_a_clock_that_is_set_is_no_restart(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    proxy = looks.proxies[0]
    proxy.serve("blue", hrsp_2xx=500)
    looks.look()
    looks.now += timedelta(seconds=40)  # Uptime does not move.
    proxy.serve("blue", hrsp_2xx=5)
    assert looks.look()[A].images == 5


def test_a_clock_put_far_back_is_told(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    looks.now, looks.until = T0 - timedelta(hours=1), T0 - timedelta(hours=2)
    with pytest.raises(OutcomeError, match="clock"):
        looks.look()


def test_several_proxies_add_up(tmp_path: Path) -> None:
    looks = Looks(tmp_path, Proxy("one"), Proxy("two"))
    looks.look()
    looks.proxies[0].serve("blue", hrsp_2xx=5)
    looks.proxies[1].serve("blue", hrsp_2xx=4, hrsp_5xx=2)
    assert looks.look()[A] == ArmOutcomes(11, 2)


def test_what_happened_while_nobody_looked_is_counted(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    looks.proxies[0].serve("blue", hrsp_2xx=5)
    looks.proxies[0].down = True
    with pytest.raises(OutcomeError, match="does not answer"):
        looks.look()
    looks.proxies[0].down = False
    assert looks.look(100_000)[A].images == 5


def test_an_earlier_window_can_be_asked_again(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    for count in (0, 3, 5, 8):
        looks.proxies[0].serve("blue", hrsp_2xx=count)
        looks.look(60)
    source = HaproxySource(
        parse_strict(HaproxyConfig, {"kind": "haproxy"}, "test"),
        looks.proxies,
        looks.proxies[0],
        lambda product: SampleFiles(tmp_path, f"haproxy-{product}"),
        lambda: looks.now,
    )

    def images(since: int, until: int) -> int:
        window = T0 + timedelta(seconds=since), T0 + timedelta(seconds=until)
        return source.read("shop", [A], *window).arms[A].images

    assert images(60, 180) == 8
    assert images(60, 130) + images(130, 240) == 16


def test_half_a_sample_left_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write('{"at": 158')
    looks.proxies[0].serve("blue", hrsp_2xx=5)
    assert looks.look()[A].images == 5
    looks.proxies[0].serve("blue", hrsp_2xx=2)
    assert looks.look()[A].images == 2


def test_old_samples_are_forgotten(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.look()
    looks.look(20 * 86_400)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["haproxy-shop-2020-03-20.jsonl"]


def test_backends_of_other_products_are_not_kept(tmp_path: Path) -> None:
    proxy = Proxy()
    proxy.counters["stats"] = {}
    source = HaproxySource(
        parse_strict(HaproxyConfig, {"kind": "haproxy"}, "test"),
        [proxy],
        proxy,
        lambda product: SampleFiles(tmp_path, product),
        lambda: T0,
        {"shop": frozenset({"blue", "green"})},
    )
    source.read("shop", [A], T0, T0)
    (sample,) = SampleFiles(tmp_path, "shop").load(T0)
    assert set(sample.values["one"]) == {"blue", "green"}


def test_without_a_routing_nobody_knows_whose_the_counters_are(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.proxies[0].owners = {}
    with pytest.raises(OutcomeError, match="no routing"):
        looks.look()


def test_counters_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    looks = Looks(tmp_path)
    looks.proxies[0].counters["blue"] = {"hrsp_2xx": "many"}  # type: ignore[dict-item]
    with pytest.raises(OutcomeError, match="whole number"):
        looks.look()


def test_many_that_sample_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    proxy = Proxy()
    lock = threading.Lock()

    def files(product: str) -> SampleFiles:
        return SampleFiles(tmp_path, f"haproxy-{product}")

    source = HaproxySource(
        parse_strict(HaproxyConfig, {"kind": "haproxy"}, "test"),
        [proxy],
        proxy,
        files,
        lambda: T0 + timedelta(seconds=1),
    )
    source.read("shop", [A], T0, T0)

    def one(_: int) -> None:
        with lock:
            proxy.serve("blue", hrsp_2xx=1)
        source.read("shop", [A], T0, T0 + timedelta(seconds=1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    total = grown(files("shop").load(T0), T0.timestamp(), T0.timestamp() + 60)
    assert total.by_mix[A]["hrsp_2xx"] == 40
    text = (tmp_path / "haproxy-shop-2020-02-29.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) == 41


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20),
    st.lists(st.integers(0, 21), min_size=2, max_size=6),
)
def test_windows_add_up_through_restarts(steps: list[tuple[int, bool]], edges: list[int]) -> None:
    total, pid = 0, 1
    samples = [Sample(0, {"one": (1, 0)}, {"blue": A}, {"one": {"blue": {"n": 0}}})]
    for at, (grew, restart) in enumerate(steps, start=1):
        pid, total = (pid + 1, grew) if restart else (pid, total + grew)
        samples.append(Sample(at, {"one": (pid, at)}, {"blue": A}, {"one": {"blue": {"n": total}}}))

    def between(since: float, until: float) -> int:
        return grown(samples, since, until).by_mix.get(A, {}).get("n", 0)

    cuts = [0, *sorted(edges), 99]
    parts = [between(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]  # noqa: RUF007
    assert sum(parts) == between(0, 99) == sum(grew for grew, _ in steps)
