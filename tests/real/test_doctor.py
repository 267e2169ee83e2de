"""The doctor asks the real Codex as that wants to be asked."""

from __future__ import annotations

import sys

import pytest

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
