"""A small MCP client over stdio for the tests, and the two helpers that every test of processes needs.

    with Client([sys.executable, "codex_mcp_swarm.py"], env) as c:
        c.initialize("2025-11-25")
        record = c.ok("codex", prompt="hello")

It is strict so that the tests need not be: every line that the server writes is checked as it arrives (one
JSON-RPC message per line, nothing else; valid for the method it answers; no field that the negotiated
revision does not know), and the first violation fails the next wait. Where the package `mcp-types` is
installed, its models check every message as well; without it (Python 3.8) only the checks written here run.
Every wait is bounded and blocks on a condition.

`log` is everything received, in order of arrival; that is how tests tell what came before what.
"""
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time

LEGACY_REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEWEST_LEGACY = LEGACY_REVISIONS[-1]
MODERN = "2026-07-28"
VENDOR = "io.modelcontextprotocol/"
TASKS = VENDOR + "tasks"
WAIT_S = 60           # every wait ends; how soon it may end on a busy machine proves nothing
_missing = object()


def eventually(predicate, timeout=WAIT_S, what=None):
    """The first true value of `predicate()`, at most a tenth of the wait late, so that a long one costs
    little. Raises AssertionError after `timeout` seconds."""
    began = time.monotonic()
    while True:
        value = predicate()
        if value:
            return value
        waited = time.monotonic() - began
        assert waited < timeout, "not within %s s: %s" % (timeout, what or predicate)
        time.sleep(min(0.1, max(0.005, waited / 10)))


def envelope(tasks=False, name="test-client", version=MODERN):
    """What every request of the stateless era carries in `_meta`; with `tasks` it declares the Tasks
    extension."""
    return {VENDOR + "protocolVersion": version, VENDOR + "clientInfo": {"name": name, "version": "1"},
            VENDOR + "clientCapabilities": {"extensions": {TASKS: {}}} if tasks else {}}


def alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        if os.path.isdir("/proc/self"):
            return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)],
                           stdout=subprocess.PIPE).stdout.strip()   # macOS
    return bool(state) and not state.startswith(b"Z")


