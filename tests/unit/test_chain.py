"""Tasks whose worktree begins with what another task came to: `base` with `task:`."""
import contextlib
import fcntl
import os

import pytest

import codex_mcp_swarm as cms
from client import eventually

from .helpers import begin, ended, processes
from .on_git import branches, files_of, sh
from .prepared import prepared

AFTER = {"worktree": {"base": "task:0"}}


def chain(app, *commands, **more):
    """The ids of tasks in worktrees, each of which begins with what the one before it came to."""
    first, *others = [{"prompt": "SHELL " + command, **more} for command in commands]
    after = [{**one, "worktree": {"base": "task:%d" % number}} for number, one in enumerate(others)]
    ids = app.start([{**first, "worktree": True}, *after])
    assert [r["outcome"] for r in ended(app, ids)] == ["succeeded"] * len(ids)
    return ids


def merge(app, ids, **wish):
    return app.merge(ids, cms.Call(), cms.Wish(**wish))


@pytest.fixture
def lock_of_repository(swarm, repo):
    """Takes the lock of the repository, which somebody else keeps for as long as the block runs."""
    git = swarm().git
    return lambda: cms.locked(git.lock_of(str(repo / ".git")), fcntl.LOCK_EX, os.O_CREAT)


def waits_for_lock(app, task_id):
    """Whether the supervisor of this task waits for a lock: it has a child that does so."""
    host, at = cms.Host(), app.store.get(task_id).path
    return any(host.about(parent)[1] == at for _, parent, _ in processes())


# -- when it begins -----------------------------------------------------------------------------------
def test_a_worktree_begins_with_the_snapshot_of_a_task_that_runs_and_is_made_then(swarm, gate, repo):
    app = swarm()
    first, second = app.start([{"prompt": gate.wait + "\nWRITE new one", "worktree": True},
                               {"prompt": "SHELL cat new; echo two >>new", **AFTER}])
    eventually(lambda: app.record(second)["progress"]["detail"] == "1st of 1, after " + first)
    record = app.record(second)
    tree = record["worktree"]
    assert (record["state"], tree["base"]) == ("queued", "task:" + first)
    assert not os.path.exists(tree["path"]) and tree["branch"] not in branches(repo)
    with pytest.raises(cms.ToolError, match="is made when it begins. Wait until it has begun\\.$"):
        app.diff(second, None, "stat", ())
    gate.open()
    before, after = (record["worktree"] for record in ended(app, [first, second]))
    assert (after["path"], after["branch"], after["base"]) == (tree["path"], tree["branch"], before["head"])
    assert (after["files_changed"], after["insertions"]) == (1, 1), "its own work alone"
    assert sh(repo, "git", "rev-parse", after["branch"] + "^") == before["head"]


def test_a_worktree_begins_at_once_with_the_snapshot_of_a_task_that_has_ended(swarm, repo):
    app = swarm()
    (first,) = chain(app, "echo one >new")
    (repo / "later").write_text("x\n")
    sh(repo, "git", "add", ".")
    sh(repo, "git", "commit", "-qm", "later")
    (second,) = app.start([{"prompt": "SHELL test -e new && ! test -e later",
                            "worktree": {"base": "task:" + first[:6]}}])
    (record,) = ended(app, [second])
    assert record["outcome"] == "succeeded" and not app.store.get(second).spec().depends_on
    assert record["worktree"]["base"] == app.record(first)["worktree"]["head"]


def test_a_task_works_in_the_same_directory_of_a_worktree_that_is_made_later(swarm, repo, gate):
    (repo / "part").mkdir()
    app = swarm(worktree_setup="pwd >setup")
    ids = app.start([{"prompt": gate.wait + "\nWRITE ../top one", "worktree": True, "cwd": "part"},
                     {"prompt": "SHELL pwd; cat ../top ../setup", "cwd": "part", **AFTER}])
    gate.open()
    records = ended(app, ids)
    assert [record["outcome"] for record in records] == ["succeeded"] * 2
    tree = records[1]["worktree"]["path"]
    assert app.store.get(ids[1]).spec().cwd == tree + "/part"
    assert "top" in files_of(repo, "codex-swarm/" + ids[1])


@pytest.mark.parametrize("on_failure, outcome", [("skip", "failed"), ("run", "succeeded")])
def test_after_a_failure_the_next_one_fails_or_begins_with_what_there_is(swarm, repo, on_failure, outcome):
    app = swarm()
    ids = app.start([{"prompt": "WRITE new one\nFAIL it broke", "worktree": True},
                     {"prompt": "SHELL cat new", "on_failure": on_failure, **AFTER}])
    record = ended(app, ids)[1]
    assert record["outcome"] == outcome
    if outcome == "failed":
        assert "worktree" not in record and "codex-swarm/" + ids[1] not in branches(repo)
        assert record["failure"]["message"] == "Task %s, which it depends on, failed" % ids[0]


