"""A limit on the tasks that run at once, of all servers of a ROOT, and the queue of those that wait."""
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import threading
import tracemalloc

import pytest

import codex_mcp_swarm as cms
from client import eventually
from codex_mcp_swarm import Outcome, Spec, State, Status, TaskDir

from .helpers import WAIT_S, auditing, begin, ended, parent_of, pid_of, put_in, run

NOW_S = 1_700_000_000.0


@pytest.fixture
def put(tasks):
    """`put(number, limit)`: a task that is queued, in a ROOT that has no servers."""
    def put(number, limit=2, **fields):
        spec = Spec("%012x" % number, NOW_S, "/bin/codex", "/", max_parallel=limit, **fields)
        return put_in(tasks, TaskDir.create(tasks.tasks, spec, "x"), spec, NOW_S)
    return put


def due(tasks, host=cms.Host()):
    """The tasks that may begin, and do: each is held by a supervisor, which this test plays."""
    found, held = [], []
    for task, fds in tasks.queue.due(host):
        held += map(os.dup, fds)
        task.write_status(Status(State.STARTING))
        tasks.queue.drop(task)
        found.append(int(task.task_id, 16))
    return found, held


# -- who is next --------------------------------------------------------------------------------------
def test_the_oldest_begin_first_and_each_end_makes_room_for_one(tasks, put):
    for number in (9, 3, 7, 5):
        put(number)
    begun, held = due(tasks)
    assert begun == [9, 3] and due(tasks)[0] == []
    os.close(held[1])                               # a slot alone: whatever becomes of its supervisor
    assert due(tasks)[0] == [7]
    cms.close_all(*held[2:])
    assert due(tasks)[0] == [5]


def test_a_task_without_a_limit_waits_for_nobody_and_others_do_not_overtake(tasks, put):
    for number, limit in ((1, 1), (2, 1), (3, 8), (4, 0), (5, 8)):
        put(number, limit)
    begun, held = due(tasks)
    assert begun == [1, 4], "3 may not go before 2, though a slot is free for it"
    cms.close_all(*held)
    assert due(tasks)[0] == [2, 3, 5]


def test_the_order_of_arrival_holds_when_the_clock_goes_back(tasks, put):
    put(1)
    spec = Spec("%012x" % 2, NOW_S, "/bin/codex", "/", max_parallel=2)
    put_in(tasks, TaskDir.create(tasks.tasks, spec, "x"), spec, NOW_S - 3600)
    assert tasks.queue.ids() == ["%012x" % 1, "%012x" % 2]


@pytest.mark.parametrize("number, place", [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"),
                                           (12, "12th"), (13, "13th"), (21, "21st"), (23, "23rd")])
def test_a_place_is_told_as_people_say_it(tasks, number, place):
    for i in range(1, 24):
        open(os.path.join(tasks.queue.path, "%013d.4.%012x" % (i, i)), "w").close()
    assert tasks.queue.place("%012x" % number, tasks.queue.names()) == place + " of 23"


def test_what_has_no_place_in_the_queue_is_passed_over(tasks, put):
    put(1)
    for name in ("notes.txt", "%013d.x.%012x" % (1, 1), "%013d.2.%012x" % (1, 0xabc)):
        open(os.path.join(tasks.queue.path, name), "w").close()
    assert due(tasks)[0] == [1] and tasks.queue.ids() == []


def test_a_name_of_the_far_future_hides_no_task_that_comes_after_it(tasks, put):
    for name in ("9" * 13 + ".2." + "a" * 12, "9" * 14 + ".2." + "b" * 12):
        open(os.path.join(tasks.queue.path, name), "w").close()
    put(2)
    put(1)
    assert sorted(due(tasks)[0]) == [1, 2] and tasks.queue.ids() == []


# -- what is damaged ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["spec.json", "lock"])
@pytest.mark.parametrize("text", [None, "{}"])
def test_a_damaged_task_ends_and_holds_up_no_other(tasks, put, name, text):
    damaged = put(1, 1)
    put(2, 1)
    os.unlink(damaged.file(name))
    if text:
        with open(damaged.file("spec.json"), "w") as f:
            f.write(text)
    assert due(tasks)[0] == [2] and tasks.queue.ids() == []
    assert damaged.status().outcome is Outcome.FAILED
    assert damaged.report().failure.kind is cms.FailureKind.SETUP


