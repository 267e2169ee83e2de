#!/usr/bin/env python3
"""codex-mcp-swarm: run many Codex CLI tasks at once from any MCP client.

One file, standard library only, Python 3.8 and newer, Linux and macOS.

    MCP client --stdio--> server (any number, no state)      ROOT/tasks/<id>/      supervisor --> codex exec
      main thread: reads stdin        creates, launches -->  spec.json, prompt     one a task, one thread,
      call threads: one a slow call   stop --------------->  stop, control (bell)  asleep in select(2); the
      watchers: blocked in flock  <-- the kernel wakes them  lock (held for life)  only writer of the status
                                                             status.json (rename)  and the one who reaps;
                                      reads what is new <--  events.jsonl          kills what codex leaves

Five rules carry the rest. Liveness is a held lock, never a pid. Whoever holds the lock is the only
writer of the status, and writes by rename. Only the supervisor waits for codex. A waiter sleeps in
the kernel. An event is read once. So tasks outlive servers: kill a server at any time, start another
one on the same ROOT, and it sees, waits for and stops the same tasks.

Floors, ground to roof; a floor uses only itself and the floors below, 1 to 6 do no I/O:
     1 VOCABULARY   2 ERRORS   3 RECORDS   4 LIFE OF A TASK   5 SCHEMA   6 CODEX   7 HOST   8 GIT
     9 STORE   10 SUPERVISOR   11 SWARM   12 TOOLS   13 MCP   14 COMMAND LINE

Where do I add ...?
    a tool                      floor 12: one @tool function
    an argument of a codex run  floor 6: one FLAGS row
    an event or item of codex   floor 6: one EVENTS or ITEMS row, and a recording in tests/recordings
    a kind of failure           floor 1: FailureKind; floor 6: EVIDENCE and ADVICE rows
    a task state or outcome     floor 1: the enum; floor 4: its TRANSITIONS row
    a check of the doctor       floor 11: a method that Doctor.findings names
    a resource or a prompt      floor 12: one RESOURCES or PROMPT_ROWS row
    a protocol method           floor 13: one METHODS row, and the method of its era
    a command, flag or variable floor 14: one @subcommand function, a row of SERVER_FLAGS or VARIABLES
    a reason to keep a worktree floor 8: Clearing._doubts, or _losses where it is about files
"""
from __future__ import annotations

import _socket                      # `socket` takes 5 ms more
import collections
import contextlib
import enum
import errno
import fnmatch
import functools
import itertools
import json
import os
import re
import select
import signal
import stat
import sys
import threading
import time
from typing import (IO, TYPE_CHECKING, Any, Callable, Container, ContextManager, Counter, Deque, Dict,
                    FrozenSet, Iterable, Iterator, List, Mapping, NoReturn, Optional, Sequence, Set, TextIO,
                    Tuple, Union)

try:
    import fcntl
except ImportError:             # Windows, which lacks what follows, down to the names of signals
    sys.stderr.write("codex-mcp-swarm: Windows itself is not supported; run it inside WSL\n")
    sys.exit(2)
if sys.version_info < (3, 8):
    sys.stderr.write("codex-mcp-swarm: Python 3.8 or newer is needed; start it with such a one\n")
    sys.exit(2)

__version__ = "2.0.0"
__all__ = ["Config", "Host", "Outcome", "State", "Swarm", "SwarmError", "main"]

# A module that every start needs is imported here; one that only some work needs (subprocess, argparse,
# logging, ctypes, ...) is imported where that work is done: the first answer leaves some 15 ms earlier.

# ======================================================================================
# 1. VOCABULARY
# ======================================================================================
HEARTBEAT_S = 10.0                  # progress of a blocking call is sent at least this often
PROGRESS_GAP_S = 1.0                # ... and at most this often
WAIT_S = 1800.0                     # how long a blocking call blocks by default
WAIT_S_CODEX = 240.0                # ... for Codex as the client: it gives up after 300 s
CANCEL_WAIT_S = 15.0                # how long codex_cancel waits for the end of what it stops
EXIT_GRACE_S = 0.4                  # at end of input: time for short calls to be answered
STOP_STEPS = ((0.0, "SIGINT"), (0.3, "SIGINT"), (2.0, "SIGTERM"), (4.0, "SIGKILL"))
LOOK_S = 5.0                        # a supervisor looks for orders so often, and is deaf after a false alarm
HEED_S = 0.2                        # ... and so often while git commits the work
FOLLOW_S = 1.0                      # ... and at what codex tells, while it tells anything
FOLLOW_BYTES = 1 << 20              # of that it takes in so much before it listens again
BACKOFF_S = (4.0, 600.0)            # before another attempt, twice as long each time; at most
IDLE_CPU = 0.01                     # below this share of one a process only waits
SWEEP_S = 5.0                       # how long the supervisor tries to kill what codex left behind
NESTED_S = 90.0                     # how long tasks inside of it have to stop and to be committed
GIT_TIMEOUT_S = 120.0               # for one git command
CHECKOUT_S = 1800.0                 # for one that writes the files of a checkout
CHECKOUTS = 3                       # so many worktrees of one call are made side by side
VERIFY_S = 1800.0                   # for the command that verifies a merge
SNAPSHOT_S = 60.0                   # for all git commands at the end of a task together
UNLOCK_S = 5.0
FORK_S = 10.0                       # how long a supervisor may take to be there
SNAPSHOT_FILE_BYTES = 100 * 1024 * 1024     # a larger file is not committed (GitHub refuses it), but named
SWEEP_EVERY_S = 3600.0              # how often the servers of a ROOT together look for what may be removed
TRASH_S = 30 * 86400.0              # how long the commits of a removed branch or worktree are remembered
NAMES_SHOWN = 5                     # of a list of files in a record
HUNKS_SHOWN = 5                     # of the conflicts in one file
FILES_SHOWN = 20                    # with conflicts, of a pair of tasks
PAIRS_TRIED = 2_000                 # of tasks that may conflict
MERGES_AT_ONCE = 25                 # by one process of git's; the files with conflicts are held in memory
HUNK_CHARS = 1_500
TRACE_EVERY_S = 3.0                 # so often git may be asked what running tasks changed
TRACE_S = 1.0                       # ... and so long, for all of them together: an answer waits for it
FILES_KEPT = 500                    # of those that a task touched
MAX_TIMEOUT_S = 7 * 86400.0
MAX_WAITS = 256                     # calls at once beyond which no waiting one is taken; each has a thread
MAX_CALLS = 320                     # the same for all others
MAX_TASKS_PER_CALL = 100
MAX_IMAGES = 20
MAX_IMAGE_BYTES = 20 * 1024 * 1024
IMAGE = rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF....WEBP"      # how a file that is one begins
LIST_SHOWN = 50                     # tasks of a list in one answer
WANTED_SHOWN = 10                   # of those that ended and that nobody has collected
RESULT_BEGINS = 1_000               # characters of a result that nobody asked for by name
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_LINE_BYTES = 32 * 1024 * 1024   # of events.jsonl; codex's own final messages were seen to be up to 10 MB
MAX_UNREAD_BYTES = 64 * 1024 * 1024 # what a client may leave unread before it is given up
MAX_PROMPT_CHARS = 1_048_576        # codex's own limit, in code points
MAX_ARGV_BYTES = 128 * 1024 - 1     # Linux: MAX_ARG_STRLEN, for one word
MAX_CONFIG_DEPTH = 32
MAX_SCHEMA_STEPS = 100_000          # in the check of one answer; a schema may lead in circles
RESULT_CHARS = 40_000               # a whole tool result, serialised
RESULT_CHARS_CODEX = 12_000         # ... for Codex as the client: it shows its model about 12,600
ERROR_CHARS = 9_500                 # Claude Code cuts the text of an error above 10,000
LABEL_CHARS = 160                   # a command or path in a status line
MESSAGE_CHARS = 300                 # what the model last said or thought
WARNINGS_KEPT = 12
LOG_TAIL_BYTES = 16 * 1024
ROLLOUT_BYTES = 256 * 1024 * 1024   # of codex's own record of a thread, its end
RESERVE_BYTES = 64 * 1024           # kept in every task directory so that a full disk cannot lose the outcome
CODEX_CLIENT = "codex-mcp-client"   # clientInfo.name of Codex CLI 0.169
TASK_ENV = "CODEX_SWARM_TASK_ID"    # marks everything that a task starts
THREAD_ID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
TASK_ID = r"[0-9a-f]{12}"
HANDLE_ID = r"[0-9a-f]{32}"


class State(str, enum.Enum):
    """Where a task is."""
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Outcome(str, enum.Enum):
    """How a task ended."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


class FailureKind(str, enum.Enum):
    """Why a task did not succeed."""
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    USAGE_LIMIT = "usage_limit"
    NETWORK = "network"
    OVERLOADED = "overloaded"
    CONTEXT_OVERFLOW = "context_overflow"
    BAD_REQUEST = "bad_request"
    CONFIG = "config"
    NOT_A_REPOSITORY = "not_a_repository"
    SANDBOX = "sandbox"
    SETUP = "setup"
    RESUME = "resume"
    CODEX_MISSING = "codex_missing"
    CODEX_CRASH = "codex_crash"
    KILLED = "killed"
    LOST = "lost"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DISAGREEMENT = "disagreement"
    UNKNOWN = "unknown"


class Phase(str, enum.Enum):
    """What a task that has not ended is doing, as far as its events tell."""
    QUEUED = "queued"
    STARTING = "starting"
    MODEL = "waiting for the model"
    COMMAND = "running a command"
    EDIT = "editing files"
    TOOL = "calling a tool"
    SEARCH = "searching the web"
    AGENTS = "working with sub-agents"
    NETWORK = "waiting for the network"
    RETRY = "retrying the request"
    ENDING = "finishing"
    LIMIT = "waiting for a limit or an outage to end"


class Health(str, enum.Enum):
    """How a part of what tasks stand on is."""
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class Turn(str, enum.Enum):
    """The turn as the events tell it; NONE when codex stopped before it began."""
    NONE = "none"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"


# ======================================================================================
# 2. ERRORS
# ======================================================================================
class SwarmError(Exception):
    """Says what happened, why, and what to do next."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        ends = (".", "!", "?", ":")
        parts = filter(None, (self.what, self.why, self.fix))
        return " ".join(part if part.endswith(ends) else part + "." for part in parts)


class ProtocolError(SwarmError):
    """Becomes a JSON-RPC error with `code`; `data` goes out with it."""

    def __init__(self, code: int, what: str, data: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(what)
        self.code, self.data = code, data

    def __str__(self) -> str:
        return self.what


class ToolError(SwarmError):
    """Becomes a tool result with isError, for the model to read; `kind` where a failure kind is the cause."""

    def __init__(self, what: str, why: str = "", fix: str = "", kind: Optional[FailureKind] = None) -> None:
        super().__init__(what, why, fix)
        self.kind = kind


class WrongArgument(ToolError):
    """What a tool was given does not fit its schema; nothing was done."""


class GitError(ToolError):
    """git refused; `why` holds its own words."""


def reason_of(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{reason}: {error.filename}" if error.filename else reason


MEND = "Mend that, or run fewer tasks at once"
REMEDIES: Mapping[Optional[int], str] = {
    errno.ENOSPC: "Make room there", errno.EDQUOT: "Make room there", errno.EROFS: "Make it writable",
    errno.EACCES: "Give the user of this server access to it", errno.E2BIG: "Correct the arguments",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`), or run fewer tasks at once",
    errno.EAGAIN: "Raise the limit on processes (`ulimit -u`), or run fewer tasks at once"}
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def system_refused(error: OSError) -> ToolError:
    """What to tell of an error that says nothing about what was asked for."""
    return ToolError("The system refused", reason_of(error), REMEDIES.get(error.errno, MEND))


def raise_if_exhausted(error: Exception) -> None:
    """A passing want of the system says nothing about a file; what else makes it unreadable does."""
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        raise error


@contextlib.contextmanager
def suppress_unless_exhausted(*kinds: Any) -> Iterator[None]:
    """`contextlib.suppress`, but for a passing want of the system."""
    try:
        yield
    except kinds as error:
        raise_if_exhausted(error)


class UsageError(SwarmError):
    """A bad flag or environment: one line on stderr, exit status 2."""


class WrongState(SwarmError):
    """An event that the state of the task does not allow."""


PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR = -32602, -32603
RESOURCE_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32002, -32021, -32022


# ======================================================================================
# 3. RECORDS
# ======================================================================================
# Named tuples, not dataclasses: importing `dataclasses` and making these classes with it costs 12 ms
# at every start of a server and of a supervisor. A new field gets a default, so that an older
# record on disk can still be read; an unknown field in a newer record is ignored.
class Maker(type):
    """Makes what typing.NamedTuple makes. That one compiles each annotation (Python 3.8 to 3.13), which takes
    longer than all else that it does: 10 to 20 ms at every start. Raises: KeyError for a field without a
    default behind one that has it."""

    def __new__(cls, name: str, bases: Tuple[type, ...], body: Dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields = body["__annotations__"]
        last = itertools.dropwhile(lambda field: field not in body, fields)     # only they have a default
        defaults = [body.pop(field) for field in last]
        made: Any = collections.namedtuple(name, fields, defaults=defaults,     # type: ignore[misc]
                                           module=body["__module__"])
        for key, value in body.items():
            setattr(made, key, value)
        return made


if TYPE_CHECKING:
    from typing import NamedTuple
else:
    class NamedTuple(metaclass=Maker):
        pass


def to_json(record: Any) -> Dict[str, Any]:
    """The record as JSON data, with the records in it. What is None or empty is left out; a list stays, so
    that a record says by it what is always told. A name that Python keeps for itself has a `_` behind it."""
    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return to_json(value) if hasattr(value, "_fields") else [*map(plain, value)]
        return value.value if isinstance(value, enum.Enum) else value
    return {name.rstrip("_"): plain(value) for name, value in zip(record._fields, record)
            if value is not None and value != () and value != {}}


class Config(NamedTuple):
    """What the flags and the environment of a server say. Every field has been checked."""
    root: str
    worktree_dir: str
    codex_bin: str = "codex"
    codex_home: str = ""
    codex_homes: Tuple[Tuple[str, str], ...] = ()       # more of them, one an account: (name, directory)
    overrides: Tuple[str, ...] = ()             # `-c key=value`, verbatim
    skip_git_repo_check: bool = False
    ephemeral: bool = False
    max_sandbox: str = ""                       # no call gets more; empty: no cap
    allow_roots: Tuple[str, ...] = ()           # real paths that calls are bound to; none: anywhere
    worktree_setup: str = ""                    # a shell command
    merge_verify: str = ""                      # a shell command
    launcher: Tuple[str, ...] = ()              # words before codex's own; none: it is started right here
    task_max_age_s: float = 86400.0             # 0: for ever
    result_max_age_s: float = 30 * 86400.0      # ... and no shorter than that
    log_file: Optional[str] = None
    log_level: str = "WARNING"
    min_free_mb: int = 512                      # below that no worktree is made; 0: never refused
    depth: int = 1                              # of tasks inside of tasks; 1: there are none
    idle_timeout_s: float = 0.0                 # for calls that name none; 0: never
    on_limit: str = ""                          # ... the same; empty: a limit ends a task
    max_parallel: int = 0                       # tasks at once, those of all servers together; 0: no limit


class Usage(NamedTuple):
    """Tokens, under codex's own names."""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Usage":
        """As codex told it; what is no number counts as 0."""
        return cls(**{name: data[name] for name in cls._fields if isinstance(data.get(name), int)})

    def since(self, before: "Usage") -> "Usage":
        """This turn's share of a total that codex counts over the whole thread. Never negative."""
        return Usage(*(max(0, now - then) for now, then in zip(self, before)))


class Worktree(NamedTuple):
    """A git worktree of one task. `head`, the counts and what follows are there once the task has ended;
    lists of files are shortened to {count, first}."""
    path: str
    branch: str
    base: str                                   # the commit that the base ref named
    git_dir: str
    head: Optional[str] = None                  # the commit on the branch that holds everything
    files_changed: Optional[int] = None         # these four count from `start` to `head`
    insertions: Optional[int] = None
    deletions: Optional[int] = None
    commits: Optional[int] = None
    baseline: Optional[str] = None              # on top of `base`: the caller's uncommitted changes
    carried: Mapping[str, Any] = {}             # what that commit holds
    copied: Mapping[str, Any] = {}              # ignored files that .worktreeinclude names
    submodules: Mapping[str, str] = {}          # path -> name, of those that were checked out
    unseen: Mapping[str, Any] = {}              # what only the caller's checkout has, by kind
    left_out: Mapping[str, Any] = {}            # what the snapshot could not take
    ignored: Mapping[str, Any] = {}             # what it must not take, but for copies; a directory as one
    files: Tuple[str, ...] = ()                 # that differ, relative; the first FILES_KEPT
    unsaved: Optional[str] = None               # why there is no snapshot: the work is in `path` alone
    seal: Optional[str] = None                  # `seal_of` the submodules as they were checked out
    below: Optional[str] = None                 # of a chain: the `baseline` of the first task

    @property
    def start(self) -> str:
        """The commit that the first task in it began with."""
        return self.baseline or self.base

    @property
    def share(self) -> Tuple[str, bool]:
        """(the commit from which a merge counts, whether what led to that one is no part of it)."""
        below = self.below or self.baseline
        return below or self.base, below is not None


class Failure(NamedTuple):
    """Why a task failed: codex's own message, whether trying again can help, and what to do."""
    kind: FailureKind
    message: str
    retryable: bool
    advice: str
    retry_at: Optional[float] = None            # when a usage limit ends, Unix seconds


class Spec(NamedTuple):
    """What was asked for, but for the prompt. Written once, by the server, before there is a supervisor."""
    task_id: str
    created_at: float                           # Unix seconds
    codex: str                                  # path of the executable
    cwd: str                                    # absolute
    arguments: Mapping[str, Any] = {}           # the run's arguments, official names, without prompt and cwd
    overrides: Tuple[str, ...] = ()             # the server's `-c key=value`
    skip_git_repo_check: bool = False
    ephemeral: bool = False
    timeout_s: Optional[float] = None
    thread_id: Optional[str] = None             # the thread to resume
    usage_before: Optional[Usage] = None        # what that thread had used before this turn
    worktree: Optional[Worktree] = None
    title: str = ""                             # the first line of the prompt, cut
    warnings: Tuple[str, ...] = ()
    setup: str = ""                             # the server's shell command that prepares the worktree
    checkout: str = ""                          # the top directory that the worktree was made from
    since: str = ""                             # the commit there when a task began to go on in a worktree
    permissions: Mapping[str, Any] = {}         # the profile in place of `sandbox`; empty: none
    fork_of: Optional[str] = None               # the thread that this one begins as a copy of
    review: Tuple[str, ...] = ()                # the words that say what `codex exec review` looks at
    codex_home: str = ""                        # of the account that was named; empty: the server's own
    goes_on: bool = False                       # in its thread, after a limit
    launcher: Tuple[str, ...] = ()              # the server's words before codex's own
    max_parallel: int = 0                       # it begins while fewer than so many run; 0: at once
    depends_on: Tuple[str, ...] = ()            # the tasks that have to end before it begins
    on_failure: str = ""                        # run: it begins also when they did not succeed
    planned: Optional[Worktree] = None          # made when it begins: `base` says after which task
    min_free_mb: int = 0                        # that it takes to make it then
    results: Mapping[str, str] = {}             # as a RESULT in the prompt names it -> one of these tasks


class Status(NamedTuple):
    """Where the task stands. Invariant: `outcome` is set exactly when the state is ENDED."""
    state: State
    outcome: Optional[Outcome] = None
    stop_reason: Optional[Outcome] = None
    pid: Optional[int] = None                   # of codex, and of its process group
    exit_code: Optional[int] = None             # negative: the number of the signal that killed it
    idle_since: Optional[float] = None          # the last sign of life, once half of its time has passed
    waits_until: Optional[float] = None         # for another attempt
    attempts: Tuple[str, ...] = ()              # how those before ended
    began_at: float = 0.0                       # when its turn came; 0: it has not


class Progress(NamedTuple):
    """What the events of one run amount to so far; made by `fold`, kept in memory only."""
    thread_id: Optional[str] = None
    turn: Turn = Turn.NONE
    error: str = ""                             # of turn.failed
    message: Optional[str] = None               # the last agent message, whole
    thought: bytes = b""                        # what the model thinks aloud, as JSON; empty: nothing now
    phase: Phase = Phase.STARTING
    detail: str = ""                            # the command, file or tool of the phase
    open_items: Mapping[str, Tuple[Phase, str]] = {}
    tools: Mapping[str, int] = {}               # item type -> how many
    last_command: str = ""
    last_file: str = ""
    files: Tuple[str, ...] = ()                 # that codex said it edits, absolute; the first FILES_KEPT
    warnings: Tuple[str, ...] = ()
    usage: Optional[Usage] = None               # of the whole thread
    retries: int = 0
    events: int = 0
    unknown: int = 0                            # lines and types that no table knows


class Report(NamedTuple):
    """The end of a task. Written once, before the status says ENDED."""
    outcome: Outcome
    elapsed_s: float
    ended_at: float
    exit_code: Optional[int] = None
    thread_id: Optional[str] = None
    content: Optional[str] = None
    usage: Optional[Usage] = None               # of this turn
    thread_usage: Optional[Usage] = None        # of the thread up to now
    failure: Optional[Failure] = None
    worktree: Optional[Worktree] = None
    warnings: Tuple[str, ...] = ()
    files: Tuple[str, ...] = ()                 # of a task without a worktree: what codex said it edited
    outside_write_paths: Mapping[str, Any] = {}     # changed, although its `write_paths` do not cover it
    in_events: bool = False                     # the disk was full: the content is only in events.jsonl
    sandbox: Optional[str] = None               # what codex ran it with, as far as is known
    model: Optional[str] = None
    structured: Optional[Mapping[str, Any]] = None      # the answer as data, where `output_schema` was given


class Wait(NamedTuple):
    """What a blocking tool waits for, and how its answer is made; data, so that it can outlive the call."""
    task_ids: Tuple[str, ...]
    owned: bool = False                         # the call itself started them: cancelling it stops them
    mode: str = "all"
    timeout_s: Optional[float] = None           # None: as long as the client allows
    single: bool = False                        # the answer is the record itself, not a list of records
    offset: int = 0
    max_chars: Optional[int] = None


class Handle(NamedTuple):
    """A wait that the client tracks itself (on the wire, an MCP task). Written once; its end stands apart."""
    handle_id: str
    created_at: float
    wait: Wait
    client: str = ""


class HandleEnd(NamedTuple):
    """How the wait of a handle ended: the status that the client is told, the result if any. Written once."""
    at: float
    status: str
    message: str
    result: Optional[Mapping[str, Any]] = None
    whole: Tuple[str, ...] = ()                 # the tasks whose results are in it to the end


class NotedCall(NamedTuple):
    """A call under an id of the client's (`client_request_id`). Written before its first task runs."""
    digest: str                                 # of what it asked for
    task_ids: Tuple[str, ...]


class Swept(NamedTuple):
    """What a sweep looked at: the ended tasks of one worktree, a task without one, or what has no task."""
    removed: bool                               # or would be, in a dry run
    path: str                                   # the worktree, or else the directory of the task
    task_ids: Tuple[str, ...]
    notes: Tuple[str, ...]                      # why it is kept, or what becomes of what was in it
    bytes: int = 0
    age_s: float = 0.0                          # since the last of its tasks ended


class Change(NamedTuple):
    """One line of `git status`: `xy` as git has it, `??` for a new file, `!!` for an ignored one."""
    xy: str
    path: str


class Changed(NamedTuple):
    """A file that differs between two trees; `status` as git has it (A, M, D, T), mode and blob in the newer
    one. A binary file has no counts."""
    status: str
    path: str
    mode: str
    blob: str
    insertions: Optional[int] = None
    deletions: Optional[int] = None


class Conflict(NamedTuple):
    """A file that two sides changed in ways that git cannot unite."""
    path: str
    kind: str                               # git's word for it: contents, modify/delete, binary, ...
    hunks: Tuple[Mapping[str, Any], ...] = ()       # {line, text}: with both versions between markers
    more_hunks: int = 0


class Part(NamedTuple):
    """What the tasks of one branch, or a branch, bring to a merge."""
    task_ids: Tuple[str, ...]               # the last one names it
    name: str                               # in words
    title: str
    head: str
    start: str                              # the commit from which its work counts
    squashed: bool                          # only what came after `start` is its own, and comes as one commit

    @property
    def task_id(self) -> str:
        return self.task_ids[-1]


class Merged(NamedTuple):
    """Parts brought together one after the other, on top of a commit."""
    commits: Sequence[str]                  # that one, and then what each part made of it that is in it
    task_ids: Tuple[str, ...]               # those that are in it
    conflicts: Mapping[str, Sequence[Conflict]]     # task id -> where it conflicts with those before it

    @property
    def commit(self) -> str:
        return self.commits[-1]


# The fields that are records or enums themselves, in whatever record; and what the others may be.
PARTS: Mapping[str, Any] = {
    "state": State, "outcome": Outcome, "stop_reason": Outcome, "kind": FailureKind, "failure": Failure,
    "wait": Wait, "worktree": Worktree, "planned": Worktree, "usage": Usage, "usage_before": Usage,
    "thread_usage": Usage}
JSON_TYPES: Mapping[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "Tuple": tuple,
                                 "Mapping": dict}
MAX_SECONDS = 1e11                              # beyond it there is no time of day


def from_json(kind: Any, data: Mapping[str, Any]) -> Any:
    """The record of this kind that `data` holds. Raises: ValueError, TypeError, AttributeError when none."""
    fields: Dict[str, Any] = {}
    for name in filter(data.__contains__, kind._fields):
        part, value = PARTS.get(name), data[name]
        if part is not None:
            value = part(value) if issubclass(part, enum.Enum) else from_json(part, value)
        elif isinstance(value, list):
            if not all(isinstance(word, str) for word in value):
                raise ValueError(f"`{name}` is no list of words")
            value = tuple(value)
        fields[name] = value
    record = kind(**fields)
    for name, value in zip(kind._fields, record):
        if not _fits(kind.__annotations__[name], value) or value == () and name not in kind._field_defaults:
            raise ValueError(f"`{name}` is missing, or odd")
    return record


def _fits(form: str, value: Any) -> bool:
    """Whether a field with this annotation may have this value."""
    if value is None:
        return form.startswith("Optional")
    kind = form.replace("Optional[", "").partition("[")[0].rstrip("]")
    return isinstance(value, JSON_TYPES.get(kind, object)) and (kind != "float" or abs(value) < MAX_SECONDS)


# ======================================================================================
# 4. LIFE OF A TASK  (pure)
# ======================================================================================
# Everything that decides where a task is and how it ended is here. To add a state, add it to State
# and give it a row; tests/unit/test_life.py walks State x event and fails on a gap.
TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    State.QUEUED:   {"launch": State.STARTING, "stop": State.ENDED},
    State.STARTING: {"spawned": State.RUNNING, "spawn_failed": State.ENDED, "stop": State.STOPPING,
                     "gone": State.ENDED},
    State.RUNNING:  {"spawned": State.RUNNING, "stop": State.STOPPING, "exited": State.ENDED,
                     "spawn_failed": State.ENDED, "gone": State.ENDED},      # of another attempt
    State.STOPPING: {"spawned": State.STOPPING, "spawn_failed": State.ENDED, "stop": State.STOPPING,
                     "exited": State.ENDED, "gone": State.ENDED},
    State.ENDED:    {},
}


def advance(status: Status, event: str, outcome: Optional[Outcome] = None, **facts: Any) -> Status:
    """The status after `event`. `outcome` is the verdict, for `exited`; the first stop reason wins over it.

    Raises: WrongState when the table has no such edge.
    """
    to = TRANSITIONS[status.state].get(event)
    if to is None:
        raise WrongState(f"Event `{event}` is not possible in state `{status.state.value}`")
    if status.stop_reason is not None:
        facts.pop("stop_reason", None)
    new = status._replace(state=to, **facts)
    if to is not State.ENDED:
        return new
    judged = new.stop_reason or outcome or Outcome.FAILED
    return new._replace(outcome=Outcome.LOST if event == "gone" else judged)


CRASH_SIGNALS = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
PANIC_EXIT = 101        # Source: codex-cli 0.169.0 (Rust) after a panic


def signal_name(signum: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(signum).name
    return f"signal {signum}"


def how_it_ended(exit_code: int) -> str:
    by_signal = f"was killed by {signal_name(-exit_code)}"
    return by_signal if exit_code < 0 else f"ended with exit status {exit_code}"


def verdict(exit_code: int, progress: Progress,
            wanted: Optional[str] = None) -> Tuple[Outcome, Optional[FailureKind]]:
    """The one judge of codex's evidence: exit status and last turn event. `wanted`: the thread to resume.

    A kind comes with the failure where these two alone decide it; otherwise the words of codex do
    (`classify`). Source: codex-cli 0.169.0, 158 recorded runs: exit 0 exactly when there is a
    `turn.completed`; `error` events also announce retries; failures at start-up and signals leave no
    `turn.failed`.
    """
    completed = progress.turn is Turn.COMPLETED
    if wanted and progress.thread_id and progress.thread_id.lower() != wanted.lower():
        return Outcome.FAILED, FailureKind.RESUME
    if exit_code == 0 and completed:
        return Outcome.SUCCEEDED, None
    if exit_code == 0 or completed:
        return Outcome.FAILED, FailureKind.DISAGREEMENT
    if exit_code == PANIC_EXIT or signal_name(-exit_code) in CRASH_SIGNALS:
        return Outcome.FAILED, FailureKind.CODEX_CRASH
    return Outcome.FAILED, FailureKind.KILLED if exit_code < 0 else None


# ======================================================================================
# 5. SCHEMA  (the subset of JSON Schema that our own tables use; pure)
# ======================================================================================
Schema = Dict[str, Any]


def _schema(kind: str, description: str = "", **more: Any) -> Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}


string, number, integer, boolean = (
    functools.partial(_schema, kind) for kind in ("string", "number", "integer", "boolean"))


def arr(items: Schema, description: str = "", **more: Any) -> Schema:
    return _schema("array", description, items=items, **more)


def obj(properties: Optional[Mapping[str, Schema]] = None, required: Sequence[str] = (),
        description: str = "") -> Schema:
    """Without `properties`, any object; with them, `problems` refuses every other name."""
    more: Dict[str, Any] = {} if properties is None else {"properties": dict(properties)}
    return _schema("object", description, **more, **({"required": list(required)} if required else {}))


PYTHON_TYPES: Mapping[str, Any] = {"string": str, "object": dict, "array": list, "number": (int, float),
                                   "integer": int, "boolean": bool, "null": type(None)}


def problems(schema: Mapping[str, Any], value: Any, at: str = "") -> List[str]:
    """What is wrong with arguments, one sentence each, naming the argument; empty when nothing is."""
    return list(Judge(schema, "the arguments", ours=True).check(schema, value, at))


def mismatches(schema: Mapping[str, Any], answer: Any) -> List[str]:
    """Where an answer does not fit a caller's schema; the first few."""
    try:
        return list(itertools.islice(Judge(schema, "the answer").check(schema, answer), NAMES_SHOWN))
    except (RecursionError, TypeError, AttributeError, LookupError, ValueError):
        return ["the schema was not understood, so nothing was checked"]


def refuse(wrong: Sequence[str]) -> None:
    """Raises: WrongArgument when there is any."""
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise WrongArgument(f"Wrong argument: {'; '.join(wrong[:8])}{more}", "Nothing was done",
                            "Correct that and call again")


class Judge:
    """Says whether data is what a JSON Schema wants: one of ours, or a caller's for answers, with the words
    that models are given in strict mode. Of ours no object takes a name that it does not know, and blanks
    are no text. Of a caller's it does not check `pattern` (some never end), `format`, and words that it does
    not know. Raises, for a schema that is none: what comes of that."""

    def __init__(self, root: Mapping[str, Any], whole: str, ours: bool = False) -> None:
        self.root, self.whole, self.ours, self.steps = root, whole, ours, itertools.count()

    def check(self, schema: Any, value: Any, at: str = "") -> Iterator[str]:
        name = f"`{at}`" if at else self.whole
        if next(self.steps) > MAX_SCHEMA_STEPS:
            raise RecursionError
        if isinstance(schema, bool):
            schema = {} if schema else {"enum": []}
        if not self._is_of_type(schema, value):
            wanted = " or ".join(f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in _kinds(schema))
            yield f"{name} must be {wanted}, not {_show(value)}"
            return
        allowed = [schema["const"]] if "const" in schema else schema.get("enum", [value])
        if value not in allowed:
            yield f"{name} must be one of {clip(', '.join(map(str, allowed)), 300)}, not {_show(value)}"
        elif isinstance(value, str):
            yield from self._string_problems(schema, value, name)
        else:
            yield from _beyond(schema, value, name)
        if isinstance(value, dict):
            yield from self._object_problems(schema, value, at)
        for i, entry in enumerate(value if isinstance(value, list) and "items" in schema else ()):
            yield from self.check(schema["items"], entry, f"{at}[{i}]")
        yield from self._form_problems(schema, value, at, name)

    def _is_of_type(self, schema: Any, value: Any) -> bool:
        kinds = _kinds(schema)
        whole = isinstance(value, float) and value.is_integer() and not self.ours and "integer" in kinds
        return not kinds or whole or any(_is_of(value, kind) for kind in kinds)

    def _string_problems(self, schema: Mapping[str, Any], value: str, name: str) -> Iterator[str]:
        form = schema.get("pattern") if self.ours else None
        if any("\ud800" <= c <= "\udfff" for c in value):
            yield f"{name} has half of a surrogate pair, which is not a character; send valid Unicode"
        elif self.ours and schema.get("minLength") and not value.strip():
            yield f"{name} is empty"
        elif form and not re.fullmatch(form, value):
            yield f"{name} must {FORMS.get(form, 'look like ' + form)}, not {_show(value)}"
        else:
            yield from _beyond(schema, value, name)

    def _object_problems(self, schema: Mapping[str, Any], value: Mapping[str, Any], at: str) -> Iterator[str]:
        properties, path = schema.get("properties", {}), lambda key: f"{at}.{key}" if at else key
        others = schema.get("additionalProperties", not (self.ours and "properties" in schema))
        yield from (f"`{path(key)}` is required" for key in schema.get("required", ()) if key not in value)
        for key, entry in value.items():
            expected = properties.get(key, others)
            if expected is False:
                what = "an argument" if self.ours else "allowed"
                yield f"`{path(clip(key, 60))}` is not {what}{_suggestion(key, properties)}"
            elif expected is not True:
                yield from self.check(expected, entry, path(key))

    def _form_problems(self, schema: Mapping[str, Any], value: Any, at: str, name: str) -> Iterator[str]:
        """A reference leads only within the schema, as `#/$defs/name`."""
        for form in schema.get("allOf", ()):
            yield from self.check(form, value, at)
        if "$ref" in schema:
            found: Any = self.root
            for part in schema["$ref"].split("/")[1:]:
                found = found[part.replace("~1", "/").replace("~0", "~")]
            yield from self.check(found, value, at)
        forms = schema.get("anyOf", schema.get("oneOf", ()))
        tried = [list(self.check(form, value, at)) for form in forms if self._is_of_type(form, value)]
        if forms and all(tried):
            yield from tried[0] if len(tried) == 1 else [f"{name} fits none of the forms allowed there"]


FORMS = {THREAD_ID: "be a thread id, a UUID"}
# How values of a type are bounded, and in which words.
BOUNDED: Mapping[str, Tuple[str, str, str]] = {
    "string": ("minLength", "maxLength", "have {} characters"),
    "array": ("minItems", "maxItems", "have {} entries"), "number": ("minimum", "maximum", "be {}")}


def _kinds(schema: Any) -> List[str]:
    """The JSON types that a schema allows; none where it does not say."""
    if isinstance(schema, bool):
        return []
    each = [_kinds(form) for form in schema.get("anyOf", ())]
    kinds = schema.get("type", sum(each, []) if all(each) else [])
    return kinds if isinstance(kinds, list) else [kinds]


def _is_of(value: Any, kind: str) -> bool:
    """Whether a value is of this JSON type; Python takes a truth value for a number."""
    return isinstance(value, PYTHON_TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _beyond(schema: Mapping[str, Any], value: Any, name: str) -> Iterator[str]:
    """What is wrong with a number, or with the length of a value."""
    for kind, (least, most, words) in BOUNDED.items():
        if _is_of(value, kind):
            low, high = schema.get(least), schema.get(most)
            measure = value if kind == "number" else len(value)
            if (low is not None and not measure >= low) or (high is not None and not measure <= high):
                bounds = f"at least {low:,}" if high is None else f"at most {high:,}"
                bounds = bounds if low is None or high is None else f"from {low:,} to {high:,}"
                yield f"{name} must {words.format(bounds)}, not {_show(measure)}"


def _suggestion(key: str, names: Iterable[str]) -> str:
    import difflib
    close = difflib.get_close_matches(key, list(names), n=1)
    return f" (did you mean `{close[0]}`?)" if close else f"; there are: {', '.join(names)}"


def structured(schema: Mapping[str, Any], message: str) -> Tuple[Optional[Dict[str, Any]], str]:
    """(the answer as data, None where it is no object; what is wrong with it, empty where nothing is)."""
    try:
        answer = json.loads(message)
        compact(answer).encode()                # else it could not be sent on
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return None, "The final message is no JSON object, although `output_schema` asked for one"
    wrong = mismatches(schema, answer)
    return answer, f"The final message does not fit `output_schema`: {'; '.join(wrong)}" if wrong else ""


BOUNDS = frozenset({"minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum"})


def as_listed(schema: Any, left_out: Container[str] = ()) -> Any:
    """The schema as it is listed, without its bounds and some properties: every model pays for each word, and
    what is wrong is told in our own."""
    if not isinstance(schema, dict):
        return schema
    out = {key: as_listed(value, left_out) for key, value in schema.items() if key not in BOUNDS}
    if "anyOf" in schema:
        out["anyOf"] = [as_listed(branch, left_out) for branch in schema["anyOf"]]
    if "properties" in schema:              # whose names may be those of bounds
        out["properties"] = {name: as_listed(entry, left_out) for name, entry in schema["properties"].items()
                             if name not in left_out}
    return out


def _show(value: Any) -> str:
    """A value as an error message shows it. Deep or huge values are cut, never an error of their own."""
    with contextlib.suppress(ValueError, RecursionError):
        return masked(clip(json.dumps(value, ensure_ascii=False), 80))
    return "a value that cannot be shown"


SECRET_KEY = r"(?:key|token|secret|passw|authorization|bearer|credential)[\w-]{0,60}"
QUOTED = r"""(?:"(?:\\.|[^"])*"?|'[^']*'?)"""
SECRET = rf"""(?:{QUOTED}|\{{(?:{QUOTED}|[^}}"'])*\}}?|\[(?:{QUOTED}|[^]"'])*\]?""" \
         r"""|(?!\d+\b|true\b|false\b|null\b)[^\s"'{[][^,}\]\n]*)"""


# What is secret by its looks, with what may be shown before it as a group. To add a kind, add a row.
PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
SECRET_LOOKS = (
    r"\b[spr]k[-_][\w-]{16,}",                           # OpenAI, Anthropic, Stripe
    r"\bgh[oprsu]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}",
    r"\bxox[a-z]-[\w-]{10,}|\bxapp-[\w-]{10,}",         # Slack
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",                   # AWS
    r"\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}",            # Google
    r"\bnpm_\w{30,}|\bpypi-[\w-]{40,}|\bhf_\w{20,}",
    r"\bSG\.[\w-]{16,}\.[\w-]{16,}",                   # SendGrid
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",              # JSON Web Tokens
    PRIVATE_KEY,
    r"(\b(?i:bearer|basic)\s{1,9})(?=[a-zA-Z.~_-]*[\d+/=])[\w.~+/=-]{12,}",   # mere words have none
    r"(://[^\s/:@]{1,200}:)[^\s/@]{1,200}(?=@)",        # a password in a URL
    r"(\s--(?:[\w-]{0,40}-)?(?:key|token|secret|password)\s{1,9})(?!\d+\b)[^\s-]\S*",     # an option's value
    r"(\s(?:-u|--user)[\s=]{0,9}[^\s:]{1,200}:)(?![\s/])\S+",       # `curl -u NAME:PASSWORD`
)
MAY_BE_SECRET = r"[\w-]{16}|://|-----|-u|(?i:key|token|secret|passw|authorization|bearer|basic|credential)"


def masked(text: str) -> str:
    """`text` without what looks secret, by itself or as the value of a key, as in TOML, JSON or a shell;
    numbers may count tokens."""
    if not re.search(MAY_BE_SECRET, text):                  # most are not, and the rest takes long
        return text
    text = re.sub(rf"""(?i)({SECRET_KEY}["']?\s{{0,9}}[=:]\s{{0,9}}){SECRET}""", r"\1***", text)
    looks = "|".join(SECRET_LOOKS)
    return re.sub(looks, lambda found: "".join(filter(None, found.groups())) + "***", text)


# Wider than what is masked, for what gets to a disk; a path such as PWD or SSH_AUTH_SOCK is no secret.
SECRET_VARIABLE = r"(?i)(?!(?:OLD)?PWD=)[^=]*(?:pass|pwd|secret|token|key|cookie|cred|private" \
                  r"|auth(?!or[_=]|ority|_sock))[^=]*="


@functools.lru_cache(maxsize=1024)      # each start of a task asks of each variable, which takes 2 ms in all
def looks_secret(row: str) -> bool:
    """Whether this variable, as `NAME=value`, looks secret by its name or its value."""
    return bool(re.match(SECRET_VARIABLE, row)) or masked(row) != row


def compact(data: Any) -> str:
    """The data as one line of JSON, as it goes out. Some clients split at Unicode's line separators.

    Raises: ValueError for NaN or an infinity.
    """
    return escaped(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def escaped(text: str) -> str:
    """JSON with those marks escaped that others obey: Unicode's line separators, DEL, C1."""
    marks = "\x7f" if text.isascii() else set(re.findall("[\x7f-\x9f\u2028\u2029]", text))
    for mark in marks:
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def visible(text: str) -> str:
    """Text for a person or a model: control characters, which a terminal obeys, as `\\x1b` and its like."""
    obeyed = r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)"
    return re.sub(obeyed, lambda mark: f"\\x{ord(mark[0]):02x}", text)


def clip(text: str, limit: int) -> str:
    """On one line, at most `limit` characters, with `…` where it was cut."""
    head = text[:4 * limit]
    line = " ".join(head.split())
    return line if len(line) <= limit and len(head) == len(text) else line[:limit - 1] + "…"


def clip_masked(text: str, limit: int) -> str:
    """The same without what looks secret. It is cut twice: a secret may show by its end that it is one."""
    return clip(masked(clip(text, 10 * limit)), limit)


def lasting(seconds: float) -> str:
    """`3 d`, `5 h`, `12 min`, `90 s`: in the largest unit of which there are two."""
    for unit, unit_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"


def clip_middle(text: str, limit: int) -> str:
    half = (limit - 60) // 2
    cut = f"\n… ({len(text) - 2 * half:,} characters cut here) …\n"
    return text if len(text) <= limit else text[:half] + cut + text[-half:]


def legible(name: str) -> str:
    """A file name of any bytes as Unicode."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def shell_words(command: Sequence[str]) -> str:
    import shlex
    return " ".join(map(shlex.quote, command))


def dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def some(names: Sequence[str]) -> Dict[str, Any]:
    """A list of files as a record holds it; empty for none."""
    first = [clip(legible(name), LABEL_CHARS) for name in names[:NAMES_SHOWN]]
    return {"count": len(names), "first": first} if names else {}


def with_reasons(left_out: Mapping[str, str]) -> Dict[str, Any]:
    """The same of files that were left out, each with the reason."""
    return some([f"{path} ({why})" for path, why in left_out.items()])


def in_words(files: Mapping[str, Any]) -> str:
    """`some` in words."""
    more = files["count"] - len(files["first"])
    return ", ".join(f"`{name}`" for name in files["first"]) + (f" and {more} more" if more else "")


def directories_above(path: str) -> List[str]:
    """The directories above a path of git's."""
    return [path[:at] for at, c in enumerate(path) if c == "/"]


class Globs:
    """Files named by globs: `*` and `?` stop at `/`, `**` does not, a directory stands for all that is in it.
    All are tried at once, a bit for each place in them: that takes a step for each character of a name,
    whatever the globs."""

    def __init__(self, globs: Iterable[str]) -> None:
        parts = [""]                            # one before and after each glob: its beginning and its end
        for glob in globs:
            glob = re.sub(r"(\*\*/)+", "**/", re.sub(r"(\*\*)+(?=\*\*)|^(\./)+|/+$", "", glob))
            parts += [*re.findall(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|.", glob, re.S), ""]
        self.last_first, self.kinds = parts[::-1], {part: _stands_for(part) for part in parts}
        self.known: Dict[str, int] = {}             # character -> the places that stand for it
        self.ends, star, deep, slashed = (self._places(kind.__eq__) for kind in ("", "*", "**", "**/"))
        self.deep, self.free, self.after_slash = deep | slashed, star | deep, star | deep | slashed
        self.begin = self._skip(self.ends << 1, self.after_slash)

    def _places(self, wanted: Callable[[str], bool]) -> int:
        bit = {part: "1" if wanted(part) else "0" for part in self.kinds}
        return int("".join(bit[part] for part in self.last_first), 2)

    @staticmethod
    def _skip(states: int, free: int) -> int:
        """With those that are reached without reading: a star may stand for nothing, `**/` only where a name
        begins."""
        while states | (states & free) << 1 != states:
            states |= (states & free) << 1
        return states

    def cover(self, name: str) -> bool:
        """Whether they name this file or a directory above it."""
        states = self.begin
        for c in name:
            if c == "/" and states & self.ends:
                return True
            if c not in self.known:
                self.known[c] = self._places(lambda part: self.kinds[part](c))
            stay, free = (self.deep, self.after_slash) if c == "/" else (self.after_slash, self.free)
            states = self._skip(states & stay | (states & self.known[c]) << 1, free)
            if not states:
                return False
        return bool(states & self.ends)


def _stands_for(part: str) -> Callable[[str], bool]:
    """Whether a part of a glob that is no star stands for a character."""
    if len(part) < 3 or part[0] != "[":
        return lambda c: c == part or part == "?" and c != "/"
    try:
        matches = re.compile(fnmatch.translate(part)).match
    except re.error:                                # a range from back to front, until Python 3.8
        return lambda c: False
    return lambda c: c != "/" and matches(c) is not None


def canonical(schema: Mapping[str, Any], value: Any, at: str = "") -> Any:
    """`value` with every argument under its listed name: kebab-case and snake_case are both accepted.

    Raises: ToolError when one argument comes under two names.
    """
    if isinstance(value, list) and "items" in schema:
        return [canonical(schema["items"], entry, f"{at}[{i}]") for i, entry in enumerate(value)]
    objects = [branch for branch in schema.get("anyOf", [schema]) if "properties" in branch]
    if not isinstance(value, dict) or not objects:
        return value
    properties = objects[0]["properties"]
    out: Dict[str, Any] = {}
    for key, entry in value.items():
        spellings = (key, key.replace("_", "-"), key.replace("-", "_"), str(ALIASES.get(key)))
        name = next((n for n in spellings if n in properties), key)
        path = f"{at}.{name}" if at else name
        if name in out:
            also = f"`{key}` is another name for it"
            raise ToolError(f"Argument `{path}` was given twice", also, "Send it once")
        out[name] = canonical(properties.get(name, {}), entry, path)
    return out


ALIASES = {"thread_id": "threadId", "conversationId": "threadId", "conversation_id": "threadId",
           "taskId": "task_id", "taskIds": "task_ids"}


# ======================================================================================
# 6. CODEX  (argv out, events in; pure)
# ======================================================================================
# To add an argument of a run, write one FLAGS row: its name as in the tool of the vendor's removed
# `codex mcp-server`, its schema, where it goes and the words it becomes. It then is in the input
# schemas, in argv and in docs/tools.md.
class Flag(NamedTuple):
    name: str
    schema: Schema
    words: Optional[Callable[[Any], List[str]]] = None      # None: never in argv
    before_resume: bool = False     # `resume` and `fork` reject it, so it stands before (codex-cli 0.169.0)
    repeated: bool = True           # a reply takes it over from the thread's last task
    file_words: Optional[Callable[[str], List[str]]] = None     # for a file with the value: `ps` shows argv
    needs: str = ""                 # what `codex exec --help` has to list; empty: what all have
    rare: bool = False              # codex_async and codex_reply take it, but do not list it


def _setting(key: str) -> Callable[[Any], List[str]]:
    return lambda value: ["-c", f"{key}={toml(value)}"]


def _each(option: str) -> Callable[[Any], List[str]]:
    return lambda values: [f"{option}={value}" for value in values]


def _switch(option: str) -> Callable[[Any], List[str]]:
    return lambda wanted: [option] if wanted else []


def config_words(config: Mapping[str, Any]) -> List[str]:
    """`-c key=value` words for a config object; nested objects become dotted keys.

    Source: codex-cli 0.169.0 splits a key at every dot and knows no quoted segment, so an object with a key
    that is not bare goes out as an inline table.
    Raises: ToolError for a key or value that TOML cannot hold.
    """
    return [word for key, value in config.items() for word in _config_words(key, value, 1)]


def _config_words(key: str, value: Any, depth: int) -> List[str]:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key) or key.startswith("-"):
        allowed = "Codex takes letters, digits, `_` and `-`, with dots between the parts"
        raise ToolError(f"`config` has the key {_show(key)}", allowed, "Correct it")
    is_table = isinstance(value, dict) and value and depth <= MAX_CONFIG_DEPTH      # `toml` refuses others
    if is_table and all(re.fullmatch(r"[A-Za-z0-9_-]+", k) for k in value):
        return [word for k, v in value.items() for word in _config_words(f"{key}.{k}", v, depth + 1)]
    return ["-c", f"{key}={toml(value, depth)}"]


def toml(value: Any, depth: int = 0) -> str:
    """The value as TOML, strings always quoted, so that `"123"` stays a string and `1` a number.

    Raises: ToolError for null and for what is nested too deep.
    """
    if value is None or depth > MAX_CONFIG_DEPTH:
        what = "has a null" if value is None else f"is nested more than {MAX_CONFIG_DEPTH} deep"
        raise ToolError(f"`config` {what}", "Codex reads it as TOML, which cannot hold that", "Leave it out")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v, depth + 1) for v in value) + "]"
    return json.dumps(value).replace("Infinity", "inf")         # `1e999` is JSON for it


SANDBOXES = ["read-only", "workspace-write", "danger-full-access"]
PROFILE = "codex_mcp_swarm"                 # the permission profile of a task that ROOT has to be hidden from
PROFILES_SINCE = (0, 154, 0)
KNOWN_CODEX = ((0, 144), (0, 169))          # the oldest and the newest that this was tried with
# What `config` may hold under a cap, by the first part of the key: it starts, opens and writes nothing.
HARMLESS = frozenset({
    "compact_prompt", "developer_instructions", "hide_agent_reasoning", "instructions", "model",
    "model_auto_compact_token_limit", "model_context_window", "model_reasoning_effort",
    "model_reasoning_summary", "model_verbosity", "personality", "project_doc_max_bytes", "review_model",
    "service_tier", "show_raw_agent_reasoning", "tool_output_token_limit", "web_search"})
WORKTREE = {"base": string(), "include_changes": boolean(), "setup": boolean()}
FLAGS: Tuple[Flag, ...] = (
    Flag("prompt", string("What to do", minLength=1, maxLength=MAX_PROMPT_CHARS), repeated=False),
    Flag("model", string(minLength=1), lambda v: [f"--model={v}"]),
    Flag("sandbox", string("Default: codex's own; read-only in untrusted directories",
                           enum=SANDBOXES), lambda v: [f"--sandbox={v}"], before_resume=True),
    Flag("approval-policy", string("Has no effect",
                                   enum=["untrusted", "on-failure", "on-request", "never"]), rare=True),
    Flag("cwd", string("Working directory", minLength=1), repeated=False),
    Flag("profile", string(pattern=r"[A-Za-z0-9_-]+"), lambda v: [f"--profile={v}"],
         before_resume=True, rare=True),
    Flag("config", obj(description="Codex settings, as in config.toml"), config_words),
    Flag("effort", string("Reasoning effort: low, medium, high ...", pattern="[a-z]{1,20}"),
         _setting("model_reasoning_effort")),
    Flag("search", string("Web search", enum=["disabled", "cached", "indexed", "live"]),
         _setting("web_search"), rare=True),
    Flag("images", arr(string(minLength=1), "Image files", maxItems=MAX_IMAGES), _each("--image"),
         repeated=False, needs="--image", rare=True),
    Flag("output_schema", obj(description="JSON Schema of the final message"), repeated=False,
         file_words=lambda path: [f"--output-schema={path}"], needs="--output-schema", rare=True),
    Flag("add_dirs", arr(string(minLength=1), "More directories to write in", maxItems=20),
         _each("--add-dir"), before_resume=True, needs="--add-dir", rare=True),
    Flag("approve_for_me", boolean("A model decides what the sandbox forbids"),
         _switch("--approve-for-me"), before_resume=True, repeated=False, needs="--approve-for-me",
         rare=True),
    Flag("isolate", boolean("Without the user's config.toml and MCP servers"),
         _switch("--ignore-user-config"), needs="--ignore-user-config", rare=True),
    Flag("ephemeral", boolean("Codex keeps no thread: no reply"), repeated=False, rare=True),
    Flag("codex_home", string("Account", minLength=1), rare=True),
    Flag("base-instructions", string("Replaces codex's own"), _setting("instructions"),
         file_words=_setting("model_instructions_file"), rare=True),
    Flag("developer-instructions", string("Added as a developer message"),
         _setting("developer_instructions"), rare=True),
    Flag("compact-prompt", string("Prompt for compaction"), _setting("compact_prompt"),
         file_words=_setting("experimental_compact_prompt_file"), rare=True),
    Flag("worktree", {"description": "A git worktree and branch, from HEAD or `base` (a ref, or task:N)",
                      "anyOf": [boolean(), obj(WORKTREE)]},
         repeated=False),
    Flag("write_paths", arr(string(minLength=1, maxLength=300), "Globs; changes elsewhere are reported",
                            maxItems=100), rare=True),
    Flag("depends_on",
         arr({"anyOf": [string(minLength=1), integer(minimum=0, maximum=MAX_TASKS_PER_CALL - 1)]},
             "Begin when these (ids, or indexes in the batch) have succeeded (`on_failure` run: ended); "
             "{{result:N}} in the prompt is what one said", maxItems=100),
         repeated=False, rare=True),
    Flag("on_failure", string(enum=["skip", "run"]), repeated=False, rare=True),
    Flag("timeout_s", number("Stop it after so many seconds", minimum=0.1, maximum=MAX_TIMEOUT_S),
         repeated=False),
    Flag("idle_timeout_s", number("Stop it if idle so long", minimum=0.1, maximum=MAX_TIMEOUT_S),
         rare=True),
    Flag("on_limit", string("Sit out limits", enum=["wait", "fail"]),
         lambda v: ["-c", "features.unbounded_connection_retries=false"] if v == "wait" else [], rare=True),
)
RESULT = r"\{\{\s*result:\s*([^\s{}]+)\s*\}\}"      # in a prompt: where the final message of a task goes
TASK_BASE = "task:"                                         # in `base`: before the name of a task
GO_ON = "Go on: you were interrupted by a limit or an outage of the service, which is over."
RUN: Mapping[str, Schema] = {flag.name: flag.schema for flag in FLAGS}
REPEATED = frozenset(flag.name for flag in FLAGS if flag.repeated)
RARE = {"client_request_id", "include_changes", "setup", *(flag.name for flag in FLAGS if flag.rare)}
KEPT = frozenset(flag.name for flag in FLAGS if flag.repeated or flag.words or flag.file_words)


def override(word: str) -> Tuple[str, str]:
    """The key and the value of `-c`."""
    key, _, value = word.partition("=")
    return key.strip(), value.strip("\"' ")


class Comment(NamedTuple):
    """One finding of a review."""
    title: str
    file: str
    lines: List[int]                            # the first and the last
    body: str
    priority: Optional[int] = None              # 0 is the most urgent


def comments_in(message: str) -> List[Comment]:
    """What codex's rendering of a review holds; it keeps the data itself to itself (codex-cli 0.169.0)."""
    head = r"^- (?:\[[ x]\] )?(?:\[P(\d)\] )?(.+) — (.+):(\d+)-(\d+)$"
    rows = re.finditer(rf"(?m){head}((?:\n(?:  .*)?)*)", message)
    return [Comment(row[2], row[3], [int(row[4]), int(row[5])], re.sub("(?m)^  ", "", row[6]).strip(),
                    int(row[1]) if row[1] else None) for row in rows]


def in_home(environ: Mapping[str, str], home: str) -> Dict[str, str]:
    """The environment of a codex that has its login in `home`, before which it would take one from the
    environment (codex-cli 0.169.0); without a home the same."""
    logins = ("CODEX_API_KEY", "CODEX_ACCESS_TOKEN") if home else ()
    kept = {name: value for name, value in environ.items() if name not in logins}
    return {**kept, "CODEX_HOME": home} if home else kept


class Ran(NamedTuple):
    """Under what a task ran; None where that is not known."""
    sandbox: Optional[str] = None
    model: Optional[str] = None
    noted_at: float = 0.0                       # when codex last noted anything of it, Unix seconds


def asked(arguments: Mapping[str, Any], overrides: Sequence[str]) -> Ran:
    """What the call, or else the server's -c, asks for; None where codex's own configuration decides."""
    given = {**dict(map(override, overrides)), **arguments.get("config", {})}
    sandbox, model = given.get("sandbox_mode"), given.get("model")
    return Ran(arguments.get("sandbox", sandbox), arguments.get("model", model))


def depends_on_settings(spec: Spec) -> bool:
    """Whether what a task may write depends on `sandbox_workspace_write` of codex's configuration."""
    return asked(spec.arguments, spec.overrides).sandbox in (None, SANDBOXES[1])


def noted(rollout: Iterable[bytes], since: float, until: float, ran: Ran) -> Ran:
    """What codex's own record of the thread says of the time between, as facts in place of `ran`.

    Source: codex-cli 0.169.0: each entry begins with its time, each turn with a `turn_context`.
    Raises: ValueError, KeyError, TypeError for what is no rollout."""
    from datetime import datetime
    for line in rollout:
        stamp = re.match(rb'\{"timestamp":"([^"]*)Z",', line)
        at = datetime.fromisoformat(stamp[1].decode() + "+00:00").timestamp() if stamp else 0.0
        if since <= at < until:
            ran = ran._replace(noted_at=at)
            if b'"type":"turn_context"' in line[:200]:
                with contextlib.suppress(RecursionError):
                    turn = json.loads(line)["payload"]
                    ran = Ran(str(turn["sandbox_policy"]["type"]), str(turn["model"]), at)
    return ran


def texts_of(spec: Spec) -> Dict[str, str]:
    """What a run has in files of its task: name -> text. Codex takes no blank one (codex-cli 0.169.0)."""
    given = {flag.name: spec.arguments.get(flag.name, "") for flag in FLAGS if flag.file_words}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return {name: text for name, text in texts.items() if text.strip()}


def needed(spec: Spec) -> Dict[str, str]:
    """What codex has to know for this run: argument -> the word in the help of `codex exec`."""
    found = {flag.name: flag.needs for flag in FLAGS if flag.needs and spec.arguments.get(flag.name)}
    modes = {"fork": spec.fork_of, "review": spec.review}
    return {**found, **{mode: mode for mode, wanted in modes.items() if wanted}}


def codex_argv(spec: Spec, directory: str = "") -> List[str]:
    """The command line of a run whose task has `directory`. The prompt is not in it: it goes by stdin, so it
    may start with `-`, exceed 128 KiB, and is seen by nobody in `ps`.

    Raises: ToolError for a word that no command line can hold.
    """
    before, after = [spec.codex, "exec"], ["--json"]
    if spec.skip_git_repo_check:
        after.append("--skip-git-repo-check")
    if spec.ephemeral:
        after.append("--ephemeral")
    after += [word for setting in spec.overrides for word in ("-c", setting)]
    texts = texts_of(spec)
    for flag in FLAGS:
        in_file = flag.file_words if flag.name in texts else None
        words = in_file(f"{directory}/{flag.name}") if in_file else _words_of(flag, spec)
        _refuse_unfit(flag.name, words, texts.get(flag.name, ""))
        (before if flag.before_resume else after).extend(words)
    if spec.permissions:
        after += config_words({"default_permissions": PROFILE, "permissions": {PROFILE: spec.permissions}})
    if spec.review:
        return [*before, "review", *after, *spec.review]
    if spec.fork_of or spec.thread_id:
        after = ["fork" if spec.fork_of else "resume", *after, spec.fork_of or spec.thread_id or ""]
    return [*before, *after, GO_ON if spec.goes_on else "-"]


def _refuse_unfit(name: str, words: Sequence[str], text: str) -> None:
    """Raises: ToolError for words of an argument, or its text, that no command line can hold."""
    if re.search("[\0\ud800-\udfff]", "".join((*words, text))):
        raise ToolError(f"`{name}` has a character that no command line can hold",
                        "NUL and halves of surrogate pairs cannot be passed", "Remove it")
    if any(len(os.fsencode(word)) > MAX_ARGV_BYTES for word in words):
        limit = f"One word of a command line holds {MAX_ARGV_BYTES:,} bytes"
        raise ToolError(f"`{name}` is too long", limit,
                        "Put the text into the prompt, or into AGENTS.md in the working directory")


def launched(spec: Spec, argv: Sequence[str]) -> List[str]:
    """The command line by way of the operator's launcher, if any. srun is told the name by which the job can
    be ended; what ssh is given goes through a shell, in another directory. Source: Slurm 22.05; ssh(1)."""
    words = [word.replace("{task_id}", spec.task_id).replace("{cwd}", spec.cwd) for word in spec.launcher]
    if command_to_end(spec):
        words.insert(1, f"--job-name={spec.task_id}")
    if words and words[0].rpartition("/")[2] == "ssh":
        argv = [f"cd {shell_words([spec.cwd])} && exec {shell_words(argv)}"]
    return [*words, *argv]


def command_to_end(spec: Spec) -> List[str]:
    """What ends all that a launcher started for the task, where its own end does not: a killed srun leaves
    its step alive, and one that ended what the step left in other sessions. Source: Slurm 22.05."""
    place, slash, name = spec.launcher[0].rpartition("/") if spec.launcher else ("", "", "")
    scancel = f"{place}{slash}scancel"
    return [scancel, "--full", "--signal=KILL", f"--name={spec.task_id}"] if name == "srun" else []


def _words_of(flag: Flag, spec: Spec) -> List[str]:
    mode_is_implied = spec.permissions or spec.arguments.get("approve_for_me")
    if flag.words is None or flag.name not in spec.arguments or flag.name == "sandbox" and mode_is_implied:
        return []
    return flag.words(spec.arguments[flag.name])


def capped(arguments: Mapping[str, Any], overrides: Sequence[str], cap: str) -> Dict[str, Any]:
    """The arguments of a run with its sandbox named, read-only where nothing is: codex's default may be any.

    Raises: ToolError for what could give the run more than `cap`."""
    mode = asked(arguments, overrides).sandbox or SANDBOXES[0]
    settings = arguments.get("config", {})
    more = [f"`config.{clip(key, 60)}`" for key in settings if key.split(".")[0] not in HARMLESS]
    more += [f"`{name}`" for name in ("profile", "add_dirs", "approve_for_me") if arguments.get(name)]
    if mode not in SANDBOXES[:SANDBOXES.index(cap) + 1]:
        more.append(f"`sandbox` {_show(mode)}")
    if more:
        why = f"It was started with --max-sandbox {cap}, and what a thread began with counts for its replies"
        raise ToolError(f"{', '.join(more)}: more than this server gives", why,
                        "Leave that out, in a new thread if need be; the user can set it with -c")
    return {**arguments, "sandbox": mode}


def workspace_settings(text: str) -> Optional[Dict[str, Any]]:
    """What TOML, a file or a `-c` setting, says of `sandbox_workspace_write`: name -> value; None where that
    is not certain. By pattern where Python has no parser, before 3.11; no other table has these names."""
    found = None
    with contextlib.suppress(ImportError, ValueError, RecursionError, AttributeError):
        import tomllib
        found = dict(tomllib.loads(text).get("sandbox_workspace_write", {}).items())
    if found is None:
        found = _by_pattern(re.sub(r"(?m)^[ \t]*#.*", "", text))
    roots = found.get("writable_roots", []) if found is not None else None
    return found if isinstance(roots, list) and all(isinstance(root, str) for root in roots) else None


def _by_pattern(toml_text: str) -> Optional[Dict[str, Any]]:
    name = "exclude_slash_tmp|exclude_tmpdir_env_var|writable_roots"
    quoted = r"""("[^"\\\n]*"|'[^'\n]*')"""
    value = rf"""(true|false|\[(?:[\s,]|#.*\n|{quoted})*\])"""
    table = r"\[sandbox_workspace_write\](?s:(.*?))(?=^[ \t]*\[|\Z)"
    key = r"sandbox_workspace_write[ \t]*[.=].*"
    places = [*re.findall(rf"(?m)^[ \t]*{table}", toml_text), *re.findall(rf"(?m)^[ \t]*{key}", toml_text)]
    found: Dict[str, Any] = {}
    for word, raw, _ in re.findall(rf"\b({name}|network_access)\s*=\s*{value}", "\n".join(places)):
        words = [one[1:-1] for one in re.findall(rf"#.*\n|{quoted}", raw) if one]
        found[word] = words if raw[0] == "[" else raw == "true"
    mentioned = re.findall(rf"""{name}|\\[uUx][^"\n]*"[ \t]*[].=]""", toml_text)
    whole = len(mentioned) == len(found.keys() - {"network_access"})
    return found if whole and not re.search(rf"#.*(?:{name})", toml_text) else None


# To add an event, write one EVENTS row; an item type, one ITEMS row. What no row knows is counted.
# Source: codex-cli 0.169.0, every event and item type seen in tests/recordings.
THOUGHT = re.compile(rb'\{"type":"item\.completed","item":\{"id":"[^"\\]*","type":"reasoning","text":'
                     rb'("[^"\\]*(?:\\.[^"\\]*)*")\}\}\n?')


def fold(progress: Progress, line: bytes) -> Progress:
    """Fold one line of events.jsonl into what is known of the run. Never raises: at worst it is counted."""
    if progress.phase is Phase.MODEL and not progress.open_items:
        thought = THOUGHT.fullmatch(line)                       # what a long stream has most of
        if thought:
            return progress._replace(events=progress.events + 1, thought=thought[1])
    try:
        event = json.loads(line)
        row = EVENTS.get(event.get("type"))
    except (ValueError, RecursionError, AttributeError, TypeError):
        row = None
    if row is None:
        return progress._replace(unknown=progress.unknown + 1)
    return row(progress, event)._replace(events=progress.events + 1)


def fold_huge(progress: Progress, line: bytes, offset: int) -> Progress:
    """The same for a line of which only the beginning is known."""
    what = f"A line of over {MAX_LINE_BYTES >> 20} MiB was passed over: at byte {offset:,} of events.jsonl"
    progress = _warned(progress, what)._replace(unknown=progress.unknown + 1)
    if b'"item.completed"' in line[:200] and b'"agent_message"' in line[:200]:
        return progress._replace(message=f"[This message is not shown. {what}]")
    return progress


def _turn_completed(p: Progress, event: Mapping[str, Any]) -> Progress:
    counts = event.get("usage")
    usage = Usage.of(counts) if isinstance(counts, dict) else p.usage
    return p._replace(turn=Turn.COMPLETED, phase=Phase.ENDING, detail="", usage=usage)


def _turn_failed(p: Progress, event: Mapping[str, Any]) -> Progress:
    error = event.get("error")
    message = _text(error.get("message")) if isinstance(error, dict) else ""
    return p._replace(turn=Turn.FAILED, phase=Phase.ENDING, detail="", error=message)


def _error(p: Progress, event: Mapping[str, Any]) -> Progress:
    """Not a failure: codex announces its retries this way too, and goes on."""
    message = _text(event.get("message"))
    if not message.startswith("Reconnecting..."):
        return p
    phase = Phase.NETWORK if message.startswith("Reconnecting... waiting for network") else Phase.RETRY
    return p._replace(phase=phase, detail=clip(message, LABEL_CHARS), retries=p.retries + 1)


def _item(p: Progress, event: Mapping[str, Any]) -> Progress:
    item = event.get("item")
    row = ITEMS.get(_text(item.get("type"))) if isinstance(item, dict) else None
    if row is None or not isinstance(item, dict):
        return p._replace(unknown=p.unknown + 1)
    if row.fold is not None:
        return row.fold(p, item) if event["type"] == "item.completed" else p
    label, ident, kind = clip_masked(row.label(item), LABEL_CHARS), str(item.get("id")), item["type"]
    still_open = {k: v for k, v in p.open_items.items() if k != ident}
    new: Dict[str, Any] = {"open_items": still_open, "thought": b""}
    if ident not in p.open_items:
        new["tools"] = {**p.tools, kind: p.tools.get(kind, 0) + 1}
    if event["type"] != "item.completed":
        still_open[ident] = (row.phase, label)
    if row.phase is Phase.COMMAND:
        new["last_command"] = label
        said = _text(item.get("aggregated_output"))
        if item.get("status") == "failed" and _kind_of(said) is FailureKind.SANDBOX:
            why = f"A command failed with `{clip(said, 150)}`. {ADVICE[FailureKind.SANDBOX][1]}"
            new["warnings"] = add_warning(p.warnings, why)
    elif UNAPPROVED in str(item.get("error")):
        new["warnings"] = add_warning(p.warnings, REFUSED_TOOL.format(label))
    elif row.phase is Phase.EDIT:
        new["last_file"] = label
        new["files"] = tuple(dict.fromkeys((*p.files, *_paths(item))))[:FILES_KEPT]
    new["phase"], new["detail"] = _youngest(still_open)
    return p._replace(**new)


# Source: codex-cli 0.169.0 refuses a tool that it would have to ask for, and the turn goes on.
UNAPPROVED = "MCP tool call requires approval, but "
REFUSED_TOOL = "Codex refused the tool `{}`: it needs approval, and codex exec cannot ask. " \
               "`default_tools_approval_mode = \"approve\"` of that MCP server in config.toml allows it"


def _youngest(open_items: Mapping[str, Tuple[Phase, str]]) -> Tuple[Phase, str]:
    """Phase and detail are those of the youngest open item; with none open, codex waits for the model."""
    return list(open_items.values())[-1] if open_items else (Phase.MODEL, "")


def _told(p: Progress, **new: Any) -> Progress:
    phase, detail = _youngest(p.open_items)
    return p._replace(**{"phase": phase, "detail": detail, "thought": b"", **new})


def add_warning(warnings: Tuple[str, ...], *texts: str) -> Tuple[str, ...]:
    for text in (clip(text, 400) for text in texts):
        if text and text not in warnings and len(warnings) < WARNINGS_KEPT:
            warnings += (text,)
    return warnings


def _warned(p: Progress, text: str) -> Progress:
    return p._replace(warnings=add_warning(p.warnings, text))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def bare_command(command: str) -> str:
    """`pytest -q` for `/bin/bash -lc 'pytest -q'`, the form in which codex reports a shell command."""
    match = re.match(r"\S*/(?:ba|z|da|)sh -l?c (?=['\"]|\S+$)", command[:1_000])
    if not match:
        return command
    rest = command[match.end():]
    if re.fullmatch("'[^']*'", rest):   # what nearly all are; shlex takes fifty times as long
        return rest[1:-1]
    if len(command) > 1_000:            # ... and time by the square of the length; a label is short
        return rest[:1_000].lstrip("'\"")
    import shlex
    with contextlib.suppress(ValueError):
        (only,) = shlex.split(rest)
        return only
    return command


def _paths(item: Mapping[str, Any]) -> List[str]:
    changes = item.get("changes")
    return [_text(c.get("path")) for c in changes if isinstance(c, dict)] if isinstance(changes, list) else []


def _files(item: Mapping[str, Any]) -> str:
    paths = _paths(item)
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") if paths else ""


class Item(NamedTuple):
    phase: Phase = Phase.MODEL
    label: Callable[[Mapping[str, Any]], str] = lambda item: ""
    fold: Optional[Callable[[Progress, Mapping[str, Any]], Progress]] = None    # for items that are no tool


EVENTS: Mapping[str, Callable[[Progress, Mapping[str, Any]], Progress]] = {
    "thread.started": lambda p, event: p._replace(thread_id=_text(event.get("thread_id")) or p.thread_id),
    "turn.started": lambda p, event: p._replace(turn=Turn.STARTED, phase=Phase.MODEL, detail=""),
    "turn.completed": _turn_completed,
    "turn.failed": _turn_failed,
    "item.started": _item,
    "item.updated": _item,
    "item.completed": _item,
    "error": _error,
}
ITEMS: Mapping[str, Item] = {
    "agent_message": Item(fold=lambda p, item: _told(p, message=_text(item.get("text")))),
    "reasoning": Item(fold=lambda p, item: _told(p, thought=json.dumps(item.get("text")).encode())),
    "todo_list": Item(fold=lambda p, item: p),
    "error": Item(fold=lambda p, item: _warned(p, _text(item.get("message")))),
    "command_execution": Item(Phase.COMMAND, lambda item: bare_command(_text(item.get("command")))),
    "file_change": Item(Phase.EDIT, _files),
    "mcp_tool_call": Item(Phase.TOOL, lambda item: f"{_text(item.get('server'))}/{_text(item.get('tool'))}"),
    "collab_tool_call": Item(Phase.AGENTS, lambda item: _text(item.get("tool"))),
    "web_search": Item(Phase.SEARCH, lambda item: _text(item.get("query"))),
}

# A failure is told by the words that codex itself puts first in its message (or on a line of stderr, when
# it never came to a turn), never by a number or a word somewhere inside: "line 512" is no server error.
# Source: codex-cli 0.169.0; each row has its recording in tests/recordings.
EVIDENCE: Tuple[Tuple[FailureKind, str], ...] = (
    (FailureKind.AUTH, r"unexpected status (401|403) |Missing environment variable: "),
    (FailureKind.RATE_LIMIT, r"exceeded retry limit, last status: 429 |rate limit exceeded: "
                             r"|unexpected status 429 "),
    (FailureKind.USAGE_LIMIT, r"You.ve hit your usage limit|Quota exceeded\. "
                              r"|To use Codex with your ChatGPT plan, upgrade "),
    (FailureKind.OVERLOADED, r"We.re currently experiencing high demand|Selected model is at capacity"
                             r"|unexpected status 5\d\d |exceeded retry limit, last status: 5\d\d "
                             r"|stream disconnected before completion: The server had an error"),
    (FailureKind.NETWORK, r"Connection failed: |stream disconnected before completion: "),
    (FailureKind.CONTEXT_OVERFLOW, r"Codex ran out of room in the model's context window"),
    (FailureKind.BAD_REQUEST, r"unexpected status 4\d\d |\{\"|Invalid prompt: "
                              r"|The (requested )?model ['`].*['`] does not exist"
                              r"|Error: turn/start: turn/start failed: Input exceeds the maximum length"),
    (FailureKind.RESUME, r"Error: thread/(resume|fork): "),
    (FailureKind.NOT_A_REPOSITORY, r"Not inside a trusted directory and --skip-git-repo-check was not "
                                   r"specified"),
    (FailureKind.CONFIG, r"Error loading config\.toml: |Error parsing -c overrides: "
                         r"|Error: Model provider `|Error: Unknown feature flag: "
                         r"|error: (unexpected argument|invalid value|the argument|unrecognized subcommand) "
                         r"|(Error: )?required MCP servers failed to initialize"
                         r"|Error: [`\w]+ = \S+ is no longer supported"),
    (FailureKind.SANDBOX, r"sandbox error: |bwrap: |error building bubblewrap command: "
                          r"|(Error: |error: )?codex-linux-sandbox was required but not provided"),
)
ADVICE: Mapping[FailureKind, Tuple[bool, str]] = {
    FailureKind.AUTH: (False, "Log in with `codex login` (or set the provider's API key) as the user who "
                              "runs this server, then run the task again."),
    FailureKind.RATE_LIMIT: (True, "Wait a minute, then continue with codex_reply; run fewer tasks at "
                                   "once."),
    FailureKind.USAGE_LIMIT: (False, "Wait until the time that the message names, or change the plan, then "
                                     "continue with codex_reply."),
    FailureKind.NETWORK: (True, "Check the connection to the model's service, then continue with "
                                "codex_reply."),
    FailureKind.OVERLOADED: (True, "Wait a little and continue with codex_reply, or choose another model."),
    FailureKind.CONTEXT_OVERFLOW: (False, "Start a new task with a smaller prompt; this thread is full."),
    FailureKind.BAD_REQUEST: (False, "The model's service refused the request: correct the model, the "
                                     "settings or the prompt that the message names."),
    FailureKind.CONFIG: (False, "Correct the setting that the message names: in this call, in the server's "
                                "-c flags or in config.toml. If it names a flag, codex may be too old: "
                                "update it."),
    FailureKind.NOT_A_REPOSITORY: (False, "Run it in a git repository, or start the server with "
                                          "--skip-git-repo-check."),
    FailureKind.SANDBOX: (False, "Codex's sandbox cannot start here: see that unprivileged user namespaces "
                                 "are allowed."),
    FailureKind.SETUP: (False, "Codex was not started: the message says what failed before. If that is the "
                               "setup command, see setup.log of the task, correct "
                               "CODEX_SWARM_WORKTREE_SETUP of the server or what it runs, or pass worktree "
                               "{\"setup\": false}."),
    FailureKind.RESUME: (False, "Check the thread id; if another process has the thread open, wait for it "
                                "to end. Otherwise start a new task."),
    FailureKind.CODEX_MISSING: (False, "Install Codex (`npm install -g @openai/codex`), or name its path "
                                       "with --codex-bin."),
    FailureKind.CODEX_CRASH: (True, "Codex itself broke down: look at stderr.log of the task; update "
                                    "codex; try again."),
    FailureKind.KILLED: (True, "Something outside this server killed codex, often the kernel for want of "
                               "memory: run fewer tasks at once."),
    FailureKind.LOST: (True, "The process that supervised the task was killed or failed (supervisor.log "
                             "says more). What codex wrote until then is kept; continue with codex_reply."),
    FailureKind.TIMED_OUT: (False, "codex_reply continues the thread; give it a longer `timeout_s`, or "
                                   "less to do."),
    FailureKind.CANCELLED: (False, "codex_reply continues the thread, if it is still wanted."),
    FailureKind.DISAGREEMENT: (True, "The exit status and the events of codex contradict each other: check "
                                     "what was done before you rely on it."),
    FailureKind.UNKNOWN: (False, "Read the message; more is in events.jsonl and stderr.log of the task."),
}


# What advice says of a reply -> what to do instead where there is no thread.
REPLIES: Mapping[str, str] = {"codex_reply continues the thread": "Start it again",
                              "continue with codex_reply": "start it again"}


def failure(kind: FailureKind, message: str, advice: str = "") -> Failure:
    retryable, general = ADVICE[kind]
    return Failure(kind, masked(clip(message, 2_000)), retryable, advice or general)


def without_thread(advice: str) -> str:
    """The same for a task that ended before Codex had opened a thread."""
    for reply, again in REPLIES.items():
        advice = advice.replace(reply, f"{again} (Codex had not opened a thread yet)")
    return advice


def not_begun(error: ToolError) -> Failure:
    """Of a task that did not come to run codex."""
    return failure(FailureKind.SETUP, f"{error.what}: {error.why}", error.fix)


def classify(message: str, stderr: str) -> Optional[Failure]:
    """The failure that codex's own words, `turn.failed` or else the lines of stderr, tell of, if any do."""
    if message:
        return failure(_kind_of(message) or FailureKind.UNKNOWN, message)
    lines = [line for line in stderr.split("\n") if line.strip() and not re.match(STDERR_NOISE, line)]
    for line in lines:
        kind = _kind_of(line)
        if kind is not None:
            return failure(kind, line)
    return failure(FailureKind.UNKNOWN, " ".join(lines[-3:])) if lines else None


def reset_at(message: str, now: float) -> Optional[float]:
    """When the limit ends that codex tells of: the end of the minute that it names in our own time zone,
    without a day for today. Source: codex-cli 0.169.0."""
    from datetime import datetime
    found = re.search(r"try again at (?:(\w{3} \d+)\w\w, (\d{4}) )?(\d+:\d\d [AP]M)", message)
    if found:
        day = f"{found[1]} {found[2]}" if found[1] else datetime.fromtimestamp(now).strftime("%b %d %Y")
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.strptime(f"{day} {found[3]}", "%b %d %Y %I:%M %p").timestamp() + 60
    return None


def _kind_of(line: str) -> Optional[FailureKind]:
    return next((kind for kind, pattern in EVIDENCE if re.match(pattern, line)), None)


STDERR_NOISE = r"Reading (additional input|prompt) from stdin\.\.\.|warning: |Stack backtrace|\s+\d+: " \
               r"|\d{4}-\d\d-\d\dT\S+ +(WARN|INFO|DEBUG|TRACE) "
REJECTED = r"\d{4}-\d\d-\d\dT\S+ ERROR codex_core::tools::router: error=(.*)"


def rejections(stderr: str) -> List[str]:
    """What codex refused to run for its model. Source: codex-cli 0.169.0, which tells it on stderr alone."""
    return ["Codex refused: " + clip(text, 300) for text in re.findall(REJECTED, stderr)[:4]]


# ======================================================================================
# 7. HOST  (clocks, processes, signals, files; only the supervisor reaps and sleeps by itself)
# ======================================================================================
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36       # Source: linux/prctl.h
FICLONE = 0x40049409                                    # Source: linux/fs.h; elsewhere nothing answers to it
LINUX = sys.platform.startswith("linux")
# What a supervisor runs that is not forked: the code of this module as we have it, from a file without a
# name. So nobody can put another in its place, and it is compiled anew only if Python was updated beneath us.
CODE = sys._getframe().f_code
BOOT = """\
import marshal, os, sys
path, version, fd = sys.argv[1], sys.argv[2], int(sys.argv[3])
code = os.pread(fd, os.fstat(fd).st_size, 0)
code = marshal.loads(code) if version == sys.version else compile(open(path, "rb").read(), path, "exec")
os.close(fd)
module = sys.modules["codex_mcp_swarm"] = type(sys)("codex_mcp_swarm")
module.__file__ = path
exec(code, module.__dict__)
sys.exit(module.supervisor_main(sys.argv[4:]))
"""


class Done(NamedTuple):
    """A command that has ended."""
    code: int
    out: str
    err: str


@functools.lru_cache(1)
def libc() -> Any:
    """The C library of this process, opened once."""
    import ctypes
    return ctypes.CDLL(None)


class Host:
    """The operating system, as far as we need it. One per process."""

    def __init__(self, log_file: Optional[str] = None, log_level: str = "WARNING",
                 linux: bool = LINUX) -> None:
        self.log_file, self.log_level, self.linux = log_file, log_level, linux
        self._code: Any = None              # CODE in a file, from the first launch on that needs it
        self.called_off: Optional[Callable[[], str]] = None     # of a supervisor: why a command is to end
        self.forker: Optional[Forker] = None    # of a server
        self._running: Dict[Any, Callable[[], Any]] = {}        # command -> whether it hangs

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def prepare_to_launch(self) -> None:
        """Import now what a launch needs, not between the steps of one."""
        import subprocess   # noqa: F401
        import tempfile     # noqa: F401

    def new_task_id(self) -> str:
        return os.urandom(6).hex()

    def log(self, level: str, message: str, trace: bool = False) -> None:
        """To CODEX_SWARM_LOG, or to stderr what fits there now: nobody need read it, and no log is worth a
        wait. `trace` adds the traceback of the exception being handled."""
        if LOG_LEVELS.index(level) < LOG_LEVELS.index(self.log_level):
            return
        with contextlib.suppress(OSError, ImportError, AttributeError):     # also for want of a descriptor
            if trace:
                import traceback
                message = f"{message}\n{traceback.format_exc().rstrip()}"
            line = f"{time.strftime('%F %T')} {level} [{os.getpid()}] {visible(masked(message))}\n"
            data = line.encode("utf-8", "backslashreplace")
            if self.log_file:
                with open(self.log_file, "ab", opener=lambda path, how: os.open(path, how, 0o600)) as f:
                    f.write(data)
                return
            while data and select.select([], [2], [], 0)[1]:
                os.write(2, data[:select.PIPE_BUF])         # what a pipe that is writable takes at once
                data = data[select.PIPE_BUF:]

    def run(self, argv: Sequence[str], cwd: str, env: Optional[Mapping[str, str]] = None,
            timeout_s: float = GIT_TIMEOUT_S, stdin: bytes = b"", keep_out: bool = True,
            hangs: Callable[[], Any] = lambda: False, fds: Sequence[int] = ()) -> Done:
        """Run a command to its end. Its whole process group is killed after `timeout_s`, after LOOK_S if it
        `hangs` then, and once it is called off. Blocks. Raises: OSError when it cannot be started."""
        import subprocess
        stdout = subprocess.PIPE if keep_out else subprocess.DEVNULL
        child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=stdout,
                                 stderr=subprocess.PIPE, start_new_session=True, pass_fds=fds)
        self._running[child] = hangs
        began, spent, why = self.monotonic(), 0.0, ""
        said: Optional[bytes] = stdin
        while True:
            step = HEED_S if self.called_off else LOOK_S
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = child.communicate(said, timeout=max(0.0, min(step, timeout_s - spent)))
                break
            said, before, spent = None, spent, self.monotonic() - began
            why = self.called_off() if self.called_off else ""
            if why or spent >= timeout_s or before < LOOK_S <= spent and hangs():
                out, err = b"", f"fatal: gave up after {spent:.0f} s{why}".encode()
                self._end(child)
                break
        del self._running[child]
        return Done(child.returncode, (out or b"").decode("utf-8", "surrogateescape"),
                    err.decode("utf-8", "replace"))

    def end_what_hangs(self) -> None:
        """Kill those commands that hang, before we end: nobody else would."""
        for child, hangs in list(self._running.items()):
            if child.poll() is None and hangs():
                self.signal_group(child.pid, signal.SIGKILL)

    def lock(self, fd: int, limit_s: float = float("inf")) -> str:
        """Lock what is open, in the order in which the kernel wakes who waits. Whoever may be called off lets
        a child wait, since the lock belongs to the open file, and alone heeds `limit_s`. Returns why it gave
        up, if it did. Raises: OSError."""
        if self.called_off is None:
            flock(fd, fcntl.LOCK_EX)
            return ""
        with contextlib.suppress(BlockingIOError):
            flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        words = (sys.executable, "-I", "-S", "-c", f"import fcntl; fcntl.flock({fd}, fcntl.LOCK_EX)")
        done = self.run(words, "/", timeout_s=limit_s, fds=(fd,))
        return done.err if done.code else ""

    def _end(self, child: Any) -> None:
        """Kill a command with its process group."""
        import subprocess
        self.signal_group(child.pid, signal.SIGTERM)        # at which git takes away its locks
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)
        self.signal_group(child.pid, signal.SIGKILL)
        for pipe in filter(None, (child.stdin, child.stdout, child.stderr)):
            pipe.close()                    # whoever left the group may hold the other end for ever
        child.wait()

    def launch_supervisor(self, root: str, directory: str, fds: Sequence[int],
                          environ: Optional[Mapping[str, str]] = None) -> Any:
        """Start a supervisor with the task's lock and its slot: a flock belongs to the open file, so at no
        instant it is free. It has our environment where `environ` is None, as whatever is forked. Returns the
        Popen to be reaped, if any. Raises: OSError."""
        import marshal
        import subprocess
        import tempfile
        with open(os.path.join(directory, "supervisor.log"), "ab", opener=private) as log:
            if environ is None and self.forker and self.forker.fork(directory, (log.fileno(), *fds)):
                return None
            if self._code is None:
                code = tempfile.TemporaryFile(dir=root)
                code.write(marshal.dumps(CODE))
                code.flush()
                self._code = code
            fds = (self._code.fileno(), *fds)
            words = (os.path.abspath(__file__), sys.version, str(fds[0]), directory, *map(str, fds[1:]))
            # inherited: a SIGTERM waits until the supervisor can act on it
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
            try:
                return subprocess.Popen([sys.executable, "-I", "-S", "-c", BOOT, *words], cwd=directory,
                                        env=environ, stdin=subprocess.DEVNULL, stderr=log,
                                        stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=fds)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def succeed(self, due: Iterable[Tuple[Any, Sequence[int]]]) -> List[str]:
        """Launch the supervisors of these tasks, by one whose own has ended and that has one thread. Returns,
        in a new process alone, the words for it. Raises: OSError."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))     # it waits until one can act on it
        for task, fds in due:
            if not self.linux:
                self.launch_supervisor(task.path, task.path, fds)
                continue
            with open(task.file("supervisor.log"), "ab", opener=private) as log:
                if os.fork() == 0:
                    settle_in(task.path, log.fileno())
                    return [task.path, *(str(os.dup(fd)) for fd in fds)]
        return []

    def begin(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], log: IO[bytes]) -> Tuple[Any, Any]:
        """Start a command in a session of its own, its output to `log`, and a guard that kills its group when
        we are killed. Returns both Popens; the caller awaits them, and kills the guard. Raises: OSError."""
        import subprocess
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        gate = ["/bin/sh", "-c", 'read -r go || exit; exec "$@" </dev/null', "gate"]    # waits for the guard
        child = subprocess.Popen([*gate, *argv], cwd=cwd, env=env, stdin=pipe, stdout=log, stderr=log,
                                 start_new_session=True)
        try:
            watch = ["/bin/sh", "-c", 'cat >/dev/null; kill -KILL "-$1"', "guard", str(child.pid)]
            guard = subprocess.Popen(watch, cwd="/", stdin=pipe, stdout=none, stderr=none,
                                     start_new_session=True)
            assert child.stdin is not None
            with child.stdin:
                child.stdin.write(b"go\n")
            return child, guard
        except OSError:
            self.signal_group(child.pid, signal.SIGKILL)
            raise

    def spawn(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], stdin: IO[bytes],
              out: IO[bytes], err: IO[bytes]) -> int:
        """Start codex in a session of its own, to die with us. Only the single-threaded supervisor calls
        this, so preexec_fn is safe. Returns the pid; the caller reaps. Raises: OSError."""
        import subprocess
        prctl = libc().prctl if self.linux else None
        dies_with_us = prctl and functools.partial(prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=stdin, stdout=out, stderr=err,
                                 start_new_session=True, preexec_fn=dies_with_us)
        child.returncode = 0        # so that Popen never waits for it: the supervisor is the one reaper
        return child.pid

    def adopt_orphans(self) -> None:
        """From now on every orphaned descendant becomes our child, whatever session it moved to (Linux)."""
        if self.linux:
            libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def signal_group(self, pgid: int, number: int) -> None:
        """A stopped process acts on nothing but SIGKILL and SIGCONT, hence the second signal."""
        for sig in (number, signal.SIGCONT):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pgid, sig)

    def kill(self, pids: Iterable[int], number: int = signal.SIGKILL) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def children(self) -> List[int]:
        """Our own, at once (Linux, one thread): what forks away is somebody else after a look at all."""
        with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as f:
            return [int(word) for word in f.read().split()]
        return []

    def parents(self) -> Dict[int, int]:
        """pid -> parent pid, of every process that can be seen."""
        if not self.linux:
            rows = self.run(["ps", "-axo", "pid=,ppid="], "/", timeout_s=5).out.split()
            return dict(zip(map(int, rows[::2]), map(int, rows[1::2])))
        table = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as f:
                table[int(name)] = int(f.read().rpartition(b")")[2].split()[1])
        return table

    def descendants(self, pid: int) -> Set[int]:
        """Every process below `pid`, dead but unreaped ones included."""
        table, found = self.parents(), {pid}
        while True:
            more = {child for child, parent in table.items() if parent in found} - found
            if not more:
                return found - {pid}
            found |= more

    def done_by(self, pids: Iterable[int]) -> Tuple[float, int]:
        """(CPU, s; bytes written) of these processes, and of those that they have reaped. What they write is
        known on Linux alone. Source: proc_pid_stat(5), proc_pid_io(5)."""
        cpu_s, written = 0.0, 0
        if not self.linux:
            ps = self.run(["ps", "-o", "time=", "-p", ",".join(map(str, pids))], "/", timeout_s=5)
            for clock in ps.out.split():            # `1:02:03.45`
                cpu_s += functools.reduce(lambda s, part: 60 * s + float(part), re.split("[-:]", clock), 0.0)
        for name in pids if self.linux else ():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as f:
                cpu_s += sum(map(int, f.read().rpartition(b")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")
            with contextlib.suppress(OSError), open(f"/proc/{name}/io") as f2:
                written += sum(map(int, re.findall(r"wchar: (\d+)", f2.read())))
        return cpu_s, written

    def about(self, pid: int) -> Tuple[int, str]:
        """The parent of a process, and the directory of the task whose supervisor it is, if any. Its current
        directory, on macOS its argv, says so; anybody can choose these: the lock that it holds is proof."""
        parent, said = "0", ""
        if self.linux:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", errors="replace") as f:
                parent = f.read().rpartition(")")[2].split()[1]
                said = os.readlink(f"/proc/{pid}/cwd")
        else:
            ps = ["ps", "-ww", "-o", "ppid=,args=", "-p", str(pid)]
            parent, _, said = self.run(ps, "/", timeout_s=5).out.strip().partition(" ")
        form = r"(?:.*module\.supervisor_main\(.*\s\d+\s)?(/.*/tasks/" + TASK_ID + r")(?:\s\d+)*\s*"
        found = re.fullmatch(form, said, re.S)
        proven = found and self._holds(pid, os.path.join(found[1], "lock"))
        return int(parent or 0), found[1] if found and proven else ""

    def tasks_around(self) -> Set[str]:
        """The tasks that we run inside of. Codex keeps the mark of a task from its MCP servers, so we look
        for supervisors above us, once for a parent."""
        return self._tasks_above(os.getppid())

    @functools.lru_cache(1)
    def _tasks_above(self, pid: int) -> Set[str]:
        found: Set[str] = set()
        while pid > 1:
            pid, directory = self.about(pid)
            found.add(os.path.basename(directory))
        return found - {""}

    def _holds(self, pid: int, lock: str) -> bool:
        """Whether this process has taken the lock, not only opened it, for which O_PATH needs no permission.
        Source: proc_pid_fdinfo(5)."""
        with contextlib.suppress(OSError):
            if not self.linux:
                lsof = ["lsof", "-a", "-t", "-p", str(pid), "--", lock]
                return held(lock) and bool(self.run(lsof, "/", timeout_s=5).out)
            for fd in os.listdir(f"/proc/{pid}/fdinfo"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/fdinfo/{fd}") as f:
                    taken = re.search(r"^lock:.*FLOCK.*WRITE", f.read(), re.M)
                    if taken and os.path.samefile(f"/proc/{pid}/fd/{fd}", lock):
                        return True
        return False

    def kill_marked(self, task_id: str) -> int:
        """SIGKILL what a task left behind whose supervisor was itself killed: found by the mark in its
        environment (Linux; a process that cleared its environment is not found). Returns how many."""
        if not self.linux:
            return 0
        mark, killed, before = f"{TASK_ENV}={task_id}".encode(), set(), -1      # type: bytes, Set[str], int
        while len(killed) > before:         # what was forked meanwhile is found by the next look
            before = len(killed)
            for name in set(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}:
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as f:
                    if mark in f.read().split(b"\0"):
                        os.kill(int(name), signal.SIGKILL)
                        killed.add(name)
        return len(killed)

    def worker_in(self, directory: str) -> Optional[int]:
        """A process that has its current directory or an open file in there, if we may know of it (Linux)."""
        within = os.path.realpath(directory)
        for name in filter(str.isdigit, os.listdir("/proc")) if self.linux else ():
            with contextlib.suppress(OSError):
                for link in ("cwd", *(f"fd/{fd}" for fd in os.listdir(f"/proc/{name}/fd"))):
                    with contextlib.suppress(OSError):
                        at = os.readlink(f"/proc/{name}/{link}")
                        if at == within or at.startswith(within + os.sep):
                            return int(name)
        return None


LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Forker:
    """A child of ours without a thread that forks supervisors, each before its task: no interpreter starts,
    all share its pages. It has no lock and nothing of the client's, and ends when we do. Where it has ended
    (killed, as the supervisor that waits, or by a system that forks no more), a supervisor is an interpreter;
    so it always is on macOS, whose own libraries may have threads."""

    def __init__(self, supervise: Callable[[Sequence[str]], int]) -> None:
        """Before the first thread. `supervise` is what a supervisor does, with its words. Raises: OSError."""
        self.line, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._serve(its, supervise)
            finally:
                os._exit(0)                                 # nobody above us is to go on
        its.close()

    def fork(self, task: str, fds: Sequence[int]) -> bool:
        """Start a supervisor in the directory of its task. `fds`: its log, and what it inherits. False: there
        is none and will be none, as whoever is it, or could become it, holds the pipe. Blocks for FORK_S at
        most, unless somebody stops it in its first moment on its own. Raises: OSError."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)                # killed, it would stay behind as a zombie
        here, there = os.pipe()
        with open(here, "rb", 0) as answer:
            with contextlib.suppress(OSError), open(there, "wb", 0):
                passed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (there, *fds))
                self.line.sendmsg([os.fsencode(task)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
            answers = select.poll()                         # unlike select(2) for a descriptor of any number
            answers.register(answer, select.POLLIN)
            if not answers.poll(1000 * FORK_S):             # somebody stopped it, or the next supervisor;
                for kill in (os.killpg, os.kill):           # dead, they hold no pipe
                    with contextlib.suppress(ProcessLookupError):
                        kill(self.pid, signal.SIGKILL)
            return bool(answer.read(1))

    def _serve(self, line: Any, supervise: Callable[[Sequence[str]], int]) -> Any:
        """Keep one supervisor ahead, until the line ends or one has ended without a task."""
        for fd in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        os.closerange(3, line.fileno())
        os.closerange(line.fileno() + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)                       # nobody need reap a supervisor
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))         # it waits until one can act on it
        select.select([line], [], [], 0.2)                  # the first answers of the server come first
        gc, *_ = map(__import__, ("gc", "glob", "subprocess"))
        getattr(libc(), "malloc_trim", int)(0)              # glibc: what the compiler of this file left
        rehearse = lambda: [codex_argv(from_json(Spec, to_json(Spec("", 0.0, "", "")))),
                            *map(looks_secret, map("=".join, os.environ.items()))]
        rehearse()                                          # here its patterns are compiled once for all
        gc.freeze()                                         # a collection would write to every page
        while True:
            select.select([line], [], [], 0.05)             # a task that has just begun comes first, too
            taken, takes = os.pipe()                        # through which it says that it has a task
            if os.fork() == 0:
                if not select.select([line], [], [], 0)[0]:
                    rehearse()                              # what it writes to are its own pages then
                return Forker._supervise(line, supervise, taken, takes)
            os.close(takes)
            if not os.read(taken, 1):
                return
            os.close(taken)

    @staticmethod
    def _supervise(line: Any, supervise: Callable[[Sequence[str]], int], taken: int, takes: int) -> Any:
        """Wait for a task, and be its supervisor."""
        task, passed, _, _ = line.recvmsg(1 << 16, 256)
        if not task:
            return
        signal.sigtimedwait((signal.SIGTERM,), 0)           # what came before the task is not about it
        line.close()
        os.write(takes, b"1")
        answer, log, *inherited = memoryview(passed[0][2]).cast("i")
        settle_in(os.fsdecode(task), log)
        os.write(answer, b"1")
        close_all(taken, takes, answer, log)
        return supervise([os.fsdecode(task), *map(str, inherited)])


def settle_in(task: str, log: int) -> None:
    """Let what was forked be the supervisor of a task, for all who look at it (Linux). Raises: OSError."""
    os.setsid()
    os.chdir(task)
    libc().prctl(PR_SET_NAME, b"swarm-" + os.fsencode(os.path.basename(task)))      # `top` shows 15 bytes
    os.dup2(log, 2)


def utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def own_signals() -> None:
    """Whatever the parent had blocked or ignored: we need our signals, and subprocess needs SIGCHLD."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def private(path: str, how: int, mode: int = 0o600) -> int:
    """An `opener` for everything of ours: what it makes is for us alone, whatever the umask. Raises: OSError,
    also for what is no ordinary file: a link leads elsewhere, and a FIFO has no end."""
    fd = os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    there = os.fstat(fd).st_mode
    try:
        if not stat.S_ISREG(there):
            raise OSError(errno.EINVAL, "No ordinary file", path)
        if mode == 0o200 and there & 0o577:             # a lock file of an older version
            os.fchmod(fd, mode)
        return fd
    except OSError:
        os.close(fd)
        raise


def open_lock(path: str, create: int = 0) -> int:
    """Open a lock file, which is for writing alone: inside Codex's sandbox whatever can be read can be
    locked, but nobody can open such a file, not even uid 0. Raises: OSError."""
    return private(path, os.O_WRONLY | create, 0o200)


def flock(fd: int, how: int) -> None:
    """Lock what is open for writing alone; NFS shares a lock with readers only, so there it is exclusive.
    Raises: OSError. Source: flock(2)."""
    try:
        fcntl.flock(fd, how)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        fcntl.flock(fd, how & ~fcntl.LOCK_SH | fcntl.LOCK_EX)


def write_atomic(path: str, data: Mapping[str, Any], lasting: bool = True) -> None:
    """A reader sees the old file or the new one, whole; `lasting`: also after a power failure. Raises:
    OSError."""
    new = path + ".new"
    try:
        with open(new, "w", encoding="utf-8", errors="replace", opener=private) as f:
            f.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")))    # `dump` is not in C
            f.flush()
            if lasting:
                os.fsync(f.fileno())
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def flush(paths: Iterable[str]) -> None:
    """Let those of these files that are there outlast a power failure. Raises: OSError."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError), open(path, "rb", opener=private) as f:
            os.fsync(f.fileno())


def read_json(path: str) -> Dict[str, Any]:
    """Raises: OSError; ValueError when it is not a JSON object (a torn or foreign file)."""
    with open(path, encoding="utf-8", opener=private) as f:
        try:
            data = json.load(f)
        except RecursionError:
            raise ValueError(f"{path} is nested too deep")
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return data


def text_in(path: str) -> str:
    """What a file of settings says; nothing where it is not there or no file, such as a pipe. Raises: OSError
    when the system is exhausted."""
    with suppress_unless_exhausted(OSError), open(os.path.realpath(path), "rb", opener=private) as f:
        return f.read().decode("utf-8", "replace")
    return ""


def modified_at(path: str) -> float:
    """Unix seconds; 0 for what is not there."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return 0.0


def names_in(path: str) -> List[str]:
    """What is in a directory; nothing when it is not there. Raises: OSError."""
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(path)
    return []


@contextlib.contextmanager
def locked(path: str, how: int, create: int = 0,
           tell: Optional[Callable[[str], None]] = None) -> Iterator[bool]:
    """Hold a lock file while the block runs. False when, with LOCK_NB, another one does; `tell` is told where
    we wait. Raises: OSError."""
    with open(open_lock(path, create), "wb") as f:
        mine = False
        with contextlib.suppress(BlockingIOError):
            flock(f.fileno(), how | (fcntl.LOCK_NB if tell else 0))
            mine = True
        if tell and not mine:
            tell(f"waiting for {path}, which another one holds")
            flock(f.fileno(), how)
            mine = True
        yield mine


def take(path: str, create: int = 0) -> Optional[int]:
    """The descriptor of a lock file, which is taken until that is closed; None where somebody else has it.
    Raises: OSError."""
    with open(open_lock(path, create), "wb") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.dup(lock.fileno())
    return None


def close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def wake_on(*signals: int) -> int:
    """From now on each of these signals only writes its number into a pipe; returns its end to read from."""
    wake, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return wake


def silence(bell: int) -> None:
    """Read what has rung. Any task may have read it away before us."""
    with contextlib.suppress(BlockingIOError):
        os.read(bell, 1 << 16)


def held(path: str) -> bool:
    """Whether somebody holds this lock file. Raises: OSError."""
    with locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB) as mine:
        return not mine


def make_directory(path: str, variable: str) -> os.stat_result:
    """Make `path` if need be, for us alone. Raises: ToolError, which names the variable that moves it."""
    try:
        if not os.path.lexists(path):
            make_directory(os.path.dirname(path), variable)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        return os.lstat(path)
    except OSError as error:
        raise ToolError(f"`{path}` cannot be used", error.strerror or str(error),
                        f"Make it writable, or name another directory in {variable}")


def own_directory(path: str) -> os.stat_result:
    """Make `path` if need be. Raises: ToolError when that fails, or others could change what is in it."""
    there, what = make_directory(path, "CODEX_SWARM_TASK_DIR"), f"`{path}` is not used for tasks"
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
        raise ToolError(what, "It is a link or belongs to another user, who could then read or change them",
                        "Remove it, or name another directory in CODEX_SWARM_TASK_DIR")
    if there.st_mode & 0o022:
        raise ToolError(what, "Other users can write there, and could then change them",
                        "Run `chmod go-w` on it, or name a directory of your own in CODEX_SWARM_TASK_DIR")
    return there


def private_directory(path: str) -> None:
    """The same, and closed to others. Raises: ToolError."""
    if own_directory(path).st_mode & 0o077:
        os.chmod(path, 0o700)


def existing(path: str) -> str:
    """`path`, or the nearest directory above it that is there."""
    return path if os.path.lexists(path) or path == os.sep else existing(os.path.dirname(path))


def free_mb(path: str) -> int:
    """MiB that the user may still fill there. Raises: OSError."""
    there = os.statvfs(path)
    return there.f_bavail * there.f_frsize >> 20


def is_inside(path: str, directory: str) -> bool:
    top = os.path.realpath(directory)
    return os.path.commonpath([os.path.realpath(path), top]) == top


def leads_out(top: str, link: str) -> bool:
    """Whether the link, named relative to `top`, leads out of it, or would if all of `top` were elsewhere."""
    path = os.path.join(top, link)
    return os.path.isabs(os.readlink(path)) or not is_inside(path, top)


def copy_file(source: str, target: str) -> None:
    """Copy an ordinary file with its mode and times, sharing its blocks where the file system can. Raises:
    OSError, also when `source` is a link or `target` exists and is not empty."""
    import shutil
    with open(source, "rb", opener=private) as f:
        about = os.fstat(f.fileno())
        with open(target, "wb", opener=private) as out:
            try:
                fcntl.ioctl(out.fileno(), FICLONE, f.fileno())
            except OSError:
                shutil.copyfileobj(f, out, 1 << 20)
            os.fchmod(out.fileno(), stat.S_IMODE(about.st_mode))
    os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def copy_into(top: str, into: str, name: str) -> str:
    """Copy the file or link `name` from below `top` to its place below `into`. Never writes through a link or
    over anything, and makes no link that leads out. Returns why it was not copied, if so. Raises: OSError."""
    source, target, above = os.path.join(top, name), os.path.join(into, name), into
    for part in os.path.dirname(name).split("/"):
        above = os.path.join(above, part)
        if part and not os.path.isdir(above) and not os.path.lexists(above):
            os.mkdir(above)
        if os.path.islink(above) or not os.path.isdir(above):
            return "its directory is something else there"
    if os.path.lexists(target):
        return "it is there already"
    if os.path.islink(source):
        if leads_out(top, name):
            return "a link that leads elsewhere"
        os.symlink(os.readlink(source), target)
        return ""
    try:
        copy_file(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        return error.strerror or str(error)
    return ""


def mounted_in(path: str, table: str = "/proc/self/mountinfo") -> Optional[str]:
    """A place below `path` where something is mounted, by the kernel's table (Linux), or where another file
    system begins; None for none."""
    above = re.sub(r"[\\\s]", lambda c: f"\\{ord(c[0]):03o}", os.path.realpath(path)) + "/"
    points = [line.split(" ")[4] for line in text_in(table).splitlines() if line.count(" ") > 4]
    if not points:
        points = [os.path.join(top, name) for top, inner, _ in os.walk(path) for name in inner]
        points = [os.path.realpath(point) for point in points if os.path.ismount(point)]
    return next((point for point in points if point.startswith(above)), None)


def delete_tree(path: str) -> None:
    """Delete a file, or a directory with all that is in it, also what forbids that; no link is followed.
    Raises: OSError, also when something is mounted in it."""
    import shutil
    if os.path.islink(path) or not os.path.isdir(path):
        return os.unlink(path)
    mounted = mounted_in(path)
    if mounted is not None:
        raise OSError(errno.EBUSY, "Something is mounted there", mounted)
    os.chmod(path, 0o700)
    for top, directories, _ in os.walk(path):
        for inner in (os.path.join(top, name) for name in directories):
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(path)


def find_codex(name: str, path: str) -> str:
    """The executable of Codex; the native binary where `name` is the npm launcher, which would only stay in
    memory (43 MiB) and, killed alone, orphan it.

    `name` is a path or a command; a command is also looked for where a desktop client's PATH does not reach.
    Source: @openai/codex 0.169.0, bin/codex.js and its platform packages.
    Raises: ToolError when there is none.
    """
    import glob
    import shutil
    home = os.path.expanduser("~")
    places = [path, "/opt/homebrew/bin", "/usr/local/bin", f"{home}/.local/bin", f"{home}/.npm-global/bin",
              f"{home}/.bun/bin", *sorted(glob.glob(f"{home}/.nvm/versions/node/*/bin"), reverse=True)]
    found = shutil.which(os.path.expanduser(name), path=os.pathsep.join(places))
    if found is None:
        missing = FailureKind.CODEX_MISSING
        raise ToolError(f"Codex was not found: no executable `{name}`",
                        "Every task is a run of the Codex CLI", ADVICE[missing][1], kind=missing)
    return native_codex(os.path.abspath(found))


def native_codex(path: str) -> str:
    real = os.path.realpath(path)
    if os.path.basename(real) != "codex.js":
        return path
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    triple = f"{machine}-unknown-linux-musl" if LINUX else f"{machine}-apple-darwin"
    platform = f"codex-{'linux' if LINUX else 'darwin'}-{'arm64' if machine == 'aarch64' else 'x64'}"
    package = os.path.dirname(os.path.dirname(real))
    bases = (f"{os.path.dirname(package)}/{platform}", f"{package}/node_modules/@openai/{platform}", package)
    natives = (f"{base}/vendor/{triple}/bin/codex" for base in bases)
    return next((native for native in natives if os.access(native, os.X_OK)), path)


# ======================================================================================
# 8. GIT
# ======================================================================================
# Means says how git runs, At where, Git leads there. What lies in a checkout goes through an index of ours,
# never its own. Trees makes worktrees, Snapshot commits what a task left there. Desk merges aside, and
# update_worktree into one of ours, Forward into a checkout of the user's. Clearing removes. No other floor
# moves a ref or makes an object.
GIT_SETTINGS = tuple(word for setting in (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.quotePath=false", "core.safecrlf=false",
    "core.ignoreStat=false", "core.trustCtime=true", "core.checkStat=default", "core.splitIndex=false",
    "core.untrackedCache=false", "core.warnAmbiguousRefs=true", "core.filesRefLockTimeout=10000",
    "core.packedRefsTimeout=10000", "commit.gpgSign=false", "i18n.commitEncoding=UTF-8",
    "advice.detachedHead=false", "gc.auto=0", "maintenance.auto=false", "merge.conflictStyle=merge",
    "diff.ignoreSubmodules=all", "submodule.recurse=false", "status.showStash=false")
    for word in ("-c", setting))
PLAIN = "|".join((      # what a repository may configure: git runs no program for it, and works nowhere else
    *(setting.partition("=")[0].lower() for setting in GIT_SETTINGS[1::2]),
    "core.(bare|filemode|logallrefupdates|ignorecase|precomposeunicode|symlinks|autocrlf|eol)",
    "core.sparsecheckout(cone)?|index.sparse|extensions.(objectformat|refstorage|worktreeconfig)",
    r"(core|lfs).repositoryformatversion|(branch|user|init|pull|push)\..*",
    r"remote\..*\.(url|pushurl|fetch|gh-resolved)|submodule\.(.*\.)?(url|active)"))
LOCAL_ENV = frozenset({
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR", "GIT_INTERNAL_SUPER_PREFIX"})
SETTINGS_BYTES = 1 << 20                    # of a repository's configuration, whose files are judged whole
MERGES_SINCE = [2, 38]                      # the first git that merges without a checkout
OWN_INDEX = "codex-swarm-index"             # the index of ours in a worktree, which knows the times of files
COPIED = "codex-swarm-copied"               # the copied files and what `mark_of` says of each, NUL after each
UPDATE = "codex-swarm-update"               # the commit that is being brought into a worktree
LOCK_REASON = "A codex-mcp-swarm task is running here"
TRASH = "refs/codex-swarm/trash/"           # then the id of the task for which a removed worktree was made
MERGE_TREE = "merge-"                       # then an id: where the result of a merge is verified
MARK = "codex-swarm-"                       # begins the names behind conflict markers
LABEL = f"{MARK}[0-9A-Za-z.-]*-0-g[0-9a-f]+"           # such a name
BASE = r"(?m)^(\|+) ([0-9a-f]{4,64}|merged common ancestors|empty tree)$"     # above what was there before
LIST = "CONFLICTS.codex-swarm"              # a file that tells of those without markers ...
LISTED = "These conflicts have no markers in their files"       # ... and begins like this
LEFT = f"{LABEL}|{LISTED}"
OURS = ".codex-swarm"                       # marks the directory of worktrees, which may be on another disk
REMOVED = ".removed-"                       # then that id: a worktree on its way out
UNKNOWN = "git does not know this worktree any more, or its repository was moved"
NOWHERE_ELSE = "What is in it may be nowhere else"
UNFINISHED = {
    "MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert",
    "sequencer": "cherry-pick", "BISECT_LOG": "bisect", "rebase-merge": "rebase", "rebase-apply": "rebase"}


def top_of(directory: str) -> Optional[str]:
    """The top of the checkout around `directory`, found without git. A `.git` without HEAD is none, for git
    and for Codex: its sandbox leaves empty ones behind. Source: codex-cli 0.169.0."""
    while True:
        dot_git = os.path.join(directory, ".git")
        if os.path.isfile(dot_git) or os.path.lexists(os.path.join(dot_git, "HEAD")):
            return directory
        if directory == os.path.dirname(directory):
            return None
        directory = os.path.dirname(directory)


def repository_of(directory: str) -> Tuple[str, str]:
    """(what all checkouts of a repository have in common, top of this one); found without git, and good for
    comparing only. Raises: GitError, OSError, ValueError."""
    top = top_of(os.path.realpath(directory)) or os.sep
    common = os.path.join(top, ".git")
    if os.path.isfile(common):
        common = leads_to(top, ".git") or common
        common = leads_to(common, "commondir") or common
    return os.path.realpath(common), top


def leads_to(directory: str, name: str) -> str:
    """Where `.git` or `commondir` in `directory` leads, empty for nowhere: to the byte as git reads it, or
    another place would be judged than it obeys. Source: setup.c of git 2.39. Raises: GitError; OSError when
    the system is exhausted."""
    path = os.path.join(directory, name)
    with suppress_unless_exhausted(OSError), open(os.path.realpath(path), "rb", opener=private) as f:
        text = f.read(SETTINGS_BYTES + 1)
        if len(text) > SETTINGS_BYTES:
            raise GitError(f"{path} is too large", "There is one path in it, for git", "Look at it")
        mark, word = b"gitdir: " * (name == ".git"), text.rstrip(b"\r\n").partition(b"\0")[0]
        if word.startswith(mark) and word != mark:
            return os.path.realpath(os.path.join(directory, os.fsdecode(word[len(mark):])))
    return ""


def common_of(tree: Worktree) -> str:
    """git's directory that all checkouts of the repository have in common."""
    return os.path.dirname(os.path.dirname(os.path.realpath(tree.git_dir)))


def elsewhere(environ: Mapping[str, str]) -> Dict[str, str]:
    """The environment without what ties git to one repository: a server that a git hook started has that.
    Source: `git rev-parse --local-env-vars` of git 2.39."""
    return {name: value for name, value in environ.items() if name not in LOCAL_ENV}


def waits_for(top: str) -> str:
    """Why git takes for ever in `top`, where that can be seen: it reads these files, and a pipe has no
    end."""
    if not os.path.exists(os.path.join(top, ".git")):
        return ""
    read = (os.path.join(at, name) for at, _, names in os.walk(top)
            for name in names if name in (".gitignore", ".gitattributes"))
    with contextlib.suppress(OSError):
        return next((f"; it waits for the pipe `{path}`" for path in read
                     if stat.S_ISFIFO(os.lstat(path).st_mode)), "")
    return ""


def unfinished(git_dir: str) -> List[str]:
    """What was begun in a checkout and not brought to its end: merge, rebase, ..."""
    return sorted({word for name, word in UNFINISHED.items() if os.path.exists(os.path.join(git_dir, name))})


class Means:
    """What git runs with, wherever it does. `within_s` bounds all commands together. It never runs the user's
    hooks, signing, editor or prompts, and never obeys the user's GIT_* environment."""

    def __init__(self, host: Host, environ: Mapping[str, str], within_s: Optional[float] = None,
                 own: str = "") -> None:
        """`own`: a directory for locks and for what is gone afterwards, made at need, where no task can
        write: in that for temporary files a sandboxed one can. Default: one there all the same, for whoever
        runs no tasks."""
        self.host, self.within_s, self.own = host, within_s, own
        self.give_up = None if within_s is None else host.monotonic() + within_s
        self.environ = {k: v for k, v in environ.items() if not k.startswith("GIT_")}
        self.environ.update(
            GIT_TERMINAL_PROMPT="0", GIT_ASKPASS="", SSH_ASKPASS_REQUIRE="never", GIT_EDITOR="true",
            GIT_OPTIONAL_LOCKS="0", LC_ALL="C", PYTHONSAFEPATH="1")     # `python -m` takes none from there

    def own_directory(self) -> str:
        import tempfile
        own = self.own or os.path.join(tempfile.gettempdir(), f"codex-swarm-{os.geteuid()}")
        private_directory(own)
        return own

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """An empty directory, gone afterwards; should we be killed, the sweep removes it. Raises: ToolError,
        OSError."""
        there = os.path.join(self.own_directory(), "." + self.host.new_task_id())
        os.mkdir(there, 0o700)
        try:
            yield there
        finally:
            delete_tree(there)

    @contextlib.contextmanager
    def alone(self, common: str, limit_s: float = float("inf")) -> Iterator[None]:
        """One process at a time writes in a repository, the others wait: git's own locks make them fail.
        `limit_s`: as for Host.lock. Raises: GitError, OSError."""
        path = self.lock_of(common)
        with open(open_lock(path, os.O_CREAT), "wb") as lock:
            why = self.host.lock(lock.fileno(), limit_s)
            if why:
                raise GitError(f"Another process keeps {path}", why, f"`fuser {path}` names it")
            yield

    def lock_of(self, common: str) -> str:
        """The lock file of a repository. Not in git's directory, whose copies and backups a file that nobody
        can read would stop. Two repositories may share one."""
        import zlib
        return os.path.join(self.own_directory(), f"{zlib.crc32(os.fsencode(common)):08x}.lock")


class At:
    """git in one place: a checkout, a repository, a desk. It runs commands with the environment of that
    place, and answers what several rooms ask. It moves no ref and writes no file of a checkout.

    Each command blocks up to GIT_TIMEOUT_S. Raises: GitError, wherever git refuses or cannot be run.
    """

    def __init__(self, git: Means, cwd: str, env: Mapping[str, str]) -> None:
        self.git, self.cwd, self.env = git, cwd, env
        self.identity: Tuple[str, ...] = ()     # ours, once the user turned out to have none here

    def also(self, **env: str) -> "At":
        """The same place with more of an environment."""
        return At(self.git, self.cwd, {**self.env, **env})

    def setting(self, key: str, value: str) -> "At":
        """The same place with more of a configuration."""
        count = self.env.get("GIT_CONFIG_COUNT", "0")
        more = {f"GIT_CONFIG_KEY_{count}": key, f"GIT_CONFIG_VALUE_{count}": value}
        return self.also(GIT_CONFIG_COUNT=str(int(count) + 1), **more)

    def beside(self, aside: "At") -> "At":
        """The same place with the index and the objects of another."""
        return At(self.git, self.cwd, {**aside.env, **self.env})

    @property
    def git_dir(self) -> str:
        return self.env["GIT_DIR"]

    @property
    def common(self) -> str:
        """git's directory that all checkouts of the repository have in common."""
        return leads_to(self.git_dir, "commondir") or self.git_dir

    @property
    def index(self) -> str:
        return self.env["GIT_INDEX_FILE"]

    def __call__(self, *words: str, stdin: str = "") -> str:
        """git's standard output, without the last newline."""
        out = self.run(*words, stdin=stdin).out
        return out[:-1] if out.endswith("\n") else out

    def run(self, *words: str, stdin: str = "", allowed: Sequence[int] = (0,),
            limit_s: float = GIT_TIMEOUT_S, keep_out: bool = True) -> Done:
        """The same for those who need more than the output, or none of it. Raises: GitError for an exit
        status that is not `allowed`."""
        git, hangs = self.git, lambda: waits_for(self.cwd)
        left = limit_s if git.give_up is None else min(limit_s, git.give_up - git.host.monotonic())
        if left <= 0:
            why = f"git had used up its {git.within_s:.0f} s{hangs()}"
            raise GitError(f"`git {words[0]}` was not run", why,
                           "See why git is slow there, for instance a filter that hangs")
        try:
            done = git.host.run(("git", *GIT_SETTINGS, *words), self.cwd, {**git.environ, **self.env}, left,
                                stdin.encode("utf-8", "surrogateescape"), keep_out, hangs)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not os.path.isdir(self.cwd):
                raise GitError(f"There is no directory `{self.cwd}`", "It was deleted or moved",
                               "Put it back, or see what `git worktree list` says")
            number = getattr(error, "errno", errno.E2BIG)
            raise GitError("git could not be run", str(error), REMEDIES.get(
                number, "Install git, and see that it is on the server's PATH"))
        if done.code not in allowed:
            raise self._refused(words, done)
        return done

    def _refused(self, words: Sequence[str], done: Done) -> GitError:
        how = f"exit status {done.code}" if done.code > 0 else f"killed by {signal_name(-done.code)}"
        asides = ("hint:", "warning:")
        lines = [line for line in done.err.splitlines() if line and not line.startswith(asides)]
        slow = waits_for(self.cwd) if lines and lines[0].startswith("fatal: gave up") else ""
        room = ", and see that there is room" if "unable to write" in done.err else ""
        command = next(word for before, word in zip(("", *words), words) if "-c" not in (before, word))
        return GitError(f"`git {command}` refused", clip_middle((" ".join(lines) or how) + slow, 600),
                        f"Try it by hand in `{self.cwd}`{room}")

    # -- what is there -------------------------------------------------------------
    def commit_of(self, ref: str) -> Optional[str]:
        """The commit that `ref` names, if it names one."""
        done = self.run("rev-parse", "--verify", "--quiet", ref + "^{commit}", allowed=(0, 1, 128))
        return done.out.strip() if done.code == 0 else None

    def find(self, *names: str) -> List[Optional[str]]:
        """The objects of these names, each None when there is none: one process for all of them."""
        asked = "".join(f"{name}\n" for name in names)
        rows = self("cat-file", "--batch-check=%(objectname)", stdin=asked).split("\n") if names else []
        return [row if re.fullmatch("[0-9a-f]{40,64}", row) else None for row in rows]

    def contents(self, names: Sequence[str], *how: str) -> List[Optional[str]]:
        """What is in these blobs, each None when there is none: one process for all of them. With `-z`, from
        git 2.38 on, a newline may be in a name."""
        asked = "".join(name + ("\0" if how else "\n") for name in names)
        done = self.run("cat-file", "--batch", *how, stdin=asked) if names else Done(0, "", "")
        out, at = done.out.encode("utf-8", "surrogateescape"), 0
        found: List[Optional[str]] = []
        for name in names:
            head = re.compile(rb"[0-9a-f]{40,64} (\w+) (\d+)\n").match(out, at)
            begin = head.end() if head else at
            end = begin + (int(head[2]) if head else len(os.fsencode(f"{name} missing")))
            blob = head is not None and head[1] == b"blob"
            found.append(out[begin:end].decode("utf-8", "surrogateescape") if blob else None)
            at = end + 1
        return found

    def tree_of(self, commit: str) -> str:
        return self("rev-parse", commit + "^{tree}")

    def contains(self, new: str, old: str) -> bool:
        """Whether the commit `old` is `new` or an ancestor of it."""
        return new == old or self.run("merge-base", "--is-ancestor", old, new, allowed=(0, 1)).code == 0

    def branch(self) -> str:
        """The ref that HEAD stands for, empty where it is detached."""
        return self.run("symbolic-ref", "--quiet", "HEAD", allowed=(0, 1)).out.strip()

    def nothing_staged(self) -> bool:
        """Whether the index holds just what HEAD does."""
        return self.run("diff-index", "--cached", "--quiet", "HEAD", allowed=(0, 1, 128)).code == 0

    def base_commit(self, base: str = "HEAD") -> str:
        """The commit that `base` names. Raises: GitError, also when it names none or two things."""
        name, named = clip(base, 100), f"refs/{base}" if base.startswith(("-", "^")) else base
        found = self.run("rev-parse", "--verify", named + "^{commit}", allowed=(0, 128))
        if found.code != 0 and base == "HEAD":
            raise GitError("The repository has no commit yet", "A worktree starts from HEAD",
                           "Make a first commit, or leave `worktree` out")
        if found.code != 0:
            raise GitError(f"`base`: `{name}` names no commit", clip(found.err, 300), "Pass a branch, tag or "
                           "commit that `git rev-parse` finds there; fetch it first if it is remote")
        if "is ambiguous" in found.err and base != "HEAD":
            raise GitError(f"`base`: `{name}` is ambiguous", clip(found.err, 300),
                           f"Write it in full, such as refs/heads/{name}")
        return found.out.strip()

    # -- what differs --------------------------------------------------------------
    def changes(self, *words: str) -> Tuple[List[Change], List[str]]:
        """(what `git status` finds, what it could not read)."""
        plain = ("--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
        done = self.run("status", *plain, *words)
        found = [Change(row[:2], row[3:]) for row in done.out.split("\0") if row]
        return found, [s for s in done.err.splitlines() if s.startswith("warning: could not")]

    def changed(self, old: str, new: str, paths: Sequence[str] = ()) -> List[Changed]:
        """The files that differ between two commits or trees, those below `paths` (globs) only."""
        plain = ("--raw", "--numstat", "-z", "--no-renames", "--ignore-submodules=none")
        out = self._differ(*plain, old, new, "--", *paths) if old != new else ""
        words, found = iter(out.split("\0")), {}    # type: Iterator[str], Dict[str, Changed]
        for word in filter(None, words):
            if word[0] == ":":
                _, mode, _, blob, status = word.split(" ")      # and the path in a cell of its own
                path = next(words)
                found[path] = Changed(status, path, mode, blob)
            else:
                insertions, deletions, path = word.split("\t", 2)
                if insertions != "-":
                    found[path] = found[path]._replace(insertions=int(insertions), deletions=int(deletions))
        return list(found.values())

    def patch(self, old: str, new: str, paths: Sequence[str], offset: int, room: int) -> Tuple[str, int]:
        """(of the same as a patch, with renames, `room` characters from `offset` on; how many it has). Only
        `aside`; no more than these are ever in memory. No program that the user's configuration names for
        showing files is run. Raises: GitError, OSError."""
        file = os.path.join(os.path.dirname(self.index), "patch")
        words = ("-p", "-M", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none", "--output", file)
        self._differ(*words, old, new, "--", *paths)
        piece, total, last = "", 0, ""
        with open(file, encoding="utf-8", errors="replace", newline="", opener=private) as f:
            for last in iter(lambda: f.read(1 << 20), ""):
                piece += last[max(0, offset - total):][:room - len(piece)]
                total += len(last)
        total -= last.endswith("\n")
        return piece[:max(0, total - offset)], total

    def _differ(self, *words: str) -> str:
        """Without a work tree, so that paths count from its top, and no .gitattributes there is obeyed."""
        env = {name: value for name, value in self.env.items() if name != "GIT_WORK_TREE"}
        return At(self.git, self.git_dir, {**env, "GIT_GLOB_PATHSPECS": "1"})("diff-tree", "-r", *words)

    # -- what is made --------------------------------------------------------------
    def commit(self, tree: str, parents: Sequence[str], message: str) -> str:
        """Make a commit, under a name of ours where the user has none."""
        words = ("commit-tree", tree, *(word for parent in parents for word in ("-p", parent)))
        text = message.encode("utf-8", "replace").decode("utf-8")
        try:
            return self(*self.identity, *words, stdin=text)
        except GitError:
            self.identity = ("-c", "user.name=codex-mcp-swarm", "-c", "user.email=codex-mcp-swarm@localhost")
            return self(*self.identity, *words, stdin=text)

    @contextlib.contextmanager
    def aside(self) -> Iterator["At"]:
        """This place with an index and an object directory of its own, both gone afterwards: whatever git
        makes then, the repository does not notice. Raises: GitError, OSError."""
        objects = os.path.join(self.common, "objects")
        quoted = objects.replace("\\", r"\\").replace('"', r'\"').replace("\n", r"\n")
        with self.git.scratch() as there:
            own = os.path.join(there, "objects")
            os.mkdir(own)
            yield self.also(GIT_INDEX_FILE=os.path.join(there, "index"), GIT_OBJECT_DIRECTORY=own,
                            GIT_ALTERNATE_OBJECT_DIRECTORIES=f'"{quoted}"')

    def hand_over(self, commit: str, at: "At", theirs: Sequence[str]) -> None:
        """Give a commit that was made `aside`, with all that it is made of, to the repository of `at`, which
        has the commits `theirs`."""
        if commit not in theirs:
            asked = "\n".join((commit, "--not", *theirs, ""))
            pack = self.run("pack-objects", "--revs", "--stdout", "--quiet", stdin=asked).out
            at("unpack-objects", "-q", stdin=pack)


def version_of(at: At) -> List[int]:
    """The first two numbers of git's version. Raises: GitError."""
    return [*map(int, re.findall(r"\d+", at("version"))[:2])]


class Git(Means):
    """git on one machine: leads to the places in which it runs."""

    def at(self, cwd: str, **env: str) -> At:
        """In the checkout around `cwd`, as git finds it."""
        return At(self, cwd, env)

    def around(self, cwd: str, bare: bool = False) -> At:
        """The checkout around `cwd`; git sees to it that its owner may be trusted, and looks for no commit.

        Raises: GitError, also where there are no files, unless the `bare` repository will do."""
        cwd = os.path.realpath(cwd)
        words = ("rev-parse", "--is-inside-work-tree", "--show-cdup", "--absolute-git-dir")
        inside, _, rest = self.at(cwd)(*words).partition("\n")
        if inside != "true" and bare:
            return self.within(self.at(cwd)("rev-parse", "--absolute-git-dir"))
        if inside != "true":
            raise GitError("The repository is bare, or `cwd` is git's own directory",
                           "There are no files to work with", "Pass the directory of a checkout as `cwd`")
        up, _, git_dir = rest.partition("\n")
        return self.checkout(git_dir, os.path.normpath(os.path.join(cwd, up)))

    def within(self, git_dir: str) -> At:
        """In git's directory itself: of a checkout, or what all have in common."""
        return At(self, git_dir, {"GIT_DIR": git_dir})

    def checkout(self, git_dir: str, top: str) -> At:
        """In one checkout whose git directory is named outright: a `.git` that a task put in its tree leads
        nowhere. Where a file system tells `a` from `A`, git shall too: a repository that came from one which
        does not says otherwise, and git would pass over a file that was renamed so."""
        at = At(self, top, {"GIT_DIR": git_dir, "GIT_WORK_TREE": top})
        alike = os.path.exists(os.path.join(git_dir, "hEaD"))
        return at if alike else at.setting("core.ignoreCase", "false")

    def odd_settings(self, git_dir: str, common: str) -> List[str]:
        """The names of what a repository's own configuration says beyond PLAIN. Raises: GitError; OSError
        when the system is exhausted."""
        odd: Set[str] = set()
        # `within` obeys those of the main checkout, also for a linked one
        for file in dict.fromkeys(f"{of}/{name}" for of, name in (
                (common, "config"), (common, "config.worktree"), (git_dir, "config.worktree"))):
            if os.path.lexists(file):
                odd |= self._odd_in(self._settings_in(file))
        return sorted(odd)

    @staticmethod
    def _settings_in(file: str) -> bytes:
        try:
            with open(os.path.realpath(file), "rb", opener=private) as f:
                settings = f.read(SETTINGS_BYTES + 1)
            if len(settings) > SETTINGS_BYTES:
                raise OSError(errno.EFBIG, "It is too large", file)
            return settings
        except OSError as error:
            raise_if_exhausted(error)
            raise GitError(f"{file} cannot be read", reason_of(error), "Look at it: git obeys what it says")

    @functools.lru_cache(8)
    def _odd_in(self, settings: bytes) -> Set[str]:
        """Those in the text of one file; one that includes another is among them, and no program is run."""
        words = ("config", "--no-includes", "--name-only", "-z", "--list", "--file", "-")
        names = self.at("/")(*words, stdin=settings.decode("utf-8", "surrogateescape")).split("\0")
        return {name for name in names if name and not re.fullmatch(PLAIN, name, re.S)}


class Lying(NamedTuple):
    """What lies in a checkout."""
    tree: str                               # the tree object of it
    changes: Sequence[Change]
    left_out: Mapping[str, str]             # what git could not take, or must not: path -> why
    ignored: Sequence[str] = ()             # and not copied by us; a directory of nothing else as one
    unread: Sequence[str] = ()              # what git says that it could not read


def lying_in_checkout(at: At) -> Lying:
    """As it lies in a checkout of anybody's: its index is copied to that of `at`, never written. Raises:
    GitError, OSError."""
    index = os.path.join(at.git_dir, "index")
    if os.path.exists(index):
        copy_file(index, at.index)
    return _lying(at)


def lying_in_worktree(at: At, tree: Worktree, from_tree: str) -> Lying:
    """As it lies in a worktree of ours, compared with this tree. The index of `at` is ours or becomes a copy,
    which knows the times of the files, so unchanged ones need not be read. The task's own, which may be told
    to overlook changes, tells only what is staged although ignored. Raises: GitError, OSError."""
    ours = os.path.join(tree.git_dir, OWN_INDEX)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(at.index + ".lock")
    if at.index != ours and os.path.exists(ours):
        copy_file(ours, at.index)
    at("read-tree", "--reset", from_tree)
    found = _lying(at, from_tree)
    hollow = dict.fromkeys(_hollow(at, tree), "a submodule that is not checked out, with files in it")
    return found._replace(left_out={**found.left_out, **hollow})


def _lying(at: At, from_tree: str = "") -> Lying:
    """What is not in the index of `at` yet comes in. `from_tree`: it is a worktree of ours, compared with
    this tree, which the index holds, and what is ignored there is told."""
    copied = copied_into(at.git_dir)        # where it is a worktree of ours
    seen, unread = at.changes("--untracked-files=all", *["--ignored=matching"] * bool(from_tree))
    names = {change.path for change in seen if change.xy == "!!"}
    forced = _staged(at, from_tree, names - copied)
    changes = [change for change in seen if change.xy != "!!"] + [Change("??", path) for path in forced]
    secret = [change for change in changes if is_secret(at.cwd, change, copied)]    # renamed, not ignored now
    left_out = _take(at, [change for change in changes if change not in secret])
    left_out.update((change.path, "copied from the checkout as an ignored file") for change in secret)
    ignored, more = _ignored(at, names, copied.union(forced))
    unchanged = bool(from_tree) and all(c.xy[1] == " " or c.path in left_out for c in changes)
    tree = from_tree if unchanged else at("write-tree", "--missing-ok")     # which the index then still holds
    return Lying(tree, changes, left_out, ignored, [*unread, *more])


def _staged(at: At, from_tree: str, ignored: Set[str]) -> List[str]:
    """What the task staged of these ignored files and directories; nothing where its index is damaged."""
    if not ignored:
        return []
    own = at.also(GIT_INDEX_FILE=os.path.join(at.git_dir, "index"))
    words = ("diff-index", "--cached", "--name-only", "--no-renames", "--diff-filter=A", "-z", from_tree)
    added = own.run(*words, allowed=(0, 128)).out.split("\0")
    inside = lambda path: any(f"{above}/" in ignored for above in directories_above(path))
    return [path for path in added if path in ignored or inside(path)]


def _ignored(at: At, names: Set[str], copied: Set[str]) -> Tuple[List[str], List[str]]:
    """(of these ignored files and directories what was not copied, files first; what git could not read)."""
    unread: List[str] = []
    names = names - copied
    directories = [path for path in names if path.endswith("/")]
    empty = {path for path in directories if next(os.walk(os.path.join(at.cwd, path)), ())[1:] == ([], [])}
    mixed = {path for path in directories if any(name.startswith(path) for name in copied)}
    if mixed:
        inside = (f":(literal){path}" for path in mixed)
        done = at.run("ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", *inside)
        unread = done.err.splitlines()
        names = names | set(filter(None, done.out.split("\0"))) - copied
    return sorted(names - empty - mixed, key=lambda path: (path.endswith("/"), path)), unread


def _take(at: At, changes: Sequence[Change]) -> Dict[str, str]:
    """Put what changed on disk into the index of `at`. Returns what was left out: path -> why. Raises:
    GitError."""
    changed = [change for change in changes if change.xy[1] != " "]
    gone = {change.path for change in changed if change.xy in (" D", "AD", "MD", "TD")}     # not unmerged
    looked_at = {change.path: unfit(at.cwd, change) for change in changed if change.path not in gone}
    left_out = {path: why for path, why in looked_at.items() if why}
    if gone:
        inside = "".join(path + "\0" for path in gone - _outside(at))
        at("update-index", "--force-remove", "-z", "--stdin", stdin=inside)
    names = [path + "\0" for path in looked_at if path not in left_out]
    if names:
        left_out.update(_take_in_halves(at, names))
    return left_out


def _outside(at: At) -> Set[str]:
    """The files that a sparse checkout leaves away on purpose, as the index of the checkout itself has it."""
    if at.run("config", "--type=bool", "core.sparseCheckout", allowed=(0, 1)).out.strip() != "true":
        return set()
    listed = at.also(GIT_INDEX_FILE=os.path.join(at.git_dir, "index"))("ls-files", "-t", "-z")
    return {row[2:] for row in listed.split("\0") if row.startswith("S ")}


def _take_in_halves(at: At, names: Sequence[str]) -> Dict[str, str]:
    """One file that git cannot take makes it refuse all that come with it: halve them until it stands alone.
    Returns also the names that git passes over without an error, such as `.Git/x`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(at.index + ".lock")       # of a git that was killed over it, for want of memory or time
    try:
        words = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
        said = at.run(*words, stdin="".join(names)).err
        return dict.fromkeys(re.findall("(?m)^Ignoring path (.*)$", said), "git takes no file of this name")
    except GitError as error:
        over = at.git.give_up is not None and at.git.host.monotonic() >= at.git.give_up
        if over or error.why.startswith("fatal: gave up"):
            raise                           # it is not one file, it is the time
        if len(names) == 1:
            return {names[0][:-1]: error.why}
        middle = len(names) // 2
        return {**_take_in_halves(at, names[:middle]), **_take_in_halves(at, names[middle:])}


def _hollow(at: At, tree: Worktree) -> List[str]:
    """The submodules that are not checked out and have files in their place, where git never looks."""
    if not os.path.lexists(os.path.join(at.cwd, ".gitmodules")):    # a look costs as much as all the rest
        return []
    listed = at("ls-files", "--stage", "-z")
    paths = set(re.findall(r"(?:\A|\0)160000 [^\t]*\t([^\0]+)", listed)) - set(tree.submodules)
    return sorted(path for path in paths if any(next(os.walk(os.path.join(at.cwd, path)), ("", [], []))[1:]))


def mark_of(top: str, name: str) -> str:
    """What stays of a file when it is renamed; no name begins like this. Empty when it is gone."""
    try:
        there = os.lstat(os.path.join(top, name))
    except OSError:
        return ""
    return f"//{there.st_ino}/{there.st_size}/{there.st_mtime_ns}"


def is_secret(top: str, change: Change, copied: Set[str]) -> bool:
    """Whether this is a file that was copied as an ignored one, also renamed. `copied`: names and marks."""
    named = change.xy == "??" and change.path in copied
    return bool(copied) and (named or mark_of(top, change.path) in copied)


def unfit(top: str, change: Change) -> str:
    """Why a snapshot cannot take this change; empty when it can."""
    if change.path.endswith("/"):
        return "a repository of its own"
    try:
        there = os.lstat(os.path.join(top, change.path))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or "cannot be read"
    if stat.S_ISDIR(there.st_mode):
        return "commits in a submodule"
    if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
        return "no ordinary file"
    if stat.S_ISLNK(there.st_mode) and leads_out(top, change.path):
        # merged, it could take the place of an ignored directory of the user's
        return "a link that leads out of the tree"
    return f"over {SNAPSHOT_FILE_BYTES >> 20} MiB" if there.st_size > SNAPSHOT_FILE_BYTES else ""


def copied_into(git_dir: str) -> Set[str]:
    """The names of the files that were copied into a worktree of ours, and their marks."""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(git_dir, COPIED), "rb") as f:
        return set(os.fsdecode(f.read()).split("\0")) - {""}
    return set()


def check_name(at: At, name: str) -> None:
    """Raises: GitError where another branch, born or unborn, keeps one of this name from being made."""
    names = (name, *directories_above(name))
    refs = (f"refs/heads/{one}" for one in names)
    rows = at("for-each-ref", "--format=branch %(refname)", *refs).split("\n")
    rows += at("worktree", "list", "--porcelain").split("\n")
    branches = [row.split("refs/heads/", 1)[1] for row in rows if row.startswith("branch refs/heads/")]
    taken = [branch for branch in branches if branch in names or branch.startswith(name + "/")]
    if taken:
        raise GitError(f"No branch `{clip(name, 100)}` can be made",
                       f"There is a branch `{taken[0]}` already, and git takes only one of the two",
                       f"Pass another name, or rename that: `git branch -m {taken[0]} OTHER-NAME`")


class Trees:
    """Makes worktrees, and takes back what it made. Of the checkout that they are made from it only reads,
    and it never uses the network."""

    def __init__(self, git: Git) -> None:
        self.git = git

    def add(self, top: str, base: str, path: str, branch: str, carry: bool = False,
            again: bool = False) -> Worktree:
        """A new locked worktree at `path` on the new `branch`, from the commit `base`; with `carry`, on top
        of it a commit of everything that is not committed in `top`. `again`: the branch may be there already,
        at `base`. Blocks while another one is made in that repository.

        Raises: GitError, OSError; nothing is left then."""
        at, mine, new = self.git.at(top), "", ""
        try:
            with self._alone(top):
                mine = "" if os.path.lexists(path) else path
                if not (again and at.commit_of(f"refs/heads/{branch}") == base):
                    self._make_branch(at, branch, base)
                    new = branch
                at("worktree", "add", "--quiet", "--no-checkout", path, branch)
                mine = path
                tree = Worktree(path, branch, base, leads_to(path, ".git"))
                if not tree.git_dir:
                    raise OSError(errno.ENOENT, "Somebody deletes it while it is made", path)
                hold(tree)
            tree = self._carry(at, tree) if carry else tree
            words = ("reset", "--hard", "--quiet", "--no-recurse-submodules", tree.start)
            self.git.at(path).run(*words, limit_s=CHECKOUT_S)
            copy_file(os.path.join(tree.git_dir, "index"), os.path.join(tree.git_dir, OWN_INDEX))
            tree = self._submodules(at, tree)
            return self._include(at, tree)
        except (GitError, OSError):
            self.discard(top, mine, new)
            raise

    def _alone(self, top: str, limit_s: float = float("inf")) -> ContextManager[None]:
        return self.git.alone(repository_of(top)[0], limit_s)

    @staticmethod
    def _make_branch(at: At, branch: str, base: str) -> None:
        try:
            at("branch", "--no-track", branch, base)
        except GitError:
            check_name(at, branch)
            raise

    @contextlib.contextmanager
    def scratch(self, top: str, commit: str, path: str) -> Iterator[None]:
        """A worktree of the commit at `path`, on no branch, gone afterwards with all that was made in it.
        Raises: GitError."""
        words = ("--quiet", "--detach", "--lock", "--reason", LOCK_REASON, path, commit)
        with self._alone(top):
            self.git.at(top).run("worktree", "add", *words, limit_s=CHECKOUT_S)
        try:
            yield
        finally:
            self.discard(top, path, "")

    def discard(self, top: str, path: str, branch: str) -> None:
        """Remove what was just made, and in which nobody but us can have worked. Blocks while one is made in
        that repository: with its last worktree, git removes the directory in which it registers them. What a
        supervisor cannot remove then is swept when its task has gone."""
        at = self.git.at(top)
        if not (path or branch):
            return
        with contextlib.suppress(ToolError, OSError), self._alone(top, UNLOCK_S):
            if path:
                with contextlib.suppress(GitError):
                    at("worktree", "remove", "--force", "--force", path)
            if branch:
                at("update-ref", "-d", f"refs/heads/{branch}")

    def _carry(self, at: At, tree: Worktree) -> Worktree:
        """`tree` with a commit of what is not committed in the checkout, as it lies there."""
        own, index = self.git.checkout(at("rev-parse", "--absolute-git-dir"), at.cwd), tree.git_dir + "/index"
        found = lying_in_checkout(own.also(GIT_INDEX_FILE=index))
        carried = [change.path for change in found.changes if change.path not in found.left_out]
        os.unlink(index)
        if carried:
            message = f"Uncommitted changes of the checkout, as {tree.branch} began\n"
            baseline = self.git.at(tree.path).commit(found.tree, [tree.base], message)
            tree = tree._replace(baseline=baseline, carried=some(carried))
        missing = with_reasons(found.left_out)
        return tree._replace(unseen={"not_carried": missing} if missing else {})

    def _submodules(self, at: At, tree: Worktree) -> Worktree:
        """Check out the submodules whose commit is in the repository already, each as a clone with hard
        links; never the network."""
        if not os.path.isfile(os.path.join(tree.path, ".gitmodules")):
            return tree
        there, words = self.git.at(tree.path), ("--file", ".gitmodules", "-z", "--get-regexp")
        try:
            rows = there.run("config", *words, r"^submodule\..*\.path$", allowed=(0, 1)).out.split("\0")
        except GitError:                # damaged: then there are none that could be checked out
            return tree
        named = (row.partition("\n") for row in rows if row)
        names = {path: key[len("submodule."):-len(".path")] for key, _, path in named if path}
        only = (f":(literal){path}" for path in names)
        listed = there("ls-files", "--stage", "-z", "--", *only) if names else ""
        done = {}
        for commit, path in re.findall(r"(?:\A|\0)160000 (\S+) \d\t([^\0]+)", listed):
            if self._submodule(at, tree, names.get(path, ""), path, commit):
                done[path] = names[path]
        tree = tree._replace(submodules=done)
        return tree._replace(seal=seal_of(tree))

    def _submodule(self, at: At, tree: Worktree, name: str, path: str, commit: str) -> bool:
        if not re.fullmatch(r"(?!.*\.\.)[^/-][^\0\n]*", name):
            return False
        git_dir = at("rev-parse", "--absolute-git-dir")
        places = (git_dir, leads_to(git_dir, "commondir") or git_dir)
        modules = (os.path.join(place, "modules", name) for place in places)
        plain = lambda module: not os.path.lexists(os.path.join(module, "commondir")) and \
            {*self.git.odd_settings(module, module)} <= {"core.worktree"}       # else git may run a program
        sources = (self.git.at(module, GIT_DIR=module) for module in modules
                   if os.path.isdir(module) and plain(module))
        source = next((source for source in sources if source.commit_of(commit)), None)
        if source is None:
            return False
        own, there = os.path.join(tree.git_dir, "modules", name), os.path.join(tree.path, path)
        os.makedirs(os.path.dirname(own), exist_ok=True)
        words = ("--quiet", "--local", "--no-checkout", "--template=", "--separate-git-dir", own)
        self.git.at(tree.path, GIT_ALLOW_PROTOCOL="file")("clone", *words, "--", source.cwd, there)
        inside = self.git.at(there, GIT_DIR=own, GIT_WORK_TREE=there, GIT_ALLOW_PROTOCOL="file")
        url = source.run("config", "remote.origin.url", allowed=(0, 1)).out.strip()
        if url:
            inside("config", "remote.origin.url", url)
        inside("checkout", "--quiet", "--detach", commit)
        return True

    def _include(self, at: At, tree: Worktree) -> Worktree:
        """Copy the ignored files that `.worktreeinclude` of the checkout names, and note what it has besides
        that the task does not see."""
        names: List[str] = []
        if os.path.isfile(os.path.join(at.cwd, ".worktreeinclude")):
            named = at("ls-files", "--others", "--ignored", "--exclude-from=.worktreeinclude", "-z")
            check = ("check-ignore", "-z", "--stdin")
            names = at.run(*check, stdin=named, allowed=(0, 1)).out.split("\0")[:-1] if named else []
        repository = dict.fromkeys((name for name in names if name.endswith("/")), "a repository of its own")
        said = {name: repository.get(name) or copy_into(at.cwd, tree.path, name) for name in names}
        copied = [name for name, why in said.items() if not why]
        with open(os.path.join(tree.git_dir, COPIED), "wb", opener=private) as f:
            f.write(os.fsencode("".join(f"{name}\0{mark_of(tree.path, name)}\0" for name in copied)))
        not_copied = with_reasons({name: why for name, why in said.items() if why})
        unseen = {**tree.unseen, **self._unseen(at, tree, copied), "not_copied": not_copied}
        unseen = {kind: found for kind, found in unseen.items() if found}
        return tree._replace(copied=some(copied), unseen=unseen)

    @staticmethod
    def _unseen(at: At, tree: Worktree, copied: Sequence[str]) -> Dict[str, Any]:
        """What the checkout has that the task does not see; an ignored directory counts as one."""
        found, _ = at.changes("--untracked-files=normal", "--ignored=traditional", "--ignore-submodules=all")
        there = {*copied, *(above + "/" for name in copied for above in directories_above(name))}
        kinds: Dict[str, List[str]] = {"changed": [], "untracked": [], "ignored": []}
        for change in found:
            kind = {"!!": "ignored", "??": "untracked"}.get(change.xy, "changed")
            if not (tree.carried if kind != "ignored" else change.path in there):
                kinds[kind].append(change.path)
        return {kind: some(names) for kind, names in kinds.items()}


def make_inside(tree: Worktree, cwd: str) -> None:
    """The directory of a new worktree in which its task works: it may hold nothing that is committed. Raises:
    ToolError."""
    try:
        os.makedirs(cwd, exist_ok=True)
        if not is_inside(cwd, tree.path):
            raise OSError(errno.ELOOP, "it leads out of the worktree")
    except OSError as error:
        raise ToolError(f"`cwd`: {os.path.relpath(cwd, tree.path)} has no counterpart in the worktree",
                        f"In the base commit it is no directory: {error.strerror}",
                        "Commit the directory, pass another `cwd`, or leave `worktree` out")


def locked_for(git_dir: str) -> Optional[str]:
    """The reason of the lock of a worktree, None when it is not locked. Raises: OSError."""
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(git_dir, "locked"), encoding="utf-8", errors="replace", opener=private) as f:
            return f.read().strip()
    return None


def hold(tree: Worktree) -> None:
    """Lock the worktree while a task runs in it, as git does; the lock appears whole. One of somebody else's
    serves as well. Raises: OSError. Source: gitrepository-layout(5)."""
    lock = os.path.join(tree.git_dir, "locked")
    whole = f"{lock}.{os.urandom(4).hex()}"
    try:
        with open(whole, "x") as f:
            f.write(f"{LOCK_REASON}\n")
        try:
            os.link(whole, lock)                # unlike rename it fails where there is one already
        except OSError:
            if not os.path.lexists(lock):       # a file system without links
                os.rename(whole, lock)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(whole)


def release(tree: Worktree) -> None:
    """Undo `hold`, and only that."""
    with contextlib.suppress(OSError):
        if locked_for(tree.git_dir) == LOCK_REASON:
            os.unlink(os.path.join(tree.git_dir, "locked"))


def seal_of(tree: Worktree) -> Optional[str]:
    """What changes when anybody works in the submodules; None without any. Of git's objects, which are linked
    from elsewhere, and of an index, which a mere look may write, the names only; of other files what stat
    says. Raises: OSError."""
    import hashlib
    modules, rows = os.path.join(tree.git_dir, "modules"), []
    checkouts = [os.path.join(tree.path, path) for path in tree.submodules]
    for top in (modules, *checkouts) if os.path.isdir(modules) else ():
        paths = [os.path.join(at, name) for at, inside, files in os.walk(top) for name in (*inside, *files)]
        full = lambda path: os.path.isdir(path) and not os.path.islink(path) and os.listdir(path)
        for path in sorted(itertools.filterfalse(full, paths)):
            of, name = os.lstat(path), os.path.relpath(path, top)
            bare = top == modules and re.search(r"/(index|objects/(..|pack|info)/[^/]+)$", name)
            said = "" if bare else f"/{of.st_ino}/{of.st_size}/{of.st_mtime_ns}/{of.st_ctime_ns}"
            rows.append(name + said)
    return hashlib.sha1(os.fsencode("\0".join(rows))).hexdigest() if rows else None


def end_update(git: Git, tree: Worktree) -> None:
    """Take back what an update wrote that failed, or over which a server was killed: before a task goes on
    there, and before a snapshot, which would count it as the task's own. Raises: GitError, OSError."""
    begun, lock = (os.path.join(tree.git_dir, name) for name in (UPDATE, "index.lock"))
    if not os.path.exists(begun):
        return
    at = git.checkout(tree.git_dir, tree.path)
    with git.alone(common_of(tree)):
        if not os.path.exists(begun):           # another one did it meanwhile
            return
        new, head = read_json(begun)["commit"], at.commit_of("HEAD")
        if head != new:
            pid = git.host.worker_in(tree.path) if os.path.exists(lock) else None
            if pid is not None:
                raise GitError(f"An update of {tree.path} was cut off",
                               f"A process still works there (pid {pid})", "Call again when it has ended")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lock)                 # of a git that was killed
            _take_back(at, head or "", new)
        os.unlink(begun)


def _take_back(at: At, old: str, new: str) -> None:
    """What git had written of the commit `new`, where `old` was, goes again. git itself does that, so what
    somebody has changed meanwhile stays. Raises: GitError."""
    at("read-tree", "--reset", new)
    at.run("update-index", "-q", "--refresh", allowed=(0, 1))
    differs = at("diff-files", "-z", "--name-only").split("\0")
    written = [row for row in at.changed(old, new) if row.status != "D" and row.path not in differs]
    at("read-tree", "--reset", old)
    rows = "".join(f"{row.mode} {row.blob}\t{row.path}\0" for row in written)
    at("update-index", "--replace", "-z", "--index-info", stdin=rows)
    at.run("update-index", "-q", "--refresh", allowed=(0, 1))
    at.run("read-tree", "-m", "-u", at("write-tree", "--missing-ok"), old, limit_s=CHECKOUT_S)
    unlinked = ("checkout-index", "--quiet", "--all")
    at.run(*unlinked, allowed=(0, 1), limit_s=CHECKOUT_S)


class Standing(NamedTuple):
    """Where a worktree stands."""
    commit: str                             # of its HEAD, or what comes next to that
    tip: Optional[str]                      # the commit of its branch
    tree: str                               # the tree object of `commit`


class Snapshot:
    """Commits everything that is not ignored in a worktree of ours onto the task's branch, on top of wherever
    the task left its HEAD. The task's own index, commits and branches stay as they are.

    git never looks into a repository below the tree: looking runs the filters which that one's own
    configuration names, and a task writes that from inside its sandbox.
    """

    def __init__(self, git: Git, tree: Worktree) -> None:
        self.git, self.tree, self.at = git, tree, git.checkout(tree.git_dir, tree.path)
        self.branch = f"refs/heads/{tree.branch}"

    def take(self, message: str) -> Tuple[Worktree, List[str]]:
        """The worktree with its facts, and warnings; no change is no error. Raises: GitError, OSError."""
        tree, at = self.tree, self.at
        end_update(self.git, tree)
        head, tip, from_tree = self.standing()
        on = self.branch if text_in(f"{tree.git_dir}/HEAD") == f"ref: {self.branch}\n" else at.branch()
        parents = [head]
        if tip and not at.contains(head, tip):
            parents.append(tip)
        # the look keeps what it compared (GIT_OPTIONAL_LOCKS), or the next command would again
        scratch = at.also(GIT_INDEX_FILE=os.path.join(tree.git_dir, OWN_INDEX), GIT_OPTIONAL_LOCKS="1")
        found, new = lying_in_worktree(scratch, tree, from_tree), head
        if len(parents) > 1 or found.tree != from_tree:
            new = at.commit(found.tree, parents, message)
        clean = at.nothing_staged()
        if new != tip:
            # from outside: in the worktree git would lock its HEAD, too, which a killed git may have done
            outside, why = at.also(GIT_DIR=common_of(tree)), "codex-mcp-swarm: snapshot"
            outside("update-ref", "-m", why, self.branch, new, tip or "0" * len(new))
        if clean and new != parents[0] and on == self.branch:
            # or `git status` there would show the snapshot as undone; an index that is locked is not ours
            with contextlib.suppress(GitError):
                at("read-tree", "-i", "-m", new)
        named = with_reasons(found.left_out)
        self.tree = tree._replace(head=new, left_out=named, ignored=some(found.ignored))
        warnings = [f"Not on the branch, only in `{tree.path}`: {in_words(named)}"] if named else []
        warnings += [f"git passed over something in `{tree.path}`: {clip(line, 200)}"
                     for line in dict.fromkeys(found.unread)]
        try:
            past = History(at, *parents, since=tree.start)
            if new not in parents:
                past.add([new, *parents])
            rows, state = self._measure(new, past), self._state(on, parents)
            warnings += [*state, *self._markers(new, past, rows, clean), *self._submodules()]
        except GitError as error:               # the work is safe by now
            warnings.append(f"Committed, but not all could be told about it: {error.what}: {error.why}")
        return self.tree, warnings

    def lying(self, aside: At) -> Lying:
        """What a snapshot would take now; writes nothing but to `aside`. Raises: GitError, OSError."""
        return lying_in_worktree(self.at.beside(aside), self.tree, self.standing().tree)

    def standing(self) -> Standing:
        """Raises: GitError."""
        names = ("HEAD^{commit}", self.branch + "^{commit}", "HEAD^{tree}", "HEAD^{commit}")
        head, tip, tree, still = self.at.find(*names)
        commit = head or tip or self.tree.start
        if not tree or not head or still != head:   # HEAD names a tree, or moved between two answers
            tree = self.at.tree_of(commit)
        return Standing(commit, tip, tree)

    def _measure(self, head: str, past: "History") -> Sequence[Changed]:
        """Note what lies between the start and this head. Returns the files that differ."""
        rows = self.at.changed(self.tree.start, head)
        self.tree = self.tree._replace(
            **counts_of(rows), commits=len(past.since([head], self.tree.start)),
            files=tuple(legible(row.path) for row in rows[:FILES_KEPT]))
        return rows

    # What whoever takes over the branch should know of the state that the task left:
    def _state(self, on: str, parents: Sequence[str]) -> Iterator[str]:
        branch = self.tree.branch
        if on != self.branch:
            left = f"`{on[len('refs/heads/'):]}`" if on else "a detached HEAD"
            yield f"The task left {left} checked out; what it did is on `{branch}` all the same"
        if len(parents) > 1:
            yield (f"The task left commits of `{branch}` behind: {parents[1][:12]} is a second parent there, "
                   "its changes are not in the files")
        yield from (f"The task left a {word} unfinished" for word in unfinished(self.tree.git_dir))

    def _markers(self, head: str, past: "History", rows: Sequence[Changed], clean: bool) -> Iterator[str]:
        listed = [] if clean else self.at("ls-files", "--unmerged", "-z").split("\0")[:-1]
        unmerged = sorted({row.partition("\t")[2] for row in listed})
        if unmerged:
            yield f"Unmerged, with conflict markers as they are: {in_words(some(unmerged))}"
        blobs = blobs_of(rows)
        if not (past.updates or LIST in blobs or _marked(self.at, blobs, f"^<<<<<<< |{LEFT}")):
            return
        left = undecided(self.at, rows, past, self.tree.start, [head])
        if left:
            where = in_words(some(left))
            yield f"Not decided yet, and not merged until it is: what `update_from` left in {where}"
        marked = sorted(_marked(self.at, blobs, "^<<<<<<< ", "^>>>>>>> ") - {*unmerged, *left})
        if marked:
            yield f"Conflict markers are left in {in_words(some(marked))}"

    def _submodules(self) -> Iterator[str]:
        for path, name in self.tree.submodules.items():
            own, there = os.path.join(self.tree.git_dir, "modules", name), os.path.join(self.tree.path, path)
            with contextlib.suppress(GitError):
                at = self.git.at(self.tree.path, GIT_DIR=own, GIT_WORK_TREE=there)
                if at.changes("--untracked-files=all")[0]:
                    yield (f"Changes inside the submodule `{path}` are not on the branch, "
                           f"only in `{self.tree.path}`")


class History:
    """How the commits of these tips hang together, read once. What is not in here, all of them stand on."""

    def __init__(self, at: At, *commits: str, since: str = "") -> None:
        """`since`: only what came after this commit. Raises: GitError."""
        tips = {*commits, since} - {""}
        apart = ["...".join(tips)]              # of two: what both have is left out
        if since:
            apart = [*commits, "--not", since]
        elif len(tips) > 2:
            shared = at.run("merge-base", "--octopus", "--all", *tips, allowed=(0, 1)).out.split()
            apart = [*tips, "--not", *shared]
        form = "--format=%x00%H %P%x09%(trailers:key=Codex-Head,valueonly,separator=%x20)"
        self.tips = tips
        self.parents: Dict[str, Sequence[str]] = {}
        self.squashes: Dict[str, Sequence[str]] = {}        # commit -> what it brought; the oldest first
        listed = at("rev-list", form, *apart) if len(tips) > 1 else ""
        for one in reversed(listed.split("\0")[1:]):
            hashes, _, heads = one.partition("\n")[0].partition("\t")
            self.add(hashes.split(), heads.split())
        brought, words = "\n".join(self.squashes), ("rev-list", "--no-walk", "--grep=^conflict: ", "--stdin")
        self.updates = {*at(*words, stdin=brought).split()} if brought else set()   # made with conflicts

    def add(self, commits: Sequence[str], heads: Sequence[str] = ()) -> None:
        """A commit and its parents, and the heads whose work it brought squashed."""
        self.parents[commits[0]] = commits[1:]
        if heads:
            self.squashes[commits[0]] = heads

    def below(self, commit: str) -> Set[str]:
        """It, and all in here that led to it."""
        found, left = set(), [commit]       # type: Set[str], List[str]
        while left:
            one = left.pop()
            if one in self.parents and one not in found:
                found.add(one)
                left += self.parents[one]
        return found

    def contains(self, new: str, old: str) -> bool:
        return old not in self.parents or old in self.below(new)

    def since(self, heads: Iterable[str], *beyond: str) -> Set[str]:
        """What led to these heads and not to the others."""
        return set().union(*map(self.below, heads)).difference(*map(self.below, beyond))

    def squashed(self, within: str, *beyond: str) -> List[str]:
        """The heads whose work came squashed to `within` and not to the others, the newest first."""
        there = self.since([within], *beyond) if self.squashes else ()
        return [head for commit in reversed(list(self.squashes)) if commit in there
                for head in self.squashes[commit]]


class Step(NamedTuple):
    """What comes of one part on top of a commit."""
    commit: str                             # what is there then; empty for one that is still to be made
    tree: str = ""                          # ... of this tree
    squash: bool = False                    # ... with one parent
    conflicts: Sequence[Conflict] = ()


class Desk:
    """Where git merges aside. It makes objects, moves no ref and writes in no checkout: its work tree holds
    nothing but the .gitattributes of what is merged into, as in a checkout, and a merge driver of the user's
    configuration runs in there."""

    def __init__(self, at: At, squash: bool) -> None:
        self.at, self.squash = at, squash       # squash: each part comes as one commit
        self.history: Optional[History] = None
        self.commit = ""                        # whose .gitattributes lie there; none yet
        self.tried: Dict[Tuple[str, Part], Step] = {}       # what was tried here already
        self.trees: Dict[str, str] = {}         # commit -> its tree object, where that is known
        self.squashed: Dict[str, Part] = {}     # commit -> of which it has no more than what counts

    @classmethod
    @contextlib.contextmanager
    def beside(cls, at: At, squash: bool = False) -> Iterator["Desk"]:
        """A desk for that repository, gone afterwards. Raises: GitError, OSError."""
        with at.git.scratch() as there:
            own = {"GIT_WORK_TREE": there, "GIT_INDEX_FILE": os.path.join(there, "index")}
            yield cls(At(at.git, there, {**at.env, **own}), squash)

    def merge(self, onto: str, parts: Sequence[Part]) -> Merged:
        """Bring the parts together in their order on top of the commit `onto`; one that conflicts is left
        out. Raises: GitError."""
        commits, done, conflicts = [onto], [], {}  # type: List[str], List[str], Dict[str, Sequence[Conflict]]
        self.past(onto, parts)
        for part in parts:
            step = self.steps(commits[-1], [part])[0]
            if step.conflicts:
                conflicts[part.task_id] = step.conflicts
            else:
                commits.append(self._made(commits[-1], part, step))
                done.append(part.task_id)
        return Merged(commits, tuple(done), conflicts)

    def steps(self, at: str, parts: Sequence[Part]) -> List[Step]:
        """What comes of each of the parts, alone on top of the commit `at`: one process of git's tries them
        all. Raises: GitError."""
        new = [part for part in parts if (at, part) not in self.tried]
        past, to_try = self.past(at, new), {}       # type: History, Dict[Part, Part]
        for part in new:
            ahead = past.contains(part.head, at)
            if past.contains(at, part.head) or self._came_along(past, at, part):
                self.tried[at, part] = Step(at)
            elif ahead and not (self.squash or part.squashed):
                self.tried[at, part] = Step(part.head)
            else:
                to_try[part] = part if ahead else self._beyond_squashes(past, at, part)
        answers = self._ask(at, list(to_try.values()), "zdiff3")
        for (part, theirs), (tree, conflicts) in zip(to_try.items(), answers):
            self.tried[at, part] = Step("", tree, self.squash or theirs.squashed, conflicts)
        return [self.tried[at, part] for part in parts]

    def past(self, at: str, parts: Sequence[Part]) -> History:
        tips = {at, *(commit for part in parts for commit in (part.head, part.start))}
        past = self.history
        if past is None or not tips.issubset({*past.tips, *past.parents}):
            self.history = past = History(self.at, *tips, *(past.tips if past else ()))
        return past

    def _made(self, at: str, part: Part, step: Step) -> str:
        """The commit that has `part` on top of `at`."""
        if step.commit:
            return step.commit
        if step.squash and at not in self.trees:
            self.trees[at] = self.at.tree_of(at)
        commit = at
        if not step.squash or step.tree != self.trees[at]:
            message, parents = f"Merge {part.name}: {part.title}\n", [at, part.head]
            if step.squash:
                message = f"{part.title}\n\nCodex-Task: {part.task_id}\nCodex-Head: {part.head}\n"
                parents = [at]
            commit = self.at.commit(step.tree, parents, message)
            self.trees[commit] = step.tree
            if part.squashed:
                self.squashed[commit] = part
            elif step.squash:                   # then all that led to its head is in there, too
                parents.append(part.head)
            self.past(at, [part]).add([commit, *parents], [part.head] * step.squash)
        self.tried[at, part] = step._replace(commit=commit)
        return commit

    def _came_along(self, past: History, at: str, part: Part) -> bool:
        """Whether `at` has `part` with another one of the same chain."""
        there = past.below(at)
        return any(past.contains(one.head, part.head) and past.contains(part.start, one.start)
                   for commit, one in self.squashed.items() if commit in there)

    def _beyond_squashes(self, past: History, at: str, part: Part) -> Part:
        """`part` without what an earlier squash has brought to `at` already: no parent tells of that, its
        message does."""
        brought = past.squashed(at, part.start, part.head)
        known = past.below(part.head).union(past.squashed(part.head, part.start)) if brought else set()
        for head in brought:
            if re.fullmatch("[0-9a-f]{40,64}", head) and head in known \
                    and (head in past.parents or self.at.commit_of(head)):
                return part._replace(start=head, squashed=True)
        return part

    def united(self, at: str, part: Part) -> Tuple[str, List[Conflict]]:
        """(tree object, conflicts) of a merge; where there are conflicts the files hold both versions between
        markers. Raises: GitError."""
        return self._ask(at, [part], "merge")[0]

    def _ask(self, at: str, parts: Sequence[Part], style: str) -> List[Tuple[str, List[Conflict]]]:
        """The same for each of the parts. Raises: GitError."""
        if len(parts) > MERGES_AT_ONCE:
            rest = parts[MERGES_AT_ONCE:]
            return self._ask(at, parts[:MERGES_AT_ONCE], style) + self._ask(at, rest, style)
        if parts and self.commit != at:
            self._lay_out(at)
        answers = self._answers([self._sides(at, part) for part in parts], parts, style)
        blobs = [f"{tree}:{path}" for tree, kinds in answers for path in kinds]
        texts = iter(self.at.contents(blobs, "-z"))
        found = [(tree, [_conflict(path, kind, next(texts) or "") for path, kind in kinds.items()])
                 for tree, kinds in answers]
        return [(tree, list({one.path: one for one in conflicts}.values())) for tree, conflicts in found]

    def _sides(self, at: str, part: Part) -> Tuple[str, str]:
        """The names of what is to be merged. Source: gitrevisions(7), `<describeOutput>`: such a name leads
        to its commit, and git writes it behind the markers."""
        ours, theirs = at, part.head
        if part.squashed:        # as if the task had begun with a commit of its own that both sides share
            start, *trees = (f"{commit}^{{tree}}" for commit in (part.start, ours, theirs))
            base = self.at.commit(start, [], "base")
            ours, theirs = (self.at.commit(tree, [base], "side") for tree in trees)
        return f"{MARK}before-0-g{ours}", f"{MARK}{label_of(part)}-0-g{theirs}"

    def _answers(self, sides: Sequence[Tuple[str, str]], parts: Sequence[Part],
                 style: str) -> List[Tuple[str, Dict[str, str]]]:
        """What git says of each merge, in one process where it can: 2.38 cannot, and where one merge is
        impossible or hangs, none is told of. Source: git-merge-tree(1), sections OUTPUT and INPUT FORMAT."""
        words = ("-c", f"merge.conflictStyle={style}", "merge-tree", "--write-tree", "-z")
        if len(sides) > 1:
            asked = "".join(f"{ours} {theirs}\n" for ours, theirs in sides)
            with contextlib.suppress(GitError):
                return answers_in(self.at.run(*words, "--stdin", stdin=asked).out)
        found = []
        for both, part in zip(sides, parts):
            try:
                done = self.at.run(*words, *both, allowed=(0, 1))
            except GitError as error:
                raise self._not_merged(part, error)
            found += answers_in(f"{1 - done.code}\0{done.out}\0")
        return found

    def _not_merged(self, part: Part, error: GitError) -> GitError:
        with contextlib.suppress(GitError):             # git's time may be up
            version = version_of(self.at)
            if version < MERGES_SINCE:
                return GitError("Merging needs git 2.38 or newer", f"The server has git {dotted(version)}",
                                "Update git, or see the changes with codex_diff and run `git merge` by hand")
        return GitError(f"git cannot merge {part.name} at all", error.why,
                        "Leave it out, and see what it did with codex_diff")

    def _lay_out(self, commit: str) -> None:
        """Bring the .gitattributes on the desk to those of the commit. Raises: GitError."""
        self.commit = commit
        words = ("restore", f"--source={commit}", "--staged", "--worktree", ":(glob)**/.gitattributes")
        self.at.run(*words, allowed=(0, 1))             # 1: there is none, and none was

    def with_list(self, written: str, conflicts: Sequence[Conflict], part: Part) -> str:
        """The tree with a file that tells of conflicts which leave no markers: it is not merged until the
        task has decided, and removed that. Files that git moved out of the way get readable names."""
        if not conflicts:
            return written
        text = (f"{LISTED}: one side's version was kept, or both,\n"
                f"under names that end in `~` and the side. Decide on each (`git show {part.head}:PATH`\n"
                f"is that of {part.name}), then remove this file.\n\n")
        text += "".join(f"- {conflict.path} ({conflict.kind})\n" for conflict in conflicts)
        self.at("read-tree", written)
        blob = self.at("hash-object", "-w", "--stdin", stdin=text)
        entries = [f"100644 {blob} 0\t{LIST}"]
        for row in self.at("ls-files", "--stage", "-z").split("\0"):
            if f"~{MARK}" in row:
                entries += [f"0 {'0' * len(blob)} 0\t{row.partition(chr(9))[2]}", readable(row)]
        self.at("update-index", "-z", "--index-info", stdin="\0".join([*entries, ""]))
        return self.at("write-tree")


def answers_in(out: str) -> List[Tuple[str, Dict[str, str]]]:
    """(tree object, path -> kind of conflict) for each merge in the output of `git merge-tree --stdin`."""
    words, found = iter(out.split("\0")), []    # type: Iterator[str], List[Tuple[str, Dict[str, str]]]
    for clean in iter(lambda: next(words), ""):
        tree, rows = next(words), list(iter(lambda: next(words), ""))
        kinds = dict.fromkeys((row.partition("\t")[2] for row in rows), "conflict")
        while clean == "0":
            count = next(words).strip("\n")
            if not count:
                break
            paths = [next(words) for _ in range(int(count))]
            kind, _ = next(words), next(words)          # the latter: the same as a sentence
            if kind.startswith("CONFLICT"):
                kinds.update(dict.fromkeys(paths, kind[len("CONFLICT ("):-1]))
        found.append((tree, kinds))
    return found


def label_of(part: Part) -> str:
    """What stands behind the markers of its side."""
    return re.sub("[^0-9A-Za-z.]+", "-", part.name).strip("-")


def readable(text: str) -> str:
    """With the names that a user knows in the place of those that git needs."""
    return re.sub(f"{MARK}([0-9A-Za-z.-]*)-0-g[0-9a-f]+", r"\1", text)


def _conflict(path: str, kind: str, text: str) -> Conflict:
    name = legible(re.sub(f"~{LABEL}(_[0-9]+)?", "", path))     # of a side that git moved out of the way
    if "\0" in text[:8000]:                                     # git's own test
        return Conflict(name, "binary")
    hunks: List[Mapping[str, Any]] = []
    begun, lines = 0, legible(text).split("\n")         # begun: the number of the line that opened the hunk
    for number, line in enumerate(lines, 1):
        if re.match(f"<+ {MARK}", line):
            begun = number
        elif begun and re.match(f">+ {MARK}", line):
            hunk = re.sub(BASE, r"\1 base", "\n".join(map(readable, lines[begun - 1:number])), count=1)
            hunks, begun = hunks + [{"line": begun, "text": clip_middle(hunk, HUNK_CHARS)}], 0
    return Conflict(name, kind, tuple(hunks[:HUNKS_SHOWN]), max(0, len(hunks) - HUNKS_SHOWN))


def undecided(at: At, rows: Sequence[Changed], past: History, since: str, heads: Sequence[str]) -> List[str]:
    """Those of the files in which a conflict still stands that an `update_from` left after the commit
    `since`: with a label that this one has nowhere, or as the update's own commit, in one of `heads`, has it.
    `past`: of all these. Raises: GitError."""
    blobs = blobs_of(rows)
    found, marked = {LIST} & set(blobs), sorted(_marked(at, blobs, LEFT))
    before = at.run("grep", "-ahoE", LEFT, since, "--", allowed=(0, 1)).out.split("\n") if marked else []
    for path, text in zip(marked, at.contents([blobs[path] for path in marked])):
        if not set(before).issuperset(re.findall(LEFT, text or "")):
            found.add(path)
    for update in past.updates & past.since(heads, since):
        then = blobs_of(at.changed(update + "^1", update))
        both = sorted((_marked(at, then, LABEL) & set(blobs)) - found)
        wrote, now = (at.contents([side[path] for path in both]) for side in (then, blobs))
        found |= {path for path, old, new in zip(both, wrote, now) if is_undecided(old or "", new or "")}
    return sorted(found)


def _marked(at: At, blobs: Mapping[str, str], *lines: str) -> Set[str]:
    """Those that hold such lines, of each a match. Named by blob: by path, git would compare each one with
    all the tree."""
    found: Set[str] = set()
    like = (word for line in lines for word in ("-e", line))
    words = ("grep", "--no-color", "--extended-regexp", "-l", "-z", "-a", "--all-match", *like)
    names = list(blobs.values())
    for some_of in (names[start:start + 5000] for start in range(0, len(names), 5000)):
        done = at.run("-c", "core.warnAmbiguousRefs=false", *words, *some_of, "--", allowed=(0, 1))
        found |= set(done.out.split("\0"))
    return {path for path, blob in blobs.items() if blob in found}


def is_undecided(then: str, now: str) -> bool:
    """Whether of the conflicts that git left in `then`, between markers of ours, one still stands in `now`: a
    marker, indented or under another label, or a separator with what was on both sides. What was no marker
    then is none now."""
    old, new = ("\n" + "\n".join(line.strip() for line in text.split("\n")) + "\n" for text in (then, now))
    found = re.search(f"\n(<+) {LABEL}\n", old)
    if found is None:
        return False
    width = len(found[1])

    def without_markers(conflict: "re.Match[str]") -> str:
        marked, count = re.subn(f"(?m)^={{{width}}}$", "\0", conflict[1])
        return marked if count == 1 else conflict[1]        # else nobody can tell which one is git's
    was = re.sub(f"(?s)(?<=\n)<+ {LABEL}\n(.*?\n)>+ {LABEL}\n", without_markers, old)
    added = collections.Counter(new.split("\n")) - collections.Counter(was.split("\n"))
    if any(re.match(f"(<{{{width}}}|>{{{width}}})( |$)", line) for line in added):
        return True
    apart = (f"\n{one}\n{'=' * width}\n{other}\n" for one, other in re.findall("\n(.*)\n\0(?=\n(.*)\n)", was))
    return any(new.count(lines) > was.count(lines) for lines in apart)


def blobs_of(rows: Sequence[Changed]) -> Dict[str, str]:
    """The blobs of the files among them."""
    return {row.path: row.blob for row in rows if row.mode.startswith("100")}


def counts_of(rows: Sequence[Changed]) -> Dict[str, Any]:
    """How many they are, and of how many lines."""
    return {"files_changed": len(rows), "insertions": sum(row.insertions or 0 for row in rows),
            "deletions": sum(row.deletions or 0 for row in rows)}


def fast_forward(at: At, branch: str, commit: str) -> None:
    """Move the branch that is checked out there forward, with index and files. git overwrites nothing that is
    not committed; what the user set for merges into it does not bend this. Raises: GitError."""
    words = ("--ff-only", "--no-overwrite-ignore", "--no-autostash", "--no-verify-signatures", "--no-stat",
             "--quiet")
    plain = at.setting(f"branch.{branch}.mergeOptions", "")
    plain.run("merge", *words, commit, limit_s=CHECKOUT_S)


def update_worktree(git: Git, tree: Worktree, part: Part) -> Tuple[str, List[str]]:
    """Merge other work into the worktree of a task that is to go on: files, index and branch. What lies there
    is committed first, and where git fails or we are killed over it, it is taken back. Where both changed the
    same, the files hold both versions between markers, for the task to unite. Returns the commit that is
    there now, and the files with conflicts. Raises: GitError, OSError."""
    at, stays = git.checkout(tree.git_dir, tree.path), f"{tree.path} cannot be updated"
    head = Snapshot(git, tree).take("What lay in the worktree before an update")[0].head or ""
    if at.branch() != f"refs/heads/{tree.branch}" or not at.nothing_staged():
        raise GitError(stays, f"The task left something else than `{tree.branch}` checked out, or changes"
                       " staged", "Reply without `update_from`, and let the task put that in order")
    past = History(at, head, since=tree.start)
    left = undecided(at, at.changed(tree.start, head), past, tree.start, [head])
    if left:
        raise GitError(stays, f"Conflicts of an earlier `update_from` still stand in {in_words(some(left))}",
                       "Reply without one, and let the task unite them")
    with Desk.beside(at) as desk:
        written, found = desk.united(head, part)
        written = desk.with_list(written, [conflict for conflict in found if not conflict.hunks], part)
    named = "".join(f"conflict: {conflict.path}\n" for conflict in found)
    message = f"Merge {part.name}: {part.title}\n\n{named}\nCodex-Head: {part.head}\n"
    new = at.commit(written, [head] if part.squashed else [head, part.head], message)
    write_atomic(os.path.join(tree.git_dir, UPDATE), {"commit": new})
    try:
        fast_forward(at, tree.branch, new)
    finally:
        end_update(git, tree)
    return new, [one.path if one.hunks else f"{one.path} (see {LIST})" for one in found]


class Forward:
    """Moves the branch that is checked out in a checkout of the user's forward, with index and files. One
    command of git's is all that ever writes there: what that refuses, or leaves half done, stays so."""

    def __init__(self, at: At, onto: str) -> None:
        """`onto`: the commit that HEAD has to be at."""
        self.at, self.top, self.onto = at, at.cwd, onto
        self.alone = functools.partial(at.git.alone, at.common)

    def blocked(self, rows: Sequence[Changed]) -> Optional[GitError]:
        """Why it cannot be moved now to what changes these files. Blocks while another merge writes there.
        Raises: GitError."""
        with self.alone():
            try:
                self._check(rows)
            except GitError as error:
                return error
        return None

    def move(self, commit: str, rows: Sequence[Changed]) -> str:
        """Returns the name of the branch. Blocks for as long as the files take to be written, up to
        CHECKOUT_S. Raises: GitError, OSError."""
        with self.alone():      # or git would write the files of one and move the branch for the other
            name = self._check(rows)
            try:
                fast_forward(self.at, name, commit)
            except GitError as error:
                if self.at.commit_of("HEAD") != commit:
                    raise self._not_moved(f"`{name}` was not moved", error.why, commit, rows)
        return name

    def undo(self, name: str, commit: str) -> str:
        """The shell command that goes back, and does nothing once HEAD or the branch has gone on. What is
        edited, staged or ignored it keeps, or git refuses: `git reset --keep` would not, of the latter two.
        Source: git-reset(1), git-checkout(1)."""
        import shlex
        git, branch = f"git -C {shlex.quote(self.top)}", shlex.quote(name)
        back = f"{git} checkout --no-overwrite-ignore -B {branch} {self.onto}"
        return f"[ \"$({git} rev-parse HEAD refs/heads/{branch} | uniq)\" = {commit} ] && {back}"

    def _check(self, rows: Sequence[Changed]) -> str:
        """The name of the branch that can be moved. Raises: GitError."""
        top, advice = self.top, "leave `into` out: the merge then makes a branch"
        branch = self.at.branch()
        if not branch:
            raise GitError(f"No branch is checked out in {top}",
                           "Its HEAD is detached, so there is nothing to move", advice.capitalize())
        begun = [f"A {word} is unfinished there" for word in unfinished(self.at.git_dir)]
        changed = [change.path for change in self.at.changes("--untracked-files=no")[0]]
        if changed or begun:
            raise GitError(f"The checkout {top} is not clean",
                           begun[0] if begun else f"Not committed: {in_words(some(changed))}",
                           f"Commit or stash that, or {advice}")
        if self.at.commit_of("HEAD") != self.onto:
            raise GitError(f"HEAD of {top} has moved meanwhile", f"The merge was made for {self.onto[:12]}",
                           "Call again")
        gone = {row.path for row in rows if row.status == "D"}
        new = [row.path for row in rows if row.status == "A" and not gone & set(directories_above(row.path))]
        is_file = lambda path: os.path.lexists(path) and not os.path.isdir(path)
        taken = [path for path in new for above in (*directories_above(path), path)
                 if is_file(os.path.join(top, above))]
        if taken:
            why = f"Files there that are not committed would be overwritten: {in_words(some(taken))}"
            raise GitError(f"{top} stays as it is", why, "Move them away, and call again")
        return branch[len("refs/heads/"):]

    def _not_moved(self, what: str, why: str, commit: str, rows: Sequence[Changed]) -> GitError:
        """What to say when git has failed on its way to `commit`: which files it has touched, and how to go
        back."""
        top, at = self.top, self.at
        try:
            changed = {change.path for change in at.changes("--untracked-files=all")[0]}
            left = sorted(changed.intersection(row.path for row in rows))
        except GitError as error:                   # the same filter is missing, or the same disk is full
            return GitError(what, why, f"See what `git status` says in {top}: what the files hold cannot be "
                            f"told here ({error}). The merged commit is {commit}")
        if not left or " would " in why:            # git's word when it refuses to begin
            return GitError(what, why, f"Everything in {top} stays as it is. Mend that, and call again; "
                            f"the merged commit is {commit}")
        state = f"git was cut off: HEAD of {top} is {at.commit_of('HEAD')}, and not {commit}; " \
                f"what it holds is not in {in_words(some(left))}"
        lock = os.path.join(at.git_dir, "index.lock")
        first = f"remove {lock}, which it left, and " if os.path.lexists(lock) else ""
        return GitError(what, f"{why}. {state}", "Nothing was put back, so that no edit is lost. To go back, "
                        f"{first}run `git stash push --include-untracked` in {top}: what lies there and is "
                        "not committed is in the stash then")


class Clearing:
    """Takes away a worktree in which no task runs: proves, removes, remembers. Never with --force.

    Proof: every file is in a commit of the branch that git can read, or a copy that nobody touched; what is
    not committed is committed first. Any doubt keeps it, with the reason. Removal: it leaves under another
    name, where nobody writes, and is proven there; git forgets it before its files go; what a killed sweep
    left is begun anew. Memory: for TRASH_S a ref below TRASH holds every commit to which the worktree led.
    """

    def __init__(self, git: Git, tree: Worktree, ignored: bool = False, merged: bool = False) -> None:
        """`ignored`: ignored files that were made there go as well. `merged`: so does a branch whose changes
        are in HEAD, though its commits are not."""
        self.git, self.tree, self.ignored, self.merged = git, tree, ignored, merged
        self.common, self.branch = common_of(tree), f"refs/heads/{tree.branch}"
        self.trash = TRASH + os.path.basename(tree.branch)
        self.at = git.within(self.common).also(GIT_NO_REPLACE_OBJECTS="1")
        self.registered = os.path.isdir(tree.git_dir)
        self.hidden = os.path.join(os.path.dirname(tree.path), REMOVED + os.path.basename(tree.path))

    def run(self, dry_run: bool = False, brief: bool = False) -> List[str]:
        """Returns what becomes of it, in `brief` not of its branch; a dry run writes nothing. Raises:
        GitError, OSError, why it stays."""
        tree, at = self.tree, self.tree.path
        if os.path.lexists(self.hidden):
            if dry_run:
                return ["A sweep was killed while it removed this"]
            self._go_on()
        if not os.path.lexists(at):
            if not dry_run:
                release(tree)                   # or git would never forget it
            return ["The worktree is gone already; git forgets it with `git worktree prune`"]
        if not self.registered or leads_to(at, ".git") != os.path.realpath(tree.git_dir):
            why = "Its `.git` leads elsewhere" if self.registered else UNKNOWN
            raise GitError(why, NOWHERE_ELSE, f"Look through `{at}` and delete it by hand")
        self._refuse(self._doubts())
        unsaved = self._unsaved(at) if dry_run else self._take_down()
        was = "would be" if dry_run else "was"
        files = f"{unsaved} file{'s' * (unsaved != 1)}"
        said = f"What is not committed ({files}) {was} committed onto {tree.branch} first"
        return [*([said] if unsaved else []), *([] if brief else [self._branch(unsaved, dry_run)])]

    def is_in_head(self) -> bool:
        """Whether HEAD of the main checkout has all of it: the commits, or (squashed, picked) what they
        change, so that a merge would change nothing. Writes nothing. Raises: ToolError, OSError."""
        tree, at = self.tree, self.at
        head, tip = at.find("HEAD^{commit}", self.branch + "^{commit}")
        if not head or not tip or os.path.lexists(tree.path) and self._unsaved(tree.path):
            return False
        part = Part((tree.branch,), tree.branch, "", tip, *tree.share)
        with at.aside() as aside, Desk.beside(aside) as desk:
            step = desk.steps(head, [part])[0]
            return step.commit == head or not step.conflicts and step.tree == at.tree_of(head)

    def _go_on(self) -> None:
        """After a killed sweep: back with it, unless git has forgotten it, which comes after the proof, or a
        reply has made it anew since."""
        if self.registered and not os.path.lexists(self.tree.path):
            os.rename(self.hidden, self.tree.path)
        elif os.path.isdir(self.common) and self.at.commit_of(self.trash):
            delete_tree(self.hidden)
        else:
            raise GitError(UNKNOWN, NOWHERE_ELSE, f"Look through `{self.hidden}` and delete it by hand")

    def _refuse(self, doubts: Iterable[str]) -> None:
        """Raises: GitError for the first of these reasons to keep the worktree."""
        for doubt in doubts:
            by_hand = f"`git worktree remove --force --force {self.tree.path}` then removes it"
            raise GitError(doubt, "That would go with it", f"Save what you want of it; {by_hand}")

    def _doubts(self) -> Iterator[str]:
        """Why somebody may still want the worktree, whatever its files are."""
        path, lock = self.tree.path, locked_for(self.tree.git_dir)
        if lock not in (None, LOCK_REASON):
            yield f"Somebody locked it: {clip(lock, LABEL_CHARS)}" if lock else "Somebody locked it"
        yield from (f"A {word} is unfinished there" for word in unfinished(self.tree.git_dir))
        yield from (f"Its `{ref}` leads to no commit" for ref, to in self._own_refs().items() if to is None)
        for top, directories, files in os.walk(path):
            inner = os.path.relpath(top, path)
            if ".git" in map(str.lower, (*directories, *files)) and inner not in (".", *self.tree.submodules):
                yield f"It holds a submodule or another repository: `{inner}`"
        mounted = mounted_in(path)
        if mounted is not None:
            yield f"Something is mounted there: `{mounted}`"
        pid = self.git.host.worker_in(path)
        if pid is not None:
            yield f"A process works there (pid {pid})"

    def _own_refs(self) -> Dict[str, Optional[str]]:
        """The refs that only this worktree has, and the commit that each leads to; None: to none."""
        own = self.git.within(self.tree.git_dir)
        refs = own("for-each-ref", "--format=%(refname)", "refs/worktree").split()
        return dict(zip(refs, own.find(*(f"{ref}^{{commit}}" for ref in refs))))

    def _unsaved(self, path: str) -> int:
        """How many files of the worktree, which lies at `path`, a snapshot has yet to take, 1 at least where
        it has to bring home HEAD; writes nothing. Raises: GitError, OSError for what no snapshot takes."""
        tree = self.tree._replace(path=path)
        snapshot = Snapshot(self.git, tree)
        at = snapshot.at
        on, tip, from_tree = snapshot.standing()
        with at.aside() as scratch:
            found = lying_in_worktree(scratch, tree, from_tree)
            words = ("-r", "-z", "--name-only", "--no-renames", from_tree, found.tree)
            changed = scratch("diff-tree", *words).split("\0")[:-1] if found.tree != from_tree else []
        self._refuse(self._losses(tree, found))
        if tip and at.contains(tip, on) and (not changed or on != tip and found.tree == at.tree_of(tip)):
            self._check_whole(tip)
            return 0
        return max(1, len(changed))

    def _losses(self, tree: Worktree, found: Lying) -> Iterator[str]:
        """What no commit takes."""
        copied, others = copied_into(tree.git_dir), found.ignored
        yield from (f"git cannot read all of it: {clip(line, 200)}" for line in found.unread)
        if seal_of(tree) != tree.seal:
            yield f"Something was done in its submodules: {in_words(some(list(tree.submodules)))}"
        not_taken = {name: why for name, why in found.left_out.items() if name not in copied}
        if not_taken:
            yield f"No commit takes {in_words(with_reasons(not_taken))}"
        own = [name for name in sorted(copied) if mark_of(tree.path, name) not in copied | {""}]
        if own:
            yield f"A copied file was changed: {in_words(some(own))}"
        if others and not self.ignored:
            yield (f"Ignored files were made there: {in_words(some(others))}; "
                   "`codex-mcp-swarm sweep --ignored` removes them as well")

    def _check_whole(self, tip: str) -> None:
        """Read all that is new on the branch: damage passes until somebody does. Raises: GitError."""
        if tip == self.tree.base:
            return
        run = functools.partial(self.at.run, allowed=(0, 128))
        listed = run("rev-list", "--objects", tip, "--not", self.tree.base)
        names = "".join(row.partition(" ")[0] + "\n" for row in listed.out.splitlines())
        said = listed.err or run("cat-file", "--batch", stdin=names, keep_out=False).err
        if said:
            raise GitError("git cannot read all that is on its branch", clip(said, 300),
                           f"The good copy may be in `{self.tree.path}`: take away the damaged object, then "
                           "`git hash-object -w FILE` there writes it anew")

    def _take_down(self) -> int:
        """Returns how many files were committed first. Raises: GitError, OSError; it is in its place then."""
        git, tree = self.git, self.tree
        hold(tree)                              # or `git worktree prune` would find it missing
        os.rename(tree.path, self.hidden)
        try:
            followed = git.host.worker_in(self.hidden) is not None      # nobody else can write there any more
            unsaved = self._unsaved(self.hidden)
            if unsaved and not followed:
                message = "What the task left, before its worktree was removed\n"
                Snapshot(git, tree._replace(path=self.hidden)).take(message)
            if followed or unsaved and self._unsaved(self.hidden):
                raise GitError("It was changed while it was being removed")
            self._remember()
            release(tree)
            git.at(self.common)("worktree", "remove", tree.path)
        except (GitError, OSError):
            os.rename(self.hidden, tree.path)
            with contextlib.suppress(OSError):
                hold(tree)
            raise
        delete_tree(self.hidden)
        return unsaved

    def _remember(self) -> None:
        """The trash: a commit whose parents are the branch, what HEAD, both logs and the worktree's own refs
        lead to besides, and an earlier such commit. Raises: GitError, OSError."""
        own, at = self.git.within(self.tree.git_dir), self.at
        tip, tip_tree = at("rev-parse", self.branch, self.branch + "^{tree}").split()
        head, earlier = own.find("HEAD^{commit}", self.trash + "^{commit}")
        found = [head, *logged(at, self.branch), *logged(own, "HEAD"), *self._own_refs().values()]
        seen = [commit for commit in found if commit not in (None, tip)]
        staged = own.run("write-tree", allowed=(0, 128)).out.strip()
        if staged not in ("", tip_tree):
            seen.append(at.commit(staged, [tip], "What was staged there\n"))
        apart = at("merge-base", "--independent", tip, *seen).split() if seen else []
        parents = list(dict.fromkeys([tip, *apart, *([earlier] if earlier else [])]))
        message = (f"{self.tree.branch}, as its worktree was removed\n\nTo get the branch back: git branch "
                   f"{self.tree.branch} {self.trash}^1\nFurther parents: what the branch did not hold.\n")
        dated = at.also(GIT_COMMITTER_DATE=f"{int(self.git.host.now())} +0000")
        dated("update-ref", self.trash, dated.commit(tip + "^{tree}", parents, message))

    def _branch(self, unsaved: int, dry_run: bool) -> str:
        """Let the branch go where git says that it is merged into HEAD. Returns what becomes of it."""
        branch = self.tree.branch
        try:
            proven = self.merged and not unsaved and self.is_in_head()
            if not dry_run:
                self.at("branch", "-D" if proven else "-d", branch)
            elif not proven and (unsaved or not self.at.contains("HEAD", self.branch)):
                raise GitError("", "it is not merged", "")
            there = self.at("for-each-ref", "--format=%(worktreepath)", self.branch) if dry_run else ""
            if there and os.path.realpath(there) != os.path.realpath(self.tree.path):
                raise GitError("", f"it is checked out in `{there}`", "")
        except GitError as error:
            return f"{branch} stays: {error.why}"
        days = f"{TRASH_S / 86400:.0f} days"
        return f"{branch} goes too, since it is merged; {self.trash} remembers it for {days}"

    def tip(self) -> Optional[str]:
        """The commit that the branch is at; where that has gone, the remembered one, or the result."""
        names = [self.branch, f"{self.trash}^1", self.tree.head or ""] if os.path.isdir(self.common) else []
        found = map(self.git.within(self.common).commit_of, filter(None, names))
        return next(filter(None, found), None)


def logged(at: At, ref: str) -> List[str]:
    """The commits in the log of a ref in this git directory, also of a gone one; without, that of the ref."""
    log = re.findall("(?m)^[0-9a-f]+ (?!0+ )([0-9a-f]+) ", text_in(os.path.join(at.git_dir, "logs", ref)))
    there = None if log else at.commit_of(ref)
    if there:                                   # a log may be in a reftable
        log = [there, *at("rev-list", "-g", ref, "--").split()]
    return list(dict.fromkeys(log))


def reached(at: At, ref: str) -> Set[str]:
    """The commits that a ref is at, or was: not every tool writes a log."""
    return {*logged(at, ref), at.commit_of(ref) or ""} - {""}


def scrap(git: Git, path: str, after_s: float, dry_run: bool, never_ran: bool) -> None:
    """Remove by force a worktree over which a server was killed `after_s` ago or earlier: no task ran there
    yet, or a merge was tried, of which nothing is meant to stay. `never_ran`: no task did, even if it is
    whole. Raises: GitError, OSError, why it stays."""
    git_dir, name = leads_to(path, ".git"), os.path.basename(path)
    above, top = os.path.split(os.path.dirname(git_dir))
    may_have_run = not never_ran and any(file.startswith(OWN_INDEX) for file in names_in(git_dir))
    inside = os.path.islink(path) or is_inside(git_dir, os.path.dirname(path))      # some task's making
    if top != "worktrees" or may_have_run or inside or locked_for(git_dir) != LOCK_REASON:
        raise GitError("Not ours: no task was started in it, so it is never touched")
    if mounted_in(path) or git.host.worker_in(path) or len(reached(git.within(git_dir), "HEAD")) > 1:
        raise GitError("Somebody works there, mounted or committed something")
    if git.host.now() - modified_at(os.path.join(git_dir, "locked")) < after_s:
        raise GitError("A server makes this or tries a merge there, or was killed over that not long ago")
    if not dry_run:
        at = git.at(above)
        at("worktree", "remove", "--force", "--force", path)
        branch = f"codex-swarm/{name}"
        as_made = never_ran and len(reached(git.within(above), f"refs/heads/{branch}")) == 1
        with contextlib.suppress(GitError):
            at("branch", "-D" if as_made else "-d", branch)


def empty_trash(git: Git, common: str) -> None:
    """Forget what has been remembered for TRASH_S. Raises: GitError."""
    at, words = git.within(common), "--format=%(committerdate:unix) %(objectname) %(refname)"
    for row in at("for-each-ref", words, TRASH.rstrip("/")).splitlines():
        made_at, commit, ref = row.split(" ")
        if made_at.isdigit() and git.host.now() - int(made_at) > TRASH_S:
            at("update-ref", "-d", ref, commit)


# ======================================================================================
# 9. STORE  (one directory per task, one writer per file)
# ======================================================================================
#   ROOT/                   0700; CODEX_SWARM_TASK_DIR, else $XDG_STATE_HOME/codex-swarm
#     tasks/<task_id>/      0700; complete and locked before it gets this name
#       spec.json           what was asked for: server, once
#       prompt              what the client wrote: server, once
#       stdin               the same with the results of others in it, where it names some: supervisor, once
#       base-instructions   and compact-prompt, output_schema, where given: server, once
#       status.json         where it stands: whoever holds `lock`, by rename
#       events.jsonl        codex's stdout, byte for byte       stderr.log       codex's stderr
#       setup.log           what CODEX_SWARM_WORKTREE_SETUP printed
#       report.json         how it ended: supervisor, once      supervisor.log   only of use for a bug report
#       lock                held by the server at birth, then by the supervisor for life: THE liveness test
#       control             FIFO that wakes the supervisor, no more: a sandboxed task may ring it as well
#       reserve             disk space, given back for the report
#       stop                the order to stop, which no sandbox lets a task give: `reserve` under another
#                           name, since a rename needs neither room nor a descriptor
#       collected           empty; there once a client has been given the result
#       environ             of whoever asked for it, without secrets: server; until it begins
#       kept                empty, as old as the end of the task, of which only the files of ANSWER are left
#     live/<task_id>        a second name of its `lock`, from before its birth until somebody saw its end: an
#                           index, made anew where `live/whole` is missing
#     ended                 an index: see Ended             ended.lock: held by whoever writes it
#     queue/                a name for each task that waits for its turn: see Queue     queue.lock
#     slots/<n>             held by the supervisor of each task that runs    first-<limit>: see Queue.rejoin
#     threads/<thread_id>   the tasks of it that have left `live`   .lock: held while one is let into a thread
#     requests/             what calls under an id of the client's started: server, before the first runs
#     handles/<handle_id>   .json: what an MCP task waits for: server, once    .cancel: somebody cancelled it
#                           .end.json: how it ended: whichever server sees it first, once
#     worktrees/<task_id>/  CODEX_SWARM_WORKTREE_DIR moves them   .removed-<task_id>/: one on its way out
#                           Lock files have mode 0200: see open_lock
#     git/                  a lock for each repository, and what git makes aside: out of the tasks' reach
#     sweep.lock            shared by whoever starts tasks, exclusive for each removal
#     swept                 locked by the server that sweeps by itself, as old as the last such sweep
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)     # a missing, torn, foreign record
ANSWER = frozenset({"spec.json", "prompt", "report.json", "status.json", "lock", "collected", "kept"})


class TaskDir:
    def __init__(self, path: str) -> None:
        self.path, self.task_id = path, os.path.basename(path)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @classmethod
    def create(cls, tasks: str, spec: Spec, prompt: str) -> "TaskDir":
        """Make the directory of a task under a hidden name, until it may `appear`. Raises: OSError, at which
        nothing is left."""
        hidden = cls(os.path.join(tasks, "." + spec.task_id))
        os.mkdir(hidden.path, 0o700)
        try:
            os.mkfifo(hidden.file("control"), 0o200)
            os.close(open_lock(hidden.file("lock"), os.O_CREAT))
            for name, text in {"prompt": prompt, **texts_of(spec)}.items():
                with open(hidden.file(name), "w", encoding="utf-8", newline="", opener=private) as f:
                    f.write(text)
            with open(hidden.file("reserve"), "wb", opener=private) as f2:
                f2.write(b"\0" * RESERVE_BYTES)
            hidden.write_spec(spec)
            hidden.write_status(Status(State.QUEUED), lasting=False)
            return hidden
        except BaseException:
            hidden.discard()
            raise

    def appear(self) -> "TaskDir":
        """Take the place in the index, then the name: no reader ever sees a half-made task, or overlooks one.
        Raises: OSError; it is hidden still then."""
        tasks = os.path.dirname(self.path)
        named = TaskDir(os.path.join(tasks, self.task_id[1:]))
        os.link(self.file("lock"), os.path.join(os.path.dirname(tasks), "live", named.task_id))
        os.rename(self.path, named.path)
        return named

    def keep_environ(self, environ: Mapping[str, str]) -> None:
        """For the supervisor, whoever launches that. Raises: OSError."""
        rows = os.fsencode("\0".join(itertools.filterfalse(looks_secret, map("=".join, environ.items()))))
        write_atomic(self.file("environ"), {"rows": rows.decode("latin-1")}, lasting=False)   # JSON: no bytes

    def environ(self, ours: Mapping[str, str]) -> Dict[str, str]:
        """What was kept, with the secrets that we have, which get to no disk; ours, where none was kept.
        Raises: UNREADABLE for a damaged file."""
        with contextlib.suppress(FileNotFoundError):
            kept = os.fsdecode(read_json(self.file("environ"))["rows"].encode("latin-1")).split("\0")
            rows = [*filter(looks_secret, map("=".join, ours.items())), *filter(None, kept)]
            return dict(row.split("=", 1) for row in rows)
        return dict(ours)

    def discard(self) -> None:
        """Remove a task that has never run. What is left where that fails is hidden, or reads as lost."""
        with contextlib.suppress(OSError):
            delete_tree(self.path)

    def remove(self) -> None:
        """Remove a task that has ended, for the holder of its lock. It goes under a hidden name, so no reader
        sees a part of it. Raises: OSError."""
        hidden = os.path.join(os.path.dirname(self.path), "." + self.task_id)
        os.rename(self.path, hidden)
        delete_tree(hidden)

    def thin(self, status: Status, report: Report) -> None:
        """Remove all but the answer of a task that has ended, for the holder of its lock. Raises: OSError;
        the answer is whole then, too."""
        if not os.path.exists(self.file("report.json")) or self.report() != report:
            self.end(status, report)
        for name in set(os.listdir(self.path)) - ANSWER:
            os.unlink(self.file(name))
        os.close(private(self.file("kept"), os.O_WRONLY | os.O_CREAT))
        os.utime(self.file("kept"), (report.ended_at, report.ended_at))

    def kept_since(self) -> float:
        """When a task ended of which the answer alone is left; 0 for any other. Costs one stat(2)."""
        return modified_at(self.file("kept"))

    def spec(self) -> Spec:
        """Raises: UNREADABLE for a missing or damaged record; so does `report`."""
        return from_json(Spec, read_json(self.file("spec.json")))

    def spec_or_damage(self) -> Tuple[Spec, str]:
        """The spec, or what is known without it and what is wrong with it. Raises: OSError when the system is
        exhausted."""
        try:
            return self.spec(), ""
        except UNREADABLE as error:
            raise_if_exhausted(error)
            damage = f"spec.json cannot be read: {type(error).__name__}"
            warning = f"{damage}. Look into `{self.path}`"
            return Spec(self.task_id, modified_at(self.path), "", "", warnings=(warning,)), damage

    def report(self) -> Report:
        return from_json(Report, read_json(self.file("report.json")))

    def status(self) -> Status:
        """Where the task stands; LOST is derived here: the status is not ENDED, and nobody holds the lock."""
        status = self.written_status()
        if status.state is State.ENDED or is_held(self, self.file("lock")):
            return advance(status, "launch") if status.state is State.QUEUED else status
        if status.state is State.QUEUED:
            return status
        status = self.written_status()          # it may have ended between the two looks
        if status.state is State.ENDED:
            return status
        try:                                    # the disk was too full for a status, but not for the report
            return status._replace(state=State.ENDED, outcome=self.report().outcome)
        except UNREADABLE:
            return advance(status, "gone")

    def written_status(self) -> Status:
        """A damaged file says no more than that the task was once started."""
        status = Status(State.RUNNING)
        with suppress_unless_exhausted(*UNREADABLE):
            read = from_json(Status, read_json(self.file("status.json")))
            whole = (read.state is State.ENDED) == (read.outcome is not None)
            return read if whole else status
        return status

    def is_queued(self) -> bool:
        """Whether nothing has begun with it. Raises: OSError when the system is exhausted."""
        return os.path.isdir(self.path) and self.written_status().state is State.QUEUED

    def write_spec(self, spec: Spec) -> None:
        """Only until it appears; the two below are for the holder of its lock. Each raises OSError."""
        write_atomic(self.file("spec.json"), to_json(spec), lasting=False)

    def write_status(self, status: Status, lasting: bool = True) -> None:
        write_atomic(self.file("status.json"), to_json(status), lasting)

    def end(self, status: Status, report: Report) -> None:
        write_atomic(self.file("report.json"), to_json(report))
        self.write_status(status)

    def join(self) -> None:
        """Block until nobody supervises the task any more. The kernel wakes us. Raises: OSError."""
        while True:
            try:
                with locked(self.file("lock"), fcntl.LOCK_SH):
                    return
            except OSError as error:
                if error.errno == errno.EROFS and self.written_status().state is State.ENDED:
                    return
                if error.errno not in (*EXHAUSTED, errno.EROFS):
                    raise
            time.sleep(1)                   # no descriptor left, or no lock: asking again is all there is

    def stop(self) -> None:
        """Order the supervisor to stop the task, and ring; without one there is nobody to ring for, so no pid
        is ever trusted. Where the bell cannot ring, the order is found within LOOK_S."""
        with contextlib.suppress(OSError):          # it was ordered before, or the task has ended
            os.rename(self.file("reserve"), self.file("stop"))
        with contextlib.suppress(OSError):
            with open(os.open(self.file("control"), os.O_WRONLY | os.O_NONBLOCK), "wb", 0) as bell:
                bell.write(b"c")

    def listen(self) -> int:
        """The descriptor of the bell, for the supervisor. Raises: OSError."""
        os.chmod(self.file("control"), 0o600)
        control = os.open(self.file("control"), os.O_RDWR | os.O_NONBLOCK)      # RDWR: never at its end
        os.fchmod(control, 0o200)                   # else others could read away what wakes the supervisor
        return control

    def collect(self) -> None:
        """Raises: OSError."""
        os.close(private(self.file("collected"), os.O_WRONLY | os.O_CREAT))

    def is_collected(self) -> bool:
        return os.path.exists(self.file("collected"))

    def tail(self, name: str, limit: int = LOG_TAIL_BYTES) -> str:
        """The last `limit` bytes of a log; nothing when there is none."""
        with contextlib.suppress(OSError), open(self.file(name), "rb", opener=private) as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - limit))
            return f.read().decode("utf-8", "replace")
        return ""


def is_held(task: TaskDir, lock: str) -> bool:
    """Whether somebody holds this name of a task's lock. Where nothing can be written nobody can tell, and
    one that has not ended counts as held. Raises: OSError."""
    try:
        return held(lock)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return task.written_status().state is not State.ENDED


class Ended:
    """The index of what has ended, in the order in which that was seen: a line a task, `STAMP TASK_ID MARK`.

    The stamp, milliseconds since 1970 but always more than the one before, is a place in that order which
    holds on any server and after any restart: two ends have never the same, and what becomes visible late
    comes last. The mark is `-` while a client may still want the result, then `+`. Whoever writes holds
    `ended.lock`; a reader needs no lock, and passes over half a line at the end. Raises: OSError."""
    LINE = re.compile(rf"(\d{{13}}) ({TASK_ID}) [-+]\n?")

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, "ended")

    def text(self) -> str:
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb", opener=private) as f:
            return f.read().decode("ascii", "replace")
        return ""

    def is_whole(self) -> bool:
        """Whether nothing of it was lost, at a full disk or when the power failed: it ends with a line."""
        with contextlib.suppress(OSError), open(self.path, "rb", opener=private) as f:
            f.seek(-1, os.SEEK_END)             # an error in an empty file, which a new one is not
            return f.read() == b"\n"
        return False

    def newest_first(self, text: str) -> Iterator[Tuple[str, str]]:
        """(stamp, task id) of what was read. No more of it is looked at than is asked for."""
        end = len(text)
        while end:
            begin = text.rfind("\n", 0, end - 1) + 1
            line, end = self.LINE.fullmatch(text, begin, end), begin
            if line:
                yield line[1], line[2]

    @staticmethod
    def wanted(text: str) -> List[str]:
        """The tasks whose results nobody has collected, newest first."""
        return [row[-12:] for row in text.split(" -\n")[-2::-1]]

    def lock(self) -> ContextManager[bool]:
        return locked(self.path + ".lock", fcntl.LOCK_EX, os.O_CREAT)

    def add(self, tasks: Sequence[TaskDir], unwanted: Container[str], now: float) -> None:
        """Note the ends of these tasks, in this order, unless they are noted."""
        with self.lock():
            text = self.text()
            last = next((int(stamp) for stamp, _ in self.newest_first(text)), 0)
            stamp = max(round(now * 1000), last + 1)
            rows = "" if text[-1:] in ("", "\n") else "\n"
            for task in (task for task in tasks if f" {task.task_id} " not in text):
                over = task.task_id in unwanted or task.is_collected()
                rows += f"{stamp:013d} {task.task_id} {'+' if over else '-'}\n"
                stamp += 1
            with open(self.path, "ab", opener=private) as f:        # buffered: a part of it is an error
                f.write(rows.encode())

    def collect(self, task_ids: Sequence[str]) -> None:
        """Nobody has to be told of these tasks any more."""
        with self.lock():
            text = self.text()
            for task_id in task_ids:
                at = text.rfind(f" {task_id} -\n")
                if at >= 0:
                    with open(self.path, "r+b", 0, opener=private) as f:
                        f.seek(at + len(task_id) + 2)
                        f.write(b"+")

    def forget(self, gone: Callable[[str], bool]) -> None:
        """Take out the tasks that are not there any more."""
        with self.lock():
            text = self.text()
            rows = text.splitlines(keepends=True)
            kept = [row for row in rows
                    if row == "\n" or self.LINE.fullmatch(row) and not gone(row[14:26])]
            if kept != rows:
                with open(self.path + ".new", "w", opener=private) as f:
                    f.write("".join(kept))
                os.rename(self.path + ".new", self.path)


class Queue:
    """Who waits for a turn, the oldest first.

    A task that waits has a name here, `STAMP.LIMIT.TASK_ID`, with a stamp like those of Ended. That is its
    place and no more: whether it is queued its status alone says, and its supervisor changes that before
    anything else. So whoever is killed on the way leaves a task queued, or running.

    To begin takes a slot: the lock of one of the first LIMIT files in `slots`. The kernel frees it at the end
    of the supervisor, whatever ends that.

    Whoever puts a task in or begins it holds `queue.lock`. To cancel it takes its own lock alone, however
    long others keep that one. Raises: OSError."""
    NAME = re.compile(rf"\d{{13}}\.\d+\.{TASK_ID}")

    def __init__(self, root: str) -> None:
        self.path, self.slots = os.path.join(root, "queue"), os.path.join(root, "slots")
        self.tasks = os.path.join(root, "tasks")

    def lock(self, how: int = 0) -> ContextManager[bool]:
        """Without LOCK_NB the kernel wakes us: who asks again and again starves behind a batch."""
        return locked(self.path + ".lock", fcntl.LOCK_EX | how, os.O_CREAT)

    def names(self) -> List[str]:
        return sorted(filter(self.NAME.fullmatch, names_in(self.path)))

    def ids(self) -> List[str]:
        return [name[-12:] for name in self.names()]

    @staticmethod
    def place(task_id: str, names: Sequence[str]) -> str:
        """`3rd of 12`; empty for a task that is not queued."""
        for number, name in enumerate(names, 1):
            if name.endswith(task_id):
                teens = number % 100 in (11, 12, 13)
                ending = "th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
                return f"{number}{ending} of {len(names)}"
        return ""

    @staticmethod
    def bound(task_id: str, names: Sequence[str]) -> float:
        """The lowest limit of those ahead of a task, which begin before it; infinity where there is none."""
        ahead = itertools.takewhile(lambda name: not name.endswith(task_id), names)
        return min(filter(None, (int(name.split(".")[1]) for name in ahead)), default=float("inf"))

    def put(self, task: TaskDir, spec: Spec, now: float) -> TaskDir:
        """Let a task appear, as the last one; one that is there already gets a place again."""
        stamp = min(max([round(now * 1000), *(int(name[:13]) + 1 for name in self.names())]), 10 ** 13 - 1)
        name = f"{stamp:013d}.{spec.max_parallel}.{spec.task_id}"
        os.close(private(os.path.join(self.path, name), os.O_WRONLY | os.O_CREAT))
        return task.appear() if task.task_id.startswith(".") else task

    def turn(self, spec: Spec, inside: bool) -> Optional[List[int]]:
        """What a new task begins with at once: its slot, if it has a limit. None where it has to wait."""
        if inside or not spec.max_parallel:
            return None if spec.depends_on else []
        slot = None if spec.depends_on or self.names() else self.slot(spec.max_parallel)
        return None if slot is None else [slot]

    def drop(self, task: TaskDir) -> None:
        """It is not queued any more. What cannot be removed is the next time that somebody looks."""
        mine = [os.path.join(self.path, name) for name in self.names() if name.endswith(task.task_id)]
        for path in (*mine, task.file("environ")):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def slot(self, limit: int, first: bool = False) -> Optional[int]:
        """The descriptor of a slot, which is taken until that is closed; None while `limit` tasks run, or
        another one is `first`."""
        with locked(f"{self.slots}/first-{limit}", fcntl.LOCK_SH | fcntl.LOCK_NB, os.O_CREAT) as nobody:
            slots = (take(os.path.join(self.slots, str(n + 1)), os.O_CREAT) for n in range(limit))
            return next((fd for fd in slots if fd is not None), None) if first or nobody else None

    def rejoin(self, limit: int, fds: List[int]) -> bool:
        """Whether a task that gave back its slot has one again, in `fds` behind its lock. Until then it is
        the first there, or tries to be: others hand on a slot faster than it could look for one."""
        if len(fds) == 1 and limit:
            fds += [fd for fd in [take(f"{self.slots}/first-{limit}", os.O_CREAT)] if fd is not None]
        slot = self.slot(limit, first=True) if len(fds) > 1 else None
        if slot is not None:
            os.close(fds.pop())
            fds.append(slot)
        return slot is not None or not limit

    def due(self, host: Host, how: int = 0) -> Iterator[Tuple[TaskDir, List[int]]]:
        """The tasks that may begin now, the oldest first, with the descriptors of lock and, where there is a
        limit, slot: closed when the next one is asked for. With LOCK_NB none while somebody else moves the
        queue. None inside of a task: what is launched there is stopped with it."""
        if not self.names() or host.tasks_around():
            return
        with self.lock(how) as mine:
            full = False                            # then nobody who is bound by a limit goes before others
            for name in self.names() if mine else ():
                limit, task = int(name.split(".")[1]), TaskDir(os.path.join(self.tasks, name[-12:]))
                if limit and full or not self._may_begin(task, host.now()):
                    continue
                slot = self.slot(limit) if limit else None
                if limit and slot is None:
                    full = True
                    continue
                fds = [] if slot is None else [slot]
                try:
                    lock = take(task.file("lock"))
                    if lock is not None:            # else it begins or is cancelled just now
                        fds.insert(0, lock)
                        if task.is_queued():        # else it was cancelled meanwhile
                            yield task, fds
                finally:
                    close_all(*fds)

    def _may_begin(self, task: TaskDir, now: float) -> bool:
        """Whether it waits for no more than a slot. One that will never begin ends."""
        if not task.is_queued():                    # its server or its supervisor was killed
            self.drop(task)
            return False
        why = self.hindrance(task)
        if why:
            self._end(task, failure(FailureKind.SETUP, why, "See to that first"), now)
        return why == ""

    def hindrance(self, task: TaskDir) -> Optional[str]:
        """Why it will never begin, empty where it may, None while it waits for others or cannot be read."""
        try:
            os.stat(task.file("lock"))
            spec = task.spec()
            for task_id in spec.depends_on:
                outcome = self._outcome(TaskDir(os.path.join(self.tasks, task_id)))
                if outcome is None:
                    return None
                if outcome is not Outcome.SUCCEEDED and spec.on_failure != "run":
                    return f"Task {task_id}, which it depends on, {outcome.value}"
            return ""
        except UNREADABLE as error:
            passing = isinstance(error, OSError) and error.errno != errno.ENOENT
            return None if passing else f"What it begins with is damaged: {error}"

    def _outcome(self, other: TaskDir) -> Optional[Outcome]:
        """How another task ended, None for one that has not, or is about to be born; lost, where it is
        gone."""
        if os.path.isdir(other.path):
            return other.status().outcome
        hidden = os.path.join(self.tasks, "." + other.task_id)
        return None if os.path.isdir(hidden) and self._is_starting() else Outcome.LOST

    def _is_starting(self) -> bool:
        """Whether somebody starts tasks; if nobody does, what is hidden was left by one who was killed."""
        sweep = os.path.join(os.path.dirname(self.path), "sweep.lock")
        with locked(sweep, fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_CREAT) as alone:
            return not alone

    def cancel(self, task: TaskDir, now: float) -> bool:
        """Whether it was queued; then it has ended, and never began."""
        why = failure(FailureKind.CANCELLED, "It was cancelled before it began")
        return task.is_queued() and self._end(task, why, now)

    def _end(self, task: TaskDir, why: Failure, now: float) -> bool:
        """End a task for good, unless it begins just now."""
        with locked(task.file("lock"), fcntl.LOCK_EX | fcntl.LOCK_NB, os.O_CREAT) as mine:
            ends = mine and task.is_queued()
            if ends:
                self.end(task, why, now)
        return ends

    def end(self, task: TaskDir, why: Failure, now: float) -> None:
        """End what never began, for the holder of its lock; its worktree stays as it was made."""
        outcome = Outcome.CANCELLED if why.kind is FailureKind.CANCELLED else Outcome.FAILED
        spec, damage = task.spec_or_damage()
        tree = spec.worktree and spec.worktree._replace(head=spec.since or spec.worktree.start, commits=0,
                                                        files_changed=0, insertions=0, deletions=0)
        with contextlib.suppress(OSError):
            os.truncate(task.file("reserve"), 0)    # the disk may be full; its name is for the order to stop
        report = Report(outcome, now - spec.created_at, now, thread_id=spec.thread_id, failure=why,
                        worktree=tree, warnings=() if damage else spec.warnings)
        task.end(advance(Status(State.QUEUED), "stop", stop_reason=outcome), report)
        self.drop(task)
        with contextlib.suppress(OSError):
            os.unlink(task.file("reserve"))


class Store:
    def __init__(self, root: str) -> None:
        self.root, self.tasks, self.handles = root, os.path.join(root, "tasks"), os.path.join(root, "handles")
        self.live, self.threads = os.path.join(root, "live"), os.path.join(root, "threads")
        self.ended, self.queue = Ended(root), Queue(root)
        self.requests = os.path.join(root, "requests")

    def prepare(self) -> None:
        """Make ROOT; it may hold other things, so its mode stays. Raises: ToolError if others may write."""
        own_directory(self.root)
        private_directory(self.tasks)
        for path in (self.threads, self.queue.path, self.queue.slots):
            private_directory(path)
        self.index()

    def index(self) -> None:
        """Put every task into `live` where that is missing or was emptied, or `ended` is not whole: whoever
        looks takes out those that have ended. Raises: OSError."""
        whole = os.path.join(self.live, "whole")
        if not os.path.exists(whole):
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.live, 0o700)
            self._link_all()
            os.close(private(whole, os.O_WRONLY | os.O_CREAT))
        if not self.ended.is_whole():
            with self.ended.lock():
                if not self.ended.is_whole():
                    self._link_all()
                    with open(self.ended.path, "a", opener=private) as f:
                        f.write("\n")

    def _link_all(self) -> None:
        for task_id in self.ids():
            with contextlib.suppress(FileNotFoundError, FileExistsError, PermissionError):  # no lock, or odd
                os.link(os.path.join(self.tasks, task_id, "lock"), os.path.join(self.live, task_id))

    def thread(self, thread_id: str) -> str:
        """The index of a thread: the tasks of it that have left `live`. No name leads out of `threads`."""
        return os.path.join(self.threads, re.sub(r"[^\w-]", "_", thread_id.lower()))

    def request(self, request_id: str) -> str:
        """Where the call under an id of the client's is noted. Raises: ToolError."""
        import hashlib
        private_directory(self.requests)
        return os.path.join(self.requests, hashlib.sha256(request_id.encode()).hexdigest()[:32])

    def settle(self, task_id: str, thread_id: Optional[str]) -> None:
        """Take a task that has ended from one index to the other. Raises: OSError."""
        if thread_id:
            with open(self.thread(thread_id), "a", opener=private) as f:
                f.write(task_id + "\n")
        with contextlib.suppress(FileNotFoundError):    # another server was faster
            os.unlink(os.path.join(self.live, task_id))

    def settled(self, thread_id: str) -> Set[str]:
        """The tasks in the index of a thread. Raises: OSError."""
        with contextlib.suppress(FileNotFoundError), open(self.thread(thread_id), opener=private) as f:
            return set(f.read().split())
        return set()

    def ids(self) -> List[str]:
        """Every task, newest first. Raises: OSError."""
        entries = []
        for name in filter(re.compile(TASK_ID).fullmatch, names_in(self.tasks)):
            there = os.path.join(self.tasks, name)
            if os.path.isdir(there):                    # its own time changes with every status
                entries.append((modified_at(os.path.join(there, "spec.json")) or modified_at(there), name))
        return [name for _, name in sorted(entries, reverse=True)]

    def locked(self, name: str, how: int,
               tell: Optional[Callable[[str], None]] = None) -> ContextManager[bool]:
        """`locked` for a lock file of ROOT, or one of a task."""
        return locked(os.path.join(self.root, name), how, os.O_CREAT, tell)

    def get(self, task_id: str) -> TaskDir:
        """Raises: ToolError when there is no such task."""
        if not self.has(task_id):
            short = any(name.startswith(task_id) for name in names_in(self.tasks))
            raise ToolError(f"There is no task `{clip(task_id, 60)}`",
                            "Give at least 4 characters of an id" if short and task_id else "",
                            "codex_status with `all` lists those that are kept. What an older one did in a "
                            "worktree is on its branch, `codex-swarm/` and the id")
        return TaskDir(os.path.join(self.tasks, task_id))

    def has(self, task_id: str) -> bool:
        return bool(re.fullmatch(TASK_ID, task_id)) and os.path.isdir(os.path.join(self.tasks, task_id))

    def _handle_file(self, handle_id: str, suffix: str) -> str:
        return os.path.join(self.handles, handle_id + suffix)

    def write_handle(self, handle: Handle) -> None:
        """Raises: OSError; ToolError when ROOT is not ours."""
        private_directory(self.handles)
        write_atomic(self._handle_file(handle.handle_id, ".json"), to_json(handle))

    def handle(self, handle_id: str) -> Optional[Handle]:
        """None when there is none of this id. Raises: OSError when the system is exhausted."""
        return self._kept(Handle, handle_id, ".json") if re.fullmatch(HANDLE_ID, handle_id) else None

    def handle_end(self, handle_id: str) -> Optional[HandleEnd]:
        """None while there is none that can be read. Raises: OSError when the system is exhausted."""
        return self._kept(HandleEnd, handle_id, ".end.json")

    def _kept(self, kind: Any, handle_id: str, suffix: str) -> Any:
        with suppress_unless_exhausted(*UNREADABLE):
            return from_json(kind, read_json(self._handle_file(handle_id, suffix)))
        return None

    def end_handle(self, handle_id: str, end: HandleEnd) -> HandleEnd:
        """Write the end of a handle and return it, or the one that another server wrote before."""
        name = self._handle_file(handle_id, ".end.json")
        mine = self._handle_file(handle_id, f".{os.urandom(4).hex()}")
        try:
            write_atomic(mine, to_json(end))
            try:
                os.link(mine, name)             # unlike rename it fails where there is one already
            except FileExistsError:
                there = self.handle_end(handle_id)
                if there is not None:
                    return there
                os.rename(mine, name)           # that one was damaged
        except OSError:                         # a full disk: until it has room, whoever asks makes it anew
            pass
        finally:
            with contextlib.suppress(OSError):
                os.unlink(mine)
        return end

    def handle_files(self) -> Dict[str, List[str]]:
        """Handle id -> the paths of its files, strays too, what makes it a handle first. Raises: OSError."""
        found: Dict[str, List[str]] = {}
        names = [name for name in names_in(self.handles) if re.match(HANDLE_ID + r"\.", name)]
        for name in sorted(names, key=lambda name: (not re.fullmatch(HANDLE_ID + r"\.json", name), name)):
            found.setdefault(name[:32], []).append(os.path.join(self.handles, name))
        return found

    def mark_cancelled(self, handle_id: str) -> None:
        """Raises: OSError."""
        os.close(private(self._handle_file(handle_id, ".cancel"), os.O_WRONLY | os.O_CREAT))

    def is_cancelled(self, handle_id: str) -> bool:
        return os.path.exists(self._handle_file(handle_id, ".cancel"))


class Tail:
    """What the events of one task amount to, reading only what is new.

    `changed_at` is when the last event was written, `phase_at` when the phase began as far as we saw (Unix
    seconds, from the modification time of the file: events carry no time). Thread-safe.
    """

    def __init__(self, path: str) -> None:
        self.path, self.progress = path, Progress()
        self.offset = self.size = 0         # what was folded; what was there, a half line at the end included
        self.in_huge = False                # `offset` is inside of a line that is passed over
        self.changed_at = self.phase_at = 0.0
        self._lock = threading.Lock()       # guards all of the above; whoever refreshes takes it; leaf lock

    def refresh(self, piece: float = float("inf")) -> Progress:
        """Fold the complete lines that came since the last call, of more than `piece` bytes the first. Costs
        one stat(2) when there are none."""
        with self._lock:
            try:
                there = os.stat(self.path)
            except OSError:
                return self.progress
            if there.st_size == self.size:
                return self.progress
            before = (self.progress.phase, self.progress.detail)
            with contextlib.suppress(OSError), open(self.path, "rb", 1 << 20, opener=private) as f:
                self.size = there.st_size if self._fold_new(f, piece) else self.offset
            self.changed_at = there.st_mtime
            if before != (self.progress.phase, self.progress.detail):
                self.phase_at = there.st_mtime
            return self.progress

    def _fold_new(self, f: IO[bytes], piece: float) -> bool:
        """Whole lines; U+2028 and its like stand raw inside them, so only b"\\n" ends one. A huge one is read
        once, and no more than MAX_LINE_BYTES of it are ever in memory. Whether it came to the end."""
        until = f.seek(self.offset) + piece
        while self.offset < until:
            line = f.readline(1 << 20 if self.in_huge else MAX_LINE_BYTES)
            ended = line.endswith(b"\n")
            if not line or not (ended or self.in_huge or len(line) == MAX_LINE_BYTES):
                return True
            if not self.in_huge:
                p = self.progress
                self.progress = fold(p, line) if ended else fold_huge(p, line, self.offset)
            self.offset += len(line)
            self.in_huge = not ended
        return False


def content_of(task: TaskDir, report: Report) -> Optional[str]:
    """The final message, which only the events have where the disk was full."""
    return Tail(task.file("events.jsonl")).refresh().message if report.in_events else report.content


def events_from(path: str, cursor: int) -> Iterator[Tuple[Dict[str, Any], int]]:
    """The events of a file from this byte on, each with the position behind it; a line that is not whole yet
    comes another time. Raises: OSError; ValueError where no line begins at `cursor`."""
    with open(path, "rb", opener=private) as f:
        f.seek(min(max(0, cursor - 1), os.fstat(f.fileno()).st_size))
        if cursor and f.read(1) != b"\n":
            raise ValueError(cursor)
        for line in iter(lambda: f.readline(MAX_LINE_BYTES), b""):
            begin = f.tell() - len(line)
            while line and not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                line = f.readline(MAX_LINE_BYTES)
            if not line.endswith(b"\n"):
                return
            event = None
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line) if f.tell() - begin <= MAX_LINE_BYTES else None
            known = event if isinstance(event, dict) else {"type": "unreadable", "bytes": f.tell() - begin}
            yield known, f.tell()


# ======================================================================================
# 10. SUPERVISOR  (a process of its own, one thread, the only writer of a task's status)
# ======================================================================================
READ_ONLY = "No `sandbox` was given, and by codex's own configuration it was read-only: nothing could be " \
            "written. Pass `sandbox` \"workspace-write\" for that"
FULL_DISK = "The disk of `{}` was full at the end: that may be why the task failed, and cut off what it wrote"
IDLE = "codex_reply continues the thread: say what hung, such as a command that waits for input. Or pass " \
       "a longer `idle_timeout_s`."
PASSING = (FailureKind.RATE_LIMIT, FailureKind.OVERLOADED, FailureKind.NETWORK)
TIME_IS_UP = "Its limit of {:g} s (`timeout_s`) passed"
NO_MESSAGE = "Codex ended without a final message: codex_diff shows what it changed, codex_reply can ask"


class Exec:
    """`codex exec --json`: how it is started, in which steps it is stopped, and what it came to. Another way
    to run codex would have the same face; the supervisor knows no more of it."""
    stop_steps = STOP_STEPS

    def __init__(self, host: Host, task: TaskDir, spec: Spec, environ: Mapping[str, str]) -> None:
        self.host, self.task, self.spec, self.environ = host, task, spec, environ
        self.tail = Tail(task.file("events.jsonl"))
        self.asked = self.ran = asked(spec.arguments, spec.overrides)

    def start(self) -> Union[int, Failure]:
        """The pid of codex, which has its prompt on stdin, or why there is none."""
        file, argv = self.task.file, launched(self.spec, codex_argv(self.spec, self.task.path))
        self.tail.progress = self.tail.progress._replace(error="")          # of an attempt before
        try:
            with open(prompt_of(self.task, self.spec.results), "rb", opener=private) as prompt, \
                    open(file("events.jsonl"), "ab", opener=private) as out, \
                    open(file("stderr.log"), "ab", opener=private) as err:
                return self.host.spawn(argv, self.spec.cwd, self.environ, prompt, out, err)
        except ToolError as error:
            return not_begun(error)
        except OSError as error:
            refused = error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC)
            missing = refused and error.filename == self.spec.codex
            kind = FailureKind.CODEX_MISSING if missing else FailureKind.UNKNOWN
            what = "--launcher: " if self.spec.launcher and error.filename == argv[0] else ""
            return failure(kind, what + reason_of(error))

    def follow(self) -> float:
        """Take in a piece of what codex has told, so that little is left to be read at its end. Returns after
        how many seconds there may be more."""
        before = self.tail.offset
        self.tail.refresh(FOLLOW_BYTES)
        came = self.tail.offset - before
        return 0.0 if came >= FOLLOW_BYTES else FOLLOW_S if came else LOOK_S

    def read(self, until: float) -> Progress:
        """What its events amount to. `ran` is then as codex noted it in the rollout of the thread, if it did,
        and no later than `until`."""
        import glob
        progress = self.tail.refresh()
        home = self.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")
        name = f"sessions/*/*/*/rollout-*-{glob.escape(progress.thread_id or '')}.jsonl"
        with contextlib.suppress(*UNREADABLE):
            for path in filter(os.path.isfile, glob.glob(os.path.join(glob.escape(home), name))):
                with open(path, "rb", opener=private) as f:
                    f.seek(max(0, os.fstat(f.fileno()).st_size - ROLLOUT_BYTES))
                    lines = iter(lambda: f.readline(1 << 20), b"")
                    self.ran = noted(lines, self.spec.created_at, until, self.ran)
        return progress

    def judge(self, exit_code: int) -> Tuple[Outcome, Optional[Failure]]:
        p, wanted, stderr = self.tail.progress, self.spec.thread_id, self.task.tail("stderr.log")
        outcome, kind = verdict(exit_code, p, wanted)
        how = f"Codex {how_it_ended(exit_code)}"
        if outcome is not Outcome.FAILED:
            return outcome, None
        if kind is None:
            why = classify(p.error, stderr) or failure(FailureKind.UNKNOWN, f"{how} without a word")
            at = reset_at(why.message, self.host.now()) if why.kind is FailureKind.USAGE_LIMIT else None
            advice = f"{why.advice} It ends at {utc(at)}." if at else why.advice
            return outcome, why._replace(retry_at=at, advice=advice)
        if kind is FailureKind.RESUME:
            return outcome, failure(kind, f"Codex answered in thread {p.thread_id} instead of {wanted}")
        none = p.turn is Turn.NONE
        last = "there was no turn event" if none else f"the last turn event was turn.{p.turn.value}"
        return outcome, failure(kind, f"{how}, and {last}. {p.error or clip(stderr[-300:], 300)}".strip())

    def again(self, failed: Failure, attempts: int) -> Tuple[float, Spec]:
        """When to go on after this failure, Unix seconds, infinity for never; and as what: in the thread,
        which a review does not have."""
        spec, thread_id = self.spec, self.tail.progress.thread_id
        passes = failed.retry_at or failed.kind in PASSING
        if spec.arguments.get("on_limit") != "wait" or spec.ephemeral or not passes:
            return float("inf"), spec
        if thread_id and not spec.review:
            spec = spec._replace(thread_id=thread_id, fork_of=None, goes_on=True)
        pause_s = min(BACKOFF_S[0] * 2 ** attempts, BACKOFF_S[1]) * (0.5 + os.urandom(1)[0] / 256)
        return max(self.host.now(), failed.retry_at or 0) + pause_s, spec

    def warnings(self) -> Tuple[str, ...]:
        by_itself = self.asked.sandbox is None and self.ran.sandbox == SANDBOXES[0]
        warnings = (*self.tail.progress.warnings, *rejections(self.task.tail("stderr.log")))
        return (READ_ONLY, *warnings) if by_itself else warnings


def prompt_of(task: TaskDir, results: Mapping[str, str]) -> str:
    """The file that codex gets: what the client wrote, with these results in it. They are text there: what
    looks like another name in one is none. Raises: ToolError, OSError."""
    written, whole = task.file("prompt"), task.file("stdin")
    if not results:
        return written
    if os.path.exists(whole):               # after another attempt
        return whole
    tasks = os.path.dirname(task.path)
    texts = {name: last_words(TaskDir(os.path.join(tasks, task_id))) for name, task_id in results.items()}
    with open(written, encoding="utf-8", newline="", opener=private) as f:
        text = f.read()
    filled = lambda found: texts.get(found[1], found[0])
    chars = len(text) + sum(len(filled(found)) - len(found[0]) for found in re.finditer(RESULT, text))
    if chars > MAX_PROMPT_CHARS:
        raise ToolError(f"With the results in it the prompt has {chars:,} characters",
                        f"Codex takes {MAX_PROMPT_CHARS:,}", "Let those tasks write files for it to read")
    with open(whole + ".new", "w", encoding="utf-8", errors="replace", newline="", opener=private) as f2:
        f2.write(re.sub(RESULT, filled, text))
    os.rename(whole + ".new", whole)
    return whole


def last_words(task: TaskDir) -> str:
    """The final message of a task that has ended; where it has none or failed, how it ended, too. Raises:
    ToolError where nothing tells."""
    missing = f"The result of task {task.task_id} cannot go into the prompt"
    events = task.file("events.jsonl")
    if not os.path.isdir(task.path):
        raise ToolError(missing, "Its record was removed", "Start the task again without it")
    try:
        report = task.report()
        content = content_of(task, report) or ""
    except FileNotFoundError:
        told = Tail(events).refresh().message or ""
        return f"(Task {task.task_id} was lost: its supervisor left no report.)\n\n{told}".rstrip()
    except UNREADABLE as error:
        raise_if_exhausted(error)
        why = f"Its record is damaged: {type(error).__name__}"
        raise ToolError(missing, why, f"Look into `{task.path}`")
    if report.outcome is Outcome.SUCCEEDED:
        gone = report.in_events and not os.path.exists(events)
        how = "; its final message is gone with its events" if gone else " without a final message"
        return content or f"(Task {task.task_id} succeeded{how}.)"
    why = report.failure.message if report.failure else "nothing tells why"
    return f"(Task {task.task_id} did not succeed: {why})\n\n{content}".rstrip()


def end_elsewhere(host: Host, spec: Spec) -> str:
    """End what the launcher of a task may have left running. What went wrong, if anything. Blocks."""
    command = command_to_end(spec)
    try:
        done = host.run(command, "/") if command else Done(0, "", "")
    except OSError as error:
        done = Done(1, "", reason_of(error))
    why = f"`{shell_words(command)}` failed: {clip(done.err, 300)}"
    return f"Something of this task may still run, since {why}" if done.code else ""


class Idle:
    """For how long a task has shown no sign of life: no event, no output, no CPU to speak of. That of codex
    itself says nothing, as it is never quite still (0.169.0), but that of its commands and servers; none of
    these where a launcher starts it, as they may be anywhere."""

    def __init__(self, host: Host, task: TaskDir, limit_s: float, launcher: bool = False) -> None:
        self.host, self.limit_s, self.launcher = host, limit_s, launcher
        self.files = [task.file(name) for name in ("events.jsonl", "stderr.log", "setup.log")]
        self.modified, self.done = [], (0.0, 0)     # type: List[float], Tuple[float, int]
        self.alive_at = self.looked_at = host.monotonic()

    def seconds(self, child: int, codex_pid: Optional[int]) -> float:
        """Since the last sign of what runs now: codex or the setup command. Its processes are looked at
        after each quarter of the limit without another one."""
        now = self.host.monotonic()
        before, self.modified = self.modified, list(map(modified_at, self.files))
        alive = self.modified != before
        if not alive and now >= max(self.alive_at, self.looked_at) + self.limit_s / 4:
            working = self.host.descendants(child) | {child} - {codex_pid}
            cpu_s, written = self.host.done_by(() if codex_pid and self.launcher else working)
            cpu_before_s, written_before = self.done
            alive = written > written_before or cpu_s - cpu_before_s > IDLE_CPU * (now - self.looked_at)
            self.done, self.looked_at = (cpu_s, written), now
        self.alive_at = now if alive else self.alive_at
        return now - self.alive_at


def answered(spec: Spec, message: str) -> Tuple[Any, Tuple[str, ...]]:
    """(the final message of a task that succeeded, as `output_schema` wants it; warnings)."""
    schema = spec.arguments.get("output_schema")
    data, misfit = structured(schema, message) if schema is not None and message else (None, "")
    return data, ("" if message.strip() else NO_MESSAGE, misfit)


def room_for(trees: str, least: int) -> int:
    """MiB that are free for worktrees. Raises: ToolError where that is too little."""
    free = free_mb(existing(trees))
    if free < least:
        raise ToolError(f"No worktree is made: {free:,} MiB are free in `{trees}`",
                        f"CODEX_SWARM_MIN_FREE_MB asks for {least:,}",
                        "`codex-mcp-swarm sweep` removes what is old and says why it keeps the rest. "
                        "CODEX_SWARM_WORKTREE_DIR names another place, CODEX_SWARM_MIN_FREE_MB the limit")
    return free


def with_tree(host: Host, environ: Mapping[str, str], task: TaskDir, spec: Spec) -> Union[Spec, Failure]:
    """The spec with the worktree that was planned, which begins with the snapshot of another task."""
    assert spec.planned is not None
    path, branch, base, *_ = spec.planned
    tasks, other = os.path.dirname(task.path), base[len(TASK_BASE):]
    trees = Trees(Git(host, environ, own=os.path.join(os.path.dirname(tasks), "git")))
    try:
        left = snapshot_of(TaskDir(os.path.join(tasks, other)))
        room_for(os.path.dirname(path), spec.min_free_mb)
        tree = trees.add(spec.checkout, left.head or "", path, branch)
        with contextlib.ExitStack() as undo:
            undo.callback(trees.discard, spec.checkout, path, branch)
            make_inside(tree, spec.cwd)
            check_project(tree, spec)
            tree = tree._replace(below=left.below or left.baseline)
            spec = spec._replace(worktree=tree, planned=None)
            write_atomic(task.file("spec.json"), to_json(spec))
            undo.pop_all()
        return spec
    except ToolError as error:
        return not_begun(error)
    except OSError as error:
        return failure(FailureKind.SETUP, f"The worktree could not be made: {reason_of(error)}")


def snapshot_of(task: TaskDir) -> Worktree:
    """The worktree of a task that has ended, with the commit that it came to. Raises: ToolError."""
    tree = None
    with suppress_unless_exhausted(*UNREADABLE):
        tree = task.report().worktree
    if tree is None or tree.head is None:
        raise ToolError(f"There is no snapshot of task {task.task_id} to begin with",
                        tree and tree.unsaved or "Its record tells of none, or is gone",
                        "codex_status shows what became of it; `base` may be a branch, tag or commit, too")
    return tree


def check_project(tree: Worktree, spec: Spec) -> None:
    """What a task may write was decided by what lies in the checkout. Raises: ToolError where that of another
    task would open more."""
    if not depends_on_settings(spec):
        return
    for place in filter(lambda at: is_inside(at, tree.path), (spec.cwd, *directories_above(spec.cwd))):
        name = os.path.relpath(f"{place}/.codex/config.toml", tree.path)
        here, there = (text_in(os.path.join(top, name)) for top in (tree.path, spec.checkout))
        if workspace_settings(here) not in ({}, workspace_settings(there)):
            raise ToolError(f"`{name}` as the other task left it says what may be written",
                            "What this task may write was decided by what the checkout says",
                            "Look at it; then start this again with that task's branch as `base`")


def committed(git: Git, tree: Worktree, spec: Spec, outcome: Outcome,
              thread_id: Optional[str]) -> Tuple[Worktree, List[str]]:
    """The worktree, with all that lies there committed onto its branch. What was not stays there, and a
    warning says so."""
    how = "" if outcome is Outcome.SUCCEEDED else f" [{outcome.value}]"
    about = f"Codex task {spec.task_id} {outcome.value}, thread {thread_id}"
    try:
        return Snapshot(git, tree).take(f"{spec.title or 'Codex task'}{how}\n\n{about}\n")
    except (GitError, OSError) as error:
        why = f"{error.what}: {error.why}" if isinstance(error, GitError) else str(error)
        warning = f"The work was not committed: {why}. It is in `{tree.path}`, which is kept"
        return tree._replace(unsaved=why), [warning]


def strayed(git: Git, spec: Spec, tree: Optional[Worktree],
            edited: Sequence[str]) -> Tuple[Dict[str, Any], str]:
    """(what a task changed beyond its `write_paths`, without a worktree as far as its events tell; or why
    that is unknown)."""
    globs = spec.arguments.get("write_paths")
    if globs is None:
        return {}, ""
    try:
        if tree is not None and tree.head:
            at = git.within(tree.git_dir)
            names = [row.path for row in at.changed(spec.since or tree.start, tree.head)]
        else:
            top = repository_of(spec.cwd)[1]
            names = [os.path.relpath(os.path.realpath(file), top) for file in edited]
    except (GitError, OSError, ValueError) as error:
        return {}, f"Whether the task kept to its `write_paths` is unknown: {error}"
    within = Globs(globs)
    return some([name for name in names if name.startswith("../") or not within.cover(name)]), ""


def used(spec: Spec, by_thread: Optional[Usage]) -> Tuple[Optional[Usage], str]:
    """(what this turn used; why that is unknown)."""
    if by_thread and (spec.thread_id or spec.fork_of) and spec.usage_before is None:
        return None, "The usage of this turn is unknown: codex tells that of its whole thread, and no turn " \
                     "before it told any here"
    return by_thread and by_thread.since(spec.usage_before or Usage()), ""


def place_of_work(tree: Optional[Worktree], spec: Spec) -> str:
    if tree is None:
        return f"What it did is in `{spec.cwd}`"
    if tree.unsaved:
        return f"What it did is in `{tree.path}`"
    if tree.files_changed == 0 and not tree.left_out and not tree.ignored:
        return "It changed no file"
    return f"What it did is on the branch `{tree.branch}`"


class Supervisor:
    """One task from launch to report. `fds`: of its lock and, if it has one, its slot, which may change."""

    def __init__(self, task: TaskDir, host: Host, begun: Status, environ: Mapping[str, str], queue: Queue,
                 fds: List[int]) -> None:
        self.task, self.host, self.status = task, host, begun
        self.control = task.listen()
        self.queue, self.fds = queue, fds
        self.spec = task.spec()
        environ = in_home(elsewhere(environ), self.spec.codex_home)
        self.environ = {**environ, TASK_ENV: self.spec.task_id}             # git's, too: it may outlive us
        self.engine = Exec(host, task, self.spec, self.environ)
        self.began = host.monotonic() - max(0.0, host.now() - self.spec.created_at)     # with the request
        self.deadline = host.monotonic() + (self.spec.timeout_s or float("inf"))
        self.child: Optional[int] = None                # what runs now: the setup command, then codex
        self.exit_code: Optional[int] = None            # ... and how it ended
        self.steps: List[Tuple[float, int]] = []        # (when, signal) still to be sent to codex
        self.recorded: Set[int] = set()                 # its descendants then (where orphans are not adopted)
        self.stopped = ("", 0.0)                        # why, and when (Unix seconds)
        self.warnings = self.spec.warnings
        self.false_alarm = False                        # the FIFO was rung, and there was no order
        self.wake = wake_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        os.set_blocking(self.wake, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # what came before now writes its number as well

    def run(self) -> None:
        self.host.adopt_orphans()
        failed = None if self._take_orders(0) else self._settle_in()
        if failed is None and self.spec.setup and self.status.state is State.STARTING:
            failed = self._set_up()
        if failed is None and self.status.state is State.STARTING:
            failed = self._attempt()
        if self.status.pid is not None:         # else it was stopped before that, or codex cannot be started
            while failed is None and self._wait_out():
                failed = self._attempt()
            self._warn(end_elsewhere(self.host, self.spec))
        self._finish(failed)

    def _attend(self) -> None:
        """Sleep until the child has ended, and pass on to it what stops the task."""
        assert self.child is not None
        pause, limit_s = FOLLOW_S, self.spec.arguments.get("idle_timeout_s")
        idle = Idle(self.host, self.task, limit_s, bool(self.spec.launcher)) if limit_s else None
        while self.exit_code is None:
            limit = self.deadline if self.status.state is not State.STOPPING else float("inf")
            due = min(limit, self.steps[0][0]) if self.steps else limit
            self._take_orders(max(0.0, min(pause, due - self.host.monotonic())))
            self._reap()
            pause = self.engine.follow()
            now = self.host.monotonic()
            if idle and self.status.state is not State.STOPPING and self.exit_code is None:
                pause = min(pause, idle.limit_s / 4)
                self._check_idle(idle, self.child)
            while self.steps and now >= self.steps[0][0] and self.exit_code is None:
                self.host.signal_group(self.child, self.steps.pop(0)[1])

    def _wait_out(self) -> bool:
        """Whether the task goes on after a limit or an outage. Sleeps until that is over, without anything of
        the run that it ended; not at all where it lasts longer than `timeout_s` allows."""
        self.engine.tail.refresh()
        failed = self.engine.judge(self.exit_code or 0)[1]
        now, done = self.host.now(), self.status.attempts
        at, spec = self.engine.again(failed, len(done)) if failed else (float("inf"), self.spec)
        if at - now >= self.deadline - self.host.monotonic() or self.status.state is State.STOPPING:
            return False
        self._sweep()
        self.child, self.engine.spec = None, spec
        said = f"{utc(now)} {failed.kind.value}: {clip(failed.message, MESSAGE_CHARS)}" if failed else ""
        self._write(self.status._replace(pid=None, idle_since=None, waits_until=at, attempts=(*done, said)))
        limit = self.spec.max_parallel if len(self.fds) > 1 else 0
        close_all(*self.fds[1:])
        del self.fds[1:]
        while self.status.state is not State.STOPPING:
            if self.host.now() >= at and self.queue.rejoin(limit, self.fds):
                return True
            self._take_orders(max(0.0, at - self.host.now()) or LOOK_S)
        return False

    def _check_idle(self, idle: Idle, child: int) -> None:
        """End an idle task; its status says so before, from half of the time on."""
        idle_s = idle.seconds(child, self.status.pid)
        shows = idle_s >= idle.limit_s / 2
        if shows != bool(self.status.idle_since):
            self._write(self.status._replace(idle_since=self.host.now() - idle_s if shows else None))
        if idle_s >= idle.limit_s:
            self._stop(Outcome.TIMED_OUT, f"It was idle for {lasting(idle.limit_s)} (`idle_timeout_s`)")

    def _settle_in(self) -> Optional[Failure]:
        """Make the worktree that is planned, if any, and hold it. What stops the task calls git off."""
        if self.spec.planned is not None:
            self.host.called_off = lambda: ", since the task was stopped" if self._take_orders(0) else ""
            made = with_tree(self.host, self.environ, self.task, self.spec)
            self.host.called_off = None
            if isinstance(made, Failure):
                return made
            self.spec = self.engine.spec = made
        if self.spec.worktree is not None:
            with contextlib.suppress(OSError):
                hold(self.spec.worktree)
        return None

    def _set_up(self) -> Optional[Failure]:
        """Run the server's own command in the new worktree, as our user and outside of codex's sandbox."""
        assert self.spec.worktree is not None
        argv, cwd = ["/bin/sh", "-c", self.spec.setup, "setup", self.spec.checkout], self.spec.worktree.path
        try:
            with open(os.devnull, "rb") as no, open(self.task.file("setup.log"), "ab", opener=private) as log:
                self.child = self.host.spawn(argv, cwd, self.environ, no, log, log)
        except OSError as error:
            return failure(FailureKind.SETUP, f"`{self.spec.setup}` could not be run: {error.strerror}")
        self._attend()
        code, self.exit_code = self.exit_code or 0, None
        if code == 0 or self.status.state is State.STOPPING:
            return None
        tail = self.task.tail("setup.log").strip()[-600:]
        what = clip(self.spec.setup, LABEL_CHARS)
        return failure(FailureKind.SETUP, f"`{what}` {how_it_ended(code)}: {tail}")

    def _attempt(self) -> Optional[Failure]:
        started, self.exit_code = self.engine.start(), None
        if isinstance(started, Failure):
            return started
        self.child = started
        self._write(advance(self.status, "spawned", pid=started, waits_until=None))
        self._attend()
        return None

    def _take_orders(self, timeout_s: float) -> bool:
        """Sleep until something happens, at most `timeout_s`. True when the task is to stop now. Any task may
        ring at our door for ever: after a false alarm we do not listen for a while. An order is found without
        the bell, too."""
        listen = [self.wake] if self.false_alarm else [self.control, self.wake]
        ready = select.select(listen, [], [], min(timeout_s, LOOK_S))[0]
        rung = self.control in ready
        if rung:
            silence(self.control)
        ordered = self._ordered()
        self.false_alarm = rung and not ordered
        signals = set(os.read(self.wake, 4096)) - {signal.SIGCHLD} if self.wake in ready else set()
        if ordered or signals:
            by_signal = f"Its supervisor got {signal_name(min(signals))}" if signals else ""
            self._stop(Outcome.CANCELLED, by_signal or "It was cancelled")
        late = self.host.monotonic() >= self.deadline and self.status.state is not State.STOPPING
        if late:
            self._stop(Outcome.TIMED_OUT, TIME_IS_UP.format(self.spec.timeout_s))
        return ordered or late or bool(signals)

    def _ordered(self) -> bool:
        """Whether there is an order to stop, which gives the reserve its name back, or no place for one."""
        with contextlib.suppress(OSError):
            os.rename(self.task.file("stop"), self.task.file("reserve"))
            return True
        return not os.fstat(self.fds[0]).st_nlink

    def _stop(self, reason: Outcome, why: str) -> None:
        first = self.status.state is not State.STOPPING
        self.stopped = (why, self.host.now()) if first else self.stopped
        self._write(advance(self.status, "stop", stop_reason=reason))
        if first and self.child is not None:
            now = self.host.monotonic()
            self.steps = [(now + delay, getattr(signal, name)) for delay, name in self.engine.stop_steps]
            if not self.host.linux:
                self.recorded = self.host.descendants(self.child)

    def _write(self, status: Status) -> None:
        """A full disk ends no supervision: the status there is then behind, the lock tells the truth."""
        self.status = status
        try:
            self.task.write_status(status)
        except OSError as error:
            self.host.log("ERROR", f"{self.task.task_id}: status not written: {error}")

    def _reap(self) -> bool:
        """Collect whatever has ended, codex or an adopted orphan. False when there is no child left."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:           # os.waitstatus_to_exitcode is 3.9+
                killed = os.WIFSIGNALED(wait_status)
                self.exit_code = -os.WTERMSIG(wait_status) if killed else os.WEXITSTATUS(wait_status)

    def _sweep(self) -> None:
        """Kill what codex left behind until nothing is: its shell commands run in sessions of their own, out
        of reach of killpg, and under danger-full-access they outlive it. Supervisors of tasks that were
        started below us are asked instead, and get NESTED_S to bring the work home (on macOS they are not
        waited for). What will not die within SWEEP_S is told."""
        if self.child is None:
            return
        self.host.signal_group(self.child, signal.SIGKILL)
        self._end(self.recorded)
        began = since = self.host.monotonic()
        while self._reap():
            now = self.host.monotonic()
            gently = now < began + NESTED_S
            self._end(self.host.children(), gently)
            left = self.host.descendants(os.getpid())
            asked = self._end(left, gently)
            since = now if asked else since
            if now > since + SWEEP_S:
                return self._warn(f"{len(left)} processes of this task could not be killed")
            if select.select([self.wake], [], [], 0.2 if asked else 0.02)[0]:
                os.read(self.wake, 4096)

    def _end(self, pids: Iterable[int], gently: bool = True) -> bool:
        """Kill these processes; `gently`: ask supervisors among them to end, and leave alone what is below
        those. Whether there are any. Those of our own ROOT only: no sandbox lets a task make a lock there."""
        directories = {pid: self.host.about(pid)[1] for pid in pids if gently}
        ours = os.path.realpath(os.path.dirname(self.task.path))
        inner = {pid: os.path.basename(d) for pid, d in directories.items()
                 if d and os.path.realpath(os.path.dirname(d)) == ours}
        below = set().union(*map(self.host.descendants, inner))     # type: Set[int]
        self.host.kill(set(pids) - below - set(inner))
        self.host.kill(set(inner) - below, signal.SIGTERM)
        for task_id in inner.values():
            self._warn(f"Task {task_id}, which was started inside of this one, was stopped with it")
        return bool(inner)

    def _warn(self, *texts: str) -> None:
        self.warnings = add_warning(self.warnings, *texts)

    def _finish(self, failed: Optional[Failure]) -> None:
        self._sweep()
        p, code = self.engine.read(self.stopped[1] or float("inf")), self.exit_code
        judged, failed = (None, failed) if code is None else self.engine.judge(code)
        event = "spawn_failed" if code is None else "exited"
        end = advance(self.status, event, outcome=judged, exit_code=code)
        outcome = end.outcome or Outcome.FAILED
        data, amiss = answered(self.spec, p.message or "") if outcome is Outcome.SUCCEEDED else (None, ())
        self._warn(*amiss, *self.engine.warnings())
        tree = self._bring_home(outcome, p)
        outside, unsure = strayed(Git(self.host, self.environ, UNLOCK_S), self.spec, tree, p.files)
        self._sweep()                           # a filter of the user's may have left something running
        if outcome in (Outcome.CANCELLED, Outcome.TIMED_OUT):
            failed = self._interrupted(outcome, p, tree)
        (usage, uncounted), ran = used(self.spec, p.usage), self.engine.ran
        self._warn(unsure, uncounted)
        report = Report(
            outcome, round(self.host.monotonic() - self.began, 3), self.host.now(),
            code, p.thread_id or self.spec.thread_id, p.message, usage, p.usage, failed, tree,
            self.warnings, () if tree else p.files, outside_write_paths=outside,
            sandbox=ran.sandbox, model=ran.model, structured=data)
        self._file(report, end)

    def _interrupted(self, outcome: Outcome, p: Progress, tree: Optional[Worktree]) -> Failure:
        """The failure of a task that was stopped: at whose wish, what it was doing, where its work is."""
        kind, (why, at) = FailureKind(outcome.value), self.stopped
        p = p._replace(phase=Phase.LIMIT) if self.status.waits_until else p
        if kind is FailureKind.TIMED_OUT and p.phase in (Phase.NETWORK, Phase.RETRY):
            kind = _kind_of(p.detail.partition("(")[2]) or FailureKind.NETWORK
        detail = p.detail or (self.spec.setup if self.child is not None and self.status.pid is None else "")
        doing = f"{p.phase.value} (`{detail}`)" if detail else p.phase.value
        missing = "no network" if p.phase is Phase.NETWORK else "nothing new"
        last = self.engine.ran.noted_at or self.engine.tail.changed_at or self.spec.created_at
        so_long, place = f"{max(0.0, at - last):.0f} s", place_of_work(tree, self.spec)
        return failure(kind, f"{why} while {doing}, with {missing} for {so_long}. {place}",
                       IDLE if "idle_timeout_s" in why and kind is FailureKind.TIMED_OUT else "")

    def _bring_home(self, outcome: Outcome, p: Progress) -> Optional[Worktree]:
        """Commit the work, however the task ended (codex cannot: `.git` is read-only in its sandbox)."""
        tree = self.spec.worktree
        if tree is None:
            return tree
        limit = max(self.deadline, self.host.monotonic() + LOOK_S)
        self.host.called_off = lambda: self._called_off(limit)
        git = Git(self.host, self.environ, SNAPSHOT_S)
        tree, warnings = committed(git, tree, self.spec, outcome, p.thread_id)
        self.host.called_off = None
        self.warnings = add_warning((), *warnings, *self.warnings)       # there is room for so many only
        release(tree)
        return tree

    def _called_off(self, limit: float) -> str:
        """Why git is not to go on committing the work. Of a task that was stopped before, it may."""
        if self.status.state is State.STOPPING:
            return ""
        if self._ordered():
            return ", since a client cancelled the task"
        return ", since its time limit (`timeout_s`) passed" if self.host.monotonic() >= limit else ""

    def _file(self, report: Report, end: Status) -> None:
        """Write the report, then the end; on a full disk with the reserve, or without what the events say."""
        path = self.task.file("report.json")
        self._ordered()                         # too late, but the reserve is needed
        full = report._replace(warnings=add_warning((), FULL_DISK.format(self.task.path), *report.warnings))
        bare = full._replace(content=None, structured=None, in_events=True)
        for attempt in (report, full, bare):
            try:
                write_atomic(path, to_json(attempt))
                break
            except OSError as error:
                self.host.log("ERROR", f"{self.task.task_id}: report not written: {error}")
                with contextlib.suppress(OSError):
                    os.truncate(self.task.file("reserve"), 0)
        with contextlib.suppress(OSError):
            os.unlink(self.task.file("reserve"))
        self._write(end)


def supervisor_main(argv: Sequence[str]) -> int:
    """The supervisor's process. `argv`: the directory of its task, descriptors of its lock and, if it has
    one, slot. After the end of the task a child goes on here with the next one of the queue."""
    host, words, failed = Host(), list(argv), 0
    while words:
        task = TaskDir(words[0])
        queue = Queue(os.path.dirname(os.path.dirname(task.path)))
        try:
            supervised(host, task, queue, words[1:], os.environ)
        except Exception:               # a bug of ours: the lock goes, readers see LOST, the log says why
            host.log("ERROR", f"{task.path}: supervisor failed", trace=True)
            failed = 1
        try:
            again = task.is_queued()            # it would fail for ever: the next question tries it again
            words = [] if again else host.succeed(queue.due(host))
        except OSError as error:
            host.log("ERROR", f"The next task was not launched: {reason_of(error)}")
            return 1
    return failed


def supervised(host: Host, task: TaskDir, queue: Queue, descriptors: Sequence[str],
               environ: Mapping[str, str]) -> None:
    """One task."""
    inherited = [int(word) for word in descriptors]
    fds = list(map(os.dup, inherited))          # low numbers, for select(2); not inheritable, so not codex's
    close_all(*inherited)
    try:
        begun = advance(Status(State.QUEUED), "launch", began_at=host.now())
        task.write_status(begun, lasting=False)     # on a full disk it stays queued
        environ = task.environ(environ)
        queue.drop(task)
        supervisor = Supervisor(task, host, begun, environ, queue, fds)
        supervisor.run()
    finally:
        close_all(*fds)                     # now, not some milliseconds later when the interpreter has gone
    close_all(supervisor.control, supervisor.wake, signal.set_wakeup_fd(-1))


# ======================================================================================
# 11. SWARM  (the application and the Python API; returns data, knows no JSON-RPC)
# ======================================================================================
class Client(NamedTuple):
    """Who calls, and what it can take."""
    name: str = ""

    @property
    def wait_s(self) -> float:
        return WAIT_S_CODEX if self.name == CODEX_CLIENT else WAIT_S

    @property
    def result_chars(self) -> int:
        return RESULT_CHARS_CODEX if self.name == CODEX_CLIENT else RESULT_CHARS

    @property
    def shows_structured(self) -> bool:
        """Whether its model sees structuredContent, and that alone. Source: Claude Code 2.1.329, Codex
        0.169.0."""
        return self.name in (CODEX_CLIENT, "claude-code")


class Call:
    """All that the application sees of a request: whom it serves, whether it was cancelled, and a way to tell
    of progress: in words, and where things are counted how many of how many are done."""

    def __init__(self, client: Client = Client(), tell: Optional[Callable[..., None]] = None) -> None:
        self.client, self.tell = client, tell
        self.cancelled = False          # set once, by the reader of the protocol, which then wakes Watch
        self.cancel_reason = ""
        self.waiting = False            # all that it does besides waiting has been done
        self.given: Sequence[str] = ()  # the ended tasks whose results are in the answer to the end
        self.started: List[str] = []    # the tasks that it started, to be stopped when it is abandoned
        self.notices = 0                # of progress, so far
        self.request_id = ""            # under which the same call, made again, finds what it started

    @property
    def abandoned(self) -> bool:
        """Cancelled by somebody's wish, not because the client's patience ended.

        Source: Claude Code 2.1.329 sends `SdkError: Request timed out` for its own limit, `AbortError:
        user-cancel` for Esc."""
        return self.cancelled and not re.search(r"time[d-]?[ -]?out|deadline", self.cancel_reason, re.I)


class Plan(NamedTuple):
    """A checked request, before anything exists: the spec, its prompt, the commit for a new worktree of its
    checkout, if one is wanted, whether the uncommitted changes there go into it, and what is to be merged
    into the worktree of a reply."""
    spec: Spec
    prompt: str
    base: str = ""
    carry: bool = False
    update_from: Optional[Part] = None


class Touched(NamedTuple):
    """The files of a repository, relative to its top, that a task touched, and when it ran (Unix seconds)."""
    task_id: str
    repository: str
    files: FrozenSet[str]
    began_at: float
    ended_at: float


class Wish(NamedTuple):
    """How tasks are to be merged."""
    dry_run: bool = False
    into: str = ""                      # a new branch, or HEAD
    base: str = "HEAD"
    squash: bool = False
    partial: bool = False
    cwd: str = ""
    verify: Optional[bool] = None


class Target(NamedTuple):
    """Where a merge is made."""
    merge_id: str
    at: At                              # the checkout
    onto: str                           # the commit there that it goes on top of
    branch: str                         # to be made; empty: the one that is checked out moves


class Side(NamedTuple):
    """One side of a comparison: the work of a task."""
    start: str                          # the commit that it began with
    end: str                            # the commit that it came to, or the tree object of what lies there
    live: bool = False                  # the latter
    edited: Sequence[str] = ()          # what codex said it edited
    within: Tuple[str, ...] = ()        # what is looked at unless the caller says
    note: str = ""
    left_out: Mapping[str, Any] = {}
    ignored: Mapping[str, Any] = {}


class Seen(NamedTuple):
    """What one look at a task found."""
    task: TaskDir
    spec: Spec                          # little more than the id, where it cannot be read
    status: Status
    report: Optional[Report] = None     # how it ended; without a report the events tell; None: it has not
    progress: Progress = Progress()     # of one that has not ended
    phase_at: float = 0.0               # when its phase began, and when its last event came; Unix seconds
    changed_at: float = 0.0
    damage: str = ""                    # why spec.json cannot be read

    @property
    def ended(self) -> bool:
        return self.status.state is State.ENDED

    @property
    def thread_id(self) -> Optional[str]:
        return self.report.thread_id if self.report else self.progress.thread_id or self.spec.thread_id

    @property
    def worktree(self) -> Optional[Worktree]:
        return self.report and self.report.worktree or self.spec.worktree

    @property
    def files(self) -> Sequence[str]:
        """What codex said it edited, where nothing else tells what it changed."""
        return self.report.files if self.report else self.progress.files

    def whole(self, what: str) -> "Seen":
        """For those who cannot do with less. Raises: ToolError, which says `what` is not possible, for a
        damaged one."""
        if self.damage:
            raise ToolError(what, f"Its record is damaged: {self.damage}", f"Look into `{self.task.path}`")
        return self


class Known:
    """What this process remembers of a task until it has left the index of those that have not ended."""

    def __init__(self, task: TaskDir) -> None:
        self.task, self.tail = task, Tail(task.file("events.jsonl"))
        self.watched = False                        # set by View.watch
        self.ended = False                          # guarded by `Watch.changed`
        self.failed = False                         # set before `ended`
        self.buried = False                         # it was lost, and what it left running is killed
        self.name, self.place, self._looked_at = "", "", 0.0

    def read(self, now: float, queue: Sequence[str]) -> "Known":
        """What it does; `now` is a monotonic clock, `queue` its names. One look serves all who ask within
        half of PROGRESS_GAP_S."""
        if now >= self._looked_at + PROGRESS_GAP_S / 2:
            self._looked_at, self.place = now, Queue.place(self.task.task_id, queue)
            self.tail.refresh()
            self.name = self.name or self._title() or self.task.task_id[:4]
        return self

    @property
    def progress(self) -> Progress:
        return Progress(phase=Phase.QUEUED, detail=self.place) if self.place else self.tail.progress

    def _title(self) -> str:
        with contextlib.suppress(*UNREADABLE):
            return clip(self.task.spec().title, 40)
        return ""


class View:
    """What tasks came to. Each is read once, by one rule for what is damaged: that of one record makes a
    poorer record of that task, and no more. It writes nothing. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()               # guards `_known`; leaf lock
        self._known: Dict[str, Known] = {}

    def known(self, task: TaskDir) -> Known:
        with self._lock:
            return self._known.setdefault(task.task_id, Known(task))

    def watch(self, task: TaskDir) -> Tuple[Known, bool]:
        """(what is known of a task whose end a thread of this process waits for, whether one did already)."""
        with self._lock:
            known = self._known.setdefault(task.task_id, Known(task))
            already, known.watched = known.watched, True
        return known, already

    def running(self, task_id: str) -> Tuple[Optional[Known], bool]:
        """(what is known of a task unless it has ended or is gone, whether it failed). No file is looked at
        while a thread of this process waits for its end, no record is read of one that has a supervisor.
        Raises: OSError when the system is exhausted."""
        known = self._known.get(task_id)
        if known is not None and known.watched and not known.ended:
            return known, False
        with suppress_unless_exhausted(ToolError, OSError):
            task = self.store.get(task_id)
            status = None if is_held(task, task.file("lock")) else task.status()
            if status is None or status.state is not State.ENDED:
                return self.known(task), False
            return None, status.outcome in FAILURES
        return None, False

    def forget(self, but: Container[str]) -> None:
        """Forget all tasks but these, and those that are watched: one may be younger than the list."""
        with self._lock:
            self._known = {task_id: known for task_id, known in self._known.items()
                           if task_id in but or known.watched and not known.ended}

    def of(self, task_id: str) -> Seen:
        """Raises: ToolError when there is no such task; OSError when the system is exhausted."""
        task = self.store.get(task_id)
        status = Status(State.ENDED, Outcome.LOST)          # where its lock has gone: nobody can tell
        with suppress_unless_exhausted(OSError):
            status = task.status()
        spec, damage = task.spec_or_damage()
        if damage:
            self.store.get(task_id)                         # unless it was swept away just now
        seen = Seen(task, spec, status, damage=damage)
        if seen.ended:
            return self._with_report(seen)
        if status.state is State.QUEUED:
            why = f"after {', '.join(spec.depends_on)}" if spec.depends_on else ""
            queue = self.store.queue.names()
            least = Queue.bound(task_id, queue)
            behind = f"after one that waits until fewer than {least} run" if least < spec.max_parallel else ""
            why = why or behind or f"at most {spec.max_parallel} run at once"
            waits = f"{Queue.place(task_id, queue)}, {why}"
            return seen._replace(progress=Progress(phase=Phase.QUEUED, detail=waits))
        tail = self.known(task).tail
        progress, until = tail.refresh(), status.waits_until
        if until:
            progress = progress._replace(phase=Phase.LIMIT, detail=f"until {utc(until)}")
        return seen._replace(progress=progress, phase_at=tail.phase_at, changed_at=tail.changed_at)

    def _with_report(self, seen: Seen) -> Seen:
        task, why = seen.task, "The supervisor left no report"
        try:
            report = task.report()
        except UNREADABLE as error:
            raise_if_exhausted(error)
            if not isinstance(error, FileNotFoundError):
                why = f"report.json cannot be read: {type(error).__name__}"
            return seen._replace(report=self._salvaged(seen, why))
        warnings = (*(seen.spec.warnings if seen.damage else ()), *report.warnings)
        return seen._replace(report=report._replace(
            content=content_of(task, report), in_events=False, warnings=warnings))

    @staticmethod
    def _salvaged(seen: Seen, why: str) -> Report:
        """The report of a task whose own cannot be had; the events tell how far it came."""
        tail, spec, status = Tail(seen.task.file("events.jsonl")), seen.spec, seen.status
        progress = tail.refresh()
        last = tail.changed_at or spec.created_at
        lost = None
        if status.outcome is Outcome.LOST:
            came = f"after {progress.events} events, while {progress.phase.value}"
            came = came if progress.events else "before codex wrote anything"
            lost = failure(FailureKind.LOST, f"The supervisor of the task ended without a report {came}")
        return Report(
            status.outcome or Outcome.LOST, max(0.0, last - spec.created_at), last, status.exit_code,
            progress.thread_id or spec.thread_id, progress.message, thread_usage=progress.usage, failure=lost,
            worktree=spec.worktree, files=() if spec.worktree else progress.files,
            warnings=(*spec.warnings, *progress.warnings, f"{why}: this is what the events tell"))


VERBS: Mapping[Phase, str] = {
    Phase.COMMAND: "running", Phase.EDIT: "editing", Phase.TOOL: "calling", Phase.SEARCH: "searching for",
    Phase.AGENTS: "working with sub-agents:"}


FAILURES = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST)


def summary(running: Sequence[Known], total: int, failed: int, now: float) -> str:
    """``3 of 8 done, 1 failed; `Fix crash` running `pytest -q` for 41 s``: the tasks that still run, the one
    that changed last first."""
    def words(one: Known) -> str:
        p, since = one.progress, one.tail.phase_at
        does = f"{VERBS[p.phase]} `{clip(p.detail, 60)}`" if p.detail and p.phase in VERBS else p.phase.value
        does = f"queued ({p.detail} in line)" if p.phase is Phase.QUEUED else does
        return f"`{one.name}` {does}" + (f" for {age(now, since):.0f} s" if since else "")
    doing = ", ".join(map(words, sorted(running, key=lambda one: -one.tail.phase_at)[:3]))
    more = f", and {len(running) - 3} more" if len(running) > 3 else ""
    ended = f"{total - len(running)} of {total} done" + (f", {failed} failed" if failed else "")
    return ended + (f"; {doing}{more}" if doing else "")


def age(now: float, then: float) -> float:
    return round(max(0.0, now - then), 1)


class Ticker:
    """Tells a waiting client what goes on: at each change of phase, at most every PROGRESS_GAP_S, at least
    every HEARTBEAT_S."""

    def __init__(self, waited_for: Sequence[Known], call: Call, queue: Queue) -> None:
        self.waited_for, self.tell, self.queue = waited_for, call.tell, queue
        self.shown: Any = None
        self.shown_at = -HEARTBEAT_S

    def tick(self, running: Sequence[Known], monotonic: float, now: float) -> None:
        if self.tell is None or not running:
            return
        queue = self.queue.names()
        seen = [(known.read(monotonic, queue).name, known.progress.phase, known.progress.detail)
                for known in running]
        fresh = seen != self.shown or monotonic - self.shown_at >= HEARTBEAT_S
        if fresh:
            self.shown, self.shown_at = seen, monotonic
            total, failed = len(self.waited_for), sum(known.failed for known in self.waited_for)
            self.tell(summary(running, total, failed, now), total - len(running), total)


class Watch:
    """Who waits for tasks, and which have not ended. A waiter sleeps until the kernel wakes it: one thread
    for each task that is waited for, asleep in flock(2)."""

    def __init__(self, view: View, host: Host, environ: Optional[Mapping[str, str]]) -> None:
        self.view, self.store, self.host = view, view.store, host
        self.environ = environ                      # for supervisors; None: that of this process
        # Guards `ended` of every Known. A watcher notifies when it sets that, and `wake` when a call was
        # cancelled. Nothing is called or locked while it is held.
        self.changed = threading.Condition()
        self.closing = False                        # set once: what is not launched yet is left to others
        # Task id -> how many answers with its result are on their way to a client: whoever sends them counts.
        self.giving: Counter[str] = collections.Counter()

    def begin(self, task: TaskDir, child: Any = None) -> Known:
        """See that whoever waits learns of the end of this task. `child` is reaped then.

        Raises: ToolError when the system has no thread left."""
        known, already = self.view.watch(task)
        if already:
            return known

        def until_the_end() -> None:
            try:
                task.join()
                while task.is_queued():             # its supervisor was killed before it began
                    self.look_for_lost()            # which also gives it a place again where that is lost
                    time.sleep(PROGRESS_GAP_S)
                    task.join()
                outcome = task.status().outcome
                known.failed = outcome in FAILURES
                self.host.log("INFO", f"{task.task_id}: {outcome and outcome.value}")
                if outcome is Outcome.LOST:
                    self._bury(known)
            except Exception:                       # a bug, a broken directory: nobody must wait for ever
                if os.path.isdir(task.path):        # else it has been removed
                    self.host.log("ERROR", f"{task.task_id}: watcher failed", trace=True)
            finally:
                with self.changed:
                    known.ended = True
                    self.changed.notify_all()
            if child is not None:
                child.wait()                        # it has let go of the lock and is about to exit
        try:
            threading.Thread(target=until_the_end, name=f"watch-{task.task_id}", daemon=True).start()
        except RuntimeError:
            known.watched = False
            raise ToolError(f"Nobody can wait for task {task.task_id} now",
                            "The system has no thread left for another",
                            "It goes on, as does whatever was started: codex_status lists it. Wait for fewer "
                            "tasks at once")
        return known

    def _bury(self, known: Known) -> None:
        task_id = known.task.task_id
        if not known.buried and self.host.kill_marked(task_id):
            self.host.log("WARNING", f"{task_id}: its supervisor was killed; killed what it left running")
        with contextlib.suppress(*UNREADABLE):
            trouble = "" if known.buried else end_elsewhere(self.host, known.task.spec())
            if trouble:
                self.host.log("WARNING", f"{task_id}: {trouble}")
        known.buried = True

    def close(self) -> None:
        """The server ends: nothing is started or merged any more."""
        self.closing = True
        self.wake()

    def wake(self) -> None:
        """Let every waiting call look again at whether it was cancelled."""
        with self.changed:
            self.changed.notify_all()

    def move(self, how: int = fcntl.LOCK_NB) -> None:
        """Let all tasks begin that may, as every question does. With 0, for whoever has just put one in, it
        raises OSError; else another question tries again."""
        try:
            for task, fds in () if self.closing else self.store.queue.due(self.host, how):
                self.launch(task, fds)
        except OSError as error:
            self.host.log("INFO", f"A queued task was not launched: {reason_of(error)}")
            if not how:
                raise

    def launch(self, task: TaskDir, fds: Sequence[int]) -> None:
        """Raises: OSError."""
        child = self.host.launch_supervisor(self.store.root, task.path, fds, self.environ)
        self.host.log("INFO", f"{task.task_id}: launched")
        with contextlib.suppress(ToolError):            # no thread left: a later wait watches it
            self.begin(task, child)

    def _are_queued(self, waited_for: List[Known]) -> bool:
        """Watch those that are not queued any more; who has been forgotten meanwhile is known anew. Whether
        some are queued."""
        if all(known.watched for known in waited_for):
            return False
        self.move()
        queued = self.store.queue.ids()
        waited_for[:] = [k if k.task.task_id in queued else self.begin(k.task) for k in waited_for]
        return any(known.task.task_id in queued for known in waited_for)

    def wait(self, task_ids: Sequence[str], timeout_s: float, call: Call, mode: str = "all") -> None:
        """Block until all or any of the tasks have ended, `timeout_s` has passed, or the call is cancelled.
        Costs nothing meanwhile, but for a look at the sizes of the event files once a second while the call
        wants progress. Raises: ToolError for an unknown task."""
        waited_for = [self.view.known(self.store.get(task_id)) for task_id in dict.fromkeys(task_ids)]
        call.waiting = True
        enough = any if mode == "any" else all
        done = lambda: call.cancelled or enough(known.ended for known in waited_for)
        news = lambda: done() or queued and any(known.ended for known in running)
        end = self.host.monotonic() + timeout_s
        ticker = Ticker(waited_for, call, self.store.queue)
        while True:
            queued = self._are_queued(waited_for)
            with self.changed:
                running = [known for known in waited_for if not known.ended]
            ticker.tick(running, self.host.monotonic(), self.host.now())
            left = end - self.host.monotonic()
            with self.changed:
                self.changed.wait_for(news, min(left, PROGRESS_GAP_S) if call.tell or queued else left)
                if done() or left <= 0:
                    return

    def stop(self, task_ids: Sequence[str]) -> None:
        """End those that are queued, ask the supervisors of all others to stop them, and return at once."""
        for task_id in task_ids:
            with contextlib.suppress(ToolError):
                task = self.store.get(task_id)
                with contextlib.suppress(OSError):
                    if self.store.queue.cancel(task, self.host.now()):
                        self.view.known(task).ended = True
                task.stop()
        self.wake()

    def collected(self, task_ids: Sequence[str]) -> None:
        """Remember that a client has been given the results of these tasks: what nobody has collected is kept
        for longer."""
        noted: List[str] = []
        for task_id in task_ids:
            with contextlib.suppress(ToolError, OSError):
                self.store.get(task_id).collect()
                noted.append(task_id)
        if noted:
            with contextlib.suppress(OSError):
                self.store.ended.collect(noted)

    def is_given(self, task: TaskDir) -> bool:
        """Whether a client has been given its result, or is just now."""
        return self.giving[task.task_id] > 0 or task.is_collected()

    def live(self) -> Dict[str, bool]:
        """Task id -> whether it runs, newest first: of all that do, and of those that were lost and that
        nobody was told of. What a lost one left running is killed. One flock(2) for each that runs, one look
        at each that has ended since the last time. Raises: OSError."""
        if os.path.isdir(self.store.tasks):
            self.store.index()
        born = lambda task_id: modified_at(os.path.join(self.store.live, task_id))
        ids = sorted(filter(re.compile(TASK_ID).fullmatch, names_in(self.store.live)), key=born, reverse=True)
        self.move()
        queued, found = set(self.store.queue.ids()), {}     # type: Set[str], Dict[str, bool]
        for task_id in ids:
            with contextlib.suppress(FileNotFoundError):        # another server has taken it out
                found[task_id] = task_id in queued or is_held(
                    TaskDir(os.path.join(self.store.tasks, task_id)), os.path.join(self.store.live, task_id))
        lost = self._settle([task_id for task_id, runs in found.items() if not runs])
        # one that is held and has no directory is being made
        found = {task_id: runs for task_id, runs in found.items()
                 if task_id in lost or runs and self.store.has(task_id)}
        self.view.forget(but=found)
        return found

    def _settle(self, task_ids: Sequence[str]) -> Set[str]:
        """Take those that have ended from `live` to the other indexes. What was lost stays until somebody was
        told of it, as do all where nothing can be written, and is returned."""
        ended: List[Seen] = []
        for task_id in task_ids:
            with contextlib.suppress(ToolError):            # swept, or its server was killed at its birth
                ended.append(self.view.of(task_id))
        ended.sort(key=lambda seen: seen.report.ended_at if seen.report else 0.0)
        lost = {seen.task.task_id for seen in ended if self._is_untold_loss(seen)}
        unwanted = [seen.task.task_id for seen in ended
                    if seen.status.outcome in (Outcome.LOST, Outcome.CANCELLED)]
        queued = {seen.task.task_id: seen for seen in ended if not seen.ended}      # their place was lost
        over = [seen for seen in ended if seen.ended]
        threads = {**dict.fromkeys(task_ids), **{seen.task.task_id: seen.thread_id for seen in over}}
        with suppress_unless_exhausted(OSError):                     # a full disk: another time
            with self.store.queue.lock() if queued else contextlib.nullcontext():
                for seen in reversed(list(queued.values())):        # the oldest first
                    self.store.queue.put(seen.task, seen.spec, self.host.now())
            if over:
                self.store.ended.add([seen.task for seen in over], unwanted, self.host.now())
            for task_id in threads.keys() - lost - queued.keys():
                self.store.settle(task_id, threads[task_id])
            return lost
        return lost | {seen.task.task_id for seen in over}

    def _is_untold_loss(self, seen: Seen) -> bool:
        """Whether it was lost and nobody knows. What a lost one left running is killed."""
        if seen.status.outcome is Outcome.LOST:
            self._bury(self.view.known(seen.task))
        return seen.status.outcome is Outcome.LOST and not self.is_given(seen.task)

    def unended(self) -> List[str]:
        """The tasks that have not ended, newest first. Raises: OSError."""
        return [task_id for task_id, runs in self.live().items() if runs]

    def of_thread(self, thread_id: str) -> List[Seen]:
        """The tasks of a thread, the last one first."""
        found, live = [], self.live()       # asked first: from there what has ended goes to the other index
        for task_id in {*live, *self.store.settled(thread_id)}:
            with contextlib.suppress(ToolError):    # swept meanwhile
                found.append(self.view.of(task_id))
        found = [seen for seen in found if (seen.thread_id or "").lower() == thread_id.lower()]
        return sorted(found, key=lambda seen: (seen.spec.created_at, seen.task.task_id), reverse=True)

    def last_home(self, seen: Seen, branch: str) -> Tuple[str, Optional[Outcome]]:
        """The commit of the last reply to a task that was committed onto `branch`, and how that ended."""
        replies = self.of_thread(seen.thread_id) if seen.thread_id else []
        for reply in itertools.takewhile(lambda reply: reply.task.path != seen.task.path, replies):
            tree = reply.worktree
            if tree is not None and tree.head and tree.branch == branch:
                return tree.head, reply.status.outcome
        return "", None

    def named(self, name: str) -> List[str]:
        """The tasks for which something that we showed stands: a task id or its first 4 characters and more,
        a task's branch, the id of an MCP task, or a thread, which stands for the last task in it.

        Raises: ToolError when it stands for none, or is the beginning of several."""
        word = re.sub("^(refs/heads/)?codex-swarm/", "", name.strip())
        if self.store.has(word):                # what nearly all are: nothing is listed for it
            return [word]
        handle = self.store.handle(word)
        if handle is not None:
            return list(handle.wait.task_ids)
        if re.fullmatch(THREAD_ID, word):
            return [seen.task.task_id for seen in self.of_thread(word)[:1]] or [self.store.get(word).task_id]
        return [self._begun_with(word) or self.store.get(word).task_id]

    def task_or_ref(self, name: str, at: At) -> str:
        """The task for which a word stands that may name a branch, tag or commit as well, empty for none. A
        branch or tag of that very name goes before a short id, and that before a short commit. Raises:
        ToolError when it is the beginning of several ids."""
        word = re.sub("^(refs/heads/)?codex-swarm/", "", name)
        if self.store.has(word):
            return word
        is_ref = any(at.commit_of(f"refs/{kind}/{name}") for kind in ("heads", "tags"))
        return "" if is_ref else self._begun_with(word)

    def _begun_with(self, word: str) -> str:
        """The task whose id begins so, empty for none. Raises: ToolError for several."""
        begun: List[str] = []
        if re.fullmatch("[0-9a-fA-F]{4,12}", word):
            begun = [task_id for task_id in names_in(self.store.tasks) if task_id.startswith(word.lower())]
        if len(begun) > 1:
            raise ToolError(f"`{word}` is the beginning of {len(begun)} task ids",
                            ", ".join(sorted(begun)[:NAMES_SHOWN]), "Give more of the one that is meant")
        return "".join(begun)

    def check_idle(self, path: str, what: str) -> None:
        """Raises: ToolError when a task that has not ended may change files in the checkout at `path`."""
        for task_id in self.unended():
            top = ""
            with contextlib.suppress(ToolError, *UNREADABLE):
                spec = self.store.get(task_id).spec()
                if spec.arguments.get("sandbox") != SANDBOXES[0] and not spec.planned:
                    top = spec.worktree.path if spec.worktree else repository_of(spec.cwd)[1]
            if top and os.path.realpath(top) == os.path.realpath(path):
                why = f"Task {task_id} works in {path} now, and files would change under it"
                raise ToolError(what, why, "codex_wait for it first")

    def look_for_lost(self) -> None:
        """Kill what these left running; at the start of a server, which makes nothing where nothing is."""
        with contextlib.suppress(OSError):
            if os.path.isdir(self.store.live):
                self.live()

    def standing(self, task_ids: Sequence[str]) -> Tuple[List[str], str, float]:
        """(those that have ended, a summary of all, when the last event or end came), also for tasks of other
        servers. One that is not there any more counts as ended, unless its end is watched. Raises: OSError
        when the system is exhausted."""
        running, ended, failed, last = [], [], 0, 0.0
        self.move()
        queue = self.store.queue.names()
        for task_id in task_ids:
            known, has_failed = self.view.running(task_id)
            if known is not None:
                running.append(known.read(self.host.monotonic(), queue))
                last = max(last, known.tail.changed_at)
            else:
                ended.append(task_id)
                failed += has_failed
                last = max(last, modified_at(os.path.join(self.store.tasks, task_id, "status.json")))
        return ended, summary(running, len(task_ids), failed, self.host.now()), last


def one_named(watch: Watch, name: str) -> str:
    """Raises: ToolError."""
    ids = watch.named(name)
    if len(ids) > 1:
        some_ids = ", ".join(ids[:NAMES_SHOWN])
        raise ToolError(f"`{name}` stands for {len(ids)} tasks", some_ids, "Name one of them")
    return ids[0]


class Page(NamedTuple):
    """Tasks of a list that goes on at `cursor`; empty: it does not."""
    task_ids: List[str]
    cursor: str = ""
    left: int = 0                       # how many more nobody has collected, at most


class TaskRow(NamedTuple):
    """What a list says of a task; times of day are UTC."""
    task_id: str
    state: State
    outcome: Optional[Outcome]
    title: Optional[str]
    cwd: str                            # as asked for: not the worktree, but where that was made from
    branch: Optional[str]
    started: str
    ended: Optional[str]
    elapsed_s: float
    collected: Optional[bool]           # False, when nobody has been given the result
    damage: Optional[str]               # why little more than that can be told


class TaskRecord(NamedTuple):
    """What every tool says of a task, under these names; what does not apply is absent."""
    task_id: str
    title: Optional[str] = None
    state: State = State.ENDED
    outcome: Optional[Outcome] = None
    threadId: Optional[str] = None
    content: Optional[str] = None       # codex's final message
    structured: Optional[Mapping[str, Any]] = None
    failure: Optional[Failure] = None
    sandbox: Optional[str] = None
    model: Optional[str] = None
    usage: Optional[Usage] = None
    worktree: Optional[Worktree] = None
    outside_write_paths: Mapping[str, Any] = {}
    warnings: Tuple[str, ...] = ()
    exit_code: Optional[int] = None
    elapsed_s: Optional[float] = None
    findings: Tuple[Comment, ...] = ()
    progress: Mapping[str, Any] = {}    # of one that has not ended
    codex_home: Optional[str] = None
    on_limit: Optional[str] = None
    attempts: Tuple[str, ...] = ()
    started_at: Optional[float] = None  # Unix seconds


class Access(NamedTuple):
    """What workspace-write lets a task write, as real paths."""
    writable: List[str]
    closed: List[str]                   # which of codex's own places are closed to it
    network: bool                       # whether its commands reach it
    doubtful: List[str]                 # what may be open besides: `/` where nothing is certain, and what a
                                        # project asks for, which codex follows only where it trusts it


class Thread(NamedTuple):
    """A thread of codex's that a request continues; none for a new one."""
    thread_id: Optional[str] = None
    owner: Optional[Spec] = None        # the task that had it last; None: another program's
    usage: Optional[Usage] = None       # at the end of the last turn that told


class Mergeable(NamedTuple):
    """Ended tasks of one repository."""
    tasks: Dict[str, Tuple[Seen, Worktree]]     # with the commit of what each did
    common: str                         # git's directory that all have in common
    checkout: str                       # that they came from; empty where nothing tells


class Incoming(NamedTuple):
    """What tasks bring to a merge."""
    parts: List[Part]
    head: Optional[str]                 # where they were looked for; None while there is no commit
    warnings: List[str]


class Tried(NamedTuple):
    """A merge that was made aside."""
    merged: Merged
    going: List[Part]                   # what is in it
    rows: Sequence[Changed]
    findings: Mapping[str, Any]         # who conflicts, and what to do


class Verified(NamedTuple):
    """How the verify command ended on a merge."""
    command: str
    output: Optional[str]               # the end of what it said
    exit_status: int
    tried: Sequence[Mapping[str, int]] = ()     # {branches, exit_status}: how it ended on the first of them
    note: Optional[str] = None
    fault: Optional[str] = None         # the task with which it begins to fail
    passed: Optional[str] = None        # the commit before that, where the task does not have it


class Clash(NamedTuple):
    """A task that conflicts with others, or with what is merged into."""
    tasks: Sequence[str]                # it is the last one
    sides: Mapping[str, str]            # the name of a side between the markers -> whose that is
    with_: Optional[str] = None         # in JSON `with`: the commit, where there are no others
    files: Sequence[Conflict] = ()
    reply: Mapping[str, str] = {}       # the arguments of the codex_reply that has it united
    note: Optional[str] = None          # what comes before that
    files_left_out: Optional[int] = None


class MergeRecord(NamedTuple):
    """What codex_merge says, under these names; what does not apply is absent."""
    dry_run: bool
    onto: str                           # the commit
    merged: List[str]
    not_merged: List[str]
    conflicts: List[Clash]              # a Conflict is one file of one
    suggested_order: Optional[List[str]] = None     # in which most go in before the first conflict
    fitting: Optional[List[str]] = None     # ... and these do
    files_changed: int = 0
    insertions: int = 0
    deletions: int = 0
    warnings: Sequence[str] = ()
    already_in: Optional[List[str]] = None
    blocked: Optional[str] = None       # why the checkout could not be moved
    verify: Optional[Verified] = None
    branch: Optional[str] = None
    commit: Optional[str] = None
    undo: Optional[str] = None
    reply: Mapping[str, str] = {}       # the arguments of the codex_reply that has the fault mended
    advice: Optional[str] = None
    left_out: Optional[int] = None      # conflicts for which there was no room


class Room:
    """What all rooms below stand on."""

    def __init__(self, config: Config, environ: Mapping[str, str], git: Git, watch: Watch) -> None:
        self.ground = config, environ, git, watch
        self.config, self.environ, self.git, self.watch = self.ground
        self.host, self.view, self.store = watch.host, watch.view, watch.store


def commit_named(at: At, argument: str, name: str) -> str:
    """For what is no task. Raises: ToolError."""
    commit = at.commit_of(name) if name[:1] not in ("-", "^") else None
    if commit is None:
        raise ToolError(f"`{argument}`: `{clip(name, 100)}` names no task and no commit",
                        f"git finds none of that name in {at.cwd}", "Pass a task_id, or a branch")
    return commit


def no_directory(path: str) -> str:
    """Why there is none; empty where there is one."""
    return "" if os.path.isdir(path) else "is not a directory" if os.path.lexists(path) else "does not exist"


def _image_problem(path: str) -> str:
    if not os.path.isfile(path):
        return "is no file" if os.path.lexists(path) else "does not exist"
    length = os.path.getsize(path)
    if not 0 < length <= MAX_IMAGE_BYTES:
        return f"has {length:,} bytes; from 1 to {MAX_IMAGE_BYTES:,} are allowed"
    try:
        with open(path, "rb") as f:
            head = f.read(16)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if re.match(IMAGE, head, re.S) else "is neither PNG, JPEG, GIF nor WebP"


class Bounds(Room):
    """Where this server works, whose configuration git obeys there, and what of ours a task could reach. It
    decides and changes nothing."""

    def __init__(self, *ground: Any) -> None:
        super().__init__(*ground)
        self.answers: Dict[Tuple[str, float, str], str] = {}    # by a codex, of a time, to a word
        self.writable: Dict[str, List[str]] = {}         # task id -> where it could write

    def directory(self, given: str) -> str:
        try:
            path = os.path.abspath(os.path.expanduser(given))
        except OSError:
            raise ToolError("The server's own directory is gone", f"`cwd` {given} is relative to it",
                            "Pass an absolute `cwd`, or restart the server")
        if no_directory(path):
            raise ToolError(f"`cwd`: {clip(path, 300)} {no_directory(path)}",
                            "Codex needs an existing directory; a relative one is taken from the server's",
                            "Create it, or pass another `cwd`")
        return path

    def home(self, name: Optional[str]) -> str:
        """The CODEX_HOME of an account, empty for none. Raises: ToolError for one that the operator has not
        named."""
        homes = dict(self.config.codex_homes)
        if name and name not in homes:
            named = f"--codex-home names {', '.join(homes)}" if homes else "No --codex-home names one"
            raise ToolError(f"`codex_home`: this server has no account {_show(name)}", named,
                            "Pass one that is named, or leave it out for the server's own")
        return homes[name] if name else ""

    def check_allowed(self, path: str) -> None:
        """A worktree of ours counts as the checkout that it was made from.

        Raises: ToolError outside of what calls are bound to."""
        with contextlib.suppress(ToolError, *UNREADABLE):
            path = self.store.get(self.made_around(path)[0]).spec().checkout or path
        roots, common = self.config.allow_roots, repository_of(path)[0]         # a `.git` may lead elsewhere
        own = [repository_of(root)[0] for root in (*roots, os.sep)]             # the last: of what is in none
        allowed = any(is_inside(path, root) for root in roots)
        if roots and not (allowed and (common in own or any(is_inside(common, root) for root in roots))):
            raise ToolError(f"`cwd`: this server does not work in {path}",
                            f"It was started with --allow-root {' '.join(roots)}",
                            "Pass a directory in there")

    def with_files(self, arguments: Mapping[str, Any], cwd: str) -> Dict[str, Any]:
        """The arguments with absolute paths. Codex passes over what is not there or what it cannot read
        (codex-cli 0.169.0), so that is refused here. Raises: ToolError."""
        found = dict(arguments)
        for name, wrong in (("images", _image_problem), ("add_dirs", no_directory)):
            if any("\0" in given for given in found.get(name, ())):
                raise ToolError(f"`{name}` has a path with a NUL", "No file has one", "Remove it")
            if name in found:
                found[name] = [os.path.normpath(os.path.join(cwd, os.path.expanduser(given)))
                               for given in found[name]]
            for i, path in enumerate(found.get(name, ())):
                inside = any(is_inside(path, root) for root in self.config.allow_roots or [os.sep])
                why = wrong(path) if inside else "is outside of what --allow-root allows"
                if why:
                    raise ToolError(f"`{name}[{i}]`: {clip(path, 300)} {why}",
                                    "Codex would go on without it, and without a word",
                                    "Correct it and call again")
        return found

    def checkout(self, cwd: str, bare: bool = False) -> At:
        """As Git.around. git obeys what is configured there, with the rights of the server: it must be no
        task's making. Raises: as Git.around and check_settings."""
        task_id, made = self.made_around(cwd)
        at = self.git.around(cwd, bare)
        if task_id and not (made and os.path.realpath(at.git_dir) == os.path.realpath(made.git_dir)):
            raise GitError(f"{cwd} does not belong to the worktree of task {task_id} any more",
                           "Its `.git` leads elsewhere, and git would do what that says",
                           "Pass the user's own checkout as `cwd`, with the task's branch as `base`")
        self.check_settings(at.git_dir, at.common)
        return at

    def check_worktree(self, git_dir: str) -> None:
        """As check_settings, for the worktree of a task. Raises: as that, and where git would obey what is
        configured in another repository."""
        git_dir = os.path.realpath(git_dir)
        common = os.path.dirname(os.path.dirname(git_dir))
        there = leads_to(git_dir, "commondir") if os.path.isdir(git_dir) else common
        if there != common:
            raise GitError(f"{git_dir} does not belong to {common} any more",
                           f"Its `commondir` leads to {there or 'nowhere'}, and git would do what that says",
                           "Look who wrote that; git puts `../..` there")
        self.check_settings(git_dir, common)

    def check_settings(self, git_dir: str, common: str) -> None:
        """Of what a task could write, only what is plain is obeyed; codex keeps a `.git` from it where that
        lies at the top of what it may write. To be asked before git looks for any commit: one that is missing
        may be fetched, by a program that is named there. Raises: GitError; OSError when the system is
        exhausted."""
        odd = self.git.odd_settings(git_dir, common)
        for root in self._written_to() if odd else ():
            open_to_it = lambda path: is_inside(path, root) and not is_inside(path, f"{root}/.git")
            if open_to_it(git_dir) or open_to_it(common):
                raise GitError(f"git is not run with the configuration in {common}",
                               f"A task that could write in {root} may have set `{odd[0]}`, "
                               "and git obeys that with your rights",
                               "Look at it, and take out what is more than plain; "
                               "what you want of that, set in your own: `git config --global`")

    def _written_to(self) -> Set[str]:
        """Where tasks could write of which there is a record."""
        before, found = self.writable, {}                   # type: Dict[str, List[str]], Dict[str, List[str]]
        for task_id in self.store.ids():
            with contextlib.suppress(ToolError, *UNREADABLE):
                found[task_id] = before[task_id] if task_id in before else \
                    self._written_by(self.store.get(task_id).spec())
        self.writable = found
        return set(itertools.chain(*found.values()))

    def _written_by(self, spec: Spec) -> List[str]:
        if asked(spec.arguments, spec.overrides).sandbox == SANDBOXES[0]:
            return []
        return self._access(spec, self.config.worktree_dir if spec.checkout else spec.cwd).writable

    def made_around(self, cwd: str) -> Tuple[str, Optional[Worktree]]:
        """The id of the task for which the directory around `cwd` was made, empty for none, and its worktree,
        where its record tells."""
        if not is_inside(cwd, self.config.worktree_dir):
            return "", None
        trees = os.path.realpath(self.config.worktree_dir)
        task_id = os.path.relpath(os.path.realpath(cwd), trees).split(os.sep)[0]
        try:
            return task_id, self.store.get(task_id).spec().worktree
        except (ToolError, *UNREADABLE):
            return task_id, None

    def kept_out(self, spec: Spec, place: str) -> Spec:
        """The same with a permission profile in place of `sandbox`, where a task that works in `place` could
        write to what is ours: ROOT cannot even be read then, and nothing on the way to it be renamed.

        Source: codex-cli 0.154.0 to 0.169.0; with 0.144.6 no command runs in a worktree below what is
        read-only. Raises: ToolError where no profile helps."""
        if not depends_on_settings(spec):
            return spec
        access = self._access(spec, place)
        root, trees = os.path.realpath(self.config.root), os.path.realpath(self.config.worktree_dir)
        ours = {root: "none"} if is_inside(trees, root) else {root: "none", trees: "read"}
        within = [(own, top) for own in ours for top in access.writable if is_inside(own, top)]
        lost, doubt = self._lost(access.writable, root, trees), self._in_doubt(access, ours)
        if not within and not lost and not doubt:
            return spec
        first = {os.path.join(top, os.path.relpath(own, top).split(os.sep)[0]) for own, top in within}
        way = dict.fromkeys(sorted(first.difference(access.writable, ours)), "read")
        files = {**dict.fromkeys(access.closed, "read"), **way,
                 **dict.fromkeys(access.writable, "write"), **ours}
        why = self._no_profile(spec, lost, files)
        if why:
            part = f", part of `{within[0][1]}`, which is its to write" if within else ""
            raise ToolError(f"`cwd`: no task is started in {spec.cwd}",
                            f"It could change what other tasks keep in `{root}` or `{trees}`{part}: {why}",
                            "Pass `sandbox` (workspace-write or read-only), or another `cwd`; "
                            "CODEX_SWARM_TASK_DIR and CODEX_SWARM_WORKTREE_DIR name directories elsewhere")
        closed_way = f"This task cannot write in {', '.join(way)}: tasks are kept there" if way else ""
        unsure = "It is not certain what `writable_roots` opens: what is in doubt stays closed to this task"
        warnings = add_warning(spec.warnings, closed_way, unsure if doubt else "")
        profile = {"extends": ":workspace", "network": {"enabled": access.network}, "filesystem": files}
        return spec._replace(warnings=warnings, permissions=profile)

    def _lost(self, writable: Sequence[str], root: str, trees: str) -> List[str]:
        """What of ours is a task's to write, whatever a profile says."""
        ours = [top for top in writable
                if top == trees or is_inside(top, root) and not is_inside(top, trees)]
        open_to_it = lambda link: any(is_inside(os.path.dirname(link), top) for top in writable)
        return [*ours, *filter(open_to_it, self._links())]

    def _no_profile(self, spec: Spec, lost: Sequence[str], files: Iterable[str]) -> str:
        """Why no profile helps; empty where one does."""
        patterns = [path for path in files if re.search(r"[][*?]", path)]
        if lost:
            return f"`{lost[0]}` would be its to write"
        if asked(spec.arguments, spec.overrides).sandbox is None:
            return "without `sandbox` nobody knows what it may write"
        if spec.arguments.get("approve_for_me"):
            return "with `approve_for_me` it may leave its sandbox"
        if self.codex_version(spec.codex) < PROFILES_SINCE:
            return f"to keep them from it takes codex {dotted(PROFILES_SINCE)} or newer"
        return f"codex takes `{patterns[0]}` for a pattern, so it cannot keep it out" if patterns else ""

    def _links(self) -> List[str]:
        """The links on the way to what is ours: no profile keeps one from being turned."""
        names = (self.config.root, self.config.worktree_dir)
        return [link for name in names for link in (*directories_above(name), name) if os.path.islink(link)]

    def _in_doubt(self, access: Access, ours: Iterable[str]) -> bool:
        kept = (*ours, *map(os.path.dirname, self._links()))
        return any(is_inside(path, top) for path in kept for top in access.doubtful) or any(
            is_inside(top, own) for own in ours for top in access.doubtful)

    def _access(self, spec: Spec, place: str) -> Access:
        """Source: codex-cli 0.169.0, whose layers are /etc/codex, CODEX_HOME, `.codex` from the project's top
        to cwd, -c."""
        home, profile = spec.codex_home or self.config.codex_home, spec.arguments.get("profile")
        files = ["/etc/codex/config.toml", f"{home}/config.toml"]
        files += [f"{home}/{profile}.config.toml"] if profile else []
        asked_for = (*spec.overrides, *config_words(spec.arguments.get("config", {})))
        shut = {"exclude_slash_tmp": True, "exclude_tmpdir_env_var": True}
        given: Dict[str, Any] = {}
        doubtful: List[str] = []
        for text in (*map(text_in, files), *asked_for, text_in("/etc/codex/managed_config.toml")):
            found = workspace_settings(text)
            doubtful += ["/"] if found is None else []
            given.update(shut if found is None else found)
        for project in self._projects(home, spec.cwd, place):
            found = workspace_settings(text_in(f"{project}/config.toml"))
            if found is None or any(found.get(key) is False for key in shut):
                doubtful.append("/")
            else:
                doubtful += map(os.path.expanduser, found.get("writable_roots", []))
        given_roots = (*given.get("writable_roots", []), *spec.arguments.get("add_dirs", []))
        roots, closed = [os.path.expanduser(root) for root in given_roots], []
        doubtful += [root for root in roots if not os.path.isabs(root)]
        tmpdir = self.environ.get("TMPDIR", "")
        for own, key, path in ((":slash_tmp", "exclude_slash_tmp", "/tmp"),
                               (":tmpdir", "exclude_tmpdir_env_var", tmpdir)):
            if given.get(key):
                closed.append(own)
            else:
                roots.append(path)
        there = filter(os.path.isdir, filter(os.path.isabs, roots))
        return Access([os.path.realpath(path) for path in (place, *there)], closed,
                     given.get("network_access") is True,
                     [os.path.realpath(path) if os.path.isabs(path) else "/" for path in doubtful])

    def _projects(self, home: str, *places: str) -> List[str]:
        """The `.codex` of projects around these places."""
        around = {directory for path in places for directory in (path, *directories_above(path))}
        there = [path for path in (f"{directory}/.codex" for directory in around) if os.path.lexists(path)]
        return [path for path in there if os.path.realpath(path) != os.path.realpath(home)]

    def codex(self) -> str:
        """The path of the executable that runs tasks. Raises: ToolError."""
        return find_codex(self.config.codex_bin, self.environ.get("PATH", os.defpath))

    def codex_version(self, path: str) -> Tuple[int, ...]:
        """Of the executable at `path`; empty where it does not tell. Raises: OSError."""
        found = re.search(r"(\d+)\.(\d+)\.(\d+)", self._codex_says(path, "--version"))
        return tuple(map(int, found.groups())) if found else ()

    def check_known(self, spec: Spec) -> None:
        """Codex ends at a word that it does not know. One whose help tells nothing is left to try it. Raises:
        ToolError, OSError."""
        for name, word in needed(spec).items():
            help_text = self._codex_says(spec.codex, "exec --help")
            in_help = re.findall(r"(?m)^ +(?:-\w, +)?(--[\w-]+|[a-z]+)\b", help_text)
            if in_help and word not in in_help:
                version = dotted(self.codex_version(spec.codex)) or "of an unknown version"
                raise ToolError(f"`{name}` is not possible", f"{spec.codex} is {version}: it has no `{word}`",
                                "Update codex (`npm install -g @openai/codex`), or leave it out")

    def _codex_says(self, path: str, words: str) -> str:
        """What the executable at `path` answers, which is asked once. Raises: OSError."""
        key = (path, os.stat(path).st_mtime, words)
        if key not in self.answers:
            self.answers[key] = self.host.run([path, *words.split()], "/", timeout_s=10).out
        return self.answers[key]


class Worktrees(Room):
    """The worktrees of tasks: where each is made from, and how it comes back for a reply after a sweep."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(*bounds.ground)
        self.bounds = bounds

    def source(self, cwd: str, base: str = "HEAD", carry: bool = False) -> Tuple[str, str]:
        """(top, base commit) for a worktree. Raises: ToolError."""
        try:
            at = self.bounds.checkout(cwd)
            commit = at.base_commit(base)
            self.bounds.check_allowed(at.cwd)
            if carry and base != "HEAD" and commit != at.base_commit():
                raise GitError("`include_changes` does not go with that `base`",
                               "The changes were made on top of HEAD, which is another commit",
                               "Leave one of the two out")
            return at.cwd, commit
        except GitError as error:
            raise ToolError(f"`worktree` is not possible: {error.what}", error.why, error.fix)

    def around(self, cwd: str, owner: Optional[Spec]) -> Optional[Worktree]:
        """The worktree of ours that a task in `cwd` works in: that of its thread's last task, or the one that
        was made there."""
        trees = (owner.worktree if owner else None, self.bounds.made_around(cwd)[1])
        return next((tree for tree in trees if tree is not None and is_inside(cwd, tree.path)), None)

    def made_for(self, plan: Plan) -> Plan:
        """Make the worktree; the task runs in the same sub-directory of it. Raises: ToolError."""
        spec = plan.spec
        path, branch, cwd = self.place_for(spec)
        tree = self._new(spec.checkout, plan.base, path, branch, carry=plan.carry)
        with contextlib.ExitStack() as undo:
            undo.callback(Trees(self.git).discard, spec.checkout, path, branch)
            make_inside(tree, cwd)
            # another base may have another `.codex/config.toml` than the checkout
            spec = self.bounds.kept_out(spec._replace(worktree=tree, cwd=cwd), path)
            undo.pop_all()
        return plan._replace(spec=spec)

    def place_for(self, spec: Spec) -> Tuple[str, str, str]:
        """(path, branch, working directory) of the worktree of a new task."""
        path = os.path.join(self.config.worktree_dir, spec.task_id)
        below = os.path.relpath(os.path.realpath(spec.cwd), os.path.realpath(spec.checkout))
        return path, f"codex-swarm/{spec.task_id}", os.path.normpath(os.path.join(path, below))

    def _new(self, top: str, base: str, path: str, branch: str, **how: bool) -> Worktree:
        """Raises: ToolError."""
        self.check_room()
        try:
            return Trees(self.git).add(top, base, path, branch, **how)
        except OSError as error:
            raise ToolError("The worktree could not be made", f"{error.strerror}: {error.filename or path}",
                            f"{REMEDIES.get(error.errno, MEND)}; CODEX_SWARM_WORKTREE_DIR moves it")

    def back_for(self, owner: Spec, cwd: str) -> Spec:
        """The last task of a thread. When a sweep has removed the worktree around `cwd`, it is made anew in
        its place, from its branch or what remembers that, and `setup` prepares it. Raises: ToolError."""
        tree, task = owner.worktree, self.store.get(owner.task_id)
        if tree is None or os.path.lexists(tree.path) or not is_inside(cwd, tree.path):
            return owner._replace(setup="")
        if os.path.isdir(tree.git_dir):
            if os.path.lexists(Clearing(self.git, tree).hidden):
                raise ToolError(f"`cwd`: {tree.path} does not exist",
                                "A sweep was killed while it removed it",
                                "Run `codex-mcp-swarm sweep`, which goes on with that. Then reply again")
            raise ToolError(f"`cwd`: {tree.path} does not exist",
                            "It was moved or deleted by hand, and git still counts on it",
                            "Put it back; if it is gone for good, run `git worktree prune`. Then reply again")
        self.bounds.check_settings(common_of(tree), common_of(tree))
        tip = Clearing(self.git, self.view.of(owner.task_id).worktree or tree).tip()
        if tip is None:
            raise ToolError(f"The worktree of that thread was removed, and `{tree.branch}` is gone",
                            "There is nothing to go on from",
                            "Start a new task, or pass another directory as `cwd`")
        top, base = self.source(owner.checkout or self.first_checkout(common_of(tree)), tip)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(task.file("kept"))            # so that the next sweep looks at it again
        made = self._new(top, base, tree.path, tree.branch, again=True)
        with contextlib.suppress(OSError):
            os.makedirs(owner.cwd, exist_ok=True)   # the sub-directory may hold nothing that is committed
        tree = tree._replace(git_dir=made.git_dir, copied=made.copied, submodules=made.submodules,
                             seal=made.seal)
        return owner._replace(worktree=tree, setup=self.config.worktree_setup)

    def check_room(self) -> None:
        """Make the directory of worktrees if need be. Raises: ToolError, also where too little is free."""
        self.prepare()
        room_for(self.config.worktree_dir, self.config.min_free_mb)

    def prepare(self) -> None:
        """Raises: ToolError."""
        make_directory(self.config.worktree_dir, "CODEX_SWARM_WORKTREE_DIR")
        with contextlib.suppress(OSError):
            os.close(private(os.path.join(self.config.worktree_dir, OURS), os.O_WRONLY | os.O_CREAT))

    def first_checkout(self, common: str) -> str:
        rows = self.git.within(common)("worktree", "list", "--porcelain")
        return rows.split("\n")[0][len("worktree "):]


class Lists(Room):
    """Finds tasks again, without looking at more of them than it names, unless only those of a directory are
    asked for. A cursor holds on every server of the ROOT."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(*bounds.ground)
        self.bounds = bounds

    def now(self, cwd: str = "") -> Page:
        """What runs, what was lost and nobody was told of, and, of what ended and nobody has collected, the
        newest. The cursor is the end of what `since` tells. Raises: ToolError, OSError."""
        near, live, text = self._near(cwd), self.watch.live(), self.store.ended.text()
        cursor = next((stamp for stamp, _ in self.store.ended.newest_first(text)), "0")
        wanted = self.store.ended.wanted(text)
        some_of = itertools.islice((i for i in wanted if self._is_wanted(i) and near(i)), WANTED_SHOWN)
        shown = list(some_of)
        left = len(wanted) - 1 - wanted.index(shown[-1]) if len(shown) == WANTED_SHOWN else 0
        return Page(list(dict.fromkeys([*filter(near, live), *shown])), cursor, left)

    def all(self, cursor: str = "", cwd: str = "") -> Page:
        """What runs, then what has ended, the newest first. Raises: ToolError, OSError."""
        near, live, ended = self._near(cwd), self.watch.live(), self.store.ended
        found = [] if cursor else [task_id for task_id, runs in live.items() if runs and near(task_id)]
        room = len(found) + LIST_SHOWN
        for stamp, task_id in ended.newest_first(ended.text()):
            if (not cursor or stamp < cursor.zfill(13)) and self.store.has(task_id) and near(task_id):
                found.append(task_id)
            if len(found) == room:
                return Page(found, stamp)
        return Page(found)

    def since(self, cursor: str, cwd: str = "") -> Page:
        """What has ended since, in the order in which that was seen. Raises: ToolError, OSError."""
        near, ended = self._near(cwd), self.store.ended
        self.watch.live()                                   # notes what has ended by now
        rows = ended.newest_first(ended.text())
        found: List[str] = []
        news = list(itertools.takewhile(lambda row: row[0] > cursor.zfill(13), rows))
        for stamp, task_id in reversed(news):
            cursor = stamp
            if self.store.has(task_id) and near(task_id):
                found.append(task_id)
            if len(found) == LIST_SHOWN:
                break
        return Page(found, cursor)

    def _is_wanted(self, task_id: str) -> bool:
        """Unless it was swept, or the mark of it was lost when a server was killed."""
        task = TaskDir(os.path.join(self.store.tasks, task_id))
        return self.store.has(task_id) and not (self.watch.is_given(task) or task.kept_since())

    def _near(self, cwd: str) -> Callable[[str], bool]:
        """What tells whether a task worked in a directory, below it, or elsewhere in its repository."""
        if not cwd:
            return lambda task_id: True
        here = self.bounds.directory(cwd)
        common = repository_of(here)[0]

        def near(task_id: str) -> bool:
            with contextlib.suppress(ToolError, *UNREADABLE):
                spec = self.store.get(task_id).spec()
                there = spec.checkout or spec.cwd
                return is_inside(there, here) or os.path.exists(common) and repository_of(there)[0] == common
            return False
        return near


class Compare(Room):
    """What tasks changed: against where they began, against each other, and at once. It only reads."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(*bounds.ground)
        self.bounds = bounds
        self.traced_at, self.traces = 0.0, {}   # type: float, Dict[str, FrozenSet[str]]

    def reviewable(self, task_id: str) -> Dict[str, Any]:
        """Where, since which commit and by whose account the work of an ended task is reviewed, as a request
        says it. Raises: ToolError."""
        what, seen = f"The work of task {task_id} cannot be reviewed", self.view.of(task_id)
        tree = seen.worktree
        if tree is None or not os.path.isdir(tree.path):
            why = "Its worktree was removed" if tree else "It had none, so nothing tells what is its work"
            raise ToolError(what, why, "Pass `cwd`, and `base` or `commit` for what is committed there")
        if not seen.ended:
            raise ToolError(what, "It still works", "codex_wait for it first")
        by = {name: value for name, value in seen.spec.arguments.items() if name == "codex_home"}
        return {"cwd": tree.path, "review": ("base", tree.start), **by}

    def overlaps(self, task_ids: Sequence[str]) -> Dict[str, Dict[str, Any]]:
        """Task id -> other task id -> the files that both touched while both ran, in the same repository. The
        others are those of `task_ids` and whatever runs now. Of a running task counts what codex said
        that it edited and what git finds, of an ended one in a worktree everything that changed. Raises:
        OSError."""
        found: Dict[str, Dict[str, Any]] = {}
        running = self.watch.unended()
        if len(running) > 1 and self.host.monotonic() >= self.traced_at + TRACE_EVERY_S:
            self.traced_at = self.host.monotonic()
            self.traces = self._look_for_traces(running)
        ids = dict.fromkeys((*task_ids, *running))
        for one, other in itertools.combinations(filter(None, map(self._touched, ids)), 2):
            at_once = one.began_at < other.ended_at and other.began_at < one.ended_at
            together = at_once and one.repository == other.repository
            both = sorted(one.files & other.files) if together else ()
            if both:
                found.setdefault(one.task_id, {})[other.task_id] = some(both)
                found.setdefault(other.task_id, {})[one.task_id] = some(both)
        return found

    def _touched(self, task_id: str) -> Optional[Touched]:
        try:
            seen = self.view.of(task_id)
            report, tree = seen.report, seen.worktree
            files = tree.files if report and tree else seen.files
            traces = frozenset() if report else self.traces.get(task_id, frozenset())
            if not (files or traces) or seen.damage:
                return None
            common, top = repository_of(seen.spec.cwd)
            if tree:
                common, top = common_of(tree), os.path.realpath(tree.path)
            if not (report and tree):               # else they are relative already, and may be many
                files = tuple(os.path.relpath(os.path.realpath(file), top) for file in files)
            ended_at = report.ended_at if report else float("inf")
            return Touched(task_id, common, traces.union(files), seen.status.began_at, ended_at)
        except (ToolError, *UNREADABLE):
            return None

    def _look_for_traces(self, task_ids: Sequence[str]) -> Dict[str, FrozenSet[str]]:
        """Running task -> the files, relative to its top, that it changed by whatever means: all that differ
        from the HEAD of its worktree; of a checkout that no other may write, those that changed since."""
        git, found, writers = Git(self.host, self.environ, TRACE_S), {}, {}     # type: Git, Any, Any
        bounds = Bounds(self.config, self.environ, git, self.watch)
        for task_id in task_ids:
            with contextlib.suppress(ToolError, *UNREADABLE):
                spec, began_at = self.store.get(task_id).spec(), self.store.get(task_id).status().began_at
                if began_at and asked(spec.arguments, spec.overrides).sandbox != SANDBOXES[0]:
                    writers.setdefault(repository_of(spec.cwd)[1], []).append((spec, began_at))
        for top, ((spec, began_at), *others) in writers.items():
            with contextlib.suppress(ToolError, *UNREADABLE):
                tree = spec.worktree
                if tree:
                    bounds.check_worktree(tree.git_dir)
                at = git.checkout(tree.git_dir, tree.path) if tree else bounds.checkout(top)
                changes = at.changes("--untracked-files=all")[0] if not others else ()
                found[spec.task_id] = frozenset(
                    change.path for change in changes
                    if tree or modified_at(os.path.join(top, change.path)) >= began_at)
        return found

    def diff(self, task_id: str, against: Optional[str], view: str, paths: Sequence[str],
             offset: int = 0, room: int = sys.maxsize) -> Dict[str, Any]:
        """What a task changed since it began, or, with `against`, how its result differs from that of another
        task: counts, and as `content` a line a file (`view` stat or files) or the patch, `room` of its
        `total_chars` characters from `offset` on. Of a task that runs or was not saved, what lies in its
        worktree now; of one without a worktree, what is not committed in its directory, whoever changed it.
        Reads only.

        Raises: ToolError, OSError."""
        seen, at = self._comparable(task_id)
        owned = seen.spec.arguments.get("write_paths")
        globs = None if owned is None else Globs(owned)
        with self.git.within(at.common).aside() as aside:
            side = self._side(seen, at, aside)
            old = self._compared_with(against, aside) if against else side.start
            rows = aside.changed(old, side.end, paths or side.within)
            if view == "patch":
                content, total_chars = aside.patch(old, side.end, paths or side.within, offset, room)
            else:
                content = "\n".join(_row(row, view, globs) for row in rows)
                content, total_chars = content[offset:][:room], len(content)
        facts = {"against": against, "base": old, "head": None if side.live else side.end, "live": side.live,
                 "edited": some(side.edited), "left_out": side.left_out, "ignored": side.ignored,
                 "note": "No file that differs is in `paths`" if paths and not rows else side.note}
        return {"task_id": task_id, "view": view, **{key: value for key, value in facts.items() if value},
                **counts_of(rows), "content": content, "total_chars": total_chars}

    def _compared_with(self, name: str, aside: At) -> str:
        """The result of another task, or a branch, tag or commit. Raises: ToolError."""
        task_id = self.watch.task_or_ref(name, aside)
        if not task_id:
            return commit_named(aside, "against", name)
        other, at = self._comparable(task_id)
        if at.common != aside.git_dir:
            raise ToolError(f"Task {name} cannot be compared with this one",
                            f"It worked in {at.common}, this one in {aside.git_dir}",
                            "Compare tasks of the same repository")
        return self._side(other, at, aside).end

    def _comparable(self, task_id: str) -> Tuple[Seen, At]:
        """(the task, git in its checkout; in the repository of one that has a worktree). Raises:
        ToolError."""
        seen = self.view.of(task_id).whole(f"Task {task_id} cannot be compared")
        cwd = seen.spec.cwd
        self.bounds.check_allowed(cwd)
        if seen.worktree:
            self.bounds.check_worktree(seen.worktree.git_dir)
            return seen, self.git.within(common_of(seen.worktree))
        if not os.path.isdir(cwd) or not top_of(cwd):
            said = f". Codex said that it edited {in_words(some(seen.files))}" if seen.files else ""
            why = f"It had no worktree, and {cwd} is not in a git repository{said}"
            planned = "Its worktree is made when it begins", "Wait until it has begun"
            without = why, "Run tasks with `worktree: true`"
            raise ToolError(f"There is nothing to compare of task {task_id}",
                            *(planned if seen.spec.planned else without))
        return seen, self.bounds.checkout(cwd)

    def _side(self, seen: Seen, at: At, aside: At) -> Side:
        """Raises: ToolError, OSError."""
        tree = seen.worktree
        if tree is None:
            return self._side_of_checkout(seen, at.beside(aside))
        start = seen.spec.since or tree.start
        head = tree.head or self.watch.last_home(seen, tree.branch)[0]
        if head:
            return Side(start, head, ignored=tree.ignored if os.path.isdir(tree.path) else {})
        if not os.path.isdir(tree.path):
            raise ToolError(f"There is nothing to compare of task {seen.task.task_id}",
                            f"Its work was never committed, and `{tree.path}` is gone",
                            "See `warnings` of its record")
        found = Snapshot(self.git, tree).lying(aside)
        return Side(start, found.tree, True, seen.files, left_out=with_reasons(found.left_out),
                    ignored=some(found.ignored))

    @staticmethod
    def _side_of_checkout(seen: Seen, at: At) -> Side:
        """All that is not committed in the directory of a task without a worktree. Raises: ToolError,
        OSError."""
        cwd, found = seen.spec.cwd, lying_in_checkout(at)
        below = lambda path: os.path.relpath(os.path.realpath(path), at.cwd)
        within = () if below(cwd) == "." else (f":(literal){below(cwd)}",)
        note = f"This task had no worktree: shown is all that is not committed in {cwd}, whoever changed it"
        start = at.commit_of("HEAD") or at("hash-object", "-t", "tree", "--stdin")      # the empty one
        edited = [legible(below(file)) for file in seen.files]
        return Side(start, found.tree, True, edited, within, note, with_reasons(found.left_out))


class Proof(Room):
    """Runs the server's verify command on what was merged, in a worktree that is gone afterwards."""

    def __init__(self, worktrees: Worktrees) -> None:
        super().__init__(*worktrees.ground)
        self.worktrees = worktrees

    def check(self, wish: Wish) -> None:
        """Raises: ToolError where the call wants the verify command, and there is none, or the reverse."""
        command = self.config.merge_verify
        if wish.verify and not command:
            raise ToolError("Nothing can verify this merge", "The server has no verify command",
                            "Leave `verify` out, or start it with CODEX_SWARM_MERGE_VERIFY")
        if wish.verify is False and command:
            raise ToolError("The verify command cannot be left out", "Whoever started this server wants "
                            f"`{clip(command, 60)}` to pass on all that is merged", "Leave `verify` out")

    def of(self, target: Target, made: Merged, going: Sequence[Part], call: Call) -> Verified:
        """How the verify command ended on the merge. Where it failed, also on less of it, by halves, within
        VERIFY_S more: with which task it begins to fail. Raises: ToolError, OSError."""
        last = self._run(target, made.commit, VERIFY_S, call)
        if last.exit_status == 0 or last.note:
            return last
        good, bad, tried = -1, len(going), []    # type: int, int, List[Mapping[str, int]]
        until = self.host.monotonic() + VERIFY_S
        while bad - good > 1:
            count = (good + bad) // 2 if tried else 0           # at first without any of them
            one = self._run(target, made.commits[count], until - self.host.monotonic(), call)
            if one.note:
                return last._replace(tried=tried, note="There was no time to tell which task is at fault")
            tried.append({"branches": count, "exit_status": one.exit_status})
            if one.exit_status == 0:
                good = count
            else:
                bad, last = count, one if count else last
        if bad == 0:
            return last._replace(tried=tried, note="It fails without these tasks, too: none is at fault")
        fault, before = going[bad - 1], made.commits[good]
        passed = None if target.at.contains(fault.head, before) else before
        return last._replace(tried=tried, fault=fault.task_id, passed=passed)

    def check_wanted(self, call: Call) -> None:
        """Raises: ToolError when the call was cancelled (a client whose time ran out is no reason: the merge
        is made) or the server ends."""
        if call.abandoned or self.watch.closing:
            raise ToolError("The merge was cancelled", "Nothing was moved", "Call again")

    def _run(self, target: Target, commit: str, limit_s: float, call: Call) -> Verified:
        """How the server's verify command ended on this commit, in a worktree that is gone afterwards.
        What it started is killed at its end, and when the call is abandoned or the server ends: its process
        group and, on Linux, all that has our mark in its environment. Should the server be killed, the group
        is. Raises: ToolError, OSError."""
        import tempfile
        self.worktrees.prepare()
        top, merge_id, command = target.at.cwd, target.merge_id, self.config.merge_verify
        path = os.path.join(self.config.worktree_dir, MERGE_TREE + merge_id)
        with Trees(self.git).scratch(top, commit, path), tempfile.TemporaryFile() as log:
            environ = {**elsewhere(self.environ), TASK_ENV: merge_id}
            child, guard = self.host.begin(["/bin/sh", "-c", command, "verify", top], path, environ, log)

            def until_the_end() -> None:
                child.wait()
                self.watch.wake()
            try:
                threading.Thread(target=until_the_end, name=f"verify-{merge_id}", daemon=True).start()
                over = lambda: child.returncode is not None or call.abandoned or self.watch.closing
                self._keep_telling(over, limit_s, call, f"verifying the merge with `{clip(command, 60)}`")
                status = child.returncode
            finally:
                self.host.signal_group(child.pid, signal.SIGKILL)
                self.host.kill_marked(merge_id)
                self.host.signal_group(guard.pid, signal.SIGKILL)
                guard.stdin.close()
                guard.wait()
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            tail = log.read().decode("utf-8", "replace").strip()[-2_000:]
        label = clip(command, LABEL_CHARS)
        if status is not None:
            return Verified(label, tail, status)
        self.check_wanted(call)
        late = f"It was killed: it had not ended within {limit_s:.0f} s"
        return Verified(label, tail, -signal.SIGKILL, note=late)

    def _keep_telling(self, done: Callable[[], bool], limit_s: float, call: Call, doing: str) -> None:
        """Sleep until `done`, which `wake` makes look again, at most `limit_s`, and tell the client every
        HEARTBEAT_S what goes on."""
        began = self.host.monotonic()
        while not done() and self.host.monotonic() < began + limit_s:
            if call.tell is not None and not call.cancelled:
                call.tell(f"{doing} for {self.host.monotonic() - began:.0f} s")
            with self.watch.changed:
                self.watch.changed.wait_for(done, min(HEARTBEAT_S, limit_s))


class Merger(Room):
    """Brings the branches of ended tasks together: first aside, then one ref moves."""

    def __init__(self, worktrees: Worktrees) -> None:
        super().__init__(*worktrees.ground)
        self.worktrees, self.bounds, self.proof = worktrees, worktrees.bounds, Proof(worktrees)

    def merge(self, task_ids: Sequence[str], call: Call, wish: Wish) -> MergeRecord:
        """Bring the branches of ended tasks together on top of `wish.base`, in this order, all or none of
        them; where `wish.partial`, those before the first conflict. All is tried aside first; then one ref is
        moved, after the server's verify command has passed.

        Blocks for some 30 ms a task, for as many for each pair that may conflict, and as long as the verify
        command runs, up to VERIFY_S. Raises: ToolError, OSError."""
        self.proof.check(wish)
        ended = self.mergeable(task_ids)
        at = self._checkout(ended, wish)
        incoming = self.incoming(ended, at)
        target = self._target(at, incoming.head, wish)
        tried = self._try(target, incoming.parts, wish, call)
        going, rows = tried.going, tried.rows
        answer = MergeRecord(wish.dry_run, target.onto, **_those(going, incoming.parts), **tried.findings,
                             **counts_of(rows), warnings=incoming.warnings)
        if tried.merged.commit == target.onto and going:
            return answer._replace(merged=[], already_in=answer.merged)
        forward, verify = Forward(target.at, target.onto), self.config.merge_verify
        looks = going and not target.branch and (wish.dry_run or verify)        # else it looks as it moves
        blocked = forward.blocked(rows) if looks else None
        if blocked is not None and not wish.dry_run:
            raise blocked
        if wish.dry_run or not going:
            return answer._replace(blocked=str(blocked or ""))
        verified = self.proof.of(target, tried.merged, going, call) if verify else None
        answer = answer._replace(verify=verified)
        if verified and verified.exit_status != 0:
            return answer._replace(**_those([], incoming.parts), **counts_of([]))
        self.proof.check_wanted(call)
        return answer._replace(**self._move(target, forward, tried))

    def _move(self, target: Target, forward: Forward, tried: Tried) -> Dict[str, Any]:
        """Move the ref; what to say of it. Raises: ToolError."""
        commit = tried.merged.commit
        if target.branch:
            words = ("update-ref", "-m", "codex-mcp-swarm: merge", f"refs/heads/{target.branch}")
            try:
                target.at(*words, commit, "0" * len(commit))         # as none that is there already
            except GitError:
                check_name(target.at, target.branch)
                raise
            return {"branch": target.branch, "commit": commit}
        branch = forward.move(commit, tried.rows)
        return {"branch": branch, "commit": commit, "undo": forward.undo(branch, commit)}

    def _try(self, target: Target, parts: Sequence[Part], wish: Wish, call: Call) -> Tried:
        """The merge, made aside; what is to be moved to is in the repository then. Raises: ToolError."""
        onto = target.onto
        with target.at.aside() as aside, Desk.beside(aside, wish.squash) as desk:
            merged = desk.merge(onto, parts)
            findings = self._conflicts(onto, parts, merged, desk, call)
            fits = lambda part: part.task_id not in merged.conflicts
            going = list(itertools.takewhile(fits, parts)) if wish.partial or not merged.conflicts else []
            whole = desk.merge(onto, going)
            rows = desk.at.changed(onto, whole.commit)
            self._check_united(desk, onto, rows, going)
            if not wish.dry_run:
                aside.hand_over(whole.commit, target.at, [onto, *(part.head for part in going)])
            return Tried(whole, going, rows, findings)

    def mergeable(self, task_ids: Sequence[str]) -> Mergeable:
        """Raises: ToolError; OSError when the system is exhausted."""
        tasks = {task_id: self._ended_tree(task_id) for task_id in dict.fromkeys(task_ids)}
        common = common_of(next(iter(tasks.values()))[1])
        for task_id, (_, tree) in tasks.items():
            if common_of(tree) != common:
                raise ToolError(f"Task {task_id} cannot be merged",
                                f"It belongs to the repository {common_of(tree)}, the others to {common}",
                                "Merge the tasks of one repository at a time")
        checkouts = (seen.spec.checkout for seen, _ in tasks.values() if seen.spec.checkout)
        return Mergeable(tasks, common, next(checkouts, ""))

    def incoming(self, ended: Mergeable, at: At) -> Incoming:
        """What the tasks have on their branches now, looked for from `at` in their repository. Raises: as
        `mergeable`."""
        head, tips = self._newest(at, [tree for _, tree in ended.tasks.values()])
        parts, warnings = {}, []            # type: Dict[str, Part], List[str]
        for (task_id, (seen, tree)), tip in zip(ended.tasks.items(), tips):
            before = parts[tree.branch].task_ids if tree.branch in parts else ()    # of the same thread
            parts[tree.branch] = Part((*before, task_id), f"task {task_id}", seen.spec.title or "Codex task",
                                      tip, *tree.share)
            warnings += _surprises(task_id, seen.status.outcome, tree)
        for branch, part in parts.items():
            results = {ended.tasks[task_id][1].head for task_id in part.task_ids}
            reply = part.head, Outcome.SUCCEEDED
            if part.head not in results and self.watch.last_home(self.view.of(part.task_id), branch) != reply:
                warnings.append(f"`{branch}` has gone on since {part.name} ended: all of it counts")
        return Incoming(list(parts.values()), head, warnings)

    def _ended_tree(self, task_id: str) -> Tuple[Seen, Worktree]:
        """A task whose work can be merged, and the worktree with the commit of that. Raises: ToolError."""
        what = f"Task {task_id} cannot be merged"
        seen = self.view.of(task_id).whole(what)
        tree = seen.worktree
        if not seen.ended:
            raise ToolError(what, "It has not ended",
                            "codex_wait for it, or codex_cancel it: what it has done is committed then")
        if tree is None:
            raise ToolError(what, "It had no worktree: what it did is in its directory, not on a branch",
                            "Leave it out")
        head = tree.head or self.watch.last_home(seen, tree.branch)[0]
        if not head:
            why = tree.unsaved or "its supervisor was killed"
            raise ToolError(what, f"Its work was not committed: {why}. It is in `{tree.path}`",
                            "A codex_reply to it commits it at its end")
        self.watch.check_idle(tree.path, what)
        return seen, tree._replace(head=head)

    @staticmethod
    def _newest(at: At, trees: Sequence[Worktree]) -> Tuple[Optional[str], List[str]]:
        """(HEAD, what is on each task's branch now, where that goes on from its result; the result, where
        there is no branch). Raises: ToolError."""
        names = ((f"{tree.head}^{{commit}}", f"refs/heads/{tree.branch}^{{commit}}") for tree in trees)
        head, *found = at.find("HEAD^{commit}", *itertools.chain.from_iterable(names))
        tips = []
        for tree, result, on_branch in zip(trees, found[::2], found[1::2]):
            what, tip = f"The work of `{tree.branch}` cannot be merged", on_branch or result
            if result is None or tip is None:
                raise ToolError(what, f"Its commit {tree.head} is not in {at.common}",
                                "Restore that repository")
            if not at.contains(tip, result):
                raise ToolError(what, f"The branch does not hold the task's result {result[:12]} any more: "
                                      f"somebody amended or moved it to {tip[:12]}",
                                "Merge that with `git merge`, or go back with "
                                f"`git branch -f {tree.branch} {result[:12]}`")
            tips.append(tip)
        return head, tips

    def _checkout(self, ended: Mergeable, wish: Wish) -> At:
        """Where the merge goes: `wish.cwd`, or where the tasks came from. Raises: ToolError."""
        checkout = self.bounds.directory(wish.cwd) if wish.cwd else ended.checkout
        checkout = checkout or self.worktrees.first_checkout(ended.common)
        if not os.path.isdir(checkout):
            raise ToolError("The checkout that the tasks came from is not there any more",
                            f"It was {checkout}", "Pass another checkout of the repository as `cwd`")
        at = self.bounds.checkout(checkout)
        self.bounds.check_allowed(at.cwd)
        if at.common != ended.common:
            raise ToolError("The tasks belong to another repository",
                            f"Theirs is {ended.common}, `cwd` is in {at.common}", "Leave `cwd` out")
        return at

    def _target(self, at: At, head: Optional[str], wish: Wish) -> Target:
        """Raises: ToolError."""
        onto = head if head and wish.base == "HEAD" else at.base_commit(wish.base)
        merge_id = self.host.new_task_id()
        if wish.into != "HEAD":
            branch = wish.into or f"codex-swarm/merge-{merge_id}"
            if wish.into or wish.dry_run or self.config.merge_verify:       # else git refuses it soon enough
                self._check_branch(at, branch)
            return Target(merge_id, at, onto, branch)
        if wish.base != "HEAD":
            raise ToolError("`into: \"HEAD\"` does not go with that `base`",
                            "HEAD can only move forward from where it is", "Leave one of the two out")
        self.watch.check_idle(at.cwd, f"{at.cwd} cannot be moved")
        return Target(merge_id, at, onto, "")

    def _check_branch(self, at: At, name: str) -> None:
        """Raises: ToolError when no branch can be made under that name."""
        fits = at.run("check-ref-format", f"refs/heads/{name}", allowed=(0, 1)).code == 0
        if not fits or name.startswith("-"):
            raise ToolError(f"`into`: `{clip(name, 100)}` cannot be the name of a branch",
                            "See git-check-ref-format(1)", "Pass another name, or \"HEAD\"")
        if at.commit_of(f"refs/heads/{name}"):
            raise ToolError(f"There is a branch `{clip(name, 100)}` already", "`into` names a new one",
                            "Pass another name; to merge into that, check it out and pass `into: \"HEAD\"`")
        check_name(at, name)

    def _conflicts(self, onto: str, parts: Sequence[Part], merged: Merged, desk: Desk,
                   call: Call) -> Dict[str, Any]:
        """Who conflicts with whom, and where; an order in which as many as possible go in before the first
        conflict, and which these are. Empty but for `conflicts` where there is none."""
        if not merged.conflicts:
            return {"conflicts": []}
        steps = dict(zip(parts, desk.steps(onto, parts)))
        clean = [part for part in parts if not steps[part].conflicts]
        found = [_clash([], part, step.conflicts, onto) for part, step in steps.items() if step.conflicts]
        found += self._pairs(onto, clean, set(merged.conflicts), desk, call)
        named = {task_id for clash in found for task_id in clash.tasks}
        for part in parts:                              # no single one, only several together
            if part.task_id in merged.conflicts and part.task_id not in named:
                before = [other for other in parts[:parts.index(part)] if other.task_id in merged.task_ids]
                found.append(_clash(before, part, merged.conflicts[part.task_id], onto))
        order = _order([part.task_id for part in parts], [clash.tasks for clash in found])
        tried = desk.merge(onto, sorted(parts, key=lambda part: order.index(part.task_id)))
        return {"conflicts": found, "suggested_order": [*tried.task_ids, *tried.conflicts],
                "fitting": list(tried.task_ids)}

    def _pairs(self, onto: str, parts: Sequence[Part], suspects: Set[str], desk: Desk,
               call: Call) -> List[Clash]:
        """The conflicts between two, one of them suspect, of the first PAIRS_TRIED."""
        found, left = [], PAIRS_TRIED   # type: List[Clash], int
        for number, one in enumerate(parts):
            self.proof.check_wanted(call)
            if call.tell is not None and number:
                call.tell(f"comparing tasks: {number} of {len(parts)}")
            others = [other for other in parts[number + 1:] if suspects & {one.task_id, other.task_id}][:left]
            left -= len(others)
            steps = desk.steps(desk.merge(onto, [one]).commit, others) if others else []
            found += [_clash([one], other, step.conflicts, onto)
                      for other, step in zip(others, steps) if step.conflicts]
        return found

    def _check_united(self, desk: Desk, onto: str, rows: Sequence[Changed], parts: Sequence[Part]) -> None:
        at, past = desk.at, desk.past(onto, parts)
        files = undecided(at, rows, past, onto, [part.head for part in parts])
        if not files:
            return
        left_by = lambda part: undecided(at, at.changed(part.start, part.head), past, part.start, [part.head])
        whose = [part.name for part in parts if set(files).intersection(left_by(part))]
        raise ToolError(f"Conflicts are not united yet: {in_words(some(files))}",
                        "Of what `update_from` left there, a marker, a separator between both sides, "
                        f"or {LIST} still stands",
                        f"Let {' or '.join(whose or ['the task'])} unite them (codex_reply), "
                        "then merge again")


class Planner(Room):
    """Checks a request against everything that can be known before it starts. It makes nothing, but for the
    worktree of a thread that a sweep has removed."""

    def __init__(self, merger: Merger) -> None:
        super().__init__(*merger.ground)
        self.merger, self.worktrees, self.bounds = merger, merger.worktrees, merger.bounds

    def plan(self, request: Mapping[str, Any],
             source_of: Optional[Callable[[str, str, bool], Tuple[str, str]]] = None) -> Plan:
        """Check a request against everything that can be known before it starts. `source_of`: what remembers
        `Worktrees.source` for several. Raises: ToolError."""
        thread, forks = self._thread(request), request.get("fork", False)
        config, owner, wanted = self.config, thread.owner, request.get("worktree", False)
        options: Mapping[str, Any] = wanted if isinstance(wanted, dict) else {}
        wants_tree = wanted is not False
        arguments, overrides, unsaid = self._arguments(request, owner, wants_tree)
        cwd, options, owner = self._place(request, thread, wants_tree, options)
        carry, base = options.get("include_changes", False), options.get("base", "HEAD")
        base = "HEAD" if base.startswith(TASK_BASE) else base       # until it is known which task that is
        source = (source_of or self.worktrees.source)(cwd, base, carry) if wants_tree else ("", "")
        arguments = self.bounds.with_files(arguments, cwd)
        executable = self.bounds.codex()
        spec = Spec(
            self.host.new_task_id(), self.host.now(), executable, cwd, arguments, overrides,
            config.skip_git_repo_check, config.ephemeral or request.get("ephemeral", False),
            request.get("timeout_s"), None if forks else thread.thread_id, thread.usage,
            None if "review" in request else self.worktrees.around(cwd, owner), title_of(request["prompt"]),
            self._warnings(arguments, unsaid), fork_of=thread.thread_id if forks else None,
            review=self._reviewed(request, cwd), codex_home=self.bounds.home(arguments.get("codex_home")),
            launcher=config.launcher, max_parallel=config.max_parallel)
        codex_argv(spec)                # what no command line can hold is refused here, not in the supervisor
        self.bounds.check_known(spec)
        if spec.worktree is not None:
            checkout, setup = (owner.checkout, owner.setup) if owner else ("", "")
            spec = spec._replace(checkout=checkout, since=self._there_now(spec.worktree), setup=setup)
        if wants_tree:
            setup = config.worktree_setup if options.get("setup", True) else ""
            spec = spec._replace(checkout=source[0], setup=setup)
        new = os.path.join(config.worktree_dir, spec.task_id) if wants_tree else cwd
        spec = self.bounds.kept_out(spec, spec.worktree.path if spec.worktree else new)
        update = self._part_named(spec, request["update_from"]) if "update_from" in request else None
        return Plan(spec, request["prompt"], source[1], carry, update)

    def _place(self, request: Mapping[str, Any], thread: Thread, wants_tree: bool, options: Mapping[str, Any],
               ) -> Tuple[str, Mapping[str, Any], Optional[Spec]]:
        """(where a run works, the options of its worktree, its thread's last task with its worktree back).
        Raises: ToolError."""
        owner, forks = thread.owner, request.get("fork", False)
        where = request.get("cwd") or (owner.cwd if owner else ".")
        if forks and owner and owner.worktree and is_inside(where, owner.worktree.path):
            where, options = self._beside(owner, owner.worktree, where, wants_tree, options)
        elif owner:
            owner = self.worktrees.back_for(owner, where)
        cwd = self.bounds.directory(where)
        if self.config.allow_roots:
            cwd = os.path.realpath(cwd)             # a link could be turned after the check
            self.bounds.check_allowed(cwd)
        self._check_place(cwd, thread._replace(owner=owner), wants_tree, "cwd" in request, forks)
        return cwd, options, owner

    def _reviewed(self, request: Mapping[str, Any], cwd: str) -> Tuple[str, ...]:
        """The words for what a review looks at: (kind, ref), as `request` has it. Codex takes any word for a
        ref, and succeeds (codex-cli 0.169.0), so it is looked up here. Raises: ToolError."""
        if "review" not in request:
            return ()
        kind, ref = request["review"]
        if ref:
            commit_named(self.bounds.checkout(cwd, bare=True), kind, ref)
            return (f"--{kind}={ref}",)
        return ("--uncommitted",) if kind == "uncommitted" else ("-",)

    def _beside(self, owner: Spec, tree: Worktree, cwd: str, wants_tree: bool,
                options: Mapping[str, Any]) -> Tuple[str, Mapping[str, Any]]:
        """(where, options) for the worktree of a copy of a thread that works in `tree`: it begins with what
        was committed there. Raises: ToolError."""
        if not wants_tree:
            raise ToolError(f"A copy of this thread cannot work in {tree.path}",
                            "The thread itself works there",
                            "Pass `worktree` true: the copy gets its own, from what is committed there")
        seen = self.view.of(owner.task_id)
        self.bounds.check_worktree(tree.git_dir)
        tip = Clearing(self.git, seen.worktree or tree).tip()
        if tip is None:
            raise ToolError(f"`{tree.branch}` is gone", "There is nothing that a copy could begin with",
                            "Pass `cwd`, and with `worktree` a `base`")
        return os.path.join(owner.checkout, os.path.relpath(cwd, tree.path)), {"base": tip, **options}

    def _arguments(self, request: Mapping[str, Any], owner: Optional[Spec],
                   wants_tree: bool) -> Tuple[Dict[str, Any], Tuple[str, ...], bool]:
        """(the arguments of the run, the overrides that go with them, whether no sandbox was given)."""
        capped_at, before = self.config.max_sandbox, owner.arguments if owner else {}
        if owner and request.get("codex_home") not in (None, before.get("codex_home")):
            raise ToolError(f"`codex_home` {_show(request['codex_home'])} does not have this thread",
                            "A thread stays with the account under which it began", "Leave it out")
        default = {name: getattr(self.config, name) for name in ("idle_timeout_s", "on_limit")
                   if getattr(self.config, name)}
        arguments = {**default, **{key: value for key, value in before.items() if key in REPEATED},
                     **{key: value for key, value in request.items() if key in KEPT}}
        if "approval_policy" in arguments.get("config", {}):        # codex exec refuses some, obeys none
            config = dict(arguments["config"])
            arguments.update({"approval-policy": config.pop("approval_policy"), "config": config})
        overrides = tuple(o for o in self.config.overrides if override(o)[0] != "approval_policy")
        overrides = owner.overrides if owner and not capped_at else overrides
        unsaid = asked(arguments, overrides).sandbox is None
        if arguments.get("approve_for_me") and arguments.setdefault("sandbox", SANDBOXES[1]) != SANDBOXES[1]:
            raise ToolError(f"`approve_for_me` does not go with `sandbox` {arguments['sandbox']}",
                            f"It means {SANDBOXES[1]}", "Leave one of the two out")
        if wants_tree and unsaid:
            arguments.setdefault("sandbox", capped_at or SANDBOXES[1])
        return capped(arguments, overrides, capped_at) if capped_at else arguments, overrides, unsaid

    def _check_place(self, cwd: str, thread: Thread, wants_tree: bool, named: bool, forks: bool) -> None:
        """`named`: the request says where. Raises: ToolError for a place in which this run cannot be."""
        if wants_tree and thread.thread_id and not forks:
            raise ToolError("`worktree` is for new threads", "A reply works where its thread worked",
                            "Leave `worktree` out, or pass `fork` true: a copy of the thread gets its own")
        if thread.thread_id and thread.owner is None and not named:
            raise ToolError(f"There is no record of thread {thread.thread_id} here",
                            "It is another program's, or its tasks ended long ago and were removed, "
                            "so nothing tells where it worked",
                            "Pass `cwd`, and with it `sandbox` and whatever else it had", FailureKind.RESUME)
        if wants_tree and not top_of(cwd):
            raise ToolError(f"`worktree` is not possible: {cwd} is not in a git repository",
                            "A worktree is made from a commit",
                            "Run `git init` there and commit, pass another `cwd`, or leave `worktree` out",
                            FailureKind.NOT_A_REPOSITORY)
        if not self.config.skip_git_repo_check and not top_of(cwd):
            raise ToolError(f"`cwd`: {cwd} is not in a git repository",
                            "Codex refuses to run there, since nothing could be undone",
                            "Run `git init` there, pass another `cwd`, or start the server with "
                            "--skip-git-repo-check", FailureKind.NOT_A_REPOSITORY)

    def _part_named(self, spec: Spec, name: str) -> Part:
        """What `update_from` names: the work of a task, or a branch, tag or commit. Raises: ToolError."""
        tree = spec.worktree
        if tree is None or spec.thread_id is None:
            raise ToolError("`update_from` is for replies to a task with a worktree",
                            "There is none to merge into", "Leave it out")
        self.watch.check_idle(tree.path, f"{tree.path} cannot be updated")
        task_id = self.watch.task_or_ref(name, self.git.within(tree.git_dir))
        if task_id:
            ended, own = self.merger.mergeable([task_id]), common_of(tree)
            if ended.common != own:
                raise ToolError(f"`update_from`: task {name} belongs to another repository",
                                f"Its is {ended.common}, that of this thread {own}", "Leave it out")
            return self.merger.incoming(ended, self.git.within(own)).parts[0]
        commit = commit_named(self.git.within(tree.git_dir), "update_from", name)
        return Part((name,), f"`{name}`", commit[:12], commit, commit, False)

    def _there_now(self, tree: Worktree) -> str:
        """The commit in a worktree that a task is to go on in; empty where there is none to be found. Raises:
        ToolError."""
        self.bounds.check_worktree(tree.git_dir)
        end_update(self.git, tree)
        with contextlib.suppress(GitError):
            return self.git.within(tree.git_dir).commit_of("HEAD") or ""
        return ""

    def _warnings(self, arguments: Mapping[str, Any], unsaid: bool) -> Tuple[str, ...]:
        """What a user should know that codex would pass over in silence. `unsaid`: no sandbox was given."""
        cap, profile, found = self.config.max_sandbox, arguments.get("profile"), []
        if unsaid and arguments.get("sandbox") == SANDBOXES[0]:
            advice = f". Pass `sandbox` \"{cap}\" for that" if cap != SANDBOXES[0] else ""
            found.append(f"No `sandbox` was given, and under --max-sandbox {cap} it is read-only: "
                         f"nothing can be written{advice}")
        ours = dict(map(override, self.config.overrides)).get("approval_policy", "never")
        if ours != "never" or arguments.get("approval-policy", "never") != "never":
            found.append("`approval-policy` has no effect: codex exec never asks, but refuses what needs it")
        home = self.bounds.home(arguments.get("codex_home")) or self.config.codex_home
        file = os.path.join(home, f"{profile}.config.toml")
        if profile and not os.path.exists(file):
            found.append(f"Codex passes over the profile `{profile}`: there is no {file}")
        return add_warning((), *found)

    def thread_named(self, request: Mapping[str, Any]) -> Optional[str]:
        """The thread that a request continues, None for none. Raises: ToolError."""
        thread_id, task_id = request.get("threadId"), request.get("task_id")
        if thread_id is None and task_id is None:
            return None
        if self.config.ephemeral:
            raise ToolError("No thread can be continued here",
                            "This server was started with --ephemeral, so codex keeps no threads",
                            "Start a new task with everything it needs in the prompt, or restart the server "
                            "without --ephemeral")
        if task_id is not None:
            of_task = self.view.of(task_id).whole(f"Task {task_id} cannot be continued").thread_id
            if of_task is None:
                raise ToolError(f"Task {task_id} has no thread to continue",
                                "It ended before Codex opened one, or Codex has not opened it yet",
                                "See codex_status; start a new task if it has ended")
            if thread_id is not None and thread_id.lower() != of_task.lower():
                raise ToolError("`threadId` and `task_id` name different threads",
                                f"Task {task_id} has the thread {of_task}", "Send one of them")
            thread_id = of_task
        return thread_id

    def _thread(self, request: Mapping[str, Any]) -> Thread:
        """The thread to continue, if any. Raises: ToolError."""
        thread_id, forks = self.thread_named(request), request.get("fork", False)
        if forks and not thread_id:
            raise ToolError("`fork` needs the thread to copy", "None is named", "Pass `threadId`")
        if forks and request.get("interrupt"):
            raise ToolError("`fork` and `interrupt` exclude each other", "A copy disturbs nobody", "Pass one")
        tasks = self.watch.of_thread(thread_id) if thread_id else []
        busy = [seen.task.task_id for seen in tasks if not seen.ended]
        if busy and not (forks or request.get("interrupt")):
            raise ToolError(f"Thread {thread_id} is busy", f"Task {busy[0]} is still working in it",
                            "codex_wait for that task, then reply. Or pass `interrupt` true, which stops "
                            "its turn first, or `fork` true, which goes on in a copy of the thread")
        owner = next((seen.spec for seen in tasks if not seen.damage), None)
        if owner and owner.ephemeral and owner.thread_id is None:
            raise ToolError(f"Thread {thread_id} cannot be continued",
                            f"Task {owner.task_id} was `ephemeral`: codex kept nothing of it",
                            "Start a new task with everything it needs in the prompt")
        usages = (seen.report.thread_usage for seen in tasks if seen.report)
        return Thread(thread_id, owner, next(filter(None, usages), None))


UNITE = "(Before this turn {} was merged into your working directory. Where both changed the same, the " \
        "files now hold both versions between the markers <<<<<<< and >>>>>>>: {}. Unite both, and remove " \
        "the markers.)"


def warned(plan: Plan, warning: str) -> Plan:
    return plan._replace(spec=plan.spec._replace(warnings=(*plan.spec.warnings, warning)))


class Birth:
    """A task on its way from its plan to its supervisor."""

    def __init__(self, plan: Plan, task: TaskDir) -> None:
        self.plan, self.task = plan, task           # hidden, until it may appear
        self.runs = False


class Starter(Room):
    """Makes tasks of requests: none where one of these is wrong. After that a worktree which cannot be made
    fails its own task, as one of several: its record has git's words."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(*planner.ground)
        self.planner, self.worktrees = planner, planner.worktrees

    def start(self, requests: Sequence[Mapping[str, Any]], label: str, call: Call) -> List[str]:
        """See Swarm.start."""
        self._check_depth()
        self.store.prepare()
        if not call.request_id:
            return self._start(requests, label, call, lambda ids: None)
        import hashlib
        note = self.store.request(call.request_id)
        here = (one for one in requests if "cwd" in one or not {"threadId", "task_id"} & set(one))
        at = [os.path.abspath(one.get("cwd", ".")) for one in here]      # others work where their thread did
        digest = hashlib.sha256(json.dumps([at, requests], sort_keys=True).encode()).hexdigest()
        with locked(note + ".lock", fcntl.LOCK_EX, os.O_CREAT):     # the same call may be made twice at once
            with contextlib.suppress(*UNREADABLE):
                before = from_json(NotedCall, read_json(note))
                there = self._started_by(before, digest, f"`client_request_id` {_show(call.request_id)}")
                if there:
                    return there
            try:
                return self._start(requests, label, call,
                                   lambda ids: write_atomic(note, to_json(NotedCall(digest, tuple(ids)))))
            except ToolError:
                if not self.watch.closing:      # else what runs goes on
                    with contextlib.suppress(OSError):
                        os.unlink(note)
                raise

    def _started_by(self, before: NotedCall, digest: str, named: str) -> List[str]:
        """The tasks of the call that was made before under the same id, none where nothing of it is there.
        Raises: ToolError for another call, and where a part of its tasks is missing."""
        there = [task_id for task_id in before.task_ids if self.store.has(task_id)]
        if before.digest != digest:
            raise ToolError(f"{named} stands for another call",
                            f"That one started {', '.join(before.task_ids[:NAMES_SHOWN])}",
                            "Use a new id for a new request")
        if there and len(there) < len(before.task_ids):
            raise ToolError(f"Of the {len(before.task_ids)} tasks of {named} only {len(there)} are there",
                            f"These are: {', '.join(there)}; the others never started, or were removed since",
                            "codex_wait for those, and start the others under a new id")
        return there

    def _start(self, requests: Sequence[Mapping[str, Any]], label: str, call: Call,
               note: Callable[[List[str]], None]) -> List[str]:
        """`note`: what to do with the ids before the first task runs."""
        alone = any("update_from" in one for one in requests)       # files change before others see the task
        with contextlib.ExitStack() as locks:
            # What a plan counts on is not swept away before it runs, and nobody else decides to work in a
            # thread until all see who does.
            hold = lambda name, how: locks.enter_context(self.store.locked(name, how, call.tell))
            hold("sweep.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            for thread_id in self._threads_named(requests, label):
                hold(self.store.thread(thread_id) + ".lock", fcntl.LOCK_EX)
            stopped = [self._interrupt(one) if one.get("interrupt") else "" for one in requests]
            calm = [{key: one[key] for key in one if key != "interrupt"} for one in requests]
            return self._launch(self._plans(calm, label, stopped), call, note)

    def _interrupt(self, request: Mapping[str, Any]) -> str:
        """Stop the turn that runs in the thread of this request, which nothing else speaks against, and say
        what was lost by it. Raises: ToolError."""
        thread_id = self.planner.plan(request).spec.thread_id
        if thread_id is None:
            return ""
        busy = [seen.task.task_id for seen in self.watch.of_thread(thread_id) if not seen.ended]
        self.watch.stop(busy)
        self.watch.wait(busy, CANCEL_WAIT_S, Call())
        lost = "was stopped for this reply, and what its command did not finish is lost"
        return f"The turn of task {busy[0]} {lost}" if busy else ""

    def _plans(self, requests: Sequence[Mapping[str, Any]], label: str, stopped: Sequence[str]) -> List[Plan]:
        source_of = functools.lru_cache(None)(self.worktrees.source)    # git is asked once for each place
        plans = [self._named(label, i, self.planner.plan, one, source_of) for i, one in enumerate(requests)]
        plans = [warned(plan, lost) if lost else plan for plan, lost in zip(plans, stopped)]
        plans = [self._named(label, i, self._bound, plan, requests[i], plans[:i])
                 for i, plan in enumerate(self._with_twins(plans))]
        if any(plan.base or plan.spec.planned for plan in plans):
            self.worktrees.check_room()
        return [self._merge_into_worktree(plan, plan.update_from) if plan.update_from else plan
                for plan in plans]

    def _bound(self, plan: Plan, request: Mapping[str, Any], before: Sequence[Plan]) -> Plan:
        """The plan with what it waits for: also for each task whose result its prompt names, and for the one
        that its worktree begins with. Raises: ToolError."""
        wanted = request.get("worktree")
        base = wanted.get("base", "") if isinstance(wanted, dict) else ""
        plan = self._begun_with(plan, base[len(TASK_BASE):], before) if base.startswith(TASK_BASE) else plan
        ids = [task_id for name in request.get("depends_on", ())
               for task_id in self._entry(name, before) or self.watch.named(name)]
        results = {name: self._result_of(name, before) for name in re.findall(RESULT, plan.prompt)}
        ids += [*results.values(), *plan.spec.depends_on]
        if ids and self.host.tasks_around():
            raise ToolError("`depends_on` is not possible here", "Inside of a task nobody begins it",
                            "Start it when the others have ended")
        return plan._replace(spec=plan.spec._replace(
            depends_on=tuple(dict.fromkeys(ids)), on_failure=request.get("on_failure", ""), results=results))

    def _begun_with(self, plan: Plan, name: str, before: Sequence[Plan]) -> Plan:
        """The plan with a worktree that begins with what another task came to; it is made when this one
        begins. Raises: ToolError."""
        task_id = (self._entry(name, before) or [one_named(self.watch, name)])[0]
        what, spec = f"`base`: the worktree cannot begin with task {task_id}", plan.spec
        same_call = [one.spec for one in before if one.spec.task_id == task_id]
        earlier = [] if same_call else [self.view.of(task_id).whole(what)]
        there = [*same_call, *(seen.spec for seen in earlier)][0].checkout
        if not there:
            raise ToolError(what, "It has no worktree, so it leaves no commit", "Pass `worktree` there, too")
        if repository_of(there)[0] != repository_of(spec.checkout)[0]:
            raise ToolError(what, f"It belongs to another repository, {there}", "Pass a `cwd` in there")
        if plan.carry:
            raise ToolError(what, "`include_changes` takes what was changed on top of HEAD",
                            "Leave one of the two out")
        ended = any(seen.ended and snapshot_of(seen.task) for seen in earlier)
        path, branch, cwd = self.worktrees.place_for(spec)
        planned = Worktree(path, branch, TASK_BASE + task_id, "")
        spec = spec._replace(planned=planned, cwd=cwd, depends_on=() if ended else (task_id,),
                             min_free_mb=self.config.min_free_mb)
        return plan._replace(base="", spec=spec)

    def _result_of(self, name: str, before: Sequence[Plan]) -> str:
        """The task whose result a prompt names. Raises: ToolError."""
        try:
            return (self._entry(name, before) or [one_named(self.watch, name)])[0]
        except ToolError as error:
            raise type(error)(f"`{{{{result:{clip(name, 60)}}}}}` in the prompt: {error.what}", error.why,
                              f"{error.fix}. As plain text, write it with a blank between the braces")

    def _entry(self, name: Union[str, int], before: Sequence[Plan]) -> List[str]:
        """The task for which the index of an entry stands, none for another name. It is one `before` this, so
        no two wait for each other. Raises: ToolError."""
        if not re.fullmatch(r"\d{1,3}", str(name)):
            return []
        if int(name) >= len(before):
            raise WrongArgument(f"Entry {name} is none of those before it",
                                "A task can only wait for entries that stand before it, so that no two wait "
                                "for each other; the first one is 0", "Put it behind those that it needs")
        return [before[int(name)].spec.task_id]

    def _with_twins(self, plans: Sequence[Plan]) -> List[Plan]:
        """The plans, with a warning where the same prompt runs in the same place already."""
        running: Dict[Tuple[str, str], str] = {}
        for task_id in self.watch.unended():
            with contextlib.suppress(ToolError, *UNREADABLE):   # only the spec: events may be many
                spec = self.store.get(task_id).spec()
                running[spec.title, spec.checkout or spec.cwd] = task_id
        twins = [running.get((plan.spec.title, plan.spec.checkout or plan.spec.cwd), "") for plan in plans]
        return [warned(plan, f"Task {twin} runs already with the same prompt, in the same place")
                if twin and text_in(self.store.get(twin).file("prompt")) == plan.prompt else plan
                for plan, twin in zip(plans, twins)]

    def _merge_into_worktree(self, plan: Plan, part: Part) -> Plan:
        """Raises: ToolError."""
        tree = plan.spec.worktree
        assert tree is not None
        if self.git.within(tree.git_dir).contains("HEAD", part.head):
            return warned(plan, f"{part.name} is in {tree.branch} already: `update_from` merged nothing")
        try:
            now, conflicts = update_worktree(self.git, tree, part)
        except OSError as error:
            raise ToolError(f"{tree.path} cannot be updated", error.strerror or str(error),
                            "Reply without `update_from`")
        plan = plan._replace(spec=plan.spec._replace(since=now))
        if not conflicts:
            return plan
        prompt = f"{plan.prompt}\n\n" + UNITE.format(part.name, ", ".join(conflicts[:FILES_SHOWN]))
        plan = plan._replace(prompt=prompt if len(prompt) <= MAX_PROMPT_CHARS else plan.prompt)
        return warned(plan, f"Merged {part.name} into the worktree with conflicts, marked in "
                            f"{in_words(some(conflicts))}: the task has to unite them")

    def _check_depth(self) -> None:
        """Raises: ToolError when this server runs inside of so many tasks that it may start nothing."""
        around = self.host.tasks_around().union(filter(None, [self.environ.get(TASK_ENV)]))
        if len(around) >= self.config.depth:
            outer = ", ".join(sorted(around))
            raise ToolError(f"No task is started: this server runs inside of task {outer}",
                            "Whatever it started would be stopped when that task ends",
                            "Do the work in this task itself. The user can allow it: "
                            f"CODEX_SWARM_DEPTH={len(around) + 1} "
                            "in the `env` of this server's entry in Codex's config.toml")

    def _threads_named(self, requests: Sequence[Mapping[str, Any]], label: str) -> List[str]:
        """The threads that these requests continue, in the order in which everybody locks them. Raises:
        ToolError."""
        named = [self._named(label, i, self.planner.thread_named, one) for i, one in enumerate(requests)
                 if not one.get("fork")]
        found = sorted(thread_id.lower() for thread_id in named if thread_id)
        if len(set(found)) < len(found):
            raise ToolError("Two of these requests name the same thread",
                            "Only one task at a time can work in it",
                            "Start one, codex_wait for it, then reply")
        return found

    def _named(self, label: str, index: int, act: Callable[..., Any], *args: Any) -> Any:
        try:
            if self.watch.closing:
                raise ToolError("The server is ending", "Its client has gone", "Call again")
            return act(*args)
        except ToolError as error:
            what = f"`{label}[{index}]`: {error.what}" if label else error.what
            raise type(error)(what, error.why, error.fix, error.kind)

    def _launch(self, plans: Sequence[Plan], call: Call, note: Callable[[List[str]], None]) -> List[str]:
        """Write every task before the first one starts, so that a full disk is found while nothing runs. Then
        each starts as soon as its worktree is made, of which several are made side by side."""
        births: List[Birth] = []
        self.host.prepare_to_launch()
        try:
            with contextlib.ExitStack() as undo:
                undo.callback(self._undo, births)
                for plan in plans:
                    births.append(Birth(plan, TaskDir.create(self.store.tasks, plan.spec, plan.prompt)))
                note([plan.spec.task_id for plan in plans])
                self._begin_all(births, call)
                flush(birth.task.file(name) for birth in births for name in (
                    "prompt", "spec.json", "status.json", "environ", *texts_of(birth.plan.spec)))
                undo.pop_all()
        except (OSError, RuntimeError) as error:
            ids = ", ".join(birth.task.task_id for birth in births if birth.runs)
            done = f"Some had started and were stopped again: {ids}" if ids else "Nothing was started"
            why = reason_of(error) if isinstance(error, OSError) else str(error)
            fix = REMEDIES.get(getattr(error, "errno", 0), MEND)
            raise ToolError(f"A task could not be written or launched under `{self.store.root}`",
                            f"{why}. {done}", f"{fix}; CODEX_SWARM_TASK_DIR names another directory")
        return [birth.task.task_id for birth in births]

    def _begin_all(self, births: Sequence[Birth], call: Call) -> None:
        """After an error nothing more is begun. Raises: ToolError, OSError, RuntimeError."""
        begin = functools.partial(self._begin, call=call, lone=len(births) == 1)
        if sum(bool(birth.plan.base) for birth in births) < 2:
            for birth in births:
                begin(birth)
        else:
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(CHECKOUTS) as pool:
                list(pool.map(begin, births))

    def _begin(self, birth: Birth, call: Call, lone: bool) -> None:
        """Make the worktree, if one is wanted, and launch the task. Raises: ToolError, OSError."""
        unwanted = ToolError("Nobody waits for this call any more", "Its client has gone or cancelled it",
                             f"What had begun {'goes on' if self.watch.closing else 'is stopped'}")
        if self.watch.closing or call.abandoned and birth.plan.base:    # else it is stopped at once
            raise unwanted
        try:
            if birth.plan.base:
                birth.plan = self.worktrees.made_for(birth.plan)
                birth.task.write_spec(birth.plan.spec)
        except ToolError as error:
            if lone:
                raise
            return self._fail(birth, error)
        if call.abandoned and birth.plan.base:      # while it was made, which takes its time
            raise unwanted
        self._run(birth)

    def _run(self, birth: Birth) -> None:
        """Let it begin, or wait for its turn. Inside of a task it begins in the place of that, or both could
        wait for each other; it is stopped with it. Raises: OSError."""
        queue, spec = self.store.queue, birth.plan.spec
        with queue.lock(), open(open_lock(birth.task.file("lock")), "wb") as lock:
            flock(lock.fileno(), fcntl.LOCK_EX)
            birth.task.keep_environ(self.environ)       # also for whoever lets it begin should we be killed
            slot = queue.turn(spec, bool(self.host.tasks_around()))
            try:
                birth.task = queue.put(birth.task, spec, self.host.now())
                if slot is not None:
                    self.watch.launch(birth.task, [lock.fileno(), *slot])
            finally:
                close_all(*slot or ())
        birth.runs = True
        if slot is None:
            self.watch.move(0)

    def _fail(self, birth: Birth, error: ToolError) -> None:
        """A task whose worktree cannot be made has ended when it appears. Its `cwd` is the place that is not
        there: it has done nothing in the checkout. Raises: OSError."""
        task, spec = birth.task, birth.plan.spec
        task.write_spec(spec._replace(cwd=os.path.join(self.config.worktree_dir, spec.task_id)))
        self.store.queue.end(task, not_begun(error), self.host.now())
        birth.task = task.appear()
        self.host.log("WARNING", f"{birth.task.task_id}: {error}")

    def _undo(self, births: Sequence[Birth]) -> None:
        """Stop what runs, unless the server ends, and leave nothing of the others."""
        now, going = self.host.now(), [birth for birth in births if birth.runs and not self.watch.closing]
        for birth in going:
            with contextlib.suppress(OSError):              # it gets the order, like all that run
                birth.runs = not self.store.queue.cancel(birth.task, now)
        self.watch.stop([birth.task.task_id for birth in going if birth.runs])
        for birth in births:
            if not birth.runs:
                birth.task.stop()                           # for want of a descriptor it may have to stay
                birth.task.discard()
                spec = birth.plan.spec
                if birth.plan.base and spec.worktree:
                    Trees(self.git).discard(spec.checkout, spec.worktree.path, spec.worktree.branch)


def _ended(record: TaskRecord, report: Report) -> TaskRecord:
    why = report.failure
    if why and not report.thread_id:
        why = why._replace(advice=without_thread(why.advice))
    return record._replace(
        content=report.content, structured=report.structured, failure=why, sandbox=report.sandbox,
        model=report.model, usage=report.usage, outside_write_paths=report.outside_write_paths,
        warnings=report.warnings, exit_code=report.exit_code, elapsed_s=round(report.elapsed_s, 3))


def _thinking(p: Progress) -> str:
    """What the model thinks aloud, where that is the last thing it did."""
    with contextlib.suppress(ValueError, TypeError):
        return clip_masked(json.loads(p.thought or b'""'), MESSAGE_CHARS)
    return ""


def _running(record: TaskRecord, seen: Seen, now: float) -> TaskRecord:
    p, spec, idle_since = seen.progress, seen.spec, seen.status.idle_since
    limit_s = spec.arguments.get("idle_timeout_s", 0)
    live = {"phase": p.phase.value, "detail": p.detail, "phase_s": age(now, seen.phase_at or spec.created_at),
            "last_event_s": age(now, seen.changed_at or spec.created_at), "tools": dict(p.tools),
            "last_command": p.last_command, "last_file": p.last_file,
            "last_message": clip_masked(p.message or "", MESSAGE_CHARS),
            "idle": f"{lasting(now - idle_since)} of {lasting(limit_s)}" if idle_since else "",
            "thinking": _thinking(p), "retries": p.retries,
            "unknown_events": p.unknown}
    ran = asked(spec.arguments, spec.overrides)
    return record._replace(
        sandbox=ran.sandbox, model=ran.model, elapsed_s=age(now, spec.created_at),
        warnings=tuple(dict.fromkeys((*spec.warnings, *p.warnings))),
        progress={k: v for k, v in live.items() if k.endswith("_s") or v not in ("", {}, 0)})


class Sweep(Room):
    """One sweep. A unit is all tasks that worked in one worktree, or one task without; everything of it goes,
    or nothing: first all but the answers, in time those. In between nothing but their age is looked at."""

    def __init__(self, bounds: Bounds, dry_run: bool, ignored: bool, merged: bool, by_itself: bool) -> None:
        super().__init__(*bounds.ground)
        self.bounds, self.trees = bounds, self.config.worktree_dir
        self.max_age_s, self.result_age_s = self.config.task_max_age_s, self.config.result_max_age_s
        self.dry_run, self.ignored, self.merged, self.by_itself = dry_run, ignored, merged, by_itself
        self.units: Dict[str, List[TaskDir]] = {}               # worktree, or task directory -> its tasks
        self.made: Dict[str, Worktree] = {}                     # by path, as the newest task knows it
        self.seen: Set[str] = set()                             # every task
        self.found = Swept(False, "", (), ())                   # what is known of the thing that is looked at

    def run(self) -> Iterator[Swept]:
        self._look()
        unmade = set(filter(self._never_ran, names_in(self.trees)))     # while their records tell so
        for name in sorted(unmade):
            yield from self._one(self._clear_strange, os.path.join(self.trees, name))
        for path in sorted(self.units):
            yield from self._one(self._clear_unit, path)
        for name in sorted(set(names_in(self.trees)) - self.seen - unmade - {OURS}):
            yield from self._one(self._clear_strange, os.path.join(self.trees, name))
        yield from self._one(self._clear_traces, self.store.root)
        for common in {common_of(tree) for tree in self.made.values() if not self.dry_run}:
            with contextlib.suppress(GitError):
                self.bounds.check_settings(common, common)
                empty_trash(self._git(), common)
        if not self.dry_run:
            self.store.ended.forget(lambda task_id: not self.store.has(task_id))

    def _git(self) -> Git:
        return Git(self.host, self.git.environ, GIT_TIMEOUT_S, self.git.own)

    def _look(self) -> None:
        """Take in the tasks that have come since the last look."""
        for task_id in [task_id for task_id in reversed(self.store.ids()) if task_id not in self.seen]:
            self.seen.add(task_id)
            task, tree = TaskDir(os.path.join(self.store.tasks, task_id)), None
            if not self._is_put_away(task):
                with contextlib.suppress(*UNREADABLE):
                    tree = task.spec().worktree
                if tree:
                    self.made[tree.path] = tree
                self.units.setdefault(tree.path if tree else task.path, []).append(task)

    def _is_put_away(self, task: TaskDir) -> bool:
        """Whether only the answer is left of a task, and not old enough to go as well."""
        since = task.kept_since()
        return since > 0 and not self._old(self.host.now() - since, self.result_age_s)

    def _old(self, age_s: float, max_age_s: Optional[float] = None) -> bool:
        return 0 < (self.max_age_s if max_age_s is None else max_age_s) < age_s

    def _one(self, clear: Callable[[str, bool], Optional[List[str]]], path: str) -> Iterator[Swept]:
        """Decide on one thing, then once more and act while nobody starts a task and no other sweep acts:
        nobody waits for what stays. `clear` tells what becomes of it, if anything, or raises why it stays."""
        self.found = Swept(False, path, (), ())
        lock, wait = os.path.join(self.store.root, "sweep.lock"), fcntl.LOCK_NB if self.by_itself else 0
        try:
            # a look runs git there, and another sweep would take that for somebody who works there
            shared = functools.partial(locked, lock, fcntl.LOCK_SH | wait)
            with shared() if os.path.exists(lock) else contextlib.nullcontext(True) as quiet:
                notes = clear(path, False) if quiet else None
            if notes is not None and not self.dry_run:
                with self.store.locked("sweep.lock", fcntl.LOCK_EX | wait) as alone:
                    notes = clear(path, True) if alone else None
            if notes is not None:
                yield self.found._replace(removed=True, notes=tuple(notes))
        except (ToolError, RecursionError, *UNREADABLE) as error:
            if not self.by_itself:
                yield self.found._replace(notes=(str(error) or type(error).__name__,))

    def _tell(self, **facts: Any) -> None:
        self.found = self.found._replace(**facts)

    def _measure(self, act: bool, *paths: str) -> None:
        if not (act or self.by_itself):
            said = self.host.run(["du", "-sk", *paths], "/", timeout_s=60).out  # none if that is short
            self._tell(bytes=1024 * sum(map(int, re.findall(r"(?m)^(\d+)\t", said))))

    def _clear_unit(self, path: str, act: bool) -> Optional[List[str]]:
        if act:
            self._look()                                # for replies
        there = (task for task in self.units[path] if os.path.isdir(task.path))
        tasks = [task for task in there if not self._is_put_away(task)]
        if not tasks:
            return None                                 # another sweep was here
        self._tell(task_ids=tuple(task.task_id for task in tasks))
        self._measure(act, *{path, *(task.path for task in tasks)})
        age_s = self.host.now() - max(map(self._ended_at, tasks))
        self._tell(age_s=age_s)
        early = self._clearing(path) if self.merged else None
        if not (early and early.is_in_head()):
            self._check_due(tasks, age_s)
        over = self._old(age_s, self.result_age_s)
        until = f"until it is {lasting(self.result_age_s)} old" if self.result_age_s else "for ever"
        notes = [] if over else [f"All but the answer, which stays {until}"]
        clearing = None if all(task.kept_since() for task in tasks) else early or self._clearing(path)
        if act:
            return notes + self._put_away(tasks, clearing, over)
        return notes + (clearing.run(True, brief=not self.dry_run) if clearing else [])

    def _check_due(self, tasks: Sequence[TaskDir], age_s: float) -> None:
        """Raises: ToolError for tasks that are too young to go."""
        if not self._old(age_s):
            kept = f"for {lasting(self.max_age_s)}" if self.max_age_s else "for ever"
            raise ToolError(f"What has ended is kept {kept}")
        if age_s < TRASH_S and not all(os.path.exists(task.file("collected")) for task in tasks):
            raise ToolError("No client has collected the result yet", "", "codex_wait returns it; when it is "
                            f"{TRASH_S / 86400:.0f} days old it goes all the same")

    def _put_away(self, tasks: Sequence[TaskDir], clearing: Optional[Clearing], over: bool) -> List[str]:
        """Raises: ToolError, OSError."""
        seen = [self.view.of(task.task_id) for task in tasks]     # one whose lock we hold seems to run
        with contextlib.ExitStack() as held:
            for task in tasks:
                lock = self.store.locked(task.file("lock"), fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not held.enter_context(lock):
                    raise ToolError(f"Task {task.task_id} runs, or somebody looks at it right now")
            notes = clearing.run() if clearing else []
            for each in seen:
                report, tree = each.report, each.worktree
                if clearing and report and tree and not tree.head:      # committed only now
                    tree = tree._replace(head=clearing.tip(), unsaved=None)
                    report = report._replace(worktree=tree)
                if over:
                    each.task.remove()
                elif report is not None:
                    each.task.thin(each.status, report)
        return notes

    def _clearing(self, path: str) -> Optional[Clearing]:
        """What removes the worktree of a unit, None where it has none. Raises: ToolError."""
        tree, trees = self.made.get(path), self.trees
        if tree is None:
            return None
        if not is_inside(os.path.dirname(path), trees) or os.path.islink(path):
            raise ToolError("It is no worktree below CODEX_SWARM_WORKTREE_DIR",
                            f"Nothing outside of `{trees}` is removed",
                            "Set the variable to where it was made, or remove both by hand")
        if not os.path.lexists(path) and not os.path.exists(os.path.join(trees, OURS)):
            raise ToolError(f"`{trees}` is not there, or not ours", "It may be on a disk that is not mounted",
                            "Mount it; if it was deleted, the next worktree makes it anew")
        self.bounds.check_worktree(tree.git_dir)            # a look runs filters
        return Clearing(self._git(), tree, self.ignored, self.merged)

    def _ended_at(self, task: TaskDir) -> float:
        """Raises: ToolError when it has not ended, or its record does not tell."""
        try:
            status = task.status()
            if status.state is not State.ENDED:
                raise ToolError(f"Task {task.task_id} has not ended, it is {status.state.value}")
            task.spec()
            if status.outcome is Outcome.LOST and not os.path.exists(task.file("report.json")):
                return max(map(modified_at, map(task.file, ("spec.json", "status.json", "events.jsonl"))))
            ended_at = float(task.report().ended_at)
            if ended_at > 0:
                return ended_at
            raise ValueError("It does not tell when it ended")
        except UNREADABLE as error:
            why = f"{type(error).__name__}: {error}"
            raise ToolError(f"The record of task {task.task_id} is damaged", why,
                            f"Look into `{task.path}`, and remove it by hand")

    def _never_ran(self, task_id: str) -> bool:
        """Whether a record tells that a task did not work in its worktree: that was still to be made."""
        with contextlib.suppress(*UNREADABLE):
            return TaskDir(os.path.join(self.store.tasks, task_id)).spec().planned is not None
        return os.path.isdir(os.path.join(self.store.tasks, "." + task_id))

    def _clear_strange(self, path: str, act: bool) -> Optional[List[str]]:
        """What is among the worktrees and no task worked there: one over which a server was killed may go."""
        self._look()                                    # it may have become a task's
        name = os.path.basename(path)
        never_ran = self._never_ran(name)
        theirs = name.replace(REMOVED, "", 1) in self.seen and not never_ran
        if theirs or not os.path.lexists(path):
            return None
        self._measure(act, path)
        git_dir = leads_to(path, ".git")
        if git_dir:
            self.bounds.check_worktree(git_dir)
        scrap(self._git(), path, max(VERIFY_S, self.max_age_s or float("inf")), not act, never_ran)
        return ["A server was killed while it made this, or tried a merge here"]

    def _clear_traces(self, path: str, act: bool) -> Optional[List[str]]:
        """Tasks over whose making or removal somebody was killed; indexes of threads without a task; what git
        was killed over; MCP tasks that ended long ago, and of whose tasks no more than the answer is left."""
        store, trees, now = self.store, self.config.worktree_dir, self.host.now()
        never_ran = lambda name: re.fullmatch(r"\." + TASK_ID, name) and \
            not os.path.lexists(os.path.join(trees, name[1:]))      # or it tells that no task ran in there
        scratch_s = self.max_age_s and max(self.max_age_s, VERIFY_S)        # git may use it until then
        empty = lambda name: not any(map(store.has, store.settled(name[:36])))
        traces = ((store.tasks, self.max_age_s, never_ran), (store.threads, self.max_age_s, empty),
                  (self.git.own, scratch_s, lambda name: name.startswith(".")),
                  (store.requests, self.result_age_s, lambda name: True))
        due = [os.path.join(directory, name) for directory, max_age_s, is_trace in traces
               for name in names_in(directory) if is_trace(name)
               and self._old(now - modified_at(os.path.join(directory, name)), max_age_s)]
        for handle_id, files in store.handle_files().items():
            handle, end = store.handle(handle_id), store.handle_end(handle_id)
            at = end.at if end else handle.created_at if handle else max(map(modified_at, files))
            waited = [store.get(i) for i in (handle.wait.task_ids if handle else ()) if store.has(i)]
            if self._old(now - at) and all(task.kept_since() for task in waited):
                due += files
        for there in due if act else ():
            with contextlib.suppress(FileNotFoundError):
                delete_tree(there)
        self._tell(path=f"{len(due)} traces below {path}")
        what = "Of tasks that are gone or never were whole, and of answers that clients tracked"
        return [what] if due else None


class Finding(NamedTuple):
    """What one check found, and what to do about it, if anything."""
    name: str
    health: Health
    what: str
    fix: str = ""


class Entry(NamedTuple):
    """How a client is told to start us."""
    files: Tuple[str, ...]              # where it may stand; relative: in a project. None: codex tells itself
    text: str                           # capitals stand for the command
    limit_s: Optional[float] = None     # how long a call may take where the entry says nothing; 0: hours
    where: str = ""                     # it goes, where that is not one of `files`

    @property
    def place(self) -> str:
        files = (file if file.startswith("~") else f"{file} in a project" for file in self.files)
        return self.where or "For " + ", or ".join(files)


# To add a client, add a row. Source of the limits: Claude Code 2.1.329, codex-cli 0.169.0, the documentation
# of Gemini CLI; of the others nobody can tell.
CLIENTS: Mapping[str, Entry] = {
    "claude": Entry(("~/.claude.json", ".mcp.json"), "claude mcp add codex-swarm -- SHELL", 0.0,
                    "Run this in your project. For all projects: `claude mcp add --scope user ...`"),
    "codex": Entry((), """\
[mcp_servers.codex-swarm]
command = PROGRAM
# The last two keep tasks from starting this server again; the name in them is this table's.
args = [BEGIN"-c", "mcp_servers.codex-swarm.enabled=false"]
tool_timeout_sec = 3600
# `codex exec` refuses tools that would have to ask.
default_tools_approval_mode = "approve\"""", 300.0, "For ~/.codex/config.toml"),
    "cursor": Entry(("~/.cursor/mcp.json", ".cursor/mcp.json"),
                    '{"mcpServers": {"codex-swarm": {"command": PROGRAM, "args": [ARGS]}}}'),
    "vscode": Entry((".vscode/mcp.json",),
                    '{"servers": {"codex-swarm": {"type": "stdio", "command": PROGRAM, "args": [ARGS]}}}'),
    "gemini": Entry(
        ("~/.gemini/settings.json",),
        '{"mcpServers": {"codex-swarm": {"command": PROGRAM, "args": [ARGS], "timeout": 3600000}}}', 600.0),
    "opencode": Entry(
        ("opencode.json", "~/.config/opencode/opencode.json"),
        '{"mcp": {"codex-swarm": {"type": "local", "command": [ALL], "timeout": 3600000}}}'),
    "claude-desktop": Entry(("~/.config/Claude/claude_desktop_config.json",
                             "~/Library/Application Support/Claude/claude_desktop_config.json"),
                            '{"mcpServers": {"codex-swarm": {"command": PROGRAM, "args": [ARGS]}}}',
                            where="For claude_desktop_config.json (Settings, Developer)")}


def our_entries(settings: str, cwd: str) -> List[Dict[str, Any]]:
    """Our entries in the settings of a client, `command` as one list. Raises: ValueError, TypeError,
    LookupError, AttributeError or RecursionError for what is no JSON, or says something else."""
    data = json.loads(settings)
    if isinstance(data, list):                                          # as codex tells it
        data = {"mcp": {row["name"]: {**row["transport"], "timeout": 1000 * (row["tool_timeout_sec"] or 0)}
                        for row in data if row["enabled"]}}
    parts = (data, data.get("projects", {}).get(cwd, {}))               # Claude Code's for this directory
    rows = [row for part in parts for table in ("mcpServers", "servers", "mcp")
            for row in part.get(table, {}).items()]
    found = []
    for name, entry in rows:
        first, more = entry.get("command") or [], entry.get("args") or []
        words = [*([first] if isinstance(first, str) else first), *more]
        if words and re.search(r"codex[-_](mcp[-_])?swarm", " ".join((name, *words))):
            found.append({**entry, "command": words})
    return found


class Doctor(Room):
    """What tasks stand on, and who starts us. It changes nothing of yours: what it makes lies in a
    directory of its own, which goes again. A check returns what it found, and what to do about it, if
    anything; what it raises is broken."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(*bounds.ground)
        self.bounds, self.cwd = bounds, os.sep
        with contextlib.suppress(OSError):          # the directory is gone
            self.cwd = os.getcwd()

    def findings(self) -> List[Finding]:
        """Where there is no codex, nothing is asked of it. Blocks for a second; a minute where it hangs."""
        found = [self.one("codex", self.codex)]
        there = found[0].health is not Health.BROKEN
        checks = {"login": self.login, "sandbox": self.sandbox, "reach": self.reach} if there else {}
        for name, home in self.config.codex_homes if there else ():
            checks[f"login {name}"] = functools.partial(self.login, home)
        checks.update({"launcher": self.launcher} if there and self.config.launcher else {})
        checks.update(git=self.git_version, root=self.root, locks=self.locks, space=self.space)
        found += itertools.starmap(self.one, checks.items())
        clients = [one for name in CLIENTS if there or name != "codex" for one in self.client(name)]
        none = "no client that is known here starts this server", "`codex-mcp-swarm config CLIENT` prints how"
        return [*found, *(clients or [self.one("clients", lambda: none)])]

    def ready(self) -> Tuple[str, str]:
        """(a codex that can work, ""), or ("", why there is none)."""
        found = [self.one("codex", self.codex), self.one("login", self.login)]
        broken = [str(SwarmError(one.what, "", one.fix)) for one in found if one.health is Health.BROKEN]
        return ("", broken[0]) if broken else (self.bounds.codex(), "")

    @staticmethod
    def one(name: str, check: Callable[[], Tuple[str, str]]) -> Finding:
        try:
            what, fix = check()
            return Finding(name, Health.WARNING if fix else Health.OK, what, fix)
        except SwarmError as error:
            return Finding(name, Health.BROKEN, str(SwarmError(error.what, error.why)), error.fix)
        except OSError as error:
            return Finding(name, Health.BROKEN, reason_of(error), "Mend that, then ask again")

    def ask(self, *words: str, cwd: str = "/", home: str = "") -> Done:
        return self.host.run([self.bounds.codex(), *words], cwd, in_home(self.environ, home), timeout_s=20)

    def codex(self) -> Tuple[str, str]:
        path = self.bounds.codex()
        version = self.bounds.codex_version(path)
        what, (first, last) = f"{path}, version {dotted(version) or 'unknown'}", KNOWN_CODEX
        if first <= version[:2] <= last:
            return what, ""
        better = "this server, should records show `unknown_events`" if version > last else \
            "it: `npm install -g @openai/codex`"
        return what, f"{dotted(first)} to {dotted(last)} are known: update {better}"

    def login(self, home: str = "") -> Tuple[str, str]:
        """`codex login status` knows of OpenAI's login alone: with a key in the environment, or where a
        provider is named, the run itself has to tell. Source: codex-cli 0.169.0."""
        files = ("/etc/codex/config.toml", os.path.join(home or self.config.codex_home, "config.toml"))
        lines = [*self.config.overrides, *(line for file in files for line in text_in(file).split("\n"))]
        own = [line.strip() for line in lines if re.match(r"\s*model_provider\s*=", line)]
        own += [name for name in ("CODEX_API_KEY",) if name in in_home(self.environ, home)]
        if own:
            return f"`{own[-1]}`: whether that works, only a task can tell", ""
        done = self.ask("login", "status", home=home)
        said = (done.err or done.out).strip().split("\n")[0].partition(" - ")[0]
        if done.code:
            raise ToolError(f"{self.bounds.codex()} is not logged in", said.replace("Not logged in", ""),
                            f"`{f'CODEX_HOME={home} ' * bool(home)}codex login` does that")
        return f"{said}; whether the account is good for a task, only a task can tell", ""

    def sandbox(self) -> Tuple[str, str]:
        """Source: codex-cli 0.144.6, 0.154.0 and 0.169.0."""
        import tempfile
        settings = ('sandbox_mode="workspace-write"', "sandbox_workspace_write.writable_roots=[]",
                    "sandbox_workspace_write.exclude_slash_tmp=true",
                    "sandbox_workspace_write.exclude_tmpdir_env_var=true")
        words = [word for setting in settings for word in ("-c", setting)]
        with tempfile.TemporaryDirectory(prefix="codex-swarm-doctor-") as outside:
            inside = os.path.join(outside, "inside")
            os.mkdir(inside)
            done = self.ask("sandbox", *words, "--", "/bin/sh", "-c", ": > made; : > ../made", cwd=inside)
            works, leaks = (os.path.exists(os.path.join(at, "made")) for at in (inside, outside))
        if leaks:
            raise ToolError("A command in Codex's sandbox wrote outside of its workspace", "",
                            "Update codex, and until then give tasks nothing that they could harm")
        if not works:
            why = clip(" ".join(done.err.split()), 300) or f"exit status {done.code}"
            raise ToolError("No command runs in Codex's sandbox, so tasks can run none", why,
                            "On Linux allow user namespaces (AppArmor, or what the container may)")
        return "a command can write in its workspace and not outside", ""

    def reach(self) -> Tuple[str, str]:
        """Of tasks that may write in the current directory, and in a worktree."""
        spec = Spec("", 0, self.bounds.codex(), self.cwd, {"sandbox": SANDBOXES[1]}, self.config.overrides)
        places = (spec.cwd, os.path.join(self.config.worktree_dir, "0" * 12))
        profile = any(self.bounds.kept_out(spec, place).permissions for place in places)
        how = "is hidden from tasks by a permission profile" if profile else "is where tasks cannot write"
        return f"`{self.config.root}` {how}", ""

    def launcher(self) -> Tuple[str, str]:
        spec = Spec(self.host.new_task_id(), 0, self.bounds.codex(), self.cwd, launcher=self.config.launcher)
        done = self.host.run(launched(spec, [spec.codex, "--version"]), self.cwd, self.environ)
        shown, trouble = f"`{shell_words(spec.launcher)}`", end_elsewhere(self.host, spec)
        if done.code or "codex" not in done.out:
            raise ToolError(f"{shown} does not start codex", clip(done.err or done.out, 300),
                            f"Where it leads, {self.cwd} and {spec.codex} must be there as well")
        return f"{shown} starts codex", trouble

    def git_version(self) -> Tuple[str, str]:
        version = version_of(self.git.at("/"))
        what = f"git {dotted(version)}"
        if version < [2, 18]:
            raise ToolError(f"{what} is too old", "Worktrees need 2.18, merges 2.38", "Update git")
        return what, "" if version >= MERGES_SINCE else "codex_merge needs 2.38: update git"

    def root(self) -> Tuple[str, str]:
        root = self.config.root
        if not os.path.lexists(root):
            return f"`{root}` is made when the first task starts", ""
        if own_directory(root).st_mode & 0o077:
            import shlex
            return (f"others can see what is in `{root}`, though not in its tasks",
                    f"`chmod 700 {shlex.quote(root)}`")
        return f"`{root}` is yours alone", ""

    def locks(self) -> Tuple[str, str]:
        import tempfile
        there, fix = existing(self.config.root), "Name a directory on a local disk in CODEX_SWARM_TASK_DIR"
        try:
            with tempfile.TemporaryDirectory(prefix=".codex-swarm-doctor-", dir=there) as place:
                lock = os.path.join(place, "lock")
                with locked(lock, fcntl.LOCK_EX, os.O_CREAT):
                    holds = held(lock)
                os.mkfifo(os.path.join(place, "control"))
        except OSError as error:
            raise ToolError(f"No task can be kept in `{there}`", str(error), fix)
        if not holds:
            raise ToolError(f"In `{there}` two can hold the same lock", "Its file system locks nothing", fix)
        return f"locks and FIFOs work in `{there}`", ""

    def space(self) -> Tuple[str, str]:
        free = room_for(self.config.worktree_dir, self.config.min_free_mb)
        return f"{free:,} MiB are free in `{self.config.worktree_dir}`", ""

    def client(self, name: str) -> Iterator[Finding]:
        """Whether a client can start us, by each of our entries, and how long it waits for a call."""
        settings = {"`codex mcp list`": self.ask("mcp", "list", "--json").out} if name == "codex" else {}
        paths = [os.path.join(self.cwd, os.path.expanduser(file)) for file in CLIENTS[name].files]
        settings.update((f"`{path}`", text_in(path)) for path in paths if os.path.isfile(path))
        for where, text in settings.items():
            try:
                for entry in our_entries(text, self.cwd):
                    yield self.one(f"client {name}", lambda: self.entry(name, where, entry))
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                yield Finding(f"client {name}", Health.WARNING, f"{where} cannot be read as JSON",
                              "See whether the client reads it, and starts this server")

    def entry(self, name: str, where: str, entry: Mapping[str, Any]) -> Tuple[str, str]:
        import shutil
        words, fix = entry["command"], f"`codex-mcp-swarm config {name}` prints a good entry"
        lost = [word for word in words if re.match("/.*[.]py$", word) and not os.path.isfile(word)]
        if lost or not shutil.which(words[0], path=self.environ.get("PATH", os.defpath)):
            raise ToolError(f"{where} starts `{[*lost, words[0]][0]}`, which is not there", "", fix)
        limit_s = entry["timeout"] / 1000 if entry.get("timeout") else CLIENTS[name].limit_s
        if limit_s is None:
            return f"{where} starts us; should it end a call after 60 s, use `wait: false` and codex_wait", ""
        needs_s = WAIT_S_CODEX if name == "codex" else WAIT_S
        short = 0 < limit_s < needs_s
        return f"{where} starts us, and lets a call take {lasting(limit_s) if limit_s else 'hours'}", \
            f"Its tasks then go on: codex_wait. Better {lasting(needs_s)}: {fix}" if short else ""


def default_config(environ: Mapping[str, str]) -> Config:
    """What holds without flags, but for where tasks are kept, which CODEX_SWARM_TASK_DIR says."""
    home = os.path.expanduser("~")
    state = environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    given = environ.get("CODEX_SWARM_TASK_DIR") or os.path.join(state, "codex-swarm")
    root = os.path.abspath(os.path.expanduser(given))
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Config(root, os.path.join(root, "worktrees"),
                  codex_home=environ.get("CODEX_HOME") or os.path.join(home, ".codex"),
                  max_parallel=max(4, min(32, 8 * (os.cpu_count() or 1), memory_mb // 512)))


class Swarm:
    """The application, and the Python API. Thread-safe.

        with Swarm() as swarm:
            for record in swarm.run([{"prompt": "Say hello.", "cwd": "/home/me/project"}]):
                print(record["outcome"], record.get("content"))

    Without `config` tasks are kept where a server without flags keeps them: each sees those of the other. A
    block that ends by an exception, Ctrl-C included, stops the tasks that were started in it; all others go
    on, whatever becomes of this process."""

    def __init__(self, config: Optional[Config] = None, host: Optional[Host] = None,
                 environ: Optional[Mapping[str, str]] = None) -> None:
        environ = os.environ if environ is None else environ
        config = config or default_config(environ)
        host = host or Host(config.log_file, config.log_level)
        self.config, self.host, self.environ = config, host, environ
        self.begun: Optional[List[str]] = None          # inside of `with`: the tasks started there
        self.git = Git(host, environ, own=os.path.join(config.root, "git"))
        self.store = Store(config.root)
        self.view = View(self.store)
        self.watch = Watch(self.view, host, None if environ is os.environ else environ)
        self.bounds = Bounds(config, environ, self.git, self.watch)
        self.lists = Lists(self.bounds)
        self.compare = Compare(self.bounds)
        self.merger = Merger(Worktrees(self.bounds))
        self.planner = Planner(self.merger)
        self.starter = Starter(self.planner)
        # what needs nothing more than a room has
        self.plan = self.planner.plan
        self.wait, self.stop = self.watch.wait, self.watch.stop
        self.doctor = Doctor(self.bounds).findings
        self.overlaps, self.diff = self.compare.overlaps, self.compare.diff
        self.live, self.unended, self.collected = self.watch.live, self.watch.unended, self.watch.collected

    def __enter__(self) -> "Swarm":
        self.begun = []
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        begun, self.begun = self.begun or [], None
        if kind is not None:
            self.stop(begun)
            self.wait(begun, CANCEL_WAIT_S, Call())

    def run(self, requests: Iterable[Mapping[str, Any]],
            timeout_s: float = MAX_TIMEOUT_S) -> List[Dict[str, Any]]:
        """Start one task for each request, wait until all have ended, and return their records in this order.

        A request has the arguments of the tool `codex`; with `task_id` or `threadId` it goes on with that
        thread. After `timeout_s` (at most 7 days) the records say what still runs; nothing is stopped.
        Raises: ToolError when a request is wrong: then nothing was started."""
        schema = arr(obj({**RUN, "task_id": string(), "threadId": string()}, ["prompt"]))
        checked = canonical(schema, list(map(dict, requests)), "requests")
        refuse(problems(schema, checked, "requests"))
        task_ids = self.start(checked, "requests")
        self.wait(task_ids, timeout_s, Call())
        records = [self.record(task_id) for task_id in task_ids]
        self.collected([record["task_id"] for record in records if record["state"] == State.ENDED.value])
        return records

    def start(self, requests: Sequence[Mapping[str, Any]], label: str = "",
              call: Optional[Call] = None) -> List[str]:
        """Start one task for each request and return their ids. When one request is wrong, nothing is
        started. A worktree that cannot be made after that fails its own task, which has then ended; of a
        single request it is an error.

        `label` names the list in errors, as in `tasks[2]`. When `call` is cancelled by somebody's wish,
        nothing more is started, and what was is stopped. Blocks for a few milliseconds a task, longer for a
        worktree; the first tasks run before the last worktree is made. Raises: ToolError."""
        ids = self.starter.start(requests, label, call or Call())
        if self.begun is not None:
            self.begun += ids
        self._sweep_by_itself()
        return ids

    def row_of(self, task_id: str) -> TaskRow:
        """What a list says of a task. Raises: as `record`."""
        seen = self.view.of(task_id)
        spec, report, tree = seen.spec, seen.report, seen.worktree
        return TaskRow(task_id, seen.status.state, seen.status.outcome, spec.title or None,
                      spec.checkout or spec.cwd, tree.branch if tree else None, utc(spec.created_at),
                      utc(report.ended_at) if report else None,
                      round(report.elapsed_s, 3) if report else age(self.host.now(), spec.created_at),
                      False if seen.ended and not self.watch.is_given(seen.task) else None,
                      seen.damage or None)

    def record(self, task_id: str) -> Dict[str, Any]:
        """The record of a task, as every tool returns it; damaged files of one task make a poorer record of
        that task, no more.

        Raises: ToolError when there is no such task; OSError when the system is exhausted."""
        seen = self.view.of(task_id)
        spec, status, report = seen.spec, seen.status, seen.report
        tree = report.worktree if report else spec.worktree or spec.planned
        record = TaskRecord(
            task_id, spec.title or None, status.state, status.outcome, seen.thread_id,
            worktree=tree and shown(tree), codex_home=spec.arguments.get("codex_home"),
            on_limit=spec.arguments.get("on_limit"), attempts=status.attempts,
            started_at=round(spec.created_at, 6))       # in a millisecond several may start
        record = _ended(record, report) if report else _running(record, seen, self.host.now())
        if spec.review and report:              # whose usage codex counts as nothing
            record = record._replace(findings=tuple(comments_in(report.content or "")), usage=None)
        return to_json(record)

    def merge(self, task_ids: Sequence[str], call: Call, wish: Wish) -> Dict[str, Any]:
        """`Merger.merge`, with its answer as JSON data."""
        return to_json(self.merger.merge(task_ids, call, wish))

    def sweep(self, dry_run: bool = False, ignored: bool = False, merged: bool = False,
              by_itself: bool = False) -> Iterator[Swept]:
        """Remove what ended more than CODEX_SWARM_TASK_MAX_AGE ago, one thing at a time, and tell of each
        when it is done; answers stay for CODEX_SWARM_RESULT_MAX_AGE. A dry run only tells. `ignored`: also
        worktrees with ignored files of their own. `merged`: also young worktrees of which HEAD has all.
        `by_itself`: waits for nobody and tells of removals alone.
        Raises: ToolError when ROOT is not ours; OSError when it cannot be read."""
        if os.path.isdir(self.store.tasks):
            own_directory(self.store.root)
            yield from Sweep(self.bounds, dry_run, ignored, merged, by_itself).run()

    def _sweep_by_itself(self) -> None:
        """Sweep on a thread, once in SWEEP_EVERY_S for all servers together."""
        swept = os.path.join(self.store.root, "swept")

        def sweep_and_log() -> None:
            try:
                with self.store.locked("swept", fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
                    if mine and (before == 0.0 or modified_at(swept) == before):
                        os.utime(swept, (self.host.now(), self.host.now()))
                        for thing in self.sweep(by_itself=True):
                            self.host.log("INFO", f"swept {thing.path}: {'. '.join(thing.notes)}")
            except Exception:                           # whatever is wrong there, a server goes on
                self.host.log("WARNING", "The sweep of what is old failed", trace=True)
        before = modified_at(swept)
        if self.config.task_max_age_s and not 0 <= self.host.now() - before < SWEEP_EVERY_S:
            with contextlib.suppress(RuntimeError):     # no thread left: another time
                threading.Thread(target=sweep_and_log, name="sweep", daemon=True).start()


UNCOMMITTED_BELOW = "It built on changes of yours that are not committed: commit them in your checkout, " \
                    "then merge again"


def title_of(prompt: str) -> str:
    first = prompt.strip().split("\n")[0]
    return clip("".join(c if c.isprintable() else " " for c in first), 72)


def shown(tree: Worktree) -> Worktree:
    """Without what is our own business."""
    return tree._replace(git_dir=None, files=(), seal=None, below=None, submodules=tuple(tree.submodules))


def _order(ids: Sequence[str], conflicts: Sequence[Sequence[str]]) -> List[str]:
    """The tasks in an order in which many go in before the first conflict: always the one next that conflicts
    with the fewest of those that still may; its foes go to the end, what conflicts alone last."""
    alone = {tasks[0] for tasks in conflicts if len(tasks) == 1}
    foes = {i: {other for tasks in conflicts if i in tasks for other in tasks} - {i} for i in ids}
    left, first = [i for i in ids if i not in alone], []    # type: List[str], List[str]
    while left:
        one = min(left, key=lambda i: len(foes[i].intersection(left)))
        first.append(one)
        left = [i for i in left if i != one and i not in foes[one]]
    return [*first, *(i for i in ids if i not in first and i not in alone), *(i for i in ids if i in alone)]


def _surprises(task_id: str, outcome: Optional[Outcome], tree: Worktree) -> Iterator[str]:
    """What whoever merges the work of this task may not expect."""
    if outcome is not Outcome.SUCCEEDED:
        yield f"Task {task_id} {outcome and outcome.value}: its branch has what it did"
    for files, why in ((tree.left_out, ""), (tree.ignored, " and ignored")):
        if files and os.path.isdir(tree.path):
            yield f"Not on the branch of task {task_id}, only in `{tree.path}`{why}: {in_words(files)}"


def _clash(before: Sequence[Part], part: Part, files: Sequence[Conflict], onto: str) -> Clash:
    """Where `part` conflicts with these others, or, where there are none, with the commit `onto`."""
    title = lambda one: f"{one.name}: {one.title}"
    sides = {"before": " and ".join(map(title, before)) or f"commit {onto}", label_of(part): title(part)}
    clash = Clash([one.task_id for one in (*before, part)], sides, files=files)
    note = UNCOMMITTED_BELOW if part.squashed else None
    return clash if before else clash._replace(with_=onto, note=note)


def _those(going: Sequence[Part], parts: Sequence[Part]) -> Dict[str, Any]:
    """The tasks that go into a merge, and those that do not."""
    ids = lambda some_parts: [task_id for part in some_parts for task_id in part.task_ids]
    return {"merged": ids(going), "not_merged": ids(part for part in parts if part not in going)}


def _row(row: Changed, view: str, globs: Optional[Globs]) -> str:
    name = legible(row.path).replace("\n", "\\n")
    if view == "files":
        outside = globs is not None and not globs.cover(row.path)
        return f"{row.status} {name}" + ("  (outside write_paths)" if outside else "")
    added = "binary" if row.insertions is None else f"+{row.insertions}"
    removed = "" if row.deletions is None else f"-{row.deletions}"
    return f"{added:>7} {removed:>7}  {name}"


# ======================================================================================
# 12. TOOLS
# ======================================================================================
# To add a tool, write one @tool function. tools/list, argument checking, dispatch and the tests read TOOLS;
# `tests/pages` writes docs/tools.md from it. A handler gets the checked arguments under their listed names.
class Answer(NamedTuple):
    """What a tool returns. `failed`: the run that the call was about ended badly, so the result says
    isError."""
    data: Dict[str, Any]
    failed: bool = False


class Tool(NamedTuple):
    name: str
    title: str
    description: str
    args: Schema
    returns: Schema
    run: Callable[[Swarm, Dict[str, Any], Call], Union[Answer, Wait]]
    read_only: bool = False
    destructive: bool = False
    always_load: bool = False
    waits: bool = False             # as long as the tasks do
    unlisted: Container[str] = ()   # what it takes without listing it

    def listed(self) -> Schema:
        """The arguments as clients are told of them."""
        return as_listed(self.args, self.unlisted)

    def called(self, swarm: Swarm, arguments: Mapping[str, Any], call: Call) -> Union[Answer, Wait]:
        """Check the arguments, then run it. Raises: ToolError, OSError."""
        checked = canonical(self.args, dict(arguments))
        refuse(problems(self.args, checked))
        call.request_id = checked.pop("client_request_id", "")
        swarm.watch.move()
        return self.run(swarm, checked, call)


def tool(name: str, title: str, description: str, args: Schema, returns: Schema,
         **traits: Any) -> Callable[[Any], Any]:
    """Put the function below into TOOLS; `traits` are the flags of Tool."""
    def add(run: Any) -> Any:
        TOOLS[name] = Tool(name, title, description, args, returns, run, **traits)
        return run
    return add


TOOLS: Dict[str, Tool] = {}                         # filled here, at import, and never changed
TOOL_ALIASES = {"codex-reply": "codex_reply"}       # the name in the vendor's removed server; not listed


def tool_named(name: Any) -> Optional[Tool]:
    return TOOLS.get(TOOL_ALIASES.get(name, name)) if isinstance(name, str) else None


THREAD = string(pattern=THREAD_ID)
TASK = string(minLength=1, maxLength=200)           # whatever `Watch.named` knows
TASKS = arr(TASK, minItems=1, maxItems=500)
NAMELESS: Mapping[str, Schema] = {
    name: {key: value for key, value in schema.items() if key != "description"}
    for name, schema in RUN.items()}
FORK = boolean("Go on in a copy of the thread")
REPLY: Mapping[str, Schema] = {
    **NAMELESS, "prompt": RUN["prompt"], "fork": FORK, "interrupt": boolean("Stop its running turn first"),
    "update_from": string("Task or branch to merge into its worktree first", minLength=1, maxLength=1000)}
ONCE = {"client_request_id": string("Same id, same tasks", minLength=1, maxLength=200)}


def holding(*keys: str) -> Schema:
    """An answer: the names alone, as all that is listed costs each client something, and none of them
    required, as TypeScript clients check errors, too."""
    return obj({key: {} for key in keys})


RECORD = holding(*TaskRecord._fields, "overlaps", "truncated", "still_running", "collect", "note")
MAIN_KEYS = ("task_id", "outcome", "threadId", "content")       # of a record; `codex` names all
FITTED = ("tasks", "note", "left_out", "others")                # a list of records, and what `fit` adds to it
PAGED = {"offset": integer(minimum=0, maximum=1 << 40), "max_chars": integer(minimum=1, maximum=RESULT_CHARS)}
COLLECT = "codex_wait with these task_ids returns the results; codex_status shows what they do"


@tool("codex", "Run Codex",
      "Run one Codex task and wait for its result. For several tasks use codex_batch, to go on meanwhile "
      "codex_async. `content` is the final message, `threadId` is for codex_reply.",
      obj({**RUN, **ONCE}, ["prompt"]), RECORD, always_load=True, waits=True)
def codex(swarm: Swarm, args: Dict[str, Any], call: Call) -> Wait:
    return Wait(tuple(_started(swarm, [args], call)), owned=True, single=True)


@tool("codex_async", "Start Codex",
      "Start a Codex task and return its task_id at once; collect with codex_wait. With `threadId` it "
      "continues that thread. Other arguments as in codex.",
      obj({**NAMELESS, "threadId": THREAD, "fork": FORK, **ONCE}, ["prompt"]),
      holding("task_id", "state", "collect"), unlisted=RARE)
def codex_async(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    return Answer({**swarm.record(_started(swarm, [args], call)[0]), "collect": COLLECT})


@tool("codex_batch", "Run several Codex tasks",
      "Run several Codex tasks in parallel and wait for all of them. Each entry of `tasks` takes the "
      "arguments of codex; `defaults` are shared. wait=false returns the task_ids at once. If any entry is "
      "wrong, nothing starts.",
      obj({"tasks": arr(obj(NAMELESS), minItems=1, maxItems=MAX_TASKS_PER_CALL), "defaults": obj(),
           "wait": boolean("Default true"), **ONCE}, ["tasks"]),
      holding("task_ids", *FITTED, "still_running", "collect"), always_load=True, waits=True, unlisted=RARE)
def codex_batch(swarm: Swarm, args: Dict[str, Any], call: Call) -> Union[Answer, Wait]:
    shared = canonical(obj(RUN), args.get("defaults", {}), "defaults")
    entries = [{**shared, **entry} for entry in args["tasks"]]
    mute = [f"`tasks[{i}].prompt` is required" for i, entry in enumerate(entries) if "prompt" not in entry]
    refuse(problems(obj(RUN), shared, "defaults") + mute)
    ids = _started(swarm, entries, call, "tasks" * (len(entries) > 1))
    if not args.get("wait", True):
        return Answer({"task_ids": ids, "tasks": [swarm.record(i) for i in ids], "collect": COLLECT})
    return Wait(tuple(ids), owned=True)


@tool("codex_reply", "Continue a Codex thread",
      "Continue a Codex thread, named by `threadId` or `task_id`, and wait for the result. It keeps the cwd, "
      "sandbox, model, profile and config of the thread's last task; arguments override them.",
      obj({**REPLY, "threadId": THREAD, "task_id": TASK, **ONCE}, ["prompt"]),
      holding(*MAIN_KEYS), waits=True, unlisted=RARE | {"worktree"})
def codex_reply(swarm: Swarm, args: Dict[str, Any], call: Call) -> Wait:
    if "threadId" not in args and "task_id" not in args:
        raise ToolError("`threadId` is missing", "A reply needs the thread that it continues",
                        "Pass `threadId`, or the `task_id` of the task that had it")
    if "task_id" in args:
        args = {**args, "task_id": one_named(swarm.watch, args["task_id"])}
    return Wait(tuple(_started(swarm, [args], call)), owned=True, single=True)


TARGETS = ("task_id", "base", "commit", "instructions")


@tool("codex_review", "Review changes",
      "Let Codex review changes without touching them, and wait: what is not committed in `cwd` (default), "
      "all since `base`, one `commit`, what a task did in its worktree, or what `instructions` say. "
      "`findings`: priority 0 is the most urgent.",
      obj({"task_id": TASK, "base": string("Branch or commit", minLength=1), "commit": string(minLength=1),
           "instructions": RUN["prompt"],
           **{name: NAMELESS[name] for name in ("cwd", "model", "effort", "profile", "config", "isolate",
                                                "codex_home", "timeout_s")},
           **ONCE}),
      holding(*MAIN_KEYS, "findings"), waits=True, unlisted=RARE)
def codex_review(swarm: Swarm, args: Dict[str, Any], call: Call) -> Wait:
    given = [name for name in TARGETS if name in args]
    if len(given) > 1:
        refuse([f"`{given[0]}` and `{given[1]}` exclude each other"])
    kind, ref = (given[0], args[given[0]]) if given else ("uncommitted", "")
    request: Dict[str, Any] = {name: args[name] for name in args if name not in TARGETS}
    prompt = {"uncommitted": "Review of what is not committed", "base": f"Review of all since {ref}",
              "commit": f"Review of commit {ref}", "task_id": f"Review of task {ref}"}.get(kind, ref)
    if kind == "task_id":
        work = swarm.compare.reviewable(one_named(swarm.watch, ref))
        request = {**work, **request, "cwd": work["cwd"]}
    else:
        request["review"] = (kind, "" if kind == "instructions" else ref)
    request.update(prompt=prompt, sandbox=SANDBOXES[0])
    return Wait(tuple(_started(swarm, [request], call)), owned=True, single=True)


CURSOR = string(pattern=r"\d{1,13}")


@tool("codex_status", "See what tasks do",
      "See at once what tasks do. Default: what runs, and results that nobody has collected. `all`: ended "
      "ones too, newest first; `finished_since` (`cursor` of an earlier answer, or 0): what ended since.",
      obj({"task_ids": TASKS, "all": boolean(), "cursor": CURSOR, "finished_since": CURSOR,
           "cwd": string(minLength=1)}),
      holding(*FITTED, "cursor", "more_uncollected"), read_only=True)
def codex_status(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    every, since, cwd = args.get("all", False), args.get("finished_since"), args.get("cwd", "")
    if ("task_ids" in args) + every + (since is not None) > 1 or "cursor" in args and not every:
        refuse(["`task_ids`, `all` and `finished_since` exclude each other, and `cursor` goes with `all`"])
    if "task_ids" in args:
        records = [swarm.record(i) for i in all_named(swarm, args["task_ids"])]
        return Answer({"tasks": with_overlaps(swarm, records)})
    if every:
        return Answer(_list_of(swarm, swarm.lists.all(args.get("cursor", ""), cwd)))
    if since is not None:
        return Answer(_list_of(swarm, swarm.lists.since(since, cwd)))
    found = swarm.lists.now(cwd)
    records = [record for record in map(functools.partial(_current, swarm), found.task_ids) if record]
    records = sorted(records, key=lambda record: record.get("started_at", 0.0))
    more = {"more_uncollected": found.left} if found.left else {}
    return Answer({"tasks": with_overlaps(swarm, records), **more, "cursor": found.cursor})


def _list_of(swarm: Swarm, found: Page) -> Dict[str, Any]:
    rows = []
    for task_id in found.task_ids:
        with contextlib.suppress(ToolError):            # swept meanwhile
            rows.append(to_json(swarm.row_of(task_id)))
    return {"tasks": rows, **({"cursor": found.cursor} if found.cursor else {})}


def _current(swarm: Swarm, task_id: str) -> Dict[str, Any]:
    """The record of a task for whoever did not ask for it by name: of a result no more than its beginning,
    and that does not count as collected. Nothing, where it was collected meanwhile."""
    record = record_of(swarm, task_id)
    if record["state"] != State.ENDED.value or record["outcome"] == Outcome.LOST.value:
        return record
    if swarm.watch.is_given(TaskDir(os.path.join(swarm.store.tasks, task_id))):
        return {}
    return page({**record, "collected": False}, 0, RESULT_BEGINS)


@tool("codex_events", "Read events",
      "Read what a task did, event by event, also while it runs: from `cursor` (0: the beginning) on, at "
      "most `limit` of these `types` (of events or items). `next_cursor` goes on; `ended`: nothing more "
      "comes.",
      obj({"task_id": TASK, "cursor": integer(minimum=0, maximum=1 << 50),
           "limit": integer("Default 50", minimum=1, maximum=1000), "types": arr(string(), maxItems=50),
           "max_chars": integer("Of each text, default 500; 0: whole", minimum=0, maximum=RESULT_CHARS)},
          ["task_id"]),
      holding("task_id", "events", "next_cursor", "ended"), read_only=True)
def codex_events(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    task_id, cursor = one_named(swarm.watch, args["task_id"]), args.get("cursor", 0)
    seen, events, done = swarm.view.of(task_id), [], False      # type: Seen, List[Any], bool
    path = seen.task.file("events.jsonl")
    try:
        chars = call.client.result_chars        # of most clients the text tells them again, and is longer
        page, longest = (chars - 300,) * 2 if call.client.shows_structured else (chars // 3, chars // 2 - 400)
        events, cursor, whole = _page_of_events(path, args, page, longest)
        done = seen.ended and whole
    except ValueError:
        refuse([f"`cursor`: no event of this task begins at {cursor}; pass a `next_cursor`, or 0"])
    except FileNotFoundError:
        if seen.ended:
            raise ToolError(f"There are no events of task {task_id}",
                            "Codex never began, or a sweep removed them after its end",
                            "codex_wait returns its result")
    return Answer({"task_id": task_id, "events": events, "next_cursor": cursor, "ended": done})


def _page_of_events(path: str, args: Mapping[str, Any], room: int,
                    longest: int) -> Tuple[List[Any], int, bool]:
    """Those of the types asked for, as many as `limit` and `room` allow, but one at least, which may be
    `longest`; where the next ones begin; whether there are none yet. Raises: OSError, ValueError."""
    wanted, at, left = set(args.get("types", ())), args.get("cursor", 0), room
    found: List[Any] = []
    for event, after in events_from(path, at):
        item = event.get("item")
        kinds = {str(event.get("type")), str(item.get("type")) if isinstance(item, dict) else ""}
        if not wanted or wanted & kinds:
            event = _shown_event(event, args.get("max_chars", 500) or longest * 4 // 5, longest)
            left -= size(event) + 1
            if found and (left < 0 or len(found) == args.get("limit", 50)):
                return found, at, False
            found.append(event)
        at = after
    return found, at, True


def _shown_event(event: Mapping[str, Any], limit: int, room: int) -> Dict[str, Any]:
    """An event with its texts cut to `limit`, or shorter; where it does not fit all the same, its kind."""
    with contextlib.suppress(ValueError, RecursionError):           # a NaN; nested without end
        for chars in (limit, limit // 3):
            shown = _shortened(event, chars)
            if size(shown) <= room:
                return shown
    item = event.get("item")
    kind = {"item": {"type": str(item.get("type"))}} if isinstance(item, dict) else {}
    return {"type": str(event.get("type")), **kind, "left_out": "it cannot be shown: see events.jsonl"}


def _shortened(value: Any, limit: int) -> Any:
    """JSON data in which every text has at most about `limit` characters and nothing that looks secret."""
    if isinstance(value, str):              # the cut may take where a key begins; to mask all takes long
        part = clip_middle(re.sub(PRIVATE_KEY, "***", value), max(4 * limit, 4_000))
        return clip_middle(masked(part), max(limit, 100))
    if isinstance(value, dict):
        secret = [key for key in value if re.search(f"(?i){SECRET_KEY}", key) and isinstance(value[key], str)]
        return {key: "***" if key in secret else _shortened(value[key], limit) for key in value}
    return [_shortened(entry, limit) for entry in value] if isinstance(value, list) else value


@tool("codex_wait", "Wait for tasks",
      "Wait until all (or any) of the tasks have ended and return their results. After timeout_s it returns "
      "what there is, with `still_running`; nothing is stopped: call again. `offset` and `max_chars` page "
      "through a long `content`.",
      obj({"task_ids": TASKS, "mode": string(enum=["all", "any"]),
           "timeout_s": number("Default 1800 (240 under Codex)", minimum=0, maximum=86400), **PAGED},
          ["task_ids"]),
      holding(*FITTED, "still_running", "collect"), read_only=True, waits=True)
def codex_wait(swarm: Swarm, args: Dict[str, Any], call: Call) -> Wait:
    ids = tuple(all_named(swarm, args["task_ids"]))
    asked_for = {key: args[key] for key in ("mode", "timeout_s", "offset", "max_chars") if key in args}
    return Wait(ids, **asked_for)


@tool("codex_diff", "See what a task changed",
      "Show what a task changed, also while it runs, or with `against` how its result differs from another "
      "task's: lines per file (stat), status per file (files) or the patch, paged. `paths` (globs) narrows "
      "it.",
      obj({"task_id": TASK, "against": string("Task or commit", minLength=1, maxLength=1000),
           "view": string(enum=["stat", "files", "patch"]), "paths": arr(string(minLength=1), maxItems=100),
           **PAGED}, ["task_id"]),
      holding("task_id", "view", "against", "base", "head", "live", "edited", "left_out", "ignored", "note",
            "files_changed", "insertions", "deletions", "content", "truncated"), read_only=True)
def codex_diff(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    paths = args.get("paths", ())
    refuse([f"`paths`: {_show(path)}: they are relative to the top of the repository"
            for path in paths if path[0] in "/:"])
    task_id = one_named(swarm.watch, args["task_id"])
    offset, room = args.get("offset", 0), args.get("max_chars")
    data = swarm.diff(task_id, args.get("against"), args.get("view", "stat"), paths, offset,
                      room or RESULT_CHARS)         # there is no answer with more
    total, content = data.pop("total_chars"), data["content"]
    return Answer(data if offset == 0 and len(content) == total else _cut(data, content, offset, total))


@tool("codex_merge", "Merge the work of tasks",
      "Merge the branches of ended tasks, in this order, into a new branch; the checkout stays as it is, "
      "unless `into` is HEAD: that moves the checked-out branch, if it is clean. If any conflicts, nothing "
      "is merged (with `partial`, those before it are). dry_run only tells who conflicts, and where.",
      obj({"task_ids": TASKS, "dry_run": boolean(),
           "into": string("New branch, or HEAD", minLength=1, maxLength=200),
           "base": string("Default: HEAD", minLength=1), "squash": boolean("One commit per task"),
           "partial": boolean(), "verify": boolean("Only if the server's verify command passes"),
           "cwd": string(minLength=1)}, ["task_ids"]),
      holding(*MergeRecord._fields))
def codex_merge(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    wish = Wish(**{name: value for name, value in args.items() if name != "task_ids"})
    made = swarm.merger.merge(all_named(swarm, args["task_ids"]), call, wish)
    shown, room = [*map(_uniting, made.conflicts)], call.client.result_chars // 3
    made = _mending(made._replace(conflicts=shown))
    made = made._replace(conflicts=_brief(shown, room), advice=_next_step(made))
    failed = not made.dry_run and bool(made.not_merged) and not made.commit
    while size([*map(to_json, made.conflicts)]) > 2 * room and len(shown) > 1:
        left_out = (made.left_out or 0) + 1
        made = made._replace(conflicts=_brief(shown[:-left_out], room), left_out=left_out)
    return Answer({key: value for key, value in to_json(made).items() if value not in ([], "")}, failed)


def _brief(conflicts: Sequence[Clash], budget: int) -> List[Clash]:
    """The conflicts with their hunks cut to fair shares of the budget."""
    few = [clash._replace(files=clash.files[:FILES_SHOWN],
                          files_left_out=len(clash.files[FILES_SHOWN:]) or None) for clash in conflicts]
    texts = [hunk["text"] for clash in few for file in clash.files for hunk in file.hunks]
    cut = iter([text if share >= size(text) else clip_middle(text, share) if share >= 120 else ""
                for text, share in zip(texts, shares([size(text) for text in texts], budget))])
    brief = lambda file: file._replace(hunks=[{**hunk, "text": next(cut)} for hunk in file.hunks])
    return [clash._replace(files=[*map(brief, clash.files)]) for clash in few]


def _uniting(clash: Clash) -> Clash:
    """With what to do about it: the arguments of the codex_reply, or what comes first."""
    *others, mine = clash.tasks
    if clash.note:
        return clash
    if len(others) > 1:
        return clash._replace(note=f"Merge {', '.join(others)} into a branch; then codex_reply to {mine} "
                                   "with `update_from` that branch")
    return clash._replace(reply={"task_id": mine, "update_from": clash.with_ or others[0],
                                 "prompt": "Unite both versions"})


def _mending(made: MergeRecord) -> MergeRecord:
    """The same for the task with which the verify command begins to fail; what it said is in the prompt."""
    verify = made.verify
    if verify is None or verify.fault is None:
        return made
    prompt = (f"`{verify.command}` passes without your work and fails with it (exit status "
              f"{verify.exit_status}). Mend that. It ends with:\n{verify.output}")
    update = {"update_from": verify.passed} if verify.passed else {}
    return made._replace(verify=verify._replace(output=None, passed=None),
                         reply={"task_id": verify.fault, **update, "prompt": prompt})


def _next_step(made: MergeRecord) -> str:
    """What to do with the answer to a merge."""
    if made.verify and made.verify.exit_status != 0:
        blameless = any(not one["branches"] and one["exit_status"] for one in made.verify.tried)
        return "The verify command did not pass, so nothing was moved. " + (
            f"It begins to fail with task {made.verify.fault}: codex_reply with the arguments in "
            "`reply` has that mended; then merge again, or leave the task out" if made.reply else
            "Mend the command, or what the tasks are merged into; then merge again" if blameless else
            "Let codex_reply mend the task at fault, or leave that task out")
    holds = "The branch holds what was merged. " if made.commit else ""
    if made.conflicts:
        return holds + _unite(made, bool(holds))
    if holds:
        return holds.strip()
    if made.blocked:
        return "There are no conflicts, but the checkout cannot be moved now"
    if made.dry_run and made.files_changed:
        return "No conflicts: call again without `dry_run` (a verify command of the server runs then)"
    return "There is nothing to merge: all of it is in there already"


def _unite(made: MergeRecord, merged_some: bool) -> str:
    """How to unite the first conflict."""
    first = made.conflicts[0]
    if first.note:
        return first.note
    instead = made.fitting and not merged_some
    return ("To unite both, codex_reply with the arguments in `reply` brings them into the worktree of task "
            f"{first.tasks[-1]}, conflicts marked in the files; then merge again"
            + (". Or merge those that fit together (`fitting`)" if instead else ""))


@tool("codex_cancel", "Stop tasks",
      "Stop (cancel) tasks and everything they started. Worktrees are kept, and ended tasks left as they "
      "are.",
      obj({"task_ids": TASKS}, ["task_ids"]), holding(*FITTED), destructive=True)
def codex_cancel(swarm: Swarm, args: Dict[str, Any], call: Call) -> Answer:
    before: Dict[str, bool] = {}        # whether it had ended
    unknown: Optional[ToolError] = None
    for name in dict.fromkeys(args["task_ids"]):
        try:
            before.update((task_id, swarm.view.of(task_id).ended) for task_id in swarm.watch.named(name))
        except ToolError as error:
            unknown = error
        except OSError:                 # the system is exhausted: all the more reason to stop something
            before[name] = False
    swarm.stop(list(before))
    swarm.wait(list(before), CANCEL_WAIT_S, Call())
    if unknown is not None:             # no reason to let the others run on
        stopped = f"The others were stopped: {', '.join(before)}"
        raise ToolError(unknown.what, unknown.why, stopped if before else unknown.fix)
    records = [swarm.record(task_id) for task_id in before]
    for record in records:
        if before[record["task_id"]]:
            record["note"] = "It had already ended; nothing was changed"
        elif record["state"] != State.ENDED.value:
            why = "Its supervisor may be stopped, or Codex or a git hang in the kernel; call again or wait"
            record["note"] = f"It has not ended within {CANCEL_WAIT_S:.0f} s. {why}"
    return Answer({"tasks": records})


def all_named(swarm: Swarm, names: Sequence[str]) -> List[str]:
    """The tasks for which these names stand. Raises: ToolError."""
    return list(dict.fromkeys(task_id for name in names for task_id in swarm.watch.named(name)))


def _started(swarm: Swarm, requests: Sequence[Mapping[str, Any]], call: Call, label: str = "") -> List[str]:
    call.started += swarm.start(requests, label, call)
    return call.started


def block(swarm: Swarm, wait: Wait, call: Call) -> Answer:
    """Wait as `wait` says, then answer."""
    timeout_s = call.client.wait_s if wait.timeout_s is None else wait.timeout_s
    swarm.wait(wait.task_ids, timeout_s, call, wait.mode)
    answer = conclude(swarm, wait)
    call.waiting = False                # a server that ends lets it be sent and noted
    return answer


def conclude(swarm: Swarm, wait: Wait) -> Answer:
    """The answer to a wait, from what is so now."""
    pages = [page(record_of(swarm, i), wait.offset, wait.max_chars) for i in wait.task_ids]
    records = with_overlaps(swarm, pages)
    running = [r["task_id"] for r in records if r["state"] != State.ENDED.value]
    more = {"still_running": running, "collect": COLLECT} if running else {}
    if wait.single:
        succeeded = records[0].get("outcome") == Outcome.SUCCEEDED.value
        return Answer({**records[0], **more}, failed=not running and not succeeded)
    return Answer({"tasks": records, "still_running": running, **more})


def with_overlaps(swarm: Swarm, records: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The records, terse where there are several, each with `overlaps` where there are any: other task id ->
    files that both touched."""
    found = swarm.overlaps([r["task_id"] for r in records])
    records = [terse(record) for record in records] if len(records) > 1 else records
    return [{**r, "overlaps": found[r["task_id"]]} if r["task_id"] in found else r for r in records]


def terse(record: Dict[str, Any]) -> Dict[str, Any]:
    """One of several: of its usage three numbers, an exit status only where it says something, and no thread:
    its task_id does what that could."""
    shown = {key: value for key, value in record.items()
             if key != "threadId" and (key, value) != ("exit_code", 0)}
    if "usage" in shown:
        names = ("input_tokens", "cached_input_tokens", "output_tokens")
        shown["usage"] = {name: shown["usage"][name] for name in names}
    return shown


def record_of(swarm: Swarm, task_id: str) -> Dict[str, Any]:
    """The record of a task; one whose directory was removed meanwhile must not hide those of the others."""
    try:
        return swarm.record(task_id)
    except ToolError as error:
        why = failure(FailureKind.LOST, str(error))
        return to_json(TaskRecord(task_id, outcome=Outcome.LOST, failure=why))


def is_over(swarm: Swarm, wait: Wait, since: float) -> Tuple[bool, str, float]:
    """(whether what is waited for has come, a summary, when something last happened)."""
    ended, words, last = swarm.watch.standing(wait.task_ids)
    timed_out = wait.timeout_s is not None and swarm.host.now() >= since + wait.timeout_s
    enough = bool(ended) if wait.mode == "any" else len(ended) == len(wait.task_ids)
    return enough or timed_out, words, last


# Fitting a result into what a client shows its model. Everything is measured as it goes out: serialised.
def size(data: Any) -> int:
    return len(compact(data))


def page(record: Dict[str, Any], offset: int, max_chars: Optional[int]) -> Dict[str, Any]:
    """The record with `content` from `offset` on, at most `max_chars`; what is cut says how to get it."""
    content = record.get("content")
    if content is None or (offset == 0 and (max_chars is None or len(content) <= max_chars)):
        return record
    piece = content[offset:] if max_chars is None else content[offset:offset + max_chars]
    return _cut(record, piece, offset, len(content))


def _cut(record: Dict[str, Any], piece: str, offset: int, total: int,
         why: Optional[str] = "") -> Dict[str, Any]:
    upto = offset + len(piece)
    truncated: Dict[str, Any] = {"total_chars": total, "offset": offset}
    if upto < total:
        truncated["next_offset"] = upto
        if why is not None:
            call = "codex_diff with the same arguments"
            if "state" in record:
                call = f"codex_wait with task_ids [\"{record['task_id']}\"]"
            truncated["how"] = f"{call} and offset {upto} returns the rest{why}"
    return {**record, "content": piece, "truncated": truncated}


def records_of(data: Dict[str, Any]) -> List[Dict[str, Any]]:
    return data["tasks"] if "tasks" in data else [data] if "task_id" in data else []


def with_records(data: Dict[str, Any], records: List[Dict[str, Any]]) -> Dict[str, Any]:
    return {**data, "tasks": records} if "tasks" in data else records[0] if records else data


def shares(wanted: Sequence[int], budget: int) -> List[int]:
    """`budget` shared out fairly: nobody gets more than wanted; what one does not need goes to the others."""
    out, left = [0] * len(wanted), max(0, budget)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for rank, i in enumerate(order):
        out[i] = min(wanted[i], left // (len(order) - rank))
        left -= out[i]
    return out


def prefix(text: str, budget: int) -> str:
    """The longest beginning of `text` that takes at most `budget` characters serialised, found by halving."""
    low, high = 0, min(len(text), budget)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) - 2 <= budget else (low, middle - 1)
    return text[:low]


TERSE = ("task_id", "state", "outcome", "content", "truncated", "collected")
BRIEF = (*TERSE, "title", "cwd", "branch", "ended", "failure", "worktree", "elapsed_s")
# The keys that records have, and the room that a long content then needs at least, `truncated` included.
LEVELS = ((None, 1_000), (BRIEF, 400), (TERSE, 160))


def fit(data: Dict[str, Any], budget: int) -> Dict[str, Any]:
    """`data` in at most `budget` characters: first the final messages are cut, in fair shares; where too
    little of them would be left, records lose what matters least, as many as have to; at last some are only
    named, by how they ended."""
    records = records_of(data)
    if size(data) <= budget or not records:
        return data
    wanted = [size(r.get("content", "")) - 2 for r in records]
    for (keys, least), count in _levels(len(records)):
        slim = _slim(data, keys, count, budget)
        empty = [{**r, "content": ""} if "content" in r else r for r in records_of(slim)]
        room = budget - size(with_records(slim, empty))
        if sum(min(chars, least) for chars in wanted[:count]) <= room:
            break
    why = None if keys is TERSE else f": there is room for {budget:,} characters in all"
    cut = [_shorten(r, share, why) for r, share in zip(records_of(slim), shares(wanted[:count], room))]
    left = budget - size(with_records(slim, cut))
    for i, more in enumerate([{**record, **short} for record, short in zip(records, cut)]):
        growth = size(more) - size(cut[i])
        if growth <= left:
            left -= growth
            cut[i] = more
    return with_records(slim, cut)


def _slim(data: Dict[str, Any], keys: Optional[Sequence[str]], count: int, budget: int) -> Dict[str, Any]:
    """`data` with the first `count` records, of them these keys, and the ids of the rest by outcome or state,
    but for those that `still_running` names."""
    if keys is None:
        return data
    records, others = records_of(data), {}              # type: List[Dict[str, Any]], Dict[str, List[str]]
    for record in records[count:]:
        if record["task_id"] not in data.get("still_running", ()):
            others.setdefault(record.get("outcome") or record["state"], []).append(record["task_id"])
    few = with_records(data, [{k: v for k, v in r.items() if k in keys} for r in records[:count]])
    how = "codex_wait or codex_status with fewer task_ids shows all"
    few["note"] = f"Shortened to {budget:,} characters: {how}"
    return {**few, "left_out": len(records) - count, "others": others} if count < len(records) else few


def _levels(count: int) -> Iterator[Tuple[Any, int]]:
    """What is tried one after the other: a row of LEVELS, and how many records are more than named."""
    yield from ((level, count) for level in LEVELS)
    while count > 1:
        count = max(1, count * 19 // 20)
        yield LEVELS[-1], count


def _shorten(record: Dict[str, Any], share: int, why: Optional[str]) -> Dict[str, Any]:
    """The record with as much of its content as `share` holds, `truncated` included."""
    content = record.get("content")
    if content is None or size(content) - 2 <= share:
        return record
    before = record.get("truncated", {})
    offset, total = before.get("offset", 0), before.get("total_chars", len(content))
    longest = _cut(record, content[:-1], offset, total, why)
    taken = size({**longest, "content": ""}) - size({**record, "content": ""})
    return _cut(record, prefix(content, share - taken), offset, total, why)


def seen_whole(data: Dict[str, Any], shaped: Dict[str, Any], text: Optional[str]) -> List[str]:
    """The ended tasks of `data` whose results are in `shaped` to the end; where there is a `text`, in that,
    which is all that is seen."""
    failures = {r["task_id"]: r.get("failure") for r in records_of(data) if r.get("collected", True)}
    ended = [r for r in records_of(shaped) if r.get("state") == State.ENDED.value and "truncated" not in r]
    return [r["task_id"] for r in ended if r.get("failure") == failures.get(r["task_id"], ...)
            and (text is None or render({"tasks": [r]}) in text)]


def render(data: Dict[str, Any]) -> str:
    """The same data as readable text."""
    lines = next((LINES[key] for key in LINES if key in data), _record_lines)
    return "\n".join(map(visible, lines(data)))


def _list_lines(data: Mapping[str, Any]) -> Iterator[str]:
    lines = [line for record in data["tasks"] for line in ("", *_record_lines(record))]
    yield from lines[1:] or ["No task is running."]
    yield from _tail_lines(data)
    if "note" in data:
        yield data["note"]


def _tail_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """What goes on, what was left out, and how to get it."""
    named = {"Still running": data.get("still_running"), **data.get("others", {})}
    yield from (f"{how}: {', '.join(ids)}" for how, ids in named.items() if ids)
    yield from (f"{key}: {data[key]}" for key in ("left_out", "collect", "more_uncollected", "cursor")
                if key in data)


def _record_lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield _headline(record)
    yield from _failure_lines(record["failure"]) if "failure" in record else ()
    yield from _progress_lines(record["progress"]) if "progress" in record else ()
    yield from _worktree_lines(record["worktree"]) if "worktree" in record else ()
    yield from _named_lines(record, {"outside_write_paths": "outside write_paths"})
    yield from (f"also touched by task {other}: {in_words(files)}"
                for other, files in record.get("overlaps", {}).items())
    plain = ("ended", "sandbox", "model", "codex_home")
    yield from (f"{key}: {record[key]}" for key in plain if record.get(key))
    if "usage" in record:
        usage = record["usage"]
        yield f"usage: {usage['input_tokens']} tokens in, {usage['output_tokens']} out"
    yield from (f"warning: {text}" for text in record.get("warnings", ()))
    yield from _content_lines(record)
    yield from _tail_lines(record)


def _content_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """The text that was asked for, with a note before it, and how to get what was cut."""
    if "note" in data:
        yield data["note"]
    yield from ("", data["content"]) if data.get("content") else ()
    cut = data.get("truncated", {})
    if "next_offset" in cut:
        rest = cut.get("how", f"the rest begins at `offset` {cut['next_offset']}")
        yield f"[{cut['total_chars']:,} characters in all; {rest}]"


def _diff_lines(diff: Mapping[str, Any]) -> Iterator[str]:
    yield _headline(diff)
    compared = f"compared with {diff['against']}" if "against" in diff else f"since {diff['base'][:12]}"
    yield f"{diffstat(diff) or 'No change'}, {compared}" + (", as it is now" if "live" in diff else "")
    yield from _named_lines(diff, {"edited": "edited, as codex said", **NOT_ON_THE_BRANCH})
    yield from _content_lines(diff)


def _events_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """One a line, as they are; where it goes on stands first, as a long text is cut at its end."""
    rest = "nothing more comes" if data["ended"] else f"the next ones: `cursor` {data['next_cursor']}"
    yield f"Events of task {data['task_id']}; {rest}"
    yield from map(compact, data["events"])


NOT_ON_THE_BRANCH = {"left_out": "only in the worktree", "ignored": "only in the worktree, and ignored"}
FILES_OF_A_WORKTREE = {"carried": "uncommitted changes that came along", "copied": "copied",
                       "ignored": NOT_ON_THE_BRANCH["ignored"]}


def _named_lines(data: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[str]:
    return (f"{words[key]}: {in_words(data[key])}" for key in words if isinstance(data.get(key), dict))


def _headline(record: Mapping[str, Any]) -> str:
    lasts = "after" if "outcome" in record else "for"
    return (f"Task {record['task_id']} {record.get('outcome') or record.get('state', '')}".rstrip()
            + (f" ({record['title']})" if "title" in record else "")
            + (f" {lasts} {record['elapsed_s']:.1f} s" if "elapsed_s" in record else "")
            + (f" (thread {record['threadId']})" if "threadId" in record else ""))


def diffstat(data: Mapping[str, Any]) -> str:
    """`+41 -7 3 files`; empty where no file changed."""
    count = data.get("files_changed")
    return f"+{data['insertions']} -{data['deletions']} {count} file{'s' * (count > 1)}" if count else ""


def _failure_lines(why: Mapping[str, Any]) -> Iterator[str]:
    yield f"{why['kind']}: {why['message']}"
    yield why["advice"] + (" A retry can help." if why["retryable"] else "")


def _progress_lines(live: Mapping[str, Any]) -> Iterator[str]:
    detail = f": {live['detail']}" if "detail" in live else ""
    idle = f", idle {live['idle']}" if "idle" in live else ""
    last = f" (last event {live.get('last_event_s', 0)} s ago{idle})"
    yield f"{live['phase']}{detail}{last if live['phase'] != Phase.QUEUED.value else ''}"
    if "tools" in live:
        yield "tools: " + ", ".join(f"{name} {count}" for name, count in live["tools"].items())
    shown = ("last_command", "last_file", "last_message", "thinking")
    yield from (f"{key.replace('_', ' ')}: {live[key]}" for key in shown if key in live)


def _worktree_lines(tree: Mapping[str, Any]) -> Iterator[str]:
    where = f"worktree {tree['path']}, branch {tree['branch']}"
    changes = "no changes" if tree.get("files_changed") == 0 else diffstat(tree)
    yield ", ".join(filter(None, (where, changes)))
    yield from _named_lines(tree, FILES_OF_A_WORKTREE)
    unseen = tree.get("unseen", {})
    yield from (f"only in your checkout, {kind}: {in_words(files)}" for kind, files in unseen.items())


FACTS_OF_A_MERGE = {"undo": "To go back", "blocked": "Without the dry run it would be refused",
                    "already_in": "In there already", "not_merged": "Not merged"}


def _merge_lines(data: Mapping[str, Any]) -> Iterator[str]:
    verb = "Would be merged" if data["dry_run"] else "Merged"
    if "merged" in data:
        brought = ", ".join(filter(None, (*data["merged"], diffstat(data))))
        yield f"{verb} onto {data['onto'][:12]}: {brought}"
    elif "not_merged" in data:
        why = "there are conflicts" if "conflicts" in data else "the verify command did not pass"
        yield f"Nothing {'would be' if data['dry_run'] else 'was'} merged onto {data['onto'][:12]}: {why}"
    if "commit" in data:
        yield f"branch {data['branch']}, commit {data['commit']}"
    for key, words in FACTS_OF_A_MERGE.items():
        if key in data:
            yield f"{words}: {data[key] if isinstance(data[key], str) else ', '.join(data[key])}"
    for conflict in data.get("conflicts", ()):
        yield from _conflict_lines(conflict)
    if "conflicts" in data:
        yield (f"Order in which most go in: {', '.join(data['suggested_order'])}; "
               f"of these fit together: {', '.join(data.get('fitting', ['none']))}")
    if "verify" in data:
        yield from _verify_lines(data["verify"])
    if "reply" in data:
        yield _reply_line(data["reply"])
    yield from (f"warning: {text}" for text in data.get("warnings", ()))
    yield data["advice"]
    yield from _tail_lines(data)


def _verify_lines(verify: Mapping[str, Any]) -> Iterator[str]:
    ended = f"`{verify['command']}` ended with exit status {verify['exit_status']}"
    yield f"{ended}\n{verify.get('output', '')}".rstrip()
    for one in verify.get("tried", ()):
        of_them = f"only the first {one['branches']}" if one["branches"] else "none"
        yield f"With {of_them} of the branches: exit status {one['exit_status']}"
    if "note" in verify:
        yield verify["note"]


def _conflict_lines(conflict: Mapping[str, Any]) -> Iterator[str]:
    who = f"Tasks {' and '.join(conflict['tasks'])} conflict"
    if "with" in conflict:
        who = f"Task {conflict['tasks'][0]} conflicts with {conflict['with'][:12]}"
    yield f"{who} in " + ", ".join(f"`{file['path']}` ({file['kind']})" for file in conflict["files"])
    yield "; ".join(f"{label} = {whose}" for label, whose in conflict["sides"].items())
    yield from (f"`{file['path']}`, line {hunk['line']}:\n{hunk['text']}"
                for file in conflict["files"] for hunk in file["hunks"])
    yield _reply_line(conflict["reply"]) if "reply" in conflict else conflict["note"]


def _reply_line(reply: Any) -> str:
    """The call that has something mended; for people it is a command already."""
    return reply if isinstance(reply, str) else f"codex_reply {compact(reply)}"


# A kind of answer by a key that it alone has; one without is the record of a task.
LINES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "tasks": _list_lines, "view": _diff_lines, "events": _events_lines, "onto": _merge_lines}


def present(data: Dict[str, Any], budget: int, structured: bool,
            alone: bool = False) -> Tuple[Dict[str, Any], str]:
    """(structuredContent, text), together within `budget`; unless `structured`, the text alone. `alone`: the
    client's model is shown the first and nothing else; otherwise it may be either, so they share evenly."""
    room = budget - 200                                 # the envelope
    shaped = fit(data, room if alone else room // 2 if structured else room - min(2_000, room // 6))
    goes_on = lambda r: "next_offset" in r.get("truncated", {}) or not r.get("content")
    shaped = with_records(shaped, [{k: v for k, v in r.items() if k != "truncated" or goes_on(r)}
                                   for r in records_of(shaped)])
    text, room = "See structuredContent" if alone else render(shaped), room - structured * size(shaped)
    if not alone and size(text) > room:
        text = prefix(text, room - 120) + CUT_HERE
    return shaped, text


CUT_HERE = "… (cut here: codex_wait, for a diff codex_diff, returns the rest with `offset`, " \
           "10,000 characters with `max_chars` 10000)"


# A report is one page for a browser: it loads nothing and runs nothing, and what a task wrote is text in it.
REPORT_CHARS = 4_000_000            # of all diffs together
REPORT_S = 86400.0                  # how far back it looks by itself
REPORT_STYLE = """\
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --stopped: #8a5a00; --live: #0969da }
@media (prefers-color-scheme: dark) {
  :root { --good: #3fb950; --bad: #f85149; --stopped: #d29922; --live: #58a6ff } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 0 } p { margin: .3rem 0 } a { color: inherit }
section { border-top: 1px solid #8888; padding: 1rem 0 } .soft { opacity: .7 }
svg { width: 100%; display: block } line { stroke: #8888 } rect { fill: currentColor }
svg text, svg div { font: 13px system-ui, sans-serif; fill: currentColor }
svg div { white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.succeeded { color: var(--good) } .failed, .lost, .timed_out { color: var(--bad) }
.cancelled { color: var(--stopped) } .queued, .starting, .running, .stopping { color: var(--live) }
.prepared { color: #8888 }
.text { white-space: pre-wrap; margin: .5rem 0 } summary { cursor: pointer }
pre { font: 13px/1.4 monospace; overflow-x: auto; border: 1px solid #8888; padding: .5rem }
.plus { background: #2da44e33 } .minus { background: #e5484d33 } .hunk { color: var(--live) }"""


class Card(NamedTuple):
    """A task as a report shows it: its record, and when it was ready to run, in seconds after its start."""
    record: Dict[str, Any]
    ready_s: float
    patch: str = ""                     # what it changed, or why that cannot be told

    @property
    def how(self) -> str:
        return self.record.get("outcome") or self.record["state"]

    @property
    def name(self) -> str:
        return as_html(self.record.get("title") or self.record["task_id"])

    @property
    def begin(self) -> float:
        return self.record["started_at"]


def cards(swarm: Swarm, task_ids: Sequence[str], patch_chars: int = 0) -> List[Card]:
    """In the order in which they were started, with so much of what each changed in a worktree: elsewhere
    nobody can tell whose the changes are. Raises: ToolError for what is no task."""
    found = []
    for task_id in task_ids:
        record, task, patch = swarm.record(task_id), swarm.store.get(task_id), ""
        ready_at = max(modified_at(task.file(name)) for name in ("spec.json", "setup.log"))
        if patch_chars and "worktree" in record:
            try:
                said = swarm.diff(task_id, None, "patch", (), 0, patch_chars)
                patch = with_rest(said["content"], said["total_chars"])
            except (ToolError, OSError) as error:
                patch = str(error)
        ready_s = min(max(0.0, ready_at - record["started_at"]), record["elapsed_s"])
        found.append(Card(record, ready_s, patch))
    return sorted(found, key=lambda card: card.begin)


def with_rest(shown: str, chars: int) -> str:
    return shown if len(shown) >= chars else f"{shown}\n… ({chars - len(shown):,} characters more)"


def tally(records: Iterable[Mapping[str, Any]]) -> str:
    """`2 running, 1 failed`."""
    counts = collections.Counter(r.get("outcome") or r["state"] for r in records)
    hows = [how.value for how in (*State, *Outcome)]
    return ", ".join(f"{counts[how]} {how.replace('_', ' ')}" for how in hows if counts[how])


def account(records: Sequence[Mapping[str, Any]]) -> str:
    """`3 tasks: 2 succeeded, 1 failed; 18,234 tokens in, 1,210 out; +41 -7 3 files`."""
    tokens = lambda key: sum(record.get("usage", {}).get(key, 0) for record in records)
    silent = sum("usage" not in record for record in records)
    trees = {record["worktree"]["branch"]: record["worktree"] for record in records if "worktree" in record}
    total = lambda key: sum(tree.get(key, 0) for tree in trees.values())    # of a thread the last: it has all
    return "; ".join(filter(None, (
        f"{len(records)} task{'s' * (len(records) != 1)}: {tally(records)}",
        f"{tokens('input_tokens'):,} tokens in, {tokens('output_tokens'):,} out"
        + (f" ({silent} told none)" if silent else ""),
        diffstat({key: total(key) for key in ("files_changed", "insertions", "deletions")}))))


def web_page(shown: Sequence[Card]) -> str:
    """The report of these tasks, one or more."""
    first, last = shown[0].begin, max(card.begin + card.record["elapsed_s"] for card in shown)
    when = " to ".join(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (first, last))
    title, policy = account([card.record for card in shown]), "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join((
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>\n{REPORT_STYLE}\n</style>\n</head>\n<body>",
        f'<h1>codex-mcp-swarm</h1>\n<p>{title}</p>\n<p class="soft">{when}; grey: until codex began</p>',
        *_timeline(shown, first, max(last - first, 1.0)), *itertools.chain(*map(_section, shown)),
        "</body>\n</html>\n"))


def _timeline(shown: Sequence[Card], first: float, span_s: float) -> Iterator[str]:
    """A row for each task: its title, and under it when it was prepared, when it ran and how that ended."""
    height, tell = 40 * len(shown), lasting if span_s >= 20 else "{:.1f} s".format
    yield f'<svg role="img" aria-label="When each task ran" height="{height + 24}">'
    for at, anchor in ((0, "start"), (50, "middle"), (100, "end")):
        yield f'<line x1="{at}%" x2="{at}%" y1="0" y2="{height + 4}"/>'
        yield f'<text x="{at}%" y="{height + 20}" text-anchor="{anchor}">{tell(span_s * at / 100)}</text>'
    for top, card in zip(range(0, height, 40), shown):
        yield f'<a href="#{card.record["task_id"]}"><title>{card.name}</title>'
        yield f'<foreignObject y="{top}" width="100%" height="20"><div>{card.name}</div></foreignObject>'
        ran_s = card.record["elapsed_s"] - card.ready_s
        for how, since, took in (("prepared", 0.0, card.ready_s), (card.how, card.ready_s, ran_s)):
            x, width = 99 * (card.begin + since - first) / span_s, 99 * took / span_s + (how == card.how)
            place = f'x="{x:.2f}%" width="{width:.2f}%" y="{top + 20}" height="12" rx="2"'
            yield f'<rect class="{how}" {place}><title>{how} for {lasting(took)}</title></rect>'
        yield "</a>"
    yield "</svg>"


def _section(card: Card) -> Iterator[str]:
    """What became of one task."""
    record, tree, usage = card.record, card.record.get("worktree"), card.record.get("usage")
    yield f'<section id="{record["task_id"]}">\n<h2>{card.name}</h2>'
    took = lasting(record["elapsed_s"])
    yield f'<p><b class="{card.how}">{card.how.replace("_", " ")}</b> after {took}</p>'
    facts = [record["task_id"], record.get("model"), record.get("sandbox")]
    facts += [f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out"] if usage else []
    facts += [tree["branch"], diffstat(tree)] if tree else []
    yield f'<p class="soft">{as_html(" · ".join(filter(None, facts)))}</p>'
    if "failure" in record:
        yield f'<p class="text failed">{as_html(chr(10).join(_failure_lines(record["failure"])))}</p>'
    message = record.get("content") or record.get("progress", {}).get("last_message", "")
    if message:
        yield f'<div class="text">{as_html(with_rest(message[:RESULT_CHARS], len(message)))}</div>'
    for part in filter(None, re.split(r"(?m)^(?=diff --git )", card.patch)):
        name, lines = part.split("\n")[0].rpartition(" b/")[2], part.rstrip("\n").split("\n")
        yield f"<details><summary>{as_html(name)}</summary>"
        yield "<pre>" + "\n".join(map(_coloured, lines)) + "</pre></details>"
    yield "</section>"


def _coloured(line: str) -> str:
    """A line of a patch."""
    kind = "" if line.startswith(("+++ ", "--- ")) else \
        {"+": "plus", "-": "minus", "@": "hunk"}.get(line[:1], "")
    return f'<span class="{kind}">{as_html(line)}</span>' if kind else as_html(line)


def as_html(text: str) -> str:
    """Any text in HTML, also in an attribute; what would turn the direction of the rest is shown."""
    import html
    turns = lambda mark: f"\\u{ord(mark[0]):04x}"
    return html.escape(re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", turns, visible(text)))


class Resource(NamedTuple):
    uri: str            # with {task_id}: a template
    name: str
    description: str
    mime_type: str
    read: Callable[[Swarm, str, Mapping[str, Any]], str]    # the task id (or ""), what the protocol knows

    @property
    def is_template(self) -> bool:
        return "{" in self.uri

    def listed(self, key: str) -> Dict[str, Any]:
        """As a list shows it, its address under `key`."""
        return {key: self.uri, "name": self.name, "description": self.description, "mimeType": self.mime_type}


EVENTS_REMOVED = "A sweep removed the events of this task; its answer is kept"


def _events_resource(swarm: Swarm, task_id: str, about: Mapping[str, Any]) -> str:
    """The last whole lines, as many as fit; a first line of our own says how much stands before them."""
    path, room = swarm.store.get(task_id).file("events.jsonl"), RESULT_CHARS - 1_000
    if swarm.store.get(task_id).kept_since():
        return json.dumps({"type": "codex-swarm.removed", "why": EVENTS_REMOVED}) + "\n"
    total, data = 0, b""
    with suppress_unless_exhausted(OSError), open(path, "rb", opener=private) as f:
        total = os.fstat(f.fileno()).st_size
        f.seek(max(0, total - room))
        data = f.read(room)
    omitted = ""
    if len(data) < total:
        data = data[data.find(b"\n") + 1:]
        omitted = json.dumps({"type": "codex-swarm.omitted", "bytes": total - len(data), "path": path}) + "\n"
    return omitted + escaped(data.decode("utf-8", "replace"))


def _pretty(data: Any) -> str:
    return escaped(json.dumps(data, ensure_ascii=False, indent=1))


SERVER_INFO = {"name": "codex-mcp-swarm", "version": __version__}


def _server_resource(swarm: Swarm, task_id: str, about: Mapping[str, Any]) -> str:
    limits = {"tasks_per_call": MAX_TASKS_PER_CALL, "prompt_chars": MAX_PROMPT_CHARS,
              "result_chars": RESULT_CHARS, "frame_bytes": MAX_FRAME_BYTES, "waiting_calls": MAX_WAITS}
    facts: Dict[str, Any] = {
        **SERVER_INFO, "python": sys.version.split()[0], "platform": sys.platform, "pid": os.getpid(),
        **about, "tasks_dir": swarm.store.tasks, "worktree_dir": swarm.config.worktree_dir,
        "tools": list(TOOLS), "limits": limits}
    try:
        path = swarm.bounds.codex()
        facts["codex"] = {"path": path, "version": dotted(swarm.bounds.codex_version(path))}
    except (ToolError, OSError) as error:
        facts["codex"] = {"error": str(error)}
    return _pretty(facts)


SCHEME = "codex-swarm:///"
RESOURCES: Tuple[Resource, ...] = (
    Resource(SCHEME + "server-info", "server-info", "Version, paths and limits of this server, and its codex",
             "application/json", _server_resource),
    Resource(SCHEME + "config", "config", "The configuration in force", "application/json",
             lambda swarm, task_id, about: _pretty({**to_json(swarm.config),
                                                    "overrides": [*map(masked, swarm.config.overrides)]})),
    Resource(SCHEME + "doctor", "doctor", "What tasks stand on, what is broken there, and what to do",
             "application/json",
             lambda swarm, task_id, about: _pretty({"findings": [*map(to_json, swarm.doctor())]})),
    Resource(SCHEME + "tasks", "tasks", "The newest tasks, as codex_status lists them with `all`",
             "application/json", lambda swarm, task_id, about: _pretty(_list_of(swarm, swarm.lists.all()))),
    Resource(SCHEME + "tasks/{task_id}", "task", "The record of a task", "application/json",
             lambda swarm, task_id, about: _pretty(fit(swarm.record(task_id), RESULT_CHARS - 2_000))),
    Resource(SCHEME + "tasks/{task_id}/events", "task-events",
             "The last events of a task, as codex wrote them", "application/jsonl", _events_resource),
)


def find_resource(uri: str) -> Optional[Tuple[Resource, str]]:
    for resource in RESOURCES:
        pattern = re.escape(resource.uri).replace(re.escape("{task_id}"), f"(?P<task>{TASK_ID})")
        match = re.fullmatch(pattern, uri)
        if match:
            return resource, match.groupdict().get("task") or ""
    return None


class Prompt(NamedTuple):
    name: str
    title: str
    description: str
    needs: str                                  # the argument that must be there; empty: none
    arguments: Mapping[str, str]                # name -> description
    write: Callable[[Mapping[str, str]], str]

    def schema(self) -> Schema:
        every = {name: string(minLength=int(name == self.needs)) for name in self.arguments}
        return obj(every, [self.needs] if self.needs else [])


CWD = {"cwd": "Directory of the repository; default: the current one"}
PROMPT_ROWS = (
    Prompt("fan_out", "Fan out jobs",
           "Run a list of independent jobs in parallel, each in a worktree of its own, and bring the work \
home",
           "jobs", {"jobs": "The jobs, one a line", **CWD},
           lambda a: f"""\
Run these jobs as parallel Codex tasks, in one codex_batch call with `worktree: true`{_in(a)}:

{a['jobs']}

Write each task's prompt so that it stands alone: Codex knows nothing of this conversation. When all have \
ended, tell me of each: outcome, what was done, files changed. Then call codex_merge with `dry_run: true` \
for those that succeeded, and tell me which of them conflict. Continue a task that needs more with \
codex_reply. Merge nothing until I say so."""),
    Prompt("plan_then_execute", "Plan, then execute",
           "Let Codex make a plan without changing anything; execute it in the same thread once I approve",
           "goal", {"goal": "What is to be achieved", **CWD},
           lambda a: f"""\
First call codex with `sandbox: "read-only"`{_in(a)} and ask for a plan, with files and steps, for this goal:

{a['goal']}

Show me the plan and wait. When I approve it, call codex_reply with the same threadId, `sandbox: \
"workspace-write"` and the instruction to carry out the approved plan, with whatever I changed in it. Then \
show me what was changed and how it was tested."""),
    Prompt("review_and_fix", "Review and fix",
           "Let one Codex task review the changes and another fix what it found",
           "", {"scope": "What to review; default: the uncommitted changes", **CWD},
           lambda a: f"""\
Call codex with `sandbox: "read-only"`{_in(a)} to review \
{a['scope'] or 'the uncommitted changes (git diff HEAD and untracked files)'}: bugs, missing \
tests, unclear names; each finding with file, line, severity and a proposed fix. Show me the findings. Then \
start one codex task with `sandbox: "workspace-write"` that fixes those of high and middle severity, gives \
each a test, and runs the tests. At last compare findings and fixes, and say what is left."""),
    Prompt("best_of_n", "Best of N",
           "Let several Codex tasks solve the same job independently, and choose the best",
           "job", {"job": "The job", "n": "How many attempts; default 3",
                   "check": "A command that tells whether an attempt is right, such as the tests", **CWD},
           lambda a: f"""\
Start {a['n'] or '3'} independent attempts at this job in one codex_batch call with `worktree: \
true`{_in(a)}, all with the same prompt:

{a['job']}

When all have ended, compare what they did, with codex_diff: \
{('run `' + a['check'] + '` in each worktree; then ') if a['check'] else ''}correctness first, then \
the smaller and clearer change. Show me a table of the attempts and name the best; codex_merge brings it \
home when I say so. Keep the others."""),
)
PROMPTS: Mapping[str, Prompt] = {prompt.name: prompt for prompt in PROMPT_ROWS}


def _in(arguments: Mapping[str, str]) -> str:
    return f" and `cwd: \"{arguments['cwd']}\"`" if arguments["cwd"] else ""


INSTRUCTIONS = """\
Runs Codex CLI tasks in parallel; each is a supervised process whose result is kept on disk. \
One task: codex. Several: ONE codex_batch call, not many codex calls (clients run those one after another). \
To go on meanwhile: codex_async, or codex_batch with wait=false; codex_wait collects. codex_status and \
codex_events show what runs, codex_cancel stops it, codex_reply continues a thread, codex_review reviews, \
codex_diff shows changes, codex_merge unites.

Tasks know nothing of this conversation: put into `prompt` all that Codex needs, and set `cwd`.
Tasks that change files: `worktree: true` gives each a git worktree and a branch `codex-swarm/<task_id>`, \
committed however it ends; see it with codex_diff, bring it home with codex_merge (dry_run first; `into: \
"HEAD"` moves the checked-out branch). Without it, tasks in one directory see each other's changes.
`sandbox`: read-only to look, workspace-write to change files, danger-full-access for everything. Codex \
never asks for approval here.
Nothing is lost when a call ends early or the server restarts: `still_running` names the tasks; call \
codex_wait with these ids, also later and from another session. codex_status shows what nobody has \
collected, with `all` every task.
A failed task has `failure` with kind, message, whether a retry can help, and advice. A long `content` is \
cut; `truncated` says how to get the rest.
"""


# ======================================================================================
# 13. MCP  (framing, dispatch, the one exception-to-wire boundary; no other floor knows of protocol versions)
# ======================================================================================
# A message belongs to the era that it names itself: with the envelope of 2026-07-28 in `params._meta` it is
# served statelessly, by a Stateless made for it alone; otherwise it is the session's, the one Handshake of
# this process. Neither ever changes what the other sees. To add a method, write one METHODS row.
STATELESS = "2026-07-28"
REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")      # of the handshake era, newest first
SUPPORTED = (STATELESS, *REVISIONS)
VENDOR = "io.modelcontextprotocol/"
TASKS_EXTENSION = VENDOR + "tasks"
LIST_TTL_MS = 60_000                # lists never change while a server runs; what is read does
POLL_MS = 1_000                     # how often a client should ask for an MCP task
RequestId = Union[str, int]


class Method(NamedTuple):
    """A row of METHODS; the era has it under its name, `_` in the place of `/`."""
    name: str
    era: str = ""                   # the class that has it; empty: both
    slow: bool = False              # answered on a thread of its own
    is_list: bool = False           # it comes whole, and never changes while a server runs
    dated: bool = False             # its result, too, says how long it holds


METHODS: Mapping[str, Method] = {method.name: method for method in (
    Method("initialize", "Handshake"),
    Method("ping", "Handshake"),
    Method("server/discover", "Stateless", dated=True),
    Method("tools/list", is_list=True),
    Method("tools/call", slow=True),
    Method("prompts/list", is_list=True),
    Method("prompts/get"),
    Method("resources/list", is_list=True),
    Method("resources/templates/list", is_list=True),
    Method("resources/read", slow=True, dated=True),
    Method("tasks/get", "Stateless", slow=True),
    Method("tasks/update", "Stateless", slow=True),
    Method("tasks/cancel", "Stateless", slow=True),
)}


class Wire:
    """Lines in, lines out. A thread of its own writes, so that a client which does not read holds up nobody;
    past MAX_UNREAD_BYTES it is given up. `gone` is called, with the reason where one is to be told, when
    nobody reads any more."""

    def __init__(self, rx: IO[bytes], tx: int, gone: Callable[[str], None]) -> None:
        self.rx, self.tx, self.gone = rx, tx, gone
        # Guards `unread` (lines to be written), `unread_bytes` and `open`. Every sender takes it and notifies
        # the writer; the writer takes it and notifies `flush`. Nothing is called or locked while it is held.
        self.changed = threading.Condition()
        self.unread: Deque[bytes] = collections.deque()
        self.unread_bytes, self.open = 0, True
        threading.Thread(target=self._write, name="writer", daemon=True).start()

    def lines(self) -> Iterator[Optional[bytes]]:
        """Every non-empty line; None for one longer than MAX_FRAME_BYTES, which is skipped."""
        while True:
            line = self.rx.readline(MAX_FRAME_BYTES)
            if not line:
                return
            if len(line) == MAX_FRAME_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = self.rx.readline(MAX_FRAME_BYTES)
                yield None
            elif line.strip():
                yield line

    def send(self, message: Any) -> None:
        """Never blocks. A client that has gone is no error: what was to be told to it is on disk."""
        data = self.encode(message)
        with self.changed:
            given_up = self.open and self.unread_bytes + len(data) > MAX_UNREAD_BYTES
            self.open = self.open and not given_up
            if self.open:
                self.unread.append(data)
                self.unread_bytes += len(data)
                self.changed.notify_all()
        if given_up:
            self.gone(f"The client does not read: more than {MAX_UNREAD_BYTES:,} bytes wait for it. "
                      "The server ends; its tasks go on")

    def busy(self) -> bool:
        """Whether the client is behind with reading; what can be left out should be."""
        with self.changed:
            return self.unread_bytes > 1 << 16

    def flush(self, timeout_s: float) -> None:
        with self.changed:
            self.changed.wait_for(lambda: not self.unread_bytes or not self.open, timeout_s)

    def _write(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.unread)
                data = self.unread.popleft()
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self.tx, left):]
            except OSError:
                with self.changed:
                    self.open = False
                    self.changed.notify_all()
                return self.gone("")
            with self.changed:
                self.unread_bytes -= len(data)
                self.changed.notify_all()

    @staticmethod
    def encode(message: Any) -> bytes:
        """One line of UTF-8. Lone surrogates, which some clients choke on, become `?`."""
        return compact(message).encode("utf-8", "replace") + b"\n"


class Replies:
    """Where the answers to one line go: straight out, or, for a batch (revision 2025-03-26), together when
    all are there."""

    def __init__(self, wire: Wire, expected: int = 0) -> None:
        self.wire, self.missing = wire, expected
        self.batch: Optional[List[Any]] = [] if expected else None
        self._lock = threading.Lock()       # guards missing and batch; whoever answers takes it; leaf lock

    def send(self, message: Optional[Dict[str, Any]]) -> None:
        """None: this request gets no answer."""
        if self.batch is None:
            if message is not None:
                self.wire.send(message)
            return
        with self._lock:
            self.missing -= 1
            if message is not None:
                self.batch.append(message)
            complete = self.missing == 0 and self.batch
        if complete:
            self.wire.send(self.batch)


class Era:
    """What both eras do alike; `revision` decides which fields a client gets to see. A method takes the
    params of a request and the call that serves it, and returns its result. It raises ProtocolError,
    OSError."""
    tracks_tasks = False            # whether calls that wait are answered with a handle
    resource_not_found = RESOURCE_NOT_FOUND

    def __init__(self, swarm: Swarm, revision: str, client: Client) -> None:
        self.swarm, self.revision, self.client = swarm, revision, client

    def since(self, revision: str) -> bool:
        return self.revision >= revision

    def check(self, method: str) -> Method:
        """The row of `method`. Raises: ProtocolError when this era does not know it."""
        row = METHODS.get(method)
        if row is None or row.era not in ("", type(self).__name__):
            raise ProtocolError(METHOD_NOT_FOUND, f"Unknown method: {clip(method, 100)}")
        return row

    def finish(self, method: Method, result: Dict[str, Any]) -> Dict[str, Any]:
        """What the era puts around every result."""
        return result

    # -- tools -----------------------------------------------------------------------
    def tools_list(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        return {"tools": [self._listed(found) for found in TOOLS.values()]}

    def _listed(self, found: Tool) -> Dict[str, Any]:
        out: Dict[str, Any] = {"name": found.name, "description": found.description,
                               "inputSchema": found.listed()}
        if self.since("2025-06-18"):
            out.update(title=found.title, outputSchema=found.returns)
            if found.always_load:
                out["_meta"] = {"anthropic/alwaysLoad": True}
        if self.since("2025-03-26"):
            changes = {"readOnlyHint": False, "destructiveHint": found.destructive}
            out["annotations"] = {"readOnlyHint": True} if found.read_only else changes
        return out

    def tools_call(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        """Blocks as long as the tool does."""
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, (dict, type(None))):
            what = "`tools/call` needs `name`, a string, and `arguments`, an object"
            raise ProtocolError(INVALID_PARAMS, what)
        found = tool_named(name)
        if found is None:
            raise ProtocolError(INVALID_PARAMS, f"Unknown tool: {clip(name, 100)}")
        try:
            answer = found.called(self.swarm, arguments or {}, call)
            if isinstance(answer, Wait):
                return self.wait_result(answer, call)
            return self.call_result(answer, call)
        except OSError as error:
            return self.error_result(system_refused(error))
        except ToolError as error:
            return self.error_result(error)

    def wait_result(self, wait: Wait, call: Call) -> Dict[str, Any]:
        return self.call_result(block(self.swarm, wait, call), call)

    def call_result(self, answer: Answer, call: Call) -> Dict[str, Any]:
        """The result as it goes out; `call` learns which tasks' results are in it to the end."""
        structured = self.since("2025-06-18")
        alone = structured and self.client.shows_structured and not answer.failed
        shaped, text = present(answer.data, self.client.result_chars, structured, alone)
        text = clip_middle(text, ERROR_CHARS) if answer.failed else text
        call.given = seen_whole(answer.data, shaped, None if structured and not answer.failed else text)
        result: Dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": answer.failed}
        return {**result, "structuredContent": shaped} if structured else result

    def error_result(self, error: ToolError) -> Dict[str, Any]:
        text = clip_middle(visible(str(error)), ERROR_CHARS)
        result: Dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
        if error.kind is not None and self.since("2025-06-18"):
            result["structuredContent"] = {"failure": to_json(failure(error.kind, str(error), error.fix))}
        return result

    def progress(self, token: Any, number: float, total: int, text: str) -> Dict[str, Any]:
        message = {"message": visible(text)} if self.since("2025-03-26") else {}
        bar = {"total": total} if total else {}
        params = {"progressToken": token, "progress": number, **bar, **message}
        return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}

    # -- resources and prompts -------------------------------------------------------
    def resources_list(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        return {"resources": [r.listed("uri") for r in RESOURCES if not r.is_template]}

    def resources_templates_list(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        return {"resourceTemplates": [r.listed("uriTemplate") for r in RESOURCES if r.is_template]}

    def resources_read(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise ProtocolError(INVALID_PARAMS, "`uri` is missing, or not a string")
        found, why = find_resource(uri), ""
        if found is not None:
            resource, task_id = found
            about = {"protocol": self.revision, "protocols": list(SUPPORTED)}
            try:
                text = resource.read(self.swarm, task_id, about)
                return {"contents": [{"uri": uri, "mimeType": resource.mime_type, "text": text}]}
            except ToolError as error:          # there is no such task, or not any more
                why = f" ({error})"
        what = f"Resource not found: {clip(uri, 200)}{why}"
        raise ProtocolError(self.resource_not_found, what, {"uri": uri})

    def prompts_list(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        title = self.since("2025-06-18")
        return {"prompts": [{"name": p.name, "description": p.description,
                             "arguments": [{"name": name, "description": text, "required": name == p.needs}
                                           for name, text in p.arguments.items()],
                             **({"title": p.title} if title else {})} for p in PROMPTS.values()]}

    def prompts_get(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        name, given = params.get("name"), params.get("arguments")
        prompt = PROMPTS.get(name) if isinstance(name, str) else None
        if prompt is None:
            raise ProtocolError(INVALID_PARAMS, f"Unknown prompt: {_show(name)}")
        given = {} if given is None else given
        wrong = problems(prompt.schema(), given)
        if wrong:
            raise ProtocolError(INVALID_PARAMS, "; ".join(wrong))
        text = prompt.write({name: given.get(name, "") for name in prompt.arguments})
        message = {"role": "user", "content": {"type": "text", "text": text}}
        return {"description": prompt.description, "messages": [message]}


class Handshake(Era):
    """Revisions 2024-11-05 to 2025-11-25: what one session has agreed on with `initialize`."""

    def __init__(self, swarm: Swarm) -> None:
        super().__init__(swarm, REVISIONS[0], Client())
        self.begun = False

    def check(self, method: str) -> Method:
        """Raises: ProtocolError also when the session has not begun."""
        row = METHODS.get(method)
        if not self.begun and row is not None and row.era != "Handshake":
            raise ProtocolError(INVALID_PARAMS, f"`{method}` came without `_meta` `{VENDOR}protocolVersion` "
                                                "and before `initialize`: send one of them")
        return super().check(method)

    def initialize(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        wanted = params.get("protocolVersion")
        if self.begun:
            raise ProtocolError(INVALID_REQUEST, "Already initialized")
        if not isinstance(wanted, str):
            raise ProtocolError(INVALID_PARAMS, "`initialize` needs `protocolVersion`, a string")
        self.client, self.begun = client_named(params.get("clientInfo")), True
        self.revision = wanted if wanted in REVISIONS else REVISIONS[0]
        title = {"title": "Codex swarm"} if self.since("2025-06-18") else {}
        capabilities: Dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}}
        return {"protocolVersion": self.revision, "capabilities": capabilities,
                "serverInfo": {**SERVER_INFO, **title}, "instructions": INSTRUCTIONS}

    def ping(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        return {}


class Stateless(Era):
    """Revision 2026-07-28: one request, which carries everything that its answer depends on."""
    resource_not_found = INVALID_PARAMS

    def __init__(self, swarm: Swarm, capabilities: Mapping[str, Any], client: Client) -> None:
        super().__init__(swarm, STATELESS, client)
        extensions = capabilities.get("extensions")
        self.tracks_tasks = isinstance(extensions, dict) and TASKS_EXTENSION in extensions

    @classmethod
    def of(cls, swarm: Swarm, meta: Mapping[str, Any]) -> "Stateless":
        """The era of a request with this `_meta`. Raises: ProtocolError for an envelope that is not whole."""
        version, capabilities = meta.get(VENDOR + "protocolVersion"), meta.get(VENDOR + "clientCapabilities")
        if not isinstance(version, str):
            raise ProtocolError(INVALID_PARAMS, f"`_meta` needs `{VENDOR}protocolVersion`, a string")
        if version != STATELESS:
            raise ProtocolError(UNSUPPORTED_VERSION, f"Unsupported protocol version: {_show(version)}",
                                {"supported": list(SUPPORTED), "requested": version})
        if not isinstance(capabilities, dict):
            raise ProtocolError(INVALID_PARAMS, f"`_meta` needs `{VENDOR}clientCapabilities`, an object")
        return cls(swarm, capabilities, client_named(meta.get(VENDOR + "clientInfo")))

    def check(self, method: str) -> Method:
        """Raises: ProtocolError also when the client does not know it."""
        row = super().check(method)
        if method.startswith("tasks/") and not self.tracks_tasks:
            what = f"The request does not declare the extension `{TASKS_EXTENSION}` in its clientCapabilities"
            needed: Mapping[str, Any] = {"extensions": {TASKS_EXTENSION: {}}}
            raise ProtocolError(MISSING_CAPABILITY, what, {"requiredCapabilities": needed})
        return row

    def finish(self, method: Method, result: Dict[str, Any]) -> Dict[str, Any]:
        lasting = {"ttlMs": LIST_TTL_MS if method.is_list else 0, "cacheScope": "private"}
        return {"resultType": "complete", **result, **(lasting if method.is_list or method.dated else {}),
                "_meta": {**result.get("_meta", {}), VENDOR + "serverInfo": SERVER_INFO}}

    def server_discover(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        extensions: Dict[str, Any] = {TASKS_EXTENSION: {}}
        return {"supportedVersions": list(SUPPORTED), "instructions": INSTRUCTIONS,
                "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "extensions": extensions}}

    # -- the Tasks extension: a tools/call that goes on after its answer -------------------
    def wait_result(self, wait: Wait, call: Call) -> Dict[str, Any]:
        now = self.swarm.host.now()
        if not self.tracks_tasks or (not wait.owned and is_over(self.swarm, wait, now)[0]):
            return super().wait_result(wait, call)
        handle = Handle(os.urandom(16).hex(), now, wait, self.client.name)
        try:
            self.swarm.store.write_handle(handle)
        except (OSError, ToolError) as error:
            raise ToolError("The MCP task could not be recorded", str(error),
                            f"Start nothing again: the tasks {', '.join(wait.task_ids)} go on, "
                            "and codex_wait collects them")
        started = f"started {', '.join(wait.task_ids[:20])}"
        return {**self._task(handle, "working", started, now, now), "resultType": "task"}

    def _handle(self, params: Mapping[str, Any]) -> Handle:
        handle_id = params.get("taskId")
        handle = self.swarm.store.handle(handle_id) if isinstance(handle_id, str) else None
        if handle is None:
            raise ProtocolError(INVALID_PARAMS, f"Unknown taskId: {_show(handle_id)}")
        return handle

    def _task(self, handle: Handle, status: str, message: str, updated_at: float,
              kept_since: float) -> Dict[str, Any]:
        """The retention counts from the end, MCP's `ttlMs` from the beginning; null is for ever."""
        ttl_s, max_age_s = max(0.0, kept_since - handle.created_at), self.swarm.config.task_max_age_s
        return {"taskId": handle.handle_id, "status": status, "statusMessage": visible(message),
                "createdAt": utc(handle.created_at), "lastUpdatedAt": utc(updated_at),
                "ttlMs": int((ttl_s + max_age_s) * 1000) if max_age_s else None, "pollIntervalMs": POLL_MS}

    def tasks_get(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        """Where an MCP task is; its end is written when it is first seen, and never changes after."""
        handle = self._handle(params)
        end = self.swarm.store.handle_end(handle.handle_id)
        if end is None:
            over, message, at = is_over(self.swarm, handle.wait, handle.created_at)
            cancelled, now = self.swarm.store.is_cancelled(handle.handle_id), self.swarm.host.now()
            if not over and not (cancelled and not handle.wait.owned):
                return self._task(handle, "working", message, max(at, handle.created_at), now)
            end = self._end(handle, message, cancelled, now)
            end = self.swarm.store.end_handle(handle.handle_id, end)
        self.swarm.collected(end.whole)
        result = {"result": end.result} if end.result else {}
        return {**self._task(handle, end.status, end.message, end.at, end.at), **result}

    def _end(self, handle: Handle, message: str, cancelled: bool, now: float) -> HandleEnd:
        """A cancelled wait is cancelled; a cancelled run only if the stop came before its end."""
        ids = handle.wait.task_ids
        stopped = lambda task_id: record_of(self.swarm, task_id).get("outcome") == Outcome.CANCELLED.value
        if cancelled and (not handle.wait.owned or any(map(stopped, ids))):
            return HandleEnd(now, "cancelled", f"cancelled; codex_wait tells of {', '.join(ids[:20])}")
        era, call = Stateless(self.swarm, {}, Client(handle.client)), Call()
        result = era.call_result(conclude(self.swarm, handle.wait), call)
        result = era.finish(METHODS["tools/call"], result)
        return HandleEnd(now, "completed", message, result, tuple(call.given))

    def tasks_update(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        self._handle(params)                    # our tasks never ask for input, so there is nothing to take
        return {}

    def tasks_cancel(self, params: Mapping[str, Any], call: Call) -> Dict[str, Any]:
        handle = self._handle(params)
        if self.tasks_get(params, call)["status"] == "working":
            try:
                self.swarm.store.mark_cancelled(handle.handle_id)
            finally:
                if handle.wait.owned:
                    self.swarm.stop(handle.wait.task_ids)
        return {}


def client_named(info: Any) -> Client:
    return Client(str(info.get("name", "")) if isinstance(info, dict) else "")


class Request(NamedTuple):
    id: RequestId
    method: Method
    params: Dict[str, Any]
    replies: Replies
    era: Era

    def serve(self, call: Call) -> Dict[str, Any]:
        """The result, from the method of the era. Raises: ProtocolError, OSError."""
        act: Callable[..., Dict[str, Any]] = getattr(self.era, self.method.name.replace("/", "_"))
        return act(self.params, call)

    @property
    def waits(self) -> bool:
        """Whether it takes as long as tasks do."""
        found = tool_named(self.params.get("name")) if self.method is METHODS["tools/call"] else None
        return found is not None and found.waits and not self.era.tracks_tasks


class Server:
    """Reads messages, answers the slow ones on a thread each, everything else at once."""

    def __init__(self, swarm: Swarm, wire: Wire) -> None:
        self.swarm, self.wire = swarm, wire
        self.session = Handshake(swarm)
        # Guards `calls` (request id -> what is under way) and `threads` (those whose thread has not finished:
        # the id is free when the answer leaves). The reader and every call thread take it; the end of a call
        # notifies it, for `drain`. Whether a call is cancelled is looked at, and what follows is sent, in one
        # hold of it: what the reader has seen cancelled says nothing more. Sending never blocks.
        self.idle = threading.Condition()
        self.calls: Dict[RequestId, Call] = {}
        self.threads: Set[Call] = set()

    def run(self) -> None:
        """Serve until the end of input."""
        root = self.swarm.config.root
        self.swarm.host.log("INFO", f"codex-mcp-swarm {__version__} serves, tasks in {root}")
        for line in self.wire.lines():
            self.receive(line)

    def drain(self) -> None:
        """Give what is under way time to be answered; calls that only wait end, their tasks go on."""
        end = self.swarm.host.monotonic() + EXIT_GRACE_S
        self.swarm.watch.close()
        self.swarm.host.log("INFO", f"ending with {len(self.calls)} calls under way; the tasks go on")
        with self.idle:
            self.idle.wait_for(lambda: all(call.waiting for call in self.threads), EXIT_GRACE_S)
        self.wire.flush(max(0.0, end - self.swarm.host.monotonic()))

    # -- from a line to a request ----------------------------------------------------
    def receive(self, line: Optional[bytes]) -> None:
        if line is None:
            why = f"The line is longer than {MAX_FRAME_BYTES:,} bytes: send long prompts in several calls"
            return self._error(None, ProtocolError(INVALID_REQUEST, why))
        try:
            message = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return self._error(None, ProtocolError(PARSE_ERROR, f"Not JSON: {clip(str(error), 200)}"))
        if not isinstance(message, list):
            return self.dispatch(message, Replies(self.wire))
        if not (self.session.begun and self.session.revision == "2025-03-26") or not message:
            why = "An empty batch" if not message else "Batches exist only in revision 2025-03-26"
            return self._error(None, ProtocolError(INVALID_REQUEST, f"{why}: send one object a line"))
        replies = Replies(self.wire, sum(expects_answer(entry) for entry in message))
        for entry in message:
            self.dispatch(entry, replies, in_batch=True)

    def dispatch(self, message: Any, replies: Replies, in_batch: bool = False) -> None:
        if not expects_answer(message):
            if isinstance(message.get("method"), str):
                self._notified(message["method"], message.get("params"))
            return
        ident = as_id(message.get("id")) if isinstance(message, dict) else None
        try:
            request = self._request(ident, message, replies, in_batch)
        except ProtocolError as error:
            return self._error(ident, error, replies)
        self.swarm.host.log("DEBUG", f"request {_show(ident)}: {request.method.name}, "
                                     f"revision {request.era.revision}")
        if request.method.slow:
            return self._begin(request)
        self.answer(request, lambda: request.serve(Call(request.era.client)))

    def _request(self, ident: Optional[RequestId], message: Any, replies: Replies, in_batch: bool) -> Request:
        """The message as a request, its era agreed. Raises: ProtocolError."""
        if ident is None or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
            raise ProtocolError(INVALID_REQUEST, "Not a JSON-RPC 2.0 request: it needs `jsonrpc`: \"2.0\", "
                                                 "a `method`, and an `id` that is a string or an integer")
        name, params = message["method"], message.get("params")
        if in_batch and name == "initialize":
            raise ProtocolError(INVALID_REQUEST, "`initialize` cannot be part of a batch")
        era = self._era_of(params.get("_meta") if isinstance(params, dict) else None, in_batch)
        method = era.check(name)
        if params is not None and not isinstance(params, dict):
            raise ProtocolError(INVALID_PARAMS, "`params` must be an object")
        if params and params.get("cursor") is not None and method.is_list:
            raise ProtocolError(INVALID_PARAMS, "Unknown `cursor`: every list comes whole")
        with self.idle:             # only the reader begins requests: what is free here is free until it does
            if ident in self.calls:
                raise ProtocolError(INVALID_REQUEST, "A request with this id is still under way")
        return Request(ident, method, params or {}, replies, era)

    def _era_of(self, meta: Any, in_batch: bool) -> Union[Stateless, Handshake]:
        """The era of a request with this `_meta`. Raises: ProtocolError."""
        marks = {VENDOR + "protocolVersion", *([] if self.session.begun else [VENDOR + "clientCapabilities"])}
        if not isinstance(meta, dict) or marks.isdisjoint(meta):
            return self.session
        if in_batch:
            raise ProtocolError(INVALID_REQUEST, f"Revision {STATELESS} has no batches")
        return Stateless.of(self.swarm, meta)

    def _notified(self, method: str, params: Any) -> None:
        """Notifications are never answered, and unknown ones are nobody's error."""
        if method != "notifications/cancelled" or not isinstance(params, dict):
            return
        with self.idle:
            call = self.calls.get(as_id(params.get("requestId")))       # type: ignore[arg-type]
            if call is not None:
                call.cancel_reason, call.cancelled = str(params.get("reason") or ""), True
        self.swarm.watch.wake()

    # -- from a request to its answer ------------------------------------------------
    def _begin(self, request: Request) -> None:
        """Answer on a thread of its own what may take a while."""
        call = Call(request.era.client)
        call.tell = self._teller(request, call)
        with self.idle:
            calls = len(self.calls)
            self.calls[request.id] = call
            self.threads.add(call)
        act = lambda: request.serve(call)
        if calls < (MAX_WAITS if request.waits else MAX_CALLS):
            thread = threading.Thread(target=self.answer, args=(request, act, call),
                                      name=f"call-{request.id}", daemon=True)
            try:
                return thread.start()
            except RuntimeError:            # the system has no thread left
                pass
        self.answer(request, lambda: self._too_busy(request, calls), call)

    def _too_busy(self, request: Request, calls: int) -> Dict[str, Any]:
        error = ToolError("Too many calls are under way",
                          f"Each takes a thread: {calls} have one, and there is none for more",
                          "Wait for some of them; codex_batch and codex_wait take many tasks in one call")
        if request.method is not METHODS["tools/call"]:
            raise ProtocolError(INTERNAL_ERROR, str(error))
        return request.era.error_result(error)

    def answer(self, request: Request, act: Callable[[], Dict[str, Any]],
               call: Optional[Call] = None) -> None:
        """The one boundary between exceptions and the wire. A cancelled call gets no answer. `call`: it has a
        thread of its own."""
        try:
            out = {"result": request.era.finish(request.method, act())}
        except ProtocolError as error:
            out = error_member(error)
        except OSError as error:
            out = error_member(ProtocolError(INTERNAL_ERROR, str(system_refused(error))))
        except Exception:                   # a bug of ours: say so, and go on serving
            reference = os.urandom(4).hex()
            self.swarm.host.log("ERROR", f"internal error {reference} in {request.method.name}", trace=True)
            what = f"Internal error {reference}; its traceback is in the server's log"
            out = error_member(ProtocolError(INTERNAL_ERROR, what))
        message = {"jsonrpc": "2.0", "id": request.id, **out}
        if call is None:
            return request.replies.send(message)
        giving, given = self.swarm.watch.giving, call.given
        with self.idle:
            giving.update(given)            # the client may ask for more before this is noted
            del self.calls[request.id]
            request.replies.send(None if call.cancelled else message)
        if call.abandoned:
            self.swarm.stop(call.started)
        if not call.cancelled:
            self.swarm.collected(given)
        with self.idle:
            giving -= collections.Counter(given)
            self.threads.discard(call)
            self.idle.notify_all()

    def _teller(self, request: Request, call: Call) -> Optional[Callable[..., None]]:
        meta = request.params.get("_meta")
        token = as_id(meta.get("progressToken")) if isinstance(meta, dict) else None
        if token is None:
            return None

        def tell(text: str, done: int = 0, total: int = 0) -> None:
            """Only the thread of the call comes here, before it answers: no progress follows the result. The
            number must rise each time, so it nears what is not done yet."""
            with self.idle:
                if not call.cancelled and not self.wire.busy():
                    call.notices += 1
                    number = done + call.notices / (call.notices + 99) if total else call.notices
                    self.wire.send(request.era.progress(token, number, total, text))
        return tell

    def _error(self, ident: Optional[RequestId], error: ProtocolError,
               replies: Optional[Replies] = None) -> None:
        message = {"jsonrpc": "2.0", "id": ident, **error_member(error)}
        (replies or Replies(self.wire)).send(message)


def expects_answer(message: Any) -> bool:
    """Requests do, and whatever is no message at all; notifications and responses do not."""
    if not isinstance(message, dict):
        return True
    if "method" in message:
        return "id" in message or not isinstance(message["method"], str)
    # an error about a line whose id nobody could read has none
    return not ("error" in message or ("id" in message and "result" in message))


def as_id(value: Any) -> Optional[RequestId]:
    """`value`, if it can name a request or its progress."""
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def error_member(error: ProtocolError) -> Dict[str, Any]:
    body: Dict[str, Any] = {"code": error.code, "message": visible(str(error))}
    return {"error": {**body, "data": dict(error.data)} if error.data else body}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# ======================================================================================
# 14. COMMAND LINE  (the only floor that reads argv and the environment)
# ======================================================================================
# To add a server flag, write one line in SERVER_FLAGS; to add an environment variable, one in VARIABLES.
class Variable(NamedTuple):
    field: str                      # of Config; its default holds where the variable is not set, or empty
    read: Callable[[str], Any]      # raises UsageError for a bad value
    help: str


def _directory(given: str) -> str:
    path = os.path.abspath(os.path.expanduser(given))
    if not os.path.isabs(os.path.expanduser(given)):
        raise UsageError("must be an absolute path, since servers start in different directories")
    if os.path.lexists(path) and not os.path.isdir(path):
        raise UsageError("exists and is not a directory")
    return path


def _log_file(given: str) -> str:
    path = os.path.abspath(os.path.expanduser(given))
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path)):
        raise UsageError("is a directory" if os.path.isdir(path) else "its directory does not exist")
    return path


def _one_of(words: Sequence[str], form: Callable[[str], str] = str) -> Callable[[str], str]:
    def read(given: str) -> str:
        if form(given) not in words:
            raise UsageError(f"must be one of {', '.join(words)}")
        return form(given)
    return read


def _executable(given: str) -> str:
    path = os.path.abspath(os.path.expanduser(given)) if os.sep in given else given
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory: --codex-bin and CODEX_SWARM_CODEX_BIN name an executable")
    return path


def _command(given: str) -> Tuple[str, ...]:
    import shlex
    try:
        return tuple(shlex.split(given))
    except ValueError as error:
        raise UsageError(f"`{clip(given, 60)}` is no command: {error}")


def _number(unit: str, least: float = 0) -> Callable[[str], float]:
    def read(given: str) -> float:
        value = -1.0
        with contextlib.suppress(ValueError):
            value = float(given)
        if not 0 <= value < float("inf"):
            raise UsageError(f"must be a number of {unit}, 0 or more")
        return max(least, value)
    return read


_parallel = lambda given: int(_number("tasks at once (--max-parallel)")(given))
LISTED_AT_ONCE = 500                # of ended tasks
FAR = 1 << 40                       # lines, seconds: further than anybody gets
LINES_OF_OUTPUT = 5                 # of a command, its last ones
VARIABLES: Mapping[str, Variable] = {
    "CODEX_SWARM_TASK_DIR": Variable(
        "root", _directory,
        "where tasks are kept (default: codex-swarm in $XDG_STATE_HOME, else in ~/.local/state)"),
    "CODEX_SWARM_WORKTREE_DIR": Variable(
        "worktree_dir", _directory,
        "where git worktrees are made (default: worktrees in the task directory)"),
    "CODEX_SWARM_WORKTREE_SETUP": Variable(
        "worktree_setup", str.strip,
        "shell command that prepares each new worktree before codex starts in it; "
        "$1 is the caller's checkout"),
    "CODEX_SWARM_MERGE_VERIFY": Variable(
        "merge_verify", str.strip,
        "shell command that has to pass on what codex_merge made, before a branch is moved; "
        "$1 is the caller's checkout"),
    "CODEX_SWARM_LAUNCHER": Variable(
        "launcher", _command, "starts codex elsewhere, such as `srun --ntasks=1`; --launcher wins"),
    "CODEX_SWARM_CODEX_BIN": Variable(
        "codex_bin", _executable, "codex executable, path or name (default: codex); --codex-bin wins"),
    "CODEX_SWARM_TASK_MAX_AGE": Variable(
        "task_max_age_s", _number("seconds"),
        "how long worktrees and events of ended tasks are kept, in seconds (default: 86400); 0: for ever"),
    "CODEX_SWARM_RESULT_MAX_AGE": Variable(
        "result_max_age_s", _number("seconds"),
        "how long answers are kept, in seconds (default: 2592000); 0: for ever"),
    "CODEX_SWARM_MIN_FREE_MB": Variable(
        "min_free_mb", lambda given: int(_number("MiB")(given)),
        "no worktree is made where fewer MiB are free (default: 512); 0: never refused"),
    "CODEX_SWARM_MAX_PARALLEL": Variable(
        "max_parallel", _parallel,
        "so many tasks run at once, those of all your servers together; others are queued (default: 8 a core "
        "and 512 MiB each, from 4 to 32); 0: no limit; --max-parallel wins"),
    "CODEX_SWARM_DEPTH": Variable(
        "depth", lambda given: int(_number("levels", 1)(given)),
        "1 (default): a server that runs inside of a task starts none; 2: it does, but none inside of those; "
        "and so on"),
    "CODEX_SWARM_IDLE_TIMEOUT": Variable(
        "idle_timeout_s", _number("seconds"),
        "`idle_timeout_s` of calls that name none, in seconds (default: 0, never)"),
    "CODEX_SWARM_ON_LIMIT": Variable(
        "on_limit", _one_of(RUN["on_limit"]["enum"]),
        "`on_limit` of calls that name none: wait, or fail (default); --on-limit wins"),
    "CODEX_SWARM_LOG": Variable("log_file", _log_file, "log file (default: stderr)"),
    "CODEX_SWARM_LOG_LEVEL": Variable(
        "log_level", _one_of(LOG_LEVELS, str.upper), "DEBUG, INFO, WARNING or ERROR (default: WARNING)"),
}


def entry_for(client: str, command: Sequence[str]) -> str:
    words = [toml(word) for word in command]            # which is JSON as well
    values = {"PROGRAM": words[0], "ALL": ", ".join(words), "ARGS": ", ".join(words[1:]),
              "BEGIN": "".join(word + ", " for word in words[1:]), "SHELL": shell_words(command)}
    return re.sub("|".join(values), lambda found: values[found[0]], CLIENTS[client].text)


def this_program() -> List[str]:
    """The command that starts this installation: the script that pip made, or Python and this file."""
    script = os.path.abspath(sys.argv[0])
    installed = os.path.basename(script) == "codex-mcp-swarm" and os.access(script, os.X_OK)
    return [script] if installed else [sys.executable, os.path.abspath(__file__)]


def _override(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", override(word)[0]) or "=" not in word:
        raise UsageError(f"-c {masked(word)}: not of the form key=value")
    return word


def _allowed_root(given: str) -> str:
    path = os.path.expanduser(given)
    why = no_directory(path) if os.path.isabs(path) else "is no absolute path"
    if why:
        raise UsageError(f"--allow-root {given}: {why}")
    return os.path.realpath(path)


def _account(given: str) -> Tuple[str, str]:
    name, _, path = given.partition("=")
    path = os.path.expanduser(path)
    formed = re.fullmatch(r"[\w-]+", name) and os.path.isabs(path)
    why = no_directory(path) if formed else "is not NAME=DIR with an absolute path, as work=/home/me/work"
    if why:
        raise UsageError(f"--codex-home {given}: {why}")
    return name, os.path.realpath(path)


# The commands. To add one, write one @subcommand function. Help, completion and the tests read COMMANDS.
Argument = Tuple[Tuple[str, ...], Dict[str, Any]]       # its names, and the rest of `add_argument`


class Command(NamedTuple):
    name: str
    aim: str                        # what one wants to do; the help lists the commands by it
    help: str                       # one line
    more: str                       # what it does, and examples
    arguments: Tuple[Argument, ...]
    run: Callable[["Typed"], int]   # returns the exit status
    flags: bool = False             # it takes those of the server, too


COMMANDS: Dict[str, Command] = {}   # filled here, at import, and never changed
AIMS = ("Run tasks", "See what they do and did", "Bring their work home", "Set up")


def arg(*names: str, **how: Any) -> Argument:
    """An argument, in the words of argparse."""
    return names, how


def subcommand(aim: str, help: str, more: str, *arguments: Argument,
               flags: bool = False) -> Callable[[Any], Any]:
    """Put the function below into COMMANDS, under its name without `command_`."""
    def add(run: Any) -> Any:
        name = run.__name__.replace("command_", "", 1)
        COMMANDS[name] = Command(name, aim, help, more, arguments, run, flags)
        return run
    return add


def named_or_all(typed: "Typed") -> List[str]:
    """The tasks of a command that takes IDs or --all, these in the order of starting. Raises: UsageError;
    ToolError."""
    if bool(typed["task_ids"]) == typed["all"]:
        raise UsageError("either an ID is needed or --all")
    return typed["task_ids"] or typed.swarm.unended()[::-1]


def of_tool(tool: str, name: str, *names: str, **how: Any) -> Argument:
    """An argument of a tool as an option, from its schema."""
    schema = TOOLS[tool].args["properties"][name]
    kinds: Mapping[str, Dict[str, Any]] = {
        "boolean": {"action": "store_true"}, "array": {"action": "append"}, "number": {"type": float}}
    traits = {"choices": schema["enum"]} if "enum" in schema else kinds.get(schema["type"], {})
    text = schema.get("description", "")
    return arg(*names, **{"dest": name, "help": text[:1].lower() + text[1:], **traits, **how})


JSON = arg("--json", action="store_true", help="the same as JSON")
IDS = arg("task_ids", metavar="ID", nargs="+", help="the beginning of it is enough; or a branch, a thread")
SOME = (
    (IDS[0], {**IDS[1], "nargs": "*"}),
    arg("-a", "--all", action="store_true", help="all that have not ended, whoever started them"))
DETACH = arg("-d", "--detach", action="store_true", help="leave it in the background, print the id")
RUN_OPTIONS = (
    of_tool("codex", "model", "-m", "--model", metavar="MODEL"),
    of_tool("codex", "sandbox", "-s", "--sandbox", metavar="MODE",
            help=f"{', '.join(SANDBOXES)}; default: codex's own, read-only in untrusted directories"),
    of_tool("codex", "profile", "-p", "--profile", metavar="NAME"),
    of_tool("codex", "timeout_s", "--timeout", metavar="SECONDS"),
    of_tool("codex", "idle_timeout_s", "--idle-timeout", metavar="SECONDS"))
SERVER_FLAGS = (
    arg("-c", dest="overrides", metavar="key=value", action="append", type=_override,
        help="codex configuration for every task, as in `codex -c`; arguments of a call override it "
             "(repeatable)"),
    arg("--skip-git-repo-check", action="store_true", help="let tasks run outside git repositories"),
    arg("--ephemeral", action="store_true", help="codex keeps no threads, so none can be continued"),
    arg("--codex-bin", metavar="PATH", type=_executable, help="codex executable, path or name"),
    arg("--codex-home", dest="codex_homes", metavar="NAME=DIR", action="append", type=_account,
        help="another account: calls may choose NAME for the CODEX_HOME at DIR (repeatable)"),
    arg("--launcher", metavar="COMMAND", type=_command,
        help="start codex by way of it, such as `srun --ntasks=1`; {task_id} and {cwd} in it are the task's"),
    arg("--max-parallel", metavar="N", type=_parallel, help="so many tasks run at once; 0: no limit"),
    arg("--on-limit", choices=RUN["on_limit"]["enum"],
        help="wait: tasks sit out limits and a lost network, unless the call says otherwise"),
    arg("--max-sandbox", metavar="MODE", choices=SANDBOXES[:2],
        help="read-only or workspace-write: calls that ask for more are refused, also by `config` or "
             "`profile`; one that names no sandbox is read-only, in a worktree MODE"),
    arg("--allow-root", dest="allow_roots", metavar="DIR", action="append", type=_allowed_root,
        help="calls may only work in DIR and below, links resolved (repeatable)"))
EXIT_STATUSES = """\
exit status:
  0    all went well: every task succeeded, everything was merged
  1    something failed or was refused: the reason is on stderr, of a merge and by the doctor on stdout
  2    the command line or a variable is wrong; nothing was done
  130  Ctrl-C; once all tasks were accepted they go on, the queued ones as well"""


def wrapped(text: str, width: int) -> str:
    """Prose in lines of this width, and what stands in columns within them, where there is room."""
    import textwrap
    lines: List[str] = []
    for line in re.sub(r"(?<=\S)\n(?=\S)", " ", text).split("\n"):
        begin = len(line) - len(re.sub(r"^ *(\S+( \S+)*  +)?", "", line))
        hang = begin if begin < 0.6 * width else 4
        lines += textwrap.wrap(line, width, subsequent_indent=" " * hang, break_long_words=False,
                               break_on_hyphens=False) or [""]
    return "\n".join(lines)


def parser(prog: str, *arguments: Argument, flags: bool = False, **how: Any) -> Any:
    """With `flags`, those of the server in a group of their own."""
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise UsageError(f"{message} (`{self.prog} --help` shows what there is)")
    # a width, or argparse imports shutil at every start
    wide = min(100, Look(sys.stdout, {}).size[0])

    class Narrow(argparse.HelpFormatter):
        def __init__(self, prog: str) -> None:
            super().__init__(prog, width=wide, max_help_position=26)

        def _fill_text(self, text: str, width: int, _: str) -> str:
            return wrapped(text, width)
    made = Parser(prog, allow_abbrev=False, formatter_class=Narrow, **how)
    for names, traits in arguments:
        made.add_argument(*names, **traits)
    if flags:
        group = made.add_argument_group("flags of the server")
        for names, traits in SERVER_FLAGS:
            group.add_argument(*names, **traits)
    return made


def flags() -> Any:
    """The parser of what stands before the command; that and all after it go to `words`."""
    listed = "\n\n".join(f"{aim}:\n" + "\n".join(f"  {c.name:12}{c.help}" for c in COMMANDS.values()
                                                  if c.aim == aim) for aim in AIMS)
    variables = "\n".join(f"  {name:30}{row.help}" for name, row in VARIABLES.items())
    return parser("codex-mcp-swarm",
                  arg("--version", action="version", version=f"codex-mcp-swarm {__version__}"),
                  arg("words", nargs="...", metavar="COMMAND ...", help="one of those above"), *SERVER_FLAGS,
                  usage="codex-mcp-swarm [FLAGS] [COMMAND ...]",
                  description=f"{ABOUT}\n`codex-mcp-swarm COMMAND --help` shows one command with examples."
                              f"\n\n{listed}\n\n{EXAMPLES}",
                  epilog=f"{EXIT_STATUSES}\n\nenvironment:\n{variables}")


ABOUT = """\
Run many Codex CLI tasks at once. Without a command it is a server: it speaks MCP on standard input and
output, and an MCP client starts it."""
WELCOME = """\
`codex-mcp-swarm config CLIENT` prints the entry for another client,
`codex-mcp-swarm demo` shows right here how it works,
`codex-mcp-swarm --help` lists all commands."""
EXAMPLES = """\
examples:
  codex-mcp-swarm run -w "Fix issue 12" "Fix issue 15"
                                        two tasks at once, each in a worktree and branch of its own
  codex-mcp-swarm ls                    what runs now
  codex-mcp-swarm show 2f9c             what became of one task; the beginning of an id is enough
  codex-mcp-swarm config claude         the line that adds the server to Claude Code"""


class Typed:
    """One command as it was typed, and what it works with. `options` are its arguments and flags by name."""

    def __init__(self, row: Optional[Command], options: Dict[str, Any], config: Config,
                 argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.row, self.options, self.config, self.argv, self.environ = row, options, config, argv, environ
        self.call = Call()

    def __getitem__(self, name: str) -> Any:
        return self.options.get(name)

    @functools.cached_property
    def swarm(self) -> Swarm:
        return Swarm(self.config, Host(self.config.log_file, self.config.log_level), self.environ)

    def in_file(self) -> List[str]:
        """The arguments that stand in its file, if anywhere."""
        return [name for name in OPTIONS if self["file"] and (self[name] is None or self[name] is False)]

    def asks(self, tool: str, **more: Any) -> Any:
        """What a tool says to those of the options that it knows, and to `more`. Raises: ToolError."""
        known = {name: self[name] for name in TOOLS[tool].args["properties"]}
        given = {name: value for name, value in {**known, **more}.items()
                 if value is not None and value is not False}
        return TOOLS[tool].called(self.swarm, given, self.call)

    def show(self, data: Dict[str, Any], *lines: str) -> None:
        """Print an answer: as JSON, as these lines, or rendered."""
        text = _pretty(data) if self["json"] else "\n".join(lines) or render(for_people(data))
        print(text, flush=True)

    def collected(self, data: Dict[str, Any]) -> None:
        """Who typed it has seen these records whole."""
        self.swarm.collected([r["task_id"] for r in records_of(data) if r["state"] == State.ENDED.value])

    def heed_ctrl_c(self) -> None:
        """From now on Ctrl-C ends the call. Tasks that are being started are stopped; once all were
        accepted they go on, the queued ones as well. The second one ends the program."""
        def end(*_: Any) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.call.cancelled = True
            self.swarm.watch.wake()
        signal.signal(signal.SIGINT, end)

    def see_through(self, wait: Wait) -> int:
        """Wait for the end of tasks, then print their results. Returns the exit status."""
        if self["detach"]:
            self.show({"task_ids": list(wait.task_ids)}, *wait.task_ids)
            if sys.stderr.isatty():
                self.tell_next(wait.task_ids, "in the background")
            return 0
        left = tell_ends(self, wait.task_ids)
        if left:
            self.tell_next(left, "not ended yet")
            return 130
        data = conclude(self.swarm, wait._replace(single=False)).data
        if len(data["tasks"]) == 1 and not self["json"]:
            record = dict(data["tasks"][0])
            answer = record.pop("content", "")
            sys.stderr.write(render(for_people(record)) + "\n")
            if answer:
                print(visible(answer))
        else:
            self.show(data)
        self.collected(data)
        return 0 if all(r["outcome"] == Outcome.SUCCEEDED.value for r in data["tasks"]) else 1

    def tell_next(self, task_ids: Sequence[str], how: str) -> None:
        """Say on stderr what can be done with tasks that go on, and of several which is which."""
        program, names = shell_words(this_program()), " ".join(task_ids)
        records = [record_of(self.swarm, task_id) for task_id in task_ids if len(task_ids) > 1]
        titles = [f"{r['task_id']}  {visible(r.get('title', ''))}\n" for r in records]
        sys.stderr.write(f"{''.join(titles)}{len(task_ids)} {how}. To wait: {program} wait {names}\n"
                         f"To stop: {program} stop {names}\n")


def tell_ends(typed: Typed, task_ids: Sequence[str]) -> List[str]:
    """Tell on stderr who ended how, when it happens, and once that the network is waited for; on a terminal
    what all do. Returns those that run on when the call is cancelled."""
    left, look, said = list(task_ids), Look(sys.stderr, typed.environ), ""
    if look.draws() and not typed.call.cancelled:
        return watch_live(typed.swarm, task_ids, sys.stderr)
    while True:
        typed.swarm.wait(left, PROGRESS_GAP_S, typed.call, "any")   # Ctrl-C may come just before it sleeps
        found, words, _ = typed.swarm.watch.standing(left)
        if Phase.NETWORK.value in words and not said:
            said = words
            sys.stderr.write(f"{visible(words)}\n")
        ended = dict.fromkeys(found)
        left = [task_id for task_id in left if task_id not in ended]
        if len(task_ids) > 1 and ended:
            records = [record_of(typed.swarm, task_id) for task_id in ended]
            sys.stderr.write("".join(f"{line}\n" for line in look.tasks(records)))
        if not left or typed.call.cancelled:
            return left


# What texts for clients say -> what one types instead; of two that fit the longer. The options of `run` go
# into `defaults`, so they are known there, too; its prompts are tasks, which people count from 1.
OPTIONS: Mapping[str, str] = {
    "sandbox": "-s", "cwd": "-C", "timeout_s": "--timeout", "worktree": "-w", "model": "-m", "profile": "-p",
    "prompt": "PROMPT", "task_ids": "ID", "task_id": "ID", "into": "--into", "base": "--base",
    "dry_run": "--dry-run", "squash": "--squash", "partial": "--partial", "update_from": "--update-from",
    "against": "--against", "paths": "--path", "idle_timeout_s": "--idle-timeout",
    "codex_home": "--account"}
TYPED: Mapping[str, str] = {
    **{f"`{at}{name}`": f"`{typed}`" for name, typed in OPTIONS.items()
       for at in ("", "defaults.")},
    **{f"codex_{tool}": f"`PROGRAM {typed}`" for tool, typed in {
        "status": "ls --all", "batch": "run", "async": "run -d", "cancel": "stop ID...", "wait": "wait ID...",
        "merge": "merge ID...", "events": "logs ID", "diff": "diff ID", "reply": "reply ID PROMPT"}.items()},
    "events.jsonl and stderr.log of the task": "`PROGRAM logs ID`",
    "codex_status with `all`": "`PROGRAM ls --all`", "codex_wait with these task_ids": "`PROGRAM wait ID...`",
    "codex_reply with the arguments in `reply`": "the reply above",
    " (`fitting`)": "", "A codex_reply to it": "`PROGRAM reply ID PROMPT`",
    "codex_reply to": "`PROGRAM reply` to",
    ". Or pass `interrupt` true, which stops its turn first, or `fork` true, which goes on in a copy of the "
    "thread": ", or stop it with `PROGRAM stop ID...` first",
    "Nobody waits for this call any more. Its client has gone or cancelled it": "You stopped this",
    "a relative one is taken from the server's": "a relative one is taken from here",
    "Pass `worktree` true": "Add `-w`", " and call again": "",
    "with `worktree: true`": "with `-w`", "`into: \"HEAD\"`": "`--into HEAD`",
    "`codex-mcp-swarm ": "`PROGRAM ", "Pass a task_id": "Name a task", "start the server with --": "add --"}
ENTRIES: Mapping[str, str] = {"`:": ":", "`": "", ".": ": `"}
ADVISING = frozenset({"advice", "blocked", "collect", "how", "note", "warnings"})


def for_people(said: Any, key: str = "advice", about: str = "", in_file: Container[str] = ()) -> Any:
    """The same in the words of the command line, where it says what to do next, `about` which task. Arguments
    that stand `in_file` keep their names."""
    if key == "reply":
        update = ("--update-from", said["update_from"]) if "update_from" in said else ()
        return shell_words([*this_program(), key, said["task_id"], said["prompt"], *update])
    if isinstance(said, dict):
        return {name: for_people(value, name, said.get("task_id", about)) for name, value in said.items()}
    if isinstance(said, list):
        return [for_people(entry, key, about) for entry in said]
    if not isinstance(said, str) or key not in ADVISING:
        return said
    program, named = shell_words(this_program()), set(re.findall(rf"\b[Tt]ask ({TASK_ID})", said))
    task_id = about or "".join(named) * (len(named) == 1)
    said = re.sub(r"`tasks\[(\d+)\](`:?|\.)", lambda at: f"task {int(at[1]) + 1}" + ENTRIES[at[2]], said)
    words = {text: word for text, word in TYPED.items() if text.strip("`").split(".")[-1] not in in_file}
    typed = lambda at: re.sub(r"\bID(\.\.\.)?", task_id or r"\g<0>", words[at[0]]).replace("PROGRAM", program)
    return re.sub("|".join(sorted(map(re.escape, words), reverse=True)), typed, said)


def typed_in(name: str) -> str:
    """The text of a file, or of standard input where that is `-`. Raises: OSError."""
    with open(0 if name == "-" else name, encoding="utf-8", errors="replace", closefd=name != "-") as f:
        return f.read()


def said_of(error: OSError) -> str:
    """`tasks.json: No such file or directory`."""
    named = error.filename or "The system refused to read or to write something"
    return f"{named}: {error.strerror}" if error.strerror else str(error)


class Look:
    """How lines look on an output: marks and colours only on a terminal. NO_COLOR takes the colours away."""

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self.out, self.colours = out, not environ.get("NO_COLOR")
        self.marks = out.isatty() and environ.get("TERM", "dumb") != "dumb"
        self.size = (WIDE, 0)
        self.measure()

    def measure(self) -> None:
        """See how many columns and lines it has. The last column stays free, else what erases the rest of a
        line would erase its end."""
        if self.out.isatty():
            wide, high = os.get_terminal_size(self.out.fileno())
            self.size = (wide or 80) - 1, high or 24

    def draws(self) -> bool:
        """Whether frames can be drawn there: it is our terminal, and we are in its foreground."""
        with contextlib.suppress(OSError):          # not ours
            return self.marks and os.tcgetpgrp(self.out.fileno()) == os.getpgrp()
        return False

    def mark(self, how: str) -> str:
        """`how`: an outcome or a state."""
        sign, colour = MARKS.get(how, MARKS["starting"])
        return (f"\033[{colour}m{sign}\033[39m " if self.colours else f"{sign} ") if self.marks else ""

    def tasks(self, records: Sequence[Mapping[str, Any]], *more: Sequence[str],
              brief: bool = False) -> List[str]:
        """A line for each: its id, facts, title, and what it does or came to; `brief` for a display, where
        the facts stand at the right. `more`: further facts, a text for each task. Where there is little room
        the last facts are left out."""
        hows = [r.get("outcome") or r["state"] for r in records]
        titles, does = [r.get("title", "") for r in records], [*map(_does, records)]
        names = [r["task_id"][:6] if brief else f"{r['task_id']}  {how:9}" for r, how in zip(records, hows)]
        table = ([lasting(int(r.get("elapsed_s", 0))) for r in records], *more,
                 [diffstat(r.get("worktree", {})) for r in records], [*map(_tokens, records)])
        facts = [""] * len(records)
        for column in filter(any, table):
            wide = max(map(columns, column))
            longer = [f"{fact}  {' ' * (wide - columns(text))}{text}" for fact, text in zip(facts, column)]
            if self.size[0] < columns(names[0] + longer[0]) + 6 + max(ROOM_FOR_WORDS, self.size[0] * 3 // 8):
                break
            facts = longer
        room = max(2, self.size[0] - max((columns(n + f) for n, f in zip(names, facts)), default=0) - 6)
        named, said = (max(map(columns, texts), default=0) for texts in (titles, does))
        title = min(named, max(room // 2, room - said))
        words = [f"{fitted(one, title)}  {fitted(other, room - title)}" for one, other in zip(titles, does)]
        return [self.mark(how) + name + (f"  {said}{fact}" if brief else f"{fact}  {said.rstrip()}")
                for how, name, fact, said in zip(hows, names, facts, words)]


WIDE = 1000                         # columns, where it is no terminal
ROOM_FOR_WORDS = 20                 # columns, or more of many, that facts leave to what is said of a task
MARKS: Mapping[str, Tuple[str, str]] = {        # and the colour of the terminal
    "succeeded": ("✓", "32"), "failed": ("✗", "31"), "timed_out": ("✗", "31"), "lost": ("✗", "31"),
    "cancelled": ("■", "33"), "stopping": ("■", "33"),
    "running": ("●", "36"), "starting": ("○", "36"),
    "ok": ("✓", "32"), "warning": ("!", "33"), "broken": ("✗", "31")}


def _tokens(record: Mapping[str, Any]) -> str:
    usage = record.get("usage", {})
    tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    return f"{tokens / 1000:.1f}k" if tokens >= 1000 else str(tokens or "")


def _does(record: Mapping[str, Any]) -> str:
    """What one that runs does or last said, and what one that ended came to."""
    live = record.get("progress")
    if "note" in record:
        return record["note"]
    if live is None:
        return record["failure"]["message"] if "failure" in record else record.get("content", "")
    if live["phase"] == Phase.QUEUED.value:
        return live["detail"].replace(",", " in line,", 1)
    doing = VERBS.get(Phase(live["phase"]))
    said = live.get("thinking", live.get("last_message")) if live["phase"] == Phase.MODEL.value else None
    return f"{doing} `{live['detail']}`" if doing and "detail" in live else said or live["phase"]


GUESSES: Mapping[str, str] = {          # what other programs call it
    "status": "ls", "ps": "ls", "list": "ls", "kill": "stop", "cancel": "stop", "rm": "sweep", "tail": "logs",
    "version": "--version"}
SERVING = "it is the server without any; `config CLIENT` prints the entry with which a client starts it"


def configure(argv: Sequence[str], environ: Mapping[str, str]) -> Typed:
    """What was typed, with the configuration. Reads, never writes. Raises: UsageError for a bad value;
    SystemExit from argparse."""
    row, options = None, {}                             # type: Optional[Command], Dict[str, Any]
    if argv:
        given = flags().parse_args(argv)
        name, *words = given.words or [""]
        if name and name not in COMMANDS:
            meant = f" (did you mean `{GUESSES[name]}`?)" if name in GUESSES else _suggestion(name, COMMANDS)
            raise UsageError(f"`{clip(name, 60)}` is no command"
                             + (f": {SERVING}" if name == "serve" else meant))
        row = COMMANDS.get(name)
        if row:
            own = parser(f"codex-mcp-swarm {name}", *row.arguments, flags=row.flags, epilog=row.more,
                         description=f"{row.help[0].upper()}{row.help[1:]}.")
            given = own.parse_args(words, given)
        options = vars(given)
    fields: Dict[str, Any] = {}
    for name, variable in VARIABLES.items():
        if environ.get(name):
            try:
                fields[variable.field] = variable.read(environ[name])
            except UsageError as error:
                raise UsageError(f"{name}={environ[name]}: {error.what}")
    for field, value in options.items():
        if field in Config._fields and value is not None and field != "codex_home":     # there an account
            fields[field] = tuple(value) if isinstance(value, list) else value
    return Typed(row, options, default_config(environ)._replace(**fields), argv, environ)


def claim_standard_descriptors() -> None:
    """No file of ours gets the number of one that is closed; what is written there goes nowhere."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.set_blocking(fd, True)               # the mode is the open file's, which the parent may share
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))


def hide_words(command: str) -> None:
    """Let `ps` show no more of this process, and of all that it forks, than the name of the command: any user
    may look. Linux only; elsewhere what was typed stays. Source: proc_pid_stat(5), fields 48 and 49."""
    with contextlib.suppress(OSError), open("/proc/self/stat", "rb") as f, \
            open("/proc/self/mem", "r+b", 0) as memory:
        begin, end = map(int, f.read().rpartition(b")")[2].split()[45:47])
        memory.seek(begin)
        memory.write(f"codex-mcp-swarm {command}".encode()[:end - begin - 1].ljust(end - begin, b"\0"))


def own_messages() -> Tuple[IO[bytes], int]:
    """(where messages come from, the descriptor that they go to), which nobody else in this process then
    has."""
    rx, tx = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)        # no child ever reads what is meant for us
    os.dup2(2, 1)                                       # no stray print ever tears a line of the protocol
    return rx, tx


def serve(config: Config, environ: Mapping[str, str]) -> int:
    """Serve MCP on standard input and output until either ends or a signal comes; then the process ends.
    Tasks go on."""
    def end() -> None:
        server.drain()
        host.end_what_hangs()
        os._exit(0)             # threads may be anywhere; the interpreter's own end would trip over them

    def end_on_signal() -> None:
        """On a thread of its own: the kernel may give a signal to any thread, and then the main one stays in
        read(2)."""
        os.read(wake, 1)
        end()
    own_signals()
    rx, tx = own_messages()
    host = Host(config.log_file, config.log_level)
    sys.path[:] = [p for p in sys.path if p.startswith(os.path.dirname(os.__file__))]   # no task writes there
    host.forker = Forker(supervisor_main) if host.linux else None
    wake = wake_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def gone(why: str) -> None:
        if why:
            host.log("ERROR", why)
        os.kill(os.getpid(), signal.SIGTERM)
    server = Server(Swarm(config, host, environ), Wire(rx, tx, gone))
    threading.Thread(target=end_on_signal, name="signals", daemon=True).start()
    threading.Thread(target=server.swarm.watch.look_for_lost, name="lost", daemon=True).start()
    server.run()
    end()
    return 0


@subcommand("Set up", "print the entry that adds the server to a client", """\
Put the entry where the line above it says. The flags that you add are flags of the server in it.

examples:
  codex-mcp-swarm config claude
  codex-mcp-swarm config codex --max-sandbox workspace-write""",
            arg("client", metavar="CLIENT", nargs="?", choices=list(CLIENTS), help=", ".join(CLIENTS)), JSON,
            flags=True)
def command_config(typed: Typed) -> int:
    """Print the entry for a client, with the flags of the server that were given; the path of codex absolute,
    since a client starts it elsewhere. Raises: ToolError where there is none."""
    client, path = typed["client"], typed.config.codex_bin
    if client is None:
        raise UsageError(f"the command is `config CLIENT`, with one of {', '.join(CLIENTS)}")
    if typed["codex_bin"]:
        find_codex(path, typed.environ.get("PATH", os.defpath))
    words = [word for word in typed.argv if word != "--json"]
    words.remove("config")
    words.remove(client)
    words = [f"--codex-bin={path}" if word.startswith("--codex-bin=") else
             path if before == "--codex-bin" else word for before, word in zip(["", *words], words)]
    command = [*this_program(), *words]
    where, text = CLIENTS[client].place, entry_for(client, command)
    if text.startswith("{") and not typed["json"]:          # JSON has no comments
        sys.stderr.write(f"{where}. If there are servers in it already, put this one beside them.\n")
        where = ""
    typed.show({"client": client, "where": where, "entry": text, "command": command},
               *[f"# {where}"] * bool(where), text)
    return 0


@subcommand("Run tasks", "run tasks, each PROMPT one, and wait for their results", """\
The final message of a single task goes to standard output alone, of several with a heading each; what else
there is to say goes to standard error. Ctrl-C leaves the tasks running. FILE holds the arguments of the tool
codex_batch as JSON: {"tasks": [{"prompt": ...}, ...], "defaults": {...}}, or the list of tasks alone.

examples:
  codex-mcp-swarm run "Explain the build in five lines"
  codex-mcp-swarm run -w "Fix issue 12" "Fix issue 15"     two tasks, each in a worktree and branch of its own
  codex-mcp-swarm run - < prompt.md
  codex-mcp-swarm run -d --file tasks.json                 in the background; `wait ID...` for the results""",
            arg("prompts", metavar="PROMPT", nargs="*", help="what to do; `-`: it is on standard input"),
            arg("--file", help="a file of tasks; `-`: standard input"),
            arg("-w", "--worktree", action="store_true", help="each in a git worktree of its own"),
            of_tool("codex", "cwd", "-C", "--cwd", metavar="DIR"),
            of_tool("codex", "codex_home", "--account", metavar="NAME", help="one that --codex-home names"),
            *RUN_OPTIONS, DETACH, JSON, flags=True)
def command_run(typed: Typed) -> int:
    hide_words("run")
    if bool(typed["file"]) == bool(typed["prompts"]):
        raise UsageError("run needs either a PROMPT (`-`: on standard input) or --file FILE")
    if typed["prompts"] and typed["codex_homes"] and not typed["codex_home"]:
        raise UsageError(f"--codex-home only names an account: add `--account {typed['codex_homes'][0][0]}`")
    batch: Any = [{"prompt": typed_in("-") if given == "-" else given} for given in typed["prompts"]]
    if typed["file"]:
        try:
            batch = json.loads(typed_in(typed["file"]))
        except OSError as error:
            raise UsageError(said_of(error))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{typed['file']} is not JSON: {error}")
    batch = dict(batch) if isinstance(batch, dict) else {"tasks": batch}
    defaults = batch.get("defaults", {})
    if isinstance(defaults, dict):
        batch["defaults"] = {**defaults, **{name: typed[name] for name in RUN
                                            if typed[name] is not None and typed[name] is not False}}
    typed.heed_ctrl_c()
    if typed.swarm.host.linux:
        typed.swarm.host.forker = Forker(supervisor_main)
    return typed.see_through(typed.asks("codex_batch", **{**batch, "wait": True}))


@subcommand("Run tasks", "go on with what a task began: in its conversation, and its worktree", """\
examples:
  codex-mcp-swarm reply 2f9c "Now add a test for it"
  codex-mcp-swarm reply 81d0 "Unite both versions" --update-from 2f9c""",
            arg("task_id", metavar="ID"), arg("prompt", metavar="PROMPT", help="`-`: on standard input"),
            of_tool("codex_reply", "update_from", "--update-from", metavar="TASK"),
            of_tool("codex_reply", "fork", "--fork"),
            arg("-w", "--worktree", action="store_true", help="with --fork: the copy gets one of its own"),
            of_tool("codex_reply", "interrupt", "--interrupt"),
            *RUN_OPTIONS, DETACH, JSON, flags=True)
def command_reply(typed: Typed) -> int:
    hide_words("reply")
    prompt = typed_in("-") if typed["prompt"] == "-" else typed["prompt"]
    typed.heed_ctrl_c()
    return typed.see_through(typed.asks("codex_reply", prompt=prompt))


@subcommand("Run tasks", "wait for tasks that run already, and print their results", """\
It prints and ends as `run` does.

examples:
  codex-mcp-swarm wait 2f9c 81d0
  codex-mcp-swarm wait --all""", *SOME, JSON)
def command_wait(typed: Typed) -> int:
    ids = named_or_all(typed)
    if not ids:
        typed.show({"tasks": []})
        return 0
    typed.heed_ctrl_c()
    return typed.see_through(typed.asks("codex_wait", task_ids=ids))


@subcommand("Run tasks", "stop tasks, and everything that they started", """\
What they did stays: in their worktrees, committed, and in their logs.

examples:
  codex-mcp-swarm stop 2f9c
  codex-mcp-swarm stop --all""",
            *SOME, JSON)
def command_stop(typed: Typed) -> int:
    ids = named_or_all(typed)
    data = typed.asks("codex_cancel", task_ids=ids).data if ids else {"tasks": []}
    typed.show(data, *Look(sys.stdout, typed.environ).tasks(data["tasks"]))
    return 0 if all(record["state"] == State.ENDED.value for record in data["tasks"]) else 1


@subcommand("See what they do and did", "list tasks", """\
What runs, and results that nobody has seen yet; with --all whatever has ended. What runs stands first, then
what ended last. Changes are those of the worktree: of a reply with what was done there before it.

examples:
  codex-mcp-swarm ls --all          yesterday's, too
  codex-mcp-swarm ls --here         those of this repository
  codex-mcp-swarm ls --json | jq -r '.tasks[].task_id'""",
            arg("-a", "--all", action="store_true", help="those that have ended, too"),
            arg("-q", "--quiet", action="store_true", help="ids alone"),
            arg("--here", dest="cwd", action="store_const", const=".", help="only of this repository"), JSON)
def command_ls(typed: Typed) -> int:
    swarm, more = typed.swarm, ""
    if typed["all"]:
        ids = newest_ids(swarm, typed["cwd"] or "")
        data: Dict[str, Any] = {"tasks": [record_of(swarm, task_id) for task_id in ids[:LISTED_AT_ONCE]]}
        more = f"These are the newest {LISTED_AT_ONCE} alone" if len(ids) > LISTED_AT_ONCE else ""
    else:
        data = typed.asks("codex_status").data
        left = data.get("more_uncollected")
        more = f"{left} more that nobody has seen: `codex-mcp-swarm ls --all`" if left else ""
    records = data["tasks"] = in_order(data["tasks"])
    if typed["quiet"] and not typed["json"]:
        print("".join(f"{record['task_id']}\n" for record in records), end="")
    elif records or typed["json"]:
        look, facts = Look(sys.stdout, typed.environ), _when_and_where(swarm, records)
        typed.show(data, *look.tasks(records, *facts))
    else:
        more = "There is no task." if typed["all"] else \
            "No task is running; `codex-mcp-swarm ls --all` lists those that have ended."
    sys.stderr.write(f"{for_people(more)}\n" * bool(more))
    return 0


def newest_ids(swarm: Swarm, near: str = "") -> List[str]:
    """The ids of what runs, then of what ended last; more than LISTED_AT_ONCE only where there are more.
    Raises: ToolError, OSError."""
    found = swarm.lists.all("", near)
    ids = found.task_ids
    while found.cursor and len(ids) <= LISTED_AT_ONCE:
        found = swarm.lists.all(found.cursor, near)
        ids = ids + found.task_ids
    return ids


def in_order(records: Iterable[Mapping[str, Any]]) -> List[Any]:
    """What runs, in the order of starting, then what has ended, the last one first."""
    return sorted(records, key=lambda record: (-end_of(record), record.get("started_at", 0)))


def end_of(record: Mapping[str, Any]) -> float:
    return record.get("started_at", 0) + record.get("elapsed_s", 0) if "outcome" in record else FAR


def _when_and_where(swarm: Swarm, records: Sequence[Mapping[str, Any]]) -> Iterator[List[str]]:
    """How long ago each ended; and its directory, where they have more than one."""
    yield [ended_ago(record, swarm.host.now()) for record in records]
    places = []
    for record in records:
        places.append("")
        with contextlib.suppress(ToolError, *UNREADABLE):
            spec = swarm.store.get(record["task_id"]).spec()
            places[-1] = os.path.basename(spec.checkout or spec.cwd)
    if len(set(filter(None, places))) > 1:
        width = min(20, max(map(columns, places)))
        yield [fitted(place, width) for place in places]


def ended_ago(record: Mapping[str, Any], now: float) -> str:
    """`2 h ago`; nothing of one that runs."""
    if "outcome" not in record or "started_at" not in record:
        return ""
    return f"{lasting(max(0, round(now - end_of(record))))} ago"


def warning_of_removal(record: Mapping[str, Any]) -> Iterator[str]:
    tree = record.get("worktree")
    if "outcome" in record and tree and not os.path.lexists(tree["path"]):
        trash = TRASH + os.path.basename(tree["branch"])
        yield "The worktree is gone, as is its branch if that was merged; a reply makes it again from its " \
              f"branch, or from `{trash}`"


@subcommand("See what they do and did", "show what tasks do, or what became of them", """\
Outcome, final message, changed files, and what to do where it failed.

examples:
  codex-mcp-swarm show 2f9c""", IDS, JSON)
def command_show(typed: Typed) -> int:
    data, now = typed.asks("codex_status").data, typed.swarm.host.now()
    people = [{**r, "ended": ended_ago(r, now), "warnings": [*r.get("warnings", ()), *warning_of_removal(r)]}
              for r in data["tasks"]]
    typed.show(data if typed["json"] else {**data, "tasks": people})
    typed.collected(data)
    return 0


@subcommand("See what they do and did", "print what a task did, step by step", """\
Its messages, commands with the end of their output, edits, errors.

examples:
  codex-mcp-swarm logs 2f9c
  codex-mcp-swarm logs -f 2f9c              goes on until the task ends
  codex-mcp-swarm logs --raw 2f9c | jq      the events of codex""",
            arg("task_id", metavar="ID"),
            arg("-f", "--follow", action="store_true", help="go on until it ends"),
            arg("--raw", "--json", action="store_true", help="the events, one line of JSON each"))
def command_logs(typed: Typed) -> int:
    task = typed.swarm.store.get(one_named(typed.swarm.watch, typed["task_id"]))
    if task.kept_since():
        raise ToolError(EVENTS_REMOVED)
    event, cursor, ended = None, 0, False
    while not ended:                        # asked before it reads: what came last is read then, too
        ended = task.status().state is State.ENDED or not typed["follow"]
        with contextlib.suppress(FileNotFoundError):
            for event, cursor in events_from(task.file("events.jsonl"), cursor):
                line = compact(_shown_event(event, MAX_LINE_BYTES, 2 * MAX_LINE_BYTES))
                for said in [line] if typed["raw"] else event_in_words(line):
                    print(visible(said), flush=typed["follow"])
        if not ended:
            typed.swarm.wait([task.task_id], PROGRESS_GAP_S / 2, typed.call)
    if event is None:
        record = record_of(typed.swarm, task.task_id)
        how = f"{record.get('outcome') or record['state']}; {lasting(record.get('elapsed_s', 0))}"
        sys.stderr.write(f"It has done nothing yet: {how}\n" if "progress" in record else
                         f"It did nothing: {how}\n{visible(_does(record))}\n")
    return 0


def event_in_words(line: str) -> Iterator[str]:
    """An event of codex for a person; nothing of most."""
    try:
        event = json.loads(line)
        item, kind = event.get("item", event.get("error")), event.get("type")
    except (ValueError, RecursionError, AttributeError):
        item, kind = None, None
    item = item if isinstance(item, dict) else {}
    row = ITEMS.get(_text(item.get("type")))
    if kind == "item.started" and row and row.label(item):
        yield f"{VERBS[row.phase]} `{row.label(item)}`"
    elif kind == "item.completed":
        output = _text(item.get("aggregated_output")).splitlines()[-LINES_OF_OUTPUT:]
        yield from (f"  {text}" for text in output)
        if item.get("exit_code") or item.get("status") == "failed":
            yield f"  failed: exit status {item['exit_code']}" if item.get("exit_code") else "  failed"
        elif item.get("status") == "declined":
            yield "  declined: nobody approved it"
    yield from filter(None, (_text(item.get("text")), _text(item.get("message"))))
    if kind == "error":
        yield _text(event.get("message"))


@subcommand("Bring their work home", "show what a task changed", """\
examples:
  codex-mcp-swarm diff 2f9c                     lines per file
  codex-mcp-swarm diff --patch 2f9c | less
  codex-mcp-swarm diff 2f9c --against 81d0      how the results of two tasks differ""",
            arg("task_id", metavar="ID"),
            arg("--patch", action="store_true", help="the patch, as `git apply` takes it"),
            arg("--files", action="store_true", help="status per file"),
            of_tool("codex_diff", "against", "--against", metavar="TASK"),
            of_tool("codex_diff", "paths", "--path", metavar="GLOB", help="of these files alone"), JSON)
def command_diff(typed: Typed) -> int:
    if typed["patch"] and typed["files"]:
        raise UsageError("diff shows either --patch or --files")
    view = "patch" if typed["patch"] else "files" if typed["files"] else "stat"
    data = typed.asks("codex_diff", view=view).data
    if "truncated" in data:
        data = typed.swarm.diff(data["task_id"], typed["against"], view, typed["paths"] or ())
    if typed["json"] or view != "patch":
        typed.show(data)
    elif data["content"]:
        print(visible(data["content"]) if sys.stdout.isatty() else data["content"])
    return 0


@subcommand("Bring their work home", "merge the work of tasks, in this order", """\
Into a new branch, or with --into HEAD into the one that is checked out. Where they conflict it says who,
where, and what to do; nothing is merged then.

examples:
  codex-mcp-swarm merge --dry-run 2f9c 81d0     only say whether they fit together
  codex-mcp-swarm merge --into HEAD 2f9c 81d0""",
            IDS, of_tool("codex_merge", "dry_run", "--dry-run", help="only say what would be done"),
            of_tool("codex_merge", "into", "--into", metavar="BRANCH"),
            of_tool("codex_merge", "base", "--base", metavar="COMMIT"),
            of_tool("codex_merge", "squash", "--squash"),
            of_tool("codex_merge", "partial", "--partial", help="merge those before a conflict"), JSON)
def command_merge(typed: Typed) -> int:
    typed.heed_ctrl_c()
    data = typed.asks("codex_merge").data
    typed.show(data)
    return 1 if any(data.get(key) for key in ("not_merged", "conflicts", "blocked")) else 0


# The live display of `run` and `top`. What stands on it is made of records alone: records in, lines out. The
# Terminal draws lines: a frame is one write of those that have changed, and whatever happens the terminal is
# given back as it was. Watching costs a look a second at each task that runs, and stops none.
RECENT_S = 3600.0                   # how long `top` shows a task that has ended
MOVES: Mapping[str, int] = {        # what a key sends -> lines
    "k": -1, "\x1b[A": -1, "\x1bOA": -1, "j": 1, "\x1b[B": 1, "\x1bOB": 1, "\x1b[5~": -10, "\x1b[6~": 10,
    "g": -FAR, "\x1b[H": -FAR, "G": FAR, "\x1b[F": FAR}
TOP_HELP = """\
All tasks that have not ended, whoever started them; then
those that ended within the last hour. A line tells what
the task does or came to, for how long, what it changed,
and how many tokens it took.

keys:
  up, k, down, j  select a task; on a page, scroll
  PgUp, PgDn      ten lines at once
  g, G            to the first one, to the last
  Enter           show the task
  f               follow what it does
  s               stop it, once you have said yes
  q, Esc          back; q in the list ends the display"""


def cells(text: str) -> Iterator[Tuple[str, int]]:
    """The characters of a line, and how many columns of a terminal each takes. What a terminal would obey is
    a blank; what makes one emoji of two is left out: nobody knows the width of that. Source: Unicode's annex
    11, as in wcwidth(3)."""
    import unicodedata
    for c in unicodedata.normalize("NFC", re.sub("[\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]", "", text)):
        c = c if c.isprintable() else " "
        marks = unicodedata.category(c) in ("Mn", "Me")         # the character before it
        yield c, 0 if marks else 1 + (unicodedata.east_asian_width(c) in "WF")


def columns(text: str) -> int:
    return sum(wide for _, wide in cells(text))


def folded(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most so many columns, broken between words where it can be."""
    for line in text.expandtabs(4).split("\n"):
        part, used = "", 0
        for c, wide in cells(line):
            part, used = part + c, used + wide
            if used > width:
                cut = part.rfind(" ") + 1 or len(part) - 1
                yield part[:cut].rstrip()
                part = part[cut:].lstrip()
                used = columns(part)
        yield part


def fitted(text: str, width: int) -> str:
    """The text on one line of exactly so many columns, cut or filled."""
    line = [*cells(clip(text, 4 * width + 4))]
    ends = [*itertools.accumulate(wide for _, wide in line)]
    cut = [c for (c, _), end in zip(line, ends) if end < width] + ["…"]
    text = "".join(cut if ends[-1:] > [width] else [c for c, _ in line])
    return text + " " * (width - columns(text))


def overview(records: Sequence[Mapping[str, Any]], look: Look) -> List[str]:
    """The frame of `run`; where there is no room for all, what has ended is left out first."""
    room = max(1, look.size[1] - 2)
    first = sorted(records, key=lambda r: "outcome" in r)[:room] if len(records) > room else records
    more = f"; {len(records) - len(first)} are not shown" if len(first) < len(records) else ""
    return [*look.tasks(first, brief=True), fitted(tally(records) + more, look.size[0])]


class Terminal(Look):
    """A terminal that is drawn on: below the prompt, where the last frame stays, or the `whole` of it, and
    then it tells of keys. Between frames the cursor stands where they begin: there a resize leaves it. No
    line is wrapped, so none moves another. Signals only wake it: none finds it half drawn."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT,
               signal.SIGWINCH)

    def __init__(self, out: TextIO, environ: Mapping[str, str], whole: bool = False) -> None:
        super().__init__(out, environ)
        self.fd, self.whole = out.fileno(), whole
        self.lines: List[str] = []                  # as they stand there
        self.drawn = (0, 0)                         # its size when they were drawn

    def __enter__(self) -> "Terminal":
        import termios
        self.mode = termios.tcgetattr(self.fd)
        self.handlers = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.wake = wake_on(*self.SIGNALS)
        self._own(True)
        return self

    def __exit__(self, *_: Any) -> None:
        self._own(False)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for fd in (signal.set_wakeup_fd(-1), self.wake):
            os.close(fd)

    def _own(self, ours: bool) -> None:
        """Make it ours, or give it back as it was."""
        import termios
        mode, below = list(self.mode), "\x1b[?1049l" if self.whole else "\n" * len(self.lines)
        codes = below + "\x1b[?7h\x1b[?25h"
        if ours:
            mode[0] &= ~termios.IXON                # else a frame may wait for Ctrl-Q
            mode[3] &= ~(termios.ECHO | termios.ICANON * self.whole)
            codes = "\x1b[?1049h" * self.whole + "\x1b[?25l\x1b[?7l"
        with contextlib.suppress(OSError, termios.error):       # it is gone, as the next frame will tell
            self._write(codes)
            termios.tcsetattr(self.fd, termios.TCSANOW, mode)
        self.lines = []

    def _write(self, text: str) -> None:
        data = text.encode(self.out.encoding, "replace")
        while data:
            data = data[os.write(self.fd, data):]

    def draw(self, lines: Sequence[str], last: bool = False) -> None:
        """Bring these lines there, and write none that stands there; the last frame may be longer than the
        terminal."""
        up = lambda count: f"\x1b[{count}A\r" if count else "\r"
        start, end = "\x1b[H" if self.whole else "\r", "\r\n" if last else up(len(lines) - 1)
        frame = start + "\x1b[K\r\n".join(lines) + "\x1b[J" + end
        if not last and self.drawn == self.size and len(lines) == len(self.lines):
            changed = [at for at, line in enumerate(lines) if line != self.lines[at]]
            frame = "".join("\n" * at + lines[at] + "\x1b[K" + up(at) for at in changed)
        self.lines, self.drawn = [] if last else list(lines), self.size
        if frame:
            self._write(f"\x1b[?2026h{frame}\x1b[?2026l")       # where it is known it shows all at once

    def keys(self, timeout_s: float) -> List[str]:
        """What was typed; nothing after `timeout_s`, or when all is to be drawn anew. Raises:
        KeyboardInterrupt for Ctrl-C; SystemExit for another signal that ends us, and without a terminal."""
        ready = select.select([self.wake, *[0] * self.whole], [], [], timeout_s)[0]
        for number in os.read(self.wake, 100) if self.wake in ready else b"":
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            if number in (signal.SIGTSTP, signal.SIGCONT):
                self._pause(number)
            elif number != signal.SIGWINCH:
                raise SystemExit(128 + number)
        self.measure()
        if 0 not in ready:
            return []
        typed = os.read(0, 1024).decode("utf-8", "replace")
        if not typed:
            raise SystemExit(128 + signal.SIGHUP)
        return re.findall(r"\x1b[\[O][0-9;]*.|.", typed, re.S)

    def _pause(self, number: int) -> None:
        """Give it back until somebody lets us go on; who did may have changed it meanwhile."""
        self._own(False)
        if number == signal.SIGTSTP:
            handler = signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            signal.signal(number, handler)
        self._own(True)


def records_now(swarm: Swarm, task_ids: Iterable[str],
                records: Dict[str, Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The records of tasks as a display needs them. What has ended is read once: `records` keeps them."""
    for task_id in task_ids:
        if "outcome" not in records.get(task_id, {}):
            record = record_of(swarm, task_id)
            records[task_id] = {**record, "content": clip(record.get("content", ""), 400)}
    return [records[task_id] for task_id in task_ids]


def watch_live(swarm: Swarm, task_ids: Sequence[str], out: TextIO) -> List[str]:
    """Show these tasks on a terminal until all have ended, or Ctrl-C. Returns those that go on. Raises:
    SystemExit for another signal that ends us."""
    records: Dict[str, Dict[str, Any]] = {}
    running = lambda: [r["task_id"] for r in records_now(swarm, task_ids, records) if "outcome" not in r]
    with contextlib.suppress(KeyboardInterrupt), Terminal(out, swarm.environ) as terminal:
        while running():
            terminal.draw(overview([*records.values()], terminal))
            terminal.keys(PROGRESS_GAP_S)
        terminal.draw(terminal.tasks([*records.values()], brief=True), last=True)
    return running()


class Top:
    """What `top` shows, and what its keys do: a list of tasks, and over it a page of text."""

    def __init__(self, swarm: Swarm, look: Look) -> None:
        self.swarm, self.look = swarm, look
        self.records: List[Dict[str, Any]] = []
        self.known: Dict[str, Dict[str, Any]] = {}
        self.chosen = ""                            # the task that is selected
        self.page: Optional[Callable[[], str]] = None
        self.first = self.last = 0                  # the line that the page begins with, and can at most
        self.asked = self.said = ""                 # the task that a yes stops; what was done
        self.left = False
        self.keys = {"q": self.leave, "\x1b": self.close, "?": lambda: self.open(lambda: TOP_HELP),
                     "\r": self.show, "\n": self.show, "f": self.follow, "s": self.ask}

    def read(self) -> None:
        """All that have not ended, in the order of starting, then those that ended within RECENT_S, the last
        one first."""
        since = self.swarm.host.now() - RECENT_S
        live, index = self.swarm.live(), self.swarm.store.ended     # the look at the first fills the second
        ends = itertools.takewhile(lambda end: int(end[0]) > since * 1000, index.newest_first(index.text()))
        ids = dict.fromkeys([*live, *(task_id for _, task_id in ends)])
        found = records_now(self.swarm, ids, self.known)
        self.records = in_order(record for record in found if end_of(record) > since)

    @property
    def at(self) -> int:
        """Which record is selected."""
        ids = [record["task_id"] for record in self.records]
        return ids.index(self.chosen) if self.chosen in ids else 0

    def frame(self) -> List[str]:
        width, height = self.look.size
        room, foot = max(1, height - 2), "Enter show · f follow · s stop · ? help · q quit"
        if self.page:
            lines, foot = list(folded(clip_middle(self.page(), RESULT_CHARS), width)), "j, k scroll · q back"
            self.last = max(0, len(lines) - room)
            lines = lines[max(0, min(self.first, self.last)):]
        else:
            first = max(0, min(self.at - room // 2, len(self.records) - room))
            lines = self.look.tasks(self.records[first:first + room], brief=True)
            lines = lines or ["No task runs, and none ended within the last hour."]
            lines[self.at - first] = f"\x1b[7m{lines[self.at - first]}\x1b[27m"
        if self.asked:
            foot = f"Stop task {self.asked}? y: yes, any other key: no"
        head = f"codex-mcp-swarm: {tally(self.records) or 'no task'}"
        return [f"\x1b[1m{fitted(head, width)}\x1b[22m", *(lines + [""] * room)[:room],
                f"\x1b[2m{fitted(self.said or foot, width)}\x1b[22m"]

    def press(self, key: str) -> None:
        asked, self.asked, self.said = self.asked, "", ""
        self.chosen = self.records[self.at]["task_id"] if self.records else ""
        if asked:
            if key in "yY":
                self.swarm.stop([asked])
                self.said = f"Task {asked} was asked to stop"
        elif key in MOVES:
            self.move(MOVES[key])
        elif key in self.keys and (self.chosen or key in "q\x1b?"):
            self.keys[key]()

    def move(self, lines: int) -> None:
        if self.page:
            self.first = max(0, min(self.first, self.last)) + lines
        elif self.records:
            self.chosen = self.records[max(0, min(self.at + lines, len(self.records) - 1))]["task_id"]

    def leave(self) -> None:
        self.left = self.page is None
        self.close()

    def close(self) -> None:
        self.page = None

    def open(self, page: Callable[[], str], first: int = 0) -> None:
        """`first`: FAR stays at the end."""
        self.page, self.first, self.last = page, first, first

    def show(self) -> None:
        task_id = self.chosen
        self.open(lambda: render(for_people({"tasks": [record_of(self.swarm, task_id)]})))

    def follow(self) -> None:
        """The last of what it did, in words."""
        task = TaskDir(os.path.join(self.swarm.store.tasks, self.chosen))
        lines = lambda: map(event_in_words, task.tail("events.jsonl", 1 << 20).split("\n"))
        self.open(lambda: "\n".join(itertools.chain(*lines())) or "Nothing yet", FAR)

    def ask(self) -> None:
        ended = "outcome" in self.records[self.at]
        self.asked, self.said = ("", "It has ended") if ended else (self.chosen, "")


@subcommand("See what they do and did", "watch all tasks live, stop, show and follow them", TOP_HELP)
def command_top(typed: Typed) -> int:
    """Raises: ToolError where there is no terminal."""
    if not (os.isatty(0) and Look(sys.stdout, typed.environ).draws()):
        raise ToolError("`top` draws on a terminal, and this is none", "",
                        "`ls` says once what it shows; `ls --json` says it to a program")
    clock, read_at = typed.swarm.host.monotonic, 0.0
    with contextlib.suppress(KeyboardInterrupt), Terminal(sys.stdout, typed.environ, whole=True) as terminal:
        shown = Top(typed.swarm, terminal)
        while not shown.left:
            if clock() >= read_at:
                shown.read()
                read_at = clock() + PROGRESS_GAP_S
            terminal.draw(shown.frame())
            for key in terminal.keys(max(0.0, read_at - clock())):
                shown.press(key)
    return 0


# The demonstration is a story: three tasks at once, of which two change the same line. It types the commands
# that anybody would, in a repository that is thrown away, with the real codex where there is one.
DEMO_STORY = "The quick brown fox jumps over the lazy dog."
DEMO_PROMPTS = ("In story.txt replace the word `brown` by `red`. Change nothing else.",
                "Write a file moral.txt with the moral of story.txt in one sentence.",
                "In story.txt replace the word `brown` by `grey`. Change nothing else.")
STAND_IN = """#!/bin/sh
[ "$1" = --version ] && exec echo codex-cli 0.169.0
prompt=$(cat)
echo '{"type": "thread.started", "thread_id": "00000000-0000-7000-8000-'$(printf %012x $$)'"}'
echo '{"type": "item.started", "item": {"id": "1", "type": "command_execution", "command": "cat story.txt"}}'
sleep $(($$ % 3 + 1))
case $prompt in
    *red*) sed s/brown/red/ story.txt > new && mv new story.txt ;;
    *grey*) sed s/brown/grey/ story.txt > new && mv new story.txt ;;
    *) echo 'Who is quick need not be careful.' > moral.txt ;;
esac
echo '{"type": "item.completed", "item": {"id": "2", "type": "agent_message", "text": "(a stand-in)"}}'
echo '{"type": "turn.completed", "usage": {}}'
"""


@subcommand("Set up", "tell a story of three tasks, two of which collide", """\
Three tasks work at once in a throw-away repository, each in a worktree of its own. Two change the same line:
you see it before anything is merged, and what to do. Your codex does the work, which uses your account; where
there is none that could, a stand-in takes its place. Nothing of it stays but what codex
keeps of its threads.""", flags=True)
def command_demo(typed: Typed) -> int:
    """Whatever ends it ends its tasks. Killed itself it leaves them in ROOT, where every server sees them and
    can stop them. Returns 0 when all succeeded. Raises: ToolError; OSError."""
    import tempfile
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="codex-swarm-demo-") as place:
        codex, why = Doctor(typed.swarm.bounds).ready()
        print(f"{codex} does the work (this uses your account)." if codex else
              f"{why}\nA STAND-IN that only pretends to work takes its place.", flush=True)
        if not codex:
            with open(os.open(os.path.join(place, "codex"), os.O_WRONLY | os.O_CREAT, 0o700), "w") as f:
                f.write(STAND_IN)
        plain = typed.config._replace(codex_bin=codex or os.path.join(place, "codex"), worktree_setup="",
                                      merge_verify="", max_sandbox="", allow_roots=())
        swarm = Swarm(plain, typed.swarm.host, typed.environ)
        repo = _demo_repository(swarm, place)
        try:
            status = _tell_demo(swarm, repo)
        finally:
            _forget_demo(swarm, repo)
    if status == 0:
        print(f"\n3 of 3 {'succeeded' if codex else 'pretended to succeed'}. In a client you only say what "
              "you want: its model makes such calls.")
    if not codex:
        print("A STAND-IN did this: no model was asked.\n"
              "Next: `npm install -g @openai/codex` unless it is there, `codex login`, and this demo again.")
    others = ", ".join(filter("claude".__ne__, CLIENTS))
    print(for_people(f"`codex-mcp-swarm config CLIENT` prints the entry for {others}.\n")
          + f"For Claude Code, paste this in your project:\n\n    {entry_for('claude', this_program())}")
    return status


def _demo_repository(swarm: Swarm, place: str) -> str:
    """Raises: GitError, OSError."""
    repo = os.path.join(place, "repository")
    os.mkdir(repo)
    with open(os.path.join(repo, "story.txt"), "w") as f:
        f.write(DEMO_STORY + "\n")
    at = swarm.git.at(repo)
    for words in ("init -q", "config user.name demo", "config user.email demo@localhost", "add story.txt",
                  "commit -q -m Story"):
        at(*words.split())
    return repo


def _tell_demo(swarm: Swarm, repo: str) -> int:
    """Who collides, what fits, how the rest is united. Returns 0 when all succeeded."""
    count = re.compile(r"\d+ of \d+ done[^;]*; ")        # of those that are left
    last = ""

    def tell(text: str, *_: int) -> None:
        nonlocal last
        before, last = last, visible(count.sub("", text, 1))
        if last != before:                              # each further wait begins with what is known
            print(f"  {last}", flush=True)
    call = Call(tell=tell)

    def play(*words: str) -> int:
        print(f"\n$ codex-mcp-swarm {shell_words(words)}", flush=True)
        typed = configure(words, swarm.environ)
        typed.config, typed.call = swarm.config, call
        return COMMANDS[words[0]].run(typed)
    print(f"In a throw-away repository story.txt says `{DEMO_STORY}`\n"
          "Three tasks at once, each in a worktree:")
    status = play("run", "-w", "-C", repo, "--timeout", "300", *DEMO_PROMPTS)
    if status:
        print("Stopped, with the three tasks." * call.cancelled)
        return status
    records = sorted(map(swarm.record, newest_ids(swarm, repo)), key=lambda record: record["started_at"])
    task_ids = [record["task_id"] for record in records]
    print("\nEach has committed its work on a branch of its own. Do they fit together?")
    play("merge", "--dry-run", *task_ids)
    fitting = codex_merge(swarm, {"task_ids": task_ids, "dry_run": True}, call).data.get("fitting", task_ids)
    print("\nThose that fit go into the branch that is checked out:")
    play("merge", "--into", "HEAD", *fitting)
    if len(fitting) < len(task_ids):
        print("\nThe last one is united by its own Codex, which gets both versions from the `reply` above; "
              "then it merges, too.")
    return 0


def _forget_demo(swarm: Swarm, repo: str) -> None:
    """Stop its tasks, and remove what would outlive the repository: their worktrees and records."""
    task_ids = newest_ids(swarm, repo)
    swarm.stop(task_ids)
    swarm.wait(task_ids, CANCEL_WAIT_S, Call())
    swarm.unended()                         # which takes them out of the index of those that have not
    for task_id in task_ids:
        Trees(swarm.git).discard(repo, os.path.join(swarm.config.worktree_dir, task_id), "")
        task = swarm.store.get(task_id)
        with swarm.store.locked(task.file("lock"), fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
            if mine:
                task.remove()


@subcommand("See what they do and did", "sum up tasks, or write a page about them", """\
Those that are named, or all of the last 24 hours. The page shows when each ran, how it ended, its tokens, its
final message and what it changed; it is one file that loads nothing from anywhere.

examples:
  codex-mcp-swarm report --html report.html""",
            arg("task_ids", metavar="ID", nargs="*"),
            arg("--html", metavar="FILE", help="write a page for a browser"), JSON)
def command_report(typed: Typed) -> int:
    swarm, since = typed.swarm, time.time() - REPORT_S
    young = lambda task_id: modified_at(swarm.store.get(task_id).file("spec.json")) > since
    ids = all_named(swarm, typed["task_ids"]) if typed["task_ids"] else \
        [*itertools.takewhile(young, swarm.store.ids())][:LISTED_AT_ONCE]
    if not ids:
        raise ToolError("No task was started in the last 24 hours", "",
                        "`codex-mcp-swarm ls --all` lists older ones: name those")
    shown = cards(swarm, ids, REPORT_CHARS // len(ids) if typed["html"] else 0)
    records = [card.record for card in shown]
    data: Dict[str, Any] = {"summary": account(records), "tasks": records}
    lines = Look(sys.stdout, typed.environ).tasks(records)
    if typed["html"]:
        with open(os.path.expanduser(typed["html"]), "w", encoding="utf-8", errors="replace") as f:
            f.write(web_page(shown))
        data["page"] = os.path.abspath(f.name)
        lines = [f"The page is {data['page']}"]
    typed.show(data, data["summary"], *lines)
    return 0


@subcommand("Set up", "say what tasks stand on, what is broken there, and what to do", """\
Codex and its login and sandbox, git, the task directory, free space, and which clients start this server.
Nothing is changed. The exit status is 1 when something is broken.

examples:
  codex-mcp-swarm doctor
  codex-mcp-swarm doctor --json | jq '.findings[] | select(.health != "ok")'""", JSON, flags=True)
def command_doctor(typed: Typed) -> int:
    import textwrap
    findings, look = typed.swarm.doctor(), Look(sys.stdout, typed.environ)
    lines = []
    for one in findings:
        mark = look.mark(one.health.value) or f"{one.health.value:9}"
        width, indent = max(30, look.size[0] - 24), "\n" + " " * (24 if look.marks else 31)
        said = [for_people(visible(part)) for part in (one.what, one.fix) if part]
        parts = [textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) for text in said]
        lines.append(f"{mark}{one.name:22}{indent.join(itertools.chain(*parts))}")
    typed.show({"findings": [*map(to_json, findings)]}, *lines)
    return int(any(one.health is Health.BROKEN for one in findings))


@subcommand("Bring their work home", "remove what ended long ago, and say why the rest is kept", """\
Of all repositories, wherever it is typed. Nothing goes that is not in a commit. It needs the same variables
as the server.

examples:
  codex-mcp-swarm sweep --dry-run
  codex-mcp-swarm sweep --merged        what is in HEAD already goes now, squashed or not""",
            arg("--dry-run", action="store_true", help="only say what would be removed"),
            arg("--merged", action="store_true",
                help="also remove young worktrees, with their branches, of which HEAD has all"),
            arg("--ignored", action="store_true",
                help="also remove worktrees in which ignored files were made, with those files"), JSON)
def command_sweep(typed: Typed) -> int:
    """Remove what is old and say what was done with everything, also when nobody listens any more. Returns 0.
    Raises: ToolError or OSError when ROOT cannot be swept."""
    config, dry, swept = typed.config, typed["dry_run"], []      # type: Config, bool, List[Swept]
    things = typed.swarm.sweep(dry, typed["ignored"], typed["merged"])
    if typed["json"]:
        typed.show({"dry_run": dry, "swept": [thing._asdict() for thing in things]})
        return 0

    def say(*lines: str) -> None:
        try:
            print(visible(legible("\n".join(lines))), flush=True)
        except BrokenPipeError:                 # `| head`: who reads has had enough, the sweep goes on
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    age_s, answers_s = config.task_max_age_s, config.result_max_age_s
    answers_s = max(age_s, answers_s) if age_s and answers_s else 0.0       # never before the rest
    kept, answers_kept = (f"for {lasting(each)}" if each else "for ever" for each in (age_s, answers_s))
    empty = "" if os.path.isdir(config.root) else ", where nothing was ever run"
    say(f"Tasks in {config.root} (CODEX_SWARM_TASK_DIR){empty}, kept {kept} (CODEX_SWARM_TASK_MAX_AGE), "
        f"their answers {answers_kept} (CODEX_SWARM_RESULT_MAX_AGE)")
    words = ("keep", "would remove" if dry else "removed")
    for thing in things:
        swept.append(thing)
        notes = [f"tasks {', '.join(thing.task_ids)}"] * (len(thing.task_ids) > 1) + [*thing.notes]
        say(f"{words[thing.removed]:12} {thing.bytes / 1e6:9.1f} MB {lasting(thing.age_s):>7}  {thing.path}",
            *(" " * 15 + for_people(note) for note in notes))
    sizes = [[thing.bytes for thing in swept if thing.removed is gone] for gone in (True, False)]
    say("; ".join(f"{word}: {len(some)}, {sum(some) / 1e6:.1f} MB"
                  for word, some in zip((words[1], "kept"), sizes)))
    return 0


FOR_BASH = """\
_codex_mcp_swarm() {
  local known="$(codex-mcp-swarm completion bash --behind "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)"
  COMPREPLY=($(compgen -W "$known" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _codex_mcp_swarm codex-mcp-swarm"""
SHELLS: Mapping[str, str] = {
    "bash": FOR_BASH,
    "zsh": f"autoload -U +X compinit bashcompinit && compinit && bashcompinit\n{FOR_BASH}",
    "fish": "complete -c codex-mcp-swarm -f -a "
            "'(codex-mcp-swarm completion fish --behind (commandline -opc)[2..] 2>/dev/null)'"}


@subcommand("Set up", "print what makes a shell complete commands, flags and ids", """\
examples:
  source <(codex-mcp-swarm completion bash)           in ~/.bashrc
  source <(codex-mcp-swarm completion zsh)            in ~/.zshrc
  codex-mcp-swarm completion fish | source            in ~/.config/fish/config.fish""",
            arg("shell", metavar="SHELL", choices=list(SHELLS), help=", ".join(SHELLS)),
            arg("--behind", metavar="WORD", nargs="...", help="print what may follow these words"))
def command_completion(typed: Typed) -> int:
    words = typed["behind"]
    print(SHELLS[typed["shell"]] if words is None else "\n".join(may_follow(typed.swarm, words)))
    return 0


def may_follow(swarm: Swarm, words: Sequence[str]) -> Iterator[str]:
    """The words that may stand behind these; nothing where a file may, or what nobody can know."""
    row = next((COMMANDS[word] for word in words if word in COMMANDS), None)
    arguments = (*(row.arguments if row else ()), *(SERVER_FLAGS if not row or row.flags else ()))
    last = "".join([word for word in words if word != "="][-1:])        # bash makes three words of --flag=x
    wanted = [how for names, how in arguments if last in names and how.get("action", "append") == "append"]
    for how in wanted or [how for names, how in arguments if not names[0].startswith("-")]:
        meant = how.get("metavar")
        named = newest_ids(swarm) if meant in ("ID", "TASK") else COMMANDS if meant == "COMMAND" else ()
        yield from how.get("choices", named)
    if not wanted:
        yield from () if row else (*COMMANDS, "--version")
        yield from (name for names, _ in arguments for name in names if name.startswith("-"))
        yield "--help"


@subcommand("Set up", "tell how a command is used, with examples", """\
examples:
  codex-mcp-swarm help run          the same as `codex-mcp-swarm run --help`
  codex-mcp-swarm help              all commands, flags and variables""",
            arg("command", metavar="COMMAND", nargs="?"))
def command_help(typed: Typed) -> int:
    """Raises: UsageError for what is no command; SystemExit when it is told."""
    configure([*filter(None, [typed["command"]]), "--help"], {})
    return 0


def main() -> NoReturn:
    """The program. The process ends with it, wherever its threads are: one that wakes while the interpreter
    is taken down has aborted a command that was done (Python 3.8)."""
    status = run_typed(sys.argv[1:], os.environ)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def run_typed(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what was typed. Returns the exit status, one of EXIT_STATUSES. Raises: SystemExit for --help."""
    typed = None
    claim_standard_descriptors()
    try:
        typed = configure(argv, environ)
        if typed.row is None and not os.isatty(0):
            return serve(typed.config, environ)
        own_signals()
        sys.stdout.reconfigure(errors="backslashreplace")     # type: ignore[union-attr]  # names are bytes
        sys.stderr.reconfigure(line_buffering=True)     # type: ignore[union-attr]  # as from 3.9 on
        status = typed.row.run(typed) if typed.row else welcome()
        sys.stdout.flush()
        return status
    except UsageError as error:
        sys.stderr.write(f"codex-mcp-swarm: {visible(for_people(clip(error.what, 500)))}\n")
        return 2
    except KeyboardInterrupt:
        if typed:
            typed.swarm.host.end_what_hangs()
        return 130
    except (ToolError, OSError) as error:
        in_file = typed.in_file() if typed else ()
        said = said_of(error) if isinstance(error, OSError) else for_people(str(error), in_file=in_file)
        if not isinstance(error, BrokenPipeError):          # `| head`: who reads has had enough
            sys.stderr.write(f"codex-mcp-swarm: {visible(said)}\n")
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # what is still in the buffer goes nowhere
        if isinstance(error, WrongArgument):
            return 2
    return 130 if typed and typed.call.cancelled else 1


def welcome() -> int:
    """Who starts it by hand, on a terminal."""
    entry = entry_for("claude", this_program())
    print(f"codex-mcp-swarm {__version__}\n\n{ABOUT} For Claude Code:\n\n    {entry}\n")
    print(for_people(WELCOME))
    return 0


if __name__ == "__main__":
    main()
