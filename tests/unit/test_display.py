"""The pure part of the live display: what its lines say, and that they fit, whatever a title is made of."""
import os
import pty
import re

import pytest
import wcwidth

import codex_mcp_swarm as cms
from .helpers import lines_of

EVIL = ["plain", "設定ファイルのパーサーを書く" * 3, "party 🎉👩‍👩‍👧 👍🏽 ✔️ 🇫🇷",
        "e\u0301te\u0301 ไทยที่นี่", "\x1b[2J\x1b]0;t\x07bell\r\n\tend", "right \u202eto left",
        "\ud800 lone", "ｗｉｄｅ\u3000and\u00a0narrow", ""]


def record(n=1, how="running", title="title", **more):
    ended = {"outcome": how, "state": "ended", "content": "all is well"}
    live = {"state": how, "progress": {"phase": "running a command", "detail": "pytest -q"}}
    ends = how not in ("starting", "running", "stopping")
    return {"task_id": "%012x" % n, "title": title, "elapsed_s": 41.7, "started_at": float(n),
            **(ended if ends else live), **more}


def bare(line):
    """Without colours; nothing else that a terminal obeys may be left."""
    text = re.sub(r"\x1b\[\d*m", "", line)
    assert text.isprintable(), text
    return text


def width(line):
    """As another program measures it."""
    return wcwidth.wcswidth(bare(line))


def sized(*size):
    """How lines look on a terminal of this size, with its marks."""
    with open(os.devnull, "w") as out:
        look = cms.Look(out, {})
    look.marks, look.size = True, size
    return look


def shown(records, columns):
    return sized(columns, 24).tasks(records, brief=True)


TREE = {"insertions": 41, "deletions": 7, "files_changed": 3}
USAGE = {"input_tokens": 12_000, "output_tokens": 340}


@pytest.mark.parametrize("columns", [40, 59, 79, 99, 200])
def test_a_line_has_its_width_whatever_the_title_is_made_of(columns):
    records = [record(n, title=title) for n, title in enumerate(EVIL)]
    records += [record(n, "failed", failure={"message": text}) for n, text in enumerate(EVIL)]
    for some in (records, [*records, record(99, "succeeded", worktree=TREE, usage=USAGE)]):
        assert {width(line) for line in shown(some, columns)} == {columns}


def test_a_line_tells_what_a_task_does_its_age_its_changes_and_its_tokens():
    running, ended = shown([record(), record(2, "succeeded", worktree=TREE, usage=USAGE)], 99)
    assert bare(running).split() == "● 000000 title running `pytest -q` 41 s".split()
    assert bare(ended).split()[2:] == "title all is well 41 s +41 -7 3 files 12.3k".split()


def test_where_there_is_little_room_tokens_go_first_and_then_changes():
    records = [record(1, "succeeded", worktree=TREE, usage=USAGE)]
    lines = [bare(shown(records, columns)[0]) for columns in (79, 60, 50)]
    assert ["12.3k" in line for line in lines] == [True, False, False]
    assert ["+41 -7 3 files" in line for line in lines] == [True, True, False]
    assert all("title" in line and "41 s" in line for line in lines)


def test_ls_fits_the_terminal_and_is_whole_elsewhere():
    records = [record(n, title=title) for n, title in enumerate(EVIL)]
    assert max(width(line) for line in sized(69, 24).tasks(records)) <= 69
    with open(os.devnull, "w") as out:
        lines = cms.Look(out, {"TERM": "xterm"}).tasks(records)
    assert EVIL[1] in lines[1]
    assert [line.split()[:2] for line in lines] == [[r["task_id"], "running"] for r in records]


def test_what_the_model_said_last_is_shown_while_it_thinks():
    thinks = record(progress={"phase": cms.Phase.MODEL.value, "last_message": "I read the tests"})
    assert "I read the tests" in shown([thinks], 79)[0]


def test_without_room_for_all_what_has_ended_is_left_out_first():
    records = [record(n, "succeeded" if n % 2 else "running") for n in range(30)]
    lines = cms.overview(records, sized(79, 24))
    assert len(lines) == 23 and [bare(line)[0] for line in lines[:-1]] == ["●"] * 15 + ["✓"] * 7
    assert bare(lines[-1]).strip() == "15 running, 15 succeeded; 8 are not shown"


