"""Arguments: what is wrong with them, in words that name them; and one name for each."""
import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError, arr, boolean, canonical, integer, number, obj, problems, string

SCHEMA = obj(
    {"text": string(minLength=1, maxLength=5), "kind": string(enum=["one", "two"]),
     "code": string(pattern="[0-9a-f]{4}"),
              "amount": number(minimum=0.5, maximum=10), "count": integer(minimum=1, maximum=3),
     "flag": boolean(), "anything": obj(),
              "list": arr(string(), minItems=1, maxItems=2),
     "deep": arr(obj({"name": string(), "n": integer(minimum=0, maximum=9)}, ["name"]))},
             ["text"])
GOOD = [
    {}, {"kind": "two"}, {"code": "00ff"}, {"amount": 0.5}, {"amount": 10}, {"amount": 3}, {"count": 1},
    {"count": 3}, {"flag": False}, {"anything": {}},
    {"anything": {"x": [None, {"y": 1}]}}, {"list": ["a"]}, {"list": ["a", "b"]}, {"deep": []},
    {"deep": [{"name": ""}, {"name": "x", "n": 9}]},
    {"text": "\U0001f41d" * 5},
]
BAD = [
    # arguments, words that the one problem has
    ([], "the arguments must be an object"), ("x", "the arguments must be an object"), (None, "not null"),
    ({"text": None}, "`text` must be a string, not null"), ({"text": 5}, "`text` must be a string, not 5"),
    ({"text": ["x"]}, "`text` must be a string"),
    ({"text": ""}, "`text` is empty"), ({"text": " \n\t"}, "`text` is empty"),
    ({"text": "sixsix"}, "`text` must have from 1 to 5 characters, not 6"),
    ({"text": "\ud800"}, "surrogate"), ({"text": "a\udfff"}, "surrogate"),
    ({"kind": "three"}, "`kind` must be one of one, two, not \"three\""),
    ({"kind": "One"}, "`kind` must be one of"),
    ({"code": "00fg"}, "`code` must look like"), ({"code": "00ff\n"}, "`code` must look like"),
    ({"code": "x00ff"}, "`code` must look like"),
    ({"amount": 0.4}, "`amount` must be from 0.5 to 10, not 0.4"), ({"amount": 11}, "not 11"),
    ({"amount": float("nan")}, "`amount`"),
    ({"amount": float("inf")}, "`amount`"), ({"amount": True}, "`amount` must be a number, not true"),
    ({"amount": "1"}, "`amount` must be a number, not \"1\""),
    ({"count": 0}, "`count` must be from 1 to 3, not 0"), ({"count": 1.5}, "`count` must be an integer"),
    ({"count": True}, "`count` must be an integer"),
    ({"count": "1"}, "`count` must be an integer"), ({"flag": 1}, "`flag` must be a boolean, not 1"),
    ({"flag": "true"}, "`flag` must be a boolean"),
    ({"anything": []}, "`anything` must be an object"), ({"list": "a"}, "`list` must be an array"),
    ({"list": []}, "`list` must have from 1 to 2 entries, not 0"),
    ({"list": ["a", "b", "c"]}, "not 3"), ({"list": ["a", 7]}, "`list[1]` must be a string, not 7"),
    ({"deep": [{"n": 1}]}, "`deep[0].name` is required"),
    ({"deep": [{"name": "x"}, {"name": "x", "n": 10}]}, "`deep[1].n` must be from 0 to 9"),
    ({"deep": [{"name": "x", "m": 1}]}, "`deep[0].m` is not an argument"),
    ({"txet": 1}, "`txet` is not an argument (did you mean `text`?)"),
    ({"zzzzzz": 1}, "`zzzzzz` is not an argument; there are: text, kind"),
    ({"TEXT": "x"}, "`TEXT` is not an argument"), ({"": 1}, "is not an argument"),
    ({"k" * 100_000: 1}, "is not an argument"),
]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_good_arguments_have_no_problems(value):
    assert problems(SCHEMA, {"text": "x", **value}) == []


@pytest.mark.parametrize("value, words", BAD, ids=lambda v: ascii(v)[:50])
def test_a_bad_argument_is_named_with_what_is_wrong(value, words):
    found = problems(SCHEMA, {"text": "x", **value} if isinstance(value, dict) else value)
    assert len(found) == 1 and words in found[0] and len(found[0]) < 400, found


def test_every_problem_is_told():
    found = problems(SCHEMA, {"count": 0, "flag": 1, "nope": 2})
    assert [next(name for name in ("text", "count", "flag", "nope") if "`%s`" % name in p)
            for p in found] == ["text", "count", "flag", "nope"]


def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return value


@pytest.mark.parametrize("value", [
    lambda: deep(200), lambda: deep(20_000), lambda: "x" * 10_000_000, lambda: ["y"] * 100_000,
    lambda: {"k": {"k": "z" * 100_000}}, lambda: "\ud800" * 100])
