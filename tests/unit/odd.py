"""JSON data and bytes such as nobody means to send: made from a seed, so that what fails once fails again.

`FUZZ_ROUNDS=100` in the environment tries a hundred times as much as the suite does.
"""
import json
import os
import random

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1"))
TEXTS = ["", " ", "a", "-", ".", "..", "/", "~", "../..", "*", "\0", "\n", "a\nb", "\r", "\x1b[2J", "\u2028",
         "\ud800", "\U0001f41d", "\u202e", "0", "-1", "None", "null", "{}", "%s %d", "{0}", "a" * 5000,
         "000000000001", "0" * 12, "HEAD", "--help", "-c", "$(true)", "'", "\"", "\\", "[", "(((", "item_1"]
NUMBERS = [0, 1, -1, 2, 7, 1000, 1 << 31, 1 << 53, 1 << 63, -(1 << 63), 10 ** 400, 0.5, -0.0, 1e308, 5e-324,
           float("inf"), float("-inf"), float("nan")]


def rounds(count):
    """The random numbers of as many tries, each with its seed in `.seed_of`."""
    for seed in range(count * ROUNDS):
        yield Chance(seed)


class Chance(random.Random):
    def __init__(self, seed):
        super().__init__(seed)
        self.seed_of = seed

    def odds(self, likely):
        return self.random() < likely

    def value(self, depth=3):
        """Any JSON value, such as Python reads it: with NaN, too."""
        kind = self.randrange(8 if depth else 6)
        if kind < 2:
            return self.choice(TEXTS)
        if kind < 4:
            return self.choice(NUMBERS)
        if kind < 6:
            return self.choice([None, True, False])
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.randrange(4))]
        return {self.choice(TEXTS): self.value(depth - 1) for _ in range(self.randrange(4))}

    def changed(self, value, likely=0.2):
        """A copy of JSON data in which some parts are another, are missing, or are there twice."""
        if self.odds(likely / 4):
            return self.value()
        if isinstance(value, dict):
            kept = {key: self.changed(part, likely) for key, part in value.items()
                    if not self.odds(likely / 4)}
            if self.odds(likely / 4):
                kept[self.choice([*value, *TEXTS])] = self.value()
            return kept
        if isinstance(value, list):
            return [self.changed(part, likely) for part in value for _ in range(1 + self.odds(likely / 4))]
        return self.value() if self.odds(likely) else value

    def torn(self, data):
        """A copy of bytes that was cut, flipped, doubled or filled with zeros somewhere."""
        data = bytearray(data)
        for _ in range(self.randrange(1, 4)):
            at, until = sorted(self.randrange(len(data) + 1) for _ in "ab")
            how = self.randrange(5)
            if how == 0:
                del data[at:]
            elif how == 1:
                del data[at:until]
            elif how == 2:
                data[at:at] = data[at:until][:1000]
            elif how == 3:
                data[at:until] = b"\0" * (until - at)
            elif at < len(data):
                data[at] = self.randrange(256)
        return bytes(data)

    def pieces(self, data):
        """The same bytes in pieces of any size."""
        while data:
            size = self.choice([1, 7, 100, 5000])
            yield data[:size]
            data = data[size:]


def dumped(value):
    """A line of JSON, as bytes; half of a surrogate pair as an escape, as a program may write it."""
    return json.dumps(value).encode() + b"\n"
