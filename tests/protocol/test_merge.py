"""codex_merge as a client sees it: the answer, its text, its limits, and the errors."""
import json
import os
import re
import shutil
import subprocess

import pytest

from client import text_of
from conftest import git


@pytest.fixture
def two(client, repo):
    """A factory: a client, and two tasks that wrote the same file."""
    def make(lines=1, **options):
        c = client(**options)
        write = "SHELL i=0; while [ $i -lt %d ]; do echo %%s $i; echo; i=$((i+1)); done > same" % lines
        tasks = [{"prompt": write % word, "worktree": True} for word in ("first", "second")]
        result = c.call("codex_batch", {"tasks": tasks}, timeout=60)
        lines_of_tasks = [line for line in text_of(result).splitlines() if line.startswith("Task ")]
        tasks = result.get("structuredContent", {}).get("tasks", ())        # all that codex is sent
        return c, [task["task_id"] for task in tasks] or [line.split()[1] for line in lines_of_tasks]
    return make


def test_a_conflict_is_an_error_whose_text_alone_says_who_where_and_what_to_do(two, repo):
    c, (one, other) = two()
    before = git(repo, "for-each-ref")
    text = c.refused("codex_merge", {"task_ids": [one, other]})
    assert "Tasks %s and %s conflict in `same` (contents)" % (one, other) in text
    assert "<<<<<<<" in text
    assert "first 0" in text
    assert "second 0" in text
    assert "codex_reply " in text and '"update_from":"%s"' % one in text
    assert git(repo, "for-each-ref") == before


def test_a_dry_run_with_a_conflict_is_no_error(two):
    c, ids = two()
    data = c.ok("codex_merge", task_ids=ids, dry_run=True)
    assert data["conflicts"][0]["tasks"] == ids
    assert "merged" not in data
    assert data["not_merged"] == ids
    assert data["fitting"] == ids[:1]


@pytest.mark.parametrize("name, limit",
                         [("codex-mcp-client", 12_000), ("claude-code", 40_000), ("another", 40_000)])
def test_huge_conflicts_stay_within_what_the_client_can_take(two, name, limit):
    c, ids = two(lines=5000, name=name)
    result = c.call("codex_merge", {"task_ids": ids, "dry_run": True})
    assert not result["isError"] and len(json.dumps(result)) < limit * 1.05
    assert result["structuredContent"]["conflicts"][0]["files"][0]["hunks"][0]["text"].startswith("<<<<<<<")
    assert len(text_of(c.call("codex_merge", {"task_ids": ids}))) <= 9_500


def test_the_merge_says_where_it_is(client, repo):
    c = client()
    ids = [c.ok("codex", prompt="WRITE f%d 1" % n, worktree=True)["task_id"] for n in range(2)]
    result = c.call("codex_merge", {"task_ids": ids})
    data = result["structuredContent"]
    assert data["merged"] == ids
    assert git(repo, "rev-parse", data["branch"]).strip() == data["commit"]
    assert "conflicts" not in data
    assert "branch " + data["branch"] in text_of(result) and " 2 files" in text_of(result)
    assert git(repo, "status", "--porcelain") == ""


def test_a_partial_merge_advises_the_next_step_and_not_what_it_has_just_done(two):
    c, (one, other) = two()
    data = c.ok("codex_merge", task_ids=[one, other], partial=True)
    assert data["merged"] == [one]
    assert "fit together" not in data["advice"]
    assert "The branch holds what was merged" in data["advice"]
    assert "codex_reply" in data["advice"] and other in data["advice"] and one not in data["advice"]


def test_conflicting_tasks_are_united_by_a_reply_and_then_merged(two, repo):
    c, (one, other) = two()
    reply = c.ok("codex_reply", task_id=other, update_from=one,
                 prompt="SHELL sed -i.bak -e '/^[<=>]\\{7\\}/d' same; rm same.bak")
    assert "conflicts" in reply["warnings"][0]
    data = c.ok("codex_merge", task_ids=[one, reply["task_id"]], into="HEAD")
    assert data["branch"] == "main" and (repo / "same").read_text() == "second 0\nfirst 0\n\n"


@pytest.fixture
def git_that(tmp_path):
    """A factory: the environment in which git, at the moment of its own merge into the checkout, first runs
    this command."""
    def make(command):
        wrapper = tmp_path / "bin" / "git"
        wrapper.parent.mkdir()
        script = '#!/bin/sh\ncase "$*" in *" merge --ff-only "*) %s;; esac\nexec %s "$@"\n'
        wrapper.write_text(script % (command, shutil.which("git")))
        wrapper.chmod(0o755)
        return {"PATH": "%s:%s" % (wrapper.parent, os.environ["PATH"])}
    return make


@pytest.mark.parametrize("name, make", [
    ("README", "tracked and edited"), ("new", "untracked"), ("kept", "ignored"), ("late", "staged")])
def test_a_file_that_is_saved_between_the_check_and_gits_own_merge_survives(
        client, repo, git_that, name, make):
    (repo / ".git" / "info" / "exclude").write_text("kept\n")
    stage = "; git add late" if make == "staged" else ""
    c = client(env=git_that("echo 'of the user' > %s%s" % (name, stage)))
    write = "SHELL for f in README new late kept zzz; do echo task > $f; done"
    prompt = write + "; git add -f kept; git commit -qm x"
    task_id = c.ok("codex", prompt=prompt, worktree=True)["task_id"]
    before = git(repo, "rev-parse", "HEAD")
    text = c.refused("codex_merge", {"task_ids": [task_id], "into": "HEAD"})
    assert "`main` was not moved" in text and name in text and "stays as it is" in text, text
    assert (repo / name).read_text() == "of the user\n"
    assert git(repo, "rev-parse", "HEAD") == before
    assert not (repo / "zzz").exists()


