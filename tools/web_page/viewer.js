// Draws what answers.py returns (see `answer` there): one view for each list of class names, or only the image.
// `element`, `props`, `trigger` and `watch` are Gradio's. Text of visitors is set as textContent, never as HTML.
const find = (selector, root = element) => root.querySelector(selector);
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;
let views = [];
let turn = 0; // number of the newest answer, which replaces older ones

async function show(answer) {
  const mine = ++turn;
  const message = find('.message');
  message.textContent = answer?.error ?? '';
  message.hidden = !answer?.error;
  views = [];
  find('.views').replaceChildren();
  find('.bar').hidden = find('.next').hidden = true;
  if (!answer?.image) return;
  const image = new Image();
  image.src = answer.image;
  await image.decode();
  const made = await Promise.all((answer.results.length ? answer.results : [null]).map(
    (result) => makeView(answer, image, result)));
  if (mine !== turn) return;
  views = made;
  find('.bar').hidden = !answer.results.length;
  find('.next').hidden = !find('.bar').hidden;
  find('.views').replaceChildren(...views.map((view) => view.root));
}

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}

// Returns the labels and scores of all pixels, row by row, and the smaller score maps of all classes.
async function unpack(answer, result) {
  const bytes = await inflate(result.maps);
  const pixels = answer.width * answer.height;
  const labels = bytes.byteLength > 2 * pixels ? new Uint16Array(bytes, 0, pixels) : new Uint8Array(bytes, 0, pixels);
  const maps = new Uint8Array(await inflate(result.heat.maps));
  const most = maps.reduce((one, other) => Math.max(one, other), 1);
  return { labels, scores: new Uint8Array(bytes, labels.byteLength),
    heat: { ...result.heat, maps, top: Math.ceil(most / 25.5) / 10 } }; // all classes have the same colour bar
}

async function makeView(answer, image, result) {
  const root = find('template').content.firstElementChild.cloneNode(true);
  const canvas = find('canvas', root);
  const view = { root, canvas, answer, image, result, label: null, lines: new Map(), explanations: new Map() };
  [canvas.width, canvas.height] = [answer.width, answer.height];
  canvas.classList.toggle('small', answer.width < 300); // enlarged without smoothing
  find('.stage', root).style.setProperty('--shape', answer.width / answer.height);
  if (!result) {
    root.replaceChildren(find('.stage', root));
    find('.stage', root).removeAttribute('tabindex');
    canvas.getContext('2d').drawImage(image, 0, 0);
    return view;
  }
  Object.assign(view, await unpack(answer, result));
  view.classes = result.summary.classes;
  view.shown = new Set(view.classes.map((entry) => entry.label));
  view.colours = new OffscreenCanvas(answer.width, answer.height);
  fillLegend(view);
  for (const [name, all] of [['.all', true], ['.none', false]]) {
    find(name, root).onclick = () => {
      view.shown = new Set(all ? view.classes.map((entry) => entry.label) : []);
      for (const box of root.querySelectorAll('.legend input')) box.checked = all;
      showHeat(view, null);
      paint(view);
    };
  }
  find('.scale i', root).style.background = `linear-gradient(to right, ${props.heat.map((colour) => `rgb(${colour})`)})`;
  find('.scale .top', root).textContent = view.heat.top.toFixed(1);
  find('.explain', root).onclick = () => askForExplanation(view);
  find('.overlay', root).onclick = () => withLegend(view).toBlob(
    (blob) => download(view, view.label === null ? 'overlay.png' : 'scores.png', blob));
  find('.labels', root).onclick = async () => download(view, 'labels.png', await (await fetch(result.labels)).blob());
  find('.json', root).onclick = () => download(view, 'json', new Blob(
    [JSON.stringify(result.summary, null, 1) + '\n'], { type: 'application/json' }));
  const stage = find('.stage', root);
  stage.onpointermove = stage.onpointerdown = (event) => {
    const box = canvas.getBoundingClientRect();
    point(Math.floor((event.clientX - box.left) / box.width * answer.width),
      Math.floor((event.clientY - box.top) / box.height * answer.height));
  };
  stage.onkeydown = (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const size = [answer.width, answer.height];
    view.at = (view.at ?? size.map((side) => side / 2)).map((place, axis) => Math.min(size[axis] - 1, Math.max(
      0, Math.floor(place + step[axis] * Math.ceil(size[axis] / 50)))));
    point(...view.at);
  };
  stage.onblur = () => point(-1, -1);
  stage.onpointerleave = (event) => { if (event.pointerType === 'mouse') point(-1, -1); };
  paint(view);
  return view;
}

