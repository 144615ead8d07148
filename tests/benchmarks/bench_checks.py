"""CPU of the checks on one picture, side by side: compare the rows, not the clock.

The goals of the default set, measured as production works, in a :class:`CheckPool`: five times
cheaper than RapidOCR as it comes, nearly twice as fast with twice the workers, and a worker small
enough that one a core fits everywhere.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.checks.pool import CheckPool
from tasks.checks.suite import check_picture
from tasks.providers.embedded.process import EmbeddedServer

SIDES = (512, 1024)
TEXT = "Summer Sale"
#: What the pictures of the comparison say.
TEXTS = ("Summer Sale", "Fresh Bread Daily", "Open 24 Hours", "50% Off Today", "New Arrivals")
#: Times as much CPU as the default set that RapidOCR must need.
RATIO = 5.0
#: Share of ``workers × rate of one worker`` that all workers together must reach.
SCALING = 0.9
#: Largest peak of resident memory of a worker, in MB.
MEMORY_MB = 450
#: Looked for in vain: the checks look longest, and need the most memory.
OTHER_TEXT = "Winter Cafe Boulevard"
#: Pictures a worker judges for the rate.
EACH = 30


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The same prompt from the embedded server in both sizes."""
    log: Path = tmp_path_factory.mktemp("bench") / "log.jsonl"
    found = {}
    with EmbeddedServer(log=log) as server, httpx.Client(timeout=60, trust_env=False) as client:
        for side in SIDES:
            found[side] = _drawn(client, server.base_url, TEXT, side, seed=1)
    return found


def _drawn(client: httpx.Client, url: str, text: str, side: int, seed: int) -> bytes:
    answer = client.post(
        f"{url}/generate",
        json={
            "prompt": f'Shop window with "{text}"',
            "size": f"{side}x{side}",
            "model": "folio-2",
            "seed": seed,
            "brand": "northwind",
            "locale": "en",
            "safety": "on",
            "params": {},
        },
    )
    answer.raise_for_status()
    return answer.content


