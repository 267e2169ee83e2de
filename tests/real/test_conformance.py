"""The public conformance suite of the Model Context Protocol, on our server behind `bridge`.

The suite is written for a server made for it, whose tools, prompts and resources have given names. Where one
of ours does what such a one is to do, `STAND_INS` translates the request; the answer is our server's,
unchanged. What that cannot give stands in `NEEDS`. The suite's own list is compared with what is run and what
is not, so that a scenario which a new version of the suite brings is noticed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Set

import pytest

from conftest import warm

from .bridge import Bridge
from .conftest import npm
from .harness import LIMIT_S

SUITE_PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"

EXTENSIONS = "extensions"  # belong to no revision

RUN = {  # revision -> scenarios that have to pass
    "2025-11-25": [
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "tools-call-simple-text",
        "tools-call-error",
        "resources-list",
        "resources-read-text",
        "prompts-list",
        "prompts-get-simple",
        "prompts-get-with-args",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
    ],
    "2026-07-28": [
        "server-stateless",
        "caching",
        "tools-list",
        "tools-call-simple-text",
        "tools-call-error",
        "resources-list",
        "resources-read-text",
        "sep-2164-resource-not-found",
        "prompts-list",
        "prompts-get-simple",
        "prompts-get-with-args",
        "input-required-result-unsupported-methods",
        "http-header-validation",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
    ],
    EXTENSIONS: [
        "tasks-lifecycle",
        "tasks-capability-negotiation",
        "tasks-wire-fields",
        "tasks-request-state-removal",
        "tasks-request-headers",
        "tasks-dispatch-and-envelope",
    ],
}

ATTEMPTS = 3

# Name in the suite -> what of ours does the same: (name, arguments) or a URI, made of the arguments given.
STAND_INS: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "test_simple_text": lambda given: ("codex_status", {}),
    "test_logging_tool": lambda given: ("codex_status", {}),  # the suite waits half a second for it
    "test_streaming_elicitation": lambda given: ("codex_status", {}),
    "test_error_handling": lambda given: ("codex", {"prompt": "FAIL as it should"}),
    "greet": lambda given: ("codex_status", {}),
    "slow_compute": lambda given: ("codex", {"prompt": "SLEEP %d" % given["seconds"]}),
    "failing_job": lambda given: ("codex", {"prompt": "FAIL as it should"}),
    "confirm_delete": lambda given: ("codex", {"prompt": "SAY deleted"}),
    "test_simple_prompt": lambda given: ("review_and_fix", {}),
    "test_prompt_with_arguments": lambda given: ("fan_out", {"jobs": given["arg1"], "cwd": given["arg2"]}),
    "test://static-text": lambda given: "codex-swarm:///tasks",
    "test://watched-resource": lambda given: "codex-swarm:///tasks",
}

# All that is not a success in the scenarios that are run: scenario -> check -> what the suite says of it.
FLAWS = {
    "server-stateless": {
        "sep-2575-server-honors-notification-filter": "SKIPPED",  # these three: we declare no subscriptions
        "sep-2575-server-sends-subscription-ack": "SKIPPED",
        "sep-2575-server-tags-subscription-id": "SKIPPED",
        "sep-2575-server-rejects-undeclared-capability": "FAILURE",  # needs tool test_missing_capability;
        "sep-2575-missing-capability-http-400": "FAILURE",  # none of ours asks for a capability
        "sep-2575-server-sends-prompts-list-changed-on-subscription": "SKIPPED",  # our lists never change
        "sep-2575-server-sends-tools-list-changed-on-subscription": "SKIPPED",
    },
    # the bridge answers these in JSON
    "server-sse-multiple-streams": {"server-sse-streams-functional": "INFO"},
    "tasks-lifecycle": {
        "sep-2663-tasks-get-status-failed": "FAILURE",  # needs tool protocol_error_job; ours end with results
    },
    "tasks-request-headers": {
        "tasks-headers-tolerate-mcp-method-on-tools-call": "FAILURE",  # wants to read `Hello, sep-2243!`
    },
}

NEEDS = {
    "completion-complete": "the capability completions, which we do not declare",
    "logging-set-level": "the capability logging, which we do not declare",
    "tools-call-image": "tool test_image_content",
    "tools-call-audio": "tool test_audio_content",
    "tools-call-embedded-resource": "tool test_embedded_resource",
    "tools-call-mixed-content": "tool test_multiple_content_types",
    "tools-call-with-logging": "the capability logging, and tool test_tool_with_logging",
    "tools-call-with-progress": "tool test_tool_with_progress, which tells three steps at once",
    "tools-call-sampling": "tool test_sampling; we never ask a client for samples",
    "tools-call-elicitation": "tool test_elicitation; we never ask a client for input",
    "elicitation-sep1034-defaults": "tool test_elicitation_sep1034_defaults",
    "elicitation-sep1330-enums": "tool test_elicitation_sep1330_enums",
    "json-schema-2020-12": "tool json_schema_2020_12_tool",
    "http-custom-header-server-validation": "a tool with x-mcp-header, which is of HTTP alone",
    "server-sse-polling": "tool test_reconnection; without it nothing is judged",
    "resources-subscribe": "the capability resources.subscribe, which we do not declare",
    "resources-unsubscribe": "the capability resources.subscribe, which we do not declare",
    "resources-read-binary": "resource test://static-binary",
    "resources-templates-read": "resource template test://template/{id}/data",
    "prompts-get-embedded-resource": "prompt test_prompt_with_embedded_resource",
    "prompts-get-with-image": "prompt test_prompt_with_image",
    "input-required-result-basic-elicitation": "tool test_input_required_result_elicitation",
    "input-required-result-basic-sampling": "tool test_input_required_result_sampling",
    "input-required-result-basic-list-roots": "tool test_input_required_result_list_roots",
    "input-required-result-request-state": "tool test_input_required_result_request_state",
    "input-required-result-multiple-input-requests": "tool test_input_required_result_multiple_inputs",
    "input-required-result-multi-round": "tool test_input_required_result_multi_round",
    "input-required-result-missing-input-response": "tool test_input_required_result_elicitation",
    "input-required-result-non-tool-request": "prompt test_input_required_result_prompt",
    "input-required-result-result-type": "tool test_input_required_result_elicitation",
    "input-required-result-tampered-state": "tool test_input_required_result_tampered_state",
    "input-required-result-capability-check": "tool test_input_required_result_capabilities",
    "input-required-result-ignore-extra-params": "tool test_input_required_result_elicitation",
    "input-required-result-validate-input":
        "tool test_input_required_result_elicitation; passes on any error",
    "tasks-mrtr-input": "tools confirm_delete, multi_input; our tasks never ask for input",
    "tasks-status-notifications": "nothing: the suite skips it always",
    "tasks-required-task-error": "a tool that cannot be called without the tasks extension",
    "tasks-mrtr-composition": "tool test_tool_with_task",
    "sep-2640-skills-directory": "the extension skills, which we do not declare",
    "sep-2640-skills-enumeration": "the extension skills, which we do not declare",
    "sep-2640-skills-manifest": "the extension skills, which we do not declare",
}


@pytest.fixture
def suite(
        nothing_left, node: Path, fake: Dict[str, str],
        tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command of the suite."""
    program = npm(SUITE_PACKAGE) / "conformance"

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [str(node), str(program), *words]
        return subprocess.run(command, env=fake, cwd=tmp_path, capture_output=True, text=True,
                              timeout=LIMIT_S)

    return run


