"""Planted defects in pictures that are not ours: real models' pictures, photographs, whole files.

A real picture cannot be drawn again. Its text is planted in the expectation, logos are put on it,
and it is taken as the edit of itself.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.checks.base import Expected
from tasks.checks.planted import CheckHealth, check_names, measure
from tasks.checks.planted_base import Good
from tasks.checks.planted_good import brand_of, branded, from_file
from tasks.checks.planted_made import full, in_colours, print_of, roomy
from tasks.checks.planted_pictures import KnownGood, goods_of
from tests.conftest import ROOT

DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    # Each computes for a minute or two, beside other tests.
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real pictures in {DATA}"),
]
#: What a check must find of the defects at their default strength, and may say of good pictures.
LEAST, MOST = 0.95, 0.01
#: Checks of the brand, for which a logo is put on the pictures, and those for which they are made
#: into what a brand asks for.
BRAND = ("composition.logo", "colour.channels")
MADE = ("colour.palette", "composition.blank_part", "composition.margins", "composition.subject")
#: One line more: real pictures seldom have several strings, nor says anybody what else they show.
DRAWN = ("typography.extra",)
#: Checks that need another kind of good picture than the first test's, or read text.
ELSEWHERE = frozenset({"typography.text", "colour.profile", "upscale.text", *MADE, *BRAND, *DRAWN})


def labels(name: str) -> list[dict[str, str]]:
    with (DATA / name / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def legible(*, strict: bool) -> list[Good]:
    """Pictures in which people can read what they should show, asked for in their own size."""
    return [
        sized(
            DATA / "typography" / row["file"],
            intended_text=tuple(part.strip() for part in row["intended_text"].split("|")),
            language=row["language"],
            subtask="typography",
        )
        for row in labels("typography")
        if row["legible_match"] == "yes" and (row["strict"] == "1" or not strict)
    ]


def photographs() -> list[Good]:
    return [sized(path, subtask="edit") for path in sorted((DATA / "uploads").iterdir())]


def sized(path: Path, **more: object) -> Good:
    good = from_file(path, Expected())
    height, width = good.rgb.shape[:2]
    expected = Expected(
        width=width,
        height=height,
        aspect=width / height,
        prompt="a picture",
        declared_mime=good.picture.mime,
        **more,  # type: ignore[arg-type]
    )
    return replace(good, expected=expected)


def hold(found: Sequence[CheckHealth]) -> None:
    """Every check reaches what it must, or what is known of it; all are told at once."""
    told = {
        one.check: (
            f"{one.found}/{one.planted} found, {one.clean.alarms}/{one.clean.clean} alarms",
            [missed for kind in one.defects for missed in kind.missed[:3]],
            one.clean.accused,
        )
        for one in found
        if one.found < LEAST * one.planted
        or one.clean.alarms > MOST * one.clean.clean
        or one.clean.faults
    }
    assert not told


def test_defects_in_real_pictures_are_found_and_good_ones_left_alone() -> None:
    goods = [*legible(strict=False)[::2], *photographs()]
    found = measure(goods, [name for name in check_names() if name not in ELSEWHERE])
    assert all(one.planted >= len(goods) // 2 for one in found)
    hold(found)


def test_logos_on_real_pictures_are_judged_as_on_our_own() -> None:
    names = ("northwind", "solstice", "fernhollow")
    goods = [
        branded(good, names[number % 3], frozenset({*BRAND, "colour.cast"}))
        for number, good in enumerate([*legible(strict=False)[1::2], *photographs()])
    ]
    hold(measure(goods, [name for name in (*BRAND, "colour.cast") if name in check_names()]))


def test_what_a_brand_asks_for_is_missed_in_real_pictures_where_it_is_gone() -> None:
    """Known to be good by how they are made: see `planted_made`."""
    goods: list[Good | None] = []
    for number, good in enumerate(legible(strict=True)[::2]):
        brand = brand_of(("northwind", "solstice", "fernhollow")[number % 3])
        goods += [in_colours(good, brand), full(good, brand), print_of(good, brand, 0)]
        goods.append(roomy(good, brand))
    found = measure([good for good in goods if good is not None], MADE)
    assert [one.check for one in found if one.planted < 8] == []
    hold(found)


def test_letters_that_change_places_while_a_picture_is_enlarged_are_seen() -> None:
    folder = DATA / "typography" / "images"
    known = [KnownGood(folder / good.name, good.expected) for good in legible(strict=True)[::3]]
    made = [good for number, one in enumerate(known) for good in goods_of(one, number)]
    goods = [good for good in made if "source" in good.references]
    (found,) = measure(goods, ["upscale.text"])
    assert found.planted >= len(goods) // 2
    hold([found])


def test_wrong_letters_are_seen_in_real_type() -> None:
    """Good pictures called bad are bounded in `test_real_checks`, on all labels."""
    (found,) = measure(legible(strict=True), ["typography.text"], every_kind=False)
    assert found.planted >= 40
    assert found.found >= LEAST * found.planted, found.defects


def test_whole_files_of_many_writers_are_whole_and_cut_ones_are_not() -> None:
    kinds = ("png", "jpeg", "webp", "gif", "isobmff:avif")
    judged = frozenset({"decode.file", "decode.mime"})
    rows = [r for r in labels("broken") if r["expected"] == "accept" and r["magic"] in kinds]
    goods = [from_file(DATA / "broken" / row["file"], Expected(), judged) for row in rows]
    found = {one.check: one for one in measure(goods, judged, every_kind=False)}
    assert found["decode.file"].clean.clean == len(goods)
    hold([found["decode.file"]])
