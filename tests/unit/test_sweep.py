"""What a sweep removes, what it keeps, and that no commit and no file that was there before is lost either
way."""
import contextlib
import hashlib
import json
import os
import pathlib
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

import codex_mcp_swarm as cms
from client import eventually
from conftest import GIT, told
from . import helpers
from .helpers import WAIT_S, begin, parent_of, pid_of
from .on_git import commit, files_of, head_of, put, sh
from .prepared import prepared

DAY_S = 86400.0
IGNORES = ".env\n*.log\n"


class Later(cms.Host):
    """Two days from now."""
    now = staticmethod(lambda: time.time() + 2 * DAY_S)


class Now(cms.Host):
    pass


def rest():
    """Wait for the sweeps that starts have begun by themselves."""
    for thread in threading.enumerate():
        if thread.name == "sweep":
            thread.join(WAIT_S)


def ended(app, ids):
    """The records of tasks that must all end, as a client is given them."""
    records = helpers.ended(app, ids)
    app.collected(ids)
    return records


def run(app, *prompt, **arguments):
    record = helpers.run(app, *prompt, **arguments)
    app.collected([record["task_id"]])
    return record


def sweep(app, host=Later, **how):
    rest()
    return list(cms.Swarm(app.config, host(), os.environ).sweep(**how))


def one(app, **how):
    """The one thing that a sweep found."""
    found = sweep(app, **how)
    assert len(found) == 1, found
    return found[0]


def trees(app):
    return [name for name in os.listdir(app.config.worktree_dir) if name != cms.OURS]


def left(app):
    """The tasks of which more than the answer is left."""
    return [name for name in os.listdir(app.store.tasks)
            if not os.path.exists(os.path.join(app.store.tasks, name, "kept"))]


def refs(repo, pattern="refs"):
    return sh(repo, "git", "for-each-ref", "--format=%(refname)", pattern).splitlines()


