"""Which models there are, as each API shows them; what browsers ask before they ask."""

import pytest

from actorrt.serve.llm.listing import page_of

from .conftest import ScriptedApp


def test_models_and_their_aliases_are_listed(scripted_app: ScriptedApp) -> None:
    listed = scripted_app.client.get("/v1/models").json()
    assert listed["object"] == "list"
    shown = {each["id"]: each for each in listed["data"]}
    assert set(shown) == {"scripted", "other/name"}
    assert shown["other/name"] == scripted_app.client.get("/v1/models/other/name").json()
    assert shown["scripted"]["object"] == "model"
    assert isinstance(shown["scripted"]["created"], int)


def test_a_model_that_is_not_there_is_404(scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.get("/v1/models/nobody")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_who_speaks_anthropics_gets_their_shape(scripted_app: ScriptedApp) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    page = scripted_app.client.get("/v1/models", headers=headers).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("scripted", "other/name", False)
    assert page["data"][0]["type"] == "model"
    missing = scripted_app.client.get("/v1/models/nobody", headers=headers)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")


NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("query", "shown", "more"),
    [
        ("", "abcde", False),
        ("limit=2", "ab", True),
        ("limit=2&after_id=b", "cd", True),
        ("limit=2&after_id=c", "de", False),
        ("after_id=e", "", False),
        ("limit=2&before_id=d", "bc", True),
        ("limit=2&before_id=c", "ab", False),
        ("limit=1000&before_id=a", "", False),
    ],
)
def test_a_page_has_what_was_asked_for(query: str, shown: str, more: bool) -> None:
    assert page_of(NAMES, query) == (list(shown), more)


def test_a_page_is_of_twenty_where_nothing_is_said() -> None:
    assert page_of([str(each) for each in range(30)], "") == ([str(each) for each in range(20)], True)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=many",
        "limit=",
        "limit=-1",
        "after_id=x",
        "before_id=",
        "after_id=other%2Fname&before_id=scripted",
    ],
)
def test_a_page_that_cannot_be_is_400_in_anthropics_shape(query: str, scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.get(f"/v1/models?{query}", headers={"anthropic-version": "2023-06-01"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["message"].startswith(query.partition("=")[0] + ":")


def test_the_pages_of_models_are_linked_by_their_ids(scripted_app: ScriptedApp) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    first = scripted_app.client.get("/v1/models?limit=1", headers=headers).json()
    assert (first["first_id"], first["last_id"], first["has_more"]) == ("scripted", "scripted", True)
    second = scripted_app.client.get(f"/v1/models?limit=1&after_id={first['last_id']}", headers=headers).json()
    assert (second["first_id"], second["last_id"], second["has_more"]) == ("other/name", "other/name", False)


def test_head_is_get_without_its_body(scripted_app: ScriptedApp) -> None:
    shown = scripted_app.client.get("/v1/models")
    head = scripted_app.client.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == shown.headers["content-length"]


def test_a_page_of_any_origin_may_call_by_default(scripted_app: ScriptedApp) -> None:
    headers = {
        "origin": "http://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    asked = scripted_app.client.options("/v1/chat/completions", headers=headers)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type"
    assert "POST" in asked.headers["access-control-allow-methods"]
    for path in ("/v1/models", "/v1/models/nobody"):
        assert scripted_app.client.get(path, headers=headers).headers["access-control-allow-origin"] == "*"
