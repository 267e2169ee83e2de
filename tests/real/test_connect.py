"""The official SDK client connects in every mode and finds what a client looks for."""

import anyio
import pytest

from .harness import until

pytestmark = pytest.mark.anyio

TOOLS = ["codex", "codex_async", "codex_batch", "codex_reply", "codex_status", "codex_wait", "codex_cancel"]


@pytest.mark.parametrize("mode", ["legacy", "auto", None], ids=["legacy", "auto", "default"])
async def test_the_sdk_client_connects_and_runs_a_task(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        assert [tool.name for tool in (await swarm.client.list_tools()).tools] == TOOLS
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


async def test_a_call_that_the_client_cancels_stops_its_task(lab):
    async with lab.connect() as swarm:
        async with anyio.create_task_group() as calls:
            calls.start_soon(lambda: swarm.call("codex", prompt="@hold gate"))
            await until(lambda: lab.model.held("gate"), "the call waits for the model")
            [running] = (await swarm.call("codex_status"))["tasks"]
            calls.cancel_scope.cancel()
        [record] = await swarm.wait(running["task_id"])
        assert record["outcome"] == "cancelled"


async def test_a_client_that_goes_away_stops_nothing(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate\n@say still here")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
    lab.model.release("gate")
    async with lab.connect() as swarm:
        [record] = await swarm.wait(task_id)
        assert record["outcome"] == "succeeded"
        assert record["content"] == "still here"


async def test_resources_show_the_server_its_configuration_and_its_tasks(lab):
    async with lab.connect("-c", "model=gpt-5.5") as swarm:
        task_id = (await swarm.call("codex", prompt="@say kept"))["task_id"]
        listed = {str(resource.uri) for resource in (await swarm.client.list_resources()).resources}
        assert {"codex-swarm:///server-info", "codex-swarm:///config", "codex-swarm:///tasks"} <= listed
        for uri in listed:
            assert await swarm.read(uri)
        assert task_id in str(await swarm.read("codex-swarm:///tasks"))


async def test_resource_templates_lead_to_a_task_and_its_events(lab):
    async with lab.connect() as swarm:
        task_id = (await swarm.call("codex", prompt="@say kept"))["task_id"]
        templates = (await swarm.client.list_resource_templates()).resource_templates
        assert {template.uri_template for template in templates} == {
            "codex-swarm:///tasks/{task_id}",
            "codex-swarm:///tasks/{task_id}/events",
        }
        assert (await swarm.read("codex-swarm:///tasks/" + task_id))["content"] == "kept"
        [events] = (await swarm.client.read_resource("codex-swarm:///tasks/%s/events" % task_id)).contents
        assert '"thread.started"' in events.text and '"turn.completed"' in events.text
