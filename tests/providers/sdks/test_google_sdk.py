"""The fake of Google's image models is true: the official SDK works with it and raises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes import gemini_server as fake
from tests.fakes.http_fake import Bend, decoded, gateway_page, page, picture, reset, truncated

genai = pytest.importorskip(
    "google.genai", reason="the SDK of Google is not installed (extra: dev)"
)
types, errors = genai.types, genai.errors

MODEL = "gemini-nano-banana-2.1"
IMAGEN = "imagen-4.0-generate-001"

Sdk = Callable[..., Any]


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    """Makes clients of a server, each kind once: making one takes half a second."""
    from google.oauth2.credentials import Credentials

    made: dict[tuple[str, bool], Any] = {}
    with ExitStack() as clients:

        def make(server: fake.GeminiServer, *, vertex: bool = False, **changes: Any) -> Any:
            if not changes and (server.url, vertex) in made:
                return made[server.url, vertex]
            where = types.HttpOptions(base_url=server.url, timeout=10_000)
            options = {"api_key": fake.KEY, "http_options": where}
            if vertex:
                options = {
                    "vertexai": True,
                    "project": "p-1",
                    "location": "us-central1",
                    "credentials": Credentials(fake.TOKEN),
                    "http_options": where,
                }
            client = clients.enter_context(genai.Client(**(options | changes)))
            if not changes:
                made[server.url, vertex] = client
            return client

        yield make


@pytest.fixture(scope="module")
def running() -> Iterator[fake.GeminiServer]:
    with fake.GeminiServer() as server:
        yield server


@pytest.fixture
def server(running: fake.GeminiServer) -> fake.GeminiServer:
    running.requests.clear()
    return running


def config(**fields: Any) -> Any:
    image = types.ImageConfig(aspect_ratio="16:9", image_size="1K")
    modalities = ["TEXT", "IMAGE"]
    return types.GenerateContentConfig(
        **({"response_modalities": modalities, "image_config": image, "seed": 7} | fields)
    )


def ask(client: Any, contents: Any = "a red kite", **fields: Any) -> Any:
    return client.models.generate_content(model=MODEL, contents=contents, config=config(**fields))


def imagine(client: Any, **fields: Any) -> Any:
    """Ask for a picture of Imagen; the SDK warns that the method goes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", genai._common.ExperimentalWarning)
        return client.models.generate_images(
            model=IMAGEN, prompt="a red kite", config=types.GenerateImagesConfig(**fields)
        )


@pytest.mark.parametrize("vertex", [False, True], ids=["gemini-api", "vertex"])
def test_the_sdk_gets_a_picture_and_its_tokens(
    sdk: Sdk, server: fake.GeminiServer, vertex: bool
) -> None:
    got = ask(sdk(server, vertex=vertex))
    (candidate,) = got.candidates
    text, image = candidate.content.parts
    assert text.text
    pixels = decoded(image.inline_data.data)
    assert pixels is not None
    assert pixels.shape[:2] == (768, 1376)
    assert candidate.finish_reason is types.FinishReason.STOP
    usage = got.usage_metadata
    (details,) = usage.candidates_tokens_details
    assert (details.modality, details.token_count) == (types.MediaModality.IMAGE, 1120)
    counted = usage.prompt_token_count + usage.candidates_token_count + usage.thoughts_token_count
    assert usage.total_token_count == counted
    assert got.model_version == MODEL
    assert got.response_id
    request = server.requests[0]
    version = "v1beta1/projects/p-1/locations/us-central1/publishers/google" if vertex else "v1"
    assert request.path == f"/{version}/models/{MODEL}:generateContent"
    assert ("authorization" in request.headers) is vertex
    assert ("x-goog-api-key" in request.headers) is not vertex


def test_the_sdk_edits_a_picture(sdk: Sdk, server: fake.GeminiServer) -> None:
    upload = types.Part.from_bytes(data=picture(64, 64, "upload"), mime_type="image/png")
    got = ask(sdk(server), [upload, "paint it green"], response_modalities=["IMAGE"])
    (part,) = got.candidates[0].content.parts
    assert decoded(part.inline_data.data) is not None
    assert {d.modality.value: d.token_count for d in got.usage_metadata.prompt_tokens_details} == {
        "TEXT": 4,
        "IMAGE": 258,
    }


def test_the_sdk_lists_the_models(sdk: Sdk, server: fake.GeminiServer) -> None:
    names = {model.name: model.version for model in sdk(server).models.list()}
    assert sdk(server).models.get(model=MODEL).name == f"models/{MODEL}"
    vertex = sdk(server, vertex=True).models.get(model=MODEL)
    assert names[f"models/{MODEL}"] == "2.1"
    assert names[f"models/{IMAGEN}"] == "001"
    assert vertex.name == f"publishers/google/models/{MODEL}"


