"""Flags and environment, as a person meets them: the program is run."""
import os
import pathlib
import pty
import select
import subprocess
import sys
import time

import pytest

import codex_mcp_swarm as cms
from conftest import command

from .helpers import WAIT_S

PROGRAM = pathlib.Path(cms.__file__).resolve()


def program(home, *argv, env=None, prelude=None):
    """Run the program to its end, on an empty standard input. With `prelude`, Python code is run in the
    process before it."""
    start = command()
    if prelude is not None:
        script = "import sys, runpy\n%s\nsys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        start = [sys.executable, "-c", script % prelude, str(PROGRAM)]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})}
    return subprocess.run([*start, *argv], env=environ, cwd=str(home), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=WAIT_S)


@pytest.fixture
def home(tmp_path):
    """A home with a file, a directory, and nothing else."""
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


BAD = [
    # flags, environment, what the line names
    (["-c", "model"], {}, "-c model"), (["-c", "=x"], {}, "-c =x"), (["-c", ""], {}, "-c"),
    (["-c", "a b=x"], {}, "-c a b=x"), (["-c", "-x=1"], {}, "-c"),
    (["-c"], {}, "-c"), (["-c", "a\nb"], {}, "-c"), (["-c", "a=1", "-c", "b"], {}, "-c b"),
    (["--codex-bin"], {}, "--codex-bin"),
    (["--codex-bin", "directory"], {}, "directory"), (["--bogus"], {}, "--bogus"),
    (["--skip-git-repo-check=yes"], {}, "--skip-git-repo-check"),
    (["--ephem"], {}, "--ephem"), (["serve"], {}, "serve"), (["demo", "more"], {}, "more"),
    (["-x"], {}, "-x"),
    ([], {"CODEX_SWARM_LOG_LEVEL": "LOUD"}, "CODEX_SWARM_LOG_LEVEL=LOUD"),
    ([], {"CODEX_SWARM_LOG_LEVEL": "10"}, "CODEX_SWARM_LOG_LEVEL"),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "soon"}, "CODEX_SWARM_TASK_MAX_AGE=soon"),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "-1"}, "CODEX_SWARM_TASK_MAX_AGE=-1"),
    ([], {"CODEX_SWARM_MIN_FREE_MB": "-1"}, "CODEX_SWARM_MIN_FREE_MB=-1"), (["--dry-run"], {}, "--dry-run"),
    (["demo", "--ignored"], {}, "--ignored"), ([], {"CODEX_SWARM_DEPTH": "deep"}, "CODEX_SWARM_DEPTH=deep"),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "nan"}, "CODEX_SWARM_TASK_MAX_AGE"),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "inf"}, "CODEX_SWARM_TASK_MAX_AGE"),
    ([], {"CODEX_SWARM_TASK_DIR": "file"}, "CODEX_SWARM_TASK_DIR=file"),
    ([], {"CODEX_SWARM_TASK_DIR": "dangling"}, "CODEX_SWARM_TASK_DIR=dangling"),
    ([], {"CODEX_SWARM_WORKTREE_DIR": "file"}, "CODEX_SWARM_WORKTREE_DIR=file"),
    ([], {"CODEX_SWARM_CODEX_BIN": "directory"}, "directory"),
    (["--max-sandbox", "danger-full-access"], {}, "--max-sandbox"), (["--max-sandbox"], {}, "--max-sandbox"),
    (["--allow-root", "directory"], {}, "--allow-root directory"),
    (["--allow-root", "/no/such/directory"], {}, "/no/such/directory"),
    (["--codex-home", "/usr"], {}, "NAME=DIR"), (["--codex-home", "a=b"], {}, "absolute"),
    (["--codex-home", "a=/no/such"], {}, "does not exist"), (["--codex-home", "=/usr"], {}, "NAME=DIR"),
    ([], {"CODEX_SWARM_LOG": "nowhere/log"}, "CODEX_SWARM_LOG=nowhere/log"),
    ([], {"CODEX_SWARM_LOG": "directory"}, "CODEX_SWARM_LOG=directory"),
]


@pytest.mark.parametrize("argv, env, names", BAD, ids=lambda value: repr(value)[:40])
def test_a_bad_value_is_one_line_that_names_it_and_exit_2(home, argv, env, names, monkeypatch, capfd):
    monkeypatch.chdir(home)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), **env}
    status, said = cms.run_typed(argv, environ), capfd.readouterr()
    assert (status, said.out) == (2, "")
    lines = said.err.splitlines()
    assert len(lines) == 1 and names in lines[0], said.err


