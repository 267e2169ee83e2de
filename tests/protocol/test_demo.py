"""`codex-mcp-swarm demo`, as a person runs it: what it says at the end, and that nothing stays behind, whatever ends it."""
import pathlib
import signal
import subprocess
import sys

import pytest

from conftest import FAKE_CODEX, SERVER, eventually, is_supervised, running, task_dirs

WAIT_S = 60

# A codex whose runs wait for the file GATE, with an answer of its own to `login status`.
CODEX = """#!/bin/sh
case "$*" in
    "login status") exit {login} ;;
    *--help*|--version) exec "{fake}" "$@" ;;
esac
{{ echo "WAITFILE $GATE"; cat; }} > "$TMPDIR/prompt-$$"
exec "{fake}" "$@" < "$TMPDIR/prompt-$$"
"""


@pytest.fixture
def codex(tmp_path, gate, fake):
    """The environment of a demo whose codex waits for the gate; `codex(login=1)`: it says that it is not logged in."""
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
        started.append(subprocess.Popen([sys.executable, str(SERVER), "demo"], env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]
    yield start
    for process in started:
        process.kill()
        process.communicate()


def five_run(root):
    """Wait until five tasks wait for the gate."""
    eventually(lambda: sum((d / "events.jsonl").exists() and (d / "events.jsonl").stat().st_size > 0 for d in task_dirs(root)) == 5,
               timeout=WAIT_S, what="five running tasks")


def left(root, tmp_path):
    """What a demo must not leave: living tasks, and its directory."""
    return [d.name for d in task_dirs(root) if is_supervised(d)], [p.name for p in pathlib.Path(tmp_path).glob("codex-swarm-demo-*")]


def said(process):
    out, err = process.communicate(timeout=WAIT_S)
    assert err == b"", err
    return out.decode()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_ends_the_demo_ends_its_tasks(codex, demo, root, tmp_path, name):
    process = demo(codex())
    five_run(root)
    process.send_signal(getattr(signal, name))
    assert "succeeded" not in said(process)
    assert (process.returncode, left(root, tmp_path)) == (1, ([], []))


def test_a_closed_pipe_ends_the_demo_and_its_tasks_without_a_word(codex, demo, root, tmp_path):
    process = demo(codex())
    five_run(root)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert (process.wait(WAIT_S), left(root, tmp_path)) == (1, ([], []))


def test_a_demo_that_is_killed_leaves_its_tasks_where_every_server_sees_and_stops_them(codex, demo, client, root):
    process = demo(codex())
    five_run(root)
    process.kill()
    c = client()
    ids = running(c, 5)
    assert {record["outcome"] for record in c.ok("codex_cancel", task_ids=ids)["tasks"]} == {"cancelled"}


def test_the_demo_runs_five_tasks_and_says_how_to_go_on(codex, demo, gate, root, tmp_path):
    gate.open()
    process = demo(codex())
    text = said(process)
    assert (process.returncode, left(root, tmp_path)) == (0, ([], []))
    assert "5 of 5 succeeded" in text and "STAND-IN" not in text
    assert "%s %s config CLIENT" % (sys.executable, SERVER) in text.splitlines()[-1]


def test_a_codex_with_a_provider_of_its_own_is_not_called_logged_out(codex, demo, gate, tmp_path):
    gate.open()
    (tmp_path / "codex-home").mkdir()
    (tmp_path / "codex-home" / "config.toml").write_text('model = "m"\nmodel_provider = "mine"\n')
    text = said(demo(dict(codex(login=1), CODEX_HOME=str(tmp_path / "codex-home"))))
    assert "5 of 5 succeeded" in text and "logged in" not in text


def test_a_codex_that_is_not_logged_in_is_said_to_be_so_and_what_a_stand_in_did_is_no_success(codex, demo, root, tmp_path):
    process = demo(codex(login=1))
    text = said(process)
    assert (process.returncode, left(root, tmp_path)) == (0, ([], []))
    assert "not logged in" in text.splitlines()[0] and "of 5 succeeded" not in text
    end = "\n".join(text.splitlines()[-4:])
    assert "STAND-IN" in end
    assert "no model was asked" in end
    assert "`codex login`" in end
    assert "config CLIENT" in end


def test_a_demo_that_cannot_start_says_why_in_one_line(codex, demo, root):
    root.write_text("in the way")
    process = demo(dict(codex(), CODEX_SWARM_TASK_DIR=str(root / "below")))
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode in (1, 2) and len(err.splitlines()) == 1 and str(root).encode() in err
