"""Known models beside our own: what is measured of them, what is only quoted, and that neither passes for the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONF, DEV_COUNT, ROOT, Runs
from made_results import put
from omegaconf import OmegaConf

from optim.common.errors import UserError
from optim.encoder.architecture import read_config
from optim.measure import device
from optim.report import baselines, comparison, markdown, tables, write
from optim.report.baselines import Published
from optim.sweep import baselines as sweep_baselines
from optim.sweep.baselines import read_catalogue

SOURCED = {"accuracy_percent": 91.2, "split": "dev", "source": "a paper, table 1"}
SMALL = {
    "model_type": "mobilebert", "vocab_size": 300, "max_position_embeddings": 64, "embedding_size": 16,
    "hidden_size": 32, "intra_bottleneck_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "num_feedforward_networks": 2, "classifier_activation": False,
}  # fmt: skip


def catalogue(folder: Path, **entries) -> Path:
    """A catalogue of a tiny BERT and a small MobileBERT, changed by `entries`."""
    known = {"tiny": {"config": {}, "published": []}, "mobilebert": {"config": SMALL, "published": [SOURCED]}}
    path = folder / "catalogue.yaml"
    path.write_text(json.dumps(known | entries), encoding="utf-8")  # JSON is YAML
    return path


def swept(runs: Runs, *words: str) -> subprocess.CompletedProcess[str]:
    """sweep.py out of reach of any hub, with the settings of a quick run, or with what sweep=report reads."""
    read = ("results_dir=", "cache_dir=", "track=") if "sweep=report" in words else ("",)
    own = [word for word in runs.overrides() if not word.startswith("model=") and word.startswith(read)]
    command = [sys.executable, "sweep.py", *own, *words]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=env)


# The catalogue that ships


def test_every_baseline_has_sizes_and_sourced_accuracies(tmp_path):
    known = read_catalogue(CONF / "baselines.yaml")
    assert list(known) == OmegaConf.load(CONF / "sweep" / "baselines.yaml").models
    assert set(known) <= {path.stem for path in (CONF / "model").glob("*.yaml")}
    for name, entry in known.items():
        assert entry.published, name
        assert all(row.source and row.split in ("dev", "test") for row in entry.published), name
        (tmp_path / "config.json").write_text(json.dumps(entry.config))
        assert read_config(tmp_path, pooling="first", classes=2).vocabulary_size == 30522


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"source": ""}, "published.source must say where 91.2 comes from"),
        ({"source": None}, "published.source"),
        ({"split": "train"}, "published.split must be dev or test, got 'train'"),
        ({"accuracy_percent": 0.912}, r"published.accuracy_percent must lie in \[50, 100\], got 0.912"),
        ({"accuracy_percent": "high"}, "published.accuracy_percent must be a number"),
    ],
)
def test_a_published_accuracy_without_its_source_is_refused(change, part, tmp_path):
    with pytest.raises(UserError, match=part):
        Published(**{**SOURCED, **change})
    path = catalogue(tmp_path, mobilebert={"config": SMALL, "published": [{**SOURCED, **change}]})
    with pytest.raises(UserError, match=f"catalogue.yaml, mobilebert: {part}"):
        read_catalogue(path)


@pytest.mark.parametrize("row", [{"split": "dev", "source": "x"}, {**SOURCED, "splt": "dev"}, "91.2"])
def test_a_misspelt_catalogue_is_refused(row, tmp_path):
    with pytest.raises(UserError, match="needs config"):
        read_catalogue(catalogue(tmp_path, mobilebert={"config": SMALL, "published": [row]}))


# The record of a random model


def asked(quant: str = "int8", length: int = 32, pooling: str = "first") -> Any:
    """A job, as much of it as a record of random weights is made for."""
    quant_spec, bench = {"method": quant}, {"method": "interleaved", "sequence_length": length}
    return SimpleNamespace(cfg=OmegaConf.create({"model": {"pooling": pooling}, "quant": quant_spec, "bench": bench}))


def test_a_random_model_is_measured_once_for_each_setting_and_machine(tmp_path, monkeypatch):
    """What it takes is asked of a child, which a stand-in counts."""
    calls, file, machine = [], tmp_path / "a.json", ["0badcafe"]

    def child(command, *, input, **more):
        calls.append(json.loads(input))
        return SimpleNamespace(returncode=0, stdout=json.dumps({"size": {"file_bytes": len(calls)}}))

    monkeypatch.setattr(sweep_baselines.subprocess, "run", child)
    monkeypatch.setattr(device, "machine_id", lambda: machine[0])

    def made(job=None, *, config=SMALL) -> int:
        """How many there are now, counted by the record that was left."""
        assert sweep_baselines._random(file, job or asked(), config, {"model": "a"})
        return json.loads(file.read_text(encoding="utf-8"))["size"]["file_bytes"]

    assert (made(), made()) == (1, 1), "the second takes the first's"
    others = [{"job": asked(quant="none")}, {"job": asked(length=64)}, {"job": asked(pooling="mean")},
              {"config": {**SMALL, "hidden_size": 64}}]  # fmt: skip
    for count, other in enumerate(others, 2):
        assert (made(**other), made(**other)) == (count, count), other
    machine[0] = "feedbeef"
    assert made(**others[-1]) == len(others) + 2, "another machine"
    file.write_text("{half", encoding="utf-8")
    assert made(**others[-1]) == len(others) + 3, "a damaged record"


def test_a_random_model_is_calibrated_by_as_many_sentences_as_are_asked_for():
    """More than time it; `measured` is what the child runs."""
    spec: Any = OmegaConf.to_container(OmegaConf.load(CONF / "quant" / "int8_static.yaml"))
    bench: Any = OmegaConf.to_container(OmegaConf.load(CONF / "bench" / "quick.yaml"))
    static = {**spec, "samples": sweep_baselines.SENTENCES + 8, "seed": 0}
    found, plain = (sweep_baselines.measured(config=SMALL, pooling="first", quant=quant, bench=bench)
                    for quant in (static, {"method": "float32", "max_disagreement": 0.02}))  # fmt: skip
    assert found["size"]["file_bytes"] < 0.8 * plain["size"]["file_bytes"]
    assert found["size"]["parameters"] == plain["size"]["parameters"]


# The sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """A cache and results of its own."""
    return Runs(tmp_path_factory.mktemp("baselines"))


@pytest.fixture(scope="module")
def words(runs) -> tuple[str, ...]:
    """Of a sweep over one model whose weights can be had, and one whose weights cannot."""
    return "sweep=baselines", "sweep.models=[tiny,mobilebert]", f"sweep.catalogue={catalogue(runs.folder)}"


@pytest.fixture(scope="module")
def first(runs, words) -> subprocess.CompletedProcess[str]:
    """The first sweep."""
    return swept(runs, *words)


def record(runs: Runs, model: str) -> dict:
    return json.loads((runs.results / "baselines" / f"{model}.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_weights_that_can_be_had_are_fine_tuned_like_any_point(runs, first):
    assert first.returncode == 0, first.stderr
    found = record(runs, "tiny")
    result = json.loads((runs.results / found["run_id"] / "result.json").read_text(encoding="utf-8"))
    assert (found["weights"], result["status"], result["choices"]["quant"]) == ("fine-tuned", "done", "int8")
    assert result["choices"]["prune"] == "none"
    row = next(row for row in baselines.read_baselines(runs.results) if row.model == "tiny")
    assert row.accuracy == f"{result['quality']['accuracy_fraction']:.4f} of {DEV_COUNT} (sst2)"


@pytest.mark.slow
def test_weights_that_cannot_be_had_are_random_and_score_nothing(runs, first):
    found = record(runs, "mobilebert")
    assert found["weights"] == "random"
    assert "HF_HUB_OFFLINE" in found["why"]
    assert not {"quality", "accuracy", "accuracy_fraction", "run_id"} & set(found)
    assert found["published"] == [{**SOURCED, "second_hand": None, "note": None}]
    # 300*16 + 48*32+32 + 64*32 + 64 in front, 66 behind; a layer: 2*(32*16+16+32) in, 2*272 + 528 + 272 + 32
    # attention, 2*(16*24+24 + 24*16+16 + 32) feed-forward, 16*32+32+64 out
    assert found["size"]["parameters"] == 4800 + 1568 + 2048 + 64 + 66 + 2 * (1120 + 1376 + 1680 + 608)
    assert 20_000 < found["size"]["file_bytes"] < 1_000_000
    assert found["size"]["gzip_bytes"] < found["size"]["file_bytes"]
    assert found["speed"]["calls"] >= 5
    assert found["speed"]["sequence_length"] == 32
    assert 0 < found["speed"]["latency_p50_ms"] <= found["speed"]["latency_p99_ms"]
    assert found["memory"]["peak_rss_bytes"] > found["memory"]["baseline_rss_bytes"] > 1e6


@pytest.mark.slow
def test_the_table_is_on_the_screen_and_on_a_page(runs, first):
    lines = first.stdout.splitlines()
    assert max(len(line) for line in lines if str(runs.results) not in line) <= 100
    shown = {line.split()[0]: line.split() for line in lines if "quant=int8" in line}
    assert (shown["tiny"][-1], shown["mobilebert"][-1]) == ("fine-tuned", "random")
    assert shown["mobilebert"][2] == "-"
    page = (runs.results / "baselines" / "baselines.md").read_text(encoding="utf-8")
    assert "| mobilebert quant=int8 | - | 91.2 dev [1] | 0.02 M |" in page
    assert "- [1] a paper, table 1\n" in page
    assert "no front" in page
    assert "Load average before the runs began: " in page


@pytest.mark.slow
def test_a_report_shows_them_below_and_counts_only_points(runs, first):
    done = swept(runs, "sweep=report")
    assert done.returncode == 0, done.stderr
    folder = runs.results / "report"
    assert len((folder / "results.csv").read_text(encoding="utf-8").splitlines()) == 2  # the head and tiny
    above, below = (folder / "report.md").read_text(encoding="utf-8").split("## Baselines")
    assert "mobilebert" not in above
    assert "| mobilebert quant=int8 | - |" in below
    assert "<h2>Baselines</h2>" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_second_sweep_measures_nothing_again(runs, words, first):
    files = {path: path.read_bytes() for path in (runs.results / "baselines").glob("*.json")}
    done = swept(runs, *words)
    assert done.returncode == 0, done.stderr
    assert "Measured before" in done.stderr
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.slow
def test_other_settings_are_measured_anew(runs, words, first):
    before = record(runs, "mobilebert")
    done = swept(runs, *words, "sweep.models=[mobilebert]", "quant=none", f"results_dir={runs.folder / 'other'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((runs.folder / "other" / "baselines" / "mobilebert.json").read_text(encoding="utf-8"))
    assert (found["quant"], found["speed"]["speedup_vs_float32"]) == ("none", 1.0)
    assert found["key"] != before["key"]
    assert found["size"]["file_bytes"] > 1.2 * before["size"]["file_bytes"]


@pytest.mark.slow
def test_a_model_that_cannot_be_built_fails_alone(runs, words, first):
    (runs.folder / "other").mkdir(exist_ok=True)
    broken = catalogue(runs.folder / "other", mobilebert={"config": {**SMALL, "hidden_act": "gelu"}, "published": []})
    done = swept(runs, *words, f"sweep.catalogue={broken}", f"results_dir={runs.folder / 'broken'}")
    assert done.returncode == 1
    assert "hidden_act" in done.stderr
    assert "Failed: python train.py model=mobilebert" in done.stdout
    assert "Traceback" not in done.stderr
    assert [row.model for row in baselines.read_baselines(runs.folder / "broken")] == ["tiny"]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("sweep.models=[tiny,gpt2]",), "has no gpt2; it has tiny, mobilebert"),
        (("sweep.models=[]",), "sweep.models is empty"),
        (("+sweep.paths.minilm=DIR",), "sweep.paths names minilm"),
        (("+sweep.paths.mobilebert=/no/such/folder",), "/no/such/folder is not a folder"),
        (("model.path=DIR",), "not model.path=DIR"),
        (("sweep.catalogue=/no/such/file.yaml",), "/no/such/file.yaml cannot be read"),
        (("sweep.model=tiny",), "sweep"),
        (("bench.threads=0",), "bench.threads must be above 0"),
        (("quant=mixed",), "cannot have quant=mixed: it needs a fitted student"),
        (("quant=int8_qat",), "cannot have quant=int8_qat"),
    ],
)
def test_a_mistake_stops_the_sweep_before_it_starts(runs, words, more, part):
    done = swept(runs, *words, *more, f"results_dir={runs.folder / 'none'}")
    assert done.returncode in (1, 2), done.stdout
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (runs.folder / "none").exists()


# The front


def test_no_baseline_is_on_the_front_however_small_and_fast(tmp_path, monkeypatch):
    put(tmp_path, "ours", wrong=range(5), ms=10, mb=20)
    put(tmp_path, "other", wrong=range(9), ms=12, mb=30)
    machine = {"id": "m1", "cpu": "a cpu", "cores": 2, "isa": ["avx2"], "load_average": [0.0, 0.0, 0.0]}
    dream = {
        "schema": baselines.SCHEMA, "model": "dream", "quant": "int8", "weights": "random", "why": "no hub", "key": "k",
        "published": [{**SOURCED, "accuracy_percent": 100.0}], "machine": machine,
        "size": {"file_bytes": 1, "gzip_bytes": 1, "parameters": 1}, "memory": {"peak_rss_bytes": 1},
        "speed": {"latency_p50_ms": 0.001, "sequence_length": 128, "threads": 1},
    }  # fmt: skip
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "dream.json").write_text(json.dumps(dream))
    rows = baselines.read_baselines(tmp_path)
    assert [row.model for row in rows] == ["dream"]
    monkeypatch.setenv("COLUMNS", "60")
    assert baselines.screen_table(rows).splitlines()[1].startswith("dream quant=int8"), "on the narrowest screen too"
    folder = tmp_path / "report"
    folder.mkdir()
    found = write.write(folder, [tmp_path], rows=rows)
    assert (found.front, found.certain) == ([True, False], comparison.compared([tmp_path]).certain)
    assert "dream" not in (folder / "results.csv").read_text() + found.headline() + tables.screen_table(found)
    assert "100 dev [1]" in (folder / "report.md").read_text()
    assert markdown.to_markdown(comparison.compared([tmp_path])).count("dream") == 0
