"""Real supervisors: whatever happens to codex, to the server or to themselves, the task ends, truthfully and
with nothing left running."""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import codex_mcp_swarm as cms
from client import alive, eventually
from codex_mcp_swarm import Spec, TaskDir

from conftest import git

from .helpers import WAIT_S, begin, ended, parent_of, pid_of, processes, run


def working(task):
    """Wait until the prompt of a fake run is being carried out: it has said something. Its first line is
    `LINES 1`."""
    path = pathlib.Path(task.file("events.jsonl"))
    eventually(lambda: path.exists() and b"reasoning" in path.read_bytes(), what="the first item of the run")
    return pid_of(task)


def pid_in(path):
    """The pid that a process writes into a file."""
    return int(eventually(lambda: path.exists() and path.read_text().strip(), what="a pid in %s" % path))


def gone(*pids):
    eventually(lambda: not any(map(alive, pids)), what="the end of %s" % (pids,))


def cancelled(app, task):
    app.stop([task.task_id])
    return ended(app, [task.task_id])[0]


def codex_script(tmp_path, body):
    """A codex of our own; `body` is Python that runs after the prompt was read."""
    path = tmp_path / "codex"
    path.write_text(
        "#!%s\nimport json, os, subprocess, sys, time\nprompt = sys.stdin.buffer.read().decode('utf-8')\n"
                    "def event(**members):\n    print(json.dumps(members), flush=True)\n%s"
        % (sys.executable, body))
    os.chmod(str(path), 0o755)
    return str(path)


# -- ends that codex makes itself ---------------------------------------------------------------------
ENDS = [
    # what codex does -> outcome, kind, exit code
    (["SAY done"], "succeeded", None, 0), (["PLAY success"], "succeeded", None, 0),
    (["RECONNECT 3"], "succeeded", None, 0),
    (["FAIL unexpected status 401 Unauthorized: x, url: y"], "failed", "auth", 1),
    (["PLAY x_badflag"], "failed", "config", 2),
    (["EXIT 7"], "failed", "unknown", 7), (["EXIT 101"], "failed", "codex_crash", 101),
    (["CRASH 11"], "failed", "codex_crash", -11), (["CRASH 6"], "failed", "codex_crash", -6),
    (["CRASH 9"], "failed", "killed", -9), (["CRASH 15"], "failed", "killed", -15),
    (["PLAY sigterm"], "failed", "killed", -15),
    (["SILENT"], "failed", "disagreement", 0), (["BOTH"], "failed", "disagreement", 3),
]


@pytest.mark.parametrize("prompt, outcome, kind, code", ENDS, ids=lambda v: str(v)[:24])
def test_the_end_of_codex_is_told_as_it_was(swarm, prompt, outcome, kind, code):
    record = run(swarm(), *prompt)
    assert (record["outcome"], record.get("failure", {}).get("kind"),
            record["exit_code"]) == (outcome, kind, code)


@pytest.mark.parametrize("prompt, facts",
                         [("SILENT", ["exit status 0", "turn.started"]),
                          ("BOTH", ["exit status 3", "turn.completed"])])
def test_a_disagreement_shows_both_facts(swarm, prompt, facts):
    message = run(swarm(), prompt)["failure"]["message"]
    assert [fact for fact in facts if fact not in message] == []


def test_a_codex_that_vanished_before_the_start_is_codex_missing(swarm, tmp_path):
    app = swarm(codex_bin=codex_script(tmp_path, ""))
    app.store.prepare()
    plan = app.plan({"prompt": "x"})
    os.unlink(plan.spec.codex)
    directory = TaskDir.create(app.store.tasks, plan.spec, "x").appear()
    launch(app, directory, cms.take(directory.file("lock")))
    (record,) = ended(app, [directory.task_id])
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", "codex_missing")
    assert "exit_code" not in record