def test_a_huge_or_deep_value_is_shown_short(value):
    (found,) = problems(SCHEMA, {"text": "x", "count": value()})
    assert found.startswith("`count` must be an integer, not ") and len(found) < 200


NAMES = obj(
    {"base-instructions": string(), "timeout_s": number(), "threadId": string(), "task_ids": arr(string()),
     "config": obj(),
             "tasks": arr(obj({"approval-policy": string(), "timeout_s": number()}))})
SPELLINGS = [
    ({"base-instructions": 1}, {"base-instructions": 1}),
    ({"base_instructions": 1}, {"base-instructions": 1}),
    ({"timeout_s": 1}, {"timeout_s": 1}), ({"timeout-s": 1}, {"timeout_s": 1}),
    ({"threadId": 1}, {"threadId": 1}), ({"thread_id": 1}, {"threadId": 1}),
    ({"conversationId": 1}, {"threadId": 1}), ({"conversation_id": 1}, {"threadId": 1}),
    ({"taskIds": 1}, {"task_ids": 1}), ({"task-ids": 1}, {"task_ids": 1}),
    ({"tasks": [{"approval_policy": 1}, {"timeout-s": 2}, 7]},
     {"tasks": [{"approval-policy": 1}, {"timeout_s": 2}, 7]}),
    ({"config": {"base_instructions": 1, "a-b": 2}}, {"config": {"base_instructions": 1, "a-b": 2}}),
    ({"unknown_name": 1}, {"unknown_name": 1}), ({"None": 1}, {"None": 1}),
    ({"baseInstructions": 1}, {"baseInstructions": 1}), ([], []), ("x", "x"),
]


@pytest.mark.parametrize("given, listed", SPELLINGS, ids=lambda v: repr(v)[:50])
def test_both_spellings_and_the_old_names_mean_the_listed_argument(given, listed):
    assert canonical(NAMES, given) == listed


@pytest.mark.parametrize("given, name", [
    ({"base-instructions": "a", "base_instructions": "b"}, "base-instructions"),
    ({"base_instructions": "a", "base-instructions": "a"}, "base-instructions"),
    ({"threadId": "a", "conversationId": "a"}, "threadId"),
    ({"conversation_id": "a", "thread_id": "a"}, "threadId"),
    ({"tasks": [{}, {"timeout_s": 1, "timeout-s": 2}]}, "tasks[1].timeout_s"),
])
def test_an_argument_under_two_names_is_refused(given, name):
    with pytest.raises(ToolError) as caught:
        canonical(NAMES, given)
    assert "`%s`" % name in str(caught.value)


@pytest.mark.parametrize("value, wrong", [
    (True, []), (False, []), ({}, []), ({"base": "main", "include_changes": True, "setup": False}, []),
    ("yes", ["`worktree` must be a boolean or an object, not \"yes\""]),
    (1, ["`worktree` must be a boolean or an object, not 1"]),
    ({"base": 5}, ["`worktree.base` must be a string, not 5"]),
    ({"setup": "rm -rf /"}, ["`worktree.setup` must be a boolean, not \"rm -rf /\""]),
])
def test_a_worktree_is_a_boolean_or_an_object_whose_setup_is_never_a_command(value, wrong):
    assert problems(cms.RUN["worktree"], value, "worktree") == wrong


def test_the_schemas_we_send_are_made_of_what_problems_checks():
    known = {"type", "anyOf", "description", "properties", "required", "items", "enum", "pattern",
             "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"}

    def walk(schema):
        assert set(schema) <= known, schema
        assert ("anyOf" in schema) != (schema.get("type") in cms.PYTHON_TYPES), schema
        assert set(schema.get("required", ())) <= set(schema.get("properties", ()))
        assert ("minimum" in schema) == ("maximum" in schema)           # the message names both
        for inner in [*schema.get("properties", {}).values(),
                      *schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]:
            walk(inner)
    for tool in cms.TOOLS.values():
        walk(tool.args)


@pytest.mark.parametrize("text, limit, shown", [
    ("short", 10, "short"), ("ten letter", 10, "ten letter"), ("eleven char", 10, "eleven ch…"),
    (" on\ntwo  lines\t", 20, "on two lines"), ("", 5, ""),
    (" " * 9 + "word and more", 10, "word and …"),
    pytest.param("x" * 1_000_000, 5, "xxxx…", id="huge"), pytest.param(" " * 1_000_000, 5, "…", id="blank"),
])
def test_a_clipped_text_is_one_line_within_its_limit(text, limit, shown):
    assert cms.clip(text, limit) == shown and len(shown) <= limit


