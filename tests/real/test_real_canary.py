"""Canaries on a real HAProxy under a real load: the walk, the rollback, and how long it takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from tasks.alerts.delivery import deliver_all
from tasks.alerts.outbox import messages, pending
from tasks.canary_rules import CanaryRule, CanaryStep
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt, keep_mix
from tasks.rollout.canary import store
from tasks.rollout.canary.begin import begin_canary
from tasks.rollout.canary.look import Surroundings, look
from tasks.rollout.canary.store import Canary
from tasks.rollout.change import reconcile
from tasks.rollout.config import open_router
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.routers.base import Router
from tasks.rollout.routers.file import FileRouter
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.rollout.routers.haproxy_runtime import Runtime
from tasks.settings import load_settings
from tasks.state import State
from tests.conftest import ROOT, clean_environment
from tests.fakes import mixes, slack_server
from tests.real.cluster import find_program, until
from tests.real.haproxy_canary import Haproxy

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"),
]

RATE, KEYS = 200.0, 4000
#: Long enough for a whole turn of the keys at every step.
WALK = CanaryRule(
    steps=(
        CanaryStep(weight=0.01, soak_minutes=0.35, images=40, promote_below=0.10),
        CanaryStep(weight=0.05, soak_minutes=0.35, images=100, promote_below=0.06),
        CanaryStep(weight=0.25, soak_minutes=0.35, images=300, promote_below=0.04),
        CanaryStep(weight=0.50, soak_minutes=0.35, images=600, promote_below=0.03),
    ),
    every_seconds=0.5,
)


def report(text: str) -> None:
    """Show a figure with ``pytest -s``."""
    print(text)  # noqa: T201


@dataclass(frozen=True)
class Answer:
    """One request as its user saw it."""

    start: float
    end: float
    key: str
    status: int
    mix: str
    injected: bool
    error: str


class Site:
    """A shop behind a real HAProxy: two servers, a load, and the command that drives a canary."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.old, self.new = mixes.mix("winter", "folio-1"), mixes.mix("summer", "folio-2")
        self.ports = [stack.enter_context(server(name)) for name in ("blue", "green")]
        self.haproxy = Haproxy(folder, *self.ports)
        self.haproxy.start()
        stack.callback(self.haproxy.stop)
        rollout = folder / "rollout.yaml"
        outcomes = [{"kind": "haproxy"}]
        rollout.write_text(yaml.safe_dump({"router": self.haproxy.rollout, "outcomes": outcomes}))
        self.environment = {
            "IMAGEGATE_HOME": str(self.home),
            "IMAGEGATE_ROLLOUT_FILE": str(rollout),
        }
        self.settings = load_settings(self.environment)
        self.state = State(f"sqlite:///{self.home / 'state.db'}")
        stack.callback(self.state.close)
        self.router = open_router(self.settings)
        adopt(self.state, self.old, "test", "first")
        reconcile(self.state, self.router, "shop")
        self.log = folder / "load.csv"
        self.runtime = Runtime(self.haproxy.socket, 20.0)
        self.process: subprocess.Popen[str] | None = None
        stack.callback(self.kill)

    def begin(self, rule: CanaryRule = WALK) -> Canary:
        return begin_canary(
            self.state, self.new, rule, "sha256:0", actor="ann", now=datetime.now(UTC),
            without_gate="a test",
        )  # fmt: skip

    def drive(self) -> None:
        """Start ``imagegate canary run``."""
        with (self.folder / "run.log").open("a") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows", "canary", "run", "--product", "shop"],
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                cwd=ROOT, env=clean_environment() | self.environment,
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        return (self.folder / "run.log").read_text(errors="replace")[-3000:]

    @property
    def canary(self) -> Canary:
        found = store.newest_of(self.state, "shop")
        assert found is not None
        return found

    def fail(self, share: float) -> None:
        """Let a share of the candidate's pictures fail from now on."""
        for port in self.ports:
            query = {"mix": self.new.digest, "rate": str(share)}
            httpx.get(f"http://127.0.0.1:{port}/control", params=query, trust_env=False)

    def counters(self) -> tuple[int, int]:
        """Answers of production's and of the candidate's backend, by HAProxy."""
        assert isinstance(self.router, HaproxyRouter)
        owners = self.router.backends_of("shop")
        rows = self.runtime.backends()

        def answered(mix: ResolvedMix) -> int:
            backend = owners.get(mix.digest)
            if backend is None:
                return -1
            row = rows[backend]
            return sum(int(row[f"hrsp_{c}"] or 0) for c in ("2xx", "3xx", "4xx", "5xx", "other"))

        return answered(self.old), answered(self.new)

    def answers(self) -> list[Answer]:
        found = []
        for line in self.log.read_text().splitlines():
            start, end, key, status, mix, injected, error = line.split(",")
            found.append(
                Answer(float(start), float(end), key, int(status), mix, bool(injected), error)
            )
        return found


