"""`semicl embed`."""

from semicl.commands.command import Command
from semicl.config import options, part
from semicl.console import conclude
from semicl.data.prepared import read_prepared
from semicl.files import output_file, require_checkpoint
from semicl.options import EmbedOptions


@options
class Embed(EmbedOptions, Command):
    """A picture of pixel features by class, before and after pre-training."""

    def run(self) -> None:
        require_checkpoint(self.checkpoint)
        prepared = read_prepared(self.prepared)
        if self.split is not None:
            prepared.split(self.split)
        output_file(self.output, [self.checkpoint, *prepared.files()], overwrite=self.overwrite)

        from semicl.evaluation.embedding import draw_embedding
        from semicl.models.checkpoint import read_card

        conclude("Embedding", draw_embedding(part(EmbedOptions, self), read_card(self.checkpoint), prepared))
