"""What the tests against the real Codex CLI stand on: a scratch world, the SDK client, processes.

A `Lab` is one test's world: a home, a CODEX_HOME, a git repository, a task directory and a model
server. A `Swarm` is one official MCP client on one server process of that world. No wait is without
a bound, and no test sleeps: it holds the model at a gate, or polls for a fact with `until`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, List, NamedTuple, Optional

import anyio
from conftest import command
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult
from model_server import ModelServer

CHECKOUT = Path(__file__).resolve().parents[2]
SERVER = CHECKOUT / "codex_mcp_swarm.py"
LIMIT_S = 180.0  # for one wait, of which ten seconds are many on a machine with nothing else to do

# Writes its process id and becomes the server, since the SDK client does not tell the id.
START = 'echo $$ > "$0" && exec "$@"'

CODEX_CONFIG = """
model = "gpt-5.5"
model_provider = "mock"
check_for_update_on_startup = false

[features]          # what would ask the network at every start
plugins = false
shell_snapshot = false

[analytics]
enabled = false

[sandbox_workspace_write]       # so that only the working directory is writable, wherever the checkout lies
exclude_slash_tmp = true
exclude_tmpdir_env_var = true

[model_providers.mock]
name = "mock"
base_url = "%s"
wire_api = "responses"
requires_openai_auth = false
request_max_retries = 0
stream_max_retries = 0
"""


async def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Poll `condition` (plain or async) until it is true, and return what it gave, at most a tenth of the
    wait late: a look at all processes costs as much as what is waited for."""
    value, began = None, anyio.current_time()
    with anyio.move_on_after(limit_s):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await anyio.sleep(min(0.2, max(0.02, (anyio.current_time() - began) / 10)))
    raise AssertionError("waited %d s in vain until %s; last seen: %r" % (limit_s, what, value))


class Process(NamedTuple):
    pid: int
    parent: int
    args: str
    environ: str  # empty where the system does not show it
    cwd: str = ""  # the same


def processes() -> List[Process]:
    """All living processes that this user may look at."""
    if not os.path.isdir("/proc/self"):
        listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True,
                                 text=True)
        rows = (line.split(None, 2) for line in listing.stdout.splitlines())
        return [Process(int(pid), int(parent), args, "") for pid, parent, args in rows]
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(_proc(pid, "stat").rpartition(")")[2].split()[1])
            cwd = os.readlink("/proc/%s/cwd" % pid)
            found.append(Process(int(pid), parent, _proc(pid, "cmdline"), _proc(pid, "environ"), cwd))
    return [process for process in found if process.args]  # a zombie has none


def _proc(pid: str, name: str) -> str:
    return Path("/proc", pid, name).read_text(errors="replace").replace("\0", " ").strip()


def processes_of(*texts: str) -> List[Process]:
    """The living processes with one of `texts` in their arguments or environment, ourselves excepted."""
    return [
        process
        for process in processes()
        if process.pid != os.getpid()
        and any(text in process.args or text in process.environ for text in texts)
    ]


