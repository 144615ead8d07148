"""The ``imagegate`` command: one function a subcommand, heavy imports only where needed.

Exit codes: 0 PROMOTE or done, 1 ROLLBACK, 2 usage or configuration (nothing spent), 3 HOLD,
4 the gate itself broke, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from flows.cli_io import emit, emitted, err
from tasks.errors import GateError, ImagegateError
from tasks.settings import Settings, load_settings

#: Exit code of wrong flags and wrong files.
USAGE = 2
#: That of Ctrl-C.
INTERRUPTED = 130

app = typer.Typer(
    name="imagegate",
    help="Release gate for image-generation model mixes: freeze, sample, run, check, measure, "
    "validate, then promote or roll back.",
    epilog="Exit codes: 0 PROMOTE or done · 1 ROLLBACK · 2 bad input, nothing spent · 3 HOLD · "
    "4 the gate broke.  First try: imagegate run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)


def _mount() -> None:
    """Put every sub-command in its place; the files they live in are light to import."""
    from flows import (
        cli_alerts,
        cli_approval,
        cli_budget,
        cli_canary,
        cli_check,
        cli_db,
        cli_deploy,
        cli_evidence,
        cli_live,
        cli_metrics,
        cli_models,
        cli_operate,
        cli_plan,
        cli_retests,
        cli_run,
        cli_slack,
        cli_watchdog,
    )

    def add(panel: str, name: str, function: Callable[..., None], *examples: str) -> None:
        said = "Examples:  " if len(examples) > 1 else "Example:  "
        epilog = said + "  ·  ".join(f"imagegate {line}" for line in examples) if examples else None
        app.command(name, epilog=epilog, rich_help_panel=panel)(function)

    gate, production = "The gate", "Production"
    add(
        gate,
        "run",
        cli_run.run,
        "run",
        "run --candidate mixes/new.yaml --cases 300",
        "run --inputs log.parquet --budget-usd 5",
        "run --resume RUN",
    )
    add(
        gate,
        "plan",
        cli_plan.plan,
        "plan --limit 2% --promote-below 3% --rate 1% --price 0.04",
        "plan --policy my.yaml --plot plan.svg",
    )
    add(
        gate,
        "simulate",
        cli_plan.simulate,
        "simulate --rate 1%",
        "simulate --rate 1% --slices 'locale=th@5%:15%' --policy my.yaml --runs 20000",
    )
    add(gate, "check", cli_check.check, "check pictures/", "check --manifest labels.csv")
    add(gate, "approvals", cli_approval.approvals)
    why = "--why 'seen with the brand team'"
    add(gate, "approve", cli_approval.approve, "approve", f"approve RUN {why}")
    add(gate, "reject", cli_approval.reject, f"reject RUN {why}")
    app.add_typer(cli_retests.retests, name="retests", rich_help_panel=gate)
    app.add_typer(cli_models.models, name="models", rich_help_panel=gate)
    add(gate, "history", cli_operate.history)
    add(gate, "report", cli_operate.report)

    add(production, "status", cli_operate.status)
    app.add_typer(cli_canary.canary, name="canary", rich_help_panel=production)
    add(
        production,
        "rollback",
        cli_operate.rollback,
        "rollback --reason 'garbled text reported'",
        "rollback --to sha256:7cc1…",
    )
    add(production, "freeze", cli_operate.freeze, "freeze --reason 'holiday season' --days 21")
    add(production, "thaw", cli_operate.thaw)
    app.add_typer(cli_live.watch, name="watch", rich_help_panel=production)
    add(production, "drill", cli_live.drill, "drill", "drill --shadow storefront-drill")
    add(
        production,
        "budget",
        cli_budget.budget,
        "budget",
        "budget --product storefront --plot b.png",
    )

    people, servers = "On-call", "Schedules and servers"
    app.add_typer(cli_alerts.alerts, name="alerts", rich_help_panel=people)
    cli_alerts.alerts.command(
        "preview", epilog="Example:  imagegate alerts preview --sample rollback --png p.png"
    )(cli_slack.preview)
    app.add_typer(cli_slack.slack, name="slack", rich_help_panel=people)
    add(people, "watchdog", cli_watchdog.watchdog, "watchdog", "watchdog --once --json")

    add(servers, "serve", cli_deploy.serve, "serve", "serve --port 4300 --limit 8")
    add(
        servers,
        "deploy",
        cli_deploy.deploy,
        "deploy --pool gates",
        "deploy --pool cluster --type kubernetes --image registry.example.com/imagegate:1",
    )
    add(servers, "schedules", cli_deploy.schedules)
    add(servers, "automations", cli_watchdog.automations, "automations apply")
    add(servers, "metrics", cli_metrics.metrics, "metrics", "metrics --serve 9464")
    app.add_typer(cli_db.db, name="db", rich_help_panel=servers)
    app.add_typer(cli_evidence.evidence, name="evidence", rich_help_panel=servers)
    add(servers, "doctor", cli_operate.doctor)


_mount()


def guard(command: Callable[[], Any], *, as_json: bool) -> int:
    """Run the command and return its exit code; turn every error into a sentence.

    Args:
        command: What to run.
        as_json: Print the error as a JSON object on stdout as well.
    """
    try:
        command()
    except ImagegateError as error:
        err.print("error:", style="bold red", end=" ")
        err.print(str(error), markup=False)
        if as_json:
            _emit_error(str(error), error, error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        err.print("\nstopped; nothing was changed after the last finished step")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last door: say it, keep the details, exit 4
        where = _keep_crash(load_settings())
        text = f"imagegate itself broke: {type(error).__name__}: {error}"
        err.print("error:", style="bold red", end=" ")
        err.print(f"{text}\nThis is not a verdict. Details: {where}", markup=False)
        if as_json:
            _emit_error(text, error, 4)
        return 4
    return 0


def _emit_error(text: str, error: Exception, code: int) -> None:
    # Where stdout itself is what broke, stderr has said so.
    with contextlib.suppress(GateError):
        emit({"error": text, "kind": type(error).__name__, "exit_code": code})


def _keep_crash(settings: Settings) -> str:
    """Write the traceback to a file and return where it lies."""
    text = traceback.format_exc()
    target = Path(settings.home) / "crash.log"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError:
        return text
    return str(target)


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    sys.exit(_main(arguments))


def _main(arguments: list[str]) -> int:
    code = 0
    if sys.stdout is None:
        # The next file opened would get its number, and what is printed.
        err.print("error: standard output is closed; nothing was done", style="bold red")
        return 4

    def command() -> None:
        nonlocal code
        try:
            app(args=arguments, prog_name="imagegate", standalone_mode=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
            if code == INTERRUPTED:
                raise KeyboardInterrupt from None  # Typer says nothing of it.

    as_json = "--json" in arguments
    code = guard(command, as_json=as_json) or code
    if code == USAGE and as_json and not emitted():
        emit({"error": "wrong usage; stderr says how", "kind": "UsageError", "exit_code": code})
    return code
