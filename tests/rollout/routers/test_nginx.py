"""The nginx router without an nginx: commands and workers that misbehave.

``tests/real/test_real_nginx_router.py`` has the same router with the real program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.routers.base import Desired, Share
from tasks.rollout.routers.config import NginxRouterConfig
from tasks.rollout.routers.entry import Arm, Entry, trial_keys
from tasks.rollout.routers.nginx import NginxRouter, point_of, render
from tests.rollout.routers.web import Asked, Said, Web

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


class Workers(Web):
    """What nginx's workers run: the state of the file when they were told to load it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        #: Whether the reload command was heard: workers load the file when they are next asked.
        self.deaf = False
        self.state = ""

    def handle(self, asked: Asked) -> Said:
        path = self.folder / "shop.conf"
        if not self.deaf and (self.folder / "reloaded").exists():
            text = path.read_text(encoding="utf-8")
            self.state = text.partition("# routing: ")[2].partition("\n")[0]
            (self.folder / "reloaded").unlink()
        return Said(200, raw=self.state.encode())


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with Workers(tmp_path) as server:
        yield server


def shown_configuration(folder: Path, *, upstreams: str = "shop-blue shop-green") -> list[str]:
    """Return a command that prints a configuration as ``nginx -T`` does."""
    code = (
        "import pathlib, sys\n"
        f"print(' '.join(f'upstream {{n}} {{{{ }}}}' for n in {upstreams!r}.split()))\n"
        f"path = pathlib.Path({str(folder / 'shop.conf')!r})\n"
        "print(path.read_text() if path.exists() else '')\n"
    )
    return [sys.executable, "-c", code]


def opened(workers: Workers, **changes: Any) -> NginxRouter:
    touch = f"import pathlib; pathlib.Path({str(workers.folder / 'reloaded')!r}).touch()"
    value = {
        "kind": "nginx",
        "include_dir": str(workers.folder),
        "products": {
            "shop": {
                "backends": [{"name": "shop-blue"}, {"name": "shop-green"}],
                "status_url": f"{workers.url}/imagegate/shop",
            }
        },
        "test_command": shown_configuration(workers.folder),
        "reload_command": [sys.executable, "-c", touch],
        "timeout_s": 20,
        "settle_s": 60,
    }
    return NginxRouter(NginxRouterConfig.model_validate(value | changes), lock_timeout_s=0.2)


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def test_it_applies_and_reads_back(
    workers: Workers, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router = opened(workers)
    router.probe()
    assert router.read("shop") is None
    router.apply(whole(winter, 1))
    wanted = Desired("shop", 2, (Share(winter, 0.9999), Share(summer, 0.0001)))
    router.apply(wanted)
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(wanted)
    with pytest.raises(FencedError, match="comes too late"):
        router.apply(whole(winter, 1))


def test_a_reload_that_nobody_heard_is_found_out(
    workers: Workers, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    opened(workers).apply(whole(winter, 1))
    workers.deaf = True
    router = opened(workers, settle_s=0.05)
    with pytest.raises(RolloutError, match="workers do not run epoch 2"):
        router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert (shown.epoch, dict(shown.weights)) == (2, {})
    workers.deaf = False
    router = opened(workers)
    router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(summer, 2))


def test_old_workers_that_still_answer_are_waited_for(
    workers: Workers, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router = opened(workers)
    router.apply(whole(winter, 1))
    old, answered = workers.state, []

    def now_and_then(asked: Asked) -> Said | None:
        # For a while every third connection is taken by a worker that was not told yet.
        answered.append(asked)
        late = len(answered) < 12 and len(answered) % 3 == 0
        return Said(200, raw=old.encode()) if late else None

    workers.bend = now_and_then
    router.apply(whole(summer, 2))
    assert len(answered) > 12


@pytest.mark.parametrize("command", [["/no/such/program"], [sys.executable, "-c", "exit(1)"]])
def test_a_check_that_fails_takes_the_file_back(
    workers: Workers, winter: ResolvedMix, summer: ResolvedMix, command: list[str]
) -> None:
    failing = opened(workers, test_command=command)
    with pytest.raises(RolloutError, match=r"cannot be run|ends with 1"):
        failing.apply(whole(winter, 1))
    assert not (workers.folder / "shop.conf").exists()
    opened(workers).apply(whole(winter, 1))
    before = (workers.folder / "shop.conf").read_text(encoding="utf-8")
    with pytest.raises(RolloutError):
        failing.apply(whole(summer, 2))
    assert (workers.folder / "shop.conf").read_text(encoding="utf-8") == before


def test_a_file_that_is_not_included_is_said(workers: Workers, winter: ResolvedMix) -> None:
    blind = [sys.executable, "-c", "print('upstream shop-blue { } upstream shop-green { }')"]
    with pytest.raises(RolloutError, match="does not include"):
        opened(workers, test_command=blind).apply(whole(winter, 1))


@pytest.mark.parametrize(
    "said", [Said(200, raw=b"hello"), Said(500), Said(302, None, {"Location": "http://x/"})]
)
def test_nonsense_of_the_workers_is_an_error(
    workers: Workers, winter: ResolvedMix, said: Said
) -> None:
    workers.bend = lambda asked: said
    for step in (lambda: opened(workers).read("shop"), lambda: opened(workers).probe()):
        with pytest.raises(RolloutError, match=r"nginx-canary\.conf"):
            step()


def test_the_include_file_says_all_sides() -> None:
    entry = Entry(7, 2_500, Arm(A, "blue", 0.9975), Arm(B, "green", 0.0025))
    text = render("my-shop", entry)
    assert 'split_clients "$imagegate_key" $imagegate_my_shop_arm {\n  0.25% candidate;' in text
    assert "candidate green;\n  default blue;" in text
    assert f"candidate {B};\n  default {A};" in text
    assert text.count(entry.value) == 2
    alone = render("shop", Entry(8, 0, Arm(A, "blue", 1.0)))
    assert "candidate" not in alone


def test_a_key_has_the_point_that_nginx_gives_it() -> None:
    # nginx 1.22 with a hundred parts of 1 % put these keys into parts 57, 10, 7, 15 and 37.
    points = [point_of(key) for key in ("a", "ab", "abc", "abcd", "abcde")]
    assert [point // 10_000 for point in points] == [57, 10, 7, 15, 37]
    sides = [point_of(key) < 250_000 for key in trial_keys([250_000], point_of)]
    assert sorted(sides) == [False, True]


def test_products_that_would_share_variables_are_refused(workers: Workers) -> None:
    product = {
        "backends": [{"name": "a"}, {"name": "b"}],
        "status_url": "http://127.0.0.1/x",
    }
    with pytest.raises(ValidationError, match="variables of one name"):
        opened(workers, products={"a-b": product, "a.b": product})
