"""What a catalog entry and a stage ask of a model beyond the prompt: checked, never guessed.

Servers ignore in silence what they do not know, so a mistyped name would look like a setting. A
name or a value that the protocol has no words for ends the request before it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.errors import known
from tasks.providers.base import CannotAsk, GenerationRequest

#: Parameters of a stage that are imagegate's own.
OURS = frozenset({"scale"})


class Rule(Protocol):
    """What a parameter may be."""

    def fault(self, value: object) -> str:
        """Return what is allowed when the value is not, "" when it is."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number from ``least`` to ``most``."""

    least: float
    most: float
    whole: bool = False

    def fault(self, value: object) -> str:
        """Return what is allowed when the value is not, "" when it is."""
        fits = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if fits and math.isfinite(value) and self.least <= value <= self.most:  # type: ignore[arg-type, operator]
            return ""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.least:g} to {self.most:g}"


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most ``most`` characters, or one of ``choices``."""

    most: int = 10_000
    choices: tuple[str, ...] = ()

    def fault(self, value: object) -> str:
        """Return what is allowed when the value is not, "" when it is."""
        if self.choices:
            return "" if value in self.choices else f"one of {', '.join(self.choices)}"
        fits = isinstance(value, str) and 0 < len(value) <= self.most
        return "" if fits else f"a text of 1 to {self.most:,} characters"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def fault(self, value: object) -> str:
        """Return what is allowed when the value is not, "" when it is."""
        return "" if isinstance(value, bool) else "true or false"


def chosen(
    request: GenerationRequest, rules: Mapping[str, Rule], aside: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the parameters of a request: the catalog's options, and the stage's over them.

    Args:
        request: What is asked.
        rules: The parameters that the protocol takes for this operation.
        aside: Options of the catalog that are no parameters of this operation.

    Raises:
        CannotAsk: One is unknown, or has a value that is not allowed.
    """
    model = request.model
    result: dict[str, Any] = {}
    for where, given, skip in (
        ("options in the catalog", model.options, aside),
        ("params of the stage", request.params, OURS),
    ):
        for name, value in given.items():
            if name in skip:
                continue
            if name not in rules:
                raise CannotAsk(
                    f"model {model.name!r}: {where}: {name!r} is nothing that "
                    f"{model.protocol} takes for {request.operation!r} {known(rules)}"
                )
            if allowed := rules[name].fault(value):
                raise CannotAsk(
                    f"model {model.name!r}: {where}: {name!r} must be {allowed}, got {value!r:.80}"
                )
            result[name] = value
    return result
