from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.routing import Route


async def events(request):
    async def parts():
        for number in range(3):
            yield {"event": "tick", "data": str(number)}

    return EventSourceResponse(parts())


app = Starlette(routes=[Route("/events", events)])
