"""Our stdio server behind Streamable HTTP, for the conformance suite, which speaks nothing else. For tests
alone.

Two kinds of conversation, told apart as the specification does:

    handshake era   a POST of `initialize` starts a server process, whose name from then on is
    `Mcp-Session-Id`;
                    DELETE ends it. One request at a time; there is no GET stream.
    2026-07-28      every POST gets a server process of its own, so that no answer can depend on an earlier
                    request. When the caller hangs up, the request is cancelled.

What belongs to HTTP is done here: the check of Host and Origin, of the headers that repeat parts of the body,
and the status codes. Everything else is what the server said, unchanged: JSON when it says one thing, else a
stream. A request may be translated on its way to the server, so that a caller which knows other names reaches
ours.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, Iterator, Optional
from urllib.parse import urlsplit

STATELESS = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
NAMED_BY = {  # what `Mcp-Name` repeats
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
Translation = Callable[[Dict[str, Any]], Dict[str, Any]]  # of a message, on its way to the server
HEADER_MISMATCH, PARSE_ERROR, METHOD_NOT_FOUND = -32020, -32700, -32601
LIMIT_S = 60  # for one message of the server, and for its end


class Child:
    """A server process. `turn` is held by the request that talks to it."""

    def __init__(self, process: Any) -> None:
        self.turn = threading.Lock()
        self.process = process

    def send(self, message: Any) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def receive(self, connection: Any) -> Optional[Dict[str, Any]]:
        """The next message; None when the caller at the other end of `connection` hangs up before it
        comes."""
        ready, _, _ = select.select([self.process.stdout, connection], [], [], LIMIT_S)
        assert ready, "the server said nothing for %d s" % LIMIT_S
        return json.loads(self.process.stdout.readline()) if self.process.stdout in ready else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.stdout.close()


class Bridge(ThreadingHTTPServer):
    """Serves `url` while it is entered; when it is left, every server process has ended."""

    daemon_threads = False  # so that `server_close` waits for the handlers, which end their processes

    def __init__(self, start: Callable[[], Any], translate: Translation) -> None:
        """`start` gives a server process with pipes, unbuffered."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.translate = translate
        self.url = "http://127.0.0.1:%d/mcp" % self.server_port
        self.sessions: Dict[str, Child] = {}
        self._start = start

    def child(self) -> Child:
        return Child(self._start())

    def __enter__(self) -> Bridge:
        threading.Thread(target=self.serve_forever, args=(0.05,), name="bridge", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.server_close()
        for child in self.sessions.values():
            child.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = LIMIT_S
    server: Bridge

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the output belongs to the test run."""

    def do_GET(self) -> None:
        self._reply(405)

    def do_DELETE(self) -> None:
        child = self.server.sessions.pop(self.headers.get("Mcp-Session-Id", ""), None)
        self._reply(200 if child else 404)
        if child:
            child.close()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._from_here():
            return self._reply(403)
        try:
            message = json.loads(body)
        except ValueError as error:
            return self._reply(400, {"jsonrpc": "2.0", "error": {"code": PARSE_ERROR, "message": str(error)}})
        session = self.headers.get("Mcp-Session-Id")
        if session is not None:
            return self._in_session(session, message)
        if message.get("method") == "initialize" and self.headers.get("MCP-Protocol-Version") != STATELESS:
            session = secrets.token_hex(16)
            self.server.sessions[session] = self.server.child()
            return self._in_session(session, message)
        wrong = self._mismatch(message)
        if wrong:
            error = {"code": HEADER_MISMATCH, "message": wrong}
            return self._reply(400, {"jsonrpc": "2.0", "id": message.get("id"), "error": error})
        self._alone(message)

    def _from_here(self) -> bool:
        """Whether a page of another site cannot have sent this (DNS rebinding)."""
        origin = self.headers.get("Origin")
        named = ["//" + self.headers.get("Host", "")] + ([origin] if origin else [])
        return all(urlsplit(url).hostname in ("127.0.0.1", "localhost") for url in named)

    def _mismatch(self, message: Dict[str, Any]) -> str:
        """What the headers say otherwise than the body, or leave out."""
        params = message.get("params", {})
        expected = {"Mcp-Method": message.get("method")}
        if VERSION_KEY in params.get("_meta", {}):
            expected["MCP-Protocol-Version"] = params["_meta"][VERSION_KEY]
        if message.get("method") in NAMED_BY:
            expected["Mcp-Name"] = params.get(NAMED_BY[message["method"]])
        given = {name: self.headers.get(name, "").strip() for name in expected}
        return "; ".join("%s is %r, not %r" % (n, given[n], expected[n]) for n in expected
                         if given[n] != expected[n])

    def _in_session(self, session: str, message: Dict[str, Any]) -> None:
        child = self.server.sessions.get(session)
        if child is None:
            return self._reply(404)
        with child.turn:
            child.send(self.server.translate(message))
            if "id" not in message:
                return self._reply(202)
            *_, response = self._answers(child, message)
        self._reply(200, response, session)

    def _alone(self, message: Dict[str, Any]) -> None:
        child = self.server.child()
        try:
            child.send(self.server.translate(message))
            if "id" not in message:
                return self._reply(202)
            self._relay(self._answers(child, message))
        finally:
            child.close()

    def _answers(self, child: Child, message: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
        """All that the server says until it has answered `message`, or until the caller hangs up."""
        while True:
            answer = child.receive(self.connection)
            if answer is None:
                cancelled = {"requestId": message["id"], "reason": "the caller hung up"}
                return child.send(
                    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
            yield answer
            if "method" not in answer:
                return

    def _relay(self, answers: Iterator[Dict[str, Any]]) -> None:
        """As JSON when the response comes first, otherwise as a stream of events that ends with it."""
        first = next(answers, None)
        if first is None:
            self.close_connection = True
        elif "method" not in first:
            code = first.get("error", {}).get("code")
            self._reply(200 if code is None else 404 if code == METHOD_NOT_FOUND else 400, first)
        else:
            self._stream(first, answers)

    def _stream(self, first: Dict[str, Any], rest: Iterator[Dict[str, Any]]) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self._event(first)
        for message in rest:
            self._event(message)

    def _event(self, message: Dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # that the caller has gone is seen at the next look
            self.wfile.write(b"event: message\ndata: %s\n\n" % json.dumps(message).encode())

    def _reply(self, status: int, body: Any = None, session: Optional[str] = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", "application/json")
        if session is not None:
            self.send_header("Mcp-Session-Id", session)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
