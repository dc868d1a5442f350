"""What people get of a result: its table on the screen, the bundle that ships, and the model card in it."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optim.common.files import temporary_folder, write_text
from optim.common.screen import beside
from optim.common.secrets import masked
from optim.common.text import markdown
from optim.encoder.licence import sentence
from optim.export.bundle import BUNDLE, COMPRESSED_FILE, MODEL_FILE, snippet
from optim.export.choice import row_text
from optim.measure.quality import SIGNIFICANT
from optim.run.errors_text import errors_section
from optim.run.result import FILE, Result, removed

LABELS_SHOWN = 10  # in the model card; labels.json has all


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
        _put(part, folder / BUNDLE)
    return folder / BUNDLE / "README.md"


def write_card(result: Result, folder: Path) -> None:
    """Writes the model card of a bundle that is there anew."""
    write_text(folder / BUNDLE / "README.md", masked(card(result)))


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
    predict = f'python -m optim.predict {shlex.quote(str(folder / BUNDLE))} "a charming film"'
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


def _named(labels: list[str]) -> str:
    """The classes, or the first of many."""
    more = len(labels) - LABELS_SHOWN
    shown = ", ".join(markdown(label) for label in labels[:LABELS_SHOWN])
    return f"Labels: {shown}" if more <= 0 else f"{len(labels)} labels: {shown} and {more} more in `labels.json`"
