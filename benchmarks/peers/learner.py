"""One fit in a process of its own, which makes so many steps when it is asked to and stands still between.

Started by benchmarks/peers/training.py, by the Python of this project for `ours`, by that of requirements.txt for
`trainer`:

python learner.py KIND SPEC      SPEC: the keyword arguments of the function of that kind, as JSON

{"steps": 100} -> {"seconds": 31.0, "busy": 58.0, "loss": 0.41}
    busy: seconds of all processors; loss: the mean of about the last 50 steps
               -> {"ended": true}      where the fit has fewer
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

LAST = 50  # steps: `Fit` tells the mean loss of so many


class Ended(Exception):
    """Nobody asks for more steps."""


class Turns:
    """Where a fit waits for its turn: the bar of this project's fit, and what the callback of the Trainer calls."""

    def __init__(self, asked: TextIO, told: TextIO) -> None:
        self.asked, self.told = asked, told
        self.wanted, self.done, self.start, self.busy, self.loss = 0, 0, 0.0, 0.0, 0.0

    def say(self, **answer: object) -> None:
        """One line."""
        print(json.dumps(answer), file=self.told, flush=True)

    def reset(self, total: int) -> None:
        """Called before the first step."""
        self.say(ready=True, total=total)
        self._wait()

    def update(self, steps: int) -> None:
        """Called after each step, and once for those before the first one, which are none."""
        self.done += steps
        if steps and self.done == self.wanted:
            busy = time.process_time() - self.busy
            self.say(seconds=time.perf_counter() - self.start, busy=busy, loss=self.loss)
            self._wait()

    def _wait(self) -> None:
        line = self.asked.readline()
        if not line:
            raise Ended
        self.wanted, self.done = json.loads(line)["steps"], 0
        self.start, self.busy = time.perf_counter(), time.process_time()


def ours(turns: Turns, *, words: list[str], checkpoint: str, tokens: str, scratch: str, batches: str | None,
         count: int) -> None:  # fmt: skip
    """This project's own loop, with the methods that `words` of train.py name.

    batches: a file for the first `count` batches of the fit, ids and masks and labels, for others to learn from.
    """
    from optim.data.tokens import Tokens, pad
    from optim.encoder.tensorflow import prepare_tensorflow
    from optim.run.compose import composed
    from optim.run.point import point_of

    prepare_tensorflow()
    import tf_keras as keras

    from optim.encoder import checkpoint as weights
    from optim.encoder import graph
    from optim.encoder.architecture import read_config
    from optim.train.fit import Fit, FitSettings, Journal, Task

    point, learnt = point_of(composed(words).cfg), Tokens.load(Path(tokens))
    shape = read_config(Path(checkpoint), pooling=point.checkpoint.pooling, classes=2)
    keras.utils.set_random_seed(point.seed)
    model = graph.classifier(shape, bfloat16=point.schedule.precision == "bfloat16")
    weights.load(model, shape, Path(checkpoint) / "model.safetensors")
    # What is stored of a teacher is made up here: a step costs the same, whatever it says.
    said = np.eye(2, dtype=np.float32)[learnt.labels][:, None] * 4 - 2 if point.loss.needs_logits else None
    task = Task(model=model, tokens=learnt, loss=point.loss, wrappers=point.wrappers, teacher_logits=said)
    recipe = replace(point.schedule.teacher_of(point.checkpoint.name), batch_size=64)
    settings = FitSettings(recipe=recipe, schedule=point.schedule, seed=point.seed, holdout_seed=point.seed)

    def on_row(row: dict[str, float]) -> None:
        turns.loss = row.get("loss", turns.loss)

    fit = Fit(task, settings, Journal(scratch=Path(scratch), on_row=on_row, bar=turns))
    if batches:
        drawn = fit._batches(0)[:count]
        padded = [(*pad(learnt, rows), learnt.labels[rows]) for rows in drawn]
        named = {f"{name}{i}": part for i, one in enumerate(padded)
                 for name, part in zip(("ids", "mask", "labels"), one, strict=True)}  # fmt: skip
        np.savez(batches, **named)  # type: ignore[arg-type]
    fit.run()


def trainer(turns: Turns, *, checkpoint: str, batches: str, scratch: str, total: int, rate: float, weight_decay: float,
            warmup: float, threads: int, bf16: bool) -> None:  # fmt: skip
    """transformers' Trainer on the CPU; its batches are padded before it starts, as `ours` pads them."""
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(threads)
    with np.load(batches) as saved:
        names = {"ids": "input_ids", "mask": "attention_mask", "labels": "labels"}
        prepared = [{name: torch.from_numpy(saved[f"{short}{i}"]).long() for short, name in names.items()}
                    for i in range(len(saved.files) // len(names))]  # fmt: skip

    class OnlyTrainer(Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(prepared, batch_size=None)  # type: ignore[arg-type]

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            turns.loss = statistics.fmean(losses[-LAST:])
            return loss

    class InTurns(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            turns.reset(total)

        def on_step_end(self, *args, **kwargs):
            turns.update(1)

    losses: list[float] = []
    arguments = TrainingArguments(
        output_dir=scratch, use_cpu=True, bf16=bf16, max_steps=total, per_device_train_batch_size=64,
        learning_rate=rate, weight_decay=weight_decay, warmup_steps=round(total * warmup), lr_scheduler_type="linear",
        max_grad_norm=1.0, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    OnlyTrainer(model=model, args=arguments, train_dataset=prepared, callbacks=[InTurns()]).train()  # type: ignore[arg-type]


KINDS = {"ours": ours, "trainer": trainer}


def main() -> None:
    """Learns until stdin ends."""
    kind, spec = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    turns = Turns(sys.stdin, told)
    with suppress(Ended):
        KINDS[kind](turns, **json.loads(spec))
        turns.say(ended=True)
        sys.stdin.read()  # there still, so that it can be weighed


if __name__ == "__main__":
    main()
