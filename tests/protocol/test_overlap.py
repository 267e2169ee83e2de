"""Tasks of one repository that touch the same file are told so, while they run and in their results."""
import subprocess

import pytest

from client import eventually
from conftest import git


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


def test_an_edit_that_only_the_shell_made_is_flagged_when_the_tasks_have_ended(client, gate):
    c = client()
    prompts = ["WRITE a 1\nSHELL echo 1 > README\n" + gate.wait,
               "WRITE b 1\nSHELL echo 2 > README\n" + gate.wait]
    ids = start(c, *prompts, worktree=True)
    gate.open()
    found = overlaps(c.ok("codex_wait", task_ids=ids)["tasks"])
    assert found == {ids[0]: {ids[1]: {"count": 1, "first": ["README"]}},
                     ids[1]: {ids[0]: {"count": 1, "first": ["README"]}}}


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


def test_tasks_that_ran_one_after_the_other_do_not_overlap(client):
    c = client()
    ids = [c.ok("codex", prompt="WRITE same %d" % n)["task_id"] for n in range(2)]
    assert overlaps(c.ok("codex_wait", task_ids=ids)["tasks"]) == {}