def test_a_codex_that_cannot_be_executed_fails_with_a_kind(swarm, tmp_path):
    (tmp_path / "codex").write_bytes(b"\x7fELF nonsense")
    os.chmod(str(tmp_path / "codex"), 0o755)
    assert run(swarm(codex_bin=str(tmp_path / "codex")), "x")["failure"]["kind"] == "codex_missing"


STREAMS = {"is never read": "exit 7", "is closed while it is long": "exec <&-; exit 7",
           "and output are closed long before the end": "exec <&- >&- 2>&-; sleep 0.3; exit 7",
           "and output stay open in an orphan": "setsid sleep 600 & exit 7"}


@pytest.mark.parametrize("what", STREAMS)
def test_a_task_ends_with_codex_also_when_its_input(swarm, tmp_path, what):
    path = tmp_path / "codex"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo codex-cli 0.169.0 && exit\n%s\n' % STREAMS[what])
    path.chmod(0o755)
    record = run(swarm(codex_bin=str(path)), "x" * 1_000_000)
    assert (record["outcome"], record["exit_code"]) == ("failed", 7)


def test_warnings_of_the_server_and_of_codex_are_all_in_the_record(swarm):
    record = run(swarm(), "PLAY success", approval_policy="on-request", profile="nowhere")
    assert record["outcome"] == "succeeded"
    assert [sum(words in w for w in record["warnings"])
            for words in ("approval-policy", "nowhere", "Model metadata")] == [1, 1, 1]


def test_a_reply_in_another_thread_than_asked_for_is_not_taken_for_it(swarm, tmp_path):
    codex = codex_script(tmp_path,
                         "event(type='thread.started', thread_id='01a1fae2-9a16-7c70-9702-000000000002')\n"
                         "event(type='turn.completed')")
    record = run(swarm(codex_bin=codex), "x", threadId="01a1fae2-9a16-7c70-9702-000000000001", cwd=".")
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", "resume")


# -- what codex gets ----------------------------------------------------------------------------------
def test_codex_has_the_umask_of_the_server_no_descriptor_of_ours_and_a_session_of_its_own(
        swarm, tmp_path, gate):
    app, before = swarm(), os.umask(0o027)
    try:
        task = begin(app, "SHELL (umask; ls /dev/fd/; echo $CODEX_SWARM_TASK_ID) >%s" % (tmp_path / "seen"),
                     "LINES 1", gate.wait)
        pid = working(task)
    finally:
        os.umask(before)
    assert os.getsid(pid) == os.getpgid(pid) == pid
    gate.open()
    ended(app, [task.task_id])
    umask, *descriptors, mark = (tmp_path / "seen").read_text().split()
    assert int(umask, 8) == 0o027 and mark == task.task_id
    assert descriptors == ["0", "1", "2", "3"]              # 3 is the directory that `ls` reads


@pytest.mark.parametrize("prompt",
                         ["x", "-", "--help", "resume", "\ufeff two\r\nlines \u2028\x85 \U0001f41d\0\n\n",
                          "y" * 300_000], ids=lambda p: repr(p[:8]))
def test_the_prompt_reaches_codex_byte_for_byte_and_is_in_no_argument(swarm, tmp_path, prompt):
    codex = codex_script(tmp_path, """event(type="thread.started", thread_id="t")
with open(sys.argv[0] + ".prompt", "w", newline="", encoding="utf-8") as f:
    f.write(prompt)
event(type="item.completed", item={"type": "agent_message", "text": " ".join(sys.argv[1:])})
event(type="turn.completed")
""")
    record = run(swarm(codex_bin=codex), prompt)
    assert (tmp_path / "codex.prompt").read_bytes() == prompt.encode("utf-8")
    assert (record["outcome"], record["content"]) == ("succeeded", "exec --json -")


@pytest.mark.parametrize("version", [sys.version, "another one"])
def test_a_task_runs_without_a_forker_though_python_was_updated_beneath_the_server(
        swarm, monkeypatch, version):
    monkeypatch.setattr(sys, "version", version)
    app = swarm()
    app.host.forker = None
    assert run(app, "SAY done")["content"] == "done"


