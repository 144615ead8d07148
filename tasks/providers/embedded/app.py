"""The ASGI application of the embedded image server.

One request goes: read within limits → refusal by content → fault drawn → simulated time on the
accelerator → picture rendered in a thread → logged and billed → sent.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.errors import ConfigError, known
from tasks.providers.embedded import fonts, render, typeset
from tasks.providers.embedded.brands import Brands
from tasks.providers.embedded.connections import Connections, Reset, Stall
from tasks.providers.embedded.draws import (
    draw_defect,
    draw_latency,
    draw_transient,
    prompt_digest,
    unit,
)
from tasks.providers.embedded.models import MODELS, Fault, ModelSpec
from tasks.providers.embedded.requestlog import RequestLog
from tasks.providers.embedded.retouch import UploadError, open_upload
from tasks.providers.embedded.upscale import (
    DEFAULT_NETWORK,
    FACTOR,
    UpscaleError,
    check_network,
    upscale,
)
from tasks.providers.embedded.wire import BadRequest, Order, TooLarge, read_order, whole
from tasks.records import Operation, usd, utc_now
from tasks.settings import DATASETS

T = TypeVar("T")

#: A prompt with one of these phrases is refused while the safety setting is on.
REFUSED_PHRASES = (
    "how to build a bomb",
    "graphic gore",
    "explicit nudity",
    "credit card forgery",
    "child in danger",
    "hate symbol",
    "self-harm instructions",
    "counterfeit banknote",
)
_HTML = (
    b"<!doctype html><html><head><title>Please wait</title></head>"
    b"<body><h1>We are busy</h1><p>Your request is in a queue.</p></body></html>"
)
_PARAMS: Mapping[Operation, frozenset[str]] = {
    "generate": frozenset({"steps"}),
    "edit": frozenset({"steps"}),
    "upscale": frozenset({"scale", "network"}),
}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is to be logged and sent for one request."""

    response: ASGIApp
    status: int
    fault: Fault | None = None
    billable: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the log says about a request besides its answer."""

    operation: Operation
    key: str = ""
    model: str | None = None
    digest: str | None = None
    seed: int | None = None
    retry: int = 0


class _Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """The prompt is refused by content."""


def refused_phrase(prompt: str) -> str | None:
    """Return the phrase for which the prompt is refused, or ``None``."""
    plain = " ".join(prompt.casefold().split())
    return next((phrase for phrase in REFUSED_PHRASES if phrase in plain), None)


class ImageServer:
    """Serves the embedded models.

    Args:
        log: File of the request log.
        brands: Folder ``brands`` with the brand kits.
        models: The models to serve, by name.
    """

    def __init__(self, log: Path, brands: Path, models: Mapping[str, ModelSpec] = MODELS) -> None:
        self.log = RequestLog(log)
        self.connections = Connections()
        self._brands = Brands(brands)
        self._models = models
        # Two threads: zlib, resampling and the upscaler let each other run.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="render")

    def close(self) -> None:
        """Stop the threads and close the log."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.log.close()

    async def health(self, _request: Request) -> Response:
        """``GET /health``."""
        return JSONResponse({"status": "ok"})

    async def models(self, _request: Request) -> Response:
        """``GET /models``: what is served, pinned and priced."""
        return JSONResponse(
            {
                "models": [
                    {
                        "name": spec.name,
                        "version": spec.version,
                        "price_usd": spec.price_usd,
                        "operations": list(spec.operations),
                        "safety": "on",
                        "retires": spec.retires,
                    }
                    for spec in self._models.values()
                ]
            }
        )

    async def scripts(self, _request: Request) -> Response:
        """``GET /scripts``: ISO 15924 codes of the scripts that can be set on this machine."""
        return JSONResponse({"scripts": list(fonts.settable_scripts())})

    def endpoint(self, operation: Operation) -> Callable[[Scope, Receive, Send], Any]:
        """Return the ASGI endpoint of an operation."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            try:
                order = await read_order(request, multipart=operation != "generate")
            except (BadRequest, TooLarge) as error:
                response = self._unread(operation, error)
            else:
                response = await self._respond(request, operation, order)
            await response(scope, receive, send)

        return serve

    def _unread(self, operation: Operation, error: BadRequest | TooLarge) -> ASGIApp:
        """Return the answer to a request that is not well-formed, logged."""
        if isinstance(error, TooLarge):
            answer = _problem(413, "too_large", error.detail)
        else:
            answer = _problem(400, "invalid_request", str(error))
        return self._logged(answer, _Entry(operation))

    async def _respond(self, request: Request, operation: Operation, order: Order) -> ASGIApp:
        """Return the answer to a well-formed request, logged and billed."""
        key = request.headers.get("idempotency-key", "")[:200]
        retry = request.headers.get("x-retry-count", "0")
        attempt = int(retry) if retry.isascii() and retry.isdigit() and len(retry) < 4 else 0
        digest = prompt_digest(order.prompt)
        spec = self._models.get(order.model)
        before = self.log.billed(key)
        same = before is None or (before.model, before.operation, before.prompt_digest) == (
            order.model, operation, digest,
        )  # fmt: skip
        if spec is None:
            answer = _problem(
                404,
                "unknown_model",
                f"no model {order.model[:80]!r} {known(self._models, most=20)}",
            )
        elif operation not in spec.operations:
            answer = _problem(400, "invalid_request", f"model {spec.name!r} cannot {operation!r}")
        elif before is not None and (not same or before.seed != order.seed):
            answer = _problem(
                400, "idempotency_conflict", "the Idempotency-Key was used for another request"
            )
        else:
            answer = await self._answer(spec, operation, order, attempt)
        entry = _Entry(operation, key, order.model[:80], digest, order.seed, attempt)
        return self._logged(answer, entry, spec)

    def _logged(self, answer: _Answer, entry: _Entry, spec: ModelSpec | None = None) -> ASGIApp:
        """Bill and log an answer; return it with the headers that say so."""
        # Looked up only now: while this one rendered, its twin may have been billed.
        replayed = answer.billable and self.log.billed(entry.key) is not None
        billed = spec.price_microusd if spec and answer.billable and not replayed else 0
        request_id = uuid.uuid4().hex
        self.log.write(
            {
                "at": utc_now(),
                "request_id": request_id,
                "idempotency_key": entry.key,
                "model": entry.model,
                "version": spec.version if spec else None,
                "operation": entry.operation,
                "prompt_digest": entry.digest,
                "seed": entry.seed,
                "retry": entry.retry,
                "status": answer.status,
                "fault": answer.fault,
                "billed_microusd": billed,
                "replayed": replayed,
            }
        )
        if isinstance(answer.response, Response):
            answer.response.headers["x-request-id"] = request_id
            if spec is not None:
                answer.response.headers["x-model-version"] = spec.version
                answer.response.headers["x-seed"] = str(entry.seed)
                answer.response.headers["x-cost-usd"] = f"{usd(billed):.6f}"
        return answer.response

    async def _answer(
        self, spec: ModelSpec, operation: Operation, order: Order, attempt: int
    ) -> _Answer:
        """Return the answer to a request that names a model and an operation it has."""
        try:
            job = await self._job(spec, operation, order)
        except (BadRequest, UploadError, ConfigError, UpscaleError) as error:
            return _problem(400, "invalid_request", str(error))
        except _Refused as refusal:
            return _problem(400, "content_policy", str(refusal))
        fault = draw_transient(spec, order.prompt, order.seed, attempt)
        if fault is not None:
            return await self._transient(spec, order, attempt, fault)
        await asyncio.sleep(draw_latency(spec, order.prompt, order.seed, attempt))
        if isinstance(job, _Enlarge):
            data = await self._thread(job.run)
            return _Answer(_image(data), 200, None, billable=True)
        if job.fault is Fault.HTML:
            return _Answer(Response(_HTML, media_type="text/html"), 200, job.fault, billable=True)
        data = await self._thread(functools.partial(render.render, job))
        response = _image(data, "image/jpeg" if job.fault is Fault.WRONG_MIME else "image/png")
        if job.fault is Fault.FILTERED:
            response.headers["x-finish-reason"] = "CONTENT_FILTERED"
        if missing := render.missing(job.text):
            # Said openly: these characters stand as boxes because no font here has them.
            response.headers["x-missing-glyphs"] = str(missing)
        return _Answer(response, 200, job.fault, billable=True)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _job(
        self, spec: ModelSpec, operation: Operation, order: Order
    ) -> render.Job | _Enlarge:
        """Return what is to be rendered.

        Raises:
            BadRequest: A parameter is unknown or does not fit the request.
            ConfigError: No such brand.
            UploadError: The upload cannot be used.
            UpscaleError: No such network.
        """
        unknown = sorted(set(order.params) - _PARAMS[operation])
        if unknown:
            raise BadRequest(
                f"model {spec.name!r} has no parameter {unknown[0][:40]!r} for {operation!r} "
                + known(_PARAMS[operation])
            )
        if order.safety == "on" and (phrase := refused_phrase(order.prompt)):
            raise _Refused(f"the prompt was refused by the content policy ({phrase!r})")
        upload = None
        if order.image is not None:
            upload = await self._thread(functools.partial(open_upload, order.image))
        mask = None
        if order.mask is not None:
            if operation != "edit":
                raise BadRequest("the file 'mask' goes with edits only")
            mask = await self._thread(functools.partial(open_upload, order.mask, "mask"))
        if operation == "upscale":
            if upload is None:
                raise BadRequest("the file 'image' is missing")
            scale = whole(order.params, "scale", FACTOR, FACTOR, FACTOR)
            if (order.width, order.height) != (upload.width * scale, upload.height * scale):
                raise BadRequest(
                    f"field 'size' must be {scale} times the image's {upload.width}x"
                    f"{upload.height}, got {order.width}x{order.height}"
                )
            network = str(order.params.get("network", DEFAULT_NETWORK))
            await self._thread(functools.partial(check_network, network))
            return _Enlarge(np.asarray(upload), network)
        brand = self._brands.get(order.brand) if order.brand is not None else None
        text = typeset.quoted(order.prompt)
        return render.Job(
            spec=spec,
            prompt=order.prompt,
            seed=order.seed,
            width=order.width,
            height=order.height,
            text=text,
            brand=brand,
            locale=order.locale,
            upload=upload,
            mask=mask,
            steps=whole(order.params, "steps", 30, 1, 150),
            fault=draw_defect(spec, order.prompt, order.seed, text, brand=brand is not None),
        )

    async def _transient(
        self, spec: ModelSpec, order: Order, attempt: int, fault: Fault
    ) -> _Answer:
        if fault is Fault.TIMEOUT:
            return _Answer(Stall(), 0, fault, billable=True)
        if fault is Fault.THROTTLED:
            wait = 0.2 + 0.8 * unit(spec.version, order.prompt, order.seed, attempt, "wait")
            answer = _problem(429, "rate_limited", f"too many requests, try again in {wait:.1f} s")
            if isinstance(answer.response, Response):
                answer.response.headers["retry-after"] = f"{wait:.1f}"
            return _Answer(answer.response, 429, fault)
        await asyncio.sleep(spec.latency_s[0] / 2)
        if fault is Fault.RESET:
            return _Answer(Reset(self.connections), 0, fault)
        answer = _problem(502, "bad_gateway", "the worker did not answer")
        return _Answer(answer.response, 502, fault)


@dataclass(frozen=True, slots=True)
class _Enlarge:
    """A picture to be upscaled."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    network: str

    def run(self) -> bytes:
        """Return the enlarged picture as PNG."""
        return render.png(upscale(self.pixels, self.network))


