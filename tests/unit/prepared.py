"""A state that many tests begin with: made once for all processes of a run, then copied for each test."""
import fcntl
import hashlib
import os
import pickle
import threading

from conftest import read_tree, write_tree
from .helpers import WAIT_S


def prepared(place, name, make):
    """Bring `place` into the state that `make()` leads to from what is there, and say what that returned. It
    is called but once for the same beginning."""
    place = str(place)
    kept = os.path.join(shared(place), digest_of(place, name))
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with open(kept + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(kept):
            value = make()
            for thread in threading.enumerate():
                if thread.name == "sweep":              # which a start began by itself
                    thread.join(WAIT_S)
                    assert not thread.is_alive()
            with open(kept, "wb") as f:
                pickle.dump((place, value, read_tree(place)), f)
            return value
    with open(kept, "rb") as f:
        made_at, value, tree = pickle.load(f)
    write_tree(tree, place, os.fsencode(made_at), os.fsencode(place))
    return moved(value, made_at, place)


def shared(place):
    """A directory that all processes of this run have, and that goes as theirs do."""
    up = 2 if "PYTEST_XDIST_WORKER" in os.environ else 1
    return os.path.join(os.path.abspath(place + "/.." * up), "prepared")


def moved(value, old, new):
    """What was said of one place, said of another."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, tuple):
        parts = [moved(part, old, new) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    return value


def digest_of(place, name):
    """Of a name and of each file of the repository and of ROOT, with what it says of neither `place` nor
    inodes."""
    digest = hashlib.sha1(repr(name).encode())
    for top in ("repo", "root"):
        for folder, folders, names in os.walk(os.path.join(place, top)):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    digest.update(os.fsencode(path[len(place):]) + b"\0")
                    with open(path, "rb") as f:
                        digest.update(b"" if name == "index" else f.read().replace(os.fsencode(place), b""))
    return digest.hexdigest()
