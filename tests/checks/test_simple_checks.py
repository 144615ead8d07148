import numpy as np
import pytest
from PIL import Image, ImageFilter

from tasks.checks.base import Expected, Picture
from tasks.checks.blank import Blank, Refusal
from tasks.checks.decode import decode
from tasks.checks.duplicates import find_duplicates, fingerprint
from tasks.checks.geometry import Aspect, Size
from tests.checks.drawing import as_picture, encoded, poster, scene


def flat(width: int, height: int) -> Picture:
    return as_picture(Image.new("RGB", (width, height), "navy"))


@pytest.mark.parametrize(
    ("size", "expected", "verdict"),
    [
        ((512, 512), Expected(width=512, height=512), "pass"),
        ((512, 511), Expected(width=512, height=512), "fail"),
        ((512, 300), Expected(width=512), "pass"),
        ((512, 300), Expected(height=301), "fail"),
        ((512, 300), Expected(), "skip"),
    ],
)
def test_size(size: tuple[int, int], expected: Expected, verdict: str) -> None:
    found = Size().run(flat(*size), expected)
    assert found.verdict == verdict
    assert (found.message == "") == (verdict == "pass")


@pytest.mark.parametrize(
    ("size", "expected", "verdict"),
    [
        ((1024, 576), Expected(aspect=16 / 9), "pass"),
        ((1024, 568), Expected(aspect=16 / 9), "pass"),
        ((1024, 550), Expected(aspect=16 / 9), "fail"),
        ((576, 1024), Expected(aspect=16 / 9), "fail"),
        ((500, 500), Expected(width=512, height=512), "pass"),
        ((384, 512), Expected(width=512, height=512), "fail"),
        ((384, 512), Expected(width=512), "skip"),
    ],
)
def test_aspect(size: tuple[int, int], expected: Expected, verdict: str) -> None:
    assert Aspect().run(flat(*size), expected).verdict == verdict


def noisy(level: int, sigma: float) -> Picture:
    noise = np.random.default_rng(3).normal(level, sigma, (256, 256, 3))
    return Picture(np.clip(noise, 0, 255).astype(np.uint8), b"", "image/png")


@pytest.mark.parametrize("level", [0, 24, 127, 255])
def test_one_colour_is_blank_with_sensor_noise_too(level: int) -> None:
    assert Blank().run(noisy(level, 0), Expected()).verdict == "fail"
    assert Blank().run(noisy(level, 4), Expected()).verdict == "fail"


def test_little_on_a_plain_ground_is_not_blank() -> None:
    image = Image.new("RGB", (512, 512), "white")
    image.paste("black", (200, 200, 240, 240))
    assert Blank().run(as_picture(image), Expected()).verdict == "pass"
    assert Blank().run(as_picture(scene()), Expected()).verdict == "pass"
    assert Blank().run(flat(100, 300), Expected()).verdict == "skip"


ASKED = Expected(prompt="a red kite")


@pytest.mark.parametrize("seed", range(6))
def test_a_blurred_refusal_is_recognised(seed: int) -> None:
    image = scene(512, 384, seed)
    assert Refusal().run(as_picture(image), ASKED).verdict == "pass"
    assert Refusal().run(as_picture(image.filter(ImageFilter.BoxBlur(3))), ASKED).verdict == "pass"
    blurred = image.filter(ImageFilter.GaussianBlur(32))
    noise = np.random.default_rng(seed).normal(0, 3, (384, 512, 1))
    grainy = np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)
    assert Refusal().run(as_picture(blurred), ASKED).verdict == "fail"
    assert Refusal().run(as_picture(Image.fromarray(grainy)), ASKED).verdict == "fail"


def test_softness_that_nobody_asked_anything_of_is_no_refusal() -> None:
    blurred = as_picture(scene().filter(ImageFilter.GaussianBlur(32)))
    assert Refusal().run(blurred, Expected()).verdict == "skip"
    assert Refusal().run(flat(512, 512), ASKED).verdict == "skip"


def mark(image: Image.Image) -> str:
    found = fingerprint(np.asarray(image.convert("RGB")))
    assert found is not None
    return found


def test_a_fingerprint_survives_scaling_and_encoding() -> None:
    image = scene()
    small = image.resize((300, 300))
    jpeg = decode(encoded(image, "JPEG", quality=60), Expected()).picture
    assert jpeg is not None
    again = mark(Image.fromarray(jpeg.rgb))
    items = [("a", "one", mark(image)), ("b", "two", mark(small)), ("c", "three", again)]
    found = find_duplicates(items)
    assert [found[c].verdict for c in "abc"] == ["pass", "fail", "fail"]
    assert "'a'" in found["b"].message


def test_different_pictures_are_no_duplicates() -> None:
    items = [(str(seed), str(seed), mark(scene(seed=seed))) for seed in range(40)]
    assert {f.verdict for f in find_duplicates(items).values()} == {"pass"}


def test_the_same_prompt_may_give_the_same_picture() -> None:
    same = mark(scene())
    found = find_duplicates([("a", "p", same), ("b", "p", same), ("c", "q", same)])
    assert [found[c].verdict for c in "abc"] == ["pass", "pass", "fail"]


def test_flat_pictures_have_no_fingerprint_and_no_finding() -> None:
    assert fingerprint(flat(300, 300).rgb) is None
    assert find_duplicates([("a", "p", None), ("b", "q", None)]) == {}
    assert find_duplicates([]) == {}


def test_blocks_agree_with_the_definition() -> None:
    rng = np.random.default_rng(5)
    codes = [bytes(rng.integers(0, 256, 32, dtype=np.uint8)) for _ in range(1100)]
    codes[1099] = codes[3][:-1] + bytes([codes[3][-1] ^ 0b111])
    codes[600] = codes[599]
    items = [(str(i), str(i), code.hex()) for i, code in enumerate(codes)]
    found = find_duplicates(items)
    assert [c for c, f in found.items() if f.verdict == "fail"] == ["600", "1099"]
    assert found["1099"].score == 3
    assert found["0"].score is None


def test_posters_of_one_layout_differ_by_their_text() -> None:
    # The same scene under another text is what mode collapse looks like.
    items = [("a", "p", mark(poster("Hello"))), ("b", "q", mark(poster("Other")))]
    assert find_duplicates(items)["b"].verdict == "fail"
