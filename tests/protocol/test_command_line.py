"""The command as people meet it: flags, environment, a terminal instead of a client."""
import os
import pty
import subprocess
import sys

import pytest

from conftest import SERVER


def run(env, *args, **more):
    """The finished process; stdin is empty."""
    return subprocess.run([sys.executable, str(SERVER), *args], env=dict(env, **more), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)


def test_version_is_one_line_on_stdout(fake):
    done = run(fake, "--version")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, b"", 1)


def test_help_names_every_flag_and_variable(fake):
    done = run(fake, "--help")
    assert done.returncode == 0
    for word in ("-c key=value", "--skip-git-repo-check", "--ephemeral", "--codex-bin", "--version", "CODEX_SWARM_LOG",
                 "CODEX_SWARM_LOG_LEVEL", "CODEX_SWARM_TASK_DIR", "CODEX_SWARM_WORKTREE_DIR", "CODEX_SWARM_TASK_MAX_AGE",
                 "CODEX_SWARM_CODEX_BIN", "CODEX_SWARM_MIN_FREE_MB", "sweep", "--dry-run", "--ignored"):
        assert word.encode() in done.stdout, word


@pytest.mark.parametrize("args", [["--frobnicate"], ["-c"], ["--codex-bin"], ["frobnicate"], ["--skip-git"]])
def test_a_bad_flag_is_named_with_exit_2(fake, args):
    done = run(fake, *args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert args[0].encode() in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("args, more", [
    (["-c", "no-equals-sign"], {}), (["-c", "=value"], {}), (["--codex-bin", "/"], {}),
    ([], {"CODEX_SWARM_LOG_LEVEL": "LOUD"}), ([], {"CODEX_SWARM_TASK_MAX_AGE": "a day"}), ([], {"CODEX_SWARM_TASK_MAX_AGE": "-1"}),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "nan"}), ([], {"CODEX_SWARM_TASK_DIR": "/dev/null"}),
    ([], {"CODEX_SWARM_WORKTREE_DIR": "/dev/null"}), ([], {"CODEX_SWARM_LOG": "/no/such/folder/log"}), ([], {"CODEX_SWARM_CODEX_BIN": "/"}),
])
def test_a_bad_value_is_one_clear_line_on_stderr_with_exit_2(fake, args, more):
    done = run(fake, *args, **more)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1), done.stderr
    assert (args[-1] if args else list(more)[0]).encode() in done.stderr


@pytest.mark.parametrize("more", [{"CODEX_SWARM_LOG_LEVEL": ""}, {"CODEX_SWARM_TASK_MAX_AGE": ""}, {"CODEX_SWARM_LOG_LEVEL": "debug"}])
def test_an_empty_variable_is_as_good_as_none_and_levels_may_be_small(fake, more):
    done = run(fake, **more)
    assert (done.returncode, done.stdout) == (0, b"")


def test_on_a_terminal_it_says_what_it_is_and_does_not_hang(fake):
    ours, theirs = pty.openpty()
    p = subprocess.Popen([sys.executable, str(SERVER)], env=fake, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(theirs)
    out, err = p.communicate(timeout=20)
    os.close(ours)
    assert (p.returncode, err) == (0, b"")
    assert b"MCP" in out and b"claude mcp add" in out


def test_the_log_goes_where_it_was_sent_and_not_to_stderr(client, tmp_path):
    c = client(env={"CODEX_SWARM_LOG": str(tmp_path / "log"), "CODEX_SWARM_LOG_LEVEL": "DEBUG"})
    task = c.ok("codex", prompt="SAY x")["task_id"]
    assert c.close() == 0
    assert c.stderr == ""
    log = (tmp_path / "log").read_text()
    assert [words for words in ("serves", "tools/call", task + ": launched", task + ": succeeded", "ending") if words not in log] == []


def test_the_log_has_what_its_level_says(client, tmp_path):
    c = client(env={"CODEX_SWARM_LOG": str(tmp_path / "log"), "CODEX_SWARM_LOG_LEVEL": "INFO"})
    c.ok("codex", prompt="SAY x")
    assert c.close() == 0
    assert {line.split()[2] for line in (tmp_path / "log").read_text().splitlines()} == {"INFO"}
