"""What people do between gates: freeze, thaw, look, roll back, read, ask the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_io import DEFAULT_PRODUCT, Json, Owner, Product, emit, err, say, whoami
from tasks.errors import ConfigError
from tasks.settings import load_settings

#: Most drawings of `imagegate doctor --checks`.
MOST_DRAWINGS = 100_000
#: Flags of `imagegate doctor` that mean nothing without --checks.
_WITH_CHECKS = {
    "curve": "--curve", "pictures": "--pictures", "seed": "--seed", "only": "--check",
    "policy": "--policy",
}  # fmt: skip


def freeze(
    reason: Annotated[str, typer.Option(help="Why production must not change.")],
    days: Annotated[float, typer.Option(help="For how long.")] = 14.0,
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Lock production: until the end date only a rollback may change it."""
    from flows import operate

    frozen = operate.freeze(load_settings(), product, owner or whoami(), reason, days)
    if as_json:
        emit(frozen)
    else:
        say(
            f"{product} is frozen until {frozen['until_at']} by {frozen['owner']}: "
            f"{frozen['reason']}\nLift it with: imagegate thaw --product {product}"
        )


def thaw(product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False) -> None:
    """Lift the freeze of production."""
    from flows import operate

    lifted = operate.thaw(load_settings(), product, owner or whoami())
    if as_json:
        emit({"product": product, "thawed": lifted})
    else:
        say(f"{product} is no longer frozen" if lifted else f"{product} was not frozen")


def status(product: Product = DEFAULT_PRODUCT, as_json: Json = False) -> None:
    """Show what serves production, whether it is frozen, and the last run."""
    from flows import operate

    shown = operate.status(load_settings(), product)
    if as_json:
        emit(shown)
    else:
        say(operate.render_status(shown))


def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")] = "asked by a person",
    to: Annotated[
        str | None, typer.Option(help="Digest (or its beginning) of a mix that served before.")
    ] = None,
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Put production back on the mix before, or on an earlier one; verified by the router.

    Ends a canary first: while one is on, production serves everything again and goes no further
    back. Given again within ten minutes it verifies the rollback once more; name the mix with --to
    to go further back then. With the state database down it goes by the last good mixes that this
    machine verified, and says so.
    """
    from flows import operate

    done = operate.rollback(load_settings(), product, to, owner or whoami(), reason)
    if done["warning"]:
        err.print(f"warning: {done['warning']}", markup=False, soft_wrap=True)
    if as_json:
        emit(done)
    else:
        say(
            f"{product} serves {done['mix_name']} ({done['mix_digest'][:19]}…)"
            f"{'' if done['changed'] else ' already, nothing had to change'}, "
            f"verified at the router in {done['seconds']:.2f} s"
        )


def history(
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs.")] = 20,
    as_json: Json = False,
) -> None:
    """List the runs and their verdicts, newest first."""
    from flows import operate

    rows = operate.history(load_settings(), product, limit)
    if as_json:
        emit({"runs": rows})
    else:
        say(operate.render_history(rows))


def report(
    run_id: Annotated[str | None, typer.Argument(help="The run; default: the newest.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Say where the report of a run lies, or open it."""
    from flows import operate

    path = operate.report_path(load_settings(), run_id)
    if as_json:
        emit({"report": str(path)})
    else:
        say(str(path))
    if open_it:
        typer.launch(path.as_uri())


def doctor(
    context: typer.Context,
    checks: Annotated[
        bool,
        typer.Option(
            "--checks",
            help="Plant every kind of defect in good pictures and say what each check finds.",
        ),
    ] = False,
    curve: Annotated[
        bool, typer.Option(help="With --checks: weaker and stronger defects too; takes minutes.")
    ] = False,
    pictures: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|FOLDER|MANIFEST",
            help="With --checks: how many drawings of the embedded server; or a folder of good"
            " pictures of your own, or a manifest (CSV, JSONL) whose column `truth`,"
            " `legible_match` or `expected` says which are good.",
        ),
    ] = "30",
    seed: Annotated[
        int, typer.Option(min=0, help="With --checks: which drawings, and which defects.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--check", help="With --checks: only this one; may be given again."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --checks: also the models and plug-ins of this policy, by what they plant"
            " and know themselves.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine: versions, fonts, readers, database, router, keys.

    Exits with 4 when a gate could not run here or a check breaks, and with 3 when a check is
    blind, or where the policy holds for one of which nothing is known: nothing is broken then, but
    every gate that uses the check would end in HOLD.
    """
    if checks:
        _doctor_checks(pictures, seed, only, policy, curve=curve, as_json=as_json)
        return
    for name, flag in _WITH_CHECKS.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise ConfigError(f"{flag} goes with --checks, which is missing")
    from flows.doctor import examine, render_examination

    found = examine(load_settings())
    if as_json:
        emit(found)
    else:
        say(render_examination(found))
    if not found["ok"]:
        raise typer.Exit(4)


def _there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # A name that the system does not take.
        return False


def _count(pictures: str) -> int | None:
    """Return how many drawings are asked for, ``None`` where pictures are named.

    Raises:
        ConfigError: It is neither, or too many.
    """
    if not pictures.isdecimal():
        if pictures.strip() and _there(pictures):
            return None
        raise ConfigError(
            f"--pictures {pictures!r}: neither a number of drawings nor a folder or manifest that"
            " is there"
        )
    count = int(pictures[:9])
    if not 1 <= count <= MOST_DRAWINGS:
        raise ConfigError(f"--pictures {pictures}: from 1 to {MOST_DRAWINGS:,} drawings")
    return count


def _doctor_checks(
    pictures: str,
    seed: int,
    only: list[str] | None,
    policy: Path | None,
    *,
    curve: bool,
    as_json: bool,
) -> None:
    from flows.check_health import examine_checks, examine_pictures, render_checks

    own = None
    if policy is not None:
        from tasks.check_rules import Extras
        from tasks.policy import load_policy

        own = Extras(load_policy(policy).checks, load_settings().plugins)
    count = _count(pictures)
    with err.status("measuring the checks") as line:

        def told(done: int) -> None:
            line.update(f"measuring the checks: {done} of {count or 'the'} pictures")

        if count is not None:
            found = examine_checks(
                pictures=count, curve=curve, seed=seed, checks=only, extras=own, on_unit=told
            )
        else:
            found = examine_pictures(
                Path(pictures), curve=curve, seed=seed, checks=only, extras=own, on_unit=told
            )
    if count is None and not found["labelled"] and not Path(pictures).is_dir():
        err.print(
            f"warning: {pictures}: no column truth, legible_match or expected says which pictures"
            " are good; all are taken to be", markup=False, soft_wrap=True,
        )  # fmt: skip
    if as_json:
        emit(found)
    else:
        say(render_checks(found))
    if found["broken"]:
        raise typer.Exit(4)
    if found["blind"] or found["held"]:
        raise typer.Exit(3)
