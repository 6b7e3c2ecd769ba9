"""Scoring on a Ray cluster (extra ``ray``): Parquet files of any size, or frames inside a pipeline.

- `rerank` scores a folder of Parquet files. An interrupted job continues where it stopped.
- `read_ranked` reads the scores it wrote, as a PyTerrier run.
- `RayReRanker` sends the frames of a pipeline to a cluster.
"""

from __future__ import annotations

from pyterrier_bertcat.ray.job import ScoringJob as ScoringJob
from pyterrier_bertcat.ray.job import read_ranked as read_ranked
from pyterrier_bertcat.ray.job import rerank as rerank
from pyterrier_bertcat.ray.transformer import RayReRanker as RayReRanker

__all__ = ["RayReRanker", "ScoringJob", "read_ranked", "rerank"]
