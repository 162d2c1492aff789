"""How actors and tasks end themselves, whatever part of their code asks for it, and what they still say as they go."""

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt import ActorHandle, exceptions, exit_actor, get, put, remote

pytestmark = pytest.mark.usefixtures("node")


class Plain:
    def __init__(self, path: str = "") -> None:
        if path:
            atexit.register(Path(path).touch)

    def in_method(self) -> None:
        exit_actor()

    def in_thread(self) -> None:
        threading.Thread(target=exit_actor).start()

    def in_timer(self) -> None:
        threading.Timer(0.01, exit_actor).start()

    def by_sys_exit(self, code: Any = None) -> None:
        sys.exit(code)

    def pid(self) -> int:
        return os.getpid()


class Coroutine(Plain):
    async def in_coroutine(self) -> None:
        exit_actor()

    async def in_task(self) -> None:
        self.task = asyncio.create_task(self.in_coroutine())

    async def in_later_task(self) -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            exit_actor()

        self.task = asyncio.create_task(later())

    async def in_callback(self) -> None:
        asyncio.get_running_loop().call_later(0.01, exit_actor)

    async def in_awaited_thread(self) -> None:
        await asyncio.to_thread(exit_actor)

    async def in_executor(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, exit_actor)

    async def by_sys_exit_in_a_task(self) -> None:
        async def leave() -> None:
            sys.exit()

        self.task = asyncio.create_task(leave())

    async def in_task_group(self) -> None:
        async def leave() -> None:
            exit_actor()

        async with asyncio.TaskGroup() as group:
            group.create_task(leave())

    @actorrt.method(thread=True)
    def in_marked_method(self) -> None:
        exit_actor()

    async def async_by_sys_exit(self, code: Any = None) -> None:
        sys.exit(code)


PLAIN = ["in_method", "in_thread", "in_timer", "by_sys_exit"]
OF_COROUTINES = [
    "in_coroutine", "in_task", "in_later_task", "in_callback", "in_executor", "in_awaited_thread", "in_marked_method",
    "by_sys_exit_in_a_task", "async_by_sys_exit", "in_task_group",
]  # fmt: skip


def until_it_has_left(actor: Any) -> str:
    while True:
        try:
            get(actor.pid.remote(), timeout=30)
        except exceptions.ActorDiedError as error:
            return str(error)


@pytest.mark.parametrize(
    ("cls", "options", "how"),
    [
        *((Plain, {}, how) for how in PLAIN),
        *((Plain, {"max_concurrency": 2}, how) for how in PLAIN),
        *((Coroutine, {}, how) for how in [*PLAIN, *OF_COROUTINES]),
        *((Coroutine, {"isolated": True}, how) for how in [*PLAIN, *OF_COROUTINES]),
    ],
)
def test_an_actor_leaves_whatever_part_of_it_asks_for_that(cls: type, options: dict[str, Any], how: str) -> None:
    neighbour: Any = remote(Coroutine).remote()
    before = get(neighbour.pid.remote())
    actor: Any = remote(cls).options(max_restarts=3, **options).remote()
    if how in {
        "in_method",
        "in_coroutine",
        "in_awaited_thread",
        "in_marked_method",
        "by_sys_exit",
        "async_by_sys_exit",
        "in_task_group",
    }:
        with pytest.raises(exceptions.ActorDiedError, match=r"it left by (exit_actor|sys\.exit\(\))"):
            get(getattr(actor, how).remote())
    else:
        get(getattr(actor, how).remote())
    assert "it left by " in until_it_has_left(actor)
    assert get(neighbour.pid.remote()) == before


@pytest.mark.parametrize("how", ["by_sys_exit", "async_by_sys_exit"])
def test_a_process_actor_that_exits_with_a_code_is_lost_with_it_and_restarted_as_often_as_it_may(how: str) -> None:
    cls = Plain if how == "by_sys_exit" else Coroutine
    actor: Any = remote(cls).options(max_restarts=1, isolated=True).remote()
    first = get(actor.pid.remote())
    with pytest.raises(exceptions.ActorUnavailableError, match="exit code 3"):
        get(getattr(actor, how).remote(3))
    assert get(actor.pid.remote()) != first
    with pytest.raises(exceptions.ActorDiedError, match="exit code 3"):
        get(getattr(actor, how).remote(3))


