"""``imagegate models``: the library of trusted models, and what its providers say of it today."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.markup import escape

from flows.models_table import Library, remark_lines
from tasks.errors import ConfigError, ImagegateError, known
from tasks.mix.catalog import EMBEDDED, Catalog, Model, load_catalog
from tasks.mix.library import compared, listed
from tasks.mix.selection import find_file
from tasks.settings import Settings
from tasks.state import State

if TYPE_CHECKING:
    import httpx

    from tasks.providers.base import ServedModel

#: Seconds for one provider to say what it serves.
ASK_TIMEOUT_S = 20.0
#: Seconds to find out whether a server of this machine runs.
_CONNECT_S = 2.0


def list_models(settings: Settings, catalog: str, product: str) -> dict[str, Any]:
    """Return every entry of the catalog with what is missing in it and what ages.

    Raises:
        ConfigError: The catalog cannot be read.
    """
    path = find_file(catalog)
    read = load_catalog(path)
    frozen_until, uses = _production(settings, product)
    rows = listed(
        read,
        today=datetime.now(UTC).date(),
        frozen_until=frozen_until,
        has_key=lambda name: settings.key(name) is not None,
        uses=uses,
    )
    return {
        "catalog": str(path),
        "product": product,
        "frozen_until": None if frozen_until is None else str(frozen_until),
        "models": rows,
    }


def _production(settings: Settings, product: str) -> tuple[date | None, dict[str, tuple[str, ...]]]:
    """Return the last day of the freeze that holds, and which subtasks each model serves."""
    from tasks.mix.freeze import active_freezes
    from tasks.mix.production import kept_mix, read_production

    state = State(settings.state_url.get_secret_value())
    try:
        pointer = read_production(state, product)
        if pointer is None:
            return None, {}
        held = active_freezes(state, product, datetime.now(UTC))
        mix = kept_mix(state, pointer.mix_digest).mix
    finally:
        state.close()
    uses: dict[str, list[str]] = {}
    for subtask, route in mix.routes.items():
        for name in sorted({stage.model for way in route for stage in way.stages}):
            uses.setdefault(name, []).append(subtask)
    ends = [date.fromisoformat(freeze.until_at[:10]) for freeze in held]
    return max(ends, default=None), {name: tuple(tasks) for name, tasks in uses.items()}


def verify_models(settings: Settings, catalog: str, names: Collection[str]) -> dict[str, Any]:
    """Ask the providers whether they serve what the catalog says.

    Args:
        settings: Holds the keys.
        catalog: The catalog's file.
        names: Which entries; all that are not embedded when empty.

    Returns:
        ``ok`` is false when a provider contradicts the catalog, does not answer, or cannot be
        asked for want of a key. A server of this machine that does not run is told, and is no
        failure unless it was asked for by name.

    Raises:
        ConfigError: The catalog cannot be read, or has no entry of such a name.
    """
    path = find_file(catalog)
    read = load_catalog(path)
    if strange := sorted(set(names) - set(read.by_name)):
        raise ConfigError(f"no model {strange[0]!r} in {path} {known(read.by_name)}")
    asked = _asked(read, names)
    answers = asyncio.run(_ask(asked, settings))
    today = datetime.now(UTC).date()
    rows = [_answer(model, answers[model.name], today, named=bool(names)) for model in asked]
    return {
        "catalog": str(path),
        "ok": all(row["ok"] for row in rows),
        "left_out": [m.name for m in read.models if m not in asked and not names],
        "models": rows,
    }


def _asked(catalog: Catalog, names: Collection[str]) -> list[Model]:
    """Return the entries to ask about; the embedded server runs only while a gate does."""
    if names:
        return [model for model in catalog.models if model.name in names]
    return [model for model in catalog.models if model.endpoint != EMBEDDED]


async def _ask(
    models: Collection[Model], settings: Settings
) -> dict[str, ServedModel | str | None]:
    """Return by name what is served, ``None`` for what is not, or why nobody could tell."""
    groups: dict[tuple[str, str, str | None], list[Model]] = {}
    for model in models:
        groups.setdefault((model.protocol, model.endpoint, model.key_env), []).append(model)
    import httpx

    async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S, follow_redirects=False) as client:
        answers = await asyncio.gather(*(_ask_one(client, g, settings) for g in groups.values()))
    return {name: told for answer in answers for name, told in answer.items()}


async def _ask_one(
    client: httpx.AsyncClient, group: list[Model], settings: Settings
) -> Mapping[str, ServedModel | str | None]:
    first = group[0]
    if first.endpoint == EMBEDDED:
        return dict.fromkeys((m.name for m in group), "served by a run's own server; run a gate")
    key = None if first.key_env is None else settings.key(first.key_env)
    if first.key_env is not None and key is None:
        return dict.fromkeys((m.name for m in group), f"not asked: {first.key_env} is not set")
    if not await _runs(first.endpoint):
        text = _NotRunning(f"not running at {first.endpoint}")
        return dict.fromkeys((m.name for m in group), text)
    try:
        from tasks.providers.registry import provider_for

        provider = provider_for(first, first.endpoint, key)
        served = await provider.served(client, group)
    except ImagegateError as error:
        return dict.fromkeys((m.name for m in group), str(error))
    return {model.name: served.get(model.name) for model in group}


class _NotRunning(str):
    """Why nobody could tell: a server of one's own that does not run now."""


