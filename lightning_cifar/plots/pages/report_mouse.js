// User input: zoom with a box, show values, switch axes, smooth, hide and show arms.
"use strict";

Object.assign(Panel.prototype, {
  at(event) {
    const box = this.overlay.getBoundingClientRect();
    const clip = (value, low, size) => Math.max(low, Math.min(low + size, value));
    return [clip(event.clientX - box.left, this.box.x, this.box.width),
      clip(event.clientY - box.top, this.box.y, this.box.height)];
  },

  clear() {
    const pen = this.overlay.getContext("2d"), ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.overlay.clientWidth, this.overlay.clientHeight);
    this.tip.hidden = true;
    return pen;
  },

  press(event) {
    if (!this.view || event.button) return;
    this.start = this.at(event);
    this.overlay.setPointerCapture(event.pointerId);
  },

  move(event) {
    if (!this.view) return;
    const pen = this.clear(), [px, py] = this.at(event);
    if (!this.start) { this.point(pen, px, py); return; }
    const [left, right, top, bottom] = this.dragged(px, py);
    pen.fillStyle = "rgba(0, 90, 200, 0.12)";
    pen.strokeStyle = "rgba(0, 90, 200, 0.8)";
    pen.fillRect(left, top, right - left, bottom - top);
    pen.strokeRect(left, top, right - left, bottom - top);
  },

  // Ends of the box; a box that is dragged along one axis covers the whole other axis.
  dragged(px, py) {
    const [x0, y0] = this.start, {x, y, width, height} = this.box;
    const flat = Math.abs(py - y0) < 8, thin = Math.abs(px - x0) < 8;
    const across = thin ? [x, x + width] : [Math.min(x0, px), Math.max(x0, px)];
    const up = flat ? [y, y + height] : [Math.min(y0, py), Math.max(y0, py)];
    return [...across, ...up];
  },

  release(event) {
    if (!this.start) return;
    const [px, py] = this.at(event), [x0, y0] = this.start;
    const [left, right, top, bottom] = this.dragged(px, py);
    this.start = null;
    if (Math.abs(px - x0) < 8 && Math.abs(py - y0) < 8) return;
    this.setZoom({x: [this.x(left), this.x(right)], y: [this.y(bottom), this.y(top)]});
  },

  // The nearest position of each arm: mean, interval and number of runs.
  point(pen, px, py) {
    const rows = [];
    for (const each of this.visible) {
      let best = -1, distance = Math.max(30, this.box.width / each.x.length);
      for (let j = 0; j < each.x.length; j++) {
        const away = Math.abs(this.px(each.x[j]) - px);
        if (away < distance) { best = j; distance = away; }
      }
      if (best >= 0) rows.push({each, j: best, value: each.mean[best]});
    }
    if (!rows.length) return;
    pen.strokeStyle = "#aaa";
    pen.beginPath();
    pen.moveTo(px, this.box.y);
    pen.lineTo(px, this.box.y + this.box.height);
    pen.stroke();
    rows.sort((a, b) => b.value - a.value);
    const share = this.metric.share, nearest = rows[0].each.x[rows[0].j];
    const head = document.createElement("b");
    head.textContent = `${text(nearest, false)} ${LABELS[state.axis]}`;
    this.tip.replaceChildren(head);
    for (const {each, j, value} of rows) {
      const line = document.createElement("div"), mark = document.createElement("i");
      mark.style.background = each.arm.color;
      const width = each.width[j], n = each.count[j];
      const interval = Number.isFinite(width) ? ` (${text(value - width, share)} to ${text(value + width, share)})` : "";
      line.append(mark, `${each.arm.name}  ${text(value, share)}${interval}, n = ${n}`);
      this.tip.append(line);
    }
    this.tip.hidden = false;
    const room = this.overlay.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(px + 14, room - 4, px + 14 > room ? px - this.tip.offsetWidth - 14 : Infinity))}px`;
    this.tip.style.top = `${Math.max(0, Math.min(py + 10, this.overlay.clientHeight - this.tip.offsetHeight))}px`;
  },
});

let planned = false;
function soon(work) {  // at most one drawing per frame
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; work(); });
}
const updateAll = () => panels.forEach(panel => panel.update());
const drawAll = () => panels.forEach(panel => panel.draw());

for (const button of document.querySelectorAll("[data-axis]"))
  button.onclick = () => {
    state.axis = button.dataset.axis;
    for (const other of document.querySelectorAll("[data-axis]")) other.setAttribute("aria-pressed", other === button);
    panels.forEach(panel => { panel.zoom = null; panel.clear(); });
    updateAll();
  };

document.getElementById("log").onchange = event => {
  const before = state.log;
  state.log = event.target.checked;
  for (const panel of panels) {
    if (panel.zoom && before !== state.log) {
      const y = panel.zoom.y.map(end => state.log ? Math.log10(end) : 10 ** end);
      panel.zoom = y.every(Number.isFinite) ? {x: panel.zoom.x, y} : null;
    }
    panel.clear();
  }
  drawAll();
};

const slider = document.getElementById("smooth");
slider.oninput = () => {
  state.smooth = Number(slider.value);
  document.getElementById("smooth-text").textContent = state.smooth ? `${state.smooth} %` : "off";
  soon(updateAll);
};

for (const button of document.querySelectorAll("[data-arm]")) {
  const name = button.dataset.arm;
  button.onclick = () => {
    if (!state.hidden.delete(name)) state.hidden.add(name);
    button.setAttribute("aria-pressed", !state.hidden.has(name));
    drawAll();
  };
  button.onpointerenter = button.onfocus = () => { state.strong = name; soon(drawAll); };
  button.onpointerleave = button.onblur = () => { state.strong = null; soon(drawAll); };
}

const recorded = axis => data.arms.some(arm => arm.runs.some(run =>
  run.knots.length > 1 && run.knots[run.knots.length - 1][COLUMN[axis]] !== null));
for (const axis of ["epoch", "seconds"])
  if (!recorded(axis)) {
    const button = document.querySelector(`[data-axis=${axis}]`);
    button.disabled = true;
    button.title = `these runs have no recorded ${axis === "epoch" ? "epochs" : "seconds"}`;
  }
if (!recorded("epoch")) {
  state.axis = "step";
  document.querySelector("[data-axis=step]").setAttribute("aria-pressed", true);
  document.querySelector("[data-axis=epoch]").setAttribute("aria-pressed", false);
}
for (const name of data.open) panels.push(new Panel(name));
updateAll();
window.report = {state, panels, data};
