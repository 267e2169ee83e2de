"""What is on disk reads back as what was written, in this version, and in an older or a newer one."""
import errno
import json
import os
import random
import signal
import sys

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import (Failure, FailureKind, Handle, HandleEnd, Outcome, Report, Spec, State, Status,
                             Usage, Worktree)

TEXTS = ["x", "two words", "\u00e4\u20ac\U0001f41d", "\u2028\x7f\0", 'say "hi"\\', "-x", "x" * 1000]


def text(chance):
    return chance.choice(TEXTS)


def test_a_field_without_a_default_stands_before_those_that_have_one():
    with pytest.raises(KeyError, match="behind"):
        cms.Maker("Odd", (cms.NamedTuple,), {
            "__module__": "x", "__annotations__": {"before": "int", "behind": "int"}, "before": 1})


def maybe(chance, make, default=None):
    return make(chance) if chance.random() < 0.7 else default


def number(chance):
    return chance.choice([0, 1, 17, 10 ** 12])


def seconds(chance):
    return chance.choice([0.0, 0.25, 1732150000.125])


def usage(chance):
    return Usage(*(number(chance) for _ in Usage._fields))


def texts(chance):
    return tuple(text(chance) for _ in range(chance.randrange(4)))


def tree(chance):
    return Worktree(text(chance), text(chance), text(chance), text(chance),
                    *(maybe(chance, make) for make in (text, number, number, number, number, text)),
                    *(chance.choice([{}, {"count": 3, "first": [text(chance)]}]) for _ in range(6)),
                    texts(chance), maybe(chance, text), maybe(chance, text))


def failure(chance):
    return Failure(chance.choice(list(FailureKind)), text(chance), chance.random() < 0.5, text(chance))


def status(chance):
    outcome = lambda c: c.choice(list(Outcome))
    return Status(chance.choice(list(State)),
                  *(maybe(chance, make) for make in (outcome, outcome, number, number)))


def spec(chance):
    arguments = {"model": text(chance), "config": {"a": [1, {"b": text(chance)}], "c": None},
                 "timeout_s": 1.5}
    return Spec(text(chance), seconds(chance), text(chance), text(chance),
                maybe(chance, lambda c: arguments, {}), texts(chance), chance.random() < 0.5,
                chance.random() < 0.5, *(maybe(chance, make) for make in (seconds, text, usage, tree)),
                text(chance), texts(chance))


def report(chance):
    return Report(chance.choice(list(Outcome)), seconds(chance), seconds(chance),
                  *(maybe(chance, make) for make in (number, text, text, usage, usage, failure, tree)),
                  texts(chance), sandbox=maybe(chance, text), model=maybe(chance, text))


MAKERS = [usage, tree, failure, status, spec, report]
each_record = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def through_disk(record):
    return json.loads(json.dumps(cms.to_json(record)))


@each_record
def test_a_record_reads_back_as_it_was_written(make):
    chance = random.Random(5)
    for _ in range(300):
        record = make(chance)
        again = cms.from_json(type(record), through_disk(record))
        assert again == record
        assert [type(value) for value in again] == [type(value) for value in record]


@each_record
def test_a_field_that_a_newer_version_added_is_ignored(make):
    record = make(random.Random(6))
    again = cms.from_json(type(record), {**through_disk(record), "since_version_9": {"x": [1]}, "_fields": 1})
    assert through_disk(again) == through_disk(record)


OPTIONAL = [(make, name, default) for make in MAKERS
            for name, default in type(make(random.Random(0)))._field_defaults.items()]


@pytest.mark.parametrize("make, name, default", OPTIONAL,
                         ids=lambda value: getattr(value, "__name__", str(value)[:20]))
def test_a_field_that_an_older_version_did_not_have_gets_its_default(make, name, default):
    record = make(random.Random(7))
    data = through_disk(record)
    data.pop(name, None)
    assert through_disk(cms.from_json(type(record), data)) == through_disk(record._replace(**{name: default}))


