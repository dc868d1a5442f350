"""Files as they ship: packed and unpacked again, and what is no packed file."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim.common.errors import UserError
from optim.export.bundle import COMPRESSED_FILE, MODEL_FILE, model_in
from optim.export.compress import Export, compress, content_of, decompress
from optim.measure.file import decompress_p50_ms, sizes


@given(st.binary(max_size=2000), st.integers(1, 22))
def test_what_is_unpacked_is_what_was_packed(tmp_path_factory, content, level):
    path = tmp_path_factory.mktemp("z") / "a.zst"
    path.write_bytes(compress(content, level=level))
    assert decompress(path) == content == content_of(path)
    assert compress(content, level=level) == path.read_bytes(), "the same bytes every time"


def test_zeros_pay_once_the_file_is_compressed(tmp_path):
    """Random bytes cannot be packed; with half of them zero they take less than two thirds, by a high level no more."""
    dense = np.random.default_rng(0).integers(1, 255, 100_000).astype(np.uint8)
    pruned = dense * (np.random.default_rng(1).random(100_000) < 0.5)
    (tmp_path / "dense").write_bytes(dense.tobytes())
    (tmp_path / "pruned").write_bytes(pruned.tobytes())
    whole, half = sizes(tmp_path / "dense"), sizes(tmp_path / "pruned")
    assert whole["file_bytes"] == half["file_bytes"] == 100_000
    assert whole["zstd_bytes"] > 99_000
    assert half["zstd_bytes"] < 70_000
    assert len(compress(pruned.tobytes(), level=19)) <= half["zstd_bytes"]
    assert half["zstd_bytes"] == len(compress(pruned.tobytes(), level=3))


@pytest.mark.parametrize("keep", [0, 5, 900])
def test_a_file_that_is_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "model.tflite.zst"
    path.write_bytes(compress(np.random.default_rng(0).bytes(1000), level=3)[:keep])
    with pytest.raises(UserError, match=r"model\.tflite\.zst is not a whole zstd file"):
        decompress(path)


def test_a_bit_that_flipped_is_noticed(tmp_path):
    path, packed = tmp_path / "a.zst", bytearray(compress(np.random.default_rng(0).bytes(1000), level=3))
    packed[500] ^= 1
    path.write_bytes(packed)
    with pytest.raises(UserError, match="not a whole zstd file"):
        decompress(path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match="pip install zstandard"):
        decompress(tmp_path / "a.zst")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"compress": "gzip"}, "export.compress must be none or zstd, got 'gzip'"),
        ({"zstd_level": 0}, "export.zstd_level must be from 1 to 22, got 0"),
        ({"zstd_level": 23}, "export.zstd_level must be from 1 to 22, got 23"),
    ],
)
def test_unfit_settings_are_named(values, said):
    with pytest.raises(UserError, match=said):
        Export(**{"compress": "zstd", "zstd_level": 19, **values})


def test_the_file_of_a_bundle_is_the_plain_one_where_both_are_there(tmp_path):
    assert model_in(tmp_path).name == MODEL_FILE, "what is missing then"
    (tmp_path / COMPRESSED_FILE).write_bytes(b"")
    assert model_in(tmp_path).name == COMPRESSED_FILE
    (tmp_path / MODEL_FILE).write_bytes(b"")
    assert model_in(tmp_path).name == MODEL_FILE


def test_unpacking_is_timed_in_milliseconds(tmp_path, monkeypatch):
    """A stand-in that takes 20 ms; once it takes long, which is no median."""
    import time

    from optim.measure import file

    naps = iter([0.2, *[0.02] * 20])
    monkeypatch.setattr(file, "decompress", lambda path: time.sleep(next(naps)))
    assert 20 <= decompress_p50_ms(tmp_path) < 60
