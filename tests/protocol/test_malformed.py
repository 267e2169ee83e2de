"""Every malformed input, in every revision: the exact answer that the protocol names for it, or silence, and
the server goes on.

Each table is read by one server per revision; a row is a line of bytes and what must come back. In the lines,
`%m` stands for a method that both eras know and `%p` for params that are right: `{}` in a session, the
envelope of 2026-07-28 without one.
"""
import inspect
import json

import pytest

from client import LEGACY_REVISIONS, MODERN, NEWEST_LEGACY, TASKS, VENDOR
from client import Client, envelope, is_response, text_of
from conftest import environment, new_repository, stop_all_tasks, task_dirs, warm

SILENCE, IS_ERROR = "silence", "isError"
SUPPORTED = [MODERN, *reversed(LEGACY_REVISIONS)]
MISSING_CAPABILITY = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
VERSION, CAPABILITIES, INFO = VENDOR + "protocolVersion", VENDOR + "clientCapabilities", VENDOR + "clientInfo"
BEFORE = "before initialize"
DEEP, MAX_FRAME_BYTES = 100000, 64 * 1024 * 1024
BATCHES = "2025-03-26"

# -- lines that are no JSON, or no object: (line, code); the id of the answer is null ------------------
GARBAGE = {
    "cut off after the id": (b'{"jsonrpc":"2.0","id":1', -32700),
    "cut off in a string": (b'{"jsonrpc":"2.0","id":1,"method":"%m', -32700),
    "cut off in a keyword": (b'{"jsonrpc":"2.0","id":1,"method":nul', -32700),
    "no JSON at all": (b"hello there", -32700),
    "an HTTP header": (b"Content-Length: 52", -32700),
    "one bracket": (b"{", -32700),
    "one closing bracket": (b"}", -32700),
    "two objects": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":%p}{}', -32700),
    "two objects and a carriage return between them": (b'{"jsonrpc":"2.0","id":1,"method":"%m"}\r{}', -32700),
    "a comma too many": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":%p,}', -32700),
    "a comma too few": (b'{"jsonrpc":"2.0" "id":1}', -32700),
    "single quotes": (b"{'jsonrpc':'2.0','id':1}", -32700),
    "keys without quotes": (b'{jsonrpc:"2.0",id:1}', -32700),
    "a comment": (b'{"jsonrpc":"2.0","id":1,"method":"%m"} // why', -32700),
    "an unknown escape": (b'{"jsonrpc":"2.0","id":1,"method":"\\x41"}', -32700),
    "half a unicode escape": (b'{"jsonrpc":"2.0","id":1,"method":"\\u12"}', -32700),
    "a number with a leading zero": (b'{"jsonrpc":"2.0","id":01,"method":"%m"}', -32700),
    "a number with a plus": (b'{"jsonrpc":"2.0","id":+1,"method":"%m"}', -32700),
    "a hexadecimal number": (b'{"jsonrpc":"2.0","id":0x1,"method":"%m"}', -32700),
    "NaN as id": (b'{"jsonrpc":"2.0","id":NaN,"method":"%m","params":%p}', -32700),
    "NaN in params": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":{"x":NaN}}', -32700),
    "Infinity": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":{"x":Infinity}}', -32700),
    "-Infinity": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":{"x":-Infinity}}', -32700),
    "NaN in a notification":
        (b'{"jsonrpc":"2.0","method":"notifications/unheard_of","params":{"x":NaN}}', -32700),
    "invalid UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":{"x":"\xff\xfe"}}', -32700),
    "overlong UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}', -32700),
    "UTF-8 cut in a character": (b'{"jsonrpc":"2.0","id":1,"method":"\xe6\xbc"}', -32700),
    "a surrogate in UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}', -32700),
    "Latin-1": ('{"jsonrpc":"2.0","id":1,"method":"\u00e4"}'.encode("latin-1"), -32700),
    "UTF-16": ('{"jsonrpc":"2.0","id":1,"method":"%m"}'.encode("utf-16-be"), -32700),
    "a byte order mark": (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"%m","params":%p}', -32700),
    "only a byte order mark": (b"\xef\xbb\xbf", -32700),
    "a null byte": (b"\0", -32700),
    "a null byte in a string": (b'{"jsonrpc":"2.0","id":1,"method":"%m\0"}', -32700),
    "a tab in a string": (b'{"jsonrpc":"2.0","id":1,"method":"%m\t"}', -32700),
    "an escape character in a string": (b'{"jsonrpc":"2.0","id":1,"method":"\x1b[31m"}', -32700),
    "an escape character before the object":
        (b'\x1b[0m{"jsonrpc":"2.0","id":1,"method":"%m","params":%p}', -32700),
    "100,000 brackets opened": (b"[" * DEEP, -32700),
    "100,000 brackets opened and closed": (b"[" * DEEP + b"]" * DEEP, -32700),
    "100,000 objects deep": (b'{"a":' * DEEP, -32700),
    "100,000 objects deep and closed": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, -32700),
    "100,000 levels inside params":
        (b'{"jsonrpc":"2.0","id":1,"method":"%m","params":{"x":' + b"[" * DEEP + b"]" * DEEP + b"}}", -32700),
    "100,000 levels as id":
        (b'{"jsonrpc":"2.0","method":"%m","id":' + b"[" * DEEP + b"]" * DEEP + b"}", -32700),
    "100,000 levels in a notification": (b'{"jsonrpc":"2.0","method":"notifications/x","params":{"x":'
                                         + b"[" * DEEP + b"]" * DEEP + b"}}", -32700),
    "a number": (b"42", -32600),
    "a negative zero": (b"-0", -32600),
    "a number too large for a float": (b"1e400", -32600),
    "a string": (b'"%m"', -32600),
    "an empty string": (b'""', -32600),
    "null": (b"null", -32600),
    "true": (b"true", -32600),
    "false": (b"false", -32600),
    "an empty object": (b"{}", -32600),
    "an object of something else": (b'{"hello":"there"}', -32600),
    "only a version": (b'{"jsonrpc":"2.0"}', -32600),
    "only params": (b'{"jsonrpc":"2.0","params":%p}', -32600),
    "a result without an id": (b'{"jsonrpc":"2.0","result":{}}', -32600),
}

