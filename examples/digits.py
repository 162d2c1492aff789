"""Handwritten digits over HTTP, by a graph of three deployments. `make serve`, or run this file, then ask:

curl --data-binary @examples/seven.png http://127.0.0.1:8000/"""

import io
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse

from actorrt import serve

HELD_OUT = 100  # the last pictures of the data set are not trained on; examples/seven.png is one of them


@serve.deployment
def decode(png: bytes) -> np.ndarray:
    """A picture of any size, dark on light or light on dark, as the 8 x 8 grey values (0 to 16) of the data set."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(png)).convert("L").resize((8, 8), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise ValueError("the body is not a picture: send a PNG of one digit") from None
    pixels = np.asarray(picture, dtype=float) / 255 * 16
    return 16 - pixels if pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 8 else pixels


@serve.deployment
class Classifier:
    def __init__(self) -> None:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression

        pixels, digits = load_digits(return_X_y=True)
        # A small C keeps it from being sure of everything.
        self.model = LogisticRegression(C=0.003, max_iter=1000).fit(pixels[:-HELD_OUT], digits[:-HELD_OUT])

    def __call__(self, pixels: np.ndarray) -> list[float]:
        return self.model.predict_proba(pixels.reshape(1, 64))[0].tolist()


@serve.deployment
class Digits:
    def __init__(self, decode: Any, classifier: Any) -> None:
        self.decode, self.classifier = decode, classifier

    async def __call__(self, request: Request) -> JSONResponse:
        pixels = self.decode.remote(await request.body())  # not awaited: it goes straight on to the classifier
        try:
            found = await self.classifier.remote(pixels)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"digit": int(np.argmax(found)), "probabilities": np.round(found, 4).tolist()})


app = Digits.bind(decode.bind(), Classifier.bind())
if __name__ == "__main__":
    serve.run(app, blocking=True)
