"""The doctor: what is whole is said to be, what can break is broken once, and nothing is repaired."""
import json
import os
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms

CODEX = """#!/bin/sh
case "$1" in
    --version) echo codex-cli {version} ;;
    login) {login} ;;
    sandbox) {sandbox} ;;
    mcp) {mcp} ;;
esac
"""
WHOLE = {"version": "0.169.0", "login": "echo 'API key configured - sk-proj-***RSTUV' >&2",
         "sandbox": ": > made", "mcp": "echo '[]'"}
LEAKS = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'


@pytest.fixture
def doctor(swarm, tmp_path, monkeypatch):
    """A factory: `doctor(sandbox="...", root="...")`, for a codex that is a script with these parts, and a
    server with these settings: name -> finding."""
    def make(**given):
        path = tmp_path / "codex"
        parts = {name: given.pop(name, part) for name, part in WHOLE.items()}
        path.write_text(CODEX.format(**parts))
        path.chmod(0o700)
        app = swarm(**{"codex_bin": str(path), **given})
        return {one.name: one for one in app.doctor()}
    return make


def test_what_is_whole_is_said_to_be_and_nothing_is_left_behind(doctor, root, tmp_path):
    before = sorted(os.listdir(tmp_path))
    found = doctor()
    assert list(found) == ["codex", "login", "sandbox", "reach", "git", "root", "locks", "space", "clients"]
    assert [name for name, one in found.items() if one.health.value != "ok"] == ["clients"]
    assert "RSTUV" not in found["login"].what
    assert sorted(os.listdir(tmp_path)) == sorted({*before, "codex"}) and not root.exists()


BROKEN = [
    ("codex", {"codex_bin": "/no/codex"}, "broken", "npm install"),
    ("codex", {"version": "0.12.0"}, "warning", "0.144 to 0.169"),
    ("codex", {"version": "0.170.0"}, "warning", "unknown_events"),
    ("codex", {"version": "of nothing"}, "warning", "0.144 to 0.169"),
    ("login", {"login": "echo 'Not logged in' >&2; exit 1"}, "broken", "codex login"),
    ("sandbox", {"sandbox": "echo 'bwrap: No permissions' >&2; exit 1"}, "broken", "namespaces"),
    ("sandbox", {"sandbox": LEAKS}, "broken", "outside"),
    ("locks", {"root": "/dev/null/below"}, "broken", "CODEX_SWARM_TASK_DIR"),
    ("space", {"min_free_mb": 1 << 50}, "broken", "sweep"),
]


@pytest.mark.parametrize("name, given, health, told", BROKEN)
def test_what_is_broken_is_found_and_what_to_do_is_said(doctor, name, given, health, told):
    found = doctor(**given)[name]
    assert found.health.value == health and told in f"{found.what} {found.fix}" and found.fix, found


def test_without_codex_nothing_is_asked_of_it(doctor):
    assert not {"login", "sandbox", "reach"} & set(doctor(codex_bin="/no/codex"))


@pytest.mark.parametrize("setting, named", [("model_provider = 'mine'", "mine"), ("", "CODEX_API_KEY")])
def test_a_provider_or_a_key_of_ones_own_is_no_missing_login(doctor, tmp_path, monkeypatch, setting, named):
    (tmp_path / "home" / ".codex" / "config.toml").write_text(setting)
    if not setting:
        monkeypatch.setenv("CODEX_API_KEY", "sk-secret")
    found = doctor(login="exit 1")["login"]
    assert found.health is cms.Health.OK and named in found.what and "secret" not in found.what


def test_the_login_of_each_account_is_asked_for_in_its_own_home(doctor, monkeypatch):
    monkeypatch.setenv("CODEX_API_KEY", "sk-secret")
    login = 'test "$CODEX_HOME$CODEX_API_KEY" = /work && echo yes || exit 1'
    found = doctor(login=login, codex_homes=(("work", "/work"), ("spare", "/s")))
    assert found["login work"].health is cms.Health.OK
    assert (found["login spare"].health, found["login spare"].fix) == (
        cms.Health.BROKEN, "`CODEX_HOME=/s codex login` does that")


@pytest.mark.parametrize("said, health", [("2.17.1", "broken"), ("2.30.2", "warning")])
def test_an_old_git_is_found_by_what_it_cannot_do(doctor, tmp_path, monkeypatch, said, health):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\necho git version {said}\n")
    (tmp_path / "bin" / "git").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    found = doctor()["git"]
    assert found.health.value == health and "2.38" in found.what + found.fix


def test_the_command_that_closes_a_root_to_others_works_whatever_the_root_is_called(doctor, tmp_path):
    root = tmp_path / "it's mine; $HOME"
    root.mkdir(mode=0o755)
    subprocess.run(doctor(root=str(root))["root"].fix.strip("`"), shell=True, check=True)
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode, health", [(0o700, "ok"), (0o755, "warning"), (0o777, "broken")])
def test_a_root_that_others_can_enter_is_found_and_left_as_it_is(doctor, root, mode, health):
    root.mkdir()
    root.chmod(mode)
    found = doctor()["root"]
    assert found.health.value == health and ("chmod" in found.fix) == (health != "ok")
    assert root.stat().st_mode & 0o777 == mode and os.listdir(root) == []


