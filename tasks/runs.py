"""The book of runs: which run judges what, who drives it, how it ended."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.errors import ConfigError, TakenOverError, known
from tasks.records import VerdictName, utc_now
from tasks.state import State
from tasks.tables import approvals, runs, schedules, transitions

RunStatus = Literal["running", "waiting", "finished", "failed", "stopped"]

#: Seconds between two signs of life of the process that drives a run.
HEARTBEAT_S = 5.0
#: A driver that was silent for longer is taken for dead: another process may go on.
SILENCE_S = 30.0


def new_run_id(candidate: str) -> str:
    """Return a name that sorts by time and says what is judged, safe in folders and as a key."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    safe = (c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in candidate.lower())
    return f"{moment}-{''.join(safe)[:40]}-{secrets.token_hex(2)}"


def begin_run(
    state: State,
    run_id: str,
    product: str,
    candidate_digest: str,
    baseline_digest: str,
    *,
    driver: str | None = None,
    requester: str | None = None,
    flow_run_id: str | None = None,
) -> None:
    """Book a run as driven by this process; a resumed run keeps its start and its requester.

    Args:
        state: The database.
        run_id: The run.
        product: The product whose production is at stake.
        candidate_digest: What asks to serve.
        baseline_digest: What serves.
        driver: Token of the caller; with it the run has a heartbeat from now on.
        requester: Who asked for the run.
        flow_run_id: Prefect's flow run that drives it.

    Raises:
        ConfigError: Another process drives it.
    """
    values = {
        "status": "running",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "driver": driver,
        "heartbeat_at": utc_now() if driver else None,
    }
    if flow_run_id is not None:
        values["flow_run_id"] = flow_run_id
    with state.begin() as connection:
        query = sa.select(runs).where(runs.c.run_id == run_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is not None:
            _refuse_driven(row)
        found = connection.execute(
            sa.update(runs).where(runs.c.run_id == run_id).values(ended_at=None, **values)
        )
        if found.rowcount == 0:
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id,
                    product=product,
                    candidate_digest=candidate_digest,
                    baseline_digest=baseline_digest,
                    started_at=utc_now(),
                    requester=requester,
                    journal_id=_last_line(connection, product),
                    **values,
                )
            )


def _last_line(connection: Connection, product: str) -> int:
    """Return the last line of the journal of production, 0 when there is none."""
    last = sa.select(sa.func.max(transitions.c.id)).where(transitions.c.product == product)
    return connection.execute(last).scalar() or 0


def beat(state: State, run_id: str, driver: str) -> bool:
    """Give a sign of life; ``False`` when another process drives the run by now."""
    with state.begin() as connection:
        found = connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id, runs.c.driver == driver)
            .values(heartbeat_at=utc_now())
        )
    return found.rowcount == 1


def note_scheduled_start(state: State, deployment: str) -> None:
    """Note that a run of a deployment started now, whatever comes of it: it was not missed."""
    with state.begin() as connection:
        connection.execute(
            sa.update(schedules).where(schedules.c.name == deployment).values(started_at=utc_now())
        )


def drives(state: State, run_id: str, driver: str) -> bool:
    """Tell whether the process with this token drives the run, which then goes on."""
    rule = (runs.c.run_id == run_id, runs.c.driver == driver, runs.c.status == "running")
    with state.begin() as connection:
        return connection.execute(sa.select(runs.c.run_id).where(*rule)).first() is not None


def assert_drives(connection: Connection, run_id: str, driver: str) -> None:
    """Pass when the process with this token drives the run, in the transaction of what it does.

    Raises:
        TakenOverError: Another process does, or the run has ended.
    """
    query = sa.select(runs.c.driver, runs.c.status).where(runs.c.run_id == run_id)
    row = connection.execute(query).one_or_none()
    if row is None or (row.driver, row.status) != (driver, "running"):
        raise TakenOverError(taken_over(run_id))


def taken_over(run_id: str) -> str:
    """Return what a process is told whose run another one drives."""
    return (
        f"run {run_id} is driven by another process since this one was silent for too long; it "
        "ends here, without a verdict. See `imagegate history`"
    )


