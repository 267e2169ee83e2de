"""Every argument arrives at the model as it was given."""

import json

import pytest

from .harness import processes, until

pytestmark = pytest.mark.anyio

HUGE = "".join("%08d " % number for number in range(100_000))  # 900,000 characters


async def test_prompts_arrive_character_by_character(lab):
    prompts = [HUGE, "-", "--help", "- one\n- two", "resume", "review", "/compact now",
               "ä🙂\u2028\x85 \\n \"quoted\"\t\n\n"]
    async with lab.connect() as swarm:
        answer = await swarm.call("codex_batch", tasks=[{"prompt": prompt} for prompt in prompts])
    for prompt, record in zip(prompts, answer["tasks"]):
        assert record["content"].startswith("%d characters, sha256 " % len(prompt))
    assert sorted(request.prompt for request in lab.model.requests) == sorted(prompts)


@pytest.mark.parametrize("spelling", ["kebab-case", "snake_case"])
async def test_instructions_arrive_under_both_spellings(lab, spelling):
    arguments = {"base-instructions": "You are a teapot.", "developer-instructions": "Short and stout."}
    if spelling == "snake_case":
        arguments = {name.replace("-", "_"): value for name, value in arguments.items()}
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="hello", **arguments)
    developer = lab.model.requests[-1].developer
    assert developer[0] == "You are a teapot."
    assert "Short and stout." in developer
    assert not [part for part in developer if "You are Codex" in part]


async def test_strings_that_look_like_toml_stay_strings(lab):
    texts = ["123", "true", "[1]", "1.5", '"quoted"', "a = 1", "x # y", "nan", "🙂"]
    tasks = [{"prompt": text, "config": {"developer_instructions": text}} for text in texts]
    async with lab.connect() as swarm:
        await swarm.call("codex_batch", tasks=tasks, defaults={"model": "123"})
    assert sorted(request.prompt for request in lab.model.requests) == sorted(texts)
    for request in lab.model.requests:
        assert request.prompt in request.developer and request.model == "123"


async def test_nested_config_reaches_codex_as_dotted_keys(lab):
    config = {
        "tools": {"update_plan": {"enabled": True}},
        "model_providers": {"mock": {"http_headers": {"x-swarm": "true"}}},
    }
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="hello", config=config)
    assert "update_plan" in lab.model.requests[-1].tools
    assert lab.model.requests[-1].headers["x-swarm"] == "true"


async def test_a_default_of_the_server_holds_until_a_call_overrides_it(lab):
    async with lab.connect("-c", "model=default-model", "-c", "sandbox_mode=workspace-write") as swarm:
        await swarm.call("codex", prompt="first")
        await swarm.call("codex", prompt="second", model="own-model", sandbox="read-only")
    first, second = lab.model.requests
    assert (first.model, first.sandbox) == ("default-model", "workspace-write")
    assert (second.model, second.sandbox) == ("own-model", "read-only")


async def test_any_config_key_can_be_a_default_of_the_server(lab):
    async with lab.connect("-c", 'developer_instructions="Be brief."') as swarm:
        await swarm.call("codex", prompt="hello")
        await swarm.call("codex", prompt="hello", **{"developer-instructions": "Be long."})
    first, second = lab.model.requests
    assert "Be brief." in first.developer
    assert "Be long." in second.developer and "Be brief." not in second.developer


async def test_a_profile_is_used(lab):
    (lab.codex_home / "fast.config.toml").write_text('model = "profile-model"\n')
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="hello", profile="fast")
    assert lab.model.requests[-1].model == "profile-model"


async def test_an_approval_policy_is_accepted_with_a_warning_where_codex_exec_differs(lab):
    policies = ["untrusted", "on-failure", "on-request", "never"]
    tasks = [{"prompt": "@say fine", "approval-policy": policy} for policy in policies]
    async with lab.connect() as swarm:
        answer = await swarm.call("codex_batch", tasks=tasks)
    for policy, record in zip(policies, answer["tasks"]):
        assert record["content"] == "fine"
        warned = [warning for warning in record.get("warnings", []) if "approval-policy" in warning]
        assert bool(warned) == (policy != "never")


@pytest.mark.parametrize(
    "sandbox, written",
    [("read-only", []), ("workspace-write", ["inside"]), ("danger-full-access", ["inside", "outside"])]
)
async def test_the_sandbox_allows_what_its_name_says(lab, sandbox, written):
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt="@shell touch inside; touch ../outside", sandbox=sandbox)
    found = [path.name for path in (lab.repo / "inside", lab.directory / "outside") if path.exists()]
    assert found == written


async def test_instructions_and_the_compact_prompt_are_in_no_process_list_and_arrive(lab):
    secret = "secret-%s" % lab.nap
    texts = {"base-instructions": secret + " base", "compact-prompt": secret + " compact"}
    async with lab.connect() as swarm:
        task_id = await swarm.start("@hold gate", config={"model_auto_compact_token_limit": 50}, **texts)
        await until(lambda: lab.model.held("gate"), "the model is asked")
        assert not [process for process in processes() if secret in process.args]
        lab.model.release("gate")
        [first] = await swarm.wait(task_id)
        await swarm.call("codex_reply", threadId=first["threadId"], prompt="@shell true\n@say done")
    sent = [json.dumps(request.body) for request in lab.model.requests]
    assert all(secret + " base" in body for body in sent)
    assert any(secret + " compact" in body
               for body in sent), "the thread was compacted with the prompt that was given"


async def test_the_prompt_is_in_no_process_list(lab):
    secret = "secret-%s" % lab.nap
    async with lab.connect() as swarm:
        await swarm.call("codex", prompt=secret + "\n@shell cat /proc/[0-9]*/cmdline > args",
                         sandbox="danger-full-access")
    assert "codex" in (lab.repo / "args").read_text(errors="replace")
    assert secret not in (lab.repo / "args").read_text(errors="replace")
