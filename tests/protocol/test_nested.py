"""A server below a task: it looks, but starts nothing unless CODEX_SWARM_DEPTH allows that, and then its
tasks end with the outer one.

The fake codex runs a whole client and server of this test suite in a shell command, once with the environment
of the task and once without, as Codex starts its MCP servers.
"""
import json
import os
import pathlib
import shlex
import sys

import pytest

from client import Client, eventually, text_of
from conftest import command, git, task_dirs

INNER = """
import json, os, sys, time
sys.path.insert(0, %r)
from client import Client
with Client(json.loads(sys.argv[2])) as c:
    c.initialize()
    with open(sys.argv[1] + ".calls") as f:
        answers = [c.call(tool, arguments) for tool, arguments in json.load(f)]
    with open(sys.argv[1] + ".new", "w") as f:
        json.dump(answers, f)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(1000)
""" % str(pathlib.Path(__file__).resolve().parents[1])


@pytest.fixture
def inside(tmp_path, fake):
    """`inside(*calls, clean=..., **env)` is a line of a prompt that makes these calls from a server below the
    task; (the line, a function that waits for the answers)."""
    (tmp_path / "inner.py").write_text(INNER)

    def inside(*calls, clean=True, **env):
        path = tmp_path / os.urandom(4).hex()
        settings = " ".join("%s='%s'" % item for item in dict(fake, **env).items())
        path.with_suffix(".calls").write_text(json.dumps(calls))
        # without site, thus without the models of the packages, which the outer client has
        server = shlex.quote(json.dumps(command()))
        words = "%s %s '%s' -S '%s' '%s' %s" % ("env -i" if clean else "env", settings, sys.executable,
                                                tmp_path / "inner.py", path, server)
        read = lambda: eventually(lambda: path.exists() and json.loads(path.read_text()),
                                  what="the answers from inside")
        return "SHELL %s >/dev/null 2>'%s.err' &" % (words, path), read
    return inside


def start(*prompt, **arguments):
    return ["codex_async", dict(prompt="\n".join(prompt), **arguments)]


@pytest.mark.parametrize("clean", [True, False],
                         ids=["as Codex starts MCP servers", "with the environment of the task"])
def test_a_server_inside_of_a_task_starts_nothing_and_says_what_to_do(
        client, inside, gate, root, repo, clean):
    c = client()
    line, answers = inside(start("SAY x", cwd=str(repo)), ["codex", {"prompt": "x", "cwd": str(repo)}],
                           clean=clean)
    task = c.begin(line, gate.wait, "SAY done")
    for answer in answers():
        assert answer["isError"]
        assert [word
                for word in ("inside of task " + task, "CODEX_SWARM_DEPTH=2", "in this task itself",
                             "config.toml") if word not in text_of(answer)] == []
    gate.open()
    assert c.collect(task)[0]["content"] == "done" and len(task_dirs(root)) == 1


def test_a_server_inside_of_a_task_still_looks(client, inside, gate, repo):
    c = client()
    done = c.ok("codex", prompt="WRITE made x", worktree=True)["task_id"]
    line, answers = inside(["codex_status", {}], ["codex_wait", {"task_ids": [done]}],
                           ["codex_diff", {"task_id": done}])
    task = c.begin(line, gate.wait)
    status, waited, diff = [answer["structuredContent"] for answer in answers()]
    assert [t["task_id"] for t in status["tasks"]] == [task]
    assert waited["tasks"][0]["outcome"] == "succeeded" and diff["files_changed"] == 1
    gate.open()


@pytest.mark.parametrize("depth", ["2", "3"])
def test_depth_lets_tasks_start_tasks_and_no_deeper(client, inside, gate, repo, depth):
    c = client()
    deepest, answers_there = inside(start("SAY x", cwd=str(repo)), CODEX_SWARM_DEPTH=depth)
    line, answers = inside(start(deepest, gate.wait, cwd=str(repo)), CODEX_SWARM_DEPTH=depth)
    task = c.begin(line, gate.wait)
    (inner,) = answers()
    (refused,) = answers_there()
    assert not inner["isError"] and refused["isError"] == (depth == "2")
    if depth == "2":
        assert task in text_of(refused) and inner["structuredContent"]["task_id"] in text_of(refused)
    gate.open()
    c.collect(task)


