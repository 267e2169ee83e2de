"""The picture of the README shows what a session looks like."""
import pathlib
import runpy

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_picture_of_the_readme_is_what_a_session_looks_like():
    """If not: `tests/picture` draws it anew."""
    picture = runpy.run_path(str(ROOT / "tests" / "picture"))
    assert picture["words"](picture["svg"](picture["session"]())) == \
        picture["words"]((ROOT / "docs" / "session.svg").read_text(encoding="utf-8"))
    assert "(docs/session.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
