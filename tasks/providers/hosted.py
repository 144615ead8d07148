"""Models that aggregators host: what each one takes is its own, so the catalog entry says it.

The ``options`` of an entry are an :class:`Inputs`. What it does not name is not sent: such models
ignore in silence what they do not know, and a mistyped name would look like a setting.
"""

from __future__ import annotations

import base64
import math
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from tasks.errors import ConfigError, known
from tasks.mix.catalog import Model
from tasks.policy import Strict, parse_strict
from tasks.providers.answers import NO_FACTS, Answer, Asset, Facts, Meaning
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest
from tasks.providers.cost import PIXELS_A_MEGAPIXEL
from tasks.providers.meanings import empty, picture, picture_base64
from tasks.providers.params import OURS
from tasks.providers.sniff import picture_size, sniff_mime
from tasks.records import PinStrength

_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
_Aspect = Annotated[str, Field(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$")]
#: Seeds of hosted models are commonly signed 32-bit numbers.
MOST_SEED = 2**31 - 1
#: Keys under which hosted models give their pictures.
_PLACES = ("images", "image", "output", "url", "sample")


class Inputs(Strict):
    """How a hosted model wants to be asked; names are those of its own inputs."""

    #: Inputs sent as they stand, such as a guidance scale. A stage may change these and no other.
    inputs: dict[_Name, JsonValue] = Field(default_factory=dict)
    prompt: _Name | None = "prompt"
    seed: _Name | None = "seed"
    #: ``width_height``: two numbers. ``image_size``: an object of the two. ``aspect_ratio``: the
    #: nearest of ``aspects``. ``none``: the model decides.
    size: Literal["width_height", "image_size", "aspect_ratio", "none"] = "width_height"
    aspects: tuple[_Aspect, ...] = ("1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3")
    #: Input for the picture of an edit or an upscale; without it the adapter's usual one.
    image: _Name | None = None
    #: Whether that input is a list of pictures.
    image_list: bool = False
    mask: _Name | None = None
    #: Input for the factor of an upscale, ``None`` for a model with a factor of its own.
    scale: _Name | None = "scale"
    #: The factor of a model that cannot be told one; else the largest that it takes.
    most_scale: float = Field(default=4.0, gt=1, le=16)
    #: Whether an upscaler is told the prompt and a seed.
    upscale_by_prompt: bool = False
    #: Whether the megapixels of the picture that is sent are paid for like those that come back.
    bill_image: bool = False
    multiple_of: int = Field(default=8, ge=1, le=256)
    least_side: int = Field(default=64, ge=1, le=8192)
    most_side: int = Field(default=2048, ge=16, le=8192)
    most_pixels: int = Field(default=4 * 1024 * 1024, ge=256)

    @model_validator(mode="after")
    def _own_names(self) -> Inputs:
        taken = {self.prompt, self.seed, self.image, self.mask, self.scale} - {None}
        if twice := sorted(name for name in self.inputs if name in taken):
            raise ValueError(f"'inputs' sets {twice[0]!r}, which every request sets itself")
        return self


def inputs_of(model: Model) -> Inputs:
    """Return how a catalog entry wants to be asked.

    Raises:
        ConfigError: Its options are none; with each field, what was found and what is allowed.
    """
    return parse_strict(Inputs, dict(model.options), f"model {model.name!r}, options")


def capabilities(model: Model, pin: PinStrength) -> Capabilities:
    """Return what can be asked of a hosted model.

    Raises:
        ConfigError: Its options are none.
    """
    how = inputs_of(model)
    pairs = [tuple(map(int, aspect.split(":"))) for aspect in how.aspects]
    return Capabilities(
        operations=model.operations,
        aspects=tuple((a[0], a[1]) for a in pairs) if how.size == "aspect_ratio" else (),
        multiple_of=how.multiple_of,
        least_side=how.least_side,
        most_side=how.most_side,
        most_pixels=how.most_pixels,
        seed=how.seed is not None,
        mask=how.mask is not None,
        pin=pin,
    )


def asked_size(request: GenerationRequest, can: Capabilities) -> tuple[int, int]:
    """Return the size of the picture that comes of a request."""
    if request.operation != "upscale":
        return can.size_for(request.width, request.height)
    wide, high = picture_size(request.image or b"") or (request.width, request.height)
    factor = upscale_factor(request, inputs_of(request.model))
    return round(wide * factor), round(high * factor)


def upscale_factor(request: GenerationRequest, how: Inputs) -> float:
    """Return by how much an upscale enlarges its picture, at most by what the model can."""
    source = picture_size(request.image or b"")
    if how.scale is None or source is None:
        return how.most_scale
    wanted = max(request.width / source[0], request.height / source[1])
    return min(how.most_scale, max(1.0, round(wanted, 3)))


def fields(request: GenerationRequest, usual_image: str, can: Capabilities) -> dict[str, Any]:
    """Return the inputs of a request by the model's own names.

    Args:
        request: What is asked.
        usual_image: Name of the picture's input where the catalog names none.
        can: The model's capabilities.

    Raises:
        CannotAsk: The model cannot do this, or a stage sets what the catalog does not name.
    """
    try:
        how = inputs_of(request.model)
    except ConfigError as error:
        raise CannotAsk(str(error)) from None
    if request.operation not in request.model.operations:
        raise CannotAsk(
            f"model {request.model.name!r}: the catalog gives it no operation "
            f"{request.operation!r} {known(request.model.operations)}"
        )
    result = dict(how.inputs) | _params(request, how)
    by_prompt = request.operation != "upscale" or how.upscale_by_prompt
    if by_prompt and how.prompt is not None:
        result[how.prompt] = request.prompt
    if by_prompt and how.seed is not None:
        result[how.seed] = seed_for(request.seed)
    if request.operation == "upscale":
        result |= _upscale(request, how)
    else:
        result |= _size(request, how, can)
    if request.operation != "generate":
        result |= _pictures(request, how, usual_image)
    return result


def seed_for(seed: int) -> int:
    """Return the seed to ask for: the same where it fits into 31 bits."""
    return seed if 0 <= seed <= MOST_SEED else seed % (MOST_SEED + 1)


def seed_asked(request: GenerationRequest) -> int | None:
    """Return the seed that a request asked for, ``None`` when it asked for none."""
    how = inputs_of(request.model)
    if how.seed is None or (request.operation == "upscale" and not how.upscale_by_prompt):
        return None
    return seed_for(request.seed)


def megapixels(request: GenerationRequest, asked: tuple[int, int]) -> float | None:
    """Return the megapixels to pay for where the sent picture counts; ``None``: the result's own.

    Args:
        request: What is asked.
        asked: Pixels of the picture that comes.
    """
    sent = picture_size(request.image or b"") if request.operation != "generate" else None
    if sent is None or not inputs_of(request.model).bill_image:
        return None
    # Each picture by itself is rounded up to whole megapixels.
    return float(sum(math.ceil(w * h / PIXELS_A_MEGAPIXEL - 1e-9) for w, h in (asked, sent)))


def data_uri(image: bytes | None) -> str:
    """Return a picture as a ``data:`` address."""
    data = image or b""
    mime = sniff_mime(data) or "application/octet-stream"
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def place_of(output: object) -> object:
    """Return where the picture of an output lies: the last of several, ``None`` without one."""
    for _ in range(4):
        if isinstance(output, list):
            output = output[-1] if output else None
        elif isinstance(output, dict):
            output = next((output[key] for key in _PLACES if key in output), None)
        else:
            break
    return output


def details_of(value: object) -> tuple[frozenset[str], str]:
    """Return types and words of FastAPI's error ``{"detail": [{"loc", "msg", "type"}]}``."""
    detail = value.get("detail") if isinstance(value, dict) else None
    if isinstance(detail, str):
        return frozenset(), detail
    entries = [e for e in detail if isinstance(e, dict)] if isinstance(detail, list) else []
    types = frozenset(e["type"] for e in entries if isinstance(e.get("type"), str))
    words = []
    for entry in entries[:5]:
        place = entry.get("loc")
        where = ".".join(map(str, place)) if isinstance(place, list) and place else ""
        words.append(f"{where}: {entry.get('msg')}" if where else str(entry.get("msg")))
    return types, "; ".join(words)


def picture_at(
    answer: Answer,
    request: GenerationRequest,
    place: object,
    facts: Facts = NO_FACTS,
    *,
    declared: str | None = None,
) -> Meaning:
    """Return the meaning of an answer whose picture lies at an address or in a ``data:`` one."""
    if not isinstance(place, str) or not place.strip():
        return empty(answer, request, "the answer names no picture", facts)
    if place.startswith("data:"):
        return picture_base64(answer, request, place, facts, declared=declared)
    return picture(answer, request, Asset(place, declared_mime=declared), facts)


def _params(request: GenerationRequest, how: Inputs) -> dict[str, Any]:
    """Return what the stage sets."""
    given = {name: value for name, value in request.params.items() if name not in OURS}
    for name in given:
        if name not in how.inputs:
            raise CannotAsk(
                f"model {request.model.name!r}: params of the stage: {name!r} is not among "
                f"options.inputs of the catalog {known(how.inputs)}"
            )
    return given


def _size(request: GenerationRequest, how: Inputs, can: Capabilities) -> dict[str, Any]:
    width, height = can.size_for(request.width, request.height)
    if how.size == "aspect_ratio":
        return {"aspect_ratio": can.aspect_for(request.width, request.height)}
    if how.size == "image_size":
        return {"image_size": {"width": width, "height": height}}
    return {"width": width, "height": height} if how.size == "width_height" else {}


def _upscale(request: GenerationRequest, how: Inputs) -> dict[str, Any]:
    """Return the factor of an upscale.

    Raises:
        CannotAsk: The model cannot enlarge the picture so far.
    """
    factor = upscale_factor(request, how)
    wide, high = picture_size(request.image or b"") or (request.width, request.height)
    if wide * factor < request.width * 0.99 or high * factor < request.height * 0.99:
        raise CannotAsk(
            f"model {request.model.name!r}: enlarges at most {factor:g} times, which makes "
            f"{round(wide * factor)}x{round(high * factor)} of this picture; "
            f"{request.width}x{request.height} are wanted"
        )
    return {} if how.scale is None else {how.scale: factor}


def _pictures(request: GenerationRequest, how: Inputs, usual_image: str) -> dict[str, Any]:
    if request.image is None:
        raise CannotAsk(f"model {request.model.name!r}: {request.operation} without a picture")
    sent = data_uri(request.image)
    result: dict[str, Any] = {how.image or usual_image: [sent] if how.image_list else sent}
    if request.mask is not None and request.operation == "edit":
        if how.mask is None:
            raise CannotAsk(
                f"model {request.model.name!r}: takes no mask; name its input in options.mask"
            )
        result[how.mask] = data_uri(request.mask)
    return result
