"""Compare measured peak memory of a training step on the CPU with the prediction (metaapo.estimate.step_memory).

    OMP_NUM_THREADS=1 python benchmarks/step_memory.py

Each size runs in its own process. The measured value is the peak resident size minus that before the model is built.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

from metaapo.estimate import Shape, step_memory

PROMPT, RESPONSE = 60, 60  # tokens
# name, shape, prompts per micro-batch, bf16, checkpointing
CASES = {
    "5M": (Shape(256, 768, 4, 4, 2, 4096, tied=True), 8, False, False),
    "17M": (Shape(384, 1024, 8, 6, 3, 8192, tied=True), 8, False, False),
    "42M": (Shape(512, 1536, 10, 8, 4, 16384, tied=True), 4, False, False),
    "17M, checkpointing": (Shape(384, 1024, 8, 6, 3, 8192, tied=True), 8, False, True),
    "17M, bf16": (Shape(384, 1024, 8, 6, 3, 8192, tied=True), 8, True, False),
}


def peak(shape: Shape, prompts: int, bf16: bool, checkpointing: bool) -> tuple[float, int, int]:
    """Run two DPO steps and return the peak increase in bytes, the batch's tokens, and those in responses."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from metaapo.models.load import use_threads_of_environment
    from metaapo.models.logps import collate, sequence_logps

    use_threads_of_environment()
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        return torch.randint(3, shape.vocabulary, (length,), generator=generator).tolist()

    contexts = [ids(PROMPT) for _ in range(prompts)]
    batch = collate(contexts * 2, [ids(RESPONSE) for _ in range(2 * prompts)], 0)
    sequence_logps(_model(LlamaConfig, LlamaForCausalLM, Shape(64, 64, 1, 2, 2, shape.vocabulary)), batch)  # warm-up
    _reset_peak()
    start = _resident("VmRSS")
    model = _model(LlamaConfig, LlamaForCausalLM, shape).train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            chosen, rejected = sequence_logps(model, batch).chunk(2)
        (rejected - chosen).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return _resident("VmHWM") - start, batch.input_ids.numel(), 2 * prompts * RESPONSE


def _model(config_class: type, model_class: type, shape: Shape) -> object:
    return model_class(
        config_class(
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
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    """Command line: run one case by name, or all as a table."""
    if len(sys.argv) > 1:
        shape, prompts, bf16, checkpointing = CASES[sys.argv[1]]
        measured, tokens, responses = peak(shape, prompts, bf16, checkpointing)
        predicted = step_memory(shape, tokens, responses, bf16, checkpointing)
        row = {"name": sys.argv[1], "parameters": shape.parameters, "shape": asdict(shape), "measured": measured}
        print(json.dumps(row | {"predicted": predicted, "ratio": predicted / measured}))
        return
    print(f"{'case':<20} {'measured MB':>12} {'predicted MB':>13} {'ratio':>6}")
    for name in CASES:
        row = measure(name)
        print(f"{name:<20} {row['measured'] / 1e6:>12.0f} {row['predicted'] / 1e6:>13.0f} {row['ratio']:>6.2f}")


if __name__ == "__main__":
    main()
