"""Compare measured peak memory of a training step on the CPU with the prediction (metaapo.estimate.step_memory).

    OMP_NUM_THREADS=1 python benchmarks/step_memory.py

Each size runs in its own process. The measured value is the peak resident size minus that before the model is built.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from metaapo.estimate import Shape, step_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from metaapo.models.logps import SequenceBatch

PROMPT, RESPONSE, LONG = 60, 60, 400  # tokens


@dataclass(frozen=True)
class Case:
    """A training step: `long` of the micro-batch's prompts have responses as long as allowed."""

    shape: Shape
    prompts: int = 8
    long: int = 0
    bf16: bool = False
    checkpointing: bool = False


SMALL = Shape(384, 1024, 8, 6, 3, 8192, tied=True)
CASES = {
    "5M": Case(Shape(256, 768, 4, 4, 2, 4096, tied=True)),
    "17M": Case(SMALL),
    "42M": Case(Shape(512, 1536, 10, 8, 4, 16384, tied=True), prompts=4),
    "17M, checkpointing": Case(SMALL, checkpointing=True),
    "17M, bf16": Case(SMALL, bf16=True),
    "17M, tail": Case(SMALL, prompts=4, long=2),
}


def peak(case: Case) -> tuple[float, int, int]:
    """Run two DPO steps and return the peak increase in bytes, the batch's tokens, and those in responses.

    A tiny model takes the same steps first, so that what is imported or allocated once is not counted.
    """
    import torch

    from metaapo.models.load import use_threads_of_environment
    from metaapo.models.logps import collate

    use_threads_of_environment()
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(3, case.shape.vocabulary, (length,), generator=generator).tolist()

    contexts = [ids(PROMPT) for _ in range(case.prompts)]
    lengths = [LONG if number < case.long else RESPONSE for number in range(case.prompts)] * 2
    batch = collate(contexts * 2, [ids(length) for length in lengths], 0)
    _steps(replace(case, shape=Shape(64, 64, 1, 2, 2, case.shape.vocabulary)), batch)
    gc.collect()
    _reset_peak()
    start = _resident("VmRSS")
    _steps(case, batch)
    return _resident("VmHWM") - start, batch.input_ids.numel(), sum(lengths)


def _steps(case: Case, batch: SequenceBatch) -> None:
    import torch

    from metaapo.models.logps import sequence_logps

    model = _model(case.shape).train()
    if case.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            chosen, rejected = sequence_logps(model, batch).chunk(2)
        (rejected - chosen).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _model(shape: Shape) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            tie_word_embeddings=shape.tied,
        )
    )


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _resident(field: str) -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return 1024.0 * int(line.split()[1])


def measure(name: str) -> dict[str, float | str]:
    """Run one case in a fresh process; return {name, measured, predicted, ratio}, in bytes."""
    command = [sys.executable, __file__, name]
    # freed memory goes back to the system at once, instead of being kept in pieces by the C library
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    """Command line: run one case by name, or all as a table."""
    if len(sys.argv) > 1:
        case = CASES[sys.argv[1]]
        measured, tokens, responses = peak(case)
        predicted = step_memory(case.shape, tokens, responses, case.bf16, case.checkpointing)
        row = {"name": sys.argv[1], "case": asdict(case), "measured": measured}
        print(json.dumps(row | {"predicted": predicted, "ratio": predicted / measured}))
        return
    print(f"{'case':<20} {'measured MB':>12} {'predicted MB':>13} {'ratio':>6}")
    for name in CASES:
        row = measure(name)
        print(f"{name:<20} {row['measured'] / 1e6:>12.0f} {row['predicted'] / 1e6:>13.0f} {row['ratio']:>6.2f}")


if __name__ == "__main__":
    main()
