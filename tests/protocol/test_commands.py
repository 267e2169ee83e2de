"""The commands, as a person types them: what they print where, and how they end."""
import contextlib
import json
import os
import pty
import re
import select
import shlex
import subprocess
import time

import pytest

import codex_mcp_swarm as cms
from client import eventually
from conftest import NO_TMP, command, finished, git, is_supervised, new_repository

LIMIT_S = 60


@pytest.fixture
def typed(fake, repo):
    """`typed(*words, stdin="", env={}, cwd=repo)`: the finished process, its output as text."""
    def run(*words, stdin="", env=None, cwd=None):
        done = finished(words, dict(fake, **(env or {})), cwd or repo, stdin.encode())
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in done.stderr, done.stderr
        return done
    return run


@pytest.fixture
def ended(typed):
    """The ids of two tasks that have ended, the second one failed."""
    ids = []
    for prompt in ("SAY one\x1b[31m", "FAIL no luck"):
        ids += typed("run", "-d", prompt).stdout.split()
        assert typed("wait", ids[-1]).returncode == len(ids) - 1
    return ids


@pytest.fixture
def terminal(fake, repo):
    """`terminal(*words)`: a command on a terminal of its own, as `Screen`."""
    screens = []

    def start(*words, **env):
        screens.append(Screen(words, dict(fake, TERM="xterm", **env), repo))
        return screens[-1]
    yield start
    for screen in screens:
        screen.child.kill()
        screen.child.wait()
        os.close(screen.ours)


class Screen:
    """A command whose standard streams are a terminal; `text` is what it has written so far."""

    def __init__(self, words, env, cwd):
        self.ours, theirs = pty.openpty()
        self.child = subprocess.Popen(command(*words), env=env, cwd=str(cwd), stdin=theirs, stdout=theirs,
                                      stderr=theirs, preexec_fn=self.own_the_terminal)
        os.close(theirs)
        self.text = ""

    @staticmethod
    def own_the_terminal():
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))

    def type(self, keys):
        os.write(self.ours, keys)

    def sees(self, text):
        def look():
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode("utf-8", "replace")
            return text in self.text
        eventually(look)

    def end(self):
        """Its exit status, once it has written all."""
        limit = time.monotonic() + LIMIT_S
        while time.monotonic() < limit:
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.ours, 65536).decode()
                except OSError:                             # Linux: nobody has the other end open any more
                    break
            elif self.child.poll() is not None:
                break
        return self.child.wait(LIMIT_S)


def until_one_runs(typed):
    eventually(lambda: "running" in typed("ls").stdout, what="a running task")


def record(typed, task_id):
    return json.loads(typed("show", "--json", task_id).stdout)["tasks"][0]


