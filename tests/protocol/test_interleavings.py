"""Four thousand requests whose progress, cancellation and completion are interleaved at random, in both eras
on one pipe.

What a client may conclude is what it can see: an answer may cross its cancellation on the way. So every claim
about a cancelled request is made after a barrier: a ping sent later on the same pipe. Its answer shows that
the server had read the cancellation, and what the server says after that answer it said knowing of it.
"""
import json
import random

import pytest

from client import MODERN, envelope, eventually, is_response
from conftest import Gate, running

SEEDS, REQUESTS, BURSTS = range(4), 1000, 25
FIRST = 10 ** 5                 # the ids below are the client's own
MOST_UNDER_WAY = 200            # fewer than the server takes at once, streams and held calls included


class Storm:
    """One server, and everything that was asked of it."""

    def __init__(self, client, seed, held, finite):
        self.c, self.random = client, random.Random(seed)
        # a task that never ends here, and one that ends in the middle
        self.held, self.finite = held, finite
        self.sent = {}              # key of id -> what is known of the request
        self.barriers = []          # (id of the ping, keys of the requests whose cancellation came before it)
        self.cancelled = set()
        self.buffer = []

    def put(self, message):
        self.buffer.append(json.dumps(dict(message, jsonrpc="2.0")).encode() + b"\n")

    def flush(self):
        self.c.send_raw(b"".join(self.buffer))
        self.buffer = []

    def ask(self, n):
        """A random request; half of the ids are strings of numbers that are ids too."""
        r = self.random
        id, modern = (FIRST + n, str(FIRST + n - 1))[n % 2], r.random() < 0.5
        task = r.choice([self.held, self.finite])
        kind, method, params = r.choice([
            ("wait", "tools/call",
             {"name": "codex_wait",
              "arguments": {"task_ids": [task], "timeout_s": r.choice([0, 0.001, 0.01, 0.05])}}),
            ("wait", "tools/call",
             {"name": "codex_wait", "arguments": {"task_ids": [self.held, self.finite], "mode": "any"}}),
            ("held", "tools/call",
             {"name": "codex_wait", "arguments": {"task_ids": [self.held], "timeout_s": 3600}}),
            ("status", "tools/call", {"name": "codex_status", "arguments": {"task_ids": [task]}}),
            ("refused", "tools/call", {"name": "codex", "arguments": {}}),
            ("get", "tasks/get", {"taskId": "0" * 32}) if modern
            else ("read", "resources/read", {"uri": "codex-swarm:///config"}),
            ("list", "tools/list", {}),
        ])
        meta = envelope(tasks=kind == "get") if modern else {}
        if r.random() < 0.7:
            meta["progressToken"] = id
        self.c.expect(id, method, MODERN if modern else None, meta.get("progressToken"))
        self.put({"id": id, "method": method, "params": dict(params, _meta=meta)})
        key = json.dumps(id)
        self.sent[key] = {"id": id, "kind": kind}
        # What never ends by itself has to be cancelled, sooner or later.
        if kind == "held" or r.random() < 0.4:
            return key
        return None

    def cancel(self, key):
        for _ in range(self.random.choice([1, 1, 1, 2])):
            params = {"requestId": self.sent[key]["id"]}
            if self.random.random() < 0.5:
                params["reason"] = self.random.choice(["Request timed out", "AbortError: user-cancel", ""])
            self.put({"method": "notifications/cancelled", "params": params})
        self.cancelled.add(key)

    def barrier(self):
        id = "ping-%d" % len(self.barriers)
        self.c.expect(id, "ping")
        self.put({"id": id, "method": "ping"})
        self.barriers.append((id, set(self.cancelled)))

    def run(self, complete):
        r, doomed = self.random, []
        for burst in range(BURSTS):
            for n in range(burst * REQUESTS // BURSTS, (burst + 1) * REQUESTS // BURSTS):
                key = self.ask(n)
                if key is not None:
                    doomed.append(key)
                while doomed and r.random() < 0.45:
                    self.cancel(doomed.pop(r.randrange(len(doomed))))
                    if r.random() < 0.5:
                        self.barrier()
                if r.random() < 0.2:
                    self.put(
                        {"method": "notifications/cancelled",
                         "params": {"requestId": r.choice([1, "nobody", -n])}})
                if r.random() < 0.1:
                    self.flush()
            if burst == BURSTS // 2:
                complete()
            while len(doomed) > MOST_UNDER_WAY // 4:
                self.cancel(doomed.pop(0))
            self.barrier()
            self.flush()
            self.c.result(self.barriers[-1][0], since=max(0, len(self.c.log) - 2000))
        for key in doomed:
            self.cancel(key)
        self.barrier()
        self.flush()

    # -- what was seen ---------------------------------------------------------------------------
    def seen(self):
        """(where each request was answered, where anything was said of it, where each ping was answered)."""
        answers, said, pings = {}, {}, {}
        for at, m in enumerate(list(self.c.log)):
            if is_response(m):
                key = json.dumps(m["id"])
                (answers if key in self.sent else pings).setdefault(key, []).append(at)
            else:
                key = json.dumps(m["params"]["progressToken"])
            said.setdefault(key, []).append(at)
        return answers, said, pings

    def check(self):
        wanted = [key for key in self.sent if key not in self.cancelled]
        eventually(lambda: self.seen()[0].keys() >= set(wanted),
                   what="the answers of all that was not cancelled")
        self.c.ping()
        answers, said, pings = self.seen()
        assert {key: len(at) for key, at in answers.items() if len(at) != 1} == {}, "answered twice"
        assert [key for key in wanted if key not in answers] == [], "not answered, and not cancelled"
        late = [key for key, at in answers.items() if max(said[key]) > at[0]]
        assert late == [], "something was said after the answer"
        held = [key for key in answers if self.sent[key]["kind"] == "held"]
        assert held == [], "answered, though it cannot have ended before its cancellation"
        reached = {}                                # key -> the first barrier after its cancellation
        for id, before in self.barriers:
            for key in before:
                reached.setdefault(key, pings[json.dumps(id)][0])
        assert set(reached) == self.cancelled
        late = {key: (self.sent[key]["kind"], [self.c.log[at] for at in said.get(key, []) if at > bar])
                for key, bar in reached.items()}
        late = {key: found for key, found in late.items() if found[1]}
        assert late == {}, "said after the server had read the cancellation"
        return answers, said


@pytest.mark.parametrize("seed", SEEDS)
def test_each_request_is_answered_once_or_was_cancelled_and_nothing_follows_either(client, tmp_path, seed):
    gates = Gate(tmp_path / "held"), Gate(tmp_path / "finite")
    c = client(version="2025-06-18")
    held, finite = (c.begin(gate.wait) for gate in gates)
    running(c, 2)
    storm = Storm(c, seed, held, finite)
    storm.run(complete=gates[1].open)
    answers, said = storm.check()
    # The storm was one: answers, cancelled calls without one, and progress were all there, in numbers.
    assert len(storm.sent) == REQUESTS and len(answers) > REQUESTS / 3
    assert len(storm.cancelled - set(answers)) > REQUESTS / 20
    assert sum(len(at) for at in said.values()) > len(answers) + REQUESTS / 20
    gates[0].open()
    c.collect(held, finite)
