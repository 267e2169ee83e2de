"""How runs end badly, told by kind, with codex's own message, and whether a retry can help."""

import pytest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "failure, kind, retryable, message",
    [
        ("unauthorized", "auth", False, "401 Unauthorized"),
        ("rate_limit", "rate_limit", True, "429 Too Many Requests"),
        ("usage_limit", "usage_limit", False, "usage limit"),
        ("server_error", "overloaded", True, "high demand"),
        ("overloaded", "overloaded", True, "at capacity"),
        ("bad_model", "bad_request", False, "model 'none' does not exist"),
        ("bad_value", "bad_request", False, "Unsupported value"),
        ("context_overflow", "context_overflow", False, "context window"),
        ("dropped_stream", "network", True, "stream disconnected"),
    ],
)
async def test_a_failure_of_the_service_is_told_by_its_kind(lab, failure, kind, retryable, message):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="@fail " + failure)
    assert (record["state"], record["outcome"], record["exit_code"]) == ("ended", "failed", 1)
    assert record["failure"]["kind"] == kind
    assert record["failure"]["retryable"] is retryable
    assert message in record["failure"]["message"]
    assert record["failure"]["advice"]


async def test_a_refused_connection_is_a_network_failure(lab, closed_port):
    config = {
        "features": {"unbounded_connection_retries": False},
        "model_providers": {"mock": {"base_url": "http://127.0.0.1:%d/v1" % closed_port}},
    }
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="hello", config=config)
    assert record["failure"]["kind"] == "network"
    assert record["failure"]["retryable"] is True


async def test_a_missing_codex_is_told_with_the_way_to_get_it(lab):
    missing = str(lab.directory / "no-such-codex")
    async with lab.connect("--codex-bin", missing) as swarm:
        text = await swarm.refused("codex", prompt="hello")
        assert missing in text and "install" in text
        assert (await swarm.client.list_tools()).tools


async def test_a_failed_run_seen_by_wait_is_an_ordinary_result(lab):
    async with lab.connect() as swarm:
        task_id = await swarm.start("@fail unauthorized")
        [record] = await swarm.wait(task_id)
    assert record["outcome"] == "failed"
    assert record["failure"]["kind"] == "auth"


async def test_one_failure_in_a_batch_leaves_the_others_alone(lab):
    async with lab.connect() as swarm:
        result = await swarm.result("codex_batch", tasks=[{"prompt": "@fail server_error"}, {"prompt": "@say fine"}])
    outcomes = [record["outcome"] for record in result.structured_content["tasks"]]
    assert outcomes == ["failed", "succeeded"]


async def test_config_that_codex_rejects_is_a_config_failure_with_its_words(lab):
    async with lab.connect() as swarm:
        record = await swarm.failed("codex", prompt="hello", config={"model_verbosity": "loud"})
    assert record["failure"]["kind"] == "config"
    assert "model_verbosity" in record["failure"]["message"] or "loud" in record["failure"]["message"]
    assert record["failure"]["retryable"] is False


async def test_a_directory_outside_git_is_refused_unless_the_server_allows_it(lab, tmp_path):
    (tmp_path / ".git").mkdir()         # as its sandbox leaves it
    async with lab.connect() as swarm:
        text = await swarm.refused("codex", prompt="hello", cwd=str(tmp_path))
        assert "cwd" in text and "--skip-git-repo-check" in text
    assert lab.model.requests == []
    async with lab.connect("--skip-git-repo-check") as swarm:
        assert (await swarm.call("codex", prompt="@say allowed", cwd=str(tmp_path)))["content"] == "allowed"


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 1_048_577}, "prompt"),
        ({"prompt": "hello", "cwd": "no-such-directory"}, "cwd"),
        ({"prompt": "hello", "cwd": "story.txt"}, "cwd"),
        ({"prompt": "hello", "sandbox": "none"}, "sandbox"),
        ({"prompt": "hello", "modell": "x"}, "modell"),
    ],
    ids=["empty prompt", "prompt too long", "no directory", "cwd is a file", "bad sandbox", "unknown argument"],
)
async def test_a_wrong_argument_is_named_and_nothing_starts(lab, arguments, named):
    async with lab.connect() as swarm:
        assert named in await swarm.refused("codex_async", **arguments)
        assert (await swarm.call("codex_status"))["tasks"] == []
    assert lab.model.requests == []
