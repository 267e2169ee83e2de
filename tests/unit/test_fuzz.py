"""What comes from outside may be anything: nothing raises what its caller does not expect, nothing is skipped
and nothing comes twice. Each test goes through seeds; the one that fails is named.

`FUZZ_ROUNDS=100 tests/run unit/test_fuzz.py` goes through a hundred times as many.
"""
import contextlib
import io
import json
import os

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Outcome, Report, TaskDir

from . import test_store
from client import eventually
from .helpers import NAMES, WAIT_S, lines_of
from .odd import TEXTS, dumped, rounds
from .test_store import application

make = test_store.make                  # the fixture


# -- events -------------------------------------------------------------------------------------------
def odd_stream(chance):
    """Lines of recordings, some of them with other values in them, some torn."""
    lines = []
    for line in lines_of(chance.choice(NAMES)):
        if chance.odds(0.3):
            line = dumped(chance.changed(json.loads(line)))[:-1]
        if chance.odds(0.1):
            line = chance.torn(line).replace(b"\n", b" ")
        lines.append(line + b"\n")
    return lines


def facts_of(progress):
    """What is shown of a task that runs with this progress."""
    seen = cms.Seen(TaskDir("/none"), cms.Spec("0" * 12, 1.0, "codex", "/"), cms.Status(cms.State.RUNNING),
                    progress=progress)
    return cms.to_json(cms._running(cms.TaskRecord(seen.task.task_id), seen, 2.0))


def test_no_event_is_too_odd_to_be_folded_and_shown():
    for chance in rounds(150):
        lines = odd_stream(chance)
        progress = cms.Progress()
        for line in lines:
            progress = cms.fold(progress, line)
        assert progress.events + progress.unknown >= len(lines), chance.seed_of
        shown = cms.Wire.encode(facts_of(progress))
        json.loads(shown.decode("utf-8"), parse_constant=lambda name: pytest.fail("%s: seed %d" % (
            name, chance.seed_of)))
        report = Report(Outcome.SUCCEEDED, 1.0, 2.0, thread_id=progress.thread_id, content=progress.message,
                        usage=progress.usage, warnings=progress.warnings, files=progress.files)
        assert cms.from_json(Report, json.loads(json.dumps(cms.to_json(report)))) == report, chance.seed_of


def test_a_stream_comes_to_the_same_in_whatever_pieces_it_is_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cms, "MAX_LINE_BYTES", 2000)
    for chance in rounds(30):
        path = tmp_path / ("events-%d" % chance.seed_of)
        data = b"".join(odd_stream(chance))
        grown = cms.Tail(str(path))
        with open(str(path), "wb", 0) as f:
            for piece in chance.pieces(data):
                f.write(piece)
                if chance.odds(0.3):
                    grown.refresh(chance.choice([1, 300, float("inf")]))
        while grown.offset < len(data):
            before = grown.offset
            grown.refresh(1000)
            assert grown.offset > before, chance.seed_of
        assert grown.progress == cms.Tail(str(path)).refresh(), chance.seed_of


def test_whoever_reads_events_by_cursor_gets_each_of_them_once_in_order(tmp_path, monkeypatch):
    """Also while they are written, and with pages of any size."""
    monkeypatch.setattr(cms, "MAX_LINE_BYTES", 2000)
    for chance in rounds(30):
        path = tmp_path / ("events-%d" % chance.seed_of)
        path.write_bytes(b"")
        data = b"".join(numbered(odd_stream(chance)))
        pieces, found, cursor = list(chance.pieces(data)), [], 0
        while pieces or cursor < len(data):
            with open(str(path), "ab", 0) as f:
                f.write(pieces.pop(0) if pieces else b"")
            how = {"cursor": cursor, "max_chars": chance.choice([0, 1, 500]),
                   "limit": chance.choice([1, 3, 1000])}
            rooms = [chance.choice([100, 1000, 100000]) for _ in range(2)]
            before, (events, cursor, _) = cursor, cms._page_of_events(str(path), how, *rooms)
            assert cursor > before or pieces, chance.seed_of
            found += events
        assert len(found) == data.count(b"\n"), chance.seed_of
        assert all(event.get("number", at) == at for at, event in enumerate(found)), chance.seed_of


