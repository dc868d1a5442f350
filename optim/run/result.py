"""The result of one point: result.json, its table on the screen, the bundle that ships and its model card."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim.common.errors import UserError
from optim.common.files import sha256_of, temporary_folder, try_writing, write_text, writing
from optim.common.screen import beside
from optim.common.secrets import masked
from optim.encoder.licence import sentence
from optim.export.bundle import BUNDLE, COMPRESSED_FILE, MODEL_FILE, model_in, snippet
from optim.export.choice import row_text
from optim.measure.quality import SIGNIFICANT
from optim.run.errors_text import errors_section

if TYPE_CHECKING:
    import numpy as np


SCHEMA = 7  # of result.json; raised when a figure means something else, or a reader counts on a new one
NEUTRAL = ("none", "full")  # of slim and vocab
LABELS_SHOWN = 10  # in the model card; labels.json has all
DONE, FAILED = "done", "failed"
FILE = "result.json"
REMEASURED = "remeasured.json"  # beside it: machine and speed of a later, common measurement
MEASURED = "measured-{}.json"  # beside it: machine, speed and memory by another machine, its id in the name
CHANGED = "changed.jsonl"  # beside it: a line for each sentence of dev that file and teacher answer differently
ANSWERS = "answers.npz"  # beside it: labels, answers, teacher, a class for each sentence of dev


@dataclass
class Result:
    """One point of the trade-off: the row of the table, of result.json and of W&B."""

    schema: int
    run_id: str
    status: str  # done | failed
    error: str | None
    choices: dict[str, Any]  # option of each group, and what a missing hub made of the default
    cfg: dict[str, Any]
    seed: int
    command: str
    machine: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of result.json, without any secret in it."""
        return masked(asdict(self))


def read(folder: Path) -> Result | None:
    """The finished result in a run folder; None if there is none yet, or its file cannot be read, or it failed."""
    try:
        fields = json.loads((folder / FILE).read_text(encoding="utf-8"))
        result = Result(**fields)
    except (OSError, ValueError, TypeError):
        return None
    return result if result.status == DONE and result.schema == SCHEMA and _bundle(folder).is_dir() else None


def files_below(folder: Path) -> list[Path]:
    """Every result.json in a folder and those in it, each once; a run that lies elsewhere, behind a link, too."""
    found, seen = [], set()
    for place, names, files in os.walk(folder, followlinks=True):
        names.sort(key=lambda name: os.path.islink(os.path.join(place, name)))  # a run before the links to it
        if (real := os.path.realpath(place)) in seen:
            names.clear()  # which may lead round in a circle
            continue
        seen.add(real)
        found += [Path(place, FILE)] if FILE in files else []
    return sorted(found)


def measured_on(machine: str) -> str:
    """The file, beside result.json, of what the machine with this id has measured. Raises UserError for no such id."""
    if not re.fullmatch("[0-9a-f]{8}", machine):
        raise UserError(f"The id of a machine has 8 hexadecimal digits, as measure.py writes them; got {machine!r}.")
    return MEASURED.format(machine)


