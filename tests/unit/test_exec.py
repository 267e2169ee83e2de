"""What `codex exec` offers beyond a prompt: images, schemas, directories, copies of threads, and more."""
import errno
import json
import os
import stat
import threading

import pytest

import codex_mcp_swarm as cms
from client import eventually
from codex_mcp_swarm import ToolError, mismatches

from .helpers import WAIT_S, auditing, begin, ended, run
from .on_git import files_of, sh

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
ADDRESS = {
    "type": "object",
    "properties": {
        "town": {"type": "string", "minLength": 2, "maxLength": 9},
        "number": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        "kind": {"enum": ["home", "work"]},
        "past": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/year"}},
        "inner": {"$ref": "#"},
    },
    "required": ["town"],
    "additionalProperties": False,
    "$defs": {"year": {"type": "number", "maximum": 2100}},
}


def argv_of(app, **arguments):
    return json.loads(run(app, "ARGV", **arguments)["content"])["argv"]


# -- arguments ----------------------------------------------------------------------------------------
def test_every_argument_of_exec_reaches_codex_as_its_own_words(swarm, repo):
    (repo / "shot.png").write_bytes(PNG)
    (repo / "extra").mkdir()
    words = argv_of(swarm(), images=["shot.png"], add_dirs=["extra"], effort="high", search="live",
                    approve_for_me=True, isolate=True, ephemeral=True)
    assert words[:4] == ["exec", "--add-dir=%s" % (repo / "extra"), "--approve-for-me", "--json"]
    assert {"--image=%s" % (repo / "shot.png"), "--ignore-user-config", "--ephemeral",
            'model_reasoning_effort="high"', 'web_search="live"'} < set(words)
    assert not [word for word in words if word.startswith("--sandbox")]     # codex takes one of the two


def test_a_reply_keeps_its_directories_and_effort_and_looks_at_no_image_again(swarm, repo):
    (repo / "shot.png").write_bytes(PNG)
    app = swarm()
    first = run(app, "SAY x", images=["shot.png"], add_dirs=[str(repo)], effort="low")
    words = argv_of(app, threadId=first["threadId"])
    assert words.index("--add-dir=%s" % repo) < words.index("resume")
    assert 'model_reasoning_effort="low"' in words
    assert not [word for word in words if word.startswith("--image")]


@pytest.mark.parametrize("name, content, why", [
    ("none.png", None, "does not exist"),
    ("text.png", b"hello", "is neither PNG, JPEG, GIF nor WebP"),
    ("empty.png", b"", "has 0 bytes"),
    (".", None, "is no file"),
])
def test_an_image_that_codex_would_pass_over_is_refused_before_anything_starts(swarm, repo, root, name,
                                                                                content, why):
    if content is not None:
        (repo / name).write_bytes(content)
    (repo / "good.png").write_bytes(PNG)
    with pytest.raises(ToolError) as refused:
        swarm().start([{"prompt": "x", "images": ["good.png", name]}])
    assert "`images[1]`" in str(refused.value) and why in str(refused.value)
    assert not list((root / "tasks").glob("*"))


def test_a_huge_image_is_refused(swarm, repo):
    with open(str(repo / "huge.png"), "wb") as f:
        f.write(PNG)
        f.truncate(cms.MAX_IMAGE_BYTES + 1)
    with pytest.raises(ToolError, match=r"20,971,521 bytes; from 1 to 20,971,520"):
        swarm().start([{"prompt": "x", "images": ["huge.png"]}])


def test_a_directory_that_is_not_there_is_refused(swarm):
    with pytest.raises(ToolError, match=r"`add_dirs\[0\]`: .*/nowhere does not exist"):
        swarm().start([{"prompt": "x", "add_dirs": ["nowhere"]}])


