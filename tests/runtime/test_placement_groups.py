"""Placement groups of a session: what they hold, what runs in them, and what becomes of it when they go."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.types import PlacementGroupID
from actorrt.util import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from actorrt.util.scheduling_strategies import (
    Exists,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("machine")

LONG_S = 20


@pytest.fixture(scope="module")
def machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        with actorrt.init(num_cpus=3, num_gpus=2, resources={"disk": 1}):
            yield


Make = Callable[..., PlacementGroup]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[PlacementGroup] = []

    def create(*args: Any, **kwargs: Any) -> PlacementGroup:
        made.append(placement_group(*args, **kwargs))
        return made[-1]

    yield create
    for group in made:
        remove_placement_group(group)


def within(group: PlacementGroup, bundle: int = -1, capture: bool = False) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, bundle, capture)


@actorrt.remote
def look() -> tuple[PlacementGroup | None, str, dict[str, float]]:
    """Where am I, and what do I have?"""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return get_current_placement_group(), visible, actorrt.get_runtime_context().get_assigned_resources()


@actorrt.remote
def look_through_child() -> tuple[PlacementGroup | None, str, dict[str, float]]:
    return actorrt.get(look.remote())


@actorrt.remote
class Looker:
    def look(self) -> PlacementGroup | None:
        return get_current_placement_group()

    def make(self) -> Any:
        """An actor of its own, and where that is."""
        child = Looker.remote()
        return actorrt.get(child.look.remote())


@actorrt.remote
class Coroutines:
    async def look(self) -> PlacementGroup | None:
        return get_current_placement_group()


def free(name: str) -> float:
    return actorrt.available_resources()[name]


# ---- bundles


def test_bundles_hold_their_resources_until_the_group_is_removed(make: Make) -> None:
    group = make([{"GPU": 1}, {"GPU": 0.5, "disk": 1}])
    assert actorrt.get(group.ready(), timeout=LONG_S) == group
    assert group.wait(LONG_S)
    assert (free("GPU"), free("disk")) == (0.5, 0)
    remove_placement_group(group)
    assert (free("GPU"), free("disk")) == (2, 1)
    remove_placement_group(group)
    assert (group.bundle_count, group.bundle_specs) == (2, [{"GPU": 1}, {"GPU": 0.5, "disk": 1}])


async def test_a_coroutine_awaits_a_group(make: Make) -> None:
    group = make([{"disk": 1}])
    assert await group.ready() == group


def test_a_group_waits_for_room_and_says_for_what(make: Make) -> None:
    first, second = make([{"disk": 1}]), make([{"disk": 0.5}, {"GPU": 1}])
    assert first.wait(LONG_S)
    assert not second.wait(0)
    row = placement_group_table(second)
    assert row["state"] == "PENDING"
    assert row["why"].startswith("it waits for 0.5 disk for bundle 0; free: node ")
    # Nothing of it is taken meanwhile.
    assert free("GPU") == 2
    remove_placement_group(first)
    assert second.wait(LONG_S)
    assert placement_group_table(second)["bundles_to_node_id"][1] == actorrt.nodes()[0]["NodeID"]


def test_a_group_waits_for_a_task_that_has_what_it_needs(make: Make) -> None:
    @actorrt.remote(num_cpus=0, resources={"disk": 1})
    class Holder:
        def ping(self) -> None: ...

    holder = Holder.remote()
    actorrt.get(holder.ping.remote(), timeout=LONG_S)
    group = make([{"disk": 1}])
    assert not group.wait(0)
    actorrt.kill(holder)
    assert group.wait(LONG_S)


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_one_node_has_all_bundles_but_of_strict_spread(make: Make, strategy: str) -> None:
    assert make([{"CPU": 1}, {"CPU": 1}], strategy=strategy).wait(LONG_S)
    text = "its 2 bundles fit one by one and not together, which STRICT_SPREAD wants on as many nodes"
    with pytest.raises(exceptions.PlacementGroupError, match=text):
        placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")


# ---- what runs in them


def test_tasks_run_in_the_bundle_that_they_name_or_in_any(make: Make) -> None:
    group = make([{"CPU": 1}, {"CPU": 1, "GPU": 1}])
    where, gpus, has = actorrt.get(look.options(scheduling_strategy=within(group, 0)).remote(), timeout=LONG_S)
    assert (where, gpus, has) == (group, "", {"CPU": 1})
    task = look.options(scheduling_strategy=within(group), num_gpus=1)
    where, gpus, has = actorrt.get(task.remote(), timeout=LONG_S)
    assert (where, has) == (group, {"CPU": 1, "GPU": 1})
    assert gpus in ("4", "6")
    # Elsewhere there is nothing of it.
    assert actorrt.get(look.remote(), timeout=LONG_S)[0] is None


def test_a_bundle_keeps_its_gpus_and_gives_out_fractions_of_them(make: Make) -> None:
    groups = [make([{"GPU": 1, "CPU": 0.5}]), make([{"GPU": 0.5}, {"GPU": 0.5, "CPU": 0.5}])]
    seen: list[str] = []
    for group in groups:
        task = look.options(scheduling_strategy=within(group), num_gpus=0.5, num_cpus=0.5)
        seen.append(actorrt.get(task.remote(), timeout=LONG_S)[1])
    assert sorted(seen) == ["4", "6"]


def test_more_tasks_than_fit_take_turns_in_their_bundle(make: Make) -> None:
    group = make([{"CPU": 1}])
    refs = [look.options(scheduling_strategy=within(group, 0)).remote() for _ in range(20)]
    assert {one[0] for one in actorrt.get(refs, timeout=LONG_S)} == {group}


def test_tasks_and_actors_wait_for_their_group(make: Make) -> None:
    first, second = make([{"disk": 1}]), make([{"disk": 1, "CPU": 1}])
    task = look.options(scheduling_strategy=within(second)).remote()
    actor = Looker.options(scheduling_strategy=within(second)).remote()
    assert actorrt.wait([task], timeout=0.1)[0] == []
    remove_placement_group(first)
    assert actorrt.get([task, actor.look.remote()], timeout=LONG_S)[1] == second


def test_an_actor_of_coroutines_and_an_async_task_run_in_their_group(make: Make) -> None:
    @actorrt.remote
    async def ask() -> PlacementGroup | None:
        return get_current_placement_group()

    group = make([{"CPU": 1}])
    actor = Coroutines.options(scheduling_strategy=within(group)).remote()
    refs = [actor.look.remote(), ask.options(scheduling_strategy=within(group)).remote()]
    assert actorrt.get(refs, timeout=LONG_S) == [group, group]


def test_what_is_made_in_a_group_is_captured_if_that_is_asked_for(make: Make) -> None:
    group = make([{"CPU": 2}])
    captured = look_through_child.options(scheduling_strategy=within(group, capture=True)).remote()
    free_child = look_through_child.options(scheduling_strategy=within(group)).remote()
    assert actorrt.get(captured, timeout=LONG_S)[0] == group
    assert actorrt.get(free_child, timeout=LONG_S)[0] is None
    actor = Looker.options(scheduling_strategy=within(group, capture=True)).remote()
    assert actorrt.get(actor.make.remote(), timeout=LONG_S) == group
    other = Looker.options(scheduling_strategy=within(group)).remote()
    assert actorrt.get(other.make.remote(), timeout=LONG_S) is None


def test_a_parent_that_waits_lends_its_child_the_cpu_of_its_bundle(make: Make) -> None:
    group = make([{"CPU": 1}])
    parent = look_through_child.options(scheduling_strategy=within(group, 0, capture=True)).remote()
    assert actorrt.get(parent, timeout=LONG_S)[0] == group


# ---- when they go


def test_what_runs_in_a_group_ends_with_it_and_what_was_to_run_there_fails(make: Make) -> None:
    group = make([{"CPU": 1}])
    actor = Looker.options(scheduling_strategy=within(group), num_cpus=1, max_restarts=-1).remote()
    assert actorrt.get(actor.look.remote(), timeout=LONG_S) == group
    waits = look.options(scheduling_strategy=within(group)).remote()
    remove_placement_group(group)
    with pytest.raises(exceptions.ActorPlacementGroupRemoved, match="which is gone: it was removed"):
        while True:
            # The call that was under way as it was lost.
            with contextlib.suppress(exceptions.ActorUnavailableError):
                actorrt.get(actor.look.remote(), timeout=LONG_S)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved, match=r"^look was to run in placement group .* removed$"):
        actorrt.get(waits, timeout=LONG_S)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        actorrt.get(look.options(scheduling_strategy=within(group)).remote(), timeout=LONG_S)
    with pytest.raises(exceptions.PlacementGroupError, match="it was removed"):
        group.wait()
    assert placement_group_table(group)["state"] == "REMOVED"
    assert group.id.hex() not in placement_group_table()


def test_a_group_that_is_removed_while_it_waits_was_never_there(make: Make) -> None:
    first, second = make([{"disk": 1}]), make([{"disk": 1}])
    ready = second.ready()
    remove_placement_group(second)
    with pytest.raises(exceptions.PlacementGroupError, match="it was removed"):
        actorrt.get(ready, timeout=LONG_S)
    remove_placement_group(first)
    assert free("disk") == 1


def test_a_group_is_found_by_its_name_while_it_is_there(make: Make) -> None:
    group = make([{"CPU": 1}], name="trainers")
    assert get_placement_group("trainers") == group
    assert get_placement_group("trainers").bundle_specs == [{"CPU": 1.0}]
    with pytest.raises(exceptions.PlacementGroupError, match="its name is taken"):
        placement_group([{"CPU": 1}], name="trainers")
    remove_placement_group(group)
    with pytest.raises(ValueError, match="placement group trainers: there is none of this name"):
        get_placement_group("trainers")


def test_a_group_ends_with_its_program_unless_it_is_detached(run_program: Any) -> None:
    program = """
        import actorrt
        from actorrt.util import placement_group
        actorrt.init(address={address!r}, namespace="shared")
        placement_group([{{"CPU": 1}}], name="gone")
        placement_group([{{"disk": 1}}], name="stays", lifetime="detached")
        """
    address = actorrt.get_runtime_context().get_temp_dir()
    done = run_program(textwrap.dedent(program).format(address=address))
    assert done.returncode == 0, done.stderr
    names = {row["name"] for row in placement_group_table().values()}
    assert names == {"stays"}
    stays = next(iter(placement_group_table().values()))
    remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(stays["placement_group_id"]), []))
    assert free("disk") == 1


# ---- bad input


def test_what_can_never_be_had_is_said_at_once(make: Make) -> None:
    with pytest.raises(
        exceptions.PlacementGroupError, match=r"bundle 1 asks for 9 CPU, and no node has that: node .* 3 CPU"
    ):
        placement_group([{"CPU": 1}, {"CPU": 9}])
    group = make([{"CPU": 1}])
    with pytest.raises(exceptions.TaskUnschedulableError, match="its bundle 0 lacks 1 more CPU"):
        actorrt.get(look.options(scheduling_strategy=within(group, 0), num_cpus=2).remote(), timeout=LONG_S)
    actor = Looker.options(scheduling_strategy=within(group), num_gpus=1).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="none of the bundles of its placement group has that"):
        actorrt.get(actor.look.remote(), timeout=LONG_S)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([],), "bundles must be a list with a bundle at least"),
        (({"CPU": 1},), "bundles must be a list of dicts"),
        (([{}],), r"bundles\[0\] must be a dict with a resource at least that is not zero"),
        (([{"CPU": "1"}],), r"bundles\[0\]\['CPU'\] must be a number"),
        (([{"CPU": 1}], "PAK"), "strategy must be .* did you mean 'PACK'"),
        (([{"CPU": 1}], "PACK", 3), "name must be a string"),
        (([{"CPU": 1}], "PACK", "", "long"), "lifetime must be 'detached'"),
    ],
)
def test_a_mistake_in_a_group_is_named(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        placement_group(*arguments)


def test_the_empty_group_is_none(make: Make) -> None:
    with pytest.raises(exceptions.PlacementGroupError, match="which is never there"):
        PlacementGroup.empty().wait()
    with pytest.raises(ValueError, match="the group has 0 bundles"):
        within(PlacementGroup.empty(), 0)


# ---- affinity


def test_affinity_to_this_node_is_followed_and_to_another_refused_unless_it_is_soft() -> None:
    here = actorrt.get_runtime_context().get_node_id()

    def run(node: str, soft: bool) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node, soft)
        return actorrt.get(look.options(scheduling_strategy=strategy).remote(), timeout=LONG_S)

    assert run(here, False)[0] is None
    assert run("00" * 8, True)[0] is None
    with pytest.raises(exceptions.TaskUnschedulableError, match="there is no node 0000000000000000"):
        run("00" * 8, False)


def test_an_actor_of_coroutines_does_not_run_where_it_must_not() -> None:
    actor = Coroutines.options(scheduling_strategy=NodeAffinitySchedulingStrategy("00" * 8, False)).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="there is no node 0000000000000000"):
        actorrt.get(actor.look.remote(), timeout=LONG_S)
    labelled = Coroutines.options(scheduling_strategy=NodeLabelSchedulingStrategy({"zone": Exists()})).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="no node has label zone"):
        actorrt.get(labelled.look.remote(), timeout=LONG_S)
