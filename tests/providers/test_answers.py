"""Every answer has exactly one meaning."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix.catalog import Model, Price
from tasks.providers.answers import (
    MOST_RETRY_AFTER_S,
    QUOTA,
    Answer,
    Meaning,
    clean,
    parse_cost,
    parse_retry_after,
)
from tasks.providers.base import GenerationRequest
from tasks.providers.raw import read
from tasks.providers.sniff import sniff_mime
from tasks.records import FailureClass

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
MODEL = Model(
    name="m",
    protocol="raw",
    endpoint="embedded",
    version="m-1",
    pin="dated",
    operations=("generate",),
    price=Price(usd=0.04, source="test", date=date(2026, 1, 1)),
)


def said(type_: str = "", message: str = "no", code: object = None) -> bytes:
    return json.dumps({"error": {"type": type_, "message": message, "code": code}}).encode()


def interpret(given: Answer, model: Model, seed: int, now: datetime) -> Meaning:
    """Return what the raw protocol makes of an answer."""
    request = GenerationRequest(
        model=model,
        operation="generate",
        prompt="a sign",
        width=512,
        height=512,
        seed=seed,
        stage=0,
        attempt=1,
        idempotency_key="ig-1",
    )
    return read(replace(given, at=now), request)


def answer(status: int = 200, body: bytes = PNG, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "image/png"} | named, body)


def test_a_picture_is_delivered_with_its_reported_cost() -> None:
    meaning = interpret(
        answer(x_cost_usd="0.031", x_model_version="m-1", x_seed="7"), MODEL, 7, NOW
    )
    assert meaning.delivered
    assert meaning.failure is None
    assert (meaning.billed, meaning.cost_microusd, meaning.cost_source) == (
        "yes",
        31_000,
        "reported",
    )


def test_without_a_reported_cost_the_list_price_counts() -> None:
    meaning = interpret(answer(), MODEL, 7, NOW)
    assert (meaning.billed, meaning.cost_microusd, meaning.cost_source) == ("yes", 40_000, "list")


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, said("content_policy"), FailureClass.REFUSAL),
        (400, said(code="content_policy_violation"), FailureClass.REFUSAL),
        (403, said("content_moderation"), FailureClass.REFUSAL),
        (422, said("content_policy"), FailureClass.REFUSAL),
        (400, said("invalid_request"), FailureClass.BAD_REQUEST),
        (413, b"", FailureClass.BAD_REQUEST),
        (422, b'{"detail":"size"}', FailureClass.BAD_REQUEST),
        (418, b"\xff\xfe", FailureClass.BAD_REQUEST),
        (401, said(), FailureClass.AUTH),
        (402, said(), FailureClass.AUTH),
        (403, said("forbidden"), FailureClass.AUTH),
        (404, said(), FailureClass.RETIRED),
        (410, b"", FailureClass.RETIRED),
        (408, b"", FailureClass.SERVER),
        (409, b"", FailureClass.SERVER),
        (500, b"", FailureClass.SERVER),
        (502, b"<html>bad gateway</html>", FailureClass.SERVER),
        (599, b"", FailureClass.SERVER),
        (429, said("rate_limit"), FailureClass.THROTTLED),
        (302, b"", FailureClass.BAD_REQUEST),
        (101, b"", FailureClass.MALFORMED),
        (799, b"", FailureClass.MALFORMED),
    ],
)
def test_errors_are_not_billed_and_have_their_class(
    status: int, body: bytes, failure: FailureClass
) -> None:
    meaning = interpret(answer(status, body), MODEL, 7, NOW)
    assert meaning.failure is failure
    assert not meaning.delivered
    assert (meaning.billed, meaning.cost_microusd) == ("no", 0)
    assert str(status) in meaning.message


@pytest.mark.parametrize(
    ("body", "mime", "failure"),
    [
        (b"", "image/png", FailureClass.EMPTY),
        (b"<!DOCTYPE html><h1>hello", "image/png", FailureClass.MALFORMED),
        (b"\xef\xbb\xbf\n <HTML>", "image/png", FailureClass.MALFORMED),
        (b'<?xml version="1.0"?><html/>', "image/png", FailureClass.MALFORMED),
        (b'{"images": []}', "image/png", FailureClass.MALFORMED),
        (b"just words", "text/plain", FailureClass.MALFORMED),
        (b"garbage", "application/octet-stream", FailureClass.MALFORMED),
        (said("content_policy"), "application/json", FailureClass.REFUSAL),
    ],
)
def test_a_200_without_a_picture_is_billed_and_fails(
    body: bytes, mime: str, failure: FailureClass
) -> None:
    meaning = interpret(answer(200, body, content_type=mime), MODEL, 7, NOW)
    assert meaning.failure is failure
    assert not meaning.delivered
    assert (meaning.billed, meaning.cost_microusd) == ("yes", 40_000)


@pytest.mark.parametrize(
    ("body", "mime"),
    [
        (b"\x00PNG garbled", "image/png"),  # the checks judge a damaged header
        (PNG[:12], "image/png"),  # and a file that ends too early
        (PNG, "image/jpeg"),  # and a mime that is not the declared one
        (PNG, "text/html"),
        (b"{not json", "image/webp"),
    ],
)
def test_damaged_or_misdeclared_pictures_are_delivered_for_the_checks(
    body: bytes, mime: str
) -> None:
    assert interpret(answer(200, body, content_type=mime), MODEL, 7, NOW).delivered


def test_blurred_refusal_under_200_is_a_refusal_and_billed() -> None:
    meaning = interpret(answer(x_finish_reason="content_filtered"), MODEL, 7, NOW)
    assert meaning.failure is FailureClass.REFUSAL
    assert meaning.billed == "yes"
    assert not meaning.delivered


@pytest.mark.parametrize(
    "headers", [{"x_model_version": "m-2"}, {"x_model_version": ""}, {"x_seed": "8"}]
)
def test_another_version_or_seed_is_drift(headers: dict[str, str]) -> None:
    meaning = interpret(answer(**headers), MODEL, 7, NOW)
    assert meaning.failure is FailureClass.DRIFT
    assert not meaning.delivered
    assert meaning.billed == "yes"


@pytest.mark.parametrize("cost", ["-0.01", "nan", "inf", "-inf", "four cents", "1e9", ""])
def test_nonsense_about_money_counts_the_list_price_and_is_said(cost: str) -> None:
    meaning = interpret(answer(x_cost_usd=cost), MODEL, 7, NOW)
    assert meaning.failure is FailureClass.COST_UNKNOWN
    assert meaning.delivered
    assert (meaning.billed, meaning.cost_microusd) == ("unknown", 40_000)


def test_a_compressed_body_is_not_unpacked() -> None:
    meaning = interpret(answer(content_encoding="gzip"), MODEL, 7, NOW)
    assert meaning.failure is FailureClass.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        said("insufficient_quota"),
        said(message="Quota exceeded, limit: 0"),
        said(code="quota_exceeded"),
    ],
)
def test_a_used_up_quota_is_marked(body: bytes) -> None:
    meaning = interpret(answer(429, body, retry_after="3"), MODEL, 7, NOW)
    assert meaning.finish_reason == QUOTA
    assert meaning.retry_after_s == 3.0


def test_a_short_429_keeps_its_retry_after() -> None:
    meaning = interpret(answer(429, said(), retry_after="1.5"), MODEL, 7, NOW)
    assert (meaning.finish_reason, meaning.retry_after_s) == (None, 1.5)


headers = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "content-encoding",
            "x-cost-usd",
            "x-model-version",
            "x-seed",
            "x-finish-reason",
            "retry-after",
        ]
    ),
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(["image/png", "text/html", "0.04", "nan", "-1", "m-1", "7", "SUCCESS"]),
    ),
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", PNG, b"<html>", b"[" * 100_000, said("content_policy")]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "type", "code", "message", "detail"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
broken = st.none() | st.just((FailureClass.TRANSPORT, "broke off"))


@given(st.integers(-1, 1100), headers, bodies, broken)
def test_every_answer_is_a_picture_or_a_failure_and_costs_a_sane_amount(
    status: int, head: dict[str, str], body: bytes, cut: tuple[FailureClass, str] | None
) -> None:
    meaning = interpret(Answer(status, head, body, cut), MODEL, 7, NOW)
    assert meaning.delivered == (meaning.failure in (None, FailureClass.COST_UNKNOWN))
    assert meaning.delivered or meaning.failure is not None
    assert not meaning.delivered or (status == 200 and body and cut is None)
    assert 0 <= meaning.cost_microusd <= 1_000_000_000
    assert meaning.billed != "yes" or meaning.cost_microusd > 0
    assert meaning.billed != "no" or meaning.cost_microusd == 0
    assert meaning.retry_after_s is None or meaning.retry_after_s >= 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 17 ", 17.0),
        ("-1", None),
        ("nan", None),
        ("inf", MOST_RETRY_AFTER_S),
        ("9" * 400, MOST_RETRY_AFTER_S),
        ("soon", None),
        ("", None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_never_raises_nor_goes_back_in_time(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MOST_RETRY_AFTER_S


@given(st.integers(0, 10_000_000))
def test_retry_after_dates_round_trip(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, NOW) == seconds


@given(st.integers(0, 1_000_000_000))
def test_costs_in_whole_microdollars_round_trip(cost: int) -> None:
    assert parse_cost(f"{cost / 1_000_000:.6f}") == cost


@given(st.text(), st.integers(1, 50))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert "\n" not in cleaned
    assert "\x1b" not in cleaned
    cleaned.encode()


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"GIF89a", "image/gif"),
        (b"\x00\x00\x00\x20ftypavif", "image/avif"),
        (b"\x00\x00\x00\x20ftypmp42", None),
        (b"<svg xmlns=", "image/svg+xml"),
        (b"<?xml version='1.0'?><svg/>", "image/svg+xml"),
        (b"<?xml version='1.0'?><Error/>", "text/xml"),
        (b"<!doctype html>", "text/html"),
        (b'{"a":1}', "application/json"),
        (b"[1]", "application/json"),
        (b"{", None),
        (b"", None),
        (b"\x89PN", None),
    ],
)
def test_sniffing(data: bytes, mime: str | None) -> None:
    assert sniff_mime(data) == mime


@given(st.binary(max_size=300))
def test_sniffing_never_raises(data: bytes) -> None:
    assert sniff_mime(data) is None or "/" in str(sniff_mime(data))