class Client:
    """One server process and the conversation with it. A context manager: leaving it closes the server's
    stdin.

    `envelope`, when set, is merged into `params._meta` of every request (the per-request metadata of the
    2026-07-28 era); `envelope=None` of `start` and `request` sends one without it. `process` is one that has
    been started.
    """

    returns = {}                     # tool -> the schema of its answers, where somebody says it

    def __init__(self, argv, env=None, cwd=None, envelope=None, process=None):
        pipe = subprocess.PIPE
        self.process = process or subprocess.Popen(argv, env=env, cwd=cwd, stdin=pipe, stdout=pipe,
                                                   stderr=pipe, bufsize=0)
        self.envelope = envelope
        self.version = None          # the negotiated revision
        self.init = None             # the result of initialize
        self.log = []                # received messages in order; a batch is one list
        self.lines = []              # the same, as text
        self.arrived_at = []         # the same, as monotonic times
        self._sent = {}              # id -> (method, revision), for the checks
        self._called = {}            # id -> tool, for the same
        self._modern_tokens = set()  # the progress tokens of modern requests
        self._next_id = 0
        self._problem = None
        self._ended = False
        self._stderr = bytearray()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True)
                         for work in (self._read_stdout, self._read_stderr)]
        for thread in self._threads:
            thread.start()

    # -- life --------------------------------------------------------------------------------------
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            try:
                self.close()
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def initialize(self, version=NEWEST_LEGACY, name="test-client"):
        """The handshake. Returns the result of `initialize`."""
        answer = self.request("initialize", {"protocolVersion": version, "capabilities": {},
                                             "clientInfo": {"name": name, "version": "1"}}, envelope=None)
        assert "result" in answer, answer
        self.init = answer["result"]
        self.version = self.init["protocolVersion"]
        self.notify("notifications/initialized")
        return self.init

    def close(self, timeout=WAIT_S):
        """End of input, as a client does that goes away. Returns the exit code."""
        self.process.stdin.close()
        return self.wait_exit(timeout)

    def signal(self, number, timeout=WAIT_S):
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait_exit(timeout)

    def kill(self):
        self.process.kill()
        return self.wait_exit()

    def wait_exit(self, timeout=WAIT_S):
        """The exit code, once the process is gone and everything that it wrote is in `log` and `stderr`."""
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        if not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        assert self._problem is None, self._problem
        return code

    @property
    def stderr(self):
        return self._stderr.decode("utf-8", "replace")

    # -- sending -----------------------------------------------------------------------------------
    def send_raw(self, data):
        """Bytes as they are; the caller ends the line."""
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view):]

    def expect(self, id, method, revision=None, progress_token=None):
        """What the answer to a request that is sent as bytes is checked against, and its progress."""
        self._sent[_key(id)] = method, revision
        if revision == MODERN:
            self._modern_tokens.add(_key(progress_token))

    def send(self, message):
        self.send_raw(json.dumps(message).encode("utf-8") + b"\n")

    def notify(self, method, params=None):
        self.send(_message({"jsonrpc": "2.0", "method": method}, params))

    def start(self, method, params=None, id=_missing, envelope=_missing):
        """Send a request and return its id at once; `result` waits for the answer."""
        if id is _missing:
            self._next_id += 1
            id = self._next_id
        envelope = self.envelope if envelope is _missing else envelope
        if envelope is not None:
            params = dict(params or {}, _meta=dict(envelope, **(params or {}).get("_meta", {})))
            self._modern_tokens.add(_key(params["_meta"].get("progressToken")))
        self._sent[_key(id)] = method, None if envelope is None else MODERN
        self.send(_message({"jsonrpc": "2.0", "id": id, "method": method}, params))
        return id

    def start_call(self, tool, arguments=None, progress_token=_missing, id=_missing, envelope=_missing):
        params = {"name": tool, "arguments": arguments or {}}
        if progress_token is not _missing:
            params["_meta"] = {"progressToken": progress_token}
        id = self.start("tools/call", params, id, envelope)
        self._called[_key(id)] = tool
        return id

    def cancel(self, request_id, **more):
        self.notify("notifications/cancelled", dict({"requestId": request_id}, **more))

    # -- waiting -----------------------------------------------------------------------------------
    def wait_for(self, predicate, timeout=WAIT_S, since=0, what="a message"):
        """The first received message, from index `since` on, for which `predicate` holds. Fails when the
        server is gone."""
        seen, give_up = since, time.monotonic() + timeout
        with self._news:
            while True:
                assert self._problem is None, self._problem
                while seen < len(self.log):
                    if predicate(self.log[seen]):
                        return self.log[seen]
                    seen += 1
                left = give_up - time.monotonic()
                closed = "the server closed its stdout while %s was awaited\n%s"
                assert not self._ended, closed % (what, self.stderr)
                assert left > 0, "%s did not come within %s s\n%s" % (what, timeout, self.stderr)
                self._news.wait(left)

    def result(self, id, timeout=WAIT_S, since=0):
        """The response to request `id`: the whole message."""
        return self.wait_for(lambda m: is_response(m) and _key(m.get("id")) == _key(id), timeout, since,
                             "the answer to request %r (%s)" % (id, self._sent.get(_key(id), "?")[0]))

    def request(self, method, params=None, timeout=WAIT_S, envelope=_missing):
        return self.result(self.start(method, params, envelope=envelope), timeout)

    def raw_answer(self, data, timeout=WAIT_S):
        """Send bytes; the next response or array of responses that comes."""
        since = len(self.log)
        self.send_raw(data)
        return self.wait_for(lambda m: isinstance(m, list) or is_response(m), timeout, since,
                             "an answer to %r" % data[:80])

    def assert_silent(self, *data):
        """Send bytes and prove that nothing answers them: the answer to a later ping comes first."""
        since = len(self.log)
        for piece in data:
            self.send_raw(piece)
        answer = self.request("ping", envelope=None)
        assert self.log[since:] == [answer], self.log[since:]

    def ping(self):
        """Everything that the server had to say before is there now. Only the handshake era knows `ping`."""
        assert self.request("ping", envelope=None)["result"] == {}

    # -- tools -------------------------------------------------------------------------------------
    def call(self, tool, arguments=None, progress_token=_missing, timeout=WAIT_S):
        """The result of a tool call, good or bad; a protocol error fails."""
        return self.tool_result(self.start_call(tool, arguments, progress_token), timeout)

    def tool_result(self, id, timeout=WAIT_S):
        answer = self.result(id, timeout)
        assert "result" in answer, answer
        if "structuredContent" in answer["result"] and self._called.get(_key(id)) in self.returns:
            check_keys(self.returns, self._called[_key(id)], answer["result"])
        return answer["result"]

    def ok(self, tool, **arguments):
        """The structured content of a call that must go well."""
        return self.good(self.call(tool, arguments))

    def good(self, result):
        assert not result.get("isError"), text_of(result)
        return result["structuredContent"]

    def refused(self, tool, arguments):
        """The text of a call that must be refused (`isError`)."""
        result = self.call(tool, arguments)
        assert result.get("isError") is True, result
        return text_of(result)

    def begin(self, *prompt, **arguments):
        """Start a task whose prompt has these lines; its id."""
        return self.ok("codex_async", prompt="\n".join(prompt), **arguments)["task_id"]

    def status(self, task_id):
        return self.ok("codex_status", task_ids=[task_id])["tasks"][0]

    def collect(self, *task_ids):
        """The records of tasks that must all end."""
        found = self.ok("codex_wait", task_ids=list(task_ids))
        assert found["still_running"] == [], found
        return found["tasks"]

    # -- MCP tasks ---------------------------------------------------------------------------------
    def handle(self, tool, **arguments):
        """The handle that a call which declares the Tasks extension is answered with."""
        handle = self.call(tool, arguments)
        assert handle["resultType"] == "task", handle
        return handle

    def get(self, task_id):
        answer = self.request("tasks/get", {"taskId": task_id})
        assert "result" in answer, answer
        return answer["result"]

    def get_end(self, task_id, timeout=WAIT_S):
        """The task, once it is in a terminal state."""
        return eventually(lambda: (lambda t: t["status"] != "working" and t)(self.get(task_id)), timeout,
                          "the end of the MCP task " + task_id)

    # -- looking back ------------------------------------------------------------------------------
    def index(self, predicate):
        return next(i for i, m in enumerate(self.log) if predicate(m))

    def responses_to(self, id):
        return [m for m in self.log if is_response(m) and _key(m.get("id")) == _key(id)]

    def progress(self, token):
        """The params of the progress notifications for a token, in order."""
        return [m["params"] for m in self.log if is_progress(m, token)]

    def result_chars(self, id):
        """How long the result of request `id` was on the wire, in characters."""
        at = self.index(lambda m: is_response(m) and _key(m.get("id")) == _key(id))
        return len(self.lines[at]) - len('{"jsonrpc":"2.0","id":%s,"result":}' % json.dumps(id))

    # -- the reader threads ------------------------------------------------------------------------
    def _read_stdout(self):
        with self.process.stdout as out:
            buffer = bytearray()
            while True:
                chunk = out.read(65536)
                if not chunk:
                    break
                buffer += chunk
                while True:
                    line, newline, rest = buffer.partition(b"\n")
                    if not newline:
                        break
                    buffer = rest
                    self._receive(bytes(line))
        with self._news:
            if buffer:
                self._problem = self._problem or "stdout ended in the middle of a line: %r" % bytes(
                    buffer[:200])
            self._ended = True
            self._news.notify_all()

    def _receive(self, line):
        message, problem = None, None
        try:
            text = line.decode("utf-8")
            message = json.loads(text, parse_constant=_refuse_constant)
            check_line(text, message)
            for one in message if isinstance(message, list) else [message]:
                check_message(one, *self._expected(one))
        # whatever is wrong with the line is the server's: report it where the test waits
        except Exception as e:
            problem = "%s: %s\nin %r" % (type(e).__name__, e, line[:600])
        with self._news:
            self._problem = self._problem or problem
            if message is not None:
                self.log.append(message)
                self.lines.append(line.decode("utf-8", "replace"))
                self.arrived_at.append(time.monotonic())
            self._news.notify_all()

    def _expected(self, message):
        """(revision, method) that a received message belongs to."""
        method, version = self._sent.get(_key(message.get("id")) if isinstance(message, dict)
                                         and "id" in message else None, (None, None))
        params = message.get("params", {}) if isinstance(message, dict) else {}
        if _key(params.get("progressToken", [])) in self._modern_tokens:
            version = MODERN
        return version or self.version or NEWEST_LEGACY, method

    def _read_stderr(self):
        with self.process.stderr as err:
            while True:
                chunk = err.read(65536)
                if not chunk:
                    return
                self._stderr += chunk


