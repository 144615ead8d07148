"""One pass of the watchdog, and the loop around it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tasks.settings import Settings, prefect_api_url
from tasks.state import State
from tasks.watchdog.act import Done, act
from tasks.watchdog.check import look
from tasks.watchdog.facts import beat, read_facts, said
from tasks.watchdog.model import Facts, Fault, Limits, Trouble
from tasks.watchdog.prefect_side import PrefectSide

#: Carries out decided and expired approvals and returns what it did, in sentences. It belongs to
#: the flows, so whoever starts the watchdog hands it over.
CarryOut = Callable[[State, Settings], Sequence[str]]

#: Seconds that one pass spends on delivering alerts.
DELIVERY_S = 8.0
#: Longest pause after passes that failed, in seconds.
MOST_PAUSE_S = 60.0


@dataclass(slots=True)
class Pass:
    """What one pass saw and did."""

    at: str
    prefect: str
    troubles: list[Trouble] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    delivered: int = 0
    undelivered: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def standing(self) -> list[Trouble]:
        """The troubles that people are told of."""
        return [trouble for trouble in self.troubles if trouble.alarm]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "at": self.at,
            "prefect": self.prefect,
            "troubles": [
                {k: v for k, v in asdict(trouble).items() if k != "alarm"}
                for trouble in self.standing
            ],
            "told": self.told,
            "closed": self.closed,
            "done": self.done,
            "delivered": self.delivered,
            "undelivered": self.undelivered,
            "faults": [asdict(fault) for fault in self.faults],
        }


def prefect_side() -> PrefectSide | None:
    """Return the configured server, ``None`` without one."""
    url = prefect_api_url()
    return None if url is None else PrefectSide(url)


def run_once(
    settings: Settings,
    now: datetime | None = None,
    *,
    carry_out: CarryOut | None = None,
    limits: Limits | None = None,
    name: str | None = None,
) -> Pass:
    """Look, act, carry out approvals and deliver; idempotent, and safe in several at once.

    Args:
        settings: Where things lie and whom to tell.
        now: The present moment; the system's clock by default.
        carry_out: Carries out decided and expired approvals.
        limits: How patient to be.
        name: Row of ``heartbeats`` that is to show this pass; none without it.

    Raises:
        StateError: The state database does not answer. Everything else is a fault of the pass.
    """
    now, limits = now or datetime.now(UTC), limits or Limits()
    state = State(settings.state_url.get_secret_value(), home=settings.home)
    try:
        prefect = prefect_side()
        facts = read_facts(state, settings, now, prefect, limits)
        troubles = look(facts, limits)
        approvals = None if carry_out is None else partial(carry_out, state, settings)
        done = act(state, settings, facts, troubles, prefect, approvals)
        return finish(state, settings, facts, troubles, done, name=name)
    finally:
        state.close()


def finish(
    state: State,
    settings: Settings,
    facts: Facts,
    troubles: list[Trouble],
    done: Done,
    *,
    name: str | None = None,
) -> Pass:
    """Deliver the outbox and give a sign of life; return the whole pass."""
    result = Pass(
        at=facts.now.astimezone(UTC).isoformat(timespec="seconds"),
        prefect=facts.prefect,
        troubles=troubles,
        told=done.told,
        closed=done.closed,
        done=done.done,
        faults=[*facts.faults, *done.faults],
    )
    try:
        _deliver(state, settings, result)
    except Exception as error:  # noqa: BLE001 - what waits is tried again in the next pass
        result.faults.append(Fault("delivery", said(error)))
    if name is not None:
        beat(state, name, facts.now, f"{socket.gethostname()} {os.getpid()}")
    return result


def _deliver(state: State, settings: Settings, result: Pass) -> None:
    from tasks.alerts.delivery import deliver_all

    report = deliver_all(state, settings, DELIVERY_S)
    result.delivered, result.undelivered = len(report.delivered), report.left


def run_forever(
    settings: Settings,
    stop: threading.Event,
    every_s: float = 10.0,
    *,
    carry_out: CarryOut | None = None,
    on_pass: Callable[[Pass], None] | None = None,
    on_error: Callable[[str], None] | None = None,
    limits: Limits | None = None,
) -> None:
    """Keep watch until ``stop`` is set; a pass that fails is told to ``on_error`` and repeated.

    Args:
        settings: Where things lie and whom to tell.
        stop: Ends the loop, at once while it pauses.
        every_s: Seconds between two passes; longer, up to a minute, while they fail.
        carry_out: Carries out decided and expired approvals.
        on_pass: Called with each pass.
        on_error: Called with a sentence when a pass could not be done at all.
        limits: How patient to be.
    """
    name = f"watchdog:{socket.gethostname()}"
    aside = None if carry_out is None else Aside(carry_out)
    failures = 0
    while not stop.is_set():
        try:
            result = run_once(settings, carry_out=aside, limits=limits, name=name)
        except Exception as error:  # noqa: BLE001 - a watchdog that ends by an error watches nothing
            failures += 1
            if on_error is not None:
                on_error(f"the watchdog could not look: {said(error)}")
        else:
            failures = 0
            if on_pass is not None:
                on_pass(result)
        stop.wait(min(every_s * 2**failures, max(MOST_PAUSE_S, every_s)))


class Aside:
    """Carries out approvals beside the watch: one that resumes a gate here takes minutes.

    Args:
        carry_out: What is done, one at a time, with a database connection of its own.
    """

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out
        self._thread: threading.Thread | None = None
        self._done: list[str] = []
        self._error: Exception | None = None

    def __call__(self, _state: State, settings: Settings) -> Sequence[str]:
        """Return what was done since the last call, and start anew when nothing is under way.

        Raises:
            Exception: What went wrong since the last call.
        """
        if self._thread is not None and self._thread.is_alive():
            return ()
        done, error = self._done, self._error
        self._done, self._error = [], None
        self._thread = threading.Thread(
            target=self._run, args=(settings,), name="watchdog-approvals", daemon=True
        )
        self._thread.start()
        if error is not None:
            raise error
        return done

    def _run(self, settings: Settings) -> None:
        try:
            state = State(settings.state_url.get_secret_value(), home=settings.home)
            try:
                self._done = list(self._carry_out(state, settings))
            finally:
                state.close()
        except Exception as error:  # noqa: BLE001 - told by the next pass
            self._error = error
