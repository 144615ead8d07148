"""Spans of a gate, its stages, shards and provider requests, to an OpenTelemetry collector.

Switched on by the standard variables: with ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``) set, spans go there by OTLP over HTTP; without it the SDK is
not even imported and a span costs one look at a variable. Names of attributes follow
OpenTelemetry's semantic conventions for HTTP and generative AI where those have one. Prompts,
texts, keys, addresses beyond the host and messages of errors never become attributes.

A collector that is slow or dead delays a gate by :data:`FLUSH_S` at its end, and never breaks it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

from tasks.records import Attempt, usd
from tasks.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

    from tasks.mix.catalog import Model

P = ParamSpec("P")
R = TypeVar("R")
Value = str | int | float | bool
Kind = Literal["internal", "client"]

#: Most seconds that the end of a gate waits for the collector to take the last spans.
FLUSH_S = 3.0
_FLUSH_THREAD = "telemetry-flush"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Span:
    """A span that is open; without a collector, nothing."""

    __slots__ = ("_span",)

    def __init__(self, span: OtelSpan | None = None) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Value | None]) -> None:
        """Add attributes; a missing value is left out."""
        if self._span is not None:
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(name, _sound(value))

    def fail(self, kind: str) -> None:
        """Mark the span as failed.

        Args:
            kind: Class of the failure; never a message, which can hold what others wrote.
        """
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", kind)
            self._span.set_status(Status(StatusCode.ERROR, kind))

    def ended(self, attempt: Attempt) -> None:
        """Add how a provider request ended."""
        if self._span is None:
            return
        self.set(
            {
                "http.response.status_code": attempt.http_status,
                "http.response.body.size": attempt.body_bytes,
                "gen_ai.response.model": attempt.model_reported,
                "gen_ai.response.id": attempt.provider_request_id,
                "gen_ai.response.finish_reasons": attempt.finish_reason,
                "imagegate.failure_class": attempt.failure,
                "imagegate.billed": attempt.billed,
                "imagegate.cost_usd": usd(attempt.cost_microusd),
                "imagegate.queued_s": attempt.queued_s,
            }
        )
        if attempt.failure is not None:
            self.fail(attempt.failure)


_NOTHING = Span()


class _Nothing:
    """The context of a span without a collector: one object for all."""

    def __enter__(self) -> Span:
        return _NOTHING

    def __exit__(self, *_: object) -> None:
        return None


_NO_CONTEXT = _Nothing()


@dataclass
class _Active:
    """The tracer of this process while a gate is traced, and what became of its spans."""

    tracer: Tracer
    #: Sends what is left and stops; waits for the collector as long as the SDK likes.
    close: Callable[[], None]
    #: Gives the rest up.
    give_up: Callable[[], None]
    made: int = 0
    taken: int = 0
    users: int = 1
    lock: threading.Lock = field(default_factory=threading.Lock)


_active: _Active | None = None
_guard = threading.Lock()


def wanted(settings: Settings) -> bool:
    """Return whether the environment names a collector and does not switch tracing off."""

    def value(name: str) -> str:
        found = settings.key(name)
        return "" if found is None else found.get_secret_value().strip()

    if value("OTEL_SDK_DISABLED").lower() == "true" or value("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(value(name) for name in _ENDPOINTS)


@contextmanager
def tracing(
    name: str,
    settings: Settings,
    warn: Callable[[str], None],
    *,
    exporter: Callable[[], SpanExporter] | None = None,
    flush_s: float = FLUSH_S,
) -> Iterator[Span]:
    """Open the root span of a gate; spans of all its threads and coroutines lie below it.

    Args:
        name: Name of the root span.
        settings: Says whether there is a collector, see :func:`wanted`.
        warn: Told in a sentence when spans are lost; a gate never fails for that.
        exporter: Makes the exporter; OTLP over HTTP by default.
        flush_s: Most seconds to wait at the end.
    """
    if exporter is None and not wanted(settings):
        yield _NOTHING
        return
    active = _begin(exporter, settings, warn)
    if active is None:
        yield _NOTHING
        return
    try:
        with _remote_parent(settings), span(name) as root:
            yield root
    finally:
        _end(active, warn, flush_s)


def span(
    name: str, attributes: Mapping[str, Value | None] | None = None, kind: Kind = "internal"
) -> Any:
    """Return a context manager that opens a span below the current one and yields :class:`Span`."""
    if _active is None:
        return _NO_CONTEXT
    return _open(_active, name, attributes or {}, kind)


def note(attributes: Mapping[str, Value | None]) -> None:
    """Add attributes to the current span; nothing without a collector."""
    if _active is not None:
        from opentelemetry.trace import get_current_span

        Span(get_current_span()).set(attributes)


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a task function so that each call is a span; below ``@task``.

    The run's id and the arguments ``arm`` and ``shard`` become attributes.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        if _active is None:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        owner = next((v for v in given.values() if isinstance(_run_id(v), str)), None)
        about = {
            "imagegate.run_id": _run_id(owner),
            "imagegate.arm": given.get("arm"),
            # A shard is told by its number: its cases are many, and their ids come from outside.
            "imagegate.shard": getattr(given.get("shard"), "number", given.get("shard")),
        }
        with span(function.__name__, about):
            return function(*args, **kwargs)

    return traced


def request_span(
    model: Model,
    endpoints: Mapping[str, str],
    *,
    operation: str,
    arm: str,
    case_id: str,
    stage_number: int,
    attempt: int,
) -> Any:
    """Return the span of one provider request; call :meth:`Span.ended` with its attempt.

    Args:
        model: The model asked.
        endpoints: Base address by endpoint name; only the host becomes an attribute.
        operation: ``generate``, ``edit`` or ``upscale``.
        arm: Arm of the run.
        case_id: The case.
        stage_number: 0-based stage of the route.
        attempt: 1-based attempt of the stage.
    """
    if _active is None:
        return _NO_CONTEXT
    address = urlsplit(endpoints.get(model.endpoint, model.endpoint))
    about: dict[str, Value | None] = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.output.type": "image",
        "gen_ai.provider.name": model.protocol,
        "gen_ai.request.model": model.name,
        "http.request.method": "POST",
        "http.request.resend_count": attempt - 1 or None,
        "server.address": address.hostname,
        "server.port": address.port,
        "imagegate.operation": operation,
        "imagegate.arm": arm,
        "imagegate.case_id": case_id,
        "imagegate.stage": stage_number,
        "imagegate.attempt": attempt,
    }
    return _open(_active, f"generate_content {model.name}", about, "client")


@contextmanager
def _open(
    active: _Active, name: str, attributes: Mapping[str, Value | None], kind: Kind
) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind

    with active.tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT if kind == "client" else SpanKind.INTERNAL,
        # Messages and tracebacks can hold prompts and keys; the class says enough.
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        if opened.is_recording():  # A sampler drops some on purpose.
            with active.lock:
                active.made += 1
        shown = Span(opened)
        shown.set(attributes)
        try:
            yield shown
        except BaseException as error:
            shown.fail(type(error).__name__)
            raise


def _begin(
    exporter: Callable[[], SpanExporter] | None, settings: Settings, warn: Callable[[str], None]
) -> _Active | None:
    """Return the process's tracer, made now or by a gate beside this one."""
    global _active  # noqa: PLW0603 - one tracer a process, as in OpenTelemetry itself
    with _guard:
        if _active is not None:
            _active.users += 1
            return _active
        try:
            _active = _make(exporter)
        except ImportError:
            warn(
                "a collector is set, but OpenTelemetry's SDK is not installed; nothing is traced: "
                "pip install 'imagegate[otel]'"
            )
        except Exception as error:  # noqa: BLE001 - tracing must not break a gate
            # The text of these errors can hold an address with a password.
            warn(f"tracing cannot be started ({type(error).__name__}); mend the OTEL_ variables")
        return _active


