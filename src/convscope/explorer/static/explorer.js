// What pages gain by a script: pictures dropped or pasted, and arrow keys in grids. All of them work without it.

for (const form of document.querySelectorAll("[data-drop]")) {
  const chosen = form.querySelector("input[type=file]");
  const take = (files) => {
    if (!files.length) return;
    const held = new DataTransfer();
    held.items.add(files[0]);
    chosen.files = held.files;
    form.submit();
  };
  form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
}

// A grid of many links is one stop of the tab key; arrows go on inside.
for (const grid of document.querySelectorAll("[data-grid]")) {
  const shown = () => [...grid.querySelectorAll("li:not([hidden]) a[href]")];
  const begin = () => shown().forEach((link, at) => { link.tabIndex = at ? -1 : 0; });
  begin();
  grid.addEventListener("arranged", begin);
  grid.addEventListener("keydown", (event) => {
    const links = shown();
    const at = links.indexOf(document.activeElement);
    const across = Math.max(1, getComputedStyle(grid).gridTemplateColumns.split(" ").length);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : at + (step ?? 0);
    if (at < 0 || to === at || !links[to] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    links[at].tabIndex = -1;
    links[to].tabIndex = 0;
    links[to].focus();
  });
}
