// The live page: pictures go to the server one by one, and what the network makes of them is drawn as it comes.

import { Frames } from "./live_frames.js";
import { listen } from "./live_keys.js";
import { Maps } from "./live_maps.js";
import { Source } from "./live_source.js";

const root = document.querySelector("[data-live]");
const part = (name) => document.querySelector(`[data-${name}]`);
const [layer, unit, method] = ["layer", "unit", "method"].map(part);
const [holdsUnit, holdsFrame] = ["unit", "frame"].map((kind) => document.querySelector(`[data-freeze=${kind}]`));
const source = new Source(part("video"), Number(root.dataset.side));
const maps = new Maps(part("maps"));
const still = matchMedia("(prefers-reduced-motion: reduce)");

let frames = null;
let held = null; // what is projected while the cursor moves on
let place = null; // the row and column that are held, null for the strongest
let last = null; // what was answered last: the facts, and the frame's canvas
let changed = true; // whether there is another wish than that which was answered
const times = [];

const units = () => Number(layer.selectedOptions[0].dataset.units);
const aimed = () => held ?? { layer: layer.value, unit: unit.valueAsNumber, at: place };

function wish(picture) {
  const aim = aimed();
  return { layer: layer.value, of: aim.layer, unit: aim.unit, at: aim.at, method: method.value, picture };
}

async function tick() {
  if (!frames || frames.busy || tick.taking || !(source.moving || changed)) return;
  tick.taking = true;
  const next = await source.next();
  tick.taking = false;
  if (!next) { if (source.moving) setTimeout(tick, 50); return; }
  changed = false;
  if (!frames?.send(wish(next.picture), next.blob, (facts, images) => answered(facts, images, next.canvas))) changed = true;
}

async function answered(facts, images, canvas) {
  if (facts.problem) {
    tell(facts.problem);
    setTimeout(tick, 500);
    return;
  }
  const [sheet, projection] = await Promise.all(facts.images.map((name) => createImageBitmap(images[name])));
  part("panes").hidden = false;
  last?.projection?.close();
  last = { facts, canvas, projection };
  maps.show(sheet, facts.maps);
  draw();
  rate(facts.ms);
  requestAnimationFrame(tick);
}

// Drawing --------------------------------------------------------------------------------------------------------

