"""``imagegate models``: the library of trusted models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_io import DEFAULT_PRODUCT, Json, Product, emit
from tasks.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

models = typer.Typer(
    help="The library of trusted models: version, price, licence, end, and what is missing.",
    epilog="Examples:  imagegate models  ·  imagegate models verify gemini-3-pro-image",
)

CatalogFile = Annotated[str, typer.Option("--catalog", help="The library.", metavar="FILE")]
DEFAULT_CATALOG = "deployments/catalog.yaml"


@models.callback(invoke_without_command=True)
def listed(
    context: typer.Context,
    catalog: CatalogFile = DEFAULT_CATALOG,
    product: Product = DEFAULT_PRODUCT,
    as_json: Json = False,
) -> None:
    """List the models with what is missing or ageing; asks nobody."""
    if context.invoked_subcommand is not None:
        return
    from flows.models_show import list_models, render_models

    _show(list_models(load_settings(), catalog, product), render_models, as_json=as_json)


@models.command(epilog="Example:  imagegate models verify sd3.5-large-turbo")
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Which; all by default.")] = None,
    catalog: CatalogFile = DEFAULT_CATALOG,
    as_json: Json = False,
) -> None:
    """Ask the providers whether they serve what the catalog says; generates and costs nothing.

    Exits with 2 when one contradicts the catalog or could not be asked; a server of this machine
    that does not run is only told, unless it is named.
    """
    from flows.models_show import render_verified, verify_models

    found = verify_models(load_settings(), catalog, names or ())
    _show(found, render_verified, as_json=as_json)
    if not found["ok"]:
        raise typer.Exit(2)


def _show(found: dict[str, Any], render: Any, *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    from rich.console import Console

    shown: RenderableType = render(found)
    Console(highlight=False).print(shown)
