import math
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt import serve
from actorrt.serve.declaration.options import KNOWN, DeploymentOptions, parse_options
from actorrt.serve.declaration.router_options import queue_config
from actorrt.serve.request_router import (
    Band,
    LocalPolicy,
    PolicyContext,
    Request,
    RequestRouterConfig,
    RoundRobin,
    Slots,
    TenantLimits,
)

BASE = DeploymentOptions(name="d")
CAPACITY_QUEUE_NUMBERS = (
    "kv_tokens", "prefill_rate", "headroom", "backlog_s", "waiting_requests", "waiting_tokens", "deadline_s",
    "load_tokens", "output_quantile", "credit_share", "lease_ttl_s", "grace_s", "silence_s",
)  # fmt: skip


class Mine(LocalPolicy):
    def __init__(self, context: PolicyContext, size: int) -> None:
        super().__init__(context)

    def choose(self, request: Request) -> Slots | None:
        return None


class WithoutChoose(LocalPolicy):
    pass


class WithoutNext(RoundRobin):
    next = None  # type: ignore[assignment]


def test_the_defaults_are_those_that_people_know() -> None:
    options = parse_options({}, BASE)
    assert (options.num_replicas, options.max_ongoing_requests, options.max_queued_requests) == (1, 5, -1)
    assert (options.health_check_period_s, options.health_check_timeout_s) == (10, 30)
    assert (options.graceful_shutdown_wait_loop_s, options.graceful_shutdown_timeout_s) == (2, 20)
    assert options.max_constructor_retry_count == 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_replica": 2}, "unknown deployment option 'num_replica'; did you mean 'num_replicas'?"),
        ({"max_concurrent_queries": 2}, "unknown deployment option 'max_concurrent_queries'; did you mean 'max_"),
        ({"autoscaling_config": {}}, "'autoscaling_config' is not supported yet"),
        ({"num_replicas": "auto"}, "num_replicas='auto' is not supported yet"),
        ({"num_replicas": 0}, "num_replicas must be at least 1, not 0"),
        ({"max_queued_requests": -2}, "max_queued_requests must be at least 0 or -1, not -2"),
        ({"health_check_period_s": 0}, "health_check_period_s must be more than zero, not 0"),
        ({"health_check_timeout_s": float("nan")}, "health_check_timeout_s must be more than zero"),
        ({"graceful_shutdown_timeout_s": -1}, "graceful_shutdown_timeout_s must be zero or more"),
        ({"name": ""}, "name must not be empty"),
        ({"name": "a#b"}, "name must not be empty, hold '#'"),
        ({"ray_actor_options": {"num_cpu": 1}}, "unknown key in ray_actor_options 'num_cpu'; did you mean 'num_cpus'?"),
        ({"actor_options": {}, "ray_actor_options": {}}, "not both"),
        ({"request_router": "round_robin", "request_router_config": "round_robin"}, "not both"),
        (
            {"request_router": "round robin"},
            "unknown request_router 'round robin': there are power_of_two,",
        ),
        ({"request_router": "no_such_module:Router"}, "request_router no_such_module:Router is not there: No module"),
        (
            {"request_router": "actorrt.serve.request_router:Nope"},
            "request_router actorrt.serve.request_router:Nope is not there",
        ),
        (
            {"request_router_config": {"request_router_clas": "x"}},
            "unknown key 'request_router_clas' of request_",
        ),
        (
            {"request_router_config": {"max_backoff_s": 1}},
            "key 'max_backoff_s' of request_router_config has no",
        ),
        (
            {"request_router": RequestRouterConfig("round_robin", {"start": 1})},
            "request_router 'round_robin' takes no request_router_kwargs",
        ),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_options(given, BASE)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "user_config"])
