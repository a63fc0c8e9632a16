"""Serves an exported model: python examples/serve.py exported 8000; needs the [serve] extra and nothing of c3r_jax.

curl -d '{"text": "red apple"}' localhost:8000/predict    # "image" would be rows of pixels, each three numbers
"""

import asyncio
import json
import runpy
import sys

import fastapi
import uvicorn


def application(folder, largest=32, most_bytes=2**24):
    model, lock, waiting = runpy.run_path(f"{folder}/load.py")["load"](folder), asyncio.Lock(), []
    app = fastapi.FastAPI()

    async def logits_of(example):  # requests that come while the model works are answered together by its next call
        waiting.append((example, answer := asyncio.get_running_loop().create_future()))
        async with lock:
            if not answer.done():
                batch, waiting[:] = waiting[:largest], waiting[largest:]
                examples = [one for one, _ in batch]
                padding = (1 << (len(batch) - 1).bit_length()) - len(batch)  # few sizes: each is compiled once
                outputs = await asyncio.to_thread(model.predict, examples + examples[:1] * padding)
                for i, (_, own) in enumerate(batch):
                    own.set_result({route: logits[i].tolist() for route, logits in outputs.items()})
        return await answer

    @app.post("/predict")
    async def predict(request: fastapi.Request):
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > most_bytes:
                raise fastapi.HTTPException(413, f"The body has more than {most_bytes} bytes.")
        try:
            example = model.row(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise fastapi.HTTPException(422, f"The request cannot be used: {error}") from None
        logits = await logits_of(example)
        best = max(enumerate(logits["representation"]), key=lambda entry: entry[1])[0]
        return {"label": model.labels[best] if model.labels else None, **logits}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]))
