"""How well the checks see: counts of planted defects, shipped with the code or measured once here.

A record counts what the checks made of the first drawings of one endless row. It belongs to one
version of the checks, of what is planted and of the libraries; where the shipped one is of another
version, this machine measures a smaller one, once. Its number of drawings is fixed before and never
depends on what was found: so its bounds are exact. Each run looks at a few drawings of its own
besides, see :mod:`tasks.checks.live`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.checks import consistency, planted, unrequested
from tasks.checks.counts import ANY, CheckHealth, CleanHealth
from tasks.checks.planted_base import Good
from tasks.checks.suite import CHECKS, suite_version
from tasks.records import digest_json
from tasks.settings import DATASETS

#: The row of drawings that a record counts; runs, the tests and the docs use other seeds.
SEED = 20_000
#: Drawings of a record that a machine makes for itself. One costs one to two CPU seconds.
FIRST = 100
#: Ends the names of entries that count what one reader alone gives.
ONE_READER = " (one reader)"
#: The check that a second reader confirms.
_CONFIRMED = "typography.text"
#: Drawings that one process measures before it reports.
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
    """What the checks made of the first ``pictures`` drawings of the row.

    The entry :data:`ANY` counts the good pictures that any check called bad. Entries named with
    :data:`ONE_READER` say what the same drawings give where no second reader confirms a flag.
    """

    version: str
    #: Whether a second reader was there.
    second_reader: bool
    #: Drawings that it was to count, and those that it counts so far.
    asked: int
    pictures: int
    checks: tuple[CheckHealth, ...]
    #: Of those asked, the last so many were only shown as they are, without a defect.
    good: int = 0

    @property
    def whole(self) -> bool:
        """Whether its maker came to the end."""
        return self.pictures == self.asked > 0

    def counts(self, *, second_reader: bool) -> tuple[CheckHealth, ...] | None:
        """Return the counts for a machine with or without a second reader, ``None`` unmeasured."""
        plain = tuple(one for one in self.checks if not one.check.endswith(ONE_READER))
        if second_reader == self.second_reader:
            return plain
        alone = {one.check.removesuffix(ONE_READER): one for one in self.checks if one not in plain}
        if second_reader or not alone:
            return None
        return tuple(renamed(alone.get(one.check, one), one.check) for one in plain)


_RECORD: TypeAdapter[HealthRecord] = TypeAdapter(HealthRecord)


def version() -> str:
    """Return a digest over everything that can change what a check makes of a drawing.

    Checks are named with their version and parameters, not by their source: a comment changes
    nothing, and a check whose judgement changes gets another version. A record says by itself
    what it holds for machines without a second reader.
    """
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
            "apart": [consistency.VERSION, unrequested.VERSION],
            "parameters": {check.name: _parameters(check) for check in CHECKS},
            "planted": planted.VERSION,
            "defects": [(d.check, d.name, d.strength) for d in planted.DEFECTS],
            "libraries": libraries,
            "machine": platform.machine(),
            "material": material.hexdigest(),
        }
    )


def _parameters(check: Any) -> dict[str, str]:
    """Return the limits of a check; where its data lies is none."""
    return {
        each.name: repr(value)
        for each in dataclasses.fields(check)
        if not isinstance(value := getattr(check, each.name), Path)
    }


def second_reader() -> bool:
    """Tell whether a second reader confirms what the first one read wrong."""
    from tasks.checks.second_reader import LATIN
    from tasks.checks.tesseract import installed

    return not installed().isdisjoint(LATIN)


def known_record(home: Path, shipped: Path) -> HealthRecord | None:
    """Return the record for the checks as they are here: this machine's own, or the shipped one.

    Args:
        home: Folder of everything that imagegate writes.
        shipped: The record that ships with the code.

    Returns:
        ``None`` where neither is of this version; then :func:`make_record` makes one.
    """
    here, confirmed = version(), second_reader()
    for path in (shipped, own_record(home)):
        record = read(path, here)
        counts = None if record is None else record.counts(second_reader=confirmed)
        if record is not None and record.whole and counts is not None:
            return dataclasses.replace(record, second_reader=confirmed, checks=counts)
    return None


def own_record(home: Path) -> Path:
    """Return the file of the record that this machine makes for itself."""
    return home / "checks" / f"{version().removeprefix('sha256:')[:32]}.json"


def make_record(
    path: Path,
    pictures: int,
    *,
    good: int = 0,
    everywhere: bool = False,
    workers: int | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> HealthRecord:
    """Measure the first drawings of the row and keep the counts in a file.

    What a run before left there of the same version is not measured again, also when that one was
    interrupted.

    Args:
        path: The file.
        pictures: In how many drawings defects are planted; must not depend on what was found.
        good: How many more are shown as they are: false alarms are rare, and cheap to look for.
        everywhere: Measure also for machines without a second reader, where this one has it.
        workers: Processes; one a core by default.
        on_done: Called with the number of drawings done so far.

    Raises:
        OSError: The file cannot be written.
        BrokenProcessPool: A process died while measuring.
    """
    here, confirmed = version(), second_reader()
    new = HealthRecord(here, confirmed, pictures + good, 0, (), good)
    known = read(path, here)
    # Counts of another plan are thrown away: they may be why it was changed.
    if known is None or dataclasses.replace(known, pictures=0, checks=()) != new:
        known = new
    start, before = known.pictures, known.checks
    on_done(start)
    parts = measured(
        range(start, new.asked),
        every_kind=False,
        whole_suite=True,
        one_reader=everywhere and confirmed,
        good_from=pictures,
        workers=workers,
    )
    for done, found in parts:
        known = dataclasses.replace(new, pictures=start + done, checks=added(before, found))
        write(path, known)
        on_done(known.pictures)
    return known


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
        file.write(_RECORD.dump_json(record, indent=1) + b"\n")
    Path(file.name).chmod(0o644)  # Not the private mode of a temporary file.
    Path(file.name).replace(path)


def added(one: tuple[CheckHealth, ...], two: tuple[CheckHealth, ...]) -> tuple[CheckHealth, ...]:
    """Return two measurements of the same checks together; the first may be of nothing yet."""
    return tuple(a.plus(b) for a, b in zip(one, two, strict=True)) if one else two


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
    whole: tuple[CheckHealth, ...] = ()
    for done, found in measured(
        numbers, seed=seed, checks=checks, every_kind=every_kind, curve=curve, workers=workers
    ):
        whole = found
        if on_unit is not None:
            on_unit(done)
    return whole


def measured(
    numbers: range,
    *,
    seed: int = SEED,
    checks: Collection[str] | None = None,
    every_kind: bool = True,
    curve: bool = False,
    whole_suite: bool = False,
    one_reader: bool = False,
    good_from: int | None = None,
    workers: int | None = None,
) -> Iterator[tuple[int, tuple[CheckHealth, ...]]]:
    """Yield how many drawings are done and what was found in them, part by part.

    ``whole_suite`` adds the entry :data:`ANY`, and ``one_reader`` those of :data:`ONE_READER`. In
    drawings from number ``good_from`` on nothing is planted. The rest is as in
    :func:`measure_drawings`.
    """
    middle = numbers.stop if good_from is None else max(good_from, numbers.start)
    units = [
        range(start, min(start + _UNIT, part.stop))
        for part in (range(numbers.start, middle), range(middle, numbers.stop))
        for start in part[::_UNIT]
    ]
    names = None if checks is None else tuple(checks)
    most = max(1, min(workers or os.cpu_count() or 1, len(units)))
    context = multiprocessing.get_context("spawn")
    found: tuple[CheckHealth, ...] = ()
    done = 0
    with ProcessPoolExecutor(most, context, _single_threaded) as pool:
        jobs = [
            pool.submit(
                measure_unit,
                seed,
                unit,
                names,
                every_kind,
                curve,
                whole_suite,
                one_reader,
                planting=unit.start < middle,
            )
            for unit in units
        ]
        try:
            for unit, job in zip(units, jobs, strict=True):
                found, done = added(found, job.result()), done + len(unit)
                yield done, found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _single_threaded() -> None:
    """Keep OpenCV to one thread in a process that is one of several."""
    import cv2

    cv2.setNumThreads(1)


def measure_unit(
    seed: int,
    numbers: range,
    checks: tuple[str, ...] | None = None,
    every_kind: bool = False,
    curve: bool = False,
    whole_suite: bool = True,
    one_reader: bool = False,
    *,
    planting: bool = True,
) -> tuple[CheckHealth, ...]:
    """Measure some drawings of a row in this process; arguments as in :func:`measured`.

    Without ``planting`` the drawings are only shown to the checks as they are.
    """
    from tasks.checks.planted_good import drawn

    def measure(names: Collection[str] | None) -> tuple[CheckHealth, ...]:
        plants = goods if planting else []
        found = planted.measure(plants, names, seed=seed, every_kind=every_kind, curve=curve)
        if planting:
            return found
        shown = planted.look_at_good(goods, [one.check for one in found], every_kind)
        pairs = zip(found, shown, strict=True)
        return tuple(dataclasses.replace(one, clean=clean) for one, clean in pairs)

    goods = [drawn(seed, number) for number in numbers]
    found = measure(checks)
    if whole_suite:
        found = (*found, CheckHealth(ANY, _flagged(goods)))
    if one_reader:
        with _alone():
            text = measure([_CONFIRMED])
        # The goods have the other checks' verdicts from before, and the reader's of now.
        again = (*text, CheckHealth(ANY, _flagged(goods)))
        found = (*found, *(renamed(one, one.check + ONE_READER) for one in again))
    return found


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let text be read as on a machine without the second reader's data; for one thread."""
    from tasks.checks import second_reader

    def none(text: str) -> str | None:
        del text
        return None

    before = second_reader.code_for
    second_reader.code_for = none
    try:
        yield
    finally:
        second_reader.code_for = before


def renamed(one: CheckHealth, name: str) -> CheckHealth:
    """Return counts under another name of the check."""
    return dataclasses.replace(
        one,
        check=name,
        clean=dataclasses.replace(one.clean, check=name),
        defects=tuple(dataclasses.replace(kind, check=name) for kind in one.defects),
    )


def _flagged(goods: Sequence[Good]) -> CleanHealth:
    """Count the good pictures that any check called bad.

    What is found on pictures together, or only where a policy asks for it, is left out: the entry
    of such a check has its count.
    """
    total = CleanHealth(ANY)
    for good in goods:
        accusers = sorted(
            name
            for name, verdict in good.verdicts.items()
            if verdict == "fail" and name not in planted.APART
        )
        total = total.plus(
            CleanHealth(
                ANY,
                alarms=bool(accusers),
                clean=1,
                accused=(f"{good.name}: {', '.join(accusers)}",) if accusers else (),
            )
        )
    return total
