"""All checks on one picture: decoded once, every check on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypedDict

from tasks.checks import consistency, duplicates
from tasks.checks.base import EXTRA_BOXES, Check, Expected, Picture, Role, placed
from tasks.checks.blank import Blank, Refusal
from tasks.checks.borders import Borders
from tasks.checks.colour import Cast, Palette
from tasks.checks.colour_channels import Channels
from tasks.checks.colour_space import summary
from tasks.checks.composition import BlankPart, Margins
from tasks.checks.decode import VERSION as DECODE_VERSION
from tasks.checks.decode import decode
from tasks.checks.edit import Kept, Light, Noise, Outside
from tasks.checks.exposure import Contrast, Exposure
from tasks.checks.geometry import Aspect, Orientation, Size
from tasks.checks.icc import Profile
from tasks.checks.logo import Logo
from tasks.checks.look import look_of
from tasks.checks.subject import Subject
from tasks.checks.text_match import keys
from tasks.checks.typography import NOT_JUDGED, Text
from tasks.checks.upscale import Detail, Faithful, Halos
from tasks.checks.upscale_text import Text as UpscaledText
from tasks.records import Case, Finding, Generation, ImageReport, Region, digest_json

#: In the order of the report; decoding goes before all of them.
CHECKS: tuple[Check, ...] = (
    Size(),
    Aspect(),
    Borders(),
    Orientation(),
    Text(),
    Profile(),
    Cast(),
    Channels(),
    Palette(),
    Exposure(),
    Contrast(),
    Blank(),
    BlankPart(),
    Margins(),
    Subject(),
    Logo(),
    Outside(),
    Kept(),
    Noise(),
    Light(),
    Faithful(),
    UpscaledText(),
    Halos(),
    Detail(),
    Refusal(),
)
_BLANK, _LOGO = "composition.blank", "composition.logo"
#: What is said of a text that nobody can judge.
NO_WORD = "not judged"
#: What can be judged on a picture of one colour.
_FOR_BLANK = frozenset({"geometry.size", "geometry.aspect", "typography.text", _BLANK})


def check_picture(
    data: bytes,
    expected: Expected,
    references: Mapping[Role, bytes] | None = None,
    extra: Sequence[Check] = (),
    *,
    size: int = 0,
    on_check: Callable[[Check | None], None] = lambda _: None,
) -> ImageReport:
    """Run every check on the bytes of a file.

    Args:
        data: The file, untrusted.
        expected: What the picture should be.
        references: Files that it is judged against.
        extra: Checks that the policy asks for, after the built-in ones.
        size: Of the file, where ``data`` is only its beginning; see :func:`decode.read_file`.
        on_check: Called with each check before it runs, and with ``None`` when it has ended.

    Returns:
        One finding for each check. An unreadable file fails ``decode.file`` and all others skip;
        a check that breaks is a ``fault`` of its own and changes nothing for the others.
    """
    started = time.process_time()
    checks = (*CHECKS, *extra)
    decoded = decode(data, expected, size)
    picture = decoded.picture
    findings = list(decoded.findings)
    if picture is not None and references:
        found = {role: decode(file, Expected()).picture for role, file in references.items()}
        pixels = {role: None if one is None else one.rgb for role, one in found.items()}
        picture = replace(picture, references=pixels)
    if picture is None:
        findings += [_skip(check, "the file does not decode") for check in checks]
        return ImageReport(
            findings=tuple(findings), seconds=round(time.process_time() - started, 4)
        )
    judged = {}
    blank = _run(next(c for c in CHECKS if c.name == _BLANK), picture, expected, on_check)
    for check in checks:
        if check.name == _BLANK:
            judged[check.name] = blank
        elif blank.verdict == "fail" and check.name not in _FOR_BLANK:
            judged[check.name] = _skip(check, "the picture is blank")
        else:
            judged[check.name] = _run(check, picture, expected, on_check)
    findings += judged.values()
    height, width = picture.rgb.shape[:2]
    fingerprint = _fingerprint(picture, findings)
    look = _look(picture, findings) if expected.grouped else ""
    return ImageReport(
        findings=tuple(findings),
        read_text=picture.notes.get("read_text", ()),
        fingerprint=fingerprint,
        colour=_colour(picture),
        width=width,
        height=height,
        text_severity=_severities(picture, expected),
        **unrequested(picture, judged[_LOGO].region if _LOGO in judged else None),
        look=look,
        seconds=round(time.process_time() - started, 4),
    )


def _run(
    check: Check, picture: Picture, expected: Expected, on_check: Callable[[Check | None], None]
) -> Finding:
    on_check(check)
    try:
        return check.run(picture, expected)
    except Exception as error:  # noqa: BLE001 - a broken check is a fault, never a bad picture
        return Finding(
            check=check.name,
            version=check.version,
            verdict="fault",
            higher_is_better=check.higher_is_better,
            message=f"the check broke: {type(error).__name__}: {error}"[:300],
        )
    finally:
        on_check(None)


def _skip(check: Check, why: str) -> Finding:
    return Finding(
        check=check.name,
        version=check.version,
        verdict="skip",
        higher_is_better=check.higher_is_better,
        message=why,
    )


def _fingerprint(picture: Picture, findings: list[Finding]) -> str | None:
    """Return the fingerprint; a fault is booked where it cannot be taken."""
    try:
        return duplicates.fingerprint(picture.rgb)
    except Exception as error:  # noqa: BLE001 - a fault of the check, not of the picture
        findings.append(_broken(duplicates.CHECK, duplicates.VERSION, error))
        return None


def _colour(picture: Picture) -> tuple[float, ...]:
    try:
        return tuple(round(value, 3) for value in summary(picture.rgb))
    except Exception:  # noqa: BLE001 - without a summary the picture is left out of the drift
        return ()


def _look(picture: Picture, findings: list[Finding]) -> str:
    """Return the look; a fault is booked for each check that would need it and cannot have it."""
    try:
        return look_of(picture.rgb).packed()
    except Exception as error:  # noqa: BLE001 - a fault of the check, not of the picture
        findings += [
            _broken(name, consistency.VERSION, error)
            for name in (consistency.CAMPAIGN, consistency.REPEAT)
        ]
        return ""


def _broken(name: str, version: str, error: Exception) -> Finding:
    message = f"the check broke: {type(error).__name__}: {error}"[:300]
    return Finding(check=name, version=version, verdict="fault", message=message)


def _severities(picture: Picture, expected: Expected) -> tuple[str, ...]:
    """Return a word for each text asked for; those without a letter to read are not judged."""
    words = iter(picture.notes.get("text_severity", ()))
    if not picture.notes.get("text_severity"):
        return ()
    return tuple(next(words, NO_WORD) if keys(text) else NO_WORD for text in expected.intended_text)


class Unrequested(TypedDict):
    """The part of a report on text that nobody asked for."""

    extra_text: tuple[str, ...]
    extra_regions: tuple[Region, ...]


def unrequested(picture: Picture, logo: Region | None) -> Unrequested:
    """Return the text that nobody asked for; what stands in the brand's logo was asked for."""
    places = [placed(note) for note in picture.notes.get(EXTRA_BOXES, ())]
    lines = picture.notes.get("extra_text", ())
    kept = [
        (line, place)
        for line, place in zip(lines, places, strict=True)
        if logo is None or not _inside(place, logo)
    ]
    return {
        "extra_text": tuple(line for line, _ in kept),
        "extra_regions": tuple(place for _, place in kept),
    }


