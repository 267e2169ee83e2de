"""Revision 2026-07-28: each request carries all that its answer depends on, on the same pipe as the handshake era.

The client checks of every result what all of them share: resultType, serverInfo, ttlMs and cacheScope where they belong.
"""
import json

import pytest

from client import LEGACY_REVISIONS, MODERN, NEWEST_LEGACY, TASKS, VENDOR, envelope, is_progress, text_of

SUPPORTED = [MODERN, *reversed(LEGACY_REVISIONS)]
VERSION, CAPABILITIES, INFO = VENDOR + "protocolVersion", VENDOR + "clientCapabilities", VENDOR + "clientInfo"
READS = [("tools/list", {}), ("prompts/list", {}), ("resources/list", {}), ("resources/templates/list", {}),
         ("resources/read", {"uri": "codex-swarm:///config"})]


# -- discover ----------------------------------------------------------------------------------------
def test_discover_tells_the_revisions_the_capabilities_and_the_instructions(modern):
    c = modern()
    found = c.request("server/discover")["result"]
    assert found["supportedVersions"] == SUPPORTED
    assert found["capabilities"] == {"tools": {}, "resources": {"subscribe": True}, "prompts": {}, "extensions": {TASKS: {}}}
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
    assert (result["resultType"], result["isError"], result["structuredContent"]["content"]) == ("complete", False, "done")


def test_wrong_arguments_are_a_complete_result_that_says_is_error(modern):
    result = modern(tasks=True).call("codex", {"prompt": 5})
    assert (result["resultType"], result["isError"]) == ("complete", True)
    assert "prompt" in text_of(result)


def test_tools_are_listed_with_all_their_fields_whatever_the_session_negotiated(modern):
    c = modern()
    before = c.request("tools/list")["result"]["tools"]
    c.initialize("2024-11-05")
    assert c.request("tools/list")["result"]["tools"] == before
    assert all("outputSchema" in tool and "execution" not in tool for tool in before)
    assert len(json.dumps(before, separators=(",", ":"), ensure_ascii=False).encode()) < 10000


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
    assert c.call("codex_wait", {"task_ids": [t["task_id"] for t in c.ok("codex_status")["tasks"]] or ["0" * 12]})
    c.ping()
    assert c.responses_to(call) == []


# -- eras side by side ---------------------------------------------------------------------------------
def test_requests_of_both_eras_alternate_on_one_pipe_without_seeing_each_other(modern):
    c = modern()
    c.initialize("2024-11-05")
    for _ in range(3):
        assert "structuredContent" not in c.request("tools/call", {"name": "codex_status"}, envelope=None)["result"]
        assert c.request("tools/call", {"name": "codex_status"})["result"]["structuredContent"] == {"tasks": []}


def test_a_modern_request_begins_no_session(modern):
    c = modern()
    assert c.request("tools/list")["result"]["tools"]
    assert c.request("tools/list", envelope=None)["error"]["code"] == -32602
    assert c.initialize()["protocolVersion"] == NEWEST_LEGACY


def test_discover_without_the_envelope_is_unknown_to_a_session(client):
    c = client()
    assert c.request("server/discover")["error"]["code"] == -32601
    assert c.request("server/discover", envelope=envelope())["result"]


@pytest.mark.parametrize("method, params", [("subscriptions/listen", {"notifications": {}}), ("tasks/get", {"taskId": "0" * 32}),
                                            ("tasks/cancel", {"taskId": "0" * 32}), ("tasks/update", {"taskId": "0" * 32})])
def test_methods_of_the_next_era_without_the_envelope_are_unknown_to_a_session(client, method, params):
    assert client().request(method, params)["error"]["code"] == -32601


def test_a_session_gets_no_handle_even_if_it_declared_the_extension(server):
    c = server()
    c.request("initialize", {"protocolVersion": NEWEST_LEGACY, "capabilities": {"extensions": {TASKS: {}}}, "clientInfo": {"name": "x", "version": "1"}})
    assert c.call("codex", {"prompt": "SAY done", })["structuredContent"]["content"] == "done"
    answer = c.request("tools/call", {"name": "codex", "arguments": {"prompt": "SAY done"}, "task": {"ttl": 1000}})
    assert answer["result"]["structuredContent"]["content"] == "done"