def test_a_task_that_cannot_be_read_just_now_stays_and_holds_up_no_other(tasks, put):
    unreadable, _ = put(1, 1), put(2, 1)
    os.rename(unreadable.file("spec.json"), unreadable.file("aside"))
    os.mkdir(unreadable.file("spec.json"))                  # to read it is an OSError, also for uid 0
    begun, held = due(tasks)
    assert begun == [2] and tasks.queue.ids() == ["%012x" % 1]
    cms.close_all(*held)
    os.rmdir(unreadable.file("spec.json"))
    os.rename(unreadable.file("aside"), unreadable.file("spec.json"))
    assert due(tasks)[0] == [1]


@pytest.mark.parametrize("name", ["spec.json", "lock"])
def test_a_damaged_task_can_be_cancelled(tasks, put, name):
    task = put(1)
    os.unlink(task.file(name))
    assert tasks.queue.cancel(task, NOW_S) and task.status().outcome is Outcome.CANCELLED


def test_a_task_fails_when_one_it_depends_on_has_lost_its_lock(tasks, put):
    first, second = put(1), put(2, 0, depends_on=("%012x" % 1,))
    begun, held = due(tasks)
    cms.close_all(*held)
    os.unlink(first.file("lock"))
    assert due(tasks)[0] == [] and second.status().outcome is Outcome.FAILED


def test_no_descriptor_stays_open_when_the_system_has_no_more(tasks, put, monkeypatch):
    put(1, 1)
    before, opened = os.listdir("/dev/fd"), cms.open_lock

    def exhausted(path, create=0):
        if path.endswith("/lock"):
            raise OSError(cms.errno.EMFILE, "Too many open files")
        return opened(path, create)
    with monkeypatch.context() as patch:
        patch.setattr(cms, "open_lock", exhausted)
        with pytest.raises(OSError, match="Too many"):
            due(tasks)
    assert len(os.listdir("/dev/fd")) == len(before)
    assert due(tasks)[0] == [1]


def test_a_lock_that_cannot_be_taken_leaves_no_descriptor(tasks, put, monkeypatch):
    def refuse(*_):
        raise OSError(cms.errno.ENOLCK, "No locks available")
    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(cms.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks"):
        cms.take(put_aside(tasks))
    assert len(os.listdir("/dev/fd")) == before


def put_aside(tasks):
    path = os.path.join(tasks.root, "some.lock")
    os.close(cms.open_lock(path, os.O_CREAT))
    return path


# -- whoever is killed --------------------------------------------------------------------------------
def crash(act, at):
    """Do it in a process that is killed at its `at`-th question to the system; whether it came to the end."""
    pid = os.fork()
    if pid == 0:
        seen = []

        def die(event, args):
            seen.append(event)
            if event in ("open", "os.rename", "os.link", "os.remove", "os.listdir", "fcntl.flock"):
                die.left -= 1
                if die.left == 0:
                    os._exit(9)
        die.left = at
        sys.addaudithook(die)
        with contextlib.suppress(BaseException):
            act()
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] >> 8


def test_whoever_is_killed_while_a_task_is_put_in_leaves_it_queued_or_not_there(tasks, put):
    codes = []
    while not codes or codes[-1] == 9:
        codes.append(crash(lambda: put(len(codes)), len(codes) + 1))
        there = tasks.has("%012x" % len(codes[:-1]))
        assert due(tasks)[0] == ([len(codes) - 1] if there else [])
        assert tasks.queue.ids() == []
    assert codes[-1] == 0 and len(codes) > 10


def test_whoever_is_killed_while_it_lets_a_task_begin_leaves_it_to_the_next_one(tasks, put):
    codes = []
    while not codes or codes[-1] == 9:
        number = len(codes)
        put(number, 1)

        def move():
            for task, fds in tasks.queue.due(cms.Host()):
                task.write_status(Status(State.STARTING))
                tasks.queue.drop(task)
        codes.append(crash(move, number + 1))
        begun, held = due(tasks)
        status = TaskDir(os.path.join(tasks.tasks, "%012x" % number)).status()
        cms.close_all(*held)
        assert (begun == [number]) != (status.outcome is Outcome.LOST)
        assert tasks.queue.ids() == []
    assert codes[-1] == 0 and len(codes) > 10


# -- one after the other ------------------------------------------------------------------------------
def test_a_task_begins_when_those_it_depends_on_have_succeeded(tasks, put):
    put(3, 0, depends_on=("%012x" % 1, "%012x" % 2))
    first, second = put(1), put(2)
    begun, held = due(tasks)
    assert begun == [1, 2]
    for task in (first, second):
        assert due(tasks)[0] == []
        task.write_status(Status(State.ENDED, Outcome.SUCCEEDED))
    cms.close_all(*held)
    assert due(tasks)[0] == [3]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST, None])
