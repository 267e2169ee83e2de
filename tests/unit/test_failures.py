"""Why a run failed, told by codex's own words at the place where codex puts them."""
import pytest

import codex_mcp_swarm as cms
from codex_mcp_swarm import FailureKind, Outcome

from .helpers import NAMES, exit_of, folded, lines_of, stderr_of

KINDS = {
    "auth": "h401 h403 noauth_401 noauth_envkey retry_h401 retry_h403",
    "rate_limit": "f_rate f_slow h429 retry_f_rate retry_h429",
    "usage_limit": "f_quota f_usage h429_notincl h429_quota h429_usage retry_h429_usage",
    "overloaded":
        "f_overload f_server f_then_ok h500 h500_then_ok h503 retry_f_overload retry_h500 review_fail",
    "network":
        "badutf8 conn_refused_bounded conn_refused_bounded5 drop drop_then_ok hang_server reset retry_drop",
    "context_overflow": "f_ctx",
    "bad_request": "f_invalid h400 h400_model h404 h413 prompt_too_long retry_h400 retry_h404 x_badmodel",
    "resume": "resume_conflict x_fork_unknown x_resume_unknown",
    "not_a_repository": "x_nogit x_nogit_dfa",
    "config": "review_custom_plus_base review_s_after x_askapproval_flag x_badfeature x_badflag "
              "x_badkey_strict x_badprovider"
              " x_badsandbox_cfg x_badsandbox_flag x_badvalue x_fullauto x_noeq",
    "killed": "sighup sigkill sigterm",
    "unknown": "f_policy incomplete sigint x_bad_schema x_missing_cwd x_missing_schema x_noprompt",
}
EXPECTED = {name: kind for kind, names in KINDS.items() for name in names.split()}
STOPPED_BY_THE_RECORDER = 124
FORK_WITHOUT_PROMPT = "fork_noprompt"           # the one exit 0 without a turn; this server never asks for it


def judged(name):
    """(outcome, kind, message): the evidence of a recording, weighed as the supervisor weighs it."""
    progress = folded(lines_of(name))
    outcome, kind = cms.verdict(exit_of(name), progress)
    if outcome is Outcome.SUCCEEDED or kind is not None:
        return outcome, kind, ""
    failure = cms.classify(progress.error, stderr_of(name))
    return outcome, failure.kind, failure.message


def test_every_failing_recording_stands_in_the_table():
    failing = {name for name in NAMES if exit_of(name) not in (0, STOPPED_BY_THE_RECORDER)}
    assert failing == set(EXPECTED) and len(failing) > 60


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_failing_recording_has_its_kind(name):
    outcome, kind, _ = judged(name)
    assert (outcome, kind.value) == (Outcome.FAILED, EXPECTED[name])


@pytest.mark.parametrize("name", [n for n in NAMES if exit_of(n) == 0 and n != FORK_WITHOUT_PROMPT])
def test_a_recording_that_exits_0_succeeded(name):
    assert judged(name)[:2] == (Outcome.SUCCEEDED, None)


@pytest.mark.parametrize("name", [n for n in sorted(EXPECTED) if folded(lines_of(n)).error])
def test_the_message_is_codex_own(name):
    assert judged(name)[2] == folded(lines_of(name)).error


@pytest.mark.parametrize("name, words", [
    ("x_nogit", "Not inside a trusted directory"), ("x_badflag", "unexpected argument '--bogus'"),
    ("x_badprovider", "Model provider `nope`"),
    ("resume_conflict", "already has an active writer"), ("prompt_too_long", "1048576"),
    ("x_missing_cwd", "No such file or directory"),
    ("x_noprompt", "No prompt provided"), ("x_bad_schema", "not valid JSON"),
])
def test_a_failure_at_start_up_shows_the_line_of_stderr_that_tells_why(name, words):
    assert words in judged(name)[2]


# Not in the recordings: the words are in the binary (codex-cli 0.169.0), the situations were not provoked.
WORDS = [
    ("You've hit your usage limit. Try again later.", "usage_limit"),
    ("You\u2019ve hit your usage limit. Try again later.", "usage_limit"),
    ("We're currently experiencing high demand, which may cause temporary errors.", "overloaded"),
    ("We\u2019re currently experiencing high demand, which may cause temporary errors.", "overloaded"),
    ("unexpected status 502 Bad Gateway: x, url: y", "overloaded"),
    ("unexpected status 429 Too Many Requests: x, url: y", "rate_limit"),
    ("unexpected status 418 I'm a teapot: x, url: y", "bad_request"),
    ("exceeded retry limit, last status: 503 Service Unavailable", "overloaded"),
    ("sandbox error: command was denied", "sandbox"),
]
INNOCENT = [
    "the error is on line 512", "error 429 on line 3", "timeout 503",
    "I wrote: unexpected status 401 Unauthorized: x",
    "see https://example.com/unexpected status 500 ", "the log says rate limit exceeded: often",
    "4\u2019You\u2019ve hit your usage limit",
    "test_429.py failed", "line 1: Connection failed: x", "unexpected status 4011 x",
    "unexpected status 5000 x", "Quota exceeded.csv is missing",
    "network", "401", "{}",
]


@pytest.mark.parametrize("words, kind", WORDS)
def test_a_message_is_known_by_its_beginning(words, kind):
    assert cms.classify(words, "").kind.value == kind
    assert cms.classify("", "Reading prompt from stdin...\n%s\n" % words).kind.value == kind


@pytest.mark.parametrize("words", INNOCENT)
def test_a_number_or_a_word_somewhere_inside_tells_nothing(words):
    assert cms.classify(words, "").kind is FailureKind.UNKNOWN
    assert cms.classify("", words + "\n").kind is FailureKind.UNKNOWN


def test_the_message_of_the_turn_goes_before_stderr():
    assert cms.classify("flagged", "Error: thread/resume: thread/resume failed\n").kind is FailureKind.UNKNOWN


def test_of_several_lines_that_tell_the_first_one_counts():
    stderr = "Error loading config.toml: no\nError: thread/resume: thread/resume failed\n"
    assert cms.classify("", stderr).kind is FailureKind.CONFIG


def test_a_run_that_ends_without_a_word_tells_nothing():
    for stderr in ("", "\n\n", "Reading additional input from stdin...\n", "warning: untrusted\n"):
        assert cms.classify("", stderr) is None


def test_a_message_is_bounded_and_on_one_line():
    failure = cms.classify("unexpected status 401 Unauthorized: " + "x\n" * 100_000, "")
    assert failure.kind is FailureKind.AUTH and len(failure.message) <= 2000 and "\n" not in failure.message


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_says_whether_a_retry_helps_and_what_to_do(kind):
    failure = cms.failure(kind, "words of codex")
    assert (failure.kind, failure.message) == (kind, "words of codex")
    assert isinstance(failure.retryable, bool) and failure.advice.endswith(".") and len(failure.advice) > 20
    assert failure.retryable == (kind.value in ("rate_limit", "network", "overloaded", "codex_crash",
                                                "killed", "lost", "disagreement"))


REFUSALS = {"esc": "approval policy is Never", "badtool": "unsupported call: no_such_tool",
            "patch": "apply_patch verification failed",
            "plan_default": "unsupported call: update_plan", "success": None, "h401": None}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_what_codex_refused_to_run_is_told(name):
    told = cms.rejections(stderr_of(name))
    assert any(REFUSALS[name] in text for text in told) if REFUSALS[name] else told == []
