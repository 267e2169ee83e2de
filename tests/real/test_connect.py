"""The official SDK client connects as it does by default; test_sdk.py has the rest of what it can ask."""

import anyio
import pytest

from .harness import until

pytestmark = pytest.mark.anyio


async def test_the_sdk_client_connects_by_default_and_runs_a_task(lab):
    async with lab.connect(mode=None) as swarm:
        record = await swarm.call("codex", prompt="@say connected", cwd=str(lab.repo))
        assert record["content"] == "connected"


async def test_the_server_introduces_itself(lab):
    async with lab.connect() as swarm:
        assert swarm.client.server_info.version
        assert "codex_wait" in swarm.client.instructions[:500]
        assert len(swarm.client.instructions) <= 2048


@pytest.mark.filterwarnings("ignore:ping is removed as of 2026-07-28")
async def test_ping_is_answered_while_a_call_waits(lab):
    async with lab.connect() as swarm, anyio.create_task_group() as calls:
        calls.start_soon(lambda: swarm.call("codex", prompt="@hold gate"))
        await until(lambda: lab.model.held("gate"), "the call waits for the model")
        await swarm.client.send_ping()
        lab.model.release("gate")