# -- objects that are no request: (line, code, id) -----------------------------------------------------
SHAPES = {
    "no method": (b'{"jsonrpc":"2.0","id":"five","params":%p}', -32600, "five"),
    "a method that is a number": (b'{"jsonrpc":"2.0","id":5,"method":7,"params":%p}', -32600, 5),
    "a method that is null": (b'{"jsonrpc":"2.0","id":5,"method":null,"params":%p}', -32600, 5),
    "a method that is true": (b'{"jsonrpc":"2.0","id":5,"method":true,"params":%p}', -32600, 5),
    "a method that is an array": (b'{"jsonrpc":"2.0","id":5,"method":["%m"],"params":%p}', -32600, 5),
    "a method that is an object": (b'{"jsonrpc":"2.0","id":5,"method":{},"params":%p}', -32600, 5),
    "a method that is a number, and no id": (b'{"jsonrpc":"2.0","method":7,"params":%p}', -32600, None),
    "no jsonrpc": (b'{"id":5,"method":"%m","params":%p}', -32600, 5),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":"five","method":"%m","params":%p}', -32600, "five"),
    "jsonrpc 2": (b'{"jsonrpc":"2","id":5,"method":"%m","params":%p}', -32600, 5),
    "jsonrpc 2.0 with a blank": (b'{"jsonrpc":"2.0 ","id":5,"method":"%m","params":%p}', -32600, 5),
    "jsonrpc as a number": (b'{"jsonrpc":2.0,"id":5,"method":"%m","params":%p}', -32600, 5),
    "jsonrpc null": (b'{"jsonrpc":null,"id":5,"method":"%m","params":%p}', -32600, 5),
    "jsonrpc as an object": (b'{"jsonrpc":{},"id":5,"method":"%m","params":%p}', -32600, 5),
    "JSONRPC in capitals": (b'{"JSONRPC":"2.0","id":5,"method":"%m","params":%p}', -32600, 5),
    "the last jsonrpc counts":
        (b'{"jsonrpc":"2.0","jsonrpc":"1.0","id":5,"method":"%m","params":%p}', -32600, 5),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"%m","params":%p}', -32600, None),
    "id true": (b'{"jsonrpc":"2.0","id":true,"method":"%m","params":%p}', -32600, None),
    "id false": (b'{"jsonrpc":"2.0","id":false,"method":"%m","params":%p}', -32600, None),
    "id a float": (b'{"jsonrpc":"2.0","id":1.5,"method":"%m","params":%p}', -32600, None),
    "id a whole float": (b'{"jsonrpc":"2.0","id":1.0,"method":"%m","params":%p}', -32600, None),
    "id an infinite float": (b'{"jsonrpc":"2.0","id":1e400,"method":"%m","params":%p}', -32600, None),
    "id an object": (b'{"jsonrpc":"2.0","id":{"a":1},"method":"%m","params":%p}', -32600, None),
    "id an array": (b'{"jsonrpc":"2.0","id":[1],"method":"%m","params":%p}', -32600, None),
    "id an empty array": (b'{"jsonrpc":"2.0","id":[],"method":"%m","params":%p}', -32600, None),
    "id null and no method": (b'{"jsonrpc":"2.0","id":null,"params":%p}', -32600, None),
    "a lone surrogate as id of no request":
        (b'{"jsonrpc":"1.0","id":"\\ud800","method":"%m","params":%p}', -32600, "?"),
    "a huge id of no request":
        (b'{"jsonrpc":"1.0","id":1' + b"0" * 4000 + b',"method":"%m","params":%p}', -32600, 10 ** 4000),
    "params in an array": (b'{"jsonrpc":"2.0","id":5,"method":"%m","params":[%p]}', -32602, 5),
    "an unknown method": (b'{"jsonrpc":"2.0","id":5,"method":"frobnicate","params":%p}', -32601, 5),
    "an empty method": (b'{"jsonrpc":"2.0","id":5,"method":"","params":%p}', -32601, 5),
    "a method in capitals": (b'{"jsonrpc":"2.0","id":5,"method":"TOOLS/LIST","params":%p}', -32601, 5),
    "a method with a slash too many":
        (b'{"jsonrpc":"2.0","id":5,"method":"tools/list/","params":%p}', -32601, 5),
    "a method with a blank": (b'{"jsonrpc":"2.0","id":5,"method":" tools/list","params":%p}', -32601, 5),
    "a method with a null byte":
        (b'{"jsonrpc":"2.0","id":5,"method":"tools/list\\u0000","params":%p}', -32601, 5),
    "a method that is a lone surrogate":
        (b'{"jsonrpc":"2.0","id":5,"method":"\\ud800","params":%p}', -32601, 5),
    "a method of a megabyte":
        (b'{"jsonrpc":"2.0","id":5,"method":"' + b"x" * 1000000 + b'","params":%p}', -32601, 5),
    "a method of Python's objects": (b'{"jsonrpc":"2.0","id":5,"method":"__class__","params":%p}', -32601, 5),
    "a notification that asks for an answer":
        (b'{"jsonrpc":"2.0","id":5,"method":"notifications/initialized","params":%p}', -32601, 5),
    "a method of the client's: sampling":
        (b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":%p}', -32601, 5),
    "a method of the client's: roots":
        (b'{"jsonrpc":"2.0","id":5,"method":"roots/list","params":%p}', -32601, 5),
    "a method of the client's: elicitation":
        (b'{"jsonrpc":"2.0","id":5,"method":"elicitation/create","params":%p}', -32601, 5),
    "a capability not declared: completion":
        (b'{"jsonrpc":"2.0","id":5,"method":"completion/complete","params":%p}', -32601, 5),
    "a capability not declared: logging":
        (b'{"jsonrpc":"2.0","id":5,"method":"logging/setLevel","params":%p}', -32601, 5),
    "a method of the experimental tasks: result":
        (b'{"jsonrpc":"2.0","id":5,"method":"tasks/result","params":%p}', -32601, 5),
    "a method of the experimental tasks: list":
        (b'{"jsonrpc":"2.0","id":5,"method":"tasks/list","params":%p}', -32601, 5),
}

