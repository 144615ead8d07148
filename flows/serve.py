"""``imagegate serve``: everything on one machine, from Prefect's server to the watchdog.

Prefect's server (ours, or the one of PREFECT_API_URL)
├── the deployments, registered from code and schedules.yaml
├── a runner that starts their flow runs as processes
├── the watchdog's loop
└── a reporter: one line when a gate starts or ends, and why a refused one was refused
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from deployments.schedule_file import ScheduleFile, load_schedules
from flows.deploying import check_server, set_automations
from flows.prefect_env import prefect_defaults
from flows.prefect_server import own_server
from flows.schedule_list import next_run, timings
from tasks.records import utc_now
from tasks.settings import Settings, prefect_api_url

if TYPE_CHECKING:
    from deployments.registry import Registered
    from flows.serve_runner import RunnerThread

Say = Callable[[str], None]

#: Seconds that running gates are given to end as HOLD before they are cancelled.
GRACE_S = 120.0
#: Seconds between two looks of the reporter.
REPORT_S = 5.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve."""

    host: str = "127.0.0.1"
    port: int = 4200
    #: Flow runs at one time, all deployments together.
    limit: int = 4


def serve(settings: Settings, options: ServeOptions, say: Say) -> None:
    """Serve all deployments until SIGINT or SIGTERM.

    Raises:
        ConfigError: The schedules are wrong, the port is taken, or the server refuses a deployment.
        GateError: The server or the runner stopped working.
    """
    file = load_schedules(settings.schedules_file)
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_signals(stop, say))
        url = prefect_api_url()
        # Of a server that is not ours it is not known whether it has the newer UI.
        ui = "" if url is not None else "/v2"
        if url is None:
            say("Starting Prefect's server (about 20 seconds)")
            url = stack.enter_context(own_server(settings.home, options.port, options.host))
        _prepare_environment(settings, url)
        check_server(url)
        from flows.serve_runner import RunnerThread

        runner = RunnerThread(options.limit)
        registered = _register(settings, file, runner, say)
        for line in _welcome(url, url.removesuffix("/api") + ui, file, registered):
            say(line)
        stack.callback(stop.set)  # Also when something breaks: the threads end with us.
        runner.start()
        over = threading.Event()
        stack.callback(over.set)
        threads = [_watchdog(settings, stop), _reporter(registered, over, say)]
        try:
            while not stop.wait(0.5):
                runner.check()
        finally:
            stop.set()
            runner.end(GRACE_S, say)
            over.set()
            for thread in threads:
                thread.join(30)
    say("Stopped. Schedules stay registered and go on with the next `imagegate serve`.")


@contextmanager
def _signals(stop: threading.Event, say: Say) -> Iterator[None]:
    """End in order at the first SIGINT or SIGTERM, at once at the second."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        # Printing from a handler may interrupt a print that holds the console's lock.
        text = "Stopping: gates that run end as HOLD and can be resumed; once more to abort"
        threading.Thread(target=say, args=(text,), daemon=True).start()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare_environment(settings: Settings, url: str) -> None:
    """Set what this process and its flow runs go by; must run before Prefect is imported."""
    environ = os.environ  # noqa: TID251 - Prefect reads its settings from the environment
    environ["PREFECT_API_URL"] = url
    environ |= prefect_defaults(environ, settings.home)
    # A flow run may have another current folder.
    environ |= {
        "IMAGEGATE_HOME": str(settings.home),
        "IMAGEGATE_ROUTING_FILE": str(settings.routing_file),
        "IMAGEGATE_ALERTS_FILE": str(settings.alerts_file),
        "IMAGEGATE_BUDGETS_FILE": str(settings.budgets_file),
        "IMAGEGATE_SCHEDULES_FILE": str(settings.schedules_file),
    }
    if settings.rollout_file is not None:
        environ["IMAGEGATE_ROLLOUT_FILE"] = str(settings.rollout_file)


def _register(
    settings: Settings, file: ScheduleFile, runner: RunnerThread, say: Say
) -> list[Registered]:
    """Register the deployments at the server, the automations, and the schedules in our book."""
    from prefect.client.orchestration import get_client

    from deployments.registry import build_deployments, code_version, register, retire
    from deployments.schedule_book import book_schedules
    from tasks.state import State

    with get_client(sync_client=True) as client:
        planned = build_deployments(file, version=code_version())
        registered = register(client, planned, apply=runner.add)
        retire(client, file)
        for remark in set_automations(client, settings):
            say(f"! {remark}")
    state = State(settings.state_url.get_secret_value())
    try:
        book_schedules(state, file, utc_now())
    finally:
        state.close()
    return registered


def _welcome(url: str, ui: str, file: ScheduleFile, registered: list[Registered]) -> Iterator[str]:
    now = datetime.now(UTC)
    yield f"Prefect's UI: {ui}"
    yield f"Gates of this terminal show there too: PREFECT_API_URL={url} imagegate run"
    plans = timings(file)
    for one in registered:
        timing = plans.get(one.name)
        zone = file.timezone if timing is None else file.zone(timing)
        when = next_run(timing, zone, now)
        how = "on demand" if timing is None else f"next {when}  ({timing.text()})"
        yield f"  {one.name:<28} {how}  [{one.change}]"
    for one in registered:
        if one.name.startswith("release-gate/"):
            yield f"Start one by hand: {ui}/deployments/deployment/{one.id}/run"
    yield "Ctrl-C stops."


def _watchdog(settings: Settings, stop: threading.Event) -> threading.Thread:
    """Start the loop that looks for dead runs, missed schedules and undelivered alerts."""
    from flows.watch import carry_out
    from tasks.watchdog.loop import run_forever

    thread = threading.Thread(
        target=run_forever,
        args=(settings, stop),
        kwargs={"carry_out": carry_out},
        name="watchdog",
        daemon=True,
    )
    thread.start()
    return thread


def _reporter(registered: list[Registered], over: threading.Event, say: Say) -> threading.Thread:
    from flows.serve_report import Reporter

    names = {one.id: one.name for one in registered}
    reporter = Reporter(names, say)

    def loop() -> None:
        while True:
            # The last look comes when all runs have ended, to say how.
            ended = over.wait(REPORT_S)
            reporter.look()
            if ended:
                return

    thread = threading.Thread(target=loop, name="reporter", daemon=True)
    thread.start()
    return thread
