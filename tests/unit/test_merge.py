"""codex_merge: who conflicts with whom and where, what is made, and that nothing of the user's moves unless
the call says so."""
import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

import codex_mcp_swarm as cms
from client import alive, eventually
from .helpers import auditing, begin, ended, run
from .on_git import branches, commit, files_of, log_of, ours, sh, snapshot, take
from .prepared import prepared

LINES = "".join("line %d\n" % n for n in range(40))


@pytest.fixture
def lines(repo, tmp_path):
    """`repo` with a file of 40 lines and a second one."""
    def make():
        (repo / "text").write_text(LINES)
        (repo / "other").write_text("one\ntwo\n")
        sh(repo, "git", "add", ".")
        sh(repo, "git", "commit", "-qm", "lines")
    prepared(tmp_path, "lines", make)
    return repo


def work(s, *commands, **more):
    """The ids of one task for each command, run side by side in worktrees of their own."""
    ids = s.start([{"prompt": "SHELL " + command, "worktree": True, **more} for command in commands])
    assert [r["outcome"] for r in ended(s, ids)] == ["succeeded"] * len(ids)
    return ids


@pytest.fixture
def worked(swarm, lines, tmp_path):
    """As `work`, where nothing has happened since `lines`: the same commands run but once in a process."""
    def copied(*commands, **more):
        return prepared(tmp_path, (commands, str(more)), lambda: work(swarm(), *commands, **more))
    return copied


@pytest.fixture
def six(worked):
    """The ids of tasks of which four conflict, and two others as well."""
    return worked(*(sed(5, text) for text in "abcd"), *(sed(30, text) for text in "cd"))


def sed(line, text, name="text"):
    return "sed -i.bak 's/^line %d$/%s/' %s && rm %s.bak" % (line, text, name, name)


def merge(s, ids, call=None, **wish):
    return s.merge(ids, call or cms.Call(), cms.Wish(**wish))


def pairs(data):
    return [(sorted(c["tasks"]), [f["path"] for f in c["files"]]) for c in data["conflicts"]]


def changed(s, record):
    """The files that a task changed."""
    return [row.split()[1] for row in s.diff(record["task_id"], None, "files", ())["content"].splitlines()]


def refs(repo):
    return sh(repo, "git", "for-each-ref")


def objects(repo):
    return sh(repo, "git", "count-objects", "-v")


def test_the_warnings_of_a_merge_claim_no_merge_that_was_not_made(swarm, lines):
    s = swarm()
    failed = run(s, "WRITE made x", "FAIL no", worktree=True)["task_id"]
    for wish in ({"dry_run": True}, {}):
        (warning,) = merge(s, [failed], **wish)["warnings"]
        assert "failed: its branch has what it did" in warning and "merged" not in warning


def test_a_merge_warns_of_ignored_files_as_of_others_that_are_on_no_branch(swarm, lines):
    (lines / ".git" / "info" / "exclude").write_text("dist/\n")
    record = run(swarm(), "WRITE made x", "SHELL mkdir dist && echo 1 > dist/work", worktree=True)
    (warning,) = merge(swarm(), [record["task_id"]], dry_run=True)["warnings"]
    assert "only in `%s` and ignored: `dist/`" % record["worktree"]["path"] in warning


def test_a_branch_that_a_reply_went_on_with_is_no_surprise_unless_that_went_wrong(swarm, worked, lines):
    s = swarm()
    one, other = worked(sed(5, "a"), sed(20, "b"))
    run(s, "WRITE more x", task_id=one, update_from=other)
    assert merge(s, [one, other], dry_run=True)["warnings"] == []
    run(s, "WRITE more y", "FAIL no", task_id=one)
    (warning,) = merge(s, [one, other], dry_run=True)["warnings"]
    assert "has gone on since task %s ended" % one in warning


def test_what_git_makes_aside_lies_where_no_task_can_write_and_is_gone_afterwards(swarm, six):
    """In the directory for temporary files a sandboxed task could write: a forged index or .gitattributes
    there, and a merge or the proof before a removal says what the task likes."""
    s = swarm()
    ids, made = six[:2], []

    def listen(name, args):
        if name in ("os.mkdir", "tempfile.mkdtemp"):
            made.append(os.fspath(args[0]))
    with auditing(listen):
        assert merge(s, ids, dry_run=True)["conflicts"]
        assert s.diff(ids[0], None, "stat", ())["files_changed"] == 1
        assert list(s.sweep(dry_run=True))
    root = os.path.realpath(s.config.root)
    assert len(made) >= 4
    assert [path for path in made if not os.path.realpath(str(path)).startswith(root + os.sep)] == []
    assert [name for name in os.listdir(os.path.join(root, "git")) if not name.endswith(".lock")] == []


# -- the proof: four tasks of which two conflict ----------------------------------------------------------
@pytest.fixture
def four(swarm, worked):
    s = swarm()
    return s, worked(sed(5, "five by the first"), sed(30, "thirty"), sed(5, "five by the third"),
                     "echo new > new")


@pytest.fixture
def updated(swarm, tmp_path):
    """The record of a reply that leaves what an update brought as it is."""
    def reply(task_id, update_from):
        s = swarm()
        return s.record(prepared(tmp_path, "updated", lambda: run(
            s, "SAY done", task_id=task_id, update_from=update_from)["task_id"]))
    return reply


def test_the_dry_run_names_both_tasks_the_file_and_the_hunk_and_writes_nothing(four, lines):
    s, (one, two, three, four_) = four
    before = snapshot(lines), refs(lines), objects(lines)
    data = merge(s, [one, two, three, four_], dry_run=True)
    assert pairs(data) == [(sorted([one, three]), ["text"])]
    file = data["conflicts"][0]["files"][0]
    assert file["kind"] == "contents" and len(file["hunks"]) == 1 and file["hunks"][0]["line"] == 6
    assert file["hunks"][0]["text"].split("\n") == [
        "<<<<<<< before", "five by the first", "||||||| base", "line 5", "=======", "five by the third",
        ">>>>>>> task-" + three]
    assert data["merged"] == []
    assert data["not_merged"] == [one, two, three, four_]
    assert data["fitting"] == [two, four_, one]
    assert "commit" not in data
    assert data["suggested_order"] == [two, four_, one, three]
    assert (snapshot(lines), refs(lines), objects(lines)) == before


def test_with_a_conflict_nothing_is_merged(four, lines):
    s, ids = four
    before = snapshot(lines), refs(lines)
    data = merge(s, ids)
    assert data["merged"] == []
    assert data["not_merged"] == ids
    assert "commit" not in data
    assert len(data["conflicts"]) == 1
    assert (snapshot(lines), refs(lines)) == before


def test_after_a_merge_of_the_others_the_checkout_is_byte_for_byte_what_it_was(four, lines):
    s, (one, two, _, four_) = four
    (lines / "mine").write_text("untracked\n")
    (lines / "other").write_text("edited\n")
    before, index = snapshot(lines), os.stat(str(lines / ".git" / "index"))
    data = merge(s, [one, two, four_])
    assert snapshot(lines) == before
    assert os.stat(str(lines / ".git" / "index")).st_mtime_ns == index.st_mtime_ns
    assert data["branch"].startswith("codex-swarm/merge-")
    assert sh(lines, "git", "rev-parse", data["branch"]) == data["commit"]
    text = sh(lines, "git", "show", data["branch"] + ":text").splitlines()
    assert (text[5], text[30]) == ("five by the first", "thirty") and "new" in files_of(lines, data["branch"])
    assert (data["files_changed"], data["insertions"], data["deletions"]) == (2, 3, 2)
    for task_id in (one, two, four_):
        sh(lines, "git", "merge-base", "--is-ancestor", "codex-swarm/" + task_id, data["branch"])


def test_with_partial_those_before_the_first_conflict_are_merged_and_the_others_named(four, lines):
    s, (one, two, three, four_) = four
    data = merge(s, [two, one, three, four_], partial=True)
    assert data["merged"] == [two, one]
    assert data["not_merged"] == [three, four_]
    assert "new" not in files_of(lines, data["branch"])
    told = merge(s, [two, one, three, four_], partial=True, dry_run=True)
    keys = ("merged", "not_merged", "files_changed", "insertions")
    assert [told[key] for key in keys] == [data[key] for key in keys]


def test_in_the_suggested_order_most_go_in(swarm, six):
    s = swarm()
    ids = [*six[:2], *six[4:]]
    told = merge(s, ids, dry_run=True)
    assert sorted(told["suggested_order"]) == sorted(ids) and len(told["fitting"]) == 2
    assert merge(s, told["suggested_order"], partial=True)["merged"] == told["fitting"]


# -- conflicts of every kind ------------------------------------------------------------------------------
def test_every_kind_of_conflict_is_named_with_its_file(swarm, worked, lines):
    ids = worked("rm text; git mv other moved; printf '\\000one' > bytes; echo 1 > new; mkdir d; echo > d/x",
                 sed(5, "x") + "; git mv other away; printf '\\000two' > bytes; echo 2 > new; echo > d")
    data = merge(swarm(), ids, dry_run=True)
    found = {(f["path"], f["kind"]) for c in data["conflicts"] for f in c["files"]}
    assert {("text", "modify/delete"), ("other", "rename/rename"), ("bytes", "binary"), ("new", "contents"),
            ("d", "file/directory")} <= found, found
    assert "codex-swarm-" not in str(data["conflicts"]), data["conflicts"]


def test_a_conflict_with_what_was_committed_meanwhile_is_told_as_such(swarm, worked, lines):
    s = swarm()
    ids = worked(sed(5, "by the task"))
    sh(lines, "sh", "-c", sed(5, "by the user"))
    sh(lines, "git", "commit", "-qam", "mine")
    data = merge(s, ids, dry_run=True)
    head = sh(lines, "git", "rev-parse", "HEAD")
    assert [(c["tasks"], c["with"]) for c in data["conflicts"]] == [(ids, head)]


def test_every_finding_says_whose_side_is_whose_and_what_was_there_before(swarm, six, lines):
    s = swarm()
    one, two, three = *six[:2], six[4]
    sh(lines, "sh", "-c", sed(30, "by the user"))
    onto = commit(lines)
    for wish in ({"dry_run": True}, {}):
        base, pair = merge(s, [one, two, three], **wish)["conflicts"]
        assert base["sides"]["before"] == "commit " + onto
        assert pair["sides"]["before"].startswith("task %s: SHELL sed" % one)
        assert pair["sides"]["task-" + two].startswith("task %s: SHELL sed" % two)
        for finding, old in ((base, "line 30"), (pair, "line 5")):
            assert "||||||| base\n%s\n=======" % old in finding["files"][0]["hunks"][0]["text"]


