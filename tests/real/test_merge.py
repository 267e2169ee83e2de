"""What the real codex did in worktrees, looked at and brought together."""
import hashlib

import pytest

from .harness import until

pytestmark = pytest.mark.anyio


def bytes_of(lab):
    """HEAD, the index and every file of the user's checkout."""
    files = {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(lab.repo.rglob("*"))
             if p.is_file() and ".git" not in p.relative_to(lab.repo).parts}
    return files, [(lab.repo / ".git" / name).read_bytes()
                   for name in ("HEAD", "index")], lab.git("rev-parse", "HEAD")


async def test_four_tasks_of_which_two_conflict_are_told_apart_united_and_merged(lab):
    (lab.repo / "list.txt").write_text("".join("%d\n" % n for n in range(20)))
    lab.git("add", ".")
    lab.git("commit", "--quiet", "--message", "list")
    prompts = ["@shell sed -i s/^5$/five/ list.txt", "@shell sed -i s/^15$/fifteen/ list.txt",
               "@shell sed -i s/^5$/FIVE/ list.txt", "@shell echo new > new.txt"]
    async with lab.connect() as swarm:
        records = (await swarm.call("codex_batch", tasks=[{"prompt": p} for p in prompts],
                                    defaults={"worktree": True}))["tasks"]
        ids = [record["task_id"] for record in records]
        before, refs = bytes_of(lab), lab.git("for-each-ref")

        found = await swarm.call("codex_merge", task_ids=ids, dry_run=True)
        assert [(c["tasks"], [(f["path"], f["hunks"][0]["line"]) for f in c["files"]])
                for c in found["conflicts"]] == [([ids[0], ids[2]], [("list.txt", 6)])]
        hunk = found["conflicts"][0]["files"][0]["hunks"][0]["text"]
        assert "five" in hunk and "FIVE" in hunk and lab.git("for-each-ref") == refs

        merged = await swarm.call("codex_merge", task_ids=[ids[0], ids[1], ids[3]])
        assert bytes_of(lab) == before
        assert lab.git("show", merged["branch"] + ":list.txt").split()[5::10] == ["five", "fifteen"]
        assert lab.git("show", merged["branch"] + ":new.txt") == "new\n"

        reply = await swarm.call("codex_reply", task_id=ids[2], update_from=merged["branch"],
                                 prompt="@shell sed -i -e '/^<<<<<<< /d' -e '/^=======$/d' -e '/^>>>>>>> "
                                        "/d' list.txt")
        assert "list.txt" in reply["warnings"][0]
        done = await swarm.call("codex_merge", task_ids=[*ids, reply["task_id"]], into="HEAD")
    assert done["branch"] == "main" and lab.git("status", "--porcelain") == ""
    assert (lab.repo / "list.txt").read_text().split()[4:8] == ["4", "FIVE", "five", "6"]
    assert (lab.repo / "new.txt").exists()


async def test_a_chain_of_tasks_begins_with_what_the_one_before_it_did_and_said_and_merges(lab):
    write, add = "@shell echo one >>tale.txt", "@shell echo two >>tale.txt"
    async with lab.connect() as swarm:
        tasks = [{"prompt": write + "\n@say the beginning", "worktree": True},
                 {"prompt": add + "\n@say after {{result:0}}", "worktree": {"base": "task:0"}}]
        answer = await swarm.call("codex_batch", tasks=tasks)
        first, second = answer["tasks"]
        merged = await swarm.call("codex_merge", task_ids=[second["task_id"]], into="HEAD")
    assert (first["content"], second["content"]) == ("the beginning", "after the beginning")
    assert second["worktree"]["base"] == first["worktree"]["head"] and merged["merged"] == [second["task_id"]]
    assert (lab.repo / "tale.txt").read_text() == "one\ntwo\n"


async def test_the_diff_of_a_running_task_shows_what_it_has_written(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@shell echo half > half.txt\n@hold gate", worktree=True,
                                    write_paths=["part"])
        await until(lambda: lab.model.held("gate"), "the file is written")
        live = await swarm.call("codex_diff", task_id=task_id, view="files")
        assert live["content"] == "A half.txt  (outside write_paths)" and live["live"] is True
        record = await swarm.cancel(task_id)
        assert record["outside_write_paths"]["first"] == ["half.txt"]
        patch = (await swarm.call("codex_diff", task_id=task_id, view="patch"))["content"]
    assert patch.endswith("+half") and lab.git("status", "--porcelain") == ""


async def test_the_diff_of_a_task_without_a_worktree_names_what_codex_edited(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@patch *** Add File: patched.txt\\n+x\n@say done",
                                  sandbox="workspace-write")
        found = await swarm.call("codex_diff", task_id=record["task_id"], view="files")
    assert found["content"] == "A patched.txt"
    assert found["edited"]["first"] == ["patched.txt"]
    assert "no worktree" in found["note"]