@pytest.fixture
def bridge(fake: Dict[str, str], repo: Path):
    """Each request of the newest revision has a server of its own; the suite waits half a second for some."""
    streams = subprocess.PIPE, subprocess.PIPE, sys.__stderr__
    with Bridge(lambda: warm((), fake, repo, streams), translate) as bridge:
        yield bridge


def translate(message: Dict[str, Any]) -> Dict[str, Any]:
    """The message with our names for what has a stand-in."""
    params = message.get("params", {})
    stand_in = STAND_INS.get(params.get("uri", params.get("name")))
    if stand_in is None:
        return message
    ours = stand_in(params.get("arguments", {}))
    changed = {"uri": ours} if "uri" in params else {"name": ours[0], "arguments": ours[1]}
    return {**message, "params": {**params, **changed}}


def of(revision: str) -> List[str]:
    return [] if revision == EXTENSIONS else ["--spec-version", revision]


def listed(suite, *words: str) -> Set[str]:
    """The scenarios for servers that the suite has."""
    lines = suite("list", "--server", *words).stdout.splitlines()
    return {line.split()[1] for line in lines if line.startswith("  - ")}


def test_every_scenario_of_the_suite_is_run_or_has_a_reason_not_to_be(suite):
    for revision, scenarios in RUN.items():
        applicable = listed(suite, *of(revision))
        assert set(scenarios) <= applicable
        if revision != EXTENSIONS:
            assert applicable - set(scenarios) <= set(NEEDS)
    ran = {scenario for scenarios in RUN.values() for scenario in scenarios}
    assert listed(suite) == ran | set(NEEDS)
    assert not ran & set(NEEDS)


@pytest.mark.parametrize("revision, scenario",
                         [(revision, scenario) for revision in RUN for scenario in RUN[revision]])
def test_the_server_passes(suite, bridge, tmp_path, revision, scenario):
    """But for the checks in `FLAWS`, which have to end exactly as it says. The suite's own time limits, of
    half a second, are no promise of ours: what a busy machine may have spoiled is tried again."""
    for attempt in range(ATTEMPTS):
        output = tmp_path / ("output-%d" % attempt)
        done = suite("server", "--url", bridge.url, "--scenario", scenario, *of(revision), "-o", str(output))
        reports = [json.loads(file.read_text()) for file in output.rglob("checks.json")]
        assert len(reports) == 1, done
        [checks] = reports
        assert any(check["status"] == "SUCCESS" for check in checks)
        flaws = [check for check in checks if check["status"] != "SUCCESS"]
        found = {check["id"]: check["status"] for check in flaws}
        if found == FLAWS.get(scenario, {}):
            break
    assert found == FLAWS.get(scenario, {}), flaws
