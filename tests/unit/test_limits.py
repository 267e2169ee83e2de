"""Limits and outages: when they end, and how a task that waits for that goes on, or is stopped meanwhile."""
import time
import types

import pytest

import codex_mcp_swarm as cms
from client import eventually
from codex_mcp_swarm import FailureKind, TaskDir

from .helpers import begin, ended, run

HIT = "FAIL You\u2019ve hit your usage limit. Upgrade to Pro (https://x) or try again at %s."
PAST = HIT % "Nov 14th, 2023 10:13 PM"
NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))


def local(at):
    """As codex tells a day and a time."""
    return time.strftime("%b %dth, %Y %I:%M %p", time.localtime(at))


# -- when ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("said, day, hour, minute", [
    ("try again at 1:02 PM.", 21, 13, 2), ("try again at 12:24 AM.", 21, 0, 24),
    ("or try again at Nov 23rd, 2026 1:22 AM.", 23, 1, 22),
    ("try again at Dec 1st, 2026 9:00 PM.", 31, 21, 0)])
def test_the_end_of_a_limit_is_read_from_codexs_words_to_the_end_of_its_minute(said, day, hour, minute):
    """Days of November; its 31st is the 1st of December."""
    wanted = time.mktime((2026, 11, day, hour, minute, 0, 0, 0, -1)) + 60
    assert cms.reset_at("You\u2019ve hit your usage limit. " + said, NOON) == wanted


@pytest.mark.parametrize("said", ["try again later.", "try again at Foo 99th, 2026 1:02 AM.", ""])
def test_no_time_is_guessed(said):
    assert cms.reset_at(said, NOON) is None


def test_a_usage_limit_tells_when_it_ends_as_a_number_and_with_a_zone(swarm):
    tomorrow = time.time() + 86400
    failure = run(swarm(), HIT % local(tomorrow))["failure"]
    assert failure["kind"] == "usage_limit" and 0 <= failure["retry_at"] - tomorrow <= 60
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(failure["retry_at"])) in failure["advice"]


def again(kind, attempts=0, retry_at=None, **spec):
    """In how many seconds the engine wants to go on; its spec then."""
    given = {"arguments": {"on_limit": "wait"}, **spec}
    host = types.SimpleNamespace(now=lambda: NOON)
    engine = cms.Exec(host, TaskDir("/nowhere"), cms.Spec("0" * 12, 0.0, "codex", "/", **given), {})
    engine.tail.progress = cms.Progress(thread_id="t")
    failed = cms.failure(FailureKind(kind), "x")._replace(retry_at=retry_at)
    at, spec = engine.again(failed, attempts)
    return at - NOON, spec


@pytest.mark.parametrize("kind", ["rate_limit", "overloaded", "network"])
@pytest.mark.parametrize("attempts, pause_s", [(0, 4), (1, 8), (7, 512), (8, 600), (50, 600)])
def test_each_pause_is_twice_as_long_up_to_a_bound_and_no_two_tasks_keep_step(kind, attempts, pause_s):
    pauses = [again(kind, attempts)[0] for _ in range(20)]
    assert len(set(pauses)) > 1 and all(pause_s / 2 <= pause <= pause_s * 1.5 for pause in pauses)


@pytest.mark.parametrize("kind, more", [
    ("auth", {}), ("context_overflow", {}), ("usage_limit", {}), ("killed", {}),
    ("network", {"ephemeral": True}), ("network", {"arguments": {}}),
    ("network", {"arguments": {"on_limit": "fail"}})])
def test_nothing_is_tried_again_that_does_not_pass_or_was_not_asked_for(kind, more):
    pause_s, spec = again(kind, **more)
    assert pause_s == float("inf") and not spec.goes_on


@pytest.mark.parametrize("default, asked, shown", [
    ("wait", {}, "wait"), ("wait", {"on_limit": "fail"}, "fail"), ("", {"on_limit": "wait"}, "wait"),
    ("", {}, None)])
