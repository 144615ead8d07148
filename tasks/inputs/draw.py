"""Draw the cases of a run: production log, stress set and adversarial prompts in one mixture.

A reserve is drawn beside them, for slices that turn out to look bad; see
:mod:`tasks.inputs.reserve`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import ConfigError
from tasks.inputs.coverage import group_notes, log_coverage
from tasks.inputs.reserve import choose_reserve
from tasks.inputs.rows import RowReader, read_rows
from tasks.inputs.sample import sample_log, split
from tasks.inputs.sources import open_log
from tasks.inputs.stress import draw_stress, load_stress, spare_stress
from tasks.policy import Sampling, SliceRule
from tasks.records import ORIGINS, Case

#: The log that is sampled when no other is named, inside ``datasets/``.
DEFAULT_LOG = "production_log.parquet"


class Draw(NamedTuple):
    """The cases of a run, what is known about the draw, and the extra cases for bad slices."""

    cases: tuple[Case, ...]
    coverage: dict[str, Any]
    reserve: tuple[Case, ...]


def draw_sample(
    inputs: str | None,
    sampling: Sampling,
    cases: int | None,
    seed: int,
    datasets: Path,
    slices: SliceRule | None = None,
) -> Draw:
    """Draw the cases of a run.

    Args:
        inputs: The production log, as :mod:`tasks.inputs.sources` reads it; ``None`` for the
            sample log in ``datasets``.
        sampling: Shares of the origins, and the number of cases when ``cases`` is ``None``.
        cases: Number of all cases together.
        seed: The draw: the same log, sets and seed give the same cases in the same order.
        datasets: Folder of the sample log, stress set, uploads and brand kits.
        slices: Which slices are judged and how large a reserve is; ``None`` for no reserve.

    Returns:
        The cases in an order in which every shard is a fair mixture; the coverage: ``source``
        (the log, without secrets), ``asked``, ``drawn`` and ``reserve`` by origin, ``log`` (see
        :func:`tasks.inputs.coverage.log_coverage`; ``None`` when the shares leave production no
        case), ``themes`` and ``notes`` in sentences; and the reserve. The cases are the same
        whatever the reserve.

    Raises:
        ConfigError: The log cannot be read, has no prompt column or no row.
        DataError: Bad rows in the log or the stress set.
    """
    count = sampling.cases if cases is None else cases
    if count < 1:
        raise ConfigError(f"--cases {count}: at least 1 case is needed")
    shares = {
        "production": max(0.0, 1.0 - sampling.stress - sampling.adversarial),
        "stress": sampling.stress,
        "adversarial": sampling.adversarial,
    }
    wanted = split(count, shares)
    source = open_log(str(datasets / DEFAULT_LOG) if inputs is None else inputs)
    notes: list[str] = []
    drawn: list[Case] = []
    spare: list[Case] = []
    top_up = 0.0 if slices is None else slices.top_up
    log: dict[str, Any] | None = None
    if wanted["production"]:
        rows = read_rows(source.rows(), RowReader(datasets), source.description)
        sample = sample_log(rows, wanted["production"], seed, extra=_share(top_up, count))
        if not sample.cases:
            raise ConfigError(f"{source.description}: the log is empty; it needs at least one row")
        drawn.extend(sample.cases)
        spare.extend(sample.spare)
        notes.extend(sample.notes)
        log = log_coverage(sample)
    else:
        notes.append("no production input is judged: the shares leave it no case")
    if wanted["stress"] or wanted["adversarial"]:
        stress_set = load_stress(datasets)
        hard, missing = draw_stress(
            stress_set,
            {"stress": wanted["stress"], "adversarial": wanted["adversarial"]},
            seed,
        )
        drawn.extend(hard)
        spare.extend(spare_stress(stress_set, hard, seed))
        notes.extend(missing)
    mixed = tuple(sorted(drawn, key=lambda case: _place(case, seed)))
    reserve = (
        choose_reserve(mixed, spare, _share(top_up, len(mixed)), slices, seed) if slices else ()
    )
    notes.extend(group_notes(mixed))
    coverage = {
        "source": f"{datasets.name}/{DEFAULT_LOG}" if inputs is None else source.description,
        "asked": count,
        "drawn": _by_origin(mixed),
        "reserve": _by_origin(reserve),
        "seed": seed,
        "log": log,
        "themes": dict(sorted(Counter(c.theme for c in mixed if c.theme).items())),
        "notes": notes,
    }
    return Draw(mixed, coverage, reserve)


def _by_origin(cases: Iterable[Case]) -> dict[str, int]:
    found = Counter(case.origin for case in cases)
    return {name: found[name] for name in ORIGINS}


def _share(share: float, count: int) -> int:
    """Return the share of a number as a whole number, rounded up."""
    # 0.1 * 30 is a hair above 3 in binary fractions.
    return math.ceil(round(share * count, 9))


def _place(case: Case, seed: int) -> str:
    """Return a sort key that mixes origins and strata the same way on every machine."""
    return hashlib.sha256(f"order|{seed}|{case.case_id}".encode()).hexdigest()
