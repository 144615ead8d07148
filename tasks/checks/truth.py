"""What people say of pictures in a manifest, and where the checks say otherwise, and why.

A manifest may carry one of these columns:

- ``legible_match``: whether the intended text is legibly there (``yes``, ``no``; ``na`` and empty
  say nothing); it is compared with the check of the text;
- ``expected``: whether the file is one (``accept``, ``reject``, anything that begins with
  ``reject``); it is compared with the checks of the file;
- ``truth``: whether the picture is good (``good``, ``bad``, ``yes``, ``no``, ``pass``, ``fail``);
  it is compared with the verdict.

``level`` may say how bad it is. In a column ``strict``, ``1`` or nothing means that the row counts,
``0`` that it does not: what was intended is a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.records import Finding, ImageReport, Region

Of = Literal["text", "file", "picture"]
Seen = Literal["pass", "fail", "unmeasured"]
Kind = Literal["false pass", "false fail", "not judged"]

#: Columns by what they speak of, the first that says something counts.
COLUMNS: tuple[tuple[str, Of], ...] = (
    ("legible_match", "text"),
    ("expected", "file"),
    ("truth", "picture"),
)
_GOOD = frozenset({"yes", "accept", "good", "pass", "true", "1"})
_BAD = frozenset({"no", "bad", "fail", "false", "0"})
_NOTHING = frozenset({"", "na", "n/a", "-", "unknown"})
TEXT = "typography.text"
_JUDGED: Mapping[str, Seen] = {"pass": "pass", "fail": "fail"}


@dataclass(frozen=True, slots=True)
class Truth:
    """What a person says of a picture."""

    good: bool
    of: Of
    #: In the person's words, with the level where there is one.
    said: str


@dataclass(frozen=True, slots=True)
class Miss:
    """A picture of which the checks say something else than the person, or nothing."""

    kind: Kind
    #: What the checks say.
    verdict: Seen
    reason: str
    #: The finding behind it, where one says more.
    finding: Finding | None = None


def truth_of(text: Callable[[str], str | None]) -> Truth | None:
    """Return what a row of a manifest says of its picture, ``None`` when it says nothing.

    Args:
        text: Returns the text of a column, ``None`` without one.

    Raises:
        ValueError: A word that is none of these; it begins with the column and a colon.
    """
    strict = text("strict")
    if strict not in (None, "0", "1"):
        raise ValueError(f"strict:expected 1, 0 or nothing, got {strict[:40]!r}")
    if strict == "0":
        return None
    for column, of in COLUMNS:
        word = (text(column) or "").lower()
        if word in _NOTHING:
            continue
        good = word in _GOOD
        if not good and word not in _BAD and not word.startswith("reject"):
            raise ValueError(f"{column}:expected a word such as 'yes' or 'no', got {word[:40]!r}")
        level = text("level")
        return Truth(good, of, f"{word} ({level})" if level and level != word else word)
    return None


def seen(of: Of, report: ImageReport, verdict: Seen) -> Seen:
    """Return what the checks say of that part of a picture.

    Args:
        of: The part.
        report: What the checks found.
        verdict: The verdict on the whole picture.
    """
    if of == "picture":
        return verdict
    if of == "text":
        found = _finding(report, TEXT)
        return "unmeasured" if found is None else _JUDGED.get(found.verdict, "unmeasured")
    files = {f.verdict for f in report.findings if f.check.startswith("decode.")}
    if "fail" in files:
        return "fail"
    return "unmeasured" if "fault" in files else "pass"


def miss(truth: Truth, report: ImageReport, verdict: Seen) -> Miss | None:
    """Return where the checks depart from a person, ``None`` where they agree."""
    said = seen(truth.of, report, verdict)
    if said == ("pass" if truth.good else "fail"):
        return None
    finding = _told(truth.of, report, said)
    why = finding.message if finding is not None else ""
    if said == "unmeasured":
        return Miss("not judged", said, why or "no check could judge it", finding)
    if said == "fail":
        return Miss("false fail", said, why, finding)
    words = {
        "text": "every string was found as asked",
        "file": "the file decodes and its structure is whole",
        "picture": "no check found anything",
    }
    return Miss("false pass", said, words[truth.of], finding)


def _told(of: Of, report: ImageReport, said: Seen) -> Finding | None:
    """Return the finding that says most of it."""
    if of == "text":
        return _finding(report, TEXT)
    wanted = ("fail",) if said == "fail" else ("fault", "skip")
    some = [
        f
        for f in report.findings
        if f.verdict in wanted and (of == "picture" or f.check.startswith("decode."))
    ]
    return next((f for f in some if said != "pass"), None)


def _finding(report: ImageReport, check: str) -> Finding | None:
    return next((f for f in report.findings if f.check == check), None)


def region_of(found: Miss) -> Region | None:
    """Return the part of the picture that a miss is about."""
    return None if found.finding is None else found.finding.region


@dataclass(frozen=True, slots=True)
class Score:
    """How often the checks agree with people."""

    good: int
    #: Good pictures that pass and that fail; the rest was not judged.
    good_passed: int
    good_failed: int
    bad: int
    bad_failed: int
    bad_passed: int

    @property
    def balanced(self) -> float | None:
        """Mean of the shares of good and of bad pictures judged right, of those judged.

        ``None`` where good or bad ones lack.
        """
        good, bad = self.good_passed + self.good_failed, self.bad_passed + self.bad_failed
        if not good or not bad:
            return None
        return (self.good_passed / good + self.bad_failed / bad) / 2

    @property
    def unjudged(self) -> int:
        """Pictures of which the checks say nothing."""
        judged = self.good_passed + self.good_failed + self.bad_passed + self.bad_failed
        return self.good + self.bad - judged


def score(pairs: Iterable[tuple[bool, Seen]]) -> Score:
    """Count pairs of what a person says (good or not) and what the checks say."""
    listed = list(pairs)
    good = [said for is_good, said in listed if is_good]
    bad = [said for is_good, said in listed if not is_good]
    return Score(
        len(good),
        good.count("pass"),
        good.count("fail"),
        len(bad),
        bad.count("fail"),
        bad.count("pass"),
    )
