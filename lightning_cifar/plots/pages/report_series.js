// Data of the curves, from the JSON inside the page.
"use strict";

const data = JSON.parse(document.getElementById("curves").textContent);
const LABELS = {step: "optimizer steps", epoch: "epochs", seconds: "seconds of training"};
const COLUMN = {step: 0, epoch: 1, seconds: 2};
const MARGIN = {left: 62, right: 14, top: 10, bottom: 42};
const state = {axis: "epoch", log: false, smooth: 0, hidden: new Set(), strong: null};
const panels = [];
const unpacked = new Map();

function array(index) {
  if (!unpacked.has(index)) {
    const text = atob(data.arrays[index]);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    unpacked.set(index, new Float32Array(bytes.buffer));
  }
  return unpacked.get(index);
}

// Positions of steps on the selected axis: interpolated between the recorded positions, and extrapolated at the end.
function positions(run, steps) {
  const column = COLUMN[state.axis];
  if (column === 0) return Float64Array.from(steps);
  const knots = run.knots, found = new Float64Array(steps.length).fill(NaN);
  if (knots.length < 2 || knots[knots.length - 1][column] === null) return found;
  for (let i = 0, k = 1; i < steps.length; i++) {
    while (k < knots.length - 1 && knots[k][0] < steps[i]) k++;
    const before = knots[k - 1], after = knots[k];
    found[i] = before[column] +
      (after[column] - before[column]) * (steps[i] - before[0]) / Math.max(after[0] - before[0], 1e-9);
  }
  return found;
}

// Centred moving mean, applied twice; its window shrinks towards both ends, so that it does not lag there. The weight of
// a piece of a decimated curve is its number of values. Missing values stay missing.
function smoothed(values, weights, half) {
  for (let pass = 0; pass < 2 && half > 0; pass++) {
    const n = values.length, sums = new Float64Array(n + 1), totals = new Float64Array(n + 1);
    for (let i = 0; i < n; i++) {
      const there = Number.isFinite(values[i]), weight = there ? (weights ? weights[i] : 1) : 0;
      sums[i + 1] = sums[i] + (there ? weight * values[i] : 0);
      totals[i + 1] = totals[i] + weight;
    }
    const result = new Float64Array(n).fill(NaN);
    for (let i = 0; i < n; i++) {
      const k = Math.min(half, i, n - 1 - i), total = totals[i + k + 1] - totals[i - k];
      if (Number.isFinite(values[i]) && total > 0) result[i] = (sums[i + k + 1] - sums[i - k]) / total;
    }
    values = result;
  }
  return values;
}

// One metric of one arm: raw runs, and the mean of the (smoothed) runs with its 95 % interval.
function seriesOf(metric, arm) {
  if (!Object.hasOwn(metric.arms, arm.name)) return null;  // an arm may have the name "constructor", which every object has
  const packed = metric.arms[arm.name];
  const steps = array(packed.step), n = steps.length;
  const low = packed.low === undefined ? null : array(packed.low);
  const high = low && array(packed.high), weights = low && array(packed.count);
  const half = Math.round(state.smooth / 100 * n / 6);
  const raw = [], x = new Float64Array(n), count = new Int32Array(n);
  const sums = new Float64Array(n), rows = [];
  packed.runs.forEach((index, i) => {
    const run = arm.runs[index], mean = array(packed.mean[i]), at = positions(run, steps);
    const counted = run.state === "done" || run.state === "broken";
    let xs = at, ys = mean;
    if (low) {  // the two extremes of each piece, in their order
      const between = new Float64Array(2 * n), first = array(packed.first[i]), second = array(packed.second[i]);
      ys = new Float64Array(2 * n);
      for (let j = 0; j < n; j++) {
        between[2 * j] = low[j] + 0.25 * (high[j] - low[j]);
        between[2 * j + 1] = low[j] + 0.75 * (high[j] - low[j]);
        ys[2 * j] = first[j];
        ys[2 * j + 1] = second[j];
      }
      xs = positions(run, between);
    }
    raw.push({run, counted, xs, ys});
    if (!counted) return;
    const values = smoothed(mean, weights, half);
    rows.push(values);
    for (let j = 0; j < n; j++) {
      if (!Number.isFinite(values[j])) continue;
      count[j]++;
      x[j] += at[j];
      sums[j] += values[j];
    }
  });
  const mean = new Float64Array(n).fill(NaN), width = new Float64Array(n).fill(NaN);
  for (let j = 0; j < n; j++) {
    if (!count[j]) { x[j] = NaN; continue; }
    x[j] /= count[j];
    mean[j] = sums[j] / count[j];
    let square = 0;
    for (const row of rows) if (Number.isFinite(row[j])) square += (row[j] - mean[j]) ** 2;
    if (count[j] > 1) width[j] = data.t[count[j]] * Math.sqrt(square / (count[j] - 1) / count[j]);
  }
  return {arm, raw, x, mean, width, count};
}

const toScreen = value => state.log ? (value > 0 ? Math.log10(value) : NaN) : value;

function ticksOf(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9), ticks = [];
  for (let i = 0; i <= 2 * count + 2; i++) {  // by index: near 1e17 adding 1 does not change a number
    const tick = (first + i) * step;
    if (tick <= high + 1e-9 * step && tick !== ticks[ticks.length - 1]) ticks.push(tick);
  }
  return {ticks, step};
}

function logTicksOf(low, high) {  // exponents
  if (high - low < 0.9) {
    const {ticks, step} = ticksOf(10 ** low, 10 ** high, 8);
    return {ticks: ticks.filter(value => value > 0).map(Math.log10), step};
  }
  const ticks = [], factors = high - low > 4 ? [1] : high - low > 1.8 ? [1, 3] : [1, 2, 5];
  const every = Math.max(1, Math.ceil((high - low) / 8));
  for (let e = Math.floor(low); e <= high; e += every)
    for (const factor of factors) {
      const at = e + Math.log10(factor);
      if (at >= low - 1e-9 && at <= high + 1e-9) ticks.push(at);
    }
  return {ticks, step: null};
}

function text(value, share, step) {
  if (!Number.isFinite(value)) return "–";
  const scaled = share ? 100 * value : value, size = Math.abs(scaled), unit = share ? " %" : "";
  if (size && (size >= 1e6 || size < 1e-4)) return scaled.toExponential(2).replace(/\.?0+e/, "e") + unit;
  if (step) {
    const digits = Math.max(0, -Math.floor(Math.log10((share ? 100 : 1) * step) + 1e-9));
    return scaled.toFixed(Math.min(digits, 8)) + unit;
  }
  return String(Number(scaled.toPrecision(share ? 4 : 5))) + unit;
}

