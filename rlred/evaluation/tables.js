// Sorts a table by the column whose heading is clicked, and filters the rows of a long one by what is typed above it.
document.addEventListener("DOMContentLoaded", () => {
  const number = (text) => {
    const found = text.replace(/,(?=\d{3})/g, "").match(/^[^\d-]*(-?\d*\.?\d+)/);
    return found ? Number(found[1]) : NaN;
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
    if (!body || body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      const text = (row) => row.cells[column].textContent.trim();
      const sort = () => {
        const rows = [...body.rows], known = rows.filter((row) => !isNaN(number(text(row))));
        const numeric = 2 * known.length > rows.length, before = head.getAttribute("aria-sort");
        const up = before ? before === "descending" : !numeric;  // first the largest numbers, and words from a to z
        const compare = (one, two) =>
          numeric ? number(text(one)) - number(text(two)) : text(one).localeCompare(text(two));
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const sorted = (numeric ? known : rows).sort((one, two) => (up ? 1 : -1) * compare(one, two));
        body.append(...sorted, ...rows.filter((row) => !sorted.includes(row)));  // what was not measured stands last
      };
      head.tabIndex = 0;
      head.title = "Sort by this column";
      head.style.cursor = "pointer";
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
    if (body.rows.length < 8) continue;
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Show rows with ...";
    field.setAttribute("aria-label", "Show only the rows that hold this text");
    field.addEventListener("input", () => {
      for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(field.value.toLowerCase());
    });
    (table.closest(".scroll, .md-typeset__scrollwrap") || table).before(field);
  }
});