@pytest.mark.parametrize("columns", [1, 2, 7, 80])
def test_folded_text_loses_nothing_and_fits(columns):
    text = "\n".join(["one two three", "設定ファイル", "", "x" * 100])
    lines = list(cms.folded(text, columns))
    assert "".join(lines).replace(" ", "") == re.sub(r"\s", "", text)
    assert max(map(width, lines)) <= max(columns, 2)


def test_folded_text_breaks_between_words_and_indents_nothing_that_was_not():
    lines = ["  It was an", "index", "and not a", "name"]
    assert list(cms.folded("  It was an index\nand not a name", 12)) == lines


@pytest.fixture
def top(swarm):
    top = cms.Top(swarm(), sized(79, 24))
    top.records = [record(n, title="task %d" % n) for n in range(50)]
    return top


def selected(top):
    return [re.search(r"task (\d+)", bare(line))[1] for line in top.frame() if "\x1b[7m" in line]


@pytest.mark.parametrize("size", [(79, 24), (59, 16), (200, 60), (20, 5), (3, 1)])
def test_a_frame_of_top_is_as_high_as_the_terminal_and_no_wider(top, size):
    top.look.size = size
    for key in "?qs":
        top.press(key)
        lines = top.frame()
        assert len(lines) == max(3, size[1])
        assert size[0] < 30 or max(map(width, lines)) <= size[0]


def test_the_selection_moves_within_the_list_is_always_seen_and_stays_with_its_task(top):
    seen = [selected(top)]
    for keys in (["k"], ["j", "j"], ["\x1b[6~"], ["G"], ["\x1b[B"], ["g", "\x1bOB"]):
        for key in keys:
            top.press(key)
        seen.append(selected(top))
    assert seen == [[str(n)] for n in (0, 0, 2, 12, 49, 49, 1)]
    top.records.insert(0, record(99, title="task 99"))
    assert selected(top) == ["1"]


def test_a_page_scrolls_within_its_text_and_at_its_end_follows_it(top):
    text = ["line %d" % n for n in range(100)]
    first = lambda: bare(top.frame()[1]).strip()
    top.open(lambda: "\n".join(text))
    seen = [first()]
    for key in "kjGj":
        top.press(key)
        seen.append(first())
    assert seen == ["line 0", "line 0", "line 1", "line 78", "line 78"]
    text += ["more"]
    assert first() == "line 79"
    top.press("k")
    text += ["and more"]
    assert first() == "line 78"


def test_a_stop_wants_a_yes_and_q_leaves_first_the_page_and_then_the_display(top):
    top.press("s")
    assert "Stop task %012x?" % 0 in top.frame()[-1]
    top.press("q")
    assert not (top.left or top.said or top.asked)
    top.records[0] = record(0, "failed")
    top.press("s")
    assert not top.asked and "ended" in top.frame()[-1]
    for key, page in zip("?q?\x1b\x1b", (True, False, True, False, False)):
        top.press(key)
        assert (bool(top.page), top.left) == (page, False)
    top.press("q")
    assert top.left


def test_an_empty_list_says_so_and_takes_every_key(top):
    top.records = []
    for key in ["j", "k", "s", "f", "\r", "G"]:
        top.press(key)
    assert "No task" in "".join(top.frame())


def test_only_lines_that_have_changed_are_written_and_nothing_when_none_has():
    ours, theirs = pty.openpty()
    with open(theirs, "w") as out:
        terminal = cms.Terminal(out, {})
        for lines in ("one two three", "one two three", "one deux three", "one deux"):
            terminal.draw(lines.split())
        out.write("END")
        out.flush()
        raw = b""
        while not raw.endswith(b"END"):
            raw += os.read(ours, 1000)
    os.close(ours)
    frames = raw.decode().split("\x1b[?2026h")[1:]
    assert [sorted(set(re.findall("one|two|three|deux", frame))) for frame in frames] == \
        [["one", "three", "two"], ["deux"], ["deux", "one"]]


def test_the_log_says_what_was_refused_and_what_failed():
    told = {name: [text for line in lines_of(name) for text in cms.event_in_words(line)]
            for name in ("approve_for_me_declined", "patchfail")}
    assert "  declined: nobody approved it" in told["approve_for_me_declined"]
    assert told["patchfail"].count("  failed") == 2