# ----------------------------------------------------------------------------------------------------
# What a message is
# ----------------------------------------------------------------------------------------------------
def is_response(message):
    return isinstance(message, dict) and "method" not in message


def is_progress(message, token):
    return (isinstance(message, dict) and message.get("method") == "notifications/progress"
            and _key(message["params"]["progressToken"]) == _key(token))


def text_of(result):
    """The text content of a tool result."""
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


def _message(message, params):
    return message if params is None else dict(message, params=params)


def _key(id):
    """1 and "1" are different ids, and True is none of them."""
    return json.dumps(id)


def _refuse_constant(name):
    raise ValueError("%s is not JSON" % name)


# ----------------------------------------------------------------------------------------------------
# What every line of a server must satisfy
# ----------------------------------------------------------------------------------------------------
def check_line(text, message):
    assert len(text.splitlines()) == 1, "a raw line separator inside the line splits it for naive clients"
    json.dumps(message, ensure_ascii=False).encode("utf-8")     # raises on a lone surrogate
    json.loads(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs):
    assert len({key for key, _ in pairs}) == len(pairs), "a key twice in one object"
    return dict(pairs)


# Whose answer is the record of one task: of its keys they list the main ones, and `codex` lists all.
OF_ONE_TASK = ("codex_async", "codex_reply", "codex_review")


