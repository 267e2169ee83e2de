"""What `codex exec` offers beyond a prompt does what our documents say of it."""

import base64
import json

import pytest

from .harness import until

pytestmark = pytest.mark.anyio

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOWN = {
    "type": "object",
    "properties": {"town": {"type": "string"}},
    "required": ["town"],
    "additionalProperties": False,
}


async def test_images_schema_effort_and_search_arrive_at_the_model(lab):
    (lab.repo / "shot.png").write_bytes(PIXEL)
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt='look at it\n@say {"town": "Ulm"}', effort="low",
                                  images=["shot.png"], search="live", output_schema=TOWN)
    body = lab.model.requests[-1].body
    images = [part["image_url"] for item in body["input"] for part in item.get("content") or ()
              if part["type"] == "input_image"]
    assert [image.split(",")[0] for image in images] == ["data:image/png;base64"]
    assert body["text"]["format"]["schema"] == TOWN
    assert body["reasoning"]["effort"] == "low"
    assert [tool for tool in body["tools"] if tool["type"] == "web_search"][0]["external_web_access"] is True
    assert record["structured"] == {"town": "Ulm"}


async def test_an_answer_that_codex_let_pass_is_told_not_to_fit(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt='@say {"city": "Ulm"}', output_schema=TOWN)
    assert record["outcome"] == "succeeded"
    assert "does not fit `output_schema`: `town` is required" in record["warnings"][0]


@pytest.mark.parametrize("review", [False, True], ids=["by itself", "with approve_for_me"])
async def test_a_task_writes_in_the_directories_that_were_added(lab, review):
    extra = lab.directory / "extra"
    extra.mkdir()
    more = {"approve_for_me": True} if review else {"sandbox": "workspace-write"}
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@shell touch %s/here ../outside" % extra,
                                  add_dirs=[str(extra)], **more)
        assert record["sandbox"] == "workspace-write"
        await swarm.call("codex_reply", threadId=record["threadId"], prompt="@shell touch %s/again" % extra,
                         **more)
    assert sorted(path.name for path in extra.iterdir()) == ["again", "here"]
    assert not (lab.directory / "outside").exists()


async def test_an_isolated_task_starts_no_mcp_server_of_the_user(lab):
    started = lab.directory / "started"
    config = lab.codex_home / "config.toml"
    witness = '\n[mcp_servers.witness]\ncommand = "touch"\nargs = ["%s"]\n' % started
    config.write_text(config.read_text() + witness)
    provider = {"name": "mock", "base_url": lab.model.url, "wire_api": "responses",
                "requires_openai_auth": False}
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@say alone", isolate=True, model="gpt-5.5",
                                  config={"model_provider": "mock", "model_providers": {"mock": provider}})
        assert record["content"] == "alone" and not started.exists()
        await swarm.call("codex", prompt="@say with the user's own")
    assert started.exists()


async def test_a_busy_thread_is_copied_while_it_goes_on(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum\n@say noted")
        busy = await swarm.start("@hold gate\n@say done", threadId=first["threadId"])
        await until(lambda: lab.model.held("gate"), "the model is asked")
        copy = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@recall", fork=True)
        lab.model.release("gate")
        [ended] = await swarm.wait(busy)
    assert copy["threadId"] != first["threadId"] == ended["threadId"]
    assert "my word is plum" in copy["content"] and ended["content"] == "done"


async def test_an_interrupting_reply_ends_the_turn_and_keeps_the_memory(lab):
    async with lab.connect() as swarm:
        first = await swarm.call("codex", prompt="my word is plum\n@say noted")
        busy = await swarm.start("@shell sleep %s" % lab.nap, threadId=first["threadId"],
                                 sandbox="workspace-write")
        await until(lab.sleepers, "the command runs")
        second = await swarm.call("codex_reply", threadId=first["threadId"], prompt="@recall", interrupt=True)
        [stopped] = await swarm.wait(busy)
    assert "my word is plum" in second["content"] and busy in json.dumps(second["warnings"])
    assert stopped["outcome"] == "cancelled" and not lab.sleepers()


async def test_an_ephemeral_task_leaves_no_rollout(lab):
    async with lab.connect() as swarm:
        record = await swarm.call("codex", prompt="@say x", ephemeral=True)
        assert "was `ephemeral`" in await swarm.refused("codex_reply", task_id=record["task_id"], prompt="y")
    assert not list(lab.codex_home.glob("sessions/**/*.jsonl"))


async def test_a_review_of_a_tasks_work_tells_its_findings_as_data(lab):
    place = {"absolute_file_path": str(lab.repo / "story.txt"), "line_range": {"start": 1, "end": 2}}
    found = {"title": "[P1] Too short", "body": "Tell\nmore.", "confidence_score": 0.9, "priority": 1,
             "code_location": place}
    answer = {"findings": [found], "overall_correctness": "patch is incorrect",
              "overall_explanation": "because", "overall_confidence_score": 0.8}
    async with lab.connect() as swarm:
        record = await swarm.call("codex_review", instructions="look\n@say " + json.dumps(answer))
        task = await swarm.call("codex", prompt="@shell echo more > more.txt", worktree=True)
        of_task = await swarm.call("codex_review", task_id=task["task_id"])
        refusal = await swarm.refused("codex_review", base="nowhere")
    assert record["findings"] == [{"title": "Too short", "file": place["absolute_file_path"], "lines": [1, 2],
                                   "body": "Tell\nmore.", "priority": 1}]
    assert record["sandbox"] == "read-only" and "`base`" in refusal
    assert of_task["outcome"] == "succeeded"
    assert "git diff %s" % task["worktree"]["base"] in lab.model.requests[-1].prompt


async def test_events_of_the_real_codex_are_read_on_from_a_cursor(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@shell echo hello\n@hold gate\n@say done", sandbox="read-only")
        await until(lambda: lab.model.held("gate"), "the model is asked again")
        first = await swarm.call("codex_events", task_id=task_id)
        lab.model.release("gate")
        await swarm.wait(task_id)
        rest = await swarm.call("codex_events", task_id=task_id, cursor=first["next_cursor"])
        commands = await swarm.call("codex_events", task_id=task_id, types=["command_execution"])
    assert not first["ended"] and rest["ended"]
    kinds = [event["type"] for event in first["events"] + rest["events"]]
    assert kinds[:2] == ["thread.started", "turn.started"] and kinds[-1] == "turn.completed"
    assert "hello" in commands["events"][-1]["item"]["aggregated_output"]
