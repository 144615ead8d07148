"""Support tickets about images, by the mix that made them: a guard beside failure rates.

A ticket is written hours after its image and reaches an export later still, and people tag it when
they read it. So it counts in the first window after it was seen with its mix, once, and never in
the window of its making, which may have been looked at long ago. A small file beside the state
remembers which tickets were counted.

A ticket names its mix by a field or a tag, or the request that it is about: then the log of
requests knows the mix.
"""

from __future__ import annotations

import base64
import csv
import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import SecretStr

from tasks.rollout.outcomes.api import JsonApi
from tasks.rollout.outcomes.base import ArmOutcomes, Clock, OutcomeError, Outcomes, now_utc
from tasks.rollout.outcomes.config import TicketsApiConfig, TicketsCsvConfig
from tasks.rollout.outcomes.files import append, file_name, lines, locked
from tasks.rollout.outcomes.rows import BadRowError, mix_named, moment

#: How long before a window a ticket may have been written and still be new.
LATE: Final = timedelta(days=1)
#: Most pages of one look, and most characters of a field of a CSV file.
MOST_PAGES: Final = 1_000
_LONGEST: Final = 1 << 20
#: Help desks refuse to export the last minute, which is still being written.
_UNSETTLED: Final = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket: when it was opened, and what it says of its mix or its request."""

    ticket_id: str
    at: datetime
    mix: str = ""
    request_id: str = ""
    tags: frozenset[str] = frozenset()


class Desk(Protocol):
    """Gives tickets."""

    def tickets(self, since: datetime) -> Iterator[Ticket]:
        """Yield the tickets opened or changed since a moment; some may come twice.

        Raises:
            OutcomeError: They cannot be read.
        """
        ...


class Requests(Protocol):
    """Knows which mix served a request."""

    def mixes_of(
        self, product: str, request_ids: frozenset[str], since: datetime
    ) -> Mapping[str, str]:
        """Return what requests since a moment call their mix, by request id."""
        ...


class TicketSource:
    """Counts tickets by mix.

    Args:
        config: Which tickets count, and how they name a mix.
        desk: Gives the tickets.
        folder: Where counted tickets are remembered.
        requests: Knows the mixes of requests, where tickets name requests.
        clock: Gives the moment.
    """

    def __init__(
        self,
        config: TicketsCsvConfig | TicketsApiConfig,
        desk: Desk,
        folder: Path,
        requests: Requests | None = None,
        clock: Clock = now_utc,
    ) -> None:
        self._config, self._desk, self._folder = config, desk, folder
        self._kind = config.kind
        self._requests, self._clock = requests, clock

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or self._kind

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Return how many tickets were first seen in the window, and remember new ones.

        Raises:
            OutcomeError: The tickets cannot be read, or not be remembered.
        """
        now = self._clock()
        end = max(since, min(until, now))
        none = {digest: ArmOutcomes(tickets=0) for digest in digests}
        if not self._config.concerns(product):
            return Outcomes(since, end, dict.fromkeys(digests, ArmOutcomes()))
        if end == since:
            return Outcomes(since, end, none)
        book = _Book(self._folder / f"tickets-{file_name(f'{self.name}-{product}')}.jsonl")
        with book.open(since) as seen:
            unknown = 0
            # Help desks allow few requests a minute; looks are far more frequent than tickets.
            if not 0 <= now.timestamp() - seen.asked < self._config.every_s:
                new, unknown = self._new(product, seen, max(since - LATE, seen.began))
                # Stamped with now, which no window has reached yet: each counts in one to come.
                seen.add(new, now)
            counts = seen.between(since, end)
        total = dict.fromkeys(digests, 0)
        unasked = 0
        for mix, count in counts.items():
            digest = mix_named(mix, digests)
            if digest is None and mix == "" and len(digests) == 1:
                digest = digests[0]
            if digest is None:
                unasked += count
            else:
                total[digest] += count
        notes = []
        if unknown:
            notes.append(f"{self.name}: {unknown} tickets name no mix and are not counted")
        if unasked:
            notes.append(f"{self.name}: {unasked} tickets are about mixes that are not looked at")
        arms = {digest: ArmOutcomes(tickets=count) for digest, count in total.items()}
        return Outcomes(since, end, arms, tuple(notes))

    def _new(self, product: str, seen: _Seen, first: datetime) -> tuple[dict[str, str], int]:
        """Return the mixes of tickets not counted so far, by ticket; and how many name none."""
        fresh: dict[str, Ticket] = {}
        for ticket in self._desk.tickets(first):
            if ticket.ticket_id in seen.ids or ticket.at < first:
                continue
            if self._counts(ticket, product):
                fresh[ticket.ticket_id] = ticket
        asked = frozenset(t.request_id for t in fresh.values() if t.request_id and not t.mix)
        joined: Mapping[str, str] = {}
        if asked and self._requests is not None:
            lookback = timedelta(seconds=self._config.request_lookback_s)
            joined = self._requests.mixes_of(product, asked, first - lookback)
        mixes = {t.ticket_id: t.mix or joined.get(t.request_id, "") for t in fresh.values()}
        unknown = sum(not mix for mix in mixes.values())
        if self._config.unattributed == "only_mix":
            return mixes, 0
        # One without a mix may get it later, when somebody reads it.
        return {ticket_id: mix for ticket_id, mix in mixes.items() if mix}, unknown

    def _counts(self, ticket: Ticket, product: str) -> bool:
        wanted = {tag.replace("$product", product).casefold() for tag in self._config.only_tags}
        tags = {tag.casefold() for tag in ticket.tags}
        unwanted = {tag.casefold() for tag in self._config.not_tags}
        return (not wanted or bool(wanted & tags)) and not unwanted & tags


