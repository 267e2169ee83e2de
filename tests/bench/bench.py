#!/usr/bin/env python3
"""Speed and memory of the server, beside its peer from PyPI and a bare baseline, in one run on one machine.

    python3 tests/bench/bench.py [NAME ...] [--runs N] [--without-peer]

Prints one table: medians, with (least to most) behind them. The sides take turns (A/B/A/B), so that the
machine's moods fall on all of them. It judges nothing and exits 0; a figure that misses its target is marked.
The first run installs what it needs under `.cache/bench/`: two virtual environments and the real codex from
npm.

Where do I add a figure? One function with a `@bench` line, returning Rows. `rig.py` holds the machinery.
"""
import argparse
import contextlib
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import rig  # noqa: E402
from model_server import ModelServer  # noqa: E402
from rig import Server, say, until  # noqa: E402

IDLE_WINDOW_S = 20  # over which CPU use is measured
SETTLE_S = 1  # between asking for something and measuring what it costs to leave it be
# ends of codex are spread over this, so that a server that polls is met in all phases of its interval
POLL_PHASE_S = 2
TASKS_IDLE = 100
TASKS_BATCH = 20
TASKS_PARALLEL = 16
TASKS_MEMORY = 8
TASKS_MANY = 100
TASKS_OLD, TASKS_FRESH = 10_000, 10


class Row(NamedTuple):
    figure: str
    unit: str
    samples: dict  # "ours", "peer" and "base" to a list of numbers; any may be absent
    target: str = ""
    met: Callable = lambda ours, peer, base: True  # of the medians; an absent one is infinite


BENCHES = {}  # name -> (function, how many times each side is measured unless --runs says otherwise)


def bench(name, runs):
    def register(function):
        BENCHES[name] = function, runs
        return function
    return register


def interleaved(runs, measures):
    """{name: function} -> {name: [its results]}, taking turns. One round more than asked goes first, to warm
    caches."""
    samples = {name: [] for name in measures}
    for number in range(runs + 1):
        for name, measure in measures.items():
            value = measure()
            if number:
                samples[name].append(value)
    return samples


def timed_ms(function, *args, **kwargs):
    began = time.perf_counter()
    function(*args, **kwargs)
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def one_server_each(sides, codex_dir, **env):
    """{side's name: its running server}"""
    with contextlib.ExitStack() as stack:
        yield {side.name: stack.enter_context(Server(side, codex_dir, **env)) for side in sides}


# ------------------------------------------------------------------------------------------------------
# Start

def start_ms(side, command=None):
    """From the start of the process to the answer of its first tools/list."""
    with Server(side, rig.fake_codex(), command) as server:  # entering it is the handshake
        server.answer(server.send("tools/list"))
        return (time.perf_counter() - server.began) * 1000


def python_ms(python):
    command = [python, "-c", "import json, subprocess, threading"]
    return timed_ms(subprocess.run, command, check=True, env=rig.environment(rig.fake_codex()))


@bench("start", runs=21)
def start(sides, runs):
    ours = sides[0]
    script = [ours.python, os.path.join(rig.CHECKOUT, "codex_mcp_swarm.py")]
    measures = {side.name: lambda side=side: start_ms(side) for side in sides}
    samples = interleaved(runs, {**measures, "base": lambda: python_ms(ours.python),
                                 "script": lambda: start_ms(ours, script)})
    as_script = {**samples, "ours": samples.pop("script")}
    return [Row("installed command to first tools/list", "ms", samples, "<= 1.5 x python, <= peer",
                lambda ours, peer, base: ours <= 1.5 * base and ours <= peer),
            Row("the file as a script to first tools/list", "ms", as_script)]


# ------------------------------------------------------------------------------------------------------
# Waiting

def end_to_answer_ms(server, first=""):
    """From the end of the codex process, as the kernel tells it, to the answer of the codex_wait that waits
    for it."""
    gate = os.path.join(server.scratch, "gate")
    task_id = server.start(f"{first}\nWAITFILE {gate}\nSAY done")
    codex, = until(server.codex_processes, "the task's codex")
    waiting = server.send_tool("codex_wait", task_ids=[task_id])
    server.answer(server.send("tools/list"))  # whoever answers this has taken the wait in
    time.sleep(random.uniform(0, POLL_PHASE_S))
    end = os.pidfd_open(codex.pid)
    open(gate, "w").close()
    at = {}
    while len(at) < 2:
        ready = select.select({end, server.process.stdout} - set(at), [], [], rig.ANSWER_S)[0]
        now = time.perf_counter()
        if not ready:
            raise TimeoutError(f"{server.side.name}: neither an end of codex nor an answer")
        if end in ready:
            at[end] = now
        if server.process.stdout in ready:
            server.read()
            if waiting in server.answers:
                at[server.process.stdout] = now
    server.answer(waiting)
    os.close(end)
    os.unlink(gate)
    return (at[server.process.stdout] - at[end]) * 1000


