"""A mix: which models serve each subtask, and the digest that names exactly that."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tasks.errors import ConfigError, known
from tasks.mix.catalog import Catalog, Model, Region
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.records import SUBTASKS, Operation, Subtask, digest_json

#: The most that one upscaling stage may enlarge.
MOST_SCALE = 16


#: What a prompt template may hold; anything else in braces stays as it is.
TOKENS = ("prompt", "brand", "palette", "locale")
_TOKEN = re.compile("|".join(f"\\{{{name}\\}}" for name in TOKENS))


class Call(Strict):
    """One model and how it is asked."""

    model: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    #: ``{prompt}`` stands for the case's prompt, ``{brand}`` and ``{palette}`` for its brand kit's
    #: name and colours, ``{locale}`` for its locale; nothing else is replaced.
    prompt_template: str = "{prompt}"
    safety: Literal["on", "off"] = "on"

    @model_validator(mode="after")
    def _has_prompt(self) -> Call:
        if "{prompt}" not in self.prompt_template:
            raise ValueError("prompt_template must contain {prompt}")
        return self

    def prompt(self, text: str, **tokens: str) -> str:
        """Return the prompt that goes to the model.

        One pass over the template: what ``text`` or another value holds in braces is never
        replaced in its turn, so a prompt cannot fetch what the template did not ask for.

        Args:
            text: The case's prompt.
            tokens: Values of the other tokens; a token without a value is left out.
        """
        values = tokens | {"prompt": text}
        return _TOKEN.sub(lambda found: values.get(found[0][1:-1], ""), self.prompt_template)


class Stage(Call):
    """One step of a route; the picture of a stage is the input of the next."""

    operation: Operation = "generate"
    #: Asked in this order when the model does not deliver after its attempts: transport,
    #: throttling, server faults, empty or malformed answers. Never after a refusal, a bad request
    #: or another version than pinned: those are answers, and a fallback would hide them.
    fallbacks: tuple[Call, ...] = Field(default=(), max_length=4)
    #: Of an upscale that was not delivered or is not true to its source: ``fail`` ends the case,
    #: ``source`` serves the picture before it instead.
    on_failure: Literal["fail", "source"] = "fail"

    @model_validator(mode="after")
    def _fits_its_operation(self) -> Stage:
        if self.operation == "upscale":
            for call in (self, *self.fallbacks):
                _checked_scale(call.params)
                if _scale(call.params) != _scale(self.params):
                    raise ValueError(
                        f"fallback {call.model!r} enlarges {_scale(call.params):g} times, its "
                        f"stage {_scale(self.params):g} times; params.scale must be the same"
                    )
        elif self.on_failure != "fail":
            raise ValueError(
                f"on_failure: source is for an upscale, got operation {self.operation!r}"
            )
        names = [self.model, *(call.model for call in self.fallbacks)]
        if len(set(names)) < len(names):
            raise ValueError(f"a model falls back to itself: {', '.join(names)}")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old mixes keep their digests."""
        dumped: dict[str, Any] = handler(self)
        for name, unset in (("fallbacks", ([], ())), ("on_failure", ("fail",))):
            if dumped.get(name) in unset:
                dumped.pop(name)
        return dumped

    @property
    def scale(self) -> float:
        """By how much the stage enlarges its picture: 1 unless it upscales, then 2 by default."""
        return _scale(self.params) if self.operation == "upscale" else 1.0

    @property
    def calls(self) -> tuple[Call, ...]:
        """The model and those it falls back to, in the order in which they are asked."""
        return (self, *self.fallbacks)


def _scale(params: dict[str, JsonValue]) -> float:
    return float(str(params.get("scale", 2)))


def _checked_scale(params: dict[str, JsonValue]) -> None:
    """Pass when an upscale can use these parameters.

    Raises:
        ValueError: The scale is no number or out of range.
    """
    value = params.get("scale", 2)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1 <= float(str(value)) <= MOST_SCALE:
        raise ValueError(
            f"params.scale of an upscale must be a number from 1 to {MOST_SCALE}, got {value!r}"
        )