def test_a_worktree_that_cannot_be_made_fails_its_task_alone_and_what_is_there_stays(swarm, repo, gate):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER},
                     {"prompt": "SAY y", **AFTER}])
    sh(repo, "git", "branch", "codex-swarm/" + ids[1])
    path = app.record(ids[1])["worktree"]["path"]
    os.makedirs(path)
    with open(path + "/mine", "w"):
        pass
    gate.open()
    records = ended(app, ids)
    assert [record["outcome"] for record in records] == ["succeeded", "failed", "succeeded"]
    assert records[1]["failure"]["kind"] == "setup" and "can be made" in records[1]["failure"]["message"]
    assert os.listdir(path) == ["mine"] and "codex-swarm/" + ids[1] in branches(repo)


def test_a_task_whose_snapshot_is_gone_fails_its_follower_by_name(swarm, gate):
    app = swarm(max_parallel=1)
    first, second = app.start([{"prompt": gate.wait, "worktree": True},
                               {"prompt": "SAY x", "on_failure": "run", **AFTER}])
    waits = begin(app, "SAY between")
    app.stop([first])
    ended(app, [first])
    assert ended(app, [second, waits.task_id])[0]["outcome"] == "succeeded", "a cancelled task has one"
    lost = app.store.get(first)
    lost.remove()
    spec = app.store.get(second).spec()
    with pytest.raises(cms.ToolError, match="There is no snapshot of task %s" % first):
        cms.snapshot_of(lost)
    assert spec.worktree and spec.planned is None


def test_a_configuration_that_would_open_more_to_the_next_task_keeps_it_from_beginning(swarm, repo, root):
    app = swarm()
    config = "[sandbox_workspace_write]\\nwritable_roots = [\\\"%s\\\"]\\n" % root
    ids = app.start([{"prompt": "SHELL mkdir .codex && printf '%s' >.codex/config.toml" % config,
                      "worktree": True}, {"prompt": "SAY x", **AFTER}])
    first, second = ended(app, ids)
    assert first["outcome"] == "succeeded" and ".codex/config.toml" in second["failure"]["message"]
    assert not (root / "worktrees" / ids[1]).exists() and "codex-swarm/" + ids[1] not in branches(repo)


@pytest.mark.parametrize("sandbox", ["read-only", "danger-full-access"])
def test_a_configuration_keeps_no_task_from_beginning_that_it_opens_nothing_to(swarm, sandbox):
    app = swarm()
    config = "[sandbox_workspace_write]\\nnetwork_access = true\\n"
    ids = app.start([{"prompt": "SHELL mkdir .codex && printf '%s' >.codex/config.toml" % config,
                      "worktree": True}, {"prompt": "SAY x", "sandbox": sandbox, **AFTER}])
    assert [record["outcome"] for record in ended(app, ids)] == ["succeeded"] * 2


def test_where_too_little_is_free_by_then_no_worktree_is_made_and_the_task_fails_by_name(swarm, repo, gate):
    app = swarm(min_free_mb=7)
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    task = app.store.get(ids[1])
    spec = task.spec()
    assert spec.min_free_mb == 7
    cms.write_atomic(task.file("spec.json"), cms.to_json(spec._replace(min_free_mb=1 << 40)))
    gate.open()
    record = ended(app, ids)[1]
    assert record["failure"]["kind"] == "setup" and "MiB are free" in record["failure"]["message"]
    assert "codex-swarm/" + ids[1] not in branches(repo)


def test_to_cancel_a_task_before_its_worktree_is_made_leaves_nothing(swarm, repo, gate):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    app.stop(ids)
    assert [record["outcome"] for record in ended(app, ids)] == ["cancelled"] * 2
    assert "codex-swarm/" + ids[1] not in branches(repo)


@pytest.fixture
def hanging(swarm, repo, tmp_path):
    """The swarm, and a request; the checkout of a worktree that begins with its work hangs until the end."""
    hold = tmp_path / "hold"
    hold.write_text("")
    sh(repo, "git", "config", "filter.hang.smudge", "while test -e '%s'; do sleep 0.1; done; cat" % hold)
    sh(repo, "git", "config", "filter.hang.clean", "cat")
    yield swarm(), {"prompt": "WRITE slow x\nWRITE .gitattributes slow filter=hang", "worktree": True}
    hold.unlink()