def test_the_two_eras_share_one_set_of_ids(modern, gate):
    c = modern()
    c.initialize()
    c.start_call("codex", {"prompt": gate.wait}, id=500)
    c.send({"jsonrpc": "2.0", "id": 500, "method": "ping"})
    assert c.result(500)["error"]["code"] == -32600
    gate.open()
    assert c.wait_for(lambda m: m.get("id") == 500 and "result" in m)


# -- the envelope --------------------------------------------------------------------------------------
def meta(**changes):
    """An envelope with keys changed; None leaves one out."""
    keys = {"version": VERSION, "capabilities": CAPABILITIES, "info": INFO}
    changed = {**envelope(), **{keys[k]: v for k, v in changes.items()}}
    return {k: v for k, v in changed.items() if v is not None}


BAD_ENVELOPES = {
    "no version": (meta(version=None), -32602, VERSION),
    "a version that is a number": (meta(version=5), -32602, VERSION),
    "a version that is an object": (meta(version={}), -32602, VERSION),
    "a version that is true": (meta(version=True), -32602, VERSION),
    "no capabilities": (meta(capabilities=None), -32602, CAPABILITIES),
    "capabilities that are a list": (meta(capabilities=[]), -32602, CAPABILITIES),
    "capabilities that are a string": (meta(capabilities="x"), -32602, CAPABILITIES),
    "capabilities that are a number": (meta(capabilities=0), -32602, CAPABILITIES),
    "nothing": ({}, -32602, VERSION),
    "no object": ("x", -32602, VERSION),
    "a list": ([], -32602, VERSION),
    **{"version %s" % v: (meta(version=v), -32022, v) for v in (*LEGACY_REVISIONS, "2099-01-01", "latest", "2026-07-28 ")},
    "an empty version": (meta(version=""), -32022, ""),
}


@pytest.mark.parametrize("name", sorted(BAD_ENVELOPES))
def test_a_bad_envelope_is_refused_and_what_is_wrong_is_named(server, name):
    given, code, named = BAD_ENVELOPES[name]
    c = server()
    for method in ("server/discover", "tools/list", "tools/call", "tasks/get"):
        error = c.request(method, {"_meta": given, "name": "codex_status"})["error"]
        assert error["code"] == code
        assert named in error["message"]
        if code == -32022:
            assert error["data"] == {"supported": SUPPORTED, "requested": given[VERSION]}
    assert c.request("server/discover", envelope=envelope())["result"]["supportedVersions"] == SUPPORTED


@pytest.mark.parametrize("given", [
    meta(info=None), meta(info=5), meta(info={}), meta(info={"name": None}), meta(info=[]), meta(capabilities={"extensions": []}),
    meta(capabilities={"extensions": None}), {**meta(), "traceparent": "00-x", "claudecode/toolUseId": "t", VENDOR + "logLevel": "debug"},
    {**meta(), "progressToken": True}, {**meta(), "progressToken": []},
])
def test_what_the_envelope_need_not_have_never_hurts(server, given):
    c = server()
    assert c.request("tools/list", envelope=given)["result"]["tools"]
    assert c.request("tools/call", {"name": "codex", "arguments": {"prompt": "SAY x"}}, envelope=given)["result"]["isError"] is False


# -- methods and their errors --------------------------------------------------------------------------
@pytest.mark.parametrize("method", [
    "initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/result", "tasks/list", "completion/complete",
    "notifications/initialized", "sampling/createMessage", "roots/list", "elicitation/create", "", "frobnicate", "tools/list/", "Tools/list"])
