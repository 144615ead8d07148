import asyncio
import dataclasses
import io
import json

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import structural_similarity

from tasks.providers.embedded.app import REFUSED_PHRASES, create_app
from tasks.providers.embedded.draws import prompt_digest
from tasks.providers.embedded.models import MODELS, Fault
from tasks.providers.embedded.requestlog import RequestLog, read_log
from tasks.providers.embedded.upscale import UpscaleError, upscale
from tasks.settings import DATASETS

SOUND = {
    name: dataclasses.replace(spec, latency_s=(0, 0), defect_rate=0.0, transients={})
    for name, spec in MODELS.items()
}
ORDER = {"prompt": 'Sign "Open"', "size": "96x64", "model": "folio-2", "seed": 7}


def with_defect(fault):
    spec = dataclasses.replace(SOUND["folio-2"], defect_rate=1.0, defects={fault: 1.0})
    return SOUND | {"folio-2": spec}


def with_transient(fault):
    return SOUND | {"folio-2": dataclasses.replace(SOUND["folio-2"], transients={fault: 1.0})}


class Client:
    def __init__(self, log, models=SOUND, brands=DATASETS / "brands"):
        self.log = log
        self.app = create_app(log, brands, models)

    def request(self, method, path, **options):
        async def go():
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await client.request(method, path, **options)

        return asyncio.run(go())

    def generate(self, key="", retry=None, **changes):
        headers = {"Idempotency-Key": key} if key else {}
        if retry is not None:
            headers["X-Retry-Count"] = str(retry)
        body = json.dumps(ORDER | changes)
        return self.request("POST", "/generate", content=body, headers=headers)

    def send_file(self, path, data, **fields):
        fields = {"prompt": "", "size": "96x64", "seed": "7"} | fields
        return self.request("POST", path, data=fields, files={"image": ("a.png", data)})

    def close(self):
        self.app.state.server.close()


@pytest.fixture
def client(tmp_path):
    made = Client(tmp_path / "log.jsonl")
    yield made
    made.close()


@pytest.fixture
def faulty(tmp_path):
    opened = []

    def make(models):
        opened.append(Client(tmp_path / "log.jsonl", models))
        return opened[-1]

    yield make
    for made in opened:
        made.close()


def picture(answer):
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))  # noqa: TID251 - an independent decoder


