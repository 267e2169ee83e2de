"""The model server itself, before our server is judged by it."""

import json
import subprocess
import sys
import urllib.request

import anyio
import pytest
from model_server import ModelServer

from .harness import CHECKOUT, CODEX_CONFIG, LIMIT_S, Lab, until

pytestmark = pytest.mark.anyio


def bare_codex(lab: Lab, prompt: str):
    """One run of codex without our server: its exit code and its events."""
    done = subprocess.run(
        [str(lab.codex), "exec", "--json", "-s", "workspace-write", "-"],
        input=prompt,
        cwd=lab.repo,
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_script_of_tool_calls_is_carried_out_in_order(lab):
    code, events = bare_codex(
        lab,
        "@shell echo one > a.txt\n@patch *** Update File: a.txt\\n@@\\n-one\\n+two\n@usage 7 3\n@say done"
    )
    assert code == 0
    assert (lab.repo / "a.txt").read_text() == "two\n"
    assert events[-2]["item"]["text"] == "done"
    assert events[-1]["usage"]["input_tokens"] == 3 * 7  # three requests: shell, patch, answer


async def test_it_serves_by_itself_and_its_gates_open_on_request(lab):
    command = [sys.executable, str(CHECKOUT / "tests" / "model_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            (lab.codex_home / "config.toml").write_text(CODEX_CONFIG % url)
            gate = urllib.request.Request(url[: -len("/v1")] + "/release/door", method="POST")
            urllib.request.urlopen(gate, timeout=LIMIT_S).close()
            code, events = bare_codex(lab, "@hold door\n@sleep 0.01\n@say through")
        finally:
            server.terminate()
    assert (code, events[-2]["item"]["text"]) == (0, "through")


async def test_a_closed_server_lets_go_of_those_who_wait_at_a_gate():
    async with anyio.create_task_group() as waiters:
        with ModelServer() as model:
            waiters.start_soon(anyio.to_thread.run_sync, model.hold, "never opened")
            await until(lambda: model.held("never opened"), "somebody waits")
    assert model.held("never opened") == 0
