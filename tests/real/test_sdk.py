"""Everything that the official SDK client can ask of a server, in every way that it can connect.

The SDK has no MCP Tasks of its own; `Tasks` brings them in through its extension hooks.
"""

import contextlib
import json
import os
import re
import signal
import time
from typing import Any, Dict, List, Literal, Optional

import anyio
import jsonschema
import mcp
import pytest
from mcp import types
from mcp.client.extension import ClientExtension, ResultClaim, advertise
from mcp.client import stdio
from pydantic import ConfigDict

from .harness import LIMIT_S, text_of, until
from .test_stop import family_of_sleepers, supervisor_at_work

pytestmark = pytest.mark.anyio

TOOLS = ["codex", "codex_async", "codex_batch", "codex_reply", "codex_review", "codex_status", "codex_events",
         "codex_wait", "codex_diff", "codex_merge", "codex_cancel"]
REVISION = {"auto": "2026-07-28", "legacy": "2025-11-25", "2026-07-28": "2026-07-28"}
# A client that is told the revision finds the server as one does that asked for it.
in_every_era = pytest.mark.parametrize("mode", ["auto", "legacy"])

TASKS_URI = "codex-swarm:///tasks"
TASKS = "io.modelcontextprotocol/tasks"
INVALID_PARAMS, RESOURCE_NOT_FOUND, MISSING_CAPABILITY, REQUEST_TIMEOUT = -32602, -32002, -32021, -32001


# -- MCP Tasks for the SDK client ----------------------------------------------------------------------
class TaskFields(types.Result):
    """What a handle and every later word about its task have in common."""

    task_id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    status_message: str
    created_at: str
    last_updated_at: str
    ttl_ms: Optional[int]
    poll_interval_ms: int


class TaskHandle(TaskFields):
    result_type: Literal["task"]


class DetailedTask(TaskFields):
    result_type: Optional[Literal["complete"]] = None  # a notification has none
    result: Optional[types.CallToolResult] = None


class Acknowledged(types.Result):
    model_config = ConfigDict(extra="forbid")
    result_type: Literal["complete"]


class TaskParams(types.RequestParams):
    task_id: str


class TaskRequest(types.Request[TaskParams, str]):
    name_param = "taskId"


async def get(session: Any, task_id: str) -> DetailedTask:
    return await session.send_request(TaskRequest(method="tasks/get", params=TaskParams(task_id=task_id)),
                                      DetailedTask)


async def end_of(session: Any, task_id: str) -> DetailedTask:
    async def ended():
        task = await get(session, task_id)
        return task if task.status != "working" else None

    return await until(ended, "the MCP task has ended")


async def cancel(session: Any, task_id: str) -> None:
    await session.send_request(TaskRequest(method="tasks/cancel", params=TaskParams(task_id=task_id)),
                               Acknowledged)


class Tasks(ClientExtension):
    """Turns handles into results by polling, and keeps the handles."""

    identifier = TASKS

    def __init__(self) -> None:
        self.handles: List[TaskHandle] = []

    def claims(self):
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._resolve)]

    async def _resolve(self, handle, context):
        self.handles.append(handle)
        end = await end_of(context.session, handle.task_id)
        assert end.status == "completed", end
        return end.result


def with_tasks(lab, mode="auto", **options):
    """A server and a client that understands handles; `.client` resolves them, `handle_of` does not."""
    return lab.connect(mode=mode, extensions=[Tasks()], **options)


async def handle_of(swarm, tool, **arguments) -> TaskHandle:
    handle = await swarm.client.session.call_tool(tool, arguments, allow_claimed=True)
    assert isinstance(handle, TaskHandle), handle
    assert handle.status == "working"
    return handle


async def running(swarm, count) -> List[str]:
    """The ids of the tasks that have not ended, once there are `count`."""

    async def ids():
        found = [record["task_id"] for record in (await swarm.call("codex_status"))["tasks"]]
        return found if len(found) == count else None

    return await until(ids, "%d tasks run" % count)


