"""`sweep=publish`: the bundle of a run, with its card, on the Hugging Face hub."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from optim.common import hub
from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import first_line
from optim.encoder.licence import licence_of
from optim.export.bundle import BUNDLE, COMPRESSED_FILE, MODEL_FILE
from optim.run import result
from optim.run.result import Result
from optim.sweep.settings import Settings

REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
CARD = "README.md"
TAGS = ("litert", "tflite", "distilbert-optim")
log = logging.getLogger("optim")


@method("sweep", "publish")
@dataclass(frozen=True, kw_only=True)
class Publish:
    """One bundle on the hub, in a repository that is made if it is not there."""

    private: bool
    licence: str | None  # SPDX identifier, where none is known of the weights

    reads: ClassVar = ()
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Sends the files of the bundle; with dry_run it only says which."""
        found, folder = _finished(settings)
        repo = _repository(settings.repo)
        head = self._head(found)
        with tempfile.TemporaryDirectory() as name:
            staged = Path(name) / BUNDLE
            shutil.copytree(folder / BUNDLE, staged)
            card = (staged / CARD).read_text(encoding="utf-8")
            (staged / CARD).write_text(f"{head}{card}", encoding="utf-8")
            files = sorted(path for path in staged.rglob("*") if path.is_file())
            listed = "\n".join(f"  {path.relative_to(staged)}, {path.stat().st_size:,} bytes" for path in files)
            if settings.dry_run:
                print(f"Would go to {hub.hub_endpoint()}/{repo}:\n{listed}\n\n{head}")
                return 0
            print(f"{_sent(staged, repo, private=self.private, message=f'Run {found.run_id}')}\n{listed}")
        return 0

    def _head(self, found: Result) -> str:
        """The head of the card, which the hub reads. Raises UserError where no licence is known."""
        import yaml

        known, source = licence_of(found.cfg["model"])
        licence = self.licence or known
        if licence is None:
            raise UserError(
                f"No licence is known of the weights that this run started from ({source}). Look it up, and name it: "
                "sweep.licence=SPDX, as apache-2.0."
            )
        fields: dict[str, Any] = {
            "license": licence.lower(),
            "library_name": "tflite",
            "pipeline_tag": "text-classification",
            "tags": list(TAGS),
            "metrics": ["accuracy"],
        }
        return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _finished(settings: Settings) -> tuple[Result, Path]:
    """The finished run that the settings name, and its folder."""
    if settings.run is None:
        raise UserError("run is missing: sweep=publish run=ID, the name of a folder in results_dir.")
    folder = settings.results_dir / settings.run
    found = result.read(folder)
    if found is None:
        raise UserError(
            f"run={settings.run}: {folder} holds no finished run of this version. See sweep.py sweep=report."
        )
    return found, folder


def _repository(repo: str | None) -> str:
    if repo is None or not REPO.fullmatch(repo):
        raise UserError(f"repo must be OWNER/NAME, or NAME for the owner of the token, got {repo!r}.")
    return repo


def _sent(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Sends the files of a folder in one commit; the address of the repository."""
    if hub.hub_is_off():
        raise UserError(
            f"{hub.offline_by()} is set, so nothing can be published. Unset it, or look with sweep.dry_run=true."
        )
    from huggingface_hub import HfApi, get_token

    if (token := get_token()) is None:
        raise UserError("The hub wants a token: set HF_TOKEN, or run `hf auth login` once.")
    api = HfApi(endpoint=hub.hub_endpoint(), token=token)
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        # A repository that is there already stays as open as it is, whatever was asked for.
        if private and not api.model_info(made.repo_id).private:
            raise UserError(
                f"sweep.private=true: {made} is there already, and public. Make it private on its page, or name "
                "another repo=."
            )
        log.info("Sending the bundle to %s", made)
        # The file of an earlier run, compressed or not, would lie beside this one's and be taken for it.
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message,
                          delete_patterns=[MODEL_FILE, COMPRESSED_FILE])  # fmt: skip
    except UserError:
        raise
    except Exception as error:  # of the hub's client and of its HTTP library
        raise UserError(
            f"repo={repo}: the hub took it not ({first_line(error)}). May this token write there?"
        ) from error
    return str(made)