@pytest.mark.parametrize("name", cms.COMMANDS)
def test_the_help_of_a_command_is_about_it_alone(typed, name):
    done = typed(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: codex-mcp-swarm %s " % name)
    assert "CODEX_SWARM_TASK_DIR" not in done.stdout
    said = lambda text: " ".join(text.split())
    assert said(cms.COMMANDS[name].more) in said(done.stdout)


def test_an_unknown_command_suggests_the_nearest(typed):
    for words, meant in ((["lss"], "ls"), (["ps"], "ls"), (["kill"], "stop"), (["help", "kill"], "stop")):
        done = typed(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "did you mean `%s`?" % meant in done.stderr
    assert "it is the server without any" in typed("serve").stderr


def test_help_is_a_command_as_well(typed):
    for words, same in (([], ["--help"]), (["run"], ["run", "--help"])):
        done = typed("help", *words)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout == typed(*same).stdout


def test_what_has_ended_is_listed_newest_first_and_what_runs_alone_without_all(typed, ended, gate):
    running = typed("run", "-d", gate.wait).stdout.strip()
    until_one_runs(typed)
    assert [line.split()[:2] for line in typed("ls").stdout.splitlines()] == [[running, "running"]]
    lines = typed("ls", "--all").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[running, "running"], [ended[1], "failed"],
                                                    [ended[0], "succeeded"]]
    assert "no luck" in lines[1] and not any("\x1b" in line for line in lines)
    data = json.loads(typed("ls", "--all", "--json").stdout)
    assert [record["task_id"] for record in data["tasks"]] == [running, *reversed(ended)]


def test_here_are_the_tasks_of_this_repository_and_unseen_results_are_listed_until_they_are_shown(
        typed, repo, tmp_path):
    other = new_repository(tmp_path / "other")
    (other / "below").mkdir()
    mine, theirs = (typed("run", "-d", "SAY x", cwd=cwd).stdout.strip() for cwd in (repo, other / "below"))
    lines = lambda *words, **where: typed("ls", *words, **where).stdout.splitlines()
    listed = lambda *words, **where: [line.split()[0] for line in lines(*words, **where)]
    eventually(lambda: typed("ls").stdout.count("succeeded") == 2, what="the end of both")
    assert listed("--here") == [mine] and listed("--here", cwd=other) == [theirs]
    assert listed("--all", "--here", cwd=other / "below") == [theirs]
    typed("show", mine)
    assert listed() == [theirs] and sorted(listed("--all")) == sorted([mine, theirs])


def test_a_task_is_shown_whole_by_the_beginning_of_its_id_and_counts_as_collected(typed, ended, root):
    (root / "tasks" / ended[0] / "collected").unlink()
    done = typed("show", ended[0][:6], ended[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert ended[0] in done.stdout and "one\\x1b[31m" in done.stdout and "no luck" in done.stdout
    assert (root / "tasks" / ended[0] / "collected").exists()


def test_lists_and_records_tell_how_long_ago_it_ended_and_lists_where_there_are_several_places(
        typed, ended, repo, tmp_path):
    lines = typed("ls", "--all").stdout.splitlines()
    assert all(" ago  " in line and repo.name not in line for line in lines)
    typed("wait", typed("run", "-d", "SAY x", cwd=new_repository(tmp_path / "öther")).stdout.strip())
    lines = typed("ls", "--all").stdout.splitlines()
    assert lines[0].index("  öther  ") == lines[1].index("  %s  " % repo.name)
    assert "\nended: " in typed("show", ended[0]).stdout
    assert typed("ls", "--all", "--quiet").stdout.split()[1:] == ended[::-1]
    assert json.loads(typed("ls", "--all", "--quiet", "--json").stdout)["tasks"][1]["outcome"] == "failed"


@pytest.mark.parametrize("entry", [{"prompt": "x", "depends_on": [5]}, {"prompt": "x {{result:1}}"}])
def test_an_entry_that_waits_for_none_before_it_is_a_wrong_argument(typed, root, entry):
    done = typed("run", "--file", "-", stdin=json.dumps([{"prompt": "y"}, entry]))
    assert done.returncode == 2 and "task 2: " in done.stderr and "is none of those before" in done.stderr
    assert not list(root.glob("tasks/*"))


def test_a_run_in_a_pipe_says_that_the_network_is_waited_for(fake, repo, gate, tmp_path):
    said = tmp_path / "said"
    with open(str(said), "wb") as err:
        run = subprocess.Popen(command("run", "RECONNECT 3\n" + gate.wait), env=fake, cwd=str(repo),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
    try:
        eventually(lambda: b"waiting for the network" in said.read_bytes(), what="a line about it")
        gate.open()
        assert run.wait(LIMIT_S) == 0 and said.read_bytes().count(b"waiting for the network") == 1
    finally:
        run.kill()
        run.wait(LIMIT_S)


def test_results_that_a_list_leaves_out_are_counted_on_stderr(typed):
    n = cms.WANTED_SHOWN + 2
    typed("wait", *typed("run", "-d", *["SAY x"] * n).stdout.split(), stdin="")
    typed("run", "-d", *["SAY x"] * n)
    eventually(lambda: "2 more that nobody has seen: `" in typed("ls").stderr, what="the end of all")


def test_a_closed_standard_stream_is_no_error(fake, repo, ended):
    for closing in (">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run("%s ls --all %s" % (shlex.join(command()), closing), shell=True, env=fake,
                              cwd=str(repo), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (ended[0].encode() in done.stdout) == (">&-" not in closing.split())


def test_what_has_ended_is_not_stopped_and_did_nothing_where_it_has_no_events(typed, ended, root):
    assert "had already ended" in typed("stop", ended[0]).stdout
    (root / "tasks" / ended[1] / "events.jsonl").unlink()
    done = typed("logs", ended[1])
    assert (done.returncode, done.stdout) == (0, "") and "failed" in done.stderr and "no luck" in done.stderr


def test_what_was_started_in_the_background_tells_a_terminal_which_is_which(typed, terminal):
    screen = terminal("run", "-d", "SAY one", "SAY two")
    assert screen.end() == 0
    ids = screen.text.split()[:2]
    assert "%s  SAY one" % ids[0] in screen.text and " wait %s %s" % tuple(ids) in screen.text


def test_what_is_not_there_is_told_with_the_command_that_lists_what_is(typed):
    done = typed("show", "ffffffffffff")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no task `ffffffffffff`" in done.stderr and "ls --all`" in done.stderr
    assert "codex_status" not in done.stderr


MISTAKES = [
    ("show", "fff"), ("run", ""), ("run", "x", "-C", "/nowhere"), ("run", "x", "-C", "/"),
    ("run", "x", "y", "-C", "/nowhere"), ("run", "x", ""),
    ("run", "x", "--timeout", "0"), ("run", "-w", "x", "-C", "/"), ("run", "x", "-s", "nothing"),
    ("run", "-d"),
    ("diff", "ID", "--against", "nothing"), ("diff", "ID", "--path", "/etc"), ("merge", "ID"),
    ("reply", "ID", "x", "--update-from", "nothing"), ("show", "ID"), ("lsss",), ("stop",), ("ls",)]
OF_MCP = re.compile(r"\bcodex_(?!mcp_swarm\.py)\w+|\b(?:timeout_s|task_ids?|dry_run|update_from|threadId)\b"
                    r"|tasks\[|`(?:%s)`" % "|".join(cms.RUN))


def test_what_is_said_of_mistakes_names_what_one_types_and_nothing_of_mcp(typed, ended):
    for mistake in MISTAKES:
        done = typed(*(ended[1] if word == "ID" else word for word in mistake))
        said = done.stdout + done.stderr
        assert said.strip() and not OF_MCP.search(said), said


def test_of_several_prompts_that_which_is_refused_is_counted_from_one(typed):
    done = typed("run", "x", "")
    assert done.returncode == 2 and "task 2: `PROMPT` is empty" in done.stderr


def test_an_id_may_be_in_capitals_and_one_that_is_too_short_is_told_so(typed, ended):
    assert ended[0] in typed("show", ended[0].upper()).stdout
    assert "at least 4 characters" in typed("show", ended[0][:3]).stderr


def test_the_answer_to_a_single_prompt_stands_alone_on_standard_output(typed, root):
    done = typed("run", "-", "-s", "read-only", stdin="SAY forty-two\n")
    assert (done.returncode, done.stdout) == (0, "forty-two\n")
    (task,) = (root / "tasks").glob("[0-9a-f]*")
    assert task.name in done.stderr and "sandbox: read-only" in done.stderr
    assert (task / "collected").exists()


def test_where_there_is_no_answer_standard_output_is_empty(typed):
    done = typed("run", "FAIL it broke")
    assert (done.returncode, done.stdout) == (1, "") and "it broke" in done.stderr


def test_a_copy_of_a_conversation_gets_a_worktree_of_its_own(typed):
    task_id = typed("run", "-d", "-w", "WRITE a 1").stdout.strip()
    typed("wait", task_id)
    refused = typed("reply", task_id, "RECALL", "--fork")
    assert refused.returncode == 1 and "Add `-w`" in refused.stderr
    done = typed("reply", task_id, "RECALL", "--fork", "-w")
    assert done.returncode == 0 and "WRITE a 1" in done.stdout


def test_a_chain_from_a_file_runs_in_the_shell(typed, tmp_path):
    (tmp_path / "chain.json").write_text('[{"prompt": "SAY the plan"}, {"prompt": "SAY by {{result:0}}"}]')
    done = typed("run", "--file", str(tmp_path / "chain.json"), "--json")
    assert [task["content"] for task in json.loads(done.stdout)["tasks"]] == ["the plan", "by the plan"]


def test_a_file_of_tasks_is_a_batch_and_its_status_tells_that_one_failed(typed, repo):
    tasks = {"tasks": [{"prompt": "SAY a"}, {"prompt": "FAIL no luck", "sandbox": "read-only"}],
             "defaults": {"sandbox": "workspace-write", "model": "m1"}}
    done = typed("run", "--file", "-", "-w", "--json", "-m", "m2", stdin=json.dumps(tasks))
    one, two = json.loads(done.stdout)["tasks"]
    assert done.returncode == 1 and one["content"] == "a" and two["failure"]["message"] == "no luck"
    assert [(r["sandbox"], r["model"], r["worktree"]["branch"][:12]) for r in (one, two)] == [
        ("workspace-write", "m2", "codex-swarm/"), ("read-only", "m2", "codex-swarm/")]
    assert [line.split()[0] for line in done.stderr.splitlines()] != [] and "no luck" in done.stderr


@pytest.mark.parametrize("words, named", [
    (["run"], "PROMPT"), (["run", "x", "--file", "y"], "--file"), (["run", "--file", "README"], "README"),
    (["run", "-s", "none", "x"], "read-only"), (["run", "--file", "-", "x"], "--file"),
    (["stop"], "--all"), (["stop", "--all", "2f9c"], "--all"), (["wait"], "--all"),
    (["wait", "--all", "2f9c"], "--all"), (["help", "no"], "no"),
    (["run", "--max-parallel", "-1", "x"], "--max-parallel"),
    (["run", "--file", "/no/x"], "/no/x: No such file"), (["diff", "--patch", "--files", "2f9c"], "--files"),
    (["show"], "ID"), (["diff", "--path"], "--path"), (["ls", "--frobnicate"], "--frobnicate")])
def test_a_wrong_command_line_does_nothing_and_says_so_in_one_line_with_status_2(typed, root, words, named):
    done = typed(*words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert named in done.stderr and not root.exists()


def test_a_run_is_under_the_account_that_is_named_and_not_silently_under_the_own_one(typed, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.toml").write_text(NO_TMP)
    home = "--codex-home=work=%s" % work
    done = typed("run", home, "ARGV")
    assert (done.returncode, done.stdout) == (2, "") and "`--account work`" in done.stderr
    done = typed("run", home, "--account", "work", "ARGV")
    assert json.loads(done.stdout)["env"]["CODEX_HOME"] == str(work)
    assert "`--account`" in typed("run", "--account", "other", "x").stderr


def test_advice_names_the_task_that_it_is_about(typed, ended):
    told = typed("show", ended[1]).stdout
    assert "logs %s`" % ended[1] in told and " ID" not in told


@pytest.mark.parametrize("entry, flags, words", [
    ({"promt": "a"}, [], "task 1: `promt` is not an argument (did you mean `prompt`?)"),
    ({"worktre": True}, [], "(did you mean `worktree`?)"),
    ({"timeout_s": "3"}, [], "task 1: `timeout_s` must be a number"),
    ({"cwd": "/nowhere"}, [], "`cwd`: /nowhere does not exist"),
    ({"worktree": {"base": "no"}}, [], "`worktree` is not possible: `base`: `no` names no commit"),
    ({}, ["--timeout=-4"], "`--timeout` must be"), ({}, ["-C", ""], "`-C` ")])
def test_what_is_wrong_in_a_file_is_told_in_the_words_of_the_file_and_a_flag_beside_it_as_typed(
        typed, entry, flags, words):
    done = typed("run", "--file", "-", *flags, stdin=json.dumps([{"prompt": "a", **entry}]))
    assert done.returncode in (1, 2) and words in done.stderr, done.stderr


@pytest.mark.skipif(not cms.LINUX, reason="elsewhere a process cannot change what ps shows of it")
def test_a_prompt_that_was_typed_is_in_no_process_list_while_its_task_runs(typed, fake, repo, gate):
    def shown(whose=None):
        text = ""
        for pid in whose or filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, errors="replace") as f:
                text += f.read().replace("\0", " ") + "\n"
        return text

    secret = "SAY secret%s\n" % os.urandom(8).hex()
    how = {"env": fake, "cwd": str(repo), "stdout": subprocess.PIPE}
    run = subprocess.run(command("run", "-d", secret + gate.wait), timeout=LIMIT_S, **how).stdout.decode()
    eventually(lambda: record(typed, run.strip()).get("threadId"), what="a thread to go on with")
    assert secret.strip() not in shown()
    reply = subprocess.Popen(command("reply", "--interrupt", run.strip(), secret + gate.wait), **how)
    try:
        eventually(lambda: "codex-mcp-swarm reply" in shown([reply.pid]), what="the reply")
        assert secret.strip() not in shown()
        gate.open()
        assert reply.wait(LIMIT_S) == 0
    finally:
        reply.kill()
        reply.communicate()


def test_who_waits_behind_a_lower_limit_is_told_that_one(typed, gate):
    running = typed("run", "-d", "--max-parallel", "1", gate.wait, "SAY a").stdout.split()
    until_one_runs(typed)
    last = typed("run", "-d", "--max-parallel", "16", "SAY b").stdout.strip()
    told = typed("show", last).stdout
    assert re.match("Task %s queued .* for \\d" % last, told) and "last event" not in told
    assert "queued: 2nd of 2, after one that waits until fewer than 1 run" in told
    listed = typed("ls").stdout.splitlines()[-1]
    assert listed.count("queue") == 1 and "2nd of 2 in line, after one" in listed
    assert "was cancelled before it began" in typed("stop", last).stdout
    typed("stop", *running)


def test_a_wait_for_all_ends_with_the_last_one_that_runs_or_is_queued(typed, terminal, gate):
    ids = typed("run", "-d", "--max-parallel", "1", gate.wait, "SAY a").stdout.split()
    screen = terminal("wait", "--all")
    screen.sees("1 queued, 1 running")
    gate.open()
    assert screen.end() == 0
    assert re.findall("Task ([0-9a-f]{12}) succeeded", screen.text) == ids, "in the order of starting"
    done = typed("wait", "--all")
    assert (done.returncode, done.stdout, done.stderr) == (0, "No task is running.\n", "")


def test_ctrl_c_leaves_the_task_running_and_names_the_command_that_stops_it(typed, terminal, root):
    screen = terminal("run", "-w", "SLEEP 600", "SAY quick")
    lives = lambda task: (is_supervised(task), (task / "report.json").exists())
    both = lambda: sorted(map(lives, (root / "tasks").glob("[0-9a-f]*")))
    eventually(lambda: both() == [(False, True), (True, False)], what="the end of one of two tasks")
    screen.type(b"\x03")
    assert screen.end() == 130
    *_, stop, task_id = shlex.split(screen.text.splitlines()[-1])
    assert stop == "stop"
    assert record(typed, task_id)["state"] == "running"
    assert typed("stop", task_id[:5]).stdout.split()[:2] == [task_id, "cancelled"]
    assert record(typed, task_id)["outcome"] == "cancelled"


def test_logs_are_followed_to_the_end_of_the_task_and_show_nothing_that_looks_secret(typed, fake, repo, gate):
    prompt = "TELL first ghp_" + "a" * 24 + "\nSHELL echo seen; exit 3\n%s\nSAY last" % gate.wait
    task_id = typed("run", "-d", prompt).stdout.strip()
    with subprocess.Popen(command("logs", "-f", task_id), env=fake, cwd=str(repo), stdout=subprocess.PIPE,
                          universal_newlines=True) as follower:
        lines = [follower.stdout.readline().rstrip() for _ in range(4)]
        assert lines == ["first ***", "running `echo seen; exit 3`", "  seen", "  failed: exit status 3"]
        assert follower.poll() is None
        gate.open()
        assert follower.communicate(timeout=LIMIT_S)[0].splitlines()[-1] == "last"
        assert follower.returncode == 0
    raw = typed("logs", "--raw", task_id).stdout
    assert "ghp" not in raw
    assert [json.loads(line)["type"] for line in raw.splitlines()][-1] == "turn.completed"


def test_work_comes_home_from_the_diff_to_the_merge(typed, repo):
    done = typed("run", "-w", "--json", "WRITE a.txt one", "WRITE a.txt two", "WRITE b.txt three")
    one, two, three = [r["task_id"] for r in json.loads(done.stdout)["tasks"]]
    assert "a.txt" in typed("diff", one).stdout and "\n+one" in typed("diff", "--patch", one).stdout
    conflict = typed("merge", "--dry-run", one, two)
    assert conflict.returncode == 1 and "conflict in `a.txt`" in conflict.stdout
    assert "To unite both, the reply above brings" in conflict.stdout and "codex_reply" not in conflict.stdout
    reply = " reply %s 'Unite both versions' --update-from %s\n" % (two, one)
    for once in (reply, "--update-from", "fit together: " + one):
        assert conflict.stdout.count(once) == 1
    merged = typed("merge", one, three, "--into", "HEAD", "--json")
    assert merged.returncode == 0 and json.loads(merged.stdout)["merged"] == [one, three]
    assert (repo / "a.txt").read_text().strip() == "one" and (repo / "b.txt").exists()
    again = typed("reply", two, "WRITE a.txt united\nSAY done", "--update-from", "main")
    assert (again.returncode, again.stdout) == (0, "done\n")
    assert typed("merge", "--into", "HEAD", "--squash", two).returncode == 0
    assert (repo / "a.txt").read_text().strip() == "united"
    assert len(git(repo, "log", "--format=%h", "--first-parent").split()) >= 3


def test_a_patch_with_control_characters_applies_and_an_empty_one_is_empty(typed, repo):
    done = typed("run", "-w", "--json", "SHELL printf 'a\\033[1mb\\r\\nc\\fd\\n' > odd.txt", "SAY x")
    odd, nothing = (r["task_id"] for r in json.loads(done.stdout)["tasks"])
    assert typed("diff", "--patch", nothing).stdout == ""
    subprocess.run(["git", "apply", "-"], input=typed("diff", "--patch", odd).stdout.encode(), cwd=str(repo),
                   check=True)
    assert (repo / "odd.txt").read_bytes() == b"a\x1b[1mb\r\nc\x0cd\n"


def test_a_patch_of_any_length_is_printed_whole(typed):
    done = typed("run", "-w", "--json", "SHELL seq 1 20000 > long.txt")
    (task,) = json.loads(done.stdout)["tasks"]
    patch = typed("diff", "--patch", task["task_id"]).stdout
    assert patch.startswith("diff --git") and patch.endswith("\n+20000\n") and len(patch) > cms.RESULT_CHARS


@pytest.mark.parametrize("text", ["[1]", "5", '{"tasks": 5}', '{"tasks": [{"prompt": "x"}], "defaults": []}',
                                  '{"tasks": [{"prompt": "x"}], "more": 1}', '[{"prompt": "x", "model": 1}]'])
def test_a_file_of_tasks_is_checked_as_a_call_of_the_tool_is(typed, root, text):
    done = typed("run", "--file", "-", stdin=text)
    assert (done.returncode, done.stdout) == (2, "") and "Wrong argument" in done.stderr
    assert not (root / "tasks").exists()


def test_a_time_limit_of_nothing_is_refused_and_not_passed_over(typed, root):
    done = typed("run", "--timeout", "0", "SAY x")
    assert done.returncode == 2 and "`--timeout`" in done.stderr and not (root / "tasks").exists()


def test_marks_and_colours_are_for_terminals_and_no_color_takes_the_colours_alone(typed, terminal, ended):
    coloured, plain = terminal("ls", "--all"), terminal("ls", "--all", NO_COLOR="1")
    assert (coloured.end(), plain.end()) == (0, 0)
    assert "\033[32m✓" in coloured.text and "\033[31m✗" in coloured.text
    assert "\033" not in plain.text
    assert [line.split()[:2] for line in plain.text.splitlines()] == [["✗", ended[1]], ["✓", ended[0]]]


def test_a_pipe_that_is_closed_ends_it_quietly(typed, fake, repo):
    task_id = typed("run", "-d", "LINES 20000").stdout.strip()
    assert typed("wait", task_id).returncode == 0
    with subprocess.Popen(command("logs", "--raw", task_id), env=fake, cwd=str(repo), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as reader:
        reader.stdout.readline()
        reader.stdout.close()
        assert (reader.stderr.read(), reader.wait(LIMIT_S) in (0, 1)) == (b"", True)


COMPLETE = """
source /dev/stdin
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_codex_mcp_swarm
echo "${COMPREPLY[@]}"
"""


def test_a_shell_completes_commands_flags_and_ids(typed, ended, fake, repo, tmp_path):
    script = typed("completion", "bash").stdout
    program = tmp_path / "bin" / "codex-mcp-swarm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec %s \"$@\"\n" % shlex.join(command()))
    program.chmod(0o755)
    env = dict(fake, PATH="%s:%s" % (program.parent, fake["PATH"]))

    def completed(*words):
        done = subprocess.run(["bash", "-c", COMPLETE, "bash", program.name, *words], env=env, cwd=str(repo),
                              input=script.encode(), stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
        return done.stdout.decode().split()
    assert completed("sh") == ["show"] and set(cms.COMMANDS) < set(completed(""))
    assert completed("show", ended[0][:6]) == [ended[0]]
    assert completed("merge", ended[0], "--dry") == ["--dry-run"]
    assert completed("completion", "f") == ["fish"] and completed("--max-sa") == ["--max-sandbox"]
    assert completed("run", "-s", "w") == completed("--max-sandbox", "w") == ["workspace-write"]
    assert completed("report", "--html", "") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_of_other_shells_asks_for_the_same_words(typed, shell):
    text = typed("completion", shell).stdout
    assert "codex-mcp-swarm completion" in text and "--behind" in text


def test_a_full_disk_is_told_in_a_sentence(fake, repo):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("completion", "bash"), env=fake, cwd=str(repo), stdout=full,
                              stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert b": No space left" in done.stderr and b"Errno" not in done.stderr
