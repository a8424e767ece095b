"""Load policies, reward models and tokenizers; turn conversations into token ids."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from metaapo.data import DataError, Message, read_json, write_json

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()

HEAD = "score"  # transformers' name of a sequence classifier's output layer
SOURCE = "source.json"  # records where a released checkpoint comes from
INDEX = "model.safetensors.index.json"  # of a checkpoint whose weights are in several files
PROBES = ("Yes, of course.", "1. One\n2. Two", "*Hm*: let me see!")


def check_checkpoint(path: str | Path) -> None:
    """Check that a folder holds all files of a safetensors checkpoint.

    Raises:
        DataError: config.json or weights are missing.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise DataError(f"{path}: no model here (config.json is missing); expected a transformers checkpoint folder")
    if not any(path.glob("*.safetensors")):
        raise DataError(f"{path}: no *.safetensors weights; convert the checkpoint with save_pretrained")
    read_json(path / "config.json")
    if missing := missing_shards(path):
        raise DataError(f"{path}: {missing[0]} is missing, which {INDEX} names; fetch the checkpoint again")


def missing_shards(path: str | Path) -> list[str]:
    """Names of the weight files that a checkpoint's index lists but that are not there, sorted."""
    index = Path(path) / INDEX
    names = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    return sorted(name for name in names if not (Path(path) / name).is_file())


def saved_dtypes(path: str | Path) -> set[str]:
    """Return the names of the floating-point types in a checkpoint's safetensors files, such as "F32" or "BF16".

    Raises:
        DataError: a file is damaged.
    """
    found = set()
    for file in sorted(Path(path).glob("*.safetensors")):
        with _opened(file) as tensors:
            found |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - no mapping
    return {name for name in found if name.startswith(("F", "BF"))}


def set_saved_dtype(folder: Path, dtype: str) -> None:
    """Record the dtype of a checkpoint's saved weights in its config.json."""
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"dtype": dtype})


def _loading_options(path: str | Path, dtype: torch.dtype | None) -> dict[str, Any]:
    """Options for from_pretrained; without a dtype, weights keep their saved dtype; mixed ones are an error."""
    check_checkpoint(path)
    if dtype is None and len(dtypes := saved_dtypes(path)) > 1:
        raise DataError(
            f"{path}: the weights mix the types {', '.join(sorted(dtypes))}; save the model in one of them "
            "(model.to(torch.bfloat16).save_pretrained)"
        )
    return {"dtype": dtype or "auto", "use_safetensors": True, "trust_remote_code": _trusts_code(path)}


def _trusts_code(path: str | Path) -> bool:
    source = Path(path) / SOURCE
    return source.is_file() and read_json(source)["trust_remote_code"]


def load_as_saved(path: Path, classifies: bool, trust_remote_code: bool) -> PreTrainedModel:
    """Load a policy, or a reward model if `classifies`, in its saved dtype, for writing it again in another layout.

    Raises:
        DataError: a weight file is missing, or the reward model has several outputs or none.
    """
    check_checkpoint(path)
    auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    options = {"dtype": "auto", "use_safetensors": True, "trust_remote_code": trust_remote_code}
    return auto.from_pretrained(path, **options, **(head_options(path) if classifies else {}))


def head_options(path: str | Path) -> dict[str, Any]:
    """Options for from_pretrained by what the weights are rather than by what the configuration says of them.

    OpenRLHF saves no num_labels, which transformers takes for two, and may give the head a name of its own
    (value_head_prefix in openrlhf/models/model.py).

    Raises:
        DataError: the head has several outputs, or there is no head.
    """
    name = read_json(Path(path) / "config.json").get("value_head_prefix") or HEAD
    shapes = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        with _opened(file) as tensors:
            shapes |= {key: tensors.get_slice(key).get_shape() for key in tensors.keys() if key == f"{name}.weight"}  # noqa: SIM118 - no mapping
    if not shapes:
        raise DataError(f"{path}: the checkpoint lacks {name}.weight; expected a trained reward model")
    outputs = shapes[f"{name}.weight"][0]
    if outputs != 1:
        raise DataError(
            f"{path}: {name}.weight has {outputs} outputs, expected a reward model with 1 output; use one that was "
            "trained on comparisons (such as by TRL's RewardTrainer), not a classifier"
        )
    return {"num_labels": 1} | ({} if name == HEAD else {"key_mapping": {f"^{re.escape(name)}\\.": f"{HEAD}."}})


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, "pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise DataError(f"{file}: not a readable safetensors file ({error}); fetch or write it again") from error


def _load(auto: Any, path: str | Path, dtype: torch.dtype | None, **options: Any) -> tuple[PreTrainedModel, set[str]]:
    """Load a model in evaluation mode; also return the names of weights missing from the checkpoint.

    Raises:
        DataError: the checkpoint is unusable or needs code that is not trusted.
    """
    options |= _loading_options(path, dtype)
    try:
        model, report = auto.from_pretrained(path, output_loading_info=True, **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise DataError(f"{path}: transformers cannot load this model ({str(error).splitlines()[0]})") from error
        raise DataError(
            f"{path}: the model comes with Python code; read it, then set trust_remote_code: true next to path"
        ) from error
    return model.eval(), set(report["missing_keys"])


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer and check the properties that the rest of the code relies on.

    Raises:
        DataError: it has no chat template, or no EOS token.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=_trusts_code(path))
    if tokenizer.chat_template is None:
        raise DataError(f"{path}: the tokenizer has no chat template; set tokenizer.chat_template and save it again")
    if tokenizer.eos_token_id is None:
        raise DataError(f"{path}: the tokenizer has no EOS token, so responses could never end; set eos_token")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= _vocabulary(path):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _vocabulary(path: str | Path) -> float:
    """Rows of a checkpoint's embedding. A padding token added to the tokenizer alone has none; any other token serves,
    since padding is never read.
    """
    config = Path(path) / "config.json"
    return read_json(config).get("vocab_size", math.inf) if config.is_file() else math.inf


