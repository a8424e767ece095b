"""Records on disk: errors name the file and line, and readers never see a half-written file."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaapo.data import DataError, read_json, read_jsonl, read_records, require_keys, sha256_file, write_json
from metaapo.data import write_jsonl as write

ROWS = st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none())), max_size=5)


@given(rows=ROWS, suffix=st.sampled_from(["jsonl", "jsonl.gz"]))
def test_what_is_written_is_read_back(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("rows") / f"rows.{suffix}"
    write(path, rows)
    assert read_jsonl(path) == rows == read_records(path)


def test_lines_end_at_newline_only(tmp_path):
    write(tmp_path / "rows.jsonl", [{"text": "a\u2028b\x85c"}])
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"text": "a\u2028b\x85c"}]


def test_a_malformed_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"rows\.jsonl:3: not valid JSON"):
        read_jsonl(path)
    path.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: expected a JSON object, found list"):
        read_jsonl(path)


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:40])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: cannot be read"):
        read_jsonl(cut)


def test_records_are_read_from_a_json_list_too(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"a": 1}]))
    assert read_records(tmp_path / "rows.json") == [{"a": 1}]
    (tmp_path / "rows.json").write_text("[1]")
    with pytest.raises(DataError, match="item 0 is int"):
        read_records(tmp_path / "rows.json")


def test_a_missing_key_is_named():
    with pytest.raises(DataError, match=r"pairs\.jsonl:3: key 'chosen' is missing"):
        require_keys({"id": 1}, ["id", "chosen"], "pairs.jsonl:3")


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        write(path, [{"a": object()}])
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_gzipped_files_are_the_same_bytes_every_time(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write(tmp_path / name, [{"x": 1}] * 50)
    assert sha256_file(tmp_path / "a.jsonl.gz") == sha256_file(tmp_path / "b.jsonl.gz")
