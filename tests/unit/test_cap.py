"""What an operator allows: no call gets more, however it asks."""
import os

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

from .helpers import run
from conftest import git, new_repository


@pytest.mark.parametrize("cap, arguments, sandbox", [
    ("read-only", {}, "read-only"), ("workspace-write", {}, "read-only"),
    ("workspace-write", {"worktree": True}, "workspace-write"),
    ("read-only", {"worktree": True}, "read-only"),
    ("workspace-write", {"sandbox": "workspace-write"}, "workspace-write"),
    ("workspace-write", {"sandbox": "read-only", "worktree": True}, "read-only"), ("", {}, None),
])
def test_under_a_cap_every_run_names_its_sandbox(swarm, cap, arguments, sandbox):
    spec = swarm(max_sandbox=cap).plan({"prompt": "x", **arguments}).spec
    assert spec.arguments.get("sandbox") == sandbox
    assert [word for word in cms.codex_argv(spec)
            if word.startswith("--sandbox")] == (["--sandbox=" + sandbox] if sandbox else [])


@pytest.mark.parametrize("arguments, named", [
    ({"sandbox": "workspace-write"}, "`sandbox` \"workspace-write\""),
    ({"sandbox": "danger-full-access"}, "`sandbox`"), ({"profile": "p"}, "`profile`"),
    *(({"config": {key: value}}, "`config.%s`" % key) for key, value in [
        ("sandbox_mode", "danger-full-access"), ("sandbox_workspace_write", {"network_access": True}),
        ("sandbox_workspace_write.writable_roots", ["/"]),
        ("notify", ["sh"]), ("mcp_servers", {"x": {"command": "sh"}}), ("mcp_servers.x.command", "sh"),
        ("hooks", {}), ("permissions.x.extends", ":workspace"),
        ("default_permissions", ":danger-full-access"), ("projects", {"/": {"trust_level": "trusted"}}),
        ("shell_environment_policy", {"inherit": "all"}),
        ("model_providers", {}), ("model_provider", "x"), ("features.x", True),
        ("model_instructions_file", "/etc/passwd"), ("log_dir", "/"), ("modelx", 1)])])
def test_what_asks_for_more_than_the_cap_is_refused_by_name_and_never_lowered(swarm, arguments, named):
    with pytest.raises(ToolError) as caught:
        swarm(max_sandbox="read-only").plan({"prompt": "x", **arguments})
    assert named in str(caught.value) and "--max-sandbox read-only" in str(caught.value)
    assert "Leave that out" in caught.value.fix and len(caught.value.fix) < 120, "the next step, and no list"


@pytest.mark.parametrize("cap, arguments, advice", [
    ("workspace-write", {}, '"workspace-write" for that'),
    ("read-only", {}, ""), ("read-only", {"worktree": True}, ""),
    ("workspace-write", {"sandbox": "read-only"}, None), ("read-only", {"sandbox": "read-only"}, None),
    ("workspace-write", {"worktree": True}, None), ("", {}, None)])
def test_where_the_cap_and_not_the_call_chose_read_only_a_warning_says_so(swarm, cap, arguments, advice):
    warnings = swarm(max_sandbox=cap).plan({"prompt": "x", **arguments}).spec.warnings
    said = [w for w in warnings if "nothing can be written" in w and "--max-sandbox" in w]
    assert len(said) == (advice is not None) and all(w.endswith(advice or "written") for w in said)


def test_what_cannot_run_or_open_anything_goes_through_and_the_operator_is_free(swarm):
    config = {"model_reasoning_effort": "high", "web_search": "disabled", "tool_output_token_limit": 5,
              "instructions": "x", "approval_policy": "never"}
    app = swarm(max_sandbox="workspace-write", overrides=("notify=[\"x\"]", "mcp_servers.x.command=\"y\""))
    words = cms.codex_argv(
        app.plan({"prompt": "x", "model": "m", "developer-instructions": "d", "config": config}).spec)
    assert "--sandbox=read-only" in words
    assert 'notify=["x"]' in words
    assert 'model_reasoning_effort="high"' in words


