"""A supervisor and its server killed together: what the task left running is ended by whatever server comes
next, and the task is told of."""
import os
import shutil
import signal
import sys

import pytest

from client import alive, eventually
from conftest import git


def pid_in(path):
    return int(eventually(lambda: path.exists() and path.read_text().strip(), what="a pid in %s" % path))


def kill_both(c, codex):
    """The server first, then the supervisor, before anybody can tell what became of the task."""
    with open("/proc/%d/stat" % codex) as f:
        supervisor = int(f.read().rpartition(")")[2].split()[1])
    c.kill()
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not alive(supervisor), what="the end of the supervisor")


@pytest.fixture
def lose(client, tmp_path):
    """`lose()` starts a task that leaves something running, kills its server and its supervisor; (its id, the
    pid of what is left)."""
    def lose(**arguments):
        c, mark = client(), tmp_path / os.urandom(4).hex()
        lines = ["SHELL setsid sh -c 'echo $$ >%s.left; exec sleep 1000' >/dev/null 2>&1 & "
                 "echo $PPID >%s.codex" % (mark, mark), "WAITFILE /nonexistent/gate"]
        task = c.begin(*lines, **arguments)
        left, codex = pid_in(mark.with_suffix(".left")), pid_in(mark.with_suffix(".codex"))
        kill_both(c, codex)
        assert alive(left)
        return task, left
    return lose


def gone(pid):
    eventually(lambda: not alive(pid), what="the end of what the lost task left running")


if sys.platform == "linux":     # finds the supervisor in /proc, and what is left by its environment
    def test_what_a_lost_task_left_running_is_killed_when_a_server_starts(client, lose):
        task, left = lose()
        c = client()
        gone(left)
        assert c.status(task)["outcome"] == "lost"

    @pytest.mark.parametrize("ask",
                             [lambda c: c.ok("codex_status"), lambda c: c.ok("codex", prompt="SAY other")])
    def test_what_a_lost_task_left_running_is_killed_by_a_server_that_is_asked_for_anything_else(
            client, lose, ask):
        c = client()
        _, left = lose()
        ask(c)
        assert not alive(left)

    def test_a_lost_task_is_listed_until_somebody_was_told_of_it(client, lose):
        first, second = client(), client()
        begun = [lose()[0] for _ in range(2)]
        listed = [(t["task_id"], t["outcome"]) for t in first.ok("codex_status")["tasks"]]
        assert listed == [(begun[0], "lost"), (begun[1], "lost")]
        eventually(lambda: second.ok("codex_status")["tasks"] == [], what="the note that it was told")
        assert client().ok("codex_status")["tasks"] == []

    def test_a_lost_task_that_was_waited_for_is_not_listed_again(client, lose):
        task, _ = lose()
        assert client().collect(task)[0]["outcome"] == "lost"
        eventually(lambda: client().ok("codex_status")["tasks"] == [], what="the note that it was told")

    def test_the_thread_and_the_worktree_of_a_lost_task_go_on(client, lose, repo):
        task, _ = lose(worktree=True)
        c = client()
        assert c.ok("codex_status")["tasks"][0]["outcome"] == "lost"
        reply = c.ok("codex_reply", task_id=task, prompt="WRITE more x")
        again = c.ok("codex_reply", threadId=reply["threadId"], prompt="SAY again")
        assert reply["worktree"]["branch"] == again["worktree"]["branch"] == "codex-swarm/" + task
        assert git(repo, "show", "codex-swarm/%s:more" % task) == "x\n"

    def test_the_work_of_a_lost_task_is_merged_under_its_id_once_a_reply_has_committed_it(client, lose, repo):
        task, _ = lose(worktree=True)
        c = client()
        path = c.status(task)["worktree"]["path"]
        with open(os.path.join(path, "half"), "w") as f:
            f.write("done\n")
        assert "was not committed" in c.refused("codex_merge", {"task_ids": [task]})
        reply = c.ok("codex_reply", task_id=task, prompt="WRITE more x")
        assert c.ok("codex_diff", task_id=task)["head"] == reply["worktree"]["head"]
        merged = c.ok("codex_merge", task_ids=[task], into="merged")
        assert merged["merged"] == [task] and not any("gone on" in w for w in merged["warnings"])
        assert git(repo, "show", "merged:half") == "done\n" and git(repo, "show", "merged:more") == "x\n"

    @pytest.mark.parametrize("lost", [["live"], ["live", "threads"], []], ids=["live", "both", "emptied"])
    def test_an_index_that_was_deleted_is_made_anew(client, root, gate, lose, lost):
        c = client()
        done, gone_, runs = c.ok("codex", prompt="SAY done"), lose()[0], c.begin(gate.wait)
        c.ok("codex_status", task_ids=[done["task_id"]])
        for index in lost:
            shutil.rmtree(str(root / index))
        for name in () if lost else os.listdir(str(root / "live")):
            (root / "live" / name).unlink()
        states = {t["task_id"]: t["state"] for t in client().ok("codex_status")["tasks"]}
        assert states in [{runs: state, gone_: "ended"} for state in ("starting", "running")]
        assert c.ok("codex_reply", threadId=done["threadId"],
                    prompt="RECALL")["content"] == 'earlier: ["SAY done"]'
        gate.open()


def test_what_has_ended_leaves_the_index_and_is_never_looked_at_again(client, root):
    c = client()
    records = [c.ok("codex", prompt="SAY %d" % i) for i in range(3)]
    eventually(lambda: c.ok("codex_status")["tasks"] == [] and os.listdir(str(root / "live")) == ["whole"],
               what="the end of the supervisors")
    for record in records:
        assert (root / "threads" / record["threadId"]).read_text() == record["task_id"] + "\n"
        eventually((root / "tasks" / record["task_id"] / "collected").exists,
                   what="the note that it was told")
        shutil.rmtree(str(root / "tasks" / record["task_id"]))
    assert "There is no record of thread" in c.refused("codex_reply",
                                                       {"threadId": records[0]["threadId"], "prompt": "x"})


def test_a_task_whose_server_died_at_its_birth_leaves_nothing_in_the_index(client, root):
    c = client()
    c.ok("codex", prompt="SAY x")
    (root / "live" / ("0" * 12)).write_text("")         # its directory never got its name
    assert c.ok("codex_status")["tasks"] == [] and os.listdir(str(root / "live")) == ["whole"]
