"""Requests that schemathesis makes of a description, right ones and wrong ones: no answer is a 5xx or undescribed."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .application import FAKE, KEY, WORDS
from .description import description

schema = schemathesis.openapi.from_dict(description(FAKE, WORDS))
HELD = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_answer_is_as_described(case: schemathesis.Case, url: str) -> None:
    response = case.call(base_url=url, headers={"authorization": f"Bearer {KEY}"})
    case.validate_response(response, checks=HELD)
