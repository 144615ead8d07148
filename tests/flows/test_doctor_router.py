"""What the doctor says of the router."""

from __future__ import annotations

from pathlib import Path

from flows.doctor import _look, _router
from tasks.settings import load_settings


def test_a_router_that_can_be_changed_is_fine(tmp_path: Path) -> None:
    settings = load_settings({}, home=tmp_path)
    found = _look("router", lambda: _router(settings))
    assert found["ok"]
    assert found["detail"].startswith("file: ")
    assert not settings.routing_file.exists()


def test_a_router_that_cannot_is_told_before_a_release_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(
        "router:\n  kind: haproxy\n"
        f"  instances: [{{socket: {tmp_path}/none.sock, map_file: {tmp_path}/imagegate.map}}]\n"
        "  products: {shop: {backends: [{name: blue}, {name: green}]}}\n",
        encoding="utf-8",
    )
    settings = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path)
    found = _look("router", lambda: _router(settings))
    assert not found["ok"]
    assert "none.sock" in found["detail"]
    path.write_text("router: {kind: pigeon}\n", encoding="utf-8")
    assert not _look("router", lambda: _router(settings))["ok"]
