"""In a worker, code that pickles by name finds what a call has brought of the main program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

RunProgram = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import concurrent.futures, contextvars, dataclasses, enum, functools, gc, multiprocessing, pickle, sys, weakref
import actorrt

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Point:
    x: int
    colour: Colour = Colour.RED

    @classmethod
    def origin(cls):
        return cls(0)

def logged(function):
    @functools.wraps(function)
    def run(*args):
        return function(*args)
    return run

@logged
def moved(point):
    return dataclasses.replace(point, x=point.x + 1)

request_id = contextvars.ContextVar("request_id", default="none")
unset = contextvars.ContextVar("unset")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_a_task_starts_are_given_the_programs_own_functions(
    method: str, run_program: RunProgram
) -> None:
    ended = run_program(
        PROGRAM
        + f"""
@actorrt.remote
def pool():
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        return pool.map(moved, [Point(1), Point(2)])

@actorrt.remote
class Executor:
    def run(self):
        context = multiprocessing.get_context({method!r})
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(moved, Point.origin()).result()

if __name__ == "__main__":
    with actorrt.init(num_cpus=1):
        assert actorrt.get(pool.remote(), timeout=40) == [Point(2), Point(3)]
        assert actorrt.get(Executor.options(num_cpus=0).remote().run.remote(), timeout=40) == Point(1)
        print("right")
"""
    )
    assert ended.stdout == "right\n", ended.stderr


def test_what_a_task_pickles_by_name_its_program_reads(run_program: RunProgram) -> None:
    ended = run_program(
        PROGRAM
        + """
@actorrt.remote
def saved(thing):
    return pickle.dumps([thing, moved, Colour])

@actorrt.remote
def loaded(data, *needed):
    return pickle.loads(data)

@actorrt.remote
def missing():
    import __main__
    return __main__.Nobody

with actorrt.init(num_cpus=1):
    thing, function, colour = pickle.loads(actorrt.get(saved.remote(Point(4))))
    assert (thing, function, colour) == (Point(4), moved, Colour)
    assert actorrt.get(loaded.remote(pickle.dumps(Point(5)), Point)) == Point(5)
    try:
        actorrt.get(missing.remote())
    except AttributeError as error:
        print(error)
"""
    )
    told = "module '__main__' has no attribute 'Nobody': of the main program, a worker has what its calls refer to\n"
    assert ended.stdout == told, ended.stderr


def test_the_newest_of_a_name_is_found_and_nothing_is_kept_alive(run_program: RunProgram) -> None:
    ended = run_program(
        PROGRAM
        + """
def version():
    return 1

first = version

def version():
    return 2

@actorrt.remote
def both(*functions):
    import __main__
    return __main__.version is functions[-1] and __main__.version()

@actorrt.remote
def left():
    import __main__
    gc.collect()
    return hasattr(__main__, "version")

with actorrt.init(num_cpus=1):
    print(actorrt.get(both.remote(first, version)), actorrt.get(left.remote()), version(), first())
"""
    )
    assert ended.stdout == "2 False 2 1\n", ended.stderr


def test_context_variables_of_a_program_are_themselves_and_have_their_defaults(run_program: RunProgram) -> None:
    ended = run_program(
        PROGRAM
        + """
def get():
    return request_id.get()

def set_to(value):
    request_id.set(value)

@actorrt.remote
def used(value):
    before = get()
    set_to(value)
    try:
        unset.get()
    except LookupError:
        return before, get(), request_id

@actorrt.remote
async def awaited(value):
    set_to(value)
    return get()

@actorrt.remote
def same(variable):
    return variable is request_id, variable

with actorrt.init(num_cpus=1):
    request_id.set("the program's")
    assert actorrt.get(used.remote("a")) == ("none", "a", request_id)
    assert actorrt.get(used.remote("b")) == ("none", "b", request_id)
    assert actorrt.get([awaited.remote(n) for n in "cd"]) == ["c", "d"]
    assert actorrt.get(same.remote(request_id)) == (True, request_id)
    print(get())
"""
    )
    assert ended.stdout == "the program's\n", ended.stderr


def test_a_sentinel_stays_itself_in_a_program_that_multiprocessing_has_given_a_second_name(
    run_program: RunProgram,
) -> None:
    ended = run_program(
        PROGRAM
        + """
UNSET = object()
assert sys.modules["__mp_main__"] is sys.modules["__main__"]

@actorrt.remote
def is_unset(value=UNSET):
    return value is UNSET, value

with actorrt.init(num_cpus=1):
    for called in (is_unset.remote(), is_unset.remote(UNSET)):
        there, back = actorrt.get(called)
        print(there, back is UNSET)
"""
    )
    assert ended.stdout == "True True\nTrue True\n", ended.stderr


def test_a_function_in_a_context_manager_travels_and_one_that_was_entered_is_refused(run_program: RunProgram) -> None:
    ended = run_program(
        PROGRAM
        + """
import contextlib

@contextlib.contextmanager
def noting(what):
    seen.append(what)
    yield seen

seen = []

@actorrt.remote
@noting("task")
def task():
    return list(seen)

@actorrt.remote
def uses(manager):
    with manager as found:
        return list(found)

with actorrt.init(num_cpus=1):
    print(actorrt.get([task.remote(), task.remote()])[1][-1], actorrt.get(uses.remote(noting("argument")))[-1])
    entered = noting("here")
    with entered:
        try:
            uses.remote(entered)
        except actorrt.exceptions.NotSerializableError:
            print("refused")
"""
    )
    assert ended.stdout == "task argument\nrefused\n", ended.stderr
