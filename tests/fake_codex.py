"""A stand-in for the `codex` binary of version 0.169.0, for tests that need no model.

It reads its command line as strictly as the real one and speaks the same JSONL, stderr and exit codes (all
seen with the real binary). What a run does is written in its prompt, one directive per line; every other line
is only text:

    SAY text             the final message (default: `echo: ` and the start of the prompt)
    TELL text            a message before the final one
    MESSAGE n            a final message of exactly n characters, varied and never repeating
    ARGV                 the final message is JSON: argv, cwd, config, environment, length and digest of the
                         prompt
    RECALL               in a resumed thread: the final message lists the earlier prompts
    SLEEP s              wait
    WAITFILE path        wait until the path exists, at most 300 s
    SHELL cmd            really run a command, in a session of its own as codex does
    WRITE path text      write a file below the working directory
    LINES n / FLOOD mb   n small items / items of 1 MB until mb MB are out
    RECONNECT n          n `error` events that are not failures
    STDERR text          a line on stderr
    ORPHAN pidfile       leave a sleeper behind: double fork, own session, empty environment
    STUBBORN             from here on ignore SIGINT and SIGTERM
    FAIL message         `error` and `turn.failed`, exit 1
    EXIT n / CRASH sig   end at once with that status / by that signal
    SILENT               exit 0 without `turn.completed`
    BOTH                 `turn.completed`, then exit 3
    PLAY name            replay recordings/NAME.* byte for byte instead of everything above

Threads are kept in $FAKE_CODEX_HOME, one JSON file each; without it nothing is kept and nothing can be
resumed. The rollout of a kept thread is where codex has it, with what a turn began under; without a word
about the sandbox that is $FAKE_CODEX_SANDBOX, else workspace-write as for a trusted directory.
"""
import _signal as signal
import fcntl
import posix as os              # what `os` adds to it takes a sixth of a short run to import
import sys
import time
from _json import encode_basestring

VERSION = "0.169.0"
MAX_PROMPT_CHARS = 1048576
WAITFILE_LIMIT_S = 300
HERE = __file__.rpartition("/")[0]
ENVIRON = {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
           for name, value in os.environ.items()}
SANDBOXES = ("read-only", "workspace-write", "danger-full-access")

# ----------------------------------------------------------------------------------------------------
# The command line: (long, short, value name or None, repeatable)
# ----------------------------------------------------------------------------------------------------
EVERYWHERE = [
    ("config", "c", "key=value", True), ("enable", "", "FEATURE", True), ("disable", "", "FEATURE", True),
    ("strict-config", "", None, False), ("image", "i", "FILE", True), ("model", "m", "MODEL", False),
    ("dangerously-bypass-approvals-and-sandbox", "", None, False),
    ("dangerously-bypass-hook-trust", "", None, False), ("worktree", "", None, False),
    ("thread-source", "", "SOURCE", False), ("cyber-access-program", "", "PROGRAM", False),
    ("skip-git-repo-check", "", None, False), ("trust", "", None, False), ("ephemeral", "", None, False),
    ("ignore-user-config", "", None, False), ("ignore-rules", "", None, False),
    ("output-schema", "", "FILE", False),
    ("json", "", None, False), ("output-last-message", "o", "FILE", False), ("help", "h", None, False),
    ("version", "V", None, False),
]
EXEC_ONLY = [
    ("oss", "", None, False), ("local-provider", "", "OSS_PROVIDER", False),
    ("profile", "p", "CONFIG_PROFILE_V2", False),
    ("sandbox", "s", "SANDBOX_MODE", False), ("approve-for-me", "", None, False), ("cd", "C", "DIR", False),
    ("add-dir", "", "DIR", True), ("color", "", "COLOR", False),
]
RESUME_ONLY = [("last", "", None, False), ("all", "", None, False)]
REVIEW_ONLY = [("uncommitted", "", None, False), ("base", "", "BRANCH", False), ("commit", "", "SHA", False),
               ("title", "", "TITLE", False)]
