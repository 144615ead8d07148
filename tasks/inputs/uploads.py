"""Uploaded pictures are named by paths from data files: what such a path may be."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def upload_problem(value: str, datasets: Path) -> str | None:
    """Return why ``value`` cannot name a picture below ``datasets``, or ``None`` when it can.

    The path comes from a log or a stress file, so it is read as hostile: relative, with forward
    slashes, without steps upwards, and still inside the folder after symbolic links.
    """
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or any(c in value for c in "\\\0:"):
        return f"must be a relative path inside {datasets.name}/, got {value[:120]!r}"
    try:
        target = (datasets / path).resolve()
        inside = target.is_relative_to(datasets.resolve())
        present = inside and target.is_file()
    except (OSError, ValueError, RuntimeError):
        inside = present = False
    if not inside:
        return f"must stay inside {datasets.name}/, got {value[:120]!r}"
    if not present:
        return f"no such file in {datasets.name}/: {value[:120]!r}"
    return None
