"""The tools at work: start, watch, wait, reply."""
import json

import pytest

from client import eventually, text_of
from conftest import git


def facts(record):
    """What fake_codex saw of the run with this record."""
    return json.loads(record["content"])


# -- start and wait ----------------------------------------------------------------------------------
def test_async_returns_before_the_task_ends_and_says_how_to_collect(client, gate):
    c = client()
    started = c.ok("codex_async", prompt=gate.wait + "\nSAY done")
    assert started["state"] in ("starting", "running")
    assert "codex_wait" in started["collect"]
    gate.open()
    assert c.collect(started["task_id"])[0]["content"] == "done"


def test_a_batch_that_does_not_wait_returns_ids_and_how_to_collect(client, gate):
    c = client()
    started = c.ok("codex_batch", tasks=[{"prompt": gate.wait + "\nSAY %d" % i} for i in range(5)],
                   wait=False)
    assert len(set(started["task_ids"])) == 5
    assert [t["task_id"] for t in started["tasks"]] == started["task_ids"]
    assert "codex_wait" in started["collect"]
    gate.open()
    assert [t["content"] for t in c.collect(*started["task_ids"])] == ["0", "1", "2", "3", "4"]


def test_a_batch_that_waits_returns_the_results_in_order(client):
    found = client().ok("codex_batch", tasks=[{"prompt": "SLEEP 0.3\nSAY slow"}, {"prompt": "SAY quick"}])
    assert [t["content"] for t in found["tasks"]] == ["slow", "quick"]
    assert found["still_running"] == []


def test_wait_any_returns_with_the_first_result(client, gate):
    c = client()
    slow, quick = c.begin(gate.wait), c.begin("SAY quick")
    found = c.ok("codex_wait", task_ids=[slow, quick], mode="any")
    assert found["still_running"] == [slow]
    assert {t["task_id"]: t["state"] == "ended" for t in found["tasks"]} == {slow: False, quick: True}
    gate.open()
    c.collect(slow)


def test_a_wait_that_runs_out_of_time_is_no_error_and_says_what_still_runs(client, gate):
    c = client()
    task = c.begin(gate.wait)
    result = c.call("codex_wait", {"task_ids": [task], "timeout_s": 0.2})
    found = c.good(result)
    assert found["still_running"] == [task]
    assert found["tasks"][0]["state"] in ("starting", "running")
    assert "codex_wait" in json.dumps(result)
    gate.open()
    c.collect(task)


def test_a_wait_of_no_time_at_all_is_a_look(client, gate):
    c = client()
    task = c.begin(gate.wait)
    assert c.ok("codex_wait", task_ids=[task], timeout_s=0)["still_running"] == [task]
    gate.open()
    c.collect(task)


def test_a_wait_for_an_ended_task_returns_at_once_as_often_as_one_likes(client):
    c = client()
    task = c.begin("SAY again")
    assert [c.collect(task)[0]["content"] for _ in range(3)] == ["again"] * 3


def test_a_wait_names_a_task_twice_and_gets_it_once_or_twice_but_never_fails(client):
    c = client()
    task = c.begin("SAY x")
    assert {t["task_id"] for t in c.collect(task, task)} == {task}


def test_status_without_ids_shows_exactly_the_tasks_that_have_not_ended(client, gate):
    c = client()
    c.collect(c.begin("SAY x"))
    running = c.begin(gate.wait)
    assert [t["task_id"] for t in c.ok("codex_status")["tasks"]] == [running]
    gate.open()
    c.collect(running)
    assert c.ok("codex_status")["tasks"] == []


def test_status_follows_a_run_through_its_phases(client, tmp_path, gate):
    c = client()
    second = tmp_path / "second"
    task = c.begin("WRITE sub/file.txt text", gate.wait,
                   "SHELL echo remarkable; while ! test -e %s; do sleep 0.05; done" % second)

    def shown():
        return json.dumps(c.status(task).get("progress", {}))
    eventually(lambda: "file.txt" in shown(), what="the file in the progress")
    gate.open()
    eventually(lambda: "remarkable" in shown(), what="the command in the progress")
    second.write_text("")
    c.collect(task)


def test_status_of_a_long_stream_is_the_same_as_of_a_short_one(client, gate):
    c = client()
    task = c.begin("FLOOD 20", "SHELL echo remarkable", gate.wait)
    eventually(lambda: "remarkable" in json.dumps(c.status(task).get("progress", {})),
               what="the last command")
    gate.open()
    assert c.collect(task)[0]["outcome"] == "succeeded"