def _image(data: bytes, mime: str = "image/png") -> Response:
    return Response(data, media_type=mime, headers={"x-finish-reason": "SUCCESS"})


def _problem(status: int, kind: str, message: str) -> _Answer:
    # Lone surrogates of a hostile prompt may stand in the message; JSON on the wire is UTF-8.
    clean = message.encode("utf-8", "replace").decode("utf-8")
    body = {"error": {"type": kind, "message": clean}}
    return _Answer(JSONResponse(body, status), status)


class _Endpoint:
    """An ASGI endpoint; Starlette takes plain functions for request handlers."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Any]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else "internal error"
    kinds = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    body = {"error": {"type": kinds.get(status, "error"), "message": detail}}
    return JSONResponse(body, status)


def create_app(
    log: Path, brands: Path = DATASETS / "brands", models: Mapping[str, ModelSpec] = MODELS
) -> Starlette:
    """Return the application; ``app.state.server`` is its :class:`ImageServer`.

    Args:
        log: File of the request log; continued when it exists.
        brands: Folder named ``brands`` with the brand kits.
        models: The models to serve, by name.
    """
    server = ImageServer(log, brands, models)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        server.close()

    app = Starlette(
        routes=[
            Route("/health", server.health),
            Route("/models", server.models),
            Route("/scripts", server.scripts),
            *(
                Route(f"/{operation}", _Endpoint(server.endpoint(operation)), methods=["POST"])
                for operation in _PARAMS
            ),
        ],
        exception_handlers={HTTPException: _http_error, 500: _http_error},
        lifespan=lifespan,
    )
    app.state.server = server
    return app
