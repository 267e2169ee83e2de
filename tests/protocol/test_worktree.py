"""`worktree` as a client sees it: its forms, what comes along, the setup command, and the end of the task on
the branch."""
import json
import os

import pytest

from client import alive, eventually
from conftest import git, running, task_dirs


def put(top, **files):
    for name, text in files.items():
        (top / name.replace("_", ".")).write_text(text)


def branches(repo):
    return git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/codex-swarm").split()


@pytest.fixture
def second(repo):
    """`repo` with a second commit; returns the first."""
    first = git(repo, "rev-parse", "HEAD").strip()
    put(repo, new="1\n")
    git(repo, "add", "new")
    git(repo, "commit", "-q", "-m", "second")
    return first


# -- the forms of the argument ----------------------------------------------------------------------------
@pytest.mark.parametrize("worktree",
                         [True, {}, {"setup": True}, {"include_changes": False}, {"include-changes": False}])
def test_true_and_an_object_without_wishes_start_from_head(client, repo, worktree):
    record = client().ok("codex", prompt="WRITE x 1", worktree=worktree)
    assert record["worktree"]["base"] == git(repo, "rev-parse", "HEAD").strip()
    assert record["worktree"]["commits"] == 1


def test_a_task_starts_from_the_base_that_it_names_and_the_commit_is_recorded(client, second):
    record = client().ok("codex", prompt="SHELL ls > seen", worktree={"base": "main~1"})
    assert record["worktree"]["base"] == second
    with open(record["worktree"]["path"] + "/seen") as f:
        assert f.read() == "README\nseen\n"


@pytest.mark.parametrize("worktree, words", [
    ({"base": "nowhere"}, ["`base`", "nowhere", "names no commit"]),
    ({"base": "main~1", "include_changes": True}, ["include_changes", "HEAD"]),
    ({"setup": "touch x"}, ["worktree.setup", "boolean"]),
    ({"branch": "x"}, ["worktree.branch", "not an argument"])])
def test_a_wish_that_cannot_be_met_is_refused_and_leaves_nothing(client, repo, second, root, worktree, words):
    text = client().refused("codex_batch",
                            {"tasks": [{"prompt": "x", "worktree": True},
                                       {"prompt": "x", "worktree": worktree}]})
    assert [w for w in words if w not in text] == []
    assert branches(repo) == [] and task_dirs(root) == [] and not (root / "worktrees").exists()


def test_a_batch_of_32_worktrees_in_one_repository_comes_home_whole(client, repo):
    c, prompts = client(), [{"prompt": "WRITE file%d %d" % (n, n)} for n in range(32)]
    records = c.good(
        c.call("codex_batch", {"tasks": prompts, "defaults": {"worktree": True}}, timeout=240))["tasks"]
    assert [r["outcome"] for r in records] == ["succeeded"] * 32 and len(branches(repo)) == 32
    for number, record in enumerate(records):
        assert git(repo, "diff", "--name-only", "main",
                   "codex-swarm/" + record["task_id"]).split() == ["file%d" % number]


