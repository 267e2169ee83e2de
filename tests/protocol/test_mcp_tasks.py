"""The Tasks extension of 2026-07-28: a call answers with a handle at once, and any server on the same ROOT
knows how it goes on."""
import json
import os
import shutil
import signal
import sys

import pytest

from client import TASKS, alive, envelope, eventually, text_of
from conftest import none_runs, running, task_dirs

# what differs between two runs of the same prompt
FIELDS = {"elapsed_s", "started_at", "task_id", "threadId", "worktree"}


def blocking(c, tool, *lines):
    """(arguments of a blocking tool whose tasks have this prompt, how many tasks that makes)."""
    prompt = "\n".join(lines)
    if tool == "codex_batch":
        return {"tasks": [{"prompt": prompt}, {"prompt": prompt}]}, 2
    if tool == "codex_reply":
        return {"prompt": prompt,
                "threadId": c.result(
                    c.start_call("codex", {"prompt": "SAY first"},
                                 envelope=envelope()))["result"]["structuredContent"]["threadId"]}, 1
    if tool == "codex_wait":
        return {"task_ids": [c.begin(prompt)]}, 1
    return {"prompt": prompt}, 1


BLOCKING = ["codex", "codex_reply", "codex_batch", "codex_wait"]
OWNERS = BLOCKING[:3]


@pytest.mark.parametrize("tool", BLOCKING)
def test_a_blocking_call_that_declares_the_extension_gets_a_handle_and_then_its_result(modern, gate, tool):
    c = modern(tasks=True)
    arguments, count = blocking(c, tool, gate.wait, "SAY done")
    handle = c.handle(tool, **arguments)
    assert handle["status"] == "working"
    running(c, count)
    task = c.get(handle["taskId"])
    assert (task["status"], task["createdAt"], "result" in task) == ("working", handle["createdAt"], False)
    gate.open()
    end = c.get_end(handle["taskId"])
    assert end["status"] == "completed"
    assert end["result"]["isError"] is False
    assert text_of(end["result"]).count("done") >= count


@pytest.mark.parametrize("tool", ["codex_async", "codex_status", "codex_cancel"])
def test_a_call_that_does_not_block_is_answered_at_once_also_when_handles_are_understood(modern, tool):
    c = modern(tasks=True)
    arguments = {"prompt": "SAY x"} if tool == "codex_async" else {"task_ids": [c.begin("SAY x")]}
    assert c.call(tool, arguments)["resultType"] == "complete"


def test_a_batch_that_need_not_wait_is_answered_at_once(modern):
    assert modern(tasks=True).call("codex_batch",
                                   {"tasks": [{"prompt": "SAY x"}],
                                    "wait": False})["resultType"] == "complete"


@pytest.mark.parametrize("tool", BLOCKING)
def test_without_the_extension_the_same_call_blocks_and_returns_its_result(modern, tool):
    c = modern()
    result = c.call(tool, blocking(c, tool, "SAY done")[0])
    assert (result["resultType"], result["isError"]) == ("complete", False)


@pytest.mark.parametrize("prompt", ["SAY done", "FAIL boom", "MESSAGE 90000", "EXIT 3"])
def test_the_result_of_a_task_is_what_the_blocking_call_would_have_returned(modern, prompt):
    c = modern(tasks=True)
    end = c.get_end(c.handle("codex", prompt=prompt)["taskId"])
    now = c.result(c.start_call("codex", {"prompt": prompt}, envelope=envelope()))["result"]
    assert set(end["result"]) == set(now)
    assert {k: v for k, v in end["result"].items() if k not in ("content", "structuredContent")} == {
        k: v for k, v in now.items() if k not in ("content", "structuredContent")}
    theirs, ours = now["structuredContent"], end["result"]["structuredContent"]
    assert set(ours) == set(theirs)
    assert {k for k in ours if ours[k] != theirs[k]} <= FIELDS | {"truncated", "content"}
    # times have more or fewer digits, which moves the end of what fits
    assert ours.get("content", "")[:15_000] == theirs.get("content", "")[:15_000]
    assert ("content" in ours) == ("content" in theirs)


