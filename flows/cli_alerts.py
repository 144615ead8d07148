"""``imagegate alerts``: what people were not told yet, delivery, a real test, acknowledgement."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.alerts_deeds import acknowledge_now, deliver_now, listed, send_test
from flows.alerts_words import render, render_test
from tasks.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

alerts = typer.Typer(
    help="Messages to people: what waits, delivery, a test, and who takes care.",
    epilog="Examples:  imagegate alerts  ·  imagegate alerts deliver --watch  ·  "
    "imagegate alerts test --severity page",
    invoke_without_command=True,
)


@alerts.callback()
def _alerts(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _show(listed(load_settings()), as_json)


@alerts.command("list")
def list_(as_json: Json = False) -> None:
    """List the messages that wait and the alarms that last."""
    _show(listed(load_settings()), as_json)


@alerts.command()
def deliver(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C or SIGTERM: the outbox worker.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what waits; exit code 4 when something could not be sent."""
    settings = load_settings()
    if watch:
        _watch(settings, as_json)
        return
    shown = deliver_now(settings)
    _show(shown, as_json)
    if shown["pending"] and shown["failed_now"]:
        raise typer.Exit(4)


@alerts.command(
    "test",
    epilog="Exit code 4 when no way took it. Nothing is queued: what this says is what happened.",
)
def try_out(
    severity: Annotated[
        str, typer.Option(help="info, warning or page; a page mentions on-call.")
    ] = "info",
    product: Annotated[str | None, typer.Option(help="Route as for this product.")] = None,
    as_json: Json = False,
) -> None:
    """Send a real message by the real ways, and say which one took it."""
    from flows.cli_io import emit, say

    told = send_test(load_settings(), severity, product)
    if as_json:
        emit(told)
    else:
        say(render_test(told))
    if told["via"] is None:
        raise typer.Exit(4)


@alerts.command(epilog="Example:  imagegate alerts ack run:20261125-031500-summer-1f2e")
def ack(
    key: Annotated[str, typer.Argument(help="Key of the alarm; `imagegate alerts` lists them.")],
    owner: Annotated[str | None, typer.Option(help="Who takes care; default: user@host.")] = None,
    as_json: Json = False,
) -> None:
    """Say that you take care of an alarm: its thread shows it."""
    from flows.cli_io import emit, say, whoami

    done = acknowledge_now(load_settings(), key, owner or whoami())
    if as_json:
        emit(done)
    else:
        say(f"{done['key']}: acknowledged by {done['by']}")


def _show(shown: dict[str, Any], as_json: bool) -> None:
    from flows.cli_io import emit, say

    if as_json:
        emit(shown)
    else:
        say(render(shown))


def _watch(settings: Settings, as_json: bool) -> None:
    """Deliver until a person or the system ends it."""
    import signal
    import threading

    from flows.cli_io import emit, say
    from flows.operate import opened
    from tasks.alerts.delivery import DeliveryReport
    from tasks.alerts.worker import OutboxWorker

    def seen(report: DeliveryReport) -> None:
        shown = {
            "delivered_now": report.delivered,
            "failed_now": report.failed,
            "left": report.left,
        }
        if as_json:
            emit(shown)
            return
        for key in report.delivered:
            say(f"delivered by {report.via.get(key, '?')}: {key}")
        for key, why in report.failed.items():
            say(f"not delivered: {key}: {why}")

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with opened(settings) as state, OutboxWorker(state, settings, seen=seen):
        stop.wait()