@pytest.mark.parametrize("end", ["cancel", "normal end", "crash"])
def test_tasks_inside_of_a_task_are_stopped_and_committed_when_it_ends(
        client, inside, tmp_path, gate, repo, end):
    c = client()
    line, answers = inside(
        start("WRITE made x", "SHELL touch %s" % (tmp_path / "works"), "STUBBORN", "WAITFILE /nonexistent",
              cwd=str(repo), worktree=True), CODEX_SWARM_DEPTH="2")
    task = c.begin(line, "WAITFILE %s" % (tmp_path / "works"), gate.wait,
                   *(["CRASH 9"] if end == "crash" else []))
    inner = answers()[0]["structuredContent"]["task_id"]
    eventually((tmp_path / "works").exists, what="the work of the inner task")
    if end == "cancel":
        c.ok("codex_cancel", task_ids=[task])
    gate.open()
    record, stopped = c.collect(task)[0], c.status(inner)
    assert record["outcome"] == {"cancel": "cancelled", "crash": "failed", "normal end": "succeeded"}[end]
    # not eventually: the end of the outer one was told
    assert (stopped["state"], stopped["outcome"]) == ("ended", "cancelled")
    assert any("Task %s" % inner in warning and "stopped with it" in warning
               for warning in record["warnings"])
    assert git(repo, "show", "codex-swarm/%s:made" % inner) == "x\n"


# -- what only looks like a supervisor -------------------------------------------------------------------
FORGED = """
import fcntl, os, signal, subprocess, sys
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.makedirs(sys.argv[3], exist_ok=True)
os.chdir(sys.argv[3])
lock = os.path.join(sys.argv[3], "lock")
if os.path.exists(lock):
    # O_PATH needs no permission: the lock of the task itself
    os.open(lock, getattr(os, "O_PATH", os.O_WRONLY))
elif "own" in sys.argv[3]:
    fcntl.flock(os.open(lock, os.O_WRONLY | os.O_CREAT), fcntl.LOCK_EX)
below = subprocess.Popen(["sleep", "1000"])
with open(os.environ["PIDS"] + ".new", "w") as f:
    f.write("%d %d" % (os.getpid(), below.pid))
os.rename(os.environ["PIDS"] + ".new", os.environ["PIDS"])
signal.pause()
"""


def is_there(pid):
    try:
        os.kill(int(pid), 0)
        return True
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("directory",
                         ["{tmp}/words/tasks/0123456789ab", "{tmp}/own/tasks/0123456789ab",
                          "{root}/tasks/$CODEX_SWARM_TASK_ID"],
                         ids=["words alone", "a lock of its own", "the lock of its own task"])
def test_a_process_that_calls_itself_a_supervisor_is_killed_with_what_is_below_it(
        client, gate, root, tmp_path, directory):
    (tmp_path / "forged.py").write_text(FORGED)
    pids = tmp_path / "pids"
    directory = directory.format(tmp=tmp_path, root=root)
    c = client(env={"CODEX_SWARM_DEPTH": "2"})
    line = "SHELL PIDS='%s' '%s' '%s' 'module.supervisor_main(' 7 \"%s\" 5 6 >/dev/null 2>&1 &"
    task = c.begin(line % (pids, sys.executable, tmp_path / "forged.py", directory), gate.wait)
    found = eventually(lambda: pids.exists() and pids.read_text().split(), what="the forged supervisor")
    c.ok("codex_cancel", task_ids=[task])
    record = c.collect(task)[0]
    assert record["outcome"] == "cancelled"
    assert not any("stopped with it" in warning for warning in record.get("warnings", []))
    assert not any(map(is_there, found))


def test_a_server_below_a_process_that_calls_itself_a_supervisor_starts_tasks(fake, repo, tmp_path):
    directory = tmp_path / "tasks" / "0123456789ab"
    directory.mkdir(parents=True)
    below = ("import json, os, subprocess; subprocess.call(json.loads(os.environ['BELOW']), "
             "cwd=os.environ['REPO'])")
    argv = [sys.executable, "-c", below, "module.supervisor_main(", "7", str(directory), "5", "6"]
    with Client(argv, env=dict(fake, BELOW=json.dumps(command()), REPO=str(repo)), cwd=str(directory)) as c:
        c.initialize()
        assert c.ok("codex", prompt="SAY started")["content"] == "started"
