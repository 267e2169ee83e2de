"""`worktree: true`: work on a branch of its own, which plain git brings back."""

import pytest

from .harness import until

pytestmark = pytest.mark.anyio

EDITS = (
    "@shell echo and so it went >> story.txt\n"
    "@shell echo from the shell > shell.txt\n"
    "@patch *** Add File: patched.txt\\n+from apply_patch\n"
    "@patch *** Update File: part/notes.txt\\n@@\\n-notes\\n+better notes\n"
    "@say written"
)


async def test_work_in_a_worktree_is_merged_back_by_plain_git(lab):
    head = lab.git("rev-parse", "HEAD").strip()
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt=EDITS, worktree=True)
    branch = "codex-swarm/" + record["task_id"]
    assert record["outcome"] == "succeeded"
    assert record["worktree"]["branch"] == branch
    assert record["worktree"]["base"] == head
    assert record["worktree"]["head"] == lab.git("rev-parse", branch).strip()
    assert record["worktree"]["files_changed"] == 4
    assert (record["worktree"]["insertions"], record["worktree"]["deletions"]) == (4, 1)

    assert lab.git("rev-parse", "HEAD").strip() == head
    assert lab.git("status", "--porcelain") == ""
    assert not (lab.repo / "shell.txt").exists()

    lab.git("merge", "--quiet", branch)
    assert (lab.repo / "story.txt").read_text() == "once upon a time\nand so it went\n"
    assert (lab.repo / "shell.txt").read_text() == "from the shell\n"
    assert (lab.repo / "patched.txt").read_text() == "from apply_patch\n"
    assert (lab.repo / "part" / "notes.txt").read_text() == "better notes\n"


async def test_the_work_is_on_the_branch_although_codex_cannot_commit_and_a_copied_secret_is_not(lab):
    (lab.repo / ".gitignore").write_text(".env\n")
    (lab.repo / ".worktreeinclude").write_text(".env\n")
    lab.git("add", ".")
    lab.git("commit", "--quiet", "--message", "ignores")
    (lab.repo / ".env").write_text("TOKEN=secret\n")
    (lab.repo / "story.txt").write_text("my draft\n")
    edits = (
        "@shell cat .env >/dev/null && echo and so it went >> story.txt && echo better > part/notes.txt && "
        "rm .gitignore\n"
        "@shell echo new > new.txt; git add -A; git commit -qm mine || echo refused > commit.txt\n@say done"
    )
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt=edits, worktree={"include_changes": True})
    tree = record["worktree"]
    assert tree["carried"]["first"] == ["story.txt"] and tree["copied"]["first"] == [".env"]
    changed = lab.git("diff", "--name-only", tree["baseline"], tree["branch"]).split()
    assert changed == [".gitignore", "commit.txt", "new.txt", "part/notes.txt", "story.txt"]
    assert lab.git("show", tree["branch"] + ":story.txt") == "my draft\nand so it went\n"
    assert (tree["commits"], tree["files_changed"]) == (1, 5)
    assert (lab.repo / "story.txt").read_text() == "my draft\n"


async def test_codex_works_in_the_same_subdirectory_of_the_worktree(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell echo here > where.txt", worktree=True, cwd="part")
    lab.git("merge", "--quiet", record["worktree"]["branch"])
    assert (lab.repo / "part" / "where.txt").read_text() == "here\n"


async def test_uncommitted_changes_of_the_caller_are_neither_taken_nor_touched(lab):
    (lab.repo / "story.txt").write_text("my draft\n")
    (lab.repo / "staged.txt").write_text("staged\n")
    lab.git("add", "staged.txt")
    (lab.repo / "untracked.txt").write_text("untracked\n")
    before = lab.git("status", "--porcelain")
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell cat story.txt > seen.txt; ls >> seen.txt",
                                  worktree=True)
    assert lab.git("status", "--porcelain") == before
    assert (lab.repo / "story.txt").read_text() == "my draft\n"
    seen = lab.git("show", record["worktree"]["branch"] + ":seen.txt").split("\n")
    assert "once upon a time" in seen
    assert "staged.txt" not in seen and "untracked.txt" not in seen


async def test_parallel_worktrees_do_not_see_each_other_and_merge_one_after_the_other(lab):
    async with lab.connect() as swarm:
        tasks = [{"prompt": "@shell ls > seen-%d.txt" % number} for number in range(3)]
        records = (await swarm.call("codex_batch", tasks=tasks, defaults={"worktree": True}))["tasks"]
    assert len({record["worktree"]["path"] for record in records}) == 3
    for number, record in enumerate(records):
        lab.git("merge", "--quiet", "--no-edit", record["worktree"]["branch"])
        seen = (lab.repo / ("seen-%d.txt" % number)).read_text().split()
        assert [name for name in seen if name.startswith("seen")] == ["seen-%d.txt" % number]


async def test_the_work_of_a_cancelled_task_is_on_its_branch_and_its_worktree_is_kept(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@shell echo half > half.txt\n@hold gate", worktree=True)
        await until(lambda: lab.model.held("gate"), "the file is written")
        record = await swarm.cancel(task_id)
    assert record["outcome"] == "cancelled"
    assert open(record["worktree"]["path"] + "/half.txt").read() == "half\n"
    assert lab.git("show", record["worktree"]["branch"] + ":half.txt") == "half\n"
    assert "[cancelled]" in lab.git("log", "--format=%s", "main.." + record["worktree"]["branch"])


async def test_a_reply_goes_on_in_the_worktree_of_its_thread(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="@shell echo one > one.txt", worktree=True)
        second = await swarm.call(
            "codex_reply", threadId=first["threadId"],
            prompt="@shell cat one.txt > two.txt; echo two >> two.txt"
        )
    assert second["worktree"]["branch"] == first["worktree"]["branch"]
    lab.git("merge", "--quiet", first["worktree"]["branch"])
    assert (lab.repo / "two.txt").read_text() == "one\ntwo\n"


async def test_work_is_committed_where_git_knows_no_author_too(lab):
    (lab.home / ".gitconfig").unlink()
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell echo one > one.txt", worktree=True)
    assert lab.git("show", record["worktree"]["branch"] + ":one.txt") == "one\n"


async def test_a_worktree_outside_git_is_refused(lab, tmp_path):
    async with lab.connect("--skip-git-repo-check") as swarm:
        assert "worktree" in await swarm.refused("codex", prompt="hello", worktree=True, cwd=str(tmp_path))
    assert lab.model.requests == []


async def test_an_explicit_sandbox_holds_in_a_worktree_too(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell echo no > no.txt", worktree=True,
                                  sandbox="read-only")
    assert lab.model.requests[-1].sandbox == "read-only"
    assert record["worktree"].get("files_changed", 0) == 0
