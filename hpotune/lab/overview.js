// Makes the table of studies sortable by each column, and opens the hints of a student whose name was clicked.
const table = document.getElementById("class");
const heads = [...table.tHead.rows[0].cells];

function compare(one, other) {
  const [a, b] = [parseFloat(one.replace("−", "-")), parseFloat(other.replace("−", "-"))];
  if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other);
  return Number.isNaN(a) ? 1 : -1;
}

function open() {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named) {
    named.open = true;
    named.scrollIntoView();
  }
}
addEventListener("hashchange", open);
open();

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
