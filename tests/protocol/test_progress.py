"""Progress: only for who asked, always rising, in words, and never after the result."""
import time

import pytest

from client import is_progress, is_response
from conftest import running


def any_progress(message):
    return message.get("method") == "notifications/progress"


def begun(c, token):
    return c.wait_for(lambda m: is_progress(m, token), what="progress")


@pytest.mark.parametrize("token", [0, 7, "", "a token", -3, 2 ** 40])
def test_progress_carries_the_token_as_it_was_given(client, gate, token):
    c = client()
    call = c.start_call("codex", {"prompt": gate.wait}, progress_token=token)
    begun(c, token)
    gate.open()
    c.good(c.tool_result(call))


def test_there_is_no_progress_without_a_token(client, gate):
    c = client()
    call = c.start_call("codex", {"prompt": "SHELL true\n" + gate.wait})
    watched = c.start_call("codex_wait", {"task_ids": running(c, 1)}, progress_token="w")
    begun(c, "w")
    gate.open()
    c.tool_result(call), c.tool_result(watched)
    c.ping()
    assert all(is_progress(m, "w") for m in c.log if any_progress(m))


def test_progress_names_the_command_that_runs_and_rises_strictly(client, repo, gate):
    c = client()
    (repo / "remarkable_script.sh").write_text("while ! test -e %s; do sleep 0.05; done\n" % gate.path)
    call = c.start_call("codex", {"prompt": "SHELL bash remarkable_script.sh\nSAY done"}, progress_token="p")
    c.wait_for(lambda m: is_progress(m, "p") and "remarkable_script" in m["params"]["message"],
               what="word of the command")
    gate.open()
    c.good(c.tool_result(call))
    seen = c.progress("p")
    values = [p["progress"] for p in seen]
    assert values == sorted(set(values))
    texts = [p["message"] for p in seen]
    assert all(text and not text.lstrip().startswith("{") and len(text) < 300 for text in texts)
    assert all(p["total"] >= p["progress"] for p in seen if "total" in p)


def test_progress_of_a_wait_counts_the_tasks_that_are_done(client, gate):
    c = client()
    quick, slow = c.begin("SAY quick"), c.begin(gate.wait)
    call = c.start_call("codex_wait", {"task_ids": [quick, slow]}, progress_token="w")
    c.wait_for(lambda m: is_progress(m, "w") and "1 of 2" in m["params"]["message"], what="1 of 2")
    gate.open()
    c.good(c.tool_result(call))


def test_progress_says_who_runs_how_many_failed_and_how_far_it_is_as_numbers(client, tmp_path, gate):
    c = client()
    prompts = ["FAIL flagged", "Fix the crash\nSHELL bash %s/remarkable.sh" % tmp_path]
    (tmp_path / "remarkable.sh").write_text("while ! test -e %s; do sleep 0.05; done\n" % gate.path)
    call = c.start_call("codex_batch", {"tasks": [{"prompt": p} for p in prompts]}, progress_token="w")
    wanted = ("1 of 2 done, 1 failed", "`Fix the crash` running `bash")
    c.wait_for(lambda m: is_progress(m, "w") and all(words in m["params"]["message"] for words in wanted),
               what="the names and the counts")
    gate.open()
    c.good(c.tool_result(call))
    seen = c.progress("w")
    assert {p["total"] for p in seen} == {2} and 1 < seen[-1]["progress"] < 2
    values = [p["progress"] for p in seen]
    assert values == sorted(set(values))


@pytest.mark.parametrize("tool", ["codex", "codex_batch", "codex_reply", "codex_wait"])
def test_every_blocking_call_reports_progress_and_none_after_its_result(client, gate, tool):
    c = client()
    arguments = {
        "codex": lambda: {"prompt": gate.wait},
        "codex_batch": lambda: {"tasks": [{"prompt": gate.wait}]},
        "codex_reply": lambda: {"prompt": gate.wait, "threadId": c.ok("codex", prompt="SAY x")["threadId"]},
        "codex_wait": lambda: {"task_ids": [c.begin(gate.wait)]},
    }[tool]()
    call = c.start_call(tool, arguments, progress_token="t")
    begun(c, "t")
    gate.open()
    c.good(c.tool_result(call))
    assert c.close() == 0
    answered = c.index(lambda m: is_response(m) and m["id"] == call)
    assert not [m for m in c.log[answered:] if any_progress(m)]


def test_progress_comes_at_most_once_a_second_however_fast_the_run_changes(client):
    c = client()
    began = time.monotonic()
    call = c.start_call("codex", {"prompt": "SHELL sleep 0.04\n" * 50 + "LINES 500\nSAY done"},
                        progress_token="fast")
    c.good(c.tool_result(call))
    assert len(c.progress("fast")) <= time.monotonic() - began + 2


def test_two_calls_with_two_tokens_rise_each_on_its_own(client, gate):
    c = client()
    prompt = gate.wait + "\nSHELL true"
    calls = [c.start_call("codex", {"prompt": prompt}, progress_token=token) for token in (1, "1")]
    begun(c, 1), begun(c, "1")
    gate.open()
    for call in calls:
        c.good(c.tool_result(call))
    for token in (1, "1"):
        values = [p["progress"] for p in c.progress(token)]
        assert values == sorted(set(values))