def upload(width=48, height=32):
    rows = np.linspace(20, 230, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(rows).save(out, "PNG")
    return out.getvalue()


def test_health_models_and_scripts(client):
    assert client.request("GET", "/health").json() == {"status": "ok"}
    served = {m["name"]: m for m in client.request("GET", "/models").json()["models"]}
    assert set(served) == set(MODELS)
    assert served["retouch-2"]["operations"] == ["generate", "edit"]
    assert served["folio-1"] == {
        "name": "folio-1",
        "version": MODELS["folio-1"].version,
        "price_usd": MODELS["folio-1"].price_usd,
        "operations": ["generate"],
        "safety": "on",
        "retires": MODELS["folio-1"].retires,
    }
    assert "Arab" in client.request("GET", "/scripts").json()["scripts"]


def test_a_good_answer_and_its_log_line(client):
    answer = client.generate(key="k1", retry=1)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-finish-reason"] == "SUCCESS"
    assert answer.headers["x-model-version"] == MODELS["folio-2"].version
    assert answer.headers["x-seed"] == "7"
    assert float(answer.headers["x-cost-usd"]) == MODELS["folio-2"].price_usd
    assert picture(answer).shape == (64, 96, 3)
    (line,) = read_log(client.log)
    assert line.pop("at").endswith("Z")
    assert line == {
        "request_id": answer.headers["x-request-id"],
        "idempotency_key": "k1",
        "model": "folio-2",
        "version": MODELS["folio-2"].version,
        "operation": "generate",
        "prompt_digest": prompt_digest(ORDER["prompt"]),
        "seed": 7,
        "retry": 1,
        "status": 200,
        "fault": None,
        "billed_microusd": MODELS["folio-2"].price_microusd,
        "replayed": False,
    }


def test_idempotency_key_is_billed_once_even_over_a_restart(tmp_path):
    log = tmp_path / "log.jsonl"
    first = Client(log)
    one, two, other = first.generate(key="k"), first.generate(key="k"), first.generate(key="k2")
    first.close()
    with log.open("ab") as file:
        file.write(b'{"idempotency_key": "torn", "billed_micr')
    second = Client(log)
    three = second.generate(key="k")
    torn = second.generate(key="torn")
    second.close()
    assert one.content == two.content == three.content == other.content
    lines = read_log(log)
    price = MODELS["folio-2"].price_microusd
    assert [line["billed_microusd"] for line in lines] == [price, 0, price, 0, price]
    assert [line["replayed"] for line in lines] == [False, True, False, True, False]
    assert float(three.headers["x-cost-usd"]) == 0
    assert torn.status_code == 200


def test_without_a_key_every_answer_is_billed(client):
    client.generate()
    client.generate()
    assert all(line["billed_microusd"] > 0 for line in read_log(client.log))


def test_a_key_cannot_be_used_for_another_request(client):
    client.generate(key="k")
    answer = client.generate(key="k", prompt="something else")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "idempotency_conflict"
    assert read_log(client.log)[-1]["billed_microusd"] == 0


@pytest.mark.parametrize("fault", [Fault.BAD_GATEWAY, Fault.THROTTLED])
def test_transient_errors_are_logged_and_not_billed(faulty, fault):
    client = faulty(with_transient(fault))
    answer = client.generate(key="k")
    assert answer.status_code == (502 if fault is Fault.BAD_GATEWAY else 429)
    assert set(answer.json()["error"]) == {"type", "message"}
    if fault is Fault.THROTTLED:
        assert 0.2 <= float(answer.headers["retry-after"]) <= 1.0
    (line,) = read_log(client.log)
    assert (line["fault"], line["billed_microusd"]) == (fault, 0)
    assert line["status"] == answer.status_code


@pytest.mark.parametrize(
    ("fault", "mime", "reason"),
    [
        (Fault.HTML, "text/html; charset=utf-8", None),
        (Fault.WRONG_MIME, "image/jpeg", "SUCCESS"),
        (Fault.FILTERED, "image/png", "CONTENT_FILTERED"),
        (Fault.TRUNCATED, "image/png", "SUCCESS"),
        (Fault.INVALID_HEADER, "image/png", "SUCCESS"),
        (Fault.BLANK, "image/png", "SUCCESS"),
        (Fault.WRONG_ASPECT, "image/png", "SUCCESS"),
        (Fault.LETTERS_DROPPED, "image/png", "SUCCESS"),
    ],
)
def test_faults_under_200_are_billed(faulty, fault, mime, reason):
    client = faulty(with_defect(fault))
    answer = client.generate()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == mime
    assert answer.headers.get("x-finish-reason") == reason
    if fault is Fault.HTML:
        assert b"<html" in answer.content
    elif fault in {Fault.TRUNCATED, Fault.INVALID_HEADER}:
        with pytest.raises(OSError, match=r"trunc|identify"):
            picture(answer)
    elif fault is Fault.WRONG_ASPECT:
        assert picture(answer).shape != (64, 96, 3)
    else:
        assert answer.content.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture(answer).shape == (64, 96, 3)
    (line,) = read_log(client.log)
    assert (line["fault"], line["billed_microusd"]) == (fault, MODELS["folio-2"].price_microusd)


@pytest.mark.parametrize("phrase", REFUSED_PHRASES)
def test_unsafe_prompts_are_refused_and_not_billed(client, phrase):
    answer = client.generate(prompt=f"A poster:  {phrase.upper().replace(' ', '  ')} now")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "content_policy"
    assert read_log(client.log)[-1]["billed_microusd"] == 0


def test_with_safety_off_nothing_is_refused(client):
    assert client.generate(prompt=REFUSED_PHRASES[0], safety="off").status_code == 200


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": "63x64"}, "63x64"),
        ({"size": "64x2049"}, "2048"),
        ({"size": "64"}, "WIDTHxHEIGHT"),
        ({"size": "٦٤x64"}, "WIDTHxHEIGHT"),
        ({"size": None}, "size"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 200_001}, "200000"),
        ({"brand": "nobody"}, "nobody"),
        ({"brand": "../northwind"}, "hyphens"),
        ({"brand": 3}, "brand"),
        ({"safety": "maybe"}, "safety"),
        ({"locale": "e\x00"}, "locale"),
        ({"params": []}, "params"),
        ({"params": {"stepz": 3}}, "stepz"),
        ({"params": {"steps": 0}}, "steps"),
        ({"params": {"steps": "many"}}, "steps"),
        ({"promt": "x"}, "promt"),
    ],
)
def test_bad_requests_say_what_is_wrong(client, changes, word):
    answer = client.generate(**changes)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request"
    assert word in error["message"]
    assert read_log(client.log)[-1]["status"] == 400


def test_unknown_model_and_wrong_operation(client):
    unknown = client.generate(model="folio-9")
    assert unknown.status_code == 404
    assert "folio-2" in unknown.json()["error"]["message"]
    assert client.generate(model="acnet-x2").status_code == 400
    assert client.send_file("/edit", upload(), model="folio-2").status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"a":', b"[" * 9000, b"\xff\xfe", b"1" * 5000]
)
def test_bodies_that_are_no_json_object(client, body):
    answer = client.request("POST", "/generate", content=body)
    assert answer.status_code == 400


def test_bodies_above_the_limit(client):
    answer = client.request("POST", "/generate", content=b"x" * 16_000_001)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "too_large"
    big = client.send_file("/edit", bytes(16_500_000), model="retouch-2")
    assert big.status_code == 413


def test_other_paths_and_methods_answer_in_json(client):
    assert client.request("GET", "/nothing").json()["error"]["type"] == "not_found"
    assert client.request("GET", "/generate").status_code == 405


