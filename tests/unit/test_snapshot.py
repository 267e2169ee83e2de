"""The snapshot at the end of a task: everything that changed is on its branch, whatever the task did to its
worktree."""
import concurrent.futures
import errno
import os
import pathlib
import resource
import subprocess
import sys
import time

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import GitError
from .helpers import auditing
from .on_git import (
    BRANCH, add, counts, files_of, head_of, log_of, ours, put_pipes_and_a_socket, save, sh, snapshot, take)

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")


@pytest.fixture
def place(tree):
    return pathlib.Path(tree.path)


def agent(tree, *words):
    """git as the task runs it, in its worktree."""
    return sh(tree.path, "git", *words)


def index_of(tree):
    return pathlib.Path(tree.git_dir, "index").read_bytes()


def commit(tree, name, text="x\n"):
    pathlib.Path(tree.path, name).write_text(text)
    agent(tree, "add", name)
    agent(tree, "commit", "-q", "-m", "adds " + name)


def show(repo, name, branch=BRANCH):
    return sh(repo, "git", "show", "%s:%s" % (branch, name))


# -- where the task left its HEAD -------------------------------------------------------------------------
@pytest.mark.parametrize("words, on",
                         [(("checkout", "-q", "-b", "other"), "`other`"),
                          (("checkout", "-q", "--detach"), "detached")], ids=["another branch", "no branch"])
def test_work_on_another_branch_is_on_the_branch_of_the_task_all_the_same(repo, tree, place, words, on):
    agent(tree, *words)
    commit(tree, "committed")
    (place / "left").write_text("1\n")
    head = agent(tree, "rev-parse", "HEAD")
    found, warnings = take(tree, "by us")
    assert log_of(repo) == ["by us", "adds committed", "first"] and counts(found) == (2, 2, 0)
    assert agent(tree, "rev-parse", "HEAD") == head and agent(tree, "status", "--porcelain") == "?? left"
    assert len(warnings) == 1 and on in warnings[0] and BRANCH in warnings[0]


def test_commits_that_the_task_left_behind_on_its_branch_stay_reachable(repo, tree, place):
    commit(tree, "one")
    tip = agent(tree, "rev-parse", "HEAD")
    agent(tree, "checkout", "-q", "-b", "other", "HEAD~1")
    commit(tree, "two")
    _, warnings = take(tree, "by us")
    assert sh(repo, "git", "rev-parse", BRANCH + "^2") == tip and files_of(repo) == ["README", "two"]
    assert any(tip[:12] in w and "second parent" in w for w in warnings)


def test_an_amended_a_rebased_and_a_reset_branch_are_taken_as_they_are(repo, tree, place):
    commit(tree, "one")
    commit(tree, "two")
    agent(tree, "reset", "-q", "--soft", "HEAD~2")
    agent(tree, "commit", "-q", "--amend", "-m", "amended")
    (place / "three").write_text("3\n")
    found = save(tree, "by us")
    assert log_of(repo) == ["by us", "amended"]
    assert files_of(repo) == ["README", "one", "three", "two"]
    assert counts(found) == (3, 3, 0)


def test_a_rebase_onto_what_the_user_committed_meanwhile_is_taken_as_it_is(repo, tree, place):
    commit(tree, "one")
    commit(tree, "two")
    (repo / "theirs").write_text("1\n")
    sh(repo, "git", "add", "theirs")
    sh(repo, "git", "commit", "-q", "-m", "by the user")
    agent(tree, "rebase", "-q", "main")
    (place / "left").write_text("1\n")
    found = save(tree, "by us")
    assert log_of(repo) == ["by us", "adds two", "adds one", "by the user", "first"] and found.commits == 4
    assert files_of(repo) == ["README", "left", "one", "theirs", "two"]


@pytest.mark.parametrize("then, left",
                         [("--continue", {"one", "two", "three", "left"}),
                          ("--abort", {"one", "two", "three", "left"}), ("--quit", {"one", "two", "left"})])