def test_each_conflicting_pair_is_named_once(swarm, six):
    s = swarm()
    one, two, three = six[:3]
    data = merge(s, [one, two, three], dry_run=True)
    both = sorted(map(sorted, ([one, two], [one, three], [two, three])))
    assert sorted(p for p, _ in pairs(data)) == both


@pytest.fixture
def asked(swarm):
    """The git commands of this process."""
    commands = []
    with auditing(lambda name, args: commands.append(args[1]) if name == "subprocess.Popen" else None):
        yield commands


def test_one_clean_branch_costs_at_most_six_git_processes_once_the_configuration_is_known(
        swarm, worked, lines, asked):
    s, ids = swarm(), worked("echo 1 > one")
    for most in (7, 6):
        del asked[:]
        assert merge(s, ids)["merged"] == ids and 0 < len(asked) <= most


@pytest.mark.parametrize("squash", [False, True])
def test_another_clean_branch_costs_at_most_three_git_processes(swarm, worked, lines, asked, squash):
    s, cost = swarm(), []
    ids = worked(*("echo %d > file%d" % (n, n) for n in range(4)))
    for some_of in (ids[:2], ids):
        del asked[:]
        assert merge(s, some_of, squash=squash)["merged"] == some_of
        cost.append(len(asked))
    assert 0 < cost[1] - cost[0] <= 3 * 2


def lost_tip(lines, task_id):
    (lines / ".git" / "refs" / "heads" / "codex-swarm" / task_id).write_text("1" * 40 + "\n")


def lost_branch(lines, task_id):
    (lines / ".git" / "refs" / "heads" / "gone").write_text("1" * 40 + "\n")


def lost_tree(lines, task_id):
    found = sh(lines, "git", "rev-parse", "codex-swarm/%s^{tree}" % task_id).strip()
    os.unlink(str(lines / ".git" / "objects" / found[:2] / found[2:]))


def lost_trash(lines, task_id):
    ref = lines / ".git" / "refs" / "codex-swarm" / "trash" / "x"
    ref.parent.mkdir(parents=True)
    ref.write_text("1" * 40 + "\n")


def lost_tip_of_another(lines, task_id):
    lost_tip(lines, other_than(task_id, [name[-12:] for name in branches(lines) if "/" in name]))


def lost_with_its_worktree(lines, task_id):
    (path,) = [row.split()[1] for row in sh(lines, "git", "worktree", "list", "--porcelain").splitlines()
               if row.startswith("worktree ") and row.endswith(task_id)]
    sh(lines, "git", "worktree", "remove", "--force", "--force", path)
    lost_tip(lines, task_id)


def other_than(task_id, ids):
    return next(each for each in ids if each != task_id)


def mergeable(app):
    return [task_id for task_id in app.store.ids() if app.store.get(task_id).spec().worktree]


def reply(app, task_id, **more):
    return run(app, "SAY x", task_id=task_id, **more)


@pytest.mark.parametrize("lose, act", [
    (lost_tip, lambda app, task_id: merge(app, [task_id])),
    (lost_branch, lambda app, task_id: app.diff(task_id, "gone", "stat", ())),
    (lost_tree, lambda app, task_id: app.diff(task_id, None, "stat", ())),
    (lost_trash, lambda app, task_id: list(app.sweep())),
    (lost_tip, lambda app, task_id: reply(app, task_id, fork=True, worktree=True)),
    (lost_with_its_worktree, lambda app, task_id: reply(app, task_id)),
    (lost_tip, lambda app, task_id: cms.codex_review(app, {"commit": "codex-swarm/" + task_id}, cms.Call())),
    (lost_tip_of_another,
     lambda app, task_id: reply(app, task_id, update_from=other_than(task_id, mergeable(app))))],
    ids=["merge", "diff with a branch", "diff", "sweep", "copy", "worktree made again", "review", "update"])
@pytest.mark.parametrize("file", ["config", "config.worktree"])
def test_nothing_that_a_task_wrote_into_the_configuration_is_run(
        swarm, worked, lines, tmp_path, file, lose, act):
    """A commit that is not there would be fetched, by the program that the configuration names."""
    (task_id, _), mark = worked("echo 1 > one", "echo 2 > two"), tmp_path / "ran"
    run(swarm(skip_git_repo_check=True), "SAY done", cwd=str(lines.parent), sandbox="workspace-write")
    lose(lines, task_id)
    sh(lines, "git", "config", "extensions.worktreeConfig", "true")
    for key, value in ("promisor", "true"), ("url", "/nowhere"), ("uploadpack", "touch '%s'; false" % mark):
        sh(lines, "git", "config", "--file", ".git/" + file, "remote.o." + key, value)
    refused = pytest.raises(cms.ToolError, match="git is not run with the configuration in")
    with contextlib.nullcontext() if lose is lost_trash else refused:      # a sweep goes on with the others
        act(swarm(), task_id)
    assert not mark.exists()


@pytest.mark.parametrize("act", [
    lambda app, task_id: reply(app, task_id), lambda app, task_id: app.diff(task_id, None, "stat", ()),
    lambda app, task_id: list(app.sweep(merged=True))], ids=["reply", "diff", "sweep"])
def test_nothing_is_run_that_another_repository_configures_to_which_a_task_led_its_worktree(
        swarm, worked, lines, tmp_path, act):
    (task_id,), mark, evil = worked("echo 1 > one"), tmp_path / "ran", tmp_path / "evil"
    tree = swarm().record(task_id)["worktree"]
    shutil.copytree(str(lines / ".git"), str(evil), symlinks=True)
    sh(lines, "git", "config", "--file", str(evil / "config"), "filter.e.clean", "touch '%s'; cat" % mark)
    (evil / "info" / "attributes").write_text("* filter=e\n")
    (lines / ".git" / "worktrees" / task_id / "commondir").write_text("%s\n" % evil)
    os.utime(os.path.join(tree["path"], "one"), (0, 0))
    try:
        said = str([thing.notes for thing in act(swarm(), task_id)])        # a sweep goes on with the others
    except cms.ToolError as error:
        said = str(error)
    assert "`commondir` leads to %s" % evil in said and not mark.exists()


@pytest.fixture
def git_that_refuses(lines, tmp_path, monkeypatch):
    def make(words, says=""):
        wrapper, git = tmp_path / "bin" / "git", sh(lines, "sh", "-c", "command -v git")
        wrapper.parent.mkdir()
        old = "*version) echo %s; exit;; " % says if says else ""
        wrapper.write_text('#!/bin/sh\ncase "$*" in %s*"%s"*) exit 129;; esac\nexec %s "$@"\n'
                           % (old, words, git))
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", "%s:%s" % (wrapper.parent, os.environ["PATH"]))
    return make


def test_a_git_that_tries_no_two_merges_at_once_finds_the_same(swarm, six, asked, git_that_refuses):
    """As 2.38 does, the first with `merge-tree --write-tree`."""
    ids = six[:4]
    del asked[:]
    said = merge(swarm(), ids, dry_run=True)
    at_once = len(asked)
    git_that_refuses("merge-tree --write-tree -z --stdin")
    del asked[:]
    assert merge(swarm(), ids, dry_run=True) == said and len(said["conflicts"]) == 6
    assert len(asked) > at_once


def test_a_file_of_any_name_and_any_bytes_may_conflict(swarm, worked, lines):
    s = swarm()
    name = "\"$(printf 'a\\nb \\303\\244')\""
    data = merge(s, worked("printf 'x\\377\\n' > %s" % name, "printf 'y\\376\\n' > %s" % name), dry_run=True)
    assert [f["path"] for f in data["conflicts"][0]["files"]] == ["a\nb \u00e4"]
    assert "\ufffd" in data["conflicts"][0]["files"][0]["hunks"][0]["text"]


def test_a_file_full_of_lines_like_markers_holds_nothing_up(swarm, lines):
    (lines / "doc").write_text("one\n" + "k\n" * 10 + "<<<<<<< x\n<<<<<<< codex-swarm-x\n" * 100000)
    sh(lines, "git", "add", ".")
    sh(lines, "git", "commit", "-qm", "doc")
    s = swarm()
    data = merge(s, work(s, sed_first("a"), sed_first("b")), dry_run=True)
    assert data["conflicts"][0]["files"][0]["hunks"][0]["line"] == 1


def sed_first(text):
    return "sed -i.bak 1s/.*/%s/ doc && rm doc.bak" % text


def test_a_line_that_looks_like_a_marker_is_no_conflict(swarm, worked, lines):
    s = swarm()
    ids = worked("printf '<<<<<<< x\\n=======\\n>>>>>>> y\\n' > doc", "echo 1 > b")
    assert merge(s, ids, dry_run=True)["conflicts"] == []


def merged_by_git(lines, place, onto, names):
    """(the branches that `git merge` takes one after the other on top of `onto`, the tree that it comes
    to)."""
    if not place.exists():
        sh(lines, "git", "worktree", "add", "-q", "--detach", str(place), onto)
    sh(place, "git", "reset", "-q", "--hard", onto)
    taken = []
    for name in names:
        words = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.invalid", "merge", "-q",
                 "--no-edit", name)
        if subprocess.run(words, cwd=str(place), stdout=subprocess.DEVNULL).returncode == 0:
            taken.append(name)
        else:
            sh(place, "git", "merge", "--abort")
    return taken, sh(place, "git", "rev-parse", "HEAD^{tree}")


@pytest.mark.parametrize("how", ["added", "dropped", "in a directory", "overridden", "by a link"])
@pytest.mark.parametrize("attribute", ["merge=union", "-merge", "binary"])
def test_after_each_part_the_attributes_are_those_that_git_itself_would_use(lines, tmp_path, attribute, how):
    def branched(name, command, onto):
        sh(lines, "git", "checkout", "-q", "-b", name, onto)
        sh(lines, "sh", "-c", command)
        return cms.Part((name,), name, name, commit(lines), onto, False)

    def make():
        (lines / "sub").mkdir()
        (lines / "sub" / "text").write_text(LINES)
        if how != "added":
            (lines / "sub" / ".gitattributes").write_text("x text\n")
            (lines / ".gitattributes").write_text("sub/text %s\n" % attribute)
        onto = commit(lines)
        other = sed(5 if "union" in attribute else 30, "b", "sub/text")
        return onto, branched("one", sed(5, "a", "sub/text"), onto), branched("other", other, onto)
    onto, one, other = prepared(tmp_path, "attributes, %s, %s" % (how == "added", attribute), make)
    change = {"added": "echo 'sub/text %s' > .gitattributes" % attribute, "dropped": "rm .gitattributes",
              "overridden": "echo 'text merge=text' > sub/.gitattributes",
              "in a directory": "rm .gitattributes; echo 'text %s' > sub/.gitattributes" % attribute,
              "by a link": "ln -sf text .gitattributes"}[how]
    attributes = branched("attributes", change, onto)
    at = ours().checkout(str(lines / ".git"), str(lines))
    for squash, parts in ((False, (attributes, one, other)), (True, (one, attributes, other))):
        taken, tree = merged_by_git(lines, tmp_path / "by git", onto, [part.name for part in parts])
        with cms.Desk.beside(at, squash) as desk:
            done = desk.merge(onto, parts)
            came_to = sh(lines, "git", "rev-parse", done.commit + "^{tree}")
            assert (list(done.task_ids), came_to) == (taken, tree), parts