def test_a_method_that_the_revision_has_not_is_not_found_with_or_without_a_session(modern, method):
    c, params = modern(tasks=True), {"uri": "codex-swarm:///tasks", "taskId": "0" * 32}
    assert c.request(method, params)["error"]["code"] == -32601
    c.request("initialize", {"protocolVersion": NEWEST_LEGACY}, envelope=None)
    assert c.request(method, params)["error"]["code"] == -32601


BAD_REQUESTS = {
    "a call without a name": ("tools/call", {}, -32602),
    "a call of a number": ("tools/call", {"name": 5}, -32602),
    "a call of null": ("tools/call", {"name": None}, -32602),
    "a call of an array": ("tools/call", {"name": ["codex"]}, -32602),
    "a call of an unknown tool": ("tools/call", {"name": "frobnicate"}, -32602),
    "a call of no name at all": ("tools/call", {"name": ""}, -32602),
    "a tool in capitals": ("tools/call", {"name": "CODEX"}, -32602),
    "arguments that are an array": ("tools/call", {"name": "codex", "arguments": []}, -32602),
    "arguments that are a string": ("tools/call", {"name": "codex", "arguments": "prompt"}, -32602),
    "arguments that are false": ("tools/call", {"name": "codex", "arguments": False}, -32602),
    "arguments that are 0": ("tools/call", {"name": "codex", "arguments": 0}, -32602),
    "a cursor for tools": ("tools/list", {"cursor": "x"}, -32602),
    "an empty cursor for tools": ("tools/list", {"cursor": ""}, -32602),
    "a number as cursor": ("tools/list", {"cursor": 1}, -32602),
    "a cursor for resources": ("resources/list", {"cursor": "x"}, -32602),
    "a cursor for templates": ("resources/templates/list", {"cursor": "x"}, -32602),
    "a cursor for prompts": ("prompts/list", {"cursor": "x"}, -32602),
    "a resource without uri": ("resources/read", {}, -32602),
    "a uri that is null": ("resources/read", {"uri": None}, -32602),
    "a uri that is a number": ("resources/read", {"uri": 5}, -32602),
    "a uri that is an array": ("resources/read", {"uri": []}, -32602),
    "a prompt without a name": ("prompts/get", {}, -32602),
    "a prompt of a number": ("prompts/get", {"name": 5}, -32602),
    "an unknown prompt": ("prompts/get", {"name": "frobnicate"}, -32602),
    "a prompt without its argument": ("prompts/get", {"name": "fan_out"}, -32602),
    "a prompt with a number as argument": ("prompts/get", {"name": "fan_out", "arguments": {"jobs": 5}}, -32602),
    "prompt arguments that are an array": ("prompts/get", {"name": "fan_out", "arguments": []}, -32602),
    "listen without notifications": ("subscriptions/listen", {}, -32602),
    "listen to null": ("subscriptions/listen", {"notifications": None}, -32602),
    "listen to an array": ("subscriptions/listen", {"notifications": []}, -32602),
    "listen to a string of resources": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": "x"}}, -32602),
    "listen to an array of numbers": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [5]}}, -32602),
    "listen to null resources": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": None}}, -32602),
    "listen to a string of tasks": ("subscriptions/listen", {"notifications": {"taskIds": "x"}}, -32602),
    "listen to tasks that are objects": ("subscriptions/listen", {"notifications": {"taskIds": [{}]}}, -32602),
    **{"%s %s" % (method, name): (method, params, -32602)
       for method in ("tasks/get", "tasks/cancel", "tasks/update")
       for name, params in {"without taskId": {}, "of null": {"taskId": None}, "of a number": {"taskId": 5}, "of an array": {"taskId": []},
                            "of an object": {"taskId": {}}, "of nothing": {"taskId": ""}, "of an unknown task": {"taskId": "0" * 32},
                            "of a codex task": {"taskId": "0" * 12}, "of a path": {"taskId": "../../etc/passwd"},
                            "of a long name": {"taskId": "a" * 5000}, "of a null byte": {"taskId": "\0" * 32},
                            "of a lone surrogate": {"taskId": "\ud800" * 32}}.items()},
}


