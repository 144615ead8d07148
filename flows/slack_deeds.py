"""What a press of a button in Slack does: the same functions that the command line calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from tasks.alerts.interactive.decide import Aim
from tasks.errors import ImagegateError, RefusedError
from tasks.settings import Settings
from tasks.state import State

#: Seconds that sending what a deed left in the outbox may take.
_DELIVERY_S = 10.0


class CommandDeeds:
    """Deeds for :class:`tasks.alerts.interactive.handler.Handler`.

    Args:
        state: The database.
        settings: Where things lie.
        log: Takes one line an event.
    """

    def __init__(self, state: State, settings: Settings, log: Callable[[str], None]) -> None:
        self._state, self._settings, self._log = state, settings, log
        self._resuming = threading.Lock()

    def acknowledge(self, key: str, actor: str) -> str:
        """Note that a person takes care of an alarm.

        Raises:
            RefusedError: Nothing is open, or somebody takes care already.
        """
        from tasks.alerts.incidents import acknowledge, read_incident

        if acknowledge(self._state, key, actor):
            return f"Acknowledged by {actor}."
        found = read_incident(self._state, key)
        if found is None or found.status != "open":
            raise RefusedError("This alarm is over; there is nothing to acknowledge any more.")
        raise RefusedError(f"{found.acknowledged_by} acknowledged this alarm already.")

    def roll_back(self, aim: Aim, actor: str, reason: str) -> str:
        """Put a mix back, as ``imagegate rollback`` does.

        Raises:
            ImagegateError: Production moved meanwhile, or the router did not take it.
        """
        from flows.operate import rollback

        done = rollback(
            self._settings,
            aim.product,
            aim.to,
            actor,
            reason,
            expected_epoch=aim.epoch,
            expected_mixes=aim.mixes,
        )
        before = "" if done["changed"] else " already, nothing had to change;"
        return (
            f"↩️ Rolled back by {actor}: {aim.product} serves {done['mix_name']}{before} "
            f"verified at the router in {done['seconds']:.2f} s."
        )

    def decide(
        self, run_id: str, decision: Literal["approved", "rejected"], by: str, reason: str
    ) -> str:
        """Decide about a run that waits and let it go on, as ``imagegate approve`` does.

        Raises:
            RefusedError: It waits for nobody, or not for this person.
        """
        from flows.approval_resume import carry_on
        from flows.approval_words import tell
        from tasks.approval.store import decide

        approval = decide(self._state, run_id, decision=decision, by=by, reason=reason, via="slack")
        tell(self._state, self._settings, approval)
        carried = carry_on(self._state, self._settings, approval)
        said = f"{decision.capitalize()} by {by}."
        if carried.way != "here":
            return f"{said} {carried.sentence}"
        # It takes minutes; a rollback pressed meanwhile must not wait for it.
        threading.Thread(target=self._resume, name="imagegate-resume", daemon=True).start()
        return f"{said} Run {run_id} goes on now; its end comes into its thread."

    def _resume(self) -> None:
        """Let every decided run go on; one at a time, since each looks for all of them."""
        from flows.approval_resume import resume_decided

        with self._resuming:
            try:
                for carried in resume_decided(self._state, self._settings):
                    self._log(carried.sentence)
            except ImagegateError as error:
                self._log(f"decided runs were not resumed: {error}")

    def deliver(self) -> None:
        """Send what waits in the outbox, for seconds at the most."""
        from tasks.alerts.delivery import deliver_all

        try:
            deliver_all(self._state, self._settings, _DELIVERY_S)
        except ImagegateError:
            return  # What is not sent stays in the outbox, where `imagegate alerts` shows it.
