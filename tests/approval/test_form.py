from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flows.approval_form import ApprovalForm, answer, describe, figures
from tasks.policy import ApprovalRule
from tests.approval.test_rules import answered, approval, costs
from tests.evidence.builders import HOSTILE, a_view

GOOD = {"decision": "approve", "who": "Grace", "why": "seen with the brand team"}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tasks.images import ImageStore

    return a_view(cases=5, store=ImageStore(tmp_path_factory.mktemp("images")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"decision": "maybe"},
        {"who": ""},
        {"who": "x"},
        {"who": "  "},
        {"why": ""},
        {"why": "    "},
        {"why": "x" * 2001},
        {"more": "x"},
    ],
)
def test_a_form_filled_in_wrongly_is_refused(wrong: dict[str, str]) -> None:
    ApprovalForm(**GOOD)
    with pytest.raises(ValidationError):
        ApprovalForm(**(GOOD | wrong))


@pytest.mark.parametrize("status", ["approved", "rejected", "expired"])
@pytest.mark.parametrize("by", ["x", "y" * 200, None])
def test_every_answer_fits_the_form(status: str, by: str | None) -> None:
    for reason in ("", "z" * 3000, None):
        data = answer(answered(status, decided_by=by, reason=reason))
        form = ApprovalForm(**data)
        assert (form.decision == "approve") == (status == "approved")


def test_the_description_has_what_the_decision_needs(view: Any) -> None:
    text = describe(view.plan, view.metrics, approval(), report="`imagegate report`")
    for word in (
        "asks to replace",
        "The policy asks.",
        "says **PROMOTE**",
        "2026-11-26 12:00 UTC",
        "failure rate",
        "effective cost / 1,000",
        "imagegate approve",
        "imagegate reject",
        "Ada@laptop",
    ):
        assert word in text, word
    assert "did not count" not in text
    again = describe(view.plan, view.metrics, approval(), report="x", refused="Linus may not.")
    assert again.startswith("**That answer did not count:** Linus may not.")


def test_foreign_text_shows_literally(view: Any) -> None:
    from tasks.records import Verdict

    asked = approval(
        asked_because=HOSTILE,
        requester=HOSTILE,
        verdict=Verdict(verdict="HOLD", reasons=(HOSTILE,)),
        rules=ApprovalRule(require=("hold",)),
    )
    text = describe(view.plan, view.metrics, asked, report="x", refused=HOSTILE)
    for bad in ("<script", "<img", "](javascript", "\u202e", "\x1b", "<!channel>"):
        assert bad not in text, bad


def test_unknown_figures_are_called_unknown() -> None:
    rows = {name: (before, after) for name, before, after in figures(costs(None, 19.5))}
    assert rows["effective cost / 1,000"] == ("unknown", "$19.50")
