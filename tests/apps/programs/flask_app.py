from a2wsgi import WSGIMiddleware
from flask import Flask, request

plain = Flask(__name__)


@plain.post("/show")
def show():
    return {"body": request.get_json(), "scheme": request.scheme}


app = WSGIMiddleware(plain)
