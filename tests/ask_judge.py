"""Asks a judge for many preferences in a separate process, which a test can kill: URL STORE COUNT CONCURRENCY OUT."""

import json
import sys

from eval.judges import Comparison
from eval.judges.client import Client
from eval.judges.config import JudgeConfig
from eval.judges.openai import OpenAIJudge
from eval.judges.store import Store


def make_pairs(count):
    prompt = "Name {} animals."
    return [
        Comparison([{"role": "user", "content": prompt.format(i)}], f"cat {i}", f"dog {i}", str(i))
        for i in range(count)
    ]


def make_judge(url, store, concurrency=16, **settings):
    config = JudgeConfig(
        kind="openai",
        model="loopback",
        url=url,
        api_key_env="LOOPBACK_KEY",
        concurrency=concurrency,
        **{
            "timeout": 5.0,
            "attempts": 20,
            "backoff": 0.01,
            "price": {"input": 10.0, "output": 30.0},
            "max_unreadable": 0.5,  # the loopback endpoint returns some odd answers
        }
        | settings,
    )
    return OpenAIJudge("loopback", config, Client(config, Store(store)), "v0.1-2024")


if __name__ == "__main__":
    url, store, count, concurrency, out = sys.argv[1:]
    judge = make_judge(url, store, int(concurrency))
    values = [judgment.value for judgment in judge.prefer(make_pairs(int(count)))]
    with open(out, "w") as file:
        json.dump(values, file)
