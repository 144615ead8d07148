"""``imagegate approve``, ``reject`` and ``approvals``: a person's word on a run that waits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.errors import ConfigError, RefusedError, known
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from flows.approval_resume import CarriedOn
    from tasks.approval.rules import Approval, Decision
    from tasks.state import State

Run = Annotated[
    str | None,
    typer.Argument(help="The run, or the beginning of its name; without it: what waits."),
]
Why = Annotated[str | None, typer.Option("--why", help="The reason; kept with the decision.")]
By = Annotated[
    str | None,
    typer.Option("--by", help="Who decides; default: user@host. A claim, not a login."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def approve(run_id: Run = None, why: Why = None, by: By = None, as_json: Json = False) -> None:
    """Let a run that waits for a person put its candidate into production."""
    _decide(run_id, "approved", why, by, as_json)


def reject(run_id: Run = None, why: Why = None, by: By = None, as_json: Json = False) -> None:
    """Let a run that waits for a person end without a promotion."""
    _decide(run_id, "rejected", why, by, as_json)


def approvals(as_json: Json = False) -> None:
    """List the runs that wait for a person."""
    _list(load_settings(), as_json)


def _list(settings: Settings, as_json: bool) -> None:
    from flows.cli_io import emit, say
    from flows.operate import opened
    from tasks.approval import store

    with opened(settings) as state:
        waiting = store.pending(state)
    if as_json:
        emit({"pending": [_shown(found) for found in waiting]})
    else:
        say(render(waiting))


def _shown(approval: Approval) -> dict[str, Any]:
    return approval.model_dump(mode="json", exclude={"schema_version", "journal_id"})


def render(waiting: tuple[Approval, ...]) -> str:
    """Return the open questions in lines; text of others cannot steer the terminal."""
    from tasks.approval.rules import commands, moment
    from tasks.evidence.text import visible

    lines = []
    for found in waiting:
        said = found.verdict.reasons[0] if found.verdict.reasons else "no reason was recorded"
        lines += [
            f"{found.run_id}: {found.product}, until {moment(found.expires_at)}, asked for by "
            f"{found.requester}",
            f"  {found.asked_because}",
            f"  the machine says {found.verdict.verdict}: {said}",
            *(f"  {command}" for command in commands(found.run_id)),
        ]
    return visible("\n".join(lines)) or "no run waits for a person"


def _decide(
    run_id: str | None, decision: Decision, why: str | None, by: str | None, as_json: bool
) -> None:
    settings = load_settings()
    if run_id is None:
        _list(settings, as_json)
        return
    from flows.approval_resume import carry_on
    from flows.approval_words import tell
    from flows.cli_io import whoami
    from flows.operate import opened

    with opened(settings) as state:
        name = find_run(state, run_id)
        decided, refusal = _answer(state, name, decision, by or whoami(), _reason(why, as_json))
        tell(state, settings, decided)
        carried = carry_on(state, settings, decided)
    # Asked again for what was decided already, the command goes on with what is left to do.
    if refusal is not None and (decided.status != decision or carried.way == "over"):
        ends = f"`imagegate run --resume {name}` brings the run to its end."
        raise RefusedError(f"{refusal} {ends if carried.way == 'here' else carried.sentence}")
    _finish(settings, decided, carried, as_json)


def _reason(why: str | None, as_json: bool) -> str:
    """Return the reason from the flag, or ask for it at a terminal."""
    if why is None and sys.stdin.isatty() and not as_json:
        why = str(typer.prompt("Why", err=True))
    if not (why or "").strip():
        raise ConfigError("--why: give the reason, for those who look at this decision later")
    return str(why)


def _answer(
    state: State, run_id: str, decision: Decision, by: str, reason: str
) -> tuple[Approval, RefusedError | None]:
    """Decide; return the closed question, and why the decision came too late, if it did.

    Raises:
        RefusedError: This person may not decide; the question stays open.
    """
    from tasks.approval import store

    try:
        return store.decide(
            state, run_id, decision=decision, by=by, reason=reason, via="command"
        ), None
    except RefusedError as error:
        found = store.read(state, run_id)
        if found is None or found.status == "pending":
            raise
        return found, error


def _finish(settings: Settings, decided: Approval, carried: CarriedOn, as_json: bool) -> None:
    """Resume the run here when nobody else does, and say how it goes on."""
    from flows.cli_io import EXIT_CODES, emit, say
    from tasks.approval.rules import outcome
    from tasks.evidence.text import visible

    if carried.way != "here":
        sentence = f"Run {decided.run_id}: {outcome(decided)}"
        if as_json:
            emit(
                {"approval": _shown(decided), "way": carried.way, "next": carried.sentence},
            )
        else:
            say(visible(f"{sentence}\n{carried.sentence}"))
        return
    from flows.request import GateRequest
    from flows.terminal import run_with_terminal

    request = GateRequest(resume=decided.run_id, owner=decided.decided_by or "imagegate")
    result = run_with_terminal(request, settings, quiet=as_json)
    if as_json:
        emit(result.to_json())
    # A rejection that ends as HOLD did what was asked.
    asked = decided.status == "rejected" and result.verdict == "HOLD"
    raise typer.Exit(0 if asked else EXIT_CODES[result.verdict])


def find_run(state: State, start: str) -> str:
    """Return the run that asked a person and whose name begins so.

    Raises:
        ConfigError: None does, or more than one.
    """
    import sqlalchemy as sa

    from tasks.tables import approvals as table

    query = sa.select(table.c.run_id).order_by(table.c.requested_at.desc())
    with state.begin() as connection:
        names = list(connection.execute(query).scalars())
    if start in names:
        return start
    fits = [name for name in names if name.startswith(start)] if start else []
    if len(fits) > 1:
        raise ConfigError(f"{start!r} begins the names of {len(fits)} runs {known(fits)}")
    if not fits:
        raise ConfigError(f"no run {start!r} asked a person {known(names[:8])}")
    return str(fits[0])
