"""The handshake: four revisions, what is answered before it, and the fields that each revision knows.

The client refuses every field that the negotiated revision does not know (client.GATES), so the tests of
gating only have to make the server send something, and to see that it does send the field where the revision
has it.
"""
import subprocess
import sys

import pytest

from client import LEGACY_REVISIONS, NEWEST_LEGACY, envelope, text_of
from conftest import SERVER

BEFORE_2025_03 = LEGACY_REVISIONS[:1]
BEFORE_2025_06 = LEGACY_REVISIONS[:2]

each_revision = pytest.mark.parametrize("version", LEGACY_REVISIONS)


@each_revision
def test_a_known_revision_is_answered_with_itself(server, version):
    assert server().initialize(version)["protocolVersion"] == version


@pytest.mark.parametrize("asked", ["2026-07-28", "2099-01-01", "1999-12-31", "", "latest"])
def test_an_unknown_revision_is_answered_with_the_newest_legacy_one(server, asked):
    assert server().initialize(asked)["protocolVersion"] == NEWEST_LEGACY


@each_revision
def test_initialize_declares_what_there_is_and_no_extension_of_the_next_era(server, version):
    init = server().initialize(version)
    assert set(init) == {"protocolVersion", "capabilities", "serverInfo", "instructions"}
    assert init["capabilities"] == {"tools": {}, "resources": {}, "prompts": {}}


def test_server_info_names_the_program_and_its_version(server):
    told = subprocess.run([sys.executable, str(SERVER), "--version"], stdout=subprocess.PIPE,
                          check=True).stdout.decode()
    info = server().initialize()["serverInfo"]
    assert info["name"] == "codex-mcp-swarm"
    assert info["version"] in told


def test_instructions_fit_every_client_and_name_the_tools_to_use(server):
    instructions = server().initialize()["instructions"]
    assert 0 < len(instructions) <= 2048
    for tool in ("codex_batch", "codex_wait"):
        assert tool in instructions
    assert "codex" in instructions[:500].lower()


def test_a_second_initialize_is_refused_and_the_session_goes_on(client):
    c = client(version="2025-03-26")
    answer = c.request("initialize",
                       {"protocolVersion": "2025-11-25", "capabilities": {},
                        "clientInfo": {"name": "x", "version": "1"}})
    assert answer["error"]["code"] == -32600
    assert "lready" in answer["error"]["message"]
    assert "annotations" in c.request("tools/list")["result"]["tools"][0]


def test_requests_are_served_before_the_initialized_notification(server):
    c = server()
    c.request("initialize",
              {"protocolVersion": NEWEST_LEGACY, "capabilities": {},
               "clientInfo": {"name": "x", "version": "1"}})
    assert c.request("tools/list")["result"]["tools"]


def test_client_info_and_capabilities_may_be_missing_from_initialize(server):
    assert server().request("initialize",
                            {"protocolVersion": NEWEST_LEGACY})["result"]["protocolVersion"] == NEWEST_LEGACY


# -- before the handshake ----------------------------------------------------------------------------
def test_ping_is_answered_before_initialize(server):
    server().ping()


def test_a_probe_of_the_next_era_is_served_and_initialize_works_on_the_same_process(server):
    c = server()
    assert c.request("server/discover", envelope=envelope())["result"]["supportedVersions"]
    assert c.initialize()["protocolVersion"] == NEWEST_LEGACY


def test_notifications_before_initialize_are_ignored(server):
    server().assert_silent(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n',
                           b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}\n')


# -- field gating ------------------------------------------------------------------------------------
@each_revision
def test_tools_list_has_the_fields_of_the_revision_and_no_others(client, version):
    tools = client(version=version).request("tools/list")["result"]["tools"]
    for tool in tools:
        assert ("annotations" in tool) == (version not in BEFORE_2025_03)
        assert ("title" in tool) == (version not in BEFORE_2025_06)
    assert any("_meta" in tool for tool in tools) == (version not in BEFORE_2025_06)


@each_revision
def test_resource_lists_have_the_fields_of_the_revision_and_no_others(client, version):
    c = client(version=version)
    assert c.request("resources/list")["result"]["resources"]
    assert c.request("resources/templates/list")["result"]["resourceTemplates"]
    for resource in c.request("resources/list")["result"]["resources"]:
        c.request("resources/read", {"uri": resource["uri"]})


@each_revision
def test_structured_content_comes_from_2025_06_18_on_and_the_text_says_it_before_that(client, version):
    result = client(version=version).call("codex", {"prompt": "SAY the answer of codex"})
    assert ("structuredContent" in result) == (version not in BEFORE_2025_06)
    assert "the answer of codex" in text_of(result)


@each_revision
def test_bad_arguments_are_a_result_that_the_model_can_read_in_every_revision(client, version):
    assert "prompt" in client(version=version).refused("codex", {})


@each_revision
def test_progress_has_a_message_from_2025_03_26_on(client, gate, version):
    c = client(version=version)
    call = c.start_call("codex", {"prompt": gate.wait}, progress_token="t")
    c.wait_for(lambda m: m.get("method") == "notifications/progress", what="progress")
    gate.open()
    c.tool_result(call)
    assert all(("message" in p) == (version not in BEFORE_2025_03) for p in c.progress("t"))


def test_lists_do_not_depend_on_what_was_asked_before(client):
    c = client()
    before = c.request("tools/list")["result"], c.request("resources/list")["result"]
    c.ok("codex", prompt="SAY x")
    assert (c.request("tools/list")["result"], c.request("resources/list")["result"]) == before
