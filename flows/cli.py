"""The ``imagegate`` command: one function a subcommand, heavy imports only where needed.

Exit codes: 0 PROMOTE or done, 1 ROLLBACK, 2 usage or configuration (nothing spent), 3 HOLD,
4 the gate itself broke.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tasks.errors import ConfigError, ImagegateError
from tasks.settings import Settings, load_settings

#: Exit code of wrong flags and wrong files.
USAGE = 2
EXIT_CODES = {"PROMOTE": 0, "ROLLBACK": 1, "HOLD": 3}

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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Product = Annotated[str, typer.Option("--product", help="The product whose production is meant.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Who asks; default: user@host.")]
DEFAULT_PRODUCT = "storefront"

err = Console(stderr=True, highlight=False)


def whoami() -> str:
    """Return ``user@host`` of the person at the keyboard."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


_SAID = {"json": False}


def emit(value: Any) -> None:
    """Print one JSON object on stdout."""
    _SAID["json"] = True
    say(json.dumps(value, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """Print a line for people on stdout; a reader that went away does not change the verdict."""
    try:
        # A lone half of a surrogate pair cannot be written; it is shown, not fatal.
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command(
    epilog="Examples:  imagegate run  ·  imagegate run --candidate mixes/new.yaml --cases 300  ·  "
    "imagegate run --inputs log.parquet --budget-usd 5  ·  imagegate run --resume RUN"
)
def run(
    candidate: Annotated[
        str | None, typer.Option(help="Mix that asks to replace production.", metavar="FILE")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Mix to compare with; default: what serves now.", metavar="FILE"),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="The gate's limits.", metavar="FILE")] = None,
    catalog: Annotated[str | None, typer.Option(help="Trusted models.", metavar="FILE")] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            help="Production log: CSV, TSV, JSONL, Parquet, text (one prompt a line), or a "
            "database as 'URL::SELECT …'.",
            metavar="PATH_OR_SQL_URL",
        ),
    ] = None,
    cases: Annotated[int | None, typer.Option(min=1, help="How many cases to judge.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option("--budget-usd", help="Hard cap on this run's spend in dollars.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of sample and pictures.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a stopped or killed run.", metavar="RUN")
    ] = None,
    owner: Owner = None,
    junit: Annotated[
        str | None,
        typer.Option(help="Write JUnit XML: a test case a slice and check.", metavar="FILE"),
    ] = None,
    summary: Annotated[
        str | None, typer.Option(help="Write the job summary in Markdown.", metavar="FILE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what it would cost, stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge a candidate mix against production and act on the verdict."""
    from flows.ci import open_reports

    given = {
        "candidate": candidate,
        "baseline": baseline,
        "policy": policy,
        "catalog": catalog,
        "inputs": inputs,
        "cases": cases,
        "budget_usd": budget_usd,
        "seed": seed,
        "resume": resume,
        "owner": owner or whoami(),
    }
    settings = load_settings()
    if dry_run:
        if junit or summary:
            raise ConfigError("--dry-run gives no verdict; leave out --junit and --summary")
        from flows.dry_run import dry_run_gate, render_dry_run

        preview = dry_run_gate(_gate_request(given), settings)
        if as_json:
            emit(preview)
        else:
            say(render_dry_run(preview))
        return
    with open_reports(settings, junit=junit, summary=summary) as report_to_ci:
        request = _gate_request(given)
        from flows.terminal import run_with_terminal

        result = run_with_terminal(request, settings, quiet=as_json)
        report_to_ci(request, result)
    if as_json:
        emit(result.to_json())
    raise typer.Exit(EXIT_CODES[result.verdict])


def _gate_request(given: dict[str, Any]) -> Any:
    """Build the request of a gate from the flags that were given."""
    from flows.request import GateRequest

    request = _request(GateRequest, {k: v for k, v in given.items() if v is not None})
    if request.resume is not None:
        names = [name for name, value in given.items() if value is not None]
        fixed = [n.replace("_", "-") for n in names if n not in ("resume", "owner")]
        if fixed:
            raise ConfigError(
                f"--resume {request.resume} goes on with the plan of that run; leave out "
                + ", ".join(f"--{name}" for name in fixed)
            )
    return request


def _request(model: type[Any], given: dict[str, Any]) -> Any:
    """Build the request; a wrong value is a sentence about a flag."""
    from pydantic import ValidationError

    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{flag}: {first['msg']}, got {first.get('input')!r}") from None


@app.command(epilog="Example:  imagegate freeze --reason 'holiday season' --days 21")
def freeze(
    reason: Annotated[str, typer.Option(help="Why production must not change.")],
    days: Annotated[float, typer.Option(help="For how long.")] = 14.0,
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Lock production: until the end date only a rollback may change it."""
    from flows import operate

    frozen = operate.freeze(load_settings(), product, owner or whoami(), reason, days)
    if as_json:
        emit(frozen)
    else:
        say(
            f"{product} is frozen until {frozen['until_at']} by {frozen['owner']}: "
            f"{frozen['reason']}\nLift it with: imagegate thaw --product {product}"
        )


@app.command()
def thaw(product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False) -> None:
    """Lift the freeze of production."""
    from flows import operate

    lifted = operate.thaw(load_settings(), product, owner or whoami())
    if as_json:
        emit({"product": product, "thawed": lifted})
    else:
        say(f"{product} is no longer frozen" if lifted else f"{product} was not frozen")


@app.command()
def status(product: Product = DEFAULT_PRODUCT, as_json: Json = False) -> None:
    """Show what serves production, whether it is frozen, and the last run."""
    from flows import operate

    shown = operate.status(load_settings(), product)
    if as_json:
        emit(shown)
    else:
        say(operate.render_status(shown))


@app.command(
    epilog="Examples:  imagegate rollback --reason 'garbled text reported'  ·  "
    "imagegate rollback --to sha256:7cc1…"
)
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")] = "asked by a person",
    to: Annotated[
        str | None, typer.Option(help="Digest (or its beginning) of a mix that served before.")
    ] = None,
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Put production back on the mix before, or on an earlier one; verified by the router."""
    from flows import operate

    done = operate.rollback(load_settings(), product, to, owner or whoami(), reason)
    if as_json:
        emit(done)
    else:
        say(
            f"{product} serves {done['mix_name']} ({done['mix_digest'][:19]}…), "
            f"verified at the router in {done['seconds']:.2f} s"
        )


@app.command()
def history(
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs.")] = 20,
    as_json: Json = False,
) -> None:
    """List the runs and their verdicts, newest first."""
    from flows import operate

    rows = operate.history(load_settings(), product, limit)
    if as_json:
        emit({"runs": rows})
    else:
        say(operate.render_history(rows))


@app.command()
def report(
    run_id: Annotated[str | None, typer.Argument(help="The run; default: the newest.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Say where the report of a run lies, or open it."""
    from flows import operate

    path = operate.report_path(load_settings(), run_id)
    if as_json:
        emit({"report": str(path)})
    else:
        say(str(path))
    if open_it:
        typer.launch(path.as_uri())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, fonts, readers, database, router, keys."""
    from flows.doctor import examine, render_examination

    found = examine(load_settings())
    if as_json:
        emit(found)
    else:
        say(render_examination(found))
    if not found["ok"]:
        raise typer.Exit(4)


def _mount_alerts() -> None:
    from flows.cli_alerts import alerts

    app.add_typer(alerts, name="alerts")


_mount_alerts()


def _mount_check() -> None:
    from flows.cli_check import check

    app.command(
        "check",
        epilog="Examples:  imagegate check pictures/  ·  imagegate check --manifest labels.csv",
    )(check)


_mount_check()


def _mount_db() -> None:
    from flows.cli_db import db

    app.add_typer(db, name="db")


_mount_db()


def _mount_evidence() -> None:
    from flows.cli_evidence import evidence

    app.add_typer(evidence, name="evidence")


_mount_evidence()


def _mount_budget() -> None:
    from flows.cli_budget import budget

    app.command(
        "budget",
        epilog="Examples:  imagegate budget  ·  imagegate budget --product storefront --plot b.png",
    )(budget)


_mount_budget()


def _mount_deploy() -> None:
    from flows.cli_deploy import deploy, schedules, serve

    app.command(
        "serve", epilog="Examples:  imagegate serve  ·  imagegate serve --port 4300 --limit 8"
    )(serve)
    app.command(
        "deploy",
        epilog="Examples:  imagegate deploy --pool gates  ·  imagegate deploy --pool cluster "
        "--type kubernetes --image registry.example.com/imagegate:1",
    )(deploy)
    app.command("schedules")(schedules)


_mount_deploy()


def _mount_approval() -> None:
    from flows.cli_approval import approvals, approve, reject

    why = "--why 'seen with the brand team'"
    app.command("approve", epilog=f"Examples:  imagegate approve  ·  imagegate approve RUN {why}")(
        approve
    )
    app.command("reject", epilog=f"Example:  imagegate reject RUN {why}")(reject)
    app.command("approvals")(approvals)


_mount_approval()


def _mount_slack() -> None:
    from flows.cli_alerts import alerts
    from flows.cli_slack import preview, slack

    app.add_typer(slack, name="slack")
    alerts.command(
        "preview", epilog="Example:  imagegate alerts preview --sample rollback --png p.png"
    )(preview)


_mount_slack()


def _mount_metrics() -> None:
    from flows.cli_metrics import metrics

    app.command(
        "metrics", epilog="Examples:  imagegate metrics  ·  imagegate metrics --serve 9464"
    )(metrics)


_mount_metrics()


def _mount_watchdog() -> None:
    from flows.cli_watchdog import automations, watchdog

    app.command(
        "watchdog",
        epilog="Examples:  imagegate watchdog  ·  imagegate watchdog --once --json",
    )(watchdog)
    app.command("automations", epilog="Example:  imagegate automations apply")(automations)


_mount_watchdog()


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
            emit({"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code})
        return error.exit_code
    except KeyboardInterrupt:
        err.print("\nstopped; nothing was changed after the last finished step")
        return 130
    except Exception as error:  # noqa: BLE001 - the last door: say it, keep the details, exit 4
        where = _keep_crash(load_settings())
        text = f"imagegate itself broke: {type(error).__name__}: {error}"
        err.print("error:", style="bold red", end=" ")
        err.print(f"{text}\nThis is not a verdict. Details: {where}", markup=False)
        if as_json:
            emit({"error": text, "kind": type(error).__name__, "exit_code": 4})
        return 4
    return 0


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

    def command() -> None:
        nonlocal code
        try:
            app(args=arguments, prog_name="imagegate", standalone_mode=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1

    as_json = "--json" in arguments
    code = guard(command, as_json=as_json) or code
    if code == USAGE and as_json and not _SAID["json"]:
        emit({"error": "wrong usage; stderr says how", "kind": "UsageError", "exit_code": code})
    return code
