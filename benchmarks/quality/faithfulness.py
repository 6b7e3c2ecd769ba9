"""Do explanations tell the truth? The words ranked highest are removed, and the score has to fall more than for others.

    python -m benchmarks.quality.faithfulness --data DATA [--model mini] [--pairs 100] [--plot FILE]

DATA is the folder that holds ``squad_dev``; the pairs are queries of it with a text judged relevant, drawn with a fixed
seed. Of each text the first 1, 3, 5 and 10 words are removed together, as ranked by each method. Controls: words drawn
at random (five times), and the same with words that are in the query too before all others. Prints the mean loss of
score as a Markdown table, and on how many of the pairs each method's words cost more than random ones.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyterrier as pt

from benchmarks.common import Collection, argument_parser
from pyterrier_bertcat.explain.explainer import Explainer
from pyterrier_bertcat.explain.explanations import Explanation
from pyterrier_bertcat.explain.words import Word
from pyterrier_bertcat.model.checkpoint import load_checkpoint
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

REMOVED = (1, 3, 5, 10)
DRAWS = 5
RANDOM, IN_QUERY = "random words", "random words, the query's first"


def pairs_of(data: Path, count: int) -> list[tuple[str, str]]:
    """Queries with a relevant text."""
    squad = Collection.read(data / "squad_dev")
    queries = dict(zip(squad.topics["qid"], squad.topics["query"], strict=True))
    judged = squad.qrels[squad.qrels["label"] > 0].sample(count, random_state=0)
    return [(queries[qid], squad.texts[docno]) for qid, docno in zip(judged["qid"], judged["docno"], strict=True)]


def of_the_text(explanation: Explanation) -> list[Word]:
    """The text's words, those that raise the score most first."""
    return sorted((word for word in explanation.words if word.part == "text"), key=lambda word: -word.effect)


def without(text: str, words: list[Word]) -> str:
    """The text with a space for each of the words."""
    for word in sorted(words, key=lambda word: -word.start):
        text = f"{text[: word.start]} {text[word.end :]}"
    return text


def main() -> None:
    """Prints the table."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--plot", type=Path, help="where to draw the table")
    arguments = parser.parse_args()

    checkpoint = load_checkpoint(arguments.model)
    scorer = PairScorer(checkpoint, dtype="float32", verbose=False)
    explainers = {
        name: Explainer(checkpoint, scorer, method=name, verbose=False) for name in ("occlusion", "gradients")
    }
    generator = np.random.default_rng(0)
    losses: dict[str, list[np.ndarray]] = defaultdict(list)  # name -> for each pair, (draws, removed)
    for query, text in pt.tqdm(pairs_of(arguments.data, arguments.pairs)):
        explanations = {name: explainer.explain(query, text) for name, explainer in explainers.items()}
        rankings = {name: [of_the_text(explanation)] for name, explanation in explanations.items()}
        words = rankings["occlusion"][0]
        asked = {word.text.casefold() for word in explanations["occlusion"].words if word.part == "query"}
        draws = [[words[place] for place in generator.permutation(len(words))] for _ in range(DRAWS)]
        rankings[RANDOM] = draws
        rankings[IN_QUERY] = [sorted(draw, key=lambda word: word.text.casefold() not in asked) for draw in draws]
        for name, ranked in rankings.items():
            texts = [without(text, ranking[:count]) for ranking in ranked for count in REMOVED]
            scores = scorer.score([query] * (len(texts) + 1), [text, *texts])
            losses[name].append((scores[0] - scores[1:]).reshape(len(ranked), len(REMOVED)))

    means = {name: np.mean([loss.mean(axis=0) for loss in of_pairs], axis=0) for name, of_pairs in losses.items()}
    print(f"| mean loss of score, {arguments.pairs} pairs | " + " | ".join(f"{k} removed" for k in REMOVED) + " |")
    print("|---" * (len(REMOVED) + 1) + "|")
    for name, mean in means.items():
        cells = [f"{value:.2f}" for value in mean]
        if name != RANDOM:
            more = [a.mean(axis=0) > b.mean(axis=0) for a, b in zip(losses[name], losses[RANDOM], strict=True)]
            cells = [f"{cell} ({share:.0%})" for cell, share in zip(cells, np.mean(more, axis=0), strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.plot:
        plot(means, arguments.plot)


def plot(means: dict[str, np.ndarray], path: Path) -> None:
    """Draws the loss of score over the number of words removed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for (name, mean), style in zip(means.items(), ("o-", "s-", "^:", "v:"), strict=True):
        axes.plot(REMOVED, mean, style, label=name)
    axes.set(xlabel="words removed from the text", ylabel="mean loss of score", xticks=REMOVED)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
