"""The lines of README and docs, each given to a shell as it stands, page by page, in a fresh directory.

Two tasks have ended; their ids stand in place of those of the pages. What needs another program is left to
the tests that have it.
"""
import json
import re
import subprocess

import pytest

from conftest import SERVER, git

ROOT = SERVER.parent
OURS = "python3 codex_mcp_swarm.py "
ELSEWHERE = {                       # the first word of a line -> where it is tried
    "claude": "real/test_packages.py and real/test_clients.py", "mcp-proxy": "real/test_packages.py",
    "tests/run": "the gate", "source": "protocol/test_command_line.py"}
IN_A_TERMINAL = {"top"}             # protocol/test_live.py
MAY_FIND_FAULT = {"doctor"}         # with the machine
LIMIT_S = 120
# Beside the work, as an installed script has it: the file itself would be compiled for every line.
PROGRAM = """import sys
sys.path[0] = %r
import codex_mcp_swarm
codex_mcp_swarm.main()
"""


def lines_of(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


TEXTS = ["README.md", "CONTRIBUTING.md", *("docs/" + path.name for path in sorted(ROOT.glob("docs/*.md")))]
PAGES = [page for page in TEXTS if lines_of(page)]


@pytest.fixture
def shell(fake, repo):
    """Gives a line to bash where the program lies beside the work, with the ids of two tasks in place."""
    (repo / "codex_mcp_swarm.py").write_text(PROGRAM % str(ROOT))
    (repo / "prompt.md").write_text("Explain this.\n")
    (repo / "tasks.json").write_text(json.dumps([{"prompt": "One"}, {"prompt": "Two"}]))
    (repo / ".git" / "info").mkdir(exist_ok=True)
    ours = ["codex_mcp_swarm.py", "prompt.md", "tasks.json", "report.html"]
    (repo / ".git" / "info" / "exclude").write_text("\n".join(ours))

    def run(line):
        done = subprocess.run(["bash", "-c", line], cwd=str(repo), env=fake, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S)
        told = "%s\n%s%s" % (line, done.stdout.decode(), done.stderr.decode())
        return done.returncode, done.stdout.decode(), told
    _, out, told = run(OURS + "run --json -w 'WRITE a 1' 'WRITE b 2'")
    assert out, told
    ids = [task["task_id"] for task in json.loads(out)["tasks"]]

    def type_in(line):
        for shown, own in zip(("2f9c", "81d0"), ids):
            line = re.sub(r"\b%s\b" % shown, own, line)
        return run(line)
    return type_in


@pytest.mark.parametrize("page", PAGES)
def test_every_line_that_a_page_gives_to_a_shell_does_what_it_says(page, shell):
    for line in lines_of(page):
        command = line[len(OURS):].split()[0] if line.startswith(OURS) else None
        if command is None:
            assert line.split()[0] in ELSEWHERE, line
        elif command not in IN_A_TERMINAL:
            status, _, told = shell(line)
            assert status in ((0, 1) if command in MAY_FIND_FAULT else (0,)), told


def test_the_chain_of_tasks_hands_on_what_was_done_and_said(client, repo):
    text = (ROOT / "docs" / "worktrees.md").read_text(encoding="utf-8")
    chain = json.loads(re.search(r"## A chain of tasks.*?```json\n(.*?)```", text, re.S)[1])
    chain["arguments"]["defaults"]["cwd"] = str(repo)
    first, second, third = client().ok(chain["name"], **chain["arguments"])["tasks"]
    assert second["worktree"]["base"] == first["worktree"]["head"] and "worktree" not in third
    assert "About it: " + first["content"][:20] in second["content"] and "The tests: " in third["content"]


def test_a_merge_into_head_is_undone_by_the_command_in_its_answer(shell, repo):
    before = git(repo, "rev-parse", "HEAD")
    status, out, told = shell(OURS + "merge --json --into HEAD 2f9c 81d0")
    assert status == 0, told
    assert git(repo, "rev-parse", "HEAD") != before
    subprocess.run(["bash", "-ec", json.loads(out)["undo"]], cwd=str(repo), check=True, timeout=LIMIT_S)
    assert git(repo, "rev-parse", "HEAD") == before


def test_the_pages_have_lines_of_each_kind():
    lines = [line for page in PAGES for line in lines_of(page)]
    ours = {line[len(OURS):].split()[0] for line in lines if line.startswith(OURS)}
    assert {"run", "ls", "show", "diff", "merge", "demo", "config", "sweep", *IN_A_TERMINAL} <= ours
    assert {line.split()[0] for line in lines if not line.startswith(OURS)} <= set(ELSEWHERE)
