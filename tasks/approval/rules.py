"""When a person is asked, who may answer, and what the answer makes of the verdict: pure.

Everything unknown counts against a promotion: an unknown cost has risen, a run with a gap is
nobody's to wave through, an answer without a name is none.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime
from typing import Literal

from tasks.policy import ApprovalRule
from tasks.records import Metrics, Record, Verdict

#: Characters that nobody sees in a name: control and format characters that are no white space,
#: joiners, fillers and variation selectors, halves of pairs.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

Decision = Literal["approved", "rejected"]
ApprovalStatus = Literal["pending", "approved", "rejected", "expired"]


class Approval(Record):
    """What a person was asked about one run, and what came of it."""

    schema_version: int = 1
    run_id: str
    product: str
    status: ApprovalStatus
    #: Why a person is asked, as a sentence.
    asked_because: str
    requester: str
    requested_at: str
    expires_at: str
    #: The machine's own verdict, which stays what it is.
    verdict: Verdict
    #: Who may decide, as the policy of the run says.
    rules: ApprovalRule
    decided_by: str | None = None
    decided_at: str | None = None
    #: ``command``, ``prefect``, ``slack``, ``expiry``, ``rollback`` or ``run``.
    decided_via: str | None = None
    reason: str | None = None
    journal_id: int = 0
    #: Prefect's flow run that is suspended for the answer, if one is.
    flow_run_id: str | None = None

    def overdue(self, now: datetime) -> bool:
        """Tell whether nobody decided in time."""
        return self.status == "pending" and now >= datetime.fromisoformat(self.expires_at)


def needed(rule: ApprovalRule, verdict: Verdict, metrics: Metrics, *, complete: bool) -> str | None:
    """Return why a person is asked, as a sentence; ``None`` when nobody is.

    A ROLLBACK never waits. A HOLD is a person's to overrule only where the policy says so and
    the run is whole: what nobody measured, nobody can vouch for.

    Args:
        rule: The policy's section.
        verdict: The machine's verdict.
        metrics: The figures.
        complete: See :func:`is_whole`.
    """
    if verdict.verdict == "ROLLBACK":
        return None
    if verdict.verdict == "HOLD":
        if "hold" in rule.require and complete:
            return "The machine holds, and the policy lets a person decide."
        return None
    if "always" in rule.require:
        return "The policy asks a person before every promotion."
    if "cost_rise" in rule.require:
        return _cost_rise(rule, metrics)
    return None


def unasked(rule: ApprovalRule, verdict: Verdict) -> Verdict:
    """Return the verdict of a run that nobody is asked about, and say so where one might expect it.

    Only for verdicts for which :func:`needed` returned ``None``.
    """
    if verdict.verdict != "HOLD" or "hold" not in rule.require:
        return verdict
    why = "Nobody is asked to overrule this HOLD: the run is not whole. Resume it, or start anew."
    return verdict.model_copy(update={"warnings": (*verdict.warnings, why)})


def is_whole(
    *,
    planned: int,
    finished: int,
    baseline_finished: int,
    stopped: str | None,
    unmeasured: int,
    unanswered: int,
) -> bool:
    """Tell whether everything that the plan foresees was done and measured.

    Args:
        planned: Cases of the plan.
        finished: Cases that the candidate finished.
        baseline_finished: The same for the baseline.
        stopped: Why the run ended early, if it did.
        unmeasured: Pictures of either arm on which a check itself broke.
        unanswered: Expectations that the data could not answer.
    """
    return (
        planned > 0
        and finished == planned == baseline_finished
        and stopped is None
        and unmeasured == 0
        and unanswered == 0
    )


def _cost_rise(rule: ApprovalRule, metrics: Metrics) -> str | None:
    before = metrics.baseline.effective_cost_per_1k_usd
    after = metrics.candidate.effective_cost_per_1k_usd
    if before is None or after is None or not _is_cost(before) or not _is_cost(after):
        return (
            "The effective cost of the candidate or of the baseline is unknown, which counts as "
            f"risen by more than {100 * rule.cost_rise:g} %."
        )
    # A product instead of a ratio: it also holds for a baseline that costs nothing.
    if after <= before * (1 + rule.cost_rise):
        return None
    return (
        f"The effective cost of 1,000 usable images rises from ${before:.2f} to ${after:.2f}; the "
        f"policy asks a person above {100 * rule.cost_rise:g} %."
    )


def _is_cost(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def person(name: str) -> str:
    """Return a name as it is compared: ``Ada``, ``@ada`` and ``ada@host`` are one person.

    Case, spacing, the look of letters (full width), invisible characters and what follows an
    ``@`` make no difference. The result is empty when nothing of a name is left.
    """
    text, before = name, None
    # Folding can bring out what has to be dropped, and dropping what has to be composed anew.
    while text != before:
        before = text
        text = "".join(c for c in text if not _INVISIBLE.match(c))
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = " ".join(text.split())
    return text.lstrip("@").partition("@")[0].strip()


def may_decide(
    approval: Approval, *, decision: Decision, by: str, reason: str, now: datetime
) -> str | None:
    """Return why this person may not decide this now, as a sentence; ``None`` when they may.

    The one who asked for the run may always withdraw it, by a rejection.
    """
    return (
        _closed(approval, now)
        or _unsigned(approval, by, reason)
        or _without_authority(approval, decision, by)
    )


def _closed(approval: Approval, now: datetime) -> str | None:
    if approval.status != "pending":
        return f"Run {approval.run_id} was decided already: {outcome(approval)}"
    if approval.overdue(now):
        return (
            f"The approval of run {approval.run_id} expired at {moment(approval.expires_at)}; "
            "start a new run with `imagegate run`."
        )
    return None


def _unsigned(approval: Approval, by: str, reason: str) -> str | None:
    missing = "the name of who decides" if not person(by) else ""
    if not missing and not reason.strip():
        missing = "its reason, for those who look at it later"
    return f"Run {approval.run_id}: a decision needs {missing}." if missing else None


def _without_authority(approval: Approval, decision: Decision, by: str) -> str | None:
    run, rules, who = approval.run_id, approval.rules, person(by)
    until = f"It waits until {moment(approval.expires_at)}."
    own = who == person(approval.requester)
    if own and decision == "rejected":
        return None
    if own and not rules.requester_may_approve:
        return (
            f"{by} asked for run {run} and may not approve it: the policy wants a second person. "
            f"{_who_may(approval)} {until}"
        )
    if rules.approvers and who not in {person(name) for name in rules.approvers}:
        return f"{by} may not decide about run {run}. {_who_may(approval)} {until}"
    return None


def _who_may(approval: Approval) -> str:
    rules = approval.rules
    own = person(approval.requester)
    names = [n for n in rules.approvers if rules.requester_may_approve or person(n) != own]
    if names:
        return f"It may be approved by {', '.join(names)}."
    if rules.approvers:
        return "Nobody else stands in the policy's list of approvers."
    return "Anybody else may approve it."


def waits(approval: Approval | None) -> bool:
    """Tell whether a person was asked who did not answer yet."""
    return approval is not None and approval.status == "pending"


def outcome(approval: Approval) -> str:
    """Return what came of the question, in one sentence."""
    if approval.status == "pending":
        return f"waits for a person until {moment(approval.expires_at)}."
    at, why = moment(approval.decided_at or ""), approval.reason or ""
    if approval.status == "expired":
        # Silence ran out; a rollback, or another verdict, took the ground away.
        word = "expired" if approval.decided_via == "expiry" else "became void"
        return f"{word} at {at}: {why}"
    by, via = approval.decided_by, _VIA.get(approval.decided_via or "", "")
    return f"{approval.status} by {by} at {at}{via}: {why}"


def sentence(approval: Approval) -> str:
    """Return question and answer in one text: why, what the machine said, who decided what."""
    return (
        f"{approval.asked_because} The machine said {approval.verdict.verdict}; "
        f"{approval.requester} had asked for the run. Run {approval.run_id} {_was(approval)}"
    )


def _was(approval: Approval) -> str:
    if approval.status == "pending":
        return outcome(approval)
    if approval.status == "expired":
        return f"was not approved: the question {outcome(approval)}"
    return f"was {outcome(approval)}"


_VIA = {
    "command": " on the command line",
    "prefect": " in Prefect",
    "slack": " in Slack",
}


def commands(run_id: str) -> tuple[str, str]:
    """Return the commands that approve and reject a run."""
    return (
        f"imagegate approve {run_id} --why TEXT",
        f"imagegate reject {run_id} --why TEXT",
    )


def decided(verdict: Verdict, approval: Approval) -> Verdict:
    """Return what the machine's verdict becomes by the answer; without one it is a HOLD.

    An approval counts for the verdict that the person was asked about and for no other.
    """
    if approval.status == "pending":
        approve, reject = commands(approval.run_id)
        return _held(
            f"Waits for a person until {moment(approval.expires_at)}: `{approve}`, or `{reject}`. "
            f"{approval.asked_because}",
            verdict,
        )
    if approval.status == "expired":
        return _held(f"Not promoted: the approval {outcome(approval)}", verdict)
    if approval.status == "rejected":
        return _held(f"Not promoted: {outcome(approval)}", verdict)
    said = outcome(approval)
    if verdict.verdict != approval.verdict.verdict:
        return _held(
            f"Not promoted: {said}; but that was about a {approval.verdict.verdict}, and the "
            f"figures now say {verdict.verdict}. Start a new run.",
            verdict,
        )
    if verdict.verdict == "HOLD":
        against = verdict.reasons[0] if verdict.reasons else "The machine holds."
        why = f"{_upper(said)}; although the machine holds: {against}"
        return verdict.model_copy(update={"verdict": "PROMOTE", "reasons": (why, *verdict.reasons)})
    return verdict.model_copy(update={"reasons": (*verdict.reasons, _upper(said))})


def _held(why: str, verdict: Verdict) -> Verdict:
    # The proofs and what was saved stay with it: only what follows from them changes.
    return verdict.model_copy(update={"verdict": "HOLD", "reasons": (why, *verdict.reasons)})


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def moment(text: str) -> str:
    """Return an ISO-8601 moment as people read it, in UTC to the minute."""
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    return at.strftime("%Y-%m-%d %H:%M UTC")
