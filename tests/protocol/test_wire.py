"""The process at the other end of the pipe: nothing but MCP on stdout, a quiet end, and tasks that outlive
it."""
import os
import signal
import subprocess
import sys

import pytest

from client import alive, eventually
from conftest import SERVER, git, running, task_dirs

QUIET_ENDS = {
    "end of input": lambda c: c.close(),
    "SIGINT": lambda c: c.signal(signal.SIGINT),
    "SIGTERM": lambda c: c.signal(signal.SIGTERM),
    "SIGHUP": lambda c: c.signal(signal.SIGHUP),
}
each_end = pytest.mark.parametrize("end", sorted(QUIET_ENDS))


@each_end
def test_the_server_ends_quietly_while_calls_are_blocked_and_the_tasks_go_on(client, gate, end):
    c = client()
    task = c.begin(gate.wait, "SAY survived")
    blocked = [c.start_call("codex_wait", {"task_ids": [task]}),
               c.start_call("codex", {"prompt": gate.wait + "\nSAY too"})]
    other, = set(running(c, 2)) - {task}
    assert QUIET_ENDS[end](c) == 0
    assert c.stderr == ""
    assert not any("result" in m for id in blocked for m in c.responses_to(id))
    gate.open()
    assert [t["content"] for t in client().collect(task, other)] == ["survived", "too"]


@each_end
def test_an_idle_server_ends_quietly(server, end):
    c = server()
    c.ping()
    assert QUIET_ENDS[end](c) == 0
    assert c.stderr == ""


def test_end_of_input_before_any_message_is_a_quiet_end(server):
    c = server()
    assert c.close() == 0
    assert (c.log, c.stderr) == ([], "")


def test_requests_that_came_before_the_end_of_input_are_answered(client):
    c = client()
    ids = [c.start("ping") for _ in range(20)]
    assert c.close() == 0
    assert all(c.responses_to(id) for id in ids)


def test_a_message_may_come_in_pieces_and_several_in_one(client):
    c = client()
    one = b'{"jsonrpc":"2.0","id":"a","method":"ping"}\n{"jsonrpc":"2.0","id":"b","method":"ping"}\n'
    for cut in (7, 50, 60):
        since = len(c.log)
        c.send_raw(one[:cut])
        c.send_raw(one[cut:])
        assert c.result("a", since=since)["result"] == c.result("b", since=since)["result"] == {}


