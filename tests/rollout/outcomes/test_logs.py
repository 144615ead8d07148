from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.policy import parse_strict
from tasks.rollout.outcomes import logs as logs_module
from tasks.rollout.outcomes.base import ArmOutcomes, InputSource, OutcomeError, OutcomeSource
from tasks.rollout.outcomes.config import LogsConfig
from tasks.rollout.outcomes.logs import LogSource

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def row(seconds: float, mix: str = A, **more: Any) -> dict[str, Any]:
    return {"time": at(seconds).isoformat(), "mix_digest": mix, "ok": True, **more}


def lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


def source(files: Path, now: float = 10_000, **config: Any) -> LogSource:
    section = parse_strict(LogsConfig, {"kind": "logs", "files": str(files), **config}, "test")
    return LogSource(section, lambda: at(now))


def test_it_is_a_source_and_knows_inputs(tmp_path: Path) -> None:
    found: OutcomeSource = source(tmp_path / "*.jsonl")
    assert isinstance(found, InputSource)


def test_requests_are_counted_by_mix(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            [
                row(0, latency_ms=900, cost_microusd=19_000),
                row(1, latency_ms=2_100, cost_microusd=20_000),
                row(2, ok=False, failure="server"),
                row(3, B, status=200, latency_ms=2_500),
                row(4, B, ok=None, status=503, latency_ms=30_000),
                row(5, B, failure="refusal"),
                row(6, "sha256:" + "c" * 64),
                row(60, B, ok=False),
            ]
        )
    )
    found = source(tmp_path / "*.jsonl", rows={"slow_above_ms": 2_000}).read(
        "shop", [A, B], at(0), at(60)
    )
    assert found.arms[A] == ArmOutcomes(3, 1, 1, 2, 39_000, costed=2)
    # The failed request's 30 s are no latency of an image, and the refusal has no latency.
    assert found.arms[B] == ArmOutcomes(3, 2, 1, 1, 0, costed=0)
    assert found.others == 1
    assert found.until == at(60)
    assert any("another mix" in note for note in found.notes)


def test_endings_that_are_right_or_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            [
                row(0),
                row(1, ok=False, failure="Refusal_Right"),
                row(2, ok=False, failure="cancelled"),
            ]
        )
    )
    rules = {"right": ["refusal_right"], "left_out": ["Cancelled"]}
    found = source(tmp_path / "*.jsonl", rows=rules).read("shop", [A], at(0), at(9))
    assert found.arms[A] == ArmOutcomes(2, 0)


def test_windows_that_follow_each_other_hold_each_request_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(row(n / 10, ok=n % 7 > 0) for n in range(1_000)))
    logs = source(tmp_path / "*.jsonl")
    edges = [0, 0.1, 12.34, 50, 50, 77.7, 100]
    parts = [logs.read("shop", [A], at(a), at(b)).arms[A] for a, b in itertools.pairwise(edges)]
    total = sum(parts, ArmOutcomes())
    assert (total.images, total.failures) == (1_000, 143)


def test_late_rows_are_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(lines([row(1)]))
    found = source(tmp_path / "*.jsonl", now=100, lag_s=30).read("shop", [A], at(0), at(100))
    assert found.until == at(70)
    early = source(tmp_path / "*.jsonl", now=10, lag_s=30).read("shop", [A], at(0), at(100))
    assert (early.until, early.arms[A].images) == (at(0), 0)


def test_a_row_that_is_still_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    whole = lines([row(1), row(2)])
    log.write_text(whole[:-20])
    logs = source(tmp_path / "*.jsonl")
    assert logs.read("shop", [A], at(0), at(9)).arms[A].images == 1
    log.write_text(whole)
    assert logs.read("shop", [A], at(0), at(9)).arms[A].images == 2


