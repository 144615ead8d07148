"""Thumbnails: small, whole, in a budget, and honest about files that are no pictures."""

import io
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.evidence.gallery import Wanted
from tasks.evidence.thumbnails import CROP, SIDES, SMALL_SIDE, draw_thumbs
from tasks.evidence.view import Thumb
from tasks.images import ImageStore
from tasks.records import Region, digest_bytes

SIDE = SIDES[0][1]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def png(width: int, height: int, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def size_of(thumb: Thumb) -> tuple[int, int]:
    picture = decode(thumb.data, Expected()).picture
    assert picture is not None
    assert picture.mime == thumb.mime == "image/webp"
    return picture.rgb.shape[1], picture.rgb.shape[0]


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [(600, 300, (SIDE, SIDE // 2)), (300, 600, (SIDE // 2, SIDE)), (40, 30, (40, 30))],
)
def test_the_shape_is_kept_and_nothing_is_blown_up(
    store: ImageStore, width: int, height: int, shown: tuple[int, int]
) -> None:
    digest = store.put(png(width, height))
    assert size_of(draw_thumbs([Wanted(digest)], store)[digest]) == shown


@pytest.mark.parametrize(
    "region",
    [
        Region(x=10, y=10, width=50, height=20),
        Region(x=0, y=0, width=400, height=300),
        Region(x=380, y=280, width=500, height=500),
        Region(x=-50, y=-50, width=80, height=80),
    ],
)
def test_a_marked_part_is_cut_out_and_stays_small(store: ImageStore, region: Region) -> None:
    wanted = Wanted(store.put(png(400, 300)), region)
    width, height = size_of(draw_thumbs([wanted], store)[wanted.key])
    assert 0 < width <= CROP[0]
    assert 0 < height <= CROP[1]


def test_a_region_outside_the_picture_shows_the_picture(store: ImageStore) -> None:
    wanted = Wanted(store.put(png(800, 600)), Region(x=9000, y=9000, width=5, height=5))
    assert size_of(draw_thumbs([wanted], store)[wanted.key]) == (SIDE, SIDE * 600 // 800)


def test_many_pictures_are_drawn_smaller(store: ImageStore) -> None:
    digest = store.put(png(600, 600))
    missing = [Wanted(digest_bytes(str(n).encode())) for n in range(SIDES[-1][0])]
    for most, side in (SIDES[1], (SIDES[-1][0] + 1, SMALL_SIDE)):
        drawn = draw_thumbs([Wanted(digest), *missing[: most - 1]], store, workers=0)
        assert size_of(drawn[digest]) == (side, side)


def test_what_came_in_is_drawn_from_the_folder_of_the_inputs(
    store: ImageStore, tmp_path: Path
) -> None:
    datasets = tmp_path / "datasets"
    (datasets / "uploads").mkdir(parents=True)
    (datasets / "uploads" / "a.png").write_bytes(png(60, 40))
    (datasets / "uploads" / "cut.png").write_bytes(png(60, 40)[:300])
    (tmp_path / "secret.png").write_bytes(png(60, 40))
    names = ("uploads/a.png", "uploads/cut.png", "uploads/lost.png", "../secret.png", "a\0b")
    drawn = draw_thumbs([Wanted(file=name) for name in names], store, datasets=datasets)
    whole, *bad = (drawn[f"input:{name}"] for name in names)
    assert size_of(whole) == (60, 40)
    assert [bool(thumb.problem) and not thumb.data for thumb in bad] == [True] * 4
    assert "outside" in drawn["input:../secret.png"].problem
    assert not any(str(tmp_path) in thumb.problem for thumb in bad)


def test_files_that_do_not_decode_say_so_and_show_their_head(store: ImageStore) -> None:
    html = store.put(b"<!DOCTYPE html><script>alert(1)</script>")
    cut = store.put(png(64, 64)[:500])
    empty = store.put(b"")
    region = Region(x=1, y=1, width=2, height=2)
    drawn = draw_thumbs([Wanted(html), Wanted(cut), Wanted(empty), Wanted(cut, region)], store)
    assert set(drawn) == {html, cut, empty}
    assert all(thumb.problem and not thumb.data for thumb in drawn.values())
    assert drawn[html].head.startswith("3c 21 44 4f")
    assert drawn[cut].head.startswith("89 50 4e 47")


def test_lost_and_altered_pictures_are_named_without_a_path(
    store: ImageStore, tmp_path: Path
) -> None:
    lost, altered = digest_bytes(b"lost"), store.put(png(20, 20))
    store.path(altered).write_bytes(png(20, 20, seed=9))
    drawn = draw_thumbs([Wanted(lost), Wanted(altered)], store)
    assert drawn[lost].problem == "the file is missing in the image store"
    assert drawn[altered].problem == "the file was altered in the image store"
    assert not any(str(tmp_path) in thumb.problem for thumb in drawn.values())


def test_the_budget_keeps_the_first(store: ImageStore) -> None:
    wanted = [Wanted(store.put(png(300, 300, seed))) for seed in range(8)]
    everything = draw_thumbs(wanted, store)
    one = len(everything[wanted[0].digest].data)
    kept = draw_thumbs(wanted, store, budget=3 * one + one // 2)
    assert list(kept) == [w.key for w in wanted[:3]]
    assert sum(len(t.data) for t in kept.values()) <= 3 * one + one // 2


def test_worker_processes_change_nothing(store: ImageStore, builders: ModuleType) -> None:
    draw = random.Random(5)
    case = builders.a_case(draw, 0)
    wanted = []
    for number in range(125):
        data = builders.picture(draw, case, f"text {number}", 64, cast=False)
        digest = store.put(data if number % 7 else data[:100])
        wanted += [Wanted(digest), Wanted(digest, builders.text_box(case, 64))]
    alone = draw_thumbs(wanted, store, workers=0)
    assert draw_thumbs(wanted, store, workers=2) == alone
    assert len(alone) > 125
