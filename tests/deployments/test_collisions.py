from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from deployments.collisions import LIMIT_REACHED, explain_refusals

AT = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
DEPLOYMENT = uuid4()


def run(
    name: str,
    kind: StateType,
    *,
    start: int | None = None,
    end: int | None = None,
    message: str | None = None,
    ran: int = 1,
) -> FlowRun:
    """A run with start and end in minutes from the moment of the refusal."""
    return FlowRun(
        id=uuid4(),
        name=name,
        flow_id=uuid4(),
        deployment_id=DEPLOYMENT,
        run_count=ran,
        start_time=None if start is None else AT + timedelta(minutes=start),
        end_time=None if end is None else AT + timedelta(minutes=end),
        state=State(type=kind, message=message, timestamp=AT),
    )


class Server:
    """Answers the two questions in their order and keeps what it is told."""

    def __init__(self, refused: FlowRun, others: list[FlowRun]) -> None:
        self._answers = [[refused], [refused, *others]]
        self.told: dict[UUID, State[Any]] = {}

    def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self._answers.pop(0)

    def set_flow_run_state(self, run_id: UUID, state: State[Any], *, force: bool) -> None:
        assert force
        self.told[run_id] = state


def refused(message: str = LIMIT_REACHED) -> FlowRun:
    return run("late", StateType.CANCELLED, start=0, end=0, message=message, ran=0)


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ([run("first", StateType.RUNNING, start=-5)], "first"),
        ([run("starting", StateType.PENDING, ran=0)], "starting"),
        # It ended meanwhile; the one that runs now came later.
        (
            [
                run("now", StateType.RUNNING, start=2),
                run("then", StateType.COMPLETED, start=-9, end=1),
            ],
            "then",
        ),
        # Another refused one was in nobody's way.
        (
            [
                run("alike", StateType.CANCELLED, start=0, end=0, ran=0),
                run("first", StateType.RUNNING, start=-5),
            ],
            "first",
        ),
    ],
)
def test_the_run_that_held_the_slot_is_named(others: list[FlowRun], named: str) -> None:
    late = refused()
    server = Server(late, others)
    (line,) = explain_refusals(server)  # type: ignore[arg-type]
    state = server.told[late.id]
    assert (state.type, state.name) == (StateType.CANCELLED, "Refused")
    assert state.message is not None
    assert repr(named) in state.message
    assert line == f"late: {state.message}"


def test_nobody_is_blamed_when_the_run_cannot_be_found() -> None:
    late = refused()
    server = Server(late, [run("old", StateType.COMPLETED, start=-90, end=-60)])
    explain_refusals(server)  # type: ignore[arg-type]
    assert "'old'" not in str(server.told[late.id].message)


def test_what_a_person_cancelled_stays_as_it_is() -> None:
    late = refused("Flow run was cancelled.")
    server = Server(late, [run("first", StateType.RUNNING, start=-5)])
    assert explain_refusals(server) == []  # type: ignore[arg-type]
    assert server.told == {}