async def _runs(endpoint: str) -> bool:
    """Tell whether something listens; of addresses beyond this machine it is not asked."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or parts.hostname is None:
        return True
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _answer(
    model: Model, told: ServedModel | str | None, today: date, *, named: bool
) -> dict[str, Any]:
    if isinstance(told, str):
        idle = isinstance(told, _NotRunning) and not named
        remark = _row("mind" if idle else "stop", told)
        return {
            "name": model.name,
            "ok": idle,
            "asked": False,
            "served": None,
            "remarks": [remark],
        }
    found = compared(model, told, today=today)
    return {
        "name": model.name,
        "ok": all(remark.weight != "stop" for remark in found),
        "asked": True,
        "served": None if told is None else told.version,
        "remarks": [_row(remark.weight, remark.text) for remark in found],
    }


def _row(weight: str, text: str) -> dict[str, str]:
    return {"weight": weight, "text": text}


def render_models(found: dict[str, Any]) -> RenderableType:
    """Return the library as a table by provider, remarks below it."""
    told = list(remark_lines(found["models"]))
    return Group(Library(found["models"]), *([""] if told else []), *told, _ended(found))


def _ended(found: dict[str, Any]) -> str:
    models = found["models"]
    unusable = sum(not row["usable"] for row in models)
    minded = sum(bool(row["remarks"]) for row in models)
    text = f"{len(models)} models; {unusable} that no run may use, {minded} with remarks"
    if found["frozen_until"]:
        text += f"; {escape(found['product'])} is frozen until {found['frozen_until']}"
    return f"\n{text}  [dim]{escape(Path(found['catalog']).name)}[/]"


def render_verified(found: dict[str, Any]) -> RenderableType:
    """Return what the providers answered; what is said of several models stands in one line."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in found["models"]:
        mark = "[red]✗[/]" if not row["ok"] else "[green]✓[/]" if row["asked"] else "[dim]·[/]"
        text = "; ".join(remark["text"] for remark in row["remarks"]) or "as the catalog says"
        told.setdefault((mark, text), []).append(row["name"])
    lines = [
        f"{mark} {escape(', '.join(names))}: {escape(text)}" for (mark, text), names in told.items()
    ]
    if not lines:
        lines.append("no model of the catalog lies at a provider: nobody was asked")
    if found["left_out"]:
        lines.append(f"[dim]{len(found['left_out'])} embedded models left out[/]")
    return "\n".join(lines)
