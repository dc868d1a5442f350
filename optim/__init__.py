"""DistilBERT-Optim: the best small text classifier for a device, as a LiteRT file, measured.

    result = optim.run("model=minilm", "data=reviews", "quant=int8")           # the words of train.py; a Result
    table = optim.sweep("prune=none,fixed50", "quant=none,int8").frame()       # those of train.py -m; a DataFrame
    optim.Classifier(f"results/{result.run_id}")("a charming film")["label"]   # needs LiteRT, NumPy, tokenizers alone

The folders are floors. A file imports from its own floor and those below it, never from above; no two files import each
other. `python tests/floors.py`, or `make floors`, shows them and says what breaks the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optim.predict import Classifier as Classifier
    from optim.run.result import Result
    from optim.sweep.here import Swept

    def run(*words: str) -> Result: ...

    def sweep(*words: str) -> Swept: ...

else:  # packages that can be called: optim/run/__init__.py
    from optim import run as run
    from optim import sweep as sweep

__version__ = "0.2.0"

FLOORS = {  # the lowest first
    "common": "errors, files, the cache of stages, the screen, methods by name, what can be reached from here",
    "data": "sentences: from the hub, a package or the user's files; tokens and batches",
    "encoder": "checkpoints, architectures, and the Keras graph that they fill",
    "train": "the one training loop, and what it is handed: losses, masks, the optimizer",
    "cut": "what is removed of a fine-tuned model: layers, heads, columns, hidden units, words",
    "export": "Keras model -> .tflite file in some precision; the bundle that ships",
    "measure": "what a file does: answers, milliseconds, memory, bytes, on which machine",
    "track": "Weights & Biases, in a process of its own",
    "run": "one point: config -> steps -> result.json",
    "report": "many results: what is better, what only looks so, pages and tables",
    "sweep": "many points: plan, run, search, pick, measure again, clean the cache",
    "predict": "classifies sentences with a bundle",
    "serve": "a bundle behind HTTP",
    "command": "the command lines of train.py and sweep.py",
}


def __getattr__(name: str) -> Any:
    """`optim.Classifier`, which is imported when it is asked for: configs are read without it."""
    if name != "Classifier":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from optim.predict import Classifier

    return Classifier
