"""What hosted models are asked and how their outputs are read, apart from any protocol."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.providers import hosted
from tasks.providers.base import CannotAsk, GenerationRequest
from tests.fakes.aggregator_http import picture
from tests.fakes.contract import a_model, a_request

IMAGE = picture(64)


def request(options: dict[str, Any] | None = None, **fields: Any) -> GenerationRequest:
    return a_request(a_model(protocol="fal", version="a/b", options=options or {}), **fields)


def given(options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    asked = request(options, **fields)
    return hosted.fields(asked, "image", hosted.capabilities(asked.model, "alias"))


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("https://x/1", "https://x/1"),
        (["https://x/1", "https://x/2"], "https://x/2"),
        ({"images": [{"url": "https://x/1"}, {"url": "https://x/2"}]}, "https://x/2"),
        ({"image": {"url": "https://x/1"}, "seed": 3}, "https://x/1"),
        ([], None),
        ({}, None),
        ({"text": "no"}, None),
        ([[[[["deep"]]]]], ["deep"]),
    ],
)
def test_the_place_of_a_picture_is_that_of_the_last_one(output: object, place: object) -> None:
    assert hosted.place_of(output) == place


@pytest.mark.parametrize(
    ("seed", "asked"),
    [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**40 + 5, 5), (-1, 2**31 - 1)],
)
def test_seeds_fit_into_31_bits(seed: int, asked: int) -> None:
    assert hosted.seed_for(seed) == asked
    assert hosted.seed_asked(request(seed=seed)) == asked


def test_a_model_without_a_seed_is_asked_for_none() -> None:
    assert hosted.seed_asked(request({"seed": None})) is None
    assert "seed" not in given({"seed": None})
    upscale = {"operation": "upscale", "image": IMAGE, "width": 128, "height": 128}
    assert hosted.seed_asked(request(**upscale)) is None
    assert hosted.seed_asked(request({"upscale_by_prompt": True}, **upscale)) == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"width": 1000, "height": 504}),
        ({"size": "image_size", "multiple_of": 16}, {"image_size": {"width": 1008, "height": 512}}),
        ({"size": "aspect_ratio"}, {"aspect_ratio": "16:9"}),
        ({"size": "aspect_ratio", "aspects": ["2:1"]}, {"aspect_ratio": "2:1"}),
        ({"size": "none"}, {}),
        ({"most_side": 512}, {"width": 512, "height": 504}),
    ],
)
def test_a_size_goes_as_the_model_wants_it(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    sent = given(options, width=1000, height=500)
    assert {k: v for k, v in sent.items() if k not in ("prompt", "seed")} == expected


@pytest.mark.parametrize(
    ("options", "width", "expected"),
    [
        ({}, 256, {"scale": 4.0}),
        ({}, 128, {"scale": 2.0}),
        ({}, 32, {"scale": 1.0}),
        ({"scale": "upscaling_factor", "most_scale": 8}, 512, {"upscaling_factor": 8.0}),
        ({"scale": None, "most_scale": 4}, 256, {}),
    ],
)
def test_an_upscale_is_told_its_factor(
    options: dict[str, Any], width: int, expected: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {"operation": "upscale", "image": IMAGE}
    sent = given(options, width=width, height=width, **fields)
    assert sent.pop("image").startswith("data:image/png;base64,")
    assert sent == expected


def test_an_upscale_beyond_the_factor_is_not_sent() -> None:
    with pytest.raises(CannotAsk, match="at most 4 times, which makes 256x256"):
        given({}, operation="upscale", image=IMAGE, width=512, height=512)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompts": "x"}, "unknown field"),
        ({"size": "large"}, "size"),
        ({"prompt": "two words"}, "prompt"),
        ({"inputs": {"prompt": "x"}}, "'inputs' sets 'prompt'"),
        ({"aspects": ["wide"]}, "aspects"),
        ({"most_scale": 1}, "most_scale"),
    ],
)
def test_options_that_are_none_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        hosted.inputs_of(request(options).model)
    assert "model 'm', options" in str(caught.value)
    can = hosted.capabilities(request().model, "alias")
    with pytest.raises(CannotAsk, match=says):
        hosted.fields(request(options), "image", can)


def test_megapixels_count_the_sent_picture_only_where_it_is_paid_for() -> None:
    edit = {"operation": "edit", "image": picture(1100)}
    assert hosted.megapixels(request(**edit), (1024, 1024)) is None
    assert hosted.megapixels(request({"bill_image": True}, **edit), (1024, 1024)) == 3.0
    assert hosted.megapixels(request({"bill_image": True}), (1024, 1024)) is None


@pytest.mark.parametrize(
    ("value", "types", "words"),
    [
        ({"detail": "no"}, set(), "no"),
        ({"detail": [{"loc": ["body", 3], "msg": "m", "type": "t"}]}, {"t"}, "body.3: m"),
        ({"detail": [{"loc": 5, "msg": 6, "type": 7}, "x", None]}, set(), "6"),
        ({"detail": [{"msg": str(n)} for n in range(9)]}, set(), "0; 1; 2; 3; 4"),
        ({"detail": 5}, set(), ""),
        ([], set(), ""),
    ],
)
def test_details_of_an_error_are_read(value: object, types: set[str], words: str) -> None:
    assert hosted.details_of(value) == (types, words)
