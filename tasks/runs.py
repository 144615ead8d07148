"""The book of runs: which run judges what, who drives it, how it ended."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from tasks.errors import ConfigError, known
from tasks.records import VerdictName, utc_now
from tasks.state import State, runs

RunStatus = Literal["running", "finished", "failed", "stopped"]


def new_run_id(candidate: str) -> str:
    """Return a name that sorts by time and says what is judged, safe as a folder name."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    label = "".join(c if c.isalnum() or c in "-_" else "-" for c in candidate.lower())[:40]
    return f"{moment}-{label}-{secrets.token_hex(2)}"


def begin_run(
    state: State, run_id: str, product: str, candidate_digest: str, baseline_digest: str
) -> None:
    """Book a run as driven by this process; a resumed run keeps its start.

    Raises:
        ConfigError: Another process drives it.
    """
    driver = {"status": "running", "host": socket.gethostname(), "pid": os.getpid()}
    with state.begin() as connection:
        row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()
        if row is not None:
            _refuse_driven(row)
        found = connection.execute(
            sa.update(runs).where(runs.c.run_id == run_id).values(ended_at=None, **driver)
        )
        if found.rowcount == 0:
            connection.execute(
                sa.insert(runs).values(
                    run_id=run_id,
                    product=product,
                    candidate_digest=candidate_digest,
                    baseline_digest=baseline_digest,
                    started_at=utc_now(),
                    **driver,
                )
            )


def end_run(
    state: State,
    run_id: str,
    status: RunStatus,
    verdict: VerdictName | None = None,
    result: str | None = None,
) -> None:
    """Book how a run ended, with the JSON of its result."""
    with state.begin() as connection:
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == run_id)
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
    if row.status == "running" and is_alive(row.host, row.pid):
        raise ConfigError(
            f"--resume {row.run_id}: process {row.pid} on {row.host} still drives this run"
        )


def is_alive(host: str, pid: int) -> bool:
    """Return whether the process that drives a run may still live.

    On another host nothing can be known, so the answer is yes.
    """
    if host != socket.gethostname():
        return True
    return pid != os.getpid() and process_alive(pid)


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
