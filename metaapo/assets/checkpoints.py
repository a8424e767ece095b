"""Install a released checkpoint as a world's model: world{w}/sft or world{w}/reward_model.

    python -m metaapo.assets.checkpoints --config config/smollm2.yaml --world 0 --part sft

A single safetensors file is linked, not copied. Shards are joined and GGUF files dequantised once; a converted GGUF
model is loaded again and must give the same logits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from metaapo.assets import hub
from metaapo.command import errors_in_one_sentence, world_arguments
from metaapo.config import CheckpointConfig
from metaapo.data import DataError, read_json, sha256_file, write_json
from metaapo.experiment import Experiment, load
from metaapo.models.load import (
    SOURCE,
    check_chat_template,
    load_as_saved,
    load_policy,
    load_reward_model,
)

PARTS = ("sft", "reward_model")
PROBE_TOKENS = 48
BOS = "{{- bos_token -}}"  # before a chat template that lacks it
SINGLE_FILE = "100TB"  # max_shard_size: always write one model.safetensors, as rules and readers expect


def put_checkpoint(experiment: Experiment, world: int, part: str) -> Path:
    """Create world{w}/{part} from the checkpoint named in the configuration.

    Args:
        experiment: names the checkpoint.
        world: the world's seed.
        part: "sft" or "reward_model".

    Returns:
        the folder; it only appears once it is complete and checked.

    Raises:
        DataError: the checkpoint is missing, unusable or does not fit its chat template, or the disk is full.
    """
    checkpoint: CheckpointConfig = getattr(experiment, part).checkpoint
    asset = hub.of_checkpoint(f"{part}.checkpoint.path", checkpoint)
    source = asset.locate(experiment.assets_dir)
    folder = experiment.world_path(world) / part
    return make(checkpoint, source, folder, asset.key, classifies=part == "reward_model")


def make(checkpoint: CheckpointConfig, source: Path, folder: Path, key: str, classifies: bool = False) -> Path:
    """Create a checkpoint folder that the rest of this code can read.

    Args:
        checkpoint: how to read the source.
        source: a transformers folder or a .gguf file.
        folder: the folder to create; an existing one is replaced.
        key: the checkpoint's key in the configuration, for error messages.
        classifies: whether it is a reward model.

    Raises:
        DataError: see `put_checkpoint`.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_source(checkpoint, source, partial)
    weights = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    _check_space(sum(file.stat().st_size for file in weights), partial, key)
    if source.is_file():
        _convert_gguf(source, partial, key)
    elif len(weights) == 1 and weights[0].name == "model.safetensors":
        _link(source, partial)
    else:
        _join_shards(source, partial, checkpoint, classifies, key)
    tokenizer = installed_tokenizer(checkpoint, partial, key)
    if checkpoint.eos_token or checkpoint.bos != "template":
        tokenizer.save_pretrained(partial)
    (load_reward_model if classifies else load_policy)(partial)  # complete, one dtype, one output
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def _write_source(checkpoint: CheckpointConfig, source: Path, folder: Path) -> None:
    """Record where the checkpoint comes from, for provenance and loading."""
    record = checkpoint.model_dump(mode="json")
    if (source / "asset.json").is_file():
        record["commit"] = read_json(source / "asset.json")["commit"]
    if source.is_file():
        record["sha256"] = sha256_file(source)
    write_json(folder / SOURCE, record)


def _check_space(needed: int, folder: Path, key: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{key}: needs {needed / 1e9:.1f} GB in {folder.parent}, {free / 1e9:.1f} GB are free; free some space"
        )


def _link(source: Path, folder: Path) -> None:
    """Link the weights and copy the small files, so that the tokenizer can be corrected in the copy."""
    for file in sorted(source.iterdir()):
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file.resolve())
        elif file.suffix in (".json", ".jinja", ".model", ".txt", ".py") and file.name not in (SOURCE, "asset.json"):
            shutil.copy(file, folder / file.name)