# -- what comes along -------------------------------------------------------------------------------------
def test_uncommitted_changes_and_included_files_come_along_and_the_record_says_so(client, repo):
    put(repo, _gitignore=".env\nbuild\n", _worktreeinclude=".env\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "ignores")
    put(repo, README="edited\n", untracked="1\n", _env="KEY=1\n", build="b\n")
    before = git(repo, "status", "--porcelain", "--ignored")
    record = client().ok("codex", prompt="SHELL cat README untracked .env > seen",
                         worktree={"include_changes": True})
    tree = record["worktree"]
    assert git(repo, "show", tree["branch"] + ":seen") == "edited\n1\nKEY=1\n"
    assert tree["carried"] == {"count": 2, "first": ["README", "untracked"]}
    assert tree["copied"] == {"count": 1, "first": [".env"]}
    assert tree["unseen"] == {"ignored": {"count": 1, "first": ["build"]}}
    assert (tree["files_changed"], tree["commits"]) == (1, 1)
    assert git(repo, "status", "--porcelain", "--ignored") == before
    assert ".env" not in git(repo, "ls-tree", "-r", "--name-only", tree["branch"]).split()


def test_without_include_changes_the_record_names_what_the_task_does_not_see(client, repo):
    put(repo, README="edited\n", untracked="1\n")
    tree = client().ok("codex_async", prompt="x", worktree=True)["worktree"]
    assert tree["unseen"] == {"changed": {"count": 1, "first": ["README"]},
                              "untracked": {"count": 1, "first": ["untracked"]}}


# -- setup ------------------------------------------------------------------------------------------------
SETUP = "CODEX_SWARM_WORKTREE_SETUP"


def test_the_setup_command_has_run_in_the_top_of_the_worktree_when_codex_starts_in_its_directory(
        client, repo):
    (repo / "sub").mkdir()
    put(repo / "sub", x="1\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "sub")
    record = client(env={SETUP: 'pwd > made; echo "$1" >> made'}).ok(
        "codex", prompt="SHELL cp ../made seen", worktree=True, cwd="sub")
    path = record["worktree"]["path"]
    with open(path + "/sub/seen") as f:
        assert f.read() == "%s\n%s\n" % (os.path.realpath(path), repo)


@pytest.mark.parametrize("arguments", [{"worktree": {"setup": False}}, {}])
def test_the_setup_command_is_left_out_when_told_so_and_without_a_worktree(client, tmp_path, arguments):
    assert client(env={SETUP: "touch %s" % (tmp_path / "ran")}).ok(
        "codex", prompt="x", **arguments)["outcome"] == "succeeded"
    assert not (tmp_path / "ran").exists()


def test_a_setup_command_that_fails_fails_the_task_with_its_last_words_and_codex_never_starts(client, root):
    result = client(env={SETUP: "echo no such package; exit 7"}).call(
        "codex", {"prompt": "WRITE x 1", "worktree": True})
    record = result["structuredContent"]
    assert result["isError"] and record["failure"]["kind"] == "setup" and "threadId" not in record
    assert "exit status 7" in record["failure"]["message"]
    assert "no such package" in record["failure"]["message"]
    assert "setup.log" in record["failure"]["advice"]
    assert not os.path.exists(record["worktree"]["path"] + "/x")


def test_a_setup_command_can_be_cancelled_with_all_that_it_started(client, tmp_path):
    c = client(env={SETUP: "setsid sleep 1000 & echo $! > %s; wait" % (tmp_path / "pid")})
    task = c.ok("codex_async", prompt="WRITE x 1", worktree=True)["task_id"]
    pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    record = c.ok("codex_cancel", task_ids=[task])["tasks"][0]
    assert (record["state"], record["outcome"]) == ("ended", "cancelled")
    assert not os.path.exists(record["worktree"]["path"] + "/x")
    eventually(lambda: not alive(pid))


def test_a_setup_command_counts_against_the_time_limit(client):
    result = client(env={SETUP: "sleep 1000"}).call("codex",
                                                    {"prompt": "x", "worktree": True, "timeout_s": 0.5})
    assert result["structuredContent"]["outcome"] == "timed_out"


def test_the_setup_command_runs_once_not_at_every_reply(client, tmp_path):
    c = client(env={SETUP: "echo ran >> %s" % (tmp_path / "ran")})
    first = c.ok("codex", prompt="x", worktree=True)
    assert c.ok("codex_reply", prompt="y", threadId=first["threadId"])["outcome"] == "succeeded"
    assert (tmp_path / "ran").read_text() == "ran\n"


# -- the end ----------------------------------------------------------------------------------------------
def test_what_could_not_be_taken_is_named_in_the_result(client, repo):
    record = client().ok("codex", prompt="SHELL git init -q inner && touch inner/f\nWRITE x 1", worktree=True)
    assert record["worktree"]["left_out"] == {"count": 1, "first": ["inner/ (a repository of its own)"]}
    assert "inner/" in record["warnings"][0]
    assert git(repo, "ls-tree", "-r", "--name-only", record["worktree"]["branch"]).split() == ["README", "x"]


MAKES = ("SHELL mkdir -p own tests conf build/empty node_modules/deep && echo '*' > own/.gitignore && "
         "touch own/work tests/.env conf/more.json"
         " node_modules/deep/a node_modules/deep/b x.pyc; rmdir build/empty")


@pytest.fixture
def ignoring(repo):
    """Where a test's `.env`, caches and all of `conf` are ignored, and two such files are copied."""
    put(repo, _gitignore=".env\nconf/\nbuild/\nnode_modules/\n*.pyc\n",
        _worktreeinclude=".env\nconf/local.json\n", _env="KEY=1\n")
    (repo / "conf").mkdir()
    (repo / "conf" / "local.json").write_text("{}\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "ignores")


# and node_modules/, as one
IGNORED = {"count": 6, "first": ["conf/more.json", "own/.gitignore", "own/work", "tests/.env", "x.pyc"]}


def test_ignored_files_that_the_task_made_are_named_in_the_result_and_by_the_diff(client, ignoring, gate):
    c = client()
    task = c.ok("codex_async", prompt=MAKES + "\nWRITE done 1\n" + gate.wait, worktree=True)
    eventually(lambda: os.path.exists(task["worktree"]["path"] + "/done"), what="the files")
    assert c.ok("codex_diff", task_id=task["task_id"])["ignored"] == IGNORED
    gate.open()
    record = c.ok("codex_wait", task_ids=[task["task_id"]])["tasks"][0]
    assert record["worktree"]["ignored"] == IGNORED and record["worktree"]["files_changed"] == 1
    assert c.ok("codex_diff", task_id=task["task_id"])["ignored"] == IGNORED
    text = c.call("codex_wait", {"task_ids": [task["task_id"]]})["content"][0]["text"]
    assert "only in the worktree, and ignored: `conf/more.json`" in text and "and 1 more" in text


def test_a_task_that_makes_no_ignored_files_says_nothing_of_those_that_were_copied(client, ignoring):
    c = client()
    record = c.ok("codex", prompt="WRITE x 1", worktree=True)
    assert record["worktree"]["copied"]["count"] == 2 and "ignored" not in record["worktree"]
    assert "ignored" not in c.ok("codex_diff", task_id=record["task_id"])


def test_work_on_a_branch_of_the_tasks_own_is_on_the_tasks_branch(client, repo):
    commit = "git checkout -q -b mine && echo 1 > a && git add a && git commit -q -m a && echo 2 > b"
    record = client().ok("codex", prompt="SHELL " + commit, worktree=True)
    tree = record["worktree"]
    assert git(repo, "ls-tree", "--name-only", tree["branch"]).split() == ["README", "a", "b"]
    assert tree["commits"] == 2
    assert any("`mine`" in w for w in record["warnings"])
    assert git(repo, "log", "-1", "--format=%s", "mine") == "a\n"


def test_a_worktree_that_is_gone_at_the_end_is_told_and_the_run_is_judged_by_itself(client):
    record = client().ok("codex", prompt='SHELL cd / && rm -r "$OLDPWD"\nSAY done', worktree=True)
    assert record["outcome"] == "succeeded"
    assert "not committed" in record["warnings"][0]
    assert record["worktree"]["unsaved"]


def test_a_reply_where_the_worktree_is_gone_is_refused_in_words_and_goes_on_when_it_is_back(
        client, repo, tmp_path):
    c = client()
    record = c.ok("codex", prompt="WRITE x 1", worktree=True)
    path, elsewhere = record["worktree"]["path"], str(tmp_path / "elsewhere")
    os.rename(path, elsewhere)
    text = c.refused("codex_reply", {"prompt": "WRITE y 1", "threadId": record["threadId"]})
    assert path in text and "does not exist" in text
    os.rename(elsewhere, path)
    assert c.ok("codex_reply", prompt="WRITE y 1", threadId=record["threadId"])["worktree"]["commits"] == 2
    assert git(repo, "ls-tree", "--name-only", record["worktree"]["branch"]).split() == ["README", "x", "y"]


def test_the_worktree_of_a_running_task_cannot_be_removed_by_hand(client, repo, gate):
    c = client()
    task = c.ok("codex_async", prompt=gate.wait, worktree=True)
    assert running(c, 1) == [task["task_id"]]
    with pytest.raises(Exception) as caught:
        git(repo, "worktree", "remove", task["worktree"]["path"])
    assert "task is running" in str(caught.value)
    gate.open()
    c.ok("codex_wait", task_ids=[task["task_id"]])
    git(repo, "worktree", "remove", task["worktree"]["path"])


def test_the_record_on_disk_says_what_the_result_says(client, root):
    record = client().ok("codex", prompt="WRITE x 1", worktree=True)
    with open(str(root / "tasks" / record["task_id"] / "report.json")) as f:
        report = json.load(f)
    assert {key: report["worktree"][key] for key in record["worktree"]} == record["worktree"]
