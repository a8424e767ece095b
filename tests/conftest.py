"""Small models and a miniature results tree, so that tests of the core need not build a world."""

import os
import shutil
import subprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
from hypothesis import settings

from metaapo import PROJECT

# A busy machine is slow without being wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

WORDS = "list sort animals cat dog hen red ball blue and a the three 7 3 9 1 please say .".split()
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<user> {{ m['content'] }}"
    "{% else %}<assistant> {{ m['content'] }} {{ eos_token }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run tests marked slow")
    parser.addoption(
        "--kills", type=int, default=0, help="kill the whole smoke experiment so often; 0: a part of it, three times"
    )


def pytest_collection_modifyitems(config, items):
    # The longest file first: started last, it would keep one of two workers idle.
    items.sort(key=lambda item: item.path.name != "test_workflow.py")
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_policy(seed=0):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=6 + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def make_reward_model(seed=7):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=6 + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_labels=1, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).eval()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def policy():
    return make_policy()


@pytest.fixture(scope="session")
def reward_model():
    return make_reward_model()


def random_text(rng, low=2, high=8):
    return " ".join(rng.choice(WORDS, size=rng.integers(low, high)))


def write_world(folder, pairs=48, iterations=3, seed=0):
    """Write a world's folder with random data and untrained models: enough to run the loop, with nothing to learn."""
    from metaapo.data import write_jsonl

    rng = np.random.default_rng(seed)
    rows = [
        {
            "id": f"p{i}",
            "messages": [{"role": "user", "content": random_text(rng)}],
            "chosen": random_text(rng) + " cat",
            "rejected": random_text(rng) + " dog",
            "task": "list" if i % 2 else "sort",
            "iteration": 1 + i * iterations // pairs,
        }
        for i in range(pairs)
    ]
    write_jsonl(folder / "data" / "pairs.jsonl", rows)
    for name, model in (("sft", make_policy()), ("reward_model", make_reward_model())):
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)


def copy_project(folder):
    """Copy the project as git sees it, uncommitted files included, to another folder."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


def experiment_document(results_dir, **changes):
    """A configuration for `write_world`'s world."""
    return {
        "experiment": "test",
        "results_dir": str(results_dir),
        "seeds": [0, 1],
        "iterations": 3,
        "train": {"batch_size": 4, "micro_batch_size": 4, "lr": 1e-3, "max_length": 48},
        "sampling": {"k": 3, "max_new_tokens": 8, "batch_size": 64},
        "methods": {"dpo": {}, "online_dpo": {}, "metaapo": {"t_meta": 2}, "random": {}},
    } | changes
