"""Drawings: valid XML, inside their frame, honest about what is missing."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from tasks.evidence import charts
from tasks.metrics.rates import rate
from tasks.records import Rate

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def parsed(svg: Markup) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own drawing


def per_cents(svg: Markup) -> list[float]:
    return [float(found) for found in re.findall(r'="(-?[\d.]+)%"', svg)]


@settings(deadline=None)
@given(COUNTS, COUNTS, st.floats(0.001, 0.5))
def test_intervals_stay_inside_and_the_limit_is_drawn(
    before: tuple[int, int], after: tuple[int, int], limit: float
) -> None:
    drawn = charts.rate_chart(
        [("baseline", rate(*before)), ("candidate", rate(*after))], [("fail", limit)]
    )
    assert all(0 <= value <= 100 for value in per_cents(drawn))
    lines = [n for n in parsed(drawn).iter() if n.get("class") == "limit fail"]
    assert len(lines) == 1
    assert float(str(lines[0].get("x1")).rstrip("%")) < 100


def test_an_arm_without_cases_draws_no_point() -> None:
    none = Rate(estimate=None, lower=0, upper=1, n=0, failures=0)
    drawn = charts.rate_chart([("candidate", none)], [("fail", 0.02)])
    kinds = {n.get("class") for n in parsed(drawn).iter()}
    assert "dot candidate" not in kinds
    assert "interval candidate" not in kinds
    assert "no cases" in str(parsed(drawn).get("aria-label"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ok", "defect", "refused"]), st.integers(0, 900))))
def test_a_stack_fills_its_bar_exactly(parts: list[tuple[str, int]]) -> None:
    drawn = parsed(charts.stacked(parts, "label"))
    widths = [
        float(str(n.get("width")).rstrip("%"))
        for n in drawn.iter()
        if str(n.get("class")).startswith("part ")
    ]
    total = sum(count for _, count in parts)
    assert sum(widths) == pytest.approx(100 if total else 0, abs=0.1)


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 500), max_size=700), st.none() | st.floats(0.1, 20))
def test_latencies_never_fall_and_end_at_all_images(
    values: list[float], limit: float | None
) -> None:
    drawn = charts.ecdf_chart([("candidate", values), ("baseline", [])], limit)
    if not values:
        assert drawn == ""
        return
    path = next(n for n in parsed(drawn).iter() if n.get("class") == "line candidate")
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", str(path.get("d"))) if p]
    assert points == sorted(points, key=lambda p: (p[0], -p[1]))
    assert points[-1] == (1000.0, 0.0)
    assert len(points) < 1_000


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_an_axis_of_nothing_still_has_a_length(value: float) -> None:
    assert charts.nice_ceiling(value) == 1.0


@settings(deadline=None)
@given(st.floats(1e-6, 1e9))
def test_an_axis_covers_its_value_without_waste(value: float) -> None:
    top = charts.nice_ceiling(value)
    assert value <= top * (1 + 1e-9) <= 2.1 * value


def test_text_in_a_drawing_is_escaped() -> None:
    drawn = charts.stacked([("ok", 3)], '"><script>x</script>')
    assert "<script>" not in drawn
    assert parsed(drawn).get("aria-label") == '"><script>x</script>'


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0042, "0.42 %"), (0.018, "1.8 %"), (0.125, "12.5 %"), (1, "100 %")],
)
def test_shares_read_with_the_digits_they_deserve(share: float, text: str) -> None:
    assert charts.percent(share) == text
