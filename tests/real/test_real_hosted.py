"""The shipped mix of hosted models through the whole gate, its providers played on loopback."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import Command
from tests.fakes import gemini_server, hosted, openai_server, stability_server
from tests.fakes.http_fake import HttpFake, Reply, Request

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

KEYS = {
    "GEMINI_API_KEY": gemini_server.KEY,
    "OPENAI_API_KEY": openai_server.KEY,
    "STABILITY_API_KEY": stability_server.KEY,
}


class Answers:
    """Keeps the answers of a fake, so that its bill can be drawn up."""

    answers: list[tuple[Request, Reply]]

    def answer(self, request: Request) -> Reply:
        reply: Reply = super().answer(request)  # type: ignore[misc]
        self.__dict__.setdefault("answers", []).append((request, reply))
        return reply


class Gemini(Answers, gemini_server.GeminiServer):
    pass


class OpenAI(Answers, openai_server.OpenAIServer):
    pass


class Stability(Answers, stability_server.StabilityServer):
    pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, HttpFake]]:
    # Four times the sides of a megapixel is 16 megapixels, and every check reads every one.
    monkeypatch.setitem(stability_server.SIZES, "1:1", (128, 128))
    monkeypatch.setitem(gemini_server._SIDES, "1K", 512)
    with ExitStack() as stack:
        fakes = {"gemini": Gemini(), "openai": OpenAI(), "stability": Stability()}
        yield {name: stack.enter_context(fake) for name, fake in fakes.items()}


def urls(servers: dict[str, HttpFake]) -> dict[str, str]:
    return {name: fake.url for name, fake in servers.items()}


def rows() -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = [
        *(
            {"prompt": f'a sign that says "OPEN {n}"', "subtask": "typography"}
            | {"expected_text": f"OPEN {n}"}
            for n in range(3)
        ),
        *({"prompt": f"a quick draft of kite {n}", "subtask": "fast"} for n in range(2)),
        # Smaller than anything that SD3.5 and the upscaler draw: it is reduced.
        {"prompt": "a quick draft", "subtask": "fast", "width": 256, "height": 256},
        {"prompt": "make it blue", "subtask": "edit", "upload": "uploads/cut-out-mug.png"},
    ]
    large = {"prompt": "a harbour at dawn", "subtask": "creative", "width": 1024, "height": 1024}
    return [{"width": 512, "height": 512} | row for row in asked] + [large]


def bill(servers: dict[str, HttpFake]) -> Counter[tuple[str, int]]:
    """Return what the providers charge by their own answers, in micro-dollars by model.

    Worked out from the wire and the providers' price lists, with nothing of the product.
    """
    owed: Counter[tuple[str, int]] = Counter()

    def owe(model: str, dollars: Fraction) -> None:
        owed[model, -(-dollars * 1_000_000 // 1)] += 1

    million = 1_000_000
    for request, reply in servers["gemini"].answers:  # type: ignore[attr-defined]
        if request.method == "POST":
            used = json.loads(reply.body)["usageMetadata"]
            drawn = used["candidatesTokensDetails"][0]["tokenCount"]
            text = used["candidatesTokenCount"] - drawn + used["thoughtsTokenCount"]
            # Text and pictures that are sent cost the same.
            dollars = Fraction("1.5") * used["promptTokenCount"] + Fraction("7.5") * text
            owe("gemini-nano-banana-2.1", (dollars + 30 * drawn) / million)
    for request, reply in servers["openai"].answers:  # type: ignore[attr-defined]
        if request.method == "POST":
            used = json.loads(reply.body)["usage"]
            dollars = Fraction(5 * used["input_tokens"] + 30 * used["output_tokens"], million)
            owe("gpt-image-2.5-flare", dollars)
    for request, _ in servers["stability"].answers:  # type: ignore[attr-defined]
        if request.method == "POST":
            draft = request.path.endswith("/sd3")
            name = "sd3.5-large-turbo" if draft else "stability-upscale-fast"
            owe(name, Fraction(4 if draft else 2, 100))
    return owed


def test_the_hosted_mix_is_judged_and_costs_what_its_providers_say(
    imagegate: Command, servers: dict[str, HttpFake], tmp_path: Path
) -> None:
    asked = rows()
    done = imagegate(
        "run",
        *("--candidate", hosted.HOSTED),
        *("--catalog", hosted.catalog(tmp_path / "catalog.yaml", urls(servers))),
        *("--inputs", hosted.log(tmp_path / "log.csv", asked)),
        *("--policy", hosted.policy(tmp_path / "policy.yaml", len(asked))),
        "--json",
        **KEYS,
    )
    assert done.code in (0, 1, 3), done.err
    result = done.json
    # Coloured squares are no signs: whatever else is found, this candidate is not promoted.
    assert result["verdict"] in ("HOLD", "ROLLBACK")
    assert result["images"] == len(asked)
    assert result["accounts"]["undelivered"] == 0, result["accounts"]

    with sqlite3.connect(imagegate.home / "state.db") as database:
        booked = Counter(
            database.execute(
                "SELECT model, booked_microusd FROM ledger WHERE arm = 'candidate'"
            ).fetchall()
        )
    assert booked == bill(servers)
    total = sum(cost * count for (_, cost), count in booked.items())
    assert result["cost_per_1k_usd"] == pytest.approx(total / len(asked) / 1000, abs=1e-6)
    table = pd.read_parquet(Path(result["evidence"]) / "tables" / "outcomes.parquet")
    failed = table[table["arm"] == "candidate"]["reasons"].map(json.loads).sum()
    assert "typography.text" in failed
    assert not [name for name in failed if name.startswith("geometry.")]
    # Each case of the fast route: one draft, one upscale, and the size that was asked for.
    assert {name for name, _ in booked} == {
        "gemini-nano-banana-2.1",
        "gpt-image-2.5-flare",
        "sd3.5-large-turbo",
        "stability-upscale-fast",
    }


def test_ends_within_the_freeze_and_licences_refuse_before_anything_is_sent(
    imagegate: Command, servers: dict[str, HttpFake], tmp_path: Path
) -> None:
    today = datetime.now(UTC).date()
    terms = {"id": "Research only", "uses": ["research"]}
    ending = {"id": "Trial", "uses": ["commercial"], "expires": str(today + timedelta(days=3))}
    file = hosted.catalog(
        tmp_path / "catalog.yaml",
        urls(servers),
        {
            "gemini-nano-banana-2.1": {
                "retires": str(today + timedelta(days=5)),
                "successor": "gemini-3-pro-image",
            },
            "sd3.5-large-turbo": {"licence": terms},
            "stability-upscale-fast": {"licence": ending},
        },
    )
    asked = (
        "run",
        *("--candidate", hosted.HOSTED, "--catalog", file),
        *("--inputs", hosted.log(tmp_path / "log.csv", rows())),
        *("--policy", hosted.policy(tmp_path / "policy.yaml", 8)),
    )
    refused = imagegate(*asked, **KEYS)
    assert refused.code == 2, refused.out
    said = " ".join(refused.err.split())
    assert f"it retires on {today + timedelta(days=5)} by the catalog, within the freeze" in said
    assert "its successor is 'gemini-3-pro-image'" in said
    assert "'Research only' does not allow 'commercial' use" in said
    assert f"'Trial' ends on {today + timedelta(days=3)}, within the freeze" in said
    assert not [r for fake in servers.values() for r in fake.requests if r.method == "POST"]

    keyless = imagegate(*asked)
    assert keyless.code == 2
    said = " ".join(keyless.err.split())
    for name in KEYS:
        assert f"set the environment variable {name}" in said
    assert "Traceback" not in refused.err + keyless.err
    with sqlite3.connect(imagegate.home / "state.db") as database:
        assert database.execute("SELECT count(*) FROM ledger").fetchone() == (0,)
