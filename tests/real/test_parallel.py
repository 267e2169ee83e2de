"""Several tasks at once: they overlap, and they are waited for in every way."""

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


async def test_a_batch_that_does_not_wait_answers_while_its_tasks_run(lab):
    async with lab.connect() as swarm:
        answer = await swarm.call("codex_batch", tasks=held_tasks(FIVE[:3]), wait=False)
        assert [record["task_id"] for record in answer["tasks"]] == answer["task_ids"]
        assert "codex_wait" in answer["collect"]
        await until(lambda: lab.model.held("all") == 3, "all three wait for the model together")
        lab.model.release("all")
        assert [record["content"] for record in await swarm.wait(*answer["task_ids"])] == FIVE[:3]


async def test_the_defaults_of_a_batch_hold_for_each_task_that_does_not_override_them(lab):
    async with lab.connect() as swarm:
        tasks = [{"prompt": "@say a"}, {"prompt": "@say b", "model": "own-model"}]
        await swarm.call("codex_batch", tasks=tasks,
                         defaults={"model": "shared-model", "sandbox": "workspace-write"})
    asked = {request.prompt: (request.model, request.sandbox) for request in lab.model.requests}
    assert asked == {"@say a": ("shared-model", "workspace-write"),
                     "@say b": ("own-model", "workspace-write")}


async def test_a_batch_with_one_wrong_entry_starts_nothing_and_names_the_entry(lab):
    async with lab.connect() as swarm:
        tasks = [{"prompt": "@say a"}, {"prompt": "@say b", "sandbox": "no-such-mode"}]
        text = await swarm.refused("codex_batch", tasks=tasks)
        assert "tasks[1]" in text and "sandbox" in text
        assert (await swarm.read("codex-swarm:///tasks"))["tasks"] == []
    assert lab.model.requests == []


async def test_wait_any_returns_when_the_first_task_has_ended(lab):
    async with lab.connect() as swarm:
        slow = await swarm.start("@hold slow\n@say slow")
        quick = await swarm.start("@say quick")
        answer = await swarm.call("codex_wait", task_ids=[slow, quick], mode="any")
        assert answer["still_running"] == [slow]
        states = {record["task_id"]: record["state"] for record in answer["tasks"]}
        assert states[quick] == "ended"
        assert states.get(slow, "running") in ("starting", "running")
        lab.model.release("slow")
        [record] = await swarm.wait(slow)
        assert record["content"] == "slow"


async def test_a_wait_that_runs_out_of_time_is_no_error_and_stops_nothing(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate\n@say finished")
        answer = await swarm.call("codex_wait", task_ids=[task_id], timeout_s=0.2)
        assert answer["still_running"] == [task_id]
        assert "codex_wait" in str(answer)
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
        assert record["content"] == "finished"


async def test_any_number_of_waiters_get_the_same_answer_while_other_calls_go_on(lab):
    contents = []
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate\n@say for everyone")

        async def wait():
            [record] = await swarm.wait(task_id)
            contents.append(record["content"])

        async with anyio.create_task_group() as waiters:
            for _ in range(5):
                waiters.start_soon(wait)
            await until(lambda: lab.model.held("gate"), "the task waits for the model")
            assert (await swarm.status(task_id))["state"] == "running"
            lab.model.release("gate")
    assert contents == ["for everyone"] * 5


async def test_progress_tells_what_runs_until_the_answer_comes(lab):
    heard = []

    async def on_progress(progress, total, message):
        heard.append((progress, message))

    async with lab.connect() as swarm, anyio.create_task_group() as calls:

        async def wait_for_both():
            task_ids = (await swarm.call("codex_batch", tasks=tasks, wait=False))["task_ids"]
            await swarm.call("codex_wait", on_progress, task_ids=task_ids)
            heard.append("answered")

        tasks = [{"prompt": "@say quick"},
                 {"prompt": "@shell until [ -e go ]; do sleep 0.05; done\n@say slow"}]
        calls.start_soon(wait_for_both)
        await until(lambda: any("1 of 2" in message for _, message in heard),
                    "progress says that one is done")
        await until(lambda: any("until [ -e go ]" in message for _, message in heard),
                    "progress names the command")
        (lab.repo / "go").touch()
    assert heard.pop() == "answered"
    values = [progress for progress, _ in heard]
    assert values == sorted(set(values))


async def test_the_blocking_call_returns_the_keys_of_the_official_tool(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@say hello")
    assert record["content"] == "hello"
    assert record["threadId"] == lab.model.requests[-1].headers["thread-id"]
    assert (record["state"], record["outcome"]) == ("ended", "succeeded")


async def test_a_long_result_is_paged_until_it_is_whole(lab):
    text = "".join("%06d " % number for number in range(10_000)) + "end"
    async with lab.connect() as swarm:
        task_id = await swarm.start("@say " + text)
        [record] = await swarm.wait(task_id)
        assert len(record["content"]) < 40_000
        collected = record["content"]
        while "next_offset" in record.get("truncated", {}):
            offset = record["truncated"]["next_offset"]
            [record] = await swarm.wait(task_id, max_chars=20_000, offset=offset)
            collected = collected[:offset] + record["content"]
    assert collected == text
