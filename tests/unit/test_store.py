"""The directory of a task: complete before anybody sees it, alive while its lock is held, and no other task's
problem."""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Outcome, Report, Spec, State, Status, TaskDir, ToolError, advance

from .helpers import WAIT_S, auditing, exhausted, run

FILES = {"spec.json", "status.json", "prompt", "lock", "control", "reserve"}


class Made:
    """A task directory whose supervisor this test plays: it holds the lock."""

    def __init__(self, store, number, **fields):
        fields = {"created_at": float(number), "codex": "/bin/codex", "cwd": "/", **fields}
        self.dir = TaskDir.create(store.tasks, Spec("%012x" % number, **fields), "the prompt").appear()
        self.fds = [cms.take(self.dir.file("lock")), self.dir.listen()]
        self.dir.write_status(Status(State.STARTING))
        self.id, self.path = self.dir.task_id, self.dir.path

    def advance(self, *events, **facts):
        status = self.dir.status()
        for event in events:
            status = advance(status, event, **facts)
        self.dir.write_status(status)
        return self

    def report(self, outcome=Outcome.SUCCEEDED, **facts):
        cms.write_atomic(self.dir.file("report.json"), cms.to_json(Report(outcome, 1.5, 2.5, **facts)))
        return self

    def end(self):
        """As a supervisor ends: the report, the status, the lock."""
        self.report().advance("spawned", "exited", outcome=Outcome.SUCCEEDED)
        self.die()
        return self

    def die(self):
        while self.fds:
            os.close(self.fds.pop())
        return self


def supervised(task):
    return cms.held(task.dir.file("lock"))


@pytest.fixture
def make(tasks):
    made = []

    def make(number=1, **fields):
        made.append(Made(tasks, number, **fields))
        return made[-1]
    yield make
    for task in made:
        task.die()


def test_a_task_is_complete_and_queued_before_it_has_its_name(tasks, make):
    seen = []

    def at_the_rename(name, args):
        if name == "os.rename" and os.path.basename(args[1]) == "%012x" % 1:
            hidden = TaskDir(args[0])
            seen.append(
                (tasks.ids(), set(os.listdir(hidden.path)), cms.held(hidden.file("lock")),
                 hidden.status().state, hidden.spec().task_id))
    with auditing(at_the_rename):
        task = make()
    assert seen == [([], FILES, False, State.QUEUED, task.id)]
    assert (tasks.ids(), os.listdir(tasks.tasks)) == ([task.id], [task.id])
    with open(task.dir.file("prompt"), encoding="utf-8") as f:
        assert f.read() == "the prompt"


def test_a_prompt_reaches_the_file_byte_for_byte(tasks):
    prompt = "\ufefftwo\r\nlines\rand\u2028\0\x85\U0001f41d\n\n"
    directory = TaskDir.create(tasks.tasks, Spec("0" * 12, 0.0, "c", "/"), prompt).appear()
    with open(directory.file("prompt"), "rb") as f:
        assert f.read() == prompt.encode("utf-8")


STATUSES = [
    # what happens, then -> state, outcome
    (lambda t: t, "starting", None),
    (lambda t: t.advance("spawned"), "running", None),
    (lambda t: t.advance("spawned").advance("stop", stop_reason=Outcome.CANCELLED), "stopping", None),
    (lambda t: t.die(), "ended", "lost"),
    (lambda t: t.advance("spawned").die(), "ended", "lost"),
    (lambda t: t.advance("spawned").advance("stop", stop_reason=Outcome.CANCELLED).die(), "ended", "lost"),
    (lambda t: t.end(), "ended", "succeeded"),
    (lambda t: t.report().advance("spawned").advance("exited", outcome=Outcome.SUCCEEDED), "ended",
     "succeeded"),     # the lock is not free yet
    # no room for the last status
    (lambda t: t.advance("spawned").report(Outcome.TIMED_OUT).die(), "ended", "timed_out"),
    (lambda t: t.advance("spawned").report(), "running", None),
]


@pytest.mark.parametrize("happen, state, outcome", STATUSES)
def test_the_status_is_what_the_record_the_lock_and_the_report_tell(make, happen, state, outcome):
    status = happen(make()).dir.status()
    assert (status.state.value, status.outcome and status.outcome.value) == (state, outcome)


