"""codex_diff as a client sees it."""
import contextlib
import os

import pytest

from client import eventually, text_of


@pytest.fixture
def done(client, repo):
    """A client, and a task that wrote a long file and a short one."""
    c = client()
    return c, c.ok("codex",
                   prompt="SHELL i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done > long; "
                          "echo 1 > short", worktree=True)["task_id"]


def test_the_stat_is_what_one_gets_without_asking_for_more(done):
    c, task_id = done
    data = c.ok("codex_diff", task_id=task_id)
    assert data["view"] == "stat"
    assert [line.split()
            for line in data["content"].splitlines()] == [["+3000", "-0", "long"], ["+1", "-0", "short"]]


@pytest.mark.parametrize("max_chars", [None, 7000])
def test_the_pages_of_a_long_patch_make_the_whole(done, repo, max_chars):
    c, task_id = done
    arguments, pages, offset = {"task_id": task_id, "view": "patch",
                                **({"max_chars": max_chars} if max_chars else {})}, [], 0
    while offset is not None:
        data = c.ok("codex_diff", offset=offset, **arguments)
        pages.append(data["content"])
        offset = data.get("truncated", {}).get("next_offset")
        assert offset is None or "codex_diff" in data["truncated"]["how"]
    assert len(pages) > 1 and "".join(pages).count("\n+line ") == 3000 and "+++ b/short" in pages[-1]


def test_the_text_says_the_same(client):
    c = client(version="2025-03-26")
    task_id = text_of(c.call("codex", {"prompt": "WRITE x 1", "worktree": True})).split()[1]
    text = text_of(c.call("codex_diff", {"task_id": task_id, "view": "files"}))
    assert "+1 -0 1 file, since" in text and "A x" in text


@pytest.mark.parametrize("arguments, words", [
    ({"task_id": "0" * 12}, ["no task"]), ({"task_id": "x"}, ["no task `x`"]), ({}, ["task_id", "required"]),
    ({"task_id": "0" * 12, "view": "html"}, ["view", "stat"])])
def test_a_wrong_argument_is_refused_in_words(client, arguments, words):
    text = client().refused("codex_diff", arguments)
    assert [w for w in words if w not in text] == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc tells who works where")
def test_a_git_that_waits_for_a_pipe_in_a_worktree_does_not_outlive_the_server(client, gate):
    def there():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, "rb") as f:
                found += [pid] * (f.read(4) == b"git\0" and os.readlink("/proc/%s/cwd" % pid) == top)
        return found

    c = client()
    task_id = c.begin("SHELL mkdir d; mkfifo d/.gitignore", gate.wait, worktree=True)
    top = c.status(task_id)["worktree"]["path"]
    pipe = os.path.join(top, "d", ".gitignore")
    eventually(lambda: os.path.exists(pipe), what="the pipe")
    c.start_call("codex_diff", {"task_id": task_id})
    eventually(there, what="a git that waits")
    assert c.close() == 0
    os.unlink(pipe)
    eventually(lambda: not there(), what="its end")
    gate.open()
