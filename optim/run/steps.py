"""The way of one point, from sentences to figures, as a list of steps; each is a stage of the cache.

    corpus -> tokens -> teachers -> (their answers) -> student
    corpus -> tokens -> the student's own fine-tuning -> (its table) -> (surgery) -> student
    corpus, or a file -> (sentences without labels) -> tokens -> teachers' answers -> student
    student -> float32 file -> (tables, or files of candidates) -> file -> figures
    file -> (compressed file)

A step (`run/step.py`) says what it takes, what its content depends on, and what it leaves. A new one is a class
beside those it is like (`fits.py`, `tables.py`, `exports.py`, `transfer.py`, ...) and a line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optim.common.errors import UserError
from optim.common.files import require_disk
from optim.common.stages import Wanted
from optim.data.alignment import read_vocabulary
from optim.data.corpus import Corpus
from optim.data.tokens import LENGTHS
from optim.encoder.architecture import class_names
from optim.encoder.kernels import prunable_shapes
from optim.run.alignment import AlignmentStep, require_alike
from optim.run.exports import CandidatesStep, CompressedStep, FigureStep, FileStep
from optim.run.fits import FitStep, LogitsStep, TokensStep, Transfer
from optim.run.keys import loss_key, rounding_key
from optim.run.latency_model import LatencyStep
from optim.run.point import Point, Teacher
from optim.run.starts import TOKENIZER, FromCheckpoint, FromStep, Start
from optim.run.step import Step
from optim.run.surgery import SurgeryStep, shape_before
from optim.run.tables import Float32Step
from optim.run.transfer import AugmentedStep, TextsStep, TransferTokensStep, UnlabelledStep
from optim.train.distill import SAME, HardLabels
from optim.train.inner import Inner

LABELS = {"method": "hard_labels", "version": 1}  # the loss of a fine-tuning, in its key


@dataclass(frozen=True)
class Steps:
    """The steps of one point by what they are to it."""

    teachers: Sequence[FitStep]
    student: FitStep
    file: FileStep
    figures: FigureStep
    compressed: CompressedStep | None  # of a point whose file ships compressed

    def all(self) -> list[Step]:
        """Every step once, in the order in which they are made."""
        ordered: dict[str, Step] = {}

        def visit(step: Step) -> None:
            for needed in step.inputs():
                visit(needed)
            ordered.setdefault(step.wanted.key, step)

        first: list[Step] = [one.texts for one in self.student.transfer]  # a file may be refused, and so may words
        first += [*self._latencies(), *(step for step in self.student.alignments if step)]
        packed = [self.compressed] if self.compressed else []
        for last in (*first, self.teachers[0], self.figures, *packed):
            visit(last)
        return list(ordered.values())

    def _latencies(self) -> list[Step]:
        """What is timed before anything is trained: a budget may be too small."""
        start = self.student.start
        cut = start.step if isinstance(start, FromStep) else None
        return [cut.latency] if isinstance(cut, SurgeryStep) and cut.latency else []

    def wanted(self) -> list[Wanted]:
        """The stages that all of them leave, before any is made."""
        return [step.wanted for step in self.all()]


# Of disk for each parameter: weights, two moments and the best weights, float32 each, beside those saved before.
SAVED_BYTES = 2 * 4 * 4


def steps_of(point: Point, corpus: Corpus, cache_dir: Path) -> Steps:
    """The steps. Raises UserError for methods that do not go together, and for sentences too long for a model."""
    teachers = [_teacher(point, teacher, corpus, cache_dir) for teacher in point.teachers]
    student = _student(point, teachers, corpus, cache_dir)
    file = _file(point, Float32Step(student))
    _require_positions(point, student, teachers)
    for step in (*teachers, student):
        step.trained(shape_before(step))  # it raises where the recipe does not suit the model
    compressed = CompressedStep(point, file) if point.export.compresses else None
    return Steps(teachers, student, file, FigureStep(point, file), compressed)


def require_room(steps: Sequence[Step], cache_dir: Path) -> None:
    """Raises UserError, before anything is trained, if the disk has no room for what a missing fit saves on its way."""
    for step in steps:
        if isinstance(step, FitStep) and step.wanted.at_hand(cache_dir) is None:
            needed = SAVED_BYTES * shape_before(step).parameters
            require_disk(cache_dir, needed, f"the {step.kind} {step.model_name}", "while it is fitted")


def other_classes(steps: Sequence[Step], corpus: Corpus) -> list[str]:
    """A line for each model whose checkpoint brings a classifier of other classes, or of the same in another order."""
    starts = [step.start for step in steps if isinstance(step, FitStep) and isinstance(step.start, FromCheckpoint)]
    lines, here = [], [name.casefold() for name in corpus.label_names]
    for start in starts:
        own = class_names(start.folder)
        if own and [name.casefold() for name in own] != here:
            lines.append(
                f"model={start.checkpoint.name}: its checkpoint tells {_some(own)} apart, data={corpus.name} has "
                f"{_some(corpus.label_names)}. It is fine-tuned on these data; its own classifier is of no use here."
            )
    return list(dict.fromkeys(lines))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _require_positions(point: Point, student: FitStep, teachers: Sequence[FitStep]) -> None:
    """Raises UserError for sentences longer than a model has positions, before anything is trained.

    All models read the sentences of the data, in batches whose length LENGTHS divides; what is timed is the student's
    file alone.
    """
    models = {"the model": shape_before(student), **{f"the teacher {t.model_name}": shape_before(t) for t in teachers}}
    lengths = [("data.max_length", point.source.max_length, name, LENGTHS) for name in models]
    for setting, length, name, step in (
        ("bench.sequence_length", point.bench.sequence_length, "the model", 1),
        *lengths,
    ):
        most = models[name].position_count // step * step
        if length > most:
            raise UserError(f"{setting} must be at most {most}, the positions of {name}, got {length}.")


def _file(point: Point, float32: Float32Step) -> FileStep:
    """What ships; where that is one of several candidates, with their files and what those do."""
    files = {}
    for name, one in point.candidates().items():
        try:
            files[name] = FileStep(one, float32)
        except UserError as error:
            raise UserError(f"quant.candidates has {name}, which cannot be made here: leave it out. {error}") from error
    return FileStep(point, float32, CandidatesStep(point, float32, files) if files else None)


def _teacher(point: Point, teacher: Teacher, corpus: Corpus, cache_dir: Path) -> FitStep:
    """A checkpoint, fine-tuned on the labels by a seed of its own: nothing of the student is in it."""
    start = FromCheckpoint(teacher.checkpoint, cache_dir)
    tokens = TokensStep(corpus, start, point.source.max_length)
    seeded = replace(point, seed=teacher.seed)
    return FitStep("teacher", seeded, tokens, start, recipe=point.schedule.teacher_of(teacher.checkpoint.name),
                   loss=HardLabels(teachers=(), teacher_seeds=()), loss_spec=LABELS)  # fmt: skip


def _student(point: Point, teachers: Sequence[FitStep], corpus: Corpus, cache_dir: Path) -> FitStep:
    """What is pruned, distilled and exported; the teacher itself where nothing is to be done to it."""
    texts = _unlabelled_texts(point, corpus, cache_dir)
    running = _running(point, teachers)
    _require_shapes(point, running, cache_dir)
    if is_its_teacher(point):
        return teachers[0]
    start = _student_start(point, teachers, corpus, cache_dir)
    _require_kernels(point, corpus, cache_dir)
    tokens = TokensStep(corpus, start, point.source.max_length)
    _require_alike(point, running, corpus, cache_dir)
    transfer = _transfer(point, texts, start, teachers)
    specs = [point.specs["prune"]] if point.pruner.changes else []
    specs += [rounding_key(point.specs["quant"])] if point.quantizer.wrappers else []
    return FitStep("student", point, tokens, start, recipe=point.schedule.student, loss=point.loss,
                   loss_spec=loss_key(point.specs["distill"]), wrappers=point.wrappers, wrapper_specs=specs,
                   answers=[LogitsStep(t) for t in teachers], teachers=running,
                   transfer=transfer, alignments=[_alignment(tokens, one, transfer) for one in running],
                   holdout_seed=point.teachers[0].seed if point.starts_fitted else None)  # fmt: skip


def untaught(point: Point, corpus: Corpus, cache_dir: Path) -> FitStep:
    """What `distill=none` makes of the same settings and seed: the fit without its teachers.

    Of a student to which nothing else is done it is its own fine-tuning, the step that it would be as a teacher; of a
    pruned or cut one, its own fine-tuning treated alike under the labels alone.
    """
    own = Teacher(point.checkpoint, point.teachers[0].seed if point.starts_fitted else point.seed)
    loss = HardLabels(teachers=(SAME,), teacher_seeds=(own.seed,))
    specs = {**point.specs, "distill": LABELS}
    plain = replace(point, loss=loss, teachers=(own,), specs=specs, augment=None, unlabelled=None)
    return steps_of(plain, corpus, cache_dir).student


def is_its_teacher(point: Point) -> bool:
    """Whether nothing is to be done to the fine-tuned model: no cut, no wrapper, no teacher or sentence beside it."""
    if point.augment is not None or point.unlabelled is not None:
        return False
    taught = len(point.teachers) > 1 and (point.loss.needs_logits or point.loss.needs_models)
    return point.self_taught and not (taught or point.surgery.changes or point.wrappers)


def _unlabelled_texts(point: Point, corpus: Corpus, cache_dir: Path) -> list[TextsStep]:
    """The sentences beside train that only the teachers answer; they are made by the words that the first one knows."""
    texts: list[TextsStep] = []
    if point.augment is not None:
        texts.append(AugmentedStep(corpus, point.augment, FromCheckpoint(point.teachers[0].checkpoint, cache_dir)))
    if point.unlabelled is not None:
        texts.append(UnlabelledStep(corpus, point.unlabelled))
    return texts


def _transfer(point: Point, texts: Sequence[TextsStep], start: Start, teachers: Sequence[FitStep]) -> list[Transfer]:
    """They in the student's tokens, and in each teacher's own with its answers."""
    length = point.source.max_length
    return [
        Transfer(text, TransferTokensStep(text, start, length),
                 [LogitsStep(t, TransferTokensStep(text, t.start, length)) for t in teachers])
        for text in texts
    ]  # fmt: skip


def _student_start(point: Point, teachers: Sequence[FitStep], corpus: Corpus, cache_dir: Path) -> Start:
    """The fine-tuned teacher, what was cut out of the student's own fine-tuning, or a checkpoint of its own."""
    if point.surgery.changes:
        return _cut_start(point, teachers, corpus, cache_dir)
    if not point.self_taught:
        return FromCheckpoint(point.checkpoint, cache_dir)
    return FromStep(teachers[0], words=teachers[0].start)


