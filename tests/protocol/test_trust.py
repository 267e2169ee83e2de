"""What others may have put into the task directory, beside the program or into an answer does no harm."""
import importlib.util
import marshal
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import pytest

from client import LEGACY_REVISIONS, Client, text_of
from conftest import SERVER, git

RECORDS = ["spec.json", "status.json", "report.json", "events.jsonl", "stderr.log", "lock", "collected",
           "supervisor.log"]


def link(path):
    (path.parent / "elsewhere").write_text("{}")
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [os.mkfifo, link], ids=["a FIFO", "a link"])
def test_what_is_no_file_in_the_place_of_a_record_hangs_nobody(client, root, put, tmp_path, gate):
    bad = {}                                # task -> what of it is no file
    c = client()
    for task, names in zip(c.ok("codex_batch", tasks=[{"prompt": "x"}] * (len(RECORDS) + 1))["tasks"],
                           [[name] for name in RECORDS] + [RECORDS]):
        bad[task["task_id"]] = names
    good = c.ok("codex", prompt="SAY good")["task_id"]
    for task, names in bad.items():
        for path in (root / "tasks" / task / name for name in names):
            if path.exists():
                path.unlink()
            put(path)
    c = client(env={"CODEX_SWARM_LOG": str(tmp_path / "log")})      # one that has read nothing yet
    assert {r["task_id"] for r in c.ok("codex_status", task_ids=[*bad, good])["tasks"]} == {*bad, good}
    assert c.ok("codex_status")["tasks"] == []
    assert c.ok("codex_wait", task_ids=[good])["tasks"][0]["content"] == "good"
    assert len(c.call("codex_wait", {"task_ids": list(bad)})["structuredContent"]["tasks"]) == len(bad)
    for task in bad:
        for tool, arguments in [("codex_diff", {"task_id": task}), ("codex_cancel", {"task_ids": [task]}),
                                ("codex_reply", {"task_id": task, "prompt": "x"})]:
            # whatever it says, it answers, and not with an error of the protocol
            c.call(tool, arguments)
        for uri in ("tasks/" + task, "tasks/%s/events" % task):
            assert c.request("resources/read",
                             {"uri": "codex-swarm:///" + uri}).get("error", {}).get("code") != -32603
    assert c.ok("codex", prompt="SAY new")["content"] == "new"
    running = c.begin(gate.wait)
    (root / "tasks" / running / "spec.json").unlink()
    put(root / "tasks" / running / "spec.json")
    told = c.refused("codex_reply", {"task_id": running, "prompt": "x"})
    assert "Task %s cannot be continued" % running in told
    assert "damaged" in told
    assert str(root / "tasks" / running) in told


def test_a_fifo_in_the_place_of_what_was_promised_to_a_client_hangs_nobody(modern, root):
    c = modern(tasks=True)
    handle, other = [c.handle("codex", prompt="SAY x")["taskId"] for _ in range(2)]
    for ident in (handle, other):
        c.get_end(ident)
    for name in (handle + ".json", other + ".end.json"):
        (root / "handles" / name).unlink()
        os.mkfifo(str(root / "handles" / name))
    c = modern(tasks=True)
    answer = c.result(c.start("tasks/get", {"taskId": handle}))
    assert "Unknown taskId" in answer["error"]["message"]
    assert c.get(other)["status"] == "completed"


# -- planted code ------------------------------------------------------------------------------------
EVIL = "import os, sys\nopen(%r, 'w').close()\nos._exit(0)\n"


def plant(program, cache, marker):
    """Bytecode that Python takes for that of `program`, wherever a supervisor might look for it."""
    about = os.stat(str(program))
    data = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(about.st_mtime),
                                                     about.st_size) + marshal.dumps(
        compile(EVIL % str(marker), str(program), "exec"))
    name = "codex_mcp_swarm.%s.pyc" % sys.implementation.cache_tag
    for directory in (program.parent / "__pycache__", cache, pathlib.Path(str(cache) + str(program.parent))):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


