"""The state database: production, freezes, runs, spend, journal and outbox in one place.

SQLite by default, PostgreSQL for a team. A step keeps its own queries in its own folder; its
tables are in :mod:`tasks.tables`, :mod:`tasks.database` opens transactions, and
:mod:`tasks.migrations` brings older tables up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.database import PATIENCE_S, Database, make_folder
from tasks.errors import StateError
from tasks.tables import STATE_VERSION, meta, metadata


class State(Database):
    """An open state database with the tables of this version.

    A new database gets its tables. An older SQLite file is brought up to date after a copy of it
    was made; an older PostgreSQL, which others use as well, waits for ``imagegate db upgrade``.

    Args:
        url: SQLAlchemy URL.
        upgrade: Bring an older database of any kind up to date.
        home: imagegate's folder on this machine; the folder of a SQLite file by default.

    Raises:
        StateError: The database cannot be opened, is corrupt or has other tables than this
            version of imagegate.
    """

    def __init__(self, url: str, *, upgrade: bool = False, home: Path | None = None) -> None:
        super().__init__(url)
        if home is None and self.file is not None:
            home = self.file.parent
        #: Folder of what a rollback without the database goes by; ``None`` when there is no home.
        self.last_good: Path | None = None if home is None else last_good_folder(home)
        make_folder(self)
        try:
            self._prepare(upgrade or self.sqlite)
        except BaseException:
            self.close()
            raise
        self.patience_s = PATIENCE_S

    def _prepare(self, upgrade: bool) -> None:
        """Make or migrate the tables; costs two queries when there is nothing to do."""
        with self.begin() as connection:
            found = state_version(connection)
            if found == STATE_VERSION:
                return
            # Alembic is imported only when there is something for it to do.
            from tasks import migrations

            if found is None:
                metadata.create_all(connection)
                connection.execute(
                    sa.insert(meta).values(key="state_version", value=str(STATE_VERSION))
                )
                migrations.stamp(connection)
            elif found > STATE_VERSION:
                raise StateError(
                    f"{self.shown}: holds state version {found}, this imagegate knows "
                    f"{STATE_VERSION}; use the imagegate that wrote it or another IMAGEGATE_HOME"
                )
            elif not upgrade:
                raise StateError(
                    f"{self.shown}: holds state version {found}, this imagegate needs "
                    f"{STATE_VERSION}; make a backup, then run `imagegate db upgrade`"
                )
            else:
                migrations.upgrade(connection, self.file, found)


def last_good_folder(home: Path) -> Path:
    """Return the folder of what a rollback without the database goes by."""
    return home / "last-good"


def state_version(connection: Connection) -> int | None:
    """Return the version of the tables, ``None`` for a database without imagegate's tables.

    Raises:
        StateError: There is a table ``meta``, but it does not say a version.
    """
    if not sa.inspect(connection).has_table(meta.name):
        return None
    try:
        query = sa.select(meta.c.value).where(meta.c.key == "state_version")
        return int(connection.execute(query).scalar_one())
    except (ValueError, sa.exc.NoResultFound):
        raise StateError(
            "the database has a table 'meta' without a state version, so it is not imagegate's; "
            "give IMAGEGATE_STATE_URL a database of its own"
        ) from None


@contextmanager
def within(where: State | Connection) -> Iterator[Connection]:
    """Yield the open transaction ``where``, or a new one when ``where`` is the database."""
    if isinstance(where, State):
        with where.begin() as connection:
            yield connection
    else:
        yield where
