"""The one state machine, walked over every state and every event, and the one judge of codex's evidence."""
import random
import signal

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import FailureKind, Outcome, State, Status, Turn

# The law. `-` is a gap; `ENDED x` says where the outcome comes from: the (first) stop reason, the verdict, or
# itself.
LAW = """
            launch    spawned   spawn_failed     stop            exited           gone
queued      starting  -         -                ended=reason    -                -
starting    -         running   ended=failed     stopping        -                ended=lost
running     -         running   ended=failed     stopping        ended=verdict    ended=lost
stopping    -         stopping  ended=reason     stopping        ended=reason     ended=lost
ended       -         -         -                -               -                -
"""
ROWS = [line.split() for line in LAW.strip().splitlines()]
EVENTS = ROWS[0]
CELLS = [(row[0], event, cell) for row in ROWS[1:] for event, cell in zip(EVENTS, row[1:])]
STATUS = {
    "queued": Status(State.QUEUED), "starting": Status(State.STARTING),
    "running": Status(State.RUNNING, pid=7),
    "stopping": Status(State.STOPPING, stop_reason=Outcome.CANCELLED, pid=7),
    "ended": Status(State.ENDED, Outcome.FAILED, pid=7, exit_code=1),
}


def facts_of(event):
    return {"stop": {"stop_reason": Outcome.TIMED_OUT},
            "exited": {"outcome": Outcome.SUCCEEDED, "exit_code": 0},
            "spawned": {"pid": 7}}.get(event, {})


def test_the_law_names_every_state_and_every_event():
    assert [row[0] for row in ROWS[1:]] == [s.value for s in State] == [s.value for s in cms.TRANSITIONS]
    assert set(EVENTS) == {event for row in cms.TRANSITIONS.values() for event in row}


@pytest.mark.parametrize("state, event, cell", CELLS, ids=lambda value: value)
def test_every_event_in_every_state_does_what_the_law_says(state, event, cell):
    before = STATUS[state]
    kept = cms.to_json(before)
    if cell == "-":
        with pytest.raises(cms.WrongState):
            cms.advance(before, event, **facts_of(event))
        assert cms.to_json(before) == kept
        return
    after = cms.advance(before, event, **facts_of(event))
    to, _, source = cell.partition("=")
    outcome = {"": None, "reason": before.stop_reason or Outcome.TIMED_OUT, "failed": Outcome.FAILED,
               "verdict": Outcome.SUCCEEDED,
               "lost": Outcome.LOST}[source]
    assert (after.state.value, after.outcome) == (to, outcome)


@pytest.mark.parametrize("first, second",
                         [(Outcome.CANCELLED, Outcome.TIMED_OUT), (Outcome.TIMED_OUT, Outcome.CANCELLED)])
def test_the_first_stop_reason_wins(first, second):
    status = cms.advance(STATUS["running"], "stop", stop_reason=first)
    status = cms.advance(status, "stop", stop_reason=second)
    end = cms.advance(status, "exited", outcome=Outcome.SUCCEEDED, exit_code=0)
    assert (end.outcome, end.exit_code) == (first, 0)


def test_on_any_walk_the_outcome_is_set_exactly_when_the_task_has_ended():
    chance = random.Random(1)
    for _ in range(3000):
        status, reasons = Status(State.QUEUED), []
        for _ in range(12):
            event = chance.choice(EVENTS)
            facts = dict(facts_of(event),
                         **({"stop_reason": chance.choice([Outcome.CANCELLED, Outcome.TIMED_OUT])}
                            if event == "stop" else {}))
            try:
                status = cms.advance(status, event, **facts)
            except cms.WrongState:
                continue
            reasons += [facts["stop_reason"]] if event == "stop" else []
            assert (status.outcome is not None) == (status.state is State.ENDED), (status, event)
            assert status.stop_reason == (reasons[0] if reasons else None)
            if status.state is State.ENDED:
                assert (status.outcome is Outcome.LOST) == (event == "gone")
                assert event == "gone" or not reasons or status.outcome is reasons[0]


A, B = "01a1fae2-9a16-7c70-9702-579ef587dc24", "01a1fb09-d9b0-7873-95ce-1e5e319b1f6b"
VERDICTS = [
    # exit, turn,          thread seen, wanted -> outcome, kind
    (0, Turn.COMPLETED, A, None, Outcome.SUCCEEDED, None),
    (0, Turn.COMPLETED, A, A.upper(), Outcome.SUCCEEDED, None),
    (0, Turn.COMPLETED, A, B, Outcome.FAILED, FailureKind.RESUME),
    (1, Turn.FAILED, A, B, Outcome.FAILED, FailureKind.RESUME),
    (0, Turn.NONE, None, None, Outcome.FAILED, FailureKind.DISAGREEMENT),
    (0, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.DISAGREEMENT),
    (0, Turn.FAILED, A, None, Outcome.FAILED, FailureKind.DISAGREEMENT),
    (1, Turn.COMPLETED, A, None, Outcome.FAILED, FailureKind.DISAGREEMENT),
    (-9, Turn.COMPLETED, A, None, Outcome.FAILED, FailureKind.DISAGREEMENT),
    (1, Turn.FAILED, A, None, Outcome.FAILED, None),
    (1, Turn.NONE, None, A, Outcome.FAILED, None),
    (2, Turn.NONE, None, None, Outcome.FAILED, None),
    (101, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.CODEX_CRASH),
    (-6, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.CODEX_CRASH),
    (-11, Turn.NONE, None, None, Outcome.FAILED, FailureKind.CODEX_CRASH),
    (-9, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.KILLED),
    (-15, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.KILLED),
    (-1, Turn.FAILED, A, None, Outcome.FAILED, FailureKind.KILLED),
    (-64, Turn.STARTED, A, None, Outcome.FAILED, FailureKind.KILLED),
]


@pytest.mark.parametrize("code, turn, seen, wanted, outcome, kind", VERDICTS)
def test_the_verdict_rests_on_exit_status_and_last_turn_event(code, turn, seen, wanted, outcome, kind):
    assert cms.verdict(code, cms.Progress(thread_id=seen, turn=turn), wanted) == (outcome, kind)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"])
def test_a_signal_that_a_program_brings_upon_itself_is_a_crash_and_no_want_of_memory(name):
    outcome, kind = cms.verdict(-getattr(signal, name), cms.Progress(turn=Turn.STARTED))
    assert (outcome, kind) == (Outcome.FAILED, FailureKind.CODEX_CRASH)
