"""What a forked process needs, imported before the fork."""

import specdec.cli
import specdec.commands.train
import specdec.training.data
import specdec.training.formats.text
import specdec.training.logs
import specdec.training.trainer  # noqa: F401
