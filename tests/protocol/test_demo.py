"""`codex-mcp-swarm demo`, as a person runs it: its story, and that nothing of it stays, whatever ends it."""
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from conftest import FAKE_CODEX, SERVER, command, eventually, running, task_dirs

WAIT_S = 60

# A codex whose runs wait for the file GATE and then do as asked, with an answer of its own to `login status`.
CODEX = """#!/bin/sh
case "$*" in
    "login status") exit {login} ;;
    *--help*|--version) exec "{fake}" "$@" ;;
esac
asked=$(cat)
case "$asked" in
    *red*) work="SHELL sed -i.bak s/brown/red/ story.txt; rm story.txt.bak" ;;
    *grey*) work="SHELL sed -i.bak s/brown/grey/ story.txt; rm story.txt.bak" ;;
    *) work="WRITE moral.txt look before you leap" ;;
esac
printf '%s\\n' "$asked" "WAITFILE $GATE" "$work" > "$TMPDIR/prompt-$$"
exec "{fake}" "$@" < "$TMPDIR/prompt-$$"
"""


@pytest.fixture
def codex(tmp_path, gate, fake):
    """The environment of a demo whose codex waits for the gate; `codex(login=1)`: it is not logged in."""
    def make(login=0):
        path = tmp_path / "codex"
        path.write_text(CODEX.format(login=login, fake=FAKE_CODEX))
        path.chmod(0o700)
        return dict(fake, CODEX_SWARM_CODEX_BIN=str(path), GATE=str(gate.path))
    return make


@pytest.fixture
def demo():
    """A factory: a running demo, with pipes for its output."""
    started = []

    def start(env):
        started.append(subprocess.Popen(command("demo"), env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def three_run(root):
    """Wait until three tasks wait for the gate."""
    def look():
        files = [task / "events.jsonl" for task in task_dirs(root)]
        return sum(file.exists() and file.stat().st_size > 0 for file in files) == 3
    eventually(look, timeout=WAIT_S, what="three running tasks")


def left(root, tmp_path):
    """What a demo must not leave: tasks, worktrees, and its directory."""
    trees = root / "worktrees"
    return (task_dirs(root), list(trees.glob("[0-9a-f]*")) if trees.is_dir() else [],
            list(pathlib.Path(tmp_path).glob("codex-swarm-demo-*")))


NOTHING = ([], [], [])


def said(process):
    """On standard output; who ended how is on standard error, as `run` has it."""
    out, err = process.communicate(timeout=WAIT_S)
    assert b"Traceback" not in err
    return out.decode()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_ends_the_demo_ends_its_tasks(codex, demo, root, tmp_path, name):
    process = demo(codex())
    three_run(root)
    process.send_signal(getattr(signal, name))
    assert "succeeded" not in said(process)
    assert (process.returncode, left(root, tmp_path)) == (130, NOTHING)


def test_a_closed_pipe_ends_the_demo_and_its_tasks_without_a_word(codex, demo, root, tmp_path):
    process = demo(codex())
    three_run(root)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert (process.wait(WAIT_S), left(root, tmp_path)) == (1, NOTHING)


def test_a_demo_that_is_killed_leaves_tasks_that_every_server_sees_and_stops(codex, demo, client, root):
    process = demo(codex())
    three_run(root)
    process.kill()
    c = client()
    ids = running(c, 3)
    assert {record["outcome"] for record in c.ok("codex_cancel", task_ids=ids)["tasks"]} == {"cancelled"}


def test_the_demo_tells_who_collides_merges_what_fits_and_how_to_unite_the_rest(codex, demo, gate, root,
                                                                               tmp_path):
    gate.open()
    process = demo(codex())
    text = said(process)
    assert (process.returncode, left(root, tmp_path)) == (0, NOTHING), text
    red, moral, grey = re.findall(r"(?m)^Task ([0-9a-f]{12}) succeeded", text)
    dry, merged = text.split("Those that fit")
    assert f"Tasks {red} and {grey} conflict in `story.txt`" in dry and "brown" not in merged
    assert f" reply {grey} 'Unite both versions' --update-from {red}\n" in dry and "`reply` above" in merged
    assert f": {moral}, {red}, +2 -1 2 files" in merged and "Not merged" not in merged
    typed = re.findall(r"(?m)^\$ codex-mcp-swarm (\w+(?: -\S+)*)", text)
    assert typed == ["run -w -C", "merge --dry-run", "merge --into"]
    assert "3 of 3 succeeded" in text and "STAND-IN" not in text
    assert text.splitlines()[-1] == "    claude mcp add codex-swarm -- %s %s" % (sys.executable, SERVER)
    assert "config CLIENT" in text


def test_a_codex_with_a_provider_of_its_own_is_not_called_logged_out(codex, demo, gate, tmp_path):
    gate.open()
    (tmp_path / "codex-home").mkdir()
    (tmp_path / "codex-home" / "config.toml").write_text('model = "m"\nmodel_provider = "mine"\n')
    text = said(demo(dict(codex(login=1), CODEX_HOME=str(tmp_path / "codex-home"))))
    assert "3 of 3 succeeded" in text and "logged in" not in text


def test_without_a_login_a_stand_in_tells_the_story_and_no_success_is_claimed(codex, demo, root, tmp_path):
    process = demo(codex(login=1))
    text = said(process)
    assert (process.returncode, left(root, tmp_path)) == (0, NOTHING)
    assert "not logged in" in text.splitlines()[0]
    assert "conflict in `story.txt`" in text and "moral.txt" in text
    progress = [line for line in text.splitlines() if line.startswith("  `")]
    assert progress and not any(line == before for line, before in zip(progress[1:], progress))
    end = text.split("A STAND-IN did this")[1]
    assert "no model was asked" in end
    assert "`codex login`" in end
    assert "config CLIENT" in end and "claude mcp add" in end.splitlines()[-1]


def test_a_task_that_fails_ends_the_story_with_the_reason(codex, demo, gate, root, tmp_path):
    gate.open()
    environment = codex()
    path = pathlib.Path(environment["CODEX_SWARM_CODEX_BIN"])
    path.write_text(path.read_text().replace('work="WRITE moral.txt', 'work="FAIL no ink; WRITE'))
    process = demo(environment)
    text = said(process)
    assert (process.returncode, left(root, tmp_path)) == (1, NOTHING)
    assert "no ink" in text and "of 3 succeeded" not in text


def test_a_demo_that_cannot_start_says_why_in_one_line(codex, demo, root):
    root.write_text("in the way")
    process = demo(dict(codex(), CODEX_SWARM_TASK_DIR=str(root / "below")))
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode in (1, 2) and len(err.splitlines()) == 1 and str(root).encode() in err
