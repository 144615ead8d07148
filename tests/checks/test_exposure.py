import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.checks.base import Expected, Picture
from tasks.checks.exposure import Contrast, Exposure, tones
from tests.checks.drawing import as_picture, poster, scene


def of(values: object, upload: Image.Image | None = None) -> Picture:
    rgb = np.clip(np.asarray(values, np.float64), 0, 255).astype(np.uint8)
    references = {} if upload is None else {"upload": np.asarray(upload)}
    return Picture(rgb=rgb, data=b"", mime="image/png", references=references)  # type: ignore[arg-type]


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


def test_tones_are_the_darkest_and_the_brightest_lightness() -> None:
    image = Image.new("RGB", (256, 256), "black")
    image.paste("white", (0, 0, 128, 256))
    assert tones(np.asarray(image)) == pytest.approx((0, 100), abs=0.1)
    grey = tones(np.full((200, 200, 3), 119, np.uint8))
    assert grey == pytest.approx((50, 50), abs=0.3)


@pytest.mark.parametrize("seed", range(4))
def test_nearly_black_and_nearly_white_fail(seed: int) -> None:
    image = values(scene(seed=seed))
    dark = Exposure().run(of(image * 0.12), Expected())
    assert dark.verdict == "fail"
    assert "nearly black" in dark.message
    bright = Exposure().run(of(255 - (255 - image) * 0.12), Expected())
    assert bright.verdict == "fail"
    assert "nearly white" in bright.message
    assert Exposure().run(of(image), Expected()).verdict == "pass"


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_of_hardly_one_tone_has_no_contrast(seed: int) -> None:
    image = values(scene(seed=seed))
    found = Contrast().run(of(128 + (image - 128) * 0.08), Expected())
    assert found.verdict == "fail"
    assert "hardly any contrast" in found.message
    assert Contrast().run(of(image), Expected()).verdict == "pass"
    # Foggy, and still a picture.
    assert Contrast().run(of(128 + (image - 128) * 0.3), Expected()).verdict == "pass"


def test_a_line_on_paper_and_a_lamp_in_the_night_pass() -> None:
    night = Image.new("RGB", (512, 512), (2, 2, 6))
    ImageDraw.Draw(night).ellipse((200, 200, 260, 260), fill=(250, 240, 200))
    paper = Image.new("RGB", (512, 512), "white")
    ImageDraw.Draw(paper).rectangle((100, 240, 400, 250), fill="black")
    for image in (night, paper, poster("Sale")):
        for check in (Exposure(), Contrast()):
            assert check.run(as_picture(image), Expected()).verdict == "pass"


def test_an_edit_is_judged_against_its_own_upload() -> None:
    dark = Image.fromarray((values(scene()) * 0.12).astype(np.uint8))
    assert Exposure().run(of(values(dark) * 1.1, dark), Expected()).verdict == "pass"
    assert Exposure().run(of(values(dark) * 0.5, dark), Expected()).verdict == "fail"
    foggy = Image.fromarray((128 + (values(scene()) - 128) * 0.08).astype(np.uint8))
    assert Contrast().run(of(foggy, foggy), Expected()).verdict == "pass"
    assert (
        Contrast().run(of(120 + (values(foggy) - 120) * 0.3, foggy), Expected()).verdict == "fail"
    )
    # A bright upload is no excuse for a black edit.
    assert Exposure().run(of(values(scene()) * 0.1, scene()), Expected()).verdict == "fail"


def test_what_cannot_be_judged_is_skipped() -> None:
    for check in (Exposure(), Contrast()):
        assert check.run(of(np.zeros((60, 60, 3))), Expected()).verdict == "skip"
        unknown = of(values(scene()))
        unknown.notes["colour_profile"] = ("unknown", "CMYK without a profile")
        found = check.run(unknown, Expected())
        assert found.verdict == "skip"
        assert "CMYK without a profile" in found.message
