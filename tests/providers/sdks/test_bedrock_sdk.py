"""The fake Bedrock is true: Amazon's own client signs for it and reads its answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.aggregator_http import Reply
from tests.fakes.bedrock_server import (
    ACCESS,
    MODEL,
    REGION,
    SECRET,
    STATUSES,
    TOKEN,
    UPSCALER,
    BedrockServer,
    Script,
    failure,
)

boto3 = pytest.importorskip("boto3", reason="the SDK 'boto3' is not installed")
botocore_config = pytest.importorskip("botocore.config", reason="'botocore' is not installed")
errors = pytest.importorskip("botocore.exceptions", reason="'botocore' is not installed")

ASKED = {"prompt": "a sign", "seed": 7, "mode": "text-to-image", "aspect_ratio": "1:1"}


@pytest.fixture
def server() -> Iterator[BedrockServer]:
    with BedrockServer() as running:
        yield running
        while OPEN:
            OPEN.pop().close()


OPEN: list[Any] = []


def client(server: BedrockServer, service: str = "bedrock-runtime", **changed: Any) -> Any:
    keys = {
        "aws_access_key_id": ACCESS,
        "aws_secret_access_key": SECRET,
        "region_name": REGION,
    } | changed
    made = boto3.client(
        service,
        endpoint_url=server.url,
        config=botocore_config.Config(
            retries={"total_max_attempts": 1}, signature_version="v4", read_timeout=5
        ),
        **keys,
    )
    OPEN.append(made)
    return made


def invoke(asking: Any, model: str = MODEL, **given: Any) -> dict[str, Any]:
    answer = asking.invoke_model(
        modelId=model, contentType="application/json", body=json.dumps(ASKED | given)
    )
    read: dict[str, Any] = json.loads(answer["body"].read())
    return read


def test_an_invocation_brings_a_picture_with_its_seed(server: BedrockServer) -> None:
    read = invoke(client(server))
    assert base64.b64decode(read["images"][0]) == server.picture
    assert (read["seeds"], read["finish_reasons"]) == ([7], [None])
    assert server.seen[0].path == f"/model/{MODEL.replace(':', '%3A')}/invoke"


def test_edit_and_upscale_run(server: BedrockServer) -> None:
    image = base64.b64encode(server.picture).decode()
    assert invoke(client(server), mode="image-to-image", image=image, strength=0.7)["images"]
    assert invoke(client(server), UPSCALER, image=image)["images"]


def test_an_upscaler_is_reached_through_its_profile_only(server: BedrockServer) -> None:
    with pytest.raises(errors.ClientError, match="inference profile"):
        invoke(client(server), UPSCALER.removeprefix("us."))


@pytest.mark.parametrize(
    "reason",
    [
        "Filter reason: prompt",
        "Filter reason: output image",
        "Filter reason: input image",
        "Inference error",
    ],
)
def test_a_filtered_invocation_is_a_success_without_pictures(
    server: BedrockServer, reason: str
) -> None:
    server.script = Script(finish=reason)
    assert invoke(client(server)) == {"finish_reasons": [reason]}


def test_temporary_credentials_sign_their_token(server: BedrockServer) -> None:
    server.temporary = True
    assert invoke(client(server, aws_session_token=TOKEN))["images"]
    with pytest.raises(errors.ClientError, match="UnrecognizedClient"):
        invoke(client(server))


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("InvalidSignatureException", {"aws_secret_access_key": "another-secret"}),
        ("InvalidSignatureException", {"region_name": "eu-west-1"}),
        ("UnrecognizedClientException", {"aws_access_key_id": "AKIANOBODY0000000000"}),
    ],
)
def test_a_wrong_signature_is_refused(
    server: BedrockServer, code: str, changed: dict[str, str]
) -> None:
    with pytest.raises(errors.ClientError) as caught:
        invoke(client(server, **changed))
    assert caught.value.response["Error"]["Code"] == code


def test_a_changed_body_no_longer_fits_its_signature(server: BedrockServer) -> None:
    invoke(client(server))
    (signed,) = server.seen
    assert server.answer(signed).status == 200
    assert server.answer(replace(signed, body=signed.body + b" ")).status == 403
    assert server.answer(replace(signed, path=signed.path.replace("large", "small"))).status == 403
    late = signed.headers | {"x-amz-date": "20200101T000000Z"}
    assert server.answer(replace(signed, headers=late)).status == 403


@pytest.mark.parametrize(
    "code", [c for c in STATUSES if c != "MissingAuthenticationTokenException"]
)
def test_every_error_comes_as_the_clients_error(server: BedrockServer, code: str) -> None:
    server.faults["submit"] = failure(code, "no")
    with pytest.raises(errors.ClientError) as caught:
        invoke(client(server))
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == STATUSES[code]


def test_an_unknown_model_is_named(server: BedrockServer) -> None:
    with pytest.raises(errors.ClientError, match="identifier is invalid"):
        invoke(client(server), "stability.nothing-v1:0")


def test_the_control_plane_tells_the_life_of_a_model(server: BedrockServer) -> None:
    server.script = Script(lifecycle={"status": "LEGACY", "endOfLifeTime": 1798761600})
    found = client(server, "bedrock").get_foundation_model(modelIdentifier=MODEL)["modelDetails"]
    assert (found["modelId"], found["modelLifecycle"]["status"]) == (MODEL, "LEGACY")
    assert found["modelLifecycle"]["endOfLifeTime"].year == 2027
    with pytest.raises(errors.ClientError, match="not found"):
        client(server, "bedrock").get_foundation_model(modelIdentifier="stability.no-v1:0")


@pytest.mark.parametrize("wire", ["reset", "cut"])
def test_a_broken_wire_is_an_error(server: BedrockServer, wire: Any) -> None:
    server.faults["submit"] = Reply(200, b"{" + b" " * 5000, wire=wire)
    with pytest.raises(errors.HTTPClientError):
        invoke(client(server))
