"""The example of a rollout file: every router in it can be opened as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.rollout.config import RolloutConfig, load_rollout, open_router
from tasks.settings import load_settings
from tests.conftest import ROOT

TEXT = (ROOT / "deployments" / "rollout.example.yaml").read_text(encoding="utf-8")
KEYS = {"LITELLM_ADMIN_KEY": "k1", "ROUTING_HOOK_KEY": "k2"}


def alternatives() -> dict[str, str]:
    """Return the routers that stand there as comments, by their kind."""
    blocks = [block for block in TEXT.split("\n\n") if block.startswith("# router:")]
    texts = ["\n".join(line[2:] for line in block.splitlines()) for block in blocks]
    return {yaml.safe_load(text)["router"]["kind"]: text for text in texts}


def test_the_example_can_be_used_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(TEXT, encoding="utf-8")
    settings = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path)
    assert load_rollout(settings).router.kind == "haproxy"
    assert type(open_router(settings)).__name__ == "HaproxyRouter"


@pytest.mark.parametrize("kind", ["file", "nginx", "gateway-api", "litellm", "webhook"])
def test_every_router_of_the_example_opens(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(alternatives()[kind], encoding="utf-8")
    settings = load_settings(KEYS | {"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path)
    router = open_router(settings)
    assert all(callable(getattr(router, name)) for name in ("read", "apply", "probe"))


def test_the_example_names_every_router_there_is() -> None:
    schema = RolloutConfig.model_json_schema()
    kinds = set(schema["properties"]["router"]["discriminator"]["mapping"])
    assert kinds == {*alternatives(), "haproxy"}
