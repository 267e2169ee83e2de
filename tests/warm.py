"""Servers and commands in the time of a fork, for the tests that are not about how they start.

Each process of the tests has one interpreter that has imported the program and does nothing but fork; `Warm`
stands for a process that came from it. That has the arguments, the environment, the directory and the
standard streams that it was given, nothing else of ours, and goes through `main` to the interpreter's own
end, like one that was started alone. What a fork would not show (the start itself, encodings, limits) is for
`subprocess`.
"""
import functools
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys

PIPE = subprocess.PIPE
TOLD = struct.Struct("i")           # by a keeper: the pid of its program, and later how that ended
GIVEN = struct.Struct("4i")         # to a keeper: where to tell, and the standard streams
PROGRAM = pathlib.Path(__file__).resolve().parents[1]


class Warm:
    """The program, run with `words`; each of `streams` is a file or PIPE. To be used as a Popen is."""

    def __init__(self, words, env, cwd, streams=(PIPE, PIPE, PIPE)):
        self.args, self.returncode = words, None
        self.keeper, its = socket.socketpair()
        pipes = [os.pipe() if stream == PIPE else () for stream in streams]
        theirs = [pipe[number > 0] if pipe else stream.fileno()
                  for number, (pipe, stream) in enumerate(zip(pipes, streams))]
        given = GIVEN.pack(its.fileno(), *theirs)
        forker().sendmsg([b"fork"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        its.close()
        for pipe, fd in zip(pipes, theirs):
            if pipe:
                os.close(fd)
        self.stdin, self.stdout, self.stderr = [
            os.fdopen(pipe[number == 0], "rb" if number else "wb", 0) if pipe else None
            for number, pipe in enumerate(pipes)]
        self.keeper.sendall(json.dumps([list(words), dict(env), str(cwd)]).encode() + b"\n")
        self.pid = self.told()

    def told(self):
        return TOLD.unpack(self.keeper.recv(TOLD.size))[0]

    def poll(self):
        if self.returncode is None and select.select([self.keeper], [], [], 0)[0]:
            self.returncode = self.told()
            self.keeper.close()
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self.keeper], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.lru_cache(maxsize=None)
def forker():
    """The line to what forks for this process, and ends with it."""
    line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        subprocess.Popen([sys.executable, "-I", __file__], stdin=its, start_new_session=True)
    return line


def fork_what_is_asked_for(line):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)           # nobody waits for a keeper
    while True:
        asked, passed, _, _ = line.recvmsg(16, socket.CMSG_LEN(GIVEN.size))
        if not asked:
            return
        fds = GIVEN.unpack(passed[0][2])
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            keep(*fds)
        for fd in fds:
            os.close(fd)


def keep(tell, *streams):
    """Start the program and tell how it ended; in the program, become it."""
    pid = os.fork()
    if pid == 0:
        become_the_program(tell, streams)
    try:
        for fd in streams:
            os.close(fd)
        os.write(tell, TOLD.pack(pid))
        status = os.waitpid(pid, 0)[1]
        os.write(tell, TOLD.pack(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)))
    finally:
        os._exit(0)


def become_the_program(tell, streams):
    with open(tell, "rb") as asked:
        words, env, cwd = json.loads(asked.readline().decode())
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["-c", *words]
    codex_mcp_swarm.main()


if __name__ == "__main__":
    sys.path.insert(0, str(PROGRAM))
    import codex_mcp_swarm
    fork_what_is_asked_for(socket.socket(fileno=os.dup(0)))
