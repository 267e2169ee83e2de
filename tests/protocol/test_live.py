"""The live displays, as a person has them: typed in a shell with job control, read from a screen."""
import fcntl
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte
import pytest

from client import alive, eventually
from conftest import START, SERVER, is_supervised, task_dirs

WAIT_S = 60
PROMPT = "ready> "
WRAP, WHOLE = 7 << 5, 1049 << 5         # modes of a terminal, as pyte names them


class Screen(pyte.Screen):
    """pyte knows no other screen than one: here each comes up empty."""

    def set_mode(self, *modes, **how):
        super().set_mode(*modes, **how)
        self._change(modes)

    def reset_mode(self, *modes, **how):
        super().reset_mode(*modes, **how)
        self._change(modes)

    def _change(self, modes):
        if WHOLE >> 5 in modes:
            self.erase_in_display(2)
            self.cursor_position()


class Shell:
    """A shell in a terminal of its own; `screen` is what stands there, `raw` all that was ever sent to it."""

    def __init__(self, env, cwd, columns=80, lines=24):
        self.raw, self.screen = b"", Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.fd, theirs = os.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            [shutil.which("sh"), "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=str(cwd),
            env=dict(env, TERM="xterm-256color", PS1=PROMPT, PS2="", ENV="", LC_ALL="C.UTF-8"),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)
        self.until(lambda: self.text.rstrip().endswith(PROMPT.strip()), "a prompt")

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def type(self, text):
        os.write(self.fd, text.encode())

    def until(self, is_so, what):
        """Read until `is_so()`."""
        end = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < end, "not within %s s: %s\n%s" % (WAIT_S, what, self.text)
            if select.select([self.fd], [], [], 0.5)[0]:
                sent = os.read(self.fd, 1 << 16)
                self.raw += sent
                self.stream.feed(sent)

    def sees(self, *words):
        self.until(lambda: all(word in self.text for word in words), " and ".join(map(repr, words)))

    def run(self, *words):
        """Type a command of the program; its exit status is told once it has ended."""
        command = [sys.executable, "-I", "-c", START, str(SERVER.parent), *words]
        self.type(" ".join(map(shlex.quote, command)) + "; echo status=$?\n")

    def ends(self):
        """The exit status of what was typed."""
        self.until(lambda: re.search(r"status=\d+\s+%s" % PROMPT.strip(), self.text), "the end")
        return int(re.findall(r"status=(\d+)", self.text)[-1])

    def modes(self):
        return termios.tcgetattr(self.fd)

    def close(self):
        if self.process.poll() is None:
            os.close(self.fd)
            self.process.kill()
            self.process.wait()


@pytest.fixture
def shell(fake, repo):
    """A factory: `shell(env={}, **size)`."""
    started = []

    def start(env=(), **size):
        started.append(Shell(dict(fake, **dict(env)), repo, **size))
        return started[-1]
    yield start
    for shell in started:
        shell.close()


@pytest.fixture
def three(client, gate):
    """The ids of three tasks: two of two servers that wait for the gate, and one that has ended."""
    one, other = client(), client()
    done = one.ok("codex", prompt="Fix the crash\nSAY It was an index")["task_id"]
    runs = [c.ok("codex_async", prompt=prompt + "\n" + gate.wait)["task_id"] for c, prompt in
            ((one, "Write the parser\nTELL I read the grammar"), (other, "設定ファイルを書く 🎉\nTELL 第一章から"))]
    return [*runs, done]


def rows(shell):
    """(mark, beginning of the id) of each task on the screen."""
    return re.findall(r"^(\S) ([0-9a-f]{6}) ", shell.text, re.M)


def test_top_shows_what_runs_on_all_servers_then_what_ended_and_gives_the_terminal_back(shell, three):
    at = shell()
    before = at.modes()
    at.run("top")
    at.sees("2 running, 1 succeeded", "Write the parser", "I read the grammar", "It was an index")
    assert rows(at) == list(zip("●●✓", (task_id[:6] for task_id in three)))
    assert WHOLE in at.screen.mode and at.screen.cursor.hidden
    assert WRAP not in at.screen.mode and at.modes() != before
    at.type("q")
    assert at.ends() == 0
    assert WHOLE not in at.screen.mode and not at.screen.cursor.hidden and WRAP in at.screen.mode
    assert at.modes() == before
    assert b"\x1b[2J" not in at.raw


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_signal_gives_the_terminal_back(shell, name):
    at = shell()
    before = at.modes()
    at.run("top")
    at.sees("No task")
    number = getattr(signal, name)
    os.kill(os.tcgetpgrp(at.fd), number)
    assert at.ends() == (0 if name == "SIGINT" else 128 + number)
    assert at.modes() == before and WHOLE not in at.screen.mode and not at.screen.cursor.hidden


