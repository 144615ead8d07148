"""AUTOMATIC1111's web API (``--api``) on loopback.

Written from the server's source, AUTOMATIC1111/stable-diffusion-webui ``modules/api/api.py`` and
``modules/api/models.py``: routes, request and response models, the error body ``{"error", "detail",
"body", "errors"}`` of its exception handler, FastAPI's own 422 and 404, basic authentication
(``--api-auth``), the ``X-Process-Time`` header, pictures in base64 without a prefix, and ``info``
as a JSON string with ``seed``, ``all_seeds``, ``sd_model_name`` and ``sd_model_hash`` (the first
ten digits of the checkpoint's sha256). ``process_images`` of ``modules/processing.py`` drops a
``sd_model_checkpoint`` that it does not know and answers with the loaded one: so does the fake.
The second reading is the community client ``webuiapi`` 0.9.17, driven against this fake by hand.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import cv2

from tests.fakes.http_fake import HttpFake, Reply, Request, as_json, decoded, encoded, squares

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M")
UPSCALERS = ("None", "Lanczos", "R-ESRGAN 4x+")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights."""

    model_name: str
    weights: str = "weights"
    #: The server knows the hash of a file only once it has loaded or hashed it.
    hashed: bool = True

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.model_name}:{self.weights}".encode()).hexdigest()

    @property
    def title(self) -> str:
        short = f" [{self.sha256[:10]}]" if self.hashed else ""
        return f"{self.model_name}.safetensors{short}"

    def item(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "model_name": self.model_name,
            "hash": self.sha256[:10] if self.hashed else None,
            "sha256": self.sha256 if self.hashed else None,
            "filename": f"/models/Stable-diffusion/{self.model_name}.safetensors",
            "config": None,
        }


CHECKPOINT = Checkpoint("sd_xl_base_1.0")
OTHER = Checkpoint("v1-5-pruned-emaonly")


