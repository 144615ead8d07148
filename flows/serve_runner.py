"""Prefect's runner in a thread, so that signals are ours and running gates can end as HOLD."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from tasks.errors import GateError

#: Seconds between signs of life of a flow run, by which Prefect's server sees that it died.
HEARTBEAT_S = 30


class RunnerThread:
    """Starts the flow runs of the deployments it was given, each as a process of its own.

    Args:
        limit: Flow runs at one time.
    """

    def __init__(self, limit: int) -> None:
        # Schedules outlive this process: a restart goes on with them.
        self._runner = Runner(
            name="imagegate",
            pause_on_shutdown=False,
            limit=limit,
            query_seconds=2,
            heartbeat_seconds=HEARTBEAT_S,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def add(self, deployment: RunnerDeployment) -> None:
        """Register a deployment and serve it from the start on."""
        self._runner.add_deployment(deployment)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            await self._runner.start()

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            self._error = error

    def check(self) -> None:
        """Raise what ended the runner, if it ended.

        Raises:
            GateError: The runner does not work any more.
        """
        if not self._thread.is_alive():
            raise GateError(f"the runner of the flow runs stopped: {self._error!r}")

    def running(self) -> int:
        """Return how many flow runs are under way."""
        return len(self._runner._process_manager.flow_run_ids())

    def end(self, grace_s: float, say: Callable[[str], None]) -> None:
        """Take no more runs, let those under way end as HOLD, cancel what is left after that.

        Args:
            grace_s: Seconds for the runs under way.
            say: Told what is waited for.
        """
        runner, loop = self._runner, self._loop
        if loop is None or not self._thread.is_alive():
            return
        poller = getattr(runner, "_scheduled_run_poller", None)
        if poller is not None:
            poller.stopping = True
        try:
            self._let_end(grace_s, say)
        finally:
            # What is left is cancelled by this: its state says so, and it can be resumed.
            done = asyncio.run_coroutine_threadsafe(runner.astop(), loop)
            with contextlib.suppress(Exception):
                done.result(60)
            self._thread.join(60)

    def _let_end(self, grace_s: float, say: Callable[[str], None]) -> None:
        manager = self._runner._process_manager
        under_way = manager.flow_run_ids()
        if under_way:
            say(f"Waiting for {len(under_way)} flow run(s) to end, at most {grace_s:.0f} s")
        for flow_run_id in under_way:
            handle = manager.get(flow_run_id)
            if handle is not None and handle.pid is not None:
                # A gate takes SIGINT as "end as HOLD"; in a terminal it got Ctrl-C already.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(handle.pid, signal.SIGINT)
        deadline = time.monotonic() + grace_s
        while self.running() and self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.1)
