from dataclasses import dataclass

from litestar import Litestar, post


@dataclass
class Item:
    name: str


@post("/show")
async def show(data: Item) -> Item:
    return Item(data.name.upper())


app = Litestar([show])
