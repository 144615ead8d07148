"""The journal of a run: which generations are finished, and what the checks found on them.

A generation is written once, when its case has ended; a resumed run reads it back and neither
repeats nor pays for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection

from tasks.database import repeated
from tasks.errors import StateError
from tasks.records import Arm, Generation, ImageReport, Record
from tasks.state import State
from tasks.tables import generation_cache, journal

Read = TypeVar("Read", bound=Record)
CaseKey = tuple[Arm, str]


class Journal:
    """The finished generations of one run. Safe to use from several threads and processes.

    Args:
        state: The state database.
        run_id: The run.
    """

    def __init__(self, state: State, run_id: str) -> None:
        self.state, self.run_id = state, run_id

    @repeated
    def record(self, generation: Generation, case_digest: str | None = None) -> None:
        """Write a finished generation durably; one that is written already stays as it is.

        Args:
            generation: Of this run, the end of its case.
            case_digest: Given, the generation is also kept for later runs, in the same
                transaction; see :func:`worth_keeping`.

        Raises:
            StateError: The database failed; nothing was written.
        """
        if generation.run_id != self.run_id:
            raise ValueError(
                f"generation of run {generation.run_id!r} in the journal of {self.run_id!r}"
            )
        key = {"run_id": self.run_id, "arm": generation.arm, "case_id": generation.case_id}
        with self.state.begin() as connection:
            _insert_new(connection, journal, key, {"generation": generation.model_dump_json()})
            if case_digest is not None:
                _remember(connection, generation, case_digest)

    def generations(
        self, arm: str | None = None, case_ids: Collection[str] | None = None
    ) -> dict[CaseKey, Generation]:
        """Return the finished generations by (arm, case id).

        Args:
            arm: Only this arm.
            case_ids: Only these cases, at the most some thousands.
        """
        return {
            (row_arm, case_id): _parse(Generation, text or "", f"generation {row_arm}/{case_id}")
            for row_arm, case_id, text in self._column(journal.c.generation, arm, case_ids)
        }

    @repeated
    def set_report(self, arm: str, case_id: str, report: ImageReport) -> None:
        """Write what the checks found on a finished generation; a second report replaces the first.

        Raises:
            StateError: The case has no finished generation, or the database failed.
        """
        with self.state.begin() as connection:
            changed = connection.execute(
                sa.update(journal)
                .where(
                    journal.c.run_id == self.run_id,
                    journal.c.arm == arm,
                    journal.c.case_id == case_id,
                )
                .values(findings=report.model_dump_json())
            ).rowcount
        if changed != 1:
            raise StateError(
                f"run {self.run_id!r} has no finished generation {arm}/{case_id!r} to report on"
            )

    def reports(
        self, arm: str | None = None, case_ids: Collection[str] | None = None
    ) -> dict[CaseKey, ImageReport]:
        """Return what the checks found, by (arm, case id); cases without a report are left out.

        Args:
            arm: Only this arm.
            case_ids: Only these cases, at the most some thousands.
        """
        return {
            (row_arm, case_id): _parse(ImageReport, text, f"report {row_arm}/{case_id}")
            for row_arm, case_id, text in self._column(journal.c.findings, arm, case_ids)
            if text is not None
        }

    @repeated
    def cached(self, mix_digest: str, case_digest: str, seed: int) -> Generation | None:
        """Return what the baseline cache holds for a mix, a case and a seed, or ``None``.

        The generation is as it was recorded: of another run, with what it cost there.
        """
        with self.state.begin() as connection:
            text = connection.execute(
                sa.select(generation_cache.c.generation).where(
                    generation_cache.c.mix_digest == mix_digest,
                    generation_cache.c.case_digest == case_digest,
                    generation_cache.c.seed == seed,
                )
            ).scalar()
        return None if text is None else _parse(Generation, text, "cached generation")

    @repeated
    def remember(self, generation: Generation, case_digest: str) -> None:
        """Keep a generation for later runs; see :func:`worth_keeping`."""
        with self.state.begin() as connection:
            _remember(connection, generation, case_digest)

    def _column(
        self, column: sa.Column[str], arm: str | None, case_ids: Collection[str] | None = None
    ) -> Iterator[tuple[Arm, str, str | None]]:
        """Yield (arm, case id, column) of this run."""
        query = sa.select(journal.c.arm, journal.c.case_id, column.label("content")).where(
            journal.c.run_id == self.run_id
        )
        if arm is not None:
            query = query.where(journal.c.arm == arm)
        if case_ids is not None:
            query = query.where(journal.c.case_id.in_(case_ids))
        with self.state.begin() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            yield row.arm, row.case_id, row.content


def worth_keeping(generation: Generation) -> bool:
    """Return whether a generation may stand for later runs of the same mix, case and seed.

    Only what the models answered is kept: an outage, a time-out or a used-up quota says nothing
    about the next run. Pictures of a candidate are kept too, for the day it is the baseline; they
    never stand for a candidate, which has to earn its verdict with pictures of its own.
    """
    return generation.status in ("ok", "refused") and not generation.cached


def _remember(connection: Connection, generation: Generation, case_digest: str) -> None:
    if worth_keeping(generation):
        _insert_new(
            connection,
            generation_cache,
            {
                "mix_digest": generation.mix_digest,
                "case_digest": case_digest,
                "seed": generation.seed,
            },
            {"generation": generation.model_dump_json()},
        )


def _insert_new(
    connection: Connection, table: sa.Table, key: Mapping[str, object], rest: Mapping[str, object]
) -> None:
    """Insert a row unless its key is there, in the words that every database knows."""
    where = [table.c[name] == value for name, value in key.items()]
    if (
        connection.execute(sa.select(sa.literal(1)).select_from(table).where(*where)).first()
        is None
    ):
        connection.execute(sa.insert(table).values(**key, **rest))


def _parse(model: type[Read], text: str, what: str) -> Read:
    """Return a record from its JSON in the database.

    Raises:
        StateError: The text was damaged or written by another version.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise StateError(
            f"{what} in the state database cannot be read ({error.error_count()} problems, first: "
            f"{error.errors()[0]['msg']}); restore the database from a backup"
        ) from None
