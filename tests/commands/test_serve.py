"""examples/serve.py under load: good answers are those of the model, bad requests get one sentence each."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import runpy
import socket
import threading
import time

import numpy as np
import pytest
import uvicorn

from c3r_jax.data.sets.emoji import load_emoji
from c3r_jax.export.loader import load
from tests.processes import REPOSITORY


@pytest.fixture(scope="module")
def port(exported):
    """Port of a server in a thread of this process."""
    example = runpy.run_path(str(REPOSITORY / "examples" / "serve.py"))
    assert len((REPOSITORY / "examples" / "serve.py").read_text().splitlines()) <= 40
    server = uvicorn.Server(
        uvicorn.Config(example["application"](str(exported[0]), most_bytes=20_000), log_level="error")
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", json.dumps(body) if isinstance(body, dict) else body)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


BAD = {
    b"": "The request cannot be used: Expecting value",
    b"\xff\xfe": "cannot be used",
    b"[1, 2]": "An example must be an object with at least one of image, text.",
    b'{"image": [[[1, 2, 3]]]}': "'image' must be uint8 of shape (16, 16, 3) from 0 to 255, but a int64 array of",
    b'{"sound": 1}': "Modality 'sound' is unknown: expected one of image, text.",
    b'{"text": [1e999]}': "'text' must be int32 of shape (16,)",
    b"[" * 19_000: "cannot be used",
}


def test_concurrent_requests_good_and_bad(port, exported, small_emoji):
    source = load_emoji("test", path=small_emoji, image_size=16)
    examples = [{"image": source[i]["image"].tolist(), "text": source[i]["text"]} for i in range(40)]
    for i in range(0, 40, 4):
        del examples[i]["image"], examples[i + 1]["text"]
    model = load(exported[0])
    direct = model.predict(examples)
    requests = [*enumerate(examples), *((None, body) for body in BAD)] * 2
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda request: post(port, request[1]), requests))
    for (number, body), (status, found) in zip(requests, answers, strict=True):
        if number is None:
            assert status == 422 and BAD[body] in found["detail"] and "\n" not in found["detail"], found
            continue
        assert status == 200 and found["label"] == model.labels[direct["representation"][number].argmax()]
        for route, logits in direct.items():
            np.testing.assert_allclose(found[route], logits[number], atol=1e-6)


def test_too_large_a_body_is_refused(port):
    for body in (b" " * 20_001, (b" " for _ in range(2))):  # the second comes in chunks, whose length nobody knows
        status, found = post(port, body)
        assert status == 413 and found["detail"] == "A request must say its length, of at most 20000 bytes."


class Slow:
    """A model that takes a while, writes down the sizes of its batches and fails on "bad"."""

    def __init__(self):
        self.sizes = []

    def row(self, example):
        return example

    def label(self, logits):
        return "only"

    def predict(self, examples, padded, checked):
        assert padded and not checked  # one client's numbers are no other's error
        self.sizes.append(len(examples))
        time.sleep(0.05)
        if any(one["text"] == "bad" for one in examples):
            raise RuntimeError("out of memory")
        return {"representation": np.array([[one["text"]] for one in examples])}


def ask_all(model, values, monkeypatch):
    """Status and body of requests sent at once, in batches of at most four."""
    example = runpy.run_path(str(REPOSITORY / "examples" / "serve.py"))
    monkeypatch.setattr(runpy, "run_path", lambda path: {"load": lambda folder: model})
    app = example["application"]("folder", largest=4)

    async def ask(value):
        sent = []
        body = json.dumps({"text": value}).encode()
        length = (b"content-length", str(len(body)).encode())
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [length], "query_string": b""}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        with contextlib.suppress(RuntimeError, KeyError):  # the server logs what was raised, after it has answered
            await app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    async def gathered():
        return await asyncio.wait_for(asyncio.gather(*map(ask, values)), timeout=60)

    return asyncio.run(gathered())


def test_concurrent_requests_share_calls(monkeypatch):
    """While the model is at its first call, others wait; the second call takes four of them, the third the rest."""
    model = Slow()
    answers = ask_all(model, range(8), monkeypatch)
    assert [(status, json.loads(body)["representation"]) for status, body in answers] == [(200, [i]) for i in range(8)]
    assert model.sizes == [1, 4, 3]


def test_a_call_that_fails_is_answered_and_others_go_on(monkeypatch):
    answers = ask_all(Slow(), [0, 1, "bad", 3, 4, 5, 6], monkeypatch)
    assert [status for status, _ in answers] == [200, 500, 500, 500, 500, 200, 200]
    assert json.loads(answers[-1][1])["representation"] == [6]
