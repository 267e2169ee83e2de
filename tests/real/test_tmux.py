"""`top` and `run` in a real terminal multiplexer: typed there, and read from what it shows.

What the frames say is told in tests/protocol/test_live.py; here is what only a real terminal knows: its other
screen, how wide it takes a character to be, what it does with the lines when its size changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import termios
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from client import eventually
from conftest import command, is_supervised, task_dirs
from wcwidth import wcswidth

from .conftest import program

PROMPT = "ready> "
LIMIT_S = 60
FLAGS = "#{alternate_on} #{cursor_flag} #{wrap_flag} #{insert_flag} #{keypad_cursor_flag} #{mouse_any_flag}"


class Tmux:
    """A tmux of its own with one window, in which a shell waits."""

    def __init__(self, place: Path, env: dict) -> None:
        self.socket, self.env = str(place / "tmux"), dict(env, ENV="", LC_ALL="C.UTF-8")

    def begin(self, cwd: Path, columns: int, lines: int) -> None:
        self("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), "-c", str(cwd),
             "env", "PS1=" + PROMPT, "sh")
        self.resize(columns, lines)
        self.waits()

    def __call__(self, *words: str) -> str:
        done = subprocess.run([program("tmux"), "-S", self.socket, *words], env=self.env, timeout=LIMIT_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        return done.stdout.decode()

    @property
    def lines(self) -> List[str]:
        """What the window shows."""
        return self("capture-pane", "-p").split("\n")[:-1]

    def told(self, about: str) -> str:
        return self("display-message", "-p", about).strip()

    def resize(self, columns: int, lines: int) -> None:
        self("resize-window", "-x", str(columns), "-y", str(lines))

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def type(self, *words: str) -> None:
        self("send-keys", "-l", " ".join(map(shlex.quote, words)))
        self.press("Enter")

    def sees(self, *texts: str) -> List[str]:
        """The lines of the window, once they show all of these."""
        def look() -> List[str]:
            lines = self.lines
            return lines if all(text in "\n".join(lines) for text in texts) else []
        try:
            return eventually(look)
        except AssertionError:
            raise AssertionError("%s are not seen in\n%s" % (texts, "\n".join(self.lines)))

    def waits(self) -> List[str]:
        """The lines of the window, once the last one is a prompt and nothing else."""
        def look() -> List[str]:
            lines = self.lines
            return lines if [*filter(None, lines)][-1:] == [PROMPT.strip()] else []
        return eventually(look, what="a prompt")

    def state(self) -> Tuple[str, List[Any]]:
        """What tmux says of the terminal, and the modes of its device."""
        with open(self.told("#{pane_tty}"), "rb", buffering=0) as device:
            return self.told(FLAGS), termios.tcgetattr(device)

    def foreground(self) -> int:
        """The process that the keys go to."""
        with open("/proc/%s/stat" % self.told("#{pane_pid}")) as about:
            return int(about.read().rpartition(")")[2].split()[5])


@pytest.fixture
def tmux(fake: dict, repo: Path) -> Iterator[Tmux]:
    """A factory: `tmux(columns=80, lines=24)`."""
    with contextlib.ExitStack() as made:
        place = made.enter_context(tempfile.TemporaryDirectory())   # a short path: sockets take no long one

        def start(columns: int = 80, lines: int = 24) -> Tmux:
            at = Tmux(Path(place), fake)
            made.callback(at, "kill-server")
            at.begin(repo, columns, lines)
            return at
        yield start


@pytest.fixture
def four(client, gate) -> List[str]:
    """The ids of four tasks of two servers: three wait for the gate, one has ended."""
    one, other = client(), client()
    done = one.ok("codex", prompt="Fix the crash\nSAY It was an index")["task_id"]
    titles = ("Write the parser", "設定ファイルを書く 🎉", "été ✔️ 👩‍👩‍👧 👍🏽 ไทยที่นี่")
    runs = [c.ok("codex_async", prompt="%s\nTELL at work\n%s" % (title, gate.wait))["task_id"]
            for c, title in zip((one, other, other), titles)]
    return [*runs, done]


def rows(lines: List[str]) -> List[str]:
    return [line for line in lines if re.match(r"\S [0-9a-f]{6} ", line)]


@pytest.mark.parametrize("columns", [80, 60])
def test_top_fits_and_its_columns_are_straight_as_the_terminal_counts_them(tmux, four, columns):
    at = tmux(columns)
    at.type(*command("top"))
    lines = at.sees("3 running, 1 succeeded", "Write the parser", "at work")
    assert [line[2:8] for line in rows(lines)] == [task_id[:6] for task_id in four]
    ages = {wcswidth(re.match(r".* \d+ s\b", line)[0]) for line in rows(lines)}
    assert len(lines) == 24 and len(ages) == 1, lines
    assert max(map(wcswidth, lines)) < columns


def test_top_survives_every_size_while_it_draws_and_leaves_no_rest_of_an_older_one(tmux, four):
    at = tmux()
    at.type(*command("top"))
    at.sees("3 running")
    for columns, lines in [(60, 24), (132, 50), (30, 6), (12, 3), (60, 16), (200, 5)] * 3 + [(80, 24)]:
        at.resize(columns, lines)
    for columns, height in ((80, 24), (60, 16)):
        at.resize(columns, height)
        whole = r"codex-mcp-swarm: 3 running.*\n(\S \w{6} .* \d+ s\b.*\n){4}\n{%d}Enter show .* q quit"
        frame = re.compile(whole % (height - 6))
        eventually(lambda: frame.fullmatch("\n".join(at.lines)), what="a frame and nothing beside it")


def test_keys_of_a_real_keyboard_select_show_follow_and_stop(tmux, four, root):
    at = tmux()
    at.type(*command("top"))
    at.sees("3 running")
    at.press("Down", "Enter")
    at.sees("Task " + four[1], "last message: at work")
    at.press("Escape")
    at.sees("Write the parser", "q quit")
    at.press("End", "Up", "Home", "f")
    at.sees("at work", "q back")
    at.press("q")
    at.sees("Write the parser", "q quit")
    at.press("s")
    at.sees("Stop task %s?" % four[0])
    at.press("y")
    at.sees("2 running, 1 succeeded, 1 cancelled")
    assert {task.name for task in task_dirs(root) if is_supervised(task)} == set(four[1:3])


@pytest.mark.parametrize("end", ["q", "C-c", "SIGTERM"])
def test_the_terminal_is_as_it_was_whatever_ends_top(tmux, four, end):
    at = tmux()
    at.type("echo", "older", "work")
    at.sees("\nolder work\n")
    at.waits()
    before = at.state()
    at.type(*command("top"))
    at.sees("3 running")
    assert at.state()[0] != before[0] and at.state()[1] != before[1]
    if end.startswith("SIG"):
        os.kill(at.foreground(), getattr(signal, end))
    else:
        at.press(end)
    eventually(lambda: at.state() == before, what="the terminal of before")
    at.waits()
    at.type("echo", "what", "is", "typed", "shows")
    lines = at.sees("\nolder work\n", "\n" + PROMPT + "echo what is typed shows\nwhat is typed shows\n")
    assert "3 running" not in "\n".join(lines)


def test_a_killed_server_does_not_disturb_top_and_its_tasks_go_on(tmux, client, gate, four):
    killed = client()
    task_id = killed.ok("codex_async", prompt="Of a killed one\n" + gate.wait)["task_id"]
    at = tmux()
    at.type(*command("top"))
    at.sees("4 running", "Of a killed one")
    killed.kill()
    gate.open()
    lines = at.sees("5 succeeded")
    assert task_id[:6] in "\n".join(lines)


def test_run_draws_below_the_prompt_and_a_narrower_window_leaves_no_rest_of_its_lines(tmux, gate):
    at = tmux(100)
    at.type(*command("run", "Write the parser\n%s\nSAY parsed" % gate.wait, "Fix the crash\n%s" % gate.wait))
    at.sees("2 running", "Fix the crash")
    at.resize(60, 24)
    at.sees("2 running")
    gate.open()
    at.waits()
    kept = at("capture-pane", "-p", "-S", "-").split("\n")          # with what has scrolled away
    assert len(rows(kept)) == 2 and "parsed" in kept
