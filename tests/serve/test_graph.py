from typing import Any, NamedTuple

import pytest

from actorrt.serve.declaration.declaration import Application, Deployment, deployment
from actorrt.serve.declaration.graph import flatten


class Model:
    def __init__(self, *parts: Any, **named: Any) -> None: ...


M: Deployment[Model] = deployment(Model)


class Pair(NamedTuple):
    left: Any
    right: Any


def named(name: str) -> Deployment[Model]:
    return M.options(name=name)


def flat(root: object) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    return {each.name: (each.args, dict(each.kwargs)) for each in flatten(root, lambda name: f"<{name}>")}


def test_children_come_before_their_parents_and_the_root_last() -> None:
    graph = named("root").bind(named("a").bind(named("b").bind()), named("c").bind())
    assert list(flat(graph)) == ["b", "a", "c", "root"]


def test_a_node_becomes_a_handle_at_any_depth_of_list_tuple_and_dict() -> None:
    graph = named("root").bind(
        {"x": [named("a").bind(), (1, named("b").bind())]}, Pair(named("c").bind(), 2), key={"y": named("d").bind()}
    )
    args, kwargs = flat(graph)["root"]
    assert args == ({"x": ["<a>", (1, "<b>")]}, Pair("<c>", 2))
    assert type(args[1]) is Pair
    assert kwargs == {"key": {"y": "<d>"}}


def test_a_shared_node_is_one_deployment() -> None:
    shared = named("shared").bind()
    graph = named("root").bind(named("a").bind(shared), named("b").bind([shared]), shared)
    assert sorted(flat(graph)) == ["a", "b", "root", "shared"]


def test_different_nodes_of_one_name_get_suffixes_and_the_root_keeps_its_own() -> None:
    graph = M.bind(M.bind(1), [M.bind(2)])
    assert flat(graph)["Model"][0] == ("<Model_1>", ["<Model_2>"])
    assert (flat(graph)["Model_1"][0], flat(graph)["Model_2"][0]) == ((1,), (2,))
    clash = named("x").bind(named("x").bind(), named("x_1").bind())
    assert len(flat(clash)) == 3


def test_a_container_without_nodes_is_the_same_object_as_before() -> None:
    class Own(dict[str, int]): ...

    weights = [1, 2, 3]
    own = Own(a=1)
    args, _ = flat(named("root").bind(weights, own, named("a").bind()))["root"]
    assert args[0] is weights
    assert args[1] is own


def test_a_pipeline_may_be_longer_than_the_stack() -> None:
    node: Application[Any] = named("n").bind()
    for _ in range(3000):
        node = named("n").bind(node)
    assert len(flat(node)) == 3001


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (M, r"Deployment\(Model\) is not bound: write Model.bind"),
        (Model, "not class Model"),
        (3, "not a value of type int"),
    ],
)
def test_what_is_no_graph_is_refused_with_what_to_write(root: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        flatten(root, str)


def test_an_unbound_deployment_among_the_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match=r"argument of root.bind\(\) is no graph: Deployment\(Model\) is not bound"):
        flatten(named("root").bind([M]), str)


def test_a_list_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match=r"argument of root.bind\(\) contains itself"):
        flatten(named("root").bind(loop), str)


def test_arguments_that_the_constructor_does_not_take_are_refused_at_bind() -> None:
    @deployment
    class Strict:
        def __init__(self, a: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        Strict.bind()
    with pytest.raises(TypeError, match="unexpected keyword argument 'b'"):
        Strict.bind(1, b=2)

    @deployment
    def function(request: Any) -> str:
        return "x"

    with pytest.raises(TypeError, match="is a function and takes no arguments"):
        function.bind(1)


def test_a_deployment_is_not_called() -> None:
    with pytest.raises(TypeError, match=r"write Model.bind\(...\)"):
        M()


def test_options_make_another_deployment() -> None:
    other = M.options(num_replicas=3)
    assert (M.num_replicas, other.num_replicas, other.name) == (1, 3, "Model")
    with pytest.raises(ValueError, match="did you mean 'num_replicas'"):
        deployment(num_replcas=3)
