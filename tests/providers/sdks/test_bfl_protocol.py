"""The fake Black Forest Labs keeps to the documentation; they publish no Python client.

The loop below is the one of their guide (https://docs.bfl.ai/quick_start/generating_images).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.bfl_server import BUSY, EXPIRED, KEY, NO_CREDIT, BflServer, Script

ASKED = {"prompt": "a sign", "seed": 7, "width": 1024, "height": 1024}


@pytest.fixture
def server() -> Iterator[BflServer]:
    with BflServer() as running:
        yield running


def run(server: BflServer, model: str = "flux-2-pro", **changed: Any) -> dict[str, Any]:
    with httpx.Client(headers={"x-key": KEY, "accept": "application/json"}) as client:
        made = client.post(f"{server.url}/v1/{model}", json=ASKED | changed).raise_for_status()
        read: dict[str, Any] = {"status": "Pending"}
        while read["status"] == "Pending":
            read = client.get(made.json()["polling_url"]).raise_for_status().json()
        return made.json() | read


def test_a_task_runs_to_its_picture(server: BflServer) -> None:
    read = run(server)
    assert (read["status"], read["result"]["seed"]) == ("Ready", 7)
    assert httpx.get(read["result"]["sample"]).content == server.picture
    assert len(server.asked("GET")) == 4


def test_the_price_is_told_in_credits_with_the_megapixels(server: BflServer) -> None:
    assert (run(server)["cost"], run(server, width=2048)["cost"]) == (4.5, 6.0)
    assert run(server, width=2048)["output_mp"] == 2.1


@pytest.mark.parametrize("end", ["Request Moderated", "Content Moderated", "Error"])
def test_other_ends_have_no_result(server: BflServer, end: str) -> None:
    server.script = Script(end=end, details={"Moderation Reasons": ["Safety Filter"]})
    read = run(server)
    assert (read["status"], read["result"]) == (end, None)


def test_an_unknown_task_is_not_found(server: BflServer) -> None:
    answer = httpx.get(f"{server.url}/v1/get_result?id=nobody", headers={"x-key": KEY})
    assert (answer.status_code, answer.json()["status"]) == (404, "Task not found")


@pytest.mark.parametrize(
    ("status", "what"),
    [(403, "key"), (402, "credit"), (422, "size"), (429, "busy"), (404, "model")],
)
def test_refusals_at_the_door(server: BflServer, status: int, what: str) -> None:
    if what in ("credit", "busy"):
        server.faults["submit"] = NO_CREDIT if what == "credit" else BUSY
    answer = httpx.post(
        f"{server.url}/v1/{'flux-0' if what == 'model' else 'flux-2-pro'}",
        json=ASKED | ({"width": 1023} if what == "size" else {}),
        headers={"x-key": "wrong" if what == "key" else KEY},
    )
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_an_asset_goes_after_its_time(server: BflServer) -> None:
    url = run(server)["result"]["sample"]
    server.faults["asset"] = EXPIRED
    assert httpx.get(url).status_code == 403
