"""Judges on a cluster: an address published by the job that serves them, and stores on shared file systems."""

import threading
import time

import pytest

from eval.judges.config import JudgeConfig
from eval.judges.store import journal_mode
from eval.judges.wire import endpoint_of, published, url_of
from metaapo.data import DataError


def judge(path, **settings):
    return JudgeConfig(kind="openai", model="m", url_file=str(path), **settings)


def test_a_judge_is_asked_where_its_job_says_it_is(tmp_path):
    path = tmp_path / "judge.url"
    path.write_text("http://node7:23456/v1\n")
    found = published(judge(path))
    assert url_of(found) == "http://node7:23456/v1/chat/completions"
    path.write_text("http://node9:20001/v1\n")
    assert url_of(published(judge(path))) == "http://node9:20001/v1/chat/completions"
    # the stored answers are those of the judge, whichever node served it
    assert endpoint_of(found) == endpoint_of(judge(path)) == endpoint_of(published(judge(path)))


def test_judging_waits_for_a_judge_that_is_still_starting(tmp_path):
    path = tmp_path / "judge.url"
    threading.Timer(0.5, path.write_text, ["http://node7:1/v1"]).start()
    begin = time.monotonic()
    assert published(judge(path, url_wait=30)).url == "http://node7:1/v1"
    assert time.monotonic() - begin < 10


def test_a_judge_that_nobody_serves_is_named_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"judge m: .*judge\.url \(url_file\) is not there; start the job .*url_wait"):
        published(judge(tmp_path / "judge.url"))


def test_a_file_without_an_address_is_refused(tmp_path):
    (tmp_path / "judge.url").write_text("<html>")
    with pytest.raises(DataError, match=r"'<html>' is no address of an endpoint; expected http://host:port/v1"):
        published(judge(tmp_path / "judge.url"))


def test_a_judge_without_a_file_keeps_its_url():
    config = JudgeConfig(kind="openai", model="m", url="http://here:1/v1")
    assert published(config) is config
    assert endpoint_of(config) == "openai http://here:1/v1"


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("ext4", "WAL"), ("xfs", "WAL"), ("nfs4", "DELETE"), ("lustre", "DELETE"), ("fuse.beegfs", "DELETE")],
)
def test_the_write_ahead_log_is_used_on_local_file_systems_only(tmp_path, kind, mode):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path}/shared {kind} rw 0 0\n")
    assert journal_mode(tmp_path / "shared" / "results" / "store.sqlite", mounts) == mode
    assert journal_mode(tmp_path / "elsewhere.sqlite", mounts) == "WAL"


def test_a_mount_point_may_have_a_space_in_its_name(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path}/our\\040results nfs rw 0 0\n")
    assert journal_mode(tmp_path / "our results" / "store.sqlite", mounts) == "DELETE"
