"""The HAProxy router without an HAProxy: the rules of its entry, and a Runtime API that misbehaves.

``tests/real/test_real_haproxy_router.py`` has the same router with the real program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.routers.base import Desired, Share
from tasks.rollout.routers.config import HaproxyRouterConfig
from tasks.rollout.routers.entry import (
    POINTS,
    Arm,
    Entry,
    assign,
    entry_for,
    parse_entry,
    point_of,
    trial_keys,
)
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.rollout.routers.haproxy_runtime import Runtime, parse_map_file, render_map_file
from tests.rollout.routers.runtime_api import RuntimeApi

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
BACKENDS = ("shop-blue", "shop-green")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Any]:
    with RuntimeApi(str(tmp_path / "imagegate.map")) as server:
        yield server


def opened(api: RuntimeApi, **changes: Any) -> HaproxyRouter:
    value = {
        "kind": "haproxy",
        "instances": [{"socket": api.address, "map_file": api.map_file}],
        "products": {"shop": {"backends": [{"name": name} for name in BACKENDS]}},
        "timeout_s": 20,
    }
    return HaproxyRouter(HaproxyRouterConfig.model_validate(value | changes), lock_timeout_s=0.2)


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


@given(weight=st.integers(1, POINTS - 1).map(lambda n: n / POINTS), epoch=st.integers(1, 10**12))
def test_an_entry_is_read_back_as_it_was_written(weight: float, epoch: int) -> None:
    entry = Entry(epoch, round(weight * POINTS), Arm(A, "b", 1 - weight), Arm(B, "g", weight))
    assert parse_entry(entry.value) == entry
    assert entry.weights == {A: 1 - weight, B: weight}


@given(st.text(alphabet="v1|-sha256:abc0.9enif", max_size=200))
def test_no_text_in_the_map_breaks_the_reader(text: str) -> None:
    found = parse_entry(text)
    assert found is None or parse_entry(found.value) == found


@pytest.mark.parametrize(
    "value",
    [
        f"v2|0|b|-|{A}|-|1|1.0|0",
        f"v1|5|b|-|{A}|-|1|1.0|0",  # A cut without a candidate.
        f"v1|5|b|g|{A}|-|1|0.5|0.5",
        f"v1|1000001|b|g|{A}|{B}|1|0.5|0.5",
        f"v1|-5|b|g|{A}|{B}|1|0.5|0.5",
        f"v1|5|b|g|{A}|{B}|1|nan|0.5",
        f"v1|5|b g|g|{A}|{B}|1|0.5|0.5",
        "v1|0|b|-|winter|-|1|1.0|0",
    ],
)
def test_what_is_no_routing_is_none(value: str) -> None:
    assert parse_entry(value) is None


def test_the_cut_counts_and_not_what_was_asked() -> None:
    entry = parse_entry(f"v1|900000|b|g|{A}|{B}|3|0.95|0.05")
    assert entry is not None
    assert entry.weights == pytest.approx({A: 0.1, B: 0.9})


def test_a_mix_keeps_its_backend_and_another_takes_a_free_one() -> None:
    before = Entry(4, 500_000, Arm(A, "green", 0.5), Arm(B, "blue", 0.5))
    names = ("blue", "green")
    assert assign([A], before, names, None) == {A: "green"}
    assert assign([A, B], before, names, None) == {A: "green", B: "blue"}
    assert assign([B, C], before, names, None) == {B: "blue", C: "green"}
    assert assign([A, B], None, names, None) == {A: "blue", B: "green"}
    assert assign([A, B, C], None, names, None)[C] is None
    # One that the file does not name any more is not kept.
    assert assign([A], before, ("blue", "red"), None) == {A: "red"}
    # Asked, they decide.
    assert assign([C], before, names, {"blue": C, "green": A}) == {C: "blue"}
    assert assign([C], before, names, {"blue": B, "green": ""}) == {C: None}


def test_trial_keys_stand_on_either_side_of_every_cut() -> None:
    points = sorted(point_of(key) for key in trial_keys([50_000, 250_000]))
    assert len(points) == 3
    assert points[0] < 50_000 <= points[2]
    assert points[1] < 250_000 <= points[2]
    assert [point_of(key) < POINTS for key in trial_keys([0])] == [True]
    assert len(list(trial_keys([1], most=50))) == 1


def test_shares_that_haproxy_cannot_have_are_refused(
    winter: ResolvedMix, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    backends = {winter.digest: "a", summer.digest: "b", autumn.digest: "c"}
    three = (Share(winter, 0.5), Share(summer, 0.25), Share(autumn, 0.25))
    with pytest.raises(ValueError, match="at most two"):
        entry_for(Desired("shop", 1, three), backends)
    tiny = (Share(winter, 1 - 1e-8), Share(summer, 1e-8))
    with pytest.raises(ValueError, match="less than 1 in"):
        entry_for(Desired("shop", 1, tiny), backends)


def test_a_map_file_keeps_what_other_products_have(tmp_path: Path) -> None:
    values = {"shop": "v1|x", "cards": "v1|y"}
    text = render_map_file(values, tmp_path / "m")
    assert parse_map_file(text) == values
    assert parse_map_file("# a\n\n  shop   one two \nshop three\nbare\n") == {
        "shop": "one two",
        "bare": "",
    }


def test_it_applies_and_reads_back(
    api: RuntimeApi, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router = opened(api)
    router.probe()
    assert router.read("shop") is None
    router.apply(whole(winter, 1))
    wanted = Desired("shop", 2, (Share(winter, 0.7), Share(summer, 1 - 0.7)))
    router.apply(wanted)
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(wanted)
    count = len([c for c in api.commands if c.startswith("set map")])
    router.apply(wanted)
    assert len([c for c in api.commands if c.startswith("set map")]) == count


def test_an_haproxy_that_says_yes_and_does_nothing_is_found_out(
    api: RuntimeApi, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router = opened(api)
    router.apply(whole(winter, 1))
    api.lies = True
    router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert not shown.shows(whole(summer, 2))
    assert not shown.shows(whole(winter, 1))
    # The file has epoch 2 already, so nothing else may be written under it.
    assert shown.epoch == 2
    api.lies = False
    router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(summer, 2))


@pytest.mark.parametrize("stop", ["file", "memory"])
def test_a_process_killed_between_file_and_memory_is_finished_by_the_next(
    api: RuntimeApi,
    winter: ResolvedMix,
    summer: ResolvedMix,
    stop: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = opened(api)
    router.apply(whole(winter, 1))

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if stop == "file":
            patch.setattr("tasks.rollout.routers.haproxy.write_atomic", killed)
        else:
            patch.setattr(Runtime, "set_map", killed)
        with pytest.raises(Killed):
            router.apply(whole(summer, 2))
    assert parse_entry(api.values["shop"]).production.digest == winter.digest
    router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(summer, 2))


def test_one_that_stalls_is_an_error_in_time(api: RuntimeApi, winter: ResolvedMix) -> None:
    router = opened(api, timeout_s=0.05)
    api.bend = lambda command: b"stall" if command.startswith("show map") else None
    with pytest.raises(RolloutError, match="no answer in time"):
        router.read("shop")
    with pytest.raises(RolloutError, match="no answer in time"):
        router.apply(whole(winter, 1))


@pytest.mark.parametrize("nonsense", [b"\xff\xfe\n", b"Permission denied\n", b"<html>\n"])
def test_nonsense_is_an_error(api: RuntimeApi, winter: ResolvedMix, nonsense: bytes) -> None:
    router = opened(api)
    api.bend = lambda command: nonsense if " map " in command else None
    for step in (router.probe, lambda: router.read("shop"), lambda: router.apply(whole(winter, 1))):
        with pytest.raises(RolloutError):
            step()


def test_a_socket_that_may_only_look_is_named_before_the_change(api: RuntimeApi) -> None:
    api.bend = lambda command: b"Permission denied\n" if command.startswith("set map") else None
    with pytest.raises(RolloutError, match="level admin"):
        opened(api).probe()


def test_a_change_that_cannot_be_kept_is_not_made(
    api: RuntimeApi, winter: ResolvedMix, summer: ResolvedMix, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = opened(api)
    router.apply(whole(winter, 1))

    def full(*_: object) -> None:
        from tasks.errors import EvidenceError

        raise EvidenceError("the disk is full")

    monkeypatch.setattr("tasks.rollout.routers.haproxy.write_atomic", full)
    with pytest.raises(RolloutError, match="the disk is full"):
        router.apply(whole(summer, 2))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(winter, 1))


def test_of_two_entries_of_one_key_nothing_is_certain(api: RuntimeApi, winter: ResolvedMix) -> None:
    router = opened(api)
    router.apply(whole(winter, 1))
    value = api.values["shop"]
    api.bend = lambda command: (
        f"0x1 shop {value}\n0x2 shop {value}x\n\n".encode()
        if command.startswith("show map")
        else None
    )
    with pytest.raises(RolloutError, match="somebody else wrote it"):
        router.read("shop")


def test_who_changes_the_map_holds_its_lock(api: RuntimeApi, winter: ResolvedMix) -> None:
    router = opened(api)
    with (
        FileLock(f"{api.map_file}.lock"),
        pytest.raises(RolloutError, match="another process has been changing"),
    ):
        router.apply(whole(winter, 1))
    assert api.values == {}


def test_the_latest_epoch_of_file_and_memory_fences(
    api: RuntimeApi, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router = opened(api)
    router.apply(whole(winter, 7))
    api.values.clear()  # HAProxy was started again without its file.
    shown = router.read("shop")
    assert shown is not None
    assert shown.epoch == 7
    assert not shown.shows(whole(winter, 7))
    with pytest.raises(FencedError):
        router.apply(whole(summer, 6))
    router.apply(whole(winter, 7))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(winter, 7))


def test_a_rollback_does_not_hang_on_an_application_that_is_down(
    api: RuntimeApi, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    product = {
        "backends": [{"name": name} for name in BACKENDS],
        "probe_url": "http://127.0.0.1:9/",  # Nobody listens there.
    }
    router = opened(api, products={"shop": product})
    router.apply(whole(winter, 1))
    with pytest.raises(RolloutError, match="no answer"):
        router.apply(Desired("shop", 2, (Share(winter, 0.5), Share(summer, 0.5))))
    router.apply(whole(winter, 3))
    shown = router.read("shop")
    assert shown is not None
    assert shown.shows(whole(winter, 3))
    with pytest.raises(RolloutError, match="no answer"):
        router.probe()


def test_more_than_one_command_is_never_sent(api: RuntimeApi) -> None:
    runtime = Runtime(api.address)
    for command in ("show info; disable frontend shop", "show info\nshow stat", "set x <<\n"):
        with pytest.raises(RolloutError, match="more than one command"):
            runtime.ask(command)
    assert api.commands == []


@pytest.mark.parametrize(
    "change",
    [
        {"products": {}},
        {"products": {"shop": {"backends": [{"name": "one"}]}}},
        {"products": {"shop": {"backends": [{"name": "one"}, {"name": "one"}]}}},
        {"products": {"shop": {"backends": [{"name": "a|b"}, {"name": "one"}]}}},
        {"products": {"a b": {"backends": [{"name": "a"}, {"name": "b"}]}}},
        {"instances": []},
        {"instances": [{"socket": "/s", "map_file": "/m;disable"}]},
        {"instances": [{"socket": "/s", "map_file": "relative.map"}]},
    ],
)
def test_a_file_that_could_not_work_is_refused(change: dict[str, Any]) -> None:
    value = {
        "kind": "haproxy",
        "instances": [{"socket": "/run/h.sock", "map_file": "/etc/m"}],
        "products": {"shop": {"backends": [{"name": "a"}, {"name": "b"}]}},
    }
    HaproxyRouterConfig.model_validate(value)
    with pytest.raises(ValidationError):
        HaproxyRouterConfig.model_validate(value | change)


def test_backends_are_asked_all_or_none() -> None:
    asked = {"name": "a", "identity_url": "http://127.0.0.1/mix"}
    product: Callable[..., Any] = lambda *backends: {  # noqa: E731
        "kind": "haproxy",
        "instances": [{"socket": "/run/h.sock", "map_file": "/etc/m"}],
        "products": {"shop": {"backends": backends}},
    }
    with pytest.raises(ValidationError, match="or none of them"):
        HaproxyRouterConfig.model_validate(product(asked, {"name": "b"}))
    with pytest.raises(ValidationError, match="without a user"):
        HaproxyRouterConfig.model_validate(
            product(asked | {"identity_url": "http://u:p@h/"}, {"name": "b"})
        )
