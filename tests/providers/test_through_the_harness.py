"""OpenAI, Gemini and a compatible server in one run of the harness, with every class of failure.

What is booked is what the attempts cost, and a key that every provider quotes in every answer is
found in nothing that the run leaves behind.
"""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.harness.journal import Journal
from tasks.harness.ledger import SpendLedger
from tasks.harness.run import run_shard
from tasks.mix.catalog import Catalog, Limits, Model, Price, TokenPrices
from tasks.mix.manifest import Mix, resolve_mix
from tasks.plan import RunFolder, RunPlan
from tasks.policy import Policy, Sampling
from tasks.records import Case, FailureClass, Generation
from tasks.settings import load_settings
from tasks.state import State
from tests.fakes import gemini_server, openai_server
from tests.fakes.contract import a_model
from tests.fakes.http_fake import (
    Bend,
    HttpFake,
    Reply,
    Request,
    gateway_page,
    page,
    picture,
    reset,
    says,
    truncated,
    with_json,
)

PICTURE = picture(64, 64, "picture")
GEMINI_KEY, OPENAI_KEY = gemini_server.KEY, openai_server.KEY

#: Failures that ask the harness to wait: it does, and the test would too.
SLOW = {"minute", "overloaded", "in_a_list", "rate_limit"}
_WIRE: dict[str, Bend] = {
    "reset": reset,
    "truncated": truncated,
    "page": page,
    "gateway": gateway_page,
}
GEMINI: dict[str, Bend] = {
    **{name: bend for name, bend in gemini_server.FAILURES.items() if name not in SLOW},
    **_WIRE,
    **{reason: gemini_server.finished(reason) for reason in ("NO_IMAGE", "MAX_TOKENS", "OTHER")},
    "IMAGE_SAFETY": gemini_server.finished("IMAGE_SAFETY", f"no: {GEMINI_KEY}"),
    "blocked": gemini_server.blocked("SAFETY"),
    "rerouted": with_json(lambda value: value | {"modelVersion": f"other {GEMINI_KEY}"}),
    "no usage": with_json(lambda v: {k: v[k] for k in v if k != "usageMetadata"}),
    "garbage": gemini_server.parts({"inlineData": {"mimeType": "image/png", "data": GEMINI_KEY}}),
}
OPENAI: dict[str, Bend] = {
    **{name: bend for name, bend in openai_server.FAILURES.items() if name not in SLOW},
    **_WIRE,
    "drift": with_json(lambda value: value | {"model": f"other {OPENAI_KEY}"}),
    "no usage": with_json(lambda v: {k: v[k] for k in v if k != "usage"}),
    "no data": with_json(openai_server.without_data),
    "garbage": openai_server.with_data(lambda _: {"b64_json": OPENAI_KEY}),
    "foreign": openai_server.with_data(lambda _: {"url": f"https://x.test/?key={OPENAI_KEY}"}),
    "error under 200": says(200, openai_server.error(200, f"died of {OPENAI_KEY}", None)),
}


def quoting(reply: Reply, key: str) -> Reply:
    """Quote the key in an answer, plainly and in base64, wherever a text is kept."""
    hidden = base64.b64encode(b"x" + key.encode()).decode()
    said = json.dumps(f"{key} {hidden}")[1:-1]
    body = reply.body
    for name in (b'"message": "', b'"responseId": "', b'"finishMessage": "', b'"detail": "'):
        body = body.replace(name, name + said.encode() + b" ")
    headers = {"content-length": str(len(body)), "x-request-id": f"{key}-1", "server": key}
    return replace(reply, body=body, headers=reply.headers | headers)


class Failing:
    """Lets a fake fail as the prompt says: ``… fault=quota``."""

    faults: dict[str, Bend]
    key: str

    def answer(self, request: Request) -> Reply:
        true: Reply = super().answer(request)  # type: ignore[misc]
        text = request.body.decode("utf-8", "replace")
        name = text.partition("fault=")[2].partition(";")[0]
        return quoting(self.faults[name](true) if name else true, self.key)


class FailingGemini(Failing, gemini_server.GeminiServer):
    faults, key = GEMINI, GEMINI_KEY


class FailingOpenAI(Failing, openai_server.OpenAIServer):
    faults, key = OPENAI, OPENAI_KEY


def cases() -> tuple[Case, ...]:
    """Return a case for every failure of both, each followed by one that goes well."""
    made: list[Case] = []

    def add(subtask: Any, prompt: str) -> None:
        made.append(
            Case(case_id=f"c{len(made):03}", prompt=prompt, subtask=subtask, width=64, height=64)
        )

    for subtask, faults in (("typography", GEMINI), ("creative", OPENAI)):
        for name in faults:
            add(subtask, f"a kite fault={name};")
            add(subtask, f"a kite after {name}")
    for number in range(4):
        add("fast", f"a quick kite {number}")
    return tuple(made)


