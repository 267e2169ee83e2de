"""Where a task would reach ROOT or the worktrees: what codex is told, and what is refused."""
import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

WRITE = {"prompt": "x", "sandbox": "workspace-write"}


@pytest.fixture
def app(swarm, repo):
    """A swarm whose ROOT lies in the repository."""
    def make(at="deep/er/root", **config):
        (repo / at).mkdir(parents=True, exist_ok=True)
        return swarm(**{"root": str(repo / at), "worktree_dir": str(repo / at / "worktrees"), **config})
    return make


def files_of(app, **request):
    return app.plan({**WRITE, **request}).spec.permissions["filesystem"]


def test_root_is_hidden_the_way_to_it_is_read_only_and_the_rest_stays_writable(app, repo, tmp_path):
    made = app()
    spec = made.plan(WRITE).spec
    assert spec.permissions["filesystem"] == {":slash_tmp": "read", ":tmpdir": "read", str(repo / "deep"): "read", str(repo): "write", str(repo / "deep" / "er" / "root"): "none"}
    words = cms.codex_argv(spec)
    assert not any(word.startswith("--sandbox") for word in words) and 'default_permissions="codex_mcp_swarm"' in words
    assert any(str(repo / "deep") in warning for warning in spec.warnings)


def test_elsewhere_the_sandbox_stays_as_it_is(swarm, tmp_path):
    spec = swarm().plan(WRITE).spec
    assert spec.permissions == {} and "--sandbox=workspace-write" in cms.codex_argv(spec)


@pytest.mark.parametrize("mode", ["read-only", "danger-full-access"])
def test_only_workspace_write_needs_it(app, mode):
    assert app().plan({**WRITE, "sandbox": mode}).spec.permissions == {}


def test_the_mode_may_come_from_config_or_from_the_flags_of_the_server(app):
    assert app().plan({"prompt": "x", "config": {"sandbox_mode": "workspace-write"}}).spec.permissions
    assert app(overrides=('sandbox_mode="workspace-write"',)).plan({"prompt": "x"}).spec.permissions


def test_a_worktree_of_its_own_is_opened_again_and_those_of_others_stay_readable_only(swarm, repo):
    trees = repo / "trees"
    trees.mkdir()
    app = swarm(worktree_dir=str(trees))
    assert files_of(app)[str(trees)] == "read"
    inside = app.plan({"prompt": "x", "worktree": True}).spec
    assert inside.permissions == {}, "it may write nothing but its own worktree"


@pytest.mark.parametrize("settings, words", [
    (("network_access=true",), "permissions.codex_mcp_swarm.network.enabled=true"), ((), "permissions.codex_mcp_swarm.network.enabled=false"),
    (("network_access=true", "network_access=false"), "permissions.codex_mcp_swarm.network.enabled=false"),
])
def test_what_has_no_effect_beside_a_profile_goes_into_it(app, settings, words):
    made = app(overrides=tuple("sandbox_workspace_write." + setting for setting in settings))
    assert words in cms.codex_argv(made.plan(WRITE).spec)


@pytest.mark.parametrize("line", ['sandbox_workspace_write.writable_roots=["%s"]', "sandbox_workspace_write={network_access=true, writable_roots=['%s']}"])
def test_a_writable_root_around_root_counts_wherever_it_was_set(swarm, tmp_path, fake, line):
    assert files_of(swarm(overrides=(line % tmp_path,)))[str(tmp_path)] == "write"
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text(config.read_text() + 'writable_roots = [\n  # mine\n  "%s",\n]\n[other]\nnetwork_access = true\n' % tmp_path)
    assert files_of(swarm())[str(tmp_path / "root")] == "none"
    assert files_of(swarm(), config={"sandbox_workspace_write": {"writable_roots": [str(tmp_path)]}})[str(tmp_path / "root")] == "none"


def test_tmp_counts_unless_codex_is_told_to_close_it(swarm, tmp_path):
    (tmp_path / "home" / ".codex" / "config.toml").write_text("")
    assert files_of(swarm())[str(tmp_path / "root")] == "none"


@pytest.mark.parametrize("request_, config, words", [
    ({"prompt": "x"}, {}, "which `sandbox`"),                                               # codex's own configuration decides
    ({**WRITE, "cwd": "deep/er/root"}, {}, "its to write"),
    ({**WRITE, "cwd": "deep/er/root/worktrees"}, {}, "its to write"),
])
def test_where_no_profile_can_help_nothing_starts_and_the_reason_is_said(app, repo, request_, config, words):
    (repo / "deep" / "er" / "root" / "worktrees").mkdir(parents=True)
    with pytest.raises(ToolError) as caught:
        app(**config).plan(request_)
    assert words in str(caught.value) and "CODEX_SWARM_TASK_DIR" in str(caught.value)


def test_a_link_on_the_way_to_root_that_a_task_could_turn_is_refused(swarm, repo, tmp_path):
    (tmp_path / "real").mkdir()
    (repo / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ToolError, match="link"):
        swarm(root=str(repo / "link" / "root"), worktree_dir=str(tmp_path / "trees")).plan(WRITE)


@pytest.mark.parametrize("told, fits", [("codex-cli 0.144.6", False), ("codex-cli 0.154.0", True), ("codex-cli 1.0.0", True), ("nothing", False)])
def test_a_codex_that_has_no_profiles_is_refused_and_asked_once(app, tmp_path, told, fits):
    codex = tmp_path / "old-codex"
    codex.write_text("#!/bin/sh\necho asked >> %s\necho %s\n" % (tmp_path / "asked", told))
    codex.chmod(0o755)
    made = app(codex_bin=str(codex))
    for _ in range(2):
        if fits:
            assert made.plan(WRITE).spec.permissions
        else:
            with pytest.raises(ToolError, match="0.154.0"):
                made.plan(WRITE)
    assert (tmp_path / "asked").read_text().split() == ["asked"]


def test_a_reply_gets_the_same_protection(app):
    made = app()
    [first] = made.start([WRITE])
    made.wait([first], 60, cms.Call())
    assert made.plan({"prompt": "x", "task_id": first}).spec.permissions == made.plan(WRITE).spec.permissions
