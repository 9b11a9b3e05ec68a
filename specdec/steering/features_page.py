"""An SAE's features as one self-contained HTML page."""

from collections.abc import Sequence
from html import escape

from specdec.pages import page
from specdec.steering.features import Feature, Snippet
from specdec.steering.sae import SAE

STYLE = """
td, td:first-child { text-align: left; }
code { font: 12px/1.6 ui-monospace, monospace; white-space: pre-wrap; }
mark { background: #ffd766; border-radius: 2px; }
.token { background: #eef0f3; border-radius: 3px; padding: 0 .3em; margin-right: .3em; }
.snippet { display: block; border-left: 3px solid #eef0f3; padding-left: .5em; margin-bottom: .2em; }
"""


def features_page(sae: SAE, features: Sequence[Feature], tokens: int, model: str) -> str:
    """tokens: how many the figures are over."""
    rows = "".join(_row(feature) for feature in features)
    return page(
        f"Features of {sae.name}",
        f"<p>Model {escape(model)}, layer {sae.layer}; {escape(str(sae.activation))}; {len(features):,} of "
        f"{sae.num_features:,} features, over {tokens:,} tokens. Density: share of tokens on which a feature is "
        "active. Promotes: tokens whose logits its direction raises by itself.</p>"
        "<table><thead><tr><th>feature</th><th>density</th><th>highest</th><th>active on</th><th>promotes</th>"
        f"<th>where it is most active</th></tr></thead><tbody>{rows}</tbody></table>",
        STYLE,
    )


def _row(feature: Feature) -> str:
    cells = (
        f"<b>{feature.id}</b>", f"{feature.density:.3%}", f"{feature.highest:.4g}", _tokens(feature.tokens[:5]),
        _tokens(feature.promotes), "".join(map(_snippet, feature.snippets)),
    )  # fmt: skip
    return f"<tr id='f{feature.id}'>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _tokens(tokens: Sequence[str]) -> str:
    return "".join(f"<code class='token'>{_visible(token)}</code> " for token in tokens)


def _snippet(snippet: Snippet) -> str:
    before, token, after = map(_visible, (snippet.before, snippet.token, snippet.after))
    title = f"{snippet.activation:.4g}"
    return f"<code class='snippet' title='{title}'>{before}<mark>{token}</mark>{after}</code>"


def _visible(text: str) -> str:
    """Line ends as a sign: a snippet is one line."""
    return escape(text.replace("\n", "⏎").replace("\t", "⇥"))
