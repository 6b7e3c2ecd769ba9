"""Explanations as HTML: one snippet with its own style, for light and dark pages. It has no script and loads nothing.

All text is escaped. A word that raises the score is blue with a solid line under it. A word that lowers it is orange
with a dashed line (colour-blind readers can tell these colours apart). The larger the effect, the stronger the colour;
a tooltip shows the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from pyterrier_bertcat.explain.words import Part, Word

_NONE = "\N{EN DASH}"
_WORDS_LISTED = 8
_DIFFERENCES_LISTED = 12
_COLOURED_FROM = 0.005
_UNDERLINED_FROM = 0.15  # of the strongest effect: lines under every word would be unreadable
_HOW = {
    "occlusion": "what the score loses when the word is left out",
    "gradients": "what it adds on the way from unknown words to these (integrated gradients)",
}

_LIGHT = "--page:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d5dade;--up:40 130 200;--down:240 140 20;--most:.65"
_DARK = "--page:#15181c;--ink:#e8eaed;--soft:#a3acb5;--line:#3b424a;--up:64 140 230;--down:222 116 24;--most:.62"
# Light or dark follows the system, unless the notebook or page around says which it is. Notebooks style tables by
# selectors that weigh as much as two classes: naming the class three times outweighs them.
_STYLE = f"""
.bertcat{{{_LIGHT};background:var(--page);color:var(--ink);border:1px solid var(--line);border-radius:8px;
padding:12px 16px;max-width:72rem;font:14px/1.6 system-ui,sans-serif;text-align:left}}
@media (prefers-color-scheme:dark){{.bertcat{{{_DARK}}}}}
:is([data-jp-theme-light=true],[data-theme=light],.vscode-light) .bertcat{{{_LIGHT}}}
:is([data-jp-theme-light=false],[data-theme=dark],.vscode-dark) .bertcat{{{_DARK}}}
.bertcat .soft{{color:var(--soft);font-size:12px}}
.bertcat .sides{{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:0 28px}}
.bertcat .card{{border-top:1px solid var(--line);margin-top:10px;padding-top:8px}}
.bertcat .words{{white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0;line-height:1.9}}
.bertcat .query{{font-weight:600}}
.bertcat .up,.bertcat .down{{color:var(--ink);border-radius:3px;padding:1px 0;
text-decoration:none 2px;text-underline-offset:4px}}
.bertcat .up{{background:rgb(var(--up)/calc(var(--share)*var(--most)));text-decoration-color:rgb(var(--up))}}
.bertcat .down{{background:rgb(var(--down)/calc(var(--share)*var(--most)));text-decoration-color:rgb(var(--down))}}
.bertcat .up.strong{{text-decoration-line:underline}}
.bertcat .down.strong{{text-decoration-line:underline;text-decoration-style:dashed}}
.bertcat .unread{{color:var(--soft);font-style:italic;font-weight:400}}
.bertcat.bertcat.bertcat table{{border-collapse:collapse;margin:8px 0 0;color:inherit;font:inherit;table-layout:auto}}
.bertcat.bertcat.bertcat tr{{background:none;border:0}}
.bertcat.bertcat.bertcat :is(th,td){{padding:2px 14px 2px 0;border:0;text-align:left;vertical-align:baseline;
background:none;color:inherit}}
.bertcat.bertcat.bertcat th{{color:var(--soft);font-size:12px;font-weight:400;white-space:nowrap}}
.bertcat.bertcat.bertcat .number{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
"""


def page(snippet: str) -> str:
    """A whole HTML document around a snippet."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f"<title>BERT_Cat explanation</title></head>\n<body>\n{snippet}\n</body>\n</html>\n"
    )


def snippet(*blocks: str) -> str:
    """Blocks of HTML with their style."""
    return f'<div class="bertcat"><style>{_STYLE}</style>{"".join(blocks)}</div>'


def legend(method: str, scale: float) -> str:
    """Explains the colours; ``scale`` is the effect that has the full colour."""
    up, down = (_marked(words, effect, 1.0) for words, effect in (("raises the score", 1.0), ("lowers it", -1.0)))
    return (
        f'<div class="soft">{up} &ensp;{down} &ensp;full colour: {scale:.2f} &ensp;<b>bold</b>: the query &ensp;'
        f"Effect of a word: {escape(_HOW[method])}.</div>"
    )


