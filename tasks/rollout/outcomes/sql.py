"""Live outcomes from a database: a query that reads, with the window as its parameters.

The query gives one row a request, with the fields of a log, or one row a mix with its counts::

    SELECT mix_digest, count(*) AS images, count(*) FILTER (WHERE NOT ok) AS failures
    FROM requests WHERE product = :product AND ended_at >= :since AND ended_at < :until
    GROUP BY mix_digest

It runs in a read-only transaction with a time limit.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from pydantic import SecretStr

from tasks.errors import ConfigError, known
from tasks.inputs.sql import make_read_only
from tasks.rollout.outcomes.base import ArmOutcomes, Clock, OutcomeError, Outcomes, now_utc
from tasks.rollout.outcomes.config import SqlConfig
from tasks.rollout.outcomes.rows import NAMES, BadRowError, RowReader, mix_named, moment
from tasks.rollout.outcomes.tally import Tally

#: Rows that are fetched at a time.
_BATCH: Final = 4_096
#: Instructions of SQLite between two looks at the clock.
_SQLITE_STEPS: Final = 10_000
_COUNTS: Final = (
    "images",
    "failures",
    "slow",
    "timed",
    "cost_microusd",
    "costed",
    "tickets",
)
_CAST: Final = re.compile(r"(:(?:since|until|product))::")
_BIND: Final[Mapping[str, Callable[[datetime], Any]]] = {
    "timestamp": lambda at: at,
    "naive": lambda at: at.replace(tzinfo=None),
    "iso": lambda at: at.isoformat(),
    "epoch": lambda at: at.timestamp(),
    "epoch_ms": lambda at: round(at.timestamp() * 1_000),
}


class SqlSource:
    """Counts by a query.

    Args:
        config: The query and what its rows are.
        url: The database, with its password.
        clock: Gives the moment.

    Raises:
        ConfigError: Not a database that can be opened from here.
    """

    def __init__(self, config: SqlConfig, url: SecretStr, clock: Clock = now_utc) -> None:
        self._config, self._clock = config, clock
        self._url = _url(url, config)
        self._reader = RowReader(config.rows)

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or "sql"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Run the query for the window.

        Raises:
            OutcomeError: The database does not answer in time, or its rows make no sense.
        """
        with self._connected() as connection:
            end = self._complete(connection, product, since, until)
            if not self._config.concerns(product):
                return Outcomes(since, end, {digest: ArmOutcomes() for digest in digests})
            columns, rows = self._rows(connection, self._config.query, product, since, end)
            if self._config.shape == "counts":
                return _counts(columns, rows, digests, since, end, self.name)
            tally = Tally(digests, since, end, product, self._config.rows)
            for row in rows:
                try:
                    tally.add(self._reader.read(row))
                except BadRowError as error:
                    tally.bad(error)
            return tally.outcomes(self.name)

    def _complete(
        self, connection: sa.Connection, product: str, since: datetime, until: datetime
    ) -> datetime:
        """Return how far the rows are complete."""
        end = min(until, self._clock() - timedelta(seconds=self._config.lag_s))
        if self._config.complete_query is not None:
            rows = list(
                self._rows(connection, self._config.complete_query, product, since, until)[1]
            )
            values = list(rows[0].values()) if len(rows) == 1 else []
            if len(values) != 1 or values[0] is None:
                raise OutcomeError("complete_query must give one row with one moment")
            try:
                end = min(end, moment(values[0]))
            except BadRowError as error:
                raise OutcomeError(f"complete_query: {error}") from None
        return max(since, end)

    def _rows(
        self,
        connection: sa.Connection,
        query: str,
        product: str,
        since: datetime,
        until: datetime,
    ) -> tuple[list[str], Iterator[dict[str, Any]]]:
        """Return the columns of a query and its rows, fetched in batches."""
        # SQLAlchemy sees no parameter in ":until::timestamptz", PostgreSQL's way to cast.
        statement = sa.text(_CAST.sub(r"\1 ::", query.strip().rstrip(";")))
        bind = _BIND[self._config.time_as]
        given = {"product": product, "since": bind(since), "until": bind(until)}
        there = {name: given[name] for name in statement.compile().params if name in given}
        result = connection.execution_options(stream_results=True, yield_per=_BATCH).execute(
            statement, there
        )
        columns = list(map(str, result.keys()))
        if len({name.casefold() for name in columns}) < len(columns):
            raise OutcomeError(f"two columns of the query have one name: {', '.join(columns)}")
        return columns, (dict(zip(columns, row, strict=True)) for row in result)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """Give a connection whose transaction cannot write and ends in time.

        Raises:
            OutcomeError: The database does not answer, or refuses the query.
        """
        engine = _engine(self._url, self._config.timeout_s)
        try:
            with engine.connect() as connection:
                make_read_only(connection)
                _limit(connection, self._config.timeout_s)
                yield connection
                connection.rollback()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise OutcomeError(f"the database does not answer: {self._reason(error)}") from None
        finally:
            engine.dispose()

    def _reason(self, error: Exception) -> str:
        """Return what a driver said, without what is secret in the address."""
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        for secret in (self._url.password, *self._url.query.values()):
            if isinstance(secret, str) and secret:
                text = text.replace(secret, "***")
        return text or type(error).__name__