def test_the_result_of_a_wait_is_the_one_of_the_blocking_wait(modern, gate):
    c = modern(tasks=True)
    ids = [c.begin(gate.wait + "\nSAY a"), c.begin("FAIL b")]
    handle = c.handle("codex_wait", task_ids=ids)["taskId"]
    gate.open()
    end = c.get_end(handle)
    assert end["result"] == c.result(
        c.start_call("codex_wait", {"task_ids": ids}, envelope=envelope()))["result"]


@pytest.mark.parametrize("prompt", ["FAIL boom", "EXIT 3", "SILENT"])
def test_a_run_that_went_badly_is_a_completed_task_whose_result_says_is_error(modern, prompt):
    c = modern(tasks=True)
    end = c.get_end(c.handle("codex", prompt=prompt)["taskId"])
    assert (end["status"], end["result"]["isError"]) == ("completed", True)


def test_wrong_arguments_get_no_handle(modern, root):
    result = modern(tasks=True).call("codex", {"prompt": "x", "cwd": "/nowhere/at/all"})
    assert (result["resultType"], result["isError"]) == ("complete", True)
    assert task_dirs(root) == []


def test_the_status_message_tells_what_is_done_and_what_runs(modern, tmp_path):
    c = modern(tasks=True)
    on = tmp_path / "on"
    handle = c.handle("codex_batch",
                      tasks=[{"prompt": "SAY x"},
                             {"prompt": "SHELL echo remarkable; while ! test -e %s; do sleep 0.05; done"
                              % on}])

    def told():
        message = c.get(handle["taskId"])["statusMessage"]
        return message.startswith("1 of 2 done") and "remarkable" in message
    eventually(told, what="the status message")
    on.write_text("")
    assert c.get_end(handle["taskId"])["statusMessage"].startswith("2 of 2 done")


def test_a_wait_for_any_is_over_with_the_first_and_a_wait_with_a_limit_at_its_limit(modern, gate, tmp_path):
    c = modern(tasks=True)
    slow, quick = c.begin(gate.wait), c.begin("WAITFILE %s" % (tmp_path / "on"))
    handles = [c.handle("codex_wait", **arguments)
               for arguments in ({"task_ids": [slow, quick], "mode": "any"},
                                 {"task_ids": [slow], "timeout_s": 0.1})]
    (tmp_path / "on").write_text("")
    for handle in handles:
        end = c.get_end(handle["taskId"])
        assert end["result"]["structuredContent"]["still_running"] == [slow]
    gate.open()


@pytest.mark.parametrize("client_name", ["codex-mcp-client", "test-client"])
def test_a_result_fits_the_client_that_asked_for_it_whoever_fetches_it(modern, client_name):
    c = modern(tasks=True, name=client_name)
    handle = c.handle("codex", prompt="MESSAGE 90000")
    end = modern(tasks=True, name="somebody").get_end(handle["taskId"])
    assert (len(end["result"]["structuredContent"]["content"]) < 12000) == (client_name == "codex-mcp-client")


# -- cancel ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tool", OWNERS)
def test_cancelling_the_task_of_a_run_stops_all_that_it_started(modern, gate, tool):
    c = modern(tasks=True)
    arguments, count = blocking(c, tool, gate.wait)
    handle = c.handle(tool, **arguments)
    ids = running(c, count)
    assert c.request("tasks/cancel", {"taskId": handle["taskId"]})["result"]["resultType"] == "complete"
    assert c.get_end(handle["taskId"])["status"] == "cancelled"
    assert [c.status(i)["outcome"] for i in ids] == ["cancelled"] * count


def test_cancelling_the_task_of_a_wait_ends_the_wait_and_stops_nothing(modern, gate):
    c = modern(tasks=True)
    task = c.begin(gate.wait, "SAY went on")
    handle = c.handle("codex_wait", task_ids=[task])
    c.request("tasks/cancel", {"taskId": handle["taskId"]})
    assert c.get_end(handle["taskId"])["status"] == "cancelled"
    assert c.status(task)["state"] in ("starting", "running")
    gate.open()
    assert modern().collect(task)[0]["content"] == "went on"
    assert c.get(handle["taskId"])["status"] == "cancelled"


