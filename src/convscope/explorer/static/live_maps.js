// The maps of a layer as cells of a canvas, and the cursor among them.

const ROOM = 560;
const GAP = 3;

export class Maps {
  #canvas;
  #sheet = null;
  #facts = null;
  #across = 1;
  #cell = 16;

  constructor(canvas) { this.#canvas = canvas; }

  get across() { return this.#across; }

  show(sheet, facts) {
    this.#sheet?.close();
    this.#sheet = sheet;
    this.#facts = facts;
  }

  // Draw all cells; `cursor` has a solid frame, `held` a dashed one.
  draw(cursor, held) {
    if (!this.#facts) return;
    const { units } = this.#facts;
    const width = this.#canvas.parentElement.clientWidth;
    const side = Math.floor(Math.sqrt((width * ROOM) / units)) - GAP;
    this.#cell = Math.max(14, Math.min(96, side));
    const whole = this.#cell + GAP;
    this.#across = Math.max(1, Math.min(units, Math.floor((width - GAP) / whole)));
    this.#canvas.width = this.#across * whole + GAP;
    this.#canvas.height = Math.ceil(units / this.#across) * whole + GAP;
    const pen = this.#canvas.getContext("2d");
    for (let unit = 0; unit < units; unit += 1) {
      const [x, y] = this.#corner(unit);
      this.#paint(pen, unit, x, y, this.#cell);
    }
    const ink = getComputedStyle(this.#canvas).getPropertyValue("--accent");
    if (held !== null && held < units) this.#frame(pen, held, ink, [4, 3]);
    this.#frame(pen, cursor, ink, []);
  }

  // Draw one unit's map as large as a canvas, with a cross at a place of a grid.
  enlarge(canvas, unit, place, grid) {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.#facts) return;
    const [left, top, width, height] = this.#paint(pen, unit, 0, 0, canvas.width);
    if (!place || !grid) return;
    const x = left + ((place[1] + 0.5) * width) / grid[1];
    const y = top + ((place[0] + 0.5) * height) / grid[0];
    pen.strokeStyle = getComputedStyle(canvas).getPropertyValue("--accent");
    pen.lineWidth = 2;
    pen.strokeRect(x - 6, y - 6, 12, 12);
  }

  // The row and column of a grid at a point of an enlarged map, each from 0 to 1.
  place(x, y, grid) {
    const { rows, columns } = this.#facts;
    const longest = Math.max(rows, columns);
    const along = (at, extent, count) => {
      const inside = (at - (1 - extent / longest) / 2) / (extent / longest);
      return Math.max(0, Math.min(count - 1, Math.floor(inside * count)));
    };
    return [along(y, rows, grid[0]), along(x, columns, grid[1])];
  }

  // The unit at a point of the canvas, in its own pixels; -1 beside them.
  unit(x, y) {
    const whole = this.#cell + GAP;
    const column = Math.floor(x / whole);
    const unit = Math.floor(y / whole) * this.#across + column;
    return column < this.#across && unit < (this.#facts?.units ?? 0) ? unit : -1;
  }

  #corner(unit) {
    const whole = this.#cell + GAP;
    return [GAP + (unit % this.#across) * whole, GAP + Math.floor(unit / this.#across) * whole];
  }

  #paint(pen, unit, x, y, side) {
    const { across, rows, columns } = this.#facts;
    const scale = side / Math.max(rows, columns);
    const width = columns * scale;
    const height = rows * scale;
    const left = x + (side - width) / 2;
    const top = y + (side - height) / 2;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.#sheet, (unit % across) * columns, Math.floor(unit / across) * rows, columns, rows, left, top, width, height);
    return [left, top, width, height];
  }

  #frame(pen, unit, ink, dashes) {
    const [x, y] = this.#corner(unit);
    pen.setLineDash(dashes);
    pen.strokeStyle = ink;
    pen.lineWidth = GAP;
    pen.strokeRect(x - GAP / 2, y - GAP / 2, this.#cell + GAP, this.#cell + GAP);
  }
}