def error_of(folder: Path) -> str | None:
    """What a failed run left as its reason."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))["error"]
    except (OSError, ValueError, KeyError):
        return None


def write(result: Result, folder: Path) -> None:
    """Puts result.json in its place in one step, so that a reader finds the whole of it or nothing."""
    write_text(folder / FILE, NUMBERS.sub(_one_line, json.dumps(result.to_json(), indent=2)) + "\n")


NUMBERS = re.compile(r"\[\n\s+-?\d+(?:,\n\s+-?\d+)*\n\s+\]")  # a list of whole numbers, as a row of a confusion table


def _one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]")


def require_writable(results_dir: Path, folder: Path) -> None:
    """Creates the run folder. Raises UserError where it cannot be written."""
    with writing(results_dir, setting="results_dir", folder=folder):
        try_writing(folder)


def require_space(cache_dir: Path, *, free_gb: float) -> None:
    """Raises UserError unless the disk of the cache has `free_gb` gigabytes left and takes a file."""
    if found := [sign for sign in "[\\" if sign in str(cache_dir.absolute())]:  # TensorFlow reads it as a pattern
        raise UserError(f"cache_dir {cache_dir} must have no {found[0]} in it. cache_dir=DIR moves it.")
    with writing(cache_dir):
        try_writing(cache_dir)
    left_gb = shutil.disk_usage(cache_dir).free / 1e9
    if left_gb < free_gb:
        raise UserError(
            f"cache_dir {cache_dir} has {left_gb:.1f} GB left on its disk, cache_free_gb={free_gb:g} asks for more. "
            "Free some, or cache_dir=DIR moves it."
        )


def write_answers(folder: Path, answers: dict[str, np.ndarray]) -> None:
    """Keeps what was said of each sentence of dev: without it two points cannot be tested against each other."""
    import numpy as np

    part = folder / f".{ANSWERS}.{os.getpid()}.npz"
    small: dict[str, Any] = {name: values.astype(np.int16) for name, values in answers.items()}
    np.savez_compressed(part, **small)
    os.replace(part, folder / ANSWERS)


def write_changed(folder: Path, changed: Sequence[Mapping[str, Any]]) -> None:
    """Keeps the sentences that the file answers unlike its teacher, one JSON object a line."""
    lines = (json.dumps(masked(dict(one)), ensure_ascii=False) for one in changed)
    write_text(folder / CHANGED, "".join(f"{line}\n" for line in lines))


def forget_measurements(folder: Path, file: Path) -> None:
    """Takes away the later measurements of a run whose bundle holds, or held, another file than `file`."""
    old = model_in(_bundle(folder))
    if not old.is_file() or sha256_of(old) != sha256_of(file):
        for path in (folder / REMEASURED, *folder.glob(MEASURED.format("*"))):
            path.unlink(missing_ok=True)


def write_bundle(
    folder: Path, *, file: Path, tokenizer: Path, labels: list[str], max_length: int, result: Result
) -> Path:
    """Makes `folder`/bundle, complete before it takes that name, and returns the path of its model card."""
    from optim.encoder.origin import write_trained_on
    from optim.export.bundle import LABELS_FILE, TOKENIZER_FILE, write_labels

    with temporary_folder(folder) as part:
        os.chmod(part, 0o755)
        shutil.copyfile(file, part / file.name)
        shutil.copyfile(tokenizer, part / TOKENIZER_FILE)
        write_labels(part / LABELS_FILE, labels=labels, max_length=max_length)
        write_trained_on(part, result.data.get("trained_on", []))
        write_measure(part, result)
        (part / "README.md").write_text(masked(card(result)), encoding="utf-8")
        _put(part, _bundle(folder))
    return _bundle(folder) / "README.md"


def read_labels(folder: Path) -> np.ndarray:
    """int [dev_examples], of a finished run."""
    import numpy as np

    with np.load(folder / ANSWERS) as saved:
        return saved["labels"]


def write_card(result: Result, folder: Path) -> None:
    """Writes the model card of a bundle that is there anew."""
    write_text(_bundle(folder) / "README.md", masked(card(result)))


def _put(part: Path, bundle: Path) -> None:
    """Puts a bundle in the place of an older one; that of another process of the same run is as good."""
    shutil.rmtree(bundle, ignore_errors=True)
    try:
        part.rename(bundle)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def write_measure(bundle: Path, result: Result) -> None:
    """Puts a script into the bundle that times it on another machine, and how this program has timed it."""
    from optim.measure import device

    shutil.copyfile(device.__file__, bundle / device.SCRIPT)
    own = {key: value for key, value in result.cfg["bench"].items() if key != "method"}
    write_text(bundle / device.SETTINGS, measure_settings(result, own))


def measure_settings(result: Result, bench: Mapping[str, Any]) -> str:
    """What measure.py reads beside the file of a point: how it is timed, and over which sentences."""
    return json.dumps({
        "bench": dict(bench),
        "dev_lengths": result.data["dev_lengths"],
        "vocabulary_size": result.size["structure"]["vocabulary_size"],
    }) + "\n"  # fmt: skip


def _bundle(folder: Path) -> Path:
    return folder / BUNDLE


def rows(result: Result) -> list[tuple[str, str, str]]:
    """(what, value, beside it) for people, in the order in which they ask."""
    q, s, v, m = result.quality, result.size, result.speed, result.memory
    return [
        ("accuracy", f"{q['accuracy_fraction']:.4f} of {q['examples']:,}",
         f"95 %: {q['ci95_low']:.3f} to {q['ci95_high']:.3f}; teacher {q['teacher_accuracy_fraction']:.4f}"),
        ("MCC, macro-F1", f"{q['mcc']:.4f}, {q['macro_f1']:.4f}",
         f"agrees with Keras on {q['agreement_fraction']:.1%}"),
        ("file", f"{s['file_bytes'] / 1e6:.2f} MB",
         f"{s['gzip_bytes'] / 1e6:.2f} MB after gzip, {s['zstd_bytes'] / 1e6:.2f} MB after zstd"),
        *candidates_rows(result),
        *compressed_rows(result),
        ("parameters", f"{s['parameters'] / 1e6:.2f} M",
         f"{s['effective_parameters'] / 1e6:.2f} M not zero; {s['zeroed_fraction']:.1%} of prunable weights are zero"),
        *zeros_rows(result),
        (f"latency at {v['sequence_length']}", f"{v['latency_p50_ms']:.2f} ms",
         f"p90 {v['latency_p90_ms']:.2f}, p99 {v['latency_p99_ms']:.2f} over {v['calls']} calls"),
        *budget_rows(result),
        ("against float32", f"{v['speedup_vs_float32']:.2f}x", f"float32 file: {v['float32_latency_p50_ms']:.2f} ms"),
        (f"latency at {v['median_length']}", f"{v['median_length_latency_p50_ms']:.2f} ms", "the data's median length"),
        ("latency, any length", f"{v['dev_mix_latency_p50_ms']:.2f} ms",
         f"the data's own lengths; p99 {v['dev_mix_latency_p99_ms']:.2f}"),
        ("peak memory", f"{m['peak_rss_bytes'] / 1e6:.0f} MB",
         f"of a process that runs the file; {m['baseline_rss_bytes'] / 1e6:.0f} MB before loading it"),
        *teaching_rows(result),
    ]  # fmt: skip


def candidates_rows(result: Result) -> list[tuple[str, str, str]]:
    """What was tried on this machine, and what of it is the file; none where nothing was to choose from."""
    tried = result.size.get("candidates", [])
    return [("this file is" if row["taken"] else "tried too", row["name"], row_text(row)) for row in tried]


def compressed_rows(result: Result) -> list[tuple[str, str, str]]:
    """What ships, where that is another file than the one that runs."""
    packed = result.size["compressed_bytes"]
    if packed is None:
        return []
    level, unpacking = result.cfg["export"]["zstd_level"], result.speed["decompress_p50_ms"]
    return [("ships as", f"{packed / 1e6:.2f} MB", f"{COMPRESSED_FILE}, level {level}; unpacks in {unpacking:.0f} ms")]


def budget_rows(result: Result) -> list[tuple[str, str, str]]:
    """Whether the file keeps the milliseconds that it was cut for; no row where it was cut for none."""
    asked_ms = result.cfg.get("slim", {}).get("latency_ms")
    if asked_ms is None:
        return []
    longer = result.speed["latency_p50_ms"] / asked_ms - 1
    kept = "kept" if longer <= 0 else f"missed: the file takes {longer:.0%} longer; ask for less"
    return [("slim.latency_ms", f"{asked_ms:.2f} ms", kept)]


def zeros_rows(result: Result) -> list[tuple[str, str, str]]:
    """Whether its zeros make the file faster; nothing where it has none."""
    v = result.speed
    if v["zeros_accelerated"] is None:
        return []
    noise = ", within the noise" if v["zeros_speedup"] > 1 and not v["zeros_accelerated"] else ""
    times = f"{v['zeros_speedup']:.2f}x against the same file without zeros{noise}"
    return [("zeros faster?", "yes" if v["zeros_accelerated"] else "no", times)]


def teaching_rows(result: Result) -> list[tuple[str, str, str]]:
    """What the teachers are worth, with the uncertainty in words; none where nothing was taught."""
    q = result.quality
    if not q["taught"]:
        return []
    together = [] if q["ensemble_accuracy_fraction"] is None else [
        ("ensemble", f"{q['ensemble_accuracy_fraction']:.4f}", "the mean of their soft answers, on dev")
    ]  # fmt: skip
    if q["teacher_helps"] is None:
        return [*together, ("teacher helps?", "not known", "the same with distill=none would tell")]
    student, other, p = q["student_accuracy_fraction"], q["untaught_accuracy_fraction"], q["untaught_p"]
    sure = "hardly chance" if p < SIGNIFICANT else "may be chance"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    found = f"{student:.4f} with it, {other:.4f} without: {chance}, {sure}"
    worse = [] if q["teacher_accuracy_fraction"] >= other else [
        ("teacher itself", f"{q['teacher_accuracy_fraction']:.4f}", f"is worse than a student without it, {other:.4f}")
    ]  # fmt: skip
    return [*together, ("teacher helps?", _verdict(student - other, p), found), *worse]


def _verdict(gain: float, p: float) -> str:
    """In a word or two, by the sign of the gain and McNemar's p."""
    if gain > 0:
        return "yes" if p < SIGNIFICANT else "perhaps"
    return "no: worse" if gain < 0 and p < SIGNIFICANT else "no: perhaps worse" if gain < 0 else "no difference"