def _cut_start(point: Point, teachers: Sequence[FitStep], corpus: Corpus, cache_dir: Path) -> Start:
    """What the surgery leaves of the student's fine-tuning: the first teacher itself, or one by the teacher's seed.

    By that seed, so that students that share a teacher share what they are cut from.
    """
    own = teachers[0]
    if not point.self_taught:
        own = _teacher(point, Teacher(point.checkpoint, point.teachers[0].seed), corpus, cache_dir)
    start = FromCheckpoint(point.checkpoint, cache_dir)
    shape = start.architecture(len(corpus.label_names))
    point.surgery.check(shape, start.folder / TOKENIZER, lambda: own.tokens.train_now().ids)
    latency = LatencyStep(point, own.tokens, shape, point.surgery) if point.surgery.needs_latency else None
    return FromStep(SurgeryStep(point.surgery, own, latency), words=None if point.surgery.cuts_words else own.start)


def _require_kernels(point: Point, corpus: Corpus, cache_dir: Path) -> None:
    """Raises UserError for a pruning that the kernels are not made for; of a budget, for all that it may leave."""
    if point.pruner.changes:
        shape = FromCheckpoint(point.checkpoint, cache_dir).architecture(len(corpus.label_names))
        for left in (point.surgery.after(shape), point.surgery.least(shape)):
            point.pruner.require(prunable_shapes(left))


