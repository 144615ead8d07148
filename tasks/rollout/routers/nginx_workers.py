"""Which of nginx's worker processes still take connections, as far as this machine can see.

A reload starts new workers, and tells the old ones a moment later to take no more: until each has
heard, a request may be routed as before. A worker that has heard says so in its title.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def workers_beside(pid: int | None) -> frozenset[int]:
    """Return the workers of the nginx that a worker belongs to, itself included.

    Args:
        pid: The worker, by nginx's own ``$pid``; ``None`` when it does not say.

    Returns:
        Nothing where that process cannot be seen, or is no worker of nginx: it may be in a
        container, or on another machine.
    """
    if pid is None or not _title(pid).startswith("nginx: worker process"):
        return frozenset()
    master = _parent(pid)
    numbers = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return frozenset(
        number
        for number in numbers
        if _title(number).startswith("nginx: worker process") and _parent(number) == master
    )


def taking_connections(pids: frozenset[int]) -> bool:
    """Tell whether any of these workers still takes connections."""
    return any(
        title.startswith("nginx: worker process") and "shutting down" not in title
        for title in map(_title, pids)
    )


def _title(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
    except OSError:
        return ""


def _parent(pid: int) -> int | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="latin-1")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; state and parent come after it.
    return int(text.rpartition(")")[2].split()[1])
