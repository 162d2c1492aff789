from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import FastAPI

app = FastAPI()
app.add_middleware(CorrelationIdMiddleware)


@app.get("/show")
async def show():
    return correlation_id.get()
