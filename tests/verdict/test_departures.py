"""A provider that does something else than was asked is named in the verdict, in words.

Each of the four is a small run of the harness against a fake of the provider, measured and decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.harness.journal import Journal
from tasks.harness.run import run_shard
from tasks.metrics.task import compute_metrics
from tasks.mix.catalog import Catalog, Limits, Model
from tasks.mix.manifest import Mix, resolve_mix
from tasks.plan import RunPlan
from tasks.policy import Policy, Sampling
from tasks.records import Attempt, Case, FailureClass, Generation, Verdict
from tasks.settings import load_settings
from tasks.state import State
from tasks.verdict.departures import MOST_CAUSES, departures, moved
from tasks.verdict.task import decide
from tests.fakes import bedrock_server, gemini_server, mixes, openai_server, stability_server
from tests.fakes.contract import a_model
from tests.fakes.http_fake import Reply, Request, header
from tests.verdict import plans


@dataclass(frozen=True)
class Way:
    """How a provider departs: its server, the model, and what the verdict says of it."""

    server: Callable[[], Any]
    key: str
    model: dict[str, Any]
    says: str
    prompt: str = "a kite"

    def entry(self, url: str) -> Model:
        fields = {"name": "paper-kite", "limits": Limits(timeout_s=20.0, attempts=1)}
        return a_model(
            **(fields | self.model | {"endpoint": url + self.model.get("endpoint", "")}),
            key_env="THE_KEY",
        )


def rerouted() -> gemini_server.GeminiServer:
    server = gemini_server.GeminiServer()
    server.rerouted["gemini-3-pro-image"] = "gemini-3.1-flash-image"
    return server


class FallenBack(openai_server.OpenAIServer):
    def answer(self, request: Request) -> Reply:
        reply = super().answer(request)
        return header(x_litellm_attempted_fallbacks="1", x_litellm_model_group="cheap")(reply)


WAYS = {
    "another version than pinned": Way(
        rerouted,
        gemini_server.KEY,
        {
            "protocol": "gemini",
            "version": "gemini-3-pro-image",
            "pin": "dated",
            "endpoint": "/v1beta",
        },
        "model 'paper-kite' is pinned to 'gemini-3-pro-image', reported 'gemini-3.1-flash-image'",
    ),
    "an ignored seed": Way(
        lambda: bedrock_server.BedrockServer(bedrock_server.Script(seed=4_711)),
        f"{bedrock_server.ACCESS}:{bedrock_server.SECRET}",
        {
            "protocol": "bedrock",
            "id": bedrock_server.MODEL,
            "version": bedrock_server.MODEL,
            "pin": "dated",
            "operations": ("generate",),
        },
        "was asked for, '4711' was used",
    ),
    "a silent fallback": Way(
        lambda: FallenBack("litellm"),
        openai_server.KEY,
        {
            "protocol": "openai",
            "version": "gpt-image-2-2026-04-21",
            "pin": "dated",
            "endpoint": "/v1",
            "options": {"dialect": "openai"},
        },
        "the proxy fell back to 'cheap' (1 fallbacks)",
    ),
    "a blurred picture under 200": Way(
        stability_server.StabilityServer,
        stability_server.KEY,
        {"protocol": "stability", "version": "sd3.5-large-turbo"},
        "the picture was blurred by Stability's content filter (CONTENT_FILTERED)",
        prompt=f"a kite, {stability_server.BLURRED}",
    ),
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


def judged(root: Path, state: State, way: Way, prompts: list[str]) -> tuple[Verdict, list[str]]:
    """Run the prompts on the provider; give the verdict and what became of each case."""
    cases = tuple(
        Case(case_id=f"c{number}", prompt=prompt, subtask="fast", width=1024, height=1024)
        for number, prompt in enumerate(prompts)
    )
    with way.server() as server:
        model = way.entry(server.url)
        manifest = mixes.manifest("summer", model.name)
        # Bedrock's entry cannot edit; no case asks for it.
        manifest["routes"]["edit"] = [{"stages": [{"model": "folio-1", "operation": "edit"}]}]
        candidate = resolve_mix(
            Mix.model_validate(manifest), Catalog(models=(model, mixes.model())), "test"
        )
        plan: RunPlan = plans.plan(
            cases=cases,
            reserve=0,
            candidate=candidate,
            policy=Policy(sampling=Sampling(cases=len(cases), shard_size=len(cases))),
        )
        context = plans.context_of(root, state, plan)
        settings = load_settings({"THE_KEY": way.key}, home=root)
        shard = plan.shards()[0]
        result = run_shard(plan, context.folder, state, settings, "candidate", shard, {})
        assert not result.held, result.reason
    journal = Journal(state, plan.run_id)
    for case in cases:
        journal.record(made(plan, case))
    drawn = {case.case_id: None for case in cases}
    measured = compute_metrics.fn(context, plan, drawn)
    verdict = decide.fn(context, plan, measured, (), drawn, ())
    ended = journal.generations("candidate")
    return verdict, [ended["candidate", case.case_id].status for case in cases]


def made(plan: RunPlan, case: Case) -> Generation:
    return Generation(
        run_id=plan.run_id,
        arm="baseline",
        mix_digest=plan.baseline.digest,
        case_id=case.case_id,
        seed=7,
        models=("folio-1",),
        status="undelivered",
        failure=FailureClass.SERVER,
        attempts=(an_attempt("folio-1", FailureClass.SERVER, "HTTP 500: out of memory"),),
    )


def an_attempt(model: str, failure: FailureClass | None, message: str = "", **more: Any) -> Attempt:
    return Attempt(
        stage=0,
        number=1,
        model=model,
        started_at="2026-11-29T00:00:00Z",
        failure=failure,
        message=message,
        **more,
    )


@pytest.mark.parametrize("name", WAYS)
def test_a_provider_that_does_something_else_is_named_in_the_reasons(
    tmp_path: Path, state: State, name: str
) -> None:
    way = WAYS[name]
    verdict, ended = judged(tmp_path, state, way, [f"{way.prompt} {n}" for n in range(2)])
    assert verdict.verdict != "PROMOTE"
    assert "ok" not in ended
    (named,) = [reason for reason in verdict.reasons if way.says in reason]
    assert "'paper-kite'" in named
    assert "2 of 2 cases" in named
    # The other arm is the reader's business too, and decides nothing.
    assert any(text.startswith("Baseline: ") and "500" in text for text in verdict.warnings)


def a_generation(case: str, *attempts: Attempt, **more: Any) -> Generation:
    fields: dict[str, Any] = {
        "run_id": "run",
        "arm": "candidate",
        "mix_digest": "sha256:1",
        "case_id": case,
        "seed": 7,
        "models": ("m",),
        "status": "undelivered",
        "attempts": attempts,
    }
    return Generation(**(fields | more))


def test_the_gravest_causes_come_first_and_few_are_told() -> None:
    causes = [
        FailureClass.TRANSPORT,
        FailureClass.SERVER,
        FailureClass.EMPTY,
        FailureClass.AUTH,
        FailureClass.REFUSAL,
        FailureClass.DRIFT,
    ]
    told = departures(
        a_generation(f"c{n}", an_attempt("m", cause, f"because {cause}."))
        for n, cause in enumerate(causes)
    )
    assert len(told) == MOST_CAUSES < len(causes)
    assert [text.rpartition("because ")[2] for text in told] == [
        "drift.",
        "refusal.",
        "auth.",
        "empty.",
        "server.",
    ]


def test_what_was_tried_again_with_success_is_no_departure() -> None:
    again = (an_attempt("m", FailureClass.SERVER, "HTTP 503"), an_attempt("m", None))
    assert departures([a_generation("c", *again, status="ok")]) == ()
    # An upscale that was left out because the upscaler drifted is one all the same.
    left_out = (an_attempt("m", None), an_attempt("up", FailureClass.DRIFT, "another version"))
    (told,) = departures([a_generation("c", *left_out, status="ok")])
    assert "'up'" in told
    assert "1 of 1 cases: another version." in told


def test_unsafe_prompts_are_rightly_refused() -> None:
    refused = an_attempt("m", FailureClass.REFUSAL, "SAFETY")
    generation = a_generation("c", refused, status="refused")
    assert departures([generation], right={"c"}) == ()
    assert len(departures([generation])) == 1
    assert departures([generation], "baseline") == ()


def test_an_alias_that_moved_is_told_once() -> None:
    attempt = an_attempt("m", None, pin="moved", model_reported="m-2")
    told = list(moved(a_generation(f"c{n}", attempt, status="ok") for n in range(3)))
    assert len(told) == 1
    assert "'m-2'" in told[0]
