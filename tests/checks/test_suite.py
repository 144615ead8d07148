from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from PIL import ImageChops

from tasks.checks import suite
from tasks.checks.base import Expected, Picture
from tasks.checks.suite import CHECKS, check_picture, expected_for, picture_verdict, suite_version
from tasks.records import Case, Finding, Generation, ImageReport
from tests.checks.drawing import encoded, poster, scene

NAMES = {
    "decode.file", "decode.mime", "decode.still",
    "geometry.size", "geometry.aspect", "geometry.borders", "geometry.orientation",
    "typography.text",
    "colour.profile", "colour.cast", "colour.channels", "colour.palette", "colour.exposure",
    "colour.contrast",
    "composition.blank", "composition.blank_part", "composition.margins", "composition.subject",
    "composition.logo",
    "edit.outside", "edit.kept", "edit.noise", "edit.light",
    "upscale.faithful", "upscale.text", "upscale.halos", "upscale.detail",
    "safety.refusal",
}  # fmt: skip


def verdicts(report: ImageReport) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in report.findings}


def test_every_check_answers_once() -> None:
    report = check_picture(encoded(scene()), Expected(width=512, height=512))
    assert len(report.findings) == len(NAMES)
    assert set(verdicts(report)) == NAMES
    assert (report.width, report.height) == (512, 512)
    assert report.fingerprint is not None
    assert report.seconds > 0
    assert picture_verdict(report, Expected()) == "pass"


def test_the_text_read_is_reported() -> None:
    report = check_picture(encoded(poster("Good", "Morning")), Expected(intended_text=("Good",)))
    assert report.read_text == ("Good", "Morning")


@pytest.mark.parametrize(("shift", "verdict"), [(0, "pass"), (-30, "fail")])
def test_margins_are_judged_where_the_reader_knows_the_place_of_the_text(
    shift: int, verdict: str
) -> None:
    moved = ImageChops.offset(poster("Good Morning"), shift, 0)
    asked = Expected(intended_text=("Good Morning",), brand="northwind")
    found = {f.check: f for f in check_picture(encoded(moved), asked).findings}
    assert found["typography.text"].verdict == "pass"
    assert found["composition.margins"].verdict == verdict
    assert (found["composition.margins"].region is not None) == bool(shift)
    unread = check_picture(encoded(moved), replace(asked, intended_text=()))
    assert verdicts(unread)["composition.margins"] == "skip"


def test_an_unreadable_file_fails_once_and_skips_the_rest() -> None:
    report = check_picture(
        encoded(scene())[:3000], Expected(intended_text=("x",), brand="northwind")
    )
    found = verdicts(report)
    assert found.pop("decode.file") == "fail"
    assert set(found.values()) == {"skip"}
    assert report.fingerprint is None
    assert picture_verdict(report, Expected()) == "fail"


def test_a_blank_picture_is_called_blank_and_nothing_else() -> None:
    from PIL import Image

    data = encoded(Image.new("RGB", (256, 256), "white"))
    found = verdicts(check_picture(data, Expected(brand="northwind", prompt="x")))
    assert [name for name, verdict in found.items() if verdict == "fail"] == ["composition.blank"]


@dataclass(frozen=True)
class Broken:
    name: str = "colour.broken"
    version: str = "7"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        raise RuntimeError("no luck")


def test_a_check_that_breaks_is_a_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "CHECKS", (Broken(), *CHECKS))
    report = check_picture(encoded(scene()), Expected())
    fault = next(f for f in report.findings if f.verdict == "fault")
    assert (fault.check, fault.version, fault.higher_is_better) == ("colour.broken", "7", False)
    assert "RuntimeError: no luck" in fault.message
    assert verdicts(report)["composition.blank"] == "pass"
    assert picture_verdict(report, Expected()) == "unmeasured"


def finding(verdict: str, message: str = "") -> Finding:
    return Finding(check="a.b", version="1", verdict=verdict, message=message)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "intended", "verdict"),
    [
        (["pass", "skip"], (), "pass"),
        (["pass", "fail", "fault"], (), "fail"),
        (["pass", "fault"], (), "unmeasured"),
        (["skip"], (), "unmeasured"),
        ([], (), "unmeasured"),
    ],
)
def test_the_verdict_on_a_picture(
    found: list[str], intended: tuple[str, ...], verdict: str
) -> None:
    report = ImageReport(findings=tuple(finding(v) for v in found))
    assert picture_verdict(report, Expected(intended_text=intended)) == verdict


def test_text_that_no_reader_covers_is_never_a_pass() -> None:
    report = ImageReport(findings=(finding("pass"), finding("skip", "not covered: ru")))
    assert picture_verdict(report, Expected(intended_text=("Привет",))) == "unmeasured"
    assert picture_verdict(report, Expected()) == "pass"


def test_what_a_case_expects() -> None:
    case = Case(
        case_id="c", prompt="p", subtask="typography", locale="de", width=640, height=480,
        expected_text=("Hallo",), brand="northwind", expect="refusal",
    )  # fmt: skip
    generation = SimpleNamespace(declared_mime="image/png")
    assert expected_for(case, generation) == Expected(  # type: ignore[arg-type]
        intended_text=("Hallo",), language="de", width=640, height=480, aspect=640 / 480,
        brand="northwind", subtask="typography", declared_mime="image/png", prompt="p",
        expect="refusal",
    )  # fmt: skip
    assert "declared_mime" in Generation.model_fields


def test_the_version_follows_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    before = suite_version()
    assert before.startswith("sha256:")
    assert suite_version() == before
    monkeypatch.setattr(suite, "CHECKS", (*CHECKS, Broken()))
    assert suite_version() != before
