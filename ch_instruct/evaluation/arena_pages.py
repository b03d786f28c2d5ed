"""The arena's pages: plain HTML and CSS in one piece, nothing fetched. Whatever is shown passes through `escape`."""

from dataclasses import dataclass
from html import escape

from ch_instruct.evaluation.ratings import CENTRE, DRAWS, Rating
from common.support.console import short_names
from common.support.local_server import POLICY, STYLE, only_script

ARENA_STYLE = """
body { font-size: 17px }
header, main { max-width: 1040px; margin: 0 auto; padding: 0 20px }
header { display: flex; gap: 24px; align-items: baseline; padding-top: 20px; padding-bottom: 8px }
header b { font-size: 20px; margin-right: auto }
a { color: var(--accent) }
h1 { font-size: 24px; margin: 12px 0 }
h2 { font-size: 15px; margin: 0 0 8px; color: var(--soft) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin: 16px 0 }
.chosen { background: light-dark(#e8effd, #26344f); border-color: var(--accent) }
.name { display: block; margin-top: 12px; padding-top: 10px; border-top: 1px solid var(--line); overflow-wrap: anywhere }
.row { display: flex; flex-wrap: wrap; gap: 10px; margin: 12px 0 32px }
button { padding: 9px 18px }
.main { background: var(--accent); border-color: var(--accent); color: var(--card) }
.vote { position: sticky; bottom: 0; margin: 0; padding: 12px 0; background: var(--paper) }  /* in sight under long answers */
.vote button { flex: 1 1 160px }
table { border-collapse: collapse; width: 100%; background: var(--card) }
th, td { padding: 9px 12px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { color: var(--soft); font-weight: 600; font-size: 15px }
.wide { text-align: left; white-space: normal; overflow-wrap: anywhere }
svg { display: block; width: 240px; height: 22px }
@media (max-width: 680px) { .pair { grid-template-columns: 1fr } }
"""

# The arrow keys vote for a side; alone, so that Alt and the left one still goes back.
SCRIPT = """addEventListener("keydown", key => {
  const side = {ArrowLeft: "left", ArrowRight: "right"}[key.key]
  if (side && !(key.altKey || key.ctrlKey || key.metaKey || key.shiftKey || key.repeat))
    document.querySelector(`button[name=vote][value=${side}]`)?.click()
})"""
ALLOWED = f"{POLICY}; {only_script(SCRIPT)}"

VOTES = {"left": "← Left is better", "tie": "Equally good", "both bad": "Both are bad", "right": "Right is better →"}


@dataclass
class Battle:
    """One question and two answers; names and answers by side, "left" and "right"; the vote once it is cast."""

    question: str
    names: dict[str, str]
    answers: dict[str, str]
    vote: str | None = None


def page(title: str, body: str) -> str:
    """A whole page around a body that is HTML already."""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
            f'<style>{STYLE}{ARENA_STYLE}</style><script>{SCRIPT}</script></head>'
            f'<body><header><b>Arena</b><a href="/">Ask</a><a href="/ratings">Ratings</a></header><main>{body}</main></body>'
            "</html>")


def ask_form(has_questions: bool, typed: str = "") -> str:
    """Where the next question is typed, or taken from the file."""
    from_file = '<button name="next" value="1" formnovalidate>Next question from the file</button>' if has_questions else ""
    return ('<form method="post" action="/ask"><textarea name="question" rows="3" required aria-label="Question" '
            f'placeholder="Ask both models something">{escape(typed)}</textarea>'
            f'<div class="row"><button class="main">Ask both models</button>{from_file}</div></form>')


def ask_page(has_questions: bool, problem: str = "", typed: str = "") -> str:
    """The first page; `problem` says why the last question was not asked."""
    notice = f'<p class="card" role="alert">{escape(problem)}</p>' if problem else ""
    return page("Arena", "<h1>Ask two models, and say which answer is better</h1>"
                         '<p class="soft">You learn which models they were after your vote.</p>'
                         f"{notice}{ask_form(has_questions, typed)}")


