"""A task never reaches what is kept of others, wherever ROOT and the worktrees lie."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from .harness import CODEX_CONFIG, until

pytestmark = pytest.mark.anyio

OPEN_TMP = CODEX_CONFIG.replace("exclude_slash_tmp = true", "").replace("exclude_tmpdir_env_var = true", "")

# Everything that was tried on a ROOT within reach; says of each whether it worked.
ATTACK = """
import os, sys
root, tree, *victims = sys.argv[1:]


def attempt(name, act):
    try:
        act()
        print("BROKEN", name)
    except OSError as error:
        print("held", name, error.strerror)


def write(path, text="forged"):
    with open(path, "w") as f:
        f.write(text)


def ring():
    os.write(os.open(os.path.join(task, "control"), os.O_WRONLY | os.O_NONBLOCK), b"c")


for task in (os.path.join(root, "tasks", victim) for victim in victims):
    attempt("read", lambda: open(os.path.join(task, "prompt")).read())
    attempt("report", lambda: write(os.path.join(task, "report.json")))
    attempt("spec", lambda: write(os.path.join(task, "spec.json")))
    attempt("unlink", lambda: os.unlink(os.path.join(task, "spec.json")))
    attempt("ring", ring)
attempt("plant", lambda: write(os.path.join(root, "planted")))
attempt("cache", lambda: os.makedirs(os.path.join(root, "cache", "planted")))
attempt("lock", lambda: open(os.path.join(root, "sweep.lock")))
attempt("tree", lambda: write(os.path.join(tree, "planted")))
attempt("git", lambda: write(os.path.join(tree, ".git")))
above = root
while os.path.dirname(above) != above:
    attempt("rename " + above, lambda: os.rename(above, above + "-gone"))
    above = os.path.dirname(above)
attempt("rename " + tree, lambda: os.rename(tree, "mine"))
print("done")
"""


@pytest.fixture
def slash_tmp():
    path = Path(tempfile.mkdtemp(prefix="reach-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def placed(lab, where, slash_tmp):
    """The variables of a server whose ROOT or worktrees lie within a task's reach."""
    (lab.codex_home / "config.toml").write_text(OPEN_TMP % lab.model.url)
    if where == "below cwd":
        lab.root = lab.repo / ".local" / "state" / "codex-swarm"
        return {"CODEX_SWARM_TASK_DIR": str(lab.root)}
    if where == "below /tmp":
        lab.root = slash_tmp / "deep" / "er" / "root"
        return {"CODEX_SWARM_TASK_DIR": str(lab.root)}
    return {"CODEX_SWARM_WORKTREE_DIR": str(lab.repo / ".trees")}


def attack(lab, tree, *victims):
    script = lab.directory / "attack.py"
    script.write_text(ATTACK)
    return "@shell python3 %s %s %s %s > told.txt\n@say done" % (script, lab.root, tree, " ".join(victims))


def outputs(lab, task_id):
    lines = [json.loads(line)
             for line in (lab.root / "tasks" / task_id / "events.jsonl").read_text().splitlines()]
    items = [line["item"] for line in lines if line["type"] == "item.completed"]
    return "".join(item["aggregated_output"] for item in items if item["type"] == "command_execution")


@pytest.mark.parametrize("where", ["below cwd", "below /tmp", "worktrees below cwd"])
@pytest.mark.parametrize("from_a_worktree", [False, True], ids=["in the checkout", "in a worktree"])
async def test_a_task_can_neither_read_nor_forge_nor_replace_what_is_kept_of_another(
        lab, where, from_a_worktree, slash_tmp):
    env = placed(lab, where, slash_tmp)
    # A worktree lies beside all that, so plain `--sandbox` keeps it from writing there, and hides nothing.
    hidden = where == "below /tmp" or not from_a_worktree
    async with lab.connect(env=env) as swarm:
        ended = await swarm.call("codex", prompt="@say mine", worktree=True)
        living = await swarm.start("@hold gate", sandbox="read-only")
        await until(lambda: lab.model.held("gate"), "the other task waits")
        victims = (ended["task_id"], living)
        before = [(lab.root / "tasks" / victim / "spec.json").read_text() for victim in victims]
        asked = {"worktree": True} if from_a_worktree else {"sandbox": "workspace-write"}
        record = await swarm.call("codex", prompt=attack(lab, ended["worktree"]["path"], *victims), **asked)
        told = Path(record["worktree"]["path"] if from_a_worktree else lab.repo, "told.txt").read_text()
        worked = {line.partition(" ")[2] for line in told.splitlines() if line.startswith("BROKEN")}
        assert "\ndone\n" in told and worked <= (set() if hidden else {"read", "ring", "lock"}), told
        assert [(lab.root / "tasks" / victim / "spec.json").read_text() for victim in victims] == before
        assert not list(lab.root.glob("**/planted")) and not list(lab.repo.glob("**/planted"))
        if hidden:
            assert (await swarm.status(living))["state"] == "running"
        lab.model.release("gate")
        assert [record["content"] for record in await swarm.wait(ended["task_id"])] == ["mine"]
        await swarm.wait(living)


