"""When a flow run is taken for dead by what Prefect knows of it."""

from __future__ import annotations

from datetime import datetime

from tasks.watchdog.model import FlowFact, Limits
from tasks.watchdog.words import ago


def silence(flow: FlowFact, now: datetime, limits: Limits) -> str | None:
    """Return why a flow run is taken for dead by what Prefect knows of it, ``None`` otherwise.

    A running flow run is called dead only when it gave signs of life before: without them nobody
    can tell a dead process from one that gives none.
    """
    age = (now - flow.since).total_seconds()
    if flow.state == "PENDING":
        patience = limits.pending_s if flow.state_name == "Pending" else limits.infrastructure_s
        return f"no process took it up within {ago(age)}" if age > patience else None
    if flow.state == "RUNNING" and flow.beat_at is not None:
        silent = (now - max(flow.beat_at, flow.since)).total_seconds()
        return f"no sign of life for {ago(silent)}" if silent > limits.flow_silence_s else None
    return None
