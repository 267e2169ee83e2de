"""Idle tasks: what gives no sign of life is ended, what is only silent is not."""
import os
import subprocess
import sys
import types

import pytest

import codex_mcp_swarm as cms
from client import eventually

from .helpers import begin, ended, run

NAP_S = 1000


class Clock:
    """A host whose time, and what is done below codex, the test says."""

    def __init__(self):
        self.at, self.done, self.looks = 0.0, (0.0, 0), 0

    def monotonic(self):
        return self.at

    def descendants(self, pid):
        return set()

    def done_by(self, pids):
        self.looks += 1
        return self.done


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def idle(clock, tmp_path):
    """With a limit of 100 s, of a task that has told something at 0 s."""
    (tmp_path / "events.jsonl").write_text("{}\n")
    made = cms.Idle(clock, types.SimpleNamespace(file=lambda name: str(tmp_path / name)), 100)
    assert made.seconds(1, 1) == 0
    return made


def seconds(idle, clock, until):
    """How long the task is idle at `until`, when somebody asks every second."""
    while clock.at < until:
        clock.at += 1
        found = idle.seconds(1, 1)
    return found


def test_silence_counts_from_the_last_sign_and_processes_are_looked_at_rarely(idle, clock):
    assert seconds(idle, clock, 100) == 100
    assert clock.looks == 4


@pytest.mark.parametrize("name", ["events.jsonl", "stderr.log", "setup.log"])
def test_whatever_is_written_is_a_sign(idle, clock, tmp_path, name):
    seconds(idle, clock, 90)
    with open(tmp_path / name, "a") as f:
        f.write("x\n")
    assert seconds(idle, clock, 95) == 4


@pytest.mark.parametrize("cpu_s, written, alive", [
    (20.0, 0, True), (0.3, 0, True), (0.2, 0, False), (0.0, 1, True), (0.0, 0, False)])
def test_a_silent_command_lives_by_its_cpu_or_by_what_it_writes(idle, clock, cpu_s, written, alive):
    """In each quarter of the limit: one that only waits takes less than 1 % of a CPU."""
    for quarter in range(1, 13):
        clock.done = (cpu_s * quarter, written * quarter)
        found = seconds(idle, clock, 25 * quarter)
    assert (found <= 25) == alive


def test_what_the_processes_of_a_command_do_is_counted_also_of_those_that_have_ended(tmp_path):
    work = "import time\nwhile time.process_time() < 0.2: pass\nopen(%r, 'w').write('x' * 5000)"
    work %= str(tmp_path / "written")
    outer = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    words = ["/bin/sh", "-c", '"$@"; exec sleep %d' % NAP_S, "sh", sys.executable, "-c", outer, work]
    shell, host = subprocess.Popen(["/bin/sh", "-c", '"$@"; :', "sh", *words]), cms.Host()
    try:
        def is_counted():
            cpu_s, written = host.done_by(host.descendants(shell.pid))
            return cpu_s >= 0.2 and (written >= 5000 or not cms.LINUX)
        eventually(is_counted, what="the work below the shell")
    finally:
        host.kill([shell.pid, *host.descendants(shell.pid)])
        shell.wait()


def test_where_there_is_no_proc_ps_tells_of_cpu(tmp_path, monkeypatch):
    ps = tmp_path / "ps"
    ps.write_text('#!/bin/sh\ncase "$*" in *8) echo 1:02:03.50;; esac\n')
    ps.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert cms.Host(linux=False).done_by({8}) == (3723.5, 0)


# -- whole tasks --------------------------------------------------------------------------------------
def test_an_idle_task_shows_it_before_it_is_ended_with_what_hung_and_what_to_do(swarm):
    app = swarm()
    task = begin(app, "SHELL sleep %d" % NAP_S, idle_timeout_s=3)
    shown = lambda: app.record(task.task_id).get("progress", {}).get("idle")
    assert eventually(shown, what="the idle task in the status").endswith("of 3 s")
    (record,) = ended(app, [task.task_id])
    why = record["failure"]
    assert (record["outcome"], why["kind"]) == ("timed_out", "timed_out")
    assert "It was idle for 3 s (`idle_timeout_s`) while running a command (`sleep" in why["message"]
    assert "say what hung" in why["advice"]


def test_a_command_that_writes_is_not_idle_though_codex_says_nothing(swarm):
    loop = "for i in 1 2 3 4 5 6 7 8 9; do echo x > /dev/null; sleep 0.5; done"
    assert run(swarm(), "SHELL " + loop, idle_timeout_s=3)["outcome"] == "succeeded"


def test_a_setup_command_that_works_is_not_idle_though_it_is_all_that_runs(swarm, repo):
    busy = "import time\nwhile time.process_time() < 1.2: pass"
    app = swarm(worktree_setup="exec %s -c '%s'" % (sys.executable, busy))
    assert run(app, "SAY x", idle_timeout_s=1, worktree=True, cwd=str(repo))["outcome"] == "succeeded"


def test_by_a_launcher_only_events_and_output_count(swarm):
    """What works beside codex is no sign: where codex itself runs nobody can tell."""
    beside = '(while kill -0 $$; do echo x; sleep 0.2; done) >/dev/null 2>&1 & "$@"'
    app = swarm(launcher=("/bin/sh", "-c", beside, "sh"))
    assert run(app, "SHELL sleep %d" % NAP_S, idle_timeout_s=2)["outcome"] == "timed_out"


def test_a_task_whose_time_is_up_is_not_told_to_be_idle(swarm):
    record = run(swarm(), "SHELL sleep %d" % NAP_S, idle_timeout_s=4, timeout_s=3.8)
    assert "`timeout_s`" in record["failure"]["message"]
    assert "idle_timeout_s" not in record["failure"].get("advice", "")


def test_the_server_has_a_default_and_a_reply_keeps_what_its_thread_had(swarm):
    app = swarm(idle_timeout_s=60.0)
    first = run(app, "SAY x", idle_timeout_s=50)
    asked = lambda **more: app.plan({"prompt": "x", **more}).spec.arguments["idle_timeout_s"]
    assert (asked(), asked(threadId=first["threadId"])) == (60, 50)
    assert "idle_timeout_s" not in swarm().plan({"prompt": "x"}).spec.arguments
