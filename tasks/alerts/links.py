"""Where a message leads: the report, the run in Prefect's UI, and the command to roll back."""

from __future__ import annotations

import shlex
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.summary import IF_YOU_MUST
from tasks.alerts.text import clean
from tasks.settings import Settings, prefect_api_url, without_login
from tasks.tables import runs

_CLOUD_API = "https://api.prefect.cloud/api"
_CLOUD_UI = "https://app.prefect.cloud"


def word(text: str) -> str:
    """Return a name as one word of a command line."""
    return shlex.quote(clean(text))


def report_address(settings: Settings, run_id: str) -> str:
    """Return where people open the report of a run: a web address when one is set, else a path."""
    if settings.report_base_url:
        return f"{settings.report_base_url.rstrip('/')}/runs/{quote(run_id, safe='')}/report.html"
    return str(settings.runs / run_id / "report.html")


def prefect_run(flow_run_id: str | None, api_url: str | None) -> str | None:
    """Return the page of a flow run in Prefect's UI; ``None`` when its server ends with the run."""
    if not flow_run_id or not api_url:
        return None
    base = without_login(api_url).rstrip("/")
    if base.startswith(_CLOUD_API):
        ui = base.replace(_CLOUD_API, _CLOUD_UI)
        ui = ui.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
    else:
        ui = base.removesuffix("/api")
    return f"{ui}/runs/flow-run/{quote(flow_run_id, safe='')}"


def run_links(
    connection: Connection,
    settings: Settings,
    run_id: str,
    *,
    report: bool = True,
    rollback: bool = False,
) -> tuple[tuple[str, str], ...]:
    """Return the links of a run's message.

    Args:
        connection: An open transaction.
        settings: Where reports are served.
        run_id: The run.
        report: It has a report; where none is served, the command that says where it lies.
        rollback: Show the command that puts its baseline back.
    """
    row = connection.execute(
        sa.select(runs.c.flow_run_id, runs.c.product, runs.c.baseline_digest).where(
            runs.c.run_id == run_id
        )
    ).first()
    page = None if row is None else prefect_run(row.flow_run_id, prefect_api_url())
    links = [("Report", _report(settings, run_id))] if report else []
    links += [("Run in Prefect", page)] if page else []
    if rollback and row is not None:
        links.append((IF_YOU_MUST, rollback_command(row.product, row.baseline_digest)))
    return tuple(links)


def _report(settings: Settings, run_id: str) -> str:
    """Return the page of a report, or the command: a path of a server helps nobody elsewhere."""
    if settings.report_base_url:
        return report_address(settings, run_id)
    return f"imagegate report {word(run_id)}"


def rollback_command(product: str, digest: str) -> str:
    """Return the command that puts a mix back; safe to repeat, since it names the mix."""
    short = digest.removeprefix("sha256:")[:12]
    to = f" --to {short}" if short else ""
    return f"imagegate rollback --product {word(product)}{to}"