# -- stopping -----------------------------------------------------------------------------------------
def born(app, prompt="x"):
    """A task whose turn has come, and that nobody supervises yet; its directory, and the descriptor of its
    lock."""
    app.store.prepare()
    spec = Spec(app.host.new_task_id(), app.host.now(), app.config.codex_bin, os.getcwd())
    directory = TaskDir.create(app.store.tasks, spec, prompt).appear()
    return directory, cms.take(directory.file("lock"))


def launch(app, directory, lock):
    app.host.launch_supervisor(app.store.root, directory.path, (lock,))
    os.close(lock)


def test_a_task_that_is_stopped_before_codex_starts_never_starts_it(swarm):
    app = swarm()
    directory, lock = born(app)
    directory.stop()
    launch(app, directory, lock)
    (record,) = ended(app, [directory.task_id])
    assert (record["outcome"], record["failure"]["kind"],
            "exit_code" in record) == ("cancelled", "cancelled", False)
    assert not os.path.exists(directory.file("events.jsonl"))


def ring(fd):
    """Ring at a supervisor's door until nothing more fits, or it has gone."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        while True:
            os.write(fd, b"c" * 4096)


def door_of(task):
    working(task)
    return os.open(task.file("control"), os.O_WRONLY | os.O_NONBLOCK)


def test_a_bell_without_an_order_stops_nothing(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    door = door_of(task)
    ring(door)
    os.close(door)
    gate.open()
    assert ended(app, [task.task_id])[0]["outcome"] == "succeeded"


def test_an_order_arrives_though_the_bell_is_never_silent(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    door, over, rung = door_of(task), threading.Event(), threading.Event()
    ringing = threading.Thread(target=lambda: [(ring(door), rung.set()) for _ in iter(over.is_set, True)],
                               daemon=True)
    ringing.start()
    try:
        assert rung.wait(WAIT_S) and cancelled(app, task)["outcome"] == "cancelled"
    finally:
        over.set()
        ringing.join(WAIT_S)
        os.close(door)


def test_an_order_arrives_though_others_swallow_the_bell(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    working(task)
    os.rename(task.file("control"), task.file("gone"))          # nobody hears it
    assert cancelled(app, task)["outcome"] == "cancelled"


def test_codex_may_end_by_itself_when_it_is_cancelled(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    pid = working(task)
    record = cancelled(app, task)
    assert (record["outcome"], record["exit_code"],
            record["failure"]["kind"]) == ("cancelled", 1, "cancelled")
    gone(pid)


def test_a_codex_that_ignores_every_signal_is_killed_and_the_task_is_cancelled(swarm, gate):
    app = swarm()
    task = begin(app, "STUBBORN", "LINES 1", gate.wait)
    pid = working(task)
    app.stop([task.task_id])
    assert eventually(lambda: app.record(task.task_id)["state"] == "stopping")
    record = ended(app, [task.task_id])[0]
    assert (record["outcome"], record["exit_code"]) == ("cancelled", -signal.SIGKILL)
    gone(pid)


def test_a_stopped_codex_is_cancelled(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    pid = working(task)
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: any(p == pid and "T" in state for p, _, state in processes()),
               what="codex to be stopped")
    record = cancelled(app, task)
    assert (record["outcome"], record["exit_code"]) == ("cancelled", 1)         # it woke and ended by itself
    gone(pid)


def test_time_out_is_an_outcome_of_its_own_and_the_first_reason_stays(swarm, gate):
    app = swarm()
    task = begin(app, "STUBBORN", gate.wait, timeout_s=1)
    eventually(lambda: task.status().state is cms.State.STOPPING, what="the time to run out")
    record = cancelled(app, task)
    assert record["outcome"] == record["failure"]["kind"] == "timed_out" and 1 <= record["elapsed_s"] < WAIT_S


def test_codex_does_not_run_on_where_the_directory_that_it_could_be_stopped_by_was_deleted(swarm, root):
    pid = pid_of(begin(swarm(), "SLEEP 600"))
    eventually(lambda: not shutil.rmtree(str(root), ignore_errors=True) and not alive(pid),
               what="the end of codex")


def test_a_cancel_of_a_task_that_has_ended_changes_nothing(swarm):
    app = swarm()
    record = run(app, "SAY done")
    app.stop([record["task_id"]])
    assert ended(app, [record["task_id"]]) == [record]


@pytest.mark.parametrize("end", ["cancel", "normal end", "timeout", "crash"])
def test_nothing_that_a_task_started_survives_it(swarm, tmp_path, gate, end):
    orphan, job = tmp_path / "orphan", tmp_path / "job"
    lines = ["ORPHAN %s" % orphan,
             "SHELL setsid sh -c 'echo $$ >%s; exec sleep 1000' >/dev/null 2>&1 & while ! test -s %s; "
             "do sleep 0.01; done" % (job, job)]
    last = {"cancel": gate.wait, "normal end": "SAY done", "timeout": gate.wait, "crash": "CRASH 9"}[end]
    app = swarm()
    task = begin(app, *lines, "LINES 1", last, **({"timeout_s": 4} if end == "timeout" else {}))
    pids = [pid_in(orphan), pid_in(job)]
    if end == "cancel":
        working(task)
        app.stop([task.task_id])
    (record,) = ended(app, [task.task_id])
    assert record["outcome"] == {"cancel": "cancelled", "normal end": "succeeded", "timeout": "timed_out",
                                 "crash": "failed"}[end]
    assert not any(map(alive, pids))                # not eventually: the end was told


def test_nothing_that_a_task_left_running_works_on_while_its_work_is_committed(swarm, repo, tmp_path):
    left, seen = tmp_path / "left", tmp_path / "seen"
    git(repo, "config", "filter.look.clean", "kill -0 $(cat %s) && touch %s; cat" % (left, seen))
    (repo / ".git" / "info" / "attributes").write_text("*.x filter=look\n")
    leave = ("SHELL setsid sh -c 'echo $$ >%s; exec sleep 1000' >/dev/null 2>&1 & while ! test -s %s; "
             "do sleep 0.01; done")
    assert run(swarm(), leave % (left, left), "WRITE f.x 1", worktree=True)["worktree"]["files_changed"] == 1
    assert not seen.exists() and not alive(pid_in(left))


def test_nothing_that_a_filter_of_gits_left_running_survives_the_task(swarm, repo, tmp_path):
    left = tmp_path / "left"
    sleeper = "setsid sh -c 'echo $$ >%s; exec sleep 1000' >/dev/null 2>&1" % left
    clean = "(%s &); while ! test -s %s; do sleep 0.01; done; cat" % (sleeper, left)
    git(repo, "config", "filter.leave.clean", clean)
    (repo / ".git" / "info" / "attributes").write_text("*.x filter=leave\n")
    assert run(swarm(), "WRITE f.x 1", worktree=True)["worktree"]["files_changed"] == 1
    assert not alive(pid_in(left))


@pytest.mark.parametrize("what, limit_s", [("cancelled", None), ("time limit", 1.5)])
def test_what_ends_a_task_is_heard_while_git_hangs_at_its_end_and_the_result_stays(
        swarm, repo, tmp_path, what, limit_s):
    hangs = tmp_path / "hangs"
    git(repo, "config", "filter.hang.clean", "echo $$ >%s; exec sleep 1000" % hangs)
    (repo / ".git" / "info" / "attributes").write_text("*.x filter=hang\n")
    app = swarm()
    task = begin(app, "WRITE f.x 1", "SAY done", worktree=True, **({"timeout_s": limit_s} if limit_s else {}))
    filtering, since = pid_in(hangs), time.monotonic()
    (record,) = [cancelled(app, task)] if limit_s is None else ended(app, [task.task_id])
    assert time.monotonic() - since < 20            # of 60
    assert (record["outcome"], record["content"]) == ("succeeded", "done") and not alive(filtering)
    assert "not committed" in record["warnings"][0] and record["worktree"]["unsaved"]
    assert what in record["warnings"][0]


def test_a_task_that_is_stopped_has_its_work_committed_however_late_it_is(swarm, repo):
    git(repo, "config", "filter.slow.clean", "sleep %s; cat" % (cms.LOOK_S + 1))
    (repo / ".git" / "info" / "attributes").write_text("*.x filter=slow\n")
    record = run(swarm(), "WRITE f.x 1", "SLEEP 1000", worktree=True, timeout_s=2)
    assert (record["outcome"], record["worktree"]["files_changed"]) == ("timed_out", 1)


MANY_WARNINGS = """
branch = "codex-swarm/" + os.environ["CODEX_SWARM_TASK_ID"]
for words in ("checkout -q --detach", "branch -q -D " + branch, "branch -q %s/x" % branch):
    subprocess.run(["git", *words.split()])
