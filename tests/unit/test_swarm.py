"""The application: what is checked before anything starts, what a reply takes over, and where codex is
found."""
import concurrent.futures
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import codex_mcp_swarm as cms
from client import eventually
from codex_mcp_swarm import FailureKind, ToolError

from .helpers import WAIT_S, auditing, begin, ended, parent_of, pid_of, run
from .on_git import sh
from .test_supervisor import SERVER, codex_script, working

NOWHERE = "01a1fae2-9a16-7c70-9702-579ef587dc24"


def git(repo, *words):
    return sh(repo, "git", *words).split()


def left_behind(root, repo):
    """Everything that a start makes: tasks, worktrees, branches."""
    listed = lambda name: sorted(path.name for path in (root / name).glob("[0-9a-f]*"))
    return listed("tasks"), listed("worktrees"), git(repo, "for-each-ref",
                                                     "--format=%(refname:short)"), len(
                                                         git(repo, "worktree", "list", "--porcelain"))


def seen(app, *lines, **arguments):
    """What codex sees of a run: argv, cwd, environment."""
    return json.loads(run(app, "ARGV", *lines, **arguments)["content"])


def test_a_reply_in_a_worktree_is_committed_also_after_a_reply_elsewhere(swarm, repo):
    app = swarm()
    first = run(app, "WRITE a 1", worktree=True)
    tree, branch = first["worktree"]["path"], first["worktree"]["branch"]
    run(app, "SAY elsewhere", threadId=first["threadId"], cwd=str(repo))
    back = run(app, "WRITE b 2", threadId=first["threadId"], cwd=tree)
    again = run(app, "WRITE c 3", threadId=first["threadId"])
    other = run(app, "WRITE d 4", cwd=tree)
    assert [record["worktree"]["branch"] for record in (back, again, other)] == [branch] * 3
    assert git(repo, "ls-tree", "-r", "--name-only", branch) == ["README", "a", "b", "c", "d"]


# -- all or nothing -----------------------------------------------------------------------------------
def test_a_task_runs_though_the_program_was_removed_under_its_server(tmp_path, root, repo, fake):
    program = tmp_path / "codex_mcp_swarm.py"
    shutil.copy(cms.__file__, str(program))
    script = ("import os, codex_mcp_swarm as cms\nos.unlink(%r)\n"
              "app = cms.Swarm(cms.Config(%r, %r, %r), cms.Host(), dict(os.environ))\n"
              "ids = app.start([{'prompt': 'SAY x', 'cwd': %r, 'sandbox': 'read-only'}])\n"
              "app.wait(ids, %r, cms.Call())\n"
              "print(app.record(ids[0])['content'])"
              % (str(program), str(root), str(root / "worktrees"), fake["CODEX_SWARM_CODEX_BIN"], str(repo),
                 WAIT_S))
    done = subprocess.run([sys.executable, "-B", "-c", script], stdout=subprocess.PIPE, timeout=2 * WAIT_S,
                          check=True, cwd=str(tmp_path))
    assert done.stdout == b"x\n"


def test_a_stop_needs_no_descriptor(swarm):
    app = swarm()
    task = begin(app, "LINES 1", "SLEEP 1000")
    working(task)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        app.stop([task.task_id])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended(app, [task.task_id])[0]["outcome"] == "cancelled"


def test_a_cancel_that_cannot_reach_a_stopped_supervisor_says_so(swarm, monkeypatch):
    monkeypatch.setattr(cms, "CANCEL_WAIT_S", 0.1)
    app = swarm()
    task = begin(app, "LINES 1", "SLEEP 1000")
    supervisor = parent_of(working(task))
    os.kill(supervisor, signal.SIGSTOP)
    try:
        record, = cms.codex_cancel(app, {"task_ids": [task.task_id]}, cms.Call()).data["tasks"]
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert record["state"] == "running" and "supervisor" in record["note"]
    assert ended(app, [task.task_id])[0]["outcome"] == "cancelled"


@pytest.fixture
def outside(tmp_path):
    """A plain directory, a file, and a repository without a commit."""
    (tmp_path / "plain").mkdir()
    git(tmp_path, "init", "-q", "unborn")
    (tmp_path / "file").write_text("")
    return tmp_path


WRONG = [
    # an entry, what the error names
    ({"cwd": "/nonexistent"}, "`cwd`: /nonexistent does not exist"),
    ({"cwd": "{}/file"}, "is not a directory"), ({"cwd": "/"}, "not in a git repository"),
    ({"cwd": "a\0b"}, "`cwd`"), ({"cwd": "x" * 5000}, "`cwd`"),
    ({"cwd": "{}/unborn", "worktree": True}, "no commit"),
    ({"threadId": NOWHERE, "worktree": True}, "`worktree`"), ({"task_id": "0" * 12}, "There is no task"),
    ({"developer-instructions": "x" * 200_000}, "`developer-instructions` is too long"),
    ({"config": {"a": None}}, "`config`"),
]


