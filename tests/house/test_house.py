"""The rules of the house: how the one file is built, and that what is written about it is so."""
import ast
import functools
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import codex_mcp_swarm as cms  # noqa: E402

FILE = ROOT / "codex_mcp_swarm.py"
SOURCE = FILE.read_text(encoding="utf-8")
TITLES = ["VOCABULARY", "ERRORS", "RECORDS", "LIFE OF A TASK", "SCHEMA", "CODEX", "HOST", "GIT", "STORE",
          "SUPERVISOR", "SWARM", "TOOLS", "MCP", "COMMAND LINE"]
BANNERS = [(SOURCE.count("\n", 0, m.start()) + 1, int(m.group(1)), m.group(2))
           for m in re.finditer(r"^# =+\n# (\d+)\. ([A-Z ]+?) *(?:\(.*\))?\n# =+$", SOURCE, re.M)]
HOUSE_OF_PYTHON_3_8 = (3, 8)


@functools.lru_cache(maxsize=None)
def tree():
    """Parsed when the first test asks: every process of the tests reads this file, and starts others the
    faster the less it holds."""
    return ast.parse(SOURCE)


def functions():
    return [node for node in ast.walk(tree()) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def tracked():
    """Every file that belongs to the project: what git knows, and what it would be told of. Without git,
    everything but caches."""
    done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                          cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    names = done.stdout.decode().split(
        "\0") if done.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()
            and not re.search(r"(^|/)(\.git|\.cache|__pycache__|\.venv|build|dist)/", name)]


def where(node):
    return "%s (line %d)" % (getattr(node, "name", type(node).__name__), node.lineno)


# -- floors -------------------------------------------------------------------------------------------
def floor_of(line):
    return max((number for first, number, _ in BANNERS if first <= line), default=0)