def numbered(lines):
    """Where a line is an event, it says the how manieth it is."""
    for at, line in enumerate(lines):
        event = None
        with contextlib.suppress(ValueError):
            event = json.loads(line)
        yield dumped(dict(event, number=at)) if isinstance(event, dict) else line


def test_a_cursor_inside_of_an_event_is_refused(tmp_path):
    path = tmp_path / "events"
    for chance in rounds(5):
        data = b"".join(odd_stream(chance))
        path.write_bytes(data)
        for _ in range(20):
            cursor = chance.randrange(len(data) + 5)
            begins = cursor == 0 or data[cursor - 1:cursor] == b"\n"
            try:
                list(cms.events_from(str(path), cursor))
                assert begins, (chance.seed_of, cursor)
            except ValueError:
                assert not begins, (chance.seed_of, cursor)


# -- records on disk ----------------------------------------------------------------------------------
THREADS = ["01a1fae2-9a16-7c70-9702-%012x" % number for number in range(4)]


def three_tasks(make):
    """One that runs, and two that have ended, with everything that a record can hold."""
    made, chance = [], next(rounds(1))
    for number in range(1, 4):
        tree = cms.Worktree("/none/tree", "codex-swarm/x", "1" * 40, "/none/git", "2" * 40, 1, 2, 3, 1,
                            files=("a",), ignored=cms.some(["b"]))
        made.append(make(number, title="odd", thread_id=THREADS[number], timeout_s=9.0,
                         arguments={"sandbox": "read-only", "config": {"a": 1}}, warnings=("w",),
                         usage_before=cms.Usage(1, 2, 3, 4, 5), worktree=tree if number == 2 else None))
        lines = odd_stream(chance)
        with open(made[-1].dir.file("events.jsonl"), "wb") as f:
            f.write(b"".join(lines))
        if number > 1:
            why = cms.failure(cms.FailureKind.KILLED, "it was killed") if number == 3 else None
            made[-1].report(Outcome.FAILED if why else Outcome.SUCCEEDED, thread_id=THREADS[number],
                            content="the answer", usage=cms.Usage(1, 2, 3, 4, 5), exit_code=-9 if why else 0,
                            failure=why, worktree=tree if number == 2 else None, warnings=("w",),
                            structured={"a": 1}, outside_write_paths=cms.some(["c"]), model="m")
            made[-1].advance("spawned", pid=1)
            made[-1].advance("exited", outcome=Outcome.FAILED if why else Outcome.SUCCEEDED, exit_code=0)
            made[-1].die()
    return made


FILES = ["spec.json", "status.json", "report.json", "events.jsonl", "collected", "kept", "../../ended",
         "../../threads/" + THREADS[2]]


@contextlib.contextmanager
def damaged(task, chance):
    """While the block runs, a record of the task or an index is another; its name."""
    name = chance.choice(FILES)
    path, whole = os.path.join(task.path, name), None
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
        whole = f.read()
    record = chance.value()
    with contextlib.suppress(ValueError):
        record = chance.changed(json.loads(whole or b""), 0.3)
    with open(path, "wb") as f:
        f.write(dumped(record) if name.endswith(".json") and chance.odds(0.7) else chance.torn(whole or b""))
    yield name
    os.unlink(path)
    if whole is not None:
        with open(path, "wb") as f:
            f.write(whole)


