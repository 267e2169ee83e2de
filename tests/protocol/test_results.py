"""What a result holds: the same record everywhere, small enough for the client, whole by paging."""
import hashlib
import importlib.util
import json
import re
import time

import pytest

from client import eventually, text_of
from conftest import is_supervised, running, task_dirs

LIMITS = {"test-client": 40000, "codex-mcp-client": 12000}
each_client = pytest.mark.parametrize("name", sorted(LIMITS))
STATES = {"starting", "running", "stopping", "ended"}


def pages(c, task, first, **how):
    """The whole content of a task, put together from its pages: the last one names no next offset."""
    text, cut = first["content"], first.get("truncated", {})
    while "next_offset" in cut:
        assert cut["next_offset"] == len(text), cut
        found = c.ok("codex_wait", task_ids=[task], offset=cut["next_offset"], **how)["tasks"][0]
        assert found["content"], "an empty page before the end"
        text, cut = text + found["content"], found.get("truncated", {})
    return text


# -- the record --------------------------------------------------------------------------------------
def test_a_record_has_the_promised_keys(client):
    record = client().ok("codex", prompt="SAY the end")
    assert (record["state"], record["outcome"], record["content"]) == ("ended", "succeeded", "the end")
    assert len(record["task_id"]) == 12 and int(record["task_id"], 16) >= 0
    assert len(record["threadId"]) == 36
    assert (record["usage"]["input_tokens"], record["usage"]["output_tokens"]) == (100, 20)
    assert record["elapsed_s"] >= 0
    assert isinstance(record["started_at"], float)
    assert abs(record["started_at"] - time.time()) < 600        # Unix seconds
    assert {"progress", "failure", "worktree", "truncated"}.isdisjoint(record)


def test_a_running_record_shows_progress_and_no_outcome(client, tmp_path, gate):
    c = client()
    script = tmp_path / "remarkable.sh"
    script.write_text("while ! test -e %s; do sleep 0.05; done\n" % gate.path)
    task = c.begin("SHELL true", "SHELL bash %s" % script)
    running(c, 1)
    eventually(lambda: "remarkable.sh" in json.dumps(c.status(task).get("progress", {})),
               what="the running command")
    record = c.status(task)
    assert (record["state"], "outcome" in record) == ("running", False)
    assert len(record["threadId"]) == 36
    gate.open()
    c.collect(task)


def nulls(value, at="result"):
    if value is None:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from nulls(inner, "%s.%s" % (at, key))


def every_tool(c, gate):
    """A good result of each tool, by name."""
    first = c.call("codex", {"prompt": "SAY x"})
    thread = first["structuredContent"]["threadId"]
    started = c.call("codex_async", {"prompt": gate.wait})
    task = started["structuredContent"]["task_id"]
    results = {"codex": first, "codex_async": started, "codex_status": c.call("codex_status"),
               "codex_cancel": c.call("codex_cancel", {"task_ids": [task]}),
               "codex_reply": c.call("codex_reply", {"threadId": thread, "prompt": "x"}),
               "codex_wait": c.call("codex_wait", {"task_ids": [task]}),
               "codex_batch": c.call("codex_batch", {"tasks": [{"prompt": "x"}]}),
               "codex_batch, not waiting": c.call("codex_batch", {"tasks": [{"prompt": "x"}], "wait": False})}
    return results


def test_what_there_is_not_is_absent_rather_than_null(client, gate):
    for tool, result in every_tool(client(), gate).items():
        assert list(nulls(result)) == [], tool


def test_the_text_is_the_same_record_for_clients_that_show_text(client, gate):
    for tool, result in every_tool(client(), gate).items():
        content = result["structuredContent"]
        records = content.get("tasks", [content])
        assert records, tool
        for record in records:
            assert record["task_id"] in text_of(result), tool
            assert record.get("content", "") in text_of(result), tool


def test_every_result_conforms_to_the_output_schema_of_its_tool(client, gate):
    c = client()
    schemas = {tool["name"]: tool.get("outputSchema") for tool in c.request("tools/list")["result"]["tools"]}
    for tool, result in every_tool(c, gate).items():
        schema = schemas[tool.split(",")[0]]
        if schema is not None:
            assert schema["type"] == "object"
            assert set(schema.get("required", [])) <= set(result["structuredContent"]), tool
            if importlib.util.find_spec("jsonschema"):
                importlib.import_module("jsonschema").validate(result["structuredContent"], schema)