def test_a_task_that_calls_sys_exit_says_so_once_and_ends_its_process(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    @remote
    def leaves(code: Any) -> None:
        with runs.open("a") as file:
            print(os.getpid(), file=file)
        sys.exit(code)

    for code in (0, 3, "why"):
        with pytest.raises(exceptions.TaskError, match=f"SystemExit: {code}"):
            get(leaves.remote(code))
    pids = runs.read_text().split()
    assert len(set(pids)) == len(pids) == 3

    @remote
    async def leaves_too() -> None:
        sys.exit(3)

    with pytest.raises(exceptions.TaskError, match="SystemExit: 3"):
        get(leaves_too.remote())


@remote
class Keeps:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def keep(self, refs: list[Any]) -> None:
        self.kept += refs

    async def values(self) -> list[Any]:
        return [await ref for ref in self.kept]

    async def let_go(self) -> None:
        self.kept.clear()


@remote
def puts_and_leaves(keeper: Any, number: int, path: str) -> None:
    """Its process stays, since another one needs what it has put."""
    with Path(path).open("a") as file:
        print(os.getpid(), file=file)
    get(keeper.keep.remote([put(number)]))
    sys.exit(0)


@remote
def notes(number: int, path: str) -> int:
    with Path(path).open("a") as file:
        print(os.getpid(), number, file=file)
    return number


def test_a_process_that_stays_for_what_a_task_has_put_before_it_left_takes_no_other_task(tmp_path: Path) -> None:
    left, ran = tmp_path / "left", tmp_path / "ran"
    left.touch()
    rounds, others = 10, 20
    keeper: Any = Keeps.remote()
    for index in range(rounds):
        gone = set(left.read_text().split())
        ran.write_text("")
        first = [notes.remote(number, str(ran)) for number in range(others)]
        leaves = puts_and_leaves.remote(keeper, index, str(left))
        second = [notes.remote(number, str(ran)) for number in range(others, 2 * others)]
        assert get(first + second, timeout=30) == list(range(2 * others))
        with pytest.raises(exceptions.TaskError, match="SystemExit: 0"):
            get(leaves, timeout=30)
        lines = [line.split() for line in ran.read_text().splitlines()]
        assert sorted(int(number) for _, number in lines) == list(range(2 * others)), "each once"
        assert not gone & {pid for pid, _ in lines}
    pids = left.read_text().split()
    assert len(set(pids)) == len(pids) == rounds
    assert get(keeper.values.remote(), timeout=30) == list(range(rounds))
    get(keeper.let_go.remote())
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            pass


def test_an_exit_handler_runs_though_the_actor_leaves_in_its_constructor(tmp_path: Path) -> None:
    @remote
    class Leaves(Plain):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            exit_actor()

    path = tmp_path / "ran"
    actor: ActorHandle[Any] = Leaves.remote(str(path))
    with pytest.raises(exceptions.ActorDiedError, match="it left by exit_actor"):
        get(actor.pid.remote())
    while not path.exists():
        pass


def test_exit_actor_is_for_actors_only() -> None:
    with pytest.raises(TypeError, match=r"exit_actor\(\) is for the code of an actor"):
        exit_actor()


def forks(how: str) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    match how:
        case "return":
            return 1
        case "exit":
            sys.exit(5)
        case _:
            raise ValueError("the child's")


class Forks:
    def plain(self, how: str) -> int:
        return forks(how)


class AsyncForks(Forks):
    async def coroutine(self, how: str) -> int:
        return forks(how)


async def forks_in_coroutine(how: str) -> int:
    return forks(how)


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 5), ("raise", 1)])
def test_a_forked_child_that_comes_out_of_its_code_ends_as_a_program_does(how: str, code: int) -> None:
    plain: Any = remote(Forks).remote()
    coroutine: Any = remote(AsyncForks).remote()
    calls: list[Callable[[str], Any]] = [
        remote(forks).remote, remote(forks_in_coroutine).remote, plain.plain.remote, coroutine.plain.remote,
        coroutine.coroutine.remote,
    ]  # fmt: skip
    for call in calls:
        assert get([call(how), call(how)]) == [code, code]


