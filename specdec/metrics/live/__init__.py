"""A page that shows a server's figures as they come in, served beside its /metrics, which it reads every two seconds.

One document: nothing in it is loaded from elsewhere, and it sends nothing anywhere.
"""

from functools import cache
from importlib import resources

SCRIPTS = ("scrape.js", "figures.js", "charts.js", "page.js")  # in this order: each uses those before it
# The document may run what it holds and ask its own server, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def document() -> str:
    """The whole page, as HTML. It asks for `metrics` beside its own address."""
    files = resources.files(__package__)
    scripts = "\n".join(files.joinpath(name).read_text("utf-8") for name in SCRIPTS)
    page = files.joinpath("page.html").read_text("utf-8")
    return page.replace("/* style.css */", files.joinpath("style.css").read_text("utf-8")).replace(
        "/* scripts */", scripts
    )
