// Makes a table sortable by each of its columns: numbers by value, then text.
function number(text) {
  const found = parseFloat(text.replace("−", "-"));
  return Number.isNaN(found) ? null : found;
}

function compare(one, other) {
  const [a, b] = [number(one), number(other)];
  if (a !== null && b !== null) return a - b;
  if (a === null && b === null) return one.localeCompare(other);
  return a === null ? 1 : -1;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((x, y) => (down ? -1 : 1) * compare(x.cells[at].textContent, y.cells[at].textContent));
      table.tBodies[0].append(...rows);
    });
  });
}