# -- replies -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("tool, argument", [
    ("codex_reply", "threadId"), ("codex_reply", "conversationId"), ("codex-reply", "threadId"),
    ("codex-reply", "conversationId")])
def test_a_reply_remembers_the_thread_under_every_name_of_the_tool(client, tool, argument):
    c = client()
    first = c.ok("codex", prompt="the first remarkable prompt")
    reply = c.ok(tool, **{argument: first["threadId"], "prompt": "RECALL"})
    assert "the first remarkable prompt" in reply["content"]
    assert reply["threadId"] == first["threadId"]
    assert reply["task_id"] != first["task_id"]


def test_a_reply_by_task_id_continues_the_thread_of_that_task(client):
    c = client()
    first = c.ok("codex", prompt="the first remarkable prompt")
    assert "remarkable" in c.ok("codex_reply", task_id=first["task_id"], prompt="RECALL")["content"]


def test_async_with_a_thread_resumes_it_in_the_background(client):
    c = client()
    first = c.ok("codex", prompt="the first remarkable prompt")
    assert "remarkable" in c.collect(c.begin("RECALL", threadId=first["threadId"]))[0]["content"]


def test_a_reply_repeats_the_settings_of_the_task_that_owned_the_thread(client, repo):
    """codex restores none of them."""
    (repo / "sub").mkdir()
    c = client()
    first = c.ok("codex", prompt="x", model="gpt-5.5", sandbox="workspace-write", cwd="sub", profile="mine",
                 config={"model_reasoning_effort": "low"}, **{"developer-instructions": "be brief"})
    seen = facts(c.ok("codex_reply", threadId=first["threadId"], prompt="ARGV"))
    assert (seen["options"]["sandbox"], seen["options"]["profile"]) == (["workspace-write"], ["mine"])
    assert (seen["options"].get("model") or [seen["config"].get("model")])[-1] == "gpt-5.5"
    assert (seen["config"]["model_reasoning_effort"],
            seen["config"]["developer_instructions"]) == ("low", "be brief")
    assert seen["cwd"] == str(repo / "sub")


def test_arguments_of_a_reply_override_the_settings_it_would_repeat(client):
    c = client()
    first = c.ok("codex", prompt="x", model="gpt-5.5", sandbox="workspace-write")
    seen = facts(c.ok("codex_reply", threadId=first["threadId"], prompt="ARGV", sandbox="read-only"))
    assert seen["options"]["sandbox"] == ["read-only"]
    assert (seen["options"].get("model") or [seen["config"].get("model")])[-1] == "gpt-5.5"


def test_another_server_repeats_the_settings_too(client):
    first = client().ok("codex", prompt="x", sandbox="workspace-write")
    seen = facts(client().ok("codex_reply", threadId=first["threadId"], prompt="ARGV"))
    assert seen["options"]["sandbox"] == ["workspace-write"]


def test_a_reply_to_a_thread_that_codex_does_not_know_is_a_resume_failure(client):
    result = client().call("codex_reply",
                           {"threadId": "01a1fae2-0000-7c70-9702-579ef587dc24", "prompt": "x", "cwd": "."})
    assert result["isError"] is True
    assert result["structuredContent"]["failure"]["kind"] == "resume"


def test_a_reply_to_a_name_never_passes_off_a_new_thread_as_the_old_one(client):
    """codex silently starts a new thread when the name is no UUID."""
    result = client().call("codex_reply", {"threadId": "not-a-uuid", "prompt": "x"})
    assert result["isError"] is True


def test_a_reply_while_the_thread_is_at_work_is_refused_with_the_reason(client, gate):
    c = client()
    first = c.ok("codex", prompt="SAY x")
    task = c.begin(gate.wait, threadId=first["threadId"])
    eventually(lambda: c.status(task).get("threadId"), what="the resumed thread")
    result = c.call("codex_reply", {"threadId": first["threadId"], "prompt": "x"})
    assert result["isError"] is True
    assert task in text_of(result)
    gate.open()
    c.collect(task)


def test_a_reply_after_a_cancelled_turn_continues_the_thread(client, tmp_path):
    c = client()
    task = c.begin("the first remarkable prompt", "SHELL touch %s; sleep 1000" % (tmp_path / "on"))
    eventually((tmp_path / "on").exists)
    c.ok("codex_cancel", task_ids=[task])
    assert "remarkable" in c.ok("codex_reply", task_id=task, prompt="RECALL")["content"]


