// The arithmetic of a value: the terms of its sum, and the steps after it.
"use strict";

const ACTIVATIONS = {
  relu: x => Math.max(x, 0),
  tanh: Math.tanh,
  sigmoid: x => 1 / (1 + Math.exp(-x)),
  silu: x => x / (1 + Math.exp(-x)),
  gelu: x => x * (1 + erf(x / Math.SQRT2)) / 2,
};

// Numerical Recipes, 2nd edition, section 6.2: relative error below 1.2e-7.
function erf(x) {
  const t = 1 / (1 + Math.abs(x) / 2);
  const polynomial = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196,
    1.00002368, -1.26551223].reduce((sum, factor) => sum * t + factor);
  const tail = t * Math.exp(-x * x + polynomial);
  return x >= 0 ? 1 - tail : tail - 1;
}

// Terms {source, flat, value, weight, product, channel, row, column}: flat is the index in the layer that is read; the
// others are the input channel and the place in the kernel or window.
function termsOf(state, image, number, [c, y, x]) {
  const layer = page.layers[number], weights = arrays.states[state], found = [];
  const inputs = layer.sources.map((source, i) => {
    const index = source.index && arrays.shared[source.index];
    return {source, index, values: valuesOf(state, source.layer, image), i};
  });
  const add = ({source, index, values}, [ci, yi, xi], weight, row, column) => {
    const [, height, width] = source.shape;
    if (yi < 0 || yi >= height || xi < 0 || xi >= width) return;  // zero padding
    const at = (ci * height + yi) * width + xi, flat = index ? index[at] : at;
    if (flat < 0) return;  // zeros that an operation has added
    const value = values[flat];
    found.push({source: source.layer, flat, value, weight, product: value * weight, channel: ci, row, column});
  };
  if (layer.kind === "conv") {
    const [rows, strideDown, [top], stepDown] = layer.down, [columns, strideAcross, [left], stepAcross] = layer.across;
    const group = inputs[0].source.shape[0] / layer.groups, first = Math.floor(c * layer.groups / layer.shape[0]) * group;
    const kernel = weights[`${number}.weight`];
    for (let k = 0; k < group; k++) {
      for (let r = 0; r < rows; r++) {
        for (let s = 0; s < columns; s++) {
          const place = [first + k, y * strideDown - top + r * stepDown, x * strideAcross - left + s * stepAcross];
          add(inputs[0], place, kernel[((c * group + k) * rows + r) * columns + s], r, s);
        }
      }
    }
  } else if (layer.kind === "dense") {
    const count = inputs[0].source.shape[0], matrix = weights[`${number}.weight`];
    for (let k = 0; k < count; k++) add(inputs[0], [k, 0, 0], matrix[c * count + k], 0, 0);
  } else if (layer.kind === "max" || layer.kind === "mean") {
    const [top, bottom] = layer.down[y], [left, right] = layer.across[x];
    const weight = layer.kind === "max" ? 1 : 1 / (layer.divisor ?? (bottom - top) * (right - left));
    for (let r = top; r < bottom; r++) for (let s = left; s < right; s++) add(inputs[0], [c, r, s], weight, r - top, s - left);
  } else if (layer.kind === "add") {
    inputs.forEach(input => add(input, [c, y, x], layer.signs ? layer.signs[input.i] : 1, 0, 0));
  } else if (layer.kind === "concat") {
    let channel = c;
    for (const input of inputs) {
      if (channel >= 0 && channel < input.source.shape[0]) add(input, [channel, y, x], 1, 0, 0);
      channel -= input.source.shape[0];
    }
  }
  return found;
}

// {terms, lines: [[text, value], ...], result, stored}, or {reason} if the page does not have the arithmetic.
function explain(state, image, number, [c, y, x]) {
  const layer = page.layers[number], weights = arrays.states[state];
  const [, height, width] = layer.shape, stored = valuesOf(state, number, image)[(c * height + y) * width + x];
  if (layer.kind === "image") return {stored, reason: "This is a normalised pixel of the image."};
  if (layer.kind === "other") return {stored, reason: "The page does not contain the arithmetic of this operation."};
  if (["conv", "dense"].includes(layer.kind) && !weights[`${number}.weight`]) {
    return {stored, reason: "The kernels of this layer were left out, because the page would be too large."};
  }
  const terms = termsOf(state, image, number, [c, y, x]), bias = weights[`${number}.bias`], lines = [];
  let value = terms.reduce((sum, term) => layer.kind === "max" ? Math.max(sum, term.product) : sum + term.product,
    layer.kind === "max" ? -Infinity : 0);
  const names = {max: "maximum", mean: "mean"};
  const word = names[layer.kind] ? `${names[layer.kind]} of ${terms.length} values` : `sum of ${terms.length} products`;
  lines.push([word, value]);
  if (bias) {
    value += bias[c];
    lines.push([`+ bias ${format(bias[c])}`, value]);
  }
  for (const step of layer.steps) {
    if (step.kind === "norm") {
      const scale = weights[`${number}.${step.scale}`][c], shift = weights[`${number}.${step.shift}`][c];
      value = value * scale + shift;
      lines.push([`× ${format(scale)} ${shift < 0 ? "−" : "+"} ${format(Math.abs(shift))} (${step.title})`, value]);
    } else {
      value = ACTIVATIONS[step.kind](value);
      lines.push([step.title, value]);
    }
  }
  return {terms, lines, result: value, stored};
}

const format = value => Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-4) ? value.toExponential(4) : value.toPrecision(6);