function draw() {
  if (!last) return;
  const { facts, canvas, projection } = last;
  const { activation } = facts;
  const shown = facts.layer === layer.value;
  const own = activation && activation.of === layer.value;
  if (shown) {
    maps.draw(unit.valueAsNumber, held && held.layer === layer.value ? held.unit : null);
    maps.enlarge(part("map"), unit.valueAsNumber, own ? activation.at : null, own ? activation.grid : null);
  }
  seen(facts, canvas);
  patch(facts, canvas, projection);
  said(facts);
  const name = layer.selectedOptions[0].textContent.replace(/ \(.*/, "");
  leads(part("title"), `Unit ${unit.value} of ${name}`, layer.value, unit.value);
  part("maps").setAttribute("aria-label", `${facts.maps.units} feature maps of ${name}; unit ${unit.value} is chosen`);
  part("scale").textContent = `${facts.maps.units} maps, from ${short(facts.maps.low)} to ${short(facts.maps.high)}, one colour scale for all`;
}

// A link stays the same element from frame to frame, or nobody could click at it.
function leads(link, text, of, number) {
  if (link.textContent === text) return;
  link.href = `${root.dataset.network}/layer/${of}/unit/${number}`;
  link.textContent = text;
}

const short = (value) => Number(value.toPrecision(3)).toString();

// What the network reads, with a frame around what the projected unit sees.
function seen({ seen: [left, top, right, bottom], size: [height, width], activation }, canvas) {
  const view = part("seen");
  const [wide, high] = whole(canvas, left, top, right, bottom);
  view.height = Math.round((view.width * height) / width);
  const pen = view.getContext("2d");
  pen.clearRect(0, 0, view.width, view.height);
  pen.drawImage(canvas, wide[0], high[0], wide[1], high[1], 0, 0, view.width, view.height);
  if (!activation) return;
  const [y0, x0, y1, x1] = activation.box;
  const scale = view.width / width;
  pen.strokeStyle = getComputedStyle(view).getPropertyValue("--accent");
  pen.lineWidth = 3;
  pen.strokeRect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
}

// The part of a frame that the network reads: where it begins and how far it goes, across and down.
function whole(canvas, left, top, right, bottom) {
  return source.given ? [[0, canvas.width], [0, canvas.height]] : [[left, right - left], [top, bottom - top]];
}

function patch({ seen: [left, top, right, bottom], size: [height, width], activation, refused }, canvas, projection) {
  const views = [part("patch"), part("projection")];
  for (const view of views) view.getContext("2d").clearRect(0, 0, view.width, view.height);
  part("remarks").textContent = refused || activation?.remarks.join("; ") || "";
  part("projected").hidden = !activation;
  if (!activation) return;
  const [y0, x0, y1, x1] = activation.box;
  const [wide, high] = whole(canvas, left, top, right, bottom);
  const [across, down] = [wide[1] / width, high[1] / height];
  const cut = [wide[0] + x0 * across, high[0] + y0 * down, (x1 - x0) * across, (y1 - y0) * down];
  fitted(views[0], canvas, cut, x1 - x0, y1 - y0);
  if (projection) fitted(views[1], projection, [0, 0, projection.width, projection.height], x1 - x0, y1 - y0);
  const at = activation.at ? ` at row ${activation.at[0]}, column ${activation.at[1]}` : "";
  const name = [...layer.options].find((each) => each.value === activation.of).textContent.replace(/ \(.*/, "");
  leads(part("aimed"), `${held ? "Held: unit" : "Unit"} ${activation.unit} of ${name}`, activation.of, activation.unit);
  part("value").textContent = `: ${short(activation.value ?? NaN)}${at}`;
}

function fitted(view, image, [x, y, w, h], width, height) {
  const pen = view.getContext("2d");
  const scale = Math.min(view.width / width, view.height / height);
  const [wide, high] = [width * scale, height * scale];
  pen.imageSmoothingEnabled = false;
  pen.drawImage(image, x, y, w, h, (view.width - wide) / 2, (view.height - high) / 2, wide, high);
}

function said({ said: rows, answers }) {
  const list = part("said");
  while (list.children.length < rows.length) {
    const row = document.createElement("li");
    row.append(document.createElement("span"), document.createElement("meter"), document.createElement("b"));
    list.append(row);
  }
  rows.forEach((row, at) => {
    const [name, bar, value] = list.children[at].children;
    name.textContent = name.title = row.name;
    bar.hidden = answers === "value" || answers === "score";
    bar.value = row.value;
    value.textContent = row.text;
  });
}

function rate(ms) {
  const now = performance.now();
  times.push(now);
  while (times[0] < now - 2000) times.shift();
  if (now - (rate.told ?? 0) < 400) return;
  rate.told = now;
  const count = source.moving && times.length > 1 ? `${(((times.length - 1) * 1000) / (now - times[0])).toFixed(1)} frames/s · ` : "";
  part("rate").textContent = `${count}${Math.round(ms)} ms at the server`;
}

function tell(text) {
  part("told").textContent = text;
  part("told").hidden = !text;
}

// What one can do --------------------------------------------------------------------------------------------------

function renew() {
  unit.max = units() - 1;
  unit.value = Math.max(0, Math.min(units() - 1, unit.valueAsNumber || 0));
  const asked = new URLSearchParams({ layer: layer.value, unit: unit.value, method: method.value });
  if (part("picture").value) asked.set("picture", part("picture").value);
  history.replaceState(null, "", `?${asked}`);
  changed = true;
  draw();
  tick();
}

function choose(index) {
  if (!layer.options[index]) return;
  layer.selectedIndex = index;
  place = null;
  renew();
}

function hold(what) {
  held = what;
  holdsUnit.checked = Boolean(what);
  renew();
}

function holdFrame(on) {
  source.held = holdsFrame.checked = on;
  changed = true;
  tick();
}

async function begin(open) {
  tell("");
  try {
    await open();
    if (still.matches && !source.given) {
      tell("Your system asks for less motion, so the picture is held: f lets it go on.");
      holdFrame(true);
    } else if (!source.given) {
      holdFrame(false);
    }
    if (!frames) {
      frames = new Frames(root.dataset.frames, () => { frames = null; tell("The explorer does not answer any more: start it again, and load this page again."); });
      await frames.opened;
    }
    renew();
  } catch (error) {
    tell(error.message);
  }
}

const actions = {
  move(across, down) { unit.value = Math.max(0, Math.min(units() - 1, unit.valueAsNumber + across + down * maps.across)); renew(); },
  u() { choose(layer.selectedIndex - 1); },
  o() { choose(layer.selectedIndex + 1); },
  d() { hold(held ? null : aimed()); },
  b() { method.selectedIndex = (method.selectedIndex + 1) % method.options.length; renew(); },
  f() { holdFrame(!source.held); },
  h() { const help = part("help"); if (help.open) help.close(); else help.showModal(); },
  Escape() { place = null; holdFrame(false); hold(null); },
};
listen(part("keys"), actions);

const pictured = () => begin(() => source.picture(part("picture").value, `${root.dataset.network}/picture/${part("picture").value}/input.webp`));
document.querySelector("[data-do=camera]").addEventListener("click", () => begin(() => { part("picture").value = ""; return source.camera(); }));
part("film").addEventListener("change", (event) => { if (event.target.files.length) begin(() => { part("picture").value = ""; return source.film(event.target.files[0]); }); });
part("picture").addEventListener("change", () => { if (part("picture").value) pictured(); });
document.querySelector("[data-do=help]").addEventListener("click", actions.h);
layer.addEventListener("change", () => choose(layer.selectedIndex));
for (const each of [unit, method]) each.addEventListener("change", renew);
holdsUnit.addEventListener("change", () => hold(holdsUnit.checked ? aimed() : null));
holdsFrame.addEventListener("change", () => holdFrame(holdsFrame.checked));
part("maps").addEventListener("click", (event) => {
  const scale = event.target.width / event.target.clientWidth;
  const at = maps.unit(event.offsetX * scale, event.offsetY * scale);
  if (at >= 0) { unit.value = at; renew(); }
});
part("map").addEventListener("click", (event) => {
  const grid = last?.facts.activation?.of === layer.value ? last.facts.activation.grid : null;
  if (!grid) return;
  place = maps.place(event.offsetX / event.target.clientWidth, event.offsetY / event.target.clientHeight, grid);
  renew();
});
for (const kind of ["play", "seeked"]) part("video").addEventListener(kind, () => { changed = true; tick(); });
document.addEventListener("visibilitychange", tick);
addEventListener("resize", draw);
addEventListener("pagehide", () => { source.stop(); frames?.close(); });
if (part("picture").value) pictured();