def bound(node):
    """The names that a statement at the top of the file defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node,
                                         ast.Assign) else [node.target] if isinstance(
                                             node, ast.AnnAssign) else []
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def home_of_names():
    home = {}
    for node in tree().body:
        for name in bound(node):
            home.setdefault(name, floor_of(node.lineno))
    return home


def test_the_floors_are_those_of_the_plan_in_order():
    assert [(number, title) for _, number, title in BANNERS] == list(enumerate(TITLES, 1))


def test_the_module_docstring_names_every_floor():
    assert [t
            for n, t in enumerate(TITLES, 1)
            if not re.search(r"\b%d %s\b" % (n, t), ast.get_docstring(tree()))] == []


def recipes():
    """(what to add, floor, the names that its recipe gives) of "Where do I add ...?"."""
    text = ast.get_docstring(tree()).split("Where do I add ...?\n")[1]
    for line in text.splitlines():
        for floor, words in re.findall(r"floor (\d+): (.*?)(?=; floor|$)", line):
            names = re.findall(r"@?\b[A-Z]\w+(?:\.\w+)?|@\w+|`\w+`|\b_\w+", words)
            yield line.split("floor")[0].strip(), int(floor), [name.strip("@`") for name in names]


def test_every_recipe_of_the_docstring_leads_to_its_floor():
    home, found = home_of_names(), list(recipes())
    assert len(found) >= 9
    for what, floor, names in found:
        tables = [name for name in names if not name.startswith("_")]
        for name in tables:
            top, _, method = name.partition(".")
            assert home.get(top) == floor, "%s: `%s` is not on floor %d" % (what, top, floor)
            assert not method or hasattr(getattr(cms, top), method), name
        assert tables or what == "a task state or outcome", what


def test_a_floor_uses_only_itself_and_the_floors_below():
    home = home_of_names()
    assert len(home) > 150
    upward = [(node.lineno, name.id) for node in tree().body for name in ast.walk(node)
              if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)
              and home.get(name.id, 0) > floor_of(node.lineno)]
    assert upward == []


def test_no_name_is_given_twice():
    given = [name for node in tree().body for name in bound(node)]
    # it is None where there is none
    twice = {name for name in given if given.count(name) > 1} - {"fcntl"}
    assert twice == set()


FORBIDDEN_BELOW_7 = {"time", "threading", "subprocess", "socket", "select", "fcntl", "open", "print", "input"}
PURE_OF_OS = {"fsencode"}           # bytes of a word, no question to the system
PURE_OF_SIGNAL = {"Signals"}        # names of numbers


def test_the_floors_1_to_6_do_no_io():
    found = []
    for node in tree().body:
        if not 1 <= floor_of(node.lineno) <= 6:
            continue
        for n in ast.walk(node):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id in FORBIDDEN_BELOW_7:
                found.append((n.lineno, n.id))
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name):
                if (n.value.id == "os"
                    and n.attr not in PURE_OF_OS) or (n.value.id == "signal"
                                                      and n.attr not in PURE_OF_SIGNAL):
                    found.append((n.lineno, "%s.%s" % (n.value.id, n.attr)))
    assert found == []


PROCESS_CALLS = {"fork", "kill", "killpg", "waitpid", "waitid", "wait", "setsid", "system", "popen", "execv",
                 "execve", "posix_spawn", "Popen", "prctl"}
ALLOWED = {"Supervisor",             # it alone waits for codex, and kills what codex leaves
           "serve"}                 # the roof: a server signals itself


def test_process_calls_stand_on_the_host_floor_or_in_the_one_reaper():
    found = []
    for node in tree().body:
        if floor_of(node.lineno) == 7 or getattr(node, "name", "") in ALLOWED:
            continue
        found += [where(n) for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr in PROCESS_CALLS
                  and isinstance(n.value, ast.Name) and n.value.id in ("os", "subprocess")]
    assert found == []


def test_only_the_command_line_reads_argv_and_the_environment():
    # a default of PATH; processes of their own; what a Python program gives as it is; the roof
    allowed = {"find_codex", "Forker", "supervisor_main", "Swarm", "this_program", "main"}
    found = []
    for node in tree().body:
        for n in ast.walk(node):
            if isinstance(n, ast.Attribute) and isinstance(n.value,
                                                           ast.Name) and (n.value.id,
                                                                          n.attr) in (("os", "environ"),
                                                                                      ("sys", "argv"),
                                                                                      ("os", "getenv")):
                found.append(getattr(node, "name", "the module"))
    assert set(found) <= allowed


# -- shape --------------------------------------------------------------------------------------------
def test_no_function_is_longer_than_60_lines():
    lengths = {where(f): f.end_lineno - f.lineno + 1 for f in functions()}
    assert {name: n for name, n in lengths.items() if n > 60} == {} and len(lengths) > 200


def test_no_line_is_wider_than_110_columns():
    assert [n for n, line in enumerate(SOURCE.splitlines(), 1) if len(line) > 110] == []


def test_half_of_the_functions_are_at_most_10_lines():
    lengths = sorted(f.end_lineno - f.lineno + 1 for f in functions())
    assert lengths[len(lengths) // 2] <= 10


BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp)


def branches(node):
    """How many ways part here; each `and` and `or` makes one more."""
    return len(node.values) - 1 if isinstance(node, ast.BoolOp) else isinstance(node, BRANCHES)


def test_no_function_has_more_than_15_branches():
    counts = {where(f): sum(map(branches, ast.walk(f))) for f in functions()}
    assert {name: n for name, n in counts.items() if n > 15} == {} and max(counts.values()) > 5


def test_no_class_is_longer_than_300_lines_or_has_more_than_25_methods():
    classes = [node for node in ast.walk(tree()) if isinstance(node, ast.ClassDef)]
    methods = {c.name: sum(isinstance(n, ast.FunctionDef) for n in c.body) for c in classes}
    large = {c.name for c in classes if c.end_lineno - c.lineno + 1 > 300 or methods[c.name] > 25}
    assert large == set() and len(classes) > 50


def handlers():
    """(function that holds it, handler) for every `except`."""
    for function in functions():
        inner = {id(n) for f in ast.walk(function) if f is not function and isinstance(f, ast.FunctionDef)
                 for n in ast.walk(f)}
        yield from ((function.name, n) for n in ast.walk(function) if isinstance(n, ast.ExceptHandler)
                    and id(n) not in inner)


def test_everything_is_caught_only_at_the_boundary_of_each_kind_of_thread_and_process():
    broad = [name for name, h in handlers()
             if h.type is None or (isinstance(h.type, ast.Name) and h.type.id == "Exception")]
    assert sorted(broad) == ["answer", "supervisor_main", "sweep_and_log", "until_the_end"]


def test_what_catches_even_the_end_of_the_program_raises_it_again():
    for name, h in handlers():
        if isinstance(h.type, ast.Name) and h.type.id == "BaseException":
            assert isinstance(h.body[-1], ast.Raise) and h.body[-1].exc is None, name


def test_the_code_has_no_to_do_list_and_nothing_commented_out():
    marks = [w for w in re.findall(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b", SOURCE)]
    assert marks == []
    comments = [line.strip()[2:] for line in SOURCE.splitlines() if line.strip().startswith("# ")]
    assert [c for c in comments
            if re.match(r"(if|for|while|def|class|return|import|from|try|with) .*(:|\))$|\w+\(.*\)$|\w+ = ",
                        c)] == []


def test_no_state_lives_in_the_module():
    """Tables are filled while the module is made (tools and commands by their decorators), and never
    after."""
    tables = {name for node in tree().body for name in bound(node)
              if isinstance(getattr(cms, name, None), (dict, list, set))}
    changed, decorator = set(), {id(n) for f in functions() if f.name in ("tool", "subcommand")
                                 for n in ast.walk(f)}
    for function in functions():
        for n in ast.walk(function):
            if id(n) in decorator:
                continue
            if isinstance(n, ast.Global):
                changed |= set(n.names)
            if (isinstance(n, ast.Subscript) and isinstance(n.ctx, (ast.Store, ast.Del))
                    and isinstance(n.value, ast.Name)):
                changed |= {n.value.id} & tables
            if (isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
                    and isinstance(n.func.value, ast.Name)
                    and n.func.attr in ("append", "add", "update", "pop", "clear", "setdefault")):
                changed |= {n.func.value.id} & tables
    assert changed == set()


def test_a_comment_or_a_docstring_stands_for_every_lock():
    for n, line in enumerate(SOURCE.splitlines()):
        if re.search(r"threading\.(Lock|Condition|RLock)\(\)", line):
            near = "\n".join(SOURCE.splitlines()[max(0, n - 4):n + 1])
            assert re.search(r"#.*[Gg]uards|# one line at a time", near), line


def standard_library():
    """Names of modules that come with Python: asked of the interpreter, or (3.8, 3.9) looked up where it
    keeps them."""
    names = set(getattr(sys, "stdlib_module_names", ())) | set(sys.builtin_module_names)
    place = pathlib.Path(os.__file__).parent
    names |= {p.stem for p in place.glob("*.py")}
    names |= {p.name for p in place.iterdir() if (p / "__init__.py").exists()}
    return names | {p.name.split(".")[0] for p in (place / "lib-dynload").glob("*")}



def test_it_needs_nothing_but_the_standard_library():
    imported = {alias.name.split(".")[0] for n in ast.walk(tree()) if isinstance(n, ast.Import)
                for alias in n.names}
    imported |= {n.module.split(".")[0] for n in ast.walk(tree()) if isinstance(n, ast.ImportFrom)}
    newer = {"tomllib"}             # of 3.11; what an older Python does without it is tested
    assert imported - standard_library() - newer - {"__future__"} == set() and "json" in imported


# -- import -------------------------------------------------------------------------------------------
IMPORT = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import ast, encodings.idna, json, tokenize      # what the machinery of import itself may open
names = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.mkdir",
         "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
         "os.utime", "os.kill", "os.killpg", "os.putenv", "os.unsetenv", "os.chdir", "shutil.", "socket.",
         "fcntl.", "signal.", "tempfile.", "ctypes.", "_thread.start", "webbrowser.", "urllib.", "glob.")
bad, compiled = [], set()
def hook(name, args):
    if name == "compile" and isinstance(args[0], (str, bytes)):
        compiled.add(args[0] if isinstance(args[0], str) else args[0].decode())
    mode, flags = args[1:] if name == "open" else (None, None)
    writes = (isinstance(mode, str) and set(mode) & set("wax+")
              or isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if writes or name.startswith(names):
        bad.append((name, args))
look = lambda: (dict(os.environ), os.getcwd(), [signal.getsignal(n) for n in range(1, 32)],
                threading.active_count(), sys.excepthook, sys.path[:], sys.stdout, sys.stderr,
                sorted(os.listdir("/dev/fd")), sys.getrecursionlimit())
before = look()
sys.addaudithook(hook)
import codex_mcp_swarm
seen = list(bad)
assert look() == before, "the import changed the process"
assert seen == [], seen
open(os.devnull, "w").close()
assert bad != seen, "the hook hears nothing"
late = {"subprocess", "argparse", "logging", "ctypes", "asyncio", "dataclasses", "tempfile", "shutil",
        "socket", "difflib", "shlex"}
print(sorted(set(sys.modules) & late))
records = [kind for kind in vars(codex_mcp_swarm).values() if hasattr(kind, "_fields")]
annotations = {getattr(form, "__forward_arg__", form) for kind in records for form in
               kind.__annotations__.values()}
compile("Optional[str]", "", "eval")
print(len(records) > 50, sorted(compiled & annotations))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", IMPORT, str(ROOT)], cwd=str(empty),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    return done, list(empty.iterdir())


def test_importing_it_does_nothing(imported):
    done, left = imported
    assert done.returncode == 0, done.stderr.decode()
    assert left == []


def test_importing_it_imports_nothing_that_only_some_work_needs(imported):
    assert imported[0].stdout.decode().splitlines()[0] == "[]"


def test_importing_it_compiles_no_annotation_of_a_record(imported):
    assert imported[0].stdout.decode().splitlines()[1] == "True ['Optional[str]']"      # that of the test


def test_whatever_is_told_otherwise_to_people_is_said_somewhere():
    tree = ast.parse(SOURCE)
    tables = [node for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "TYPED"]
    assert len(tables) == 1
    there = set(ast.walk(tables[0]))
    said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in there
            and isinstance(node.value, str)]
    for words in filter(lambda key: " " in key, cms.TYPED):
        for part in words.split(". "):
            assert any(part in text for text in said), "nothing says %r" % part


# -- Python 3.8 ---------------------------------------------------------------------------------------
def pythons_files():
    return [p for p in tracked() if p.suffix == ".py"
            or (p.parent == ROOT / "tests" and p.read_bytes()[:24].startswith(b"#!/usr/bin/env python3"))]


def test_every_python_file_has_the_syntax_of_python_3_8():
    found = pythons_files()
    assert len(found) > 15
    for path in found:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=HOUSE_OF_PYTHON_3_8)


def test_the_oldest_python_of_this_machine_compiles_every_file():
    names = ["python3.%d" % minor for minor in range(8, 14)]
    places = [os.environ.get("PATH", ""),
              *map(str, sorted((pathlib.Path.home() / ".pyenv" / "versions").glob("3.*/bin")))]
    oldest = next(
        (found for found in (shutil.which(name, path=os.pathsep.join(places)) for name in names) if found
         and works(found)), sys.executable)
    code = "import sys\nfor name in sys.argv[1:]: compile(open(name, encoding='utf-8').read(), name, 'exec')"
    done = subprocess.run([oldest, "-c", code, *map(str, pythons_files())], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout.decode()


def test_an_older_python_is_told_which_one_is_needed():
    code = "import sys; sys.version_info = (3, 7, 16); import codex_mcp_swarm"
    done = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"Python 3.8 or newer is needed" in done.stderr


def works(python):
    return subprocess.run([python, "-c", ""], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


# -- README and docs ----------------------------------------------------------------------------------
PAGES_NAMED = ["README.md", "CONTRIBUTING.md", "docs/tools.md", "docs/worktrees.md", "docs/clients.md",
               "docs/command-line.md", "docs/security.md", "docs/how-it-works.md"]
PAGES = runpy.run_path(str(ROOT / "tests" / "pages"))


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def section(name, title):
    match = re.search(r"^#+ %s\n(.*?)(?=^#+ |\Z)" % re.escape(title), page(name), re.M | re.S)
    assert match, "%s has no section %r" % (name, title)
    return match.group(1)


def first_column(name, title):
    """The names in the first column of the first table of a section."""
    rows = re.findall(r"^\|.*", section(name, title), re.M)
    return [re.match(r"\|\s*`([^`]+)`", row).group(1) for row in rows[2:]]


def test_the_parts_of_the_pages_that_are_made_from_tables_are_fresh():
    """If not: `tests/pages` writes them."""
    assert [str(path.relative_to(ROOT)) for path, _ in PAGES["stale"]()] == []
    used = {name for path in PAGES["PAGES"] for _, name, _ in PAGES["PART"].findall(page(path))}
    assert used == set(PAGES["BLOCKS"])


def test_the_readme_lists_the_tools_in_the_order_of_the_code():
    assert first_column("README.md", "60 seconds") == list(cms.TOOLS)


def test_the_page_of_commands_lists_the_flags_of_the_parser():
    options = {o for action in cms.flags()._actions for o in action.option_strings} - {"-h"}
    assert sorted(name.split()[0]
                  for name in first_column("docs/command-line.md", "Flags")) == sorted(options)


def test_the_page_of_commands_lists_the_environment_in_the_order_of_the_code():
    assert first_column("docs/command-line.md", "Environment") == list(cms.VARIABLES)


def test_every_variable_that_the_code_reads_is_declared():
    read = set(re.findall(r"\"(CODEX_SWARM_[A-Z_]+)\"", SOURCE)) - {cms.TASK_ENV}
    assert read == set(cms.VARIABLES)


def test_the_page_of_tools_names_every_key_state_and_outcome():
    text = section("docs/tools.md", "What comes back")
    assert {s.value for s in (*cms.State, *cms.Outcome) if s.value not in text} == set()
    assert [key for key in cms.TOOLS["codex"].returns["properties"] if "`%s`" % key not in text] == []


def test_the_page_of_clients_lists_those_of_config_with_the_places_of_their_entries():
    text = section("docs/clients.md", "Connect a client")
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| `")]
    assert [re.findall(r"`([^`]+)`", name)[0] for name, _ in rows] == list(cms.CLIENTS)
    words = lambda text: re.findall(r"[~.\w/-]+\.(?:json|toml)", text)
    assert [words(where) for _, where in rows] == [words(client.place) for client in cms.CLIENTS.values()]
    assert [name for name in cms.CLIENTS if "`%s`" % name not in page("README.md") and name != "claude"] == []


@pytest.mark.parametrize("name", ["claude", "cursor", "codex"])
def test_an_entry_of_the_page_of_clients_is_what_config_prints(name):
    entry = cms.entry_for(name, ["python3", "/path/to/codex_mcp_swarm.py"])
    assert "\n%s\n" % entry in page("docs/clients.md")
    assert name != "claude" or "\n%s\n" % entry in page("README.md")


def test_no_line_leads_to_the_other_program_of_the_same_name():
    to_the_index = re.compile(r"\buvx (?!--from)|\bpip install (?:-\S+ )*[\"']?codex-mcp-swarm"
                              r"|\bpipx run (?!--spec)|\bpipx install codex|[\"']uvx[\"']")
    texts = [p for p in tracked() if p.suffix == ".md" or p == FILE]
    lines = [(p.name, line) for p in texts for line in p.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if to_the_index.search(line[1])] == []
    assert "is another program" in page("README.md")


def test_the_page_of_clients_names_every_revision_that_is_spoken():
    assert "%s to %s" % (cms.SUPPORTED[-1], cms.SUPPORTED[0]) in page("docs/clients.md")


def anchor(heading):
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(path):
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.M)}


@pytest.mark.parametrize("name", PAGES_NAMED)
def test_every_link_of_a_page_leads_somewhere(name):
    missing = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page(name)):
        file, _, part = link.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        if not path.exists() or (part and part not in anchors(path)):
            missing.append(link)
    missing += [place for place in re.findall(r"`((?:tests|docs)/[\w./-]+)", page(name))
                if not (ROOT / place).exists() and name == "CONTRIBUTING.md"]
    assert missing == []


def test_the_readme_leads_to_every_page():
    pages = {"docs/" + path.name
             for path in (ROOT / "docs").glob("*.md")} | {"CONTRIBUTING.md", "CHANGELOG.md"}
    assert [name for name in sorted(pages) if "(%s)" % name not in page("README.md")] == []
    assert pages - {"CHANGELOG.md"} | {"README.md"} == set(PAGES_NAMED)


@pytest.mark.parametrize("name", [name for name in PAGES_NAMED if name.startswith("docs/")])
def test_a_page_begins_with_a_list_of_its_contents(name):
    headings = re.findall(r"^## (.*)", page(name), re.M)
    listed = re.findall(r"^- \[(?:.*)\]\(#(.*)\)", page(name).split("\n## ")[0], re.M)
    assert listed == [anchor(heading) for heading in headings]


@pytest.mark.parametrize("name", [*PAGES_NAMED, "CHANGELOG.md"])
def test_no_item_of_a_list_has_more_than_60_words(name):
    items = re.findall(r"^[-*] (.*(?:\n  .*)*)", page(name), re.M)
    assert [(len(item.split()), item[:60]) for item in items if len(item.split()) > 60] == []


def test_the_readme_is_a_front_page():
    assert len(page("README.md").splitlines()) <= 150


def test_every_line_of_the_security_page_names_a_test_that_exists():
    tables = [block.splitlines()[2:] for block in page("docs/security.md").split("\n\n")
              if "| proven by |" in block]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row) for table in tables for row in table]
    assert len(tables) >= 3 and [] not in named
    missing = [name for row in named for file, name in row
               if not re.search(r"^(async )?def %s\(" % name, page(file), re.M)]
    assert missing == []


def test_the_numbers_of_the_page_of_tools_are_those_of_the_code():
    text = page("docs/tools.md")
    for number in ("%s characters" % format(cms.RESULT_CHARS, ","), format(cms.RESULT_CHARS_CODEX, ","),
                   "%d minutes" % (cms.WAIT_S / 60), "%d minutes" % (cms.WAIT_S_CODEX / 60)):
        assert number in text, number
    assert "%d s" % cms.WAIT_S_CODEX in page("docs/clients.md")


# -- JSON of the pages ---------------------------------------------------------------------------------
def json_examples():
    """(page, the example) for every block of JSON, one a line where several calls stand in one block."""
    for name in PAGES_NAMED:
        for block in re.findall(r"^```json\n(.*?)^```", page(name), re.M | re.S):
            lines = block.splitlines()
            several = len(lines) > 1 and all(line.startswith('{"name"') for line in lines)
            yield from ((name, json.loads(text)) for text in (lines if several else [block]))


def test_every_call_that_a_page_shows_is_one_that_its_tool_takes():
    calls = [(name, call) for name, call in json_examples() if "arguments" in call]
    bare = [({"tasks"} <= set(call) and "codex_batch" or "codex_merge", call)
            for name, call in json_examples()
            if name == "README.md" and "arguments" not in call]
    found = [(call["name"], call["arguments"]) for _, call in calls] + [(tool, call) for tool, call in bare]
    assert len(found) > 15 and {tool for tool, _ in found} == set(cms.TOOLS)
    for tool, arguments in found:
        assert cms.problems(cms.TOOLS[tool].args, arguments) == [], (tool, arguments)
        for entry in [*arguments.get("tasks", ()), arguments.get("defaults", {})]:
            assert set(entry) <= set(cms.RUN), entry


# -- what clients read --------------------------------------------------------------------------------
def tools_list(revision=cms.REVISIONS[0]):
    """The result of tools/list, as a client of this revision gets it."""
    era = cms.Stateless(None, {}, cms.Client()) if revision == cms.STATELESS else cms.Handshake(None)
    era.revision = revision
    return era.finish(cms.METHODS["tools/list"], era.tools_list({}, cms.Call()))


@pytest.mark.parametrize("method", list(cms.METHODS.values()), ids=lambda m: m.name)
def test_every_method_of_the_protocol_is_there_in_its_era_and_only_there(method):
    eras = [era for era in (cms.Handshake, cms.Stateless) if hasattr(era, method.name.replace("/", "_"))]
    assert [era.__name__ for era in eras] == ([method.era] if method.era else ["Handshake", "Stateless"])


@pytest.mark.parametrize("revision", cms.SUPPORTED)
def test_tools_list_is_below_12000_bytes(revision):
    assert len(json.dumps(tools_list(revision), ensure_ascii=False, separators=(",", ":")).encode()) < 12_000


@pytest.mark.parametrize("tool", list(cms.TOOLS.values()), ids=lambda t: t.name)
def test_a_description_is_at_most_60_words_and_does_not_shout(tool):
    assert len(tool.description.split()) <= 60 and tool.description.endswith(".")
    assert [w for w in re.findall(r"\b[A-Z]{4,}\b", tool.description) if w != "HEAD"] == []


def test_the_instructions_fit_and_their_beginning_stands_alone():
    text = cms.INSTRUCTIONS
    beginning = text.split("\n\n")[0]
    assert len(text) <= 2048 and len(beginning) <= 500 and beginning.endswith(".")
    assert [name for name in cms.TOOLS if not re.search(r"\b%s\b" % name, beginning)] == []


def test_read_only_tools_say_so_and_no_other():
    hints = {t["name"]: t["annotations"]["readOnlyHint"] for t in tools_list()["tools"]}
    assert {name
            for name, read_only in hints.items() if read_only} == {"codex_status", "codex_wait", "codex_diff",
                                                                              "codex_events"}


def test_every_tool_and_argument_that_a_text_names_exists():
    texts = [cms.INSTRUCTIONS, cms.COLLECT, cms.WELCOME, *(t.description for t in cms.TOOLS.values()),
             *(advice for _, advice in cms.ADVICE.values())]
    named = {w for text in texts for w in re.findall(r"\bcodex_[a-z_]+\b", text)}
    assert named <= set(cms.TOOLS)


# -- around the file ----------------------------------------------------------------------------------
def test_the_changelog_has_the_version_of_the_code_on_top():
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
                          re.M)
    assert versions[:1] == [cms.__version__]


def test_the_package_has_no_dependency_and_the_oldest_python_of_the_readme():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "requires-python = \">=3.8\"" in text and "Python 3.8" in page("README.md")
    assert not re.search(r"^dependencies", text, re.M)
    assert re.search(r"^codex-mcp-swarm = \"codex_mcp_swarm:main\"$", text, re.M) and callable(cms.main)


def packaged(name):
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


PACKAGED = [".claude-plugin/plugin.json", ".claude-plugin/marketplace.json", ".mcp/manifest.json",
            ".mcp/server.json"]


@pytest.mark.parametrize("name", PACKAGED)
def test_what_is_packaged_has_the_version_of_the_code(name):
    versions = re.findall(r'"version": "([^"]+)"', page(name))
    assert versions and set(versions) == {cms.__version__}
    assert "codex-mcp-swarm-%s.mcpb" % cms.__version__ in page("docs/clients.md")


def test_the_bundle_names_the_tools_that_there_are():
    assert [tool["name"] for tool in packaged(".mcp/manifest.json")["tools"]] == list(cms.TOOLS)


def test_the_registry_entry_has_what_its_schema_asks_for():
    """Of the schema of 2025-12-11: the required fields, the limits, and no others than it knows."""
    entry = packaged(".mcp/server.json")
    [package] = entry["packages"]
    assert entry["$schema"].endswith("/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"]) and len(entry["description"]) <= 100
    assert set(entry) <= {"$schema", "name", "title", "description", "version", "packages", "repository"}
    assert package["registryType"] == "mcpb" and package["transport"] == {"type": "stdio"}
    assert re.fullmatch(r"[a-f0-9]{64}", package["fileSha256"])
    assert package["identifier"].startswith("https://")
    assert {v["name"] for v in package["environmentVariables"]} <= set(cms.VARIABLES)


def test_what_is_exported_exists():
    assert [name for name in cms.__all__ if not hasattr(cms, name)] == []


def test_no_file_holds_a_path_of_the_machine_it_was_written_on():
    own = {str(pathlib.Path.home()), str(ROOT)} - {"/", "/root", "/home", "/src", "/app"}
    general = re.compile(r"(?<![\w./-])/(?:root|work|mnt|private|Users|tmp/lab)/\w")
    found = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        found += ["%s: %s" % (path.relative_to(ROOT), text[max(0, m.start() - 20):m.end() + 30])
                  for m in general.finditer(text)]
        found += ["%s: %s" % (path.relative_to(ROOT), name) for name in own
                  if re.search(re.escape(name) + r"\b", text)]
    assert found == []


def test_every_executable_file_can_be_executed_and_says_with_what():
    for path in tracked():
        starts = path.read_bytes()[:2] == b"#!"
        assert os.access(str(path), os.X_OK) <= starts, path
    assert os.access(str(ROOT / "tests" / "run"), os.X_OK) and os.access(str(ROOT / ".ci" / "run"), os.X_OK)


# -- the tests themselves -----------------------------------------------------------------------------
MUTANTS = runpy.run_path(str(ROOT / "tests" / "mutants"))


def test_every_change_that_a_test_must_notice_can_still_be_made():
    """Move a row of tests/mutants along with the code; remove it only with the promise that it stands for."""
    lines, missing, stale = SOURCE.splitlines(keepends=True), [], []
    for change in MUTANTS["CHANGES"]:
        try:
            MUTANTS["changed"](lines, tree(), change)
        except MUTANTS["Stale"] as error:
            stale.append(str(error))
        for test in change.tests.split():
            file, _, name = test.partition("::")
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            if not re.search(r"^ *def %s" % (name + r"\(" if name else "test_"), text, re.M):
                missing.append(test)
    assert (stale, missing) == ([], [])


def test_no_test_has_the_name_of_another_one_in_its_file_which_would_never_run():
    for path in ROOT.glob("tests/*/test_*.py"):
        names = re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
        assert sorted(set(names)) == sorted(names), path


def test_no_line_of_these_tests_is_wider_than_110_columns():
    paths = [path for path in tracked() if {"tests", ".ci"} & set(path.relative_to(ROOT).parts[:1])
             and path.parent.name != "recordings"]
    wide = lambda path: max(map(len, path.read_text(encoding="utf-8").splitlines()), default=0) > 110
    assert len(paths) > 60 and [path.name for path in paths if wide(path)] == []
