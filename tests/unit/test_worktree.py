"""Making a worktree: what it starts from, what comes along, and that the user's checkout never notices."""
import concurrent.futures
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import GitError
from .on_git import (
    BRANCH, add, asking, branches, commit, files_of, head_of, log_of, ours, put, put_pipes_and_a_socket,
    save, sh, snapshot, source, take)
from .prepared import prepared

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.invalid")


@pytest.fixture
def make(repo, tmp_path):
    """A factory of worktrees of `repo`, as the server makes them."""
    def make(carry=False, base="HEAD", cwd=repo, name="tree", branch=BRANCH):
        return add(*head_of(str(cwd), base), str(tmp_path / name), branch, carry)
    return make


def all_files(top):
    return sorted(str(p.relative_to(str(top))) for p in pathlib.Path(str(top)).rglob("*")
                  if ".git" not in p.parts and not p.is_dir())


def nothing_left(repo, tmp_path):
    admin = repo / ".git" / "worktrees"
    assert branches(repo) == ["main"] and not (tmp_path / "tree").exists()
    assert not admin.exists() or os.listdir(str(admin)) == []


# -- base -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name",
                         ["main", "refs/heads/main", "HEAD~1", "v1", "annotated", "sha", "short",
                          "origin/there"])
def test_a_worktree_may_start_from_anything_that_names_a_commit(repo, make, name):
    first = sh(repo, "git", "rev-parse", "HEAD")
    sh(repo, "git", "tag", "v1")
    sh(repo, "git", *IDENTITY, "tag", "-a", "annotated", "-m", "x")
    sh(repo, "git", "update-ref", "refs/remotes/origin/there", first)
    put(repo, new="1\n")
    second = commit(repo)
    tree = make(base={"sha": first, "short": first[:9]}.get(name, name))
    assert tree.base == tree.start == (second if name in ("main", "refs/heads/main") else first)
    assert sh(tree.path, "git", "rev-parse", "HEAD") == tree.base
    assert (pathlib.Path(tree.path) / "new").exists() == (tree.base == second)


def test_a_branch_made_from_a_remote_one_does_not_track_it(repo, make):
    sh(repo, "git", "remote", "add", "origin", "/nonexistent")
    sh(repo, "git", "config", "branch.autoSetupMerge", "always")
    sh(repo, "git", "update-ref", "refs/remotes/origin/there", "HEAD")
    before = snapshot(repo)
    make(base="origin/there")
    assert snapshot(repo) == before


@pytest.mark.parametrize("base, words", [
    ("nowhere", "`nowhere` names no commit"), ("--all", "names no commit"), ("main..main", "names no commit"),
    ("HEAD:README", "names no commit"), ("", "names no commit"),
    ("0" * 40, "names no commit"), ("a\0b", "null"), ("twice", "ambiguous"), ("-", "names no commit"),
    ("^HEAD", "names no commit")])
def test_a_base_that_is_no_commit_or_two_is_refused_and_nothing_is_made(repo, tmp_path, base, words):
    put(repo, new="1\n")
    sh(repo, "git", "tag", "twice")
    commit(repo)
    sh(repo, "git", "branch", "twice")
    with pytest.raises(GitError) as caught:
        head_of(str(repo), base)
    assert words in str(caught.value)
    assert sh(repo, "git", "for-each-ref",
              "--format=%(refname)").splitlines() == ["refs/heads/main", "refs/heads/twice",
                                                      "refs/tags/twice"]


def test_in_a_repository_without_a_commit_on_head_another_base_can_be_named(repo, make):
    sh(repo, "git", "checkout", "-q", "--orphan", "empty")
    assert log_of(repo, make(base="main").branch) == ["first"]


def test_a_bare_repository_is_refused_in_words(tmp_path):
    sh(tmp_path, "git", "init", "-q", "--bare", "place")
    with pytest.raises(GitError) as caught:
        head_of(str(tmp_path / "place"))
    assert "bare" in str(caught.value) and "`cwd`" in str(caught.value)


def test_a_shallow_clone_is_a_start_like_any_other(repo, tmp_path):
    put(repo, new="1\n")
    commit(repo)
    sh(tmp_path, "git", "clone", "-q", "--depth=1", "file://%s" % repo, "shallow")
    tree = add(*head_of(str(tmp_path / "shallow")), str(tmp_path / "tree"), BRANCH)
    put(tree.path, x="1\n")
    save(tree)
    assert files_of(tmp_path / "shallow") == ["README", "new", "x"]


