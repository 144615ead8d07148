"""A production log in a database: ``URL::SELECT …``.

    sqlite:///logs/requests.db::SELECT prompt, locale, width, height FROM requests
    postgresql+psycopg://reader:secret@db/shop::SELECT text AS prompt FROM log WHERE id > 9000

One ``SELECT`` (or ``WITH … SELECT``) runs in a read-only transaction and its rows are fetched in
batches from the server. The columns are those of :data:`tasks.inputs.rows.COLUMNS`, so ``AS``
brings any table into shape. The password never leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks.errors import ConfigError
from tasks.inputs.log import BATCH, LogSource
from tasks.inputs.rows import BadRow, RawRow, map_columns

# An IPv6 host holds '::' too, so the query's first word decides where the URL ends.
_SPLIT = re.compile(r"::\s*(?=(?:select|with)\b)", re.IGNORECASE)
_SYNTAX = (
    "a database is given as 'URL::SELECT …', e.g. 'sqlite:///requests.db::SELECT prompt FROM "
    "requests'"
)


def open_sql(inputs: str) -> LogSource:
    """Return the log that a URL and a query name; the database is opened with the first row.

    Raises:
        ConfigError: No query, several statements, not a reading query, or not a database URL.
    """
    parts = _SPLIT.split(inputs, maxsplit=1)
    url = _url(parts[0])
    # Parameters of the URL may hold passwords and key files, so they are not shown either.
    shown = url.set(query={}).render_as_string(hide_password=True)
    if len(parts) == 1:
        raise ConfigError(f"--inputs {shown}: no query that reads; {_SYNTAX}")
    query = parts[1].strip().rstrip(";").rstrip()
    if ";" in _without_literals(query):
        raise ConfigError(f"--inputs {shown}: only one statement is allowed; {_SYNTAX}")
    return LogSource(f"{shown}::{query}", lambda: _read(url, query, shown))


def _url(text: str) -> sa.URL:
    try:
        return sa.make_url(text.removesuffix("::"))
    except (sa.exc.ArgumentError, ValueError):
        # The text itself may hold a password, so it is not repeated.
        raise ConfigError(f"--inputs: not a database URL; {_SYNTAX}") from None


def _without_literals(query: str) -> str:
    return re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "''", query)


def _read(url: sa.URL, query: str, shown: str) -> Iterator[RawRow | BadRow]:
    engine = _engine(url, shown)
    try:
        with engine.connect() as connection:
            make_read_only(connection)
            # exec_driver_sql: the query is the user's own, with its colons and percent signs.
            result = connection.execution_options(
                stream_results=True, yield_per=BATCH, no_parameters=True
            ).exec_driver_sql(query)
            places = map_columns(list(result.keys()), shown)
            for number, row in enumerate(result, start=1):
                yield number, [None if place is None else row[place] for place in places]
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        raise ConfigError(f"--inputs {shown}: {_reason(error, url)}") from None
    finally:
        engine.dispose()


def _engine(url: sa.URL, shown: str) -> sa.Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return sa.create_engine(url, poolclass=sa.NullPool)
        path = Path(url.database or "")
        if not path.is_file():
            # SQLite would make an empty database of that name.
            raise ConfigError(f"--inputs {shown}: no such file")
        return sa.create_engine(
            sa.URL.create(
                url.drivername,
                database=path.resolve().as_uri(),
                query={"mode": "ro", "uri": "true"},
            ),
            poolclass=sa.NullPool,
        )
    except sa.exc.NoSuchModuleError:
        raise ConfigError(
            f"--inputs {shown}: SQLAlchemy knows no database {url.drivername!r}"
        ) from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--inputs {shown}: the driver {error.name!r} is not installed; install it beside "
            "imagegate"
        ) from None


def make_read_only(connection: sa.Connection) -> None:
    """Let the database itself refuse writes, e.g. ``WITH … AS (DELETE …)``."""
    statements: dict[str, str] = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET TRANSACTION READ ONLY",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
        "mariadb": "SET SESSION TRANSACTION READ ONLY",
    }
    statement = statements.get(connection.dialect.name)
    if statement is not None:
        connection.exec_driver_sql(statement)


def _reason(error: sa.exc.SQLAlchemyError, url: sa.URL) -> str:
    cause: Any = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())[:300]
    for secret in (url.password, *(v for v in url.query.values() if isinstance(v, str))):
        if secret and str(secret) in text:
            text = text.replace(str(secret), "***")
    return text or type(cause).__name__