def test_another_server_can_cancel(modern, gate):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt=gate.wait)
    other = modern(tasks=True)
    other.request("tasks/cancel", {"taskId": handle["taskId"]})
    assert other.get_end(handle["taskId"])["status"] == c.get_end(handle["taskId"])["status"] == "cancelled"


def test_a_wait_that_is_over_when_it_comes_is_answered_with_its_result(modern, gate):
    c = modern(tasks=True)
    task = c.begin(gate.wait)
    assert c.call("codex_wait",
                  {"task_ids": [task], "timeout_s": 0})["structuredContent"]["still_running"] == [task]
    c.ok("codex_cancel", task_ids=[task])
    assert c.call("codex_wait",
                  {"task_ids": [task]})["structuredContent"]["tasks"][0]["outcome"] == "cancelled"


def test_a_cancel_after_an_end_that_nobody_has_seen_yet_changes_nothing(modern, root):
    c = modern(tasks=True)
    handle = c.handle("codex_batch", tasks=[{"prompt": "SAY done"}, {"prompt": "SLEEP 1000"}])["taskId"]
    running(c, 1)
    c.ok("codex_cancel", task_ids=[task.name for task in task_dirs(root)])
    assert c.request("tasks/cancel", {"taskId": handle})["result"]
    end = c.get(handle)
    assert (end["status"], text_of(end["result"]).count("done") > 0) == ("completed", True)


@pytest.mark.parametrize("damaged", ["{}", "", '{"at": "x", "status": 5, "message": null}'])
def test_a_damaged_end_is_made_anew(modern, root, damaged):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="SAY done")["taskId"]
    end = c.get_end(handle)
    kept, = (root / "handles").glob("*.end.json")
    kept.write_text(damaged)
    assert c.get(handle)["result"] == end["result"]
    assert json.loads(kept.read_text())["status"] == "completed"


def test_a_task_that_was_removed_does_not_hide_the_results_of_the_others(modern, root, gate):
    c = modern(tasks=True)
    handle = c.handle("codex_batch", tasks=[{"prompt": "SAY kept"}, {"prompt": gate.wait}])["taskId"]
    eventually(lambda: c.get(handle)["statusMessage"].startswith("1 of 2"), what="the end of the first")
    gate.open()
    eventually(lambda: none_runs(c), what="the end of both")
    kept, = [task for task in task_dirs(root) if b"kept" in (task / "prompt").read_bytes()]
    for task in task_dirs(root):
        if task != kept:
            shutil.rmtree(str(task))
    records = c.get_end(handle)["result"]["structuredContent"]["tasks"]
    assert sorted(r["outcome"] for r in records) == ["lost", "succeeded"]
    assert [r["content"] for r in records if "content" in r] == ["kept"]


def test_a_handle_that_cannot_be_written_leaves_the_task_to_codex_wait_and_says_so(modern, root, tmp_path):
    c = modern(tasks=True)
    root.mkdir()
    (root / "handles").symlink_to(tmp_path)
    answer = c.refused("codex", {"prompt": "SAY done"})
    task, = task_dirs(root)
    assert task.name in answer and "codex_wait" in answer
    assert modern().collect(task.name)[0]["content"] == "done"


def test_the_time_of_the_last_update_never_goes_back(modern, root):
    c = modern(tasks=True)
    handle = c.handle("codex_batch", tasks=[{"prompt": "SAY done"}, {"prompt": "SLEEP 1000"}])["taskId"]
    eventually(lambda: c.get(handle)["statusMessage"].startswith("1 of 2 done"),
               what="the end of the first task")
    first, = [task for task in task_dirs(root) if (task / "report.json").exists()]
    os.utime(str(first / "status.json"), (4e9, 4e9))
    assert c.get(handle)["lastUpdatedAt"].startswith("2096-")


