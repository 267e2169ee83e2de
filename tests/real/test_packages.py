"""What installs with one click, given to the real programs: the plugin, the bundle, and the way over HTTP."""

from __future__ import annotations

import contextlib
import fcntl
import json
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

import anyio
import pytest
from mcp import Client

from .conftest import CACHE, INSTALL_LIMIT_S, npm
from .harness import CHECKOUT, LIMIT_S, SERVER, until
from .test_clients import CLAUDE, CLAUDE_PACKAGE
from .test_sdk import TOOLS

BUNDLER_PACKAGE = "@anthropic-ai/mcpb@2.1.2"
PROXY_PACKAGE = "mcp-proxy==0.13.0"  # it needs the SDK 1.x, which cannot stand beside the one of these tests
PLUGIN = ".claude-plugin"


class Claude:
    """The real Claude Code with a home of its own."""

    def __init__(self, environment: Dict[str, str], cwd: Path) -> None:
        self.environment = {**environment, **CLAUDE}
        self.cwd = cwd

    def run(self, *words: str) -> str:
        done = subprocess.run([str(npm(CLAUDE_PACKAGE) / "claude"), *words], env=self.environment,
                              cwd=self.cwd, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, done
        return done.stdout

    def install(self, marketplace: Path, plugin: str) -> List[str]:
        """The lines about the servers that are there when the plugin is installed."""
        name = json.loads((marketplace / PLUGIN / "marketplace.json").read_text())["name"]
        self.run("plugin", "marketplace", "add", str(marketplace))
        self.run("plugin", "install", "%s@%s" % (plugin, name))
        return [line for line in self.run("mcp", "list").splitlines() if line.startswith("plugin:")]


@pytest.fixture
def claude(nothing_left, fake, repo):
    return Claude(fake, repo)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone of the project has, but for the tests: the checkout of a developer holds gigabytes
    more."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", ":!tests"],
                            cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    subprocess.run([str(CHECKOUT / "tests" / "bundle"), str(tmp_path / "dist")], check=True, timeout=LIMIT_S,
                   capture_output=True)
    [path] = (tmp_path / "dist").glob("*.mcpb")
    return path


def test_claude_code_finds_nothing_wrong_with_the_plugin_and_starts_its_server(claude, checkout):
    claude.run("plugin", "validate", "--strict", str(checkout))
    [shown] = claude.install(checkout, "codex-swarm")
    assert shown.startswith("plugin:codex-swarm:codex-swarm: python3 ") and shown.endswith("Connected")


def test_claude_code_starts_the_server_of_the_bundle(claude, bundle, tmp_path):
    place, plugin = tmp_path / "market", {"name": "bundled", "description": "A bundle in a plugin"}
    for directory, name, content in (
            (place, "marketplace.json",
             {"name": "market", "owner": {"name": "x"}, "plugins": [{**plugin, "source": "./p"}]}),
            (place / "p", "plugin.json",
             {**plugin, "version": "1.0.0", "mcpServers": "./%s" % bundle.name})):
        (directory / PLUGIN).mkdir(parents=True)
        (directory / PLUGIN / name).write_text(json.dumps(content))
    shutil.copy(bundle, place / "p")
    [shown] = claude.install(place, "bundled")
    assert shown.startswith("plugin:bundled:codex-mcp-swarm: python3 ") and shown.endswith("Connected")


def test_the_bundle_keeps_the_rules_of_its_format_and_the_same_content_gives_the_same_bytes(bundle, tmp_path):
    mcpb = str(npm(BUNDLER_PACKAGE) / "mcpb")
    subprocess.run([mcpb, "validate", str(CHECKOUT / ".mcp" / "manifest.json")], check=True, timeout=LIMIT_S,
                   capture_output=True)
    subprocess.run([mcpb, "unpack", str(bundle), str(tmp_path / "in")], check=True, timeout=LIMIT_S,
                   capture_output=True)
    assert (tmp_path / "in" / "codex_mcp_swarm.py").read_bytes() == SERVER.read_bytes()
    build = runpy.run_path(str(CHECKOUT / "tests" / "bundle"))["build"]
    assert build(tmp_path / "again").read_bytes() == bundle.read_bytes()


# -- over HTTP ---------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def proxy() -> Path:
    """The command `mcp-proxy`, in a virtual environment of its own, made once per machine."""
    place = CACHE / "pip" / PROXY_PACKAGE
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=INSTALL_LIMIT_S)
            subprocess.run([str(place / "bin" / "pip"), "install", "--quiet", PROXY_PACKAGE], check=True,
                           timeout=INSTALL_LIMIT_S)
            (place / "done").touch()
    return place / "bin" / "mcp-proxy"


def documented(proxy: Path, port: int) -> List[str]:
    """The command that the page of clients shows, with our paths and port."""
    text = (CHECKOUT / "docs" / "clients.md").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("mcp-proxy ")]
    words = {"mcp-proxy": str(proxy), "8931": str(port), "python3": sys.executable,
             "/path/to/codex_mcp_swarm.py": str(SERVER)}
    return [words.get(word, word) for word in line.split()]


@pytest.fixture
def url(nothing_left, proxy: Path, fake, repo, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "proxy.log").open("wb") as log:
        process = subprocess.Popen(documented(proxy, port), env=fake, cwd=repo, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log)
    yield "http://127.0.0.1:%d/mcp" % port
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LIMIT_S)
    process.kill()


@pytest.mark.anyio
async def test_over_http_through_the_proxy_of_the_page_a_client_gets_the_result_of_a_task(url, repo):
    port = int(url.split(":")[2].split("/")[0])
    await until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "the proxy listens")
    with anyio.fail_after(LIMIT_S):
        async with Client(url) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
            result = await client.call_tool("codex", {"prompt": "SAY over http", "cwd": str(repo)})
    assert result.structured_content["content"] == "over http"
