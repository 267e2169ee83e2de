"""What the events of a run amount to: every recording, every kind of broken line, and reading only what is
new."""
import contextlib
import json
import os
import random
import tracemalloc

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Phase, Progress, Tail, Turn

from .helpers import NAMES, auditing, folded, lines_of

TURNS = {"turn.started": Turn.STARTED, "turn.completed": Turn.COMPLETED, "turn.failed": Turn.FAILED}


def told(name):
    """The same facts, read in the plainest way."""
    events = [json.loads(line) for line in lines_of(name)]
    last = lambda kind, default=None: next((e for e in reversed(events) if e["type"] == kind), default)
    messages = [e["item"]["text"] for e in events if e["type"] == "item.completed"
                and e["item"]["type"] == "agent_message"]
    usage = last("turn.completed", {}).get("usage")
    return {"thread_id": last("thread.started", {}).get("thread_id"),
            "message": messages[-1] if messages else None,
            "turn": next((TURNS[e["type"]] for e in reversed(events) if e["type"] in TURNS), Turn.NONE),
            "error": last("turn.failed", {"error": {"message": ""}})["error"]["message"],
            "usage": usage and cms.Usage(*(usage.get(f, 0) for f in cms.Usage._fields)),
            "events": len(events), "unknown": 0}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_folds_to_what_it_tells(name):
    progress = folded(lines_of(name))
    assert {key: getattr(progress, key) for key in told(name)} == told(name)