def test_a_task_fails_without_having_begun_when_one_it_depends_on_did_not_succeed(tasks, put, outcome):
    others = [put(number, 0, depends_on=("%012x" % (number - 1),)) for number in (2, 3)]
    if outcome is not None:                                 # else it is gone
        put(1).write_status(Status(State.ENDED, outcome))
    assert due(tasks)[0] == [] and tasks.queue.ids() == []
    assert [task.status().outcome for task in others] == [Outcome.FAILED] * 2
    word = outcome.value if outcome else "lost"
    assert others[0].report().failure.message == "Task %012x, which it depends on, %s" % (1, word)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST, None])
def test_with_on_failure_run_a_task_begins_when_the_others_have_ended_in_whatever_way(tasks, put, outcome):
    if outcome is not None:                                 # else it is gone
        put(1).write_status(Status(State.ENDED, outcome))
    second = put(2)
    put(3, 0, depends_on=("%012x" % 1, "%012x" % 2), on_failure="run")
    begun, held = due(tasks)
    assert begun == [2] and due(tasks)[0] == []
    second.write_status(Status(State.ENDED, Outcome.SUCCEEDED))
    cms.close_all(*held)
    assert due(tasks)[0] == [3]


def test_on_failure_decides_for_each_task_and_says_nothing_without_others(swarm):
    app = swarm()
    ids = app.start([{"prompt": "FAIL it broke", "on_failure": "run"},
                     {"prompt": "SAY second", "depends_on": [0], "on_failure": "run"},
                     {"prompt": "SAY third", "depends_on": ["0"], "on_failure": "skip"}])
    outcomes = [record["outcome"] for record in ended(app, ids)]
    assert outcomes == ["failed", "succeeded", "failed"]
    assert app.record(ids[2])["failure"]["message"] == "Task %s, which it depends on, failed" % ids[0]


def test_what_is_unborn_is_waited_for(tasks, put):
    spec = Spec("%012x" % 1, NOW_S, "/bin/codex", "/")
    hidden = TaskDir.create(tasks.tasks, spec, "x")
    with tasks.locked("sweep.lock", cms.fcntl.LOCK_SH):     # as whoever starts tasks
        put(2, 0, depends_on=("%012x" % 1,))
        assert due(tasks)[0] == []
        put_in(tasks, hidden, spec, NOW_S)
    assert due(tasks)[0] == [1]


def test_what_a_killed_server_left_unborn_is_not_waited_for(tasks, put):
    TaskDir.create(tasks.tasks, Spec("%012x" % 1, NOW_S, "/bin/codex", "/"), "x")
    second = put(2, 0, depends_on=("%012x" % 1,))
    assert due(tasks)[0] == [] and second.status().outcome is Outcome.FAILED


def test_a_batch_goes_one_after_the_other_by_index_and_a_task_after_one_by_the_beginning_of_its_id(
        swarm, gate, tmp_path):
    app, log = swarm(), tmp_path / "log"
    say = "SHELL echo %d >>" + str(log)
    first, second = app.start([{"prompt": gate.wait + "\n" + say % 1},
                               {"prompt": say % 2, "depends_on": [0]}])
    pid_of(app.store.get(first))
    (third,) = app.start([{"prompt": say % 3, "depends_on": [first[:6], second]}])
    assert app.record(third)["progress"]["detail"] == "2nd of 2, after %s, %s" % (first, second)
    gate.open()
    assert [r["outcome"] for r in ended(app, [first, second, third])] == ["succeeded"] * 3
    assert log.read_text().split() == ["1", "2", "3"]


@pytest.mark.parametrize("names, why", [([0], "0 is none of those before it"), ([7], "7 is none"),
                                        (["0123456789ab"], "no task `0123456789ab`")])
def test_what_a_task_cannot_wait_for_is_refused_before_anything_starts(swarm, names, why):
    app = swarm()
    with pytest.raises(cms.ToolError, match=why) as refused:
        app.start([{"prompt": "x", "depends_on": names}, {"prompt": "y"}], "tasks")
    assert app.store.ids() == [] and refused.value.what.startswith("`tasks[0]`: ")
    if isinstance(names[0], int):
        assert "so that no two wait for each other" in refused.value.why


# -- what a task takes over from others ---------------------------------------------------------------
def got(app, task_id):
    """What codex had on its standard input."""
    with open(app.store.get(task_id).file("stdin"), encoding="utf-8", newline="") as f:
        return f.read()


