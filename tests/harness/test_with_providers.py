"""The harness with Stability, AUTOMATIC1111, ComfyUI and a replay in one mix, fakes as servers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from tasks.harness.journal import Journal
from tasks.harness.run import run_shard
from tasks.mix.catalog import Catalog, Price
from tasks.mix.manifest import Mix, ResolvedMix, resolve_mix
from tasks.plan import RunFolder, RunPlan
from tasks.policy import Policy, Sampling
from tasks.providers.replay_store import manifest_for, write
from tasks.records import SUBTASKS, Case, FailureClass, Generation, Subtask
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import ledger
from tests.fakes.a1111_server import CHECKPOINT, A1111Server
from tests.fakes.comfy_server import BUSY_MS, ComfyServer, text_to_image
from tests.fakes.contract import a_model
from tests.fakes.http_fake import picture, size_of
from tests.fakes.stability_server import BLURRED, CREDITS, KEY, StabilityServer

SECOND = Price(usd=0.001, per="gpu_second", source="test", date=date(2026, 1, 1))
CASES: dict[Subtask, tuple[str, int]] = {
    "fast": ("a fox", 4096),
    "typography": ("a sign", 256),
    "upscale": ("a mug", 512),
    "creative": ("a hat", 64),
}


def credit(name: str) -> Price:
    return Price(usd=0.01, per="credit", credits=CREDITS[name], source="t", date=date(2026, 1, 1))


def settle(root: Path, urls: dict[str, str], recorded: Path, pin: str, extra: str) -> RunPlan:
    """Return the plan of a run whose mix goes to all of them."""
    key = {"key_env": "STABILITY_API_KEY"}
    models = (
        a_model(
            name="turbo",
            protocol="stability",
            version="sd3.5-large-turbo",
            endpoint=urls["stability"],
            price=credit("sd3.5-large-turbo"),
            **key,
        ),
        a_model(
            name="enlarge",
            protocol="stability",
            version="fast",
            endpoint=urls["stability"],
            price=credit("fast"),
            **key,
        ),
        a_model(
            name="webui",
            protocol="automatic1111",
            endpoint=urls["a1111"],
            price=SECOND,
            version=f"sha256:{CHECKPOINT.sha256}",
            pin="immutable",
            options={"upscaler": "Lanczos", "steps": 4},
        ),
        a_model(
            name="graphs",
            protocol="comfyui",
            endpoint=urls["comfy"],
            price=SECOND,
            version="x",
            operations=("generate",),
            options={"graphs": {"generate": text_to_image()}},
        ),
        a_model(
            name="recorded",
            protocol="replay",
            endpoint=recorded.as_uri(),
            version=pin,
            pin="immutable",
            price=Price(usd=0, source="t", date=date(2026, 1, 1)),
        ),
    )
    stages: dict[str, list[dict[str, Any]]] = {
        "fast": [
            {"model": "turbo"},
            {"model": "enlarge", "operation": "upscale", "params": {"scale": 4}},
        ],
        "typography": [{"model": "graphs"}],
        "upscale": [
            {"model": "webui"},
            {"model": "webui", "operation": "upscale", "params": {"scale": 2}},
        ],
        "creative": [{"model": "recorded"}],
        "edit": [{"model": "webui", "operation": "edit"}],
    }
    mix = Mix.model_validate(
        {
            "name": "all",
            "product": "storefront",
            "routes": {s: [{"stages": stages[s]}] for s in SUBTASKS},
        }
    )
    resolved: ResolvedMix = resolve_mix(mix, Catalog(models=models), "test")
    cases = tuple(
        Case(case_id=name, prompt=prompt + extra, subtask=name, width=side, height=side)
        for name, (prompt, side) in CASES.items()
    )
    plan = RunPlan(
        run_id="run-1",
        product="storefront",
        created_at="2026-11-29T00:00:00.000Z",
        baseline=resolved,
        candidate=resolved,
        policy=Policy(sampling=Sampling(shard_size=len(cases))),
        seed=7,
        budget_microusd=10**9,
        day_budget_microusd=10**9,
        inputs="test",
        cases=cases,
        coverage={},
    )
    RunFolder(root / "runs" / plan.run_id).write("plan.json", plan.model_dump_json())
    return plan


@pytest.fixture
def servers() -> Iterator[tuple[StabilityServer, A1111Server, ComfyServer]]:
    with StabilityServer() as one, A1111Server() as two, ComfyServer() as three:
        three.polls = 0
        yield one, two, three


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def run(
    root: Path, state: State, servers: tuple[Any, ...], extra: str = ""
) -> tuple[dict[str, Generation], Settings]:
    recorded = root / "recorded"
    recorded.mkdir()
    (recorded / "hat.png").write_bytes(picture(64, 64, "hat"))
    prompt, _ = CASES["creative"]
    entries = [{"prompt": prompt + extra, "files": ["hat.png"], "latency_s": 2.0}]
    pin = write(recorded, manifest_for(recorded, "test", entries))
    urls = dict(zip(("stability", "a1111", "comfy"), (s.url for s in servers), strict=True))
    plan = settle(root, urls, recorded, pin, extra)
    settings = Settings(
        home=root,
        state_url=SecretStr(f"sqlite:///{root / 'state.db'}"),
        routing_file=root / "routing.json",
        environment={"STABILITY_API_KEY": SecretStr(KEY)},
    )
    folder = RunFolder(root / "runs" / plan.run_id)
    run_shard(plan, folder, state, settings, "candidate", plan.shards()[0], {})
    found = Journal(state, plan.run_id).generations("candidate")
    return {case: generation for (_, case), generation in found.items()}, settings


def test_one_mix_over_all_of_them(tmp_path: Path, state: State, servers: tuple[Any, ...]) -> None:
    ended, settings = run(tmp_path, state, servers)
    assert {case: (g.status, g.message) for case, g in ended.items()} == dict.fromkeys(
        CASES, ("ok", "")
    )
    for case, generation in ended.items():
        digest = str(generation.image_digest).removeprefix("sha256:")
        data = (settings.images / digest[:2] / digest).read_bytes()
        assert size_of(data) == (CASES[case][1],) * 2
    # Credits of both stages; the GPU's own seconds; nothing for what was recorded.
    assert ended["fast"].cost_microusd == 40_000 + 20_000
    assert ended["typography"].cost_microusd == BUSY_MS
    assert ended["upscale"].cost_microusd == 2 * 13
    assert ended["creative"].cost_microusd == 0
    assert ended["creative"].latency_s == 2.0
    with state.begin() as connection:
        booked = connection.execute(sa.select(sa.func.sum(ledger.c.booked_microusd))).scalar_one()
    assert booked == sum(g.cost_microusd for g in ended.values())
    pins = {a.model: a.pin for g in ended.values() for a in g.attempts if a.stage == 0}
    assert pins == {"turbo": "unsaid", "graphs": "unsaid", "webui": "held", "recorded": "held"}


def test_what_a_provider_does_in_silence_is_booked_and_not_served(
    tmp_path: Path, state: State, servers: tuple[Any, ...]
) -> None:
    """A blur under 200, another seed than asked, a graph that a custom node rewrote."""
    _, webui, comfy = servers
    webui.ignore_seed = True

    def reseed(graph: dict[str, Any]) -> dict[str, Any]:
        graph["3"]["inputs"]["seed"] = 1
        return graph

    comfy.on_prompt = reseed
    ended, _ = run(tmp_path, state, servers, extra=f" {BLURRED}")
    assert {case: (g.status, g.failure) for case, g in ended.items()} == {
        "fast": ("refused", FailureClass.REFUSAL),
        "typography": ("undelivered", FailureClass.DRIFT),
        "upscale": ("undelivered", FailureClass.DRIFT),
        "creative": ("ok", None),
    }
    assert "CONTENT_FILTERED" in ended["fast"].message
    assert "seed of node '3'" in ended["typography"].message
    assert "was asked for" in ended["upscale"].message
    assert all(g.image_digest is None for case, g in ended.items() if case != "creative")
    assert ended["fast"].cost_microusd == 40_000
    # None of these is asked a second time: it would only be paid for again.
    assert [len(g.attempts) for g in ended.values()] == [1] * len(CASES)
