"""What a task may do from inside Codex's sandbox to the tasks beside it: nothing."""

import os
import subprocess
import sys

import anyio
import pytest

from .harness import LIMIT_S, SERVER, until

pytestmark = pytest.mark.anyio

# Rings, floods and drains every FIFO, locks every file and directory that can be opened, and orders every
# task to stop, for ever.
# Not in worktrees: one in which somebody has a file open is not removed meanwhile.
ATTACK = """
import contextlib, fcntl, os, stat, sys
told, *tops = sys.argv[1:]
held = {}
while True:
    for at, names, files in (row for top in tops for row in os.walk(top)):
        names[:] = set(names) - {"worktrees"}
        with contextlib.suppress(OSError):
            os.close(os.open(os.path.join(at, "stop"), os.O_WRONLY | os.O_CREAT, 0o600))
        with contextlib.suppress(OSError):
            os.rename(os.path.join(at, "reserve"), os.path.join(at, "stop"))
        for path in (os.path.join(at, name) for name in (*names, *files, ".")):
            try:
                is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
            except OSError:                 # it has gone meanwhile, such as a place in the queue
                continue
            for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                if (path, mode) in held:
                    continue
                with contextlib.suppress(OSError):
                    fd = held[path, mode] = os.open(path, mode | os.O_NONBLOCK)
                    if not is_fifo:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_fifo:
                with contextlib.suppress(OSError):
                    while (path, os.O_WRONLY) in held:
                        os.write(held[path, os.O_WRONLY], b"c" * 4096)
                with contextlib.suppress(OSError):
                    while (path, os.O_RDONLY) in held and os.read(held[path, os.O_RDONLY], 65536):
                        pass
    if told:
        with open(told, "w") as f:
            f.write("in place")
        told = ""
"""


async def attack(lab, swarm, sandbox):
    """A task that attacks all others and the repository from its shell, once it has been through everything;
    its id."""
    (lab.directory / "attack.py").write_text(ATTACK)
    os.mkfifo(str(lab.directory / "told"))
    told = os.open(str(lab.directory / "told"), os.O_RDONLY | os.O_NONBLOCK)
    words = [sys.executable, "-S", lab.directory / "attack.py", lab.directory / "told", lab.root, lab.repo]
    task_id = await swarm.start("@shell exec " + " ".join(map(str, words)), sandbox=sandbox)

    def in_place():
        try:
            return os.read(told, 100)
        except BlockingIOError:
            return b""
    await until(in_place, "the attack is in place")
    os.close(told)
    return task_id


@pytest.mark.parametrize("sandbox", ["read-only", "workspace-write"])
async def test_no_sandboxed_task_stops_blocks_or_disguises_another_one(lab, sandbox):
    async with lab.connect() as swarm:
        old = (await swarm.call("codex", prompt="@say old", worktree=True))["task_id"]
        over = await swarm.call("codex", prompt="@say over")
        held, doomed = [await swarm.start("@hold gate\n@say done") for _ in range(2)]
        await until(lambda: lab.model.held("gate") == 2, "both wait for the model")
        attacker = await attack(lab, swarm, sandbox)

        running = [record["task_id"] for record in (await swarm.call("codex_status"))["tasks"]]
        assert running == [held, doomed, attacker]
        assert (await swarm.status(held))["state"] == "running"
        assert (await swarm.call("codex_reply", prompt="@say again",
                                 task_id=over["task_id"]))["content"] == "again"
        assert (await swarm.call("codex", prompt="@say new", worktree=True))["content"] == "new"
        assert (await swarm.cancel(doomed))["outcome"] == "cancelled"
        said = await swept(lab)
        assert not (lab.root / "worktrees" / old).exists(), said

        assert (await swarm.status(attacker))["state"] == "running"
        assert (await swarm.cancel(attacker))["outcome"] == "cancelled"
        lab.model.release("gate")
        [record] = await swarm.wait(held)
        assert (record["outcome"], record["content"]) == ("succeeded", "done")


async def swept(lab):
    """The sweep of a person's: it waits for its locks for as long as somebody else holds them."""
    command = [sys.executable, str(SERVER), "sweep"]
    with anyio.fail_after(LIMIT_S):
        done = await anyio.run_process(command, env={**lab.environment, "CODEX_SWARM_TASK_MAX_AGE": "0.001"},
                                       stderr=subprocess.STDOUT)
    return done.stdout.decode()
