"""``BertCatReRanker``: the PyTerrier transformer.

It owns the columns, the identity and the pickling; `PairScorer` computes the scores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import join
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import CheckpointError, InputError
from pyterrier_bertcat.identity import Digest, IdentifiedByOptions
from pyterrier_bertcat.model.names import PACKAGED, PIN, PUBLISHED, is_name
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.planning import DEFAULT_BATCH_SIZE
from pyterrier_bertcat.pipeline.depth import first_rows, with_rest_below
from pyterrier_bertcat.pipeline.frames import (
    MissingText,
    extra_columns,
    query_text_pairs,
    ranked,
    row_frame,
    unread_columns,
    with_strings,
)
from pyterrier_bertcat.pipeline.options import check_options
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.statistics import RunStatistics, warn_of_truncation

if TYPE_CHECKING:
    from pyterrier_bertcat.explain.explainer import Explainer, Method
    from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
    from pyterrier_bertcat.model.bert_cat import BertCatModel
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.model.verification import Verification
    from pyterrier_bertcat.pipeline.ensemble import MeanReRanker
    from pyterrier_bertcat.pipeline.plain_texts import RankedText
    from pyterrier_bertcat.pipeline.pyserini import RerankedHit
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer
    from pyterrier_bertcat.store.read_through import ReadThroughScorer
    from pyterrier_bertcat.store.score_store import ScoreStore
    from pyterrier_bertcat.training.options import TrainingOptions

    Row: TypeAlias = "pd.Series[Any] | Mapping[str, Any]"

_PIN_DIGITS = 16
_LABEL_CHARACTERS = 20  # that a schematic has room for


class BertCatReRanker(IdentifiedByOptions, pt.Estimator):  # type: ignore[misc]
    """Scores each query with each of its documents' texts, with a cross-encoder, and re-ranks the documents.

    It reads ``qid``, ``query``, ``docno`` and the text; every other column passes through. It returns the columns of
    the input without ``score`` and ``rank``, then ``score`` (float32: a raw relevance logit, higher is more relevant,
    not a probability) and ``rank`` (0 is best), on a fresh index. Queries stay in order of first appearance, their rows
    best first, and equal scores by docno as in ``pt.Experiment``.

    Before the first row is scored (or `load`), nothing is loaded and torch is not imported.

    Two re-rankers are equal, with equal hash and ``repr``, if all options except ``verbose``, ``store`` and
    ``training`` are equal. Models that are objects are compared by their weights and vocabulary. Options that change
    only the speed and the last bits of a score (batch size, device) count too, so that an experiment can compare them.
    `fit` changes ``model``, and so the identity. Pickles and copies carry the options; weights only if ``model`` is an
    object.

    Source: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", arXiv 2010.02666.

    Example:
        >>> import pandas as pd
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> candidates = pd.DataFrame(
        ...     {
        ...         "qid": ["1", "1"],
        ...         "query": ["how do I copy a directory", "how do I copy a directory"],
        ...         "docno": ["rmtree", "copytree"],
        ...         "text": ["Delete a directory tree.", "Copy a directory tree."],
        ...     }
        ... )
        >>> bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
        >>> bertcat(candidates)[["qid", "docno", "score", "rank"]].round(1)
          qid     docno  score  rank
        0   1  copytree    0.1     0
        1   1    rmtree  -10.4     1
    """

    _not_identity = frozenset({"store", "training", "verbose"})
    # What was loaded, each with the options that it was loaded for. (None of these names is "_" and a parameter's name:
    # pt.inspect would take such an attribute for the parameter.)
    _checkpoint: tuple[tuple[object, object], Checkpoint] | None
    _scorer: tuple[tuple[Checkpoint, ScoringOptions], PairScorer] | None
    _stats: RunStatistics | None

    def __init__(
        self,
        model: str | os.PathLike[str] | BertCatModel | Checkpoint = PUBLISHED,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int | None = None,
        max_length: int | None = None,
        max_query_length: int | None = None,
        truncation: str = "longest_first",
        passages: Passages | None = None,
        depth: int | None = None,
        text_field: str = "text",
        extra_columns: Sequence[str] = (),
        device: str | None = None,
        devices: str | Sequence[str] | None = None,
        dtype: str = "auto",
        backend: str = "torch",
        calibration: Sequence[tuple[str, str]] | None = None,
        revision: str | None = None,
        missing_text: MissingText = "raise",
        store: ScoreStore | str | os.PathLike[str] | None = None,
        training: TrainingOptions | None = None,
        verbose: bool = True,
    ) -> None:
        """Keeps the options, and loads nothing.

        Args:
            model: A hub id, a local folder, ``"mini"`` (the small checkpoint in this package), a `Checkpoint` (model
                and tokenizer), or a `BertCatModel`. The tokenizer of the latter is looked up in the folder that it came
                from, or else under its encoder's name.
            batch_size: A batch holds up to this many pairs of ``max_length`` tokens, or more shorter pairs with as many
                tokens together.
            batch_tokens: The most tokens per batch. None: the fastest choice for the device, within ``batch_size``.
            max_length: The most tokens per pair. Longer pairs are cut. None: the checkpoint's own: as many as it was
                trained with, or else as its tokenizer states (``model_max_length``, if that is below the number of
                positions), or else 512, or all positions if they are fewer. It is decided when weights are loaded.
            max_query_length: The most tokens per query. None: only ``max_length`` limits it.
            truncation: What to cut: ``"longest_first"``, the longer of query and text; ``"only_text"``; or ``"paper"``,
                as the authors trained: queries of 30 tokens, texts of 200, 230 in all. See `Truncation`.
            passages: Cuts documents into passages instead, and aggregates the passages' scores. None: texts are cut.
            depth: Re-ranks only the first ``depth`` rows of each query, by their ``score``. The others get made-up
                scores that only keep them below, in their order: the lowest new score minus 1, minus 2, …
                None: all rows.
            text_field: The column with the documents' text.
            extra_columns: Columns to add before ``score``: ``"truncated"`` (the pair was cut), ``"passages"`` (how many
                were scored), ``"passage"`` (the best one's text), ``"passage_start"`` and ``"passage_end"`` (its
                characters in the document). Rows below ``depth`` get False, 0 and "".
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … None: cuda, then mps or xpu if usable, then cpu.
            devices: Several devices, each with its own process: a list of names as for ``device`` (``"cpu"`` may occur
                several times), or ``"all"``: every GPU, or the CPU if there is none. None: one, as ``device`` says.
            dtype: Precision of the encoder (the last layer is always float32): ``"float32"``, ``"float16"``,
                ``"bfloat16"``, or ``"auto"``, which is float16 on a cuda device that is fast at it, and float32
                elsewhere. OpenVINO takes ``"int8"`` too, but not ``"float16"``.
            backend: The library that computes: ``"torch"``, or ``"openvino"`` (extra ``openvino``; CPUs only;
                DistilBERT, BERT, MiniLM and ELECTRA encoders).
            calibration: For int8: a few hundred (query, text) pairs of the kind that you will score; they needn't be
                relevant. None: the pairs packaged with ``"mini"``, for that model only.
            revision: The branch, tag or commit of a model on the hub; or ``"sha256:"`` and the first digits of a
                checkpoint's fingerprint, which pins a local one (as `fit` does).
            missing_text: If a text is None or NaN, ``"raise"`` raises an error and ``"empty"`` reads an empty text.
            store: A `ScoreStore` or its path. Scores in it are not computed again, and new ones are added; they are
                reused for an equal checkpoint and equal settings only. Excludes ``extra_columns``.
            training: How `fit` trains. None: the defaults of `TrainingOptions`.
            verbose: Shows progress.

        Raises:
            InputError: An option has another type or is outside its range.
        """
        self.model = model
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.max_length = max_length
        self.max_query_length = max_query_length
        self.truncation = truncation
        self.passages = passages
        self.depth = depth
        self.text_field = text_field
        self.extra_columns = extra_columns
        self.device = device
        self.devices = devices
        self.dtype = dtype
        self.backend = backend
        self.calibration = calibration
        self.revision = revision
        self.missing_text = missing_text
        self.store = store
        self.training = training
        self.verbose = verbose
        self._lock = threading.RLock()
        self._forget()
        check_options(self)
        if not is_name(self.model):
            _ = self.checkpoint  # refuses a model object without a tokenizer now, not in the middle of a run

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks a result frame. The class describes its columns and those of the result.

        Raises:
            pt.validate.InputValidationError: A column is missing.
            InputError: A query or text is missing or not a string. The frame is refused before anything is scored.
            CheckpointError: The model can't be loaded.
            ScoreError: The model gave a score that is not finite.
            PairTooLargeError: A single pair does not fit in the device's memory.
            StoreError: The store can't be read or written.
            WorkerError: All processes that score on several devices have ended.
        """
        check_options(self)  # an attribute may have been set since
        needed = ["query", self.text_field] + ["score"] * (self.depth is not None)
        pt.validate.result_frame(inp, extra_columns=needed)
        to_score = np.ones(len(inp), dtype=np.bool_) if self.depth is None else first_rows(inp, self.depth)
        queries, texts = query_text_pairs(inp[to_score], text_field=self.text_field, missing_text=self.missing_text)
        scores, extra = np.empty(0, dtype=np.float32), unread_columns(self.extra_columns, len(inp))
        if queries and self.store is not None:
            stored = self._stored_scorer(self.store)
            scores, self._stats = stored.score(queries, texts), stored.stats
        elif queries:
            scorer = self.scorer
            scored = scorer.score_in_detail(queries, texts)
            scores, self._stats = scored.scores, scorer.stats
            columns = extra_columns(self.extra_columns, scored, texts, scorer.character_ranges)
            for name, values in columns.items():
                extra[name][to_score] = values
        if queries:
            warn_of_truncation(self._stats or RunStatistics(), passages=self.passages, stacklevel=2)
        if self.depth is not None:
            scores = with_rest_below(inp, to_score, scores)
        return ranked(inp, scores, extra=extra)

    def transform_iter(self, inp: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """Re-ranks records, as `transform` does a frame."""
        records = list(inp)
        if not records:
            return []  # a frame without records would lack its columns
        return self.transform(pd.DataFrame(records)).to_dict(orient="records")  # type: ignore[return-value]

    def _stored_scorer(self, store: ScoreStore | str | os.PathLike[str]) -> ReadThroughScorer:
        """A scorer for one frame. It looks for the checkpoint's fingerprint anew, in case the files have changed."""
        from pyterrier_bertcat.store.fingerprints import KnownCheckpoint, known_checkpoint
        from pyterrier_bertcat.store.read_through import ReadThroughScorer
        from pyterrier_bertcat.store.score_store import ScoreStore

        store = store if isinstance(store, ScoreStore) else ScoreStore(store)
        with self._lock:
            if self._checkpoint is not None and self._checkpoint[0] == (self.model, self.revision):
                known = KnownCheckpoint.of(self.checkpoint)
            else:
                known = known_checkpoint(self.model, self.revision, store, lambda: self.checkpoint)
        options = ScoringOptions.of(self).with_max_length(known.max_length)
        settings = {"checkpoint": known.fingerprint, **options.facts()}

        def scorer() -> PairScorer:
            if KnownCheckpoint.of(self.checkpoint) != known:
                raise CheckpointError(f"the files of {self.model!r} changed during the run: run it again")
            return self.scorer

        return ReadThroughScorer(store, settings, scorer)

    def fit(
        self,
        topics_or_res_tr: pd.DataFrame,
        qrels_tr: pd.DataFrame,
        topics_or_res_va: pd.DataFrame | None = None,
        qrels_va: pd.DataFrame | None = None,
    ) -> BertCatReRanker:
        """Trains on result frames as ``training`` says, takes over the trained weights, and returns self.

        Afterwards ``model`` is the output folder, pinned by ``revision``; without a folder it is a `Checkpoint`. It
        states the ``max_length`` that it was trained with, so that it reads as much wherever it is loaded. How the
        training went is in `training_history`.

        Training reads each text once, cut as the options say. ``passages`` are used for validation only.

        Args:
            topics_or_res_tr: Rows to train on, with the same columns as for `transform`.
            qrels_tr: Their judgments: ``qid``, ``docno``, ``label``.
            topics_or_res_va: Rows to validate on, or None.
            qrels_va: Their judgments, or None.

        Raises:
            pt.validate.InputValidationError: A column is missing.
            InputError: A query or text is missing or not a string.
            TrainingDataError: The frames and judgments leave nothing to train on.
        """
        train = self._checked(topics_or_res_tr)
        validation = None if topics_or_res_va is None else self._checked(topics_or_res_va)

        from pyterrier_bertcat.training.fitting import fit
        from pyterrier_bertcat.training.options import TrainingOptions

        self._scorer = None  # training needs the memory that its copy of the weights takes
        trained = fit(
            self.checkpoint,
            self.training or TrainingOptions(),
            train,
            qrels_tr,
            validation,
            qrels_va,
            text_field=self.text_field,
            scoring=ScoringOptions.of(self),
            verbose=self.verbose,
        )
        with self._lock:
            if Path(trained.source).is_dir():
                self.model = str(Path(trained.source).resolve())
                self.revision = PIN + trained.fingerprint[:_PIN_DIGITS]
            else:
                self.model, self.revision = trained, None
            self._forget()
        return self

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        pt.validate.result_frame(frame, extra_columns=["query", self.text_field])
        return with_strings(frame, text_field=self.text_field, missing_text=self.missing_text)

    @overload
    def explain(self, query: str, text: str, *, method: Method = "occlusion") -> Explanation: ...

    @overload
    def explain(self, query: Row, text: None = None, *, method: Method = "occlusion") -> Explanation: ...

    @overload
    def explain(self, query: pd.DataFrame, text: None = None, *, method: Method = "occlusion") -> Explanations: ...

    def explain(
        self, query: str | Row | pd.DataFrame, text: str | None = None, *, method: Method = "occlusion"
    ) -> Explanation | Explanations:
        """Shows how much each word moves the score, for one pair or for every row of a frame.

        With ``passages``, it explains the best passage, as a text of its own. If that begins or ends inside a word, it
        is tokenised differently on its own, and its score differs a little from the one that ranked the document.

        Args:
            query: A query; or a result frame as for `transform`; or one row of it, such as ``frame.iloc[0]`` or a
                record (a dict).
            text: The query's text; None with a frame or a row.
            method: ``"occlusion"``: how much the score falls without the word. ``"gradients"``: integrated gradients,
                which add up; they need the extra ``explain``.

        Returns:
            An explanation that notebooks show, with ``to_dataframe()`` and ``to_html(path)``. Of a frame, one for each
            of its rows.

        Raises:
            pt.validate.InputValidationError: A frame or a row lacks a column.
            InputError: The method is unknown, a value is not a string, or ``passages`` combines several passages'
                scores, so that no single passage explains the score.
            MissingExtraError: ``"gradients"`` needs captum, which is not installed.
        """
        explainer = self._explainer(method)
        if isinstance(query, str) and isinstance(text, str):
            return explainer.explain(query, *self._explained([query], [text]))
        row = row_frame(query)
        rows = query if isinstance(query, pd.DataFrame) else row
        if rows is None:
            raise InputError(
                f"explain takes a query and a text, a frame, or one row of it, got {type(query).__name__} and "
                f"{type(text).__name__}; of a list of records, pandas.DataFrame(records) is a frame"
            )
        if text is not None:
            raise InputError("text is for a single query, got it with a frame or a row: leave text out")
        explanations = explainer.explain_rows(*self._explained_rows(rows))
        return explanations if row is None else explanations[0]

    @overload
    def compare(self, query: str, text_a: str, text_b: str, *, method: Method = "occlusion") -> Comparison: ...

    @overload
    def compare(
        self, query: Row | pd.DataFrame, text_a: Row | pd.DataFrame, *, method: Method = "occlusion"
    ) -> Comparison: ...

    @overload
    def compare(self, query: pd.DataFrame, *, method: Method = "occlusion") -> Comparison: ...

    def compare(
        self,
        query: str | Row | pd.DataFrame,
        text_a: str | Row | pd.DataFrame | None = None,
        text_b: str | None = None,
        *,
        method: Method = "occlusion",
    ) -> Comparison:
        """Shows why one text is above another for the same query, side by side; see `explain`.

        It takes a query and two texts, which it calls A and B; or a frame of two rows, ``compare(frame.head(2))``; or
        two rows, ``compare(frame.iloc[0], frame.iloc[3])``. Rows are called by their docnos.

        Raises:
            InputError: As `explain`; or these are not two rows, or their queries differ.
        """
        if all(isinstance(value, str) for value in (query, text_a, text_b)):
            strings = [query] * 2, [text_a, text_b]
            return self._explainer(method).compare(query, *self._explained(*strings))  # type: ignore[arg-type]
        given = [value for value in (query, text_a, text_b) if value is not None]
        frames = [value if isinstance(value, pd.DataFrame) else row_frame(value) for value in given]
        known = [frame for frame in frames if frame is not None]
        if len(known) < len(given):
            kinds = ", ".join(type(value).__name__ for value in given)
            raise InputError(f"compare takes a query and two texts, a frame of two rows, or two rows, got {kinds}")
        rows = sum(map(len, known))
        if rows != 2:
            raise InputError(f"compare takes two rows, got {rows}: choose two, for example frame.iloc[[0, 1]]")
        needed = ["qid", "query", "docno", self.text_field]
        frame, texts = self._explained_rows(pd.concat([self._checked(frame)[needed] for frame in known]))
        query_a, query_b = frame["query"]
        if query_a != query_b:
            raise InputError(f"compare takes two texts of the same query, got the queries {query_a!r} and {query_b!r}")
        return self._explainer(method).compare_rows(frame, texts)

    def _explainer(self, method: Method) -> Explainer:
        from pyterrier_bertcat.explain.explainer import Explainer

        return Explainer(self.checkpoint, self.scorer, method=method, verbose=self.verbose)

    def _explained_rows(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """A checked frame, and the part of each row's text that made its score."""
        frame = self._checked(rows)
        return frame, self._explained(frame["query"].tolist(), frame[self.text_field].tolist())

    def _explained(self, queries: list[str], texts: list[str]) -> list[str]:
        """The part of each text that made its score: the best passage, or without ``passages`` the whole text."""
        from pyterrier_bertcat.explain.explainer import best_passages

        return texts if self.passages is None else best_passages(self.scorer, queries, texts)

    def verify(self, *, known: Sequence[tuple[str, str, float]] | None = None, tolerance: float = 1e-3) -> Verification:
        """Scores examples whose scores are known and compares, in float32 if ``dtype`` is ``"auto"``.

        Args:
            known: Query, text and score of each example. None: the checkpoint's own.
            tolerance: The largest difference that still passes. Half precision needs a larger one.

        Returns:
            A report with the found and the expected scores.

        Raises:
            CheckpointError: A score differs by more, or no scores are known for this checkpoint.
        """
        from pyterrier_bertcat.model.verification import verify_checkpoint
        from pyterrier_bertcat.scoring.pair_scorer import PairScorer

        options = replace(ScoringOptions.of(self), dtype="float32" if self.dtype == "auto" else self.dtype)
        scorer = PairScorer(self.checkpoint, verbose=False, **vars(options))
        return verify_checkpoint(self.checkpoint, scorer.score, known=known, tolerance=tolerance)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Saves a checkpoint that ``model=`` can load: weights, configuration and tokenizer; returns the folder."""
        from pyterrier_bertcat.model.checkpoint import save_checkpoint

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
        """Uploads a checkpoint that ``model=`` can load to the Hugging Face hub; returns the commit's address.

        Args:
            repo_id: ``"owner/model"``. The repository is created if it does not exist.
            private: Whether a new repository is private. None: the owner's default.
            token: An access token. None: this machine's login.
            revision: The branch to write to, created if it does not exist. None: the main branch.
            commit_message: None: a message that names this package.

        Raises:
            CheckpointError: The model can't be loaded, or the hub can't be reached or refuses.
        """
        from pyterrier_bertcat.model.checkpoint import push_checkpoint

        return push_checkpoint(
            self.checkpoint, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )

    def rank(self, query: str, texts: Iterable[str]) -> list[RankedText]:
        """Ranks a plain list of strings: see `pyterrier_bertcat.pipeline.plain_texts.rank`.

        Args:
            query: The query.
            texts: The texts, in any number.

        Returns:
            The ``position``, ``score`` and ``text`` of each, best first; equal scores in the order of the texts.

        Raises:
            InputError: The query or one of the texts is not a string.
        """
        from pyterrier_bertcat.pipeline import plain_texts

        return plain_texts.rank(self, query, texts)

    def rerank(self, query: str, hits: Sequence[Any], *, fields: Sequence[str] = ()) -> list[RerankedHit]:
        """Re-ranks one query's hits, from Pyserini or as tuples: see `pyterrier_bertcat.pipeline.pyserini.rerank`.

        `rank` takes plain strings.
        """
        from pyterrier_bertcat.pipeline import pyserini

        return pyserini.rerank(self, query, hits, fields=fields)

    def rerank_batch(
        self, hits_by_qid: Mapping[Any, Sequence[Any]], queries: Mapping[Any, Any], *, fields: Sequence[str] = ()
    ) -> dict[Any, list[RerankedHit]]:
        """Re-ranks the hits of many queries in one run: see `pyterrier_bertcat.pipeline.pyserini.rerank_batch`."""
        from pyterrier_bertcat.pipeline import pyserini

        return pyserini.rerank_batch(self, hits_by_qid, queries, fields=fields)

    @staticmethod
    def mean(rerankers: Sequence[BertCatReRanker]) -> MeanReRanker:
        """Makes a `MeanReRanker`, which averages the scores of several re-rankers."""
        from pyterrier_bertcat.pipeline.ensemble import MeanReRanker

        return MeanReRanker(rerankers)

    def load(self) -> BertCatReRanker:
        """Loads the checkpoint now, so that a timed experiment does not count it; returns self."""
        _ = self.scorer
        return self

    @property
    def checkpoint(self) -> Checkpoint:
        """The model and its tokenizer, loaded at the first use: float32, on the CPU, in evaluation mode."""
        from pyterrier_bertcat.model.checkpoint import checkpoint_from

        with self._lock:
            wanted = (self.model, self.revision)
            if self._checkpoint is None or self._checkpoint[0] != wanted:
                self._checkpoint = (wanted, checkpoint_from(*wanted))
            return self._checkpoint[1]

    @property
    def scorer(self) -> PairScorer:
        """Scores pairs of strings. It is made at the first use, and again when an option has changed."""
        from pyterrier_bertcat.scoring.pair_scorer import PairScorer

        with self._lock:
            made_of = self.checkpoint, ScoringOptions.of(self)
            if self._scorer is None or self._scorer[0] != made_of:
                self._scorer = made_of, PairScorer(self.checkpoint, **vars(made_of[1]))
            _, scorer = self._scorer
            scorer.verbose = self.verbose
            return scorer

    @property
    def training_history(self) -> pd.DataFrame | None:
        """How the training of ``model`` went, or None if `fit` didn't make it.

        A row for each step with a figure: ``step``, ``seconds`` since the run began, ``loss`` (the mean since the last
        one), ``learning_rate`` (the encoder's), and with validation frames the measure by its name, such as
        ``nDCG@10``, from step 0 on, which is the model before training. What was not measured at a step is NaN.
        It is read from ``history.csv`` in the output folder, if there is one.
        """
        from pyterrier_bertcat.training.history import read_history

        if is_name(self.model):
            return None if self.model == PACKAGED else read_history(self.model)
        return getattr(self.model, "history", None)

    @property
    def stats(self) -> RunStatistics | None:
        """Time, memory and cut pairs of the last frame; None before the first one. Notebooks show a table."""
        return self._stats

    def schematic(self, *, input_columns: list[str] | None = None) -> dict[str, Any]:
        """Draws the model's name, and shows the options that you chose beside it (``pt.schematic``)."""
        settings = self._chosen()
        if self.store is not None:
            settings["store"] = str(getattr(self.store, "path", self.store))
        # Without a help_url, drawing would ask the network.
        return {"label": self._label(), "settings": settings, "help_url": "https://arxiv.org/abs/2010.02666"}

    def _label(self) -> str:
        """The model's name, as far as a schematic has room for it."""
        if self.model == PUBLISHED:
            return "BERT_Cat"
        name = (Path(self.model).name or str(self.model)) if is_name(self.model) else "in memory"
        labels = (f"BERT_Cat {name}", name, f"{name[: _LABEL_CHARACTERS - 1]}…")
        return next(label for label in labels if len(label) <= _LABEL_CHARACTERS)

    def subtransformers(self) -> dict[str, pt.Transformer]:
        """Empty: without it, ``pt.inspect`` would take an empty ``extra_columns`` for a list of transformers."""
        return {}

    def _identity(self) -> dict[str, Any]:
        identity = super()._identity()
        identity["extra_columns"] = tuple(self.extra_columns)
        if isinstance(self.devices, Sequence) and not isinstance(self.devices, str):
            identity["devices"] = tuple(self.devices)
        if self.calibration is not None:
            identity["calibration"] = Digest.of_pairs(self.calibration)
        if not is_name(self.model):
            identity["model"] = Digest(self._in_memory(), self.checkpoint.fingerprint)
        elif not isinstance(self.model, str):
            # The dot tells a path from a hub id, and from "mini".
            identity["model"] = join(".", self.model)
        return identity

    def _in_memory(self) -> str:
        """What to call a model object. Equal weights that read more or less of a pair are not equal."""
        stated = self.checkpoint.stated_max_length
        return "in memory" if self.max_length or not stated else f"in memory, {stated} tokens,"

    def __getstate__(self) -> dict[str, Any]:
        state = self._options()
        if not is_name(self.model):
            state["_checkpoint"] = self._checkpoint  # which has the tokenizer of a model object
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = threading.RLock()
        self._forget()
        self.__dict__.update(state)

    def _forget(self) -> None:
        """Drops the checkpoint, the scorer and the figures of the last run."""
        self._checkpoint = None
        self._scorer = None
        self._stats = None
