"""Which models there are, as each API shows them; what browsers ask before they ask."""

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