def test_a_repeated_request_id_counts_once_with_its_last_word(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            [
                row(1, request_id="r1", ok=False),
                row(2, request_id="r1", ok=True, latency_ms=10),
                row(3, request_id="r2"),
                row(3, request_id="r2"),
                row(5, request_id="r3"),
                row(4, request_id="r3", ok=False),
            ]
        )
    )
    found = source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9))
    assert found.arms[A] == ArmOutcomes(3, 0)
    assert any("repeat" in note for note in found.notes)


def test_a_lost_log_is_not_silence(tmp_path: Path) -> None:
    with pytest.raises(OutcomeError, match="lost log"):
        source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9))
    (tmp_path / "a.jsonl").touch()
    assert source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9)).arms[A].images == 0


@pytest.mark.parametrize(
    "bad",
    [
        "not json\n",
        "[1, 2]\n",
        "[" * 100_000 + "\n",
        lines([row(5) | {"ok": "perhaps"}]),
        lines([row(5) | {"ok": None}]),
        lines([row(5, latency_ms=-1)]),
        lines([row(5, latency_ms="soon")]),
        lines([row(5) | {"time": "yesterday"}]),
        lines([row(5) | {"time": None}]),
        lines([row(5) | {"time": True}]),
        lines([row(5, status="fine")]),
        '{"time": 1e400, "ok": true}\n',
        "x" * (2 << 20) + "\n",
    ],
    ids=range(13),
)
def test_unreadable_rows_are_neither_failures_nor_successes(tmp_path: Path, bad: str) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(lines(row(n / 100) for n in range(500)) + bad + lines([row(6)]))
    found = source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9))
    assert found.arms[A] == ArmOutcomes(501, 0)
    assert any("1 unreadable" in note for note in found.notes)
    log.write_text(lines(row(n / 10) for n in range(50)) + bad + lines([row(6)]))
    with pytest.raises(OutcomeError, match="cannot be understood"):
        source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9))


def test_unreadable_rows_of_the_small_arm_are_not_diluted_by_the_large_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(row(n / 1_000) for n in range(5_000))
        + lines(row(6, B, ok=None if n < 5 else True) for n in range(50))
    )
    with pytest.raises(OutcomeError, match="5 of 50"):
        source(tmp_path / "*.jsonl").read("shop", [A, B], at(0), at(9))


def test_rubbish_outside_the_window_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines([row(1)]) + "rubbish\n" * 50 + lines(row(20 + n / 100) for n in range(10))
    )
    found = source(tmp_path / "*.jsonl").read("shop", [A], at(10), at(30))
    assert found.arms[A] == ArmOutcomes(10, 0)


