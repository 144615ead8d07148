"""The checks that a policy asks for beside the built-in ones: provenance, ONNX models, plug-ins.

Only what the policy names is loaded: installing a package must not change a verdict. What is
missing or broken stays in the report by name: a fault when the policy requires it, so that
nothing is promoted on pictures that were not judged, and else a skip.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.check_rules import CHECK_NAME, Extras, PinnedFile, PluginRule
from tasks.checks import onnx_plugin, provenance
from tasks.checks.base import Check, Expected, Picture
from tasks.errors import PreflightError, known
from tasks.records import Finding

GROUP = "imagegate.checks"
#: Families whose names mean something to the gate itself.
_RESERVED = ("decode.", "delivery.", "plugin.")
_MESSAGE = 300
#: What a check may offer beside ``run``, and how many arguments it is given.
_OFFERED = {"plant": 3, "known": 0}


class PluginError(Exception):
    """A plug-in is missing, or is not what it says."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Stands in the report for a check that could not be loaded, or is left out."""

    name: str
    why: str
    required: bool
    version: str = "none"
    higher_is_better: bool = True
    how: str = "could not be loaded"

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Skip when the policy can do without the check.

        Raises:
            PluginError: The policy requires it.
        """
        if self.required:
            raise PluginError(self.why)
        message = f"{self.how}, and the policy can do without: {self.why}"
        return Finding(
            check=self.name, version=self.version, verdict="skip", message=message[:_MESSAGE]
        )


@dataclass(frozen=True, slots=True)
class Guarded:
    """A check of a plug-in, kept from harming the others and from saying what cannot be."""

    check: Check
    #: Entry point and package, for messages.
    source: str
    required: bool
    name: str
    version: str
    higher_is_better: bool

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Judge by the plug-in. What it breaks is a skip when the policy can do without.

        Raises:
            PluginError: It broke or gave no usable finding, and the policy requires it.
        """
        try:
            # The checks share one decoded picture: this one may look and not touch.
            found = self.check.run(read_only(picture), expected)
            self._sound(found)
        except (Exception, SystemExit) as error:
            why = _told(f"{self.source} broke", error)
            if self.required:
                raise PluginError(why) from error
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        return found.model_copy(
            update={
                "message": found.message[:_MESSAGE],
                "higher_is_better": self.higher_is_better,
            }
        )

    def _sound(self, found: object) -> None:
        if not isinstance(found, Finding):
            raise PluginError(f"run returned {type(found).__name__}, not a Finding")
        if (found.check, found.version) != (self.name, self.version):
            raise PluginError(
                f"its finding is of {found.check!r} {found.version!r}, not of {self.name!r} "
                f"{self.version!r}"
            )
        if found.verdict == "fault":
            raise PluginError(found.message or "it says fault and not why")
        for value in (found.score, found.limit):
            if value is not None and not math.isfinite(value):
                raise PluginError(f"score {found.score} or limit {found.limit} is no number")


def load(extras: Extras, taken: Iterable[str] = ()) -> tuple[Check, ...]:
    """Load what the policy asks for, once a worker process.

    Args:
        extras: The policy's rules.
        taken: Names of the built-in checks, which no other may have.

    Returns:
        The checks in the order of the policy. Never raises for what is missing or broken: that is
        an :class:`Absent` check of the same name, or of ``plugin.<entry point>``.
    """
    rules, names = extras.rules, set(taken)
    loaded: list[Check] = []
    if rules.provenance != "off":
        names.add(provenance.NAME)
        loaded.append(_or_absent(provenance.NAME, True, lambda: _provenance(extras)))
    for rule in rules.onnx:
        if why := _refused_name(rule.name, names):
            loaded.append(Absent(f"plugin.{rule.name}", why, rule.required))
            continue
        names.add(rule.name)
        model = _or_absent(
            rule.name,
            rule.required,
            lambda rule=rule: onnx_plugin.onnx_check(rule, extras.folder),  # type: ignore[misc]
        )
        if isinstance(model, onnx_plugin.OnnxCheck):
            model = _guard(model, f"the model {Path(rule.file).name!r}", rule.required)
        loaded.append(model)
    for plugin in rules.plugins:
        try:
            found = _entry(plugin, names)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - named, and a fault if required
            why = _told(f"plug-in {plugin.name!r}", error)
            loaded.append(Absent(f"plugin.{plugin.name}", why, plugin.required))
        else:
            names |= {check.name for check in found}
            loaded += found
    return tuple(loaded)


def problems(extras: Extras) -> tuple[str, ...]:
    """Return why the policy's checks cannot run here, one sentence each; for preflight and doctor.

    Looks at files, digests and installed packages. No code of a plug-in runs: what only breaks when
    it is loaded shows as a fault on the first picture. Checks that the policy can do without are
    left out.
    """
    rules = extras.rules
    found: list[str] = []
    if rules.provenance != "off" and importlib.util.find_spec("c2pa") is None:
        found.append(provenance.MISSING)
    pinned: list[tuple[str, PinnedFile]] = [("trusted_signers", f) for f in rules.trusted_signers]
    for rule in rules.onnx:
        if rule.required:
            files = (rule, *rule.known_bad, *rule.known_good)
            pinned += [(f"check {rule.name!r}", file) for file in files]
    for what, file in pinned:
        try:
            onnx_plugin.read_pinned(file, extras.folder)
        except (OSError, ValueError) as error:
            found.append(f"{what}: {error}")
    for plugin in rules.plugins:
        if plugin.required:
            try:
                _find(plugin)
            except PluginError as error:
                found.append(f"plug-in {plugin.name!r}: {error}")
    return tuple(found)