def test_an_error_gives_the_terminal_back_and_is_told(shell, root, three):
    at = shell()
    before = at.modes()
    at.run("top")
    at.sees("2 running")
    os.rename(str(root / "live"), str(root / "aside"))
    (root / "live").write_text("")
    try:
        assert at.ends() == 1
        assert at.modes() == before and WHOLE not in at.screen.mode and "codex-mcp-swarm: " in at.text
    finally:
        (root / "live").unlink()
        os.rename(str(root / "aside"), str(root / "live"))


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(shell, three):
    at = shell()
    before = at.modes()
    at.run("top")
    at.sees("2 running")
    at.type("\x1a")
    at.until(lambda: WHOLE not in at.screen.mode and at.text.rstrip().endswith(PROMPT.strip()), "a prompt")
    assert at.modes() == before and not at.screen.cursor.hidden
    at.type("fg\n")
    at.sees("2 running", "Write the parser", "q quit")
    assert WHOLE in at.screen.mode and at.modes() != before
    os.kill(os.tcgetpgrp(at.fd), signal.SIGSTOP)            # nobody can give it back before that
    at.until(lambda: at.text.count(PROMPT.strip()), "a prompt")
    at.screen.reset()
    at.type("stty sane; fg\n")
    at.sees("2 running", "Write the parser", "q quit")
    at.type("q")
    at.until(lambda: WHOLE not in at.screen.mode, "the end")
    eventually(lambda: at.modes() == before, what="the modes of before")


def test_a_terminal_that_is_closed_ends_the_display_and_no_task(shell, three, root):
    at = shell()
    at.run("top")
    at.sees("2 running")
    display = os.tcgetpgrp(at.fd)
    at.close()
    eventually(lambda: not alive(display), what="the end of the display")
    assert {task.name for task in task_dirs(root) if is_supervised(task)} == set(three[:2])


def test_it_fits_a_terminal_of_60_columns_and_follows_its_size(shell, three):
    at = shell(columns=60, lines=16)
    at.run("top")
    for columns, lines in ((60, 16), (100, 30), (40, 8), (80, 24)):
        at.resize(columns, lines)
        at.screen.reset()
        at.sees("2 running, 1 succeeded", "q quit" if columns > 50 else "Enter show")
        shown = at.text.split("\n")
        assert [mark for mark, _ in rows(at)] == ["●", "●", "✓"]
        assert shown[0].startswith("codex-mcp-swarm") and shown[lines - 1].startswith("Enter show")
        assert all(re.search(r"\d s\b|\d min$", line) for line in shown[1:4])


@pytest.mark.parametrize("words", [["--help"], ["help", "run"], ["help", "top"]])
def test_help_fits_the_terminal_and_breaks_no_word(shell, words):
    at = shell(columns=60, lines=200)
    at.run(*words)
    assert at.ends() == 0
    shown = at.text[at.text.index("usage: "):].split("\n")
    assert max(map(len, shown)) < 60
    assert "codex-mcp-swarm run" in at.text or "All tasks that have not ended" in at.text


def test_keys_show_follow_and_stop_a_task(shell, three, root):
    at = shell()
    at.run("top")
    at.sees("2 running")
    at.type("\r")
    at.sees("Task " + three[0], "last message: I read the grammar", "q back")
    at.type("qj")
    at.sees("2 running", "Enter show")
    at.type("f")
    at.sees("第一章から", "q back")
    at.type("qs")
    at.sees("Stop task %s?" % three[1])
    at.type("y")
    at.sees("1 running, 1 succeeded, 1 cancelled")
    alive = {task.name for task in task_dirs(root) if is_supervised(task)}
    assert alive == {three[0]}
    at.type("?")
    at.sees("Enter           show the task")
    at.type("qq")
    assert at.ends() == 0


def test_without_colours_there_are_none_and_between_looks_only_what_changes_is_written(shell, three):
    at = shell(env={"NO_COLOR": "1"})
    at.run("top")
    at.sees("2 running")
    seen = len(at.raw.split(b"\x1b[?2026h"))
    at.until(lambda: len(at.raw.split(b"\x1b[?2026h")) >= seen + 2, "two frames more")
    at.type("q")
    at.ends()
    assert not re.search(rb"\x1b\[[34]\d", at.raw)
    later = at.raw.split(b"\x1b[?2026h")[seen:]
    assert all(b"succeeded" not in frame and b"index" not in frame for frame in later), later


def test_top_without_a_terminal_names_what_to_use_instead(fake, repo):
    command = [sys.executable, "-I", "-c", START, str(SERVER.parent), "top"]
    done = subprocess.run(command, env=fake, cwd=str(repo), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"terminal" in done.stderr and b"`ls`" in done.stderr


def test_run_shows_its_tasks_below_the_prompt_and_leaves_them_there_with_the_results(shell, gate):
    at = shell()
    before = at.modes()
    at.run("run", "Write the parser\n%s\nSAY parsed" % gate.wait, "Fix the crash\nSHELL true\nSAY fixed")
    at.sees("1 running, 1 succeeded", "Write the parser", "fixed")
    at.type("noise that must not show\n")
    at.resize(60, 24)
    at.resize(80, 24)
    gate.open()
    assert at.ends() == 0
    assert [mark for mark, _ in rows(at)] == ["✓", "✓"]
    assert "running" not in at.text.split("✓")[-1] and "parsed" in at.text and WHOLE not in at.screen.mode
    assert at.modes() == before and not at.screen.cursor.hidden


def test_ctrl_c_leaves_the_tasks_running_and_names_what_stops_them(shell, gate, root):
    at = shell()
    at.run("run", gate.wait, gate.wait)
    at.sees("2 running")
    at.type("\x03")
    assert at.ends() == 130
    running = {task.name for task in task_dirs(root) if is_supervised(task)}
    told = re.sub(r"\s", "", at.text)          # the terminal may wrap it anywhere
    assert len(running) == 2 and set(re.search("stop([0-9a-f]{12})([0-9a-f]{12})", told).groups()) == running