def all_there(repo, names):
    """That the repository has these objects when what nothing leads to has been removed, as `git gc` does."""
    sh(repo, "git", "prune", "--expire=now")
    lines = "\n".join(names).encode()
    said = subprocess.run([GIT, "-C", str(repo), "cat-file", "--batch-check"], input=lines, close_fds=False,
                          stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    assert len(said) == len(names) and [line for line in said if "missing" in line] == []


class Before:
    """All commits that anything in the repository or the worktree leads to, and all files of the worktree."""

    def __init__(self, repo, path):
        self.repo, self.files = repo, {}
        lines = sh(repo, "git", "rev-list", "--all").splitlines()
        if os.path.exists(os.path.join(path, ".git")):
            log = pathlib.Path(sh(path, "git", "rev-parse", "--absolute-git-dir"), "logs", "HEAD")
            lines += [name for line in log.read_text().splitlines() for name in line.split(" ")[:2]
                      if name.strip("0")]
        self.commits = set(lines)
        for file in pathlib.Path(path).rglob("*"):
            if ".git" not in file.parts and file.is_file():
                self.files[file] = file.read_bytes()

    def nothing_is_lost(self, but=()):
        gone = [data for file, data in self.files.items()
                if file.name not in but and not (file.exists() and file.read_bytes() == data)]
        blobs = [hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() for data in gone]
        all_there(self.repo, [*self.commits, *blobs])


@pytest.fixture
def made(swarm, repo, tmp_path):
    """(application, worktree of a task that has ended, its branch); `.env` was copied into it."""
    def make():
        put(repo, _gitignore=IGNORES, _worktreeinclude=".env\n")
        commit(repo, "ignores")
        put(repo, _env="KEY=1\n")
        record = run(swarm(), "WRITE work 1", worktree=True)
        # all tests below count on it
        assert (record["outcome"], record["worktree"].get("commits")) == ("succeeded", 1), record
        return record["task_id"]
    app = swarm()
    tree = app.store.get(prepared(tmp_path, "made", make)).spec().worktree
    with open(os.path.join(tree.git_dir, cms.COPIED), "w") as f:        # which names the inode
        f.write(".env\0%s\0" % cms.mark_of(tree.path, ".env"))
    return app, pathlib.Path(tree.path), tree.branch


def trash_of(repo, branch):
    return "refs/codex-swarm/trash/" + branch.split("/")[1]


# -- the matrix: what goes --------------------------------------------------------------------------------
def nothing(repo, top, branch):
    pass


def dirty(repo, top, branch):
    put(top, README="edited\n")
    (top / "work").unlink()


def untracked(repo, top, branch):
    put(top, new__deep="1\n")


def staged(repo, top, branch):
    put(top, x="staged\n")
    sh(top, "git", "add", "x")
    put(top, x="on disk\n")


def committed(repo, top, branch):
    put(top, x="1\n")
    commit(top)


def amended(repo, top, branch):
    put(top, x="1\n")
    commit(top)
    put(top, x="2\n")
    sh(top, "git", "add", "-A")
    sh(top, "git", "commit", "-q", "--amend", "-m", "again")


def detached(repo, top, branch):
    sh(top, "git", "checkout", "-q", "--detach")
    put(top, x="1\n")
    commit(top)


def reset(repo, top, branch):
    put(top, x="1\n")
    commit(top)
    sh(top, "git", "reset", "-q", "--hard", "HEAD~2")


def left_behind(repo, top, branch):
    detached(repo, top, branch)
    sh(top, "git", "checkout", "-q", branch)


def hidden_change(repo, top, branch):
    sh(top, "git", "update-index", "--assume-unchanged", "README")
    put(top, README="edited\n")


def unborn(repo, top, branch):
    sh(top, "git", "checkout", "-q", "--orphan", "new")
    sh(repo, "git", "update-ref", "-d", "refs/heads/" + branch)


def own_refs(repo, top, branch):
    put(top, x="1\n")
    sh(top, "git", "update-ref", "refs/worktree/mine", commit(top))
    sh(top, "git", "reset", "-q", "--hard", "HEAD~1")


GOING = [nothing, dirty, untracked, staged, committed, amended, detached, reset, left_behind, hidden_change,
         unborn, own_refs]


@pytest.mark.parametrize("act", GOING, ids=lambda f: f.__name__)
def test_what_no_other_ref_holds_stays_on_the_branch_or_in_the_trash(made, repo, act):
    app, top, branch = made
    act(repo, top, branch)
    before, planned = Before(repo, str(top)), one(app, dry_run=True)
    done = one(app)
    # which leaves a branch that is where `main` is, and its work in the log of HEAD alone
    kept = act is not reset
    assert done.removed and planned.removed
    assert branch in done.notes[-1] and ("stays" in done.notes[-1]) == kept, done
    assert not top.exists() and left(app) == [] and ("refs/heads/" + branch in refs(repo)) == kept
    assert branch.split("/")[1] not in sh(repo, "git", "worktree", "list", "--porcelain").replace(branch, "")
    assert len(planned.notes) == len(done.notes)
    before.nothing_is_lost(but=[".env"])
    assert (repo / ".env").read_text() == "KEY=1\n" and sweep(app) == []


def by_hand(repo, top, branch):
    shutil.rmtree(str(top))


def pruned(repo, top, branch):
    by_hand(repo, top, branch)
    sh(repo, "git", "worktree", "prune")


def moved(repo, top, branch):
    sh(repo, "git", "worktree", "move", str(top), str(top) + "-moved")


@pytest.mark.parametrize("act", [by_hand, pruned, moved], ids=lambda f: f.__name__)
def test_of_a_worktree_that_is_not_in_its_place_any_more_git_keeps_what_it_had(made, repo, act):
    app, top, branch = made
    staged(repo, top, branch)
    act(repo, top, branch)
    before, there = Before(repo, str(top) + "-moved"), sh(repo, "git", "worktree", "list", "--porcelain")
    done = [thing for thing in sweep(app) if thing.task_ids]
    assert done[0].removed and "gone already" in done[0].notes[-1] and left(app) == []
    assert sh(repo, "git", "worktree", "list", "--porcelain") == there
    assert "refs/heads/" + branch in refs(repo)
    before.nothing_is_lost()


def test_a_merged_branch_goes_and_is_remembered(made, repo):
    app, top, branch = made
    sh(repo, "git", "merge", "-q", "--no-ff", "-m", "merge", branch)
    tip, before = sh(repo, "git", "rev-parse", branch), Before(repo, str(top))
    assert "goes too" in one(app, dry_run=True).notes[-1] and top.exists()
    done = one(app)
    assert done.removed and "goes too" in done.notes[-1]
    assert refs(repo) == [trash_of(repo, branch), "refs/heads/main"] and not top.exists()
    before.nothing_is_lost(but=[".env"])
    sh(repo, "git", "branch", branch, trash_of(repo, branch) + "^1")
    assert sh(repo, "git", "rev-parse", branch) == tip


def merged_with_a_commit(repo, top, branch):
    sh(repo, "git", "merge", "-q", "--no-ff", "-m", "merge", branch)


def squashed(repo, top, branch):
    sh(repo, "git", "merge", "-q", "--squash", branch)
    commit(repo, "squashed")


def picked_and_gone_on(repo, top, branch):
    put(repo, other="1\n")
    commit(repo, "before")
    sh(repo, "git", "cherry-pick", branch)
    put(repo, other="2\n", work="1\nand more\n")
    sh(repo, "git", "checkout", "-q", "HEAD", "work")
    commit(repo, "after")


IN_HEAD = [merged_with_a_commit, squashed, picked_and_gone_on]


@pytest.mark.parametrize("act", IN_HEAD, ids=lambda f: f.__name__)
def test_what_is_in_head_already_goes_on_demand_before_its_time_and_is_remembered(made, repo, act):
    app, top, branch = made
    act(repo, top, branch)
    tip, before = sh(repo, "git", "rev-parse", branch), Before(repo, str(top))
    assert not one(app, host=Now).removed and top.exists()
    assert "goes too" in one(app, host=Now, merged=True, dry_run=True).notes[-1] and top.exists()
    done = one(app, host=Now, merged=True)
    assert done.removed and "goes too" in done.notes[-1], done
    assert refs(repo) == [trash_of(repo, branch), "refs/heads/main"] and not top.exists()
    assert sh(repo, "git", "rev-parse", trash_of(repo, branch) + "^1") == tip
    before.nothing_is_lost(but=[".env"])


def half_of_it(repo, top, branch):
    put(top, more="1\n")
    commit(top, "more")
    put(repo, work=(top / "work").read_text())
    commit(repo, "half")


def squashed_and_reverted(repo, top, branch):
    squashed(repo, top, branch)
    sh(repo, "git", "revert", "--no-edit", "HEAD")


def squashed_with_a_new_file_there(repo, top, branch):
    squashed(repo, top, branch)
    put(top, new="1\n")


@pytest.mark.parametrize("act", [nothing, half_of_it, squashed_and_reverted, squashed_with_a_new_file_there],
                         ids=lambda f: f.__name__)
def test_what_is_not_whole_in_head_waits_for_its_time(made, repo, act):
    app, top, branch = made
    act(repo, top, branch)
    before, all_refs = Before(repo, str(top)), refs(repo)
    done = one(app, host=Now, merged=True)
    assert not done.removed and "kept for 24 h" in done.notes[0]
    assert top.exists() and refs(repo) == all_refs
    before.nothing_is_lost()


def test_a_squashed_branch_that_is_checked_out_elsewhere_stays(made, repo, tmp_path):
    app, top, branch = made
    squashed(repo, top, branch)
    sh(top, "git", "checkout", "-q", "--detach")
    sh(repo, "git", "worktree", "add", "-q", str(tmp_path / "mine"), branch)
    assert "stays" in one(app, host=Now, merged=True).notes[-1]
    assert "refs/heads/" + branch in refs(repo) and not top.exists()


@pytest.mark.parametrize("ref", ["refs/remotes/origin/x", "refs/tags/x", "refs/heads/codex-swarm/merge-x"])
def test_a_branch_that_is_not_merged_into_head_stays_whatever_else_holds_it(made, repo, ref):
    app, top, branch = made
    sh(repo, "git", "update-ref", ref, branch)
    planned = one(app, dry_run=True)
    assert "stays" in planned.notes[-1]
    assert "stays" in one(app).notes[-1]
    assert "refs/heads/" + branch in refs(repo)


@pytest.mark.parametrize("how", ["another name for it", "the trash", "a replacement"])
def test_a_ref_that_would_go_with_the_branch_does_not_hold_it(made, repo, how):
    app, top, branch = made
    if how == "the trash":
        sh(repo, "git", "update-ref", trash_of(repo, branch) + "0", branch)
    elif how == "a replacement":            # `main` seems to hold it, but what counts for git gc does not
        sh(repo, "git", "replace", "--graft", "main", branch)
    else:
        sh(repo, "git", "symbolic-ref", "refs/heads/alias", "refs/heads/" + branch)
    assert "stays" in one(app).notes[-1] and "refs/heads/" + branch in refs(repo)


def test_a_branch_that_is_checked_out_elsewhere_stays(made, repo, tmp_path):
    app, top, branch = made
    sh(top, "git", "checkout", "-q", "--detach")
    sh(repo, "git", "merge", "-q", branch)
    sh(repo, "git", "worktree", "add", "-q", str(tmp_path / "mine"), branch)
    planned = one(app, dry_run=True)
    assert "stays" in planned.notes[-1] and str(tmp_path / "mine") in planned.notes[-1]
    assert "stays" in one(app).notes[-1] and "refs/heads/" + branch in refs(repo)
    assert (tmp_path / "mine" / "work").exists() and not top.exists()


def test_work_that_is_brought_home_first_keeps_a_merged_branch(made, repo):
    app, top, branch = made
    sh(repo, "git", "merge", "-q", branch)
    put(top, late="1\n")
    before, planned = Before(repo, str(top)), one(app, dry_run=True)
    assert "stays" in one(app).notes[-1]
    assert "stays" in planned.notes[-1]
    assert sh(repo, "git", "show", branch + ":late") == "1"
    before.nothing_is_lost(but=[".env"])


def test_what_is_in_the_trash_already_is_never_lost(made, repo):
    app, top, branch = made
    other = sh(repo, "git", "commit-tree", "-m", "other", "HEAD^{tree}")
    sh(repo, "git", "update-ref", trash_of(repo, branch), other)
    sh(repo, "git", "merge", "-q", branch)
    before = Before(repo, str(top))
    assert one(app).removed
    before.nothing_is_lost(but=[".env"])
    assert other in sh(repo, "git", "rev-parse", trash_of(repo, branch) + "^@").split()


@pytest.mark.parametrize("there", [True, False])
def test_a_lost_task_is_committed_before_its_worktree_goes(swarm, repo, there):
    app = swarm()
    task = begin(app, "WRITE half 1", "SLEEP 1000", worktree=True)
    top = pathlib.Path(task.spec().worktree.path)
    eventually((top / "half").exists, what="what it wrote")
    supervisor = parent_of(pid_of(task))
    os.kill(supervisor, signal.SIGKILL)
    assert ended(app, [task.task_id])[0]["outcome"] == "lost"
    assert "locked" in os.listdir(task.spec().worktree.git_dir)
    branch = task.spec().worktree.branch
    if not there:
        shutil.rmtree(str(top))
    before, done = Before(repo, str(top)), one(app)
    listed = sh(repo, "git", "worktree", "list", "--porcelain")
    assert done.removed and not top.exists() and "locked" not in listed
    sh(repo, "git", "worktree", "prune")
    assert str(top) not in sh(repo, "git", "worktree", "list")
    assert not there or sh(repo, "git", "show", branch + ":half") == "1"
    before.nothing_is_lost()


def test_replies_go_with_their_worktree_and_only_when_the_last_of_them_is_old(swarm, repo):
    app = swarm()
    first = run(app, "WRITE a 1", worktree=True)
    second = run(app, "WRITE b 1", task_id=first["task_id"])
    aged(app, first["task_id"])
    kept = one(app, host=Now)
    assert not kept.removed
    assert sorted(kept.task_ids) == sorted([first["task_id"], second["task_id"]])
    assert "kept for 24 h" in kept.notes[0]
    aged(app, second["task_id"])
    done = one(app, host=Now)
    assert done.removed and left(app) == [] and not os.path.exists(first["worktree"]["path"])
    assert sh(repo, "git", "ls-tree", "-r", "--name-only",
              first["worktree"]["branch"]).split() == ["README", "a", "b"]


def aged(app, task_id, by=2 * DAY_S):
    path = app.store.get(task_id).file("report.json")
    report = cms.read_json(path)
    cms.write_atomic(path, dict(report, ended_at=report["ended_at"] - by))


def test_a_task_without_a_worktree_goes_alone(swarm):
    app = swarm()
    run(app, "SAY x")
    running = begin(app, "SLEEP 1000")
    found = {thing.removed: thing for thing in sweep(app)}
    assert "has not ended" in found[False].notes[0]
    assert found[False].task_ids == (running.task_id,)
    assert found[True].removed
    assert left(app) == [running.task_id]


def test_with_an_age_of_0_everything_is_kept_and_says_so(swarm):
    app = swarm(task_max_age_s=0.0)
    run(app, "SAY x")
    assert "kept for ever" in one(app).notes[0] and not one(app).removed


# -- the matrix: what is kept -----------------------------------------------------------------------------
def ignored_file(repo, top, branch):
    put(top, debug_log="1\n")


def changed_copy(repo, top, branch):
    put(top, _env="KEY=2\n")


def user_lock(repo, top, branch):
    sh(repo, "git", "worktree", "lock", "--reason", "mine!", str(top))


def unfinished(repo, top, branch):
    for at, text in ((repo, "a\n"), (top, "b\n")):
        put(at, README=text)
        commit(at)
    subprocess.run(["git", "merge", "-q", "main"], cwd=str(top), stdout=subprocess.DEVNULL)


def nested(repo, top, branch):
    sh(top, "git", "init", "-q", "inner")
    sh(top / "inner", "git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty",
       "-m", "x")


def nested_in_a_tracked_directory(repo, top, branch):
    put(top, inner__x="1\n")
    commit(top)
    nested(repo, top, branch)


def outward_link(repo, top, branch):
    os.symlink("/etc/passwd", str(top / "link"))


def replaced(repo, top, branch):
    (top / ".git").unlink()
    sh(top, "git", "init", "-q")


def forgotten(repo, top, branch):
    shutil.rmtree(str(repo / ".git" / "worktrees"))


def repository_gone(repo, top, branch):
    os.rename(str(repo), str(repo) + "-moved")


def ref_to_a_file(repo, top, branch):
    sh(top, "git", "update-ref", "refs/worktree/x", sh(top, "git", "rev-parse", "HEAD:README"))


def linked(repo, top, branch):
    os.rename(str(top), str(repo) + "-there")
    os.symlink(str(repo) + "-there", str(top))


KEPT = [(ignored_file, "`debug.log`"), (changed_copy, "copied file was changed: `.env`"),
        (user_lock, "mine!"),
        (unfinished, "merge is unfinished"), (nested, "repository: `inner`"),
        (nested_in_a_tracked_directory, "repository: `inner`"), (outward_link, "leads out"),
        (replaced, "`.git` leads elsewhere"), (ref_to_a_file, "`refs/worktree/x` leads to no commit"),
        (forgotten, "does not know"), (repository_gone, "repository was moved"), (linked, "")]


@pytest.mark.parametrize("act, words", KEPT, ids=[f.__name__ for f, _ in KEPT])
def test_it_is_kept_with_the_reason_and_nothing_changes(made, repo, act, words):
    app, top, branch = made
    act(repo, top, branch)
    before = digest(app.config.root, *(p for p in repo.parent.iterdir() if p.name.startswith("repo")))
    planned, done = [[t._replace(age_s=0) for t in sweep(app, dry_run=dry) if t.task_ids]
                     for dry in (True, False)]
    assert planned == done and not done[0].removed and words in done[0].notes[0], done
    assert digest(app.config.root, *(p for p in repo.parent.iterdir() if p.name.startswith("repo"))) == before


def digest(*tops):
    """Every file below these, with its content and its time."""
    rest()
    found = {}
    for top in map(pathlib.Path, map(str, tops)):
        for path in sorted(top.rglob("*")):
            about = path.lstat()
            if path.name not in ("sweep.lock", "control"):
                found[str(path)] = (about.st_mode, about.st_mtime_ns if not path.is_dir() else 0,
                                    path.read_bytes() if stat.S_ISREG(about.st_mode) and about.st_mode & 0o400
                                    else b"")
    return found


def test_ignored_files_go_when_a_human_says_so(made, repo):
    app, top, branch = made
    put(top, debug_log="1\n")
    assert not one(app).removed and (top / "debug.log").exists()
    assert one(app, ignored=True).removed and not top.exists()


def test_even_then_a_changed_copy_is_kept(made, repo):
    app, top, branch = made
    changed_copy(repo, top, branch)
    assert not one(app, ignored=True).removed and (top / ".env").read_text() == "KEY=2\n"


def test_a_copied_file_that_is_not_ignored_any_more_is_no_secret_for_a_branch(made, repo):
    app, top, branch = made
    put(top, _gitignore="*.log\n")
    done = one(app)
    assert done.removed
    assert sh(repo, "git", "ls-tree", "-r", "--name-only",
              branch).split() == [".gitignore", ".worktreeinclude", "README", "work"]


# -- submodules -------------------------------------------------------------------------------------------
def test_a_submodule_that_the_task_added_keeps_its_worktree(made, repo, tmp_path):
    app, top, branch = made
    sh(tmp_path, "git", "clone", "-q", str(repo), "sub")
    sh(top, "git", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "sub"),
       "sub")
    commit(top)
    done = one(app)
    assert not done.removed
    assert "`sub`" in done.notes[0]
    assert "git worktree remove --force" in done.notes[0]
    assert (top / "sub" / "README").exists()


