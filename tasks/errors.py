"""What can go wrong, sorted by what the caller must do about it.

    ImagegateError
    ├── ConfigError            mend the file or the flag; nothing was spent        exit 2
    │   └── DataError          the same for one row and field of a data file       exit 2
    ├── RefusedError           the gate says no before a cent is spent             exit 2
    │   ├── FrozenError        production is frozen: who, why, until when          exit 2
    │   └── PreflightError     licence, price, retirement, drift, safety, key      exit 2
    ├── BudgetExhausted        a money cap is reached: stop cleanly, HOLD          exit 3
    └── GateError              the gate itself broke; this is never a verdict      exit 4
        ├── StateError         the state database is unreadable or corrupt         exit 4
        ├── EvidenceError      evidence cannot be written or read (disk full)      exit 4
        ├── TakenOverError     another process drives this run by now              exit 4
        └── RolloutError       the router did not do, or does not show, the change exit 4
            └── FencedError    another controller moved production meanwhile       exit 4

Every message says what is wrong, where, what was found and how to mend it.
What a model provider does wrong is not an exception: it is a
:class:`tasks.records.FailureClass` on an attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


class ImagegateError(Exception):
    """Base of every error that imagegate raises on purpose.

    ``exit_code`` is the exit code of the ``imagegate`` command for it.
    """

    exit_code = 4


class ConfigError(ImagegateError):
    """A configuration file, a flag or an environment variable is invalid."""

    exit_code = 2


class DataError(ConfigError):
    """A data file holds a bad row.

    Args:
        path: The file.
        row: 1-based row number as a person counts it in the file, or ``None`` for the whole file.
        field: The field, or ``None``.
        problem: What was found and what is allowed.
    """

    def __init__(self, path: Path | str, row: int | None, field: str | None, problem: str) -> None:
        self.path, self.row, self.field, self.problem = str(path), row, field, problem
        # A name may hold anything: a line break in it must not pass for a line of ours.
        where = _one_line(self.path)
        if row is not None:
            where += f", row {row}"
        if field is not None:
            where += f", field {field!r}"
        super().__init__(f"{where}: {problem}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, int | None, str | None, str]]:
        """Pickle by the four arguments, so that the error crosses process borders."""
        return (DataError, (self.path, self.row, self.field, self.problem))


class RefusedError(ImagegateError):
    """The gate refuses to start or to act; nothing was spent and nothing changed."""

    exit_code = 2


class FrozenError(RefusedError):
    """Production is frozen and the change asked for is not a rollback."""


class PreflightError(RefusedError):
    """One or more preflight rules say no.

    Args:
        problems: One sentence a problem.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("preflight refuses:\n" + "\n".join(f"  - {p}" for p in self.problems))

    def __reduce__(self) -> tuple[type[PreflightError], tuple[tuple[str, ...]]]:
        """Pickle by the problems."""
        return (PreflightError, (self.problems,))


class BudgetExhausted(ImagegateError):  # noqa: N818 - a state of the run, not a mistake
    """A spend cap of the run or of the day leaves no room for the next request."""

    exit_code = 3


class GateError(ImagegateError):
    """The gate itself broke."""


class StateError(GateError):
    """The state database cannot be used."""


class EvidenceError(GateError):
    """Evidence cannot be written or read."""


class TakenOverError(GateError):
    """Another process drives the run; this one must not act for it any more."""


class RolloutError(GateError):
    """The router did not take a change, or does not show it when read back."""


class FencedError(RolloutError):
    """Somebody else moved production since this controller read it."""


def _one_line(text: str) -> str:
    """Return the text with everything that is not printed written as Python writes it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def known(names: Sequence[str] | Iterable[str], most: int = 12) -> str:
    """Return ``"(known: a, b, c)"`` for an error message, cut after ``most`` names."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) + (", …" if len(ordered) > most else "")
    return f"(known: {shown or 'none'})"
