// Draws what answers.py returns (see `answer` there): one view for each list of class names, or only the image.
// `element`, `props` and `watch` are Gradio's. Text of visitors is set as textContent, never as HTML.
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
  find('.bar').hidden = true;
  if (!answer?.image) return;
  const image = new Image();
  image.src = answer.image;
  await image.decode();
  const made = await Promise.all((answer.results.length ? answer.results : [null]).map(
    (result) => makeView(answer, image, result)));
  if (mine !== turn) return;
  views = made;
  find('.bar').hidden = !answer.results.length;
  find('.views').replaceChildren(...views.map((view) => view.root));
}

// Returns the labels and scores of all pixels, row by row.
async function unpack(answer, result) {
  const packed = Uint8Array.from(atob(result.maps), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = await new Response(stream).arrayBuffer();
  const pixels = answer.width * answer.height;
  const labels = bytes.byteLength > 2 * pixels ? new Uint16Array(bytes, 0, pixels) : new Uint8Array(bytes, 0, pixels);
  return { labels, scores: new Uint8Array(bytes, labels.byteLength) };
}

async function makeView(answer, image, result) {
  const root = find('template').content.firstElementChild.cloneNode(true);
  const canvas = find('canvas', root);
  const view = { root, canvas, answer, image, result };
  [canvas.width, canvas.height] = [answer.width, answer.height];
  canvas.classList.toggle('small', answer.width < 300); // enlarged without smoothing
  find('.stage', root).style.setProperty('--shape', answer.width / answer.height);
  if (!result) {
    find('.found', root).remove();
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
      paint(view);
    };
  }
  find('.overlay', root).onclick = () => withLegend(view).toBlob((blob) => download(view, 'overlay.png', blob));
  find('.labels', root).onclick = async () => download(view, 'labels.png', await (await fetch(result.labels)).blob());
  find('.json', root).onclick = () => download(view, 'json', new Blob(
    [JSON.stringify(result.summary, null, 1) + '\n'], { type: 'application/json' }));
  const stage = find('.stage', root);
  stage.onpointermove = stage.onpointerdown = (event) => {
    const box = canvas.getBoundingClientRect();
    point(Math.floor((event.clientX - box.left) / box.width * answer.width),
      Math.floor((event.clientY - box.top) / box.height * answer.height));
  };
  stage.onpointerleave = (event) => { if (event.pointerType === 'mouse') point(-1, -1); };
  paint(view);
  return view;
}

// One line for each class, largest first; classes without pixels come last, without a score.
function fillLegend(view) {
  const lines = [...view.classes].sort((one, other) => other.pixels - one.pixels).map((entry) => {
    const line = document.createElement('li');
    const label = line.appendChild(document.createElement('label'));
    const box = label.appendChild(document.createElement('input'));
    box.type = 'checkbox';
    box.checked = true;
    box.onchange = () => { view.shown[box.checked ? 'add' : 'delete'](entry.label); paint(view); };
    label.appendChild(document.createElement('i')).style.background = `rgb(${entry.colour})`;
    const text = label.appendChild(document.createElement('span'));
    text.textContent = text.title = entry.name;
    text.dir = 'auto';
    const area = label.appendChild(document.createElement('b'));
    area.textContent = percent(entry.area);
    const score = label.appendChild(document.createElement('small'));
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
  context.drawImage(view.colours, 0, 0);
}

// Shows the class and score of a pixel in all views; hides them outside the image.
function point(x, y) {
  for (const view of views) {
    const { width, height } = view.answer;
    const [mark, tip] = [find('.mark', view.root), find('.tip', view.root)];
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    mark.hidden = tip.hidden = !inside;
    if (!inside) continue;
    const label = view.labels[y * width + x];
    const name = view.classes[label]?.name ?? 'unlabelled';
    tip.textContent = `${name} · ${(view.scores[y * width + x] / 255).toFixed(2)}`;
    const [left, top] = [(x + 0.5) / width, (y + 0.5) / height];
    for (const part of [mark, tip]) Object.assign(part.style, { left: `${100 * left}%`, top: `${100 * top}%` });
    tip.classList.toggle('leftwards', left > 0.5);
    tip.classList.toggle('upwards', top > 0.5);
  }
}

// Returns the canvas with a legend of the classes that it shows below it.
function withLegend(view) {
  const classes = view.classes.filter((entry) => view.shown.has(entry.label) && (entry.pixels || view.classes.length <= 30))
    .sort((one, other) => other.pixels - one.pixels);
  const size = Math.max(12, Math.round(Math.min(view.canvas.width, view.canvas.height) / 28));
  const [line, font] = [Math.round(1.6 * size), `${size}px system-ui, sans-serif`];
  const sheet = document.createElement('canvas');
  const context = sheet.getContext('2d');
  context.font = font;
  const texts = classes.map(({ name, area }) => `${name.length > 40 ? `${name.slice(0, 39)}…` : name} ${percent(area)}`);
  const column = Math.ceil(Math.max(0, ...texts.map((text) => context.measureText(text).width))) + 2 * line;
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
    context.fillStyle = `rgb(${classes[place].colour})`;
    context.fillRect(left, top + (line - size) / 2, size, size);
    context.fillStyle = 'black';
    context.fillText(text, left + line, top + line / 2);
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
// Images that are dropped anywhere on the page, or pasted, are put into the box of the image.
async function take(files) {
  const box = document.getElementById('image');
  box.querySelector('button[aria-label="Clear"]')?.click(); // a box with an image does not accept another
  for (let frame = 0; frame < 60 && !box.querySelector('input[type=file]'); frame++) {
    await new Promise(requestAnimationFrame);
  }
  const data = new DataTransfer();
  data.items.add(files[0]);
  const input = box.querySelector('input[type=file]');
  input.files = data.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length && !event.target.closest('#image input, #image button')) {
    take(event.dataTransfer.files);
  }
});
document.addEventListener('paste', (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
watch('value', () => show(props.value));
show(props.value);
