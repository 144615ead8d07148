"""Catalogs and mixes for tests, drawn from a few words."""

from __future__ import annotations

from datetime import date
from typing import Any

from tasks.mix.catalog import Catalog, Licence, Model, Price
from tasks.mix.manifest import Mix, ResolvedMix, resolve_mix

PRODUCT = "shop"


def model(name: str = "folio-1", **more: Any) -> Model:
    fields: dict[str, Any] = {
        "name": name,
        "protocol": "raw",
        "endpoint": "embedded",
        "version": f"{name}-2026-01-01",
        "pin": "dated",
        "operations": ("generate", "edit"),
        "licence": Licence(id="Apache-2.0", uses=("commercial", "internal")),
        "price": Price(usd=0.02, source="price list", date=date(2026, 1, 1)),
    }
    return Model(**(fields | more))


def manifest(name: str, model_name: str, **more: Any) -> dict[str, Any]:
    def route(operation: str) -> list[dict[str, Any]]:
        return [{"stages": [{"model": model_name, "operation": operation}]}]

    routes = {s: route("generate") for s in ("typography", "creative", "fast", "upscale")}
    return {"name": name, "product": PRODUCT, "routes": routes | {"edit": route("edit")}} | more


def mix(name: str = "winter", model_name: str = "folio-1", **more: Any) -> ResolvedMix:
    """Return a mix of one model; another ``model_name`` is another digest."""
    return resolve_mix(
        Mix.model_validate(manifest(name, model_name, **more)),
        Catalog(models=(model(model_name),)),
        "test",
    )