def test_a_task_that_drops_an_attribute_is_merged_as_git_would(swarm, lines, tmp_path):
    (lines / ".gitattributes").write_text("text merge=union\n")
    commit(lines)
    s = swarm()
    ids = work(s, "rm .gitattributes", sed(5, "a"), sed(5, "b"))
    names = ["codex-swarm/" + task_id for task_id in ids]
    taken, tree = merged_by_git(lines, tmp_path / "by git", "main", names)
    told = merge(s, ids, dry_run=True)
    assert told["conflicts"][0]["tasks"] == ids
    assert told["not_merged"] == ids
    assert told["fitting"] == ids[:2]        # only all three together
    data = merge(s, ids, partial=True)
    assert ["codex-swarm/" + task_id for task_id in data["merged"]] == taken
    assert sh(lines, "git", "rev-parse", data["branch"] + "^{tree}") == tree


# -- what is made -----------------------------------------------------------------------------------------
def test_one_task_on_an_unmoved_head_is_its_own_branch(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a")
    assert merge(s, ids)["commit"] == sh(lines, "git", "rev-parse", "codex-swarm/" + ids[0])


def test_a_merge_commit_goes_on_from_the_target_and_has_the_task_as_its_second_parent(swarm, worked, lines):
    """`git log --first-parent` and `git revert -m 1` count on that."""
    s = swarm()
    ids = worked("echo 1 > a", "echo 2 > b")
    (lines / "later").write_text("1\n")
    onto = commit(lines)
    done = merge(s, ids)
    first, second = (sh(lines, "git", "rev-parse", done["commit"] + at) for at in ("^1", "^2"))
    assert second == sh(lines, "git", "rev-parse", "codex-swarm/" + ids[1])
    assert sh(lines, "git", "rev-parse", first + "^1") == onto


def test_squash_makes_one_commit_per_task_with_its_title(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a", "echo 2 > b")
    data = merge(s, ids, squash=True)
    assert log_of(lines, data["branch"]) == ["SHELL echo 2 > b", "SHELL echo 1 > a", "lines", "first"]
    assert sh(lines, "git", "log", "--merges", "--format=%h", data["branch"]) == ""


def test_a_merge_that_brings_nothing_makes_no_branch(swarm, worked, lines):
    s = swarm()
    ids = worked("true", "echo 1 > a")
    data = merge(s, [ids[0]])
    assert "branch" not in data
    assert data["files_changed"] == 0
    assert data["already_in"] == [ids[0]]
    assert data["merged"] == []
    sh(lines, "git", "merge", "-q", "codex-swarm/" + ids[1])
    assert "commit" not in merge(s, ids)


def test_commits_that_the_user_put_onto_the_tasks_branch_are_merged_too(swarm, worked, lines):
    s = swarm()
    record = ended(s, worked("echo 1 > a"))[0]
    path = pathlib.Path(record["worktree"]["path"])
    (path / "by_hand").write_text("1\n")
    sh(path, "git", "add", ".")
    sh(path, "git", "commit", "-qm", "by hand")
    assert "by_hand" in files_of(lines, merge(s, [record["task_id"]])["branch"])


def test_a_task_and_its_reply_count_once_and_the_newest_work_is_taken(swarm, worked, lines):
    s = swarm()
    first = worked("echo 1 > a")[0]
    reply = run(s, "WRITE b 1", task_id=first)["task_id"]
    data = merge(s, [first, reply])
    assert data["merged"] == [first, reply] and {"a", "b"} <= set(files_of(lines, data["branch"]))


def test_changes_that_the_caller_never_committed_are_not_merged_with_the_task(swarm, lines):
    (lines / "other").write_text("not committed\n")
    s = swarm()
    ids = work(s, "echo 1 > a", "echo 2 > b", worktree={"include_changes": True})
    data = merge(s, ids)
    assert sh(lines, "git", "show", data["branch"] + ":other") == "one\ntwo"
    assert {"a", "b"} <= set(files_of(lines, data["branch"]))
    sh(lines, "git", "merge", "-q", "--ff-only", data["branch"])
    assert (lines / "other").read_text() == "not committed\n"
    assert sh(lines, "git", "status", "--porcelain") == " M other"


def test_work_on_top_of_changes_that_were_never_committed_conflicts_until_they_are(swarm, lines):
    (lines / "text").write_text(LINES.replace("line 5\n", "mine\n"))
    s = swarm()
    ids = work(s, "sed -i.bak 's/^mine$/mine and yours/' text && rm text.bak",
               worktree={"include_changes": True})
    conflict, = merge(s, ids, dry_run=True)["conflicts"]
    assert "commit them in your checkout" in conflict["note"]
    sh(lines, "git", "commit", "-qam", "mine")
    data = merge(s, ids)
    assert data["conflicts"] == [] and "mine and yours" in sh(lines, "git", "show", data["branch"] + ":text")


def test_another_base_can_be_merged_onto(swarm, lines):
    sh(lines, "git", "branch", "release", "HEAD~1")
    s = swarm()
    data = merge(s, work(s, "echo 1 > a", worktree={"base": "release"}), base="release")
    assert files_of(lines, data["branch"]) == ["README", "a"]


def test_a_branch_of_the_callers_name_is_made_and_one_that_exists_is_refused(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a")
    assert merge(s, ids, into="feature/x")["branch"] == "feature/x" and "feature/x" in branches(lines)
    sh(lines, "git", "worktree", "add", "-q", "--detach", str(lines.parent / "linked"))
    sh(lines.parent / "linked", "git", "checkout", "-q", "--orphan", "unborn")
    for name, words in (("feature/x", "already"), ("feature", "`feature/x` already"),
                        ("main/below", "`main` already"), ("a..b", "cannot be the name"),
                        ("-x", "cannot be the name"), ("unborn", "`unborn` already")):
        with pytest.raises(cms.ToolError) as caught:
            merge(s, ids, into=name)
        assert words in str(caught.value)


def test_who_names_the_branch_that_is_checked_out_is_told_how_to_merge_into_it(swarm, worked):
    with pytest.raises(cms.ToolError, match="There is a branch `main` already") as caught:
        merge(swarm(), worked("echo 1 > a"), into="main")
    assert '`into: "HEAD"`' in str(caught.value) and "rename" not in str(caught.value)


def test_a_branch_named_codex_swarm_is_named_as_the_reason(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a")
    sh(lines, "git", "branch", "-m", "codex-swarm/" + ids[0], "kept")
    sh(lines, "git", "branch", "codex-swarm")
    for act in (lambda: s.start([{"prompt": "x", "worktree": True}]), lambda: merge(s, ids)):
        with pytest.raises(cms.ToolError) as caught:
            act()
        assert "There is a branch `codex-swarm` already" in str(caught.value)
        assert "lock" not in str(caught.value)
    assert merge(s, ids, into="brought")["branch"] == "brought"


def test_git_gc_between_the_run_and_the_merge_loses_nothing(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a", "echo 2 > b")
    sh(lines, "git", "gc", "-q", "--prune=now")
    assert {"a", "b"} <= set(files_of(lines, merge(s, ids)["branch"]))


def test_no_hook_signature_or_setting_of_the_users_stops_a_merge(swarm, lines, tmp_path):
    sh(lines, "git", "config", "merge.mine.driver",
       "touch made %%A; cp %%B %%A; pwd > %s" % (tmp_path / "where"))
    (lines / ".gitattributes").write_text("other merge=mine\n")
    sh(lines, "git", "add", ".gitattributes")
    sh(lines, "git", "commit", "-qm", "attributes")
    for setting in ("commit.gpgsign=true", "gpg.program=false", "merge.ff=only", "merge.conflictStyle=diff3",
                    "merge.verifySignatures=true", "merge.autoStash=true", "core.editor=false"):
        sh(lines, "git", "config", *setting.split("=", 1))
    for hook in ("pre-commit", "commit-msg", "reference-transaction", "post-merge", "pre-merge-commit"):
        path = lines / ".git" / "hooks" / hook
        path.write_text("#!/bin/sh\ntouch %s\nexit 1\n" % (tmp_path / "ran"))
        path.chmod(0o755)
    s = swarm()
    ids = work(s, "echo 1 > a; echo 1 > other", "echo 2 > b; echo 2 > other")
    (lines / ".gitattributes").write_text("* -merge\n")
    before = snapshot(lines)
    assert {"a", "b"} <= set(files_of(lines, merge(s, ids)["branch"])) and snapshot(lines) == before
    # the driver works on what is merged, under its attributes, and not in the checkout
    assert (tmp_path / "where").read_text().strip() != str(lines)
    sh(lines, "git", "checkout", "-q", ".gitattributes")
    assert merge(s, ids, into="HEAD")["branch"] == "main" and not (tmp_path / "ran").exists()


# -- into HEAD --------------------------------------------------------------------------------------------
def test_into_head_moves_the_branch_with_index_and_files(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a", sed(5, "five"))
    (lines / "mine").write_text("untracked\n")
    data = merge(s, ids, into="HEAD")
    assert data["branch"] == "main"
    assert sh(lines, "git", "rev-parse", "main") == data["commit"]
    assert sh(lines, "git", "status", "--porcelain") == "?? mine"
    assert (lines / "a").read_text() == "1\n" and "five\n" in (lines / "text").read_text()


@pytest.mark.parametrize("make, words", [
    ("echo x >> other", "not clean"), ("echo x >> other; git add other", "not clean"),
    ("git checkout -q --detach", "No branch"),
    ("git checkout -q -b x; echo a > other; git commit -qam a; git checkout -q main; echo b > other; "
     "git commit -qam b; git merge -q x || true", "not clean"),
    ("echo mine > zzz", "zzz"), ("echo zzz > .git/info/exclude; echo mine > zzz", "zzz"),
    ("touch .git/index.lock", "index.lock")],
    ids=["changed", "staged", "detached", "merging", "an untracked file in the way",
         "an ignored file in the way", "locked"])
def test_into_head_refuses_a_checkout_in_which_something_could_be_lost(swarm, worked, lines, make, words):
    s = swarm()
    ids = worked("echo 1 > zzz; git add -f zzz; echo 2 > other2")
    sh(lines, "sh", "-c", make)
    before = snapshot(lines), refs(lines)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    assert words in str(caught.value) and (snapshot(lines), refs(lines)) == before


@pytest.mark.parametrize("since, works", [
    ("true", True), ("echo mine >> other; echo staged > b; git add b; echo and more >> b; echo 1 > c", True),
    ("echo mine >> text", False), ("echo mine > old", False), ("git commit -q --allow-empty -m mine", False),
    ("git checkout -q -b mine", True)],
    ids=["nothing", "other files", "a merged file", "an ignored file in the way", "a commit",
         "another branch"])
def test_the_way_back_from_head_loses_nothing_that_came_since(swarm, lines, tmp_path, since, works):
    def make():
        (lines / "old").write_text("old\n")
        onto, s = commit(lines), swarm()
        return onto, merge(s, work(s, sed(5, "five") + "; echo 1 > a; git rm -q old"), into="HEAD")["undo"]
    onto, undo = prepared(tmp_path, "way back", make)
    (lines / ".git" / "info" / "exclude").write_text("old\n")
    sh(lines, "sh", "-c", since)
    before, head = snapshot(lines)[0], sh(lines, "git", "rev-parse", "HEAD")
    staged = sh(lines, "git", "diff", "--cached")
    done = subprocess.run(undo, shell=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (done.returncode == 0) == works
    if not works:
        assert (snapshot(lines)[0], sh(lines, "git", "rev-parse", "HEAD")) == (before, head)
        return
    assert sh(lines, "git", "rev-parse", "HEAD", "main") == "%s\n%s" % (onto, onto)
    after = dict(before, text=snapshot(lines)[0]["text"], old=snapshot(lines)[0]["old"])
    del after["a"]
    assert snapshot(lines)[0] == after
    assert sh(lines, "git", "diff", "--cached") == staged
    assert (lines / "text").read_text() == LINES


def test_into_head_with_a_conflict_moves_nothing(four, lines):
    s, ids = four
    before = snapshot(lines), refs(lines)
    assert merge(s, ids, into="HEAD")["merged"] == []
    assert (snapshot(lines), refs(lines)) == before


def test_into_head_does_not_go_with_another_base(four, lines):
    s, ids = four
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids[:1], into="HEAD", base="HEAD~1")
    assert "base" in str(caught.value)


def test_two_merges_into_head_at_once_lose_neither(swarm, worked, lines):
    s = swarm()
    ids, refused = worked(*("echo %d > file%d" % (n, n) for n in range(3))), []

    def one(task_id):
        while True:
            try:
                return merge(s, [task_id], into="HEAD")
            except cms.ToolError as error:
                refused.append(str(error))
    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in ids]
    [t.start() for t in threads]
    [t.join(60) for t in threads]
    assert not any(t.is_alive() for t in threads)
    assert [text for text in refused if "has moved meanwhile" not in text] == []
    assert sh(lines, "git", "status", "--porcelain") == ""
    assert all((lines / ("file%d" % n)).exists() for n in range(3))


def test_a_merge_that_comes_while_another_one_writes_waits_for_it(swarm, lines, gate, tmp_path):
    sh(lines, "git", "config", "filter.slow.smudge",
       "touch %s; while ! [ -e %s ]; do sleep 0.05; done; cat" % (tmp_path / "begun", gate.path))
    (lines / ".git" / "info" / "attributes").write_text("zzz filter=slow\n")
    s = swarm()
    one, two = work(s, "echo 1 > zzz", "echo 2 > b")
    first = threading.Thread(target=merge, args=(s, [one]), kwargs={"into": "HEAD"}, daemon=True)

    def open_gate(name, args):
        if name == "fcntl.flock" and threading.current_thread() is threading.main_thread():
            gate.open()
    first.start()
    try:
        eventually((tmp_path / "begun").exists, what="the first merge, in the middle of its files")
        with auditing(open_gate), pytest.raises(cms.ToolError) as caught:
            merge(s, [two], into="HEAD")
    finally:
        gate.open()
        first.join(60)
    assert "has moved meanwhile" in str(caught.value)
    assert merge(s, [two], into="HEAD")["merged"] == [two] and (lines / "zzz").read_text() == "1\n"


def test_nothing_is_written_into_a_checkout_while_another_merge_writes_there(swarm, worked, lines, gate):
    s = swarm(merge_verify="while ! [ -e %s ]; do sleep 0.01; done" % gate.path)
    ids, said, other = worked("echo 1 > a"), [], contextlib.ExitStack()
    thread = threading.Thread(target=lambda: said.append(merge(s, ids, into="HEAD")), daemon=True)
    thread.start()
    trees, comes, begun = pathlib.Path(s.config.worktree_dir), threading.Event(), threading.Event()
    eventually(lambda: list(trees.glob("merge-*")), what="the command")

    def comes_first(event, args):
        """Another merge takes the lock, at the moment in which this one asks for it to write."""
        here = event == "fcntl.flock" and threading.current_thread() is thread
        if here and not comes.is_set() and not list(trees.glob("merge-*")):
            comes.set()                     # taking it is heard here as well
            other.enter_context(cms.locked(s.git.lock_of(str(lines / ".git")), fcntl.LOCK_EX))
            begun.set()
    with auditing(comes_first), other:
        gate.open()
        eventually(lambda: begun.is_set() or said, what="the merge, or that it waits")
        assert said == [] and not (lines / "a").exists()
    thread.join(60)
    assert said[0]["merged"] == ids and (lines / "a").exists()


# -- the verify command -----------------------------------------------------------------------------------
def test_the_verify_command_runs_on_the_merged_files_and_sees_the_checkout(swarm, worked, lines, tmp_path):
    s = swarm(merge_verify='cat a b > "%s"; pwd >> "%s"; echo "$1" >> "%s"' % ((tmp_path / "seen",) * 3))
    data = merge(s, worked("echo 1 > a", "echo 2 > b"))
    one, two, where, checkout = (tmp_path / "seen").read_text().splitlines()
    assert (one, two, checkout) == ("1", "2", str(lines)) and data["verify"]["exit_status"] == 0
    assert not os.path.exists(where) and "merge-" not in sh(lines, "git", "worktree", "list")


@pytest.mark.parametrize("into", ["", "HEAD"])
def test_a_verify_command_that_fails_leaves_every_ref_where_it_was(swarm, worked, lines, into):
    s = swarm(merge_verify="echo said this; exit 3")
    ids = worked("echo 1 > a")
    before = snapshot(lines), refs(lines)
    data = merge(s, ids, into=into)
    assert data["verify"]["exit_status"] == 3
    assert data["verify"]["output"] == "said this"
    assert data["merged"] == []
    assert "commit" not in data
    assert (snapshot(lines), refs(lines)) == before and "merge-" not in sh(lines, "git", "worktree", "list")


def test_a_verify_command_that_fails_names_the_task_with_which_it_begins_to(swarm, worked, lines):
    s = swarm(merge_verify="test -e one -a -e three && echo both; ! [ -e three ]")
    ids = worked(*("echo 1 > " + name for name in ("one", "two", "three", "four", "five")))
    before = refs(lines)
    data = merge(s, ids)
    verify, tried = data["verify"], [(one["branches"], one["exit_status"]) for one in data["verify"]["tried"]]
    assert (verify["fault"], verify["output"], data["merged"]) == (ids[2], "both", [])
    assert tried == [(0, 0), (2, 0), (3, 1)]
    assert {"one", "two"} <= set(files_of(lines, verify["passed"])).difference({"three"})
    assert refs(lines) == before
    verify = merge(s, ids[2:3])["verify"]
    assert (verify["fault"], "passed" in verify) == (ids[2], False)


def test_no_task_is_blamed_for_what_fails_without_it_or_is_too_slow_to_tell(
        swarm, worked, lines, monkeypatch):
    ids = worked("echo 1 > a", "echo 2 > b")
    answer = cms.TOOLS["codex_merge"].called(swarm(merge_verify="false"), {"task_ids": ids}, cms.Call())
    verify, shown = answer.data["verify"], cms.render(answer.data)
    assert "fault" not in verify and "none is at fault" in verify["note"]
    assert "Mend the command, or what the tasks are merged into" in shown and "the task at fault" not in shown
    assert "With none of the branches: exit status 1" in shown
    monkeypatch.setattr(cms, "VERIFY_S", 3.0)
    verify = merge(swarm(merge_verify="[ -e a ] || sleep 1000; false"), ids)["verify"]
    assert "fault" not in verify and "no time to tell" in verify["note"]


@pytest.mark.parametrize("command, verify, words", [
    ("", True, "no verify command"), ("true", False, "cannot be left out")])
def test_a_call_insists_on_the_verify_command_and_cannot_leave_it_out(
        swarm, worked, lines, command, verify, words):
    ids, before = worked("echo 1 > a"), refs(lines)
    with pytest.raises(cms.ToolError) as caught:
        merge(swarm(merge_verify=command), ids, verify=verify)
    assert words in str(caught.value) and refs(lines) == before
    assert merge(swarm(merge_verify=command), ids, verify=not verify)["merged"] == ids


def test_a_branch_that_somebody_makes_while_the_verify_command_runs_stays_theirs(swarm, worked, lines):
    s = swarm(merge_verify='git -C "$1" branch taken')
    ids, old = worked("echo 1 > a"), sh(lines, "git", "rev-parse", "HEAD")
    with pytest.raises(cms.ToolError):
        merge(s, ids, into="taken")
    assert sh(lines, "git", "rev-parse", "taken") == old


def test_a_verify_command_goes_on_for_a_client_whose_time_ran_out(swarm, worked, lines, gate):
    s = swarm(merge_verify="while ! [ -e %s ]; do sleep 0.05; done" % gate.path)
    ids, call, said = worked("echo 1 > a"), cms.Call(), []
    thread = threading.Thread(target=lambda: said.append(merge(s, ids, call)), daemon=True)
    thread.start()
    eventually(lambda: "merge-" in sh(lines, "git", "worktree", "list"), what="the command")
    call.cancel_reason, call.cancelled = "Request timed out", True
    s.watch.wake()
    gate.open()
    thread.join(60)
    assert said[0]["branch"] in branches(lines)


def test_a_verify_command_dies_with_a_server_that_is_killed(swarm, worked, lines, tmp_path):
    s = swarm()
    ids = worked("echo 1 > a")
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import os, codex_mcp_swarm as cms\n"
              "config = cms.Config(sys.argv[2], sys.argv[2] + '/worktrees', merge_verify=sys.argv[3])\n"
              "s = cms.Swarm(config, cms.Host(), os.environ)\n"
              "s.merge(sys.argv[4:], cms.Call(), cms.Wish())")
    command, noted = "echo $$ > %s; sleep 1000" % (tmp_path / "pid"), tmp_path / "pid"
    server = subprocess.Popen([sys.executable, "-c", script, os.path.dirname(cms.__file__), s.config.root,
                               command, *ids])
    pid = int(eventually(lambda: noted.exists() and noted.read_text(), what="the command"))
    server.kill()
    server.wait()
    eventually(lambda: not alive(pid), what="the end of the command")


@pytest.mark.parametrize("verify", ["", "true"])
def test_a_call_that_is_cancelled_at_the_last_moment_moves_nothing(swarm, worked, lines, verify):
    s, call = swarm(merge_verify=verify), cms.Call()
    ids = worked("echo 1 > a")
    before = snapshot(lines), refs(lines)
    call.cancelled = True
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, call, into="HEAD")
    assert "cancelled" in str(caught.value) and (snapshot(lines), refs(lines)) == before


@pytest.mark.parametrize("end", ["cancelled", "closing"])
def test_a_verify_command_is_killed_with_all_it_started_when_the_call_or_the_server_ends(
        swarm, worked, lines, tmp_path, end):
    noted = tmp_path / "pid"
    begin_both = "sleep 1000 & echo $! > %s; setsid sleep 1000 & echo $! >> %s; wait"
    s = swarm(merge_verify=begin_both % (noted, noted))
    ids, call, said = worked("echo 1 > a"), cms.Call(), []

    def act():
        try:
            merge(s, ids, call)
        except cms.ToolError as error:
            said.append(str(error))
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    eventually(lambda: noted.exists() and noted.read_text().count("\n") == 2, what="the command")
    pids = noted.read_text().split()
    if end == "cancelled":
        call.cancelled = True
    else:
        s.watch.closing = True
    s.watch.wake()
    thread.join(60)
    assert "cancelled" in said[0]
    if sys.platform.startswith("linux"):
        eventually(lambda: not any(alive(int(pid)) for pid in pids), what="the end of what it started")
    assert "merge-" not in sh(lines, "git", "worktree", "list") and "merge-" not in refs(lines)


def test_a_dry_run_does_not_run_the_verify_command(swarm, worked, lines, tmp_path):
    s = swarm(merge_verify="touch %s" % (tmp_path / "ran"))
    merge(s, worked("echo 1 > a"), dry_run=True)
    assert not (tmp_path / "ran").exists()


def test_the_way_back_from_a_merge_that_was_killed_names_the_lock_that_git_left(swarm, worked, lines):
    """git is killed by the filter of a file that it writes."""
    s = swarm()
    ids = worked("echo 1 > a; echo 1 > x.bin")
    sh(lines, "git", "config", "filter.f.smudge", "kill -9 $PPID; cat")
    (lines / ".git" / "info" / "attributes").write_text("*.bin filter=f\n")
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    lock = lines / ".git" / "index.lock"
    assert lock.exists() and "To go back, remove %s, which it left, and run" % lock in str(caught.value)
    lock.unlink()
    sh(lines, "git", "config", "--unset", "filter.f.smudge")
    sh(lines, "git", "stash", "push", "-q", "--include-untracked")
    assert sh(lines, "git", "status", "--porcelain") == ""


@pytest.mark.parametrize("hinder", ["a lock", "a filter"])
def test_a_merge_into_head_that_git_cannot_finish_names_the_files_and_touches_none(
        swarm, worked, lines, hinder, impatient):
    s = swarm()
    ids = worked("echo 1 > a; mkdir d; echo 1 > d/new; " + sed(5, "five") + "; echo 1 > x.bin")
    if hinder == "a lock":
        (lines / ".git" / "refs" / "heads" / "main.lock").write_text("")
    else:
        sh(lines, "git", "config", "filter.f.smudge", "false")
        sh(lines, "git", "config", "filter.f.required", "true")
        (lines / ".git" / "info" / "attributes").write_text("*.bin filter=f\n")
    (lines / "mine").write_text("untracked\n")
    before = refs(lines)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    assert "was not moved" in str(caught.value)
    assert "what it holds is not in `a`, `d/new`, `text`" in str(caught.value)
    assert refs(lines) == before
    assert (lines / "mine").read_text() == "untracked\n"
    with contextlib.suppress(FileNotFoundError):
        (lines / ".git" / "refs" / "heads" / "main.lock").unlink()
    sh(lines, "git", "stash", "push", "-q", "--include-untracked")         # the way back that it names
    assert sh(lines, "git", "status", "--porcelain") == ""
    assert (lines / "text").read_text() == LINES
    assert not (lines / "d").exists()


def test_a_merge_into_head_that_fails_for_want_of_a_filter_program_touches_nothing_and_says_where_to_look(
        swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a; echo 3 > other")
    sh(lines, "git", "config", "filter.f.smudge", "no-such-program")
    sh(lines, "git", "config", "filter.f.clean", "no-such-program")
    sh(lines, "git", "config", "filter.f.required", "true")
    (lines / ".git" / "info" / "attributes").write_text("a filter=f\n")
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    assert "stays as it is" in str(caught.value)
    assert sh(lines, "git", "status", "--porcelain") == "", str(caught.value)
    (lines / ".git" / "info" / "attributes").write_text("other filter=f\n")
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    assert "what it holds is not in `a`, `other`" in str(caught.value), str(caught.value)


@pytest.mark.parametrize("options", ["--squash", "-s ours", "--no-commit", "--no-ff --edit"])
def test_options_that_the_user_set_for_merges_into_the_branch_do_not_bend_it(swarm, worked, lines, options):
    s = swarm()
    ids = worked("echo 1 > a")
    sh(lines, "git", "config", "branch.main.mergeOptions", options)
    data = merge(s, ids, into="HEAD")
    assert sh(lines, "git", "rev-parse", "main") == data["commit"]
    assert sh(lines, "git", "status", "--porcelain") == ""
    assert (lines / "a").exists()


def test_no_git_environment_of_the_server_reaches_what_it_runs(swarm, lines, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(lines / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(lines))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "kept")
    s = swarm(merge_verify="env > %s" % (tmp_path / "verify"),
              worktree_setup="env > %s" % (tmp_path / "setup"))
    ids = work(s, "env > %s; echo 1 > a" % (tmp_path / "codex"))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name)
    merge(s, ids)
    for name in ("verify", "setup", "codex"):
        text = (tmp_path / name).read_text()
        assert "GIT_AUTHOR_NAME=kept" in text, name
        assert "GIT_DIR=" not in text and "GIT_WORK_TREE=" not in text, name


# -- threads that go on -----------------------------------------------------------------------------------
def test_a_reply_is_merged_by_its_own_id(swarm, worked, lines):
    s = swarm()
    reply = run(s, "WRITE b 1", task_id=worked("echo 1 > a")[0])["task_id"]
    assert {"a", "b"} <= set(files_of(lines, merge(s, [reply])["branch"]))


@pytest.mark.parametrize("worktree, squash", [(True, True), ({"include_changes": True}, False)])
def test_what_was_squashed_is_not_merged_again_when_its_thread_goes_on(swarm, lines, worktree, squash):
    (lines / "other").write_text("not committed\n")
    s = swarm()
    first = work(s, sed(5, "five"), worktree=worktree)[0]
    merge(s, [first], squash=squash, into="one")
    sh(lines, "git", "checkout", "-q", "other")
    sh(lines, "git", "merge", "-q", "one")
    shout = "SHELL " + sed(6, "six") + "; sed -i.bak s/^five/FIVE/ text && rm text.bak"
    reply = run(s, shout, task_id=first)["task_id"]
    data = merge(s, [reply], squash=squash, into="HEAD")
    assert data["conflicts"] == [] and (lines / "text").read_text().split("\n")[5:7] == ["FIVE", "six"]


def test_what_an_update_brought_is_not_merged_again_when_it_has_been_squashed(swarm, worked, lines):
    s = swarm()
    one = worked(sed(5, "five"))[0]
    (lines / "other").write_text("not committed\n")
    two = work(s, sed(20, "twenty"), worktree={"include_changes": True})[0]
    shout = "SHELL sed -i.bak s/^twenty/TWENTY/ text && rm text.bak"
    reply = run(s, shout, task_id=one, update_from=two)["task_id"]
    merge(s, [two], squash=True, into="one")
    sh(lines, "git", "checkout", "-q", "other")
    sh(lines, "git", "merge", "-q", "one")
    assert merge(s, [reply], into="HEAD")["conflicts"] == [] and "TWENTY" in (lines / "text").read_text()


def test_a_branch_that_was_rewritten_is_refused_with_both_commits(swarm, worked, lines):
    s = swarm()
    record = ended(s, worked("echo 1 > a"))[0]
    sh(record["worktree"]["path"], "git", "commit", "-q", "--amend", "-m", "amended")
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [record["task_id"]])
    assert record["worktree"]["head"][:12] in str(caught.value)
    assert sh(lines, "git", "rev-parse", record["worktree"]["branch"])[:12] in str(caught.value)


def test_a_branch_on_which_a_reply_works_is_refused(swarm, worked, lines, gate):
    s = swarm()
    first = worked("echo 1 > a")[0]
    reply = begin(s, gate.wait, task_id=first)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [first])
    assert reply.task_id in str(caught.value)
    gate.open()
    ended(s, [reply.task_id])


def test_a_worktree_in_which_a_task_works_is_not_moved_by_a_merge(swarm, worked, lines, gate):
    s = swarm()
    first = worked("echo 1 > a")[0]
    path = s.store.get(first).spec().worktree.path
    second = work(s, "echo 2 > b", cwd=path)[0]
    other = begin(s, gate.wait, cwd=path)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [second], into="HEAD")
    assert other.task_id in str(caught.value) and not os.path.exists(path + "/b")
    gate.open()
    ended(s, [other.task_id])