def check_keys(returns, tool, result):
    """That an answer has no key but those that the listed schema of its tool names."""
    of_a_task, named = set(returns["codex"]["properties"]), set(returns[tool]["properties"])
    if tool in OF_ONE_TASK:
        assert named <= of_a_task, named - of_a_task
        named = of_a_task
    answer = result["structuredContent"]
    more = set(answer) - named - ({"failure"} if result["isError"] else set())
    assert not more, "%s: %s" % (tool, more)
    for record in answer.get("tasks", ()):
        assert set(record) <= of_a_task | LISTED, set(record) - of_a_task - LISTED


# Of a task in a list, besides.
LISTED = {"cwd", "branch", "started", "ended", "collected", "damage"}


def check_message(message, version, method):
    """`method` is the one of the request that this message answers, when it answers one that the client
    knows."""
    assert isinstance(message, dict) and message.get("jsonrpc") == "2.0", "not a JSON-RPC message"
    if "method" in message:
        assert set(message) <= {"jsonrpc", "method",
                                "params"}, "a request, or a member too many: %s" % sorted(message)
    elif "error" in message:
        assert set(message) == {"jsonrpc", "id", "error"}, sorted(message)
        assert set(message["error"]) <= {"code", "message", "data"} and type(message["error"]["code"]) is int
        assert isinstance(message["error"]["message"],
                          str) and message["error"]["message"], "an error without a message"
    else:
        assert set(message) == {"jsonrpc", "id",
                                "result"} and isinstance(message["result"], dict), sorted(message)
        assert message["id"] is not None, "a result for nobody"
    if version in LEGACY_REVISIONS:
        check_gates(message, version, method)
    else:
        check_modern(message, method)
    check_with_models(message, version, method)


# The first revision that knows a field. Each gate: where to look, which keys, since when.
GATES = [
    ("tools/list", lambda r: r["tools"], ("annotations",), "2025-03-26"),
    ("tools/list", lambda r: r["tools"], ("title", "outputSchema", "_meta"), "2025-06-18"),
    ("tools/list", lambda r: r["tools"], ("icons", "execution"), "2025-11-25"),
    ("tools/call", lambda r: [r], ("structuredContent", "_meta"), "2025-06-18"),
    ("tools/call", lambda r: r["content"], ("_meta",), "2025-06-18"),
    ("resources/list", lambda r: r["resources"], ("title", "_meta"), "2025-06-18"),
    ("resources/list", lambda r: r["resources"], ("icons",), "2025-11-25"),
    ("resources/templates/list", lambda r: r["resourceTemplates"], ("title", "_meta"), "2025-06-18"),
    ("resources/templates/list", lambda r: r["resourceTemplates"], ("icons",), "2025-11-25"),
    ("resources/read", lambda r: r["contents"], ("_meta",), "2025-06-18"),
    ("initialize", lambda r: [r["serverInfo"]], ("title",), "2025-06-18"),
    ("initialize", lambda r: [r["serverInfo"]], ("icons", "description", "websiteUrl"), "2025-11-25"),
    ("initialize", lambda r: [r["capabilities"]], ("completions",), "2025-03-26"),
]
MODERN_ONLY = ("resultType", "ttlMs", "cacheScope")