def test_only_the_end_of_a_growing_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "MARK_EVERY", 2_000)
    log = tmp_path / "a.jsonl"
    log.write_text(lines(row(n) for n in range(1_000)))
    logs = source(tmp_path / "*.jsonl")
    read: list[bytes] = []
    whole = logs_module._object
    monkeypatch.setattr(logs_module, "_object", lambda line: read.append(line) or whole(line))
    assert logs.read("shop", [A], at(0), at(1_000)).arms[A].images == 1_000
    assert len(read) == 1_000
    with log.open("a") as file:
        file.write(lines(row(n) for n in range(1_000, 1_100)))
    read.clear()
    assert logs.read("shop", [A], at(1_000), at(1_100)).arms[A].images == 100
    assert 100 <= len(read) < 130
    # An earlier window is as right as before.
    assert logs.read("shop", [A], at(10), at(20)).arms[A].images == 10


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=120),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6),
)
def test_marks_lose_no_row_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[int],
    windows: list[tuple[int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("log")
    (folder / "a.jsonl").write_text(lines(row(t) for t in times))
    logs = source(folder / "*.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_module, "MARK_EVERY", 300)
        for since, until in windows:
            if since <= until:
                found = logs.read("shop", [A], at(since), at(until)).arms[A].images
                assert found == sum(since <= t < until for t in times)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=300),
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(1, 5),
)
def test_a_window_is_found_in_a_large_file(
    tmp_path_factory: pytest.TempPathFactory, noise: list[int], one: int, other: int, bad: int
) -> None:
    """Rows are out of order by up to 40 s, and some make no sense."""
    folder = tmp_path_factory.mktemp("log")
    times = [2 * n + late for n, late in enumerate(noise)]
    rows = [lines([row(t)]) + ("rubbish\n" if n % 50 == bad else "") for n, t in enumerate(times)]
    (folder / "a.jsonl").write_text("".join(rows))
    since, until = sorted((one, other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs_module, "MARK_EVERY", 300)
        patch.setattr(logs_module, "SEEK_FROM", 600)
        logs = source(folder / "*.jsonl", disorder_s=40, rows={"unreadable_share": 0.99})
        found = logs.read("shop", [A], at(since), at(until)).arms[A].images
    assert found == sum(since <= t < until for t in times)


def test_a_large_file_is_not_read_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "MARK_EVERY", 2_000)
    monkeypatch.setattr(logs_module, "SEEK_FROM", 10_000)
    (tmp_path / "a.jsonl").write_text(lines(row(n) for n in range(5_000)))
    read: list[bytes] = []
    whole = logs_module._object
    monkeypatch.setattr(logs_module, "_object", lambda line: read.append(line) or whole(line))
    found = source(tmp_path / "*.jsonl", disorder_s=60).read("shop", [A], at(4_000), at(5_000))
    assert found.arms[A].images == 1_000
    assert len(read) < 1_200


def test_a_file_written_anew_is_read_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "MARK_EVERY", 500)
    log = tmp_path / "a.jsonl"
    log.write_text(lines(row(n, B) for n in range(100)))
    logs = source(tmp_path / "*.jsonl")
    logs.read("shop", [A], at(0), at(500))
    with log.open("r+") as file:  # The same inode, as copytruncate leaves it.
        file.truncate()
        file.write(lines(row(200 + n) for n in range(300)))
    assert logs.read("shop", [A], at(200), at(500)).arms[A].images == 300


def test_rotated_and_packed_files_count_once(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.2.gz", "wt") as file:
        file.write(lines(row(n) for n in range(10)))
    rotated = lines(row(n) for n in range(10, 20))
    (tmp_path / "a.jsonl.1").write_text(rotated)
    with gzip.open(tmp_path / "a.jsonl.1.gz", "wt") as file:
        file.write(rotated)  # gzip writes the new file before it removes the old one.
    (tmp_path / "a.jsonl").write_text(lines(row(n) for n in range(20, 30)))
    os.link(tmp_path / "a.jsonl", tmp_path / "a.jsonl.link")
    found = source(tmp_path / "a.jsonl*").read("shop", [A], at(0), at(99))
    assert found.arms[A].images == 30


def test_a_rotation_while_reading_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, old = tmp_path / "a.jsonl", tmp_path / "a.jsonl.1"
    log.write_text(lines(row(n) for n in range(10, 20)))
    old.write_text(lines(row(n) for n in range(10)))
    rows = LogSource._rows

    def rotating(self: LogSource, path: Path, *more: Any) -> Any:
        yield from rows(self, path, *more)
        if path == log and not (tmp_path / "a.jsonl.2").exists():
            old.rename(tmp_path / "a.jsonl.2")
            log.rename(old)
            log.write_text(lines([row(20)]))

    monkeypatch.setattr(LogSource, "_rows", rotating)
    found = source(tmp_path / "a.jsonl*").read("shop", [A], at(0), at(99))
    assert found.arms[A].images == 21


def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(lines(row(n) for n in range(1_000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(OutcomeError, match=r"a\.jsonl\.gz"):
        source(tmp_path / "*.gz").read("shop", [A], at(0), at(9))


def test_products_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines([row(1, product="shop"), row(2, product="blog", ok=False), row(3)])
    )
    assert source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(9)).arms[A] == ArmOutcomes(2, 0)
    other = source(tmp_path / "*.jsonl", products=["blog"]).read("shop", [A], at(0), at(9))
    assert other.arms[A] == ArmOutcomes(0, 0)


def test_other_names_nested_fields_and_short_digests(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            [
                {"when": at(1).timestamp(), "route": {"mix": "a" * 12}, "status": 200},
                {"when": at(2).timestamp() * 1e3, "route": {"mix": A}, "status": 500},
                {"when": at(3).timestamp() * 1e6, "route": {"mix": "mix_" + "a" * 12}},
            ]
        )
    )
    rules = {"names": {"time": "when", "mix": "route.mix"}, "unreadable_share": 0.5}
    found = source(tmp_path / "*.jsonl", rows=rules).read("shop", [A, B], at(0), at(9))
    assert found.arms[A] == ArmOutcomes(2, 1)


def test_timings_of_clients_need_no_ending(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            {"time": at(n).isoformat(), "mix_digest": A, "latency_ms": 100 * n} for n in range(10)
        )
    )
    found = source(tmp_path / "*.jsonl", measures=["latency"], rows={"slow_above_ms": 750}).read(
        "shop", [A], at(0), at(99)
    )
    assert found.arms[A] == ArmOutcomes(0, 0, slow=2, timed=10)