def test_a_rebase_that_the_task_is_in_the_middle_of_loses_nothing_then_or_later(
        repo, tree, place, then, left):
    for name in ("one", "two", "three"):
        commit(tree, name)
    tip = agent(tree, "rev-parse", "HEAD")
    sh(tree.path, "git", "rebase", "-q", "-i", "HEAD~2", GIT_SEQUENCE_EDITOR="sed -i.bak 1s/pick/edit/")
    (place / "left").write_text("1\n")
    found, warnings = take(tree, "by us")
    assert files_of(repo) == ["README", "left", "one", "two"]
    assert sh(repo, "git", "rev-parse", BRANCH + "^2") == tip
    assert found.commits == 4
    assert any("rebase unfinished" in w for w in warnings)
    assert any("detached" in w for w in warnings)
    assert any(tip[:12] in w for w in warnings)
    assert os.path.exists(os.path.join(tree.git_dir, "rebase-merge"))
    assert agent(tree, "status", "--porcelain") == "?? left"
    # a reply goes on
    os.system("cd '%s' && GIT_EDITOR=true git rebase %s >/dev/null 2>&1" % (tree.path, then))
    take(tree, "by us again")
    assert set(files_of(repo)) == {"README"} | left and sh(repo, "git", "merge-base", tip, BRANCH) == tip


def test_a_branch_that_the_task_deleted_is_made_again(repo, tree, place):
    agent(tree, "checkout", "-q", "--detach")
    agent(tree, "branch", "-q", "-D", BRANCH)
    (place / "x").write_text("1\n")
    take(tree, "by us")
    assert log_of(repo) == ["by us", "first"] and files_of(repo) == ["README", "x"]


def test_a_head_without_a_commit_loses_nothing(repo, tree, place):
    agent(tree, "checkout", "-q", "--orphan", "new")
    (place / "x").write_text("1\n")
    take(tree, "by us")
    assert log_of(repo) == ["by us", "first"] and files_of(repo) == ["README", "x"]


def test_a_branch_that_moves_in_the_middle_is_not_moved_back(repo, tree, place):
    """By a filter, which git runs while it takes the files."""
    other = sh(repo, "git", "commit-tree", "-p", "HEAD", "-m", "somebody else's", "HEAD^{tree}")
    sh(repo, "git", "config", "filter.races.clean",
       "git --git-dir='%s' update-ref refs/heads/%s %s; cat" % (repo / ".git", BRANCH, other))
    (place / ".gitattributes").write_text("x filter=races\n")
    (place / "x").write_text("1\n")
    with pytest.raises(GitError) as caught:
        take(tree, "by us")
    assert "update-ref" in str(caught.value) and log_of(repo) == ["somebody else's", "first"]
    save(tree, "by us")
    assert log_of(repo) == ["by us", "somebody else's", "first"]
    assert files_of(repo) == [".gitattributes", "README", "x"]


def test_what_lies_under_a_head_that_names_no_commit_but_a_tree_is_committed(repo, tree, place):
    (place / "x").write_text("1\n")
    agent(tree, "add", "x")
    pathlib.Path(tree.git_dir, "HEAD").write_text(agent(tree, "write-tree") + "\n")
    take(tree, "by us")
    assert log_of(repo) == ["by us", "first"] and files_of(repo) == ["README", "x"]


def test_an_unmerged_index_is_told_of_though_the_files_are_as_at_the_start(tree):
    rows = "".join("100644 %s %d\tREADME\n" % (agent(tree, "rev-parse", "HEAD:README"), n) for n in (1, 2, 3))
    subprocess.run(["git", "update-index", "--index-info"], cwd=tree.path, input=rows.encode(), check=True)
    assert "Unmerged" in take(tree, "by us")[1][0]


def test_of_the_commits_behind_the_start_none_is_read(repo, place):
    for name in ("second", "third"):
        sh(repo, "git", "commit", "-q", "--allow-empty", "-m", name)
    tree = add(str(repo), head_of(repo)[1], str(place.parent / "later"), "codex-swarm/later")
    agent(tree, "checkout", "-q", "HEAD~2")
    ran = []
    with auditing(lambda name, args: ran.append(args[1]) if name == "subprocess.Popen" else None):
        assert take(tree, "by us")[0].commits == 1
    [read] = [argv for argv in ran if "rev-list" in argv]
    assert list(read[-2:]) == ["--not", tree.start]


def test_a_branch_that_cannot_be_moved_is_an_error_and_the_files_stay(repo, tree, place):
    agent(tree, "checkout", "-q", "--detach")
    agent(tree, "branch", "-q", "-D", BRANCH)
    agent(tree, "branch", "-q", BRANCH + "/below")
    (place / "x").write_text("1\n")
    with pytest.raises(GitError) as caught:
        take(tree, "by us")
    assert "update-ref" in str(caught.value) and (place / "x").read_text() == "1\n"


