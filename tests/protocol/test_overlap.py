"""Tasks of one repository that touch the same file are told so, while they run and in their results."""
import os
import shutil
import subprocess

import pytest

import codex_mcp_swarm as cms
from client import eventually
from conftest import git


MODEL = cms.Phase.MODEL.value


def start(c, *prompts, **more):
    """Start a batch whose tasks wait at the end; their ids, once each has edited its file."""
    tasks = [{"prompt": prompt, **more} for prompt in prompts]
    ids = c.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    eventually(
        lambda: all(t.get("progress", {}).get("last_file")
                    for t in c.ok("codex_status", task_ids=ids)["tasks"]))
    return ids


def overlaps(records):
    return {r["task_id"]: r["overlaps"] for r in records if "overlaps" in r}


@pytest.mark.parametrize("where", [{"worktree": True}, {}, {"worktree": True, "cwd": "sub"}],
                         ids=["worktrees", "one checkout", "sub-directory"])
def test_two_running_tasks_that_edit_one_file_are_flagged_in_the_status_and_in_their_results(
        client, repo, gate, where):
    (repo / "sub").mkdir()
    c = client()
    ids = start(c, "WRITE same 1\nWRITE a 1\n" + gate.wait, "WRITE b 1\nWRITE same 2\n" + gate.wait,
                "WRITE c 1\n" + gate.wait, **where)
    same = {"count": 1, "first": ["sub/same" if "cwd" in where else "same"]}
    wanted = {ids[0]: {ids[1]: same}, ids[1]: {ids[0]: same}}
    eventually(lambda: overlaps(c.ok("codex_status")["tasks"]) == wanted)
    gate.open()
    result = c.call("codex_wait", {"task_ids": ids})
    assert overlaps(result["structuredContent"]["tasks"]) == wanted
    assert "also touched by task " + ids[1] in result["content"][0]["text"]


def begun(c, *prompts, **more):
    """Start tasks that wait at the end; their ids, once each has run its command."""
    tasks = [{"prompt": prompt, **more} for prompt in prompts]
    ids = c.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    eventually(lambda: all(t.get("progress", {}).get("tools") and t["progress"]["phase"] == MODEL
                           for t in c.ok("codex_status", task_ids=ids)["tasks"]))
    return ids


def test_an_edit_that_only_the_shell_made_is_flagged_while_tasks_run_and_when_they_have_ended(client, gate):
    c = client()
    ids = begun(c, "SHELL echo 1 > README; echo a > a\n" + gate.wait,
                "SHELL echo 2 > README; echo b > b\n" + gate.wait, worktree=True)
    same = {"count": 1, "first": ["README"]}
    wanted = {ids[0]: {ids[1]: same}, ids[1]: {ids[0]: same}}
    eventually(lambda: overlaps(c.ok("codex_status")["tasks"]) == wanted)
    gate.open()
    assert overlaps(c.ok("codex_wait", task_ids=ids)["tasks"]) == wanted


def test_a_change_in_a_checkout_counts_for_the_one_task_that_may_have_made_it(client, repo, gate):
    """Not what lay there before, and not where two tasks that may write work in the same checkout."""
    (repo / "before").write_text("mine\n")
    os.utime(repo / "before", (1, 1))
    c, prompt = client(), "SHELL echo 1 > README; echo x > before\n" + gate.wait
    [tree] = begun(c, prompt, worktree=True)
    [main] = begun(c, "SHELL echo 2 > README\n" + gate.wait)
    [reads] = begun(c, "SHELL true\n" + gate.wait, sandbox="read-only")
    same = {"count": 1, "first": ["README"]}
    wanted = {tree: {main: same}, main: {tree: same}}
    eventually(lambda: overlaps(c.ok("codex_status")["tasks"]) == wanted)
    begun(c, "SHELL true\n" + gate.wait)
    eventually(lambda: overlaps(c.ok("codex_status")["tasks"]) == {})
    gate.open()


def test_a_git_that_hangs_keeps_no_answer_waiting(client, repo, gate, tmp_path):
    subprocess.run(["git", "clone", "-q", str(repo), str(tmp_path / "clone")], check=True)
    git_path = tmp_path / "bin" / "git"
    git_path.parent.mkdir()
    git_path.write_text('#!/bin/sh\nfor word; do test "$word" != status || exec sleep 1000; done\n'
                        'exec %s "$@"\n' % shutil.which("git"))
    git_path.chmod(0o700)
    c = client(env={"PATH": "%s:%s" % (git_path.parent, os.environ["PATH"])})
    begun(c, "SHELL echo 1 > README\n" + gate.wait)
    begun(c, "SHELL echo 2 > README\n" + gate.wait, cwd=str(tmp_path / "clone"))
    assert overlaps(c.ok("codex_status")["tasks"]) == {}
    gate.open()


def test_a_main_checkout_and_a_worktree_of_it_are_one_repository_and_a_clone_is_another(
        client, repo, gate, tmp_path):
    subprocess.run(["git", "clone", "-q", str(repo), str(tmp_path / "clone")], check=True)
    git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    c, prompt = client(), "WRITE same 1\n" + gate.wait
    main, = start(c, prompt)
    linked, = start(c, prompt, cwd=str(tmp_path / "linked"))
    start(c, prompt, cwd=str(tmp_path / "clone"))
    same = {"count": 1, "first": ["same"]}
    assert overlaps(c.ok("codex_status")["tasks"]) == {main: {linked: same}, linked: {main: same}}
    gate.open()


def test_tasks_that_were_asked_for_at_once_and_ran_one_after_the_other_do_not_overlap(client):
    c = client("--max-parallel", "1")
    ids = c.ok("codex_batch", tasks=[{"prompt": "WRITE same %d" % n, "worktree": True} for n in range(2)],
               wait=False)["task_ids"]
    assert overlaps(c.ok("codex_wait", task_ids=ids)["tasks"]) == {}


def test_a_queued_task_is_no_writer_beside_the_one_that_runs(client, gate):
    c = client("--max-parallel", "2")
    [tree] = begun(c, "SHELL echo 1 > README\n" + gate.wait, worktree=True)
    [main] = begun(c, "SHELL echo 2 > README\n" + gate.wait)
    c.ok("codex_async", prompt="SAY x")
    same = {"count": 1, "first": ["README"]}
    eventually(lambda: overlaps(c.ok("codex_status")["tasks"]) == {tree: {main: same}, main: {tree: same}})
    gate.open()


def test_tasks_that_ran_one_after_the_other_do_not_overlap(client):
    c = client()
    ids = [c.ok("codex", prompt="WRITE same %d" % n)["task_id"] for n in range(2)]
    assert overlaps(c.ok("codex_wait", task_ids=ids)["tasks"]) == {}
