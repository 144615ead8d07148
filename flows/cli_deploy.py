"""``imagegate serve``, ``imagegate deploy`` and ``imagegate schedules``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tasks.errors import ConfigError
from tasks.settings import load_settings, prefect_api_url


def serve(
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Of the Prefect server that is started here.")
    ] = 4200,
    host: Annotated[
        str, typer.Option(help="Its address; more than loopback lets others start gates.")
    ] = "127.0.0.1",
    limit: Annotated[int, typer.Option(min=1, max=64, help="Flow runs at one time.")] = 4,
) -> None:
    """Serve all deployments on this machine: schedules, the UI with its form, the watchdog.

    Without PREFECT_API_URL a Prefect server is started and stopped with it.
    """
    from flows.cli_io import err
    from flows.serve import ServeOptions
    from flows.serve import serve as run

    def say(text: str) -> None:
        err.print(text, markup=False, soft_wrap=True)

    run(load_settings(), ServeOptions(host=host, port=port, limit=limit), say)


def deploy(
    pool: Annotated[str, typer.Option(help="The work pool; made when it is missing.")],
    kind: Annotated[str, typer.Option("--type", help="process, docker or kubernetes.")] = "process",
    image: Annotated[
        str | None, typer.Option(help="Container image with imagegate installed.")
    ] = None,
    home: Annotated[
        str | None,
        typer.Option(
            help="IMAGEGATE_HOME of the runs; 'worker' leaves it to the worker's environment. "
            "Default: this machine's for processes, /var/lib/imagegate in containers.",
            metavar="PATH",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="More for the runs; no secrets.", metavar="NAME=VALUE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Register the deployments on a work pool of Prefect's server, for workers to run."""
    from deployments.pools import POOL_TYPES
    from flows.cli_io import emit, say
    from flows.deploying import deploy_to_pool

    if kind not in POOL_TYPES:
        raise ConfigError(f"--type: unknown type {kind!r} (known: {', '.join(POOL_TYPES)})")
    if not pool.strip() or "/" in pool or "%" in pool:
        raise ConfigError(f"--pool: a name without '/' and '%' is needed, got {pool!r}")
    if prefect_api_url() is None:
        raise ConfigError(
            "imagegate deploy needs a Prefect server that stays: set PREFECT_API_URL, or use "
            "`imagegate serve` to have everything on this machine"
        )
    done = deploy_to_pool(
        load_settings(), pool=pool, kind=kind, image=image, home=home, extra=_variables(env or [])
    )
    if as_json:
        emit(done)
        return
    say(f"work pool {pool} ({kind}): {done['pool']}")
    for one in done["deployments"]:
        say(f"  {one['name']:<28} {one['change']}")
    for gone in done["unscheduled"]:
        say(f"  {gone:<28} is not in the file any more: its schedule was removed")
    for remark in done["remarks"]:
        say(f"! {remark}")
    say(done["worker"])


def _variables(pairs: list[str]) -> dict[str, str]:
    """Return ``NAME=VALUE`` pairs as a mapping."""
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise ConfigError("--env: NAME=VALUE is needed, e.g. --env TZ=Europe/Berlin")
        found[name] = value
    return found


def schedules(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the schedules: next and last run, and what was missed."""
    from flows.cli_io import emit, say
    from flows.schedule_list import list_schedules, render_schedules

    shown: dict[str, Any] = list_schedules(load_settings())
    if as_json:
        emit(shown)
    else:
        say(render_schedules(shown))