@pytest.mark.parametrize("record", [{"state": "ended"}, {"state": "running", "outcome": "failed"}], ids=repr)
def test_a_status_that_contradicts_itself_says_no_more_than_that_the_task_was_started(make, record):
    task = make(1).report(Outcome.FAILED)
    cms.write_atomic(task.dir.file("status.json"), record)
    assert task.dir.status() == Status(State.RUNNING)
    assert task.die().dir.status().outcome is Outcome.FAILED


def test_a_task_that_waits_its_turn_needs_no_lock(make):
    task = make().die()
    task.dir.write_status(Status(State.QUEUED))
    assert task.dir.status().state is State.QUEUED


def test_a_task_that_ends_between_two_looks_is_not_taken_for_lost(make):
    task = make().advance("spawned").die()
    end = lambda name, args: task.dir.write_status(
        Status(State.ENDED, Outcome.SUCCEEDED)) if name == "fcntl.flock" else None
    with auditing(end):
        assert task.dir.status().outcome is Outcome.SUCCEEDED


def test_a_stop_for_a_task_without_supervisor_is_no_error(make):
    make().die().dir.stop()


def test_a_stop_reaches_whoever_holds_the_control_fifo_and_leaves_an_order(make):
    task = make()
    task.dir.stop()
    task.dir.stop()
    assert os.read(task.fds[1], 10) == b"cc" and os.path.exists(task.dir.file("stop"))


# -- locks --------------------------------------------------------------------------------------------
def test_locks_and_the_fifo_of_a_task_can_be_opened_for_writing_alone(tasks, make):
    with tasks.locked("sweep.lock", fcntl.LOCK_SH):
        paths = [make().dir.file("lock"), make(2).dir.file("control"), os.path.join(tasks.root, "sweep.lock")]
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths] == [0o200] * 3


def test_a_lock_that_an_older_version_made_holds_and_is_closed_to_readers(tasks, make):
    task = make()
    path = os.path.join(tasks.root, "sweep.lock")
    written(b"")(path)
    for old in (path, task.dir.file("lock")):
        os.chmod(old, 0o600)
    assert supervised(task) and not supervised(task.die())
    with tasks.locked("sweep.lock", fcntl.LOCK_EX):
        assert [stat.S_IMODE(os.stat(old).st_mode) for old in (path, task.dir.file("lock"))] == [0o200] * 2


def test_where_only_readers_can_share_a_lock_a_task_is_alive_until_it_has_ended(tasks, make):
    """As on NFS. Source: flock(2)."""
    def nfs(name, args):
        if name == "fcntl.flock" and args[1] & fcntl.LOCK_SH:
            raise OSError(errno.EBADF, "not open for reading")
    living, dead = make(1), make(2).die()
    with auditing(nfs):
        assert supervised(living) and not supervised(dead)
        dead.dir.join()
        with tasks.locked("sweep.lock",
                          fcntl.LOCK_SH) as mine, tasks.locked(
                              "sweep.lock", fcntl.LOCK_SH | fcntl.LOCK_NB) as others:
            assert (mine, others) == (True, False)


def test_the_ids_are_the_newest_first_and_nothing_else(tasks, make):
    for number, at in ((1, 300), (2, 100), (3, 200)):
        os.utime(make(number).dir.file("spec.json"), (at, at))
    for name in (".%012x" % 9, "x", "0" * 11, "0" * 13, "G" * 12, "%012X" % 0xabc):
        os.mkdir(os.path.join(tasks.tasks, name))
    assert tasks.ids() == ["%012x" % n for n in (1, 3, 2)]


def test_a_store_that_does_not_exist_is_empty(tmp_path):
    assert cms.Store(str(tmp_path / "none")).ids() == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize("task_id",
                         ["0" * 12, "", ".", "..", "../tasks", "0" * 13, "x" * 100_000, "0" * 11 + "\n",
                          "0" * 12 + "\n", "\0"], ids=lambda i: repr(i[:15]))
def test_what_is_no_task_is_refused_by_name(tasks, task_id):
    with pytest.raises(ToolError) as caught:
        tasks.get(task_id)
    assert "There is no task" in str(caught.value) and len(str(caught.value)) < 500


