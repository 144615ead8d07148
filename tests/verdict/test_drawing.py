"""Which shard comes next: everything once, in order, bad slices first, the same every time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.plan import RunPlan, Shard
from tasks.policy import Policy, Sampling, SliceRule
from tasks.records import Case, SequentialResult
from tasks.verdict.drawing import Drawer, slices_of_case, slices_of_plan
from tests.fakes import mixes
from tests.verdict import plans


def amber(name: str, log_e: float = 3.5, **changes: Any) -> SequentialResult:
    fields: dict[str, Any] = {
        "name": name,
        "kind": "slice",
        "images": 20,
        "failures": 7,
        "log_e_fail": log_e,
        "fail_at": 6.0,
        "amber": True,
    }
    return SequentialResult(**(fields | changes))


looks = st.lists(
    st.lists(
        st.builds(
            amber,
            st.sampled_from(["locale=th", "locale=de", "origin=production", "locale=zz"]),
            st.floats(3, 6),
            amber=st.booleans(),
        ),
        max_size=3,
        unique_by=lambda one: one.name,
    ),
    max_size=30,
)


def drawn(plan: RunPlan, seen: list[list[SequentialResult]]) -> list[Shard]:
    drawer, shards = Drawer(plan), []
    for number in range(200):
        shard = drawer.next(seen[number] if number < len(seen) else ())
        if shard is None:
            assert not drawer.left
            return shards
        shards.append(shard)
    raise AssertionError("the drawer never ends")


@settings(max_examples=60, deadline=None)
@given(looks, st.integers(0, 50), st.integers(0, 40), st.integers(1, 20))
def test_every_headline_case_comes_once_in_order_whatever_looks_say(
    seen: list[list[SequentialResult]], headline: int, reserve: int, size: int
) -> None:
    plan = plans.plan(headline, reserve, size)
    shards = drawn(plan, seen)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(0 < len(shard.case_ids) <= size for shard in shards)

    own = [case_id for shard in shards if shard.top_up is None for case_id in shard.case_ids]
    assert own == [case.case_id for case in plan.cases]
    extra = [(i, shard.top_up) for shard in shards if shard.top_up for i in shard.case_ids]
    assert len(extra) == len(dict(extra))
    assert set(dict(extra)) <= {case.case_id for case in plan.reserve}
    for case_id, name in extra:
        assert name in slices_of_case(plan, plan.by_id[case_id])
    # Reserve cases of one slice come in the order in which they were drawn for the plan.
    for name in {name for _, name in extra}:
        ids = [int(case_id[1:]) for case_id, of in extra if of == name]
        assert ids == sorted(ids)
    assert drawn(plan, seen) == shards


def test_the_worst_slice_comes_first_and_its_reserve_is_used_up_once() -> None:
    plan = plans.plan(30, 30, 6)
    seen = [amber("locale=de", 3.5), amber("locale=th", 4.5)]
    drawer = Drawer(plan)
    assert drawer.next(()) == plan.shards()[0]
    names = [drawer.next(seen) for _ in range(5)]
    assert [shard.top_up for shard in names if shard] == [
        *("locale=th", "locale=th"),  # Ten in the reserve, six a shard.
        *("locale=de", "locale=de"),
        None,
    ]
    assert drawer.tops_up(seen) is None
    assert drawer.tops_up([amber("origin=production")]) == "origin=production"


def test_only_slices_that_look_bad_are_topped_up() -> None:
    drawer = Drawer(plans.plan(30, 30, 6))
    for quiet in (
        amber("locale=th", amber=False),
        amber("locale=th", kind="paired"),
        amber("locale=th", kind="headline"),
        amber("locale=xx"),
        amber("locale=th", log_e_fail=None),
    ):
        assert drawer.tops_up([quiet]) is None
    assert Drawer(plans.plan(30, 0, 6)).tops_up([amber("locale=th")]) is None


def test_the_plan_alone_says_which_slices_are_judged() -> None:
    def judged(count: int, **rule: Any) -> tuple[str, ...]:
        policy = Policy(slices=SliceRule(**rule), sampling=Sampling(cases=count))
        return slices_of_plan(plans.plan(count, 90, policy=policy))

    every = ("locale=de", "locale=en", "locale=th", "model=folio-2", "origin=production")
    assert judged(36) == (*every, "subtask=fast")
    # The reserve does not count: it is drawn by what was seen.
    assert judged(33) == ("model=folio-2", "origin=production", "subtask=fast")
    assert judged(35) == ("locale=de", "locale=en", *every[3:], "subtask=fast")
    assert judged(3, min_images=1, dimensions=("locale",)) == every[:3]
    assert judged(33, dimensions=("locale", "locale")) == ()
    assert judged(36, dimensions=("locale", "locale")) == every[:3]


def test_a_route_of_two_models_is_in_the_slices_of_both() -> None:
    mix = mixes.resolve_mix(
        mixes.Mix.model_validate(
            {
                "name": "two",
                "product": mixes.PRODUCT,
                "routes": {
                    subtask: [
                        {
                            "stages": [
                                {"model": "m", "operation": operation},
                                {"model": "up", "operation": "upscale", "params": {"scale": 2}},
                            ]
                        }
                    ]
                    for subtask, operation in (
                        ("typography", "generate"),
                        ("creative", "generate"),
                        ("fast", "generate"),
                        ("upscale", "generate"),
                        ("edit", "edit"),
                    )
                },
            }
        ),
        mixes.Catalog(
            models=(
                mixes.model("m"),
                mixes.model("up", operations=("upscale",)),
            )
        ),
        "test",
    )
    plan = plans.plan(12, candidate=mix)
    case = Case(case_id="a", prompt="p", subtask="fast", locale="th", origin="stress")
    assert slices_of_case(plan, case) == (
        "subtask=fast",
        "locale=th",
        "origin=stress",
        "model=m",
        "model=up",
    )


def test_no_cases_are_no_shards() -> None:
    drawer = Drawer(plans.plan(0, 0))
    assert not drawer.left
    assert drawer.next(()) is None
    assert drawer.next([amber("locale=th")]) is None
