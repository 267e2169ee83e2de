"""What codex_diff shows: of a task in a worktree, of one without, of one that runs, of two."""
import hashlib
import os
import pathlib
import shutil
import sys
import tracemalloc

import pytest

import codex_mcp_swarm as cms
from client import eventually
from .helpers import begin, ended, run
from .on_git import sh
from .prepared import prepared


def rows(data):
    return [line.split() for line in data["content"].splitlines()]


def totals(data):
    return data["files_changed"], data["insertions"], data["deletions"]


def everything(*tops):
    """Every file below these directories with its digest and time of change, git's own included."""
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for top in tops
            for p in sorted(pathlib.Path(top).rglob("*")) if p.is_file()}


# -- one task in a worktree -------------------------------------------------------------------------------
def test_the_stat_counts_lines_per_file_from_where_the_task_began(swarm, repo):
    s = swarm()
    record = run(s, "WRITE new one", "SHELL printf 'a\\nb\\n' > README; printf '\\000' > binary",
                 worktree=True)
    data = s.diff(record["task_id"], None, "stat", ())
    assert sorted(rows(data)) == [["+1", "-0", "new"], ["+2", "-1", "README"], ["binary", "binary"]]
    assert totals(data) == (3, 3, 1)
    assert data["base"] == record["worktree"]["base"]
    assert data["head"] == record["worktree"]["head"]
    assert "live" not in data


def test_the_list_of_files_has_the_status_of_each(swarm, repo):
    (repo / "gone").write_text("x\n")
    sh(repo, "git", "add", ".")
    sh(repo, "git", "commit", "-qm", "gone")
    s = swarm()
    record = run(s, "WRITE new one", "SHELL rm gone; echo 1 >> README", worktree=True)
    assert rows(
        s.diff(record["task_id"], None, "files", ())) == [["M", "README"], ["D", "gone"], ["A", "new"]]


def test_the_patch_applies_to_the_base_and_makes_the_result(swarm, repo, tmp_path):
    s = swarm()
    record = run(s, "SHELL git mv README READ.ME; echo more >> READ.ME; mkdir d; echo x > d/new",
                 worktree=True)
    patch = s.diff(record["task_id"], None, "patch", ())["content"]
    (tmp_path / "patch").write_text(patch + "\n")
    sh(repo, "git", "apply", "--index", str(tmp_path / "patch"))
    assert sh(repo, "git", "write-tree") == sh(repo, "git", "rev-parse",
                                               record["worktree"]["branch"] + "^{tree}")


def test_a_rename_is_shown_as_one_in_the_patch(swarm, repo):
    s = swarm()
    record = run(s, "SHELL mv README MOVED", worktree=True)
    assert "rename from README\nrename to MOVED" in s.diff(record["task_id"], None, "patch", ())["content"]


@pytest.mark.parametrize("end", ["", "\\n"])
def test_a_page_of_a_patch_is_what_stands_there_in_the_whole_and_the_rest_is_only_counted(swarm, repo, end):
    s = swarm()
    write = "import sys; print('é' * 900_000 + '%s', end='')" % end
    task_id = run(s, "SHELL %s -Sc \"%s\" > large; echo x >> README" % (sys.executable, write),
                  worktree=True)["task_id"]
    whole = s.diff(task_id, None, "patch", ())
    text = whole["content"]
    assert len(text) == whole["total_chars"] > 900_000 and not text.endswith("\n")
    size = len(text)
    for offset, room in [(0, 100), (50, 1), (size - 5, 100), (size, 9), (size + 9, 9), (7, 1 << 30)]:
        part = s.diff(task_id, None, "patch", (), offset, room)
        assert (part["content"], part["total_chars"]) == (text[offset:offset + room], len(text))


def test_of_a_large_patch_no_more_than_the_page_is_in_memory(swarm, repo):
    s = swarm()
    task_id = run(s, "SHELL seq 1500000 > large", worktree=True)["task_id"]
    tracemalloc.start()
    try:
        part = s.diff(task_id, None, "patch", (), 1000, 1000)
        assert tracemalloc.get_traced_memory()[1] < part["total_chars"] / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("globs, names",
                         [(["src/**"], ["src/a.py", "src/deep/b.py"]), (["*.md"], ["top.md"]),
                          (["**/*.py"], ["src/a.py", "src/deep/b.py"]),
                                          (["src"], ["src/a.py", "src/deep/b.py"]), (["nothing"], [])])
