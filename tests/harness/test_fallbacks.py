"""Fallback chains, upscales that may be left out, and tokens of prompt templates."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.harness.retry import FALLEN_BACK
from tasks.mix.catalog import Catalog
from tasks.mix.manifest import Alternative, Mix, ResolvedMix, Stage, resolve_mix
from tasks.providers.base import GenerationRequest
from tasks.records import FailureClass, digest_bytes
from tests.harness.test_run import Bench, a_mix, bench, listed, some_cases

__all__ = ["bench"]


def chained(*models: str, **stage: Any) -> ResolvedMix:
    """A mix whose fast route asks these models one after the other."""
    first, *rest = models
    fallbacks = [{"model": name} for name in rest]
    fields = {"model": first, "fallbacks": fallbacks} | stage
    return with_stages("fast", Stage.model_validate(fields))


def with_stages(subtask: str, *stages: Stage) -> ResolvedMix:
    mix = a_mix("new")
    routes: dict[Any, Any] = dict(mix.mix.routes) | {subtask: (Alternative(stages=stages),)}
    changed = Mix(name="new", product="p", routes=routes)
    names = sorted({*changed.model_names, "m", "up"})
    return ResolvedMix(mix=changed, models=tuple(listed(name) for name in names))


def failing(**by_model: FailureClass | bytes) -> Any:
    return lambda request: by_model.get(request.model.name)


@pytest.mark.parametrize("failure", list(FailureClass))
def test_a_fallback_is_asked_after_what_is_no_answer(bench: Bench, failure: FailureClass) -> None:
    bench.answering = failing(m=failure, n=b"from n")
    plan = bench.plan(some_cases(1), candidate=chained("m", "n"))
    bench.run(plan)
    (end,) = bench.generations().values()
    if failure in FALLEN_BACK:
        assert (end.status, end.models) == ("ok", ("n",))
        assert end.image_digest == digest_bytes(b"from n")
        # Each request has a number, and so a key, of its own.
        numbers = [attempt.number for attempt in end.attempts]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len({attempt.idempotency_key for attempt in end.attempts}) == len(numbers)
    else:
        assert {request.model.name for request in bench.seen} == {"m"}
        assert end.status != "ok"
        assert end.models == ("m",)


def test_each_model_of_a_chain_has_its_own_attempts(bench: Bench) -> None:
    bench.answering = failing(m=FailureClass.SERVER, n=FailureClass.SERVER)
    bench.run(bench.plan(some_cases(1), candidate=chained("m", "n")))
    assert [request.model.name for request in bench.seen] == ["m"] * 3 + ["n"] * 3
    (end,) = bench.generations().values()
    assert end.status == "undelivered"
    assert end.cost_microusd == bench.spent()


def test_a_chain_costs_what_its_attempts_cost(bench: Bench) -> None:
    bench.answering = failing(m=FailureClass.EMPTY)
    bench.run(bench.plan(some_cases(3), candidate=chained("m", "n")))
    assert sum(end.cost_microusd for end in bench.generations().values()) == bench.spent()


UPSCALE = {"model": "up", "operation": "upscale", "params": {"scale": 2}}


def upscaled(**changes: Any) -> ResolvedMix:
    return with_stages("upscale", Stage(model="m"), Stage.model_validate(UPSCALE | changes))


def test_an_upscale_that_fails_ends_the_case(bench: Bench) -> None:
    bench.answering = failing(up=FailureClass.SERVER)
    bench.run(bench.plan(some_cases(1, subtask="upscale"), candidate=upscaled()))
    (end,) = bench.generations().values()
    assert end.status == "undelivered"
    assert end.models == ("m", "up")


def test_or_its_source_is_served_where_the_mix_says_so(bench: Bench) -> None:
    bench.answering = failing(up=FailureClass.SERVER, m=b"small")
    plan = bench.plan(some_cases(1, subtask="upscale"), candidate=upscaled(on_failure="source"))
    bench.run(plan)
    (end,) = bench.generations().values()
    assert (end.status, end.models, end.source_digest) == ("ok", ("m",), None)
    assert end.image_digest == digest_bytes(b"small")
    assert end.image_bytes == len(b"small")
    assert end.message.startswith("served without stage 2 (up)")
    # What the failed upscale took is waited for and paid as well.
    assert len(end.attempts) == 4
    assert end.cost_microusd == bench.spent()


@pytest.mark.parametrize("untrue", ["", "shapes that the source does not have"])
def test_a_supervised_upscale_is_served_only_when_it_is_true(bench: Bench, untrue: str) -> None:
    bench.answering = failing(up=b"large", m=b"small")
    asked: list[tuple[bytes, bytes]] = []

    def supervise(source: bytes, result: bytes) -> str:
        asked.append((source, result))
        return untrue

    candidate = upscaled(on_failure="source")
    plan = bench.plan(some_cases(1, subtask="upscale"), candidate=candidate)
    bench.run(plan, supervise=supervise)
    (end,) = bench.generations().values()
    assert asked == [(b"small", b"large")]
    assert end.image_digest == digest_bytes(b"small" if untrue else b"large")
    assert end.source_digest == (None if untrue else digest_bytes(b"small"))
    assert untrue in end.message


def test_what_the_checks_judge_is_not_supervised(bench: Bench) -> None:
    def supervise(source: bytes, result: bytes) -> str:
        raise AssertionError

    plan = bench.plan(some_cases(1, subtask="upscale"), candidate=upscaled())
    bench.run(plan, supervise=supervise)
    (end,) = bench.generations().values()
    assert end.status == "ok"


def test_chains_belong_to_the_digest_and_old_mixes_keep_theirs() -> None:
    plain, chain, other = chained("m"), chained("m", "n"), chained("m", "o")
    assert len({mix.digest for mix in (plain, chain, other)}) == 3
    assert upscaled().digest != upscaled(on_failure="source").digest
    assert set(Stage(model="m").model_dump()) == {
        "model",
        "operation",
        "params",
        "prompt_template",
        "safety",
    }


def test_a_new_version_of_a_fallback_is_another_mix() -> None:
    chain = chained("m", "n")
    newer = tuple(
        model.model_copy(update={"version": "2"}) if model.name == "n" else model
        for model in chain.models
    )
    assert ResolvedMix(mix=chain.mix, models=newer).digest != chain.digest


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"model": "m", "fallbacks": [{"model": "m"}]}, "falls back to itself"),
        ({"model": "m", "on_failure": "source"}, "is for an upscale"),
        (UPSCALE | {"fallbacks": [{"model": "n", "params": {"scale": 4}}]}, "must be the same"),
        (UPSCALE | {"fallbacks": [{"model": "n", "params": {"scale": "x"}}]}, "params.scale"),
        ({"model": "m", "fallbacks": [{"model": "n", "prompt_template": "x"}]}, "{prompt}"),
    ],
)
def test_a_chain_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem.replace("{", r"\{")):
        Stage.model_validate(fields)


def test_a_fallback_must_be_in_the_catalog_and_able_to() -> None:
    chain = chained("m", "n").mix
    with pytest.raises(ConfigError, match="names model 'n'"):
        resolve_mix(chain, Catalog(models=(listed("m"), listed("up"))), "mix.yaml")
    unable = listed("n", operations=("upscale",))
    with pytest.raises(ConfigError, match="model 'n' cannot 'generate'"):
        resolve_mix(chain, Catalog(models=(listed("m"), listed("up"), unable)), "mix.yaml")


def sent(bench: Bench, template: str, **case: Any) -> GenerationRequest:
    candidate = with_stages("fast", Stage(model="m", prompt_template=template))
    bench.run(bench.plan(some_cases(1, **case), candidate=candidate))
    return bench.seen[0]


def test_tokens_stand_for_the_brand_of_the_case(bench: Bench) -> None:
    template = "{prompt}, for {brand} in {palette}; {locale} {other}"
    request = sent(bench, template, brand="northwind", locale="de-DE")
    assert request.prompt.startswith("prompt 0, for northwind in #")
    assert request.prompt.endswith("; de-DE {other}")


def test_a_case_without_a_brand_leaves_the_tokens_empty(bench: Bench) -> None:
    assert sent(bench, "{prompt}|{brand}|{palette}").prompt == "prompt 0||"


def test_a_prompt_cannot_fetch_what_the_template_did_not_ask_for(bench: Bench) -> None:
    hostile = "{palette} {brand} {prompt} {0} {prompt.__class__}"
    request = sent(bench, "{prompt} / {locale}", prompt=hostile, brand="northwind")
    assert request.prompt == f"{hostile} / und"


def fitting(fit: str) -> ResolvedMix:
    mix = a_mix("new")
    way = Alternative.model_validate({"stages": [{"model": "m"}], "fit": fit})
    routes: dict[Any, Any] = dict(mix.mix.routes) | {"fast": (way,)}
    return ResolvedMix(mix=Mix(name="new", product="p", routes=routes), models=mix.models)


@pytest.mark.parametrize("fit", ["as_drawn", "scale"])
def test_a_picture_is_scaled_only_where_the_route_asks_for_it(bench: Bench, fit: str) -> None:
    bench.answering = failing(m=b"large")
    asked: list[tuple[bytes, int, int]] = []

    def scale(data: bytes, width: int, height: int) -> bytes:
        asked.append((data, width, height))
        return b"reduced"

    bench.run(bench.plan(some_cases(1), candidate=fitting(fit)), scale=scale)
    (end,) = bench.generations().values()
    scaled = fit == "scale"
    assert asked == ([(b"large", 512, 384)] if scaled else [])
    assert end.image_digest == digest_bytes(b"reduced" if scaled else b"large")
    assert (end.sniffed_mime == "image/png") == scaled
    assert end.image_bytes == len(b"reduced" if scaled else b"large")


def test_how_a_picture_is_fitted_belongs_to_the_digest() -> None:
    assert fitting("scale").digest != fitting("as_drawn").digest == a_mix("new").digest