def untaught_command(result: Result) -> str | None:
    """What makes the student without its teachers, where only that is missing to say whether they help."""
    if not result.quality["taught"] or result.quality["teacher_helps"] is not None:
        return None
    teacher = result.cfg["distill"]["teacher"]
    own = (teacher if isinstance(teacher, str) else teacher[0]) in ("same", result.choices["model"])
    own = own or bool(removed(result.choices))  # what is cut was fine-tuned by the teacher's seed
    words = [word for word in shlex.split(result.command) if not word.lstrip("+~").startswith("distill")]
    kept = [word for word in shlex.split(result.command) if own and word.startswith("distill.teacher_seed=")]
    return shlex.join([*words, "distill=none", *_taken_back(words, own), *kept])


def _taken_back(words: Sequence[str], own: bool) -> list[str]:
    """What `distill=none` needs beside it where an experiment sets keys of `distill`, which it would refuse.

    own: the student starts from a fine-tuning of itself, so a seed that the experiment holds for that stays.
    """
    import yaml

    from optim.run.places import EXPERIMENT, options_of

    names = [word.split("=", 1)[1] for word in words if word.lstrip("+").startswith(f"{EXPERIMENT}=")]
    path = options_of(EXPERIMENT).get(names[-1]) if names else None
    if path is None:
        return []
    sets, none = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in (path, options_of("distill")["none"]))
    changed = {key: value for key, value in (sets.get("distill") or {}).items() if not (own and key == "teacher_seed")}
    return list(_reset("distill", changed, none))


