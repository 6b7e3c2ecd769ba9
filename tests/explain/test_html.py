"""Explanations as HTML: text stays text, and a snippet needs nothing but itself."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.explain.explanations import Comparison, Explanation, Explanations
from pyterrier_bertcat.explain.words import Word, word_spans

MARKUP = (
    "<script>alert('x')</script> <img src=x onerror=alert(1)> </div></style> & &lt; \"q\" 'q'\n  indented 中文 👩‍👩‍👧"
)


def explanation(query, text, *, effects=(1.0, -0.5, 0.0), unread_from=10**6):
    """With effects given in turn, as no model would."""
    spans = [("query", query, span) for span in word_spans(query)] + [("text", text, span) for span in word_spans(text)]
    words = []
    for number, (part, string, (start, end)) in enumerate(spans):
        read = part == "query" or start < unread_from
        effect = effects[number % len(effects)] if read else 0.0
        words.append(Word(string[start:end], part, start, end, effect, read))
    return Explanation(query, text, 1.5, "occlusion", tuple(words))


class Page(HTMLParser):
    """What a browser would find in a snippet."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.blocks, self.open, self.in_words = set(), [], [], [], False
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.open.append((tag, self.in_words))
        if str(dict(attrs).get("class")).split()[0] == "words":
            self.in_words = True
            self.blocks.append("")

    def handle_endtag(self, tag):
        opened, self.in_words = self.open.pop()
        assert opened == tag

    def handle_data(self, data):
        if self.in_words:
            self.blocks[-1] += data


def snippets(query, text):
    one = explanation(query, text, unread_from=40)
    named = replace(one, qid="<i>q", docno="</div>&\"'")
    return [one, Explanations((named, one)), Comparison(one, replace(one, score=-2.0))]


@pytest.mark.parametrize("number", range(3))
def test_markup_in_a_text_stays_text(number):
    page = Page(snippets(f"query {MARKUP}", MARKUP)[number]._repr_html_())
    assert page.tags <= {"div", "style", "span", "b", "table", "tr", "th", "td"}
    assert {name for name, _ in page.attributes} <= {"class", "style", "title", "dir"}
    assert page.blocks[:2] == [f"query {MARKUP}", MARKUP]


@settings(deadline=None)
@given(st.text(), st.text())
def test_the_texts_are_shown_whole(query, text):
    query, text = (string.replace("\r", "").replace("\0", "") for string in (query, text))  # HTML has neither
    assert Page(explanation(query, text)._repr_html_()).blocks == [query, text]


@pytest.mark.parametrize("number", range(3))
def test_nothing_comes_from_elsewhere(number):
    html = snippets("a query", "a text")[number]._repr_html_()
    assert not re.search(r"https?:|//|url\(|@import|src=|href=|<script|<link|javascript", html)


def test_every_style_applies_to_the_snippet_only():
    style = re.search(r"<style>(.*?)</style>", explanation("a", "b")._repr_html_(), re.DOTALL)[1]
    rules = re.findall(r"([^{}]+)\{", style.replace("@media (prefers-color-scheme:dark){", ""))
    assert len(rules) > 10
    for selector in ",".join(re.sub(r":is\([^)]*\)", "", rule) for rule in rules).split(","):
        assert ".bertcat" in selector
    assert "prefers-color-scheme:dark" in style


def test_the_sign_and_the_size_of_an_effect_can_be_seen_without_colours():
    html = explanation("", "good bad none")._repr_html_()
    assert '<span title="+1.00" class="up strong" style="--share:1.00">good</span>' in html
    assert '<span title="\N{MINUS SIGN}0.50" class="down strong" style="--share:0.50">bad</span>' in html
    assert '<span title="+0.00">none</span>' in html
    assert '<span title="+0.00">faint</span>' in explanation("", "good faint", effects=(1.0, -0.001))._repr_html_()


def test_what_is_not_read_is_said_and_shown():
    html = explanation("q", "read this but not these words", unread_from=10)._repr_html_()
    assert '<span class="unread">but not these words</span>' in html
    assert "4 words in grey italics were not read" in html
    assert "not read" not in explanation("q", "read this")._repr_html_()


def test_a_list_shares_one_scale_and_names_its_rows():
    strong, weak = explanation("q", "one", effects=(4.0,)), explanation("q", "two", effects=(1.0,))
    html = Explanations((replace(strong, qid="1", docno="d1"), replace(weak, qid="1", docno="d2")))._repr_html_()
    assert "1 · d1 · score 1.50" in html
    assert '--share:0.25">two</span>' in html
    assert '--share:1.00">two</span>' in weak._repr_html_()


def test_a_comparison_shows_both_and_the_words_between_them():
    a = explanation("q", "apple pear", effects=(0.0, 3.0, 1.0))
    b = replace(explanation("q", "apple plum", effects=(0.0, 1.0, -2.0)), score=-1.0)
    html = Comparison(a, b)._repr_html_()
    assert "A is 2.50 above B" in html
    assert Page(html).blocks == ["q", "apple pear", "q", "apple plum"]
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    cells = [re.sub(r"<[^>]*>", "|", row).split("|") for row in rows]
    assert [[cell for cell in row if cell] for row in cells] == [
        ["apple", "text", "+3.00", "+1.00", "+2.00"],
        ["plum", "text", "\N{EN DASH}", "\N{MINUS SIGN}2.00", "+2.00"],
        ["pear", "text", "+1.00", "\N{EN DASH}", "+1.00"],
    ]


def test_a_comparison_of_rows_names_their_docnos():
    a = replace(explanation("q", "apple", effects=(0.0, 3.0)), docno="<d1>", qid="1")
    b = replace(explanation("q", "plum", effects=(0.0, 1.0)), docno=2, score=-1.0)
    rows = Comparison(a, b)
    shown = rows._repr_html_()
    for part in (
        "<b>&lt;d1&gt; is 2.50 above 2</b>",
        "&lt;d1&gt; · score 1.50",
        ">effect in &lt;d1&gt;<",
        ">effect in 2<",
        "blue: it puts &lt;d1&gt; higher",
    ):
        assert part in shown
    assert repr(rows).startswith("<Comparison by occlusion: <d1> 1.500 - 2 -1.000 = +2.500; ")
    assert rows.to_dataframe()["passage"].unique().tolist() == ["<d1>", "2"]


@pytest.mark.parametrize("docnos", [(None, None), ("d1", None), ("d1", "d1"), (float("nan"), "d1"), ("", "d1")])
def test_without_two_docnos_that_differ_the_texts_are_a_and_b(docnos):
    a, b = (replace(explanation("q", "apple"), docno=docno) for docno in docnos)
    assert Comparison(a, b).names == ("A", "B")


def test_to_html_writes_a_page_that_says_its_encoding(tmp_path):
    path = explanation("q", MARKUP).to_html(tmp_path / "page.html")
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in html
    assert "👩‍👩‍👧" in html
    assert path.parent == tmp_path


def test_repr_names_the_strongest_words():
    assert repr(explanation("q", "good bad", effects=(0.0, 1.0, -0.5))) == (
        "<Explanation by occlusion: score 1.500; good +1.000, bad -0.500>"
    )
