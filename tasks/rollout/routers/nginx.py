"""nginx: the routing is an include file a product, checked before nginx reloads it.

The file holds ``split_clients`` by the request's key, the ``upstream`` and the mix of either side,
and the routing in one line (``$imagegate_<product>_state``), which nginx's workers answer with at
``status_url``: that is what is read back, so it is what they run, not what the file says. Where
the two differ, or the file was edited, :meth:`NginxRouter.read` shows a routing without weights,
which no wanted routing equals.

``deployments/nginx-canary.conf`` is the configuration around it.
"""

from __future__ import annotations

import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import EvidenceError, RolloutError, known
from tasks.plan import write_atomic
from tasks.rollout.faults import fault
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.config import NginxProduct, NginxRouterConfig, variable_name
from tasks.rollout.routers.entry import (
    POINTS,
    Entry,
    assert_not_late,
    entry_for,
    parse_entry,
    trial_keys,
)
from tasks.rollout.routers.http import Link
from tasks.rollout.routers.nginx_workers import taking_connections, workers_beside
from tasks.rollout.routers.placing import place
from tasks.rollout.routers.probing import Prober
from tasks.rollout.routers.waiting import until

_LOCK_S = 10.0
_COMMAND_S = 60.0
#: Points in a hundredth of a percent, the finest share of ``split_clients``.
_GRAIN = POINTS // 10_000
#: Where old workers cannot be watched, so many answers in a row must be new, a moment apart: nginx
#: lets a tenth of a second pass before it tells them.
_IN_A_ROW, _APART_S = 12, 0.05
_STATE_MARK = "# routing: "


