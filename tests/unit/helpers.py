"""What several unit tests need: the recordings, and a task run to its end."""
import contextlib
import errno
import functools
import os
import pathlib
import shutil
import sys

import codex_mcp_swarm as cms
from conftest import eventually, told

RECORDINGS = pathlib.Path(__file__).resolve().parents[1] / "recordings"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.jsonl"))
PS = shutil.which("ps")
WAIT_S = 60.0           # every wait ends; how soon on a busy machine proves nothing


def lines_of(name):
    return [line for line in (RECORDINGS / (name + ".jsonl")).read_bytes().split(b"\n") if line]


def stderr_of(name):
    return (RECORDINGS / (name + ".stderr")).read_text(encoding="utf-8", errors="replace")


def exit_of(name):
    return int((RECORDINGS / (name + ".exit")).read_text())


def folded(lines, progress=cms.Progress()):
    return functools.reduce(cms.fold, lines, progress)


def ended(swarm, ids):
    """The records of tasks that must all end."""
    swarm.wait(ids, WAIT_S, cms.Call())
    records = [swarm.record(task_id) for task_id in ids]
    assert [r["state"] for r in records] == ["ended"] * len(records), records
    return records


def run(swarm, *prompt, **arguments):
    """Run one task, whose prompt has these lines, to its end; its record. Arguments have `_` for `-`."""
    own = ("threadId", "task_id", "update_from", "fork", "interrupt")
    names = {name.replace("-", "_"): name for name in (*cms.RUN, *own)}
    request = {names[key]: value for key, value in arguments.items()}
    return ended(swarm, swarm.start([{"prompt": "\n".join(prompt), **request}]))[0]


def put_in(store, task, spec, now_s):
    """Let a task wait for its turn."""
    with store.queue.lock():
        return store.queue.put(task, spec, now_s)


def begin(swarm, *prompt, **arguments):
    """Start one task; its directory."""
    return swarm.store.get(swarm.start([{"prompt": "\n".join(prompt), **arguments}])[0])


def pid_of(task):
    """The pid of codex, once it runs; its task has left the queue by then."""
    return eventually(lambda: task.status().pid, what="the start of codex")


def parent_of(pid):
    return int(told(PS, "-o", "ppid=", "-p", str(pid)))


def processes():
    """(pid, parent, state) of everything that can be seen."""
    rows = told(PS, "-axo", "pid=,ppid=,stat=").splitlines()
    return [(int(pid), int(parent), state) for pid, parent, state in (row.split() for row in rows)]


LISTENERS = []          # an audit hook cannot be taken out again, so this one asks who listens
sys.addaudithook(lambda name, args: [listen(name, args) for listen in LISTENERS])


@contextlib.contextmanager
def auditing(listen):
    """While the block runs, `listen(name, args)` hears what this process asks of the system (PEP 578)."""
    LISTENERS.append(listen)
    try:
        yield
    finally:
        LISTENERS.remove(listen)


@contextlib.contextmanager
def exhausted(name):
    """No descriptor is left for whoever opens a file of this name, while the block runs."""
    def refuse(event, args):
        if event == "open" and os.path.basename(str(args[0])) == name:
            raise OSError(errno.EMFILE, "Too many open files", args[0])
    with auditing(refuse):
        yield