CACHED = ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list",
          "resources/read")
TASK_MEMBERS = {"taskId": str, "status": str, "statusMessage": str, "createdAt": str, "lastUpdatedAt": str,
                "ttlMs": int, "pollIntervalMs": int}


def check_modern(message, method):
    """What 2026-07-28 and its Tasks extension ask of a message; the models know nothing of the latter."""
    if message.get("method") == "notifications/tasks":
        check_task(message["params"], {"_meta"})
    result = message.get("result")
    if result is None:
        return
    assert result["_meta"][VENDOR + "serverInfo"]["name"] == "codex-mcp-swarm", "no serverInfo in %s" % method
    assert result["resultType"] == ("task" if method == "tools/call" and "taskId" in result
                                    else "complete"), "the resultType of %s" % method
    for key, kind in (("ttlMs", int), ("cacheScope", str)):
        if method in CACHED:
            assert type(result[key]) is kind, "%s of %s" % (key, method)
    assert ("cacheScope" in result) == (method in CACHED), "cacheScope of %s" % method
    assert ("ttlMs" in result) == (method in CACHED or "taskId" in result), "ttlMs of %s" % method
    if method == "tasks/get" or result["resultType"] == "task":
        check_task(result, {"_meta", "resultType"})
    if method in ("tasks/update", "tasks/cancel"):
        assert set(result) == {"resultType", "_meta"}, sorted(result)


def check_task(task, around):
    for key, kind in TASK_MEMBERS.items():
        assert type(task[key]) is kind or (key == "ttlMs" and task[key] is None), "%s of a task" % key
    assert re.match(r"[!-~]{1,128}$",
                    task["taskId"]) and (task["ttlMs"] or 0) >= 0 and task["pollIntervalMs"] > 0, task
    assert task["status"] in ("working", "completed", "failed", "cancelled"), task["status"]
    for key in ("createdAt", "lastUpdatedAt"):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", task[key]), task[key]
    end = {"completed": {"result"}, "failed": {"error"}}.get(task["status"], set())
    assert set(task) == set(TASK_MEMBERS) | around | end, sorted(task)
    if end == {"result"}:
        check_modern({"result": task["result"]}, "tools/call")
        check_with_models({"jsonrpc": "2.0", "id": 0, "result": task["result"]}, MODERN, "tools/call")


def check_gates(message, version, method):
    if message.get("method") == "notifications/progress" and version < "2025-03-26":
        assert "message" not in message["params"], "progress.message does not exist in " + version
    if "result" not in message:
        return
    if method == "initialize":
        version = message["result"]["protocolVersion"]
    for key in MODERN_ONLY:
        assert key not in message["result"], "%s does not exist in %s" % (key, version)
    for gated, places, keys, since in GATES:
        if gated == method and version < since:
            for place in places(message["result"]):
                for key in keys:
                    assert key not in place, "%s of %s does not exist in %s" % (key, method, version)


def check_with_models(message, version, method):
    """The official models, when the package is installed."""
    jsonrpc, methods = _models()
    if jsonrpc is None:
        return
    if "method" in message:
        jsonrpc.JSONRPCNotification.model_validate(message)
        if message["method"] != "notifications/tasks":
            methods.parse_server_notification(message["method"], version, message.get("params"))
    elif "error" in message:
        jsonrpc.JSONRPCError.model_validate(message)
    else:
        jsonrpc.JSONRPCResponse.model_validate(message)
        if method is not None and not method.startswith("tasks/") and message["result"].get(
            "resultType") != "task":
            methods.validate_server_result(method, version, message["result"])


def _models():
    """`mcp_types.jsonrpc` and `mcp_types.methods`, or Nones. Imported late: not there on Python 3.8."""
    if "mcp_types" not in sys.modules and importlib.util.find_spec("mcp_types") is None:
        return None, None
    return importlib.import_module("mcp_types.jsonrpc"), importlib.import_module("mcp_types.methods")
