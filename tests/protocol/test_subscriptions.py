"""Telling clients what changes: `subscriptions/listen` of 2026-07-28 and `resources/subscribe` of the handshake era."""
import json

import pytest

from client import SUBSCRIPTION_ID, VENDOR, envelope, eventually

LIST = "codex-swarm:///tasks"
UPDATED, TASK_NEWS, ACKNOWLEDGED = "notifications/resources/updated", "notifications/tasks", "notifications/subscriptions/acknowledged"
_n = iter(range(10 ** 6))


def listen(c, id=None, **wanted):
    """Open a stream; (its id, what the server honours)."""
    id = c.start("subscriptions/listen", {"notifications": wanted}, id="listen-%d" % next(_n) if id is None else id)
    ack = c.wait_for(lambda m: about(m, id), what="the acknowledgement")
    assert ack["method"] == ACKNOWLEDGED, ack
    return id, ack["params"]["notifications"]


def about(message, id):
    """Whether a message belongs to the stream, whose id has a type."""
    told = message.get("params", {}).get("_meta", {}).get(SUBSCRIPTION_ID)
    return "method" in message and type(told) is type(id) and told == id


def news(c, id, method=UPDATED):
    return [m["params"] for m in c.log if about(m, id) and m["method"] == method]


def legacy_news(c):
    return [m["params"] for m in c.log if m.get("method") == UPDATED and "_meta" not in m["params"]]


# -- subscriptions/listen --------------------------------------------------------------------------------
def test_the_acknowledgement_comes_first_and_lists_only_what_is_honoured(modern):
    c = modern()
    task = c.begin("SAY x")
    id, honoured = listen(c, toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True, unheardOf=1,
                          resourceSubscriptions=[LIST, LIST + "/" + task, LIST + "/0123456789ab", "file:///etc/passwd", ""])
    assert honoured == {"resourceSubscriptions": sorted([LIST, LIST + "/" + task])}


def test_a_stream_of_nothing_is_acknowledged_as_that(modern):
    assert listen(modern())[1] == {}


@pytest.mark.parametrize("id", [0, 7, "7", "", "listen:0"])
def test_each_notification_is_tagged_with_the_id_in_its_type(modern, id):
    c = modern()
    listen(c, id, resourceSubscriptions=[LIST])
    c.begin("SAY x")
    told = c.wait_for(lambda m: m.get("method") == UPDATED, what="an update")
    assert about(told, id) and told["params"]["uri"] == LIST


def test_a_task_is_told_of_while_it_runs_and_when_it_ends(modern, gate):
    c = modern()
    uri = LIST + "/" + c.begin(gate.wait)
    id, _ = listen(c, resourceSubscriptions=[uri])
    before = len(news(c, id))
    gate.open()
    eventually(lambda: len(news(c, id)) > before, what="the update")
    assert {n["uri"] for n in news(c, id)} == {uri}


def test_two_streams_each_get_their_own_and_no_more(modern):
    c = modern()
    one, two = listen(c, 1001, resourceSubscriptions=[LIST])[0], listen(c, "1001", resourceSubscriptions=["codex-swarm:///config"])[0]
    for updates in (1, 2):
        c.begin("SAY x")
        eventually(lambda: len(news(c, one)) >= updates, what="the update")
    assert news(c, two) == []


def test_an_update_is_told_at_most_once_a_second(modern):
    c = modern()
    id, _ = listen(c, resourceSubscriptions=[LIST])
    eventually(lambda: c.ok("codex", prompt="SAY x") and len(news(c, id)) >= 3, what="three updates, while something changes all the time")
    at = [c.arrived_at[i] for i, m in enumerate(list(c.log)) if about(m, id) and m["method"] == UPDATED]
    assert at[-1] - at[0] > 0.8 * (len(at) - 1)


def test_a_cancelled_stream_ends_silently_and_its_id_is_free_again(modern):
    c = modern()
    id, _ = listen(c, resourceSubscriptions=[LIST])
    c.cancel(id)
    other, _ = listen(c, resourceSubscriptions=[LIST])
    since = len(c.log)
    c.begin("SAY x")
    eventually(lambda: news(c, other), what="the update of the other stream")
    c.ping()
    assert not [m for m in c.log[since:] if about(m, id)] and c.responses_to(id) == []
    c.start("subscriptions/listen", {"notifications": {}}, id=id)
    assert c.wait_for(lambda m: about(m, id), since=since)["method"] == ACKNOWLEDGED


