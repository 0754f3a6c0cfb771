"""Segments an image with an exported model: `python onnx_example.py FOLDER/model.onnx IMAGE LABELS.png`.

Needs numpy, pillow 10.1 or newer and onnxruntime, but nothing of this repository; model.json must lie beside the
model. For other classes, replace the rows of `text` and `penalty`.
"""
import argparse
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

parser = argparse.ArgumentParser(description='Segment an image with an exported model.')
parser.add_argument('model', help='model.onnx, with model.json beside it')
parser.add_argument('image', help='an image file')
parser.add_argument('labels', help='PNG file to write, with the index of each pixel\'s class')
args = parser.parse_args()
with open(args.model.removesuffix('.onnx') + '.json', encoding='utf-8') as file:
    facts = json.load(file)
text, penalty, mean, std = (np.array(facts[key], np.float32) for key in ('text', 'penalty', 'mean', 'std'))
session = onnxruntime.InferenceSession(args.model)

image = ImageOps.exif_transpose(Image.open(args.image))
if image.mode == 'F':
    sys.exit(f'{args.image} contains floats: save it with 8 or 16 bits.')
if image.mode.startswith('I'):  # keep the upper 8 of 16 bits
    image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
if image.has_transparency_data:  # transparent parts become white
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))
image = image.convert('RGB')
factor = facts['short_side'] / min(image.size)
size = [round(length * factor) for length in image.size]
pixels = ((np.asarray(image.resize(size, Image.Resampling.BILINEAR)) - mean) / std).transpose(2, 0, 1)

side, stride = facts['window'], facts['stride']
places = [[min(start, length - side) for start in range(0, length - side + stride, stride)]
          for length in pixels.shape[1:]]  # the last window is moved inwards
summed = np.zeros((len(text), *pixels.shape[1:]), np.float32)
count = np.zeros(pixels.shape[1:], np.float32)
for window in (np.s_[..., top:top + side, left:left + side] for top in places[0] for left in places[1]):
    scores, = session.run(None, {'image': pixels[window][None], 'text': text, 'penalty': penalty})
    summed[window] += scores[0]
    count[window] += 1
labels = (summed / count).argmax(axis=0)  # mean of the scores where windows overlap

kind = np.uint8 if len(text) < 256 else np.uint16
Image.fromarray(labels.astype(kind)).resize(image.size, Image.Resampling.NEAREST).save(args.labels)
for index, area in zip(*np.unique(labels, return_counts=True)):
    print(f'{area / labels.size:6.1%}  {facts["class_names"][index]}')