def load_policy(path: str | Path, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, in evaluation mode.

    Args:
        path: a checkpoint folder.
        dtype: of the weights in memory; None: as they were saved.

    Raises:
        DataError: the folder holds no safetensors checkpoint, or one that lacks weights.
    """
    model, missing = _load(AutoModelForCausalLM, path, dtype)
    if missing:
        raise DataError(f"{path}: the checkpoint lacks {sorted(missing)[0]}; expected a causal language model")
    return model, load_tokenizer(path)


def load_reward_model(
    path: str | Path, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence-classification model with one output, the reward, and its tokenizer.

    Args:
        path: a checkpoint folder.
        dtype: of the weights in memory; None: as they were saved.

    Raises:
        DataError: the folder holds no safetensors checkpoint, or the model has several outputs, or no trained one.
    """
    check_checkpoint(path)
    model, missing = _load(AutoModelForSequenceClassification, path, dtype, **head_options(path))
    if missing:
        raise DataError(f"{path}: the checkpoint lacks {sorted(missing)[0]}; expected a trained reward model")
    tokenizer = load_tokenizer(path)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def check_chat_template(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Check, token by token, that prompt + response equals the chat template applied to the whole conversation.

    Some templates open every turn with a token that is also BOS (SmolLM2) or close user turns with EOS as well
    (Qwen2.5). The check requires one BOS at the start, one EOS at the end of the response, and nothing after it.

    Raises:
        DataError: BOS is doubled or missing, the response does not end with exactly one EOS, or prompt and response
            are tokenized differently together than separately.
    """
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
    bos = tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        raise DataError(f"{where}: prompts start with two BOS tokens; remove bos_token from the chat template")
    if bos is not None and tokenizer("Hello")["input_ids"][:1] == [bos] != prompt[:1]:
        raise DataError(
            f"{where}: the tokenizer starts texts with BOS, {tokenizer.bos_token!r}, but the chat template does not; "
            "set bos next to path, to prepend if the model was trained with BOS, or to none if it was not"
        )
    for response in PROBES:
        for messages in (
            [{"role": "user", "content": "Hello"}],
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hm."},
                {"role": "user", "content": "?"},
            ],
        ):
            _check_border(tokenizer, messages, response, where)


def _check_border(tokenizer: PreTrainedTokenizerBase, messages: list[Message], response: str, where: str) -> None:
    prompt, answer = encode_prompt(tokenizer, messages), encode_response(tokenizer, response)
    text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], tokenize=False)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt)] != prompt:
        raise DataError(
            f"{where}: the chat template changes a conversation's prompt once it is answered, so the border between "
            "prompt and response is unknown; use a template that leaves the prompt unchanged"
        )
    ours, theirs = [*prompt, *answer], whole[: len(prompt) + len(answer)]
    if tokenizer.eos_token_id not in whole[len(prompt) :]:
        raise DataError(
            f"{where}: the chat template does not end a response with EOS, {tokenizer.eos_token!r}; it ends with "
            f"{tokenizer.convert_ids_to_tokens(whole[-3:])}; set eos_token next to path to the token that closes a turn"
        )
    rest = whole[len(ours) :]
    if ours != theirs or tokenizer.decode(rest).strip() or tokenizer.eos_token_id in rest:
        raise DataError(
            f"{where}: prompt + response gives {tokenizer.convert_ids_to_tokens(ours[-4:])} at the end, the chat "
            f"template {tokenizer.convert_ids_to_tokens(whole[-4:])}; expected the same tokens with one EOS"
        )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of a conversation up to the start of the assistant's answer (the chat template is applied once)."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[Message]]) -> list[list[int]]:
    """`encode_prompt` of many conversations; one call is three times as fast as one call each."""
    if not conversations:
        return []
    texts = tokenizer.apply_chat_template(list(conversations), tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a response, ending with EOS."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode_responses(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of many responses, each ending with EOS; ten times as fast as one call per text."""
    if not texts:
        return []
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def decode_responses(tokenizer: PreTrainedTokenizerBase, responses: Sequence[list[int]]) -> list[str]:
    """Decode sampled response ids to texts, without special tokens."""
    return [text.strip() for text in tokenizer.batch_decode(responses, skip_special_tokens=True)]


def on_best_device(model: PreTrainedModel) -> PreTrainedModel:
    """Move the model to the first GPU, if there is one."""
    return model.to("cuda") if torch.cuda.is_available() else model


def use_threads_of_environment() -> None:
    """Set the number of CPU threads to OMP_NUM_THREADS, or one if it is unset.

    On small models, two single-threaded processes are faster than one process with two threads.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
