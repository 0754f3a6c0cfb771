"""The page: what is typed on the left, what comes of it on the right. The right side is drawn in the browser by
viewer.js from what `answers.answer` gives, so that pointing, switching words and fading ask nothing of the server."""
import html
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gradio

from models.class_names import PROMPT_SETS
from models.inference import Segmenter
from tools.web_page.answers import Limits, answer
from tools.web_page.examples import Example

HERE = Path(__file__).parent
FONTS = ['system-ui', 'sans-serif']  # of the visitor's machine: nothing is fetched
THEME = gradio.themes.Default(
    primary_hue='blue', neutral_hue='slate', font=FONTS, font_mono=['ui-monospace', 'monospace']
).set(block_info_text_color='*neutral_600', block_info_text_color_dark='*neutral_300')
CSS = (HERE / 'page.css').read_text(encoding='utf-8')
KEPT = 3600  # seconds that uploaded files are kept


def build(segmenter: Segmenter, limits: Limits, *, name: str, examples: list[Example]) -> gradio.Blocks:
    """The page of a model.

    Args:
        name: of its file, to be shown.
        examples: the first is shown when the page opens; without any the model is taken for one of photographs.
    """
    worker = ThreadPoolExecutor(1)  # always the same thread: each would keep memory of its own
    typed = {'lines': 1, 'max_lines': 6, 'max_length': 5 * limits.characters}  # `answer` says what is too much
    one_at_a_time = {'concurrency_limit': 1, 'concurrency_id': 'model'}
    with gradio.Blocks(title='CLIP-RC', analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True) as page:
        gradio.HTML(_heading(segmenter, name, drawn=bool(examples)), elem_classes='heading')
        with gradio.Row(elem_classes='columns'):
            with gradio.Column(scale=2, min_width=320):
                file = gradio.File(label=f'ImageSource (up to {limits.pixels / 1e6:g} million pixels)', height=170,
                                   elem_id='image')
                words = gradio.Textbox(label='Words', elem_id='words', **typed,
                                       info='Commas between them; | between names of one thing: sofa|couch',
                                       value='' if examples else _first_words(segmenter))
                button = gradio.Button('Segment', variant='primary', elem_id='segment')
                with gradio.Accordion('Compare, and other options', open=False, elem_id='options'):
                    other_words = gradio.Textbox(label='Second list of words', elem_id='other_words', **typed,
                                                 info='Its result is shown beside the first')
                    anything_else = gradio.Textbox(
                        label='Anything else', elem_id='anything_else', max_length=typed['max_length'],
                        info='Words for what you do not look for: pixels that fit one of them best take no word')
                    threshold = gradio.Slider(0, 1, 0.1 if examples else 0, step=0.01, label='Least score',
                                              info='Pixels below it take no word', elem_id='threshold')
                    prompts = gradio.Dropdown([('as in training', ''), *((each, each) for each in PROMPT_SETS)],
                                              value='', label='Prompts', elem_id='prompts',
                                              info='The texts that words are put into')
                images = []
                if examples:
                    gradio.HTML('Examples', elem_classes='caption')
                    with gradio.Row(elem_id='examples'):
                        images = [gradio.Button(example.words, icon=str(example.file), size='sm', min_width=60)
                                    for example in examples]
                    for image in images:
                        image.keep_in_cache.update(image.temp_files)  # as long as the server runs
            with gradio.Column(scale=5, min_width=320):
                viewer = gradio.HTML(None, html_template=(HERE / 'viewer.html').read_text(encoding='utf-8'),
                                     js_on_load=(HERE / 'viewer.js').read_text(encoding='utf-8'), elem_id='viewer')

        def look(file):
            return worker.submit(answer, segmenter, limits, file).result()

        def segment(file, words, other_words, anything_else, prompts, threshold):
            lists = [words or ''] + ([other_words] if (other_words or '').strip() else [])  # an untouched box is None
            return worker.submit(answer, segmenter, limits, file, lists, anything_else=anything_else or '',
                                 prompts=prompts, threshold=threshold).result()

        asked = dict(fn=segment, inputs=[file, words, other_words, anything_else, prompts, threshold], outputs=viewer,
                     **one_at_a_time)
        button.click(**asked, api_name='segment')
        for box in (words, other_words, anything_else):
            box.submit(**asked, api_visibility='private')
        file.upload(look, file, viewer, api_name='look', **one_at_a_time)

        def take(example: Example):
            return str(example.file), example.words, ''

        for image, example in zip(images, examples, strict=True):
            image.click(partial(take, example), outputs=[file, words, other_words], api_visibility='private'
                          ).then(**asked, api_visibility='private')
        if examples:
            page.load(partial(take, examples[0]), outputs=[file, words, other_words], api_visibility='private'
                      ).then(**asked, api_visibility='private')
    return page


def _first_words(segmenter: Segmenter) -> str:
    """Some classes of the training as they are typed."""
    return ', '.join(name.replace(', ', '|') for name in segmenter.class_names[:8])


def _heading(segmenter: Segmenter, name: str, *, drawn: bool) -> str:
    classes = len(segmenter.class_names)
    told = f'CLIP-RC trained on {classes} classes' if classes else 'a CLIP-RC that does not tell its classes'
    if segmenter.seen_names:
        told += f', {len(segmenter.seen_names)} of them with masks, which it prefers a little'
    note = ('<strong>This small model knows its own drawn world only: colours with paint, stripes, dots or checks. '
            'On photographs it is useless.</strong>') if drawn else ''
    return (f'<h1>CLIP-RC</h1><p>Name things; each pixel takes the word that fits it best.</p>'
            f'<p class="model">Model: <code>{html.escape(name)}</code>, {told}. {note}</p>')
