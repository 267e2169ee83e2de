"""Worktrees with the real git: the work comes home onto the task's branch, and nothing of the user's is
touched or run."""
import errno
import os
import pathlib
import shutil
import subprocess

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Git, GitError, Host
from .helpers import auditing
from .on_git import (
    BRANCH, add, asking, branches, counts, files_of, head_of, log_of, ours, save, sh, snapshot, source,
    take)

def test_a_worktree_is_a_copy_of_head_on_a_branch_of_its_own(repo, tree):
    assert (pathlib.Path(tree.path) / "README").read_text() == "a repository\n"
    assert sh(tree.path, "git", "symbolic-ref", "HEAD") == "refs/heads/" + BRANCH
    assert tree.base == sh(repo, "git", "rev-parse", "HEAD") and os.path.isdir(tree.git_dir)


def test_what_changed_is_committed_and_merges_back(repo, tree):
    path = pathlib.Path(tree.path)
    (path / "README").write_text("changed\nand longer\n")
    (path / "new").mkdir()
    (path / "new" / "file \u00e4\n\u20ac").write_text("one\n")
    found = save(tree, "the title\n\nand the rest\n")
    assert log_of(repo) == ["the title", "first"]
    assert (*counts(found), found.commits, found.head) == (2, 3, 1, 1, sh(repo, "git", "rev-parse", BRANCH))
    assert found.files == ("README", "new/file \u00e4\n\u20ac")
    assert found._replace(head=None, files_changed=None, insertions=None, deletions=None, commits=None,
                          files=()) == tree
    sh(repo, "git", "merge", "--quiet", BRANCH)
    assert (repo / "README").read_text() == "changed\nand longer\n"


def test_nothing_to_commit_is_no_error(repo, tree):
    found = save(tree, "nothing")
    assert log_of(repo) == ["first"]
    assert (found.head, *counts(found), found.commits) == (tree.base, 0, 0, 0, 0)


def test_what_was_committed_already_counts_too(repo, tree):
    (pathlib.Path(tree.path) / "by_agent").write_text("1\n2\n")
    sh(tree.path, "git", "add", ".")
    sh(tree.path, "git", "commit", "-q", "-m", "by the agent")
    (pathlib.Path(tree.path) / "left").write_text("3\n")
    found = save(tree, "by us")
    assert log_of(repo) == ["by us", "by the agent", "first"]
    assert (*counts(found), found.commits) == (2, 3, 0, 2)


def test_a_deletion_a_rename_and_a_binary_file_are_counted(tree):
    path = pathlib.Path(tree.path)
    (path / "README").rename(path / "README.md")
    (path / "binary").write_bytes(bytes(range(256)))
    assert counts(save(tree)) == (3, 1, 1)


def test_ignored_files_are_not_committed(repo, tree):
    path = pathlib.Path(tree.path)
    (path / ".gitignore").write_text("*.log\n")
    (path / "x.log").write_text("")
    (path / "x.txt").write_text("")
    take(tree, "x")
    assert files_of(repo) == [".gitignore", "README", "x.txt"]


def test_the_users_files_index_head_and_configuration_stay_as_they_are(repo, tmp_path):
    (repo / "README").write_text("edited, not staged\n")
    (repo / "staged").write_text("staged\n")
    sh(repo, "git", "add", "staged")
    (repo / "untracked").write_text("untracked\n")
    before = snapshot(repo)
    top, base = head_of(str(repo))
    tree = add(top, base, str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "README").write_text("by the task\n")
    take(tree, "x")
    assert snapshot(repo) == before
    assert files_of(repo) == ["README"]


HOOKS = ["pre-commit", "commit-msg", "prepare-commit-msg", "post-commit", "post-checkout",
         "reference-transaction", "post-index-change"]