@pytest.mark.parametrize("entry, words", WRONG, ids=[w for _, w in WRONG])
def test_when_one_entry_is_wrong_nothing_starts_and_the_error_names_it(
        swarm, outside, root, repo, entry, words):
    app, before = swarm(), left_behind(root, repo)
    entry = {k: v.replace("{}", str(outside)) if isinstance(v, str) else v for k, v in entry.items()}
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x"}, {"prompt": "x", "worktree": True}, {"prompt": "x", **entry}], "tasks")
    assert str(caught.value).startswith("`tasks[2]`: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert left_behind(root, repo) == before


@pytest.fixture
def second_repo(repo, tmp_path):
    """A clone of it."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repo), str(other))
    return other


def close_to_branches(repo):
    """No branch can lie below that name then."""
    (repo / ".git" / "refs" / "heads" / "codex-swarm").write_text(git(repo, "rev-parse", "HEAD")[0] + "\n")


def test_a_worktree_that_cannot_be_made_fails_its_own_task_with_gits_words_and_the_others_run(
        swarm, root, second_repo):
    app, before = swarm(), left_behind(root, second_repo)
    close_to_branches(second_repo)
    entries = [{"prompt": "SAY one"}, {"prompt": "SAY two", "cwd": str(second_repo)}, {"prompt": "SAY three"}]
    ids = app.start([{"worktree": True, **entry} for entry in entries], "tasks")
    one, two, three = ended(app, ids)
    assert [record.get("content") for record in (one, two, three)] == ["one", None, "three"]
    assert (two["title"], two["outcome"], two["failure"]["kind"]) == ("SAY two", "failed", "setup")
    assert "There is a branch `codex-swarm` already" in two["failure"]["message"]
    assert "git branch -m" in two["failure"]["advice"] and "worktree" not in two
    assert left_behind(root, second_repo)[2:] == (["codex-swarm", *before[2]], before[3])
    assert app.live() == {} and left_behind(root, second_repo)[1] == sorted((ids[0], ids[2]))


def test_a_task_without_the_worktree_that_it_wanted_is_not_blamed_for_what_lies_in_the_checkout(
        swarm, second_repo):
    app = swarm()
    close_to_branches(second_repo)
    (second_repo / "mine").write_text("1\n")
    ids = app.start([{"prompt": "x", "worktree": True, "cwd": str(second_repo)}] * 2)
    with pytest.raises(ToolError, match="There is nothing to compare"):
        app.diff(ids[0], None, "files", ())
    with pytest.raises(ToolError, match="has no thread to continue"):
        app.start([{"prompt": "x", "task_id": ids[0]}])
    git(second_repo, "config", "core.pager", "x")           # which a task that could write there may have set
    git(second_repo, "branch", "-m", "codex-swarm", "other")
    assert run(app, "SAY x", worktree=True, cwd=str(second_repo))["outcome"] == "succeeded"


@pytest.mark.parametrize("outcome, limits", [("cancelled", {}), ("timed_out", {"timeout_s": 0.2})])
def test_nobody_is_told_to_reply_where_codex_has_not_opened_a_thread(swarm, repo, outcome, limits):
    app = swarm(worktree_setup="sleep 60")
    task_id, = app.start([{"prompt": "x", "worktree": True, **limits}])
    if not limits:
        app.stop([task_id])
    (record,) = ended(app, [task_id])
    advice = record["failure"]["advice"]
    assert record["outcome"] == outcome and "threadId" not in record
    assert "Start it again" in advice and ("longer `timeout_s`" in advice) == (outcome == "timed_out")


def test_all_advice_can_be_given_where_codex_has_not_opened_a_thread():
    assert len([advice for _, advice in cms.ADVICE.values() if "codex_reply" in advice]) > 5
    for _, advice in (*cms.ADVICE.values(), (False, cms.IDLE)):
        assert "codex_reply" not in cms.without_thread(advice)


def test_of_a_single_task_a_worktree_that_cannot_be_made_is_an_error_and_leaves_nothing(swarm, root, repo):
    app = swarm()
    close_to_branches(repo)
    before = left_behind(root, repo)
    with pytest.raises(ToolError, match="There is a branch `codex-swarm` already"):
        app.start([{"prompt": "x", "worktree": True}])
    assert left_behind(root, repo) == before


def test_worktrees_that_are_taken_back_disturb_none_that_are_made_meanwhile(swarm, root, repo):
    (repo / "sub").write_text("a file there\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "file")
    git(repo, "branch", "file")
    git(repo, "rm", "-q", "sub")
    git(repo, "commit", "-q", "-m", "none")
    (repo / "sub").mkdir()
    bad, good = {"worktree": {"base": "file"}}, {"worktree": True}
    app = swarm()
    ids = app.start([{"prompt": "SAY x", "cwd": "sub", **one} for one in [bad, good] * 8], "tasks")
    records = ended(app, ids)
    assert [record["outcome"] for record in records] == ["failed", "succeeded"] * 8
    assert all("has no counterpart in the worktree" in record["failure"]["message"]
               for record in records[::2])
    assert git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/codex-swarm/") == sorted(
        "codex-swarm/" + task_id for task_id in ids[1::2])
    assert len(git(repo, "worktree", "list")) // 3 >= 9 and left_behind(root, repo)[1] == sorted(ids[1::2])


def test_a_call_that_somebody_holds_up_says_for_which_lock_it_waits(swarm):
    app, said = swarm(), []
    app.store.prepare()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with app.store.locked("sweep.lock", cms.fcntl.LOCK_EX):
            future = pool.submit(app.start, [{"prompt": "SAY x"}], "", cms.Call(tell=said.append))
            eventually(lambda: said, what="a word of progress")
        assert [r["outcome"] for r in ended(app, future.result(WAIT_S))] == ["succeeded"]
    assert said == ["waiting for %s/sweep.lock, which another one holds" % app.store.root]


@pytest.fixture
def held_up(swarm, repo, second_repo, gate):
    """A server that makes the worktrees of a batch, and waits for another one before all but the first. What
    it is called with, its future, its first task, and what lets it go on."""
    app, call = swarm(), cms.Call()
    lock = cms.open_lock(app.git.lock_of(os.path.realpath(str(second_repo / ".git"))), os.O_CREAT)
    cms.fcntl.flock(lock, cms.fcntl.LOCK_EX)
    cwds = [repo, *[second_repo] * 6]
    requests = [{"prompt": "LINES 1\n" + gate.wait, "worktree": True, "cwd": str(cwd)} for cwd in cwds]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(app.start, requests, "tasks", call)
        try:
            task_id, = eventually(app.unended, what="the first task")
            working(app.store.get(task_id))
            yield app, call, future, task_id, lambda: cms.fcntl.flock(lock, cms.fcntl.LOCK_UN)
        finally:
            os.close(lock)


def test_the_first_task_of_a_batch_works_while_the_other_worktrees_are_made(held_up, gate):
    app, _, future, first, go_on = held_up
    assert not future.done()
    go_on()
    gate.open()
    ids = future.result(WAIT_S)
    assert ids[0] == first and [r["outcome"] for r in ended(app, ids)] == ["succeeded"] * 7


def test_a_batch_that_is_cancelled_while_worktrees_are_made_stops_what_it_started_and_starts_no_more(
        held_up, root, second_repo):
    app, call, future, first, go_on = held_up
    call.cancelled = True
    go_on()
    with pytest.raises(ToolError):
        future.result(WAIT_S)
    ids = app.store.ids()
    assert [r["outcome"] for r in ended(app, ids)] == ["cancelled"] * len(ids) and len(ids) < 7
    tasks, trees, branches, _ = left_behind(root, second_repo)
    assert tasks == trees == sorted(ids)
    assert [name for name in branches if name[-12:] not in ids] == ["main", "origin/HEAD", "origin/main"]


def test_a_server_that_ends_while_worktrees_are_made_starts_no_more_and_what_runs_goes_on(held_up, gate):
    app, _, future, first, go_on = held_up
    app.watch.close()
    go_on()
    with pytest.raises(ToolError):
        future.result(WAIT_S)
    gate.open()
    ids = app.store.ids()
    assert first in ids and len(ids) < 7
    assert [r["outcome"] for r in ended(app, ids)] == ["succeeded"] * len(ids)


def test_a_batch_whose_client_lost_its_patience_is_started_all_the_same(held_up, gate):
    app, call, future, _, go_on = held_up
    call.cancel_reason, call.cancelled = "Request timed out", True
    go_on()
    gate.open()
    assert [r["outcome"] for r in ended(app, future.result(WAIT_S))] == ["succeeded"] * 7


def test_when_there_is_no_room_nothing_starts_and_no_worktree_stays(swarm, root, repo):
    app, before = swarm(), left_behind(root, repo)
    script = SERVER.replace("json.loads(sys.argv[2])",
                            "[{'prompt': 'x', 'worktree': True}, {'prompt': 'y' * 500000, 'worktree': True}]")
    child = subprocess.run(
        ["bash", "-c", 'ulimit -f 300; exec "$@"', "bash", sys.executable, "-c", script,
         json.dumps(app.config._asdict())], input=b"",
                           stderr=subprocess.PIPE, timeout=WAIT_S,
        env=dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__)))
    assert b"ToolError: " in child.stderr and b"could not be written" in child.stderr, child.stderr
    assert left_behind(root, repo) == before


@pytest.mark.parametrize("number, advice", [
    (errno.ENOSPC, "Make room"), (errno.EROFS, "Make it writable"), (errno.EACCES, "access to it"),
    (errno.EMFILE, "ulimit -n")])
def test_the_advice_fits_what_kept_a_task_from_being_written(swarm, number, advice):
    def refuse(event, args):
        if event == "os.mkdir" and os.path.basename(os.path.dirname(str(args[0]))) == "tasks":
            raise OSError(number, os.strerror(number), args[0])
    app = swarm()
    with auditing(refuse), pytest.raises(ToolError, match=advice):
        app.start([{"prompt": "x"}])
    assert app.store.ids() == []


def test_what_tasks_came_to_can_be_read_where_nothing_can_be_written(swarm, root, gate):
    first, other = swarm(), swarm()
    over, runs = first.start([{"prompt": "SAY kept"}, {"prompt": gate.wait}])
    first.wait([over], WAIT_S, cms.Call())
    pid_of(first.store.get(runs))

    def refuse(event, args):
        written = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (written or event in ("os.mkdir", "os.rename", "os.remove", "os.link")) \
                and str(args[0]).startswith(str(root)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), args[0])
    with auditing(refuse):
        assert other.watch.live() == {over: False, runs: True}
        assert other.watch.standing([over, runs])[0] == [over]
        other.wait([over], WAIT_S, cms.Call())
        assert other.record(over)["content"] == "kept" and other.record(runs)["state"] == "running"
    gate.open()
    assert ended(other, [runs])[0]["outcome"] == "succeeded"


def test_a_look_that_began_before_a_task_was_born_does_not_forget_that_its_end_is_waited_for(swarm, gate):
    app = swarm()
    runs, = app.start([{"prompt": gate.wait}])
    watched, _ = app.view.running(runs)
    assert app.watch.begin(app.store.get(runs)) is watched
    app.view.forget(but=())                             # what a look found that listed nothing yet
    assert watched.watched and app.view.running(runs)[0] is watched
    gate.open()
    ended(app, [runs])
    app.view.forget(but=())
    assert app.view.running(runs) == (None, False) and app.view.known(app.store.get(runs)) is not watched


def test_a_poll_opens_neither_lock_nor_record_of_a_task_whose_end_its_server_waits_for(swarm, gate):
    app, here, opened = swarm(), threading.get_ident(), []
    runs, = app.start([{"prompt": gate.wait}])
    pid_of(app.store.get(runs))                         # a poll moves a queue

    def hear(event, args):
        if event == "open" and runs in str(args[0]) and threading.get_ident() == here:      # not of a sweep
            opened.append(os.path.basename(args[0]))
    with auditing(hear):
        assert swarm().watch.standing([runs])[0] == [] and "lock" in opened
        app.watch.standing([runs])                      # the first one reads what it is called
        opened.clear()
        assert app.watch.standing([runs])[0] == [] and set(opened) <= {"events.jsonl"}
    gate.open()
    ended(app, [runs])


def test_tasks_of_one_call_tell_in_which_order_they_were_started(swarm):
    app = swarm()
    ids = app.start([{"prompt": "SAY x"}] * 5)
    assert sorted(ids, key=lambda task_id: app.record(task_id)["started_at"]) == ids
    assert len({app.record(task_id)["started_at"] for task_id in ids}) == 5


def test_what_ended_last_stands_first_also_where_it_took_some_milliseconds(swarm):
    app = swarm()
    records = [run(app, "SAY x") for _ in range(2)]
    for record, started_at, elapsed_s in zip(records, (0.0, 0.27), (0.264, 0.014)):
        path = app.store.get(record["task_id"]).file("report.json")
        with open(path) as f:
            report = json.load(f)
        with open(path, "w") as f:
            json.dump(dict(report, elapsed_s=elapsed_s), f)
        record.update(app.record(record["task_id"]), started_at=started_at)
    assert cms.in_order(records) == records[::-1]


def test_without_a_thread_left_a_waiting_call_names_the_task_that_goes_on(swarm, gate, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")
    app = swarm()
    with monkeypatch.context() as m:
        m.setattr(threading.Thread, "start", refuse)
        runs, = app.start([{"prompt": gate.wait}])
        with pytest.raises(ToolError, match="task %s now.*It goes on.*codex_status" % runs):
            app.wait([runs], WAIT_S, cms.Call())
    gate.open()
    assert ended(app, [runs])[0]["outcome"] == "succeeded"


def test_when_a_task_cannot_be_launched_those_that_were_are_stopped(swarm, root, repo):
    app, launched = swarm(), []
    app.host.forker = None

    def refuse(event, args):
        if event == "subprocess.Popen" and cms.BOOT in args[1]:
            launched.append(args)
            if len(launched) == 2:
                raise BlockingIOError(errno.EAGAIN, "No process left")
    with auditing(refuse), pytest.raises(ToolError) as caught:
        app.start([{"prompt": "SLEEP 3", "worktree": True}] * 2, "tasks")
    record, = ended(app, app.store.ids())
    assert record["outcome"] == "cancelled" and "stopped again: %s" % record["task_id"] in str(caught.value)
    assert left_behind(root, repo)[1] == [record["task_id"]]


def test_what_was_started_is_stopped_though_no_descriptor_is_left_to_look_at_it_or_to_remove_it(swarm):
    app, launched = swarm(), []
    app.host.forker = None

    def refuse(event, args):
        if event == "subprocess.Popen" and cms.BOOT in args[1]:
            launched.append(args)
        opens = event == "open" and "status.json" in str(args[0]) or event == "shutil.rmtree"
        if len(launched) == 2 and (event == "subprocess.Popen" or opens):
            raise OSError(errno.EMFILE, "Too many open files")
    with auditing(refuse), pytest.raises(ToolError, match="stopped again"):
        app.start([{"prompt": "WAITFILE /nonexistent"}] * 2, "tasks")
    assert [record["outcome"] for record in ended(app, app.store.ids())] == ["cancelled"] * 2


def test_a_missing_codex_is_its_own_kind_and_starts_nothing(swarm, root, repo):
    app, before = swarm(codex_bin="no-such-codex-anywhere"), left_behind(root, repo)
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x"}])
    assert caught.value.kind is FailureKind.CODEX_MISSING and "--codex-bin" in str(caught.value)
    assert left_behind(root, repo) == before


def test_outside_a_repository_a_task_runs_when_the_server_was_told_so(swarm, outside):
    facts = seen(swarm(skip_git_repo_check=True), cwd=str(outside / "plain"))
    assert facts["cwd"] == str(outside / "plain") and "--skip-git-repo-check" in facts["argv"]


# -- where it runs ------------------------------------------------------------------------------------
@pytest.mark.parametrize("given, place",
                         [(None, ""), (".", ""), ("sub", "sub"), ("sub/..", ""), ("{}", ""),
                          ("{}/sub/", "sub")])
def test_the_working_directory_is_taken_from_the_servers(swarm, repo, given, place):
    (repo / "sub").mkdir()
    arguments = {} if given is None else {"cwd": given.replace("{}", str(repo))}
    assert seen(swarm(), **arguments)["cwd"] == str(repo / place).rstrip("/")


def test_a_home_directory_may_be_written_with_a_tilde(swarm, fake):
    os.mkdir(os.path.join(fake["HOME"], "work"))
    assert seen(swarm(skip_git_repo_check=True), cwd="~/work")["cwd"] == os.path.join(fake["HOME"], "work")


def test_a_worktree_task_works_in_the_same_sub_directory_and_its_work_comes_home(swarm, repo, root):
    (repo / "sub").mkdir()
    (repo / "sub" / "x").write_text("1\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "second")
    record = run(swarm(), "WRITE made by codex", "SHELL pwd > where", cwd="sub", worktree=True)
    tree = record["worktree"]
    assert (tree["path"], tree["branch"]) == (str(root / "worktrees" / record["task_id"]),
                                              "codex-swarm/" + record["task_id"])
    assert (tree["files_changed"], tree["insertions"], tree["deletions"],
            "git_dir" in tree) == (2, 2, 0, False)
    git(repo, "merge", "-q", tree["branch"])
    assert (repo / "sub" / "made").read_text() == "by codex\n"
    assert (repo / "sub" / "where").read_text() == tree["path"] + "/sub\n"


def test_the_work_of_a_failed_task_is_committed_too_and_its_worktree_kept(swarm, repo):
    record = run(swarm(), "WRITE half done", "FAIL flagged", worktree=True)
    tree = record["worktree"]
    assert (record["outcome"], tree["files_changed"], tree["commits"]) == ("failed", 1, 1)
    assert git(repo, "show", tree["branch"] + ":half") == ["done"] and os.path.isdir(tree["path"])
    assert "[failed]" in git(repo, "log", "-1", "--format=%s", tree["branch"])


def test_work_that_could_not_be_committed_is_told(swarm, tmp_path):
    spoil = ("git checkout -q --detach; git branch -q -D codex-swarm/$CODEX_SWARM_TASK_ID; "
             "git branch -q codex-swarm/$CODEX_SWARM_TASK_ID/x")
    app = swarm(worktree_dir=str(tmp_path / "w"))           # a short path, which no warning cuts off
    record = run(app, "SHELL " + spoil, "WRITE x x", worktree=True)
    tree = record["worktree"]
    assert record["outcome"] == "succeeded"
    assert tree["path"] in record["warnings"][0]
    assert "not committed" in record["warnings"][0]
    assert "update-ref" in tree["unsaved"] and open(os.path.join(tree["path"], "x")).read() == "x\n"


def test_a_worktree_can_start_from_the_worktree_of_another_task(swarm, repo):
    app = swarm()
    first = run(app, "WRITE one 1", worktree=True)
    second = run(app, "SHELL cat one > two", worktree=True, cwd=first["worktree"]["path"])
    assert git(repo, "ls-tree", "--name-only", second["worktree"]["branch"]) == ["README", "one", "two"]
    assert second["worktree"]["base"] == first["worktree"]["head"]


@pytest.mark.parametrize("where", ["", "inner"])
def test_no_worktree_starts_from_one_whose_git_directory_a_task_replaced(swarm, tmp_path, where):
    """git would run what that directory configures, outside of the sandbox."""
    evil = ("git init -q . && git config filter.x.smudge 'touch %s; cat' && "
            "echo '* filter=x' > .gitattributes && echo x > f" % (tmp_path / "ran"))
    app = swarm()
    first = run(app,
                "SHELL mkdir -p inner && cd ./%s && rm -f .git && %s && git add . && "
                "git -c user.name=a -c user.email=a@b commit -qm x" % (where, evil), worktree=True)
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x", "worktree": True, "cwd": os.path.join(first["worktree"]["path"], where)}])
    assert first["task_id"] in str(caught.value)
    assert "`.git` leads elsewhere" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_worktree_is_locked_while_its_task_runs_and_only_then(swarm, repo, gate):
    app, locked = swarm(), lambda: any(line.startswith("locked")
                                       for line in git(repo, "worktree", "list", "--porcelain"))
    first, = app.start([{"prompt": gate.wait, "worktree": True}])
    assert locked()
    gate.open()
    app.wait([first], 60, cms.Call())
    assert app.record(first)["outcome"] == "succeeded" and not locked()
    gate.path.unlink()
    second, = app.start([{"prompt": gate.wait, "task_id": first}])
    eventually(locked)
    gate.open()
    app.wait([second], 60, cms.Call())
    assert not locked()


SANDBOXES = [
    # arguments, flags of the server -> sandbox of the call
    ({}, (), None), ({"worktree": True}, (), "workspace-write"),
    ({"worktree": True, "sandbox": "read-only"}, (), "read-only"),
    ({"sandbox": "read-only"}, (), "read-only"),
    ({"worktree": True}, ("sandbox_mode=\"danger-full-access\"",), None),
    ({"worktree": True, "config": {"sandbox_mode": "read-only"}}, (), None),
    ({"worktree": True}, ("model=x",), "workspace-write"),
]


@pytest.mark.parametrize("arguments, overrides, sandbox", SANDBOXES)
def test_a_worktree_can_be_written_unless_something_says_otherwise(swarm, arguments, overrides, sandbox):
    assert swarm(overrides=overrides).plan({"prompt": "x", **arguments}).spec.arguments.get(
        "sandbox") == sandbox


# -- what codex passes over in silence ----------------------------------------------------------------
WARNED = [
    ({"approval-policy": "on-request"}, (), "`approval-policy` has no effect"),
    ({"approval-policy": "untrusted"}, (), "`approval-policy` has no effect"),
    ({"approval-policy": "never"}, (), None),
    ({}, ("approval_policy=untrusted",), "`approval-policy` has no effect"),
    ({}, ("approval_policy=\"never\"",), None),
    ({"profile": "missing"}, (), "`missing`"), ({"profile": "there"}, (), None), ({}, (), None),
]


@pytest.mark.parametrize("arguments, overrides, words", WARNED)
def test_what_has_no_effect_is_said(swarm, tmp_path, arguments, overrides, words):
    (tmp_path / "home" / ".codex" / "there.config.toml").write_text("")
    spec = swarm(overrides=overrides).plan({"prompt": "x", **arguments}).spec
    assert len(spec.warnings) == (words is not None) and all(words in w for w in spec.warnings)
    assert not any("approval" in word for word in cms.codex_argv(spec))


# -- threads ------------------------------------------------------------------------------------------
ALL = {"model": "m1", "sandbox": "read-only", "profile": "p1", "config": {"a": {"b": "c"}},
       "base_instructions": "base", "developer_instructions": "dev", "compact_prompt": "c"}


def test_a_reply_repeats_everything_that_the_thread_was_started_with(swarm, repo):
    (repo / "sub").mkdir()
    app = swarm(overrides=("model_verbosity=low",))
    first = run(app, "ARGV", cwd="sub", **ALL)
    before = json.loads(first["content"])
    # another server, with other flags
    after = seen(swarm(overrides=("model_verbosity=high",)), threadId=first["threadId"].upper())
    at = after["argv"].index("resume")
    own = [re.sub("(?<=/tasks/)[0-9a-f]{12}(?=/)", first["task_id"], word) for word in after["argv"]]
    assert own[:at] + own[at + 1:] == before["argv"][:-1] + [first["threadId"].upper(), "-"]
    assert (after["cwd"], after["thread"]) == (before["cwd"], before["thread"])


def test_the_arguments_of_a_reply_override_and_stay(swarm, repo):
    app = swarm()
    first = run(app, "x", **ALL)
    second = seen(app, task_id=first["task_id"], model="m2")
    third = seen(app, threadId=first["threadId"])
    assert [("--model=m2" in facts["argv"], "--profile=p1" in facts["argv"])
            for facts in (second, third)] == [(True, True)] * 2


def test_a_reply_remembers_and_its_time_limit_is_its_own(swarm):
    app = swarm()
    first = run(app, "x is 7", timeout_s=20)
    assert json.loads(
        run(app, "RECALL", threadId=first["threadId"])["content"].partition(" ")[2]) == ["x is 7"]
    assert app.plan({"prompt": "x", "threadId": first["threadId"]}).spec.timeout_s is None


def test_a_reply_in_a_worktree_goes_on_there_and_commits_again(swarm, repo):
    app = swarm()
    first = run(app, "WRITE one 1", worktree=True)
    second = run(app, "WRITE two 2", threadId=first["threadId"])
    assert second["worktree"]["branch"] == first["worktree"]["branch"]
    assert second["worktree"]["files_changed"] == 2
    assert len(git(repo, "log", "--format=%h", first["worktree"]["branch"])) == 3


def test_a_reply_in_a_sub_directory_of_its_worktree_is_committed_too(swarm, repo):
    app = swarm()
    first = run(app, "WRITE sub/one 1", worktree=True)
    second = run(app, "WRITE two 2", threadId=first["threadId"],
                 cwd=os.path.join(first["worktree"]["path"], "sub"))
    assert second["worktree"]["branch"] == first["worktree"]["branch"]
    assert git(repo, "ls-tree", "-r", "--name-only",
               first["worktree"]["branch"]) == ["README", "sub/one", "sub/two"]


@pytest.mark.parametrize("line", ["\0", "#", "-m", "--amend", "\u2028", "\U0001f41d" * 200, "x" * 300_000],
                         ids=lambda line: repr(line[:4]))
def test_no_prompt_is_too_odd_for_a_commit_and_none_is_shown_on_a_command_line(swarm, repo, line):
    record = run(swarm(), line, "WRITE made x", worktree=True)
    assert (record["outcome"], "warnings" in record) == ("succeeded", False)
    assert git(repo, "ls-tree", "-r", "--name-only", record["worktree"]["branch"]) == ["README", "made"]


def test_usage_is_that_of_the_turn_although_codex_counts_the_thread(swarm):
    app = swarm()
    first = run(app, "x")
    records = [first] + [run(app, "x", threadId=first["threadId"]) for _ in range(2)]
    assert [(r["usage"]["input_tokens"], r["usage"]["output_tokens"], r["usage"]["reasoning_output_tokens"])
            for r in records] == [(100, 20, 5)] * 3
    failed = run(app, "FAIL flagged", threadId=first["threadId"])
    assert "usage" not in failed
    assert run(app, "x", threadId=first["threadId"])["usage"]["input_tokens"] == 100


def test_a_thread_that_is_busy_is_refused_until_its_task_has_ended(swarm, gate):
    app = swarm()
    task = begin(app, "LINES 1", gate.wait)
    working(task)
    thread = app.record(task.task_id)["threadId"]
    for name, value in (("threadId", thread), ("threadId", thread.upper()), ("task_id", task.task_id)):
        with pytest.raises(ToolError) as caught:
            swarm().start([{"prompt": "x", name: value}])
        assert "busy" in str(caught.value)
        assert task.task_id in str(caught.value)
        assert "codex_wait" in str(caught.value)
    gate.open()
    ended(app, [task.task_id])
    assert run(app, "SAY again", threadId=thread)["content"] == "again"


def test_two_requests_of_one_call_cannot_name_the_same_thread(swarm):
    app = swarm()
    thread = run(app, "x")["threadId"]
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x", "threadId": thread}, {"prompt": "x", "threadId": thread.upper()}])
    assert "the same thread" in str(caught.value) and app.unended() == []


def test_a_reply_reads_nothing_of_the_tasks_of_other_threads(swarm):
    app = swarm()
    first, *others = [run(app, "x")["task_id"] for _ in range(4)]
    eventually(lambda: app.live() == {} and os.listdir(app.store.live) == ["whole"],
               what="the end of the supervisors")
    thread, opened = app.record(first)["threadId"], []
    with auditing(lambda name, args: name == "open" and opened.append(str(args[0]))):
        assert swarm().plan({"prompt": "x", "threadId": thread}).spec.thread_id == thread
    assert any(first in path for path in opened)
    assert not any(other in path for path in opened for other in others)


@pytest.mark.parametrize("request_of, words", [
    (lambda first: {"task_id": first["task_id"], "threadId": NOWHERE}, "different threads"),
    (lambda first: {"task_id": "f" * 12}, "There is no task"),
])
def test_a_thread_that_is_named_wrongly_is_refused(swarm, request_of, words):
    app = swarm()
    first = run(app, "x")
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x", **request_of(first)}])
    assert words in str(caught.value)


def test_a_task_that_never_had_a_thread_cannot_be_continued(swarm):
    app = swarm()
    failed = run(app, "PLAY x_badflag")
    with pytest.raises(ToolError) as caught:
        app.start([{"prompt": "x", "task_id": failed["task_id"]}])
    assert "no thread" in str(caught.value)


def test_a_thread_of_another_program_is_continued_with_the_servers_defaults(swarm, fake, repo):
    stranger = run(swarm(root=str(repo.parent / "another")), "I was here")
    app = swarm(overrides=("model=d",))
    record = run(app, "RECALL", threadId=stranger["threadId"], cwd=".")
    assert "I was here" in record["content"]
    assert "usage" not in record and any("usage of this turn is unknown" in w for w in record["warnings"])
    assert "model=d" in seen(app, threadId=stranger["threadId"], cwd=".")["argv"]


def test_of_a_reply_to_a_turn_that_told_no_usage_nobody_says_that_it_was_begun_elsewhere(swarm):
    app = swarm()
    stopped = begin(app, "LINES 1", "SLEEP 1000")
    working(stopped)
    app.stop([stopped.task_id])
    ended(app, [stopped.task_id])
    (warning,) = run(app, "SAY x", task_id=stopped.task_id)["warnings"]
    assert "usage of this turn is unknown" in warning and "elsewhere" not in warning


def test_an_ephemeral_server_keeps_no_threads_and_says_so(swarm):
    app = swarm(ephemeral=True)
    first = run(app, "ARGV")
    assert "--ephemeral" in json.loads(first["content"])["argv"]
    for request in ({"threadId": first["threadId"]}, {"task_id": first["task_id"]}):
        with pytest.raises(ToolError) as caught:
            app.start([{"prompt": "x", **request}])
        assert "--ephemeral" in str(caught.value)


def test_a_thread_is_busy_also_where_the_record_of_the_task_that_works_in_it_is_damaged(swarm, gate):
    task = begin(swarm(), gate.wait)
    thread_id = eventually(lambda: swarm().record(task.task_id).get("threadId"))
    with open(task.file("spec.json"), "w") as f:
        f.write("{")
    with pytest.raises(ToolError, match="is busy"):
        swarm().plan({"prompt": "x", "cwd": ".", "threadId": thread_id})
    gate.open()
    ended(swarm(), [task.task_id])


# -- looking ------------------------------------------------------------------------------------------
def test_a_record_tells_what_a_running_task_does(swarm, gate, tmp_path):
    app = swarm()
    (tmp_path / "slow.sh").write_text("while ! test -e %s; do sleep 0.02; done\n" % gate.path)
    task = begin(app, "WRITE made x", "SHELL bash %s" % (tmp_path / "slow.sh"))
    pid_of(task)
    live = eventually(lambda: app.record(task.task_id).get("progress", {}).get("phase") == "running a command"
                      and app.record(task.task_id))
    assert live["state"] == "running"
    assert "outcome" not in live
    assert live["progress"]["tools"] == {"file_change": 1, "command_execution": 1}
    assert live["progress"]["last_command"].endswith("slow.sh")
    assert live["progress"]["last_file"].endswith("made")
    assert "unknown_events" not in live["progress"]
    with open(task.file("events.jsonl"), "ab") as events:
        events.write(b'{"type":"turn.of.a.newer.codex"}\n')
    assert app.record(task.task_id)["progress"]["unknown_events"] == 1
    assert live["elapsed_s"] >= 0 and live["progress"]["last_event_s"] >= 0 and len(live["threadId"]) == 36
    gate.open()
    assert "progress" not in ended(app, [task.task_id])[0]


def test_any_number_of_waiters_are_told_and_a_cancelled_one_leaves_the_task_alone(swarm, gate):
    app, calls = swarm(), [cms.Call() for _ in range(8)]
    task = begin(app, "LINES 1", gate.wait)
    waiters = [threading.Thread(target=app.wait, args=([task.task_id], WAIT_S, call)) for call in calls]
    for waiter in waiters:
        waiter.start()
    calls[0].cancelled = True
    app.watch.wake()
    waiters[0].join(WAIT_S)
    assert not waiters[0].is_alive() and app.record(task.task_id)["state"] in ("starting", "running")
    gate.open()
    for waiter in waiters:
        waiter.join(WAIT_S)
    assert not any(w.is_alive() for w in waiters) and app.record(task.task_id)["outcome"] == "succeeded"


def test_a_run_that_outlasts_the_patience_of_its_client_is_no_error(swarm, gate, monkeypatch):
    monkeypatch.setattr(cms, "WAIT_S", 0.0)
    app, call = swarm(), cms.Call()
    answer = cms.block(app, cms.codex(app, {"prompt": gate.wait}, call), call)
    assert answer.data["still_running"] == call.started and answer.failed is False


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_a_wait_whose_time_is_up_returns_and_stops_nothing(swarm, gate, timeout_s):
    app = swarm()
    task = begin(app, gate.wait)
    app.wait([task.task_id, task.task_id], timeout_s, cms.Call())
    assert app.record(task.task_id)["state"] in ("starting", "running")


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_makes_no_wait_longer_or_shorter(swarm, gate, monkeypatch, jump_s):
    app = swarm()
    task, began = begin(app, gate.wait), time.monotonic()
    real, looks = time.time, []

    def jumping():
        looks.append(1)
        return real() + (jump_s if len(looks) > 1 else 0)
    monkeypatch.setattr(app.host, "now", jumping)
    app.wait([task.task_id], 0.5, cms.Call(tell=lambda *_: None))
    assert 0.5 <= time.monotonic() - began < WAIT_S and looks
    assert app.record(task.task_id)["state"] in ("starting", "running")


REASONS = [("", True), ("AbortError: user-cancel", True), ("The user does not want this", True),
           ("no more time for this", True), ("SdkError: Request timed out", False),
           ("MCP error -32001: Request timed out", False), ("timeout", False),
           ("Timeout of 60000ms exceeded", False), ("time-out", False), ("time out", False),
           ("DEADLINE_EXCEEDED", False),
           ("Deadline exceeded", False), ("the sometimes outer loop", True)]


@pytest.mark.parametrize("reason, wished", REASONS)
def test_a_call_is_abandoned_by_a_wish_and_not_by_the_clients_patience(reason, wished):
    call = cms.Call()
    assert not call.abandoned
    call.cancelled, call.cancel_reason = True, reason
    assert call.abandoned is wished


# -- where codex is -----------------------------------------------------------------------------------
PLATFORM = {("linux", "x86_64"): ("codex-linux-x64", "x86_64-unknown-linux-musl"),
            ("linux", "aarch64"): ("codex-linux-arm64", "aarch64-unknown-linux-musl"),
            ("darwin", "x86_64"): ("codex-darwin-x64", "x86_64-apple-darwin"),
            ("darwin", "arm64"): ("codex-darwin-arm64", "aarch64-apple-darwin")}
PACKAGE, TRIPLE = PLATFORM["linux" if sys.platform.startswith("linux") else sys.platform, os.uname().machine]
LAYOUTS = {
    "beside": "node_modules/@openai/" + PACKAGE,
    "inside": "node_modules/@openai/codex/node_modules/@openai/" + PACKAGE,
    "in the package": "node_modules/@openai/codex",
}


def executable(path, text="#!/bin/sh\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chmod(str(path), 0o755)
    return path


@pytest.fixture
def launcher(tmp_path):
    """What `npm install -g @openai/codex` puts on PATH: a link to a script of the package."""
    script = executable(tmp_path / "lib/node_modules/@openai/codex/bin/codex.js", "#!/usr/bin/env node\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(script)
    return tmp_path / "bin" / "codex"


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_of_the_npm_package_the_native_binary_is_run(launcher, tmp_path, layout):
    native = executable(tmp_path / "lib" / LAYOUTS[layout] / "vendor" / TRIPLE / "bin" / "codex")
    assert cms.find_codex("codex", str(tmp_path / "bin")) == str(native)
    assert cms.find_codex(str(launcher), "") == str(native)


def test_a_launcher_whose_binary_is_not_there_is_run_itself(launcher, tmp_path):
    native = executable(
        tmp_path / "lib" / LAYOUTS["beside"] / "vendor" / "pdp11-unknown-unix" / "bin" / "codex")
    assert cms.find_codex(str(launcher), "") == str(launcher)
    native = executable(tmp_path / "lib" / LAYOUTS["beside"] / "vendor" / TRIPLE / "bin" / "codex")
    os.chmod(str(native), 0o644)
    assert cms.find_codex(str(launcher), "") == str(launcher)


def test_codex_is_found_by_path_by_name_and_below_home(tmp_path, monkeypatch):
    plain = executable(tmp_path / "home" / ".local" / "bin" / "my-own-codex")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in (str(plain), "~/.local/bin/my-own-codex", "home/.local/bin/my-own-codex", "my-own-codex"):
        assert cms.find_codex(name, "/nonexistent") == str(plain)
    nvm = executable(tmp_path / "home" / ".nvm/versions/node/v20.1.0/bin/codex-of-nvm")
    assert cms.find_codex("codex-of-nvm", "") == str(nvm)


@pytest.mark.parametrize("name", ["no-such-codex-anywhere", "/nonexistent/codex", "", ".", "/"])
def test_a_codex_that_is_not_there_is_refused_with_what_to_do(name):
    with pytest.raises(ToolError) as caught:
        cms.find_codex(name, "/nonexistent")
    assert caught.value.kind is FailureKind.CODEX_MISSING and "npm install" in str(caught.value)


def test_the_codex_of_the_path_goes_before_the_usual_places(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    executable(tmp_path / ".local" / "bin" / "codex")
    mine = executable(tmp_path / "mine" / "codex")
    assert cms.find_codex("codex", str(tmp_path / "mine")) == str(mine)


def test_a_codex_that_reports_nothing_at_all_is_a_failure_with_its_own_words(swarm, tmp_path):
    codex = codex_script(tmp_path, "sys.exit('cannot go on: no licence')")
    record = run(swarm(codex_bin=codex), "x")
    assert record["failure"]["kind"] == "unknown"
    assert record["failure"]["message"].startswith("cannot go on: no licence")


@pytest.mark.parametrize("key", ["filter.x.clean", "core.fsmonitor", "diff.external"])
def test_a_repository_that_a_task_made_in_its_tree_gets_no_program_run(swarm, repo, tmp_path, key):
    """It writes that repository's configuration inside its sandbox; our git runs outside of it, also at the
    next turn."""
    mark = tmp_path / "ran"
    evil = tmp_path / "evil.sh"
    evil.write_text("#!/bin/sh\necho ran >> %s\ncat\n" % mark)
    evil.chmod(0o755)
    git = "git -c user.name=a -c user.email=a@b"
    app = swarm()
    first = run(app,
                "SHELL mkdir sub && cd sub && git init -q . && echo x > f && %s add f && %s commit -qm i"
                % (git, git), worktree=True)
    plant = ("cd %s/sub && git config %s %s && echo '* filter=x' > .gitattributes && "
             "touch -d 2001-01-01 f && echo z > f" % (first["worktree"]["path"], key, evil))
    second = run(app, "SHELL %s\nWRITE new.txt new" % plant, task_id=first["task_id"])
    assert second["outcome"] == "succeeded" and second["worktree"]["head"] != first["worktree"]["head"]
    assert not mark.exists()


def test_a_thread_of_which_there_is_no_record_goes_on_only_where_the_call_says(swarm, repo):
    s = swarm()
    first = run(s, "SAY one", cwd=str(repo))
    shutil.rmtree(os.path.join(s.store.tasks, first["task_id"]))
    with pytest.raises(ToolError) as caught:
        run(swarm(), "SAY two", threadId=first["threadId"])
    assert "no record" in str(caught.value) and "`cwd`" in str(caught.value)
    assert run(swarm(), "SAY two", threadId=first["threadId"], cwd=str(repo))["threadId"] == first["threadId"]
