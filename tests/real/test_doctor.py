"""The doctor asks the real Codex as that wants to be asked."""

from __future__ import annotations

import json
import sys

import anyio
import pytest

from .harness import SERVER

pytestmark = pytest.mark.anyio

ENTRY = '\n[mcp_servers.codex-swarm]\ncommand = "%s"\ntool_timeout_sec = 60\n' % sys.executable


async def test_the_real_sandbox_login_and_entry_are_found_as_they_are(lab):
    with (lab.codex_home / "config.toml").open("a") as config:
        config.write(ENTRY)
    async with lab.connect() as swarm:
        findings = (await swarm.read("codex-swarm:///doctor"))["findings"]
    found = {one["name"]: one for one in findings}
    assert {name: one["health"] for name, one in found.items() if one["health"] != "ok"} == {
        "client codex": "warning"}, findings
    assert "0.169.0" in found["codex"]["what"] and "mock" in found["login"]["what"]
    assert "not outside" in found["sandbox"]["what"]
    assert "60 s" in found["client codex"]["what"]


# In a user namespace that may have none below it, the real sandbox has nothing to stand on.
BARRED = ["unshare", "--user", "--map-root-user", "sh", "-c",
          'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"]


async def test_a_task_whose_sandbox_does_not_start_has_a_warning_that_says_so(lab):
    run = [sys.executable, str(SERVER), "run", "--json", "--sandbox", "read-only", "@shell echo hi"]
    for start, warned in (([], False), (BARRED, True)):
        done = await anyio.run_process([*start, *run], cwd=lab.repo, env=lab.environment, check=False)
        [record] = json.loads(done.stdout)["tasks"]
        told = [text for text in record.get("warnings", []) if "sandbox cannot start" in text]
        assert (record["outcome"], bool(told)) == ("succeeded", warned), record


async def test_the_command_says_on_paper_what_is_broken_and_ends_with_1(lab):
    doctor = [sys.executable, str(SERVER), "doctor"]
    for start, status, health in ((doctor, 0, "ok"), ([*BARRED, *doctor], 1, "broken")):
        done = await anyio.run_process(start, cwd=lab.repo, env=lab.environment, check=False)
        [line] = [row for row in done.stdout.decode().splitlines() if " sandbox " in row]
        assert (done.returncode, done.stderr, line.split()[0]) == (status, b"", health), done
