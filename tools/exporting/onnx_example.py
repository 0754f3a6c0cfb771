"""Labels of an image by an exported model: `python onnx_example.py MODEL.onnx IMAGE LABELS.png`.

Needs numpy, pillow 10.1 and onnxruntime, nothing of this repository; MODEL.json lies beside the model. Other classes:
other rows of `text` and `penalty`.
"""
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, image_file, labels_file = sys.argv[1:]
with open(model.removesuffix('.onnx') + '.json', encoding='utf-8') as file:
    about = json.load(file)
text, penalty, mean, std = (np.array(about[key], np.float32) for key in ('text', 'penalty', 'mean', 'std'))
session = onnxruntime.InferenceSession(model)

image = ImageOps.exif_transpose(Image.open(image_file))
if image.mode == 'F':
    sys.exit(f'{image_file} holds floats: save it with 8 or 16 bits.')
if image.mode.startswith('I'):  # of 16 bits the upper 8
    image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
if image.has_transparency_data:  # transparent parts on white
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
image = image.convert('RGB')
factor = about['short_side'] / min(image.size)
size = [round(length * factor) for length in image.size]
pixels = ((np.asarray(image.resize(size, Image.Resampling.BILINEAR)) - mean) / std).transpose(2, 0, 1)

side, stride = about['window'], about['stride']
places = [[min(start, length - side) for start in range(0, length - side + stride, stride)]
          for length in pixels.shape[1:]]  # the last window is shifted inward
summed = np.zeros((len(text), *pixels.shape[1:]), np.float32)
count = np.zeros(pixels.shape[1:], np.float32)
for window in (np.s_[..., top:top + side, left:left + side] for top in places[0] for left in places[1]):
    scores, = session.run(None, {'image': pixels[window][None], 'text': text, 'penalty': penalty})
    summed[window] += scores[0]
    count[window] += 1
labels = (summed / count).argmax(axis=0)  # scores are averaged where windows overlap

kind = np.uint8 if len(text) < 256 else np.uint16
Image.fromarray(labels.astype(kind)).resize(image.size, Image.Resampling.NEAREST).save(labels_file)
for index, pixels_of_it in zip(*np.unique(labels, return_counts=True)):
    print(f'{pixels_of_it / labels.size:6.1%}  {about["classes"][index]}')
