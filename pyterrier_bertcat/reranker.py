"""``BertCatReRanker``: the PyTerrier transformer. Columns, identity and pickling are its job, scores `PairScorer`'s."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import join
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import CheckpointError, InputError
from pyterrier_bertcat.identity import Digest, IdentifiedByOptions
from pyterrier_bertcat.model.names import PIN, PUBLISHED, is_name
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.planning import DEFAULT_BATCH_SIZE
from pyterrier_bertcat.pipeline.depth import first_rows, with_rest_below
from pyterrier_bertcat.pipeline.extra_columns import extra_columns as make_extra_columns
from pyterrier_bertcat.pipeline.extra_columns import spread
from pyterrier_bertcat.pipeline.frames import MissingText, query_text_pairs, ranked, with_strings
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
    from pyterrier_bertcat.pipeline.pyserini import RerankedHit
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer
    from pyterrier_bertcat.scoring.statistics import RunStatistics
    from pyterrier_bertcat.store.read_through import ReadThroughScorer
    from pyterrier_bertcat.store.score_store import ScoreStore
    from pyterrier_bertcat.training.options import TrainingOptions

_PIN_DIGITS = 16


class BertCatReRanker(IdentifiedByOptions, pt.Estimator):  # type: ignore[misc]
    """Scores each query with each of its documents' texts by a cross-encoder, and re-ranks.

    Reads ``qid``, ``query``, ``docno`` and the text; every other column passes through. Gives the columns of the input
    without ``score`` and ``rank``, then ``score`` (float32: a raw relevance logit, higher is more relevant, not a
    probability) and ``rank`` (0 is best): queries in order of first appearance, each one's rows best first, equal
    scores by docno as ``pt.Experiment`` does, on a fresh index.

    Nothing is loaded, and torch is not imported, before the first row is scored (or `load`).

    Two re-rankers are equal, with equal hash and ``repr``, when all options but ``verbose``, ``store`` and ``training``
    are equal;
    models given as objects are compared by their weights and vocabulary. The options that change only time and the last
    bits of a score (batch size, device) count as well, so that an experiment can compare them. `fit` changes ``model``,
    and with it the identity. Pickles and copies carry the options, and weights only where ``model`` is an object.

    Source: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", arXiv 2010.02666.

    Example:
        >>> import pandas as pd
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> candidates = pd.DataFrame(
        ...     {
        ...         "qid": ["1", "1"],
        ...         "query": ["how do I copy a folder", "how do I copy a folder"],
        ...         "docno": ["rmtree", "copytree"],
        ...         "text": ["Delete a directory tree.", "Copy a directory tree."],
        ...     }
        ... )
        >>> bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
        >>> bertcat(candidates)[["qid", "docno", "score", "rank"]].round(1)
          qid     docno  score  rank
        0   1  copytree    4.4     0
        1   1    rmtree    1.8     1
    """

    _not_identity = frozenset({"store", "training", "verbose"})
    schematic: ClassVar[dict[str, str]] = {"label": "BERT_Cat", "help_url": "https://arxiv.org/abs/2010.02666"}

    # What was loaded, after what it was loaded for. No name here is a parameter's with "_" before it: pt.inspect would
    # take that for the parameter's value.
    _checkpoint: tuple[tuple[object, object], Checkpoint] | None
    _scorer: tuple[tuple[Checkpoint, ScoringOptions], PairScorer] | None
    _stats: RunStatistics | None

    def __init__(
        self,
        model: str | os.PathLike[str] | BertCatModel | Checkpoint = PUBLISHED,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int | None = None,
        max_length: int = 512,
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
            model: A hub id, a local folder, ``"mini"`` (the small checkpoint inside this package), or an object: a
                `Checkpoint` (model and tokenizer), or a `BertCatModel`, whose tokenizer is then looked for in the
                folder it came from or, where it came from none, under its encoder's name.
            batch_size: How many pairs of ``max_length`` tokens a batch may hold; of shorter ones, as many more as have
                no more tokens together.
            batch_tokens: The most tokens per batch. None: what is fastest on the device, within ``batch_size``.
            max_length: The most tokens per pair; what is longer is cut.
            max_query_length: The most tokens of a query. None: no limit of its own.
            truncation: What is cut: ``"longest_first"``, the longer of query and text first; ``"only_text"``; or
                ``"paper"``: queries of 30, texts of 200, 230 tokens in all, as the authors trained. See `Truncation`.
            passages: Cuts documents into passages instead, scores those, and aggregates. None: texts are cut.
            depth: Re-ranks the first so many of each query by their ``score``, and keeps the rest below them, in its
                order, with the lowest new score minus 1, minus 2, and so on. None: all.
            text_field: The column with the documents' text.
            extra_columns: Which columns to add before ``score``: ``"truncated"`` (whether something of the pair was
                cut off), ``"passages"`` (how many were scored), ``"passage"`` (the text of the best one),
                ``"passage_start"``, ``"passage_end"`` (its characters in the document). Rows below ``depth`` have
                False, 0 and "".
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, … None: cuda, then mps or xpu where usable, then cpu.
            devices: Several, each with a process of its own: names as for ``device``, of which ``"cpu"`` may be there
                several times, or ``"all"``: every GPU, and without any the CPU. None: one, as ``device`` says.
            dtype: Of the encoder; the last layer is always float32. ``"float32"``, ``"float16"``, ``"bfloat16"``, or
                ``"auto"``: float16 on cuda where that is fast, float32 elsewhere. OpenVINO also takes ``"int8"``, and
                no ``"float16"``.
            backend: What computes: ``"torch"``, or ``"openvino"`` (extra ``openvino``; CPUs only; DistilBERT, BERT,
                MiniLM and ELECTRA encoders).
            calibration: For int8: some hundred queries, each with a text, of the kind that will be scored; relevance
                does not matter. None: the pairs packaged with ``"mini"``, for that model only.
            revision: Branch, tag or commit of a model on the hub; or ``"sha256:"`` and the first digits of a
                checkpoint's fingerprint, which pins a local one (`fit` does so).
            missing_text: What None or NaN as text means: ``"raise"`` an error, ``"empty"`` an empty text.
            store: A `ScoreStore`, or the path of one: scores that are in it are not computed again, and what is
                computed is kept in it, for equal checkpoints and settings only. Not with ``extra_columns``.
            training: How `fit` trains. None: the defaults of `TrainingOptions`.
            verbose: Shows progress.

        Raises:
            InputError: for an option of another type or outside its range.
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
            _ = self.checkpoint  # a model object without a tokenizer is refused here and not in the middle of a run

    @staticmethod
    def mean(rerankers: Sequence[BertCatReRanker]) -> MeanReRanker:
        """An ensemble: a transformer that scores by the mean of its members' scores; see `MeanReRanker`."""
        from pyterrier_bertcat.pipeline.ensemble import MeanReRanker

        return MeanReRanker(rerankers)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks a result frame; the class says what goes in and what comes out.

        Raises:
            pt.validate.InputValidationError: a column is missing.
            InputError: a query or text is missing or not a string; the frame is refused before anything is scored.
            CheckpointError: the model can't be loaded.
            ScoreError: the model gave a score that is not finite.
            PairTooLargeError: a single pair does not fit in the device's memory.
            WorkerError: of several devices, no process is left.
        """
        check_options(self)  # they may have been set since
        needed = ["query", self.text_field] + ["score"] * (self.depth is not None)
        pt.validate.result_frame(inp, extra_columns=needed)
        to_score = np.ones(len(inp), dtype=np.bool_) if self.depth is None else first_rows(inp, self.depth)
        queries, texts = query_text_pairs(inp[to_score], text_field=self.text_field, missing_text=self.missing_text)
        scores, columns = np.empty(0, dtype=np.float32), {}
        if queries and self.store is not None:
            stored = self._stored_scorer(self.store)
            scores, self._stats = stored.score(queries, texts), stored.stats
        elif queries:
            scorer = self.scorer
            scored = scorer.score_in_detail(queries, texts)
            scores, self._stats = scored.scores, scorer.stats
            columns = make_extra_columns(self.extra_columns, scored, texts, scorer.character_ranges)
        if queries:
            warn_of_truncation(self._stats or RunStatistics(), passages=self.passages, stacklevel=2)
        if self.depth is not None:
            scores = with_rest_below(inp, to_score, scores)
        return ranked(inp, scores, extra=spread(columns, self.extra_columns, to_score))

    def transform_iter(self, inp: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        """Re-ranks records; no records give none (a frame made of them would lack its columns)."""
        records = list(inp)
        if not records:
            return []
        return self.transform(pd.DataFrame(records)).to_dict(orient="records")  # type: ignore[return-value]

    @property
    def stats(self) -> RunStatistics | None:
        """What the last frame that was scored took and what was cut of it; None before the first one.

        Shows itself as a table in notebooks; ``to_dataframe()`` is one row.
        """
        return self._stats

    def load(self) -> BertCatReRanker:
        """Loads the checkpoint now, so that a timed experiment does not count it; returns self.

        Raises:
            CheckpointError: the model can't be loaded.
        """
        _ = self.scorer
        return self

    @property
    def checkpoint(self) -> Checkpoint:
        """Model and tokenizer, loaded at the first use; float32, on the CPU, in evaluation mode."""
        from pyterrier_bertcat.model.checkpoint import checkpoint_from

        with self._lock:
            wanted = (self.model, self.revision)
            if self._checkpoint is None or self._checkpoint[0] != wanted:
                self._checkpoint = (wanted, checkpoint_from(*wanted))
            return self._checkpoint[1]

    @property
    def scorer(self) -> PairScorer:
        """What scores the pairs: made at the first use, and again after an option was set to another value."""
        from pyterrier_bertcat.scoring.pair_scorer import PairScorer

        with self._lock:
            made_of = self.checkpoint, ScoringOptions.of(self)
            if self._scorer is None or self._scorer[0] != made_of:
                self._scorer = made_of, PairScorer(self.checkpoint, **vars(made_of[1]))
            _, scorer = self._scorer
            scorer.verbose = self.verbose
            return scorer

    def fit(
        self,
        topics_or_res_tr: pd.DataFrame,
        qrels_tr: pd.DataFrame,
        topics_or_res_va: pd.DataFrame | None = None,
        qrels_va: pd.DataFrame | None = None,
    ) -> BertCatReRanker:
        """Trains on result frames, as ``training`` says, takes on the trained weights, and returns self.

        Afterwards ``model`` is the output folder, pinned by ``revision``, or a `Checkpoint` where there is no folder.
        Training reads each text once, cut as the options say; ``passages`` count where it validates.

        Args:
            topics_or_res_tr: Rows to train on, with the same columns as for `transform`.
            qrels_tr: Their judgments: ``qid``, ``docno``, ``label``.
            topics_or_res_va: Rows to validate on, or None.
            qrels_va: Their judgments, or None.

        Raises:
            pt.validate.InputValidationError: a column is missing.
            InputError: a query or text is missing or not a string.
            TrainingDataError: the frames and judgments leave nothing to train on.
        """
        train = self._checked(topics_or_res_tr)
        validation = None if topics_or_res_va is None else self._checked(topics_or_res_va)

        from pyterrier_bertcat.training.fitting import fit
        from pyterrier_bertcat.training.options import TrainingOptions

        self._scorer = None  # its copy of the weights would only take memory from the training
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

    @overload
    def explain(self, query: str, text: str, *, method: Method = "occlusion") -> Explanation: ...

    @overload
    def explain(self, query: pd.DataFrame, text: None = None, *, method: Method = "occlusion") -> Explanations: ...

    def explain(
        self, query: str | pd.DataFrame, text: str | None = None, *, method: Method = "occlusion"
    ) -> Explanation | Explanations:
        """Shows how much each word moves the score, of one pair or of every row of a frame.

        With ``passages``, the best passage is what is explained, as a text of its own. Where it begins or ends inside a
        word, it is tokenised differently alone, and its score is not quite the one that ranked the document.

        Args:
            query: A query, or a result frame as `transform` takes it.
            text: The text for the query; None with a frame.
            method: ``"occlusion"``: what the score loses without the word. ``"gradients"``: integrated gradients, which
                add up; needs the extra ``explain``.

        Returns:
            What shows itself in notebooks, with ``to_dataframe()`` and ``to_html(path)``.

        Raises:
            InputError: There is no such method, something is not a string, or ``passages`` aggregates several passages'
                scores, which no single passage explains.
            MissingExtraError: ``"gradients"`` without captum.
        """
        explainer = self._explainer(method)
        if isinstance(query, pd.DataFrame):
            if text is not None:
                raise InputError("text goes with one query, got it with a frame: leave text out")
            frame = self._checked(query)
            return explainer.explain_rows(
                frame, self._explained(frame["query"].tolist(), frame[self.text_field].tolist())
            )
        if not isinstance(query, str) or not isinstance(text, str):
            raise InputError(
                f"explain takes a query and a text, or a frame, got {type(query).__name__} and {type(text).__name__}"
            )
        return explainer.explain(query, *self._explained([query], [text]))

    def compare(self, query: str, text_a: str, text_b: str, *, method: Method = "occlusion") -> Comparison:
        """Shows why one text is above another for the same query, side by side; see `explain`."""
        return self._explainer(method).compare(query, *self._explained([query] * 2, [text_a, text_b]))

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
        from pyterrier_bertcat.model.verification import verify_checkpoint
        from pyterrier_bertcat.scoring.pair_scorer import PairScorer

        options = replace(ScoringOptions.of(self), dtype="float32" if self.dtype == "auto" else self.dtype)
        scorer = PairScorer(self.checkpoint, verbose=False, **vars(options))
        return verify_checkpoint(self.checkpoint, scorer.score, known=known, tolerance=tolerance)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Writes what ``model=`` reads: safetensors, a self-contained config and the tokenizer; returns the folder."""
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
        from pyterrier_bertcat.model.checkpoint import push_checkpoint

        return push_checkpoint(
            self.checkpoint, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )

    def rerank(self, query: str, hits: Sequence[Any], *, fields: Sequence[str] = ()) -> list[RerankedHit]:
        """Re-ranks one query's hits of a Pyserini searcher, or tuples (docid, score, text).

        See `pyterrier_bertcat.pipeline.pyserini.rerank`.
        """
        from pyterrier_bertcat.pipeline import pyserini

        return pyserini.rerank(self, query, hits, fields=fields)

    def rerank_batch(
        self, hits_by_qid: Mapping[Any, Sequence[Any]], queries: Mapping[Any, Any], *, fields: Sequence[str] = ()
    ) -> dict[Any, list[RerankedHit]]:
        """Re-ranks the hits of many queries in one run.

        See `pyterrier_bertcat.pipeline.pyserini.rerank_batch`.
        """
        from pyterrier_bertcat.pipeline import pyserini

        return pyserini.rerank_batch(self, hits_by_qid, queries, fields=fields)

    def subtransformers(self) -> dict[str, pt.Transformer]:
        """None, for ``pt.inspect``: it would take an empty ``extra_columns`` for a list of transformers."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        state = self._options()
        if not is_name(self.model):
            state["_checkpoint"] = self._checkpoint  # with the tokenizer that goes with a model object
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = threading.RLock()
        self._forget()
        self.__dict__.update(state)

    def _identity(self) -> dict[str, Any]:
        identity = super()._identity()
        identity["extra_columns"] = tuple(self.extra_columns)
        if isinstance(self.devices, Sequence) and not isinstance(self.devices, str):
            identity["devices"] = tuple(self.devices)
        if self.calibration is not None:
            identity["calibration"] = Digest.of_pairs(self.calibration)
        if not is_name(self.model):
            identity["model"] = Digest("in memory", self.checkpoint.fingerprint)
        elif not isinstance(self.model, str):
            # A path gets a dot, because without it the string could be a hub id, or "mini".
            identity["model"] = join(".", self.model)
        return identity

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        pt.validate.result_frame(frame, extra_columns=["query", self.text_field])
        return with_strings(frame, text_field=self.text_field, missing_text=self.missing_text)

    def _stored_scorer(self, store: ScoreStore | str | os.PathLike[str]) -> ReadThroughScorer:
        """A scorer for one frame: what the weights are is found anew each time, in case their files have changed."""
        from pyterrier_bertcat.store.read_through import ReadThroughScorer
        from pyterrier_bertcat.store.score_store import ScoreStore
        from pyterrier_bertcat.store.settings import fingerprint_of

        store = store if isinstance(store, ScoreStore) else ScoreStore(store)
        with self._lock:
            loaded = self._checkpoint is not None and self._checkpoint[0] == (self.model, self.revision)
            if loaded:
                fingerprint = self.checkpoint.fingerprint
            else:
                fingerprint = fingerprint_of(self.model, self.revision, store, lambda: self.checkpoint)
        settings = {"checkpoint": fingerprint, **ScoringOptions.of(self).facts()}

        def scorer() -> PairScorer:
            if self.checkpoint.fingerprint != fingerprint:
                raise CheckpointError(f"the files of {self.model!r} were changed while it was used: score once more")
            return self.scorer

        return ReadThroughScorer(store, settings, scorer)

    def _explainer(self, method: Method) -> Explainer:
        from pyterrier_bertcat.explain.explainer import Explainer

        return Explainer(
            self.checkpoint,
            self.scorer.score,
            method=method,
            scoring=ScoringOptions.of(self),
            verbose=self.verbose,
        )

    def _explained(self, queries: list[str], texts: list[str]) -> list[str]:
        """The part of each text that made its score: its best passage, or all of it without ``passages``."""
        from pyterrier_bertcat.explain.explainer import best_passages

        return texts if self.passages is None else best_passages(self.scorer, queries, texts)

    def _forget(self) -> None:
        """Drops what was loaded, and what is known of the last run."""
        self._checkpoint = None
        self._scorer = None
        self._stats = None
