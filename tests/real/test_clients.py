"""The clients that people use, each the real program, on our server: MCP Inspector, Claude Code, Codex CLI.

The Inspector runs tasks of the stand-in for codex, for it is the Inspector that is looked at; Codex runs
itself. What a client wrote to the server is kept by a tap: a `tee` in front of the server's stdin. The server
itself is the client's own child, so the client's way of ending it is the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import anyio
import pytest
from conftest import command

from .conftest import npm
from .harness import LIMIT_S, SERVER
from .test_sdk import TOOLS

INSPECTOR_PACKAGE = "@modelcontextprotocol/inspector@2.12.0"
CLAUDE_PACKAGE = "@anthropic-ai/claude-code@2.1.329"
ERAS = ["legacy", "modern"]
# Patience for a busy machine; whether a server knows the newest revision is asked for 5 s, whatever is set.
CLAUDE = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "MCP_TIMEOUT": "%d" % (1000 * LIMIT_S)}
REFUSED = 5  # the Inspector's exit code for an unknown tool and for a result with isError
TAP = """
mkfifo "$0/$$.pipe" || exit
{ tee "$0/$$.jsonl" <&3 >"$0/$$.pipe" & } 3<&0
exec "$@" <"$0/$$.pipe"
"""


class Tap:
    """Starts a server and keeps what it is sent, one file for each start."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.command = ["/bin/sh", "-c", TAP, str(directory), *command()]

    def sessions(self) -> List[List[Dict[str, Any]]]:
        """The messages that each server was sent."""
        files = sorted(self.directory.glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    def methods(self) -> List[str]:
        """What the one server that was started was asked, in order."""
        [session] = self.sessions()
        return [message["method"] for message in session if "method" in message]


@pytest.fixture
def tap(nothing_left, tmp_path: Path) -> Tap:
    return Tap(tmp_path / "tap")


class Inspector:
    def __init__(self, node: Path, tap: Tap, environment: Dict[str, str], cwd: Path) -> None:
        settings = ["%s=%s" % item for item in environment.items() if "CODEX" in item[0]]
        options = [word for setting in settings for word in ("-e", setting)]
        inspector = [str(node), str(npm(INSPECTOR_PACKAGE) / "mcp-inspector"), "--cli"]
        self.command = [*inspector, *tap.command, "--cwd", str(cwd), *options, "--format", "json"]
        self.environment = environment

    def run(self, era: str, method: str, *words: str) -> Tuple[int, List[Any], List[Any]]:
        """The exit code, the answers and the errors, both line by line."""
        done = subprocess.run(
            [*self.command, "--protocol-era", era, "--method", method, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        return done.returncode, json_lines(done.stdout), json_lines(done.stderr)

    def result(self, era: str, method: str, *words: str) -> Dict[str, Any]:
        """The result of a request that succeeds."""
        code, answers, errors = self.run(era, method, *words)
        assert code == 0, errors
        [answer] = answers
        return answer["result"]


def json_lines(text: str) -> List[Any]:
    """The lines that are JSON; on stderr there may be others."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def inspector(node, tap, fake, repo):
    return Inspector(node, tap, fake, repo)


def call(tool: str, **arguments: Any) -> List[str]:
    return ["tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]


def opening(era: str) -> List[str]:
    return ["initialize", "notifications/initialized"] if era == "legacy" else ["server/discover"]


@pytest.mark.parametrize("era", ["auto", *ERAS])
def test_the_inspector_lists_the_tools_in_its_era_and_finds_their_schemas_portable(inspector, tap, era):
    tools = inspector.result(era, "tools/list", "--strict")["tools"]
    assert [tool["name"] for tool in tools] == TOOLS
    assert tap.methods() == [*opening(era), "tools/list"]


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_reads_every_resource_that_it_lists(inspector, era):
    resources = inspector.result(era, "resources/list")["resources"]
    assert len(resources) >= 3
    for resource in resources:
        [content] = inspector.result(era, "resources/read", "--uri", resource["uri"])["contents"]
        assert json.loads(content["text"])


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_gets_a_prompt_that_it_lists(inspector, era):
    prompts = inspector.result(era, "prompts/list")["prompts"]
    assert "fan_out" in [prompt["name"] for prompt in prompts]
    gotten = inspector.result(era, "prompts/get", "--prompt-name", "fan_out", "--prompt-args",
                              "jobs=paint it black")
    [message] = gotten["messages"]
    assert "paint it black" in message["content"]["text"]


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_gets_the_result_of_codex_and_in_the_modern_era_through_an_mcp_task(
        inspector, tap, repo, era):
    result = inspector.result(era, *call("codex", prompt="SAY hello", cwd=str(repo)))
    assert result["structuredContent"]["content"] == "hello"
    assert ("tasks/get" in tap.methods()) == (era != "legacy")


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_fails_when_a_run_of_codex_fails(inspector, repo, era):
    code, [answer], [error] = inspector.run(era, *call("codex", prompt="FAIL out of ink", cwd=str(repo)))
    assert (code, error["error"]["code"]) == (REFUSED, "tool_is_error")
    assert "out of ink" in answer["result"]["content"][0]["text"]


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_fails_for_an_unknown_tool(inspector, era):
    code, answers, [error] = inspector.run(era, *call("codecs"))
    assert (code, answers, error["error"]["code"]) == (REFUSED, [], "tool_not_found")


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_claude_code_shows_the_server_as_connected_in_either_era(tap, fake, repo, era):
    negotiation = {"modern": "auto", "legacy": "legacy"}[era]
    environment = {**fake, **CLAUDE, "MCP_PROTOCOL_NEGOTIATION": negotiation}

    def claude(*words: str) -> str:
        command = [str(npm(CLAUDE_PACKAGE) / "claude"), "mcp", *words]
        done = subprocess.run(command, env=environment, cwd=repo, capture_output=True, text=True,
                              timeout=LIMIT_S)
        assert done.returncode == 0, done
        return done.stdout

    claude("add", "codex-swarm", "--", *tap.command)
    [shown] = [line for line in claude("list").splitlines() if line.startswith("codex-swarm: ")]
    assert shown.endswith("Connected")
    assert tap.methods()[: len(opening(era))] == opening(era)
    assert ("initialize" in tap.methods()) == (era == "legacy")


def entry_for(client: str) -> str:
    """What the program says that this client is to be given."""
    command = [sys.executable, str(SERVER), "config", client]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S).stdout


def test_claude_code_connects_when_what_config_prints_is_pasted_into_a_shell(nothing_left, fake, repo):
    path = str(npm(CLAUDE_PACKAGE)) + os.pathsep + fake["PATH"]
    environment = {**fake, **CLAUDE, "PATH": path}
    script = entry_for("claude") + "claude mcp list\n"
    done = subprocess.run(["sh", "-ec", script], env=environment, cwd=repo, capture_output=True, text=True,
                          timeout=LIMIT_S)
    assert done.returncode == 0, done
    [shown] = [line for line in done.stdout.splitlines() if line.startswith("codex-swarm: ")]
    assert str(SERVER) in shown and shown.endswith("Connected")


def tapped(entry: str, command: List[str]) -> str:
    """The entry with `command`, which taps what the server is sent, in place of the server's own."""
    own = "args = [%s, " % json.dumps(str(SERVER))
    assert own in entry
    entry = entry.replace(own, "args = [%s, " % json.dumps(command[1:])[1:-1])
    return entry.replace("command = %s" % json.dumps(sys.executable), "command = %s" % json.dumps(command[0]))


@pytest.mark.anyio
async def test_codex_set_up_as_config_says_gets_the_results_of_a_batch_of_codex_tasks(lab):
    """The model of the outer codex looks for a tool, finds ours, calls it, and is told what the two inner
    ones said."""
    tap = Tap(lab.directory / "tap")
    with (lab.codex_home / "config.toml").open("a") as config:
        config.write("\n%s\n" % tapped(entry_for("codex"), tap.command))
        # Codex begins without a server that need not be there, and the search would find nothing yet.
        config.write("required = true\nstartup_timeout_sec = %d\n" % LIMIT_S)
        config.write("[mcp_servers.codex-swarm.env]\n")
        config.writelines("%s = %s\n" % (name, json.dumps(value)) for name, value in lab.environment.items())
    batch = {"tasks": [{"prompt": "@say one"}, {"prompt": "@say two"}], "defaults": {"cwd": str(lab.repo)}}
    prompt = "@search several codex tasks\n@mcp codex_swarm codex_batch %s\n@say thank you" % json.dumps(
        batch)
    with anyio.fail_after(LIMIT_S):
        command = [str(lab.codex), "exec", "--json", "-"]
        done = await anyio.run_process(command, input=prompt.encode(), cwd=lab.repo, env=lab.environment)

    last = lab.model.requests[-1]
    assert last.prompt == prompt
    found, answer = map(json.loads, last.tool_outputs)
    assert (found[0]["name"], found[0]["tools"][0]["name"]) == ("mcp__codex_swarm", "codex_batch")
    records = json.loads(answer.partition("Output:\n")[2])["tasks"]
    assert [record["content"] for record in records] == ["one", "two"]
    assert "thank you" in done.stdout.decode()
    assert tap.methods()[0] == "initialize"  # one server was started: the inner tasks start none
