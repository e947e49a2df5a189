// Makes the table of studies sortable by each column, and opens the hints of a student whose name was clicked.
sortable(document.getElementById("class"));

function open() {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named) {
    named.open = true;
    named.scrollIntoView();
  }
}
addEventListener("hashchange", open);
open();
