"""Migrations of the state database, by Alembic: each step of ``versions`` is one state version.

``meta.state_version`` says which tables a database has; it is read at every opening and needs no
Alembic. Alembic's own mark is kept beside it, under a name that does not collide with Prefect's
when both share a database.
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Connection

from tasks.errors import StateError

if TYPE_CHECKING:
    from alembic.config import Config

HERE = Path(__file__).parent
#: Alembic's table.
VERSION_TABLE = "alembic_version_imagegate"


def revision_of(version: int) -> str:
    """Return Alembic's name of a state version."""
    return f"{version:04d}"


def stamp(connection: Connection, version: int | None = None) -> None:
    """Mark the database as having the tables of a version, by default the newest."""
    from alembic import command

    command.stamp(_config(connection), "head" if version is None else revision_of(version))


def upgrade(connection: Connection, file: Path | None, version: int) -> None:
    """Bring older tables up to date, in the caller's transaction.

    Args:
        connection: An open transaction.
        file: The SQLite file, of which a copy is made first.
        version: What it has.

    Raises:
        StateError: The copy cannot be made; nothing was changed.
    """
    from alembic import command

    if file is not None:
        back_up(file, version)
    # A database from before Alembic has no mark yet; our own number is the truth.
    stamp(connection, version)
    command.upgrade(_config(connection), "head")


def back_up(file: Path, version: int, now: Callable[[], datetime] | None = None) -> Path:
    """Copy a SQLite database and return the copy's path.

    The caller holds the write lock, so the copy is the state that the migration starts from. It
    is made under another name first: a copy that exists is whole.

    Raises:
        StateError: It cannot be written, or the copy is damaged.
    """
    moment = (now or (lambda: datetime.now(UTC)))()
    target = file.with_name(f"{file.name}.v{version}-{moment:%Y%m%dT%H%M%S%f}Z.bak")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with (
            closing(sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy)
            # A copy in one file: no log beside it that somebody would have to keep too.
            copy.execute("PRAGMA journal_mode=DELETE")
            said = copy.execute("PRAGMA quick_check").fetchone()[0]
        if said != "ok":
            raise StateError(
                f"{file}: the state database is damaged ({said}); it was not migrated. Restore it "
                "from a backup, or move it away to start afresh"
            )
        shutil.copymode(file, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise StateError(
            f"{file}: no copy could be made before the migration ({error}), so nothing was "
            "changed; free space beside it, then try again"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def differences(connection: Connection) -> list[str]:
    """Return how the database differs from the tables in :mod:`tasks.tables`; empty when it fits.

    Other tables in the same database (Prefect's) are none of our business.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from tasks.tables import metadata

    def ours(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
        return not (kind == "table" and reflected and name not in metadata.tables)

    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_object": ours,
            "version_table": VERSION_TABLE,
        },
    )
    return [_sentence(difference) for difference in compare_metadata(context, metadata)]


def _sentence(difference: Any) -> str:
    """Return one of Alembic's findings in a line."""
    if isinstance(difference, list):  # Several about one column.
        return "; ".join(_sentence(one) for one in difference)
    words = [str(getattr(part, "name", part)) for part in difference if part is not None]
    return " ".join(word for word in words if word not in ("", "{}"))


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(stdout=io.StringIO(), output_buffer=io.StringIO())
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _quoted(file: Path) -> str:
    """Return a path as SQLite's URIs want it."""
    return file.resolve().as_uri().removeprefix("file://")
