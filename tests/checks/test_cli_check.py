import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.checks.drawing import encoded, poster, scene
from tests.conftest import ROOT, Command, clean_environment


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "good.png").write_bytes(encoded(poster("Good Morning")))
    (tmp_path / "cut.png").write_bytes(encoded(scene())[:2000])
    (tmp_path / "m.csv").write_text(
        "file,id,intended_text,width\n"
        "good.png,wrong,Good Mourning,\ngood.png,right,Good Morning,512\ncut.png,cut,,\n"
        "good.png,other,বাংলা,\n"
    )
    return tmp_path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_in_the_order_of_the_manifest(pictures: Path, light_imagegate: Command) -> None:
    manifest = str(pictures / "m.csv")
    done = light_imagegate("check", "--manifest", manifest, "--json", "--workers", "1")
    assert done.code == 1, done.err
    found = lines(done.out)
    assert [(f["id"], f["file"], f["verdict"]) for f in found] == [
        ("wrong", "good.png", "fail"), ("right", "good.png", "pass"), ("cut", "cut.png", "fail"),
        ("other", "good.png", "unmeasured"),
    ]  # fmt: skip
    assert set(found[0]) == {
        "id", "file", "verdict", "text", "read_text", "extra_text", "extra_regions", "findings",
        "truth", "miss",
    }  # fmt: skip
    assert found[0]["text"] == [
        {"expected": "Good Mourning", "severity": "minor", "read": "Good Morning"}
    ]
    assert (found[0]["truth"], found[0]["miss"]) == (None, None)
    assert found[0]["read_text"] == ["Good Morning"]
    text = next(f for f in found[0]["findings"] if f["check"] == "typography.text")
    assert set(text) == {
        "check", "version", "verdict", "counts", "score", "limit", "message", "region", "confirmed",
    }  # fmt: skip
    assert text["confirmed"] in {"agreed", "disagreed", "absent"}
    assert {f["confirmed"] for f in found[1]["findings"]} == {None}
    assert set(text["region"]) == {"x", "y", "width", "height"}
    cut = {f["check"]: f["verdict"] for f in found[2]["findings"]}
    assert cut.pop("decode.file") == "fail"
    assert set(cut.values()) == {"skip"}
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("make", "code"),
    [
        ({"a.png": encoded(scene(256, 256))}, 0),
        ({"a.png": encoded(scene(256, 256)), "b.png": encoded(Image.new("RGB", (256, 256)))}, 1),
    ],
)
def test_people_get_a_table_and_the_exit_code(
    make: dict[str, bytes], code: int, tmp_path: Path, light_imagegate: Command
) -> None:
    folder = tmp_path / "[red]in"
    folder.mkdir()
    for name, data in make.items():
        (folder / name).write_bytes(data)
    done = light_imagegate("check", str(folder), "--workers", "1")
    assert done.code == code
    assert f"{len(make)} picture{'s'[: len(make) - 1]}: " in done.out
    if code:
        assert "composition.blank" in done.out


def test_doubt_alone_holds(pictures: Path, light_imagegate: Command) -> None:
    (pictures / "u.jsonl").write_text('{"file": "good.png", "intended_text": "বাংলা"}')
    done = light_imagegate("check", "--manifest", str(pictures / "u.jsonl"))
    assert done.code == 3
    assert "not covered" in done.out


@pytest.mark.parametrize(
    "arguments", [[], ["x.png", "--manifest", "m.csv"], ["nowhere.png"], ["--manifest", "none.csv"]]
)
def test_bad_input_is_said_and_exits_2(
    arguments: list[str], pictures: Path, light_imagegate: Command
) -> None:
    done = light_imagegate("check", *arguments)
    assert done.code == 2
    assert "error:" in done.err
    assert "Traceback" not in done.err


def test_check_needs_neither_prefect_nor_great_expectations(pictures: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import flows.cli_check as c, typer\n"
        "if __name__ == '__main__':\n"
        "    try: c.check(paths=[Path(sys.argv[1])], manifest=None, as_json=True, workers=1)\n"
        "    except typer.Exit: pass\n"
        "    from tasks.checks.suite import check_picture\n"
        "    heavy = {'prefect', 'great_expectations', 'pandas', 'sqlalchemy', 'rapidocr'}\n"
        "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "    assert 'tasks.checks.ocr' not in sys.modules\n"
    )
    script = pictures / "probe.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), str(pictures / "good.png")],
        cwd=ROOT, env=clean_environment() | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout)[0]["verdict"] == "pass"


def test_one_picture_is_told_in_full(pictures: Path, light_imagegate: Command) -> None:
    good = str(pictures / "good.png")
    done = light_imagegate("check", good, "--text", "Good Mourning", "--language", "en")
    assert done.code == 1, done.err
    said = done.out.splitlines()
    assert said[0].split() == ["fail", good, "512", "×", "512"]
    assert "✗ typography.text  Text as asked, letter by letter" in done.out
    texts = [line.split() for line in said if line.lstrip().startswith(("text ", "read "))]
    assert texts == [
        ["text", "minor", "Good", "Mourning"], ["read", "Good", "Morning"],
    ]  # fmt: skip
    assert "1 picture: 0 pass, 1 fail, 0 unmeasured" in done.out