def _running(point: Point, teachers: Sequence[FitStep]) -> Sequence[FitStep]:
    """The teachers that run in the student's step: all, or the first where the answers of all are stored."""
    if not point.loss.needs_models:
        return ()
    return teachers[:1] if point.loss.needs_logits else teachers


def _require_shapes(point: Point, running: Sequence[FitStep], cache_dir: Path) -> None:
    """Raises UserError for layers that the loss can't compare, before anything is trained.

    A budget may leave anything between one layer of one head and all: what goes with both goes with all between.
    """
    if not running:
        return
    whole = FromCheckpoint(point.checkpoint, cache_dir).architecture(1)
    others = [Inner.of_shape(one.start.shape(None, 1)) for one in running]  # type: ignore[arg-type]  # a checkpoint's needs no stage
    after, least = point.surgery.after(whole), point.surgery.least(whole)
    point.loss.require_shapes(Inner.of_shape(after), others)
    if least != after:
        try:
            point.loss.require_shapes(Inner.of_shape(least), others)
        except UserError as error:
            raise UserError(f"slim=budget may leave a single layer, and one head of it. {error}") from error


def _require_alike(point: Point, running: Sequence[FitStep], corpus: Corpus, cache_dir: Path) -> None:
    """Raises UserError, before anything is trained, for a cut of words that most sentences need to be read as before.

    What the teacher has all pieces of the model's for: it then cuts a sentence that has lost one otherwise than the
    student does. Sentences made from train are counted later, when they are there; those of a file may be easier.
    """
    if not (running and point.surgery.cuts_words) or point.unlabelled is not None:
        return
    start = FromCheckpoint(point.checkpoint, cache_dir)
    own = read_vocabulary(start.folder / TOKENIZER)
    train = TokensStep(corpus, start, point.source.max_length).train_now()
    shape = start.architecture(len(corpus.label_names))
    left = point.surgery.words_left(shape, start.folder / TOKENIZER, lambda: train.ids)
    for teacher in running:
        other = read_vocabulary(teacher.tokens.start.tokenizer(None))  # type: ignore[arg-type]  # as above
        if own.pieces.keys() <= other.pieces.keys():
            require_alike(teacher.model_name, float(train.made_of(left).mean()), fix="Keep more words, by vocab=; ")


def _alignment(tokens: TokensStep, teacher: FitStep, transfer: Sequence[Transfer]) -> AlignmentStep | None:
    """How a teacher that runs in the student's step reads its tokens; None where it knows the same words."""
    if teacher.tokens.wanted.key == tokens.wanted.key:
        return None
    own, other = tokens.start, teacher.tokens.start
    texts = [(one.tokens, TransferTokensStep(one.texts, other, tokens.max_length)) for one in transfer]
    return AlignmentStep(teacher.model_name, own, other, [(tokens, teacher.tokens), *texts])
