"""A collection that a small encoder can learn, and options for a short training."""

import numpy as np
import pandas as pd

from pyterrier_bertcat.training import TrainingOptions

TOPICS = {
    "music": ["song", "band", "guitar", "piano", "album", "drum", "singer", "opera"],
    "water": ["river", "lake", "ocean", "sea", "rain", "boat", "fish", "ship"],
    "money": ["bank", "price", "market", "trade", "tax", "cost", "profit", "loan"],
    "sport": ["football", "goal", "team", "coach", "player", "match", "league", "score"],
    "plant": ["tree", "leaf", "flower", "grass", "forest", "root", "seed", "garden"],
    "house": ["door", "window", "wall", "roof", "kitchen", "room", "floor", "stairs"],
}


def collection(seed, queries):
    """Candidates that share no word with their query but, where relevant, its subject."""
    generator = np.random.default_rng(seed)
    subjects = list(TOPICS)
    rows, judged = [], []
    for query in range(queries):
        subject = subjects[query % len(subjects)]
        asked, *left = (words := generator.permutation(TOPICS[subject]))[0], *words[1:]
        others = [name for name in subjects if name != subject]
        for rank, position in enumerate(generator.permutation(6)):
            words = left if position == 0 else TOPICS[others[(query + position) % len(others)]]
            text = " ".join(generator.choice(words, size=4))
            rows.append((f"q{seed}-{query}", asked, f"d{query}-{rank}", text, -float(rank), rank))
            if position == 0:
                judged.append((f"q{seed}-{query}", f"d{query}-{rank}", 1))
    frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])
    return frame, pd.DataFrame(judged, columns=["qid", "docno", "label"])


TRAIN, HELD_OUT = collection(1, 240), collection(2, 60)
QUICK = TrainingOptions(
    steps=12, queries_per_step=4, negatives=3, learning_rate=1e-3, warmup_steps=0, save_every=6, seed=7
)
