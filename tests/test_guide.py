"""What CONTRIBUTING.md shows is code that works."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import yaml
from conftest import ROOT

from optim.common import build
from optim.cut import vocabulary


def test_the_method_of_the_guide_is_one_in_ten_lines(monkeypatch):
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code, config = (re.findall(rf"```{kind}\n(.*?)```", guide, re.DOTALL)[0] for kind in ("python", "yaml"))
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    monkeypatch.setitem(build._registered, "vocab", dict(build.methods("vocab")))
    exec(code, dict(vars(vocabulary)))
    made = build.build(yaml.safe_load(config), "vocab")
    words = SimpleNamespace(needed=lambda: {0, 4})
    made.check(words)
    assert made.keep(words, np.array([0, 1, 2, 3, 0])) == [0, 2, 3, 4]
