"""The doctor names what would stop an experiment, in one sentence with the way out, before anything is spent."""

import argparse
import datetime
import json
import re
import shutil
import socket

import pytest
import yaml
from conftest import make_policy, make_reward_model, make_tokenizer
from safetensors.torch import load_file, save_file

from eval import doctor
from metaapo import PROJECT
from metaapo import doctor as training
from metaapo.config import CheckpointConfig
from metaapo.data import read_json, write_json
from metaapo.experiment import resolve

TODAY = datetime.date(2026, 11, 25)
REMOTE = {
    "kind": "openai", "model": "some/judge", "url": "https://api.example.org/v1", "api_key_env": "DOCTOR_TEST_KEY",
    "price": {"input": 1.0, "output": 2.0}, "max_dollars": 5, "checked": TODAY,
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A policy and a reward model without a fault."""
    folder = tmp_path_factory.mktemp("sound")
    for name, model in (("sft", make_policy()), ("reward_model", make_reward_model())):
        model.save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    (folder / "pairs.jsonl").write_text("{}\n")
    (folder / "questions.jsonl").write_text(
        json.dumps({"question_id": 1, "category": "writing", "turns": ["Hello?", "And now?"]}) + "\n"
    )
    return folder


@pytest.fixture
def place(sound, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(sound, tmp_path / "place")


def experiment(place, judge=REMOTE, **changes):
    write = place / "judges.yaml"
    write.write_text(yaml.safe_dump({"j": judge}))
    document = {
        "experiment": "checked", "results_dir": str(place / "results"), "seeds": [0], "iterations": 1,
        "world": {"name": "ultrafeedback", "dataset": {"path": str(place / "pairs.jsonl")}},
        "sft": {"checkpoint": {"path": str(place / "sft")}},
        "reward_model": {"checkpoint": {"path": str(place / "reward_model")}},
        "train": {"max_length": 48},
        "methods": {"dpo": {}},
        "evaluation": {
            "benchmarks": ["mtbench"], "judges": ["j"], "judges_file": str(write),
            "questions": {"mtbench": str(place / "questions.jsonl")},
        },
    }  # fmt: skip
    return resolve(document | changes)


@pytest.fixture(autouse=True)
def _a_key(monkeypatch):
    monkeypatch.setenv("DOCTOR_TEST_KEY", "secret")


def sentences(experiment, level="error"):
    return [f"{f.where}: {f.sentence}" for f in doctor.examine(experiment, TODAY) if f.level == level]


def only(experiment, level="error"):
    """The only finding at a level."""
    (sentence,) = sentences(experiment, level)
    return sentence


def test_a_sound_experiment_has_no_finding(place):
    assert list(doctor.examine(experiment(place), TODAY)) == []


def drop_shard(place):
    write_json(
        place / "sft" / "model.safetensors.index.json", {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    )


def cut_file(place):
    path = place / "sft" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def mix_types(place):
    weights = load_file(place / "sft" / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].bfloat16()
    save_file(weights, place / "sft" / "model.safetensors", {"format": "pt"})


def two_outputs(place):
    weights = load_file(place / "reward_model" / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(2, 1)
    save_file(weights, place / "reward_model" / "model.safetensors", {"format": "pt"})


def a_policy_as_reward_model(place):
    shutil.copy(place / "sft" / "model.safetensors", place / "reward_model" / "model.safetensors")


def template(text):
    def write(place):
        tokenizer = make_tokenizer()
        tokenizer.chat_template = text
        (place / "sft" / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(place / "sft")

    return write


def few_positions(place):
    config = read_json(place / "sft" / "config.json")
    write_json(place / "sft" / "config.json", config | {"max_position_embeddings": 32})


def small_vocabulary(place):
    config = read_json(place / "sft" / "config.json")
    write_json(place / "sft" / "config.json", config | {"vocab_size": 5})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda place: shutil.rmtree(place / "sft"), "sft.checkpoint.path: .* neither a file or folder here"),
        (lambda place: (place / "sft" / "config.json").unlink(), "has no config.json; give a folder"),
        (lambda place: (place / "sft" / "model.safetensors").unlink(), r"\*.safetensors is missing; fetch"),
        (drop_shard, "model-00002-of-00002.safetensors is missing; fetch"),
        (cut_file, "not a readable safetensors file .*; fetch it again"),
        (mix_types, "the weights mix BF16, F32; save"),
        (two_outputs, "the head has 2 outputs; give a reward model with one"),
        (a_policy_as_reward_model, "no trained head score.weight; give a sequence-classification model"),
        (template(None), "no chat template; set"),
        (template("{% for m in messages %}{{ m['content'] }} {% endfor %}"), "set eos_token|add bos_token"),
        (few_positions, "has 32 positions, and train.max_length is 48; lower"),
        (small_vocabulary, "tokens and the model 5; take both from one checkpoint"),
        (lambda place: (place / "questions.jsonl").unlink(), "evaluation.questions.mtbench: .*questions.jsonl"),
    ],
)
def test_a_fault_is_found_before_anything_is_computed(place, damage, said):
    damage(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.PreTrainedModel.from_pretrained", None)
        found = only(experiment(place))
    assert re.search(said, found), found


def test_an_eos_token_that_does_not_exist_is_named(place):
    checkpoint = CheckpointConfig(path=str(place / "sft"), eos_token="<end>")
    (found,) = training.checkpoint_findings("sft.checkpoint.path", place / "sft", checkpoint, experiment(place))
    assert found.sentence == "eos_token '<end>' is not in the vocabulary; check its spelling"


@pytest.mark.parametrize(
    ("entry", "level", "said"),
    [
        ({"end_of_life": TODAY}, "error", "reached its end of life on 2026-11-25"),
        (
            {"end_of_life": TODAY + datetime.timedelta(days=9)},
            "warning",
            "end of life on 2026-12-04; judge",
        ),
        ({"api_key_env": "DOCTOR_NO_KEY"}, "error", "DOCTOR_NO_KEY is not set; export"),
        ({"max_dollars": 0}, "error", "max_dollars is 0, so nothing may be asked; check its price"),
        ({"max_dollars": None}, "warning", "no cap on what it may cost; set max_dollars"),
        ({"price": {}}, "warning", "its price is unknown"),
        ({"checked": TODAY - datetime.timedelta(days=200)}, "warning", "last checked on 2026-05-09; look them up"),
        ({"kind": "replay", "path": "nowhere/*.json"}, "error", "nothing is stored at nowhere/"),
        ({"kind": "reward-model", "checkpoint": "nowhere"}, "error", "nowhere is no checkpoint; correct the path"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_found(place, entry, level, said):
    assert said in only(experiment(place, judge=REMOTE | entry), level)


def test_a_local_server_has_to_answer(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = REMOTE | {"url": f"http://127.0.0.1:{server.getsockname()[1]}/v1"}
        assert sentences(experiment(place, judge=here)) == []
    assert "start the server, such as `vllm serve some/judge`" in only(experiment(place, judge=here))


def test_a_judge_of_the_policies_family_is_a_warning(place):
    changes = {"sft": {"checkpoint": {"path": str((place / "sft").rename(place / "llama-3-sft"))}}}
    assert "belong to one family, Llama" in only(experiment(place, REMOTE | {"model": "Llama-3"}, **changes), "warning")


def test_a_full_disk_a_missing_launcher_and_a_step_that_does_not_fit_are_errors(place, monkeypatch):
    expected = {"disk_gb": 1e9, "fits": True, "step_memory_gb": 1.0, "parameters": 1e6}
    monkeypatch.setattr(training, "estimate", lambda experiment: expected)
    assert "GB free; set results_dir to a larger disk" in only(experiment(place))
    monkeypatch.undo()
    monkeypatch.setenv("DOCTOR_TEST_KEY", "secret")
    assert "nowhere.yaml does not exist; take one of config/accelerate/" in only(
        experiment(place, hardware={"launcher": str(place / "nowhere.yaml")})
    ).replace(f"{place}/", "")
    large = {"micro_batch_size": 4096, "batch_size": 4096, "max_length": 48}
    found = sentences(experiment(place, train=large, estimate={"gpu": "CPU-core", "response_tokens": 4000}))
    assert any("which does not fit; lower it" in sentence for sentence in found)


def test_a_gpu_that_is_too_small_is_found(place, monkeypatch):
    monkeypatch.setattr(training, "gpu_memory", lambda: [1000])
    assert "a GPU here has 0; lower it" in only(experiment(place))


def test_missing_packages_are_named_with_their_extra(place, monkeypatch):
    find = training.importlib.util.find_spec
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert sentences(experiment(place)) == []
    assert only(experiment(place, train={"max_length": 48, "lora": {"rank": 4}})) == (
        "packages: peft is not installed; run pip install '.[lora]'"
    )
    vllm = {"backend": "vllm", "vllm": {"python": "no-such-python"}}
    assert "no-such-python is no program here" in only(experiment(place, sampling=vllm))


def command(*arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_status_says_whether_the_experiment_would_fail(place, capsys):
    path = place / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment(place).dump()))
    assert command("--config", path) == 0
    assert capsys.readouterr().out.endswith("0 errors, 0 warnings\n")
    (place / "sft" / "config.json").unlink()
    assert command("--config", path, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert ("error", "sft.checkpoint.path") in [(finding["level"], finding["where"]) for finding in found]
    path.write_text("experiment: [")
    assert command("--config", path) == 2


@pytest.mark.parametrize("name", ["smoke", "default"])
def test_the_embedded_experiments_have_no_finding(name, capsys):
    assert command("--config", PROJECT / "config" / f"{name}.yaml") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
