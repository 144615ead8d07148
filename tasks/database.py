"""How the state database is opened: SQLite or PostgreSQL, one transaction at a time on both.

Everything above reads and then writes in one transaction and relies on nobody writing in between.
SQLite gives that by its write lock, PostgreSQL by a lock of its own that every transaction takes
first: no unique key is violated by two that insert the same row, and no cap is passed by two that
read the same sum. A transaction here lasts milliseconds, so waiting for one costs little.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.errors import ConfigError, StateError

P = ParamSpec("P")
Result = TypeVar("Result")

#: Seconds to wait for the lock of another transaction.
LOCK_S = 30
#: PostgreSQL ends a transaction whose process fell silent for so many seconds, and frees its lock.
IDLE_S = 60
#: Seconds to wait for a PostgreSQL that went away after it had been there, e.g. to restart.
PATIENCE_S = 30.0
#: How often work is repeated whose connection was lost in the middle.
_REPEATS = 2
#: The advisory lock of imagegate's transactions: the letters ``imgate``.
ADVISORY_LOCK = int.from_bytes(b"imgate")
_BEGIN = (
    f"SET LOCAL lock_timeout = '{LOCK_S}s'; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S}s'; "
    f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"
)
#: Connection settings of libpq that notice a dead network; the URL's own settings win.
_POSTGRES = {
    "application_name": "imagegate",
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
#: SQLSTATEs of a server that goes away: shutdown, crash, start-up, time-outs of idle sessions.
_GONE = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
_LOCK_NOT_AVAILABLE = "55P03"
#: What UTF-8 cannot hold (halves of surrogate pairs) and what PostgreSQL refuses in text (NUL).
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class LostConnectionError(StateError):
    """The connection to the database was lost; see :func:`repeated`."""


def repeated(method: Callable[P, Result]) -> Callable[P, Result]:
    """Repeat a function that opens one transaction when its connection is lost in the middle.

    A connection that is lost at the very end leaves open whether the work was kept, so only what
    is harmless when it is done twice may be repeated.
    """

    @functools.wraps(method)
    def until_kept(*args: P.args, **kwargs: P.kwargs) -> Result:
        for _ in range(_REPEATS):
            try:
                return method(*args, **kwargs)
            except LostConnectionError:
                # The next transaction waits for the server.
                continue
        return method(*args, **kwargs)

    return until_kept


class Database:
    """An open database: how transactions begin, and what its errors mean.

    Args:
        url: SQLAlchemy URL of a SQLite or PostgreSQL database.

    Raises:
        ConfigError: The URL is none, or of another kind of database.
        StateError: The driver or the folder is missing.
    """

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        # A password may also stand behind the question mark.
        visible = parsed if self.sqlite else parsed.set(query={})
        self.shown = visible.render_as_string(hide_password=True)
        #: The file of a SQLite database; ``None`` for others, in memory, or SQLite's own URIs.
        self.file: Path | None = None
        name = parsed.database or ""
        # SQLite's own URIs (file:…?mode=ro) name a file that has to be there.
        if self.sqlite and name not in ("", ":memory:") and not name.startswith("file:"):
            self.file = Path(name)
        given = {k: v for k, v in _POSTGRES.items() if k not in parsed.query}
        try:
            self.engine: Engine = sa.create_engine(
                parsed,
                connect_args={"timeout": LOCK_S} if self.sqlite else given,
                pool_pre_ping=not self.sqlite,
            )
        except (sa.exc.SQLAlchemyError, ImportError, TypeError) as error:
            raise StateError(
                f"{self.shown}: this kind of state database cannot be used: {error}; install its "
                "driver (pip install 'imagegate[team]' for PostgreSQL) or mend IMAGEGATE_STATE_URL"
            ) from None
        if self.sqlite:
            sa.event.listen(self.engine, "connect", _sqlite_pragmas)
        sa.event.listen(self.engine, "begin", _begin_immediate if self.sqlite else _begin_locked)
        sa.event.listen(self.engine, "before_cursor_execute", _storable, retval=True)
        #: Seconds to wait for a server that is away; none before it was there once.
        self.patience_s = 0.0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that excludes all others, so that what it reads holds to its end.

        A PostgreSQL that is away (a restart) is waited for as long as nothing was done yet.

        Raises:
            StateError: The database is unreadable, corrupt, locked for 30 s, or the disk is full.
            LostConnectionError: The server went away in the middle.
        """
        try:
            with ExitStack() as stack:
                yield self._enter(stack)
        except sa.exc.DBAPIError as error:
            raise self._told(error) from error
        except sa.exc.TimeoutError:
            raise StateError(
                f"{self.shown}: no connection to the state database was free for 30 s; nothing was "
                "changed by this step. Try again with fewer things at a time"
            ) from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _enter(self, stack: ExitStack) -> Connection:
        """Open a transaction; wait for a server that is away."""
        until = time.monotonic() + self.patience_s
        wait = 0.1
        while True:
            try:
                return stack.enter_context(self.engine.begin())
            except sa.exc.DBAPIError as error:
                if self.sqlite or not _lost(error) or time.monotonic() >= until:
                    raise
            threading.Event().wait(wait)
            wait = min(2 * wait, 2.0)

    def _told(self, error: sa.exc.DBAPIError) -> StateError:
        """Return what a driver's error means, without rows, statements and passwords."""
        if self.sqlite:
            return StateError(
                f"{self.shown}: the state database failed: {error.orig}; nothing was changed by "
                "this step. Restore the file from a backup, or move it away to start afresh"
            )
        # Not the whole text: its details can hold rows.
        said = _primary(error)
        if _lost(error):
            return LostConnectionError(
                f"{self.shown}: the connection to the state database failed: {said}; whether this "
                "step was kept is not known. See that PostgreSQL runs and can be reached, then "
                "start again: what was paid stays counted"
            )
        if _sqlstate(error) == _LOCK_NOT_AVAILABLE:
            return StateError(
                f"{self.shown}: another process held the state database for {LOCK_S} s; nothing "
                "was changed by this step. pg_stat_activity shows who (application imagegate)"
            )
        return StateError(
            f"{self.shown}: the state database failed: {said}; nothing was changed by this step"
        )


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigError(
            "IMAGEGATE_STATE_URL is not a database URL (expected e.g. sqlite:///state.db or "
            "postgresql+psycopg://user:password@host/name)"
        ) from None
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigError(
            f"{parsed.set(query={}).render_as_string(hide_password=True)}: this kind of state "
            f"database cannot be used: {parsed.drivername!r} (known: postgresql+psycopg, sqlite); "
            "mend IMAGEGATE_STATE_URL"
        )
    return parsed


