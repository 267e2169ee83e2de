"""The commands, as a person types them: what they print where, and how they end."""
import json
import subprocess

import pytest

import codex_mcp_swarm as cms
from conftest import command

LIMIT_S = 60


@pytest.fixture
def typed(fake, repo):
    """`typed(*words, stdin="", env={}, cwd=repo)`: the finished process, its output as text."""
    def run(*words, stdin="", env=None, cwd=None):
        done = subprocess.run(command(*words), env=dict(fake, **(env or {})), cwd=str(cwd or repo),
                              input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=LIMIT_S)
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in done.stderr, done.stderr
        return done
    return run


@pytest.fixture
def ended(client, repo):
    """The ids of two tasks that have ended, the second one last."""
    c = client()
    ids = [c.ok("codex_async", prompt=prompt)["task_id"] for prompt in ("SAY one\x1b[31m", "FAIL no luck")]
    c.ok("codex_wait", task_ids=ids)
    return ids


@pytest.mark.parametrize("name", cms.COMMANDS)
def test_the_help_of_a_command_is_about_it_alone(typed, name):
    done = typed(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: codex-mcp-swarm %s " % name)
    assert "CODEX_SWARM_TASK_DIR" not in done.stdout
    assert cms.COMMANDS[name].more.splitlines()[0] in done.stdout


def test_an_unknown_command_suggests_the_nearest(typed):
    done = typed("lss")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean `ls`?" in done.stderr


def test_what_has_ended_is_listed_newest_first_and_what_runs_alone_without_all(typed, ended, client, gate):
    running = client().ok("codex_async", prompt=gate.wait + "\nSAY done")["task_id"]
    assert [line.split()[:2] for line in typed("ls").stdout.splitlines()] == [[running, "running"]]
    lines = typed("ls", "--all").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[running, "running"], [ended[1], "failed"],
                                                    [ended[0], "succeeded"]]
    assert "no luck" in lines[1] and not any("\x1b" in line for line in lines)
    data = json.loads(typed("ls", "--all", "--json").stdout)
    assert [record["task_id"] for record in data["tasks"]] == [running, *reversed(ended)]


def test_a_task_is_shown_whole_by_the_beginning_of_its_id_and_counts_as_collected(typed, ended, root):
    (root / "tasks" / ended[0] / "collected").unlink()
    done = typed("show", ended[0][:6], ended[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert ended[0] in done.stdout and "one\\x1b[31m" in done.stdout and "no luck" in done.stdout
    assert (root / "tasks" / ended[0] / "collected").exists()


def test_what_is_not_there_is_told_with_the_command_that_lists_what_is(typed):
    done = typed("show", "ffffffffffff")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no task `ffffffffffff`" in done.stderr and "ls --all`" in done.stderr
    assert "codex_status" not in done.stderr
