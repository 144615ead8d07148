"""Models and requests for the tests of the adapters' base."""

from __future__ import annotations

from datetime import date
from typing import Any

from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.answers import Answer
from tasks.providers.base import GenerationRequest

WHEN = date(2026, 11, 1)


def a_price(**fields: Any) -> Price:
    """Return a price; of four cents an image unless told otherwise."""
    return Price(**({"usd": 0.04, "source": "test", "date": WHEN} | fields))


def a_model(**changes: Any) -> Model:
    """Return a catalog entry; ``timeout_s`` goes into its limits."""
    timeout_s = changes.pop("timeout_s", 5.0)
    fields: dict[str, Any] = {
        "name": "m",
        "protocol": "raw",
        "endpoint": "embedded",
        "version": "m-1",
        "pin": "dated",
        "operations": ("generate", "edit", "upscale"),
        "price": a_price(),
        "limits": Limits(timeout_s=timeout_s),
    }
    return Model(**(fields | changes))


def a_request(**changes: Any) -> GenerationRequest:
    """Return a request; what belongs to the model goes to the model."""
    model = {k: changes.pop(k) for k in ("price", "pin", "version", "timeout_s") if k in changes}
    fields: dict[str, Any] = {
        "model": a_model(**model),
        "operation": "generate",
        "prompt": "a sign",
        "width": 512,
        "height": 256,
        "seed": 7,
        "stage": 1,
        "attempt": 2,
        "idempotency_key": "ig-1",
        "queued_s": 0.5,
    }
    return GenerationRequest(**(fields | changes))


def an_answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Answer:
    """Return an answer; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body)
