"""The sweep as people and clients meet it: the command, the limit of free space, and what a server does by itself."""
import json
import os
import subprocess
import sys

import pytest

from client import eventually
from conftest import SERVER, git, task_dirs


def sweep(env, *flags, status=0, **more):
    done = subprocess.run([sys.executable, str(SERVER), "sweep", *flags], env=dict(env, **more), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr if not status else b"") == (status, b""), done.stderr.decode()
    return done.stdout.decode()


def aged(root, task_id):
    """As if the task had ended two days ago."""
    path = root / "tasks" / task_id / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps(dict(report, ended_at=report["ended_at"] - 2 * 86400)))


@pytest.fixture
def three(client, root, repo):
    """Three tasks that ended long ago: merged, with an ignored file, without a worktree; and a young one. The first two worktrees."""
    (repo / ".git" / "info" / "exclude").write_text("*.log\n")
    c = client()
    merged, kept, plain = [c.ok("codex", prompt=prompt, worktree=tree) for prompt, tree in (("WRITE a 1", True), ("WRITE x.log 1", True), ("SAY x", False))]
    c.ok("codex", prompt="SAY young")
    git(repo, "merge", "-q", merged["worktree"]["branch"])
    for record in (merged, kept, plain):
        aged(root, record["task_id"])
    return merged["worktree"], kept["worktree"]


def test_a_dry_run_lists_sizes_verdicts_and_reasons_and_removes_nothing(three, fake, root):
    merged, kept = three
    out = sweep(fake, "--dry-run")
    rows = {line.split("  ")[-1]: line for line in out.splitlines() if not line.startswith(" ")}
    assert rows[merged["path"]].startswith("would remove ") and " MB " in rows[merged["path"]] and "48.0 h" in rows[merged["path"]]
    assert rows[kept["path"]].startswith("keep ") and "`x.log`" in out and "sweep --ignored" in out and "kept for 86400 s" in out
    assert out.splitlines()[-1].startswith("would remove: 2, ") and "kept: 2, " in out.splitlines()[-1]
    assert len(task_dirs(root)) == 4 and os.path.isdir(merged["path"]) and not (root / "sweep.lock").read_bytes()


def test_a_sweep_removes_what_it_said_and_the_branch_can_be_had_back(three, fake, root, repo):
    merged, kept = three
    tip = git(repo, "rev-parse", merged["branch"])
    out = sweep(fake)
    assert out.splitlines()[-1].startswith("removed: 2, ") and len(task_dirs(root)) == 2
    assert not os.path.exists(merged["path"]) and os.path.exists(kept["path"] + "/x.log") and merged["branch"] not in git(repo, "branch")
    assert git(repo, "rev-parse", "refs/codex-swarm/trash/%s^1" % merged["branch"].split("/")[1]) == tip
    assert sweep(fake, "--ignored").splitlines()[-1].startswith("removed: 1, ") and not os.path.exists(kept["path"])


def test_with_an_age_of_0_nothing_is_removed(three, fake, root):
    assert "removed: 0, " in sweep(fake, CODEX_SWARM_TASK_MAX_AGE="0") and len(task_dirs(root)) == 4


def test_where_nothing_was_ever_started_there_is_nothing_to_sweep(fake, root):
    said = sweep(fake).splitlines()
    assert len(said) == 2 and str(root) in said[0] and "nothing was ever run" in said[0] and said[1] == "removed: 0, 0.0 MB; kept: 0, 0.0 MB" and not root.exists()


@pytest.mark.parametrize("args", [["--dry-run"], ["--ignored"], ["demo", "--dry-run"]])
def test_the_flags_of_the_sweep_are_refused_elsewhere(fake, args):
    done = subprocess.run([sys.executable, str(SERVER), *args], env=fake, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert (done.returncode, done.stdout) == (2, b"") and args[-1].encode() in done.stderr


def test_a_root_that_others_can_change_is_not_swept(three, fake, root):
    os.chmod(str(root), 0o777)
    sweep(fake, status=1)
    assert len(task_dirs(root)) == 4


def test_starting_a_server_removes_nothing_and_starting_a_task_does(three, client, root):
    os.utime(str(root / "swept"), (1, 1))
    before = len(task_dirs(root))
    c = client()
    c.ok("codex_status")
    assert len(task_dirs(root)) == before and not os.stat(str(root / "swept")).st_mtime > 1
    c.ok("codex", prompt="SAY x")
    eventually(lambda: len(task_dirs(root)) == before - 2 + 1, what="the sweep")


def test_below_the_limit_of_free_space_a_worktree_is_refused_in_words(client, repo, root):
    text = client(env={"CODEX_SWARM_MIN_FREE_MB": "1000000000000"}).refused("codex", {"prompt": "x", "worktree": True})
    assert [w for w in ("MiB are free", "CODEX_SWARM_MIN_FREE_MB", "codex-mcp-swarm sweep") if w not in text] == []
    assert task_dirs(root) == [] and git(repo, "branch").split() == ["*", "main"]


def test_kept_for_ever_is_a_ttl_of_null(modern):
    c = modern(tasks=True, env={"CODEX_SWARM_TASK_MAX_AGE": "0"})
    assert c.handle("codex", prompt="SAY x")["ttlMs"] is None
