"""Which router makes production serve: the section ``router`` of the rollout file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tasks.policy import Strict


class FileRouterConfig(Strict):
    """Applications read a JSON file; see :mod:`tasks.rollout.routers.file`."""

    kind: Literal["file"] = "file"
    #: The file; ``IMAGEGATE_ROUTING_FILE`` when not given.
    path: Path | None = None


RouterConfig = FileRouterConfig