class A1111Server(HttpFake):
    """One web UI with its checkpoints; the first one is loaded."""

    def __init__(
        self,
        checkpoints: tuple[Checkpoint, ...] = (CHECKPOINT, OTHER),
        auth: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.checkpoints, self.auth = checkpoints, auth
        self.loaded = checkpoints[0]
        #: Answer as an extension does that draws its own seed.
        self.ignore_seed = False
        self._random = itertools.count(3_000_000_000)

    def answer(self, request: Request) -> Reply:
        reply = self._answer(request)
        reply.headers["x-process-time"] = "0.0123"
        return reply

    def _answer(self, request: Request) -> Reply:
        route = request.path.removeprefix("/sdapi/v1/")
        get = {
            "sd-models": [c.item() for c in self.checkpoints],
            "options": {"sd_model_checkpoint": self.loaded.title, "samples_format": "png"},
            "samplers": [{"name": s, "aliases": [], "options": {}} for s in SAMPLERS],
            "upscalers": [
                {"name": u, "model_name": None, "model_path": None, "model_url": None, "scale": 4}
                for u in UPSCALERS
            ],
            "scripts": {"txt2img": [], "img2img": []},
        }
        post = {
            "txt2img": self._txt2img,
            "img2img": self._img2img,
            "extra-single-image": self._extra,
        }
        if not request.path.startswith("/sdapi/v1/") or route not in get | post:
            return as_json({"detail": "Not Found"}, 404)
        if self.auth is not None:
            wanted = base64.b64encode(self.auth.encode()).decode()
            if request.headers.get("authorization") != f"Basic {wanted}":
                return _error(401, "HTTPException", "Incorrect username or password")
        if request.method != ("GET" if route in get else "POST"):
            return as_json({"detail": "Method Not Allowed"}, 405)
        if route in get:
            return as_json(get[route])
        try:
            body = request.json
        except ValueError as error:
            return _invalid(("body", 0), str(error), "json_invalid")
        return post[route](body)

    def _txt2img(self, body: dict[str, Any]) -> Reply:
        return self._generation(body, None)

    def _img2img(self, body: dict[str, Any]) -> Reply:
        if body.get("init_images") is None:
            return _error(404, "HTTPException", "Init image not found")
        start = [_from_base64(each) for each in body["init_images"]]
        if not start or any(each is None for each in start):
            return _error(500, "HTTPException", "Invalid encoded image")
        return self._generation(body, start[0])

    def _generation(self, body: dict[str, Any], start: Any | None) -> Reply:
        for field, kind in (("width", int), ("height", int), ("steps", int), ("seed", int)):
            value = body.get(field, 0)
            if not isinstance(value, kind) or isinstance(value, bool):
                return _invalid(("body", field), "Input should be a valid integer", "int_parsing")
        if not isinstance(body.get("prompt", ""), str):
            return _invalid(("body", "prompt"), "Input should be a valid string", "string_type")
        sampler = body.get("sampler_name") or body.get("sampler_index") or "Euler"
        if sampler not in SAMPLERS:
            return _error(404, "HTTPException", "Sampler not found")
        wanted = (body.get("override_settings") or {}).get("sd_model_checkpoint")
        used = self.loaded
        for checkpoint in self.checkpoints:
            # What cannot be found is dropped, and the loaded checkpoint serves.
            if wanted in (checkpoint.title, checkpoint.model_name, checkpoint.sha256[:10]):
                used = checkpoint
        if not body.get("override_settings_restore_afterwards", True):
            self.loaded = used
        width, height = body.get("width", 512), body.get("height", 512)
        if width * height > 4096 * 4096:
            message = "CUDA out of memory. Tried to allocate 64.00 GiB"
            return _error(500, "OutOfMemoryError", "", message)
        seed = body.get("seed", -1)
        if seed == -1 or self.ignore_seed:
            seed = next(self._random)
        key = f"{used.sha256} {body.get('prompt')} {body.get('negative_prompt')} {seed}"
        pixels = squares(width, height, key)
        if start is not None:
            strength = body.get("denoising_strength", 0.75)
            old = cv2.resize(start, (width, height))
            pixels = cv2.addWeighted(old, 1 - strength, pixels, strength, 0)
        info = {
            "prompt": body.get("prompt", ""),
            "negative_prompt": body.get("negative_prompt", ""),
            "seed": seed,
            "all_seeds": [seed],
            "width": width,
            "height": height,
            "sampler_name": sampler,
            "cfg_scale": body.get("cfg_scale", 7.0),
            "steps": body.get("steps", 50),
            "batch_size": 1,
            "sd_model_name": used.model_name,
            "sd_model_hash": used.sha256[:10],
            "index_of_first_image": 0,
            "job_timestamp": "20261129142500",
            "version": "v1.10.1",
        }
        parameters = {name: value for name, value in body.items() if name != "init_images"}
        images = [base64.b64encode(encoded(pixels)).decode()]
        return as_json({"images": images, "parameters": parameters, "info": json.dumps(info)})

    def _extra(self, body: dict[str, Any]) -> Reply:
        if body.get("resize_mode", 0) not in (0, 1):
            return _invalid(("body", "resize_mode"), "Input should be 0 or 1", "literal_error")
        scale = body.get("upscaling_resize", 2)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or scale <= 0:
            message = "Input should be greater than 0"
            return _invalid(("body", "upscaling_resize"), message, "greater_than")
        pixels = _from_base64(body.get("image", ""))
        if pixels is None:
            return _error(500, "HTTPException", "Invalid encoded image")
        upscaler = body.get("upscaler_1", "None")
        if upscaler not in UPSCALERS:
            # An assertion of scripts/postprocessing_upscale.py.
            return _error(500, "AssertionError", "", f"could not find upscaler named {upscaler}")
        height, width = pixels.shape[:2]
        if body.get("resize_mode", 0) == 1:
            size = (body.get("upscaling_resize_w", 512), body.get("upscaling_resize_h", 512))
        else:
            size = (int(width * scale), int(height * scale))
        # Without an upscaler the picture is handed back as it came.
        larger = pixels if upscaler == "None" else cv2.resize(pixels, size)
        image = base64.b64encode(encoded(larger)).decode()
        return as_json({"html_info": "<p>Postprocess upscale by: 2</p>", "image": image})


def _from_base64(text: str) -> Any | None:
    if text.startswith("data:image/"):
        text = text.split(";")[1].split(",")[1]
    try:
        return decoded(base64.b64decode(text))
    except ValueError:
        return None


def _error(status: int, name: str, detail: str, errors: str = "") -> Reply:
    return as_json({"error": name, "detail": detail, "body": "", "errors": errors}, status)


def _invalid(where: tuple[Any, ...], message: str, kind: str) -> Reply:
    return as_json({"detail": [{"loc": list(where), "msg": message, "type": kind}]}, 422)
