"""The catalog: the small library of models that a mix may use."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.records import Operation, PinStrength, microusd

#: The endpoint of models that the run's own local image server serves.
EMBEDDED = "embedded"


def _endpoint(value: str) -> str:
    if value == EMBEDDED:
        return value
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        host = None
    # Compared as a host, not as the start of a text: http://127.0.0.1.example is no loopback.
    local = host in ("127.0.0.1", "::1", "localhost")
    if host is None or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError(
            "must be 'embedded', an https:// address, or http:// on this machine's loopback"
        )
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; name the key's variable in key_env")
    return value


class Price(Strict):
    """What one request costs at the most, where the figure is from and since when it holds."""

    usd: float = Field(ge=0)
    per: Literal["image"] = "image"
    source: str = Field(min_length=1)
    date: date

    @property
    def microusd(self) -> int:
        """Price of one request in micro-dollars, rounded up."""
        return microusd(self.usd)


class Licence(Strict):
    """Licence of the model and the uses it allows."""

    id: str = Field(min_length=1)
    uses: tuple[Literal["commercial", "internal", "research"], ...]


class Limits(Strict):
    """How hard the harness may drive the model."""

    concurrency: int = Field(default=8, ge=1, le=256)
    per_minute: int = Field(default=6000, ge=1)
    #: Seconds on the wire before an attempt counts as timed out.
    timeout_s: float = Field(default=60.0, gt=0, le=900)
    attempts: int = Field(default=3, ge=1, le=10)


class Model(Strict):
    """One trusted model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
    protocol: Literal["raw"]
    endpoint: Annotated[str, AfterValidator(_endpoint)]
    #: The version that the provider must report.
    version: str = Field(min_length=1)
    pin: PinStrength
    operations: tuple[Operation, ...] = Field(min_length=1)
    licence: Licence | None = None
    price: Price | None = None
    #: Safety setting that this model offers and that a live run needs.
    safety: Literal["on", "off"] = "on"
    #: Environment variable that holds the key, ``None`` when the model needs none.
    key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    retires: date | None = None
    successor: str | None = None
    limits: Limits = Limits()


class Catalog(Strict):
    """All trusted models."""

    schema_version: Literal[1] = 1
    models: tuple[Model, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Catalog:
        seen: set[str] = set()
        for model in self.models:
            if model.name in seen:
                raise ValueError(f"model {model.name!r} stands in the catalog twice")
            seen.add(model.name)
        return self

    @property
    def by_name(self) -> dict[str, Model]:
        """Models by name."""
        return {model.name: model for model in self.models}


def load_catalog(path: Path) -> Catalog:
    """Read a catalog file.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if value is None:
        raise ConfigError(f"{path}: the catalog is empty; it needs 'models'")
    return parse_strict(Catalog, value, path)
