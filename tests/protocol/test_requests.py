"""Requests as they should be: their ids, what they may carry besides, and batches.

What is wrong with one is in test_malformed.
"""
import json

import pytest


@pytest.mark.parametrize("params", [{"name": "codex_status"}, {"name": "codex_status", "arguments": None}])
def test_absent_or_null_arguments_are_no_arguments(client, params):
    assert client().request("tools/call", params)["result"]["structuredContent"]["tasks"] == []


def test_unknown_meta_and_unknown_params_are_ignored(client):
    c = client()
    meta = {"traceparent": "00-x", "claudecode/toolUseId": "t"}
    assert c.request("ping", {"_meta": meta, "x": 1})["result"] == {}
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


def test_an_id_may_be_used_again_after_its_answer(client):
    c = client()
    for _ in range(2):
        since = len(c.log)
        assert c.result(c.start("ping", id=7), since=since)["result"] == {}


# -- batches: revision 2025-03-26 has them --------------------------------------------------------------
PING = {"jsonrpc": "2.0", "id": 90, "method": "ping"}


def line(*messages):
    return json.dumps(list(messages)).encode() + b"\n"


@pytest.fixture
def batching(client):
    return client(version="2025-03-26")


def test_a_cancelled_call_is_left_out_of_the_answers_of_its_batch(batching, gate):
    c = batching
    c.send_raw(line(PING, {"jsonrpc": "2.0", "id": 93, "method": "tools/call", "params": {
        "name": "codex", "arguments": {"prompt": gate.wait}}}))
    c.ping()
    c.cancel(93)
    answers = c.wait_for(lambda m: isinstance(m, list), what="the answers of the batch")
    assert answers == [{"jsonrpc": "2.0", "id": 90, "result": {}}]


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