@pytest.mark.parametrize("name", sorted(BAD_REQUESTS))
def test_a_bad_request_gets_its_error_and_the_server_goes_on(modern, name):
    method, params, code = BAD_REQUESTS[name]
    c = modern(tasks=True)
    error = c.request(method, params)["error"]
    assert error["code"] == code, error
    assert len(error["message"]) < 500
    c.ping()


@pytest.mark.parametrize("uri", ["codex-swarm:///nothing", "codex-swarm:///tasks/0123456789ab", "file:///etc/passwd", "", "x:\0"])
def test_an_unknown_resource_is_invalid_params_and_named_in_data(modern, uri):
    error = modern().request("resources/read", {"uri": uri})["error"]
    assert (error["code"], error["data"]) == (-32602, {"uri": uri})


ENVELOPED = json.dumps({"_meta": envelope(True), "name": "codex_status"}).encode()
BAD_LINES = {
    "cut off": (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":%s', -32700, None),
    "NaN": (b'{"jsonrpc":"2.0","id":NaN,"method":"tools/list","params":%s}', -32700, None),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff","params":%s}', -32700, None),
    "too deep": (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","x":' + b"[" * 100000 + b',"params":%s}', -32700, None),
    "twice on a line": (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":%s}{}', -32700, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list","params":%s}]', -32600, None),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"tools/list","params":%s}', -32600, None),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"tools/list","params":%s}', -32600, None),
    "id a float": (b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list","params":%s}', -32600, None),
    "id an object": (b'{"jsonrpc":"2.0","id":{},"method":"tools/list","params":%s}', -32600, None),
    "id an array": (b'{"jsonrpc":"2.0","id":[],"method":"tools/list","params":%s}', -32600, None),
    "no jsonrpc": (b'{"id":5,"method":"tools/list","params":%s}', -32600, 5),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":5,"method":"tools/list","params":%s}', -32600, 5),
    "jsonrpc a number": (b'{"jsonrpc":2.0,"id":5,"method":"tools/list","params":%s}', -32600, 5),
    "no method": (b'{"jsonrpc":"2.0","id":"five","params":%s}', -32600, "five"),
    "a method that is null": (b'{"jsonrpc":"2.0","id":5,"method":null,"params":%s}', -32600, 5),
    "a method that is an array": (b'{"jsonrpc":"2.0","id":5,"method":[],"params":%s}', -32600, 5),
    "params in an array": (b'{"jsonrpc":"2.0","id":5,"method":"tools/list","params":[%s]}', -32602, 5),
}


@pytest.mark.parametrize("name", sorted(BAD_LINES))
def test_a_bad_line_with_an_envelope_gets_its_error_and_the_server_goes_on(server, name):
    line, code, id = BAD_LINES[name]
    c = server()
    answer = c.raw_answer(line.replace(b"%s", ENVELOPED) + b"\n")
    assert (answer["error"]["code"], answer["id"]) == (code, id), answer
    assert c.request("tools/list", envelope=envelope())["result"]["tools"]


def test_an_enveloped_request_in_a_batch_of_a_session_is_refused_and_the_rest_is_served(client):
    c = client(version="2025-03-26")
    answers = c.raw_answer(json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": envelope()}},
                                       {"jsonrpc": "2.0", "id": 2, "method": "ping"}]).encode() + b"\n")
    assert {a["id"]: a.get("error", {}).get("code") for a in answers} == {1: -32600, 2: None}


@pytest.mark.parametrize("line", [
    {"method": "tools/list", "params": {"_meta": envelope()}}, {"method": "notifications/unheard_of", "params": {"_meta": envelope()}},
    {"method": "notifications/cancelled", "params": {"requestId": 77, "_meta": envelope()}}, {"method": "notifications/cancelled", "params": {"requestId": {}}},
    {"id": 1, "result": {"resultType": "complete"}}, {"id": 1, "error": {"code": -1, "message": "x"}}])
def test_notifications_and_responses_are_never_answered(modern, line):
    modern().assert_silent(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n")