@remote
class Told:
    def __init__(self) -> None:
        self.by: list[str] = []
        self.changed = asyncio.Event()

    async def hears(self, who: str) -> None:
        # Whose caller goes is cancelled at this await.
        await asyncio.sleep(0.02)
        self.by.append(who)
        self.changed.set()

    async def until(self, who: str) -> bool:
        while who not in self.by:
            self.changed.clear()
            await self.changed.wait()
        return True


class Says:
    def __init__(self, told: Any, fails: bool = False) -> None:
        self.told = told
        atexit.register(lambda: told.hears.remote("atexit"))
        if fails:
            told.hears.remote("constructor")
            raise ValueError("told to")

    def leave(self) -> None:
        self.told.hears.remote("method")
        exit_actor()

    def __del__(self) -> None:
        self.told.hears.remote("__del__")


class AsyncSays(Says):
    async def leave_too(self) -> None: ...


class AsyncDel:
    def __init__(self, told: Any) -> None:
        self.told = told

    async def leave(self) -> None:
        exit_actor()

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        await self.told.hears.remote("async __del__")


@pytest.mark.parametrize("cls", [Says, AsyncSays])
def test_what_an_actor_calls_as_it_goes_is_heard(cls: type) -> None:
    told: Any = Told.remote()
    actor: Any = remote(cls).options(isolated=True).remote(told)
    with pytest.raises(exceptions.ActorDiedError):
        get(actor.leave.remote())
    assert all(get([told.until.remote(who) for who in ("method", "__del__", "atexit")], timeout=30))


class OnlySays:
    """Has called nobody before it goes, so no link is there yet."""

    def __init__(self, told: Any, returns: int) -> None:
        self.told = told
        self.returns = returns
        atexit.register(self.say, told, "atexit")

    def say(self, told: Any, who: str) -> None:
        told.hears.options(num_returns=self.returns).remote(who)

    def ready(self) -> None: ...

    def __del__(self) -> None:
        self.say(self.told, "__del__")


class OnlySaysBeside(OnlySays):
    async def beside(self) -> None: ...


@pytest.mark.parametrize("returns", [0, 1])
@pytest.mark.parametrize("cls", [OnlySays, OnlySaysBeside])
def test_what_an_actor_calls_as_its_last_handle_goes_is_heard(cls: type, returns: int) -> None:
    told: Any = Told.remote()
    actor: Any = remote(cls).options(isolated=True).remote(told, returns)
    get(actor.ready.remote())
    del actor
    assert all(get([told.until.remote(who) for who in ("__del__", "atexit")], timeout=30))


@pytest.mark.parametrize("cls", [Says, AsyncSays])
def test_what_a_constructor_has_called_before_it_fails_is_heard(cls: type) -> None:
    told: Any = Told.remote()
    actor: Any = remote(cls).options(isolated=True).remote(told, fails=True)
    with pytest.raises(exceptions.ActorDiedError, match="told to"):
        get(actor.leave.remote())
    assert get(told.until.remote("constructor"), timeout=30)


@pytest.mark.parametrize("isolated", [False, True])
def test_an_async_del_is_awaited(isolated: bool) -> None:
    told: Any = Told.remote()
    actor: Any = remote(AsyncDel).options(isolated=isolated).remote(told)
    with pytest.raises(exceptions.ActorDiedError):
        get(actor.leave.remote())
    assert get(told.until.remote("async __del__"), timeout=30)