def _reset(name: str, sets: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Words that give the keys of `sets` the values of `known`, and take out those that it lacks."""
    from optim.run.worded import worded

    for key, value in sets.items():
        if key not in known:
            yield f"~{name}.{key}"
        elif isinstance(value, Mapping):
            yield from _reset(f"{name}.{key}", value, known[key])
        else:
            yield worded(f"{name}.{key}", known[key])


def removed(choices: dict[str, Any]) -> list[str]:
    """The options of `slim` and `vocab` as words; none where nothing is removed."""
    return [f"{group}={choices[group]}" for group in ("slim", "vocab") if choices.get(group) not in (None, *NEUTRAL)]


def title(result: Result) -> str:
    """One line: what was made of what."""
    choice, distill = result.choices, result.cfg["distill"]
    learnt = f"{choice['distill']} at T={distill['temperature']:g}" if "temperature" in distill else "no distillation"
    learnt = learnt if result.cost["student_s"] else "the fine-tuned model itself"
    words = [*removed(choice), f"prune={choice['prune']}", f"quant={choice['quant']}", learnt]
    return f"{choice['model']} on {choice['data']}, {', '.join(words)}"


def table(result: Result, folder: Path) -> str:
    """The result for a screen."""
    body = "\n".join(beside(f"  {what:<16}{value:>18}   ", note) for what, value, note in rows(result))
    predict = f'python -m optim.predict {shlex.quote(str(_bundle(folder)))} "a charming film"'
    return f"\n{title(result)}\n{body}\n\n  {folder / FILE}\n  {predict}\n{_to_know(result)}"


def _teaching_line(result: Result) -> str:
    """For the card: what "teacher helps?" compares, or what would tell."""
    if not result.quality["taught"]:
        return ""
    told = (
        "- Teacher helps?: Keras answers on dev, before the file, against those of the same student with distill=none"
    )
    if (command := untaught_command(result)) is None:
        return f"{told}, one seed each; p is McNemar's.\n"
    return f"{told}, which was not made: `{command}`.\n"


def _to_know(result: Result) -> str:
    """How to learn whether the teachers help, where that is not known."""
    if (command := untaught_command(result)) is None:
        return ""
    return f"\n  Does the teacher help? Run this, then this point again:\n  {command}\n"


def card(result: Result) -> str:
    """The model card: the numbers, how they were taken, what they do not show."""
    errors = errors_section(result.quality)
    body = "\n".join(f"| {what} | {value} | {beside} |" for what, value, beside in rows(result))
    data, machine = result.data, result.machine
    copies = data.get("dev_in_train_examples")
    scored = f"the {data['dev_examples']:,} of dev chose nothing" + (f", {copies:,} stand in train" if copies else "")
    more = data.get("augmented_examples", 0) + data.get("unlabelled_examples", 0)
    learnt = f"{data['train_examples']:,} sentences of {data['name']}"
    learnt += f" and on {more:,} more, which have no labels and were answered by the teacher" if more else ""
    return f"""# {title(result)}

Text classifier for LiteRT, made and measured by DistilBERT-Optim. {_named(data["labels"])}.

| | | |
|---|---|---|
{body}

- Every figure is of {_described(result)}, run by LiteRT on {machine["cpu"]} ({", ".join(machine["isa"])}).
- Trained on {learnt}; {scored}.
- Inputs `input_ids` and `attention_mask`, int32 [1, length], bound by name; output `logits`, {_logits(result)}.
- Files: the model, `tokenizer.json`, `labels.json` (the classes in the order of the logits, and at how many tokens a
  sentence is cut), `trained_on.json` (what it must not be scored on).
- {sentence(result.cfg["model"])} The training sentences may ask for more.
- Run: `python -m optim.predict FOLDER "a charming film"`. Made by `{result.command}`, run {result.run_id}.
{_teaching_line(result)}
{errors}
Latency on another processor will differ, and so may the ratio to float32. Text unlike the training data was not tried.

## From Python, without this program

{_needs(result)}

```python
{snippet(compressed=result.size["compressed_bytes"] is not None)}```
"""


def _needs(result: Result) -> str:
    """What the snippet of the card needs, and what its answer is."""
    more = "" if result.size["compressed_bytes"] is None else " zstandard"
    return (
        f"It needs `pip install ai-edge-litert numpy tokenizers{more}`. The soft-max of the logits gives the chances "
        "of the classes; integers are first taken times their scale."
    )


def _described(result: Result) -> str:
    """The file that was measured, and where it is."""
    if result.size["compressed_bytes"] is None:
        return f"`{MODEL_FILE}` in this folder"
    return f"the file that `{COMPRESSED_FILE}` in this folder unpacks to (`zstd -d {COMPRESSED_FILE}`)"


def _logits(result: Result) -> str:
    """Type and shape of the file's output."""
    bits = result.cfg["quant"].get("activation_bits")  # of a file that computes in integers alone
    return "float32 [1, classes]" if bits is None else f"int{bits} [1, classes], with scale and zero point in the file"


def _plain(text: str) -> str:
    """A text as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*_\[\]~|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _named(labels: list[str]) -> str:
    """The classes, or the first of many."""
    more = len(labels) - LABELS_SHOWN
    shown = ", ".join(_plain(label) for label in labels[:LABELS_SHOWN])
    return f"Labels: {shown}" if more <= 0 else f"{len(labels)} labels: {shown} and {more} more in `labels.json`"
