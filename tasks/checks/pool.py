"""Worker processes for the checks: a bad file takes down its own judgement and nothing else.

One single-threaded worker a core. Each worker is a process with a pipe; a picture that kills its
worker or keeps it too long is a checker fault, the worker is replaced and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import TypeAdapter

from tasks.check_rules import Extras
from tasks.checks.base import Check, Expected, Role
from tasks.checks.counts import CheckHealth, OwnHealth
from tasks.records import Finding, ImageReport

#: Seconds for one picture once a worker is warm, of the worker's own CPU: on a busy machine a good
#: picture must not become a fault because others had the processor.
TIMEOUT_S = 30.0
#: How many times as long it may take by the clock; a worker that waits for something uses no CPU.
_BY_THE_CLOCK = 5
#: Seconds between two looks at how much CPU a worker used.
_LOOK_S = 1.0
#: How many times as long a drawing may take: defects of every check are planted in it and judged.
_DRAWING_TIMES = 6
#: Seconds more for the first picture of a worker, which loads the models.
START_S = 60.0
#: Threads that numeric libraries may start in a worker; more make two workers slower than one.
_THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_STARTING = threading.Lock()
#: Bytes of address space for a worker: models and the largest picture allowed fit several times.
_MEMORY = 6 * 2**30
#: Longest report that is taken from a worker.
_MAX_REPORT = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    expected: Expected
    references: Mapping[Role, Path]
    future: Future[ImageReport]

    @property
    def message(self) -> tuple[object, ...]:
        """What the worker is told."""
        return self.path, self.expected, dict(self.references)

    def answer(self, report: bytes) -> None:
        """Take the worker's answer."""
        self.future.set_result(ImageReport.model_validate_json(report))

    def fault(self, message: str) -> None:
        """Take what went wrong."""
        self.future.set_result(_fault(message))


@dataclass(frozen=True, slots=True)
class DrawingReport:
    """What a worker's checks made of planted defects in one drawing, or why it does not say."""

    checks: tuple[CheckHealth, ...] = ()
    problem: str = ""
    #: What the policy's own checks made of what they plant and know.
    own: tuple[OwnHealth, ...] = ()


@dataclass(frozen=True, slots=True)
class _Drawing:
    seed: int
    number: int
    #: How many drawings there are: known pictures are shown in turns.
    of: int
    #: Checks of the suite for which nothing is planted; ``None`` for all of them.
    without: frozenset[str] | None
    future: Future[DrawingReport]

    @property
    def message(self) -> tuple[object, ...]:
        """What the worker is told."""
        return self.seed, self.number, self.of, self.without

    def answer(self, report: bytes) -> None:
        """Take the worker's answer."""
        self.future.set_result(_DRAWING.validate_json(report))

    def fault(self, message: str) -> None:
        """Take what went wrong."""
        self.future.set_result(DrawingReport(problem=message))


_DRAWING: TypeAdapter[DrawingReport] = TypeAdapter(DrawingReport)