@pytest.mark.parametrize("beside", [False, True], ids=["in the task directory", "beside the program as well"])
def test_planted_bytecode_never_runs(fake, repo, root, tmp_path, beside):
    program, marker = tmp_path / "program" / "codex_mcp_swarm.py", tmp_path / "evil"
    program.parent.mkdir()
    shutil.copy(str(SERVER), str(program))
    root.mkdir(mode=0o700)
    plant(program, root / "cache", marker)
    if not beside:
        shutil.rmtree(str(program.parent / "__pycache__"))
    with Client([sys.executable, str(program)], env=fake, cwd=str(repo)) as c:
        c.initialize()
        assert c.ok("codex", prompt="SAY done")["content"] == "done"
        program.unlink()                    # and what was updated or removed meanwhile is nobody's problem
        assert c.ok("codex", prompt="SAY done")["content"] == "done"
    assert not marker.exists()


def test_a_module_that_a_task_puts_where_the_server_works_is_never_imported(fake, repo, tmp_path):
    marker, env = tmp_path / "evil", dict(fake, PYTHONPATH=str(SERVER.parent))
    with Client([sys.executable, "-m", "codex_mcp_swarm"], env=env, cwd=str(repo)) as c:
        c.initialize()
        for name in ("ctypes", "glob", "hashlib", "logging", "shutil", "subprocess", "tempfile"):
            (repo / (name + ".py")).write_text(EVIL % str(marker))
        task = c.begin("WRITE made x", "SAY done", worktree=True)
        assert c.collect(task)[0]["content"] == "done"
        c.ok("codex_diff", task_id=task)
    assert not marker.exists()


# -- control characters ------------------------------------------------------------------------------
CONTROLS = "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), *range(127, 160)]))
SHOWN = "".join("\\x%02x" % ord(c) for c in CONTROLS)


def controls(text):
    return sorted({c for c in text if c in CONTROLS or c == "\0"})


@pytest.mark.parametrize("version", LEGACY_REVISIONS)
def test_control_characters_are_shown_in_text_and_kept_in_data(client, version):
    c = client(version=version)
    answer = c.call("codex", {"prompt": "SAY a%sb\tc" % CONTROLS}, progress_token="p")
    assert "a%sb\tc" % SHOWN in text_of(answer) and controls(text_of(answer)) == []
    if "structuredContent" in answer:
        assert answer["structuredContent"]["content"] == "a%sb\tc" % CONTROLS


def test_control_characters_are_shown_in_errors_and_resources(client):
    c = client()
    assert "/no\\x1b[31m/such" in c.refused("codex", {"prompt": "x", "cwd": "/no\x1b[31m/such"})
    failed = c.call("codex", {"prompt": "FAIL red \x1b[31m \x9b31m"})
    assert controls(text_of(failed)) == [] and "red \\x1b[31m \\x9b31m" in text_of(failed)
    [resource] = c.request("resources/read",
                           {"uri": "codex-swarm:///tasks/"
                            + failed["structuredContent"]["task_id"]})["result"]["contents"]
    assert controls(resource["text"]) == [] and "red \\u001b[31m \\u009b31m" in resource["text"]