@pytest.mark.parametrize("name", ["images", "add_dirs"])
def test_files_outside_of_what_is_allowed_are_refused(swarm, repo, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(PNG)
    outside = {"images": tmp_path / "secret.png", "add_dirs": tmp_path}[name]
    (repo / "link").symlink_to(outside)
    for path in (str(outside), "../" + outside.name, "link"):
        with pytest.raises(ToolError, match="outside of what --allow-root allows|does not exist"):
            swarm(allow_roots=(str(repo),)).start([{"prompt": "x", name: [path]}])


@pytest.mark.parametrize("argument", [{"add_dirs": ["."]}, {"approve_for_me": True}])
def test_under_a_cap_nothing_opens_more(swarm, argument):
    with pytest.raises(ToolError, match="more than this server gives"):
        swarm(max_sandbox="workspace-write").start([{"prompt": "x", **argument}])


def test_a_directory_above_the_tasks_is_kept_out_like_any_other_place(swarm, repo, root):
    app = swarm()
    plan = app.plan({"prompt": "x", "sandbox": "workspace-write", "add_dirs": [str(root.parent)]})
    assert plan.spec.permissions["filesystem"][str(root)] == "none"
    with pytest.raises(ToolError, match="`approve_for_me` it may leave its sandbox"):
        app.plan({"prompt": "x", "approve_for_me": True, "add_dirs": [str(root.parent)]})


def test_a_review_by_codex_goes_with_no_other_sandbox(swarm):
    with pytest.raises(ToolError, match="does not go with `sandbox` read-only"):
        swarm().start([{"prompt": "x", "approve_for_me": True, "sandbox": "read-only"}])


@pytest.mark.parametrize("argument", ["isolate", "fork"])
def test_what_the_installed_codex_does_not_know_is_refused_by_name(swarm, tmp_path, argument):
    old = tmp_path / "old-codex"
    old.write_text("#!/bin/sh\n[ \"$1\" = exec ] && echo '  -m, --model <MODEL>' || echo codex-cli 0.99.1\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    thread = run(swarm(), "SAY x")["threadId"]
    refusal = r"`%s` is not possible. .*old-codex is 0\.99\.1: it has no" % argument
    with pytest.raises(ToolError, match=refusal):
        swarm(codex_bin=str(old)).start([{"prompt": "x", "threadId": thread, argument: True}])


def test_an_ephemeral_task_has_no_thread_to_continue(swarm):
    app = swarm()
    first = run(app, "SAY x", ephemeral=True)
    for more in ({}, {"fork": True}):
        with pytest.raises(ToolError, match="Task %s was `ephemeral`" % first["task_id"]):
            app.start([{"prompt": "y", "task_id": first["task_id"], **more}])


# -- the answer as data -------------------------------------------------------------------------------
@pytest.mark.parametrize("answer, wrong", [
    ({"town": "Ulm", "number": 3, "kind": "home", "past": [1999, 2001.5], "inner": {"town": "Ulm"}}, []),
    ({"town": "Ulm", "number": None}, []),
    ({}, ["`town` is required"]),
    ({"town": 5}, ["`town` must be a string, not 5"]),
    ({"town": "U"}, ["`town` must have from 2 to 9 characters, not 1"]),
    ({"town": "Ulm", "zip": 1}, ['`zip` is not allowed; there are: town, number, kind, past, inner']),
    ({"town": "Ulm", "number": 0}, ["`number` must be at least 1, not 0"]),
    ({"town": "Ulm", "number": True}, ["`number` must be an integer or a null, not true"]),
    ({"town": "Ulm", "kind": "x"}, ['`kind` must be one of home, work, not "x"']),
    ({"town": "Ulm", "past": [1, 2, 3]}, ["`past` must have at most 2 entries, not 3"]),
    ({"town": "Ulm", "past": [2101]}, ["`past[0]` must be at most 2,100, not 2101"]),
    ({"town": "Ulm", "inner": {}}, ["`inner.town` is required"]),
])
def test_an_answer_is_checked_against_its_schema(answer, wrong):
    assert mismatches(ADDRESS, answer) == wrong


@pytest.mark.parametrize("schema", [
    {"$ref": "#"}, {"$ref": "#/nowhere"}, {"type": "strange"}, {"required": 5}, {"properties": []},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
])
def test_a_schema_that_leads_nowhere_ends_the_check_and_not_the_task(schema):
    assert mismatches(schema, {"a": 1}) == ["the schema was not understood, so nothing was checked"]


def test_the_answer_is_in_the_record_as_data(swarm):
    app = swarm()
    record = run(app, 'SAY {"town": "Ulm"}', output_schema=ADDRESS)
    assert record["structured"] == {"town": "Ulm"} == json.loads(record["content"])
    assert "warnings" not in record


@pytest.mark.parametrize("answer, warning", [
    ("not json at all", "is no JSON object"), ("[1]", "is no JSON object"),
    ('{"town": NaN}', "is no JSON object"), ('{"a": 1e999}', "is no JSON object"),
    (r'{"a": "\ud800"}', "is no JSON object"),
    ('{"town": 1}', "does not fit `output_schema`: `town` must be a string, not 1"),
])
def test_an_answer_that_does_not_fit_is_a_warning_and_is_not_lost(swarm, answer, warning):
    record = run(swarm(), "SAY " + answer, output_schema=ADDRESS)
    assert record["outcome"] == "succeeded" and record["content"] == answer
    assert warning in record["warnings"][0]


def test_codex_is_given_the_schema_in_a_file_of_the_task(swarm, root):
    app = swarm()
    record = run(app, "ARGV", output_schema=ADDRESS)
    path = root / "tasks" / record["task_id"] / "output_schema"
    assert "--output-schema=%s" % path in json.loads(record["content"])["argv"]
    assert json.loads(path.read_text()) == ADDRESS and stat.S_IMODE(path.stat().st_mode) == 0o600


# -- copies of threads --------------------------------------------------------------------------------
def test_a_fork_is_a_new_thread_that_knows_the_old_one(swarm):
    app = swarm()
    first = run(app, "first prompt\nSAY x", model="m", sandbox="read-only")
    copy = run(app, "RECALL", threadId=first["threadId"], fork=True)
    assert copy["threadId"] != first["threadId"] and "first prompt" in copy["content"]
    assert copy["model"] == "m" and copy["sandbox"] == "read-only"
    assert copy["usage"] == first["usage"]          # of its own turn: codex counts on from the old thread
    again = run(app, "RECALL", threadId=first["threadId"])
    assert again["threadId"] == first["threadId"]
    assert json.loads(again["content"][len("earlier: "):]) == ["first prompt\nSAY x"]


def test_a_thread_that_is_busy_can_be_copied(swarm, tmp_path):
    app = swarm()
    thread = run(app, "SAY x")["threadId"]
    busy = begin(app, "WAITFILE %s" % (tmp_path / "gate"), threadId=thread)
    with pytest.raises(ToolError, match="is busy. .*`interrupt` true.*`fork` true"):
        app.start([{"prompt": "x", "threadId": thread}])
    assert run(app, "SAY copied", threadId=thread, fork=True)["content"] == "copied"
    (tmp_path / "gate").touch()
    ended(app, [busy.task_id])


def test_a_fork_in_a_worktree_begins_with_what_the_thread_committed(swarm, repo):
    app = swarm()
    first = run(app, "WRITE a.txt one", worktree=True)
    with pytest.raises(ToolError, match="A copy of this thread cannot work in .*Pass `worktree` true"):
        app.start([{"prompt": "x", "threadId": first["threadId"], "fork": True}])
    copy = run(app, "WRITE b.txt two", threadId=first["threadId"], fork=True, worktree=True)
    assert copy["worktree"]["path"] != first["worktree"]["path"]
    assert files_of(repo, copy["worktree"]["branch"]) == ["README", "a.txt", "b.txt"]
    assert not os.path.exists(os.path.join(first["worktree"]["path"], "b.txt"))


def test_a_fork_without_a_thread_says_what_is_missing(swarm):
    with pytest.raises(ToolError, match="`fork` needs the thread to copy"):
        swarm().start([{"prompt": "x", "fork": True}])


def test_a_worktree_for_a_reply_names_the_fork(swarm):
    app = swarm()
    thread = run(app, "SAY x")["threadId"]
    with pytest.raises(ToolError, match="or pass `fork` true"):
        app.start([{"prompt": "x", "threadId": thread, "worktree": True}])


def test_an_interrupting_reply_stops_the_turn_and_goes_on_in_the_thread(swarm, tmp_path):
    app = swarm()
    thread = run(app, "SAY x")["threadId"]
    busy = begin(app, "WAITFILE %s" % (tmp_path / "never"), threadId=thread)
    record = run(app, "SAY instead", threadId=thread, interrupt=True)
    assert (record["content"], record["threadId"]) == ("instead", thread)
    assert ["The turn of task %s was stopped for this reply" % busy.task_id in warning
            for warning in record["warnings"]] == [True]
    assert ended(app, [busy.task_id])[0]["outcome"] == "cancelled"


# -- reviews ------------------------------------------------------------------------------------------
def review(app, **arguments):
    """The record of a review, called as a client calls it."""
    wait = cms.codex_review(app, arguments, cms.Call())
    return ended(app, list(wait.task_ids))[0]


@pytest.mark.parametrize("target, words", [
    ({}, ["--uncommitted"]), ({"base": "main"}, ["--base=main"]), ({"commit": "HEAD"}, ["--commit=HEAD"]),
])
def test_a_review_reads_only_and_names_what_it_looks_at(swarm, repo, target, words):
    record = review(swarm(), effort="low", **target)
    seen = json.loads(record["content"])["argv"]
    assert seen[:3] == ["exec", "--sandbox=read-only", "review"] and seen[-1:] == words
    assert "usage" not in record                    # codex counts nothing of a review


def test_a_commit_can_be_reviewed_where_git_has_no_files(swarm, repo, tmp_path):
    sh(repo, "git", "clone", "-q", "--bare", ".", str(tmp_path / "bare" / ".git"))
    app = swarm(skip_git_repo_check=True)
    for cwd in tmp_path / "bare", tmp_path / "bare" / ".git", repo / ".git":
        assert review(app, commit="HEAD", cwd=str(cwd))["outcome"] == "succeeded"


def test_own_instructions_of_a_review_go_by_stdin(swarm):
    record = review(swarm(), instructions="ARGV\nlook at the locks")
    assert json.loads(record["content"])["argv"][-1] == "-"
    assert json.loads(record["content"])["prompt_chars"] == len("ARGV\nlook at the locks")


@pytest.mark.parametrize("target", [{"base": "nowhere"}, {"commit": "0" * 40}, {"base": "--output=x"}])
def test_a_review_of_a_ref_that_is_none_is_refused_since_codex_would_succeed(swarm, root, target):
    with pytest.raises(ToolError, match="`%s`" % list(target)[0]):
        review(swarm(), **target)
    assert not list((root / "tasks").glob("*"))


def test_a_review_has_one_target(swarm):
    with pytest.raises(ToolError, match="`base` and `commit` exclude each other"):
        review(swarm(), base="main", commit="HEAD")


def test_the_work_of_a_task_is_reviewed_where_it_was_done_and_nothing_is_committed_there(swarm):
    app = swarm()
    task = run(app, "WRITE a.txt one", worktree=True)
    record = review(app, task_id=task["task_id"])
    seen = json.loads(record["content"])
    assert seen["cwd"] == task["worktree"]["path"]
    assert seen["argv"][-1] == "--base=%s" % task["worktree"]["base"]
    assert "worktree" not in record and record["title"] == "Review of task %s" % task["task_id"]
    with pytest.raises(ToolError, match="It had none"):
        review(app, task_id=record["task_id"])


def test_findings_are_read_from_the_text_that_codex_makes_of_them():
    text = "because\n\nFull review comments:\n\n- [P1] Bug — late — /a b/f.txt:1-2\n  Explain\n\n" \
           "  more\n\n- No priority — /x:3-3\n  y"
    assert cms.comments_in(text) == [cms.Comment("Bug — late", "/a b/f.txt", [1, 2], "Explain\n\nmore", 1),
                                     cms.Comment("No priority", "/x", [3, 3], "y", None)]
    assert cms.comments_in("- no finding: 3-4\n  — /x") == []


# -- events -------------------------------------------------------------------------------------------
def events(app, task_id, **arguments):
    return cms.codex_events(app, {"task_id": task_id, **arguments}, cms.Call()).data


def test_events_come_in_order_once_and_whole_however_they_are_asked_for(swarm):
    app = swarm()
    task_id = run(app, *["TELL %d" % i for i in range(30)])["task_id"]
    whole = events(app, task_id, limit=1000)
    assert whole["ended"] and [e["type"] for e in whole["events"]][:2] == ["thread.started", "turn.started"]
    pieces, cursor = [], 0
    while not pieces or pieces[-1]["events"]:
        pieces.append(events(swarm(), task_id, cursor=cursor, limit=7))
        cursor = pieces[-1]["next_cursor"]
    assert [e for piece in pieces for e in piece["events"]] == whole["events"]
    assert cursor == whole["next_cursor"] and [p["ended"] for p in pieces[:2]] == [False, False]


def test_events_are_chosen_by_the_type_of_the_event_or_of_its_item(swarm):
    app = swarm()
    task_id = run(app, "TELL a", "SAY b")["task_id"]
    chosen = events(app, task_id, types=["agent_message", "turn.completed"])
    assert [e["type"] for e in chosen["events"]] == ["item.completed", "item.completed", "turn.completed"]
    assert chosen["ended"]


def test_a_running_task_tells_what_is_new_and_no_half_line(swarm, tmp_path):
    app = swarm()
    task = begin(app, "TELL first", "WAITFILE %s" % (tmp_path / "gate"), "SAY last")
    eventually(lambda: len(events(app, task.task_id)["events"]) >= 3)
    first = events(app, task.task_id)
    with open(task.file("events.jsonl"), "ab") as f:
        f.write(b'{"type": "half')
    assert events(app, task.task_id, cursor=first["next_cursor"]) == {
        "task_id": task.task_id, "events": [], "next_cursor": first["next_cursor"], "ended": False}


def test_the_events_end_before_a_half_line_that_codex_was_killed_in(swarm):
    app = swarm()
    task = app.store.get(run(app, "SAY x")["task_id"])
    with open(task.file("events.jsonl"), "ab") as f:
        f.write(b'{"type": "half')
    assert events(app, task.task_id)["ended"]


def test_a_private_key_whose_begin_is_cut_away_is_not_shown(swarm):
    app = swarm()
    task = app.store.get(run(app, "SAY x")["task_id"])
    key = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----" % ("MIIE" * 900)
    with open(task.file("events.jsonl"), "ab") as f:
        f.write(json.dumps({"type": "item.completed", "text": "x" * 3000 + key}).encode() + b"\n")
    assert "MIIE" not in events(app, task.task_id)["events"][-1]["text"]


@pytest.mark.parametrize("cursor", [1, 10 ** 12])
def test_a_cursor_that_is_none_is_refused(swarm, cursor):
    app = swarm()
    task_id = run(app, "SAY x")["task_id"]
    with pytest.raises(ToolError, match="`cursor`: no event of this task begins at %d" % cursor):
        events(app, task_id, cursor=cursor)


def test_events_are_cut_unless_they_are_asked_for_whole_and_secrets_are_masked(swarm):
    app = swarm()
    long = "x" * 5000
    task_id = run(app, "TELL %s" % long, "TELL token=sk-abcdefghijklmnop0123")["task_id"]
    told = lambda **how: events(app, task_id, types=["agent_message"], **how)["events"]
    texts = lambda **how: [event["item"]["text"] for event in told(**how)]
    assert len(texts()[0]) <= 500 and "characters cut here" in texts()[0]
    assert texts(max_chars=0)[0] == long
    assert "abcdefgh" not in str(texts(max_chars=0))


def test_what_is_asked_for_whole_comes_whole_or_on_the_next_page(swarm):
    app = swarm()
    texts = [letter * 15_000 for letter in "abcd"]
    task_id = run(app, *["TELL " + text for text in texts])["task_id"]
    told, cursor, ended_at_last = [], 0, False
    while not ended_at_last:
        page = events(app, task_id, cursor=cursor, types=["agent_message"], max_chars=0)
        told += [event["item"]["text"] for event in page["events"]]
        cursor, ended_at_last = page["next_cursor"], page["ended"]
    assert told[:4] == texts


def test_lines_that_are_no_events_are_named_and_counted(swarm, monkeypatch):
    app = swarm()
    task = begin(app, "SAY x")
    ended(app, [task.task_id])
    with open(task.file("events.jsonl"), "ab") as f:
        f.write(b"no json\n[1]\n" + b"y" * 3000 + b"\n")
    monkeypatch.setattr(cms, "MAX_LINE_BYTES", 1000)
    found = events(app, task.task_id, types=["unreadable"])
    assert [e["bytes"] for e in found["events"]] == [8, 4, 3001] and found["ended"]


# -- a call made twice --------------------------------------------------------------------------------
def called(app, tool, request_id, **arguments):
    """The ids of what a call started, as the protocol hands it on."""
    answer = cms.TOOLS[tool].called(app, {**arguments, "client_request_id": request_id}, cms.Call())
    return list(answer.task_ids) if isinstance(answer, cms.Wait) else [answer.data["task_id"]]


def test_the_same_call_under_the_same_id_gives_the_same_task_on_any_server(swarm, root):
    first = called(swarm(), "codex_async", "night-1", prompt="SAY x")
    assert called(swarm(), "codex_async", "night-1", prompt="SAY x") == first
    ended(swarm(), first)
    assert called(swarm(), "codex_async", "night-1", prompt="SAY x") == first
    assert called(swarm(), "codex_async", "night-2", prompt="SAY x") != first
    assert len(list((root / "tasks").glob("[0-9a-f]*"))) == 2


def test_the_same_call_from_another_directory_is_another_call(swarm, repo, monkeypatch):
    first = called(swarm(), "codex_async", "night-1", prompt="SAY x")
    (repo / "part").mkdir()
    monkeypatch.chdir(repo / "part")
    with pytest.raises(ToolError, match="stands for another call"):
        called(swarm(), "codex_async", "night-1", prompt="SAY x")
    assert called(swarm(), "codex_async", "night-2", prompt="SAY x") != first


def test_another_call_under_the_same_id_is_refused(swarm):
    app = swarm()
    [first] = called(app, "codex", "night-1", prompt="SAY x")
    with pytest.raises(ToolError, match='"night-1" stands for another call. That one started %s' % first):
        called(app, "codex", "night-1", prompt="SAY y")


def test_a_batch_made_twice_at_once_runs_once(swarm, root):
    found, batch = [], [{"prompt": "SAY %d" % i} for i in range(4)]
    threads = [threading.Thread(target=lambda: found.append(called(swarm(), "codex_batch", "b", tasks=batch)))
               for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(found) == 6 and len({tuple(ids) for ids in found}) == 1
    assert len(list((root / "tasks").glob("[0-9a-f]*"))) == 4
    ended(swarm(), found[0])


def test_a_call_that_never_started_its_tasks_starts_them_when_it_is_made_again(swarm, root, monkeypatch):
    app = swarm()
    monkeypatch.setattr(app.starter, "_begin_all", lambda births, call: os._exit(9))
    pid = os.fork()
    if not pid:
        called(app, "codex_async", "night-1", prompt="SAY x")
    assert os.waitpid(pid, 0)[1] == 9 << 8 and list((root / "requests").glob("*"))
    record = ended(swarm(), called(swarm(), "codex_async", "night-1", prompt="SAY x"))[0]
    assert record["content"] == "x"


def test_a_call_whose_launch_was_undone_starts_all_its_tasks_when_it_is_made_again(swarm, monkeypatch):
    app, batch = swarm(), [{"prompt": "SAY %d" % i} for i in range(3)]
    launch, launched = app.host.launch_supervisor, []

    def full(*args):
        launched.append(args)
        if len(launched) == 2:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return launch(*args)
    monkeypatch.setattr(app.host, "launch_supervisor", full)
    with pytest.raises(ToolError, match=r"Cannot allocate memory\. Some had started"):
        called(app, "codex_batch", "night-1", tasks=batch)
    ids = called(app, "codex_batch", "night-1", tasks=batch)
    assert [record["content"] for record in ended(app, ids)] == ["0", "1", "2"]


def test_a_call_of_whose_tasks_a_part_is_missing_is_refused_with_those_that_are_there(swarm, monkeypatch):
    app, batch = swarm(), [{"prompt": "SAY %d" % i} for i in range(3)]
    run = app.starter._run

    def killed(birth):
        if birth.plan.prompt == "SAY 1":
            os._exit(9)
        run(birth)
    monkeypatch.setattr(app.starter, "_run", killed)
    pid = os.fork()
    if not pid:
        called(app, "codex_batch", "night-1", tasks=batch)
    assert os.waitpid(pid, 0)[1] == 9 << 8
    [first] = swarm().store.ids()
    with pytest.raises(ToolError) as caught:
        called(swarm(), "codex_batch", "night-1", tasks=batch)
    assert 'Of the 3 tasks of `client_request_id` "night-1" only 1 are there' in str(caught.value)
    assert first in str(caught.value) and swarm().store.ids() == [first]
    ended(swarm(), [first])


def test_the_note_of_a_call_goes_with_the_sweep_when_answers_do(swarm, root):
    app = swarm()
    ended(app, called(app, "codex_async", "night-1", prompt="SAY x"))
    notes = list((root / "requests").iterdir())
    list(app.sweep())
    assert sorted(notes) == sorted((root / "requests").iterdir())
    for note in notes:
        os.utime(str(note), (1, 1))
    list(app.sweep())
    assert not list((root / "requests").iterdir())


def test_a_start_reads_no_events_of_what_runs(swarm, tmp_path):
    first, opened = begin(swarm(), "WAITFILE %s" % (tmp_path / "gate")), []
    events, app = first.file("events.jsonl"), swarm()
    eventually(lambda: os.path.exists(events) and os.path.getsize(events), what="its first event")

    def note(event, args):
        if event == "open" and os.path.dirname(str(args[0])) == first.path:
            opened.append(args[0])
    with auditing(note):
        second = begin(app, "WAITFILE %s" % (tmp_path / "gate"))
    (tmp_path / "gate").touch()
    assert ended(app, [second.task_id])[0]["warnings"] and first.file("spec.json") in opened
    assert events not in opened


def test_the_same_prompt_in_the_same_place_is_told_while_it_runs(swarm, tmp_path):
    app, prompt = swarm(), "WAITFILE %s" % (tmp_path / "gate")
    first = begin(app, prompt)
    second = begin(app, prompt)
    other = begin(app, prompt + "\nSAY other")
    (tmp_path / "gate").touch()
    records = ended(app, [first.task_id, second.task_id, other.task_id])
    twins = [record.get("warnings", []) for record in records]
    assert twins[0] == twins[2] == []
    assert twins[1] == ["Task %s runs already with the same prompt, in the same place" % first.task_id]


@pytest.mark.parametrize("wrong", [{"images": ["/nope.png"]}, {"cwd": "/nope"}, {"add_dirs": ["a\0b"]},
                                   {"fork": True}])
def test_an_interrupt_that_is_refused_has_stopped_nothing(swarm, tmp_path, wrong):
    app = swarm()
    thread = run(app, "SAY x")["threadId"]
    busy = begin(app, "WAITFILE %s" % (tmp_path / "gate"), threadId=thread)
    with pytest.raises(ToolError):
        app.start([{"prompt": "y", "threadId": thread, "interrupt": True, **wrong}])
    assert not (app.store.get(busy.task_id).status().state is cms.State.STOPPING)
    (tmp_path / "gate").touch()
    assert ended(app, [busy.task_id])[0]["outcome"] == "succeeded"


def test_an_event_that_cannot_be_shown_is_named_and_passed(swarm):
    app = swarm()
    task = begin(app, "SAY x")
    ended(app, [task.task_id])
    deep = "[" * 5000 + "]" * 5000              # which some versions of Python read and others do not
    changes = ["/home/me/%060d" % i for i in range(2000)]
    for line in ('{"type": ["x"]}', '{"type": "nan", "x": NaN}', '{"type": "deep", "x": %s}' % deep,
                 json.dumps({"type": "many", "item": {"type": "file_change", "changes": changes}})):
        with open(task.file("events.jsonl"), "a") as f:
            f.write(line + "\n")
    found = events(app, task.task_id, limit=100)
    assert found["ended"] and len(cms.compact(found)) < 40_000
    nan, deep, many = found["events"][-3:]
    assert nan == {"type": "nan", "left_out": many["left_out"]}
    assert deep == {**nan, "type": "deep"} or deep["type"] == "unreadable"
    assert many["item"] == {"type": "file_change"} and "changes" not in many


def test_values_under_secret_names_are_masked_in_events(swarm):
    app = swarm()
    task = begin(app, "SAY x")
    ended(app, [task.task_id])
    with open(task.file("events.jsonl"), "a") as f:
        f.write('{"type": "call", "arguments": {"password": "hunter2", "max_tokens": 5, "path": "/x"}}\n')
    call = events(app, task.task_id, types=["call"])["events"][0]
    assert call["arguments"] == {"password": "***", "max_tokens": 5, "path": "/x"}


@pytest.mark.parametrize("cut", [0, 1, 20], ids=["to nothing", "by a line end", "in a line"])
def test_what_a_full_disk_or_a_power_failure_cut_off_the_index_of_ends_is_found_again(swarm, root, cut):
    app = swarm()
    ids = {run(app, "SAY %d" % i)["task_id"] for i in range(3)}
    app.live()
    index = root / "ended"
    index.write_bytes(index.read_bytes()[:-cut] if cut else b"")
    listed = cms.codex_status(swarm(), {"all": True}, cms.Call()).data["tasks"]
    assert {record["task_id"] for record in listed} == ids
