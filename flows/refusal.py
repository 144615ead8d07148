"""A flow that refuses ends in the state ``Refused`` with a sentence, instead of a traceback.

The state's type is FAILED, not CANCELLED: the run did not do what was asked for and somebody has
to mend something, so it is red, is found under failed runs, and ends ``prefect deployment run
--watch`` with an error. CANCELLED would read as if a person had stopped it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Failed

from tasks.errors import ConfigError, RefusedError

P = ParamSpec("P")

#: The state's name; failures of the gate itself keep ``Failed`` and ``Crashed``.
REFUSED = "Refused"


def refusals_as_states(run: Callable[P, State[Any]]) -> Callable[P, State[Any]]:
    """Return the flow function with wrong input and refusals as a state; others are raised on.

    The error is the state's data: whoever asks for the result in this process gets it raised.
    """

    @wraps(run)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> State[Any]:
        try:
            return run(*args, **kwargs)
        except (ConfigError, RefusedError) as error:
            get_run_logger().error("Refused: %s", error)
            return Failed(name=REFUSED, message=str(error), data=error)

    # Prefect builds the parameters' model from the signature, in this module's names.
    refusing.__signature__ = inspect.signature(run, eval_str=True)  # type: ignore[attr-defined]
    return refusing
