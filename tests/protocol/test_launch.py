"""How a server starts supervisors: by a process that it forks before it has a thread, and without it too."""
import os
import signal
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms
from client import Client, alive, eventually
from conftest import command, is_supervised, task_dirs

if sys.platform != "linux":     # where each supervisor is an interpreter of its own
    pytest.skip("there is such a process on Linux only", allow_module_level=True)


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(word) for word in f.read().split()]


def forker_of(c):
    """The one child of a server that has not started anything else."""
    (pid,) = eventually(lambda: children(c.process.pid), what="the child of the server")
    eventually(lambda: not os.readlink("/proc/%d/fd/0" % pid).startswith("pipe:"),
               what="that it lets go of the client")
    return pid


def next_of(forker):
    """The supervisor-to-be that waits for its task."""
    def waits():
        found = [pid for pid in children(forker) if alive(pid) and os.getsid(pid) == forker]
        return found if len(found) == 1 else None
    (pid,) = eventually(waits, what="the next supervisor")
    return pid


def supervisor_of(task):
    """The process that works in the directory of a task."""
    def look():
        every = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in every if alive(pid) and cwd_of(pid) == str(task)]
    (pid,) = eventually(look, what="the supervisor of %s" % task)
    return pid


def cwd_of(pid):
    try:
        return os.readlink("/proc/%d/cwd" % pid)
    except OSError:
        return ""


def descriptors(pid):
    """{number: what it is} of everything that a process has open."""
    there = {}
    try:
        for fd in os.listdir("/proc/%d/fd" % pid):
            there[int(fd)] = os.readlink("/proc/%d/fd/%s" % (pid, fd))
    except OSError:                 # it, or one of these, was gone before the look
        pass
    return there


def kinds_of(pid):
    return sorted(what.partition(":")[0] for what in descriptors(pid).values())


@pytest.fixture
def working(root, gate):
    """`working(c)` starts a task that works until the gate opens; (its id, its directory)."""
    def begin(c, *lines):
        task_id = c.begin(*lines, "LINES 1", gate.wait)
        directory = root / "tasks" / task_id
        eventually(lambda: c.status(task_id)["state"] == "running", what="a running task")
        return task_id, directory
    return begin


def test_neither_a_supervisor_nor_who_forks_it_has_anything_of_the_client_or_the_server(client, working):
    c = client(env={"CODEX_SWARM_LOG": os.devnull, "CODEX_SWARM_LOG_LEVEL": "DEBUG"})
    forker, (_, directory) = forker_of(c), working(c)
    _, other = working(c)
    of_supervisor = descriptors(supervisor_of(directory))
    log = str(directory / "supervisor.log")
    assert [of_supervisor.pop(fd) for fd in range(3)] == [os.devnull, os.devnull, log]
    kinds = sorted(what.partition(":")[0] for what in of_supervisor.values())
    slot = str(directory.parent.parent / "slots" / "1")
    # the pipe is the one by which signals wake it
    assert kinds == [slot, str(directory / "control"), str(directory / "lock"), "pipe", "pipe"]
    # ... and this one says that the next supervisor has a task
    next_one = next_of(forker)
    for pid, pipes in (forker, 1), (next_one, 2):
        eventually(lambda: kinds_of(pid) == [os.devnull] * 3 + ["pipe"] * pipes + ["socket"],
                   what="no more than that in %d" % pid)
    assert len({supervisor_of(other), supervisor_of(directory), next_one}) == 3


def test_who_waits_before_there_is_a_task_becomes_its_supervisor(client, working):
    c = client()
    next_one = next_of(forker_of(c))
    assert supervisor_of(working(c)[1]) == next_one


def test_a_signal_that_came_before_the_task_does_not_stop_it(client):
    c = client()
    os.kill(next_of(forker_of(c)), signal.SIGTERM)
    assert c.ok("codex", prompt="SAY x")["outcome"] == "succeeded"


def test_a_killed_server_leaves_its_tasks_at_work_and_nothing_else(client, working, gate):
    c = client()
    forker, (task_id, directory) = forker_of(c), working(c)
    supervisor, next_one = supervisor_of(directory), next_of(forker)
    # ... and the client sees the end of its output, or this would not return
    c.kill()
    eventually(lambda: not alive(forker) and not alive(next_one), what="the end of what forked it")
    assert alive(supervisor) and is_supervised(directory)
    gate.open()
    assert client().collect(task_id)[0]["outcome"] == "succeeded"