def test_the_shape_around_the_records_is_the_same_everywhere(client, gate):
    shapes = {tool: set(result["structuredContent"]) for tool, result in every_tool(client(), gate).items()}
    assert {"task_id", "state", "content", "threadId"} <= shapes["codex"] & shapes["codex_reply"]
    assert {"task_id", "state", "collect"} <= shapes["codex_async"]
    assert {"tasks", "still_running"} <= shapes["codex_wait"] & shapes["codex_batch"]
    assert "tasks" in shapes["codex_status"] & shapes["codex_cancel"]
    assert {"task_ids", "tasks", "collect"} <= shapes["codex_batch, not waiting"]


@pytest.mark.parametrize("name, version", [("claude-code", "2025-11-25"), ("codex-mcp-client", "2025-11-25"),
                                           ("another", "2025-11-25"), ("another", "2025-03-26")])
def test_every_event_reaches_a_client_whatever_it_shows_of_a_result(client, root, name, version):
    c, told, cursor, ended = client(name=name, version=version), [], 0, False
    c.call("codex", {"prompt": "\n".join("TELL %03d %s" % (i, 'as "quoted" ' * 30) for i in range(100))})
    [task] = task_dirs(root)
    while not ended:
        result = c.call("codex_events", {"task_id": task.name, "cursor": cursor, "limit": 1000})
        page = result.get("structuredContent")
        text = json.dumps(page) if name in ("claude-code", "codex-mcp-client") else text_of(result)
        told += re.findall(r'"text": ?"(\d{3}) ', text)
        ended = page["ended"] if page else "nothing more comes" in text
        if not ended:
            cursor = page["next_cursor"] if page else int(re.search(r"`cursor` (\d+)", text)[1])
    assert told == ["%03d" % i for i in range(100)]


def test_a_list_in_words_says_how_it_goes_on(client):
    c = client(version="2025-03-26")
    for _ in range(2):
        c.call("codex", {"prompt": "SAY x"})
    assert re.search(r"(?m)^cursor: \d+$", text_of(c.call("codex_status", {"finished_since": "0"})))


def test_usage_is_that_of_the_turn_although_codex_counts_the_thread(client):
    c = client()
    first = c.ok("codex", prompt="SAY one")
    for _ in range(2):
        reply = c.ok("codex_reply", threadId=first["threadId"], prompt="SAY more")
        assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (100, 20)


# -- long results ------------------------------------------------------------------------------------
@each_client
def test_a_long_answer_is_cut_to_the_clients_limit_and_paging_brings_back_all_of_it(client, message, name):
    c = client(name=name)
    call = c.start_call("codex", {"prompt": "MESSAGE 90000"})
    record = c.good(c.tool_result(call))
    assert c.result_chars(call) <= LIMITS[name]
    assert len(record["content"]) > LIMITS[name] / 5
    assert record["truncated"]["total_chars"] == 90000
    assert "codex_wait" in record["truncated"]["how"]
    assert str(record["truncated"]["next_offset"]) in record["truncated"]["how"]
    assert pages(c, record["task_id"], record) == message(90000)


@each_client
def test_a_page_stays_under_the_limit_also_when_more_was_asked_for(client, name):
    c = client(name=name)
    task = c.begin("MESSAGE 200000")
    c.collect(task)
    call = c.start_call("codex_wait", {"task_ids": [task], "offset": 1234, "max_chars": 40000})
    c.good(c.tool_result(call))
    assert c.result_chars(call) <= LIMITS[name]


@pytest.mark.parametrize("max_chars", [1, 100, 997])
def test_max_chars_gives_exactly_that_many_characters(client, message, max_chars):
    c = client()
    task = c.begin("MESSAGE 2500")
    c.collect(task)
    first = c.ok("codex_wait", task_ids=[task], max_chars=max_chars)["tasks"][0]
    assert first["content"] == message(2500)[:max_chars]
    assert first["truncated"] == dict(first["truncated"], total_chars=2500, next_offset=max_chars)
    if max_chars >= 100:
        assert pages(c, task, first, max_chars=max_chars) == message(2500)


