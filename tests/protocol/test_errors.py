"""Every bad line gets the error that the protocol names for it, and the server goes on."""
import json

import pytest

from client import LEGACY_REVISIONS, is_response

DEEP = b"[" * 100000

# What arrives, the error code, and the id of the answer.
BAD_LINES = {
    "cut off": (b'{"jsonrpc":"2.0","id":1', -32700, None),
    "no JSON at all": (b"hello there", -32700, None),
    "two objects on a line": (b'{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}', -32700, None),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xff\xfe"}}', -32700, None),
    "overlong UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}', -32700, None),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700, None),
    "Infinity": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":-Infinity}}', -32700, None),
    "100,000 brackets opened": (DEEP, -32700, None),
    "100,000 brackets opened and closed": (DEEP + b"]" * 100000, -32700, None),
    "100,000 levels inside params": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":' + DEEP + b"]" * 100000 + b"}}", -32700, None),
    "100,000 objects deep": (b'{"a":' * 100000, -32700, None),
    "a number": (b"42", -32600, None),
    "a string": (b'"ping"', -32600, None),
    "null": (b"null", -32600, None),
    "true": (b"true", -32600, None),
    "an empty object": (b"{}", -32600, None),
    "no method": (b'{"jsonrpc":"2.0","id":5}', -32600, 5),
    "a method that is a number": (b'{"jsonrpc":"2.0","id":5,"method":7}', -32600, 5),
    "a method that is null": (b'{"jsonrpc":"2.0","id":5,"method":null}', -32600, 5),
    "no jsonrpc": (b'{"id":5,"method":"ping"}', -32600, 5),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":"five","method":"ping"}', -32600, "five"),
    "jsonrpc as a number": (b'{"jsonrpc":2.0,"id":5,"method":"ping"}', -32600, 5),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
    "id a float": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, None),
    "id an object": (b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}', -32600, None),
    "id an array": (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600, None),
}


@pytest.mark.parametrize("name", sorted(BAD_LINES))
@pytest.mark.parametrize("era", ["before initialize", "2025-11-25"])
def test_a_bad_line_gets_its_error_and_the_server_goes_on(server, name, era):
    line, code, id = BAD_LINES[name]
    c = server()
    if era != "before initialize":
        c.initialize(era)
    answer = c.raw_answer(line + b"\n")
    assert (answer["error"]["code"], answer["id"]) == (code, id), answer
    c.ping()


def test_all_bad_lines_in_a_row_are_answered_in_order(client):
    c = client()
    c.send_raw(b"".join(BAD_LINES[name][0] + b"\n" for name in sorted(BAD_LINES)))
    c.ping()
    codes = [m["error"]["code"] for m in c.log if is_response(m) and "error" in m]
    assert codes == [BAD_LINES[name][1] for name in sorted(BAD_LINES)]


@pytest.mark.parametrize("data", [b"\n", b"\r\n", b"   \n", b"\n\n\n"])
def test_empty_lines_are_skipped(client, data):
    client().assert_silent(data)


def test_a_line_may_end_with_carriage_return_and_newline(client):
    assert client().raw_answer(b'{"jsonrpc":"2.0","id":9,"method":"ping"}\r\n') == {"jsonrpc": "2.0", "id": 9, "result": {}}


@pytest.mark.parametrize("line", [
    b'{"jsonrpc":"2.0","method":"notifications/unheard_of","params":{"a":1}}',
    b'{"jsonrpc":"2.0","method":"tools/list"}',
    b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"codex_status","arguments":{}}}',
    b'{"jsonrpc":"2.0","method":"notifications/initialized","params":[]}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":"x"}',
    b'{"jsonrpc":"2.0","id":77,"result":{}}',
    b'{"jsonrpc":"2.0","id":77,"error":{"code":-1,"message":"x"}}',
])
def test_notifications_and_responses_are_never_answered(client, line):
    client().assert_silent(line + b"\n")