open("work", "w").close()
for n in range(20):
    event(type="item.completed", item={"id": str(n), "type": "error", "message": "warning %d" % n})
event(type="turn.completed")
"""


def test_that_the_work_was_not_committed_is_told_before_all_other_warnings(swarm, tmp_path):
    record = run(swarm(codex_bin=codex_script(tmp_path, MANY_WARNINGS)), "x", worktree=True)
    assert len(record["warnings"]) == cms.WARNINGS_KEPT and "not committed" in record["warnings"][0]


# -- supervisors that are killed ----------------------------------------------------------------------
PARTIAL = """
event(type="thread.started", thread_id="01a1fae2-9a16-7c70-9702-579ef587dc24")
event(type="turn.started")
event(type="item.completed", item={"id": "item_0", "type": "agent_message", "text": "half of it"})
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
with open(sys.argv[0] + ".pid", "w") as f:
    f.write("%d " % child.pid)
time.sleep(1000)
"""


def test_a_killed_supervisor_is_told_at_once_and_what_codex_wrote_is_kept(swarm, tmp_path):
    app = swarm(codex_bin=codex_script(tmp_path, PARTIAL))
    task = begin(app, "x")
    pids, told = [pid_of(task), pid_in(tmp_path / "codex.pid")], []
    waiter = threading.Thread(
        target=lambda: told.append((app.wait([task.task_id], WAIT_S, cms.Call()), time.monotonic())))
    waiter.start()
    killed_at = time.monotonic()
    os.kill(parent_of(pids[0]), signal.SIGKILL)
    waiter.join(WAIT_S)
    assert told and told[0][1] - killed_at < WAIT_S / 3
    for server in (app, swarm()):                   # the one that started it, and one that never saw it run
        record = server.record(task.task_id)
        assert (record["state"], record["outcome"], record["failure"]["kind"]) == ("ended", "lost", "lost")
        assert (record["content"], record["threadId"]) == ("half of it",
                                                           "01a1fae2-9a16-7c70-9702-579ef587dc24")
        assert any("supervisor left no report" in w for w in record["warnings"])
    gone(*pids)


def test_a_supervisor_that_is_asked_to_end_cancels_its_task_and_says_why(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    pid = working(task)
    os.kill(parent_of(pid), signal.SIGTERM)
    (record,) = ended(app, [task.task_id])
    assert record["outcome"] == "cancelled"
    assert "Its supervisor got SIGTERM while waiting for the model" in record["failure"]["message"]
    gone(pid)


def test_a_supervisor_that_is_asked_to_end_before_it_has_begun_cancels_its_task(swarm):
    app = swarm()
    app.host.forker = None
    directory, lock = born(app)
    child = app.host.launch_supervisor(app.store.root, directory.path, (lock,))
    child.terminate()
    os.close(lock)
    (record,) = ended(app, [directory.task_id])
    assert record["outcome"] == "cancelled"
    assert not os.path.exists(directory.file("events.jsonl"))
    assert child.wait(WAIT_S) == 0


def test_a_task_ends_though_whoever_started_it_blocks_the_signal_that_tells_of_it(swarm):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        assert run(swarm(), "SAY done")["content"] == "done"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- forked supervisors ---------------------------------------------------------------------------------
FORKED = """
import json, os, signal, sys, time
import codex_mcp_swarm as cms

