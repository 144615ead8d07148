"""What ``imagegate db`` shows: a database as it is, without making or changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks import migrations
from tasks.database import Database
from tasks.errors import StateError
from tasks.state import State, state_version
from tasks.tables import STATE_VERSION

_TODO = {
    "absent": "it is made by the first command that needs it, or by `imagegate db upgrade`",
    "current": "nothing to do",
    "older": "make a backup, then run `imagegate db upgrade`",
    "newer": "use the imagegate that wrote it, or a newer one",
    "foreign": "give IMAGEGATE_STATE_URL a database of its own",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a database holds."""

    #: Its URL without secrets.
    shown: str
    version: int | None
    needed: int
    state: Literal["absent", "current", "older", "newer", "foreign"]

    @property
    def todo(self) -> str:
        """What to do, as words for a person."""
        return _TODO[self.state]


def look(url: str) -> Seen:
    """Return what a database holds.

    Raises:
        StateError: It cannot be reached or read.
    """
    database = Database(url)
    try:
        # Opening a SQLite file that is not there would make it.
        if database.file is not None and not database.file.exists():
            return Seen(database.shown, None, STATE_VERSION, "absent")
        with database.begin() as connection:
            try:
                version = state_version(connection)
            except StateError:
                return Seen(database.shown, None, STATE_VERSION, "foreign")
    finally:
        database.close()
    if version is None:
        return Seen(database.shown, None, STATE_VERSION, "absent")
    state: Literal["current", "older", "newer"] = (
        "current" if version == STATE_VERSION else "older" if version < STATE_VERSION else "newer"
    )
    return Seen(database.shown, version, STATE_VERSION, state)


def drift(url: str) -> list[str]:
    """Return how the tables differ from what this imagegate expects, one line each.

    Raises:
        StateError: The database cannot be used, or has another version.
    """
    seen = look(url)
    if seen.state != "current":
        raise StateError(
            f"{seen.shown}: state version {seen.version or 'none'}, this imagegate needs "
            f"{seen.needed}: {seen.todo}"
        )
    state = State(url)
    try:
        with state.begin() as connection:
            return migrations.differences(connection)
    finally:
        state.close()
