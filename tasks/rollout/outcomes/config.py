"""Where live outcomes come from: the section ``outcomes`` of the rollout file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tasks.policy import Strict
from tasks.rollout.outcomes.rows import RowRules

#: A metric, and matchers in which a brace may stand inside quotes only.
_SELECTOR: Final = re.compile(
    r"[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{(?:[^{}\"\\]|\"(?:[^\"\\\n]|\\.)*\")*\})?\Z"
)
Measure = Literal["images", "latency", "cost"]


class SourceConfig(Strict):
    """What all sources have."""

    #: What notes call it; the kind by default.
    name: str = Field(default="", max_length=60)
    #: Products that it knows; all by default.
    products: tuple[str, ...] = ()

    def concerns(self, product: str) -> bool:
        """Tell whether the source knows a product."""
        return not self.products or product in self.products


class LogsConfig(SourceConfig):
    """Request logs in files."""

    kind: Literal["logs"]
    #: Pattern of JSONL (also ``.gz``) and Parquet files, e.g. ``/var/log/images/*.jsonl*``.
    files: Path
    #: Seconds after which no row comes late any more.
    lag_s: float = Field(default=30, ge=0, le=86_400)
    #: Seconds by which a row may stand after a later one in its file.
    disorder_s: float = Field(default=900, ge=0, le=86_400)
    #: What is counted here. ``[latency]`` alone suits timings sent by clients: no ending needed.
    measures: tuple[Measure, ...] = Field(default=("images", "latency", "cost"), min_length=1)
    rows: RowRules = RowRules()


class HaproxyConfig(SourceConfig):
    """Counters of the HAProxy that the section ``router`` names."""

    kind: Literal["haproxy"]
    #: What an answer of status 4xx is: an image that failed, one that did not, or none at all.
    #: A candidate that refuses what it should draw answers so as well.
    client_errors: Literal["failure", "ok", "left_out"] = "failure"
    #: What a request is whose client left before an answer came.
    client_aborts: Literal["failure", "ok", "left_out"] = "left_out"


def _selector(text: str) -> str:
    if not _SELECTOR.match(text):
        raise ValueError(
            "write a metric with matchers and nothing else, e.g. "
            'image_requests_total{product="$product"}'
        )
    return text


def _server(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("write an http(s) address without a user and password")
    return text


Selector = Annotated[str, Field(max_length=1_000), AfterValidator(_selector)]
ServerUrl = Annotated[str, Field(max_length=1_000), AfterValidator(_server)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
LabelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]


class PrometheusConfig(SourceConfig):
    """Counters in Prometheus. In every selector ``$product`` stands for the product's name."""

    kind: Literal["prometheus"]
    url: ServerUrl
    #: Environment variable with a bearer token.
    token_env: VariableName | None = None
    #: Sent as ``X-Scope-OrgID`` to a server of many tenants.
    tenant: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,150}$")
    #: The label that names the mix: its digest, or the first 12 or more hex digits of it.
    mix_label: LabelName = "mix_digest"
    #: Counter of requests that ended, and of those that failed.
    images: Selector | None = None
    failures: Selector | None = None
    #: Histogram of seconds, without ``_bucket``; one of its buckets must end at ``slow_above_s``.
    latency: Selector | None = None
    slow_above_s: float | None = Field(default=None, gt=0, le=86_400)
    #: Counter of what images cost.
    cost: Selector | None = None
    cost_unit: Literal["usd", "microusd"] = "microusd"
    #: Counter of requests whose labels name subtask and locale.
    inputs: Selector | None = None
    subtask_label: LabelName = "subtask"
    locale_label: LabelName = "locale"
    #: Seconds after which no sample comes late any more.
    lag_s: float = Field(default=15, ge=0, le=86_400)
    timeout_s: float = Field(default=10, gt=0, le=120)

    @model_validator(mode="after")
    def _whole(self) -> PrometheusConfig:
        for one, other in (("images", "failures"), ("latency", "slow_above_s")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} go together")
        if self.images is None and self.latency is None and self.cost is None:
            raise ValueError("name at least one of images, latency and cost")
        if self.cost is not None and self.images is None:
            raise ValueError("cost goes with images")
        return self


def _reading(text: str) -> str:
    if not re.match(r"\s*(select|with)\b", text, re.IGNORECASE):
        raise ValueError("write one query that reads: SELECT …, or WITH … SELECT")
    plain = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "''", text)
    if ";" in plain.strip().rstrip(";"):
        raise ValueError("only one statement is allowed")
    return text


Query = Annotated[str, Field(max_length=20_000), AfterValidator(_reading)]


