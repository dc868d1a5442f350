"""Small wheels, and indexes of them as folders, for tests of what comes from the package index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def wheel(folder: Path, name: str, content: dict[str, bytes]) -> dict[str, str]:
    """Writes a wheel of version 1.0 that wants to be run and to bring others along; returns its pin."""
    stem = name.replace("-", "_")
    path, info = folder / f"{stem}-1.0-py3-none-any.whl", f"{stem}-1.0.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-package==9\n"
    known = {
        f"{stem}/__init__.py": b"raise SystemExit('run')\n",
        f"{info}/METADATA": about.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in {**known, **content}.items():
            archive.writestr(zipfile.ZipInfo(entry), data)  # of one time, so that one content has one digest
    return {"requirement": f"{name}==1.0", "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def index(folder: Path, wheels: list[Path], *, sums: bool) -> str:
    """The address of a package index of these wheels, made in `folder`; `sums`: its pages give their sha256."""
    for path in wheels:
        page = folder / path.name.split("-1.0-")[0].replace("_", "-")
        page.mkdir(parents=True)
        (page / path.name).write_bytes(path.read_bytes())
        digest = f"#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}" if sums else ""
        (page / "index.html").write_text(f'<!doctype html><a href="{path.name}{digest}">{path.name}</a>')
    return folder.as_uri()
