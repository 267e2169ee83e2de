"""Requests run beside each other: a call that waits delays nothing."""
import os
import re

import pytest

from client import Client, eventually, is_response, text_of
from conftest import command, none_runs


def test_a_blocked_wait_delays_neither_ping_nor_status_nor_cancel(client, gate):
    c = client()
    task = c.begin(gate.wait)
    waiting = c.start_call("codex_wait", {"task_ids": [task]})
    c.ping()
    assert c.request("tools/list")["result"]["tools"]
    assert c.status(task)["state"] in ("starting", "running")
    assert c.responses_to(waiting) == []
    assert c.ok("codex_cancel", task_ids=[task])["tasks"][0]["outcome"] == "cancelled"
    assert c.good(c.tool_result(waiting))["tasks"][0]["outcome"] == "cancelled"


def test_blocking_runs_go_on_beside_each_other(client, tmp_path):
    """Each run waits for the file that the other one writes: one after the other they would never end."""
    c = client()
    here, there = tmp_path / "here", tmp_path / "there"
    first = c.start_call("codex", {"prompt": "SHELL touch %s\nWAITFILE %s\nSAY one" % (here, there)})
    second = c.start_call("codex", {"prompt": "SHELL touch %s\nWAITFILE %s\nSAY two" % (there, here)})
    assert c.good(c.tool_result(first))["content"] == "one"
    assert c.good(c.tool_result(second))["content"] == "two"


def test_the_tasks_of_a_batch_run_beside_each_other(client, tmp_path):
    marks = [tmp_path / ("mark%d" % i) for i in range(3)]
    waits = "\n".join("WAITFILE %s" % m for m in marks)
    batch = client().ok("codex_batch",
                        tasks=[{"prompt": "SHELL touch %s\n%s\nSAY %d" % (m, waits, i)}
                               for i, m in enumerate(marks)])
    assert [t["content"] for t in batch["tasks"]] == ["0", "1", "2"]


def test_fifty_waits_at_once_all_get_the_result(client, gate):
    c = client()
    task = c.begin(gate.wait, "SAY for all")
    waits = [c.start_call("codex_wait", {"task_ids": [task]}) for _ in range(50)]
    c.ping()
    assert not any(c.responses_to(w) for w in waits)
    gate.open()
    for wait in waits:
        assert c.good(c.tool_result(wait))["tasks"][0]["content"] == "for all"


def test_past_the_bound_of_calls_there_is_a_clear_refusal_and_nothing_else_suffers(client, gate):
    c = client()
    task = c.begin(gate.wait, "SAY for all")
    waits = [c.start_call("codex_wait", {"task_ids": [task]}) for _ in range(400)]
    early = c.wait_for(lambda m: is_response(m) and m["id"] in waits, what="a refusal")
    assert early["result"]["isError"] and "under way" in text_of(early["result"])
    c.ping()
    gate.open()
    ends = [c.tool_result(w) for w in waits]
    assert sum(not r["isError"] for r in ends) >= 50
    assert all(r["isError"] or r["structuredContent"]["tasks"][0]["content"] == "for all" for r in ends)


def test_two_waits_of_different_modes_end_at_different_times(client, gate):
    c = client()
    quick, slow = c.begin("SAY quick"), c.begin(gate.wait)
    any_ = c.start_call("codex_wait", {"task_ids": [quick, slow], "mode": "any"})
    all_ = c.start_call("codex_wait", {"task_ids": [quick, slow]})
    assert c.good(c.tool_result(any_))["still_running"] == [slow]
    c.ping()
    assert c.responses_to(all_) == []
    gate.open()
    assert c.good(c.tool_result(all_))["still_running"] == []


def test_many_requests_at_once_are_each_answered_once(client):
    c = client()
    ids = [c.start("ping") for _ in range(200)] + [c.start_call("codex_status") for _ in range(50)]
    for id in ids:
        assert "result" in c.result(id)
    assert len([m for m in c.log if is_response(m) and m["id"] in ids]) == len(ids)


def test_waiting_calls_can_be_so_many_that_no_more_are_taken_but_never_keep_a_status_or_a_cancel_out(
        client, gate):
    c = client()
    task = c.begin(gate.wait)
    waiting = [c.start_call("codex_wait", {"task_ids": [task]}) for _ in range(257)]
    assert "Too many calls" in text_of(c.tool_result(waiting.pop()))
    assert c.status(task)["state"] in ("starting", "running")
    assert c.request("resources/read", {"uri": "codex-swarm:///tasks/" + task})["result"]["contents"]
    c.ok("codex_cancel", task_ids=[task])
    assert {c.good(c.tool_result(call))["tasks"][0]["outcome"] for call in waiting} == {"cancelled"}


def test_where_descriptors_run_out_every_call_is_answered_and_no_task_is_lost(fake, repo, client):
    few = ["bash", "-c", 'ulimit -n 24; exec "$@"', "bash", *command()]
    with Client(few, env=fake, cwd=str(repo)) as c:
        c.initialize()
        calls = [c.start_call("codex", {"prompt": "SAY %d" % i}) for i in range(12)]
        assert all(c.result(call) for call in calls)
    other = client()
    eventually(lambda: none_runs(other), what="the end of all tasks")
    listed = other.ok("codex_status", all=True)["tasks"]
    assert {task["outcome"] for task in listed} <= {"succeeded", "failed", "cancelled"}
    assert other.ok("codex", prompt="SAY done")["content"] == "done"


def test_a_client_that_goes_in_the_middle_of_a_batch_leaves_no_half_task_in_sight(client, root, repo):
    c = client()
    c.start_call("codex_batch", {"tasks": [{"prompt": "SAY %d" % i, "worktree": True} for i in range(8)]})
    trees = lambda: [path.name for path in (root / "worktrees").glob("[0-9a-f]*")]
    eventually(trees, what="the first worktree")
    assert c.close() == 0
    shown = [name for name in os.listdir(str(root / "tasks")) if not name.startswith(".")]
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in shown) and set(shown) <= set(trees())
    assert all((root / "tasks" / name / "spec.json").exists() for name in shown)


@pytest.mark.parametrize("servers", [1, 2])
def test_of_two_replies_to_one_thread_at_the_same_instant_exactly_one_starts(client, tmp_path, servers):
    clients = ([client() for _ in range(servers)] * 2)[:2]
    thread = clients[0].ok("codex", prompt="SAY begun")["threadId"]
    for turn in range(15):
        gate = tmp_path / ("gate%d" % turn)
        names = [{"threadId": thread},
                 {"threadId": thread.upper()}] if turn % 2 else [{"threadId": thread}] * 2
        calls = [(c, c.start_call("codex_async", dict(name, prompt="WAITFILE %s" % gate)))
                 for c, name in zip(clients, names)]
        good, bad = sorted((c.tool_result(call) for c, call in calls), key=lambda result: result["isError"])
        assert (good["isError"], bad["isError"]) == (False, True)
        task = good["structuredContent"]["task_id"]
        assert "is busy" in text_of(bad) and task in text_of(bad)
        gate.write_text("")
        assert clients[turn % 2].collect(task)[0]["threadId"] == thread