@pytest.fixture
def made_with_submodule(swarm, repo, tmp_path):
    """The same as `made`, with the submodule `lib/sub`, which the server checked out."""
    def make():
        sh(tmp_path, "git", "clone", "-q", str(repo), "library")
        put(tmp_path / "library", inside="1\n", _gitignore="*.log\n")
        sh(tmp_path / "library", "git", "add", "-A")
        sh(tmp_path / "library", "git", *ME.split(), "commit", "-q", "-m", "library")
        sh(repo, "git", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--name",
           "a/library", str(tmp_path / "library"), "lib/sub")
        commit(repo)
        record = run(swarm(), "WRITE work 1", worktree=True)
        tree = swarm().store.get(record["task_id"]).spec().worktree
        assert record["worktree"]["submodules"] == ["lib/sub"] and tree.seal == cms.seal_of(tree)
        return record["task_id"]
    app = swarm()
    task = app.store.get(prepared(tmp_path, "made with submodule", make))
    spec = task.spec()
    tree = spec.worktree
    sealed = spec._replace(worktree=tree._replace(seal=cms.seal_of(tree)))      # which knows inodes
    cms.write_atomic(task.file("spec.json"), cms.to_json(sealed))
    return app, pathlib.Path(tree.path), tree.branch


def test_a_submodule_that_is_as_it_was_checked_out_goes_with_its_worktree(made_with_submodule, repo):
    app, top, branch = made_with_submodule
    sh(top / "lib" / "sub", "git", "status")            # which writes its index
    assert one(app, dry_run=True).removed and (top / "lib" / "sub" / "inside").exists()
    assert one(app).removed and not top.exists() and not (repo / ".git" / "worktrees").exists()
    assert sh(repo, "git", "show", branch + ":work") == "1" and (repo / "lib" / "sub" / "inside").exists()


ME = "-c user.name=A -c user.email=a@b.invalid"
WORKED_IN = {
    "a change": "echo 2 > inside",
    "a change that git is told to overlook": "git update-index --assume-unchanged inside; echo 2 > inside",
    "a deletion": "rm inside", "a new file": "echo 1 > new", "an ignored file": "echo 1 > x.log",
    "a branch": "git branch mine", "a tag": "git tag mine",
    "a commit": "git %s commit -q --allow-empty -m x" % ME,
    "a commit in the log": "git %s commit -q --allow-empty -m x; git reset -q --hard HEAD~1" % ME,
    "a commit of another worktree": "git worktree add -q --detach ../elsewhere; cd ../elsewhere; "
                                    "git %s commit -q --allow-empty -m x; rm -r ../elsewhere" % ME,
    "a stash": "echo 2 > inside; git %s stash -q" % ME, "a repository": "git init -q inner",
    "a repository in its place": "rm .git; git init -q; git %s commit -q --allow-empty -m x" % ME,
    "a repository of another submodule":
        "git init -q --separate-git-dir $(git rev-parse --absolute-git-dir)/../other ../other; "
        "rm -r ../other"}


@pytest.mark.parametrize("how", WORKED_IN)
def test_a_submodule_in_which_something_was_done_keeps_its_worktree(made_with_submodule, repo, how):
    app, top, branch = made_with_submodule
    sh(top / "lib" / "sub", "sh", "-c", WORKED_IN[how])
    done = one(app)
    assert not done.removed and "lib/sub" in done.notes[0], done
    assert "git worktree remove --force" in done.notes[0]
    assert (top / "lib" / "sub").exists()
    assert os.path.isdir(str(repo / ".git" / "worktrees" / top.name / "modules" / "a" / "library"))


# -- what git cannot read ---------------------------------------------------------------------------------
def flipped(data):
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGES = {"empty": lambda data: b"", "cut off": lambda data: data[:-4], "garbage": lambda data: b"garbage\n",
           "one bit": flipped}


def loose(repo, rev):
    name = sh(repo, "git", "rev-parse", rev)
    return repo / ".git" / "objects" / name[:2] / name[2:]


@pytest.mark.parametrize("rev, how",
                         [*(("%s:work", how) for how in [*DAMAGES, "gone"]), ("%s^{tree}", "empty"),
                          ("%s^{tree}", "gone"), ("%s", "one bit"), ("%s", "gone")])
