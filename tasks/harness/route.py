"""From a case and a mix to requests, and from attempts to a generation: pure functions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.errors import ConfigError
from tasks.mix.catalog import Model
from tasks.mix.manifest import Call, ResolvedMix, Stage
from tasks.providers.base import GenerationRequest
from tasks.records import Arm, Attempt, Case, FailureClass, Generation


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a route as it applies to one case, with the model that is asked."""

    index: int
    stage: Stage
    call: Call
    model: Model
    #: Size of the picture that this stage is to bring.
    width: int
    height: int
    #: The same stage with the models that are asked when this one does not deliver.
    fallbacks: tuple[Step, ...] = ()

    @property
    def ways(self) -> tuple[Step, ...]:
        """This step and its fallbacks, in the order in which they are asked."""
        return (self, *self.fallbacks)


def steps(mix: ResolvedMix, case: Case) -> tuple[Step, ...]:
    """Return the stages that serve a case, each with the size it is to bring.

    The case's size is that of the final picture: a stage before upscaling is asked for the part
    that the later stages enlarge to it, rounded up.

    Raises:
        ConfigError: The mix lacks a model or a scale is unusable.
    """
    stages = mix.alternative(case.subtask, case.digest).stages
    models = mix.by_name
    result = []
    for index, stage in enumerate(stages):
        later = math.prod(other.scale for other in stages[index + 1 :])
        size = [max(1, math.ceil(side / later - 1e-9)) for side in (case.width, case.height)]
        ways = []
        for call in stage.calls:
            if call.model not in models:
                raise ConfigError(f"mix {mix.mix.name!r} has no catalog entry for {call.model!r}")
            ways.append(Step(index, stage, call, models[call.model], size[0], size[1]))
        result.append(replace(ways[0], fallbacks=tuple(ways[1:])))
    return tuple(result)


def require_price(model: Model) -> None:
    """Pass when the catalog tells what the model costs.

    Raises:
        ConfigError: The catalog gives no price.
    """
    if model.price is None:
        raise ConfigError(
            f"model {model.name!r} has no price in the catalog; add price with usd, source and "
            "date: nothing is spent on a model without one"
        )


def idempotency_key(run_id: str, arm: Arm, case_id: str, stage: int, attempt: int) -> str:
    """Return the key of one request: the same whenever the request is sent again.

    A hash, because case ids and run ids come from outside and a header carries only ASCII.
    """
    parts = (run_id, arm, case_id, str(stage), str(attempt))
    # Lengths keep ("a", "bc") and ("ab", "c") apart.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return "ig-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:48]


def request_for(
    step: Step,
    case: Case,
    *,
    seed: int,
    attempt: int,
    key: str,
    image: bytes | None,
    queued_s: float,
    tokens: Mapping[str, str] | None = None,
    mask: bytes | None = None,
) -> GenerationRequest:
    """Return the request of one attempt."""
    return GenerationRequest(
        model=step.model,
        operation=step.stage.operation,
        prompt=step.call.prompt(case.prompt, locale=case.locale, **(tokens or {})),
        width=step.width,
        height=step.height,
        seed=seed,
        stage=step.index,
        attempt=attempt,
        idempotency_key=key,
        params=dict(step.call.params),
        safety=step.call.safety,
        brand=case.brand,
        locale=case.locale,
        image=image,
        mask=mask,
        queued_s=queued_s,
    )


@dataclass(slots=True)
class Track:
    """What happened so far to one case on its route."""

    attempts: list[Attempt] = field(default_factory=list)
    #: Seconds of back-off between attempts.
    waited_s: float = 0.0
    #: Which model each stage asked last; ``None`` for a stage that the case went without.
    models: list[str | None] = field(default_factory=list)
    #: The attempt that brought the picture.
    made: Attempt | None = None
    #: Whether the picture was reduced after it came; it is a PNG of our own then.
    scaled: bool = False
    #: What a stage went without, in words.
    notes: list[str] = field(default_factory=list)

    def without(self, stage: int, why: str) -> None:
        """Note that the case goes on without a stage."""
        model = self.models[stage]
        self.models[stage] = None
        self.notes.append(f"served without stage {stage + 1} ({model}): {why[:200]}")

    @property
    def last(self) -> Attempt:
        """The attempt that ended the route."""
        return self.attempts[-1]

    def generation(
        self,
        *,
        run_id: str,
        arm: Arm,
        mix_digest: str,
        case_id: str,
        seed: int,
        image_digest: str | None = None,
        source_digest: str | None = None,
        image_bytes: int = 0,
    ) -> Generation:
        """Return the end of the case: with a picture exactly when ``image_digest`` is given."""
        last = self.made if image_digest is not None and self.made is not None else self.last
        models = tuple(name for name in self.models if name is not None)
        latency = sum(a.total_s for a in self.attempts) + self.waited_s
        failure: FailureClass | None = None
        if image_digest is None:
            failure = last.failure or FailureClass.EMPTY
        return Generation(
            run_id=run_id,
            arm=arm,
            mix_digest=mix_digest,
            case_id=case_id,
            seed=seed,
            models=models,
            status="ok"
            if image_digest is not None
            else "refused"
            if failure is FailureClass.REFUSAL
            else "undelivered",
            failure=failure,
            message="; ".join(self.notes) if failure is None else _told(last, len(self.models)),
            image_digest=image_digest,
            source_digest=source_digest if image_digest is not None else None,
            declared_mime="image/png" if self.scaled else last.declared_mime,
            sniffed_mime="image/png" if self.scaled else last.sniffed_mime,
            image_bytes=image_bytes if image_digest is not None else 0,
            attempts=tuple(self.attempts),
            cost_microusd=sum(a.cost_microusd for a in self.attempts),
            latency_s=latency,
            # What a user waits for the first byte: all but what came after it. A picture that was
            # held back for a later stage in vain is sent when that is over.
            ttfb_s=None
            if image_digest is None or last.ttfb_s is None
            else latency
            if last is not self.last
            else max(0.0, latency - last.total_s + last.ttfb_s),
            queued_s=sum(a.queued_s for a in self.attempts),
        )


def _told(last: Attempt, stages: int) -> str:
    """Return the message of a failed route, with the stage when there are several."""
    where = f"stage {last.stage + 1} ({last.model}), " if stages > 1 else ""
    return f"{where}attempt {last.number}: {last.message or last.failure}"
