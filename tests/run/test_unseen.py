"""Nothing is scored on what it learnt from: by text and by name, on the way of a whole run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONF, DEV_COUNT, Runs, sentences
from hydra import compose, initialize_config_dir
from whole_points import point

from optim.common.errors import UserError
from optim.data.leaks import known_sets
from optim.encoder.assets import HubCheckpoint
from optim.encoder.origin import said_in, trained_on, trained_on_by_its_files, write_trained_on
from optim.run.one_point import _require_unseen
from optim.run.point import Point, point_of

SST2_DEV = [  # three sentences by which it is known
    "when leguizamo finally plugged an irritating character late in the movie .",
    "the second coming of harry potter is a film far superior to its predecessor .",
    "dragonfly has no atmosphere , no tension -- nothing but costner , flailing away .",
]


@pytest.fixture
def tiny(runs: Runs):
    """The checkpoint model=tiny."""
    return point(runs).checkpoint


def said(chosen: Point) -> dict[str, tuple[str, ...]]:
    """What the models of a point say they were trained on."""
    return {one.name: trained_on(one) for one in chosen.origins}


def glue_with_copies(folder: Path, copies: int) -> Path:
    """GLUE's layout, with so many sentences of dev also in train, in capitals."""
    dev = sentences(DEV_COUNT, 1)
    train = [*sentences(300, 0), *((text.upper(), label) for text, label in dev[:copies])]
    for name, rows in (("train", train), ("dev", dev)):
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run three of whose scored sentences are learnt, begun from a model that says what it learnt."""
    data, start = glue_with_copies(tmp_path_factory.mktemp("few"), 3), tmp_path_factory.mktemp("start") / "model"
    shutil.copytree(point(runs).checkpoint.fetch(runs.cache), start)
    write_trained_on(start, ["imdb"])
    return runs.folder_of(f"data.path={data}", f"model.path={start}", "prune=fixed50", "quant=int8",
                          "fit.teacher.epochs=8")  # fmt: skip


@pytest.mark.slow
def test_sentences_learnt_and_scored_are_counted_in_the_result_and_on_the_card(run):
    assert json.loads((run / "result.json").read_text())["data"]["dev_in_train_examples"] == 3
    assert "150 of dev chose nothing, 3 stand in train." in (run / "bundle" / "README.md").read_text()


def test_bundle_and_models_in_the_cache_carry_what_they_were_trained_on(run, runs):
    assert json.loads((run / "bundle" / "trained_on.json").read_text()) == {"data": ["imdb", "sst2"]}
    made = json.loads((run / "result.json").read_text())["cost"]["stages"]
    for kind in ("teacher", "student"):
        [key] = [key for key in made if key.startswith(kind)]
        assert said_in(runs.cache / "stages" / key) == ("imdb", "sst2")


def test_a_run_that_scores_what_it_learns_ends_before_any_work(runs, tmp_path):
    done = runs.apart(f"data.path={glue_with_copies(tmp_path, 10)}")
    assert done.returncode == 2
    assert "data=sst2, its sentences to train: 10 of the 150 sentences that are scored" in done.stderr
    assert "Traceback" not in done.stderr
    assert "teacher   " not in done.stderr


@pytest.mark.parametrize("where", ["trained_on.json", "bundle"])
def test_a_model_that_learnt_from_reviews_is_not_scored_on_sst2(runs, tmp_path, where):
    folder = tmp_path / "bundle"
    shutil.copytree(point(runs).checkpoint.fetch(runs.cache), folder)
    if where == "bundle":
        (tmp_path / "result.json").write_text(json.dumps({"data": {"name": "reviews"}}))
    else:
        write_trained_on(folder, ["reviews"])
    with pytest.raises(UserError, match="model=tiny was trained on reviews, and data=sst2 has the same sentences"):
        point(runs, f"model.path={folder}")


def test_a_file_that_turns_out_to_be_sst2_is_not_scored_by_a_model_that_learnt_from_reviews(runs, tmp_path):
    (tmp_path / "dev.csv").write_text(
        "text,label\n" + "".join(f'"{text}",{i % 2}\n' for i, text in enumerate(SST2_DEV))
    )
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in sentences(300, 0)))
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    words = [word for word in runs.overrides("data=csv", f"model.path={folder}") if not word.startswith("data.path")]
    words += [f"data.train_path={tmp_path}/train.csv", f"data.dev_path={tmp_path}/dev.csv"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = point_of(compose("train", overrides=words))
    assert _require_unseen(chosen.source.load(runs.cache), said(chosen), ()) == 0
    write_trained_on(folder, ["csv", "reviews"])
    with pytest.raises(UserError, match="was trained on reviews, and data=sst2 has the same sentences"):
        _require_unseen(chosen.source.load(runs.cache), said(chosen), ())


def test_what_is_learnt_beside_train_is_known_by_its_texts(runs):
    """A file of SST-2's sentences, under whatever name, beside reviews that are scored; and as what reviews are."""
    quiet = SimpleNamespace(texts=["a film", "a plot"])
    corpus: Any = SimpleNamespace(name="reviews", train=quiet, dev=SimpleNamespace(texts=["another film"]))
    told = "holds sentences of sst2, and data=reviews has the same sentences"
    with pytest.raises(UserError, match=rf"distill\.unlabelled: its file {told}"):
        _require_unseen(corpus, {}, known_sets(SST2_DEV))
    assert _require_unseen(corpus, {}, ()) == 0
    corpus.train = SimpleNamespace(texts=SST2_DEV)
    with pytest.raises(UserError, match=rf"data=reviews: its train {told}"):
        _require_unseen(corpus, {}, ())


def test_the_card_of_a_model_of_the_hub_says_what_it_learnt(tiny, tmp_path, monkeypatch):
    """The same model is refused as a folder, where the card lies beside it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    there = shutil.copytree(tiny.fetch(tmp_path / "cache"), tmp_path / "model")
    (there / "README.md").write_text("---\ndatasets:\n- rotten_tomatoes\n---\nA model.\n")

    def download(hub_id: str, name: str, *, revision: str, local_files_only: bool = False) -> str:
        if not (there / name).is_file():
            raise LocalEntryNotFoundError("not in the cache")
        return str(there / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    movies = HubCheckpoint("movies", "someone/my-movies", "main", "first")
    assert trained_on(movies) == ("someone/my-movies",)
    assert trained_on_by_its_files(movies, tmp_path / "cache") == ("someone/my-movies", "rotten_tomatoes")


def test_a_teacher_that_learnt_from_reviews_teaches_nothing_that_is_scored_on_sst2(runs, tmp_path, monkeypatch):
    from omegaconf import OmegaConf

    from optim.run import places

    models = tmp_path / "model"
    models.mkdir()
    fields = OmegaConf.load(places.CONF / "model" / "distilbert.yaml")
    OmegaConf.save(OmegaConf.merge(fields, {"hub_id": "someone/bert-rotten-tomatoes"}), models / "other.yaml")
    monkeypatch.setattr(places, "_added", [tmp_path])
    with pytest.raises(UserError, match="was trained on someone/bert-rotten-tomatoes, and data=sst2"):
        point(runs, "distill.teacher=other")