def test_a_worktree_is_kept_when_an_object_of_its_branch_cannot_be_read(made, repo, rev, how):
    app, top, branch = made
    sh(repo, "git", "update-ref", "refs/tags/held", branch)
    path = loose(repo, rev % branch)
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(DAMAGES[how](data))
    done = one(app)
    assert not done.removed and (top / "work").read_text() == "1\n", done
    if rev == "%s:work":
        assert "cannot read all that is on its branch" in done.notes[0]
        assert one(app, dry_run=True).notes == done.notes


def test_what_the_reason_advises_makes_the_object_whole_again(made, repo):
    app, top, branch = made
    path = loose(repo, branch + ":work")
    path.chmod(0o600)
    path.write_bytes(b"")
    assert "git hash-object -w" in one(app).notes[0]
    path.unlink()
    sh(top, "git", "hash-object", "-w", "work")
    assert one(app).removed and sh(repo, "git", "show", branch + ":work") == "1"


def test_a_worktree_is_kept_when_a_pack_is_damaged(made, repo):
    app, top, branch = made
    blob = sh(repo, "git", "rev-parse", branch + ":work")
    sh(repo, "git", "repack", "-a", "-d", "-q")
    index = next((repo / ".git" / "objects" / "pack").glob("*.idx"))
    _, _, _, length, offset = next(row
                                   for row in sh(repo, "git", "verify-pack", "-v", str(index)).splitlines()
                                   if row.startswith(blob)).split()
    pack = index.with_suffix(".pack")
    data, end = bytearray(pack.read_bytes()), int(offset) + int(length)
    data[end - 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    done = one(app)
    assert not done.removed and "cannot read" in done.notes[0] and (top / "work").read_text() == "1\n"


def test_what_is_read_before_a_removal_costs_no_memory(made, repo):
    """4 MB on the branch, and git's output of it is not collected."""
    app, top, branch = made
    put(top, big="x" * 4_000_000)
    commit(top)
    outputs = []

    class Watching(Later):
        def run(self, *words, **more):
            done = super().run(*words, **more)
            outputs.append(len(done.out))
            return done
    assert one(app, host=Watching).removed and outputs and max(outputs) < 1_000_000


def test_a_worktree_with_something_mounted_in_it_is_kept(made, tmp_path, monkeypatch):
    app, top, branch = made
    (top / "a b").mkdir()
    table = tmp_path / "mountinfo"
    place = os.path.realpath(str(top / "a b")).replace(" ", "\\040")
    table.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n36 22 8:1 /data %s rw - ext4 /dev/sda1 rw\n"
                     % place)

    monkeypatch.setattr(cms.mounted_in, "__defaults__", (str(table),))       # the kernel's, as it would say
    done = one(app)
    assert not done.removed
    assert "mounted" in done.notes[0]
    assert place in done.notes[0]
    assert (top / "a b").is_dir()
    with pytest.raises(OSError):
        cms.delete_tree(str(top))
    assert (top / "a b").is_dir() and (top / "work").exists()
    table.write_text(table.read_text().splitlines()[0])
    assert one(app).removed


@pytest.mark.skipif(not cms.LINUX, reason="there is no /proc elsewhere")
def test_a_worktree_in_which_a_process_works_is_kept(made):
    app, top, branch = made
    (top / "deep").mkdir()
    with subprocess.Popen(["sleep", "1000"], cwd=str(top / "deep")) as sleeper:
        try:
            done = one(app)
            assert not done.removed and "pid %d" % sleeper.pid in done.notes[0] and top.exists()
        finally:
            sleeper.kill()
    assert one(app).removed


def test_worktrees_and_directories_that_we_did_not_make_are_never_touched(made, repo):
    app, top, branch = made
    trees = top.parent
    sh(repo, "git", "worktree", "add", "-q", "-b", "mine", str(trees / "mine"))
    sh(repo, "git", "worktree", "add", "-q", "-b", "other", str(trees / "0123456789ab"))
    sh(repo, "git", "worktree", "add", "-q", "-b", "codex-swarm/aaaaaaaaaaaa", str(trees / "aaaaaaaaaaaa"))
    put(trees, bbbbbbbbbbbb__x="1\n", notes="1\n")
    os.symlink("/nowhere", str(trees / "cccccccccccc"))
    names = ["0123456789ab", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "mine", "notes"]
    before = digest(*(trees / name for name in names))
    found = [thing for thing in sweep(app) if not thing.task_ids]
    assert [os.path.basename(t.path) for t in found if not t.removed and "Not ours" in t.notes[0]] == names
    assert digest(*(trees / name for name in names)) == before and "refs/heads/mine" in refs(repo)


def half(repo, trees, name, *more):
    """What a server leaves that is killed while it makes a worktree."""
    sh(repo, "git", "branch", "codex-swarm/" + name)
    sh(repo, "git", "worktree", "add", "-q", *more, str(trees / name), "codex-swarm/" + name)
    sh(repo, "git", "worktree", "lock", "--reason", cms.LOCK_REASON, str(trees / name))


@pytest.mark.parametrize("more", [[], ["--no-checkout"]], ids=["whole", "without its files"])
def test_a_worktree_that_a_server_was_killed_over_goes_when_it_is_old(made, repo, more):
    app, top, branch = made
    half(repo, top.parent, "0123456789ab", *more)
    assert not [thing for thing in sweep(app, host=Now) if thing.path.endswith("0123456789ab")][0].removed
    done = [thing for thing in sweep(app) if thing.path.endswith("0123456789ab")][0]
    assert done.removed and not (top.parent / "0123456789ab").exists()
    assert "refs/heads/codex-swarm/0123456789ab" not in refs(repo)


def test_a_worktree_that_a_server_was_killed_over_is_kept_with_what_somebody_committed_there(made, repo):
    app, top, branch = made
    half(repo, top.parent, "0123456789ab")
    put(top.parent / "0123456789ab", x="1\n")
    commit(top.parent / "0123456789ab")
    done = [thing for thing in sweep(app) if thing.path.endswith("0123456789ab")][0]
    assert not done.removed and "committed something" in done.notes[0]


@pytest.mark.parametrize("name, text",
                         [("spec.json", "{"), ("report.json", "[]"),
                          ("report.json", '{"outcome": "succeeded", "elapsed_s": 1, "ended_at": "soon"}'),
                                        ("report.json",
                                         '{"outcome": "succeeded", "elapsed_s": 1, "ended_at": NaN}'),
                          ("report.json", '{"outcome": "succeeded", "elapsed_s": 1, "ended_at": 0}')])
def test_a_task_whose_record_is_damaged_is_kept(swarm, name, text):
    app = swarm()
    task = app.store.get(run(app, "SAY x")["task_id"])
    pathlib.Path(task.file(name)).write_text(text)
    done = one(app)
    assert not done.removed
    assert "is damaged" in done.notes[0]
    assert task.path in done.notes[0]
    assert os.path.isdir(task.path)


def test_a_sweep_that_was_killed_over_a_worktree_whose_repository_is_gone_now_leaves_the_files(made, repo):
    app, top, branch = made
    os.rename(str(top), str(top.parent / (".removed-" + top.name)))
    os.rename(str(repo), str(repo) + "-moved")
    assert "its repository was moved" in one(app).notes[0]
    os.rename(str(repo) + "-moved", str(repo))
    assert one(app).removed and not top.exists() and trees(app) == []
    assert sh(repo, "git", "show", branch + ":work") == "1"


def test_what_a_killed_sweep_left_goes_when_a_reply_has_made_the_worktree_anew(made):
    app, top, branch = made
    assert one(app).removed
    hidden = top.parent / (".removed-" + top.name)
    hidden.mkdir()                                  # it was killed while it deleted that
    (hidden / "work").write_text("1\n")
    assert run(app, "WRITE more 2", task_id=top.name)["outcome"] == "succeeded" and top.exists()
    assert all(thing.removed for thing in sweep(app)) and not hidden.exists() and not top.exists()


def test_a_reply_says_that_a_sweep_was_killed_over_its_worktree(made):
    app, top, branch = made
    os.rename(str(top), str(top.parent / (".removed-" + top.name)))
    with pytest.raises(cms.ToolError) as caught:
        run(app, "SAY x", task_id=top.name)
    assert "A sweep was killed" in str(caught.value) and "codex-mcp-swarm sweep" in str(caught.value)
    assert one(app).removed
    assert run(app, "SAY x", task_id=top.name)["outcome"] == "succeeded"


@pytest.mark.parametrize("then", ["on disk\n", None])
def test_what_is_staged_and_not_on_disk_is_remembered(made, repo, then):
    app, top, branch = made
    put(top, plan="staged\n")
    sh(top, "git", "add", "plan")
    put(top, plan=then) if then else (top / "plan").unlink()
    assert one(app).removed
    (repo / "same").write_text("staged\n")
    assert sh(repo, "git", "hash-object", "same") in sh(repo, "git", "rev-list", "--objects",
                                                        trash_of(repo, branch))


