"""`semicl embed`: a picture of pixel features coloured by class, before and after pre-training."""

from semicl.console import conclude
from semicl.data.prepared import read_prepared
from semicl.files import output_file, require_checkpoint
from semicl.options import EmbedOptions


def embed(options: EmbedOptions) -> None:
    """Draw the decoder's features of validation pixels, for the random start and for the checkpoint.

    Raises:
        SemiclError: the checkpoint or the prepared folder cannot be used, they do not belong together, or the picture
            may not be written.
    """
    require_checkpoint(options.checkpoint)
    prepared = read_prepared(options.prepared)
    if options.split is not None:
        prepared.split(options.split)
    output_file(options.output, [options.checkpoint, *prepared.files()], overwrite=options.overwrite)

    from semicl.evaluation.embedding import draw_embedding
    from semicl.models.checkpoint import read_card

    conclude("Embedding", draw_embedding(options, read_card(options.checkpoint), prepared))