@bench("wait", runs=15)
def wait(sides, runs):
    with one_server_each(sides, rig.fake_codex()) as servers:
        short = interleaved(runs, {name: lambda server=server: end_to_answer_ms(server)
                                   for name, server in servers.items()})
        long, many = (interleaved(max(1, runs // 5), {
            name: lambda server=server: end_to_answer_ms(server, stream) for name, server in servers.items()})
            for stream in ("FLOOD 100", "LINES 200000"))
    return [Row("end of codex to answer of codex_wait", "ms", short, "<= 20",
                lambda ours, peer, base: ours <= 20),
            Row("... after 100 MB of events", "ms", long),
            Row("... after 200,000 events", "ms", many, "<= 500",
                lambda ours, peer, base: ours <= 500)]


def cpu_percent(servers, progress_token):
    """While one codex_wait per server waits: ({name: [% of a core of the server]}, {name: [that of its
    helpers]})"""
    requests = {}
    for name, server in servers.items():
        requests[name] = server.send_tool("codex_wait", progress_token, task_ids=server.started)
        server.answer(server.send("tools/list"))
    time.sleep(SETTLE_S)
    groups = {name: cpu_group(server) for name, server in servers.items()}
    before = {name: cpu_s(group) for name, group in groups.items()}
    time.sleep(IDLE_WINDOW_S)
    used = {name: [(then - now) / IDLE_WINDOW_S * 100 for now, then in zip(before[name], cpu_s(group))]
            for name, group in groups.items()}
    for name, server in servers.items():
        server.write(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": requests[name]}})
    return ({name: [own] for name, (own, _) in used.items()},
            {name: [rest] for name, (_, rest) in used.items()})


def cpu_group(server):
    """([the server], [what it put between itself and codex])"""
    group = [each for each in server.processes() if not each.is_codex]
    return ([each for each in group if each.pid == server.process.pid],
            [each for each in group if each.pid != server.process.pid])


def cpu_s(group):
    return [sum(process.cpu_s() for process in part) for part in group]


@bench("cpu", runs=1)
def cpu(sides, _runs):
    rows = []
    with one_server_each(sides, rig.fake_codex()) as servers:
        for server in servers.values():
            for _ in range(TASKS_IDLE // TASKS_BATCH):
                server.start_many(["SLEEP 3600"] * TASKS_BATCH)
            until(lambda: sum(map(bool, server.streams())) == TASKS_IDLE, "the first event of each task")
        for how, token in ("without progressToken", None), ("with progressToken", "bench"):
            own, rest = cpu_percent(servers, token)
            rows += [Row(f"server CPU, {TASKS_IDLE} tasks, a wait {how}", "% of a core", own, "< 0.5",
                         lambda ours, peer, base: ours < 0.5),
                     Row("... its helper processes together", "% of a core", rest)]
    return rows


# ------------------------------------------------------------------------------------------------------
# Requests

ECHO = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line); sys.stdout.buffer.flush()"
STATELESS = {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
             "io.modelcontextprotocol/clientCapabilities": {
                 "extensions": {"io.modelcontextprotocol/tasks": {}}}}
WAITS_BLOCKED = 50
REQUESTS_EACH = 20  # in one sample, so that one is not all scheduling


def round_trip_ms(server, method, **params):
    return timed_ms(
        lambda: [server.answer(server.send(method, **params)) for _ in range(REQUESTS_EACH)]) / REQUESTS_EACH


def echo_ms(process):
    """A round trip through pipes to a Python process that does nothing: what no server can be faster than."""
    def once():
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}\n')
        process.stdout.readline()
    return timed_ms(lambda: [once() for _ in range(REQUESTS_EACH)]) / REQUESTS_EACH


