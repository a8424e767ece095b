"""CPU seconds of sampling K responses to each of a world's prompts, by batch size.

OMP_NUM_THREADS=1 python benchmarks/sampling.py --world results/default/world0 --batch-size 512 2048
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

from metaapo.data import read_jsonl
from metaapo.models.generate import generate
from metaapo.models.load import load_policy, use_threads_of_environment


def main() -> None:
    """Command line: print one line per batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path, required=True, help="a world's folder")
    parser.add_argument("--policy", type=Path, help="a checkpoint; default: the world's SFT policy")
    parser.add_argument("--prompts", type=int, default=690, help="of iteration 1: what MetaAPO samples there of 1,024")
    parser.add_argument("--k", type=int, default=8, help="responses per prompt")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[512])
    arguments = parser.parse_args()
    use_threads_of_environment()
    policy, tokenizer = load_policy(arguments.policy or arguments.world / "sft")
    rows = read_jsonl(arguments.world / "data" / "pairs.jsonl")[: arguments.prompts]
    conversations = [row["messages"] for row in rows]
    for size in arguments.batch_size:
        start = time.process_time()
        responses = generate(policy, tokenizer, conversations, arguments.k, 1.0, 1.0, 32, size, seed=5)
        tokens = sum(len(response.token_ids) for own in responses for response in own)
        digest = hashlib.sha256(repr(responses).encode()).hexdigest()[:12]
        print(f"batch size {size}: {time.process_time() - start:.2f} CPU seconds for {tokens} tokens, {digest}")


if __name__ == "__main__":
    main()
