"""ComfyUI, self-hosted: ``/prompt`` queues a graph, ``/history`` tells its end, ``/view`` shows it.

Options of a catalog entry: ``graphs``, a template by operation (see
:mod:`tasks.providers.comfy_graph`); ``output``, the node whose picture counts, where several save
one; every other option is a value for a place of that name, which the stage's params may replace.

The graph is part of a mix's digest. ComfyUI tells no version of what it loads: ``version`` is
``sha256:<64 hex>`` where the weights' own metadata state their hash, and then it is compared before
a run; else it is any name. A run never ends without a new picture because ComfyUI had it cached:
the file of each request gets a name of its own, which is a changed input. The history repeats the
graph that ran, so a node that changes seeds shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from tasks.errors import GateError
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Asset, Facts, Meaning
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.comfy_graph import (
    SAVERS,
    WEIGHTS,
    Graph,
    changed,
    checked,
    filled,
    output_node,
    weights,
)
from tasks.providers.comfy_history import (
    all_cached,
    busy,
    fault,
    messages,
    node_errors,
    queued,
    view,
)
from tasks.providers.http import CANCEL_TIMEOUT_S, HttpAdapter
from tasks.providers.meanings import (
    broken,
    drift,
    empty,
    failed,
    http_error,
    malformed,
    picture,
    server,
)
from tasks.providers.message import Message, file_part
from tasks.providers.params import OURS
from tasks.providers.sniff import picture_size, sniff_mime
from tasks.providers.usage import usage_of
from tasks.providers.wire import Trip
from tasks.records import FailureClass

#: Seeds are taken from 0 to below this.
SEEDS = 2**64
#: Folder of the server's inputs and outputs for our files.
FOLDER = "imagegate"
#: Every so many looks at the history, the queue is asked whether the job is still known.
_ASK_QUEUE = 4
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")
_NOT_VALUES = frozenset({"graphs", "output"})


class ComfyUIProvider(HttpAdapter):
    """Adapter of ComfyUI."""

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked: what the entry has graphs for, in steps of eight pixels."""
        graphs = model.options.get("graphs")
        names = graphs if isinstance(graphs, Mapping) else {}
        return Capabilities(
            operations=tuple(o for o in model.operations if o in names),
            multiple_of=8,
            least_side=64,
            most_side=4096,
            pin="dated",
        )

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that the request asks for."""
        source = picture_size(request.image or b"")
        if request.operation == "upscale" and source is not None:
            scale = float(request.params.get("scale", 2))
            return int(source[0] * scale), int(source[1] * scale)
        return super().asked_size(request)

    def upload(self, request: GenerationRequest) -> Message | None:
        """Return the upload of the picture to edit or to enlarge."""
        self.graph(request)  # what cannot be asked is not uploaded for
        if request.operation == "generate":
            return None
        field, (_, data, mime) = file_part("image", request.image)
        return Message(
            "POST",
            "/upload/image",
            form={"type": "input", "subfolder": FOLDER, "overwrite": "true"},
            files=[(field, (_file(request), data, mime))],
            multipart=True,
        )

    def uploaded(self, answer: Answer, request: GenerationRequest) -> GenerationRequest | Meaning:
        """Return the request with the name of its picture on the server."""
        unpaid = Facts(billed="no")  # nothing was asked for yet
        if not answer.ok:
            lost = answer.broken is not None
            return broken(answer, request, unpaid) if lost else _refused(answer, request)
        value = answer.json()
        kept = (value.get("subfolder"), value.get("name")) if isinstance(value, dict) else None
        if kept != (FOLDER, _file(request)):
            # Another name could be the picture of another request.
            why = f"the upload was kept as {kept!r:.120}, not as named"
            return malformed(answer, request, why, unpaid)
        return _with_image(request)

    def message(self, request: GenerationRequest) -> Message:
        """Return the graph.

        Raises:
            CannotAsk: The template or a value for one of its places is missing.
        """
        graph, _ = self.graph(request)
        return Message("POST", "/prompt", json={"prompt": graph, "client_id": "imagegate"})

    def graph(self, request: GenerationRequest) -> tuple[dict[str, dict[str, Any]], str]:
        """Return the filled graph and the id of the node whose picture counts.

        Raises:
            CannotAsk: See :meth:`message`.
        """
        where, graph = template(request.model, request.operation)
        output = output_node(graph, request.model.options.get("output"), where)
        across, down = self.asked_size(request)
        given = {k: v for k, v in request.model.options.items() if k not in _NOT_VALUES}
        given |= {k: v for k, v in request.params.items() if k not in OURS}
        for name, value in given.items():
            if not isinstance(value, str | int | float):
                raise CannotAsk(f"{where}: the value of {name!r} must be a text or a number")
        values = given | {
            "prompt": request.prompt,
            "seed": request.seed % SEEDS,
            "width": across,
            "height": down,
            "scale": request.params.get("scale", 2),
        }
        if request.operation != "generate":
            values.setdefault("image", "")  # known once it is uploaded
        result = filled(graph, values, where)
        if result[output]["class_type"] == SAVERS[0]:
            # A name of its own: nothing is taken from the cache, nothing is written over.
            prefix = f"{FOLDER}/{_safe(request.idempotency_key)}"
            result[output]["inputs"] = {**result[output]["inputs"], "filename_prefix": prefix}
        return result, output

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return the job of a queued graph, or why it was not queued."""
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        if not 200 <= answer.status < 300 or node_errors(value):
            return _refused(answer, request)
        number = value.get("prompt_id") if isinstance(value, dict) else None
        if not isinstance(number, str) or not _ID.match(number):
            return malformed(answer, request, "expected JSON with a prompt_id, got none")
        return Job(id=number, poll=f"/history/{number}", data={"looks": 0})

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what a look shows; a job that neither history nor queue know is lost."""
        if answer.status >= 300:
            return self.job_error(answer, request)
        value = answer.json()
        if not isinstance(value, dict):
            return malformed(answer, request, "expected JSON about a job, got something else")
        history = f"/history/{job.id}"
        if job.poll == "/queue":
            return replace(job, poll=history, data={"looks": 0, "lost": not queued(value, job.id)})
        entry = value.get(job.id)
        if isinstance(entry, dict):
            return self._ended(answer, request, job, entry)
        if job.data.get("lost"):
            why = "neither history nor queue know the job; was the server started anew?"
            return server(answer, request, why, Facts(billed="unknown", request_id=job.id))
        looks = int(job.data.get("looks", 0)) + 1
        return replace(
            job, poll="/queue" if looks % _ASK_QUEUE == 0 else history, data={"looks": looks}
        )

    async def cancel(self, client: httpx.AsyncClient, job: Job) -> None:
        """Take a job out of the queue; one that runs goes on, for others may share the server."""
        message = Message("POST", "/queue", json={"delete": [job.id]})
        await self._send(client, message, Trip(self._clock), CANCEL_TIMEOUT_S)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return the models whose nodes and files of weights the server has.

        Raises:
            GateError: The server does not answer, or an entry's graph is none.
        """
        await self.ask(client, "/system_stats")
        found = {}
        for model in models:
            try:
                graphs = [template(model, operation)[1] for operation in model.operations]
            except CannotAsk as error:
                raise GateError(str(error)) from None
            if all([await self._has(client, graph) for graph in graphs]):
                version = await self._stated_hash(client, graphs[0])
                pinned = model.version.startswith("sha256:")
                found[model.name] = ServedModel(model.name, version=version if pinned else None)
        return found

    async def _has(self, client: httpx.AsyncClient, graph: Graph) -> bool:
        """Return whether the server has every node of a graph, and every file it loads."""
        lists: dict[tuple[str, str], object] = {}
        for kind in sorted({node["class_type"] for node in graph.values()}):
            value = await self.ask(client, f"/object_info/{quote(kind, safe='')}")
            node = value.get(kind) if isinstance(value, dict) else None
            if not isinstance(node, dict):
                return False
            fields = node.get("input", {}).get("required", {})
            lists |= {(kind, f): rule[0] for f, rule in fields.items() if f in WEIGHTS and rule}
        return all(
            name in names if isinstance(names := lists.get((kind, field)), list) else True
            for kind, field, name in weights(graph)
        )

    async def _stated_hash(self, client: httpx.AsyncClient, graph: Graph) -> str | None:
        """Return the hash that the main weights of a graph state of themselves, if they do."""
        for _, field, name in weights(graph):
            if field in ("ckpt_name", "unet_name"):
                path = f"/view_metadata/{WEIGHTS[field]}?{urlencode({'filename': name})}"
                value = await self.ask(client, path, missing_ok=True)
                stated = value.get("modelspec.hash_sha256") if isinstance(value, dict) else None
                if isinstance(stated, str) and stated:
                    return f"sha256:{stated.lower().removeprefix('0x')}"
        return None

    def _ended(
        self, answer: Answer, request: GenerationRequest, job: Job, entry: Mapping[str, Any]
    ) -> Meaning:
        """Return what the history says about a job that ended."""
        status = entry.get("status")
        said = messages(status)
        on_gpu = request.model.price is not None and request.model.price.per == "gpu_second"
        seconds = busy(said)
        facts = Facts(
            request_id=job.id,
            usage=usage_of({}, gpu_seconds=seconds) if seconds is not None else None,
            # A GPU of one's own is busy with jobs that fail, too.
            billed="yes" if on_gpu else None,
        )
        if isinstance(status, Mapping) and status.get("status_str") == "error":
            return server(answer, request, fault(said), facts)
        sent, output = self.graph(_with_image(request))
        ran = entry.get("prompt")
        graph = ran[2] if isinstance(ran, list) and len(ran) > 2 else None
        if wrong := changed(sent, graph):
            return drift(answer, request, wrong, facts)
        outputs = entry.get("outputs")
        shown = outputs.get(output) if isinstance(outputs, Mapping) else None
        images = shown.get("images") if isinstance(shown, Mapping) else None
        if not isinstance(images, list) or not images:
            cached = "; ComfyUI had the whole graph cached" if all_cached(said, sent) else ""
            why = f"the job ended without a picture of node {output!r}{cached}"
            return empty(answer, request, why, facts)
        address = view(images[0])
        if address is None:
            why = (
                f"node {output!r} saved a file under a name that is not fetched: {images[0]!r:.120}"
            )
            return failed(FailureClass.ASSET_URL, answer, request, why, facts)
        return picture(answer, request, Asset(address, own=True), facts)


