"""The command line of a run: every argument where codex accepts it, every value as TOML reads it."""
import functools
import json

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Spec, ToolError

try:
    import tomllib                      # 3.11 and newer
except ImportError:
    try:
        import tomli as tomllib         # older: pytest may have brought it
    except ImportError:
        tomllib = None

THREAD = "01a1fae2-9a16-7c70-9702-579ef587dc24"
ALL = {"model": "m", "sandbox": "read-only", "approval-policy": "never", "profile": "p",
       "config": {"a": {"b": 1}}, "base-instructions": "i",
       "developer-instructions": "d", "compact-prompt": "c"}


def argv(arguments, **more):
    return cms.codex_argv(Spec("0" * 12, 0.0, "/bin/codex", "/", arguments, **more), "/task")


def test_a_bare_run_is_exec_with_json_and_the_prompt_from_stdin():
    assert argv({}) == ["/bin/codex", "exec", "--json", "-"]


def test_a_new_run_passes_every_argument():
    assert argv(ALL, overrides=("x=1",), skip_git_repo_check=True, ephemeral=True) == [
        "/bin/codex", "exec", "--sandbox=read-only", "--profile=p", "--json", "--skip-git-repo-check",
        "--ephemeral", "-c", "x=1", "--model=m",
        "-c", "a.b=1", "-c", 'model_instructions_file="/task/base-instructions"', "-c",
        'developer_instructions="d"',
        "-c", 'experimental_compact_prompt_file="/task/compact-prompt"', "-"]


def test_resume_has_before_it_what_it_rejects_behind_it():
    words = argv(ALL, overrides=("x=1",), skip_git_repo_check=True, thread_id=THREAD)
    at = words.index("resume")
    assert set(words[2:at]) == {"--sandbox=read-only", "--profile=p"}
    assert {"--json", "--skip-git-repo-check", "--model=m", "x=1", "a.b=1"} < set(words[at:])
    assert words[-2:] == [THREAD, "-"]


def test_what_a_call_says_comes_after_what_the_server_says_so_that_it_wins():
    words = argv({"config": {"model_reasoning_effort": "high"}},
                 overrides=("model_reasoning_effort=low", "b=2"))
    assert [words[i + 1]
            for i, word in enumerate(words) if word == "-c"] == ["model_reasoning_effort=low", "b=2",
                                                          'model_reasoning_effort="high"']


def test_the_approval_policy_and_the_prompt_are_never_in_argv():
    assert "prompt" not in Spec._fields
    assert argv({"approval-policy": "untrusted"}) == argv({})


@pytest.mark.parametrize("name, value",
                         [("model", "-x"), ("model", "--help"), ("model", "a b=c"), ("profile", "-p"),
                          ("developer-instructions", "--x")])
def test_a_value_that_looks_like_a_flag_stays_a_value(name, value):
    flag = next(f for f in cms.FLAGS if f.name == name)
    words = argv({name: value})
    assert all(word in flag.words(value) or word in argv({}) for word in words)
    assert words.count(value) == 0          # joined to its flag, so no parser can take it for one


VALUES = [
    ("text", '"text"'), ("123", '"123"'), ("true", '"true"'), ("", '""'), ("1.5", '"1.5"'), ("[1]", '"[1]"'),
    ("null", '"null"'),
    ('say "hi"', r'"say \"hi\""'), ("back\\slash", r'"back\\slash"'), ("a\nb\tc\r", r'"a\nb\tc\r"'),
    ("\0\x1b\x1f", r'"\u0000\u001b\u001f"'),
    ("\x7f", r'"\u007f"'), ("\x80\x9f", '"\x80\x9f"'), ("äöü €", '"äöü €"'), ("\U0001f41d", '"\U0001f41d"'),
    ("\u2028", '"\u2028"'),
    ("'''", "\"'''\""), ("# no comment", '"# no comment"'),
    (1, "1"), (-7, "-7"), (0, "0"), (1.5, "1.5"), (1e100, "1e+100"), (-0.0, "-0.0"), (True, "true"),
    (False, "false"),
    ([], "[]"), ([1, "1", True], '[1, "1", true]'), ([[1], ["a", {"b": 2}]], '[[1], ["a", {"b" = 2}]]'),
    ({}, "{}"), ({"a b": 1}, '{"a b" = 1}'), ({"": {"x": "y"}}, '{"" = {"x" = "y"}}'),
    ({'q"': "\n"}, r'{"q\"" = "\n"}'),
]


@pytest.mark.parametrize("value, text", VALUES, ids=[repr(v) for v, _ in VALUES])
def test_a_value_goes_out_as_toml(value, text):
    assert cms.toml(value) == text
    if tomllib is not None:
        assert tomllib.loads("x = " + text)["x"] == value