def runs_of_git(act):
    """The words of each git that this starts."""
    found = []
    with auditing(lambda name, args: found.append(args[1]) if name == "subprocess.Popen" else None):
        act()
    return [next(word for word in argv[1:] if word != "-c" and "=" not in word) for argv in found]


def test_a_task_that_changed_nothing_ends_with_four_runs_of_git_and_another_one_with_eleven(tree, place):
    assert runs_of_git(lambda: save(tree)) == ["cat-file", "read-tree", "status", "diff-index"]
    (place / "x").write_text("1\n")
    assert runs_of_git(lambda: save(tree)) == [
        "cat-file", "read-tree", "status", "update-index", "write-tree", "commit-tree", "diff-index",
        "update-ref", "read-tree", "diff-tree", "grep"]


# -- the index of the task --------------------------------------------------------------------------------
def test_what_the_task_staged_stays_staged_byte_for_byte(repo, tree, place):
    (place / "staged").write_text("staged\n")
    agent(tree, "add", "staged")
    (place / "staged").write_text("then changed\n")
    (place / "new").write_text("1\n")
    before = index_of(tree)
    save(tree)
    assert index_of(tree) == before
    assert show(repo, "staged") == "then changed"
    assert files_of(repo) == ["README", "new", "staged"]


def test_what_the_task_staged_although_it_is_ignored_is_on_the_branch(repo, tree, place):
    (place / ".gitignore").write_text("build/\nlogs/\n*.o\n")
    for name in ("build/deep/out", "build/more", "logs/one", "a.o", "b.o", "gone.o"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("1\n")
    agent(tree, "add", "-f", "build/deep/out", "logs/one", "a.o", "gone.o")
    (place / "build" / "deep" / "out").write_text("then changed\n")
    (place / "gone.o").unlink()
    before = index_of(tree)
    found, warnings = take(tree, "by us")
    assert files_of(repo) == [".gitignore", "README", "a.o", "build/deep/out", "logs/one"] and warnings == []
    assert show(repo, "build/deep/out") == "then changed" and index_of(tree) == before
    assert found.ignored == {"count": 2, "first": ["b.o", "build/more"]}


def test_an_index_that_the_task_damaged_hides_nothing_that_is_not_ignored(repo, tree, place):
    (place / ".gitignore").write_text("*.o\n")
    (place / "a.o").write_text("1\n")
    pathlib.Path(tree.git_dir, "index").write_text("no index")
    found, _ = take(tree, "x")
    assert found.ignored["first"] == ["a.o"] and files_of(repo) == [".gitignore", "README"]


def test_where_nothing_was_staged_nothing_is_afterwards_and_the_worktree_is_clean(repo, tree, place):
    (place / "README").write_text("changed\n")
    (place / "new").write_text("1\n")
    save(tree)
    assert agent(tree, "status", "--porcelain") == ""
    cms.release(tree)
    sh(repo, "git", "worktree", "remove", tree.path)
    assert files_of(repo) == ["README", "new"]


def test_an_index_that_something_else_has_locked_is_left_alone(repo, tree, place):
    pathlib.Path(tree.git_dir, "index.lock").write_text("")
    (place / "new").write_text("1\n")
    before = index_of(tree)
    save(tree)
    assert index_of(tree) == before
    assert files_of(repo) == ["README", "new"]
    assert os.path.exists(os.path.join(tree.git_dir, "index.lock"))


LOCKS = ["worktrees/tree/index.lock", "worktrees/tree/HEAD.lock", "config.lock", "HEAD.lock", "index.lock",
         "packed-refs.lock"]


@pytest.mark.parametrize("moment", ["before", "in the middle"])
@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_that_a_git_of_the_tasks_left_or_takes_meanwhile_stops_the_snapshot(
        repo, tree, place, lock, moment):
    """In the middle: by a filter, which git runs while it takes the files."""
    path = repo / ".git" / lock
    sh(repo, "git", "config", "filter.races.clean", "touch '%s'; cat" % path)
    if moment == "before":
        path.write_text("")
    (place / ".gitattributes").write_text("x filter=races\n")
    (place / "x").write_text("1\n")
    found = save(tree, "by us")
    assert files_of(repo) == [".gitattributes", "README", "x"]
    assert log_of(repo) == ["by us", "first"]
    assert counts(found) == (2, 2, 0)
    assert path.exists()


def test_a_lock_of_the_branch_that_something_else_holds_for_a_moment_is_waited_for(repo, tree, place):
    lock = repo / ".git" / "refs" / "heads" / (BRANCH + ".lock")
    lock.write_text("")
    (place / "x").write_text("1\n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        saved = pool.submit(save, tree)
        with pytest.raises(concurrent.futures.TimeoutError):
            saved.result(timeout=0.5)
        lock.unlink()
        assert counts(saved.result(timeout=60)) == (1, 1, 0)


@pytest.mark.parametrize("bit", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_the_tasks_index_is_told_to_overlook_is_taken(repo, tree, place, bit):
    agent(tree, "update-index", bit, "README")
    (place / "README").write_text("changed\n")
    save(tree)
    assert show(repo, "README") == "changed"


def test_a_broken_index_of_the_task_does_not_matter(repo, tree, place):
    pathlib.Path(tree.git_dir, "index").write_bytes(b"garbage")
    (place / "new").write_text("1\n")
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "new"]
    assert found.head == sh(repo, "git", "rev-parse", BRANCH)
    assert "index" in warnings[0]


def test_a_second_snapshot_takes_what_changed_within_the_same_second_and_size(repo, tree, place):
    for text in ("one\n", "two\n", "six\n"):
        (place / "new").write_text(text)
        save(tree, text)
    assert show(repo, "new") == "six" and log_of(repo) == ["six", "two", "one", "first"]


# -- every kind of change ---------------------------------------------------------------------------------
def test_a_new_link_that_leads_out_of_the_tree_is_left_out_and_named(repo, tree, place):
    """Merged, it would take the place of what the user has there: git thinks little of an ignored
    directory."""
    put_aside = repo / "node_modules"
    put_aside.mkdir()
    os.symlink(str(put_aside), str(place / "node_modules"))
    os.symlink("../outside", str(place / "relative"))
    os.symlink(str(place / "README"), str(place / "absolute"))      # elsewhere it would lead back here
    os.symlink("README", str(place / "inside"))
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "inside"] and found.left_out["count"] == 3
    assert all(name in warnings[0] for name in ("node_modules", "relative", "absolute", "leads out"))


@pytest.mark.parametrize("name", [".Git/x", "git~1/x"])
def test_a_name_that_git_passes_over_in_silence_is_named(repo, tree, place, name):
    (place / name).parent.mkdir()
    (place / name).write_text("1\n")
    (place / "ok").write_text("1\n")
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "ok"] and name in warnings[0] and found.left_out["count"] == 1


