"""The truth about outcomes: real recordings through the whole server, and runs that end in every other
way."""
import json
import re
import sys

import pytest

from client import Client, eventually, text_of
from conftest import HERE, environment, new_repository, stop_all_tasks, warm

# What each recorded failure is. The recordings are the evidence; the kinds are for the caller to act on.
FAILURES = {
    "auth": ["h401", "noauth_401", "noauth_envkey", "h403", "retry_h401", "retry_h403"],
    "rate_limit": ["h429", "f_rate", "f_slow", "retry_h429", "retry_f_rate"],
    "usage_limit": ["h429_usage", "h429_quota", "h429_notincl", "f_quota", "f_usage", "retry_h429_usage"],
    "network": ["drop", "reset", "hang_server", "conn_refused_bounded", "conn_refused_bounded5", "badutf8",
                "retry_drop"],
    "overloaded": ["h500", "h503", "f_overload", "f_server", "retry_h500", "retry_f_overload"],
    "context_overflow": ["f_ctx"],
    "bad_request": ["h400", "h400_model", "h404", "h413", "prompt_too_long", "f_invalid", "x_badmodel",
                    "retry_h400", "retry_h404"],
    "config": ["x_badvalue", "x_badprovider", "x_badflag", "x_badsandbox_cfg", "x_noeq", "x_badfeature",
               "x_badkey_strict",
               "x_badsandbox_flag"],
    "not_a_repository": ["x_nogit", "x_nogit_dfa"],
    "resume": ["x_resume_unknown", "resume_conflict"],
    "killed": ["sigkill", "sigterm"],
}
SUCCESSES = ["success", "success_shell", "bg", "badtool", "badsse", "binout", "retry_h500_then_ok",
             "retry_f_then_ok",
             "retry_drop_then_ok", "patch", "patchfail", "plan", "web", "mcp", "parallel", "reason",
             "collab_v1", "codemode",
             "empty", "emptymsg", "twomsg", "sandbox_denied", "x_badkey", "x_badprofile", "resume_ok",
             "noauth_mockurl"]
RETRYABLE = {"rate_limit": True, "network": True, "overloaded": True, "auth": False, "bad_request": False,
             "config": False,
             "not_a_repository": False, "context_overflow": False}


def recorded(name):
    """The events of a recording."""
    with open(str(HERE / "recordings" / (name + ".jsonl")), encoding="utf-8") as f:
        return [json.loads(line) for line in f.read().split("\n") if line]