def supervise(words):
    while not os.path.exists("go"):             # in the directory of the task
        time.sleep(0.01)
    return cms.supervisor_main(words)

host = cms.Host()
host.forker = cms.Forker(supervise)
assert not host.forker.fork("/nonexistent", (2, 2, 2))
app = cms.Swarm(cms.Config(**json.loads(sys.argv[1])), host, os.environ)
(task_id,) = app.start([{"prompt": "SAY done"}])
def children_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(word) for word in f.read().split()]
def name_of(pid):
    with open("/proc/%d/comm" % pid) as f:
        return f.read().strip()
(forker,) = children_of(os.getpid())
(supervisor,) = [pid for pid in children_of(forker) if name_of(pid) == ("swarm-" + task_id)[:15]]
if sys.argv[2] == "asked to end":
    os.kill(supervisor, signal.SIGTERM)
open(app.store.get(task_id).file("go"), "w").close()
app.wait([task_id], 60, cms.Call())
print(json.dumps(app.record(task_id)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="supervisors are forked on Linux only")
@pytest.mark.parametrize("what, outcome", [("let alone", "succeeded"), ("asked to end", "cancelled")])
def test_a_forked_supervisor_hears_what_it_is_told_before_it_has_begun(swarm, what, outcome):
    app = swarm()
    env = dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__))
    argv = [sys.executable, "-c", FORKED, json.dumps(app.config._asdict()), what]
    record = json.loads(
        subprocess.run(argv, stdout=subprocess.PIPE, env=env, check=True, timeout=WAIT_S).stdout)
    assert record["outcome"] == outcome
    assert os.path.exists(app.store.get(record["task_id"]).file("events.jsonl")) == (what == "let alone")


