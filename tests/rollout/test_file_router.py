from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.file import FileRouter, read_routing


def whole(mix: ResolvedMix, epoch: int, product: str = "shop") -> Desired:
    return Desired(product, epoch, (Share(mix, 1.0),))


def test_what_was_applied_is_read_back(router: FileRouter, winter: ResolvedMix) -> None:
    assert router.read("shop") is None
    router.apply(whole(winter, 1))
    assert router.read("shop") == RouterState("shop", winter.digest, 1, {winter.digest: 1.0})
    assert router.read("other") is None


def test_an_application_can_route_by_the_file_alone(
    router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router.apply(Desired("shop", 3, (Share(winter, 0.9), Share(summer, 0.1))))
    entry = read_routing(router.path).products["shop"]
    assert (entry.mix_name, entry.epoch) == ("winter", 3)
    taken = [entry.mix_for(f"request-{n}").digest for n in range(2000)]
    assert taken == [entry.mix_for(f"request-{n}").digest for n in range(2000)]
    assert 0.06 < taken.count(summer.digest) / len(taken) < 0.14
    route = entry.mix_for("request-1").alternative("typography", "request-1")
    assert route.stages[0].model in {"folio-1", "folio-2"}


def test_the_file_is_plain_json_for_those_who_read_it_otherwise(
    router: FileRouter, winter: ResolvedMix
) -> None:
    router.apply(whole(winter, 1))
    value = json.loads(router.path.read_text(encoding="utf-8"))
    assert value["schema_version"] == 1
    product = value["products"]["shop"]
    assert product["weights"] == {winter.digest: 1.0}
    manifest = product["mixes"][product["mix_digest"]]
    assert set(manifest["mix"]["routes"]) == {"typography", "creative", "fast", "edit", "upscale"}
    assert manifest["models"][0]["version"] == "folio-1-2026-01-01"


def test_products_do_not_touch_each_other(
    router: FileRouter, winter: ResolvedMix, make_mix: Callable[..., ResolvedMix]
) -> None:
    other = make_mix("other", "folio-7", product="cards")
    router.apply(whole(winter, 4))
    router.apply(whole(other, 1, "cards"))
    router.apply(whole(other, 2, "cards"))
    shop, cards = router.read("shop"), router.read("cards")
    assert shop is not None
    assert cards is not None
    assert (shop.epoch, shop.mix_digest) == (4, winter.digest)
    assert (cards.epoch, cards.mix_digest) == (2, other.digest)


def test_an_older_epoch_never_comes_back(
    router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    router.apply(whole(summer, 5))
    before = router.path.read_bytes()
    with pytest.raises(FencedError, match=r"epoch 5.*epoch 4"):
        router.apply(whole(winter, 4))
    with pytest.raises(FencedError):
        router.apply(whole(winter, 5))
    with pytest.raises(FencedError):
        router.apply(Desired("shop", 5, (Share(summer, 0.5), Share(winter, 0.5))))
    assert router.path.read_bytes() == before


def test_the_same_again_is_not_even_a_write(router: FileRouter, winter: ResolvedMix) -> None:
    router.apply(whole(winter, 1))
    before = router.path.stat().st_mtime_ns, router.path.stat().st_ino
    router.apply(whole(winter, 1))
    assert (router.path.stat().st_mtime_ns, router.path.stat().st_ino) == before


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=8))
def test_the_epoch_shown_never_falls_and_never_changes_its_content(
    tmp_path_factory: pytest.TempPathFactory,
    winter: ResolvedMix,
    summer: ResolvedMix,
    changes: list[tuple[int, bool]],
) -> None:
    router = FileRouter(tmp_path_factory.mktemp("routing") / "routing.json")
    contents: dict[int, str] = {}
    highest = 0
    for epoch, first in changes:
        mix = winter if first else summer
        allowed = epoch > highest or contents.get(epoch) == mix.digest == contents.get(highest)
        if allowed and epoch >= highest:
            router.apply(whole(mix, epoch))
            highest, contents[epoch] = epoch, mix.digest
        else:
            with pytest.raises(FencedError):
                router.apply(whole(mix, epoch))
        shown = router.read("shop")
        assert (shown.epoch if shown else 0) == highest
        assert (shown.mix_digest if shown else None) == contents.get(highest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("[]", "whole file"),
        ('{"products": {"shop": {}}}', r"products\.shop"),
        ('{"schema_version": 1, "products": {}, "more": 1}', "'more'"),
    ],
)
def test_a_damaged_file_is_said_to_be_damaged(router: FileRouter, text: str, problem: str) -> None:
    router.path.write_text(text)
    with pytest.raises(RolloutError, match=problem):
        router.read("shop")