def test_the_final_message_of_another_task_goes_into_the_prompt(swarm, gate):
    app = swarm()
    odd = "$1 \\1 {{other}} \u20ac\r"
    first, second = app.start([{"prompt": gate.wait + "\nSAY " + odd}, {"prompt": "SAY two"}])
    (third,) = app.start([{"prompt": "a {{result:%s}}\nb {{ result: codex-swarm/%s }} {{result:}}\r\nc"
                                     % (first[:6], second)}])
    record = app.record(third)
    assert record["state"] == "queued" and first in record["progress"]["detail"], "naming it is enough"
    gate.open()
    assert [r["outcome"] for r in ended(app, [first, second, third])] == ["succeeded"] * 3
    said = app.record(first)["content"]
    assert odd.strip() in said
    assert got(app, third) == "a %s\nb two {{result:}}\r\nc" % said
    with open(app.store.get(third).file("prompt"), newline="") as f:
        assert "{{result:%s}}" % first[:6] in f.read(), "the record has what the client wrote"


def test_a_result_is_text_and_is_not_looked_at_again(tasks):
    for number, content in ((1, "one {{result:second}} \\g<1>"), (2, "two")):
        spec = Spec("%012x" % number, NOW_S, "/bin/codex", "/")
        task = tasks.queue.put(TaskDir.create(tasks.tasks, spec, "x"), spec, NOW_S)
        task.end(Status(State.ENDED, Outcome.SUCCEEDED),
                 cms.Report(Outcome.SUCCEEDED, 1.0, NOW_S, content=content))
    spec = Spec("%012x" % 3, NOW_S, "/bin/codex", "/", results={"first": "%012x" % 1, "second": "%012x" % 2})
    task = TaskDir.create(tasks.tasks, spec, "{{result:first}}, {{result:second}}, {{result:third}}")
    with open(cms.prompt_of(task, spec.results)) as f:
        assert f.read() == "one {{result:second}} \\g<1>, two, {{result:third}}"


def test_results_come_by_index_in_a_batch_one_after_the_other(swarm):
    app = swarm(max_parallel=1)
    ids = app.start([{"prompt": "SAY one"}, {"prompt": "SAY two and {{result:0}}"},
                     {"prompt": "SAY {{result:1}}, {{result:0}}", "depends_on": [1]}])
    assert [r["content"] for r in ended(app, ids)] == ["one", "two and one", "two and one, one"]


def test_what_a_failed_task_came_to_is_told_where_the_next_one_runs_anyway(swarm):
    app = swarm()
    ids = app.start([{"prompt": "TELL half of it\nFAIL it broke"}, {"prompt": "SILENT"},
                     {"prompt": "x {{result:0}} y", "on_failure": "run"}, {"prompt": "{{result:0}}"}])
    assert [r["outcome"] for r in ended(app, ids)] == ["failed", "failed", "succeeded", "failed"]
    assert got(app, ids[2]) == "x (Task %s did not succeed: it broke)\n\nhalf of it y" % ids[0]


def test_that_a_task_left_no_message_or_was_lost_is_told(swarm, tasks, put):
    silent, lost = put(1), put(2)
    silent.end(Status(State.ENDED, Outcome.SUCCEEDED), cms.Report(Outcome.SUCCEEDED, 1.0, NOW_S))
    lost.write_status(Status(State.RUNNING))
    assert cms.last_words(silent) == "(Task %s succeeded without a final message.)" % silent.task_id
    assert cms.last_words(lost) == "(Task %s was lost: its supervisor left no report.)" % lost.task_id


def test_a_message_that_only_the_events_have_is_found_there(tasks, put):
    task, lost, bare = put(1), put(2), put(3)
    lost.write_status(Status(State.RUNNING))
    for one in (task, bare):
        one.end(Status(State.ENDED, Outcome.SUCCEEDED),
                cms.Report(Outcome.SUCCEEDED, 1.0, NOW_S, in_events=True))
    item = {"type": "item.completed", "item": {"id": "0", "type": "agent_message", "text": "whole"}}
    for one in (task, lost):
        with open(one.file("events.jsonl"), "w") as f:
            f.write(cms.compact(item) + "\n")
    assert cms.last_words(task) == "whole"
    assert cms.last_words(lost).endswith(" was lost: its supervisor left no report.)\n\nwhole")
    assert cms.last_words(bare).endswith(" succeeded; its final message is gone with its events.)")