def test_a_command_ends_with_its_own_status_wherever_its_threads_are(home):
    stays = "import threading; threading.Thread(target=threading.Event().wait).start()"
    done = program(home, "config", "claude", prelude=stays)
    assert (done.returncode, done.stderr) == (0, "") and "claude mcp add" in done.stdout


@pytest.mark.parametrize("given, why", [
    ("/no/such", "does not exist"), ("file", "absolute path"), ("FILE", "is not a directory")])
def test_a_root_that_cannot_be_allowed_is_refused_for_what_is_wrong_with_it(home, given, why):
    given = str(home / "file") if given == "FILE" else given
    done = program(home, "--allow-root", given)
    assert done.returncode == 2 and f"--allow-root {given}" in done.stderr and why in done.stderr


def test_a_secret_in_a_flag_that_is_refused_is_not_repeated(home):
    done = program(home, "-c", "model providers.api_key=sk-verysecret")
    assert done.returncode == 2 and "providers.api_key=***" in done.stderr and "verysecret" not in done.stderr


def test_windows_is_told_to_use_wsl(home):
    lacking = "import signal; [delattr(signal, name) for name in ('SIGKILL', 'SIGHUP', 'SIGTSTP', 'SIGQUIT')]"
    done = program(home, prelude="sys.modules['fcntl'] = None; " + lacking)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "WSL" in done.stderr


def test_nothing_is_written_when_a_server_starts_and_ends(home):
    before = sorted(home.rglob("*"))
    done = program(home, env={"CODEX_SWARM_LOG": "log"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(home.rglob("*")) == before


def test_version_and_help(home):
    assert program(home, "--version").stdout == "codex-mcp-swarm %s\n" % cms.__version__
    text = program(home, "--help").stdout
    assert all(name in text for name in cms.VARIABLES)
    assert all(flag in text
               for flag in ("-c key=value", "--skip-git-repo-check", "--ephemeral", "--codex-bin PATH",
                            "--version", "demo"))


def test_on_a_terminal_it_says_what_it_is_and_does_not_hang(home):
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, str(PROGRAM)], stdin=theirs, stdout=theirs, stderr=theirs,
                             close_fds=True,
                             env={"PATH": os.environ["PATH"], "HOME": str(home)})
    os.close(theirs)
    assert child.wait(WAIT_S) == 0
    text, end = b"", time.monotonic() + WAIT_S
    while b"demo" not in text and select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
        text += os.read(ours, 65536)
    os.close(ours)
    assert b"claude mcp add" in text and b"codex-mcp-swarm" in text and b"Traceback" not in text


def configured(*argv, **environ):
    return cms.configure(list(argv), environ).config


def test_the_defaults():
    home = os.path.expanduser("~")
    state = home + "/.local/state/codex-swarm"
    assert configured() == cms.Config(
        root=state, worktree_dir=state + "/worktrees", codex_bin="codex", codex_home=home + "/.codex",
        overrides=(), skip_git_repo_check=False, ephemeral=False,
        task_max_age_s=86400.0, log_file=None, log_level="WARNING",
        max_parallel=configured().max_parallel)
    assert 4 <= configured().max_parallel <= 32