# -- what is never answered ----------------------------------------------------------------------------
SILENT = {
    "an empty line": b"",
    "a carriage return": b"\r",
    "blanks": b"   \t ",
    "three empty lines": b"\n\n",
    "a form feed": b"\x0c",
    "an unknown notification": b'{"jsonrpc":"2.0","method":"notifications/unheard_of","params":%p}',
    "an unknown notification with params in an array":
        b'{"jsonrpc":"2.0","method":"notifications/unheard_of","params":[%p]}',
    "a request without an id": b'{"jsonrpc":"2.0","method":"%m","params":%p}',
    "a call without an id":
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"codex","arguments":{"prompt":"x"}}}',
    "an unknown request without an id": b'{"jsonrpc":"2.0","method":"frobnicate","params":%p}',
    "a notification without jsonrpc": b'{"method":"notifications/unheard_of","params":%p}',
    "a notification of jsonrpc 1.0": b'{"jsonrpc":"1.0","method":"notifications/unheard_of","params":%p}',
    "a notification without a name": b'{"jsonrpc":"2.0","method":""}',
    "initialized with params in an array":
        b'{"jsonrpc":"2.0","method":"notifications/initialized","params":[]}',
    "progress of the client's":
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":"x"}}',
    "cancelled without params": b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    "cancelled with params null": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":null}',
    "cancelled with a string as params": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":"x"}',
    "cancelled with params in an array": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[1]}',
    "cancelled without an id": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":%p}',
    "cancelled with an envelope":
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77,"_meta":%e}}',
    **{"cancelled: %s" % name:
           b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}' % given
       for name, given in {
        "a number nobody used": b"12345", "a string nobody used": b'"no such"', "null": b"null",
        "an object": b"{}", "an array": b"[1]", "a float": b"1.5",
        "an infinite float": b"1e400", "true": b"true", "a lone surrogate": b'"\\ud800"',
        "a huge number": b"1" + b"0" * 4000}.items()},
    "cancelled for a reason that is a number":
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":5}}',
    "a result that nobody asked for": b'{"jsonrpc":"2.0","id":77,"result":{}}',
    "a result of another shape": b'{"jsonrpc":"2.0","id":77,"result":5}',
    "an error that nobody asked for": b'{"jsonrpc":"2.0","id":77,"error":{"code":-1,"message":"x"}}',
    "an error of another shape": b'{"jsonrpc":"2.0","id":"x","error":null}',
    "a result and an error": b'{"jsonrpc":"2.0","id":77,"result":{},"error":{"code":-1,"message":"x"}}',
    "a response whose id is null": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}',
    "an error without an id": b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}',
    "a response whose id is an object": b'{"jsonrpc":"2.0","id":{},"result":{}}',
    "a response of jsonrpc 1.0": b'{"jsonrpc":"1.0","id":77,"result":{}}',
}

# -- requests with wrong params: (method, params, code or isError, data or what the message names) -----
NO_URI = {"null": {"uri": None}, "a number": {"uri": 5}, "an array": {"uri": ["codex-swarm:///tasks"]},
          "an object": {"uri": {}}, "true": {"uri": True}, "missing": {}}
UNKNOWN_URIS = ["codex-swarm:///nothing", "codex-swarm:///tasks/0123456789ab",
                "codex-swarm:///tasks/0123456789ab/events", "codex-swarm:///tasks/../server-info",
                "codex-swarm:///tasks/..%2f..%2fetc", "codex-swarm:///tasks/", "file:///etc/passwd",
                "codex-swarm://tasks", "", "tasks",
                "codex-swarm:///tasks/{task_id}", "CODEX-SWARM:///tasks", "x:\0", "codex-swarm:///tasks\n"]
LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")
WRONG_PARAMS = {
    "a call without params": ("tools/call", {}, -32602, "name"),
    "a call without a name": ("tools/call", {"arguments": {}}, -32602, "name"),
    **{"a call of %s" % name: ("tools/call", {"name": given, "arguments": {}}, -32602, "name")
       for name, given in {
        "null": None, "a number": 5, "an array": ["codex"], "an object": {}, "true": True,
        "a float": 1.5}.items()},
    **{"a tool that is not: %r" % name:
           ("tools/call", {"name": name}, -32602,
                "Unknown tool: " + name.strip()[:50].replace("\0", "\\x00")) for name in (
        "frobnicate", "", "Codex", "CODEX", "codex ", " codex", "tools/list", "__class__", "codex\0",
        "x" * 100000)},
    "a tool that is a lone surrogate": ("tools/call", {"name": "\ud800"}, -32602, "Unknown tool: ?"),
    **{"arguments that are %s" % name:
           ("tools/call", {"name": "codex", "arguments": given}, -32602, "arguments") for name, given in {
        "an array": [], "an array of an object": [{"prompt": "x"}], "a string": "prompt", "a number": 5,
        "0": 0, "false": False, "true": True, "a float": 0.5}.items()},
    **{"%s after %r" % (method, cursor): (method, {"cursor": cursor}, -32602, "cursor") for method in LISTS
       for cursor in ("frobnicate", "", 1, 0, False, [], {})},
    **{"a resource whose uri is %s" % name: ("resources/read", params, -32602, "uri")
       for name, params in NO_URI.items()},
    "a prompt without a name": ("prompts/get", {}, -32602, "prompt"),
    **{"a prompt of %s" % name: ("prompts/get", {"name": given}, -32602, "prompt") for name, given in {
        "null": None, "a number": 5, "an array": ["fan_out"], "an object": {}, "true": True, "no name": "",
        "capitals": "FAN_OUT"}.items()},
    "an unknown prompt": ("prompts/get", {"name": "frobnicate"}, -32602, "frobnicate"),
    "a prompt without its argument": ("prompts/get", {"name": "fan_out"}, -32602, "jobs"),
    **{"a prompt with %s as argument" % name:
           ("prompts/get", {"name": "fan_out", "arguments": {"jobs": given}}, -32602, "jobs")
       for name, given in {
        "nothing": "", "a number": 5, "null": None, "an array": ["x"], "true": True}.items()},
    "an array as a prompt's arguments":
        ("prompts/get", {"name": "fan_out", "arguments": []}, -32602, "arguments"),
    "a string as a prompt's arguments":
        ("prompts/get", {"name": "fan_out", "arguments": "x"}, -32602, "arguments"),
    "a prompt's argument that is a number and not its own":
        ("prompts/get", {"name": "review_and_fix", "arguments": {"x": 5}}, -32602, "x"),
    # Arguments that the schema refuses are the model's to correct; test_arguments has all of them.
    "a call without its argument": ("tools/call", {"name": "codex"}, IS_ERROR, "prompt"),
    "a call with null as arguments": ("tools/call", {"name": "codex", "arguments": None}, IS_ERROR, "prompt"),
    "a number as prompt":
        ("tools/call", {"name": "codex_async", "arguments": {"prompt": 5}}, IS_ERROR, "prompt"),
    "an unknown argument that is a lone surrogate":
        ("tools/call", {"name": "codex", "arguments": {"prompt": "x", "\ud800": 1}}, IS_ERROR, "argument"),
    "a lone surrogate as cwd":
        ("tools/call", {"name": "codex", "arguments": {"prompt": "x", "cwd": "/\ud800"}}, IS_ERROR, "cwd"),
    "a lone surrogate in the prompt":
        ("tools/call", {"name": "codex", "arguments": {"prompt": "\ud800 x"}}, IS_ERROR, "prompt"),
    "a lone surrogate as model":
        ("tools/call", {"name": "codex", "arguments": {"prompt": "x", "model": "\ud800"}}, IS_ERROR, "model"),
    "a lone surrogate as task id":
        ("tools/call", {"name": "codex_wait", "arguments": {"task_ids": ["\ud800"]}}, IS_ERROR, "task_ids"),
    "a huge number as timeout": ("tools/call",
                                 {"name": "codex_wait",
                                  "arguments": {"task_ids": ["0" * 12], "timeout_s": 10 ** 300}}, IS_ERROR,
                                 "timeout_s"),
    "a huge number as offset": ("tools/call",
                                {"name": "codex_wait",
                                 "arguments": {"task_ids": ["0" * 12], "offset": 10 ** 4000}}, IS_ERROR,
                                "offset"),
    "arguments 900 levels deep": ("tools/call",
                                  {"name": "codex",
                                   "arguments": {"prompt": json.loads("[" * 900 + "]" * 900)}}, IS_ERROR,
                                  "prompt"),
    "config 900 levels deep": ("tools/call",
                               {"name": "codex",
                                "arguments": {"prompt": "x",
                                              "config": {"a": json.loads("[" * 900 + "]" * 900)}}}, IS_ERROR,
                               "config"),
}
SURROGATE_URI = "x:\udfff"