def run_of_flow(state: State, flow_run_id: str) -> str | None:
    """Return the run that a Prefect flow run drove before it was started again, if any."""
    query = (
        sa.select(runs.c.run_id)
        .where(runs.c.flow_run_id == flow_run_id)
        .order_by(runs.c.started_at.desc())
        .limit(1)
    )
    # A suspended flow run keeps its gate run, even when another one was started for it meanwhile.
    asked = sa.select(approvals.c.run_id).where(approvals.c.flow_run_id == flow_run_id).limit(1)
    with state.begin() as connection:
        return connection.execute(query).scalar() or connection.execute(asked).scalar()


def go_on_driving(state: State, run_id: str, driver: str) -> None:
    """Book a waiting run as running again, by the process that drove it last."""
    with state.begin() as connection:
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id, runs.c.driver == driver)
            .values(status="running", ended_at=None)
        )


def requester_of(state: State, run_id: str) -> str | None:
    """Return who asked for a run, ``None`` when that was never said."""
    query = sa.select(runs.c.requester).where(runs.c.run_id == run_id)
    with state.begin() as connection:
        return connection.execute(query).scalar()


def end_run(
    state: State,
    run_id: str,
    status: RunStatus,
    verdict: VerdictName | None = None,
    result: str | None = None,
    *,
    driver: str | None = None,
) -> None:
    """Book how a run ended, with the JSON of its result.

    Args:
        state: The database.
        run_id: The run.
        status: How it ended.
        verdict: Its verdict, if it came to one.
        result: JSON of the result.
        driver: When given, only the process with this token may book the end.
    """
    rule = sa.true() if driver is None else runs.c.driver == driver
    with state.begin() as connection:
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id, rule)
            .values(status=status, verdict=verdict, result=result, ended_at=utc_now())
        )


def check_resumable(state: State, run_id: str) -> None:
    """Refuse to resume what does not exist, has its verdict, or runs elsewhere.

    Raises:
        ConfigError: With the reason and what to do instead.
    """
    with state.begin() as connection:
        row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()
        if row is None:
            names = connection.execute(
                sa.select(runs.c.run_id).order_by(runs.c.started_at.desc()).limit(8)
            ).scalars()
            raise ConfigError(f"--resume {run_id}: no such run {known(list(names))}")
    if row.verdict in ("PROMOTE", "ROLLBACK"):
        raise ConfigError(
            f"--resume {run_id}: this run ended with {row.verdict} at {row.ended_at}; "
            "start a new one with `imagegate run`"
        )
    _refuse_driven(row)


def _refuse_driven(row: sa.Row[Any]) -> None:
    # This process may have driven it before: a suspended flow run can come back to its process.
    own = (row.host, row.pid) == (socket.gethostname(), os.getpid())
    if row.status == "running" and not own and is_driven(row.host, row.pid, row.heartbeat_at):
        raise ConfigError(
            f"--resume {row.run_id}: process {row.pid} on {row.host} still drives this run"
        )


def is_driven(
    host: str,
    pid: int,
    heartbeat_at: str | None,
    *,
    now: datetime | None = None,
    here: str | None = None,
    alive: Callable[[int], bool] | None = None,
) -> bool:
    """Tell whether the process that drives a running run may still act.

    Args:
        host: Host of the driver.
        pid: Its process there.
        heartbeat_at: Its last sign of life; ``None`` for a driver that gives none.
        now: The present moment; the system's clock by default.
        here: Name of this machine, whose processes can be looked at.
        alive: Tells whether a process of this machine lives.

    Returns:
        ``False`` when the process is known to be gone: it ran here and does not exist any more, or
        it was silent for longer than :data:`SILENCE_S`. A driver that wakes up after that finds
        its token replaced and stops.
    """
    if host == (here or socket.gethostname()) and not (alive or process_alive)(pid):
        return False
    if heartbeat_at is None:
        return True
    silent = (now or datetime.now(UTC)) - datetime.fromisoformat(heartbeat_at)
    return silent.total_seconds() <= SILENCE_S


def process_alive(pid: int) -> bool:
    """Return whether a process of this machine lives; when in doubt, it does."""
    if os.name != "posix" or pid <= 0:
        return True
    try:
        os.kill(pid, 0)  # Signal 0 only asks.
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Return whether a process is dead and only waits for its parent to notice (Linux)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # The state follows the name, which stands in brackets and may hold anything.
    return text.rpartition(")")[2].split()[:1] == ["Z"]
