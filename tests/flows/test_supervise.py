from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flows.supervise import supervises, untrue
from tests.checks.drawing import encoded, scene
from tests.harness.test_fallbacks import chained, upscaled

SMALL = scene(256, 192)


def enlarged(picture: Image.Image, times: int = 2) -> Image.Image:
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.BICUBIC)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_a_true_upscale_is_served() -> None:
    assert untrue(encoded(SMALL), png(enlarged(SMALL))) == ""


@pytest.mark.parametrize("kind", ["another", "part", "broken", "shape"])
def test_one_that_is_not_is_told_with_the_reason(kind: str) -> None:
    large = enlarged(SMALL)
    if kind == "another":
        data = png(enlarged(scene(256, 192, seed=5)))
    elif kind == "part":
        pixels = np.asarray(large).copy()
        pixels[100:180, 100:180] = np.random.default_rng(1).integers(0, 255, (80, 80, 3))
        data = png(Image.fromarray(pixels))
    elif kind == "broken":
        data = png(large)[:-40]
    else:
        data = png(large.crop((0, 0, 300, 384)))
    assert untrue(encoded(SMALL), data)


def test_only_routes_that_may_leave_an_upscale_out_are_supervised() -> None:
    assert not supervises(chained("m", "n"), upscaled())
    assert supervises(chained("m"), upscaled(on_failure="source"))
