"""Accounts: a call chooses among the homes that the operator named, and a thread stays in its own."""
import json
import os

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

from .helpers import ended, run
from conftest import NO_TMP


@pytest.fixture
def app(swarm, tmp_path):
    """A server with two accounts."""
    for name in ("work", "spare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(NO_TMP)
    return swarm(codex_homes=tuple((name, str(tmp_path / name)) for name in ("work", "spare")))


def homes_of(record):
    """CODEX_HOME and the keys in the environment of the run, and the account that its record shows."""
    given = json.loads(record["content"])["env"]
    return given.get("CODEX_HOME"), given.get("CODEX_API_KEY"), record.get("codex_home")


def test_a_run_has_the_home_that_is_named_and_no_key_goes_before_its_login(app, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEX_API_KEY", "sk-mine")
    assert homes_of(run(app, "ARGV", codex_home="work")) == (str(tmp_path / "work"), None, "work")
    assert homes_of(run(app, "ARGV")) == (None, "sk-mine", None)


def test_a_reply_a_fork_and_a_review_of_the_work_keep_the_account(app, repo):
    first = run(app, "ARGV", codex_home="work", worktree=True)
    known = {"threadId": first["threadId"]}
    assert homes_of(run(app, "ARGV", **known)) == homes_of(first)
    assert homes_of(run(app, "ARGV", fork=True, worktree=True, **known)) == homes_of(first)
    wait = cms.codex_review(app, {"task_id": first["task_id"]}, cms.Call())
    assert ended(app, wait.task_ids)[0]["codex_home"] == "work"


@pytest.mark.parametrize("named, told", [("other", "names work, spare"), ("../work", "names work, spare")])
def test_an_account_that_the_operator_has_not_named_is_refused_with_those_there_are(app, named, told):
    with pytest.raises(ToolError, match=told):
        app.start([{"prompt": "x", "codex_home": named}])


def test_a_server_without_accounts_says_so_also_for_a_thread_that_has_one(app, swarm):
    first = run(app, "SAY x", codex_home="work")
    with pytest.raises(ToolError, match="No --codex-home names one"):
        swarm().start([{"prompt": "x", "threadId": first["threadId"]}])


@pytest.mark.parametrize("began", [{}, {"codex_home": "spare"}])
def test_no_reply_takes_a_thread_to_another_account(app, began):
    first = run(app, "SAY x", **began)
    with pytest.raises(ToolError, match='"work" does not have this thread'):
        app.start([{"prompt": "x", "threadId": first["threadId"], "codex_home": "work"}])


def test_settings_and_profiles_are_those_of_the_account(app, tmp_path):
    (tmp_path / "work" / "fast.config.toml").write_text("")
    plan = lambda **more: app.plan({"prompt": "x", "profile": "fast", **more}).spec.warnings
    assert plan(codex_home="work") == () and "there is no" in plan()[0]
    assert f"{tmp_path}/spare/fast" in plan(codex_home="spare")[0]


def test_what_the_settings_of_an_account_open_counts_for_its_tasks(app, tmp_path, root):
    settings = f"[sandbox_workspace_write]\nwritable_roots = [{json.dumps(str(tmp_path))}]\n"
    (tmp_path / "work" / "config.toml").write_text(settings)
    plan = lambda **more: app.plan({"prompt": "x", "sandbox": "workspace-write", **more}).spec.permissions
    assert os.path.realpath(root) in plan(codex_home="work")["filesystem"] and not plan()
