#!/usr/bin/env python3
"""A loopback OpenAI Responses API, so that the real Codex CLI runs without an account or a network.

The model that it plays has no mind of its own: the last user message is its script. Every line of
that message which starts with `@` is a directive; they are carried out from top to bottom:

    @shell COMMAND        call codex's shell tool with COMMAND
    @patch BODY           call codex's apply_patch tool; `\\n` in BODY stands for a new line
    @search WORDS         look with codex's tool_search for tools that were not shown at first
    @mcp SERVER TOOL JSON call a tool of an MCP server with these arguments
    @say TEXT             answer TEXT
    @recall               answer everything that the thread said before this message
    @hold GATE            answer nothing until `release(GATE)`: lets a test watch a run without sleeping
    @sleep SECONDS        answer nothing for so long
    @usage INPUT OUTPUT   the token counts reported with every answer (else 100 and 20)
    @fail NAME            fail as the real service does; the names are the rows of `FAILURES`

What a prompt of a program's own makes it do is told by `does`: words of the prompt -> its script.

A message without an answering directive is answered with its length, SHA-256 and first characters,
so that a test sees whether a prompt arrived whole.

How a turn goes: each request carries the whole conversation. The tool outputs behind the last user
message say how many tool calls of the script are done; the answer to a request is the script from
there to the next tool call, or to its end.

In a test:         with ModelServer() as model: ... model.url ... model.requests[-1].model
By itself:         python3 tests/model_server.py [--port N]     prints the base URL, serves until killed
                   curl -X POST http://127.0.0.1:N/release/GATE opens a gate
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

HOLD_LIMIT_S = 300  # a gate that nobody opens: long enough for any test, short enough to end
TOOL_CALLS = ("shell", "patch", "search", "mcp")


class Failure(NamedTuple):
    """How one failure of the real service looks: an HTTP error, or a stream that ends badly."""

    status: int = 200
    body: Any = None
    event: Optional[Dict[str, Any]] = None  # sent as `response.failed`; None: the stream just ends


def _error(**fields: Any) -> Dict[str, Any]:
    return {"error": fields}


# Source: the bodies that codex 0.169.0 was seen to tell apart.
FAILURES = {
    "unauthorized": Failure(401,
                            _error(message="Incorrect API key provided: sk-none", code="invalid_api_key")),
    "bad_model": Failure(
        400,
        _error(message="The requested model 'none' does not exist.", param="model", code="model_not_found")
    ),
    "bad_value": Failure(400,
                         _error(message="Unsupported value: 'none'", param="model",
                                code="unsupported_value")),
    "rate_limit": Failure(429, _error(message="slow down please", code="rate_limit_exceeded")),
    "usage_limit": Failure(
        429, _error(type="usage_limit_reached", message="The usage limit has been reached", plan_type="plus")
    ),
    "usage_limit_over": Failure(        # it ended long ago: whoever waits for it goes on at once
        429, _error(type="usage_limit_reached", message="The usage limit has been reached", plan_type="plus",
                    resets_at=1_700_000_000)
    ),
    "server_error": Failure(500, "<html>Internal Server Error</html>"),
    "overloaded": Failure(503, _error(message="overloaded", code="server_is_overloaded")),
    "context_overflow": Failure(
        event={"code": "context_length_exceeded",
               "message": "Your input exceeds the context window of this model."}
    ),
    "dropped_stream": Failure(),
}


class Step(NamedTuple):
    name: str
    argument: str


class Request:
    """What codex sent for one answer."""

    def __init__(self, body: Dict[str, Any], headers: Dict[str, str], does: Dict[str, str] = {}) -> None:
        self.body = body
        self.does = does
        self.headers = headers  # names in lower case
        self.items: List[Dict[str, Any]] = body["input"]
        self._last_user = max(i for i, item in enumerate(self.items) if item.get("role") == "user")

    @property
    def model(self) -> str:
        return self.body["model"]

    @property
    def sandbox(self) -> str:
        """The sandbox mode that codex runs this turn in, by its own account."""
        return json.loads(self.body["client_metadata"]["x-codex-turn-metadata"])["sandbox_mode"]

    @property
    def tools(self) -> List[str]:
        return [tool.get("name", tool["type"]) for tool in self.body["tools"]]

    @property
    def prompt(self) -> str:
        """The last user message."""
        return _text(self.items[self._last_user])

    @property
    def developer(self) -> List[str]:
        """The parts of all developer messages: base instructions, developer instructions, sandbox rules."""
        messages = [item for item in self.items if item.get("role") == "developer"]
        return [part["text"] for message in messages for part in message["content"]]

    @property
    def tool_outputs(self) -> List[str]:
        """What the tool calls of this turn gave back."""
        return [
            json.dumps(item["tools"] if item["type"] == "tool_search_output" else item["output"])
            for item in self.items[self._last_user + 1 :]
            if item["type"].endswith(("_call_output", "tool_search_output"))
        ]

    @property
    def memory(self) -> str:
        """What users and model said in earlier turns of the thread."""
        earlier = self.items[: self._last_user]
        return " / ".join(_text(item) for item in earlier if item.get("role") in ("user", "assistant"))

    def usage(self) -> Tuple[int, int]:
        """Input and output tokens that every answer of this turn reports."""
        for step in self._directives():
            if step.name == "usage":
                input_tokens, output_tokens = step.argument.split()
                return int(input_tokens), int(output_tokens)
        return 100, 20

    def script(self) -> Iterator[Step]:
        """The part of the prompt's script that this request is to be answered with."""
        calls_done = len(self.tool_outputs)
        for step in self._directives():
            if calls_done == 0:
                yield step
            if step.name in TOOL_CALLS:
                if calls_done == 0:
                    return
                calls_done -= 1

    def _directives(self) -> Iterator[Step]:
        told = [script for words, script in self.does.items() if words in self.prompt]
        for line in "\n".join([self.prompt, *told]).split("\n"):
            if line.startswith("@"):
                name, _, argument = line[1:].partition(" ")
                yield Step(name, argument)