def require(extras: Extras) -> None:
    """Pass when the policy's checks can run here, as far as :func:`problems` sees.

    Raises:
        PreflightError: They cannot; nothing was spent.
    """
    if told := problems(extras):
        raise PreflightError(told)


def installed() -> dict[str, str]:
    """Return the plug-ins that are installed: entry point -> package and version."""
    return {
        entry.name: _package(entry)
        for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name)
    }


def _provenance(extras: Extras) -> Check:
    rules = extras.rules
    mode: Literal["required", "if_present"] = (
        "required" if rules.provenance == "required" else "if_present"
    )
    files = [onnx_plugin.read_pinned(file, extras.folder) for file in rules.trusted_signers]
    anchors = "\n".join(file.decode("ascii", "replace") for file in files)
    return provenance.Provenance(mode, anchors, rules.signed_by)


def _or_absent(name: str, required: bool, build: Callable[[], Check]) -> Check:
    try:
        return build()
    except Exception as error:  # noqa: BLE001 - named, and a fault of each picture if required
        return Absent(name, _told(f"check {name!r}", error), required)


def _find(rule: PluginRule) -> metadata.EntryPoint:
    """Return the entry point that a rule means.

    Raises:
        PluginError: It is not installed, there are two, or it is of another version.
    """
    found = list(metadata.entry_points(group=GROUP, name=rule.name))
    if not found:
        raise PluginError(
            f"not installed: no package offers it in the entry-point group {GROUP!r} "
            f"{known(installed())}"
        )
    if len({(entry.value, _package(entry)) for entry in found}) > 1:
        raise PluginError(
            f"offered by {' and '.join(sorted(_package(entry) for entry in found))}; remove one"
        )
    version = found[0].dist.version if found[0].dist is not None else "unknown"
    if rule.version is not None and version != rule.version:
        raise PluginError(f"version {version} is installed, the policy wants {rule.version}")
    return found[0]


def _package(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "unknown"


def _entry(rule: PluginRule, taken: set[str]) -> list[Check]:
    """Load the checks of an entry point.

    Raises:
        PluginError: They are not what the protocol asks for, or a name is taken.
        Exception: Whatever the plug-in raises.
    """
    entry = _find(rule)
    given = entry.load()
    found: list[Check] = []
    names = set(taken)
    for check in given if isinstance(given, Sequence) else (given,):
        _conforms(check)
        if why := _refused_name(check.name, names):
            raise PluginError(why)
        names.add(check.name)
        found.append(_guard(check, f"plug-in {rule.name!r} ({_package(entry)})", rule.required))
    if not found:
        raise PluginError("it gives no check")
    return found


def _conforms(check: Any) -> None:
    """Pass for an instance of a class that follows the protocol :class:`Check`."""
    if isinstance(check, type):
        raise PluginError(f"it gives the class {check.__name__}; give an instance of it")
    for field_name, kind in (("name", str), ("version", str), ("higher_is_better", bool)):
        value = getattr(check, field_name, None)
        if not isinstance(value, kind) or value == "":
            raise PluginError(
                f"{type(check).__name__} has no {field_name} ({kind.__name__}), got {value!r}"
            )
    if not callable(getattr(check, "run", None)):
        raise PluginError(f"{type(check).__name__} has no method run(picture, expected)")
    for offered, count in _OFFERED.items():
        _takes(check, offered, count)


def _takes(check: Any, offered: str, count: int) -> None:
    """Pass when a check does not offer this, or as a method that can be called so."""
    method = getattr(check, offered, None)
    if method is None:
        return
    try:
        inspect.signature(method).bind(*range(count))
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{type(check).__name__} has {offered}, which is no method for its planted defects "
            f"with {count} arguments (tasks/checks/base.py): {error}"
        ) from None


def _refused_name(name: str, taken: Iterable[str]) -> str:
    """Return why a check must not be called that, "" when it may."""
    if not re.fullmatch(CHECK_NAME, name):
        return f"check name {name!r} must read family.name, in lower case"
    if name.startswith(_RESERVED):
        return f"check name {name!r}: the family is the gate's own"
    if name in taken:
        return f"there is a check {name!r} already; rename one"
    return ""


def _guard(check: Check, source: str, required: bool) -> Check:
    return Guarded(check, source, required, check.name, check.version, check.higher_is_better)


def inside(check: Check) -> Check:
    """Return a check without its guard, which hides what it offers."""
    return inside(check.check) if isinstance(check, Guarded) else check


def read_only(picture: Picture) -> Picture:
    """Return a picture at which a plug-in may look and that it cannot change."""
    references = {
        role: None if rgb is None else _locked(rgb) for role, rgb in picture.references.items()
    }
    return replace(
        picture, rgb=_locked(picture.rgb), notes=dict(picture.notes), references=references
    )


def _locked(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    view = rgb.view()
    view.flags.writeable = False
    return view


def _told(what: str, error: BaseException) -> str:
    """Return a sentence about an error; errors of our own need no class name."""
    own = isinstance(error, PluginError | ValueError | ImportError)
    kind = "" if own and str(error) else f"{type(error).__name__}: "
    return f"{what}: {kind}{error}"[:_MESSAGE]
