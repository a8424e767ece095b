"""Load policies, reward models and tokenizers; turn conversations into token ids."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from metaapo.data import DataError, Message, read_json

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()


def _check_checkpoint(path: str | Path) -> None:
    path = Path(path)
    if not (path / "config.json").is_file():
        raise DataError(f"{path}: no model here (config.json is missing); expected a transformers checkpoint folder")
    if not any(path.glob("*.safetensors")):
        raise DataError(f"{path}: no *.safetensors weights; convert the checkpoint with save_pretrained")
    read_json(path / "config.json")


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer and check what the rest of the code relies on.

    Raises:
        DataError: it has no chat template, or no EOS token.
    """
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.chat_template is None:
        raise DataError(f"{path}: the tokenizer has no chat template; save one with it (tokenizer.chat_template)")
    if tokenizer.eos_token_id is None:
        raise DataError(f"{path}: the tokenizer has no EOS token; responses could never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, in float32 and evaluation mode.

    Raises:
        DataError: the folder holds no safetensors checkpoint.
    """
    _check_checkpoint(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    return model.eval(), load_tokenizer(path)


def load_reward_model(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence-classification model with one output, the reward, and its tokenizer.

    Raises:
        DataError: the folder holds no safetensors checkpoint, or the model has several outputs.
    """
    _check_checkpoint(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    if model.config.num_labels != 1:
        raise DataError(f"{path}: expected a reward model with 1 output, found {model.config.num_labels}")
    tokenizer = load_tokenizer(path)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant's answer starts (chat template applied once)."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a response, ending with EOS."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def decode_response(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    """The text of sampled response ids, without special tokens."""
    return tokenizer.decode(token_ids, skip_special_tokens=True).strip()


def use_threads_of_environment() -> None:
    """Take the number of CPU threads from OMP_NUM_THREADS, one if it is unset.

    Two single-threaded processes side by side beat two threads in one process on small models.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