@bench("requests", runs=51)
def requests(sides, runs):
    with one_server_each(sides, rig.fake_codex()) as servers, \
            subprocess.Popen([sides[0].python, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             bufsize=0) as echo:
        try:
            ours = servers["ours"]
            base = {"base": lambda: echo_ms(echo)}
            ping = interleaved(runs, {"ours": lambda: round_trip_ms(ours, "ping"), **base})
            lists = interleaved(runs, {**{name: lambda server=server: round_trip_ms(server, "tools/list")
                                          for name, server in servers.items()}, **base})
            handle = ours.answer(ours.send("tools/call", name="codex", _meta=STATELESS,
                                           arguments={"prompt": "SLEEP 3600",
                                                      **ours.run_arguments()}))["taskId"]
            task_get = interleaved(runs,
                                   {"ours": lambda: round_trip_ms(
                                       ours, "tasks/get", taskId=handle, _meta=STATELESS), **base})
        finally:
            echo.stdin.close()
    quick = "< 1", lambda ours, peer, base: ours < 1
    return [Row("ping", "ms", ping, *quick), Row("tools/list", "ms", lists, *quick),
            Row("tasks/get of a running task", "ms", task_get, *quick)]


@bench("waits", runs=1000)
def waits(sides, runs):
    """What blocked calls cost others: codex_status without any and with many under way, in turns."""
    with contextlib.ExitStack() as stack:
        free, blocked = ({side.name: stack.enter_context(Server(side, rig.fake_codex())) for side in sides}
                         for _ in range(2))
        for server in (*free.values(), *blocked.values()):
            server.start("SLEEP 3600")
        for server in blocked.values():
            for _ in range(WAITS_BLOCKED):
                server.send_tool("codex_wait", task_ids=server.started)
            server.answer(server.send("tools/list"))
        alone = interleaved(runs,
                            {name: lambda server=server: status_ms(server) for name, server in free.items()})
        beside = interleaved(runs,
                             {name: lambda server=server: status_ms(server)
                              for name, server in blocked.items()})
    return [Row("codex_status", "ms", alone),
            Row(f"codex_status beside {WAITS_BLOCKED} blocked codex_wait", "ms", beside)]


# ------------------------------------------------------------------------------------------------------
# End

@bench("end", runs=11)
def end(sides, runs):
    hows = [("end of input", lambda process: process.stdin.close()),
            ("SIGTERM", lambda process: process.send_signal(signal.SIGTERM))]
    return [Row(f"{what} to the exit of a server with a blocked codex_wait", "ms",
                interleaved(runs, {side.name: lambda side=side: end_ms(side, how) for side in sides}),
                "<= 500", lambda ours, peer, base: ours <= 500) for what, how in hows]


def end_ms(side, how):
    with Server(side, rig.fake_codex()) as server:
        server.start("SLEEP 3600")
        server.send_tool("codex_wait", task_ids=server.started)
        server.answer(server.send("tools/list"))
        return timed_ms(lambda: (how(server.process), server.process.wait(rig.ANSWER_S)))


# ------------------------------------------------------------------------------------------------------
# Status of a long stream

@bench("status", runs=11)
def status(sides, runs):
    return [row for what, directive,
            size in STREAMS for row in status_rows(sides, runs, what, directive, size)]


STREAMS = [("1 MB of events", "FLOOD 1", 1e6), ("100 MB of events", "FLOOD 100", 100e6),
           ("200,000 small events", "LINES 200000", 10e6)]


def status_rows(sides, runs, what, directive, size_bytes):
    with one_server_each(sides, rig.fake_codex()) as servers:
        asks, first = {}, {}
        for name, server in servers.items():
            gate = os.path.join(server.scratch, "gate")
            server.start(f"{directive}\nWAITFILE {gate}")
            until(lambda: sum(server.streams()) >= size_bytes, what)
            until(lambda: unchanged(server.streams), "the end of the flood")
            first[name] = [status_ms(server)]
            # right after another one
            asks[name] = lambda server=server: (status_ms(server), status_ms(server))[1]
        again = interleaved(runs, asks)
        peak = {}
        for name, server in servers.items():
            open(os.path.join(server.scratch, "gate"), "w").close()
            server.wait()
            peak[name] = [rig.Process(server.process.pid).memory_mb("VmHWM")]
    return [Row(f"codex_status, {what}, first", "ms", first),
            Row(f"codex_status, {what}, again", "ms", again, "<= 5",
                lambda ours, peer, base: ours <= 5),
            Row(f"server's peak memory with {what}", "MiB", peak, "< 40",
                lambda ours, peer, base: ours < 40)]


def status_ms(server):
    return timed_ms(server.tool, "codex_status", task_ids=server.started)


def unchanged(reading):
    before = reading()
    time.sleep(0.2)
    return before == reading()


# ------------------------------------------------------------------------------------------------------
# Launch

@bench("launch", runs=15)
def launch(sides, runs):
    with one_server_each(sides, rig.fake_codex()) as servers:
        one = interleaved(runs,
                          {name: lambda server=server: launch_ms(server, 1)
                           for name, server in servers.items()})
        many = interleaved(max(1, runs // 3), {name: lambda server=server: launch_ms(server, TASKS_BATCH)
                                               for name, server in servers.items()})
    return [Row("codex_async to its answer", "ms", one, "<= 60", lambda ours, peer, base: ours <= 60),
            Row(f"{TASKS_BATCH} tasks to their ids", "ms", many)]


def launch_ms(server, count):
    if count == 1:
        taken = timed_ms(server.start, "SAY ok")
    else:
        taken = timed_ms(server.start_many, ["SAY ok"] * count)
    until(server.at_rest, "the end of the tasks")  # they shall not disturb what comes next
    return taken


# A codex that tells of its first instruction; FIRST is the FIFO that it tells it to.
TELLING = """#!/bin/sh
[ "$1" = --version ] || echo >>FIRST
exec sleep ${BENCH_SLEEP_S:-0}
"""


class Interpreters:
    """Our server without what forks its supervisors, so that each is an interpreter of its own."""

    def __new__(cls, side, codex_dir, **env):
        server = Server(side, codex_dir, **env)
        forker = until(server.forker, "what forks supervisors").pid
        until(lambda: os.getpgid(forker) == forker, "that it leads its group")
        os.killpg(forker, signal.SIGKILL)
        return server


@contextlib.contextmanager
def telling_servers(sides, **env):
    """(a descriptor that takes a byte from each codex that begins, its path, {name: running server})"""
    with tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch, contextlib.ExitStack() as stack:
        first, codex = os.path.join(scratch, "first"), os.path.join(scratch, "codex")
        os.mkfifo(first)
        with open(os.open(codex, os.O_WRONLY | os.O_CREAT, 0o700), "w") as file:
            file.write(TELLING.replace("FIRST", first))
        told = os.open(first, os.O_RDWR)
        stack.callback(os.close, told)
        kinds = {**{side.name: (Server, side) for side in sides}, "base": (Interpreters, sides[0])}
        yield told, codex, {name: stack.enter_context(kind(side, scratch, **env)) for name,
                            (kind, side) in kinds.items()}


def first_instruction_ms(told, count, ask):
    began = time.perf_counter()
    asked = ask()
    while count > 0:
        count -= len(os.read(told, count))
    return (time.perf_counter() - began) * 1000, asked


def request_ms(server, told):
    arguments = {"prompt": "x", **server.run_arguments()}
    taken, asked = first_instruction_ms(told, 1, lambda: server.send_tool("codex_async", **arguments))
    server.answer(asked)
    until(server.at_rest, "the end of the task")
    return taken


def program_ms(codex, told):
    taken, process = first_instruction_ms(told, 1, lambda: subprocess.Popen([codex]))
    process.wait()
    return taken


@bench("request", runs=21)
def request(sides, runs):
    """What stands between a request and Codex's first instruction, beside the same with an interpreter a
    supervisor."""
    with telling_servers(sides) as (told, codex, servers):
        samples = interleaved(runs, {"program": lambda: program_ms(codex, told), **{
            name: lambda server=server: request_ms(server, told) for name, server in servers.items()}})
    alone = samples.pop("program")
    beyond = {name: [taken - bare for taken, bare in zip(took, alone)] for name, took in samples.items()}
    return [Row("request to codex's first instruction, beyond the start of that program", "ms", beyond,
                "<= 12",
                lambda ours, peer, base: ours <= 12)]


@bench("many", runs=3)
def many(sides, runs):
    """TASKS_MANY at once, beside the same with an interpreter a supervisor."""
    took, memory = {}, {}
    for _ in range(runs):
        with telling_servers(sides[:1], BENCH_SLEEP_S="600") as (told, _codex, servers):
            for name, server in servers.items():
                tasks = [{"prompt": "x"}] * TASKS_MANY
                taken, asked = first_instruction_ms(told, TASKS_MANY, lambda: server.send_tool(
                    "codex_batch", wait=False, defaults=server.run_arguments(), tasks=tasks))
                server.answer(asked)
                time.sleep(SETTLE_S)
                each = [supervisor.memory_mb("Pss") for supervisor in server.supervisors()]
                took.setdefault(name, []).append(taken)
                memory.setdefault(name, []).append(statistics.median(each))
                until(server.kill_what_is_left, "the end of everything")
    return [Row(f"{TASKS_MANY} tasks, from the request to the first instruction of all", "ms", took,
                "<= 1500",
                lambda ours, peer, base: ours <= 1500),
            Row("... PSS of a supervisor", "MiB", memory, "<= 3", lambda ours, peer, base: ours <= 3)]


# ------------------------------------------------------------------------------------------------------
# An old task directory

def keep_old(server, count):
    """Fill a task directory with `count` ended tasks, copies of one with a thread each. (its id, its
    thread)"""
    tasks = os.path.join(server.env["CODEX_SWARM_TASK_DIR"], "tasks")
    first = server.start("SAY old")
    thread = server.wait()["structuredContent"]["tasks"][0]["threadId"]
    until(server.at_rest, "the end of the task")
    for number in range(1, count):
        task_id, its_thread = f"{number:012x}", f"{thread[:-12]}{number:012x}"
        copy = os.path.join(tasks, task_id)
        os.mkdir(copy, 0o700)
        for name in os.listdir(os.path.join(tasks, first)):
            source, target = os.path.join(tasks, first, name), os.path.join(copy, name)
            if name in ("spec.json", "report.json"):
                with open(source) as old, open(target, "w") as new:
                    new.write(old.read().replace(first, task_id).replace(thread, its_thread))
            elif name == "lock":
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o200))
            else:
                os.link(source, target)
        with open(os.path.join(tasks, "..", "threads", its_thread), "w") as index:
            index.write(task_id + "\n")
    return first, thread


