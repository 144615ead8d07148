"""The order of messages as a pure decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.config import RANK, AlertsConfig
from tasks.alerts.queue import REPEATED, Waiting, plan
from tasks.mix.freeze import stamp
from tasks.policy import parse_strict

NOW = datetime(2026, 9, 14, 1, tzinfo=UTC)
STALE = NOW - timedelta(seconds=60)
NIGHT = parse_strict(
    AlertsConfig,
    {"default": {"quiet_hours": {"from": "22:00", "until": "07:00"}, "least_severity": "info"}},
    "test",
)


def row(number: int, **more: str | None) -> Waiting:
    base: dict[str, str | None] = {
        "kind": "open",
        "thread": None,
        "product": None,
        "severity": "info",
        "topic": "",
        "status": "pending",
        "claimed_at": None,
        "not_before": None,
    }
    return Waiting(id=number, **(base | more))  # type: ignore[arg-type]


MOMENTS = st.sampled_from([None, stamp(STALE - timedelta(seconds=1)), stamp(NOW)])
ROWS = st.lists(
    st.builds(
        dict,
        kind=st.sampled_from(["open", "reply", "update"]),
        thread=st.sampled_from([None, "a", "b", "c"]),
        severity=st.sampled_from(["info", "warning", "page"]),
        status=st.sampled_from(["pending", "pending", "sending", "refused"]),
        claimed_at=MOMENTS,
        not_before=st.sampled_from([None, None, stamp(NOW + timedelta(seconds=9))]),
        topic=st.sampled_from(["", REPEATED]),
    ),
    max_size=14,
)


@given(ROWS, st.booleans(), st.sets(st.sampled_from(["a", "b", "c"])))
def test_only_the_first_of_each_thread_is_ready_and_urgent_threads_go_first(
    given_rows: list[dict[str, str | None]], at_night: bool, in_slack: set[str]
) -> None:
    rows = [row(number, **fields) for number, fields in enumerate(given_rows)]
    updated = {thread: stamp(NOW - timedelta(minutes=3)) for thread in in_slack}
    config = NIGHT if at_night else AlertsConfig()
    found = plan(rows, config, updated, now=NOW, stale=STALE)
    by_id = {r.id: r for r in rows}
    groups = [by_id[ready.id].group for ready in found.ready]
    assert len(groups) == len(set(groups))
    for ready in found.ready:
        mine = [r for r in rows if r.group == by_id[ready.id].group and r.status != "refused"]
        assert ready.id == mine[0].id
        assert ready.urgency == max((r.severity for r in mine), key=RANK.__getitem__)
        assert not any(r.status == "sending" and r.claimed_at == stamp(NOW) for r in mine[:1])
        if at_night and ready.urgency != "page":
            # Only the silent rewriting of a message that people have goes on at night.
            assert mine[0].kind == "update"
            assert mine[0].thread in in_slack
    assert found.ready == sorted(found.ready, key=lambda r: (-RANK[r.urgency], r.id))
    assert found.muted == []
    # Every row is ready, waits for a reason, or was given up on.
    known = {r.id for r in found.ready} | set(found.waits)
    assert known | {r.id for r in rows if r.status == "refused"} == {r.id for r in rows}


def test_a_count_is_shown_once_in_the_repeat_window_unless_news_follows() -> None:
    count = row(2, kind="update", thread="t", topic=REPEATED)
    updated = {"t": stamp(NOW - timedelta(minutes=9))}
    found = plan([count], AlertsConfig(), updated, now=NOW, stale=STALE)
    assert found.ready == []
    assert "shows the count at" in found.waits[2]
    later = NOW + timedelta(minutes=1)
    assert plan([count], AlertsConfig(), updated, now=later, stale=STALE).ready[0].id == 2
    news = row(3, kind="reply", thread="t")
    assert plan([count, news], AlertsConfig(), updated, now=NOW, stale=STALE).ready[0].id == 2


def test_a_quiet_root_that_is_muted_does_not_mute_the_page_behind_it() -> None:
    config = parse_strict(AlertsConfig, {"default": {"least_severity": "page"}}, "test")
    rows = [row(1, thread="t"), row(2, thread="t", kind="reply", severity="page")]
    found = plan(rows, config, {}, now=NOW, stale=STALE)
    assert (found.muted, [ready.id for ready in found.ready]) == ([1], [2])
    # A message that people have is kept true whatever its severity.
    update = row(3, thread="t", kind="update")
    assert plan([update], config, {"t": stamp(NOW)}, now=NOW, stale=STALE).ready[0].id == 3


def test_the_routing_of_a_product_changes_what_is_urgent() -> None:
    config = parse_strict(
        AlertsConfig, {"products": {"shop": {"severities": {"gate.hold": "page"}}}}, "test"
    )
    rows = [
        row(1, severity="warning"),
        row(2, severity="warning", product="shop", topic="gate.hold"),
    ]
    found = plan(rows, config, {}, now=NOW, stale=STALE)
    assert [(ready.id, ready.severity) for ready in found.ready] == [(2, "page"), (1, "warning")]
