"""Programs of a node, and the detached actors that go on without them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import structs

from actorrt.runtime.base.table_sizes import table_sizes
from actorrt.runtime.node.programs import Programs
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import JoinDriver

JOB = JobKey(ProcessId(b"a driver"))
DRIVER = JoinDriver(1, "", [], b"/", b"", [], {}, False, False)
LINK: Any = SimpleNamespace(peer=JOB, closed=None)


@pytest.fixture
def programs() -> Programs:
    return Programs()


def leftovers(programs: Programs) -> dict[str, int]:
    return {name: size for name, size in table_sizes(programs).items() if size}


def test_detached_actors_look_like_their_program_until_the_last_of_them_is_dead(programs: Programs) -> None:
    programs.join(DRIVER, LINK)
    employers = [programs.detach(JOB) for _ in range(2)]
    assert employers == [Employer(JOB, True)] * 2
    assert not programs.detached_ended(JOB)
    assert programs.leave(LINK) is DRIVER
    assert not programs.is_over(JOB)
    assert programs.of(employers[0]) is DRIVER
    assert programs.detached_ended(JOB)
    assert leftovers(programs) == {}


def test_a_program_whose_detached_actors_have_died_is_over_with_its_own_end(programs: Programs) -> None:
    programs.join(DRIVER, LINK)
    programs.detach(JOB)
    assert not programs.detached_ended(JOB)
    programs.leave(LINK)
    assert programs.is_over(JOB)
    assert leftovers(programs) == {}


def test_a_program_without_detached_actors_has_no_workers_for_them(programs: Programs) -> None:
    programs.join(DRIVER, LINK)
    programs.leave(LINK)
    assert not programs.is_over(JOB)
    assert leftovers(programs) == {}


def test_an_actor_that_is_made_detached_after_the_end_of_its_program_leaves_nothing_behind(
    programs: Programs,
) -> None:
    programs.join(DRIVER, LINK)
    programs.leave(LINK)
    employer = programs.detach(JOB)
    assert programs.of(employer) is None
    # No worker can look like the program: the actor is dead, and the node is to forget the employer.
    assert programs.detached_ended(JOB)
    assert leftovers(programs) == {}


def test_the_link_of_an_earlier_life_of_a_driver_is_not_its_end(programs: Programs) -> None:
    programs.join(DRIVER, LINK)
    assert programs.leave(cast("Any", SimpleNamespace(peer=JOB))) is None
    assert programs.joined(JOB) is not None


def test_a_program_whose_link_is_closed_is_told_no_more_and_has_not_ended(programs: Programs) -> None:
    link: Any = SimpleNamespace(peer=JOB, closed=None)
    employer = programs.join(structs.replace(DRIVER, log_to_driver=True), link)
    assert programs.listener(employer) is link
    link.closed = Ending.LOST
    assert programs.listener(employer) is None
    joined = programs.joined(JOB)
    assert joined is not None
    assert not joined.ended.is_set()
    # It says goodbye over another one.
    assert programs.leave(SimpleNamespace(peer=JOB)) is joined.driver  # type: ignore[arg-type]
    assert joined.ended.is_set()
