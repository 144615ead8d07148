"""Where a picture looks like a logo: as OpenCV correlates it, and searched once a picture."""

from __future__ import annotations

import gc

import cv2
import numpy as np
import pytest

from tasks.checks import logo_far, logo_match
from tasks.checks.base import Expected, Pixels
from tasks.checks.decode import decode
from tasks.checks.fixed import Fixed, unchangeable
from tasks.checks.logo import brand_logo
from tasks.checks.logo_far import search_far
from tasks.checks.logo_match import logo_pixels, search_near
from tasks.records import Region
from tasks.settings import DATASETS
from tests.checks.drawing import encoded, scene

PLACE = Region(x=300, y=40, width=72, height=72)


def logo() -> Pixels:
    return brand_logo("northwind", DATASETS)[1]


def drawn(seed: int = 1, *places: Region) -> Pixels:
    """A scene of 512 × 384 with the logo at each place, as an array that may be changed."""
    rgb = np.array(scene(512, 384, seed))
    for place in places:
        shown = cv2.resize(logo(), (place.width, place.height), interpolation=cv2.INTER_AREA)
        part = rgb[place.y : place.y + place.height, place.x : place.x + place.width]
        share = shown[:, :, 3:] / 255
        part[:] = np.rint(share * shown[:, :, :3] + (1 - share) * part)
    return rgb


def decoded(rgb: Pixels) -> Pixels:
    from PIL import Image

    picture = decode(encoded(Image.fromarray(rgb)), Expected()).picture
    assert picture is not None
    return picture.rgb


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(36, 36), (24, 20), (63, 54), (5, 4)])
def test_the_wide_search_correlates_as_opencv_does(seed: int, size: tuple[int, int]) -> None:
    grey = cv2.cvtColor(drawn(seed, PLACE)[::2, ::2], cv2.COLOR_RGB2GRAY)
    # Grain: in a plain place nothing is left to be compared but rounding.
    noise = np.random.default_rng(seed).normal(0, 6, grey.shape)
    grey = np.clip(grey + noise, 0, 255).astype(np.uint8)
    template = cv2.resize(logo(), size, interpolation=cv2.INTER_AREA)
    wanted = cv2.matchTemplate(
        grey.astype(np.float32),
        cv2.cvtColor(template[:, :, :3], cv2.COLOR_RGB2GRAY).astype(np.float32),
        cv2.TM_CCOEFF_NORMED,
        mask=template[:, :, 3].astype(np.float32) / 255,
    )
    scores = logo_far._Searched(grey).scores(logo(), *size)
    assert scores.shape == wanted.shape
    assert np.abs(scores - wanted).max() < 1e-3


def test_nothing_in_a_plain_picture_looks_like_a_logo() -> None:
    for level in (0, 7, 128, 255):
        hits = search_far(np.full((400, 500, 3), level, np.uint8), logo(), PLACE)
        assert all(hit.score == 0 for hit in hits)


def test_every_logo_of_a_picture_is_found() -> None:
    second = Region(x=60, y=250, width=78, height=78)
    found = [hit for hit in search_far(drawn(2, PLACE, second), logo(), PLACE) if hit.score > 0.7]
    assert len(found) == 2
    for place in (PLACE, second):
        assert any(
            abs(hit.x + hit.width / 2 - place.x - place.width / 2) < 5
            and abs(hit.y + hit.height / 2 - place.y - place.height / 2) < 5
            for hit in found
        )


def test_a_decoded_picture_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, calls = decoded(drawn(3, PLACE)), []
    match = logo_match._match
    monkeypatch.setattr(logo_match, "_match", lambda *a: calls.append(1) or match(*a))
    first = search_near(rgb, logo(), PLACE)
    count = len(calls)
    assert count >= 1
    assert search_near(rgb, logo(), PLACE) == first
    assert len(calls) == count
    other = search_near(rgb, logo(), PLACE.model_copy(update={"x": 20}))
    assert len(calls) > count
    assert other.score < first.score


def test_what_is_kept_is_what_a_fresh_copy_gives() -> None:
    pictures = [decoded(drawn(seed, PLACE)) for seed in (4, 5)]
    for rgb in (*pictures, *pictures):
        fresh, kept = rgb.copy(), search_near(rgb, logo(), PLACE)
        assert kept == search_near(fresh, logo().copy(), PLACE)
        assert search_far(rgb, logo(), PLACE) == search_far(fresh, logo().copy(), PLACE)
        for one, two in zip(
            logo_pixels(rgb, logo(), kept), logo_pixels(fresh, logo().copy(), kept), strict=True
        ):
            assert np.array_equal(one, two)


def test_an_array_that_may_change_is_searched_anew() -> None:
    rgb = drawn(6, PLACE)
    assert not unchangeable(rgb)
    before = search_near(rgb, logo(), PLACE)
    rgb[:] = rgb[:, ::-1]
    assert search_near(rgb, logo(), PLACE).score < before.score - 0.1


def test_fixed_pixels_equal_themselves_alone_and_are_not_kept_alive() -> None:
    one, two = decoded(drawn(7)), decoded(drawn(7))
    assert unchangeable(one, logo())
    assert Fixed(one) == Fixed(one)
    assert hash(Fixed(one)) == hash(Fixed(one))
    assert Fixed(one) != Fixed(two)
    key = Fixed(one)
    search_near(one, logo(), PLACE)
    del one
    gc.collect()
    assert key != Fixed(two)
    assert not key == key  # noqa: SIM201 - gone, it equals nothing
    with pytest.raises(ReferenceError):
        _ = key.pixels