# In a session, without the envelope.
IN_SESSION = {
    **WRONG_PARAMS,
    **{"an unknown resource: %r" % uri: ("resources/read", {"uri": uri}, -32002, {"uri": uri})
       for uri in UNKNOWN_URIS},
    "a lone surrogate as uri": ("resources/read", {"uri": SURROGATE_URI}, -32002, {"uri": "x:?"}),
    **{"%s, which is not declared" % method: (method, {"uri": "codex-swarm:///tasks"}, -32601, method)
       for method in ("resources/subscribe", "resources/unsubscribe")},
    **{"params that are %s" % name: ("tools/list", given, -32602, "params") for name, given in {
        "an array": [], "an array of a number": [1], "a string": "x", "a number": 5, "true": True,
        "false": False}.items()},
    "a call with null as params": ("tools/call", None, -32602, "name"),
    "discover without the envelope": ("server/discover", {}, -32601, "server/discover"),
    "listen without the envelope":
        ("subscriptions/listen", {"notifications": {}}, -32601, "subscriptions/listen"),
    **{"%s without the envelope" % method: (method, {"taskId": "0" * 32}, -32601, method)
       for method in ("tasks/get", "tasks/cancel", "tasks/update")},
    "_meta without the version":
        ("server/discover", {"_meta": {CAPABILITIES: {}}}, -32601, "server/discover"),
    "a second initialize": ("initialize",
                            {"protocolVersion": NEWEST_LEGACY, "capabilities": {},
                             "clientInfo": {"name": "x", "version": "1"}}, -32600, "lready"),
}

# With the envelope, which declares the Tasks extension.
TASK_IDS = {"without taskId": {}, "of null": {"taskId": None}, "of a number": {"taskId": 5},
            "of an array": {"taskId": []}, "of an object": {"taskId": {}},
            "of true": {"taskId": True}, "of nothing": {"taskId": ""},
            "of an unknown task": {"taskId": "0" * 32}, "of a codex task": {"taskId": "0" * 12},
            "of a path": {"taskId": "../../etc/passwd"}, "of a long name": {"taskId": "a" * 5000},
            "of a null byte": {"taskId": "\0" * 32},
            "of a line feed": {"taskId": "0" * 32 + "\n"}, "of capitals": {"taskId": "A" * 32},
            "of a lone surrogate": {"taskId": "\ud800" * 32}}
STATELESS = {
    **WRONG_PARAMS,
    **{"an unknown resource: %r" % uri: ("resources/read", {"uri": uri}, -32602, {"uri": uri})
       for uri in UNKNOWN_URIS},
    "a lone surrogate as uri": ("resources/read", {"uri": SURROGATE_URI}, -32602, {"uri": "x:?"}),
    **{"%s %s" % (method, name): (method, params, -32602, "taskId")
       for method in ("tasks/get", "tasks/cancel", "tasks/update") for name, params in TASK_IDS.items()},
    "listen, which is not declared":
        ("subscriptions/listen", {"notifications": {}}, -32601, "subscriptions/listen"),
    **{"a removed method: %s" % method: (method, {"uri": "codex-swarm:///tasks"}, -32601, method)
       for method in ("ping", "resources/subscribe", "resources/unsubscribe")},
    "a removed method: initialize": ("initialize", {}, -32601, "initialize"),
    "a removed method: initialize with its version":
        ("initialize", {"protocolVersion": NEWEST_LEGACY, "capabilities": {}}, -32601, "initialize"),
}


def meta(**changes):
    """An envelope with keys changed; None leaves one out."""
    keys = {"version": VERSION, "capabilities": CAPABILITIES, "info": INFO}
    changed = {**envelope(), **{keys[k]: v for k, v in changes.items()}}
    return {k: v for k, v in changed.items() if v is not None}


# (_meta, code, what the message names)
ENVELOPES = {
    **{"a version that is %s" % name: (meta(version=given), -32602, VERSION) for name, given in {
        "a number": 5, "a float": 2.0, "an object": {}, "an array": [MODERN], "true": True,
        "false": False}.items()},
    "a version that is null": ({**meta(), VERSION: None}, -32602, VERSION),
    "no capabilities": (meta(capabilities=None), -32602, CAPABILITIES),
    **{"capabilities that are %s" % name: (meta(capabilities=given), -32602, CAPABILITIES)
       for name, given in {
        "an array": [], "a string": "x", "0": 0, "true": True}.items()},
    "capabilities that are null": ({**meta(), CAPABILITIES: None}, -32602, CAPABILITIES),
    **{"version %r" % given: (meta(version=given), -32022, given)
       for given in (*LEGACY_REVISIONS, "2099-01-01", "latest", MODERN + " ", "", "2026-7-28", "\0",
                     "DRAFT-2026-v1")},
    "a version and nothing else, of another revision": ({VERSION: "2099-01-01"}, -32022, "2099-01-01"),
}
# Before any handshake these are no envelopes either, but in a session they are none of its business.
NO_ENVELOPES = {"no version": meta(version=None), "nothing": {}, "a string": "x", "an array": [],
                "null": None, "a number": 5, "the keys without their prefix": {
    "protocolVersion": MODERN, "clientCapabilities": {}}}
