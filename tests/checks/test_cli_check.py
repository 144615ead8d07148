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
    assert set(found[0]) == {"id", "file", "verdict", "read_text", "findings"}
    assert found[0]["read_text"] == ["Good Morning"]
    text = next(f for f in found[0]["findings"] if f["check"] == "typography.text")
    assert set(text) == {"check", "version", "verdict", "score", "limit", "message", "region"}
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
    assert f"{len(make)} pictures" in done.out
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
