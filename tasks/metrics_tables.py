"""The metric families, each from one or two queries on the state database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.engine import Connection

from tasks.budget.spend import BOOKED
from tasks.evidence.text import well_formed
from tasks.mix.freeze import stamp
from tasks.records import usd
from tasks.runs import is_driven
from tasks.tables import (
    approvals,
    freezes,
    incidents,
    journal,
    ledger,
    outbox,
    production,
    runs,
    spend_totals,
)

#: Products with a label of their own, the most used first; a file of mixes with generated names
#: must not make a time series each.
MOST_PRODUCTS = 100
OTHER = "other products"
#: A run that ended with a decision; HOLD, a failure and a stop leave the question open.
DECIDED = ("PROMOTE", "ROLLBACK")
_ARMS = (("candidate", "failure_rate"), ("baseline", "baseline_failure_rate"))
_UNDELIVERED_NOT = ("delivered", "superseded")

Label = Callable[[str | None], str]


def labels_of(connection: Connection) -> Label:
    """Return what gives a product its label; there are at most :data:`MOST_PRODUCTS` and one."""
    counted = (
        sa.select(runs.c.product)
        .group_by(runs.c.product)
        .order_by(sa.func.count().desc(), runs.c.product)
        .limit(MOST_PRODUCTS)
    )
    known = {str(product) for product in connection.execute(counted).scalars()}
    for product in connection.execute(
        sa.select(production.c.product).order_by(production.c.product).limit(MOST_PRODUCTS)
    ).scalars():
        if len(known) < MOST_PRODUCTS:
            known.add(str(product))

    def label(product: str | None) -> str:
        if product is None:
            return ""
        return well_formed(product) if product in known else OTHER

    return label


class _Sums:
    """Adds up samples that share their labels: several products can be one label."""

    def __init__(self, family: GaugeMetricFamily | CounterMetricFamily) -> None:
        self.family = family
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, labels: Iterable[str], value: float) -> None:
        key = tuple(labels)
        self._sums[key] = self._sums.get(key, 0.0) + value

    def done(self) -> Metric:
        for key, value in sorted(self._sums.items()):
            self.family.add_metric(list(key), value)
        return self.family


def runs_of(connection: Connection, label: Label, now: datetime) -> Iterator[Metric]:
    """Yield how many runs there are, in which state, and how many are dead."""
    started = _Sums(
        CounterMetricFamily(
            "imagegate_runs", "Gate runs ever started, resumed ones once.", labels=["product"]
        )
    )
    state = _Sums(
        GaugeMetricFamily(
            "imagegate_runs_by_state",
            "Gate runs in the book by status (running, waiting, finished, failed, stopped) and "
            "verdict (empty without one); a resumed run moves.",
            labels=["product", "status", "verdict"],
        )
    )
    dead = _Sums(
        GaugeMetricFamily(
            "imagegate_runs_dead",
            "Runs booked as running whose process is gone or silent; go on with "
            "`imagegate run --resume`.",
            labels=["product"],
        )
    )
    columns = (runs.c.product, runs.c.status, runs.c.verdict)
    query = sa.select(*columns, sa.func.count()).group_by(*columns)
    for product, status, verdict, count in connection.execute(query):
        started.add([label(product)], count)
        state.add([label(product), status, verdict or ""], count)
        dead.add([label(product)], 0)
    running = sa.select(runs.c.product, runs.c.host, runs.c.pid, runs.c.heartbeat_at).where(
        runs.c.status == "running"
    )
    for product, host, pid, heartbeat in connection.execute(running):
        dead.add([label(product)], not is_driven(host, pid, heartbeat, now=now))
    yield from (started.done(), state.done(), dead.done())


def last_runs_of(connection: Connection, label: Label, now: datetime) -> Iterator[Metric]:
    """Yield when each product was judged last, and with what figures."""
    ends = {
        "imagegate_last_run": ("run, however it ended", runs.c.ended_at.is_not(None)),
        "imagegate_last_good_run": (
            "run that decided (PROMOTE or ROLLBACK)",
            sa.and_(runs.c.status == "finished", runs.c.verdict.in_(DECIDED)),
        ),
    }
    for name, (what, condition) in ends.items():
        moments = GaugeMetricFamily(
            f"{name}_timestamp_seconds",
            f"Unix time of the end of the last {what}.",
            labels=["product"],
        )
        age = GaugeMetricFamily(
            f"{name}_age_seconds",
            f"Seconds from the end of the last {what}, to the scrape.",
            labels=["product"],
        )
        query = (
            sa.select(runs.c.product, sa.func.max(runs.c.ended_at))
            .where(condition)
            .group_by(runs.c.product)
        )
        newest: dict[str, float] = {}
        for product, at in connection.execute(query):
            moment = datetime.fromisoformat(at).timestamp()
            newest[label(product)] = max(moment, newest.get(label(product), 0.0))
        for product, moment in sorted(newest.items()):
            moments.add_metric([product], moment)
            age.add_metric([product], max(0.0, now.timestamp() - moment))
        yield from (moments, age)
    yield from _last_figures(connection, label)


def _last_figures(connection: Connection, label: Label) -> Iterator[Metric]:
    failure = GaugeMetricFamily(
        "imagegate_last_run_failure_ratio",
        "Failure rate (0 to 1) of the last finished run: estimate, and the lower and upper end of "
        "its 95 % interval.",
        labels=["product", "arm", "bound"],
    )
    images = GaugeMetricFamily(
        "imagegate_last_run_images",
        "Cases of the candidate in the last finished run by outcome; good: neither of the others.",
        labels=["product", "outcome"],
    )
    cost = GaugeMetricFamily(
        "imagegate_last_run_effective_cost_dollars",
        "Dollars for 1,000 usable images in the last finished run.",
        labels=["product", "arm"],
    )
    spend = GaugeMetricFamily(
        "imagegate_last_run_spend_dollars",
        "Dollars that the last finished run spent.",
        labels=["product"],
    )
    took = GaugeMetricFamily(
        "imagegate_last_run_duration_seconds",
        "Wall-clock seconds of the last finished run.",
        labels=["product"],
    )
    for product, result in _results(connection, label):
        for arm, field in _ARMS:
            rate = result.get(field) or {}
            for bound in ("estimate", "lower", "upper"):
                if rate.get(bound) is not None:
                    failure.add_metric([product, arm, bound], float(rate[bound]))
        bad = {name: int(count) for name, count in (result.get("accounts") or {}).items()}
        for name, count in sorted(bad.items()):
            images.add_metric([product, name], count)
        images.add_metric([product, "good"], int(result.get("images", 0)) - sum(bad.values()))
        for arm, field in (
            ("candidate", "effective_cost_per_1k_usd"),
            ("baseline", "baseline_effective_cost_per_1k_usd"),
        ):
            if result.get(field) is not None:
                cost.add_metric([product, arm], float(result[field]))
        spend.add_metric([product], float(result.get("spend_usd", 0.0)))
        took.add_metric([product], float(result.get("seconds", 0.0)))
    yield from (failure, images, cost, spend, took)


def _results(connection: Connection, label: Label) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the newest result of each product that has a label of its own."""
    newest = (
        sa.select(runs.c.product, sa.func.max(runs.c.ended_at).label("at"))
        .where(runs.c.status == "finished", runs.c.result.is_not(None))
        .group_by(runs.c.product)
        .subquery()
    )
    query = (
        sa.select(runs.c.product, runs.c.result)
        .join(newest, sa.and_(runs.c.product == newest.c.product, runs.c.ended_at == newest.c.at))
        .where(runs.c.status == "finished", runs.c.result.is_not(None))
        .order_by(runs.c.product, runs.c.run_id)
    )
    # Two runs that ended in the same millisecond: the later name wins, and none is told twice.
    found = {str(product): text for product, text in connection.execute(query)}
    for product, text in found.items():
        if label(product) != OTHER:
            yield label(product), json.loads(text)


