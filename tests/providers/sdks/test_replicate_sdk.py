"""The fake Replicate is true: Replicate's own Python client gets on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.aggregator_http import HTML, Reply
from tests.fakes.replicate_server import (
    KEY,
    MODEL,
    NO_CREDIT,
    OFFICIAL,
    THROTTLED,
    VERSION,
    ReplicateServer,
    Script,
)

replicate = pytest.importorskip("replicate", reason="the SDK 'replicate' is not installed")

ASKED = {"prompt": "a sign", "seed": 7}


@pytest.fixture
def server() -> Iterator[ReplicateServer]:
    with ReplicateServer() as running:
        yield running


OPEN: list[Any] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the clients of a test: the SDK has no way to."""
    yield
    while OPEN:
        OPEN.pop()._client.close()


def client(server: ReplicateServer, key: str = KEY) -> Any:
    made = replicate.Client(api_token=key, base_url=server.url)
    made.poll_interval = 0.001
    OPEN.append(made)
    return made


def test_a_prediction_runs_to_its_end(server: ReplicateServer) -> None:
    made = client(server).predictions.create(version=VERSION, input=ASKED)
    assert made.status == "starting"
    made.wait()
    assert (made.status, made.version, made.error) == ("succeeded", VERSION, None)
    assert made.metrics["predict_time"] == 1.25
    assert "Using seed: 7" in made.logs
    (url,) = made.output
    file = replicate.helpers.FileOutput(url, client(server))
    assert file.read() == server.picture
    states = [seen.path for seen in server.asked("GET")]
    assert len(states) == 4  # starting, processing, succeeded, and the picture


def test_the_blocking_call_has_the_output_while_it_says_processing(
    server: ReplicateServer,
) -> None:
    made = client(server).predictions.create(version=VERSION, input=ASKED, wait=5)
    assert server.seen[0].headers["prefer"] == "wait=5"
    assert made.status == "processing"
    assert made.output


def test_run_resolves_a_pinned_reference(server: ReplicateServer) -> None:
    output = client(server).run(f"{MODEL}:{VERSION}", ASKED, use_file_output=False)
    assert output == [f"{server.url}/asset/out-0.png"]


def test_a_wait_that_ends_before_the_prediction_is_polled_on(server: ReplicateServer) -> None:
    server.script = Script(blocking=False)
    output = client(server).run(f"{MODEL}:{VERSION}", ASKED, use_file_output=False)
    assert output == [f"{server.url}/asset/out-0.png"]


def test_an_official_model_hides_its_version(server: ReplicateServer) -> None:
    made = client(server).predictions.create(version=OFFICIAL, input=ASKED)
    assert (made.version, made.model) == ("hidden", OFFICIAL)


def test_models_and_versions_are_described(server: ReplicateServer) -> None:
    model = client(server).models.get(MODEL)
    assert (model.owner, model.latest_version.id) == (MODEL.split("/")[0], VERSION)
    assert model.versions.get(VERSION).id == VERSION


def test_a_prediction_is_canceled(server: ReplicateServer) -> None:
    server.script = Script(states=("starting",) * 1000)
    made = client(server).predictions.create(version=VERSION, input=ASKED)
    made.cancel()
    assert made.status == "canceled"
    made.wait()
    assert server.canceled.is_set()


def test_a_failed_prediction_is_a_model_error(server: ReplicateServer) -> None:
    server.script = Script(blocking=False, end="failed", error="NSFW content detected.")
    with pytest.raises(replicate.exceptions.ModelError, match="NSFW") as caught:
        client(server).run(f"{MODEL}:{VERSION}", ASKED)
    assert caught.value.prediction.status == "failed"


def test_an_aborted_prediction_is_outside_the_clients_model(server: ReplicateServer) -> None:
    """The HTTP reference has the state ``aborted``; client 1.0.7 does not know it."""
    server.script = Script(states=(), end="aborted")
    made = client(server).predictions.create(version=VERSION, input=ASKED)
    with pytest.raises(ValueError, match="status"):
        made.reload()


@pytest.mark.parametrize(
    ("status", "what", "says"),
    [
        (401, "key", "authentication token"),
        (422, "version", "does not exist"),
        (422, "input", "prompt is required"),
        (402, "credit", "insufficient credit"),
        (429, "throttled", "resets in"),
        (404, "model", "could not be found"),
    ],
)
def test_every_error_comes_as_the_clients_error(
    server: ReplicateServer, status: int, what: str, says: str
) -> None:
    asking = client(server, "r8_wrong" if what == "key" else KEY)
    if what in ("credit", "throttled"):
        server.faults["submit"] = NO_CREDIT if what == "credit" else THROTTLED
    version = "0" * 64 if what == "version" else VERSION
    given = {} if what == "input" else ASKED
    with pytest.raises(replicate.exceptions.ReplicateError) as caught:
        asking.models.get("nobody/nothing") if what == "model" else asking.predictions.create(
            version=version, input=given
        )
    assert caught.value.status == status
    assert says in caught.value.detail


def test_html_in_place_of_json_is_no_answer(server: ReplicateServer) -> None:
    server.faults["submit"] = HTML
    with pytest.raises(ValueError, match="Expecting value"):
        client(server).predictions.create(version=VERSION, input=ASKED)


def test_a_torn_connection_is_a_transport_error(server: ReplicateServer) -> None:
    server.faults["submit"] = Reply(wire="reset")
    with pytest.raises(httpx.TransportError):
        client(server).predictions.create(version=VERSION, input=ASKED)
