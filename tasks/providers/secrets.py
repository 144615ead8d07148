"""Taking keys out of texts that providers wrote: they quote the key that they reject."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from tasks.providers.answers import clean

STARS = "***"
#: A piece of base64 shorter than this is not looked for: it would be found in anything.
_SHORTEST_PIECE = 8


class Redactor:
    """Replaces secrets in plain text, in base64 at any offset and URL-quoted.

    Args:
        secrets: The values; empty ones are left out.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if secret.strip() for form in _forms(secret.strip())}
        # Media types and schemes are put in lower case before they come here.
        self._forms = sorted(forms | {form.lower() for form in forms}, key=len, reverse=True)

    def __repr__(self) -> str:
        """Show how many forms there are, never one of them."""
        return f"Redactor({len(self._forms)} forms)"

    def text(self, text: str, limit: int = 300) -> str:
        """Return untrusted text for the record: without secrets, on one line, cut to a limit."""
        # Before anything is cut: half a key is a secret too.
        return clean(self.hide(text), limit)

    def hide(self, text: str) -> str:
        """Return text without secrets."""
        for form in self._forms:
            text = text.replace(form, STARS)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON value with every text in it redacted, names too."""
        if isinstance(value, str):
            return self.text(value, 200)
        if isinstance(value, dict):
            return {self.text(str(k), 80): self.value(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


def _forms(secret: str) -> Iterable[str]:
    """Yield the texts that a secret can appear as."""
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield quote(secret, safe="").lower() if "%" in quote(secret, safe="") else secret
    data = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            # Inside a longer text, the first and the last letters depend on the neighbours.
            whole = len(data) + offset
            text = encode(bytes(offset) + data).decode().rstrip("=")
            piece = text[(0, 2, 3)[offset] : len(text) - (1 if whole % 3 else 0)]
            if len(piece) >= _SHORTEST_PIECE:
                yield piece
