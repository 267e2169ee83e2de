"""What `codex_status` shows of a task that runs."""

import pytest

from .harness import until

pytestmark = pytest.mark.anyio


async def progress_until(swarm, task_id, condition, what):
    """Poll the status of a running task until `condition(progress)`; the whole record."""

    async def look():
        record = await swarm.status(task_id)
        return record if condition(record.get("progress", {})) else None

    return await until(look, what)


async def test_status_names_the_command_that_runs(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@say looking\n@shell until [ -e go ]; do sleep 0.05; done\n@say done")
        record = await progress_until(
            swarm, task_id, lambda progress: "go ]" in str(progress), "the command shows in the status"
        )
        assert record["state"] == "running"
        assert "command" in record["progress"]["phase"]
        assert record["threadId"] == lab.model.requests[-1].headers["thread-id"]
        assert "looking" in str(record["progress"])
        (lab.repo / "go").touch()
        await swarm.wait(task_id)


async def test_status_tells_that_the_model_is_waited_for(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        await progress_until(
            swarm, task_id, lambda progress: "model" in progress.get("phase", ""), "the phase names the model"
        )
        lab.model.release("gate")
        await swarm.wait(task_id)


async def test_status_shows_the_tools_called_and_the_last_file(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start(
            "@shell echo hello\n@patch *** Add File: new.txt\\n+line\n@hold gate", sandbox="workspace-write"
        )
        await until(lambda: lab.model.held("gate"), "the tools have been called")
        record = await progress_until(
            swarm, task_id, lambda progress: "new.txt" in str(progress), "the file shows in the status"
        )
        assert "echo hello" in str(record["progress"])
        lab.model.release("gate")
        await swarm.wait(task_id)


async def test_status_without_ids_shows_the_tasks_that_have_not_ended(lab):
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="@say over")
        task_id = await swarm.start("@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        assert [record["task_id"] for record in (await swarm.call("codex_status"))["tasks"]] == [task_id]
        lab.model.release("gate")
        await swarm.wait(task_id)
        assert (await swarm.call("codex_status"))["tasks"] == []


async def test_codex_waiting_for_the_network_shows_as_such_and_can_be_cancelled(lab, closed_port):
    unreachable = {"model_providers": {"mock": {"base_url": "http://127.0.0.1:%d/v1" % closed_port}}}
    async with lab.connect() as swarm:
        task_id = await swarm.start("hello", config=unreachable)
        await progress_until(
            swarm, task_id, lambda progress: "network" in progress.get("phase", ""),
            "the phase names the network"
        )
        assert (await swarm.cancel(task_id))["outcome"] == "cancelled"