def test_inputs_seen(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        lines(
            [
                row(1, subtask="typography", locale="de"),
                row(2, B, subtask="typography", locale="de", ok=False),
                row(3, subtask="fast"),
                row(99, subtask="fast", locale="ja"),
            ]
        )
    )
    seen = source(tmp_path / "*.jsonl").inputs_seen("shop", at(0), at(9))
    assert seen == {("typography", "de"): 2, ("fast", ""): 1}


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    import pandas as pd

    def write(rows: list[dict[str, Any]], **options: Any) -> Path:
        frame = pd.DataFrame(rows)
        frame["time"] = pd.to_datetime(frame["time"], utc=True)
        path = tmp_path / "log.parquet"
        frame.to_parquet(path, **options)
        return path

    return write


def test_parquet_counts_as_jsonl_does(tmp_path: Path, parquet: Callable[..., Path]) -> None:
    rows = [
        row(n, B if n % 3 else A, ok=n % 10 > 0, latency_ms=100.0 * n if n % 4 else None)
        for n in range(200)
    ]
    rules = {"rows": {"slow_above_ms": 5_000}}
    (tmp_path / "a.jsonl").write_text(lines(rows))
    parquet(rows, row_group_size=10)
    window = ("shop", [A, B], at(20), at(150))
    packed = source(tmp_path / "*.parquet", **rules).read(*window)
    assert packed == source(tmp_path / "*.jsonl", **rules).read(*window)
    assert packed.arms[B].images > 50


def test_row_groups_outside_the_window_are_not_read(
    tmp_path: Path, parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet([row(60 * n) for n in range(1_000)], row_group_size=100)
    logs = source(tmp_path / "*.parquet", now=99_999)
    count = 0
    read = logs._reader.read

    def counting(raw: Any) -> Any:
        nonlocal count
        count += 1
        return read(raw)

    monkeypatch.setattr(logs._reader, "read", counting)
    found = logs.read("shop", [A], at(60 * 450), at(60 * 460))
    assert (found.arms[A].images, count) == (10, 100)


def test_half_a_parquet_file_is_an_error(tmp_path: Path, parquet: Callable[..., Path]) -> None:
    path = parquet([row(n) for n in range(100)])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(OutcomeError, match="Parquet"):
        source(tmp_path / "*.parquet").read("shop", [A], at(0), at(9))


def test_rules_name_only_what_exists() -> None:
    from tasks.errors import ConfigError

    with pytest.raises(ConfigError, match="no field 'colour'"):
        source(Path("x"), rows={"names": {"colour": "c"}})


def test_repeats_are_known_within_half_of_what_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.rollout.outcomes import tally

    monkeypatch.setattr(tally, "MOST_IDS", 100)
    rows = [row(n / 100, request_id=f"r{n - n % 2}") for n in range(1_000)]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    found = source(tmp_path / "*.jsonl").read("shop", [A], at(0), at(99))
    assert found.arms[A].images == 500
