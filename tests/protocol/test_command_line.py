"""The command as people meet it: flags, environment, a terminal in place of a client, what it says."""
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms
from conftest import FAKE_CODEX, SERVER, START, finished

JSON_KEYS = {"cursor": "mcpServers", "gemini": "mcpServers", "claude-desktop": "mcpServers",
             "vscode": "servers", "opencode": "mcp"}
CLIENTS = ["claude", "codex", "cursor", "vscode", "gemini", "opencode", "claude-desktop"]
SCRIPT = """#!%s
import sys
sys.path.insert(0, %r)
from codex_mcp_swarm import main
sys.exit(main())
"""


def run(env, *args, **more):
    """The finished process; stdin is empty."""
    return finished(args, dict(env, **more), "/")


def test_version_is_one_line_on_stdout(fake):
    done = run(fake, "--version")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, b"", 1)


def test_help_names_every_flag_and_variable(fake):
    done = run(fake, "--help")
    assert done.returncode == 0
    for word in ("-c key=value", "--skip-git-repo-check", "--ephemeral", "--codex-bin", "--version",
                 "CODEX_SWARM_LOG", "CODEX_SWARM_LOG_LEVEL", "CODEX_SWARM_TASK_DIR",
                 "CODEX_SWARM_WORKTREE_DIR", "CODEX_SWARM_TASK_MAX_AGE", "CODEX_SWARM_CODEX_BIN",
                 "CODEX_SWARM_MIN_FREE_MB", *cms.COMMANDS):
        assert word.encode() in done.stdout, word


@pytest.mark.parametrize("args", [["--frobnicate"], ["-c"], ["--codex-bin"], ["frobnicate"], ["--skip-git"]])
def test_a_bad_flag_is_named_with_exit_2(fake, args):
    done = run(fake, *args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert args[0].encode() in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("args, more", [(["-c", "no-equals-sign"], {}), (["-c", "=value"], {}),
                                        (["--codex-bin", "/"], {}), ([], {"CODEX_SWARM_LOG_LEVEL": "LOUD"}),
                                        ([], {"CODEX_SWARM_TASK_MAX_AGE": "a day"}),
                                        ([], {"CODEX_SWARM_TASK_MAX_AGE": "-1"}),
                                        ([], {"CODEX_SWARM_TASK_MAX_AGE": "nan"}),
                                        ([], {"CODEX_SWARM_TASK_DIR": "/dev/null"}),
                                        ([], {"CODEX_SWARM_WORKTREE_DIR": "/dev/null"}),
                                        ([], {"CODEX_SWARM_LOG": "/no/such/folder/log"}),
                                        ([], {"CODEX_SWARM_CODEX_BIN": "/"})])
def test_a_bad_value_is_one_clear_line_on_stderr_with_exit_2(fake, args, more):
    done = run(fake, *args, **more)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1), done.stderr
    assert (args[-1] if args else list(more)[0]).encode() in done.stderr


@pytest.mark.parametrize(
    "more",
    [{"CODEX_SWARM_LOG_LEVEL": ""}, {"CODEX_SWARM_TASK_MAX_AGE": ""}, {"CODEX_SWARM_LOG_LEVEL": "debug"}])
def test_an_empty_variable_is_as_good_as_none_and_levels_may_be_small(fake, more):
    done = run(fake, **more)
    assert (done.returncode, done.stdout) == (0, b"")


def test_on_a_terminal_it_says_what_it_is_and_does_not_hang(fake):
    ours, theirs = pty.openpty()
    p = subprocess.Popen([sys.executable, str(SERVER)], env=fake, stdin=theirs, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    os.close(theirs)
    out, err = p.communicate(timeout=60)
    os.close(ours)
    assert (p.returncode, err) == (0, b"")
    assert b"MCP" in out
    assert b"claude mcp add codex-swarm -- %s %s\n" % (sys.executable.encode(), str(SERVER).encode()) in out


def pasted(name, text):
    """The command that the entry `text` gives to the client `name`."""
    if name == "claude":
        words = shlex.split(text, comments=True)
        assert words[:5] == ["claude", "mcp", "add", "codex-swarm", "--"]
        return words[5:]
    if name == "codex":     # the strings and lists of it are JSON, too; tests/real gives it to codex itself
        entry = dict(
            line.split(" = ", 1) for line in text.splitlines() if " = " in line and not line.startswith("#"))
        assert "[mcp_servers.codex-swarm]" in text.splitlines()
        return [json.loads(entry["command"]), *json.loads(entry["args"])]
    entry = json.loads(text)[JSON_KEYS[name]]["codex-swarm"]
    return entry["command"] if name == "opencode" else [entry["command"], *entry["args"]]


def entry_of(env, program, *words):
    """What `config` prints, and where it says that it goes."""
    done = subprocess.run([*program, *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr
    text, where = done.stdout.decode(), done.stderr.decode()
    assert bool(where) != text.startswith("# ")        # a comment, where the format has them
    return text


def answers(command, env):
    """Whether this command is a server."""
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}
        }
    }
    done = subprocess.run(command, env=env, input=json.dumps(hello).encode() + b"\n", stdout=subprocess.PIPE,
                          timeout=60)
    return json.loads(done.stdout.decode())["result"]["serverInfo"]["name"] == "codex-mcp-swarm"


