"""Enlargements by a real network, and edits, of the pictures in ../shared/data and scikit-image."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from tasks.checks.base import Check, Expected, Picture, Pixels, Role
from tasks.checks.decode import decode
from tasks.checks.edit import Kept, Light, Noise
from tasks.checks.upscale import Detail, Faithful, Halos
from tasks.checks.upscale_text import Text
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.retouch import improved, open_upload
from tasks.providers.embedded.upscale import upscale
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
NETWORKS = ("acnet-gan", "acnet-hdn0", "acnet-hdn1", "acnet-hdn2", "arnet-hdn")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real pictures in {DATA}"),
]


def draw(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)


def photographs() -> Iterator[tuple[str, Pixels]]:
    """Yield pictures that are as large as what is enlarged in practice, reduced to 420 pixels."""
    samples = [Path(skimage.__file__).parent / "data" / f"{n}.png" for n in ("coffee", "chelsea")]
    files = [*(DATA / "uploads").iterdir(), *(DATA / "typography" / "images").iterdir()]
    for path in [*samples, *sorted(f for f in files if draw(f.name) % 2 == 0)]:
        picture = decode(path.read_bytes(), Expected()).picture
        assert picture is not None
        if min(picture.rgb.shape[:2]) < 256:
            continue
        ratio = min(1.0, 420 / max(picture.rgb.shape))
        small = cv2.resize(picture.rgb, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        yield path.name, np.ascontiguousarray(small, np.uint8)


def says(check: Check, result: Pixels, role: Role, before: Pixels) -> str:
    picture = Picture(rgb=result, data=b"", mime="image/png", references={role: before})
    return check.run(picture, Expected()).verdict


def plain(source: Pixels, how: int) -> Pixels:
    return np.asarray(cv2.resize(source, None, fx=2, fy=2, interpolation=how), np.uint8)


def sharpened(result: Pixels) -> Pixels:
    values = result.astype(np.float32)
    return np.clip(values + 2 * (values - cv2.GaussianBlur(values, (0, 0), 2.5)), 0, 255).astype(
        np.uint8
    )


def with_a_patch(result: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the picture with an eighth of it shown, in negative, where it does not belong."""
    side = min(result.shape[:2]) // 8
    top, left = (int(rng.integers(n - side)) for n in result.shape[:2])
    other = result.copy()
    place = slice(top, top + side), slice(left, left + side)
    other[place] = 255 - other[place]
    return other


def test_enlargements_of_real_pictures_pass_and_planted_faults_fail() -> None:
    checks: tuple[Check, ...] = (Faithful(), Text(), Halos(), Detail())
    alarms: list[tuple[str, str]] = []
    missed: list[tuple[str, str]] = []
    count = 0
    for name, source in photographs():
        count += 1
        result = upscale(source, NETWORKS[draw(name) % len(NETWORKS)])
        alarms += [(name, c.name) for c in checks if says(c, result, "source", source) == "fail"]
        rng = generator("real", name)
        planted: list[tuple[Check, Pixels]] = [
            (Faithful(), with_a_patch(result, rng)),
            (Halos(), sharpened(result)),
            (Detail(), plain(source, cv2.INTER_CUBIC)),
            (Detail(), plain(source, cv2.INTER_NEAREST)),
        ]
        missed += [(name, c.name) for c, bad in planted if says(c, bad, "source", source) == "pass"]
    assert count >= 30
    assert len(alarms) <= 0.01 * len(checks) * count, alarms
    assert len(missed) <= 0.05 * 4 * count, missed


def test_edits_of_real_uploads_are_still_the_upload() -> None:
    files = sorted((DATA / "uploads").iterdir())
    edits: dict[str, Pixels] = {}
    for path in files:
        upload = open_upload(path.read_bytes())
        rng = generator("real", path.name)
        edits[path.name] = np.asarray(improved(upload, 512, 512, "brighten it", rng))
        for check in (Kept(), Noise(), Light()):
            before = np.asarray(upload)
            assert says(check, edits[path.name], "upload", before) != "fail", (path.name, check)
    for number, path in enumerate(files):
        other = edits[files[(number + 1) % len(files)].name]
        before = np.asarray(open_upload(path.read_bytes()))
        assert says(Kept(), other, "upload", before) == "fail", path.name
