"""Which code, on what, made a run: for the evidence and for the report."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata

from tasks.settings import PROJECT_ROOT

#: Libraries whose version can change a picture's verdict or a figure.
LIBRARIES = (
    "prefect",
    "great-expectations",
    "pandas",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "onnxruntime",
    "rapidocr",
    "pyanime4k",
    "httpx",
    "pydantic",
    "sqlalchemy",
    "pyarrow",
)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str | None:
    """Return what git says about the checkout, ``None`` without git or without a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@lru_cache(maxsize=1)
def provenance() -> dict[str, str]:
    """Return the version of the code, of Python, of the platform and of the libraries."""
    # Without this test an installed package would report the commit of whatever repository
    # happens to surround it.
    inside = _git("ls-files", "--error-unmatch", "tasks/records.py") is not None
    commit = _git("rev-parse", "HEAD") if inside else None
    changed = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    found = {
        "imagegate": _version("imagegate"),
        "git commit": (commit or "none") + (" with local changes" if changed else ""),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }
    return found | {name: _version(name) for name in LIBRARIES}
