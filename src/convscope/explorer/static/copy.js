// What a copy's pages gain by a script: the units of a layer in another order, or some of them, as its address says
// behind #. A classic script: a page that is opened from disk may load no module.

for (const grid of document.querySelectorAll("[data-grid]")) {
  const rows = [...grid.querySelectorAll("li[data-unit]")];
  const none = grid.querySelector(".none");
  const choices = [...document.querySelectorAll("[data-choice]")];
  const valueOf = (row, sort) => Number(row.dataset[sort] ?? NaN);

  const arrange = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const chosen = { sort: asked.get("sort") ?? "number", which: asked.get("which") ?? "all" };
    const before = (one, other) => {
      const [a, b] = [valueOf(one, chosen.sort), valueOf(other, chosen.sort)];
      return Number.isNaN(a) - Number.isNaN(b) || (b - a || 0) || one.dataset.unit - other.dataset.unit;
    };
    for (const row of [...rows].sort(before)) {
      row.hidden = chosen.which !== "all" && (chosen.which === "dead") !== ("dead" in row.dataset);
      const says = row.dataset[`${chosen.sort}Says`] ?? row.dataset.strongestSays;
      if (says !== undefined) row.querySelector(".says").textContent = says;
      grid.append(row);
    }
    if (none && rows.length) none.hidden = rows.some((row) => !row.hidden);
    for (const nav of choices) {
      nav.hidden = false;
      for (const link of nav.querySelectorAll("[data-value]")) {
        const { choice } = nav.dataset;
        link.hash = new URLSearchParams({ ...chosen, [choice]: link.dataset.value });
        if (chosen[choice] === link.dataset.value) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
    grid.dispatchEvent(new Event("arranged"));
  };

  if (rows.length) {
    window.addEventListener("hashchange", arrange);
    arrange();
  }
}
