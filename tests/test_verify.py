"""Published numbers: reproduced from the published annotations, fetched only as published, and a wrong digit shows."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from evaldata import shared

from eval import verify
from eval.mtbench import published as mtbench
from eval.published import Comparison, PublishedFiles, Source
from metaapo.data import DataError, write_jsonl


@pytest.mark.parametrize(("name", "n"), [("alpacaeval2", 6 * 9), ("arenahard", 10 * 2), ("mtbench", 3)])
def test_every_published_number_is_reproduced(name, n):
    files = PublishedFiles(shared("README.md").parent)
    found = verify.published_modules()[name].comparisons(files)
    assert len(found) == n
    assert [c for c in found if not c.agrees] == []


def test_the_benchmarks_with_published_numbers_are_found():
    assert list(verify.published_modules()) == ["alpacaeval2", "arenahard", "mtbench"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with judgments whose averages are MT-Bench's published ones."""
    monkeypatch.setattr(verify, "published_modules", lambda: {"mtbench": mtbench})
    rows = []
    for model, average in mtbench.AVERAGES.items():
        higher = round(160 * (average - int(average)))
        for i in range(160):
            row = {"question_id": 81 + i // 2, "turn": 1 + i % 2, "model": model, "judge": ["gpt-4", "single-v1"]}
            rows.append(row | {"score": int(average) + (i < higher)})
    write_jsonl(tmp_path / mtbench.JUDGMENTS.name, [*rows, {"model": "unpublished"}])
    return tmp_path


def verify_command(capsys, *arguments):
    import argparse

    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    status = verify.run(parser.parse_args([str(argument) for argument in arguments]))
    return status, capsys.readouterr()


def test_the_command_prints_both_numbers_and_exits_with_0(data, capsys):
    status, printed = verify_command(capsys, "--data", data)
    assert status == 0
    assert "mamba_0_5_dpo_ep3" in printed.out
    assert "7.310000  7.312500" in printed.out
    assert printed.out.endswith("3 of 3 published numbers reproduced\n")


def test_a_flipped_digit_in_an_annotation_gives_status_1(data, capsys):
    path = data / mtbench.JUDGMENTS.name
    path.write_text(path.read_text().replace('"score": 8', '"score": 3', 1))
    status, printed = verify_command(capsys, "--data", data)
    assert status == 1
    assert printed.out.count("DIFFERS") == 1
    assert "2 of 3 published numbers reproduced" in printed.out


def test_a_flipped_digit_in_a_published_number_gives_status_1(data, capsys, monkeypatch):
    monkeypatch.setitem(mtbench.AVERAGES, "mamba_0_875_dpo_ep3", 6.38)
    status, printed = verify_command(capsys, "--data", data, "--json")
    result = json.loads(printed.out)
    assert status == 1
    assert result["agree"] is False
    assert [c["model"] for c in result["comparisons"] if not c["agrees"]] == ["mamba_0_875_dpo_ep3"]


def test_missing_files_give_status_2_and_one_sentence(tmp_path, capsys):
    status, printed = verify_command(capsys, "--data", tmp_path / "nowhere")
    assert status == 2
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "leave out --data to fetch it from https://" in printed.err


def test_a_model_without_a_score_does_not_agree():
    assert not Comparison("m", "average", 7.0, None, 0.005).agrees
    assert Comparison("m", "average", 7.03, 7.035, 0.005).agrees
    assert not Comparison("m", "average", 7.03, 7.0351, 0.005).agrees


# --- fetching ---------------------------------------------------------------------------------------------------------


class Remote(SimpleHTTPRequestHandler):
    """Serves a folder without a log, and notes what was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def remote(tmp_path):
    """A server of the folder `remote`."""
    (tmp_path / "remote").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Remote, directory=tmp_path / "remote")) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.fixture
def source(remote, tmp_path):
    content = b'{"a": 1}\n'
    (tmp_path / "remote" / "rows.jsonl").write_bytes(content)
    url = f"http://127.0.0.1:{remote.server_port}/rows.jsonl"
    return Source("folder/rows.jsonl", url, hashlib.sha256(content).hexdigest())


def test_a_file_is_fetched_once_and_again_if_it_was_changed(tmp_path, remote, source):
    files = PublishedFiles(tmp_path / "cache", fetch=True)
    assert files.records(source) == files.records(source) == [{"a": 1}]
    assert len(remote.asked) == 1
    (tmp_path / "cache" / source.name).write_text('{"a": 2}\n')
    assert files.records(source) == [{"a": 1}]
    assert len(remote.asked) == 2


def test_a_file_with_another_hash_is_refused_and_not_kept(tmp_path, source):
    (tmp_path / "remote" / "rows.jsonl").write_text('{"a": 2}\n')
    with pytest.raises(DataError, match=f"not the published file, so nothing was scored .*{source.sha256}"):
        PublishedFiles(tmp_path / "cache", fetch=True).path(source)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/rows.jsonl", "{source}.absent"])
def test_without_the_file_the_error_names_the_way_out(tmp_path, source, url):
    missing = Source("rows.jsonl", url.format(source=source.url), "0" * 64)
    with pytest.raises(DataError, match="could not be fetched .*--data"):
        PublishedFiles(tmp_path, fetch=True).path(missing)


def test_a_given_folder_may_hold_an_extract_and_fetches_nothing(tmp_path, source):
    write_jsonl(tmp_path / "extract.jsonl.gz", [{"a": 3}])
    extract = Source(source.name, source.url, source.sha256, ("extract.jsonl.gz",))
    assert PublishedFiles(tmp_path).records(extract) == [{"a": 3}]