def images_of(connection: Connection, label: Label) -> Iterator[Metric]:
    """Yield how many cases went through a mix."""
    done = _Sums(
        CounterMetricFamily(
            "imagegate_images",
            "Cases that went to their end through a mix, by arm; from the journal of all runs.",
            labels=["product", "arm"],
        )
    )
    query = (
        sa.select(runs.c.product, journal.c.arm, sa.func.count())
        .select_from(journal.join(runs, runs.c.run_id == journal.c.run_id))
        .group_by(runs.c.product, journal.c.arm)
    )
    for product, arm, count in connection.execute(query):
        done.add([label(product), arm], count)
    yield done.done()


def spend_of(connection: Connection, label: Label) -> Iterator[Metric]:
    """Yield what the runs spent, and what of it is not certain."""
    spent = _Sums(
        GaugeMetricFamily(
            "imagegate_spend_dollars",
            "Dollars that all runs spent or may have spent, as the caps count them.",
            labels=["product"],
        )
    )
    totals = sa.select(runs.c.product, sa.func.sum(spend_totals.c.microusd)).join(
        runs, spend_totals.c.scope == sa.literal("run:") + runs.c.run_id
    )
    for product, total in connection.execute(totals.group_by(runs.c.product)):
        spent.add([label(product)], usd(int(total)))
    doubtful = _Sums(
        GaugeMetricFamily(
            "imagegate_spend_uncertain_dollars",
            "The part of the spend that is not booked: reserved (a request is under way), or "
            "unknown (nobody knows whether it was billed).",
            labels=["product", "status"],
        )
    )
    query = (
        sa.select(runs.c.product, ledger.c.status, sa.func.sum(ledger.c.reserved_microusd))
        .select_from(ledger.join(runs, runs.c.run_id == ledger.c.run_id))
        .where(ledger.c.status != BOOKED)
        .group_by(runs.c.product, ledger.c.status)
    )
    for product, status, total in connection.execute(query):
        doubtful.add([label(product), status], usd(int(total)))
    yield from (spent.done(), doubtful.done())


