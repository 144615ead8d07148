"""What every step of one run shares: settings, state database, folder, images, stop signal."""

from __future__ import annotations

import threading

from tasks.images import ImageStore
from tasks.plan import RunFolder
from tasks.settings import Settings
from tasks.state import State


class RunContext:
    """The surroundings of a run.

    A plain class on purpose: Prefect walks through containers and models among a task's
    arguments to look for futures, and leaves objects like this one alone.

    Args:
        settings: Where things lie.
        state: The open state database.
        run_id: The run.
        stop: Set when the run should end cleanly, as HOLD.
    """

    def __init__(
        self, settings: Settings, state: State, run_id: str, stop: threading.Event
    ) -> None:
        self.settings = settings
        self.state = state
        self.run_id = run_id
        self.stop = stop
        self.folder = RunFolder(settings.runs / run_id)
        self.images = ImageStore(settings.images)
        self._held: str | None = None

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
