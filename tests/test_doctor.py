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
from tokenizers.processors import TemplateProcessing

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


def document(place, judge=REMOTE, **changes):
    write = place / "judges.yaml"
    write.write_text(yaml.safe_dump({"j": judge}))
    return {
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
    } | changes  # fmt: skip


def experiment(place, judge=REMOTE, **changes):
    return resolve(document(place, judge, **changes))


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


def command(*arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    return doctor.run(parser.parse_args([str(argument) for argument in arguments]))


def with_tokenizer(folder, change):
    tokenizer = make_tokenizer()
    change(tokenizer)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def template(text):
    return lambda place: with_tokenizer(place / "sft", lambda tokenizer: setattr(tokenizer, "chat_template", text))


def drop_shard(place):
    write_json(
        place / "sft" / "model.safetensors.index.json", {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    )


def two_outputs(place):
    weights = load_file(place / "reward_model" / "model.safetensors")
    weights["score.weight"] = weights["score.weight"].repeat(2, 1)
    save_file(weights, place / "reward_model" / "model.safetensors", {"format": "pt"})


def dead_judge(place):
    with socket.create_server(("127.0.0.1", 0)) as server:  # a port that nobody listens on any more
        return {"judge": REMOTE | {"url": f"http://127.0.0.1:{server.getsockname()[1]}/v1"}}


def larger_vocabulary(place):
    with_tokenizer(place / "reward_model", lambda tokenizer: tokenizer.add_tokens(["another", "model"]))


TEN = {
    "wrong template": (
        template("{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}{{ messages | length }}"),
        r"sft\.checkpoint\.path: the chat template changes .*; use a template that leaves",
    ),
    "missing shard": (
        drop_shard,
        r"sft\.checkpoint\.path: .*: model-00002-of-00002\.safetensors is missing, .*; fetch the checkpoint again",
    ),
    "no EOS": (
        lambda place: with_tokenizer(place / "sft", lambda tokenizer: setattr(tokenizer, "eos_token", None)),
        r"sft\.checkpoint\.path: the tokenizer has no EOS token, .*; set eos_token",
    ),
    "too little disk": (
        lambda place: {"seeds": list(range(500)), "iterations": 3},
        r"results_dir: the experiment needs 0\.\d GB and .* has 0\.0 GB free; set results_dir to a larger disk",
    ),
    "dead judge": (
        dead_judge,
        r"evaluation\.judges: j: nobody answers at http://127\.0\.0\.1:\d+/v1; start the server, such as `vllm serve",
    ),
    "judge past its end of life": (
        lambda place: {"judge": REMOTE | {"end_of_life": datetime.date(2026, 3, 26)}},
        r"evaluation\.judges: j: .*reached its end of life on 2026-03-26 .*; replay stored judgments",
    ),
    "reward model with two outputs": (
        two_outputs,
        r"reward_model\.checkpoint\.path: .*score\.weight has 2 outputs, .*; use one that was trained on comparisons",
    ),
    "GPU count that does not divide": (
        lambda place: {"hardware": {"processes": 3, "launcher": "config/accelerate/fsdp.yaml"}},
        r"train\.batch_size: 16 \(dpo\) is not a multiple of the 3 training processes; change it, or hardware",
    ),
    "unreachable hub": (
        lambda place: {
            "sft": {"checkpoint": {"path": "org/policy"}},
            "reward_model": {"checkpoint": {"path": "org/reward-model"}},
        },
        r"the hub: org/policy cannot be fetched .*; check the network, or give a local path",
    ),
    "another model's tokenizer in the reward model": (
        larger_vocabulary,
        r"reward_model\.checkpoint\.path: .* tokens and the model \d+; take both from one checkpoint",
    ),
}


@pytest.mark.parametrize("name", TEN)
def test_ten_broken_experiments_each_get_one_sentence_with_the_way_out(place, name, capsys, monkeypatch):
    damage, said = TEN[name]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    changes = damage(place) or {}
    if name == "too little disk":
        monkeypatch.setattr("shutil.disk_usage", lambda path: argparse.Namespace(free=0))
    path = place / "experiment.yaml"
    path.write_text(yaml.safe_dump(document(place, **changes)))
    assert command("--config", path) != 0
    said_so = capsys.readouterr()
    (line,) = [line for line in f"{said_so.out}\n{said_so.err}".splitlines() if line.startswith("error: ")]
    assert re.search(said, line), line
    assert line.count("; ") >= 1


def test_a_reward_model_whose_tokenizer_names_few_of_its_tokens_is_suspect(place):
    config = read_json(place / "reward_model" / "config.json")
    write_json(place / "reward_model" / "config.json", config | {"vocab_size": 3 * config["vocab_size"]})
    assert "so it may be another model's; take both from one checkpoint" in only(experiment(place), "warning")


def test_whoever_adds_bos_is_respected(place):
    """Tulu's tokenizer starts texts with BOS, its template does not; the key bos settles it."""

    def like_tulu(tokenizer):
        tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "").replace("bos_token", "''")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
        )

    with_tokenizer(place / "sft", like_tulu)
    assert "set bos next to path" in only(experiment(place))
    for bos in ("none", "prepend"):
        assert sentences(experiment(place, sft={"checkpoint": {"path": str(place / "sft"), "bos": bos}})) == []


def test_fewer_gpus_than_processes_is_an_error_and_idle_ones_are_a_warning(place):
    job = {"processes": 4, "launcher": "config/accelerate/fsdp.yaml", "train": {"gpus": 2}}
    assert "4 training processes per node want a GPU each and the job gets 2" in only(experiment(place, hardware=job))
    job = {"processes": 1, "train": {"gpus": 2}}
    assert any("1 training processes use one each" in s for s in sentences(experiment(place, hardware=job), "warning"))


def cut_file(place):
    path = place / "sft" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def mix_types(place):
    weights = load_file(place / "sft" / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].bfloat16()
    save_file(weights, place / "sft" / "model.safetensors", {"format": "pt"})


def a_policy_as_reward_model(place):
    shutil.copy(place / "sft" / "model.safetensors", place / "reward_model" / "model.safetensors")


def few_positions(place):
    config = read_json(place / "sft" / "config.json")
    write_json(place / "sft" / "config.json", config | {"max_position_embeddings": 32})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda place: shutil.rmtree(place / "sft"), "sft.checkpoint.path: .* neither a file or folder here"),
        (lambda place: (place / "sft" / "config.json").unlink(), "config.json is missing.; expected"),
        (lambda place: (place / "sft" / "model.safetensors").unlink(), r"no \*.safetensors weights; convert"),
        (cut_file, "not a readable safetensors file .*; fetch or write it again"),
        (mix_types, "the weights mix BF16, F32; save"),
        (a_policy_as_reward_model, "lacks score.weight; expected a trained reward model"),
        (template(None), "the tokenizer has no chat template; set"),
        (template("{% for m in messages %}{{ m['content'] }} {% endfor %}"), "set eos_token|add bos_token"),
        (few_positions, "has 32 positions, and train.max_length is 48; lower"),
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


def test_a_local_server_that_answers_is_enough(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = REMOTE | {"url": f"http://127.0.0.1:{server.getsockname()[1]}/v1"}
        assert sentences(experiment(place, judge=here)) == []


def test_a_judge_of_the_policies_family_is_a_warning(place):
    changes = {"sft": {"checkpoint": {"path": str((place / "sft").rename(place / "llama-3-sft"))}}}
    assert "belong to one family, Llama" in only(experiment(place, REMOTE | {"model": "Llama-3"}, **changes), "warning")


def test_a_missing_launcher_and_a_step_that_does_not_fit_are_errors(place):
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