@pytest.mark.parametrize("kind, data", [
    (Status, {}), (Status, {"state": "asleep"}), (Status, {"state": ["running"]}),
    (Status, {"state": "ended", "outcome": "fine"}), (Status, {"state": None}),
    (Spec, {}), (Spec, {"task_id": "x", "created_at": 1, "codex": "c", "cwd": "/", "worktree": 5}),
    (Report, {}), (Report, {"outcome": "failed"}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 1, "failure": {"kind": "new"}}),
    (Failure, {"kind": "auth"}), (Worktree, {"path": "/x"}),
    (Report, {"outcome": "failed", "elapsed_s": "1", "ended_at": 1}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 1, "files": [1]}),
    (Handle, {"handle_id": "x", "created_at": 1, "wait": {"task_ids": []}}),
    (Handle, {"handle_id": "x", "created_at": 1, "wait": ["y"]}),
    (HandleEnd, {"at": 1, "status": "completed", "message": 7}),
    (Worktree, dict.fromkeys(("path", "branch", "base", "git_dir"), 1)),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": float("nan")}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 10 ** 400}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 1, "warnings": 5}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 1, "exit_code": "0"}),
    (Report, {"outcome": "failed", "elapsed_s": 1, "ended_at": 1, "content": ["x"]}),
    (Spec, {"task_id": "x", "created_at": 1, "codex": "c", "cwd": "/", "arguments": "x"}),
], ids=repr)
def test_a_damaged_record_raises_what_readers_expect_and_nothing_else(kind, data):
    with pytest.raises(cms.UNREADABLE):
        cms.from_json(kind, data)


@pytest.mark.parametrize("now, before, share", [
    ((300, 30, 0, 60, 15), (100, 10, 0, 20, 5), (200, 20, 0, 40, 10)),
    ((100, 10, 0, 20, 5), (0, 0, 0, 0, 0), (100, 10, 0, 20, 5)),
    ((0, 0, 0, 0, 0), (100, 10, 0, 20, 5), (0, 0, 0, 0, 0)),           # a review reports zeros
    ((150, 5, 1, 20, 9), (100, 10, 0, 20, 5), (50, 0, 1, 0, 4)),
])
def test_the_usage_of_a_turn_is_what_the_thread_used_since_and_never_negative(now, before, share):
    assert Usage(*now).since(Usage(*before)) == Usage(*share)


@pytest.mark.parametrize("data",
                         [{"input_tokens": "7"}, {"input_tokens": None}, {"input_tokens": 1.5},
                          {"input_tokens": [1]}, {"tokens": 7}, {}], ids=repr)
def test_a_usage_of_odd_types_counts_as_none(data):
    assert Usage.of(data) == Usage()


def test_a_file_is_replaced_whole_and_a_failed_write_leaves_the_old_one(tmp_path):
    path = str(tmp_path / "status.json")
    cms.write_atomic(path, {"a": "\u00e4\u2028"})
    assert cms.read_json(path) == {"a": "\u00e4\u2028"}
    with pytest.raises(TypeError):
        cms.write_atomic(path, {"a": object()})
    assert cms.read_json(path) == {"a": "\u00e4\u2028"}
    # codex can say anything; half a character must not lose a report
    cms.write_atomic(path, {"b": "\ud800"})
    assert set(cms.read_json(path)) == {"b"}


def test_a_record_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """Else a power failure leaves an empty file under that name."""
    steps, rename = [], os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append("fsync"))
    monkeypatch.setattr(os, "rename", lambda *names: (steps.append("rename"), rename(*names)))
    cms.write_atomic(str(tmp_path / "report.json"), {})
    assert steps == ["fsync", "rename"]


def test_a_record_for_which_there_is_no_room_leaves_no_half_of_it(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        cms.write_atomic(str(tmp_path / "report.json"), {})
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("data",
                         [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe\0", b'{"state": "run', b"[" * 100_000],
                         ids=lambda d: repr(d[:12]))
def test_what_is_no_json_object_is_unreadable(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(cms.UNREADABLE):
        cms.read_json(str(tmp_path / "x.json"))


def test_a_link_in_the_place_of_a_record_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "x.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        cms.read_json(str(tmp_path / "x.json"))


PATIENT = """
import signal
signal.signal(signal.SIGTERM, lambda *_: open("cleared", "w").close())
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
signal.pause()
"""


def test_a_command_that_takes_too_long_may_clear_up_before_it_is_killed(tmp_path):
    """git takes away its locks then, or the next one fails. Here the signal waits until it is ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        done = cms.Host().run([sys.executable, "-I", "-S", "-c", PATIENT], str(tmp_path), timeout_s=0.01)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (tmp_path / "cleared").exists() and "gave up" in done.err