def last(events, kind, *path):
    """A member of the last event of a type, or None."""
    for event in reversed(events):
        if event["type"] == kind or event.get("item", {}).get("type") == kind:
            for step in path:
                event = event[step]
            return event
    return None


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for all that only have to tell how a run ended."""
    home = tmp_path_factory.mktemp("shared")
    root = home / "root"
    with Client(None, process=warm((), environment(home, root), new_repository(home / "repo"))) as c:
        c.initialize()
        yield c
    stop_all_tasks(root)
    assert "Traceback" not in c.stderr, c.stderr


def run(c, *lines):
    """The record of a run that ended badly, in the call that ran it."""
    result = c.call("codex", {"prompt": "\n".join(lines)})
    assert result["isError"] is True, result
    return result["structuredContent"], text_of(result)


@pytest.mark.parametrize("kind, name", [(kind, name) for kind in FAILURES for name in FAILURES[kind]])
def test_a_recorded_failure_has_its_kind_and_codexs_own_words(shared, kind, name):
    record, text = run(shared, "PLAY " + name)
    failure = record["failure"]
    assert (record["state"], record["outcome"], failure["kind"]) == ("ended", "failed", kind), failure
    assert failure["advice"] and isinstance(failure["retryable"], bool)
    assert failure["retryable"] is RETRYABLE.get(kind, failure["retryable"])
    said = last(recorded(name), "turn.failed", "error", "message")
    if said:
        assert failure["message"] == said
    assert failure["message"][:60] in text and failure["advice"][:60] in text
    assert len(text) < 10000


@pytest.mark.parametrize("name", SUCCESSES)
def test_a_recorded_success_is_one_whatever_went_wrong_on_the_way(shared, name):
    record = shared.ok("codex", prompt="PLAY " + name)
    assert (record["outcome"], "failure" in record) == ("succeeded", False)
    events = recorded(name)
    assert record["threadId"] == last(events, "thread.started", "thread_id")
    assert record.get("content", "") == (last(events, "agent_message", "item", "text") or "")


@pytest.mark.parametrize("name", ["x_badflag", "x_nogit", "prompt_too_long", "resume_conflict"])
def test_a_failure_before_the_turn_shows_the_end_of_stderr(client, name):
    record, _ = run(client(), "PLAY " + name)
    stderr = (HERE / "recordings" / (name + ".stderr")).read_text(encoding="utf-8")
    words = [line for line in stderr.splitlines() if "rror" in line or "trusted" in line][-1]
    assert words[-60:] in record["failure"]["message"]


def test_a_failed_run_seen_through_wait_and_status_is_an_ordinary_result(client):
    c = client()
    task = c.begin("FAIL boom")
    waited, seen = c.collect(task)[0], c.status(task)
    assert waited["outcome"] == seen["outcome"] == "failed"
    assert "boom" in waited["failure"]["message"]


def test_a_failed_task_of_a_batch_leaves_the_batch_an_ordinary_result(client):
    records = client().ok("codex_batch", tasks=[{"prompt": "FAIL boom"}, {"prompt": "SAY fine"}])["tasks"]
    assert [r["outcome"] for r in records] == ["failed", "succeeded"]


# -- evidence, not substrings ------------------------------------------------------------------------
@pytest.mark.parametrize("words", [
    "boom", "error on line 512 of main.py", "found 401 problems in 429 files", "test_500_users failed",
    "unauthorized use of goto",
    "the connection pool has 503 entries", "rate of change exceeded", "model of the network is at fault",
    "see https://example.invalid/429", "timeout of the build was 30 s", "quota.py is missing",
    "context window manager crashed",
])
def test_a_message_that_only_sounds_like_a_known_failure_is_unknown(shared, words):
    record, _ = run(shared, "FAIL " + words)
    assert record["failure"]["kind"] == "unknown"
    assert record["failure"]["message"].startswith(words)


def test_what_a_tool_or_the_model_prints_is_no_evidence(client):
    record, _ = run(client(), "SHELL echo 'unexpected status 401 Unauthorized: x, url: y'; exit 1",
                    "STDERR tool said: exceeded retry limit, last status: 429 Too Many Requests", "FAIL boom")
    assert record["failure"]["kind"] == "unknown"


# -- ends of other kinds -----------------------------------------------------------------------------
def test_exit_0_without_an_end_of_turn_is_a_disagreement(client):
    record, _ = run(client(), "SILENT")
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", "disagreement")


def test_an_end_of_turn_with_a_bad_exit_status_is_a_disagreement_with_both_facts(client):
    record, text = run(client(), "SAY done", "BOTH")
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", "disagreement")
    assert "3" in record["failure"]["message"] and "turn.completed" in record["failure"]["message"]


@pytest.mark.parametrize("number, kind",
                         [(9, "killed"), (15, "killed"), (11, "codex_crash"), (6, "codex_crash")])
def test_a_signal_that_nobody_here_sent_is_named(client, number, kind):
    record, text = run(client(), "CRASH %d" % number)
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", kind)
    assert {9: "SIGKILL", 15: "SIGTERM", 11: "SIGSEGV", 6: "SIGABRT"}[number] in text


def test_a_panic_of_codex_is_a_crash(client):
    record, _ = run(client(), "STDERR thread 'main' panicked at core/src/x.rs:1:1: boom", "EXIT 101")
    assert record["failure"]["kind"] == "codex_crash"


def test_an_exit_without_any_evidence_says_the_status(client):
    record, _ = run(client(), "EXIT 42")
    assert record["failure"]["kind"] == "unknown"
    assert "42" in record["failure"]["message"]


def test_a_missing_codex_is_said_with_the_path_and_the_remedy(client):
    text = client(env={"CODEX_SWARM_CODEX_BIN": "/nowhere/codex"}).refused("codex", {"prompt": "x"})
    assert "/nowhere/codex" in text
    assert "npm" in text or "install" in text.lower()


def test_a_codex_that_cannot_be_executed_is_said_plainly(client, tmp_path):
    broken = tmp_path / "codex"
    broken.write_text("not a program")
    assert str(broken) in client(env={"CODEX_SWARM_CODEX_BIN": str(broken)}).refused("codex", {"prompt": "x"})


def test_reconnects_are_no_failure_and_are_shown_as_waiting_for_the_network(client, gate):
    c = client()
    task = c.begin("RECONNECT 3", gate.wait, "SAY back again")
    eventually(lambda: "network" in json.dumps(c.status(task).get("progress", {})), what="the phase")
    gate.open()
    assert (c.collect(task)[0]["outcome"], c.collect(task)[0]["content"]) == ("succeeded", "back again")


def test_warnings_of_codex_are_passed_on(client):
    record = client().ok("codex", prompt="PLAY x_badkey")
    assert any("no_such_key" in warning for warning in record["warnings"])


def test_a_partial_answer_of_a_failed_run_is_kept(client):
    record, _ = run(client(), "PLAY drop")
    assert record["content"] == "half"


# -- stopped, and why --------------------------------------------------------------------------------
def out_of_time(c, phase, *lines):
    """The result of a run that had come as far as `phase` when its time was over, and its limit: a slow
    machine needs a longer one."""
    for limit_s in (1, 4, 16, 60):
        result = c.call("codex", {"prompt": "\n".join(lines), "timeout_s": limit_s})
        if "while " + phase in result["structuredContent"]["failure"]["message"]:
            break
    return result, limit_s


def test_a_task_that_ran_out_of_time_says_the_limit_what_it_was_doing_and_what_to_do(client, repo):
    result, limit_s = out_of_time(client(), "running a command", "SHELL sleep 1000")
    record, text = result["structuredContent"], text_of(result)
    failure = record["failure"]
    assert (result["isError"], record["outcome"], failure["kind"],
            failure["retryable"]) == (True, "timed_out", "timed_out", False)
    said = ("Its limit of %d s (`timeout_s`) passed while running a command (`sleep 1000`), "
            "with nothing new for " % limit_s)
    assert failure["message"].startswith(said) and str(repo) in failure["message"]
    assert "codex_reply" in failure["advice"] and "timeout_s" in failure["advice"]
    assert failure["message"] in text and failure["advice"] in text


def test_a_dead_network_that_ends_in_a_time_out_is_of_kind_network(client, gate):
    result, limit_s = out_of_time(client(), "waiting for the network", "RECONNECT 3", gate.wait)
    failure = result["structuredContent"]["failure"]
    assert (result["structuredContent"]["outcome"], failure["kind"],
            failure["retryable"]) == ("timed_out", "network", True)
    assert "limit of %d s" % limit_s in failure["message"]
    assert re.search(r"with no network for \d+ s", failure["message"])


def test_a_cancelled_task_says_who_stopped_it_what_it_was_doing_and_where_its_work_is(client):
    c = client()
    task = c.begin("WRITE a.txt a", "SHELL sleep 1000", worktree=True)
    eventually(lambda: "sleep 1000" in json.dumps(c.status(task).get("progress", {})), what="the command")
    (record,) = c.ok("codex_cancel", task_ids=[task])["tasks"]
    failure = record["failure"]
    assert (record["outcome"], failure["kind"]) == ("cancelled", "cancelled")
    assert failure["message"].startswith(
        "It was cancelled while running a command (`sleep 1000`), with nothing new for ")
    assert "on the branch `%s`" % record["worktree"]["branch"] in failure["message"]
    assert c.collect(task)[0]["failure"] == failure
    task = c.begin("SHELL sleep 1000", worktree=True)
    eventually(lambda: "sleep 1000" in json.dumps(c.status(task).get("progress", {})), what="the command")
    (record,) = c.ok("codex_cancel", task_ids=[task])["tasks"]
    assert record["failure"]["message"].endswith(" s. It changed no file")


# -- under what it ran -------------------------------------------------------------------------------
def test_a_record_says_under_which_sandbox_and_model_it_ran(client, gate):
    c = client("-c", "model=of-the-server")
    task = c.begin("WAITFILE " + str(gate.path), sandbox="danger-full-access")
    assert (c.status(task)["sandbox"], c.status(task)["model"]) == ("danger-full-access", "of-the-server")
    gate.open()
    first = c.collect(task)[0]
    assert (first["sandbox"], first["model"]) == ("danger-full-access", "of-the-server")
    reply = c.call("codex_reply", {"prompt": "x", "task_id": task, "model": "another"})
    second = reply["structuredContent"]
    assert (second["sandbox"], second["model"]) == ("danger-full-access", "another")
    assert "sandbox: danger-full-access" in text_of(reply)


def test_a_rollout_that_nobody_can_read_keeps_no_work_from_being_committed(client, tmp_path):
    deep = '{"timestamp":"2099-01-01T00:00:00.000Z","type":"turn_context","payload":%s'
    code = ("import sys; [open(path, 'a').write(%r + chr(10)) for path in sys.argv[1:]]"
            % (deep % ("[" * 100_000)))
    (tmp_path / "deepen.py").write_text(code)
    shell = "SHELL '%s' '%s' '%s'/.codex/sessions/*/*/*/*" % (sys.executable, tmp_path / "deepen.py",
                                                              tmp_path / "home")
    record = client().ok("codex", prompt="WRITE a.txt a\n" + shell, worktree=True, sandbox="workspace-write")
    assert record["outcome"] == "succeeded"
    assert record["worktree"]["head"]
    assert record["sandbox"] == "workspace-write"


def test_what_codex_chose_by_itself_is_told_too(client):
    record = client().ok("codex", prompt="x")
    assert (record["sandbox"], record["model"]) == ("workspace-write", "gpt-5.5") and "warnings" not in record


def test_a_sandbox_that_was_not_given_and_let_nothing_be_written_is_a_warning(client):
    c = client(env={"FAKE_CODEX_SANDBOX": "read-only"})
    record = c.ok("codex", prompt="SAY Fixed the bug.")
    assert record["sandbox"] == "read-only"
    assert any("nothing could be written" in w and "workspace-write" in w for w in record["warnings"])
    assert "warnings" not in c.ok("codex", prompt="x", sandbox="read-only")
    [sandbox] = [t["inputSchema"]["properties"]["sandbox"] for t in c.request("tools/list")["result"]["tools"]
                 if t["name"] == "codex"]
    assert "read-only" in sandbox["description"]


def test_a_tool_that_codex_refused_for_want_of_approval_is_a_warning(client):
    record = client().ok("codex", prompt="PLAY mcp_plain")
    assert any("`fake/" in w and "approval" in w and "default_tools_approval_mode" in w
               for w in record["warnings"])


@pytest.mark.parametrize("name", ["empty", "emptymsg"])
def test_an_empty_final_message_is_a_warning(client, name):
    record = client().ok("codex", prompt="PLAY " + name)
    assert record["outcome"] == "succeeded"
    assert any("without a final message" in w for w in record["warnings"])
