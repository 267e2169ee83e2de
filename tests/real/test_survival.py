"""Tasks outlive servers, and every server on one ROOT sees the same tasks."""

import os
import signal

import anyio
import mcp
import pytest

from .harness import processes, until

pytestmark = pytest.mark.anyio


async def start_and_lose_the_server(lab, *prompts):
    """Start one task per prompt, each held at the model, then kill the server with SIGKILL; the task ids."""
    task_ids = []
    async with lab.connect() as swarm:
        for prompt in prompts:
            task_ids.append(await swarm.start("@hold gate\n" + prompt))
        await until(lambda: lab.model.held("gate") == len(prompts), "all tasks wait for the model")
        os.kill(swarm.pid, signal.SIGKILL)
    return task_ids


async def test_a_second_server_collects_what_a_killed_one_started(lab):
    task_ids = await start_and_lose_the_server(lab, "@say survived", "@fail unauthorized")
    async with lab.connect() as swarm:
        states = {(await swarm.status(task_id))["state"] for task_id in task_ids}
        assert states <= {"starting", "running"}
        lab.model.release("gate")
        survived, failed = await swarm.wait(*task_ids)
    assert (survived["outcome"], survived["content"]) == ("succeeded", "survived")
    assert "exit_code" not in survived
    assert (failed["outcome"], failed["exit_code"], failed["failure"]["kind"]) == ("failed", 1, "auth")


async def test_the_end_of_a_task_is_kept_when_no_server_lives(lab):
    task_ids = await start_and_lose_the_server(lab, "@usage 11 7\n@say survived", "@fail rate_limit")
    lab.model.release("gate")
    await until(lambda: not lab.living(), "both tasks have ended by themselves")
    async with lab.connect() as swarm:
        survived, failed = await swarm.wait(*task_ids)
    assert (survived["outcome"], survived["content"]) == ("succeeded", "survived")
    assert "exit_code" not in survived
    assert (survived["usage"]["input_tokens"], survived["usage"]["output_tokens"]) == (11, 7)
    assert (failed["outcome"], failed["exit_code"], failed["failure"]["kind"]) == ("failed", 1, "rate_limit")


async def test_a_blocking_call_cut_off_by_the_death_of_its_server_is_collected_by_the_next_one(lab):
    async with lab.connect() as swarm, anyio.create_task_group() as calls:

        async def run_until_cut_off():
            with pytest.raises(mcp.MCPError):
                await swarm.call("codex", prompt="@hold gate\n@say survived")

        calls.start_soon(run_until_cut_off)
        await until(lambda: lab.model.held("gate"), "the call waits for the model")
        os.kill(swarm.pid, signal.SIGKILL)
    async with lab.connect() as swarm:
        [running] = (await swarm.call("codex_status"))["tasks"]
        lab.model.release("gate")
        [record] = await swarm.wait(running["task_id"])
    assert record["content"] == "survived"


async def test_a_thread_goes_on_after_its_server_was_killed(lab):
    [task_id] = await start_and_lose_the_server(lab, "my word is plum")
    async with lab.connect() as swarm:
        lab.model.release("gate")
        await swarm.wait(task_id)
        second = await swarm.call("codex_reply", task_id=task_id, prompt="@recall")
    assert "my word is plum" in second["content"]


async def test_one_server_starts_and_another_one_waits(lab):
    records = []
    async with lab.connect() as starter, lab.connect() as waiter, anyio.create_task_group() as calls:
        task_id = await starter.start("@hold gate\n@say shared")

        async def wait():
            records.extend(await waiter.wait(task_id))

        calls.start_soon(wait)
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        assert records == []
        lab.model.release("gate")
    assert [(record["outcome"], record["content"]) for record in records] == [("succeeded", "shared")]


async def test_one_server_cancels_what_another_one_started_and_both_tell_the_same(lab):
    async with lab.connect() as starter, lab.connect() as canceller:
        task_id = await starter.start("@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        [seen] = (await canceller.call("codex_status"))["tasks"]
        assert (seen["task_id"], seen["state"]) == (task_id, "running")
        assert (await canceller.cancel(task_id))["outcome"] == "cancelled"
        [record] = await starter.wait(task_id)
        assert record["outcome"] == "cancelled"


@pytest.mark.parametrize("order", ["a server starts", "a server is asked"])
async def test_what_a_lost_task_left_running_is_killed_by_the_server_that_comes_next(lab, order):
    """With danger-full-access the commands of a codex that was killed go on."""
    async with lab.connect() as other:
        async with lab.connect() as swarm:
            prompt = "@shell sleep {0} & setsid -f sleep {0}; sleep {0}".format(lab.nap)
            task_id = await swarm.start(prompt, sandbox="danger-full-access")
            await until(lambda: len(lab.sleepers()) == 3, "all three sleepers sleep")
            [supervisor] = [p.pid for p in processes() if p.cwd == str(lab.root / "tasks" / task_id)]
            os.kill(swarm.pid, signal.SIGKILL)
            os.kill(supervisor, signal.SIGKILL)
            await until(lambda: supervisor not in [p.pid for p in processes()], "the supervisor is dead")
        if order == "a server is asked":
            [lost] = (await other.call("codex_status"))["tasks"]
        else:
            async with lab.connect() as late:
                await until(lambda: not lab.sleepers(), "what was left running is gone")
                [lost] = (await late.call("codex_status"))["tasks"]
    await until(lambda: not lab.sleepers(), "what was left running is gone")
    assert (lost["task_id"], lost["outcome"]) == (task_id, "lost")


async def test_starting_a_server_changes_nothing_on_disk(lab):
    async with lab.connect() as swarm:
        await swarm.client.list_tools()
    assert not lab.root.exists()
