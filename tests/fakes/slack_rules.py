"""What Slack takes and refuses in a message, and what people see of it; by its own documents."""

from __future__ import annotations

import re
from typing import Any

#: What Slack turns into mentions, channels and links: angle brackets that are not escaped.
MARKUP = re.compile(r"<([^<>]+)>")
ENTITY = re.compile(r"&(?!amp;|lt;|gt;)")
TEXT_LIMITS = {"header": 150, "section": 3000}


def units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def text_problem(value: Any, kinds: set[str], most: int) -> str | None:
    """Return what is wrong with a text object, as Block Kit sees it."""
    if not isinstance(value, dict) or value.get("type") not in kinds:
        return f"must be a text object of {sorted(kinds)}"
    allowed = {"type", "text", "emoji" if value["type"] == "plain_text" else "verbatim"}
    if set(value) - allowed:
        return f"unknown fields {sorted(set(value) - allowed)}"
    text = value.get("text")
    if not isinstance(text, str) or not text.strip():
        return "text must be a string with something in it"
    if units(text) > most:
        return f"text has {units(text)} characters, at most {most} are allowed"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        return "text is not valid Unicode"
    return None


def block_problem(block: Any) -> str | None:
    """Return what is wrong with a block, ``None`` when Slack would take it."""
    if not isinstance(block, dict):
        return "must be an object"
    kind = block.get("type")
    if kind == "divider":
        return None if set(block) <= {"type", "block_id"} else "unknown field"
    if kind == "section" and "fields" in block:
        return fields_problem(block)
    if kind in TEXT_LIMITS:
        if set(block) - {"type", "text", "block_id"}:
            return "unknown field"
        kinds = {"plain_text"} if kind == "header" else {"plain_text", "mrkdwn"}
        return text_problem(block.get("text"), kinds, TEXT_LIMITS[kind])
    if kind == "context":
        elements = block.get("elements")
        if not isinstance(elements, list) or not 1 <= len(elements) <= 10:
            return "needs 1 to 10 elements"
        found = (text_problem(e, {"plain_text", "mrkdwn"}, 3000) for e in elements)
        return next((problem for problem in found if problem), None)
    if kind == "actions":
        elements = block.get("elements")
        if not isinstance(elements, list) or not 1 <= len(elements) <= 25:
            return "needs 1 to 25 elements"
        names = [element.get("action_id") for element in elements]
        if len(set(names)) != len(names):
            return "action_id must be unique in a block"
        return next((problem for e in elements if (problem := button_problem(e))), None)
    return f"unknown block type {kind!r}"


def fields_problem(block: dict[str, Any]) -> str | None:
    """Return what is wrong with a section of fields; a text above them is allowed."""
    fields = block["fields"]
    if set(block) - {"type", "text", "fields", "block_id"}:
        return "unknown field"
    if not isinstance(fields, list) or not 1 <= len(fields) <= 10:
        return "needs 1 to 10 fields"
    kinds = {"plain_text", "mrkdwn"}
    found = [text_problem(field, kinds, 2000) for field in fields]
    if "text" in block:
        found.append(text_problem(block["text"], kinds, TEXT_LIMITS["section"]))
    return next((problem for problem in found if problem), None)


def button_problem(button: Any) -> str | None:
    """Return what is wrong with a button."""
    known = {"type", "action_id", "text", "value", "style", "confirm", "url"}
    if not isinstance(button, dict) or button.get("type") != "button" or set(button) - known:
        return "must be a button of known fields"
    if not 1 <= len(str(button.get("action_id", ""))) <= 255:
        return "action_id has 1 to 255 characters"
    if units(str(button.get("value", ""))) > 2000:
        return "value has at most 2000 characters"
    if button.get("style", "primary") not in ("primary", "danger"):
        return "style is primary or danger"
    if (problem := text_problem(button.get("text"), {"plain_text"}, 75)) is not None:
        return problem
    confirm = button.get("confirm")
    if confirm is None:
        return None
    limits = {"title": 100, "text": 300, "confirm": 30, "deny": 30}
    if set(confirm) != set(limits):
        return f"confirm needs {sorted(limits)}"
    kinds = {"plain_text", "mrkdwn"}
    found = (text_problem(confirm[name], kinds, most) for name, most in limits.items())
    return next((problem for problem in found if problem), None)


def message_problem(body: dict[str, Any]) -> tuple[str, list[str]] | None:
    """Return Slack's error code and its details for a message that it would refuse."""
    blocks = body.get("blocks")
    if not body.get("text") and not blocks:
        return "no_text", []
    if units(str(body.get("text", ""))) > 40_000:
        return "msg_too_long", []
    if blocks is not None:
        if not isinstance(blocks, list):
            return "invalid_blocks_format", []
        if len(blocks) > 50:
            return "invalid_blocks", [f"no more than 50 items allowed, got {len(blocks)}"]
        details = [
            f"{problem} [json-pointer:/blocks/{number}]"
            for number, block in enumerate(blocks)
            if (problem := block_problem(block))
        ]
        if details:
            return "invalid_blocks", details
    metadata = body.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict)
        and isinstance(metadata.get("event_type"), str)
        and isinstance(metadata.get("event_payload"), dict)
    ):
        return "invalid_metadata_format", []
    return None


def texts_of(body: dict[str, Any]) -> list[str]:
    """Return every text of a message that people would see."""
    found = [str(body.get("text", ""))]
    for block in body.get("blocks") or []:
        objects = [block.get("text"), *(block.get("elements") or []), *(block.get("fields") or [])]
        texts = [o["text"] for o in objects if isinstance(o, dict) and "text" in o]
        found += [t["text"] if isinstance(t, dict) else t for t in texts]
    return found


def markup_of(body: dict[str, Any]) -> list[str]:
    """Return everything in a message that Slack would act on: mentions, channels, links."""
    return [match for text in texts_of(body) for match in MARKUP.findall(text)]
