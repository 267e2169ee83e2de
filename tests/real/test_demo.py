"""The demonstration with the real Codex, which is not logged in but has a provider of its own."""

from __future__ import annotations

import sys

import anyio
import pytest

from .harness import LIMIT_S, SERVER

pytestmark = pytest.mark.anyio


async def test_the_demo_asks_a_codex_that_has_a_provider_of_its_own(lab):
    with anyio.fail_after(LIMIT_S):
        command = [sys.executable, str(SERVER), "demo"]
        done = await anyio.run_process(command, cwd=lab.repo, env=lab.environment, check=False)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), text
    assert "5 of 5 succeeded" in text and "STAND-IN" not in text
    assert len(lab.model.requests) == 5
