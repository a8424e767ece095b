"""Asks a judge at the hostile endpoint for many grades; imports little, so that tests can start and kill it often."""

import os
import re
import sys

from hostile import KEY, PRICE

from eval.judges.client import Client
from eval.judges.config import JudgeConfig
from eval.judges.store import Store
from eval.judges.wire import body_of

SETTINGS = {"max_tokens": 64, "temperature": 0}


def make_client(url, store, concurrency=8, **settings):
    os.environ["HOSTILE_KEY"] = KEY
    defaults = {"timeout": 5.0, "attempts": 4, "backoff": 0.002, "price": PRICE, "model": "hostile"}
    # The store sees the same endpoint on any port.
    defaults |= {"endpoint": "hostile", "api_key_env": "HOSTILE_KEY"}
    config = JudgeConfig(kind="openai", url=url, concurrency=concurrency, **defaults | settings)
    return Client(config, Store(store))


def grade_in(answer):
    """A grade as MT-Bench's parser reads it, from 1 to 10."""
    match = re.search(r"\[\[(\d{1,2})\]\]", answer.text)
    return int(match[1]) if match and 1 <= int(match[1]) <= 10 else None


def ask(client, count):
    """Grades of `count` questions; None for an answer without a grade."""
    prompts = [[{"role": "user", "content": f"Grade answer {i}."}] for i in range(count)]
    bodies = [body_of(client.config, prompt, SETTINGS) for prompt in prompts]
    answers = client.ask(bodies, lambda answer: grade_in(answer) is not None)
    return [grade_in(answer) for answer in answers]


if (
    __name__ == "__main__"
):  # URL STORE CONCURRENCY COUNT: for every line of input, start a child that asks and print its process id
    url, store, concurrency, count = sys.argv[1:]
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            ask(make_client(url, store, int(concurrency), attempts=20), int(count))
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