def models(gemini: HttpFake, openai: HttpFake, own: HttpFake) -> tuple[Model, ...]:
    def priced(most: float, **rates: float) -> Price:
        return Price(
            usd=most, per="token", tokens=TokenPrices(**rates), source="t", date="2026-11-01"
        )

    limits = Limits(timeout_s=10.0, attempts=1, concurrency=4)
    return (
        a_model(
            name="nano",
            protocol="gemini",
            version="gemini-nano-banana-2.1",
            pin="dated",
            endpoint=gemini.url + "/v1beta",
            key_env="GEMINI_API_KEY",
            price=priced(0.15, text_in=1.5, image_in=1.5, text_out=7.5, image_out=30),
            limits=limits,
        ),
        a_model(
            name="gpt",
            protocol="openai",
            version="gpt-image-2-2026-04-21",
            pin="dated",
            endpoint=openai.url + "/v1",
            key_env="OPENAI_API_KEY",
            price=priced(0.2, text_in=5, image_in=8, text_out=30, image_out=30),
            options={"dialect": "openai"},
            limits=limits,
        ),
        a_model(
            name="own",
            protocol="openai",
            id="Qwen/Qwen-Image",
            version="1",
            pin="none",
            endpoint=own.url + "/v1",
            limits=limits,
        ),
    )


@pytest.fixture
def run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> tuple[dict[str, Generation], int, Path]:
    """Run all cases; give the generations, what the ledger spent, and the folder of the run."""
    caplog.set_level(logging.DEBUG)
    # httpcore tells the headers of answers at this level; the product runs above it.
    caplog.set_level(logging.INFO, logger="httpcore")
    with (
        FailingGemini(fixed=PICTURE) as gemini,
        FailingOpenAI(fixed=PICTURE) as openai,
        openai_server.OpenAIServer("vllm-omni", fixed=PICTURE) as own,
    ):
        catalog = Catalog(models=models(gemini, openai, own))
        names = {"typography": "nano", "creative": "gpt", "edit": "gpt"}
        wanted = {
            "name": "spring",
            "product": "shop",
            "routes": {
                subtask: [
                    {
                        "stages": [
                            {
                                "model": names.get(subtask, "own"),
                                "operation": "edit" if subtask == "edit" else "generate",
                            }
                        ]
                    }
                ]
                for subtask in ("typography", "creative", "fast", "edit", "upscale")
            },
        }
        mix = resolve_mix(Mix.model_validate(wanted), catalog, "test")
        asked = cases()
        plan = RunPlan(
            run_id="run-1",
            product="shop",
            created_at="2026-11-29T00:00:00.000Z",
            baseline=mix,
            candidate=mix,
            policy=Policy(sampling=Sampling(shard_size=len(asked))),
            seed=7,
            budget_microusd=10**9,
            day_budget_microusd=10**9,
            inputs="test",
            cases=asked,
            coverage={},
        )
        folder = RunFolder(tmp_path / "runs" / plan.run_id)
        folder.write("plan.json", plan.model_dump_json())
        environ = {"GEMINI_API_KEY": GEMINI_KEY, "OPENAI_API_KEY": OPENAI_KEY}
        settings = load_settings(environ, home=tmp_path)
        assert settings.key("GEMINI_API_KEY") == SecretStr(GEMINI_KEY)
        state = State(f"sqlite:///{tmp_path / 'state.db'}")
        result = run_shard(plan, folder, state, settings, "baseline", plan.shards()[0], {})
        assert (result.held, result.reason) == (False, "")
        journal = Journal(state, plan.run_id).generations("baseline")
        ended = {case_id: generation for (_, case_id), generation in journal.items()}
        book = SpendLedger(state, plan.run_id, plan.budget_microusd, plan.day_budget_microusd)
        spent = book.spent_microusd()
        state.close()
    (tmp_path / "log.txt").write_text(caplog.text)
    return ended, spent, tmp_path


def test_every_class_of_failure_is_booked_at_its_cost_and_no_key_is_left(
    run: tuple[dict[str, Generation], int, Path],
) -> None:
    ended, spent, folder = run
    asked = {case.case_id: case for case in cases()}
    assert set(ended) == set(asked)
    attempts = [attempt for each in ended.values() for attempt in each.attempts]
    assert spent == sum(attempt.cost_microusd for attempt in attempts) > 0
    assert {attempt.failure for attempt in attempts} - {None} == set(FailureClass)
    for name, case in asked.items():
        delivered = ended[name].status == "ok"
        if "fault=" not in case.prompt:
            assert delivered, ended[name].message
        elif "fault=no usage" not in case.prompt:
            assert not delivered, case.prompt
    places = [path for path in folder.rglob("*") if path.is_file()]
    assert {"state.db", "plan.json", "log.txt"} <= {path.name for path in places}
    for path in places:
        found = path.read_bytes()
        for secret in forms(GEMINI_KEY) | forms(OPENAI_KEY):
            assert secret not in found, path.name


def forms(key: str) -> set[bytes]:
    """Return the key as it could lie in a file: plain, and in base64 at each offset."""
    made = {key.encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            made.add(encode(b"x" * offset + key.encode())[4:40])
    return made