@pytest.mark.parametrize("side", SIDES)
def bench_decode_alone(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    assert benchmark(decode, pictures[side], Expected()).picture is not None


@pytest.mark.parametrize("side", SIDES)
def bench_checks_without_text(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    report = benchmark(check_picture, pictures[side], Expected(width=side, height=side))
    assert all(f.verdict != "fault" for f in report.findings)


@pytest.mark.parametrize("side", SIDES)
def bench_all_checks(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    benchmark.group = f"{side} px"
    asked = Expected(intended_text=(TEXT,), width=side, height=side, brand="northwind")
    report = benchmark(check_picture, pictures[side], asked)
    assert not [f for f in report.findings if f.verdict in ("fail", "fault")]


@pytest.mark.parametrize("side", SIDES)
def bench_pillow_load(benchmark: Any, pictures: dict[int, bytes], side: int) -> None:
    """The yardstick: what Pillow alone needs to load the file."""
    from PIL import Image

    def load() -> tuple[int, int]:
        with Image.open(io.BytesIO(pictures[side])) as image:  # noqa: TID251 - our own picture
            image.load()
            return image.size

    benchmark.group = f"{side} px"
    assert benchmark(load) == (side, side)


#: Rows of the comparison.
FULL = "default set, text and brand asked for"
MISSING = "default set, a text that is not there"


@dataclass(frozen=True)
class _File:
    path: Path
    text: str

    def asked(self, text: str | None = None, *, brand: bool = True) -> Expected:
        """Ask for the text that is there, or for another; none if it is empty."""
        wanted = self.text if text is None else text
        return Expected(
            intended_text=(wanted,) if wanted else (),
            language="en",
            width=1024,
            height=1024,
            aspect=1.0,
            brand="northwind" if brand else None,
            subtask="creative",
            prompt="Shop window",
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[_File]:
    """PNGs of 1024 px, each with another text, by the embedded server."""
    folder: Path = tmp_path_factory.mktemp("speed")
    found = []
    with (
        EmbeddedServer(log=folder / "log.jsonl") as server,
        httpx.Client(timeout=60, trust_env=False) as client,
    ):
        for number, text in enumerate(TEXTS, 1):
            path = folder / f"{number}.png"
            path.write_bytes(_drawn(client, server.base_url, text, 1024, seed=number))
            found.append(_File(path, text))
    return found


#: Answers each path that comes in with the CPU seconds of all its threads and its peak in KB.
_RAPID = """
import logging, sys, time
logging.disable()
from pathlib import Path
from rapidocr import RapidOCR
threads = int(sys.argv[1])
read = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": threads,
                        "EngineConfig.onnxruntime.inter_op_num_threads": threads}
                if threads else None)
for line in sys.stdin:
    data = Path(line.rstrip()).read_bytes()
    started = time.process_time()
    read(data)
    spent = time.process_time() - started
    status = Path("/proc/self/status").read_text()
    print(spent, status.partition("VmHWM:")[2].split()[0], flush=True)
"""


class _Rapid:
    """RapidOCR's own pipeline in a process of its own, so that neither changes the other.

    Args:
        threads: Of the inference; 0 leaves all settings as they come.
    """

    def __init__(self, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RAPID, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.memory_mb = 0.0

    def __enter__(self) -> _Rapid:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def cpu_ms(self, path: Path) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        seconds, kilobytes = self._process.stdout.readline().split()
        self.memory_mb = int(kilobytes) / 1024
        return float(seconds) * 1000


@pytest.mark.timeout(600)
def bench_default_set_beside_rapidocr(
    benchmark: Any, files: list[_File], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files, one after the other through each: what else runs here hits all alike."""
    rows: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    asked: dict[str, dict[str, Any]] = {
        FULL: {},
        "default set, brand asked for": {"text": ""},
        "default set, neither": {"text": "", "brand": False},
        MISSING: {"text": OTHER_TEXT},
    }

    def compare() -> None:
        with CheckPool(1) as pool, _Rapid(0) as rapid, _Rapid(1) as single:
            # The first round loads the models.
            for number in range(3):
                for file in files:
                    spent: dict[str, float] = {}
                    for name, options in asked.items():
                        report = pool.submit(file.path, file.asked(**options)).result()
                        wrong = [f.check for f in report.findings if f.verdict in ("fail", "fault")]
                        assert wrong == ["typography.text"] * (name == MISSING), file.text
                        spent[name] = report.seconds * 1000
                    spent["RapidOCR as it comes"] = rapid.cpu_ms(file.path)
                    spent["RapidOCR on one thread"] = single.cpu_ms(file.path)
                    for name, value in spent.items() if number else ():
                        rows.setdefault(name, []).append(value)
            memory[MISSING] = max(_peaks_mb())
            memory["RapidOCR as it comes"] = rapid.memory_mb
            memory["RapidOCR on one thread"] = single.memory_mb

    benchmark.group = "default set beside RapidOCR"
    benchmark.pedantic(compare, rounds=1)
    middle = {name: statistics.median(values) for name, values in rows.items()}
    rapid = middle["RapidOCR as it comes"]
    table = [
        "| CPU of a 1024 px PNG | ms | RapidOCR / this | peak MB |",
        "| --- | --- | --- | --- |",
    ]
    table += [
        f"| {name} | {ms:.0f} | {rapid / ms:.1f} | {memory.get(name, 0) or '':.4} |"
        for name, ms in middle.items()
    ]
    _show(capsys, table)
    benchmark.extra_info |= middle
    assert rapid / middle[FULL] >= RATIO
    assert rapid / middle["default set, brand asked for"] >= RATIO
    assert memory[MISSING] < MEMORY_MB


@pytest.mark.timeout(600)
def bench_one_worker_a_core(
    benchmark: Any, files: list[_File], capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures a second, in turns with one worker and with all; the best turn of each counts."""
    cores = os.cpu_count() or 1
    one: list[float] = []
    all_of_them: list[float] = []
    idle: list[float] = []
    peaks: list[float] = []
    cpu: dict[int, float] = {}

    def compare() -> None:
        with CheckPool(1) as single, CheckPool(cores) as pool:
            for workers in (single, pool):
                _rate(workers, files, 2 * workers.workers)  # Loads the models.
            for _ in range(3):
                with _others(idle):
                    for workers, rates in ((single, one), (pool, all_of_them)):
                        before, count = _ours(), EACH * workers.workers
                        rates.append(_rate(workers, files, count))
                        spent = (_ours() - before) / count * 1000
                        cpu[workers.workers] = min(spent, cpu.get(workers.workers, spent))
            peaks.extend(_peaks_mb())

    benchmark.group = "one worker a core"
    benchmark.pedantic(compare, rounds=1)
    share = max(all_of_them) / (cores * max(one))
    _show(
        capsys,
        [
            f"one worker {max(one):.2f} pictures/s, {cores} workers {max(all_of_them):.2f}: "
            f"{share:.2f} of {cores} × one; "
            f"CPU a picture {cpu[1]:.0f} and {cpu[cores]:.0f} ms; "
            f"peak of a worker {max(peaks):.0f} MB; "
            f"other processes used {min(idle):.0%} to {max(idle):.0%} of the machine"
        ],
    )
    benchmark.extra_info |= {"one": max(one), "all": max(all_of_them), "share": share}
    assert max(peaks) < MEMORY_MB
    if min(idle) > 0.03 and share < SCALING:
        pytest.skip(f"other processes used {min(idle):.0%} of the machine: the rate says nothing")
    assert share >= SCALING


def _rate(pool: CheckPool, files: Sequence[_File], count: int) -> float:
    """Return pictures a second, with text and brand asked for."""
    work = [files[number % len(files)] for number in range(count)]
    started = time.perf_counter()
    reports = [pool.submit(file.path, file.asked()) for file in work]
    found = [f for report in reports for f in report.result().findings]
    seconds = time.perf_counter() - started
    assert not [f for f in found if f.verdict in ("fail", "fault")]
    return count / seconds


def _peaks_mb() -> list[float]:
    """Return the largest resident memory that each check worker ever had."""
    states = [Path(f"/proc/{p.pid}/status") for p in multiprocessing.active_children()]
    return [int(s.read_text().partition("VmHWM:")[2].split()[0]) / 1024 for s in states]


@contextmanager
def _others(shares: list[float]) -> Iterator[None]:
    """Add the share of the machine that other processes use while the block runs."""
    busy, ours, started = _busy(), _ours(), time.perf_counter()
    yield
    whole = (time.perf_counter() - started) * (os.cpu_count() or 1)
    shares.append(max(0.0, (_busy() - busy - (_ours() - ours)) / whole))


def _busy() -> float:
    """Return the CPU seconds that the machine was busy since it started."""
    fields = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, *_ = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _ours() -> float:
    """Return the CPU seconds of this process and the check workers."""
    total = 0
    for pid in (os.getpid(), *(p.pid for p in multiprocessing.active_children())):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _show(capsys: pytest.CaptureFixture[str], lines: Sequence[str]) -> None:
    with capsys.disabled():
        print("", *lines, sep="\n")  # noqa: T201 - the measurement is what this is for