def test_characters_without_a_font_are_said_openly(client):
    answer = client.generate(prompt='Sign "བོད"')
    assert answer.headers["x-missing-glyphs"] == "3"
    assert "x-missing-glyphs" not in client.generate().headers


def test_edit_of_an_upload(client):
    fields = {"model": "retouch-2", "prompt": 'Brighter, with "Fresh"', "brand": "northwind"}
    answer = client.send_file("/edit", upload(), **fields, locale="en", safety="on", params="{}")
    assert answer.status_code == 200, answer.text
    assert picture(answer).shape == (64, 96, 3)
    again = client.send_file("/edit", upload(), **fields, locale="en", safety="on", params="{}")
    assert again.content == answer.content
    other = client.send_file("/edit", upload(60, 60), **fields)
    assert other.content != answer.content


@pytest.mark.parametrize("data", [b"", b"not an image", upload()[:70]])
def test_edit_of_a_broken_upload(client, data):
    answer = client.send_file("/edit", data, model="retouch-2")
    assert answer.status_code == 400
    assert read_log(client.log)[-1]["billed_microusd"] == 0


def test_edit_forms_that_do_not_hold_what_they_must(client):
    fields = {"prompt": "", "size": "96x64", "model": "retouch-2"}
    ask = client.request
    assert ask("POST", "/edit", data=fields).status_code == 400
    assert ask("POST", "/edit", files={"prompt": ("a", b"x")}).status_code == 400
    assert ask("POST", "/edit", content=b"{}").status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert ask("POST", "/edit", content=b"--y\r\nnonsense", headers=broken).status_code == 400
    assert client.send_file("/edit", upload(), model="retouch-2", seed="x").status_code == 400
    assert client.send_file("/edit", upload(), model="retouch-2", params="{").status_code == 400


def test_upscaled_picture_is_the_same_picture_at_twice_the_size(client):
    small = client.generate(size="128x128")
    fields = {"model": "acnet-x2", "size": "256x256", "params": '{"scale": 2}'}
    answer = client.send_file("/upscale", small.content, **fields)
    assert answer.status_code == 200, answer.text
    large = picture(answer)
    assert large.shape == (256, 256, 3)
    back = np.asarray(Image.fromarray(large).reduce(2))
    ssim = structural_similarity(picture(small), back, channel_axis=2, data_range=255)
    assert ssim > 0.95
    plain = np.asarray(Image.fromarray(picture(small)).resize((256, 256), Image.Resampling.BICUBIC))
    assert not np.array_equal(plain, large)
    assert answer.content == client.send_file("/upscale", small.content, **fields).content


@pytest.mark.parametrize(
    ("size", "params"),
    [("256x256", "{}"), ("96x96", "{}"), ("96x64", '{"scale": 3}'), ("96x64", '{"network": "x"}')],
)
def test_upscale_refuses_what_it_cannot_do(client, size, params):
    answer = client.send_file("/upscale", upload(), model="acnet-x2", size=size, params=params)
    assert answer.status_code == 400


def test_unknown_network_is_never_replaced_in_silence():
    with pytest.raises(UpscaleError, match="acnet-hdn0"):
        upscale(np.zeros((8, 8, 3), np.uint8), "acnet-best")


HOSTILE = st.one_of(
    st.text(st.characters(), max_size=80),
    st.text(st.characters(), max_size=80).map(lambda t: f'draw "{t}" now'),
    st.sampled_from(
        [
            '"<script>alert(1)</script>"',
            '"\x00\x1b[31m"',
            '"😀👩‍👩‍👧🏽"',
            '"' + "a" * 20_000 + '"',
            '"&amp;*_~`"',
        ]
    ),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(prompt=HOSTILE, seed=st.integers(0, 2**63 - 1), brand=st.sampled_from([None, "solstice"]))
def test_no_prompt_breaks_the_server(client, prompt, seed, brand):
    answer = client.generate(prompt=prompt, seed=seed, brand=brand, size="80x72")
    assert answer.status_code == 200
    assert picture(answer).shape == (72, 80, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from([*ORDER, "brand", "locale", "params", "x"]), JSON))
def test_no_field_breaks_the_server(client, changes):
    answer = client.request("POST", "/generate", content=json.dumps(ORDER | changes))
    assert answer.status_code in {200, 400, 404}
    assert answer.status_code == 200 or set(answer.json()["error"]) == {"type", "message"}


def test_log_reader_takes_torn_and_foreign_lines(tmp_path):
    file = tmp_path / "log.jsonl"
    assert read_log(file) == []
    file.write_bytes(b'{"a":1}\nnull\n\xff\xfe\n{"a":2}\n{"a":3')
    assert read_log(file) == [{"a": 1}, {"a": 2}]
    log = RequestLog(file)
    log.write({"a": 4, "text": "\ud800"})
    log.close()
    assert [line["a"] for line in read_log(file)] == [1, 2, 4]
