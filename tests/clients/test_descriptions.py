"""Requests that schemathesis makes of descriptions, right ones and wrong ones: no answer is a 5xx or undescribed.

By OpenAI's own description, which asks for much that nothing here has; and by one of what every engine answers.
"""

import json
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .application import FAKE, KEY, MODEL, WORDS
from .description import description
from .official import KEPT, official

AUTHORIZED: Final = {"authorization": f"Bearer {KEY}"}
HELD: Final = [not_a_server_error, status_code_conformance, content_type_conformance]
# Nothing is shrunk: that would ask a model a thousand times.
MADE: Final = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)

FEWER: Final = settings(MADE, max_examples=15)
# Each test is many requests, to a model that shares the processor.
pytestmark = pytest.mark.timeout(300)


def made_of(described: dict[str, Any]) -> Any:
    return schemathesis.openapi.from_dict(described)


@made_of(official(FAKE, WORDS)).parametrize()
@MADE
def test_the_simulated_engine_by_openais_description(case: schemathesis.Case, url: str) -> None:
    hold(case, f"{url}/v1", FAKE)


@made_of(official(MODEL, WORDS)).parametrize()
@FEWER
def test_llama_cpp_by_openais_description(case: schemathesis.Case, url: str) -> None:
    hold(case, f"{url}/v1", MODEL)


@made_of(description(FAKE, WORDS)).parametrize()
@MADE
def test_the_simulated_engine_by_what_every_engine_answers(case: schemathesis.Case, url: str) -> None:
    hold(case, url, FAKE)


@made_of(description(MODEL, WORDS)).parametrize()
@FEWER
def test_llama_cpp_by_what_every_engine_answers(case: schemathesis.Case, url: str) -> None:
    hold(case, url, MODEL)


def hold(case: schemathesis.Case, base: str, model: str) -> None:
    if case.path_parameters.get("response_id") == KEPT:
        case.path_parameters["response_id"] = kept(base, model, cancelled=case.path.endswith("/cancel"))
    response = case.call(base_url=base, headers=AUTHORIZED, timeout=60)
    streamed = response.headers["content-type"][0].startswith("text/event-stream")
    case.validate_response(response, checks=HELD if streamed else [*HELD, response_schema_conformance])
    if streamed:
        described = validator(case.operation)
        for event in response.content.decode().removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]:
            (data,) = [line.removeprefix("data: ") for line in event.split("\n") if line.startswith("data: ")]
            described.validate(json.loads(data))


def kept(base: str, model: str, *, cancelled: bool) -> str:
    """A response that is there: made in the background, if it is to be cancelled."""
    asked: dict[str, Any] = {"model": model, "input": "x", "max_output_tokens": 16, "background": cancelled}
    return httpx.post(f"{base}/responses", json=asked, headers=AUTHORIZED, timeout=60).json()["id"]


def validator(operation: Any) -> Draft202012Validator:
    """Of the events of its streams."""
    whole = operation.schema.raw_schema
    streams = whole["paths"][operation.path][operation.method]["responses"]["200"]["content"]["text/event-stream"]
    return Draft202012Validator({**streams["schema"], "components": whole["components"]})
