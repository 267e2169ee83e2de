"""Stopping: nothing that a task started is alive when its end is told."""

import os
import signal

import pytest

from .harness import processes, until

pytestmark = pytest.mark.anyio


def family_of_sleepers(nap):
    """A command with children in its session, in sessions of their own, and without any environment."""
    return "sleep {0} & setsid sleep {0} & setsid -f sleep {0}; env -i setsid -f sleep {0}; sleep {0}".format(
        nap)


@pytest.mark.parametrize("sandbox", ["read-only", "workspace-write", "danger-full-access"])
async def test_cancel_kills_every_grandchild_of_a_shell_command(lab, sandbox):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@shell " + family_of_sleepers(lab.nap), sandbox=sandbox)
        await until(lambda: len(lab.sleepers()) == 5, "all five sleepers sleep")
        record = await swarm.cancel(task_id)
        assert lab.sleepers() == []
    assert (record["state"], record["outcome"]) == ("ended", "cancelled")


@pytest.mark.parametrize("sandbox, command, outcome", [
    ("workspace-write", "sleep {}", "timed_out"),
    ("danger-full-access", "sleep {}", "timed_out"),
    ("workspace-write", "for i in 1 2 3 4 5 6 7 8 9; do echo x > /dev/null; sleep 0.5; done", "succeeded"),
])
async def test_only_a_command_that_gives_no_sign_of_life_is_idle(lab, sandbox, command, outcome):
    """Codex itself is never quite still, so it is what its commands do that counts."""
    async with lab.connect() as swarm:
        prompt = "@shell " + command.format(lab.nap)
        [record] = await swarm.wait(await swarm.start(prompt, sandbox=sandbox, idle_timeout_s=4))
    assert record["outcome"] == outcome, record
    if outcome == "timed_out":
        said = "It was idle for 4 s (`idle_timeout_s`) while running a command (`sleep %s`)" % lab.nap
        assert record["failure"]["message"].startswith(said)


async def test_a_task_that_exceeds_its_time_is_stopped_with_all_its_grandchildren(lab):
    prompt, most = "@shell " + family_of_sleepers(lab.nap), 0
    async with lab.connect() as swarm:
        for limit_s in (4, 16, 50):  # a slow machine needs longer before all of them sleep
            task_id = await swarm.start(prompt, sandbox="danger-full-access", timeout_s=limit_s)
            while (await swarm.status(task_id))["state"] != "ended":
                most = max(most, len(lab.sleepers()))
            [record] = await swarm.wait(task_id)
            assert lab.sleepers() == []
            assert (record["state"], record["outcome"]) == ("ended", "timed_out")
            if most == 5:
                break
    assert most == 5


async def test_what_a_successful_task_left_behind_is_gone_when_it_has_ended(lab):
    async with lab.connect() as swarm:
        prompt = "@shell setsid -f sleep {0}; env -i setsid -f sleep {0}\n@hold gate\n@say done".format(
            lab.nap)
        task_id = await swarm.start(prompt, sandbox="danger-full-access")
        await until(lambda: lab.model.held("gate") and len(lab.sleepers()) == 2,
                    "two sleepers are left behind")
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
        assert lab.sleepers() == []
    assert record["outcome"] == "succeeded"


def supervisor_at_work(lab):
    [supervisor] = [process for process in lab.at_work() if "codex_mcp_swarm" in process.args]
    return supervisor


async def test_cancel_leaves_only_the_server(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        assert lab.at_work()
        assert (await swarm.cancel(task_id))["outcome"] == "cancelled"
        await until(lambda: not lab.at_work(), "only the server is left")


async def test_cancel_right_after_the_start_works_too(lab):
    """codex 0.169.0 loses a SIGINT that comes in the first tenths of a second."""
    async with lab.connect() as swarm:
        for _ in range(5):
            task_id = await swarm.start("@hold gate")
            assert (await swarm.cancel(task_id))["outcome"] == "cancelled"
        await until(lambda: not lab.at_work(), "only the server is left")


async def test_cancelling_an_ended_task_changes_nothing(lab):
    async with lab.connect() as swarm:
        before = await swarm.call("codex", prompt="@say finished")
        after = await swarm.cancel(before["task_id"])
    assert (after["outcome"], after["content"]) == ("succeeded", "finished")


async def test_cancel_stops_the_named_tasks_and_no_other(lab):
    async with lab.connect() as swarm:
        one, two, three = [await swarm.start("@hold gate\n@say done") for _ in range(3)]
        await until(lambda: lab.model.held("gate") == 3, "all three wait for the model")
        records = (await swarm.call("codex_cancel", task_ids=[one, three]))["tasks"]
        assert [record["outcome"] for record in records] == ["cancelled", "cancelled"]
        lab.model.release("gate")
        [record] = await swarm.wait(two)
    assert record["outcome"] == "succeeded"


async def codex_process(lab):
    """The process of the one codex that runs: the parent of a tool command in danger-full-access."""
    note = lab.repo / "parent"
    pid = int(await until(lambda: note.exists() and note.read_text(), "the command wrote its parent's id"))
    by_pid = {process.pid: process for process in processes()}
    return by_pid[pid], by_pid


SAY_PARENT = "@shell echo $PPID > parent.tmp; mv parent.tmp parent; sleep %s"


async def test_a_codex_that_was_killed_from_outside_is_told_as_such(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start(SAY_PARENT % lab.nap, sandbox="danger-full-access")
        codex, _ = await codex_process(lab)
        await until(lab.sleepers, "the command sleeps")
        os.kill(codex.pid, signal.SIGKILL)
        [record] = await swarm.wait(task_id)
        assert lab.sleepers() == []
    assert (record["outcome"], record["exit_code"]) == ("failed", -signal.SIGKILL)
    assert record["failure"]["kind"] == "killed"


async def test_a_task_whose_supervisor_was_killed_is_lost_and_its_codex_does_not_go_on(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        os.kill(supervisor_at_work(lab).pid, signal.SIGKILL)
        [record] = await swarm.wait(task_id)
        assert (record["state"], record["outcome"]) == ("ended", "lost")
        assert record["failure"]["kind"] == "lost"
        await until(lambda: not lab.at_work(), "only the server is left")


async def test_codex_runs_without_the_npm_launcher_that_could_be_killed_away_above_it(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start(SAY_PARENT % lab.nap, sandbox="danger-full-access")
        codex, by_pid = await codex_process(lab)
        assert "codex_mcp_swarm" in by_pid[codex.parent].args, by_pid[codex.parent]
        assert not [process for process in lab.living() if process.args.split()[0].endswith("node")]
        await swarm.cancel(task_id)
