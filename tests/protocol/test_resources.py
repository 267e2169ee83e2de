"""Resources: three fixed ones and two templates."""
import json
import re

import pytest

FIXED = ["codex-swarm:///" + name for name in ("server-info", "config", "doctor", "tasks")]
TEMPLATES = ["codex-swarm:///tasks/{task_id}", "codex-swarm:///tasks/{task_id}/events"]


def read(c, uri):
    """The text of a resource, which must be one content of the same URI."""
    contents = c.request("resources/read", {"uri": uri})["result"]["contents"]
    assert [content["uri"] for content in contents] == [uri]
    assert contents[0]["mimeType"]
    return contents[0]["text"]


def test_the_fixed_resources_are_listed(client):
    resources = client().request("resources/list")["result"]["resources"]
    assert [r["uri"] for r in resources] == FIXED
    assert all(r["name"] and r["description"] and r["mimeType"] for r in resources)


def test_the_templates_are_listed(client):
    templates = client().request("resources/templates/list")["result"]["resourceTemplates"]
    assert [t["uriTemplate"] for t in templates] == TEMPLATES
    assert all(t["name"] and t["description"] for t in templates)


@pytest.mark.parametrize("uri", FIXED)
def test_each_fixed_resource_can_be_read(client, uri):
    assert json.loads(read(client(), uri)) is not None


def test_server_info_says_which_codex_would_run(client):
    c = client()
    info = read(c, "codex-swarm:///server-info")
    assert c.init["serverInfo"]["version"] in info
    assert "fake_codex" in info


def test_config_shows_the_root_and_the_defaults(client, root):
    shown = read(client("-c", "model=gpt-5.5"), "codex-swarm:///config")
    assert str(root) in shown
    assert "gpt-5.5" in shown


def test_config_masks_the_values_of_keys_that_look_secret(client):
    shown = read(
        client("-c",
               'model_providers.x.http_headers={Authorization = "Bearer abc123", "X-Api-Key"="def456", '
               'plain="seen"}', "-c", "x.client_secret=ghi789"),
                 "codex-swarm:///config")
    assert not any(secret in shown for secret in ("abc123", "def456", "ghi789"))
    assert "seen" in shown
    assert "client_secret=***" in shown


def test_tasks_lists_every_task_also_the_ended_ones(client, gate):
    c = client()
    ended = c.ok("codex", prompt="SAY x")["task_id"]
    running = c.begin(gate.wait)
    listed = read(c, "codex-swarm:///tasks")
    assert ended in listed and running in listed


def test_a_task_is_a_resource_with_its_record(client):
    c = client()
    task = c.ok("codex", prompt="SAY remarkable answer")["task_id"]
    record = json.loads(read(c, "codex-swarm:///tasks/" + task))
    assert (record["task_id"], record["outcome"],
            record["content"]) == (task, "succeeded", "remarkable answer")


def test_the_events_of_a_task_are_codexs_own_lines(client):
    c = client()
    task = c.ok("codex", prompt="SHELL echo hello\nSAY done")["task_id"]
    events = read(c, "codex-swarm:///tasks/%s/events" % task)
    assert [json.loads(line)["type"] for line in events.splitlines()] == [
        "thread.started", "turn.started", "item.started", "item.completed", "item.completed",
        "turn.completed"]


def test_the_events_of_a_flood_stay_small_enough_to_send(client):
    c = client()
    task = c.ok("codex", prompt="FLOOD 5\nSAY done")["task_id"]
    request = c.start("resources/read", {"uri": "codex-swarm:///tasks/%s/events" % task})
    c.result(request)
    assert c.result_chars(request) < 2000000


def test_no_resource_shows_a_secret_of_the_environment(client):
    c = client(env={"CODEX_API_KEY": "remarkable-secret", "OPENAI_API_KEY": "remarkable-secret"})
    assert not any(re.search("remarkable-secret", read(c, uri)) for uri in FIXED)
