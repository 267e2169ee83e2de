"""The sweep as people and clients meet it: the command, the limit of free space, and what a server does by
itself."""
import json
import os
import subprocess

import pytest

from client import eventually
from conftest import command, finished, git, task_dirs


def sweep(env, *flags, status=0, **more):
    done = finished(["sweep", *flags], dict(env, **more), "/")
    assert (done.returncode, done.stderr if not status else b"") == (status, b""), done.stderr.decode()
    return done.stdout.decode()


def aged(root, task_id):
    """As if the task had ended two days ago."""
    path = root / "tasks" / task_id / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps(dict(report, ended_at=report["ended_at"] - 2 * 86400)))


def left(root):
    """The tasks of which more than the answer is left."""
    return [path for path in task_dirs(root) if not (path / "kept").exists()]


@pytest.fixture
def three(client, root, repo):
    """Three tasks that ended long ago: merged, with an ignored file, without a worktree; and a young one. The
    first two worktrees."""
    (repo / ".git" / "info" / "exclude").write_text("*.log\n")
    root.mkdir(0o700)
    (root / "swept").touch()                                    # just now: no start sweeps by itself
    c = client()
    merged = c.ok("codex", prompt="WRITE a 1", worktree=True)
    kept = c.ok("codex", prompt="WRITE x.log 1", worktree=True)
    plain = c.ok("codex", prompt="SAY x")
    c.ok("codex", prompt="SAY young")
    git(repo, "merge", "-q", merged["worktree"]["branch"])
    for record in (merged, kept, plain):
        aged(root, record["task_id"])
    return merged["worktree"], kept["worktree"]


def test_a_dry_run_lists_sizes_verdicts_and_reasons_and_removes_nothing(three, fake, root):
    merged, kept = three
    out = sweep(fake, "--dry-run")
    rows = {line.split("  ")[-1]: line for line in out.splitlines() if not line.startswith(" ")}
    assert rows[merged["path"]].startswith("would remove ")
    assert " MB " in rows[merged["path"]]
    assert " 2 d " in rows[merged["path"]]
    assert rows[kept["path"]].startswith("keep ")
    assert "`x.log`" in out
    assert "sweep --ignored" in out
    assert "kept for 24 h" in out
    assert out.splitlines()[-1].startswith("would remove: 2, ") and "kept: 2, " in out.splitlines()[-1]
    assert len(task_dirs(root)) == 4
    assert os.path.isdir(merged["path"])
    assert (root / "sweep.lock").stat().st_size == 0


def test_a_sweep_removes_what_it_said_and_the_branch_can_be_had_back(three, fake, root, repo):
    merged, kept = three
    tip = git(repo, "rev-parse", merged["branch"])
    out = sweep(fake)
    assert out.splitlines()[-1].startswith("removed: 2, ") and len(left(root)) == 2
    assert not os.path.exists(merged["path"])
    assert os.path.exists(kept["path"] + "/x.log")
    assert merged["branch"] not in git(repo, "branch")
    assert git(repo, "rev-parse", "refs/codex-swarm/trash/%s^1" % merged["branch"].split("/")[1]) == tip
    assert sweep(fake, "--ignored").splitlines()[-1].startswith("removed: 1, ")
    assert not os.path.exists(kept["path"])


def test_with_an_age_of_0_nothing_is_removed(three, fake, root):
    assert "removed: 0, " in sweep(fake, CODEX_SWARM_TASK_MAX_AGE="0") and len(task_dirs(root)) == 4


def test_where_nothing_was_ever_started_there_is_nothing_to_sweep(fake, root):
    said = sweep(fake).splitlines()
    assert len(said) == 2
    assert str(root) in said[0]
    assert "nothing was ever run" in said[0]
    assert said[1] == "removed: 0, 0.0 MB; kept: 0, 0.0 MB"
    assert not root.exists()


def test_young_work_goes_when_it_is_merged_and_a_human_says_so(three, fake, root, client, repo):
    record = client().ok("codex", prompt="WRITE b 1", worktree=True)
    git(repo, "merge", "-q", "--squash", record["worktree"]["branch"])
    git(repo, "commit", "-q", "-m", "squashed")
    things = json.loads(sweep(fake, "--merged", "--json"))["swept"]
    removed = {thing["path"]: thing["removed"] for thing in things}
    assert removed[record["worktree"]["path"]] and not os.path.exists(record["worktree"]["path"])
    assert sorted(removed.values()) == [False, False, True, True, True]


@pytest.mark.parametrize("args", [["--dry-run"], ["--ignored"], ["demo", "--dry-run"]])
def test_the_flags_of_the_sweep_are_refused_elsewhere(fake, args):
    done = finished(args, fake, "/")
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
    eventually(lambda: len(left(root)) == before - 2 + 1, what="the sweep")


