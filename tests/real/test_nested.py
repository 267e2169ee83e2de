"""Codex starts the user's MCP servers below every task, and keeps the environment of the task from them: ours
may be among them."""

from __future__ import annotations

import json

import pytest
from conftest import command

from .harness import LIMIT_S, until

pytestmark = pytest.mark.anyio

SETUP = """
[mcp_servers.codex-swarm]
command = %s
args = %s
default_tools_approval_mode = "approve"
required = true                     # else Codex begins before it can find our tools
startup_timeout_sec = %d

[mcp_servers.codex-swarm.env]
"""


@pytest.fixture
def configured(lab):
    """`configured(**env)`: from now on every codex of this world starts our server, with these variables."""

    def configure(**env: str) -> None:
        with (lab.codex_home / "config.toml").open("a") as config:
            program, *words = command()
            config.write(SETUP % (json.dumps(program), json.dumps(words), LIMIT_S))
            config.writelines("%s = %s\n" % (name, json.dumps(value))
                              for name, value in {**lab.environment, **env}.items())

    return configure


def inside(tool: str, **arguments: object) -> str:
    """The lines of a prompt that call a tool of the server below the task."""
    return "@search several codex tasks\n@mcp codex_swarm %s %s\n" % (tool, json.dumps(arguments))


def answer_of(lab, prompt: str) -> str:
    """What the model of the task with this prompt was told by its last tool call."""
    [*_, request] = [request for request in lab.model.requests if request.prompt == prompt]
    return request.tool_outputs[-1]


async def test_a_task_of_codex_starts_no_tasks_through_our_own_server_and_is_told_why(lab, configured):
    configured()
    prompt = inside("codex_async", prompt="@say never", cwd=str(lab.repo)) + "@say done"
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt=prompt, sandbox="workspace-write")
        assert record["content"] == "done"
        told = answer_of(lab, prompt)
        assert "inside of task " + record["task_id"] in told and "CODEX_SWARM_DEPTH=2" in told
        assert [entry.name for entry in (lab.root / "tasks").iterdir()] == [record["task_id"]]


async def test_a_task_of_codex_looks_through_our_own_server(lab, configured):
    configured()
    async with lab.connect() as swarm:
        done = await swarm.call("codex", prompt="@shell echo more > added.txt\n@say done", worktree=True)
        prompt = inside("codex_diff", task_id=done["task_id"], view="files") + "@say looked"
        await swarm.call("codex", prompt=prompt)
    assert "added.txt" in answer_of(lab, prompt)


@pytest.mark.parametrize("end", ["cancelled", "succeeded"])
async def test_the_tasks_of_a_task_of_codex_are_stopped_and_committed_when_it_ends(lab, configured, end):
    configured(CODEX_SWARM_DEPTH="2")
    below = {"prompt": "@shell echo more > added.txt\n@hold below", "cwd": str(lab.repo), "worktree": True}
    async with lab.connect() as swarm:
        task_id = await swarm.start(inside("codex_async", **below) + "@hold above\n@say done")
        await until(lambda: lab.model.held("above") and lab.model.held("below"),
                    "both tasks wait for the model")
        [inner] = [t["task_id"] for t in (await swarm.call("codex_status"))["tasks"]
                   if t["task_id"] != task_id]
        if end == "cancelled":
            await swarm.cancel(task_id)
        else:
            lab.model.release("above")
        [record] = await swarm.wait(task_id)
        stopped = await swarm.status(inner)
    assert record["outcome"] == end and any(inner in warning for warning in record["warnings"])
    assert (stopped["state"], stopped["outcome"]) == ("ended", "cancelled")
    assert lab.git("show", "codex-swarm/%s:added.txt" % inner) == "more\n"
