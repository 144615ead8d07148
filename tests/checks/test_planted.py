"""Planted defects: the truth of what is planted, and the counts that follow from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.checks import planted, planted_text
from tasks.checks.counts import NEVER_FAIL
from tasks.checks.planted import (
    DEFECTS,
    CheckHealth,
    CleanHealth,
    DefectHealth,
    check_names,
    judge,
    look_at_good,
    measure,
    plant,
)
from tasks.checks.planted_base import Defect, Good, Planted
from tasks.checks.planted_colour import as_edit
from tasks.checks.planted_good import branded, drawn, from_file
from tasks.checks.text_match import keys
from tasks.providers.embedded.draws import generator
from tests.checks.drawing import encoded, scene

GOODS = [drawn(3, number) for number in (0, 1, 2, 4, 6, 8, 10, 11)]
#: Without those that read: they take most of the time.
CHEAP = [name for name in check_names() if not name.endswith((".text", ".margins", ".extra"))]


def kind(name: str) -> Defect:
    return next(defect for defect in DEFECTS if defect.name == name)


def shown(defect: Defect) -> list[Planted]:
    # Enlarging takes a second a picture.
    goods = GOODS[:2] if defect.check.startswith("upscale.") else GOODS[:5]
    found = [
        defect.plant(good, defect.strength, generator(0, defect.name, good.name)) for good in goods
    ]
    return [one for one in found if one is not None]


def test_every_check_has_a_defect_and_every_defect_a_check() -> None:
    """A check without planted defects is blind by definition: the gate would always hold."""
    # What the file says of its colours is only judged where a policy requires a profile.
    assert set(check_names()) - {defect.check for defect in DEFECTS} == NEVER_FAIL
    names = [(defect.check, defect.name) for defect in DEFECTS]
    assert len(set(names)) == len(names)
    assert all(defect.strength in defect.strengths for defect in DEFECTS)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_the_same_seed_plants_the_same_and_another_seed_may_not(defect: Defect) -> None:
    first, again = shown(defect), shown(defect)
    if defect.check == "composition.margins":
        return  # Planted by what the reader finds; too slow here.
    assert first
    assert [p.data for p in first] == [p.data for p in again]
    assert [p.expected for p in first] == [p.expected for p in again]
    good = {good.data for good in GOODS}
    # What is planted differs from the good picture in the file or in what is expected.
    assert all(p.data not in good or p.expected not in [g.expected for g in GOODS] for p in first)


def test_drawings_are_good_and_do_not_repeat() -> None:
    assert len({good.data for good in GOODS}) == len(GOODS)
    again = drawn(3, 8)
    assert again.data == GOODS[5].data
    assert again.expected == GOODS[5].expected
    others = [drawn(3, number) for number in (3, 5, 9)]
    assert [sorted(good.references) for good in others] == [
        ["upload"],
        ["mask", "upload"],
        ["source"],
    ]
    for found in look_at_good([*GOODS, *others], CHEAP):
        assert (found.alarms, found.faults) == (0, 0), found


def test_cheap_checks_see_what_is_planted_in_one_picture_each() -> None:
    found = {health.check: health for health in measure(GOODS, CHEAP, every_kind=False)}
    assert list(found) == CHEAP
    for name in ("decode.file", "decode.mime", "geometry.size", "composition.blank"):
        assert found[name].planted == len(GOODS)
        assert found[name].found == len(GOODS)
    # One kind for each picture.
    assert found["decode.file"].clean.clean == len(GOODS)


def test_weak_defects_are_found_less_often_than_strong_ones() -> None:
    blur = kind("blurred refusal")
    rates = [plant(blur, GOODS, strength=s).found for s in (0.02, 0.5)]
    assert rates == [0, len(GOODS)]


def test_a_defect_that_another_check_finds_is_told_apart_from_one_that_passes() -> None:
    def smaller(good: Good, strength: float, rng: np.random.Generator) -> Planted:
        return good.planted(np.array(good.rgb)[:: 2 if strength == 1 else 1])

    shrunk = Defect("half as high", "colour.exposure", 1.0, smaller, "all or nothing", (0.5, 1.0))
    (good,) = GOODS[1:2]
    seen = plant(shrunk, [good])
    # Its light is as it was; its size is not.
    assert (seen.found, seen.planted, seen.elsewhere) == (0, 1, 1)
    unchanged = plant(shrunk, [good], strength=0.5)
    assert (unchanged.found, unchanged.planted, unchanged.elsewhere) == (0, 1, 0)
    # Another check that calls the good picture bad too has not seen the defect.
    accused = replace(good, expected=replace(good.expected, width=7, height=5, aspect=None))
    same = plant(shrunk, [accused], strength=0.5)
    assert (same.found, same.planted, same.elsewhere) == (0, 1, 0)


def test_a_missing_letter_is_found_in_a_drawing() -> None:
    found = plant(kind("letters dropped"), GOODS, most=2)
    assert (found.found, found.planted, found.unjudged) == (2, 2, 0)


def test_text_of_a_real_picture_is_planted_in_the_expectation() -> None:
    good = Good("photograph", replace(GOODS[0].expected, intended_text=("OPEN DAILY",)), bytes)
    for change in ("letters swapped", "letters dropped", "letters added", "letters garbled"):
        planted_ = kind(change).plant(good, 0.1, np.random.default_rng(1))
        assert planted_ is not None
        assert keys(planted_.expected.intended_text[0]) != "opendaily"
    assert kind("missing glyphs").plant(good, 0.1, np.random.default_rng(1)) is None


@given(
    text=st.lists(st.text("abcdefgh ij", min_size=1, max_size=12), min_size=1, max_size=3),
    strength=st.floats(0.01, 1),
    seed=st.integers(0, 50),
    change=st.sampled_from(
        [planted_text.swapped, planted_text.dropped, planted_text.added, planted_text.garbled]
    ),
)
@settings(max_examples=150, deadline=None)
def test_what_counts_as_planted_is_really_absent(
    text: list[str], strength: float, seed: int, change: planted_text.Change
) -> None:
    good = Good("a", replace(GOODS[0].expected, intended_text=tuple(text)), bytes)
    planted_ = planted_text._planted(change)(good, strength, np.random.default_rng(seed))
    if planted_ is None:
        return
    # The picture says `text`; one of the strings now expected stands nowhere in it.
    said = keys(" ".join(text))
    assert any(keys(wanted) not in said for wanted in planted_.expected.intended_text)


def test_a_defect_is_not_planted_where_its_check_does_not_judge() -> None:
    cast = kind("colour cast")
    plain = from_file_of(scene(seed=3))
    assert plant(cast, [plain]).planted == 0


def from_file_of(image: Image.Image) -> Good:
    return Good("scene", planted.Expected(), lambda: encoded(image))


def test_logos_on_other_pictures_are_planted_too() -> None:
    labelled = from_file_of(scene(640, 512, seed=8))
    good = branded(labelled, "northwind", frozenset({"composition.logo"}))
    (clean,) = look_at_good([good], ["composition.logo"])
    assert (clean.alarms, clean.clean) == (0, 1)
    assert look_at_good([good], ["colour.palette"])[0].clean == 0
    for name in ("logo missing", "logo outside", "logo in a wrong corner"):
        assert plant(kind(name), [good]).found == 1, name
    assert plant(kind("colours off"), [good]).planted == 0


def test_a_check_that_breaks_has_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name, version, higher_is_better = "composition.blank", "0", True

        def run(self, picture: object, expected: object) -> None:
            raise RuntimeError("broken")

    good = from_file_of(scene())
    assert plant(kind("blank"), [good]).found == 1
    monkeypatch.setattr(planted, "CHECKS", (Broken(),))
    # It passed the good picture and breaks on the bad one.
    found = plant(kind("blank"), [good])
    assert (found.found, found.planted, found.unjudged) == (0, 1, 1)
    # What it does not pass as it is proves nothing.
    assert plant(kind("blank"), [from_file_of(scene())]).planted == 0
    (clean,) = look_at_good([good], ["composition.blank"])
    assert (clean.alarms, clean.faults, clean.clean) == (0, 1, 1)
    with pytest.raises(KeyError):
        judge("no.such", Planted(encoded(scene()), planted.Expected()))


def test_counts_are_added_kind_by_kind() -> None:
    one = CheckHealth(
        "a.b", CleanHealth("a.b", 1, 10), (DefectHealth("x", "a.b", 0.5, 3, 4, missed=("p",)),)
    )
    both = one.plus(one)
    assert (both.found, both.planted, both.clean.alarms, both.clean.clean) == (6, 8, 2, 20)
    assert both.defects[0].missed == ("p", "p")
    with pytest.raises(ValueError, match="measured in another way"):
        one.plus(CheckHealth("a.b", CleanHealth("a.b")))


def test_strengths_are_checked_and_broken_pictures_are_no_good_ones() -> None:
    with pytest.raises(ValueError, match="strength"):
        Defect("x", "a.b", 0.0, lambda *_: None, "", ())
    with pytest.raises(ValueError, match="no good picture"):
        _ = Good("empty", planted.Expected(), bytes).picture
    with pytest.raises(ValueError, match="drawn again"):
        Good("photograph", planted.Expected(), bytes).redrawn()


def test_files_with_labels_are_good_pictures(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(scene()))
    good = from_file(file, planted.Expected(), frozenset({"decode.file"}))
    assert good.picture.mime == "image/png"
    assert [c.clean for c in look_at_good([good], ["decode.file", "composition.blank"])] == [1, 0]


def test_an_edit_of_a_picture_is_judged_anew() -> None:
    good = from_file_of(scene(seed=4))
    look_at_good([good], ["edit.noise", "colour.cast"])
    assert not as_edit(good).verdicts
    assert plant(kind("colour cast of an edit"), [good]).found == 1