class Alternative(Strict):
    """One way to serve a subtask, with its share of the traffic."""

    weight: float = Field(default=1.0, gt=0, le=1)
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=8)
    #: ``scale``: a picture that is larger than asked for is reduced to the size of the case, for
    #: models that draw only certain sizes. ``as_drawn``: it is served as it comes.
    fit: Literal["as_drawn", "scale"] = "as_drawn"

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old plans keep their digests."""
        dumped: dict[str, Any] = handler(self)
        if self.fit == "as_drawn":
            dumped.pop("fit", None)
        return dumped


Route = Annotated[tuple[Alternative, ...], Field(min_length=1)]


class Mix(Strict):
    """The manifest of a mix as people write it."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}$")]
    product: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    #: What the pictures are used for; every model's licence must allow it.
    use: Literal["commercial", "internal", "research"] = "commercial"
    #: Where they are used, as ISO 3166 codes, ``EU`` or ``EEA``; empty: not said. A model whose
    #: licence holds only in some regions needs it.
    regions: tuple[Region, ...] = ()
    routes: dict[Subtask, Route]

    @model_validator(mode="after")
    def _weights(self) -> Mix:
        for subtask in SUBTASKS:
            if subtask not in self.routes:
                raise ValueError(
                    f"routes lacks subtask {subtask!r} (needed: {', '.join(SUBTASKS)})"
                )
            total = math.fsum(a.weight for a in self.routes[subtask])
            if abs(total - 1.0) > 1e-9:
                raise ValueError(f"weights of {subtask!r} sum to {total:g}, they must sum to 1")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: old plans keep their digests."""
        dumped: dict[str, Any] = handler(self)
        if not dumped.get("regions"):
            dumped.pop("regions", None)
        return dumped

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of all models in the mix, sorted, each once."""
        stages = (s for route in self.routes.values() for a in route for s in a.stages)
        return tuple(sorted({call.model for stage in stages for call in stage.calls}))


class ResolvedMix(Strict):
    """A mix with the catalog entries it uses: what a run freezes and evidence keeps."""

    mix: Mix
    models: tuple[Model, ...]

    @property
    def by_name(self) -> dict[str, Model]:
        """Catalog entries by name."""
        return {model.name: model for model in self.models}

    @property
    def digest(self) -> str:
        """Digest over everything that can change an image, and over nothing else.

        Price, licence, rate limits and the mix's own name do not change a picture.
        """
        return digest_json(
            {
                "routes": {
                    subtask: [
                        self._alternative(alternative) for alternative in self.mix.routes[subtask]
                    ]
                    for subtask in SUBTASKS
                }
            }
        )

    def _alternative(self, alternative: Alternative) -> dict[str, Any]:
        said: dict[str, Any] = {
            "weight": alternative.weight,
            "stages": [self._stage(stage) for stage in alternative.stages],
        }
        return said if alternative.fit == "as_drawn" else said | {"fit": alternative.fit}

    def _stage(self, stage: Stage) -> dict[str, Any]:
        models = self.by_name
        said = stage.model_dump(mode="json") | models[stage.model].identity
        if stage.fallbacks:
            said["fallbacks"] = [
                call.model_dump(mode="json") | models[call.model].identity
                for call in stage.fallbacks
            ]
        return said

    def alternative(self, subtask: Subtask, case_digest: str) -> Alternative:
        """Return the alternative that serves a case: by traffic weight, the same at every call."""
        point = int.from_bytes(hashlib.sha256(case_digest.encode()).digest()[:8]) / 2**64
        reached = 0.0
        for alternative in self.mix.routes[subtask]:
            reached += alternative.weight
            if point < reached:
                return alternative
        return self.mix.routes[subtask][-1]


def resolve_mix(mix: Mix, catalog: Catalog, source: Path | str) -> ResolvedMix:
    """Return the mix with its catalog entries.

    Raises:
        ConfigError: A stage names a model or an operation that the catalog does not have, or a
            route does not start from what its subtask has (a prompt or an upload).
    """
    models = catalog.by_name
    for subtask, route in mix.routes.items():
        for alternative in route:
            for position, stage in enumerate(alternative.stages, start=1):
                where = f"{source}: stage {position} of {subtask!r}"
                for call in stage.calls:
                    _require(models, call.model, stage.operation, where)
                first = "edit" if subtask == "edit" else "generate"
                if position == 1 and stage.operation != first:
                    raise ConfigError(
                        f"{where}: the first stage must be {first!r}, got {stage.operation!r}"
                    )
                if position > 1 and stage.operation == "generate":
                    raise ConfigError(
                        f"{where}: 'generate' would throw the picture of stage {position - 1} "
                        "away; later stages are 'edit' or 'upscale'"
                    )
    return ResolvedMix(mix=mix, models=tuple(models[name] for name in mix.model_names))


def _require(models: Mapping[str, Model], name: str, operation: Operation, where: str) -> None:
    """Pass when the catalog has the model and the model can do this.

    Raises:
        ConfigError: It has not, or it cannot.
    """
    if name not in models:
        raise ConfigError(
            f"{where} names model {name!r}, which is not in the catalog {known(models)}"
        )
    can = models[name].operations
    if operation not in can:
        raise ConfigError(f"{where}: model {name!r} cannot {operation!r} {known(can)}")


def load_mix(path: Path, catalog: Catalog) -> ResolvedMix:
    """Read a mix file and resolve it against the catalog.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if value is None:
        raise ConfigError(f"{path}: the mix is empty; it needs name, product and routes")
    return resolve_mix(parse_strict(Mix, value, path), catalog, path)
