"""The demonstration with the real Codex, which is not logged in but has a provider of its own."""

from __future__ import annotations

import sys

import anyio
import pytest

from .harness import LIMIT_S, SERVER

pytestmark = pytest.mark.anyio


DOES = {"`red`": "@shell sed -i s/brown/red/ story.txt", "`grey`": "@shell sed -i s/brown/grey/ story.txt",
        "moral.txt": "@shell echo Look before you leap. > moral.txt"}


async def test_the_demo_lets_a_codex_with_a_provider_of_its_own_do_the_work_and_two_collide(lab):
    lab.model.does.update(DOES)
    with anyio.fail_after(LIMIT_S):
        command = [sys.executable, str(SERVER), "demo"]
        done = await anyio.run_process(command, cwd=lab.repo, env=lab.environment, check=False)
    text = done.stdout.decode()
    assert done.returncode == 0 and done.stderr.count(b"  succeeded  ") == 3, text
    assert "3 of 3 succeeded" in text and "STAND-IN" not in text
    assert "conflict in `story.txt`" in text and " --update-from " in text
    assert len(lab.model.requests) == 6         # each asks for one command, then says so
