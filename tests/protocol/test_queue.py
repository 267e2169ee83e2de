"""A limit on what runs at once, and its queue, as clients of several servers see them."""
import contextlib
import os
import random
import signal
import sys

import pytest

from client import alive, eventually
from conftest import running


def test_a_queued_task_says_its_place_and_is_cancelled_at_once(client, gate):
    c = client("--max-parallel", "1")
    c.begin(gate.wait)
    running(c, 1)
    second, third = c.begin("SAY 2"), c.begin("SAY 3")
    waiting = c.start_call("codex", {"prompt": "SAY 4"}, "t")
    told = eventually(lambda: c.progress("t"), what="progress")[0]["message"]
    assert told == "0 of 1 done; `SAY 4` queued (3rd of 3 in line)"
    record = c.status(third)
    assert (record["state"], record["progress"]["detail"]) == ("queued", "2nd of 3, at most 1 run at once")
    (cancelled,) = c.ok("codex_cancel", task_ids=[second])["tasks"]
    assert (cancelled["state"], cancelled["outcome"]) == ("ended", "cancelled")
    assert c.status(third)["progress"]["detail"].startswith("1st of 2")
    gate.open()
    assert c.good(c.tool_result(waiting))["content"] == "4"
    assert [t["content"] for t in c.ok("codex_wait", task_ids=[third])["tasks"]] == ["3"]


def test_a_queued_task_is_a_working_mcp_task(client, modern, gate):
    client("--max-parallel", "1").begin(gate.wait)
    c = modern("--max-parallel", "1", tasks=True)
    handle = c.handle("codex", prompt="SAY done")["taskId"]
    assert c.get(handle)["status"] == "working"
    gate.open()
    assert c.get_end(handle)["status"] == "completed"


def test_a_follower_gets_the_result_though_its_server_is_killed_before_that_is_there(client, gate, root):
    c = client()
    tasks = [{"prompt": gate.wait + "\nSAY the plan"}, {"prompt": "SAY by {{result:0}}"}]
    ids = c.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    eventually(lambda: c.status(ids[0])["state"] == "running", what="the start of the first one")
    c.process.kill()
    c.process.wait()
    gate.open()                                         # nobody asks: the supervisor of the first goes on
    eventually((root / "tasks" / ids[1] / "report.json").exists, what="the end of the follower")
    assert client().status(ids[1])["content"] == "by the plan"


def test_a_follower_gets_its_worktree_though_every_server_is_killed_before_it_can_be_made(
        client, gate, root, repo):
    c = client()
    tasks = [{"prompt": gate.wait + "\nWRITE new one", "worktree": True},
             {"prompt": "SHELL cat new", "worktree": {"base": "task:0"}}]
    ids = c.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    eventually(lambda: c.status(ids[0])["state"] == "running", what="the start of the first one")
    c.process.kill()
    c.process.wait()
    gate.open()
    eventually((root / "tasks" / ids[1] / "report.json").exists, what="the end of the follower")
    c = client()
    first, second = c.ok("codex_wait", task_ids=ids)["tasks"]
    assert second["outcome"] == "succeeded" and second["worktree"]["base"] == first["worktree"]["head"]
    assert c.ok("codex_merge", task_ids=ids)["merged"] == ids


def codexes(repo):
    """The pids of the codex processes that work in this repository, as anybody sees them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
            ours = any(word.endswith(b"/fake_codex") for word in words) and b"exec" in words
            if ours and os.readlink("/proc/%s/cwd" % pid) == str(repo) and alive(int(pid)):
                found.append(int(pid))
    return found


def parent(pid):
    with contextlib.suppress(OSError), open("/proc/%d/stat" % pid) as f:
        return int(f.read().rpartition(")")[2].split()[1])
    return 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_three_servers_with_twenty_tasks_each_never_run_more_than_four_whoever_is_killed(client, repo, root):
    """Dear, since the promise is about many: sixty tasks, and every kind of process is killed."""
    servers = [client("--max-parallel", "4") for _ in range(3)]
    ids = []
    for c in servers:
        tasks = [{"prompt": "SLEEP 0.1\nSAY %d" % i} for i in range(20)]
        ids += c.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    chance, most, killed = random.Random(11), 0, 0
    left = lambda: len(list((root / "queue").iterdir()))

    def disturbed():
        nonlocal most, killed
        now = codexes(repo)
        most = max(most, len(now))
        supervisor = parent(chance.choice(now)) if now and chance.random() < 0.2 else 0
        if supervisor > 1 and killed < 6:
            os.kill(supervisor, signal.SIGKILL)
            killed += 1
        if chance.random() < 0.2:
            servers[-1].ok("codex_status", task_ids=ids[:1])
        return left() < 30
    eventually(disturbed, what="half of the queue")
    for c in servers:
        c.process.kill()
    eventually(lambda: left() < 15, what="the queue moves without a server")
    c = client("--max-parallel", "4")
    waiting = c.start_call("codex_wait", {"task_ids": ids})
    while not c.responses_to(waiting) and most <= 4:
        most = max(most, len(codexes(repo)))
    tasks = c.good(c.tool_result(waiting))["tasks"]
    outcomes = [task["outcome"] for task in tasks]
    assert most <= 4 and len(tasks) == 60
    assert outcomes.count("lost") <= killed and outcomes.count("succeeded") == 60 - outcomes.count("lost")
    eventually(lambda: not codexes(repo), what="the end of every codex")
