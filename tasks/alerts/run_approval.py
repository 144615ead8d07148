"""A run that waits for a person, in its thread: the question, and what came of it.

Nobody is mentioned for it: the question is shown in the channel beside the thread, and the first
message says that the run waits and for how long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.incidents import shown_time
from tasks.alerts.kit import Button
from tasks.alerts.links import word
from tasks.alerts.messages import Notice
from tasks.alerts.run_parts import about, put_notice, show_on_root
from tasks.alerts.threads import root_notice, run_thread
from tasks.state import State, within
from tasks.tables import mixes, runs

#: The first words of a first message while its run waits.
WAITING = "WAITING FOR APPROVAL"
_TOPIC = "gate.waiting"


def run_waits(
    state: State | Connection,
    run_id: str,
    *,
    product: str,
    because: str,
    until: str,
    links: Sequence[tuple[str, str]] = (),
) -> bool:
    """Tell that a run waits for a person, with both commands and buttons; once a run.

    Args:
        state: The database, or an open transaction on it.
        run_id: The run.
        product: Its product.
        because: Why a person is asked, as a sentence.
        until: When the wait ends without a promotion, UTC ISO-8601.
        links: Where to decide, e.g. the form in Prefect's UI.

    Returns:
        ``False`` when it was told before.
    """
    with within(state) as connection:
        root = root_notice(connection, run_thread(run_id))
        ends = shown_time(until)
        question = Notice(
            title=f"{WAITING}: {about(root) or product}",
            severity="warning",
            product=product,
            emoji="🙋",
            lines=(
                f"Users: {_users(connection, run_id)} until somebody decides.",
                f"Until: {ends}; without an answer it is not promoted.",
                f"Why: {because}",
            ),
            asked=(
                f"to promote: `imagegate approve {word(run_id)} --why 'seen and good'`",
                f"or not: `imagegate reject {word(run_id)} --why 'what is wrong'`",
            ),
            links=tuple(links),
            run_id=run_id,
            mention=False,
            broadcast=True,
            brief=f"{WAITING}: {product[:40]} production is unaffected; decide until {ends}",
        )
        buttons = (
            Button("approve", run_id=run_id, product=product),
            Button("reject", run_id=run_id, product=product),
        )
        # Before the question, so that whoever comes to the thread by it finds the buttons there.
        told = show_on_root(
            connection, run_id, "step:approval", replace(question, buttons=buttons), _TOPIC
        )
        return put_notice(connection, run_id, "step:approval", "reply", question, _TOPIC) or told


def run_answered(
    state: State | Connection,
    run_id: str,
    *,
    product: str,
    step: str,
    title: str,
    lines: Sequence[str],
    links: Sequence[tuple[str, str]] = (),
) -> bool:
    """Tell what came of the question, and take it from the first message.

    Args:
        state: The database, or an open transaction on it.
        run_id: The run.
        product: Its product.
        step: Names the answer; each is told once.
        title: The answer in capitals, e.g. ``REJECTED``.
        lines: Who, when, and why.
        links: Words and where they lead.

    Returns:
        ``False`` when it was told before.
    """
    with within(state) as connection:
        root = root_notice(connection, run_thread(run_id))
        answer = Notice(
            title=f"{title}: {about(root) or product}",
            severity="info",
            product=product,
            emoji="✅" if title.startswith("APPROVED") else "",
            lines=tuple(lines),
            links=tuple(links),
            run_id=run_id,
        )
        told = put_notice(connection, run_id, f"step:{step}", "reply", answer, "gate.progress")
        # A run that ended meanwhile shows its end.
        if told and root is not None and root.title.startswith(f"{WAITING}:"):
            show_on_root(connection, run_id, f"step:{step}", answer, "gate.progress")
        return told


def _users(connection: Connection, run_id: str) -> str:
    """Return what users get while the run waits."""
    serves = connection.execute(
        sa.select(mixes.c.name)
        .join(runs, runs.c.baseline_digest == mixes.c.digest)
        .where(runs.c.run_id == run_id)
    ).scalar()
    return f"they get {serves}" if serves else "nothing changes for them"