def alerts_of(connection: Connection, now: datetime) -> Iterator[Metric]:
    """Yield what people were not told yet, and the alarms that last."""
    waiting = GaugeMetricFamily(
        "imagegate_alerts_undelivered",
        "Messages to people that no channel has taken yet, by severity.",
        labels=["severity"],
    )
    oldest = GaugeMetricFamily(
        "imagegate_alerts_oldest_undelivered_age_seconds",
        "Seconds that the oldest undelivered message waits; 0 without one.",
    )
    owed = outbox.c.status.not_in(_UNDELIVERED_NOT)
    counts = dict.fromkeys(("info", "warning", "page"), 0)
    query = sa.select(outbox.c.severity, sa.func.count()).where(owed).group_by(outbox.c.severity)
    counts |= {str(severity): int(count) for severity, count in connection.execute(query)}
    for severity, count in counts.items():
        waiting.add_metric([severity], count)
    first = connection.execute(sa.select(sa.func.min(outbox.c.created_at)).where(owed)).scalar()
    age = 0.0 if first is None else (now - datetime.fromisoformat(first)).total_seconds()
    oldest.add_metric([], max(0.0, age))
    alarms = GaugeMetricFamily(
        "imagegate_incidents_open", "Alarms that last, by severity.", labels=["severity"]
    )
    lasting = dict.fromkeys(("info", "warning", "page"), 0)
    query = (
        sa.select(incidents.c.severity, sa.func.count())
        .where(incidents.c.status == "open")
        .group_by(incidents.c.severity)
    )
    lasting |= {str(severity): int(count) for severity, count in connection.execute(query)}
    for severity, count in lasting.items():
        alarms.add_metric([severity], count)
    yield from (waiting, oldest, alarms)


def production_of(connection: Connection, label: Label, now: datetime) -> Iterator[Metric]:
    """Yield the state of production: epoch, freezes, open questions to people."""
    epoch = GaugeMetricFamily(
        "imagegate_production_epoch",
        "Epoch of production: grows with every change of what serves.",
        labels=["product"],
    )
    behind = GaugeMetricFamily(
        "imagegate_production_unapplied",
        "Epochs that the router was not yet read back to show; 0 when it shows production.",
        labels=["product"],
    )
    changed = GaugeMetricFamily(
        "imagegate_production_changed_timestamp_seconds",
        "Unix time of the last change of production.",
        labels=["product"],
    )
    held = _Sums(
        GaugeMetricFamily(
            "imagegate_freezes_active",
            "Freezes of production in force, by who holds them: a run or a person.",
            labels=["product", "holder"],
        )
    )
    asked = _Sums(
        GaugeMetricFamily(
            "imagegate_approvals_pending",
            "Runs that wait for a person's decision.",
            labels=["product"],
        )
    )
    columns = production.c
    for product, number, applied, at in connection.execute(
        sa.select(columns.product, columns.epoch, columns.applied_epoch, columns.changed_at)
    ):
        asked.add([label(product)], 0)
        for holder in ("run", "person"):
            held.add([label(product), holder], 0)
        if label(product) == OTHER:
            continue  # Epochs of several products are no sum.
        epoch.add_metric([label(product)], number)
        behind.add_metric([label(product)], max(0, number - applied))
        changed.add_metric([label(product)], datetime.fromisoformat(at).timestamp())
    force = sa.select(freezes.c.product, freezes.c.run_id).where(
        freezes.c.released_at.is_(None), freezes.c.until_at > stamp(now)
    )
    for product, run_id in connection.execute(force):
        held.add([label(product), "person" if run_id is None else "run"], 1)
    waits = (
        sa.select(approvals.c.product, sa.func.count())
        .where(approvals.c.status == "pending")
        .group_by(approvals.c.product)
    )
    for product, count in connection.execute(waits):
        asked.add([label(product)], count)
    yield from (epoch, behind, changed, held.done(), asked.done())
