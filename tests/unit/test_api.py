"""The Python API as a program uses it: `with Swarm() as swarm: swarm.run([...])`."""
import pathlib
import re
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms
from conftest import FAKE_CODEX, eventually, git

PAGE = pathlib.Path(cms.__file__).parent / "docs" / "how-it-works.md"
WAIT_S = 60


@pytest.fixture(autouse=True)
def codex_on_the_path(fake, tmp_path, monkeypatch):
    """This process is a program whose `codex` is the stand-in; of the variables of a server it has one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(FAKE_CODEX)
    del fake["CODEX_SWARM_CODEX_BIN"]
    for name, value in dict(fake, PATH="%s:%s" % (tmp_path / "bin", fake["PATH"])).items():
        monkeypatch.setenv(name, value)


def test_the_example_of_the_page_runs_as_it_stands(repo, root):
    [example] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    place = "import sys; sys.path.insert(0, %r)\n" % str(PAGE.parent.parent)
    done = subprocess.run([sys.executable, "-c", place + example], cwd=str(repo), timeout=WAIT_S,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert [line.split()[1] for line in lines[::2]] == ["succeeded"] * 2
    assert all(line.startswith("echo: Add --") for line in lines[1::2])
    branches = git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/codex-swarm").split()
    assert sorted(line.split()[2] for line in lines[::2]) == sorted(branches)
    assert len(list((root / "tasks").iterdir())) == 2, "they are kept where a server keeps them"


def test_records_come_in_the_order_of_the_requests_and_a_thread_goes_on(repo):
    with cms.Swarm() as swarm:
        first, second = swarm.run({"prompt": "SAY %s" % word, "cwd": str(repo)} for word in ("one", "two"))
        [reply] = swarm.run([{"prompt": "RECALL", "task_id": first["task_id"]}])
    assert (first["content"], second["content"]) == ("one", "two")
    assert "SAY one" in reply["content"] and reply["threadId"] == first["threadId"]


@pytest.mark.parametrize("wrong", [{"cwd": "."}, {"prompt": "x", "worktre": True}, {"prompt": 1}])
def test_a_wrong_request_is_named_and_nothing_is_started(root, wrong):
    with pytest.raises(cms.SwarmError) as caught:
        cms.Swarm().run([{"prompt": "SAY x"}, wrong])
    assert "requests[1]" in str(caught.value) and not list(root.glob("tasks/*"))


def test_after_timeout_s_the_record_says_what_still_runs_and_leaving_the_block_stops_nothing(gate, repo):
    with cms.Swarm() as swarm:
        [record] = swarm.run([{"prompt": gate.wait, "cwd": str(repo)}], timeout_s=0.1)
    assert record["state"] != "ended" and "outcome" not in record
    gate.open()
    eventually(lambda: swarm.record(record["task_id"]).get("outcome") == "succeeded", timeout=WAIT_S,
               what="the end of the task")


def test_a_block_that_ends_by_an_exception_stops_what_was_started_in_it(gate, repo):
    swarm = cms.Swarm()
    [before] = swarm.start([{"prompt": gate.wait, "cwd": str(repo)}])
    with pytest.raises(KeyboardInterrupt):
        with swarm:
            request = {"prompt": "WRITE new 1\n" + gate.wait, "cwd": str(repo), "worktree": True}
            [inside] = swarm.start([request])
            eventually(lambda: swarm.record(inside).get("progress", {}).get("last_file"), timeout=WAIT_S,
                       what="the edit of the task")
            raise KeyboardInterrupt
    record = swarm.record(inside)
    assert (record["outcome"], record["worktree"]["files_changed"]) == ("cancelled", 1)
    assert swarm.record(before)["state"] != "ended"
