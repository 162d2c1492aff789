import strawberry
from strawberry.asgi import GraphQL


@strawberry.type
class Query:
    @strawberry.field
    async def double(self, number: int) -> int:
        return 2 * number


app = GraphQL(strawberry.Schema(Query))