@pytest.mark.parametrize("how, why", [("removed", "Its record was removed"), ("damaged", "is damaged: ")])
def test_a_task_fails_by_name_when_the_result_that_it_names_is_gone(swarm, gate, how, why):
    app = swarm(max_parallel=1)
    (first,) = app.start([{"prompt": "SAY one"}])
    ended(app, [first])
    between = begin(app, gate.wait)
    (second,) = app.start([{"prompt": "{{result:%s}}" % first, "on_failure": "run"}])
    task = app.store.get(first)
    if how == "removed":
        task.remove()
    else:
        with open(task.file("report.json"), "w") as f:
            f.write("{")
    gate.open()
    failed = ended(app, [between.task_id, second])[1]["failure"]
    assert failed["kind"] == "setup" and why in failed["message"] and first in failed["message"]
    assert not os.path.exists(app.store.get(second).file("events.jsonl"))


def test_a_prompt_that_is_too_long_with_the_results_fails_by_name(swarm):
    app = swarm()
    ids = app.start([{"prompt": "MESSAGE 600000"}, {"prompt": "{{result:0}} {{result:0}}"}])
    failed = ended(app, ids)[1]["failure"]
    assert failed["message"].startswith("With the results in it the prompt has 1,200,001 characters")


def test_a_prompt_that_is_too_long_with_the_results_is_never_put_together(tasks, put):
    put(1).end(Status(State.ENDED, Outcome.SUCCEEDED),
               cms.Report(Outcome.SUCCEEDED, 1.0, NOW_S, content="x" * 1_000_000))
    spec = Spec("%012x" % 2, NOW_S, "/bin/codex", "/", results={"A": "%012x" % 1})
    task = TaskDir.create(tasks.tasks, spec, "{{result:A}}" * 500)
    tracemalloc.start()
    try:
        with pytest.raises(cms.ToolError, match="500,000,000 characters"):
            cms.prompt_of(task, spec.results)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("prompt, why", [
    ("{{result:0}}", "`{{result:0}}` in the prompt: Entry 0 is none of those before it"),
    ("a\n{{result:1}}", "`{{result:1}}` in the prompt: Entry 1 is none"),
    ("{{result:deadbeef}}", "`{{result:deadbeef}}` in the prompt: There is no task `deadbeef`")])
def test_a_result_that_cannot_come_is_refused_before_anything_starts(swarm, prompt, why):
    app = swarm()
    with pytest.raises(cms.ToolError) as refused:
        app.start([{"prompt": prompt}, {"prompt": "y"}], "tasks")
    assert refused.value.what.startswith("`tasks[0]`: " + why) and app.store.ids() == []
    assert "As plain text, write it with a blank between the braces" in refused.value.fix


def test_other_braces_in_a_prompt_are_text(swarm):
    record = run(swarm(), "SAY { {result:0}} {{results:0}} {{result:}} {{result:a b}}")
    assert record["content"] == "{ {result:0}} {{results:0}} {{result:}} {{result:a b}}"


def test_a_call_made_again_finds_its_tasks_by_what_the_client_wrote(swarm):
    app = swarm()
    requests = [{"prompt": "SAY one"}, {"prompt": "SAY {{result:0}}"}]
    one, other = cms.Call(), cms.Call()
    one.request_id = other.request_id = "once"
    ids = app.start(requests, "tasks", one)
    ended(app, ids)
    assert app.start(requests, "tasks", other) == ids


def test_what_waits_for_several_under_one_name_waits_for_all_and_has_no_single_result(swarm, gate):
    app = swarm()
    ids = app.start([{"prompt": "SAY one"}, {"prompt": gate.wait}])
    app.store.write_handle(cms.Handle("0" * 32, NOW_S, cms.Wait(tuple(ids))))
    (third,) = app.start([{"prompt": "SAY three", "depends_on": ["0" * 32]}])
    assert app.store.get(third).spec().depends_on == tuple(ids)
    with pytest.raises(cms.ToolError, match="stands for 2 tasks"):
        app.start([{"prompt": "{{result:%s}}" % ("0" * 32)}])
    gate.open()
    assert ended(app, [third])[0]["content"] == "three"


# -- cancelled ----------------------------------------------------------------------------------------
def test_to_cancel_a_queued_task_is_final_and_takes_no_process(tasks, put):
    first, second = put(1, 1), put(2, 1)
    begun, held = due(tasks)
    assert not tasks.queue.cancel(first, NOW_S + 5), "it has begun: its supervisor has to stop it"
    assert tasks.queue.cancel(second, NOW_S + 5) and not tasks.queue.cancel(second, NOW_S + 6)
    assert (second.status().outcome, second.report().elapsed_s) == (Outcome.CANCELLED, 5.0)
    cms.close_all(*held)
    assert due(tasks)[0] == [] and tasks.queue.ids() == []


def test_a_task_that_begins_just_now_is_not_cancelled_behind_the_back_of_its_supervisor(tasks, put):
    task = put(1)
    held = cms.take(task.file("lock"))
    assert not tasks.queue.cancel(task, NOW_S) and task.is_queued()
    os.close(held)


