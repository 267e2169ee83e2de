"""Cancelling: the request by `notifications/cancelled`, the task by `codex_cancel`."""
import os
import select
import sys

import pytest

from client import alive, eventually
from conftest import git, is_supervised, running, task_dirs

OWNERS = {
    "codex": (1, lambda gate: {"prompt": gate.wait}),
    "codex_batch": (2, lambda gate: {"tasks": [{"prompt": gate.wait}, {"prompt": gate.wait}]}),
}


def begin_call(c, tool, gate):
    """Start a call that owns its tasks; (request id, task ids) once they run."""
    count, arguments = OWNERS[tool]
    call = c.start_call(tool, arguments(gate))
    return call, running(c, count)


def read_pid(path):
    return int(eventually(lambda: path.exists() and path.read_text().strip(), what="a pid in %s" % path))


# -- the request -------------------------------------------------------------------------------------
@pytest.mark.parametrize("tool", sorted(OWNERS))
@pytest.mark.parametrize("reason", [None, "AbortError: user-cancel", "caller cancelled", ""])
def test_a_cancelled_call_gets_no_answer_and_its_tasks_end_cancelled(client, gate, tool, reason):
    c = client()
    call, tasks = begin_call(c, tool, gate)
    c.cancel(call, **({} if reason is None else {"reason": reason}))
    assert [t["outcome"] for t in c.collect(*tasks)] == ["cancelled"] * len(tasks)
    c.ping()
    assert c.responses_to(call) == []


def test_a_cancelled_reply_stops_its_turn(client, gate):
    c = client()
    first = c.ok("codex", prompt="SAY first")
    call = c.start_call("codex_reply", {"threadId": first["threadId"], "prompt": gate.wait})
    task, = running(c, 1)
    c.cancel(call)
    assert c.collect(task)[0]["outcome"] == "cancelled"
    c.ping()
    assert c.responses_to(call) == []


@pytest.mark.parametrize("tool", sorted(OWNERS))
def test_a_call_cancelled_before_its_tasks_exist_leaves_none_running(client, root, gate, tool):
    c = client()
    for _ in range(3):
        call = c.start_call(tool, OWNERS[tool][1](gate))
        c.cancel(call)
    c.ping()
    eventually(lambda: len(task_dirs(root)) == 3 * OWNERS[tool][0], what="the tasks")
    eventually(lambda: c.ok("codex_status")["tasks"] == [], what="the end of all tasks")
    assert [t["outcome"]
            for t in c.collect(*[d.name for d in task_dirs(root)])] == ["cancelled"] * len(task_dirs(root))


@pytest.mark.parametrize("tool", sorted(OWNERS))
@pytest.mark.parametrize("reason",
                         ["Request timed out", "SdkError: Request timed out",
                          "McpError: MCP error -32001: Request timed out"])
def test_when_the_clients_time_ran_out_the_tasks_go_on(client, gate, tool, reason):
    c = client()
    call, tasks = begin_call(c, tool, gate)
    c.cancel(call, reason=reason)
    c.ping()
    assert [c.status(t)["state"] for t in tasks] == ["running"] * len(tasks)
    gate.open()
    assert [t["outcome"] for t in c.collect(*tasks)] == ["succeeded"] * len(tasks)
    assert c.responses_to(call) == []


def test_cancelling_a_wait_stops_nothing(client, gate):
    c = client()
    task = c.begin(gate.wait, "SAY went on")
    waiting = c.start_call("codex_wait", {"task_ids": [task]})
    c.ping()
    c.cancel(waiting, reason="AbortError: user-cancel")
    c.ping()
    assert c.status(task)["state"] in ("starting", "running")
    gate.open()
    assert c.collect(task)[0]["content"] == "went on"
    assert c.responses_to(waiting) == []