# -- servers ------------------------------------------------------------------------------------------
SERVER = """
import json, os, sys
import codex_mcp_swarm as cms
app = cms.Swarm(cms.Config(**json.loads(sys.argv[1])), cms.Host(), os.environ)
print(*app.start(json.loads(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def other_process(app, requests):
    """Start tasks in a process of its own; (the process, their ids)."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(app.config._asdict()), json.dumps(requests)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             env=dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__)))
    return child, child.stdout.readline().decode().split()


def test_a_second_server_sees_waits_for_and_stops_what_the_first_one_started(swarm, gate):
    first, second = swarm(), swarm()
    one, two = begin(first, "LINES 1", gate.wait,
                     "SAY one"), begin(first, "LINES 1", "WAITFILE /nonexistent/gate")
    assert set(second.unended()) == {one.task_id, two.task_id}
    for task in (one, two):
        working(task)
    assert second.record(two.task_id)["state"] == "running"
    assert cancelled(second, two)["outcome"] == "cancelled"
    second.wait([one.task_id, two.task_id], WAIT_S, cms.Call(), "any")
    assert [second.record(t.task_id)["state"] for t in (one, two)] == ["running", "ended"]
    gate.open()
    assert ended(second, [one.task_id])[0]["content"] == "one"
    assert ended(first, [one.task_id, two.task_id]) == ended(second, [one.task_id, two.task_id])


def test_a_task_outlives_its_server_and_keeps_its_true_exit_code(swarm, gate):
    app = swarm()
    child, (task_id,) = other_process(app, [{"prompt": "LINES 1\n%s\nEXIT 7" % gate.wait}])
    working(app.store.get(task_id))
    child.kill()
    child.communicate(timeout=WAIT_S)
    gate.open()
    (record,) = ended(app, [task_id])
    assert (record["outcome"], record["exit_code"]) == ("failed", 7)


