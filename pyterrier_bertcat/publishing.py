"""The re-ranker's methods that check, save and upload its checkpoint."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyterrier_bertcat.checkpoints import Checkpoint
    from pyterrier_bertcat.verification import Verification


class Publishes:
    """A mixin for ``BertCatReRanker``, whose options and checkpoint it uses."""

    dtype: str

    @property
    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Model and tokenizer."""

    @abstractmethod
    def _scorer_options(self) -> dict[str, Any]:
        """The options that scoring has."""

    def verify(self, *, known: Sequence[tuple[str, str, float]] | None = None, tolerance: float = 1e-3) -> Verification:
        """Scores the checkpoint's known examples, in float32 unless ``dtype`` says otherwise, and compares.

        Args:
            known: Query, text and score of each known answer. None: those that come with the checkpoint.
            tolerance: The largest difference that counts as the same; half precision needs a larger one.

        Returns:
            A report with each score and what was expected.

        Raises:
            CheckpointError: a score differs by more, or nothing is known about this checkpoint.
        """
        from pyterrier_bertcat.engine import scorer_for
        from pyterrier_bertcat.verification import verify_checkpoint

        options = {**self._scorer_options(), "dtype": "float32" if self.dtype == "auto" else self.dtype}
        scorer = scorer_for(self.checkpoint, **options, verbose=False)
        return verify_checkpoint(self.checkpoint, scorer.score, known=known, tolerance=tolerance)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Writes what ``model=`` reads: safetensors, a self-contained config and the tokenizer; returns the folder."""
        from pyterrier_bertcat.checkpoints import save_checkpoint

        return save_checkpoint(self.checkpoint, Path(folder))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Uploads what ``model=`` reads to a repository of the Hugging Face hub; returns the commit's address.

        Args:
            repo_id: ``"owner/model"``; made if it does not exist.
            private: Whether a new repository is private. None: as the owner's settings say.
            token: Access token. None: the one that this machine is logged in with.
            revision: The branch to write to, made if it does not exist. None: the main branch.
            commit_message: None: one that names this package.

        Raises:
            CheckpointError: the model can't be loaded, or the hub can't be reached or refuses.
        """
        from pyterrier_bertcat.checkpoints import push_checkpoint

        return push_checkpoint(
            self.checkpoint, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )
