import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core import options
from actorrt.core.call_terms import Limits
from actorrt.core.nearest import nearest
from actorrt.core.options import (
    ActorOptions,
    InitOptions,
    MethodOptions,
    TaskOptions,
    default_task_options,
    parse_actor_options,
    parse_method_options,
    parse_task_options,
)
from actorrt.types import Strategy

DEF = default_task_options(is_async=False, is_generator=False)
PARSERS: list[Callable[[dict[str, Any]], Any]] = [
    partial(parse_task_options, base=DEF, decorating=True),
    partial(parse_actor_options, decorating=True),
    partial(parse_method_options, decorating=True),
    InitOptions.parse,
]
TABLES = [options._TASK, options._ACTOR, options._METHOD, options._INIT]


@pytest.mark.parametrize(
    ("is_async", "is_generator", "shape", "num_returns"),
    [(False, False, {"CPU": 10000}, 1), (True, False, {}, 1), (True, True, {}, "streaming")],
)
def test_a_def_task_takes_a_cpu_and_a_generator_streams(
    is_async: bool, is_generator: bool, shape: dict[str, int], num_returns: object
) -> None:
    made = default_task_options(is_async, is_generator)
    assert made.shape == shape
    assert made.num_returns == num_returns


def test_what_is_given_changes_and_the_rest_stays() -> None:
    first = parse_task_options({"num_cpus": 0.5, "resources": {"disk": 1}, "max_retries": -1}, DEF)
    second = parse_task_options({"num_gpus": 2, "memory": 100, "num_cpus": None}, first)
    assert second.shape == {"CPU": 5000, "GPU": 20000, "memory": 1_000_000, "disk": 10000}
    assert second.max_retries == -1
    assert first.shape == {"CPU": 5000, "disk": 10000}


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({}, {}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 2}, {"CPU": 20000}),
        ({"num_gpus": 1}, {"CPU": 10000, "GPU": 10000}),
        ({"num_gpus": 1, "num_cpus": 0}, {"GPU": 10000}),
    ],
)
def test_an_actor_takes_a_cpu_if_it_names_only_other_resources(given: dict[str, Any], shape: dict[str, int]) -> None:
    assert parse_actor_options(given).shape == shape


@pytest.mark.parametrize(
    ("given", "has_async", "exclusive"),
    [
        ({}, True, False),
        ({}, False, True),
        ({"isolated": True}, True, True),
        ({"num_cpus": 1}, True, True),
        ({"num_cpus": 0}, True, False),
    ],
)
def test_an_actor_with_async_methods_and_no_resources_shares_a_worker(
    given: dict[str, Any], has_async: bool, exclusive: bool
) -> None:
    assert parse_actor_options(given).exclusive(has_async) is exclusive


def test_concurrency_is_a_thousand_for_async_actors_and_one_for_others() -> None:
    assert ActorOptions().concurrency(True) == 1000
    assert ActorOptions().concurrency(False) == 1
    assert parse_actor_options({"max_concurrency": 4}).concurrency(True) == 4


def test_rays_spellings_are_taken() -> None:
    name = "_generator_backpressure_num_objects"
    assert parse_task_options({name: 3, "num_returns": "streaming"}, DEF).generator_backpressure == 3
    assert parse_method_options({name: 3, "num_returns": "streaming"}).generator_backpressure == 3
    assert parse_actor_options({"_actor" + name: 3}).generator_backpressure == 3
    assert parse_actor_options({"lifetime": "detached"}).detached
    assert parse_task_options({"scheduling_strategy": "SPREAD"}, DEF).strategy == Strategy(spread=True)
    assert parse_task_options({"enable_task_events": False}, DEF) == DEF


def test_groups_and_environment_keep_their_entries() -> None:
    made = parse_actor_options(
        {"concurrency_groups": {"io": 2, "compute": 1}, "runtime_env": {"env_vars": {"B": "2", "A": "1"}}},
        decorating=True,
    )
    assert made.concurrency_groups == (("io", 2), ("compute", 1))
    assert made.env_vars == (("A", "1"), ("B", "2"))


