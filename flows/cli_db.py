"""``imagegate db``: the tables of the state database, looked at and brought up to date."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tasks.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

db = typer.Typer(
    help="Look at the state database and bring its tables up to date.",
    no_args_is_help=True,
    epilog="A SQLite file is migrated by itself, after a copy beside it; PostgreSQL waits for "
    "`imagegate db upgrade`, which is run once, before the new workers start.",
)


@db.command()
def status(as_json: Json = False) -> None:
    """Say which tables the database has and which this imagegate needs; changes nothing."""
    from tasks.migrations.look import look

    seen = look(_url())
    _show(
        {
            "database": seen.shown,
            "version": seen.version,
            "needed": seen.needed,
            "state": seen.state,
            "todo": seen.todo,
        },
        f"{seen.shown}: state version {'none' if seen.version is None else seen.version}, "
        f"this imagegate needs {seen.needed}: {seen.todo}",
        as_json,
    )
    if seen.state in ("older", "newer", "foreign"):
        raise typer.Exit(4)


@db.command()
def upgrade(as_json: Json = False) -> None:
    """Make the tables, or bring older ones up to date; safe to run twice or at once."""
    from tasks.migrations.look import look
    from tasks.state import State

    before = look(_url())
    State(_url(), upgrade=True).close()
    after = look(_url())
    changed = before.version != after.version
    _show(
        {
            "database": after.shown,
            "from": before.version,
            "to": after.version,
            "changed": changed,
        },
        f"{after.shown}: "
        + (
            f"state version {before.version or 'none'} → {after.version}"
            if changed
            else f"state version {after.version} already; nothing to do"
        ),
        as_json,
    )


@db.command()
def check(as_json: Json = False) -> None:
    """Compare every table with what this imagegate expects; exit 4 when something differs."""
    from tasks.migrations.look import drift

    found = drift(_url())
    lines = "\n".join(f"differs: {line}" for line in found)
    _show({"differences": found}, lines or "the tables are as this imagegate expects", as_json)
    if found:
        raise typer.Exit(4)


def _url() -> str:
    return load_settings().state_url.get_secret_value()


def _show(value: dict[str, Any], text: str, as_json: bool) -> None:
    from flows.cli_io import emit, say

    if as_json:
        emit(value)
    else:
        say(text)
