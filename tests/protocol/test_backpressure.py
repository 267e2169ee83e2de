"""Pipes that are full, closed or set non-blocking by whoever holds the other end: the server serves, or ends
quietly, and no task suffers."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from client import Client, eventually
from conftest import command, running

MIB = 1 << 20
MAX_UNREAD_BYTES = 64 * MIB
INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize",
              "params": {"protocolVersion": "2025-11-25", "capabilities": {},
                         "clientInfo": {"name": "mute", "version": "1"}}}
FILL_STDERR = """
r, w = os.pipe()
os.set_blocking(w, False)
try:
    while True:
        os.write(w, b"x")
except BlockingIOError:
    os.set_blocking(w, True)
os.dup2(w, 2)
os.set_inheritable(r, True)     # open for as long as the server lives, and never read
"""


class Mute:
    """A client that writes and does not read. What it writes goes out on a thread, so that no server can hold
    up a test."""

    def __init__(self, env, cwd):
        self.process = subprocess.Popen(command(), env=env, cwd=str(cwd), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.send(INITIALIZE)

    def send(self, *messages):
        self.write(b"".join(json.dumps(m).encode() + b"\n" for m in messages)).join(60)

    def write(self, data):
        def work():
            try:
                self.process.stdin.write(data)
                self.process.stdin.flush()
            except OSError:
                pass                                            # the server has ended
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def call(self, tool, id=1, token=None, **arguments):
        meta = {} if token is None else {"_meta": {"progressToken": token}}
        self.send(
            {"jsonrpc": "2.0", "id": id, "method": "tools/call",
             "params": {"name": tool, "arguments": arguments, **meta}})

    def ask(self, mib):
        """Requests whose answers take that many MiB."""
        return self.write(
            b"".join(b'{"jsonrpc":"2.0","id":"%d%s","method":"ping"}\n' % (n, b"x" * MIB)
                     for n in range(mib)))

    def ended(self):
        """The exit code and stderr, once the process has ended."""
        code = self.process.wait(60)
        return code, self.process.stderr.read().decode()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except OSError:
                pass


@pytest.fixture
def mute(fake, repo):
    with Mute(fake, repo) as m:
        yield m


@pytest.fixture
def prepared(fake, repo):
    """A factory: a server whose process runs `code` before it becomes the server."""
    started = []

    def start(code, **env):
        code = "import os, sys\n%s\nos.execv(sys.argv[1], sys.argv[1:])" % code
        started.append(Client([sys.executable, "-c", code, *command()], env=dict(fake, **env), cwd=str(repo)))
        return started[-1]
    yield start
    for c in started:
        c.__exit__(None, None, None)


# -- stdout that is not read ---------------------------------------------------------------------------
def test_a_client_that_never_reads_is_given_up_at_the_bound_and_another_server_collects_its_tasks(
        mute, client, gate):
    mute.call("codex_async", prompt=gate.wait + "\nSAY survived")
    c = client()
    tasks = running(c, 1)
    mute.ask(2 * MAX_UNREAD_BYTES // MIB)
    code, stderr = mute.ended()
    assert code == 0 and "The client does not read" in stderr and len(stderr.splitlines()) == 1
    gate.open()
    assert c.collect(*tasks)[0]["content"] == "survived"


def test_a_client_that_does_not_read_for_a_while_is_served_and_then_gets_everything_in_order(
        mute, client, gate):
    mute.ask(8).join(60)
    mute.call("codex_async", id=2, prompt=gate.wait)
    tasks = running(client(), 1)
    answers = []
    reader = threading.Thread(
        target=lambda: answers.extend(json.loads(mute.process.stdout.readline()) for _ in range(10)),
        daemon=True)
    reader.start()
    reader.join(60)
    assert [str(m["id"]).rstrip("x") for m in answers] == ["0"] + [str(n) for n in range(8)] + ["2"]
    assert answers[-1]["result"]["structuredContent"]["task_id"] == tasks[0]
    gate.open()


ENDS = {"end of input": lambda p: p.stdin.close(), "SIGINT": lambda p: p.send_signal(signal.SIGINT),
        "SIGTERM": lambda p: p.send_signal(signal.SIGTERM)}
each_end = pytest.mark.parametrize("end", sorted(ENDS))


@each_end
def test_a_full_stdout_does_not_keep_the_server_from_ending_and_its_tasks_go_on(mute, client, gate, end):
    mute.ask(2).join(60)
    mute.call("codex", id=2, token="t", prompt=gate.wait + "\nSAY survived")
    c = client()
    tasks = running(c, 1)
    ENDS[end](mute.process)
    assert mute.ended() == (0, "")
    gate.open()
    assert c.collect(*tasks)[0]["content"] == "survived"


def test_a_stdout_closed_under_a_waiting_call_ends_the_server_at_its_next_word_and_the_task_goes_on(
        mute, client, tmp_path, gate):
    on = tmp_path / "on"
    mute.call("codex", token="t", prompt="WAITFILE %s\nSHELL true\n%s\nSAY survived" % (on, gate.wait))
    c = client()
    tasks = running(c, 1)
    mute.process.stdout.close()
    on.write_text("")
    assert mute.ended() == (0, "")
    gate.open()
    assert c.collect(*tasks)[0]["content"] == "survived"


# -- stderr that is not read ---------------------------------------------------------------------------
if sys.platform == "linux":     # finds the supervisor as the parent of codex's parent
    @each_end
    def test_a_full_stderr_blocks_neither_what_is_logged_nor_the_end(prepared, tmp_path, end):
        """Each task whose supervisor is killed is worth a line in the log."""
        c = prepared(FILL_STDERR, CODEX_SWARM_LOG_LEVEL="DEBUG")
        c.initialize()
        for n in range(2):
            pid = tmp_path / ("pid%d" % n)
            task = c.begin("SHELL echo $PPID > %s.new; mv %s.new %s; sleep 1000" % (pid, pid, pid))
            eventually(pid.exists, what="the pid of codex")
            with open("/proc/%d/stat" % int(pid.read_text())) as f:
                os.kill(int(f.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
            assert c.collect(task)[0]["outcome"] == "lost"
            assert c.status(task)["outcome"] == "lost"
        ENDS[end](c.process)
        assert c.wait_exit() == 0

    def test_a_stderr_that_is_read_gets_what_is_logged(client, tmp_path):
        c, pid = client(env={"CODEX_SWARM_LOG_LEVEL": "DEBUG"}), tmp_path / "pid"
        task = c.begin("SHELL echo $PPID > %s.new; mv %s.new %s; sleep 1000" % (pid, pid, pid))
        eventually(pid.exists, what="the pid of codex")
        with open("/proc/%d/stat" % int(pid.read_text())) as f:
            os.kill(int(f.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert c.collect(task)[0]["outcome"] == "lost"
        eventually(lambda: "INFO" in c.stderr and task in c.stderr and c.stderr.endswith("\n"),
                   what="the line in the log")


# -- descriptors in a strange state --------------------------------------------------------------------
def test_pipes_that_are_set_non_blocking_are_read_and_written_all_the_same(prepared):
    c = prepared("for fd in (0, 1, 2):\n    os.set_blocking(fd, False)")
    c.initialize()
    for n in range(5):
        id = "%d%s" % (n, "x" * MIB)
        assert c.result(c.start("ping", id=id))["result"] == {}
    assert c.close() == 0
    assert c.stderr == ""


def test_a_non_blocking_socket_for_both_ends_is_read_and_written_all_the_same(fake, repo):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        p = subprocess.Popen(command(), env=fake, cwd=str(repo), stdin=theirs, stdout=theirs,
                             stderr=subprocess.PIPE)
        theirs.close()
        ours.settimeout(30)
        try:
            with ours.makefile("rb") as lines:
                for n in range(5):
                    id = "%d%s" % (n, "x" * MIB)
                    ours.sendall(json.dumps({"jsonrpc": "2.0", "id": id, "method": "ping"}).encode() + b"\n")
                    assert json.loads(lines.readline())["id"] == id
                ours.shutdown(socket.SHUT_WR)
                assert p.wait(60) == 0
                assert p.stderr.read() == b""
        finally:
            p.kill()
            p.wait()
            p.stderr.close()


@pytest.mark.parametrize("closed", ["1", "2", "1, 2"])
@each_end
def test_a_server_started_without_stdout_or_stderr_works_until_its_end(prepared, client, gate, closed, end):
    c = prepared("for fd in (%s,):\n    os.close(fd)" % closed)
    c.send(INITIALIZE)
    c.send(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
         "params": {"name": "codex", "arguments": {"prompt": gate.wait + "\nSAY survived"}}})
    other = client()
    tasks = running(other, 1)
    ENDS[end](c.process)
    assert (c.wait_exit(), c.stderr) == (0, "")
    gate.open()
    assert other.collect(*tasks)[0]["content"] == "survived"


def test_a_server_started_without_stdin_ends_at_once(prepared):
    c = prepared("os.close(0)")
    assert (c.wait_exit(), c.log, c.stderr) == (0, [], "")