def test_a_root_that_is_a_link_is_found(doctor, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    assert doctor()["root"].health is cms.Health.BROKEN


def test_a_root_that_tasks_could_write_and_no_profile_hides_is_found(doctor, repo):
    (repo / "root").mkdir()
    inside = {"root": str(repo / "root"), "worktree_dir": str(repo / "root" / "worktrees")}
    assert "hidden" in doctor(**inside)["reach"].what
    assert doctor(version="0.144.6", **inside)["reach"].health is cms.Health.BROKEN


def settings(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def entry(**more):
    return {"mcpServers": {"other": {"url": "x"}, "codex-swarm": {"command": sys.executable, **more}}}


CLIENTS = [
    (".claude.json", entry(), "claude", "ok", "hours"),
    (".claude.json", entry(timeout=60000), "claude", "warning", "60 s"),
    (".claude.json", entry(command="/no/python"), "claude", "broken", "`/no/python`"),
    (".claude.json", entry(args=["/no/codex_mcp_swarm.py"]), "claude", "broken", "`/no/codex_mcp_swarm.py`"),
    (".cursor/mcp.json", {"mcpServers": {"mine": {"command": "env", "args": ["codex-mcp-swarm"]}}},
     "cursor", "ok", "60 s"),
    (".gemini/settings.json", entry(), "gemini", "warning", "10 min"),
    (".gemini/settings.json", entry(timeout=3600000), "gemini", "ok", "60 min"),
    (".config/opencode/opencode.json", {"mcp": {"codex-swarm": {"command": [sys.executable, "-V"]}}},
     "opencode", "ok", "60 s"),
    (".gemini/settings.json", '{"mcpServers": {', "gemini", "warning", "JSON"),
    (".gemini/settings.json", "[" * 100_000, "gemini", "warning", "JSON"),
    (".gemini/settings.json", '{"mcpServers": ["codex-swarm"]}', "gemini", "warning", "JSON"),
    (".gemini/settings.json", '{"mcpServers": {"codex-swarm": 7}}', "gemini", "warning", "JSON"),
]


@pytest.mark.parametrize("file, data, client, health, told", CLIENTS)
def test_a_client_is_told_whether_it_can_start_us_and_how_long_it_waits(doctor, tmp_path, file, data, client,
                                                                       health, told):
    settings(tmp_path / "home" / file, data)
    found = doctor()["client " + client]
    assert found.health.value == health and told in found.what and bool(found.fix) == (health != "ok"), found


def test_claude_codes_entry_for_this_directory_counts_and_that_of_another_does_not(doctor, tmp_path, repo):
    of_projects = lambda path: {"projects": {str(path): entry()}}
    settings(tmp_path / "home" / ".claude.json", of_projects(tmp_path))
    assert "client claude" not in doctor()
    settings(tmp_path / "home" / ".claude.json", of_projects(repo))
    assert doctor()["client claude"].health is cms.Health.OK


@pytest.mark.parametrize("limit_s, health", [(None, "ok"), (3600.0, "ok"), (60.0, "warning")])
def test_codex_is_asked_for_its_own_entry(doctor, limit_s, health):
    row = {"name": "codex-swarm", "enabled": True, "tool_timeout_sec": limit_s}
    told = json.dumps([{**row, "transport": {"type": "stdio", "command": "sh", "args": []}}])
    assert doctor(mcp=f"echo '{told}'")["client codex"].health.value == health


def test_a_file_system_that_locks_nothing_is_found(doctor, monkeypatch):
    monkeypatch.setattr(cms.fcntl, "flock", lambda fd, how: None)
    found = doctor()["locks"]
    assert found.health is cms.Health.BROKEN and "CODEX_SWARM_TASK_DIR" in found.fix


def test_the_command_says_the_same_to_people_and_programs(doctor, capsys, tmp_path):
    doctor()
    words = ["doctor", "--codex-bin", str(tmp_path / "codex")]
    assert cms.run_typed(words, os.environ) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "codex", str(tmp_path / "codex") + ",", "version", "0.169.0"]
    assert cms.run_typed([*words, "--json"], os.environ) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["name"] for one in findings] == [line.split()[1] for line in lines if line[0] != " "]
    assert cms.run_typed(["doctor", "--codex-bin", "/no/codex"], os.environ) == 1


def test_a_doctor_whose_directory_is_gone_says_all_the_same_what_it_can(doctor, tmp_path, monkeypatch):
    settings(tmp_path / "home" / ".claude.json", entry())
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert [one.health.value for one in doctor().values()] == ["ok"] * 9
