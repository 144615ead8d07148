"""Prefect task: ask the providers what they serve, before anything is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.mix.catalog import EMBEDDED, Model
from tasks.mix.selection import Selection
from tasks.providers.base import ServedModel
from tasks.providers.registry import provider_for
from tasks.telemetry import stage

#: Seconds for one provider to name its models.
ASK_TIMEOUT_S = 20.0


def base_url(model: Model, endpoints: Mapping[str, str]) -> str:
    """Return the address of a model's server."""
    return endpoints[EMBEDDED] if model.endpoint == EMBEDDED else model.endpoint


async def ask_providers(
    models: Mapping[str, Model], context: RunContext, endpoints: Mapping[str, str]
) -> dict[str, ServedModel]:
    """Return what the providers of these models serve, by name; each provider is asked once."""
    asked: dict[tuple[str, str, str | None], list[Model]] = {}
    for model in models.values():
        address = (model.protocol, base_url(model, endpoints), model.key_env)
        asked.setdefault(address, []).append(model)
    async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S, follow_redirects=False) as client:
        answers = await asyncio.gather(
            *(
                provider_for(
                    group[0], address, context.settings.key(key) if key is not None else None
                ).served(client, group)
                for (_, address, key), group in asked.items()
            )
        )
    return {name: served for answer in answers for name, served in answer.items()}


@task(name="ask_providers", task_run_name="ask_providers", cache_policy=NO_CACHE)
@stage
def served_versions(
    context: RunContext, selection: Selection, endpoints: Mapping[str, str]
) -> dict[str, ServedModel]:
    """Return what the providers of both mixes serve now.

    Raises:
        GateError: A provider does not answer.
    """
    models = selection.baseline.by_name | selection.candidate.by_name
    # A missing key is for the preflight to report, with its name; nobody is asked without it.
    askable = {
        name: m
        for name, m in models.items()
        if m.key_env is None or context.settings.key(m.key_env) is not None
    }
    return asyncio.run(ask_providers(askable, context, endpoints))
