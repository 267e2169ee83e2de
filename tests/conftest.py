"""Fixtures of all tests: a ROOT for tasks, a repository, the stand-in for codex, and servers to talk to.

After every test no task of its ROOT runs any more: what it leaves running is stopped as a server stops it.
"""
import contextlib
import fcntl
import functools
import gc
import hashlib
import itertools
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time

import pytest

import codex_mcp_swarm
import fake_codex
from client import Client, NEWEST_LEGACY, WAIT_S, envelope, eventually
from warm import Warm
from client import alive  # noqa: F401  (for tests that import it from here)

Client.returns = {name: tool.returns for name, tool in codex_mcp_swarm.TOOLS.items()}
HERE = pathlib.Path(__file__).resolve().parent
SERVER = HERE.parent / "codex_mcp_swarm.py"
FAKE_CODEX = HERE / "fake_codex"
GIT = shutil.which("git")
# What a hook or `git rebase --exec` says of its repository is not meant for those of the tests.
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]
# As the installed command does it: a script is compiled anew at each start, an imported module is not.
START = ("import sys; sys.path.insert(0, sys.argv.pop(1)); "
         "import codex_mcp_swarm; codex_mcp_swarm.main()")


NUMBERS = itertools.count()
# Tests live in the system's temporary directory, which workspace-write may write: so that ROOT is out of a
# task's reach all the same.
NO_TMP = "[sandbox_workspace_write]\nexclude_slash_tmp = true\nexclude_tmpdir_env_var = true\n"


def pytest_collection_finish():
    """What there is now stays to the end: neither a collection nor a fork need touch it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(request, tmp_path_factory):
    """A new directory. pytest's own looks through all that were made before for the number of each; this one
    stays after every test, whatever `tmp_path_retention_policy` says."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    path = tmp_path_factory.getbasetemp() / ("%s%d" % (name, next(NUMBERS)))
    path.mkdir(0o700)
    return path


@pytest.fixture
def root(tmp_path):
    """CODEX_SWARM_TASK_DIR. Not created: that is the server's business."""
    root = tmp_path / "root"
    yield root
    stop_all_tasks(root)


@pytest.fixture
def repo(tmp_path):
    """A git repository with one commit and an identity of its own."""
    return new_repository(tmp_path / "repo")


