"""What a call ends with that got no answer."""

from __future__ import annotations

import pytest

from actorrt.core.call_errors import crashed, forced, late, refused, unavailable
from actorrt.core.call_terms import CallTerms, Limit, Limits
from actorrt.exceptions import (
    ActorrtError,
    LinkError,
    NodeDiedError,
    OutOfMemoryError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

NODE_DIED = NodeDiedError("node", "its process is gone")


@pytest.mark.parametrize("oom", [False, True])
def test_a_crash_names_the_call_and_may_have_been_of_memory(oom: bool) -> None:
    error = crashed("task", "it was killed", oom, 1)
    assert type(error) is (OutOfMemoryError if oom else WorkerCrashedError)
    assert error.args[:2] == ("task", "it was killed")


def test_one_under_which_three_workers_died_says_so() -> None:
    assert "exit code 3; 3 workers in a row have died under it" in str(crashed("task", "exit code 3", False, 3))


@pytest.mark.parametrize("limit", Limit)
@pytest.mark.parametrize("began", [False, True])
def test_a_call_that_was_late_says_which_limit_that_was(limit: Limit, began: bool) -> None:
    terms = CallTerms(Limits(timeout_s=2.0, start_timeout_s=0.5), False, lambda: 0.5)
    terms.is_over(limit, began)
    error = late("task", terms, limit)
    assert (error.limit, error.seconds, error.may_have_run) == (
        *(("timeout_s", 2.0) if limit is Limit.TIMEOUT else ("start_timeout_s", 0.5)),
        began,
    )
    assert isinstance(error, TimeoutError)


def test_a_call_that_was_cancelled_with_force_says_so() -> None:
    assert "cancelled with force: it was killed" in str(forced("task", "it was killed"))


@pytest.mark.parametrize(
    ("said", "ends_with"),
    [
        (LinkError("closed"), NODE_DIED),
        (TaskUnschedulableError("", {}, "a GPU"), TaskUnschedulableError("task", {}, "a GPU")),
        (WorkerCrashedError("", "it did not start", True), WorkerCrashedError("task", "it did not start", True)),
    ],
)
def test_a_refusal_names_the_call_that_it_ends(said: ActorrtError, ends_with: ActorrtError) -> None:
    error = refused("task", said, NODE_DIED)
    assert (type(error), error.args) == (type(ends_with), ends_with.args)


def test_a_refusal_that_is_of_no_call_stays_as_it_is() -> None:
    error = RuntimeEnvSetupError("no such folder")
    assert refused("task", error, NODE_DIED) is error


def test_a_call_of_an_actor_that_comes_back_may_have_run() -> None:
    assert "it is being restarted" in str(unavailable("Actor", "its process ended"))
