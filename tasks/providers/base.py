"""What an adapter of a provider protocol must do; one adapter a file beside this one.

The README beside this file says how to write one. The harness talks to adapters through
:func:`tasks.providers.drive.complete` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from pydantic import SecretStr

from tasks.mix.catalog import Model
from tasks.records import Attempt, Operation, PinStrength


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to one model, in the words of imagegate."""

    model: Model
    operation: Operation
    prompt: str
    width: int
    height: int
    seed: int
    #: Stage and attempt of the route, for the record that comes back.
    stage: int
    attempt: int
    #: The same for every send of this attempt, so that a provider can recognise a repetition.
    idempotency_key: str
    params: dict[str, Any] = field(default_factory=dict)
    safety: str = "on"
    brand: str | None = None
    locale: str = "und"
    #: The picture to edit or to upscale.
    image: bytes | None = field(default=None, repr=False)
    queued_s: float = 0.0
    #: The mask of an edit, white where the picture may change.
    mask: bytes | None = field(default=None, repr=False)


class CannotAsk(ValueError):  # noqa: N818 - read as a sentence where it is raised
    """The protocol has no words for this request; nothing was sent. A bad request, not billed."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One attempt and the picture it brought, if any."""

    attempt: Attempt
    image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """Work that the provider has accepted and not finished."""

    id: str
    #: Where to ask for it: an address that the provider gave, or a path of the base address.
    poll: str
    #: Where to cancel it, ``None`` where the protocol cannot.
    cancel: str | None = None
    #: Seconds to wait before the next look that the provider asked for.
    wait_s: float | None = None
    #: What else the adapter wants to remember; JSON values.
    data: Mapping[str, Any] = field(default_factory=dict)
    #: Set by :class:`tasks.providers.http.HttpAdapter`: when the submit began, as the record's
    #: time stamp and on the adapter's clock; and the looks in a row that brought no answer.
    started_at: str = ""
    began: float = 0.0
    misses: int = 0
    #: The provider's own number of the submitting request.
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter can ask of a model."""

    operations: tuple[Operation, ...]
    #: The sizes that can be asked for, in pixels; empty: any size within the bounds below.
    sizes: tuple[tuple[int, int], ...] = ()
    #: Aspect ratios that can be asked for, such as ``(16, 9)``; empty: the size is asked for.
    aspects: tuple[tuple[int, int], ...] = ()
    #: Both sides must be multiples of this.
    multiple_of: int = 1
    least_side: int = 16
    most_side: int = 8192
    most_pixels: int = 8192 * 8192
    #: Whether a seed can be asked for and is honoured.
    seed: bool = True
    #: Whether an edit takes a mask.
    mask: bool = False
    #: Most bytes of a picture that is sent.
    most_upload: int = 64 * 1024 * 1024
    #: Most characters of a prompt, ``None`` when the provider names none.
    most_prompt: int | None = None
    #: The strongest pin that the protocol can reach.
    pin: PinStrength = "dated"

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to ask for: of those that can be had, the one that fits best.

        The aspect ratio counts first, then that the picture is not smaller than asked, then that
        it is not larger than needed.
        """
        if self.sizes:
            return min(self.sizes, key=lambda size: _misfit(size, width, height))
        step = self.multiple_of
        sides = [max(self.least_side, min(self.most_side, side)) for side in (width, height)]
        # Up to the next step, so that scaling afterwards only ever shrinks.
        wide, high = (min(-(-s // step) * step, self.most_side // step * step) for s in sides)
        if wide * high > self.most_pixels:
            shrink = (self.most_pixels / (wide * high)) ** 0.5
            wide, high = (max(step, int(s * shrink) // step * step) for s in (wide, high))
        return wide, high

    def aspect_for(self, width: int, height: int) -> str:
        """Return the aspect ratio to ask for, as ``16:9``: the nearest that can be had.

        Raises:
            ValueError: The capabilities name none.
        """
        wide, high = min(self.aspects, key=lambda a: _skew(a, width, height))
        return f"{wide}:{high}"


def _skew(shape: tuple[int, int], width: int, height: int) -> float:
    """Return how far an aspect ratio is off, the same for too wide and too high; 1 is exact."""
    ratio = (shape[0] * height) / (shape[1] * width)
    return max(ratio, 1 / ratio)


def _misfit(size: tuple[int, int], width: int, height: int) -> tuple[float, bool, int]:
    area = size[0] * size[1]
    return round(_skew(size, width, height), 6), area < width * height, abs(area - width * height)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the provider says it serves under a name."""

    name: str
    #: ``None``: the provider serves the model and cannot tell which version.
    version: str | None
    safety: str | None = None
    price_usd: float | None = None
    retires: str | None = None
    #: False: the provider cannot be asked whether it serves the model.
    known: bool = True


class Provider(Protocol):
    """An adapter: stateless but for address and key; never raises for what a provider does."""

    async def submit(
        self, client: httpx.AsyncClient, request: GenerationRequest
    ) -> AttemptResult | Job:
        """Send one request and return what came of it, failures classified, or its job."""
        ...

    async def poll(
        self, client: httpx.AsyncClient, request: GenerationRequest, job: Job
    ) -> AttemptResult | Job:
        """Look at a job once; a look that brings no answer returns the job again."""
        ...

    async def cancel(self, client: httpx.AsyncClient, job: Job) -> None:
        """Ask the provider to give a job up, where the protocol can; never raises."""
        ...

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model."""
        ...

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that the request asks the provider for."""
        ...

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which models the provider serves now, by the catalog's name.

        Args:
            client: The HTTP client.
            models: The catalog entries to ask about; those that are missing from the answer are
                not served. Without any, this is the cheapest sign of life.

        Raises:
            GateError: The provider does not answer.
        """
        ...


class ProviderFactory(Protocol):
    """How the harness gets an adapter for a catalog model."""

    def __call__(self, model: Model, base_url: str, key: SecretStr | None) -> Provider:
        """Return the adapter."""
        ...


class Adapter:
    """What most adapters share: no jobs, and the size that the case asks for."""

    async def poll(
        self, client: httpx.AsyncClient, request: GenerationRequest, job: Job
    ) -> AttemptResult | Job:
        """Refuse: this adapter makes no jobs."""
        raise TypeError(f"{type(self).__name__} makes no jobs, so there is none to look at")

    async def cancel(self, client: httpx.AsyncClient, job: Job) -> None:
        """Do nothing: this protocol cannot cancel."""
        return

    def capabilities(self, model: Model) -> Capabilities:
        """Return that everything in the catalog entry can be asked for."""
        return Capabilities(operations=model.operations, pin=model.pin)

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that the request asks the provider for."""
        if request.operation == "upscale":
            return request.width, request.height
        return self.capabilities(request.model).size_for(request.width, request.height)
