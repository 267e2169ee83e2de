"""Continuing a thread: codex keeps its memory, our server repeats the rest."""

import uuid
from pathlib import Path

import pytest

from model_server import ModelServer

from .harness import CODEX_CONFIG, until
from .test_reach import swept

pytestmark = pytest.mark.anyio


async def test_a_reply_has_the_memory_of_the_first_turn(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum\n@say noted")
        second = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@recall")
    assert second["threadId"] == first["threadId"]
    assert "my word is plum" in second["content"] and "noted" in second["content"]


async def test_a_thread_stays_with_the_account_and_its_model_service(lab):
    """Two homes, each with a service of its own: only one of the two has the thread."""
    spare = lab.directory / "spare"
    spare.mkdir()
    with ModelServer() as service:
        (spare / "config.toml").write_text(CODEX_CONFIG % service.url)
        async with lab.connect("--codex-home", "spare=%s" % spare) as swarm:
            first = await swarm.call("codex", prompt="my word is plum", codex_home="spare")
            second = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@recall")
            copy = await swarm.call("codex_async", threadId=first["threadId"], fork=True, prompt="@recall")
            [copy] = await swarm.wait(copy["task_id"])
            await swarm.call("codex", prompt="the home of the server")
    assert "my word is plum" in second["content"] and "my word is plum" in copy["content"]
    assert [r["codex_home"] for r in (first, second, copy)] == ["spare"] * 3
    assert len(service.requests) == 3 and len(lab.model.requests) == 1


async def test_a_reply_by_task_id_continues_the_thread_of_that_task(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum")
        second = await swarm.call("codex_reply", task_id=first["task_id"], prompt="@recall")
        third = await swarm.call("codex_reply", task_id=second["task_id"], prompt="@recall")
    assert third["threadId"] == first["threadId"]
    assert "my word is plum" in third["content"]


async def test_the_old_names_of_the_reply_tool_and_its_argument_still_work(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum")
        second = await swarm.call("codex-reply", conversationId=first["threadId"], prompt="@recall")
    assert "my word is plum" in second["content"]


async def test_a_thread_is_continued_in_the_background_too(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum")
        task_id = await swarm.start("@hold gate\n@recall", threadId=first["threadId"])
        await until(lambda: lab.model.held("gate"), "the second turn waits for the model")
        lab.model.release("gate")
        [second] = await swarm.wait(task_id)
    assert second["threadId"] == first["threadId"]
    assert "my word is plum" in second["content"]


async def test_usage_is_that_of_the_turn_although_codex_counts_the_whole_thread(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="@usage 100 20\n@say a")
        second = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@usage 250 30\n@say b")
        third = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@usage 70 7\n@say c")
    seen = [(turn["usage"]["input_tokens"], turn["usage"]["output_tokens"])
            for turn in (first, second, third)]
    assert seen == [(100, 20), (250, 30), (70, 7)]


async def test_a_reply_repeats_directory_sandbox_model_and_config_of_the_first_turn(lab):
    config = {"developer_instructions": "stay terse", "tools": {"update_plan": {"enabled": True}}}
    settings = {"model": "first-model", "sandbox": "workspace-write", "cwd": "part", "config": config}
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="hello", **settings)
        await swarm.call("codex_reply", threadId=first["threadId"], prompt="@shell echo more > added.txt")
    reply = lab.model.requests[-1]
    assert reply.model == "first-model"
    assert reply.sandbox == "workspace-write"
    assert "stay terse" in reply.developer
    assert "update_plan" in reply.tools
    assert (lab.repo / "part" / "added.txt").read_text() == "more\n"


async def test_a_reply_in_a_read_only_thread_can_write_nothing(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="hello", sandbox="read-only")
        await swarm.call("codex_reply", threadId=first["threadId"], prompt="@shell echo more > added.txt")
    assert lab.model.requests[-1].sandbox == "read-only"
    assert not (lab.repo / "added.txt").exists()


async def test_the_arguments_of_a_reply_override_those_of_the_first_turn(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="hello", sandbox="read-only")
        await swarm.call(
            "codex_reply", threadId=first["threadId"], prompt="@shell echo more > added.txt",
            sandbox="workspace-write"
        )
    assert lab.model.requests[-1].sandbox == "workspace-write"
    assert (lab.repo / "added.txt").exists()


async def test_a_server_that_did_not_start_the_thread_repeats_its_settings_too(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum", sandbox="workspace-write",
                                 model="first-model")
    async with lab.connect() as swarm:
        second = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@recall")
    assert "my word is plum" in second["content"]
    assert (lab.model.requests[-1].sandbox,
            lab.model.requests[-1].model) == ("workspace-write", "first-model")


async def test_a_thread_that_codex_does_not_know_is_a_resume_failure(lab):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex_reply", threadId=str(uuid.uuid4()), prompt="hello", cwd=".")
    assert record["outcome"] == "failed"
    assert record["failure"]["kind"] == "resume"
    assert lab.model.requests == []


async def test_a_thread_whose_record_is_damaged_is_a_resume_failure(lab):
    async with lab.connect() as swarm:
        thread = (await swarm.call("codex", prompt="@say noted"))["threadId"]
        [rollout] = lab.codex_home.glob("sessions/*/*/*/rollout-*.jsonl")
        for text in (b"", b"\0\xff\n", rollout.read_bytes()[:200] + b"\xff\n"):
            rollout.write_bytes(text)
            record = await swarm.failed("codex_reply", threadId=thread, prompt="hello")
            assert record["failure"]["kind"] == "resume"


async def test_a_thread_id_that_is_none_never_becomes_a_new_thread(lab):
    """codex 0.169.0 takes it for a thread's name, finds none, and silently starts anew."""
    async with lab.connect() as swarm:
        text = await swarm.refused("codex_reply", threadId="not-a-thread", prompt="hello")
    assert "not-a-thread" in text
    assert lab.model.requests == []


async def test_a_server_without_threads_says_why_it_cannot_reply(lab):
    async with lab.connect("--ephemeral") as swarm:
        first = await swarm.call("codex", prompt="@say once")
        assert first["content"] == "once"
        text = await swarm.refused("codex_reply", task_id=first["task_id"], prompt="again")
    assert "--ephemeral" in text
    assert not (lab.codex_home / "sessions").exists()


async def test_a_second_turn_while_the_first_one_runs_is_refused_or_waits_but_never_mixes(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("my word is plum\n@hold gate")
        await until(lambda: lab.model.held("gate"), "the first turn waits for the model")
        thread_id = (await swarm.status(task_id))["threadId"]
        await swarm.refused("codex_reply", threadId=thread_id, prompt="@say second")
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
    assert record["outcome"] == "succeeded"
    assert [request.prompt.split("\n")[0] for request in lab.model.requests] == ["my word is plum"]


async def test_a_reply_goes_on_where_a_sweep_has_removed_the_worktree(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum\n@shell echo one > made.txt\n@say written",
                                 worktree=True)
    top, branch = Path(first["worktree"]["path"]), first["worktree"]["branch"]
    assert "removed: 1, " in await swept(lab) and not top.exists()
    async with lab.connect() as swarm:
        [kept] = await swarm.wait(first["task_id"])
        second = await swarm.call("codex_reply", task_id=first["task_id"],
                                  prompt="@shell cat made.txt >> more.txt\n@recall")
        changed = await swarm.call("codex_diff", task_id=second["task_id"], view="files")
    assert kept["content"] == "written"
    assert (second["worktree"]["path"], second["worktree"]["branch"]) == (str(top), branch)
    assert "my word is plum" in second["content"] and changed["content"] == "A more.txt"
    assert lab.git("show", branch + ":more.txt") == "one\n"