def test_a_terminal_state_never_changes(modern, root):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="SAY done")
    end = c.get_end(handle["taskId"])
    assert c.request("tasks/cancel", {"taskId": handle["taskId"]})["result"]
    assert c.get(handle["taskId"]) == end
    shutil.rmtree(str(task_dirs(root)[0]))
    assert modern(tasks=True).get(handle["taskId"]) == end


def test_a_task_that_was_removed_is_completed_with_an_error_result_also_after_a_cancel(modern, root):
    c = modern(tasks=True)
    handles = [c.handle("codex", prompt="SAY done")["taskId"] for _ in range(2)]
    eventually(lambda: none_runs(c), what="the end of the tasks")
    for task in task_dirs(root):
        shutil.rmtree(str(task))
    assert c.request("tasks/cancel", {"taskId": handles[1]})["result"]
    for handle in handles:
        end = c.get_end(handle)
        assert (end["status"], end["result"]["isError"]) == ("completed", True)
        assert "There is no task" in text_of(end["result"])


if sys.platform == "linux":     # finds the supervisor as the parent of codex's parent
    def test_a_task_that_was_lost_is_completed_with_an_error_result_on_every_server(modern, tmp_path):
        c = modern(tasks=True)
        pid = tmp_path / "pid"
        handle = c.handle("codex",
                          prompt="SHELL echo $$ > %s; echo $PPID > %s.new; mv %s.new %s; exec sleep 1000"
                          % (tmp_path / "left", pid, pid, pid))
        eventually(pid.exists, what="the pid of codex")
        with open("/proc/%d/stat" % int(pid.read_text())) as f:
            supervisor = int(f.read().rpartition(")")[2].split()[1])
        c.kill()
        os.kill(supervisor, signal.SIGKILL)
        other = modern(tasks=True)
        end = other.get_end(handle["taskId"])
        assert (end["status"], end["result"]["isError"]) == ("completed", True)
        assert end["result"]["structuredContent"]["outcome"] == "lost"
        assert other.get(handle["taskId"]) == end
        eventually(lambda: not alive(int((tmp_path / "left").read_text())),
                   what="the end of what the lost task left running")


# -- update, unknown ids, capability -------------------------------------------------------------------
@pytest.mark.parametrize("responses", [{}, {"k1": {"action": "accept", "content": {}}}])
def test_an_update_is_taken_and_changes_nothing(modern, responses):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="SAY done")
    end = c.get_end(handle["taskId"])
    c.request("tasks/update", {"taskId": handle["taskId"], "inputResponses": responses})
    assert c.get(handle["taskId"]) == end


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_a_request_that_does_not_declare_the_extension_is_told_so_also_of_a_task_that_there_is(
        modern, method):
    c = modern(tasks=True)
    task_id = c.handle("codex", prompt="SAY done")["taskId"]
    error = c.request(method, {"taskId": task_id}, envelope=envelope())["error"]
    assert (error["code"], error["data"]) == (-32021, {"requiredCapabilities": {"extensions": {TASKS: {}}}})


# -- other servers -------------------------------------------------------------------------------------
@pytest.mark.parametrize("tool", BLOCKING)
def test_a_handle_resolves_on_a_second_server_after_the_first_was_killed(modern, gate, tool):
    c = modern(tasks=True)
    arguments, count = blocking(c, tool, gate.wait, "SAY survived")
    handle = c.handle(tool, **arguments)
    c.kill()
    other = modern(tasks=True)
    assert other.get(handle["taskId"])["status"] == "working"
    gate.open()
    end = other.get_end(handle["taskId"])
    assert (end["status"], end["createdAt"]) == ("completed", handle["createdAt"])
    assert text_of(end["result"]).count("survived") >= count


def test_two_servers_that_poll_one_task_see_the_same_end(modern, gate):
    servers = modern(tasks=True), modern(tasks=True)
    handle = servers[0].handle("codex", prompt=gate.wait + "\nSAY done")
    assert [c.get(handle["taskId"])["status"] for c in servers] == ["working"] * 2
    gate.open()
    first, second = (c.get_end(handle["taskId"]) for c in servers)
    assert first == second
