"""``imagegate run``: the gate itself, or what it would cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_io import EXIT_CODES, Json, Owner, emit, say, whoami
from tasks.errors import ConfigError
from tasks.settings import load_settings


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
