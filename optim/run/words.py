"""The words of a command line against what the configs hold: what there is to choose, and what was meant by a mistake.

Hydra refuses what it cannot compose. Here its messages become one line that names the setting, and the nearest one
that exists; the configs are read for that only once something is wrong.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from optim.common.errors import UnknownKey, UserError
from optim.run.places import EXPERIMENT, GROUPS, config_dirs, options_of

# Keys that people try -> what there is instead.
MISSPELT = {
    "distill.teachers": "distill.teacher takes a list: distill.teacher=[a,b]",
    "distill.seed": "distill.seeds=3 fits each teacher three times; distill.teacher_seed is the first of their seeds",
}
# Sweepers that choose points by a number that a run returns.
OPTIMIZERS = ("optuna", "ax", "nevergrad")
ENGINES = ("hydra/launcher", "hydra/sweeper")
OF_ENGINES = (*ENGINES, *(engine.replace("/", ".") for engine in ENGINES))  # how words begin that -m alone reads
BOTH = ("cache_dir", "hydra.searchpath")  # keys of train.py and of sweep.py
OF_SWEEPS = ("budget", "sweep")  # how keys begin that conf/sweep.yaml and its options have
PACKAGE = "The first line of its file must be `# @package _global_`: without it all keys are those of `experiment`."
TEXTS = re.compile(r"(path|_dir|_column|name)$")  # keys whose value is a text, though it may be made of digits
NUMBER = re.compile(r"[+-]?[1-9][\d_]*(\.\d[\d_]*)?(e[+-]?\d+)?", re.IGNORECASE)  # as Hydra reads one
LIKE = 0.75  # of two words, by difflib: at or above it one may be meant by the other
SHOWN = 3  # of the nearest keys
Keys = dict[str, list[str]]  # key -> the files that have it, as prune/fixed50


def key_of(word: str) -> str:
    """KEY of KEY=VALUE, +KEY=VALUE, ++KEY=VALUE and ~KEY."""
    return word.partition("=")[0].lstrip("+~")


def group_of(word: str) -> str:
    """The group, or the first part, of a word's key."""
    return key_of(word).partition(".")[0]


# What there is
def listing(program: str) -> str:
    """What --help lists of a program: a line for each group of train, or for each sweep."""
    if program == "sweep":
        return "\n".join(f"{name:<12} {_about(path)}" for name, path in sorted(options_of("sweep").items()))
    lines = {group: ", ".join(sorted(options_of(group))) for group in sorted((*GROUPS, EXPERIMENT))}
    lines |= {engine: ", ".join(sorted({"basic", *options_of(engine)})) for engine in ENGINES}
    return "\n".join(f"{group}: {names}" for group, names in lines.items())


