"""What forks the supervisors of the tests: a process as small as that of a server, as no fork of pytest is.

A supervisor has the environment and the umask that its test had when it started the task.
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import codex_mcp_swarm as cms  # noqa: E402


class Forker(cms.Forker):

    def __init__(self):
        self.kept = tempfile.TemporaryDirectory()       # removed with its last reference
        self.line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            words = [sys.executable, "-I", "-S", __file__, str(its.fileno()), self.kept.name]
            self.process = subprocess.Popen(words, pass_fds=(its.fileno(),))        # ends when we do
        self.pid = self.process.pid

    def fork(self, task, fds):
        umask = os.umask(0o077)
        os.umask(umask)
        with open(kept_for(self.kept.name, task), "w") as f:
            json.dump([umask, dict(os.environ)], f)
        return super().fork(task, fds)


def kept_for(kept, task):
    return os.path.join(kept, os.path.basename(task))


def main(line, kept):
    def supervise(words):
        with open(kept_for(kept, words[0])) as f:
            umask, environment = json.load(f)
        os.umask(umask)
        os.environ.clear()
        os.environ.update(environment)
        return cms.supervisor_main(words)
    cms.Forker._serve(None, socket.socket(fileno=int(line)), supervise)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:
        print(traceback.format_exc(), file=sys.stderr, flush=True)      # of a supervisor into its log
        os._exit(1)
    os._exit(0)                     # as the other one: to take an interpreter apart takes its time