def test_a_manifest_altered_in_the_file_is_noticed(router: FileRouter, winter: ResolvedMix) -> None:
    router.apply(whole(winter, 1))
    text = router.path.read_text(encoding="utf-8")
    router.path.write_text(text.replace("folio-1-2026-01-01", "folio-1-2026-02-02"))
    with pytest.raises(RolloutError, match="was altered"):
        router.read("shop")


def test_a_file_of_a_later_imagegate_is_left_alone(router: FileRouter, winter: ResolvedMix) -> None:
    text = '{"schema_version": 2, "services": {}}'
    router.path.write_text(text)
    with pytest.raises(RolloutError, match="schema version 2"):
        router.apply(whole(winter, 1))
    assert router.path.read_text() == text


def test_a_missing_file_is_an_error_only_for_applications(router: FileRouter) -> None:
    assert router.read("shop") is None
    with pytest.raises(RolloutError, match="no such routing file"):
        read_routing(router.path)


def test_disk_full_leaves_the_old_routing(
    router: FileRouter, winter: ResolvedMix, summer: ResolvedMix, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.apply(whole(winter, 1))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RolloutError, match=r"as before.*disk is full"):
        router.apply(whole(summer, 2))
    monkeypatch.undo()
    shown = router.read("shop")
    assert shown is not None
    assert shown.mix_digest == winter.digest
    assert [p.name for p in router.path.parent.iterdir() if p.name.endswith(".tmp")] == []


def test_who_holds_the_lock_is_waited_for_only_so_long(
    router: FileRouter, winter: ResolvedMix
) -> None:
    with FileLock(f"{router.path}.lock"), pytest.raises(RolloutError, match="another process"):
        router.apply(whole(winter, 1))
    router.apply(whole(winter, 1))


def test_what_a_killed_writer_left_is_swept_up(router: FileRouter, winter: ResolvedMix) -> None:
    left = router.path.with_name(".routing.json.4711.tmp")
    left.write_text("{half")
    router.apply(whole(winter, 1))
    assert not left.exists()


def test_probe_touches_nothing(router: FileRouter, winter: ResolvedMix) -> None:
    router.apply(whole(winter, 1))
    before = sorted(p.name for p in router.path.parent.iterdir()), router.path.read_bytes()
    router.probe()
    assert (sorted(p.name for p in router.path.parent.iterdir()), router.path.read_bytes()) == (
        before
    )


def test_probe_says_what_is_wrong(router: FileRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, _data: bytes) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(RolloutError, match=r"Read-only.*IMAGEGATE_ROUTING_FILE"):
        router.probe()


def test_applications_of_other_users_can_read_the_file(
    router: FileRouter, winter: ResolvedMix
) -> None:
    before = os.umask(0o022)
    try:
        router.apply(whole(winter, 1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(router.path.stat().st_mode) == 0o644


@pytest.mark.parametrize("weights", [(), (0.5,), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5)])
def test_weights_that_are_no_shares_are_refused(
    winter: ResolvedMix, summer: ResolvedMix, weights: tuple[float, ...]
) -> None:
    shares = tuple(Share(mix, w) for mix, w in zip((winter, summer), weights, strict=False))
    with pytest.raises(ValueError, match=r"weights|at least one"):
        Desired("shop", 1, shares)
    with pytest.raises(ValueError, match="once"):
        Desired("shop", 1, (Share(winter, 0.5), Share(winter, 0.5)))
