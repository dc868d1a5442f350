"""Secrets of the environment never leave: by hand, by many made-up ones, and through the front door."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
from conftest import Runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from optim.common import screen
from optim.common.secrets import masked
from optim.run.config import Job
from optim.sweep.sensitivity import _command

SECRET = "sk-tr0ub4dor&3"
LOUD = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("HARMLESS", "harmless-value")


def test_text_lists_and_dictionaries_are_masked_and_the_rest_is_left(environment):
    value = {"a": [f"x{SECRET}y", 3, None], SECRET: {"b": (SECRET,)}, "c": "abc harmless-value"}
    star = "***MY_API_KEY***"
    assert masked(value) == {"a": [f"x{star}y", 3, None], star: {"b": [star]}, "c": "abc harmless-value"}
    assert masked(1.5) == 1.5


@pytest.mark.parametrize("name", ["db_password", "Client_Secret", "HF_TOKEN", "SSH_KEY_FILE"])
def test_names_are_known_in_any_case(name, monkeypatch):
    monkeypatch.setenv(name, "something long")
    assert masked("something long!") == f"***{name}***!"


def test_the_longer_of_two_secrets_goes_first(monkeypatch):
    monkeypatch.setenv("A_KEY", "abcdef")
    monkeypatch.setenv("B_KEY", "abcdefgh")
    assert masked("abcdefgh abcdef") == "***B_KEY*** ***A_KEY***"


@LOUD
@given(secret=st.text(st.characters(codec="ascii", exclude_characters="\0*_ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=6),
       before=st.text(max_size=5), after=st.text(max_size=5))  # fmt: skip
def test_no_secret_is_left(secret, before, after, monkeypatch):
    monkeypatch.setenv("GIVEN_SECRET", secret)
    assert secret not in masked({"x": [before + secret + after]})["x"][0].replace(before, "", 1)[: -len(after) or None]


def test_lines_and_logs_are_masked(environment, capsys):
    import sys

    before = logging.getLogger().handlers
    try:
        screen.log_to(sys.stderr)
        logging.getLogger("optim").info("the key is %s", SECRET)
        screen.say(f"and here {SECRET}")
    finally:
        logging.getLogger().handlers = before
    out, err = capsys.readouterr()
    assert err == "the key is ***MY_API_KEY***\n"
    assert out == "and here ***MY_API_KEY***\n"


@pytest.mark.slow
def test_nothing_that_a_run_leaves_or_says_holds_the_secret(tmp_path):
    """As a value that the config takes from the environment, and as the shell would put it on the command line."""
    runs = Runs(tmp_path)
    words = ("track=offline", "track.project=${oc.env:MY_API_KEY}", f"track.tags=[{SECRET.replace('&', '')}]")
    done = runs.apart(*words, MY_API_KEY=SECRET, OTHER_TOKEN=SECRET.replace("&", ""))
    assert done.returncode == 0, done.stderr
    texts = [done.stdout.encode(), done.stderr.encode()]
    texts += [path.read_bytes() for path in runs.results.rglob("*") if path.is_file()]
    assert len(texts) > 8
    assert not [text for text in texts if SECRET.encode() in text or SECRET.replace("&", "").encode() in text]
    (result,) = runs.results.glob("*/result.json")
    assert json.loads(result.read_text())["cfg"]["track"]["project"] == "***MY_API_KEY***"


def test_a_secret_that_a_shell_would_quote_is_masked_in_a_command(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "it's-secret")
    job = Job(OmegaConf.create({}), {}, ["data.path=/x/it's-secret"], dirs=[], config_name="train")
    assert "s-secret" not in job.command
    assert "***MY_PASSWORD***" in job.command


def test_a_secret_that_a_shell_would_quote_is_masked_in_the_command_of_a_table(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "it's-secret")
    told = _command(SimpleNamespace(overrides=["data.path=/x/it's-secret"]))  # type: ignore[arg-type]
    assert "s-secret" not in told
    assert "***MY_PASSWORD***" in told