# -- damage -------------------------------------------------------------------------------------------
def as_directory(path):
    os.path.exists(path) and os.unlink(path)
    os.mkdir(path)


def written(data):
    def write(path):
        with open(path, "wb") as f:
            f.write(data)
    return write


DAMAGE = {"torn": written(b'{"state":"runn'), "empty": written(b""), "binary": written(b"\xff\xfe\0\x80"),
          "a list": written(b"[1,2]"), "odd": written(b'{"state": 7}'),
          "deep": written(b"[" * 100_000), "gone": os.unlink, "a directory": as_directory}
NAMES = ["spec.json", "status.json", "report.json", "events.jsonl", "stderr.log", "lock"]


each_file = pytest.mark.parametrize("name", NAMES)
each_life = pytest.mark.parametrize("life", ["ended", "starting"])


def thread(number):
    return "01a1fae2-9a16-7c70-9702-%012x" % number


def application(store):
    return cms.Swarm(cms.Config(store.root, store.root + "/trees", sys.executable, skip_git_repo_check=True),
                     cms.Host(), os.environ)


def damaged(make, name, life):
    """Three tasks; for each kind of damage to a file of the second one: (the kind, the second, the ids of the
    others)."""
    first, bad, last = made = [make(number, thread_id=thread(number)) for number in (1, 2, 3)]
    for task in made:
        for log in ("events.jsonl", "stderr.log"):
            written(b"")(task.dir.file(log))
        task.end() if life == "ended" else task.report()
    path = bad.dir.file(name)
    with open(path, "rb") as f:
        whole = f.read()
    for how in sorted(DAMAGE):
        DAMAGE[how](path)
        yield how, bad.id, {first.id, last.id}
        os.rmdir(path) if os.path.isdir(path) else None
        written(whole)(path)


@each_file
@each_life
def test_damage_in_one_task_is_that_tasks_alone(tasks, make, name, life):
    for how, bad, others in damaged(make, name, life):
        app = application(tasks)
        assert set(app.store.ids()) == others | {bad}, how
        assert set(app.unended()) - {bad} == (others if life != "ended" else set()), how
        assert [app.record(task)["state"] for task in others] == [life] * 2, how
        assert app.plan(
            {"prompt": "x", "threadId": thread(9), "cwd": ".",
             "sandbox": "read-only"}).spec.thread_id == thread(9), how
        try:
            assert app.record(bad)["task_id"] == bad, how
        except ToolError as error:
            assert bad in str(error), how


@each_file
@each_life
def test_a_damaged_task_hides_no_other_from_status_and_list(tasks, make, name, life):
    for how, bad, others in damaged(make, name, life):
        app = application(tasks)
        shown = cms.TOOLS["codex_status"].run(app, {}, cms.Call()).data["tasks"]
        assert {r["task_id"] for r in shown} - {bad} == others, how
        listed = json.loads(cms.find_resource("codex-swarm:///tasks")[0].read(app, "", {}))["tasks"]
        assert {r["task_id"] for r in listed} == others | {bad}, how
        told = [row["task_id"] for row in listed if "spec.json cannot be read" in row.get("damage", "")]
        assert told == [bad] * (name == "spec.json"), how
        assert name != "spec.json" or "spec.json cannot be read" in app.record(bad)["warnings"][0]


def test_a_file_in_the_place_of_a_task_is_nobody_elses_problem(tasks, make):
    task = make(1)
    written(b"")(os.path.join(tasks.tasks, "%012x" % 2))
    assert application(tasks).unended() == [task.id]


