"""Arguments of the commands that run a model on any image. Light: torch is imported when a model is loaded."""
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tools.engine.arguments import IS_RUN

if TYPE_CHECKING:
    from models.inference import Segmenter


THRESHOLD = 0.1  # default of the commands: what the model hardly recognises is left unlabelled
SHOWN = 5  # class names in a message


def fraction(text: str) -> float:
    """Parse a number from 0 to 1 on a command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f'{text!r} is not a number between 0 and 1')
    return value


def add_model_arguments(parser: ArgumentParser, default: Path | None = None) -> None:
    """Add the arguments that `load_segmenter` reads.

    Args:
        default: the checkpoint to use without --checkpoint; without it the argument is required.
    """
    parser.add_argument('--checkpoint', metavar='CKPT', required=default is None, default=default and str(default),
                        help='a checkpoint of this project or of the authors, a slim one made by tools/export.py, or a '
                             'name of tools/download.py' + (' (default: the miniature\'s model)' if default else ''))
    add_source_arguments(parser)
    parser.add_argument('--device', help='for example cuda:1 or cpu (default: a GPU if there is one)')
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='autocast to this type (default: float32)')


def add_source_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that name a checkpoint's config and CLIP file."""
    parser.add_argument('--config', help=f'config of its training; {IS_RUN} (default: the one in the checkpoint, which '
                                         'is read as data)')
    parser.add_argument('--clip', metavar='FILE', help='CLIP file for new class names, if the checkpoint has no text '
                                                       'tower (default: the one of the config)')


def add_class_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that `segment_options` reads."""
    parser.add_argument('--classes', '--words', metavar='NAMES',
                        help='"cat, sofa|couch, potted plant", with | between names of one class; or a text file with '
                             'one class a line, such as "sofa, couch" (default: the classes of the training)')
    parser.add_argument('--background', '--anything-else', default='', metavar='NAMES',
                        help='classes such as "wall, floor" whose pixels are left unlabelled')
    parser.add_argument('--threshold', type=fraction, metavar='SCORE', default=THRESHOLD,
                        help='leave pixels unlabelled whose best score is lower; 0 labels all (default: %(default)s)')
    parser.add_argument('--prompts', metavar='SET', help='a prompt set, or a text file of prompts (default: that of '
                                                         'the training)')


def load_segmenter(args: Namespace) -> 'Segmenter':
    """Load the model that the command line names."""
    from models.inference import load_model
    return load_model(args.checkpoint, args.config, clip=args.clip,
                      device=args.device, amp=args.amp)


def segment_options(args: Namespace) -> dict:
    """Return the options of `Segmenter.segment` that the command line gives. Names that come twice are logged.

    Raises:
        UserError: there are no class names, or too many; see also `read_class_names`.
    """
    names = read_class_names(args.classes)
    return {'class_names': names and _cleaned(names), 'prompts': args.prompts, 'background': args.background,
            'threshold': args.threshold or None}


def _cleaned(names: list[str]) -> list[str]:
    from mmseg.utils import get_root_logger

    from models.class_names import clean_class_names, synonyms
    from models.label_format import label_format
    each = [cleaned for name in names for cleaned in clean_class_names([name], allow_empty=True)]
    unique = clean_class_names(each)
    label_format(len(unique))  # raises if there are too many
    for names, problem in ((each, 'classes that come more than once, and count once'),
                           ([part for name in unique for part in synonyms(name)],
                            'names that belong to several classes')):
        repeated = [name for name, count in Counter(map(str.casefold, names)).items() if count > 1]
        if repeated:
            get_root_logger().warning('%s (%d): %s', problem, len(repeated),
                                      '; '.join(repeated[:SHOWN]) + ('; …' if repeated[SHOWN:] else ''))
    return unique


def read_class_names(text: str | None) -> list[str] | None:
    """Read the class names of a command line, which may name a text file (.txt) of them.

    Raises:
        UserError: there is no such file, or it is empty or not text.
    """
    from mmseg.utils import get_root_logger

    from models.class_names import lines_of, parse_class_names
    from models.errors import UserError
    if text is None or not text.endswith('.txt'):
        return None if text is None else parse_class_names(text)
    if not Path(text).is_file():
        raise UserError(f'no file {text} of class names.')
    names = lines_of(text, 'class names')
    if len(names) == 1 and len(parse_class_names(names[0])) > 1:
        get_root_logger().warning('%s has one line, and so one class (commas separate its names): %s', text, names[0])
    return names
