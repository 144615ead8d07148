"""What people are told about a run that waits for one of them, in its thread."""

from __future__ import annotations

from tasks.alerts.delivery import deliver_pending
from tasks.alerts.links import report_address, run_links
from tasks.alerts.run_approval import run_answered, run_waits
from tasks.approval import store
from tasks.approval.rules import Approval, outcome
from tasks.settings import Settings
from tasks.state import State


def tell(state: State, settings: Settings, approval: Approval) -> None:
    """Queue the question, or what came of it, for the thread of the run; each is told once."""
    run_id = approval.run_id
    with state.begin() as connection:
        links = run_links(connection, settings, run_id)
        if approval.status == "pending":
            said = approval.verdict.reasons[0] if approval.verdict.reasons else ""
            run_waits(
                connection,
                run_id,
                product=approval.product,
                because=(
                    f"{approval.asked_because} The machine says {approval.verdict.verdict}: {said}"
                ),
                until=approval.expires_at,
                links=links,
            )
            return
        run_answered(
            connection,
            run_id,
            product=approval.product,
            step=f"approval-{approval.status}",
            title=_title(approval),
            lines=(
                f"Users: {_users(approval)}.",
                f"Decision: the run {_was(approval)}",
                f"Asked because: {approval.asked_because}",
            ),
            links=links,
        )


def deliver_question(state: State, settings: Settings, run_id: str) -> str:
    """Send the question before the process ends, and return a sentence on whether it went."""
    sentence, _ = deliver_pending(state, settings, f"gate:{run_id}:step:approval")
    return sentence


def tell_closed(state: State, settings: Settings, product: str) -> None:
    """Queue what became of the questions of a product whose runs did not come to their end yet."""
    for approval in store.closed_waiting(state, product):
        tell(state, settings, approval)


def report_place(settings: Settings, run_id: str) -> str:
    """Return where the report is, as markdown: a link, or the command that says where it lies."""
    address = report_address(settings, run_id)
    if address.startswith(("https://", "http://")):
        # No bracket or blank can stand in it: the run's name is quoted.
        return f"<{address}>"
    return f"`imagegate report {run_id}` says where it lies"


def _title(approval: Approval) -> str:
    """Return the answer, in capitals first; what it is about follows."""
    if approval.status in ("approved", "rejected"):
        return approval.status.upper()
    if approval.decided_via == "expiry":
        return "EXPIRED, nobody decided"
    return "VOID, there is nothing to approve any more"


def _users(approval: Approval) -> str:
    if approval.status == "approved":
        return "nothing changed for them yet; the promotion is verified next"
    return "nothing changes for them, it was not promoted"


def _was(approval: Approval) -> str:
    if approval.status == "expired":
        return f"was not approved: the question {outcome(approval)}"
    return f"was {outcome(approval)}"
