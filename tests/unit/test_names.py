"""Whatever was shown for a task names it, in every tool."""
import os

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import ToolError

from .helpers import run
from .prepared import prepared

HANDLE = "0123456789abcdef" * 2


@pytest.fixture
def two(swarm, repo, tmp_path):
    """(application, the records of two tasks that have ended, each in a worktree)."""
    def make():
        app = swarm()
        ids = [run(app, "WRITE made %d" % number, worktree=True)["task_id"] for number in (1, 2)]
        app.store.write_handle(cms.Handle(HANDLE, 1.0, cms.Wait(tuple(ids))))
        return ids
    ids, app = prepared(tmp_path, "two", make), swarm()
    return app, [app.record(task_id) for task_id in ids]


def named(app, tool, **arguments):
    """The ids of the tasks that a call was about."""
    answer = cms.TOOLS[tool].run(app, arguments, cms.Call())
    answer = cms.block(app, answer, cms.Call()) if isinstance(answer, cms.Wait) else answer
    records = answer.data.get("tasks", [answer.data])
    return [record["task_id"] for record in records] if "onto" not in answer.data else answer.data["merged"]


NAMES = {
    "the whole id": lambda record: record["task_id"],
    "its first four characters": lambda record: record["task_id"][:4],
    "all but its last": lambda record: record["task_id"][:11],
    "its branch": lambda record: record["worktree"]["branch"],
    "its branch as a ref": lambda record: "refs/heads/" + record["worktree"]["branch"],
    "its thread": lambda record: record["threadId"],
    "its thread in capitals": lambda record: record["threadId"].upper(),
}


def test_every_tool_takes_whatever_was_shown_for_a_task(two):
    app, (first, _) = two
    wanted = [first["task_id"]]
    for shown in (name(first) for name in NAMES.values()):
        for tool in ("codex_status", "codex_wait", "codex_cancel"):
            assert named(app, tool, task_ids=[shown]) == wanted, (tool, shown)
        assert named(app, "codex_diff", task_id=shown) == wanted, shown
    for name in ("its first four characters", "its branch as a ref", "its thread"):
        assert named(app, "codex_merge", task_ids=[NAMES[name](first)], dry_run=True) == wanted, name
    again = NAMES["its branch"](first)
    assert cms.codex_reply(app, {"prompt": "SAY on", "task_id": again}, cms.Call()).task_ids


def test_a_name_that_comes_twice_in_two_dresses_counts_once(two):
    app, (first, second) = two
    words = [first["task_id"], first["threadId"], second["task_id"][:6]]
    assert named(app, "codex_wait", task_ids=words) == [first["task_id"], second["task_id"]]


def test_an_mcp_task_stands_for_all_that_it_waits_for(two):
    app, records = two
    ids = [record["task_id"] for record in records]
    assert named(app, "codex_status", task_ids=[HANDLE]) == ids
    with pytest.raises(ToolError) as caught:
        named(app, "codex_diff", task_id=HANDLE)
    assert "stands for 2 tasks" in str(caught.value) and ids[1] in str(caught.value)


def test_the_beginning_of_several_ids_is_told_with_them(two):
    app, records = two
    twins = ["abcd%08x" % number for number in (1, 2)]
    for record, twin in zip(records, twins):
        os.rename(os.path.join(app.store.tasks, record["task_id"]), os.path.join(app.store.tasks, twin))
    with pytest.raises(ToolError) as caught:
        named(app, "codex_status", task_ids=["abcd"])
    assert "beginning of 2 task ids" in str(caught.value) and all(twin in str(caught.value) for twin in twins)


@pytest.mark.parametrize("name", ["0" * 12, "abc", "main", "../x", "codex-swarm/", "f" * 32,
                                  "0000000a-0000-7000-8000-00000000000a", "ffffff"])
def test_what_was_never_shown_names_no_task(two, name):
    app, _ = two
    for tool, arguments in (("codex_wait", {"task_ids": [name]}), ("codex_diff", {"task_id": name})):
        with pytest.raises(ToolError) as caught:
            named(app, tool, **arguments)
        assert "There is no task" in str(caught.value)


def test_an_unknown_name_keeps_nothing_else_from_being_stopped(two):
    app, (first, _) = two
    with pytest.raises(ToolError) as caught:
        named(app, "codex_cancel", task_ids=["main", first["task_id"][:5]])
    assert first["task_id"] in str(caught.value)
