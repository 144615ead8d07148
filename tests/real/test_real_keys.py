"""Keys of providers that quote them everywhere are found in nothing that a run leaves behind."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tasks.records import FailureClass
from tests.conftest import ROOT, Command, Done, clean_environment
from tests.fakes import (
    bedrock_server,
    bfl_server,
    fal_server,
    gemini_server,
    hosted,
    openai_server,
    replicate_server,
    stability_server,
)
from tests.fakes.aggregator_http import Reply, Seen, as_json, picture
from tests.fakes.http_fake import with_json
from tests.fakes.quoting import Quoting, forms, page, quoting, reset, says
from tests.fakes.slack_server import CHANNEL, TOKEN, SlackServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

BEDROCK = f"{bedrock_server.ACCESS}:{bedrock_server.SECRET}"
KEYS = {
    "GEMINI_API_KEY": gemini_server.KEY,
    "OPENAI_API_KEY": openai_server.KEY,
    "STABILITY_API_KEY": stability_server.KEY,
    "FAL_KEY": fal_server.KEY,
    "REPLICATE_API_TOKEN": replicate_server.KEY,
    "BEDROCK_CREDENTIALS": BEDROCK,
}
#: This one lies in a Secret block of Prefect's and nowhere else.
BLOCK, BLOCK_KEY = "bfl-api-key", bfl_server.KEY
SECRETS = {*KEYS.values(), bedrock_server.SECRET, BLOCK_KEY}


class Gemini(Quoting, gemini_server.GeminiServer):
    key, mark = gemini_server.KEY, "mark-gemini"
    faults_in_turn = (
        with_json(lambda value: value | {"modelVersion": f"other {gemini_server.KEY}"}),
        gemini_server.blocked("SAFETY"),
        with_json(lambda value: {k: value[k] for k in value if k != "usageMetadata"}),
        says(403),
        says(404),
    )


class OpenAI(Quoting, openai_server.OpenAIServer):
    key, mark = openai_server.KEY, "mark-openai"
    faults_in_turn = (
        openai_server.with_data(lambda _: {"url": f"https://x.test/?key={openai_server.KEY}"}),
        says(400),
        says(429, kind="insufficient_quota"),
        openai_server.with_data(lambda _: {"b64_json": openai_server.KEY}),
        with_json(openai_server.without_data),
    )


class Bedrock(Quoting, bedrock_server.BedrockServer):
    key, mark = BEDROCK, "mark-bedrock"
    faults_in_turn = (says(500), reset)


class Stability(Quoting, stability_server.StabilityServer):
    key, mark = stability_server.KEY, "mark-stability"
    faults_in_turn = (says(403, kind="content_moderation"), says(401))


class BflWithCredits(bfl_server.BflServer):
    def answer(self, seen: Seen) -> Reply:
        if seen.path == "/v1/credits":
            return as_json({"credits": 412.5})
        return super().answer(seen)


class Bfl(Quoting, BflWithCredits):
    key, mark = bfl_server.KEY, "mark-bfl"
    faults_in_turn = (says(401), says(422))


class Fal(Quoting, fal_server.FalServer):
    key, mark = fal_server.KEY, "mark-fal"
    faults_in_turn = (says(422), page(502))


class Replicate(Quoting, replicate_server.ReplicateServer):
    key, mark = replicate_server.KEY, "mark-replicate"
    faults_in_turn = (says(401), says(404))


def route(*stages: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"stages": [{"model": model, "operation": does} for model, does in stages]}]


#: Each protocol that takes a key, by its own way of taking it.
MIX = {
    "name": "all-keys",
    "product": "storefront",
    "routes": {
        "typography": route(("gemini-nano-banana-2.1", "generate")),
        "creative": route(("gpt-image-2", "generate")),
        "fast": route(("bedrock-sd3-5-large", "generate"), ("stability-upscale-fast", "upscale")),
        "edit": route(("bfl-flux-2-pro", "edit")),
        "upscale": route(("fal-flux-dev", "generate"), ("replicate-real-esrgan", "upscale")),
    },
}
#: Cases by subtask: one for each fault of each stage, and one that goes well.
CASES = {"typography": 6, "creative": 6, "fast": 5, "edit": 3, "upscale": 5}


@dataclass
class Left:
    """What a run left behind."""

    result: dict[str, Any]
    #: Bytes by where they were found; what is packed is unpacked.
    places: dict[str, bytes]


@pytest.fixture(scope="module")
def left(
    prefect_home: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    save_block(prefect_home, prefect_server)
    tmp_path = tmp_path_factory.mktemp("keys")
    served_by = {"PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": prefect_server}
    home = {"IMAGEGATE_HOME": str(tmp_path / "home")}
    imagegate = Command(tmp_path / "home", clean_environment() | served_by | home)
    with ExitStack() as stack:
        # The fakes of the second kit draw 32 pixels a side, which no upscaler makes 512 of.
        bedrock, fal, replicate, bfl = Bedrock(), Fal(), Replicate(), Bfl()
        bedrock.picture, bfl.script.pending, fal.script.states = picture(128), 0, []
        fal.picture = replicate.picture = bfl.picture = picture(512)
        bfl.picture_mime = "image/png"
        gemini = Gemini()
        fakes: dict[str, Any] = {"gemini": gemini, "openai": OpenAI(), "stability": Stability()}
        fakes |= {"bedrock": bedrock, "fal": fal, "replicate": replicate, "bfl": bfl}
        servers = {name: stack.enter_context(fake).url for name, fake in fakes.items()}
        served = {"version": replicate_server.VERSION, "id": replicate_server.MODEL}
        slack = stack.enter_context(SlackServer(0, tmp_path / "slack.jsonl", TOKEN, (CHANNEL,)))
        asked = [
            *("run", "--candidate", str(tmp_path / "mix.yaml")),
            "--catalog",
            hosted.catalog(
                tmp_path / "catalog.yaml", servers, {"replicate-real-esrgan": served}, attempts=1
            ),
            *("--inputs", hosted.log(tmp_path / "log.csv", rows())),
            *("--policy", hosted.policy(tmp_path / "policy.yaml", len(rows()))),
            "--json",
        ]
        (tmp_path / "mix.yaml").write_text(yaml.safe_dump(MIX), encoding="utf-8")
        told = {
            "SLACK_BOT_TOKEN": TOKEN,
            "IMAGEGATE_SLACK_CHANNEL": CHANNEL,
            "IMAGEGATE_SLACK_URL": slack.base_url,
        }
        judged = imagegate(*asked, **KEYS, **told)
        assert judged.code in (0, 1, 3), judged.err
        # A run that ends in an error, with what Prefect keeps of it, while the key is quoted.
        gemini.served = says(401)
        broken = imagegate(*asked, **KEYS, **told)
        assert broken.code == 4, broken.out
        verified = imagegate("models", "verify", "--catalog", asked[4], **KEYS)
        places = gathered(imagegate.home, prefect_home)
        places["slack"] = (tmp_path / "slack.jsonl").read_bytes() + repr(slack.shown).encode()
        places |= {f"slack file {name}": data for name, data in slack.files.items()}
        for name, done in (("run", judged), ("broken", broken), ("verify", verified)):
            places[name] = shown(done)
        yield Left(judged.json, places)


def rows() -> list[dict[str, Any]]:
    upload = {"edit": {"upload": "uploads/cut-out-mug.png"}}
    return [
        {"prompt": f"a kite {subtask} {n}", "subtask": subtask, "width": 512, "height": 512}
        | upload.get(subtask, {})
        for subtask, count in CASES.items()
        for n in range(count)
    ]


def save_block(home: Path, server: str) -> None:
    code = (
        "import sys; from prefect.blocks.system import Secret;"
        f"Secret(value=sys.stdin.read()).save({BLOCK!r}, overwrite=True)"
    )
    env = clean_environment() | {"PREFECT_HOME": str(home), "PREFECT_API_URL": server}
    subprocess.run(
        [sys.executable, "-c", code], input=BLOCK_KEY, text=True, check=True, env=env, cwd=ROOT
    )


def shown(done: Done) -> bytes:
    return (done.out + done.err).encode()


def gathered(*folders: Path) -> dict[str, bytes]:
    """Return all files of some folders, and what is packed in them."""
    found: dict[str, bytes] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found |= unpacked(str(path), path.read_bytes())
    return found


def unpacked(name: str, data: bytes) -> dict[str, bytes]:
    found = {name: data}
    if name.endswith(".parquet"):
        table = pd.read_parquet(io.BytesIO(data))
        found[f"{name} read"] = table.to_json(orient="records", force_ascii=False).encode()
    elif data[:2] == b"\x1f\x8b":
        found |= unpacked(name.removesuffix(".gz") + " unpacked", gzip.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                found |= unpacked(f"{name} {member}", archive.read(member))
    return found


def test_no_key_is_left_anywhere(left: Left) -> None:
    assert left.result["incomplete"] is False
    names = " ".join(left.places)
    for part in ("state.db", ".parquet read", "report", "verdict", "plan.json", "prefect.db"):
        assert part in names, part
    # What the providers wrote was kept, so the keys were taken out of it.
    everything = b"\0".join(left.places.values())
    for server in (Gemini, OpenAI, Bedrock, Stability, Bfl, Fal, Replicate):
        assert server.mark.encode() in everything, server.mark
    attempts = next(
        json.loads(data)
        for name, data in left.places.items()
        if name.endswith("attempts.parquet read")
    )
    seen = Counter(row["failure"] for row in attempts if row["failure"])
    assert set(seen) >= set(FailureClass), set(FailureClass) - set(seen)
    for secret in SECRETS:
        for form in forms(secret):
            where = [name for name, data in left.places.items() if form in data]
            assert not where, (form[:6], where)


def test_what_the_providers_did_instead_is_said_where_people_read(left: Left) -> None:
    (drift,) = (reason for reason in left.result["reasons"] if "is pinned to" in reason)
    assert "model 'gemini-nano-banana-2.1' did something else than was asked (drift)" in drift
    report = next(data for name, data in left.places.items() if name.endswith("report.html"))
    for place in (report, left.places["slack"]):
        assert b"did something else than was asked" in place


def test_a_key_that_was_left_would_be_found() -> None:
    for secret in SECRETS:
        reply = quoting(says(400)(openai_server.Reply()), secret, "mark")
        packed = gzip.compress(reply.body)
        (_, plain) = unpacked("log.gz", packed).values()
        assert sum(form in plain for form in forms(secret)) >= 2