def template(model: Model, operation: str) -> tuple[str, Graph]:
    """Return where the template of an operation stands, in words, and the template.

    Raises:
        CannotAsk: The catalog entry has none, or it is no graph.
    """
    where = f"model {model.name!r}: options.graphs.{operation}"
    graphs = model.options.get("graphs")
    graph = graphs.get(operation) if isinstance(graphs, Mapping) else None
    if graph is None:
        raise CannotAsk(f"{where} is missing in the catalog; put a graph in API format there")
    return where, checked(graph, operation, where)


def _with_image(request: GenerationRequest) -> GenerationRequest:
    """Return the request with the name that its picture has on the server."""
    if request.operation == "generate":
        return request
    return replace(request, params={**request.params, "image": f"{FOLDER}/{_file(request)}"})


def _file(request: GenerationRequest) -> str:
    """Return the name under which the picture of a request is uploaded."""
    kind = (sniff_mime(request.image or b"") or "image/png").rpartition("/")[2]
    return f"{_safe(request.idempotency_key)}.{kind}"


def _safe(key: str) -> str:
    """Return an idempotency key as part of a file's name."""
    return re.sub(r"[^0-9A-Za-z_-]", "-", key)[:80]


def _refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return why a graph was not queued; a file of weights that is gone is a retired model."""
    value = answer.json()
    if not isinstance(value, dict):
        return http_error(answer, request)
    error = value.get("error")
    said = [f"{error.get('message')} {error.get('details', '')}"] if isinstance(error, dict) else []
    said += [error] if isinstance(error, str) else []
    gone = False
    for name, wrong in node_errors(value).items():
        errors = wrong.get("errors") if isinstance(wrong, dict) else None
        for each in errors if isinstance(errors, list) else []:
            details = str(each.get("details", "")) if isinstance(each, dict) else ""
            kind = each.get("type") if isinstance(each, dict) else None
            said.append(f"node {name!r} ({wrong.get('class_type')}): {kind}: {details}")
            field = details.partition(":")[0]
            gone = gone or (kind == "value_not_in_list" and field in WEIGHTS)
    if not said:
        return http_error(answer, request)
    failure = FailureClass.RETIRED if gone else FailureClass.BAD_REQUEST
    if answer.status >= 500 or answer.status in (401, 403, 429):
        return http_error(answer, request, message="; ".join(said))
    return failed(failure, answer, request, f"HTTP {answer.status}: {'; '.join(said)}")


ADAPTER = ComfyUIProvider