def test_the_id_of_an_open_stream_is_taken(modern):
    c = modern()
    id, _ = listen(c)
    since = len(c.log)
    c.send({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": {"_meta": c.envelope}})
    assert c.wait_for(lambda m: m.get("id") == id, since=since)["error"]["code"] == -32600


def test_at_the_end_of_input_each_stream_gets_its_result(modern):
    c = modern()
    ids = [listen(c, i, resourceSubscriptions=[LIST])[0] for i in (3001, "3001")]
    assert c.close() == 0
    for id in ids:
        answer, = c.responses_to(id)
        assert answer["result"]["_meta"][SUBSCRIPTION_ID] == id and answer["result"]["resultType"] == "complete"


# -- MCP tasks -------------------------------------------------------------------------------------------
def test_an_mcp_task_is_told_of_with_all_that_tasks_get_says(modern, gate):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt=gate.wait + "\nSAY done")["taskId"]
    id, honoured = listen(c, taskIds=[handle, "0" * 32])
    assert honoured == {"taskIds": [handle]}
    gate.open()
    told = eventually(lambda: [n for n in news(c, id, TASK_NEWS) if n["status"] != "working"], what="the end of the task")
    assert {k: v for k, v in told[0].items() if k != "_meta"} == {k: v for k, v in c.get(handle).items() if k not in ("_meta", "resultType")}


def test_an_mcp_task_whose_run_does_nothing_new_is_not_told_of_again(modern, gate):
    """The text counts seconds, which is no news. The updates of the list are the clock: they come by the same thread."""
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="LINES 1\n" + gate.wait)["taskId"]
    eventually(lambda: "starting" not in c.get(handle)["statusMessage"], what="the first event")
    id, _ = listen(c, taskIds=[handle])
    eventually(lambda: news(c, id, TASK_NEWS), what="what is so now")
    clock, _ = listen(c, resourceSubscriptions=[LIST])
    since = len(news(c, id, TASK_NEWS))
    for updates in (1, 2, 3):
        c.begin("SAY x")
        eventually(lambda: len(news(c, clock)) >= updates, what="an update of the list")
    assert news(c, id, TASK_NEWS)[since:] == []
    gate.open()
    assert c.get_end(handle)["status"] == "completed"


def test_a_task_that_ended_before_the_stream_was_opened_is_told_of_once(modern):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="SAY done")["taskId"]
    c.get_end(handle)
    id, _ = listen(c, taskIds=[handle])
    eventually(lambda: news(c, id, TASK_NEWS), what="the end of the task")
    other, _ = listen(c, taskIds=[handle])
    eventually(lambda: news(c, other, TASK_NEWS), what="the end of the task again")
    assert [n["status"] for n in news(c, id, TASK_NEWS)] == ["completed"]


# -- resources/subscribe -----------------------------------------------------------------------------------
@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
def test_a_session_is_told_untagged_of_what_it_subscribed_to(client, version):
    c = client(version=version)
    assert c.request("resources/subscribe", {"uri": LIST})["result"] == {}
    c.notify("notifications/initialized")
    c.request("tools/call", {"name": "codex_async", "arguments": {"prompt": "SAY x"}})
    eventually(lambda: legacy_news(c), what="the update")
    assert legacy_news(c)[0] == {"uri": LIST}


def test_a_session_may_subscribe_to_several_and_take_one_back(client, gate):
    c = client()
    task = LIST + "/" + c.begin(gate.wait)
    for uri in (LIST, task, LIST):
        assert c.request("resources/subscribe", {"uri": uri})["result"] == {}
    assert c.request("resources/unsubscribe", {"uri": LIST})["result"] == {}
    since = len(c.log)
    gate.open()
    c.begin("SAY x")
    eventually(lambda: any(n["uri"] == task for n in legacy_news(c)), what="the update of the task")
    assert {m["params"]["uri"] for m in c.log[since:] if m.get("method") == UPDATED} == {task}


def test_a_wrong_subscription_changes_nothing(client):
    c = client()
    c.request("resources/subscribe", {"uri": LIST})
    for method in ("resources/subscribe", "resources/unsubscribe"):
        assert "error" in c.request(method)
    c.begin("SAY x")
    eventually(lambda: legacy_news(c), what="the update")


def test_taking_back_what_was_never_subscribed_to_is_no_error(client):
    assert client().request("resources/unsubscribe", {"uri": "codex-swarm:///nothing"})["result"] == {}


def test_subscribing_again_loses_no_update(client, gate):
    c = client()
    task = c.begin(gate.wait)
    c.request("resources/subscribe", {"uri": LIST + "/" + task})
    gate.open()
    c.collect(task)
    c.request("resources/subscribe", {"uri": LIST + "/" + task})
    c.request("resources/subscribe", {"uri": LIST})
    eventually(lambda: {"uri": LIST + "/" + task} in legacy_news(c), what="the update about the end of the task")


def test_streams_have_a_bound_and_say_so(modern):
    c = modern()
    for _ in range(100):
        listen(c, resourceSubscriptions=[LIST])
    error = c.request("subscriptions/listen", {"notifications": {}})["error"]
    assert error["code"] == -32603 and "100 subscriptions" in error["message"]
    error = c.request("subscriptions/listen", {"notifications": {"resourceSubscriptions": [LIST] * 1001}})["error"]
    assert error["code"] == -32602 and "1,000" in error["message"]


def test_both_kinds_of_subscription_are_told_each_in_its_own_way(client):
    c = client()
    c.request("resources/subscribe", {"uri": LIST})
    c.envelope = envelope()
    id, _ = listen(c, resourceSubscriptions=[LIST])
    c.begin("SAY x")
    eventually(lambda: news(c, id) and legacy_news(c), what="both updates")
    assert not any(VENDOR in json.dumps(n) for n in legacy_news(c))
