"""Fakes that fail in turn and quote the key of whoever asks, in bodies and in headers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

#: Changes a true answer of either kit of fakes.
Fault = Callable[[Any], Any]
#: Fields of error bodies whose texts a client keeps.
_TEXTS = {"message", "detail", "title", "error", "errors", "msg", "finishMessage", "responseId"}


def forms(key: str) -> set[bytes]:
    """Return a key as it could lie in a file: plain, URL-quoted, and in base64 at each offset."""
    made = {key, quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1]}
    made |= {key.replace("/", "\\/"), quote(key, safe="").lower()}
    found = {text.encode() for text in made}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            # The letters at the ends depend on what stands before and after the key.
            text = encode(b"x" * offset + key.encode())
            found.add(text[4 : 4 + (len(text) - 8) // 4 * 4])
    return found


def says(status: int, text: str = "it went wrong", kind: str = "rejected") -> Fault:
    """Answer with an error in JSON, in the shapes of all providers at once."""
    value = {
        "error": {"message": text, "code": kind, "status": kind.upper()},
        "message": text,
        "detail": text,
        "title": text,
        "name": kind,
        "errors": [text],
    }
    body = json.dumps(value).encode()
    return lambda true: type(true)(status, body, {"content-type": "application/json"})


def page(status: int) -> Fault:
    """Answer with a page, as a gateway does."""
    body = b"<html><body>Bad gateway, you sent: KEY</body></html>"
    return lambda true: type(true)(status, body, {"content-type": "text/html"})


def reset(true: Any) -> Any:
    """Lose the connection."""
    return replace(true, **({"fault": "reset"} if hasattr(true, "fault") else {"wire": "reset"}))


class Quoting:
    """Mixed into a fake: requests to draw fail by the list, then all go well; all quote the key."""

    key = ""
    mark = ""
    faults_in_turn: Sequence[Fault] = ()
    #: Answers questions about what is served, in place of the truth.
    served: Fault | None = None

    def answer(self, request: Any) -> Any:
        """Return the answer with the key in it."""
        true = super().answer(request)  # type: ignore[misc]
        left: Iterator[Fault] = self.__dict__.setdefault("_left", iter(self.faults_in_turn))
        if request.method == "POST" and not request.path.endswith("/cancel"):
            true = next(left, lambda reply: reply)(true)
        elif self.served is not None:
            true = self.served(true)
        return quoting(true, self.key, self.mark)


def quoting(reply: Any, key: str, mark: str) -> Any:
    """Return an answer that quotes a key, wherever a client may keep a text."""
    said = f"{mark} {key} {base64.b64encode(b'x' + key.encode()).decode()} {quote(key, safe='')}"
    body = reply.body.replace(b"sent: KEY", f"sent: {said}".encode())
    if reply.headers.get("content-type", "").startswith("application/json"):
        value = _appended(json.loads(body), said)
        if isinstance(value, dict):
            value |= {"debug": said, key[:20]: said}
        body = json.dumps(value).encode()
    headers = {"x-request-id": f"{key}-1", "server": key, "x-amzn-requestid": key, "via": said}
    kept = {name: text for name, text in reply.headers.items() if name.lower() not in headers}
    return replace(reply, body=body, headers=kept | headers)


def _appended(value: Any, said: str, name: str = "") -> Any:
    if isinstance(value, str):
        return f"{said} {value}" if name in _TEXTS else value
    if isinstance(value, dict):
        return {key: _appended(item, said, key) for key, item in value.items()}
    return [_appended(item, said, name) for item in value] if isinstance(value, list) else value