def test_bad_texts_are_said(pictures: Path, light_imagegate: Command) -> None:
    good = str(pictures / "good.png")
    assert light_imagegate("check", good, "--text", "x", "--language", "!").code == 2
    with_manifest = light_imagegate(
        "check", "--manifest", str(pictures / "m.csv"), "--text", "Good Morning"
    )
    assert with_manifest.code == 2
    assert "intended_text" in with_manifest.err


def test_what_fails_beside_what_the_label_speaks_of_is_listed_too(
    pictures: Path, light_imagegate: Command
) -> None:
    rows = ["file,intended_text,legible_match,width,height"]
    rows += [f"good.png,Good Morning,yes,{side},{side}" for side in (512, 512, 512, 999)]
    (pictures / "s.csv").write_text("\n".join(rows) + "\n")
    done = light_imagegate("check", "--manifest", str(pictures / "s.csv"))
    assert done.code == 1
    assert "0 misses; against the labels: 4 of 4 good pictures pass" in " ".join(done.out.split())
    assert done.out.count("geometry.size") == 1
    assert "4 pictures: 3 pass, 1 fail, 0 unmeasured" in done.out


def test_the_table_of_misses_names_the_reason(pictures: Path, light_imagegate: Command) -> None:
    (pictures / "t.csv").write_text(
        "file,intended_text,legible_match,level,strict\n"
        "good.png,Good Mourning,yes,exact,1\n"
        "good.png,Good Morning,no,garbled,1\n"
        "good.png,বাংলা,yes,,1\n"
        "good.png,Good Morning,yes,,1\n"
        "good.png,Good Mourning,no,minor,1\n"
        "good.png,Nothing,yes,,0\n"
    )
    done = light_imagegate("check", "--manifest", str(pictures / "t.csv"))
    assert done.code == 1
    words = " ".join(done.out.replace("│", " ").split())
    for said in (
        "yes (exact)", "Good Mourning", "false fail: minor", "no (garbled)",
        "false pass: every string was found as asked", "not judged: not covered",
        "3 misses; against the labels: 1 of 3 good pictures pass, 1 fail; "
        "1 of 2 bad ones fail, 1 pass; 1 not judged; balanced accuracy 0.500 of those judged; "
        "1 without a label, or with strict 0, not counted",
    ):  # fmt: skip
        assert said in words
    asked = light_imagegate("check", "--manifest", str(pictures / "t.csv"), "--json")
    missed = [line["miss"] for line in lines(asked.out)]
    assert [m and m["kind"] for m in missed] == [
        "false fail", "false pass", "not judged", None, None, None,
    ]  # fmt: skip
    assert missed[0] == {
        "kind": "false fail",
        "file": "good.png",
        "truth": "yes (exact)",
        "verdict": "fail",
        "expected": ["Good Mourning"],
        "read": ["Good Morning"],
        "severity": ["minor"],
        "region": missed[0]["region"],
        "confirmed": missed[0]["confirmed"],
        "reason": missed[0]["reason"],
    }
    assert set(missed[0]["region"]) == {"x", "y", "width", "height"}
    assert missed[0]["reason"].startswith("minor: 'Good Mourning' is misspelt")
    assert "3 misses" in asked.err


def test_groups_of_a_manifest_are_told_and_fail_only_by_the_policy(
    pictures: Path, light_imagegate: Command
) -> None:
    odd = poster("Good Morning").rotate(180)
    (pictures / "odd.png").write_bytes(encoded(odd))
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(encoded(poster(f"Day {number}")))
    rows = [*(f"{n}.png,summer" for n in range(3)), "odd.png,summer"]
    (pictures / "g.csv").write_text("file,campaign\n" + "\n".join(rows))
    (pictures / "p.yaml").write_text("checks: {consistency: {campaign: failure}}")
    manifest = ("check", "--manifest", str(pictures / "g.csv"), "--json")
    told = light_imagegate(*manifest)
    assert told.code == 0, told.err
    last = [f for f in lines(told.out)[-1]["findings"] if f["check"] == "consistency.campaign"]
    assert [(f["verdict"], f["counts"]) for f in last] == [("fail", False)]
    failed = light_imagegate(*manifest, "--policy", str(pictures / "p.yaml"))
    assert failed.code == 1
    assert [one["verdict"] for one in lines(failed.out)] == ["pass", "pass", "pass", "fail"]


def test_unrequested_text_is_apart_and_fails_by_the_policy(
    pictures: Path, light_imagegate: Command
) -> None:
    good = str(pictures / "good.png")
    (pictures / "p.yaml").write_text("checks: {extra_text: failure}")
    asked = ("check", good, "--text", "Good", "--json")
    found = lines(light_imagegate(*asked).out)[0]
    two = pictures / "two.png"
    two.write_bytes(encoded(poster("Good", "Riddance")))
    asked = ("check", str(two), "--text", "Good", "--json")
    apart = lines(light_imagegate(*asked).out)[0]
    assert (apart["verdict"], apart["extra_text"]) == ("pass", ["Riddance"])
    assert len(apart["extra_regions"]) == 1
    done = light_imagegate(*asked, "--policy", str(pictures / "p.yaml"))
    assert done.code == 1
    extra = [f for f in lines(done.out)[0]["findings"] if f["check"] == "typography.extra"]
    assert extra[0]["message"] == "text that nobody asked for: 'Riddance'"
    assert found["extra_text"] == []
