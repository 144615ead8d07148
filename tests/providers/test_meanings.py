"""Every way an answer can end has one class, one billing rule and one rule for trying again."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.harness.retry import retryable
from tasks.mix.catalog import TokenPrices
from tasks.providers import meanings
from tasks.providers.answers import NO_FACTS, Answer, Asset, Facts, Meaning
from tasks.providers.base import GenerationRequest
from tasks.providers.meanings import (
    decode_base64,
    http_error,
    picture,
    picture_base64,
    pin_check,
)
from tasks.providers.sniff import parse_json
from tasks.providers.usage import amount, bounded, seed_of, usage_of, whole
from tasks.records import Attempt, FailureClass, Usage
from tests.fakes.http_server import png
from tests.providers.kit import a_model, a_price, a_request, an_answer

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
PNG = png(64, 32)
Ending = Callable[[Answer, GenerationRequest, str, Facts], Meaning]


def failed(failure: FailureClass) -> Ending:
    return lambda *given: meanings.failed(failure, *given)


def tried_again(meaning: Meaning) -> bool:
    """Return whether the harness would send the request again."""
    attempt = Attempt(
        stage=0,
        number=1,
        model="m",
        started_at="",
        failure=meaning.failure,
        finish_reason=meaning.finish_reason,
    )
    return retryable(attempt)


TABLE: list[tuple[Ending, int, str, str, bool]] = [
    (meanings.refusal, 200, "refusal", "yes", False),
    (meanings.refusal, 400, "refusal", "no", False),
    (meanings.throttled, 429, "throttled", "no", True),
    (lambda *a: meanings.throttled(*a, quota=True), 429, "throttled", "no", False),
    (meanings.server, 503, "server", "no", True),
    (meanings.server, 200, "server", "unknown", True),
    (failed(FailureClass.AUTH), 401, "auth", "no", False),
    (failed(FailureClass.RETIRED), 404, "retired", "no", False),
    (failed(FailureClass.BAD_REQUEST), 422, "bad_request", "no", False),
    (meanings.empty, 200, "empty", "yes", True),
    (meanings.malformed, 200, "malformed", "yes", True),
    (meanings.malformed, 101, "malformed", "no", True),
    (meanings.drift, 200, "drift", "yes", False),
    (meanings.asset_url, 200, "asset_url", "yes", False),
]


@pytest.mark.parametrize(("end", "status", "failure", "billed", "again"), TABLE)
def test_the_class_table(end: Ending, status: int, failure: str, billed: str, again: bool) -> None:
    request = a_request()
    meaning = end(an_answer(status), request, "why", NO_FACTS)
    assert (meaning.failure, meaning.billed, meaning.message) == (failure, billed, "why")
    assert meaning.cost_microusd == (0 if billed == "no" else 40_000)
    assert not meaning.delivered
    assert tried_again(meaning) is again


@pytest.mark.parametrize(("end", "status", "failure", "_billed", "_again"), TABLE)
@pytest.mark.parametrize("billed", ["yes", "no", "unknown"])
def test_what_the_protocol_says_about_the_bill_counts(
    end: Ending, status: int, failure: str, _billed: str, _again: bool, billed: Any
) -> None:
    meaning = end(an_answer(status), a_request(), "why", Facts(billed=billed))
    assert (meaning.billed, meaning.cost_microusd > 0) == (billed, billed != "no")
    stated = end(an_answer(status), a_request(), "why", Facts(billed=billed, cost_usd="0.01"))
    assert (stated.billed, stated.cost_microusd, stated.cost_source) == ("yes", 10_000, "reported")


def test_a_picture_is_delivered_with_all_that_was_said_about_it() -> None:
    usage = Usage(image_out=100)
    facts = Facts(model_reported="m-1", seed_used=7, usage=usage, finish_reason="STOP")
    meaning = picture(an_answer(), a_request(), PNG, facts, declared="image/png")
    assert meaning.image == PNG
    assert (meaning.failure, meaning.pin, meaning.sniffed_mime) == (None, "held", "image/png")
    assert (meaning.facts.usage, meaning.finish_reason) == (usage, "STOP")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(model_reported="m-2"), "pinned to 'm-1', reported 'm-2'"),
        (Facts(seed_used=8), "seed 7 was asked for, '8' was used"),
        (Facts(seed_used=7, seed_asked=3), "seed 3 was asked for, '7' was used"),
    ],
)
def test_drift_is_found_before_the_picture_is_looked_at(facts: Facts, words: str) -> None:
    for image in (PNG, b"<html>", Asset("https://x.example/a.png")):
        meaning = picture(an_answer(), a_request(), image, facts)
        assert meaning.failure is FailureClass.DRIFT
        assert words in meaning.message
        assert meaning.asset is None


@pytest.mark.parametrize(
    ("pin", "reported", "said", "drifts"),
    [
        ("immutable", "m-1", "held", False),
        ("immutable", "m-2", "broken", True),
        ("immutable", None, "unsaid", False),
        ("dated", " m-1 ", "held", False),
        ("dated", "m-1-preview", "broken", True),
        ("alias", "m-1", "held", False),
        ("alias", "m-9", "moved", False),
        ("none", "m-9", "unpinned", False),
        ("none", None, "unpinned", False),
    ],
)
def test_pins_by_strength(pin: Any, reported: str | None, said: str, drifts: bool) -> None:
    assert pin_check(a_model(pin=pin), reported) == said
    meaning = picture(an_answer(), a_request(pin=pin), PNG, Facts(model_reported=reported))
    assert meaning.pin == said
    assert (meaning.failure is FailureClass.DRIFT) is drifts


def test_a_picture_whose_tokens_were_not_said_is_a_picture_of_unknown_cost() -> None:
    price = a_price(per="token", usd=0.25, tokens=TokenPrices(image_out=30))
    meaning = picture(an_answer(), a_request(price=price), PNG)
    assert meaning.image == PNG
    assert meaning.failure is FailureClass.COST_UNKNOWN
    assert (meaning.billed, meaning.cost_microusd) == ("unknown", 250_000)
    known = picture(
        an_answer(), a_request(price=price), PNG, Facts(usage=usage_of({}, image_out=1000))
    )
    assert (known.failure, known.cost_microusd, known.cost_source) == (None, 30_000, "computed")


def test_megapixels_are_those_of_the_picture_that_came() -> None:
    price = a_price(per="megapixel", usd=0.01)
    large = picture(an_answer(), a_request(price=price), png(2048, 1024))
    assert large.cost_microusd == 20_000


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_becomes_the_picture(prefix: str) -> None:
    meaning = picture_base64(an_answer(), a_request(), prefix + encoded(PNG))
    assert meaning.image == PNG
    assert meaning.declared_mime == ("image/png" if prefix else None)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (None, "empty"),
        ("", "empty"),
        (7, "empty"),
        ("data:image/png;base64,", "empty"),
        (encoded(PNG)[:-1], "malformed"),
        (encoded(PNG) + "\n", "malformed"),
        (encoded(PNG).replace("A", "-", 1), "malformed"),
        ("ä" * 8, "malformed"),
        (encoded(PNG[:5]), "malformed"),
        (encoded(b"<html>no"), "malformed"),
        (encoded(b'{"error": {"code": "moderation_blocked", "message": "no"}}'), "refusal"),
        ("A" * 4_000_000, "malformed"),
    ],
)
def test_what_is_no_base64_of_a_picture(text: object, failure: str) -> None:
    meaning = picture_base64(an_answer(), a_request(), text, most=2_000_000)
    assert (meaning.failure, meaning.image) == (failure, None)


letters = st.text('AQgw09+/=-_\\"\nä\ud800', max_size=24)


@given(st.binary(max_size=60), st.integers(0, 80), letters)
def test_base64_is_what_the_standard_library_takes_in_its_strict_way(
    data: bytes, at: int, noise: str
) -> None:
    text = encoded(data)
    assert decode_base64(text) == data
    damaged = text[:at] + noise + text[at:]
    try:
        found = decode_base64(damaged)
    except ValueError:
        try:
            theirs = base64.b64decode(damaged, validate=True)
        except ValueError:
            return
        # They let stray bits after the last byte pass; no encoder writes such.
        assert encoded(theirs) != damaged
    else:
        assert found == base64.b64decode(damaged, validate=True)


@given(anything)
def test_json_is_what_the_standard_library_takes(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        body = text.encode("utf-8", "surrogatepass")
        for data in (body, body + b"x", b"\xef\xbb\xbf" + body, body[: len(body) // 2]):
            try:
                theirs = json.loads(data)
            except ValueError:
                theirs = None
            assert json.dumps(parse_json(data)) == json.dumps(theirs)


def test_a_body_that_is_not_whole_is_no_picture() -> None:
    cut = replace(an_answer(), broken=(FailureClass.TRANSPORT, "broke off"))
    meaning = picture(cut, a_request(), PNG)
    assert (meaning.failure, meaning.billed) == (FailureClass.TRANSPORT, "unknown")
    assert meaning.image is None


@pytest.mark.parametrize(
    ("status", "types", "wait", "failure", "quota"),
    [
        (429, {"rate_limit"}, 3.0, "throttled", False),
        (429, {"insufficient_quota"}, 3.0, "throttled", True),
        (500, set(), 3.0, "server", False),
        (400, {"moderation_blocked"}, None, "refusal", False),
        (403, {"content_moderation"}, None, "refusal", False),
        (422, {"content_policy_violation"}, None, "refusal", False),
        (402, set(), None, "auth", False),
        (404, set(), None, "retired", False),
        (413, set(), None, "bad_request", False),
        (301, set(), None, "bad_request", False),
    ],
)
def test_errors_by_status_and_type(
    status: int, types: set[str], wait: float | None, failure: str, quota: bool
) -> None:
    answer = an_answer(status, b"{}", retry_after="3")
    meaning = http_error(answer, a_request(), types=frozenset(types), message="said")
    assert (meaning.failure, meaning.retry_after_s) == (failure, wait)
    assert (meaning.finish_reason == "quota") is quota
    assert meaning.billed == "no"
    asked = http_error(answer, a_request(), types=frozenset(types), wait_s=17.5)
    assert asked.retry_after_s == (17.5 if wait is not None else None)


@given(st.integers(100, 599), anything, anything, anything, anything, anything)
def test_whatever_is_said_becomes_one_meaning(
    status: int, text: object, version: object, seed: object, tokens: object, cost: object
) -> None:
    facts = Facts(
        model_reported=version if isinstance(version, str) else None,
        seed_used=seed_of(seed),
        usage=usage_of(tokens, image_out=tokens, megapixels=seed),
        cost_usd=cost if isinstance(cost, str) else None,
    )
    price = a_price(per="token", usd=1, tokens=TokenPrices(image_out=30))
    meaning = picture_base64(an_answer(status), a_request(price=price), text, facts)
    assert meaning.delivered == (meaning.failure in (None, FailureClass.COST_UNKNOWN))
    assert 0 <= meaning.cost_microusd <= 30 * 10**9
    assert meaning.billed != "no" or meaning.cost_microusd == 0
    if facts.usage is not None:
        facts.usage.model_dump_json()


@pytest.mark.parametrize(
    ("value", "count", "quantity", "seed"),
    [
        (7, 7, 7.0, 7),
        (7.0, 7, 7.0, None),
        (7.5, None, 7.5, None),
        ("7", None, 7.0, 7),
        (" -7 ", None, None, -7),
        (True, None, None, None),
        (-1, None, None, -1),
        (float("nan"), None, None, None),
        (float("inf"), None, None, None),
        (10**400, None, None, None),
        (2**64, None, None, None),
        ("٣", None, 3.0, None),
        ("nan", None, None, None),
        ([7], None, None, None),
    ],
)
def test_untrusted_numbers(value: object, count: Any, quantity: Any, seed: Any) -> None:
    assert (whole(value), amount(value), seed_of(value)) == (count, quantity, seed)


@given(anything)
def test_what_is_kept_of_a_providers_words_is_small_json(value: object) -> None:
    json.dumps(bounded(value), allow_nan=False)


def test_what_is_kept_is_bounded() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": deep}
    wide = {f"k{n}" * 1000: "v" * 10**6 for n in range(1000)}
    assert len(json.dumps(bounded(deep))) < 100
    assert len(json.dumps(bounded({"wide": wide, "huge": 10**5000}))) < 400_000


def test_usage_knows_its_fields() -> None:
    with pytest.raises(TypeError, match="has no field 'pixels'"):
        usage_of({}, pixels=3)
    assert usage_of("text").raw == {"value": "text"}
    assert usage_of(None).raw == {}
