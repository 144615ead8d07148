"""Telling a gate that refused from a gate that broke, by the message of Prefect's state."""

from __future__ import annotations

import re

from tasks import errors

#: Names of the errors by which nothing was spent: wrong input, or a rule that says no.
REFUSALS = frozenset(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ImagegateError) and kind.exit_code == 2
) | {"ValidationError", "ParameterTypeError", "SignatureMismatchError"}

# Prefect's message: "Flow run encountered an exception: ConfigError: …", or, for parameters that
# do not fit, "Validation of flow parameters failed with error: ParameterTypeError: …".
_NAME = re.compile(
    r"(?:encountered an exception|failed with error|with error)[:.]?\s*(?:[\w.]+\.)?(\w+)\b"
)


def error_name(message: str) -> str | None:
    """Return the name of the exception in the message of a failed state, if there is one."""
    found = _NAME.search(message)
    return found.group(1) if found else None


def is_refusal(message: str, state_name: str = "") -> bool:
    """Return whether a flow run failed because it was refused: nothing spent, nothing changed."""
    return state_name == "Refused" or error_name(message) in REFUSALS
