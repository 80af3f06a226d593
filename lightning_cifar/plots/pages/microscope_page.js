// The selection, and the parts of the page that follow it.
"use strict";

const get = id => document.getElementById(id);
const selected = {state: page.states.length - 1, image: 0, layer: 0, channel: 0, pixel: [0, 0], window: [0, 0], target: 0};
const boxes = [];  // of each layer: canvas, columns, the distance of its maps, whether it is in view, and to be drawn
const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));

// A deep network has millions of values: only the layers in view follow the selection at once.
const views = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) => {
  const number = boxes.findIndex(({canvas}) => canvas === target);
  boxes[number].visible = isIntersecting;
  if (isIntersecting && boxes[number].stale) drawLayer(number);
}), {root: get("network"), rootMargin: "0px 300px"});

function buildNetwork() {
  page.layers.forEach((layer, number) => {
    const box = document.createElement("div"), header = document.createElement("header"), canvas = document.createElement("canvas");
    box.className = "layer";
    const [count, height, width] = layer.shape, side = count > 24 ? 28 : 56;
    const scale = Math.max(1, Math.floor(side / Math.max(height, width, 4)));
    const rows = Math.max(1, Math.floor(300 / (height * scale + 2)));
    boxes.push({box, canvas, columns: Math.ceil(count / rows), scale});
    boxes[number].size = fitMaps(canvas, layer.shape, boxes[number]);
    views.observe(canvas);
    const lines = [`${count} × ${height} × ${width}`, `${layer.parameters.toLocaleString("en")} parameters`];
    const others = layer.sources.map(source => source.layer).filter(source => source !== number - 1);
    if (others.length) lines.push(`reads ${others.map(other => page.layers[other].name).join(", ")}`);
    const name = document.createElement("b");
    name.textContent = layer.name;
    header.append(name, layer.title, ...lines.flatMap(line => [document.createElement("br"), line]));
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${count} maps of ${layer.name}; arrow keys select one`);
    canvas.onclick = event => {
      const {columns, size} = boxes[number];
      const column = Math.floor(event.offsetX / size.across), row = Math.floor(event.offsetY / size.down);
      select({layer: number, channel: Math.min(row * columns + column, count - 1)});
    };
    onArrows(canvas, (down, across) => {
      const channel = selected.layer === number ? selected.channel + across + down * boxes[number].columns : 0;
      select({layer: number, channel: clamp(channel, count)});
    });
    box.append(header, canvas);
    get("layers").append(box);
  });
}

// Curves from a layer to each later one that is not the next.
function drawArcs() {
  const paths = [], left = get("layers").getBoundingClientRect().left;
  const middles = boxes.map(({box}) => box.getBoundingClientRect().left - left + 30);
  let highest = 0;
  page.layers.forEach((layer, number) => layer.sources.forEach(source => {
    if (source.layer === number - 1) return;
    const from = middles[source.layer], to = middles[number], height = Math.min(46, 14 + 4 * (number - source.layer));
    highest = Math.max(highest, height);
    paths.push([from, to, height]);
  }));
  const svg = get("arcs");
  svg.style.width = `${get("layers").scrollWidth}px`;
  svg.style.height = `${highest && highest + 4}px`;
  svg.replaceChildren(...paths.map(([from, to, height]) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path"), base = highest + 4, top = base - height;
    path.setAttribute("d", `M${from} ${base} C${from} ${top} ${from} ${top} ${(from + to) / 2} ${top} S${to} ${top} ${to} ${base} m-4 -6 l4 6 l4 -6`);
    return path;
  }));
}

function onArrows(element, move) {
  const keys = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  element.addEventListener("keydown", event => {
    if (!keys[event.key]) return;
    event.preventDefault();
    move(...keys[event.key]);
  });
}

function drawLayer(number) {
  const layer = page.layers[number], box = boxes[number], values = valuesOf(selected.state, number, selected.image);
  drawMaps(box.canvas, values, layer.shape, {...box, limit: layer.limit, signed: layer.signed});
  box.stale = false;
  box.box.setAttribute("aria-current", number === selected.layer);
  if (number !== selected.layer) return;
  const {across, down} = box.size, c = selected.channel;
  outline(box.canvas, c % box.columns * across, Math.floor(c / box.columns) * down, across - 2, down - 2);
}

function drawImages() {
  [...get("images").children].forEach((button, i) => {
    const values = probabilities(selected.state, i), best = values.indexOf(Math.max(...values)), {name, label} = page.images[i];
    button.setAttribute("aria-checked", i === selected.image);
    button.tabIndex = i === selected.image ? 0 : -1;
    button.classList.toggle("wrong", label !== null && label !== best);
    button.title = `${name}: ${label === null ? "" : `true ${page.classes[label]}, `}predicted ${page.classes[best]}`;
    button.setAttribute("aria-label", button.title);
    if (i === selected.image) get("truth").textContent = `${button.title} with ${percent(values[best])}`;
  });
}

// Change the selection and draw what depends on it.
function select(change) {
  const before = {...selected};
  const moved = name => name in change && change[name] !== before[name];
  if (moved("layer") || change.first) {
    const [, height, width] = page.layers[change.layer].shape;
    Object.assign(selected, {channel: 0, pixel: [height >> 1, width >> 1]});
  }
  Object.assign(selected, change);
  if (change.image !== undefined && moved("image")) selected.target = Math.max(0, bestOf(selected.image));
  if (change.first || moved("state") || moved("image")) {
    boxes.forEach((box, number) => {
      box.stale = true;
      if (box.visible) drawLayer(number);
    });
    drawImages();
  } else if (moved("layer") || moved("channel")) {
    for (const number of new Set([before.layer, selected.layer])) drawLayer(number);
  }
  get("state-name").textContent = page.states[selected.state].title;
  if (change.first || ["state", "image", "layer", "channel", "pixel"].some(name => name in change)) {
    drawChannel();
    drawPixel();
  }
  const other = change.first || moved("layer") || moved("channel");
  if (other || moved("state")) drawKernels();
  if (other) {
    drawPatches();
    drawMeans();
  }
  if (change.first || moved("image") || "window" in change) drawOcclusion();
  if (change.first || moved("image") || moved("target")) {
    get("target").value = selected.target;
    drawHeat();
  }
}

const bestOf = image => {
  const values = probabilities(page.states.length - 1, image);
  return values.indexOf(Math.max(...values));
};

// Call with the row and column of the map under the pointer, while it is pressed or after a click.
function onDrag(canvas, shapeOf, act) {
  const place = event => {
    const [, height, width] = shapeOf(), box = canvas.getBoundingClientRect();
    const y = (event.clientY - box.top) / box.height * height, x = (event.clientX - box.left) / box.width * width;
    act(clamp(Math.floor(y), height), clamp(Math.floor(x), width));
  };
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); place(event); };
  canvas.onpointermove = event => { if (event.buttons || canvas.id === "covered") place(event); };
}

function listen() {
  page.images.forEach((_, i) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    button.setAttribute("role", "radio");
    drawImage(canvas, i, Math.max(1, Math.floor(48 / page.layers[0].shape[1])));
    button.append(canvas);
    button.onclick = () => select({image: i});
    get("images").append(button);
  });
  onArrows(get("images"), (down, across) => {
    select({image: clamp(selected.image + down + across, page.images.length)});
    get("images").children[selected.image].focus();
  });
  get("epochs").hidden = page.states.length < 2;
  get("state").max = page.states.length - 1;
  get("state").value = selected.state;
  get("state").oninput = event => select({state: Number(event.target.value)});
  const layerShape = () => page.layers[selected.layer].shape, imageShape = () => page.layers[0].shape;
  onDrag(get("map"), layerShape, (y, x) => select({pixel: [y, x]}));
  onArrows(get("map"), (down, across) => {
    const [, height, width] = layerShape(), [y, x] = selected.pixel;
    select({pixel: [clamp(y + down, height), clamp(x + across, width)]});
  });
  const [rows, columns] = page.windows, nearest = (spans, at) => spans.reduce((best, [begin, end], i) => {
    const distance = Math.abs((begin + end) / 2 - at - 0.5);
    return distance < best[0] ? [distance, i] : best;
  }, [Infinity, 0])[1];
  onDrag(get("covered"), imageShape, (y, x) => select({window: [nearest(rows, y), nearest(columns, x)]}));
  onArrows(get("covered"), (down, across) => {
    const [p, q] = selected.window;
    select({window: [clamp(p + down, rows.length), clamp(q + across, columns.length)]});
  });
  page.classes.forEach((name, k) => get("target").add(new Option(name, k)));
  get("target").onchange = event => select({target: Number(event.target.value)});
  new ResizeObserver(drawArcs).observe(get("layers"));
}

unpackAll().then(async () => {
  if (get("atlas")) await get("atlas").decode();
  listen();
  buildNetwork();
  const [rows, columns] = page.windows;
  select({first: true, layer: Math.min(1, page.layers.length - 1), window: [rows.length >> 1, columns.length >> 1], target: bestOf(0)});
  drawArcs();
  document.documentElement.dataset.ready = "yes";
});