@pytest.mark.parametrize("kept", [False, True])
def test_to_cancel_a_task_while_its_worktree_is_made_calls_git_off_and_leaves_nothing(
        hanging, repo, lock_of_repository, kept):
    app, first = hanging
    ids = app.start([first, {"prompt": "SAY x", **AFTER}])
    path = app.record(ids[1])["worktree"]["path"]
    eventually(lambda: app.live() and os.path.exists(path), what="the beginning of the checkout")
    with lock_of_repository() if kept else contextlib.nullcontext():
        app.stop([ids[1]])
        assert [record["outcome"] for record in ended(app, ids)] == ["succeeded", "cancelled"]
    if kept:                    # what could not be removed then goes with what is old
        os.utime(os.path.join(cms.leads_to(path, ".git"), "locked"), (0, 0))
        app.store.get(ids[1]).remove()
        list(app.sweep())
    assert not os.path.exists(path) and ("codex-swarm/" + ids[1] in branches(repo)) == kept


def test_a_task_waits_until_nobody_else_writes_in_the_repository_and_goes_on(
        swarm, gate, lock_of_repository):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    with lock_of_repository():
        gate.open()
        eventually(lambda: waits_for_lock(app, ids[1]), what="the wait for the lock")
        assert app.record(ids[1])["state"] == "starting"
    assert [record["outcome"] for record in ended(app, ids)] == ["succeeded"] * 2


def test_the_time_of_a_task_passes_while_somebody_keeps_the_lock_of_its_repository(
        swarm, repo, gate, lock_of_repository):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", "timeout_s": 1, **AFTER}])
    with lock_of_repository():
        gate.open()
        assert [record["outcome"] for record in ended(app, ids)] == ["succeeded", "timed_out"]
    assert "codex-swarm/" + ids[1] not in branches(repo)


def test_to_cancel_a_task_while_somebody_keeps_the_lock_of_its_repository_ends_it(
        swarm, repo, gate, lock_of_repository):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    path = app.record(ids[1])["worktree"]["path"]
    with lock_of_repository():
        gate.open()
        eventually(lambda: waits_for_lock(app, ids[1]), what="the wait for the lock")
        app.stop([ids[1]])
        assert [record["outcome"] for record in ended(app, ids)] == ["succeeded", "cancelled"]
    assert not os.path.exists(path) and "codex-swarm/" + ids[1] not in branches(repo)


def test_the_time_of_a_task_passes_while_its_worktree_is_made_and_nothing_is_left(hanging, root, repo):
    app, first = hanging
    ids = app.start([first, {"prompt": "SAY x", "timeout_s": 1, **AFTER}])
    record = ended(app, ids)[1]
    assert record["outcome"] == "timed_out" and "1 s (`timeout_s`)" in record["failure"]["message"]
    assert not (root / "worktrees" / ids[1]).exists() and "codex-swarm/" + ids[1] not in branches(repo)


@pytest.mark.parametrize("whole", [True, False])
def test_a_worktree_over_whose_making_a_supervisor_was_killed_goes_when_it_is_old(swarm, repo, gate, whole):
    app = swarm()
    ids = app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    app.stop(ids)
    ended(app, ids)
    task = app.store.get(ids[1])
    os.unlink(task.file("report.json"))
    task.write_status(cms.Status(cms.State.STARTING))
    path, branch = task.spec().planned[:2]
    before = sh(repo, "git", "commit-tree", "-p", "HEAD", "-m", "what the other one came to", "HEAD^{tree}")
    tree = cms.Trees(app.git).add(str(repo), before, path, branch)
    if not whole:
        os.unlink(os.path.join(tree.git_dir, cms.OWN_INDEX))
    assert app.record(ids[1])["outcome"] == "lost"
    list(app.sweep())
    assert os.path.exists(path), "it may be in the making"
    os.utime(os.path.join(tree.git_dir, "locked"), (0, 0))
    assert [done.path for done in app.sweep() if done.removed] == [path]
    assert not os.path.exists(path) and branch not in branches(repo)


def test_what_a_task_is_to_begin_with_does_not_keep_others_from_merging_into_head(swarm, repo, gate):
    app = swarm()
    (done,) = chain(app, "echo one >new")
    app.start([{"prompt": gate.wait, "worktree": True}, {"prompt": "SAY x", **AFTER}])
    assert merge(app, [done], into="HEAD")["merged"]
    gate.open()


# -- refused ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("request_, why", [
    ({"worktree": {"base": "task:1"}}, "Entry 1 is none of those before it"),
    ({"worktree": {"base": "task:7"}}, "Entry 7 is none of those before it"),
    ({"worktree": {"base": "task:0123456789ab"}}, "no task `0123456789ab`"),
    ({"worktree": {"base": "task:"}}, "There is no task ``"),
    ({"worktree": {"base": "task:0"}}, "It has no worktree, so it leaves no commit"),
    ({"worktree": {"base": "task:0", "include_changes": True}}, "`include_changes` takes what was changed")])