class NginxRouter:
    """One nginx on this machine.

    Args:
        config: The section ``router`` of the rollout file.
        lock_timeout_s: Seconds to wait for another process that is changing the files.
    """

    def __init__(self, config: NginxRouterConfig, lock_timeout_s: float = _LOCK_S) -> None:
        self.config = config
        self.lock_timeout_s = lock_timeout_s
        self._link = Link(config.timeout_s)
        self._prober = Prober(config.key_header, config.timeout_s)

    def read(self, product: str) -> RouterState | None:
        """Return what nginx's workers run; without weights where the file says something else.

        Raises:
            RolloutError: nginx or the file cannot be read.
        """
        running, _ = self._running(product)
        text = self._text(product)
        kept = _entry_in(text)
        entries = [entry for entry in (running, kept) if entry is not None]
        if not entries and _STATE_MARK not in text:
            return None
        if not entries:
            raise RolloutError(
                f"{self._path(product)}: somebody else wrote it; `imagegate rollback` or the next "
                "look of the watchdog puts it right"
            )
        if running is not None and running == kept and text == render(product, running):
            return running.state(product)
        newest = max(entry.epoch for entry in entries)
        return RouterState(product, entries[0].production.digest, newest, {})

    def apply(self, desired: Desired) -> None:
        """Write the file, check nginx's configuration with it, reload, wait for the new workers.

        What does not pass the check is taken back, and nginx goes on as before.

        Raises:
            FencedError: nginx or the file has a later epoch, or something else under this one.
            RolloutError: No upstream serves a mix, the check fails, or the workers do not show
                the routing in time.
        """
        product = self._product(desired.product)
        with self._locked():
            running, worker = self._running(desired.product)
            text = self._text(desired.product)
            kept = _entry_in(text)
            entries = [entry for entry in (kept, running) if entry is not None]
            assert_not_late("nginx", desired, entries)
            before = running or kept
            wanted = _wanted(desired, place(desired, product, before, self._prober))
            if running != wanted or text != render(desired.product, wanted):
                old = workers_beside(worker)
                self._change(desired.product, wanted)
                self._until_taken_over(desired.product, wanted, old)
        if product.probe_url is not None:
            cuts = [wanted.cut, before.cut if before is not None else 0]
            # As with HAProxy: a rollback must not hang on an answer of the application.
            self._follows(product.probe_url, wanted, cuts, must_answer=wanted.candidate is not None)

    def probe(self) -> None:
        """Pass when the files could be changed, nginx would start with them, and serves.

        Raises:
            RolloutError: It could not.
        """
        with self._locked():
            trial = self.config.include_dir / ".imagegate.probe"
            try:
                trial.write_bytes(b"")
                trial.unlink()
            except OSError as error:
                raise RolloutError(
                    f"{self.config.include_dir}: nginx's include folder cannot be written: "
                    f"{error.strerror}"
                ) from None
            shown = self._run(self.config.test_command)
            for name, product in self.config.products.items():
                self._assert_upstreams(shown, [backend.name for backend in product.backends])
                running, _ = self._running(name)
                if product.probe_url is None:
                    continue
                if running is None:
                    self._prober.serves(product.probe_url)
                else:
                    self._follows(product.probe_url, running, [running.cut], must_answer=True)

    def _product(self, name: str) -> NginxProduct:
        try:
            return self.config.products[name]
        except KeyError:
            raise RolloutError(
                f"the rollout file names no upstreams of nginx for product {name!r} "
                f"{known(self.config.products)}; add it under router.products"
            ) from None

    def _path(self, product: str) -> Path:
        return self.config.include_dir / f"{product}.conf"

    def _text(self, product: str) -> str:
        try:
            return self._path(product).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise RolloutError(f"{self._path(product)}: cannot be read: {error}") from None

    def _running(self, product: str) -> tuple[Entry | None, int | None]:
        """Return what a worker runs, ``None`` while it has no routing of the product, and its pid.

        Raises:
            RolloutError: No answer, or one that is no routing.
        """
        answer = self._link.send("GET", self._product(product).status_url)
        if answer.status == 404:
            return None, None
        value, _, last = answer.body.decode("utf-8", "replace").rstrip().rpartition(" ")
        if not (last.isascii() and last.isdigit() and len(last) < 10):
            value, last = f"{value} {last}", ""
        worker = int(last) if last else None
        if answer.ok and not value.strip():
            return None, worker
        entry = parse_entry(value.strip()) if answer.ok else None
        if entry is None:
            raise RolloutError(
                f"{answer.where} answers HTTP {answer.status} with what is no routing: "
                f"{answer.shown}; see deployments/nginx-canary.conf"
            )
        return entry, worker

    def _change(self, product: str, wanted: Entry) -> None:
        path, before = self._path(product), self._text(product)
        self._write(path, render(product, wanted))
        fault("nginx's file replaced")
        try:
            shown = self._run(self.config.test_command)
            self._assert_upstreams(shown, [arm.backend for arm in wanted.arms])
            if f"$imagegate_{variable_name(product)}_state" not in shown:
                raise RolloutError(
                    f"nginx's configuration does not include {path}; it needs a line `include "
                    f"{self.config.include_dir}/*.conf;` in its http block"
                )
        except RolloutError:
            self._write(path, before) if before else path.unlink()
            raise
        fault("nginx's configuration checked")
        self._run(self.config.reload_command)
        fault("nginx told to reload")

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            write_atomic(path, text)
        except EvidenceError as error:
            raise RolloutError(
                f"{path}: cannot be written, nginx goes on as before: {error.__cause__ or error}"
            ) from error

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RolloutError(f"{' '.join(command)} cannot be run: {error}") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "[emerg]" in line]
            said = " ".join(lines) or done.stderr
            raise RolloutError(
                f"{' '.join(command)} ends with {done.returncode}, nginx goes on as before: "
                f"{said.strip()[:500]}"
            )
        return done.stdout

    @staticmethod
    def _assert_upstreams(configuration: str, names: Sequence[str]) -> None:
        words = configuration.replace("{", " { ").split()
        there = {name for word, name in pairwise(words) if word == "upstream"}
        for name in names:
            if name not in there:
                raise RolloutError(
                    f"nginx's configuration has no upstream {name!r} {known(there)}; requests to "
                    "it would fail"
                )

    def _until_taken_over(self, product: str, wanted: Entry, old: frozenset[int]) -> None:
        """Wait until no request can be routed as before any more."""
        pause = threading.Event()

        def shown() -> bool:
            if self._running(product)[0] != wanted or taking_connections(old):
                return False
            if old:
                return True
            looks = (
                self._running(product)[0] for _ in range(_IN_A_ROW) if not pause.wait(_APART_S)
            )
            return all(running == wanted for running in looks)

        until(
            shown,
            within_s=self.config.settle_s,
            failure=f"nginx was reloaded and its workers do not run epoch {wanted.epoch} of "
            f"{product!r}",
        )

    def _follows(self, url: str, entry: Entry, cuts: Sequence[int], *, must_answer: bool) -> None:
        keys = trial_keys(cuts, point_of)
        wanted = {key: entry.digest_at(point_of(key)) for key in keys}
        self._prober.follow(url, wanted, must_answer=must_answer)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self.config.include_dir
        lock = FileLock(folder / ".imagegate.lock", timeout=self.lock_timeout_s)
        try:
            lock.acquire()
        except Timeout:
            raise RolloutError(
                f"{folder}: another process has been changing nginx's routing for "
                f"{self.lock_timeout_s:g} s; find who holds {lock.lock_file}, then try again"
            ) from None
        except OSError as error:
            raise RolloutError(
                f"{folder}: nginx's include folder cannot be locked: {error.strerror}; it must be "
                "there and writable"
            ) from None
        try:
            yield
        finally:
            lock.release()


