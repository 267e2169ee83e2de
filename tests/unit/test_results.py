"""A result is what fits into what the client shows its model: never more, fairly shared, all to be had."""
import functools
import random

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Answer, Client, Handshake

LIMITS = [("claude-code", "2025-11-25", 40_000), ("codex-mcp-client", "2025-11-25", 12_000),
          ("old", "2025-03-26", 40_000), ("codex-mcp-client", "2024-11-05", 12_000)]
each_client = pytest.mark.parametrize("name, revision, limit", LIMITS)
LETTERS = ["plain words and lines\n", 'say "hi" \\ back\t', "\u00e4\u20ac\u6f22", "\U0001f41d", "\0\x1b\x7f",
           "\u2028\u2029\x85", "\n\n\n"]


def content(chance, longest):
    n = int(longest ** chance.random())
    mixed = "".join(chance.choice(LETTERS) for _ in range(min(n, 2000)))
    return (mixed * (n // max(1, len(mixed)) + 1))[:n]


def record(chance, longest):
    ident = "%012x" % chance.getrandbits(48)
    out = {"task_id": ident, "state": "ended", "outcome": "succeeded",
           "threadId": "01a1fae2-9a16-7c70-9702-%012x" % chance.getrandbits(48)}
    if chance.random() < 0.2:
        out.update(state="running",
                   progress={
                       "phase": "running a command", "detail": "pytest -q",
                       "last_message": content(chance, 300), "tools": {"command_execution": 7}
                   })
        del out["outcome"]
    elif chance.random() < 0.2:
        out.update(outcome="failed",
                   failure={
                       "kind": "auth", "message": content(chance, 2000), "retryable": False,
                       "advice": "Log in."
                   })
    if chance.random() < 0.8:
        out["content"] = content(chance, longest)
    if chance.random() < 0.3:
        out["warnings"] = [content(chance, 400) for _ in range(chance.randrange(1, 12))]
    if chance.random() < 0.3:
        out["worktree"] = {
            "path": "/home/me/" + "deep/" * chance.randrange(60) + ident, "branch": "codex-swarm/" + ident,
            "base": "0" * 40, "head": "1" * 40, "files_changed": 3, "insertions": 41, "deletions": 7
        }
    if chance.random() < 0.8:
        out["usage"] = dict(zip(cms.Usage._fields, (18234, 0, 0, 1210, 90)))
    return {**out, "exit_code": 0, "elapsed_s": 94.2, "started_at": 1732150000.1}


def batch(chance, count, longest):
    records = [record(chance, longest) for _ in range(count)]
    running = [r["task_id"] for r in records if r["state"] == "running"]
    return {"tasks": records, "still_running": running, **({"collect": cms.COLLECT} if running else {})}


def result(data, name, revision, failed=False):
    """The tool result as it goes out: (result, how many characters it has on the wire)."""
    return told(data, name, revision, failed)[:2]


def told(data, name, revision, failed=False):
    """The same, and the ids of the tasks that counts as given."""
    era, call = Handshake(None), cms.Call()
    era.revision, era.client = revision, Client(name)
    out = era.call_result(Answer(data, failed), call)
    return out, len(cms.Wire.encode(out).decode("utf-8")) - 1, call.given


def test_a_client_whose_model_may_see_the_text_alone_gets_half_of_the_room_for_it():
    data = {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "x" * 30_000}
    out, length = result(data, "some-editor", "2025-11-25")
    assert len(out["content"][0]["text"]) > 15_000 and "codex_wait" in out["content"][0]["text"]
    assert length < 40_000
    out, _ = result(data, "claude-code", "2025-11-25")
    assert len(out["structuredContent"]["content"]) == 30_000


def test_an_error_with_a_failure_fits_the_schema_that_clients_check_it_against():
    era = Handshake(None)
    structured = era.error_result(cms.ToolError("no", kind=cms.FailureKind.AUTH))["structuredContent"]
    assert structured["failure"]["kind"] == "auth"
    for found in cms.TOOLS.values():
        assert [key for key in found.returns.get("required", ()) if key not in structured] == []


@functools.lru_cache(maxsize=None)
def batches():
    chance = random.Random(8)
    return [batch(chance, count, longest if count < 120 else min(longest, 20_000))
            for count in [1, 1, 1, 2, 3, 5, 10, 40, 120] for longest in (200, 5000, 200_000)]


@functools.lru_cache(maxsize=None)
def batches_told(name, revision):
    return [(data, *told(data, name, revision)) for data in batches()]


@each_client
def test_a_result_stays_below_the_limit_and_represents_every_task(name, revision, limit):
    for data, out, chars, _ in batches_told(name, revision):
        assert chars < limit, (len(data["tasks"]), cms.size(data))
        if "structuredContent" in out:
            shown = out["structuredContent"]
            ids = [[r["task_id"] for r in one["tasks"]] for one in (shown, data)]
            assert ids[0] == ids[1][:len(ids[0])]
            assert len(shown["tasks"]) + shown.get("left_out", 0) == len(data["tasks"])
            assert (len(shown["tasks"]) < len(data["tasks"])) == ("left_out" in shown)
            for before, after in zip(data["tasks"], shown["tasks"]):
                assert before["state"] == after["state"] and before.get("outcome") == after.get("outcome")
                assert before.get("content", "").startswith(after.get("content", ""))
                assert ("content" in before) == ("content" in after)
                assert ("truncated" in after) == (after.get("content") != before.get("content"))
        else:
            text = out["content"][0]["text"]
            told = sum(r["task_id"] in text for r in data["tasks"])
            assert told == len(data["tasks"]) or "left_out" in text or "cut; " in text


@each_client
@pytest.mark.parametrize("letter",
                         ["x", '"', "\n", "\0", "\u20ac", "\U0001f41d", "\u2028", "\x85", "\ud800", "\\"])
def test_a_result_stays_below_the_limit_whatever_its_letters_weigh(name, revision, limit, letter):
    for length, both in ((limit // 6, True), (limit // 2, False), (limit, True), (4 * limit, False)):
        data = {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": letter * length}
        if both:
            data = {"tasks": [data, {**data, "task_id": "1" * 12}], "still_running": []}
        assert result(data, name, revision)[1] < limit, length


@each_client
def test_no_length_slips_past_the_limit(name, revision, limit):
    for whole in (limit, limit // 2):           # text alone; or structured and text, which hold it twice
        for length in range(whole - 700, whole, 23):
            assert result(
                {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "x" * length},
                name, revision)[1] < limit, length


@each_client
def test_five_hundred_ids_still_fit(name, revision, limit):
    chance = random.Random(9)
    records = [{
        "task_id": "%012x" % chance.getrandbits(48), "state": "running", "elapsed_s": 1.0, "started_at": 1.0
    } for _ in range(500)]
    out, chars = result(
        {"tasks": records, "still_running": [r["task_id"] for r in records], "collect": cms.COLLECT}, name,
        revision)
    assert chars < limit
    shown = out.get("structuredContent", {"tasks": [], "left_out": 500})
    assert len(shown["tasks"]) + shown.get("left_out", 0) == 500


def finished(count, letters, **more):
    full = {
        "title": "Do it", "threadId": "01a1fae2-9a16-7c70-9702-000000000000",
        "usage": dict.fromkeys(cms.Usage._fields, 18234), "exit_code": 0, "elapsed_s": 94.2, "worktree": {
            "path": "/home/me/worktrees/x", "branch": "codex-swarm/x", "base": "0" * 40, "head": "1" * 40
        }, "started_at": 1732150000.1
    }
    return {
        "tasks": [{
            "task_id": "%012x" % i, "state": "ended", "outcome": "succeeded", "content": "x" * letters,
            **full, **more
        } for i in range(count)], "still_running": []
    }


@pytest.mark.parametrize("count, letters", [(1, 90_000), (3, 90_000), (20, 700), (30, 500), (100, 50),
                                            (100, 400), (100, 5_000), (500, 40), (500, 5_000)])
@pytest.mark.parametrize("limit", [9_834, 37_800])
def test_the_room_is_used_when_there_is_so_much_to_say(count, letters, limit):
    data = finished(count, letters)
    assert min(cms.size(data), 0.95 * limit) <= cms.size(cms.fit(data, limit)) <= limit


@each_client
def test_every_task_of_a_call_is_named_with_how_it_ended_however_many(name, revision, limit):
    data, chance = finished(500, 300), random.Random(4)
    for r in data["tasks"]:
        how = chance.choice(["succeeded", "failed", "cancelled", "timed_out", "lost", "running"])
        r.update({"state": "running"} if how == "running" else {"outcome": how})
        if how == "running":
            del r["outcome"], r["content"]
    data.update(still_running=[r["task_id"] for r in data["tasks"] if r["state"] == "running"],
                collect=cms.COLLECT)
    out, chars = result(data, name, revision)
    assert chars < limit
    if "structuredContent" not in out:
        assert [r for r in data["tasks"] if r["task_id"] not in out["content"][0]["text"]] == []
        return
    shown = out["structuredContent"]
    told = {i: how for how, ids in shown["others"].items() for i in ids}
    assert len(told) == sum(map(len, shown["others"].values()))
    assert "codex_wait" in shown["note"]
    assert shown["still_running"] == data["still_running"]
    told.update({r["task_id"]: r.get("outcome") or r["state"] for r in shown["tasks"]},
                **dict.fromkeys(shown["still_running"], "running"))
    assert told == {r["task_id"]: r.get("outcome") or r["state"] for r in data["tasks"]}


@each_client
def test_only_what_went_out_to_the_end_counts_as_given(name, revision, limit):
    more = [(data, *told(data, name, revision))
            for data in (finished(100, 300), finished(100, 5_000), finished(3, 300))]
    for data, out, _, given in batches_told(name, revision) + more:
        shown = {r["task_id"]: r for r in out.get("structuredContent", {"tasks": []})["tasks"]}
        for r in data["tasks"]:
            if "structuredContent" in out:
                there = shown.get(r["task_id"], {})
                is_whole = bool(there) and all(there.get(key) == r.get(key) for key in ("content", "failure"))
            else:
                text = out["content"][0]["text"]
                is_whole = r["task_id"] in text and cms.visible(r.get("content", "")) in text
            if r["state"] != "ended" or not is_whole:
                assert r["task_id"] not in given
            elif "structuredContent" in out:
                assert r["task_id"] in given
    # of the last one, which fits as it is
    assert set(given) == {r["task_id"] for r in data["tasks"]}


def test_what_an_error_text_cuts_was_not_given():
    for letters, given in ((9_000, 1), (9_600, 0)):
        era, call = Handshake(None), cms.Call()
        era.revision, era.client = "2025-11-25", Client("claude-code")
        failure = {"kind": "killed", "message": "M", "retryable": True, "advice": "A"}
        era.call_result(Answer({**finished(1, letters, outcome="failed", failure=failure)["tasks"][0]}, True),
                        call)
        assert len(call.given) == given


@each_client
def test_a_page_that_is_smaller_than_asked_for_says_why(name, revision, limit):
    record = cms.page(
        {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "x" * 90_000}, 100, 40_000)
    out, _ = result({"tasks": [record], "still_running": []}, name, revision)
    text, unseen = out["content"][0]["text"], name != "some-editor" and "structuredContent" in out
    assert unseen or "there is room for" in text or "cut here" in text
    if "structuredContent" in out:
        cut = out["structuredContent"]["tasks"][0]["truncated"]
        assert "there is room for" in cut["how"] and "offset %d" % cut["next_offset"] in cut["how"]


@each_client
def test_the_last_page_says_nothing_of_a_cut(name, revision, limit):
    full = {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "x" * 5_000}
    for offset, max_chars, cut in ((0, None, False), (0, 4_999, True), (4_000, 1_000, False),
                                   (4_000, 999, True), (4_999, None, False), (5_000, None, True),
                                   (9_999, 5, True)):
        call = cms.Call()
        era = Handshake(None)
        era.revision, era.client = revision, Client(name)
        out = era.call_result(Answer({"tasks": [cms.page(full, offset, max_chars)], "still_running": []}),
                              call)
        if "structuredContent" in out:
            assert ("truncated" in out["structuredContent"]["tasks"][0]) == cut
        assert bool(call.given) != cut


def test_what_is_short_is_not_touched():
    chance = random.Random(10)
    for count in (1, 2, 5, 20):
        data = batch(chance, count, 300)
        assert cms.fit(data, 100_000) == data
        shown, text = cms.present(data, 200_000, True)
        assert shown == data
        assert all(cms.visible(r["content"]) in text for r in data["tasks"] if "content" in r)
    one = {"task_id": "0" * 12, "state": "ended", "content": "short"}
    shown, _ = cms.present(one, 40_000, True)
    assert shown == one


@each_client
def test_only_the_long_are_cut_and_all_of_them_alike(name, revision, limit):
    chance = random.Random(11)
    for long in (1, 3, 8):
        records = [{
            "task_id": "%012x" % i, "state": "ended", "outcome": "succeeded",
            "content": "short " * chance.randrange(30)
        } for i in range(12)]
        for r in chance.sample(records, long):
            r["content"] = "x" * chance.randrange(50_000, 90_000)
        shown = cms.fit({"tasks": records, "still_running": []}, limit)["tasks"]
        lengths = [len(r["content"]) for r in shown if "truncated" in r]
        assert [r for r in shown if "truncated" not in r] == [r for r in records if len(r["content"]) < 1000]
        assert len(lengths) == long
        assert max(lengths) - min(lengths) <= 2
        assert min(lengths) > limit // (2 * long)


@pytest.mark.parametrize("limit", [12_000, 40_000])
@pytest.mark.parametrize("length", [0, 1, 11_999, 40_001, 200_000])
def test_paging_gives_back_the_whole_text(limit, length):
    chance = random.Random(length)
    piece = content(chance, 2000)
    whole = (piece * (length // len(piece) + 1))[:length]
    full = {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": whole,
            "usage": {"input_tokens": 1}}
    text, offset, pages = "", 0, 0
    while offset is not None:
        data = {"tasks": [cms.page(full, offset, None)], "still_running": []}
        (shown,) = cms.fit(data, limit)["tasks"]
        cut = shown.get("truncated", {})
        assert cut.get("offset", 0) == offset and cut.get("total_chars", length) == length
        assert "next_offset" not in cut or ("offset %d" % cut["next_offset"] in cut["how"]
                                            and cut["next_offset"] > offset)
        text, offset, pages = text + shown["content"], cut.get("next_offset"), pages + 1
    assert text == whole and pages <= 1 + 8 * length // limit


@pytest.mark.parametrize("offset, max_chars, piece, next_offset", [(0, None, "0123456789", None),
                                                                   (0, 10, "0123456789", None),
                                                                   (0, 11, "0123456789", None),
                                                                   (0, 4, "0123", 4), (4, 4, "4567", 8),
                                                                   (8, 4, "89", None), (9, 1, "9", None),
                                                                   (10, None, "", None), (99, 5, "", None),
                                                                   (3, None, "3456789", None)])
def test_a_page_is_the_piece_asked_for(offset, max_chars, piece, next_offset):
    shown = cms.page({"task_id": "0" * 12, "content": "0123456789"}, offset, max_chars)
    assert (shown["content"], shown.get("truncated", {}).get("next_offset")) == (piece, next_offset)
    assert ("truncated" in shown) == (piece != "0123456789")


def test_a_record_without_content_has_no_pages():
    running = {"task_id": "0" * 12, "state": "running"}
    assert cms.page(running, 100, 5) == running


@pytest.mark.parametrize("wanted, budget, given", [([], 10, []), ([5], 10, [5]), ([50], 10, [10]),
                                                   ([5, 50], 20, [5, 15]), ([50, 5, 50], 25, [10, 5, 10]),
                                                   ([1, 2, 3], 6, [1, 2, 3]), ([9, 9, 9], 10, [3, 3, 4]),
                                                   ([9, 9], 0, [0, 0]), ([9, 9], -100, [0, 0]),
                                                   ([0, 0, 7], 5, [0, 0, 5])])
def test_shares_are_fair(wanted, budget, given):
    assert cms.shares(wanted, budget) == given


def test_shares_use_up_the_budget_and_give_nobody_more_than_wanted():
    chance = random.Random(12)
    for _ in range(500):
        wanted = [chance.randrange(1000) for _ in range(chance.randrange(1, 40))]
        budget = chance.randrange(20_000)
        given = cms.shares(wanted, budget)
        assert sum(given) == min(budget, sum(wanted)) and all(g <= w for g, w in zip(given, wanted))
        cut = [g for g, w in zip(given, wanted) if g < w]
        assert not cut or (max(cut) - min(cut) <= 1 and max(given) <= max(cut) + 1)


@pytest.mark.parametrize("letter", ["x", '"', "\n", "\0", "\u20ac", "\U0001f41d", "\u2028"])
@pytest.mark.parametrize("budget", [-5, 0, 1, 5, 100, 10_000])
def test_a_prefix_is_the_longest_that_fits(letter, budget):
    weight = len(cms.Wire.encode(letter).decode()) - 3
    assert len(cms.prefix(letter * 3000, budget)) == min(3000, max(0, budget) // weight)


def test_a_failed_run_fits_into_an_error_text_and_stands_alone():
    chance = random.Random(13)
    for longest in (10, 5000, 200_000):
        data = {
            **record(chance, longest), "state": "ended", "outcome": "failed",
            "content": content(chance, longest), "warnings": ["w" * 400] * 12, "failure": {
                "kind": "auth", "message": "m" * 2000, "retryable": False,
                "advice": "Log in with `codex login`."
            }
        }
        out, chars = result(data, "claude-code", "2025-11-25", failed=True)
        text = out["content"][0]["text"]
        assert out["isError"] and len(text) < 10_000 and chars < 40_000
        assert data["task_id"] in text and "auth: m" in text and "Log in with" in text


RENDERED = [
    ({
        "task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "the end", "elapsed_s": 1.5,
        "threadId": "T"
    }, ["succeeded", "1.5 s", "thread T", "the end"]),
    ({
        "task_id": "0" * 12, "state": "running",
        "progress": {"phase": "running a command", "detail": "make", "last_file": "/x", "last_event_s": 3}
    }, ["running a command: make", "3 s ago", "/x"]),
    ({
        "task_id": "0" * 12, "state": "ended", "outcome": "failed",
        "failure": {"kind": "auth", "message": "M.", "retryable": True, "advice": "A."}
    }, ["auth: M.\nA.", "retry"]),
    ({
        "task_id": "0" * 12, "state": "ended", "outcome": "succeeded",
        "worktree": {"path": "/w", "branch": "b", "files_changed": 2, "insertions": 3, "deletions": 4}
    }, ["/w", "branch b", "+3 -4"]),
    ({
        "task_id": "0" * 12, "state": "ended", "outcome": "lost", "warnings": ["one", "two"],
        "usage": {"input_tokens": 5, "output_tokens": 6}
    }, ["warning: one", "warning: two", "5 tokens in, 6 out"]),
    ({"tasks": [], "still_running": []}, ["No task is running"]),
    ({"tasks": [{"task_id": "0" * 12, "state": "running"}], "still_running": ["0" * 12],
      "collect": "C"}, ["Still running: 000000000000", "C"]),
]


@pytest.mark.parametrize("data, words", RENDERED, ids=lambda v: str(v)[:40])
def test_the_text_tells_what_the_record_tells(data, words):
    text = cms.render(data)
    assert [word for word in words if word not in text] == []


def test_lines_that_end_as_in_dos_are_text_and_a_lone_return_is_shown():
    text = cms.render({"task_id": "0" * 12, "content": "dos\r\nlone\rreturn\x1b\r"})
    assert text.endswith("\ndos\r\nlone\\x0dreturn\\x1b\\x0d")


@pytest.mark.parametrize("client", ["codex-mcp-client", "claude-code"])
def test_a_client_is_sent_no_text_that_its_model_would_not_be_shown(client):
    data = {"task_id": "0" * 12, "state": "ended", "outcome": "succeeded", "content": "the answer"}
    for revision, text in (("2025-11-25", "See structuredContent"), ("2024-11-05", "the answer")):
        assert text in result(data, client, revision)[0]["content"][0]["text"]


def test_of_several_a_record_has_three_numbers_of_usage_no_thread_and_no_exit_status_that_says_nothing():
    usage = dict(zip(cms.Usage._fields, range(1, 6)))
    record = {"task_id": "0" * 12, "threadId": "x", "usage": usage, "exit_code": 0}
    assert cms.terse(record) == {"task_id": "0" * 12, "usage": {
        "input_tokens": 1, "cached_input_tokens": 2, "output_tokens": 4}}
    assert cms.terse({"exit_code": 1}) == {"exit_code": 1}
