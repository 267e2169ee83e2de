"""Makes the program importable from a checkout, and gives the tests a Swarm whose codex is `fake_codex`."""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import codex_mcp_swarm as cms  # noqa: E402
from .forker import Forker  # noqa: E402
from .on_git import BRANCH, add, head_of  # noqa: E402
from .prepared import prepared  # noqa: E402


@pytest.fixture
def environment(fake, monkeypatch):
    """This process has the environment of a server: supervisors inherit it."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "CODEX", "FAKE_CODEX")):
            monkeypatch.delenv(name)
    for name, value in fake.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def forker():
    """One forks all supervisors of a process that runs tests, as that of a server does. None where they are
    interpreters of their own."""
    return Forker() if cms.LINUX else None


@pytest.fixture
def swarm(forker, environment, root, repo, fake, monkeypatch):
    """A factory: `swarm(**config)` is one more application on the same ROOT, as another server has it."""
    monkeypatch.chdir(repo)

    def make(**config):
        defaults = {"root": str(root), "worktree_dir": str(root / "worktrees"),
                    "codex_bin": fake["CODEX_SWARM_CODEX_BIN"],
                    "codex_home": os.path.join(fake["HOME"], ".codex")}
        host = cms.Host()
        host.forker = forker
        return cms.Swarm(cms.Config(**dict(defaults, **config)), host, os.environ)
    return make


@pytest.fixture
def tasks(tmp_path):
    """The directory that holds the tasks of a store, for tests that need no supervisor."""
    store = cms.Store(str(tmp_path / "store"))
    store.prepare()
    return store


@pytest.fixture
def tree(repo, tmp_path):
    """A worktree made from `repo`."""
    def make():
        top, base = head_of(str(repo))
        return add(top, base, str(tmp_path / "tree"), BRANCH)
    return prepared(tmp_path, "tree", make)


@pytest.fixture
def impatient(monkeypatch):
    """git waits 0.1 s for a lock that nobody will give back, and not 10."""
    settings = tuple(word.replace("=10000", "=100") for word in cms.GIT_SETTINGS)
    monkeypatch.setattr(cms, "GIT_SETTINGS", settings)
