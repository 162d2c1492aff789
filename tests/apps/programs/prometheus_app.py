from prometheus_client import Counter, make_asgi_app
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

CALLS = Counter("calls", "How often.")


async def call(request):
    CALLS.inc()
    return PlainTextResponse("counted")


app = Starlette(routes=[Route("/call", call), Mount("/metrics", make_asgi_app())])