def test_a_git_that_fails_half_way_is_told_file_by_file_and_the_way_back_loses_no_edit(
        client, repo, tmp_path):
    for name in ("a", "edited", "gone"):
        (repo / name).write_text("old\n")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "files")
    fail = tmp_path / "fail"
    fail.write_text("cd %s; echo 'of the user' > edited; echo 'of the user' > zzz; exit 1\n" % repo)
    git(repo, "config", "filter.f.smudge", "sh %s" % fail)
    git(repo, "config", "filter.f.clean", "cat")
    git(repo, "config", "filter.f.required", "true")
    (repo / ".git" / "info" / "attributes").write_text("*.bin filter=f\n")
    c = client()
    prompt = "SHELL rm gone; for f in a edited d.bin zzz; do echo task > $f; done"
    task_id = c.ok("codex", prompt=prompt, worktree=True)["task_id"]
    old, new = git(repo, "rev-parse", "HEAD", "codex-swarm/" + task_id).split()
    text = c.refused("codex_merge", {"task_ids": [task_id], "into": "HEAD"})
    assert "HEAD of %s is %s, and not %s" % (repo, old, new) in text and "smudge filter f failed" in text
    assert "what it holds is not in `a`, `edited`, `gone`, `zzz`" in text, text
    assert (repo / "edited").read_text() == (repo / "zzz").read_text() == "of the user\n"
    assert (repo / "a").read_text() == "task\n"
    subprocess.run(re.search(r"run `(.+?)`", text).group(1), shell=True, cwd=str(repo), check=True)
    assert git(repo, "status", "--porcelain") == ""
    assert git(repo, "rev-parse", "HEAD").strip() == old
    assert (repo / "gone").read_text() == "old\n"
    assert git(repo, "show", "stash:edited") == git(repo, "show", "stash^3:zzz") == "of the user\n"
    fail.write_text("cat\n")
    assert c.ok("codex_merge", task_ids=[task_id], into="HEAD")["commit"] == new


def test_the_verify_command_comes_from_the_environment_of_the_server(client, repo):
    c = client(env={"CODEX_SWARM_MERGE_VERIFY": "echo no; false"})
    task_id = c.ok("codex", prompt="WRITE x 1", worktree=True)["task_id"]
    text = c.refused("codex_merge", {"task_ids": [task_id]})
    assert "`echo no; false` ended with exit status 1" in text
    assert "\nno" in text
    assert "nothing was moved" in text


def test_the_task_at_fault_mends_it_with_the_arguments_that_the_answer_holds(client, repo):
    c = client(env={"CODEX_SWARM_MERGE_VERIFY": "[ ! -e broken ] || { echo is''broken; false; }"})
    ids = [c.ok("codex", prompt="WRITE %s 1" % name, worktree=True)["task_id"]
           for name in ("x", "broken", "y")]
    text = c.refused("codex_merge", {"task_ids": ids, "verify": True})
    assert "begins to fail with task " + ids[1] in text and text.count("isbroken") == 1, text
    reply = json.loads(re.search("^codex_reply (\\{.*)$", text, re.M).group(1))
    assert reply["task_id"] == ids[1] and "isbroken" in reply["prompt"]
    mended = c.ok("codex_reply", **dict(reply, prompt="SHELL ls > seen; rm broken"))["task_id"]
    done = c.ok("codex_merge", task_ids=[*ids, mended], into="HEAD")
    assert (repo / "seen").read_text().split() == ["README", "broken", "seen", "x"]
    assert subprocess.run(done["undo"], shell=True, cwd="/").returncode == 0
    assert os.listdir(repo) == [".git", "README"]


@pytest.mark.parametrize("how", ["dry run", "merge"])
def test_every_conflict_comes_with_the_reply_that_unites_it(client, repo, how):
    c = client()
    ids = [c.ok("codex", prompt="WRITE same %d" % n, worktree=True)["task_id"] for n in range(3)]
    arguments = {"task_ids": ids, "dry_run": how == "dry run"}
    text = text_of(c.call("codex_merge", arguments))
    replies = [json.loads(found) for found in re.findall("^codex_reply (\\{.*)$", text, re.M)]
    pairs = [(ids[0], ids[1]), (ids[0], ids[2]), (ids[1], ids[2])]
    assert [(reply["update_from"], reply["task_id"]) for reply in replies] == pairs
    assert "task-%s = task %s: WRITE same 1" % (ids[1], ids[1]) in text


@pytest.mark.parametrize("arguments, words", [
    ({"task_ids": ["0" * 12]}, ["no task"]), ({"task_ids": []}, ["task_ids"]),
    ({}, ["task_ids", "required"]), ({"task_ids": ["0" * 12], "verify": "true"}, ["verify"])])
def test_a_wrong_argument_is_refused_in_words(client, arguments, words):
    text = client().refused("codex_merge", arguments)
    assert [w for w in words if w not in text] == []
