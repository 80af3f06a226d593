// The data of the page: decompressed arrays, and access to the values of layers.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const arrays = {states: page.states.map(() => ({})), shared: {}};

// Byte planes, deflated, in base64: see microscope_page.py.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 4, joined = new Uint8Array(planes.length);
  for (let plane = 0; plane < 4; plane++) {
    for (let i = 0; i < count; i++) joined[4 * i + plane] = planes[plane * count + i];
  }
  return new Float32Array(joined.buffer);
}

async function unpackAll() {
  const jobs = [];
  const add = (target, packed) => {
    for (const [name, text] of Object.entries(packed)) {
      jobs.push(unpack(text).then(values => { target[name] = values; }));
      packed[name] = null;  // the text is not needed again
    }
  };
  page.states.forEach((state, i) => add(arrays.states[i], state.arrays));
  add(arrays.shared, page.shared);
  await Promise.all(jobs);
}

// Smallest and largest number. Math.min and Math.max cannot take the values of a large map as arguments.
function rangeOf(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

// Largest absolute value, and at least `least`.
const limitOf = (values, least = 0) => {
  const [low, high] = rangeOf(values);
  return Math.max(-low, high, least);
};

const sizeOf = shape => shape[0] * shape[1] * shape[2];

// Values of a layer for an image: (C * H * W).
function valuesOf(state, number, image) {
  const size = sizeOf(page.layers[number].shape);
  return arrays.states[state][`${number}.values`].subarray(image * size, (image + 1) * size);
}

function softmax(logits) {
  const largest = Math.max(...logits), powers = Array.from(logits, value => Math.exp(value - largest));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map(value => value / total);
}

const probabilities = (state, image) => softmax(valuesOf(state, page.output, image));

// Position of a flat index in a map: channel, row, column.
function positionOf(shape, flat) {
  const [, height, width] = shape, area = height * width;
  return [Math.floor(flat / area), Math.floor(flat % area / width), flat % width];
}