def test_the_command_line_shows_control_characters(fake, root, client):
    client().ok("codex", prompt="x", worktree=True)
    (root / "worktrees" / "odd\x1b[31m").mkdir()
    done = subprocess.run([sys.executable, str(SERVER), "sweep"], env=fake, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert b"odd\\x1b[31m" in done.stdout and b"\x1b" not in done.stdout


# -- planted configuration of git --------------------------------------------------------------------
IDENTITY = "git -c user.name=a -c user.email=a@b.invalid"


@pytest.fixture
def nested(repo, tmp_path):
    """`sub`, a repository that a task makes below its directory; and what plants `key` into its
    configuration."""
    evil = tmp_path / "evil.sh"
    evil.write_text("#!/bin/sh\ntouch '%s'\ncat\n" % (tmp_path / "ran"))
    evil.chmod(0o755)
    (tmp_path / "more").write_text("[filter \"x\"]\n\tclean = %s\n\tsmudge = %s\n" % (evil, evil))
    make = ("SHELL git init -q sub; cd sub; echo '* filter=x merge=x' > .gitattributes; echo 1 > f; "
            "git add .; %s commit -qm x" % IDENTITY)

    def plant(key, value=evil):
        return "SHELL cd sub; git config %s '%s'; touch -d 2001-01-01 f; rm -f .git/index" % (key, value)
    return make, plant, repo / "sub"


@pytest.mark.parametrize("key, value", [
    ("filter.x.clean", ""), ("filter.x.process", ""), ("merge.x.driver", ""), ("include.path", "more"),
    ("remote.origin.uploadpack", "")])
def test_what_a_task_wrote_into_the_configuration_of_a_repository_is_not_obeyed(
        client, nested, tmp_path, key, value):
    make, plant, sub = nested
    c, value = client(), str(tmp_path / "more") if value == "more" else value or str(tmp_path / "evil.sh")
    c.ok("codex", prompt=make)
    inside = c.ok("codex", prompt="WRITE g 1", cwd=str(sub))["task_id"]
    before = c.ok("codex", prompt="WRITE h 1", cwd=str(sub), worktree=True)["task_id"]
    c.ok("codex", prompt=plant(key, value))
    for tool, arguments in [("codex", {"prompt": "x", "cwd": str(sub), "worktree": True}),
                            ("codex_diff", {"task_id": inside}),
                            ("codex",
                             {"prompt": "x", "cwd": str(sub), "worktree": {"include_changes": True}}),
                            ("codex_merge", {"task_ids": [before]}),
                            ("codex_merge", {"task_ids": [before], "into": "HEAD"}),
                            ("codex_reply", {"prompt": "x", "task_id": before}),
                            ("codex_reply", {"prompt": "x", "task_id": before, "update_from": "HEAD"})]:
        text = c.refused(tool, arguments)
        assert str(
            sub) in text and "`%s`" % key in text and "git config --global" in text, (tool, arguments, text)
    assert not (tmp_path / "ran").exists()


def test_a_repository_below_the_directory_of_a_task_is_used_while_its_configuration_is_plain(
        client, nested, tmp_path, fake):
    make, plant, sub = nested
    c = client()
    c.ok("codex", prompt=make)
    git(sub, "config", "remote.origin.url", "https://example.invalid/x")
    git(sub, "config", "core.hooksPath", ".husky")      # which is never obeyed
    git(sub, "config", "--file", os.path.join(fake["HOME"], ".gitconfig"), "filter.x.smudge",
        str(tmp_path / "evil.sh"))
    task_id = c.ok("codex", prompt="WRITE h 1", cwd=str(sub), worktree=True)["task_id"]
    assert (tmp_path / "ran").exists()                  # the user's own configuration is obeyed
    assert c.ok("codex_merge", task_ids=[task_id], into="HEAD")["merged"] == [task_id]
    assert (sub / "h").exists()


def test_the_configuration_of_a_repository_in_which_a_task_cannot_write_is_obeyed(client, repo, tmp_path):
    git(repo, "config", "filter.x.clean", "touch '%s'; cat" % (tmp_path / "ran"))
    (repo / ".gitattributes").write_text("* filter=x\n")
    c = client()
    # Codex keeps `.git` at its top from it
    task_id = c.ok("codex", prompt="WRITE h 1", cwd=str(repo))["task_id"]
    assert c.ok("codex_diff", task_id=task_id)["files_changed"] == 2 and (tmp_path / "ran").exists()
    c.ok("codex", prompt="WRITE h 1", cwd=str(repo), worktree=True)


def test_a_directory_that_passes_for_a_bare_repository_is_not_obeyed(client, nested, repo, tmp_path):
    make, plant, sub = nested
    c = client()
    c.ok("codex", prompt=make)
    c.ok("codex",
         prompt="SHELL mv sub bare; cd bare; mv .git/* .; rmdir .git; "
                "git --git-dir=. config core.bare false; "
                         "git --git-dir=. config core.worktree .; git --git-dir=. config filter.x.clean %s"
         % (tmp_path / "evil.sh"))
    text = c.refused("codex",
                     {"prompt": "x", "cwd": str(repo / "bare"), "worktree": {"include_changes": True}})
    assert "`core.worktree`" in text and not (tmp_path / "ran").exists()


def test_a_sweep_does_not_obey_what_a_task_wrote_into_the_configuration_either(
        client, nested, tmp_path, fake):
    make, plant, sub = nested
    c = client()
    c.ok("codex", prompt=make)
    place = c.ok("codex", prompt="WRITE h 1", cwd=str(sub), worktree=True)["worktree"]["path"]
    c.ok("codex", prompt=plant("filter.x.clean"))
    os.utime(os.path.join(place, "f"), (1, 1))          # so that git reads it
    done = subprocess.run([sys.executable, str(SERVER), "sweep"],
                          env=dict(fake, CODEX_SWARM_TASK_MAX_AGE="0.000001"), stdout=subprocess.PIPE,
                          check=True)
    assert not (tmp_path / "ran").exists()
    assert b"filter.x.clean" in done.stdout and os.path.isdir(place), done.stdout
