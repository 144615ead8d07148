"""CPU of the checks on one picture, side by side: compare the rows, not the clock."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.checks.suite import check_picture
from tasks.providers.embedded.process import EmbeddedServer

SIDES = (512, 1024)
TEXT = "Summer Sale"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The same prompt from the embedded server in both sizes."""
    log: Path = tmp_path_factory.mktemp("bench") / "log.jsonl"
    found = {}
    with EmbeddedServer(log=log) as server, httpx.Client(timeout=60, trust_env=False) as client:
        for side in SIDES:
            answer = client.post(
                f"{server.base_url}/generate",
                json={
                    "prompt": f'Shop window with "{TEXT}"',
                    "size": f"{side}x{side}",
                    "model": "folio-2",
                    "seed": 1,
                    "brand": "northwind",
                    "locale": "en",
                    "safety": "on",
                    "params": {},
                },
            )
            answer.raise_for_status()
            found[side] = answer.content
    return found


@pytest.mark.parametrize("side", SIDES)
def bench_decode_alone(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    assert benchmark(decode, pictures[side], Expected()).picture is not None


@pytest.mark.parametrize("side", SIDES)
def bench_checks_without_text(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    report = benchmark(check_picture, pictures[side], Expected(width=side, height=side))
    assert all(f.verdict != "fault" for f in report.findings)


@pytest.mark.parametrize("side", SIDES)
def bench_all_checks(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    asked = Expected(intended_text=(TEXT,), width=side, height=side, brand="northwind")
    report = benchmark(check_picture, pictures[side], asked)
    assert not [f for f in report.findings if f.verdict in ("fail", "fault")]


@pytest.mark.parametrize("side", SIDES)
def bench_pillow_load(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    """The yardstick: what Pillow alone needs to load the file."""
    from PIL import Image

    def load() -> tuple[int, int]:
        with Image.open(io.BytesIO(pictures[side])) as image:  # noqa: TID251 - our own picture
            image.load()
            return image.size

    benchmark.group = f"{side} px"
    assert benchmark(load) == (side, side)