@pytest.mark.parametrize("line", [
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"\\ud800"}}',
    b'{"jsonrpc":"2.0","id":5,"method":"\\ud800"}',
    b'{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"x:\\udfff"}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"codex","arguments":{"\\ud800":1,"prompt":"x"}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"codex","arguments":{"prompt":"x","cwd":"/\\ud800"}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"codex","arguments":{"prompt":"\\ud800 x"}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"codex","arguments":{"prompt":"x","model":"\\ud800"}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"codex_wait","arguments":{"task_ids":["\\ud800"]}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"_meta":{"progressToken":"\\ud800"}}}',
])
def test_a_lone_surrogate_never_comes_back_out(client, line):
    """The client refuses any line with one; the answer must arrive all the same."""
    c = client()
    answer = c.raw_answer(line + b"\n")
    assert answer["id"] == 5
    assert answer.get("error", {}).get("code") != -32603
    c.ping()


# -- methods and params ------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [
    "frobnicate", "", "completion/complete", "logging/setLevel", "server/discover",
    "subscriptions/listen", "tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update",
    "notifications/initialized", "sampling/createMessage", "roots/list", "tools/list/",
])
def test_a_method_that_is_not_offered_is_not_found(client, method):
    error = client().request(method, {})["error"]
    assert error["code"] == -32601
    assert method in error["message"]


@pytest.mark.parametrize("params", [
    None, {}, {"arguments": {}}, {"name": None}, {"name": 5, "arguments": {}}, {"name": ["codex"]}, {"name": {}},
    {"name": "codex", "arguments": []}, {"name": "codex", "arguments": "prompt"}, {"name": "codex", "arguments": 5},
    {"name": "codex", "arguments": False},
])
def test_a_malformed_tool_call_is_invalid_params(client, params):
    assert client().request("tools/call", params)["error"]["code"] == -32602


@pytest.mark.parametrize("params", [[], [1], "x", 5, None])
def test_params_that_are_no_object_are_invalid(client, params):
    """JSON-RPC calls a scalar an invalid request, MCP calls anything but an object invalid params."""
    line = json.dumps({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params})
    answer = client().raw_answer(line.encode() + b"\n")
    assert (answer["id"], answer["error"]["code"] in (-32600, -32602)) == (5, True)


@pytest.mark.parametrize("name", ["frobnicate", "", "Codex", "codex ", "tools/list"])
def test_an_unknown_tool_is_invalid_params_and_is_named(client, name):
    error = client().request("tools/call", {"name": name, "arguments": {}})["error"]
    assert error["code"] == -32602
    assert error["message"].startswith("Unknown tool: " + name.strip())


@pytest.mark.parametrize("arguments", ["absent", None])
def test_absent_or_null_arguments_are_no_arguments(client, arguments):
    params = {"name": "codex_status"}
    if arguments is None:
        params["arguments"] = None
    assert client().request("tools/call", params)["result"]["structuredContent"] == {"tasks": []}


@pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"])
def test_a_cursor_that_was_never_given_out_is_invalid_params(client, method):
    assert client().request(method, {"cursor": "frobnicate"})["error"]["code"] == -32602


def test_unknown_meta_and_unknown_params_are_ignored(client):
    c = client()
    assert c.request("ping", {"_meta": {"traceparent": "00-x", "claudecode/toolUseId": "t"}, "x": 1})["result"] == {}
    assert c.request("tools/list", {"_meta": {}, "x": 1})["result"]["tools"]


# -- ids ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("id", [0, "", -1, 2 ** 53, 2 ** 70, "1", "a b", "\u6f22\u5b57", "x" * 1000])
def test_an_id_comes_back_as_it_was_sent(client, id):
    c = client()
    assert c.result(c.start("ping", id=id))["result"] == {}


def test_the_id_1_and_the_id_string_1_are_two_requests(client, gate):
    c = client()
    c.start_call("codex", {"prompt": gate.wait + "\nSAY number"}, id=1001)
    c.start_call("codex", {"prompt": gate.wait + "\nSAY string"}, id="1001")
    gate.open()
    assert c.good(c.tool_result(1001))["content"] == "number"
    assert c.good(c.tool_result("1001"))["content"] == "string"


