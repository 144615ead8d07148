"""The fake fal queue is true: fal's own Python client gets on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.aggregator_http import Reply, as_json
from tests.fakes.fal_server import (
    APP,
    EDITOR,
    ERRORS,
    KEY,
    LOCKED,
    NO_FALLBACK,
    UPSCALER,
    FalServer,
    Script,
)

fal_client = pytest.importorskip("fal_client", reason="the SDK 'fal-client' is not installed")

ASKED = {"prompt": "a sign", "seed": 7}
TICK = 0.001


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FalServer]:
    with FalServer() as running:
        monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{running.url}/")
        # Its own repetitions, up to ten with growing waits, are not what is looked at here.
        monkeypatch.setattr(fal_client.client, "MAX_ATTEMPTS", 1)
        yield running


@pytest.fixture
def client() -> Iterator[Any]:
    made = fal_client.SyncClient(key=KEY)
    yield made
    made._client.close()


def test_a_request_goes_through_the_queue(server: FalServer, client: Any) -> None:
    handle = client.submit(APP, ASKED)
    states = [type(event).__name__ for event in handle.iter_events(interval=TICK)]
    assert states == ["Queued", "InProgress", "Completed"]
    result = handle.get(interval=TICK)
    assert result["seed"] == 7
    assert httpx.get(result["images"][0]["url"]).content == server.picture
    assert server.seen[0].headers["authorization"] == f"Key {KEY}"


def test_the_place_in_the_queue_the_logs_and_the_times_are_told(
    server: FalServer, client: Any
) -> None:
    handle = client.submit(APP, ASKED)
    first, second, last = handle.iter_events(with_logs=True, interval=TICK)
    assert first.position == 3
    assert second.logs[0]["message"] == "loading"
    assert last.metrics == {"inference_time": 0.75}
    assert last.error is None


def test_the_address_of_a_request_leaves_out_the_path_below_the_application(
    server: FalServer, client: Any
) -> None:
    handle = client.submit(APP, ASKED)
    built = fal_client.SyncRequestHandle.from_request_id(client._client, APP, handle.request_id)
    assert (built.status_url, built.cancel_url) == (handle.status_url, handle.cancel_url)
    assert "/dev/" not in handle.response_url


@pytest.mark.parametrize("app", [EDITOR, UPSCALER])
def test_edit_and_upscale_run(server: FalServer, client: Any, app: str) -> None:
    given = ASKED | {"image_urls": ["data:image/png;base64,AA=="]}
    result = client.subscribe(app, given, interval=TICK)
    assert ("image" in result) == (app == UPSCALER)


def test_a_request_is_canceled(server: FalServer, client: Any) -> None:
    server.script = Script(states=("IN_QUEUE",) * 1000)
    handle = client.submit(APP, ASKED)
    handle.cancel()
    assert server.canceled.is_set()
    done = handle.status()
    assert (done.error, done.error_type) == ("Request was cancelled", "client_cancelled")


def test_a_finished_request_cannot_be_canceled(server: FalServer, client: Any) -> None:
    handle = client.submit(APP, ASKED)
    handle.get(interval=TICK)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        handle.cancel()
    assert caught.value.status_code == 400


@pytest.mark.parametrize("header", NO_FALLBACK)
def test_a_fallback_serves_unless_it_is_switched_off(
    server: FalServer, client: Any, header: str
) -> None:
    server.script = Script(ill=True)
    assert client.subscribe(APP, ASKED, interval=TICK)["images"]
    assert server.counts.fallbacks == 1
    headers = {header: "true", "X-Fal-No-Retry": "1"}
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(APP, ASKED, interval=TICK, headers=headers)
    assert caught.value.error_type == "runner_disconnected"
    assert (server.counts.fallbacks, server.counts.retries) == (1, 5)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("request_timeout", 504),
        ("runner_scheduling_failure", 503),
        ("runner_disconnected", 503),
        ("runner_incomplete_response", 502),
        ("internal_error", 500),
    ],
)
def test_errors_of_the_machinery_have_a_type(
    server: FalServer, client: Any, kind: str, status: int
) -> None:
    server.script = Script(error=("It broke", kind))
    handle = client.submit(APP, ASKED)
    done = list(handle.iter_events(interval=TICK))[-1]
    assert (done.error, done.error_type) == ("It broke", kind)
    with pytest.raises(fal_client.FalClientHTTPError, match="It broke") as caught:
        handle.get(interval=TICK)
    assert (caught.value.status_code, caught.value.error_type) == (status, kind)


@pytest.mark.parametrize("name", ["refused", "invalid", "downstream"])
def test_errors_of_the_application_are_a_list(server: FalServer, client: Any, name: str) -> None:
    server.script = Script(result=getattr(ERRORS, name))
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        client.subscribe(APP, ASKED, interval=TICK)
    (detail,) = caught.value.message
    assert set(detail) >= {"loc", "msg", "type", "url"}
    again = caught.value.response_headers["x-fal-retryable"]
    assert again == ("true" if name == "downstream" else "false")


@pytest.mark.parametrize(
    ("status", "what"), [(401, "key"), (404, "app"), (403, "locked"), (429, "throttled")]
)
def test_refusals_at_the_door(server: FalServer, client: Any, status: int, what: str) -> None:
    asking = fal_client.SyncClient(key="wrong") if what == "key" else client
    if what == "locked":
        server.faults["submit"] = LOCKED
    if what == "throttled":
        server.faults["submit"] = as_json({"detail": "Too Many Requests"}, 429, retry_after="3")
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        asking.submit("fal-ai/nothing" if what == "app" else APP, ASKED)
    assert caught.value.status_code == status
    if what == "key":
        asking._client.close()


def test_a_torn_connection_is_a_transport_error(server: FalServer, client: Any) -> None:
    server.faults["submit"] = Reply(wire="reset")
    with pytest.raises(httpx.TransportError):
        client.submit(APP, ASKED)