# -- what a client looks for ---------------------------------------------------------------------------
@pytest.mark.parametrize("mode", list(REVISION))
async def test_every_tool_is_listed_with_valid_schemas(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        assert swarm.client.protocol_version == REVISION[mode]
        tools = (await swarm.client.list_tools()).tools
    assert [tool.name for tool in tools] == TOOLS
    for tool in tools:
        assert tool.title and tool.description and tool.annotations.read_only_hint is not None
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object" and schema["properties"]


@in_every_era
async def test_every_tool_answers_as_its_output_schema_says(lab, mode):
    """The client itself checks each structured result against the schema that was listed, and raises."""
    async with lab.connect(mode=mode) as swarm:
        task_id = await swarm.start("@say one")
        batch = await swarm.call("codex_batch",
                                 tasks=[{"prompt": "@say two"}, {"prompt": "@fail unauthorized"}])
        [record] = await swarm.wait(task_id)
        reply = await swarm.call("codex_reply", task_id=task_id, prompt="@say three")
        waiting = await swarm.start("@hold gate")
        assert (await swarm.status(waiting))["state"] in ("starting", "running")
        contents = [record["content"], batch["tasks"][0]["content"], reply["content"]]
        assert contents == ["one", "two", "three"]
        assert (await swarm.cancel(waiting))["outcome"] == "cancelled"


@in_every_era
async def test_resources_show_the_server_its_configuration_and_its_tasks(lab, mode):
    async with lab.connect("-c", "model=gpt-5.5", mode=mode) as swarm:
        task_id = (await swarm.call("codex", prompt="@say kept"))["task_id"]
        listed = {str(resource.uri) for resource in (await swarm.client.list_resources()).resources}
        assert listed == {"codex-swarm:///server-info", "codex-swarm:///config", "codex-swarm:///doctor",
                          TASKS_URI}
        facts = await swarm.read("codex-swarm:///server-info")
        assert (facts["pid"], facts["protocol"]) == (swarm.pid, REVISION[mode])
        assert "gpt-5.5" in json.dumps(await swarm.read("codex-swarm:///config"))
        assert task_id in json.dumps(await swarm.read(TASKS_URI))


@in_every_era
async def test_resource_templates_lead_to_a_task_and_its_events(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        task_id = (await swarm.call("codex", prompt="@say kept"))["task_id"]
        templates = (await swarm.client.list_resource_templates()).resource_templates
        record, events = [template.uri_template.replace("{task_id}", task_id) for template in templates]
        assert (await swarm.read(record))["content"] == "kept"
        [events] = (await swarm.client.read_resource(events)).contents
        assert '"thread.started"' in events.text and '"turn.completed"' in events.text


@in_every_era
async def test_a_resource_that_is_not_there_is_told_as_the_revision_wants(lab, mode):
    uri = TASKS_URI + "/0123456789ab"
    async with lab.connect(mode=mode) as swarm:
        with pytest.raises(mcp.MCPError) as caught:
            await swarm.client.read_resource(uri)
    assert caught.value.error.code == (RESOURCE_NOT_FOUND if mode == "legacy" else INVALID_PARAMS)
    assert caught.value.error.data == {"uri": uri}


@in_every_era
async def test_every_prompt_becomes_a_message_with_its_arguments(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        prompts = (await swarm.client.list_prompts()).prompts
        assert len(prompts) == 4
        for prompt in prompts:
            assert prompt.title and prompt.description
            given = {argument.name: "remarkable %s" % argument.name for argument in prompt.arguments}
            [message] = (await swarm.client.get_prompt(prompt.name, given)).messages
            assert message.role == "user"
            assert any(tool in message.content.text for tool in TOOLS)
            assert all(value in message.content.text for value in given.values()), prompt.name


@in_every_era
async def test_a_prompt_without_a_required_argument_is_refused_by_name(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        with pytest.raises(mcp.MCPError) as caught:
            await swarm.client.get_prompt("fan_out", {})
    assert caught.value.error.code == INVALID_PARAMS
    assert "jobs" in caught.value.error.message


# -- calls ---------------------------------------------------------------------------------------------
@in_every_era
async def test_progress_tells_what_runs_until_the_answer_comes(lab, mode):
    told = []

    async def on_progress(progress, total, message):
        told.append((progress, total, message))

    async with lab.connect(mode=mode) as swarm:
        async with anyio.create_task_group() as calls:
            command = "while ! test -e go_on; do sleep 0.05; done"
            calls.start_soon(
                lambda: swarm.call("codex", on_progress, prompt="@shell %s\n@say done" % command))
            await until(lambda: told and "go_on" in told[-1][2], "progress names the command")
            (lab.repo / "go_on").touch()
        count = len(told)
        await swarm.client.list_prompts()  # what was sent before this answer has arrived
    assert len(told) == count
    numbers = [number for number, _, _ in told]
    assert numbers == sorted(set(numbers))
    assert all(total is None or total >= number for number, total, _ in told)


@in_every_era
async def test_a_call_that_the_client_cancels_stops_its_task_and_all_below(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        async with anyio.create_task_group() as calls:
            prompt = "@shell " + family_of_sleepers(lab.nap)
            calls.start_soon(lambda: swarm.call("codex", prompt=prompt, sandbox="danger-full-access"))
            await until(lambda: len(lab.sleepers()) == 5, "all five sleepers sleep")
            [task_id] = await running(swarm, 1)
            calls.cancel_scope.cancel()
        [record] = await swarm.wait(task_id)
        assert lab.sleepers() == []
    assert record["outcome"] == "cancelled"


@in_every_era
async def test_a_call_whose_time_ran_out_at_the_client_leaves_its_task_to_be_collected(lab, mode):
    async with lab.connect(mode=mode) as swarm:
        with pytest.raises(mcp.MCPError) as caught:
            await swarm.client.call_tool("codex", {"prompt": "@hold gate\n@say kept"},
                                         read_timeout_seconds=0.2)
        assert caught.value.error.code == REQUEST_TIMEOUT
        [task_id] = await running(swarm, 1)
        await until(lambda: lab.model.held("gate"), "the task still waits for the model")
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
    assert (record["outcome"], record["content"]) == ("succeeded", "kept")


# -- the end of a session ------------------------------------------------------------------------------
@in_every_era
async def test_the_server_is_gone_when_its_client_has_closed_and_all_tasks_go_on(lab, mode, monkeypatch):
    monkeypatch.setattr(stdio, "PROCESS_TERMINATION_TIMEOUT", LIMIT_S)
    async with contextlib.AsyncExitStack() as first:
        swarm = await first.enter_async_context(lab.connect(mode=mode))
        task_ids = [await swarm.start("@hold gate\n@say still here") for _ in range(2)]
        await until(lambda: lab.model.held("gate") == 2, "the tasks wait for the model")
        since = time.monotonic()
    assert time.monotonic() - since < LIMIT_S, "the client had to terminate the server"
    assert swarm.pid not in [process.pid for process in lab.living()]
    lab.model.release("gate")
    async with lab.connect(mode=mode) as swarm:
        records = await swarm.wait(*task_ids)
    assert [(r["outcome"], r["content"]) for r in records] == [("succeeded", "still here")] * 2


@in_every_era
async def test_a_client_that_closes_in_the_middle_of_a_call_leaves_its_task_to_the_next_server(lab, mode):
    async with anyio.create_task_group() as calls, contextlib.AsyncExitStack() as first:
        swarm = await first.enter_async_context(lab.connect(mode=mode))

        async def run_until_closed():
            with pytest.raises(mcp.MCPError):
                await swarm.call("codex", prompt="@hold gate\n@say kept")

        calls.start_soon(run_until_closed)
        await until(lambda: lab.model.held("gate"), "the call waits for the model")
    async with lab.connect(mode=mode) as swarm:
        [task_id] = await running(swarm, 1)
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
    assert (record["outcome"], record["content"]) == ("succeeded", "kept")


# -- MCP Tasks -----------------------------------------------------------------------------------------
def impersonal(result: types.CallToolResult) -> Dict[str, Any]:
    """A whole result, but for what differs between two runs of one prompt; its text keeps the form."""
    whole = result.model_dump(mode="json", by_alias=True)
    text = re.sub(r"after [\d.]+ s\b", "after elapsed_s", json.dumps(whole["content"]))
    for record in whole["structuredContent"].get("tasks", [whole["structuredContent"]]):
        for name in {"task_id", "threadId"} & set(record):
            assert record[name] in text
            text = text.replace(record[name], name)
        for name in {"task_id", "threadId", "elapsed_s", "started_at"} & set(record):
            record[name] = type(record[name]).__name__
    return {**whole, "content": json.loads(text)}


async def arguments_for(swarm, tool, prompt):
    """Arguments with which `tool` runs, or waits for, tasks with that prompt."""
    if tool == "codex_batch":
        return {"tasks": [{"prompt": prompt}, {"prompt": "@say beside"}]}
    if tool == "codex_reply":
        return {"threadId": (await swarm.call("codex", prompt="@say first"))["threadId"], "prompt": prompt}
    if tool == "codex_wait":
        return {"task_ids": [await swarm.start(prompt)]}
    return {"prompt": prompt}


@pytest.mark.parametrize(
    "mode, tool, prompt",
    [
        ("auto", "codex", "@say done"),
        ("2026-07-28", "codex", "@say done"),
        ("auto", "codex", "@fail unauthorized"),
        ("auto", "codex_reply", "@say done"),
        ("auto", "codex_batch", "@fail unauthorized"),
    ],
)
async def test_a_resolved_handle_is_the_result_that_the_undeclared_call_gives(lab, mode, tool, prompt):
    tasks = Tasks()
    async with lab.connect(mode=mode, extensions=[tasks]) as declared, lab.connect(mode=mode) as undeclared:
        resolved = await declared.result(tool, **await arguments_for(declared, tool, prompt))
        assert tasks.handles and tasks.handles[-1].status == "working"
        direct = await undeclared.result(tool, **await arguments_for(undeclared, tool, prompt))
    assert impersonal(resolved) == impersonal(direct)
    assert direct.is_error == (tool == "codex" and "fail" in prompt)


async def test_a_resolved_wait_is_to_the_byte_what_the_undeclared_wait_gives(lab):
    async with with_tasks(lab) as declared, lab.connect(mode="auto") as undeclared:
        task_ids = [await declared.start(prompt)
                    for prompt in ("@hold gate\n@say done", "@fail unauthorized")]
        handle = await handle_of(declared, "codex_wait", task_ids=task_ids)
        lab.model.release("gate")
        end = await end_of(declared.client.session, handle.task_id)
        assert end.status == "completed"
        assert end.result == await undeclared.result("codex_wait", task_ids=task_ids)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_handle_goes_only_to_a_request_of_the_new_revision_that_declares_tasks(lab, mode):
    """In the handshake era the client may well name the extension when it introduces itself: it means nothing
    there."""
    named = {"extensions": [advertise(TASKS)]} if mode == "legacy" else {}
    async with lab.connect(mode=mode, **named) as swarm:
        batch = await swarm.call("codex_batch", tasks=[{"prompt": "@say one"}, {"prompt": "@say two"}])
        assert [record["content"] for record in batch["tasks"]] == ["one", "two"]
        assert batch["still_running"] == []


async def test_a_request_about_an_mcp_task_is_refused_as_the_extension_wants(lab):
    async with lab.connect(mode="auto") as undeclared, with_tasks(lab) as declared:
        handle = await handle_of(declared, "codex", prompt="@say done")
        for swarm, task_id, code in (
            (undeclared, handle.task_id, MISSING_CAPABILITY),
            (declared, "0" * 32, INVALID_PARAMS),
        ):
            for ask in (get, cancel):
                with pytest.raises(mcp.MCPError) as caught:
                    await ask(swarm.client.session, task_id)
                assert caught.value.error.code == code
        assert (await end_of(declared.client.session, handle.task_id)).status == "completed"


async def test_the_status_message_follows_what_the_tasks_do(lab):
    async with with_tasks(lab) as swarm:
        waits = "@shell until [ -e go_on ]; do sleep 0.05; done\n@hold gate\n@say done"
        handle = await handle_of(swarm, "codex_batch", tasks=[{"prompt": "@say quick"}, {"prompt": waits}])

        async def told(*words):
            async def all_there():
                message = (await get(swarm.client.session, handle.task_id)).status_message
                return all(word in message for word in words)

            await until(all_there, "the status message says %s" % (words,))

        await told("1 of 2 done", "go_on")
        (lab.repo / "go_on").touch()
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        await told("1 of 2 done", "waiting for the model")
        lab.model.release("gate")
        await told("2 of 2 done")


@pytest.mark.parametrize(
    "tool, lost",
    [("codex", "closed"), ("codex", "killed"), ("codex_batch", "killed"), ("codex_wait", "killed")]
)
async def test_a_handle_is_resolved_by_another_server_after_the_first_was(lab, tool, lost):
    async with with_tasks(lab) as first:
        handle = await handle_of(first, tool, **await arguments_for(first, tool, "@hold gate\n@say survived"))
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        if lost == "killed":
            os.kill(first.pid, signal.SIGKILL)
    async with with_tasks(lab) as second:
        task = await get(second.client.session, handle.task_id)
        assert (task.status, task.created_at, task.result) == ("working", handle.created_at, None)
        lab.model.release("gate")
        end = await end_of(second.client.session, handle.task_id)
    assert (end.status, end.created_at, end.result.is_error) == ("completed", handle.created_at, False)
    assert "survived" in text_of(end.result) and "survived" in json.dumps(end.result.structured_content)


async def test_a_task_that_ended_while_no_server_lived_is_resolved_by_the_next_one(lab):
    async with with_tasks(lab) as first:
        handle = await handle_of(first, "codex", prompt="@hold gate\n@say survived")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        os.kill(first.pid, signal.SIGKILL)
    lab.model.release("gate")
    await until(lambda: not lab.living(), "the task has ended by itself")
    async with with_tasks(lab) as second:
        task = await get(second.client.session, handle.task_id)
    assert (task.status, task.result.structured_content["content"]) == ("completed", "survived")


async def test_cancelling_the_handle_of_a_batch_stops_its_tasks_and_all_below(lab):
    async with with_tasks(lab) as starter, with_tasks(lab) as other:
        request = {"prompt": "@shell " + family_of_sleepers(lab.nap), "sandbox": "danger-full-access"}
        handle = await handle_of(starter, "codex_batch", tasks=[request, request])
        task_ids = await running(starter, 2)
        await until(lambda: len(lab.sleepers()) == 10, "all ten sleepers sleep")
        await cancel(other.client.session, handle.task_id)
        end = await end_of(starter.client.session, handle.task_id)
        assert lab.sleepers() == []
        assert (end.status, end.result) == ("cancelled", None)
        assert [record["outcome"] for record in await starter.wait(*task_ids)] == ["cancelled", "cancelled"]
        await until(lambda: not lab.at_work(), "only the servers are left")


async def test_cancelling_the_handle_of_a_wait_leaves_its_tasks_running(lab):
    async with with_tasks(lab) as swarm:
        task_id = await swarm.start("@hold gate\n@say went on")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        handle = await handle_of(swarm, "codex_wait", task_ids=[task_id])
        await cancel(swarm.client.session, handle.task_id)
        assert (await end_of(swarm.client.session, handle.task_id)).status == "cancelled"
        assert (await swarm.status(task_id))["state"] in ("starting", "running")
        lab.model.release("gate")
        [record] = await swarm.wait(task_id)
        assert (await get(swarm.client.session, handle.task_id)).status == "cancelled"
    assert (record["outcome"], record["content"]) == ("succeeded", "went on")


async def test_an_mcp_task_whose_supervisor_was_killed_is_completed_and_its_result_an_error(lab):
    async with with_tasks(lab) as swarm:
        handle = await handle_of(swarm, "codex", prompt="@hold gate")
        await until(lambda: lab.model.held("gate"), "the task waits for the model")
        os.kill(supervisor_at_work(lab).pid, signal.SIGKILL)
        end = await end_of(swarm.client.session, handle.task_id)
        assert (end.status, end.result.is_error) == ("completed", True)
        assert end.result.structured_content["outcome"] == "lost"
        assert "lost" in text_of(end.result)
        await until(lambda: not lab.at_work(), "only the server is left")


async def test_a_call_that_does_not_wait_is_answered_at_once_where_handles_are_understood_too(lab):
    """The session raises UnexpectedClaimedResult for a handle that nobody said would be allowed."""
    async with with_tasks(lab) as swarm:

        async def answer(tool, **arguments):
            return (await swarm.client.session.call_tool(tool, arguments)).structured_content

        one = (await answer("codex_async", prompt="@hold gate"))["task_id"]
        [two] = (await answer("codex_batch", tasks=[{"prompt": "@hold gate"}], wait=False))["task_ids"]
        assert len((await answer("codex_status"))["tasks"]) == 2
        stopped = (await answer("codex_cancel", task_ids=[one, two]))["tasks"]
    assert [record["outcome"] for record in stopped] == ["cancelled", "cancelled"]


async def test_a_handle_that_is_cancelled_at_once_leaves_nothing_running(lab):
    async with with_tasks(lab) as swarm:
        for tool in ("codex", "codex_batch"):
            handle = await handle_of(swarm, tool, **await arguments_for(swarm, tool, "@hold gate"))
            await cancel(swarm.client.session, handle.task_id)
            assert (await end_of(swarm.client.session, handle.task_id)).status == "cancelled"
        await until(lambda: not lab.at_work(), "only the server is left")