def test_a_reply_cannot_get_more_than_the_cap_from_what_its_thread_began_with(swarm):
    free = swarm(overrides=("notify=[\"x\"]",))
    wide = run(free, "x", sandbox="danger-full-access")
    plain = run(free, "x", sandbox="read-only")
    capped = swarm(max_sandbox="workspace-write")
    with pytest.raises(ToolError, match="--max-sandbox"):
        capped.plan({"prompt": "x", "task_id": wide["task_id"]})
    assert capped.plan(
        {"prompt": "x", "task_id": wide["task_id"],
         "sandbox": "read-only"}).spec.arguments["sandbox"] == "read-only"
    assert 'notify=["x"]' not in cms.codex_argv(
        capped.plan({"prompt": "x", "task_id": plain["task_id"]}).spec)


# -- where ---------------------------------------------------------------------------------------------
@pytest.fixture
def outside(tmp_path):
    return new_repository(tmp_path / "outside")


def test_a_call_works_only_below_an_allowed_root_with_links_resolved(swarm, repo, outside):
    (repo / "way-out").symlink_to(outside)
    (outside / "way-in").symlink_to(repo)
    app = swarm(allow_roots=(str(repo),))
    for cwd in (outside, repo / "way-out", repo.parent, "/"):
        with pytest.raises(ToolError, match="--allow-root"):
            app.plan({"prompt": "x", "cwd": str(cwd)})
    assert app.plan({"prompt": "x", "cwd": str(outside / "way-in")}).spec.cwd == str(repo)
    assert swarm(allow_roots=("/nowhere", str(outside))).plan({"prompt": "x", "cwd": str(outside)})


def test_a_git_file_that_leads_out_of_the_allowed_root_is_not_followed(swarm, repo, outside):
    (repo / "sub").mkdir()
    (repo / "sub" / ".git").write_text("gitdir: %s\n" % (outside / ".git"))
    app = swarm(allow_roots=(str(repo),))
    for more in ({}, {"worktree": True}):
        with pytest.raises(ToolError, match="--allow-root"):
            app.plan({"prompt": "x", "cwd": str(repo / "sub"), **more})
    linked = repo.parent / "linked"
    git(repo, "worktree", "add", "-q", str(linked))
    assert swarm(allow_roots=(str(linked),)).plan({"prompt": "x", "cwd": str(linked), "worktree": True})


def test_a_worktree_counts_as_the_checkout_that_it_was_made_from(swarm, repo, outside):
    app = swarm(allow_roots=(str(repo),))
    first = run(app, "WRITE one 1", worktree=True)
    assert run(app, "WRITE two 2", task_id=first["task_id"])["worktree"]["files_changed"] == 2
    assert app.diff(first["task_id"], None, "stat", [])["files_changed"] == 1
    assert app.merge([first["task_id"]], cms.Call(), cms.Wish(dry_run=True))["merged"] == [first["task_id"]]
    other = swarm(allow_roots=(str(outside),))
    for call in (lambda: other.plan({"prompt": "x", "task_id": first["task_id"]}),
                 lambda: other.plan({"prompt": "x", "cwd": first["worktree"]["path"]}),
                 lambda: other.diff(first["task_id"], None, "stat", []),
                 lambda: other.merge([first["task_id"]], cms.Call(), cms.Wish()),
                 lambda: other.merge([first["task_id"]], cms.Call(), cms.Wish(cwd=str(repo)))):
        with pytest.raises(ToolError, match="--allow-root"):
            call()


def test_the_repository_around_an_allowed_directory_is_not_copied_from(swarm, repo):
    (repo / "part").mkdir()
    (repo / "part" / "file").write_text("")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "part")
    app = swarm(allow_roots=(str(repo / "part"),))
    assert app.plan({"prompt": "x", "cwd": "part"}).spec.cwd == os.path.realpath(repo / "part")
    with pytest.raises(ToolError, match="--allow-root"):
        app.plan({"prompt": "x", "cwd": "part", "worktree": True})