class CsvDesk:
    """Tickets in CSV files, as help desks export them.

    Args:
        config: Which files and columns.
    """

    def __init__(self, config: TicketsCsvConfig) -> None:
        self._config = config

    def tickets(self, since: datetime) -> Iterator[Ticket]:
        """Yield all tickets of the files.

        Raises:
            OutcomeError: No file, one that cannot be read, no such column, or a row without a
                moment or a number.
        """
        pattern = str(self._config.files)
        files = [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207 - absolute
        if not files:
            raise OutcomeError(f"no file matches {pattern!r}: nobody knows of any ticket")
        csv.field_size_limit(_LONGEST)
        for path in files:
            try:
                with path.open(encoding="utf-8-sig", newline="") as file:
                    yield from self._rows(csv.DictReader(file), path)
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise OutcomeError(f"{path}: cannot be read: {error}") from None

    def _rows(self, rows: csv.DictReader[str], path: Path) -> Iterator[Ticket]:
        config = self._config
        named = [config.id_column, config.time_column, config.mix_column, config.request_column]
        there = rows.fieldnames or []
        for column in filter(None, named):
            if column not in there:
                raise OutcomeError(
                    f"{path}: has no column {column!r} (columns found: {', '.join(there)[:200]})"
                )
        for row in rows:
            number = rows.line_num
            try:
                at = moment(row[config.time_column])
            except BadRowError as error:
                raise OutcomeError(f"{path}, line {number}: {error}") from None
            ticket_id = row[config.id_column]
            if not ticket_id:
                raise OutcomeError(f"{path}, line {number}: no {config.id_column!r}")
            tags = (row.get(config.tags_column) or "").replace(",", " ").split()
            mix = (row[config.mix_column] or "") if config.mix_column else ""
            request = (row[config.request_column] or "") if config.request_column else ""
            yield Ticket(
                ticket_id,
                at,
                mix.strip() or _tagged(tags, config.mix_tag_prefix),
                request.strip(),
                frozenset(tags),
            )


class ZendeskDesk:
    """Tickets from Zendesk's incremental export, or an API that answers as it does.

    Args:
        config: Which fields.
        api: The server.
        clock: Gives the moment.
    """

    def __init__(self, config: TicketsApiConfig, api: JsonApi, clock: Clock = now_utc) -> None:
        self._config, self._api, self._clock = config, api, clock

    def tickets(self, since: datetime) -> Iterator[Ticket]:
        """Yield the tickets that were opened or changed since a moment, page by page.

        Raises:
            OutcomeError: The API does not answer, refuses, or gives what is no ticket.
        """
        start = min(since, self._clock() - _UNSETTLED)
        query = {"start_time": str(int(start.timestamp())), "per_page": "1000"}
        for _ in range(MOST_PAGES):
            status, page = self._api.ask("/api/v2/incremental/tickets/cursor.json", query=query)
            if status != 200 or not isinstance(page, dict):
                raise OutcomeError(f"{self._api!r} answered {status}: {self._api.told(page)}")
            try:
                for raw in page["tickets"]:
                    if raw.get("status") != "deleted":
                        yield self._ticket(raw)
                if page["end_of_stream"]:
                    return
                # The address of the next page is not followed: it could lead anywhere.
                cursor = str(page["after_cursor"])
            except (KeyError, TypeError, AttributeError, BadRowError) as error:
                raise OutcomeError(
                    f"{self._api!r} answered with what is no ticket: {error!r:.200}"
                ) from None
            if query.get("cursor") == cursor:
                raise OutcomeError(f"{self._api!r} gives the same page for ever")
            query = {"cursor": cursor, "per_page": "1000"}
        raise OutcomeError(f"{self._api!r} has more than {MOST_PAGES:,} pages of tickets")

    def _ticket(self, raw: Mapping[str, Any]) -> Ticket:
        config = self._config
        custom = {str(f["id"]): f.get("value") for f in raw.get("custom_fields") or ()}
        tags = [str(tag) for tag in raw.get("tags") or ()]
        mix = custom.get(config.mix_field or "") or ""
        return Ticket(
            str(raw["id"]),
            moment(raw["created_at"]),
            str(mix).strip() or _tagged(tags, config.mix_tag_prefix),
            str(custom.get(config.request_field or "") or "").strip(),
            frozenset(tags),
        )


def basic(user: str, token: SecretStr) -> SecretStr:
    """Return the header of a Zendesk API token."""
    pair = f"{user}/token:{token.get_secret_value()}".encode()
    return SecretStr(f"Basic {base64.b64encode(pair).decode()}")


def _tagged(tags: Sequence[str], prefix: str) -> str:
    """Return what the first tag with the prefix says; desks write tags in lower case."""
    found = (tag for tag in tags if tag.casefold().startswith(prefix.casefold()))
    return next(found, prefix)[len(prefix) :]


class _Seen:
    """Tickets that were counted, with the moment and the mix of each."""

    def __init__(
        self, path: Path, began: datetime, asked: float, rows: list[tuple[str, str, float]]
    ) -> None:
        self._path, self.began, self.asked, self._rows = path, began, asked, rows
        self.ids = {ticket_id for ticket_id, _, _ in rows}

    def add(self, mixes: Mapping[str, str], now: datetime) -> None:
        """Remember tickets as seen now, and that the desk was asked now."""
        at = max(now.timestamp(), max((row[2] for row in self._rows), default=0.0))
        rows = [(ticket_id, mix, at) for ticket_id, mix in sorted(mixes.items())]
        append(self._path, *rows, {"asked": now.timestamp()})
        self._rows += rows
        self.ids |= mixes.keys()

    def between(self, since: datetime, until: datetime) -> dict[str, int]:
        """Return tickets by what they call their mix, of ``since <= seen < until``."""
        found: dict[str, int] = {}
        for _, mix, at in self._rows:
            if since.timestamp() <= at < until.timestamp():
                found[mix] = found.get(mix, 0) + 1
        return found


class _Book:
    """The file that remembers counted tickets; one process at a time writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, since: datetime) -> Iterator[_Seen]:
        with locked(self._path.with_suffix(".lock")):
            yield self._load(since)

    def _load(self, since: datetime) -> _Seen:
        began, asked, rows = since, -math.inf, list[tuple[str, str, float]]()
        there = lines(self._path)
        for value in there:
            try:
                if isinstance(value, dict) and "began" in value:
                    began = datetime.fromtimestamp(float(value["began"]), UTC)
                elif isinstance(value, dict):
                    asked = float(value["asked"])
                else:
                    rows.append((str(value[0]), str(value[1]), float(value[2])))
            except (ValueError, KeyError, TypeError, IndexError):
                continue
        if not there:
            # What was written before the first look belongs to no window.
            append(self._path, {"began": since.timestamp()})
        return _Seen(self._path, began, asked, rows)