# -- with supervisors ---------------------------------------------------------------------------------
def test_the_queue_moves_by_itself_when_no_server_asks(swarm, gate, tmp_path):
    app, log = swarm(max_parallel=1), tmp_path / "log"
    first = begin(app, gate.wait)
    pid_of(first)
    lines = [{"prompt": "SHELL echo %d >>%s" % (i, log)} for i in range(3)]
    rest = app.start(lines)
    assert [app.record(i)["state"] for i in rest] == ["queued"] * 3
    assert app.record(rest[1])["progress"]["detail"] == "2nd of 3, at most 1 run at once"
    app.watch.close()                                       # as a server that has ended
    gate.open()
    last = app.store.get(rest[-1])
    eventually(lambda: os.path.exists(last.file("report.json")), what="the end of the last one")
    assert log.read_text().split() == ["0", "1", "2"]
    assert [r["outcome"] for r in ended(app, [first.task_id, *rest])] == ["succeeded"] * 4


def test_a_wait_returns_when_a_queued_task_is_cancelled_elsewhere(swarm, gate):
    app, other = swarm(max_parallel=1), swarm()
    first, (queued,) = begin(app, gate.wait), app.start([{"prompt": "x"}])
    assert other.unended() == [queued, first.task_id]
    other.stop([queued])
    (record,) = ended(app, [queued])
    assert (record["outcome"], record["failure"]["kind"]) == ("cancelled", "cancelled")
    assert app.unended() == [first.task_id]
    assert not os.path.exists(app.store.get(queued).file("events.jsonl"))


def test_a_wait_goes_on_when_the_place_of_its_task_was_deleted(swarm, gate):
    app = swarm(max_parallel=1)
    first, (queued,) = begin(app, gate.wait), app.start([{"prompt": "SAY done"}])
    for name in app.store.queue.names():
        os.unlink(os.path.join(app.store.queue.path, name))
    waiting = threading.Thread(target=app.wait, args=([queued], WAIT_S, cms.Call()))
    waiting.start()                                         # nobody asks for anything else
    gate.open()
    waiting.join(WAIT_S)
    assert app.store.get(queued).report().content == "done"


def test_a_start_sleeps_until_whoever_moves_the_queue_has_done_and_the_kernel_wakes_it(swarm):
    """Who asked again and again would starve behind one who lets go of the lock and takes it at once."""
    app, asked = swarm(), []
    run(app, "x")
    lock = os.stat(app.store.queue.path + ".lock").st_ino

    def listen(event, args):
        if event == "fcntl.flock" and os.fstat(args[0]).st_ino == lock:
            asked.append(args[1])
    with app.store.queue.lock(), auditing(listen):
        start = threading.Thread(target=begin, args=(app, "x"))
        start.start()
        eventually(lambda: asked, what="the question for the lock")
    start.join(WAIT_S)
    assert asked[0] == fcntl.LOCK_EX and len(app.store.ids()) == 2


def test_tasks_that_are_queued_are_cancelled_however_long_another_process_keeps_the_queue(swarm, gate):
    app = swarm(max_parallel=1)
    first, queued = begin(app, gate.wait), [begin(app, "x").task_id for _ in range(2)]
    with app.store.queue.lock():
        stop = threading.Thread(target=app.stop, args=(queued,), daemon=True)
        stop.start()
        stop.join(WAIT_S)
        assert [app.record(task_id).get("outcome") for task_id in queued] == ["cancelled"] * 2
    gate.open()
    ended(app, [first.task_id])


def test_a_task_that_is_cancelled_as_it_gets_its_slot_does_not_begin(tasks, put):
    task, cancelled = put(1), []

    def listen(event, args):
        if event == "open" and args[0] == os.path.join(tasks.queue.slots, "1") and not cancelled:
            cancelled.append(True)
            tasks.queue.cancel(task, NOW_S)
    with auditing(listen):
        assert due(tasks)[0] == [] and cancelled
    assert task.status().outcome is Outcome.CANCELLED


def test_the_slot_of_a_killed_supervisor_is_free_at_the_next_question(swarm, gate):
    app = swarm(max_parallel=1)
    first, (queued,) = begin(app, gate.wait), app.start([{"prompt": "SAY done"}])
    pid = eventually(lambda: first.status().pid, what="the start of codex")
    os.kill(parent_of(pid), signal.SIGKILL)
    assert ended(app, [queued])[0]["content"] == "done"
    assert app.record(first.task_id)["outcome"] == "lost"