@pytest.mark.parametrize("second", ["tools/call", "tools/list", "ping"])
def test_an_id_that_is_still_in_flight_is_refused_and_the_first_request_goes_on(client, gate, second):
    c = client()
    c.start_call("codex", {"prompt": gate.wait + "\nSAY first"}, id=500)
    c.send({"jsonrpc": "2.0", "id": 500, "method": second, "params": {"name": "codex_status"}})
    assert c.result(500).get("error", {}).get("code") == -32600
    gate.open()
    first = c.wait_for(lambda m: is_response(m) and m["id"] == 500 and "result" in m, what="the first request's answer")
    assert first["result"]["structuredContent"]["content"] == "first"
    assert len(c.responses_to(500)) == 2


def test_an_id_may_be_used_again_after_its_answer(client):
    c = client()
    for _ in range(2):
        since = len(c.log)
        assert c.result(c.start("ping", id=7), since=since)["result"] == {}


# -- batches: they exist in 2025-03-26 and in no other revision ---------------------------------------
PING = {"jsonrpc": "2.0", "id": 90, "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/unheard_of"}


def line(*messages):
    return json.dumps(list(messages)).encode() + b"\n"


@pytest.mark.parametrize("version", [v for v in LEGACY_REVISIONS if v != "2025-03-26"] + [None])
@pytest.mark.parametrize("batch", [[PING], [PING, NOTE], [NOTE], [], [5]])
def test_a_batch_is_one_invalid_request_outside_2025_03_26(server, version, batch):
    c = server()
    if version:
        c.initialize(version)
    answer = c.raw_answer(line(*batch))
    assert (answer["error"]["code"], answer["id"]) == (-32600, None)
    c.ping()


@pytest.fixture
def batching(client):
    return client(version="2025-03-26")


def test_the_answers_of_a_batch_come_as_one_array(batching):
    answers = batching.raw_answer(line(PING, NOTE, {"jsonrpc": "2.0", "id": "t", "method": "tools/list"},
                                       {"jsonrpc": "2.0", "id": 91, "method": "frobnicate"}))
    by_id = {a["id"]: a for a in answers}
    assert set(by_id) == {90, "t", 91} and len(answers) == 3
    assert by_id[90]["result"] == {}
    assert by_id["t"]["result"]["tools"]
    assert by_id[91]["error"]["code"] == -32601


def test_a_batch_of_notifications_and_responses_is_not_answered(batching):
    batching.assert_silent(line(NOTE, NOTE, {"jsonrpc": "2.0", "id": 8, "result": {}}))


def test_an_empty_batch_is_one_invalid_request(batching):
    answer = batching.raw_answer(b"[]\n")
    assert (answer["error"]["code"], answer["id"]) == (-32600, None)


def test_initialize_inside_a_batch_is_refused_and_the_rest_is_served(batching):
    answers = batching.raw_answer(line({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}}, PING))
    assert {a["id"]: a.get("error", {}).get("code") for a in answers} == {1: -32600, 90: None}


def test_each_bad_entry_of_a_batch_gets_its_own_error(batching):
    answers = batching.raw_answer(line(5, {}, [], {"jsonrpc": "2.0", "id": None, "method": "ping"}, PING))
    assert sorted(str((a["id"], a.get("error", {}).get("code"))) for a in answers) == sorted(
        ["(None, -32600)"] * 4 + ["(90, None)"])


def test_a_cancelled_call_is_left_out_of_the_answers_of_its_batch(batching, gate):
    c = batching
    c.send_raw(line(PING, {"jsonrpc": "2.0", "id": 93, "method": "tools/call", "params": {
        "name": "codex", "arguments": {"prompt": gate.wait}}}))
    c.ping()
    c.cancel(93)
    assert c.wait_for(lambda m: isinstance(m, list), what="the answers of the batch") == [{"jsonrpc": "2.0", "id": 90, "result": {}}]


def test_a_batch_that_blocks_delays_nothing_else(batching, gate):
    c = batching
    c.send_raw(line(PING, {"jsonrpc": "2.0", "id": 92, "method": "tools/call", "params": {
        "name": "codex", "arguments": {"prompt": gate.wait + "\nSAY late"}}}))
    c.ping()
    gate.open()
    answers = c.wait_for(lambda m: isinstance(m, list), what="the answers of the batch")
    by_id = {a["id"]: a for a in answers}
    assert by_id[90]["result"] == {}
    assert "late" in by_id[92]["result"]["content"][0]["text"]
