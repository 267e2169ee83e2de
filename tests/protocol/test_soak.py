"""Many tasks over several servers, while servers, supervisors and codex are killed and tasks are cancelled at
random: every task comes to the end that it must come to, nothing is left running, nobody grows.

`tests/soak` passes it with 1,000 tasks, 200 of them at once in the queue; the suite with a few.
"""
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from typing import List, NamedTuple

import codex_mcp_swarm as cms

from client import Client, alive, eventually, text_of
from conftest import command

TASKS = int(os.environ.get("SOAK_TASKS", "48"))
AT_ONCE = int(os.environ.get("SOAK_AT_ONCE", "20"))
PARALLEL = 8
SERVERS = 3
MARK = cms.TASK_ENV.encode() + b"="
# A prompt, and how it ends when nobody disturbs it; one that does not end is for somebody to cancel.
PROMPTS = [("SAY {n}", "succeeded"), ("SLEEP 0.2\nSAY {n}", "succeeded"), ("LINES 300\nSAY {n}", "succeeded"),
           ("SHELL sleep 0.2\nSAY {n}", "succeeded"), ("STUBBORN\nSLEEP 0.3\nSAY {n}", "succeeded"),
           ("FAIL {n}", "failed"), ("EXIT 3", "failed"), ("CRASH 9", "failed"),
           ("SLEEP 1000", None), ("STUBBORN\nSHELL sleep 1000", None)]


class Process(NamedTuple):
    parent: int
    place: str                                  # its directory
    words: List[str]                            # of its command line
    marked: bool                                # a task has started it


def environ_of(pid):
    with open("/proc/%d/environ" % pid, "rb") as f:
        return f.read()


def text_of_file(pid, name):
    with open("/proc/%d/%s" % (pid, name), errors="replace") as f:
        return f.read()


