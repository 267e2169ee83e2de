"""Codex by way of a launcher: what holds for a task that runs right here holds for it as well."""
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import Health

from client import alive, eventually
from .helpers import begin, ended, run

FAKE_SLURM = pathlib.Path(__file__).resolve().parents[1] / "fake_slurm"


@pytest.fixture
def srun(tmp_path):
    """The path of a `srun` with a node that answers it."""
    bin = tmp_path / "slurm"
    bin.mkdir()
    for name in ("srun", "scancel"):
        (bin / name).symlink_to(FAKE_SLURM)
    node = subprocess.Popen([sys.executable, str(FAKE_SLURM), "slurmd", str(bin / "socket")],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert node.stdout.readline() == b"ready\n"
    yield str(bin / "srun")
    node.stdin.close()
    node.stdout.close()
    node.wait()


def pid_in(path):
    """The pid that a task wrote there."""
    return int(eventually(lambda: path.exists() and path.read_text().strip(), what=str(path)))


def test_a_task_has_its_prompt_place_environment_and_cap_also_by_way_of_a_launcher(swarm, srun, repo, fake):
    app = swarm(launcher=(srun, "--ntasks=1", "--comment={task_id} {cwd}"), max_sandbox="read-only")
    record = run(app, "ARGV", "more of the prompt", cwd=str(repo))
    told = json.loads(record["content"])
    assert told["cwd"] == str(repo) and told["prompt_chars"] == len("ARGV\nmore of the prompt")
    assert told["options"]["sandbox"] == ["read-only"]
    assert told["env"][cms.TASK_ENV] == record["task_id"]
    assert told["env"]["FAKE_CODEX_HOME"] == fake["FAKE_CODEX_HOME"]


def test_the_exit_status_of_codex_comes_through_a_launcher(swarm, srun):
    record = run(swarm(launcher=(srun,)), "STDERR codex was unhappy", "EXIT 7")
    assert record["outcome"] == "failed" and record["exit_code"] == 7


def test_a_cancel_leaves_nothing_running_where_srun_put_it(swarm, srun, tmp_path):
    """srun is gone at the first signal, and the step ignores the others."""
    app = swarm(launcher=(srun,))
    task = begin(app, "STUBBORN", "SHELL trap '' INT TERM; echo $$ > %s; sleep 1000" % (tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    app.stop([task.task_id])
    assert ended(app, [task.task_id])[0]["outcome"] == "cancelled"
    eventually(lambda: not alive(pid), what="the end of what ran on the node")


def test_a_killed_supervisor_leaves_nothing_running_where_srun_put_it(swarm, srun, tmp_path):
    app = swarm(launcher=(srun,))
    task = begin(app, "SHELL echo $$ > %s; sleep 1000" % (tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    os.kill(supervisor_of(app, task), signal.SIGKILL)
    app.host.linux = False                      # as on another machine, no look at processes finds it
    assert ended(app, [task.task_id])[0]["outcome"] == "lost"
    app.live()
    eventually(lambda: not alive(pid), what="the end of what ran on the node")


def supervisor_of(app, task):
    srun = eventually(lambda: task.status().pid, what="the pid of srun")
    return app.host.about(srun)[0]


def test_what_cannot_be_ended_elsewhere_is_told(swarm, srun):
    os.unlink(os.path.join(os.path.dirname(srun), "scancel"))
    record = run(swarm(launcher=(srun,)), "SAY done")
    assert record["outcome"] == "succeeded" and "may still run" in " ".join(record["warnings"])


def test_a_launcher_that_is_not_there_is_named(swarm):
    record = run(swarm(launcher=("/none/srun",)), "SAY done")
    assert record["failure"]["message"].startswith("--launcher: ")
    assert record["outcome"] == "failed" and "/none/srun" in record["failure"]["message"]


def test_no_argument_of_a_call_is_a_word_of_the_shell_that_ssh_starts(swarm, tmp_path, repo):
    """ssh joins its words, and a shell in another directory reads them."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nshift\ncd /\nexec /bin/sh -c "$*"\n')
    ssh.chmod(0o755)
    odd = "x'; touch %s; $(true) \"" % (tmp_path / "made")
    place = repo / "a b'$(c)"
    place.mkdir()
    record = run(swarm(launcher=(str(ssh), "host")), "ARGV", model=odd, cwd=str(place))
    told = json.loads(record["content"])
    assert told["options"]["model"] == [odd] and told["cwd"] == str(place)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("launcher, health, words", [
    (("srun",), Health.OK, "starts codex"), (("false",), Health.BROKEN, "does not start codex"),
    (("/none/at all",), Health.BROKEN, "/none/at all")])
def test_the_doctor_tries_the_launcher(swarm, srun, launcher, health, words):
    launcher = (srun,) if launcher == ("srun",) else launcher
    found = {one.name: one for one in swarm(launcher=launcher).doctor()}
    assert found["launcher"].health is health and words in found["launcher"].what, found["launcher"]


def test_without_a_launcher_the_doctor_says_nothing_of_one(swarm):
    assert "launcher" not in {one.name for one in swarm().doctor()}


def test_a_launcher_is_the_operators_and_never_an_argument_of_a_call(tmp_path):
    environ = {"HOME": str(tmp_path), "CODEX_SWARM_LAUNCHER": "nice -n '1 0'"}
    assert cms.configure([], environ).config.launcher == ("nice", "-n", "1 0")
    assert cms.configure(["--launcher", "srun -n1"], environ).config.launcher == ("srun", "-n1")
    with pytest.raises(cms.UsageError):
        cms.configure(["--launcher", "it's"], environ)
    assert "launcher" not in json.dumps([tool.args for tool in cms.TOOLS.values()])