def test_the_server_has_a_default_for_limits_and_the_call_decides(swarm, default, asked, shown):
    record = run(swarm(on_limit=default), "SAY x", **asked)
    assert record.get("on_limit") == shown


def test_under_the_default_of_the_server_a_task_sits_out_a_limit(swarm):
    app = swarm(on_limit="wait")
    record = run(app, PAST)
    assert record["outcome"] == "succeeded" and len(record["attempts"]) == 1
    assert run(app, PAST, on_limit="fail")["failure"]["kind"] == "usage_limit"


def test_a_run_goes_on_in_its_thread_and_a_review_begins_anew():
    pause_s, spec = again("usage_limit", retry_at=NOON + 1000, fork_of="other")
    assert 1002 <= pause_s <= 1006
    words = cms.codex_argv(spec)
    assert words[words.index("resume"):][-2:] == ["t", cms.GO_ON] and "fork" not in words
    assert cms.codex_argv(again("network", review=("--uncommitted",))[1])[-1] == "--uncommitted"


# -- whole tasks --------------------------------------------------------------------------------------
@pytest.mark.parametrize("end, kind", [(PAST, "usage_limit"), ("FAIL Connection failed: x", "network")])
def test_a_task_goes_on_by_itself_and_each_attempt_is_in_its_record(swarm, end, kind):
    record = run(swarm(), "LINES 2", end, on_limit="wait")
    assert record["outcome"] == "succeeded" and record["content"].startswith("echo: Go on")
    assert len(record["attempts"]) == 1 and " %s: " % kind in record["attempts"][0]
    assert record["threadId"] and "failure" not in record


def test_a_waiting_task_tells_until_when_holds_nothing_and_is_cancelled_at_once(swarm):
    app = swarm()
    task = begin(app, "TELL half of it", HIT % local(time.time() + 7200), on_limit="wait")
    shown = lambda: app.record(task.task_id)
    record = eventually(lambda: "attempts" in shown() and shown(), what="the first attempt")
    assert record["state"] == "running" and record["progress"]["phase"] == cms.Phase.LIMIT.value
    until = time.gmtime(task.status().waits_until)
    assert record["progress"]["detail"] == time.strftime("until %Y-%m-%dT%H:%M:%SZ", until)
    assert task.status().pid is None
    swarm().stop([task.task_id])
    (record,) = ended(app, [task.task_id])
    assert record["outcome"] == "cancelled" and record["content"] == "half of it" and record["attempts"]
    assert "It was cancelled while waiting for a limit" in record["failure"]["message"]


def test_an_attempt_that_cannot_be_started_tells_why(swarm, tmp_path):
    codex = tmp_path / "codex"
    codex.write_text('#!/bin/sh\nexec "%s" "$@"\n' % swarm().config.codex_bin)
    codex.chmod(0o700)
    record = run(swarm(codex_bin=str(codex)), "SHELL rm %s" % codex, PAST, on_limit="wait")
    assert record["failure"]["kind"] == "codex_missing" and len(record["attempts"]) == 1


def test_what_lasts_longer_than_the_task_may_fails_at_once(swarm):
    record = run(swarm(), HIT % local(time.time() + 7200), on_limit="wait", timeout_s=600)
    assert record["outcome"] == "failed" and record["failure"]["retry_at"] > time.time() + 7000
    assert "attempts" not in record


def test_a_waiting_task_gives_its_place_back_and_goes_on_when_one_is_free(swarm, tmp_path):
    app = swarm(max_parallel=1)
    waits = begin(app, HIT % local(time.time() - 120), on_limit="wait")
    next_one = begin(app, "WAITFILE %s" % (tmp_path / "gate"), "SAY next")
    eventually(lambda: app.live() and app.record(next_one.task_id)["state"] == "running")
    assert app.record(waits.task_id)["progress"]["phase"] == cms.Phase.LIMIT.value
    (tmp_path / "gate").write_text("")
    records = ended(app, [waits.task_id, next_one.task_id])
    assert [r["outcome"] for r in records] == ["succeeded"] * 2