def _about(path: Path) -> str:
    """The first line of a config's header without its name, and without a command beside it."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return re.sub(r"^#\s*(\w+:\s*)?|\s{2,}python .*$", "", first)


def known_keys() -> Keys:
    """Every key of conf/train.yaml and of every option of its groups."""
    found: Keys = {}
    for group, name, path in _files():
        text = path.read_text(encoding="utf-8")
        prefix = "" if not group or re.match(r"#\s*@package\s+_global_", text) else f"{group}."
        for key in _leaves(_loaded(text), prefix):
            found.setdefault(key, []).append(f"{group}/{name}" if group else name)
    return found


def sweep_keys() -> list[str]:
    """Every key of conf/sweep.yaml, and of every option of `sweep`."""
    files = {"": config_dirs()[0] / "sweep.yaml", **options_of("sweep")}
    texts = ((path.read_text(encoding="utf-8"), "sweep." if name else "") for name, path in files.items())
    return sorted({key for text, prefix in texts for key in _leaves(_loaded(text), prefix)})


def _files() -> Iterator[tuple[str, str, Path]]:
    """(group, option, file); the first file is that of train.py itself."""
    yield "", "train", config_dirs()[0] / "train.yaml"
    for group in GROUPS:
        for name, path in options_of(group).items():
            yield group, name, path


def _loaded(text: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:  # Hydra has told of it, or will
        return {}
    return {k: v for k, v in content.items() if k not in ("defaults", "hydra")} if isinstance(content, dict) else {}


def _leaves(node: Any, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")


# What was meant
def nearest(key: str, known: Iterable[str]) -> list[str]:
    """The keys that may be meant by one that is none: alike in their last part, and of the same group before others."""
    root, last = key.split(".")[0], key.split(".")[-1]
    scores = {}
    for other in known:
        alike = SequenceMatcher(None, last.lower(), other.split(".")[-1].lower()).ratio()
        if alike >= LIKE:
            scores[other] = alike + 0.3 * (other.split(".")[0] == root) + 0.2 * (other.count(".") == key.count("."))
            scores[other] -= 0.05 * other.count(".")
    best = max(scores.values(), default=0.0)
    return [other for other, score in scores.items() if score > best - 0.01][:SHOWN]


def hint(key: str) -> str:
    """A sentence on where a key that nothing reads would be one, or on the nearest ones; empty if nothing is near."""
    group = key.split(".")[0]
    if group == EXPERIMENT:
        return f" {PACKAGE}"
    if group in OF_SWEEPS:
        found = nearest(key, [other for other in sweep_keys() if other != key])  # another sweep may have that one
        return f" The nearest: {', '.join(found)}." if found else " --help lists what there is."
    known = known_keys()
    if key in known and group in GROUPS:
        names = ", ".join(sorted({f.split("/")[1] for f in known[key] if f.startswith(f"{group}/")}))
        return f" It is a key of {group}={names}: choose one of these too." if names else ""
    found = nearest(key, [*GROUPS, EXPERIMENT, *known])
    return f" The nearest: {', '.join(found)}." if found else " --help lists what there is."


def told(error: UserError) -> str:
    """The message of an error; where a key is unknown, with the nearest real one."""
    if not isinstance(error, UnknownKey):
        return str(error)
    return f"{error}{hint(error.key.removeprefix('train.'))}"


def explained(error: Exception) -> str:
    """A line or two for what Hydra refused to compose."""
    said = str(error)
    if found := re.match(r"Could not override '([^']+)'", said):
        return f"{found[1]} is no key here.{hint(found[1])}"
    if found := re.search(r"Could not find '([^']+)/([^/']*)'", said):
        return _unknown_option(found[1], found[2], list(getattr(error, "options", None) or options_of(found[1])))
    if f"@{EXPERIMENT}." in said:
        return f"{EXPERIMENT}: {PACKAGE}"
    if "interval" in said.lower():
        return interval_refused(sys.argv[1:])
    if found := re.search(r"(?:Sweep parameters|Ambiguous value for argument) '([^']+)'", said):
        return f"{found[1]} gives several values, and this is one run. All of them: train.py -m. A list: KEY=[a,b]."
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if word := getattr(error, "override", None):
        return f"{word!r} cannot be read ({lines[0]}). A text with signs in it is quoted twice: 'key=\"a, b\"'."
    return " ".join(lines[:2])


def _unknown_option(group: str, name: str, options: Sequence[str]) -> str:
    near = nearest(name, options)
    listed = ", ".join(sorted(options)) or "none"
    return f"{group} has no option {name!r}; it has {listed}." + (f" The nearest: {', '.join(near)}." if near else "")


def interval_refused(words: Sequence[str], *, searched: bool | None = None) -> str:
    """Why interval() is no set of values here, and what is; names the key where one of the words has it.

    searched: of a sweep that makes its points itself: whether it has a space to choose values from.
    """
    key = next((key_of(word) for word in words if "interval(" in word), "KEY")
    way = {
        None: f"list some, {key}=1,2,4, or use range(start,stop,step)",
        True: f"list those to choose from, sweep.space.{key}=[1,2,4]",
        False: f"give one value, {key}=2: this sweep has points of its own",
    }[searched]
    return f"{key}: an interval has endless points; {way}."


def require_known_words(words: Sequence[str]) -> None:
    """Raises UserError for a key whose right name is known, and for a sweeper that this program cannot serve."""
    for word in words:
        key, value = key_of(word), word.partition("=")[2]
        if key in MISSPELT:
            raise UserError(f"{key} is no key: {MISSPELT[key]}. Got {word!r}.")
        if key in (*GROUPS, EXPERIMENT) and (value == "null" or re.fullmatch(r"\[.*\]|\{.*\}", value)):
            raise UserError(f"{word}: that is no option; {key} has {', '.join(sorted(options_of(key)))}.")
        if key in GROUPS and word.startswith(("~", "+")):
            has = ", ".join(sorted(options_of(key)))
            raise UserError(f"{word}: every run has one option of {key}, {key}=NAME without a sign. It has {has}.")
        if key == "hydra/sweeper" and value in OPTIMIZERS:
            raise UserError(
                f"hydra/sweeper={value} is refused: it wants one number of a run and other packages than this program. "
                "Optuna searches here too, within a budget: sweep.py sweep=search budget.file_mb=24."
            )


def require_words_arrive(words: Sequence[str]) -> None:
    """Raises UserError for what UTF-8 cannot hold, and for a folder or column that Hydra reads as another number."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"{word!a} is not UTF-8. Rename what it names, or use a UTF-8 locale.") from None
        key, value = key_of(word), word.partition("=")[2]
        read = _number(value) if TEXTS.search(key) else value
        if read != value:
            raise UserError(f"{word} would be read as the number {read}. A text is quoted twice: '{key}=\"{value}\"'.")


def _number(value: str) -> str:
    """A number as it comes out of Hydra, 2024_10 as 202410; another text as it is."""
    if not NUMBER.fullmatch(value):
        return value
    return str(float(value) if re.search("[.e]", value, re.IGNORECASE) else int(value))


def unread_epochs(words: Sequence[str], cfg: Mapping[str, Any]) -> list[str]:
    """A line for each fit whose words give it epochs where it has steps, which win: of other words, or of an option."""
    given = {key_of(word): word.partition("=")[2] for word in words if "=" in word}  # ~KEY takes one away
    lines = []
    for fit in ("teacher", "student"):
        epochs, steps = given.get(f"fit.{fit}.epochs", "null"), (cfg["fit"].get(fit) or {}).get("steps")
        if epochs != "null" and steps is not None:
            lines.append(f"fit.{fit}.epochs={epochs} is not read: the fit has fit.{fit}.steps={steps}. "
                         f"With fit.{fit}.steps=null it is.")  # fmt: skip
    return lines
