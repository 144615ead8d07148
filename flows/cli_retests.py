"""``imagegate retests``: earlier tests of the same mix, and which of them a person excused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_io import DEFAULT_PRODUCT, Json, Owner, Product, emit, say, whoami
from tasks.settings import load_settings

retests = typer.Typer(
    help="Tests of mixes so far: testing a build again until it passes uses up the risk of a "
    "wrong PROMOTE. Excuse a run whose failures were no fault of the mix.",
    epilog="Examples:  imagegate retests  ·  imagegate retests excuse RUN --why 'provider was ill'",
)


@retests.callback(invoke_without_command=True)
def listed(
    context: typer.Context, product: Product = DEFAULT_PRODUCT, as_json: Json = False
) -> None:
    """List the newest tests of a product, newest first."""
    if context.invoked_subcommand is not None:
        return
    from flows.operate import opened
    from tasks.retests import ledger_of

    with opened(load_settings()) as state:
        found = [test.model_dump(exclude={"schema_version"}) for test in ledger_of(state, product)]
    if as_json:
        emit({"product": product, "tests": found})
    elif not found:
        say(f"no mix of {product} was tested yet")
    else:
        say("\n".join(_line(test) for test in found))


def _line(test: dict[str, Any]) -> str:
    text = (
        f"{test['ended_at'][:16]}Z  {test['verdict']:<8}  {test['failures']:>4} of "
        f"{test['images']:>5} failed or unjudged  mix {test['candidate_digest'][7:19]}  "
        f"{test['run_id']}"
    )
    if test["excused_at"] is None:
        return text
    return f"{text}\n    excused by {test['excused_by']}: {test['excused_why']}"


@retests.command(epilog="Example:  imagegate retests excuse RUN --why 'provider was ill'")
def excuse(
    run: Annotated[str, typer.Argument(help="The run, as `imagegate retests` names it.")],
    why: Annotated[str, typer.Option(help="Why its failures were no fault of the mix; kept.")],
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Let a run count for nothing when its mix is tested again; who and why stay in the ledger."""
    from flows.operate import opened
    from tasks.retests import excuse as excuse_now

    who = owner or whoami()
    with opened(load_settings()) as state:
        excuse_now(state, product, run, by=who, why=why)
    if as_json:
        emit({"product": product, "run_id": run, "excused_by": who, "excused_why": why.strip()})
    else:
        say(f"run {run} counts for nothing any more; excused by {who}: {why.strip()}")
