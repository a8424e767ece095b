"""Worlds of real data: every layout gives the same pairs, parts are disjoint, unusable records are reported."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_tokenizer, random_text

from metaapo.config import DatasetConfig
from metaapo.data import DataError, read_json, read_jsonl, write_jsonl
from metaapo.experiment import resolve
from metaapo.worlds.ultrafeedback.pairs import Pair, build, data_files, pair_of, read_pairs, split_into_iterations

USER = {"role": "user", "content": "sort 7 3"}
GOOD, BAD = {"role": "assistant", "content": "3 7"}, {"role": "assistant", "content": "7 3"}
FIRST = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
EXPECTED = Pair([USER], "3 7", "7 3")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "sort 7 3", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "sort 7 3", "chosen": " 3 7", "rejected": "7 3"},
        {"chosen": "sort 7 3 3 7", "rejected": "sort 7 3 7 3"},
        {"messages": [USER], "chosen": "3 7", "rejected": "7 3"},
    ],
    ids=["ultrafeedback", "conversational", "conversational-implicit", "standard", "standard-implicit", "ours"],
)
def test_every_layout_gives_the_same_pair(row):
    assert pair_of(row, "here") == EXPECTED


def test_earlier_turns_and_system_prompts_stay_in_the_prompt():
    system = {"role": "system", "content": "be kind"}
    row = {"chosen": [system, *FIRST, USER, GOOD], "rejected": [system, *FIRST, USER, BAD]}
    assert pair_of(row, "here") == Pair([system, *FIRST, USER], "3 7", "7 3")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, r"f:3: column 'chosen' is missing; found \['completion', 'prompt'\]"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, r"f:3: column 'rejected' is missing"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": "b"}, r"f:3: prompt, chosen and rejected mix list, str"),
        ({"chosen": "abc", "rejected": "xyz"}, r"f:3: no prompt, and chosen and rejected share no beginning"),
        ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD]}, r"chosen adds assistant, user, assistant"),
        ({"prompt": [{"role": "user"}], "chosen": [GOOD], "rejected": [BAD]}, r"f:3: a message lacks role or content"),
        ({"prompt": FIRST, "chosen": [GOOD], "rejected": [BAD]}, r"f:3: the prompt does not end with a user turn"),
    ],
)
def test_records_of_unknown_layout_are_reported(row, message):
    with pytest.raises(DataError, match=message):
        pair_of(row, "f:3")


def words(pair):
    prompt = len(pair.messages[-1]["content"].split())
    return prompt, prompt + max(len(pair.chosen.split()), len(pair.rejected.split()))


def test_filters_drop_and_count(tmp_path):
    rows = [
        {"prompt": "a b", "chosen": "c", "rejected": "d"},
        {"prompt": "a b", "chosen": "e", "rejected": "f"},
        {"prompt": "a b c d", "chosen": "c", "rejected": "d"},
        {"prompt": "a", "chosen": "b c d e f g", "rejected": "d"},
        {"prompt": "a", "chosen": " ", "rejected": "d"},
        {"prompt": "a", "chosen": "d ", "rejected": "d"},
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    dataset = DatasetConfig(path=str(tmp_path), split="train", max_prompt_tokens=3, max_tokens=6)
    kept, counts = read_pairs(dataset, tmp_path, "world.dataset.path", words)
    expected = {"kept": 2, "prompt_too_long": 1, "pair_too_long": 1, "empty_answer": 1, "equal_answers": 1, "read": 6}
    assert counts == expected
    assert [row["chosen"] for row in kept] == ["c", "e"]
    assert len({row["id"] for row in kept}) == 2
    with pytest.raises(DataError, match=r"world\.dataset\.path: no usable pair in .*prompt_too_long"):
        read_pairs(dataset.model_copy(update={"max_prompt_tokens": 0}), tmp_path, "world.dataset.path", words)


def test_a_missing_split_lists_the_existing_ones(tmp_path):
    write_jsonl(tmp_path / "data" / "test_prefs.jsonl", [])
    with pytest.raises(DataError, match=r"no file named train_prefs\*; found data/test_prefs\.jsonl"):
        data_files(tmp_path, "train_prefs", "world.dataset.path")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    dataset = DatasetConfig(path="x", split="broken")
    with pytest.raises(DataError, match=r"broken\.parquet: not a readable parquet file"):
        read_pairs(dataset, tmp_path, "k", words)


def rows_of(prompts):
    return [
        {"id": str(i), "messages": [{"role": "user", "content": p}], "chosen": "a", "rejected": "b"}
        for i, p in enumerate(prompts)
    ]


def test_iterations_share_no_prompt_and_are_seeded():
    rows = rows_of([f"p{i // 2 if i < 20 else i}" for i in range(100)])  # the first ten prompts appear twice
    parts = split_into_iterations(rows, 33, 3, random.Random(0), "k")
    prompts = [{r["messages"][0]["content"] for r in parts if r["iteration"] == t} for t in (1, 2, 3)]
    assert [sum(r["iteration"] == t for r in parts) for t in (1, 2, 3)] == [33, 33, 33]
    assert not prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2]
    assert parts == split_into_iterations(rows, 33, 3, random.Random(0), "k")
    assert parts != split_into_iterations(rows, 33, 3, random.Random(1), "k")
    in_order = split_into_iterations(rows, 33, 3, None, "k")
    assert [r["id"] for r in in_order[:33]] == [str(i) for i in range(33)]


def test_a_few_missing_pairs_shrink_the_parts_and_many_are_an_error():
    rows = rows_of([f"p{i}" for i in range(98)])
    assert len(split_into_iterations(rows, 50, 2, None, "k")) == 98
    with pytest.raises(DataError, match=r"k: 98 usable pairs, 2 iterations of 60 need 120; lower .* to 49"):
        split_into_iterations(rows, 60, 2, None, "k")


@pytest.fixture
def experiment(tmp_path):
    """UltraFeedback's layout on disk: a parquet file in data/, the prompt as a string, complete conversations."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        prompt = random_text(rng)
        user = {"content": prompt, "role": "user"}
        answers = [{"content": random_text(rng) + end, "role": "assistant"} for end in (" cat", " dog")]
        rows.append(
            {"prompt": prompt, "prompt_id": f"id{i}", "chosen": [user, answers[0]], "rejected": [user, answers[1]]}
        )
    (tmp_path / "uf" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "uf" / "data" / "train_prefs-00000-of-00001.parquet")
    document = {
        "experiment": "t",
        "results_dir": str(tmp_path / "results"),
        "seeds": [0],
        "iterations": 2,
        "methods": {"dpo": {}},
        "world": {"name": "ultrafeedback", "pairs_per_iteration": 16, "dataset": {"path": str(tmp_path / "uf")}},
        "sft": {"checkpoint": {"path": "org/model"}},
        "reward_model": {"checkpoint": {"path": "org/reward"}},
        "evaluation": {"judges": ["reward_model"]},
    }
    experiment = resolve(document)
    make_tokenizer().save_pretrained(experiment.world_path(0) / "sft")
    return experiment


def test_a_world_is_written_as_the_loop_reads_it(experiment):
    data = experiment.world_path(0) / "data"
    build(experiment, 0, data)
    rows = read_jsonl(data / "pairs.jsonl")
    parts = [[row for row in rows if row["iteration"] == t] for t in (1, 2)]
    assert all({"id", "messages", "chosen", "rejected", "task"} <= row.keys() for row in rows)
    assert [len(part) for part in parts] == [16, 16]
    assert not {row["id"] for row in parts[0]} & {row["id"] for row in parts[1]}
    manifest = read_json(data / "manifest.json")
    assert manifest["files"]["pairs.jsonl"]["n"] == 32 == len(read_jsonl(data / "pairs.jsonl"))
    assert manifest["dataset"]["pairs"]["read"] == 40