def test_paths_narrow_every_view(swarm, repo, tmp_path, globs, names):
    s, make = swarm(), "SHELL mkdir -p src/deep; echo 1 > src/a.py; echo 1 > src/deep/b.py; echo 1 > top.md"
    task_id = prepared(tmp_path, make, lambda: run(s, make, worktree=True)["task_id"])
    assert [row[-1] for row in rows(s.diff(task_id, None, "files", globs))] == names
    patch = s.diff(task_id, None, "patch", globs)
    assert patch["content"].count("diff --git") == len(names) == patch["files_changed"]


def test_a_file_may_have_any_name(swarm, repo):
    s = swarm()
    task_id = run(s,
                  "SHELL printf 1 > ':colon'; printf 1 > \"$(printf 'new\\n"
                  "line')\"; printf 1 > \"$(printf 'tab\\there')\"; "
                  "printf 1 > '\u00e4 b'", worktree=True)["task_id"]
    content = s.diff(task_id, None, "files", ())["content"]
    assert sorted(content.split("\n")) == ["A :colon", "A new\\nline", "A tab\there", "A \u00e4 b"]
    assert s.diff(task_id, None, "stat",
                  ())["files_changed"] == s.diff(task_id, None, "patch", ())["files_changed"] == 4


def test_no_program_that_the_users_configuration_names_for_diffs_is_run(swarm, repo, tmp_path):
    sh(repo, "git", "config", "diff.external", "touch %s" % (tmp_path / "ran"))
    sh(repo, "git", "config", "diff.x.textconv", "touch %s; cat" % (tmp_path / "ran"))
    (repo / ".gitattributes").write_text("* diff=x\n")
    s = swarm()
    task_id = run(s, "SHELL echo 1 >> README", worktree=True)["task_id"]
    assert "+1" in s.diff(task_id, None, "patch", ())["content"] and not (tmp_path / "ran").exists()


def test_what_the_caller_had_not_committed_is_not_the_tasks_change(swarm, repo):
    (repo / "README").write_text("mine\n")
    s = swarm()
    record = run(s, "WRITE new 1", worktree={"include_changes": True})
    assert rows(s.diff(record["task_id"], None, "files", ())) == [["A", "new"]]


def test_the_diff_is_there_when_the_worktree_is_gone(swarm, repo):
    s = swarm()
    record = run(s, "WRITE new 1", worktree=True)
    sh(repo, "git", "worktree", "remove", record["worktree"]["path"])
    assert rows(s.diff(record["task_id"], None, "files", ())) == [["A", "new"]]


# -- while it runs ----------------------------------------------------------------------------------------
def test_a_running_task_shows_what_lies_in_its_worktree_now_and_nothing_is_written(swarm, repo, gate):
    s = swarm()
    task = begin(s, "WRITE new 1", "SHELL echo edit >> README", "SAY x", gate.wait, worktree=True)
    tree = task.spec().worktree
    eventually(lambda: (pathlib.Path(tree.path) / "README").read_text().endswith("edit\n"), what="the edit")
    before = everything(repo, tree.path)
    data = s.diff(task.task_id, None, "files", ())
    assert rows(data) == [["M", "README"], ["A", "new"]] and data["live"] is True and "head" not in data
    assert everything(repo, tree.path) == before
    gate.open()
    ended(s, [task.task_id])


def test_what_a_snapshot_would_leave_out_of_a_running_task_is_named(swarm, repo, gate):
    s = swarm()
    task = begin(s, "SHELL git init -q inner; touch inner/x; echo 1 > done", gate.wait, worktree=True)
    eventually(lambda: (pathlib.Path(task.spec().worktree.path) / "done").exists(), what="the repository")
    assert s.diff(task.task_id, None, "files",
                  ())["left_out"]["first"] == ["inner/ (a repository of its own)"]
    gate.open()
    ended(s, [task.task_id])


def test_a_result_is_compared_with_a_branch_as_well(swarm, repo):
    s = swarm()
    task_id = run(s, "WRITE new 1", worktree=True)["task_id"]
    assert rows(s.diff(task_id, "main", "files", ())) == [["A", "new"]]
    with pytest.raises(cms.ToolError) as caught:
        s.diff(task_id, "nowhere", "files", ())
    assert "names no task and no commit" in str(caught.value)


def test_a_reply_shows_what_it_changed_itself(swarm, repo):
    s = swarm()
    first = run(s, "WRITE one 1", worktree=True)
    reply = run(s, "WRITE two 1", task_id=first["task_id"])
    assert rows(s.diff(reply["task_id"], None, "files", ())) == [["A", "two"]]
    assert rows(
        s.diff(reply["task_id"], first["worktree"]["base"], "files", ())) == [["A", "one"], ["A", "two"]]


