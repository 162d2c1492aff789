"""Structured concurrency across processes: leaving a group waits for its children; a failure cancels the others."""

import asyncio

import actorrt


@actorrt.remote
class Library:
    def __init__(self, name: str) -> None:
        self.name = name

    async def look_for(self, book: str) -> str:
        print(f"{self.name}: looking for {book!r}")
        try:
            await asyncio.Event().wait()  # a search that would never end
            return book
        finally:
            # Runs in the library's own process, also when a sibling elsewhere failed.
            print(f"{self.name}: stopped looking")


@actorrt.remote
async def ask_the_censor(book: str) -> None:
    await asyncio.sleep(0.2)
    raise PermissionError(f"{book!r} may not be read")


async def main() -> None:
    async with actorrt.init():
        libraries = [Library.remote(city) for city in ("Alexandria", "Pergamon", "Ephesus")]
        try:
            async with actorrt.TaskGroup() as group:
                for library in libraries:
                    group.start(library.look_for.remote("On Nature"))
                group.start(ask_the_censor.remote("On Nature"))
        except* PermissionError as errors:
            print("no answer:", errors.exceptions[0])


if __name__ == "__main__":
    asyncio.run(main())
