"""The state database: production, freezes, runs, spend, journal and outbox in one place.

SQLite by default, any SQLAlchemy URL otherwise. A step keeps its own queries in its own folder;
this module owns the tables and how a transaction is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.errors import StateError

metadata = sa.MetaData()

#: Version of the tables; a database of another version is refused, never guessed at.
STATE_VERSION = 2

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

#: Every mix ever judged or served, by digest.
mixes = sa.Table(
    "mixes",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("added_at", sa.String(32), nullable=False),
)

#: One row a product: the desired mix and the epoch that fences controllers.
production = sa.Table(
    "production",
    metadata,
    sa.Column("product", sa.String(120), primary_key=True),
    sa.Column("mix_digest", sa.String(80), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    #: Epoch that the router was last read back to show; behind ``epoch`` during a change.
    sa.Column("applied_epoch", sa.Integer, nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
)

#: Append-only journal of every change of production.
transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),  # adopt, promote, rollback, verified
    sa.Column("from_digest", sa.String(80)),
    sa.Column("to_digest", sa.String(80), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(80)),
    sa.Column("at", sa.String(32), nullable=False),
)

freezes = sa.Table(
    "freezes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    sa.Column("mix_digest", sa.String(80), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    #: The run that holds the freeze, ``None`` for a person's freeze.
    sa.Column("run_id", sa.String(80)),
    sa.Column("from_at", sa.String(32), nullable=False),
    sa.Column("until_at", sa.String(32), nullable=False),
    sa.Column("released_at", sa.String(32)),
    sa.Column("released_by", sa.String(200)),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    # running, waiting (for a person), finished, failed, stopped
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("verdict", sa.String(20)),
    sa.Column("candidate_digest", sa.String(80), nullable=False),
    sa.Column("baseline_digest", sa.String(80), nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
    sa.Column("ended_at", sa.String(32)),
    #: Host and process that drive the run, to tell a dead run from a living one.
    sa.Column("host", sa.String(200), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("result", sa.Text),  # the JSON that `imagegate run --json` prints
    #: Who asked for the run; the policy may forbid them to approve it.
    sa.Column("requester", sa.String(200)),
    #: Prefect's flow run: started again (crash, suspension) it goes on with its own gate run.
    sa.Column("flow_run_id", sa.String(40), index=True),
    #: A token of the process that drives the run; one that lost it stops by itself.
    sa.Column("driver", sa.String(40)),
    #: When the driver last said that it lives, UTC ISO-8601.
    sa.Column("heartbeat_at", sa.String(32)),
)

#: One row a run that a person has to decide about before production changes.
approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(120), nullable=False, index=True),
    # pending, approved, rejected, expired
    sa.Column("status", sa.String(12), nullable=False),
    #: Why a person is asked, as a sentence.
    sa.Column("asked_because", sa.Text, nullable=False),
    sa.Column("requester", sa.String(200), nullable=False),
    sa.Column("requested_at", sa.String(32), nullable=False),
    sa.Column("expires_at", sa.String(32), nullable=False),
    sa.Column("decided_by", sa.String(200)),
    sa.Column("decided_at", sa.String(32)),
    sa.Column("decided_via", sa.String(20)),  # command, prefect, slack, expiry
    sa.Column("reason", sa.Text),
)

#: One row a paid request: reserved at the worst price before it, booked at the actual after it.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("idempotency_key", sa.String(200), primary_key=True),
    sa.Column("run_id", sa.String(80), nullable=False, index=True),
    sa.Column("day", sa.String(10), nullable=False, index=True),
    sa.Column("arm", sa.String(20), nullable=False),
    sa.Column("case_id", sa.String(200), nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # reserved, booked, unknown
    sa.Column("reserved_microusd", sa.BigInteger, nullable=False),
    sa.Column("booked_microusd", sa.BigInteger),
    sa.Column("at", sa.String(32), nullable=False),
)

#: Sums over the ledger by scope (``run:<run_id>``, ``day:<YYYY-MM-DD>``), kept in the transaction
#: of the rows; a missing sum is made from the rows.
spend_totals = sa.Table(
    "spend_totals",
    metadata,
    sa.Column("scope", sa.String(120), primary_key=True),
    sa.Column("microusd", sa.BigInteger, nullable=False),
)

#: Finished generations and their findings: what a resumed run does not do again.
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("run_id", sa.String(80), primary_key=True),
    sa.Column("arm", sa.String(20), primary_key=True),
    sa.Column("case_id", sa.String(200), primary_key=True),
    sa.Column("generation", sa.Text, nullable=False),
    sa.Column("findings", sa.Text),
)

#: Images of the baseline by (mix, case, seed): a paired case then costs one image.
generation_cache = sa.Table(
    "generation_cache",
    metadata,
    sa.Column("mix_digest", sa.String(80), primary_key=True),
    sa.Column("case_digest", sa.String(80), primary_key=True),
    sa.Column("seed", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.Text, nullable=False),
)

#: Messages to people; written in the transaction of what they tell, delivered afterwards.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dedup_key", sa.String(200), nullable=False, unique=True),
    sa.Column("run_id", sa.String(80)),
    sa.Column("channel", sa.String(40), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # pending, sending, delivered
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("claimed_at", sa.String(32)),
    sa.Column("delivered_at", sa.String(32)),
    sa.Column("receipt", sa.Text),
    #: ``open`` starts a thread, ``reply`` goes into it, ``update`` rewrites its first message.
    sa.Column("kind", sa.String(12), nullable=False, server_default="open"),
    #: The thread it belongs to; messages of one thread are sent in order.
    sa.Column("thread", sa.String(200), index=True),
    sa.Column("product", sa.String(120)),
    sa.Column("severity", sa.String(12), nullable=False, server_default="info"),
    #: Not sent earlier than this: quiet hours, or a rate limit.
    sa.Column("not_before", sa.String(32)),
)

#: Where the first message of a thread lies, once a channel has it.
alert_threads = sa.Table(
    "alert_threads",
    metadata,
    sa.Column("thread", sa.String(200), primary_key=True),
    sa.Column("channel", sa.String(80), nullable=False),
    sa.Column("ts", sa.String(40), nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
)

#: Alarms that may repeat: told once, counted while they last, closed when the cause is gone.
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    #: Grows when an incident of the same key opens again; part of its thread's name.
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("product", sa.String(120)),
    sa.Column("severity", sa.String(12), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("status", sa.String(12), nullable=False),  # open, resolved
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("last_at", sa.String(32), nullable=False),
    sa.Column("resolved_at", sa.String(32)),
    sa.Column("acknowledged_by", sa.String(200)),
    sa.Column("acknowledged_at", sa.String(32)),
)

#: Schedules that were registered, to see a run that should have started and did not.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("product", sa.String(120)),
    sa.Column("cron", sa.String(120), nullable=False),
    sa.Column("timezone", sa.String(80), nullable=False),
    sa.Column("registered_at", sa.String(32), nullable=False),
    #: When a run of it last started, whatever came of it.
    sa.Column("started_at", sa.String(32)),
)

#: Signs of life of long-running parts of imagegate (the watchdog, the Slack listener), by name.
heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("detail", sa.Text),
)


class State:
    """An open state database.

    Args:
        url: SQLAlchemy URL.

    Raises:
        StateError: The database cannot be opened, is corrupt or has other tables than this
            version of imagegate.
    """

    def __init__(self, url: str) -> None:
        parsed = self._parse(url)
        self.shown = parsed.render_as_string(hide_password=True)
        self.sqlite = parsed.get_backend_name() == "sqlite"
        path = parsed.database or ""
        # SQLite's own URIs (file:…?mode=ro) name a file that has to be there.
        if self.sqlite and path not in ("", ":memory:") and not path.startswith("file:"):
            self._make_folder(Path(path).parent)
        try:
            self.engine: Engine = sa.create_engine(
                parsed,
                connect_args={"timeout": 30} if self.sqlite else {},
                pool_pre_ping=not self.sqlite,
            )
        except (sa.exc.SQLAlchemyError, ImportError, TypeError) as error:
            raise StateError(
                f"{self.shown}: this kind of state database cannot be used: {error}; install its "
                "driver or mend IMAGEGATE_STATE_URL"
            ) from None
        if self.sqlite:
            sa.event.listen(self.engine, "connect", _sqlite_pragmas)
            sa.event.listen(self.engine, "begin", _begin_immediate)
        self._create()

    @staticmethod
    def _parse(url: str) -> sa.URL:
        try:
            return sa.make_url(url)
        except sa.exc.ArgumentError:
            raise StateError(
                "IMAGEGATE_STATE_URL is not a database URL (expected e.g. sqlite:///state.db or "
                "postgresql+psycopg://user:password@host/name)"
            ) from None

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"{self.shown}: the folder of the state database cannot be made: {error.strerror}; "
                "set IMAGEGATE_HOME elsewhere"
            ) from None

    def _create(self) -> None:
        with self.begin() as connection:
            metadata.create_all(connection)
            found = connection.execute(
                sa.select(meta.c.value).where(meta.c.key == "state_version")
            ).scalar()
            if found is None:
                connection.execute(
                    sa.insert(meta).values(key="state_version", value=str(STATE_VERSION))
                )
            elif found != str(STATE_VERSION):
                raise StateError(
                    f"{self.shown}: holds state version {found}, this imagegate knows "
                    f"{STATE_VERSION}; use the imagegate that wrote it or another IMAGEGATE_HOME"
                )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction; on SQLite it takes the write lock at once, so reads in it hold.

        Raises:
            StateError: The database is unreadable, corrupt, locked for 30 s, or the disk is full.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise StateError(
                f"{self.shown}: the state database failed: {error.orig}; nothing was changed by "
                "this step. Restore the file from a backup, or move it away to start afresh"
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def within(where: State | Connection) -> Iterator[Connection]:
    """Yield the open transaction ``where``, or a new one when ``where`` is the database."""
    if isinstance(where, State):
        with where.begin() as connection:
            yield connection
    else:
        yield where


def _sqlite_pragmas(connection: object, _record: object) -> None:
    """Set write-ahead logging; let SQLAlchemy, not the driver, open transactions."""
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock when the transaction opens: no deadlock of two upgraders."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
