"""Several tasks of the real Codex at once. How they can be waited for is tried in tests/protocol."""

import anyio
import pytest

from .harness import until

pytestmark = pytest.mark.anyio

FIVE = ["one", "two", "three", "four", "five"]


def held_tasks(names):
    return [{"prompt": "@hold all\n@say " + name} for name in names]


async def test_five_tasks_started_one_by_one_are_at_the_model_at_the_same_time(lab):
    async with lab.connect() as swarm:
        task_ids = [await swarm.start("@hold all\n@say " + name) for name in FIVE]
        await until(lambda: lab.model.held("all") == 5, "all five wait for the model together")
        lab.model.release("all")
        records = await swarm.wait(*task_ids)
        threads = {(await swarm.status(task_id))["threadId"] for task_id in task_ids}
    assert [record["content"] for record in records] == FIVE
    assert [record["outcome"] for record in records] == ["succeeded"] * 5
    assert len(threads) == 5


async def test_a_batch_runs_its_tasks_together_and_answers_in_their_order(lab):
    answers = []
    async with lab.connect() as swarm, anyio.create_task_group() as calls:

        async def run_batch():
            answers.append(await swarm.call("codex_batch", tasks=held_tasks(FIVE)))

        calls.start_soon(run_batch)
        await until(lambda: lab.model.held("all") == 5, "all five wait for the model together")
        assert answers == []
        lab.model.release("all")
    [answer] = answers
    assert answer["still_running"] == []
    assert [record["content"] for record in answer["tasks"]] == FIVE


async def test_the_blocking_call_returns_the_keys_of_the_official_tool(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@say hello")
    assert record["content"] == "hello"
    assert record["threadId"] == lab.model.requests[-1].headers["thread-id"]
    assert (record["state"], record["outcome"]) == ("ended", "succeeded")


async def test_a_batch_whose_tasks_depend_on_each_other_runs_one_after_the_other(lab):
    async with lab.connect("--max-parallel", "2") as swarm:
        tasks = [{"prompt": "@hold all\n@say one"}, {"prompt": "@say after {{result:0}}", "depends_on": [0]}]
        ids = (await swarm.call("codex_batch", tasks=tasks, wait=False))["task_ids"]
        await until(lambda: lab.model.held("all") == 1, "the first one waits for the model")
        assert (await swarm.status(ids[1]))["progress"]["detail"] == "1st of 1, after " + ids[0]
        lab.model.release("all")
        records = await swarm.wait(*ids)
    assert [record["content"] for record in records] == ["one", "after one"]
