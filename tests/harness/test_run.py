"""A shard from its cases to its journal, against models that do what a test tells them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.errors import ConfigError, DataError, GateError, StateError
from tasks.harness import retry
from tasks.harness import run as run_module
from tasks.harness.breaker import Breaker
from tasks.harness.journal import Journal
from tasks.harness.ledger import SpendLedger
from tasks.harness.progress import RunProgress
from tasks.harness.route import idempotency_key, steps
from tasks.harness.run import ShardResult, run_shard
from tasks.images import ImageStore
from tasks.mix.catalog import Limits, Model, Price
from tasks.mix.manifest import Alternative, Mix, ResolvedMix, Stage
from tasks.plan import RunFolder, RunPlan, Shard
from tasks.policy import Policy
from tasks.providers.base import Adapter, AttemptResult, GenerationRequest, ServedModel
from tasks.records import Attempt, Case, FailureClass, Generation, digest_bytes
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import ledger

PRICE = 40_000
Answering = Callable[[GenerationRequest], FailureClass | bytes | None]


def listed(name: str, **changes: Any) -> Model:
    fields: dict[str, Any] = {
        "name": name,
        "protocol": "raw",
        "endpoint": "embedded",
        "version": "1",
        "pin": "dated",
        "operations": ("generate", "edit", "upscale"),
        "price": Price(usd=PRICE / 1_000_000, source="test", date=date(2026, 1, 1)),
        "limits": Limits(concurrency=4, timeout_s=5, attempts=3),
    }
    return Model(**(fields | changes))


def a_mix(name: str = "mix", models: tuple[Model, ...] = ()) -> ResolvedMix:
    one = (Alternative(stages=(Stage(model="m"),)),)
    routes: dict[Any, Any] = dict.fromkeys(("typography", "creative", "fast"), one)
    routes["edit"] = (Alternative(stages=(Stage(model="m", operation="edit"),)),)
    routes["upscale"] = (
        Alternative(
            stages=(
                Stage(model="m", prompt_template="{prompt}, sharp"),
                Stage(model="up", operation="upscale", params={"scale": 2}),
            )
        ),
    )
    mix = Mix(name=name, product="p", routes=routes)
    return ResolvedMix(mix=mix, models=models or (listed("m"), listed("up")))


def some_cases(count: int, **changes: Any) -> tuple[Case, ...]:
    fields: dict[str, Any] = {"subtask": "fast", "width": 512, "height": 384}
    return tuple(
        Case(**({"case_id": f"c{i}", "prompt": f"prompt {i}"} | fields | changes))
        for i in range(count)
    )


@dataclass
class Bench(Adapter):
    """A run on a fresh state database, and the requests that its models saw."""

    root: Path
    state: State
    answering: Answering = field(default=lambda _request: None)
    seen: list[GenerationRequest] = field(default_factory=list)
    before: Callable[[GenerationRequest], Any] | None = None
    #: Keys that a model has billed, as a provider that recognises repetitions keeps them.
    billed: set[str] = field(default_factory=set)
    #: The provider does not even name its models.
    dead: bool = False

    def settings(self) -> Settings:
        return Settings(
            home=self.root, state_url=SecretStr("unused"), routing_file=self.root / "routing.json"
        )

    def plan(self, cases: tuple[Case, ...], **changes: Any) -> RunPlan:
        fields: dict[str, Any] = {
            "run_id": "run",
            "product": "p",
            "created_at": "2026-11-22T00:00:00.000Z",
            "baseline": a_mix("old"),
            "candidate": a_mix("new"),
            "policy": Policy(),
            "seed": 1,
            "budget_microusd": 10**9,
            "day_budget_microusd": 10**9,
            "inputs": "test",
            "cases": cases,
            "coverage": {},
        }
        return RunPlan(**(fields | changes))

    def run(self, plan: RunPlan, arm: Any = "candidate", **options: Any) -> ShardResult:
        options = {"endpoints": {"embedded": "http://127.0.0.1:9"}, "shard": 0} | options
        return run_shard(
            plan,
            RunFolder(self.root / "runs" / plan.run_id),
            self.state,
            self.settings(),
            arm,
            plan.shards()[options.pop("shard")],
            options.pop("endpoints"),
            factory=lambda _model, _url, _key: self,
            **options,
        )

    async def submit(self, _client: httpx.AsyncClient, request: GenerationRequest) -> AttemptResult:
        self.seen.append(request)
        if self.before is not None and (waiting := self.before(request)) is not None:
            await waiting
        said = self.answering(request)
        failure = said if isinstance(said, FailureClass) else None
        image = None if failure else said or f"{request.operation} {request.prompt}".encode()
        fresh = request.idempotency_key not in self.billed and image is not None
        if fresh:
            self.billed.add(request.idempotency_key)
        attempt = Attempt(
            stage=request.stage,
            number=request.attempt,
            model=request.model.name,
            started_at="2026-11-22T00:00:00.000Z",
            queued_s=request.queued_s,
            ttfb_s=0.5 if image else None,
            total_s=1.0,
            failure=failure,
            message="as told" if failure else "",
            billed="yes" if fresh else "no",
            cost_microusd=PRICE if fresh else 0,
            cost_source="reported",
            idempotency_key=request.idempotency_key,
            body_bytes=len(image or b""),
        )
        return AttemptResult(attempt, image)

    async def served(
        self, _client: httpx.AsyncClient, _models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        if self.dead:
            raise GateError("no answer")
        return {}

    def generations(self, run_id: str = "run") -> dict[str, Generation]:
        found = Journal(self.state, run_id).generations()
        return {case_id: generation for (_, case_id), generation in found.items()}

    def spent(self) -> int:
        return SpendLedger(self.state, "run", 0, 0).spent_microusd()

    def statuses(self) -> list[str]:
        with self.state.begin() as connection:
            return list(connection.execute(sa.select(ledger.c.status)).scalars())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(retry, "BASE_S", 0.0)
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield Bench(tmp_path, state)
    state.close()


def test_every_case_ends_with_its_picture_its_cost_and_its_times(bench: Bench) -> None:
    cases = some_cases(30)
    progress = RunProgress({"candidate": 30})
    result = bench.run(bench.plan(cases), on_progress=progress)
    assert result == ShardResult(arm="candidate", shard=0, finished=30, spend_microusd=30 * PRICE)
    ended = bench.generations()
    assert set(ended) == {c.case_id for c in cases}
    one = ended["c3"]
    assert (one.status, one.models, one.failure) == ("ok", ("m",), None)
    assert one.image_digest == digest_bytes(b"generate prompt 3")
    assert ImageStore(bench.settings().images).get(one.image_digest) == b"generate prompt 3"
    assert one.source_digest is None
    assert (one.cost_microusd, one.latency_s, one.ttfb_s) == (PRICE, 1.0, 0.5)
    assert bench.spent() == 30 * PRICE
    assert set(bench.statuses()) == {"booked"}
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.spend_microusd) == (30, 30 * PRICE)


def test_shards_share_out_the_cases(bench: Bench) -> None:
    plan = bench.plan(some_cases(150))
    assert [bench.run(plan, shard=i).finished for i in range(3)] == [64, 64, 22]
    assert len(bench.generations()) == 150
    with pytest.raises(ConfigError, match="shard 3: case 'c9999' is not in the plan"):
        run_shard(
            plan,
            RunFolder(bench.root / "runs" / plan.run_id),
            bench.state,
            bench.settings(),
            "candidate",
            Shard(number=3, case_ids=("c9999",)),
            {},
        )


def test_a_two_stage_route_asks_for_half_and_keeps_the_source(bench: Bench) -> None:
    (case,) = some_cases(1, subtask="upscale", width=1000, height=751, brand="northwind")
    bench.run(bench.plan((case,)))
    first, second = bench.seen
    assert (first.operation, first.width, first.height) == ("generate", 500, 376)
    assert first.prompt == "prompt 0, sharp"
    assert (second.operation, second.width, second.height) == ("upscale", 1000, 751)
    assert second.image == b"generate prompt 0, sharp"
    assert first.seed == second.seed == bench.plan((case,)).case_seed(case)
    assert (first.brand, first.idempotency_key != second.idempotency_key) == ("northwind", True)
    ended = bench.generations()["c0"]
    store = ImageStore(bench.settings().images)
    assert store.get(ended.source_digest or "") == b"generate prompt 0, sharp"
    assert store.get(ended.image_digest or "") == b"upscale prompt 0"
    assert (ended.cost_microusd, ended.latency_s, ended.ttfb_s) == (2 * PRICE, 2.0, 1.5)
    assert ended.retries == 0


def test_an_edit_sends_its_upload(bench: Bench) -> None:
    uploads = bench.root / "datasets"
    (uploads / "uploads").mkdir(parents=True)
    (uploads / "uploads" / "a.jpg").write_bytes(b"upload")
    cases = some_cases(1, subtask="edit", upload="uploads/a.jpg")
    assert bench.run(bench.plan(cases), datasets=uploads).finished == 1
    assert (bench.seen[0].operation, bench.seen[0].image) == ("edit", b"upload")


def test_the_mask_of_an_edit_goes_with_its_upload_and_with_no_later_stage(bench: Bench) -> None:
    uploads = bench.root / "datasets"
    uploads.mkdir()
    (uploads / "a.jpg").write_bytes(b"upload")
    (uploads / "m.png").write_bytes(b"mask")
    stages = (
        Stage(model="m", operation="edit"),
        Stage(model="m", operation="edit"),
    )
    mix = a_mix("new")
    routes = mix.mix.routes | {"edit": (Alternative(stages=stages),)}
    mix = mix.model_copy(update={"mix": mix.mix.model_copy(update={"routes": routes})})
    cases = some_cases(1, subtask="edit", upload="a.jpg", mask="m.png")
    assert bench.run(bench.plan(cases, candidate=mix), datasets=uploads).finished == 1
    assert [(r.image, r.mask) for r in bench.seen] == [
        (b"upload", b"mask"),
        (b"edit prompt 0", None),
    ]
    (generation,) = bench.generations().values()
    assert generation.image_bytes == len(b"edit prompt 0")


@pytest.mark.parametrize("mask", ["missing.png", "../secret.png"])
def test_an_unusable_mask_stops_before_anything_is_spent(bench: Bench, mask: str) -> None:
    uploads = bench.root / "datasets"
    uploads.mkdir()
    (uploads / "a.jpg").write_bytes(b"upload")
    cases = some_cases(1, subtask="edit", upload="a.jpg", mask=mask, case_id="e")
    with pytest.raises(DataError, match="case 'e', field 'mask'"):
        bench.run(bench.plan(cases), datasets=uploads)
    assert bench.spent() == 0


def test_the_reservation_is_for_the_size_and_the_prompt_of_the_request(bench: Bench) -> None:
    """A cap that the unit price would keep and the request does not: nothing is sent."""
    price = Price(per="megapixel", usd=0.02, source="t", date=date(2026, 1, 1))
    models = tuple(listed(name).model_copy(update={"price": price}) for name in ("m", "up"))
    mix = a_mix("new", models=models)
    large = some_cases(1, width=4096, height=4096)
    plan = bench.plan(large, candidate=mix, budget_microusd=16 * 20_000)
    result = bench.run(plan)
    assert (result.held, bench.seen) == (True, [])
    assert "the next request may cost $0.3400" in result.reason


@pytest.mark.parametrize("upload", [None, "missing.png", "../secret.png", "/etc/hostname", "."])
def test_an_unusable_upload_stops_before_anything_is_spent(
    bench: Bench, upload: str | None
) -> None:
    (bench.root / "datasets").mkdir()
    (bench.root / "secret.png").write_bytes(b"x")
    cases = (*some_cases(3), *some_cases(1, subtask="edit", upload=upload, case_id="e"))
    with pytest.raises(DataError, match="case 'e', field 'upload'"):
        bench.run(bench.plan(cases), datasets=bench.root / "datasets")
    assert bench.seen == []


def test_passing_failures_are_tried_again_and_every_attempt_is_kept(bench: Bench) -> None:
    bench.answering = lambda r: FailureClass.SERVER if r.attempt < 3 else None
    result = bench.run(bench.plan(some_cases(4)))
    assert (result.finished, result.undelivered) == (4, 0)
    for ended in bench.generations().values():
        assert [a.failure for a in ended.attempts] == [FailureClass.SERVER] * 2 + [None]
        assert [a.number for a in ended.attempts] == [1, 2, 3]
        assert len({a.idempotency_key for a in ended.attempts}) == 3
        assert (ended.retries, ended.cost_microusd, ended.latency_s) == (2, PRICE, 3.0)


def test_a_case_that_never_gets_through_is_undelivered(bench: Bench) -> None:
    bench.answering = lambda r: FailureClass.EMPTY if r.prompt == "prompt 1" else None
    result = bench.run(bench.plan(some_cases(3)))
    assert (result.finished, result.undelivered) == (3, 1)
    ended = bench.generations()["c1"]
    assert (ended.status, ended.failure, len(ended.attempts)) == (
        "undelivered",
        FailureClass.EMPTY,
        3,
    )
    assert ended.image_digest is ended.ttfb_s is None
    assert "attempt 3" in ended.message


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (FailureClass.REFUSAL, "refused"),
        (FailureClass.DRIFT, "undelivered"),
        (FailureClass.AUTH, "undelivered"),
        (FailureClass.BAD_REQUEST, "undelivered"),
        (FailureClass.RETIRED, "undelivered"),
    ],
)
def test_what_would_fail_again_is_not_paid_for_again(
    bench: Bench, failure: FailureClass, status: str
) -> None:
    bench.answering = lambda _request: failure
    result = bench.run(bench.plan(some_cases(2)))
    assert len(bench.seen) == result.finished == 2
    assert {g.status for g in bench.generations().values()} == {status}
    assert {g.failure for g in bench.generations().values()} == {failure}


def test_a_failure_in_the_second_stage_says_so(bench: Bench) -> None:
    bench.answering = lambda r: FailureClass.BAD_REQUEST if r.operation == "upscale" else None
    bench.run(bench.plan(some_cases(1, subtask="upscale")))
    ended = bench.generations()["c0"]
    assert (ended.status, ended.cost_microusd) == ("undelivered", PRICE)
    assert "stage 2 (up)" in ended.message
    assert ended.source_digest is None


def test_the_cap_stops_the_shard_and_is_never_passed(bench: Bench) -> None:
    plan = bench.plan(some_cases(40), budget_microusd=7 * PRICE + 1)
    progress = RunProgress({"candidate": 40})
    result = bench.run(plan, on_progress=progress)
    assert result.held
    assert "spend cap" in result.reason
    assert progress.snapshot().held == (result.reason,)
    assert len(bench.seen) == result.finished == len(bench.generations()) == 7
    assert bench.spent() == result.spend_microusd == 7 * PRICE
    assert set(bench.statuses()) == {"booked"}
    again = bench.run(plan)
    assert (again.held, again.finished, again.reused, len(bench.seen)) == (True, 0, 7, 7)


def test_resuming_repeats_and_pays_nothing(bench: Bench) -> None:
    plan = bench.plan(some_cases(10))
    bench.run(plan)
    before = bench.generations()
    result = bench.run(plan)
    assert (result.finished, result.reused, result.spend_microusd) == (0, 10, 0)
    assert len(bench.seen) == 10
    assert bench.generations() == before


def test_what_was_in_flight_at_a_crash_is_sent_again_under_its_key(bench: Bench) -> None:
    plan = bench.plan(some_cases(6))
    bench.run(plan)
    keys = {r.prompt: r.idempotency_key for r in bench.seen}
    # As a kill leaves it: billed by the provider, reserved here, in no journal.
    with bench.state.begin() as connection:
        connection.execute(sa.text("delete from journal where case_id in ('c1', 'c4')"))
        connection.execute(
            sa.update(ledger)
            .where(ledger.c.case_id.in_(["c1", "c4"]))
            .values(status="reserved", booked_microusd=0)
        )
    bench.seen.clear()
    SpendLedger(bench.state, "run", 10**9, 10**9).recover()
    result = bench.run(plan)
    assert (result.finished, result.reused) == (2, 4)
    assert {r.prompt: r.idempotency_key for r in bench.seen} == {
        p: keys[p] for p in ("prompt 1", "prompt 4")
    }
    # The provider charged nothing for the repetition; the first sends still count.
    assert bench.spent() == 6 * PRICE == len(bench.billed) * PRICE
    assert {g.cost_microusd for g in bench.generations().values()} == {PRICE}


def test_a_stop_lets_requests_in_flight_end(bench: Bench) -> None:
    stop = threading.Event()

    async def set_stop_and_linger() -> None:
        stop.set()
        await asyncio.sleep(0.2)  # until the watcher has seen it

    bench.before = lambda r: set_stop_and_linger() if len(bench.seen) == 6 else None
    result = bench.run(bench.plan(some_cases(60)), stop=stop)
    assert result.held
    assert "stopped on request" in result.reason
    assert result.finished == len(bench.generations()) == len(bench.seen) < 60
    assert set(bench.statuses()) == {"booked"}
    assert bench.run(bench.plan(some_cases(60)), stop=threading.Event()).finished > 0
    assert len(bench.generations()) == 60
    assert len(bench.seen) == 60


def test_a_stop_cuts_off_what_hangs_and_keeps_its_money_counted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "GRACE_S", 0.0)
    stop = threading.Event()

    async def hang() -> None:
        stop.set()
        await asyncio.Event().wait()

    bench.before = lambda r: hang() if r.prompt == "prompt 2" else None
    result = bench.run(bench.plan(some_cases(20)), stop=stop)
    assert result.held
    assert "c2" not in bench.generations()
    assert "unknown" in bench.statuses()
    assert "reserved" not in bench.statuses()
    bench.before = None
    assert not bench.run(bench.plan(some_cases(20))).held
    assert len(bench.generations()) == 20
    assert bench.spent() == 20 * PRICE


def test_a_stop_before_the_start_sends_nothing(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    bench.before = lambda _request: asyncio.sleep(0.2)
    result = bench.run(bench.plan(some_cases(64)), stop=stop)
    assert result.held
    assert len(bench.seen) < 64


def test_ctrl_c_leaves_nothing_half_recorded(bench: Bench) -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    bench.before = lambda r: interrupt() if r.prompt == "prompt 5" else None
    with pytest.raises(KeyboardInterrupt):
        bench.run(bench.plan(some_cases(20)))
    assert "reserved" not in bench.statuses()
    assert "c5" not in bench.generations()
    assert bench.spent() >= len(bench.billed) * PRICE
    bench.before = None
    assert not bench.run(bench.plan(some_cases(20))).held
    assert (len(bench.generations()), bench.spent()) == (20, 20 * PRICE)


def test_an_error_of_the_gate_ends_the_shard_with_nothing_half_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Journal.record
    calls = iter(range(1000))

    def fail_late(self: Journal, generation: Generation, case_digest: str | None = None) -> None:
        if next(calls) == 5:
            raise StateError("the disk is full")
        record(self, generation, case_digest)

    monkeypatch.setattr(Journal, "record", fail_late)
    with pytest.raises(StateError, match="disk is full"):
        bench.run(bench.plan(some_cases(30)))
    assert "reserved" not in bench.statuses()
    assert bench.spent() >= len(bench.billed) * PRICE
    monkeypatch.setattr(Journal, "record", record)
    assert not bench.run(bench.plan(some_cases(30))).held
    assert len(bench.generations()) == 30
    assert bench.spent() == 30 * PRICE


def test_a_provider_that_is_down_holds_the_shard_and_spoils_no_case(bench: Bench) -> None:
    bench.answering = lambda _request: FailureClass.TRANSPORT
    result = bench.run(bench.plan(some_cases(60)))
    assert result.held
    assert "'m' gave no usable answer 20 times in a row" in result.reason
    assert len(bench.seen) < 40
    assert bench.generations() == {}
    bench.answering = lambda _request: None
    assert bench.run(bench.plan(some_cases(60))).finished == 60
    assert {g.status for g in bench.generations().values()} == {"ok"}


def test_failures_of_a_model_that_answers_in_between_are_no_outage(bench: Bench) -> None:
    bench.answering = lambda r: FailureClass.TRANSPORT if int(r.prompt.split()[1]) % 2 else None
    result = bench.run(bench.plan(some_cases(60)))
    assert not result.held
    assert (result.finished, result.undelivered) == (60, 30)
    assert len(bench.generations()) == 60


def test_a_small_shard_that_fails_altogether_is_written_at_its_end(bench: Bench) -> None:
    bench.answering = lambda _request: FailureClass.SERVER
    result = bench.run(bench.plan(some_cases(2)), breaker=Breaker(streak=100))
    assert (result.held, result.undelivered) == (False, 2)
    assert len(bench.generations()) == 2


def test_the_baseline_is_paid_once_for_all_runs(bench: Bench) -> None:
    cases = some_cases(8)
    bench.answering = lambda r: {
        "prompt 1": FailureClass.REFUSAL,
        "prompt 2": FailureClass.BAD_REQUEST,
    }.get(r.prompt)
    bench.run(bench.plan(cases), "baseline")
    bench.seen.clear()
    result = bench.run(bench.plan(cases, run_id="run2"), "baseline")
    # What was undelivered is asked again; a refusal is an answer.
    assert [r.prompt for r in bench.seen] == ["prompt 2"]
    assert (result.finished, result.cached, result.refused, result.undelivered) == (8, 7, 1, 1)
    again = bench.generations("run2")["c0"]
    assert (again.cached, again.run_id, again.cost_microusd) == (True, "run2", 40_000)
    assert again.image_digest == bench.generations()["c0"].image_digest
    assert sum(a.cost_microusd for a in again.attempts) == PRICE


def test_a_cached_picture_that_is_gone_is_made_again(bench: Bench) -> None:
    cases = some_cases(2)
    bench.run(bench.plan(cases), "baseline")
    gone = bench.generations()["c1"].image_digest or ""
    ImageStore(bench.settings().images).path(gone).unlink()
    result = bench.run(bench.plan(cases, run_id="run2"), "baseline")
    assert (result.finished, result.cached, len(bench.seen)) == (2, 1, 3)


def test_the_candidate_is_never_answered_from_the_cache(bench: Bench) -> None:
    plan = bench.plan(some_cases(3), candidate=a_mix("old"))
    bench.run(plan, "baseline")
    assert bench.run(plan, "candidate").cached == 0
    assert len(bench.seen) == 6
    assert len({r.idempotency_key for r in bench.seen}) == 6


@pytest.mark.parametrize(
    ("changes", "endpoints", "match"),
    [
        ({"price": None}, {"embedded": "http://127.0.0.1:9"}, "'m' has no price"),
        ({"key_env": "M_KEY"}, {"embedded": "http://127.0.0.1:9"}, "variable M_KEY"),
        ({}, {}, "'embedded' has no address"),
    ],
)
def test_what_is_missing_stops_before_anything_is_spent(
    bench: Bench, changes: dict[str, Any], endpoints: dict[str, str], match: str
) -> None:
    plan = bench.plan(some_cases(2), candidate=a_mix(models=(listed("m", **changes), listed("up"))))
    with pytest.raises(ConfigError, match=match):
        bench.run(plan, endpoints=endpoints)
    assert bench.seen == []
    assert bench.statuses() == []


def test_a_folder_of_another_run_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="does not belong"):
        run_shard(
            bench.plan(some_cases(1)),
            RunFolder(bench.root / "other"),
            bench.state,
            bench.settings(),
            "candidate",
            bench.plan(some_cases(1)).shards()[0],
            {},
        )


@given(st.integers(16, 8192), st.integers(16, 8192), st.integers(1, 4))
def test_earlier_stages_are_asked_for_no_less_than_later_ones_enlarge(
    width: int, height: int, scale: int
) -> None:
    upscale = Stage(model="up", operation="upscale", params={"scale": scale})
    routes: dict[Any, Any] = dict(a_mix().mix.routes)
    routes["fast"] = (Alternative(stages=(Stage(model="m"), upscale, upscale)),)
    mix = ResolvedMix(
        mix=Mix(name="x", product="p", routes=routes), models=(listed("m"), listed("up"))
    )
    (case,) = some_cases(1, width=width, height=height)
    sizes = [(s.width, s.height) for s in steps(mix, case)]
    assert sizes[-1] == (width, height)
    for asked, final in zip(sizes[0], (width, height), strict=True):
        assert final <= asked * scale * scale < final + scale * scale


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=2, unique=True))
def test_keys_are_distinct_and_fit_a_header(names: list[tuple[str, str]]) -> None:
    keys = [
        idempotency_key(run, "candidate", case, stage, attempt)
        for run, case in names
        for stage in (0, 1)
        for attempt in (1, 11)
    ]
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() and key.replace("-", "").isalnum() for key in keys)


def down(_request: GenerationRequest) -> FailureClass:
    return FailureClass.TRANSPORT


def test_an_outage_too_short_for_the_breaker_is_no_verdict_on_the_mix(bench: Bench) -> None:
    """Few cases, a provider that died: nothing is booked as failed, a resume asks again."""
    cases = some_cases(3)
    bench.answering, bench.dead = down, True
    held = bench.run(bench.plan(cases))
    assert held.held
    assert "does not answer" in held.reason
    assert bench.generations() == {}
    bench.answering, bench.dead = (lambda _request: None), False
    assert bench.run(bench.plan(cases)).finished == 3


def test_a_living_provider_that_fails_these_cases_is_booked(bench: Bench) -> None:
    bench.answering = down
    ended = bench.run(bench.plan(some_cases(3)))
    assert not ended.held
    assert ended.undelivered == 3


def test_a_run_stopped_before_it_starts_sends_nothing(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    held = bench.run(bench.plan(some_cases(4)), stop=stop)
    assert held.held
    assert bench.seen == []
