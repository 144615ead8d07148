"""The gate's own metrics for Prometheus, read from the state database at each scrape.

No process keeps a count: a gate that ended, and one on another machine, is counted all the same,
and several exporters say the same. The reading takes no lock that a gate would wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata

import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.engine import Connection

from tasks import metrics_tables as tables
from tasks.budget.limits import ALL, load_budgets
from tasks.budget.spend import spent_in
from tasks.budget.windows import KINDS, window_at
from tasks.database import Database
from tasks.errors import ConfigError, StateError
from tasks.records import usd
from tasks.settings import Settings
from tasks.state import State

Now = Callable[[], datetime]


def registry_of(settings: Settings, now: Now = lambda: datetime.now(UTC)) -> CollectorRegistry:
    """Return a registry whose metrics are read from the state database when they are asked for.

    Args:
        settings: Where the state database and the budgets lie.
        now: Clock, for the ages.

    Raises:
        StateError: The database cannot be opened or has other tables.
    """
    # Opened once as a gate does it, so that a database of another version is refused by name.
    State(settings.state_url.get_secret_value()).close()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(settings, now))
    return registry


class StateCollector(Collector):
    """Reads the metrics; a database that fails is ``imagegate_state_up 0`` and nothing else.

    Args:
        settings: Where the state database and the budgets lie.
        now: Clock, for the ages.
    """

    def __init__(self, settings: Settings, now: Now) -> None:
        self._settings, self._now = settings, now
        gates = Database(settings.state_url.get_secret_value())
        # An engine of its own: that of the gates locks the others out in every transaction.
        self._engine = sa.create_engine(
            gates.engine.url,
            connect_args={"timeout" if gates.sqlite else "connect_timeout": 5},
            poolclass=sa.pool.NullPool,
        )

    def collect(self) -> Iterator[Metric]:
        """Yield every family, read now."""
        up = GaugeMetricFamily(
            "imagegate_state_up", "1 when the state database could be read at this scrape, else 0."
        )
        try:
            with self._engine.connect() as connection:
                found = list(self._families(connection))
        except (sa.exc.SQLAlchemyError, StateError, OSError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from found

    def _families(self, connection: Connection) -> Iterator[Metric]:
        now = self._now()
        label = tables.labels_of(connection)
        yield InfoMetricFamily(
            "imagegate_build",
            "Version of imagegate that reads these metrics.",
            {"version": _version()},
        )
        yield from tables.runs_of(connection, label, now)
        yield from tables.last_runs_of(connection, label, now)
        yield from tables.images_of(connection, label)
        yield from tables.spend_of(connection, label)
        yield from self._budgets(connection, now)
        yield from tables.alerts_of(connection, now)
        yield from tables.production_of(connection, label, now)

    def _budgets(self, connection: Connection, now: datetime) -> Iterator[Metric]:
        read = GaugeMetricFamily(
            "imagegate_budget_up",
            "1 when the file of budgets could be read; 0 stops all spending.",
        )
        try:
            budgets = load_budgets(self._settings.budgets_file)
        except ConfigError:
            read.add_metric([], 0)
            yield read
            return
        read.add_metric([], 1)
        yield read
        spent = GaugeMetricFamily(
            "imagegate_budget_spent_dollars",
            "Dollars spent or possibly spent in the present day, week and month of the budget, "
            "by scope (a product, or all).",
            labels=["scope", "window"],
        )
        limit = GaugeMetricFamily(
            "imagegate_budget_limit_dollars",
            "Limits of the budget in dollars: soft tells people, hard stops new runs.",
            labels=["scope", "window", "limit"],
        )
        for kind in KINDS:
            by_product = spent_in(connection, window_at(kind, now, budgets.zone))
            for who, scope in list(budgets.scopes.items())[: tables.MOST_PRODUCTS + 1]:
                total = sum(s.total for product, s in by_product.items() if who in (ALL, product))
                spent.add_metric([who, kind], usd(total))
                limits = scope.limits(kind)
                for name in ("soft", "hard"):
                    value = None if limits is None else getattr(limits, name)
                    if value is not None:
                        limit.add_metric([who, kind, name], float(value))
        yield from (spent, limit)


def _version() -> str:
    try:
        return metadata.version("imagegate")
    except metadata.PackageNotFoundError:
        return "unknown"
