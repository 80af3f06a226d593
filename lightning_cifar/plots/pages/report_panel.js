// A panel: drawing of its curves over the selected axis, and limits of its axes.
"use strict";

class Panel {
  constructor(name) {
    this.root = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    document.getElementById("panels").append(this.root);
    [this.canvas, this.overlay] = this.root.querySelectorAll("canvas");
    this.tip = this.root.querySelector(".tip");
    this.note = this.root.querySelector(".note");
    this.reset = this.root.querySelector(".reset");
    this.select = this.root.querySelector("select");
    for (const metric of data.metrics) this.select.add(new Option(metric.title, metric.name));
    this.select.value = name;
    this.zoom = null;
    this.select.onchange = () => { this.zoom = null; this.update(); };
    this.reset.onclick = () => this.setZoom(null);
    this.overlay.ondblclick = () => this.setZoom(null);
    this.overlay.onpointerdown = event => this.press(event);
    this.overlay.onpointermove = event => this.move(event);
    this.overlay.onpointerup = event => this.release(event);
    this.overlay.onpointercancel = () => { this.start = null; this.clear(); };
    this.overlay.onpointerleave = () => { if (!this.start) this.clear(); };
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  get metric() { return data.metrics.find(metric => metric.name === this.select.value); }

  update() {
    this.series = data.arms.map(arm => seriesOf(this.metric, arm)).filter(each => each);
    this.draw();
  }

  get visible() { return this.series.filter(each => !state.hidden.has(each.arm.name)); }

  // Limits of both axes; exponents on a logarithmic axis.
  whole() {
    let left = Infinity, right = 0, low = Infinity, high = -Infinity, bandLow = Infinity, bandHigh = -Infinity;
    const counted = this.visible.some(each => each.raw.some(run => run.counted));
    for (const each of this.visible) {
      for (const run of each.raw) {
        if (counted && !run.counted) continue;
        for (let j = 0; j < run.xs.length; j++) {
          const y = toScreen(run.ys[j]);
          if (!Number.isFinite(y) || !Number.isFinite(run.xs[j])) continue;
          left = Math.min(left, run.xs[j]);
          right = Math.max(right, run.xs[j]);
          low = Math.min(low, y);
          high = Math.max(high, y);
        }
      }
      for (let j = 0; j < each.x.length; j++) {
        const down = toScreen(each.mean[j] - each.width[j]), up = toScreen(each.mean[j] + each.width[j]);
        if (Number.isFinite(down)) bandLow = Math.min(bandLow, down);
        if (Number.isFinite(up)) bandHigh = Math.max(bandHigh, up);
      }
    }
    if (!(high >= low)) return null;
    const span = high - low || Math.abs(high) || 1;  // a band of two runs may be wider than all curves
    low = Math.max(Math.min(low, bandLow), low - span / 4);
    high = Math.min(Math.max(high, bandHigh), high + span / 4);
    if (this.metric.share && !state.log) { low = Math.max(low, 0); high = Math.min(high, 1); }
    left = left < 0.1 * right || left === right ? 0 : left - 0.03 * (right - left);
    return {x: [left, right + 0.015 * (right - left || 1)], y: [low - 0.03 * span, high + 0.03 * span]};
  }

  setZoom(zoom) {
    this.zoom = zoom;
    this.clear();
    this.draw();
  }

  draw() {
    if (!this.series) return;
    const ratio = window.devicePixelRatio || 1, {clientWidth: width, clientHeight: height} = this.canvas;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = this.pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const whole = this.whole();
    this.view = this.zoom || whole;
    this.reset.hidden = !this.zoom;
    this.root.dataset.view = JSON.stringify(this.view);
    if (!this.view) {
      this.note.textContent = state.axis === "step" || !this.visible.length ? "No data." :
        `No data over ${state.axis}: these runs did not record it.`;
      return;
    }
    this.box = {x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right,
      height: height - MARGIN.top - MARGIN.bottom};
    this.drawAxes(pen);
    pen.save();
    pen.beginPath();
    pen.rect(this.box.x, this.box.y, this.box.width, this.box.height);
    pen.clip();
    for (const each of this.visible) this.drawBand(pen, each);
    for (const each of this.visible) this.drawRuns(pen, each);
    for (const each of this.visible) this.drawMean(pen, each);
    pen.restore();
    const out = this.visible.flatMap(each => each.raw).filter(run => !run.counted &&
      run.ys.some(y => !Number.isFinite(y) || toScreen(y) > whole.y[1] || toScreen(y) < whole.y[0])).length;
    this.note.textContent = out ? `${out} run${out > 1 ? "s" : ""} that diverged or failed extend beyond the axes.` : "";
  }

  px(x) { return this.box.x + (x - this.view.x[0]) / (this.view.x[1] - this.view.x[0]) * this.box.width; }
  py(y) { return this.box.y + (this.view.y[1] - y) / (this.view.y[1] - this.view.y[0]) * this.box.height; }
  x(px) { return this.view.x[0] + (px - this.box.x) / this.box.width * (this.view.x[1] - this.view.x[0]); }
  y(py) { return this.view.y[1] - (py - this.box.y) / this.box.height * (this.view.y[1] - this.view.y[0]); }

  drawAxes(pen) {
    const {x, y, width, height} = this.box;
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    pen.strokeStyle = "#e3e3e3";
    pen.fillStyle = "#444";
    const span = this.view.x[1] - this.view.x[0];
    // Whole steps and epochs, except in a narrow box.
    const most = state.axis === "seconds" || span < 2 ? Infinity : span;
    const across = ticksOf(...this.view.x, Math.min(Math.max(3, width / 90), most));
    const up = state.log ? logTicksOf(...this.view.y) : ticksOf(...this.view.y, Math.max(3, height / 45));
    pen.beginPath();
    pen.textAlign = "center";
    for (const tick of across.ticks) {
      const at = Math.round(this.px(tick)) + 0.5;
      pen.moveTo(at, y);
      pen.lineTo(at, y + height);
      pen.fillText(text(tick, false, across.step), at, y + height + 16);
    }
    pen.textAlign = "right";
    for (const tick of up.ticks) {
      const at = Math.round(this.py(tick)) + 0.5;
      pen.moveTo(x, at);
      pen.lineTo(x + width, at);
      pen.fillText(text(state.log ? 10 ** tick : tick, this.metric.share, up.step), x - 7, at + 4);
    }
    pen.stroke();
    pen.strokeStyle = "#888";
    pen.strokeRect(x + 0.5, y + 0.5, width, height);
    pen.textAlign = "center";
    pen.fillText(LABELS[state.axis], x + width / 2, y + height + 35);
  }

  trace(pen, xs, ys) {
    let down = false;
    for (let j = 0; j < xs.length; j++) {
      const y = toScreen(ys[j]);
      if (!Number.isFinite(y) || !Number.isFinite(xs[j])) { down = false; continue; }
      const px = this.px(xs[j]), py = Math.max(-1e5, Math.min(1e5, this.py(y)));
      if (down) pen.lineTo(px, py); else pen.moveTo(px, py);
      down = true;
    }
  }

  faded(each) { return state.strong !== null && state.strong !== each.arm.name ? 0.15 : 1; }

  drawBand(pen, each) {
    pen.fillStyle = each.arm.color;
    pen.globalAlpha = 0.14 * this.faded(each);
    const {x, mean, width} = each;
    const bottom = toScreen(0), floor = Number.isFinite(bottom) ? -Infinity : this.view.y[0] - 10;
    for (let start = 0; start < x.length;) {
      let end = start;
      while (end < x.length && Number.isFinite(width[end]) && Number.isFinite(x[end])) end++;
      if (end - start > 1) {
        pen.beginPath();
        for (let j = start; j < end; j++) pen.lineTo(this.px(x[j]), this.edge(mean[j] + width[j], floor));
        for (let j = end - 1; j >= start; j--) pen.lineTo(this.px(x[j]), this.edge(mean[j] - width[j], floor));
        pen.fill();
      } else if (end - start === 1) {
        const high = this.edge(mean[start] + width[start], floor), low = this.edge(mean[start] - width[start], floor);
        pen.fillRect(this.px(x[start]) - 3, high, 6, low - high);
      }
      start = end + 1;
    }
    pen.globalAlpha = 1;
  }

  // On a logarithmic axis a band with a lower end below zero extends to the bottom.
  edge(value, floor) {
    const y = toScreen(value);
    return Math.max(-1e5, Math.min(1e5, this.py(Number.isFinite(y) ? y : floor)));
  }

  // All runs of an arm are one layer, so that crossing runs do not become darker.
  drawRuns(pen, each) {
    const layer = this.layer ||= document.createElement("canvas"), ink = layer.getContext("2d");
    layer.width = this.canvas.width;
    layer.height = this.canvas.height;
    ink.setTransform(pen.getTransform());
    ink.strokeStyle = ink.fillStyle = each.arm.color;
    for (const run of each.raw) {
      ink.setLineDash(run.counted ? [] : [2, 3]);
      ink.beginPath();
      this.trace(ink, run.xs, run.ys);
      ink.stroke();
      for (let j = 0; j < run.xs.length && run.xs.length <= 40; j++) {
        const y = this.py(toScreen(run.ys[j])), x = this.px(run.xs[j]);
        if (Number.isFinite(x + y)) ink.fillRect(x - 1.5, y - 1.5, 3, 3);
      }
    }
    const arms = this.visible.length, dense = each.raw[0].xs.length > this.box.width / 2;
    pen.globalAlpha = (dense ? 0.45 / arms ** 0.7 : Math.max(0.2, 0.5 / Math.sqrt(arms))) * this.faded(each);
    pen.drawImage(layer, 0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    pen.globalAlpha = 1;
  }

  drawMean(pen, each) {
    pen.strokeStyle = pen.fillStyle = each.arm.color;
    pen.globalAlpha = this.faded(each);
    pen.lineWidth = state.strong === each.arm.name ? 3.2 : 2;
    pen.setLineDash(each.arm.dash ? each.arm.dash.split(" ").map(Number) : []);
    pen.beginPath();
    this.trace(pen, each.x, each.mean);
    pen.stroke();
    pen.setLineDash([]);
    if (each.x.length <= 40)
      for (let j = 0; j < each.x.length; j++) {
        const y = this.py(toScreen(each.mean[j])), x = this.px(each.x[j]);
        if (!Number.isFinite(x + y)) continue;
        pen.beginPath();
        pen.arc(x, y, 2.8, 0, 7);
        pen.fill();
      }
    pen.globalAlpha = 1;
  }
}