def test_a_stash_that_git_status_tells_of_is_no_file(repo, tree, place):
    sh(repo, "git", "config", "status.showStash", "true")
    (repo / "README").write_text("stashed\n")
    sh(repo, "git", "stash")
    (place / "x").write_text("1\n")
    assert counts(save(tree)) == (1, 1, 0)


def test_files_links_and_directories_may_take_each_others_place(repo, tree, place):
    for name in ("file", "dir/in", "link-to-be/in", "x"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("1\n")
    save(tree)
    (place / "file").unlink()
    (place / "file").mkdir()
    (place / "file" / "in").write_text("2\n")
    sh(tree.path, "rm", "-r", "dir", "link-to-be", "x")
    (place / "dir").write_text("now a file\n")
    os.symlink("file", str(place / "link-to-be"))
    os.symlink("nowhere", str(place / "x"))
    save(tree)
    rows = sh(repo, "git", "ls-tree", "-r", BRANCH).splitlines()
    assert sorted((row[:6], row.split("\t")[1]) for row in rows) == [
        ("100644", "README"), ("100644", "dir"), ("100644", "file/in"), ("120000", "link-to-be"),
        ("120000", "x")]


NAMES = ["with space", "quote\"s'", "new\nline", "tab\t", "\u00e4 \u20ac", "-dash", ":(exclude)x",
         "back\\slash", "*", os.fsdecode(b"not \xff utf-8")]


def test_a_file_may_have_any_name(repo, tree, place):
    for name in NAMES:
        (place / name).write_text("1\n")
    assert counts(save(tree)) == (len(NAMES), len(NAMES), 0)
    for name in NAMES[::2]:
        (place / name).unlink()
    assert counts(save(tree)) == (len(NAMES) // 2, len(NAMES) // 2, 0)
    assert sorted(files_of(repo)) == sorted(["README", *NAMES[1::2]])


def test_a_pipe_and_a_socket_hold_nothing_up(repo, tree, place, monkeypatch):
    put_pipes_and_a_socket(place, monkeypatch)
    (place / "x").write_text("1\n")
    take(tree, "x")
    assert "x" in files_of(repo) and not {"pipe", "socket"} & set(files_of(repo))


@pytest.mark.parametrize("name", [".gitignore", "dir/.gitattributes"])
def test_git_waits_for_a_pipe_no_longer_than_until_somebody_looks_who_names_it(
        repo, tree, place, monkeypatch, name):
    monkeypatch.setattr(cms, "LOOK_S", 0.2)
    (place / "dir").mkdir()
    for file in "xyz":
        (place / "dir" / file).write_text("1\n")
    os.mkfifo(str(place / name))
    began = time.monotonic()
    with pytest.raises(GitError) as caught:
        take(tree, "x")
    assert "it waits for the pipe `%s`" % (place / name) in str(caught.value)
    assert time.monotonic() - began < 60 and log_of(repo) == ["first"]


def test_a_file_renamed_only_by_case_is_taken_where_git_was_told_not_to_tell_them_apart(repo, tree, place):
    """As in a repository that was copied from a file system which does not."""
    sh(repo, "git", "config", "core.ignoreCase", "true")
    (place / "README").rename(place / "Readme")
    (place / "readme.d").mkdir()
    (place / "readme.d" / "x").write_text("1\n")
    save(tree)
    assert files_of(repo) == ["Readme", "readme.d/x"]


def make_sparse(tree, place):
    """Saved with `in/a` and `out/b`, of which only the first is still checked out."""
    for name in ("in/a", "out/b"):
        (place / name).parent.mkdir()
        (place / name).write_text("1\n")
    save(tree)
    agent(tree, "status")                   # or git does not know that what it takes away is unchanged
    agent(tree, "sparse-checkout", "set", "in")


def test_a_sparse_checkout_is_not_taken_for_deletions(repo, tree, place):
    make_sparse(tree, place)
    assert not (place / "out").exists()
    (place / "in" / "a").write_text("2\n")
    take(tree, "x")
    assert files_of(repo) == ["README", "in/a", "out/b"] and show(repo, "in/a") == "2"


def test_a_worktree_that_was_made_sparse_stays_so_in_its_second_turn(repo, tree, place):
    make_sparse(tree, place)
    for turn in ("2\n", "3\n"):
        (place / "in" / "a").write_text(turn)
        take(tree, "x")
        assert sh(tree.path, "git", "status", "--porcelain") == ""
        assert files_of(repo) == ["README", "in/a", "out/b"] and show(repo, "in/a") == turn.strip()
    agent(tree, "sparse-checkout", "disable")
    (place / "out" / "b").write_text("2\n")
    take(tree, "x")
    assert show(repo, "out/b") == "2"


def test_line_ends_that_git_cannot_keep_do_not_stop_it(repo, tree, place):
    sh(repo, "git", "config", "core.autocrlf", "input")
    sh(repo, "git", "config", "core.safecrlf", "true")
    (place / "mixed").write_bytes(b"a\r\nb\n")
    save(tree)
    assert "mixed" in files_of(repo)


# -- what cannot be taken is told ------------------------------------------------------------------------
def test_a_repository_that_the_task_made_is_left_out_and_named(repo, tree, place):
    for name in ("with commit", "without"):
        sh(tree.path, "git", "init", "-q", name)
        (place / name / "f").write_text("1\n")
    sh(place / "with commit", "git", *IDENTITY, "commit", "-q", "--allow-empty", "-m", "x")
    (place / "x").write_text("1\n")
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "x"] and found.left_out["count"] == 2
    assert "with commit/" in warnings[0]
    assert "repository of its own" in warnings[0]
    assert tree.path in warnings[0]


def test_a_worktree_that_the_task_made_inside_its_own_is_left_out_and_named(repo, tree, place):
    agent(tree, "worktree", "add", "-q", "-b", "mine", "inner")
    (place / "inner" / "f").write_text("1\n")
    (place / "x").write_text("1\n")
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "x"]
    assert found.left_out == {"count": 1, "first": ["inner/ (a repository of its own)"]}
    assert "inner/" in warnings[0]


