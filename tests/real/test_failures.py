"""How runs end badly, told by kind, with codex's own message, and whether a retry can help."""

import contextlib
import re
import sqlite3
import sys

import pytest
from model_server import FAILURES

from .harness import SERVER, until

pytestmark = pytest.mark.anyio


KINDS = [
    ("unauthorized", "auth", False, "401 Unauthorized"),
    ("rate_limit", "rate_limit", True, "429 Too Many Requests"),
    ("usage_limit", "usage_limit", False, "usage limit"),
    ("server_error", "overloaded", True, "high demand"),
    ("overloaded", "overloaded", True, "at capacity"),
    ("bad_model", "bad_request", False, "model 'none' does not exist"),
    ("bad_value", "bad_request", False, "Unsupported value"),
    ("context_overflow", "context_overflow", False, "context window"),
    ("dropped_stream", "network", True, "stream disconnected"),
]


async def test_failures_of_the_service_are_told_by_their_kinds(lab):
    assert {failure for failure, *_ in KINDS} == set(FAILURES) - {"usage_limit_over"}   # which is waited for
    async with lab.connect() as swarm:
        answer = await swarm.call("codex_batch",
                                  tasks=[{"prompt": "@fail " + failure} for failure, *_ in KINDS])
    for (_, kind, retryable, message), record in zip(KINDS, answer["tasks"]):
        assert (record["state"], record["outcome"], record["exit_code"]) == ("ended", "failed", 1)
        failure = record["failure"]
        assert (failure["kind"], failure["retryable"]) == (kind, retryable), failure
        assert message in failure["message"] and failure["advice"]


async def test_a_blocking_call_that_failed_is_an_error_with_its_words(lab):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="@fail unauthorized")
    assert record["failure"]["kind"] == "auth"


@pytest.mark.parametrize("failure, kind", [
    ("usage_limit_over", "usage_limit"), ("rate_limit", "rate_limit"), ("dropped_stream", "network")])
async def test_a_task_that_waits_goes_on_in_its_thread_after_a_limit_or_a_dropped_socket(lab, failure, kind):
    lab.model.does["Go on: you were interrupted"] = "@recall"
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="my word is plum\n@fail " + failure, on_limit="wait")
    assert record["outcome"] == "succeeded" and "my word is plum" in record["content"]
    assert [kind in attempt for attempt in record["attempts"]] == [True]


async def test_a_task_that_waits_for_the_network_is_cancelled_between_two_attempts(lab, closed_port):
    config = {"model_providers": {"mock": {"base_url": "http://127.0.0.1:%d/v1" % closed_port}}}
    async with lab.connect() as swarm:
        task_id = await swarm.start("hello", config=config, on_limit="wait")
        async def attempts():
            return (await swarm.status(task_id)).get("attempts")
        assert " network: " in (await until(attempts, "the first attempt has ended"))[0]
        record = await swarm.cancel(task_id)
    assert (record["state"], record["outcome"]) == ("ended", "cancelled")


async def test_a_usage_limit_tells_when_it_ends(lab):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="@fail usage_limit_over")
    assert record["failure"]["retry_at"] == 1_700_000_000 // 60 * 60 + 60


async def test_a_refused_connection_is_a_network_failure(lab, closed_port):
    config = {
        "features": {"unbounded_connection_retries": False},
        "model_providers": {"mock": {"base_url": "http://127.0.0.1:%d/v1" % closed_port}},
    }
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="hello", config=config)
    assert record["failure"]["kind"] == "network"
    assert record["failure"]["retryable"] is True


async def test_a_missing_codex_is_told_with_the_way_to_get_it(lab):
    missing = str(lab.directory / "no-such-codex")
    async with lab.connect("--codex-bin", missing) as swarm:
        text = await swarm.refused("codex", prompt="hello")
        assert missing in text and "install" in text
        assert (await swarm.client.list_tools()).tools


async def test_a_failed_run_seen_by_wait_is_an_ordinary_result(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@fail unauthorized")
        [record] = await swarm.wait(task_id)
    assert record["outcome"] == "failed"
    assert record["failure"]["kind"] == "auth"


async def test_one_failure_in_a_batch_leaves_the_others_alone(lab):
    async with lab.connect() as swarm:
        result = await swarm.result("codex_batch",
                                    tasks=[{"prompt": "@fail server_error"}, {"prompt": "@say fine"}])
    outcomes = [record["outcome"] for record in result.structured_content["tasks"]]
    assert outcomes == ["failed", "succeeded"]


async def test_config_that_codex_rejects_is_a_config_failure_with_its_words(lab):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="hello", config={"model_verbosity": "loud"})
    assert record["failure"]["kind"] == "config"
    assert "model_verbosity" in record["failure"]["message"] or "loud" in record["failure"]["message"]
    assert record["failure"]["retryable"] is False


@pytest.mark.parametrize("name", ["state_5.sqlite", "thread_history_1.sqlite"])
async def test_a_locked_database_of_codex_holds_a_task_up_and_loses_nothing(lab, name):
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="@say first")
        asked = len(lab.model.requests)
        database = sqlite3.connect(str(lab.codex_home / name), isolation_level=None)
        with contextlib.closing(database):
            database.execute("BEGIN IMMEDIATE")
            held, stopped = [await swarm.start("@say done") for _ in range(2)]
            events = [lab.root / "tasks" / task_id / "events.jsonl" for task_id in (held, stopped)]
            begun = lambda path: path.exists() and "thread.started" in path.read_text()
            await until(lambda: all(map(begun, events)), "both have begun")
            assert (await swarm.cancel(stopped))["outcome"] == "cancelled"
            assert (await swarm.status(held))["state"] == "running" and len(lab.model.requests) == asked
        [record] = await swarm.wait(held)
    assert (record["outcome"], record["content"]) == ("succeeded", "done")