# -- whose it is --------------------------------------------------------------------------------------
@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_nothing_of_ours_is_for_anybody_else_even_under_umask_0(swarm, tmp_path, repo):
    top, log = tmp_path / "state" / "codex-swarm", tmp_path / "log"
    config = {"root": str(top / "root"), "worktree_dir": str(top / "root" / "worktrees"),
              "worktree_setup": "echo set up"}
    with umask(0):
        app = swarm(**config)
        app = cms.Swarm(app.config, cms.Host(str(log), "DEBUG"), app.environ)
        ids = [run(app, "STDERR x", "WRITE a 1", worktree=True)["task_id"] for _ in range(2)]
        call = cms.Call()
        app.merge(ids[:1], call, cms.Wish())
        app.collected(ids)
        app.store.write_handle(cms.Handle("0" * 32, 1.0, cms.Wait(tuple(ids))))
        app.store.end_handle("0" * 32, cms.HandleEnd(1.0, "completed", ""))
        app.store.mark_cancelled("0" * 32)
        list(app.sweep())
        app.host.log("WARNING", "a line")
    paths = [log, top.parent, top]
    for at, names, files in os.walk(str(top)):
        paths += [pathlib.Path(at, name) for name in (*names, *files)]
        # what is in there are files of a checkout
        names[:] = [name for name in names if pathlib.Path(at).name != "worktrees"]
    assert len(paths) > 30
    assert {"lock", "stderr.log", "supervisor.log", "sweep.lock", "setup.log", ".codex-swarm",
            "worktrees"} <= {path.name for path in paths}
    modes = {str(path): oct(path.lstat().st_mode) for path in paths if path.parent.name != "worktrees"
             or path.name == ".codex-swarm"}
    assert {path: mode for path, mode in modes.items() if int(mode, 8) & 0o077} == {}


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_files_of_a_worktree_have_the_modes_that_git_and_the_users_umask_give(swarm, repo, mask):
    (repo / ".gitignore").write_text("copied\n")
    (repo / ".worktreeinclude").write_text("copied\n")
    (repo / "copied").write_text("1\n")
    os.chmod(str(repo / "copied"), 0o640)
    with umask(mask):
        record = run(swarm(worktree_setup="touch set-up"), "WRITE deep/made 1", "SHELL touch shell",
                     worktree=True)
    top = pathlib.Path(record["worktree"]["path"])
    assert {name: stat.S_IMODE((top / name).stat().st_mode)
            for name in ("README", "deep", "deep/made", "shell", "set-up", "copied")} == {
        "README": 0o666 & ~mask, "deep": 0o777 & ~mask, "deep/made": 0o666 & ~mask, "shell": 0o666 & ~mask,
                "set-up": 0o666 & ~mask, "copied": 0o640}


def test_a_log_that_cannot_hold_a_name_as_it_is_shows_its_bytes(tmp_path):
    cms.Host(str(tmp_path / "log"), "WARNING").log("WARNING", "odd \udcff and \x1b[31m red")
    text = (tmp_path / "log").read_bytes()
    assert b"odd \\udcff and \\x1b[31m red" in text


def foreign(tmp_path):
    """A directory that is somebody else's; where we may not give one away, the system's own will do."""
    path = tmp_path / "foreign"
    path.mkdir()
    try:
        os.chown(str(path), 12345, 12345)
        return path
    except PermissionError:
        return "/usr"


def link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    return tmp_path / "link"


def dangling(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    return tmp_path / "link"


def a_file(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def below_a_file(tmp_path):
    return a_file(tmp_path) / "root"


@pytest.mark.parametrize("place", [foreign, link, dangling, a_file, below_a_file])
def test_a_root_that_is_not_ours_alone_is_refused_and_nothing_is_written(tmp_path, place):
    path = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ToolError) as caught:
        cms.Store(str(path)).prepare()
    assert str(path) in str(caught.value) and "CODEX_SWARM_TASK_DIR" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_tasks_directory_is_checked_like_the_root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "tasks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolError):
        cms.Store(str(tmp_path / "root")).prepare()


def test_a_root_that_others_could_write_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "root").mkdir()
    os.chmod(str(tmp_path / "root"), 0o777)
    with pytest.raises(ToolError, match="chmod go-w"):
        cms.Store(str(tmp_path / "root")).prepare()
    assert stat.S_IMODE(os.stat(str(tmp_path / "root")).st_mode) == 0o777
    assert os.listdir(str(tmp_path / "root")) == []


def test_a_root_that_others_can_read_is_left_as_it_is_and_its_tasks_are_closed(tmp_path):
    (tmp_path / "root" / "tasks").mkdir(parents=True)
    for path in (tmp_path / "root", tmp_path / "root" / "tasks"):
        os.chmod(str(path), 0o755)
    cms.Store(str(tmp_path / "root")).prepare()
    assert [stat.S_IMODE(os.stat(str(tmp_path / path)).st_mode)
            for path in ("root", "root/tasks")] == [0o755, 0o700]