def test_an_ephemeral_server_explains_why_it_cannot_reply(client):
    c = client("--ephemeral")
    first = c.ok("codex", prompt="ARGV")
    assert "ephemeral" in facts(first)["options"]
    assert "--ephemeral" in c.refused("codex_reply", {"threadId": first["threadId"], "prompt": "x"})


# -- blocking calls and the client's own limit ---------------------------------------------------------
def test_a_run_that_outlasts_nothing_is_returned_whole_to_a_client_with_a_limit(client):
    assert client(name="codex-mcp-client").ok("codex", prompt="SAY done")["state"] == "ended"


# -- worktrees ---------------------------------------------------------------------------------------
def test_the_work_in_a_worktree_is_on_a_branch_that_plain_git_merges(client, repo):
    record = client().ok("codex", prompt="WRITE new.txt written there\nSAY done", worktree=True)
    tree = record["worktree"]
    assert tree["branch"] == "codex-swarm/" + record["task_id"]
    assert (tree["files_changed"], tree["insertions"], tree["deletions"]) == (1, 1, 0)
    assert not (repo / "new.txt").exists()
    git(repo, "merge", "-q", tree["branch"])
    assert (repo / "new.txt").read_text() == "written there\n"


def test_a_worktree_starts_from_head_in_the_same_subdirectory_and_may_be_written(client, repo):
    (repo / "sub").mkdir()
    (repo / "sub" / "kept").write_text("x")
    git(repo, "add", "sub")
    git(repo, "commit", "-q", "-m", "sub")
    record = client().ok("codex", prompt="ARGV", worktree=True, cwd="sub")
    seen = facts(record)
    assert seen["cwd"] == record["worktree"]["path"] + "/sub"
    assert (seen["options"].get("sandbox") or [seen["config"].get("sandbox_mode")])[-1] == "workspace-write"
    assert record["worktree"]["base"] == git(repo, "rev-parse", "HEAD").strip()


def test_the_tasks_of_a_batch_have_worktrees_of_their_own(client):
    records = client().ok("codex_batch", defaults={"worktree": True},
                          tasks=[{"prompt": "WRITE same.txt %d" % i} for i in range(3)])["tasks"]
    assert [r["outcome"] for r in records] == ["succeeded"] * 3
    assert len({r["worktree"]["path"] for r in records}) == 3


@pytest.mark.parametrize("end", ["FAIL boom", "EXIT 3", "SILENT", "CRASH 9"])
def test_the_work_of_a_failed_run_is_on_its_branch_and_its_worktree_stays(client, repo, end):
    result = client().call("codex", {"prompt": "WRITE half.txt x\n" + end, "worktree": True})
    tree = result["structuredContent"]["worktree"]
    assert result["isError"] and git(repo, "show", tree["branch"] + ":half.txt") == "x\n"
    assert "failed" in git(repo, "log", "-1", "--format=%B", tree["branch"]) and tree["commits"] == 1
    with open(tree["path"] + "/half.txt") as f:
        assert f.read() == "x\n"


def test_the_work_of_a_run_that_timed_out_is_on_its_branch(client, repo):
    result = client().call("codex",
                           {"prompt": "WRITE half.txt x\nSLEEP 60", "worktree": True, "timeout_s": 3})
    record = result["structuredContent"]
    assert record["outcome"] == "timed_out"
    assert git(repo, "show", record["worktree"]["branch"] + ":half.txt") == "x\n"
    assert "timed_out" in git(repo, "log", "-1", "--format=%s", record["worktree"]["branch"])


def test_the_work_of_a_cancelled_run_is_on_its_branch_and_its_worktree_stays(client, repo, tmp_path):
    c = client()
    task = c.begin("WRITE half.txt x", "SHELL touch %s; sleep 1000" % (tmp_path / "on"), worktree=True)
    eventually((tmp_path / "on").exists)
    tree = c.ok("codex_cancel", task_ids=[task])["tasks"][0]["worktree"]
    assert git(repo, "show", tree["branch"] + ":half.txt") == "x\n"
    assert "cancelled" in git(repo, "log", "-1", "--format=%s", tree["branch"])
    with open(tree["path"] + "/half.txt") as f:
        assert f.read() == "x\n"


def test_a_worktree_in_a_repository_without_a_commit_is_refused(client, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    text = client().refused("codex", {"prompt": "x", "cwd": str(empty), "worktree": True})
    assert "worktree" in text and "commit" in text


def test_a_worktree_outside_a_repository_is_refused(client, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "worktree" in client("--skip-git-repo-check").refused(
        "codex", {"prompt": "x", "cwd": str(outside), "worktree": True})