@pytest.mark.parametrize("offset", [5, 5000])
def test_an_offset_at_or_behind_the_end_gives_nothing_and_no_next_page(client, offset):
    c = client()
    task = c.begin("SAY short")
    c.collect(task)
    found = c.ok("codex_wait", task_ids=[task], offset=offset)["tasks"][0]
    assert (found.get("content", ""), found.get("truncated", {}).get("next_offset")) == ("", None)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26"])
def test_where_there_is_only_text_it_is_cut_to_the_limit_and_says_how_to_read_on(client, version):
    c = client(version=version)
    call = c.start_call("codex", {"prompt": "MESSAGE 90000"})
    text = text_of(c.tool_result(call))
    assert LIMITS["test-client"] / 2 < c.result_chars(call) <= LIMITS["test-client"]
    assert "90,000 characters" in text and re.search(r"codex_wait.*offset \d+", text)


@each_client
def test_an_answer_that_fits_is_not_cut(client, message, name):
    record = client(name=name).ok("codex", prompt="MESSAGE 3000")
    assert (record["content"], "truncated" in record) == (message(3000), False)


@each_client
def test_the_limit_is_shared_fairly_short_answers_whole_long_ones_alike(client, message, name):
    c = client(name=name)
    scripts = ["MESSAGE 60000", "SAY short one", "MESSAGE 50000", "MESSAGE 300"]
    call = c.start_call("codex_batch", {"tasks": [{"prompt": s} for s in scripts]})
    records = c.good(c.tool_result(call))["tasks"]
    assert c.result_chars(call) <= LIMITS[name]
    assert (records[1]["content"], records[3]["content"]) == ("short one", message(300))
    shares = [len(records[i]["content"]) for i in (0, 2)]
    assert min(shares) * 2 > max(shares), shares
    assert sum(shares) > LIMITS[name] / 5, "the room is not used"
    for i in (0, 2):
        assert pages(c, records[i]["task_id"], records[i]) == message(int(scripts[i].split()[1]))


@each_client
@pytest.mark.parametrize("tool", ["codex_wait", "codex_status", "codex_cancel"])
def test_every_tool_that_returns_records_keeps_to_the_limit(client, name, tool):
    c = client(name=name)
    tasks = [c.begin("MESSAGE 15000") for _ in range(6)]
    c.collect(*tasks)
    call = c.start_call(tool, {"task_ids": tasks})
    assert len(c.good(c.tool_result(call))["tasks"]) == 6
    assert c.result_chars(call) <= LIMITS[name]


@each_client
def test_a_batch_of_thirty_names_every_task_within_the_limit(client, name):
    c = client(name=name)
    call = c.start_call("codex_batch", {"tasks": [{"prompt": "MESSAGE 5000"}] * 30})
    found = c.good(c.tool_result(call))
    assert len({t["task_id"] for t in found["tasks"]}) == 30
    assert c.result_chars(call) <= LIMITS[name]


def test_a_long_failure_stands_alone_in_ten_thousand_characters(client):
    """Clients cut an error text in the middle above that."""
    result = client().call("codex", {"prompt": "FAIL " + "long words of failure " * 5000})
    assert result["isError"] is True
    assert len(text_of(result)) <= 10000
    assert "long words of failure" in text_of(result)


def test_long_answers_full_of_what_json_escapes_keep_to_the_limit(client):
    """A character of the answer may be six on the wire."""
    c = client()
    call = c.start_call("codex", {"prompt": "SAY " + "\u0001\u2028\"\\" * 20000})
    c.good(c.tool_result(call))
    assert c.result_chars(call) <= LIMITS["test-client"]


# -- prompts -----------------------------------------------------------------------------------------
def facts(c, prompt, **arguments):
    """What fake_codex saw of a run."""
    return json.loads(c.ok("codex", prompt=prompt, **arguments)["content"])


