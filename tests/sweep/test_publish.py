"""A bundle on the hub: what is sent to the stand-in for it, and what is refused before anything is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hub_standin import Hub, Repository, ask_in_a_process, serving
from made_results import put

from optim.common.errors import UserError
from optim.run.result import FILE
from optim.sweep.publish import Publish, _repository

PUBLISH = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv.pop(1))
from optim.command.sweep import start
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
        code = start()
    except SystemExit as end:
        code = end.code
print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}))
"""
ROOT = str(Path(__file__).parents[2])


def made(folder: Path, *, model: dict) -> Path:
    """A finished run with a bundle, in `folder`/results."""
    run = put(folder / "results", "abc", wrong=range(5), ms=1.0, mb=1.0)
    content = json.loads((run / FILE).read_text())
    content["cfg"]["model"] = model
    (run / FILE).write_text(json.dumps(content))
    (run / "bundle").mkdir()
    for name, text in {"model.tflite": "weights", "labels.json": "{}", "README.md": "# a card\n"}.items():
        (run / "bundle" / name).write_text(text)
    return run


HUB_MODEL = {"method": "hub", "hub_id": "microsoft/xtremedistil-l6-h256-uncased", "path": None}
TINY = {"method": "tiny", "path": None}


def published(folder: Path, hub: Hub, *words: str, **environment: str) -> dict:
    given = ["sweep=publish", "run=abc", f"results_dir={folder / 'results'}", *words]
    return ask_in_a_process(PUBLISH, ROOT, *given, folder=folder, endpoint=hub.address, HF_HUB_DISABLE_XET="1",
                            **environment)  # fmt: skip


def test_the_files_of_a_bundle_and_its_card_are_one_commit(tmp_path):
    made(tmp_path, model=HUB_MODEL)
    with serving(Hub(tokens={"hf_good"})) as hub:
        done = published(tmp_path, hub, "repo=someone/films", HF_TOKEN="hf_good")
        assert done["code"] == 0, done
        assert f"{hub.address}/someone/films" in done["out"]
        files = hub.repositories["models/someone/films"].files
        assert sum("/commit/" in request for request in hub.requests) == 1
    assert set(files) == {"model.tflite", "labels.json", "README.md"}
    assert files["model.tflite"] == b"weights"
    _, head, card = files["README.md"].decode().split("---\n")
    fields = yaml.safe_load(head)
    assert (fields["license"], fields["pipeline_tag"]) == ("mit", "text-classification")
    assert card == "# a card\n"
    assert (tmp_path / "results" / "abc" / "bundle" / "README.md").read_text() == "# a card\n", "it stays as it was"


def test_the_file_of_an_earlier_run_does_not_stay_beside_that_of_a_later_one(tmp_path):
    """Who downloads both would get the older one, with labels and words that are not its own."""
    run = made(tmp_path, model=HUB_MODEL)
    with serving(Hub(tokens={"hf_good"})) as hub:
        assert published(tmp_path, hub, "repo=someone/films", HF_TOKEN="hf_good")["code"] == 0
        (run / "bundle" / "model.tflite").rename(run / "bundle" / "model.tflite.zst")
        assert published(tmp_path, hub, "repo=someone/films", HF_TOKEN="hf_good")["code"] == 0
        assert set(hub.repositories["models/someone/films"].files) == {"model.tflite.zst", "labels.json", "README.md"}


def test_what_shall_be_private_never_goes_to_a_public_repository(tmp_path):
    made(tmp_path, model=HUB_MODEL)
    with serving(Hub(tokens={"hf_good"})) as hub:
        assert published(tmp_path, hub, "repo=a/own", "sweep.private=true", HF_TOKEN="hf_good")["code"] == 0
        assert hub.repositories["models/a/own"].private
        hub.repositories["models/a/open"] = Repository("c" * 40, {})
        done = published(tmp_path, hub, "repo=a/open", "sweep.private=true", HF_TOKEN="hf_good")
        assert hub.repositories["models/a/open"].files == {}
    assert done["code"] == 2
    assert "a/open is there already, and public" in done["err"]
    assert len(done["err"].strip().splitlines()) == 1


def test_a_dry_run_sends_nothing_and_needs_no_token(tmp_path):
    made(tmp_path, model=HUB_MODEL)
    with serving(Hub()) as hub:
        done = published(tmp_path, hub, "repo=films", "sweep.dry_run=true")
        assert done["code"] == 0, done
        assert hub.requests == []
    assert "model.tflite, 7 bytes" in done["out"]
    assert "license: mit" in done["out"]


@pytest.mark.parametrize(
    ("token", "said"),
    [({}, "The hub wants a token: set HF_TOKEN"), ({"HF_TOKEN": "hf_bad"}, "repo=films: the hub took it not (")],
)
def test_without_a_token_that_may_write_it_is_told_in_a_line(tmp_path, token, said):
    made(tmp_path, model=HUB_MODEL)
    with serving(Hub(tokens={"hf_good"})) as hub:
        done = published(tmp_path, hub, "repo=films", **token)
        assert hub.repositories == {}
    assert done["code"] == 2
    assert said in done["err"]
    assert len(done["err"].strip().splitlines()) == 1


def test_weights_of_which_no_licence_is_known_are_published_under_none(tmp_path):
    from optim.run import result

    found = result.read(made(tmp_path, model=TINY))
    assert found is not None
    with pytest.raises(UserError, match="No licence is known of the weights that this run started from"):
        Publish(private=False, licence=None)._head(found)
    assert "license: cc-by-4.0\n" in Publish(private=False, licence="CC-BY-4.0")._head(found)


@pytest.mark.parametrize("repo", [None, "a/b/c", "../x", "a b", ""])
def test_a_repository_has_an_owner_and_a_name(repo):
    with pytest.raises(UserError, match="repo must be OWNER/NAME"):
        _repository(repo)


def test_a_run_that_is_not_finished_is_not_published(tmp_path):
    run = made(tmp_path, model=HUB_MODEL)
    shutil.rmtree(run / "bundle")
    with serving(Hub()) as hub:
        done = published(tmp_path, hub, "repo=films", "sweep.dry_run=true")
    assert done["code"] == 2
    assert "holds no finished run of this version" in done["err"]
