"""The .tflite runtime on files whose logits are known by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_tflite import IDS_AND_COUNT, write_table_file

from optim.common.errors import UserError
from optim.common.screen import without_chatter
from optim.measure.runtime import Classifier


@pytest.fixture(scope="module")
def table_file(tmp_path_factory):
    return write_table_file(tmp_path_factory.mktemp("runtime") / "table.tflite", IDS_AND_COUNT)


def test_logits_bind_ids_and_mask_by_name(table_file):
    # 3 + 4 + 5 = 12, three tokens; swapped, both logits would be 12.
    logits = Classifier(table_file, 1).logits(np.array([3, 4, 5], np.int32))
    assert logits.dtype == np.float32
    assert logits.tolist() == [12, 3]


def test_positional_order_of_the_file_is_not_the_order_of_the_names(table_file):
    """The trap is real: the file's own first input is the mask."""
    from ai_edge_litert.interpreter import Interpreter

    first = min(Interpreter(str(table_file)).get_input_details(), key=lambda details: details["index"])
    assert "attention_mask" in first["name"]


def test_logits_follow_every_change_of_length(table_file):
    classifier = Classifier(table_file, 1)
    for length in (5, 1, 128, 128, 7):
        ids = np.arange(length) % 50
        assert classifier.logits(ids).tolist() == [ids.sum(), length]


def test_logits_are_a_copy_that_the_next_call_leaves_alone(table_file):
    classifier = Classifier(table_file, 1)
    first = classifier.logits(np.array([3]))
    classifier.logits(np.array([9]))
    assert first.tolist() == [3, 1]


def test_classes_counts_the_logits(table_file):
    assert Classifier(table_file, 2).classes == 2


@pytest.mark.parametrize("ids", [np.zeros(0, np.int32), np.zeros((2, 3), np.int32)])
def test_no_row_of_tokens_is_refused(table_file, ids):
    with pytest.raises(UserError, match=r"at least one token"):
        Classifier(table_file, 1).logits(ids)


def test_id_beyond_the_vocabulary_is_refused_and_does_not_spoil_the_next(table_file):
    classifier = Classifier(table_file, 1)
    with pytest.raises(UserError, match=r"ids up to 50.*vocabulary"):
        classifier.logits(np.array([3, 50]))
    assert classifier.logits(np.array([3, 49])).tolist() == [52, 2]


@pytest.mark.parametrize(
    ("threads", "said"), [(0, "must be above 0"), (9_999_999_999, "must be at most 1,024, got 9,99")]
)
def test_threads_must_be_what_an_interpreter_can_have(table_file, threads, said):
    with pytest.raises(UserError, match=f"threads {said}"):
        Classifier(table_file, threads)


@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(1000), b"\x1c\0\0\0TFL3" + bytes(100)])
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "broken.tflite"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken.tflite is not a .tflite file") as error:
        Classifier(path, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_file_is_refused(table_file, tmp_path, share):
    path = tmp_path / "cut.tflite"
    content = table_file.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut.tflite is not a .tflite file"):
        Classifier(path, 1)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no such .tflite file"):
        Classifier(tmp_path / "nowhere.tflite", 1)


def test_other_input_names_are_refused(tmp_path):
    path = write_table_file(tmp_path / "names.tflite", IDS_AND_COUNT, inputs=("ids", "mask"))
    with pytest.raises(UserError, match=r"must take input_ids and attention_mask.*it takes ids int32.*mask int32"):
        Classifier(path, 1)


def test_other_output_name_is_refused(tmp_path):
    path = write_table_file(tmp_path / "output.tflite", IDS_AND_COUNT, output="scores")
    with pytest.raises(UserError, match=r"must return logits.*it returns scores float32"):
        Classifier(path, 1)


def test_runtime_imports_no_tensorflow_and_says_nothing(table_file):
    code = (
        "import sys, pathlib, numpy; from optim.measure.runtime import Classifier\n"
        f"print(Classifier(pathlib.Path({str(table_file)!r}), 1).logits(numpy.array([3, 4])).tolist())\n"
        "print([m for m in ('tensorflow', 'transformers', 'tf_keras') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines() == ["[7.0, 2.0]", "[]"]
    assert child.stderr == ""


def test_without_chatter_drops_info_lines_only(capfd):
    with without_chatter():
        os.write(2, b"INFO: Created a delegate.\nERROR: something else\n")
    os.write(2, b"INFO: later\n")
    assert capfd.readouterr().err == "ERROR: something else\nINFO: later\n"


def test_without_chatter_gives_stderr_back_after_an_error(capfd):
    with pytest.raises(KeyError), without_chatter():
        raise KeyError
    print("still here", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "still here\n"


def test_integer_logits_come_back_as_what_they_stand_for(tmp_path, monkeypatch):
    """Scale 0.5, zero point -3: the int8 logits 1 and -9 stand for 2 and -3."""
    from optim.measure import runtime

    class Runner:
        quantization = (0.5, -3)

        def get_input_details(self):
            return {name: {"dtype": np.int32, "shape": np.array([1, 1])} for name in runtime.INPUTS}

        def get_output_details(self):
            return {"logits": {"dtype": np.int8, "shape": np.array([1, 2]), "quantization": self.quantization}}

        def __call__(self, **inputs):
            return {"logits": np.array([[1, -9]], np.int8)}

    class Interpreter:
        def __init__(self, **options):
            pass

        def get_signature_runner(self):
            return Runner()

    (tmp_path / "model.tflite").write_bytes(b"any")
    monkeypatch.setattr("ai_edge_litert.interpreter.Interpreter", Interpreter)
    logits = Classifier(tmp_path / "model.tflite", 1).logits(np.array([3]))
    assert logits.dtype == np.float32
    assert logits.tolist() == [2, -3]
    monkeypatch.setattr(Runner, "quantization", (0.0, 0))
    with pytest.raises(UserError, match=r"must return logits.*it returns logits int8"):
        Classifier(tmp_path / "model.tflite", 1)