def test_a_partial_clone_gets_its_files_and_its_snapshot(repo, tmp_path):
    sh(repo, "git", "config", "uploadpack.allowFilter", "true")
    put(repo, new="1\n")
    commit(repo)
    sh(tmp_path, "git", "clone", "-q", "--filter=blob:none", "file://%s" % repo, "partial")
    tree = add(*head_of(str(tmp_path / "partial"), "HEAD~1"), str(tmp_path / "tree"),
                               BRANCH)
    put(tree.path, x="1\n")
    save(tree)
    assert files_of(tmp_path / "partial") == ["README", "x"]


@pytest.fixture
def locked_server():
    """The address of a server that answers nobody without a password."""
    class Locked(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass
    with http.server.HTTPServer(("127.0.0.1", 0), Locked) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield "http://127.0.0.1:%d/x" % server.server_port
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("how", ["core.askPass", "SSH_ASKPASS"])
def test_a_partial_clone_whose_server_wants_a_password_is_refused_and_nobody_is_asked(
        repo, tmp_path, locked_server, how):
    sh(repo, "git", "config", "uploadpack.allowFilter", "true")
    put(repo, README="2\n")
    commit(repo)
    partial = tmp_path / "partial"
    sh(tmp_path, "git", "clone", "-q", "--filter=blob:none", "file://%s" % repo, str(partial))
    sh(partial, "git", "remote", "set-url", "origin", locked_server)
    asks = str(asking(tmp_path))
    if how == "core.askPass":
        sh(partial, "git", "config", how, asks)
    git = ours(**({how: asks, "DISPLAY": ":0"} if how == "SSH_ASKPASS" else {}))
    with pytest.raises(GitError) as caught:
        cms.Trees(git).add(*source(git, partial, "HEAD~1"), str(tmp_path / "tree"), BRANCH)
    assert "could not read Username" in str(caught.value) and not (tmp_path / "ran").exists()
    assert BRANCH not in branches(partial)
    assert not (tmp_path / "tree").exists()
    assert not (partial / ".git" / "worktrees").exists()


def test_ssh_is_told_not_to_ask_either(repo, tmp_path):
    sh(repo, "git", "config", "uploadpack.allowFilter", "true")
    put(repo, README="2\n")
    commit(repo)
    partial, asked = tmp_path / "partial", tmp_path / "asked"
    sh(tmp_path, "git", "clone", "-q", "--filter=blob:none", "file://%s" % repo, str(partial))
    sh(partial, "git", "remote", "set-url", "origin", "ssh://nowhere.invalid/x")
    sh(partial, "git", "config", "core.sshCommand", "echo \"$SSH_ASKPASS_REQUIRE\" >'%s'; false" % asked)
    with pytest.raises(GitError):
        add(*head_of(str(partial), "HEAD~1"), str(tmp_path / "tree"), BRANCH)
    assert asked.read_text() == "never\n"


def test_a_submodule_as_the_working_directory_gets_a_worktree_of_the_submodule(with_submodule, tmp_path):
    tree = add(*head_of(str(with_submodule / "sub")), str(tmp_path / "tree"), BRANCH)
    put(tree.path, x="1\n")
    save(tree)
    assert files_of(with_submodule / "sub") == ["inside", "x"] and branches(with_submodule) == ["main"]


# -- include_changes --------------------------------------------------------------------------------------
@pytest.fixture
def busy(repo):
    """A checkout with every kind of change that is not committed."""
    put(repo, deleted="1\n", staged_then_changed="1\n", _gitignore="*.log\n")
    commit(repo)
    put(repo, README="edited\n", staged="staged\n", untracked="new\n", staged_then_changed="2\n",
        dir__deep="deep\n", x_log="ignored\n")
    (repo / "deleted").unlink()
    sh(repo, "git", "add", "staged", "staged.then.changed")
    put(repo, staged_then_changed="3\n")
    return repo


def test_what_is_not_committed_comes_along_as_one_commit_below_the_work(busy, make):
    tree = make(carry=True)
    assert all_files(tree.path) == [".gitignore", "README", "dir/deep", "staged", "staged.then.changed",
                                    "untracked"]
    read = lambda name: (pathlib.Path(tree.path) / name).read_text()
    assert (read("README"), read("staged.then.changed")) == ("edited\n", "3\n")
    assert tree.base == sh(busy, "git", "rev-parse", "HEAD") == sh(busy, "git", "rev-parse", BRANCH + "^")
    assert tree.baseline == sh(busy, "git", "rev-parse", BRANCH)
    assert tree.carried["count"] == 6 and sh(tree.path, "git", "status", "--porcelain") == ""
    put(tree.path, work="1\n")
    found = save(tree)
    assert (found.files_changed, found.commits) == (1, 1)


def test_the_checkout_whose_changes_come_along_does_not_notice(busy, make):
    before, stashed = snapshot(busy), sh(busy, "git", "stash", "list")
    make(carry=True)
    assert snapshot(busy) == before
    assert sh(busy, "git", "stash", "list") == stashed
    assert not (busy / ".git" / "index.lock").exists()


def test_without_changes_there_is_no_commit_for_them(repo, make):
    tree = make(carry=True)
    assert (tree.baseline, tree.carried, tree.start) == (None, {}, tree.base)


def test_an_index_that_is_locked_does_not_stop_the_changes_from_coming_along(busy, make):
    (busy / ".git" / "index.lock").write_text("")
    assert make(carry=True).carried["count"] == 6 and (busy / ".git" / "index.lock").exists()


def test_an_index_that_is_locked_in_the_middle_does_not_stop_the_changes_from_coming_along(busy, make):
    """By a filter, which git runs while it takes them."""
    sh(busy, "git", "config", "filter.races.clean", "touch '%s'; cat" % (busy / ".git" / "index.lock"))
    put(busy, _gitattributes="untracked filter=races\n")
    before = snapshot(busy)
    assert make(carry=True).carried["count"] == 7
    assert (busy / ".git" / "index.lock").exists()
    assert snapshot(busy) == before


def test_a_file_that_comes_along_may_have_any_name(repo, make):
    for name in NAMES:
        (repo / name).write_text("1\n")
    tree = make(carry=True)
    assert sorted(os.listdir(tree.path)) == sorted([".git", "README", *NAMES])
    assert tree.carried["count"] == len(NAMES)


def test_pipes_and_sockets_in_the_checkout_do_not_come_along_and_hold_nothing_up(repo, make, monkeypatch):
    put_pipes_and_a_socket(repo, monkeypatch)
    put(repo, x="1\n")
    tree = make(carry=True)
    assert files_of(repo) == ["README", "x"]
    assert tree.unseen["not_carried"]["first"] == ["README (no ordinary file)"]


def test_a_file_renamed_only_by_case_comes_along_where_git_was_told_not_to_tell_them_apart(repo, make):
    """As in a repository that was copied from a file system which does not."""
    sh(repo, "git", "config", "core.ignoreCase", "true")
    (repo / "README").rename(repo / "Readme")
    assert all_files(make(carry=True).path) == ["Readme"]


def test_an_unmerged_checkout_comes_along_as_it_lies_there(repo, make):
    sh(repo, "git", "checkout", "-q", "-b", "theirs")
    put(repo, README="theirs\n")
    commit(repo)
    sh(repo, "git", "checkout", "-q", "main")
    put(repo, README="ours\n")
    commit(repo)
    assert os.system("git -C '%s' merge -q theirs >/dev/null 2>&1" % repo) != 0
    before = snapshot(repo)
    tree = make(carry=True)
    assert "<<<<<<<" in (pathlib.Path(tree.path) / "README").read_text() and snapshot(repo) == before


def test_a_repository_inside_the_checkout_does_not_come_along_and_is_named(repo, make, tmp_path):
    sh(repo, "git", "init", "-q", "inner")
    sh(repo, "git", "-C", "inner", "config", "core.fsmonitor", "touch %s" % (tmp_path / "ran"))
    put(repo, inner__f="1\n", x="1\n")
    tree = make(carry=True)
    assert all_files(tree.path) == ["README", "x"]
    assert tree.unseen["not_carried"]["first"] == ["inner/ (a repository of its own)"]
    assert not (tmp_path / "ran").exists()


def test_the_changes_of_a_linked_worktree_are_those_of_that_worktree(busy, make):
    other = make(name="other", branch="other")
    put(other.path, only_here="1\n")
    tree = make(carry=True, cwd=other.path)
    assert "only.here" in all_files(tree.path) and "untracked" not in all_files(tree.path)


# -- .worktreeinclude -------------------------------------------------------------------------------------
@pytest.fixture
def including(repo):
    """A checkout with ignored files, some of which `.worktreeinclude` names."""
    put(repo, _gitignore=".env*\ncache/\nsecret\n*.key\nlinks/\n",
        _worktreeinclude=".env*\n!.env.prod\ncache/keep/\n*.key\nlinks/\nREADME\nplain\n")
    commit(repo)
    put(repo, _env="A=1\n", _env_prod="B=2\n", cache__keep__a="a\n", cache__drop__b="b\n", secret="s\n",
        plain="not ignored\n")
    return repo


def test_only_files_that_are_ignored_and_named_are_copied_with_mode_and_time(including, make):
    os.chmod(str(including / ".env"), 0o640)
    os.utime(str(including / ".env"), (1_000_000_000, 1_000_000_000))
    tree = make()
    assert set(all_files(tree.path)) - set(files_of(including)) == {".env", "cache/keep/a"}
    there = os.stat(os.path.join(tree.path, ".env"))
    assert (there.st_mode & 0o777, there.st_mtime) == (0o640, 1_000_000_000) and there.st_nlink == 1
    assert tree.copied == {"count": 2, "first": [".env", "cache/keep/a"]}
    assert save(tree).files_changed == 0 and ".env" not in files_of(including)


@pytest.mark.parametrize("text", ["A=1\n", "A=1\nB=2\n"], ids=["as it was", "changed"])
def test_a_copied_file_is_not_committed_even_when_the_task_no_longer_ignores_it(including, make, text):
    tree = make()
    (pathlib.Path(tree.path) / ".gitignore").write_text("")
    put(tree.path, x="1\n")
    if text != "A=1\n":
        put(tree.path, _env=text)
    found, warnings = take(tree, "x")
    assert ".env" not in files_of(including) and "x" in files_of(including)
    assert (pathlib.Path(tree.path) / ".env").read_text() == text
    assert len(warnings) == 1 and "`.env (copied" in warnings[0] and found.left_out["count"] == 2


def test_a_copied_file_is_not_carried_into_another_worktree_either(including, make):
    first = make()
    (pathlib.Path(first.path) / ".gitignore").write_text("")
    second = make(carry=True, cwd=first.path, name="second", branch=BRANCH + "2")
    assert ".env" not in files_of(including, BRANCH + "2") and ".env" not in str(second.carried)


@pytest.mark.parametrize("to", ["env.txt", "deep/x", "README"])
def test_a_copied_file_that_the_task_renames_is_not_committed_and_not_carried_on(including, make, to):
    tree = make()
    top = pathlib.Path(tree.path)
    put(top, x="1\n")
    (top / "deep").mkdir()
    (top / ".env").rename(top / to)
    second = make(carry=True, cwd=tree.path, name="second", branch=BRANCH + "2")
    found, warnings = take(tree, "x")
    for branch in (BRANCH, BRANCH + "2"):
        assert sh(including, "git", "diff", "--name-only", "main", branch) == "x"
    assert second.carried["first"] == ["x"]
    assert found.left_out["first"] == ["%s (copied from the checkout as an ignored file)" % to]
    (top / to).write_text("no secret any more\n")
    assert save(tree).files_changed == 2
    assert sh(including, "git", "show", "%s:%s" % (BRANCH, to)) == "no secret any more"


def test_a_copied_file_that_the_task_stages_by_force_is_not_committed(including, make):
    tree = make()
    put(pathlib.Path(tree.path), _env_prod="mine\n")
    sh(tree.path, "git", "add", "-f", ".")
    found = take(tree, "x")[0]
    assert sh(including, "git", "diff", "--name-only", "main", BRANCH) == ".env.prod" and not found.ignored


def test_the_record_names_what_only_the_checkout_has(including, make):
    put(including, README="edited\n")
    tree = make()
    assert tree.unseen == {"changed": {"count": 1, "first": ["README"]},
                           "untracked": {"count": 1, "first": ["plain"]},
                           "ignored": {"count": 2, "first": [".env.prod", "secret"]}}
    tree = make(carry=True, name="second", branch="second")
    assert set(tree.unseen) == {"ignored"} and tree.carried["count"] == 2


def test_no_link_that_leads_out_of_the_tree_is_copied_and_none_is_followed(including, make, tmp_path):
    (tmp_path / "outside").mkdir()
    put(tmp_path / "outside", x_key="stolen\n")
    put(including, links__file="1\n")
    for name, to in (("links/out", str(tmp_path / "outside" / "x.key")), ("links/up", "../../outside/x.key"),
                     ("links/absolute", str(including / "secret")),
                     ("links/in", "file"), ("links/across", "../secret"), ("links/dir", "../../outside"),
                     ("a.key", "/etc/passwd")):
        os.symlink(to, str(including / name))
    tree = make()
    top = pathlib.Path(tree.path)
    assert all_files(top / "links") == ["across", "file", "in"]
    assert os.readlink(str(top / "links" / "in")) == "file"
    assert not os.path.lexists(str(top / "a.key")) and tree.unseen["not_copied"]["count"] == 5
    assert all("leads elsewhere" in name for name in tree.unseen["not_copied"]["first"])


def test_a_directory_that_the_base_has_as_a_link_is_not_written_through(including, make, tmp_path):
    (tmp_path / "outside").mkdir()
    sh(including, "git", "checkout", "-q", "-b", "linked")
    sh(including, "rm", "-r", "cache")
    os.symlink(str(tmp_path / "outside"), str(including / "cache"))
    sh(including, "git", "add", "-f", "cache")
    sh(including, "git", "commit", "-q", "-m", "a link")
    sh(including, "git", "checkout", "-q", "main")
    put(including, cache__keep__a="a\n")
    tree = make(base="linked")
    assert os.listdir(str(tmp_path / "outside")) == []
    assert "cache/keep/a" in tree.unseen["not_copied"]["first"][0]


def test_a_file_that_the_base_has_itself_is_not_overwritten(including, make):
    sh(including, "git", "checkout", "-q", "-b", "tracked")
    sh(including, "git", "add", "-f", ".env")
    sh(including, "git", "commit", "-q", "-m", "tracks it")
    sh(including, "git", "checkout", "-q", "main")
    put(including, _env="mine\n")
    tree = make(base="tracked")
    assert (pathlib.Path(tree.path) / ".env").read_text() == "A=1\n"
    assert "it is there already" in tree.unseen["not_copied"]["first"][0]


def test_pipes_and_sockets_and_repositories_among_the_named_files_hold_nothing_up(
        including, make, monkeypatch):
    os.mkfifo(str(including / "cache" / "keep" / "pipe"))
    sh(including, "git", "init", "-q", "cache/keep/inner")
    put(including, cache__keep__inner__f="1\n")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(including / "cache" / "keep")
        listening.bind("socket")
    tree = make()
    assert all_files(pathlib.Path(tree.path) / "cache") == ["keep/a"]
    assert tree.unseen["not_copied"]["first"] == ["cache/keep/inner/ (a repository of its own)"]


NAMES = ["with space", "new\nline", "quote\"s'", "\u00e4 \u20ac", "-dash", os.fsdecode(b"not \xff utf-8")]


def test_a_copied_file_may_have_any_name(including, make):
    for name in NAMES:
        (including / "cache" / "keep" / name).write_text("1\n")
    tree = make()
    assert sorted(os.listdir(os.path.join(tree.path, "cache", "keep"))) == sorted(["a", *NAMES])


# -- submodules -------------------------------------------------------------------------------------------
@pytest.fixture
def with_submodule(repo, tmp_path):
    """`repo` with the submodule `sub`, cloned from a place that is gone by now."""
    def make():
        library = tmp_path / "library"
        sh(tmp_path, "git", "init", "-q", "-b", "main", str(library))
        put(library, inside="1\n")
        sh(library, "git", "add", ".")
        sh(library, "git", *IDENTITY, "commit", "-q", "-m", "x")
        sh(repo, "git", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--name",
           "a/library", str(library), "sub")
        commit(repo, "adds sub")
        sh(repo / "sub", "git", "config", "user.name", "Test")
        sh(repo / "sub", "git", "config", "user.email", "test@example.invalid")
        library.rename(tmp_path / "gone")
    prepared(tmp_path, "with submodule", make)
    return repo


def test_submodules_are_checked_out_from_what_the_repository_has(with_submodule, make):
    before = snapshot(with_submodule)
    tree = make()
    sub = pathlib.Path(tree.path) / "sub"
    assert (sub / "inside").read_text() == "1\n"
    assert tree.submodules == {"sub": "a/library"}
    assert snapshot(with_submodule) == before
    assert sh(sub, "git", "rev-parse", "HEAD") == sh(with_submodule / "sub", "git", "rev-parse", "HEAD")
    assert sh(sub, "git", "config",
              "remote.origin.url") == sh(with_submodule / "sub", "git", "config", "remote.origin.url")
    assert sh(tree.path, "git", "status", "--porcelain") == "" and save(tree).files_changed == 0


def test_a_submodule_that_the_repository_does_not_have_stays_empty_and_nothing_is_fetched(
        with_submodule, make, tmp_path):
    (with_submodule / ".git" / "modules").rename(tmp_path / "taken away")
    (tmp_path / "gone").rename(tmp_path / "library")            # it could be fetched now
    tree = make()
    assert os.listdir(os.path.join(tree.path, "sub")) == [] and tree.submodules == {}


@pytest.mark.parametrize("where", ["config", "elsewhere"])
def test_no_program_is_run_that_a_submodules_own_configuration_names(with_submodule, make, tmp_path, where):
    """A commit that is not there would be fetched."""
    module, mark = with_submodule / ".git" / "modules" / "a" / "library", tmp_path / "ran"
    obeyed = module / "config"
    if where == "elsewhere":
        shutil.copytree(str(module), str(tmp_path / "elsewhere"))
        (module / "commondir").write_text("%s\n" % (tmp_path / "elsewhere"))
        obeyed = tmp_path / "elsewhere" / "config"
    for key, value in (("extensions.partialClone", "origin"), ("core.repositoryformatversion", "1"),
                       ("remote.origin.promisor", "true"), ("remote.origin.url", str(with_submodule)),
                       ("remote.origin.uploadpack", "touch '%s'; false" % mark)):
        sh(with_submodule, "git", "config", "--file", str(obeyed), key, value)
    for top in module, obeyed.parent:
        shutil.rmtree(str(top / "objects"))
        (top / "objects").mkdir()
    tree = make()
    assert not mark.exists() and tree.submodules == {}


def test_files_in_the_place_of_a_submodule_that_is_not_checked_out_are_named(with_submodule, make, tmp_path):
    (with_submodule / ".git" / "modules").rename(tmp_path / "taken away")
    tree = make()
    put(tree.path, sub__precious="1\n", x="1\n")
    found, warnings = take(tree, "x")
    assert found.left_out["first"] == ["sub (a submodule that is not checked out, with files in it)"]
    assert "sub" in warnings[0]


@pytest.mark.parametrize("text",
                         ["", "[submodule", "[submodule \"x\"]\n\tpath\n",
                          "[submodule \"x\"]\n\tpath = :(top)\n"])
def test_a_list_of_submodules_that_is_empty_or_damaged_is_no_reason_to_refuse(repo, make, text):
    (repo / ".gitmodules").write_text(text)
    commit(repo)
    assert make().submodules == {}


def test_work_inside_a_submodule_is_told_and_the_rest_is_committed(with_submodule, make):
    tree = make()
    put(tree.path, sub__inside="2\n", x="1\n")
    _, warnings = take(tree, "x")
    assert len(warnings) == 1
    assert "`sub`" in warnings[0]
    assert tree.path in warnings[0]
    assert "x" in files_of(with_submodule)
    sh(pathlib.Path(tree.path) / "sub", "git", *IDENTITY, "commit", "-q", "-a", "-m", "x")
    found, warnings = take(tree, "x")
    assert found.left_out["first"] == ["sub (commits in a submodule)"] and "`sub" in warnings[0]


@pytest.mark.parametrize("name", ["../../evil", "-x", "a/../../b", ""])
def test_a_submodule_with_a_name_that_leads_elsewhere_is_passed_over(with_submodule, make, tmp_path, name):
    put(with_submodule, _gitmodules="[submodule \"%s\"]\n\tpath = sub\n\turl = x\n" % name)
    commit(with_submodule)
    tree = make()
    assert tree.submodules == {} and os.listdir(os.path.join(tree.path, "sub")) == []


# -- all or nothing, many at once -------------------------------------------------------------------------
def test_32_worktrees_of_one_repository_made_at_once_are_all_made(repo, tmp_path):
    """By four processes, as 4 servers would, each of which is asked for 8 at once."""
    script = """
import concurrent.futures, sys
sys.path.insert(0, sys.argv[1])
import codex_mcp_swarm as cms
git = cms.Git(cms.Host(), {"PATH": sys.argv[2]})

def make(n):
    name = sys.argv[5] + "-%d" % n
    at = git.around(sys.argv[3])
    return cms.Trees(git).add(at.cwd, at.base_commit(), sys.argv[4] + name, "codex-swarm/" + name, True).base

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(*pool.map(make, range(8)))
"""
    put(repo, untracked="1\n")
    before = snapshot(repo)
    words = [sys.executable, "-c", script, os.path.dirname(cms.__file__), os.environ["PATH"], str(repo),
             str(tmp_path / "tree-")]
    children = [subprocess.Popen([*words, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                for n in range(4)]
    said = [child.communicate(timeout=120) for child in children]
    assert [err for _, err in said if err] == []
    assert b"".join(out for out, _ in said).decode().split() == [sh(repo, "git", "rev-parse", "HEAD")] * 32
    assert all(all_files(tmp_path / ("tree-%d-%d" % (server, n))) == ["README", "untracked"]
               for server in range(4) for n in range(8))
    assert len(branches(repo)) == 33 and snapshot(repo) == before


def test_a_server_that_makes_one_waits_for_another_that_does(repo, tmp_path):
    held = cms.open_lock(ours().lock_of(os.path.realpath(str(repo / ".git"))), os.O_CREAT)
    cms.fcntl.flock(held, cms.fcntl.LOCK_EX)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(add, *head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
        with pytest.raises(concurrent.futures.TimeoutError):
            made.result(timeout=0.5)
        assert branches(repo) == ["main"]
        os.close(held)
        assert made.result(timeout=60).branch == BRANCH


def test_a_lock_on_what_everybody_can_read_in_the_repository_keeps_nobody_waiting(repo, make):
    held = [os.open(str(path), os.O_RDONLY)
            for path in (repo, repo / ".git", repo / ".git" / "HEAD", repo / ".git" / "config")]
    for fd in held:
        cms.fcntl.flock(fd, cms.fcntl.LOCK_EX)
    assert make().branch == BRANCH
    assert os.stat(ours().lock_of(os.path.realpath(str(repo / ".git")))).st_mode & 0o777 == 0o200
    assert [name for name in os.listdir(str(repo / ".git")) if "swarm" in name] == []
    for fd in held:
        os.close(fd)


def test_a_branch_that_differs_only_by_case_is_not_touched(repo, make, tmp_path):
    """On a file system that tells them apart; where it does not, git refuses to make the second one."""
    sh(repo, "git", "config", "core.ignoreCase", "true")
    other = BRANCH.replace("codex", "Codex").upper()
    put(repo, theirs="1\n")
    sh(repo, "git", "branch", other, commit(repo))
    kept = sh(repo, "git", "rev-parse", other)
    try:
        save(make(base="HEAD~1"))
    except GitError as error:
        assert "exists" in str(error) and not (tmp_path / "tree").exists()
    assert sh(repo, "git", "rev-parse", other) == kept and files_of(repo, other) == ["README", "theirs"]


def test_a_branch_in_the_place_of_ours_is_an_error_that_names_it_and_stays(repo, make, tmp_path):
    sh(repo, "git", "branch", "codex-swarm")
    with pytest.raises(GitError) as caught:
        make()
    assert "There is a branch `codex-swarm` already" in str(caught.value)
    sh(repo, "git", "branch", "-d", "codex-swarm")
    nothing_left(repo, tmp_path)


def test_a_ref_lock_that_something_else_holds_for_a_moment_is_waited_for(repo, tmp_path):
    (repo / ".git" / "refs" / "heads" / "codex-swarm").mkdir()
    lock = repo / ".git" / "refs" / "heads" / (BRANCH + ".lock")
    lock.write_text("")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(add, *head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
        with pytest.raises(concurrent.futures.TimeoutError):
            made.result(timeout=0.5)
        lock.unlink()
        assert made.result(timeout=60).branch == BRANCH


def make_with_little_room(repo, tmp_path):
    """A worktree made in a process of its own. A limit on the size of files stands in for a full disk: git
    and the copying meet it in the middle of their work."""
    script = ("import sys; sys.path.insert(0, sys.argv[1]); import codex_mcp_swarm as cms; "
              "git = cms.Git(cms.Host(), {'PATH': sys.argv[2]})\n"
              "at = git.around(sys.argv[3])\n"
              "cms.Trees(git).add(at.cwd, at.base_commit(), sys.argv[4], sys.argv[5])")
    return subprocess.run(
        ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", sys.executable, "-c", script,
         os.path.dirname(cms.__file__), os.environ["PATH"],
                           str(repo), str(tmp_path / "tree"), BRANCH], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60)


def test_a_disk_that_fills_up_half_way_leaves_nothing(repo, tmp_path):
    put(repo, large="x" * 300_000)
    commit(repo)
    done = make_with_little_room(repo, tmp_path)
    assert done.returncode != 0 and b"GitError" in done.stderr, done.stderr
    nothing_left(repo, tmp_path)


def test_a_copy_that_does_not_fit_leaves_nothing(including, tmp_path):
    put(including, cache__keep__large="x" * 300_000)
    done = make_with_little_room(including, tmp_path)
    assert done.returncode != 0 and b"File too large" in done.stderr, done.stderr
    nothing_left(including, tmp_path)


def test_a_filter_that_fails_at_the_checkout_leaves_nothing(repo, make, tmp_path):
    sh(repo, "git", "config", "filter.broken.clean", "cat")
    sh(repo, "git", "config", "filter.broken.smudge", "false")
    sh(repo, "git", "config", "filter.broken.required", "true")
    put(repo, _gitattributes="*.bad filter=broken\n", x_bad="1\n")
    commit(repo)
    with pytest.raises(GitError) as caught:
        make()
    assert "x.bad" in str(caught.value)
    nothing_left(repo, tmp_path)


def test_a_worktree_with_changes_copies_and_submodules_is_taken_back_without_a_trace(
        with_submodule, make, tmp_path):
    put(with_submodule, _gitignore=".env\n", _worktreeinclude=".env\n", _env="1\n")
    before = snapshot(with_submodule)
    tree = make(carry=True)
    assert tree.baseline and tree.copied and tree.submodules
    cms.Trees(ours()).discard(str(with_submodule), tree.path, tree.branch)
    nothing_left(with_submodule, tmp_path)
    assert snapshot(with_submodule) == before


# -- the repository as users have it ----------------------------------------------------------------------
@pytest.mark.parametrize("lock",
                         ["index.lock", "HEAD.lock", "config.lock", "packed-refs.lock",
                          "refs/heads/main.lock"])
def test_a_lock_that_somebody_left_in_the_repository_holds_nothing_up(repo, make, lock):
    (repo / ".git" / lock).write_text("")
    put(repo, untracked="1\n")
    tree = make(carry=True)
    put(tree.path, x="1\n")
    save(tree)
    assert files_of(repo) == ["README", "untracked", "x"] and (repo / ".git" / lock).exists()


def test_a_filter_of_the_users_works_on_the_way_in_and_out(repo, make):
    """As git-lfs does: what is in the tree is not what is in the repository."""
    sh(repo, "git", "config", "filter.swap.clean", "tr a-z A-Z")
    sh(repo, "git", "config", "filter.swap.smudge", "tr A-Z a-z")
    sh(repo, "git", "config", "filter.swap.required", "true")
    put(repo, _gitattributes="*.swap filter=swap\n", x_swap="text\n")
    commit(repo)
    tree = make()
    assert (pathlib.Path(tree.path) / "x.swap").read_text() == "text\n" and save(tree).files_changed == 0
    put(tree.path, x_swap="other\n")
    assert save(tree).files_changed == 1 and sh(repo, "git", "show", BRANCH + ":x.swap") == "OTHER"


PROCESS = r"""
import sys
out, into = sys.stdout.buffer, sys.stdin.buffer

def read():
    size = int(into.read(4) or sys.exit(0), 16)
    return into.read(size - 4) if size else None

def until_flush():
    return list(iter(read, None))

def write(*packets):
    for packet in packets:
        out.write(b"0000" if packet is None else b"%04x" % (len(packet) + 4) + packet)
    out.flush()

open(sys.argv[1], "a").write("started\n")
until_flush()
write(b"git-filter-server\n", b"version=2\n", None)
until_flush()
write(b"capability=clean\n", b"capability=smudge\n", None)
while True:
    command, *_ = until_flush()
    text = b"".join(until_flush())
    text = text.upper() if command == b"command=clean\n" else text.lower()
    write(b"status=success\n", None, text, None, None)
"""


def test_a_filter_that_runs_as_one_process_for_all_files_works_on_the_way_in_and_out(repo, make, tmp_path):
    """As git-lfs is set up today: one process, which git speaks a protocol with."""
    (tmp_path / "process.py").write_text(PROCESS)
    sh(repo, "git", "config", "filter.swap.process",
       "'%s' '%s' '%s'" % (sys.executable, tmp_path / "process.py", tmp_path / "log"))
    sh(repo, "git", "config", "filter.swap.required", "true")
    put(repo, _gitattributes="*.swap filter=swap\n", x_swap="text\n", y_swap="text\n")
    commit(repo)
    put(repo, y_swap="carried\n")
    (tmp_path / "log").unlink()
    tree = make(carry=True)
    top = pathlib.Path(tree.path)
    assert [(top / name).read_text() for name in ("x.swap", "y.swap")] == ["text\n", "carried\n"]
    assert save(tree).files_changed == 0
    put(top, **{"%d_swap" % number: "new\n" for number in range(20)})
    assert save(tree).files_changed == 20
    assert [sh(repo, "git", "show", BRANCH + ":" + name)
            for name in ("x.swap", "y.swap", "7.swap")] == ["TEXT", "CARRIED", "NEW"]
    assert (tmp_path / "log").read_text().count("started") < 20, "one for each file"


def test_a_repository_of_sha256_names_works_alike(tmp_path):
    sh(tmp_path, "git", "init", "-q", "-b", "main", "--object-format=sha256", "place")
    put(tmp_path / "place", README="1\n", untracked="1\n")
    sh(tmp_path / "place", "git", "add", "README")
    sh(tmp_path / "place", "git", *IDENTITY, "commit", "-q", "-m", "first")
    tree = add(*head_of(str(tmp_path / "place")), str(tmp_path / "tree"), BRANCH, True)
    put(tree.path, x="1\n")
    sh(tree.path, "git", "checkout", "-q", "--detach")
    sh(tree.path, "git", "branch", "-q", "-D", BRANCH)
    assert take(tree, "x")[0].commits == 1
    assert files_of(tmp_path / "place") == ["README", "untracked", "x"]
