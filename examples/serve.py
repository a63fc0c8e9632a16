"""Serves an exported model: python serve.py FOLDER PORT; needs the [serve] extra and nothing of c3r_jax."""

import asyncio
import runpy
import sys

import fastapi
import uvicorn


def application(folder, largest=32, most_bytes=2**24):
    model, lock, waiting = runpy.run_path(f"{folder}/load.py")["load"](folder), asyncio.Lock(), []
    app = fastapi.FastAPI()

    async def logits_of(example):  # requests that come while the model works are answered together by its next call
        waiting.append((example, own := {}))
        async with lock:
            if not own:
                batch, waiting[:] = waiting[:largest], waiting[largest:]
                outputs = await asyncio.to_thread(model.predict, [one for one, _ in batch], padded=True, checked=False)
                for i, (_, found) in enumerate(batch):
                    found.update({route: logits[i].tolist() for route, logits in outputs.items()})
        return own

    @app.post("/predict")
    async def predict(request: fastapi.Request):
        if int(request.headers.get("content-length", most_bytes + 1)) > most_bytes:
            raise fastapi.HTTPException(413, f"A request must say its length, of at most {most_bytes} bytes.")
        try:
            logits = await logits_of(model.row(await request.json()))
            labels = {route: model.label(found) for route, found in logits.items()}
        except (ValueError, RecursionError) as error:
            raise fastapi.HTTPException(422, f"The request cannot be used: {error}") from None
        return {"label": labels["representation"], **logits}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]))
