"""Fixtures of the tests against the real Codex CLI. They fail, never skip, where codex cannot be had."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from client import eventually
from model_server import ModelServer

from .harness import CHECKOUT, Lab, processes_of, until

CACHE = CHECKOUT / ".cache"
CODEX_PACKAGE = "@openai/codex@0.169.0"
NODE_PACKAGE = "node@22.23.3"  # for packages that refuse the node of the machine as too old
INSTALL_LIMIT_S = 600


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def npm(package: str) -> Path:
    """The directory of the commands of an npm package, `name@version`, which is installed once per
    machine."""
    prefix = CACHE / "npm" / re.sub(r"[^\w.]+", "-", package).strip("-")
    prefix.mkdir(parents=True, exist_ok=True)
    with (prefix / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (prefix / "done").exists():
            install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(prefix), package]
            subprocess.run(install, check=True, timeout=INSTALL_LIMIT_S)
            (prefix / "done").touch()
    return prefix / "node_modules" / ".bin"


def program(*names: str) -> str:
    """The path of the first of these programs that is on PATH."""
    found = next(filter(None, map(shutil.which, names)), "")
    assert found, "%s is missing: `tests/packages %s` installs it, as root with apt-get" % (names[:1] * 2)
    return found


@pytest.fixture(scope="session")
def codex() -> Path:
    """The codex executable: CODEX_SWARM_TEST_CODEX, else the npm package, installed once per machine."""
    given = os.environ.get("CODEX_SWARM_TEST_CODEX")
    path = Path(given) if given else npm(CODEX_PACKAGE) / "codex"
    subprocess.run([str(path), "--version"], check=True, timeout=60)
    return path.absolute()


@pytest.fixture(scope="session")
def node() -> Path:
    """A node that every package here can run on."""
    path = npm(NODE_PACKAGE) / "node"
    subprocess.run([str(path), "--version"], check=True, timeout=60)
    return path


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory for the whole run. Not below /tmp, where codex trusts less and sandboxes write more."""
    CACHE.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="real-", dir=CACHE))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
async def lab(scratch: Path, codex: Path, model: ModelServer):
    """This test's world, which must be empty of processes when the test is over."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="lab-", dir=scratch)), codex, model)
    yield lab
    try:
        await until(lambda: not lab.living(), "no process of the test is left")
    finally:
        for process in lab.living():
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """When the test is over, no process that works below `tmp_path` may be left."""
    yield
    eventually(lambda: not processes_of(str(tmp_path)), what="the end of every process of the test")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port that refuses connections: bound, so that nobody else takes it, but never listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
