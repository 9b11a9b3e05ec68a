"""Options on how data is read, the same for every command that reads some."""

from pathlib import Path
from typing import Annotated

import typer

TextField = Annotated[
    str | None, typer.Option(help="Field or column with the text, e.g. content. Default: token_ids, messages or text.")
]
MessagesField = Annotated[
    str | None, typer.Option(help="Field or column with a chat's messages. Default: messages or conversations.")
]
ChatTemplate = Annotated[
    Path | None, typer.Option(help="Jinja file that renders chats. Default: the tokenizer's own template.")
]
DATA = "A text file, .jsonl, .parquet, a folder of those, or what `datasets` saved with save_to_disk. Repeatable."