def cpu_ms(server):
    """What its process has used so far. Source: clock_getcpuclockid(3) of Linux, which Python has not."""
    return time.clock_gettime(~server.process.pid << 3 | 2) * 1000


def cpu_of_ms(server, function):
    before = cpu_ms(server)
    function()
    return cpu_ms(server) - before


def status_cpu_ms(server, task, _thread):
    return cpu_of_ms(server, lambda: server.tool("codex_status", task_ids=[task]))


def reply_cpu_ms(server, _task, thread):
    words = {"prompt": "SAY ok", "threadId": thread}
    return cpu_of_ms(server, lambda: server.tool("codex_reply", **words, **server.run_arguments()))


def wait_cpu_ms(server, _task, _thread):
    gate = os.path.join(server.scratch, "gate")
    task_id = server.start(f"WAITFILE {gate}\nSAY done")
    until(server.codex_processes, "the task's codex")
    waiting = server.send_tool("codex_wait", task_ids=[task_id])
    server.answer(server.send("tools/list"))
    taken = cpu_of_ms(server, lambda: (open(gate, "w").close(), server.answer(waiting)))
    os.unlink(gate)
    return taken


@bench("old", runs=15)
def old(sides, runs):
    """What a task costs a server that keeps TASKS_OLD ended ones, beside TASKS_FRESH (bare)."""
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(tempfile.TemporaryDirectory(dir=rig.CACHE))
        servers = {name: stack.enter_context(Server(sides[0], rig.fake_codex(), FAKE_CODEX_HOME=threads))
                   for name in ("ours", "base")}
        many = {"ours": TASKS_OLD, "base": TASKS_FRESH}
        kept = {name: keep_old(server, many[name]) for name, server in servers.items()}
        costs = {"codex_status of one task": status_cpu_ms, "the answer of a codex_wait": wait_cpu_ms,
                 "a codex_reply": reply_cpu_ms}
        samples = {what: interleaved(runs, {
            name: lambda name=name, cost=cost: cost(servers[name], *kept[name]) for name in servers})
            for what, cost in costs.items()}
    return [Row(f"CPU of {what}, {TASKS_OLD:,} ended tasks kept (bare: {TASKS_FRESH})", "ms", each,
                "<= 2 x bare",
                lambda ours, peer, base: ours <= 2 * base) for what, each in samples.items()]


