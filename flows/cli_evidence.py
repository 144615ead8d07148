"""``imagegate evidence``: runs in the shared store, listed, pushed, and pulled to this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tasks.errors import ConfigError, EvidenceError, known
from tasks.settings import Settings, load_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

evidence = typer.Typer(
    help="Runs in the shared evidence store (IMAGEGATE_EVIDENCE_URL).",
    no_args_is_help=True,
    epilog="A gate pushes its evidence by itself. `push` is for what could not be pushed while the "
    "store was down.",
)


@evidence.command("list")
def list_(as_json: Json = False) -> None:
    """List the runs in the store and on this machine, and whether they are whole."""
    from tasks.evidence.sharing import is_sealed, remote_runs

    settings = load_settings()
    remote = _remote(settings)
    there = {run: is_sealed(remote, run) for run in remote_runs(remote)}
    here = _local(settings)
    rows = [
        {"run_id": run, "shared": there.get(run, False), "here": run in here}
        for run in sorted({*there, *here})
    ]
    words = {True: "shared", False: "not shared"}
    lines = [
        f"{row['run_id']}  {words[bool(row['shared'])]}{', here' if row['here'] else ''}"
        for row in rows
    ]
    _show({"store": remote.url, "runs": rows}, "\n".join(lines) or "no runs yet", as_json)


@evidence.command()
def push(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs; default: all that the store lacks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Push sealed runs with their pictures; exit 4 when one could not be pushed."""
    from tasks.evidence.sharing import is_pushed, push_run
    from tasks.images import ImageStore
    from tasks.plan import RunFolder

    settings = load_settings()
    remote = _remote(settings)
    here = _local(settings)
    for run in runs or ():
        if run not in here:
            raise ConfigError(
                f"run {run!r} has no sealed evidence in {settings.runs} {known(here)}"
            )
    images = ImageStore(settings.images, remote)
    pushed: list[str] = []
    failed: dict[str, str] = {}
    for run in runs or here:
        folder = RunFolder(settings.runs / run)
        try:
            if not is_pushed(remote, folder):
                push_run(remote, folder, images)
                pushed.append(run)
        except EvidenceError as error:
            failed[run] = str(error)
    lines = [f"pushed: {run}" for run in pushed]
    lines += [f"not pushed: {run}: {why}" for run, why in failed.items()]
    text = "\n".join(lines) or f"{remote.url} has every run of this machine"
    _show({"pushed": pushed, "failed": failed}, text, as_json)
    if failed:
        raise typer.Exit(4)


@evidence.command()
def pull(
    run: Annotated[str, typer.Argument(help="The run.")],
    pictures: Annotated[bool, typer.Option(help="The pictures as well.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a run, compared with its seal; its folder is then as on the machine that ran it."""
    import json

    from tasks.evidence.bundle import MANIFEST
    from tasks.evidence.sharing import pull_run
    from tasks.images import ImageStore
    from tasks.plan import RunFolder

    settings = load_settings()
    remote = _remote(settings)
    folder = RunFolder(settings.runs / run)
    shared = pull_run(remote, folder)
    count = 0
    if pictures:
        images = ImageStore(settings.images, remote)
        for digest in json.loads((folder.path / MANIFEST).read_text(encoding="utf-8"))["images"]:
            images.get(str(digest))
            count += 1
    _show(
        {"run_id": run, "folder": str(folder.path), "files": shared.files, "images": count},
        f"{folder.path}: {shared.files} files, {count} pictures, as they were sealed",
        as_json,
    )


def _remote(settings: Settings) -> Any:
    from tasks.evidence.remote import open_remote

    remote = open_remote(settings)
    if remote is None:
        raise ConfigError(
            "no shared evidence: set IMAGEGATE_EVIDENCE_URL to an address like s3://bucket/prefix"
        )
    return remote


def _local(settings: Settings) -> list[str]:
    """Return the sealed runs of this machine, oldest first."""
    return sorted(path.parent.name for path in settings.runs.glob("*/manifest.json"))


def _show(value: dict[str, Any], text: str, as_json: bool) -> None:
    from flows.cli_io import emit, say

    if as_json:
        emit(value)
    else:
        say(text)