def test_a_directory_of_the_project_stays_part_of_it_when_a_task_makes_it_a_repository(repo, tree, place):
    (place / "dir").mkdir()
    (place / "dir" / "a").write_text("1\n")
    save(tree)
    sh(place / "dir", "git", "init", "-q")
    (place / "dir" / "a").write_text("2\n")
    take(tree, "x")
    assert show(repo, "dir/a") == "2"


def test_a_file_over_the_limit_is_left_out_and_named(repo, tree, place):
    for name in ("big \u00e4", "README"):
        with open(str(place / name), "wb") as f:
            f.truncate(cms.SNAPSHOT_FILE_BYTES + 1)
    with open(str(place / "just fits"), "wb") as f:
        f.truncate(1000)
    found, warnings = take(tree, "x")
    assert files_of(repo) == ["README", "just fits"]
    assert show(repo, "README") == "a repository"
    assert found.left_out["count"] == 2
    assert "big \u00e4" in warnings[0] and "over 100 MiB" in warnings[0]


def test_a_file_that_git_cannot_take_is_named_and_the_rest_is_taken(repo, tree, place):
    sh(repo, "git", "config", "filter.broken.clean", "false")
    sh(repo, "git", "config", "filter.broken.required", "true")
    (place / ".gitattributes").write_text("*.bad filter=broken\n")
    for number in range(20):
        (place / ("%d.good" % number)).write_text("1\n")
    (place / "7.bad").write_text("1\n")
    found, warnings = take(tree, "x")
    assert len(files_of(repo)) == 22 and "7.bad" not in files_of(repo)
    assert found.left_out["count"] == 1 and "7.bad" in warnings[0] and "filter" in warnings[0]