@pytest.mark.parametrize(
    ("parse", "given", "text"),
    [
        (0, {"num_cpu": 1}, "'num_cpu' is not an option of tasks, did you mean 'num_cpus'?"),
        (0, {"xyz": 1}, "'xyz' is not an option of tasks"),
        (0, {"max_restarts": 1}, "'max_restarts' is not an option of tasks but of actors"),
        (1, {"max_retries": 1}, "'max_retries' is not an option of actors but of tasks"),
        (1, {"lifetime": "detatched"}, "lifetime must be 'detached' or 'non_detached', not 'detatched', did you mean"),
        (0, {"num_cpus": -1}, "num_cpus must be a number from 0 to 1e+14, not -1"),
        (0, {"num_cpus": float("nan")}, "num_cpus must be a number from 0 to 1e+14, not nan"),
        (0, {"num_cpus": 1e300}, "num_cpus must be a number from 0 to 1e+14, not 1e+300"),
        (0, {"num_cpus": 1e-300}, "num_cpus must be a multiple of 0.0001, not 1e-300"),
        (0, {"memory": 10**15}, "memory must be at most 1e+14 bytes, not 1000000000000000"),
        (0, {"num_cpus": 0.00001}, "num_cpus must be a multiple of 0.0001, not 1e-05"),
        (0, {"num_gpus": 1.5}, "num_gpus must be a fraction of one or a whole number, not 1.5"),
        (0, {"resources": {"CPU": 1}}, "resources must not have 'CPU': that is the option num_cpus"),
        (0, {"resources": {"disk": -1}}, "resources['disk'] must be a number from 0 to 1e+14, not -1"),
        (0, {"num_returns": -1}, "num_returns must be a whole number >= 0 or 'streaming', not -1"),
        (0, {"num_returns": "dynamic"}, "num_returns 'dynamic' is not offered"),
        (0, {"max_retries": -2}, "max_retries must be a whole number >= 0, or -1, not -2"),
        (0, {"runtime_env": {"pip": []}}, "runtime_env cannot have 'pip' yet, only 'env_vars'"),
        (0, {"runtime_env": {"env_vars": {"A": "\udcff"}}}, "runtime_env['env_vars']['A'] must be text that UTF-8 can"),
        (0, {"label_selector": {}}, "label_selector is not offered in this version"),
        (1, {"name": ""}, "name must be a string that is not empty, not ''"),
        (1, {"get_if_exists": True}, "get_if_exists needs a name to look for"),
        (3, {"include_dashboard": True}, "include_dashboard is not offered in this version: there is no dashboard"),
    ],
)
def test_a_value_error_names_the_option(parse: int, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        PARSERS[parse](given)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("parse", "given", "text"),
    [
        (0, {"num_cpus": "1"}, "num_cpus must be a number from 0 to 1e+14, not '1' of type str"),
        (0, {"num_cpus": True}, "num_cpus must be a number from 0 to 1e+14, not True of type bool"),
        (0, {"name": 5}, "name must be a string, not 5 of type int"),
        (0, {"resources": [1]}, "resources must be a dict of names and amounts, not [1] of type list"),
        (0, {"resources": {1: 1}}, "a key of resources must be a string, not 1 of type int"),
        (0, {"retry_exceptions": ValueError}, "retry_exceptions must be True, False or a list of exception classes"),
        (0, {"retry_exceptions": [int]}, "an entry of retry_exceptions must be an exception class"),
        (
            0,
            {"runtime_env": {"env_vars": {"A": 1}}},
            "runtime_env['env_vars']['A'] must be a string, not 1 of type int",
        ),
        (1, {"isolated": 1}, "isolated must be True or False, not 1 of type int"),
        (1, {"max_concurrency": 1.5}, "max_concurrency must be a whole number >= 1, not 1.5 of type float"),
        (2, {"thread": "yes"}, "thread must be True or False, not 'yes' of type str"),
        (3, {"address": 10001}, "address must be a string, not 10001 of type int"),
    ],
)
def test_a_type_error_names_the_option(parse: int, given: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        PARSERS[parse](given)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("parse", "given"),
    [
        (partial(parse_task_options, base=DEF), {"max_calls": 3}),
        (parse_actor_options, {"concurrency_groups": {"io": 1}}),
        (parse_method_options, {"thread": True}),
    ],
)
def test_what_belongs_to_the_definition_is_not_taken_later(parse: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} is set where the .* is defined"):
        parse(given)


ANY_VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), st.text(max_size=5), st.binary(max_size=2),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.sampled_from([int, ValueError, [ValueError], "streaming", "SPREAD", {"env_vars": {"A": "1"}}]),
)  # fmt: skip


@pytest.mark.parametrize("which", range(len(PARSERS)))
@given(data=st.data())
def test_any_value_is_taken_or_refused_by_the_name_of_its_option(which: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TABLES[which])))
    value = data.draw(ANY_VALUE)
    try:
        made = PARSERS[which]({name: value})
    except (TypeError, ValueError) as error:
        text = str(error)
    else:
        text = name
        assert pickle.loads(pickle.dumps(made)) == made
        assert all(isinstance(units, int) and units > 0 for units in getattr(made, "shape", {}).values())
    assert name in text


@pytest.mark.parametrize("kind", [ActorOptions(), MethodOptions(), DEF, InitOptions()])
def test_every_field_is_an_option_and_every_option_that_is_offered_a_field(kind: Any) -> None:
    table = {TaskOptions: 0, ActorOptions: 1, MethodOptions: 2, InitOptions: 3}[type(kind)]
    known = set(kind.__struct_fields__)
    offered = {
        options._FIELDS.get(name, name)
        for name, check in TABLES[table].items()
        if "not_yet" not in check.__qualname__ and "off_only" not in check.__qualname__
    }
    if "limits" in known:
        # Which lie together.
        known = known - {"limits"} | set(Limits.__struct_fields__)
    assert known == offered
    assert hash(kind) == hash(pickle.loads(pickle.dumps(kind)))


@given(known=st.sets(st.text(min_size=1)), name=st.text())
def test_the_nearest_name_is_a_known_one(known: set[str], name: str) -> None:
    assert nearest(name, known) in known | {None}


def test_a_typing_slip_is_recognised() -> None:
    known = ["increment", "get", "reset"]
    assert nearest("incremnet", known) == "increment"
    assert nearest("_Increment", known) == "increment"
    assert nearest("zzz", known) is None