def test_what_config_prints_starts_this_very_file_wherever_it_lies(fake, tmp_path):
    program = tmp_path / "O'Neil \"quoted\" $HOME \\ ü" / "codex_mcp_swarm.py"
    program.parent.mkdir()
    shutil.copy(str(SERVER), str(program))
    env = dict(fake, PYTHONUTF8="1")
    imported = [sys.executable, "-c", START, str(program.parent)]       # compiled once for all
    for name in CLIENTS:
        command = pasted(name, entry_of(env, imported, "config", name))
        assert command[:2] == [sys.executable, str(program)]
    assert answers(command, env)


@pytest.mark.parametrize("name", ["claude", "codex", "cursor"])
def test_what_config_prints_starts_the_installed_script_where_that_was_called(fake, tmp_path, name):
    script = tmp_path / "codex-mcp-swarm"
    script.write_text(SCRIPT % (sys.executable, str(SERVER.parent)))
    script.chmod(0o755)
    env = dict(fake, PATH=str(tmp_path) + os.pathsep + fake["PATH"])
    command = pasted(name, entry_of(env, ["codex-mcp-swarm"], "config", name))
    assert command[0] == str(script) and answers(command, env)


@pytest.mark.parametrize("words", [["-c", "model=x", "config", "codex", "--ephemeral"],
                                   ["config", "codex", "-c", "model=x", "--ephemeral"]])
def test_flags_of_config_are_flags_of_the_server(fake, words):
    command = pasted("codex", entry_of(fake, [sys.executable, str(SERVER)], *words))
    assert command[2:5] == ["-c", "model=x", "--ephemeral"]


def test_a_flag_of_several_words_stays_as_it_was_typed_in_an_entry(fake, tmp_path):
    words = ["--launcher", "srun --ntasks=1", "--codex-home", "work=%s" % tmp_path]
    command = pasted("cursor", entry_of(fake, [sys.executable, str(SERVER)], "config", "cursor", *words))
    assert command[2:] == words


def test_config_as_json_has_the_entry_and_the_command_in_it(fake):
    done = run(fake, "config", "cursor", "--json", "--ephemeral")
    told = json.loads(done.stdout.decode())
    assert (done.returncode, done.stderr, told["client"]) == (0, b"", "cursor")
    assert "mcp.json" in told["where"]
    assert pasted("cursor", told["entry"]) == told["command"] and told["command"][-1] == "--ephemeral"


@pytest.mark.parametrize("flag", [["--codex-bin", "./bin/codex"], ["--codex-bin=./bin/codex"]])
def test_the_path_of_codex_in_an_entry_is_right_wherever_that_is_used(fake, tmp_path, monkeypatch, flag):
    (tmp_path / "bin").mkdir()
    shutil.copy(str(FAKE_CODEX), str(tmp_path / "bin" / "codex"))
    monkeypatch.chdir(tmp_path)
    program = [sys.executable, str(SERVER)]
    command = pasted("cursor", entry_of(fake, program, "config", "cursor", *flag))
    assert "=".join(command[2:]).split("=") == ["--codex-bin", str(tmp_path / "bin" / "codex")]
    bare = pasted("codex", entry_of(fake, program, "config", "codex", "--codex-bin", "sh"))
    assert bare[2:4] == ["--codex-bin", "sh"], "a name is looked for on the client's PATH"


@pytest.mark.parametrize("given", ["./no-such-codex", "no-such-codex"])
def test_a_codex_that_is_not_there_is_told_before_anybody_pastes_it(fake, given):
    done = run(fake, "config", "claude", "--codex-bin", given)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no-such-codex" in done.stderr and b"not found" in done.stderr


@pytest.mark.parametrize("words", [["config"], ["config", "emacs"]])
def test_config_for_no_client_or_an_unknown_one_lists_them_with_exit_2(fake, words):
    done = run(fake, *words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert [name for name in CLIENTS if name.encode() not in done.stderr] == []


def test_the_log_goes_where_it_was_sent_and_not_to_stderr(client, tmp_path):
    c = client(env={"CODEX_SWARM_LOG": str(tmp_path / "log"), "CODEX_SWARM_LOG_LEVEL": "DEBUG"})
    task = c.ok("codex", prompt="SAY x")["task_id"]
    assert c.close() == 0
    assert c.stderr == ""
    log = (tmp_path / "log").read_text()
    for words in ("serves", "tools/call", task + ": launched", task + ": succeeded", "ending"):
        assert words in log


def test_the_log_has_what_its_level_says(client, tmp_path):
    c = client(env={"CODEX_SWARM_LOG": str(tmp_path / "log"), "CODEX_SWARM_LOG_LEVEL": "INFO"})
    c.ok("codex", prompt="SAY x")
    assert c.close() == 0
    assert {line.split()[2] for line in (tmp_path / "log").read_text().splitlines()} == {"INFO"}
