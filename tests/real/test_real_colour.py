"""Colour on the pictures in ../shared/data: profiles of all kinds, real pictures as they are."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import rgb2xyz, xyz2rgb

from tasks.checks.base import Expected, Picture
from tasks.checks.blank import reduced
from tasks.checks.colour import Cast
from tasks.checks.colour_channels import Channels
from tasks.checks.decode import decode
from tasks.checks.exposure import Contrast, Exposure
from tasks.checks.icc import Shown, to_srgb
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real pictures in {DATA}"),
]


def shown(path: Path) -> Shown:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:  # noqa: TID251 - the decoder's own step
        image.load()
        return to_srgb(image, data)


def photographs() -> Iterator[tuple[str, Picture]]:
    for pattern in ("typography/images/*", "uploads/*", "colour/exif/*_1.jpg"):
        for path in sorted(DATA.glob(pattern)):
            picture = decode(path.read_bytes(), Expected()).picture
            assert picture is not None
            # Colours are looked at smaller still; large pictures would only cost time.
            yield path.name, replace(picture, rgb=reduced(picture.rgb, 640))


def test_what_the_files_say_about_their_colours() -> None:
    found = {path.name: shown(path).note for path in (DATA / "colour" / "images").iterdir()}
    assert found["p3.png"] == ("converted", "Display P3")
    assert found["prophoto.png"] == ("converted", "ProPhoto RGB")
    assert found["low-contrast.jpg"][0] == "srgb"
    assert found["concert.jpg"] == ("converted", "Gray Gamma 2.2")
    assert found["Channel_digital_image_CMYK_color_no_profile.jpg"] == (
        "unknown", "CMYK without a profile",
    )  # fmt: skip
    assert Counter(kind for kind, _ in found.values())["unknown"] == 1


def test_the_red_of_p3_lies_outside_of_srgb() -> None:
    assert np.asarray(shown(DATA / "colour" / "images" / "p3.png").image)[0, 0, :3].tolist() == [
        255, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted((DATA / "colour" / "icc").glob("*.icc")), ids=lambda p: p.stem
)
def test_every_profile_is_understood(path: Path) -> None:
    data = path.read_bytes()
    space = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile.xcolor_space.strip()
    rgb = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8))
    image = rgb.convert({"GRAY": "L"}.get(space, space))
    image.info["icc_profile"] = data
    found = to_srgb(image)
    same = path.stem.startswith(("sRGB", "sGrey"))
    assert found.kind == ("srgb" if same else "converted")
    if same:
        assert found.image is image


def test_adobe_rgb_comes_out_as_its_maths_says() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8))
    image.info["icc_profile"] = (DATA / "colour" / "icc" / "AdobeCompat-v4.icc").read_bytes()
    # Adobe RGB (1998), 4.3.5.3: from linear RGB to XYZ under D65.
    matrix = [
        [0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134],
    ]  # fmt: skip
    linear = (np.asarray(image) / 255) ** 2.19921875
    wanted = np.clip(xyz2rgb(linear @ np.array(matrix).T), 0, 1) * 255
    away = np.abs(np.asarray(to_srgb(image).image) - wanted)
    assert np.quantile(away, 0.95) <= 3
    assert rgb2xyz(np.ones((1, 1, 3)))[0, 0, 1] == pytest.approx(1, abs=1e-3)


def test_good_pictures_raise_no_alarm() -> None:
    alarms: Counter[str] = Counter()
    pictures = list(photographs())
    for _, picture in pictures:
        for check in (Cast(), Exposure(), Contrast()):
            found = check.run(picture, Expected(intended_text=("text",)))
            alarms[check.name] += found.verdict == "fail"
    assert max(alarms.values()) <= 0.01 * len(pictures), alarms


def test_casts_and_exchanges_are_found_against_the_upload() -> None:
    """Every real picture as its own edit, under light of any hue and with red for blue."""
    rng = np.random.default_rng(4)
    cast: Counter[str] = Counter()
    exchange: Counter[str] = Counter()
    for _, picture in photographs():
        gains = 1 - 0.3 * rng.permutation([0.0, rng.random(), 1.0])
        lit = np.rint(picture.rgb * gains).astype(np.uint8)
        edit = Expected(subtask="edit", prompt="Remove the noise")
        references = {"upload": picture.rgb}
        for tally, check, rgb in (
            (cast, Cast(), lit),
            (exchange, Channels(), np.ascontiguousarray(picture.rgb[:, :, ::-1])),
        ):
            made = Picture(rgb=rgb, data=b"", mime="", references=references)  # type: ignore[arg-type]
            tally[check.run(made, edit).verdict] += 1
        same = Picture(rgb=picture.rgb, data=b"", mime="", references=references)  # type: ignore[arg-type]
        assert Cast().run(same, edit).verdict != "fail"
        assert Channels().run(same, edit).verdict != "fail"
    assert cast["fail"] >= 0.95 * cast.total(), cast
    # Pictures without colour are skipped, not passed.
    assert exchange["fail"] >= 0.95 * (exchange["fail"] + exchange["pass"]), exchange