REPO = "/home/dev/repo/"
TABLE = {
    # recording: tools, last command, last file, phase, retries, warnings
    "success": ({}, "", "", Phase.ENDING, 0, 1),
    "success_shell": ({"command_execution": 2}, "exit 3", "", Phase.ENDING, 0, 1),
    "patch": ({"file_change": 5}, "", REPO + "viash.txt", Phase.ENDING, 0, 0),
    "patchfail": ({"file_change": 2}, "", REPO + "a.txt/sub2.txt and 1 more", Phase.ENDING, 0, 0),
    "mcp": ({"mcp_tool_call": 3}, "", "", Phase.ENDING, 0, 1),
    "web": ({"web_search": 3}, "", "", Phase.ENDING, 0, 0),
    "plan": ({}, "", "", Phase.ENDING, 0, 0),
    "collab_v1": ({"collab_tool_call": 4}, "", "", Phase.ENDING, 0, 1),
    "codemode": ({"command_execution": 1, "file_change": 1}, "echo from-js; exit 2", REPO + "js.txt",
                 Phase.ENDING, 0, 0),
    "parallel": ({"command_execution": 3}, "sleep 1; echo A", "", Phase.ENDING, 0, 0),
    "bg": ({"command_execution": 1}, "echo start; sleep 300; echo end", "", Phase.ENDING, 0, 0),
    "reason": ({"command_execution": 1}, "echo one", "", Phase.ENDING, 0, 0),
    "sigterm": ({"command_execution": 1}, "sleep 1000", "", Phase.COMMAND, 0, 0),
    "retry_drop_then_ok": ({}, "", "", Phase.ENDING, 1, 0),
    "conn_refused": ({}, "", "", Phase.NETWORK, 4, 0),
    "prompt_too_long": ({}, "", "", Phase.STARTING, 0, 0),
    "h401": ({}, "", "", Phase.ENDING, 0, 0),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_tools_commands_files_and_phase_are_as_the_events_tell(name):
    p = folded(lines_of(name))
    assert (p.tools, p.last_command, p.last_file, p.phase, p.retries, len(p.warnings)) == TABLE[name]


def event(kind, **members):
    return json.dumps(dict({"type": kind}, **members)).encode()


def item(kind, ident, what, **members):
    return event("item." + kind, item=dict({"id": ident, "type": what}, **members))


def command(kind, ident, words):
    return item(kind, ident, "command_execution", command="/bin/bash -lc '%s'" % words)


def test_the_usage_that_was_told_stays_when_a_later_turn_tells_none():
    progress = folded([b'{"type":"turn.completed","usage":{"input_tokens":7}}', b'{"type":"turn.completed"}'])
    assert progress.usage == cms.Usage(input_tokens=7)


def test_a_warning_that_repeats_takes_no_room_from_the_others():
    line = '{"type":"item.completed","item":{"id":"%d","type":"error","message":"%s"}}'
    texts = ["again"] * cms.WARNINGS_KEPT + ["another"]
    progress = folded([(line % (n, text)).encode() for n, text in enumerate(texts)])
    assert progress.warnings == ("again", "another")


@pytest.mark.parametrize("status, output, warned", [
    ("failed", "bwrap: Creating new namespace failed: nesting depth exceeded (ENOSPC)\n", True),
    ("failed", "1 failed: bwrap: not found\n", False), ("completed", "bwrap: usage\n", False)])
def test_a_command_that_failed_since_the_sandbox_does_not_start_is_a_warning(status, output, warned):
    shell = {"command": "echo hi", "aggregated_output": output, "status": status}
    p = folded([item("completed", ident, "command_execution", **shell) for ident in "ab"])
    assert [("`bwrap: Creating" in text, "sandbox cannot start" in text)
            for text in p.warnings] == [(True, True)] * warned


def test_the_phase_is_that_of_the_youngest_open_item():
    steps = [
        (event("turn.started"), Phase.MODEL, ""),
        (command("started", "a", "make all"), Phase.COMMAND, "make all"),
        (item("started", "b", "file_change", changes=[{"path": "/x", "kind": "add"}]), Phase.EDIT, "/x"),
        (item("completed", "m", "agent_message", text="so far"), Phase.EDIT, "/x"),
        (item("completed", "b", "file_change", changes=[{"path": "/x", "kind": "add"}]), Phase.COMMAND,
         "make all"),
        (event("error", message="Reconnecting... 1/5 (x)"), Phase.RETRY, "Reconnecting... 1/5 (x)"),
        (command("completed", "a", "make all"), Phase.MODEL, ""),
        (event("turn.completed"), Phase.ENDING, ""),
    ]
    progress = Progress()
    for line, phase, detail in steps:
        progress = cms.fold(progress, line)
        assert (progress.phase, progress.detail) == (phase, detail), line


UNKNOWN = [b"", b"{", b"[]", b"null", b"12", b"\"text\"", b"\xff\xfe\xfa", b"{\"type\": 5}",
           b"{\"type\": [1]}", b"{\"no\": \"type\"}",
           event("turn.interrupted"), event("item.started"), event("item.started", item=7),
           item("started", "i", "hologram"),
           item("completed", "i", ["list"]), b'{"type":"item.started","item":{"type":"command_execution"',
           b"NaN", b"\0\0\0\0"]


@pytest.mark.parametrize("line", UNKNOWN)
def test_what_no_table_knows_is_counted_and_changes_nothing_else(line):
    known = folded(lines_of("reason"))
    after = cms.fold(known, line)
    assert after.unknown == 1
    assert after._replace(unknown=0, events=known.events) == known


@pytest.mark.parametrize("odd", [None, 5, True, ["x"], {"x": 1}], ids=repr)
def test_what_should_be_text_and_is_not_counts_as_no_text(odd):
    known = folded(lines_of("success_shell"))
    for line in (event("thread.started", thread_id=odd), event("error", message=odd),
                 item("completed", "e", "error", message=odd)):
        assert cms.fold(known, line) == known._replace(events=known.events + 1), line
    assert cms.fold(known, item("completed", "m", "agent_message", text=odd)).message == ""
    assert cms.fold(known, event("turn.failed", error={"message": odd})).error == ""
    assert cms.fold(known, item("started", "c", "command_execution", command=odd)).last_command == ""


ODD = [None, True, 0, -1, 10 ** 30, 1.5, float("inf"), "", "text", "\ud800", "\u2028", [], [1, [2]], {},
       {"a": None}, [{"path": 7}, None]]


def odd(value, chance):
    """`value` with one of its parts replaced by something odd."""
    if isinstance(value, (dict, list)) and value and chance.random() < 0.8:
        copy = value.copy()
        key = chance.choice(sorted(copy) if isinstance(copy, dict) else range(len(copy)))
        copy[key] = odd(copy[key], chance)
        return copy
    return chance.choice(ODD)


def torn(line, chance):
    data, n = bytearray(line), len(line)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(n)
        how = chance.randrange(4)
        if how == 0:
            data[at:at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del data[at:at + chance.randrange(1, 30)]
        elif how == 2:
            data[at:at] = chance.choice([b"\0", b"\xff", b"}", b'"', b"\xe2\x80\xa8", b"[" * 50])
        else:
            del data[at:]
    return bytes(data)


def assert_sound(p):
    """Whatever came in, a record and a report can be made of what came out."""
    assert p.thread_id is None or isinstance(p.thread_id, str)
    assert p.message is None or isinstance(p.message, str)
    assert isinstance(p.turn, Turn) and isinstance(p.phase, Phase)
    assert all(isinstance(text, str)
               for text in (p.error, p.detail, p.last_command, p.last_file, *p.warnings, *p.tools))
    assert len(p.warnings) <= cms.WARNINGS_KEPT
    assert all(isinstance(n, int) for n in (*p.tools.values(), *(p.usage or ())))
    json.dumps(
        cms.to_json(
            cms.Report(cms.Outcome.FAILED, 0.0, 0.0, thread_id=p.thread_id, content=p.message, usage=p.usage,
                       warnings=p.warnings)))


def test_no_line_of_any_shape_raises():
    chance = random.Random(20)
    lines = sorted({line for name in NAMES for line in lines_of(name) if len(line) < 4000})
    progress = Progress()
    for _ in range(6000):
        line = chance.choice(lines)
        broken = torn(line,
                      chance) if chance.random() < 0.5 else json.dumps(odd(json.loads(line), chance)).encode()
        progress = cms.fold(progress, broken)
        assert_sound(progress)
    assert progress.events > 1000 and progress.unknown > 1000


@pytest.mark.parametrize("where", ['"id":%s', '"command":%s', '"id":"a","more":%s'])
@pytest.mark.parametrize("depth", [50, 300, 900, 950, 980, 990, 1000, 1500, 5000, 200000])
def test_deeply_nested_lines_do_not_raise(where, depth):
    for opening, closing in ("[", "]"), ('{"a":', "1" + "}"):
        nested = opening * depth + closing[:-1] + closing[-1] * depth
        line = '{"type":"item.started","item":{"type":"command_execution",%s}}' % (where % nested)
        progress = cms.fold(Progress(), line.encode())
        assert progress.events + progress.unknown == 1


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_line_separator_of_unicode_inside_a_line_does_not_end_it(mark, tmp_path):
    text = "one%stwo" % mark
    (tmp_path / "events").write_bytes(
        json.dumps({"type": "item.completed", "item": {"id": "1", "type": "agent_message", "text": text}},
                                                 ensure_ascii=False).encode() + b"\n")
    progress = Tail(str(tmp_path / "events")).refresh()
    assert (progress.message, progress.events, progress.unknown) == (text, 1, 0)


def test_the_tail_folds_each_line_once_however_the_stream_arrives(tmp_path):
    chance = random.Random(3)
    for name in ("patch", "parallel", "binout", "collab_v1"):
        stream = b"".join(line + b"\n" for line in lines_of(name))
        path, at = tmp_path / name, 0
        tail = Tail(str(path))
        assert tail.refresh() == Progress()             # there is no file yet
        with open(str(path), "ab", buffering=0) as f:
            while at < len(stream):
                step = chance.choice([1, 7, 100, 1000])
                f.write(stream[at:at + step])
                at += step
                assert tail.refresh() == folded(stream[:at].split(b"\n")[:-1])
        assert tail.offset == len(stream)


THOUGHTS = [item(when, "r", kind, text=text)
            for when in ("started", "completed") for kind in ("reasoning", "todo_list")
            for text in ("hm", "", 'a "quoted" \\ \n word', "é\u2028")]
BROKEN = [line[:end] for line in (item("completed", "r", "reasoning", text="hm"),)
          for end in (-1, -2, -3, -6, 60)]
BROKEN += [b'{"type":"item.completed","item":{"id":"r","type":"reasoning","text":"a"b"}}',
           b'{"type":"item.completed","item":{"id":"r","type":"reasoning","text":"a\\"}}']
STATES = {"before the turn": [], "in a turn": [event("turn.started")],
          "in a command": [event("turn.started"), command("started", "a", "make")],
          "after the turn": [event("turn.started"), event("turn.completed")],
          "without a network": [event("error", message="Reconnecting... waiting for network")]}


@pytest.mark.parametrize("state", STATES)
def test_a_line_that_is_told_by_its_bytes_counts_as_if_it_were_parsed(state):
    before = folded(STATES[state])
    for line in (*THOUGHTS, *BROKEN):
        for end in (b"", b"\n"):
            assert cms.fold(before, line + end) == cms.fold(before, b" " + line + end), line


def test_a_long_stream_is_taken_in_by_pieces_while_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(cms, "FOLLOW_BYTES", 1000)
    task = cms.TaskDir(str(tmp_path))
    engine = cms.Exec(cms.Host(), task, cms.Spec("0" * 12, 0.0, "codex", str(tmp_path)), {})
    assert engine.follow() == cms.LOOK_S                    # there is no file yet
    line = item("completed", "r", "reasoning", text="hm") + b"\n"
    with open(task.file("events.jsonl"), "ab", buffering=0) as f:
        f.write(event("turn.started") + b"\n" + line * 100)
        pieces = list(iter(engine.follow, cms.FOLLOW_S))
        assert set(pieces) == {0.0} and len(pieces) == 100 * len(line) // (1000 + len(line))
        assert engine.tail.progress.events == 101 and engine.follow() == cms.LOOK_S
        f.write(line)
        assert engine.follow() == cms.FOLLOW_S and engine.tail.refresh().events == 102


def test_a_line_of_5_mb_is_one_line(tmp_path):
    text, path = "0123456789abcdef" * 327680, tmp_path / "events"
    line = item("completed", "1", "agent_message", text=text)
    path.write_bytes(event("turn.started") + b"\n" + line)
    tail = Tail(str(path))
    assert (tail.refresh().events, tail.refresh().message) == (1, None)
    with open(str(path), "ab") as f:
        f.write(b"\n" + event("turn.completed") + b"\n")
    progress = tail.refresh()
    assert (progress.message, progress.turn, progress.events) == (text, Turn.COMPLETED, 3)


def test_a_huge_line_is_passed_over_in_little_memory_and_the_record_says_where_it_is(tmp_path):
    path, head = tmp_path / "events", item("started", "1", "command_execution", command="make")
    with open(str(path), "wb") as f:
        f.write(head + b"\n" + item("completed", "2", "agent_message", text="x")[:-3])
        f.truncate(20 * cms.MAX_LINE_BYTES)             # a hole costs the test nothing
    tail = Tail(str(path))
    tracemalloc.start()
    try:
        assert tail.refresh().unknown == 1
        # of what there is of it, nothing will be read again
        assert tail.offset == 20 * cms.MAX_LINE_BYTES
        with open(str(path), "ab") as f:
            f.write(b'"}}\n' + event("turn.completed") + b"\n")
        progress = tail.refresh()
        assert tracemalloc.get_traced_memory()[1] < 3 * cms.MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
    where = "byte %d of events.jsonl" % (len(head) + 1)
    assert (progress.events, progress.unknown, progress.turn) == (2, 1, Turn.COMPLETED)
    assert where in progress.message and [where in warning for warning in progress.warnings] == [True]


def test_a_huge_line_that_is_no_message_leaves_the_last_one_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(cms, "MAX_LINE_BYTES", 1000)
    path, message = tmp_path / "events", item("completed", "2", "agent_message", text="done")
    path.write_bytes(
        b"\n".join(
            [message, item("completed", "3", "command_execution", command='"agent_message",' * 99),
             event("turn.completed"), b""]))
    progress = Tail(str(path)).refresh()
    assert (progress.message, progress.unknown, progress.turn) == ("done", 1, Turn.COMPLETED)


@pytest.mark.parametrize("length", [999, 1000, 1001, 1_048_576, 1_049_576, 1_049_577])
def test_whatever_a_line_is_long_the_next_one_is_whole(tmp_path, monkeypatch, length):
    monkeypatch.setattr(cms, "MAX_LINE_BYTES", 1000)
    (tmp_path / "events").write_bytes(b" " * (length - 1) + b"\n" + event("turn.started") + b"\n")
    progress = Tail(str(tmp_path / "events")).refresh()
    assert (progress.events, progress.unknown, progress.turn) == (1, 1, Turn.STARTED)


@pytest.mark.parametrize("rest", [b"", b'{"type":"turn.comp'], ids=["whole lines", "a torn last line"])
def test_nothing_is_read_when_nothing_is_new(tmp_path, rest):
    path, opened = tmp_path / "events", []
    path.write_bytes(b"\n".join(lines_of("patch")) + b"\n" + rest)
    tail = Tail(str(path))
    first = tail.refresh()
    with auditing(lambda name, args: opened.append(str(args[0])) if name == "open" else None):
        assert [tail.refresh() for _ in range(3)] == [first] * 3
        assert opened == []
        with open(str(path), "ab") as f:
            f.write(b"\n")
        tail.refresh()
    # the new line, and the look at it: so the hook does hear of it
    assert set(opened) == {str(path)}


def test_the_tail_knows_when_the_last_event_came_and_when_the_phase_began(tmp_path):
    path = tmp_path / "events"
    tail, at = Tail(str(path)), 1_700_000_000
    for line, changed, phase in [(event("turn.started"), 0, 0), (command("started", "a", "make"), 10, 10),
                                 (item("completed", "r", "reasoning", text="hm"), 20, 10),
                                 (command("completed", "a", "make"), 30, 30)]:
        with open(str(path), "ab") as f:
            f.write(line + b"\n")
        os.utime(str(path), (at + changed, at + changed))
        tail.refresh()
        assert (tail.changed_at, tail.phase_at) == (at + changed, at + phase), line


BARE = [
    ("/bin/bash -lc 'pytest -q'", "pytest -q"),
    ("/bin/bash -c 'sleep 1000'", "sleep 1000"),
    ("/bin/zsh -lc \"echo 'a b'\"", "echo 'a b'"),
    ("/usr/local/bin/bash -lc ls", "ls"),
    ("bash -lc 'ls -l'", "bash -lc 'ls -l'"),
    ("/bin/sh -c 'ls'", "ls"),
    ("/bin/dash -lc 'ls'", "ls"),
    (r"""/bin/bash -lc 'it'"'"'s'""", "it's"),
    ("/bin/bash -lc 'one' two", "/bin/bash -lc 'one' two"),
    ("/bin/bash -lc 'open", "/bin/bash -lc 'open"),
    ("/bin/bash -x script", "/bin/bash -x script"),
    ("git commit -m '/bin/bash -lc x'", "git commit -m '/bin/bash -lc x'"),
    ("/bin/bash -lc", "/bin/bash -lc"),
    ("/bin/bash -lc ''", ""),
    ("", ""),
]


@pytest.mark.parametrize("wrapped, bare", BARE)
def test_a_command_is_shown_without_the_shell_that_wraps_it(wrapped, bare):
    assert cms.bare_command(wrapped) == bare


# -- the rollout: codex's own record of a thread ------------------------------------------------------
def entry(second, kind="event_msg", **payload):
    stamp = "2026-11-21T10:00:%06.3fZ" % second
    return json.dumps({"timestamp": stamp, "type": kind, "payload": payload},
                      separators=(",", ":")).encode() + b"\n"


def turn(second, sandbox, model):
    return entry(second, "turn_context", model=model, sandbox_policy={"type": sandbox})


T0 = 1_795_255_200          # 2026-11-21T10:00:00Z
ROLLOUT = [turn(1, "read-only", "old"), entry(2), turn(11, "workspace-write", "new"), entry(12.25),
           entry(20.5)]


def test_a_rollout_tells_under_what_the_turn_ran_and_when_something_was_last_noted():
    assert cms.noted(ROLLOUT, T0 + 10, float("inf"), cms.Ran()) == ("workspace-write", "new", T0 + 20.5)
    # it was stopped then
    assert cms.noted(ROLLOUT, T0 + 10, T0 + 20, cms.Ran()) == ("workspace-write", "new", T0 + 12.25)


def test_earlier_turns_of_a_thread_say_nothing_of_this_one():
    asked = cms.Ran("danger-full-access", "wanted")
    assert cms.noted(ROLLOUT[:2], T0 + 10, float("inf"), asked) == asked


@pytest.mark.parametrize("line",
                         [b"", b"\n", b"[1]\n", b"not json\n", b'{"timestamp":"today","x":',
                          b'{"timestamp":"","type":"turn_context"}',
                                  entry(11, "turn_context"), entry(11, "turn_context", sandbox_policy=None),
                          turn(11, "x", "y")[:-9],
                                  pytest.param(entry(11, "turn_context")[:-4] + b"[" * 500_000, id="deep")])
def test_what_is_no_rollout_raises_what_readers_expect_and_nothing_else(line):
    with contextlib.suppress(*cms.UNREADABLE):
        ran = cms.noted([line], 0.0, float("inf"), cms.Ran())
        assert (ran.sandbox, ran.model) == (None, None)


def test_what_the_model_thinks_aloud_is_told_until_it_does_something_else():
    def item(kind, **more):
        event = {"type": "item.completed", "item": {"id": "i", "type": kind, **more}}
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()

    thought = item("reasoning", text='**Look** at "x" \\ ä')
    started = folded([b'{"type":"turn.started"}', thought])                 # read as bytes
    spaced = folded([b'{"type":"turn.started"}', json.dumps(json.loads(thought)).encode()])
    assert [cms._thinking(p) for p in (started, spaced)] == ['**Look** at "x" \\ ä'] * 2
    for line in (item("agent_message", text="done"),
                 item("command_execution", command="ls", exit_code=0, status="completed")):
        assert cms._thinking(folded([line], started)) == ""
    assert cms._thinking(folded([item("reasoning", text="password=hunter2")])) == "password=***"