def battle_page(battle_id: str, battle: Battle, has_questions: bool) -> str:
    """A question with two answers: without names and with the voting buttons, or, after the vote, with names."""
    cards = []
    for side, short in zip(battle.names, short_names([*battle.names.values()])):
        name = f'<span class="name" title="{escape(battle.names[side])}"><b>{escape(short)}</b></span>' if battle.vote else ""
        text = escape(battle.answers[side]) or '<span class="soft">(an empty answer)</span>'
        cards.append(f'<section id="{side}" class="card{" chosen" if battle.vote == side else ""}"><h2>{side.title()}</h2>'
                     f'<p class="text">{text}</p>{name}</section>')
    if battle.vote:
        below = f'<p id="voted">You voted: <b>{escape(VOTES[battle.vote].strip("← →"))}</b>.</p>{ask_form(has_questions)}'
    else:
        buttons = "".join(f'<button name="vote" value="{kind}">{text}</button>' for kind, text in VOTES.items())
        below = (f'<form method="post" action="/vote" class="row vote"><input type="hidden" name="battle" '
                 f'value="{escape(battle_id)}">{buttons}</form>')
    heading = "Now you know who wrote what" if battle.vote else "Which answer is better?"
    return page("Arena", f'<h1>{heading}</h1><section class="card"><h2>Question</h2><p class="text">'
                         f'{escape(battle.question)}</p></section><div class="pair">{"".join(cards)}</div>{below}')


def interval_picture(rating: Rating, low: float, high: float) -> str:
    """A rating and its interval on a scale from `low` to `high`."""
    def x(value: float) -> float:
        return 6 + 228 * (value - low) / (high - low)

    return (f'<svg viewBox="0 0 240 22" aria-hidden="true"><path d="M{x(CENTRE):.1f} 0V22" stroke="var(--soft)" '
            f'stroke-dasharray="3 3"/><path d="M{x(rating.low):.1f} 11H{x(rating.high):.1f}" stroke="var(--accent)" '
            f'stroke-width="4" stroke-linecap="round" opacity=".45"/><circle cx="{x(rating.rating):.1f}" cy="11" r="5.5" '
            'fill="var(--accent)"/></svg>')


def ratings_page(ratings: list[Rating], votes: int) -> str:
    """All models, the best first."""
    if not ratings:
        return page("Ratings", '<h1>Ratings</h1><p>There are no votes yet.</p>')
    low = min(CENTRE - 50, *(rating.low for rating in ratings))
    high = max(CENTRE + 50, *(rating.high for rating in ratings))
    rows = "".join(
        f'<tr><td>{place}</td><td class="wide" title="{escape(r.name)}">{escape(short)}</td><td><b>{r.rating:.0f}</b></td>'
        f'<td>{r.low:.0f} to {r.high:.0f}</td><td>{interval_picture(r, low, high)}</td><td>{r.wins}</td><td>{r.ties}</td>'
        f'<td>{r.losses}</td></tr>'
        for place, (r, short) in enumerate(zip(ratings, short_names([r.name for r in ratings])), 1))
    return page("Ratings", f'''<h1>Ratings from {votes} vote{"s" if votes > 1 else ""}</h1>
<div class="scroll"><table><thead><tr><th></th><th class="wide">Model</th><th>Rating</th><th>95 % interval</th><th></th>
<th>Won</th><th>Tied</th><th>Lost</th></tr></thead><tbody>{rows}</tbody></table></div>
<p class="soft">Bradley-Terry ratings: {CENTRE:.0f} is the models' mean (dashed), and 400 points more are odds of ten to
one. A tie is half a win for each, and so is “both bad”; every pair begins with one tie. Intervals hold the middle 95 % of
{DRAWS:,} bootstrap samples of the votes. They are too narrow while there are few votes, or votes that all agree.</p>''')
