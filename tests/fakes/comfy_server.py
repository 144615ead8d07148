"""ComfyUI's server on loopback, which really follows the graphs that it is sent.

Written from the server's source, comfyanonymous/ComfyUI ``server.py`` (routes ``/prompt``,
``/history/{id}``, ``/view``, ``/queue``, ``/interrupt``, ``/upload/image``, ``/object_info``,
``/view_metadata/{folder}``, ``/system_stats``; the checks of file names) and ``execution.py``
(``validate_prompt`` with its errors and ``node_errors``; ``PromptQueue.task_done``, which writes
``{"prompt", "outputs", "status": {"status_str", "completed", "messages"}}``; handlers of custom
nodes that change a prompt before it is queued). The second reading is the community client
``comfy-api-client`` 0.1.0, driven against this fake by hand.

Few nodes are known here, the ones of the stock text-to-image, image-to-image and upscale graphs.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from tests.fakes.http_fake import HttpFake, Reply, Request, as_json, decoded, encoded, squares

CHECKPOINT = "sd_xl_base_1.0.safetensors"
#: How long a job keeps the GPU busy by the server's own clock.
BUSY_MS = 2_500
UPSCALER = "RealESRGAN_x4plus.pth"
#: sha256 of the weights as the file's own metadata states it.
SPEC_HASH = "0x" + hashlib.sha256(b"sd_xl_base_1.0").hexdigest()

#: Inputs of each node: a type, a list of allowed values, or a type with least and most.
_NODES: dict[str, dict[str, Any]] = {
    "CheckpointLoaderSimple": {"ckpt_name": [CHECKPOINT, "v1-5-pruned-emaonly.safetensors"]},
    "CLIPTextEncode": {"text": "STRING", "clip": "CLIP"},
    "EmptyLatentImage": {
        "width": ("INT", 16, 16_384),
        "height": ("INT", 16, 16_384),
        "batch_size": ("INT", 1, 4_096),
    },
    "KSampler": {
        "model": "MODEL",
        "seed": ("INT", 0, 2**64 - 1),
        "steps": ("INT", 1, 10_000),
        "cfg": ("FLOAT", 0.0, 100.0),
        "sampler_name": ["euler", "dpmpp_2m"],
        "scheduler": ["normal", "karras"],
        "positive": "CONDITIONING",
        "negative": "CONDITIONING",
        "latent_image": "LATENT",
        "denoise": ("FLOAT", 0.0, 1.0),
    },
    "VAEDecode": {"samples": "LATENT", "vae": "VAE"},
    "VAEEncode": {"pixels": "IMAGE", "vae": "VAE"},
    "LoadImage": {"image": "UPLOAD"},
    "UpscaleModelLoader": {"model_name": [UPSCALER]},
    "ImageUpscaleWithModel": {"upscale_model": "UPSCALE_MODEL", "image": "IMAGE"},
    "SaveImage": {"images": "IMAGE", "filename_prefix": "STRING"},
    "PreviewImage": {"images": "IMAGE"},
}
_OUTPUTS = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
    "CLIPTextEncode": ("CONDITIONING",),
    "EmptyLatentImage": ("LATENT",),
    "KSampler": ("LATENT",),
    "VAEDecode": ("IMAGE",),
    "VAEEncode": ("LATENT",),
    "LoadImage": ("IMAGE", "MASK"),
    "UpscaleModelLoader": ("UPSCALE_MODEL",),
    "ImageUpscaleWithModel": ("IMAGE",),
    "SaveImage": (),
    "PreviewImage": (),
}

_SYSTEM = {
    "os": "posix",
    "comfyui_version": "0.3.67",
    "python_version": "3.12.3",
    "embedded_python": False,
}

Graph = dict[str, Any]


def text_to_image() -> Graph:
    """Return the stock graph in API format, with the places that a client fills."""
    return {
        "3": _node(
            "KSampler",
            seed="{seed}",
            steps=20,
            cfg=8,
            sampler_name="euler",
            scheduler="normal",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": _node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "5": _node("EmptyLatentImage", width="{width}", height="{height}", batch_size=1),
        "6": _node("CLIPTextEncode", text="{prompt}", clip=["4", 1]),
        "7": _node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": _node("SaveImage", filename_prefix="imagegate", images=["8", 0]),
    }


def image_to_image() -> Graph:
    """Return the graph that starts from an uploaded picture."""
    graph = text_to_image()
    graph["3"]["inputs"] |= {"denoise": 0.5, "latent_image": ["11", 0]}
    graph["10"] = _node("LoadImage", image="{image}")
    graph["11"] = _node("VAEEncode", pixels=["10", 0], vae=["4", 2])
    del graph["5"]
    return graph


def upscale() -> Graph:
    """Return the graph that enlarges an uploaded picture four times."""
    return {
        "1": _node("LoadImage", image="{image}"),
        "2": _node("UpscaleModelLoader", model_name=UPSCALER),
        "3": _node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0]),
        "4": _node("SaveImage", filename_prefix="imagegate", images=["3", 0]),
    }


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


@dataclass
class _Job:
    number: int
    identity: str
    graph: Graph
    wanted: list[str]
    extra: dict[str, Any]
    polls: int = 0
    entry: dict[str, Any] | None = None


class ComfyServer(HttpFake):
    """One ComfyUI with its queue, its history and its output folder."""

    def __init__(self, token: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        #: A proxy in front asks for this bearer token; ComfyUI itself asks for none.
        self.token = token
        #: How many looks at the history a job takes.
        self.polls = 2
        #: Class of the node that fails when it is run.
        self.breaks: str | None = None
        #: Whether outputs of a graph that is cached whole are listed again.
        self.lists_cached = True
        #: What a custom node does to a graph before it is queued.
        self.on_prompt: Callable[[Graph], Graph] = lambda graph: graph
        self.has_metadata = True
        self.jobs: dict[str, _Job] = {}
        self.files: dict[tuple[str, str, str], bytes] = {}
        self._cache: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self._names = itertools.count(1)

    def forget(self) -> None:
        """Lose queue and history, as a restart does."""
        self.jobs.clear()

    def answer(self, request: Request) -> Reply:
        given = request.headers.get("authorization")
        if self.token is not None and given != f"Bearer {self.token}":
            page = b"<html><head><title>401 Authorization Required</title></head></html>"
            return Reply(401, page, {"content-type": "text/html"})
        path = request.path.removeprefix("/api")
        first = path.split("/")[1]
        if request.method == "POST":
            posts = {
                "prompt": self._prompt,
                "queue": self._drop,
                "interrupt": lambda _request: Reply(200),
                "upload": self._upload,
            }
            return posts[first](request) if first in posts else Reply(405)
        gets: dict[str, Callable[[Request], Reply]] = {
            "history": self._history,
            "queue": lambda _request: as_json(self._queue()),
            "view": self._view,
            "view_metadata": self._metadata,
            "object_info": self._object_info,
            "system_stats": lambda _request: as_json({"system": _SYSTEM, "devices": []}),
        }
        return gets[first](request) if first in gets else Reply(404)

    def _prompt(self, request: Request) -> Reply:
        body = request.json
        if "prompt" not in body:
            return as_json({"error": "no prompt", "node_errors": []}, 400)
        graph = self.on_prompt(copy.deepcopy(body["prompt"]))
        error, wanted, faults = self._validate(graph)
        if error is not None:
            return as_json({"error": error, "node_errors": faults}, 400)
        number = next(self._numbers)
        identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"job {number}"))
        extra = {"client_id": body.get("client_id")}
        self.jobs[identity] = _Job(number, identity, graph, wanted, extra)
        return as_json({"prompt_id": identity, "number": number, "node_errors": faults})

    def _validate(self, graph: Graph) -> tuple[dict[str, Any] | None, list[str], dict[str, Any]]:
        """Return the error of the whole, the good outputs, and the errors by node."""
        for name, node in graph.items():
            kind = node.get("class_type")
            if kind not in _NODES:
                message = f"Cannot execute because node {kind} does not exist."
                return _error("invalid_prompt", message, f"Node ID '#{name}'"), [], {}
        outputs = [n for n, v in graph.items() if v["class_type"] in ("SaveImage", "PreviewImage")]
        if not outputs:
            return _error("prompt_no_outputs", "Prompt has no outputs", ""), [], {}
        faults: dict[str, Any] = {}
        good = []
        for output in outputs:
            wrong = {n: e for n in _upstream(graph, output) if (e := self._faults(graph, n))}
            for name, errors in wrong.items():
                entry = {"errors": errors, "dependent_outputs": []}
                entry["class_type"] = graph[name]["class_type"]
                faults.setdefault(name, entry)["dependent_outputs"].append(output)
            if not wrong:
                good.append(output)
        if good:
            return None, good, faults
        said = "\n".join(
            f"{e['message']}: {e['details']}" for f in faults.values() for e in f["errors"]
        )
        message = "Prompt outputs failed validation"
        return _error("prompt_outputs_failed_validation", message, said), [], faults

    def _faults(self, graph: Graph, name: str) -> list[dict[str, Any]]:
        faults = []
        for field, rule in _NODES[graph[name]["class_type"]].items():
            inputs = graph[name].get("inputs", {})
            if field not in inputs:
                faults.append(_error("required_input_missing", "Required input is missing", field))
                continue
            value = inputs[field]
            if isinstance(value, list):
                kinds = _OUTPUTS.get(graph.get(value[0], {}).get("class_type", ""), ())
                got = kinds[value[1]] if value[1] < len(kinds) else None
                if got != rule:
                    detail = f"{field}, received_type({got}) mismatch input_type({rule})"
                    message = "Return type mismatch between linked nodes"
                    faults.append(_error("return_type_mismatch", message, detail))
            elif isinstance(rule, list):
                if value not in rule:
                    detail = f"{field}: '{value}' not in {rule}"
                    faults.append(_error("value_not_in_list", "Value not in list", detail))
            elif rule == "UPLOAD":
                if ("input", *_split(str(value))) not in self.files:
                    detail = f"{field} - Invalid image file: {value}"
                    message = "Custom validation failed for node"
                    faults.append(_error("custom_validation_failed", message, detail))
            elif isinstance(rule, tuple):
                faults += _number_faults(inputs, field, value, rule)
            elif rule == "STRING":
                inputs[field] = str(value)
        return faults

    def _history(self, request: Request) -> Reply:
        identity = request.path.partition("/history/")[2]
        found = {}
        for job in self.jobs.values():
            if identity in ("", job.identity):
                job.polls += 1
                if job.entry is None and job.polls > self.polls:
                    job.entry = self._run(job)
                if job.entry is not None:
                    found[job.identity] = job.entry
        return as_json(found)

    def _run(self, job: _Job) -> dict[str, Any]:
        start = {"prompt_id": job.identity, "timestamp": 1_764_426_300_000}
        said: list[Any] = [["execution_start", start]]
        key = json.dumps({n: job.graph[n] for o in job.wanted for n in _upstream(job.graph, o)})
        outputs: dict[str, Any] = {}
        status = "success"
        if key in self._cache:
            said.append(["execution_cached", {"nodes": list(job.graph), "prompt_id": job.identity}])
            outputs = self._cache[key] if self.lists_cached else {}
        else:
            said.append(["execution_cached", {"nodes": [], "prompt_id": job.identity}])
            try:
                for name in job.wanted:
                    outputs[name] = {"images": [self._saved(job.graph, name)]}
                self._cache[key] = outputs
            except _NodeError as error:
                status, outputs = "error", {}
                said.append(["execution_error", error.message(job)])
        if status == "success":
            end = {"prompt_id": job.identity, "timestamp": start["timestamp"] + BUSY_MS}
            said.append(["execution_success", end])
        return {
            "prompt": [job.number, job.identity, job.graph, job.extra, job.wanted],
            "outputs": outputs,
            "status": {"status_str": status, "completed": status == "success", "messages": said},
            "meta": {},
        }

    def _saved(self, graph: Graph, name: str) -> dict[str, str]:
        node = graph[name]
        pixels = self._value(graph, node["inputs"]["images"])
        self._broken(graph, name)
        kept = node["class_type"] == "SaveImage"
        prefix = node["inputs"].get("filename_prefix", "ComfyUI_temp")
        folder, _, stem = str(prefix).rpartition("/")
        file = f"{stem}_{next(self._names):05d}_.png"
        kind = "output" if kept else "temp"
        self.files[kind, folder, file] = encoded(pixels)
        return {"filename": file, "subfolder": folder, "type": kind}

    def _broken(self, graph: Graph, name: str) -> None:
        if graph[name]["class_type"] == self.breaks:
            raise _NodeError(name, self.breaks)

    def _value(self, graph: Graph, link: list[Any]) -> Any:
        """Return what a node brings, made from what its inputs bring."""
        name, slot = link
        self._broken(graph, name)
        given = {
            field: self._value(graph, value) if isinstance(value, list) else value
            for field, value in graph[name]["inputs"].items()
        }
        match graph[name]["class_type"]:
            case "CheckpointLoaderSimple":
                return given["ckpt_name"]
            case "CLIPTextEncode":
                return given["text"]
            case "EmptyLatentImage":
                return {"size": (given["width"], given["height"]), "start": None}
            case "VAEEncode":
                height, width = given["pixels"].shape[:2]
                return {"size": (width, height), "start": given["pixels"]}
            case "KSampler":
                key = f"{given['model']} {given['positive']} {given['negative']} {given['seed']}"
                pixels = squares(*given["latent_image"]["size"], key)
                start, denoise = given["latent_image"]["start"], given["denoise"]
                if start is not None:
                    pixels = cv2.addWeighted(start, 1 - denoise, pixels, denoise, 0)
                return pixels
            case "VAEDecode":
                return given["samples"]
            case "LoadImage":
                pixels = decoded(self.files["input", *_split(given["image"])])
                if pixels is None:
                    raise _NodeError(name, "LoadImage")
                return pixels if slot == 0 else None
            case "UpscaleModelLoader":
                return given["model_name"]
            case "ImageUpscaleWithModel":
                height, width = given["image"].shape[:2]
                return cv2.resize(given["image"], (4 * width, 4 * height))
        raise _NodeError(name, graph[name]["class_type"])

    def _view(self, request: Request) -> Reply:
        file = request.query.get("filename", "")
        if not file or file.startswith("/") or ".." in file:
            return Reply(400)
        key = (request.query.get("type", "output"), request.query.get("subfolder", ""), file)
        if key not in self.files:
            return Reply(404)
        disposition = f'filename="{file}"'
        headers = {"content-type": "image/png", "content-disposition": disposition}
        return Reply(200, self.files[key], headers)

    def _upload(self, request: Request) -> Reply:
        form = request.form or {}
        if "image" not in form or not form["image"].filename:
            return Reply(400)
        folder = form["subfolder"].text if "subfolder" in form else ""
        name = form["image"].filename
        if name.startswith("/") or ".." in name + folder:
            return Reply(400)
        self.files["input", folder, name] = form["image"].data
        return as_json({"name": name, "subfolder": folder, "type": "input"})

    def _queue(self) -> dict[str, Any]:
        waiting = [
            [j.number, j.identity, j.graph, j.extra, j.wanted]
            for j in self.jobs.values()
            if j.entry is None
        ]
        return {"queue_running": waiting[:1], "queue_pending": waiting[1:]}

    def _drop(self, request: Request) -> Reply:
        for identity in request.json.get("delete", []):
            job = self.jobs.get(identity)
            if job is not None and job.entry is None:
                del self.jobs[identity]
        return Reply(200)

    def _metadata(self, request: Request) -> Reply:
        name = request.query.get("filename", "")
        if not self.has_metadata or not name.endswith(".safetensors"):
            return Reply(404)
        return as_json({"modelspec.title": name, "modelspec.hash_sha256": SPEC_HASH})

    def _object_info(self, request: Request) -> Reply:
        wanted = request.path.split("/")[2:] or list(_NODES)
        found = {}
        for kind in wanted:
            if kind in _NODES:
                fields = {
                    f: [r] if isinstance(r, list) else [r, {}] for f, r in _NODES[kind].items()
                }
                found[kind] = {"input": {"required": fields}, "output": _OUTPUTS[kind]}
        return as_json(found)


class _NodeError(Exception):
    def __init__(self, node: str, kind: str) -> None:
        self.node, self.kind = node, kind

    def message(self, job: _Job) -> dict[str, Any]:
        return {
            "prompt_id": job.identity,
            "node_id": self.node,
            "node_type": self.kind,
            "executed": [],
            "exception_message": "Allocation on device \n",
            "exception_type": "torch.OutOfMemoryError",
            "traceback": ['  File "/srv/ComfyUI/execution.py", line 510, in execute\n'],
            "current_inputs": {},
            "current_outputs": [],
        }


def _upstream(graph: Graph, name: str) -> list[str]:
    """Return a node and all that it needs, each once."""
    found: list[str] = []
    left = [name]
    while left:
        here = left.pop()
        if here in found or here not in graph:
            continue
        found.append(here)
        inputs = graph[here].get("inputs", {}).values()
        left += [value[0] for value in inputs if isinstance(value, list)]
    return found


def _number_faults(
    inputs: dict[str, Any], field: str, value: Any, rule: tuple[Any, ...]
) -> list[dict[str, Any]]:
    kind, least, most = rule
    try:
        number = int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError) as error:
        message = f"Failed to convert an input value to a {kind} value"
        return [_error("invalid_input_type", message, f"{field}, {value}, {error}")]
    inputs[field] = number
    if number < least:
        message = f"Value {number} smaller than min of {least}"
        return [_error("value_smaller_than_min", message, field)]
    if number > most:
        message = f"Value {number} bigger than max of {most}"
        return [_error("value_bigger_than_max", message, field)]
    return []


def _split(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    return folder, file


def _error(kind: str, message: str, details: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}