@pytest.mark.parametrize("key", ["process", "clean"])
@pytest.mark.parametrize("command, line",
                         [("no-such-lfs %f", "no-such-lfs: not found"),
                          ("sh -c 'echo my words >&2; exit 3'", "my words")])
def test_what_a_missing_or_failing_filter_says_is_the_reason(repo, tree, place, key, command, line):
    sh(repo, "git", "config", "filter.lfs." + key, command)
    sh(repo, "git", "config", "filter.lfs.required", "true")
    (place / ".gitattributes").write_text("*.big filter=lfs\n")
    (place / "x.big").write_text("1\n")
    warnings = take(tree, "x")[1]
    assert "x.big" in warnings[0] and line in warnings[0].replace("command not found", "not found")


@pytest.mark.parametrize("how, word",
                         [("merge", "merge"), ("rebase", "rebase"), ("cherry-pick", "cherry-pick")])
def test_an_unfinished_merge_is_committed_as_it_lies_there_with_a_warning(repo, tree, place, how, word):
    agent(tree, "checkout", "-q", "-b", "theirs")
    commit(tree, "README", "theirs\n")
    agent(tree, "checkout", "-q", BRANCH)
    commit(tree, "README", "ours\n")
    agent(tree, "config", "core.editor", "true")
    assert os.system("cd '%s' && git %s theirs >/dev/null 2>&1" % (tree.path, how)) != 0
    before, head = index_of(tree), agent(tree, "rev-parse", "HEAD")
    _, warnings = take(tree, "x")
    assert "<<<<<<<" in show(repo, "README")
    assert any("%s unfinished" % word in w for w in warnings)
    assert any("README" in w and "conflict markers" in w for w in warnings)
    assert index_of(tree) == before and agent(tree, "status", "--porcelain").startswith(("UU", "AA"))
    assert how != "rebase" or agent(tree, "rev-parse", "HEAD") == head


def test_an_unfinished_bisect_is_told_and_loses_nothing(repo, tree, place):
    for name in ("one", "two", "three", "four"):
        commit(tree, name)
    tip = agent(tree, "rev-parse", "HEAD")
    agent(tree, "bisect", "start", "HEAD", "HEAD~4")
    (place / "left").write_text("1\n")
    _, warnings = take(tree, "by us")
    assert "left" in files_of(repo)
    assert sh(repo, "git", "rev-parse", BRANCH + "^2") == tip
    assert "The task left a bisect unfinished" in warnings


def test_conflict_markers_that_a_task_committed_are_told_and_a_heading_is_none(repo, tree, place):
    (place / "marked (1)").write_text("a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n")
    (place / "heading").write_text("Heading\n=======\n<<<<<<< only one end\n")
    agent(tree, "add", "-A")
    agent(tree, "commit", "-q", "-m", "resolved, it says")
    found, warnings = take(tree, "x")
    assert warnings == ["Conflict markers are left in `marked (1)`"] and found.commits == 1


@pytest.mark.parametrize("name",
                         ["a\tb", ":100644 100644 1 2 M", "1\t2\tx", "-x", "\xe4",
                          b"\xff".decode("utf-8", "surrogateescape")])
