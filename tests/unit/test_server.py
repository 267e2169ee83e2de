"""The last moments of a server, held still: what is under way then is written whole, answered and noted."""
import io
import json
import os
import threading

import pytest

import codex_mcp_swarm as cms
from client import NEWEST_LEGACY, eventually

from .helpers import WAIT_S, auditing


def somebody_waits(condition):
    """Whether a thread sleeps on it; as `threading` of CPython keeps it."""
    return bool(condition._waiters)


def test_a_server_that_ends_waits_until_its_last_line_is_written_whole():
    read_end, write_end = os.pipe()
    wire, flushed = cms.Wire(io.BytesIO(), write_end, lambda why: None), threading.Event()
    wire.send("x" * (1 << 20))                              # more than a pipe holds
    eventually(lambda: not wire.unread, what="the beginning of the line")

    def read():
        eventually(lambda: somebody_waits(wire.changed) or flushed.is_set(), what="the flush")
        while not os.read(read_end, 1 << 16).endswith(b"\n"):
            pass
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wire.flush(WAIT_S)
    left = wire.unread_bytes
    flushed.set()
    reader.join(WAIT_S)
    os.close(read_end)
    os.close(write_end)
    assert left == 0


@pytest.fixture
def served(swarm):
    """A server of this process, and `ask(id, method, **params)`; without an id that is a notification."""
    with open(os.devnull, "wb") as nobody:
        server = cms.Server(swarm(), cms.Wire(io.BytesIO(), nobody.fileno(), lambda why: None))

        def ask(ident, method, **params):
            request = {"jsonrpc": "2.0", "method": method, "params": params}
            server.receive(json.dumps({**request, "id": ident} if ident else request).encode())
        client = {"name": "test", "version": "1"}
        ask(1, "initialize", protocolVersion=NEWEST_LEGACY, capabilities={}, clientInfo=client)
        yield server, ask
        eventually(lambda: not server.threads, what="the end of all calls")


def noted(server):
    """Of each task, whether a client has been given its result."""
    store = server.swarm.store
    return [os.path.exists(store.get(task_id).file("collected")) for task_id in store.ids()]


def test_a_server_that_ends_right_after_the_result_has_noted_that_it_was_given(served):
    (server, ask), ended = served, threading.Event()

    def hold(event, args):
        """The note is not made before the end of the server has begun to wait for it."""
        if event == "open" and str(args[0]).endswith("/collected"):
            eventually(lambda: somebody_waits(server.idle) or ended.is_set(), what="the end of the server")
    with auditing(hold):
        ask(2, "tools/call", name="codex", arguments={"prompt": "SAY done"})
        eventually(lambda: not server.calls, what="the answer")
        server.drain()
        found = noted(server)
        ended.set()
        eventually(lambda: not server.threads, what="the end of the call")
    assert found == [True]


def test_a_result_for_which_its_client_no_longer_waited_when_it_was_made_counts_as_not_given(served):
    server, ask = served

    def give_up(event, args):
        by_the_call = threading.current_thread().name == "call-2"
        if by_the_call and event == "open" and str(args[0]).endswith("/report.json"):
            ask(None, "notifications/cancelled", requestId=2, reason="Request timed out")
    with auditing(give_up):
        ask(2, "tools/call", name="codex", arguments={"prompt": "SAY done"})
        eventually(lambda: not server.threads, what="the end of the call")
    task_id, = server.swarm.store.ids()
    assert server.swarm.record(task_id)["outcome"] == "succeeded" and noted(server) == [False]


def test_a_cancelled_call_does_not_take_back_what_another_call_is_giving(served):
    (server, ask), found = served, []
    ping = {"jsonrpc": "2.0", "id": 9, "method": "ping"}
    request = server._request(9, ping, cms.Replies(server.wire), in_batch=False)

    def cancelled_meanwhile(event, args):
        if event == "open" and str(args[0]).endswith("/collected") and not found:
            call, (task_id,) = cms.Call(), server.swarm.store.ids()
            call.given, call.cancelled, server.calls[9] = [task_id], True, call
            server.answer(request, lambda: {}, call)
            found.append(server.swarm.watch.is_given(server.swarm.store.get(task_id)))
    with auditing(cancelled_meanwhile):
        ask(2, "tools/call", name="codex", arguments={"prompt": "SAY done"})
        eventually(lambda: not server.threads, what="the end of the call")
    assert found == [True] and not server.swarm.watch.giving
