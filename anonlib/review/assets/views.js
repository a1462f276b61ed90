// The image that is shown, released and original: fetched ahead, fitted to its pane, with boxes over it to draw.
import { send } from "/token.js";

const SVG = "http://www.w3.org/2000/svg";
const LEAST = 4; // px; a smaller box is a slip of the hand
const KEPT = 12; // pictures

// `drawn`: boxes [x0, y0, x1, y1] in px of the upright image. `seen`: the image is really on the screen.
export const view = { drawn: [], seen: false };
export const show = { original: false, boxes: false, large: false };

let shown = null; // { which, image, grow }
let tell = () => {};
const kept = new Map(); // "number/kind" -> promise of a blob's URL, or of a problem

function picture(which, kind) {
  const name = `${which}/${kind}`;
  if (!kept.has(name)) {
    kept.set(name, send(`/image/${name}`).then(async (answer) =>
      answer.ok ? { url: URL.createObjectURL(await answer.blob()) } : { problem: (await answer.json()).problem }));
  }
  const found = kept.get(name);
  kept.delete(name);
  kept.set(name, found); // the latest last
  for (const old of [...kept.keys()].slice(0, -KEPT)) release(old);
  return found;
}

// Whatever was fetched: the release has changed.
export function forget() {
  shown = null;
  [...kept.keys()].forEach(release);
}

function release(name) {
  kept.get(name).then((loaded) => loaded.url && URL.revokeObjectURL(loaded.url));
  kept.delete(name);
}

function kinds(image) {
  const shown = [];
  if (image.released) shown.push("released");
  if (image.size && (show.original || !image.released)) shown.push("original");
  return shown;
}

// Show image `image`, which is number `which`, and fetch the pictures of `next`: [number, image], or nothing.
export async function showPictures(which, image, grow, next) {
  if (!shown || shown.which !== which) blank();
  shown = { which, image, grow };
  const wanted = kinds(image);
  const found = await Promise.all(wanted.map((kind) => picture(which, kind)));
  for (const kind of ["released", "original"]) {
    if (!shown || shown.which !== which) return; // the person went on
    const figure = document.getElementById(`view-${kind}`), place = wanted.indexOf(kind);
    figure.hidden = place < 0 && (kind === "released" || wanted.length > 0);
    await put(figure, place < 0 ? { problem: "this file cannot be decoded" } : found[place]);
  }
  view.seen = shown !== null && shown.which === which && found.every((loaded) => loaded.url);
  fit();
  overlay();
  if (next.length) kinds(next[1]).forEach((kind) => picture(next[0], kind));
}

// Nothing is judged by the picture before it.
function blank() {
  view.seen = false;
  document.querySelectorAll(".sheet").forEach((sheet) => { sheet.hidden = true; });
  tell(view);
}

async function put(figure, found) {
  const drawing = figure.querySelector("img");
  figure.querySelector(".nothing").textContent = found.problem ? `There is no image to show: ${found.problem}.` : "";
  if (found.url && drawing.src !== found.url) {
    drawing.src = found.url;
    await drawing.decode();
  }
  figure.querySelector(".sheet").hidden = !found.url;
}

export function fit() {
  const size = shown && shown.image.size;
  if (!size) return;
  for (const figure of document.querySelectorAll(".view:not([hidden])")) {
    const pane = figure.querySelector(".pane"), sheet = figure.querySelector(".sheet");
    const high = matchMedia("(max-width: 860px)").matches ? innerHeight * 0.6 : pane.clientHeight - 4;
    const whole = Math.min((pane.clientWidth - 4) / size[1], high / size[0], 4);
    const scale = show.large ? Math.max(1, 2.5 * whole) : whole;
    sheet.style.width = `${Math.round(size[1] * scale)}px`;
    sheet.style.height = `${Math.round(size[0] * scale)}px`;
    figure.querySelector("svg").setAttribute("viewBox", `0 0 ${size[1]} ${size[0]}`);
  }
}

function shape(kind, attributes, ...classes) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.classList.add(...classes);
  return made;
}

export function overlay() {
  if (!shown) return;
  for (const svg of document.querySelectorAll(".sheet svg")) {
    const known = (show.boxes ? shown.image.faces : []).map((face) =>
      shape("rect", sides(face.box), "known", ...(face.fallback ? ["fallback"] : [])));
    svg.replaceChildren(...known, ...view.drawn.flatMap((box) => [cover(box), shape("rect", sides(box), "drawn")]));
  }
  tell(view);
}

// The flat ellipse that will hide a box.
function cover([x0, y0, x1, y1]) {
  const [wider, higher] = shown.grow;
  return shape("ellipse", { cx: (x0 + x1) / 2, cy: (y0 + y1) / 2, rx: ((x1 - x0) / 2) * wider,
    ry: ((y1 - y0) / 2) * higher }, "cover");
}

// `listener` is called with the view whenever it changes.
export function whenDrawn(listener) {
  tell = listener;
}

export function clear() {
  view.drawn = [];
  overlay();
}

export function drop() {
  view.drawn.pop();
  overlay();
}

const sides = ([x0, y0, x1, y1]) => ({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 });

function drawOn(svg) {
  let start = null;
  const point = (event) => {
    const area = svg.getBoundingClientRect(), [height, width] = shown.image.size;
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    return [within(((event.clientX - area.left) / area.width) * width, width),
      within(((event.clientY - area.top) / area.height) * height, height)];
  };
  const boxTo = ([x, y]) => [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x), Math.max(start[1], y)];
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = point(event);
    svg.setPointerCapture(event.pointerId);
    view.drawn.push(boxTo(start));
  });
  svg.addEventListener("pointermove", (event) => {
    if (!start) return;
    view.drawn[view.drawn.length - 1] = boxTo(point(event));
    overlay();
  });
  const end = () => {
    if (!start) return;
    start = null;
    view.drawn = view.drawn.filter(([x0, y0, x1, y1]) => x1 - x0 >= LEAST && y1 - y0 >= LEAST);
    overlay();
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
}

document.querySelectorAll(".sheet svg").forEach(drawOn);