@pytest.mark.parametrize("where", [".git/hooks", "own-hooks"])
def test_no_hook_of_the_users_is_run(repo, tmp_path, where):
    (repo / where).mkdir(exist_ok=True)
    for name in HOOKS:
        (repo / where / name).write_text("#!/bin/sh\necho %s >>%s\nexit 1\n" % (name, tmp_path / "ran"))
        os.chmod(str(repo / where / name), 0o755)
    if where == "own-hooks":
        sh(repo, "git", "config", "core.hooksPath", str(repo / where))
    tree = add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "x").write_text("")
    take(tree, "x")
    assert log_of(repo) == ["x", "first"] and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("settings", [
    {"commit.gpgSign": "true", "gpg.program": "/bin/false", "user.signingKey": "x",
     "core.editor": "/bin/false", "commit.verbose": "true", "commit.template": "/nonexistent"},
    {"commit.cleanup": "strip", "core.commentChar": "t", "status.showUntrackedFiles": "no",
     "user.useConfigOnly": "true", "user.name": "", "user.email": "", "core.quotePath": "true"},
    {"diff.external": "/bin/false", "diff.renames": "copies", "core.autocrlf": "true", "color.ui": "always",
     "push.autoSetupRemote": "true", "branch.autoSetupMerge": "always"},
    {"diff.noprefix": "true", "core.fsmonitor": "/bin/false", "core.pager": "/bin/false",
     "pager.diff": "true"},
    {"diff.mnemonicPrefix": "true", "diff.submodule": "log"},
], ids=lambda s: " ".join(s)[:40])
def test_no_setting_of_the_users_stops_a_commit(repo, tmp_path, settings):
    for name, value in settings.items():
        sh(repo, "git", "config", name, value)
    tree = add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "x").write_text("1\n")
    assert counts(save(tree, "title\n\nCodex task\n")) == (1, 1, 0)
    assert log_of(repo)[-1] == "first" and len(log_of(repo)) == 2


def test_nothing_that_would_ask_the_user_or_sign_is_ever_run(repo, tmp_path):
    """Each of these would hang for ever: nobody is there to answer."""
    asks = str(asking(tmp_path))
    for name in ("gpg.program", "gpg.ssh.program", "core.editor", "sequence.editor", "core.pager",
                 "core.askPass", "core.fsmonitor", "diff.external", "merge.tool"):
        sh(repo, "git", "config", name, asks)
    for name in ("commit.gpgSign", "tag.gpgSign", "log.showSignature", "rebase.gpgSign", "commit.verbose",
                 "add.interactive.useBuiltin"):
        sh(repo, "git", "config", name, "true")
    sh(repo, "git", "config", "user.signingKey", "x")
    (repo / "README").write_text("edited\n")
    git = ours(
        **dict.fromkeys(
            ["EDITOR", "VISUAL", "PAGER", "SSH_ASKPASS", "GIT_ASKPASS", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR",
             "GIT_PAGER", "GIT_SSH"], asks), DISPLAY=":0")
    tree = cms.Trees(git).add(*source(git, repo), str(tmp_path / "tree"), BRANCH, True)
    (pathlib.Path(tree.path) / "x").write_text("1\n")
    assert counts(cms.Snapshot(git, tree).take("x")[0]) == (1, 1, 0) and not (tmp_path / "ran").exists()
    assert "gpgsig" not in sh(repo, "git", "cat-file", "-p",
                              BRANCH) + sh(repo, "git", "cat-file", "-p", BRANCH + "^")


def test_the_git_environment_of_the_server_is_ignored(repo, tmp_path):
    other = tmp_path / "other"
    sh(tmp_path, "git", "init", "-q", str(other))
    before = snapshot(other)
    git = ours(GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other), GIT_INDEX_FILE=str(tmp_path / "index"),
               GIT_EDITOR="/bin/false", GIT_NAMESPACE="x",
               GIT_AUTHOR_DATE="nonsense", GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="user.name",
               GIT_CONFIG_VALUE_0="Intruder", GIT_OBJECT_DIRECTORY=str(tmp_path))
    assert git.around(str(repo)).cwd == str(repo)
    tree = cms.Trees(git).add(*source(git, repo), str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "x").write_text("")
    cms.Snapshot(git, tree).take("x")
    assert log_of(repo) == ["x", "first"] and snapshot(other) == before and not (tmp_path / "index").exists()
    assert sh(repo, "git", "log", "-1", "--format=%an", BRANCH) == "Test"


def test_without_any_identity_the_commit_is_made_all_the_same(repo, tmp_path):
    for name in ("user.name", "user.email"):
        sh(repo, "git", "config", "--unset", name)
    sh(repo, "git", "config", "user.useConfigOnly", "true")
    tree = add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "x").write_text("")
    take(tree, "x")
    assert sh(repo, "git", "log", "-1", "--format=%an <%ae> %cn",
              BRANCH) == "codex-mcp-swarm <codex-mcp-swarm@localhost> codex-mcp-swarm"