class Soak:
    def __init__(self, fake, repo, root, seed):
        self.random, self.repo, self.root = random.Random(seed), str(repo), str(root)
        self.env = dict(fake, CODEX_SWARM_MAX_PARALLEL=str(PARALLEL))
        self.servers, self.killed = [], set()
        self.witness = self.serve()             # the one that nobody kills
        self.expected, self.ended = {}, {}      # task id -> its row of PROMPTS; its record
        self.disturbed = set()                  # tasks that were cancelled, or of which something was killed
        self.deeds = {"servers": 0, "supervisors": 0, "codex": 0, "cancelled": 0}
        self.turns = itertools.cycle(self.deeds)
        self.most = 0                           # codex processes that were seen at once

    # -- servers -------------------------------------------------------------------------------------
    def serve(self):
        client = Client(command(), env=self.env, cwd=self.repo)
        client.initialize()
        return client

    def ask(self, tool, **arguments):
        """What one of the servers answers; another one is asked where that is killed meanwhile."""
        while True:
            server = self.random.choice([self.witness, *self.servers])
            try:
                return server.call(tool, arguments)
            except (AssertionError, OSError):
                if server not in self.killed:
                    raise
                self.servers = [one for one in self.servers if one is not server] + [self.serve()]

    def kill_server(self):
        """At some moment of whatever it is asked next."""
        server = self.random.choice(self.servers)
        if server not in self.killed:
            self.killed.add(server)
            self.deeds["servers"] += 1
            threading.Timer(self.random.random() / 10, server.process.kill).start()

    # -- tasks ---------------------------------------------------------------------------------------
    def start(self, count):
        """So many tasks in one call; made again under its id where the server is killed over it."""
        rows = [self.random.choice(PROMPTS) for _ in range(count)]
        numbers = range(len(self.expected), len(self.expected) + count)
        prompts = [row[0].format(n="number %d" % number) for row, number in zip(rows, numbers)]
        result = self.ask("codex_batch", tasks=[{"prompt": prompt} for prompt in prompts], wait=False,
                          client_request_id="call %d" % numbers[0])
        said = text_of(result)
        if result["isError"]:                   # a part of them has begun
            assert "are there" in said and self.killed, said
            return
        for task_id, row, prompt in zip(result["structuredContent"]["task_ids"], rows, prompts):
            self.expected[task_id] = prompt, row[1]

    def known(self):
        """Every task that there is; of those that a killed server began nobody was told."""
        names = os.listdir(os.path.join(self.root, "tasks"))
        found = {name for name in names if re.fullmatch("[0-9a-f]{12}", name)}
        for task_id in found - set(self.expected):
            self.expected[task_id] = "", None
            self.disturbed.add(task_id)
        return found

    def running(self):
        return [task_id for task_id in self.expected if task_id not in self.ended]

    def cancel(self, task_ids):
        self.disturbed.update(task_ids)
        self.deeds["cancelled"] += len(task_ids)
        self.ask("codex_cancel", task_ids=task_ids)

    def collect(self, timeout_s):
        task_ids = self.running()
        found = self.ask("codex_wait", task_ids=task_ids, mode="any", timeout_s=timeout_s)
        assert not found["isError"], text_of(found)
        for record in found["structuredContent"]["tasks"]:
            if record["state"] == "ended":
                self.ended[record["task_id"]] = record
                self.judge(record)

    def judge(self, record):
        task_id, outcome = record["task_id"], record["outcome"]
        prompt, wanted = self.expected[task_id]
        if task_id in self.disturbed:
            assert outcome in ("cancelled", "lost", "failed", wanted), record
        else:
            assert outcome == wanted, (prompt, record)
        if outcome == "succeeded":
            assert record["content"] == prompt.split("SAY ")[1], record

    # -- processes -----------------------------------------------------------------------------------
    def processes(self):
        """pid -> what runs there, of all that the servers started."""
        found, ours = {}, ("CODEX_SWARM_TASK_DIR=" + self.root).encode()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                if ours in environ_of(pid).split(b"\0") and alive(pid):
                    parent = int(text_of_file(pid, "stat").rpartition(")")[2].split()[1])
                    words = text_of_file(pid, "cmdline").split("\0")
                    found[pid] = Process(parent, os.readlink("/proc/%d/cwd" % pid), words,
                                         MARK in environ_of(pid))
            except (OSError, IndexError):
                pass                            # it has ended
        return found

    def supervisors(self, table):
        return [pid for pid, one in table.items() if os.path.dirname(one.place) == self.root + "/tasks"]

    def codex(self, table):
        """Those that run codex exec, but for what they have forked."""
        runs = {pid for pid, one in table.items() if "exec" in one.words and "--json" in one.words}
        return [pid for pid in runs if table[pid].parent not in runs]

    def disturb(self):
        """One deed of whoever does not know what he does."""
        table = self.processes()
        deed = next(self.turns)
        self.most = max(self.most, len(self.codex(table)))
        if deed == "servers":
            return self.kill_server()
        if deed == "cancelled":
            return self.cancel(self.random.sample(self.running(), min(3, len(self.running()))))
        pids = self.supervisors(table) if deed == "supervisors" else self.codex(table)
        if pids:
            pid = self.random.choice(pids)
            supervisor = table.get(pid if deed == "supervisors" else table[pid].parent)
            self.disturbed.add(os.path.basename(supervisor.place) if supervisor else "")
            self.deeds[deed] += 1
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def at_rest(self):
        """Descriptors, threads and MiB of the server that nobody kills, once nothing is left of any task and
        it has no more threads than when it had done nothing."""
        pid, none = self.witness.process.pid, 5
        held = lambda name: int(re.search(r"(?m)^%s:\s+(\d+)" % name, text_of_file(pid, "status"))[1])
        eventually(lambda: self.witness.ok("codex_status") and not self.left(), what="the end of all")
        eventually(lambda: held("Threads") <= none, what="the end of the threads of the server")
        return len(os.listdir("/proc/%d/fd" % pid)), held("Threads"), held("VmRSS") // 1024

    def left(self):
        """What tasks have left running, their supervisors included."""
        table = self.processes()
        return [*self.supervisors(table), *(pid for pid in table if table[pid].marked)]

    def run(self, tasks, at_once):
        """Until so many tasks were started, and all have ended."""
        while len(self.expected) < tasks or self.running():
            missing = min(at_once - len(self.running()), tasks - len(self.expected))
            if missing > 0:
                self.start(min(missing, self.random.randrange(1, 9)))
                self.known()
            if self.random.random() < 0.7:
                self.disturb()
            endless = [task_id for task_id in self.running() if self.expected[task_id][1] is None]
            if endless and (len(self.expected) >= tasks or len(endless) > at_once // 2):
                self.cancel(endless[:5])
            self.collect(0.1 if missing > 0 else 1)


def test_no_task_is_lost_stuck_or_left_running_whatever_is_killed(fake, repo, root):
    began, soak = time.monotonic(), Soak(fake, repo, root, seed=TASKS)
    soak.servers = [soak.serve() for _ in range(SERVERS - 1)]
    try:
        soak.run(TASKS // 4, AT_ONCE)
        before = soak.at_rest()
        soak.run(TASKS, AT_ONCE)
        after = soak.at_rest()
        assert listed(soak.witness) == soak.known() == set(soak.ended)
        assert soak.most <= PARALLEL
    finally:
        for server in [soak.witness, *soak.servers]:
            if server.process.poll() is None:
                server.close()
    print("%d tasks in %.0f s, at most %d codex at once, killed or cancelled: %s\n"
          "descriptors, threads and MiB of a server: %s, then %s" % (
              len(soak.ended), time.monotonic() - began, soak.most, json.dumps(soak.deeds), before, after))
    grew = [now - then for now, then in zip(after, before)]
    assert grew[0] <= 4 and grew[1] <= 2 and grew[2] <= 8, (before, after)


def listed(client):
    """What somebody learns who reads on since the beginning: each task once."""
    found, cursor = [], "0"
    while True:
        page = client.ok("codex_status", finished_since=cursor)
        if not page["tasks"]:
            assert len(set(found)) == len(found)
            return set(found)
        found += [row["task_id"] for row in page["tasks"]]
        cursor = page["cursor"]