@pytest.mark.parametrize("name", ["spec.json", "status.json", "report.json"])
def test_a_want_of_descriptors_says_nothing_about_a_task(tasks, make, name):
    task, app = make().end(), application(tasks)
    with exhausted(name), pytest.raises(OSError):
        app.record(task.id)
    assert app.record(task.id)["outcome"] == "succeeded"


# -- no room ------------------------------------------------------------------------------------------
NO_ROOM = """
import os, resource, sys
import codex_mcp_swarm as cms
limit, tasks, arguments = int(sys.argv[1]), sys.argv[2], {"base-instructions": "x" * 100000}
descriptors = len(os.listdir("/dev/fd"))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    spec = cms.Spec("0" * 12, 0.0, "codex", "/", arguments)
    cms.TaskDir.create(tasks, spec, "a prompt of more than ten characters")
except OSError as error:
    print(error.errno, len(os.listdir("/dev/fd")) - descriptors)
"""


@pytest.mark.parametrize("limit", [10, 1000, 70_000], ids=["prompt", "reserve", "spec.json"])
def test_a_task_for_which_there_is_no_room_leaves_nothing_behind(tasks, limit):
    child = subprocess.run([sys.executable, "-c", NO_ROOM, str(limit), tasks.tasks], stdout=subprocess.PIPE,
                           timeout=WAIT_S,
                           env={"PYTHONPATH": os.path.dirname(cms.__file__)})
    assert child.stdout.split() == [b"%d" % errno.EFBIG, b"0"]
    assert os.listdir(tasks.tasks) == []


NO_ROOM_FOR_AN_END = """
import resource, sys
import codex_mcp_swarm as cms
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print(cms.Store(sys.argv[1]).end_handle("0" * 32, cms.HandleEnd(1.0, "completed", "x" * 1000)).status)
"""


def test_an_end_for_which_there_is_no_room_is_told_and_leaves_no_file(tasks):
    os.makedirs(tasks.handles)
    child = subprocess.run([sys.executable, "-c", NO_ROOM_FOR_AN_END, tasks.root], stdout=subprocess.PIPE,
                           timeout=WAIT_S,
                           env={"PYTHONPATH": os.path.dirname(cms.__file__)})
    assert child.stdout.split() == [b"completed"]
    assert os.listdir(tasks.handles) == []


def test_the_first_end_of_a_handle_stays(tasks):
    os.makedirs(tasks.handles)
    first = cms.HandleEnd(1.0, "completed", "1 of 1 done", {"content": []})
    assert tasks.end_handle("0" * 32, first) == first
    assert tasks.end_handle("0" * 32,
                            cms.HandleEnd(2.0, "cancelled", "")) == first == tasks.handle_end("0" * 32)
    assert os.listdir(tasks.handles) == ["0" * 32 + ".end.json"]


def test_a_lock_that_cannot_be_closed_to_readers_leaves_no_descriptor_open(tmp_path):
    (tmp_path / "lock").write_text("")
    os.chmod(str(tmp_path / "lock"), 0o644)         # as an older version made it

    def refuse(name, args):
        if name == "os.chmod":
            raise PermissionError(errno.EPERM, "of another user")
    before = os.listdir("/dev/fd")
    with auditing(refuse), pytest.raises(PermissionError):
        cms.open_lock(str(tmp_path / "lock"))
    assert os.listdir("/dev/fd") == before
    os.close(cms.open_lock(str(tmp_path / "lock")))
    assert stat.S_IMODE(os.stat(str(tmp_path / "lock")).st_mode) == 0o200


def test_of_the_files_of_a_handle_the_one_that_makes_it_a_handle_comes_first(tasks):
    """They are swept in this order: a sweep that is killed leaves no handle that has lost its end."""
    os.makedirs(tasks.handles)
    for suffix in (".cancel", ".end.json", ".json"):
        written(b"{}")(os.path.join(tasks.handles, "0" * 32 + suffix))
    files = tasks.handle_files()["0" * 32]
    assert [os.path.basename(path)[32:] for path in files] == [".json", ".cancel", ".end.json"]