@pytest.mark.parametrize("sandbox, moves", [("workspace-write", False), ("read-only", True)])
def test_a_checkout_in_which_a_task_may_write_is_not_moved(swarm, worked, lines, gate, sandbox, moves):
    s = swarm()
    ids = worked("echo 1 > a")
    other = begin(s, gate.wait, cwd=str(lines), sandbox=sandbox)
    if moves:
        assert merge(s, ids, into="HEAD")["branch"] == "main"
    else:
        with pytest.raises(cms.ToolError) as caught:
            merge(s, ids, into="HEAD")
        assert other.task_id in str(caught.value) and not (lines / "a").exists()
    gate.open()
    ended(s, [other.task_id])


@pytest.mark.parametrize("make, words", [("echo x >> other", "not clean"), ("echo mine > a", "`a`")])
def test_a_dry_run_into_head_tells_what_would_be_in_the_way(swarm, worked, lines, make, words):
    s = swarm()
    ids = worked("echo 1 > a")
    assert "blocked" not in [key for key, value in merge(s, ids, into="HEAD", dry_run=True).items() if value]
    sh(lines, "sh", "-c", make)
    data = merge(s, ids, into="HEAD", dry_run=True)
    assert words in data["blocked"] and data["merged"] == ids


def test_the_verify_command_does_not_run_for_a_merge_that_could_not_be_made(swarm, worked, lines, tmp_path):
    s = swarm(merge_verify="touch %s" % (tmp_path / "ran"))
    ids = worked("echo 1 > a")
    (lines / "a").write_text("mine\n")
    with pytest.raises(cms.ToolError):
        merge(s, ids, into="HEAD")
    assert not (tmp_path / "ran").exists()


