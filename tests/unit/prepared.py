"""A state that many tests begin with: made once in each process, then copied for each of them."""
import os
import pathlib
import shutil
import stat
import subprocess
import tempfile
import threading

STATES = {}             # what a state is known by -> State


class State:
    """What the directory of a test came to hold, and what the test is told of it."""

    def __init__(self, place, value):
        self.kept = tempfile.TemporaryDirectory()       # removed with its last reference
        self.place, self.value, self.files = str(place), value, files_of(place)
        copy(str(place), self.kept.name)


def prepared(place, name, make, upon=None):
    """Bring `place` into the state that `make()` leads to, and say what that returned; it is called but once.

    It builds on the state `upon`, which must be untouched, or on what every test begins with.
    """
    if upon:
        assert files_of(place) == STATES[upon].files, "there is more than %r here: make it anew" % upon
    if name not in STATES:
        value = make()
        for thread in threading.enumerate():
            if thread.name == "sweep":                  # which a start began by itself
                thread.join()
        STATES[name] = State(place, value)
        return value
    state = STATES[name]
    for tree in copy(state.kept.name, str(place), os.fsencode(state.place), os.fsencode(str(place))):
        # The copies have other inodes: git shall find them as it would have left them.
        subprocess.run(["git", "update-index", "-q", "--refresh"], cwd=tree, check=True)
    return state.value


def files_of(place):
    """Each file of the repository and of ROOT, with what it says of neither `place` nor inodes."""
    place, files = pathlib.Path(str(place)), {}
    for top in ("repo", "root"):
        for path in (place / top).rglob("*"):
            if path.is_file():
                text = path.read_bytes().replace(os.fsencode(str(place)), b"")
                files[path.relative_to(place)] = path.name == "index" or text
    return files


def copy(source, target, old=b"", new=b""):
    """Copy all that is below `source`, with another path in the files; the checkouts among the copies."""
    trees = []
    for folder, folders, names in os.walk(source):
        there = target + folder[len(source):]
        os.makedirs(there, exist_ok=True)
        shutil.copymode(folder, there)
        if ".git" in folders or ".git" in names:
            trees.append(there)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            copy_file(os.path.join(folder, name), os.path.join(there, name), old, new)
    return trees


def copy_file(path, copied, old, new):
    about = os.lstat(path)
    if os.path.lexists(copied):
        os.unlink(copied)
    if stat.S_ISFIFO(about.st_mode):
        os.mkfifo(copied, stat.S_IMODE(about.st_mode))
    elif stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(path), copied)
    else:
        with open(path, "rb") as source, open(copied, "wb") as target:
            target.write(source.read().replace(old, new))
        shutil.copystat(path, copied)
