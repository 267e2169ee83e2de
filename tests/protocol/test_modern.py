"""Revision 2026-07-28: each request carries all that its answer depends on, on the same pipe as the handshake
era.

The client checks of every result what all of them share: resultType, serverInfo, ttlMs and cacheScope where
they belong.
"""
import json

import pytest

from client import LEGACY_REVISIONS, MODERN, NEWEST_LEGACY, TASKS, VENDOR, envelope, is_progress

SUPPORTED = [MODERN, *reversed(LEGACY_REVISIONS)]
CAPABILITIES, INFO = VENDOR + "clientCapabilities", VENDOR + "clientInfo"
READS = [("tools/list", {}), ("prompts/list", {}), ("resources/list", {}), ("resources/templates/list", {}),
         ("resources/read", {"uri": "codex-swarm:///config"})]


# -- discover ----------------------------------------------------------------------------------------
def test_discover_tells_the_revisions_the_capabilities_and_the_instructions(modern):
    c = modern()
    found = c.request("server/discover")["result"]
    assert found["supportedVersions"] == SUPPORTED
    assert found["capabilities"] == {"tools": {}, "resources": {}, "prompts": {}, "extensions": {TASKS: {}}}
    assert found["instructions"] == c.initialize()["instructions"]


def test_discover_answers_the_same_before_during_and_after_a_handshake(modern):
    c = modern()
    before = c.request("server/discover")["result"]
    c.initialize("2024-11-05")
    assert c.request("server/discover")["result"] == before


def test_discover_keeps_the_id_of_the_probe(modern):
    c = modern()
    assert c.result(c.start("server/discover", id="server-discover-probe-1"))["result"]


# -- results -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method, params", READS)
def test_what_is_listed_or_read_says_how_long_and_for_whom_it_may_be_kept(modern, method, params):
    result = modern().request(method, params)["result"]
    assert result["cacheScope"] == "private"
    assert (result["ttlMs"] == 0) == (method == "resources/read")


@pytest.mark.parametrize("method, params", READS)
def test_a_session_sees_nothing_of_the_fields_of_the_next_era(modern, method, params):
    c = modern()
    c.initialize()
    c.request(method, params)
    answer = c.request(method, params, envelope=None)["result"]
    assert not {"resultType", "ttlMs", "cacheScope", "_meta"} & set(answer)


def test_a_call_runs_to_its_result_when_the_tasks_extension_is_not_declared(modern):
    result = modern().call("codex", {"prompt": "SAY done"})
    assert (result["resultType"], result["isError"],
            result["structuredContent"]["content"]) == ("complete", False, "done")


def test_tools_are_listed_with_all_their_fields_whatever_the_session_negotiated(modern):
    c = modern()
    before = c.request("tools/list")["result"]["tools"]
    c.initialize("2024-11-05")
    assert c.request("tools/list")["result"]["tools"] == before
    assert all("outputSchema" in tool and "execution" not in tool for tool in before)
    assert len(json.dumps(before, separators=(",", ":"), ensure_ascii=False).encode()) < 12_000


def test_progress_of_a_call_is_sent_to_its_token_and_ends_with_the_result(modern, gate):
    c = modern()
    call = c.start_call("codex", {"prompt": gate.wait}, progress_token=0)
    c.wait_for(lambda m: is_progress(m, 0), what="progress")
    gate.open()
    c.tool_result(call)
    c.ping()
    assert c.index(lambda m: m.get("id") == call) > max(i for i, m in enumerate(c.log) if is_progress(m, 0))
    assert [p["progress"] for p in c.progress(0)] == sorted({p["progress"] for p in c.progress(0)})


def test_a_cancelled_call_gets_no_answer(modern, gate):
    c = modern()
    call = c.start_call("codex", {"prompt": gate.wait}, progress_token="t")
    c.wait_for(lambda m: is_progress(m, "t"), what="progress")
    c.cancel(call)
    assert c.call("codex_wait",
                  {"task_ids": [t["task_id"] for t in c.ok("codex_status")["tasks"]] or ["0" * 12]})
    c.ping()
    assert c.responses_to(call) == []


# -- eras side by side ---------------------------------------------------------------------------------
def test_requests_of_both_eras_alternate_on_one_pipe_without_seeing_each_other(modern):
    c = modern()
    c.initialize("2024-11-05")
    for _ in range(3):
        assert "structuredContent" not in c.request("tools/call", {"name": "codex_status"},
                                                    envelope=None)["result"]
        assert c.request("tools/call",
                         {"name": "codex_status"})["result"]["structuredContent"]["tasks"] == []


def test_a_modern_request_begins_no_session(modern):
    c = modern()
    assert c.request("tools/list")["result"]["tools"]
    assert c.request("tools/list", envelope=None)["error"]["code"] == -32602
    assert c.initialize()["protocolVersion"] == NEWEST_LEGACY


def test_a_session_gets_no_handle_even_if_it_declared_the_extension(server):
    c = server()
    c.request("initialize",
              {"protocolVersion": NEWEST_LEGACY, "capabilities": {"extensions": {TASKS: {}}},
               "clientInfo": {"name": "x", "version": "1"}})
    assert c.call("codex", {"prompt": "SAY done", })["structuredContent"]["content"] == "done"
    answer = c.request("tools/call",
                       {"name": "codex", "arguments": {"prompt": "SAY done"}, "task": {"ttl": 1000}})
    assert answer["result"]["structuredContent"]["content"] == "done"


# -- the envelope: what is wrong with one is in test_malformed -------------------------------------------
def meta(**changes):
    """An envelope with keys changed; None leaves one out."""
    keys = {"capabilities": CAPABILITIES, "info": INFO}
    changed = {**envelope(), **{keys[k]: v for k, v in changes.items()}}
    return {k: v for k, v in changed.items() if v is not None}


@pytest.mark.parametrize("given", [
    meta(info=None), meta(info=5), meta(info={}), meta(info={"name": None}), meta(info=[]),
    meta(capabilities={"extensions": []}),
    meta(capabilities={"extensions": None}),
    {**meta(), "traceparent": "00-x", "claudecode/toolUseId": "t", VENDOR + "logLevel": "debug"},
])
def test_what_the_envelope_need_not_have_never_hurts(server, given):
    c = server()
    assert c.request("tools/list", envelope=given)["result"]["tools"]
    assert c.request("tools/call", {"name": "codex", "arguments": {"prompt": "SAY x"}},
                     envelope=given)["result"]["isError"] is False