def test_a_checkout_that_takes_too_long_is_given_up_and_left_as_it_was(swarm, worked, lines, monkeypatch):
    s = swarm()
    ids = worked("echo 1 > a")
    sh(lines, "git", "config", "filter.slow.smudge", "sleep 1000")
    (lines / ".git" / "info" / "attributes").write_text("a filter=slow\n")
    monkeypatch.setattr(cms, "CHECKOUT_S", 0.5)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids, into="HEAD")
    assert "was not moved" in str(caught.value)
    assert "gave up" in str(caught.value)
    assert not (lines / ".git" / "index.lock").exists()
    assert sh(lines, "git", "status", "--porcelain") == "" and not (lines / "a").exists()


# -- what cannot be merged --------------------------------------------------------------------------------
def test_a_task_that_runs_is_refused(swarm, lines, gate):
    s = swarm()
    task = begin(s, gate.wait, worktree=True)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [task.task_id])
    assert "has not ended" in str(caught.value)
    gate.open()
    ended(s, [task.task_id])


def test_a_task_without_a_worktree_is_refused(swarm, lines):
    s = swarm()
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [run(s, "SAY x")["task_id"]])
    assert "no worktree" in str(caught.value)


def test_tasks_of_two_repositories_are_refused(swarm, lines, tmp_path):
    sh(tmp_path, "git", "clone", "-q", str(lines), str(tmp_path / "clone"))
    s = swarm()
    ids = work(s, "echo 1 > a") + work(s, "echo 2 > b", cwd=str(tmp_path / "clone"))
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids)
    assert "one repository at a time" in str(caught.value)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids[:1], cwd=str(tmp_path / "clone"))
    assert "another repository" in str(caught.value)


