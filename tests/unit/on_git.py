"""What the tests of worktrees share: git as a user runs it, git as the server runs it, and looks at both."""
import hashlib
import os
import pathlib
import socket

from conftest import git, told
from codex_mcp_swarm import Git, Host, Snapshot, Trees

BRANCH = "codex-swarm/0123456789ab"


def sh(cwd, *words, **env):
    """What a program says that runs in this directory."""
    if words[0] == "git":
        said = git(cwd, *words[1:], **env)
    else:
        said = told("/bin/sh", "-c", 'cd -P -- "$0" && exec "$@"', str(cwd), *words, **env)
    return said.rstrip("\n")


def ours(within_s=None, **more):
    """A Git as the server has it, with no identity and no configuration but the repository's."""
    nowhere = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}
    return Git(Host(), {"PATH": os.environ["PATH"], **nowhere, **more}, within_s)


def head_of(cwd, base="HEAD"):
    return source(ours(), cwd, base)


def source(git, cwd, base="HEAD"):
    """(top of the checkout, the commit that `base` names there), as git in this environment finds them."""
    at = git.around(str(cwd))
    return at.cwd, at.base_commit(base)


def add(*where):
    return Trees(ours()).add(*where)


def take(tree, message):
    """(the worktree after a snapshot, its warnings)."""
    return Snapshot(ours(), tree).take(message)


def asking(tmp_path):
    """A program that leaves `ran` and then waits for an answer for ever."""
    program = tmp_path / "asks"
    program.write_text("#!/bin/sh\necho \"$0 $*\" >>'%s'\nsleep 600\n" % (tmp_path / "ran"))
    program.chmod(0o755)
    return program


def snapshot(repo):
    """Everything that is the user's: each file with its digest, HEAD, the configuration and the index."""
    repo, files = pathlib.Path(repo), {}
    for path in sorted(repo.rglob("*")):
        name = path.relative_to(repo)
        if path.is_file() and ".git" not in name.parts:
            files[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    noted = [repo / ".git" / name for name in ("HEAD", "config", "index")]
    git = {path.name: path.read_bytes() for path in noted if path.exists()}
    return files, git


def counts(tree):
    return tree.files_changed, tree.insertions, tree.deletions


def save(tree, message="x"):
    """The snapshot, which has nothing to warn of."""
    found, warnings = take(tree, message)
    assert warnings == [], warnings
    return found


def log_of(repo, branch=BRANCH):
    return sh(repo, "git", "log", "--format=%s", branch).splitlines()


def files_of(repo, branch=BRANCH):
    return sh(repo, "git", "ls-tree", "-r", "--name-only", "-z", branch).strip("\0").split("\0")


def branches(repo):
    return sh(repo, "git", "for-each-ref", "--format=%(refname:short)").splitlines()


def put(top, **files):
    """Write files below `top`; in their names `__` stands for `/`, `_` for a dot."""
    for name, text in files.items():
        path = pathlib.Path(str(top), name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def commit(top, message="more"):
    """Commit everything; the commit."""
    sh(top, "git", "add", "-A")
    sh(top, "git", "commit", "-q", "-m", message)
    return sh(top, "git", "rev-parse", "HEAD")


def put_pipes_and_a_socket(top, monkeypatch):
    """One pipe is new, one takes the place of a tracked file.

    The name of a socket has to be short, hence the change of directory.
    """
    os.mkfifo(str(top / "pipe"))
    (top / "README").unlink()
    os.mkfifo(str(top / "README"))
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(top)
        listening.bind("socket")