// One line for each class, largest first; classes without pixels come last, without a score.
function fillLegend(view) {
  const lines = [...view.classes].sort((one, other) => other.pixels - one.pixels).map((entry) => {
    const line = document.createElement('li');
    const box = line.appendChild(document.createElement('input'));
    box.type = 'checkbox';
    box.checked = true;
    box.ariaLabel = `Show ${entry.name}`;
    box.onchange = () => { view.shown[box.checked ? 'add' : 'delete'](entry.label); showHeat(view, null); paint(view); };
    const button = line.appendChild(document.createElement('button'));
    button.type = 'button';
    button.ariaPressed = 'false';
    button.onclick = () => showHeat(view, view.label === entry.label ? null : entry.label);
    view.lines.set(entry.label, button);
    button.appendChild(document.createElement('i')).style.background = `rgb(${entry.colour})`;
    const text = button.appendChild(document.createElement('span'));
    text.textContent = text.title = entry.name;
    text.dir = 'auto';
    const area = button.appendChild(document.createElement('b'));
    area.textContent = percent(entry.area);
    const score = button.appendChild(document.createElement('small'));
    score.textContent = entry.mean_score === null ? '' : `score ${entry.mean_score.toFixed(2)}`;
    line.classList.toggle('absent', !entry.pixels);
    return line;
  });
  find('.legend', view.root).replaceChildren(...lines);
  const { unlabelled, warning } = view.result.summary;
  const rest = find('.unlabelled', view.root);
  rest.hidden = !unlabelled.pixels;
  rest.textContent = `Unlabelled: ${percent(unlabelled.area)}`;
  const doubt = find('.warning', view.root);
  doubt.hidden = !warning;
  doubt.textContent = warning ? warning[0].toUpperCase() + warning.slice(1) : '';
}

// Shows the score map of a class instead of the colours of all classes; null: the colours.
function showHeat(view, label) {
  view.label = label;
  for (const [each, line] of view.lines) line.ariaPressed = String(each === label);
  find('.heat', view.root).hidden = label === null;
  find('.explanation', view.root).hidden = true;
  find('.overlay', view.root).textContent = label === null ? 'Overlay' : 'Score map';
  if (label !== null) {
    find('.heat b', view.root).textContent = view.classes[label].name;
    const { width, height, maps, top } = view.heat;
    view.map = new OffscreenCanvas(width, height);
    const context = view.map.getContext('2d');
    const image = context.createImageData(width, height);
    maps.subarray(label * width * height, (label + 1) * width * height).forEach(
      (score, place) => image.data.set([...props.heat[Math.round(score / top)], 255], 4 * place));
    context.putImageData(image, 0, 0);
    if (view.explanations.has(label)) showExplanation(view, view.explanations.get(label));
  }
  draw(view);
}

function askForExplanation(view) {
  const { lists, ...asked } = view.answer.asked;
  const number = views.indexOf(view);
  trigger('select', { asked: { ...asked, names: lists[number], label: view.label, view: number, turn } });
}

// Shows what region clues contribute to the class of the score map, once it came.
function explain({ explanation, asked }) {
  const view = asked.turn === turn && views[asked.view];
  if (!view) return;
  if (!explanation.error) view.explanations.set(asked.label, explanation);
  if (view.label === asked.label) showExplanation(view, explanation);
}

function showExplanation(view, { text, figure, error }) {
  const panel = find('.explanation', view.root);
  panel.hidden = false;
  find('p', panel).textContent = error ?? text;
  find('.figure', panel).hidden = Boolean(error);
  if (error) return;
  find('img', panel).src = figure;
  find('img', panel).alt = `Region clues for ${view.classes[view.label].name}`;
}

// Draws the colours of the classes that are switched on.
function paint(view) {
  const context = view.colours.getContext('2d');
  const image = context.createImageData(view.answer.width, view.answer.height);
  const table = new Uint32Array(65536); // label -> RGBA, transparent for hidden and unlabelled
  const bytes = new Uint8Array(table.buffer);
  for (const { label, colour } of view.classes) {
    if (view.shown.has(label)) bytes.set([...colour, 255], 4 * label);
  }
  const pixels = new Uint32Array(image.data.buffer);
  for (let place = 0; place < pixels.length; place++) pixels[place] = table[view.labels[place]];
  context.putImageData(image, 0, 0);
  draw(view);
}