def test_a_task_that_failed_is_merged_with_a_warning(swarm, lines):
    s = swarm()
    record = run(s, "WRITE a 1", "FAIL boom", worktree=True)
    data = merge(s, [record["task_id"]])
    assert "failed" in data["warnings"][0] and "a" in files_of(lines, data["branch"])


def test_a_checkout_that_is_gone_can_be_replaced_by_another(swarm, lines, tmp_path):
    sh(lines, "git", "worktree", "add", "-q", str(tmp_path / "linked"), "-b", "linked")
    s = swarm()
    ids = work(s, "echo 1 > a", cwd=str(tmp_path / "linked"))
    sh(lines, "git", "worktree", "remove", str(tmp_path / "linked"))
    with pytest.raises(cms.ToolError) as caught:
        merge(s, ids)
    assert "not there any more" in str(caught.value)
    assert "a" in files_of(lines, merge(s, ids, cwd=str(lines))["branch"])


def test_an_older_git_is_told_and_what_to_do_instead(swarm, worked, lines, git_that_refuses):
    ids = worked("echo 1 > a", "echo 2 > b")
    git_that_refuses("merge-tree", says="git version 2.37.9")
    with pytest.raises(cms.ToolError) as caught:
        merge(swarm(), ids)
    assert "2.38" in str(caught.value) and "codex_diff" in str(caught.value) and "2.37" in str(caught.value)
    assert "Update git" in str(caught.value)


def test_why_git_cannot_merge_is_told_although_its_version_cannot_be_asked(worked, swarm, git_that_refuses):
    ids = worked("echo 1 > a", "echo 2 > b")
    git_that_refuses('merge-tree"*|*"version')
    with pytest.raises(cms.ToolError) as caught:
        merge(swarm(), ids)
    assert "git cannot merge task %s at all. exit status 129" % ids[1] in str(caught.value)


def test_an_update_with_an_older_git_changes_nothing(four, swarm, git_that_refuses):
    s, (one, two, *_) = four
    tree = s.store.get(one).spec().worktree
    before = snapshot(pathlib.Path(tree.path))[0], pathlib.Path(tree.git_dir, "index").read_bytes()
    git_that_refuses("merge-tree", says="git version 2.37.9")
    with pytest.raises(cms.ToolError, match="Update git"):
        swarm().start([{"prompt": "x", "task_id": one, "update_from": two}])
    assert (snapshot(pathlib.Path(tree.path))[0], pathlib.Path(tree.git_dir, "index").read_bytes()) == before


def test_a_merge_that_is_killed_half_way_leaves_every_ref_where_it_was(swarm, worked, lines, tmp_path):
    s = swarm()
    ids = worked("echo 1 > a", "echo 2 > b")
    before = snapshot(lines), refs(lines)
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import os, codex_mcp_swarm as cms\n"
              "cms.Desk.merge = lambda *a, act=cms.Desk.merge: (act(*a), os.kill(os.getpid(), 9))\n"
              "s = cms.Swarm(cms.Config(sys.argv[2], sys.argv[2] + '/worktrees'), cms.Host(), os.environ)\n"
              "s.merge(sys.argv[3:], cms.Call(), cms.Wish())")
    done = subprocess.run([sys.executable, "-c", script, os.path.dirname(cms.__file__), s.config.root, *ids],
                          timeout=60)
    assert done.returncode == -9 and (snapshot(lines), refs(lines)) == before
    assert merge(s, ids)["merged"] == ids


# -- uniting what conflicts -------------------------------------------------------------------------------
def test_a_reply_with_update_from_unites_two_tasks_that_conflict(four, lines):
    s, (one, two, three, four_) = four
    unite = "SHELL grep -c '^<<<<<<<' text > marks; sed -i.bak -e '/^[<=>]\\{7\\}/d' text; rm text.bak"
    reply = run(s, unite, task_id=three, update_from=one)
    assert "conflicts" in reply["warnings"][0] and "`text`" in reply["warnings"][0]
    data = merge(s, [one, two, three, four_, reply["task_id"]])
    text = sh(lines, "git", "show", data["branch"] + ":text").splitlines()
    assert data["conflicts"] == []
    assert text[5:7] == ["five by the third", "five by the first"]
    assert sh(lines, "git", "show", data["branch"] + ":marks") == "1"


def test_markers_that_the_task_leaves_are_told_and_never_merged(four, updated, lines):
    s, (one, _, three, _) = four
    reply = updated(three, one)
    assert any("Not decided yet" in w and "`text`" in w for w in reply["warnings"])
    assert not any("markers are left" in w for w in reply["warnings"])
    before = snapshot(lines), refs(lines)
    for ids in ([reply["task_id"]], [one, three]):
        for wish in ({}, {"into": "HEAD"}, {"dry_run": True}):
            with pytest.raises(cms.ToolError) as caught:
                merge(s, ids, **wish)
            assert "not united yet: `text`" in str(caught.value)
    assert (snapshot(lines), refs(lines)) == before


def test_conflicts_without_markers_wait_for_a_decision_as_well(swarm, lines):
    (lines / "logo").write_bytes(b"\0logo")
    sh(lines, "git", "add", ".")
    sh(lines, "git", "commit", "-qm", "logo")
    s = swarm()
    one, two = work(s, "printf '\\000AAAA' > logo; rm other", "printf '\\000BBBB' > logo; echo 3 >> other")
    reply = run(s, "SHELL cp CONFLICTS.codex-swarm seen", task_id=two, update_from=one)
    decide, update = reply["warnings"]
    assert "`logo (see CONFLICTS.codex-swarm)`" in update
    assert "`other (see CONFLICTS.codex-swarm)`" in update
    assert "left in `CONFLICTS.codex-swarm`" in decide
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [one, two], into="HEAD")
    assert "CONFLICTS.codex-swarm" in str(caught.value)
    listed = sh(lines, "git", "show", reply["worktree"]["branch"] + ":CONFLICTS.codex-swarm")
    assert "- logo (" in listed and "- other (modify/delete)" in listed
    head = s.store.get(one).report().worktree.head
    done = run(s, "SHELL git show %s:logo > logo; rm other CONFLICTS.codex-swarm seen" % head, task_id=two)
    data = merge(s, [one, done["task_id"]], into="HEAD")
    assert data["conflicts"] == []
    assert (lines / "logo").read_bytes() == b"\0AAAA"
    assert not (lines / "other").exists()


@pytest.mark.parametrize("name", ["codex-swarm/{}", "{:.6}"], ids=["branch", "short id"])
def test_tasks_that_took_uncommitted_changes_along_are_united_too_and_those_changes_stay_the_callers(
        swarm, worked, lines, name):
    (lines / "other").write_text("not committed\n")
    s = swarm()
    one, two = worked(sed(5, "a"), sed(5, "b"), worktree={"include_changes": True})
    reply = run(s, "SHELL sed -i.bak -e '/^[<=>]\\{7\\}/d' text; rm text.bak", task_id=two,
                update_from=name.format(one))
    data = merge(s, [one, reply["task_id"]])
    assert data["conflicts"] == []
    assert sh(lines, "git", "show", data["branch"] + ":text").split("\n")[5:7] == ["b", "a"]
    assert sh(lines, "git", "show", data["branch"] + ":other") == "one\ntwo"


DRESSES = {
    "the closing line is deleted": "/^>>>>>/d", "the opening line is deleted": "/^<<<<</d",
    "all is indented": "s/^/    /", "the labels are changed": "s/^\\([<>]\\{5,\\}\\) .*/\\1 HEAD/",
    "there are no labels": "s/^\\([<>]\\{5,\\}\\) .*/\\1/", "the separator is left": "/^[<>]\\{5,\\}/d",
    "lines end as on Windows": "s/$/\\r/"}


