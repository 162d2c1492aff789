"""What a client is told of errors that are not the model's."""

from typing import Any

import pytest

from actorrt.exceptions import ActorrtError, NodeDiedError
from actorrt.serve.exceptions import ServeError
from actorrt.serve.llm.exchange import Exchange
from actorrt.serve.llm.failures import problem_of


def exchange() -> Exchange:
    nobody: Any = None
    return Exchange(
        {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": []},
        nobody,
        nobody,
    )


@pytest.mark.parametrize("error", [ActorrtError("actorrt was shut down"), NodeDiedError("n", "it was killed")])
def test_what_ends_with_the_session_may_be_asked_for_again(error: Exception) -> None:
    problem = problem_of(error, exchange())
    assert (problem.status, problem.code) == (503, "model_unavailable")
    assert problem.retry_after_s
    assert str(error) not in problem.message


@pytest.mark.parametrize("error", [ServeError("wrong"), ValueError("wrong"), KeyError("wrong")])
def test_what_code_raises_is_an_error_of_the_server(error: Exception) -> None:
    assert problem_of(error, exchange()).status == 500
