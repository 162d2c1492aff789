"""What a client says of when and where its request runs, and what the queue is told of it."""

from dataclasses import replace
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.llm import LLMConfig, SimulatedEngine
from actorrt.serve.llm.config import ConfigError
from actorrt.serve.llm.costs import ModelCost, cost_of, without_deadline
from actorrt.serve.llm.demand import PromptSizes, filled_up, queue_cost_of
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.llm.problems import Problem
from actorrt.serve.llm.responses.keeping import Context
from actorrt.serve.llm.wishes import Wishes, wishes_of


@pytest.mark.parametrize(
    ("fields", "headers", "wishes"),
    [
        ({}, {}, Wishes()),
        ({"service_tier": "flex", "user": "u"}, {}, Wishes("flex", "u")),
        ({"service_tier": "auto", "user": "u", "safety_identifier": "s"}, {}, Wishes("", "s")),
        ({"metadata": {"user_id": "m"}}, {}, Wishes("", "m")),
        ({"metadata": {"user_id": 7}, "service_tier": None, "user": None, "prompt_cache_key": None}, {}, Wishes()),
        ({"service_tier": "scale"}, {}, Wishes()),
        ({"service_tier": "standard_only"}, {}, Wishes()),
        ({"service_tier": "batch", "safety_identifier": "", "user": "u"}, {}, Wishes("batch", "u")),
        ({"metadata": ["user_id"]}, {}, Wishes()),
        ({"prompt_cache_key": "k"}, {}, Wishes(session="k")),
        ({"prompt_cache_key": "k"}, {b"x-session-id": b" chat 1 "}, Wishes(session="chat 1")),
        ({}, {b"x-session-id": b"s" * 9999}, Wishes(session="s" * 128)),
        ({}, {b"x-request-timeout-ms": b"1500"}, Wishes(timeout_s=1.5)),
        ({}, {b"x-request-timeout-ms": b"86400000", b"x-session-id": b""}, Wishes(timeout_s=86400.0)),
    ],
)
def test_what_a_client_wishes_is_read_from_fields_and_headers(
    fields: dict[str, Any], headers: dict[bytes, bytes], wishes: Wishes
) -> None:
    assert wishes_of(fields, headers) == wishes


@pytest.mark.parametrize("name", ["service_tier", "user", "safety_identifier", "prompt_cache_key"])
@pytest.mark.parametrize(("value", "kind"), [(5, "an integer"), ({"a": 1}, "an object"), ([], "an array")])
def test_a_field_of_a_wrong_type_is_400_and_named(name: str, value: object, kind: str) -> None:
    with pytest.raises(Problem) as found:
        wishes_of({"safety_identifier": "s", name: value}, {b"x-session-id": b"s"})
    problem = found.value
    assert (problem.status, problem.param, problem.code) == (400, name, "invalid_type")
    assert problem.message == f"'{name}' must be a string, not {kind}"


def test_a_tier_that_no_api_has_is_400_and_those_that_there_are_are_named() -> None:
    with pytest.raises(Problem, match=r"must be one of 'auto', 'batch', .* not 'nonsense'") as found:
        wishes_of({"service_tier": "nonsense"}, {})
    assert (found.value.status, found.value.param, found.value.code) == (400, "service_tier", "invalid_value")


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "2s", "86400001", "9" * 500, "\u0661", "nan", "1_0", "0x10"])
def test_a_timeout_that_is_none_is_400_and_named(value: str) -> None:
    with pytest.raises(Problem, match="x-request-timeout-ms must be a whole number of milliseconds from 1 to") as found:
        wishes_of({}, {b"x-request-timeout-ms": value.encode()})
    assert (found.value.status, found.value.param, len(found.value.message) < 200) == (
        400,
        "x-request-timeout-ms",
        True,
    )


def test_responses_of_a_chain_are_one_session_unless_their_client_names_another() -> None:
    item = {"type": "message", "id": "msg_1"}
    assert Context(None, (), [item, {"id": "msg_2"}]).name == "msg_1"
    assert Context("resp_1", [item], [{"id": "msg_3"}]).name == "msg_1"
    assert [Context(None, (), items).name for items in ([], [{"type": "message"}], [{"id": 5}])] == ["", "", ""]
    assert Wishes().within("msg_1").session == "msg_1"
    assert Wishes(session="mine").within("msg_1").session == "mine"


def test_the_queue_is_told_of_them_beside_the_tokens() -> None:
    wishes = Wishes("flex", "u", "s", 2.0)
    body = b'{"model": "m", "messages": "' + b"x" * 369 + b'"}'
    fields = {"messages": "x" * 369, "max_tokens": 7}
    cost = cost_of(fields, model="french", tenant="t", adapter="french", wishes=wishes)
    call = EngineCall("/v1/chat/completions", body)
    told = queue_cost_of(call, PromptSizes(), cost)
    assert told == QueueCost(
        tokens=93, max_tokens=7, tenant="t", user="u", band="flex", deadline_s=2.0, session="s", adapter="french"
    )
    # What is read and not generated is asked for in time, too.
    read = queue_cost_of(call._replace(path="/v1/embeddings"), PromptSizes(), cost)
    assert read == QueueCost(tokens=93, max_tokens=0, tenant="t", band="flex", deadline_s=2.0)


def test_an_answer_that_goes_on_elsewhere_has_no_deadline_any_more() -> None:
    cost = ModelCost(wishes=Wishes(timeout_s=1.0, session="s"))
    assert without_deadline(cost).wishes == Wishes(session="s")  # type: ignore[attr-defined]
    same = ModelCost()
    assert without_deadline(same) is same


def test_what_a_cost_function_leaves_open_is_as_estimated() -> None:
    estimate = QueueCost(tokens=97, max_tokens=7, tenant="t", user="u", band="flex", session="s", chain=(1, 2))
    assert filled_up(serve.Cost(tokens=5), estimate) == replace(estimate, tokens=5)
    own = QueueCost(tokens=5, tenant="another", max_tokens=0)
    assert filled_up(own, estimate) == replace(estimate, tokens=5, tenant="another", max_tokens=0)
    assert filled_up(QueueCost(band="batch"), estimate) == replace(estimate, band="batch")


def test_a_models_cost_function_is_its_own_and_is_there() -> None:
    engine = SimulatedEngine()
    with pytest.raises(ConfigError, match=r"LLMConfig\.cost: cost must be a function or 'module:name' of one, not 5"):
        LLMConfig(model_id="m", engine=engine, cost=5)
    with pytest.raises(ConfigError, match="cost function nowhere:it is not there"):
        LLMConfig(model_id="m", engine=engine, cost="nowhere:it")
    router = serve.RequestRouterConfig("capacity_queue", {"cost": len})
    with pytest.raises(ConfigError, match="a model's cost function is the field cost of its LLMConfig"):
        LLMConfig(model_id="m", engine=engine, deployment={"request_router": router})