async def test_a_directory_outside_git_is_refused_unless_the_server_allows_it(lab, tmp_path):
    (tmp_path / ".git").mkdir()         # as its sandbox leaves it
    async with lab.connect() as swarm:
        text = await swarm.refused("codex", prompt="hello", cwd=str(tmp_path))
        assert "cwd" in text and "--skip-git-repo-check" in text
    assert lab.model.requests == []
    async with lab.connect("--skip-git-repo-check") as swarm:
        assert (await swarm.call("codex", prompt="@say allowed", cwd=str(tmp_path)))["content"] == "allowed"


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 1_048_577}, "prompt"),
        ({"prompt": "hello", "cwd": "no-such-directory"}, "cwd"),
        ({"prompt": "hello", "cwd": "story.txt"}, "cwd"),
        ({"prompt": "hello", "sandbox": "none"}, "sandbox"),
        ({"prompt": "hello", "modell": "x"}, "modell"),
    ],
    ids=["empty prompt", "prompt too long", "no directory", "cwd is a file", "bad sandbox",
         "unknown argument"],
)
async def test_a_wrong_argument_is_named_and_nothing_starts(lab, arguments, named):
    async with lab.connect() as swarm:
        assert named in await swarm.refused("codex_async", **arguments)
        assert (await swarm.call("codex_status"))["tasks"] == []
    assert lab.model.requests == []


async def out_of_time(swarm, phase, limits_s, **arguments):
    """The record of a run that had come as far as `phase` when its time was over: a slow machine needs a
    longer limit."""
    for limit_s in limits_s:
        record = await swarm.failed("codex", timeout_s=limit_s, **arguments)
        if "while " + phase in record["failure"]["message"]:
            break
    return record, limit_s


async def test_a_task_that_ran_out_of_time_says_what_it_was_doing(lab):
    async with lab.connect() as swarm:
        prompt = "@shell sleep " + lab.nap
        record, limit_s = await out_of_time(swarm, "running a command", (4, 16, 50), prompt=prompt,
                                            sandbox="read-only")
    assert (record["outcome"], record["failure"]["kind"]) == ("timed_out", "timed_out")
    said = (r"Its limit of %d s \(`timeout_s`\) passed while running a command \(`sleep %s`\), "
            r"with nothing new for (\d+) s")
    told = re.match(said % (limit_s, lab.nap), record["failure"]["message"])
    assert told and int(told[1]) <= limit_s, record["failure"]


async def test_a_dead_network_that_ends_in_a_time_out_is_a_network_failure_and_says_for_how_long(
        lab, closed_port):
    """codex tries again every five seconds and says so each time; that is no sign of life."""
    config = {"model_providers": {"mock": {"base_url": "http://127.0.0.1:%d/v1" % closed_port}}}
    async with lab.connect() as swarm:
        record, _ = await out_of_time(swarm, "waiting for the network", (14, 40), prompt="hello",
                                      config=config)
    failure = record["failure"]
    assert (record["outcome"], failure["kind"], failure["retryable"]) == ("timed_out", "network", True)
    told = re.search(r"while waiting for the network .*, with no network for (\d+) s", failure["message"])
    events = (lab.root / "tasks" / record["task_id"] / "events.jsonl").read_text()
    assert told and int(told[1]) >= 5 * (events.count("Reconnecting") - 1), (failure, events)


async def test_without_a_sandbox_an_untrusted_directory_is_read_only_and_the_record_says_so(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell echo x > new.txt\n@say Fixed the bug.")
        assert (record["sandbox"], record["model"],
                record["content"]) == ("read-only", "gpt-5.5", "Fixed the bug.")
        assert any("nothing could be written" in warning for warning in record["warnings"])
        assert not (lab.repo / "new.txt").exists()
        with (lab.codex_home / "config.toml").open("a") as config:
            config.write('\n[projects."%s"]\ntrust_level = "trusted"\n' % lab.repo)
        reply = await swarm.call("codex_reply", prompt="@shell echo x > new.txt\n@say Done.",
                                 task_id=record["task_id"])
        assert (reply["sandbox"], "warnings" in reply) == ("workspace-write", False)
        assert (lab.repo / "new.txt").exists()


async def test_under_what_a_task_ran_is_told_without_a_rollout_as_far_as_it_was_asked_for(lab):
    async with lab.connect("--ephemeral", "-c", "sandbox_mode=workspace-write") as swarm:
        record = await swarm.call("codex", prompt="@say x")
    assert (record["sandbox"], "model" in record, "warnings" in record) == ("workspace-write", False, False)


async def test_a_tool_that_codex_refused_for_want_of_approval_is_a_warning(lab):
    server = {"command": sys.executable, "args": [str(SERVER)], "env": lab.environment, "required": True}
    prompt = '@mcp tools codex_cancel {"task_ids": ["000000000000"]}\n@say tried'
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt=prompt, sandbox="read-only",
                                  config={"mcp_servers": {"tools": server}})
    assert any("`tools/codex_cancel`" in warning and "approval" in warning
               for warning in record["warnings"]), (record["warnings"], lab.model.requests[-1].tool_outputs,
                                                    list(
                                                        lab.root.glob("tasks/*/events.jsonl"))[0].read_text())


async def test_an_empty_final_message_is_a_warning(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@say ", sandbox="read-only")
    assert record["outcome"] == "succeeded"
    assert any("without a final message" in warning for warning in record["warnings"])
