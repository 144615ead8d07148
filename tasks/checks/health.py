"""How well the checks see on this machine: measured once a version, and a little in every run.

The drawings of one seed are one endless row. A record counts what the checks made of the first
``pictures`` of it; whoever measures next goes on where the record ends, so counts only grow, and
pictures that tuned nothing judge the checks in every run. A record belongs to one version of the
checks, of what is planted and of the libraries: another version starts anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tasks.checks import planted
from tasks.checks.planted import CheckHealth
from tasks.checks.suite import suite_version
from tasks.records import digest_json
from tasks.settings import DATASETS

#: The row of drawings that is measured in runs; the tests and the docs use other seeds.
SEED = 20_000
#: Pictures measured where no record is known, and more in every run. One costs about 0.65 CPU
#: seconds, two thirds of it the reading of a text that is not there.
FIRST, LIVE = 100, 10
#: The record that ships with the code; used where its version is that of this machine.
SHIPPED = DATASETS / "planted.json"
#: Pictures that one process measures before it reports.
_UNIT = 5
#: Libraries whose version can change what a check sees or what is drawn.
_LIBRARIES = (
    "numpy",
    "pillow",
    "opencv-python-headless",
    "onnxruntime",
    "rapidocr",
    "tesserocr",
    "manimgx-fonts",
    "manimgx-fonts-cjk",
)


@dataclass(frozen=True)
class HealthRecord:
    """What the checks made of the first drawings of the row."""

    version: str
    pictures: int
    checks: tuple[CheckHealth, ...]


@dataclass(frozen=True)
class Health:
    """What is known of the checks, and what they made of the pictures of this run alone."""

    record: HealthRecord
    now: tuple[CheckHealth, ...]


_RECORD: TypeAdapter[HealthRecord] = TypeAdapter(HealthRecord)


def version() -> str:
    """Return a digest over everything that can change what a check makes of a drawing."""
    libraries = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
    files = [DATASETS / "phrases.json", DATASETS / "words.json"]
    files += sorted(path for path in (DATASETS / "brands").glob("*/*") if path.is_file())
    material = hashlib.sha256()
    for file in files:
        material.update(hashlib.sha256(file.read_bytes()).digest())
    return digest_json(
        {
            "checks": suite_version(),
            "planted": planted.VERSION,
            "defects": [(d.check, d.name, d.strength) for d in planted.DEFECTS],
            "libraries": libraries,
            "machine": platform.machine(),
            "material": material.hexdigest(),
        }
    )


def take(
    home: Path,
    *,
    first: int = FIRST,
    live: int = LIVE,
    workers: int | None = None,
    shipped: Path = SHIPPED,
) -> Health:
    """Measure ``live`` pictures now, and ``first`` where nothing is on record; keep the counts.

    Args:
        home: Folder of everything that imagegate writes.
        first: Pictures for a new record. How many must not depend on what was found.
        live: Pictures for this run alone, besides.
        workers: Processes; one a core by default.
        shipped: The record that ships with the code.

    Raises:
        OSError: The record cannot be written.
        BrokenProcessPool: A process died while measuring.
    """
    here = version()
    path = home / "checks" / f"{here.removeprefix('sha256:')[:32]}.json"
    known = read(path, here) or read(shipped, here)
    if known is None:
        found = measure_drawings(range(first), every_kind=False, workers=workers)
        known = HealthRecord(here, first, found)
        write(path, known)
    numbers = range(known.pictures, known.pictures + live)
    now = measure_drawings(numbers, every_kind=False, workers=workers)
    grown = HealthRecord(here, numbers.stop, added(known.checks, now))
    write(path, grown)
    return Health(grown, now)


def read(path: Path, wanted: str) -> HealthRecord | None:
    """Return the record in a file, ``None`` when there is none of this version, or a broken one."""
    try:
        found = _RECORD.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.version == wanted else None


def write(path: Path, record: HealthRecord) -> None:
    """Write a record; another process sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(_RECORD.dump_json(record, indent=1))
    Path(file.name).replace(path)


def added(one: tuple[CheckHealth, ...], two: tuple[CheckHealth, ...]) -> tuple[CheckHealth, ...]:
    """Return two measurements of the same checks together."""
    return tuple(a.plus(b) for a, b in zip(one, two, strict=True))


def measure_drawings(
    numbers: range,
    *,
    seed: int = SEED,
    checks: Collection[str] | None = None,
    every_kind: bool = True,
    curve: bool = False,
    workers: int | None = None,
    on_unit: Callable[[int], None] | None = None,
) -> tuple[CheckHealth, ...]:
    """Measure drawings in processes of their own: the models take memory that others need.

    Args:
        numbers: Which drawings of the row.
        seed: Which row.
        checks: Names of the checks; all by default.
        every_kind: See :func:`tasks.checks.planted.measure`.
        curve: See there.
        workers: Processes; one a core by default.
        on_unit: Called with the number of pictures done after each part.

    Raises:
        BrokenProcessPool: A process died.
    """
    units = [numbers[start : start + _UNIT] for start in range(0, len(numbers), _UNIT)] or [numbers]
    names = None if checks is None else tuple(checks)
    most = min(workers or os.cpu_count() or 1, len(units))
    context = multiprocessing.get_context("spawn")
    parts = []
    with ProcessPoolExecutor(most, context, _single_threaded) as pool:
        jobs = [pool.submit(_unit, seed, unit, names, every_kind, curve) for unit in units]
        try:
            for number, job in enumerate(jobs, 1):
                parts.append(job.result())
                if on_unit is not None:
                    on_unit(min(number * _UNIT, len(numbers)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return reduce(added, parts)


def _single_threaded() -> None:
    """Keep OpenCV to one thread in a process that is one of several."""
    import cv2

    cv2.setNumThreads(1)


def _unit(
    seed: int, numbers: range, checks: tuple[str, ...] | None, every_kind: bool, curve: bool
) -> tuple[CheckHealth, ...]:
    from tasks.checks.planted_good import drawn

    goods = [drawn(seed, number) for number in numbers]
    return planted.measure(goods, checks, seed=seed, every_kind=every_kind, curve=curve)
