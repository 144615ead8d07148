"""The catalog: the small library of models that a mix may use."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.records import Operation, PinStrength, microusd

#: The endpoint of models that the run's own local image server serves.
EMBEDDED = "embedded"
#: Beginning of the endpoint of a replay: the folder whose pictures stand in for a model.
FOLDER = "file:///"


def _endpoint(value: str) -> str:
    if value == EMBEDDED or value.startswith(FOLDER):
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
            "must be 'embedded', an https:// address, http:// on this machine's loopback, or "
            "file:///folder for a replay"
        )
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; name the key's variable in key_env")
    return value


PriceUnit = Literal["image", "megapixel", "token", "credit", "gpu_second"]


class TokenPrices(Strict):
    """Dollars for a million tokens, by modality."""

    text_in: float = Field(default=0.0, ge=0)
    image_in: float = Field(default=0.0, ge=0)
    text_out: float = Field(default=0.0, ge=0)
    image_out: float = Field(default=0.0, ge=0)


class Price(Strict):
    """What a unit of work costs, where the figure is from and since when it holds.

    What one request costs is worked out in :mod:`tasks.providers.cost`.
    """

    #: Dollars for one unit. A request for one image takes one image, ``credits`` credits, or as
    #: many megapixels or GPU-seconds as it needs. For tokens: the most that one request can cost,
    #: which nobody can tell from the request.
    usd: float = Field(ge=0)
    per: PriceUnit = "image"
    #: Needed for ``per: token`` and for nothing else.
    tokens: TokenPrices | None = None
    #: Credits that one request takes; needed for ``per: credit`` and for nothing else.
    credits: float | None = Field(default=None, gt=0)
    #: Dollars for the first megapixel where that one has a price of its own.
    first_usd: float | None = Field(default=None, ge=0)
    #: The most that one request can cost where the unit alone would tell too little.
    most_usd: float | None = Field(default=None, ge=0)
    source: str = Field(min_length=1)
    date: date

    @model_validator(mode="after")
    def _fits_its_unit(self) -> Price:
        for field, unit in (("tokens", "token"), ("credits", "credit")):
            if (getattr(self, field) is not None) != (self.per == unit):
                raise ValueError(
                    f"{field!r} belongs to per: {unit} and is needed there, got per: {self.per}"
                )
        if self.first_usd is not None and self.per != "megapixel":
            raise ValueError(f"'first_usd' belongs to per: megapixel, got per: {self.per}")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old plans and mixes keep their digests."""
        return _shown(handler(self), ("tokens", "credits", "first_usd", "most_usd"))

    @property
    def microusd(self) -> int:
        """Price of one unit in micro-dollars, rounded up."""
        return microusd(self.usd)

    @property
    def words(self) -> str:
        """The price in words, e.g. ``$0.04 per image``."""
        if self.tokens is not None:
            rates = ", ".join(
                f"{name} ${rate:g}" for name, rate in self.tokens.model_dump().items() if rate
            )
            return f"up to ${self.usd:g} per image ({rates or 'free'} per million tokens)"
        if self.credits is not None:
            return f"{self.credits:g} credits of ${self.usd:g}"
        first = "" if self.first_usd is None else f"${self.first_usd:g} for the first megapixel, "
        return f"{first}${self.usd:g} per {self.per.replace('gpu_second', 'GPU-second')}"


def _shown(dumped: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    """Return a dump without the named fields that are unset."""
    for name in later:
        if dumped.get(name) in (None, {}, [], ()):
            dumped.pop(name, None)
    return dumped


#: A country by its ISO 3166 code, or a union of countries by its name.
Region = Annotated[str, Field(pattern=r"^[A-Z]{2,4}$")]
_MEMBERS = "AT BE BG HR CY CZ DE DK EE ES FI FR GR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_EU = frozenset(_MEMBERS.split())
#: Members of the unions that a licence may name.
UNIONS = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}}


class Licence(Strict):
    """Licence of the model and the uses it allows."""

    id: str = Field(min_length=1)
    uses: tuple[Literal["commercial", "internal", "research"], ...]
    #: Where the uses hold, as ISO 3166 codes or names of unions; empty: everywhere.
    regions: tuple[Region, ...] = ()
    #: Last day on which it holds, ``None`` without an end.
    expires: date | None = None
    #: Address of the text that grants it.
    evidence: Annotated[str, Field(pattern=r"^https://[^\s]+$", max_length=500)] | None = None

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old plans keep their digests."""
        return _shown(handler(self), ("regions", "expires", "evidence"))

    def uncovered(self, regions: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of some regions in which the licence does not hold."""
        if not self.regions:
            return ()
        held = set(self.regions).union(*(_countries(region) for region in self.regions))
        return tuple(r for r in regions if r not in held and not _countries(r) <= held)


def _countries(region: str) -> frozenset[str]:
    return UNIONS.get(region, frozenset({region}))


class Limits(Strict):
    """How hard the harness may drive the model."""

    concurrency: int = Field(default=8, ge=1, le=256)
    per_minute: int = Field(default=6000, ge=1)
    #: Seconds on the wire before an attempt counts as timed out.
    timeout_s: float = Field(default=60.0, gt=0, le=900)
    attempts: int = Field(default=3, ge=1, le=10)


#: What adapters speak; each is a module of :mod:`tasks.providers`.
Protocol = Literal[
    "raw",
    "openai",
    "gemini",
    "imagen",
    "stability",
    "automatic1111",
    "comfyui",
    "replicate",
    "fal",
    "bfl",
    "bedrock",
    "replay",
]
_LATER_MODEL_FIELDS = ("id", "options", "asset_hosts")


class Model(Strict):
    """One trusted model."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
    protocol: Protocol
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
    #: The provider's own name for it, as requests carry it; ``version`` when it is not given.
    id: str | None = Field(default=None, min_length=1, max_length=300)
    #: What the adapter of the protocol wants to know, see there: a region, a graph, a sampler.
    options: dict[str, JsonValue] = Field(default_factory=dict)
    #: Hosts that finished pictures may be fetched from; ``.example.com`` is any host below it.
    #: Empty for those that the adapter knows.
    asset_hosts: tuple[Annotated[str, Field(pattern=r"^\.?[a-z0-9.-]+\.[a-z]{2,}$")], ...] = ()

    @field_validator("endpoint")
    @classmethod
    def _folder_for_a_replay(cls, value: str, info: ValidationInfo) -> str:
        protocol = info.data.get("protocol")
        if value.startswith(FOLDER) != (protocol == "replay"):
            raise ValueError(
                f"an endpoint {FOLDER}folder goes with protocol 'replay', and a replay with no "
                f"other, got it with {protocol!r}"
            )
        return value

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old plans and mixes keep their digests."""
        return _shown(handler(self), _LATER_MODEL_FIELDS)

    @property
    def model_id(self) -> str:
        """The provider's own name for the model."""
        return self.id or self.version

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of the entry that can change a picture, for the digest of a mix."""
        said = {"version": self.version, "protocol": self.protocol, "endpoint": self.endpoint}
        if self.protocol == "replay":
            # The version pins every picture; where they lie on this machine changes none.
            del said["endpoint"]
        later: dict[str, Any] = {"id": self.id, "options": dict(self.options)}
        return said | _shown(later, _LATER_MODEL_FIELDS)


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
