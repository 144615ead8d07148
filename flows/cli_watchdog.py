"""``imagegate watchdog`` and ``imagegate automations``: the watch over the gate itself."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.errors import ConfigError
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from tasks.watchdog.loop import Pass

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

#: Exit code when there are troubles: the gate, not a picture, is not well.
TROUBLED = 4


def watchdog(
    once: Annotated[
        bool, typer.Option("--once", help="Look once, act, say what is wrong, stop.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds between two looks.")
    ] = 10.0,
    as_json: Json = False,
) -> None:
    """Keep watch: resume dead gates, say what was missed or not delivered, mend the router."""
    settings = load_settings()
    if once:
        _once(settings, as_json)
    else:
        _forever(settings, every, as_json)


def _once(settings: Settings, as_json: bool) -> None:
    from flows.cli_io import emit, say
    from flows.watch import carry_out
    from flows.watch_words import lines
    from tasks.watchdog.loop import run_once

    result = run_once(settings, carry_out=carry_out)
    if as_json:
        emit(result.to_dict())
    else:
        for line in lines(result):
            say(line)
    if result.standing or result.faults:
        raise typer.Exit(TROUBLED)


def _forever(settings: Settings, every: float, as_json: bool) -> None:
    from flows.cli_io import emit, err, say
    from flows.watch import carry_out
    from flows.watch_words import lines
    from tasks.watchdog.loop import run_forever

    stop = threading.Event()

    def show(result: Pass) -> None:
        if as_json:
            emit(result.to_dict())
            return
        for line in lines(result, changes_only=True):
            say(line)

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    err.print(f"Keeping watch every {every:g} s; Ctrl-C stops.", markup=False)
    run_forever(
        settings,
        stop,
        every,
        carry_out=carry_out,
        on_pass=show,
        on_error=lambda text: err.print(text, markup=False),
    )
    err.print("The watch ended.", markup=False)


def automations(
    action: Annotated[str, typer.Argument(help="apply, list or remove")] = "list",
    as_json: Json = False,
) -> None:
    """Create, list or remove imagegate's automations on Prefect's server."""
    from flows.cli_io import emit, say

    if action not in ("apply", "list", "remove"):
        raise ConfigError(
            f"imagegate automations: unknown action {action!r} (known: apply, list, remove)"
        )
    shown = _automations(action)
    if as_json:
        emit(shown)
        return
    for row in shown["automations"]:
        say(f"{row['state']:<9} {row['name']}: {row['what']}")
    for text in shown["left_out"]:
        say(f"left out  {text}")
    if not shown["automations"]:
        say("no automations of imagegate are on this server; `imagegate automations apply`")


def _automations(action: str) -> dict[str, Any]:
    """Do it on the configured server and return the rows to show."""
    from tasks.settings import prefect_api_url

    settings = load_settings()
    if prefect_api_url() is None:
        raise ConfigError(
            "imagegate automations: no server is configured, and the one that a single run brings "
            "ends with it; set PREFECT_API_URL, e.g. http://127.0.0.1:4200/api"
        )
    from deployments.automations import applied, listed, removed
    from flows.prefect_env import prepare_prefect

    prepare_prefect(settings.home, lambda _text: None)
    if action == "apply":
        return applied(settings)
    return listed() if action == "list" else removed()