CALLS = [("codex_status", {}), ("codex_status", {"all": True}), ("codex_status", {"finished_since": "0"}),
         ("codex_status", {"all": True, "cwd": "/"}), ("codex_status", {"task_ids": ["%012x" % 2]}),
         ("codex_wait", {"task_ids": ["%012x" % n for n in (1, 2, 3)], "timeout_s": 0}),
         ("codex_wait", {"task_ids": ["%012x" % 2], "offset": 3, "max_chars": 2, "timeout_s": 0}),
         ("codex_events", {"task_id": "%012x" % 2}), ("codex_events", {"task_id": "%012x" % 3}),
         ("codex_diff", {"task_ids": ["%012x" % 2]}), ("codex_merge", {"task_ids": ["%012x" % 2],
                                                                      "dry_run": True})]


def told(app, name, arguments, where):
    """The result of a call as a client reads it; what it may raise is no more than an answer."""
    era = cms.Handshake(app)
    era.begun = True
    try:
        result = era.tools_call({"name": name, "arguments": arguments}, cms.Call())
    except cms.ProtocolError as error:
        result = cms.error_member(error)
    except Exception as error:
        raise AssertionError("%s %s: seed %s" % (name, arguments, where)) from error
    read = json.loads(cms.Wire.encode(result).decode("utf-8"),
                      parse_constant=lambda odd: pytest.fail("%s in %s: seed %s" % (odd, name, where)))
    if "structuredContent" in read and not read["isError"]:
        wrong = cms.mismatches(cms.TOOLS[name].returns, read["structuredContent"])
        assert not wrong, (name, where, wrong)
    return read


def test_no_record_is_so_odd_that_a_task_cannot_be_told_of(tasks, make):
    made = three_tasks(make)
    for chance in rounds(25):
        bad = chance.choice(made)
        with damaged(bad, chance) as name:
            app, where = application(tasks), (chance.seed_of, bad.id, name)
            for tool, arguments in chance.sample(CALLS, 3):
                told(app, tool, arguments, where)
            for task in made:
                told_of = told(app, "codex_status", {"task_ids": [task.id]}, where)
                good = "structuredContent" in told_of and told_of["structuredContent"]["tasks"][0]
                assert task is bad or good["title"] == "odd" and good["threadId"], where


# -- arguments and schemas ----------------------------------------------------------------------------
def fitting(schema, chance, depth=3):
    """A value that a schema may allow: odd, and of the right type."""
    schema = chance.choice(schema.get("anyOf", [schema]))
    kind = schema.get("type", "null")
    if "enum" in schema:
        return chance.choice(schema["enum"])
    if kind == "object":
        names = list(schema.get("properties", {})) if depth else []
        picked = [name for name in names if name in schema.get("required", ()) or chance.odds(0.2)]
        return {name: fitting(schema["properties"][name], chance, depth - 1) for name in picked}
    if kind == "array":
        return [fitting(schema["items"], chance, depth - 1) for _ in range(chance.randrange(1, 3))]
    if kind == "string":
        known = ["%012x" % 2, "0000", THREADS[2], "codex-swarm/" + "%012x" % 2, "say it", "HEAD", "."]
        return chance.choice(known + TEXTS)
    if kind == "integer":
        return chance.choice([0, 1, 2, 1000, 1 << 40])
    return chance.choice([0, 0.5, 3]) if kind == "number" else chance.odds(0.5)


def test_no_arguments_are_too_odd_to_be_judged():
    for chance in rounds(300):
        args = chance.choice(list(cms.TOOLS.values())).args
        value = chance.changed(fitting(args, chance))
        with contextlib.suppress(cms.ToolError):
            value = cms.canonical(args, value)
            wrong = cms.problems(args, value)
            assert all(isinstance(one, str) and len(one) < 2000 for one in wrong), (chance.seed_of, wrong)
            cms.refuse(wrong)