@pytest.mark.parametrize("where", ["below cwd", "below /tmp", "worktrees below cwd"])
async def test_its_own_worktree_works_as_ever(lab, where, slash_tmp):
    env = placed(lab, where, slash_tmp)
    (lab.repo / ".gitignore").write_text(".local\n.trees\n")
    lab.git("add", ".")
    lab.git("commit", "--quiet", "--message", "ignored")
    work = ("@shell echo new > made.txt; git status --porcelain > status.txt; git log --oneline | "
            "wc -l >> status.txt; touch ../sibling")
    async with lab.connect(env=env) as swarm:
        first = await swarm.call("codex", prompt=work, worktree=True, sandbox="workspace-write")
        second = await swarm.call("codex_reply", task_id=first["task_id"],
                                  prompt="@shell cat made.txt > again.txt; touch ../sibling")
    branch = first["worktree"]["branch"]
    assert second["worktree"]["branch"] == branch
    assert lab.git("show", branch + ":status.txt").split() == ["??", "made.txt", "??", "status.txt", "2"]
    assert lab.git("show", branch + ":again.txt") == "new\n"
    assert not (Path(first["worktree"]["path"]).parent / "sibling").exists()


async def test_the_rest_of_cwd_and_what_config_opens_stay_writable_and_what_it_closes_stays_closed(
        lab, slash_tmp):
    lab.root = lab.repo / ".local" / "state" / "codex-swarm"
    closed, opened = slash_tmp / "closed", lab.directory / "opened"
    opened.mkdir()
    prompt = ("@shell touch inside; mkdir -p part/deeper; touch %s %s; touch .local/no; touch .other || "
              "true; sleep 0.2" % (closed, opened / "made"))
    async with lab.connect(env={"CODEX_SWARM_TASK_DIR": str(lab.root)}) as swarm:
        config = {"sandbox_workspace_write": {"writable_roots": [str(opened)]}}
        record = await swarm.call("codex", prompt=prompt, sandbox="workspace-write", config=config)
    assert (lab.repo / "inside").exists()
    assert (lab.repo / "part" / "deeper").exists()
    assert (lab.repo / ".other").exists()
    assert (opened / "made").exists()
    assert not closed.exists(), "config.toml says exclude_slash_tmp"
    assert not (lab.repo / ".local" / "no").exists()
    assert any(".local" in warning for warning in record["warnings"])


async def test_what_a_trusted_project_opens_does_not_open_what_is_kept(lab):
    lab.root.mkdir(exist_ok=True)
    config = lab.codex_home / "config.toml"
    config.write_text(config.read_text() + '\n[projects."%s"]\ntrust_level = "trusted"\n' % lab.repo)
    (lab.repo / ".codex").mkdir()
    (lab.repo / ".codex" / "config.toml").write_text("[sandbox_workspace_write]\nwritable_roots = ['%s']\n"
                                                     % lab.root.parent)
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell touch %s/planted; touch free; sleep 0.2" % lab.root,
                                  sandbox="workspace-write")
    assert (lab.repo / "free").exists() and not (lab.root / "planted").exists()
    assert any("writable_roots" in warning for warning in record["warnings"])


@pytest.mark.parametrize("allowed", [True, False])
async def test_network_access_is_what_it_would_be_without_the_profile(lab, allowed):
    lab.root = lab.repo / "root"
    probe = ("@shell python3 -c \"import urllib.request as u; u.urlopen('%s/none', "
             "timeout=20)\" 2> net.txt" % lab.model.url)
    config = {"sandbox_workspace_write.network_access": allowed}
    async with lab.connect(env={"CODEX_SWARM_TASK_DIR": str(lab.root)}) as swarm:
        await swarm.call("codex", prompt=probe, sandbox="workspace-write", config=config)
    assert ((lab.repo / "net.txt").read_text() == "") == allowed


async def test_without_a_sandbox_such_a_directory_is_refused_with_the_way_out(lab):
    lab.root = lab.repo / "root"
    async with lab.connect(env={"CODEX_SWARM_TASK_DIR": str(lab.root)}) as swarm:
        text = await swarm.refused("codex", prompt="hello")
        assert "`sandbox`" in text and "CODEX_SWARM_TASK_DIR" in text and str(lab.root) in text
        assert (await swarm.call("codex", prompt="@say hi", sandbox="read-only"))["content"] == "hi"
    assert len(lab.model.requests) == 1


async def test_a_reply_to_a_task_that_was_kept_out_is_kept_out_as_well(lab):
    lab.root = lab.repo / "root"
    async with lab.connect(env={"CODEX_SWARM_TASK_DIR": str(lab.root)}) as swarm:
        first = await swarm.call("codex", prompt="@say one", sandbox="workspace-write")
        steal = "@shell touch root/planted; cat root/tasks/*/prompt; touch free; sleep 0.2"
        second = await swarm.call("codex_reply", threadId=first["threadId"], prompt=steal)
    assert (lab.repo / "free").exists() and not (lab.root / "planted").exists()
    assert "say one" not in outputs(lab, second["task_id"])