def test_line_ends_that_git_converts_are_no_changes_and_the_branch_has_its_own(repo, tmp_path):
    sh(repo, "git", "config", "core.autocrlf", "true")
    tree = add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    place = pathlib.Path(tree.path)
    assert (place / "README").read_bytes() == b"a repository\r\n" and counts(save(tree)) == (0, 0, 0)
    (place / "README").write_bytes(b"a repository\r\nchanged\r\n")
    (place / "new").write_bytes(b"1\r\n")
    assert counts(save(tree)) == (2, 2, 0)
    assert [sh(repo, "git", "cat-file", "-s", BRANCH + ":" + name)
            for name in ("README", "new")] == ["21", "2"]


# -- a repository that is somebody else's -------------------------------------------------------------
@pytest.fixture
def foreign(repo, tmp_path):
    """`foreign(*safe)`: git as the server has it where another user owns `repo`, with these places as
    `safe.directory`. Who may not give files away lets git itself take them for another user's, with the
    switch of git's own tests."""
    def git_with(*safe):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / ".gitconfig").write_text(
            "".join("[safe]\n\tdirectory = %s\n" % path for path in safe))
        path = os.environ["PATH"]
        if os.geteuid() == 0:
            sh(repo, "chown", "-R", "65534", ".")
        else:
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin" / "git").write_text(
                "#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 PATH='%s' exec git \"$@\"\n" % path)
            (tmp_path / "bin" / "git").chmod(0o755)
            path = "%s:%s" % (tmp_path / "bin", path)
        return ours(HOME=str(tmp_path / "home"), PATH=path)
    return git_with


def test_a_repository_of_another_user_is_refused_as_git_does(repo, foreign):
    with pytest.raises(GitError) as caught:
        foreign().around(str(repo))
    assert "dubious ownership" in str(caught.value) and str(repo) in str(caught.value)


def test_a_repository_of_another_user_that_is_declared_safe_is_a_start_like_any_other(
        repo, foreign, tmp_path):
    git = foreign(repo, tmp_path / "tree")
    (repo / "README").write_text("edited\n")
    tree = cms.Trees(git).add(*source(git, repo), str(tmp_path / "tree"), BRANCH, True)
    (pathlib.Path(tree.path) / "x").write_text("1\n")
    found, warnings = cms.Snapshot(git, tree).take("by us")
    assert counts(found) == (1, 1, 0)
    assert warnings == []
    assert sh(repo, "git", "-c", "safe.directory=*", "ls-files") == "README"


# -- where a worktree can start -----------------------------------------------------------------------
def unborn(tmp_path):
    sh(tmp_path, "git", "init", "-q", "place")
    return "has no commit yet"


def bare(tmp_path):
    sh(tmp_path, "git", "init", "-q", "--bare", "place")
    return "bare"


def no_repository(tmp_path):
    (tmp_path / "place").mkdir()
    return "not a git repository"


@pytest.mark.parametrize("make", [unborn, bare, no_repository])
def test_a_place_without_a_commit_is_refused(tmp_path, make):
    words = make(tmp_path)
    with pytest.raises(GitError) as caught:
        head_of(str(tmp_path / "place"))
    assert words in str(caught.value)