#: Failure, the SDK's exception, status code and status word.
RAISED = [
    ("bad_key", "ClientError", 400, "INVALID_ARGUMENT"),
    ("location", "ClientError", 400, "FAILED_PRECONDITION"),
    ("bad_argument", "ClientError", 400, "INVALID_ARGUMENT"),
    ("token_expired", "ClientError", 401, "UNAUTHENTICATED"),
    ("forbidden", "ClientError", 403, "PERMISSION_DENIED"),
    ("retired", "ClientError", 404, "NOT_FOUND"),
    ("minute", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("daily", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("limit_zero", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("capacity", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("plain_429", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("in_a_list", "ClientError", 429, "RESOURCE_EXHAUSTED"),
    ("cancelled", "ClientError", 499, "CANCELLED"),
    ("internal", "ServerError", 500, "INTERNAL"),
    ("overloaded", "ServerError", 503, "UNAVAILABLE"),
    ("deadline", "ServerError", 504, "DEADLINE_EXCEEDED"),
]


@pytest.mark.parametrize(
    ("name", "exception", "code", "status"), RAISED, ids=[row[0] for row in RAISED]
)
def test_the_sdk_raises_each_failure(
    sdk: Sdk, server: fake.GeminiServer, name: str, exception: str, code: int, status: str
) -> None:
    server.bend(":generateContent", fake.FAILURES[name])
    with pytest.raises(getattr(errors, exception)) as caught:
        ask(sdk(server))
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.message


def test_every_failure_of_the_fake_is_asked_of_the_sdk() -> None:
    assert {row[0] for row in RAISED} == set(fake.FAILURES)


@pytest.mark.parametrize(
    "reason", sorted({r.value for r in types.FinishReason} - {"FINISH_REASON_UNSPECIFIED", "STOP"})
)
def test_the_sdk_reads_every_reason_to_end(
    sdk: Sdk, server: fake.GeminiServer, reason: str
) -> None:
    server.bend(":generateContent", fake.finished(reason, "because"))
    # For the Gemini API the SDK drops the message, though the service sends one there too.
    (candidate,) = ask(sdk(server, vertex=True)).candidates
    assert candidate.finish_reason is types.FinishReason(reason)
    assert candidate.finish_message == "because"
    assert candidate.content is None


def test_the_sdk_reads_a_blocked_prompt(sdk: Sdk, server: fake.GeminiServer) -> None:
    server.bend(":generateContent", fake.blocked("PROHIBITED_CONTENT"))
    got = ask(sdk(server))
    assert got.candidates is None
    assert got.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT


def test_the_sdk_tells_thoughts_from_the_last_picture(sdk: Sdk, server: fake.GeminiServer) -> None:
    draft, last = picture(8, 8, "draft"), picture(8, 8, "last")
    server.bend(
        ":generateContent",
        fake.parts(fake.inline(draft, thought=True), {"text": "so"}, fake.inline(last)),
    )
    got = ask(sdk(server)).candidates[0].content.parts
    assert [part.thought for part in got] == [True, None, None]
    assert got[-1].inline_data.data == last


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_config": {"aspect_ratio": "5:3"}}, "aspect_ratio"),
        ({"image_config": {"image_size": "512"}}, "Image size 512"),
    ],
)
def test_the_fake_checks_a_request_as_google_does(
    sdk: Sdk, server: fake.GeminiServer, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.ClientError, match=message):
        ask(sdk(server), **fields)


def test_the_fake_knows_its_keys(sdk: Sdk, server: fake.GeminiServer) -> None:
    from google.oauth2.credentials import Credentials

    with pytest.raises(errors.ClientError, match="API key not valid"):
        ask(sdk(server, api_key="AIza-other"))
    with pytest.raises(errors.ClientError, match="OAuth 2"):
        ask(sdk(server, vertex=True, credentials=Credentials("ya29.old")))


def test_imagen_gives_as_many_pictures_as_asked(sdk: Sdk, server: fake.GeminiServer) -> None:
    got = imagine(
        sdk(server, vertex=True),
        number_of_images=2,
        aspect_ratio="16:9",
        seed=7,
        add_watermark=False,
        include_rai_reason=True,
    )
    assert len(got.generated_images) == 2
    for each in got.generated_images:
        pixels = decoded(each.image.image_bytes)
        assert pixels is not None
        assert pixels.shape[:2] == (768, 1408)
        assert each.image.mime_type == "image/png"


def test_imagen_filters_under_200_and_refuses_under_400(
    sdk: Sdk, server: fake.GeminiServer
) -> None:
    client = sdk(server, vertex=True)
    server.bend(":predict", fake.filtered)
    (only,) = imagine(client).generated_images
    assert only.rai_filtered_reason.startswith("Unable to show generated images")
    assert only.image is None or only.image.image_bytes is None
    for name in ("refused", "refused_output"):
        server.bend(":predict", fake.IMAGEN_FAILURES[name])
        with pytest.raises(errors.ClientError) as caught:
            imagine(client)
        assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")


def test_imagen_does_not_seed_a_watermarked_picture(sdk: Sdk, server: fake.GeminiServer) -> None:
    with pytest.raises(errors.ClientError, match="watermark"):
        imagine(sdk(server, vertex=True), seed=7)


def test_imagen_is_gone_since_its_last_day(sdk: Sdk) -> None:
    with fake.GeminiServer(imagen=False) as server:
        with pytest.raises(errors.ClientError) as caught:
            imagine(sdk(server, vertex=True))
        names = [model.name for model in sdk(server).models.list()]
    assert caught.value.code == 404
    assert f"models/{IMAGEN}" not in names


@pytest.mark.parametrize(
    ("bend", "exception"),
    [(reset, "ReadError"), (truncated, "RemoteProtocolError"), (gateway_page, "ServerError")],
    ids=["reset", "truncated", "gateway"],
)
def test_the_sdk_sees_the_faults_of_the_wire(
    sdk: Sdk, server: fake.GeminiServer, bend: Bend, exception: str
) -> None:
    server.bend(":generateContent", bend)
    with pytest.raises(Exception) as caught:
        ask(sdk(server))
    assert type(caught.value).__name__ == exception


def test_a_page_under_200_breaks_the_sdk_itself(sdk: Sdk, server: fake.GeminiServer) -> None:
    server.bend(":generateContent", page)
    with pytest.raises((errors.UnknownApiResponseError, ValueError)):
        ask(sdk(server))
