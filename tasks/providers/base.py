"""What an adapter of a provider protocol must do; one adapter a file beside this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from pydantic import SecretStr

from tasks.mix.catalog import Model
from tasks.records import Attempt, Operation


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


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One attempt and the picture it brought, if any."""

    attempt: Attempt
    image: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the provider says it serves under a name."""

    name: str
    version: str
    safety: str | None = None
    price_usd: float | None = None
    retires: str | None = None


class Provider(Protocol):
    """An adapter: stateless but for address and key; never raises for what a provider does."""

    async def submit(self, client: httpx.AsyncClient, request: GenerationRequest) -> AttemptResult:
        """Send one request and return what came of it, failures classified."""
        ...

    async def served(self, client: httpx.AsyncClient) -> dict[str, ServedModel]:
        """Return the models that the provider serves now, by name.

        Raises:
            GateError: The provider does not answer.
        """
        ...


class ProviderFactory(Protocol):
    """How the harness gets an adapter for a catalog model."""

    def __call__(self, model: Model, base_url: str, key: SecretStr | None) -> Provider:
        """Return the adapter."""
        ...
