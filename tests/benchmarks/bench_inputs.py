"""Reading and sampling a log: rows a second, and that memory does not grow with the log.

Run with ``pytest tests/benchmarks/bench_inputs.py``; every round reads ``ROWS`` rows.
"""

from __future__ import annotations

import csv
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.inputs.draw import draw_sample
from tasks.inputs.rows import RowReader, read_rows
from tasks.inputs.sample import sample_log
from tasks.inputs.sources import open_log
from tasks.policy import Sampling
from tasks.settings import DATASETS

ROWS = 40_000
COLUMNS = ("request_id", "prompt", "subtask", "locale", "width", "height")


def requests(count: int) -> list[dict[str, Any]]:
    """Return rows of the sample log, most of them made different by a number."""
    base = pq.read_table(DATASETS / "production_log.parquet").to_pylist()
    base = [row for row in base if row["upload"] is None]
    draw = random.Random(5)
    return [
        {name: row[name] for name in COLUMNS}
        | {"request_id": str(n), "prompt": f"{row['prompt']}, variant {draw.randrange(count)}"}
        for n, row in ((n, draw.choice(base)) for n in range(count))
    ]


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows in the format of the path's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_bench_sampling_a_log(benchmark, tmp_path, suffix):
    path = tmp_path / f"log{suffix}"
    write_log(path, requests(ROWS))
    cases, coverage, _ = benchmark.pedantic(
        draw_sample,
        args=(str(path), Sampling(stress=0, adversarial=0), 240, 1, DATASETS),
        rounds=3,
    )
    benchmark.extra_info["rows_per_second"] = round(ROWS / benchmark.stats.stats.min)
    assert coverage["log"]["rows"] == ROWS
    assert len(cases) == 240


def test_bench_memory_does_not_grow_with_the_log(benchmark, tmp_path):
    small, large = (tmp_path / name for name in ("small.csv", "large.csv"))
    write_log(small, requests(10_000))
    write_log(large, requests(ROWS))

    def peak(path: Path) -> int:
        source = open_log(str(path))
        tracemalloc.start()
        try:
            sample_log(read_rows(source.rows(), RowReader(DATASETS), "log"), 24, 1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(small)
    first = peak(small)
    second = benchmark.pedantic(peak, args=(large,), rounds=1)
    benchmark.extra_info["peak_bytes"] = {"10000 rows": first, f"{ROWS} rows": second}
    assert second < first * 2
