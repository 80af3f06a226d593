// The panels under the layers: a channel, the arithmetic of a pixel, and occlusion.
"use strict";

const SIDE = 224;  // of an enlarged map in pixels
const percent = value => `${(100 * value).toFixed(1)} %`;
const scaleOf = ([, height, width], side) => Math.max(1, Math.floor(side / Math.max(height, width)));
const cellsOf = texts => texts.map((text, i) => {
  const cell = document.createElement("td");
  cell.textContent = text;
  if (i) cell.className = "number";
  return cell;
});

function fillTable(body, rows) {
  body.replaceChildren(...rows.map(texts => {
    const row = document.createElement("tr");
    row.append(...cellsOf(texts));
    return row;
  }));
}

// Name of a channel; the units of the last layer have the names of the classes.
function channelName(number, channel) {
  const name = `${page.layers[number].name}, channel ${channel}`, [, height, width] = page.layers[number].shape;
  return number === page.output && height * width === 1 ? `${name} (${page.classes[channel]})` : name;
}

function drawChannel() {
  const {state, image, layer: number, channel, pixel: [y, x]} = selected, layer = page.layers[number];
  const [, height, width] = layer.shape, area = height * width, scale = scaleOf(layer.shape, SIDE);
  const values = valuesOf(state, number, image).subarray(channel * area, (channel + 1) * area), canvas = get("map");
  const [low, high] = rangeOf(values);
  drawMaps(canvas, values, [1, height, width], {columns: 1, scale, limit: layer.limit, signed: layer.signed});
  outline(canvas, x * scale, y * scale, scale, scale);
  get("channel-name").textContent = `${channelName(number, channel)}: smallest ${format(low)}, largest ${format(high)}`;
  get("scale").textContent = `Colours from ${layer.signed ? format(-layer.limit) : 0} to ${format(layer.limit)}, for all maps of the layer. The frame in the image is the receptive field of the pixel.`;
  const sides = scaleOf(page.layers[0].shape, SIDE), [top, bottom] = layer.rows[y], [left, right] = layer.columns[x];
  drawImage(get("field"), image, sides);
  outline(get("field"), left * sides, top * sides, (right - left) * sides, (bottom - top) * sides);
}

function drawMeans() {
  const {layer: number, channel} = selected, means = arrays.shared[`${number}.means`], [count] = page.layers[number].shape;
  get("means").hidden = !means;
  if (means) drawBars(get("mean-bars"), page.classes.map((name, k) => ({name, value: means[k * count + channel]})), format);
}

function drawKernels() {
  const {layer: number, channel} = selected, layer = page.layers[number];
  const weights = arrays.states[selected.state][`${number}.weight`], source = layer.sources[0];
  get("kernels").hidden = !weights;
  if (!weights) return;
  const size = weights.length / layer.shape[0], kernel = weights.subarray(channel * size, (channel + 1) * size);
  const origin = page.layers[source.layer].shape, shape = layer.kind === "dense" && !source.index && origin || [size, 1, 1];
  if (layer.kind === "conv") [shape[1], shape[2]] = [layer.down[0], layer.across[0]];
  if (layer.kind === "conv") shape[0] = size / shape[1] / shape[2];
  const limit = limitOf(kernel), scale = Math.max(2, scaleOf(shape, shape[0] > 128 ? 12 : 24)), width = shape[2] * scale + 2;
  drawMaps(get("kernel"), kernel, shape, {columns: Math.min(shape[0], Math.floor(420 / width) || 1), scale, limit, signed: true});
  get("kernels-note").textContent = `One for each of ${shape[0]} input channels; colours from ${format(-limit)} to ${format(limit)}.`;
}

function drawPatches() {
  const {layer: number, channel} = selected, layer = page.layers[number];
  const top = arrays.shared[`${number}.top`], [count, , width] = layer.shape;
  get("top").hidden = !top;
  if (!top) return;
  const [tileHeight, tileWidth] = page.tiles.size, [, height, across] = page.layers[0].shape;
  childrenOf(get("patches"), top.length / 3 / count, makeFigure).forEach((figure, i) => {
    const [value, tile, position] = top.subarray(3 * (i * count + channel), 3 * (i * count + channel) + 3);
    const [a, b] = layer.rows[Math.floor(position / width)], [c, d] = layer.columns[position % width];
    const [canvas, caption] = figure.children, scale = 64 / Math.max(b - a, d - c);
    canvas.width = (d - c) * scale;
    canvas.height = (b - a) * scale;
    const context = canvas.getContext("2d"), down = tileHeight / height, wide = tileWidth / across;
    context.imageSmoothingEnabled = false;
    const left = tile % page.tiles.columns * tileWidth + c * wide, above = Math.floor(tile / page.tiles.columns) * tileHeight + a * down;
    context.drawImage(get("atlas"), left, above, (d - c) * wide, (b - a) * down, 0, 0, canvas.width, canvas.height);
    const label = page.tiles.labels[tile];
    caption.replaceChildren(`${page.classes[label] ?? label}`, document.createElement("br"), format(value));
  });
}