UNDECLARED = {"nothing": {}, "extensions null": {"extensions": None},
              "extensions that are an array": {"extensions": [TASKS]}, "extensions that are a string": {
    "extensions": TASKS}, "another extension": {"extensions": {VENDOR + "ui": {}}},
              "the extension in another place": {TASKS: {}}, "the old tasks": {"tasks": {}}}

# What a server that has had no handshake says: how to begin.
BEFORE_THE_HANDSHAKE = {
    **{"%s" % method: (method, {}, -32602, "initialize") for method in (
        "tools/list", "tools/call", "resources/list", "resources/read", "resources/templates/list",
        "prompts/list", "prompts/get",
        "server/discover", "tasks/get", "tasks/cancel", "tasks/update")},
    **{"unknown: %s" % method: (method, {}, -32601, method) for method in (
        "frobnicate", "resources/subscribe", "subscriptions/listen", "completion/complete",
        "logging/setLevel", "tasks/result", "tasks/list")},
    **{"initialize with %s" % name: ("initialize", given, -32602, "protocolVersion") for name, given in {
        "no params": {}, "a number as version": {"protocolVersion": 5},
        "null as version": {"protocolVersion": None, "capabilities": {}},
        "an array as version": {"protocolVersion": [NEWEST_LEGACY]},
        "an object as version": {"protocolVersion": {}}}.items()},
    "initialize with params in an array": ("initialize", [], -32602, "params"),
    "initialize with a string as params": ("initialize", NEWEST_LEGACY, -32602, "params"),
    **{"_meta with %s" % name: ("tools/list", {"_meta": given}, -32602, VERSION)
       for name, given in NO_ENVELOPES.items()},
}

# -- batches: revision 2025-03-26 takes them, no other does --------------------------------------------
PING = {"jsonrpc": "2.0", "id": 90, "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/unheard_of"}
RESPONSE = {"jsonrpc": "2.0", "id": 8, "result": {}}
INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize",
              "params": {"protocolVersion": BATCHES, "capabilities": {},
                         "clientInfo": {"name": "x", "version": "1"}}}