CONFIGS = [
    ({"model_reasoning_effort": "high"}, ['model_reasoning_effort="high"']),
    ({"a": 1, "b": "2"}, ["a=1", 'b="2"']),
    ({"tools": {"web_search": True, "view": {"x": [1]}}}, ["tools.web_search=true", "tools.view.x=[1]"]),
    ({"a.b": 1}, ["a.b=1"]),
    ({"a.b": {"c-d": {"e_f": "g"}}}, ['a.b.c-d.e_f="g"']),
    ({"mcp_servers": {}}, ["mcp_servers={}"]),
    ({"projects": {"/a.b": {"trust_level": "trusted"}}}, ['projects={"/a.b" = {"trust_level" = "trusted"}}']),
    ({"x": {"bare": 1, "not bare": 2}}, ['x={"bare" = 1, "not bare" = 2}']),
    ({"x": {"y": {"dotted.key": 1}}}, ['x.y={"dotted.key" = 1}']),
    ({"x": {"-y": 1}}, ["x.-y=1"]),
    ({"x": {"": 1}}, ['x={"" = 1}']),
    ({}, []),
]


@pytest.mark.parametrize("config, settings", CONFIGS, ids=[json.dumps(c) for c, _ in CONFIGS])
def test_a_nested_config_becomes_dotted_keys_and_an_unusual_key_an_inline_table(config, settings):
    words = cms.config_words(config)
    assert words == [word for setting in settings for word in ("-c", setting)]
    if tomllib is not None:
        read = [tomllib.loads(setting) for setting in settings]
        assert functools.reduce(merged, read,
                                {}) == functools.reduce(merged, map(undotted, config.items()), {})


def merged(a, b):
    return {**a, **b,
            **{k: merged(a[k], b[k]) for k in a if isinstance(b.get(k), dict) and isinstance(a[k], dict)}}


def undotted(entry):
    key, value = entry
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def nested(depth, value=1):
    return functools.reduce(lambda inner, _: {"k": inner}, range(depth), value)


def listed(depth):
    return {"k": functools.reduce(lambda inner, _: [inner], range(depth), 1)}


REFUSED = [
    {"a": None}, {"a": {"b": None}}, {"a": [1, None]}, {"a": [{"b c": None}]},
    {"": 1}, {"a b": 1}, {"a=b": 1}, {"-a": 1}, {"--model": 1}, {".a": 1}, {"a.": 1}, {"a..b": 1}, {"a\n": 1},
    {"ä": 1}, {'"a"': 1}, {"a": {"b": {"c d": None}}},
    nested(33), nested(40), nested(900), listed(33), listed(900), {"x y": nested(3)},
    {"a": {"x y": nested(900)}},
]


@pytest.mark.parametrize("config", REFUSED, ids=lambda c: repr(c)[:40])
def test_what_toml_or_codex_cannot_hold_is_refused(config):
    with pytest.raises(ToolError) as caught:
        argv({"config": config})
    assert "`config`" in caught.value.what and len(str(caught.value)) < 500


def test_the_depth_that_is_allowed_is_allowed():
    assert argv({"config": nested(32)})[-2] == ".".join("k" * 32) + "=1"
    assert argv({"config": listed(30)})


@pytest.mark.parametrize("name, make",
                         [("model", str), ("developer-instructions", str),
                          ("config", lambda text: {"key": text})])
def test_a_word_that_is_too_long_for_the_kernel_is_refused_and_the_longest_one_is_not(name, make):
    spare = len(argv({name: make("")})[-2].encode())
    for letter in ("x", "\u20ac"):
        room = (cms.MAX_ARGV_BYTES - spare) // len(letter.encode())
        assert len(argv({name: make(letter * room)})[-2]) > room
        with pytest.raises(ToolError) as caught:
            argv({name: make(letter * (room + 1))})
        assert name in str(caught.value)


@pytest.mark.parametrize("arguments",
                         [{"model": "a\0b"}, {"config": {"a": "\ud800"}}, {"config": {"x": {"\udfff y": 1}}}],
                         ids=repr)
def test_what_no_command_line_can_hold_is_refused_before_anything_starts(arguments):
    with pytest.raises(ToolError):
        argv(arguments)


@pytest.mark.parametrize("name, setting",
                         [("base-instructions", "instructions"), ("compact-prompt", "compact_prompt")])
def test_instructions_are_not_on_the_command_line_and_may_be_of_any_length(name, setting):
    assert not any("xxx" in word for word in argv({name: "x" * 1_000_000}))
    assert argv({name: " "})[-2] == setting + '=" "'            # codex refuses a blank file
    with pytest.raises(ToolError):
        argv({name: "\ud800"})


def test_a_nul_in_a_setting_is_escaped():
    assert argv({"developer-instructions": "a\0b"})[-2] == r'developer_instructions="a\u0000b"'


def test_a_number_too_large_for_json_never_goes_out_as_a_word_that_toml_reads_as_text():
    number = json.loads("1e999")
    try:
        assert cms.toml(number) == "inf"
    except ToolError:
        pass