def test_the_end_of_supervisors_leaves_no_zombie(client):
    c = client()
    forker = forker_of(c)
    assert [c.ok("codex", prompt="SAY x")["outcome"] for _ in range(3)] == ["succeeded"] * 3
    eventually(lambda: children(forker) == [next_of(forker)], what="the end of the supervisors")
    assert alive(forker) and children(c.process.pid) == [forker]


@pytest.mark.parametrize("moment", ["before a launch", "when a launch has begun"])
@pytest.mark.parametrize("which", ["it", "the next supervisor", "both"])
def test_tasks_start_also_when_what_forks_supervisors_was_killed(client, root, moment, which):
    c = client()
    forker = forker_of(c)
    next_one = next_of(forker)
    killed = {"it": [forker], "the next supervisor": [next_one], "both": [next_one, forker]}[which]
    for pid in killed:
        os.kill(pid, signal.SIGSTOP if moment == "when a launch has begun" else signal.SIGKILL)
    call = c.start_call("codex_batch", {"tasks": [{"prompt": "SAY one"}, {"prompt": "SAY two"}]})
    if moment == "when a launch has begun":
        eventually(lambda: any(map(is_supervised, task_dirs(root))),
                   what="a task that is about to be launched")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    tasks = c.good(c.tool_result(call))["tasks"]
    assert [task["outcome"] for task in tasks] == ["succeeded"] * 2
    assert [task["content"] for task in tasks] == ["one", "two"]
    assert c.ok("codex", prompt="SAY three")["content"] == "three"
    assert forker not in children(c.process.pid), "a zombie"


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import codex_mcp_swarm as cms
def next_one():
    while True:
        with open("/proc/%d/task/%d/children" % (forker.pid, forker.pid)) as f:
            for pid in f.read().split():
                return int(pid)
cms.FORK_S = 0.3
forker = cms.Forker(lambda words: 0)
stopped = next_one() if sys.argv[3] == "the next supervisor" else forker.pid
os.kill(stopped, signal.SIGSTOP)
print(forker.fork(sys.argv[2], [2]), os.waitpid(forker.pid, 0)[1])
"""


@pytest.mark.parametrize("who", ["it", "the next supervisor"])
def test_a_forker_that_somebody_stopped_is_ended_and_counts_as_none(tmp_path, who):
    words = [sys.executable, "-c", STOPPED, os.path.dirname(cms.__file__), str(tmp_path), who]
    assert subprocess.run(words, stdout=subprocess.PIPE, timeout=60).stdout.split() == [b"False", b"9"]


RUDE = """
import os, resource, signal, sys
os.umask(0o027)
os.nice(3)
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_codex_runs_under_the_limits_and_the_environment_of_its_server_but_the_signals_of_a_fresh_process(
        fake, repo, tmp_path, root, gate):
    look = "SHELL (umask; nice; ulimit -Sn; pwd; echo $MARK; grep -E 'Sig(Blk|Ign)' /proc/self/status) >%s"
    with Client([sys.executable, "-c", RUDE, *command()], env=dict(fake, MARK="seen"), cwd=str(repo)) as c:
        c.initialize()
        task_id = c.begin(look % (tmp_path / "told"), "LINES 1", gate.wait)
        eventually(lambda: (tmp_path / "told").exists() and "SigIgn" in (tmp_path / "told").read_text(),
                   what="what it sees")
        directory = root / "tasks" / task_id
        supervisor = supervisor_of(directory)
        assert os.getsid(supervisor) == supervisor
        gate.open()
        assert c.collect(task_id)[0]["outcome"] == "succeeded"
    umask, nice, files, place, mark, *signals = (tmp_path / "told").read_text().splitlines()
    assert (int(umask, 8), int(nice), files) == (0o027, min(19, os.nice(0) + 3), "300")
    assert (place, mark) == (str(repo), "seen")
    blocked, ignored = (int(line.split()[1], 16) for line in signals)
    assert (blocked, ignored & 1 << signal.SIGCHLD - 1) == (0, 0)
