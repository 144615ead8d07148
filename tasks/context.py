"""What every step of one run shares: settings, state database, folder, images, stop signal."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from tasks.errors import TakenOverError
from tasks.evidence.remote import open_remote
from tasks.heartbeat import Heartbeat
from tasks.images import ImageStore
from tasks.plan import RunFolder
from tasks.runs import taken_over
from tasks.settings import Settings
from tasks.state import State


class Either:
    """Set when one of two signals is."""

    def __init__(self, one: threading.Event, other: threading.Event) -> None:
        self._one, self._other = one, other

    def is_set(self) -> bool:
        """Tell whether one of them was set."""
        return self._one.is_set() or self._other.is_set()


class RunContext:
    """The surroundings of a run.

    A plain class on purpose: Prefect walks through containers and models among a task's
    arguments to look for futures, and leaves objects like this one alone.

    Args:
        settings: Where things lie.
        state: The open state database.
        run_id: The run.
        stop: Set when the run should end cleanly, as HOLD.
        flow_run_id: Prefect's flow run that drives the run, if any.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        run_id: str,
        stop: threading.Event,
        flow_run_id: str | None = None,
    ) -> None:
        self.settings = settings
        self.state = state
        self.run_id = run_id
        self.stop = stop
        #: Set when the evidence decided: nothing more is generated or checked.
        self.decided = threading.Event()
        #: What the harness listens to.
        self.halt = Either(stop, self.decided)
        self.flow_run_id = flow_run_id
        #: Says why an upscaled picture is not true to its source, "" when it is; see the harness.
        self.supervise: Callable[[bytes, bytes], str] | None = None
        #: Reduces a picture to a width and height, for the routes that ask for it.
        self.scale: Callable[[bytes, int, int], bytes] | None = None
        #: True when the run has its plan from before.
        self.resumes = False
        #: Tells this process from others that drive, or drove, the same run.
        self.driver = secrets.token_hex(8)
        #: Where the workers share evidence, ``None`` when it stays on this machine.
        self.remote = open_remote(settings)
        self.folder = RunFolder(settings.runs / run_id, self.remote)
        self.images = ImageStore(settings.images, self.remote)
        self._held: str | None = None
        self._heartbeat: Heartbeat | None = None
        self._lost = False

    def begin_heartbeat(self) -> None:
        """Give signs of life from now on; the run must be booked with this driver."""
        if self._heartbeat is None:
            self._heartbeat = Heartbeat(self.state, self.run_id, self.driver, self._on_lost)
            self._heartbeat.start()

    def end_heartbeat(self) -> None:
        """Give no more signs of life."""
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def check_driver(self) -> None:
        """Pass while this process drives the run.

        Raises:
            TakenOverError: Another process does: this one must not act any more.
        """
        if self._lost:
            raise TakenOverError(taken_over(self.run_id))

    def _on_lost(self) -> None:
        self._lost = True
        self.hold("another process took the run over")

    def hold(self, reason: str) -> None:
        """Stop the run for a reason of its own, e.g. a spend cap; the first reason stays."""
        # One assignment, so shards in several threads need no lock for it.
        self._held = self._held or reason
        self.stop.set()

    @property
    def stopped(self) -> str | None:
        """Why the run was stopped, ``None`` while it was not."""
        if self._held is not None:
            return self._held
        return "the run was interrupted by a person" if self.stop.is_set() else None