def render(product: str, entry: Entry) -> str:
    """Return the include file of a routing."""
    name = f"$imagegate_{variable_name(product)}"
    production, candidate = entry.production, entry.candidate
    split = f"  {entry.cut / (POINTS / 100):.2f}% candidate;\n" if candidate is not None else ""

    def sides(one: str, other: str | None) -> str:
        return (f"  candidate {other};\n" if other is not None else "") + f"  default {one};\n"

    backends = sides(production.backend, candidate.backend if candidate else None)
    mixes = sides(production.digest, candidate.digest if candidate else None)
    return (
        f"# {product}: written by imagegate; by hand nothing lasts.\n"
        f"{_STATE_MARK}{entry.value}\n"
        f'split_clients "$imagegate_key" {name}_arm {{\n{split}  * production;\n}}\n'
        f"map {name}_arm {name}_upstream {{\n{backends}}}\n"
        f"map {name}_arm {name}_mix {{\n{mixes}}}\n"
        f'map {name}_arm {name}_state {{\n  default "{entry.value}";\n}}\n'
    )


def point_of(key: str) -> int:
    """Return the point of a key as ``split_clients`` sees it: MurmurHash2 of 32 bits, seed 0.

    nginx compares the hash with the summed percentages of 2**32 - 1.
    """
    data = key.encode()
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    value = len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        mixed = word * mixer & mask
        mixed = (mixed ^ mixed >> 24) * mixer & mask
        value = (value * mixer & mask) ^ mixed
    rest = data[whole:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return (value ^ value >> 15) * POINTS // mask


def _entry_in(text: str) -> Entry | None:
    for line in text.splitlines():
        if line.startswith(_STATE_MARK):
            return parse_entry(line.removeprefix(_STATE_MARK).strip())
    return None


def _wanted(desired: Desired, backends: Mapping[str, str]) -> Entry:
    try:
        entry = entry_for(desired, backends)
    except ValueError as error:
        raise RolloutError(f"nginx cannot route {desired.product!r} so: {error}") from None
    if entry.cut % _GRAIN:
        raise RolloutError(
            f"nginx cannot give {desired.product!r} a share of {entry.cut / POINTS:g}: its finest "
            "step is 0.01 %"
        )
    return entry