def _inside(place: Region, other: Region) -> bool:
    """Say whether the middle of a place lies in another."""
    x, y = place.x + place.width / 2, place.y + place.height / 2
    return other.x <= x <= other.x + other.width and other.y <= y <= other.y + other.height


def expected_for(case: Case, generation: Generation) -> Expected:
    """Return what the picture of a generation should be."""
    return Expected(
        intended_text=case.expected_text,
        language=case.locale,
        width=case.width,
        height=case.height,
        aspect=case.width / case.height,
        brand=case.brand,
        subtask=case.subtask,
        declared_mime=generation.declared_mime,
        prompt=case.prompt,
        expect=case.expect,
        grouped=case.campaign is not None or case.repeat is not None,
    )


def picture_verdict(
    report: ImageReport, expected: Expected, told_only: Collection[str] = ()
) -> Literal["pass", "fail", "unmeasured"]:
    """Return the verdict on a picture: any failure fails it, and doubt is never a pass.

    Args:
        report: What the checks found.
        expected: What the picture should be.
        told_only: Checks that, by the policy, fail no picture.
    """
    verdicts = {f.verdict for f in report.findings if f.check not in told_only}
    if "fail" in verdicts:
        return "fail"
    unread = expected.intended_text and any(
        f.verdict == "skip" and f.message.startswith(NOT_JUDGED) for f in report.findings
    )
    if "fault" in verdicts or "pass" not in verdicts or unread:
        return "unmeasured"
    return "pass"


def suite_version() -> str:
    """Return a digest over the names and versions of all checks."""
    versions = {check.name: check.version for check in CHECKS}
    versions["decode"] = DECODE_VERSION
    versions[duplicates.CHECK] = duplicates.VERSION
    return digest_json(versions)
