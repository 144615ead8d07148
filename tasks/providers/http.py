"""The base of the adapters; an adapter adds the words of its protocol.

An adapter says what to send (:meth:`HttpAdapter.message`) and what an answer means
(:meth:`HttpAdapter.read`), both without I/O. Nothing that a provider does is raised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import httpx

from tasks.errors import GateError
from tasks.providers.answers import Answer, Facts, Meaning, parse_retry_after
from tasks.providers.assets import ForeignAddressError
from tasks.providers.base import AttemptResult, CannotAsk, GenerationRequest, Job
from tasks.providers.channel import LATER, Channel
from tasks.providers.meanings import asset_url, fetched, http_error, malformed, server
from tasks.providers.message import Message, file_part, form_fields
from tasks.providers.wire import NoAnswer, Trip
from tasks.records import Attempt, FailureClass

__all__ = ["HttpAdapter", "Message", "file_part", "form_fields"]

#: Seconds to wait for what a provider says it serves.
SERVED_TIMEOUT_S = 20.0
_MOST_SERVED_BODY = 4 * 1024 * 1024
#: Seconds for one look at a job, and for asking to cancel it.
POLL_TIMEOUT_S = 30.0
CANCEL_TIMEOUT_S = 5.0
#: What reading hostile JSON can raise in an adapter.
_READ_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


class HttpAdapter(Channel, ABC):
    """Base of an adapter; made of an address and a key, see :class:`Channel`."""

    #: Method that cancels a job at its ``cancel`` address.
    cancel_method: ClassVar[str] = "POST"

    # What an adapter writes.

    @abstractmethod
    def message(self, request: GenerationRequest) -> Message:
        """Return what to send.

        Raises:
            CannotAsk: The protocol has no words for this request.
        """

    @abstractmethod
    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what the answer to :meth:`message` means."""

    # What an adapter may write.

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what the answer to a look at a job means; the job again while it goes on.

        Raises:
            RuntimeError: The adapter makes jobs and does not say how to read about them.
        """
        raise RuntimeError(f"{type(self).__name__} makes no jobs, so there is none to read about")

    def look(self, job: Job, request: GenerationRequest) -> Message:
        """Return how to look at a job."""
        return Message("GET", job.poll)

    def passing(self, answer: Answer, job: Job) -> bool:
        """Return whether an answer to a look says nothing about the job, which then goes on."""
        cut = answer.broken is not None and answer.broken[0] is FailureClass.TRANSPORT
        return cut or answer.status in LATER

    def upload(self, request: GenerationRequest) -> Message | None:
        """Return what must be sent before the request itself, ``None`` for nothing."""
        return None

    def uploaded(self, answer: Answer, request: GenerationRequest) -> GenerationRequest | Meaning:
        """Return the request with what the answer to :meth:`upload` adds, or why it ends here."""
        return request

    # What the driver and the preflight call.

    async def submit(
        self, client: httpx.AsyncClient, request: GenerationRequest
    ) -> AttemptResult | Job:
        """Send one request and return what came of it, failures classified, or its job."""
        trip = Trip(self._clock)
        limit = request.model.limits.timeout_s
        asked = request
        try:
            first = self.upload(request)
            if first is not None:
                took = await self._send(client, first, trip, trip.left(limit))
                if isinstance(took, NoAnswer):
                    # Nothing was asked for yet that could be billed.
                    return self._unanswered(request, trip, replace(took, sent=False))
                told = self._reading(took, request, partial(self.uploaded, took, request))
                if isinstance(told, Meaning):
                    return await self._end(client, request, trip, took, told)
                asked = told
            message = self.message(asked)
        except CannotAsk as error:
            return self._unanswered(request, trip, NoAnswer(str(error), sent=False, ours=True))
        answer = await self._send(client, message, trip, trip.left(limit))
        if isinstance(answer, NoAnswer):
            return self._unanswered(request, trip, answer)
        told_last = self._reading(answer, request, partial(self.read, answer, request))
        if isinstance(told_last, Job):
            return replace(
                told_last,
                started_at=trip.started_at,
                began=trip.called_at if trip.began is None else trip.began,
                request_id=self._said(
                    told_last.request_id or answer.headers.get("x-request-id"), 200
                ),
            )
        return await self._end(client, request, trip, answer, told_last)

    async def poll(
        self, client: httpx.AsyncClient, request: GenerationRequest, job: Job
    ) -> AttemptResult | Job:
        """Look at a job once; a look that brings no answer returns the job again."""
        trip = Trip(self._clock, job.began, job.started_at)
        message = self.look(job, request)
        try:
            self._url(message.path)
        except ForeignAddressError as error:
            # The job is lost and paid for: asking for another one would only pay again.
            lost = NoAnswer(f"the provider's job is at {error}", sent=True)
            return self._unanswered(request, trip, lost, FailureClass.ASSET_URL)
        answer = await self._send(client, message, trip, POLL_TIMEOUT_S)
        missed = replace(job, misses=job.misses + 1, wait_s=None)
        if isinstance(answer, NoAnswer):
            return missed
        if self.passing(answer, job):
            wait = parse_retry_after(answer.headers.get("retry-after"), answer.at)
            return replace(missed, wait_s=wait)
        told = self._reading(answer, request, partial(self.read_job, answer, request, job))
        if isinstance(told, Job):
            return replace(
                told,
                started_at=job.started_at,
                began=job.began,
                request_id=told.request_id or job.request_id,
                misses=0,
            )
        if told.facts.request_id is None:
            told = replace(told, facts=replace(told.facts, request_id=job.request_id))
        return await self._end(client, request, trip, answer, told)

    async def cancel(self, client: httpx.AsyncClient, job: Job) -> None:
        """Ask the provider to give a job up, where the protocol can; never raises."""
        if job.cancel is not None:
            message = Message(self.cancel_method, job.cancel)
            await self._send(client, message, Trip(self._clock), CANCEL_TIMEOUT_S)

    async def ask(
        self, client: httpx.AsyncClient, path: str, *, missing_ok: bool = False
    ) -> object | None:
        """Return the JSON under a path of the server, for :meth:`served`.

        Args:
            client: The HTTP client.
            path: Below the base address.
            missing_ok: Return ``None`` for a 404 instead of an error.

        Raises:
            GateError: The server does not answer with JSON under HTTP 200.
        """
        where = f"{self.base_url}{path}"
        answer = await self._send(
            client,
            Message("GET", path),
            Trip(self._clock),
            SERVED_TIMEOUT_S,
            most_body=_MOST_SERVED_BODY,
        )
        if isinstance(answer, NoAnswer):
            raise GateError(f"{where}: {self.redact(answer.message)}; is the server running?")
        if missing_ok and answer.status == 404:
            return None
        if answer.status != 200 or answer.broken is not None:
            why = answer.broken[1] if answer.broken else f"HTTP {answer.status}"
            raise GateError(f"{where}: expected HTTP 200 with the served models, got {why}")
        value = answer.json()
        if value is None:
            raise GateError(f"{where}: expected JSON with the served models, got something else")
        return value

    def job_error(self, answer: Answer, request: GenerationRequest) -> Meaning:
        """Return what an error in place of a job means: the job is lost and may be billed."""
        facts = Facts(billed="unknown")
        if answer.status in (404, 410):
            return server(answer, request, f"HTTP {answer.status}: the job is gone", facts)
        return http_error(answer, request, facts)

    # The machinery.

    def _reading(self, answer: Answer, request: GenerationRequest, read: Callable[[], Any]) -> Any:
        """Return what an adapter reads; an answer that it stumbles over is malformed."""
        told: Any
        try:
            told = read()
        except _READ_ERRORS as error:
            what = type(error).__name__
            return malformed(answer, request, f"the answer cannot be read: {what}: {error}")
        return self._checked_job(answer, request, told) if isinstance(told, Job) else told

    def _checked_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return the job with fields that are what they should be, whatever the adapter found."""
        poll: object = job.poll
        cancel: object = job.cancel
        wait: object = job.wait_s
        if not isinstance(poll, str) or not isinstance(cancel, str | None):
            return malformed(answer, request, "the answer names its job by no address")
        seconds = float(wait) if isinstance(wait, int | float) and wait < 1e6 else None
        return replace(job, id=self.redact(str(job.id), 200), wait_s=seconds)

    async def _end(
        self,
        client: httpx.AsyncClient,
        request: GenerationRequest,
        trip: Trip,
        answer: Answer,
        meaning: Meaning,
    ) -> AttemptResult:
        """Return the attempt, after its picture was fetched where it lies elsewhere."""
        if meaning.asset is not None:
            found = await self._fetch(client, request, trip, meaning.asset)
            if isinstance(found, str):
                meaning = asset_url(answer, request, found, meaning.facts)
            elif found.status != 200:
                text = f"HTTP {found.status} for the finished picture"
                meaning, answer = asset_url(answer, request, text, meaning.facts), found
            else:
                meaning, answer = fetched(meaning, answer, request, found), found
        fields = self._common(request, trip) | {"total_s": trip.wire_seconds()}
        record = Attempt(**fields, **self._answered(answer, meaning))
        return AttemptResult(record, meaning.image)