def test_each_option_refuses_a_wrong_type_by_its_name(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be "):
        parse_options({name: object()}, BASE)


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        ("least_requests", "least_requests"),
        (RoundRobin, "round_robin"),
        ("actorrt.serve.request_router:RoundRobin", "round_robin"),
        ("ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter", "power_of_two"),
        (RequestRouterConfig("round_robin"), "round_robin"),
        ({"request_router_class": "round_robin"}, "round_robin"),
        (RequestRouterConfig(Mine, {"size": 3}), Mine),
    ],
)
@pytest.mark.parametrize("option", ["request_router", "request_router_config"])
def test_a_request_router_may_be_spelt_as_in_ray(option: str, spelt: object, meant: object) -> None:
    found = parse_options({option: spelt}, BASE).request_router
    assert found.request_router_class == meant
    assert found.request_router_kwargs == ({"size": 3} if meant is Mine else {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (int, "int has no update() and no submit() and"),
        (LocalPolicy, "LocalPolicy has no choose(): derive it from serve.request_router.LocalPolicy"),
        (WithoutChoose, "WithoutChoose has no choose(): derive"),
        (WithoutNext, "WithoutNext has no next(): derive"),
        (Mine, "Mine is made by Mine(context, **request_router_kwargs): missing a required argument: 'size'"),
        (RequestRouterConfig(Mine, {"sise": 3}), "missing a required argument: 'size'"),
        (RequestRouterConfig(Mine, cast(Any, {1: 3})), "a dict with names as keys"),
        (Mine(PolicyContext("", lambda: 0, lambda: 0, lambda: None), 3), "or a class, not Mine"),
    ],
)
def test_what_is_no_request_router_is_refused_where_it_is_written(given: Any, said: str) -> None:
    with pytest.raises(TypeError, match=r"^request_router must be ") as refused:
        parse_options({"request_router": given}, BASE)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"weight": 1}, "unknown argument 'weight' of request_router 'capacity_queue': there are units, kv_tokens,"),
        (
            {"tenants": {"a": {"weight": -1}}},
            "weight of tenant 'a' in tenants of request_router 'capacity_queue' must be",
        ),
        ({"tenants": {"a": {"weight": math.nan}}}, "must be above 0, not nan"),
        (
            {"tenants": {"a": {"size": 1}}},
            "tenant 'a' in tenants of request_router 'capacity_queue' has no 'size': there are weight, waiting_tokens,",
        ),
        ({"tenants": {"a": 5}}, "tenant 'a' in tenants of request_router 'capacity_queue' must be a dict of weight,"),
        ({"bands": ["a", "b"]}, "a band in bands of request_router 'capacity_queue' must be a dict of name, ceiling,"),
        ({"bands": [{"ceiling": 1}]}, "a band in bands of request_router 'capacity_queue' needs a name"),
        ({"bands": [{"name": 5}]}, "name of a band in bands of request_router 'capacity_queue' must be a str, not int"),
        (
            {"bands": [{"name": "a", "ceiling": "1"}]},
            "ceiling of a band in bands of request_router 'capacity_queue' must",
        ),
        ({"tenants": {"a": {"running_tokens": -5}}}, "running_tokens of tenant 'a' in tenants"),
        (
            {"tenants": {"a": {"weight": 10**400}}},
            "weight of tenant 'a' in tenants of request_router 'capacity_queue' must be at most 9007199254740992",
        ),
        (
            {"waiting_tokens": 10**5000},
            "waiting_tokens of request_router 'capacity_queue' must be at most 9007199254740992, not an int",
        ),
        (
            {"tenants": {"\udc80": {}}},
            "a tenant in tenants of request_router 'capacity_queue' must be a text that UTF-8 has",
        ),
        ({"tenants": {"a" * 1025: {}}}, "must have at most 1024 characters, as in a cost, not 1025"),
        ({"tenants": {3: {}}}, "a tenant in tenants of request_router 'capacity_queue' must be a str, not int"),
        ({"bands": []}, "bands of request_router 'capacity_queue' must be a list with a band at least"),
        ({"bands": [{"name": "a", "ceiling": 2}]}, "'capacity_queue' must be above 0 and at most 1, not 2"),
        ({"bands": [{"name": "a"}], "default_band": "b"}, "there is no band 'b': there are a"),
        ({"bands": [{"name": "a"}, {"name": "a"}]}, "two bands have the same name"),
        ({"headroom": 1.5}, "headroom of request_router 'capacity_queue' must be above 0 and at most 1, not 1.5"),
        (
            {"units": "bytes"},
            "units of request_router 'capacity_queue' must be one of auto, requests, tokens, not 'bytes'",
        ),
        ({"kv_tokens": 1}, "kv_tokens of request_router 'capacity_queue' must be at least 2, not 1"),
        ({"kv_tokens": 10**25}, f"kv_tokens of request_router 'capacity_queue' must be at most {2**53}, not {10**25}"),
        ({"deadline_s": 10**400}, f"deadline_s of request_router 'capacity_queue' must be at most {2**53}, not 1000"),
        ({"deadline_s": math.inf}, f"deadline_s of request_router 'capacity_queue' must be at most {2**53}, not inf"),
        ({"load_tokens": 2**53 + 1}, f"must be at most {2**53}"),
        ({"tenants": {"a": {"running_tokens": 2**70}}}, f"must be at most {2**53}"),
        ({"bands": [{"name": "\udc80"}], "default_band": "\udc80"}, "must be a text that UTF-8 has"),
        ({"deadline_s": -1}, "deadline_s of request_router 'capacity_queue' must be at least 0, not -1"),
        ({"cost": 5}, "cost of request_router 'capacity_queue' must be a function or 'module:name' of one, not 5"),
        ({"cost": "nowhere:f"}, "cost function nowhere:f is not there: No module named 'nowhere'"),
    ],
)
def test_what_a_capacity_queue_cannot_be_is_refused_where_it_is_written(kwargs: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        parse_options({"request_router": RequestRouterConfig("capacity_queue", kwargs)}, BASE)
    assert said in str(refused.value)


def test_a_capacity_queue_takes_its_settings_as_values_or_as_dicts() -> None:
    bands = [Band("first"), {"name": "last", "ceiling": 0.5}]
    tenants = {"a": TenantLimits(2.0), "b": {"running_tokens": 5}}
    kwargs = {"bands": bands, "default_band": "last", "tenants": tenants}
    config = queue_config(
        parse_options({"request_router": RequestRouterConfig("capacity_queue", kwargs)}, BASE).request_router
    )
    assert config is not None
    assert (config.band(""), config.band("first"), config.bands[1].ceiling) == (1, 0, 0.5)
    assert (config.tenant("a").weight, config.tenant("b").running_tokens, config.tenant("c")) == (
        2.0,
        5,
        TenantLimits(),
    )


@pytest.mark.parametrize("name", CAPACITY_QUEUE_NUMBERS)
def test_each_number_of_a_capacity_queue_is_one_that_a_message_holds(name: str) -> None:
    for value in (2**53 + 1, 10**25, 10**400):
        with pytest.raises(
            ValueError, match=f"^{name} of request_router 'capacity_queue' must be .*at most [0-9.]+, not"
        ):
            parse_options({"request_router": RequestRouterConfig("capacity_queue", {name: value})}, BASE)


def test_what_a_message_does_not_hold_is_no_option_of_a_deployment() -> None:
    for name in ("max_ongoing_requests", "max_queued_requests"):
        with pytest.raises(ValueError, match=f"^{name} must be at most {2**53}, not {10**25}$"):
            parse_options({name: 10**25}, BASE)
    with pytest.raises(ValueError, match=r"^name must be a text that UTF-8 has, not '.udc80'$"):
        parse_options({"name": "\udc80"}, BASE)


def test_a_bool_is_no_number() -> None:
    for name in ("num_replicas", "health_check_period_s"):
        with pytest.raises(TypeError, match=name):
            parse_options({name: True}, BASE)


def test_ray_actor_options_is_another_spelling() -> None:
    assert parse_options({"ray_actor_options": {"num_cpus": 2}}, BASE).actor_options == {"num_cpus": 2}
    assert parse_options({"actor_options": None}, BASE).actor_options == {}


@given(name=st.text(min_size=1), value=st.one_of(st.none(), st.integers(), st.text(), st.booleans()))
def test_any_unknown_option_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="unknown deployment option"):
        parse_options({f"_{name}": value}, BASE)


def test_options_count_where_the_class_is_given_with_them() -> None:
    class Model:
        pass

    assert serve.deployment(Model, name="m", num_replicas=3).num_replicas == 3
    with pytest.raises(ValueError, match="num_replica"):
        serve.deployment(Model, num_replica=3)
