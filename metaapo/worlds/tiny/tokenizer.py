"""The tokenizer of the tiny world: one token per word."""

from __future__ import annotations

import itertools
from pathlib import Path

from metaapo.data import write_json, write_text
from metaapo.worlds.tiny.tasks import FUNCTION_WORDS, GREETINGS, HEDGES, NUMBERS, PLURALS, POOLS, READERS, SCENES, VAGUE

BOS, EOS, PAD, UNK, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<unk>", "<user>", "<assistant>"
# One BOS per conversation and one EOS after each answer, from which the model learns where an answer ends.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('the tiny world knows the roles user and assistant only') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def vocabulary() -> dict[str, int]:
    """Token -> id; special tokens first, then the words."""
    words = [
        *NUMBERS,
        *PLURALS,
        *SCENES,
        *itertools.chain.from_iterable(POOLS),
        *HEDGES,
        *VAGUE,
        *READERS,
        *GREETINGS,
        *FUNCTION_WORDS,
    ]
    return {token: i for i, token in enumerate(dict.fromkeys([PAD, BOS, EOS, UNK, USER, ASSISTANT, *words]))}


def write_tokenizer(folder: str | Path, max_positions: int) -> None:
    """Save the tokenizer in transformers' format: tokenizer.json, tokenizer_config.json, chat_template.jinja.

    Args:
        folder: created if missing.
        max_positions: longest sequence, in tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # its clean-up writes "cat, dog." where a plain join would write "cat , dog ."; no word begins with the prefix
    clean_up = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.decoder = decoders.Sequence([clean_up, decoders.Replace(" :", ":")])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (PAD, BOS, EOS, UNK, USER, ASSISTANT)])
    folder = Path(folder)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNK,
        "extra_special_tokens": [USER, ASSISTANT],
        "model_max_length": max_positions,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)
