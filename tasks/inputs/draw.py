"""Draw the cases of a run: production log, stress set and adversarial prompts in one mixture."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.inputs.coverage import log_coverage
from tasks.inputs.rows import RowReader, read_rows
from tasks.inputs.sample import sample_log, split
from tasks.inputs.sources import open_log
from tasks.inputs.stress import draw_stress, load_stress
from tasks.policy import Sampling
from tasks.records import Case

#: The log that is sampled when no other is named, inside ``datasets/``.
DEFAULT_LOG = "production_log.parquet"


def draw_sample(
    inputs: str | None, sampling: Sampling, cases: int | None, seed: int, datasets: Path
) -> tuple[tuple[Case, ...], dict[str, Any]]:
    """Draw the cases of a run.

    Args:
        inputs: The production log, as :mod:`tasks.inputs.sources` reads it; ``None`` for the
            sample log in ``datasets``.
        sampling: Shares of the origins, and the number of cases when ``cases`` is ``None``.
        cases: Number of all cases together.
        seed: The draw: the same log, sets and seed give the same cases in the same order.
        datasets: Folder of the sample log, stress set, uploads and brand kits.

    Returns:
        The cases in an order in which every shard is a fair mixture, and the coverage: ``source``
        (the log, without secrets), ``asked``, ``drawn`` by origin, ``log`` (see
        :func:`tasks.inputs.coverage.log_coverage`; ``None`` when the shares leave production no
        case), ``themes`` and ``notes`` in sentences.

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
    coverage: dict[str, Any] | None = None
    if wanted["production"]:
        rows = read_rows(source.rows(), RowReader(datasets), source.description)
        sample = sample_log(rows, wanted["production"], seed)
        if not sample.cases:
            raise ConfigError(f"{source.description}: the log is empty; it needs at least one row")
        drawn.extend(sample.cases)
        notes.extend(sample.notes)
        coverage = log_coverage(sample)
    else:
        notes.append("no production input is judged: the shares leave it no case")
    if wanted["stress"] or wanted["adversarial"]:
        hard, missing = draw_stress(
            load_stress(datasets),
            {"stress": wanted["stress"], "adversarial": wanted["adversarial"]},
            seed,
        )
        drawn.extend(hard)
        notes.extend(missing)
    mixed = tuple(sorted(drawn, key=lambda case: _place(case, seed)))
    origins = Counter(case.origin for case in mixed)
    return mixed, {
        "source": f"{datasets.name}/{DEFAULT_LOG}" if inputs is None else source.description,
        "asked": count,
        "drawn": {name: origins.get(name, 0) for name in ("production", "stress", "adversarial")},
        "seed": seed,
        "log": coverage,
        "themes": dict(sorted(Counter(c.theme for c in mixed if c.theme).items())),
        "notes": notes,
    }


def _place(case: Case, seed: int) -> str:
    """Return a sort key that mixes origins and strata the same way on every machine."""
    return hashlib.sha256(f"order|{seed}|{case.case_id}".encode()).hexdigest()
