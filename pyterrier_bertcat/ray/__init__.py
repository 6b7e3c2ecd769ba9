"""Scoring on a Ray cluster (extra ``ray``): Parquet files of any size, or frames inside a pipeline.

- `rerank` scores a folder of Parquet files; a job that was interrupted goes on where it stopped.
- `read_ranked` reads what it wrote, as a PyTerrier run.
- `RayReRanker` sends the frames of a pipeline to a cluster.
"""

from __future__ import annotations

from pyterrier_bertcat.ray.job import ScoringJob as ScoringJob
from pyterrier_bertcat.ray.job import read_ranked as read_ranked
from pyterrier_bertcat.ray.job import rerank as rerank
from pyterrier_bertcat.ray.transformer import RayReRanker as RayReRanker

__all__ = ["RayReRanker", "ScoringJob", "read_ranked", "rerank"]
