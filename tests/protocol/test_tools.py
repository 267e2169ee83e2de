"""What `tools/list` says, and the other lists that clients show."""
import json
import re

import pytest

TOOLS = ["codex", "codex_async", "codex_batch", "codex_reply", "codex_review", "codex_status", "codex_events",
         "codex_wait", "codex_diff", "codex_merge", "codex_cancel"]
READ_ONLY = {"codex_status", "codex_wait", "codex_diff", "codex_events"}
ALWAYS_LOADED = {"codex", "codex_batch"}
TOOL_MEMBERS = {"name", "title", "description", "inputSchema", "outputSchema", "annotations", "_meta"}


@pytest.fixture
def tools(client):
    return {tool["name"]: tool for tool in client().request("tools/list")["result"]["tools"]}


def test_the_tools_come_in_their_order_and_on_one_page(client):
    result = client().request("tools/list")["result"]
    assert [tool["name"] for tool in result["tools"]] == TOOLS
    assert set(result) == {"tools"}


def test_a_tool_has_no_member_that_the_protocol_does_not_know(tools):
    for tool in tools.values():
        assert set(tool) <= TOOL_MEMBERS, tool["name"]
        assert {"name", "title", "description", "inputSchema", "annotations"} <= set(tool), tool["name"]


def test_read_only_tools_say_so_and_the_others_say_the_opposite(tools):
    assert {name for name, tool in tools.items() if tool["annotations"].get("readOnlyHint")} == READ_ONLY
    assert set().union(*(tool["annotations"] for tool in tools.values())) <= {
        "title", "readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}


def test_the_entry_tools_are_always_loaded(tools):
    always = {name: tool.get("_meta", {}).get("anthropic/alwaysLoad") for name, tool in tools.items()}
    assert {name for name, value in always.items() if value is True} == ALWAYS_LOADED


def test_tools_list_is_small(client):
    """Every model pays for it in every session."""
    tools = client().request("tools/list")["result"]
    assert len(json.dumps(tools, separators=(",", ":"), ensure_ascii=False).encode()) < 12_000


def test_a_description_is_sixty_words_at_most_and_does_not_shout(tools):
    for tool in tools.values():
        assert len(tool["description"].split()) <= 60, tool["name"]
        text = tool["description"].replace("JSONL", "").replace("HEAD", "")
        assert not re.search(r"\b[A-Z]{4,}\b", text), tool["name"]


def test_every_input_schema_is_an_object_whose_arguments_have_types(tools):
    for tool in tools.values():
        schema = tool["inputSchema"]
        assert schema["type"] == "object" and schema.get("additionalProperties", False) is False, tool["name"]
        assert set(schema.get("required", [])) <= set(schema["properties"])
        for name, argument in schema["properties"].items():
            for branch in argument.get("anyOf", [argument]):        # strict clients warn of a list of types
                assert isinstance(branch["type"], str), (tool["name"], name)


def test_the_tool_codex_takes_the_arguments_of_the_removed_mcp_server(tools):
    schema = tools["codex"]["inputSchema"]
    assert schema["required"] == ["prompt"]
    assert {"prompt", "model", "sandbox", "approval-policy", "cwd", "profile", "config", "base-instructions",
            "developer-instructions", "compact-prompt", "worktree", "timeout_s"} <= set(schema["properties"])
    assert schema["properties"]["sandbox"]["enum"] == ["read-only", "workspace-write", "danger-full-access"]
    policies = schema["properties"]["approval-policy"]["enum"]
    assert policies == ["untrusted", "on-failure", "on-request", "never"]


def test_the_aliases_are_not_listed(tools):
    listed = json.dumps(tools)
    assert "codex-reply" not in tools
    assert "conversationId" not in listed


def test_names_fit_every_client(tools):
    assert all(re.fullmatch("[A-Za-z0-9_.-]{1,64}", name) for name in tools)