# -- without a worktree -----------------------------------------------------------------------------------
def test_without_a_worktree_it_is_what_is_not_committed_there_and_says_so(swarm, repo):
    (repo / "mine").write_text("1\n")
    s = swarm()
    record = run(s, "SHELL echo edit >> README", "WRITE new 1", cwd=str(repo))
    before = everything(repo)
    data = s.diff(record["task_id"], None, "files", ())
    assert rows(data) == [["M", "README"], ["A", "mine"], ["A", "new"]]
    assert "whoever changed it" in data["note"]
    assert everything(repo) == before


def test_without_a_worktree_only_the_directory_of_the_task_is_looked_at(swarm, repo):
    (repo / "s[u]b*").mkdir()
    (repo / "outside").write_text("1\n")
    s = swarm()
    record = run(s, "WRITE new 1", cwd=str(repo / "s[u]b*"))
    assert rows(s.diff(record["task_id"], None, "files", ())) == [["A", "s[u]b*/new"]]
    assert rows(s.diff(record["task_id"], None, "files", ("outside",))) == [["A", "outside"]]


def test_in_a_repository_without_a_commit_everything_is_new(swarm, tmp_path):
    repo = tmp_path / "unborn"
    repo.mkdir()
    sh(repo, "git", "init", "-q")
    s = swarm()
    record = run(s, "WRITE new 1", cwd=str(repo))
    assert rows(s.diff(record["task_id"], None, "files", ())) == [["A", "new"]]


def test_outside_of_a_repository_the_error_says_what_codex_edited(swarm, tmp_path):
    s = swarm(skip_git_repo_check=True)
    (tmp_path / "plain").mkdir()
    record = run(s, "PLAY patch", cwd=str(tmp_path / "plain"))
    with pytest.raises(cms.ToolError) as caught:
        s.diff(record["task_id"], None, "files", ())
    assert "not in a git repository" in str(caught.value) and "edited" in str(caught.value)


def test_a_git_directory_that_a_task_put_in_the_place_of_its_own_is_not_asked(swarm, repo, tmp_path):
    """git would run what that configures, outside of the sandbox. No record tells what was there before."""
    s, mark = swarm(), tmp_path / "ran"
    first = run(s, "SAY x", worktree=True)
    shutil.rmtree(s.store.get(first["task_id"]).path)
    evil = "rm .git && git init -q . && git config core.fsmonitor 'touch %s; false'" % mark
    second = run(s, "SHELL " + evil, cwd=first["worktree"]["path"], sandbox="workspace-write")
    with pytest.raises(cms.ToolError) as caught:
        s.diff(second["task_id"], None, "stat", ())
    assert "`.git` leads elsewhere" in str(caught.value) and not mark.exists()


# -- two tasks --------------------------------------------------------------------------------------------
def test_two_tasks_are_compared_by_their_results(swarm, repo):
    s = swarm()
    one, two = run(s, "WRITE same 1", "WRITE only_one 1",
                   worktree=True), run(s, "WRITE same 1", "WRITE only_two 1", worktree=True)
    data = s.diff(one["task_id"], two["task_id"], "files", ())
    assert rows(data) == [["A", "only_one"], ["D", "only_two"]] and data["against"] == two["task_id"]


def test_a_short_id_is_the_task_to_compare_with_unless_a_branch_or_tag_is_called_so(swarm, repo):
    s = swarm()
    one, two = (run(s, "WRITE %s 1" % name, worktree=True)["task_id"] for name in ("one", "two"))
    short, with_two = two[:6], [["A", "one"], ["D", "two"]]
    for name in (short, two, "codex-swarm/" + two):
        assert rows(s.diff(one, name, "files", ())) == with_two
    for kind in ("branch", "tag"):
        sh(repo, "git", kind, short)
        assert rows(s.diff(one, short, "files", ())) == [["A", "one"]]
        sh(repo, "git", kind, "-d", short)
    assert rows(s.diff(one, short, "files", ())) == with_two


def test_tasks_of_different_repositories_are_not_compared(swarm, repo, tmp_path):
    other = tmp_path / "other"
    sh(tmp_path, "git", "clone", "-q", str(repo), str(other))
    s = swarm()
    one, two = run(s, "WRITE x 1", worktree=True), run(s, "WRITE x 1", worktree=True, cwd=str(other))
    with pytest.raises(cms.ToolError) as caught:
        s.diff(one["task_id"], two["task_id"], "stat", ())
    assert "cannot be compared" in str(caught.value)