def test_conflict_markers_are_told_and_lines_counted_whatever_the_name(repo, tree, place, name):
    for path in (name, "clean"):
        (place / path).write_text("<<<<<<< ours\n=======\n>>>>>>> theirs\n" if path == name else "1\n")
    found, warnings = take(tree, "x")
    assert warnings == ["Conflict markers are left in `%s`" % " ".join(cms.legible(name).split())]
    assert counts(found) == (2, 4, 0) and sorted(found.files) == sorted(["clean", cms.legible(name)])


def test_a_filter_that_runs_a_python_module_takes_none_from_the_tree(repo, tree, place, tmp_path):
    """`python -m x` would import x.py from what a task wrote, outside of its sandbox. Python 3.11 obeys."""
    clean = "printenv PYTHONSAFEPATH >'%s'; cat" % (tmp_path / "seen")
    sh(repo, "git", "config", "filter.python.clean", clean)
    (place / ".gitattributes").write_text("*.x filter=python\n")
    (place / "f.x").write_text("1\n")
    save(tree)
    assert (tmp_path / "seen").read_text() == "1\n"


# -- safety -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["filter.x.clean", "filter.x.process", "core.fsmonitor", "diff.external"])
@pytest.mark.parametrize("known", [False, True], ids=["new to git", "known to git"])
def test_no_program_of_an_embedded_repository_is_run(repo, tree, place, tmp_path, key, known):
    evil = tmp_path / "evil.sh"
    evil.write_text("#!/bin/sh\ntouch %s\ncat\n" % (tmp_path / "ran"))
    evil.chmod(0o755)
    sub = place / "sub"
    sh(tree.path, "git", "init", "-q", "sub")
    (sub / "f").write_text("1\n")
    sh(sub, "git", *IDENTITY, "add", "f")
    sh(sub, "git", *IDENTITY, "commit", "-q", "-m", "x")
    if known:
        agent(tree, "add", "sub")
        agent(tree, "commit", "-q", "-m", "embeds")
    sh(sub, "git", "config", key, str(evil))
    (sub / ".gitattributes").write_text("* filter=x\n")
    (sub / "f").write_text("2\n")
    os.utime(str(sub / "f"), (1, 1))
    (place / "x").write_text("1\n")
    take(tree, "x")
    assert "x" in files_of(repo) and not (tmp_path / "ran").exists()


def test_a_git_that_hangs_is_given_up_within_the_bound(repo, tree, place):
    sh(repo, "git", "config", "filter.slow.clean", "sleep 600")
    (place / ".gitattributes").write_text("*.slow filter=slow\n")
    (place / "x.slow").write_text("1\n")
    began = time.monotonic()
    with pytest.raises(GitError) as caught:
        cms.Snapshot(ours(within_s=1.5), tree).take("x")
    assert time.monotonic() - began < 30
    assert "gave up" in str(caught.value) or "used up" in str(caught.value)
    assert (place / "x.slow").read_text() == "1\n" and log_of(repo) == ["first"]


def test_after_one_that_was_killed_half_way_the_next_snapshot_takes_everything(repo, tree, place):
    pathlib.Path(tree.git_dir, cms.OWN_INDEX + ".lock").write_bytes(b"half an ind")
    (place / "x").write_text("1\n")
    save(tree)
    assert files_of(repo) == ["README", "x"]


def test_snapshots_of_many_tasks_of_one_repository_at_once_all_succeed(repo, tmp_path):
    trees = [add(*head_of(str(repo)), str(tmp_path / str(n)), "codex-swarm/%d" % n) for n in range(8)]
    for number, tree in enumerate(trees):
        pathlib.Path(tree.path, "x").write_text("%d\n" % number)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(counts(found) == (1, 1, 0) for found in pool.map(save, trees))
    assert [show(repo, "x", "codex-swarm/%d" % n) for n in range(8)] == [str(n) for n in range(8)]


def test_the_users_checkout_is_byte_for_byte_what_it_was(repo, tree, place):
    (repo / "README").write_text("edited\n")
    sh(repo, "git", "stash", "-q")
    (repo / "README").write_text("edited again\n")
    before = snapshot(repo)
    (place / "README").write_text("by the task\n")
    (place / "x").write_text("1\n")
    save(tree)
    assert snapshot(repo) == before and sh(repo, "git", "stash", "list").count("\n") == 0


