"""The ``raw`` protocol: a prompt goes in, the bytes of one picture come out.

``POST /generate`` takes JSON; ``POST /edit`` and ``POST /upscale`` take a multipart form with the
picture in ``image``, an edit also the part that may change, white, in ``mask``. The embedded image
server and self-hosted servers speak it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from tasks.errors import GateError
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Facts, Meaning, clean
from tasks.providers.base import GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter, Message, file_part, form_fields
from tasks.providers.meanings import departure, drift, http_error, picture, refusal
from tasks.providers.usage import seed_of


class RawProvider(HttpAdapter):
    """Adapter of the ``raw`` protocol."""

    def message(self, request: GenerationRequest) -> Message:
        """Return the request: JSON, or a form when a picture goes with it."""
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "size": f"{request.width}x{request.height}",
            "model": request.model.name,
            "seed": request.seed,
            "brand": request.brand,
            "locale": request.locale,
            "safety": request.safety,
            "params": request.params,
        }
        path = f"/{request.operation}"
        headers = {
            "Idempotency-Key": request.idempotency_key,
            "X-Retry-Count": str(request.attempt - 1),
        }
        accept = "image/*, application/json"
        if request.operation == "generate":
            return Message("POST", path, json=fields, headers=headers, accept=accept)
        form, files = form_fields(fields), [file_part("image", request.image)]
        if request.mask is not None and request.operation == "edit":
            files.append(file_part("mask", request.mask))
        return Message("POST", path, form=form, files=files, headers=headers, accept=accept)

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means: the body is the picture, the headers tell about it."""
        return read(answer, request)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return the models that the server says it serves, by name.

        Raises:
            GateError: The server does not answer, or its answer is not a list of models.
        """
        where = f"{self.base_url}/models"
        value = await self.ask(client, "/models")
        entries = value.get("models") if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise GateError(f"{where}: expected JSON with a list 'models', got something else")
        return {model.name: model for model in (_served(entry, where) for entry in entries)}


def read(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an answer of the protocol means; see :meth:`RawProvider.read`."""
    said = answer.headers
    facts = Facts(
        model_reported=said.get("x-model-version"),
        seed_used=seed_of(said.get("x-seed")),
        finish_reason=said.get("x-finish-reason"),
        cost_usd=said.get("x-cost-usd"),
    )
    if not 200 <= answer.status < 300:
        return http_error(answer, request, facts)
    if answer.broken is None:
        if facts.seed_used is None and "x-seed" in said:
            wrong = f"seed {request.seed} was asked for, {said['x-seed']!r} was used"
            return drift(answer, request, departure(request, facts) or wrong, facts)
        filtered = (facts.finish_reason or "").strip().upper() == "CONTENT_FILTERED"
        if filtered and not departure(request, facts):
            why = "the provider filtered the picture (CONTENT_FILTERED)"
            return refusal(answer, request, why, facts)
    return picture(answer, request, answer.body, facts, is_body=True)


def _served(entry: object, where: str) -> ServedModel:
    """Return one entry of the list of served models.

    Raises:
        GateError: The entry has no name or no version.
    """
    if not isinstance(entry, dict):
        raise GateError(f"{where}: expected an object for each model, got {type(entry).__name__}")
    name, version = entry.get("name"), entry.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise GateError(f"{where}: a served model needs a name and a version, got {entry!r:.120}")
    price, safety, retires = entry.get("price_usd"), entry.get("safety"), entry.get("retires")
    return ServedModel(
        name=clean(name, 100),
        version=clean(version, 200),
        safety=clean(safety, 40) if isinstance(safety, str) else None,
        price_usd=float(price)
        if isinstance(price, int | float) and not isinstance(price, bool) and 0 <= price < 1e6
        else None,
        retires=clean(retires, 40) if isinstance(retires, str) else None,
    )


ADAPTER = RawProvider
