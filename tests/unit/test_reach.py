"""Where a task would reach ROOT or the worktrees: what codex is told, and what is refused."""
import sys

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

from .helpers import exhausted, run
from conftest import git

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
    assert spec.permissions["filesystem"] == {":slash_tmp": "read", ":tmpdir": "read",
                                              str(repo / "deep"): "read", str(repo): "write",
                                              str(repo / "deep" / "er" / "root"): "none"}
    words = cms.codex_argv(spec)
    assert not any(word.startswith("--sandbox") for word in words)
    assert 'default_permissions="codex_mcp_swarm"' in words
    assert any(str(repo / "deep") in warning for warning in spec.warnings)


def test_settings_that_cannot_be_read_for_want_of_a_descriptor_are_not_taken_for_none(swarm):
    app = swarm()
    with exhausted("config.toml"), pytest.raises(OSError):
        app.start([WRITE])
    with exhausted("config"), pytest.raises(OSError):       # of the repository
        app.start([{**WRITE, "worktree": True}])
    assert app.store.ids() == []


def test_a_worktree_of_a_repository_whose_configuration_cannot_be_read_is_refused_with_advice(swarm, repo):
    (repo / ".git" / "config").unlink()
    (repo / ".git" / "config").symlink_to("nowhere")
    with pytest.raises(ToolError, match="config cannot be read.*No such file.*Look at it"):
        swarm().start([{**WRITE, "worktree": True}])


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
    (("network_access=true",), "permissions.codex_mcp_swarm.network.enabled=true"),
    ((), "permissions.codex_mcp_swarm.network.enabled=false"),
    (("network_access=true", "network_access=false"), "permissions.codex_mcp_swarm.network.enabled=false"),
])
def test_what_has_no_effect_beside_a_profile_goes_into_it(app, settings, words):
    made = app(overrides=tuple("sandbox_workspace_write." + setting for setting in settings))
    assert words in cms.codex_argv(made.plan(WRITE).spec)


@pytest.mark.parametrize("line",
                         ['sandbox_workspace_write.writable_roots=["%s"]',
                          "sandbox_workspace_write={network_access=true, writable_roots=['%s']}"])
def test_a_writable_root_around_root_counts_wherever_it_was_set(swarm, tmp_path, fake, line):
    assert files_of(swarm(overrides=(line % tmp_path,)))[str(tmp_path)] == "write"
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text(config.read_text()
                      + 'writable_roots = [\n  # mine\n  "%s",\n]\n[other]\nnetwork_access = true\n'
                      % tmp_path)
    assert files_of(swarm())[str(tmp_path / "root")] == "none"
    assert files_of(swarm(),
                    config={"sandbox_workspace_write": {"writable_roots": [str(tmp_path)]}})[str(
                        tmp_path / "root")] == "none"


UNDERSTOOD = [
    ('[sandbox_workspace_write]\nwritable_roots = ["/a", \'/b\']\nnetwork_access = true',
     {"writable_roots": ["/a", "/b"], "network_access": True}),
    ('[sandbox_workspace_write]\n# it\'s mine\nwritable_roots = [ "/a", # see ], "/c"\n "/b" ]\n[other]\nx=1',
     {"writable_roots": ["/a", "/b"]}),
    ('[sandbox_workspace_write]\nwritable_roots = [\n  "/a", # it\'s mine\n]\n', {"writable_roots": ["/a"]}),
    ("sandbox_workspace_write.exclude_slash_tmp=true", {"exclude_slash_tmp": True}),
    ("sandbox_workspace_write={network_access=true, writable_roots=['/a']}",
     {"writable_roots": ["/a"], "network_access": True}),
    ("model=gpt-5.5", {}), ("[other]\nnetwork_access = true", {}),
    ("[sandbox_workspace_write]\nnetwork_access = true\n[other]\nx = 1", {"network_access": True}),
    ("sandbox_workspace_write.network_access=false", {"network_access": False}),
]
UNCERTAIN_BEFORE_311 = [
    ('[ "sandbox_workspace_write" ]\nwritable_roots = ["/a"]', {"writable_roots": ["/a"]}),
    ('[sandbox_workspace_write]\n"writable_roots" = ["/a"]', {"writable_roots": ["/a"]}),
    ('[sandbox_workspace_write]\nwritable_roots = ["""\n/a""", "/b\\u0041"]',
     {"writable_roots": ["/a", "/bA"]}),
    ('[sandbox_workspace_write]\nwritable_roots = [ "/a", # see ]\n"/b\\u0041" ]',
     {"writable_roots": ["/a", "/bA"]}),
    ('["sandbox_workspace\\u005fwrite"]\n"writable\\u005froots" = ["/a"]', {"writable_roots": ["/a"]}),
    ('sandbox_workspace_write.writable_roots = [\n"/a"]', {"writable_roots": ["/a"]}),
    ('[sandbox_workspace_write]\nnetwork_access = false # exclude_slash_tmp = true',
     {"network_access": False}),
    ('[sandbox_workspace_write] # writable_roots = ["/"]\n', {}),
]
NEVER = ["[sandbox_workspace_write]\nwritable_roots = 1", "[sandbox_workspace_write]\nwritable_roots = [1]",
         "x = \n[sandbox_workspace_write]\nwritable_roots = [a]"]


