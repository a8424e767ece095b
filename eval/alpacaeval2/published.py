"""Published numbers of AlpacaEval 2: six rows of the leaderboard, and where the annotations behind them are.

Source: weighted_alpaca_eval_gpt4_turbo_leaderboard.csv of github.com/tatsu-lab/alpaca_eval, in
src/alpaca_eval/leaderboards/data_AlpacaEval_2/.
The annotations are CC BY-NC 4.0 and not part of this project.
"""

from __future__ import annotations

from eval.alpacaeval2.score import read_difficulty, read_gamed, score
from eval.published import Comparison, PublishedFiles, Source

LEADERBOARD = {
    "FuseChat-Gemma-2-9B-Instruct": {
        "win_rate": 70.49713534560247,
        "standard_error": 1.3426390784895994,
        "discrete_win_rate": 71.73913043478261,
        "n_wins": 575,
        "n_wins_base": 225,
        "n_draws": 5,
        "n_total": 805,
        "avg_length": 2155,
        "length_controlled_winrate": 70.18106263911686,
    },
    "FuseChat-Llama-3.2-3B-Instruct": {
        "win_rate": 51.29667710101864,
        "standard_error": 1.482579367297701,
        "discrete_win_rate": 52.85714285714286,
        "n_wins": 424,
        "n_wins_base": 378,
        "n_draws": 3,
        "n_total": 805,
        "avg_length": 1976,
        "length_controlled_winrate": 53.99883748344241,
    },
    "claude-2": {
        "win_rate": 17.188240356708075,
        "standard_error": 1.17482825615589,
        "discrete_win_rate": 16.335403726708076,
        "n_wins": 131,
        "n_wins_base": 673,
        "n_draws": 1,
        "n_total": 805,
        "avg_length": 1069,
        "length_controlled_winrate": 28.155196141629148,
    },
    "vicuna-7b-v1.5": {
        "win_rate": 4.797493939167703,
        "standard_error": 0.6655960676971918,
        "discrete_win_rate": 4.53416149068323,
        "n_wins": 35,
        "n_wins_base": 767,
        "n_draws": 3,
        "n_total": 805,
        "avg_length": 1083,
        "length_controlled_winrate": 7.616892731870527,
    },
    "NullModel": {
        "win_rate": 76.91979180386511,
        "standard_error": 0.9090102449662572,
        "discrete_win_rate": 83.97515527950311,
        "n_wins": 676,
        "n_wins_base": 129,
        "n_draws": 0,
        "n_total": 805,
        "avg_length": 872,
        "length_controlled_winrate": 86.45780691307947,
    },
    "alpaca-7b_concise": {
        "win_rate": 1.9911763835447769,
        "standard_error": 0.4437510223659489,
        "discrete_win_rate": 1.9900497512437807,
        "n_wins": 15,
        "n_wins_base": 787,
        "n_draws": 2,
        "n_total": 804,
        "avg_length": 351,
        "length_controlled_winrate": 4.467251679930348,
    },
}

# The leaderboard states no C. Of upstream's grid, these give the published length-controlled win rates.
PUBLISHED_C = {
    "FuseChat-Gemma-2-9B-Instruct": 2.78256,
    "FuseChat-Llama-3.2-3B-Instruct": 21.5443,
    "claude-2": 2.78256,
    "vicuna-7b-v1.5": 21.5443,
    "NullModel": 21.5443,
    "alpaca-7b_concise": 166.81,
}

_REPOSITORY = "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20"
_DATASET = "https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/2edc6fad8be6b14ea7230aabfd08188da6b8b814"
_SHA256 = {
    "FuseChat-Gemma-2-9B-Instruct": "72945b6a549eadcd18940fee835343d62985fced144e5b7a2b69c79e120d3cab",
    "FuseChat-Llama-3.2-3B-Instruct": "32d4b6912694012c82c1b822792a3fc9e492119a48d93a10c3fbf2990b3a40ae",
    "claude-2": "cb4ef83e4f77bc2106c53ec0645a47e0b704b6ff7d013936ef9e70f330ca264b",
    "vicuna-7b-v1.5": "95d713d4f6c7f9afecd3a1de089336aca2e99addb954ff48a653e0c65ccfa376",
    "NullModel": "d8e6d6d8ad735b57149fe0d9cb307e095cdc8befee5f0a849e00d66912500be3",
    "alpaca-7b_concise": "afa1dcc9daa47b9df7f50b2c09f489289008da0961f51e946f623e0a338947b0",
}
_DIFFICULTY = Source(
    "alpaca_eval/instruction_difficulty.csv",
    f"{_DATASET}/instruction_difficulty.csv",
    "e28d875bb334f75e17acd1e4ed659b261860e3db379cf5de29060301bed0a18b",
)
_GAMED = Source(
    "alpaca_eval/df_gamed.csv",
    f"{_DATASET}/df_gamed.csv",
    "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d",
    ("alpaca_eval/df_gamed_surrogate.csv.gz",),  # gives the same fits; tests/evaldata.py says where it comes from
)

# Published lengths are truncated, win rates have all their digits, and length-controlled ones come from a solver that
# stops early.
_TOLERANCE = {"length_controlled_winrate": 1e-5, "win_rate": 1e-6, "standard_error": 1e-6, "discrete_win_rate": 1e-6}


def annotations_of(model: str) -> Source:
    """The annotations behind a model's row of the leaderboard."""
    return Source(
        f"alpaca_eval/annotations/{model}.json",
        f"{_REPOSITORY}/results/{model}/weighted_alpaca_eval_gpt4_turbo/annotations.json",
        _SHA256[model],
        (f"alpaca_eval/annotations/{model}.jsonl.gz",),
    )


def comparisons(files: PublishedFiles) -> list[Comparison]:
    """Score the published annotations. Raises DataError if a file is missing or not as expected."""
    difficulty, gamed = read_difficulty(files.path(_DIFFICULTY)), read_gamed(files.path(_GAMED))
    found = []
    for model, published in LEADERBOARD.items():
        rows = files.records(annotations_of(model))
        result = score(rows, difficulty, gamed, PUBLISHED_C[model], n_bootstrap=2)
        ours = result | {"n_total": result["n"] + result["n_failed"], "avg_length": int(result["mean_length"])}
        found += [
            Comparison(model, metric, value, ours[metric], _TOLERANCE.get(metric, 0.0))
            for metric, value in published.items()
        ]
    return found