def test_codex_dies_with_its_supervisor_also_when_no_server_is_left_to_see_it(swarm):
    app = swarm()
    child, (task_id,) = other_process(app, [{"prompt": "LINES 1\nSLEEP 300"}])
    pid = working(app.store.get(task_id))
    child.kill()
    child.communicate(timeout=WAIT_S)
    os.kill(parent_of(pid), signal.SIGKILL)
    gone(pid)
    assert app.record(task_id)["outcome"] == "lost"


def test_what_a_server_launches_that_dies_meanwhile_begins_at_the_next_question(swarm):
    app = swarm()
    directory, lock = born(app, "SAY done")
    os.close(lock)                                  # what the kernel does then
    assert directory.status().state is cms.State.QUEUED and app.unended() == []
    (record,) = ended(app, [directory.task_id])
    assert record["content"] == "done"


# -- no room ------------------------------------------------------------------------------------------
ROOM = [pytest.param(3000, "succeeded", id="for a short report"), pytest.param(0, "lost", id="for nothing")]


@pytest.mark.parametrize("room, outcome", ROOM)
def test_where_no_report_can_be_written_the_message_is_that_of_the_events(
        swarm, gate, message, room, outcome):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait, "MESSAGE 100000")
    resource.prlimit(parent_of(working(task)), resource.RLIMIT_FSIZE, (room, room))
    gate.open()
    (record,) = ended(app, [task.task_id])
    assert (record["outcome"], record.get("content")) == (outcome, message(100_000))
    full = [w for w in record["warnings"] if "disk of `%s` was full" % task.path in w]
    assert bool(full) == (room > 0), "what was written says why"


FULL_DISK = """
import errno, os, sys
import codex_mcp_swarm as cms
reserve = os.path.join(sys.argv[1], "reserve")
def full(event, args):
    if event == "open" and str(args[0]).endswith("report.json.new") and os.path.getsize(reserve):
        raise OSError(errno.ENOSPC, "No space left on device", args[0])
sys.addaudithook(full)
sys.exit(cms.supervisor_main(sys.argv[1:]))
"""


def test_a_full_disk_at_the_end_loses_neither_the_outcome_nor_the_message(swarm, message):
    """Room is kept for the report: it fits once that is given back."""
    app = swarm()
    task, *fds = born(app, "MESSAGE 100000")
    words = [sys.executable, "-c", FULL_DISK, task.path, *map(str, fds)]
    child = subprocess.Popen(words, pass_fds=fds, stderr=subprocess.DEVNULL,
                             env=dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__)))
    for fd in fds:
        os.close(fd)
    (record,) = ended(app, [task.task_id])
    assert child.wait(WAIT_S) == 0 and record["outcome"] == "succeeded"
    assert task.report().content == message(100_000)


def test_a_server_that_holds_more_descriptors_than_select_takes_starts_tasks_all_the_same(swarm):
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (limits[1] if limits[1] != resource.RLIM_INFINITY else 4096, limits[1]))
    try:
        while not held or held[-1] < 1100:
            held.append(os.open(os.devnull, os.O_RDONLY))
        assert run(swarm(), "SAY done")["content"] == "done"
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# -- many ---------------------------------------------------------------------------------------------
def test_twenty_tasks_leave_no_zombie_no_thread_and_no_descriptor_behind(swarm):
    eventually(lambda: not any(t.name.startswith("watch-") for t in threading.enumerate()),
               what="the end of the watchers of other tests")
    app, threads = swarm(), set(threading.enumerate())
    quiet = lambda: set(threading.enumerate()) <= threads
    run(app, "x")                                   # what is imported late, is imported now
    eventually(quiet, what="the end of the first watcher")
    descriptors = set(os.listdir("/dev/fd"))
    for _ in range(2):
        ids = app.start([{"prompt": "SAY %d" % i} for i in range(10)])
        assert [r["content"] for r in ended(app, ids)] == [str(i) for i in range(10)]
    eventually(quiet, what="the end of the watchers")
    assert set(os.listdir("/dev/fd")) <= descriptors
    assert [p for p, parent, state in processes() if parent == os.getpid() and state.startswith("Z")] == []
    assert app.unended() == []
