"""Supervised fine-tuning: a small Llama learns the world's demonstrations, with TRL's SFTTrainer.

The result is the policy that every method starts from, and the reference for most of them.

    OMP_NUM_THREADS=2 python -m metaapo.worlds.tiny.sft --config config/default.yaml --world 0
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from metaapo.command import errors_in_one_sentence, load_and_pin, world_arguments
from metaapo.config import ModelConfig
from metaapo.data import DataError, Message, write_jsonl
from metaapo.experiment import Experiment
from metaapo.models.load import load_tokenizer, use_threads_of_environment
from metaapo.worlds.tiny.data import demonstrations


def tokenize(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[Message]], answers: Sequence[str] | None
) -> list[list[int]]:
    """Token ids of conversations, the chat template applied once to each.

    Args:
        tokenizer: with a chat template.
        conversations: each ends with a user turn.
        answers: the assistant's answer to each; None: stop where the answer would start.
    """
    if answers is not None:
        conversations = [[*c, {"role": "assistant", "content": a}] for c, a in zip(conversations, answers, strict=True)]
    texts = tokenizer.apply_chat_template(list(conversations), tokenize=False, add_generation_prompt=answers is None)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def new_model(shape: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with random weights; its input and output embeddings are tied."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def check_lengths(sequences: Sequence[Sequence[int]], max_positions: int, where: str) -> None:
    """Check that no sequence is longer than the model's maximum.

    Raises:
        DataError: a sequence is too long; the message names the first.
    """
    for row, ids in enumerate(sequences, start=1):
        if len(ids) > max_positions:
            raise DataError(f"{where}:{row}: {len(ids)} tokens exceed model.max_positions {max_positions}; raise it")


def _dataset(rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_positions: int) -> Dataset:
    """Build rows of input_ids and labels; the loss covers the answer and its EOS, not the prompt (label -100)."""
    conversations = [row["messages"] for row in rows]
    prompts = tokenize(tokenizer, conversations, None)
    full = tokenize(tokenizer, conversations, [row["response"] for row in rows])
    check_lengths(full, max_positions, "demonstrations")
    labels = [[-100] * len(prompt) + ids[len(prompt) :] for prompt, ids in zip(prompts, full)]
    return Dataset.from_dict({"input_ids": full, "labels": labels, "length": [len(ids) for ids in full]})


def training_arguments(folder: Path, seed: int) -> dict[str, Any]:
    """Settings shared by SFT and reward modelling: float32, batches of similar length, no intermediate checkpoints."""
    return {
        "output_dir": str(folder),
        "seed": seed,
        "bf16": False,
        "activation_checkpointing": False,
        "adam_beta2": 0.95,  # short training needs a faster second moment
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # keep the column `length`, which groups the batches
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 50,
    }


def train(experiment: Experiment, seed: int) -> Path:
    """Train the SFT policy of a world and save it with its tokenizer and its demonstrations.

    Returns:
        The checkpoint's folder, world{seed}/sft.

    Raises:
        DataError: a demonstration is longer than the model's maximum.
    """
    world, settings = experiment.world_path(seed), experiment.sft
    tokenizer = load_tokenizer(world / "data" / "tokenizer")
    rows = demonstrations(settings.demonstrations, seed)
    write_jsonl(world / "sft" / "demonstrations.jsonl.gz", rows)
    set_seed(seed)
    model = new_model(experiment.model, tokenizer)
    print(f"sft: {model.num_parameters():,} parameters, {len(rows)} demonstrations", file=sys.stderr)
    arguments = SFTConfig(
        **training_arguments(world / "sft", seed),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    data = _dataset(rows, tokenizer, experiment.model.max_positions)
    SFTTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer).train()
    return save(model, tokenizer, world / "sft")


@torch.no_grad()
def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Save a checkpoint, its weights rounded to half precision so that worlds can be shipped at half the size."""
    for weights in model.parameters():
        weights.copy_(weights.half())
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def main() -> None:
    """Command line: train the SFT policy of one world."""
    arguments = world_arguments("Train the SFT policy of a world.").parse_args()
    use_threads_of_environment()
    with errors_in_one_sentence():
        train(load_and_pin(arguments.config), arguments.world)


if __name__ == "__main__":
    main()