@pytest.mark.parametrize("size", [0, 5, 12])
def test_what_an_update_left_is_undecided_in_whatever_dress(size, lines):
    if size:
        (lines / ".gitattributes").write_text("* conflict-marker-size=%d\n" % size)
    (lines / "text").write_text(OLD)
    base = commit(lines)
    sides = []
    for name, one, other in (("one", "a\nb", "x"), ("two", "c", "y")):
        sh(lines, "git", "checkout", "-q", "-b", name, base)
        (lines / "text").write_text(OLD.replace("FIRST", one).replace("SECOND", other))
        sides.append(commit(lines))
    # a branch of which no ASCII is left
    part = cms.Part(("two",), "`\u00e4`", "two", sides[1], base, False)
    with cms.Desk.beside(ours().checkout(str(lines / ".git"), str(lines))) as desk:
        written, conflicts = desk.united(sides[0], part)
    assert [len(conflict.hunks) for conflict in conflicts] == [2]
    then = sh(lines, "git", "show", written + ":text")
    assert cms.is_undecided(then, then) and not cms.is_undecided(then, OLD) and not cms.is_undecided(then, "")
    for dress, change in DRESSES.items():
        now = subprocess.run(["sed", change], input=then, stdout=subprocess.PIPE, check=True,
                             encoding="utf-8").stdout
        assert now != then and cms.is_undecided(then, now), (dress, now)
    united = OLD.replace("FIRST", "a\nb\nc").replace("SECOND", "x\ny")
    assert not cms.is_undecided(then, united + "A title\n%s\n>>>>>>>x\n" % ("=" * (size or 7))), united


OLD = ("A title\n=======\n\n=======\n\n<<<<<<<  of the user\n" + LINES + "FIRST\n" + LINES +
       "SECOND\n\n>>>>>>> also\n")


@pytest.mark.parametrize("how", [
    "sed -i.bak 's/^\\([<>]*\\) codex-swarm-.*/\\1 HEAD/' text",
    "sed -i.bak 's/^\\([<>]*\\) codex-swarm/# \\1 codex-swarm/' text", "git mv text moved"])
def test_markers_in_another_dress_are_told_and_never_merged(four, lines, how):
    s, (one, _, three, _) = four
    reply = run(s, "SHELL %s; rm -f text.bak" % how, task_id=three, update_from=one)
    name = "moved" if "mv" in how else "text"
    assert any("Not decided yet" in w and "`%s`" % name in w for w in reply["warnings"]), reply["warnings"]
    for squash in (False, True):
        with pytest.raises(cms.ToolError) as caught:
            merge(s, [one, reply["task_id"]], squash=squash, dry_run=True)
        assert "not united yet: `%s`" % name in str(caught.value)
        assert "Let task %s unite them" % reply["task_id"] in str(caught.value)


LABELLED = "sed -n 's/^[<>]* codex-swarm/%s codex-swarm/p' text > %s; git checkout -q HEAD^2 text"


@pytest.mark.parametrize("how, name", [
    ("mv CONFLICTS.codex-swarm notes", "notes"), ("printf '\\0' >> text; mv text made", "made"),
    (LABELLED % ("#", "made"), "made"), (LABELLED % (">>>", "made"), "made"),
    ("git commit -q --amend -m x; git mv text made", "made"),
    ("git reset -q --soft HEAD~1; git commit -q -m x", "text")])
def test_what_an_update_wrote_is_told_wherever_its_label_stands(behind, lines, tmp_path, how, name):
    def make():
        tree, part = behind(True)
        sh(lines, "git", "checkout", "-q", "theirs")
        (lines / "mine").write_bytes(b"\0theirs")
        part = part._replace(head=commit(lines))
        (pathlib.Path(tree.path) / "mine").write_bytes(b"\0mine")
        cms.update_worktree(ours(), tree, part)
        sh(tree.path, "git", "config", "user.name", "Test")
        return tree
    tree = prepared(tmp_path, "updated behind", make)
    sh(tree.path, "sh", "-c", "%s; rm -f CONFLICTS.codex-swarm" % how)
    told = [w for w in take(tree, "x")[1] if "Not decided yet" in w]
    assert told and "`%s`" % name in told[0], told


def test_labels_from_before_a_task_began_keep_nothing_from_being_merged(swarm, lines):
    label = "codex-swarm-before-0-g%s" % sh(lines, "git", "rev-parse", "HEAD")
    (lines / "text").write_text("<<<<<<< %s\n" % label + LINES)
    commit(lines)
    s = swarm()
    ids = work(s, sed(5, "a"), "git mv other moved; sed -n 1p text >> moved")
    assert merge(s, ids)["merged"] == ids
    later = work(s, "echo '%s1' >> other" % label)
    with pytest.raises(cms.ToolError) as caught:
        merge(s, later)
    assert "not united yet: `other`" in str(caught.value)


def test_markers_of_another_size_are_shown_marked_and_waited_for(swarm, lines):
    (lines / ".gitattributes").write_text("text conflict-marker-size=4\nother conflict-marker-size=20\n")
    commit(lines)
    s = swarm()
    one, two = work(s, sed(5, "a") + "; echo 3 >> other", sed(5, "b") + "; echo 4 >> other")
    files = merge(s, [one, two], dry_run=True)["conflicts"][0]["files"]
    hunks = [f["hunks"][0]["text"].split()[0] for f in files]
    assert hunks == ["<" * 20, "<" * 4]
    reply = run(s, "SHELL ! ls CONFLICTS*", task_id=two, update_from=one)
    assert reply["outcome"] == "succeeded"
    assert any("Not decided yet" in w and "`other`, `text`" in w for w in reply["warnings"])
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [one, two])
    assert "not united yet: `other`, `text`" in str(caught.value)


def test_lines_like_markers_from_before_an_update_keep_nothing_from_being_merged(swarm, lines):
    manual = "A title\n=======\n\n<<<<<<< HEAD\nshown\n=======\nin a manual\n>>>>>>> topic\n"
    (lines / "text").write_text(manual + LINES)
    commit(lines)
    s = swarm()
    one, two = work(s, sed(5, "a"), sed(5, "b") + "; printf 'More\\n=======\\n' >> text")
    reply = run(s, "SHELL git show HEAD^1:text > text; printf 'And\\n=======\\n' >> text", task_id=two,
                update_from=one)
    assert not any("Not decided" in w for w in reply["warnings"])
    assert merge(s, [one, reply["task_id"]])["merged"] == [one, reply["task_id"]]


def test_a_conflict_that_a_later_task_united_holds_nobody_up(four, updated):
    s, (one, two, three, _) = four
    updated(three, one)
    reply = run(s, "SHELL sed -i.bak -e '/^[<=>]\\{7\\}/d' text; rm text.bak", task_id=two, update_from=three)
    data = merge(s, [one, three, reply["task_id"]])
    assert data["merged"] == [one, three, reply["task_id"]]


def test_no_internal_name_shows_in_what_an_update_left(swarm, worked, lines):
    s = swarm()
    one, two = worked("mkdir new && echo 1 > new/file", "echo two > new")
    reply = run(s, "SHELL cp CONFLICTS.codex-swarm seen; ls > names", task_id=two, update_from=one)
    branch = reply["worktree"]["branch"]
    assert "`new (see CONFLICTS.codex-swarm)`" in str(reply["warnings"])
    assert "- new (file/directory)" in sh(lines, "git", "show", branch + ":seen")
    assert "new~before" in sh(lines, "git", "show", branch + ":names").split()
    assert sh(lines, "git", "show", branch + ":new~before") == "two"
    told = sh(lines, "git", "show", branch + ":seen") + sh(lines, "git", "log", "--format=%B", branch)
    assert "codex-swarm-" not in str(reply["warnings"]) + told
    done = run(s, "SHELL git mv new~before new/second; rm CONFLICTS.codex-swarm seen names", task_id=two)
    assert merge(s, [one, done["task_id"]], into="HEAD")["conflicts"] == []
    assert (lines / "new" / "second").read_text() == "two\n"


def test_a_second_update_waits_until_the_first_is_united(four, updated):
    s, (one, two, three, _) = four
    updated(three, one)
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": three, "update_from": two}])
    assert "earlier `update_from`" in str(caught.value)


def test_an_update_that_git_cannot_finish_puts_the_worktree_back(four, lines, impatient):
    s, (one, two, three, _) = four
    tree = s.store.get(three).spec().worktree
    before = snapshot(pathlib.Path(tree.path))[0]
    (lines / ".git" / "refs" / "heads" / "codex-swarm" / (three + ".lock")).write_text("")
    with pytest.raises(cms.ToolError):
        s.start([{"prompt": "x", "task_id": three, "update_from": two}])
    assert snapshot(pathlib.Path(tree.path))[0] == before
    assert sh(tree.path, "git", "status", "--porcelain") == ""


def test_an_update_that_git_cannot_finish_takes_back_what_it_wrote_and_no_edit(swarm, lines, tmp_path):
    (tmp_path / "fail").write_text("echo 'of the user' | tee text > zzz; exit 1\n")
    sh(lines, "git", "config", "filter.f.smudge", "sh %s" % (tmp_path / "fail"))
    sh(lines, "git", "config", "filter.f.clean", "cat")
    sh(lines, "git", "config", "filter.f.required", "true")
    s = swarm()
    change = "; rm other; for f in README d/new x.bin zzz; do mkdir -p d; echo 1 > $f; done"
    one, two = work(s, sed(5, "x") + change, "true")
    (lines / ".git" / "info" / "attributes").write_text("*.bin filter=f\n")
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": two, "update_from": one}])
    path = pathlib.Path(s.store.get(two).spec().worktree.path)
    assert "smudge filter f failed" in str(caught.value)
    assert (path / "text").read_text() == (path / "zzz").read_text() == "of the user\n"
    assert (path / "README").read_text() == "a repository\n"
    assert not (path / "d").exists()
    assert sh(path, "git", "status", "--porcelain") == " M text\n?? zzz"