# ------------------------------------------------------------------------------------------------------
# The real codex

@contextlib.contextmanager
def real_codex():
    """(the model server, directory with the npm launcher, native binary, environment for both)"""
    launcher_dir, native = rig.npm_codex()
    home = os.path.join(rig.CACHE, "codex-home")
    os.makedirs(home, exist_ok=True)
    with ModelServer() as model:
        with open(os.path.join(home, "config.toml"), "w") as file:
            file.write(CODEX_CONFIG % model.url)
        yield model, launcher_dir, native, {"CODEX_HOME": home}


CODEX_CONFIG = """
model = "gpt-5.5"
model_provider = "bench"
analytics.enabled = false
features.plugins = false  # it would ask github.com at every start
[model_providers.bench]
name = "bench"
base_url = "%s"
wire_api = "responses"
requires_openai_auth = false
request_max_retries = 0
stream_max_retries = 0
"""


@bench("memory", runs=1)
def memory(sides, _runs):
    with real_codex() as (model, launcher_dir, _native, env):
        taken = {side.name: memory_of(side, model, launcher_dir, env) for side in sides}
    between = "supervisor, and npm launcher where it stays"

    def column(key):
        return {name: [figures[key]] for name, figures in taken.items()}

    return [Row(f"memory per task beyond codex's own: RSS of {between}", "MiB", column("rss"), "< 16, < peer",
                lambda ours, peer, base: ours < 16 and ours < peer),
            Row("... the same as PSS", "MiB", column("pss"), "< 16, < peer",
                lambda ours, peer, base: ours < 16 and ours < peer),
            Row("... PSS, with the server's own growth shared among the tasks", "MiB", column("all"))]


def memory_of(side, model, launcher_dir, env):
    gate = "memory-" + side.name
    with Server(side, launcher_dir, **env) as server:
        # the first task on a new task directory compiles what later ones find compiled
        server.start("@say ok")
        until(server.at_rest, "the end of the first task")
        idle = rig.Process(server.process.pid).memory_mb("Pss")
        server.start_many(["@hold " + gate] * TASKS_MEMORY)
        until(lambda: model.held(gate) == TASKS_MEMORY, "all tasks at the model")
        time.sleep(SETTLE_S)
        everything = {each.pid: each for each in server.processes()}
        server_process = everything.pop(server.process.pid)
        between = [each for each in everything.values() if not below_codex(each, everything)]
        rss, pss = (sum(each.memory_mb(field) for each in between) / TASKS_MEMORY for field in ("Rss", "Pss"))
        growth = (server_process.memory_mb("Pss") - idle) / TASKS_MEMORY
        say(f"{side.name}: {len(between)} processes between the server and {TASKS_MEMORY} native codex: "
            + ", ".join(sorted({" ".join(each.argv)[:60] for each in between})))
        model.release(gate)
    return {"rss": rss, "pss": pss, "all": pss + growth}


def below_codex(process, everything):
    """It is the native codex or was started by it."""
    while process:
        if process.is_codex and not process.is_node:
            return True
        process = everything.get(process.parent)
    return False


def bare_ms(native, env, count):
    """So many bare `codex exec --json` at once, from the first start to the last end."""
    command = [native, "exec", "--json", "-s", "read-only", "-"]
    began = time.perf_counter()
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL,
                                env=env, cwd=rig.git_repository()) for _ in range(count)]
    for process in running:
        process.stdin.write(b"@say ok")
        process.stdin.close()
    for process in running:
        process.stdout.read()
        if process.wait(rig.ANSWER_S):
            raise RuntimeError(f"bare codex ended with {process.returncode}")
    return (time.perf_counter() - began) * 1000


def parallel_through(server):
    if server.side.name == "ours":
        return server.tool("codex_batch", tasks=[{"prompt": "@say ok"}] * TASKS_PARALLEL,
                           defaults=server.run_arguments())
    del server.started[:]
    server.start_many(["@say ok"] * TASKS_PARALLEL)
    return server.wait()


@bench("real", runs=11)
def real(sides, runs):
    with real_codex() as (_model, launcher_dir, native,
                          env), one_server_each(sides, launcher_dir, **env) as servers:
        bare_env = rig.environment(launcher_dir, **env)
        one = interleaved(runs, {"base": lambda: bare_ms(native, bare_env, 1), **{
            name: lambda server=server: timed_ms(server.tool, "codex", prompt="@say ok",
                                                 **server.run_arguments())
            for name, server in servers.items()}})
        many = interleaved(max(1, runs // 3), {"base": lambda: bare_ms(native, bare_env, TASKS_PARALLEL), **{
            name: lambda server=server: timed_ms(parallel_through, server)
            for name, server in servers.items()}})
    return [Row("a trivial task of the real codex, end to end", "ms", one),
            Row(f"{TASKS_PARALLEL} of them in parallel", "ms", many)]


