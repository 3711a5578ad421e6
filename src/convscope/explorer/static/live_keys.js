// The keys of the deep visualization toolbox. They are off where somebody writes, and where the box is not ticked.

const MOVES = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  j: [-1, 0], l: [1, 0], i: [0, -1], k: [0, 1],
};
const FAST = 5;
const WRITING = "input:not([type=checkbox]), select, textarea, video, [contenteditable]";
const KEPT = "convscope keys";

export function listen(box, actions) {
  box.checked = remembered() !== "off";
  box.addEventListener("change", () => remember(box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    if (!box.checked || event.ctrlKey || event.altKey || event.metaKey || event.target.closest(WRITING)) return;
    if (document.querySelector("dialog[open]") && event.key !== "h") return;
    const move = MOVES[event.key] ?? MOVES[event.key.toLowerCase()];
    if (move) {
      const capital = event.key.length === 1 && event.key !== event.key.toLowerCase();
      const step = event.shiftKey || capital ? FAST : 1;
      actions.move(move[0] * step, move[1] * step);
    } else if (actions[event.key]) {
      actions[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
}

function remembered() {
  try { return localStorage.getItem(KEPT); } catch { return null; }
}

function remember(value) {
  try { localStorage.setItem(KEPT, value); } catch { /* nothing is remembered where the browser keeps nothing */ }
}