ENVELOPED = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": envelope()}}
ONE_ERROR = "one error"
# The entries, and for 2025-03-26 the (id, code) of each answer; the others answer everything with one error.
BATCH = {
    "a request": ([PING], [(90, None)]),
    "a request and a notification": ([PING, NOTE], [(90, None)]),
    "requests good and bad": ([PING, NOTE, {"jsonrpc": "2.0", "id": "t", "method": "tools/list"},
                               {"jsonrpc": "2.0", "id": 91, "method": "frobnicate"}],
                              [(90, None), ("t", None), (91, -32601)]),
    "a notification": ([NOTE], SILENCE),
    "notifications and responses": ([NOTE, NOTE, RESPONSE], SILENCE),
    "a response": ([RESPONSE], SILENCE),
    "nothing": ([], ONE_ERROR),
    "a number": ([5], [(None, -32600)]),
    "null": ([None], [(None, -32600)]),
    "a batch": ([[]], [(None, -32600)]),
    "a batch of a request": ([[PING], PING], [(None, -32600), (90, None)]),
    "bad entries": ([5, {}, [], {"jsonrpc": "2.0", "id": None, "method": "ping"}, PING],
                    [(None, -32600)] * 4 + [(90, None)]),
    "an entry of jsonrpc 1.0":
        ([{"jsonrpc": "1.0", "id": 5, "method": "ping"}, PING], [(5, -32600), (90, None)]),
    "a malformed notification":
        ([{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": 5}, PING], [(90, None)]),
    "a tool that is not": ([{"jsonrpc": "2.0", "id": 4, "method": "tools/call",
                             "params": {"name": "frobnicate"}}], [(4, -32602)]),
    "initialize": ([INITIALIZE, PING], [(1, -32600), (90, None)]),
    "only initialize": ([INITIALIZE], [(1, -32600)]),
    "a request of 2026-07-28": ([ENVELOPED, PING], [(1, -32600), (90, None)]),
    "only requests of 2026-07-28": ([ENVELOPED, dict(ENVELOPED, id=2)], [(1, -32600), (2, -32600)]),
}

# -- an id that is under way ---------------------------------------------------------------------------
IN_FLIGHT = {"tools/call": {"name": "codex_status"}, "tools/list": {},
             "resources/read": {"uri": "codex-swarm:///config"}, "ping": {}, "server/discover": {}}


# -- the servers ---------------------------------------------------------------------------------------
class Conversation:
    """One server that reads a table, and how many messages it has been seen to send."""

    def __init__(self, client, revision):
        self.client, self.revision = client, revision

    def line(self, template):
        """The bytes of a row, with the method and the params of the era put in."""
        params = {"_meta": envelope()} if self.revision == MODERN else {}
        for mark, text in ((b"%m", b"tools/list"), (b"%p", json.dumps(params).encode()),
                           (b"%e", json.dumps(envelope()).encode())):
            template = template.replace(mark, text)
        return template + b"\n"

    def alive(self):
        """The answer of the request that every server of this era must answer."""
        c, since, modern = self.client, len(self.client.log), self.revision == MODERN
        answer = c.result(
            c.start("server/discover" if modern else "ping", envelope=envelope() if modern else None),
            since=since)
        assert answer["result"]["supportedVersions"] == SUPPORTED if modern else answer["result"] == {}
        return answer

    def answer_to(self, line, expected):
        """Send bytes; what they are answered with. The server still answers after that, and said nothing
        else."""
        c, since = self.client, len(self.client.log)
        c.send_raw(line)
        answer = None if expected == SILENCE else c.wait_for(
            lambda m: True, since=since, what="an answer to %r" % line[:80])
        probe = self.alive()
        assert c.log[since:] == ([probe] if answer is None else [answer, probe]), c.log[since:]
        return answer

    def request(self, method, params, id=5):
        """A request as bytes; its answer is checked against its method as if the client had sent it."""
        self.client.expect(id, method, MODERN if self.revision == MODERN else None)
        return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n"


@pytest.fixture(scope="module")
def conversation(tmp_path_factory):
    """A factory: the one server of this module that speaks this revision."""
    started, roots = {}, []

    def of(revision):
        if revision not in started:
            home = tmp_path_factory.mktemp("conversation")
            env, repo = environment(home, home / "root"), new_repository(home / "repo")
            client = Client(None, process=warm((), env, repo))
            roots.append(home / "root")
            started[revision] = Conversation(client, revision)
            if revision in LEGACY_REVISIONS:
                client.initialize(revision)
        return started[revision]

    yield of
    for talk in started.values():
        assert talk.client.close() == 0
        assert talk.client.stderr == ""
    for root in roots:
        stop_all_tasks(root)
        assert task_dirs(root) == [], "malformed input started a task"


every_revision = pytest.mark.parametrize("revision", [*LEGACY_REVISIONS, MODERN])
every_session = pytest.mark.parametrize("revision", LEGACY_REVISIONS)


def each(table):
    """Makes of a test of one row a test of all, which says at which row it stopped."""
    def over(test):
        def all_rows(**given):
            for name in table:
                try:
                    test(name=name, **given)
                except AssertionError as error:
                    raise AssertionError("%s: %s" % (name, error)) from error
        signature = inspect.signature(test)
        given = [one for one in signature.parameters.values() if one.name != "name"]
        all_rows.__name__, all_rows.__signature__ = test.__name__, signature.replace(parameters=given)
        return all_rows
    return over


def check_error(answer, code, id, told=""):
    """`told`: the data of the error, or what its message names."""
    assert (answer["error"]["code"], json.dumps(answer["id"])) == (code, json.dumps(id)), answer
    if isinstance(told, dict):
        assert answer["error"]["data"] == told
    else:
        assert told in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 500, "an error is short, whatever was sent"


# -- lines ---------------------------------------------------------------------------------------------
@every_revision
@each(GARBAGE)
def test_a_line_that_is_no_message_gets_its_error_and_the_server_goes_on(conversation, revision, name):
    talk, (line, code) = conversation(revision), GARBAGE[name]
    check_error(talk.answer_to(talk.line(line), code), code, None)


@every_revision
@each(SHAPES)
def test_an_object_that_is_no_request_gets_its_error_and_the_server_goes_on(conversation, revision, name):
    talk, (line, code, id) = conversation(revision), SHAPES[name]
    check_error(talk.answer_to(talk.line(line), code), code, id)


@every_revision
@each(SILENT)
def test_a_notification_a_response_or_an_empty_line_is_never_answered(conversation, revision, name):
    talk = conversation(revision)
    talk.answer_to(talk.line(SILENT[name]), SILENCE)


@pytest.mark.parametrize("revision", [NEWEST_LEGACY, MODERN])
def test_all_bad_lines_in_a_row_are_answered_in_order_and_a_line_may_end_with_a_carriage_return(
        conversation, revision):
    talk = conversation(revision)
    c, since, table = talk.client, len(talk.client.log), {**GARBAGE, **SHAPES}
    c.send_raw(b"".join(talk.line(row[0]).replace(b"\n", b"\r\n") for row in table.values()))
    probe = talk.alive()
    assert [m["error"]["code"] for m in c.log[since:] if m != probe] == [row[1] for row in table.values()]


@pytest.mark.parametrize("revision", [NEWEST_LEGACY, MODERN])
@pytest.mark.parametrize("excess", [0, 1, MAX_FRAME_BYTES])
def test_a_line_past_the_cap_is_one_invalid_request_and_the_next_line_is_read(conversation, revision, excess):
    """The cap counts the line's end: a line of exactly the cap is too long by that."""
    talk = conversation(revision)
    head = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"'
    answer = talk.answer_to(head + b"x" * (MAX_FRAME_BYTES + excess - len(head) - 3) + b'"}}\n', -32600)
    check_error(answer, -32600, None, "64")


@pytest.mark.parametrize("half",
                         [b"", b"{", b'{"jsonrpc":"2.0","id":99,"method":"tools/li', b'\xef\xbb', b'"', b"\0",
                          b'{"jsonrpc":"2.0","method":"notifications/x'])
@pytest.mark.parametrize("revision", [NEWEST_LEGACY, MODERN])
def test_a_last_line_without_its_end_is_no_reason_to_fail(server, revision, half):
    talk = Conversation(server(), revision)
    talk.alive()
    talk.client.send_raw(half)
    assert talk.client.close() == 0
    assert talk.client.stderr == ""
    assert [m["error"]["code"]
            for m in talk.client.log[1:]] in ([], [-32700]), "half a line is nothing, or no JSON"


# -- requests ------------------------------------------------------------------------------------------
def check_answer(answer, expected, told):
    if expected != IS_ERROR:
        return check_error(answer, expected, 5, told)
    assert (answer["id"], answer["result"]["isError"]) == (5, True), answer
    assert told in text_of(answer["result"])


@every_session
@each(IN_SESSION)
def test_a_wrong_request_of_a_session_gets_its_error_and_the_server_goes_on(conversation, revision, name):
    talk, (method, params, expected, told) = conversation(revision), IN_SESSION[name]
    check_answer(talk.answer_to(talk.request(method, params), expected), expected, told)


@each(STATELESS)
def test_a_wrong_request_with_an_envelope_gets_its_error_and_the_server_goes_on(conversation, name):
    talk, (method, params, expected, told) = conversation(MODERN), STATELESS[name]
    answer = talk.answer_to(talk.request(method, {**params, "_meta": envelope(tasks=True)}), expected)
    check_answer(answer, expected, told)
    assert expected != IS_ERROR or answer["result"]["resultType"] == "complete"


@each(BEFORE_THE_HANDSHAKE)
def test_a_request_before_the_handshake_is_told_how_to_begin(conversation, name):
    talk, (method, params, code, told) = conversation(BEFORE), BEFORE_THE_HANDSHAKE[name]
    check_error(talk.answer_to(talk.request(method, params), code), code, 5, told)


@pytest.mark.parametrize("revision", [MODERN, NEWEST_LEGACY])
@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call", "tasks/get", "frobnicate"])
@each(ENVELOPES)
def test_a_bad_envelope_is_refused_and_what_is_wrong_is_named_with_or_without_a_session(
        conversation, revision, method, name):
    talk, (given, code, told) = conversation(revision), ENVELOPES[name]
    answer = talk.answer_to(talk.request(method, {"_meta": given, "name": "codex_status"}), code)
    check_error(answer, code, 5, "" if told == "\0" else told)
    if code == -32022:
        assert answer["error"]["data"] == {"supported": SUPPORTED, "requested": given[VERSION]}


@pytest.mark.parametrize("method, params", [
    ("tasks/get", {"taskId": "0" * 32}), ("tasks/update", {"taskId": "0" * 32}),
    ("tasks/cancel", {"taskId": "0" * 32}), ("tasks/get", {})])
@each(UNDECLARED)
def test_what_needs_the_tasks_extension_is_refused_when_it_is_not_declared(
        conversation, method, params, name):
    talk = conversation(MODERN)
    answer = talk.answer_to(talk.request(method, {**params, "_meta": meta(capabilities=UNDECLARED[name])}),
                            -32021)
    check_error(answer, -32021, 5, MISSING_CAPABILITY)


@pytest.mark.parametrize("token", [True, False, None, 1.5, {}, [], [1]])
@every_revision
def test_a_token_that_is_no_token_is_no_reason_to_fail(conversation, revision, token):
    talk = conversation(revision)
    given = {**(envelope() if revision == MODERN else {}), "progressToken": token}
    answer = talk.answer_to(talk.request("tools/call", {"name": "codex_status", "_meta": given}), "a result")
    assert answer["result"]["isError"] is False


@every_revision
def test_a_token_that_is_a_lone_surrogate_never_comes_back_out(conversation, revision):
    talk = conversation(revision)
    given = {**(envelope() if revision == MODERN else {}), "progressToken": "\ud800"}
    assert talk.answer_to(talk.request("tools/list", {"_meta": given}), "a result")["result"]["tools"]


# -- batches -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("revision", [*LEGACY_REVISIONS, BEFORE, MODERN])
@each(BATCH)
def test_a_batch_is_answered_in_2025_03_26_and_one_invalid_request_elsewhere(conversation, revision, name):
    talk, (entries, expected) = conversation(revision), BATCH[name]
    answer = talk.answer_to(json.dumps(entries).encode() + b"\n",
                            expected if revision == BATCHES else ONE_ERROR)
    if revision != BATCHES or expected == ONE_ERROR:
        check_error(answer, -32600, None)
    elif expected != SILENCE:
        assert sorted((json.dumps(a["id"]), json.dumps(a.get("error", {}).get("code")))
                      for a in answer) == sorted((json.dumps(id), json.dumps(code)) for id, code in expected)


# -- ids under way -------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [NEWEST_LEGACY, MODERN])
@pytest.mark.parametrize("second", [NEWEST_LEGACY, MODERN])
def test_an_id_under_way_is_refused_in_both_eras_and_the_first_request_goes_on(client, gate, first, second):
    c = client()
    task = c.begin(gate.wait, "SAY first")
    c.start_call("codex_wait", {"task_ids": [task]}, id=500, envelope=envelope() if first == MODERN else None)
    for method, params in IN_FLIGHT.items():
        if (method == "ping" and second == MODERN) or (method == "server/discover" and second != MODERN):
            continue
        since = len(c.log)
        c.send(
            {"jsonrpc": "2.0", "id": 500, "method": method,
             "params": {**params, **({"_meta": envelope()} if second == MODERN else {})}})
        check_error(c.result(500, since=since), -32600, 500)
        assert c.request("ping")["result"] == {}
    since = len(c.log)
    gate.open()
    assert c.result(500, since=since)["result"]["structuredContent"]["tasks"][0]["content"] == "first"
    assert len([m for m in c.log if is_response(m) and m["id"] == 500 and "result" in m]) == 1