def test_a_lock_of_the_users_without_a_reason_keeps_the_worktree_and_the_dry_run_says_so(made, repo):
    app, top, branch = made
    sh(repo, "git", "worktree", "lock", str(top))
    for dry_run in (True, False):
        done = one(app, dry_run=dry_run)
        assert not done.removed and "Somebody locked it" in done.notes[0]


def test_a_worktree_of_another_root_in_the_same_place_is_left_alone_while_its_task_runs(
        made, swarm, repo, tmp_path):
    app, top, branch = made
    other = swarm(root=str(tmp_path / "other"), worktree_dir=str(top.parent))
    task = begin(other, "SLEEP 1000", worktree=True)
    tree = task.spec().worktree
    try:
        found = [t for t in sweep(app) if task.task_id in t.path][0]
        assert not found.removed and os.path.isdir(tree.path) and "Not ours" in found.notes[0]
    finally:
        other.stop([task.task_id])
        ended(other, [task.task_id])


def test_what_forbids_its_own_removal_goes_all_the_same(made):
    app, top, branch = made
    put(top, cache_log__deep__x="1\n")
    os.chmod(str(top / "cache.log" / "deep"), 0o500)
    assert one(app, ignored=True).removed and not top.exists()


def test_a_worktree_outside_of_the_directory_of_worktrees_is_kept(made, swarm, tmp_path):
    app, top, branch = made
    done = one(swarm(worktree_dir=str(tmp_path / "elsewhere")))
    assert not done.removed and "CODEX_SWARM_WORKTREE_DIR" in done.notes[0] and top.exists()


# -- dry run, sizes ---------------------------------------------------------------------------------------
def test_a_dry_run_changes_nothing_at_all(made, repo):
    app, top, branch = made
    run(app, "SAY x")
    dirty(repo, top, branch)
    staged(repo, top, branch)
    half(repo, top.parent, "0123456789ab")
    (pathlib.Path(app.store.tasks) / ".0123456789ab").mkdir()
    look = lambda: (digest(app.config.root, repo), sorted(os.listdir(app.config.root)), refs(repo),
                    sh(repo, "git", "count-objects", "-v"))
    before = look()
    assert sum(thing.removed for thing in sweep(app, dry_run=True)) == 3    # `.0123` goes after its worktree
    assert look() == before


def test_a_dry_run_without_a_root_makes_none(swarm, root):
    assert sweep(swarm(), dry_run=True) == sweep(swarm()) == [] and not root.exists()


def test_sizes_are_those_of_du(made, tmp_path):
    app, top, branch = made
    put(top, big="x" * 3_000_000, deep__er="y" * 50_000)
    os.link(str(top / "big"), str(top / "again"))
    os.symlink("/usr", str(top / "link"))
    found = one(app, dry_run=True)
    said = 1024 * sum(int(line.split()[0])
                      for line in sh("/", "du", "-sk", str(top),
                                     *(os.path.join(app.store.tasks, i)
                                       for i in found.task_ids)).splitlines())
    assert abs(found.bytes - said) <= 0.05 * said


# -- trash ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("days, kept", [(29, True), (31, False)])
def test_the_trash_is_emptied_after_30_days(made, repo, days, kept):
    app, top, branch = made
    sh(repo, "git", "merge", "-q", branch)
    assert one(app).removed
    run(app, "SAY x", worktree=True)            # so that a sweep comes by that repository

    class Host(cms.Host):
        now = staticmethod(lambda: time.time() + (2 + days) * DAY_S)
    sweep(app, dry_run=True, host=Host)
    assert trash_of(repo, branch) in refs(repo)
    sweep(app, host=Host)
    assert (trash_of(repo, branch) in refs(repo)) == kept


# -- handles and leftovers --------------------------------------------------------------------------------
def handle(app, number, *task_ids, end=False):
    handle_id = "%032x" % number
    app.store.write_handle(cms.Handle(handle_id, time.time(), cms.Wait(tuple(task_ids), owned=True)))
    if end:
        app.store.end_handle(handle_id, cms.HandleEnd(time.time(), "completed", "", {"content": []}))
    app.store.mark_cancelled(handle_id)
    return handle_id


def test_handles_go_with_the_last_of_their_tasks(swarm):
    app = swarm()
    done, running = run(app, "SAY x")["task_id"], begin(app, "SLEEP 1000").task_id
    handle(app, 1, done, end=True)
    handle(app, 2, "0" * 12)
    kept = [handle(app, 3, running), handle(app, 4, done, running, end=True)]
    (pathlib.Path(app.store.handles) / ("%032x.json.new" % 5)).write_text("{")
    (pathlib.Path(app.store.handles) / "mine").write_text("")
    sweep(app, host=Now)
    assert len(os.listdir(app.store.handles)) == 3 + 2 + 2 + 3 + 2
    sweep(app)
    assert {name[:32] for name in os.listdir(app.store.handles)} == {*kept, "mine"}


def test_the_result_that_an_unended_handle_will_need_is_kept(swarm):
    app = swarm()
    done, running = run(app, "SAY x")["task_id"], begin(app, "SLEEP 1000").task_id
    handle(app, 1, done, running)
    sweep(app)
    assert app.record(done)["content"] == "x"
    app.stop([running])
    ended(app, [running])
    assert all(thing.removed for thing in sweep(app)) and os.listdir(app.store.handles) == []


def test_what_a_killed_server_left_hidden_goes_when_it_is_old(tasks, tmp_path):
    app = cms.Swarm(cms.Config(tasks.root, str(tmp_path / "worktrees")), Later(), {})
    hidden = pathlib.Path(cms.TaskDir.create(tasks.tasks, cms.Spec("0123456789ab", 1.0, "x", "/"), "x").path)
    outside = tmp_path / "outside"
    put(outside, x="1\n")
    os.symlink(str(outside), str(hidden / "link"))
    (pathlib.Path(tasks.tasks) / ".mine").mkdir()
    assert sweep(app, host=Now) == [] and hidden.exists()
    assert one(app).removed and os.listdir(tasks.tasks) == [".mine"] and (outside / "x").exists()


# -- at once ----------------------------------------------------------------------------------------------
PROGRAM = """
import itertools, json, os, signal, sys, time
import codex_mcp_swarm as cms
cms.Host.now = staticmethod(lambda: time.time() + 2 * 86400)
config, events, die_at = cms.Config(**json.loads(sys.argv[1])), 0, 0

def count(name, args):
    global events
    if name in ("subprocess.Popen", "os.rename", "os.remove", "os.rmdir", "os.chmod"):
        events += 1
        if events == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

def sweep():
    for thing in cms.Swarm(config, cms.Host(), os.environ).sweep():
        print(json.dumps([thing.removed, thing.path, thing.notes]), flush=True)

if sys.argv[2:] != ["killed"]:
    sys.exit(sweep())
cms.Host().prepare_to_launch()
# each sweep is a process of its own, only the import is shared
for die_at, _ in zip(itertools.count(1, 2), sys.stdin):
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        sys.addaudithook(count)
        sweep()
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def elsewhere(app, *how):
    """A sweep in a process of its own; with `killed` one for each line that it is sent, which dies two
    steps later than the one before."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(app.config._asdict()), *how],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__)))


def test_two_sweeps_at_once_share_the_work_and_lose_nothing(swarm, repo):
    app = swarm()
    records = ended(app,
                    app.start([{"prompt": "WRITE file%d 1" % n, "worktree": True} for n in range(4)]
                              + [{"prompt": "SAY x"}] * 4))
    tips = {r["worktree"]["branch"]: r["worktree"]["head"] for r in records if "worktree" in r}
    for branch in list(tips)[:2]:
        sh(repo, "git", "merge", "-q", "-m", "m", branch)
    both = [elsewhere(app) for _ in range(2)]
    lines = []
    for sweeper in both:
        out, err = sweeper.communicate(timeout=WAIT_S)
        assert (sweeper.returncode, err) == (0, b"")
        lines += map(json.loads, out.splitlines())
    # what one sees while the other removes it, it names as kept
    gone = [path for removed, path, _ in lines if removed]
    assert len(gone) == len(set(gone)) == 8, lines
    assert left(app) == trees(app) == []
    all_there(repo, tips.values())
    assert [b for b in tips if "refs/heads/" + b in refs(repo)] == list(tips)[2:]


