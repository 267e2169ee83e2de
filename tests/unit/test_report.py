"""The report: what became of tasks, on one page that loads nothing, whatever they wrote."""
import html.parser
import json
import os
import re
import xml.etree.ElementTree

import pytest

import codex_mcp_swarm as cms

from .helpers import ended, run
from .prepared import prepared

VOID = {"meta"}
EVIL = '<script>alert(1)</script>"><img src=x onerror=\'alert(2)\'> & \x1b[31m\u202egnp'
HOW = {"cwd": ".", "worktree": True}


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, properly nested, with their attributes; its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] if tag not in VOID else []

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def report(app, ids, limit=cms.REPORT_CHARS):
    return cms.web_page(cms.cards(app, ids, limit))


@pytest.fixture
def three(swarm, tmp_path):
    """A swarm and three tasks that have ended: one as it should, one hostile, one that failed."""
    app = swarm()

    def make():
        ids = app.start([{"prompt": "One\nWRITE made.txt something\nSAY Done so.", **HOW},
                         {"prompt": f"{EVIL}\nWRITE <b>.txt {EVIL}\nTELL x\nSAY {EVIL}", **HOW},
                         {"prompt": f"Three\nFAIL no {EVIL}"}])
        ended(app, ids)
        return ids
    return app, prepared(tmp_path, "three", make)


def test_the_page_says_what_became_of_each(three):
    app, ids = three
    page = Page(report(app, ids))
    assert "3 tasks: 2 succeeded, 1 failed; 200 tokens in, 40 out (1 told none); +2 -0 2 files" in page.text
    for words in (*ids, "Done so.", "+something", "made.txt", "failed after", f"codex-swarm/{ids[0]}"):
        assert words in page.text
    summaries = [attrs for tag, attrs in page.elements if tag == "details"]
    assert len(summaries) == 2, "a diff for each changed file, and none of a task without a worktree"


def test_what_a_task_wrote_is_text_on_the_page_and_nothing_is_loaded(three):
    text = report(*three)
    page = Page(text)
    assert page.text.count("<script>alert(1)</script>") >= 5        # timeline, title, message, diff, failure
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert not re.search("[\0-\x08\x0b-\x1f\x7f\u202a-\u202e]", text) and "\\u202e" in text
    names = {name for _, attrs in page.elements for name in attrs}
    assert not [name for name in names if name.startswith("on") or name in ("src", "style")]
    links = [attrs["href"] for _, attrs in page.elements if "href" in attrs]
    assert sorted(links) == sorted("#" + task_id for task_id in three[1])
    assert {attrs["id"] for tag, attrs in page.elements if tag == "section"} == set(three[1])
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text


def test_a_phone_and_the_dark_are_thought_of(three):
    text = report(*three)
    assert '<meta name="viewport" content="width=device-width' in text
    assert "color-scheme: light dark" in text
    assert "overflow-wrap: anywhere" in text and "overflow-x: auto" in text


def test_the_timeline_is_sound_and_every_bar_lies_in_it(three):
    app, ids = three
    text = report(app, ids)
    picture = xml.etree.ElementTree.fromstring(re.search("<svg.*?</svg>", text, re.S)[0])
    bars = list(picture.iter("rect"))
    assert len(bars) == 2 * len(ids)
    for bar in bars:
        begin, width = (float(bar.get(name).rstrip("%")) for name in ("x", "width"))
        assert 0 <= begin and 0 <= width and begin + width <= 100.01
    first, half, last = (float(mark.text[:-2]) for mark in picture.iter("text"))
    assert first == 0 and abs(half - last / 2) <= 0.1
    kinds = sorted({bar.get("class") for bar in bars})
    assert kinds == ["failed", "prepared", "succeeded"]
    assert all(f".{kind}" in cms.REPORT_STYLE for kind in (*kinds, *(how.value for how in cms.Outcome)))


def test_a_long_diff_and_a_long_message_are_cut_and_it_is_said(swarm):
    app = swarm()
    record = run(app, "SHELL yes 'line & line' | head -n 20000 > big.txt", "MESSAGE 100000", cwd=".",
                 worktree=True)
    text = report(app, [record["task_id"]], 10_000)
    assert len(text) < 120_000 and text.count("characters more") == 2
    Page(text)


def test_a_task_that_runs_and_one_whose_record_is_damaged_are_on_the_page(swarm, gate):
    app = swarm()
    ids = app.start([{"prompt": gate.wait}, {"prompt": "x"}])
    app.wait(ids[1:], 60, cms.Call())
    for name in ("spec.json", "report.json"):
        with open(app.store.get(ids[1]).file(name), "w") as f:
            f.write("{")
    page = Page(report(app, ids))
    gate.open()
    assert re.search("running after|starting after", page.text) and "succeeded after" in page.text


def test_the_command_sums_up_the_last_24_hours_and_writes_the_page_where_it_is_told(three, tmp_path, capsys,
                                                                                  fake):
    assert cms.run_typed(["report"], os.environ) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("3 tasks: 2 succeeded, 1 failed") and [row[:12] for row in rows] == three[1]
    assert cms.run_typed(["report", "--json"], os.environ) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["summary"] == first and [task["task_id"] for task in data["tasks"]] == three[1]
    path = tmp_path / "report.html"
    assert cms.run_typed(["report", "--html", str(path), three[1][0][:6]], os.environ) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"The page is {path}"
    assert "1 task: 1 succeeded" in Page(path.read_text(encoding="utf-8")).text


def test_what_a_reply_adds_to_a_branch_is_summed_up_once(swarm):
    app = swarm()
    first = run(app, "WRITE a 1", worktree=True)
    again = run(app, "SAY nothing more", task_id=first["task_id"])
    other = run(app, "WRITE b 1", worktree=True)
    assert cms.account([first, again, other]).endswith("; +2 -0 2 files")


def test_without_a_task_the_command_says_how_to_name_older_ones(environment, capsys):
    assert cms.run_typed(["report"], os.environ) == 1
    said = capsys.readouterr()
    assert said.out == "" and "ls --all" in said.err
