from quart import Quart, request, websocket

app = Quart(__name__)


@app.before_serving
async def start():
    app.config["STARTED"] = True


@app.post("/show")
async def show():
    return {"body": await request.get_json(), "started": app.config["STARTED"]}


@app.websocket("/echo")
async def echo():
    await websocket.send("echo " + await websocket.receive())