def test_a_prompt_of_900_000_characters_arrives_whole(client):
    prompt = ("ARGV\n" + "line of prompt with \u00e4 and \U0001f41d\n" * 40000)[:900000]
    seen = facts(client(), prompt)
    assert seen["prompt_chars"] == 900000
    assert seen["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()


def test_a_prompt_that_looks_like_something_else_arrives_as_it_is(client):
    c = client()
    for start in ("-", "--help", "--", "-c model=x", "resume", "\n\n  indented", "\ttab", "a\0b", "\ufeffbom",
                  "'quoted\" $HOME `x`"):
        prompt = start + "\nARGV\n\n"
        seen = facts(c, prompt)
        assert seen["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest(), start
        assert seen["argv"][-1] == "-", start


# -- what a client has been given -------------------------------------------------------------------------
def is_collected(root, task_id):
    return (root / "tasks" / task_id / "collected").exists()


@pytest.mark.parametrize("tool", ["codex", "codex_wait", "codex_status", "codex_cancel"])
def test_a_result_that_a_client_was_given_is_marked_as_collected(client, root, gate, tool):
    c = client()
    if tool == "codex":
        task_id = c.ok("codex", prompt="x")["task_id"]
    else:
        task_id = c.begin(gate.wait)            # had it ended by then, codex_async would give its result
        gate.open()
        eventually(lambda: not is_supervised(root / "tasks" / task_id), what="the end of the task")
        assert not is_collected(root, task_id)
        c.ok(tool, task_ids=[task_id])
    eventually(lambda: is_collected(root, task_id), what="the mark")


def test_a_result_that_came_too_late_for_the_client_is_not(client, root, gate):
    c = client()
    call = c.start_call("codex", {"prompt": gate.wait})
    task_id = running(c, 1)[0]
    c.cancel(call, reason="Request timed out")
    gate.open()
    eventually(lambda: not is_supervised(root / "tasks" / task_id), what="the end of the task")
    c.request("ping")
    assert not is_collected(root, task_id)


def test_a_result_that_an_mcp_task_was_given_is_marked_as_collected(modern, root):
    c = modern(tasks=True)
    handle = c.handle("codex", prompt="x")
    eventually(lambda: c.get(handle["taskId"])["status"] == "completed", what="the end")
    assert [is_collected(root, path.name) for path in task_dirs(root)] == [True]


def test_a_result_that_was_cut_is_collected_with_its_last_page(client, message, root):
    c = client()
    record = c.ok("codex", prompt="MESSAGE 90000")
    c.close()
    assert not is_collected(root, record["task_id"])
    c = client()
    offset, text = 0, ""
    while offset is not None:
        found = c.ok("codex_wait", task_ids=[record["task_id"]], offset=offset)["tasks"][0]
        offset, text = found.get("truncated", {}).get("next_offset"), text + found["content"]
    assert text == message(90000) and "truncated" not in found
    eventually(lambda: is_collected(root, record["task_id"]), what="the mark")


def test_of_many_only_those_that_went_out_whole_are_collected(client, root):
    c = client(name="codex-mcp-client")
    long, short = {"prompt": "MESSAGE 5000"}, {"prompt": "SAY short"}
    found = c.ok("codex_batch", tasks=[long] * 8 + [short] * 3)["tasks"]
    c.close()
    whole = [r["task_id"] for r in found if r["content"] == "short"]
    assert len(whole) == 3 and {p.name for p in task_dirs(root) if is_collected(root, p.name)} == set(whole)


def test_what_an_mcp_task_was_given_a_part_of_is_not_collected(modern, root):
    c = modern(tasks=True)
    handle = c.handle("codex_batch", tasks=[{"prompt": "MESSAGE 90000"}, {"prompt": "SAY short"}])
    eventually(lambda: c.get(handle["taskId"])["status"] == "completed", what="the end")
    shown = c.get(handle["taskId"])["result"]["structuredContent"]["tasks"]
    collected = {path.name: is_collected(root, path.name) for path in task_dirs(root)}
    assert {r["task_id"]: "truncated" not in r for r in shown} == collected
    assert sorted("truncated" in r for r in shown) == [False, True]


@each_client
def test_max_chars_beyond_what_a_client_is_shown_says_why_less_came(client, name):
    c = client(name=name)
    task = c.begin("MESSAGE 90000")
    c.collect(task)
    cut = c.ok("codex_wait", task_ids=[task], max_chars=40000)["tasks"][0]["truncated"]
    assert cut["next_offset"] < 40000 and "there is room for" in cut["how"] and "codex_wait" in cut["how"]