KILLED = """
import json, os, signal, sys
import codex_mcp_swarm as cms
tree, part = cms.Worktree(**json.loads(sys.argv[1])), cms.Part(*json.loads(sys.argv[2]))
git, left = cms.Git(cms.Host(), os.environ, own=sys.argv[3]), 0

def count(name, args):
    global left
    if name in ("subprocess.Popen", "os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

cms.Host().prepare_to_launch()
sys.addaudithook(count)
for row in sys.stdin:
    what, steps = row.split()
    child = os.fork()
    if child == 0:
        left = int(steps)
        cms.update_worktree(git, tree, part) if what == "update" else cms.Snapshot(git, tree).take("x")
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def behind(lines, tree, tmp_path):
    """A worktree with work of its own, and a part that changes, makes and deletes files there: with a
    conflict, or without."""
    def make(conflict):
        sh(lines, "git", "checkout", "-q", "-b", "theirs")
        sh(lines, "sh", "-c", sed(5, "theirs") + "; git rm -q other; mkdir d; echo 1 > d/new; echo 1 > zzz")
        head = commit(lines)
        sh(lines, "git", "checkout", "-q", "main")
        sh(tree.path, "git", "merge", "-q", "main")
        sh(tree.path, "sh", "-c",
           sed(5 if conflict else 20, "mine") + "; echo 1 > mine; echo x > .gitignore; echo kept > x")
        base = sh(lines, "git", "rev-parse", "main")
        part = cms.Part(("theirs",), "`theirs`", "theirs", head, base, False)
        return take(tree._replace(base=base), "mine")[0], part
    return lambda conflict: prepared(tmp_path, "behind, %s" % conflict, lambda: make(conflict))


@pytest.mark.parametrize("conflict", [False, True])
def test_wherever_an_update_is_killed_it_is_undone_or_whole_before_the_next_snapshot(
        behind, tmp_path, conflict):
    tree, part = behind(conflict)
    before = snapshot(pathlib.Path(tree.path))[0]
    told = cms.compact(tree._asdict()), cms.compact(part), str(tmp_path / "own")
    update = subprocess.Popen([sys.executable, "-c", KILLED, *told], encoding="utf-8",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=dict(os.environ, PYTHONPATH=os.path.dirname(cms.__file__)))

    def killed_at(what, step):
        print(what, step, file=update.stdin, flush=True)
        return int(update.stdout.readline())
    half = set()
    for step in range(1 if conflict else 2, 200, 2):        # every one, between them
        killed_at("update", step)
        half.add(snapshot(pathlib.Path(tree.path))[0] != before)
        for undoing in (step % 20, step * 7 % 20):
            killed_at("snapshot", undoing + 1)
        now = take(tree, "x")[0]
        assert sh(tree.path, "git", "status", "--porcelain") == ""
        assert not os.path.exists(tree.git_dir + "/index.lock")
        if now.head != tree.head:
            break
        assert snapshot(pathlib.Path(tree.path))[0] == before
    update.communicate(timeout=60)
    assert half == {False, True}
    assert step > 15
    assert log_of(tree.path, now.head)[:2] == ["Merge `theirs`: theirs", "mine"]
    assert (pathlib.Path(tree.path) / "d" / "new").exists()
    assert (pathlib.Path(tree.path) / "x").read_text() == "kept\n"
    at = ours().checkout(tree.git_dir, tree.path)
    rows, past = at.changed(tree.base, now.head), cms.History(at, tree.base, now.head)
    assert cms.undecided(at, rows, past, tree.base, [now.head]) == (["text"] if conflict else [])


def test_what_a_git_wrote_that_was_killed_over_an_update_is_undone(behind, lines, tmp_path):
    tree, part = behind(False)
    before = snapshot(pathlib.Path(tree.path))[0]
    (tmp_path / "kill").write_text('p=$PPID; while [ "$(ps -o comm= -p $p)" != git ]\n'
                                   'do p=$(ps -o ppid= -p $p); done; kill -9 $p\n')
    (lines / ".git" / "info" / "attributes").write_text("zzz filter=f\n")
    sh(lines, "git", "config", "filter.f.smudge", "sh %s" % (tmp_path / "kill"))
    with pytest.raises(cms.GitError):
        cms.update_worktree(ours(), tree, part)
    sh(lines, "git", "config", "filter.f.smudge", "cat")

    def saved():
        with contextlib.suppress(cms.GitError):         # while a process works there, such as that filter
            return take(tree, "x")[0]
    assert eventually(saved, what="a snapshot").head == tree.head
    assert snapshot(pathlib.Path(tree.path))[0] == before


def test_a_reply_sees_nothing_of_an_update_that_a_server_was_killed_over(four, lines):
    s, (one, two, three, _) = four
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import os, codex_mcp_swarm as cms\n"
              "def run(self, *words, act=cms.At.run, **more):\n"
              "    if words[0] != 'merge':\n"
              "        return act(self, *words, **more)\n"
              "    act(self, 'update-index', '-q', '--refresh')\n"
              "    act(self, 'read-tree', '-m', '-u', 'HEAD', words[-1])\n"
              "    os.kill(os.getpid(), 9)\n"
              "cms.At.run = run\n"
              "config = cms.Config(sys.argv[2], sys.argv[2] + '/worktrees', sys.argv[3])\n"
              "s = cms.Swarm(config, cms.Host(), os.environ)\n"
              "s.start([{'prompt': 'x', 'task_id': sys.argv[4], 'update_from': sys.argv[5]}])")
    done = subprocess.run([sys.executable, "-c", script, os.path.dirname(cms.__file__), s.config.root,
                           s.config.codex_bin, three, one], timeout=60)
    assert done.returncode == -9
    assert "<<<<<" in open(os.path.join(s.store.get(three).spec().worktree.path, "text")).read()
    reply = run(s, "SHELL sed -i.bak '/^[<=>]\\{7\\}/d' text; rm text.bak; echo 1 > mine", task_id=three)
    assert changed(s, reply) == ["mine"]
    assert merge(s, [two, reply["task_id"]])["conflicts"] == []


def test_an_update_may_make_a_file_of_a_directory(swarm, lines):
    (lines / "lib").mkdir()
    (lines / "lib" / "x").write_text("1\n")
    sh(lines, "git", "add", ".")
    sh(lines, "git", "commit", "-qm", "lib")
    s = swarm()
    one, two = work(s, "rm -r lib; echo f > lib", "echo 1 > y")
    reply = run(s, "SHELL cat lib > seen", task_id=two, update_from=one)
    assert sh(lines, "git", "show", reply["worktree"]["branch"] + ":seen") == "f"


def test_codex_is_told_what_it_has_to_unite(four):
    s, (one, _, three, _) = four
    reply = run(s, "ARGV", task_id=three, update_from=one)
    prompt = open(s.store.get(reply["task_id"]).file("prompt")).read()
    assert prompt.startswith("ARGV\n\n(Before this turn task %s was merged" % one)
    assert "text. Unite both" in prompt


def test_what_an_update_brought_is_not_the_replys_own_change(four):
    s, (one, two, _, four_) = four
    reply = run(s, "WRITE mine 1", task_id=four_, update_from=two, write_paths=["mine"])
    assert "outside_write_paths" not in reply
    assert changed(s, reply) == ["mine"]
    assert "text" in s.diff(reply["task_id"], reply["worktree"]["base"], "files", ())["content"]


def test_an_update_from_a_task_of_another_repository_is_refused(swarm, lines, tmp_path):
    sh(tmp_path, "git", "clone", "-q", str(lines), str(tmp_path / "clone"))
    s = swarm()
    one, other = work(s, "echo 1 > a")[0], work(s, "echo 2 > b", cwd=str(tmp_path / "clone"))[0]
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": one, "update_from": other}])
    assert "another repository" in str(caught.value)


def test_an_update_without_conflicts_brings_the_branch_into_the_worktree(swarm, worked, lines):
    s = swarm()
    ids = worked("echo 1 > a")
    (lines / "later").write_text("1\n")
    sh(lines, "git", "add", ".")
    sh(lines, "git", "commit", "-qm", "later")
    reply = run(s, "SHELL ls > seen", task_id=ids[0], update_from="main")
    assert {"a", "later", "seen"} <= set(files_of(lines, reply["worktree"]["branch"]))
    assert "warnings" not in reply
    tree = s.store.get(ids[0]).spec().worktree
    assert sh(tree.path, "git", "status", "--porcelain") == ""


def test_a_worktree_in_which_another_task_works_is_not_updated(swarm, worked, lines, gate):
    s = swarm()
    one, two = worked("echo 1 > a", "echo 2 > b")
    path = s.store.get(one).spec().worktree.path
    other = begin(s, gate.wait, cwd=path)
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": one, "update_from": two}])
    assert other.task_id in str(caught.value) and not os.path.exists(path + "/b")
    gate.open()
    ended(s, [other.task_id])


def test_a_branch_without_a_common_history_is_named(swarm, worked, lines):
    s = swarm()
    one, two = worked("echo 1 > a",
                      "git checkout -q --orphan new; git rm -rfq .; echo 1 > b; git add .; git commit -qm b")
    sh(lines, "git", "update-ref", "refs/heads/codex-swarm/" + two, sh(lines, "git", "rev-parse", "new"))
    data = s.store.get(two)
    report = data.report()
    tree = report.worktree._replace(head=sh(lines, "git", "rev-parse", "new"))
    cms.write_atomic(data.file("report.json"), cms.to_json(report._replace(worktree=tree)))
    with pytest.raises(cms.ToolError) as caught:
        merge(s, [one, two], dry_run=True)
    assert "git cannot merge task " + two in str(caught.value) and "unrelated" in str(caught.value)


def test_nobody_plans_to_work_in_a_worktree_while_an_update_changes_its_files(swarm, worked, lines, root):
    s, taken = swarm(), []
    ids = worked("echo 1 > a")
    (lines / "later").write_text("1\n")
    commit(lines)

    def listen(event, args):
        if event == "fcntl.flock" and threading.current_thread() is threading.main_thread():
            if os.path.samestat(os.fstat(args[0]), os.stat(str(root / "sweep.lock"))):
                taken.append(args[1])
    with auditing(listen):
        s.start([{"prompt": "SAY x", "task_id": ids[0], "update_from": "main"}])
    assert taken == [fcntl.LOCK_EX]


def test_an_update_that_brings_nothing_says_so(swarm, worked, lines):
    s = swarm()
    reply = run(s, "SAY x", task_id=worked("echo 1 > a")[0], update_from="main")
    assert any("`main` is in" in w and "merged nothing" in w for w in reply["warnings"])


@pytest.mark.parametrize("name", ["nowhere", "-x", "0" * 12])
def test_an_update_from_nothing_is_refused(swarm, worked, lines, name):
    s = swarm()
    ids = worked("echo 1 > a")
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": ids[0], "update_from": name}])
    assert "names no task and no commit" in str(caught.value)


@pytest.mark.parametrize("theirs", ["kept", "kept/file"])
def test_an_update_overwrites_no_file_that_only_the_worktree_has(swarm, lines, tmp_path, theirs):
    s = swarm()

    def make():
        (lines / ".gitignore").write_text("kept\n")
        commit(lines, "ignore")
        return work(s, "echo mine > kept")
    ids = prepared(tmp_path, "only the worktree has it", make)
    (lines / theirs).parent.mkdir(exist_ok=True)
    (lines / theirs).write_text("theirs\n")
    sh(lines, "git", "add", "-f", theirs)
    sh(lines, "git", "commit", "-qm", "kept")
    with pytest.raises(cms.ToolError) as caught:
        s.start([{"prompt": "x", "task_id": ids[0], "update_from": "main"}])
    assert "kept" in str(caught.value)
    assert pathlib.Path(s.store.get(ids[0]).spec().worktree.path, "kept").read_text() == "mine\n"