def _make(exporter: Callable[[], SpanExporter] | None) -> _Active:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter
    # What goes wrong with a collector is told once at the end, not in a line a batch.
    quiet = logging.getLogger("opentelemetry")
    if not quiet.handlers:
        quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "imagegate"}))
    # A provider of our own: nothing of Prefect or of the application is traced by accident.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    counted = _counted(exporter())
    active = _Active(provider.get_tracer("imagegate"), provider.shutdown, counted.shutdown)
    counted.active = active
    provider.add_span_processor(BatchSpanProcessor(counted))
    return active


def _counted(inner: SpanExporter) -> Any:
    """Return the exporter, counting what the collector took."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    once = threading.Lock()

    class Counted(SpanExporter):
        active: _Active
        over = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = inner.export(spans)
            if result is SpanExportResult.SUCCESS:
                self.active.taken += len(spans)
            return result

        def shutdown(self) -> None:
            with once:  # The SDK complains about a second call, and calls it itself.
                if not self.over:
                    self.over = True
                    inner.shutdown()

    return Counted()


def _end(active: _Active, warn: Callable[[str], None], flush_s: float) -> None:
    """Send the last spans, with a bound; the last gate of the process closes the tracer."""
    global _active  # noqa: PLW0603 - see _begin
    with _guard:
        active.users -= 1
        if active.users:
            return
        _active = None
    # The SDK's own time-outs add up to half a minute. Given up, its threads end after the request
    # that is on its way, instead of trying on beside whatever this process does next.
    last = threading.Thread(target=active.close, name=_FLUSH_THREAD, daemon=True)
    last.start()
    last.join(flush_s)
    if last.is_alive():
        active.give_up()
    lost = active.made - active.taken
    if lost > 0:
        warn(f"{lost} of {active.made} spans were not taken by the collector within {flush_s:g} s")


@contextmanager
def _remote_parent(settings: Settings) -> Iterator[None]:
    """Lie below the span that ``TRACEPARENT`` names, as a CI server hands it to its steps."""
    parent = settings.key("TRACEPARENT")
    if parent is None:
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = TraceContextTextMapPropagator().extract({"traceparent": parent.get_secret_value()})
    token = context.attach(found)
    try:
        yield
    finally:
        context.detach(token)


def _run_id(value: object) -> str | None:
    found = getattr(value, "run_id", None)
    return found if isinstance(found, str) else None


def _sound(value: Value) -> Value:
    """Return text that Protobuf can hold: a lone surrogate would break the whole batch."""
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return value