class CheckPool:
    """A pool of check workers; use it as a context manager.

    Args:
        workers: Processes; one a core by default.
        timeout_s: Seconds of CPU for one picture, or five times as many by the clock, after which
            its worker is killed.
        extras: What the policy asks for beside the built-in checks; each worker loads it once.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: float = TIMEOUT_S,
        extras: Extras | None = None,
    ) -> None:
        self._extras = extras or Extras()
        self._context = multiprocessing.get_context("spawn")
        self._timeout_s = timeout_s
        self._jobs: queue.SimpleQueue[_Job | _Drawing | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self.workers = workers or max(1, os.cpu_count() or 1)
        self._threads = [
            threading.Thread(target=self._serve, name=f"check-{n}", daemon=True)
            for n in range(self.workers)
        ]

    def __enter__(self) -> CheckPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._closing:
            self._closed = True
        if kind is not None:
            self._drop_waiting()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def submit(
        self, path: Path, expected: Expected, references: Mapping[Role, Path] | None = None
    ) -> Future[ImageReport]:
        """Queue a picture. What breaks is a fault in the report, never an exception.

        The future is cancelled when the pool ends early, or has ended.
        """
        future: Future[ImageReport] = Future()
        self._queue(_Job(path, expected, references or {}, future))
        return future

    def submit_drawing(
        self, seed: int, number: int, of: int = 1, without: frozenset[str] | None = frozenset()
    ) -> Future[DrawingReport]:
        """Queue a drawing in which a worker plants defects; see :mod:`tasks.checks.health`.

        What breaks is the report's problem, never an exception; cancelled as a picture is.

        Args:
            seed: The row of drawings.
            number: Which of them.
            of: How many are asked for in all: the pictures that the policy's own checks know are
                shown in as many parts.
            without: Checks of the suite that are left out; ``None`` leaves all of them out.
        """
        future: Future[DrawingReport] = Future()
        self._queue(_Drawing(seed, number, of, without, future))
        return future

    def _queue(self, job: _Job | _Drawing) -> None:
        with self._closing:
            if not self._closed:
                self._jobs.put(job)
                return
        _cancel(job.future)

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    _cancel(job.future)

    def _serve(self) -> None:
        """Feed one worker process, replacing it when it dies or hangs."""
        worker: _Worker | None = None
        try:
            while (job := self._jobs.get()) is not None:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    if worker is None:
                        worker = _Worker(self._context, self._extras)
                    worker.do(job, self._timeout_s)
                except Exception as error:  # noqa: BLE001 - a fault of this picture's check
                    job.fault(f"the check process could not start: {error}")
                    worker = None
                else:
                    if not worker.alive:
                        worker = None
        finally:
            if worker is not None:
                worker.stop()


class _Worker:
    """One check process and the pipe to it."""

    def __init__(self, context: SpawnContext, extras: Extras) -> None:
        self._pipe, theirs = context.Pipe()
        with _single_threaded():
            self._process: BaseProcess = context.Process(
                target=_work, args=(theirs, extras), name="imagegate-check", daemon=True
            )
            self._process.start()
        theirs.close()
        self._warm = False
        self.alive = True

    def do(self, job: _Job | _Drawing, timeout_s: float) -> None:
        """Do a job and hand over its report; ``alive`` tells whether the worker can go on.

        Raises:
            ValueError: The report is none.
        """
        patience = timeout_s * (_DRAWING_TIMES if isinstance(job, _Drawing) else 1)
        patience += 0 if self._warm else START_S
        try:
            self._pipe.send(job.message)
            if not self._answers_within(patience):
                self.kill()
                clock = _BY_THE_CLOCK * patience
                job.fault(
                    f"the checks did not end within {patience:.0f} s of CPU time or "
                    f"{clock:.0f} s by the clock"
                )
                return
            # Bytes, not objects: a worker that a picture took over must not reach further.
            report = self._pipe.recv_bytes(_MAX_REPORT)
        except (EOFError, OSError):
            self.kill()
            code = self._process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            job.fault(f"the check process died {how}")
            return
        self._warm = True
        job.answer(report)

    def _answers_within(self, seconds: float) -> bool:
        """Wait for an answer or the worker's end; give up after these seconds of its CPU."""
        pid = self._process.pid or 0
        cpu_ends, ends = cpu_seconds(pid) + seconds, time.monotonic() + _BY_THE_CLOCK * seconds
        while True:
            # The least that may still be missing: one of the two clocks can have run out then.
            left = min(cpu_ends - cpu_seconds(pid), ends - time.monotonic())
            if self._pipe.poll(max(0.0, min(left, _LOOK_S))):
                return True
            if left <= 0:
                return False

    def stop(self) -> None:
        """End the worker; it exits when its pipe closes."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self.kill()

    def kill(self) -> None:
        """End the worker at once."""
        self.alive = False
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let a child inherit one thread for its numeric libraries, read when they load."""
    # Several threads start workers; the environment is one, and must end as it was.
    with _STARTING:
        before = {n: os.environ.get(n) for n in _THREADS}  # noqa: TID251 - handed to a child
        os.environ.update(_THREADS)  # noqa: TID251
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)  # noqa: TID251
                else:
                    os.environ[name] = value  # noqa: TID251


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process used; those of the clock where nobody tells."""
    try:
        # Linux' number of a process' CPU clock, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, OverflowError):
        return time.monotonic()


def _cancel(future: Future[Any]) -> None:
    """Cancel a future and wake whoever waits for it, which ``cancel`` alone does not."""
    future.cancel()
    future.set_running_or_notify_cancel()


def _fault(message: str) -> ImageReport:
    return ImageReport(
        findings=(Finding(check="decode.file", version="pool", verdict="fault", message=message),)
    )


def _work(pipe: Connection, extras: Extras) -> None:
    """Check pictures until the pipe closes, which it also does when the parent is killed."""
    # Ctrl-C is for the parent, which ends its workers by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _confine()
    from tasks.checks.plugins import load
    from tasks.checks.suite import CHECKS, check_picture

    extra = load(extras, [check.name for check in CHECKS])

    def picture(path: Path, expected: Expected, references: dict[Role, Path]) -> bytes:
        try:
            files = {role: file.read_bytes() for role, file in references.items()}
            report = check_picture(path.read_bytes(), expected, files, extra)
        except Exception as error:  # noqa: BLE001 - a fault of this picture's check
            report = _fault(f"the checks broke: {type(error).__name__}: {error}"[:300])
        return report.model_dump_json().encode("utf-8", "backslashreplace")

    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        # A picture is told by its path, a drawing by its row.
        if isinstance(message[0], int):
            seed, number, of, without = message
            report = _planted(seed, number, of, without, extra)
        else:
            report = picture(*message)
        try:
            pipe.send_bytes(report)
        except OSError:
            return  # The parent is gone.


def _planted(
    seed: int,
    number: int,
    of: int = 1,
    without: frozenset[str] | None = frozenset(),
    extra: Sequence[Check] = (),
) -> bytes:
    """Plant defects in a drawing and return what this worker's checks made of them."""
    from tasks.checks.health import measure_unit
    from tasks.checks.planted import check_names
    from tasks.checks.planted_own import measure_own

    try:
        found: tuple[CheckHealth, ...] = ()
        if without is not None:
            names = tuple(name for name in check_names() if name not in without)
            found = measure_unit(seed, range(number, number + 1), names)
        report = DrawingReport(found, own=measure_own(extra, seed, number, of))
    except Exception as error:  # noqa: BLE001 - a problem of this drawing
        report = DrawingReport(problem=f"planting broke: {type(error).__name__}: {error}"[:300])
    return _DRAWING.dump_json(report)


def _confine() -> None:
    """Bound this worker's memory and keep what libraries and plug-ins print off our output."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    # Standard output is the parent's: it may be printing JSON.
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