def test_git_gc_between_the_snapshot_and_the_merge_loses_nothing(repo, tree, place):
    (place / "x").write_text("1\n")
    save(tree)
    sh(repo, "git", "reflog", "expire", "--expire=now", "--all")
    sh(repo, "git", "gc", "-q", "--prune=now")
    sh(repo, "git", "merge", "-q", BRANCH)
    assert (repo / "x").read_text() == "1\n"


def test_git_gc_while_the_task_runs_and_before_a_reply_loses_nothing(repo, place, tree):
    (place / "staged").write_text("1\n")
    agent(tree, "add", "staged")
    for name in ("x", "y"):
        sh(repo, "git", "reflog", "expire", "--expire=now", "--all")
        sh(repo, "git", "gc", "-q", "--prune=now")
        (place / name).write_text("1\n")
        save(tree, name)
    assert files_of(repo) == ["README", "staged", "x", "y"] and log_of(repo) == ["y", "x", "first"]
    assert sh(repo, "git", "fsck", "--no-dangling", "--no-progress") == "" and show(repo, "staged") == "1"


@pytest.mark.parametrize("what, words",
                         [("tree", "no directory `%s`"), ("repo", "not a git repository: '%s")])
def test_a_worktree_or_a_repository_that_was_moved_is_an_error_that_says_so_and_moved_back_nothing_is_lost(
        repo, tree, place, tmp_path, what, words):
    (place / "x").write_text("1\n")
    (tmp_path / what).rename(tmp_path / "elsewhere")
    with pytest.raises(GitError) as caught:
        take(tree, "x")
    assert words % (tmp_path / what) in str(caught.value)
    (tmp_path / "elsewhere").rename(tmp_path / what)
    save(tree)
    assert files_of(repo) == ["README", "x"]


def test_what_a_full_disk_has_no_room_for_is_named_and_with_room_again_it_is_taken(repo, tree, place):
    """In a process of its own. A limit on the size of files stands in for a full disk: git is killed over the
    large one, with the index locked."""
    (place / "large").write_bytes(os.urandom(300_000))
    (place / "small").write_text("1\n")
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import codex_mcp_swarm as cms\n"
              "git = cms.Git(cms.Host(), {'PATH': sys.argv[2]})\n"
              "print(cms.Snapshot(git, cms.Worktree(*sys.argv[3:])).take('x')[1])")
    words = [sys.executable, "-c", script, os.path.dirname(cms.__file__), os.environ["PATH"], tree.path,
             tree.branch, tree.base, tree.git_dir]
    done = subprocess.run(["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *words], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert b"`large (killed by SIGXFSZ)`" in done.stdout and files_of(repo) == ["README", "small"], done
    save(tree)
    assert files_of(repo) == ["README", "large", "small"] and agent(tree, "status", "--porcelain") == ""


# -- the lock ---------------------------------------------------------------------------------------------
def test_a_worktree_is_locked_until_it_is_released_and_can_be_locked_again(repo, tree):
    locked = lambda: any(line.startswith("locked ")
                         for line in sh(repo, "git", "worktree", "list", "--porcelain").splitlines())
    assert locked()
    cms.release(tree)
    assert not locked()
    cms.hold(tree)
    cms.hold(tree)
    assert locked()


def test_a_lock_that_cannot_be_written_is_not_there(tree):
    """As on a full disk, or when the server is killed: of an empty one nobody could say whose it is."""
    cms.release(tree)
    before = sorted(os.listdir(tree.git_dir))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError):
            cms.hold(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tree.git_dir)) == before


def test_a_worktree_is_locked_where_the_file_system_has_no_links(tree):
    def refuse(event, args):
        if event == "os.link":
            raise OSError(errno.EPERM, "Operation not permitted")
    cms.release(tree)
    with auditing(refuse):
        cms.hold(tree)
    assert cms.locked_for(tree.git_dir) == cms.LOCK_REASON


def test_a_lock_of_the_users_own_is_not_taken_away(repo, tree):
    cms.release(tree)
    sh(repo, "git", "worktree", "lock", "--reason", "mine", tree.path)
    cms.hold(tree)
    cms.release(tree)
    assert "locked mine" in sh(repo, "git", "worktree", "list", "--porcelain")


def test_a_file_that_becomes_a_link_that_leads_out_is_left_out_as_well(repo, tree, place):
    (place / "README").unlink()
    os.symlink("/etc/passwd", str(place / "README"))
    found, warnings = take(tree, "x")
    assert "`README (a link that leads out" in warnings[0] and show(repo, "README") == "a repository"