@functools.lru_cache(maxsize=None)
def template():
    """What a repository with one commit consists of, made once in each process: to write it again costs less
    than five runs of git."""
    with tempfile.TemporaryDirectory() as directory:
        repo = pathlib.Path(directory, "repo")
        git(directory, "init", "-q", "-b", "main", "--template=", "repo")       # whose files no test needs
        (repo / ".git" / "info").mkdir()
        (repo / ".git" / "hooks").mkdir()
        git(repo, "config", "user.name", "Test")
        git(repo, "config", "user.email", "test@example.invalid")
        (repo / "README").write_text("a repository\n")
        git(repo, "add", "README")
        today = "%d +0000" % (time.time() // 86400 * 86400)         # in every process the same commit
        git(repo, "commit", "-q", "-m", "first", GIT_AUTHOR_DATE=today, GIT_COMMITTER_DATE=today)
        return read_tree(str(repo))


def new_repository(repo):
    write_tree(template(), str(repo))
    return repo


def read_tree(top):
    """All that is below `top`, for `write_tree`: of each its path, mode, time and content."""
    tree = []
    for folder, folders, names in os.walk(top):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for path in [folder, *(os.path.join(folder, name) for name in names + links)]:
            about, content = os.lstat(path), None
            if stat.S_ISLNK(about.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(about.st_mode):
                with open(path, "rb") as f:
                    content = f.read()
            tree.append((path[len(top):], about.st_mode, about.st_mtime_ns, content))
    return tree


def write_tree(tree, top, old=b"", new=b""):
    """Make what was read, with another path in the files. git finds the checkouts as it left them."""
    os.makedirs(top, exist_ok=True)
    for path, mode, mtime, content in tree:
        if stat.S_ISDIR(mode):
            with contextlib.suppress(FileExistsError):
                os.mkdir(top + path)
            os.chmod(top + path, stat.S_IMODE(mode))
        else:
            content = content.replace(old, new) if isinstance(content, bytes) else content
            write_file(top + path, mode, mtime, content)
    there = {path for path, *_ in tree}
    for path in there:
        if path.endswith("/index") and path[:-len("index")] + "HEAD" in there:
            restat(os.path.dirname(top + path))


def write_file(path, mode, mtime, content):
    with contextlib.suppress(FileNotFoundError):
        there = os.lstat(path)
        if (there.st_mode, there.st_mtime_ns) == (mode, mtime) and there.st_size == len(content or ""):
            return                      # written already, with what this one was made upon
        os.unlink(path)
    if content is None:
        os.mkfifo(path, stat.S_IMODE(mode))
    elif stat.S_ISLNK(mode):
        os.symlink(content, path)
    else:
        with open(path, "xb", 0) as f:
            f.write(content)
            os.fchmod(f.fileno(), stat.S_IMODE(mode))
            os.utime(f.fileno(), ns=(mtime, mtime))


def restat(git_dir):
    """Tell an index what is other about copies, as `git update-index --refresh` does: of each file the time
    of its making, the device and the inode (the format: gitformat-index(5), version 2 and 3)."""
    index, link = os.path.join(git_dir, "index"), os.path.join(git_dir, "gitdir")
    top = os.path.dirname(git_dir)
    if os.path.exists(link):            # of a linked worktree
        with open(link) as f:
            top = os.path.dirname(f.read().strip())
    about = os.stat(index)
    with open(index, "r+b") as f:
        data, at = bytearray(f.read()), 12
        for _ in range(int.from_bytes(data[8:12], "big")):
            name = at + (64 if data[at + 60] & 0x40 else 62)
            end = data.index(0, name)
            with contextlib.suppress(OSError):
                file = os.lstat(os.path.join(os.fsencode(top), bytes(data[name:end])))
                struct.pack_into(">2I", data, at, *divmod(file.st_ctime_ns, 10 ** 9))
                struct.pack_into(">2I", data, at + 16, file.st_dev & 0xffffffff, file.st_ino & 0xffffffff)
            at += (end - at) // 8 * 8 + 8
        data[-20:] = hashlib.sha1(data[:-20]).digest()
        f.seek(0)
        f.write(data)
    os.utime(index, ns=(about.st_atime_ns, about.st_mtime_ns))      # which tells git what it must compare


@pytest.fixture
def fake(tmp_path, root):
    """The environment of a server that runs `fake_codex`: nothing of the user's own settings, but the PATH.

    The interpreter of the tests comes first on PATH, so that `fake_codex` runs on it and starts fast.
    """
    return environment(tmp_path, root)


def command(*flags):
    """The command line of a server."""
    return [sys.executable, "-I", "-c", START, str(SERVER.parent), *flags]


def warm(words, env, cwd, streams=(subprocess.PIPE,) * 3):
    """A process that runs the program with these words: a fork, where that is safe."""
    if sys.platform.startswith("linux"):
        return Warm(words, env, cwd, streams)
    stdin, stdout, stderr = streams
    return subprocess.Popen(command(*words), env=env, cwd=str(cwd), stdin=stdin, stdout=stdout, stderr=stderr,
                            bufsize=0)


def finished(words, env, cwd, stdin=b""):
    """The process that ran the program with these words, with its output."""
    with contextlib.ExitStack() as files:
        streams = [files.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(stdin)
        streams[0].seek(0)
        process = warm(words, env, cwd, streams)
        try:
            process.wait(WAIT_S)
        finally:
            process.kill()
        for stream in streams:
            stream.seek(0)
        return subprocess.CompletedProcess(words, process.returncode, *(f.read() for f in streams[1:]))


def environment(tmp_path, root):
    home = tmp_path / "home"
    (home / ".codex").mkdir(parents=True)
    (home / ".codex" / "config.toml").write_text(NO_TMP)
    return {
        "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TMPDIR": str(tmp_path),
        "CODEX_SWARM_TASK_DIR": str(root),
        "CODEX_SWARM_CODEX_BIN": str(FAKE_CODEX),
        "FAKE_CODEX_HOME": str(tmp_path / "threads"),
    }


@pytest.fixture
def server(fake, repo):
    """A factory: `server(*flags, env={}, cwd=repo)` starts a server; a Client before its handshake."""
    started = []

    def start(*flags, env=None, cwd=None):
        client = Client(command(*flags), process=warm(flags, dict(fake, **(env or {})), cwd or repo))
        started.append(client)
        return client

    yield start
    for client in started:
        client.__exit__(None, None, None)
        assert "Traceback" not in client.stderr, client.stderr


@pytest.fixture
def client(server):
    """A factory: `client(*flags, version=..., name=..., env={}, cwd=repo)` also initialises the session."""
    def connect(*flags, version=NEWEST_LEGACY, name="test-client", **where):
        client = server(*flags, **where)
        client.initialize(version, name)
        return client
    return connect


@pytest.fixture
def modern(server):
    """A factory: `modern(*flags, tasks=False, name=..., env={}, cwd=repo)` speaks revision 2026-07-28."""
    def connect(*flags, tasks=False, name="test-client", **where):
        client = server(*flags, **where)
        client.envelope = envelope(tasks, name)
        return client
    return connect


class Gate:
    """A file that a fake run waits for: `gate.wait` is the line of the prompt, `gate.open()` lets it pass."""

    def __init__(self, path):
        self.path = path
        self.wait = "WAITFILE %s" % path

    def open(self):
        self.path.write_text("")


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "gate")


@pytest.fixture
def message():
    """`message(n)`: the text that `MESSAGE n` makes fake_codex answer."""
    return fake_codex.message


def git(repo, *args, **env):
    """Run git in `repo`; its output."""
    return told(GIT, "-C", str(repo), *args, **env)


def told(*words, **env):
    """What a program says, whose path is absolute: without that, or with a `cwd`, Python 3.8 copies itself
    to start it, which takes ten times as long."""
    done = subprocess.run(words, env=dict(os.environ, **env), close_fds=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    text = done.stdout.decode("utf-8", "surrogateescape")
    assert done.returncode == 0, text
    return text


def stop_all_tasks(root):
    """Stop what still runs below `root`, and wait until it is gone."""
    for place in (root / "queue").glob("*"):                        # nothing more begins
        place.unlink()
    for task in task_dirs(root):
        if is_supervised(task):
            try:
                os.rename(str(task / "reserve"), str(task / "stop"))
                with open(os.open(str(task / "control"), os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as control:
                    control.write(b"c")
            except OSError:
                continue                                        # it ended between the two looks
    for task in task_dirs(root):
        eventually(lambda: not is_supervised(task), what="the end of " + str(task))


def task_dirs(root):
    """The directories of the tasks that were started below `root`."""
    return sorted((root / "tasks").glob("[0-9a-f]*")) if (root / "tasks").is_dir() else []


def running(c, count):
    """The ids of exactly `count` tasks that have not ended, all running."""
    def look():
        tasks = [task for task in c.ok("codex_status")["tasks"] if task["state"] != "ended"]
        all_run = len(tasks) == count and all(t["state"] == "running" for t in tasks)
        return all_run and [t["task_id"] for t in tasks]
    return eventually(look, what="%d running tasks" % count)


def none_runs(c):
    """Whether every task has ended, as the server sees it."""
    return all(task["state"] == "ended" for task in c.ok("codex_status")["tasks"])


def is_supervised(task):
    """Whether the lock of a task directory is held, which is what makes a task alive."""
    try:
        fd = os.open(str(task / "lock"), os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False                                            # a test put something else there
    with open(fd, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