def _join_shards(source: Path, folder: Path, checkpoint: CheckpointConfig, classifies: bool, key: str) -> None:
    if not any(source.glob("*.safetensors")):
        raise DataError(
            f"{key}: {source} has no *.safetensors weights; pickled ones (*.bin, *.pt) can run code; if trusted, "
            "convert them with save_pretrained"
        )
    model = load_as_saved(source, classifies, checkpoint.trust_remote_code)
    model.save_pretrained(folder, max_shard_size=SINGLE_FILE)
    AutoTokenizer.from_pretrained(source, trust_remote_code=checkpoint.trust_remote_code).save_pretrained(folder)


def _convert_gguf(source: Path, folder: Path, key: str) -> None:
    """Dequantise to float32 safetensors."""
    try:
        import gguf  # noqa: F401 - needed by transformers, whose own message is less clear
    except ImportError as error:
        raise DataError(f"{key}: reading {source.name} needs the package gguf; run `pip install gguf`") from error
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32).eval()
    _forget_quantisation(model)
    model.save_pretrained(folder, max_shard_size=SINGLE_FILE)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
    _check_same_logits(model, load_policy(folder)[0], key)


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Mark the model as not quantised: save_pretrained rejects models marked as GGUF."""
    model.hf_quantizer = None
    for owner, name in ((model, "is_quantized"), (model, "quantization_method"), (model.config, "quantization_config")):
        if name in owner.__dict__:
            delattr(owner, name)


@torch.no_grad()
def _check_same_logits(before: PreTrainedModel, after: PreTrainedModel, key: str) -> None:
    size = before.config.vocab_size
    ids = torch.randint(size, (2, PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    gap = (before(input_ids=ids).logits - after(input_ids=ids).logits).abs().max().item()
    if gap > 1e-4:
        raise DataError(f"{key}: the converted model's logits differ by {gap:.2g} from the GGUF file's; report a bug")


def installed_tokenizer(checkpoint: CheckpointConfig, source: Path, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder with the configured EOS token and the configured start of prompts.

    Raises:
        DataError: it has no chat template or one that does not fit, or lacks the tokens that are asked for.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=checkpoint.trust_remote_code)
    if checkpoint.eos_token:
        if tokenizer.convert_tokens_to_ids(checkpoint.eos_token) in (None, tokenizer.unk_token_id):
            raise DataError(f"{key}: eos_token {checkpoint.eos_token!r} is not in the vocabulary; check its spelling")
        tokenizer.eos_token = checkpoint.eos_token
    if tokenizer.chat_template is None:
        raise DataError(f"{key}: the tokenizer has no chat template; set tokenizer.chat_template and save it again")
    if tokenizer.eos_token_id is None:
        raise DataError(f"{key}: the tokenizer has no EOS token, so no response could end; set eos_token next to path")
    if checkpoint.bos != "template":
        (_prepend_bos if checkpoint.bos == "prepend" else _drop_bos)(tokenizer, key)
    check_chat_template(tokenizer, key)
    return tokenizer


def _prepend_bos(tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Let the chat template start every conversation with BOS."""
    if tokenizer.bos_token is None:
        raise DataError(f"{key}: bos is prepend, but the tokenizer has no BOS token; remove the key bos")
    template = tokenizer.chat_template
    if isinstance(template, str):
        tokenizer.chat_template = BOS + template
    elif template is not None:  # several, by name
        tokenizer.chat_template = {name: BOS + text for name, text in template.items()}


def _drop_bos(tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Let nobody add BOS: the tokenizer starts texts without it, as the chat template already does.

    Some classes of tokenizers add it by a flag, others by the post-processor that was saved with them.
    """
    if hasattr(tokenizer, "add_bos_token"):
        tokenizer.add_bos_token = False
    if _adds_bos(tokenizer) and tokenizer.is_fast:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    if _adds_bos(tokenizer):
        raise DataError(f"{key}: bos is none, but this tokenizer cannot be kept from adding BOS; use bos: prepend")


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("Hello")["input_ids"][:1] == [tokenizer.bos_token_id]


def main() -> None:
    """Command line: install one checkpoint in a world."""
    parser = world_arguments("Install a released checkpoint in a world.")
    parser.add_argument("--part", required=True, choices=PARTS)
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        put_checkpoint(load(arguments.config), arguments.world, arguments.part)


if __name__ == "__main__":
    main()