MASKED = [
    ("model_providers.x.api_key=sk-1", "model_providers.x.api_key=***"),
    ('{"api_key": "a b", "b": 1}', '{"api_key": ***, "b": 1}'),
    ("h={Authorization = 'Bearer abc', x=\"y\"}", "h={Authorization = ***, x=\"y\"}"),
    ("experimental_bearer_token=abc def", "experimental_bearer_token=***"),
    ("secrets={A=\"1a\", B=\"2b\"}", "secrets=***"), ("PASSWORD: hunter2, x", "PASSWORD: ***, x"),
    ("client_secret=\"open", "client_secret=***"),
    ("model_auto_compact_token_limit=500", "model_auto_compact_token_limit=500"),
    ("model=gpt-5.5", "model=gpt-5.5"), ("no key here", "no key here"),
    ('tokens={A="}sk-1", B=\'}sk-2\'} x', "tokens=*** x"),
    ('{"keys": ["a]sk-1", "b"], "c": 1}', '{"keys": ***, "c": 1}'),
    ("tokens=['open]sk-1", "tokens=***"), ('tokens={A="\\"}sk-1"}, b', "tokens=***, b"),
    ("x_token=true", "x_token=true"), (r'{"api_key": "ab\"cdSECRET", "b": 1}', '{"api_key": ***, "b": 1}'),
    ('key="open\\', "key=***"),
]


@pytest.mark.parametrize("text, shown", MASKED, ids=[text for text, _ in MASKED])
def test_the_value_of_a_key_that_looks_secret_is_masked(text, shown):
    assert cms.masked(text) == shown


def test_a_wrong_argument_is_shown_without_its_secrets():
    wrong = cms.problems(cms.obj(cms.RUN), {"prompt": {"api_key": "sk-1"}})
    assert "***" in wrong[0] and "sk-1" not in wrong[0]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x7f", "\x80", "\x9f"], ids=ascii)
def test_no_mark_at_which_some_client_ends_a_line_goes_out_raw(mark):
    assert cms.compact({"text": "one%stwo" % mark}) == '{"text":"one\\u%04xtwo"}' % ord(mark)


@pytest.mark.parametrize("text, shown", [
    ("curl -H 'Authorization: Bearer abcdefghijklmnop'", "curl -H 'Authorization: ***"),
    ("X-Auth: bearer abcdefghijklm0p.qrs", "X-Auth: bearer ***"), ("Basic am9lOnMzY3JldA==", "Basic ***"),
    ("missing bearer or basic authentication in header", "missing bearer or basic authentication in header"),
    ("git push https://joe:s3cret@host/x.git", "git push https://joe:***@host/x.git"),
    ("echo sk-proj-abcdefghijklmnop0123 done", "echo *** done"),
    ("ghp_abcdefghijklmnopqrstuvwxyz", "***"), ("github_pat_abcdefghijklmnopqrstuvwxyz", "***"),
    ("glpat-abcdefghijklmnopqrst", "***"), ("xoxb-1234567890-abc", "***"), ("AKIAIOSFODNN7EXAMPLE", "***"),
    ("AIzaSyA-1234567890abcdefghijklmnopqrstu", "***"), ("npm_abcdefghijklmnopqrstuvwxyz0123456789", "***"),
    ("hf_abcdefghijklmnopqrstuvwx", "***"), ("SG.abcdefghijklmnop.abcdefghijklmnop", "***"),
    ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "***"),
    ("a\n-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\nb", "a\n***\nb"),
    ("-----BEGIN PRIVATE KEY-----\nabc cut", "***"),
    ("risk-management-is-important", "risk-management-is-important"),
    ("pytest -q tests/unit/test_tokens.py::test_a_long_name_of_a_test",
     "pytest -q tests/unit/test_tokens.py::test_a_long_name_of_a_test"),
    ("https://example.com/a@b", "https://example.com/a@b"),
    ("deploy --db-password hunter2 --force", "deploy --db-password *** --force"),
    ("run --token abc", "run --token ***"), ("llm --max-tokens 500", "llm --max-tokens 500"),
    ("gpg --key --armor", "gpg --key --armor"),
    ("curl -u joe:s3cret https://x.org", "curl -u joe:*** https://x.org"),
    ("curl --user=joe:s3cret x", "curl --user=joe:*** x"), ("docker run -u 0 x:y", "docker run -u 0 x:y"),
    ("git push -u origin a:b", "git push -u origin a:b"),
])
def test_what_looks_secret_by_itself_is_masked(text, shown):
    assert cms.masked(text) == shown


def test_masking_is_quick_on_text_that_is_made_to_be_slow():
    for text in ("://" * 20_000, "-----BEGIN PRIVATE KEY-----" * 5_000, "sk-" * 30_000, "bearer " * 20_000,
                 "eyJ" + "a." * 40_000):
        assert len(cms.masked(text)) <= len(text) + 100_000