@pytest.mark.parametrize("tool", sorted(OWNERS))
def test_a_call_cancelled_while_its_worktrees_are_made_starts_no_codex(
        client, root, repo, gate, tmp_path, tool):
    """Made slow by a filter, which git runs as it checks out."""
    begun, ran = tmp_path / "begun", tmp_path / "ran"
    git(repo, "config", "filter.slow.smudge", "touch '%s'; while ! test -e '%s'; do sleep 0.05; done; cat"
        % (begun, gate.path))
    (repo / ".gitattributes").write_text("x filter=slow\n")
    (repo / "x").write_text("1\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "slow")
    c, task = client(), {"prompt": "SHELL touch '%s'" % ran, "worktree": True}
    call = c.start_call(tool, task if tool == "codex" else {"tasks": [task, task]})
    eventually(begun.exists, what="a checkout")
    c.cancel(call)
    c.ping()
    gate.open()
    eventually(lambda: git(repo, "branch", "--list", "codex-swarm/*") == "", what="the end of it all")
    assert task_dirs(root) == [] and not ran.exists() and not list((root / "worktrees").glob("[0-9a-f]*"))


def test_a_thousand_cancelled_waits_leave_room_for_the_next(client, gate):
    c = client()
    task = c.begin(gate.wait, "SAY done")
    for _ in range(10):
        for waiting in [c.start_call("codex_wait", {"task_ids": [task]}) for _ in range(100)]:
            c.cancel(waiting)
        c.ping()
    waiting = c.start_call("codex_wait", {"task_ids": [task]})
    gate.open()
    assert c.good(c.tool_result(waiting))["tasks"][0]["content"] == "done"
    assert sum("result" in message and "id" in message for message in c.log) < 30, "a cancelled one answered"


def test_a_cancelled_call_sends_no_more_progress(client, gate):
    c = client()
    call = c.start_call("codex", {"prompt": gate.wait + "\nSHELL true\n" + gate.wait}, progress_token="p")
    c.wait_for(lambda m: m.get("method") == "notifications/progress", what="progress")
    task, = running(c, 1)
    c.cancel(call, reason="Request timed out")
    c.ping()
    since = len(c.log)
    gate.open()
    c.collect(task)
    c.ping()
    assert not [m for m in c.log[since:] if m.get("method") == "notifications/progress"]


def test_a_batch_of_which_every_call_was_cancelled_is_not_answered(client, gate, root):
    """JSON-RPC forbids an empty array of answers."""
    c = client(version="2025-03-26")
    since = len(c.log)
    call = {"name": "codex", "arguments": {"prompt": gate.wait}}
    c.send([{"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": call}])
    task, = eventually(lambda: task_dirs(root), what="the task")
    c.cancel("b", reason="Request timed out")
    gate.open()
    eventually(lambda: not is_supervised(task), what="the end of the task")
    c.ping()
    assert [m for m in c.log[since:] if isinstance(m, list)] == []


def test_cancelling_an_answered_request_is_ignored(client):
    c = client()
    call = c.start_call("codex", {"prompt": "SAY done"})
    task = c.good(c.tool_result(call))["task_id"]
    c.cancel(call)
    c.ping()
    assert c.collect(task)[0]["outcome"] == "succeeded"


def test_cancelling_the_id_string_5_leaves_request_5_alone(client, gate):
    c = client()
    c.start_call("codex", {"prompt": gate.wait + "\nSAY five"}, id=5)
    c.ping()
    c.cancel("5")
    c.ping()
    gate.open()
    assert c.good(c.tool_result(5))["content"] == "five"


# -- the task ----------------------------------------------------------------------------------------
def test_codex_cancel_returns_the_final_state_of_each_task(client, gate):
    c = client()
    tasks = [c.begin(gate.wait), c.begin(gate.wait)]
    found = c.ok("codex_cancel", task_ids=tasks)["tasks"]
    assert [(t["task_id"], t["state"], t["outcome"])
            for t in found] == [(t, "ended", "cancelled") for t in tasks]


def test_cancelling_an_ended_task_says_so_and_changes_nothing(client):
    c = client()
    task = c.begin("SAY done")
    before = c.collect(task)[0]
    result = c.call("codex_cancel", {"task_ids": [task]})
    after = c.good(result)["tasks"][0]
    assert (after["outcome"], after["content"],
            after["elapsed_s"]) == (before["outcome"], before["content"], before["elapsed_s"])
    assert "already" in str(result).lower() or "had ended" in str(result).lower()


def test_cancelling_an_unknown_task_names_it(client):
    assert "0123456789ab" in client().refused("codex_cancel", {"task_ids": ["0123456789ab"]})


def test_an_unknown_task_does_not_keep_the_others_running(client, gate):
    c = client()
    task = c.begin(gate.wait)
    assert task in c.refused("codex_cancel", {"task_ids": ["0123456789ab", task]})
    assert c.collect(task)[0]["outcome"] == "cancelled"


def test_a_run_cancelled_from_elsewhere_is_an_error_of_the_call_that_ran_it(client, gate):
    c = client()
    call, tasks = begin_call(c, "codex", gate)
    c.ok("codex_cancel", task_ids=tasks)
    result = c.tool_result(call)
    assert result["isError"] is True
    assert result["structuredContent"]["outcome"] == "cancelled"


def test_a_cancelled_task_keeps_what_it_said(client, tmp_path, gate):
    c = client()
    task = c.begin("SHELL touch %s" % (tmp_path / "started"), gate.wait)
    eventually((tmp_path / "started").exists)
    c.ok("codex_cancel", task_ids=[task])
    record = c.collect(task)[0]
    assert record["outcome"] == "cancelled"
    assert record["threadId"]


if sys.platform == "linux":     # macOS has no subreaper (the README says so), and no setsid command
    def test_cancel_reaches_a_process_that_forks_away_all_the_time(client, tmp_path):
        alive = tmp_path / "alive"          # every one of them has it open, so its end is the end of all
        os.mkfifo(str(alive))
        reader = os.open(str(alive), os.O_RDONLY | os.O_NONBLOCK)
        (tmp_path / "hop.py").write_text(
            "import os\nwhile 1:\n    if os.fork(): os._exit(0)\n    os.setsid()\n")
        c = client()
        task = c.begin("SHELL exec 3>%s; %s %s & echo hop >&3; sleep 1000"
                       % (alive, sys.executable, tmp_path / "hop.py"))
        eventually(lambda: select.select([reader], [], [], 0)[0] and os.read(reader, 10), what="the forker")
        record, = c.ok("codex_cancel", task_ids=[task])["tasks"]
        assert os.read(reader, 10) == b""
        assert not [w for w in record.get("warnings", []) if "could not be killed" in w]


    def test_cancel_reaches_a_grandchild_in_its_own_session(client, tmp_path):
        c = client()
        inner, outer = tmp_path / "inner", tmp_path / "outer"
        task = c.begin("SHELL setsid bash -c 'echo $$ > %s; sleep 1000' & echo $$ > %s; sleep 1000"
                       % (inner, outer))
        pids = read_pid(inner), read_pid(outer)
        c.ok("codex_cancel", task_ids=[task])
        assert [alive(pid) for pid in pids] == [False, False]

    def test_cancel_reaches_an_orphan_that_hides_from_its_parents(client, tmp_path):
        """Double fork, own session, empty environment: only who adopts it can find it."""
        c = client()
        task = c.begin("ORPHAN %s" % (tmp_path / "pid"), "SLEEP 1000")
        pid = read_pid(tmp_path / "pid")
        assert alive(pid)
        c.ok("codex_cancel", task_ids=[task])
        assert not alive(pid)

    def test_an_orphan_of_a_run_that_ended_well_is_not_left_behind(client, tmp_path):
        record = client().ok("codex", prompt="ORPHAN %s\nSAY done" % (tmp_path / "pid"))
        assert record["outcome"] == "succeeded"
        assert not alive(read_pid(tmp_path / "pid"))


def test_a_codex_that_ignores_signals_is_killed(client, tmp_path):
    c = client()
    task = c.begin("STUBBORN", "SHELL echo $PPID > %s" % (tmp_path / "pid"), "SLEEP 1000")
    pid = read_pid(tmp_path / "pid")
    assert c.ok("codex_cancel", task_ids=[task])["tasks"][0]["outcome"] == "cancelled"
    assert not alive(pid)


def test_a_task_cancelled_the_moment_it_was_started_ends_cancelled(client, gate):
    """SIGINT may come before codex listens to it: the stop has to be repeated."""
    c = client()
    tasks = c.ok("codex_batch", tasks=[{"prompt": gate.wait}] * 3, wait=False)["task_ids"]
    assert [t["outcome"] for t in c.ok("codex_cancel", task_ids=tasks)["tasks"]] == ["cancelled"] * 3


def test_a_task_that_outlasts_its_time_ends_timed_out_with_all_it_started(client, tmp_path):
    c = client()
    result = c.call("codex",
                    {"prompt": "SHELL echo $$ > %s; sleep 1000" % (tmp_path / "pid"), "timeout_s": 1})
    assert result["isError"] is True
    assert result["structuredContent"]["outcome"] == "timed_out"
    assert not alive(read_pid(tmp_path / "pid"))
