"""A mix: which models serve each subtask, and the digest that names exactly that."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from tasks.errors import ConfigError, known
from tasks.mix.catalog import Catalog, Model
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.records import SUBTASKS, Operation, Subtask, digest_json

#: The most that one upscaling stage may enlarge.
MOST_SCALE = 16


class Stage(Strict):
    """One model call of a route; the picture of a stage is the input of the next."""

    model: str
    operation: Operation = "generate"
    params: dict[str, JsonValue] = Field(default_factory=dict)
    #: ``{prompt}`` stands for the case's prompt; nothing else is replaced.
    prompt_template: str = "{prompt}"
    safety: Literal["on", "off"] = "on"

    @model_validator(mode="after")
    def _has_prompt(self) -> Stage:
        if "{prompt}" not in self.prompt_template:
            raise ValueError("prompt_template must contain {prompt}")
        if self.operation == "upscale":
            value = self.params.get("scale", 2)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 1 <= float(str(value)) <= MOST_SCALE:
                raise ValueError(
                    f"params.scale of an upscale must be a number from 1 to {MOST_SCALE}, "
                    f"got {value!r}"
                )
        return self

    @property
    def scale(self) -> float:
        """By how much the stage enlarges its picture: 1 unless it upscales, then 2 by default."""
        return float(str(self.params.get("scale", 2))) if self.operation == "upscale" else 1.0

    def prompt(self, text: str) -> str:
        """Return the prompt that goes to the model; braces in ``text`` stay as they are."""
        return self.prompt_template.replace("{prompt}", text)


class Alternative(Strict):
    """One way to serve a subtask, with its share of the traffic."""

    weight: float = Field(default=1.0, gt=0, le=1)
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=8)


Route = Annotated[tuple[Alternative, ...], Field(min_length=1)]


class Mix(Strict):
    """The manifest of a mix as people write it."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}$")]
    product: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    #: What the pictures are used for; every model's licence must allow it.
    use: Literal["commercial", "internal", "research"] = "commercial"
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

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of all models in the mix, sorted, each once."""
        return tuple(sorted({s.model for r in self.routes.values() for a in r for s in a.stages}))


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
                        {"weight": a.weight, "stages": [self._stage(s) for s in a.stages]}
                        for a in self.mix.routes[subtask]
                    ]
                    for subtask in SUBTASKS
                }
            }
        )

    def _stage(self, stage: Stage) -> dict[str, Any]:
        model = self.by_name[stage.model]
        return stage.model_dump(mode="json") | model.identity

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
                if stage.model not in models:
                    raise ConfigError(
                        f"{where} names model {stage.model!r}, which is not in the catalog "
                        f"{known(models)}"
                    )
                can = models[stage.model].operations
                if stage.operation not in can:
                    raise ConfigError(
                        f"{where}: model {stage.model!r} cannot {stage.operation!r} {known(can)}"
                    )
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


def load_mix(path: Path, catalog: Catalog) -> ResolvedMix:
    """Read a mix file and resolve it against the catalog.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if value is None:
        raise ConfigError(f"{path}: the mix is empty; it needs name, product and routes")
    return resolve_mix(parse_strict(Mix, value, path), catalog, path)
