"""Whatever an aggregator sends becomes a meaning or a job, read without stumbling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.mix.catalog import Model, Price
from tasks.providers.answers import Answer, Meaning
from tasks.providers.base import Job
from tasks.providers.bfl import BflProvider
from tasks.providers.fal import FalProvider
from tasks.providers.http import HttpAdapter
from tasks.providers.replicate import ReplicateProvider
from tasks.records import FailureClass
from tests.fakes.aggregator_http import picture
from tests.fakes.contract import a_model, a_request

KEY = SecretStr("AKIAHOSTILE000:hostile-secret-0123456789")
VERSION = "5f24084160c9089501c1b3545d9be3c27883ae2239b6f412990e82d4a6210f8f"
_WORDS = (
    *("id", "urls", "get", "cancel", "status", "error", "error_type", "logs", "metrics"),
    *("predict_time", "output", "version", "model", "title", "detail", "request_id"),
    *("status_url", "response_url", "cancel_url", "images", "image", "url", "seed", "loc", "msg"),
    *("type", "has_nsfw_concepts", "polling_url", "cost", "output_mp", "result", "sample"),
    *("details", "finish_reasons", "seeds", "message", "retry_after"),
)
_TEXTS = (
    "succeeded",
    "failed",
    "processing",
    "COMPLETED",
    "IN_QUEUE",
    "Ready",
    "Pending",
    "Error",
    "Request Moderated",
    "Filter reason: prompt",
    "content_policy_violation",
    "NSFW",
    "Using seed: 9",
    VERSION,
    "https://queue.fal.run/fal-ai/flux/requests/1",
    "https://api.bfl.ai/v1/get_result?id=1",
    "https://api.replicate.com/v1/predictions/1",
    "https://[bad",
    "http://169.254.169.254/",
    "data:image/png;base64,%%%",
    "\ud800",
)
_LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(_TEXTS)
    | st.text(max_size=20)
)
_VALUE = st.recursive(
    _LEAF,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=6), inner, max_size=8)
    ),
    max_leaves=30,
)
_ENTRY = st.fixed_dictionaries({}, optional=dict.fromkeys(("loc", "msg", "type", "url"), _VALUE))
#: Shaped like answers of the four, with anything in every place.
_PLACES: dict[str, st.SearchStrategy[Any]] = {
    "id": st.just("t-1") | _VALUE,
    "request_id": st.just("r-1") | _VALUE,
    "status": st.sampled_from(_TEXTS) | _VALUE,
    "error": st.sampled_from(_TEXTS) | _VALUE,
    "detail": st.lists(_ENTRY, max_size=3) | _VALUE,
    "images": st.lists(_ENTRY, max_size=3) | _VALUE,
    "output": st.sampled_from(_TEXTS) | _VALUE,
    "result": st.fixed_dictionaries({"sample": st.sampled_from(_TEXTS) | _VALUE}) | _VALUE,
}
_OTHERS = [word for word in _WORDS if word not in _PLACES]
_SHAPED = st.fixed_dictionaries(
    _PLACES, optional=dict.fromkeys(_OTHERS, st.sampled_from(_TEXTS) | _VALUE)
)
_BODY = st.binary(max_size=60) | (_SHAPED | _VALUE).map(lambda value: json.dumps(value).encode())
_HEADERS = st.dictionaries(
    st.sampled_from(
        ("x-fal-error-type", "x-fal-retryable", "x-amzn-errortype", "retry-after", "content-type")
    ),
    st.sampled_from(("true", "false", "runner_disconnected", "a:b#c:", "ThrottlingException", "x")),
    max_size=3,
)
_BROKEN = st.none() | st.just((FailureClass.TRANSPORT, "cut"))


def _model(protocol: str, **more: Any) -> Model:
    price = Price(usd=0.03, per="megapixel", source="test", date=date(2026, 1, 1))
    return a_model(protocol=protocol, price=price, **more)


def _adapters() -> list[Any]:
    made: list[tuple[HttpAdapter, Model, Mapping[str, Any]]] = [
        (
            ReplicateProvider("https://api.replicate.com", KEY),
            _model("replicate", id="a/b", version=VERSION, pin="immutable"),
            {},
        ),
        (
            FalProvider("https://queue.fal.run", KEY),
            _model("fal", version="fal-ai/flux/dev"),
            {"response": "https://queue.fal.run/fal-ai/flux/requests/1", "fetch": False},
        ),
        (
            FalProvider("https://queue.fal.run", KEY),
            _model("fal", version="fal-ai/flux/dev"),
            {"response": "https://queue.fal.run/fal-ai/flux/requests/1", "fetch": True},
        ),
        (BflProvider("https://api.bfl.ai", KEY), _model("bfl", version="flux-2-pro"), {"cost": 3}),
    ]
    return [pytest.param(*entry, id=f"{entry[1].protocol}-{len(entry[2])}") for entry in made]


@pytest.mark.parametrize(("adapter", "model", "data"), _adapters())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    status=st.sampled_from((200, 201, 202, 302, 400, 402, 403, 404, 422, 429, 500, 503, 999)),
    body=_BODY,
    headers=_HEADERS,
    broken=_BROKEN,
    operation=st.sampled_from(("generate", "edit", "upscale")),
)
def test_any_answer_has_a_meaning(
    adapter: HttpAdapter,
    model: Model,
    data: Mapping[str, Any],
    status: int,
    body: bytes,
    headers: dict[str, str],
    broken: Any,
    operation: str,
) -> None:
    request = a_request(model, operation=operation, image=picture(16))
    answer = Answer(status, headers, body, broken)
    job = Job(id="1", poll="/x", data=data)
    for told in (adapter.read(answer, request), adapter.read_job(answer, request, job)):
        assert isinstance(told, Meaning | Job)
        if isinstance(told, Meaning):
            assert told.cost_microusd >= 0
            assert (told.image is None and told.asset is None) or told.failure in (
                None,
                FailureClass.COST_UNKNOWN,
            )
        else:
            assert isinstance(told.poll, str)
    assert adapter.passing(answer, job) in (True, False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    status=st.sampled_from((200, 201, 400, 403, 404, 408, 424, 429, 500)),
    body=_BODY,
    headers=_HEADERS,
    broken=_BROKEN,
)
def test_any_answer_of_bedrock_has_a_meaning(
    status: int, body: bytes, headers: dict[str, str], broken: Any
) -> None:
    pytest.importorskip("botocore", reason="the extra 'bedrock' is not installed")
    from tasks.providers.bedrock import BedrockProvider

    adapter = BedrockProvider("https://bedrock-runtime.us-west-2.amazonaws.com", KEY)
    request = a_request(_model("bedrock", version="stability.sd3-5-large-v1:0", pin="dated"))
    told = adapter.read(Answer(status, headers, body, broken), request)
    assert isinstance(told, Meaning)
    assert told.cost_microusd >= 0


_JOB = "https://queue.fal.run/fal-ai/flux/requests/1"
_GET = "https://api.replicate.com/v1/predictions/1"
#: Answers as they should be, one for each place that is read.
_GOOD: dict[str, list[tuple[int, Any]]] = {
    "replicate": [
        (
            201,
            {
                "id": "1",
                "version": VERSION,
                "model": "a/b",
                "status": status,
                "output": ["https://replicate.delivery/x.png"],
                "error": "NSFW",
                "logs": "Using seed: 7",
                "metrics": {"predict_time": 1.5},
                "urls": {"get": _GET, "cancel": f"{_GET}/cancel"},
            },
        )
        for status in ("processing", "succeeded", "failed", "aborted")
    ]
    + [(429, {"title": "T", "detail": "resets in ~7s", "retry_after": 7, "status": 429})],
    "fal": [
        (
            200,
            {
                "request_id": "1",
                "status": "IN_QUEUE",
                "status_url": f"{_JOB}/status",
                "response_url": _JOB,
                "cancel_url": f"{_JOB}/cancel",
            },
        ),
        (200, {"status": "COMPLETED", "metrics": {"inference_time": 1}, "error_type": "x"}),
        (200, {"status": "COMPLETED", "metrics": {"inference_time": 1}}),
        (
            200,
            {
                "images": [{"url": "https://v3.fal.media/x.png", "content_type": "image/png"}],
                "seed": 7,
                "has_nsfw_concepts": [False],
            },
        ),
        (200, {"image": {"url": "https://v3.fal.media/x.png"}}),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "t"}]}),
        (503, {"detail": "no", "error_type": "runner_disconnected"}),
    ],
    "bfl": [
        (
            200,
            {
                "id": "1",
                "polling_url": "https://api.bfl.ai/v1/get_result?id=1",
                "cost": 3,
                "output_mp": 1.05,
            },
        ),
        (200, {"status": "Ready", "result": {"sample": "https://x.bfl.ai/x.png", "seed": 7}}),
        (200, {"status": "Content Moderated", "details": {"Moderation Reasons": ["a"]}}),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "t"}]}),
    ],
    "bedrock": [
        (200, {"images": ["UE5H"], "seeds": [7], "finish_reasons": [None]}),
        (200, {"images": [], "seeds": [], "finish_reasons": ["Filter reason: prompt"]}),
        (400, {"message": "no"}),
    ],
}
_ODD = (
    *(None, True, 0, -1, 10**400, 1.5, float("inf"), "", "x", "\ud800", "https://[bad"),
    *([], [None], [[]], [5], {}, {"x": 1}, {"url": 5}, {"loc": 5}),
)


def _bent(value: Any) -> list[Any]:
    """Return an answer with each of its places put wrong in turn, the whole of it too."""
    bent: list[Any] = list(_ODD)
    if isinstance(value, dict):
        bent += [{k: v for k, v in value.items() if k != name} for name in value]
        bent += [value | {name: odd} for name in value for odd in _bent(value[name])]
    elif isinstance(value, list):
        places = range(len(value))
        bent += [[*value[:n], odd, *value[n + 1 :]] for n in places for odd in _bent(value[n])]
    return bent


def _bedrock() -> Any:
    pytest.importorskip("botocore", reason="the extra 'bedrock' is not installed")
    from tasks.providers.bedrock import BedrockProvider

    adapter = BedrockProvider("https://bedrock-runtime.us-west-2.amazonaws.com", KEY)
    return adapter, _model("bedrock", version="stability.sd3-5-large-v1:0", pin="dated"), {}


@pytest.mark.parametrize("protocol", list(_GOOD))
def test_every_place_of_an_answer_may_be_wrong(protocol: str) -> None:
    adapters = [param.values for param in _adapters()] if protocol != "bedrock" else [_bedrock()]
    count = 0
    for adapter, model, data in adapters:
        if model.protocol != protocol:
            continue
        request, job = a_request(model), Job(id="1", poll="/x", data=data)
        for status, good in _GOOD[protocol]:
            for value in (good, *_bent(good)):
                answer = Answer(status, {}, json.dumps(value).encode())
                told = [adapter.read(answer, request)]
                if protocol != "bedrock":
                    told.append(adapter.read_job(answer, request, job))
                assert all(isinstance(each, Meaning | Job) for each in told)
                count += 1
    assert count > 100