def test_what_a_worktree_cannot_begin_with_is_refused_before_anything_starts(swarm, request_, why):
    app, carries = swarm(), request_["worktree"].get("include_changes", False)
    with pytest.raises(cms.ToolError) as refused:
        app.start([{"prompt": "x", "worktree": carries}, {"prompt": "y", **request_}], "tasks")
    assert why in str(refused.value) and refused.value.what.startswith("`tasks[1]`: ")
    assert app.store.ids() == []


def test_a_task_of_another_repository_is_nothing_to_begin_with(swarm, repo, tmp_path):
    other = tmp_path / "other"
    sh(tmp_path, "git", "init", "-q", str(other))
    sh(other, "git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(cms.ToolError, match="belongs to another repository"):
        swarm().start([{"prompt": "x", "worktree": True}, {"prompt": "y", "cwd": str(other), **AFTER}])


# -- merged -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2,), (1,), (0, 2)])
def test_a_chain_merges_as_a_whole_in_any_order_and_from_its_end_alone(swarm, repo, tmp_path, order, squash):
    app = swarm()
    ids = prepared(tmp_path, "chain", lambda: chain(
        app, "echo one >new", "sed -i.b s/one/two/ new; rm new.b; echo 2 >second",
        "echo three >>new; git mv -k second third; mv second third"))
    answer = merge(app, [ids[number] for number in order], squash=squash)
    assert answer["conflicts"] == [] and sorted(answer["merged"]) == sorted(ids[number] for number in order)
    new = sh(repo, "git", "show", answer["branch"] + ":new")
    assert new.split() == (["two", "three"] if max(order) == 2 else ["two"])
    assert ("third" in files_of(repo, answer["branch"])) == (max(order) == 2)


@pytest.fixture
def carried(swarm, repo, tmp_path):
    """The swarm, and a chain of tasks whose first one carried changes from the checkout."""
    app = swarm()

    def make():
        (repo / "mine").write_text("not committed\n")
        first, *others = ("SHELL cat mine && echo %s >>new" % word for word in ("one", "two", "three"))
        ids = app.start([{"prompt": first, "worktree": {"include_changes": True}},
                         *({"prompt": prompt, "worktree": {"base": "task:%d" % number}}
                           for number, prompt in enumerate(others))])
        assert [record["outcome"] for record in ended(app, ids)] == ["succeeded"] * 3
        return ids
    return app, prepared(tmp_path, "carried", make)


@pytest.mark.parametrize("squash", [False, True])
def test_what_the_first_one_carried_is_merged_with_none_of_them_in_whatever_order(carried, repo, squash):
    app, ids = carried
    for order in ((1,), (0, 1), (1, 0), (2, 0), (0, 2), (2, 1, 0), (1, 2, 0)):
        answer = merge(app, [ids[number] for number in order], squash=squash)
        assert answer["conflicts"] == [] and len(answer["merged"]) == len(order), order
        new = sh(repo, "git", "show", answer["branch"] + ":new").split()
        assert new == ["one", "two", "three"][:max(order) + 1], order
        assert "mine" not in files_of(repo, answer["branch"])


def test_what_lay_below_carried_changes_did_not_come_along_with_them(swarm, repo):
    before = sh(repo, "git", "rev-parse", "HEAD")
    app = swarm()
    (first,) = chain(app, "echo one >first")
    merge(app, [first], into="HEAD")
    (repo / "mine").write_text("not committed\n")
    (second,) = app.start([{"prompt": "WRITE second two", "worktree": {"include_changes": True}}])
    ended(app, [second])
    branch = merge(app, [second, first], base=before)["branch"]
    assert {"first", "second"} <= set(files_of(repo, branch)) and "mine" not in files_of(repo, branch)


def test_after_a_task_that_carried_changes_the_next_ones_are_told_of_by_their_own_work_alone(carried):
    app, ids = carried
    trees = [app.record(task_id)["worktree"] for task_id in ids]
    for before, tree, task_id in zip(trees, trees[1:], ids[1:]):
        assert (tree["base"], tree.get("baseline"), tree.get("carried")) == (before["head"], None, None)
        assert (tree["files_changed"], tree["insertions"], tree["commits"]) == (1, 1, 1)
        assert app.diff(task_id, None, "stat", ())["insertions"] == 1
        assert app.compare.reviewable(task_id)["review"] == ("base", before["head"])
        assert app.store.get(task_id).report().worktree.files == ("new",)


def test_what_comes_after_a_merged_task_merges_on_top_of_it(swarm, repo):
    app = swarm()
    first, second = chain(app, "echo one >new", "echo two >>new")
    merge(app, [first], into="HEAD", squash=True)
    assert not merge(app, [second], into="HEAD")["conflicts"]
    assert (repo / "new").read_text() == "one\ntwo\n"