def test_a_supervisor_that_is_killed_before_it_begins_leaves_its_task_queued(swarm):
    app = swarm()
    app.store.prepare()
    spec = Spec(app.host.new_task_id(), app.host.now(), app.config.codex_bin, os.getcwd())
    task = put_in(app.store, TaskDir.create(app.store.tasks, spec, "SAY done"), spec, app.host.now())
    lock = cms.take(task.file("lock"))
    act = lambda: cms.supervisor_main([task.path, str(lock)])
    assert crash(act, 1) == 9                               # before it says that it began
    os.close(lock)
    assert task.status().state is State.QUEUED
    assert ended(app, [task.task_id])[0]["content"] == "done"


def test_a_wait_goes_on_when_a_supervisor_is_killed_before_it_begins(swarm):
    app = swarm()
    app.store.prepare()
    spec = Spec(app.host.new_task_id(), app.host.now(), app.config.codex_bin, os.getcwd())
    task = put_in(app.store, TaskDir.create(app.store.tasks, spec, "SAY done"), spec, app.host.now())
    lock = cms.take(task.file("lock"))                      # as a supervisor that was just launched
    known = app.watch.begin(task)
    threading.Timer(0.5, os.close, [lock]).start()
    app.wait([task.task_id], 30.0, cms.Call())
    assert known.ended and app.record(task.task_id)["content"] == "done"


def test_a_task_runs_with_the_environment_it_was_asked_for_with_and_no_secret_is_on_disk(
        swarm, gate, monkeypatch):
    monkeypatch.setenv("CODEX_API_KEY", "sk-of-the-first-0123456789abcdef")
    app = swarm(max_parallel=1)
    first = begin(app, gate.wait)
    monkeypatch.setenv("TEST_COLOUR", "of the second")
    (queued,) = app.start([{"prompt": "ARGV"}])
    kept = app.store.get(queued).file("environ")
    with open(kept, "rb") as f:
        text = f.read()
    assert b"TEST_COLOUR=of the second" in text and b"sk-of" not in text
    gate.open()                                             # the supervisor of the first lets it begin
    content = ended(app, [first.task_id, queued])[1]["content"]
    assert "of the second" in content and "sk-of-the-first" in content
    assert not os.path.exists(kept)


def test_a_task_whose_first_supervisor_died_at_once_runs_with_the_environment_it_was_asked_for_with(
        swarm, monkeypatch):
    other = swarm()
    first = cms.Swarm(other.config, cms.Host(), {**os.environ, "TEST_COLOUR": "of the first"})
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", shutil.which("true"))      # which its supervisor is now
        (task_id,) = first.start([{"prompt": "ARGV"}])
        first.watch.close()
    assert "of the first" in ended(other, [task_id])[0]["content"]


def test_the_environment_of_a_task_is_on_no_disk_once_it_has_begun(swarm, gate):
    app = swarm(max_parallel=1)
    first = begin(app, gate.wait)
    eventually(lambda: first.status().pid, what="the start of codex")
    assert not os.path.exists(first.file("environ"))
    gate.open()
    ended(app, [first.task_id])


def test_a_task_of_a_program_has_the_environment_that_the_program_gives(swarm):
    """Also its secrets, which are on no disk, and though another program of the same process has others."""
    config = swarm().config
    host = cms.Host()
    ours, _ = [cms.Swarm(config, host, {**os.environ, "TEST_COLOUR": name, "CODEX_API_KEY": "key " + name})
               for name in ("of a program", "of another")]
    content = ended(ours, ours.start([{"prompt": "ARGV"}]))[0]["content"]
    assert "key of a program" in content and "of another" not in content
    assert '"of a program"' in content


@pytest.mark.parametrize("limit, kept", [(0, []), (1, ["status.json", "environ"])],
                         ids=["begins at once", "waits"])
def test_a_task_is_on_the_disk_before_its_id_is_given(swarm, gate, monkeypatch, limit, kept):
    app, lasting, fsync = swarm(max_parallel=limit), set(), os.fsync
    first = begin(app, gate.wait)
    texts = {"base-instructions": "x", "compact-prompt": "y", "output_schema": {"type": "object"}}
    monkeypatch.setattr(os, "fsync", lambda fd: (lasting.add(os.fstat(fd).st_ino), fsync(fd)))
    (second,) = app.start([{"prompt": "SAY done", **texts}])
    task = app.store.get(second)
    names = ["spec.json", "prompt", *texts, *kept]
    assert {os.stat(task.file(name)).st_ino for name in names} <= lasting
    gate.open()
    ended(app, [first.task_id, second])


