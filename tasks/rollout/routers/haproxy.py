"""HAProxy: the routing is one map entry a product, changed in memory and in the map's file.

``set map`` over the Runtime API changes backend, share and mix of a product at once, with no
reload and no connection lost. The file is written first, so that a reload or a restart keeps it.
Read back is what HAProxy has in memory, of every instance, and the file beside it: where they
differ, nothing is certain, and :meth:`HaproxyRouter.read` shows a routing without weights, which no
wanted routing equals.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock, Timeout

from tasks.errors import EvidenceError, RolloutError, known
from tasks.plan import write_atomic
from tasks.rollout.faults import fault
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.config import HaproxyInstance, HaproxyRouterConfig, Product
from tasks.rollout.routers.entry import (
    Entry,
    assert_not_late,
    entry_for,
    parse_entry,
    point_of,
    trial_keys,
)
from tasks.rollout.routers.haproxy_runtime import Runtime, parse_map_file, render_map_file
from tasks.rollout.routers.placing import place
from tasks.rollout.routers.probing import Prober

#: Seconds to wait for another process that is changing the same map.
_LOCK_S = 10.0
#: Seconds for the check of HAProxy's configuration.
_CHECK_S = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    """What one instance has for a product; ``None`` where there is no entry."""

    instance: HaproxyInstance
    memory: str | None
    file: str | None


class HaproxyRouter:
    """One HAProxy, or several that serve the same products.

    Args:
        config: The section ``router`` of the rollout file.
        lock_timeout_s: Seconds to wait for another process that is changing the map.
    """

    def __init__(self, config: HaproxyRouterConfig, lock_timeout_s: float = _LOCK_S) -> None:
        self.config = config
        self.lock_timeout_s = lock_timeout_s
        self._prober = Prober(config.key_header, config.timeout_s)

    def read(self, product: str) -> RouterState | None:
        """Return what every instance has in memory and will have after a reload.

        Where instances, or memory and file, differ, the state has the latest epoch of all and no
        weights.

        Raises:
            RolloutError: HAProxy or the map's file cannot be read, or somebody wrote something
                into the entry that is no routing.
        """
        held = [self._held(instance, product) for instance in self.config.instances]
        values = [value for one in held for value in (one.memory, one.file)]
        if all(value is None for value in values):
            return None
        entries = [self._entry(product, value) for value in values if value is not None]
        if len(set(values)) == 1:
            return entries[0].state(product)
        newest = max(entries, key=lambda entry: entry.epoch)
        return RouterState(product, entries[0].production.digest, newest.epoch, {})

    def backends_of(self, product: str) -> dict[str, str]:
        """Return the backend of each mix that has traffic now, for who reads HAProxy's counters.

        Raises:
            RolloutError: HAProxy cannot be read.
        """
        runtime, instance = self._runtime(self.config.instances[0]), self.config.instances[0]
        value = _in_memory(runtime, instance, product)
        if value is None:
            return {}
        return {arm.digest: arm.backend for arm in self._entry(product, value).arms}

    def apply(self, desired: Desired) -> None:
        """Give a product its routing, in the map's file and then in memory, on every instance.

        Requests that are under way end where they are; none is broken off. What cannot be done on
        one instance keeps the others from nothing.

        Raises:
            FencedError: An instance has a later epoch, or something else under this one.
            RolloutError: No backend serves a mix, a backend that shall get its first requests is
                down, an instance cannot be changed, or requests do not follow the change.
        """
        product = self._product(desired.product)
        with self._locked():
            fault("map locked")
            held, failures = self._reachable(desired.product)
            if not held:
                raise RolloutError("; ".join(failures))
            entries = [
                entry
                for one in held
                for value in (one.file, one.memory)
                if value is not None and (entry := parse_entry(value)) is not None
            ]
            assert_not_late("HAProxy", desired, entries)
            before = entries[0] if entries else None
            wanted = self._wanted(desired, product, before)
            for one in held:
                try:
                    self._assert_backends(one.instance, wanted, before)
                    self._change(one, desired.product, wanted)
                except RolloutError as error:
                    failures.append(str(error))
        if failures:
            raise RolloutError(
                f"the routing of {desired.product!r} is not changed everywhere: "
                + "; ".join(failures)
            )
        # All to one mix: the map is read back anyway, and a rollback must not hang on an answer.
        self._follows(product, wanted, before, must_answer=wanted.candidate is not None)

    def probe(self) -> None:
        """Pass when the routing could be changed now, and requests follow it.

        Every instance answers, lets its map be changed, and has the backends; the map's file can
        be written; ``check_command`` passes; a real request is routed as the map says.

        Raises:
            RolloutError: It could not.
        """
        with self._locked():
            for instance in self.config.instances:
                runtime = self._runtime(instance)
                runtime.show_map(instance.map_file)
                runtime.assert_may_set(instance.map_file)
                there = runtime.backends()
                for product in self.config.products.values():
                    _assert_known(instance, [b.name for b in product.backends], there)
                self._file_values(instance)
                _assert_writable(instance)
        self._check_configuration()
        for name, product in self.config.products.items():
            value = self._held(self.config.instances[0], name).memory
            entry = parse_entry(value) if value is not None else None
            if entry is not None:
                self._follows(product, entry, None, must_answer=True)
            elif product.probe_url is not None:
                self._prober.serves(product.probe_url)

    def _product(self, name: str) -> Product:
        try:
            return self.config.products[name]
        except KeyError:
            raise RolloutError(
                f"the rollout file names no backends of HAProxy for product {name!r} "
                f"{known(self.config.products)}; add it under router.products"
            ) from None

    def _runtime(self, instance: HaproxyInstance) -> Runtime:
        return Runtime(instance.socket, self.config.timeout_s)

    @staticmethod
    def _entry(product: str, value: str) -> Entry:
        entry = parse_entry(value)
        if entry is None:
            raise RolloutError(
                f"HAProxy's map has no routing for {product!r} but {value[:200]!r}: somebody else "
                "wrote it; `imagegate rollback` or the next look of the watchdog puts it right"
            )
        return entry

    def _held(self, instance: HaproxyInstance, product: str) -> Held:
        memory = _in_memory(self._runtime(instance), instance, product)
        return Held(instance, memory, self._file_values(instance).get(product))

    def _reachable(self, product: str) -> tuple[list[Held], list[str]]:
        """Return what the instances have, and what keeps the others from being changed."""
        held, failures = [], []
        for instance in self.config.instances:
            try:
                held.append(self._held(instance, product))
            except RolloutError as error:
                failures.append(str(error))
        return held, failures

    @staticmethod
    def _file_values(instance: HaproxyInstance) -> dict[str, str]:
        try:
            return parse_map_file(instance.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise RolloutError(f"{instance.path}: HAProxy's map cannot be read: {error}") from None

    def _wanted(self, desired: Desired, product: Product, before: Entry | None) -> Entry:
        """Return the entry for a routing.

        Raises:
            RolloutError: No backend serves a mix, or the shares cannot be had with HAProxy.
        """
        backends = place(desired, product, before, self._prober)
        try:
            return entry_for(desired, backends)
        except ValueError as error:
            raise RolloutError(f"HAProxy cannot route {desired.product!r} so: {error}") from None

    def _assert_backends(
        self, instance: HaproxyInstance, wanted: Entry, before: Entry | None
    ) -> None:
        """Pass when the backends exist, and those that shall get their first requests are up.

        A mix that has requests already is left to the state machine: a rollback is never refused
        because production is down.

        Raises:
            RolloutError: They are not.
        """
        there = self._runtime(instance).backends()
        _assert_known(instance, [arm.backend for arm in wanted.arms], there)
        served = {arm.digest for arm in before.arms} if before else set()
        for arm in wanted.arms:
            status = there[arm.backend]["status"]
            if arm.digest not in served and not status.startswith("UP"):
                raise RolloutError(
                    f"backend {arm.backend!r}, which shall serve mix {arm.digest}, is {status} at "
                    f"{instance.socket}: its requests would fail; see that its servers pass their "
                    "checks, then try again"
                )

    def _change(self, held: Held, product: str, wanted: Entry) -> None:
        instance, value = held.instance, wanted.value
        if held.file != value:
            text = render_map_file(self._file_values(instance) | {product: value}, instance.path)
            fault("map's file about to be replaced")
            try:
                # A link stays one: its target is what HAProxy reads.
                write_atomic(instance.path.resolve(), text)
            except EvidenceError as error:
                raise RolloutError(
                    f"{instance.path}: HAProxy's map cannot be written, it is as before: "
                    f"{error.__cause__ or error}"
                ) from error
            fault("map's file replaced")
        if held.memory != value:
            self._runtime(instance).set_map(instance.map_file, product, value)
            fault("map changed in memory")

    def _follows(
        self, product: Product, entry: Entry, before: Entry | None, *, must_answer: bool
    ) -> None:
        """Pass when real requests get the mixes that the entry says, if there is where to ask.

        Raises:
            RolloutError: One does not, or gets no answer.
        """
        if product.probe_url is None:
            return
        cuts = [entry.cut, before.cut if before is not None else 0]
        wanted = {key: entry.digest_at(point_of(key)) for key in trial_keys(cuts)}
        self._prober.follow(product.probe_url, wanted, must_answer=must_answer)

    def _check_configuration(self) -> None:
        command = self.config.check_command
        if not command:
            return
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CHECK_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RolloutError(f"check_command {command[0]!r} cannot be run: {error}") from None
        if done.returncode:
            lines = (done.stderr or done.stdout).splitlines()
            said = " ".join(line.strip() for line in lines if not line.startswith("[NOTICE]"))
            raise RolloutError(
                "HAProxy would not start again with its configuration, so nothing is changed: "
                f"{said[:500]}"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the first instance's map; the system frees it when the process dies."""
        path = self.config.instances[0].path
        lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=self.lock_timeout_s)
        try:
            lock.acquire()
        except Timeout:
            raise RolloutError(
                f"{path}: another process has been changing HAProxy's map for "
                f"{self.lock_timeout_s:g} s; find who holds {lock.lock_file}, then try again"
            ) from None
        except OSError as error:
            raise RolloutError(
                f"{path}: HAProxy's map cannot be locked: {error.strerror}; its folder must be "
                "there and writable"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _in_memory(runtime: Runtime, instance: HaproxyInstance, product: str) -> str | None:
    values = runtime.show_map(instance.map_file).get(product, [])
    # Two entries of one key: ``set map`` makes them equal, until then nothing is certain.
    return values[0] if len(set(values)) <= 1 and values else ("|".join(values) or None)


def _assert_known(
    instance: HaproxyInstance, names: Sequence[str], there: dict[str, dict[str, str]]
) -> None:
    for name in names:
        if name not in there:
            raise RolloutError(
                f"HAProxy at {instance.socket} has no backend {name!r} {known(there)}; its "
                "requests would go to the default; mend the rollout file or HAProxy's configuration"
            )


def _assert_writable(instance: HaproxyInstance) -> None:
    path = instance.path.resolve()
    trial = path.with_name(f".{path.name}.probe")
    try:
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise RolloutError(
            f"{path}: the folder of HAProxy's map cannot be written ({error.strerror}), so a "
            "change would be lost at the next reload"
        ) from None
