"""What the bench stands on: installs, MCP servers to be measured, readings from /proc.

Nothing here knows a figure. Linux and Python 3.9+ only: ends of processes come from pidfds, memory and CPU
from /proc. Everything is installed once under the checkout's `.cache/bench/`; every server runs on a scratch
directory of its own there, and that directory's path, present in the environment of all that the server
starts, is how its processes are found again: to read their memory, and to end them.
"""
import glob
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(CHECKOUT, ".cache", "bench")
PEER = "codex-mcp-swarm==1.11.1"
CODEX_NPM = "@openai/codex@0.169.0"
ANSWER_S = 120  # the longest that any answer or condition is waited for
# Anything that would make one run differ from another, or let a server find a codex that is not the bench's.
NOT_INHERITED = re.compile(r"PYTHON|CODEX|VIRTUAL_ENV|OPENAI")


def say(text):
    print(text, file=sys.stderr, flush=True)


def until(condition, what, timeout_s=ANSWER_S):
    """The first true value of condition(), asked every 5 ms. Raises: TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise TimeoutError(f"waited {timeout_s} s in vain for {what}")


# ------------------------------------------------------------------------------------------------------
# Installs

def install_once(name, stamp, commands):
    """Run commands to fill CACHE/name, unless that was done with the same stamp. Returns the directory."""
    directory = os.path.join(CACHE, name)
    mark = os.path.join(directory, "installed")
    if not os.path.exists(mark) or open(mark).read() != stamp:
        say(f"installing {name} ...")
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        for command in commands(directory):
            subprocess.run(command, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL, timeout=900,
                           cwd=CACHE)
        with open(mark, "w") as file:
            file.write(stamp)
    return directory


def venv_with(name, requirement, stamp):
    """A virtual environment that holds one package, installed as a user would: not editable, bytecode
    compiled."""
    return install_once(name, f"{sys.version} {stamp}", lambda directory: [
        [sys.executable, "-m", "venv", directory],
        [os.path.join(directory, "bin", "pip"), "install", "--quiet", requirement]])


def ours():
    sources = [os.path.join(CHECKOUT, name) for name in ("codex_mcp_swarm.py", "pyproject.toml")]
    digest = hashlib.sha256(b"".join(open(path, "rb").read() for path in sources)).hexdigest()
    return Side("ours", venv_with("ours", CHECKOUT, digest))


def peer():
    return Side("peer", venv_with("peer", PEER, PEER))


def npm_codex():
    """(directory with `codex`, the npm launcher; path of the native binary behind it)"""
    directory = install_once("npm", CODEX_NPM, lambda directory: [
        ["npm", "install", "--silent", "--prefix", directory, CODEX_NPM]])
    modules = os.path.join(directory, "node_modules")
    native, = glob.glob(os.path.join(modules, "@openai", "codex-*", "vendor", "*", "bin", "codex"))
    return os.path.join(modules, ".bin"), native


def fake_codex():
    """A directory with a `codex` that is tests/fake_codex, and with the `python3` that runs it.

    The latter because a `python3` on PATH may be a shell script (pyenv's is) that takes longer than what is
    measured.
    """
    return install_once("fake", sys.executable, lambda directory: [
        ["ln", "-s", os.path.join(CHECKOUT, "tests", "fake_codex"), os.path.join(directory, "codex")],
        ["ln", "-s", os.path.realpath(sys.executable), os.path.join(directory, "python3")]])


def environment(codex_dir, **more):
    """For a server or a bare codex. HOME is an empty one: codex starts a login shell in every run, and what
    that does in a developer's home (pyenv takes a lock and waits up to a minute for it) drowns everything
    else."""
    home = os.path.join(CACHE, "home")
    os.makedirs(home, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not NOT_INHERITED.match(key)}
    return {**kept, "HOME": home, "PATH": codex_dir + os.pathsep + os.environ["PATH"], **more}


def git_repository():
    directory = os.path.join(CACHE, "repository")
    if not os.path.isdir(os.path.join(directory, ".git")):
        subprocess.run(["git", "init", "--quiet", directory], check=True)
        subprocess.run(
            ["git", "-C", directory, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit",
                        "--quiet", "--allow-empty", "-m", "empty"], check=True)
    return directory


# ------------------------------------------------------------------------------------------------------
# The two servers under test

class Side:
    """One of the two servers, as installed. Holds all that differs between them in how they are asked."""

    def __init__(self, name, venv):
        self.name = name
        self.python = os.path.join(venv, "bin", "python")
        self.command = [os.path.join(venv, "bin", "codex-mcp-swarm")]

    def started_id(self, result):
        if self.name == "ours":
            return result["structuredContent"]["task_id"]
        return re.search(r"\btask ([0-9a-f]{6,})", result["content"][0]["text"]).group(1)

    def started_ids(self, result):
        content = result["structuredContent"]
        return content.get("task_ids") or [task["task_id"] for task in content["tasks"]]


class Server:
    """A running server and an MCP client for it, single-threaded, so that a time taken here is the server's
    own.

    A context manager; leaving it ends the server and everything that it started.
    """

    def __init__(self, side, codex_dir, command=None, **env):
        os.makedirs(os.path.join(CACHE, "run"), exist_ok=True)
        self.side = side
        self.scratch = tempfile.mkdtemp(prefix=side.name + "-", dir=os.path.join(CACHE, "run"))
        self.env = environment(codex_dir, CODEX_SWARM_TASK_DIR=os.path.join(self.scratch, "tasks"),
                               CODEX_SWARM_WORKTREE_DIR=os.path.join(self.scratch, "worktrees"),
                               CODEX_SWARM_LOG=os.path.join(self.scratch, "log"),
                               CODEX_SWARM_MAX_PARALLEL="0", **env)     # many at once are what is measured
        self.cwd = git_repository()
        self.answers, self.buffer, self.notifications, self.last_id = {}, b"", 0, 0
        self.started = []  # the ids of tasks, in order
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command or side.command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE,
                                        stderr=open(os.path.join(self.scratch, "stderr"), "wb"), bufsize=0,
                                        env=self.env, cwd=self.cwd)

    def __enter__(self):
        try:
            self.shake_hands()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()
        until(self.kill_what_is_left, f"the end of the processes of {self.scratch}", 20)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def kill_what_is_left(self):
        left = [each for each in self.processes() if not each.zombie]
        for each in left:
            try:
                os.kill(each.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left

    # The protocol

    def shake_hands(self):
        self.answer(self.send("initialize", protocolVersion="2025-06-18", capabilities={},
                              clientInfo={"name": "bench", "version": "0"}))
        self.write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def write(self, message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[self.process.stdin.write(data):]

    def send(self, method, **params):
        self.last_id += 1
        self.write({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        return self.last_id

    def read(self):
        """Take in what the server wrote; blocks when it wrote nothing."""
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            raise EOFError(f"the server of {self.scratch} is gone")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in filter(None, lines):
            message = json.loads(line)
            if "method" in message:
                self.notifications += 1
            else:
                self.answers[message["id"]] = message

    def answer(self, request_id):
        deadline = time.monotonic() + ANSWER_S
        while request_id not in self.answers:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{self.side.name}: no answer in {ANSWER_S} s; see {self.scratch}")
            self.read()
        message = self.answers.pop(request_id)
        if "error" in message or message["result"].get("isError"):
            raise RuntimeError(f"{self.side.name} answered {json.dumps(message)[:2000]}")
        return message["result"]

    def send_tool(self, name, progress_token=None, **arguments):
        meta = {"_meta": {"progressToken": progress_token}} if progress_token else {}
        return self.send("tools/call", name=name, arguments=arguments, **meta)

    def tool(self, name, **arguments):
        return self.answer(self.send_tool(name, **arguments))

    # Tasks

    def run_arguments(self):
        return {"cwd": self.cwd, "sandbox": "read-only"}

    def start(self, prompt):
        answer = self.tool("codex_async", prompt=prompt, **self.run_arguments())
        self.started.append(self.side.started_id(answer))
        return self.started[-1]

    def start_many(self, prompts):
        """A task per prompt, all started the quickest way that the server offers. Returns the ids."""
        if self.side.name == "peer":
            return [self.start(prompt) for prompt in prompts]
        answer = self.tool("codex_batch", wait=False, defaults=self.run_arguments(),
                           tasks=[{"prompt": prompt} for prompt in prompts])
        self.started += self.side.started_ids(answer)
        return self.started[-len(prompts):]

    def wait(self):
        """Until everything that was started here has ended."""
        return self.tool("codex_wait", task_ids=self.started)

    def streams(self):
        """Sizes of the event streams in the task directory, whatever they are called."""
        paths = (os.path.join(place, name) for place, _, names in os.walk(self.env["CODEX_SWARM_TASK_DIR"])
                 for name in names if name == "events.jsonl" or name.endswith(".stdout"))
        return [os.path.getsize(path) for path in paths]

    # Processes

    def processes(self):
        """Every process that the server started, and itself."""
        return processes_with(f"CODEX_SWARM_TASK_DIR={self.env['CODEX_SWARM_TASK_DIR']}".encode())

    def forker(self):
        """What forks its supervisors, where there is such a process."""
        return next((each for each in self.processes()
                     if each.parent == self.process.pid and each.argv == Process(self.process.pid).argv),
                    None)

    def at_rest(self):
        """Whether no process of a task is left."""
        own = Process(self.process.pid).argv
        return not self.supervisors() and all(each.argv == own for each in self.processes())

    def supervisors(self):
        return [each for each in self.processes() if each.cwd().startswith(self.env["CODEX_SWARM_TASK_DIR"])]

    def codex_processes(self):
        return [each for each in self.processes() if each.is_codex]


# ------------------------------------------------------------------------------------------------------
# /proc

class Process:
    def __init__(self, pid):
        self.pid = pid
        self.argv = read_proc(pid, "cmdline").rstrip(b"\0").decode(errors="replace").split("\0")
        fields = self.stat()
        self.zombie, self.parent = fields[0] == "Z", int(fields[1])

    def stat(self):
        return read_proc(self.pid, "stat").decode(errors="replace").rpartition(")")[2].split()

    @property
    def is_codex(self):
        """It runs `codex exec`: the native binary, the fake, or the npm launcher."""
        names = [os.path.basename(word) for word in self.argv[:3]]
        return "exec" in self.argv[1:4] and not {"codex", "codex.js"}.isdisjoint(names)

    @property
    def is_node(self):
        return os.path.basename(self.argv[0]) == "node"

    def cwd(self):
        try:
            return os.readlink(f"/proc/{self.pid}/cwd")
        except FileNotFoundError:
            return ""  # it ended while we looked

    def cpu_s(self):
        fields = self.stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, field):
        """MiB of a field of smaps_rollup (Rss, Pss) or of status (VmHWM)."""
        name = "status" if field.startswith("Vm") else "smaps_rollup"
        return int(
            re.search(rb"^%s:\s+(\d+) kB" % field.encode(), read_proc(self.pid, name), re.M).group(1)) / 1024


def read_proc(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def processes_with(variable):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if variable in read_proc(pid, "environ").split(b"\0"):
                found.append(Process(int(pid)))
        except (OSError, IndexError):
            pass  # it ended while we looked, or is not ours to read
    return found