def card(name: str, score: float, *, query: str, text: str, words: Sequence[Word], scale: float) -> str:
    """A pair with its title (``name`` may be empty), its score, and its words coloured up to ``scale``."""
    title = " · ".join(filter(None, [escape(name), f"score {_number(score)}"]))
    unread = sum(not word.read for word in words)
    note = f'<div class="soft">{unread:,} words in grey italics were not read by the model.</div>' if unread else ""
    return (
        f'<div class="card"><div class="soft">{title}</div>'
        f'<div class="words query" dir="auto">{_coloured(query, "query", words, scale)}</div>'
        f'<div class="words" dir="auto">{_coloured(text, "text", words, scale)}</div>{note}</div>'
    )


def strongest(words: Sequence[Word]) -> str:
    """A table of the words that raise the score most and those that lower it most; the query's are bold."""
    ordered = sorted((word for word in words if word.effect), key=lambda word: -abs(word.effect))
    scale = abs(ordered[0].effect) if ordered else 0.0
    rows = []
    for name, sign in (("raise the score most", 1), ("lower it most", -1)):
        found = [word for word in ordered if word.effect * sign > 0][:_WORDS_LISTED]
        named = " &ensp;".join(
            f'<span class="{word.part}">{_marked(word.text, word.effect, abs(word.effect) / scale)}</span>'
            f"&nbsp;{_number(word.effect, '+')}"
            for word in found
        )
        rows.append(f"<tr><th>{name}</th><td>{named or _NONE}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def difference(names: tuple[str, str], score_a: float, score_b: float) -> str:
    """A sentence that says how far the first text is above or below the second."""
    name_a, name_b = map(escape, names)
    apart = score_a - score_b
    where = "above" if apart > 0 else "below" if apart < 0 else "from"
    scores = f"({_number(score_a)} and {_number(score_b)})"
    return f"<div><b>{name_a} is {_number(abs(apart))} {where} {name_b}</b> {scores}</div>"


def side_by_side(*cards: str) -> str:
    """Cards in columns; on a narrow page, one below the other."""
    return f'<div class="sides">{"".join(f"<div>{card}</div>" for card in cards)}</div>'


def differences(names: tuple[str, str], rows: Sequence[tuple[str, str, float, float, float]]) -> str:
    """A table of the first rows: part, word, effect in each of the two texts, difference; the largest comes first."""
    name_a, name_b = map(escape, names)
    rows = [row for row in rows if row[-1]][:_DIFFERENCES_LISTED]
    body = []
    for part, word, effect_a, effect_b, apart in rows:
        effects = "".join(
            f'<td class="number">{_number(effect, "+") if effect else _NONE}</td>' for effect in (effect_a, effect_b)
        )
        body.append(
            f"<tr><td>{_marked(word, apart, abs(apart) / abs(rows[0][-1]))}</td><td>{part}</td>{effects}"
            f'<td class="number"><b>{_number(apart, "+")}</b></td></tr>'
        )
    heads = (f"effect in {name_a}", f"effect in {name_b}", "difference")
    head = "".join(f'<th class="number">{name}</th>' for name in heads)
    return (
        f'<div class="card"><div class="soft">What makes most of the difference (blue: it puts {name_a} higher)</div>'
        "<table>"
        f"<tr><th>word</th><th>of the</th>{head}</tr>{''.join(body)}</table></div>"
    )


def _coloured(string: str, part: Part, words: Sequence[Word], scale: float) -> str:
    """A string with its words marked. A run of unread words gets one mark."""
    pieces: list[str] = []
    place = 0
    for read, run in groupby((word for word in words if word.part == part), key=lambda word: word.read):
        members = list(run)
        if not read:
            start, end = members[0].start, members[-1].end
            pieces += [escape(string[place:start]), f'<span class="unread">{escape(string[start:end])}</span>']
            place = end
            continue
        for word in members:
            share = abs(word.effect) / scale if scale else 0.0
            pieces += [escape(string[place : word.start]), _marked(word.text, word.effect, share)]
            place = word.end
    return "".join(pieces) + escape(string[place:])


def _marked(text: str, effect: float, share: float) -> str:
    """A word in its colour; ``share`` is how strong the colour is, 0 to 1."""
    kind = ("up" if effect > 0 else "down") + (" strong" if share >= _UNDERLINED_FROM else "")
    style = f' class="{kind}" style="--share:{share:.2f}"' if share >= _COLOURED_FROM else ""
    return f'<span title="{_number(effect, "+")}"{style}>{escape(text)}</span>'


def _number(value: float, sign: str = "") -> str:
    """Two decimals, with a minus sign as wide as a plus."""
    rounded = round(value, 2) + 0.0  # no minus before a zero
    return f"{rounded:{sign}.2f}".replace("-", "\N{MINUS SIGN}")
