"""The limits on spend as code: a strict YAML file, read before anything is spent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from tasks.budget.windows import KINDS, WindowKind
from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.records import microusd

#: What the sum over all products is called in the file, in messages and in alarm keys.
ALL = "all"

#: As mixes name their product.
_PRODUCT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")

Usd = Annotated[float, Field(ge=0, le=1_000_000_000)]
Word = Annotated[str, Field(min_length=1, max_length=120)]


class Raiser(Strict):
    """Who may raise a hard limit."""

    name: Word
    #: How to reach them: a channel, a group, an address.
    contact: Word

    @property
    def words(self) -> str:
        """Name and contact for a sentence."""
        return f"{self.name} ({self.contact})"


class Limits(Strict):
    """Soft and hard limit of one window, in dollars; either may be missing."""

    #: Reached: people are told.
    soft: Usd | None = None
    #: Reached: people are paged and no run spends any more. 0 stops all spending.
    hard: Usd | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.soft is None and self.hard is None:
            raise ValueError("needs soft, hard or both")
        if self.soft is not None and self.hard is not None and self.soft > self.hard:
            raise ValueError(f"soft ({self.soft:g}) must not be above hard ({self.hard:g})")
        return self

    @property
    def soft_microusd(self) -> int | None:
        """Soft limit in micro-dollars."""
        return None if self.soft is None else microusd(self.soft)

    @property
    def hard_microusd(self) -> int | None:
        """Hard limit in micro-dollars."""
        return None if self.hard is None else microusd(self.hard)


class Scope(Strict):
    """The limits of one product, or of all together."""

    day_usd: Limits | None = None
    week_usd: Limits | None = None
    month_usd: Limits | None = None
    #: Overrides who may raise the limits of this scope.
    raised_by: Raiser | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Scope:
        if all(self.limits(kind) is None for kind in KINDS):
            raise ValueError("names no limit; give day_usd, week_usd or month_usd, or remove it")
        return self

    def limits(self, kind: WindowKind) -> Limits | None:
        """Return the limits of a window, if it has any."""
        limits: Limits | None = getattr(self, f"{kind}_usd")
        return limits


class Budgets(Strict):
    """Everything that limits what all runs together may spend."""

    schema_version: int = Field(default=1, ge=1, le=1)
    #: IANA name of the zone in which days, weeks and months begin.
    timezone: str = "UTC"
    raised_by: Raiser
    #: With less than this left of a hard limit it counts as reached: such a run could judge
    #: nothing, and no sum of whole requests meets a limit to the cent.
    least_run_usd: Usd = 0.50
    #: All products together.
    all: Scope
    products: dict[str, Scope] = Field(default_factory=dict)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                "is no time zone of the IANA database (e.g. UTC, Europe/Berlin, America/New_York)"
            ) from None
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Budgets:
        for name in self.products:
            if not _PRODUCT.match(name):
                raise ValueError(f"products: {name!r} cannot be the name of a product")
        if ALL in self.products:
            raise ValueError(
                f"products: {ALL!r} means all products together and has its own section"
            )
        for who, scope in self.scopes.items():
            for kind in KINDS:
                limits = scope.limits(kind)
                hard = None if limits is None else limits.hard
                if hard is not None and 0 < hard <= self.least_run_usd:
                    raise ValueError(
                        f"{who}: hard limit {hard:g} of the {kind} must be above least_run_usd "
                        f"({self.least_run_usd:g}), or 0 to stop all spending"
                    )
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    @property
    def scopes(self) -> dict[str, Scope]:
        """All scopes by name, ``all`` first."""
        return {ALL: self.all} | dict(sorted(self.products.items()))

    def of_product(self, product: str) -> dict[str, Scope]:
        """Return the scopes that a run of the product spends from."""
        own = self.products.get(product)
        return {ALL: self.all} | ({} if own is None else {product: own})

    def raiser(self, who: str) -> Raiser:
        """Return who may raise the limits of a scope."""
        scope = self.scopes.get(who)
        return (scope.raised_by if scope is not None else None) or self.raised_by


def load_budgets(path: Path) -> Budgets:
    """Read the file of limits.

    Raises:
        ConfigError: It is missing, damaged or empty: without limits nothing is spent.
    """
    value = read_yaml(path)
    if not value:
        # An interrupted write leaves an empty file; it must not drop every limit in silence.
        raise ConfigError(
            f"{path}: holds no limits, so nothing may be spent; write them out, e.g. a copy of "
            "deployments/budgets.yaml"
        )
    return parse_strict(Budgets, value, path)