@pytest.mark.parametrize("text", ["", '{"rows": "PATH=/usr/bin\\u0000HOM"}'])
def test_a_task_whose_environment_is_damaged_ends_and_the_queue_goes_on(swarm, gate, text):
    app = swarm(max_parallel=1)
    first, (second, third) = begin(app, gate.wait), app.start([{"prompt": "x"}, {"prompt": "SAY done"}])
    with open(app.store.get(second).file("environ"), "w") as f:
        f.write(text)
    app.watch.close()                                       # nobody asks: the supervisors alone go on
    gate.open()
    last = app.store.get(third)
    eventually(lambda: os.path.exists(last.file("report.json")), what="the end of the last one")
    assert [r["outcome"] for r in ended(app, [first.task_id, second, third])] == [
        "succeeded", "lost", "succeeded"]


@pytest.mark.parametrize("row", [
    "GPG_PASSPHRASE=correct horse", "DB_PASS=hunter2", "MYSQL_PWD=hunter2", "SESSION_COOKIE=abc",
    "DOCKER_AUTH_CONFIG={}", "LOGIN_TOKEN=123456789", "PIN_SECRET=1234 5678", "npm_config__auth=abc",
    "URL=postgres://me:hunter2@db/x", "AWS_CREDS=x"])
def test_a_variable_that_looks_secret_gets_to_no_disk(tasks, put, row):
    task = put(1)
    task.keep_environ(dict([row.split("=", 1)], ODD="\udcff\n\u20ac"))
    assert task.environ({}) == {"ODD": "\udcff\n\u20ac"}
    assert task.environ(dict([row.split("=", 1)])).keys() == {"ODD", row.split("=", 1)[0]}


@pytest.mark.parametrize("row", ["PWD=/a", "OLDPWD=/b", "PATH=/bin", "GIT_AUTHOR_NAME=x", "XAUTHORITY=/x",
                                 "SSH_AUTH_SOCK=/s", "EMPTY="])
def test_a_plain_variable_is_kept(tasks, put, row):
    task = put(1)
    task.keep_environ(dict([row.split("=", 1)]))
    assert task.environ({}) == dict([row.split("=", 1)])


def test_places_that_were_lost_are_given_again_in_the_order_of_arrival(swarm, gate):
    app = swarm(max_parallel=1)
    first, queued = begin(app, gate.wait), [begin(app, "SAY done").task_id for _ in range(3)]
    for number, task_id in enumerate(queued):
        os.utime(os.path.join(app.store.live, task_id), (NOW_S, NOW_S + number))
    for name in os.listdir(app.store.queue.path):
        os.unlink(os.path.join(app.store.queue.path, name))
    app.unended()
    assert app.store.queue.ids() == queued
    gate.open()
    assert ended(app, [first.task_id, *queued])[1]["content"] == "done"


def test_a_queued_task_whose_end_the_disk_has_no_room_for_is_cancelled_when_its_turn_comes(
        swarm, gate, tmp_path):
    app = swarm(max_parallel=1)
    first, queued = begin(app, gate.wait), begin(app, "SHELL touch %s" % (tmp_path / "ran"))
    os.mkdir(queued.file("report.json.new"))                # as if it were full
    app.stop([queued.task_id])
    assert app.record(queued.task_id)["state"] == "queued"
    os.rmdir(queued.file("report.json.new"))
    gate.open()
    assert ended(app, [first.task_id, queued.task_id])[1]["outcome"] == "cancelled"
    assert not (tmp_path / "ran").exists()


def test_a_wait_ends_though_the_task_is_forgotten_as_it_begins_to_wait(swarm, monkeypatch):
    """A status of another thread finds just then that the task has ended."""
    app = swarm()
    task = begin(app, "SAY done")
    ended(app, [task.task_id])
    move = app.watch.move

    def forgetting(how=cms.fcntl.LOCK_NB):
        app.view.forget(but=())
        move(how)
    app.view.forget(but=())
    monkeypatch.setattr(app.watch, "move", forgetting)
    before = app.host.monotonic()
    app.wait([task.task_id], 20.0, cms.Call())
    assert app.host.monotonic() - before < 15


def test_who_sat_out_a_limit_gets_the_next_slot_and_holds_up_nobody_who_has_another(tasks):
    queue, fds = tasks.queue, [os.open(os.devnull, os.O_RDONLY)]
    runs = queue.slot(1)
    assert not queue.rejoin(1, fds)
    other = queue.slot(3)
    assert other is not None
    os.close(runs)
    assert queue.slot(1) is None and queue.rejoin(1, fds) and queue.slot(1) is None
    cms.close_all(other, *fds)
    cms.close_all(queue.slot(1))
