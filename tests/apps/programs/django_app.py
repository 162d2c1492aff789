import asyncio
import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, MIDDLEWARE=[])
django.setup(set_prefix=False)


async def show(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"body": request.body.decode(), "query": request.GET.dict()})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts():
        for number in range(3):
            yield f"{number} "
            await asyncio.sleep(0)

    return StreamingHttpResponse(parts())


urlpatterns = [path("show", show), path("stream", stream)]
app = get_asgi_application()