def make_folder(database: Database) -> None:
    """Make the folder of a SQLite database.

    Raises:
        StateError: It cannot be made.
    """
    if database.file is None:
        return
    try:
        database.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"{database.shown}: the folder of the state database cannot be made: "
            f"{error.strerror}; set IMAGEGATE_HOME elsewhere"
        ) from None


def _sqlstate(error: sa.exc.DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _primary(error: sa.exc.DBAPIError) -> str:
    """Return the first line of what PostgreSQL said."""
    diagnosis = getattr(error.orig, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or str(error.orig)
    return " ".join(text.split())


def _lost(error: sa.exc.DBAPIError) -> bool:
    """Tell whether the server, not the statement, is what failed."""
    state = _sqlstate(error)
    if state is not None:
        return state in _GONE or state.startswith("08")
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


def _storable(
    _connection: Connection,
    _cursor: object,
    statement: str,
    parameters: Any,
    _context: object,
    _many: bool,
) -> tuple[str, Any]:
    """Replace characters that a database refuses, in whatever a person or a model wrote."""
    return statement, _clean(parameters)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_clean, value))
    return value


def _sqlite_pragmas(connection: object, _record: object) -> None:
    """Set write-ahead logging; let SQLAlchemy, not the driver, open transactions."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    """Take SQLite's write lock when the transaction opens: no deadlock of two upgraders."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_locked(connection: Connection) -> None:
    """Take the lock of all of imagegate's transactions; without parameters, it is one message."""
    connection.exec_driver_sql(_BEGIN, execution_options={"no_parameters": True})
