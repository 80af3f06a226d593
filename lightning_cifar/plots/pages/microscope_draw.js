// Drawing of maps, kernels and images on canvases.
"use strict";

// Okabe-Ito blue and vermillion around white for signed values; viridis for others: both suit all colour vision.
const SIGNED = [[0, 68, 136], [146, 190, 220], [255, 255, 255], [244, 165, 120], [170, 50, 0]];
const UNSIGNED = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

// 256 colours as pixels of an ImageData, for a little-endian machine.
function colours(stops) {
  return Uint32Array.from({length: 256}, (_, i) => {
    const at = i / 255 * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
    const [red, green, blue] = stops[k].map((low, j) => Math.round(low + (stops[k + 1][j] - low) * (at - k)));
    return 0xff000000 | blue << 16 | green << 8 | red;
  });
}
const TABLES = {signed: colours(SIGNED), unsigned: colours(UNSIGNED)};

// Resize a canvas for a grid of maps (C, H, W) with `columns` maps in a row, each value a square of `scale` pixels;
// returns the distance between maps.
function fitMaps(canvas, [count, height, width], {columns, scale, gap = 2}) {
  const rows = Math.ceil(count / columns), across = width * scale + gap, down = height * scale + gap;
  if (canvas.width !== columns * across - gap || canvas.height !== rows * down - gap) {
    canvas.width = columns * across - gap;
    canvas.height = rows * down - gap;
  }
  return {across, down};
}

// Draw a grid of maps, as in fitMaps, with one scale of colours.
function drawMaps(canvas, values, shape, {columns, scale, limit, signed, gap = 2}) {
  const {across, down} = fitMaps(canvas, shape, {columns, scale, gap}), [count, height, width] = shape;
  const total = canvas.width;
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(picture.data.buffer), table = TABLES[signed ? "signed" : "unsigned"];
  const zero = signed ? 127.5 : 0, factor = (255 - zero) / limit;
  for (let c = 0; c < count; c++) {
    const left = c % columns * across, top = Math.floor(c / columns) * down;
    for (let y = 0; y < height; y++) {
      const start = (top + y * scale) * total + left;
      for (let x = 0; x < width; x++) {
        const at = Math.round(zero + factor * values[(c * height + y) * width + x]);
        const colour = table[at < 0 ? 0 : at > 255 ? 255 : at];
        for (let k = start + x * scale; k < start + (x + 1) * scale; k++) pixels[k] = colour;
      }
      for (let k = 1; k < scale; k++) pixels.copyWithin(start + k * total, start, start + width * scale);
    }
  }
  context.putImageData(picture, 0, 0);
}

// The image in its colours, enlarged; returns its mean colour.
function drawImage(canvas, image, scale) {
  const [channels, height, width] = page.layers[0].shape, values = valuesOf(0, 0, image), area = height * width;
  const [low, high] = rangeOf(values), span = high - low || 1, sums = [0, 0, 0];
  const pixels = new ImageData(width, height);
  for (let i = 0; i < area; i++) {
    for (let j = 0; j < 3; j++) {
      const c = Math.min(j, channels - 1), value = values[c * area + i];
      const shown = page.mean ? value * page.std[c] + page.mean[c] : (value - low) / span;
      pixels.data[4 * i + j] = Math.round(255 * shown);
      sums[j] += 255 * shown / area;
    }
    pixels.data[4 * i + 3] = 255;
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return `rgb(${sums.map(Math.round)})`;
}

// A frame that is visible on any colour.
function outline(canvas, x, y, width, height) {
  const context = canvas.getContext("2d");
  for (const [colour, line] of [["#fff", 4], ["#111", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  }
}

// The first `count` children. They are kept and changed: creating canvases takes most of the time of a frame.
function childrenOf(root, count, make) {
  while (root.children.length > count) root.lastChild.remove();
  while (root.children.length < count) root.append(make(root.children.length));
  return [...root.children];
}

// A picture with a text below.
function makeFigure() {
  const figure = document.createElement("figure");
  figure.append(document.createElement("canvas"), document.createElement("figcaption"));
  return figure;
}

// Rows of name, bar and number.
function drawBars(root, rows, text) {
  const largest = limitOf(rows.map(row => row.value), 1e-12);
  const cells = childrenOf(root, 3 * rows.length, i => document.createElement(i % 3 === 1 ? "i" : "span"));
  rows.forEach((row, i) => {
    const [name, bar, number] = cells.slice(3 * i);
    number.className = "number";
    name.textContent = row.name;
    name.className = row.strong ? "true" : "";
    bar.style.width = `${100 * Math.abs(row.value) / (row.full ?? largest)}%`;
    bar.className = row.value < 0 ? "below" : "";
    number.textContent = text(row.value);
  });
}
