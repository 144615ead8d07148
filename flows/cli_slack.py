"""``imagegate slack``: listen for the buttons in messages, and look at messages without Slack."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.errors import ConfigError
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    import threading


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

slack = typer.Typer(
    help="Buttons in Slack messages, and pictures of messages.",
    no_args_is_help=True,
)


@slack.command(
    epilog="Needs SLACK_APP_TOKEN (xapp-…, scope connections:write) and SLACK_BOT_TOKEN "
    "(xoxb-…, scope chat:write) of the app in deployments/slack-app.yaml; no port is "
    "opened. Who may press what: authority in deployments/alerts.yaml."
)
def listen() -> None:
    """Listen for presses of Acknowledge, Roll back, Approve and Reject, until Ctrl-C."""
    import signal
    import threading

    settings = load_settings()
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    listen_until(settings, stop)


def listen_until(settings: Settings, stop: threading.Event) -> None:
    """Listen for clicks until ``stop`` is set.

    Raises:
        ConfigError: A token is missing or refused, or ``alerts.yaml`` cannot be read.
    """
    app_token, bot_token = settings.slack_app_token, settings.slack_token
    if app_token is None or bot_token is None:
        missing = [
            name
            for name, token in (("SLACK_APP_TOKEN", app_token), ("SLACK_BOT_TOKEN", bot_token))
            if token is None
        ]
        raise ConfigError(
            f"imagegate slack listen: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set. Socket Mode needs an app-level token "
            "(xapp-…) and a bot token (xoxb-…) of the same Slack app"
        )
    # Its sections are read before the first click, so that a mistake is seen now.
    from tasks.alerts.config import load_alerts

    load_alerts(settings.alerts_file)
    from flows.slack_deeds import CommandDeeds
    from tasks.alerts.interactive.handler import Handler
    from tasks.alerts.interactive.listener import Listener, find_workspace
    from tasks.alerts.interactive.speaker import SlackSpeaker, web_client
    from tasks.state import State

    web = web_client(bot_token, settings.slack_base_url)
    workspace = find_workspace(web)
    state = State(settings.state_url.get_secret_value())
    try:
        handler = Handler(
            state,
            lambda: load_alerts(settings.alerts_file),
            workspace,
            CommandDeeds(state, settings, _log),
            SlackSpeaker(web, state, _log),
            _log,
        )
        Listener(app_token, web, state, handler.handle, _log).run(stop)
    finally:
        state.close()
    _log("stopped")


def _log(text: str) -> None:
    """Write one line an event on stderr; what is foreign in it moves no cursor."""
    from tasks.alerts.text import clean
    from tasks.records import utc_now

    line = f"{utc_now()} slack: {clean(text)}\n"
    sys.stderr.write(line.encode("utf-8", "backslashreplace").decode("utf-8"))
    sys.stderr.flush()


@slack.command(
    epilog="Examples:  imagegate slack preview --sample rollback --png rollback.png  ·  "
    "imagegate slack preview 20261125-021407-aurora-5f3c"
)
def preview(
    run_id: Annotated[
        str | None, typer.Argument(help="Show the thread of this run; default: the newest.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Show one message of the outbox.")] = None,
    sample: Annotated[
        str | None,
        typer.Option(help="rollback, promote, hold, failure, budget or approval."),
    ] = None,
    png: Annotated[
        str | None, typer.Option(help="Write a picture (needs Chromium).", metavar="FILE")
    ] = None,
    html: Annotated[str | None, typer.Option(help="Write the page.", metavar="FILE")] = None,
    phone: Annotated[bool, typer.Option("--phone", help="As narrow as a phone.")] = False,
    as_json: Json = False,
) -> None:
    """Draw a message with its thread as Slack shows it, without Slack."""
    from flows.slack_preview import kept
    from flows.slack_preview import sample as sampled
    from tasks.alerts.preview import DESKTOP, PHONE, page

    if sum(given is not None for given in (run_id, key, sample)) > 1:
        raise ConfigError("imagegate slack preview: give one of RUN, --key and --sample")
    settings = load_settings()
    width = PHONE if phone else DESKTOP
    shown, channel = kept(settings, run_id, key) if sample is None else sampled(settings, sample)
    text = page(shown, channel=channel, width=width)
    written = _write(settings, text, width, png=png, html=html)
    line = json.dumps({"files": written}) if as_json else "\n".join(written)
    sys.stdout.write(line + "\n")


def _write(
    settings: Settings, text: str, width: int, *, png: str | None, html: str | None
) -> list[str]:
    """Write what was asked for, the page by default, and return the paths."""
    from tasks.plan import write_atomic

    written = []
    if html is not None or png is None:
        target = Path(html) if html is not None else settings.home / "slack-preview.html"
        written.append(str(write_atomic(target.resolve(), text.encode("utf-8"))))
    if png is not None:
        from tasks.alerts.picture import write_png

        written.append(str(write_png(text, Path(png).resolve(), width=width)))
    return written
