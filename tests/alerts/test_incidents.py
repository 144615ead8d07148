from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tasks.alerts.config import AlertsConfig
from tasks.alerts.delivery import Routes, deliver
from tasks.alerts.incidents import (
    acknowledge,
    open_incidents,
    raise_alarm,
    read_incident,
    resolve_alarm,
)
from tasks.alerts.outbox import messages, pending
from tasks.policy import parse_strict
from tasks.state import State
from tests.fakes.ways import Post, by

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
KEY = "budget:shop:month:hard"
ON_CALL = Routes(parse_strict(AlertsConfig, {"default": {"on_call": "S0123456789"}}, "test"), "C1")


def alarm(state: State, *, minutes: float = 0, severity: str = "page", key: str = KEY) -> bool:
    return raise_alarm(
        state,
        key,
        title="BUDGET: shop spent its month",
        severity=severity,  # type: ignore[arg-type]
        product="shop",
        lines=("Users: nothing changes for them, new gates are refused.",),
        asked=("raise the limit in `deployments/budgets.yaml`",),
        links=(("Spend", "imagegate budget --product shop"),),
        now=NOW + timedelta(minutes=minutes),
    )


def test_an_alarm_is_told_once_counted_and_closed_in_its_thread(state: State) -> None:
    post = Post()
    assert alarm(state)
    assert not alarm(state, minutes=1)
    deliver(state, by(state, post), ON_CALL, now=NOW)
    assert resolve_alarm(state, KEY, how="A new month began.", now=NOW + timedelta(hours=2))
    assert not resolve_alarm(state, KEY, how="again")
    deliver(state, by(state, post), ON_CALL, now=NOW)
    kinds = [(p.message.kind, p.message.thread) for p in post.parcels]
    thread = f"incident:{KEY}#1"
    assert kinds == [("open", thread), ("reply", thread), ("update", thread)]
    opened, closed, final = (p.message.payload for p in post.parcels)
    assert opened["text"].startswith("🚨 BUDGET: shop spent its month. Came 2 times")
    assert closed["text"] == "✅ RESOLVED: BUDGET: shop spent its month. A new month began"
    assert final["blocks"][0]["text"]["text"] == "✅ RESOLVED: BUDGET: shop spent its month"
    assert "Came 2 times, last 2026-09-14 12:01 UTC" in json.dumps(final["blocks"])
    assert "2026-09-14 12:00 UTC to 2026-09-14 14:00 UTC" in json.dumps(closed["blocks"])
    assert [p.mention for p in post.parcels] == ["<!subteam^S0123456789>", None, None]


def test_a_repetition_shows_as_a_count_once_in_ten_minutes(state: State) -> None:
    post = Post()
    alarm(state)
    deliver(state, by(state, post), ON_CALL)
    for minute in range(30):
        assert not alarm(state, minutes=minute)
        deliver(state, by(state, post), ON_CALL)
    assert len(post.sent) == 1, "real time has not moved ten minutes"
    later = datetime.now(UTC) + timedelta(minutes=11)
    deliver(state, by(state, post), ON_CALL, now=later)
    assert len(post.sent) == 2
    assert "Came 31 times, last 2026-09-14 12:29 UTC" in post.parcels[1].message.payload["text"]
    assert post.parcels[1].message.kind == "update"
    assert pending(state) == ()


def test_many_repetitions_leave_two_messages(state: State) -> None:
    with state.begin() as connection:
        told = [
            raise_alarm(connection, KEY, title="worker is dead", severity="warning")
            for _ in range(300)
        ]
    assert told == [True] + [False] * 299
    assert len(messages(state)) == 2
    post = Post()
    deliver(state, by(state, post))
    (parcel,) = post.parcels
    assert "Came 300 times" in parcel.message.payload["text"]


def test_an_alarm_that_comes_back_is_a_new_one(state: State) -> None:
    alarm(state)
    resolve_alarm(state, KEY, how="over")
    assert alarm(state, minutes=30)
    found = read_incident(state, KEY)
    assert found is not None
    assert (found.number, found.count, found.status) == (2, 1, "open")
    assert found.thread == f"incident:{KEY}#2"
    assert found.acknowledged_by is None


def test_an_alarm_that_gets_worse_is_told_and_pages(state: State) -> None:
    post = Post()
    assert alarm(state, severity="warning")
    deliver(state, by(state, post), ON_CALL)
    assert alarm(state, severity="page", minutes=5)
    assert not alarm(state, severity="warning", minutes=6), "it does not get better by itself"
    deliver(state, by(state, post), ON_CALL)
    assert [p.mention for p in post.parcels[:2]] == [None, "<!subteam^S0123456789>"]
    found = read_incident(state, KEY)
    assert found is not None
    assert (found.severity, found.count) == ("page", 3)
    assert "*Since:* 2026-09-14 12:00 UTC" in json.dumps(post.parcels[1].message.payload)


def test_a_person_takes_care_once_and_all_see_it(state: State) -> None:
    post = Post()
    assert not acknowledge(state, KEY, "mia")
    alarm(state)
    deliver(state, by(state, post), ON_CALL)
    assert acknowledge(state, KEY, "mia <!channel>", now=NOW)
    assert not acknowledge(state, KEY, "noa", now=NOW)
    deliver(state, by(state, post), ON_CALL)
    reply, root = post.parcels[1].message.payload, post.parcels[2].message.payload
    assert reply["text"].startswith("👀 Acknowledged by mia &lt;!channel&gt;")
    assert "Acknowledged by mia" in root["text"]
    assert root["buttons"] == []
    assert [p.mention for p in post.parcels[1:]] == [None, None]
    (found,) = open_incidents(state)
    assert found.acknowledged_by == "mia <!channel>"


def test_what_is_over_before_anybody_was_told_wakes_nobody(state: State) -> None:
    alarm(state)
    resolve_alarm(state, KEY, how="it was short")
    post = Post()
    deliver(state, by(state, post), ON_CALL)
    assert [p.message.kind for p in post.parcels] == ["open", "reply"]
    assert post.parcels[0].message.payload["text"].startswith("✅ RESOLVED")
    assert [p.mention for p in post.parcels] == [None, None]


def test_alarms_raised_at_once_open_one_incident(state: State) -> None:
    import threading

    told: list[bool] = []
    threads = [threading.Thread(target=lambda: told.append(alarm(state))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [False] * 5 + [True]
    assert read_incident(state, KEY).count == 6  # type: ignore[union-attr]
