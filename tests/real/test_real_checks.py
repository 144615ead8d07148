"""The checks on the pictures in ../shared/data: labels of people and of careful decoders."""

import csv
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.checks.base import Expected, Picture
from tasks.checks.blank import Refusal
from tasks.checks.borders import Borders
from tasks.checks.decode import decode
from tasks.checks.geometry import Orientation
from tasks.checks.subject import Subject
from tests.conftest import ROOT, Command

DATA = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real pictures in {DATA}"),
]


def labels(name: str) -> list[dict[str, str]]:
    with (DATA / name / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def checked(command: Command, manifest: Path) -> list[dict[str, Any]]:
    done = command("check", "--manifest", str(manifest), "--json")
    assert done.code == 1, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def verdict(found: dict[str, Any], check: str) -> str:
    return next(f["verdict"] for f in found["findings"] if f["check"] == check)


def test_typography_agrees_with_people(light_imagegate: Command, tmp_path: Path) -> None:
    # All rows take two minutes; these are the ones whose intended text is documented.
    rows = [row for row in labels("typography") if row["strict"] == "1"]
    manifest = tmp_path / "strict.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"file": str(DATA / "typography" / row["file"])} for row in rows)
    found = checked(light_imagegate, manifest)
    assert [f["id"] for f in found] == [r["id"] for r in rows]
    tally: Counter[tuple[str, str]] = Counter()
    for row, result in zip(rows, found, strict=True):
        tally[row["legible_match"], verdict(result, "typography.text")] += 1
    wrongly_passed = tally["no", "pass"] / (tally["no", "pass"] + tally["no", "fail"])
    wrongly_failed = tally["yes", "fail"] / (tally["yes", "pass"] + tally["yes", "fail"])
    assert 1 - (wrongly_passed + wrongly_failed) / 2 >= 0.90, tally
    assert wrongly_passed <= 0.10, tally
    assert wrongly_failed <= 0.12, tally
    assert not any(f["verdict"] == "fault" for r in found for f in r["findings"])
    colour = [verdict(r, "colour.cast") for r in found]
    assert colour.count("fail") <= 0.01 * len(colour)


def test_every_damaged_file_is_refused_and_whole_ones_pass(light_imagegate: Command) -> None:
    rows = labels("broken")
    found = checked(light_imagegate, DATA / "broken" / "labels.csv")
    wrong = [
        (row["origin"], result["findings"][0]["message"])
        for row, result in zip(rows, found, strict=True)
        if (row["expected"] == "accept") != (verdict(result, "decode.file") == "pass")
        # PostScript is a program: opening it means running it, and Pillow does not without one.
        and not row["file"].endswith(".eps")
    ]
    refused = [r for r in rows if r["expected"] != "accept"]
    assert {r["origin"] for r in refused}.isdisjoint(origin for origin, _ in wrong)
    assert len(wrong) <= 0.02 * (len(rows) - len(refused)), wrong
    assert not any(f["verdict"] == "fault" for r in found for f in r["findings"])


def test_no_damaged_file_takes_long() -> None:
    slow = []
    for row in labels("broken"):
        data = (DATA / "broken" / row["file"]).read_bytes()
        started = time.process_time()
        decode(data, Expected())
        if time.process_time() - started > 2:
            slow.append(row["origin"])
    assert slow == []


#: Pictures that do have a white border or strip: they were cut out of a page.
BORDERED = {f"T0{number}.webp" for number in (32, 35, 37, 38, 40, 41, 44)}


def good_pictures() -> Iterator[tuple[str, Picture]]:
    folders = ("uploads", "typography/images", "colour/images", "colour/exif")
    for file in sorted(f for folder in folders for f in (DATA / folder).iterdir()):
        picture = decode(file.read_bytes(), Expected()).picture
        if picture is not None and min(picture.rgb.shape[:2]) >= 128:
            yield file.name, picture


def test_dark_and_white_grounds_are_no_bars() -> None:
    asked = Expected(width=1, height=1, prompt="a picture")
    failing = {n for n, p in good_pictures() if Borders().run(p, asked).verdict == "fail"}
    assert failing <= BORDERED


def test_a_subject_is_hardly_ever_accused_on_real_pictures() -> None:
    asked = Expected(brand="northwind", prompt="a picture")
    verdicts = [Subject().run(p, asked).verdict for _, p in good_pictures()]
    assert verdicts.count("fail") <= 0.01 * len(verdicts)


def test_real_pictures_are_recognised_turned_and_never_accused_upright() -> None:
    tally: Counter[tuple[bool, str]] = Counter()
    for _, picture in good_pictures():
        for turns in (0, 1):
            shown = np.ascontiguousarray(np.rot90(picture.rgb, turns))
            turned = replace(picture, rgb=shown, references={"upload": picture.rgb})
            tally[turns == 0, Orientation().run(turned, Expected()).verdict] += 1
    assert tally[True, "fail"] == 0
    judged = tally[False, "fail"] + tally[False, "pass"]
    assert tally[False, "fail"] >= 0.9 * judged


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_every_exif_orientation_is_shown_upright(kind: str, number: int) -> None:
    shown = decode((DATA / "colour" / "exif" / f"{kind}_{number}.jpg").read_bytes(), Expected())
    assert shown.picture is not None
    height, width = shown.picture.rgb.shape[:2]
    assert (width > height) == (kind == "Landscape")


def test_soft_and_dark_photographs_are_no_refusals() -> None:
    files = [*(DATA / "uploads").iterdir(), *(DATA / "typography" / "images").iterdir()]
    failing: list[Path] = []
    for file in files:
        picture = decode(file.read_bytes(), Expected()).picture
        assert picture is not None
        if Refusal().run(picture, Expected(prompt="a picture")).verdict == "fail":
            failing.append(file)
    assert failing == []