@pytest.mark.parametrize("parser", [True, False])
@pytest.mark.parametrize("text, says", UNDERSTOOD + UNCERTAIN_BEFORE_311 + [(text, None) for text in NEVER])
def test_what_a_config_opens_is_understood_or_said_to_be_uncertain(monkeypatch, parser, text, says):
    if not parser:
        monkeypatch.setitem(sys.modules, "tomllib", None)
    certain = parser and sys.version_info >= (3, 11) or (text, says) in UNDERSTOOD
    assert cms.workspace_settings(text) == (says if certain else None)


@pytest.mark.parametrize("at", ["home/.codex/config.toml", "repo/.codex/config.toml"])
@pytest.mark.parametrize("roots", ["[no toml]", "['relative']"])
def test_what_is_not_understood_counts_as_open_and_stays_closed(swarm, tmp_path, at, roots):
    config = tmp_path / at
    config.parent.mkdir(exist_ok=True)
    config.write_text(
        "[sandbox_workspace_write]\nwritable_roots = %s\nexclude_slash_tmp = true\n"
        "exclude_tmpdir_env_var = true\n" % roots)
    spec = swarm().plan(WRITE).spec
    files = spec.permissions["filesystem"]
    assert files[str(tmp_path / "root")] == "none"
    assert any("writable_roots" in warning for warning in spec.warnings)
    assert [path for path, mode in files.items() if mode == "write"] == [str(tmp_path / "repo")]


def test_what_a_project_opens_hides_root_but_is_not_granted_and_elsewhere_changes_nothing(swarm, tmp_path):
    config = tmp_path / "repo" / ".codex" / "config.toml"
    config.parent.mkdir()
    config.write_text("[sandbox_workspace_write]\nwritable_roots = ['%s']\n" % tmp_path)
    files = files_of(swarm())
    assert files[str(tmp_path / "root")] == "none" and str(tmp_path) not in files
    config.write_text("[sandbox_workspace_write]\nwritable_roots = ['/usr']\nnetwork_access = true\n")
    assert swarm().plan(WRITE).spec.permissions == {}


def of_another_base(repo, tmp_path):
    """A branch whose `.codex/config.toml` opens what ROOT lies in; the checkout has none."""
    git(repo, "checkout", "-q", "-b", "open")
    (repo / ".codex").mkdir()
    config = repo / ".codex" / "config.toml"
    config.write_text("[sandbox_workspace_write]\nwritable_roots = ['%s']\n" % tmp_path)
    git(repo, "add", ".codex")
    git(repo, "commit", "-qm", "open")
    git(repo, "checkout", "-q", "main")
    return {"base": "open"}


def test_what_the_base_of_a_worktree_opens_counts_although_the_checkout_has_it_not(swarm, repo, tmp_path):
    app, worktree = swarm(), of_another_base(repo, tmp_path)
    record = run(app, "SAY x", worktree=worktree)
    assert app.store.get(record["task_id"]).spec().permissions["filesystem"][str(tmp_path / "root")] == "none"
    assert app.store.get(run(app, "SAY x", worktree=True)["task_id"]).spec().permissions == {}


def test_where_that_cannot_be_closed_no_task_starts_and_the_worktree_is_gone_again(swarm, repo, tmp_path):
    old, worktree = tmp_path / "old-codex", of_another_base(repo, tmp_path)
    old.write_text("#!/bin/sh\necho codex-cli 0.144.6\n")
    old.chmod(0o755)
    with pytest.raises(ToolError, match="0.154.0"):
        swarm(codex_bin=str(old)).start([{"prompt": "x", "worktree": worktree}])
    assert git(repo, "branch", "--list", "codex-swarm/*") == ""
    assert git(repo, "worktree", "list").count("\n") == 1


def test_tmp_counts_unless_codex_is_told_to_close_it(swarm, tmp_path):
    (tmp_path / "home" / ".codex" / "config.toml").write_text("")
    assert files_of(swarm())[str(tmp_path / "root")] == "none"


@pytest.mark.parametrize("request_, config, words", [
    # codex's own configuration decides
    ({"prompt": "x"}, {}, "without `sandbox`"),
    ({**WRITE, "cwd": "deep/er/root"}, {}, "its to write"),
    ({**WRITE, "cwd": "deep/er/root/worktrees"}, {}, "its to write"),
    *[(WRITE, {"at": "deep/er/ro%sot" % mark}, "for a pattern") for mark in "*?[]"],
])
def test_where_no_profile_can_help_nothing_starts_and_the_reason_is_said(app, repo, request_, config, words):
    (repo / "deep" / "er" / "root" / "worktrees").mkdir(parents=True)
    with pytest.raises(ToolError) as caught:
        app(**config).plan(request_)
    assert words in str(caught.value) and "CODEX_SWARM_TASK_DIR" in str(caught.value)


def test_a_refusal_names_what_root_lies_in_that_the_task_may_write(swarm, tmp_path):
    config = tmp_path / "home" / ".codex" / "config.toml"
    config.write_text("[sandbox_workspace_write]\nexclude_tmpdir_env_var = true\n")
    with pytest.raises(ToolError) as caught:
        swarm(root="/tmp/%s/root" % tmp_path.name).plan({"prompt": "x"})
    assert "part of `/tmp`, which is its to write" in str(caught.value)


def test_a_link_on_the_way_to_root_that_a_task_could_turn_is_refused(swarm, repo, tmp_path):
    (tmp_path / "real").mkdir()
    (repo / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ToolError, match="link"):
        swarm(root=str(repo / "link" / "root"), worktree_dir=str(tmp_path / "trees")).plan(WRITE)


@pytest.mark.parametrize("told, fits",
                         [("codex-cli 0.144.6", False), ("codex-cli 0.154.0", True),
                          ("codex-cli 1.0.0", True), ("nothing", False)])
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
