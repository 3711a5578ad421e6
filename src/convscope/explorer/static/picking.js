// A click on a feature map shows that activation beside the maps; arrow keys go on from there. Without a script it is a page.

const sheet = document.querySelector(".sheet");
const pick = sheet.querySelector(".pick");
const numbers = [...sheet.querySelectorAll(".numbers li")];
const units = numbers.map((each) => each.querySelector("b").textContent);
const panel = document.querySelector("[data-picked]");
const mark = document.createElement("span");

let shown = null; // the activation that is shown, as its page's JSON tells it
let wanted = ""; // the address that is asked for next: of many, only the last
let asking = false;

mark.className = "mark-at";
mark.hidden = true;
sheet.append(mark);
pick.tabIndex = 0;
pick.setAttribute("aria-describedby", "picking");

async function show(address) {
  wanted = address;
  while (wanted && !asking) {
    const next = wanted;
    wanted = "";
    asking = true;
    try {
      await fill(next);
    } catch {
      tell("The explorer does not answer: start it again, and load this page again.");
    }
    asking = false;
  }
}

async function fill(address) {
  const answer = await fetch(address);
  const found = await answer.json();
  if (!answer.ok) { tell(found.detail); return; }
  const page = new URL(answer.url).pathname.replace(/\/at\/[^/]*$/, `/at/${found.y},${found.x}`);
  const images = ["patch", "projection"].map((kind) => {
    const image = new Image();
    image.src = `${page}/${kind}-${found.method}.webp`;
    image.alt = kind === "patch" ? "what the unit sees" : "its projection";
    image.className = "fine";
    return image;
  });
  await Promise.all(images.map((image) => image.decode()));
  shown = { ...found, page };
  const { network, layer, unit, value, y, x } = found;
  panel.replaceChildren(
    element("h3", link(`/net/${network.id}/layer/${layer.id}/unit/${unit}`, `Unit ${unit} of ${layer.name}`)),
    element("p", `${Number(value.toPrecision(3))} at row ${y}, column ${x}`),
    element("div", figure(images[0], "what it sees"), figure(images[1], "its projection: grey is 0")),
    element("p", link(page, "This activation")),
  );
  panel.hidden = false;
  place();
}

// Frame the place on its map: a cell is as wide as its number, and holds the map in whole pixels where it can.
function place() {
  const cell = numbers[units.indexOf(String(shown.unit))];
  mark.hidden = !cell;
  if (!cell) return;
  const [rows, columns] = shown.grid;
  const ratio = cell.clientWidth / Math.max(rows, columns);
  const factor = ratio > 1 ? Math.floor(ratio) : ratio;
  const middle = (count) => (cell.clientWidth - Math.trunc(count * factor)) / 2;
  const side = Math.max(9, factor + 4);
  mark.style.left = `${cell.offsetLeft + middle(columns) + (shown.x + 0.5) * factor - side / 2}px`;
  mark.style.top = `${cell.offsetTop + middle(rows) + (shown.y + 0.5) * factor - side / 2}px`;
  mark.style.width = mark.style.height = `${side}px`;
}

function tell(text) {
  panel.replaceChildren(element("p", text));
  panel.hidden = false;
}

function element(name, ...inside) {
  const made = document.createElement(name);
  made.append(...inside);
  return made;
}

function link(address, text) {
  const made = element("a", text);
  made.href = address;
  return made;
}

function figure(image, text) {
  return element("figure", image, element("figcaption", text));
}

pick.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (event.detail) show(`${pick.href}.json?${Math.floor(event.offsetX)},${Math.floor(event.offsetY)}`);
  else show(shown ? `${shown.page}.json` : `${numbers[0].querySelector("a").pathname}.json`);
});

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

pick.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (!shown) { show(`${numbers[0].querySelector("a").pathname}.json`); return; }
  const at = units.indexOf(String(shown.unit));
  const across = getComputedStyle(sheet.querySelector(".numbers")).gridTemplateColumns.split(" ").length;
  const to = event.shiftKey ? Math.max(0, Math.min(units.length - 1, at + step[1] + step[0] * across)) : at;
  const [rows, columns] = shown.grid;
  const move = event.shiftKey ? [0, 0] : step;
  // What was asked for and has not come yet is gone on from, so that no key is lost.
  shown.y = Math.max(0, Math.min(rows - 1, shown.y + move[0]));
  shown.x = Math.max(0, Math.min(columns - 1, shown.x + move[1]));
  shown.unit = Number(units[to]);
  place();
  show(shown.page.replace(/\/unit\/.*/, `/unit/${units[to]}/at/${shown.y},${shown.x}.json`));
});