@contextmanager
def server(name: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.real.traffic", "server", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=clean_environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def load(site: Site) -> Iterator[None]:
    """200 requests a second from a process of its own."""
    arguments = [str(site.haproxy.port), str(RATE), str(KEYS), str(site.log)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.real.traffic", "load", *arguments],
        stdin=subprocess.PIPE, cwd=ROOT, env=clean_environment(),
    ) as process:  # fmt: skip
        until("the load begins", lambda: site.log.exists() and site.log.stat().st_size > 10_000)
        yield
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(120) == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def walked(site: Site, on_step: Callable[[Canary], None]) -> dict[int, tuple[int, int]]:
    """Follow the canary to its end; return answers by step (production, candidate) by HAProxy."""
    first: dict[int, tuple[int, int]] = {}
    last: dict[int, tuple[int, int]] = {}
    seen = -1

    def over() -> bool:
        nonlocal seen
        before = site.canary
        if not before.live:
            return True
        if before.progress.applied:
            counted = site.counters()
            after = site.canary
            # The counters belong to the step only when it lasted while they were read. Before its
            # end is booked, a canary may be over at the router: then a mix has no backend.
            lasted = (after.live, after.step, after.progress.applied) == (True, before.step, True)
            if lasted and after.progress.order is None and min(counted) >= 0:
                if after.step != seen:
                    seen = after.step
                    on_step(after)
                first.setdefault(after.step, counted)
                last[after.step] = counted
        assert site.process is not None
        assert site.process.poll() is None or not site.canary.live, site.said()
        return False

    until("the canary ends", over, 900)
    return {
        step: (last[step][0] - first[step][0], last[step][1] - first[step][1]) for step in first
    }


def test_a_good_candidate_walks_to_all_traffic_under_load(site: Site) -> None:
    site.begin()
    killed = []

    def on_step(canary: Canary) -> None:
        # kill -9 in the middle of the walk: another process goes on with the same step.
        if canary.step == 2 and not killed:
            site.kill()
            killed.append((canary.step, canary.progress.counted_until))
            site.drive()

    with load(site):
        site.drive()
        shares = walked(site, on_step)
        assert site.process is not None
        assert site.process.wait(120) == 0, site.said()
    assert site.canary.status == "promoted", site.canary.reason
    assert killed
    # Share by HAProxy's own counters, within 2 points of the weight.
    for step, (old, new) in shares.items():
        weight = WALK.steps[step].weight
        share = new / (old + new)
        report(f"step {100 * weight:g} %: {new} of {old + new} requests, {100 * share:.2f} %")
        assert abs(share - weight) <= 0.02, (step, old, new)
    assert len(shares) == len(WALK.steps)
    answers = site.answers()
    bad = [a for a in answers if a.status != 200 or a.error]
    report(
        f"{len(answers)} requests, {len(bad)} failed; the walk took {_seconds(site.canary):.0f} s"
    )
    assert bad == []
    # Sticky: whoever has met the candidate stays with it while its share grows.
    met: set[str] = set()
    for answer in sorted(answers, key=lambda a: a.start):
        if answer.mix == site.new.digest:
            met.add(answer.key)
        elif answer.key in met:
            # Under way while the share was raised and read back by another process.
            pytest.fail(f"{answer.key} was sent back to production")
    shown = site.router.read("shop")
    assert shown is not None
    assert dict(shown.weights) == {site.new.digest: 1.0}
    told = [m.dedup_key.partition(site.canary.id)[2] for m in messages(site.state)]
    assert told == [":started", ":step:0", ":step:1", ":step:2", ":step:3", ":ended:promoted"]


def test_a_candidate_that_breaks_at_the_second_step_is_rolled_back_under_load(site: Site) -> None:
    site.begin()

    def on_step(canary: Canary) -> None:
        if canary.step == 1:
            site.fail(0.12)

    with load(site):
        site.drive()
        walked(site, on_step)
        assert site.process is not None
        assert site.process.wait(120) == 1, site.said()
        ended = site.canary
        # Some more traffic, to see that none of it reaches the candidate.
        size = site.log.stat().st_size
        until("traffic goes on", lambda: site.log.stat().st_size > size + 100_000)
    assert ended.status == "rolled_back"
    assert ended.step == 1
    assert ended.progress.verified_s is not None
    verified = datetime.fromisoformat(str(ended.ended_at)).timestamp()
    answers = site.answers()
    exposed = [a for a in answers if a.mix == site.new.digest]
    harmed = [a for a in answers if a.injected]
    late = [a for a in exposed if a.start > verified]
    by_switch = [a for a in answers if (a.status != 200 or a.error) and not a.injected]
    report(
        f"{len(answers)} requests, {len(exposed)} met the candidate, {len(harmed)} failed by it; "
        f"verified {ended.progress.verified_s:.3f} s after the decision; {len(late)} after that; "
        f"{len(by_switch)} failed by the switch"
    )
    assert late == []
    assert by_switch == []
    assert {a.mix for a in harmed} == {site.new.digest}
    assert len(harmed) < 200
    assert messages(site.state)[-1].topic == "canary.rolled_back"


def _seconds(canary: Canary) -> float:
    began = datetime.fromisoformat(canary.started_at)
    return (datetime.fromisoformat(str(canary.ended_at)) - began).total_seconds()


class Bad:
    """A source by which the candidate is as bad as can be, and the baseline is well."""

    name = "test"

    def __init__(self, old: ResolvedMix, new: ResolvedMix) -> None:
        self.old, self.new = old, new

    def read(self, _product: str, _digests: Any, since: datetime, until_: datetime) -> Outcomes:
        arms = {self.new.digest: ArmOutcomes(100, 60), self.old.digest: ArmOutcomes(900, 9)}
        return Outcomes(since, until_, arms)


def fifty(state: State, router: Router, old: ResolvedMix, new: ResolvedMix) -> list[float]:
    """Let 50 canaries be rolled back; return the seconds from each decision to the read-back."""
    adopt(state, old, "test", "first")
    reconcile(state, router, "shop")
    keep_mix(state, new)
    took = []
    rule = CanaryRule(steps=(CanaryStep(weight=0.5, soak_minutes=0, images=1, promote_below=0.5),))
    for number in range(50):
        now = datetime.now(UTC)
        canary = begin_canary(
            state, new, rule, "p", actor="ann", now=now, without_gate=f"rollback {number}"
        )
        clock = iter(now + timedelta(seconds=s) for s in range(1000))
        around = Surroundings(
            state,
            router,
            [Bad(old, new)],
            store.new_driver(),
            lambda: next(clock),  # noqa: B023
        )
        store.claim(state, canary.id, around.driver)
        assert look(around, canary.id).status == "running"
        shown = router.read("shop")
        assert shown is not None
        assert dict(shown.weights) == {old.digest: 0.5, new.digest: 0.5}
        ended = look(around, canary.id)
        assert ended.status == "rolled_back", ended.reason
        shown = router.read("shop")
        assert shown is not None
        assert dict(shown.weights) == {old.digest: 1.0}
        assert ended.progress.verified_s is not None
        took.append(ended.progress.verified_s)
    return took


@pytest.mark.parametrize("kind", ["file", "haproxy"])
def test_fifty_rollbacks_are_quick_and_none_loses_its_alert(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    old, new = mixes.mix("winter", "folio-1"), mixes.mix("summer", "folio-2")
    if kind == "haproxy":
        site: Site = request.getfixturevalue("site")
        state, router = site.state, site.router
        with load(site):
            took = fifty(state, router, site.old, site.new)
        failed = [a for a in site.answers() if a.status != 200 or a.error]
        assert failed == []
    else:
        state = State(f"sqlite:///{tmp_path / 'state.db'}")
        request.addfinalizer(state.close)
        took = fifty(state, FileRouter(tmp_path / "routing.json"), old, new)
    p50, p99 = (float(np.percentile(took, q)) for q in (50, 99))
    report(f"{kind}: p50 {p50:.3f} s, p99 {p99:.3f} s, slowest {max(took):.3f} s of {len(took)}")
    # The target is 2 s; a machine that is loaded many times over gets more.
    assert p50 < 2
    assert p99 < 20
    _all_told(state, tmp_path)


def _all_told(state: State, folder: Path) -> None:
    """Deliver with a Slack that is down at first; every rollback is told exactly once."""
    with slack_server.SlackServer(log=folder / "slack.jsonl") as slack:
        settings = load_settings(
            {
                "IMAGEGATE_HOME": str(folder),
                "SLACK_BOT_TOKEN": slack_server.TOKEN,
                "IMAGEGATE_SLACK_CHANNEL": slack_server.CHANNEL,
                "IMAGEGATE_SLACK_URL": slack.base_url,
            }
        )
        slack.mode, slack.bad_calls = "error", 5
        deliver_all(state, settings, 2.0)

        def delivered() -> bool:
            deliver_all(state, settings, 20.0, force=True)
            return not pending(state)

        until("everything is delivered", delivered, 300)
        told: dict[str, int] = defaultdict(int)
        for message in messages(state):
            assert message.status == "delivered"
            told[message.dedup_key.rpartition(":ended:")[2]] += 1
        assert told["rolled_back"] == 50
        text = json.dumps([*slack.messages], ensure_ascii=False)
        assert text.count("ROLLED BACK: summer left shop") >= 50
