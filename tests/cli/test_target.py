"""What `actorrt serve` makes of MODULE:GRAPH, and what it says when there is nothing to serve there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from actorrt import serve
from actorrt.cli.problems import FAILED, WRONG_USE, CommandError
from actorrt.cli.target import kind_of, load, look_in, split


@pytest.fixture(autouse=True)
def _modules_of_a_test_are_forgotten(tmp_path: Path) -> Iterator[None]:
    path = list(sys.path)
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]
    sys.path[:] = path


def _module(folder: Path, name: str, source: str) -> None:
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


GRAPH = """
from actorrt import serve

@serve.deployment
class Hello:
    def __call__(self, request): return "hello"

class Plain: pass

def build(): pass

app = Hello.bind()
number = 3
"""


def _load(target: str, folder: Path) -> object:
    look_in(folder)
    return load(target)


def _refused(target: str, folder: Path) -> CommandError:
    with pytest.raises(CommandError) as caught:
        _load(target, folder)
    assert "\n" not in caught.value.text
    return caught.value


def test_a_graph_is_found_in_the_folder(tmp_path: Path) -> None:
    _module(tmp_path, "one", GRAPH)
    assert isinstance(_load("one:app", tmp_path), serve.Application)


def test_a_graph_is_found_in_a_package(tmp_path: Path) -> None:
    _module(tmp_path, "package/__init__", "")
    _module(tmp_path, "package/two", GRAPH)
    assert isinstance(_load("package.two:app", tmp_path), serve.Application)


@pytest.mark.parametrize("target", ["app", "app:", ":app", "a b:app", "app:1", "a:b:c", ""])
def test_a_target_of_another_form_is_refused_with_the_form(target: str) -> None:
    with pytest.raises(CommandError, match=r"MODULE:GRAPH") as caught:
        split(target)
    assert caught.value.code == WRONG_USE


def test_a_file_name_is_answered_with_the_module_that_was_meant() -> None:
    with pytest.raises(CommandError, match=r"`actorrt serve digits:app --app-dir examples`$"):
        split("examples/digits.py:app")
    with pytest.raises(CommandError, match=r"`actorrt serve digits:app`$"):
        split("digits.py")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    error = _refused("one:app", tmp_path / "nowhere")
    assert "nowhere" in error.text
    assert error.code == WRONG_USE


def test_a_missing_module_is_named_with_the_folder_it_was_looked_for_in(tmp_path: Path) -> None:
    error = _refused("no_such_module:app", tmp_path)
    assert "'no_such_module'" in error.text
    assert str(tmp_path) in error.text
    assert error.code == WRONG_USE


def test_a_module_that_misses_another_one_names_that_one_and_the_line(tmp_path: Path) -> None:
    _module(tmp_path, "three", "\nimport no_such_dependency\n")
    error = _refused("three:app", tmp_path)
    assert "no_such_dependency" in error.text
    assert f"{tmp_path}/three.py, line 2" in error.text
    assert error.code == FAILED


@pytest.mark.parametrize("source", ["1 / 0", "import sys; sys.exit('enough')", "def broken(:", "raise KeyError"])
def test_a_module_that_fails_is_shown_with_its_line(source: str, tmp_path: Path) -> None:
    name = f"failing_{abs(hash(source))}"
    _module(tmp_path, name, source)
    error = _refused(f"{name}:app", tmp_path)
    assert error.text.startswith(f"importing {name} failed: ")
    assert "line 1" in error.text
    assert error.code == FAILED


def test_a_missing_name_is_answered_with_the_nearest_graph(tmp_path: Path) -> None:
    _module(tmp_path, "four", GRAPH)
    assert "did you mean four:app?" in _refused("four:ap", tmp_path).text
    assert "the graphs in it are app" in _refused("four:something_else", tmp_path).text


def test_a_module_without_a_graph_says_what_to_add(tmp_path: Path) -> None:
    _module(tmp_path, "five", "")
    assert ".bind()" in _refused("five:zzz", tmp_path).text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Hello", "not bound"),
        ("Plain", "plain class 'Plain'"),
        ("build", "plain function 'build'"),
        ("number", "of type int"),
    ],
)
def test_what_is_no_graph_is_named_with_what_to_write(name: str, said: str, tmp_path: Path) -> None:
    _module(tmp_path, "six", GRAPH)
    error = _refused(f"six:{name}", tmp_path)
    assert said in error.text
    assert ".bind()" in error.text
    assert error.code == WRONG_USE


BARE = """
from starlette.applications import Starlette

app = Starlette()

async def raw(scope, receive, send): ...

class Wsgi:
    def __call__(self, environ, start_response): ...

class Django:
    async def __call__(self, scope, receive, send): ...

def handler(request): ...

wsgi, django = Wsgi(), Django()
"""


@pytest.mark.parametrize(("name", "deployment"), [("app", "Starlette"), ("raw", "raw"), ("django", "Django")])
def test_an_asgi_application_is_one_deployment(name: str, deployment: str, tmp_path: Path) -> None:
    _module(tmp_path, "bare", BARE)
    graph = _load(f"bare:{name}", tmp_path)
    assert isinstance(graph, serve.Application)
    assert graph.deployment.name == deployment


def test_a_wsgi_application_is_answered_with_how_to_serve_it(tmp_path: Path) -> None:
    _module(tmp_path, "wsgi", BARE)
    error = _refused("wsgi:wsgi", tmp_path)
    assert "a2wsgi.WSGIMiddleware(app)" in error.text
    assert error.code == WRONG_USE
    assert "plain function 'handler'" in _refused("wsgi:handler", tmp_path).text
    assert "plain class 'Django'" in _refused("wsgi:Django", tmp_path).text
    assert "did you mean wsgi:django?" in _refused("wsgi:djang", tmp_path).text


def test_a_bare_application_is_named_after_its_framework() -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    assert kind_of(Starlette()) == "an application of starlette"
    assert kind_of(app) == kind_of(CommandError("x", 1).with_traceback) == "a plain ASGI application"