def test_a_task_over_whose_removal_somebody_is_killed_is_not_listed_any_more(tasks, make):
    task = make().end()

    def die(event, args):
        if event == "shutil.rmtree":
            raise OSError(errno.EIO, "killed")
    with auditing(die), pytest.raises(OSError):
        task.dir.remove()
    assert tasks.ids() == [] and os.listdir(tasks.tasks) != []


def test_an_id_that_is_taken_leaves_its_task_alone(tasks, make):
    task = make().advance("spawned")
    hidden, descriptors = TaskDir.create(tasks.tasks, task.dir.spec(),
                                         "another prompt"), sorted(os.listdir("/dev/fd"))
    with pytest.raises(OSError):
        hidden.appear()
    hidden.discard()
    assert os.listdir(tasks.tasks) == [task.id] and task.dir.status().state is State.RUNNING
    assert sorted(os.listdir("/dev/fd")) == descriptors


# -- what has ended, in order -------------------------------------------------------------------------
NOW_S = 1_700_000_000.0


def stamps(store):
    return [stamp for stamp, _ in reversed(list(store.ended.newest_first(store.ended.text())))]


def ids(store):
    return [task_id for _, task_id in reversed(list(store.ended.newest_first(store.ended.text())))]


def test_ends_of_the_same_millisecond_and_of_a_clock_that_goes_back_have_places_of_their_own(tasks, make):
    made = [make(number).end() for number in range(1, 5)]
    tasks.ended.add([task.dir for task in made[:3]], [], NOW_S)
    tasks.ended.add([made[3].dir], [], NOW_S - 3600)
    assert ids(tasks) == [task.id for task in made]
    assert stamps(tasks) == ["%013d" % (NOW_S * 1000 + n) for n in range(4)]


@pytest.mark.parametrize("torn", ["", "17000", "1700000000000 00000000", "1700000000000 0000000000ff -"])
def test_an_end_is_noted_once_and_stands_on_its_own_line_whoever_was_killed_before(tasks, make, torn):
    one, two = make(1).end(), make(2).end()
    for _ in range(2):
        tasks.ended.add([one.dir], [], NOW_S)
    with open(tasks.ended.path, "a") as f:
        f.write(torn)
    tasks.ended.add([one.dir, two.dir], [], NOW_S)
    assert [task_id for task_id in ids(tasks) if task_id != "0000000000ff"] == [one.id, two.id]
    tasks.ended.collect([one.id])
    wanted = tasks.ended.wanted(tasks.ended.text())
    assert two.id in wanted and one.id not in wanted


def test_several_tasks_are_collected_at_once_and_nobody_elses_line_is_touched(tasks, make):
    made = [make(number).end() for number in range(1, 5)]
    tasks.ended.add([task.dir for task in made], [], NOW_S)
    before = tasks.ended.text()
    tasks.ended.collect([made[2].id, "0000000000ff", made[0].id])
    after = tasks.ended.text()
    assert tasks.ended.wanted(after) == [made[3].id, made[1].id]
    assert after.replace("+", "-") == before


def test_a_server_killed_between_the_two_indexes_leaves_nothing_twice(tasks, make):
    task = make(1).end()
    tasks.index()
    tasks.ended.add([task.dir], [], NOW_S)
    app = application(tasks)
    assert os.path.exists(os.path.join(tasks.live, task.id)) and app.lists.since("0").task_ids == [task.id]
    assert os.listdir(tasks.live) == ["whole"] and app.lists.all().task_ids == [task.id]


def test_what_was_swept_leaves_the_index_and_cursors_hold(tasks, make):
    made = [make(number).end() for number in (1, 2, 3)]
    tasks.ended.add([task.dir for task in made], [], NOW_S)
    before = stamps(tasks)
    made[1].dir.remove()
    tasks.ended.forget(lambda task_id: not tasks.has(task_id))
    assert (ids(tasks), stamps(tasks)) == ([made[0].id, made[2].id], before[::2])
    assert application(tasks).lists.since(before[0]).task_ids == [made[2].id]
