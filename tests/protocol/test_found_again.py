"""What has ended is found again: by whoever lost sight of it, in pages, and as news across servers."""
import pathlib
import shutil
import tempfile

import pytest

from client import eventually
from conftest import Gate, git, is_supervised, new_repository, running, task_dirs


def ended(c, *prompts, **more):
    """Start tasks, one after the other has ended; their ids. Nobody is given their results, as the answer to
    codex_async would where a task had ended by then."""
    ids = []
    for prompt in prompts:
        with tempfile.TemporaryDirectory() as place:
            gate, since = Gate(pathlib.Path(place, "gate")), c.ok("codex_status")["cursor"]
            ids.append(c.begin(prompt, gate.wait, **more))
            gate.open()
            eventually(lambda: c.ok("codex_status", finished_since=since)["tasks"], what="its end")
    return ids


def news(c, cursor, **more):
    """(ids of what ended since, the next cursor), each answer asked for until one brings nothing."""
    found = []
    while True:
        answer = c.ok("codex_status", finished_since=cursor, **more)
        if not answer["tasks"]:
            return found, cursor
        found += [task["task_id"] for task in answer["tasks"]]
        cursor = answer["cursor"]


def test_what_a_client_gave_up_on_is_in_the_next_status_until_somebody_collects_it(client, root, gate):
    c = client()
    call = c.start_call("codex", {"prompt": "%s\nSAY the result" % gate.wait})
    task, = running(c, 1)
    c.cancel(call, reason="Request timed out")
    gate.open()
    eventually(lambda: not is_supervised(root / "tasks" / task), what="the end of the task")
    for asked in (c, client()):
        found, = asked.ok("codex_status")["tasks"]
        assert (found["task_id"], found["content"], found["collected"]) == (task, "the result", False)
    assert "collected" not in c.collect(task)[0]
    eventually(lambda: client().ok("codex_status")["tasks"] == [], what="the note that it was collected")


def test_of_a_long_result_that_nobody_asked_for_comes_the_beginning_and_how_to_get_the_rest(client, message):
    c = client()
    task, = ended(c, "MESSAGE 5000")
    found, = c.ok("codex_status")["tasks"]
    assert found["content"] == message(5000)[:len(found["content"])] and len(found["content"]) == 1000
    assert "codex_wait" in found["truncated"]["how"] and task in found["truncated"]["how"]


def test_of_many_that_nobody_collected_the_newest_are_shown_and_the_others_counted(client, gate):
    c = client()
    c.ok("codex_batch", tasks=[{"prompt": gate.wait}] * 12, wait=False)
    gate.open()
    eventually(lambda: c.ok("codex_status").get("more_uncollected") == 2, what="the end of the tasks")
    answer = c.ok("codex_status")
    assert len(answer["tasks"]) == 10
    started = [task["started_at"] for task in answer["tasks"]]
    assert started == sorted(started)


def test_all_lists_what_runs_and_what_has_ended_newest_first_in_pages(client, repo, gate):
    c = client()
    c.ok("codex_batch", tasks=[{"prompt": "SAY %d" % n} for n in range(60)])
    last, = ended(c, "WRITE x 1", worktree=True)
    runs = c.begin(gate.wait)
    first = c.ok("codex_status", all=True)
    second = client().ok("codex_status", all=True, cursor=first["cursor"])
    ids = [task["task_id"] for task in first["tasks"] + second["tasks"]]
    assert ids[:2] == [runs, last] and len(ids) == len(set(ids)) == 62 and "cursor" not in second
    row, times = first["tasks"][1], [task["ended"] for task in first["tasks"][1:] + second["tasks"]]
    assert (row["cwd"], row["branch"], row["title"]) == (str(repo), "codex-swarm/" + last, "WRITE x 1")
    assert (row["outcome"], row["collected"]) == ("succeeded", False) and "content" not in row
    assert times == sorted(times, reverse=True) and all(time.endswith("Z") for time in times)
    assert not {"collected", "branch"} & set(second["tasks"][0])
    gate.open()


def test_a_list_is_no_collection(client, root):
    c = client()
    task, = ended(c, "SAY x")
    c.ok("codex_status", all=True)
    c.ok("codex_status", finished_since="0")
    c.ok("codex_status")
    c.ping()
    assert not (root / "tasks" / task / "collected").exists()


def test_what_ended_since_comes_once_and_in_order_across_servers_restarts_and_kills(client, root, gate):
    one, two = client(), client()
    before = one.ok("codex_status")["cursor"]
    first = ended(one, "SAY a", "SAY b")
    late = one.begin(gate.wait)
    seen, cursor = news(two, before)
    assert seen == first and news(one, before) == (seen, cursor)
    second = ended(two, "SAY c") if one.kill() is None else []
    gate.open()
    two.kill()
    eventually(lambda: not any(map(is_supervised, task_dirs(root))), what="the end of all")
    three = client()
    seen, cursor = news(three, cursor)
    assert seen == second + [late] and news(client(), cursor) == ([], cursor)
    assert news(three, before)[0] == first + second + [late] == news(three, "0")[0]


@pytest.mark.parametrize("lost", ["ended", "live"])
def test_an_index_that_was_deleted_hides_nothing(client, root, lost):
    c = client()
    ids = ended(c, "SAY a", "SAY b")
    c.collect(ids[0])
    cursor = c.ok("codex_status")["cursor"]
    (root / "ended").unlink() if lost == "ended" else shutil.rmtree(str(root / "live"))
    c = client()
    assert [task["task_id"] for task in c.ok("codex_status")["tasks"]] == [ids[1]]
    assert news(c, "0")[0] == ids
    assert news(c, cursor)[0] == (ids if lost == "ended" else [])


def test_cwd_narrows_to_a_directory_and_to_a_repository(client, repo, tmp_path, gate):
    (repo / "sub").mkdir()
    git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    other = new_repository(tmp_path / "other")
    c = client()
    top, = ended(c, "SAY top")
    sub, = ended(c, "SAY sub", cwd="sub", worktree=True)
    linked, = ended(c, "SAY linked", cwd=str(tmp_path / "linked"))
    apart = c.begin(gate.wait, cwd=str(other))
    ids = lambda **how: {task["task_id"] for task in c.ok("codex_status", **how)["tasks"]}
    for how in ({}, {"all": True}, {"finished_since": "0"}):
        for cwd in (".", "sub", str(tmp_path / "linked")):
            assert ids(cwd=cwd, **how) == {top, sub, linked}, how
        assert ids(cwd=str(other), **how) == (set() if "finished_since" in how else {apart}), how
        assert ids(cwd=str(tmp_path), **how) >= {top, sub, linked}, how
    assert "does not exist" in c.refused("codex_status", {"cwd": "nowhere"})
    gate.open()


@pytest.mark.parametrize("arguments", [{"all": True, "finished_since": "0"}, {"cursor": "1"},
                                       {"task_ids": ["0" * 12], "all": True}])
def test_what_contradicts_itself_is_refused(client, arguments):
    assert "exclude each other" in client().refused("codex_status", arguments)


def test_a_task_that_was_stopped_waits_for_nobody(client, gate):
    c = client()
    call = c.start_call("codex", {"prompt": gate.wait})
    task, = running(c, 1)
    c.cancel(call)
    eventually(lambda: c.ok("codex_status")["tasks"] == [], what="the end of the task")
    row, = c.ok("codex_status", all=True)["tasks"]
    assert (row["task_id"], row["outcome"]) == (task, "cancelled")