# ------------------------------------------------------------------------------------------------------
# Worktrees

FILES, FILES_PER_DIRECTORY, FILES_CHANGED = 50_000, 100, 100


def big_repository(path):
    """A repository of FILES small files in one commit."""
    for number in range(FILES):
        directory = os.path.join(path, f"{number // 2500}", f"{number // FILES_PER_DIRECTORY}")
        if number % FILES_PER_DIRECTORY == 0:
            os.makedirs(directory)
        with open(os.path.join(directory, f"file{number}"), "w") as f:
            f.write(f"{number}\n" * 20)
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "first"), ("gc", "-q")):
        plain_git(path, *words)


def plain_git(cwd, *words):
    subprocess.run(
        ("git", "-c", "gc.auto=0", "-c", "user.name=B", "-c", "user.email=b@example.invalid", *words),
        cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def change(path):
    """What a task does: FILES_CHANGED files edited, as many made."""
    for number in range(0, FILES, FILES // FILES_CHANGED):
        directory = os.path.join(path, f"{number // 2500}", f"{number // FILES_PER_DIRECTORY}")
        for name, mode in ((f"file{number}", "a"), ("new", "w")):
            with open(os.path.join(directory, name), mode) as f:
                f.write(os.urandom(20).hex() + "\n")


def worktree_ms(repository, make, save):
    """(to make a worktree, to commit what a task changed in it); removed again after that."""
    path = os.path.join(os.path.dirname(repository), os.urandom(6).hex())
    took = {}
    tree = timed(took, "make", make, path)
    change(path)
    timed(took, "save", save, tree or path)
    plain_git(repository, "worktree", "remove", "--force", "--force", path)
    return took["make"], took["save"]


def timed(took, name, function, *args):
    began = time.perf_counter()
    value = function(*args)
    took[name] = (time.perf_counter() - began) * 1000
    return value


@bench("worktree", runs=7)
def worktree(_sides, runs):
    sys.path.insert(0, rig.CHECKOUT)
    import codex_mcp_swarm as cms
    with tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch:
        repository = os.path.join(scratch, "repository")
        big_repository(repository)
        git = cms.Git(cms.Host(), {**os.environ, "GIT_AUTHOR_NAME": "B"})
        name = os.path.basename
        at = git.around(repository)
        make = lambda path: cms.Trees(git).add(at.cwd, at.base_commit(), path, "swarm/" + name(path))
        samples = interleaved(runs, {
            "ours": lambda: worktree_ms(repository, make, lambda tree: cms.Snapshot(git, tree).take("x")),
            "base": lambda: worktree_ms(repository,
                                        lambda path: plain_git(
                                            repository, "worktree", "add", "-q", "-b", name(path), path),
                                        lambda path: (plain_git(path, "add", "-A"),
                                                      plain_git(path, "commit", "-q", "-m", "x")))})
    each = lambda index: {side: [both[index] for both in pairs] for side, pairs in samples.items()}
    met = lambda ours, peer, base: ours <= 1.2 * base
    return [Row(f"a worktree of {FILES:,} files (bare: git worktree add)", "ms", each(0), "<= 1.2 x git",
                met),
            Row(f"the snapshot of {2 * FILES_CHANGED} changes there (bare: git add -A, git commit)", "ms",
                each(1), "<= 1.2 x git", met)]


# ------------------------------------------------------------------------------------------------------
# Merges

CLEAN, FOES = 10, 50        # branches that touch a file of their own, and that all touch one line


def branches(server, repository, prompts):
    """The ids of tasks that have done this in worktrees of their own."""
    run = {"worktree": True, "cwd": repository, "sandbox": "workspace-write"}
    return server.side.started_ids(server.tool("codex_batch", tasks=[{"prompt": each} for each in prompts],
                                               defaults=run))


def merged_by_git_ms(repository, ids):
    """git's own merge of these branches, one after the other; nothing is left of it."""
    checkout = os.path.join(os.path.dirname(repository), os.urandom(6).hex())
    plain_git(repository, "worktree", "add", "-q", "--detach", checkout)
    try:
        return timed_ms(lambda: [plain_git(checkout, "merge", "-q", "--no-edit", "codex-swarm/" + task_id)
                                 for task_id in ids])
    finally:
        plain_git(repository, "worktree", "remove", "--force", checkout)


@bench("merge", runs=5)
def merge(sides, runs):
    sys.path.insert(0, rig.CHECKOUT)
    import codex_mcp_swarm as cms
    processes = []
    sys.addaudithook(lambda name, args: processes.append(args[1]) if name == "subprocess.Popen" else None)

    def merged(swarm, ids, **wish):
        """(processes, milliseconds)"""
        del processes[:]
        took = timed_ms(swarm.merge, ids, cms.Call(), cms.Wish(**wish))
        return len(processes), took

    with Server(sides[0], rig.fake_codex()) as server, tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch:
        repository = os.path.join(scratch, "repository")
        plain_git(scratch, "init", "-q", "-b", "main", repository)
        plain_git(repository, "commit", "-q", "--allow-empty", "-m", "first")
        clean = branches(server, repository, [f"SHELL echo 1 > file{number}" for number in range(CLEAN)])
        foes = branches(server, repository, [f"SHELL echo {number} > file" for number in range(FOES)])
        config = cms.Config(server.env["CODEX_SWARM_TASK_DIR"], server.env["CODEX_SWARM_WORKTREE_DIR"])
        swarm = cms.Swarm(config, cms.Host(), server.env)
        few, many = merged(swarm, clean[:2])[0], merged(swarm, clean)[0]
        samples = interleaved(runs, {"ours": lambda: merged(swarm, clean)[1],
                                     "base": lambda: merged_by_git_ms(repository, clean)})
        among_foes, took = merged(swarm, foes, dry_run=True)
    each = (many - few) / (CLEAN - 2)
    return [Row("git processes of a merge, each clean branch", "processes", {"ours": [each]}, "<= 6",
                lambda ours, peer, base: ours <= 6),
            Row(f"a merge of {CLEAN} clean branches (bare: git merge of each)", "ms", samples),
            Row(f"git processes to tell {FOES} branches apart that change one line", "processes",
                {"ours": [among_foes]}, "<= 500", lambda ours, peer, base: ours <= 500),
            Row("the same", "ms", {"ours": [took]})]


# ------------------------------------------------------------------------------------------------------
# Many tasks and worktrees through the server

TREES, TREES_MANY, TASKS_BUSY = 20, 300, 300
EVENT = """echo '{"type":"%s"%s}'\n"""
MESSAGE = ',"item":{"id":"1","type":"agent_message","text":"x"}'
COMMAND = ',"item":{"id":"%d","type":"command_execution","command":"make"}'
QUICK = EVENT % ("turn.started", "") + EVENT % ("item.completed", MESSAGE) + EVENT % ("turn.completed", "")
BUSY = EVENT % ("turn.started", "") + "while sleep 4; do\n" + "sleep 1\n".join(
    EVENT % (f"item.{when}", COMMAND % 2) for when in ("started", "completed")) + "done\n"


def codex_that(scratch, script):
    with open(os.open(os.path.join(scratch, "codex"), os.O_WRONLY | os.O_CREAT, 0o700), "w") as file:
        file.write('#!/bin/sh\n[ "$1" = --version ] && exec echo codex-cli 0.169.0\n' + script)
    return scratch


def small_repository(scratch):
    plain_git(scratch, "clone", "-q", rig.git_repository(), "repository")
    return os.path.join(scratch, "repository")


def in_worktrees(server, repository, count):
    """A request that starts so many tasks with a worktree each."""
    run = {**server.run_arguments(), "cwd": repository, "worktree": True}
    return server.send_tool("codex_batch", wait=False, defaults=run, tasks=[{"prompt": "x"}] * count)


def trees_ms(server, told, repository, count):
    """(to the first codex, to the last one)"""
    first, asked = first_instruction_ms(told, 1, lambda: in_worktrees(server, repository, count))
    others, _ = first_instruction_ms(told, count - 1, lambda: None)
    server.answer(asked)
    until(server.at_rest, "the end of the tasks")
    return first, first + others


def add_trees(repository, count):
    for _ in range(count):
        name = os.urandom(6).hex()
        plain_git(repository, "worktree", "add", "-q", "-b", name, os.path.join(repository, "..", name))


@bench("trees", runs=5)
def trees(sides, runs):
    with telling_servers(sides[:1]) as (told, _codex, servers), \
            tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch:
        repository, ours = small_repository(scratch), servers["ours"]
        samples = interleaved(runs, {
            "ours": lambda: trees_ms(ours, told, repository, TREES),
            "one": lambda: trees_ms(ours, told, repository, 1)[0],
            "git": lambda: timed_ms(add_trees, repository, TREES)})
    first, last = ([both[i] for both in samples["ours"]] for i in (0, 1))
    return [Row(f"{TREES} worktrees, to the first codex (bare: of one alone)", "ms",
                {"ours": first, "base": samples["one"]}, "<= 8 x bare",
                lambda ours, peer, base: ours <= 8 * base),
            Row(f"... to the last codex (bare: {TREES} x git worktree add)", "ms",
                {"ours": last, "base": samples["git"]})]


@bench("hundreds", runs=1)
def hundreds(sides, runs):
    """Hundreds of tasks with a worktree each, beside git and codex one after the other."""
    with tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch:
        repository, codex_dir = small_repository(scratch), codex_that(scratch, QUICK)

        def ours():
            with Server(sides[0], codex_dir) as server:
                began = time.perf_counter()
                for asked in [in_worktrees(server, repository, TASKS_MANY)
                              for _ in range(TREES_MANY // TASKS_MANY)]:
                    server.started += sides[0].started_ids(server.answer(asked))
                server.wait()
                taken = (time.perf_counter() - began) * 1000
                peak.append(rig.Process(server.process.pid).memory_mb("VmHWM"))
            return taken

        def bare():
            for _ in range(TREES_MANY):
                add_trees(repository, 1)
                subprocess.run([os.path.join(codex_dir, "codex")], stdout=subprocess.DEVNULL, check=True)

        peak = []
        samples = {"ours": [ours() for _ in range(runs)], "base": [timed_ms(bare) for _ in range(runs)]}
    return [Row(f"{TREES_MANY} tasks in worktrees, to the last result (bare: git, codex, in turn)", "ms",
                samples),
            Row("... the server's peak memory", "MiB", {"ours": peak}, "< 40",
                lambda ours, peer, base: ours < 40)]


def cpu_while(server, act, window_s=IDLE_WINDOW_S):
    """% of a core that the server takes while `act` is done once a second."""
    before, end = cpu_ms(server), time.monotonic() + window_s
    while time.monotonic() < end:
        act()
        time.sleep(1)
    return (cpu_ms(server) - before) / 10 / window_s


@bench("busy", runs=1)
def busy(sides, _runs):
    """What waits cost a server whose tasks always tell something (bare: one wait)."""
    with tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch, \
            Server(sides[0], codex_that(scratch, BUSY)) as server:
        for _ in range(TASKS_BUSY // TASKS_MANY):
            server.start_many(["x"] * TASKS_MANY)
        until(lambda: sum(map(bool, server.streams())) == TASKS_BUSY, "the first event of each task")
        used = []
        for count in (1, WAITS_BLOCKED - 1):
            for number in range(count):
                server.send_tool("codex_wait", f"{count} {number}", task_ids=server.started[:256])
            server.answer(server.send("tools/list"))
            used.append(cpu_while(server, lambda: server.answer(server.send("ping"))))
    with Server(sides[0], rig.fake_codex()) as server:
        handle = server.answer(server.send("tools/call", name="codex_batch", _meta=STATELESS, arguments={
            "defaults": server.run_arguments(), "tasks": [{"prompt": "SLEEP 3600"}] * TASKS_MANY}))["taskId"]
        until(lambda: sum(map(bool, server.streams())) == TASKS_MANY, "the first event of each task")
        poll = lambda: server.answer(server.send("tasks/get", taskId=handle, _meta=STATELESS))
        poll()                                  # the first one reads the title of each task
        polled = cpu_while(server, poll)
    return [Row(f"server CPU, {WAITS_BLOCKED} waits with progress over {TASKS_BUSY} busy tasks (bare: 1)",
                "% of a core", {"ours": used[1:], "base": used[:1]}),
            Row(f"server CPU, a handle over {TASKS_MANY} tasks polled each second", "% of a core",
                {"ours": [polled]}, "< 0.5", lambda ours, peer, base: ours < 0.5)]


@bench("diff", runs=3)
def diff(sides, runs):
    """A page of a patch of 200 MB, beside git that makes it."""
    with tempfile.TemporaryDirectory(dir=rig.CACHE) as scratch, Server(sides[0], rig.fake_codex()) as server:
        repository = small_repository(scratch)
        arguments = {"cwd": repository, "sandbox": "workspace-write", "worktree": True}
        write = "SHELL for i in 1 2 3; do seq 8500000 > large$i; done"      # git takes no file of 100 MB
        record = server.tool("codex", prompt=write, **arguments)["structuredContent"]
        branch = record["worktree"]["branch"]
        ask = {"task_id": record["task_id"], "view": "patch", "max_chars": 1000}
        samples = interleaved(runs, {
            "ours": lambda: timed_ms(server.tool, "codex_diff", **ask),
            "base": lambda: timed_ms(plain_git, repository, "diff", f"HEAD...{branch}")})
        peak = rig.Process(server.process.pid).memory_mb("VmHWM")
    return [Row("a page of a patch of 200 MB (bare: git diff)", "ms", samples),
            Row("... the server's peak memory", "MiB", {"ours": [peak]}, "< 60",
                lambda ours, peer, base: ours < 60)]


# ------------------------------------------------------------------------------------------------------
# The table

def cell(samples):
    if not samples:
        return "-"
    if len(samples) == 1:
        return number(samples[0])
    return f"{number(statistics.median(samples))} ({number(min(samples))} to {number(max(samples))})"


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def line(row):
    middle = [statistics.median(row.samples.get(name) or [float("inf")]) for name in ("ours", "peer", "base")]
    verdict = "" if row.met(*middle) else " **MISSED**"
    return [f"{row.figure}, {row.unit}", row.target + verdict,
            *(cell(row.samples.get(name)) for name in ("ours", "peer", "base"))]


def table(rows):
    lines = [["figure", "target", "ours", "peer", "bare codex / python"], *map(line, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, each, widths)) + " |" for each in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--runs", type=int,
                        help="how many times each side is measured, where that is a choice")
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    sides = [rig.ours()] + ([] if options.without_peer else [rig.peer()])
    # so that the servers and their tasks are ended then, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows, load, failed = [], [], []
    for name in options.names or BENCHES:
        function, runs = BENCHES[name]
        load.append(f"{name} {os.getloadavg()[0]:.1f}")
        say(f"{name} ...")
        try:
            rows += function(sides, options.runs or runs)
        except (OSError, EOFError, RuntimeError, subprocess.SubprocessError) as error:
            failed.append(f"{name}: {error}")           # the others are measured all the same
    print(table(rows))
    print(f"\n{os.cpu_count()} cores, Python {sys.version.split()[0]}, "
          f"load average as each began: {', '.join(load)}")
    if failed:
        print("Could not be measured: " + "; ".join(failed))


if __name__ == "__main__":
    main()
