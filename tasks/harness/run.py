"""One shard of one arm: its cases go through the mix over HTTP, every cent and attempt recorded.

For each request: wait for a place, reserve the worst price, send, book. For each case: when its
route has ended, store the picture, then write the generation to the journal. Whatever is killed in
between is repeated by a resumed run under the same idempotency keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from tasks.budget.limits import load_budgets
from tasks.errors import BudgetExhausted, ConfigError, GateError, TakenOverError
from tasks.harness.breaker import Breaker, looks_down
from tasks.harness.journal import Journal
from tasks.harness.ledger import SpendLedger
from tasks.harness.limits import ModelLimits
from tasks.harness.progress import HarnessEvent
from tasks.harness.retry import backoff, falls_back
from tasks.harness.route import Step, Track, idempotency_key, request_for, require_price, steps
from tasks.harness.setup import adapter, brand_tokens, open_client, read_upload
from tasks.harness.workers import Signal, drive
from tasks.images import ImageStore
from tasks.plan import RunFolder, RunPlan, Shard
from tasks.providers.base import AttemptResult, ProviderFactory
from tasks.providers.drive import complete, reservation
from tasks.providers.registry import provider_for
from tasks.records import Arm, Attempt, Case, Generation, Record
from tasks.settings import DATASETS, Settings
from tasks.state import State
from tasks.telemetry import request_span

Value = TypeVar("Value")
Supervise = Callable[[bytes, bytes], str]
Scale = Callable[[bytes, int, int], bytes]

#: Seconds that requests in flight get to end by themselves after the run was told to stop.
GRACE_S = 5.0
#: Seconds that a provider gets to show a sign of life after its last requests failed.
PROBE_S = 10.0
#: Tasks for each request that may be in flight: a slow model's queue must not idle a fast one.
_TASKS_PER_SLOT = 2
_MOST_TASKS = 256


class ShardResult(Record):
    """How a shard ended."""

    arm: Arm
    shard: int
    #: Cases that ended now, the cached ones included.
    finished: int = 0
    #: Cases that had ended before, in a run that was resumed.
    reused: int = 0
    #: Cases that the baseline cache answered.
    cached: int = 0
    undelivered: int = 0
    refused: int = 0
    #: The shard stopped early; cases are missing, so there is no verdict but HOLD.
    held: bool = False
    reason: str = ""
    spend_microusd: int = 0


def run_shard(
    plan: RunPlan,
    folder: RunFolder,
    state: State,
    settings: Settings,
    arm: Arm,
    shard: Shard,
    endpoints: Mapping[str, str],
    parallel: int = 1,
    stop: Signal | None = None,
    on_progress: Callable[[HarnessEvent], None] | None = None,
    *,
    factory: ProviderFactory = provider_for,
    datasets: Path = DATASETS,
    breaker: Breaker | None = None,
    images: ImageStore | None = None,
    supervise: Supervise | None = None,
    scale: Scale | None = None,
    driver: str | None = None,
) -> ShardResult:
    """Run the cases of one shard that are not finished yet.

    Args:
        plan: The plan of the run.
        folder: The run's folder; must be the plan's.
        state: The state database with ledger and journal.
        settings: Where the image store lies, and the keys.
        arm: Which mix of the plan.
        shard: Which cases of the plan.
        endpoints: Base address by endpoint name, e.g. ``{"embedded": "http://127.0.0.1:8123"}``; an
            endpoint that is not named here is itself an address.
        parallel: How many shards run at the same time; each gets that part of the models' limits.
        stop: Set it to stop: nothing new is sent, and what is in flight gets five seconds to end.
        on_progress: Told of every attempt and case, from this thread.
        factory: Gives the adapter for a model.
        datasets: Folder that uploads are relative to.
        breaker: Decides that a provider is down.
        images: Where pictures are kept; the folder of the settings by default.
        supervise: Says why an upscaled picture is not true to its source, "" when it is; for the
            stages of the mix that may be left out.
        scale: Reduces a picture to a width and height, for the routes that ask for it.
        driver: Token of the process that drives the run, to spend nothing for one that lost it.

    Raises:
        TakenOverError: Another process drives the run by now.
        ConfigError: A model has no price, key or address, or an upload cannot be read; nothing
            was spent by this shard.
        StateError: The state database failed.
        EvidenceError: A picture cannot be stored.
    """
    if folder.run_id != plan.run_id:
        raise ConfigError(f"plan of run {plan.run_id!r} does not belong to folder {folder.path}")
    run = _ShardRun(
        plan,
        state,
        settings,
        arm=arm,
        shard=shard,
        endpoints=endpoints,
        parallel=parallel,
        factory=factory,
        datasets=datasets,
        breaker=breaker or Breaker(),
        images=images or ImageStore(settings.images),
        tell=on_progress or (lambda _event: None),
        supervise=supervise,
        scale=scale,
        driver=driver,
    )
    return asyncio.run(run.run(stop))


class _ShardRun:
    """The state of one shard while it runs, inside one event loop."""

    def __init__(
        self,
        plan: RunPlan,
        state: State,
        settings: Settings,
        *,
        arm: Arm,
        shard: Shard,
        endpoints: Mapping[str, str],
        parallel: int,
        factory: ProviderFactory,
        datasets: Path,
        breaker: Breaker,
        images: ImageStore,
        tell: Callable[[HarnessEvent], None],
        supervise: Supervise | None,
        scale: Scale | None,
        driver: str | None,
    ) -> None:
        known = plan.by_id
        if strange := [case_id for case_id in shard.case_ids if case_id not in known]:
            raise ConfigError(f"shard {shard.number}: case {strange[0]!r} is not in the plan")
        self.plan, self.arm, self.shard, self.mix = plan, arm, shard.number, plan.mix(arm)
        self.cases = [known[case_id] for case_id in shard.case_ids]
        self.breaker, self.tell = breaker, tell
        self.supervise, self.scale = supervise, scale
        self.mix_digest, self.endpoints = self.mix.digest, endpoints
        self.routes = {case.case_id: steps(self.mix, case) for case in self.cases}
        ways = [way for route in self.routes.values() for step in route for way in step.ways]
        models = {way.model.name: way.model for way in ways}
        for model in models.values():
            require_price(model)
        self.models = models
        self.providers = {
            name: adapter(model, settings, endpoints, factory) for name, model in models.items()
        }
        self.uploads = {
            case.case_id: read_upload(case, datasets)
            for case in self.cases
            if self.routes[case.case_id][0].stage.operation == "edit"
        }
        self.masks = {
            case.case_id: read_upload(case, datasets, "mask")
            for case in self.cases
            if case.mask is not None and case.case_id in self.uploads
        }
        self.tokens = {
            case.case_id: brand_tokens(case, self.routes[case.case_id], datasets)
            for case in self.cases
        }
        self.journal = Journal(state, plan.run_id)
        self.ledger = SpendLedger(
            state,
            plan.run_id,
            plan.budget_microusd,
            plan.day_budget_microusd,
            budgets=load_budgets(settings.budgets_file),
            driver=driver,
        )
        self.store = images
        self.limits = ModelLimits(models.values(), parallel)
        self.reason = ""
        self.halted = asyncio.Event()
        #: Keys with an unsettled reservation, and whether their request was sent.
        self.open: dict[str, bool] = {}
        #: Failed cases that may be an outage's doing, by model; written when the model answers.
        self.doubtful: dict[str, list[tuple[Case, Generation]]] = {}
        self.count = dict.fromkeys(("finished", "reused", "cached", "undelivered", "refused"), 0)
        self.spend = 0
        # Database and disk block: in threads of their own they do not stretch the wire times.
        self.threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="harness")

    async def run(self, stop: Signal | None) -> ShardResult:
        """Run the unfinished cases and return how the shard ended."""
        try:
            pending = await self._pending()
            tasks = min(len(pending), self.limits.concurrency * _TASKS_PER_SLOT, _MOST_TASKS)
            cases = iter(pending)
            async with open_client(self.limits.concurrency) as self.client:
                await drive([self._work(cases) for _ in range(tasks)], stop, self._halt, GRACE_S)
                await self._judge_doubtful()
        finally:
            self.threads.shutdown(wait=True)
            self._settle_open()
        if self.reason:
            self.tell(HarnessEvent("held", self.arm, self.shard, message=self.reason))
        return ShardResult(
            arm=self.arm,
            shard=self.shard,
            held=bool(self.reason),
            reason=self.reason,
            spend_microusd=self.spend,
            **self.count,
        )

    async def _pending(self) -> list[Case]:
        """Return the cases that the journal does not hold yet."""
        ids = [case.case_id for case in self.cases]
        done = await self._aside(self.journal.generations, self.arm, ids)
        for generation in done.values():
            self.count["reused"] += 1
            self._tell_case("reused", generation)
        return [case for case in self.cases if (self.arm, case.case_id) not in done]

    async def _work(self, cases: Iterator[Case]) -> None:
        """Take cases until none is left or the shard is halted."""
        for case in cases:
            if self.halted.is_set():
                return
            generation = await self._cached(case) or await self._generate(case)
            if generation is not None:
                await self._finish(case, generation)

    async def _cached(self, case: Case) -> Generation | None:
        """Return the baseline cache's generation of a case, if its pictures are still there."""
        if self.arm != "baseline":
            return None
        found = await self._aside(
            self.journal.cached, self.mix_digest, case.digest, self.plan.case_seed(case)
        )
        if found is None:
            return None
        for digest in (found.image_digest, found.source_digest):
            if digest is not None and not await self._aside(self.store.has, digest):
                return None
        # It stays with what it cost when it was made; ``cached`` says that this run pays nothing.
        return found.model_copy(
            update={
                "run_id": self.plan.run_id,
                "case_id": case.case_id,
                "arm": self.arm,
                "cached": True,
            }
        )

    async def _generate(self, case: Case) -> Generation | None:
        """Send a case along its route; ``None`` when the shard was halted before its end."""
        route = self.routes[case.case_id]
        track = Track(models=[step.model.name for step in route])
        image: bytes | None = self.uploads.get(case.case_id)
        source: bytes | None = None
        for step in route:
            result = await self._stage(case, step, image, track)
            if result is None:
                return None
            why = await self._untrue(step, image, result)
            if why and step.stage.on_failure == "source" and image is not None:
                track.without(step.index, why)
                continue
            if result.image is None:
                return self._end(case, track)
            if step.stage.operation == "upscale":
                source = image
            image = result.image
            track.made = result.attempt
        image = await self._fitted(case, image, track)
        digests = [
            None if data is None else await self._aside(self.store.put, data)
            for data in (image, source)
        ]
        return self._end(case, track, digests[0], digests[1], len(image or b""))

    async def _fitted(self, case: Case, image: bytes | None, track: Track) -> bytes | None:
        """Return the picture in the size of the case, where the route asks for that."""
        alternative = self.mix.alternative(case.subtask, case.digest)
        if image is None or self.scale is None or alternative.fit == "as_drawn":
            return image
        fitted = await self._aside(self.scale, image, case.width, case.height)
        track.scaled = fitted is not image
        return fitted

    async def _untrue(self, step: Step, source: bytes | None, result: AttemptResult) -> str:
        """Return why a stage's picture is not to be served, "" when it may be.

        Only a stage that may be left out is supervised; what others bring, the checks judge.
        """
        if step.stage.on_failure != "source":
            return ""
        if result.image is None:
            return result.attempt.message or str(result.attempt.failure)
        if self.supervise is None or source is None:
            return ""
        return await self._aside(self.supervise, source, result.image)

    def _end(
        self,
        case: Case,
        track: Track,
        image_digest: str | None = None,
        source_digest: str | None = None,
        image_bytes: int = 0,
    ) -> Generation:
        return track.generation(
            run_id=self.plan.run_id,
            arm=self.arm,
            mix_digest=self.mix_digest,
            case_id=case.case_id,
            seed=self.plan.case_seed(case),
            image_digest=image_digest,
            source_digest=source_digest,
            image_bytes=image_bytes,
        )

    async def _stage(
        self, case: Case, step: Step, image: bytes | None, track: Track
    ) -> AttemptResult | None:
        """Ask the models of a stage until one delivers; ``None`` when halted before that."""
        number = 0
        for way in step.ways:
            track.models[step.index] = way.model.name
            result = await self._ask(case, way, number, image, track)
            if result is None or result.image is not None or not falls_back(result.attempt):
                return result
            number = result.attempt.number
        return result

    async def _ask(
        self, case: Case, step: Step, number: int, image: bytes | None, track: Track
    ) -> AttemptResult | None:
        """Ask one model until it delivers or is given up; ``None`` when halted before that.

        Args:
            case: The case.
            step: The stage with this model.
            number: Attempts that the stage has taken before, at other models.
            image: The picture to work on.
            track: Takes the attempts.
        """
        most = number + step.model.limits.attempts
        while True:
            number += 1
            result = await self._attempt(case, step, number, image)
            if result is None:
                return None
            track.attempts.append(result.attempt)
            if result.image is not None:
                return result
            wait = backoff(result.attempt, most)
            if wait is None:
                return result
            track.waited_s += wait
            if await self._halted_within(wait):
                return None

    async def _attempt(
        self, case: Case, step: Step, number: int, image: bytes | None
    ) -> AttemptResult | None:
        """Reserve, send, book; ``None`` when the shard is halted or the money is gone."""
        model = step.model.name
        key = idempotency_key(self.plan.run_id, self.arm, case.case_id, step.index, number)
        async with self.limits.slot(model) as queued_s:
            if self.halted.is_set():
                return None
            seed = self.plan.case_seed(case)
            request = request_for(
                step,
                case,
                seed=seed,
                attempt=number,
                key=key,
                image=image,
                # The mask is of the upload, so it fits no later stage.
                mask=self.masks.get(case.case_id) if step.index == 0 else None,
                queued_s=queued_s,
                tokens=self.tokens[case.case_id],
            )
            worst = reservation(self.providers[model], request)
            self.open[key] = False
            try:
                await self._aside(
                    lambda: self.ledger.reserve(
                        key,
                        arm=self.arm,
                        case_id=case.case_id,
                        stage=step.index,
                        attempt=number,
                        model=model,
                        microusd=worst,
                    )
                )
            except TakenOverError:
                # The reservation under this key, if there is one, is the other driver's.
                del self.open[key]
                raise
            except BudgetExhausted as error:
                del self.open[key]
                self._halt(str(error))
                return None
            self.open[key] = True
            with request_span(
                step.model,
                self.endpoints,
                operation=step.stage.operation,
                arm=self.arm,
                case_id=case.case_id,
                stage_number=step.index,
                attempt=number,
            ) as span:
                result = await complete(self.providers[model], self.client, request)
                self.limits.note(result.attempt)
                attempt = await self._book(result.attempt)
                span.ended(attempt)
        self._tell_attempt(case, attempt)
        down = self.breaker.note(attempt)
        if down is not None:
            self._halt(down)
        elif not looks_down(attempt):
            await self._write_doubtful(model)
        return AttemptResult(attempt, result.image)

    async def _book(self, attempt: Attempt) -> Attempt:
        """Book an attempt and return it with the cost that the ledger counts for it."""
        key = attempt.idempotency_key
        if attempt.billed == "unknown":
            counted = await self._aside(self.ledger.mark_unknown, key)
        else:
            counted = await self._aside(self.ledger.book, key, attempt.cost_microusd)
        del self.open[key]
        self.spend += counted
        if counted == attempt.cost_microusd:
            return attempt
        # An earlier send of this key, before a crash, was or may have been billed.
        billed = "unknown" if attempt.billed == "no" else attempt.billed
        return attempt.model_copy(update={"cost_microusd": counted, "billed": billed})

    async def _finish(self, case: Case, generation: Generation) -> None:
        """Write a generation to the journal, or set it aside while its provider may be down."""
        if generation.status == "undelivered" and not generation.cached:
            last = generation.attempts[-1]
            if looks_down(last) and self.breaker.streak(last.model) > 0:
                self.doubtful.setdefault(last.model, []).append((case, generation))
                return
        await self._write(case, generation)

    async def _judge_doubtful(self) -> None:
        """Book the last failed cases when their provider lives; hold when it does not answer."""
        for model in list(self.doubtful):
            if self.halted.is_set():
                return
            if await self._answers(model):
                await self._write_doubtful(model)
            else:
                self._halt(
                    f"the provider of model {model!r} does not answer any more; an outage says "
                    "nothing about the mix. Check the provider, then resume the run"
                )

    async def _answers(self, model: str) -> bool:
        """Ask the provider for its models: the cheapest sign of life."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self.providers[model].served(self.client, (self.models[model],))
        except (GateError, TimeoutError):
            return False
        return True

    async def _write_doubtful(self, model: str) -> None:
        """Write the failed cases of a model that answers: they were no outage."""
        for case, generation in self.doubtful.pop(model, ()):
            await self._write(case, generation)

    async def _write(self, case: Case, generation: Generation) -> None:
        await self._aside(self.journal.record, generation, case.digest)
        self.count["finished"] += 1
        self.count["cached"] += generation.cached
        if generation.status != "ok":
            self.count[generation.status] += 1
        self._tell_case("case", generation)

    def _halt(self, reason: str) -> None:
        """Send nothing new any more; the first reason stays."""
        self.reason = self.reason or reason
        self.halted.set()

    async def _halted_within(self, seconds: float) -> bool:
        """Wait, and return whether the shard was halted meanwhile."""
        try:
            await asyncio.wait_for(self.halted.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _aside(self, function: Callable[..., Value], *args: object) -> Value:
        """Call a blocking function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *args)

    def _settle_open(self) -> None:
        """Settle what was cut off: sent requests may be billed, unsent ones are not."""
        for key, sent in self.open.items():
            if sent:
                self.ledger.mark_unknown(key)
            else:
                self.ledger.release(key)

    def _tell_attempt(self, case: Case, attempt: Attempt) -> None:
        self.tell(
            HarnessEvent(
                "attempt",
                self.arm,
                self.shard,
                case.case_id,
                failure=attempt.failure,
                cost_microusd=attempt.cost_microusd,
            )
        )

    def _tell_case(self, kind: Literal["case", "reused"], generation: Generation) -> None:
        self.tell(
            HarnessEvent(
                kind,
                self.arm,
                self.shard,
                generation.case_id,
                status=generation.status,
                failure=generation.failure,
                cached=generation.cached,
            )
        )