def test_a_client_that_stops_reading_gets_a_quiet_end(fake, repo):
    """stdout closed: EPIPE at the next answer. No traceback, whatever the exit code says."""
    p = subprocess.Popen([sys.executable, str(SERVER)], env=fake, cwd=str(repo), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    p.stdin.flush()
    assert p.stdout.readline()
    p.stdout.close()
    p.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
    p.stdin.flush()
    assert p.wait(60) == 0
    assert p.stderr.read() == b""
    p.stdin.close(), p.stderr.close()


@pytest.mark.parametrize("script", [
    "STDERR noise on stderr\nSHELL echo noise; echo more >&2\nFLOOD 2\nLINES 200\nSAY done",
    "SHELL printf 'a\\000b\\033[31m'\nSAY this\u2028is\u2029not\u0085yet\u001b[31m done",
    "SHELL head -c 1000 /dev/urandom\nSAY done",
])
def test_nothing_but_mcp_reaches_stdout_whatever_codex_prints(client, script):
    """The client checks every line; here codex does what it can to spoil them."""
    c = client()
    record = c.good(c.call("codex", {"prompt": script}, progress_token="p"))
    assert record["content"].endswith("done")
    c.ok("codex_status", task_ids=[record["task_id"]])
    c.request("resources/read", {"uri": "codex-swarm:///tasks/%s/events" % record["task_id"]})


# -- what outlives the server ------------------------------------------------------------------------
@pytest.mark.parametrize("tool", ["codex", "codex_async", "codex_batch"])
def test_a_server_killed_in_the_middle_loses_nothing(client, gate, tool):
    c = client()
    one = {"prompt": "RECONNECT 2\n" + gate.wait + "\nSAY all of it"}
    c.start_call(tool, {"tasks": [one, one]} if tool == "codex_batch" else one)
    count = 2 if tool == "codex_batch" else 1
    tasks = running(c, count)
    c.kill()
    gate.open()
    records = client().collect(*tasks)
    assert [t["outcome"] for t in records] == ["succeeded"] * count, records
    assert [(t["content"], t["usage"]["output_tokens"]) for t in records] == [("all of it", 20)] * count


def test_a_server_that_is_ended_in_haste_while_it_starts_tasks_leaves_none_half_made(client, root):
    """As Claude Code does it: the next signal does not wait for what the one before brings about."""
    c = client()
    c.start_call("codex_batch", {"tasks": [{"prompt": "SAY %d" % i} for i in range(20)]})
    eventually(lambda: task_dirs(root), what="the first task")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        c.process.send_signal(number)
    c.wait_exit()
    begun = [task.name for task in task_dirs(root)]
    assert {task["outcome"] for task in client().collect(*begun)} == {"succeeded"}


@pytest.mark.parametrize("lines, kind",
                         [("FAIL rate limit exceeded: slow down", "rate_limit"), ("CRASH 9", "killed")])
def test_a_failure_that_no_server_saw_is_reported_by_the_next_one(client, gate, lines, kind):
    c = client()
    task = c.begin(gate.wait, lines)
    running(c, 1)
    c.kill()
    gate.open()
    record = client().collect(task)[0]
    assert (record["outcome"], record["failure"]["kind"]) == ("failed", kind)


def test_two_servers_on_one_root_see_wait_for_and_stop_each_others_tasks(client, gate):
    one, two = client(), client()
    mine, yours = one.begin(gate.wait, "SAY mine"), one.begin(gate.wait, "SAY yours")
    assert {t["task_id"] for t in two.ok("codex_status")["tasks"]} == {mine, yours}
    waits = [(c, c.start_call("codex_wait", {"task_ids": [mine, yours]})) for c in (one, two)]
    two.ok("codex_cancel", task_ids=[yours])
    gate.open()
    for c, wait in waits:
        assert [t["outcome"] for t in c.good(c.tool_result(wait))["tasks"]] == ["succeeded", "cancelled"]


def test_starting_and_listing_writes_nothing(client, root):
    c = client()
    c.request("tools/list")
    c.request("resources/list")
    c.ok("codex_status")
    assert c.close() == 0
    assert not root.exists() or not task_dirs(root)


# finds the supervisor as the parent of codex's parent, and relies on PR_SET_PDEATHSIG
if sys.platform == "linux":
    def test_a_killed_supervisor_is_reported_as_lost_and_takes_codex_with_it(client, tmp_path):
        c = client()
        task = c.begin("SHELL echo $PPID > %s" % (tmp_path / "pid"), "SLEEP 1000")
        codex = int(
            eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
        with open("/proc/%d/stat" % codex) as f:
            supervisor = int(f.read().rpartition(")")[2].split()[1])
        waiting = c.start_call("codex_wait", {"task_ids": [task]})
        os.kill(supervisor, signal.SIGKILL)
        record = c.good(c.tool_result(waiting))["tasks"][0]
        assert (record["outcome"], record["failure"]["kind"]) == ("lost", "lost")
        eventually(lambda: not alive(codex), what="the end of codex")


def command_lines():
    """What `ps` would show of every process."""
    if not os.path.isdir("/proc/self"):
        return subprocess.run(["ps", "-ewwo", "args"], stdout=subprocess.PIPE,
                              check=True).stdout.decode("utf-8", "replace")
    shown = ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                shown += f.read().replace(b"\0", b" ").decode("utf-8", "replace") + "\n"
        except OSError:
            pass                                                # it ended while we looked
    return shown


# -- files -------------------------------------------------------------------------------------------
def test_only_the_owner_can_read_what_is_kept(client, root):
    c = client()
    c.ok("codex", prompt="SAY secret")
    folders = [root, root / "tasks"] + task_dirs(root)
    assert [oct(f.stat().st_mode & 0o777) for f in folders] == ["0o700"] * len(folders)


def test_the_prompt_is_in_no_command_line(client, tmp_path, gate):
    """`ps` shows argv to everyone on the machine."""
    c = client()
    task = c.begin("remarkable-secret", "SHELL touch %s" % (tmp_path / "on"), gate.wait)
    eventually((tmp_path / "on").exists)
    shown = command_lines()
    gate.open()
    c.collect(task)
    assert str(SERVER.parent) in shown
    assert "remarkable-secret" not in shown


def test_a_task_leaves_the_repository_as_codex_left_it(client, repo):
    client().ok("codex", prompt="WRITE new.txt text\nSAY done")
    assert git(repo, "status", "--porcelain").split() == ["??", "new.txt"]
