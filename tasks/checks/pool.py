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
from multiprocessing import resource_tracker
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
#: Bytes in which a worker notes what it does: a mark whether the policy can do without it, a name.
_NOTE = 128
_NEEDED, _OPTIONAL = b".", b"?"
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


@dataclass(frozen=True, slots=True)
class _Death:
    """How a worker ended on a job."""

    message: str
    #: The check that it was in, where the policy can do without that one.
    optional: str = ""


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
        #: Set by an interrupt: nobody waits for what is under way.
        self._stopped = False
        self._busy: set[_Worker] = set()
        #: Checks that the policy can do without and that ended a worker, and how.
        self._left_out: dict[str, str] = {}
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
            # Other errors leave the pictures under way their reports, which a run keeps.
            self._stopped = kind is not None and not issubclass(kind, Exception)
            if self._stopped:
                for worker in self._busy:
                    worker.interrupt()
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
        # Workers inherit it: Ctrl-C is for the parent, from their first moment on. Python's own
        # helper process is started before, for that would lift it.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while (job := self._jobs.get()) is not None:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    worker = self._do(job, worker)
                except Exception as error:  # noqa: BLE001 - a fault of this picture's check
                    job.fault(f"the check process could not start: {error}")
                    worker = None
        finally:
            if worker is not None:
                worker.stop()

    def _do(self, job: _Job | _Drawing, worker: _Worker | None) -> _Worker | None:
        """Do a job and return the worker that can go on.

        A check that ended its worker and that the policy can do without is left out from then on,
        and the job is done again.
        """
        while True:
            left_out = dict(self._left_out) if worker is None else worker.left_out
            if worker is None:
                worker = _Worker(self._context, self._extras, left_out)
            with self._closing:
                self._busy.add(worker)
                if self._stopped:
                    worker.interrupt()
            try:
                death = worker.do(job, self._timeout_s)
            finally:
                with self._closing:
                    self._busy.discard(worker)
            if death is None:
                return worker
            if self._stopped or not death.optional or death.optional in left_out:
                job.fault("the checks were stopped" if self._stopped else death.message)
                return None
            self._left_out[death.optional] = death.message
            worker = None


class _Worker:
    """One check process and the pipe to it."""

    def __init__(self, context: SpawnContext, extras: Extras, left_out: Mapping[str, str]) -> None:
        self.left_out = left_out
        self._pipe, theirs = context.Pipe()
        # Shared memory: what is written there stays when the worker dies.
        self._note = context.RawArray("c", _NOTE)
        with _single_threaded():
            self._process: BaseProcess = context.Process(
                target=_work,
                args=(theirs, extras, self._note, left_out),
                name="imagegate-check",
                daemon=True,
            )
            self._process.start()
        theirs.close()
        self._warm = False

    def do(self, job: _Job | _Drawing, timeout_s: float) -> _Death | None:
        """Do a job and hand over its report, or return how the worker ended instead.

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
                return self._death(
                    f"the checks did not end within {patience:.0f} s of CPU time or "
                    f"{clock:.0f} s by the clock"
                )
            # Bytes, not objects: a worker that a picture took over must not reach further.
            report = self._pipe.recv_bytes(_MAX_REPORT)
        except (EOFError, OSError):
            self.kill()
            code = self._process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
            return self._death(f"the check process died {how}")
        self._warm = True
        job.answer(report)
        return None

    def _death(self, how: str) -> _Death:
        """Return how it ended, and in which check."""
        mark, name = self._note.value[:1], self._note.value[1:].decode("utf-8", "replace")
        return _Death(f"{how}, in {name}" if name else how, name if mark == _OPTIONAL else "")

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

    def interrupt(self) -> None:
        """End the worker from another thread than the one that waits for it, which notices."""
        self._process.kill()

    def kill(self) -> None:
        """End the worker at once."""
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


def _work(pipe: Connection, extras: Extras, note: Any, left_out: Mapping[str, str]) -> None:
    """Check pictures until the pipe closes, which it also does when the parent is killed."""
    # Ctrl-C is for the parent, which ends its workers by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _confine()
    from tasks.checks.decode import read_file
    from tasks.checks.plugins import Absent, load
    from tasks.checks.suite import CHECKS, check_picture

    def noted(check: Check | None) -> None:
        mark = _OPTIONAL if getattr(check, "required", True) is False else _NEEDED
        note.value = b"" if check is None else (mark + check.name.encode())[: _NOTE - 1]

    note.value = _NEEDED + b"the loading of the policy's checks"
    extra = tuple(
        Absent(c.name, left_out[c.name], False, c.version, c.higher_is_better, "is left out")
        if c.name in left_out
        else c
        for c in load(extras, [check.name for check in CHECKS])
    )
    note.value = b""

    def picture(path: Path, expected: Expected, references: dict[Role, Path]) -> bytes:
        try:
            files = {role: read_file(file)[0] for role, file in references.items()}
            data, size = read_file(path)
            report = check_picture(data, expected, files, extra, size=size, on_check=noted)
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