GIVEN = [
    # flags, environment, field, value
    ([], {"XDG_STATE_HOME": "/s"}, "root", "/s/codex-swarm"),
    ([], {"XDG_STATE_HOME": "/s"}, "worktree_dir", "/s/codex-swarm/worktrees"),
    ([], {"CODEX_SWARM_TASK_DIR": "/t", "XDG_STATE_HOME": "/s"}, "root", "/t"),
    ([], {"CODEX_SWARM_TASK_DIR": "/t"}, "worktree_dir", "/t/worktrees"),
    ([], {"CODEX_SWARM_WORKTREE_DIR": "/w", "CODEX_SWARM_TASK_DIR": "/t"}, "worktree_dir", "/w"),
    ([], {"CODEX_SWARM_TASK_DIR": ""}, "root", None),
    ([], {"CODEX_SWARM_WORKTREE_SETUP": " npm ci "}, "worktree_setup", "npm ci"),
    ([], {"CODEX_SWARM_WORKTREE_SETUP": ""}, "worktree_setup", ""),
    ([], {"CODEX_SWARM_CODEX_BIN": "c"}, "codex_bin", "c"),
    (["--codex-bin", "d"], {"CODEX_SWARM_CODEX_BIN": "c"}, "codex_bin", "d"),
    (["--codex-bin=d"], {}, "codex_bin", "d"), ([], {"CODEX_HOME": "/h"}, "codex_home", "/h"),
    ([], {"CODEX_SWARM_MIN_FREE_MB": "0"}, "min_free_mb", 0), 
    ([], {}, "depth", 1), ([], {"CODEX_SWARM_DEPTH": "2"}, "depth", 2),
    ([], {"CODEX_SWARM_DEPTH": "0"}, "depth", 1),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "0"}, "task_max_age_s", 0.0),
    ([], {"CODEX_SWARM_TASK_MAX_AGE": "3600.5"}, "task_max_age_s", 3600.5),
    ([], {"CODEX_SWARM_LOG_LEVEL": "debug"}, "log_level", "DEBUG"),
    ([], {"CODEX_SWARM_LOG_LEVEL": ""}, "log_level", "WARNING"),
    ([], {"CODEX_SWARM_LOG": "/log"}, "log_file", "/log"), ([], {"CODEX_SWARM_LOG": ""}, "log_file", None),
    (["--max-sandbox", "read-only"], {}, "max_sandbox", "read-only"), ([], {}, "max_sandbox", ""),
    (["--codex-home", "a=/usr", "--codex-home=b=/"], {}, "codex_homes",
     (("a", os.path.realpath("/usr")), ("b", "/"))),
    ([], {}, "allow_roots", ()),
    (["--allow-root", "/usr", "--allow-root=/"], {}, "allow_roots", (os.path.realpath("/usr"), "/")),
    ([], {}, "on_limit", ""), ([], {"CODEX_SWARM_ON_LIMIT": "wait"}, "on_limit", "wait"),
    (["--on-limit", "fail"], {"CODEX_SWARM_ON_LIMIT": "wait"}, "on_limit", "fail"),
    (["--ephemeral"], {}, "ephemeral", True), (["--skip-git-repo-check"], {}, "skip_git_repo_check", True),
    (["-c", "model=gpt-6.1-sol"], {}, "overrides", ("model=gpt-6.1-sol",)),
    (["-cmodel=x"], {}, "overrides", ("model=x",)),
    (["-c", "a=1", "-c", "b.c-d_e='x = y'"], {}, "overrides", ("a=1", "b.c-d_e='x = y'")),
    (["-c", "a="], {}, "overrides", ("a=",)),
    (["-c", "a=-1"], {}, "overrides", ("a=-1",)),
    (["-c", 'tools={"x y"={z=1}}'], {}, "overrides", ('tools={"x y"={z=1}}',)),
]


@pytest.mark.parametrize("argv, environ, field, value", GIVEN, ids=lambda value: repr(value)[:40])
def test_a_flag_or_a_variable_sets_its_field(argv, environ, field, value):
    assert getattr(configured(*argv, **environ),
                   field) == (value if value is not None or field == "log_file" else configured().root)


def test_every_path_is_absolute_wherever_the_server_starts(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    config = configured(CODEX_SWARM_TASK_DIR="~/tasks", CODEX_SWARM_WORKTREE_DIR="~/trees",
                        CODEX_SWARM_LOG="log")
    given = [configured(CODEX_SWARM_CODEX_BIN="./c"), configured("--codex-bin=~/c")]
    assert [config.codex_bin for config in given] == [str(home / "c")] * 2
    assert (config.root, config.worktree_dir,
            config.log_file) == tuple(str(home / name) for name in ("tasks", "trees", "log"))


@pytest.mark.parametrize("name", ["CODEX_SWARM_TASK_DIR", "CODEX_SWARM_WORKTREE_DIR"])
def test_a_directory_that_would_depend_on_where_the_server_starts_is_refused(name):
    with pytest.raises(cms.UsageError, match="absolute"):
        configured(**{name: "tasks"})


def test_a_default_for_limits_that_is_neither_wait_nor_fail_is_refused():
    with pytest.raises(cms.UsageError, match="CODEX_SWARM_ON_LIMIT=sleep: must be one of wait, fail"):
        configured(CODEX_SWARM_ON_LIMIT="sleep")


@pytest.mark.parametrize("argv, name", [([], None), (["demo"], "demo"), (["-c", "a=1"], None),
                                        (["-c", "a=1", "demo"], "demo"), (["demo", "-c", "a=1"], "demo")])
def test_a_command_may_stand_behind_the_flags_and_before_them(argv, name):
    row = cms.configure(argv, {}).row
    assert (row and row.name) == name


def test_flags_before_and_after_a_command_add_up():
    config = configured("-c", "a=1", "--ephemeral", "demo", "-c", "b=2", "--codex-bin", "x")
    assert (config.overrides, config.ephemeral, config.codex_bin) == (("a=1", "b=2"), True, "x")
