import functools
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import cloudpickle
import pytest

from actorrt.core.arity import Arity
from actorrt.runtime.api.actor import Actor
from actorrt.runtime.api.methods import method
from actorrt.runtime.api.remote import ActorClass, RemoteFunction, remote
from actorrt.runtime.base import shipping
from actorrt.runtime.base.definitions import ActorClassDef, RemoteFunctionDef, method_specs

MODULE = """
from actorrt import remote
table = {}

@remote
def lookup(key):
    return table.setdefault(key, len(table))

@remote
class Counter:
    def where(self):
        return __name__

def plain(key):
    def inner():
        return key
    return inner
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that can be imported anywhere `sys.path` is the same."""
    (tmp_path / "shipped_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("shipped_module")
    del sys.modules["shipped_module"]


def in_a_new_process(blob: bytes, expression: str, path: Path | None = None) -> str:
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r})\n"
        f"from actorrt.runtime.base import shipping; code = shipping.load({blob!r}); print({expression})"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_code_of_an_importable_module_goes_by_name(module: ModuleType, tmp_path: Path) -> None:
    blob = module.lookup.definition.blob
    assert len(blob) < 200
    assert shipping.load(blob) is module.lookup.definition.code
    assert shipping.load(module.Counter.definition.blob) is module.Counter.definition.code
    assert in_a_new_process(blob, "code('a'), code('b'), code.__globals__['table']", tmp_path) == "0 1 {'a': 0, 'b': 1}"


def test_code_of_a_module_that_workers_cannot_find_goes_by_value(module: ModuleType, tmp_path: Path) -> None:
    sys.path.remove(str(tmp_path))
    (tmp_path / "shipped_module.py").unlink()
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    try:
        blob = module.lookup.definition.blob
        assert in_a_new_process(blob, "code('a')") == "0"
    finally:
        cast(Any, cloudpickle).unregister_pickle_by_value(module)


def test_nested_functions_go_by_value(module: ModuleType, tmp_path: Path) -> None:
    assert in_a_new_process(shipping.ship(module.plain("x")), "code()", tmp_path) == "x"


@remote
def factorial(n: int) -> Any:
    # Refers to itself by the decorated name.
    return 1 if n == 0 else (n, factorial)


@remote
def even(n: int) -> Any:
    return n == 0 or odd


@remote
def odd(n: int) -> Any:
    return n != 0 and even


@pytest.fixture
def by_value() -> Iterator[None]:
    this = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(this)
    yield
    cast(Any, cloudpickle).unregister_pickle_by_value(this)


@pytest.mark.usefixtures("by_value")
def test_code_that_names_itself_or_each_other_can_be_shipped() -> None:
    for function in (factorial, even, odd):
        definition = RemoteFunctionDef.of(function.definition.code)
        code = shipping.load(definition.blob)
        again = code.__globals__[{"factorial": "factorial", "even": "odd", "odd": "even"}[code.__name__]]
        assert isinstance(again, RemoteFunction)
        assert again.definition.arity == Arity.of(code)
        assert callable(again.definition.code)


def test_a_definition_arrives_with_its_id_and_is_unpickled_once() -> None:
    definition = factorial.definition
    one: Any
    one, two = (pickle.loads(pickle.dumps(factorial)).definition for _ in range(2))
    assert one is two
    assert one is not definition
    assert one.function_id == definition.function_id
    assert len(one.function_id) == 16
    assert (one.name, one.is_async, one.arity) == (definition.name, False, definition.arity)
    assert one.code(0) == 1


def test_other_options_share_the_definition() -> None:
    other = factorial.options(num_cpus=2)
    assert other.definition is factorial.definition
    assert pickle.loads(pickle.dumps(other)).task_options == other.task_options


class Base:
    def inherited(self) -> None: ...


class Every(Base):
    LIMIT = 3

    def __init__(self, x: int) -> None: ...
    def __len__(self) -> int:
        return 0

    def __call__(self, y: int) -> None: ...
    def plain(self, a: int, b: int = 1) -> None: ...
    async def coroutine(self) -> None: ...
    def generator(self) -> Iterator[int]:
        yield 1

    async def async_generator(self) -> Any:
        yield 1

    @staticmethod
    def static(a: int) -> None: ...
    @classmethod
    def of_class(cls, a: int) -> None: ...
    @method(num_returns=2, concurrency_group="io")
    def marked(self) -> None: ...
    @property
    def value(self) -> int:
        return 1

    @functools.cached_property
    def kept(self) -> int:
        return 1

    @functools.lru_cache  # noqa: B019
    def _cached(self, a: int) -> None: ...


def test_every_method_is_found_with_its_kind_and_arity() -> None:
    specs = method_specs(Every)
    assert {name: (spec.is_async, spec.is_generator) for name, spec in specs.items()} == {
        "__call__": (False, False),
        "inherited": (False, False),
        "plain": (False, False),
        "coroutine": (True, False),
        "generator": (False, True),
        "async_generator": (True, True),
        "static": (False, False),
        "of_class": (False, False),
        "marked": (False, False),
        "_cached": (False, False),
    }
    assert (specs["plain"].arity.least, specs["plain"].arity.most) == (1, 2)
    assert (specs["static"].arity.most, specs["of_class"].arity.most, specs["__call__"].arity.most) == (1, 1, 1)
    assert specs["generator"].options.num_returns == "streaming"
    assert specs["marked"].options.num_returns == 2
    assert specs["marked"].concurrency_group == "io"


def test_an_actor_class_knows_whether_it_has_async_methods() -> None:
    assert ActorClassDef.of(Every, ["io"]).has_async
    assert not ActorClassDef.of(Base).has_async
    assert ActorClassDef.of(Every, ["io"]).arity.most == 1


def test_a_group_that_the_class_does_not_have_is_an_error_where_it_is_decorated() -> None:
    with pytest.raises(ValueError, match=r"Every\.marked is in the concurrency group 'io', which is not among"):
        remote(concurrency_groups={"compute": 1})(Every)


def test_a_class_that_derives_from_actor_offers_what_is_marked() -> None:
    class Narrow(Actor):
        @method
        def offered(self) -> None: ...
        async def not_offered(self) -> None: ...

    definition = ActorClassDef.of(Narrow)
    assert list(definition.methods) == ["offered"]
    assert definition.has_async
    assert definition.name == "Narrow"


def test_an_interface_travels_and_is_shared() -> None:
    interface = ActorClassDef.of(Every, ["io"]).interface
    one, two = (pickle.loads(pickle.dumps(interface)) for _ in range(2))
    assert one is two
    assert one.methods == interface.methods
    assert one.groups == ("io",)
    made = pickle.loads(pickle.dumps(remote(concurrency_groups={"io": 1})(Every)))
    assert isinstance(made, ActorClass)
    assert made.definition.interface is one
    assert made.definition.code is Every
