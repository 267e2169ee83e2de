"""Prompts, which clients show as slash commands: each makes one message that uses our tools."""
import pytest

from client import LEGACY_REVISIONS, envelope

REQUIRED = {"fan_out": {"jobs": "first job\nsecond job"}, "plan_then_execute": {"goal": "a remarkable goal"},
            "review_and_fix": {},
            "best_of_n": {"job": "a remarkable job"}}
TOOL = {"fan_out": "codex_batch", "plan_then_execute": "codex_reply", "review_and_fix": "codex",
        "best_of_n": "codex_batch"}


def written(c, name, **arguments):
    """The text of the one message that a prompt makes."""
    result = c.request("prompts/get", {"name": name, "arguments": arguments})["result"]
    message, = result["messages"]
    assert (message["role"], message["content"]["type"],
            bool(result["description"])) == ("user", "text", True)
    return message["content"]["text"]


@pytest.mark.parametrize("version", LEGACY_REVISIONS)
def test_each_prompt_and_argument_has_a_description_and_a_title_where_there_are_titles(client, version):
    prompts = client(version=version).request("prompts/list")["result"]["prompts"]
    assert [p["name"] for p in prompts] == list(REQUIRED)
    for prompt in prompts:
        assert prompt["description"] and all(a["description"] for a in prompt["arguments"])
        assert ("title" in prompt) == (version >= "2025-06-18")
        assert {a["name"] for a in prompt["arguments"] if a["required"]} == set(REQUIRED[prompt["name"]])


def test_both_eras_list_the_same_prompts(client):
    c = client()
    assert c.request("prompts/list",
                     envelope=envelope())["result"]["prompts"] == c.request(
                         "prompts/list")["result"]["prompts"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_prompt_holds_its_arguments_and_names_a_tool_that_exists(client, name):
    c = client()
    text = written(c, name, cwd="/some/where", **REQUIRED[name])
    assert all(value in text for value in ("/some/where", TOOL[name], *REQUIRED[name].values()))
    assert TOOL[name] in [t["name"] for t in c.request("tools/list")["result"]["tools"]]


@pytest.mark.parametrize("name", REQUIRED)
def test_arguments_that_are_not_required_may_be_absent_or_empty(client, name):
    c = client()
    text = written(c, name, **REQUIRED[name])
    assert "``" not in text and "cwd" not in text
    assert written(c, name, cwd="", **REQUIRED[name]) == text


def test_an_argument_that_is_misspelled_is_named_and_not_passed_over(client):
    error = client().request("prompts/get",
                             {"name": "review_and_fix", "arguments": {"scop": "src/"}})["error"]
    assert error["code"] == -32602 and "`scop`" in error["message"] and "`scope`" in error["message"]


def test_best_of_n_says_how_many_and_how_to_check(client):
    text = written(client(), "best_of_n", job="x", n="7", check="make remarkable")
    assert "7 independent attempts" in text and "`make remarkable`" in text