def test_wherever_a_sweep_is_killed_the_next_one_goes_on_and_nothing_is_lost(made, repo):
    app, top, branch = made
    dirty(repo, top, branch)
    staged(repo, top, branch)
    put(top, many__a="1\n", many__b="2\n")
    before, record, sweeper = Before(repo, str(top)), app.record(top.name), elsewhere(app, "killed")
    for deaths in range(1, 300):
        assert another(app).record(top.name) == record
        sweeper.stdin.write(b"\n")
        sweeper.stdin.flush()
        assert select.select([sweeper.stdout], [], [], WAIT_S)[0]
        ended_with = int(sweeper.stdout.readline())
        if ended_with == 0:
            break
        assert ended_with == signal.SIGKILL
    assert sweeper.communicate(timeout=WAIT_S) == (b"", b"")
    assert deaths > 15 and not top.exists() and trees(app) == []
    before.nothing_is_lost(but=[".env"])
    assert sh(repo, "git", "show", branch + ":many/b") == "2"
    assert sh(repo, "git", "log", "--format=%s", branch).count("What the task left") == 1


def test_a_reply_that_starts_during_a_sweep_finds_its_worktree_or_is_refused(swarm, repo):
    app = swarm()
    records = ended(app, app.start([{"prompt": "WRITE a 1", "worktree": True}] * 3))
    sweeper, outcomes = elsewhere(app), []
    for record in reversed(records):
        try:
            outcomes.append(ended(app, app.start([{"prompt": "WRITE b 1", "task_id": record["task_id"]}]))[0])
        except cms.ToolError as error:
            outcomes.append(error)
    assert sweeper.communicate(timeout=WAIT_S)[1] == b""
    for record, outcome in zip(reversed(records), outcomes):
        if isinstance(outcome, cms.ToolError):
            assert "There is no task" in str(outcome), outcome
        else:
            assert outcome["outcome"] == "succeeded"
            assert sh(repo, "git", "show", record["worktree"]["branch"] + ":b") == "1"


def test_while_tasks_are_being_started_a_sweep_by_itself_passes_over_everything(made):
    app, top, branch = made
    with app.store.locked("sweep.lock", cms.fcntl.LOCK_SH):
        assert sweep(app, by_itself=True) == [] and top.exists()
    assert len(sweep(app, by_itself=True)) == 1


# -- by itself --------------------------------------------------------------------------------------------
def test_a_start_sweeps_once_an_hour_for_all_servers(swarm, root, monkeypatch):
    app = swarm()
    first = run(app, "SAY x")["task_id"]
    rest()
    later = cms.Swarm(app.config, Later(), os.environ)
    run(later, "SAY y")
    rest()
    kept = len(left(app))                                   # `y` as well, if it had not ended by then
    assert first not in left(app)
    swept = os.stat(str(root / "swept")).st_mtime
    assert swept > time.time() + DAY_S
    another = cms.Swarm(app.config, Later(), os.environ)
    aged(app, run(another, "SAY z")["task_id"], 9 * DAY_S)
    run(another, "SAY z")
    rest()
    assert os.stat(str(root / "swept")).st_mtime == swept and len(left(app)) == kept + 2


def test_a_sweep_that_fails_is_logged_and_hurts_nothing(swarm, root, tmp_path):
    app = swarm()
    run(app, "SAY x")
    rest()
    host = Later(str(tmp_path / "log"))
    (root / "swept").unlink()
    (root / "swept").mkdir()
    os.utime(str(root / "swept"), (1, 1))
    assert run(cms.Swarm(app.config, host, os.environ), "SAY y")["content"] == "y"
    rest()
    assert "The sweep of what is old failed" in (tmp_path / "log").read_text()


# -- room -------------------------------------------------------------------------------------------------
def test_below_the_limit_of_free_space_no_worktree_is_made(swarm, repo, root):
    app = swarm(min_free_mb=1 << 40)
    with pytest.raises(cms.ToolError) as caught:
        app.start([{"prompt": "x", "worktree": True}])
    assert [w
            for w in ("MiB are free", "CODEX_SWARM_MIN_FREE_MB", "1,099,511,627,776", "codex-mcp-swarm sweep",
                      "CODEX_SWARM_WORKTREE_DIR") if w not in str(caught.value)] == []
    assert refs(repo) == ["refs/heads/main"] and os.listdir(app.store.tasks) == trees(app) == []
    assert run(app, "SAY x")["content"] == "x"          # without a worktree there is no limit


def test_a_limit_of_0_never_refuses(swarm):
    assert run(swarm(min_free_mb=0), "SAY x", worktree=True)["outcome"] == "succeeded"


# -- what nobody has collected, and what a merge left -----------------------------------------------------
def test_a_result_that_no_client_has_collected_is_kept_for_30_days(swarm):
    app = swarm()
    task_id = helpers.run(app, "SAY x")["task_id"]
    done = one(app)
    assert not done.removed
    assert "No client has collected" in done.notes[0]
    assert app.record(task_id)["content"] == "x"

    class MuchLater(cms.Host):
        now = staticmethod(lambda: time.time() + 31 * DAY_S)
    assert one(app, host=MuchLater).removed


def test_what_a_server_killed_while_it_verified_a_merge_left_is_removed(swarm, repo):
    app = swarm(merge_verify='touch made; kill -9 $PPID; sleep 1000')
    task_id = run(app, "WRITE a 1", worktree=True)["task_id"]
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import os, codex_mcp_swarm as cms\n"
              "s = cms.Swarm(cms.Config(sys.argv[2], sys.argv[2] + '/worktrees', merge_verify=sys.argv[4]), "
              "cms.Host(), os.environ)\n"
              "s.merge([sys.argv[3]], cms.Call(), cms.Wish())")
    before = refs(repo)
    done = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(cms.__file__), app.config.root, task_id,
         "touch made; kill -9 $PPID"], timeout=60)
    assert done.returncode == -9 and refs(repo) == before
    left = [p for p in pathlib.Path(app.config.worktree_dir).iterdir() if p.name.startswith("merge-")]
    assert len(left) == 1
    assert [t.removed for t in sweep(app, host=Now) if t.path == str(left[0])] == [False]
    os.utime(str(left[0]), (1, 1))
    assert [t.removed for t in sweep(app) if t.path == str(left[0])] == [True]
    assert not left[0].exists() and "merge-" not in sh(repo, "git", "worktree", "list")
    assert not [ref for ref in refs(repo) if "tried-" in ref]


# -- what an attack found ---------------------------------------------------------------------------------
def test_what_was_remembered_before_is_remembered_from_the_removal_on(made, repo):
    app, top, branch = made
    put(top, more="1\n")
    amended = commit(top)
    sh(top, "git", "commit", "-q", "--amend", "-m", "amended")
    sh(repo, "git", "merge", "-q", branch)
    tree = app.store.get(branch.split("/")[1]).spec().worktree
    long_ago = cms.Git(type("Then", (cms.Host,), {"now": staticmethod(lambda: time.time() - 40 * DAY_S)})(),
                       os.environ)
    cms.Clearing(long_ago, tree)._remember()
    assert refs(repo, "refs/codex-swarm")
    assert one(app).removed and refs(repo, "refs/codex-swarm") == [trash_of(repo, branch)]
    sh(repo, "git", "gc", "-q", "--prune=now")
    sh(repo, "git", "cat-file", "-e", amended)


def test_a_tree_too_deep_to_look_through_and_a_damaged_record_keep_no_other_from_being_swept(made, repo):
    app, top, branch = made
    deep = run(app, "SHELL python3 -c 'import os; [(os.mkdir(\"a\"), os.chdir(\"a\")) for _ in range(1200)]'",
               worktree=True)["worktree"]
    broken = run(app, "SAY x")["task_id"]
    spec = pathlib.Path(app.store.tasks, broken, "spec.json")
    spec.write_text(json.dumps(dict(json.loads(spec.read_text()), created_at="today", cwd=5)))
    found = {t.path: t for t in sweep(app)}
    assert found[str(top)].removed
    assert deep["path"] in found
    assert not found[str(spec.parent)].removed        # from Python 3.12 on it can be looked through
    told("/bin/rm", "-rf", deep["path"])         # pytest cannot clear it away


