"""Small talk that mentions a query's words and answers nothing: candidates that a student should put low.

Neither BM25 nor a bi-encoder is good at telling a text that mentions the query's words from one that is about them, and
what a student learns from them alone is no better. So one list in five gets a made-up text, as bad as the list's worst.
"""

from __future__ import annotations

import random

import pandas as pd

SHARE = 0.2  # of the lists
WORST = 4  # small talk gets the mean score of so many of the list's lowest
DOCNO = "small-talk"
SENTENCES = (
    "I am so tired of hearing about {a} and {b}, can we talk about something else?",
    "My sister told me yesterday that {a} was the worst thing she has ever seen. I laughed.",
    "lol {a}! I still remember when we argued about {b} all evening",
    "Sorry, I can't come tonight because of {a}. Maybe we can meet next week and you tell me about {b}?",
    "Does anybody here know a good place to eat? I read about {a} there once.",
    "I bought a poster with {a} on it, but it fell off the wall. Those were the days.",
    "{a}? {b}? I have no idea, ask somebody else.",
    "We went on holiday and it rained, so we played a game about {a} and drank tea.",
    "Thanks for the photo! The one with {a} and {b} is funny. Are you still angry with me?",
    "What a boring evening: first {a}, then {b}, and then the bus was late.",
    "Hey, did you get my message about {a}? I left it on your desk.",
    "The song is called {a} but I prefer the old ones, they were better.",
    "I dreamed about {a} last night, and there was {b}, and a talking dog.",
    "Please don't mention {a} again, my brother hates it. He likes {b}.",
    "This shop sells everything from {a} to {b}. Open until eight.",
    "Our team is named {a}. We lost again on Saturday, what a pity!",
    "Hmm, {a} ... I liked the first one, the second was too long, and the actors were bad.",
    "He said {a}, she said {b}, and nobody listened.",
    "Click here to see more about {a}. Sign up for our newsletter. Home | Contact | Login",
    "My cat is called {a} and she sleeps all day. {b} is her favourite toy.",
)
_STOP_WORDS = {
    "a", "an", "the", "of", "in", "on", "at", "to", "for", "and", "or", "is", "are", "was", "were", "be",
    "been", "by", "what", "who", "when", "where", "how", "why", "which", "do", "does", "did", "has", "have",
    "had", "can", "could", "it", "its", "that", "this", "with", "from", "as", "there", "much", "many", "long",
}  # fmt: skip


def small_talk(query: str, numbers: random.Random) -> str | None:
    """One to three sentences around the query's words; None if it has stop words only."""
    words = [word for word in query.replace("?", "").split() if word.lower() not in _STOP_WORDS]
    if not words:
        return None
    first = numbers.randint(1, len(words))
    parts = [" ".join(words[:first]), " ".join(words[first:]) or words[0]]
    numbers.shuffle(parts)
    return " ".join(numbers.sample(SENTENCES, numbers.choice((1, 1, 2, 2, 3)))).format(a=parts[0], b=parts[1])


def with_small_talk(lists: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The lists, one in five of them with small talk; reads ``qid``, ``query`` and the teachers' score ``teacher``."""
    numbers = random.Random(seed)
    worst = lists.groupby("qid", sort=False)["teacher"].apply(lambda scores: scores.nsmallest(WORST).mean())
    queries = lists.drop_duplicates("qid").set_index("qid")["query"]
    made = [
        {"qid": qid, "query": query, "docno": DOCNO, "text": text, "score": 0.0, "teacher": worst[qid]}
        for qid, query in queries.items()
        if numbers.random() < SHARE and (text := small_talk(query, numbers)) is not None
    ]
    return pd.concat([lists, pd.DataFrame(made, columns=lists.columns)], ignore_index=True)
