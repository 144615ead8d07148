"""Defects planted in pictures of people: which are good, what is made of them, and the command."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.checks.base import Expected
from tasks.checks.planted import check_names, look_at_good
from tasks.checks.planted_pictures import KnownGood, goods_of, known_good, measure_pictures
from tasks.errors import DataError
from tests.checks.drawing import encoded, poster, scene
from tests.conftest import Command

#: Without those that read or enlarge: they take most of the time.
CHEAP = ("decode.file", "geometry.borders", "colour.channels", "composition.logo", "edit.noise")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        file = tmp_path / "photos" / f"{number}.jpg"
        rng = np.random.default_rng(number)
        pixels = np.asarray(scene(640, 480, seed=number).convert("RGB")).astype(float)
        grainy = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(file, quality=92)
    return tmp_path


def manifest(folder: Path, *rows: str) -> Path:
    file = folder / "labels.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


def test_a_folder_is_good_and_a_manifest_says_what_is(folder: Path) -> None:
    assert [k.path.name for k in known_good(folder / "photos")] == ["0.jpg", "1.jpg"]
    plain = manifest(folder, "file,prompt", "photos/0.jpg,a tree", "photos/1.jpg,")
    assert [k.expected.prompt for k in known_good(plain)] == ["a tree", None]
    told = manifest(folder, "file,truth", "photos/0.jpg,bad", "photos/1.jpg,good")
    assert [k.path.name for k in known_good(told)] == ["1.jpg"]
    unsaid = manifest(folder, "file,legible_match", "photos/0.jpg,yes", "photos/1.jpg,na")
    assert [k.path.name for k in known_good(unsaid)] == ["0.jpg"]
    files = manifest(folder, "file,expected", "photos/0.jpg,accept", "photos/1.jpg,reject")
    assert [(k.path.name, k.file_only) for k in known_good(files)] == [("0.jpg", True)]


def test_without_a_good_picture_there_is_nothing_to_measure(folder: Path) -> None:
    with pytest.raises(DataError, match="no row is known to be good"):
        known_good(manifest(folder, "file,truth", "photos/0.jpg,bad"))
    with pytest.raises(DataError):
        known_good(folder / "none.csv")


def test_each_check_gets_the_kind_of_picture_that_it_judges(folder: Path) -> None:
    (known, _) = known_good(folder / "photos")
    goods = goods_of(known, 0)
    assert [sorted(good.references) for good in goods] == [
        [], [], ["upload"], ["mask", "upload"], ["source"], ["baseline"], [], [],
    ]  # fmt: skip
    judged = frozenset().union(*(good.judged or frozenset() for good in goods))
    # It has no text that could stand at the edge, and much of it may be plain.
    # Nor does a label speak of the text beside the one that was asked for.
    assert set(check_names()) - judged == {
        "composition.blank_part",
        "composition.margins",
        "typography.extra",
    }
    lettered = KnownGood(known.path, Expected(intended_text=("Hi",), language="en"))
    assert goods_of(lettered, 0)[-1].judged == {"composition.margins"}
    # The small picture is enlarged: nothing of it is larger than asked for.
    assert goods[4].rgb.shape == (768, 1024, 3)
    assert goods[0].expected.width == 640
    assert goods[2].data == goods_of(known, 0)[2].data
    for found in look_at_good(goods, [n for n in check_names() if n != "typography.text"]):
        assert (found.alarms, found.faults) == (0, 0), found


def test_of_a_file_nothing_else_is_asked(folder: Path) -> None:
    known = KnownGood(folder / "photos" / "0.jpg", Expected(), file_only=True)
    (good,) = goods_of(known, 0)
    assert good.judged == {"decode.file", "decode.mime", "decode.still"}
    broken = folder / "photos" / "2.jpg"
    broken.write_bytes(b"no picture")
    (refused,) = goods_of(KnownGood(broken, Expected()), 0)
    (found,) = look_at_good([refused], ["decode.file"])
    assert found.alarms == 1


def test_defects_are_planted_in_processes_and_counted(folder: Path) -> None:
    (folder / "photos" / "poster.png").write_bytes(encoded(poster("Hello")))
    told: list[int] = []
    found = measure_pictures(
        known_good(folder / "photos"), checks=CHEAP, workers=1, on_unit=told.append
    )
    assert told == [3]
    assert [one.check for one in found] == [n for n in check_names() if n in CHEAP]
    for one in found:
        assert one.found >= 0.9 * one.planted > 0, one
        assert (one.clean.alarms, one.clean.faults) == (0, 0), one


def test_a_picture_of_which_nothing_can_be_made_is_named_and_left_out(folder: Path) -> None:
    photos = folder / "photos"
    (photos / "dot.png").write_bytes(encoded(Image.new("RGB", (1, 1))))
    (photos / "cut.png").write_bytes(encoded(poster("Hello"))[:2000])
    (photos / "page.png").write_bytes(b"<html></html>")
    told: dict[str, str] = {}
    (found,) = measure_pictures(
        known_good(photos), checks=["decode.file"], workers=1,
        on_left_out=lambda path, why: told.update({path.name: why}),
    )  # fmt: skip
    assert set(told) == {"dot.png", "cut.png", "page.png"}
    assert "HTML" in told["page.png"]
    assert "GaussianBlur" in told["dot.png"]
    assert (found.clean.alarms, found.clean.clean) == (0, 2)
    # Where a person calls the file good, it is our decoder that errs.
    files = manifest(folder, "file,expected", "photos/0.jpg,accept", "photos/cut.png,accept")
    (found,) = measure_pictures(known_good(files), checks=["decode.file"], workers=1)
    assert (found.clean.alarms, found.clean.clean) == (1, 2)


def test_the_doctor_says_what_it_left_out(folder: Path, light_imagegate: Command) -> None:
    asked = ("doctor", "--checks", "--check", "geometry.size", "--pictures")
    cut = folder / "photos" / "cut.png"
    cut.write_bytes(encoded(poster("Hello"))[:2000])
    plain = manifest(folder, "file", "photos/0.jpg", "photos/cut.png")
    done = light_imagegate(*asked, str(plain))
    assert (done.code, done.out.splitlines()[0].split(";")[0]) == (3, "1 good pictures")
    assert f"LEFT OUT  '{cut}': PNG: chunk" in done.out
    assert "no column truth, legible_match or expected says which pictures are good" in done.err
    plain = manifest(folder, "file", "photos/cut.png")
    done = light_imagegate(*asked, str(plain), "--json")
    assert done.code == 2
    assert "none of the pictures can be used" in done.json["error"]
    assert "photos/cut.png" in done.json["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--pictures", "3"), "--pictures goes with --checks"),
        (("--pictures", "30"), "--pictures goes with --checks"),
        (("--check", "geometry.size"), "--check goes with --checks"),
        (("--curve",), "--curve goes with --checks"),
        (("--seed", "1"), "--seed goes with --checks"),
        (("--checks", "--pictures", ""), "neither a number"),
        (("--checks", "--pictures", "x" * 300), "neither a number"),
    ],
)
def test_flags_of_the_doctor_that_would_do_nothing_are_refused(
    arguments: tuple[str, ...], says: str, light_imagegate: Command
) -> None:
    done = light_imagegate("doctor", *arguments)
    assert done.code == 2
    assert says in done.err


def test_the_doctor_takes_pictures_or_a_number(folder: Path, light_imagegate: Command) -> None:
    asked = ("doctor", "--checks", "--check", "geometry.size", "--json", "--pictures")
    done = light_imagegate(*asked, str(folder / "photos"))
    # Two pictures prove nothing: blind as far as is known.
    assert done.code == 3, done.err
    assert (done.json["pictures"], done.json["source"]) == (2, str(folder / "photos"))
    assert done.json["checks"][0]["planted"] == 2
    logo = light_imagegate(
        "doctor", "--checks", "--check", "composition.margins", "--json", "--pictures",
        str(folder / "photos"),
    )  # fmt: skip
    # Without a text nothing can stand at the edge: nothing is said of the check.
    assert (logo.code, logo.json["not_planted"]) == (0, ["composition.margins"])
    for wrong in ("0", "nowhere", "-3", "999999999999"):
        assert light_imagegate("doctor", "--checks", "--pictures", wrong).code == 2
