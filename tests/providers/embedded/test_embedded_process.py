import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tasks.errors import GateError
from tasks.providers.embedded.draws import draw_defect, draw_transient
from tasks.providers.embedded.models import MODELS, Fault
from tasks.providers.embedded.process import EmbeddedServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX process handling")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedServer(tmp_path_factory.mktemp("server") / "deep" / "log.jsonl") as running:
        yield running


def order(fault, model="folio-1"):
    """A request that draws this transient failure at its first attempt and none at its second."""
    spec = MODELS[model]
    seed = next(
        seed
        for seed in range(20_000)
        if draw_transient(spec, "a chair", seed, 0) is fault
        and draw_transient(spec, "a chair", seed, 1) is None
        and draw_defect(spec, "a chair", seed, (), brand=False) is None
    )
    return {"prompt": "a chair", "size": "64x64", "model": model, "seed": seed}


def post(server, body, key, retry=0, timeout=10.0):
    headers = {"Idempotency-Key": key, "X-Retry-Count": str(retry)}
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        return client.post(f"{server.base_url}/generate", json=body, headers=headers)


def line_of(server, key):
    return [line for line in server.requests() if line["idempotency_key"] == key]


def test_reset_is_a_real_transport_error_and_a_retry_succeeds(server):
    body = order(Fault.RESET)
    with pytest.raises(httpx.ReadError):
        post(server, body, "reset")
    (line,) = line_of(server, "reset")
    assert (line["fault"], line["status"], line["billed_microusd"]) == ("reset", 0, 0)
    assert post(server, body, "reset-2", retry=1).status_code == 200


def test_reset_reaches_the_socket_as_rst(server):
    body = json.dumps(order(Fault.RESET)).encode()
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        with pytest.raises(ConnectionResetError):
            sock.recv(1000)


def test_timeout_is_billed_once_and_a_retry_succeeds(server):
    body = order(Fault.TIMEOUT)
    with pytest.raises(httpx.ReadTimeout):
        post(server, body, "slow", timeout=0.4)
    (line,) = line_of(server, "slow")
    assert (line["fault"], line["status"]) == ("timeout", 0)
    assert line["billed_microusd"] == MODELS["folio-1"].price_microusd
    assert post(server, body, "slow-2", retry=1).status_code == 200


def test_other_transients_over_the_wire(server):
    assert post(server, order(Fault.BAD_GATEWAY), "bad").status_code == 502
    throttled = post(server, order(Fault.THROTTLED), "many")
    assert throttled.status_code == 429
    assert float(throttled.headers["retry-after"]) <= 1


def test_the_port_is_on_loopback_only(server):
    assert server.base_url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{server.base_url}/health", trust_env=False).json() == {"status": "ok"}


def test_restart_continues_the_log_and_stop_is_clean(tmp_path):
    body = {"prompt": "a mug", "size": "64x64", "model": "dash-2", "seed": 5}
    server = EmbeddedServer(tmp_path / "log.jsonl")
    contents = []
    for _ in range(2):
        with server:
            contents.append(post(server, body, "same").content)
            child = server._child
        assert child.returncode == 0
        with pytest.raises(GateError, match="not running"):
            _ = server.base_url
    assert contents[0] == contents[1]
    assert [line["replayed"] for line in server.requests()] == [False, True]
    server.stop()


def test_a_server_that_cannot_start_says_why(tmp_path):
    with pytest.raises(GateError, match="Is a directory"):
        EmbeddedServer(tmp_path).start()


PARENT = """
import sys
from pathlib import Path
from tasks.providers.embedded.process import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1])).start()
sys.stdout.write(f"{server.pid}\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def test_kill_of_the_parent_ends_the_server(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log.jsonl")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as parent:
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        try:
            alive, _, _ = select.select([watch], [], [], 0)
            assert not alive
            parent.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([watch], [], [], 15)
            assert ended, "the server outlived its parent"
        finally:
            os.close(watch)


def test_help_and_bad_port():
    run = [sys.executable, "-m", "tasks.providers.embedded"]
    shown = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True)
    assert "--brands" in shown.stdout
    bad = subprocess.run([*run, "--port", "70000"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "70000" in bad.stderr
