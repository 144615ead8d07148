"""AUTOMATIC1111's web UI (``--api``), self-hosted: txt2img, img2img and the single-image upscaler.

The pin is the checkpoint's sha256: ``version: sha256:<64 hex>``. ``/sdapi/v1/sd-models`` tells the
whole of it before a run, and each answer tells its first ten digits; the server drops a checkpoint
that it does not find in silence and answers with the one that is loaded, so this is looked at every
time. ``id`` of the catalog entry is the checkpoint's title, name or hash as the server knows it;
without one the digits of the pin are sent.

Options and params: steps, cfg_scale, sampler_name, scheduler, negative_prompt, clip_skip, tiling;
for edits denoising_strength; for upscaling ``upscaler``, the name of the server's upscaler. The
key, if any, is ``user:password`` of ``--api-auth``.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.errors import GateError
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Facts, Meaning, clean
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import (
    broken,
    drift,
    empty,
    failed,
    http_error,
    malformed,
    picture_base64,
)
from tasks.providers.message import Message
from tasks.providers.params import Flag, Number, Rule, Text, chosen
from tasks.providers.sniff import picture_size
from tasks.providers.usage import seed_of, usage_of
from tasks.records import FailureClass

#: Seeds are taken from 0 to below this; -1 asks for a random one.
SEEDS = 2**32
#: How much an edit may change its picture where the mix does not say: 0 nothing, 1 everything.
STRENGTH = 0.5
_SHORT = 10
_PIN = re.compile(r"sha256:[0-9a-f]{64}\Z")
_COMMON: Mapping[str, Rule] = {
    "steps": Number(1, 150, whole=True),
    "cfg_scale": Number(0, 30),
    "sampler_name": Text(most=80),
    "scheduler": Text(most=80),
    "negative_prompt": Text(),
    "clip_skip": Number(1, 12, whole=True),
    "tiling": Flag(),
}
_RULES: Mapping[str, Mapping[str, Rule]] = {
    "generate": _COMMON,
    "edit": {**_COMMON, "denoising_strength": Number(0, 1)},
    "upscale": {"upscaler": Text(most=80)},
}
#: What the answer's ``info`` repeats of the request; another value there is not what was asked.
_REPEATED = ("width", "height", "steps", "cfg_scale", "sampler_name", "denoising_strength")
#: Our own mistakes, which the server answers with 404 or 500.
_OURS = ("invalid encoded image", "could not find upscaler", "init image not found", "sampler not")


class Automatic1111Provider(HttpAdapter):
    """Adapter of AUTOMATIC1111's API."""

    key_scheme = "Basic"
    kept_headers = frozenset({"x-process-time"})

    def authorize(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Return the header of basic authentication; the key is ``user:password``."""
        if not self._key:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(self._key.encode()).decode()}"}

    def secrets(self) -> tuple[str, ...]:
        """Return the values that may stand in no text: the pair, its password and its header."""
        if not self._key:
            return ()
        password = self._key.partition(":")[2]
        return tuple(s for s in (self._key, password) if len(s) > 3)

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a checkpoint: any size in steps of eight pixels."""
        return Capabilities(
            operations=model.operations,
            multiple_of=8,
            least_side=64,
            most_side=2048,
            mask=True,
            pin="immutable",
        )

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that the request asks for."""
        source = picture_size(request.image or b"")
        if request.operation == "upscale" and source is not None:
            scale = _scale(request)
            return int(source[0] * scale), int(source[1] * scale)
        return super().asked_size(request)

    def message(self, request: GenerationRequest) -> Message:
        """Return the request.

        Raises:
            CannotAsk: A parameter is unknown, or the pin is no sha256.
        """
        if request.operation == "upscale":
            body = _upscale(request, self._chosen(request))
            return Message("POST", "/sdapi/v1/extra-single-image", json=body)
        body = self._body(request)
        if request.operation == "generate":
            return Message("POST", "/sdapi/v1/txt2img", json=body)
        body["init_images"] = [_base64(request.image)]
        if request.mask is not None:
            # White is where the picture may change, here as there.
            body |= {"mask": _base64(request.mask), "inpainting_mask_invert": 0}
        return Message("POST", "/sdapi/v1/img2img", json=body)

    def _chosen(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the parameters; one catalog entry serves several operations."""
        rules = _RULES[request.operation]
        every = frozenset(name for other in _RULES.values() for name in other)
        return chosen(request, rules, every - set(rules))

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        """Return what is asked of a generation, without pictures."""
        across, down = self.asked_size(request)
        body: dict[str, Any] = {
            "prompt": request.prompt,
            "seed": seed_for(request.seed),
            "width": across,
            "height": down,
            "batch_size": 1,
            "n_iter": 1,
            "send_images": True,
            "save_images": False,
            "do_not_save_grid": True,
            "override_settings": {"sd_model_checkpoint": _checkpoint(request.model)},
            # Two mixes may share one server: neither changes what the other finds loaded.
            "override_settings_restore_afterwards": True,
        } | self._chosen(request)
        if "clip_skip" in body:
            body["override_settings"]["CLIP_stop_at_last_layers"] = body.pop("clip_skip")
        if request.operation == "edit":
            body.setdefault("denoising_strength", STRENGTH)
        return body

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means; the server's own seconds are what a GPU was busy."""
        busy = answer.headers.get("x-process-time")
        said = {} if busy is None else {"x-process-time": clean(busy, 40)}
        usage = usage_of(said, gpu_seconds=busy)
        on_gpu = request.model.price is not None and request.model.price.per == "gpu_second"
        # A GPU of one's own is busy with requests that fail, too.
        facts = Facts(usage=usage, billed="yes" if on_gpu else None)
        if not 200 <= answer.status < 300:
            return _refused(answer, request, facts)
        if answer.broken is not None:
            return broken(answer, request, facts)
        value = answer.json()
        if not isinstance(value, dict):
            why = "expected JSON with a picture in base64, got something else"
            return malformed(answer, request, why, facts)
        if request.operation == "upscale":
            return _upscaled(answer, request, value, facts)
        return self._generated(answer, request, value, facts)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return the checkpoints that the server has, with the sha256 of each.

        Raises:
            GateError: The server does not answer with a list of checkpoints, or an entry names
                none.
        """
        path = "/sdapi/v1/sd-models"
        entries = await self.ask(client, path)
        if not isinstance(entries, list):
            raise GateError(f"{self.base_url}{path}: expected a list of checkpoints")
        upscalers = await self._upscalers(client, models)
        found: dict[str, ServedModel] = {}
        for model in models:
            if model.operations == ("upscale",):
                wanted = model.options.get("upscaler")
                if wanted in upscalers:
                    found[model.name] = ServedModel(model.name, version=None, safety="off")
                continue
            try:
                wanted_name = _checkpoint(model)
            except CannotAsk as error:
                raise GateError(str(error)) from None
            for entry in entries:
                if isinstance(entry, dict) and wanted_name in _names(entry):
                    sha = entry.get("sha256")
                    version = f"sha256:{sha.lower()}" if isinstance(sha, str) and sha else None
                    found[model.name] = ServedModel(model.name, version=version, safety="off")
        return found

    async def _upscalers(
        self, client: httpx.AsyncClient, models: Sequence[Model]
    ) -> frozenset[object]:
        """Return the names of the server's upscalers, when any model needs one."""
        if not any("upscale" in model.operations for model in models):
            return frozenset()
        value = await self.ask(client, "/sdapi/v1/upscalers")
        entries = value if isinstance(value, list) else []
        return frozenset(e["name"] for e in entries if isinstance(e, dict) and "name" in e)

    def _generated(
        self,
        answer: Answer,
        request: GenerationRequest,
        value: Mapping[str, Any],
        facts: Facts,
    ) -> Meaning:
        """Return what an answer of txt2img or img2img means."""
        info = _info(value)
        facts = replace(
            facts,
            model_reported=_reported(request.model, info.get("sd_model_hash")),
            seed_used=seed_of(info.get("seed")),
            seed_asked=seed_for(request.seed),
        )
        images = value.get("images")
        if not isinstance(images, list) or not images:
            return empty(answer, request, "the answer has no picture", facts)
        meaning = picture_base64(answer, request, images[0], facts)
        if meaning.delivered and (wrong := self._departure(request, info)):
            return drift(answer, request, wrong, facts)
        return meaning

    def _departure(self, request: GenerationRequest, info: Mapping[str, Any]) -> str:
        """Return which parameter was not taken as asked, "" for none."""
        body = self._body(request)
        for name in _REPEATED:
            asked, used = body.get(name), info.get(name)
            if asked is not None and used is not None and asked != used:
                return f"{name} {asked!r} was asked for, {used!r:.60} was used"
        return ""


def seed_for(seed: int) -> int:
    """Return the seed to ask for: the same where the server takes it, never -1 (a random one)."""
    return seed % SEEDS


def _scale(request: GenerationRequest) -> float:
    return float(request.params.get("scale", 2))


def _upscale(request: GenerationRequest, asked: Mapping[str, Any]) -> dict[str, Any]:
    upscaler = asked.get("upscaler")
    if upscaler in (None, "None"):
        # The server hands the picture back as it came, under HTTP 200.
        raise CannotAsk(
            f"model {request.model.name!r}: upscaling needs options.upscaler in the catalog, the "
            "name of one of the server's upscalers, e.g. 'R-ESRGAN 4x+'"
        )
    return {
        "image": _base64(request.image),
        "resize_mode": 0,
        "upscaling_resize": _scale(request),
        "upscaler_1": upscaler,
        "upscaler_2": "None",
        "show_extras_results": True,
    }


def _upscaled(
    answer: Answer, request: GenerationRequest, value: Mapping[str, Any], facts: Facts
) -> Meaning:
    """Return what an answer of the upscaler means: a picture as large as before is none."""
    meaning = picture_base64(answer, request, value.get("image"), facts)
    source, got = picture_size(request.image or b""), picture_size(meaning.image or b"")
    scale = _scale(request)
    if source and got and scale > 1 and got[0] < source[0] * scale * 0.98:
        wrong = f"scale {scale:g} was asked for, {source} became {got}"
        return drift(answer, request, wrong, facts)
    return meaning


def _checkpoint(model: Model) -> str:
    """Return the name of the checkpoint as the server knows it.

    Raises:
        CannotAsk: The entry has no ``id`` and its version is no sha256.
    """
    if model.id is not None:
        return model.id
    if not _PIN.match(model.version):
        raise CannotAsk(
            f"model {model.name!r}: without an id, version must be the checkpoint's sha256 as "
            f"'sha256:<64 hex>', got {model.version!r}"
        )
    return model.version.removeprefix("sha256:")[:_SHORT]


def _names(entry: Mapping[str, Any]) -> set[str]:
    """Return the names under which the server finds a checkpoint."""
    sha = entry.get("sha256")
    names = {entry.get("title"), entry.get("model_name"), entry.get("hash"), sha}
    if isinstance(sha, str):
        names.add(sha[:_SHORT])
    if isinstance(title := entry.get("title"), str):
        names.add(title.partition(" [")[0])
    return {name for name in names if isinstance(name, str)}


def _reported(model: Model, short: object) -> str | None:
    """Return the version that the first digits of a hash speak of: the pin, when they are its."""
    if not isinstance(short, str) or not short:
        return None
    told = f"sha256:{short.lower()}"
    return model.version if len(short) >= _SHORT and model.version.startswith(told) else told


def _info(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the generation's parameters, which come as JSON inside a string."""
    text = value.get("info")
    try:
        info = json.loads(text) if isinstance(text, str) and len(text) < 1_000_000 else text
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _refused(answer: Answer, request: GenerationRequest, facts: Facts) -> Meaning:
    """Return what an error means; the server says 404 and 500 to our own mistakes as well."""
    name, said = _error(answer)
    text = f"HTTP {answer.status}: {said}"
    ours = answer.status in (404, 500) and said.lower().startswith(_OURS)
    if answer.status == 404 and said == "Not Found":
        ours, text = True, f"{text}; was the server started with --api?"
    if ours or answer.status < 500:
        # What was refused kept no GPU busy.
        facts = replace(facts, billed=None)
    if ours:
        return failed(FailureClass.BAD_REQUEST, answer, request, text, facts)
    return http_error(answer, request, facts, types=frozenset({name}), message=said)


def _error(answer: Answer) -> tuple[str, str]:
    """Return name and words of an error; FastAPI's own have a list of what is wrong."""
    value = answer.json()
    if not isinstance(value, dict):
        return "", answer.body.decode("utf-8", "replace")
    detail, name = value.get("detail"), value.get("error")
    if isinstance(detail, list):
        each = (d for d in detail if isinstance(d, dict))
        detail = "; ".join(f"{d.get('loc')}: {d.get('msg')}" for d in each)
    said = [v for v in (detail, value.get("errors"), name) if isinstance(v, str) and v]
    return name if isinstance(name, str) else "", said[0] if said else ""


def _base64(data: bytes | None) -> str:
    return base64.b64encode(data or b"").decode()


ADAPTER = Automatic1111Provider
