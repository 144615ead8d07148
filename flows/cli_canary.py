"""``imagegate canary``: let a candidate walk into production, and say how far it is."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_io import DEFAULT_PRODUCT, Json, Owner, Product, emit, err, say, whoami
from tasks.settings import load_settings

if TYPE_CHECKING:
    from tasks.rollout.canary.store import Canary, Control

canary = typer.Typer(
    help="Let a candidate walk into production: 1 → 5 → 25 → 50 → 100 % of the traffic, each step "
    "decided by live outcomes, rolled back by itself when it is worse.",
    epilog="Exit codes: 0 promoted or done · 1 rolled back or aborted · 2 bad input · 3 under way "
    "· 4 broke.  Examples:  imagegate canary start --run RUN  ·  imagegate canary run",
    no_args_is_help=True,
)

Why = Annotated[str, typer.Option("--why", help="Why; people read it later.")]


@canary.command(
    epilog="Examples:  imagegate canary start --run RUN  ·  "
    "imagegate canary start --candidate mixes/new.yaml --walk"
)
def start(
    candidate: Annotated[
        str | None, typer.Option(help="File of the mix; by default the one of --run.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="The gate run that promoted it; by default the newest.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="File with a section `canary`; by default the run's own policy."),
    ] = None,
    catalog: Annotated[
        str, typer.Option(help="File with the trusted models.")
    ] = "deployments/catalog.yaml",
    without_gate: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Why it may meet users though no gate promoted it."),
    ] = None,
    walk: Annotated[bool, typer.Option("--walk", help="Drive it here, to its end.")] = False,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Book a canary of a candidate; its first share comes with the first look."""
    from flows import canary_deeds as deeds
    from flows.operate import opened

    settings = load_settings()
    wanted = deeds.Wanted(
        actor=owner or whoami(),
        candidate=candidate,
        run_id=run,
        policy=policy,
        catalog=catalog,
        without_gate=without_gate,
    )
    with opened(settings) as state:
        begun = deeds.start(state, settings, wanted)
        deeds.deliver(state, settings)
    if walk:
        _drive(begun.plan.product, as_json)
    elif as_json:
        emit(deeds.as_json(begun))
    else:
        say(deeds.render(begun))


@canary.command()
def status(product: Product = DEFAULT_PRODUCT, as_json: Json = False) -> None:
    """Show the newest canary of a product: its step, what was counted, what it waits for."""
    from flows import canary_deeds as deeds
    from flows.operate import opened
    from tasks.rollout.canary.store import newest_of

    with opened(load_settings()) as state:
        found = newest_of(state, product)
    if as_json:
        emit({"product": product, "canary": None if found is None else deeds.as_json(found)})
    elif found is None:
        say(f"{product} has had no canary yet; start one with `imagegate canary start`")
    else:
        say(deeds.render(found))


@canary.command()
def run(product: Product = DEFAULT_PRODUCT, as_json: Json = False) -> None:
    """Drive the canary of a product to its end; Ctrl-C leaves it as it is, for another to drive."""
    _drive(product, as_json)


@canary.command()
def pause(
    why: Why, product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False
) -> None:
    """Stay on the present step; the candidate is judged on, and rolled back if it is bad."""
    _ask("pause", why, product, owner, as_json)


@canary.command()
def resume(
    why: Why = "asked by a person",
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Go on after a pause."""
    _ask("resume", why, product, owner, as_json)


@canary.command()
def skip(
    why: Why, product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False
) -> None:
    """Pass the present step without its proof; not one that is proven to be bad."""
    _ask("skip", why, product, owner, as_json)


@canary.command()
def abort(
    why: Why, product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False
) -> None:
    """Take the candidate's share away at once, verified at the router."""
    _ask("abort", why, product, owner, as_json)


def _ask(control: Control, why: str, product: str, owner: str | None, as_json: bool) -> None:
    from flows import canary_deeds as deeds

    settings = load_settings()
    found, how = deeds.ask(settings, product, control, by=owner or whoami(), reason=why)
    if as_json:
        emit(deeds.as_json(found) | {"how": how})
    else:
        say(f"{control}: {how}\n{deeds.render(found)}")
    if control == "abort" and found.live:
        raise typer.Exit(deeds.UNDER_WAY)


def _drive(product: str, as_json: bool) -> None:
    from flows import canary_deeds as deeds

    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    said = [""]

    def show(seen: Canary) -> None:
        text = deeds.sentence(seen)
        if text != said[0]:
            err.print(text, markup=False)
            said[0] = text

    ended = deeds.drive(
        load_settings(),
        product,
        stop,
        on_look=show,
        on_error=lambda text: err.print(text, markup=False),
    )
    if as_json:
        emit(deeds.as_json(ended))
    else:
        say(deeds.render(ended))
    code = deeds.UNDER_WAY if ended.live else deeds.EXITS[ended.status]
    if code:
        raise typer.Exit(code)