# -- write_paths ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("glob, name, answer", [
    ("src", "src", True), ("src", "src/a/b", True), ("src", "srcs", False), ("src/", "src/a", True),
    ("./src", "src/a", True), ("././*.py", "a.py", True), ("src/*", "src/a", True),
    ("src/*", "src/a/b", True),
    ("*.py", "a.py", True), ("*.py", "d/a.py", False), ("**/*.py", "a.py", True),
    ("**/*.py", "d/e/a.py", True), ("**/*.py", "a.pyc", False),
    ("**", "any/thing", True), ("a/**/b", "a/b", True), ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/xb", False), ("a?c", "abc", True), ("a?c", "a/c", False),
    ("[ab]*.txt", "bx.txt", True), ("[!ab]*.txt", "bx.txt", False), ("[!a]", "/", False),
    ("a**", "a/b", True), ("docs/*.md", "docs/x/y.md", False),
    ("a.b", "axb", False), ("*", "a\nb", True), ("", "a", False)])
def test_a_glob_covers_what_git_users_expect(glob, name, answer):
    assert cms.Globs([glob]).cover(name) is answer


@pytest.mark.parametrize("glob", ["[z-a]", "[!z-a]", "[a--]"])
def test_a_range_from_back_to_front_is_no_reason_to_fail(glob):
    assert cms.Globs([glob, "yes"]).cover("yes")


def steps(globs, name):
    """How many of our functions a look takes."""
    globs, calls = cms.Globs(globs), []
    globs.cover(name)
    sys.setprofile(lambda frame, event, arg: calls.append(event) if event == "call" else None)
    try:
        assert globs.cover(name) is False
    finally:
        sys.setprofile(None)
    return len(calls)


def test_fifty_globs_full_of_stars_take_no_more_steps_than_a_name_is_long():
    bombs = ["**/" + "*a" * 100 + str(n) for n in range(50)]
    assert steps(bombs, "a" * 4000) == steps(["*b"], "a" * 4000) <= 4002


def test_a_glob_of_endless_length_is_refused_by_name():
    assert "`write_paths[0]` must have from 1 to 300 characters" in cms.problems(
        cms.RUN["write_paths"], ["*a" * 200], "write_paths")[0]


def test_changes_outside_of_write_paths_are_reported_and_marked(swarm, repo):
    s = swarm()
    record = run(s, "SHELL mkdir src; echo 1 > src/a; echo 1 > b; echo 1 >> README", worktree=True,
                 write_paths=["src/**"])
    assert record["outside_write_paths"] == {"count": 2, "first": ["README", "b"]}
    marked = s.diff(record["task_id"], None, "files", ())["content"].splitlines()
    assert marked == ["M README  (outside write_paths)", "A b  (outside write_paths)", "A src/a"]


def test_the_count_of_changes_outside_of_write_paths_is_that_of_all(swarm, repo):
    record = run(swarm(), "SHELL i=0; while [ $i -lt 700 ]; do echo > f$i; i=$((i+1)); done", worktree=True,
                 write_paths=["src", "docs/**"])
    assert record["outside_write_paths"]["count"] == 700


def test_a_task_that_keeps_to_its_write_paths_has_nothing_to_report(swarm, repo):
    assert "outside_write_paths" not in run(swarm(), "WRITE a 1", worktree=True, write_paths=["a"])
    assert run(swarm(), "WRITE a 1", worktree=True, write_paths=[])["outside_write_paths"]["count"] == 1


def test_a_reply_keeps_the_write_paths_of_its_thread(swarm, repo):
    s = swarm()
    first = run(s, "WRITE a 1", worktree=True, write_paths=["a"])
    assert run(s, "WRITE b 1", task_id=first["task_id"])["outside_write_paths"]["first"] == ["b"]


def test_a_reply_is_not_blamed_for_what_an_earlier_turn_wrote_outside(swarm, repo):
    s = swarm()
    first = run(s, "WRITE out 1", worktree=True, write_paths=["in/**"])
    assert first["outside_write_paths"]["first"] == ["out"]
    assert "outside_write_paths" not in run(s, "SHELL mkdir in && echo 1 > in/a", task_id=first["task_id"])


def test_without_a_worktree_the_events_tell_what_was_written_elsewhere(swarm, repo):
    record = run(swarm(), "PLAY patch", cwd=str(repo), write_paths=["nowhere"])
    names = [os.path.basename(name) for name in record["outside_write_paths"]["first"]]
    assert names == ["new.txt", "other.txt", "moved.txt", "viash.txt"]
