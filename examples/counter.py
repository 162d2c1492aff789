"""An actor: state that lives in one place and is changed by calls from anywhere."""

import actorrt


@actorrt.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    async def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


@actorrt.remote
async def work(counter: actorrt.ActorHandle[Counter], times: int) -> None:
    # A handle can be sent: this task runs in another process than the program below.
    for _ in range(times):
        await counter.add.remote()


def main() -> None:
    with actorrt.init():
        counter = Counter.remote(start=10)
        actorrt.get([work.remote(counter, 25) for _ in range(4)])
        print("the counter says", actorrt.get(counter.add.remote(0)))


if __name__ == "__main__":
    main()