def test_a_detached_head_is_a_start_like_any_other(repo, tmp_path):
    sh(repo, "git", "checkout", "-q", "--detach")
    tree = add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    (pathlib.Path(tree.path) / "x").write_text("")
    take(tree, "x")
    assert log_of(repo) == ["x", "first"] and sh(repo, "git", "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


@pytest.mark.parametrize("name", ["sub", "with space", "\u00e4 \u20ac", "-dash", "quote\"s'", "new\nline"])
def test_a_repository_and_a_sub_directory_may_have_any_name(tmp_path, name):
    top = tmp_path / name / name
    top.mkdir(parents=True)
    sh(top, "git", "init", "-q", "-b", "main")
    (top / name).mkdir()
    (top / name / name).write_text("1\n")
    sh(top, "git", "add", ".")
    sh(top, "git", "-c", "user.name=T", "-c", "user.email=t@example.invalid", "commit", "-q", "-m", "first")
    found, base = head_of(str(top / name))
    assert found == str(top)
    tree = add(found, base, str(tmp_path / ("tree " + name)), BRANCH)
    (pathlib.Path(tree.path) / name / name).write_text("2\n")
    assert counts(save(tree)) == (1, 1, 1)


def test_a_worktree_of_a_worktree_has_the_same_branches(repo, tree, tmp_path):
    second = add(*head_of(tree.path), str(tmp_path / "second"), "codex-swarm/second")
    (pathlib.Path(second.path) / "x").write_text("")
    take(second, "x")
    assert log_of(repo, "codex-swarm/second") == ["x", "first"]


# -- taking back --------------------------------------------------------------------------------------
def test_an_untouched_worktree_is_taken_back_without_a_trace(repo, tree):
    cms.Trees(ours()).discard(str(repo), tree.path, tree.branch)
    assert branches(repo) == ["main"]
    assert not os.path.exists(tree.path)
    assert len(sh(repo, "git", "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("base, path", [("0" * 40, "tree"), ("HEAD", "file"), ("HEAD", "full")])
def test_a_worktree_that_cannot_be_made_leaves_nothing(repo, tmp_path, base, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = sorted(tmp_path.glob("*"))
    with pytest.raises(GitError):
        add(str(repo), base, str(tmp_path / path), BRANCH)
    assert branches(repo) == ["main"]
    assert sorted(tmp_path.glob("*")) == before
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    assert len(sh(repo, "git", "worktree", "list").splitlines()) == 1


def test_a_branch_that_was_there_before_is_not_taken_away(repo, tmp_path):
    sh(repo, "git", "branch", BRANCH)
    with pytest.raises(GitError):
        add(*head_of(str(repo)), str(tmp_path / "tree"), BRANCH)
    assert BRANCH in branches(repo)


def test_a_worktree_that_was_there_before_is_not_taken_away(repo, tree):
    with pytest.raises(GitError):
        add(*head_of(str(repo)), tree.path, BRANCH + "-other")
    assert os.path.exists(os.path.join(tree.path, "README")) and branches(repo) == [BRANCH, "main"]


# -- what a task may have done to its worktree --------------------------------------------------------
@pytest.mark.parametrize("how", ["a file that leads elsewhere", "a repository of its own", "gone"])
def test_a_replaced_git_file_leads_nowhere(repo, tree, tmp_path, how):
    victim = tmp_path / "victim"
    sh(tmp_path, "git", "init", "-q", "-b", "main", str(victim))
    sh(victim, "git", "-c", "user.name=V", "-c", "user.email=v@example.invalid", "commit", "-q",
       "--allow-empty", "-m", "victim")
    dot_git, before = pathlib.Path(tree.path) / ".git", snapshot(victim)
    dot_git.unlink()
    if how == "a file that leads elsewhere":
        dot_git.write_text("gitdir: %s\n" % (victim / ".git"))
    elif how == "a repository of its own":
        sh(tree.path, "git", "init", "-q")
        hook = dot_git / "hooks" / "pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch %s\n" % (tmp_path / "ran"))
        os.chmod(str(hook), 0o755)
    (pathlib.Path(tree.path) / "x").write_text("1\n")
    assert counts(save(tree)) == (1, 1, 0)
    assert log_of(repo) == ["x", "first"] and files_of(repo) == ["README", "x"]
    assert snapshot(victim) == before and not (tmp_path / "ran").exists()


def test_a_worktree_that_is_gone_is_an_error_that_says_so(repo, tree):
    sh("/", "rm", "-r", tree.path)
    with pytest.raises(GitError) as caught:
        take(tree, "x")
    assert "no directory `%s`" % tree.path in str(caught.value)
    assert "Install" not in str(caught.value)
    assert log_of(repo) == ["first"]


def test_without_git_the_error_says_to_install_it(repo):
    with pytest.raises(GitError) as caught:
        Git(Host(), {"PATH": "/nonexistent"}).around(str(repo))
    assert "Install git" in str(caught.value)


@pytest.mark.parametrize("number, advice", [(errno.EMFILE, "ulimit -n"), (errno.EAGAIN, "ulimit -u")])
def test_where_the_system_has_no_more_the_error_does_not_say_to_install_git(repo, number, advice):
    def refuse(event, args):
        if event == "subprocess.Popen":
            raise OSError(number, os.strerror(number))
    with auditing(refuse), pytest.raises(GitError) as caught:
        Git(Host(), os.environ).around(str(repo))
    assert advice in str(caught.value) and "Install" not in str(caught.value)


@pytest.mark.parametrize("inside, answer",
                         [("repo", True), ("repo/sub", True), ("tree", True), ("plain", False),
                          ("repo/.git", True)])
def test_codex_own_test_for_a_repository_is_ours(repo, tree, tmp_path, inside, answer):
    (repo / "sub").mkdir()
    (tmp_path / "plain").mkdir()
    assert bool(cms.top_of(str(tmp_path / inside))) is answer


def test_an_empty_dot_git_above_a_directory_is_no_repository(repo, tmp_path):
    (tmp_path / ".git").mkdir()
    (repo / "sub" / ".git").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    assert not cms.top_of(str(tmp_path / "plain")) and cms.repository_of(str(tmp_path / "plain"))[1] == "/"
    assert cms.top_of(str(repo / "sub")) == str(repo)
    assert cms.repository_of(str(repo / "sub")) == (str(repo / ".git"), str(repo))


@pytest.mark.parametrize("text", [
    b"x\n", b"x", b"x\r\n", b"x\n\n", b"x\r", b"gitdir: x\n", b" x\n", b"\xff\n", b"x\0y\n",
    b"./" * 5000 + b"x\n"])
@pytest.mark.parametrize("name", ["commondir", ".git"])
def test_where_a_file_of_gits_leads_is_read_to_the_byte_as_git_reads_it(repo, tmp_path, name, text):
    top = tmp_path / "top"
    inside = top / ".git" if name == "commondir" else top
    inside.mkdir(parents=True)
    (inside / name).write_bytes(text if name == "commondir" else b"gitdir: " + text)
    (inside / "HEAD").write_text("ref: refs/heads/main\n")
    for place in b"x", b"x\r", b"gitdir: x", b" x", b"\xff":
        shutil.copytree(os.fsencode(repo / ".git"), os.fsencode(inside) + b"/" + place)
    asked = ("git", "-C", str(top), "rev-parse", "--path-format=absolute", "--git-common-dir")
    done = subprocess.run(asked, stdout=subprocess.PIPE, timeout=60)
    too_long_for_git = name == ".git" and len(text) > 4096
    assert done.returncode == (128 if too_long_for_git else 0)
    if not too_long_for_git:
        assert os.fsencode(cms.leads_to(str(inside), name)) == os.path.realpath(done.stdout[:-1])


@pytest.mark.parametrize("key, plain", [
    ("core.bare", True), ("core.hookspath", True), ("core.fsmonitor", True), ("branch.a.b.merge", True),
    ("remote.o.url", True), ("user.name", True),
    ("core.worktree", False), ("core.sshcommand", False), ("include.path", False),
    ("includeif.gitdir:/.path", False),
    ("filter.remote.o.url.clean", False), ("alias.status", False),
    ("remote.o.promisor", False), ("remote.o.uploadpack", False), ("extensions.partialclone", False),
    ("lfs.customtransfer.x.path", False),
    ("diff.x.textconv", False)])
def test_of_a_repositorys_configuration_only_what_is_known_to_run_nothing_is_plain(tmp_path, key, plain):
    common, git_dir = tmp_path / "common", tmp_path / "own"
    for file in (common / "config", git_dir / "config.worktree"):
        file.parent.mkdir()
        sh(tmp_path, "git", "config", "--file", str(file), key, "x")
        assert ours().odd_settings(str(git_dir), str(common)) == ([] if plain else [key])
        file.unlink()


def test_the_same_configuration_is_judged_once_and_another_anew(tmp_path):
    git, started = ours(), []
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config").write_text("[core]\n\tbare = true\n")
    with auditing(lambda event, args: event == "subprocess.Popen" and started.append(args)):
        assert [git.odd_settings(str(tmp_path / name), str(tmp_path / name)) for name in "abc"] == [[]] * 3
        assert len(started) == 1
        (tmp_path / "b" / "config").write_text("[core]\n\tsshCommand = x\n")
        assert git.odd_settings(str(tmp_path / "b"), str(tmp_path / "b")) == ["core.sshcommand"]
    assert len(started) == 2


def test_a_configuration_is_judged_wherever_a_link_leads_and_refused_where_it_cannot_be_read(tmp_path):
    config, elsewhere = tmp_path / "config", tmp_path / "elsewhere"
    odd = lambda: ours().odd_settings(str(tmp_path / "own"), str(tmp_path))
    elsewhere.write_text("[alias]\n\tx = !y\n")
    config.symlink_to(elsewhere)
    assert odd() == ["alias.x"]
    for make, why in ((lambda path: None, "No such file"), (os.mkfifo, "No ordinary file"),
                      (lambda path: pathlib.Path(path).write_bytes(b"\n" * (2 << 20)), "too large")):
        elsewhere.unlink()
        make(str(elsewhere))
        with pytest.raises(GitError, match=why) as caught:
            odd()
        assert "%s cannot be read" % config in str(caught.value)
        elsewhere.touch()