def test_a_branch_to_which_a_rebase_elsewhere_will_come_back_stays(made, repo, tmp_path):
    app, top, branch = made
    sh(repo, "git", "branch", "holds-it", branch)
    sh(repo, "git", "worktree", "unlock",
       str(top), ) if (repo / ".git/worktrees" / top.name / "locked").exists() else None
    sh(repo, "git", "worktree", "remove", "--force", str(top))
    put(repo, work="mine\n")
    commit(repo)
    sh(repo, "git", "checkout", "-q", branch)
    subprocess.run(["git", "rebase", "-q", "main"], cwd=str(repo), stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    assert (repo / ".git" / "rebase-merge").exists()
    sweep(app)
    assert "refs/heads/" + branch in refs(repo)


@contextlib.contextmanager
def written_at_the_last_moment(app, top):
    """Somebody writes a file into the worktree, under its hidden name, when all that it held has been
    committed."""
    hidden = pathlib.Path(app.config.worktree_dir, cms.REMOVED + top.name)

    def write(event, args):
        if event == "subprocess.Popen" and "codex-mcp-swarm: snapshot" in args[1] and hidden.exists():
            (hidden / "late").write_text("1\n")
    with helpers.auditing(write):
        yield


def test_what_is_written_while_a_worktree_goes_keeps_it_in_its_place_and_locked(made, repo):
    app, top, branch = made
    put(top, more="1\n")
    sh(repo, "git", "worktree", "lock", "--reason", cms.LOCK_REASON, str(top))
    with written_at_the_last_moment(app, top):
        done = one(app)
    assert not done.removed and (top / "late").read_text() == "1\n" and trees(app) == [top.name]
    assert (repo / ".git" / "worktrees" / top.name / "locked").exists()


@pytest.mark.skipif(not cms.LINUX, reason="there is no /proc elsewhere")
def test_a_worktree_with_a_file_that_a_process_has_open_is_kept(made):
    app, top, branch = made
    with open(str(top / "work"), "a") as f, subprocess.Popen(["sleep", "1000"], cwd="/", stdout=f) as sleeper:
        try:
            done = one(app)
            assert not done.removed and "A process works there" in done.notes[0] and top.exists()
        finally:
            sleeper.kill()


def test_a_change_that_keeps_size_and_time_is_seen_whatever_the_user_set(made, repo):
    app, top, branch = made
    sh(repo, "git", "config", "core.trustctime", "false")
    sh(repo, "git", "config", "core.checkStat", "minimal")
    there = os.stat(str(top / "work"))
    (top / "work").write_text("2" + (top / "work").read_text()[1:])
    os.utime(str(top / "work"), ns=(there.st_atime_ns, there.st_mtime_ns))
    assert one(app).removed and sh(repo, "git", "show", branch + ":work").startswith("2")


def test_a_directory_of_worktrees_that_is_not_there_is_not_taken_for_deleted(made, repo):
    app, top, branch = made
    os.rename(app.config.worktree_dir, app.config.worktree_dir + "-away")
    done = one(app)
    assert not done.removed and "not mounted" in done.notes[0]
    os.rename(app.config.worktree_dir + "-away", app.config.worktree_dir)
    assert one(app).removed and branch in sh(repo, "git", "branch", "--list", branch)


def test_a_start_does_not_wait_for_a_sweep_that_looks(made, swarm, tmp_path):
    app, top, branch = made
    (top / "d").mkdir()
    os.mkfifo(str(top / "d" / ".gitignore"))
    sweeper = elsewhere(app)
    try:
        assert run(swarm(), "SAY x")["outcome"] == "succeeded" and sweeper.poll() is None
    finally:
        sweeper.kill()
        sweeper.communicate()
        with contextlib.suppress(OSError):              # lets its git go
            os.close(os.open(str(top / "d" / ".gitignore"), os.O_WRONLY | os.O_NONBLOCK))


def test_a_directory_in_which_a_merge_was_tried_and_somebody_committed_stays(made, repo):
    app, top, branch = made
    left = pathlib.Path(app.config.worktree_dir, "merge-0123456789ab")
    sh(repo, "git", "worktree", "add", "-q", "--detach", "--lock", "--reason", cms.LOCK_REASON, str(left))
    put(left, mine="1\n")
    commit(left)
    found = [t for t in sweep(app) if t.path == str(left)][0]
    assert not found.removed and "committed something" in found.notes[0] and (left / "mine").exists()


# -- what comes while a worktree is taken away ------------------------------------------------------------
def host_that(puts=None, commits=None):
    """Two days from now; meanwhile somebody `puts` a file into a worktree on its way out, or `commits`."""
    class Host(Later):
        def worker_in(self, directory):
            if puts and os.path.basename(directory).startswith(cms.REMOVED):
                pathlib.Path(directory, puts).write_text("late\n")
            return super().worker_in(directory)

        def run(self, argv, *words, **more):
            if commits and "branch" in argv and "worktree" not in argv:
                commits()
            return super().run(argv, *words, **more)
    return Host


def test_a_file_that_comes_while_its_worktree_is_taken_away_is_committed(made, repo):
    app, top, branch = made
    assert one(app, host=host_that(puts="late")).removed
    assert sh(repo, "git", "show", branch + ":late") == "late"


def test_what_no_commit_takes_and_comes_then_brings_the_worktree_back(made, repo):
    app, top, branch = made
    done = one(app, host=host_that(puts="debug.log"))
    assert not done.removed and "`debug.log`" in done.notes[0] and (top / "debug.log").read_text() == "late\n"
    assert trees(app) == [top.name] and "prunable" not in sh(repo, "git", "worktree", "list", "--porcelain")


def test_a_worktree_that_git_refuses_to_remove_is_in_its_place_again_and_held(made, repo):
    app, top, branch = made

    class Host(Later):
        def run(self, argv, *words, **more):
            if "remove" in argv:
                top.mkdir()                     # which is no worktree, says git
            return super().run(argv, *words, **more)
    done = one(app, host=Host)
    assert not done.removed and "worktree" in done.notes[0] and (top / "work").read_text() == "1\n"
    assert (repo / ".git" / "worktrees" / top.name / "locked").exists() and trees(app) == [top.name]
    assert one(app).removed and sh(repo, "git", "show", branch + ":work") == "1"


def test_a_commit_that_comes_to_the_branch_then_keeps_it(made, repo):
    app, top, branch = made
    sh(repo, "git", "merge", "-q", branch)

    def late():
        new = sh(repo, "git", "commit-tree", "-m", "late", "-p", branch, branch + "^{tree}")
        sh(repo, "git", "update-ref", "refs/heads/" + branch, new)
    assert "stays" in one(app, host=host_that(commits=late)).notes[-1]
    assert sh(repo, "git", "log", "-1", "--format=%s", branch) == "late"


def test_a_deletion_that_was_not_committed_is_brought_home(made, repo):
    app, top, branch = made
    (top / "work").unlink()
    assert one(app).removed and "work" not in sh(repo, "git", "ls-tree", "--name-only", branch).split()


def test_a_branch_to_which_a_bisection_elsewhere_will_come_back_stays(made, repo, tmp_path):
    app, top, branch = made
    sh(repo, "git", "merge", "-q", branch)
    sh(top, "git", "checkout", "-q", "--detach")
    sh(repo, "git", "worktree", "add", "-q", str(tmp_path / "mine"), branch)
    sh(tmp_path / "mine", "git", "bisect", "start", "HEAD", "HEAD~2")
    assert one(app).removed and "refs/heads/" + branch in refs(repo)


def test_a_lost_task_is_as_old_as_its_last_event(tasks, tmp_path):
    app = cms.Swarm(cms.Config(tasks.root, str(tmp_path / "w"), task_max_age_s=3600.0), cms.Host(), {})
    task = cms.TaskDir.create(tasks.tasks, cms.Spec("0" * 12, 1.0, "/x", "/"), "p").appear()
    task.write_status(cms.Status(cms.State.STARTING))
    task.collect()
    pathlib.Path(task.file("events.jsonl")).write_text("")
    for name in ("spec.json", "status.json"):
        os.utime(task.file(name), (1, 1))
    assert "is kept for 60 min" in one(app, host=Now).notes[0]


def test_a_merge_under_verify_is_left_alone_however_short_tasks_are_kept(swarm, repo):
    app = swarm(task_max_age_s=1.0)
    os.makedirs(app.config.worktree_dir, exist_ok=True)
    app.store.prepare()
    path = os.path.join(app.config.worktree_dir, "merge-0123456789ab")
    with cms.Trees(app.git).scratch(*head_of(str(repo)), path):
        lock = repo / ".git" / "worktrees" / "merge-0123456789ab" / "locked"
        os.utime(str(lock), (time.time() - 10,) * 2)
        assert [t.removed for t in sweep(app, host=Now) if t.path == path] == [False]


# -- the answer, which is kept for as long as people look for it ---------------------------------------
class AMonth(cms.Host):
    """Later than answers are kept."""
    now = staticmethod(lambda: time.time() + 33 * DAY_S)


def another(app, host=Later):
    """A server that knows nothing yet."""
    return cms.Swarm(app.config, host(), os.environ)


@pytest.mark.parametrize("merged", [False, True])
def test_of_a_swept_task_the_record_is_the_same_and_its_work_can_be_compared_and_merged(made, repo, merged):
    app, top, branch = made
    task_id, before = top.name, app.record(top.name)
    if merged:
        sh(repo, "git", "merge", "-q", "--no-ff", "-m", "merge", branch)
    patch = app.diff(task_id, None, "patch", [])
    assert one(app).removed and not top.exists() and ("refs/heads/" + branch in refs(repo)) != merged
    kept = another(app)
    assert kept.record(task_id) == before and kept.diff(task_id, None, "patch", []) == patch
    done = kept.merge([task_id], cms.Call(), cms.Wish())
    assert (done.get("already_in") if merged else done["merged"]) == [task_id]
    assert sorted(
        os.listdir(app.store.get(task_id).path)) == ["collected", "kept", "lock", "prompt", "report.json",
                                                     "spec.json", "status.json"]


def test_answers_go_when_their_own_age_is_over(made):
    app, top, branch = made
    assert one(app).removed and sweep(app) == []
    # for ever
    assert sweep(cms.Swarm(app.config._replace(result_max_age_s=0.0), Later(), os.environ), host=AMonth) == []
    shutil.rmtree(app.config.worktree_dir)              # which is no reason to keep what worked there
    assert one(app, host=AMonth, dry_run=True).removed and app.record(top.name)["content"]
    assert one(app, host=AMonth).removed and os.listdir(app.store.tasks) == []


def test_an_answer_never_goes_before_the_worktree(swarm):
    app = swarm(result_max_age_s=1.0, task_max_age_s=9 * DAY_S)
    task_id = run(app, "SAY x")["task_id"]
    assert not one(app).removed and app.record(task_id)["content"] == "x"
    assert one(swarm(result_max_age_s=1.0)).removed
    assert os.listdir(app.store.tasks) == []


def test_what_only_the_events_hold_is_written_into_the_answer_first(swarm):
    app = swarm()
    task = app.store.get(run(app, "SAY the whole answer")["task_id"])
    report = cms.read_json(task.file("report.json"))
    cms.write_atomic(task.file("report.json"),
                     {**{k: v for k, v in report.items() if k != "content"}, "in_events": True})
    before = app.record(task.task_id)
    assert one(app).removed
    assert another(app).record(task.task_id) == before
    assert before["content"] == "the whole answer"


def test_the_answer_of_a_lost_task_is_what_its_events_told(swarm, repo):
    app = swarm()
    task = begin(app, "WRITE half 1", "TELL so far", "SLEEP 1000", worktree=True)
    top, events = pathlib.Path(task.spec().worktree.path), pathlib.Path(task.file("events.jsonl"))
    eventually(lambda: (top / "half").exists() and b"so far" in events.read_bytes(), what="what it told")
    os.kill(parent_of(pid_of(task)), signal.SIGKILL)
    before = ended(app, [task.task_id])[0]
    assert (before["outcome"], before["content"]) == ("lost", "so far") and one(app).removed
    kept = another(app)
    after = kept.record(task.task_id)
    assert sh(repo, "git", "show", after["worktree"].pop("head") + ":half") == "1" and after == before
    assert kept.diff(task.task_id, None, "files", [])["content"] == "A half"
    assert kept.merge([task.task_id], cms.Call(), cms.Wish())["merged"] == [task.task_id]
    assert helpers.run(kept, "READ half", task_id=task.task_id)["outcome"] == "succeeded"
    assert (top / "half").read_text() == "1\n"


@pytest.mark.parametrize("there", ["its branch", "the trash", "a commit of main"])
def test_a_reply_gets_a_worktree_that_was_removed_again(made, repo, there):
    app, top, branch = made
    (top / "sub").mkdir()
    first = run(app, "WRITE deep 1", task_id=top.name, cwd=str(top / "sub"))
    head = sh(repo, "git", "rev-parse", branch)
    if there != "its branch":
        sh(repo, "git", "merge", "-q", branch)
    assert one(app).removed
    assert not top.exists()
    assert ("refs/heads/" + branch in refs(repo)) == (there == "its branch")
    if there == "a commit of main":
        sh(repo, "git", "update-ref", "-d", trash_of(repo, branch))
    later = cms.Swarm(app.config._replace(worktree_setup="cp work prepared.log"), Later(), os.environ)
    reply = helpers.run(later, "WRITE more 1", threadId=first["threadId"])
    assert (reply["outcome"], reply["worktree"]["path"], reply["worktree"]["branch"],
            reply["worktree"]["base"]) == ("succeeded", str(top), branch, first["worktree"]["base"])
    assert sh(repo, "git", "rev-parse", branch + "^") == head
    assert {"work", "sub", ".env", "prepared.log"} <= set(os.listdir(str(top)))
    assert later.diff(reply["task_id"], None, "files", [])["content"] == "A sub/more"
    assert reply["worktree"]["copied"] == {"count": 1, "first": [".env"]}
    os.unlink(str(top / "prepared.log"))
    app.collected([reply["task_id"]])
    assert [thing.removed for thing in sweep(app, host=AMonth) if thing.path == str(top)] == [True]
    assert not top.exists()


def test_a_reply_to_a_worktree_of_which_nothing_is_left_says_so(made, repo):
    app, top, branch = made
    assert one(app).removed
    shutil.rmtree(str(repo / ".git"))
    with pytest.raises(cms.ToolError) as caught:
        another(app).start([{"prompt": "x", "task_id": top.name}])
    assert "was removed" in str(caught.value)
    assert branch in str(caught.value)
    assert "new task" in str(caught.value)


def test_a_branch_that_is_checked_out_elsewhere_is_not_taken_away_by_a_reply(made, repo):
    app, top, branch = made
    assert one(app).removed
    sh(repo, "git", "checkout", "-q", branch)
    with pytest.raises(cms.ToolError) as caught:
        another(app).start([{"prompt": "x", "task_id": top.name}])
    assert str(repo) in str(caught.value)
    assert not top.exists()
    assert sh(repo, "git", "branch", "--show-current") == branch
    sh(repo, "git", "checkout", "-q", "main")
    assert helpers.run(another(app), "SAY x", task_id=top.name)["content"] == "x"


def test_a_sweep_opens_no_file_of_the_answers_that_it_keeps(swarm):
    app = swarm()
    records = ended(app, app.start([{"prompt": "SAY x"}] * 5))
    assert len(sweep(app)) == 5
    opened = []
    with helpers.auditing(lambda name, args: opened.append(str(args[0])) if name == "open" else None):
        assert sweep(app) == []
    assert [path for path in opened if any(r["task_id"] in path for r in records)] == []


def test_the_events_of_a_swept_task_say_that_they_were_removed(swarm):
    app = swarm()
    task_id = run(app, "SAY x")["task_id"]
    assert one(app).removed
    resource, _ = cms.find_resource(cms.SCHEME + "tasks/%s/events" % task_id)
    line = json.loads(resource.read(app, task_id, {}))
    assert line["type"] == "codex-swarm.removed" and "its answer is kept" in line["why"]


@pytest.mark.parametrize("seconds, words",
                         [(0, "0 s"), (59.6, "60 s"), (119, "119 s"), (720, "12 min"), (7_199, "120 min"),
                          (5 * 3600, "5 h"), (DAY_S, "24 h"), (3 * DAY_S, "3 d"), (30 * DAY_S, "30 d")])
def test_ages_are_told_in_human_units(seconds, words):
    assert cms.lasting(seconds) == words


@pytest.fixture
def nobodys(swarm, root, monkeypatch):
    """A worktree that was made long ago, and for a task which never appeared."""
    app = swarm()
    monkeypatch.setattr(app.starter, "_run", lambda birth: os._exit(9))
    pid = os.fork()
    if not pid:
        app.start([{"prompt": "x", "worktree": True}])
    assert os.waitpid(pid, 0)[1] == 9 << 8
    [made] = (root / "worktrees").glob("[0-9a-f]*")
    for path in (git_dir_of(made) / "locked", *(root / "tasks").glob(".*")):
        os.utime(str(path), (1, 1))
    return made


def git_dir_of(top):
    return pathlib.Path((top / ".git").read_text().split(": ")[1].strip())


def test_a_worktree_that_was_made_for_a_task_which_never_appeared_is_removed(nobodys, swarm, root):
    git_dir = git_dir_of(nobodys)
    list(swarm().sweep())               # the worktree goes first, then what tells that no task ran there
    list(swarm().sweep())
    assert not nobodys.exists() and not git_dir.exists() and not list((root / "tasks").glob(".*"))


def test_what_somebody_committed_there_without_a_log_keeps_it(nobodys, swarm, repo):
    work = sh(nobodys, "git", "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "work")
    branch = sh(nobodys, "git", "symbolic-ref", "HEAD")
    (repo / ".git" / branch).write_text(work + "\n")
    list(swarm().sweep())
    assert nobodys.exists() and sh(repo, "git", "rev-parse", branch) == work


def test_a_worktree_whose_head_names_a_tree_goes_with_nothing_lost(made, repo):
    app, top, branch = made
    put(top, more="1\n")
    sh(top, "git", "add", "more")
    (git_dir_of(top) / "HEAD").write_text(sh(top, "git", "write-tree") + "\n")
    one(app)
    assert top.exists() or "more" in files_of(repo, branch)
