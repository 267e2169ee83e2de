"""A real Slurm of one machine, for as long as the tests of this file run: `tests/slurm` installs it and runs
them. They are no part of `tests/run`, since installing it needs root.

Source: Slurm 22.05 of Debian 12.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

import codex_mcp_swarm as cms

from client import alive, eventually

CONF = """\
ClusterName=swarm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000
PartitionName=all Nodes={host} Default=YES OverSubscribe=FORCE:16
"""


def free_ports(count):
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@pytest.fixture(scope="session")
def slurm():
    """The environment in which `srun` and its like speak to it."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
    place.chmod(0o755)                                      # munge is another user
    for name in ("munge", "state", "spool"):
        (place / name).mkdir()
    host, conf, key = socket.gethostname().split(".")[0], place / "slurm.conf", place / "munge" / "key"
    conf.write_text(CONF.format(host=host, place=place, ports=free_ports(2), cpus=os.cpu_count()))
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for path in (place / "munge", key):
        shutil.chown(str(path), "munge", "munge")
    environ = {"SLURM_CONF": str(conf)}
    with contextlib.ExitStack() as running, open(str(place / "out"), "wb") as out:
        running.callback(shutil.rmtree, str(place))

        def start(*words):
            child = subprocess.Popen(words, env=dict(os.environ, **environ), stdout=out, stderr=out)
            running.callback(child.wait)
            running.callback(child.terminate)
        files = ["--%s=%s/munge/%s" % (name, place, name.split("-")[0])
                 for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")]
        start("runuser", "-u", "munge", "--", "munged", "--foreground", *files)
        eventually((place / "munge" / "socket").exists, what="munged")
        start("slurmctld", "-D", "-f", str(conf))
        start("slurmd", "-D", "-f", str(conf))
        eventually(lambda: "idle" in said(environ, "sinfo"), what="an idle node")
        yield environ
        assert said(environ, "squeue", "--noheader") == ""


def said(environ, *words):
    done = subprocess.run(words, env=dict(os.environ, **environ), stdout=subprocess.PIPE)
    return done.stdout.decode()


@pytest.fixture
def on_slurm(client, slurm):
    """A client of a server that starts codex with srun."""
    return client("--launcher", "srun --quiet --ntasks=1", env=slurm)


def test_twenty_tasks_run_as_jobs_and_their_exit_status_comes_home(on_slurm, slurm):
    tasks = [{"prompt": "ARGV"}] * 19 + [{"prompt": "EXIT 7"}]
    records = on_slurm.ok("codex_batch", tasks=tasks)["tasks"]
    assert [record["outcome"] for record in records] == ["succeeded"] * 19 + ["failed"]
    assert records[-1]["exit_code"] == 7
    assert all(record["task_id"] in record["content"] for record in records[:-1])       # its mark came along


def test_a_cancel_leaves_no_step_behind(on_slurm, slurm, tmp_path):
    pids = [tmp_path / str(number) for number in range(5)]
    tasks = [{"prompt": "STUBBORN\nSHELL trap '' INT TERM; echo $$ > %s; sleep 1000" % pid} for pid in pids]
    ids = on_slurm.ok("codex_batch", tasks=tasks, wait=False)["task_ids"]
    shells = [int(eventually(lambda: pid.exists() and pid.read_text().strip())) for pid in pids]
    on_slurm.ok("codex_cancel", task_ids=ids)
    assert {record["outcome"] for record in on_slurm.collect(*ids)} == {"cancelled"}
    eventually(lambda: not any(map(alive, shells)), what="the end of all steps")
    eventually(lambda: said(slurm, "squeue", "--noheader", "--states=R,PD") == "", what="an empty queue")


def test_a_killed_supervisor_leaves_no_step_behind(on_slurm, slurm, root, tmp_path):
    task_id = on_slurm.begin("SHELL echo $$ > %s; sleep 1000" % (tmp_path / "pid"))
    shell = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    host = cms.Host()
    os.kill(host.about(cms.TaskDir(str(root / "tasks" / task_id)).status().pid)[0], signal.SIGKILL)
    assert on_slurm.collect(task_id)[0]["outcome"] == "lost"
    eventually(lambda: not alive(shell), what="the end of the step")


def test_the_doctor_starts_codex_as_a_job(slurm, fake, repo):
    done = subprocess.run([sys.executable, cms.__file__, "--launcher", "srun --ntasks=1", "doctor", "--json"],
                          env=dict(fake, **slurm), cwd=str(repo), stdout=subprocess.PIPE)
    found = {one["name"]: one for one in json.loads(done.stdout.decode())["findings"]}
    assert found["launcher"]["health"] == "ok", found["launcher"]