function draw(view) {
  const context = view.canvas.getContext('2d');
  context.globalAlpha = 1;
  context.drawImage(view.image, 0, 0, view.canvas.width, view.canvas.height);
  context.globalAlpha = find('.opacity').value / 100;
  context.drawImage(view.label === null ? view.colours : view.map, 0, 0, view.canvas.width, view.canvas.height);
  view.canvas.ariaLabel = view.label !== null ? `Scores of ${view.classes[view.label].name}` : view.classes.filter(
    (entry) => entry.pixels).map(({ name, area }) => `${name} ${percent(area)}`).join(', ');
}

// Shows the class and score of a pixel in all views; hides them outside the image.
function point(x, y) {
  for (const view of views) {
    const { width, height } = view.answer;
    const [mark, tip] = [find('.mark', view.root), find('.tip', view.root)];
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    mark.hidden = tip.hidden = !inside;
    if (!inside) continue;
    const label = view.label ?? view.labels[y * width + x];
    const name = view.classes[label]?.name ?? 'unlabelled';
    const score = view.label === null ? view.scores[y * width + x] : view.heat.maps[
      (label * view.heat.height + Math.floor(y * view.heat.height / height)) * view.heat.width
      + Math.floor(x * view.heat.width / width)];
    tip.textContent = `${name} · ${(score / 255).toFixed(2)}`;
    const [left, top] = [(x + 0.5) / width, (y + 0.5) / height];
    for (const part of [mark, tip]) Object.assign(part.style, { left: `${100 * left}%`, top: `${100 * top}%` });
    tip.classList.toggle('leftwards', left > 0.5);
    tip.classList.toggle('upwards', top > 0.5);
  }
}

// Returns the canvas, and below it a legend of the classes that it shows, or the colour bar of the score map.
function withLegend(view) {
  const classes = view.label !== null ? [] : view.classes.filter(
    (entry) => view.shown.has(entry.label) && (entry.pixels || view.classes.length <= 30))
    .sort((one, other) => other.pixels - one.pixels);
  const size = Math.max(12, Math.round(Math.min(view.canvas.width, view.canvas.height) / 28));
  const [line, font] = [Math.round(1.6 * size), `${size}px system-ui, sans-serif`];
  const sheet = document.createElement('canvas');
  const context = sheet.getContext('2d');
  context.font = font;
  const short = (name) => (name.length > 40 ? `${name.slice(0, 39)}…` : name);
  const texts = view.label !== null ? [`0 to ${view.heat.top.toFixed(1)}: ${short(view.classes[view.label].name)}`] :
    classes.map(({ name, area }) => `${short(name)} ${percent(area)}`);
  const swatch = view.label === null ? size : 4 * size;
  const column = Math.ceil(Math.max(0, ...texts.map((text) => context.measureText(text).width))) + swatch + 2 * line - size;
  const columns = Math.max(1, Math.min(Math.floor(view.canvas.width / column), texts.length));
  sheet.width = Math.max(view.canvas.width, columns * column);
  sheet.height = view.canvas.height + Math.ceil(texts.length / columns) * line + size;
  context.fillStyle = 'white';
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.drawImage(view.canvas, 0, 0);
  Object.assign(context, { font, textBaseline: 'middle' }); // resizing the canvas resets them
  texts.forEach((text, place) => {
    const left = size / 2 + place % columns * column;
    const top = view.canvas.height + size / 2 + Math.floor(place / columns) * line;
    for (let x = 0; x < swatch; x++) {
      context.fillStyle = `rgb(${view.label === null ? classes[place].colour : props.heat[Math.floor(256 * x / swatch)]})`;
      context.fillRect(left + x, top + (line - size) / 2, 1, size);
    }
    context.fillStyle = 'black';
    context.fillText(text, left + swatch + line - size, top + line / 2);
  });
  return sheet;
}

function download(view, ending, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  const number = views.length > 1 ? `_${views.indexOf(view) + 1}` : '';
  link.download = `${view.answer.name}${number}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

find('.opacity').oninput = () => {
  find('.bar output').textContent = `${find('.opacity').value} %`;
  views.forEach(draw);
};
// Images that are dropped anywhere on the page, or pasted, are given to the button that chooses one.
function take(files) {
  const data = new DataTransfer();
  data.items.add(files[0]);
  const input = document.querySelector('input[type=file]');
  input.files = data.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}
const mark = (event, dropping) => {
  event.preventDefault();
  element.classList.toggle('dropping', dropping);
};
document.addEventListener('dragover', (event) => mark(event, true));
document.addEventListener('dragleave', (event) => mark(event, event.relatedTarget !== null));
document.addEventListener('drop', (event) => {
  mark(event, false);
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
});
document.addEventListener('paste', (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
watch('value', () => (props.value?.explanation ? explain : show)(props.value));
show(props.value);
