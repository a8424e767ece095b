"""Published numbers of Arena-Hard: a leaderboard with complete judgment files, and where those are.

Source: github.com/qwopqwop200/ko-arena-hard-auto, leaderboard/arena_hard_leaderboard_20250423_ensemble/no_control.csv;
the 500 questions of Arena-Hard v0.1 in Korean, scored with the code of 2024. Its style-controlled scores come from one
fit to 76 models and cannot be reproduced from ten of them.
"""

from __future__ import annotations

from eval.arenahard.score import score
from eval.arenahard.verdicts import VERSIONS
from eval.published import Comparison, PublishedFiles, Source

BASELINE = "claude-3.7-sonnet"
LEADERBOARD = {
    "o3-high": {"score": 87.29, "avg_tokens": 1453},
    "gemini-2.5-pro-exp-03-25": {"score": 85.71, "avg_tokens": 2577},
    "deepseek-chat-v3-0324": {"score": 65.62, "avg_tokens": 1085},
    "gpt-4.1-2025-04-14": {"score": 55.18, "avg_tokens": 949},
    "qwq-32b": {"score": 47.28, "avg_tokens": 1517},
    "gpt-4o-2024-11-20": {"score": 42.53, "avg_tokens": 1142},
    "deepseek-v3": {"score": 30.32, "avg_tokens": 1007},
    "claude-3.5-sonnet": {"score": 18.19, "avg_tokens": 682},
    "gpt-4o-mini": {"score": 10.45, "avg_tokens": 830},
    "qwen-2.5-7b-instruct": {"score": 2.42, "avg_tokens": 844},
}

_REPOSITORY = (
    "https://raw.githubusercontent.com/qwopqwop200/ko-arena-hard-auto/9d139328755a331f9d171bb806ac5b37d3598009"
    "/data/ko-arena-hard-v0.1"
)
_JUDGMENTS_SHA256 = {
    "o3-high": "3eeb870145e593e61f4d900f7efd0980d5d24f0a897f428c88cf109184bc426e",
    "gemini-2.5-pro-exp-03-25": "f8b84d967f5bc5e53d47af8937e891dad84d667b8d90922b5b09abcd93214f43",
    "deepseek-chat-v3-0324": "a393f3c2ada7178c9e87faa9148f4e2f730efcdea6043211c5328af8061ab0a7",
    "gpt-4.1-2025-04-14": "64e2a3a9501d478998d54eb41b02f08c2f99cc0ad0960bea50267937517b91d0",
    "qwq-32b": "4db6d3180fe00984d513d0f1390afd3ea6c497970f7f8902260a35c59dff47bf",
    "gpt-4o-2024-11-20": "d6672ecc9d952e3ac6714b0a21e13826832d29afbb1e7f484aa1bec509ceb645",
    "deepseek-v3": "360ef6bccc4b637d3a6e39040b14e4c414b8aa890aa340be340ee128eee38e5a",
    "claude-3.5-sonnet": "033f737e65cb22ec09f8a363f84d95fade2937c75000a7b23eb5f7f46b5e273c",
    "gpt-4o-mini": "c51f3438e1e3c2556ac8b0c20f56c4b3f6571e53745f4c0947b5d76ba78aa0ed",
    "qwen-2.5-7b-instruct": "5e712563bf28d5e4e43b527ebef160a328a9c6b47c70c38fd10c1c7818d6a33d",
}
_ANSWERS_SHA256 = {
    "o3-high": "02784ba95e4b0663123fa0600f627ab900fdc9624848abf1aea0103aa9e5931d",
    "gemini-2.5-pro-exp-03-25": "82c50b73bc541a95d72d57f45c748f94c839dd5853d24409d4e956c1253dba38",
    "deepseek-chat-v3-0324": "0d4fda51595652636a7da42627514f926f06a4945c5903b5c7283646f2a25f06",
    "gpt-4.1-2025-04-14": "a775fd17af133c0098ff5e38eb73f01f8419edc31638ed9f1c9a038dcd687f20",
    "qwq-32b": "117ae5124a59216161365589046ab4008090bc867435f32c19e19fadb7fd7918",
    "gpt-4o-2024-11-20": "3e463e2f5312709593075bef317db368a4708951d73aac4b6356a978bcf22439",
    "deepseek-v3": "4e50f76787c939104277df271d435b7f7bfb470accab7d9ffbf322614122304b",
    "claude-3.5-sonnet": "6a5a832597708af3e949c89e7492e81cb4a9348833f4b1b6c95986df0a9028b2",
    "gpt-4o-mini": "da1471341995056cf0db87da8d9911faf5e273b6c2454d96da796fa693ac2013",
    "qwen-2.5-7b-instruct": "83733600cb2e734ac1809a0cccb8476aaf63a3eb0c6e9017fb33a29a3fe1c053",
    "claude-3.7-sonnet": "0a9f121a90772dd2af0804b0aa274acbc3bdbc8edfd8764e81525cb74f3d1f1c",
}


def judgments_of(model: str) -> Source:
    """The judgments behind a model's row of the leaderboard."""
    return _source("model_judgment", "model_judgment/ensemble", model, _JUDGMENTS_SHA256[model])


def answers_of(model: str) -> Source:
    """A model's answers with their counts of tokens."""
    return _source("model_metadata", "model_answer", model, _ANSWERS_SHA256[model])


def _source(folder: str, remote: str, model: str, sha256: str) -> Source:
    name = f"arena_hard/ko/{folder}/{model}.jsonl"
    return Source(name, f"{_REPOSITORY}/{remote}/{model}.jsonl", sha256, (f"{name}.gz",))


def comparisons(files: PublishedFiles) -> list[Comparison]:
    """Score the published judgments. Raises DataError if a file is missing or not as expected."""
    judgments = [row for model in LEADERBOARD for row in files.records(judgments_of(model))]
    answers = [row for model in (*LEADERBOARD, BASELINE) for row in files.records(answers_of(model))]
    models = {m["model"]: m for m in score(judgments, answers, BASELINE, VERSIONS[0], n_bootstrap=2)["models"]}
    found = []
    for model, published in LEADERBOARD.items():
        ours = models.get(model, {"score": None, "mean_tokens": None})
        tokens = None if ours["mean_tokens"] is None else int(ours["mean_tokens"])  # upstream truncates
        found += [
            Comparison(model, "score", published["score"], ours["score"], 0.005),
            Comparison(model, "avg_tokens", published["avg_tokens"], tokens, 0.0),
        ]
    return found