def test_below_the_limit_of_free_space_a_worktree_is_refused_in_words(client, repo, root):
    text = client(env={"CODEX_SWARM_MIN_FREE_MB": "1000000000000"}).refused(
        "codex", {"prompt": "x", "worktree": True})
    assert [w for w in ("MiB are free", "CODEX_SWARM_MIN_FREE_MB", "codex-mcp-swarm sweep")
            if w not in text] == []
    assert task_dirs(root) == [] and git(repo, "branch").split() == ["*", "main"]


def test_kept_for_ever_is_a_ttl_of_null(modern):
    c = modern(tasks=True, env={"CODEX_SWARM_TASK_MAX_AGE": "0"})
    assert c.handle("codex", prompt="SAY x")["ttlMs"] is None


def test_answers_live_on_after_the_sweep_and_a_reply_goes_on_in_the_same_worktree(
        three, client, fake, root, repo):
    merged, _ = three
    task = os.path.basename(merged["path"])
    before = client().ok("codex_wait", task_ids=[task])
    sweep(fake)
    c = client()
    assert c.ok("codex_wait", task_ids=[task]) == before
    assert c.ok("codex_status", task_ids=[task])["tasks"][0]["content"] == before["tasks"][0]["content"]
    assert c.ok("codex_diff", task_id=task, view="files")["content"] == "A a"
    assert c.ok("codex_merge", task_ids=[task])["already_in"] == [task]
    uri = "codex-swarm:///tasks/%s/events" % task
    assert "A sweep removed" in c.request("resources/read", {"uri": uri})["result"]["contents"][0]["text"]
    shown = finished(["show", task], fake, repo).stdout.decode()
    assert "The worktree is gone" in shown and "`refs/codex-swarm/trash/%s`" % task in shown
    reply = c.ok("codex_reply", task_id=task, prompt="WRITE b 2")
    assert "is gone" not in finished(["show", task], fake, repo).stdout.decode()
    assert reply["threadId"] == before["tasks"][0]["threadId"] and reply["worktree"]["path"] == merged["path"]
    assert git(repo, "show", merged["branch"] + ":b") == "2\n"
    assert c.ok("codex_diff", task_id=reply["task_id"], view="files")["content"] == "A b"
    assert len(task_dirs(root)) == 5 and not (root / "tasks" / task / "events.jsonl").exists()
    assert "removed: 2, " in sweep(fake, "--ignored", CODEX_SWARM_RESULT_MAX_AGE="1")
    assert len(task_dirs(root)) == 3


def test_the_sweep_told_to_a_reader_that_leaves_ends_quietly(three, fake):
    sweeper = subprocess.Popen(command("sweep", "--dry-run"), env=fake,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert sweeper.stdout.readline().startswith(b"Tasks in ")
    sweeper.stdout.close()
    assert sweeper.stderr.read() == b""
    sweeper.wait(60)


def test_a_sweep_whose_reader_leaves_goes_on_to_its_end(three, fake, root):
    merged, _ = three
    sweeper = subprocess.Popen(command("sweep"), env=fake, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert sweeper.stdout.readline().startswith(b"Tasks in ")
    sweeper.stdout.close()
    assert (sweeper.stderr.read(), sweeper.wait(60)) == (b"", 0)
    assert len(left(root)) == 2 and not os.path.exists(merged["path"])


def test_of_a_task_whose_answer_stays_the_sweep_says_so(three, fake):
    rows = sweep(fake).splitlines()
    removed = [n for n, row in enumerate(rows) if row.startswith("removed ")]
    assert len(removed) == 2
    assert all("All but the answer, which stays until it is 30 d old" in rows[n + 1] for n in removed)
    assert not any("removed" in row for row in sweep(fake).splitlines()[:-1])


def test_what_is_left_of_killed_servers_is_told_as_traces(fake, root):
    hidden = root / "tasks" / ".0123456789ab"
    hidden.mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    os.utime(str(hidden), (1, 1))
    row = [line for line in sweep(fake).splitlines() if line.startswith("removed  ")][0]
    assert row.endswith("1 traces below %s" % root) and not hidden.exists()


@pytest.mark.parametrize("ages, words", [
    (("0", "1"), ("kept for ever (", "their answers for ever (")),
    (("0.5", "1"), ("kept for 0.5 s (", "their answers for 1 s (")),
    (("7200", "0"), ("kept for 2 h (", "their answers for ever (")),
    (("7200", "1"), ("kept for 2 h (", "their answers for 2 h ("))])
def test_the_header_tells_how_the_two_ages_work_together(fake, ages, words):
    out = sweep(fake, CODEX_SWARM_TASK_MAX_AGE=ages[0], CODEX_SWARM_RESULT_MAX_AGE=ages[1])
    assert [word for word in words if word not in out.splitlines()[0]] == []
