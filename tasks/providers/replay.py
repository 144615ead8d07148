"""Replay: recorded pictures stand in for a model, so that they go through the whole gate.

``endpoint: file:///folder`` names the folder of a recorded run (its pictures are looked for in
``images`` beside ``runs``), or one with pictures made elsewhere and a ``replay.json`` that says
which request each answers; see :class:`tasks.providers.replay_entries.Manifest`. ``version`` is the
digest of the manifest or of the run's seal: the strongest pin there is. Option ``arm`` chooses
``candidate`` (the default) or ``baseline`` of a recorded run.

A request gets what was recorded, its failure too. It costs nothing. Its latency is the recorded
one; where none was recorded it is 0 and says nothing. What the folder does not hold is a bad
request: no picture of another request takes its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Facts, Meaning, clean
from tasks.providers.base import (
    Adapter,
    AttemptResult,
    Capabilities,
    GenerationRequest,
    ServedModel,
)
from tasks.providers.meanings import failed, picture, refusal
from tasks.providers.replay_entries import Entry, Tape, find, sample
from tasks.providers.replay_store import MANIFEST, load, picture_bytes
from tasks.records import Attempt, FailureClass, digest_bytes, utc_now

#: Loaded folders of this process by folder and arm: a shard makes adapters of its own.
_LOADED: dict[tuple[Path, str], Tape] = {}
_LOADING = threading.Lock()


class ReplayProvider(Adapter):
    """Adapter that answers from a folder.

    Args:
        base_url: ``file:///folder``.
        key: Not used.

    Raises:
        ConfigError: The address names no folder.
    """

    def __init__(self, base_url: str, key: SecretStr | None) -> None:
        parts = urlsplit(base_url)
        self.folder = Path(unquote(parts.path))
        if parts.scheme != "file" or parts.netloc or not self.folder.is_absolute():
            raise ConfigError(
                f"endpoint {base_url!r} must be the folder to replay, as file:///folder"
            )
        if not self.folder.is_dir():
            raise ConfigError(f"endpoint {base_url!r}: there is no such folder on this machine")

    def __repr__(self) -> str:
        """Show the folder."""
        return f"ReplayProvider({str(self.folder)!r})"

    def capabilities(self, model: Model) -> Capabilities:
        """Return that everything can be asked for; what is not recorded is not found."""
        return Capabilities(operations=model.operations, mask=True, pin="immutable")

    async def submit(self, client: httpx.AsyncClient, request: GenerationRequest) -> AttemptResult:
        """Return what was recorded for a request."""
        started_at = utc_now()
        meaning, entry, data = await asyncio.to_thread(self._answer, request)
        seconds = (entry.latency_s or 0.0) if entry is not None else 0.0
        return AttemptResult(
            Attempt(
                stage=request.stage,
                number=request.attempt,
                model=request.model.name,
                started_at=started_at,
                queued_s=request.queued_s,
                ttfb_s=seconds if meaning.delivered else None,
                total_s=seconds,
                failure=meaning.failure,
                message=clean(meaning.message),
                billed=meaning.billed,
                cost_microusd=meaning.cost_microusd,
                cost_source=meaning.cost_source,
                idempotency_key=request.idempotency_key,
                model_reported=meaning.facts.model_reported,
                sniffed_mime=meaning.sniffed_mime,
                finish_reason=meaning.finish_reason,
                body_digest=digest_bytes(data) if data else None,
                body_bytes=len(data),
                pin=meaning.pin,
            ),
            meaning.image,
        )

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return for each model the digest of what it would be replayed from.

        Raises:
            GateError: The folder cannot be read.
        """
        found = {}
        for model in models:
            try:
                tape = await asyncio.to_thread(self._tape, model)
            except ConfigError as error:
                raise GateError(str(error)) from None
            found[model.name] = ServedModel(model.name, version=tape.digest)
        return found

    def _answer(self, request: GenerationRequest) -> tuple[Meaning, Entry | None, bytes]:
        """Return what a request gets, the entry it is from and the bytes of its picture."""
        answer, facts = Answer(200, {}, b""), Facts(billed="no")
        try:
            tape = self._tape(request.model)
            entry = find(tape, request)
            if isinstance(entry, str):
                raise ConfigError(f"{self.folder.name}: {entry}")
            facts = Facts(billed="no", model_reported=tape.digest)
            if entry.failure is None:
                data = picture_bytes(self._pictures(), sample(entry, request.seed))
                return picture(answer, request, data, facts), entry, data
        except ConfigError as error:
            meaning = failed(FailureClass.BAD_REQUEST, answer, request, str(error), facts)
            return meaning, None, b""
        said = f"recorded: {entry.message or entry.failure}"
        if entry.failure is FailureClass.REFUSAL:
            return refusal(answer, request, said, facts), entry, b""
        return failed(entry.failure, answer, request, said, facts), entry, b""

    def _pictures(self) -> Path:
        """Return the folder of the pictures: of a recorded run, the image store beside the runs."""
        if (self.folder / MANIFEST).exists():
            return self.folder
        return self.folder.resolve().parent.parent / "images"

    def _tape(self, model: Model) -> Tape:
        """Return the entries, read once.

        Raises:
            ConfigError: The folder holds none.
        """
        arm = model.options.get("arm", "candidate")
        key = (self.folder, str(arm))
        with _LOADING:
            # Read anew when the pin is another one: the folder may have changed meanwhile.
            if key not in _LOADED or _LOADED[key].digest != model.version:
                _LOADED[key] = load(self.folder, str(arm))
            return _LOADED[key]


ADAPTER = ReplayProvider