def test_no_schema_of_a_caller_and_no_answer_is_too_odd_to_be_compared():
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/c"}},
              "required": ["a"], "additionalProperties": False, "anyOf": [{"minLength": 1}, {"maximum": 5}],
              "$defs": {"c": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}}}
    for chance in rounds(300):
        odd = chance.changed(schema, 0.5)
        message = dumped(chance.changed({"a": "x", "b": [{"a": None}]}, 0.5)).decode()
        message = message if chance.odds(0.8) else chance.torn(message.encode()).decode("utf-8", "replace")
        answer, wrong = cms.structured(odd if isinstance(odd, dict) else schema, message)
        assert isinstance(wrong, str), chance.seed_of
        cms.compact({"structured": answer, "warning": wrong})


# -- frames -------------------------------------------------------------------------------------------
STATELESS = {cms.VENDOR + "protocolVersion": cms.STATELESS,
             cms.VENDOR + "clientCapabilities": {"extensions": {cms.TASKS_EXTENSION: {}}}}


def odd_request(chance, number):
    """A request that its method may take, more or less."""
    name = chance.choice(["tools/call"] * 8 + list(cms.METHODS) + TEXTS)
    params = chance.value()
    if name == "tools/call":
        tool = chance.choice(list(cms.TOOLS))
        params = {"name": tool, "arguments": chance.changed(fitting(cms.TOOLS[tool].args, chance), 0.02)}
    elif name == "resources/read":
        uri = chance.choice(cms.RESOURCES).uri.replace("{task_id}", chance.choice(["%012x" % 2, "x", ""]))
        params = {"uri": uri}
    elif name == "prompts/get":
        prompt = chance.choice(list(cms.PROMPTS.values()))
        params = {"name": prompt.name, "arguments": fitting(prompt.schema(), chance)}
    meta = chance.choice([{}, STATELESS, {"progressToken": number}, {**STATELESS, "progressToken": "x"}])
    if isinstance(params, dict) and meta:
        params = dict(params, _meta=meta)
    return {"jsonrpc": "2.0", "id": number, "method": name, "params": params}


def odd_line(chance, number):
    """A line of a client, and how many answers there must be to it."""
    message = odd_request(chance, number)
    if chance.odds(0.2):
        message = chance.changed(message, 0.1)
        if isinstance(message, dict) and message.get("id", number) != number:
            message["id"] = chance.choice([number, None, [], {}, True, 0.5])
    if chance.odds(0.05):
        line = chance.torn(dumped(message)).replace(b"\n", b"") + b"\n"
    else:
        line = dumped(message)
    try:
        read = json.loads(line.decode("utf-8"), parse_constant=cms._no_constant)
    except (ValueError, RecursionError):
        return line, int(bool(line.strip()))
    return line, int(isinstance(read, list) or cms.expects_answer(read))


def test_every_odd_line_of_a_client_gets_its_one_answer_and_none_is_a_fault_of_ours(tasks, make, tmp_path):
    made, log = three_tasks(make), tmp_path / "log"
    config = cms.Config(tasks.root, tasks.root + "/trees", str(tmp_path / "no-codex"), min_free_mb=0)
    app = cms.Swarm(config, cms.Host(str(log)), dict(os.environ, HOME=str(tmp_path)))
    with open(str(tmp_path / "out"), "w+b") as out:
        server = cms.Server(app, cms.Wire(io.BytesIO(), out.fileno(), lambda why: None))
        server.receive(dumped({"jsonrpc": "2.0", "id": "first", "method": "initialize",
                               "params": {"protocolVersion": cms.REVISIONS[0]}}))
        expected = 1
        for chance in rounds(400):
            line, answers = odd_line(chance, chance.seed_of)
            if line.strip():                # what is blank never comes here
                server.receive(line)
                expected += answers
        for task in made:
            task.die()
        eventually(lambda: not server.threads, what="the end of all calls")
        server.wire.flush(WAIT_S)
        out.seek(0)
        answers = [json.loads(line, parse_constant=pytest.fail) for line in out]
    answers = [one for one in answers if "method" not in one]
    assert len(answers) == expected
    faults = [one for one in answers if "Internal error" in one.get("error", {}).get("message", "")]
    assert not faults and not (log.exists() and "Traceback" in log.read_text()), log.read_text()
