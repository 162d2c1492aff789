import gradio
from fastapi import FastAPI

with gradio.Blocks() as blocks:
    given = gradio.Number()
    given.submit(lambda number: 2 * number, given, gradio.Number(), api_name="double")

app = gradio.mount_gradio_app(FastAPI(), blocks, path="/ui")