def _text(message: Dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def _echo(prompt: str) -> str:
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    return "%d characters, sha256 %s, starting with %s" % (len(prompt), digest, json.dumps(prompt[:40]))


class ModelServer:
    """The service on a loopback port of its own. `requests` is what it was asked, in order of arrival.

    `_changed` guards `_held`, `_open` and `requests`. Handler threads and the test take it; a handler
    that waits at a gate is notified by `release` and `close`.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: List[Request] = []
        self.does: Dict[str, str] = {}
        self._changed = threading.Condition()
        self._held: Dict[str, int] = collections.Counter()
        self._open: Set[str] = set()
        self._closed = False
        self._http = _HTTPServer(("127.0.0.1", port), _Handler)
        self._http.model_server = self

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d/v1" % self._http.server_port

    def __enter__(self) -> ModelServer:
        threading.Thread(target=self.serve_forever, name="model-server", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        self._http.serve_forever(poll_interval=0.05)

    def held(self, gate: str) -> int:
        """How many requests stand at `gate` at this moment."""
        with self._changed:
            return self._held[gate]

    def release(self, gate: str) -> None:
        """Open `gate` for those who wait there and for all who come later."""
        with self._changed:
            self._open.add(gate)
            self._changed.notify_all()

    def hold(self, gate: str) -> None:
        """Block until `gate` is open, the server is closed, or `HOLD_LIMIT_S` is over."""
        with self._changed:
            self._held[gate] += 1
            self._changed.wait_for(lambda: gate in self._open or self._closed, HOLD_LIMIT_S)
            self._held[gate] -= 1

    def arrived(self, request: Request) -> None:
        with self._changed:
            self.requests.append(request)


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False
    model_server: ModelServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the output belongs to the test run."""

    def do_GET(self) -> None:
        self._send_json(200, {"object": "list", "data": [], "models": []})  # codex asks for /models

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.close_connection = True
        if self.path.startswith("/release/"):
            self.server.model_server.release(self.path[len("/release/") :])
            return self._send_json(200, {})
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(json.loads(body), headers, self.server.model_server.does)
        self.server.model_server.arrived(request)
        try:
            self._answer(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # codex was stopped in the middle, as many tests want

    def _answer(self, request: Request) -> None:
        """Carry out the directives that wait or fail, then stream what the rest of them say."""
        items: List[Dict[str, Any]] = []
        for step in request.script():
            if step.name == "hold":
                self.server.model_server.hold(step.argument)
            elif step.name == "sleep":
                time.sleep(float(step.argument))
            elif step.name == "fail":
                return self._fail(FAILURES[step.argument])
            elif step.name in ANSWERS:
                items.append(ANSWERS[step.name](step.argument, request))
            elif step.name != "usage":
                return self._send_json(400,
                                       _error(message="model_server.py knows no directive @" + step.name))
        self._stream(items or [_message(_echo(request.prompt))], request.usage())

    def _fail(self, failure: Failure) -> None:
        if failure.status != 200:
            return self._send_json(failure.status, failure.body)
        self._start_stream()
        self._event("response.created", response={"id": "resp_failed"})
        if failure.event is not None:
            self._event("response.failed",
                        response={"id": "resp_failed", "status": "failed", "error": failure.event})

    def _stream(self, items: List[Dict[str, Any]], usage: Tuple[int, int]) -> None:
        input_tokens, output_tokens = usage
        response_id = "resp_%d" % time.time_ns()
        self._start_stream()
        self._event("response.created", response={"id": response_id})
        for number, item in enumerate(items):
            item = {"id": "item_%d" % number, **item}
            if item["type"].endswith("_call"):
                item["call_id"] = "call_%s_%d" % (response_id, number)
            self._event("response.output_item.added", item=item)
            self._event("response.output_item.done", item=item)
        counts = {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        }
        self._event("response.completed", response={"id": response_id, "usage": counts})

    def _start_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()

    def _event(self, type: str, **fields: Any) -> None:
        data = json.dumps({"type": type, **fields})
        self.wfile.write(("event: %s\ndata: %s\n\n" % (type, data)).encode())
        self.wfile.flush()

    def _send_json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _message(text: str) -> Dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def _shell(command: str, request: Request) -> Dict[str, Any]:
    arguments = {"cmd": command, "yield_time_ms": 30000}  # the longest that codex waits before it moves on
    return {"type": "function_call", "name": "exec_command", "arguments": json.dumps(arguments)}


def _patch(body: str, request: Request) -> Dict[str, Any]:
    patch = "*** Begin Patch\n%s\n*** End Patch" % body.replace("\\n", "\n")
    return {"type": "custom_tool_call", "name": "apply_patch", "input": patch}


def _search(words: str, request: Request) -> Dict[str, Any]:
    return {"type": "tool_search_call", "execution": "client", "arguments": {"query": words}}


def _mcp(call: str, request: Request) -> Dict[str, Any]:
    server, tool, arguments = call.split(" ", 2)
    return {"type": "function_call", "namespace": "mcp__" + server, "name": tool, "arguments": arguments}


ANSWERS: Dict[str, Callable[[str, Request], Dict[str, Any]]] = {
    "shell": _shell,
    "patch": _patch,
    "search": _search,
    "mcp": _mcp,
    "say": lambda text, request: _message(text),
    "recall": lambda _, request: _message("before this: " + request.memory),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A loopback Responses API for the real Codex CLI.")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    server = ModelServer(parser.parse_args().port)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