OWN = {"exec": EXEC_ONLY, "resume": RESUME_ONLY, "fork": RESUME_ONLY, "review": REVIEW_ONLY}
USAGE = {
    "exec": "Usage: codex exec [OPTIONS] [PROMPT]\n       codex exec [OPTIONS] <COMMAND> [ARGS]",
    "resume": "Usage: codex exec resume [OPTIONS] [SESSION_ID] [PROMPT]",
    "fork": "Usage: codex exec fork [OPTIONS] <SESSION_ID> [PROMPT]",
    "review": "Usage: codex exec review [OPTIONS] [PROMPT]",
}
VALUES = {"sandbox": SANDBOXES, "color": ("always", "never", "auto")}


def exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def make_folder_of(path):
    folder = path.rpartition("/")[0]
    if folder and not exists(folder):
        make_folder_of(folder)
        try:
            os.mkdir(folder)
        except FileExistsError:             # another one was faster
            pass


def die(status, text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
    os._exit(status)


def clap_error(what, usage=""):
    die(2, "error: " + what + ("\n\n" + usage if usage else "") + "\n\nFor more information, try '--help'.")


def parse(args):
    """(command, options, positionals); exits 2 with clap's words on anything that the real parser refuses."""
    command, options, words, i, literal = "exec", {}, [], 0, False
    while i < len(args):
        arg, i = args[i], i + 1
        if arg == "--" and not literal:
            literal = True
        elif literal or arg == "-" or not arg.startswith("-"):
            if command == "exec" and not words and not literal and arg in USAGE:
                command = arg
            else:
                words.append(arg)
        else:
            i = parse_flag(command, options, arg, args, i)
    targets = [name for name in ("uncommitted", "base", "commit") if name in options]
    if command == "review" and len(targets + words) > 1:
        clap_error("the argument '--%s' cannot be used with other targets" % targets[0], USAGE[command])
    limit = 2 if command in ("resume", "fork") else 1
    if len(words) > limit:
        clap_error("unexpected argument '%s' found" % words[limit], USAGE[command])
    return command, options, words


def parse_flag(command, options, arg, args, i):
    """Take one flag and its value; the index of the next argument."""
    rows = EVERYWHERE + OWN[command]
    if arg.startswith("--"):
        name, joined, value = arg[2:].partition("=")
        row = next((r for r in rows if r[0] == name), None)
        shown = "--" + name
    else:
        row = next((r for r in rows if r[1] == arg[1]), None)
        shown, value = arg[:2], arg[2:]
        joined, value = bool(value), value[1:] if value.startswith("=") else value
    if row is None or (row[2] is None and joined):
        clap_error("unexpected argument '%s' found\n\n  tip: to pass '%s' as a value, use '-- %s'"
                   % (shown, shown, shown), USAGE[command])
    name, _, value_name, repeatable = row
    if value_name is None:
        value = True
    elif not joined:
        if i >= len(args) or (args[i].startswith("-") and args[i] != "-"):
            clap_error("a value is required for '--%s <%s>' but none was supplied" % (name, value_name))
        value, i = args[i], i + 1
    if name in options and not repeatable:
        clap_error("the argument '--%s%s' cannot be used multiple times"
                   % (name, " <%s>" % value_name if value_name else ""), USAGE[command])
    if name in VALUES and value not in VALUES[name]:
        clap_error("invalid value '%s' for '--%s <%s>'\n  [possible values: %s]"
                   % (value, name, value_name, ", ".join(VALUES[name])))
    options.setdefault(name, []).append(value)
    return i


def show_help(command):
    print("Run Codex non-interactively\n\n%s\n\nCommands:" % USAGE[command])
    print("  resume  Resume a session\n  fork    Fork a session\n  review  Run a code review\n\nOptions:")
    for name, short, value_name, _ in EVERYWHERE + OWN[command]:
        print("  %s--%s%s"
              % ("-%s, " % short if short else "    ", name, " <%s>" % value_name if value_name else ""))


# ----------------------------------------------------------------------------------------------------
# Configuration: as much of TOML as it takes to notice a value that is not the string it should be
# ----------------------------------------------------------------------------------------------------
STRING_KEYS = ("model", "model_provider", "model_reasoning_effort", "model_reasoning_summary",
               "model_verbosity",
               "sandbox_mode", "instructions", "developer_instructions", "compact_prompt", "review_model")


def toml(text):
    """The value of a `-c` override. Like codex: what is not TOML is the raw text itself."""
    import json
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == "'" and "'" not in text[1:-1]:
        return text[1:-1]
    for convert in (json.loads, lambda t: int(t, 0), float):
        try:
            value = convert(text)
        except (ValueError, RecursionError):
            continue
        return text if value is None else value
    return text.strip("\"'")


def read_config(options):
    config = {}
    for override in options.get("config", []):
        key, equals, value = override.partition("=")
        if not equals:
            die(1, "Error parsing -c overrides: Invalid override (missing '='): " + override)
        config[key] = toml(value)
    for key, file_key in (("instructions", "model_instructions_file"),
                          ("compact_prompt", "experimental_compact_prompt_file")):
        if file_key in config:
            with open(config[file_key], encoding="utf-8", newline="") as f:
                config[key] = f.read()
    for key in STRING_KEYS:
        if key in config and not isinstance(config[key], str):
            die(1, "Error loading config.toml: invalid type: %s `%s`, expected a string\nin `%s`\n"
                % (type(config[key]).__name__, config[key], key))
    if config.get("sandbox_mode", SANDBOXES[0]) not in SANDBOXES:
        die(1, "Error loading config.toml: unknown variant `%s`, expected one of %s\nin `sandbox_mode`\n"
            % (config["sandbox_mode"], ", ".join("`%s`" % s for s in SANDBOXES)))
    if config.get("approval_policy") == "untrusted":
        die(1, 'Error: approval_policy = "untrusted" is no longer supported; remove this setting')
    return config


# ----------------------------------------------------------------------------------------------------
# Threads: what a later resume remembers
# ----------------------------------------------------------------------------------------------------
USAGE_OF_A_TURN = {"input_tokens": 100, "cached_input_tokens": 10, "cache_write_input_tokens": 0,
                   "output_tokens": 20,
                   "reasoning_output_tokens": 5}


class Thread:
    """One conversation: its id, its earlier prompts, and the usage that codex counts up over its whole
    life."""

    def __init__(self, thread_id, resumed, kept):
        self.id, self.resumed, self.prompts, self.usage = thread_id, resumed, [], {}
        home = ENVIRON.get("FAKE_CODEX_HOME")
        self.path = "%s/%s.json" % (home, thread_id) if home and kept else None

    @classmethod
    def new(cls, kept):
        """UUIDv7: 48 bits of milliseconds, then chance."""
        digits = "%012x7%s8%s" % (int(time.time() * 1000), os.urandom(2).hex()[:3], os.urandom(8).hex()[:15])
        return cls("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])), False,
                   kept)

    @classmethod
    def resume(cls, thread_id):
        """The stored thread. A name that is no UUID silently starts a new thread, as in codex."""
        if [len(part) for part in thread_id.split("-")] != [8, 4, 4, 4, 12]:
            return cls.new(True)
        thread = cls(thread_id.lower(), True, True)
        if thread.path is None or not exists(thread.path):
            die(1,
                "Error: thread/resume: thread/resume failed: no rollout found for thread id %s (code -32600)"
                % thread_id)
        import json
        with open(thread.path, encoding="utf-8") as f:
            stored = json.load(f)
        thread.prompts, thread.usage = stored["prompts"], stored["usage"]
        return thread

    @classmethod
    def fork(cls, thread_id, kept):
        """A new thread with what the stored one holds; another process may be writing that one."""
        old, new = cls.resume(thread_id), cls.new(kept)
        new.resumed, new.prompts, new.usage = True, old.prompts, old.usage
        return new

    def lock(self):
        """Hold the thread for as long as this process lives: codex allows one writer."""
        if self.path:
            make_folder_of(self.path)
            self.held = open(self.path + ".lock", "w")
            try:
                fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                die(1,
                    "Error: thread/resume: thread/resume failed: "
                    "thread %s already has an active writer (code -32600)" % self.id)

    def save(self, prompt):
        if self.path:
            with open(self.path + ".new", "w", encoding="utf-8", errors="backslashreplace") as f:
                f.write(dumps({"prompts": self.prompts + [prompt], "usage": self.usage}))
            os.rename(self.path + ".new", self.path)

    def note(self, config, options):
        """Begin a turn in the rollout."""
        if self.path:
            now = time.time()
            sandbox = options.get("sandbox",
                                  [config.get("sandbox_mode",
                                              ENVIRON.get("FAKE_CODEX_SANDBOX", SANDBOXES[1]))])[0]
            turn = {"model": options.get("model", [config.get("model", "gpt-5.5")])[0],
                    "sandbox_policy": {"type": sandbox}}
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
            home = ENVIRON.get("CODEX_HOME") or ENVIRON["HOME"] + "/.codex"
            path = "%s/sessions/2026/11/21/rollout-2026-11-21T10-00-00-%s.jsonl" % (home, self.id)
            make_folder_of(path)
            with open(path, "a") as f:
                f.write(dumps({"timestamp": stamp, "type": "turn_context", "payload": turn}) + "\n")

    def count_turn(self):
        self.usage = {key: n + self.usage.get(key, 0) for key, n in USAGE_OF_A_TURN.items()}


# ----------------------------------------------------------------------------------------------------
# Output
# ----------------------------------------------------------------------------------------------------
def dumps(value):
    """As `json.dumps`. To import `json` takes longer than all that a short run does; so does `signal`."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        return "{%s}" % ",".join('%s:%s' % (encode_basestring(key), dumps(of)) for key, of in value.items())
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(map(dumps, value))
    if value is None or isinstance(value, bool):
        return {None: "null", False: "false", True: "true"}[value]
    return str(value)


def write_all(fd, data):
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view):]
    except OSError as e:                                       # codex panics when its stdout is gone or full
        die(101, "thread 'main' panicked: failed printing to stdout: %s" % e.strerror)


class Stream:
    """stdout as `exec --json` writes it: an object a line, flushed at once. Silent without `--json`."""

    def __init__(self, as_json):
        self.as_json, self.items = as_json, 0

    def event(self, kind, **members):
        if self.as_json:
            line = dumps(dict({"type": kind}, **members))
            write_all(1, line.encode("utf-8", "replace") + b"\n")

    def item(self, kind, started=None, **members):
        """One item, completed at once; with `started` only its beginning. Returns its id, for `completed`."""
        item_id, self.items = "item_%d" % self.items, self.items + 1
        if started is not None:
            self.event("item.started", item=dict({"id": item_id, "type": kind}, **started))
        else:
            self.completed(item_id, kind, **members)
        return item_id

    def completed(self, item_id, kind, **members):
        self.event("item.completed", item=dict({"id": item_id, "type": kind}, **members))


def message(n):
    """Exactly n characters, deterministic, no two lines alike; quotes, escapes and non-ASCII in every one of
    them."""
    lines, length, i = [], 0, 0
    while length < n:
        lines.append('%d "quoted" \\ back\tslash, \u00e4\u00f6 \u20ac \u6f22\u5b57 \U0001f41d \u2028 %x\n'
                     % (i, i * i * 2654435761))
        length, i = length + len(lines[-1]), i + 1
    return "".join(lines)[:n]


# ----------------------------------------------------------------------------------------------------
# The turn
# ----------------------------------------------------------------------------------------------------
class Turn:
    def __init__(self, stream, thread, prompt, facts):
        self.stream, self.thread, self.prompt, self.facts = stream, thread, prompt, facts
        self.text = "echo: " + prompt[:80]
        # process groups of tool commands, killed when the turn ends
        self.groups = []
        signal.signal(signal.SIGINT, self.interrupted)

    def interrupted(self, *_):
        self.kill_groups()
        os._exit(1)

    def kill_groups(self):
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                pass

    def run(self):
        for line in self.prompt.split("\n"):
            word, _, rest = line.partition(" ")
            if word in DIRECTIVES:
                getattr(self, "do_" + word.lower())(rest.strip())
        self.say()
        self.complete()
        self.end(0)

    def say(self):
        self.stream.item("agent_message", text=self.text)
        path = self.facts["options"].get("output-last-message")
        if path:
            with open(path[0], "w", encoding="utf-8") as f:
                f.write(self.text)

    def complete(self):
        self.thread.count_turn()
        self.thread.save(self.prompt)
        self.stream.event("turn.completed", usage=self.thread.usage)

    def end(self, status):
        self.kill_groups()
        sys.stderr.flush()
        os._exit(status)

    # -- one method per directive ------------------------------------------------------------------
    def do_say(self, text):
        self.text = text

    def do_tell(self, text):
        self.stream.item("agent_message", text=text)

    def do_message(self, n):
        self.text = message(int(n))

    def do_argv(self, _):
        import hashlib
        import json
        shown = {k: v for k, v in ENVIRON.items() if k.startswith(("CODEX", "FAKE", "TEST"))}
        digest = hashlib.sha256(self.prompt.encode("utf-8")).hexdigest()
        self.text = json.dumps(
            dict(self.facts, argv=sys.argv[1:], cwd=os.getcwd(), env=shown, thread=self.thread.id,
                                    prompt_chars=len(self.prompt), prompt_sha256=digest), ensure_ascii=False)

    def do_recall(self, _):
        if self.thread.resumed:
            import json
            self.text = "earlier: " + json.dumps(self.thread.prompts, ensure_ascii=False)

    def do_sleep(self, seconds):
        time.sleep(float(seconds))

    def do_waitfile(self, path):
        give_up = time.monotonic() + WAITFILE_LIMIT_S
        while not exists(path) and time.monotonic() < give_up:
            time.sleep(0.01)

    def do_shell(self, command):
        shown = "/bin/bash -lc '%s'" % command.replace("'", "'\\''")
        item = self.stream.item("command_execution", started={
            "command": shown, "aggregated_output": "", "exit_code": None, "status": "in_progress"})
        status, output = self.shell(command)
        self.stream.completed(item, "command_execution", command=shown, aggregated_output=output,
                              exit_code=status,
                              status="failed" if status else "completed")

    def shell(self, command):
        """(exit status, output). The output goes through a nameless file: a survivor may hold it without
        holding us up."""
        name = "%s/.fake_codex-%d-%d" % (ENVIRON.get("TMPDIR", "/tmp"), os.getpid(), len(self.groups))
        out = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(name)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.execve("/bin/bash", ["/bin/bash", "-c", command],
                      dict(ENVIRON, CODEX_THREAD_ID=self.thread.id, CODEX_CI="1"))
        self.groups.append(pid)
        status = os.waitpid(pid, 0)[1]
        with open(out, "rb") as f:
            f.seek(0)
            output = f.read().decode("utf-8", "replace")
        return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)), output

    def do_write(self, rest):
        path, _, text = rest.partition(" ")
        path = path if path.startswith("/") else "%s/%s" % (os.getcwd(), path)
        changes = [{"path": path, "kind": "update" if exists(path) else "add"}]
        item = self.stream.item("file_change", started={"changes": changes, "status": "in_progress"})
        make_folder_of(path)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text + "\n")
        self.stream.completed(item, "file_change", changes=changes, status="completed")

    def do_lines(self, n):
        for i in range(int(n)):
            self.stream.item("reasoning", text="thought %d" % i)

    def do_flood(self, megabytes):
        block, written = "0123456789abcdef" * 65536, 0
        while written < float(megabytes) * 1e6:
            self.stream.item("command_execution", command="/bin/bash -lc 'cat block%d'" % written,
                             aggregated_output=block, exit_code=0, status="completed")
            written += len(block)

    def do_reconnect(self, n):
        for _ in range(int(n)):
            self.stream.event("error",
                              message="Reconnecting... waiting for network (Connection failed: "
                                      "error sending request)")

    def do_stderr(self, text):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def do_orphan(self, pidfile):
        ready, told = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            with open(pidfile, "w") as f:
                f.write(str(os.getpid()))
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.write(told, b"x")
            os.execve("/bin/sleep", ["sleep", "1000"], {})     # what `env -i` leaves
        os.read(ready, 1)
        os.wait()

    def do_stubborn(self, _):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def do_fail(self, text):
        self.stream.event("error", message=text)
        self.stream.event("turn.failed", error={"message": text})
        self.end(1)

    def do_exit(self, status):
        self.end(int(status))

    def do_crash(self, number):
        crash(int(number))

    def do_silent(self, _):
        self.say()
        self.end(0)

    def do_both(self, _):
        self.say()
        self.complete()
        self.end(3)


DIRECTIVES = {name[3:].upper() for name in dir(Turn) if name.startswith("do_")}


def crash(number):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def play(name):
    """Replay a recording: its stdout, its stderr, its end."""
    def read(suffix):
        with open("%s/recordings/%s%s" % (HERE, name, suffix), "rb") as f:
            return f.read()
    write_all(1, read(".jsonl"))
    write_all(2, read(".stderr"))
    status = int(read(".exit"))
    if status < 0:
        crash(-status)
    os._exit(status)


# ----------------------------------------------------------------------------------------------------
# The run
# ----------------------------------------------------------------------------------------------------
def read_prompt(argument, resuming):
    """`-` or nothing: the whole of stdin. In plain exec a prompt in argv still waits for stdin and appends
    it."""
    if argument is None:
        sys.stderr.write("Reading prompt from stdin...\n")
    if argument not in (None, "-"):
        if resuming or sys.stdin.isatty():
            return argument
        sys.stderr.write("Reading additional input from stdin...\n")
        extra = sys.stdin.buffer.read().decode("utf-8", "replace")
        return argument + ("\n\n<stdin>\n%s\n</stdin>" % extra if extra.strip() else "")
    raw = sys.stdin.buffer.read()
    try:
        prompt = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        die(1,
            "Failed to read prompt from stdin: "
            "input is not valid UTF-8 (invalid byte at offset %d). Convert it to UTF-8"
            " and retry (e.g., `iconv -f <ENC> -t UTF-8 prompt.txt`)." % e.start)
    if not prompt.strip():
        die(1, "No prompt provided via stdin.")
    return prompt


def inside_git():
    folder = os.getcwd()
    while not exists(folder + "/.git"):
        if not folder:
            return False
        folder = folder.rpartition("/")[0]
    return True


def run_exec(args):
    command, options, words = parse(args)
    if "help" in options:
        return show_help(command)
    if "version" in options:
        return print("codex-cli-exec " + VERSION)
    config = read_config(options)
    if "cd" in options:
        try:
            os.chdir(options["cd"][0])
        except FileNotFoundError:
            die(1, "Error: No such file or directory (os error 2)")
        except NotADirectoryError:
            pass                                               # codex silently accepts a file
    session = words.pop(0) if command in ("resume", "fork") and words else None
    if command == "review" and not words:
        # for what is reviewed codex has words of its own
        prompt = "ARGV"
    else:
        prompt = read_prompt(words[0] if words else None, command != "exec")
    bypass = "dangerously-bypass-approvals-and-sandbox"
    if not (inside_git() or "skip-git-repo-check" in options or bypass in options):
        die(1, "Not inside a trusted directory and --skip-git-repo-check was not specified.")
    recording = next((line[5:].strip() for line in prompt.split("\n") if line.startswith("PLAY ")), None)
    if recording:
        play(recording)
    kept = "ephemeral" not in options
    if command == "fork":
        thread = Thread.fork(session, kept)
    else:
        thread = Thread.resume(session) if session else Thread.new(kept)
    thread.lock()
    converse(Stream("json" in options), thread, prompt, config, options)


def converse(stream, thread, prompt, config, options):
    stream.event("thread.started", thread_id=thread.id)
    if len(prompt) > MAX_PROMPT_CHARS:
        die(1,
            "Error: turn/start: turn/start failed: "
            "Input exceeds the maximum length of %d characters. (code -32602), data: "
            % MAX_PROMPT_CHARS
            + dumps({"input_error_code": "input_too_large", "max_chars": MAX_PROMPT_CHARS,
                     "actual_chars": len(prompt)}))
    if "base_instructions" in config:
        stream.item("error",
                    message="Codex is ignoring 1 unrecognized configuration setting. Check for typos or "
                            "deprecated"
                    " settings.\n  session-flags: `base_instructions` is ignored.")
    stream.event("turn.started")
    thread.note(config, options)
    thread.save(prompt)
    Turn(stream, thread, prompt, {"options": options, "config": config}).run()


def main():
    args = sys.argv[1:]
    if args in (["--version"], ["-V"]):
        print("codex-cli " + VERSION)
    elif args[:1] in (["exec"], ["e"]):
        run_exec(args[1:])
    elif args == ["--help"]:
        print(
            "Codex CLI\n\nUsage: codex [OPTIONS] [PROMPT]\n\nCommands:\n"
            "  exec  Run Codex non-interactively [aliases: e]")
    elif args == ["login", "status"]:
        die(0, "Logged in using ChatGPT")
    else:
        die(1, "Error: stdin is not a terminal")
