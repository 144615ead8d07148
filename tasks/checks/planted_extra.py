"""Text that nobody asked for, planted for policies under which it fails a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.check_rules import CheckRules
from tasks.checks.base import Expected, Picture
from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.suite import CHECKS, unrequested
from tasks.checks.text_match import keys
from tasks.checks.unrequested import CHECK, extra_text
from tasks.records import Finding, ImageReport

_TEXT, _LOGO = "typography.text", "composition.logo"
_RULES = CheckRules(extra_text="failure")
#: Shorter strings may stand in a logo or a picture by chance.
_LETTERS = 5


def judged(picture: Picture, expected: Expected, seen: Mapping[str, Finding]) -> Finding | None:
    """Return what is said of the text that nobody asked for, ``None`` where none was asked for.

    Args:
        picture: The picture, with what the checks left in its notes.
        expected: What it should be.
        seen: What the checks said of it already; those that are needed and are not there run now.
    """
    if not expected.intended_text:
        return None
    found = {
        check.name: seen.get(check.name) or check.run(picture, expected)
        for check in CHECKS
        if check.name in (_TEXT, _LOGO)
    }
    report = ImageReport(findings=(found[_TEXT],), **unrequested(picture, found[_LOGO].region))
    return next(iter(extra_text(expected.intended_text, report, _RULES)), None)


def one_line_more(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Set one more line; of a real picture ask for one of its strings less."""
    asked = good.expected.intended_text
    if not asked or not any(keys(text) for text in asked):
        return None
    if good.job is None or good.references:
        return good.sent(good.data, intended_text=asked[:-1]) if len(asked) > 1 else None
    from tasks.checks.planted_good import phrases

    own = keys(" ".join(asked))
    others = [
        text for text in phrases("en") if len(keys(text)) >= _LETTERS and keys(text) not in own
    ]
    return good.redrawn(text=(*good.job.text, choice(others, rng)))


DEFECTS = (Defect("one line more", CHECK, 1.0, one_line_more, "all or nothing", (1.0,)),)