function drawPixel() {
  const {state, image, layer: number, channel, pixel: [y, x]} = selected;
  const found = explain(state, image, number, [channel, y, x]), lines = found.lines ?? [];
  get("pixel-name").textContent = `${channelName(number, channel)}, row ${y}, column ${x}. ${found.reason ?? ""}`;
  fillTable(get("sum").tBodies[0], [...lines.map(([text, value]) => [text, format(value)]), ["value in the map", format(found.stored)]]);
  const several = page.layers[number].sources.length > 1;
  const terms = [...found.terms ?? []].sort((one, other) => Math.abs(other.product) - Math.abs(one.product));
  const rows = terms.slice(0, 12).map(({source, flat, value, weight, product}) => {
    const from = page.layers[source], [c, row, column] = positionOf(from.shape, flat), name = several ? `${from.name}, ` : "";
    return [`${name}${c} (${row}, ${column})`, format(value), format(weight), format(product)];
  });
  const rest = terms.slice(12);
  if (rest.length) rows.push([`${rest.length} others`, "", "", format(rest.reduce((sum, term) => sum + term.product, 0))]);
  fillTable(get("terms").tBodies[0], rows);
  get("terms").hidden = !terms.length;
  drawProducts(page.layers[number], terms);
}

// Input patch, kernel and products of the input channels with the largest contributions, each with its own scale.
function drawProducts(layer, terms) {
  const channels = new Map();
  if (layer.kind === "conv") {
    for (const term of terms) channels.set(term.channel, [...channels.get(term.channel) ?? [], term]);
  }
  const sum = group => group.reduce((total, term) => total + term.product, 0);
  const first = [...channels].sort(([, one], [, other]) => Math.abs(sum(other)) - Math.abs(sum(one))).slice(0, 4);
  const keys = ["value", "weight", "product"], limits = keys.map(key => limitOf(terms.map(term => term[key]), 1e-12));
  childrenOf(get("products"), first.length, makeFigure).forEach((figure, i) => {
    const [channel, group] = first[i], [canvas, caption] = figure.children, [height, width] = [layer.down[0], layer.across[0]];
    const shape = [3, height, width], values = new Float32Array(sizeOf(shape));
    for (const term of group) {
      keys.forEach((key, k) => { values[(k * height + term.row) * width + term.column] = term[key] / limits[k]; });
    }
    drawMaps(canvas, values, shape, {columns: 3, scale: scaleOf(shape, 54), limit: 1, signed: true, gap: 10});
    canvas.title = keys.map((key, k) => `${key}s, colours from ${format(-limits[k])} to ${format(limits[k])}`).join("; ");
    caption.textContent = `input channel ${channel}: values, kernel, products; sum ${format(sum(group))}`;
  });
}

// Probabilities with the window at a position.
function coveredBy([p, q]) {
  const count = page.classes.length, [rows, columns] = page.windows;
  const start = ((selected.image * rows.length + p) * columns.length + q) * count;
  return arrays.shared.occlusion.subarray(start, start + count);
}

function drawOcclusion() {
  const {image, window: [p, q]} = selected, [rows, columns] = page.windows, scale = scaleOf(page.layers[0].shape, SIDE);
  const mean = drawImage(get("covered"), image, scale), [top, bottom] = rows[p], [left, right] = columns[q];
  const context = get("covered").getContext("2d"), place = [left, top, right - left, bottom - top].map(side => side * scale);
  context.fillStyle = mean;
  context.fillRect(...place);
  outline(get("covered"), ...place);
  const clean = probabilities(page.states.length - 1, image), now = coveredBy([p, q]);
  const order = page.classes.map((_, k) => k).sort((one, other) => clean[other] - clean[one]).slice(0, 10).sort((one, other) => one - other);
  const last = page.states[page.states.length - 1].title;
  get("window-name").textContent = `Window at row ${top}, column ${left}; network: ${last}.`;
  drawBars(get("bars"), order.map(k => ({name: page.classes[k], value: now[k], full: 1, strong: k === page.images[image].label})), percent);
}

function drawHeat() {
  const {image, target} = selected, [rows, columns] = page.windows, [, height, width] = page.layers[0].shape;
  const clean = probabilities(page.states.length - 1, image)[target], sums = new Float64Array(height * width), counts = new Float64Array(height * width);
  rows.forEach(([top, bottom], p) => columns.forEach(([left, right], q) => {
    const drop = clean - coveredBy([p, q])[target];
    for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) { sums[y * width + x] += drop; counts[y * width + x]++; }
  }));
  const drops = sums.map((sum, i) => sum / counts[i]), limit = limitOf(drops, 1e-3);
  drawMaps(get("heat"), drops, [1, height, width], {columns: 1, scale: scaleOf(page.layers[0].shape, SIDE), limit, signed: true});
  get("heat-range").textContent = `${percent(clean)} when uncovered; colours from −${percent(limit)} (rise, blue) to ${percent(limit)} (drop, red)`;
}
