"""Arguments are checked before anything starts; a refusal says which one, what is wrong, and what to do."""
import json

import pytest

from conftest import task_dirs

MAX_PROMPT_CHARS = 1048576

# tool, arguments, what the refusal must name
BAD = [
    ("codex", {}, ["prompt"]),
    ("codex", {"prompt": ""}, ["prompt", "empty"]),
    ("codex", {"prompt": " \n\t"}, ["prompt", "empty"]),
    ("codex", {"prompt": 5}, ["prompt", "string"]),
    ("codex", {"prompt": None}, ["prompt", "string"]),
    ("codex", {"prompt": ["x"]}, ["prompt", "string"]),
    ("codex", {"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, ["prompt", "1,048,576"]),
    ("codex", {"prompt": "x", "frobnicate": 1}, ["frobnicate"]),
    ("codex", {"prompt": "x", "sandbox": "none"},
     ["sandbox", "read-only", "workspace-write", "danger-full-access"]),
    ("codex", {"prompt": "x", "sandbox": True}, ["sandbox"]),
    ("codex", {"prompt": "x", "approval-policy": "always"}, ["approval-policy", "never"]),
    ("codex", {"prompt": "x", "model": 5}, ["model", "string"]),
    ("codex", {"prompt": "x", "config": "model=x"}, ["config", "object"]),
    ("codex", {"prompt": "x", "config": []}, ["config", "object"]),
    ("codex", {"prompt": "x", "config": {"x": None}}, ["config", "null"]),
    ("codex", {"prompt": "x", "config": {"": 1}}, ["config"]),
    ("codex", {"prompt": "x", "config": {"a=b": 1}}, ["config", "a=b"]),
    ("codex", {"prompt": "x", "model": "a\0b"}, ["model"]),
    ("codex", {"prompt": "x", "model": ""}, ["model"]),
    ("codex", {"prompt": "x", "profile": "../x"}, ["profile"]),
    ("codex", {"prompt": "x", "developer-instructions": "x" * 200000}, ["developer-instructions", "long"]),
    ("codex", {"prompt": "x", "cwd": "a\0b"}, ["cwd"]),
    ("codex", {"prompt": "x", "cwd": ""}, ["cwd"]),
    ("codex", {"prompt": "x", "worktree": "yes"}, ["worktree", "boolean"]),
    ("codex", {"prompt": "x", "timeout_s": "soon"}, ["timeout_s", "number"]),
    ("codex", {"prompt": "x", "timeout_s": True}, ["timeout_s", "number"]),
    ("codex", {"prompt": "x", "timeout_s": -1}, ["timeout_s"]),
    ("codex", {"prompt": "x", "timeout_s": 0}, ["timeout_s"]),
    ("codex", {"prompt": "x", "cwd": "/no/such/folder"}, ["cwd", "/no/such/folder"]),
    ("codex", {"prompt": "x", "cwd": "README"}, ["cwd", "README", "directory"]),
    ("codex", {"prompt": "x", "cwd": "no-such-subfolder"}, ["cwd", "no-such-subfolder"]),
    ("codex", {"prompt": "x", "cwd": "/"}, ["--skip-git-repo-check", "git"]),
    ("codex_async", {"prompt": "x", "frobnicate": 1}, ["frobnicate"]),
    ("codex_async", {"prompt": "", "threadId": "01a1fae2-0000-7c70-9702-579ef587dc24"}, ["prompt"]),
    ("codex_reply", {"prompt": "x"}, ["threadId", "task_id"]),
    ("codex_reply", {"threadId": "01a1fae2-0000-7c70-9702-579ef587dc24"}, ["prompt"]),
    ("codex_reply", {"prompt": "x", "task_id": "0123456789ab"}, ["0123456789ab"]),
    ("codex_reply", {"prompt": "x", "threadId": 5}, ["threadId"]),
    ("codex_batch", {}, ["tasks"]),
    ("codex_batch", {"tasks": []}, ["tasks"]),
    ("codex_batch", {"tasks": "x"}, ["tasks", "array"]),
    ("codex_batch", {"tasks": ["x"]}, ["tasks[0]"]),
    ("codex_batch", {"tasks": [{"prompt": "x"}], "wait": "no"}, ["wait", "boolean"]),
    ("codex_batch", {"tasks": [{"prompt": "x"}], "defaults": {"frobnicate": 1}}, ["defaults", "frobnicate"]),
    ("codex_batch", {"tasks": [{"prompt": "x"}], "defaults": {"cwd": "/no/such/folder"}},
     ["cwd", "/no/such/folder"]),
    ("codex_wait", {}, ["task_ids"]),
    ("codex_wait", {"task_ids": []}, ["task_ids"]),
    ("codex_wait", {"task_ids": "0123456789ab"}, ["task_ids", "array"]),
    ("codex_wait", {"task_ids": [5]}, ["task_ids[0]"]),
    ("codex_wait", {"task_ids": ["0123456789ab"]}, ["0123456789ab"]),
    ("codex_wait", {"task_ids": ["../../../etc"]}, ["../../../etc"]),
    ("codex_wait", {"task_ids": ["."]}, ["There is no task `.`"]),
    ("codex_wait", {"task_ids": ["0123456789ab"], "mode": "some"}, ["mode", "any", "all"]),
    ("codex_wait", {"task_ids": ["0123456789ab"], "timeout_s": -5}, ["timeout_s"]),
    ("codex_wait", {"task_ids": ["0123456789ab"], "offset": -1}, ["offset"]),
    ("codex_wait", {"task_ids": ["0123456789ab"], "max_chars": 0}, ["max_chars"]),
    ("codex_wait", {"task_ids": ["0123456789ab"], "offset": 1.5}, ["offset", "integer"]),
    ("codex_status", {"task_ids": ["0123456789ab"]}, ["0123456789ab"]),
    ("codex_status", {"task_id": "0123456789ab"}, ["task_id", "task_ids"]),
    ("codex_cancel", {}, ["task_ids"]),
    ("codex_cancel", {"task_ids": []}, ["task_ids"]),
]


def test_a_bad_argument_is_named_and_nothing_is_started(client, root):
    c = client()
    for tool, arguments, words in BAD:
        text = c.refused(tool, arguments)
        about = tool, json.dumps(arguments)[:60], text
        assert all(word in text for word in words), about
        assert len(text) < 2000, ("a refusal is short, whatever was sent", about)
        assert len(text.split()) >= 5, ("what is wrong, and what to do", about)
        assert task_dirs(root) == [], about


def test_a_prompt_of_exactly_the_limit_is_counted_in_characters_and_runs(client):
    prompt = ("ARGV\n" + "\u00e4" * MAX_PROMPT_CHARS)[:MAX_PROMPT_CHARS]
    assert json.loads(client().ok("codex", prompt=prompt)["content"])["prompt_chars"] == MAX_PROMPT_CHARS


# -- all or nothing ----------------------------------------------------------------------------------
BAD_ENTRIES = [
    ({"prompt": ""}, "prompt"),
    ({}, "prompt"),
    ({"prompt": "x", "cwd": "/no/such/folder"}, "cwd"),
    ({"prompt": "x", "frobnicate": 1}, "frobnicate"),
    ({"prompt": "x", "sandbox": "none"}, "sandbox"),
    ({"prompt": "x", "cwd": "/"}, "--skip-git-repo-check"),
]


@pytest.mark.parametrize("wait", [True, False])
def test_one_bad_entry_of_a_batch_is_named_and_nothing_starts(client, root, wait):
    c = client()
    for bad, word in BAD_ENTRIES:
        text = c.refused("codex_batch", {"tasks": [{"prompt": "x"}, bad, {"prompt": "x"}], "wait": wait})
        assert "tasks[1]" in text and word in text, (bad, text)
        assert "tasks[0]" not in text and "tasks[2]" not in text, (bad, text)
        assert task_dirs(root) == [], bad


def test_every_bad_entry_of_a_batch_is_named(client, root):
    tasks = [{"prompt": ""}, {"prompt": "x"}, {"prompt": "x", "model": 5}]
    text = client().refused("codex_batch", {"tasks": tasks})
    assert "tasks[0]" in text and "tasks[2]" in text and "tasks[1]" not in text


# -- what reaches codex ------------------------------------------------------------------------------
def facts(c, **arguments):
    """What fake_codex saw of a run."""
    return json.loads(c.ok("codex", prompt="ARGV", **arguments)["content"])


def model_of(seen):
    return (seen["options"].get("model") or [seen["config"].get("model")])[-1]


@pytest.mark.parametrize("style", ["kebab", "snake"])
def test_kebab_case_and_snake_case_are_the_same_argument(client, style):
    given = {"developer-instructions": "be \"brief\"\n5",
             "base-instructions": "you are\ta test",
             "compact-prompt": "true"}
    arguments = {name if style == "kebab" else name.replace("-", "_"): text for name, text in given.items()}
    config = facts(client(), **arguments)["config"]
    keys = ("developer_instructions", "instructions", "compact_prompt")
    assert [config[key] for key in keys] == list(given.values())


@pytest.mark.parametrize("name", ["approval-policy", "approval_policy"])
def test_an_approval_policy_is_accepted_with_a_warning_that_it_has_no_effect(client, name):
    c = client()
    for policy in ("untrusted", "on-failure", "on-request"):
        record = c.ok("codex", prompt="SAY x", **{name: policy})
        assert any("approval" in w and "never" in w for w in record["warnings"]), record


def test_the_approval_policy_never_needs_no_warning(client):
    assert "warnings" not in client().ok("codex", prompt="SAY x", **{"approval-policy": "never"})


def test_model_sandbox_profile_and_cwd_reach_codex(client, repo):
    (repo / "sub").mkdir()
    seen = facts(client(), model="gpt-5.5", sandbox="workspace-write", profile="mine", cwd="sub")
    assert (seen["options"]["sandbox"], seen["options"]["profile"]) == (["workspace-write"], ["mine"])
    assert "gpt-5.5" in (seen["options"].get("model") or [seen["config"].get("model")])
    assert seen["cwd"] == str(repo / "sub")


def test_a_string_of_config_stays_that_string(client):
    c = client()
    for value in ("true", "5", "1.5", "nan", "[1]", "{a=1}", "\"quoted\" # no comment", "it's", "a\\b",
                  "two\nlines", "\U0001f41d", " spaces ", "", "a=b", "a\0b", "\x7f\x1b"):
        assert facts(c, config={"developer_instructions": value})["config"]["developer_instructions"] == value


def test_nested_config_becomes_dotted_keys_and_keeps_its_types(client):
    mock = {"name": "m", "retries": 0, "flag": True}
    seen = facts(client(), config={"model_providers": {"mock": mock}, "numbers": [1, 2]})["config"]
    assert {key: seen[key] for key in seen if key.startswith(("model_providers", "numbers"))} == {
        "model_providers.mock.name": "m",
        "model_providers.mock.retries": 0,
        "model_providers.mock.flag": True,
        "numbers": [1, 2]}


def test_a_config_key_that_is_not_bare_goes_out_as_an_inline_table(client):
    """codex splits a dotted path at every dot and knows no quotes in it."""
    seen = facts(client(), config={"projects": {"/a.b": {"trust_level": "trusted"}}})
    given = [word.replace(" ", "") for word in seen["options"]["config"]]
    assert 'projects={"/a.b"={"trust_level"="trusted"}}' in given


def test_a_model_that_looks_like_a_flag_stays_a_model(client):
    seen = facts(client(), model="--version")
    assert model_of(seen) == "--version"


def test_the_approval_policy_of_the_server_is_not_passed_to_codex_which_rejects_it(client):
    record = client("-c", "approval_policy=untrusted").ok("codex", prompt="ARGV")
    assert "approval_policy" not in json.loads(record["content"])["config"]
    assert any("approval" in w for w in record["warnings"])


def test_an_approval_policy_inside_config_does_not_break_the_run_unexplained(client):
    result = client().call("codex", {"prompt": "x", "config": {"approval_policy": "untrusted"}})
    record = result["structuredContent"]
    assert record["outcome"] == "succeeded" and record["warnings"] or record["failure"]["kind"] == "config"


def test_server_defaults_apply_and_arguments_override_them(client):
    defaults = ("model=gpt-5.5", "sandbox_mode=workspace-write", "model_reasoning_effort=high")
    c = client(*(word for default in defaults for word in ("-c", default)))
    plain = facts(c)
    other = facts(c, model="gpt-6-sol", sandbox="read-only", config={"model_reasoning_effort": "low"})

    def effective(seen):
        options, config = seen["options"], seen["config"]
        sandbox = options.get("sandbox") or [config.get("sandbox_mode")]
        return model_of(seen), sandbox[-1], config["model_reasoning_effort"]
    assert effective(plain) == ("gpt-5.5", "workspace-write", "high")
    assert effective(other) == ("gpt-6-sol", "read-only", "low")


def test_outside_a_repository_the_flag_lets_codex_run(client, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "--skip-git-repo-check" in client().refused("codex", {"prompt": "x", "cwd": str(outside)})
    seen = facts(client("--skip-git-repo-check"), cwd=str(outside))
    assert (seen["cwd"], "skip-git-repo-check" in seen["options"]) == (str(outside), True)


def test_the_advice_of_a_refusal_does_not_contradict_its_message(client, tmp_path):
    outside = {"prompt": "x", "cwd": str(tmp_path), "worktree": True}
    stranger = {"prompt": "x", "threadId": "0" * 8 + "-0000-7000-8000-" + "0" * 12}
    c = client("--skip-git-repo-check")
    calls = [("codex", outside, "leave `worktree` out"), ("codex_reply", stranger, "Pass `cwd`")]
    for tool, arguments, step in calls:
        failure = c.call(tool, arguments)["structuredContent"]["failure"]
        advice = failure["advice"]
        assert step in advice and advice in failure["message"]
        assert "--skip-git-repo-check" not in advice and "Check the thread" not in advice


def test_the_empty_git_directory_that_codex_leaves_above_makes_no_repository(client, tmp_path):
    (tmp_path / ".git").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    for request in ({"prompt": "x"}, {"prompt": "x", "worktree": True}):
        assert "not in a git repository" in client().refused("codex", {**request, "cwd": str(outside)})


def test_the_defaults_of_a_batch_are_shared_and_an_entry_overrides_them(client, repo):
    (repo / "sub").mkdir()
    records = client().ok("codex_batch", defaults={"model": "gpt-5.5", "cwd": "sub"},
                          tasks=[{"prompt": "ARGV"}, {"prompt": "ARGV", "model": "gpt-6-sol"}])["tasks"]
    seen = [json.loads(r["content"]) for r in records]
    assert [model_of(each) for each in seen] == ["gpt-5.5", "gpt-6-sol"]
    assert [f["cwd"] for f in seen] == [str(repo / "sub")] * 2
