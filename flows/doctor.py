"""``imagegate doctor``: what this machine has, what it lacks and what follows from it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Any

from tasks.errors import ImagegateError
from tasks.settings import DEPLOYMENTS, Settings

PACKAGES = (
    "imagegate",
    "prefect",
    "great-expectations",
    "pandas",
    "httpx",
    "pillow",
    "rapidocr",
    "onnxruntime",
    "pyanime4k",
    "slack-sdk",
    "sqlalchemy",
)
#: Free disk below this is a problem: a run of 240 cases keeps about 150 MB.
LEAST_FREE_BYTES = 500 * 1024 * 1024

#: What stands before the further lines of a finding.
_INDENT = "\n" + " " * 24

#: One text a script, to ask which scripts can be set here.
SAMPLES = {
    "Latin": "Café",
    "Cyrillic": "Чай",
    "Greek": "Καφές",
    "Chinese": "咖啡",
    "Japanese": "コーヒー",
    "Korean": "커피",
    "Arabic": "قهوة",
    "Hebrew": "קפה",
    "Devanagari": "चाय",
    "Thai": "กาแฟ",
}


def examine(settings: Settings) -> dict[str, Any]:
    """Return every finding; ``ok`` is false when a gate could not run here."""
    findings = [
        _look("python", _python),
        _look("packages", _packages),
        _look("disk", lambda: _disk(settings)),
        _look("state database", lambda: _state(settings)),
        _look("router", lambda: _router(settings)),
        _look("catalog and mixes", lambda: _deployments(settings)),
        _look("image server", _fonts),
        _readers(),
        _look("slack", lambda: _slack(settings)),
        _look("prefect", _prefect),
    ]
    return {"ok": all(f["ok"] for f in findings), "findings": findings}


def render_examination(found: dict[str, Any]) -> str:
    """Return the findings in lines."""
    return "\n".join(
        f"{'ok ' if f['ok'] else 'BAD'}  {f['name']:<18} " + f["detail"].replace("\n", _INDENT)
        for f in found["findings"]
    )


def _look(name: str, what: Callable[[], tuple[bool, str]]) -> dict[str, Any]:
    """Run one examination; one that breaks is a finding too."""
    try:
        ok, detail = what()
    except ImagegateError as error:
        ok, detail = False, str(error)
    except Exception as error:  # noqa: BLE001 - the doctor reports what breaks, whatever it is
        ok, detail = False, f"{type(error).__name__}: {error}"
    return {"name": name, "ok": ok, "detail": detail}


def _python() -> tuple[bool, str]:
    return True, f"{platform.python_version()}, {os.cpu_count()} cores, {platform.system()}"


def _packages() -> tuple[bool, str]:
    shown, missing = [], []
    for name in PACKAGES:
        try:
            shown.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return False, f"missing: {', '.join(missing)}; run `make gate`, it installs them"
    return True, ", ".join(shown)


def _disk(settings: Settings) -> tuple[bool, str]:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return free >= LEAST_FREE_BYTES, f"{free / 1e9:.1f} GB free at {settings.home}"


def _state(settings: Settings) -> tuple[bool, str]:
    from tasks.alerts.outbox import pending
    from tasks.mix.production import products
    from tasks.state import State

    state = State(settings.state_url.get_secret_value())
    try:
        names, waiting = products(state), pending(state)
    finally:
        state.close()
    return True, f"{state.shown}: {len(names)} products, {len(waiting)} messages wait"


def _router(settings: Settings) -> tuple[bool, str]:
    from tasks.rollout.config import load_rollout, open_router

    kind = load_rollout(settings).router.kind
    open_router(settings).probe()
    return True, f"{kind}: production could be changed now"


def _deployments(_settings: Settings) -> tuple[bool, str]:
    from tasks.mix.catalog import load_catalog
    from tasks.mix.manifest import load_mix
    from tasks.policy import load_policy

    catalog = load_catalog(DEPLOYMENTS / "catalog.yaml")
    mixes = [load_mix(path, catalog) for path in sorted((DEPLOYMENTS / "mixes").glob("*.yaml"))]
    for path in sorted((DEPLOYMENTS / "policies").glob("*.yaml")):
        load_policy(path)
    return True, f"{len(catalog.models)} models, {len(mixes)} mixes"


def _fonts() -> tuple[bool, str]:
    from tasks.providers.embedded.fonts import covered

    can = [name for name, text in SAMPLES.items() if covered(text)]
    lacks = [name for name in SAMPLES if name not in can]
    return bool(can), f"sets {', '.join(can)}" + (
        f"; no font for {', '.join(lacks)}" if lacks else ""
    )


def _readers() -> dict[str, Any]:
    """Return who reads which locale, as words and for programs."""
    from tasks.checks.readers import coverage_words, covered_locales

    locales: list[dict[str, Any]] = []

    def asked() -> tuple[bool, str]:
        found = covered_locales()
        locales.extend(asdict(one) for one in found)
        return any(one.reader is not None for one in found), coverage_words(found)

    return _look("text reader", asked) | {"locales": locales}


def _slack(settings: Settings) -> tuple[bool, str]:
    from tasks.alerts.chain import ways_of
    from tasks.alerts.config import load_or_default

    ways, broken = ways_of(settings)
    config, problem = load_or_default(settings.alerts_file)
    trouble = [*broken.values(), *([problem] if problem else [])]
    if "slack" in (names := [way.name for way in ways]):
        channel = config.default.channel or settings.slack_channel
        if not channel:
            trouble.append("SLACK_BOT_TOKEN is set, IMAGEGATE_SLACK_CHANNEL is not")
        names[0] = f"slack in {channel}"
    if trouble:
        return False, "; ".join(trouble)
    if not names:
        return True, "no SLACK_BOT_TOKEN: messages are shown here and kept in the outbox"
    return True, f"messages go by {', then '.join(names)}; try `imagegate alerts test`"


def _prefect() -> tuple[bool, str]:
    from tasks.settings import prefect_api_url

    url = prefect_api_url()
    return True, f"runs are shown at {url}" if url else "each run starts a server of its own"