class Lab:
    """One test's world below `directory`."""

    def __init__(self, directory: Path, codex: Path, model: ModelServer) -> None:
        self.directory = directory
        self.codex = codex
        self.model = model
        self.home = directory / "home"
        self.codex_home = directory / "codex_home"
        self.root = directory / "root"
        self.repo = directory / "repo"
        # seconds for `sleep` that name this test's sleepers
        self.nap = "1000.%09d" % secrets.randbelow(10**9)
        for path in (self.home, self.codex_home, self.repo):
            path.mkdir(parents=True)
        (self.codex_home / "config.toml").write_text(CODEX_CONFIG % model.url)
        (self.home / ".gitconfig").write_text("[user]\n\tname = Tester\n\temail = tester@example.invalid\n")
        self.git("init", "--quiet", "--initial-branch=main")
        (self.repo / "story.txt").write_text("once upon a time\n")
        (self.repo / "part").mkdir()
        (self.repo / "part" / "notes.txt").write_text("notes\n")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=first")

    @property
    def environment(self) -> Dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CODEX_HOME": str(self.codex_home),
            "CODEX_SWARM_TASK_DIR": str(self.root),
            "CODEX_SWARM_CODEX_BIN": str(self.codex),
        }

    def git(self, *args: str) -> str:
        """Run git in the repository as the user of this world would; its output."""
        done = subprocess.run(
            ["git", *args],
            cwd=self.repo,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, "git %s: %s" % (" ".join(args), done.stderr)
        return done.stdout

    def living(self) -> List[Process]:
        """Every process that works for this world."""
        return processes_of(str(self.directory), self.nap)

    def at_work(self) -> List[Process]:
        """Every process of a task, its supervisor by its words or where it works; no server, nor
        what it has forked for tasks to come."""
        return [process for process in self.living() if "codex_mcp_swarm" not in process.args
                or str(self.root) in process.args + process.cwd]

    def sleepers(self) -> List[Process]:
        """The living `sleep` commands that a task of this test started."""
        return [process for process in processes() if process.args == "sleep " + self.nap]

    @contextlib.asynccontextmanager
    async def connect(
        self, *flags: str, mode: Optional[str] = "legacy", env: Optional[Dict[str, str]] = None,
            **options: Any
    ) -> AsyncIterator[Swarm]:
        """A server of its own and the SDK client on it, with `options`; `mode=None` is the client's default
        mode."""
        pid_file = self.directory / ("server-%s.pid" % secrets.token_hex(4))
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", START, str(pid_file), *command(*flags)],
            env={**self.environment, **(env or {})},
            cwd=self.repo,
        )
        if mode is not None:
            options["mode"] = mode
        try:
            async with Client(parameters, read_timeout_seconds=LIMIT_S, **options) as client:
                # A client that is told the revision says nothing at first, so the server may not have begun.
                pid = await until(lambda: pid_file.exists() and pid_file.read_text(), "the server has begun")
                yield Swarm(client, int(pid))
        except Exception as error:
            raise only_cause(error) from None


def only_cause(error: Exception) -> Exception:
    """The one exception inside the groups that task groups wrap around it, so that a failure can be read."""
    while len(getattr(error, "exceptions", ())) == 1:
        error = error.exceptions[0]
    return error


class Swarm:
    """The official client on one server process."""

    def __init__(self, client: Client, pid: int) -> None:
        self.client = client
        self.pid = pid  # of the server

    async def result(self, tool: str, progress: Any = None, **arguments: Any) -> CallToolResult:
        """Call `tool`; underscores in the names of `arguments` stand as they are."""
        return await self.client.call_tool(tool, arguments, progress_callback=progress)

    async def call(self, tool: str, progress: Any = None, **arguments: Any) -> Dict[str, Any]:
        """The structured content of a call that succeeds."""
        result = await self.result(tool, progress, **arguments)
        assert not result.is_error, text_of(result)
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The text of a call that is answered with an error and nothing else."""
        result = await self.result(tool, **arguments)
        assert result.is_error, result.structured_content
        return text_of(result)

    async def failed(self, tool: str, **arguments: Any) -> Dict[str, Any]:
        """The record of a run that ended badly, as the blocking call shows it."""
        result = await self.result(tool, **arguments)
        assert result.is_error, result.structured_content
        failure = result.structured_content["failure"]
        assert failure["kind"] in text_of(result) and failure["message"] in text_of(result)
        return result.structured_content

    async def start(self, prompt: str, **arguments: Any) -> str:
        """Start a task in the background; its id."""
        return (await self.call("codex_async", prompt=prompt, **arguments))["task_id"]

    async def wait(self, *task_ids: str, **arguments: Any) -> List[Dict[str, Any]]:
        """Wait for all of them; their records, in the order asked for."""
        answer = await self.call("codex_wait", task_ids=list(task_ids), **arguments)
        assert answer["still_running"] == [], answer
        assert [record["task_id"] for record in answer["tasks"]] == list(task_ids)
        return answer["tasks"]

    async def status(self, task_id: str) -> Dict[str, Any]:
        [record] = (await self.call("codex_status", task_ids=[task_id]))["tasks"]
        return record

    async def cancel(self, task_id: str) -> Dict[str, Any]:
        [record] = (await self.call("codex_cancel", task_ids=[task_id]))["tasks"]
        return record

    async def read(self, uri: str) -> Any:
        """The JSON of a resource."""
        [content] = (await self.client.read_resource(uri)).contents
        return json.loads(content.text)


def text_of(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content)
