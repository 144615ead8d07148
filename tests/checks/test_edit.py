from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tasks.checks.base import Check, Expected, Picture, Pixels
from tasks.checks.edit import Kept, Light, Noise, Outside, calm_grain, contrast, kept_area
from tasks.checks.likeness import likeness, matching_points
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.retouch import improved, open_upload
from tasks.records import Finding
from tasks.settings import DATASETS
from tests.checks.drawing import poster, scene

CHECKS: tuple[Check, ...] = (Kept(), Noise(), Light())
UPLOADS = ("dark-lamp.jpg", "noisy-pear.jpg", "colour-cast-mug.jpg", "squeezed-carton.jpg")


@cache
def upload(name: str) -> Image.Image:
    return open_upload((DATASETS / "uploads" / name).read_bytes())


@cache
def edited(name: str, size: tuple[int, int] = (512, 512)) -> Pixels:
    return np.asarray(improved(upload(name), *size, "make it better", generator("test", name)))


def judged(
    check: Check, result: Pixels, before: Pixels | None, mask: Pixels | None = None
) -> Finding:
    references = {"upload": before, "mask": mask}
    there = {role: rgb for role, rgb in references.items() if rgb is not None}
    picture = Picture(rgb=result, data=b"", mime="image/png", references=there)  # type: ignore[arg-type]
    return check.run(picture, Expected())


@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_edits_of_poor_uploads_pass(check: Check, name: str) -> None:
    found = judged(check, edited(name), np.asarray(upload(name)))
    assert (found.verdict, found.message) == ("pass", "")


@pytest.mark.parametrize("check", [*CHECKS, Outside()], ids=lambda check: check.name)
def test_without_an_upload_nothing_is_said(check: Check) -> None:
    found = judged(check, edited(UPLOADS[0]), None)
    assert found.verdict == "skip"
    assert "no upload" in found.message


def test_another_subject_is_not_kept() -> None:
    for one, two in (UPLOADS[:2], UPLOADS[::3], UPLOADS[:3:2]):
        found = judged(Kept(), edited(one), np.asarray(upload(two)))
        assert found.verdict == "fail", (one, two)
        assert "subject" in found.message


def test_a_crop_a_turn_and_another_style_keep_the_subject() -> None:
    before = np.asarray(scene(480, 360, seed=3))
    crop = np.ascontiguousarray(before[30:330, 40:440])
    assert judged(Kept(), crop, before).verdict == "pass"
    flat = np.asarray(ImageOps.posterize(Image.fromarray(before), 2))
    assert judged(Kept(), flat, before).verdict == "pass"
    turned = np.ascontiguousarray(np.rot90(np.asarray(poster("Fresh Bread", "every day"))))
    assert matching_points(np.asarray(poster("Fresh Bread", "every day")), turned) > 50


def test_a_flat_upload_has_no_subject_to_keep() -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    assert likeness(flat, edited(UPLOADS[0])) is None
    assert judged(Kept(), edited(UPLOADS[0]), flat).verdict == "skip"
    assert matching_points(flat, flat) == 0


def test_likeness_is_the_same_twice() -> None:
    before = np.asarray(upload(UPLOADS[3]))
    assert likeness(before, edited(UPLOADS[3])) == likeness(before, edited(UPLOADS[3]))
    again = [matching_points(before, edited(UPLOADS[3])) for _ in range(2)]
    assert again[0] == again[1]


def test_noise_is_held_against_the_uploads_own() -> None:
    rng = np.random.default_rng(1)
    clean = np.asarray(scene(512, 384))
    noisy = np.clip(clean + rng.normal(0, 14, clean.shape), 0, 255).astype(np.uint8)
    assert judged(Noise(), noisy, clean).verdict == "fail"
    assert judged(Noise(), noisy, noisy).verdict == "pass"
    dark = np.clip(clean * 0.2 + rng.normal(0, 4, clean.shape), 0, 255).astype(np.uint8)
    lit = np.clip(dark.astype(float) * 4, 0, 255).astype(np.uint8)
    assert judged(Noise(), lit, dark).verdict == "pass"
    assert judged(Noise(), lit, clean).verdict == "fail"
    black = np.zeros((200, 200, 3), np.uint8)
    assert calm_grain(black) is None
    assert judged(Noise(), clean, black).verdict == "skip"
    assert judged(Noise(), black, clean).verdict == "skip"


def test_a_dark_upload_may_stay_dark() -> None:
    dark = (np.asarray(scene(512, 384)) * 0.15).astype(np.uint8)
    assert judged(Light(), dark, dark).verdict == "pass"
    found = judged(Light(), dark, np.asarray(scene(512, 384)))
    assert found.verdict == "fail"
    assert "black" in found.message
    pale = (235 + np.asarray(scene(512, 384)) * 0.08).astype(np.uint8)
    assert "washed out" in judged(Light(), pale, np.asarray(scene(512, 384))).message
    flat = np.full((200, 200, 3), 90, np.uint8)
    assert contrast(flat) == 0
    assert judged(Light(), dark, flat).verdict == "skip"


def masked() -> tuple[Pixels, Pixels, Pixels]:
    """Return an upload, a mask and a good edit: the masked part is new."""
    before = np.asarray(scene(480, 360, seed=5))
    mask = np.zeros_like(before)
    mask[100:220, 150:300] = 255
    after = before.copy()
    after[100:220, 150:300] = np.asarray(scene(150, 120, seed=9))
    return before, mask, after


def test_changes_inside_of_the_mask_and_slight_ones_pass() -> None:
    before, mask, after = masked()
    assert judged(Outside(), after, before, mask).verdict == "pass"
    large = np.asarray(cv2.resize(after, (960, 720), interpolation=cv2.INTER_CUBIC), np.uint8)
    soft = cv2.GaussianBlur(large, (0, 0), 1.0)
    rng = np.random.default_rng(2)
    grainy = np.clip(soft + rng.normal(1, 2, soft.shape), 0, 255).astype(np.uint8)
    assert judged(Outside(), grainy, before, mask).verdict == "pass"


@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_changes_outside_of_the_mask_fail_in_dark_pictures_too(gain: float) -> None:
    before, mask, after = masked()
    other = after.copy()
    other[280:340, 380:450] = 255 - other[280:340, 380:450]
    dark = [(rgb * gain).astype(np.uint8) for rgb in (other, before, after)]
    found = judged(Outside(), dark[0], dark[1], mask)
    assert (found.verdict, found.message) == ("fail", "changed outside of the mask")
    assert found.region is not None
    assert 330 < found.region.x < 460
    assert judged(Outside(), dark[2], dark[1], mask).verdict == "pass"


def test_a_tint_and_a_zoom_outside_of_the_mask_fail() -> None:
    before, mask, after = masked()
    found = judged(Outside(), (after * [1.0, 0.9, 0.75]).astype(np.uint8), before, mask)
    assert found.verdict == "fail"
    nearer = np.asarray(cv2.resize(after[10:-10, 14:-14], (480, 360)), np.uint8)
    assert judged(Outside(), nearer, before, mask).verdict == "fail"


def test_what_cannot_be_laid_over_the_mask_is_skipped() -> None:
    before, mask, after = masked()
    assert judged(Outside(), after, before).message == "no mask"
    assert "another shape" in judged(Outside(), after[:200], before, mask).message
    everything = np.full_like(mask, 255)
    assert judged(Outside(), after, before, everything).verdict == "skip"
    assert not kept_area(everything, 120, 90).any()
    assert kept_area(mask, 480, 360)[0, 0]
    assert not kept_area(mask, 480, 360)[95, 145]
