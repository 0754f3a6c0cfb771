"""Lays out the page: inputs on the left, results on the right.

viewer.js draws the results in the browser from what `answers.answer` returns, so that pointing at pixels, switching
classes and fading need no further request.
"""
import html
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gradio

from models.class_names import PROMPT_SETS
from models.colours import heat_table
from models.inference import Segmenter
from tools.engine.model_arguments import THRESHOLD
from tools.web_page.answers import Limits, answer, explanation
from tools.web_page.limits import CHARACTERS, KEPT

HERE = Path(__file__).parent
FONTS = ['system-ui', 'sans-serif']  # of the visitor's machine, so that none is downloaded
THEME = gradio.themes.Default(
    primary_hue='blue', neutral_hue='slate', font=FONTS, font_mono=['ui-monospace', 'monospace']
).set(block_info_text_color='*neutral_600', block_info_text_color_dark='*neutral_300')
CSS = (HERE / 'page.css').read_text(encoding='utf-8')


def build(segmenter: Segmenter, limits: Limits, *, name: str, examples: dict[str, str]) -> gradio.Blocks:
    """Build the page of a model.

    Args:
        name: of its file, to be shown.
        examples: image file -> class names; the first one is shown when the page opens. Without any the model is one
            for photographs.
    """
    worker = ThreadPoolExecutor(1)  # always the same thread, as each would keep memory of its own
    text = {'lines': 1, 'max_lines': 6, 'max_length': 5 * CHARACTERS}  # `answer` reports what is too long
    queue = {'concurrency_limit': 1, 'concurrency_id': 'model'}
    with gradio.Blocks(title='CLIP-RC', analytics_enabled=False, delete_cache=(KEPT, KEPT), fill_width=True) as page:
        gradio.HTML(_heading(segmenter, name), elem_classes='heading')
        with gradio.Row(elem_classes='columns'):
            with gradio.Column(scale=2, min_width=320):
                file = gradio.UploadButton('Choose an image', elem_id='image')
                gradio.HTML(f'or drop one anywhere, or paste it; up to {limits.pixels / 1e6:g} million pixels',
                            elem_classes='caption')
                class_names = gradio.Textbox(label='Class names', elem_id='class_names', **text,
                                             info='Separated by commas; | between names of one class: sofa|couch',
                                             value='' if examples else ', '.join(
                                                 name.replace(', ', '|') for name in segmenter.class_names[:8]))
                button = gradio.Button('Segment', variant='primary', elem_id='segment')
                with gradio.Accordion('Minimum score and other options', open=False, elem_id='options'):
                    threshold = gradio.Slider(0, 1, THRESHOLD, step=0.01, label='Minimum score',
                                              info='Pixels below it are left unlabelled', elem_id='threshold')
                    compared_names = gradio.Textbox(label='Second list of class names', elem_id='compared_names',
                                                    info='Its result is shown beside the first', **text)
                    background = gradio.Textbox(label='Background', elem_id='background',
                                                max_length=text['max_length'],
                                                info='Classes whose pixels are left unlabelled')
                    prompts = gradio.Dropdown([('as in training', ''), *((each, each) for each in PROMPT_SETS)],
                                              value='', label='Prompts', elem_id='prompts',
                                              info='The texts that class names are put into')
            with gradio.Column(scale=5, min_width=320):
                viewer = gradio.HTML(None, html_template=(HERE / 'viewer.html').read_text(encoding='utf-8'),
                                     js_on_load=(HERE / 'viewer.js').read_text(encoding='utf-8'), elem_id='viewer',
                                     heat=heat_table().tolist())
            buttons = []
            if examples:
                gradio.set_static_paths([*examples])  # kept as long as the server runs
                with gradio.Column(elem_id='examples'):
                    gradio.HTML('Examples', elem_classes='caption')
                    with gradio.Row():
                        buttons = [gradio.Button(names, icon=example, size='sm', min_width=60)
                                   for example, names in examples.items()]

        def look(file):
            return worker.submit(answer, segmenter, limits, file).result()

        def segment(file, class_names, compared_names, background, prompts, threshold):
            lists = [class_names or '', *([compared_names] if (compared_names or '').strip() else [])]
            # The value of an untouched box is None.
            return worker.submit(answer, segmenter, limits, file, lists, background=background or '',
                                 prompts=prompts or '', threshold=threshold).result()

        def explain(file, event: gradio.EventData):
            return {'explanation': worker.submit(explanation, segmenter, limits, file, event.asked).result(),
                    'asked': event.asked}

        def use(file, class_names):
            return file, class_names, ''

        request = dict(fn=segment, inputs=[file, class_names, compared_names, background, prompts, threshold],
                       outputs=viewer, **queue)
        button.click(**request, api_name='segment')
        for box in (class_names, compared_names, background):
            box.submit(**request, api_visibility='private')
        threshold.release(**request, api_visibility='private')
        viewer.select(explain, file, viewer, api_visibility='private', **queue)
        file.upload(look, file, viewer, api_name='look', **queue)
        starts = [*zip([page.load], examples.items()),
                  *zip([button.click for button in buttons], examples.items(), strict=True)]
        for event, example in starts:
            event(partial(use, *example), outputs=[file, class_names, compared_names], api_visibility='private'
                  ).then(**request, api_visibility='private')
    return page


def _heading(segmenter: Segmenter, name: str) -> str:
    classes = len(segmenter.class_names)
    model = f'CLIP-RC trained on {classes} classes' if classes else 'CLIP-RC; its checkpoint does not name its classes'
    if segmenter.seen_names:
        model += f', {len(segmenter.seen_names)} of them with masks'
    note = f'<strong>{html.escape(segmenter.note)}</strong>' if segmenter.note else ''
    return (f'<h1>CLIP-RC</h1><p>Name classes; each pixel gets the one that scores best.</p>'
            f'<p class="model">Model: <code>{html.escape(name)}</code>, {model}. {note}</p>')