class SqlConfig(SourceConfig):
    """Rows or counts from a database; see :mod:`tasks.rollout.outcomes.sql`."""

    kind: Literal["sql"]
    #: Environment variable with the database's address, of an account that may only read.
    url_env: VariableName
    #: With the parameters ``:since`` (included), ``:until`` (excluded) and ``:product``.
    query: Query
    #: ``rows``: one row a request, with a log's fields. ``counts``: one row a mix, with
    #: ``mix_digest`` and any of images, failures, slow, timed, cost_microusd, costed, tickets.
    shape: Literal["rows", "counts"] = "counts"
    rows: RowRules = RowRules()
    #: Columns ``subtask``, ``locale`` and ``images``.
    inputs_query: Query | None = None
    #: One moment up to which rows are complete, e.g. how far a replica is.
    complete_query: Query | None = None
    #: What the parameters are: a moment with its zone, one in UTC without, text, or a number.
    time_as: Literal["timestamp", "naive", "iso", "epoch", "epoch_ms"] = "timestamp"
    #: Seconds after which no row comes late any more.
    lag_s: float = Field(default=30, ge=0, le=86_400)
    timeout_s: float = Field(default=10, gt=0, le=120)

    @model_validator(mode="after")
    def _windowed(self) -> SqlConfig:
        for name in ("query", "inputs_query"):
            text = getattr(self, name)
            if text is not None and not (":since" in text and ":until" in text):
                raise ValueError(f"{name} needs the parameters :since and :until")
        return self


class TicketsConfig(SourceConfig):
    """Support tickets; see :mod:`tasks.rollout.outcomes.tickets`."""

    #: Only tickets with one of these tags; ``$product`` stands for the product's name.
    only_tags: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ("spam",)
    #: A tag that names the mix begins so and goes on with 12 or more hex digits of its digest.
    mix_tag_prefix: str = Field(default="mix_", min_length=1, max_length=60)
    #: Name of a source of kind ``logs`` that knows the mix of the request which a ticket names.
    requests: str | None = None
    #: Seconds that the request may lie before its ticket.
    request_lookback_s: float = Field(default=86_400, gt=0, le=30 * 86_400)
    #: Seconds between two questions to the help desk, however often there is a look.
    every_s: float = Field(default=300, ge=0, le=86_400)
    #: A ticket that names no mix: not counted, or counted where only one mix is looked at.
    unattributed: Literal["left_out", "only_mix"] = "left_out"


class TicketsCsvConfig(TicketsConfig):
    """Tickets in exported CSV files."""

    kind: Literal["tickets_csv"]
    #: Pattern of the files.
    files: Path
    id_column: str = "id"
    time_column: str = "created_at"
    tags_column: str = "tags"
    mix_column: str | None = None
    request_column: str | None = None


class TicketsApiConfig(TicketsConfig):
    """Tickets from Zendesk's incremental export, or an API that answers as it does."""

    kind: Literal["tickets_api"]
    url: ServerUrl
    #: Environment variable with the token; with ``user`` it is Zendesk's API token, else a bearer.
    token_env: VariableName
    user: str | None = Field(default=None, pattern=r"^[^\s:/]+@[^\s:/]+$")
    #: Ids of custom fields.
    mix_field: str | None = Field(default=None, pattern=r"^[0-9]{1,20}$")
    request_field: str | None = Field(default=None, pattern=r"^[0-9]{1,20}$")
    timeout_s: float = Field(default=20, gt=0, le=120)


class ShadowConfig(SourceConfig):
    """A sample of delivered pictures through the checks: :mod:`tasks.rollout.outcomes.shadow`."""

    kind: Literal["shadow"]
    #: Name of the source of kind ``logs`` whose rows name pictures, prompts and sizes.
    requests: str = "logs"
    #: Share of the requests that may be judged, and what the draw begins with.
    share: float = Field(default=0.05, gt=0, le=1)
    seed: int = 0
    #: Budget of one look, and of 24 hours.
    images: int = Field(default=20, ge=1, le=10_000)
    images_per_day: int = Field(default=2_000, ge=1, le=1_000_000)
    seconds: float = Field(default=30, gt=0, le=3_600)
    workers: int = Field(default=1, ge=1, le=64)
    #: Folder of the pictures that rows name by path.
    folder: Path | None = None
    #: Hosts of those that they name by address, https; one with a dot in front means all below it.
    hosts: tuple[str, ...] = ()
    #: Address of a server of ours with pictures, which may be private.
    base_url: ServerUrl | None = None
    #: Checks that do not count here.
    without: tuple[str, ...] = ()


SourceSection = Annotated[
    LogsConfig
    | HaproxyConfig
    | PrometheusConfig
    | SqlConfig
    | TicketsCsvConfig
    | TicketsApiConfig
    | ShadowConfig,
    Field(discriminator="kind"),
]