class SqlInputs(SqlSource):
    """The same with a query for what was asked for."""

    def inputs_seen(
        self, product: str, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], int]:
        """Return requests by (subtask, locale); columns ``subtask``, ``locale`` and ``images``.

        Raises:
            OutcomeError: As :meth:`read`.
        """
        query = self._config.inputs_query
        seen: dict[tuple[str, str], int] = {}
        if query is None or not self._config.concerns(product):
            return seen
        with self._connected() as connection:
            end = self._complete(connection, product, since, until)
            for row in self._rows(connection, query, product, since, end)[1]:
                named = {name.casefold(): value for name, value in row.items()}
                count = _whole("images", named.get("images"))
                if count is None:
                    raise OutcomeError("inputs_query must give a column 'images'")
                key = (str(named.get("subtask") or ""), str(named.get("locale") or ""))
                seen[key] = seen.get(key, 0) + count
        return seen


def _counts(
    columns: Sequence[str],
    rows: Iterator[dict[str, Any]],
    digests: Sequence[str],
    since: datetime,
    until: datetime,
    source: str,
) -> Outcomes:
    """Return the outcomes of rows that are counts by mix.

    Raises:
        OutcomeError: A column is missing, or a count is none.
    """
    spelled = {name.casefold(): name for name in columns}
    label = next((spelled[name] for name in NAMES["mix"] if name in spelled), None)
    measured = [name for name in _COUNTS if name in spelled]
    if label is None or not measured:
        raise OutcomeError(
            f"the query must give a column 'mix_digest' and counts {known(_COUNTS)}, got "
            f"{', '.join(columns)[:200]}"
        )
    arms: dict[str, dict[str, int]] = {digest: {} for digest in digests}
    others, unknown = 0, 0
    for row in rows:
        counts = {name: _whole(name, row[spelled[name]]) or 0 for name in measured}
        mix = mix_named(str(row[label] or ""), digests)
        if mix is None:
            others += counts.get("images", 0)
            unknown += 1
            continue
        for name, value in counts.items():
            arms[mix][name] = arms[mix].get(name, 0) + value
    notes = (f"{source}: {unknown} rows name a mix that is not looked at",) if unknown else ()
    try:
        # A mix without a row had no request; what has no column is not measured.
        found = {digest: _arm(counts, measured) for digest, counts in arms.items()}
    except ValueError as error:
        raise OutcomeError(f"the query's counts make no sense: {error}") from None
    return Outcomes(since, until, found, notes, others=others)


def _arm(counts: Mapping[str, int], measured: Sequence[str]) -> ArmOutcomes:
    def get(name: str) -> int | None:
        return counts.get(name, 0) if name in measured else None

    cost, images = get("cost_microusd"), get("images") or 0
    costed = get("costed") if "costed" in measured else images
    return ArmOutcomes(
        images,
        get("failures") or 0,
        get("slow"),
        get("timed"),
        cost,
        get("tickets"),
        costed=None if cost is None else costed,
    )


def _whole(name: str, value: Any) -> int | None:
    """Return a count; databases give sums as decimals and floats.

    Raises:
        OutcomeError: It is none.
    """
    if value is None:
        return None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0 and (number == int(number) or "cost" in name):
            return round(value)
    raise OutcomeError(f"column {name!r} must hold whole numbers from 0 on, got {value!r:.40}")


def _url(given: SecretStr, config: SqlConfig) -> sa.URL:
    try:
        url = sa.make_url(given.get_secret_value())
        backend = url.get_backend_name()
        url.get_dialect().import_dbapi()
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(
            f"the variable {config.url_env} holds no database address (expected e.g. "
            "postgresql+psycopg://reader:…@host/shop)"
        ) from None
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError):
        raise ConfigError(
            f"the variable {config.url_env} names a database whose driver is not installed; "
            "install it beside imagegate"
        ) from None
    if backend == "sqlite" and config.time_as in ("timestamp", "naive"):
        raise ConfigError(
            "outcomes of kind 'sql': SQLite has no moments; set time_as to iso, epoch or epoch_ms, "
            "as the column has them"
        )
    return url


def _engine(url: sa.URL, timeout_s: float) -> sa.Engine:
    seconds = max(1, math.ceil(timeout_s))
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if not path.is_file():
            # SQLite would make an empty database of that name.
            raise OutcomeError(f"{path}: no such database")
        return sa.create_engine(
            sa.URL.create(
                url.drivername,
                database=path.resolve().as_uri(),
                query={"mode": "ro", "uri": "true"},
            ),
            poolclass=sa.NullPool,
            connect_args={"timeout": seconds},
        )
    named = url.get_backend_name() in ("postgresql", "mysql", "mariadb")
    arguments = {"connect_timeout": seconds} if named else {}
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)


def _limit(connection: sa.Connection, timeout_s: float) -> None:
    """Let the database itself end what takes too long."""
    kind = connection.dialect.name
    if kind == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(timeout_s * 1_000)}")
    elif kind == "mysql":
        connection.exec_driver_sql(f"SET SESSION MAX_EXECUTION_TIME = {round(timeout_s * 1_000)}")
    elif kind == "mariadb":
        connection.exec_driver_sql(f"SET SESSION max_statement_time = {timeout_s:f}")
    elif kind == "sqlite":
        deadline = time.monotonic() + timeout_s
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: time.monotonic() > deadline, _SQLITE_STEPS)
